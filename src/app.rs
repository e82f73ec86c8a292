//! What a handler can reach, and how it is made at a start.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32},
    },
};

use anyhow::Context;
use chrono::Utc;
use http::HeaderValue;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};

use crate::{
    admission::Admission,
    budgets::Budgets,
    campaigns::{Campaigns, Source, report_cache::ReportCache},
    caps::Caps,
    config::Config,
    db::{Db, migrations, server_status::ServerStatus},
    embedded::{Embedded, Supervisor},
    journal::{Journal, Lock, Options, disk::RealDisk},
    judge::{Judge, NewVisit, uniques::Uniques},
    limits::Limits,
    live::Live,
    networks::Networks,
    postback::worker::Postbacks,
    privacy::{Privacy, keys::Keys},
    redis::Redis,
    script::Script,
    seal::keys::Keyring,
    telemetry::Metrics,
    visitor::{Enricher, Files},
};

/// Why octo did not start: one plain sentence with the remedy. Exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CannotStart(pub String);

/// Everything a handler needs; clones share it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

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
    /// Affiliate networks in memory.
    pub networks: Arc<Networks>,
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
    /// Who came today.
    pub uniques: Arc<Uniques>,
    /// How much paths and offers have taken.
    pub caps: Arc<Caps>,
    /// Who is told of conversions.
    pub postbacks: Arc<Postbacks>,
    /// Which campaigns have spent what they may.
    pub budgets: Arc<Budgets>,
    /// What is kept of who clicked.
    pub privacy: Privacy,
    /// What visitors are hashed under.
    pub keys: Arc<Keys>,
    /// What tokens are sealed under.
    pub keyring: Arc<Keyring>,
    /// Who looks at what is stored, as it is stored.
    pub live: Live,
    /// `/metrics`
    pub metrics: Metrics,
    /// What `/health` and `/readyz` say.
    pub state: State,
    /// What links are built from, without a trailing slash.
    pub public_url: String,
    /// Where links from landing pages to offers begin.
    pub out_base: String,
    /// `Referrer-Policy` of a redirect; `None` sends none.
    pub referrer_policy: Option<HeaderValue>,
    /// What landing pages run.
    pub script: Script,
}

/// First clicks, to be told to the other nodes.
#[derive(Debug, Default)]
pub struct NewVisits {
    /// Of visits; `None` where duplicates are not looked for, or there is no Redis to tell them through.
    pub visits: Option<mpsc::Receiver<NewVisit>>,
    /// Of visitors, likewise.
    pub visitors: Option<mpsc::Receiver<NewVisit>>,
}

/// The right to the data directory; `None` while it cannot be made or read, and the journal takes it once it can.
pub type SharedLock = Arc<Mutex<Option<Lock>>>;

impl App {
    /// Makes the parts in order. Nothing runs afterwards but the journal's thread, and nobody has been asked anything.
    pub fn build(
        config: Config,
        lock: SharedLock,
        metrics: Metrics,
        public_url: String,
    ) -> anyhow::Result<(Self, NewVisits)> {
        let journal = open_journal(&config, lock)?;
        let private_postgres = config.database.url.is_none();
        let private_postgres = private_postgres.then(|| Arc::new(Supervisor::new(&config.server.data_dir)));
        let url = match &private_postgres {
            Some(private) => private.likely_url().into(),
            None => database_url(&config, None)?,
        };
        let db = Arc::new(Db::new(&url, &config.database).context("database.url")?);
        let redis = Redis::open(&config.redis)?;
        let campaigns = Arc::new(Campaigns::new(db.clone(), redis.clone(), &config));
        may_start_unrecorded(&config, &journal, &campaigns)?;
        let networks = Arc::new(Networks::new(db.clone(), &config));
        let enricher = open_enricher(&config.tracking)?;
        let keys = Arc::new(Keys::new(random_key()?));
        let keyring = open_keyring(&config)?;
        let (judge, visits) = open_judge(&config, redis.is_some())?;
        let (uniques, visitors) = open_uniques(&config, redis.is_some());
        let caps = Caps::new(config.caps.counters_max, uniques.clone());
        caps.restore(&caps_file(&config), Utc::now());
        let referrer_policy =
            HeaderValue::from_str(&config.tracking.referrer_policy).ok().filter(|v| !v.is_empty());
        let parts = Parts {
            db,
            private_postgres,
            report_cache: ReportCache::new(redis.clone(), &config.cache),
            redis,
            campaigns,
            networks,
            server_status: Arc::default(),
            journal,
            admission: Arc::new(Admission::new(&config.admission, config.journal.max_bytes)),
            enricher,
            limits: Limits::new(&config.limits, config.postbacks.refused_per_minute_max),
            judge: Arc::new(judge),
            uniques,
            caps: Arc::new(caps),
            postbacks: Arc::new(Postbacks::new(&config.deliveries).context("the client of postbacks")?),
            budgets: Arc::new(Budgets::open(config.server.data_dir.join("budgets.json"))),
            privacy: Privacy::new(config.privacy.ip_mode, keys.clone()),
            keys,
            keyring,
            live: Live::new(config.dashboard.live_streams_max, config.dashboard.live_lag_rows_max),
            metrics,
            state: State::default(),
            out_base: format!("{public_url}/out"),
            public_url,
            referrer_policy,
            script: Script::new(&config.script, config.privacy.respect_gpc),
            config,
        };
        Ok((Self(Arc::new(parts)), NewVisits { visits, visitors }))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// A journal that cannot be opened is tried again by itself.
fn open_journal(config: &Config, lock: SharedLock) -> anyhow::Result<Journal> {
    let root = config.journal_dir();
    let options = Options {
        root: root.clone(),
        segment_bytes: config.journal.segment_bytes,
        bytes_max: config.journal.max_bytes,
        queue_records_max: config.journal.queue_records_max,
        queue_bytes_max: config.journal.queue_bytes_max,
        keep_drained: config.journal.keep_drained,
        retry_interval: config.journal.retry_interval,
    };
    let claim = move || {
        let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            *lock = Lock::acquire(&root)?;
        }
        lock.is_some().then_some(()).ok_or_else(|| std::io::Error::other("it is in use by another octo"))
    };
    Journal::start(Arc::new(RealDisk), options, claim).context("the journal's thread cannot be started")
}

/// Without a journal octo redirects from the campaigns of an earlier start; where there are none it is misconfigured.
fn may_start_unrecorded(
    config: &Config,
    journal: &Journal,
    campaigns: &Campaigns,
) -> Result<(), CannotStart> {
    let Some(trouble) = journal.trouble().filter(|_| campaigns.state().1 == Source::Nothing) else {
        return Ok(());
    };
    let (root, trouble) = (config.journal_dir(), anyhow::Error::from(trouble));
    let root = root.display();
    Err(CannotStart(format!(
        "the journal in {root} cannot be written ({trouble:#}); check the disk and the permissions, or set journal.dir"
    )))
}

fn random_key() -> anyhow::Result<[u8; 16]> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| anyhow::anyhow!("the system provides no random numbers: {error}"))?;
    Ok(key)
}

/// Beside the campaigns: what a start without stores needs of earlier ones.
fn open_keyring(config: &Config) -> anyhow::Result<Arc<Keyring>> {
    let keyring = Keyring::open(config.server.data_dir.join("token-keys.json"));
    let keyring =
        keyring.map_err(|error| anyhow::anyhow!("the system provides no random numbers: {error}"))?;
    Ok(Arc::new(keyring))
}

/// Beside the campaigns: the counts of caps.
pub fn caps_file(config: &Config) -> PathBuf {
    config.server.data_dir.join("caps.json")
}

fn open_uniques(config: &Config, has_redis: bool) -> (Arc<Uniques>, Option<mpsc::Receiver<NewVisit>>) {
    let (sender, receiver) = mpsc::channel(config.tracking.duplicate_share_max);
    let path = config.server.data_dir.join("visitors-of-today");
    let uniques = Uniques::open(config.tracking.unique_visitors_max, path, has_redis.then_some(sender));
    (Arc::new(uniques), has_redis.then_some(receiver))
}

fn open_judge(
    config: &Config,
    has_redis: bool,
) -> Result<(Judge, Option<mpsc::Receiver<NewVisit>>), CannotStart> {
    let is_shared = has_redis && !config.tracking.duplicate_window.is_zero();
    let (sender, receiver) = mpsc::channel(config.tracking.duplicate_share_max);
    let judge = Judge::open(config, is_shared.then_some(sender))
        .map_err(|error| unreadable("tracking.datacenter_networks_file", error))?;
    Ok((judge, is_shared.then_some(receiver)))
}

/// Prepares what describes visitors, with the files that the configuration names.
pub(crate) fn open_enricher(tracking: &crate::config::Tracking) -> anyhow::Result<Enricher> {
    let files = Files {
        country: tracking.country_file.as_deref(),
        city: tracking.city_file.as_deref(),
        isp: tracking.isp_file.as_deref(),
        connection: tracking.connection_file.as_deref(),
    };
    // the error names the key
    Enricher::open(&files).map_err(|error| CannotStart(format!("{:#}", anyhow::Error::new(error))).into())
}

fn unreadable(key: &str, error: impl Into<anyhow::Error>) -> CannotStart {
    CannotStart(format!("{key}: {:#}", error.into()))
}

/// The configured primary, else the embedded one.
pub fn database_url(config: &Config, embedded: Option<&Embedded>) -> anyhow::Result<SecretString> {
    match (&config.database.url, embedded) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(embedded)) => Ok(embedded.url().into()),
        (None, None) => anyhow::bail!("no database is configured"),
    }
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
