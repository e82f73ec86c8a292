//! What a handler can reach.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32},
};

use http::HeaderValue;
use tokio::sync::watch;

use crate::{
    admission::Admission,
    campaigns::{Campaigns, report_cache::ReportCache},
    config::Config,
    db::{Db, migrations, server_status::ServerStatus},
    embedded::Supervisor,
    journal::Journal,
    judge::Judge,
    limits::Limits,
    privacy::{Privacy, keys::Keys},
    redis::Redis,
    telemetry::Metrics,
    visitor::Enricher,
};

/// Everything a handler needs; clones share it.
pub type App = Arc<Parts>;

/// The parts of a running octo.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Postgres.
    pub db: Arc<Db>,
    /// Keeps the private PostgreSQL running; `None` where a database is configured.
    pub private_postgres: Option<Arc<Supervisor>>,
    /// The way to Redis; `None` where none is configured.
    pub redis: Option<Arc<Redis>>,
    /// Campaigns in memory.
    pub campaigns: Arc<Campaigns>,
    /// Figures of `/stats`, kept for seconds.
    pub report_cache: ReportCache,
    /// What the primary said of itself.
    pub server_status: Arc<ServerStatus>,
    /// Facts on disk.
    pub journal: Journal,
    /// Whether events are let in.
    pub admission: Arc<Admission>,
    /// Device, country, bot.
    pub enricher: Enricher,
    /// How often one address may.
    pub limits: Limits,
    /// Which clicks count.
    pub judge: Arc<Judge>,
    /// What is kept of who clicked.
    pub privacy: Privacy,
    /// What visitors are hashed under.
    pub keys: Arc<Keys>,
    /// `/metrics`
    pub metrics: Metrics,
    /// What `/health` and `/readyz` say.
    pub state: State,
    /// What links are built from, without a trailing slash.
    pub public_url: String,
    /// `Referrer-Policy` of a redirect; `None` sends none.
    pub referrer_policy: Option<HeaderValue>,
}

/// The life of the process, as `/readyz` and `/health` see it.
#[derive(Debug, Default)]
pub struct State {
    /// Set once the listener answers and campaigns are loaded.
    pub is_started: AtomicBool,
    /// Set at the stop signal.
    pub is_stopping: AtomicBool,
    /// Set where this start made the token of a first start; only then it is shown.
    pub has_new_token: AtomicBool,
    /// Rounds in a row in which a partition's lock was not to be had.
    pub busy_rounds: AtomicU32,
    /// How far the set-up of the database has come.
    pub set_up: watch::Sender<SetUp>,
    /// The database's encoding; empty until it said it.
    encoding: Mutex<String>,
}

/// How far the set-up of the database has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SetUp {
    /// The database has not answered yet.
    #[default]
    Waiting,
    /// Why the schema cannot be looked at or brought up, to follow the word PostgreSQL. It is tried again.
    Failing(String),
    /// The schema is there, and rows are stored; partitions and the like may not be.
    Schema,
    /// Everything is there.
    Complete,
}

impl State {
    /// Notes the database's encoding; whether it is another than before.
    pub fn note_encoding(&self, encoding: &str) -> bool {
        let mut noted = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *noted != encoding;
        encoding.clone_into(&mut noted);
        is_new
    }

    /// The database's encoding, if it cannot hold every language.
    pub fn foreign_encoding(&self) -> Option<String> {
        let noted = self.encoding.lock().unwrap_or_else(PoisonError::into_inner);
        (!noted.is_empty() && *noted != migrations::UTF8).then(|| noted.clone())
    }
}
