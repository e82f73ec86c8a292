//! The keys of sealed texts: shared by all nodes through Postgres, kept in a file of the data directory, so that a start
//! with every store away seals and opens too.
//!
//! One key seals, all that are known open. A new one is made every `tracking.token_key_days` and seals from an hour
//! later, when every node has heard of it. A node that knows none, because it starts for the first time while Postgres is
//! away, makes one for itself; Postgres gets it later, and then it opens everywhere.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{NotOpened, Purpose, open, read, seal};
use crate::private_file;

/// Bytes of a key.
pub const SECRET_BYTES: usize = 32;

/// How long a key of one node alone may have been there that the others do not know yet.
const OFFERED_WITHIN: TimeDelta = TimeDelta::minutes(10);

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: u32,
    secret: [u8; SECRET_BYTES],
    /// From when it seals; `None`: it only opens, unless there is no other.
    pub seals_from: Option<DateTime<Utc>>,
    /// When it was made.
    pub made_at: DateTime<Utc>,
}

impl Key {
    /// A key that only opens. Its id is made of it: the same id is the same key at every node.
    pub fn new(secret: [u8; SECRET_BYTES], made_at: DateTime<Utc>) -> Self {
        let hash = Sha256::new().chain_update(b"octo key id").chain_update(secret).finalize();
        let id = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Self { id, secret, seals_from: None, made_at }
    }

    /// A key that nobody knows.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self::new(secret, Utc::now()))
    }

    /// What its texts name it by.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The key itself.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }
}

/// The key is nobody's business.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("seals_from", &self.seals_from)
            .finish_non_exhaustive()
    }
}

/// The keys that a node knows; there is always one.
#[derive(Debug)]
pub struct Keyring {
    ring: ArcSwap<Ring>,
    path: PathBuf,
    /// Whether the only key is this node's own and sealed nothing: nobody need know it.
    is_unused: AtomicBool,
    /// Whether the file is behind what is known, as far as a failure is concerned.
    unsaved: Mutex<bool>,
    /// Told where a text names a key that is not known: another node may have made it.
    pub wanted: Notify,
}

#[derive(Debug)]
struct Ring {
    by_id: BTreeMap<u32, Key>,
    /// Of a node that knows no key that seals.
    own: u32,
}

impl Keyring {
    /// The keys of the file; where there are none, a new one, which is in the file afterwards if that can be written.
    pub fn open(path: PathBuf) -> Result<Self, getrandom::Error> {
        let kept = load(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the keys of tokens cannot be read; making a new one");
            Vec::new()
        });
        let is_new = kept.is_empty();
        let keys = if is_new { vec![Key::random()?] } else { kept };
        let own = keys.first().map_or(0, Key::id);
        let by_id = keys.into_iter().map(|key| (key.id, key)).collect();
        let ring = ArcSwap::from_pointee(Ring { by_id, own });
        let (is_unused, unsaved) = (AtomicBool::new(is_new), Mutex::new(is_new));
        let keyring = Self { ring, path, is_unused, unsaved, wanted: Notify::new() };
        keyring.save();
        Ok(keyring)
    }

    /// Seals bytes at this time.
    pub fn seal(&self, purpose: Purpose, bytes: &[u8], now: DateTime<Utc>) -> String {
        let ring = self.ring.load();
        let key = ring.sealing(now);
        if key.seals_from.is_none() {
            self.is_unused.store(false, Ordering::Release);
        }
        seal(key, purpose, bytes)
    }

    /// What was sealed. A text of an unknown key has it asked for.
    pub fn open_text(&self, purpose: Purpose, text: &str) -> Result<Vec<u8>, NotOpened> {
        let (id, sealed) = read(text)?;
        let ring = self.ring.load();
        let Some(key) = ring.by_id.get(&id) else {
            self.wanted.notify_one();
            return Err(NotOpened::UnknownKey);
        };
        open(key, purpose, &sealed)
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Key> {
        self.ring.load().by_id.values().cloned().collect()
    }

    /// Those that other nodes are to know: all but one that was only made in case Postgres is away.
    pub fn offered(&self) -> Vec<Key> {
        if self.is_unused.load(Ordering::Acquire) { Vec::new() } else { self.keys() }
    }

    /// Takes the keys that all nodes have in the place of those known, and writes the file if they are others. It
    /// blocks. Without any, those known stay.
    pub fn share(&self, keys: Vec<Key>) {
        let Some(own) = keys.first().map(Key::id) else { return };
        let mut by_id: BTreeMap<u32, Key> = keys.into_iter().map(|key| (key.id, key)).collect();
        let before = self.ring.load();
        if !self.is_unused.swap(false, Ordering::AcqRel) {
            // what this node sealed with while its keys were being shared is offered the next time
            let is_new = |key: &&Key| key.seals_from.is_none() && Utc::now() - key.made_at < OFFERED_WITHIN;
            for key in before.by_id.values().filter(is_new) {
                by_id.entry(key.id).or_insert_with(|| key.clone());
            }
        }
        if by_id != before.by_id {
            self.ring.store(Ring { by_id, own }.into());
            *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }
        self.save();
    }

    fn save(&self) {
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        if !*unsaved {
            return;
        }
        match write(&self.path, &self.keys()) {
            Ok(()) => *unsaved = false,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot keep the keys of tokens; a start without PostgreSQL will not know them");
            }
        }
    }
}

impl Ring {
    /// The newest that seals already, else the node's own.
    fn sealing(&self, now: DateTime<Utc>) -> &Key {
        let newest = self.by_id.values().filter(|key| key.seals_from.is_some_and(|from| from <= now));
        let newest = newest.max_by_key(|key| (key.seals_from, key.id));
        newest.or_else(|| self.by_id.get(&self.own)).expect("its own is among them")
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Saved {
    schema: u32,
    keys: Vec<SavedKey>,
}

#[derive(Serialize, Deserialize)]
struct SavedKey {
    key: String,
    made_at: DateTime<Utc>,
    seals_from: Option<DateTime<Utc>>,
}

const SCHEMA: u32 = 1;

/// Nothing when there is no file, or one of another schema.
fn load(path: &Path) -> io::Result<Vec<Key>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes?,
    };
    let saved: Saved = serde_json::from_slice(&bytes)?;
    if saved.schema != SCHEMA {
        return Ok(Vec::new());
    }
    let key = |saved: SavedKey| {
        let secret = BASE64_STANDARD.decode(saved.key).ok()?.try_into().ok()?;
        Some(Key { seals_from: saved.seals_from, ..Key::new(secret, saved.made_at) })
    };
    Ok(saved.keys.into_iter().filter_map(key).collect())
}

/// Nobody else may seal.
fn write(path: &Path, keys: &[Key]) -> io::Result<()> {
    let saved = |key: &Key| {
        let Key { secret, seals_from, made_at, .. } = key;
        SavedKey { key: BASE64_STANDARD.encode(secret), made_at: *made_at, seals_from: *seals_from }
    };
    let bytes = serde_json::to_vec(&Saved { schema: SCHEMA, keys: keys.iter().map(saved).collect() })?;
    private_file::replace(path, &bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn ring(dir: &Path) -> Keyring {
        Keyring::open(dir.join("token-keys.json")).unwrap()
    }

    #[test]
    fn a_node_alone_makes_a_key_and_has_it_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let text = ring(dir.path()).seal(Purpose::Out, b"a", Utc::now());
        assert_eq!(ring(dir.path()).open_text(Purpose::Out, &text).as_deref(), Ok(&b"a"[..]));
        let mode = fs::metadata(dir.path().join("token-keys.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let elsewhere = tempfile::tempdir().unwrap();
        let other = ring(elsewhere.path()).open_text(Purpose::Out, &text);
        assert_eq!(other, Err(NotOpened::UnknownKey));
        assert!(!format!("{:?}", ring(dir.path())).contains("secret"));
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_costs_no_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("token-keys.json"), "not JSON").unwrap();
        let text = ring(dir.path()).seal(Purpose::Out, b"a", Utc::now());
        assert!(ring(dir.path()).open_text(Purpose::Out, &text).is_ok(), "it was written again");
        let nowhere = Keyring::open(dir.path().join("no/such/dir/token-keys.json")).unwrap();
        let text = nowhere.seal(Purpose::Test, b"b", Utc::now());
        assert_eq!(nowhere.open_text(Purpose::Test, &text).as_deref(), Ok(&b"b"[..]));
    }

    #[test]
    fn the_newest_key_seals_once_its_time_has_come_and_older_ones_open() {
        let dir = tempfile::tempdir().unwrap();
        let ring = ring(dir.path());
        let (now, hour) = (Utc::now(), TimeDelta::hours(1));
        let mut own = ring.keys();
        assert!(ring.offered().is_empty(), "it has sealed nothing");
        let of_own = ring.seal(Purpose::Out, b"own", now);
        let key = |byte, seals_from| Key { seals_from: Some(seals_from), ..Key::new([byte; 32], now) };
        let (first, second) = (key(1, now - hour), key(2, now + hour));
        assert_eq!(ring.offered(), own);
        ring.share(vec![first.clone(), second.clone()]);
        assert!(ring.open_text(Purpose::Out, &of_own).is_ok(), "others are about to know it");
        ring.share([own.clone(), vec![first.clone(), second.clone()]].concat());
        let id = |text: &str| read(text).unwrap().0;
        let of_first = ring.seal(Purpose::Out, b"first", now);
        assert_eq!(id(&of_first), first.id());
        assert_eq!(id(&ring.seal(Purpose::Out, b"", now + hour * 2)), second.id());
        for text in [&of_own, &of_first] {
            assert!(ring.open_text(Purpose::Out, text).is_ok());
        }
        for key in &mut own {
            key.made_at = now - hour; // long enough ago to have been offered
        }
        ring.share([own, vec![second.clone()]].concat());
        ring.share(vec![second]);
        assert_eq!(ring.open_text(Purpose::Out, &of_first), Err(NotOpened::UnknownKey), "it is gone");
        assert!(
            ring.open_text(Purpose::Out, &ring.seal(Purpose::Out, b"", now)).is_ok(),
            "its time is to come"
        );
        ring.share(Vec::new());
        assert_eq!(ring.keys().len(), 1, "there is always one");
    }
}
