//! Erasures: noted, so that no record that is still in a journal comes back; and carried out on what is stored.
//!
//! Figures are not touched: a count is of nobody. What they have and the facts have not any more is noted with them
//! (`report_gone`), so that they still add up. Nor are the keys of events (`event_keys`), which say that an id was
//! used and nothing of whom.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{Db, Error, session::Session, statement::statements},
    facts::erasure::{Erasure, Sub, What},
    model::id::time_of_uuid,
};

statements! {
    LOCK = "erasures.lock": "SELECT octo_lock_for_erasure()";

    INSERT = "erasures.insert": "
    INSERT INTO erasures (click_id, sub_hash, created_at)
    SELECT click_id, sub_hash, coalesce($3, clock_timestamp())
    FROM unnest($1::uuid[], $2::bytea[]) AS t (click_id, sub_hash)
    RETURNING created_at";

    SINCE = "erasures.since": "
    SELECT
        id,
        click_id,
        sub_hash,
        created_at
    FROM erasures
    WHERE id > $1
    ORDER BY id";

    /// One row at least.
    WATCH = "erasures.watch": "
    SELECT
        pg_postmaster_start_time() AS server,
        fresh.*
    FROM (SELECT 1) AS one
    LEFT JOIN (
        SELECT
            id,
            click_id,
            sub_hash,
            created_at
        FROM erasures
        WHERE id > $1
    ) AS fresh ON true
    ORDER BY fresh.id";

    // no index leads there: it is asked for once in a while, and every index costs a third of the drain's speed
    FIND_CLICKS = "erasures.find_clicks": "
    SELECT id
    FROM clicks
    WHERE created_at < $3
      AND $2 = CASE $1
          WHEN 'sub1' THEN sub1
          WHEN 'sub2' THEN sub2
          WHEN 'sub3' THEN sub3
          WHEN 'sub4' THEN sub4
          WHEN 'sub5' THEN sub5
          WHEN 'aff_sub' THEN affiliate_sub
          WHEN 'aff_sub2' THEN affiliate_sub2
          WHEN 'aff_sub3' THEN affiliate_sub3
          WHEN 'aff_sub4' THEN affiliate_sub4
          WHEN 'aff_sub5' THEN affiliate_sub5
          WHEN 'click_id' THEN click_id_param
      END";

    DELETE_CLICKS = "erasures.delete_clicks": "
    DELETE FROM clicks
    USING unnest($1::uuid[], $2::timestamptz[]) AS t (id, at)
    WHERE clicks.created_at = t.at
      AND clicks.id = t.id";

    // In a statement before that which deletes, of the same transaction.
    NOTE_GONE = "erasures.note_gone": "SELECT octo_note_gone($1, $2, $3)";

    // What their links said, likewise: the days are counted again.
    FORGET_VALUES = "erasures.forget_values": "
    WITH days AS (
        SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day
        FROM unnest($1::timestamptz[]) AS at
    ), changed AS (
        UPDATE report_value_days d
        SET changes = d.changes + 1,
            counted_at = NULL,
            is_current = false
        FROM days
        WHERE d.day = days.day
    )
    DELETE FROM report_values v
    USING days
    WHERE v.day = days.day";

    DELETE_EVENTS = "erasures.delete_events": "
    DELETE FROM events
    WHERE click_id = ANY ($1)
      AND created_at < $2";

    DELETE_OUT_CLICKS = "erasures.delete_out_clicks": "
    DELETE FROM out_clicks
    WHERE click_id = ANY ($1)
      AND created_at < $2";

    DELETE_OUT_CLICK_KEYS = "erasures.delete_out_click_keys":
        "DELETE FROM out_click_keys WHERE click_id = ANY ($1)";

    DELETE_OUT_CLICK_LEGS = "erasures.delete_out_click_legs":
        "DELETE FROM out_click_legs WHERE click_id = ANY ($1)";

    DELETE_POSTBACKS = "erasures.delete_postbacks": "
    WITH conversion AS (
        DELETE FROM conversions WHERE click_id = ANY ($1)
    ), book AS (
        DELETE FROM conversion_changes WHERE click_id = ANY ($1)
    ), keys AS (
        DELETE FROM conversion_clicks WHERE click_id = ANY ($1)
    ), outbox AS (
        DELETE FROM deliveries WHERE click_id = ANY ($1) RETURNING id
    ), attempts AS (
        DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM outbox)
    )
    DELETE FROM postbacks
    WHERE click_id = ANY ($1)
      AND created_at < $2";

    // no index leads there, as for clicks
    DELETE_EVENTS_OF_PERSON = "erasures.delete_events_of_person": "
    DELETE FROM events
    WHERE created_at < $3
      AND $2 = CASE $1
          WHEN 'user_id' THEN user_id
          WHEN 'session_id' THEN session_id
      END";

    LETTERS = "erasures.letters": "
    SELECT
        id,
        record
    FROM dead_letters
    WHERE id > $1
    ORDER BY id
    LIMIT $2";

    DELETE_LETTERS = "erasures.delete_letters": "DELETE FROM dead_letters WHERE id = ANY ($1)";

    FORGET = "erasures.forget":
        "DELETE FROM erasures WHERE created_at < now() - $1::integer * interval '1 day'";
}

/// A dead letter, as bytes.
#[derive(Debug, Clone, FromRow)]
pub struct Letter {
    /// Counts up as they come.
    pub id: i64,
    /// As it was in the journal.
    pub record: Vec<u8>,
}

/// A row of [`WATCH`].
#[derive(FromRow)]
struct WatchRow {
    server: DateTime<Utc>,
    id: Option<i64>,
    click_id: Option<Uuid>,
    sub_hash: Option<Vec<u8>>,
    created_at: Option<DateTime<Utc>>,
}

impl WatchRow {
    fn read(self) -> Option<Erasure> {
        let Self { id, click_id, sub_hash, created_at, .. } = self;
        Row { id: id?, click_id, sub_hash, created_at: created_at? }.read()
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    click_id: Option<Uuid>,
    sub_hash: Option<Vec<u8>>,
    created_at: DateTime<Utc>,
}

/// Notes erasures of what came before `before`, now if that is not given. When this returns, no transaction that did
/// not know of them will store anything.
pub async fn insert(
    db: &Db,
    whats: Vec<What>,
    before: Option<DateTime<Utc>>,
) -> Result<DateTime<Utc>, Error> {
    let ids: Vec<Option<Uuid>> = whats.iter().map(What::click_id).collect();
    let hashes: Vec<Option<Vec<u8>>> = whats.iter().map(|what| what.sub_hash().map(|h| h.to_vec())).collect();
    let noted: Vec<DateTime<Utc>> = db
        .maintain(INSERT, move |c| {
            Box::pin(async move {
                let mut transaction = c.begin().await?;
                LOCK.query().execute(&mut transaction).await?;
                let insert = INSERT.query_scalar().bind(ids).bind(hashes).bind(before);
                let noted = insert.fetch_all(&mut transaction).await?;
                transaction.commit().await?;
                Ok(noted)
            })
        })
        .await?;
    Ok(noted.first().copied().or(before).unwrap_or_else(Utc::now))
}

/// Erasures after (newer than) this one, and since when the server runs that says so: another one may have given the
/// same ids to other erasures.
pub async fn watch(db: &Db, id: i64) -> Result<(DateTime<Utc>, Vec<Erasure>), Error> {
    let rows: Vec<WatchRow> =
        db.read_primary(WATCH, move |c| Box::pin(WATCH.query_as().bind(id).fetch_all(c))).await?;
    let server = rows.first().map(|row| row.server).unwrap_or_default(); // one row at least
    Ok((server, rows.into_iter().filter_map(WatchRow::read).collect()))
}

/// Erasures after (newer than) this one, within the caller's transaction.
pub(crate) async fn since_on(c: &mut Session<'_>, id: i64) -> sqlx::Result<Vec<Erasure>> {
    let rows: Vec<Row> = SINCE.query_as().bind(id).fetch_all(c).await?;
    Ok(rows.into_iter().filter_map(Row::read).collect())
}

/// Stored clicks, older than `before`, whose link said this.
pub async fn find_clicks(db: &Db, sub: Sub, before: DateTime<Utc>) -> Result<Vec<Uuid>, Error> {
    db.maintain(FIND_CLICKS, move |c| {
        Box::pin(FIND_CLICKS.query_scalar().bind(sub.name).bind(sub.value).bind(before).fetch_all(c))
    })
    .await
}

/// Deletes stored clicks; returns how many there were.
pub async fn delete_clicks(db: &Db, ids: Vec<Uuid>) -> Result<u64, Error> {
    let times: Vec<DateTime<Utc>> = ids.iter().copied().map(time_of_uuid).collect();
    db.maintain(DELETE_CLICKS, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            note_gone(&mut transaction, &ids, "clicks").await?;
            FORGET_VALUES.query().bind(times.clone()).execute(&mut transaction).await?;
            let delete = DELETE_CLICKS.query().bind(ids).bind(times);
            let deleted = delete.execute(&mut transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(deleted)
        })
    })
    .await
}

/// Deletes the stored events of clicks that came before `before`; returns how many there were.
pub async fn delete_events(db: &Db, clicks: Vec<Uuid>, before: DateTime<Utc>) -> Result<u64, Error> {
    db.maintain(DELETE_EVENTS, move |c| {
        Box::pin(async move {
            Ok(DELETE_EVENTS.query().bind(clicks).bind(before).execute(c).await?.rows_affected())
        })
    })
    .await
}

/// Deletes the stored out-clicks of clicks that came before `before`, and that the clicks had any; returns how many
/// there were.
pub async fn delete_out_clicks(db: &Db, clicks: Vec<Uuid>, before: DateTime<Utc>) -> Result<u64, Error> {
    db.maintain(DELETE_OUT_CLICKS, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            let deleted = delete_out_clicks_on(&mut transaction, &clicks, before).await?;
            transaction.commit().await?;
            Ok(deleted)
        })
    })
    .await
}

/// Deletes the stored postbacks of clicks that came before `before`, and everything that was made of them; returns how many
/// postbacks there were.
pub async fn delete_postbacks(db: &Db, clicks: Vec<Uuid>, before: DateTime<Utc>) -> Result<u64, Error> {
    db.maintain(DELETE_POSTBACKS, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            let deleted = delete_postbacks_on(&mut transaction, &clicks, before).await?;
            transaction.commit().await?;
            Ok(deleted)
        })
    })
    .await
}

/// Deletes the postbacks of clicks and what was made of them, within the caller's transaction; what figures keep of it is noted.
async fn delete_postbacks_on(
    c: &mut Session<'_>,
    clicks: &[Uuid],
    before: DateTime<Utc>,
) -> sqlx::Result<u64> {
    note_gone(c, clicks, "conversions").await?;
    Ok(DELETE_POSTBACKS.query().bind(clicks).bind(before).execute(c).await?.rows_affected())
}

/// Notes what figures keep of `clicks`, of their `out_clicks`, or of their `conversions`, that is about to be deleted.
async fn note_gone(c: &mut Session<'_>, clicks: &[Uuid], what: &str) -> sqlx::Result<()> {
    let times: Vec<DateTime<Utc>> = clicks.iter().copied().map(time_of_uuid).collect();
    NOTE_GONE.query().bind(clicks).bind(times).bind(what).execute(c).await.map(drop)
}

/// Deletes the stored events that name this user or session and came before `before`; returns how many there were.
pub async fn delete_events_of_person(db: &Db, sub: Sub, before: DateTime<Utc>) -> Result<u64, Error> {
    db.maintain(DELETE_EVENTS_OF_PERSON, move |c| {
        Box::pin(async move {
            let delete = DELETE_EVENTS_OF_PERSON.query().bind(sub.name).bind(sub.value).bind(before);
            Ok(delete.execute(c).await?.rows_affected())
        })
    })
    .await
}

/// All that is stored of what followed these clicks, within the caller's transaction.
pub(crate) async fn delete_followers_on(c: &mut Session<'_>, clicks: &[Uuid]) -> sqlx::Result<()> {
    DELETE_EVENTS.query().bind(clicks).bind(crate::db::FAR_FUTURE).execute(c).await?;
    delete_postbacks_on(c, clicks, crate::db::FAR_FUTURE).await?;
    delete_out_clicks_on(c, clicks, crate::db::FAR_FUTURE).await.map(drop)
}

/// Deletes the out-clicks of clicks, within the caller's transaction; what figures keep of them is noted.
async fn delete_out_clicks_on(
    c: &mut Session<'_>,
    clicks: &[Uuid],
    before: DateTime<Utc>,
) -> sqlx::Result<u64> {
    note_gone(c, clicks, "out_clicks").await?;
    DELETE_OUT_CLICK_KEYS.query().bind(clicks).execute(c).await?;
    DELETE_OUT_CLICK_LEGS.query().bind(clicks).execute(c).await?;
    Ok(DELETE_OUT_CLICKS.query().bind(clicks).bind(before).execute(c).await?.rows_affected())
}

/// Dead letters, oldest first, after (newer than) `after`, at most `limit`.
pub async fn letters(db: &Db, after: i64, limit: i64) -> Result<Vec<Letter>, Error> {
    db.read_primary(LETTERS, move |c| Box::pin(LETTERS.query_as().bind(after).bind(limit).fetch_all(c))).await
}

/// Deletes dead letters; returns how many there were.
pub async fn delete_letters(db: &Db, ids: Vec<i64>) -> Result<u64, Error> {
    db.maintain(DELETE_LETTERS, move |c| {
        Box::pin(async move { Ok(DELETE_LETTERS.query().bind(ids).execute(c).await?.rows_affected()) })
    })
    .await
}

/// Forgets erasures that are older than so many days by the database's clock: no journal holds anything so old.
pub async fn forget_old(db: &Db, keep_days: u32) -> Result<u64, Error> {
    let keep = i32::try_from(keep_days).unwrap_or(i32::MAX);
    db.maintain(FORGET, move |c| {
        Box::pin(async move { Ok(FORGET.query().bind(keep).execute(c).await?.rows_affected()) })
    })
    .await
}

impl Row {
    fn read(self) -> Option<Erasure> {
        let what = match (self.click_id, self.sub_hash) {
            (Some(id), _) => What::Click(id),
            (None, hash) => What::Sub(hash?.try_into().ok()?),
        };
        Some(Erasure { id: self.id, what, before: self.created_at })
    }
}
