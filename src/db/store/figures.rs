//! The sums of reports: deltas added to them, days counted anew from their facts, and both compared.

use std::time::Duration;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Db, Error, monitor, statement::statements};

statements! {
    FOLD = "figures.fold": "SELECT octo_fold_deltas($1)";

    CLOSE_DAY = "figures.close_day": "SELECT octo_close_day($1)";

    RECOUNT = "figures.recount": "SELECT octo_recount_day($1)";

    COUNT_PENDING = "figures.count_pending": "SELECT count(*) FROM report_deltas";

    // The newest first: they are looked at most.
    LIST_RECOUNTS = "figures.list_recounts": "
    SELECT day
    FROM report_recounts
    WHERE counted_at IS NULL
    ORDER BY day DESC";

    ASK_RECOUNT = "figures.ask_recount": "
    INSERT INTO report_recounts (day)
    SELECT day::date
    FROM generate_series($1::date, $2::date - 1, '1 day') AS day
    ON CONFLICT (day) DO UPDATE SET
        asked_at = now(),
        counted_at = NULL";

    // In a transaction before that which counts: what changes meanwhile is noted there.
    NOTE_VALUE_DAYS = "figures.note_value_days": "
    INSERT INTO report_value_days (day)
    SELECT DISTINCT day
    FROM report_dimensions
    WHERE dimension = 'campaign'
      AND time_kind = 0
      AND clicks > 0
      AND (day + 1)::timestamp AT TIME ZONE 'UTC' < now() - $1::float8 * interval '1 second'
    ON CONFLICT DO NOTHING";

    // The newest first: they are looked at most.
    NEXT_VALUE_DAY = "figures.next_value_day": "
    SELECT day
    FROM report_value_days d
    WHERE NOT is_current
      AND (counted_at IS NULL OR counted_at < now() - $1::float8 * interval '1 second')
      AND NOT octo_is_lost(day)
      AND NOT EXISTS (
          SELECT
          FROM report_recounts r
          WHERE r.day = d.day
            AND r.counted_at IS NULL
      )
    ORDER BY day DESC
    LIMIT 1";

    COUNT_VALUES = "figures.count_values": "SELECT octo_count_values($1, $2)";

    LOST_DAYS = "figures.lost_days": "
    SELECT day::date
    FROM generate_series($1::date, $2::date - 1, '1 day') AS day
    WHERE octo_is_lost(day::date)
    ORDER BY day";

    COMPARE = "figures.compare": "
    SELECT
        kept_by,
        day,
        campaign_id,
        differing,
        clicks,
        valid_clicks,
        bot_clicks,
        unique_clicks,
        lander_views,
        lander_clicks,
        offer_clicks,
        costed_clicks,
        cost,
        conversions,
        amount
    FROM octo_compare_figures($1, $2)
    LIMIT $3";
}

/// By how much the sums of a day and campaign have more than its facts.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
#[expect(missing_docs, reason = "the sums of reports, by their names")]
pub struct Difference {
    /// Which sums: `hours`, `days`, `parts`, `dimensions`, or of all campaigns together `overall` or `traffic`.
    pub kept_by: String,
    /// The day (UTC).
    pub day: NaiveDate,
    /// The campaign; `None`: all of them.
    pub campaign_id: Option<Uuid>,
    /// Rows of them that are not what the facts are.
    pub differing: i64,
    pub clicks: Decimal,
    pub valid_clicks: Decimal,
    pub bot_clicks: Decimal,
    pub unique_clicks: Decimal,
    pub lander_views: Decimal,
    pub lander_clicks: Decimal,
    pub offer_clicks: Decimal,
    pub costed_clicks: Decimal,
    pub cost: Decimal,
    pub conversions: Decimal,
    pub amount: Decimal,
}

impl Difference {
    /// What is not the same, by its name: by how much it is more than it should be.
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, Decimal)> {
        let sums = [
            ("clicks", self.clicks),
            ("valid_clicks", self.valid_clicks),
            ("bot_clicks", self.bot_clicks),
            ("unique_clicks", self.unique_clicks),
            ("lander_views", self.lander_views),
            ("lander_clicks", self.lander_clicks),
            ("offer_clicks", self.offer_clicks),
            ("costed_clicks", self.costed_clicks),
            ("cost", self.cost),
            ("conversions", self.conversions),
            ("amount", self.amount),
        ];
        sums.into_iter().filter(|(_, more)| !more.is_zero())
    }
}

/// Adds up to `rows_max` deltas to the sums; says how many that were. `None`: another node is about it.
pub async fn fold(db: &Db, rows_max: i32, limit: Duration) -> Result<Option<u64>, Error> {
    let folded = db
        .maintain_repeatable(FOLD, limit, move |c| Box::pin(FOLD.query_scalar().bind(rows_max).fetch_one(c)));
    unless_busy(folded.await)
}

/// Adds up the hours of the next day (UTC) before another that is not closed; says how many days that were: one or none.
/// `None`: another node is about it.
pub async fn close_day(db: &Db, before: NaiveDate, limit: Duration) -> Result<Option<u64>, Error> {
    let closed = db.maintain_repeatable(CLOSE_DAY, limit, move |c| {
        Box::pin(CLOSE_DAY.query_scalar().bind(before).fetch_one(c))
    });
    unless_busy(closed.await)
}

/// Counts the sums of a day (UTC) from its facts; says how many those are. `None`: another node is about it.
pub async fn recount(db: &Db, day: NaiveDate, limit: Duration) -> Result<Option<u64>, Error> {
    let counted = db.maintain_repeatable(RECOUNT, limit, move |c| {
        Box::pin(RECOUNT.query_scalar().bind(day).fetch_one(c))
    });
    unless_busy(counted.await)
}

/// Notes the days (UTC) that have been over for `interval`, for their top values to be counted.
pub async fn note_value_days(db: &Db, interval: Duration) -> Result<(), Error> {
    let query = NOTE_VALUE_DAYS.query().bind(interval.as_secs_f64());
    db.maintain(NOTE_VALUE_DAYS, move |c| Box::pin(async move { query.execute(c).await.map(drop) })).await
}

/// The day (UTC) whose top values are to be counted next: none that was counted within `interval`.
pub async fn next_value_day(db: &Db, interval: Duration) -> Result<Option<NaiveDate>, Error> {
    let query = NEXT_VALUE_DAY.query_scalar().bind(interval.as_secs_f64());
    let days: Vec<NaiveDate> = db.maintain(NEXT_VALUE_DAY, move |c| Box::pin(query.fetch_all(c))).await?;
    Ok(days.first().copied())
}

/// Counts the top values of a day (UTC) from its facts; says how many rows those are. `None`: another node is about it.
pub async fn count_values(
    db: &Db,
    day: NaiveDate,
    values_max: i32,
    limit: Duration,
) -> Result<Option<u64>, Error> {
    let counted = db.maintain_within(COUNT_VALUES, limit, move |c| {
        Box::pin(COUNT_VALUES.query_scalar().bind(day).bind(values_max).fetch_one(c))
    });
    unless_busy(counted.await)
}

/// -1: another node holds the lock; and whoever waited for it too short a time sees what that node changed: later, then.
fn unless_busy(done: Result<i64, Error>) -> Result<Option<u64>, Error> {
    match done {
        Ok(rows) => Ok(u64::try_from(rows).ok()),
        // 40001: serialization_failure
        Err(error) if monitor::has_code(&error, "40001") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deltas that are not added to the sums yet.
pub async fn count_pending(db: &Db) -> Result<i64, Error> {
    db.read_primary(COUNT_PENDING, move |c| Box::pin(COUNT_PENDING.query_scalar().fetch_one(c))).await
}

/// Days (UTC) that wait to be counted from their facts, the newest first.
pub async fn list_recounts(db: &Db) -> Result<Vec<NaiveDate>, Error> {
    db.read_primary(LIST_RECOUNTS, move |c| Box::pin(LIST_RECOUNTS.query_scalar().fetch_all(c))).await
}

/// Asks for the days (UTC) from `from` until before `to` to be counted from their facts; says how many those are.
pub async fn ask_recount(db: &Db, from: NaiveDate, to: NaiveDate) -> Result<u64, Error> {
    db.write(ASK_RECOUNT, move |c| {
        Box::pin(async move { Ok(ASK_RECOUNT.query().bind(from).bind(to).execute(c).await?.rows_affected()) })
    })
    .await
}

/// The days (UTC) from `from` until before `to` of which retention has deleted facts: they cannot be counted from them.
pub async fn lost_days(db: &Db, from: NaiveDate, to: NaiveDate) -> Result<Vec<NaiveDate>, Error> {
    db.read_primary(LOST_DAYS, move |c| Box::pin(LOST_DAYS.query_scalar().bind(from).bind(to).fetch_all(c)))
        .await
}

/// Where the sums of the days (UTC) from `from` until before `to` are not what their facts are, in one snapshot; at most `limit`
/// rows. None: everything adds up.
pub async fn compare(
    db: &Db,
    from: NaiveDate,
    to: NaiveDate,
    limit: i64,
    time_max: Duration,
) -> Result<Vec<Difference>, Error> {
    db.read_snapshot(COMPARE, time_max, move |c| {
        Box::pin(COMPARE.query_as().bind(from).bind(to).bind(limit).fetch_all(c))
    })
    .await
}
