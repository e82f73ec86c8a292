//! Records that Postgres refused for what they hold: show them, try them again, forget them.
//!
//! The drain is who puts them here (see `db::ingest`). All of this asks the primary: who has just tried a letter
//! again wants to see what became of it.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{
        Db, Error,
        ingest::{self, MALFORMED, Rows, StoreError},
        session::Session,
        statement::statements,
        store::{clicks, events, out_clicks, postbacks},
    },
    facts::record::Record,
    metrics,
    model::text::hex,
};

/// Longest record that a list shows, in bytes; one alone is shown whole. It bounds a page.
const LISTED_BYTES_MAX: i32 = 16 * 1024;

/// `SELECT` of letters, with what is shown of the record and what follows.
macro_rules! select_letters {
    ($record:literal, $tail:literal) => {
        concat!(
            "
    SELECT
        id,
        stream,
        seq,
        sqlstate,
        message,
        created_at,
        octet_length(record) AS bytes,
        ",
            $record,
            " AS record
    FROM dead_letters",
            $tail
        )
    };
}

statements! {
    LIST = "dead_letter.list": select_letters!(
    "CASE WHEN octet_length(record) <= $4 THEN record END",
    "
    WHERE id < $1
      AND ($2::text IS NULL OR sqlstate = $2)
    ORDER BY id DESC
    LIMIT $3"
);

    GET = "dead_letter.get": select_letters!(
    "record",
    "
    WHERE stream = $1
      AND seq = $2"
);

    // oldest first, as they came: a click before the events that name it
    LIST_KEYS = "dead_letter.list_keys": "
    SELECT
        id,
        stream,
        seq
    FROM dead_letters
    WHERE id > $1
      AND ($2::text IS NULL OR sqlstate = $2)
    ORDER BY id
    LIMIT $3";

    // whoever comes second waits here, and then finds none
    TAKE = "dead_letter.retry": "
    SELECT record
    FROM dead_letters
    WHERE stream = $1
      AND seq = $2
    FOR UPDATE";

    HAS_CLICK = "dead_letter.has_click": "
    SELECT EXISTS (SELECT FROM clicks WHERE created_at = $1 AND id = $2)";

    HAS_EVENT = "dead_letter.has_event": "
    SELECT CASE
        WHEN $3::uuid IS NOT NULL THEN EXISTS (SELECT FROM event_keys WHERE id = $3)
        ELSE EXISTS (SELECT FROM events WHERE created_at = $1 AND id = $2)
    END";

    HAS_OUT_CLICK = "dead_letter.has_out_click": "
    SELECT EXISTS (SELECT FROM out_clicks WHERE created_at = $1 AND id = $2)";

    HAS_POSTBACK = "dead_letter.has_postback": "
    SELECT EXISTS (SELECT FROM postbacks WHERE created_at = $1 AND id = $2)";

    KEEP = "dead_letter.keep": "
    UPDATE dead_letters
    SET sqlstate = $3,
        message = $4
    WHERE stream = $1
      AND seq = $2";

    DELETE = "dead_letter.delete": "
    DELETE FROM dead_letters
    WHERE stream = $1
      AND seq = $2";
}

/// A record of the journal that is no row, and why.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Counts up as they come; the key of lists.
    pub id: i64,
    /// The journal's stream it came in.
    pub stream: Uuid,
    /// Its sequence in the stream.
    pub seq: i64,
    /// Why PostgreSQL refused it, or `malformed`.
    pub sqlstate: String,
    /// What PostgreSQL said.
    pub message: String,
    /// When it was refused first.
    pub created_at: DateTime<Utc>,
    /// Length of the record.
    pub bytes: i32,
    /// What it holds.
    pub record: Content,
}

/// What a dead letter holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// A click, as it would be stored.
    Click(Box<clicks::Click>),
    /// An event, as it would be stored; what it was told is text where it is no JSON.
    Event(Box<events::Event>),
    /// An out-click, as it would be stored.
    OutClick(Box<out_clicks::OutClick>),
    /// A postback.
    Postback(Box<postbacks::Postback>),
    /// Bytes that are no record, as hexadecimal digits.
    Hex(String),
    /// Too long for a list: ask for it alone.
    Omitted,
}

/// What became of a letter that was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// It is stored, and the letter is gone.
    Stored,
    /// It had been stored before, and the letter is gone.
    AlreadyStored,
    /// It was refused again: the letter stays and says why.
    Refused {
        /// SQLSTATE, or `malformed`.
        sqlstate: String,
        /// What was said.
        message: String,
    },
}

/// Where a letter is in the list of those to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Key {
    /// Counts up.
    pub id: i64,
    /// The journal's stream it came in.
    pub stream: Uuid,
    /// Its sequence in the stream.
    pub seq: i64,
}

/// Letters, newest first, after (older than) `after`, at most `limit`, of one SQLSTATE or of all.
pub async fn list(
    db: &Db,
    sqlstate: Option<String>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<DeadLetter>, Error> {
    let rows: Vec<Row> = db
        .write(LIST, move |c| {
            let query = LIST.query_as().bind(after.unwrap_or(i64::MAX)).bind(sqlstate);
            Box::pin(query.bind(limit).bind(LISTED_BYTES_MAX).fetch_all(c))
        })
        .await?;
    Ok(rows.into_iter().map(DeadLetter::from).collect())
}

/// One letter, whole.
pub async fn get(db: &Db, stream: Uuid, seq: i64) -> Result<Option<DeadLetter>, Error> {
    let row: Option<Row> = db
        .read_primary(GET, move |c| Box::pin(GET.query_as().bind(stream).bind(seq).fetch_optional(c)))
        .await?;
    Ok(row.map(DeadLetter::from))
}

/// Which letters there are, oldest first, after (newer than) `after`, at most `limit`, of one SQLSTATE or of all.
pub async fn list_keys(
    db: &Db,
    sqlstate: Option<String>,
    after: Option<i64>,
    limit: i64,
) -> Result<Vec<Key>, Error> {
    db.read_primary(LIST_KEYS, move |c| {
        let query = LIST_KEYS.query_as().bind(after.unwrap_or(0)).bind(sqlstate);
        Box::pin(query.bind(limit).fetch_all(c))
    })
    .await
}

/// Tries to store a letter's record, and lets go of the letter in the same transaction; `None`: there is no such
/// letter (any more).
pub async fn retry(db: &Db, stream: Uuid, seq: i64) -> Result<Option<Retried>, Error> {
    let retried = db.write(TAKE, move |c| Box::pin(retry_on(c, stream, seq))).await?;
    if let Some(retried) = &retried {
        metrics::dead_letter_retried(match retried {
            Retried::Stored => "stored",
            Retried::AlreadyStored => "already_stored",
            Retried::Refused { .. } => "refused",
        });
    }
    Ok(retried)
}

/// Forgets a letter and its record; `false` when there is none.
pub async fn delete(db: &Db, stream: Uuid, seq: i64) -> Result<bool, Error> {
    db.write(DELETE, move |c| {
        Box::pin(async move {
            let deleted = DELETE.query().bind(stream).bind(seq).execute(c).await?;
            Ok(deleted.rows_affected() > 0)
        })
    })
    .await
}

async fn retry_on(c: &mut Session<'_>, stream: Uuid, seq: i64) -> sqlx::Result<Option<Retried>> {
    let mut transaction = c.begin().await?;
    let taken = TAKE.query_scalar().bind(stream).bind(seq).fetch_optional(&mut transaction).await?;
    let Some(record): Option<Vec<u8>> = taken else {
        transaction.rollback().await?;
        return Ok(None);
    };
    let retried = match Record::decode(&record) {
        Ok(record) => store(&mut transaction, &record).await?,
        Err(malformed) => Retried::Refused { sqlstate: MALFORMED.to_owned(), message: malformed.to_string() },
    };
    let settled = match &retried {
        Retried::Stored | Retried::AlreadyStored => {
            let delete = DELETE.query().bind(stream).bind(seq);
            delete.execute(&mut transaction).await
        }
        Retried::Refused { sqlstate, message } => {
            let keep = KEEP.query().bind(stream).bind(seq).bind(sqlstate).bind(message);
            keep.execute(&mut transaction).await
        }
    };
    settled?;
    transaction.commit().await?;
    Ok(Some(retried))
}

async fn store(c: &mut Session<'_>, record: &Record<'_>) -> sqlx::Result<Retried> {
    let mut rows = Rows::default();
    rows.push(record);
    match is_stored(c, record).await {
        Ok(true) => Ok(Retried::AlreadyStored),
        Ok(false) => insert(c, &rows).await,
        // a time that Postgres cannot hold is in no row: the insert says what is wrong with it
        Err(error) if error.as_database_error().is_some() => insert(c, &rows).await,
        Err(error) => Err(error),
    }
}

/// Within a savepoint, as [`insert`]. What is gone needs to be stored no more.
async fn is_stored(c: &mut Session<'_>, record: &Record<'_>) -> sqlx::Result<bool> {
    let Some(fact) = record.fact() else { return Ok(true) };
    let (statement, key) = match record {
        Record::Event(event) => (HAS_EVENT, Some(event.key())),
        Record::OutClick(_) => (HAS_OUT_CLICK, None),
        Record::Postback(_) => (HAS_POSTBACK, None),
        Record::Click(_) | Record::Erased => (HAS_CLICK, None),
    };
    let mut query = statement.query_scalar().bind(fact.at()).bind(fact.id());
    if let Some(key) = key {
        query = query.bind(key);
    }
    let mut savepoint = c.begin().await?;
    let is_stored = query.fetch_one(&mut savepoint).await;
    savepoint.rollback().await?;
    is_stored
}

/// As the drain does it, within a savepoint: a refusal leaves the transaction and its lock on the letter as they were.
async fn insert(c: &mut Session<'_>, rows: &Rows<'_>) -> sqlx::Result<Retried> {
    let mut savepoint = c.begin().await?;
    match ingest::rows::insert_checked(&mut savepoint, rows).await {
        Ok(()) => {
            savepoint.commit().await?;
            Ok(Retried::Stored)
        }
        Err(StoreError::Refused { sqlstate, message }) => {
            savepoint.rollback().await?;
            Ok(Retried::Refused { sqlstate, message })
        }
        Err(StoreError::Unavailable(error)) => Err(error),
        Err(moved @ StoreError::Moved) => Err(sqlx::Error::Protocol(moved.to_string())), // there is no watermark here
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    stream: Uuid,
    seq: i64,
    sqlstate: String,
    message: String,
    created_at: DateTime<Utc>,
    bytes: i32,
    record: Option<Vec<u8>>,
}

impl From<Row> for DeadLetter {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            stream: row.stream,
            seq: row.seq,
            sqlstate: row.sqlstate,
            message: row.message,
            created_at: row.created_at,
            bytes: row.bytes,
            record: row.record.as_deref().map_or(Content::Omitted, content),
        }
    }
}

/// What a record holds.
pub fn content(record: &[u8]) -> Content {
    match Record::decode(record) {
        Ok(Record::Click(click)) => Content::Click(Box::new(click.as_ref().into())),
        Ok(Record::Event(event)) => Content::Event(Box::new(event.as_ref().into())),
        Ok(Record::OutClick(out)) => Content::OutClick(Box::new(out.as_ref().into())),
        Ok(Record::Postback(postback)) => Content::Postback(Box::new(postback.as_ref().into())),
        Ok(Record::Erased) | Err(_) => Content::Hex(hex(record)),
    }
}
