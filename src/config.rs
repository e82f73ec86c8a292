//! Configuration: one flat list of known keys, four layers, and where each value came from.
//!
//! `config/default.toml` is embedded and names every key; a file and the environment may only change
//! what it names, so a misspelt key is an error with the nearest name and never a silent default.

mod urls;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use toml::{Table, Value};

use crate::model::scheme::Scheme;

const DEFAULTS: &str = include_str!("../config/default.toml");

/// Keys whose values are shown as `***`.
const SECRETS: [&str; 7] = [
    "database.url",
    "database.replica_urls",
    "database.direct_url",
    "redis.url",
    "redis.cluster_urls",
    "redis.sentinel_urls",
    "redis.password",
];

/// Longest `tracking.duplicate_window_s`: thirty days.
const DUPLICATE_WINDOW_S_MAX: u64 = 30 * 86_400;

/// The effective configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listeners, time-outs, caps.
    pub server: Server,
    /// The primary, its replicas and the pool.
    pub database: Database,
    /// The shared campaign cache.
    pub redis: Redis,
    /// The journal on the local disk.
    pub journal: Journal,
    /// Journal to Postgres.
    pub drain: Drain,
    /// Campaigns in memory.
    pub cache: Cache,
    /// Redirects.
    pub tracking: Tracking,
    /// What is kept, and how long.
    pub privacy: Privacy,
    /// The admin API.
    pub api: Api,
    /// Whether clocks agree.
    pub clock: Clock,
    /// What is logged, and how.
    pub log: Log,
    /// How often one address may.
    pub limits: Limits,
    /// Who is let in under overload.
    pub admission: Admission,
}

/// `[admission]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Admission {
    pub line_wait_max_ms: u64,
    pub window_ms: u64,
    pub disk_wait_max_ms: u64,
    pub queue_percent_max: usize,
    pub hold_ms: u64,
    pub events_in_flight_max: usize,
    pub bodies_bytes_max: usize,
    pub journal_percent_max: u64,
    pub disk_free_min_bytes: u64,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Server {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "optional")]
    pub admin_listen: Option<SocketAddr>,
    #[serde(deserialize_with = "optional_url")]
    pub public_url: Option<url::Url>,
    pub data_dir: PathBuf,
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub client_ip_header: ClientIpHeader,
    pub max_connections: usize,
    pub header_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub head_bytes_max: usize,
    pub headers_max: usize,
    pub drain_delay_ms: u64,
    pub shutdown_timeout_ms: u64,
    pub proxy_protocol: bool,
    pub proxy_header_bytes_max: usize,
    pub forwarded_hops_max: usize,
    pub listen_backlog: i32,
    pub keep_alive_drain_ms: u64,
    pub linger_ms: u64,
    pub write_timeout_ms: u64,
    pub write_bytes_min: usize,
    pub send_buffer_bytes: usize,
    pub reserved_connections: usize,
    pub crowded_wait_ms: u64,
    pub connections_per_address_max: usize,
    pub public_metrics: bool,
    pub metrics_token_recheck_s: u64,
}

impl Server {
    /// Whether what this peer says of somebody else is believed. For addresses in their one form
    /// (`IpAddr::to_canonical`).
    pub fn is_trusted_proxy(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&ip))
    }
}

/// The one header that names the client behind a trusted proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ClientIpHeader {
    /// `X-Forwarded-For: client, proxy, proxy`
    #[serde(rename = "X-Forwarded-For", alias = "x-forwarded-for")]
    XForwardedFor,
    /// `Forwarded: for=client;proto=https` (RFC 7239)
    #[serde(rename = "Forwarded", alias = "forwarded")]
    Forwarded,
    /// `CF-Connecting-IP: client`
    #[serde(rename = "CF-Connecting-IP", alias = "cf-connecting-ip")]
    CfConnectingIp,
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Database {
    #[serde(deserialize_with = "optional_secret")]
    pub url: Option<SecretString>,
    pub replica_urls: Vec<SecretString>,
    pub min_connections: u32,
    pub max_connections: u32,
    pub acquire_timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub statement_timeout_ms: u64,
    pub maintenance_timeout_ms: u64,
    pub idle_timeout_s: u64,
    pub idle_check_ms: u64,
    pub max_lifetime_s: u64,
    pub slow_query_ms: u64,
    pub slow_query_plans: bool,
    pub prepared_statements: bool,
    #[serde(deserialize_with = "optional_secret")]
    pub direct_url: Option<SecretString>,
    pub probe_interval_ms: u64,
    pub probe_timeout_ms: u64,
    pub replica_lag_max_ms: u64,
    pub replica_lag_bytes_max: u64,
    pub replica_failures_max: u32,
    pub replica_eject_min_ms: u64,
    pub replica_eject_max_ms: u64,
    pub primary_reads_max: u32,
    pub migrate_on_start: bool,
    pub partitions_ahead_days: u32,
    pub partitions_interval_s: u64,
    pub partition_lock_timeout_ms: u64,
    pub partition_move_rows_max: u32,
    pub partition_check_timeout_ms: u64,
    pub delete_chunk_rows: u32,
    pub statistics_interval_s: u64,
    pub statistics_timeout_ms: u64,
    pub statistics_tables_max: u32,
    pub statistics_partitions_max: u32,
}

/// `[redis]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Redis {
    #[serde(deserialize_with = "optional_secret")]
    pub url: Option<SecretString>,
    pub cluster_urls: Vec<SecretString>,
    pub sentinel_urls: Vec<SecretString>,
    #[serde(deserialize_with = "optional")]
    pub sentinel_master: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub username: Option<String>,
    #[serde(deserialize_with = "optional_secret")]
    pub password: Option<SecretString>,
    pub database: i64,
    pub connect_timeout_ms: u64,
    pub command_timeout_ms: u64,
    pub breaker_failures: u32,
    pub breaker_wait_ms: u64,
    pub campaign_ttl_s: u64,
    pub pool_size: usize,
    pub key_prefix: String,
}

/// `[journal]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Journal {
    pub dir: PathBuf,
    pub max_bytes: u64,
    pub keep_drained_s: u64,
    pub retry_interval_ms: u64,
    pub segment_bytes: u64,
    pub queue_records_max: usize,
    pub queue_bytes_max: usize,
    pub append_timeout_ms: u64,
    pub lock_wait_ms: u64,
}

/// `[drain]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Drain {
    pub batch_rows: usize,
    pub batch_bytes_max: usize,
    pub linger_ms: u64,
    pub retry_min_ms: u64,
    pub retry_max_ms: u64,
    pub statement_timeout_ms: u64,
    pub check_interval_ms: u64,
}

/// `[cache]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Cache {
    pub poll_interval_s: u64,
    pub stale_after_polls: u32,
    pub miss_timeout_ms: u64,
    pub filler_wait_ms: u64,
    pub negative_ttl_ms: u64,
    pub negative_keys_max: u64,
    pub look_ups_per_second_max: u32,
    pub look_ups_in_flight_max: usize,
    pub batch_unknown_keys_max: usize,
    pub save_interval_ms: u64,
    pub stats_ttl_s: u64,
    pub stats_questions_max: usize,
    pub stats_bytes_max: usize,
}

/// `[tracking]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Tracking {
    #[serde(deserialize_with = "optional_url")]
    pub fallback_url: Option<url::Url>,
    pub referrer_policy: String,
    #[serde(deserialize_with = "optional")]
    pub country_file: Option<PathBuf>,
    pub app_schemes: Vec<Scheme>,
    pub public_events: bool,
    pub robots_txt: String,
    pub duplicate_window_s: u64,
    pub duplicate_visits_max: usize,
    pub duplicate_share_ms: u64,
    pub duplicate_share_max: usize,
    #[serde(deserialize_with = "optional")]
    pub datacenter_networks_file: Option<PathBuf>,
}

/// `[privacy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Privacy {
    pub retention_days: u32,
    pub ip_mode: IpMode,
    pub respect_gpc: bool,
    pub respect_dnt: bool,
    pub erasure_interval_s: u64,
    pub erasure_keep_days: u32,
}

/// What is kept of a visitor's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpMode {
    /// All of it.
    Full,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Truncate,
    /// A hash under a key of the day.
    Hash,
    /// Nothing.
    None,
}

/// `[api]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Api {
    pub idempotency_keep_s: u64,
    pub idempotency_keys_max: u32,
    pub idempotency_lease_ms: u64,
    pub list_time_max_ms: u64,
}

/// `[clock]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Clock {
    pub skew_max_ms: u64,
    pub check_interval_s: u64,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]
pub struct Limits {
    pub addresses_max: usize,
    pub failed_auth_per_minute: u32,
    pub failed_auth_burst: u32,
    pub proven_tokens_max: u64,
    pub clicks_per_minute: u32,
    pub events_per_minute: u32,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with the configuration: every fault at once, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} {}:\n{}", .0.len(), if .0.len() == 1 { "fault" } else { "faults" }, lines(.0))]
pub struct Error(Vec<String>);

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `config/default.toml`
    Default,
    /// The file given by `--config`.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A file named by an environment variable ending in `_FILE`.
    SecretFile(String),
    /// A flag of the command line.
    Flag(&'static str),
}

/// What the command line may set.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
}

/// The configuration and the origin of each of its values.
#[derive(Clone)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    layers: Layers,
}

impl Loaded {
    /// Merges defaults, `file`, `environment` (name, value pairs) and flags, and checks the result.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> Result<Self, Error> {
        let mut layers = Layers::defaults();
        let mut faults = Vec::new();
        if let Some(path) = file {
            layers.add_file(path, &mut faults);
        }
        layers.add_environment(environment, &mut faults);
        layers.add_flags(flags);
        if !faults.is_empty() {
            return Err(Error(faults));
        }
        let mut config = layers.parse()?;
        if let Some(data_dir) = &flags.data_dir {
            config.server.data_dir.clone_from(data_dir); // as given: it may not be UTF-8
        }
        config.validate()?;
        Ok(Self { config, layers })
    }
}

/// The environment as [`Loaded::load`] takes it. What is not UTF-8 is a fault in a variable of ours, and none of our
/// business in anybody else's.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, Error> {
    let mut texts = Vec::new();
    let mut faults = Vec::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => texts.push((name, value)),
            // without the value: it may be a password
            (Ok(name), Err(_)) if is_ours(&name) => faults.push(format!("{name} is not UTF-8")),
            (Err(name), _) if is_ours(&name.to_string_lossy()) => {
                faults.push(format!("the name {} is not UTF-8", name.display()));
            }
            _ => {}
        }
    }
    if faults.is_empty() { Ok(texts) } else { Err(Error(faults)) }
}

fn is_ours(name: &str) -> bool {
    let general = ["DATABASE_URL", "REDIS_URL", "PORT", "DATABASE_URL_FILE", "REDIS_URL_FILE"];
    general.contains(&name) || name.strip_prefix("OCTO_").is_some_and(|rest| rest.contains("__"))
}

/// `octo config print`: TOML, each value with its origin, secrets as `***`.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for (key, entry) in &self.layers.0 {
            let (head, name) = key.split_once('.').unwrap_or(("", key));
            if head != section {
                writeln!(f, "{}[{head}]", if section.is_empty() { "" } else { "\n" })?;
                section = head;
            }
            let value = if SECRETS.contains(&key.as_str()) && !is_empty(&entry.value) {
                "\"***\"".to_owned()
            } else {
                entry.value.to_string()
            };
            writeln!(f, "{:<44} # {}", format!("{name} = {value}"), entry.source)?;
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::SecretFile(name) => write!(f, "file named by {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

impl Config {
    /// Where the journal lives.
    pub fn journal_dir(&self) -> PathBuf {
        if self.journal.dir.as_os_str().is_empty() {
            self.server.data_dir.join("journal")
        } else {
            self.journal.dir.clone()
        }
    }

    /// What is less than it must be.
    fn too_small(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut at_least = |key: &str, value: u64, least: u64| {
            if value < least {
                faults.push(format!("{key} is {value}, but must be at least {least}"));
            }
        };
        at_least("server.max_connections", self.server.max_connections as u64, 1);
        at_least("server.header_timeout_ms", self.server.header_timeout_ms, 100);
        at_least("server.idle_timeout_ms", self.server.idle_timeout_ms, 100);
        at_least("server.body_timeout_ms", self.server.body_timeout_ms, 100);
        at_least("server.write_timeout_ms", self.server.write_timeout_ms, 100);
        at_least("admission.line_wait_max_ms", self.admission.line_wait_max_ms, 1);
        at_least("admission.disk_wait_max_ms", self.admission.disk_wait_max_ms, 1);
        at_least("admission.queue_percent_max", self.admission.queue_percent_max as u64, 1);
        at_least("admission.events_in_flight_max", self.admission.events_in_flight_max as u64, 1);
        // one batch at least, or none could ever be taken
        at_least("admission.bodies_bytes_max", self.admission.bodies_bytes_max as u64, 1 << 20);
        at_least("admission.journal_percent_max", self.admission.journal_percent_max, 1);
        at_least("server.head_bytes_max", self.server.head_bytes_max as u64, 8192);
        at_least("server.headers_max", self.server.headers_max as u64, 16);
        at_least("server.proxy_header_bytes_max", self.server.proxy_header_bytes_max as u64, 256);
        at_least("server.forwarded_hops_max", self.server.forwarded_hops_max as u64, 1);
        at_least("server.listen_backlog", u64::try_from(self.server.listen_backlog).unwrap_or(0), 1);
        at_least("database.max_connections", self.database.max_connections.into(), 2);
        at_least("database.acquire_timeout_ms", self.database.acquire_timeout_ms, 10);
        at_least("database.connect_timeout_ms", self.database.connect_timeout_ms, 10);
        at_least("database.statement_timeout_ms", self.database.statement_timeout_ms, 10);
        at_least("database.maintenance_timeout_ms", self.database.maintenance_timeout_ms, 10);
        at_least("database.max_lifetime_s", self.database.max_lifetime_s, 1);
        at_least("database.probe_interval_ms", self.database.probe_interval_ms, 10);
        at_least("database.probe_timeout_ms", self.database.probe_timeout_ms, 10);
        at_least("database.replica_failures_max", self.database.replica_failures_max.into(), 1);
        let eject_min = self.database.replica_eject_min_ms;
        at_least("database.replica_eject_max_ms", self.database.replica_eject_max_ms, eject_min);
        at_least("database.primary_reads_max", self.database.primary_reads_max.into(), 1);
        at_least("database.partitions_ahead_days", self.database.partitions_ahead_days.into(), 1);
        at_least("database.partitions_interval_s", self.database.partitions_interval_s, 1);
        at_least("database.partition_lock_timeout_ms", self.database.partition_lock_timeout_ms, 10);
        at_least("database.partition_check_timeout_ms", self.database.partition_check_timeout_ms, 10);
        at_least("database.delete_chunk_rows", self.database.delete_chunk_rows.into(), 1);
        at_least("clock.skew_max_ms", self.clock.skew_max_ms, 1000);
        at_least("clock.check_interval_s", self.clock.check_interval_s, 1);
        at_least("database.statistics_interval_s", self.database.statistics_interval_s, 1);
        at_least("database.statistics_timeout_ms", self.database.statistics_timeout_ms, 10);
        at_least("database.statistics_tables_max", self.database.statistics_tables_max.into(), 1);
        at_least("redis.command_timeout_ms", self.redis.command_timeout_ms, 1);
        at_least("redis.campaign_ttl_s", self.redis.campaign_ttl_s, 1);
        at_least("redis.pool_size", self.redis.pool_size as u64, 1);
        at_least("redis.connect_timeout_ms", self.redis.connect_timeout_ms, 10);
        at_least("redis.breaker_failures", self.redis.breaker_failures.into(), 1);
        at_least("redis.breaker_wait_ms", self.redis.breaker_wait_ms, 1);
        at_least("cache.stale_after_polls", self.cache.stale_after_polls.into(), 1);
        at_least("cache.miss_timeout_ms", self.cache.miss_timeout_ms, 1);
        at_least("cache.look_ups_per_second_max", self.cache.look_ups_per_second_max.into(), 1);
        at_least("cache.look_ups_in_flight_max", self.cache.look_ups_in_flight_max as u64, 1);
        at_least("cache.batch_unknown_keys_max", self.cache.batch_unknown_keys_max as u64, 1);
        at_least("cache.stats_questions_max", self.cache.stats_questions_max as u64, 1);
        at_least("journal.segment_bytes", self.journal.segment_bytes, 4096);
        at_least("journal.max_bytes", self.journal.max_bytes, self.journal.segment_bytes.saturating_mul(2));
        at_least("journal.queue_records_max", self.journal.queue_records_max as u64, 1);
        at_least("journal.queue_bytes_max", self.journal.queue_bytes_max as u64, 1 << 21);
        at_least("journal.append_timeout_ms", self.journal.append_timeout_ms, 1);
        at_least("journal.retry_interval_ms", self.journal.retry_interval_ms, 10);
        at_least("drain.batch_rows", self.drain.batch_rows as u64, 1);
        at_least("drain.batch_bytes_max", self.drain.batch_bytes_max as u64, 65_536);
        at_least("drain.retry_min_ms", self.drain.retry_min_ms, 1);
        at_least("drain.retry_max_ms", self.drain.retry_max_ms, self.drain.retry_min_ms);
        at_least("drain.check_interval_ms", self.drain.check_interval_ms, 1);
        at_least("limits.addresses_max", self.limits.addresses_max as u64, 8);
        at_least("limits.failed_auth_burst", self.limits.failed_auth_burst.into(), 1);
        at_least("api.idempotency_keep_s", self.api.idempotency_keep_s, 1);
        at_least("api.idempotency_keys_max", self.api.idempotency_keys_max.into(), 1);
        at_least("api.idempotency_lease_ms", self.api.idempotency_lease_ms, 100);
        at_least("cache.poll_interval_s", self.cache.poll_interval_s, 1);
        at_least("tracking.duplicate_visits_max", self.tracking.duplicate_visits_max as u64, 1);
        at_least("tracking.duplicate_share_ms", self.tracking.duplicate_share_ms, 1);
        at_least("tracking.duplicate_share_max", self.tracking.duplicate_share_max as u64, 1);
        at_least("privacy.erasure_interval_s", self.privacy.erasure_interval_s, 1);
        at_least("privacy.erasure_keep_days", self.privacy.erasure_keep_days.into(), 1);
        faults
    }

    /// What is wrong with the URLs of servers, beside their beginning.
    fn url_faults(&self) -> impl Iterator<Item = String> {
        const POSTGRES: &str = "postgres://app_user:p%23ss@db/name for the password p#ss";
        const REDIS: &str = "redis://:p%23ss@cache:6379 for the password p#ss";
        let (database, redis) = (&self.database, &self.redis);
        let one = |key, url: &'_ Option<SecretString>, example| (key, url.as_slice().to_vec(), example);
        [
            one("database.url", &database.url, POSTGRES),
            one("database.direct_url", &database.direct_url, POSTGRES),
            ("database.replica_urls", database.replica_urls.clone(), POSTGRES),
            one("redis.url", &redis.url, REDIS),
            ("redis.cluster_urls", redis.cluster_urls.clone(), REDIS),
            ("redis.sentinel_urls", redis.sentinel_urls.clone(), REDIS),
        ]
        .into_iter()
        .filter_map(|(key, urls, example)| {
            let fault = urls.iter().find_map(|url| urls::fault(url.expose_secret(), example))?;
            Some(format!("{key} {fault}"))
        })
    }

    /// Checks what types alone cannot say.
    fn validate(&self) -> Result<(), Error> {
        let mut faults = self.too_small();
        if self.server.proxy_protocol && self.server.trusted_proxies.is_empty() {
            faults.push(
                "server.proxy_protocol needs server.trusted_proxies: nobody else's PROXY header is believed"
                    .to_owned(),
            );
        }
        let window_s = self.tracking.duplicate_window_s;
        if window_s > DUPLICATE_WINDOW_S_MAX {
            faults.push(format!(
                "tracking.duplicate_window_s is {window_s}, but must be at most {DUPLICATE_WINDOW_S_MAX}"
            ));
        }
        if self.database.min_connections > self.database.max_connections {
            faults.push("database.min_connections is larger than database.max_connections".to_owned());
        }
        for (key, url) in [
            ("server.public_url", &self.server.public_url),
            ("tracking.fallback_url", &self.tracking.fallback_url),
        ] {
            if url.as_ref().is_some_and(|u| !matches!(u.scheme(), "http" | "https")) {
                faults.push(format!("{key} must begin with http:// or https://"));
            }
            // everybody sees it
            if url.as_ref().is_some_and(|u| !u.username().is_empty() || u.password().is_some()) {
                faults.push(format!("{key} must not hold a user or password"));
            }
        }
        let urls =
            self.database.url.iter().chain(&self.database.direct_url).chain(&self.database.replica_urls);
        if urls.map(ExposeSecret::expose_secret).any(|u| !is_postgres_url(u)) {
            faults.push("database.url, direct_url and replica_urls must begin with postgres://".to_owned());
        }
        faults.extend(self.url_faults());
        let redis = &self.redis;
        let kinds = [redis.url.is_some(), !redis.cluster_urls.is_empty(), !redis.sentinel_urls.is_empty()];
        if kinds.into_iter().filter(|is_set| *is_set).count() > 1 {
            faults.push(
                "only one of redis.url, redis.cluster_urls and redis.sentinel_urls may be set".to_owned(),
            );
        }
        if redis.sentinel_master.is_some() == redis.sentinel_urls.is_empty() {
            faults.push("redis.sentinel_urls and redis.sentinel_master belong together".to_owned());
        }
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if redis.key_prefix.len() > 64 || !redis.key_prefix.bytes().all(is_plain) {
            faults.push("redis.key_prefix must be at most 64 of A-Z a-z 0-9 . _ : -".to_owned());
        }
        if self.admission.journal_percent_max > 100 {
            faults.push("admission.journal_percent_max must be at most 100".to_owned());
        }
        if redis.database < 0 {
            faults.push("redis.database must not be negative".to_owned());
        }
        if self.tracking.referrer_policy.parse::<http::HeaderValue>().is_err() {
            faults.push("tracking.referrer_policy is not a header value".to_owned());
        }
        if faults.is_empty() { Ok(()) } else { Err(Error(faults)) }
    }
}

/// A duration from a key that counts milliseconds.
pub fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// As `Display`: the secrets of the layers stay hidden.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone)]
struct Layers(BTreeMap<String, Entry>);

#[derive(Clone)]
struct Entry {
    value: Value,
    source: Source,
}

impl Layers {
    fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("config/default.toml is checked by a test");
        let mut keys = BTreeMap::new();
        for (section, values) in table {
            for (name, value) in values.as_table().into_iter().flatten() {
                let entry = Entry { value: value.clone(), source: Source::Default };
                keys.insert(format!("{section}.{name}"), entry);
            }
        }
        Self(keys)
    }

    fn add_file(&mut self, path: &Path, faults: &mut Vec<String>) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) => return faults.push(format!("{} cannot be read: {e}", path.display())),
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            // not the error's own text: it quotes the line, which may hold a password
            Err(e) => {
                let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                return faults.push(format!("{} is not TOML: line {line}: {}", path.display(), e.message()));
            }
        };
        for (section, values) in table {
            let Some(values) = values.as_table() else {
                faults.push(format!("{}: {section} must be a [section]", path.display()));
                continue;
            };
            for (name, value) in values {
                let key = format!("{section}.{name}");
                let Some(entry) = self.known(&key, &path.display().to_string(), faults) else { continue };
                if let Some(wanted) = misfit(&entry.value, value) {
                    // without the value: it may be a password
                    faults.push(format!("{}: {key} must be {wanted}", path.display()));
                } else {
                    *entry = Entry { value: value.clone(), source: Source::File(path.to_owned()) };
                }
            }
        }
    }

    fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
        faults: &mut Vec<String>,
    ) {
        let mut variables: Vec<_> = environment.into_iter().collect();
        // the general names first, so that octo's own win
        variables.sort_by_key(|(name, _)| name.starts_with("OCTO_"));
        for (name, value) in variables {
            let Some((key, from_file)) = self.key_of(&name) else { continue };
            let value = match read_value(&name, value, from_file) {
                Ok(value) => value,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let value = if name == "PORT" { format!("0.0.0.0:{value}") } else { value };
            let Some(entry) = self.known(&key, &name, faults) else { continue };
            match like(&entry.value, &value) {
                Ok(value) => {
                    let source = if from_file { Source::SecretFile(name) } else { Source::Environment(name) };
                    *entry = Entry { value, source };
                }
                Err(wanted) => faults.push(format!("{name} must be {wanted}")),
            }
        }
    }

    /// The key that the environment variable `name` sets, and whether through a file.
    ///
    /// `OCTO_A__B_FILE` is a file for `a.b`, unless `a.b_file` is itself a key. One underscore
    /// (`OCTO_BIN`) is no key: such names belong to others.
    fn key_of(&self, name: &str) -> Option<(String, bool)> {
        let key = match name {
            "DATABASE_URL" => "database.url".to_owned(),
            "REDIS_URL" => "redis.url".to_owned(),
            "PORT" => "server.listen".to_owned(),
            _ => match name.strip_prefix("OCTO_").and_then(|rest| rest.split_once("__")) {
                Some((section, key)) => format!("{section}.{key}").to_ascii_lowercase(),
                None if name == "DATABASE_URL_FILE" || name == "REDIS_URL_FILE" => {
                    return self.key_of(name.strip_suffix("_FILE")?).map(|(key, _)| (key, true));
                }
                None => return None,
            },
        };
        match key.strip_suffix("_file") {
            Some(base) if !self.0.contains_key(&key) => Some((base.to_owned(), true)),
            _ => Some((key, false)),
        }
    }

    fn add_flags(&mut self, flags: &Flags) {
        let mut set = |key: &str, flag, value: Option<String>| {
            if let Some(value) = value {
                self.0.insert(
                    key.to_owned(),
                    Entry { value: Value::String(value), source: Source::Flag(flag) },
                );
            }
        };
        set("server.data_dir", "--data-dir", flags.data_dir.as_ref().map(|d| d.display().to_string()));
        set("server.listen", "--listen", flags.listen.clone());
        let format = flags.log_format.map(|f| if f == LogFormat::Json { "json" } else { "text" }.to_owned());
        set("log.format", "--log-format", format);
    }

    /// The entry of `key`, or a fault that names the nearest one.
    fn known(&mut self, key: &str, place: &str, faults: &mut Vec<String>) -> Option<&mut Entry> {
        if !self.0.contains_key(key) {
            let nearest = self
                .0
                .keys()
                .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
            let hint = nearest.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            faults.push(format!("{place}: there is no key `{key}`{hint}"));
        }
        self.0.get_mut(key)
    }

    /// Parses section by section, so that an error names its key and its origin.
    fn parse(&self) -> Result<Config, Error> {
        let mut root = Table::new();
        for (key, entry) in &self.0 {
            let (section, name) = key.split_once('.').expect("keys are made as section.name");
            let table = root.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Some(table) = table.as_table_mut() {
                table.insert(name.to_owned(), entry.value.clone());
            }
        }
        Value::Table(root).try_into().map_err(|e: toml::de::Error| {
            let message = e.message().to_owned();
            let suspects: Vec<String> = self
                .0
                .iter()
                .filter(|(_, entry)| entry.source != Source::Default)
                .map(|(key, entry)| format!("{key} (from {})", entry.source))
                .collect();
            Error(vec![format!("{message}; look at {}", suspects.join(", "))])
        })
    }
}

/// What `value` should be, if it is not of the same type as `example`.
fn misfit(example: &Value, value: &Value) -> Option<&'static str> {
    let is_texts = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_str));
    match example {
        Value::Integer(_) => (!value.is_integer()).then_some("a whole number"),
        Value::Boolean(_) => (!value.is_bool()).then_some("true or false"),
        Value::Array(_) => (!is_texts(value)).then_some("a list of texts"),
        _ => (!value.is_str()).then_some("a text"),
    }
}

fn read_value(name: &str, value: String, from_file: bool) -> Result<String, String> {
    if !from_file {
        return Ok(value);
    }
    std::fs::read_to_string(&value)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        // without its name: some put the secret itself there
        .map_err(|e| format!("{name} names a file that cannot be read: {e}"))
}

/// `text` as a value of the same type as `example`; a list is separated by commas.
fn like(example: &Value, text: &str) -> Result<Value, &'static str> {
    match example {
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| "a whole number"),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| "true or false"),
        Value::Array(_) => Ok(Value::Array(
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from).collect(),
        )),
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn is_postgres_url(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// An empty text is `None`.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|e| serde::de::Error::custom(format!("`{text}` is not valid: {e}")))
}

/// As [`optional`], without showing the text: a URL may hold a password.
fn optional_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<url::Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parse = |text: &str| text.parse().map_err(|e| serde::de::Error::custom(format!("not a URL: {e}")));
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some) }
}

fn optional_secret<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| SecretString::from(text)))
}

/// Networks, or addresses as networks of one. Peers are compared as IPv4 where they are, so an IPv4-mapped network
/// is the IPv4 network it means.
fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).map_err(serde::de::Error::custom)).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    let net = address.or_else(|_| text.parse());
    let net =
        net.map_err(|_| format!("`{text}` is no network (192.0.2.0/24, 2001:db8::/32) and no address"))?;
    let IpNet::V6(v6) = net else { return Ok(net) };
    Ok(match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(net, IpNet::V4),
        _ => net,
    })
}

fn lines(faults: &[String]) -> String {
    faults.iter().map(|f| format!("  - {f}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Loaded, Error> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Loaded::load(None, env, &Flags::default())
    }

    #[test]
    fn the_embedded_defaults_are_valid() {
        let loaded = load(&[]).unwrap();
        assert_eq!(loaded.config.database.min_connections, 5);
        assert_eq!(loaded.config.database.max_connections, 32);
        assert!(loaded.config.database.url.is_none());
    }

    #[test]
    fn the_environment_wins_over_a_file_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("my.toml");
        std::fs::write(&file, "[drain]\nbatch_rows = 7\n[cache]\npoll_interval_s = 9\n").unwrap();
        let env = [("OCTO_DRAIN__BATCH_ROWS".to_owned(), "8".to_owned())];
        let loaded = Loaded::load(Some(&file), env, &Flags::default()).unwrap();
        assert_eq!(loaded.config.drain.batch_rows, 8);
        assert_eq!(loaded.config.cache.poll_interval_s, 9);
        let text = loaded.to_string();
        assert!(
            text.contains("batch_rows = 8") && text.contains("# environment OCTO_DRAIN__BATCH_ROWS"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name() {
        let error = load(&[("OCTO_DATABASE__MAX_CONECTIONS", "3")]).unwrap_err().to_string();
        assert!(error.contains("did you mean `database.max_connections`?"), "{error}");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let error = load(&[("OCTO_DRAIN__BATCH_ROWS", "many"), ("OCTO_X__Y", "1")]).unwrap_err().to_string();
        assert!(error.contains("2 faults") && error.contains("a whole number"), "{error}");
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "postgres://u:canary@db/x\n").unwrap();
        let loaded = load(&[("DATABASE_URL_FILE", file.to_str().unwrap())]).unwrap();
        assert_eq!(loaded.config.database.url.as_ref().unwrap().expose_secret(), "postgres://u:canary@db/x");
        assert!(!format!("{loaded} {loaded:?} {:?}", loaded.config).contains("canary"));
    }

    #[test]
    fn a_list_in_the_environment_is_separated_by_commas() {
        let loaded = load(&[("OCTO_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.0/8")]).unwrap();
        assert_eq!(loaded.config.server.trusted_proxies.len(), 2);
    }

    #[test]
    fn redis_is_one_server_or_a_cluster_or_what_sentinel_names() {
        let one = ("REDIS_URL", "redis://a");
        let cluster = ("OCTO_REDIS__CLUSTER_URLS", "redis://:canary@a,redis://:canary@b");
        let error = load(&[one, cluster]).unwrap_err().to_string();
        assert!(error.contains("only one of redis.url"), "{error}");
        let loaded = load(&[cluster, ("OCTO_REDIS__PASSWORD", "canary")]).unwrap();
        assert_eq!(loaded.config.redis.cluster_urls.len(), 2);
        assert!(!format!("{loaded} {:?}", loaded.config).contains("canary"));
        let sentinel = ("OCTO_REDIS__SENTINEL_URLS", "redis://a:26379");
        let error = load(&[sentinel]).unwrap_err().to_string();
        assert!(error.contains("belong together"), "{error}");
        assert!(load(&[sentinel, ("OCTO_REDIS__SENTINEL_MASTER", "m")]).is_ok());
    }

    #[test]
    fn port_means_every_address() {
        assert_eq!(load(&[("PORT", "99")]).unwrap().config.server.listen.to_string(), "0.0.0.0:99");
    }

    #[test]
    fn what_is_not_utf_8_is_a_fault_of_our_variables_and_nobody_elses() {
        use std::os::unix::ffi::OsStringExt;
        let odd = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let (good, bad) = (OsString::from("LANG"), odd(b"tweety\xff"));
        for (name, value) in
            [(good.clone(), bad.clone()), (odd(b"X\xff"), bad.clone()), (odd(b"OCTO_BIN"), bad.clone())]
        {
            let texts = environment([(name, value), (good.clone(), OsString::from("C"))]).unwrap();
            assert_eq!(texts, [("LANG".to_owned(), "C".to_owned())]);
        }
        for name in ["DATABASE_URL", "REDIS_URL_FILE", "PORT", "OCTO_SERVER__DATA_DIR", "OCTO_NO__SUCH_KEY"] {
            let error = environment([(OsString::from(name), bad.clone())]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is not UTF-8")) && !error.contains("tweety"), "{error}");
        }
        let error = environment([(odd(b"OCTO_SERVER__LISTEN\xff"), good)]).unwrap_err().to_string();
        assert!(error.contains("is not UTF-8"), "{error}");
    }

    #[test]
    fn a_data_directory_is_taken_as_given_byte_for_byte() {
        use std::os::unix::ffi::OsStringExt;
        let data_dir = PathBuf::from(OsString::from_vec(b"data-\xff".to_vec()));
        let flags = Flags { data_dir: Some(data_dir.clone()), ..Flags::default() };
        let loaded = Loaded::load(None, [], &flags).unwrap();
        assert_eq!(loaded.config.server.data_dir, data_dir);
        assert_eq!(loaded.config.journal_dir(), data_dir.join("journal"));
    }

    #[test]
    fn each_url_of_a_server_is_looked_at_and_named_by_its_key() {
        for (name, key) in [
            ("DATABASE_URL", "database.url"),
            ("OCTO_DATABASE__DIRECT_URL", "database.direct_url"),
            ("OCTO_DATABASE__REPLICA_URLS", "database.replica_urls"),
        ] {
            let error = load(&[(name, "postgres://u:canary#x@db/octo")]).unwrap_err().to_string();
            assert!(error.contains(&format!("{key} holds `#`")) && !error.contains("canary"), "{error}");
        }
        for (name, key) in [("REDIS_URL", "redis.url"), ("OCTO_REDIS__CLUSTER_URLS", "redis.cluster_urls")] {
            let error = load(&[(name, "redis://:canary/x@cache")]).unwrap_err().to_string();
            assert!(error.contains(&format!("{key} holds `/`")) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let error = load(&[("OCTO_DATABASE__MAX_CONNECTIONS", "1")]).unwrap_err().to_string();
        assert!(error.contains("at least 2") && error.contains("larger than"), "{error}");
    }
}
