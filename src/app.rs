//! What a handler can reach.

use std::sync::Arc;

use http::HeaderValue;

use crate::{
    admission::Admission,
    cache::Campaigns,
    config::Config,
    db::{Db, statistics::Statistics},
    enrich::{Enricher, Visits},
    journal::Journal,
    limits::Limits,
    telemetry::Metrics,
};

/// Everything a handler needs; clones share it.
pub type App = Arc<Parts>;

/// The parts of a running octo.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Postgres.
    pub db: Arc<Db>,
    /// Campaigns in memory.
    pub campaigns: Arc<Campaigns>,
    /// What the primary said of itself.
    pub statistics: Arc<Statistics>,
    /// Facts on disk.
    pub journal: Journal,
    /// Whether events are let in.
    pub admission: Arc<Admission>,
    /// Device, country, bot.
    pub enricher: Enricher,
    /// How often one address may.
    pub limits: Limits,
    /// Who is suspect, and what of an address is kept.
    pub visits: Arc<Visits>,
    /// `/metrics`
    pub metrics: Metrics,
    /// What `/health` and `/readyz` say.
    pub state: State,
    /// What links are built from, without a trailing slash.
    pub public_url: String,
    /// `Referrer-Policy` of a redirect; `None` sends none.
    pub referrer_policy: Option<HeaderValue>,
}

/// The life of the process, as `/readyz` sees it.
#[derive(Debug, Default)]
pub struct State {
    /// Set once the listener answers and campaigns are loaded.
    pub is_started: std::sync::atomic::AtomicBool,
    /// Set at the stop signal.
    pub is_stopping: std::sync::atomic::AtomicBool,
    /// Set where this start made the token of a first start; only then it is shown.
    pub has_new_token: std::sync::atomic::AtomicBool,
    /// Rounds in a row in which a partition's lock was not to be had.
    pub busy_rounds: std::sync::atomic::AtomicU32,
}
