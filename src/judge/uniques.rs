//! Who came to a campaign today: in the memory of this node, told to the others by way of Redis, and kept in a file over a
//! restart. A visitor is the hash of his address and user agent under the key of the day, so that all of this is over at
//! midnight UTC.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    judge::{
        NewVisit,
        seen::{SeenTable, Sight},
    },
    metrics,
};

/// How long a visitor is looked for; his hash is another one the next day.
const DAY_S: u64 = 86_400;

/// What the file begins with: its name and version.
const MAGIC: &[u8; 8] = b"octouni1";

/// Of the file: hashes of visitors are nobody else's business.
const MODE: u32 = 0o600;

/// What of a visitor is told apart; each is remembered by itself.
const CLICKED: u64 = 0xc11c_ed00_0000_0001;
const COUNTED: u64 = 0xc11c_ed00_0000_0002;
const KEY: u64 = 0xc11c_ed00_0000_0003;

/// The visitors of today.
pub struct Uniques {
    seen: SeenTable,
    /// To the other nodes; `None` where there is no way to tell them.
    told: Option<mpsc::Sender<NewVisit>>,
    path: PathBuf,
    is_behind: AtomicBool,
}

impl Uniques {
    /// With what an earlier start kept.
    pub fn open(visitors_max: usize, path: PathBuf, told: Option<mpsc::Sender<NewVisit>>) -> Self {
        let seen = SeenTable::new(visitors_max, DAY_S);
        match load(&path) {
            Ok(None) => {}
            Ok(Some(slots)) if seen.restore(&slots) => {}
            Ok(Some(_)) => {
                tracing::info!("tracking.unique_visitors_max changed; visitors of today are forgotten");
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the visitors of today cannot be read; they are unique once more");
            }
        }
        Self { seen, told, path, is_behind: AtomicBool::new(false) }
    }

    /// Whether it is the first click of a visit today, counted or not; it is noted if `is_click`.
    pub fn is_first(&self, visit: u64, now_s: u64, is_click: bool) -> bool {
        let is_counted = self.seen.has(of(visit, COUNTED), now_s);
        let clicked = of(visit, CLICKED);
        let is_new = if is_click { self.note(clicked, now_s) } else { !self.seen.has(clicked, now_s) };
        is_new && !is_counted
    }

    /// Whether it is the first click of a visit today that counts; it is noted.
    pub fn is_first_counted(&self, visit: u64, now_s: u64) -> bool {
        self.note(of(visit, COUNTED), now_s)
    }

    /// Whether a visit was noted under something that is counted apart, such as a cap in its window.
    pub fn has_of(&self, visit: u64, what: u64, now_s: u64) -> bool {
        self.seen.has(of(visit, what), now_s)
    }

    /// As [`Uniques::has_of`], and notes it; whether it is the first.
    pub fn is_first_of(&self, visit: u64, what: u64, now_s: u64) -> bool {
        self.note(of(visit, what), now_s)
    }

    /// What another node told.
    pub fn heard(&self, (name, at_s): NewVisit) {
        self.see(name, at_s);
    }

    fn note(&self, name: u64, now_s: u64) -> bool {
        let is_first = self.see(name, now_s);
        if is_first
            && let Some(told) = &self.told
            && told.try_send((name, now_s)).is_err()
        {
            metrics::visits_untold(1);
        }
        is_first
    }

    fn see(&self, name: u64, now_s: u64) -> bool {
        match self.seen.see(name, now_s) {
            Sight::Again => return false,
            Sight::FirstForgetting => metrics::unique_visitor_forgotten(),
            Sight::First => {}
        }
        self.is_behind.store(true, Ordering::Relaxed);
        true
    }

    /// Keeps the visitors in the file every `interval`, and at the stop signal.
    pub(crate) async fn keep(
        self: Arc<Self>,
        interval: Duration,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let is_over = stop.run_until_cancelled(sleep(interval)).await.is_none();
            let uniques = self.clone();
            let _ = tokio::task::spawn_blocking(move || uniques.save()).await; // it says what is wrong itself
            if is_over {
                return Ok(());
            }
        }
    }

    fn save(&self) {
        if !self.is_behind.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = write(&self.path, &self.seen.slots()) {
            self.is_behind.store(true, Ordering::Relaxed);
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot keep the visitors of today; after a restart they are unique once more");
        }
    }
}

impl std::fmt::Debug for Uniques {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uniques").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// What the choices of a visit hang on where they are kept: another number than what is told and stored.
pub fn visitor_key(visit: u64) -> u64 {
    of(visit, KEY)
}

/// A visit under something that is told apart: both mixed as splitmix64 ends (Steele, Lea and Flood, 2014).
fn of(visit: u64, what: u64) -> u64 {
    let mut mixed = visit ^ what.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// `None`: there is no file.
fn load(path: &Path) -> io::Result<Option<Vec<u64>>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let slots = bytes.strip_prefix(MAGIC).map(<[u8]>::as_chunks::<8>);
    match slots {
        Some((slots, [])) => Ok(Some(slots.iter().map(|slot| u64::from_le_bytes(*slot)).collect())),
        _ => Err(io::Error::other("it is damaged, or of another release")),
    }
}

/// Writes beside and renames: a crash of octo leaves the old file or the new one.
fn write(path: &Path, slots: &[u64]) -> io::Result<()> {
    use io::Write as _;

    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside); // one that a crash left may have other permissions
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    let bytes: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
    file.write_all(MAGIC)?;
    file.write_all(&bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    #[test]
    fn the_first_click_is_one_thing_and_the_first_that_counts_another() {
        let dir = tempfile::tempdir().unwrap();
        let uniques = Uniques::open(1000, dir.path().join("visitors"), None);
        assert!(uniques.is_first(7, NOW_S, false) && uniques.is_first(7, NOW_S, true));
        assert!(!uniques.is_first(7, NOW_S, true));
        assert!(uniques.is_first_counted(7, NOW_S), "the one before did not count");
        assert!(!uniques.is_first_counted(7, NOW_S));
        assert!(uniques.is_first_counted(8, NOW_S));
        assert!(!uniques.is_first(8, NOW_S, true), "it counted, so it was a click");
        assert!(
            uniques.is_first_of(7, 99, NOW_S)
                && uniques.has_of(7, 99, NOW_S)
                && !uniques.has_of(7, 98, NOW_S)
        );
        assert!(uniques.is_first_counted(7, NOW_S + DAY_S), "the next day");
        assert_ne!(visitor_key(7), of(7, CLICKED));
    }

    #[test]
    fn a_restart_and_other_nodes_know_who_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("visitors");
        let (told, mut tells) = mpsc::channel(8);
        let uniques = Uniques::open(1000, path.clone(), Some(told));
        assert!(uniques.is_first_counted(7, NOW_S));
        uniques.save();
        assert!(!Uniques::open(1000, path.clone(), None).is_first_counted(7, NOW_S));
        let other = Uniques::open(1000, dir.path().join("other"), None);
        other.heard(tells.try_recv().unwrap());
        assert!(!other.is_first_counted(7, NOW_S));
        assert!(Uniques::open(9000, path.clone(), None).is_first_counted(7, NOW_S), "another size");
        fs::write(&path, b"octouni1abc").unwrap();
        assert!(Uniques::open(1000, path, None).is_first_counted(7, NOW_S), "damage");
    }
}
