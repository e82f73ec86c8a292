//! Day partitions of `clicks` and `events`: made ahead, dropped when retention says so.

use chrono::{DateTime, Utc};

use super::{Db, Error};

/// Every statement of this module.
pub const STATEMENTS: &[(&str, &str)] =
    &[("partitions.make", MAKE), ("partitions.drop", DROP), ("partitions.default_rows", DEFAULT_ROWS)];

// One node at a time: two that create the same table fail on the catalogue's own keys, and both statements look
// again behind the lock (a function's statements see what was committed meanwhile).
const MAKE: &str = "
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(1868788848))
SELECT octo_make_partitions($1) FROM locked";
const DROP: &str = "
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(1868788848))
SELECT octo_drop_partitions($1) FROM locked";
const DEFAULT_ROWS: &str =
    "SELECT (SELECT count(*) FROM clicks_default), (SELECT count(*) FROM events_default)";

/// Makes the partitions up to `ahead_days` from today; returns how many.
pub async fn make(db: &Db, ahead_days: u32) -> Result<i32, Error> {
    let ahead = i32::try_from(ahead_days).unwrap_or(i32::MAX);
    db.maintain("partitions.make", move |c| Box::pin(super::query_scalar(MAKE).bind(ahead).fetch_one(c)))
        .await
}

/// Drops what is wholly older than `cutoff`; returns how many partitions.
pub async fn drop_before(db: &Db, cutoff: DateTime<Utc>) -> Result<i32, Error> {
    db.maintain("partitions.drop", move |c| Box::pin(super::query_scalar(DROP).bind(cutoff).fetch_one(c)))
        .await
}

/// Rows in the DEFAULT partitions of clicks and events.
pub async fn default_rows(db: &Db) -> Result<(i64, i64), Error> {
    db.read("partitions.default_rows", move |c| Box::pin(super::query_as(DEFAULT_ROWS).fetch_one(c))).await
}
