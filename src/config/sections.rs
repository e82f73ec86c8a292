//! Every section and key, typed; what a key takes alone stands at its field, what keys mean together in
//! [`Config::faults`]. A key is described in `config/default.toml`, the one place for readers.

#![expect(missing_docs, reason = "each key is described in config/default.toml, the one place")]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use chrono_tz::Tz;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    urls,
    values::{
        AtLeast, Days, Millis, Seconds, SecondsUpToDays, networks, optional, optional_secret, optional_url,
        percent, schedule,
    },
};
use crate::model::{money::Currency, scheme::Scheme};

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
    /// How much paths and offers take.
    pub caps: Caps,
    /// What networks tell of conversions.
    pub postbacks: Postbacks,
    /// What conversions did, told to others.
    pub deliveries: Deliveries,
    /// What clicks cost and earned.
    pub money: Money,
    pub costs: Costs,
    pub budgets: Budgets,
    pub reports: Reports,
    /// The script of landing pages.
    pub script: Script,
    /// What is kept, and how long.
    pub privacy: Privacy,
    /// The admin API.
    pub api: Api,
    /// The dashboard.
    pub dashboard: Dashboard,
    /// Whether clocks agree.
    pub clock: Clock,
    /// What is logged, and how.
    pub log: Log,
    /// How often one address may.
    pub limits: Limits,
    /// Who is let in under overload.
    pub admission: Admission,
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

    /// What is wrong with keys that are each right by themselves, one sentence each.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        self.check_order(&mut faults);
        self.check_public_urls(&mut faults);
        self.check_servers(&mut faults);
        self.check_redis(&mut faults);
        self.check_script(&mut faults);
        if self.server.proxy_protocol && self.server.trusted_proxies.is_empty() {
            faults.push(
                "server.proxy_protocol needs server.trusted_proxies: nobody else's PROXY header is believed"
                    .to_owned(),
            );
        }
        if self.caps.share_interval > Duration::from_secs(1) {
            faults.push("caps.share_interval_ms is longer than 1000".to_owned());
        }
        if self.tracking.sticky > self.tracking.token {
            faults.push(
                "tracking.sticky_days is longer than tracking.token_days, and no longer are keys kept"
                    .to_owned(),
            );
        }
        if self.tracking.referrer_policy.parse::<http::HeaderValue>().is_err() {
            faults.push("tracking.referrer_policy is not a valid header value".to_owned());
        }
        faults
    }

    /// What must be at least as much as something else.
    fn check_order(&self, faults: &mut Vec<String>) {
        let (database, journal, drain) = (&self.database, &self.journal, &self.drain);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (key, value, least) in [
            ("database.replica_eject_max_ms", ms(database.replica_eject_max), ms(database.replica_eject_min)),
            ("journal.max_bytes", journal.max_bytes, journal.segment_bytes.saturating_mul(2)),
            ("drain.retry_max_ms", ms(drain.retry_max), ms(drain.retry_min)),
            ("deliveries.lease_ms", ms(self.deliveries.lease), ms(self.deliveries.timeout).saturating_mul(2)),
        ] {
            if value < least {
                faults.push(format!("{key} is {value}, but must be at least {least}"));
            }
        }
        if database.min_connections > database.max_connections {
            faults.push("database.min_connections is larger than database.max_connections".to_owned());
        }
    }

    /// Everybody sees these.
    fn check_public_urls(&self, faults: &mut Vec<String>) {
        for (key, url) in [
            ("server.public_url", &self.server.public_url),
            ("tracking.fallback_url", &self.tracking.fallback_url),
        ] {
            if url.as_ref().is_some_and(|u| !matches!(u.scheme(), "http" | "https")) {
                faults.push(format!("{key} must begin with http:// or https://"));
            }
            if url.as_ref().is_some_and(|u| !u.username().is_empty() || u.password().is_some()) {
                faults.push(format!("{key} must not contain a user or password"));
            }
        }
    }

    /// The URLs of PostgreSQL and Redis.
    fn check_servers(&self, faults: &mut Vec<String>) {
        const POSTGRES: &str = "postgres://app_user:p%23ss@db/name for the password p#ss";
        const REDIS: &str = "redis://:p%23ss@cache:6379 for the password p#ss";
        let (database, redis) = (&self.database, &self.redis);
        let urls = database.url.iter().chain(&database.direct_url).chain(&database.replica_urls);
        if urls.map(ExposeSecret::expose_secret).any(|url| !is_postgres_url(url)) {
            faults.push("database.url, direct_url and replica_urls must begin with postgres://".to_owned());
        }
        for (key, urls, example) in [
            ("database.url", database.url.as_slice(), POSTGRES),
            ("database.direct_url", database.direct_url.as_slice(), POSTGRES),
            ("database.replica_urls", &database.replica_urls, POSTGRES),
            ("redis.url", redis.url.as_slice(), REDIS),
            ("redis.cluster_urls", &redis.cluster_urls, REDIS),
            ("redis.sentinel_urls", &redis.sentinel_urls, REDIS),
        ] {
            let fault = urls.iter().find_map(|url| urls::fault(url.expose_secret(), example));
            faults.extend(fault.map(|fault| format!("{key} {fault}")));
        }
    }

    fn check_redis(&self, faults: &mut Vec<String>) {
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
    }

    /// Names that a page's script uses: of their own, and harmless where they are put into its text.
    fn check_script(&self, faults: &mut Vec<String>) {
        let Script { path, visit_path, event_path, global } = &self.script;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        let is_path = |path: &str| {
            let segments = path.strip_prefix('/').map(|rest| rest.split('/'));
            let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(is_plain);
            path.len() <= 64 && segments.is_some_and(|mut segments| segments.all(is_segment))
        };
        if !path.strip_suffix(".js").is_some_and(is_path) {
            faults.push(
                "script.path must be at most 64 of A-Z a-z 0-9 _ - /, such as /assets/page.js".to_owned(),
            );
        }
        for (key, path, own) in [("visit_path", visit_path, "/visit"), ("event_path", event_path, "/event")] {
            let first = path.split('/').nth(1).unwrap_or_default();
            if !is_path(path) {
                let shape = "must begin with / and be at most 64 of A-Z a-z 0-9 _ - /";
                faults.push(format!("script.{key} {shape}"));
            } else if path != own && OCTOS_OWN.contains(&first) {
                faults.push(format!("script.{key} must not begin with /{first}, which is octo's own"));
            }
        }
        if visit_path == event_path {
            faults.push("script.visit_path and script.event_path must be two paths".to_owned());
        }
        let begins = global.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if global.len() > 32 || !begins || !global.bytes().all(|b| is_plain(b) && b != b'-') {
            faults.push("script.global must be a name of JavaScript, at most 32 of A-Z a-z 0-9 _".to_owned());
        }
    }
}

/// What the paths of octo begin with; `[script]` gives none of them another meaning.
pub(crate) const OCTOS_OWN: [&str; 24] = [
    "action",
    "adclick.php",
    "api",
    "c",
    "cf",
    "click",
    "click.php",
    "docs",
    "event",
    "event.gif",
    "events",
    "health",
    "livez",
    "metrics",
    "o.js",
    "out",
    "pb",
    "postback",
    "postback.php",
    "readyz",
    "robots.txt",
    "tracking202",
    "ui",
    "visit",
];

fn is_postgres_url(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// `[postbacks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postbacks {
    #[serde(with = "AtLeast::<1>")]
    pub import_lines_max: usize,
    #[serde(with = "AtLeast::<1024>")]
    pub import_bytes_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub reconcile_rows_max: usize,
    pub key_required: bool,
    #[serde(with = "AtLeast::<1024>")]
    pub body_bytes_max: usize,
    pub refused_per_minute_max: u32,
    #[serde(rename = "keep_raw_days", with = "Days::<0>")]
    pub keep_raw: Duration,
}

/// `[admission]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    #[serde(rename = "line_wait_max_ms", with = "Millis::<1>")]
    pub line_wait_max: Duration,
    #[serde(rename = "window_ms", with = "Millis::<0>")]
    pub window: Duration,
    #[serde(rename = "disk_wait_max_ms", with = "Millis::<1>")]
    pub disk_wait_max: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub queue_percent_max: usize,
    #[serde(rename = "hold_ms", with = "Millis::<0>")]
    pub hold: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub events_in_flight_max: usize,
    #[serde(with = "AtLeast::<1_048_576>")] // one batch at least, or none could ever be taken
    pub bodies_bytes_max: usize,
    #[serde(deserialize_with = "percent")]
    pub journal_percent_max: u64,
    pub disk_free_min_bytes: u64,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
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
    #[serde(with = "AtLeast::<1>")]
    pub max_connections: usize,
    #[serde(rename = "header_timeout_ms", with = "Millis::<100>")]
    pub header_timeout: Duration,
    #[serde(rename = "idle_timeout_ms", with = "Millis::<100>")]
    pub idle_timeout: Duration,
    #[serde(rename = "body_timeout_ms", with = "Millis::<100>")]
    pub body_timeout: Duration,
    #[serde(with = "AtLeast::<8192>")]
    pub head_bytes_max: usize,
    #[serde(with = "AtLeast::<16>")]
    pub headers_max: usize,
    #[serde(rename = "drain_delay_ms", with = "Millis::<0>")]
    pub drain_delay: Duration,
    #[serde(rename = "shutdown_timeout_ms", with = "Millis::<0>")]
    pub shutdown_timeout: Duration,
    pub proxy_protocol: bool,
    #[serde(with = "AtLeast::<256>")]
    pub proxy_header_bytes_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub forwarded_hops_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub listen_backlog: i32,
    #[serde(rename = "keep_alive_drain_ms", with = "Millis::<0>")]
    pub keep_alive_drain: Duration,
    #[serde(rename = "linger_ms", with = "Millis::<0>")]
    pub linger: Duration,
    #[serde(rename = "write_timeout_ms", with = "Millis::<100>")]
    pub write_timeout: Duration,
    pub write_bytes_min: usize,
    pub send_buffer_bytes: usize,
    pub reserved_connections: usize,
    #[serde(rename = "crowded_wait_ms", with = "Millis::<0>")]
    pub crowded_wait: Duration,
    pub connections_per_address_max: usize,
    pub public_metrics: bool,
    #[serde(rename = "metrics_token_recheck_s", with = "Seconds::<0>")]
    pub metrics_token_recheck: Duration,
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
pub struct Database {
    #[serde(deserialize_with = "optional_secret")]
    pub url: Option<SecretString>,
    pub replica_urls: Vec<SecretString>,
    pub min_connections: u32,
    #[serde(with = "AtLeast::<2>")]
    pub max_connections: u32,
    #[serde(rename = "acquire_timeout_ms", with = "Millis::<10>")]
    pub acquire_timeout: Duration,
    #[serde(rename = "connect_timeout_ms", with = "Millis::<10>")]
    pub connect_timeout: Duration,
    #[serde(rename = "statement_timeout_ms", with = "Millis::<10>")]
    pub statement_timeout: Duration,
    #[serde(rename = "maintenance_timeout_ms", with = "Millis::<10>")]
    pub maintenance_timeout: Duration,
    #[serde(rename = "idle_timeout_s", with = "Seconds::<0>")]
    pub idle_timeout: Duration,
    #[serde(rename = "idle_check_ms", with = "Millis::<0>")]
    pub idle_check: Duration,
    #[serde(rename = "max_lifetime_s", with = "Seconds::<1>")]
    pub max_lifetime: Duration,
    #[serde(rename = "slow_query_ms", with = "Millis::<0>")]
    pub slow_query: Duration,
    pub slow_query_plans: bool,
    pub prepared_statements: bool,
    #[serde(deserialize_with = "optional_secret")]
    pub direct_url: Option<SecretString>,
    #[serde(rename = "probe_interval_ms", with = "Millis::<10>")]
    pub probe_interval: Duration,
    #[serde(rename = "probe_timeout_ms", with = "Millis::<10>")]
    pub probe_timeout: Duration,
    #[serde(rename = "replica_lag_max_ms", with = "Millis::<0>")]
    pub replica_lag_max: Duration,
    pub replica_lag_bytes_max: u64,
    #[serde(with = "AtLeast::<1>")]
    pub replica_failures_max: u32,
    #[serde(rename = "replica_eject_min_ms", with = "Millis::<0>")]
    pub replica_eject_min: Duration,
    #[serde(rename = "replica_eject_max_ms", with = "Millis::<0>")]
    pub replica_eject_max: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub primary_reads_max: u32,
    #[serde(with = "AtLeast::<1>")]
    pub streams_max: usize,
    pub migrate_on_start: bool,
    #[serde(rename = "partitions_ahead_days", with = "Days::<1>")]
    pub partitions_ahead: Duration,
    #[serde(rename = "partitions_interval_s", with = "Seconds::<1>")]
    pub partitions_interval: Duration,
    #[serde(rename = "partition_lock_timeout_ms", with = "Millis::<10>")]
    pub partition_lock_timeout: Duration,
    pub partition_move_rows_max: u32,
    #[serde(rename = "partition_check_timeout_ms", with = "Millis::<10>")]
    pub partition_check_timeout: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub delete_chunk_rows: u32,
    #[serde(rename = "statistics_interval_s", with = "Seconds::<1>")]
    pub statistics_interval: Duration,
    #[serde(rename = "statistics_timeout_ms", with = "Millis::<10>")]
    pub statistics_timeout: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub statistics_tables_max: u32,
    pub statistics_partitions_max: u32,
}

/// `[redis]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
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
    #[serde(with = "AtLeast::<0>")]
    pub database: i64,
    #[serde(rename = "connect_timeout_ms", with = "Millis::<10>")]
    pub connect_timeout: Duration,
    #[serde(rename = "command_timeout_ms", with = "Millis::<1>")]
    pub command_timeout: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub breaker_failures: u32,
    #[serde(rename = "breaker_wait_ms", with = "Millis::<1>")]
    pub breaker_wait: Duration,
    #[serde(rename = "campaign_ttl_s", with = "Seconds::<1>")]
    pub campaign_ttl: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub pool_size: usize,
    pub key_prefix: String,
}

/// `[journal]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    pub dir: PathBuf,
    pub max_bytes: u64,
    #[serde(rename = "keep_drained_s", with = "Seconds::<0>")]
    pub keep_drained: Duration,
    #[serde(rename = "retry_interval_ms", with = "Millis::<10>")]
    pub retry_interval: Duration,
    #[serde(with = "AtLeast::<4096>")]
    pub segment_bytes: u64,
    #[serde(with = "AtLeast::<1>")]
    pub queue_records_max: usize,
    #[serde(with = "AtLeast::<2_097_152>")]
    pub queue_bytes_max: usize,
    #[serde(rename = "append_timeout_ms", with = "Millis::<1>")]
    pub append_timeout: Duration,
    #[serde(rename = "lock_wait_ms", with = "Millis::<0>")]
    pub lock_wait: Duration,
}

/// `[drain]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    #[serde(with = "AtLeast::<1>")]
    pub batch_rows: usize,
    #[serde(with = "AtLeast::<65_536>")]
    pub batch_bytes_max: usize,
    #[serde(rename = "linger_ms", with = "Millis::<0>")]
    pub linger: Duration,
    #[serde(rename = "retry_min_ms", with = "Millis::<1>")]
    pub retry_min: Duration,
    #[serde(rename = "retry_max_ms", with = "Millis::<0>")]
    pub retry_max: Duration,
    #[serde(rename = "statement_timeout_ms", with = "Millis::<0>")]
    pub statement_timeout: Duration,
    #[serde(rename = "check_interval_ms", with = "Millis::<1>")]
    pub check_interval: Duration,
    #[serde(rename = "conversions_interval_ms", with = "Millis::<100>")]
    pub conversions_interval: Duration,
}

/// `[cache]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    #[serde(rename = "poll_interval_s", with = "Seconds::<1>")]
    pub poll_interval: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub stale_after_polls: u32,
    #[serde(rename = "miss_timeout_ms", with = "Millis::<1>")]
    pub miss_timeout: Duration,
    #[serde(rename = "filler_wait_ms", with = "Millis::<0>")]
    pub filler_wait: Duration,
    #[serde(rename = "negative_ttl_ms", with = "Millis::<0>")]
    pub negative_ttl: Duration,
    pub negative_keys_max: u64,
    #[serde(with = "AtLeast::<1>")]
    pub look_ups_per_second_max: u32,
    #[serde(with = "AtLeast::<1>")]
    pub look_ups_in_flight_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub batch_unknown_keys_max: usize,
    #[serde(rename = "save_interval_ms", with = "Millis::<0>")]
    pub save_interval: Duration,
    #[serde(rename = "stats_ttl_s", with = "Seconds::<0>")]
    pub stats_ttl: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub stats_questions_max: usize,
    pub stats_bytes_max: usize,
}

/// `[tracking]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracking {
    #[serde(deserialize_with = "optional_url")]
    pub fallback_url: Option<url::Url>,
    pub referrer_policy: String,
    #[serde(deserialize_with = "optional")]
    pub country_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub city_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub isp_file: Option<PathBuf>,
    #[serde(deserialize_with = "optional")]
    pub connection_file: Option<PathBuf>,
    pub app_schemes: Vec<Scheme>,
    pub public_events: bool,
    pub robots_txt: String,
    #[serde(rename = "duplicate_window_s", with = "SecondsUpToDays::<30>")]
    pub duplicate_window: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub duplicate_visits_max: usize,
    #[serde(rename = "duplicate_share_ms", with = "Millis::<1>")]
    pub duplicate_share: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub duplicate_share_max: usize,
    #[serde(rename = "token_days", with = "Days::<1>")]
    pub token: Duration,
    #[serde(rename = "token_key_days", with = "Days::<1>")]
    pub token_key: Duration,
    #[serde(rename = "token_keys_poll_s", with = "Seconds::<1>")]
    pub token_keys_poll: Duration,
    #[serde(rename = "test_link_s", with = "Seconds::<1>")]
    pub test_link: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub unique_visitors_max: usize,
    #[serde(rename = "unique_save_s", with = "Seconds::<1>")]
    pub unique_save: Duration,
    #[serde(rename = "sticky_days", with = "Days::<1>")]
    pub sticky: Duration,
    #[serde(deserialize_with = "optional")]
    pub datacenter_networks_file: Option<PathBuf>,
}

/// `[caps]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caps {
    #[serde(rename = "share_interval_ms", with = "Millis::<10>")]
    pub share_interval: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub counters_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub file_bytes_max: usize,
    #[serde(rename = "total_keep_days", with = "Days::<1>")]
    pub total_keep: Duration,
}

/// `[deliveries]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deliveries {
    #[serde(rename = "poll_interval_ms", with = "Millis::<10>")]
    pub poll_interval: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub concurrency_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub host_concurrency_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub targets_max: usize,
    #[serde(rename = "timeout_ms", with = "Millis::<100>")]
    pub timeout: Duration,
    #[serde(rename = "lease_ms", with = "Millis::<1000>")]
    pub lease: Duration,
    #[serde(rename = "schedule_s", deserialize_with = "schedule")]
    pub schedule: Vec<Duration>,
    #[serde(rename = "retry_after_max_s", with = "Seconds::<1>")]
    pub retry_after_max: Duration,
    #[serde(with = "AtLeast::<1024>")]
    pub answer_bytes_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub warn_failures: u16,
    #[serde(with = "AtLeast::<1>")]
    pub pause_failures: u16,
    #[serde(rename = "secret_overlap_s", with = "SecondsUpToDays::<365>")]
    pub secret_overlap: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub replay_rows_max: u32,
    #[serde(deserialize_with = "networks")]
    pub allowed_networks: Vec<IpNet>,
}

/// `[money]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    #[serde(with = "AtLeast::<1>")]
    pub rate_age_days_max: u16,
    pub built_in_rates: bool,
    #[serde(with = "AtLeast::<1>")]
    pub rates_file_bytes_max: u64,
}

/// `[costs]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    #[serde(rename = "settle_s", with = "Seconds::<0>")]
    pub settle: Duration,
    #[serde(rename = "count_timeout_ms", with = "Millis::<100>")]
    pub count_timeout: Duration,
    #[serde(with = "AtLeast::<1024>")]
    pub import_bytes_max: usize,
}

/// `[budgets]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    #[serde(rename = "check_interval_ms", with = "Millis::<100>")]
    pub check_interval: Duration,
}

/// `[reports]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reports {
    #[serde(rename = "fold_interval_ms", with = "Millis::<100>")]
    pub fold_interval: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub fold_rows_min: usize,
    #[serde(with = "AtLeast::<1000>")]
    pub fold_rows_max: usize,
    #[serde(rename = "fold_timeout_ms", with = "Millis::<1000>")]
    pub fold_timeout: Duration,
    #[serde(rename = "settle_after_s", with = "Seconds::<1>")]
    pub settle_after: Duration,
    #[serde(rename = "recount_timeout_ms", with = "Millis::<1000>")]
    pub recount_timeout: Duration,
    #[serde(rename = "timeout_ms", with = "Millis::<100>")]
    pub timeout: Duration,
    #[serde(with = "AtLeast::<1000>")]
    pub rows_max: usize,
    #[serde(with = "AtLeast::<1000>")]
    pub cost_rows_max: usize,
    #[serde(with = "AtLeast::<1000>")]
    pub raw_rows_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub values_per_day_max: usize,
    #[serde(rename = "values_interval_s", with = "Seconds::<1>")]
    pub values_interval: Duration,
    #[serde(rename = "compare_interval_s", with = "Seconds::<60>")]
    pub compare_interval: Duration,
    #[serde(rename = "compare_timeout_ms", with = "Millis::<1000>")]
    pub compare_timeout: Duration,
    #[serde(rename = "stream_timeout_ms", with = "Millis::<1000>")]
    pub stream_timeout: Duration,
    pub index_closed_days: bool,
    #[serde(with = "AtLeast::<0>")]
    pub index_hour: u32,
    #[serde(with = "AtLeast::<1>")]
    pub exports_max: usize,
    #[serde(rename = "export_interval_ms", with = "Millis::<100>")]
    pub export_interval: Duration,
    #[serde(rename = "export_lease_ms", with = "Millis::<1000>")]
    pub export_lease: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub export_attempts_max: u32,
    #[serde(rename = "export_timeout_ms", with = "Millis::<1000>")]
    pub export_timeout: Duration,
    #[serde(with = "AtLeast::<1000>")]
    pub export_rows_max: usize,
    #[serde(with = "AtLeast::<1024>")]
    pub export_bytes_max: u64,
    #[serde(rename = "export_keep_s", with = "Seconds::<1>")]
    pub export_keep: Duration,
}

/// `[script]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub path: String,
    pub visit_path: String,
    pub event_path: String,
    pub global: String,
}

/// `[privacy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    #[serde(rename = "retention_days", with = "Days::<0>")]
    pub retention: Duration,
    pub ip_mode: IpMode,
    pub respect_gpc: bool,
    pub respect_dnt: bool,
    #[serde(rename = "erasure_interval_s", with = "Seconds::<1>")]
    pub erasure_interval: Duration,
    #[serde(rename = "erasure_keep_days", with = "Days::<1>")]
    pub erasure_keep: Duration,
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
pub struct Api {
    #[serde(rename = "idempotency_keep_s", with = "Seconds::<1>")]
    pub idempotency_keep: Duration,
    #[serde(with = "AtLeast::<1>")]
    pub idempotency_keys_max: u32,
    #[serde(rename = "idempotency_lease_ms", with = "Millis::<100>")]
    pub idempotency_lease: Duration,
    #[serde(rename = "list_time_max_ms", with = "Millis::<0>")]
    pub list_time_max: Duration,
}

/// `[dashboard]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    #[serde(rename = "session_idle_s", with = "Seconds::<60>")]
    pub session_idle: Duration,
    #[serde(rename = "session_max_s", with = "Seconds::<60>")]
    pub session_max: Duration,
    #[serde(rename = "sign_in_link_s", with = "Seconds::<1>")]
    pub sign_in_link: Duration,
    pub time_zone: Tz,
    pub currency: Currency,
    #[serde(with = "AtLeast::<1024>")]
    pub form_bytes_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub campaigns_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub live_streams_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub live_rows_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub live_rows_per_second_max: usize,
    #[serde(with = "AtLeast::<1>")]
    pub live_lag_rows_max: usize,
    #[serde(rename = "live_session_check_s", with = "Seconds::<1>")]
    pub live_session_check: Duration,
}

/// `[clock]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    #[serde(rename = "skew_max_ms", with = "Millis::<1000>")]
    pub skew_max: Duration,
    #[serde(rename = "check_interval_s", with = "Seconds::<1>")]
    pub check_interval: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(with = "AtLeast::<8>")]
    pub addresses_max: usize,
    pub failed_auth_per_minute: u32,
    #[serde(with = "AtLeast::<1>")]
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
