//! Keys of POSTs that may be sent again: who runs one, and what it was answered.
//!
//! Each step is one statement, so nodes agree without a lock that somebody could hold for ever: the row says until
//! when its runner is believed to live. Whoever takes over gets the same `object_id`, and so finds what the one
//! before has made.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use crate::{
    db::{Db, Error, session::Session, statement::statements},
    model::id::new_uuid,
};

statements! {
    CLAIM = "idempotency.claim": "
    INSERT INTO idempotency_keys AS k (token_id, key, fingerprint, object_id, locked_until)
    VALUES ($1, $2, $3, $4, now() + $5 * interval '1 millisecond')
    ON CONFLICT (token_id, key) DO UPDATE
    SET attempt = k.attempt + 1,
        locked_until = excluded.locked_until
    WHERE k.status IS NULL
      AND k.locked_until <= now()
      AND k.fingerprint = excluded.fingerprint
    RETURNING
        k.object_id,
        k.attempt";

    FIND = "idempotency.find": "
    SELECT
        fingerprint,
        greatest(extract(epoch FROM locked_until - now()), 0)::float8 AS locked_for_s,
        status,
        headers,
        body
    FROM idempotency_keys
    WHERE token_id = $1
      AND key = $2";

    FINISH = "idempotency.finish": "
    UPDATE idempotency_keys
    SET status = $4,
        headers = $5,
        body = $6
    WHERE token_id = $1
      AND key = $2
      AND attempt = $3";

    RELEASE = "idempotency.release": "
    DELETE FROM idempotency_keys
    WHERE token_id = $1
      AND key = $2
      AND attempt = $3";

    HAND_OVER = "idempotency.hand_over": "
    UPDATE idempotency_keys
    SET locked_until = now()
    WHERE token_id = $1
      AND key = $2
      AND attempt = $3";

    /// What is too old; and of what is not, the oldest that are too many.
    DELETE_OLD = "idempotency.delete_old": "
    DELETE FROM idempotency_keys
    WHERE (created_at < now() - $1 * interval '1 second'
        OR created_at <= (
            SELECT created_at
            FROM idempotency_keys
            ORDER BY created_at DESC
            OFFSET $2
            LIMIT 1
        ))
      AND locked_until <= now()";
}

/// What a request is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose key it is.
    pub token_id: Uuid,
    /// The caller's name for it, 1 to 255 characters.
    pub key: String,
    /// Of method, address and body.
    pub fingerprint: [u8; 32],
}

/// The right to run a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Claim {
    /// The id of what it makes.
    pub object_id: Uuid,
    /// From 1; more: one before may have run to its end, or not.
    pub attempt: i32,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names and values of the headers that are kept.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What there is to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is to be run.
    Run(Claim),
    /// It was answered.
    Answered(Answer),
    /// The key belongs to another request.
    Different,
    /// It is being run by somebody else, who is believed to live for so long.
    Running(Duration),
}

#[derive(FromRow)]
struct Row {
    fingerprint: Vec<u8>,
    locked_for_s: f64,
    status: Option<i16>,
    headers: Option<Json<Vec<(String, String)>>>,
    body: Option<Vec<u8>>,
}

/// Takes the right to run a request for `lease`, or says why not.
pub async fn claim(db: &Db, request: &Request, lease: Duration) -> Result<Claimed, Error> {
    let request = request.clone();
    let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    db.write(CLAIM, move |c| claim_on(c, request, lease_ms)).await
}

fn claim_on<'c>(
    c: &'c mut Session<'_>,
    request: Request,
    lease_ms: i64,
) -> BoxFuture<'c, sqlx::Result<Claimed>> {
    Box::pin(async move {
        let Request { token_id, key, fingerprint } = request;
        let claim = CLAIM
            .query_as::<Claim>()
            .bind(token_id)
            .bind(key.clone())
            .bind(fingerprint.to_vec())
            .bind(new_uuid())
            .bind(lease_ms);
        if let Some(claim) = claim.fetch_optional(c).await? {
            return Ok(Claimed::Run(claim));
        }
        let found = FIND.query_as::<Row>().bind(token_id).bind(key);
        let found = found.fetch_optional(c).await?;
        Ok(match found {
            Some(row) => row.claimed(&fingerprint),
            None => Claimed::Running(Duration::ZERO), // its runner has just let go of it
        })
    })
}

impl Row {
    fn claimed(self, fingerprint: &[u8]) -> Claimed {
        if self.fingerprint != fingerprint {
            return Claimed::Different;
        }
        match self.status {
            None => Claimed::Running(Duration::try_from_secs_f64(self.locked_for_s).unwrap_or_default()),
            Some(status) => Claimed::Answered(Answer {
                status: u16::try_from(status).unwrap_or_default(),
                headers: self.headers.map(|Json(headers)| headers).unwrap_or_default(),
                body: self.body.unwrap_or_default(),
            }),
        }
    }
}

/// Keeps the answer, unless somebody took over meanwhile.
pub async fn finish(db: &Db, request: &Request, claim: Claim, answer: Answer) -> Result<(), Error> {
    let query = FINISH
        .query()
        .bind(request.token_id)
        .bind(request.key.clone())
        .bind(claim.attempt)
        .bind(i16::try_from(answer.status).unwrap_or_default())
        .bind(Json(answer.headers))
        .bind(answer.body);
    db.write(FINISH, move |c| Box::pin(async move { query.execute(c).await.map(drop) })).await
}

/// Forgets a request that changed nothing: the key is free.
pub async fn release(db: &Db, request: &Request, claim: Claim) -> Result<(), Error> {
    let query = RELEASE.query().bind(request.token_id).bind(request.key.clone()).bind(claim.attempt);
    db.write(RELEASE, move |c| Box::pin(async move { query.execute(c).await.map(drop) })).await
}

/// Lets the next one carry on at once: what became of the request is not known.
pub async fn hand_over(db: &Db, request: &Request, claim: Claim) -> Result<(), Error> {
    let query = HAND_OVER.query().bind(request.token_id).bind(request.key.clone()).bind(claim.attempt);
    db.write(HAND_OVER, move |c| Box::pin(async move { query.execute(c).await.map(drop) })).await
}

/// Forgets answers older than `keep`, and the oldest of more than `keys_max`; returns how many.
pub async fn delete_old(db: &Db, keep: Duration, keys_max: u32) -> Result<u64, Error> {
    let keep_s = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
    let keys_max = i64::from(keys_max);
    db.maintain(DELETE_OLD, move |c| {
        let query = DELETE_OLD.query().bind(keep_s).bind(keys_max);
        Box::pin(async move { Ok(query.execute(c).await?.rows_affected()) })
    })
    .await
}
