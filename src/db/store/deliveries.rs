//! Deliveries: shown, and put back by hand. What takes and notes them is [`super::outbox`].

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    db::{Db, Error, statement::statements},
    model::id::ClickId,
};

/// A delivery as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Delivery {
    /// Made of target, conversion and change.
    pub id: Uuid,
    /// Counts up as they come; the key of lists.
    pub seq: i64,
    /// Whom it is for.
    pub target_id: i64,
    /// The conversion's campaign.
    pub campaign_id: Uuid,
    /// The conversion.
    pub conversion_id: Uuid,
    /// Its click.
    pub click_id: Uuid,
    /// The status it has now.
    pub change: String,
    /// `""` where none was named.
    pub goal: String,
    /// What the conversion is.
    pub kind: String,
    /// As the target is told it.
    pub payout: Option<Decimal>,
    /// The currency of that.
    pub currency: String,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
    /// How far it is.
    pub state: String,
    /// Why it was not made.
    pub reason: Option<String>,
    /// Requests made.
    pub attempts: i32,
    /// When it is sent next, or its lease ends.
    pub next_at: DateTime<Utc>,
    /// When it came.
    pub queued_at: DateTime<Utc>,
    /// When it was done or given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// When it is not worth telling any more.
    pub expires_at: Option<DateTime<Utc>>,
}

/// An attempt as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct StoredAttempt {
    /// From 1.
    pub n: i32,
    /// When.
    pub at: DateTime<Utc>,
    /// How.
    pub method: String,
    /// Where to, without what is secret in it.
    pub url: String,
    /// `None`: there was no answer.
    pub status: Option<i32>,
    /// How the answer begins.
    pub answer: Option<String>,
    /// How long it took.
    pub ms: i32,
    /// `None`: it succeeded.
    pub error: Option<String>,
}

/// Which ones are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this target.
    pub target_id: Option<i64>,
    /// Of this campaign.
    pub campaign_id: Option<Uuid>,
    /// Of this conversion.
    pub conversion_id: Option<Uuid>,
    /// In this state.
    pub state: Option<&'static str>,
    /// Queued from then on.
    pub from: Option<DateTime<Utc>>,
    /// Queued before.
    pub to: Option<DateTime<Utc>>,
}

macro_rules! select_deliveries {
    ($tail:literal) => {
        concat!(
            "
    SELECT
        d.id,
        d.seq,
        d.target_id,
        d.campaign_id,
        d.conversion_id,
        d.click_id,
        d.change,
        d.goal,
        d.kind,
        d.payout,
        d.currency,
        d.changed_at,
        d.state,
        d.reason,
        d.attempts,
        d.next_at,
        d.queued_at,
        d.finished_at,
        d.expires_at
    FROM deliveries d",
            $tail
        )
    };
}

statements! {
    LIST = "delivery.list": select_deliveries!("
    WHERE d.seq < $1
      AND ($2::bigint IS NULL OR d.target_id = $2)
      AND ($3::uuid IS NULL OR d.campaign_id = $3)
      AND ($4::uuid IS NULL OR d.conversion_id = $4)
      AND ($5::text IS NULL OR d.state = $5)
      AND ($6::timestamptz IS NULL OR d.queued_at >= $6)
      AND ($7::timestamptz IS NULL OR d.queued_at < $7)
    ORDER BY d.seq DESC
    LIMIT $8");

    LIST_OF_CLICK = "delivery.list_of_click": select_deliveries!("
    WHERE d.click_id = $1
    ORDER BY d.seq
    LIMIT $2");

    GET = "delivery.get": select_deliveries!("
    WHERE d.id = $1");

    ATTEMPTS = "delivery.attempts": "
    SELECT
        n,
        at,
        method,
        url,
        status,
        answer,
        ms,
        error
    FROM delivery_attempts
    WHERE delivery_id = $1
    ORDER BY n DESC
    LIMIT $2";

    // Not one that is on its way, or that the target cannot take.
    RETRY = "delivery.retry": "
    UPDATE deliveries
    SET state = 'pending',
        reason = NULL,
        next_at = now(),
        attempts_before = attempts,
        finished_at = NULL,
        expires_at = NULL
    WHERE id = $1
      AND state IN ('pending', 'dead', 'cancelled')
      AND EXISTS (SELECT FROM postback_targets t WHERE t.id = deliveries.target_id)";

    COUNT = "delivery.count": "
    SELECT count(*)
    FROM (
        SELECT
        FROM deliveries
        WHERE target_id = $1
          AND queued_at >= $2
          AND queued_at < $3
          AND state = ANY ($4)
        LIMIT $5
    ) AS found";

    REPLAY = "delivery.replay": "
    UPDATE deliveries d
    SET state = 'pending',
        reason = NULL,
        next_at = now(),
        attempts_before = d.attempts,
        finished_at = NULL,
        expires_at = NULL
    FROM (
        SELECT id, campaign_id
        FROM deliveries
        WHERE target_id = $1
          AND queued_at >= $2
          AND queued_at < $3
          AND state = ANY ($4)
        ORDER BY seq
        LIMIT $5
        FOR UPDATE
    ) AS found
    WHERE d.id = found.id
      AND d.campaign_id = found.campaign_id";
}

/// Deliveries, newest first, before (older than) `after`, at most `limit`; from a replica.
pub async fn list(db: &Db, filter: Filter, after: Option<i64>, limit: i64) -> Result<Vec<Delivery>, Error> {
    let after = after.unwrap_or(i64::MAX);
    db.read(LIST, move |c| {
        let query = LIST.query_as().bind(after).bind(filter.target_id).bind(filter.campaign_id);
        let query = query.bind(filter.conversion_id).bind(filter.state).bind(filter.from).bind(filter.to);
        Box::pin(query.bind(limit).fetch_all(c))
    })
    .await
}

/// The deliveries of the conversions of a click, oldest first, at most `limit`.
pub async fn list_of_click(db: &Db, click_id: ClickId, limit: i64) -> Result<Vec<Delivery>, Error> {
    db.read(LIST_OF_CLICK, move |c| {
        Box::pin(LIST_OF_CLICK.query_as().bind(click_id.uuid()).bind(limit).fetch_all(c))
    })
    .await
}

/// One delivery, and its last attempts, at most `attempts`, newest first; from the primary.
pub async fn get(db: &Db, id: Uuid, attempts: i64) -> Result<Option<(Delivery, Vec<StoredAttempt>)>, Error> {
    db.read_primary(GET, move |c| {
        Box::pin(async move {
            let Some(found) = GET.query_as::<Delivery>().bind(id).fetch_optional(c).await? else {
                return Ok(None);
            };
            let attempts = ATTEMPTS.query_as().bind(id).bind(attempts).fetch_all(c).await?;
            Ok(Some((found, attempts)))
        })
    })
    .await
}

/// Puts a delivery back, to be sent now; whether there was one that can be.
pub async fn retry(db: &Db, id: Uuid) -> Result<bool, Error> {
    db.write(RETRY, move |c| {
        Box::pin(async move { Ok(RETRY.query().bind(id).execute(c).await?.rows_affected() > 0) })
    })
    .await
}

/// What is to be sent once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Of this target.
    pub target_id: i64,
    /// Queued from then on ..
    pub from: DateTime<Utc>,
    /// .. and before then.
    pub to: DateTime<Utc>,
    /// In one of these states.
    pub states: Vec<&'static str>,
    /// At most so many, oldest first.
    pub rows_max: i64,
}

/// How many deliveries a replay would put back.
pub async fn count(db: &Db, replay: Replay) -> Result<i64, Error> {
    db.read_primary(COUNT, move |c| {
        let query = COUNT.query_scalar().bind(replay.target_id).bind(replay.from).bind(replay.to);
        Box::pin(query.bind(replay.states).bind(replay.rows_max).fetch_one(c))
    })
    .await
}

/// Puts deliveries back; returns how many.
pub async fn replay(db: &Db, replay: Replay) -> Result<u64, Error> {
    db.maintain(REPLAY, move |c| {
        Box::pin(async move {
            let query = REPLAY.query().bind(replay.target_id).bind(replay.from).bind(replay.to);
            let put = query.bind(replay.states).bind(replay.rows_max).execute(c).await?;
            Ok(put.rows_affected())
        })
    })
    .await
}
