//! What every query tells: its time, whether it was slow, how it failed; and the one place where an error of
//! sqlx becomes one of ours.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use super::{Error, pool::Pool};
use crate::metrics;

/// Runs a query under its name: time, slowness and failure are measured, the error is classified.
pub async fn observe<T>(
    query: &'static str,
    slow: Duration,
    run: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, Error> {
    let start = Instant::now();
    let result = run.await;
    let took = start.elapsed();
    let is_slow = took >= slow;
    metrics::query(query, took, is_slow);
    if is_slow {
        tracing::warn!(query, took_ms = took.as_millis(), "slow query");
    }
    result.map_err(|source| {
        metrics::query_error(query, class(&source));
        classify(query, source)
    })
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
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code) {
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

/// What a server says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// Whether it is a replica, and how far its last replayed transaction lies back, in seconds (an idle
    /// primary is not lag: 0 when everything received is replayed).
    pub replica_lag_s: Option<f64>,
}

impl std::fmt::Display for Ping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.replica_lag_s {
            None => write!(f, "answers"),
            Some(lag) => write!(f, "answers, {lag:.1} s behind"),
        }
    }
}

const PING: &str = "
SELECT CASE WHEN pg_is_in_recovery() THEN
    CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
         ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0) END
END::float8";

/// Every statement of this module.
pub const STATEMENTS: &[(&str, &str)] = &[("health.ping", PING)];

/// Asks a server whether it answers.
pub async fn ping(pool: &Pool) -> Result<Ping, Error> {
    let lag = pool.run("health.ping", |c| Box::pin(sqlx::query_scalar(PING).fetch_one(c))).await?;
    Ok(Ping { replica_lag_s: lag })
}

/// A label for an error: the SQLSTATE class, `io`, `timeout` or `other`.
pub fn class(error: &sqlx::Error) -> &'static str {
    const CLASSES: [&str; 20] = [
        "08", "0A", "21", "22", "23", "25", "26", "28", "2B", "3D", "40", "42", "44", "53", "54", "55", "57",
        "58", "P0", "XX",
    ];
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match (code, error) {
        (Some(code), _) => CLASSES.into_iter().find(|class| code.starts_with(class)).unwrap_or("other"),
        (None, sqlx::Error::Io(e)) if e.kind() == std::io::ErrorKind::TimedOut => "timeout",
        (None, sqlx::Error::Io(_)) => "io",
        (None, sqlx::Error::PoolTimedOut) => "timeout",
        (None, _) => "other",
    }
}
