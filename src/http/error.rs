//! What a request is refused with: RFC 9457 `application/problem+json`. [`Problem`] is the only type that
//! knows an HTTP status.
//!
//! A body is at most 4,096 bytes long whatever was sent, names every bad field it has room for, and
//! never says what a 5xx was about: that is logged here, once, with its causes.

use std::{any::Any, borrow::Cow, error::Error as StdError};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id;
use crate::{db, metrics};

/// Longest body of a problem, in bytes.
#[cfg(test)]
const BODY_BYTES_MAX: usize = 4096;

/// Bytes for the list of bad fields; the rest is for the frame and the detail.
const ERRORS_BYTES_MAX: usize = 3000;
const ERRORS_MAX: usize = 20;
const DETAIL_CHARS_MAX: usize = 400;
const POINTER_CHARS_MAX: usize = 120;
const OVERLOADED: &str = "overloaded";
const NO_ROOM: &str = "no_room";

/// A refusal.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    refusal: Option<Box<Refusal>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// PostgreSQL's no; boxed, because a [`Problem`] travels in every `Result`.
#[derive(Debug)]
struct Refusal {
    sqlstate: String,
}

/// One bad field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where it is: an RFC 6901 JSON pointer into the body, `?name` for a parameter of the query, or the name of a
    /// header.
    #[schema(example = "/offers/0/url")]
    pub pointer: String,
    /// What kind of fault it is; stable.
    #[schema(example = "required")]
    pub code: &'static str,
    /// What is wrong, in words.
    #[schema(example = "is required")]
    pub detail: String,
}

impl FieldError {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

impl Problem {
    /// A refusal with `status`; `code` is stable and for programs, `detail` is for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self { status, code, detail, errors: Vec::new(), refusal: None, headers: Vec::new(), source: None }
    }

    /// 400
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401, which tells the client to send a bearer token.
    pub fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"octo\""))
    }

    /// 403
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404; `what` is what was not found, such as `campaign`.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        let detail = "This address does not take this method; Allow says which it takes.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// 409
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 412
    pub fn precondition_failed() -> Self {
        let detail = "It has changed since: its version is not the one of If-Match.";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
    }

    /// 413
    pub fn too_large(bytes_max: usize) -> Self {
        let detail = format!("The body is longer than {bytes_max} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 415 for a compressed body (RFC 9110 section 15.5.16): a few bytes could unpack to very many.
    pub fn unsupported_encoding() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "The body must not be compressed.",
        )
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// 415; `wanted` are the media types that are taken.
    pub fn unsupported_media_type(wanted: &str) -> Self {
        let detail = format!("The Content-Type must be {wanted}.");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// 422 with every bad field.
    pub fn unprocessable(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is not valid.".to_owned(),
            n => format!("{n} fields are not valid."),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", detail).with_errors(errors)
    }

    /// 429; the address may again after so many seconds.
    pub fn too_many(seconds: u64, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// 500; the answer does not say why, the log does.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let detail = "Something went wrong on our side; the log says what.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).with_source(source)
    }

    /// 503 with `Retry-After: 1`.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503 with `Retry-After: 1`, which is not logged one by one.
    pub fn overloaded() -> Self {
        let detail = "There is more to do than can be done; send it again in a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503 with `Retry-After: 10`, which is not logged one by one: the rest of the journal is for clicks.
    pub fn no_room() -> Self {
        let detail = "There is no room for events now; send it again later.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, NO_ROOM, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("10"))
    }

    /// With the fields that are at fault.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// With why PostgreSQL refused a record.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: String) -> Self {
        self.refusal = Some(Box::new(Refusal { sqlstate }));
        self
    }

    /// With a header of the answer, in place of one of that name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value));
        self
    }

    /// With a cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable name of the fault.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// A header of the answer.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The faults by field.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The body, cut to what fits.
    pub fn body(&self) -> ProblemBody {
        let errors = fitting(&self.errors);
        ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: cut(&self.detail, DETAIL_CHARS_MAX),
            code: self.code,
            sqlstate: self.refusal.as_ref().map(|refusal| refusal.sqlstate.clone()),
            errors_omitted: self.errors.len() - errors.len(),
            errors,
            request_id: request_id::current().map(|id| id.to_string()),
        }
    }

    /// Says in the log what a 5xx was about; whoever answers in a form of its own does it once.
    pub(crate) fn log(&self) {
        let cause = self.source.as_deref().map(|s| chain(s)).unwrap_or_default();
        let (status, code) = (self.status.as_u16(), self.code);
        if [OVERLOADED, NO_ROOM].contains(&self.code) {
            // said once, when it begins: a line each would be one more load
        } else if self.status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(status, code, detail = %self.detail, cause, "request refused");
        } else if self.status.is_server_error() {
            tracing::error!(status, code, detail = %self.detail, cause, "request failed");
        }
    }
}

/// The body of a refusal (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: `code` says what it is.
    #[schema(value_type = String, example = "about:blank")]
    pub r#type: &'static str,
    /// The status in words.
    #[schema(value_type = String, example = "Unprocessable Entity")]
    pub title: &'static str,
    /// The status.
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong, for people.
    #[schema(example = "1 field is not valid.")]
    pub detail: String,
    /// What is wrong, for programs; stable.
    #[schema(value_type = String, example = "invalid_fields")]
    pub code: &'static str,
    /// Why PostgreSQL refused a record, where it is about one.
    #[schema(example = "22P05")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// Every bad field there is room for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// How many bad fields there was no room for.
    #[serde(skip_serializing_if = "is_zero")]
    pub errors_omitted: usize,
    /// `X-Request-Id` of the answer; log lines about the request name it too.
    #[schema(example = "019aaf3c-5f00-7abc-8def-0123456789ab")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log();
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}

impl From<db::Error> for Problem {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Unavailable(_) => {
                Self::unavailable("The database cannot be reached at the moment; try again.")
                    .with_source(error)
            }
            db::Error::Conflict { ref constraint } if constraint == "campaigns_key" => {
                let taken = FieldError::new("/key", "taken", "is the key of another campaign");
                Self::conflict("Another campaign has this key.").with_errors(vec![taken])
            }
            db::Error::Conflict { ref constraint } if constraint == "affiliate_networks_postback_key" => {
                let taken = FieldError::new("/postback_key", "taken", "is the key of another network");
                Self::conflict("Another affiliate network has this postback key.").with_errors(vec![taken])
            }
            db::Error::Conflict { ref constraint } if constraint == "campaigns_traffic_source_id_fkey" => {
                FieldError::new("/traffic_source_id", "not_found", "is no traffic source").into()
            }
            db::Error::Conflict { .. } => {
                Self::conflict("It does not fit with what is stored.").with_source(error)
            }
            db::Error::Encoding(_) | db::Error::Query { .. } => Self::internal(error),
        }
    }
}

impl From<Vec<FieldError>> for Problem {
    fn from(errors: Vec<FieldError>) -> Self {
        Self::unprocessable(errors)
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::unprocessable(vec![error])
    }
}

/// The text up to `chars_max` characters, with an ellipsis where something is gone.
pub(super) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}\u{2026}", &text[..at]),
        None => text.to_owned(),
    }
}

/// As many errors as the body has room for, in their order.
fn fitting(errors: &[FieldError]) -> Vec<FieldError> {
    let mut left = ERRORS_BYTES_MAX;
    let mut fitting = Vec::new();
    for error in errors.iter().take(ERRORS_MAX) {
        let error = FieldError {
            pointer: cut(&error.pointer, POINTER_CHARS_MAX),
            code: error.code,
            detail: cut(&error.detail, DETAIL_CHARS_MAX),
        };
        let bytes = serde_json::to_string(&error).map_or(usize::MAX, |json| json.len() + 1);
        if bytes > left {
            break;
        }
        left -= bytes;
        fitting.push(error);
    }
    fitting
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// 500 for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the layer gives the panic away")]
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    metrics::panicked();
    let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Problem::internal(format!("a request panicked: {}", what.unwrap_or("no message"))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(problem: &Problem) -> serde_json::Value {
        serde_json::to_value(problem.body()).unwrap()
    }

    #[test]
    fn a_problem_names_every_bad_field() {
        let errors = vec![
            FieldError::new("/name", "required", "is required"),
            FieldError::new("/key", "pattern", "x"),
        ];
        let body = json(&Problem::unprocessable(errors));
        assert_eq!(body["status"], 422);
        assert_eq!(body["title"], "Unprocessable Entity");
        assert_eq!(body["errors"][1]["pointer"], "/key");
        assert!(body.get("errors_omitted").is_none());
    }

    #[test]
    fn a_body_stays_small_whatever_was_sent() {
        let long = "\u{1}\u{1F600}\"".repeat(5000);
        let errors = vec![FieldError::new(long.clone(), "unknown", long.clone()); 500];
        let problem =
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", "x").with_errors(errors);
        let bytes = serde_json::to_vec(&problem.body()).unwrap();
        assert!(bytes.len() <= BODY_BYTES_MAX, "{}", bytes.len());
        let short = vec![FieldError::new("/a", "unknown", "is not known"); 500];
        let body = json(&Problem::unprocessable(short));
        assert_eq!(body["errors"].as_array().unwrap().len(), ERRORS_MAX);
        assert_eq!(body["errors_omitted"], 480);
    }

    #[test]
    fn an_unreachable_database_says_when_to_come_back() {
        let response = Problem::from(db::Error::Unavailable("refused".into())).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    }

    #[test]
    fn a_taken_key_is_named_and_a_failed_query_is_not() {
        let taken = json(&Problem::from(db::Error::Conflict { constraint: "campaigns_key".to_owned() }));
        assert_eq!((taken["status"].as_u64(), &taken["errors"][0]["pointer"]), (Some(409), &"/key".into()));
        let source = sqlx::Error::ColumnNotFound("canary".to_owned());
        let failed = json(&Problem::from(db::Error::Query { query: "campaign.get", source }));
        assert_eq!(failed["status"], 500);
        assert!(!failed.to_string().contains("canary"));
    }
}
