//! Who is let in when there is more to do than octo can: clicks always, events while there is room.
//!
//! A click that is not taken is gone; the sender of an event waits and sends it again. So when requests stand in
//! line, or the disk is behind, events are refused before their bodies are read: 503 with `Retry-After`.
//!
//! What is measured is time in line, as CoDel does (RFC 8289): not how much there is to do, which says nothing
//! without the speed of the machine, but how long a task waits for its turn. A peak passes and is not counted;
//! what does not go away for a whole `window_ms` is a standing queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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
    config::{self, millis},
    journal::{self, Journal},
    metrics,
};

/// How often the line is measured.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Whether events are let in.
#[derive(Debug)]
pub struct Admission {
    limits: config::Admission,
    is_shedding: AtomicBool,
    events: Semaphore,
}

/// The place of a request with events; free again when it is dropped.
#[derive(Debug)]
pub struct Place<'a>(#[expect(dead_code, reason = "counts until it is dropped")] SemaphorePermit<'a>);

impl Admission {
    /// Lets everybody in until it runs.
    pub fn new(config: &config::Admission) -> Self {
        Self {
            limits: config.clone(),
            is_shedding: AtomicBool::new(false),
            events: Semaphore::new(config.events_in_flight_max),
        }
    }

    /// Whether events are refused at the door.
    pub fn is_shedding(&self) -> bool {
        self.is_shedding.load(Ordering::Relaxed)
    }

    /// A place for a request whose body is there; `None` when there is none.
    pub fn event(&self) -> Option<Place<'_>> {
        self.events.try_acquire().ok().map(Place)
    }

    /// Measures until `stop`.
    pub async fn run(
        self: Arc<Self>,
        journal: Journal,
        queue_records_max: usize,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut line = Line::default();
        loop {
            tokio::select! {
                () = sleep(PROBE_INTERVAL) => {}
                () = stop.cancelled() => return Ok(()),
            }
            let wait = stand_in_line().await?;
            let (now, backlog) = (Instant::now(), journal.backlog());
            let is_over = line.is_standing(now, wait, &self.limits)
                || is_behind(backlog, queue_records_max, &self.limits);
            if line.is_shedding(now, is_over, millis(self.limits.hold_ms)) != self.is_shedding() {
                self.is_shedding.store(!self.is_shedding(), Ordering::Relaxed);
                self.say(backlog);
            }
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

/// Whether the disk does not keep up.
fn is_behind(backlog: journal::Backlog, queue_records_max: usize, limits: &config::Admission) -> bool {
    backlog.writing_for > millis(limits.disk_wait_max_ms)
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
        if late <= millis(limits.line_wait_max_ms) {
            self.late_since = None;
            return false;
        }
        now - *self.late_since.get_or_insert(now) >= millis(limits.window_ms)
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
