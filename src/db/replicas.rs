//! Read replicas: which of them may answer a read.
//!
//! Each is asked once a second where it is ([`probe`]); what it says and how its reads end decide whether it is
//! healthy ([`health`]). Reads go round-robin over the healthy ones. Where none is healthy a suspect one answers;
//! where all are ejected for their lag, none is: an old answer is better than all reads on the primary just when
//! it writes most. One that is gone or was promoted never answers.

pub mod health;
pub mod probe;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use super::{
    Error, Statement,
    monitor::{self, Monitor},
    pool::{Pool, Within},
    session::Session,
};
use crate::{config, metrics};
use health::{Fitness, Health, State, Verdict};
use probe::Answer;

/// The replicas in the order of the configuration.
pub struct Replicas {
    list: Vec<Replica>,
    turn: AtomicUsize,
    lag_max: Duration,
    lag_bytes_max: u64,
}

/// One replica.
pub struct Replica {
    label: String,
    pool: Pool,
    health: Mutex<Health>,
    seen: Mutex<Seen>,
    /// A half-open replica answers one read at a time.
    is_on_trial: AtomicBool,
    reads: AtomicU64,
}

/// What the last answered probe said.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    replayed: u64,
    lag_bytes: u64,
    lag: Duration,
}

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Its place in `database.replica_urls`, from 0.
    pub replica: usize,
    /// Whether it answers reads.
    pub state: State,
    /// Bytes of the primary's log that it has not replayed.
    pub lag_bytes: u64,
    /// Seconds since the primary was where it is now; 0 when nothing is missing.
    pub lag_s: f64,
    /// The end of what it has replayed.
    pub replayed: String,
    /// Reads it was given.
    pub reads: u64,
}

impl Replicas {
    pub(super) fn new(config: &config::Database, monitor: &Arc<Monitor>) -> Result<Self, Error> {
        let list = config.replica_urls.iter().enumerate().map(|(place, url)| {
            Ok(Replica {
                label: place.to_string(),
                pool: Pool::with_monitor(&format!("replica{place}"), url, config, monitor.clone())?,
                health: Mutex::new(Health::new(health::Limits {
                    failures_max: config.replica_failures_max,
                    eject_min: config.replica_eject_min,
                    eject_max: config.replica_eject_max,
                })),
                seen: Mutex::default(),
                is_on_trial: AtomicBool::new(false),
                reads: AtomicU64::new(0),
            })
        });
        Ok(Self {
            list: list.collect::<Result<_, Error>>()?,
            turn: AtomicUsize::new(0),
            lag_max: config.replica_lag_max,
            lag_bytes_max: config.replica_lag_bytes_max,
        })
    }

    /// How many are configured.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Their pools, in the order of the configuration.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.list.iter().map(|replica| &replica.pool)
    }

    /// What each says of itself.
    pub fn reports(&self) -> Vec<Report> {
        self.list.iter().enumerate().map(|(place, replica)| replica.report(place)).collect()
    }

    /// The next one fit to answer that has replayed up to `position`, other than `not`.
    pub(super) fn choose(&self, position: u64, not: Option<usize>) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..self.list.len()).map(|step| turn.wrapping_add(step) % self.list.len());
        let (_, chosen) = order
            .filter(|place| Some(*place) != not)
            .filter_map(|place| self.list[place].fitness(position).map(|fitness| (fitness, place)))
            .min_by_key(|(fitness, _)| *fitness)?;
        Some(chosen)
    }

    /// Whether one could answer a read that needs no position.
    pub(super) fn is_any_fit(&self) -> bool {
        self.list.iter().any(|replica| replica.fitness(0).is_some())
    }

    /// The pool of one that is fit and has what was written until there; for a connection beside it.
    pub(super) fn pool_for(&self, position: u64) -> Option<&Pool> {
        let replica = &self.list[self.choose(position, None)?];
        replica.reads.fetch_add(1, Ordering::Relaxed);
        metrics::replica_read(&replica.label);
        Some(&replica.pool)
    }

    /// Runs a read on the one at this place, and learns from how it ends.
    pub(super) async fn run<T, F>(
        &self,
        place: usize,
        statement: Statement,
        within: Within,
        run: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let replica = &self.list[place];
        let trial = Trial::begin(replica);
        replica.reads.fetch_add(1, Ordering::Relaxed);
        metrics::replica_read(&replica.label);
        let answer = replica.pool.run_bounded(statement, within, run).await;
        drop(trial);
        match &answer {
            Err(error) if monitor::is_worth_elsewhere(error) => {
                replica.learn(Verdict::Failed, Instant::now());
            }
            _ => replica.health().answered(),
        }
        answer
    }

    /// Takes what the probes said, in the order of the configuration; `primary` knows where the primary was when.
    pub(super) fn note(&self, answers: &[Option<Answer>], primary: &probe::History, now: Instant) {
        for (replica, answer) in self.list.iter().zip(answers) {
            let verdict = match answer {
                None => Verdict::Failed,
                Some(answer) if !answer.is_standby => Verdict::Promoted,
                Some(answer) => {
                    let seen = Seen {
                        replayed: answer.position,
                        lag_bytes: primary.latest().saturating_sub(answer.position),
                        lag: primary.behind(answer.position, now),
                    };
                    *replica.seen() = seen;
                    let is_late = seen.lag > self.lag_max || seen.lag_bytes > self.lag_bytes_max;
                    if is_late { Verdict::Lagging } else { Verdict::Good }
                }
            };
            replica.learn(verdict, now);
            replica.observe(answer.is_some());
        }
    }
}

impl Replica {
    fn fitness(&self, position: u64) -> Option<Fitness> {
        let fitness = self.health().fitness()?;
        let is_busy = fitness == Fitness::Trial && self.is_on_trial.load(Ordering::Relaxed);
        (!is_busy && self.seen().replayed >= position).then_some(fitness)
    }

    fn learn(&self, verdict: Verdict, now: Instant) {
        let mut health = self.health();
        let before = health.state();
        health.learn(verdict, now);
        let after = health.state();
        drop(health);
        if before == after {
            return;
        }
        let replica = &self.label;
        match after {
            State::Ejected => {
                tracing::warn!(replica, reason = verdict.as_str(), "a replica answers no reads");
            }
            State::Healthy if before == State::HalfOpen => {
                tracing::info!(replica, "a replica answers reads again");
            }
            _ => tracing::debug!(replica, state = after.as_str(), "a replica changed"),
        }
        if verdict == Verdict::Failed && after == State::Ejected {
            self.pool.renew(); // what is open leads nowhere
        }
    }

    fn observe(&self, is_up: bool) {
        let seen = *self.seen();
        let is_fit =
            is_up && matches!(self.health().state(), State::Healthy | State::Suspect | State::HalfOpen);
        metrics::replica(&self.label, is_fit, seen.lag_bytes, seen.lag);
    }

    fn report(&self, place: usize) -> Report {
        let seen = *self.seen();
        Report {
            replica: place,
            state: self.health().state(),
            lag_bytes: seen.lag_bytes,
            lag_s: (seen.lag.as_secs_f64() * 1000.0).round() / 1000.0,
            replayed: super::position::to_text(seen.replayed),
            reads: self.reads.load(Ordering::Relaxed),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read of a half-open replica: while it runs there is no other.
struct Trial<'a>(&'a Replica);

impl<'a> Trial<'a> {
    fn begin(replica: &'a Replica) -> Option<Self> {
        let is_half_open = replica.health().state() == State::HalfOpen;
        is_half_open.then(|| {
            replica.is_on_trial.store(true, Ordering::Relaxed);
            Self(replica)
        })
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.is_on_trial.store(false, Ordering::Relaxed);
    }
}
