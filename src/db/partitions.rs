//! Day partitions of `clicks`, `events` and `out_clicks`: made ahead, dropped when retention says so; and what else retention
//! deletes. All of it by the clock of the database.
//!
//! Each partition is a transaction of its own under a short `lock_timeout`: a lock request that waits keeps everybody
//! behind it waiting, and a dump (`pg_dump`) holds its locks for hours. What cannot be had is left for the next round.

use std::{collections::HashSet, time::Duration};

use chrono::NaiveDate;

use sqlx::AssertSqlSafe;
use tokio::time::timeout;

use super::{Db, Error, Statement, monitor::classify, pool::timed_out, statement::statements, text::Text};
use crate::{config, facts::Kind};

/// One chunk of what is too old. Rows that another node is deleting are left to it.
macro_rules! delete_old {
    ($table:literal, $and:literal) => {
        concat!(
            "
    DELETE FROM ",
            $table,
            "
    WHERE ctid = ANY (ARRAY(
        SELECT ctid
        FROM ",
            $table,
            "
        WHERE created_at < now() - $1::integer * interval '1 day'",
            $and,
            "
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))"
        )
    };
}

const DEFAULT_ROWS_TEXT: Text<256> = default_rows_text();

/// One array, in the order of the kinds.
const fn default_rows_text() -> Text<256> {
    let mut text = Text::new().and("SELECT ARRAY[");
    let mut i = 0;
    while i < Kind::PARTITIONED.len() {
        text = text.and(if i == 0 { "" } else { ", " });
        text = text.and("(SELECT count(*) FROM ").and(Kind::PARTITIONED[i].table()).and("_default)");
        i += 1;
    }
    text.and("]")
}

statements! {
    // Today first, which rows wait for, then the days to come, then those that are over.
    MISSING = "partitions.missing": "
    SELECT
        parent,
        day
    FROM unnest($2::text[]) AS parent
    CROSS JOIN (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS clock
    CROSS JOIN LATERAL (SELECT today + step AS day FROM generate_series(-2, $1::integer) AS step) AS days
    WHERE to_regclass(format('%s_%s', parent, to_char(day, 'YYYYMMDD'))) IS NULL
    ORDER BY day < today, day, parent";

    MAKE = "partitions.make": "SELECT octo_make_partition($1, $2, $3, $4)";

    EXCLUDE = "partitions.exclude": "SELECT octo_exclude_day($1, $2, $3)";

    CHECK_DEFAULT = "partitions.check_default": "SELECT octo_check_default($1, $2, $3)";

    // As `octo_drop_partition` will see it. The pattern is about one relation alone, so that it is tried before to_date.
    OLD = "partitions.old": "
    SELECT
        p.relname::text,
        c.relname::text
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relname = ANY ($2::text[])
      AND c.relname ~ '^[a-z_]+_[0-9]{8}$'
      AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC'
          <= least(now() - $1::integer * interval '1 day', date_trunc('day', now(), 'UTC'))
    ORDER BY c.relname";

    // Days that are over, the newest first. An index whose making broke off is none.
    UNINDEXED = "partitions.unindexed": "
    SELECT c.relname::text
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relname = 'clicks'
      AND p.relnamespace = current_schema()::regnamespace
      AND c.relname ~ '^clicks_[0-9]{8}$'
      AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC'
          <= now() - $1::integer * interval '1 hour'
      AND NOT EXISTS (
          SELECT
          FROM pg_index x
          JOIN pg_class n ON n.oid = x.indexrelid
          WHERE x.indrelid = c.oid
            AND x.indisvalid
            AND n.relname = c.relname || '_campaign_id_created_at'
      )
    ORDER BY c.relname DESC";

    // For the session: its end lets go of it. One node at a time.
    LOCK_INDEXING = "partitions.lock_indexing": "
    SELECT
        pg_try_advisory_lock(1868788850),
        set_config('statement_timeout', $1, false)";

    DROP = "partitions.drop": "SELECT octo_drop_partition($1, $2, $3)";

    DEFAULT_ROWS = "partitions.default_rows": DEFAULT_ROWS_TEXT.as_str();

    // Older than octo itself is nothing but what a clock said that was wrong (that of a machine that began in 1970, for
    // one): such a row is of yesterday, perhaps, and a person decides about it.
    DELETE_CLICKS = "retention.clicks":
        delete_old!("clicks_default", " AND created_at >= '2020-01-01 00:00:00+00'");

    DELETE_EVENTS = "retention.events":
        delete_old!("events_default", " AND created_at >= '2020-01-01 00:00:00+00'");

    DELETE_OUT_CLICKS = "retention.out_clicks":
        delete_old!("out_clicks_default", " AND created_at >= '2020-01-01 00:00:00+00'");

    DELETE_POSTBACKS = "retention.postbacks": delete_old!("postbacks", "");

    // With their clicks: `created_at` is the click's.
    DELETE_CONVERSION_CLICKS = "retention.conversion_clicks": delete_old!("conversion_clicks", "");

    // Before anything is deleted: days of reports that lose facts are not counted from them any more. What links said goes with
    // its clicks.
    NOTE = "retention.note": "
    WITH noted AS (
        UPDATE report_retention
        SET kept_from = now() - $1::integer * interval '1 day'
        WHERE kept_from < now() - $1::integer * interval '1 day'
    ), days AS (
        DELETE FROM report_value_days
        WHERE day::timestamp AT TIME ZONE 'UTC' < now() - $1::integer * interval '1 day'
    )
    DELETE FROM report_values
    WHERE day::timestamp AT TIME ZONE 'UTC' < now() - $1::integer * interval '1 day'";

    // They stand in the figures of later days too, when they happened and changed; it is noted what they were there.
    DELETE_CONVERSIONS = "retention.conversions": concat!("
    WITH old AS (",
        delete_old!("conversions", ""),
        "
        RETURNING *
    ), noted AS (
        INSERT INTO report_gone (
            time_kind, hour, campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device, os, browser,
            reason, currency, goal, status, rate_day, conversions, amount
        )
        SELECT
            f.time_kind, date_trunc('hour', f.at, 'UTC'), v.campaign_id, v.source_id, v.rule_id, v.path_id, v.landing_page_id,
            v.offer_id, v.country, v.device, v.os, v.browser, v.invalid_reason, f.currency, v.goal, f.status,
            (f.at AT TIME ZONE 'UTC')::date, sum(f.conversions * (v.kind = 'conversion')::integer), sum(f.amount)
        FROM old v
        CROSS JOIN LATERAL (
            SELECT
                2 AS time_kind, v.converted_at AS at, v.currency, v.status, 1 AS conversions,
                octo_conversion_amount(v.status, v.payout, v.original_payout) AS amount
            UNION ALL
            SELECT 3, b.changed_at, b.currency, w.status, w.conversions, w.amount
            FROM conversion_changes b
            CROSS JOIN LATERAL octo_book_flows(b.from_status, b.to_status, b.payout, b.revenue) w
            WHERE b.conversion_id = v.id
              AND b.campaign_id = v.campaign_id
        ) f
        WHERE f.at >= date_trunc('day', now() - $1::integer * interval '1 day', 'UTC')
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
    )
    SELECT
    FROM old");

    // Never before their conversion: it knows where they stand.
    DELETE_CONVERSION_CHANGES = "retention.conversion_changes": delete_old!("conversion_changes", "
          AND NOT EXISTS (
              SELECT
              FROM conversions v
              WHERE v.id = conversion_changes.conversion_id
                AND v.campaign_id = conversion_changes.campaign_id
          )");

    DELETE_DELIVERIES = "retention.deliveries": delete_old!("deliveries", "");

    DELETE_DELIVERY_ATTEMPTS = "retention.delivery_attempts": delete_old!("delivery_attempts", "");

    DELETE_EVENT_KEYS = "retention.event_keys": delete_old!("event_keys", "");

    DELETE_OUT_CLICK_KEYS = "retention.out_click_keys": delete_old!("out_click_keys", "");

    DELETE_OUT_CLICK_LEGS = "retention.out_click_legs": delete_old!("out_click_legs", "");

    DELETE_DEAD_LETTERS = "retention.dead_letters": delete_old!("dead_letters", "");
}

/// How partitions are looked after: from `[database]`.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest wait for a lock.
    pub lock_timeout: Duration,
    /// Rows that move out of a DEFAULT partition when their day gets its own.
    pub move_rows_max: u32,
    /// Longest check of a DEFAULT partition that is too long to be scanned under a lock; nobody waits for it.
    pub check_timeout: Duration,
    /// Rows deleted in one transaction.
    pub delete_rows: u32,
}

/// What became of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Partitions made, or dropped.
    pub done: u32,
    /// Partitions whose lock was not to be had: the next round tries again.
    pub busy: u32,
}

impl From<&config::Database> for Options {
    fn from(config: &config::Database) -> Self {
        Self {
            lock_timeout: config.partition_lock_timeout,
            move_rows_max: config.partition_move_rows_max,
            check_timeout: config.partition_check_timeout,
            delete_rows: config.delete_chunk_rows,
        }
    }
}

impl Options {
    fn lock_ms(&self) -> i32 {
        i32::try_from(self.lock_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// The wait for a lock and what is done while it is held.
    fn limit(&self) -> Duration {
        self.lock_timeout * 2
    }
}

/// Makes the partitions from two days ago up to `ahead_days` from today, by the database's clock.
pub async fn make(db: &Db, ahead_days: u32, options: Options) -> Result<Round, Error> {
    let ahead = int(ahead_days);
    let missing: Vec<(String, NaiveDate)> = db
        .maintain(MISSING, move |c| Box::pin(MISSING.query_as().bind(ahead).bind(tables()).fetch_all(c)))
        .await?;
    let mut round = Round::default();
    let mut busy = HashSet::new();
    for (parent, day) in missing {
        // behind a lock that is held, the next day's would wait as long, and everybody behind it once more
        if busy.contains(&parent) {
            round.busy += 1;
            continue;
        }
        let mut said = make_one(db, &parent, day, options).await?;
        if said == "long" {
            said = exclude(db, &parent, day, options).await?;
            if said == "done" {
                said = make_one(db, &parent, day, options).await?;
            }
        }
        match said.as_str() {
            "made" => round.done += 1,
            "busy" => {
                round.busy += 1;
                busy.insert(parent);
            }
            "exists" => {}
            why => {
                tracing::debug!(parent, %day, why, "a day has no partition; its rows go to the DEFAULT one");
            }
        }
    }
    Ok(round)
}

/// Makes the partition of a day of the past, if there is none.
pub(crate) async fn make_day(db: &Db, kind: Kind, day: NaiveDate, options: Options) -> Result<(), Error> {
    make_one(db, kind.table(), day, options).await.map(drop)
}

async fn make_one(db: &Db, parent: &str, day: NaiveDate, options: Options) -> Result<String, Error> {
    let (parent, rows_max, lock_ms) = (parent.to_owned(), int(options.move_rows_max), options.lock_ms());
    db.maintain_within(MAKE, options.limit(), move |c| {
        let query = MAKE.query_scalar().bind(parent).bind(day).bind(rows_max).bind(lock_ms);
        Box::pin(query.fetch_one(c))
    })
    .await
}

/// Proves that the DEFAULT partition holds no row of a day to come, without a lock that stops anybody.
async fn exclude(db: &Db, parent: &str, day: NaiveDate, options: Options) -> Result<String, Error> {
    let (name, lock_ms) = (parent.to_owned(), options.lock_ms());
    let said: String = db
        .maintain_within(EXCLUDE, options.limit(), move |c| {
            Box::pin(EXCLUDE.query_scalar().bind(name).bind(day).bind(lock_ms).fetch_one(c))
        })
        .await?;
    if said != "done" {
        return Ok(said);
    }
    let name = parent.to_owned();
    db.maintain_within(CHECK_DEFAULT, options.check_timeout, move |c| {
        Box::pin(CHECK_DEFAULT.query_scalar().bind(name).bind(day).bind(lock_ms).fetch_one(c))
    })
    .await
}

/// Notes that what is older than `keep_days` (1 at least), by the database's clock, is deleted from now on.
pub async fn note_retention(db: &Db, keep_days: u32) -> Result<(), Error> {
    let query = NOTE.query().bind(int(keep_days));
    db.maintain(NOTE, move |c| Box::pin(async move { query.execute(c).await.map(drop) })).await
}

/// Drops the partitions whose last hour is older than `keep_days` (1 at least), by the database's clock, and never one
/// whose day is not over there.
pub async fn drop_old(db: &Db, keep_days: u32, options: Options) -> Result<Round, Error> {
    let keep = int(keep_days);
    let old: Vec<(String, String)> =
        db.maintain(OLD, move |c| Box::pin(OLD.query_as().bind(keep).bind(tables()).fetch_all(c))).await?;
    let mut round = Round::default();
    let mut busy = HashSet::new();
    for (parent, name) in old {
        if busy.contains(&parent) {
            round.busy += 1;
            continue;
        }
        let lock_ms = options.lock_ms();
        let said: String = db
            .maintain_within(DROP, options.limit(), move |c| {
                Box::pin(DROP.query_scalar().bind(name).bind(keep).bind(lock_ms).fetch_one(c))
            })
            .await?;
        match said.as_str() {
            "gone" => round.done += 1,
            "busy" => {
                round.busy += 1;
                busy.insert(parent);
            }
            _ => {} // another node was faster
        }
    }
    Ok(round)
}

/// Gives the clicks of the newest day that is over for `hours` and has none an index by campaign and time; says which day. It keeps
/// nobody from reading or writing, and so needs a session: not through PgBouncer in transaction mode.
pub async fn index_closed_day(db: &Db, hours: u32, limit: Duration) -> Result<Option<String>, Error> {
    let hours = int(hours);
    let days: Vec<String> = db
        .read_primary(UNINDEXED, move |c| Box::pin(UNINDEXED.query_scalar().bind(hours).fetch_all(c)))
        .await?;
    let Some(name) = days.into_iter().next().filter(|_| db.direct().is_session()) else { return Ok(None) };
    let mut session = db.direct().connect().await?;
    let indexing = async {
        let limit_ms = limit.as_millis().to_string();
        let (is_ours, _): (bool, String) =
            LOCK_INDEXING.query_as().bind(limit_ms).fetch_one(&mut session).await?;
        if !is_ours {
            return Ok(false);
        }
        // the name is of the list above: a word and eight digits
        for sql in [
            format!("DROP INDEX CONCURRENTLY IF EXISTS {name}_campaign_id_created_at"),
            format!(
                "CREATE INDEX CONCURRENTLY {name}_campaign_id_created_at ON {name} (campaign_id, created_at)"
            ),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *session).await?;
        }
        Ok(true)
    };
    let indexed = timeout(limit, indexing).await.unwrap_or_else(|_| Err(timed_out()));
    let indexed = indexed.map_err(|error| classify(UNINDEXED.name(), error))?;
    let _ = session.close().await;
    Ok(indexed.then_some(name))
}

/// Deletes what is older than `keep_days` (1 at least) outside the day partitions: rows of the DEFAULT ones, keys of
/// events and out-clicks, dead letters. A chunk a transaction: it holds no lock for long, and goes on where it was cut off.
pub async fn delete_old(db: &Db, keep_days: u32, options: Options) -> Result<u64, Error> {
    let rows = i64::from(options.delete_rows);
    let mut deleted = 0;
    loop {
        let mut most = 0;
        let others = [
            DELETE_EVENT_KEYS,
            DELETE_OUT_CLICK_KEYS,
            DELETE_OUT_CLICK_LEGS,
            DELETE_CONVERSION_CLICKS,
            DELETE_CONVERSIONS,
            DELETE_CONVERSION_CHANGES,
            DELETE_DELIVERIES,
            DELETE_DELIVERY_ATTEMPTS,
            DELETE_DEAD_LETTERS,
        ];
        for statement in Kind::ALL.map(delete_old_of).into_iter().chain(others) {
            let query = statement.query().bind(int(keep_days)).bind(rows);
            let chunk = db
                .maintain(statement, move |c| {
                    Box::pin(async move { Ok(query.execute(c).await?.rows_affected()) })
                })
                .await?;
            most = most.max(chunk);
            deleted += chunk;
        }
        if most < u64::from(options.delete_rows) {
            return Ok(deleted);
        }
    }
}

/// Rows in the DEFAULT partition of each kind.
pub async fn default_rows(db: &Db) -> Result<Vec<(Kind, u64)>, Error> {
    let rows: Vec<i64> =
        db.read(DEFAULT_ROWS, move |c| Box::pin(DEFAULT_ROWS.query_scalar().fetch_one(c))).await?;
    Ok(Kind::PARTITIONED
        .into_iter()
        .zip(rows.into_iter().map(|rows| u64::try_from(rows).unwrap_or(0)))
        .collect())
}

/// The tables that have a partition for each day.
fn tables() -> Vec<&'static str> {
    Kind::PARTITIONED.map(Kind::table).into()
}

/// What deletes old rows outside the day partitions.
fn delete_old_of(kind: Kind) -> Statement {
    match kind {
        Kind::Click => DELETE_CLICKS,
        Kind::Event => DELETE_EVENTS,
        Kind::OutClick => DELETE_OUT_CLICKS,
        Kind::Postback => DELETE_POSTBACKS,
    }
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
