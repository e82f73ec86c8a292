//! What the primary says of itself: cache hit ratios, connections, sizes, dead rows, standbys; read every
//! `database.statistics_interval_s` by [`ServerStatus::run`], kept for `GET /api/v1/system/database`.
//!
//! An ordinary user reads all of it except what others do: without `pg_monitor` their statements,
//! transactions and the positions of standbys are hidden. What is hidden is said to be, and not taken for 0.
//! When no reading has succeeded for a while, the gauges are NaN: a figure of before an outage is no figure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, postgres::PgRow};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Db, Error, Statement, statement::statements};
use crate::{config, metrics};

statements! {
    /// `usesysid`: without it, background workers are counted too. Of other users all but this is NULL without
    /// `pg_read_all_stats`, which `pg_monitor` holds.
    ACTIVITY = "statistics.activity": "
SELECT
    count(*) FILTER (WHERE is_ours AND state = 'active') AS active,
    count(*) FILTER (WHERE is_ours) AS of_database,
    count(*) AS of_server,
    current_setting('max_connections')::bigint AS server_max,
    coalesce(extract(epoch FROM clock_timestamp() - min(xact_start) FILTER (WHERE is_ours)), 0)::float8
        AS longest_transaction_s,
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all
FROM pg_stat_activity,
    LATERAL (SELECT datname = current_database() AND pid <> pg_backend_pid() AS is_ours) own
WHERE datid IS NOT NULL
  AND usesysid IS NOT NULL";

    CACHE = "statistics.cache": "
SELECT
    coalesce(sum(heap_blks_hit), 0)::bigint AS heap_hit,
    coalesce(sum(heap_blks_read), 0)::bigint AS heap_read,
    coalesce(sum(idx_blks_hit), 0)::bigint AS index_hit,
    coalesce(sum(idx_blks_read), 0)::bigint AS index_read
FROM pg_statio_user_tables";

    /// The size of a table takes a call to the file system for each of its files: it is computed after LIMIT. It is
    /// NULL for one that is dropped meanwhile.
    TABLES = "statistics.tables": "
SELECT
    c.relname::text AS name,
    parent.relname::text AS parent,
    pg_total_relation_size(c.oid) AS bytes,
    pg_stat_get_live_tuples(c.oid) AS live_rows,
    pg_stat_get_dead_tuples(c.oid) AS dead_rows
FROM pg_class c
LEFT JOIN pg_class parent ON parent.oid = pg_partition_root(c.oid)
WHERE c.relkind = 'r'
  AND c.relnamespace = current_schema()::regnamespace
ORDER BY c.relispartition, c.oid
LIMIT $1";

    STANDBYS = "statistics.standbys": "
SELECT
    application_name,
    coalesce(state, 'hidden') AS state,
    sync_state,
    pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
        replay_lsn
    )::bigint AS lag_bytes,
    extract(epoch FROM replay_lag)::float8 AS lag_s
FROM pg_stat_replication
ORDER BY pid
LIMIT $1";
}

/// Standbys that are looked at.
const STANDBYS_MAX: i64 = 64;
/// The states of `pg_stat_replication`, and ours for a state that we may not see.
const STANDBY_STATES: [&str; 6] = ["startup", "catchup", "streaming", "backup", "stopping", "hidden"];
/// A ratio of fewer blocks than this would be noise.
const BLOCKS_MIN: i64 = 1000;
/// After as many intervals without an answer the figures are too old to be shown as of now.
const STALE_INTERVALS: u32 = 3;

/// What the primary said of itself at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When.
    pub read_at: DateTime<Utc>,
    /// Whether our user sees what other users do; `GRANT pg_monitor` to it if not.
    pub sees_all: bool,
    /// Parts that could not be read this time: `cache`, `tables`, `standbys`. Their figures are missing below.
    pub missing: Vec<&'static str>,
    /// Part of the table blocks that were in the database's cache of late, 0 to 1; null when too few were read.
    pub heap_hit_ratio: Option<f64>,
    /// The same of index blocks.
    pub index_hit_ratio: Option<f64>,
    /// Connections.
    pub connections: Connections,
    /// Age of the oldest transaction of this database that we may see, 0 if there is none.
    pub longest_transaction_s: f64,
    /// Tables of our schema with their partitions, the largest first.
    pub tables: Vec<Table>,
    /// Single partitions, the largest first.
    pub partitions: Vec<Partition>,
    /// Partitions that are not listed (`database.statistics_partitions_max`).
    pub partitions_left_out: usize,
    /// Whether there are more tables than `database.statistics_tables_max`: then sizes are of a part only.
    pub is_cut_off: bool,
    /// Standbys that stream from the primary, as it sees them.
    pub standbys: Vec<Standby>,
}

/// Connections of clients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Connections {
    /// To this database, running a statement, as far as we may see.
    pub active: i64,
    /// To this database, without the one that asks.
    pub of_database: i64,
    /// To the whole server.
    pub of_server: i64,
    /// `max_connections` of the server.
    pub server_max: i64,
}

/// A table with all its partitions, indexes and TOAST.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Its size.
    pub bytes: i64,
    /// Rows, as the server estimates them.
    pub live_rows: i64,
    /// Rows that are deleted and not yet vacuumed, as the server estimates them.
    pub dead_rows: i64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// The table it is a part of.
    pub table: String,
    /// Its size with indexes and TOAST.
    pub bytes: i64,
    /// Rows, as the server estimates them.
    pub live_rows: i64,
    /// Rows that are deleted and not yet vacuumed, as the server estimates them.
    pub dead_rows: i64,
}

/// A standby. Without `pg_monitor` the primary tells only that it is there: its state is `hidden`.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Standby {
    /// What it calls itself.
    pub application_name: Option<String>,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`; or `hidden`.
    pub state: String,
    /// `async`, `potential`, `sync` or `quorum`.
    pub sync_state: Option<String>,
    /// What it has not replayed.
    pub lag_bytes: Option<i64>,
    /// How long the last replayed commit took to get there; null when it is idle.
    pub lag_s: Option<f64>,
}

/// The last reading.
#[derive(Debug, Default)]
pub struct ServerStatus {
    latest: ArcSwapOption<Snapshot>,
}

impl ServerStatus {
    /// The last reading that succeeded, however old.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.load_full()
    }

    /// Reads at every interval, until the stop signal.
    pub async fn run(
        self: Arc<Self>,
        db: Arc<Db>,
        config: config::Database,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let interval = config.statistics_interval;
        let mut windows = Windows::default();
        let mut last_read = Instant::now();
        loop {
            match stop.run_until_cancelled(read(&db, &config, &mut windows)).await {
                Some(Ok(snapshot)) => {
                    last_read = Instant::now();
                    if let Some(old) = self.latest() {
                        forget_tables(&old, &snapshot);
                    }
                    publish(&snapshot, true);
                    self.latest.store(Some(Arc::new(snapshot)));
                }
                Some(Err(error)) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "no statistics of the database"
                    );
                    if let Some(old) = self.latest().filter(|_| is_stale(last_read.elapsed(), interval)) {
                        publish(&old, false);
                    }
                }
                None => return Ok(()),
            }
            if stop.run_until_cancelled(sleep(interval)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// Whether a reading of this age is too old to be shown as of now.
pub fn is_stale(age: Duration, interval: Duration) -> bool {
    age >= interval.saturating_mul(STALE_INTERVALS)
}

#[derive(FromRow)]
struct Activity {
    active: i64,
    of_database: i64,
    of_server: i64,
    server_max: i64,
    longest_transaction_s: f64,
    sees_all: bool,
}

#[derive(FromRow)]
struct Cache {
    heap_hit: i64,
    heap_read: i64,
    index_hit: i64,
    index_read: i64,
}

#[derive(FromRow)]
struct Relation {
    name: String,
    parent: Option<String>,
    bytes: Option<i64>,
    live_rows: i64,
    dead_rows: i64,
}

/// The server is there if it tells its activity; what else it does not tell in time is missing.
async fn read(db: &Db, config: &config::Database, windows: &mut Windows) -> Result<Snapshot, Error> {
    let tables_max = config.statistics_tables_max;
    let activity: Vec<Activity> = ask(db, ACTIVITY, None, config).await?;
    let cache: Result<Vec<Cache>, _> = ask(db, CACHE, None, config).await;
    let tables: Result<Vec<Relation>, _> = ask(db, TABLES, Some(i64::from(tables_max) + 1), config).await;
    let standbys: Result<Vec<Standby>, _> = ask(db, STANDBYS, Some(STANDBYS_MAX), config).await;
    let parts = [("cache", cache.is_err()), ("tables", tables.is_err()), ("standbys", standbys.is_err())];
    let activity = activity.into_iter().next().ok_or_else(|| Error::Unavailable("no activity".into()))?;
    let cache = cache.ok().and_then(|rows| rows.into_iter().next());
    let mut relations = tables.unwrap_or_default();
    let is_cut_off = relations.len() > tables_max as usize;
    relations.truncate(tables_max as usize);
    let (tables, mut partitions) = add_up(relations);
    let partitions_max = config.statistics_partitions_max as usize;
    let partitions_left_out = partitions.len().saturating_sub(partitions_max);
    partitions.truncate(partitions_max);
    Ok(Snapshot {
        read_at: Utc::now(),
        sees_all: activity.sees_all,
        missing: parts.into_iter().filter_map(|(part, is_missing)| is_missing.then_some(part)).collect(),
        heap_hit_ratio: cache.as_ref().and_then(|c| windows.heap.ratio(c.heap_hit, c.heap_read)),
        index_hit_ratio: cache.as_ref().and_then(|c| windows.index.ratio(c.index_hit, c.index_read)),
        connections: Connections {
            active: activity.active,
            of_database: activity.of_database,
            of_server: activity.of_server,
            server_max: activity.server_max,
        },
        longest_transaction_s: activity.longest_transaction_s,
        tables,
        partitions,
        partitions_left_out,
        is_cut_off,
        standbys: standbys.unwrap_or_default(),
    })
}

/// One question to the primary, with its own time-out; some take a limit on the rows.
async fn ask<T>(
    db: &Db,
    statement: Statement,
    rows_max: Option<i64>,
    config: &config::Database,
) -> Result<Vec<T>, Error>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static,
{
    let limit = config.statistics_timeout;
    let query = match rows_max {
        Some(rows_max) => statement.query_as().bind(rows_max),
        None => statement.query_as(),
    };
    db.primary().run_within(statement, limit, move |c| Box::pin(query.fetch_all(c))).await
}

/// Tables with the sums of their partitions, and the partitions; the largest first.
fn add_up(relations: Vec<Relation>) -> (Vec<Table>, Vec<Partition>) {
    let mut tables = BTreeMap::<String, Table>::new();
    let mut partitions = Vec::new();
    for Relation { name, parent, bytes, live_rows, dead_rows } in relations {
        let bytes = bytes.unwrap_or(0);
        let table = parent.clone().unwrap_or_else(|| name.clone());
        let sum = tables.entry(table.clone()).or_insert(Table {
            name: table.clone(),
            partitions: 0,
            bytes: 0,
            live_rows: 0,
            dead_rows: 0,
        });
        sum.bytes += bytes;
        sum.live_rows += live_rows;
        sum.dead_rows += dead_rows;
        if parent.is_some() {
            sum.partitions += 1;
            partitions.push(Partition { name, table, bytes, live_rows, dead_rows });
        }
    }
    let mut tables: Vec<Table> = tables.into_values().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    partitions.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    (tables, partitions)
}

/// The server counts blocks since its statistics were reset, which may be years: the ratio is of the last
/// readings.
#[derive(Debug, Default)]
struct Windows {
    heap: Window,
    index: Window,
}

#[derive(Debug, Default)]
struct Window {
    hit: i64,
    read: i64,
    ratio: Option<f64>,
}

impl Window {
    /// The ratio since the window began, which it does anew once it holds enough blocks.
    fn ratio(&mut self, hit: i64, read: i64) -> Option<f64> {
        if hit < self.hit || read < self.read {
            // the statistics were reset, or another server answers
            *self = Self::default();
        }
        let (new_hit, new_read) = (hit - self.hit, read - self.read);
        let blocks = new_hit + new_read;
        if blocks >= BLOCKS_MIN {
            *self = Self { hit, read, ratio: Some(new_hit as f64 / blocks as f64) };
        }
        self.ratio
    }
}

/// A table that is not read any more has no size.
fn forget_tables(old: &Snapshot, new: &Snapshot) {
    for Table { name, .. } in &old.tables {
        if new.tables.iter().all(|table| table.name != *name) {
            metrics::table(name, f64::NAN, f64::NAN);
        }
    }
}

/// Sets the gauges: to what was read, or all to NaN when that is not known any more.
fn publish(snapshot: &Snapshot, is_known: bool) {
    let is_known = |part| is_known && !snapshot.missing.contains(&part);
    let figure = |part, value: f64| if is_known(part) { value } else { f64::NAN };
    if is_known("") && snapshot.missing.is_empty() {
        metrics::statistics_read(snapshot.read_at.timestamp_millis() as f64 / 1000.0);
    }
    let connections = snapshot.connections;
    metrics::database_activity(
        figure("", connections.active as f64),
        figure("", connections.of_server as f64),
        figure("", connections.server_max as f64),
        figure("", snapshot.longest_transaction_s),
    );
    for (kind, ratio) in [("heap", snapshot.heap_hit_ratio), ("index", snapshot.index_hit_ratio)] {
        metrics::cache_hit_ratio(kind, figure("cache", ratio.unwrap_or(f64::NAN)));
    }
    for table in &snapshot.tables {
        metrics::table(
            &table.name,
            figure("tables", table.bytes as f64),
            figure("tables", table.dead_rows as f64),
        );
    }
    for state in STANDBY_STATES {
        let count = snapshot.standbys.iter().filter(|standby| standby.state == state).count();
        metrics::standbys(state, figure("standbys", count as f64));
    }
    let lags = snapshot.standbys.iter().map(|standby| standby.lag_bytes.map_or(f64::NAN, |lag| lag as f64));
    let is_hidden = snapshot.standbys.iter().any(|standby| standby.state == "hidden");
    let lag = if is_hidden { f64::NAN } else { lags.fold(0.0, f64::max) };
    metrics::standby_lag(figure("standbys", lag));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_ratio_is_of_the_last_blocks_and_not_of_all_since_the_reset() {
        let mut window = Window::default();
        assert_eq!(window.ratio(0, 20), None, "a new database was hardly read yet");
        assert_eq!(window.ratio(9_000_000, 1_000_000), Some(0.9), "the first reading knows no other");
        assert_eq!(window.ratio(9_000_010, 1_000_010), Some(0.9), "twenty blocks are noise");
        assert_eq!(window.ratio(9_000_500, 1_000_500), Some(0.5), "but they are not forgotten");
        assert_eq!(window.ratio(75, 25), None, "the statistics were reset");
        assert_eq!(window.ratio(750, 250), Some(0.75));
    }

    #[test]
    fn partitions_are_added_up_under_their_table() {
        let relation = |name: &str, parent: Option<&str>, bytes| Relation {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            bytes,
            live_rows: 10,
            dead_rows: 1,
        };
        let (tables, partitions) = add_up(vec![
            relation("offers", None, Some(5)),
            relation("clicks_1", Some("clicks"), Some(10)),
            relation("clicks_2", Some("clicks"), Some(20)),
            relation("clicks_dropped", Some("clicks"), None),
        ]);
        let names: Vec<_> =
            tables.iter().map(|t| (t.name.as_str(), t.partitions, t.bytes, t.dead_rows)).collect();
        assert_eq!(names, [("clicks", 3, 30, 3), ("offers", 0, 5, 1)]);
        let names: Vec<_> = partitions.iter().map(|p| (p.name.as_str(), p.bytes)).collect();
        assert_eq!(names, [("clicks_2", 20), ("clicks_1", 10), ("clicks_dropped", 0)]);
    }
}
