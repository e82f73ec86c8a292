//! What is to be known beside figures: how far each journal is stored, and which postbacks tell of nothing yet.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::{Db, Error, statement::statements};

/// Watermarks that are shown at most.
const WATERMARKS_MAX: i64 = 100;

statements! {
    WATERMARKS = "report_notes.watermarks": "
    SELECT
        stream,
        seq,
        updated_at
    FROM ingest_watermark
    ORDER BY updated_at DESC, stream
    LIMIT $1";

    // By the partial indexes of what is open: few, however many postbacks there are.
    COUNT_OPEN = "report_notes.count_open": "
    SELECT
        (
            SELECT count(*)
            FROM postbacks
            WHERE reason = 'unmapped'
              AND created_at >= $1
              AND created_at < $2
        ) AS unmapped,
        count(*) FILTER (WHERE p.outcome = 'orphan') AS orphan,
        count(*) FILTER (WHERE p.outcome = 'waiting') AS waiting
    FROM conversion_clicks k
    JOIN postbacks p ON p.click_id = k.click_id
    WHERE k.state <> 'stored'
      AND k.first_at < $2
      AND p.created_at >= $1
      AND p.created_at < $2
      AND p.outcome IN ('orphan', 'waiting')";
}

/// How far a journal is stored.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Watermark {
    /// The journal: one start of a node.
    pub stream: Uuid,
    /// Everything up to this record of it is stored.
    pub seq: i64,
    /// When that moved last.
    pub updated_at: DateTime<Utc>,
}

/// Postbacks of a time that make no conversion, of all campaigns: what names no click that is known has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
pub struct Open {
    /// With a word for their state that nobody mapped.
    pub unmapped: i64,
    /// Whose click never came.
    pub orphan: i64,
    /// Whose click may still come.
    pub waiting: i64,
}

/// How far the journals are stored, at most a hundred, those that moved last first.
pub async fn watermarks(db: &Db) -> Result<Vec<Watermark>, Error> {
    db.read(WATERMARKS, move |c| Box::pin(WATERMARKS.query_as().bind(WATERMARKS_MAX).fetch_all(c))).await
}

/// What came from `from` until before `to` and makes no conversion.
pub async fn count_open(db: &Db, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Open, Error> {
    db.read(COUNT_OPEN, move |c| Box::pin(COUNT_OPEN.query_as().bind(from).bind(to).fetch_one(c))).await
}
