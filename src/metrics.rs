//! Every metric: its name, help and labels, and one recording function. Nothing else in the crate names a
//! metric. Labels are enums, route patterns or query names, never ids, keys, addresses or raw paths.

use std::{sync::LazyLock, time::Duration};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// The series that each redirect touches, looked up once: a look-up costs an allocation and a hash of the
/// labels. First used after the recorder is installed: a handle made before that counts nothing.
struct Redirects {
    redirected: Counter,
    campaign_found: Counter,
    requests: Counter,
    duration: Histogram,
}

static REDIRECTS: LazyLock<Redirects> = LazyLock::new(|| Redirects {
    redirected: click_counter("redirected"),
    campaign_found: cache_counter("process", "hit"),
    requests: request_counter(CLICK_ROUTE, "GET", "302"),
    duration: request_histogram(CLICK_ROUTE),
});

/// The route most requests take.
pub const CLICK_ROUTE: &str = "/click";

/// Registers help texts and units; call once, after the recorder is installed.
pub fn describe() {
    let c = |name: &'static str, help: &'static str| describe_counter!(name, help);
    let g = |name: &'static str, help: &'static str| describe_gauge!(name, help);
    let h = |name: &'static str, help: &'static str| describe_histogram!(name, Unit::Seconds, help);
    c("octo_http_requests_total", "Requests answered.");
    h("octo_http_request_duration_seconds", "Time from a request's head to its answer's.");
    c("octo_http_connections_total", "Connections accepted or refused.");
    g("octo_http_connections", "Connections open.");
    c("octo_http_refused_total", "Requests refused before a route was looked for.");
    c("octo_clicks_total", "Clicks by what became of them.");
    c("octo_clicks_unrecorded_total", "Clicks redirected but not recorded: the journal could not take them.");
    c("octo_events_total", "Events by what became of them.");
    c("octo_journal_records_total", "Records made durable.");
    c("octo_journal_errors_total", "Writes or syncs of the journal that failed.");
    h("octo_journal_fsync_duration_seconds", "Time of one fdatasync.");
    g("octo_journal_pending_records", "Durable records not yet in Postgres.");
    g("octo_journal_bytes", "Bytes of the journal on disk.");
    g("octo_journal_segments", "Segments on disk.");
    g("octo_journal_corrupt_segments", "Segments with damage; they are kept until a person deletes them.");
    c("octo_journal_damaged_records_total", "Records that could not be read back.");
    g(
        "octo_journal_oldest_pending_timestamp_seconds",
        "Unix time of the oldest record not in Postgres; 0: none.",
    );
    c("octo_drain_rows_total", "Rows stored in Postgres.");
    describe_histogram!("octo_drain_batch_rows", "Records in one transaction.");
    c("octo_drain_errors_total", "Transactions of the drain that failed, by class.");
    g("octo_drain_lag_seconds", "Age of the newest record in Postgres when it was stored.");
    c("octo_dead_letters_total", "Records Postgres refuses for what they hold, by SQLSTATE class.");
    c("octo_dead_letters_retried_total", "Dead letters that were tried again, by outcome.");
    g("octo_default_partition_rows", "Rows in a DEFAULT partition: no partition of their day was there.");
    c("octo_journal_written_bytes_total", "Bytes made durable.");
    g("octo_db_pool_connections", "Connections of a pool by state.");
    g("octo_db_pool_max_connections", "Connections a pool may open.");
    g("octo_db_pool_pending_acquires", "Callers waiting for a connection.");
    h("octo_db_pool_acquire_duration_seconds", "Wait for a connection.");
    c("octo_db_pool_timeouts_total", "Waits for a connection that ran out.");
    c("octo_db_connections_created_total", "Connections opened.");
    c("octo_db_connections_failed_total", "Connections that could not be opened.");
    h("octo_db_query_duration_seconds", "Time of a query.");
    c("octo_db_query_errors_total", "Queries that failed, by SQLSTATE class.");
    c("octo_db_slow_queries_total", "Queries slower than database.slow_query_ms.");
    c("octo_campaign_cache_requests_total", "Campaign look-ups by layer and outcome.");
    g("octo_campaign_cache_campaigns", "Campaigns in memory.");
    c("octo_redis_commands_total", "Redis commands by outcome.");
    h("octo_redis_command_duration_seconds", "Time of a Redis command.");
    g("octo_build_info", "1, labelled with the version.");
    c("octo_panics_total", "Requests that panicked.");
    gauge!("octo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    counter!("octo_clicks_unrecorded_total").increment(0);
    counter!("octo_panics_total").increment(0);
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

/// A request was refused before a route was looked for: `parse`, `timeout`, `host`, ...
pub fn http_refused(reason: &'static str) {
    counter!("octo_http_refused_total", "reason" => reason).increment(1);
}

/// What became of a click: `redirected`, `invalid`, `fallback`, `unknown_campaign`, `no_destination`, `bad_request`.
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

/// What became of an event: `accepted`, `invalid`, `unknown_campaign`, `unrecorded`.
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

/// A write or sync of the journal failed.
pub fn journal_error() {
    counter!("octo_journal_errors_total").increment(1);
}

/// One fdatasync.
pub fn journal_fsync(took: Duration) {
    histogram!("octo_journal_fsync_duration_seconds").record(took);
}

/// Figures of the journal.
pub fn journal_state(pending: u64, bytes: u64, segments: usize, corrupt: usize) {
    gauge!("octo_journal_pending_records").set(pending as f64);
    gauge!("octo_journal_bytes").set(bytes as f64);
    gauge!("octo_journal_segments").set(segments as f64);
    gauge!("octo_journal_corrupt_segments").set(corrupt as f64);
}

/// Records that could not be read back.
pub fn journal_damaged(records: u64) {
    counter!("octo_journal_damaged_records_total").increment(records);
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

/// Rows found in a DEFAULT partition.
pub fn default_partition_rows(table: &'static str, rows: u64) {
    gauge!("octo_default_partition_rows", "table" => table).set(rows as f64);
}

/// State of a pool.
pub fn pool_state(pool: &'static str, idle: usize, used: usize, max: u32, pending: usize) {
    gauge!("octo_db_pool_connections", "pool" => pool, "state" => "idle").set(idle as f64);
    gauge!("octo_db_pool_connections", "pool" => pool, "state" => "used").set(used as f64);
    gauge!("octo_db_pool_max_connections", "pool" => pool).set(f64::from(max));
    gauge!("octo_db_pool_pending_acquires", "pool" => pool).set(pending as f64);
}

/// A connection was handed out, or the wait ran out.
pub fn pool_acquire(pool: &'static str, took: Duration, timed_out: bool) {
    histogram!("octo_db_pool_acquire_duration_seconds", "pool" => pool).record(took);
    if timed_out {
        counter!("octo_db_pool_timeouts_total", "pool" => pool).increment(1);
    }
}

/// A connection was opened.
pub fn connection_created(pool: &'static str) {
    counter!("octo_db_connections_created_total", "pool" => pool).increment(1);
}

/// A connection could not be opened.
pub fn connection_failed(pool: &'static str) {
    counter!("octo_db_connections_failed_total", "pool" => pool).increment(1);
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

/// A look-up of a campaign: layer `process`, `redis` or `database`; outcome `hit`, `miss`, `stale`,
/// `negative` or `error`.
pub fn cache_request(layer: &'static str, outcome: &'static str) {
    match (layer, outcome) {
        ("process", "hit") => REDIRECTS.campaign_found.increment(1),
        _ => cache_counter(layer, outcome).increment(1),
    }
}

fn cache_counter(layer: &'static str, outcome: &'static str) -> Counter {
    counter!("octo_campaign_cache_requests_total", "layer" => layer, "outcome" => outcome)
}

/// Campaigns in memory.
pub fn cache_campaigns(count: usize) {
    gauge!("octo_campaign_cache_campaigns").set(count as f64);
}

/// A Redis command: outcome `ok`, `error` or `timeout`.
pub fn redis_command(outcome: &'static str, took: Duration) {
    counter!("octo_redis_commands_total", "outcome" => outcome).increment(1);
    histogram!("octo_redis_command_duration_seconds").record(took);
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
