//! A name for each request: in the answer's `X-Request-Id`, in every log line it caused, and in the problem it was
//! refused with, so that a complaint leads to its line. A caller's own name is kept where it is well formed.
//!
//! Links (`/click`, `/c/KEY`) have none: their name is `X-Click-Id`, which is stored too.

use std::{fmt, future::Future};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::Instrument as _;

use super::described::{Described, text};
use crate::model::id::new_uuid;

/// The header, both ways.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name of a caller's that is kept; a longer one gets a new name, and so does one with other characters: it
/// goes into log lines.
const CHARS_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The name of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's, if it sent one that is well formed, else a UUIDv7.
    fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(value), None) if is_well_formed(value.as_bytes()) => Self(value.clone()),
            _ => Self::new(),
        }
    }

    fn new() -> Self {
        let id = HeaderValue::try_from(new_uuid().to_string());
        Self(id.unwrap_or_else(|_| HeaderValue::from_static("-"))) // hexadecimal digits and hyphens: never
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

fn is_well_formed(value: &[u8]) -> bool {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:".contains(b);
    (1..=CHARS_MAX).contains(&value.len()) && value.iter().all(is_plain)
}

/// Answers a request under its name.
pub(super) async fn carry(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let header = id.0.clone();
    // of the highest level: `log.level = "error"` would otherwise switch it off, and errors would be nobody's
    let span = tracing::error_span!("request", request_id = %id);
    let mut response = CURRENT.scope(id, next.run(request)).instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, header);
    response
}

/// The name of the request that is being answered, if it has one.
pub(super) fn current() -> Option<RequestId> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Runs `work`, which goes on in a task of its own, under the name of the request that began it.
pub(super) fn inherited<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let id = current().unwrap_or_else(RequestId::new);
    CURRENT.scope(id, work).in_current_span()
}

/// Says in the document that a request may bring a name and its answer has one; links, which are answered past the
/// layers, have none.
pub(super) fn describe(it: &mut Described<'_>) {
    let example = "019aaf3c-5f00-7abc-8def-0123456789ab";
    let description = "A name for this request, 1 to 64 of `A-Za-z0-9-_.:`. The answer, the log and a problem name it; \
                       whatever is not one gets a new name.";
    it.takes("X-Request-Id", description, text(None), example);
    it.answers(|_| true, "X-Request-Id", "The name of this request.", example);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> String {
        let values = values.iter().map(|v| (X_REQUEST_ID, HeaderValue::from_bytes(v.as_bytes()).unwrap()));
        RequestId::of(&values.collect()).to_string()
    }

    #[test]
    fn a_well_formed_name_is_kept_and_any_other_gets_a_new_one() {
        assert_eq!(of(&["job-7:a_b.C"]), "job-7:a_b.C");
        assert_eq!(of(&[&"x".repeat(64)]).len(), 64);
        let long = "x".repeat(65);
        for bad in [&[][..], &[""], &["a b"], &["a\u{e9}"], &["a\"}"], &[&long], &["a", "b"]] {
            let made = uuid::Uuid::try_parse(&of(bad)).unwrap();
            assert_eq!(made.get_version_num(), 7, "{bad:?}");
        }
    }
}
