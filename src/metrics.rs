//! Every metric: its name, help and labels, and one recording function. Nothing else in the crate names a
//! metric. Labels are enums, route patterns or query names, never ids, keys, addresses or raw paths.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::facts::click::{Adjusted, Adjustment};

/// The series that each redirect touches, looked up once: a look-up costs an allocation and a hash of the
/// labels. First used after the recorder is installed: a handle made before that counts nothing.
struct Redirects {
    redirected: Counter,
    requests: Counter,
    duration: Histogram,
}

static REDIRECTS: LazyLock<Redirects> = LazyLock::new(|| Redirects {
    redirected: click_counter("redirected"),
    requests: request_counter(CLICK_ROUTE, "GET", "302"),
    duration: request_histogram(CLICK_ROUTE),
});

/// The route most requests take.
pub const CLICK_ROUTE: &str = "/click";

/// What `/metrics` knows of a metric before it has a series.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn c(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "counter", help }
}

const fn g(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "gauge", help }
}

const fn h(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: "histogram", help }
}

impl Family {
    /// The unit is the end of the name.
    fn unit(self) -> Unit {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        match name.rsplit('_').next() {
            Some("seconds") => Unit::Seconds,
            Some("bytes") => Unit::Bytes,
            _ => Unit::Count,
        }
    }
}

/// Every metric of octo; `process_*` describe themselves.
pub const FAMILIES: &[Family] = &[
    c("octo_http_requests_total", "Requests answered."),
    h("octo_http_request_duration_seconds", "Time from a request's head to its answer's."),
    c("octo_http_connections_total", "Connections accepted or refused."),
    g("octo_http_connections", "Connections open."),
    c(
        "octo_http_connections_closed_total",
        "Idle connections closed: idle for too long, or their place was needed.",
    ),
    c("octo_http_refused_total", "Requests refused before a route was looked for."),
    c("octo_auth_total", "Requests that need a token, by the outcome of its check."),
    c("octo_limited_total", "Times that an address was found over a limit."),
    c("octo_idempotent_requests_total", "API requests with an Idempotency-Key, by outcome."),
    c("octo_clicks_total", "Clicks, by outcome."),
    c("octo_clicks_unrecorded_total", "Clicks redirected but not recorded: the journal could not take them."),
    c(
        "octo_click_values_adjusted_total",
        "Clicks with a value in their link that could not be kept as it was sent, by reason.",
    ),
    c("octo_unexpanded_macros_total", "Values of links that were macros the source had not filled in."),
    c(
        "octo_visits_forgotten_total",
        "Visits forgotten within the duplicate window, because tracking.duplicate_visits_max was reached.",
    ),
    c("octo_visits_untold_total", "First clicks of visits that the other nodes were not told about."),
    c("octo_events_total", "Events, by outcome."),
    g("octo_events_shedding", "1 while events are refused because octo is overloaded."),
    g(
        "octo_events_no_room",
        "1 while events are refused because the journal or its disk is nearly full: the rest is for clicks.",
    ),
    c("octo_journal_records_total", "Records made durable."),
    c("octo_journal_written_bytes_total", "Bytes made durable."),
    c("octo_journal_errors_total", "Writes or syncs of the journal that failed."),
    h("octo_journal_fsync_duration_seconds", "Time of one fdatasync."),
    g("octo_journal_writable", "1 while records are taken, 0 while clicks are redirected but not recorded."),
    g("octo_journal_pending_records", "Durable records not yet in Postgres."),
    g("octo_journal_bytes", "Bytes of the journal on disk."),
    g("octo_journal_segments", "Segments on disk."),
    g("octo_journal_corrupt_segments", "Segments with damage; they are kept until a person deletes them."),
    c("octo_journal_damaged_records_total", "Records that could not be read back."),
    g(
        "octo_journal_oldest_pending_timestamp_seconds",
        "Unix time of the oldest record not in Postgres; 0: none.",
    ),
    c(
        "octo_journal_foreign_watermarks_total",
        "Times the progress of a stream was found moved by somebody else; its records are sent again.",
    ),
    g("octo_disk_free_bytes", "Bytes that octo may still write on the journal's file system."),
    g("octo_disk_size_bytes", "Size of the journal's file system."),
    c("octo_drain_rows_total", "Rows stored in Postgres."),
    h("octo_drain_batch_rows", "Records in one transaction."),
    c("octo_drain_errors_total", "Transactions of the drain that failed, by class."),
    c("octo_drain_already_stored_total", "Records that were sent again and found stored."),
    g("octo_drain_lag_seconds", "Age of the newest record in Postgres when it was stored."),
    c(
        "octo_erased_records_total",
        "Records that were erased (octo privacy erase), by where they were found.",
    ),
    c("octo_dead_letters_total", "Records Postgres refuses for what they hold, by SQLSTATE class."),
    c("octo_dead_letters_retried_total", "Dead letters that were tried again, by outcome."),
    g("octo_default_partition_rows", "Rows in a DEFAULT partition: no partition of their day was there."),
    g("octo_db_pool_connections", "Connections of a pool by state."),
    g("octo_db_pool_max_connections", "Connections a pool may open."),
    g("octo_db_pool_pending_acquires", "Callers waiting for a connection."),
    h("octo_db_pool_acquire_duration_seconds", "Wait for a connection."),
    c("octo_db_pool_timeouts_total", "Waits for a connection that ran out."),
    c("octo_db_connections_created_total", "Connections opened."),
    c("octo_db_connections_failed_total", "Connections that could not be opened."),
    c("octo_db_connections_returned_total", "Connections that came back to their pool after use."),
    c("octo_db_connections_closed_total", "Connections of a pool that were closed."),
    h("octo_db_query_duration_seconds", "Time of a query."),
    c("octo_db_query_errors_total", "Queries that failed, by SQLSTATE class."),
    c("octo_db_slow_queries_total", "Queries slower than database.slow_query_ms."),
    g("octo_clock_skew_seconds", "How far this node's clock is ahead of the primary's; NaN: not known."),
    g("octo_clock_plausible", "1 while this node's clock says a time that can be, else 0."),
    c("octo_clock_jumps_total", "Times that this node's clock was set by more than clock.skew_max_ms."),
    g("octo_db_primary_up", "1 while the primary takes writes."),
    c(
        "octo_db_primary_reads_total",
        "Reads that the primary answered although there are replicas, by reason.",
    ),
    g("octo_db_replica_up", "1 while reads go to this replica, 0 while it is ejected."),
    g("octo_db_replica_lag_bytes", "Bytes of the primary's log that this replica has not replayed."),
    g("octo_db_replica_lag_seconds", "How far this replica is behind the primary; 0 when it has everything."),
    c("octo_db_replica_reads_total", "Reads sent to this replica."),
    g(
        "octo_db_statistics_timestamp_seconds",
        "Unix time of the last complete reading of the database's statistics; 0: none yet. The gauges read with \
         them are NaN when it is too long ago.",
    ),
    g("octo_db_cache_hit_ratio", "Share of blocks found in PostgreSQL's own cache recently, 0 to 1."),
    g("octo_db_active_connections", "Connections to this database that are running a statement."),
    g("octo_db_server_connections", "Connections of clients to the whole server."),
    g("octo_db_server_max_connections", "Connections the server takes (max_connections)."),
    g(
        "octo_db_longest_transaction_seconds",
        "Age of the oldest transaction of this database that octo's user may see.",
    ),
    g("octo_db_table_bytes", "Size of a table with its partitions, indexes and TOAST."),
    g("octo_db_table_dead_rows", "Dead rows of a table with its partitions, as the server estimates them."),
    g("octo_db_standbys", "Standbys connected to the primary, by state; `hidden` without pg_monitor."),
    g("octo_db_standby_lag_bytes", "Log that the standby furthest behind has not replayed; NaN if hidden."),
    c("octo_campaign_cache_requests_total", "Campaign look-ups by layer and outcome."),
    g("octo_campaign_cache_campaigns", "Campaigns in memory."),
    c(
        "octo_campaign_look_ups_refused_total",
        "Keys that are not in memory and were not looked up: too many such keys were asked for.",
    ),
    c("octo_campaigns_saved_total", "Times the campaigns in memory were saved to disk (campaigns.json)."),
    c("octo_campaigns_saved_bytes_total", "Bytes written when campaigns were saved to disk."),
    c("octo_redis_commands_total", "Redis commands by outcome."),
    h("octo_redis_command_duration_seconds", "Time of a Redis command."),
    g("octo_redis_breaker_open", "1 while Redis is not asked because it failed too often, else 0."),
    c("octo_stats_cache_requests_total", "Requests for statistics, by whether Redis had the answer."),
    g("octo_embedded_postgres_up", "1 while the private PostgreSQL takes connections; absent without one."),
    c(
        "octo_embedded_postgres_restarts_total",
        "Times the private PostgreSQL ended by itself and was started again.",
    ),
    g("octo_build_info", "1, labelled with the version."),
    c("octo_panics_total", "Requests that panicked."),
    g("tokio_workers", "Threads that run tasks."),
    g("tokio_alive_tasks", "Tasks that have not ended."),
    g("tokio_global_queue_depth", "Tasks waiting for any thread."),
    c(
        "tokio_worker_busy_seconds_total",
        "Time the threads spent running tasks, all together, in whole seconds.",
    ),
    c("tokio_worker_parks_total", "How often a thread ran out of work and slept."),
];

/// Outcomes that are known beforehand. A counter that begins at 0 shows its first increase; one that begins
/// to exist with it does not.
const FROM_ZERO: &[(&str, &str, &[&str])] = &[
    ("octo_http_connections_total", "outcome", &["accepted", "failed", "refused"]),
    ("octo_http_connections_closed_total", "reason", &["idle", "room"]),
    ("octo_auth_total", "outcome", &["ok", "missing", "failed", "limited", "forbidden"]),
    ("octo_limited_total", "limit", &["failed_auth", "clicks", "events"]),
    (
        "octo_clicks_total",
        "outcome",
        &[
            "redirected",
            "invalid",
            "head",
            "fallback",
            "unknown_campaign",
            "unavailable",
            "no_destination",
            "bad_request",
        ],
    ),
    ("octo_click_values_adjusted_total", "reason", <Adjustment as strum::VariantNames>::VARIANTS),
    (
        "octo_events_total",
        "outcome",
        &[
            "accepted",
            "invalid",
            "unknown_campaign",
            "unrecorded",
            "rate_limited",
            "shed",
            "no_room",
            "forbidden",
        ],
    ),
    ("octo_clock_jumps_total", "direction", &["ahead", "back"]),
    ("octo_drain_rows_total", "table", &["clicks", "events"]),
    ("octo_drain_errors_total", "class", &["connect", "io", "timeout", "moved", "refused"]),
    ("octo_dead_letters_total", "class", &["21", "22", "23", "42", "54", "malformed", "other"]),
    ("octo_erased_records_total", "place", &["drain", "journal"]),
    ("octo_redis_commands_total", "outcome", &["ok", "error", "timeout", "open"]),
    ("octo_db_primary_reads_total", "reason", &["position", "no_replica"]),
    ("octo_dead_letters_retried_total", "outcome", &["stored", "already_stored", "refused"]),
];

/// Registers help texts and units, and what is counted from zero; call once, after the recorder is installed.
pub fn describe() {
    for family in FAMILIES {
        let Family { name, kind, help } = *family;
        match kind {
            "counter" => describe_counter!(name, family.unit(), help),
            "gauge" => describe_gauge!(name, family.unit(), help),
            _ => describe_histogram!(name, family.unit(), help),
        }
    }
    for &(name, label, values) in FROM_ZERO {
        for &value in values {
            counter!(name, label => value).increment(0);
        }
    }
    for reason in Refused::ALL {
        counter!("octo_http_refused_total", "reason" => reason.label()).increment(0);
    }
    for name in [
        "octo_clicks_unrecorded_total",
        "octo_unexpanded_macros_total",
        "octo_visits_forgotten_total",
        "octo_visits_untold_total",
        "octo_journal_records_total",
        "octo_journal_written_bytes_total",
        "octo_journal_errors_total",
        "octo_journal_damaged_records_total",
        "octo_journal_foreign_watermarks_total",
        "octo_drain_already_stored_total",
        "octo_panics_total",
        "octo_campaign_look_ups_refused_total",
        "octo_campaigns_saved_total",
        "octo_campaigns_saved_bytes_total",
    ] {
        counter!(name).increment(0);
    }
    observe_cache();
    for status in ["302", "500", "503"] {
        request_counter(CLICK_ROUTE, "GET", status).increment(0);
    }
    gauge!("octo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("octo_db_statistics_timestamp_seconds").set(0.0);
    shedding(false);
    events_no_room(false);
}

/// One answered request. `route` is the pattern of the route, `unmatched` where there is none.
pub fn http_request(route: &str, method: &'static str, status: u16, took: Duration) {
    if (route, method, status) == (CLICK_ROUTE, "GET", 302) {
        REDIRECTS.duration.record(took);
        REDIRECTS.requests.increment(1);
    } else {
        request_histogram(route).record(took);
        request_counter(route, method, status_label(status)).increment(1);
    }
}

fn request_histogram(route: &str) -> Histogram {
    histogram!("octo_http_request_duration_seconds", "route" => route.to_owned())
}

fn request_counter(route: &str, method: &'static str, status: &'static str) -> Counter {
    counter!("octo_http_requests_total", "route" => route.to_owned(), "method" => method, "status" => status)
}

/// The number of connections changed to `open`.
pub fn http_connections(open: usize) {
    gauge!("octo_http_connections").set(open as f64);
}

/// A connection was accepted.
pub fn http_accepted() {
    counter!("octo_http_connections_total", "outcome" => "accepted").increment(1);
}

/// A connection could not be accepted (no file descriptors left and the like).
pub fn http_accept_failed() {
    counter!("octo_http_connections_total", "outcome" => "failed").increment(1);
}

/// A connection was refused: its address has all it may have.
pub fn http_accept_refused() {
    counter!("octo_http_connections_total", "outcome" => "refused").increment(1);
}

/// A connection was closed by us: `idle` for too long, or for the `room` it took.
pub fn http_closed(reason: &'static str) {
    counter!("octo_http_connections_closed_total", "reason" => reason).increment(1);
}

/// Whether events are refused.
pub fn shedding(is_shedding: bool) {
    gauge!("octo_events_shedding").set(f64::from(u8::from(is_shedding)));
}

/// Whether events are refused for want of room.
pub fn events_no_room(has_none: bool) {
    gauge!("octo_events_no_room").set(f64::from(u8::from(has_none)));
}

/// Why a request was refused before a route was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The method is no token, or what came is no HTTP at all (TLS, for one).
    Method,
    /// Neither an origin form nor a web address; `CONNECT`.
    Target,
    /// The target has bytes that no URI has.
    Uri,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// The preface of HTTP/2.
    Http2,
    /// A header line is malformed.
    Header,
    /// No Host, two, or one that is no host.
    Host,
    /// The length of the body is not said in one clear way.
    Framing,
    /// Longer than a head, a target or a number of headers may be.
    TooLarge,
    /// The client closed in the middle of a request.
    Incomplete,
    /// The head took too long.
    Timeout,
    /// The body took too long.
    BodyTimeout,
    /// The client did not take its answer.
    WriteTimeout,
    /// A PROXY header from somebody who is no trusted proxy.
    ProxyUntrusted,
    /// A trusted proxy without its PROXY header.
    ProxyMissing,
    /// A PROXY header that cannot be read.
    ProxyMalformed,
    /// Something else.
    Other,
}

impl Refused {
    const ALL: [Self; 17] = [
        Self::Method,
        Self::Target,
        Self::Uri,
        Self::Version,
        Self::Http2,
        Self::Header,
        Self::Host,
        Self::Framing,
        Self::TooLarge,
        Self::Incomplete,
        Self::Timeout,
        Self::BodyTimeout,
        Self::WriteTimeout,
        Self::ProxyUntrusted,
        Self::ProxyMissing,
        Self::ProxyMalformed,
        Self::Other,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Target => "target",
            Self::Uri => "uri",
            Self::Version => "version",
            Self::Http2 => "http2",
            Self::Header => "header",
            Self::Host => "host",
            Self::Framing => "framing",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Timeout => "timeout",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyMissing => "proxy_missing",
            Self::ProxyMalformed => "proxy_malformed",
            Self::Other => "other",
        }
    }
}

/// A request was refused before a route was looked for, or its client was too slow.
pub fn http_refused(reason: Refused) {
    counter!("octo_http_refused_total", "reason" => reason.label()).increment(1);
}

/// What became of the question who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// A valid token whose scope is enough.
    Ok,
    /// No credentials.
    Missing,
    /// Credentials that are no valid token.
    Failed,
    /// Not looked at: the address failed too often.
    Limited,
    /// A valid token whose scope is too small.
    Forbidden,
}

/// A request that needs a token was let in or not.
pub fn auth(outcome: Auth) {
    let outcome = match outcome {
        Auth::Ok => "ok",
        Auth::Missing => "missing",
        Auth::Failed => "failed",
        Auth::Limited => "limited",
        Auth::Forbidden => "forbidden",
    };
    counter!("octo_auth_total", "outcome" => outcome).increment(1);
}

/// A limit of `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Attempts with credentials that are no valid token.
    FailedAuth,
    /// Clicks.
    Clicks,
    /// Events.
    Events,
}

/// An address was found over a limit.
pub fn limited(limit: Limit) {
    let limit = match limit {
        Limit::FailedAuth => "failed_auth",
        Limit::Clicks => "clicks",
        Limit::Events => "events",
    };
    counter!("octo_limited_total", "limit" => limit).increment(1);
}

/// What became of an API request with an `Idempotency-Key`: `run`, `replayed`, `different`, `running`.
pub fn idempotent_request(outcome: &'static str) {
    counter!("octo_idempotent_requests_total", "outcome" => outcome).increment(1);
}

/// What became of a click: one of the outcomes in `FROM_ZERO`.
pub fn click(outcome: &'static str) {
    match outcome {
        "redirected" => REDIRECTS.redirected.increment(1),
        _ => click_counter(outcome).increment(1),
    }
}

fn click_counter(outcome: &'static str) -> Counter {
    counter!("octo_clicks_total", "outcome" => outcome)
}

/// A click was answered but is not on disk.
pub fn click_unrecorded() {
    counter!("octo_clicks_unrecorded_total").increment(1);
}

/// What of a click's link could not be kept as it was sent, and how many of its values were macros.
pub fn click_adjusted(adjusted: Adjusted, unexpanded: u32) {
    for adjustment in adjusted.iter() {
        counter!("octo_click_values_adjusted_total", "reason" => <&str>::from(adjustment)).increment(1);
    }
    counter!("octo_unexpanded_macros_total").increment(unexpanded.into());
}

/// A visit was forgotten before its window was over: its next click will count.
pub fn visit_forgotten() {
    counter!("octo_visits_forgotten_total").increment(1);
}

/// Visits that other nodes will count once more.
pub fn visits_untold(visits: u64) {
    counter!("octo_visits_untold_total").increment(visits);
}

/// What became of an event: one of the outcomes in `FROM_ZERO`.
pub fn event(outcome: &'static str) {
    counter!("octo_events_total", "outcome" => outcome).increment(1);
}

/// A batch of the journal.
pub fn journal_committed(is_durable: bool, records: u64, bytes: usize) {
    if is_durable {
        counter!("octo_journal_records_total").increment(records);
        counter!("octo_journal_written_bytes_total").increment(bytes as u64);
    }
}

/// Records erased where they were found: `drain` (and not stored) or `journal`.
pub fn erased(place: &'static str, records: u64) {
    counter!("octo_erased_records_total", "place" => place).increment(records);
}

/// A write or sync of the journal failed.
pub fn journal_error() {
    counter!("octo_journal_errors_total").increment(1);
}

/// One fdatasync.
pub fn journal_fsync(took: Duration) {
    histogram!("octo_journal_fsync_duration_seconds").record(took);
}

/// Figures of the journal.
pub fn journal_state(is_writable: bool, pending: u64, bytes: u64, segments: usize, corrupt: usize) {
    gauge!("octo_journal_writable").set(f64::from(u8::from(is_writable)));
    gauge!("octo_journal_pending_records").set(pending as f64);
    gauge!("octo_journal_bytes").set(bytes as f64);
    gauge!("octo_journal_segments").set(segments as f64);
    gauge!("octo_journal_corrupt_segments").set(corrupt as f64);
}

/// Records that could not be read back.
pub fn journal_damaged(records: u64) {
    counter!("octo_journal_damaged_records_total").increment(records);
}

/// The progress of a stream was moved by somebody else.
pub fn journal_foreign_watermark() {
    counter!("octo_journal_foreign_watermarks_total").increment(1);
}

/// Records that were sent again and found stored.
pub fn drain_already_stored(records: u64) {
    counter!("octo_drain_already_stored_total").increment(records);
}

/// Unix time of the oldest record not in Postgres; 0: none.
pub fn journal_oldest_pending(unix_seconds: f64) {
    gauge!("octo_journal_oldest_pending_timestamp_seconds").set(unix_seconds);
}

/// A committed batch: rows stored by table.
pub fn drained(clicks: usize, events: usize) {
    counter!("octo_drain_rows_total", "table" => "clicks").increment(clicks as u64);
    counter!("octo_drain_rows_total", "table" => "events").increment(events as u64);
    histogram!("octo_drain_batch_rows").record((clicks + events) as f64);
}

/// Age of the newest record when it was stored.
pub fn drain_lag(lag: Duration) {
    gauge!("octo_drain_lag_seconds").set(lag.as_secs_f64());
}

/// A transaction of the drain failed.
pub fn drain_error(class: &'static str) {
    counter!("octo_drain_errors_total", "class" => class).increment(1);
}

/// A record went to the dead letters.
pub fn dead_letter(class: &'static str) {
    counter!("octo_dead_letters_total", "class" => class).increment(1);
}

/// A dead letter was tried again: `stored`, `already_stored`, `refused`.
pub fn dead_letter_retried(outcome: &'static str) {
    counter!("octo_dead_letters_retried_total", "outcome" => outcome).increment(1);
}

/// How far this node's clock is ahead of the primary's, in seconds; `None`: it does not answer.
pub fn clock_skew(ahead_s: Option<f64>) {
    gauge!("octo_clock_skew_seconds").set(ahead_s.unwrap_or(f64::NAN));
}

/// Whether this node's clock says a time that can be.
pub fn clock_plausible(is_plausible: bool) {
    gauge!("octo_clock_plausible").set(f64::from(u8::from(is_plausible)));
}

/// This node's clock was set: ahead, or back.
pub fn clock_jumped(is_ahead: bool) {
    counter!("octo_clock_jumps_total", "direction" => if is_ahead { "ahead" } else { "back" }).increment(1);
}

/// Rows found in a DEFAULT partition.
pub fn default_partition_rows(table: &'static str, rows: u64) {
    gauge!("octo_default_partition_rows", "table" => table).set(rows as f64);
}

/// State of a pool; its counters are there from now on.
pub fn pool_state(pool: &str, idle: usize, used: usize, max: usize, pending: usize) {
    gauge!("octo_db_pool_connections", "pool" => pool.to_owned(), "state" => "idle").set(idle as f64);
    gauge!("octo_db_pool_connections", "pool" => pool.to_owned(), "state" => "used").set(used as f64);
    gauge!("octo_db_pool_max_connections", "pool" => pool.to_owned()).set(max as f64);
    gauge!("octo_db_pool_pending_acquires", "pool" => pool.to_owned()).set(pending as f64);
    for name in [
        "octo_db_pool_timeouts_total",
        "octo_db_connections_created_total",
        "octo_db_connections_failed_total",
        "octo_db_connections_returned_total",
        "octo_db_connections_closed_total",
    ] {
        counter!(name, "pool" => pool.to_owned()).increment(0);
    }
}

/// A connection was handed out, or the wait ran out.
pub fn pool_acquire(pool: &str, took: Duration, timed_out: bool) {
    histogram!("octo_db_pool_acquire_duration_seconds", "pool" => pool.to_owned()).record(took);
    if timed_out {
        counter!("octo_db_pool_timeouts_total", "pool" => pool.to_owned()).increment(1);
    }
}

/// A connection was opened.
pub fn connection_created(pool: &str) {
    counter!("octo_db_connections_created_total", "pool" => pool.to_owned()).increment(1);
}

/// A connection could not be opened.
pub fn connection_failed(pool: &str) {
    counter!("octo_db_connections_failed_total", "pool" => pool.to_owned()).increment(1);
}

/// A connection came back to its pool in order.
pub fn connection_returned(pool: &str) {
    counter!("octo_db_connections_returned_total", "pool" => pool.to_owned()).increment(1);
}

/// A pooled connection was closed.
pub fn connection_closed(pool: &str) {
    counter!("octo_db_connections_closed_total", "pool" => pool.to_owned()).increment(1);
}

/// Whether the primary takes writes.
pub fn primary_up(is_up: bool) {
    gauge!("octo_db_primary_up").set(f64::from(u8::from(is_up)));
}

/// What the last probe says of a replica. `replica` is its place in the configuration.
pub fn replica(replica: &str, is_up: bool, lag_bytes: u64, lag: Duration) {
    gauge!("octo_db_replica_up", "replica" => replica.to_owned()).set(f64::from(u8::from(is_up)));
    gauge!("octo_db_replica_lag_bytes", "replica" => replica.to_owned()).set(lag_bytes as f64);
    gauge!("octo_db_replica_lag_seconds", "replica" => replica.to_owned()).set(lag.as_secs_f64());
}

/// A read was given to a replica.
pub fn replica_read(replica: &str) {
    counter!("octo_db_replica_reads_total", "replica" => replica.to_owned()).increment(1);
}

/// A read went to the primary although there are replicas: `position` (none has replayed what it must see) or
/// `no_replica` (none can answer).
pub fn primary_read(reason: &'static str) {
    counter!("octo_db_primary_reads_total", "reason" => reason).increment(1);
}

/// A query ran.
pub fn query(name: &'static str, took: Duration, is_slow: bool) {
    histogram!("octo_db_query_duration_seconds", "query" => name).record(took);
    if is_slow {
        counter!("octo_db_slow_queries_total", "query" => name).increment(1);
    }
}

/// A query failed.
pub fn query_error(name: &'static str, class: &'static str) {
    counter!("octo_db_query_errors_total", "query" => name, "class" => class).increment(1);
}

/// A layer of the campaign cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLayer {
    /// Memory of this process.
    Process,
    /// Redis.
    Redis,
    /// Postgres.
    Database,
}

/// What became of a look-up in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// Found.
    Hit,
    /// Not there: the next layer is asked.
    Miss,
    /// Found, and not confirmed lately.
    Stale,
    /// Known not to be there.
    Negative,
    /// No answer, or one that is no campaign.
    Error,
}

impl CacheLayer {
    /// In the order they are asked.
    pub const ALL: [Self; 3] = [Self::Process, Self::Redis, Self::Database];

    /// As the label says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Redis => "redis",
            Self::Database => "database",
        }
    }
}

const CACHE_OUTCOMES: [&str; 5] = ["hit", "miss", "stale", "negative", "error"];

/// Look-ups by layer and outcome. They are counted here, because `/system/cache` shows them too and the
/// recorder's counters cannot be read; [`observe_cache`] hands them on.
static CACHE_REQUESTS: [[AtomicU64; CACHE_OUTCOMES.len()]; CacheLayer::ALL.len()] =
    [const { [const { AtomicU64::new(0) }; CACHE_OUTCOMES.len()] }; CacheLayer::ALL.len()];

/// A look-up of a campaign.
pub fn cache_request(layer: CacheLayer, outcome: CacheOutcome) {
    CACHE_REQUESTS[layer as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
}

/// Look-ups of a layer since the start: hits, misses, stale, negative, errors.
pub fn cache_requests(layer: CacheLayer) -> [u64; CACHE_OUTCOMES.len()] {
    CACHE_REQUESTS[layer as usize].each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// Hands the look-ups to the recorder: before each scrape.
pub fn observe_cache() {
    for layer in CacheLayer::ALL {
        for (outcome, count) in CACHE_OUTCOMES.into_iter().zip(cache_requests(layer)) {
            let labels = [("layer", layer.name()), ("outcome", outcome)];
            counter!("octo_campaign_cache_requests_total", &labels).absolute(count);
        }
    }
}

/// Campaigns in memory.
pub fn cache_campaigns(count: usize) {
    gauge!("octo_campaign_cache_campaigns").set(count as f64);
}

/// A key was not looked up, because too many are.
pub fn look_up_refused() {
    counter!("octo_campaign_look_ups_refused_total").increment(1);
}

/// The campaigns were saved on disk.
pub fn campaigns_saved(bytes: u64) {
    counter!("octo_campaigns_saved_total").increment(1);
    counter!("octo_campaigns_saved_bytes_total").increment(bytes);
}

/// A Redis command: outcome `ok`, `error` or `timeout`.
pub fn redis_command(outcome: &'static str, took: Duration) {
    counter!("octo_redis_commands_total", "outcome" => outcome).increment(1);
    histogram!("octo_redis_command_duration_seconds").record(took);
}

/// A Redis command that was not sent, because the breaker is open.
pub fn redis_refused() {
    counter!("octo_redis_commands_total", "outcome" => "open").increment(1);
}

/// Whether the breaker of Redis is open (or half open).
pub fn redis_breaker(is_open: bool) {
    gauge!("octo_redis_breaker_open").set(if is_open { 1.0 } else { 0.0 });
}

/// A question for figures of a campaign: `hit`, `miss` or `error`.
pub fn stats_cache_request(outcome: &'static str) {
    counter!("octo_stats_cache_requests_total", "outcome" => outcome).increment(1);
}

/// The journal's file system; NaN when it does not answer.
pub fn disk(free_bytes: f64, size_bytes: f64) {
    gauge!("octo_disk_free_bytes").set(free_bytes);
    gauge!("octo_disk_size_bytes").set(size_bytes);
}

/// The database's statistics were read in full.
pub fn statistics_read(unix_seconds: f64) {
    gauge!("octo_db_statistics_timestamp_seconds").set(unix_seconds);
}

/// Part of the blocks found in the database's cache, of tables (`heap`) or indexes (`index`).
pub fn cache_hit_ratio(kind: &'static str, ratio: f64) {
    gauge!("octo_db_cache_hit_ratio", "kind" => kind).set(ratio);
}

/// What the server's connections do.
pub fn database_activity(active: f64, server: f64, server_max: f64, longest_transaction_s: f64) {
    gauge!("octo_db_active_connections").set(active);
    gauge!("octo_db_server_connections").set(server);
    gauge!("octo_db_server_max_connections").set(server_max);
    gauge!("octo_db_longest_transaction_seconds").set(longest_transaction_s);
}

/// A table of ours with all its partitions; the number of tables is bounded by the migrations.
pub fn table(name: &str, bytes: f64, dead_rows: f64) {
    gauge!("octo_db_table_bytes", "table" => name.to_owned()).set(bytes);
    gauge!("octo_db_table_dead_rows", "table" => name.to_owned()).set(dead_rows);
}

/// Standbys in a state that `pg_stat_replication` knows, or `hidden`.
pub fn standbys(state: &'static str, count: f64) {
    gauge!("octo_db_standbys", "state" => state).set(count);
}

/// What the standby furthest behind has not replayed.
pub fn standby_lag(bytes: f64) {
    gauge!("octo_db_standby_lag_bytes").set(bytes);
}

/// There is a private PostgreSQL, and whether it takes connections.
pub fn embedded_postgres_up(is_up: bool) {
    gauge!("octo_embedded_postgres_up").set(f64::from(u8::from(is_up)));
    counter!("octo_embedded_postgres_restarts_total").increment(0);
}

/// The private PostgreSQL has ended, and is started again.
pub fn embedded_postgres_restarted() {
    counter!("octo_embedded_postgres_restarts_total").increment(1);
}

/// The runtime's threads and tasks. Over all threads together: a label for each would be a series for each
/// core of a large machine.
pub fn runtime(workers: usize, tasks: usize, queued: usize, busy: Duration, parks: u64) {
    gauge!("tokio_workers").set(workers as f64);
    gauge!("tokio_alive_tasks").set(tasks as f64);
    gauge!("tokio_global_queue_depth").set(queued as f64);
    counter!("tokio_worker_busy_seconds_total").absolute(busy.as_secs());
    counter!("tokio_worker_parks_total").absolute(parks);
}

/// A request panicked.
pub fn panicked() {
    counter!("octo_panics_total").increment(1);
}

/// The statuses octo answers, as text; others by class.
fn status_label(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        202 => "202",
        204 => "204",
        302 => "302",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        412 => "412",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        _ if status < 400 => "other",
        _ if status < 500 => "4xx",
        _ => "5xx",
    }
}
