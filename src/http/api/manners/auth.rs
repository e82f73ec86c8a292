//! Who may: `Authorization: Bearer octo_...`. A handler says what it needs by taking [`Admin`] or [`Read`] as
//! its first argument, so that nothing else is looked at before.

use std::{net::IpAddr, time::Instant};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use chrono::Utc;
use utoipa::openapi::security::SecurityRequirement;

use crate::{
    app::App,
    db::{self, store::tokens},
    http::{
        client::{self, Peer},
        described::Described,
        error::Problem,
    },
    limits::{Over, Watcher},
    metrics::{self, Auth},
    model::token::{Hash, Scope, Token, hash},
};

macro_rules! scope_extractor {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(pub Token);

        impl FromRequestParts<App> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
                require(Scope::$name, parts, app).await.map(Self)
            }
        }
    };
}

scope_extractor! {
    /// A token that may do everything, and which.
    Admin
}
scope_extractor! {
    /// A token that may tell of events, and which.
    Ingest
}

/// A token that may read.
#[derive(Debug)]
pub(crate) struct Read;

impl FromRequestParts<App> for Read {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        require(Scope::Read, parts, app).await.map(|_| Self)
    }
}

/// Somebody who may see `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics;

impl FromRequestParts<App> for Metrics {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        may_watch(parts, app).await.map(|()| Self)
    }
}

/// A request that came to `server.admin_listen`; an extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToAdminListener;

/// Whether a request may see `/metrics` and the detailed `/health`: on the admin listener, from the machine itself, or
/// with a token that may; 401, 403 or 429 if not.
///
/// The database is not asked for the token of each scrape, and while it does not answer a token that was valid is: then
/// there is most to see.
pub(crate) async fn may_watch(parts: &Parts, app: &App) -> Result<(), Problem> {
    if is_at_home(parts, app) {
        return Ok(());
    }
    let server = &app.config.server;
    let token = bearer(&parts.headers).and_then(hash);
    let known = token.and_then(|token| app.limits.watcher(&token));
    if known.is_some_and(|k| k.asked_at.elapsed() < server.metrics_token_recheck) {
        return Ok(());
    }
    let expires_at = match (require(Scope::Metrics, parts, app).await, known) {
        (Ok(token), _) => token.expires_at,
        (Err(problem), Some(known)) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => {
            known.expires_at
        }
        (Err(problem), _) => return Err(problem),
    };
    if let Some(token) = token {
        app.limits.note_watcher(token, Watcher { asked_at: Instant::now(), expires_at });
    }
    Ok(())
}

/// As [`may_watch`], for what tells everybody something: who shows no token is a stranger and makes no attempt.
pub(crate) async fn is_watcher(parts: &Parts, app: &App) -> bool {
    let has_token = parts.headers.contains_key(header::AUTHORIZATION);
    (has_token || is_at_home(parts, app)) && may_watch(parts, app).await.is_ok()
}

/// Whether `/metrics` and the detailed `/health` need no token here.
fn is_at_home(parts: &Parts, app: &App) -> bool {
    let is_local = || {
        let peer = parts.extensions.get::<Peer>();
        peer.is_some_and(|Peer(peer)| client::is_local(peer.ip(), &parts.headers))
    };
    app.config.server.public_metrics || parts.extensions.get::<ToAdminListener>().is_some() || is_local()
}

/// The token of a request whose token a layer asked for before its handler does: it is looked up once.
#[derive(Clone)]
struct Known(Token);

/// As [`require`], for a layer: whoever asks after it for the token of this request finds it.
pub(crate) async fn introduce(needed: Scope, parts: &mut Parts, app: &App) -> Result<Token, Problem> {
    let token = require(needed, parts, app).await?;
    parts.extensions.insert(Known(token.clone()));
    Ok(token)
}

/// The token of a request, if it may do what needs `needed`; 401, 403 or 429 if not.
pub(crate) async fn require(needed: Scope, parts: &Parts, app: &App) -> Result<Token, Problem> {
    let (token, is_known) = match parts.extensions.get::<Known>() {
        Some(Known(token)) => (token.clone(), true),
        None => (identify(parts, app).await?, false),
    };
    if !token.scope.allows(needed) {
        metrics::auth(Auth::Forbidden);
        return Err(insufficient_scope(token.scope, needed));
    }
    if is_known {
        return Ok(token);
    }
    metrics::auth(Auth::Ok);
    // while the primary is away a replica let it in; nothing can be noted then, and nobody waits for that
    if app.db.primary_seen().is_some()
        && let Err(error) = tokens::touch(&app.db, &token, Utc::now()).await
    {
        // for people who look for unused tokens; no reason to refuse a request
        tracing::debug!(error = &error as &dyn std::error::Error, "the use of a token could not be noted");
    }
    Ok(token)
}

/// The valid token of a request; 401 or 429 if there is none.
///
/// Failed attempts are limited for each address: over `limits.failed_auth_per_minute` the database is asked only
/// for tokens that were valid before. So who guesses is not answered, and who shares the address goes on working.
/// No credentials are no attempt, and a scope that is too small is no guess.
async fn identify(parts: &Parts, app: &App) -> Result<Token, Problem> {
    if !parts.headers.contains_key(header::AUTHORIZATION) {
        metrics::auth(Auth::Missing);
        return Err(Problem::unauthorized("A token is needed: Authorization: Bearer octo_..."));
    }
    token_of(bearer(&parts.headers), parts, app).await
}

/// The valid token with this secret; 401 or 429 if there is none.
pub(crate) async fn token_of(secret: Option<&str>, parts: &Parts, app: &App) -> Result<Token, Problem> {
    known(secret.and_then(hash), parts, app, |hash| tokens::find(&app.db, hash)).await
}

/// What `find` knows of a secret with this hash, be it a token, a cookie or the code of a link; `None` has not the shape of one.
/// 401 or 429 if it knows nothing: whoever guesses one of them is not answered for the others either.
pub(crate) async fn known<T, Finding>(
    hash: Option<Hash>,
    parts: &Parts,
    app: &App,
    find: impl FnOnce(Hash) -> Finding + Send,
) -> Result<T, Problem>
where
    Finding: Future<Output = Result<Option<T>, db::Error>> + Send,
{
    let Some(hash) = hash else { return Err(failed(parts, app)) };
    if !app.limits.is_proven(&hash) {
        may_try(parts, app)?;
    }
    let Some(found) = find(hash).await? else {
        app.limits.disprove(&hash);
        return Err(failed(parts, app));
    };
    app.limits.prove(hash);
    Ok(found)
}

/// Whether the address may try credentials that nobody knows.
fn may_try(parts: &Parts, app: &App) -> Result<(), Problem> {
    match (&app.limits.failed_auth, client(parts, app)) {
        (Some(limit), Some(client)) => limit.look(client).map_err(limited),
        _ => Ok(()),
    }
}

/// Credentials that are no valid token: 401, or 429 where there were too many from the address.
fn failed(parts: &Parts, app: &App) -> Problem {
    if let (Some(limit), Some(client)) = (&app.limits.failed_auth, client(parts, app))
        && let Err(over) = limit.count(client)
    {
        return limited(over);
    }
    metrics::auth(Auth::Failed);
    invalid_token()
}

fn limited(over: Over) -> Problem {
    metrics::auth(Auth::Limited);
    Problem::too_many(over.seconds(), "Too many attempts with wrong credentials from this address.")
}

fn client(parts: &Parts, app: &App) -> Option<IpAddr> {
    let Peer(peer) = parts.extensions.get()?;
    Some(client::address(peer.ip(), &parts.headers, &app.config.server))
}

/// The credentials of the one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim_matches(' '))
}

/// Says in the document which scope an operation of the API needs, as OpenAPI 3.1 does for schemes without scopes of their
/// own: by role names. Reading needs `read`, all else `admin`, unless the operation says something else itself.
/// `tests/it/api/scopes.rs` holds each operation to it.
pub(crate) fn describe(it: &mut Described<'_>) {
    let scope = if it.method == "GET" { Scope::Read } else { Scope::Admin };
    let needed = || vec![SecurityRequirement::new("token", [<&str>::from(scope)])];
    it.operation.security.get_or_insert_with(needed);
    if it.is_guarded() {
        let challenge = "Bearer realm=\"octo\", error=\"invalid_token\"";
        let is_refused = |status: &str| matches!(status, "401" | "403");
        it.answers(is_refused, "WWW-Authenticate", "What is wanted (RFC 6750).", challenge);
    }
}

fn invalid_token() -> Problem {
    let challenge = HeaderValue::from_static("Bearer realm=\"octo\", error=\"invalid_token\"");
    Problem::unauthorized("The token is not known, is revoked or has expired.")
        .with_header(header::WWW_AUTHENTICATE, challenge)
}

fn insufficient_scope(has: Scope, needed: Scope) -> Problem {
    let challenge = HeaderValue::from_static("Bearer realm=\"octo\", error=\"insufficient_scope\"");
    Problem::forbidden(format!("This needs a token of scope {needed}; this one has {has}."))
        .with_header(header::WWW_AUTHENTICATE, challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|v| (header::AUTHORIZATION, HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_bearer_is_read_from_one_header() {
        assert_eq!(bearer(&headers(&["Bearer octo_1"])), Some("octo_1"));
        assert_eq!(bearer(&headers(&["bearer  octo_1 "])), Some("octo_1"));
        for bad in [&[][..], &["octo_1"], &["Basic eDp5"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn refusals_name_the_scheme_once() {
        use axum::response::IntoResponse as _;

        for problem in
            [invalid_token(), insufficient_scope(Scope::Read, Scope::Admin), Problem::unauthorized("x")]
        {
            let response = problem.into_response();
            let challenges: Vec<_> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
            assert_eq!(challenges.len(), 1);
            assert!(challenges[0].to_str().unwrap().starts_with("Bearer "));
        }
    }
}
