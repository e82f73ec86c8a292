//! Who is let in when there is more to do than octo can: clicks always, events while there is room.
//!
//! A click that is not taken is gone; the sender of an event waits and sends it again. So when requests stand in
//! line, the disk is behind, or the journal or its disk are nearly full, events are refused before their bodies are
//! read: 503 with `Retry-After`. Bodies that are read have a budget of bytes, until their requests are answered.
//!
//! What is measured is time in line, as CoDel does (RFC 8289): not how much there is to do, which says nothing
//! without the speed of the machine, but how long a task waits for its turn. A peak passes and is not counted;
//! what does not go away for a whole `window_ms` is a standing queue.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config,
    journal::{self, Journal},
    metrics,
};

/// How often the line is measured.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How often the file system of the journal is asked what is free.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// Events are taken again when so many percent of `journal.max_bytes` below the bound are free, so as not to flicker.
const ROOM_PERCENT: u64 = 5;

/// Whether events are let in.
#[derive(Debug)]
pub struct Admission {
    limits: config::Admission,
    journal_bytes_max: u64,
    is_shedding: AtomicBool,
    is_journal_nearly_full: AtomicBool,
    is_disk_nearly_full: AtomicBool,
    events: Semaphore,
    bodies: Semaphore,
}

/// Why events are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is more to do than can be done.
    Overloaded,
    /// What is left of the journal, or of its disk, is for clicks.
    NoRoom,
}

/// The place of a request with events; free again when it is dropped.
#[derive(Debug)]
pub struct Place<'a>(#[expect(dead_code, reason = "counts until it is dropped")] SemaphorePermit<'a>);

/// Bytes of a body that is read or worked on; free again when it is dropped.
#[derive(Debug, Default)]
pub struct Held<'a>(Option<SemaphorePermit<'a>>);

impl Admission {
    /// Lets everybody in until it runs. A full journal has `journal_bytes_max`.
    pub fn new(config: &config::Admission, journal_bytes_max: u64) -> Self {
        Self {
            limits: config.clone(),
            journal_bytes_max,
            is_shedding: AtomicBool::new(false),
            is_journal_nearly_full: AtomicBool::new(false),
            is_disk_nearly_full: AtomicBool::new(false),
            events: Semaphore::new(config.events_in_flight_max),
            bodies: Semaphore::new(config.bodies_bytes_max.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Whether events are refused because there is too much to do.
    pub fn is_shedding(&self) -> bool {
        self.is_shedding.load(Ordering::Relaxed)
    }

    /// Whether events are refused at the door, and why.
    pub fn refusal(&self) -> Option<Refusal> {
        let is_full = [&self.is_journal_nearly_full, &self.is_disk_nearly_full];
        if is_full.into_iter().any(|is_full| is_full.load(Ordering::Relaxed)) {
            return Some(Refusal::NoRoom);
        }
        self.is_shedding().then_some(Refusal::Overloaded)
    }

    /// What keeps events out that has to do with room, in words for people.
    pub fn shortage(&self) -> Option<&'static str> {
        if self.is_journal_nearly_full.load(Ordering::Relaxed) {
            Some("nearly full (admission.journal_percent_max)")
        } else if self.is_disk_nearly_full.load(Ordering::Relaxed) {
            Some("on a disk that is nearly full (admission.disk_free_min_bytes)")
        } else {
            None
        }
    }

    /// Whether the journal may take an event of about so many bytes, at this moment: between two measurements a
    /// small journal can be filled.
    pub fn has_room(&self, journal: &Journal, bytes: usize) -> bool {
        if self.refusal() == Some(Refusal::NoRoom) {
            return false;
        }
        let percent = self.limits.journal_percent_max;
        let is_over = self.is_over(journal, bytes as u64, percent);
        if is_over && self.is_over(journal, 0, percent.saturating_sub(ROOM_PERCENT)) {
            self.is_journal_nearly_full.store(true, Ordering::Relaxed); // the next measurement says so
        }
        !is_over
    }

    fn is_over(&self, journal: &Journal, more: u64, percent: u64) -> bool {
        let share = u128::from(self.journal_bytes_max) * u128::from(percent) / 100;
        let is_over = |bytes: u64| u128::from(bytes + more) > share;
        // counting what could be given up takes a lock; mostly there is no need to
        is_over(journal.bytes()) && is_over(journal.held_bytes())
    }

    /// A place for a request with events; `None` when there is none.
    pub fn event(&self) -> Option<Place<'_>> {
        self.events.try_acquire().ok().map(Place)
    }

    /// Whether there is a place, and the budget has `bytes` left: before a body is read that says how long it is.
    pub fn has_place(&self, bytes: usize) -> bool {
        self.events.available_permits() > 0 && self.bodies.available_permits() >= bytes
    }

    /// Takes `bytes` from the budget of bodies and adds them to `held`; `false` when there are not so many left. By
    /// what was read, not by what is announced: who announces much and sends nothing holds nothing.
    pub fn hold<'a>(&'a self, held: &mut Held<'a>, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(more) = self.bodies.try_acquire_many(bytes) else { return false };
        match &mut held.0 {
            Some(permits) => permits.merge(more),
            none => *none = Some(more),
        }
        true
    }

    /// Measures until `stop`.
    pub async fn run(
        self: Arc<Self>,
        journal: Journal,
        journal_dir: PathBuf,
        queue_records_max: usize,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut line = Line::default();
        let (mut disk, mut is_said) = (Disk::new(journal_dir), false);
        loop {
            if stop.run_until_cancelled(sleep(PROBE_INTERVAL)).await.is_none() {
                return Ok(());
            }
            let wait = stand_in_line().await?;
            let (now, backlog) = (Instant::now(), journal.backlog());
            let is_over = line.is_standing(now, wait, &self.limits)
                || is_behind(backlog, queue_records_max, &self.limits);
            if line.is_shedding(now, is_over, self.limits.hold) != self.is_shedding() {
                self.is_shedding.store(!self.is_shedding(), Ordering::Relaxed);
                self.say(backlog);
            }
            self.look_for_room(&journal, disk.free_bytes(), &mut is_said);
        }
    }

    /// `is_said`: whether the last that was said of it is that there is none.
    fn look_for_room(&self, journal: &Journal, disk_free_bytes: u64, is_said: &mut bool) {
        let was_full = self.is_journal_nearly_full.load(Ordering::Relaxed);
        let percent = self.limits.journal_percent_max.saturating_sub(if was_full { ROOM_PERCENT } else { 0 });
        self.is_journal_nearly_full.store(self.is_over(journal, 0, percent), Ordering::Relaxed);
        let was_low = self.is_disk_nearly_full.load(Ordering::Relaxed);
        let floor = self.limits.disk_free_min_bytes;
        let floor = floor.saturating_add(if was_low { floor / 20 } else { 0 });
        self.is_disk_nearly_full.store(disk_free_bytes < floor, Ordering::Relaxed);
        let shortage = self.shortage();
        if shortage.is_some() == *is_said {
            return;
        }
        *is_said = shortage.is_some();
        metrics::events_no_room(*is_said);
        if let Some(shortage) = shortage {
            let held_bytes = journal.held_bytes();
            tracing::warn!(
                held_bytes,
                disk_free_bytes,
                "the journal is short of room: it is {shortage}; events are refused, what is left is for clicks"
            );
        } else {
            tracing::info!("the journal has room again: events are taken again");
        }
    }

    fn say(&self, backlog: journal::Backlog) {
        metrics::shedding(self.is_shedding());
        if self.is_shedding() {
            let (records, writing_ms) = (backlog.records, backlog.writing_for.as_millis());
            tracing::warn!(records, writing_ms, "overloaded: events are refused, clicks go on");
        } else {
            tracing::info!("no longer overloaded: events are taken again");
        }
    }
}

/// How long a task waits that comes from outside: where there is too much to do, that is the line that grows. A
/// timer of this task would not see it: what a worker wakes itself stands in a short line of its own.
async fn stand_in_line() -> anyhow::Result<Duration> {
    let runtime = Handle::current();
    let come = move || {
        let came = Instant::now();
        runtime.spawn(async move { came.elapsed() })
    };
    Ok(tokio::task::spawn_blocking(come).await?.await?)
}

/// The file system of the journal.
struct Disk {
    dir: PathBuf,
    free_bytes: Arc<AtomicU64>,
    looked_at: Option<Instant>,
    looking: Option<tokio::task::JoinHandle<()>>,
}

impl Disk {
    fn new(dir: PathBuf) -> Self {
        Self { dir, free_bytes: Arc::new(AtomicU64::new(u64::MAX)), looked_at: None, looking: None }
    }

    /// What was free when it was last asked, without waiting for it: a disk that hangs holds up one thread.
    fn free_bytes(&mut self) -> u64 {
        let is_due = self.looked_at.is_none_or(|at| at.elapsed() >= DISK_INTERVAL);
        if is_due && self.looking.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            self.looked_at = Some(Instant::now());
            let (dir, free_bytes) = (self.dir.clone(), self.free_bytes.clone());
            self.looking = Some(tokio::task::spawn_blocking(move || {
                // one that cannot be asked is not known to be full
                let free =
                    rustix::fs::statvfs(&dir).map_or(u64::MAX, |d| d.f_bavail.saturating_mul(d.f_frsize));
                free_bytes.store(free, Ordering::Relaxed);
            }));
        }
        self.free_bytes.load(Ordering::Relaxed)
    }
}

/// Whether the disk does not keep up.
fn is_behind(backlog: journal::Backlog, queue_records_max: usize, limits: &config::Admission) -> bool {
    backlog.writing_for > limits.disk_wait_max
        || backlog.records.saturating_mul(100) > queue_records_max.saturating_mul(limits.queue_percent_max)
}

/// What is remembered of the line.
#[derive(Debug, Default)]
struct Line {
    /// Since when every probe was late.
    late_since: Option<Instant>,
    over_at: Option<Instant>,
}

impl Line {
    /// Whether the line has been too long for a whole window.
    fn is_standing(&mut self, now: Instant, late: Duration, limits: &config::Admission) -> bool {
        if late <= limits.line_wait_max {
            self.late_since = None;
            return false;
        }
        now - *self.late_since.get_or_insert(now) >= limits.window
    }

    /// Goes on for `hold` after the last sign, so as not to flicker.
    fn is_shedding(&mut self, now: Instant, is_over: bool, hold: Duration) -> bool {
        if is_over {
            self.over_at = Some(now);
        }
        self.over_at.is_some_and(|at| is_over || now - at < hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> config::Admission {
        config::Loaded::load(None, [], &config::Flags::default()).unwrap().config.admission
    }

    #[test]
    fn a_peak_is_no_standing_line() {
        let (mut line, start) = (Line::default(), Instant::now());
        let ms = Duration::from_millis;
        assert!(!line.is_standing(start, ms(2000), &limits()), "one stall, however long");
        assert!(!line.is_standing(start + ms(40), ms(1), &limits()));
        for n in 1..5 {
            assert!(!line.is_standing(start + ms(100 * n), ms(80), &limits()));
        }
        assert!(line.is_standing(start + ms(700), ms(80), &limits()));
        assert!(!line.is_standing(start + ms(720), ms(3), &limits()));
    }

    #[test]
    fn shedding_goes_on_for_a_moment_after_the_last_sign() {
        let (mut line, start) = (Line::default(), Instant::now());
        let (ms, hold) = (Duration::from_millis, Duration::from_secs(1));
        assert!(!line.is_shedding(start, false, hold));
        assert!(line.is_shedding(start, true, hold));
        assert!(line.is_shedding(start + ms(900), false, hold));
        assert!(!line.is_shedding(start + ms(1000), false, hold));
    }

    #[test]
    fn a_slow_disk_and_a_long_queue_are_signs() {
        let backlog = |records, ms| journal::Backlog { records, writing_for: Duration::from_millis(ms) };
        assert!(!is_behind(backlog(250, 1000), 1000, &limits()));
        assert!(is_behind(backlog(251, 0), 1000, &limits()));
        assert!(is_behind(backlog(0, 1001), 1000, &limits()));
    }
}
