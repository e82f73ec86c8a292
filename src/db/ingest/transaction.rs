//! The transaction of a batch, on a connection of its own: the watermark, what is erased, the rows.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use uuid::Uuid;

use super::{Rows, StoreError, bigint, rows as table_rows};
use crate::{
    db::{
        Error, Statement, monitor,
        pool::Pool,
        session::{Session, Transaction},
        statement::statements,
        store::erasures,
    },
    facts::erasure::Erasures,
};

/// sqlx runs it by itself, as it does BEGIN and ROLLBACK.
const COMMIT: Statement = Statement::new("ingest.commit", "COMMIT");

statements! {
    SET_SESSION = "ingest.connect":
        "SELECT set_config('statement_timeout', $1, false), set_config('synchronous_commit', 'on', false)";

    SET_LOCAL = "ingest.begin":
        "SELECT set_config('statement_timeout', $1, true), set_config('synchronous_commit', 'on', true)";

    LIST_WATERMARKS = "watermark.list": "SELECT stream, seq FROM ingest_watermark WHERE stream = ANY($1)";

    BEGIN_WATERMARKS = "watermark.begin": "
INSERT INTO ingest_watermark (stream, seq)
SELECT * FROM unnest($1::uuid[], $2::int8[])
ON CONFLICT (stream) DO NOTHING";

    // Whoever erases holds a lock on the table of watermarks (`octo_lock_for_erasure`), and a statement has its table
    // locks before its snapshot: so it sees an erasure that it waited for, and one that comes later waits for this
    // transaction. One round trip for both, because a batch with refused rows is stored in hundreds of pieces.
    ADVANCE_WATERMARK = "watermark.advance": "
WITH moved AS (
    UPDATE ingest_watermark SET seq = $3, updated_at = now() WHERE stream = $1 AND seq = $2 RETURNING seq
)
SELECT (SELECT count(*) FROM moved), coalesce((SELECT max(id) FROM erasures), 0)";
}

/// The drain's own connection.
pub struct Ingest {
    session: Session<'static>,
    /// Those seen so far; a transaction reads what is new before it stores anything.
    erasures: Erasures,
    /// Behind PgBouncer: what each transaction sets for itself, because no session is ours.
    local_timeout: Option<String>,
}

impl Ingest {
    /// Connects to the primary; `statement_timeout` bounds each statement.
    pub async fn connect(pool: &Pool, statement_timeout: Duration) -> Result<Self, Error> {
        let mut session = pool.connect().await?;
        session.limit(statement_timeout + Duration::from_secs(1));
        let milliseconds = i64::try_from(statement_timeout.as_millis()).unwrap_or(i64::MAX).to_string();
        let erasures = Erasures::default();
        if !pool.is_session() {
            return Ok(Self { session, erasures, local_timeout: Some(milliseconds) });
        }
        let set = SET_SESSION.query().bind(milliseconds).execute(&mut session).await;
        set.map_err(|e| monitor::classify(SET_SESSION.name(), e))?;
        Ok(Self { session, erasures, local_timeout: None })
    }

    /// Where each stream is in this database; a new stream begins at the sequence beside its id.
    pub async fn watermarks(&mut self, streams: &[(Uuid, u64)]) -> Result<HashMap<Uuid, u64>, StoreError> {
        if self.local_timeout.is_none() {
            return watermarks(&mut self.session, streams).await;
        }
        let mut transaction = self.begin().await?;
        let watermarks = watermarks(&mut transaction, streams).await?;
        transaction.commit().await?;
        Ok(watermarks)
    }

    /// The ids of those rows that are stored already.
    pub async fn find_stored(&mut self, rows: &Rows<'_>) -> Result<HashSet<Uuid>, StoreError> {
        let mut transaction = self.begin().await?;
        let found = table_rows::find_stored(&mut transaction, rows).await?;
        transaction.commit().await?;
        Ok(found)
    }

    /// Stores the rows of `lo..hi` and moves the watermark to `hi`, all or nothing. What is erased is taken out of
    /// `rows` before.
    ///
    /// After any error but [`StoreError::Refused`] the connection must not be used again.
    pub async fn store(
        &mut self,
        stream: Uuid,
        lo: u64,
        hi: u64,
        rows: &mut Rows<'_>,
    ) -> Result<(), StoreError> {
        let mut erasures = std::mem::take(&mut self.erasures);
        let stored = self.store_but(&mut erasures, stream, (lo, hi), rows).await;
        self.erasures = erasures;
        stored
    }

    /// [`Ingest::store`] of `lo..hi` but for what is erased.
    async fn store_but(
        &mut self,
        erasures: &mut Erasures,
        stream: Uuid,
        (lo, hi): (u64, u64),
        rows: &mut Rows<'_>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        match store_in(&mut transaction, stream, (lo, hi), rows, erasures).await {
            Ok(()) => Ok(transaction.commit_as(COMMIT).await?),
            Err(refused @ StoreError::Refused { .. }) => {
                transaction.rollback().await?;
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }

    async fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        let mut transaction = self.session.begin().await?;
        if let Some(milliseconds) = &self.local_timeout {
            SET_LOCAL.query().bind(milliseconds).execute(&mut transaction).await?;
        }
        Ok(transaction)
    }
}

async fn watermarks(c: &mut Session<'_>, streams: &[(Uuid, u64)]) -> Result<HashMap<Uuid, u64>, StoreError> {
    let ids: Vec<Uuid> = streams.iter().map(|(id, _)| *id).collect();
    let firsts: Vec<i64> = streams.iter().map(|(_, first)| bigint(*first)).collect();
    BEGIN_WATERMARKS.query().bind(&ids).bind(firsts).execute(c).await?;
    let rows: Vec<(Uuid, i64)> = LIST_WATERMARKS.query_as().bind(ids).fetch_all(c).await?;
    Ok(rows.into_iter().map(|(stream, seq)| (stream, u64::try_from(seq).unwrap_or(0))).collect())
}

async fn store_in(
    transaction: &mut Session<'_>,
    stream: Uuid,
    (lo, hi): (u64, u64),
    rows: &mut Rows<'_>,
    erasures: &mut Erasures,
) -> Result<(), StoreError> {
    let (moved, last_erasure) = advance(transaction, stream, lo, hi).await?;
    if moved != 1 {
        return Err(StoreError::Moved);
    }
    if last_erasure > erasures.last_id() {
        erasures.extend(erasures::since_on(transaction, erasures.last_id()).await?);
    }
    if !erasures.is_empty() {
        let clicks = rows.leave_out(erasures);
        if !clicks.is_empty() {
            // what followed them may have come here before them, by another node
            erasures::delete_followers_on(transaction, &clicks).await?;
        }
    }
    if !rows.dead_letters.is_empty() {
        table_rows::insert_dead_letters(transaction, stream, &rows.dead_letters).await?;
    }
    rows.told = table_rows::insert(transaction, rows).await?;
    Ok(())
}

/// How many watermarks moved, 1 unless it is elsewhere, and the last erasure.
async fn advance(c: &mut Session<'_>, stream: Uuid, lo: u64, hi: u64) -> sqlx::Result<(i64, i64)> {
    let query = ADVANCE_WATERMARK.query_as().bind(stream).bind(bigint(lo)).bind(bigint(hi));
    query.fetch_one(c).await
}
