//! Sessions of the dashboard, and the links that begin one. Only hashes are stored: whoever reads the database cannot sign in
//! with what is there.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use sqlx::FromRow;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    db::{Db, Error, session::Session as Connection, statement::statements},
    model::{
        id::new_uuid,
        token::{Hash, Token},
    },
};

use super::tokens;

/// What the token of a link is called where tokens are listed.
const LINK_TOKEN: &str = "signed in by a link";

/// Longest part of a browser's name that is kept, in characters.
const USER_AGENT_CHARS_MAX: usize = 255;

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Ours.
    pub id: Uuid,
    /// What it may do.
    pub token: Token,
    /// When it was last used, to the minute.
    pub last_used_at: DateTime<Utc>,
}

/// A session in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// It.
    pub session: Session,
    /// What the browser called itself, as far as it is kept.
    pub user_agent: Option<String>,
    /// When somebody signed in.
    pub began_at: DateTime<Utc>,
}

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Without being used.
    pub idle: Duration,
    /// At most.
    pub max: Duration,
}

statements! {
    INSERT = "session.insert": "
    INSERT INTO sessions (id, token_id, cookie_sha256, user_agent, expires_at)
    VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))";

    /// A link is used by deleting it, so once: of two at the same time the second finds nothing. It gets a token of its own, whose
    /// secret nobody has, so that it is listed and revoked as tokens are.
    REDEEM = "session.redeem": "
    WITH used AS (
        DELETE FROM sign_in_links
        WHERE code_sha256 = $1
          AND expires_at > now()
        RETURNING code_sha256
    ), token AS (
        INSERT INTO api_tokens (id, name, scope, token_sha256, expires_at)
        SELECT $2, $3, 'admin', $4, now() + make_interval(secs => $8)
        FROM used
        RETURNING id
    )
    INSERT INTO sessions (id, token_id, cookie_sha256, user_agent, expires_at)
    SELECT $5, id, $6, $7, now() + make_interval(secs => $8)
    FROM token";

    FIND = "session.find": "
    SELECT
        s.id AS session_id,
        s.cookie_sha256,
        s.last_used_at AS session_last_used_at,
        t.id,
        t.name,
        t.scope,
        t.created_at,
        t.expires_at,
        t.revoked_at,
        t.last_used_at
    FROM sessions s
    JOIN api_tokens t ON t.id = s.token_id
    WHERE s.cookie_sha256 = $1
      AND s.expires_at > now()
      AND s.last_used_at > now() - make_interval(secs => $2)
      AND t.revoked_at IS NULL
      AND (t.expires_at IS NULL OR t.expires_at > now())";

    TOUCH = "session.touch": "
    UPDATE sessions
    SET last_used_at = now()
    WHERE id = $1
      AND last_used_at < now() - interval '1 minute'";

    END = "session.end": "
    DELETE FROM sessions
    WHERE cookie_sha256 = $1";

    LIST = "session.list": "
    SELECT
        s.id AS session_id,
        s.cookie_sha256,
        s.last_used_at AS session_last_used_at,
        s.user_agent,
        s.created_at AS began_at,
        t.id,
        t.name,
        t.scope,
        t.created_at,
        t.expires_at,
        t.revoked_at,
        t.last_used_at
    FROM sessions s
    JOIN api_tokens t ON t.id = s.token_id
    WHERE s.expires_at > now()
      AND s.last_used_at > now() - make_interval(secs => $1)
      AND t.revoked_at IS NULL
      AND (t.expires_at IS NULL OR t.expires_at > now())
    ORDER BY s.last_used_at DESC, s.id
    LIMIT $2";

    END_ONE = "session.end_one": "
    DELETE FROM sessions
    WHERE id = $1";

    END_OTHERS = "session.end_others": "
    DELETE FROM sessions
    WHERE id <> $1";

    SWEEP = "session.sweep": "
    DELETE FROM sessions
    WHERE expires_at <= now()
       OR last_used_at <= now() - make_interval(secs => $1)";

    INSERT_LINK = "sign_in_link.insert": "
    INSERT INTO sign_in_links (code_sha256, expires_at)
    VALUES ($1, now() + make_interval(secs => $2))";

    SWEEP_LINKS = "sign_in_link.sweep": "
    DELETE FROM sign_in_links
    WHERE expires_at <= now()";
}

/// Begins a session of a token. Those that are over go.
pub async fn begin(
    db: &Db,
    token: Uuid,
    cookie: Hash,
    user_agent: Option<&str>,
    lifetime: Lifetime,
) -> Result<(), Error> {
    sweep(db, lifetime).await?;
    let user_agent = shortened(user_agent);
    db.write(INSERT, move |c| {
        let query = INSERT.query().bind(new_uuid()).bind(token).bind(cookie.as_slice().to_vec());
        let query = query.bind(user_agent).bind(lifetime.max.as_secs_f64());
        Box::pin(async move { query.execute(c).await.map(drop) })
    })
    .await
}

/// Begins a session by a link with this code; `false` when there is none, or none any more.
pub async fn redeem(
    db: &Db,
    code: Hash,
    cookie: Hash,
    user_agent: Option<&str>,
    lifetime: Lifetime,
) -> Result<bool, Error> {
    sweep(db, lifetime).await?;
    let user_agent = shortened(user_agent);
    let nobodys = crate::model::token::digest(&tokens::new_secret()?);
    db.write(REDEEM, move |c| {
        let query = REDEEM.query().bind(code.as_slice().to_vec()).bind(new_uuid()).bind(LINK_TOKEN);
        let query = query.bind(nobodys.as_slice().to_vec()).bind(new_uuid()).bind(cookie.as_slice().to_vec());
        let query = query.bind(user_agent).bind(lifetime.max.as_secs_f64());
        Box::pin(async move { Ok(query.execute(c).await?.rows_affected() > 0) })
    })
    .await
}

/// The session with this cookie, unless it is over. Each request asks, so that a token that is revoked ends its sessions at once on
/// every node; while the primary is unavailable a replica answers, as for tokens.
pub async fn find(db: &Db, cookie: Hash, lifetime: Lifetime) -> Result<Option<Session>, Error> {
    let idle = lifetime.idle.as_secs_f64();
    match db.read_primary(FIND, move |c| find_on(c, cookie, idle)).await {
        Err(Error::Unavailable(_)) if !db.replicas().is_empty() => {
            db.read(FIND, move |c| find_on(c, cookie, idle)).await
        }
        answer => answer,
    }
}

/// Notes that a session was used, at most once a minute.
pub async fn touch(db: &Db, session: &Session, now: DateTime<Utc>) -> Result<(), Error> {
    let id = session.id;
    if now - session.last_used_at < TimeDelta::minutes(1) {
        return Ok(());
    }
    db.write(TOUCH, move |c| Box::pin(async move { TOUCH.query().bind(id).execute(c).await.map(drop) })).await
}

/// Ends the session with this cookie, if there is one.
pub async fn end(db: &Db, cookie: Hash) -> Result<(), Error> {
    db.write(END, move |c| {
        let query = END.query().bind(cookie.as_slice().to_vec());
        Box::pin(async move { query.execute(c).await.map(drop) })
    })
    .await
}

/// Sessions that are not over, the one used last first, at most `limit`.
pub async fn list(db: &Db, lifetime: Lifetime, limit: i64) -> Result<Vec<Listed>, Error> {
    let idle = lifetime.idle.as_secs_f64();
    db.read_primary(LIST, move |c| {
        Box::pin(async move {
            let rows: Vec<ListedRow> = LIST.query_as().bind(idle).bind(limit).fetch_all(c).await?;
            rows.into_iter().map(ListedRow::into_listed).collect()
        })
    })
    .await
}

/// Ends the session with this id; `false` when there is none.
pub async fn end_one(db: &Db, id: Uuid) -> Result<bool, Error> {
    db.write(END_ONE, move |c| {
        Box::pin(async move { Ok(END_ONE.query().bind(id).execute(c).await?.rows_affected() > 0) })
    })
    .await
}

/// Ends every session but this one; gives how many.
pub async fn end_others(db: &Db, id: Uuid) -> Result<u64, Error> {
    db.write(END_OTHERS, move |c| {
        Box::pin(async move { Ok(END_OTHERS.query().bind(id).execute(c).await?.rows_affected()) })
    })
    .await
}

/// Makes a link that is good once, for so long, and gives its code, which is stored nowhere.
pub async fn make_link(db: &Db, lasts: Duration) -> Result<String, Error> {
    db.write(SWEEP_LINKS, |c| Box::pin(async move { SWEEP_LINKS.query().execute(c).await.map(drop) }))
        .await?;
    let code = new_code()?;
    let hash = crate::model::token::digest(&code);
    db.write(INSERT_LINK, move |c| {
        let query = INSERT_LINK.query().bind(hash.as_slice().to_vec()).bind(lasts.as_secs_f64());
        Box::pin(async move { query.execute(c).await.map(drop) })
    })
    .await?;
    Ok(code)
}

/// 256 bits of the operating system's randomness, in 43 characters of base64url: a cookie, or the code of a link.
pub fn new_code() -> Result<String, Error> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::Unavailable(Box::new(e)))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

async fn sweep(db: &Db, lifetime: Lifetime) -> Result<(), Error> {
    let idle = lifetime.idle.as_secs_f64();
    db.write(SWEEP, move |c| Box::pin(async move { SWEEP.query().bind(idle).execute(c).await.map(drop) }))
        .await
}

fn shortened(user_agent: Option<&str>) -> Option<String> {
    user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect())
}

fn find_on<'c>(
    c: &'c mut Connection<'_>,
    cookie: Hash,
    idle: f64,
) -> BoxFuture<'c, sqlx::Result<Option<Session>>> {
    Box::pin(async move {
        let query = FIND.query_as::<Found>().bind(cookie.as_slice().to_vec()).bind(idle);
        let found = query.fetch_optional(c).await?;
        let found = found.filter(|found| found.cookie_sha256.ct_eq(&cookie).into());
        found.map(Found::into_session).transpose()
    })
}

#[derive(FromRow)]
struct Found {
    session_id: Uuid,
    cookie_sha256: Vec<u8>,
    session_last_used_at: DateTime<Utc>,
    #[sqlx(flatten)]
    token: tokens::Row,
}

impl Found {
    fn into_session(self) -> sqlx::Result<Session> {
        let token = self.token.into_token()?;
        Ok(Session { id: self.session_id, token, last_used_at: self.session_last_used_at })
    }
}

#[derive(FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    found: Found,
    user_agent: Option<String>,
    began_at: DateTime<Utc>,
}

impl ListedRow {
    fn into_listed(self) -> sqlx::Result<Listed> {
        Ok(Listed {
            session: self.found.into_session()?,
            user_agent: self.user_agent,
            began_at: self.began_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_43_characters_of_urls_and_differ() {
        let (a, b) = (new_code().unwrap(), new_code().unwrap());
        assert!(a.len() == 43 && a.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn the_name_of_a_browser_is_cut_between_characters() {
        assert_eq!(shortened(Some(&"\u{e9}".repeat(300))), Some("\u{e9}".repeat(255)));
        assert_eq!(shortened(None), None);
    }
}
