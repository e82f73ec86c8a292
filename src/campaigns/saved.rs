//! The last good set of campaigns on disk: JSON with a schema version (1: of [`CampaignV1`]), replaced as a whole; only
//! its owner may read it.
//!
//! It is written beside what else goes on, never more often than `cache.save_interval_ms`, and not at all while
//! nothing changes: with 100,000 campaigns it has 50 MB, and its sync competes with those of clicks.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
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

use super::{Campaigns, Source, format::CampaignV1, shared::Shared};
use crate::{
    db::store::campaigns::Change, metrics, model::campaign::Campaign, private_file, redis::Redis,
    routing::Routes,
};

/// Its name in the data directory.
pub(super) const NAME: &str = "campaigns.json";

const SCHEMA: u32 = 1;

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

/// What was saved.
#[derive(Deserialize)]
struct Saved {
    schema: u32,
    /// Whose campaigns they are; releases before did not say.
    #[serde(default)]
    installation: Option<String>,
    campaigns: Vec<CampaignV1>,
}

/// A campaign of the set that an octo saved in this data directory, by the key of its links.
pub fn saved_campaign(data_dir: &Path, key: &str) -> io::Result<Option<Campaign>> {
    let saved = load(&data_dir.join(NAME))?;
    let campaigns = saved.into_iter().flat_map(|saved| saved.campaigns).map(Campaign::from);
    Ok(campaigns.into_iter().find(|campaign| campaign.key.as_str() == key))
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
        match load(self.file.path()) {
            Ok(None) => {}
            Ok(Some(saved)) => {
                let change = |v1: CampaignV1| Change { campaign: v1.into(), is_deleted: false };
                self.replace(saved.campaigns.into_iter().map(change).collect(), true);
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

/// `None` when there is none, or one of another schema.
fn load(path: &Path) -> io::Result<Option<Saved>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    // releases before left it readable for everybody
    if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(private_file::MODE)) {
        tracing::warn!(path = %path.display(), %error, "other users of this machine can read the saved campaigns");
    }
    let saved: Saved = serde_json::from_slice(&bytes)?;
    Ok((saved.schema == SCHEMA).then_some(saved))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(load(&path).unwrap().is_some_and(|saved| saved.installation.is_none()), "as before");
        assert_eq!(mode(&path), 0o600);
        let bytes = write(&path, Some("a"), &[]).unwrap();
        assert_eq!((bytes, mode(&path)), (fs::metadata(&path).unwrap().len(), 0o600));
        assert_eq!(load(&path).unwrap().unwrap().installation.as_deref(), Some("a"));
        assert!(!beside.exists());
    }
}
