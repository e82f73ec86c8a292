//! Keeps the private PostgreSQL running: starts it, waits for its end, starts it again. Nobody waits for it: clicks
//! are redirected and wait in the journal meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Embedded, Error, Role, url_of};
use crate::metrics;

/// Between two attempts that fail: the first wait, which doubles, and the longest one.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Where the remedy is a package, and looking for it may ask a server of the distribution.
const WAIT_MAX_FOR_BINARIES: Duration = Duration::from_mins(5);
/// What stayed up for so long did not fail for the reason it failed for before.
const STEADY: Duration = Duration::from_mins(1);

/// What the private PostgreSQL is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being started, for the first time or again.
    Starting,
    /// It takes connections.
    Up {
        /// The cluster.
        data: PathBuf,
    },
    /// It could not be started: one sentence with the remedy. It is tried again.
    Failing(String),
}

/// Starts the private PostgreSQL and keeps it running.
#[derive(Debug)]
pub struct Supervisor {
    data_dir: PathBuf,
    state: watch::Sender<State>,
    /// The last handle, for the end.
    handle: Mutex<Option<Embedded>>,
}

impl Supervisor {
    /// For the cluster of a data directory; starts nothing yet.
    pub fn new(data_dir: &Path) -> Self {
        metrics::embedded_postgres_up(false);
        Self {
            data_dir: data_dir.to_owned(),
            state: watch::Sender::new(State::Starting),
            handle: Mutex::default(),
        }
    }

    /// Where it will most likely be reached; [`Self::run`] says where it is.
    pub fn likely_url(&self) -> String {
        let cluster = self.data_dir.join("postgres");
        url_of(&std::path::absolute(&cluster).unwrap_or(cluster))
    }

    /// What it is doing now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it takes connections.
    pub async fn up(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| matches!(state, State::Up { .. })).await; // the sender is ours
    }

    /// Waits until it takes connections, or says why it does not.
    pub async fn tried(&self) -> Result<(), String> {
        let mut state = self.state.subscribe();
        let tried = state.wait_for(|state| *state != State::Starting).await;
        match tried.as_deref() {
            Ok(State::Failing(reason)) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    /// Starts it, and again whenever it has ended, until the stop signal; `reached_at` hears its URL each time. Leaves
    /// it running: [`Self::stop`] ends it, after who works with it.
    pub async fn run(&self, reached_at: impl Fn(&str) + Send, stop: CancellationToken) -> anyhow::Result<()> {
        let mut handle = self.handle.lock().await;
        let mut failures = 0_u32;
        loop {
            let Some(started) = stop.run_until_cancelled(start(&self.data_dir, &mut handle)).await else {
                return Ok(());
            };
            let wait = match (started, handle.as_mut()) {
                (Ok(()), Some(embedded)) => {
                    let since = Instant::now();
                    self.note_up(embedded, failures);
                    reached_at(&embedded.url());
                    if stop.run_until_cancelled(embedded.gone()).await.is_none() {
                        return Ok(());
                    }
                    self.note_end(embedded);
                    failures = if since.elapsed() < STEADY { failures + 1 } else { 0 };
                    // the first end costs no time
                    failures.checked_sub(2).map_or(Duration::ZERO, |failures| back_off(failures, WAIT_MAX))
                }
                (Ok(()), None) => Duration::ZERO,
                (Err(error), _) => {
                    let wait = back_off(failures, longest_wait(&error));
                    failures += 1;
                    self.note_failure(error, failures, wait);
                    wait
                }
            };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Stops it, also one that is still starting; after [`Self::run`] has ended.
    pub async fn stop(&self) -> Result<(), Error> {
        match self.handle.lock().await.take() {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }

    fn note_up(&self, embedded: &Embedded, failures: u32) {
        metrics::embedded_postgres_up(true);
        if failures > 0 {
            warn!("the private PostgreSQL is running now");
        }
        self.state.send_replace(State::Up { data: embedded.data_path().to_owned() });
    }

    fn note_end(&self, embedded: &Embedded) {
        metrics::embedded_postgres_up(false);
        metrics::embedded_postgres_restarted();
        self.state.send_replace(State::Starting);
        error!(
            pid = embedded.pid, log = %embedded.place.log().display(),
            "the private PostgreSQL has ended and is being started again; clicks are redirected and wait in the journal"
        );
    }

    fn note_failure(&self, error: Error, failures: u32, wait: Duration) {
        let reason = format!("{:#}", anyhow::Error::from(error));
        // the first failure, another reason, and every tenth: an outage is one story, not a line a second
        let is_new = self.state() != State::Failing(reason.clone());
        if is_new || failures.is_multiple_of(10) {
            error!(
                failures,
                next_try_s = wait.as_secs(),
                "the private PostgreSQL cannot be started: {reason}. Clicks are redirected and wait in the journal"
            );
        }
        self.state.send_replace(State::Failing(reason));
    }
}

/// Leaves the handle where it can be stopped, however far the start came.
async fn start(data_dir: &Path, handle: &mut Option<Embedded>) -> Result<(), Error> {
    *handle = None; // its mark, and a child that has ended
    handle.insert(Embedded::prepare(data_dir, Role::Server).await?).bring_up().await
}

fn back_off(failures: u32, max: Duration) -> Duration {
    WAIT_MIN.saturating_mul(2_u32.saturating_pow(failures)).min(max)
}

fn longest_wait(error: &Error) -> Duration {
    match error {
        Error::NoBinaries { .. } | Error::WrongVersion { .. } => WAIT_MAX_FOR_BINARIES,
        _ => WAIT_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_never_overflows() {
        let waits: Vec<u64> = (0..7).map(|failures| back_off(failures, WAIT_MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(back_off(u32::MAX, WAIT_MAX_FOR_BINARIES), WAIT_MAX_FOR_BINARIES);
    }
}
