//! `Idempotency-Key` on a POST of the API (draft-ietf-httpapi-idempotency-key-header): the same request again is
//! not run again but answered as it was, on whichever node it arrives.
//!
//! Answers to what succeeded are kept. A request that was refused changed nothing, so its key stays free; one that
//! failed on our side may have changed something, and whoever brings it again carries on: with the same id for what
//! it makes, so that a campaign is made once even if its node died before it could keep the answer.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::App,
    db::store::idempotency::{self, Answer, Claim, Claimed},
    housekeeping::clock,
    http::{
        api::manners::{auth, position::X_OCTO_POSITION, problems, request::BODY_BYTES_MAX},
        body,
        described::{Described, is_success, text},
        error::{FieldError, Problem, panicked},
        request_id,
    },
    metrics,
    model::{id::new_uuid, token::Scope},
};

/// The header of a request.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `true` on an answer that was given before.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A key, for the document: characters without a quote, a comma or a semicolon, or a string in quotes.
const KEY_PATTERN: &str = r#"^(?:[!#-+\--:<-~]{1,255}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$"#;

/// Longest key, in characters.
const KEY_CHARS_MAX: usize = 255;

/// How paths end that take files.
const IMPORT: &str = "/import";

/// How the path ends that takes a file and changes nothing.
const RECONCILIATIONS: &str = "/reconciliations";

/// Longest answer that is kept, in bytes: more than any POST of the API answers.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often old answers are looked for.
const HOUSE_KEEPING: Duration = Duration::from_mins(1);

/// Headers of an answer that are kept with it.
const KEPT: [HeaderName; 5] =
    [header::CONTENT_TYPE, header::LOCATION, header::ETAG, header::CACHE_CONTROL, X_OCTO_POSITION];

/// What is to be kept of an answer in place of its body, which holds a secret.
#[derive(Debug, Clone)]
pub(crate) struct WithoutSecret(pub Bytes);

/// Of an answer that is too long to be kept: its request is run again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotKept;

/// Which run of a request this is; without a key each is the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// The id of what the request makes.
    pub id: Uuid,
    /// Whether a run before this one may have made it.
    pub is_again: bool,
    /// Whether there is a key.
    pub has_key: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Attempt {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let given = parts.extensions.get::<Self>().copied();
        Ok(given.unwrap_or_else(|| Self { id: new_uuid(), is_again: false, has_key: false }))
    }
}

/// Runs a POST with a key once; everything else as it comes.
pub(crate) async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    let has_key = request.headers().contains_key(IDEMPOTENCY_KEY);
    if request.method() != Method::POST || !has_key || is_question(request.uri().path()) {
        return next.run(request).await;
    }
    answer(&app, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, request: Request, next: Next) -> Result<Response, Problem> {
    // whoever may do nothing leaves no rows; whether this is enough for the route is for its handler to say
    let (mut head, body) = request.into_parts();
    let token = auth::introduce(Scope::Ingest, &mut head, app).await?;
    let key = key(&head.headers).ok_or_else(malformed)?;
    let body = body::read(body, bytes_max(app, head.uri.path())).await?;
    let known_by = idempotency::Request { token_id: token.id, key, fingerprint: fingerprint(&head, &body) };
    let lease = app.config.api.idempotency_lease;
    match idempotency::claim(&app.db, &known_by, lease).await? {
        Claimed::Run(claim) => Ok(run(app.clone(), known_by, claim, (head, body), next).await),
        Claimed::Answered(answer) => {
            metrics::idempotent_request("replayed");
            replayed(answer)
        }
        Claimed::Different => {
            metrics::idempotent_request("different");
            Err(different())
        }
        Claimed::Running(left) => {
            metrics::idempotent_request("running");
            tracing::debug!(?left, "a request is being run already");
            Err(running())
        }
    }
}

/// Whether a POST only asks, with a file: asked again, it is answered as things are then.
fn is_question(path: &str) -> bool {
    path.ends_with(RECONCILIATIONS)
}

/// Longest body of a request: of a file it is more.
fn bytes_max(app: &App, path: &str) -> usize {
    if path.ends_with(IMPORT) { app.config.postbacks.import_bytes_max } else { BODY_BYTES_MAX }
}

/// Runs the request to its end, and keeps its answer, also when the client does not wait for it.
async fn run(
    app: App,
    known_by: idempotency::Request,
    claim: Claim,
    (mut head, body): (Parts, Bytes),
    next: Next,
) -> Response {
    metrics::idempotent_request("run");
    let attempt = Attempt { id: claim.object_id, is_again: claim.attempt > 1, has_key: true };
    head.extensions.insert(attempt);
    let request = Request::from_parts(head, Body::from(body));
    let work = request_id::inherited(async move {
        let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        keep(&app, &known_by, claim, response.unwrap_or_else(panicked)).await
    });
    #[expect(
        clippy::disallowed_methods,
        reason = "a client that hangs up must not leave a request half run; it ends when its handler does"
    )]
    let task = tokio::spawn(work);
    task.await.unwrap_or_else(|error| Problem::internal(error).into_response())
}

/// Keeps the answer or lets go of the key. If that fails, the request is carried on with once the lease is over.
async fn keep(app: &App, known_by: &idempotency::Request, claim: Claim, response: Response) -> Response {
    let status = response.status();
    let (response, done) = if response.extensions().get::<NotKept>().is_some() {
        (response, idempotency::release(&app.db, known_by, claim).await)
    } else if status.is_success() {
        match kept(response).await {
            Ok((response, answer)) => (response, idempotency::finish(&app.db, known_by, claim, answer).await),
            Err(problem) => return problem.into_response(),
        }
    } else if status.is_server_error() {
        (response, idempotency::hand_over(&app.db, known_by, claim).await)
    } else {
        (response, idempotency::release(&app.db, known_by, claim).await)
    };
    if let Err(error) = done {
        tracing::warn!(error = &error as &dyn std::error::Error, "the answer to a request was not kept");
    }
    response
}

/// The answer as it is given, and as it is kept.
async fn kept(response: Response) -> Result<(Response, Answer), Problem> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(Problem::internal)?;
    let text = |name: &HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    let without_secret = parts.extensions.get::<WithoutSecret>();
    let answer = Answer {
        status: parts.status.as_u16(),
        headers: KEPT.iter().filter_map(text).collect(),
        body: without_secret.map_or(&body, |kept| &kept.0).to_vec(),
    };
    Ok((Response::from_parts(parts, Body::from(body)), answer))
}

fn replayed(answer: Answer) -> Result<Response, Problem> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(Problem::internal)?;
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        let name = HeaderName::try_from(name).map_err(Problem::internal)?;
        headers.insert(name, HeaderValue::try_from(value).map_err(Problem::internal)?);
    }
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// The one key: a structured field's string (RFC 9651) or, as most send it, its characters without the quotes.
fn key(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let text = value.to_str().ok()?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unescaped(rest.strip_suffix('"')?)?,
        None if text.contains([' ', '"', ',', ';']) => return None,
        None => text.to_owned(),
    };
    let is_plain = key.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    ((1..=KEY_CHARS_MAX).contains(&key.len()) && is_plain).then_some(key)
}

/// Within the quotes, `\"` and `\\` stand for the second of them, and nothing else is escaped.
fn unescaped(text: &str) -> Option<String> {
    let mut key = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            '"' => return None,
            other => key.push(other),
        }
    }
    Some(key)
}

/// What makes it the same request: address, media type and body, byte by byte.
fn fingerprint(head: &Parts, body: &[u8]) -> [u8; 32] {
    let content_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let mut hash = Sha256::new();
    for part in [target.as_bytes(), content_type, body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn problem(status: StatusCode, code: &'static str, detail: &'static str, fault: &str) -> Problem {
    Problem::new(status, code, detail).with_errors(vec![FieldError::new("Idempotency-Key", code, fault)])
}

fn malformed() -> Problem {
    let fault = format!("must be one text of 1 to {KEY_CHARS_MAX} printable ASCII characters");
    let detail = "The Idempotency-Key cannot be read; a UUID is a good one.";
    problem(StatusCode::BAD_REQUEST, "invalid_idempotency_key", detail, &fault)
}

fn different() -> Problem {
    let detail = "This Idempotency-Key was sent with another request; give each request a key of its own.";
    problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail, "belongs to another request")
}

fn running() -> Problem {
    let detail = "The request with this Idempotency-Key is still running; ask again for its answer.";
    problem(StatusCode::CONFLICT, "idempotency_key_in_use", detail, "belongs to a request that is running")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// Forgets old answers, until the stop signal.
pub async fn housekeeping(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let keep = app.config.api.idempotency_keep;
    loop {
        let forgotten = match clock::lets_delete(&app).await {
            Ok(true) => idempotency::delete_old(&app.db, keep, app.config.api.idempotency_keys_max).await,
            refused => refused.map(|_| 0),
        };
        match forgotten {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "old answers were forgotten"),
            // they are looked for again in a minute
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "old answers stay"),
        }
        if stop.run_until_cancelled(sleep(HOUSE_KEEPING)).await.is_none() {
            return Ok(());
        }
    }
}

/// Says of a POST of the API in the document that it takes a key.
pub(crate) fn describe(it: &mut Described<'_>) {
    if !it.is_guarded() || it.method != "POST" || is_question(it.path) {
        return;
    }
    let description = "A name for this request, such as a UUID. The same request again with the same key is not \
                       run again, but answered as before with `Idempotency-Replayed: true`; another request with \
                       it is refused (422), and so is one that comes while the first still runs (409).";
    let example = "8e03978e-40d5-43dd-bc93-6894a57f9324";
    it.takes("Idempotency-Key", description, text(Some(KEY_PATTERN)), example);
    let running =
        || problems::response("The request with this `Idempotency-Key` is still running.", &running()).into();
    it.operation.responses.responses.entry("409".to_owned()).or_insert_with(running);
    let when = "Seconds; only where the request with this `Idempotency-Key` is running.";
    it.answers(|status| status == "409", "Retry-After", when, "1");
    let replayed = "`true`: the answer was given before for this `Idempotency-Key`.";
    it.answers(is_success, "Idempotency-Replayed", replayed, "true");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<String> {
        key(&values.iter().map(|v| (IDEMPOTENCY_KEY, HeaderValue::from_str(v).unwrap())).collect())
    }

    #[test]
    fn a_key_is_a_text_with_or_without_quotes() {
        for (given, wanted) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
        ] {
            assert_eq!(of(&[given]).as_deref(), Some(wanted));
        }
        let long = "x".repeat(256);
        for bad in [
            &[][..],
            &[""],
            &["\"\""],
            &["\"a"],
            &["a\""],
            &[r#""\n""#],
            &["a b"],
            &["a, b"],
            &["a", "a"],
            &[&long],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn another_body_address_or_media_type_is_another_request() {
        let head = |target: &str, media_type: &str| {
            let request = Request::post(target).header("content-type", media_type).body(()).unwrap();
            request.into_parts().0
        };
        let first = fingerprint(&head("/a?b", "x/y"), b"c");
        assert_eq!(first, fingerprint(&head("/a?b", "x/y"), b"c"));
        for other in [
            fingerprint(&head("/a", "x/y"), b"c"),
            fingerprint(&head("/a?b", "x/z"), b"c"),
            fingerprint(&head("/a?b", "x/y"), b"d"),
            fingerprint(&head("/a?bx", "/y"), b"c"),
        ] {
            assert_ne!(first, other);
        }
    }
}
