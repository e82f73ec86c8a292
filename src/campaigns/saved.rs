//! The last good set of campaigns on disk: JSON with a schema version (1: of [`CampaignV1`]), replaced as a whole; only
//! its owner may read it.
//!
//! It is written beside what else goes on, never more often than `cache.save_interval_ms`, and not at all while
//! nothing changes: with 100,000 campaigns it has 50 MB, and its sync competes with those of clicks.
//!
//! It is read by all cores at once, cut into pieces where campaigns begin; one that has another shape than octo gives it is
//! read as a whole.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Campaigns, Source,
    format::CampaignV1,
    set::{Compiled, Sources, of_compiled, on_all_cores},
    shared::Shared,
};
use crate::{
    metrics,
    model::campaign::Campaign,
    private_file,
    redis::Redis,
    routing::{Routes, Targets},
};

/// Its name in the data directory.
pub(super) const NAME: &str = "campaigns.json";

const SCHEMA: u32 = 1;

/// Bytes that one core reads at a time, or a campaign more.
const PIECE_BYTES: usize = 256 * 1024;

/// What stands before the first campaign.
const LIST: &[u8] = b"\"campaigns\":[";

/// How a campaign begins behind another. Inside of a text the quotes would stand behind a backslash, and no id but a
/// campaign's is a text.
const NEXT: &[u8] = b",{\"id\":\"";

#[derive(Serialize)]
struct Out<'a> {
    schema: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    installation: Option<&'a str>,
    campaigns: OneByOne<'a>,
}

/// Campaigns that are written one by one: a copy of all of them at once would take their memory again.
struct OneByOne<'a>(&'a [Arc<Routes>]);

impl Serialize for OneByOne<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|routes| CampaignV1::from(routes.campaign.clone())))
    }
}

/// What was saved; `C` are the campaigns, or nothing where they are read apart.
#[derive(Deserialize)]
struct Saved<C> {
    schema: u32,
    /// Whose campaigns they are; releases before did not say.
    #[serde(default)]
    installation: Option<String>,
    campaigns: Vec<C>,
}

/// A campaign of the set that an octo saved in this data directory, by the key of its links.
pub fn saved_campaign(data_dir: &Path, key: &str) -> io::Result<Option<Campaign>> {
    let wanted = |v1| Some(Campaign::from(v1)).filter(|campaign| campaign.key.as_str() == key);
    let saved = load(&data_dir.join(NAME), || (), |(), v1| wanted(v1))?;
    Ok(saved.into_iter().flat_map(|saved| saved.campaigns).flatten().next())
}

/// The file, and whether it is behind.
pub(super) struct File {
    path: PathBuf,
    interval: Duration,
    is_behind: AtomicBool,
    behind: Notify,
    /// Held by the one who writes: when it was last written.
    written_at: Mutex<Option<Instant>>,
}

impl File {
    pub(super) fn new(path: PathBuf, interval: Duration) -> Self {
        let (is_behind, behind, written_at) = (AtomicBool::new(false), Notify::new(), Mutex::new(None));
        Self { path, interval, is_behind, behind, written_at }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that the set in memory is another one than the file has.
    pub(super) fn must_save(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
        self.behind.notify_one();
    }
}

impl Campaigns {
    /// Serves what an earlier start saved, if anything.
    pub(super) fn load_saved(&self) {
        let sources = StdMutex::new(Sources::default());
        let shared = |source| sources.lock().unwrap_or_else(PoisonError::into_inner).shared(source);
        let compiled = |targets: &mut Targets, v1| {
            let mut campaign = Campaign::from(v1);
            campaign.source = campaign.source.map(shared);
            Compiled::of(campaign, targets)
        };
        match load(self.file.path(), Targets::default, compiled) {
            Ok(None) => {}
            Ok(Some(saved)) => {
                let sources = sources.into_inner().unwrap_or_else(PoisonError::into_inner);
                self.exchange(of_compiled(saved.campaigns, sources));
                if let (Some(shared), Some(installation)) = (&self.shared, saved.installation) {
                    shared.redis().name(installation.into());
                }
                self.source.store(Source::Disk as u64, Ordering::Relaxed);
            }
            Err(error) => {
                let path = self.file.path().display();
                tracing::warn!(%path, %error, "the saved campaigns cannot be read; ignored");
            }
        }
    }

    /// Saves the set if it changed and the last time is long enough ago; otherwise [`Campaigns::keep_saved`] will. So
    /// a change that comes alone is on disk when it is answered.
    pub(super) async fn save_if_due(&self) {
        let mut written_at = self.file.written_at.lock().await;
        if written_at.is_none_or(|at| at.elapsed() >= self.file.interval) {
            self.save(&mut written_at).await;
        }
    }

    /// Saves what changed, at most once in an interval, and what is left at the stop signal.
    pub async fn keep_saved(&self, stop: &CancellationToken) {
        loop {
            if stop.run_until_cancelled(self.file.behind.notified()).await.is_none() {
                break;
            }
            let wait = self
                .file
                .written_at
                .lock()
                .await
                .map_or(Duration::ZERO, |at| self.file.interval.saturating_sub(at.elapsed()));
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
            self.save(&mut *self.file.written_at.lock().await).await;
        }
        self.save(&mut *self.file.written_at.lock().await).await;
    }

    async fn save(&self, written_at: &mut Option<Instant>) {
        if !self.file.is_behind.swap(false, Ordering::Relaxed) {
            return;
        }
        *written_at = Some(Instant::now());
        let set = || self.set.read().unwrap_or_else(PoisonError::into_inner);
        let campaigns: Vec<_> = set().by_key.values().cloned().collect();
        let (path, installation) =
            (self.file.path.clone(), self.shared.as_ref().map(Shared::redis).and_then(Redis::installation));
        let saving = tokio::task::spawn_blocking(move || write(&path, installation.as_deref(), &campaigns));
        match saving.await {
            Ok(Ok(bytes)) => metrics::campaigns_saved(bytes),
            Ok(Err(error)) => {
                self.file.must_save();
                tracing::warn!(path = %self.file.path.display(), %error, "cannot save the campaigns on disk");
            }
            Err(_) => self.file.must_save(),
        }
    }
}

/// Names, destinations and payouts are nobody else's business. Returns its bytes.
fn write(path: &Path, installation: Option<&str>, campaigns: &[Arc<Routes>]) -> io::Result<u64> {
    let bytes = serde_json::to_vec(&Out { schema: SCHEMA, installation, campaigns: OneByOne(campaigns) })?;
    private_file::replace(path, &bytes)?;
    Ok(bytes.len() as u64)
}

/// What is saved, with what `make` makes of each campaign, in any order; what `begin` makes is kept by a core from one
/// campaign to the next. `None` when there is none, or one of another schema.
fn load<K, C: Send>(
    path: &Path,
    begin: impl Fn() -> K + Sync,
    make: impl Fn(&mut K, CampaignV1) -> C + Sync,
) -> io::Result<Option<Saved<C>>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    // releases before left it readable for everybody
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(private_file::MODE)) {
        tracing::warn!(path = %path.display(), %error, "other users of this machine can read the saved campaigns");
    }
    if let Some((around, list)) = parts(&bytes) {
        let Saved { schema, installation, .. } = around;
        if schema != SCHEMA {
            return Ok(None);
        }
        let read = on_all_cores(pieces(list), &begin, |kept, piece| read(piece, |v1| make(kept, v1)));
        if let Ok(campaigns) = read.into_iter().collect::<Result<Vec<_>, _>>() {
            let campaigns = campaigns.into_iter().flatten().collect();
            return Ok(Some(Saved { schema, installation, campaigns }));
        }
    }
    let Saved { schema, installation, campaigns } = serde_json::from_slice::<Saved<CampaignV1>>(&bytes)?;
    let mut kept = begin();
    let campaigns = campaigns.into_iter().map(|v1| make(&mut kept, v1)).collect();
    Ok((schema == SCHEMA).then_some(Saved { schema, installation, campaigns }))
}

/// What stands around the campaigns, and between their brackets; `None`: it is not written as octo writes it.
fn parts(bytes: &[u8]) -> Option<(Saved<()>, &[u8])> {
    let start = find(bytes, LIST)? + LIST.len();
    let end = start + bytes[start..].iter().rposition(|byte| *byte == b']')?;
    let around = serde_json::from_slice(&[&bytes[..start], &bytes[end..]].concat()).ok()?;
    Some((around, &bytes[start..end]))
}

/// The campaigns of a list, cut behind the commas between some of them.
fn pieces(list: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::with_capacity(list.len() / PIECE_BYTES + 1);
    let mut rest = list;
    while let Some(at) = rest.get(PIECE_BYTES..).and_then(|far| find(far, NEXT)) {
        let (piece, behind) = rest.split_at(PIECE_BYTES + at);
        pieces.push(piece);
        rest = &behind[1..];
    }
    pieces.push(rest);
    pieces
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Reads campaigns with commas between them, one by one: all of a piece at once would take far more memory than is
/// needed for one.
fn read<C>(piece: &[u8], mut make: impl FnMut(CampaignV1) -> C) -> serde_json::Result<Vec<C>> {
    let mut campaigns = Vec::new();
    let mut rest = piece.trim_ascii_start();
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<CampaignV1>();
        if let Some(v1) = values.next() {
            campaigns.push(make(v1?));
        }
        rest = rest[values.byte_offset()..].trim_ascii_start();
        rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
    }
    Ok(campaigns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::campaign::Destination, routing::tests::campaign};

    fn names(path: &Path) -> io::Result<Option<Vec<String>>> {
        let saved = load(path, || (), |(), v1| Campaign::from(v1).terms.name)?;
        Ok(saved.map(|mut saved| {
            saved.campaigns.sort();
            saved.campaigns
        }))
    }

    /// Campaigns of some 1,000 bytes whose names try to look like the beginning of another.
    fn many(count: usize) -> Vec<Arc<Routes>> {
        let of = |nth: usize| {
            let offer =
                Destination { id: Some(1), url: "https://o.example/".into(), ..Destination::default() };
            let mut campaign = campaign(Vec::new(), vec![offer; 3]);
            campaign.terms.name =
                format!("{nth:06} ,{{\"id\":\"x\\\",{{\"id\":\"\"campaigns\":[]}}]\u{1f419}");
            Arc::new(Routes::new(campaign).unwrap())
        };
        (0..count).map(of).collect()
    }

    #[test]
    fn a_large_file_is_read_in_pieces_and_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("campaigns.json");
        for count in [0, 1, 2, 2_000] {
            let routes = many(count);
            let bytes = write(&path, Some("a \"campaigns\":[{] b"), &routes).unwrap();
            let text = fs::read(&path).unwrap();
            let (around, list) = parts(&text).unwrap();
            assert_eq!(around.installation.as_deref(), Some("a \"campaigns\":[{] b"));
            assert_eq!(pieces(list).len() > 1, bytes > 2 * PIECE_BYTES as u64, "{bytes}");
            let wanted: Vec<_> = routes.iter().map(|routes| routes.campaign.terms.name.clone()).collect();
            assert_eq!(names(&path).unwrap(), Some(wanted));
        }
    }

    #[test]
    fn a_file_that_was_written_again_by_hand_is_read_and_a_cut_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("campaigns.json");
        write(&path, None, &many(400)).unwrap();
        let wanted = names(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sorted = value.to_string(); // its members stand in another order
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        for other in [sorted, pretty] {
            fs::write(&path, other).unwrap();
            assert_eq!(names(&path).unwrap(), wanted);
        }
        for end in [1, 2, 3, text.len() / 2, text.len() - 5] {
            fs::write(&path, &text[..text.len() - end]).unwrap();
            assert!(names(&path).is_err(), "{end} bytes less");
        }
        fs::write(&path, text.replacen("\"schema\":1", "\"schema\":2", 1)).unwrap();
        assert_eq!(names(&path).unwrap(), None);
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_may_read_it_whatever_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, beside) = (dir.path().join("campaigns.json"), dir.path().join("campaigns.json.new"));
        for file in [&path, &beside] {
            fs::write(file, "{\"schema\":1,\"campaigns\":[]}").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let installation = || load(&path, || (), |(), _| ()).unwrap().unwrap().installation;
        assert_eq!(installation(), None, "as before");
        assert_eq!(mode(&path), 0o600);
        let bytes = write(&path, Some("a"), &[]).unwrap();
        assert_eq!((bytes, mode(&path)), (fs::metadata(&path).unwrap().len(), 0o600));
        assert_eq!(installation().as_deref(), Some("a"));
        assert!(!beside.exists());
    }
}
