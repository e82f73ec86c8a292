//! What every query tells: how often, how long, whether it was slow, how it failed; and the one place where an
//! error of sqlx becomes one of ours.
//!
//! `/metrics` has the figures of the process for Prometheus, [`Monitor::queries`] those of a [`Db`](super::Db) for people.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use sqlx::error::DatabaseError;

use super::{Error, Statement};
use crate::{config, metrics};

/// The longest time a [`Timings`] tells from a longer one, in microseconds: one hour.
const LONGEST_US: u64 = 3_600_000_000;

/// How often the plan of one slow query is logged at most.
const PLAN_EVERY: Duration = Duration::from_mins(1);

/// Counts the queries of a [`Db`](super::Db) or of a pool that belongs to none.
pub struct Monitor {
    slow: Duration,
    logs_plans: bool,
    queries: Mutex<BTreeMap<&'static str, Seen>>,
}

/// What was seen of one query.
struct Seen {
    timings: Timings,
    errors: u64,
    slow: u64,
    planned_at: Option<Instant>,
}

/// A query and its figures since the start of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// `noun.verb`
    pub query: &'static str,
    /// Its times.
    pub times: Summary,
    /// How often it failed.
    pub errors: u64,
    /// How often it took longer than `database.slow_query_ms`.
    pub slow: u64,
}

/// Times in milliseconds, to two digits; all 0 where nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Average.
    pub avg_ms: f64,
    /// Shortest.
    pub min_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// Half of them took at most this.
    pub p50_ms: f64,
    /// 95 of 100 took at most this.
    pub p95_ms: f64,
    /// 99 of 100 took at most this.
    pub p99_ms: f64,
}

/// Many durations in a few kilobytes (HDR histogram: two digits, from a microsecond to an hour).
pub struct Timings(Histogram<u32>);

impl Default for Timings {
    fn default() -> Self {
        Self::new()
    }
}

impl Timings {
    /// None yet.
    #[expect(clippy::missing_panics_doc, reason = "it does not: the bounds are constants and valid")]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 2).expect("constant bounds that are valid"))
    }

    /// Adds one; longer than an hour counts as an hour.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// What they come to.
    pub fn summary(&self) -> Summary {
        if self.0.is_empty() {
            return Summary::default();
        }
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(self.0.value_at_quantile(quantile).min(self.0.max()));
        Summary {
            count: self.0.len(),
            avg_ms: (self.0.mean()).round() / 1000.0,
            min_ms: ms(self.0.min()),
            max_ms: ms(self.0.max()),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
        }
    }
}

impl Monitor {
    /// From `[database]`: from when on a query is slow, and whether the plans of slow ones are logged.
    pub fn new(config: &config::Database) -> Self {
        Self { slow: config.slow_query, logs_plans: config.slow_query_plans, queries: Mutex::default() }
    }

    /// Runs a query under its name: time, slowness and failure are counted. Never its values: a slow one is logged by
    /// name.
    pub async fn observe<T>(
        &self,
        statement: Statement,
        run: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        self.measure(statement, self.slow, run).await
    }

    /// [`Monitor::observe`] for a statement within a query that is observed as a whole, and is slow as a whole.
    pub(super) async fn part<T>(
        &self,
        statement: Statement,
        run: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        self.measure(statement, Duration::MAX, run).await
    }

    async fn measure<T>(
        &self,
        statement: Statement,
        slow: Duration,
        run: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        let query = statement.name();
        let start = Instant::now();
        let result = run.await;
        let took = start.elapsed();
        let is_slow = took >= slow;
        metrics::query(query, took, is_slow);
        let mut queries = self.seen();
        let seen = queries.entry(query).or_insert_with(Seen::nothing);
        seen.timings.record(took);
        seen.slow += u64::from(is_slow);
        seen.errors += u64::from(result.is_err());
        drop(queries);
        if is_slow {
            tracing::warn!(query, took_ms = took.as_millis(), "slow query");
        }
        result.inspect_err(|error| metrics::query_error(query, class(error)))
    }

    /// Whether the plan of a query that took so long should be logged now.
    pub(super) fn wants_plan(&self, statement: Statement, took: Duration) -> bool {
        if took < self.slow || !self.logs_plans {
            return false;
        }
        let mut queries = self.seen();
        let seen = queries.entry(statement.name()).or_insert_with(Seen::nothing);
        let is_due = seen.planned_at.is_none_or(|at| at.elapsed() >= PLAN_EVERY);
        if is_due {
            seen.planned_at = Some(Instant::now());
        }
        is_due
    }

    /// Every query with its figures, in order of name: each of the code's statements, whether it ran or not.
    pub fn queries(&self) -> Vec<Query> {
        let unseen = |statement: Statement| (statement.name(), Query::unseen(statement.name()));
        let mut all: BTreeMap<&'static str, Query> = super::statements().map(unseen).collect();
        for (&query, seen) in self.seen().iter() {
            let Seen { timings, errors, slow, .. } = seen;
            all.insert(query, Query { query, times: timings.summary(), errors: *errors, slow: *slow });
        }
        all.into_values().collect()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<&'static str, Seen>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn nothing() -> Self {
        Self { timings: Timings::new(), errors: 0, slow: 0, planned_at: None }
    }
}

impl Query {
    fn unseen(query: &'static str) -> Self {
        Self { query, times: Summary::default(), errors: 0, slow: 0 }
    }
}

/// An error of sqlx as one of ours.
pub fn classify(query: &'static str, source: sqlx::Error) -> Error {
    if is_transient(&source) {
        return Error::Unavailable(Box::new(source));
    }
    let constraint = source.as_database_error().filter(|e| e.code().is_some_and(|c| c.starts_with("23")));
    match constraint.and_then(|e| e.constraint()) {
        Some(constraint) => Error::Conflict { constraint: constraint.to_owned() },
        None => Error::Query { query, source },
    }
}

/// Whether the same query may succeed later: no connection, or a state of the server rather than of the data.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error.as_database_error().and_then(DatabaseError::code) {
        // connection, transaction rollback, resources, object in use, operator intervention, system, cannot
        // write on a standby
        Some(code) => {
            ["08", "40", "53", "55", "57", "58", "25006"].iter().any(|class| code.starts_with(class))
        }
        None => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
        ),
    }
}

/// Whether a connection must not be used again after this error.
pub(super) fn breaks_connection(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(_) => is_lost(error),
        None => is_transient(error),
    }
}

/// Whether the server ended the connection or is not the one it was: other connections to it are no better.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match (error.as_database_error().and_then(DatabaseError::code), error) {
        // connection exception, shut down (by a person, a crash, at a start), a standby takes no writes
        (Some(code), _) => ["08", "57P", "25006"].iter().any(|class| code.starts_with(class)),
        (None, sqlx::Error::Io(error)) => error.kind() != std::io::ErrorKind::TimedOut,
        (None, _) => false,
    }
}

/// Whether another server may answer the same read: this one could not be reached, or replaying the primary's
/// changes stood against it (40001).
pub(super) fn is_worth_elsewhere(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    let Some(error) = source.downcast_ref::<sqlx::Error>() else { return false };
    match error.as_database_error().and_then(DatabaseError::code) {
        Some(code) => code == "40001" || is_lost(error) || is_server_full(error),
        None => is_transient(error),
    }
}

/// Whether the same server may answer the same read on a new connection.
pub(super) fn is_retryable(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    source.downcast_ref::<sqlx::Error>().is_some_and(|error| match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|c| c == "40001" || c.starts_with("57P01")),
        error => is_lost(error),
    })
}

/// 53300: too_many_connections
pub(super) fn is_server_full(error: &sqlx::Error) -> bool {
    is_code(error, "53300")
}

/// Whether the server says this SQLSTATE.
pub(super) fn is_code(error: &sqlx::Error, sqlstate: &str) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == sqlstate)
}

/// Whether the server said this SQLSTATE, whatever [`classify`] made of it.
pub(super) fn has_code(error: &Error, sqlstate: &str) -> bool {
    match error {
        Error::Query { source, .. } => is_code(source, sqlstate),
        Error::Unavailable(source) => {
            source.downcast_ref::<sqlx::Error>().is_some_and(|source| is_code(source, sqlstate))
        }
        Error::Conflict { .. } | Error::Encoding(_) => false,
    }
}

/// A label for an error: the SQLSTATE class, `io`, `timeout` or `other`.
pub fn class(error: &sqlx::Error) -> &'static str {
    const CLASSES: [&str; 20] = [
        "08", "0A", "21", "22", "23", "25", "26", "28", "2B", "3D", "40", "42", "44", "53", "54", "55", "57",
        "58", "P0", "XX",
    ];
    let code = error.as_database_error().and_then(DatabaseError::code);
    match (code, error) {
        (Some(code), _) => CLASSES.into_iter().find(|class| code.starts_with(class)).unwrap_or("other"),
        (None, sqlx::Error::Io(e)) if e.kind() == std::io::ErrorKind::TimedOut => "timeout",
        (None, sqlx::Error::Io(_)) => "io",
        (None, sqlx::Error::PoolTimedOut) => "timeout",
        (None, _) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_average_extremes_and_percentiles() {
        let mut timings = Timings::new();
        assert_eq!(timings.summary(), Summary::default());
        (1..=100).for_each(|ms| timings.record(Duration::from_millis(ms)));
        let summary = timings.summary();
        assert_eq!(summary.count, 100);
        for (is, wanted) in [
            (summary.avg_ms, 50.5),
            (summary.min_ms, 1.0),
            (summary.max_ms, 100.0),
            (summary.p50_ms, 50.0),
            (summary.p95_ms, 95.0),
            (summary.p99_ms, 99.0),
        ] {
            assert!((is - wanted).abs() <= wanted * 0.011, "{is} is not {wanted}");
        }
        timings.record(Duration::from_hours(100));
        assert!(timings.summary().max_ms >= 3_600_000.0);
    }

    fn monitor(set: &[(&str, &str)]) -> Monitor {
        let set = set.iter().map(|(key, value)| (format!("OCTO_DATABASE__{key}"), (*value).to_owned()));
        let config = config::Loaded::load(None, set, &config::Flags::default()).unwrap().config;
        Monitor::new(&config.database)
    }

    #[tokio::test]
    async fn two_monitors_count_for_themselves_by_their_own_settings() {
        const RAN: Statement = Statement::new("test.ran", "SELECT 1");

        let eager = monitor(&[("SLOW_QUERY_MS", "0"), ("SLOW_QUERY_PLANS", "true")]);
        let calm = monitor(&[("SLOW_QUERY_MS", "60000")]);
        for _ in 0..2 {
            eager.observe(RAN, async { Ok(()) }).await.unwrap();
        }
        calm.observe(RAN, async { Ok(()) }).await.unwrap();
        let seen = |monitor: &Monitor| {
            let ran = monitor.queries().into_iter().find(|q| q.query == RAN.name()).unwrap();
            (ran.times.count, ran.slow, monitor.wants_plan(RAN, Duration::from_millis(1)))
        };
        assert_eq!((seen(&eager), seen(&calm)), ((2, 2, true), (1, 0, false)));
    }

    #[tokio::test]
    async fn a_query_is_listed_with_its_errors() {
        const OBSERVED: Statement = Statement::new("test.observe", "SELECT 1");

        let monitor = monitor(&[]);
        let fails = async { Err::<(), _>(sqlx::Error::RowNotFound) };
        monitor.observe(OBSERVED, fails).await.unwrap_err();
        monitor.observe(OBSERVED, async { Ok(()) }).await.unwrap();
        let queries = monitor.queries();
        let seen = queries.iter().find(|q| q.query == OBSERVED.name()).unwrap();
        assert_eq!((seen.times.count, seen.errors), (2, 1));
        assert!(queries.iter().any(|q| q.query == "click.list"), "what did not run is listed too");
    }

    #[test]
    fn a_silent_peer_breaks_its_connection_and_a_farewell_breaks_them_all() {
        let io = |kind| sqlx::Error::Io(std::io::Error::from(kind));
        let silent = io(std::io::ErrorKind::TimedOut);
        assert!(breaks_connection(&silent) && !is_lost(&silent));
        let gone = io(std::io::ErrorKind::ConnectionReset);
        assert!(breaks_connection(&gone) && is_lost(&gone));
        assert!(!breaks_connection(&sqlx::Error::RowNotFound));
        assert!(is_worth_elsewhere(&Error::Unavailable(Box::new(gone))));
        assert!(!is_worth_elsewhere(&Error::Conflict { constraint: String::new() }));
    }
}
