//! Tokens of the admin API. They are looked up on the primary, so that a revoked one is refused at once.

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sqlx::FromRow;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    db::{Db, Error, session::Session, statement::statements},
    model::{
        id::new_uuid,
        text::hex,
        token::{DIGITS, Hash, PREFIX, Scope, digest},
    },
};

pub use crate::model::token::Token;

/// What is read of a token: the fields of `Row`.
macro_rules! columns {
    () => {
        "id, name, scope, created_at, expires_at, revoked_at, last_used_at"
    };
}

statements! {
    INSERT = "token.insert": concat!("
    INSERT INTO api_tokens (id, name, scope, token_sha256, expires_at)
    VALUES ($1, $2, $3, $4, $5)
    RETURNING ", columns!());

    INSERT_ONCE = "token.insert_once": "
    INSERT INTO api_tokens (id, name, scope, token_sha256)
    VALUES ($1, $2, $3, $4)
    ON CONFLICT (token_sha256) DO NOTHING";

    LIST = "token.list": concat!("SELECT ", columns!(), "
    FROM api_tokens
    WHERE id < $1
    ORDER BY id DESC
    LIMIT $2");

    GET = "token.get": concat!("SELECT ", columns!(), " FROM api_tokens WHERE id = $1");

    REVOKE = "token.revoke": "
    UPDATE api_tokens
    SET revoked_at = coalesce(revoked_at, now())
    WHERE id = $1";

    FIND = "token.find": concat!("SELECT ", columns!(), ", token_sha256
    FROM api_tokens
    WHERE token_sha256 = $1
      AND revoked_at IS NULL
      AND (expires_at IS NULL OR expires_at > now())");

    TOUCH = "token.touch": "
    UPDATE api_tokens
    SET last_used_at = now()
    WHERE id = $1
      AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";
}

/// Makes a token; returns it and its secret, which is stored nowhere.
pub async fn create(
    db: &Db,
    scope: Scope,
    name: &str,
    expires_at: Option<DateTime<Utc>>,
) -> Result<(Token, String), Error> {
    create_as(db, new_uuid(), scope, name, expires_at).await
}

/// As [`create`], with this id.
pub async fn create_as(
    db: &Db,
    id: Uuid,
    scope: Scope,
    name: &str,
    expires_at: Option<DateTime<Utc>>,
) -> Result<(Token, String), Error> {
    let secret = new_secret()?;
    let hash = digest(&secret);
    let name = name.to_owned();
    let token = db
        .write(INSERT, move |c| {
            Box::pin(async move {
                let query = INSERT.query_as::<Row>().bind(id).bind(name);
                query
                    .bind(<&str>::from(scope))
                    .bind(hash.as_slice())
                    .bind(expires_at)
                    .fetch_one(c)
                    .await?
                    .into_token()
            })
        })
        .await?;
    Ok((token, secret))
}

/// Makes a token without end of a secret that the caller has already written down; again is no error.
pub async fn insert_once(db: &Db, scope: Scope, name: &str, secret: &str) -> Result<(), Error> {
    let (name, hash) = (name.to_owned(), digest(secret));
    db.write(INSERT_ONCE, move |c| {
        let query = INSERT_ONCE.query().bind(crate::model::id::new_uuid()).bind(name);
        Box::pin(
            async move { query.bind(<&str>::from(scope)).bind(hash.as_slice()).execute(c).await.map(drop) },
        )
    })
    .await
}

/// The token with this id, also a revoked one.
pub async fn get(db: &Db, id: Uuid) -> Result<Option<Token>, Error> {
    db.read_primary(GET, move |c| {
        Box::pin(async move {
            let row = GET.query_as::<Row>().bind(id).fetch_optional(c).await?;
            row.map(Row::into_token).transpose()
        })
    })
    .await
}

/// Tokens, newest first, after (older than) `after`, at most `limit`; revoked ones too.
pub async fn list(db: &Db, after: Option<Uuid>, limit: i64) -> Result<Vec<Token>, Error> {
    let after = after.unwrap_or(Uuid::max());
    db.read_primary(LIST, move |c| {
        Box::pin(async move {
            let rows = LIST.query_as::<Row>().bind(after).bind(limit).fetch_all(c).await?;
            rows.into_iter().map(Row::into_token).collect()
        })
    })
    .await
}

/// Every token, newest first.
pub async fn list_all(db: &Db) -> Result<Vec<Token>, Error> {
    const PAGE: i64 = 500;

    let mut all = Vec::new();
    loop {
        let page = list(db, all.last().map(|t: &Token| t.id), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Refuses a token from now on; `false` when there is none with this id. Again is no error.
pub async fn revoke(db: &Db, id: Uuid) -> Result<bool, Error> {
    db.write(REVOKE, move |c| {
        Box::pin(async move { Ok(REVOKE.query().bind(id).execute(c).await?.rows_affected() > 0) })
    })
    .await
}

/// The token with this hash, unless it is revoked or has expired. Each request asks, so that a revoked one is
/// refused at once on every node. While the primary is unavailable a replica answers, so that reading goes on;
/// only then a token that was revoked within the replica's lag is still taken.
///
/// The time that the index takes may tell how much of a guess's SHA-256 some stored hash begins with. That leads
/// nowhere: to prolong the match the next guess must be chosen by its hash, which SHA-256 does not allow, and a
/// known hash would not tell the 256 random bits behind it. What the index found is compared once more in
/// constant time.
pub async fn find(db: &Db, hash: Hash) -> Result<Option<Token>, Error> {
    match db.read_primary(FIND, move |c| find_on(c, hash)).await {
        Err(Error::Unavailable(_)) if !db.replicas().is_empty() => {
            db.read(FIND, move |c| find_on(c, hash)).await
        }
        answer => answer,
    }
}

/// Notes that a token was used, at most once a minute.
pub async fn touch(db: &Db, token: &Token, now: DateTime<Utc>) -> Result<(), Error> {
    let id = token.id;
    if token.last_used_at.is_some_and(|last| now - last < chrono::TimeDelta::minutes(1)) {
        return Ok(());
    }
    db.write(TOUCH, move |c| Box::pin(async move { TOUCH.query().bind(id).execute(c).await.map(drop) })).await
}

fn find_on<'c>(c: &'c mut Session<'_>, hash: Hash) -> BoxFuture<'c, sqlx::Result<Option<Token>>> {
    Box::pin(async move {
        let found = FIND.query_as::<Found>().bind(hash.as_slice().to_vec()).fetch_optional(c).await?;
        let found = found.filter(|found| found.token_sha256.ct_eq(&hash).into());
        found.map(|found| found.row.into_token()).transpose()
    })
}

/// A secret: 256 bits of the operating system's randomness.
pub fn new_secret() -> Result<String, Error> {
    let mut bytes = [0_u8; DIGITS / 2];
    getrandom::fill(&mut bytes).map_err(|e| Error::Unavailable(Box::new(e)))?;
    Ok(format!("{PREFIX}{}", hex(&bytes)))
}

#[derive(FromRow)]
pub(super) struct Row {
    id: Uuid,
    name: String,
    scope: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

#[derive(FromRow)]
struct Found {
    #[sqlx(flatten)]
    row: Row,
    token_sha256: Vec<u8>,
}

impl Row {
    pub(super) fn into_token(self) -> sqlx::Result<Token> {
        Ok(Token {
            id: self.id,
            name: self.name,
            scope: self.scope.parse().map_err(|e: String| sqlx::Error::Decode(e.into()))?,
            created_at: self.created_at,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_shape_of_tokens_and_differ() {
        let (a, b) = (new_secret().unwrap(), new_secret().unwrap());
        assert!(crate::model::token::hash(&a).is_some());
        assert_ne!(a, b);
    }
}
