//! Exports: what is asked for, who makes it, and how far it is. Times are the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use crate::db::{Db, Error, statement::statements};

macro_rules! columns {
    () => {
        "
        id,
        what,
        question,
        format,
        state,
        node,
        attempts,
        rows,
        rows_expected,
        bytes,
        error,
        created_at,
        finished_at,
        expires_at"
    };
}

statements! {
    // The same that waits or is being made is the same export. Where there are too many there is no new one.
    INSERT = "report_exports.insert": concat!("
    WITH same AS (
        SELECT *
        FROM report_exports
        WHERE what = $2
          AND question = $3
          AND format = $4
          AND state IN ('queued', 'running')
        ORDER BY created_at
        LIMIT 1
    ), fresh AS (
        INSERT INTO report_exports (
            id,
            what,
            question,
            format,
            expires_at
        )
        SELECT
            $1,
            $2::text,
            $3::jsonb,
            $4::text,
            now() + $5::bigint * interval '1 second'
        WHERE NOT EXISTS (SELECT FROM same)
          AND (SELECT count(*) FROM report_exports WHERE expires_at > now()) < $6
        RETURNING *
    )
    SELECT", columns!(), "
    FROM same
    UNION ALL
    SELECT", columns!(), "
    FROM fresh");

    GET = "report_exports.get": concat!("
    SELECT", columns!(), "
    FROM report_exports
    WHERE id = $1
      AND expires_at > now()");

    DELETE = "report_exports.delete": "
    DELETE FROM report_exports
    WHERE id = $1";

    CLAIM = "report_exports.claim": concat!("
    UPDATE report_exports
    SET state = CASE WHEN attempts < $3::integer THEN 'running' ELSE 'failed' END,
        error = CASE WHEN attempts < $3 THEN NULL ELSE 'It was begun ' || attempts || ' times and never ended.' END,
        finished_at = CASE WHEN attempts < $3 THEN NULL ELSE now() END,
        node = $1::text,
        attempts = attempts + 1,
        rows = 0,
        rows_expected = NULL,
        bytes = 0,
        lease_until = now() + $2::bigint * interval '1 millisecond'
    WHERE id = (
        SELECT id
        FROM report_exports
        WHERE state IN ('queued', 'running')
          AND (lease_until IS NULL OR lease_until < now())
          AND expires_at > now()
        ORDER BY created_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING", columns!());

    // Whoever has lost the lease, or whose export was deleted, is told by no row.
    RENEW = "report_exports.renew": "
    UPDATE report_exports
    SET rows = $3,
        rows_expected = coalesce($4, rows_expected),
        bytes = $5,
        lease_until = now() + $6::bigint * interval '1 millisecond'
    WHERE id = $1
      AND attempts = $2
      AND state = 'running'";

    FINISH = "report_exports.finish": "
    UPDATE report_exports
    SET state = CASE WHEN $3::text IS NULL THEN 'done' ELSE 'failed' END,
        error = $3,
        rows = $4,
        bytes = $5,
        finished_at = now(),
        expires_at = now() + $6::bigint * interval '1 second'
    WHERE id = $1
      AND attempts = $2
      AND state = 'running'";

    // Back to whoever takes it next, at once.
    HAND_OVER = "report_exports.hand_over": "
    UPDATE report_exports
    SET state = 'queued',
        attempts = attempts - 1,
        lease_until = NULL
    WHERE id = $1
      AND attempts = $2
      AND state = 'running'";

    DELETE_EXPIRED = "report_exports.delete_expired": "
    DELETE FROM report_exports
    WHERE expires_at <= now()
      AND (state <> 'running' OR lease_until < now())";

    LIST_IDS = "report_exports.list_ids": "
    SELECT id
    FROM report_exports";
}

/// An export.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Export {
    /// Ours.
    pub id: Uuid,
    /// `report` or `facts`.
    pub what: String,
    /// As the API takes it, with times that stay as they are.
    pub question: Json<Value>,
    /// `csv` or `ndjson`.
    pub format: String,
    /// `queued`, `running`, `done` or `failed`.
    pub state: String,
    /// The machine that makes it and has its file.
    pub node: Option<String>,
    /// How often it was begun; names the lease.
    pub attempts: i32,
    /// Rows written so far.
    pub rows: i64,
    /// About so many there will be; `None`: it is not known yet.
    pub rows_expected: Option<i64>,
    /// Bytes written so far.
    pub bytes: i64,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was done, or failed.
    pub finished_at: Option<DateTime<Utc>>,
    /// When it is deleted.
    pub expires_at: DateTime<Utc>,
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows written.
    pub rows: i64,
    /// About so many there will be, where it is known.
    pub rows_expected: Option<i64>,
    /// Bytes written.
    pub bytes: i64,
}

/// Asks for an export, kept for `keep`; gives the one that is there already where the same is under way. `None`: there are
/// `most` already.
pub async fn insert(
    db: &Db,
    id: Uuid,
    (what, question, format): (&'static str, Value, &'static str),
    keep: Duration,
    most: usize,
) -> Result<Option<Export>, Error> {
    db.write(INSERT, move |c| {
        let query = INSERT
            .query_as()
            .bind(id)
            .bind(what)
            .bind(Json(question))
            .bind(format)
            .bind(seconds(keep))
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        Box::pin(query.fetch_optional(c))
    })
    .await
}

/// One that has not expired; as it is, not as a replica knows it.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<Export>, Error> {
    db.read_primary(GET, move |c| Box::pin(GET.query_as().bind(id).fetch_optional(c))).await
}

/// Deletes one; says whether there was one.
pub async fn delete(db: &Db, id: Uuid) -> Result<bool, Error> {
    db.write(DELETE, move |c| {
        Box::pin(async move { Ok(DELETE.query().bind(id).execute(c).await?.rows_affected() > 0) })
    })
    .await
}

/// Takes the next one that is to be made, for as long as `lease`. One that was begun more than `attempts_max` times comes back as
/// failed.
pub async fn claim(
    db: &Db,
    node: String,
    lease: Duration,
    attempts_max: u32,
) -> Result<Option<Export>, Error> {
    let most = i32::try_from(attempts_max).unwrap_or(i32::MAX);
    db.write(CLAIM, move |c| {
        Box::pin(CLAIM.query_as().bind(node).bind(millis(lease)).bind(most).fetch_optional(c))
    })
    .await
}

/// Says how far it is and keeps the lease; false: it is not ours any more.
pub async fn renew(db: &Db, export: &Export, progress: Progress, lease: Duration) -> Result<bool, Error> {
    let (id, attempt) = (export.id, export.attempts);
    db.write(RENEW, move |c| {
        Box::pin(async move {
            let query = RENEW
                .query()
                .bind(id)
                .bind(attempt)
                .bind(progress.rows)
                .bind(progress.rows_expected)
                .bind(progress.bytes)
                .bind(millis(lease));
            Ok(query.execute(c).await?.rows_affected() > 0)
        })
    })
    .await
}

/// It is done, or failed for this reason; false: it is not ours any more.
pub async fn finish(
    db: &Db,
    export: &Export,
    progress: Progress,
    error: Option<String>,
    keep: Duration,
) -> Result<bool, Error> {
    let (id, attempt) = (export.id, export.attempts);
    db.write(FINISH, move |c| {
        Box::pin(async move {
            let query = FINISH
                .query()
                .bind(id)
                .bind(attempt)
                .bind(error)
                .bind(progress.rows)
                .bind(progress.bytes)
                .bind(seconds(keep));
            Ok(query.execute(c).await?.rows_affected() > 0)
        })
    })
    .await
}

/// Another node may make it at once: this one stops.
pub async fn hand_over(db: &Db, export: &Export) -> Result<(), Error> {
    let (id, attempt) = (export.id, export.attempts);
    db.write(HAND_OVER, move |c| {
        Box::pin(async move { HAND_OVER.query().bind(id).bind(attempt).execute(c).await.map(drop) })
    })
    .await
}

/// Deletes what has expired.
pub async fn delete_expired(db: &Db) -> Result<(), Error> {
    db.write(DELETE_EXPIRED, move |c| {
        Box::pin(async move { DELETE_EXPIRED.query().execute(c).await.map(drop) })
    })
    .await
}

/// The ids of all there are.
pub async fn list_ids(db: &Db) -> Result<Vec<Uuid>, Error> {
    db.read_primary(LIST_IDS, move |c| Box::pin(LIST_IDS.query_scalar().fetch_all(c))).await
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
