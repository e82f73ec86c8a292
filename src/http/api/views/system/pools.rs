//! Connections, replicas and queries as the API shows them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::db::{monitor, pool, replicas};

/// What a pool says of itself. Counts are since the start of the process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolState {
    /// `primary` or `replica0`, `replica1`, ...
    #[schema(example = "primary")]
    pub(crate) pool: String,
    /// Where connections lead now, without user and password.
    #[schema(example = "10.0.0.5:5432")]
    pub(crate) server: String,
    /// Connections kept open.
    pub(crate) min: u32,
    /// Connections at most.
    pub(crate) max: usize,
    /// Connections a query runs on.
    pub(crate) used: usize,
    /// Connections that wait for a query.
    pub(crate) idle: usize,
    /// Queries that wait for a connection.
    pub(crate) waiting: usize,
    /// Connections opened.
    pub(crate) created: u64,
    /// Connections that could not be opened.
    pub(crate) failed: u64,
    /// Connections given back in order.
    pub(crate) returned: u64,
    /// Connections closed, for their age or because they broke.
    pub(crate) closed: u64,
    /// Waits for a connection that ran out.
    pub(crate) timeouts: u64,
    /// Waits for a connection.
    pub(crate) acquire: Summary,
}

impl From<pool::State> for PoolState {
    fn from(it: pool::State) -> Self {
        let pool::State {
            pool,
            server,
            min,
            max,
            used,
            idle,
            waiting,
            created,
            failed,
            returned,
            closed,
            timeouts,
            acquire,
        } = it;
        Self {
            pool,
            server,
            min,
            max,
            used,
            idle,
            waiting,
            created,
            failed,
            returned,
            closed,
            timeouts,
            acquire: acquire.into(),
        }
    }
}

/// What a replica says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    /// Its place in `database.replica_urls`, from 0.
    pub(crate) replica: usize,
    /// Whether it answers reads.
    pub(crate) state: State,
    /// Bytes of the primary's log that it has not replayed.
    pub(crate) lag_bytes: u64,
    /// Seconds since the primary was where it is now; 0 when nothing is missing.
    pub(crate) lag_s: f64,
    /// The end of what it has replayed.
    #[schema(example = "0/3000148")]
    pub(crate) replayed: String,
    /// Reads it was given.
    pub(crate) reads: u64,
}

impl From<replicas::Report> for Report {
    fn from(it: replicas::Report) -> Self {
        let replicas::Report { replica, state, lag_bytes, lag_s, replayed, reads } = it;
        Self { replica, state: state.into(), lag_bytes, lag_s, replayed, reads }
    }
}

/// Where a replica stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It answers reads in turn.
    Healthy,
    /// It failed lately: it answers where no healthy one can.
    Suspect,
    /// It answers no reads (those that only lag do where all others are ejected too).
    Ejected,
    /// It is tried again, one read at a time.
    HalfOpen,
}

impl From<replicas::health::State> for State {
    fn from(state: replicas::health::State) -> Self {
        match state {
            replicas::health::State::Healthy => Self::Healthy,
            replicas::health::State::Suspect => Self::Suspect,
            replicas::health::State::Ejected => Self::Ejected,
            replicas::health::State::HalfOpen => Self::HalfOpen,
        }
    }
}

/// A query and its figures since the start of the process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Query {
    /// `noun.verb`
    #[schema(example = "click.list")]
    pub(crate) query: &'static str,
    /// Its times.
    #[serde(flatten)]
    pub(crate) times: Summary,
    /// How often it failed.
    pub(crate) errors: u64,
    /// How often it took longer than `database.slow_query_ms`.
    pub(crate) slow: u64,
}

impl From<monitor::Query> for Query {
    fn from(it: monitor::Query) -> Self {
        let monitor::Query { query, times, errors, slow } = it;
        Self { query, times: times.into(), errors, slow }
    }
}

/// Times in milliseconds, to two digits; all 0 where nothing was counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Summary {
    /// How many.
    pub(crate) count: u64,
    /// Average.
    pub(crate) avg_ms: f64,
    /// Shortest.
    pub(crate) min_ms: f64,
    /// Longest.
    pub(crate) max_ms: f64,
    /// Half of them took at most this.
    pub(crate) p50_ms: f64,
    /// 95 of 100 took at most this.
    pub(crate) p95_ms: f64,
    /// 99 of 100 took at most this.
    pub(crate) p99_ms: f64,
}

impl From<monitor::Summary> for Summary {
    fn from(it: monitor::Summary) -> Self {
        let monitor::Summary { count, avg_ms, min_ms, max_ms, p50_ms, p95_ms, p99_ms } = it;
        Self { count, avg_ms, min_ms, max_ms, p50_ms, p95_ms, p99_ms }
    }
}
