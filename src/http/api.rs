//! What the handlers of the admin API share: JSON in and out, a name in the path, versions of an object.

pub(crate) mod campaigns;
pub(crate) mod clicks;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod manners;
pub(crate) mod openapi;
pub(crate) mod stats;
pub(crate) mod system;
pub(crate) mod tokens;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    body,
    error::Problem,
    fields::{parse_json, replace_nul},
    head::require_identity,
};

/// Longest body, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of a body.
pub(super) const BODY_DEPTH_MAX: usize = 32;

/// Where the API is, from the root.
pub(super) const ROOT: &str = "/api/v1";

/// A JSON body; U+0000, which Postgres cannot store, is U+FFFD in it.
#[derive(Debug)]
pub(super) struct Json(pub Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Sent(body) = Sent::from_request(request, state).await?;
        let mut value = parse_json(&body, BODY_DEPTH_MAX)?;
        replace_nul(&mut value);
        Ok(Self(value))
    }
}

/// A body that says it is JSON, as it was sent.
#[derive(Debug)]
pub(super) struct Sent(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::unsupported_media_type("application/json"));
        }
        require_identity(request.headers())?;
        body::read(request.into_body(), BODY_BYTES_MAX).await.map(Self)
    }
}

/// The one name in the path.
#[derive(Debug)]
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Problem::not_found("resource"))
    }
}

/// An answer that is kept by nobody.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let json = serde_json::to_vec(body).map_err(Problem::internal)?;
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An answer without a body.
pub(super) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// With where the new object is.
pub(super) fn located(mut response: Response, location: &str) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(location).map_err(Problem::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// With the version as its ETag: a cache may keep it, and asks each time whether it is still the one.
pub(super) fn versioned(mut response: Response, version: i64) -> Response {
    response.headers_mut().insert(header::ETAG, etag(version));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// 200 with what has no version: its ETag is a hash of what is shown. 304 where `If-None-Match` names it.
pub(super) fn tagged(headers: &HeaderMap, body: &impl Serialize) -> Result<Response, Problem> {
    let etag = hash_etag(body)?;
    let is_known = names(headers, &header::IF_NONE_MATCH, &etag, weakly);
    let mut response = if is_known == Some(true) { no_content() } else { answer(StatusCode::OK, body)? };
    if is_known == Some(true) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response.headers_mut().insert(header::ETAG, etag);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// 412 unless `If-Match` is absent or names what is shown.
pub(super) fn if_match_shown(headers: &HeaderMap, body: &impl Serialize) -> Result<(), Problem> {
    match names(headers, &header::IF_MATCH, &hash_etag(body)?, |tag| tag) {
        None | Some(true) => Ok(()),
        Some(false) => Err(Problem::precondition_failed()),
    }
}

fn hash_etag(body: &impl Serialize) -> Result<HeaderValue, Problem> {
    let hash = Sha256::digest(serde_json::to_vec(body).map_err(Problem::internal)?);
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    HeaderValue::try_from(format!("\"{number:016x}\"")).map_err(Problem::internal)
}

/// 304
pub(super) fn not_modified(version: i64) -> Response {
    let mut response = versioned(Response::new(Body::empty()), version);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// 412 unless `If-Match` is absent or names this version (RFC 9110 section 13.1.1: strong comparison).
pub(super) fn if_match(headers: &HeaderMap, version: i64) -> Result<(), Problem> {
    match names(headers, &header::IF_MATCH, &etag(version), |tag| tag) {
        None | Some(true) => Ok(()),
        Some(false) => Err(Problem::precondition_failed()),
    }
}

/// Whether `If-None-Match` names this version (RFC 9110 section 13.1.2: weak comparison).
pub(super) fn if_none_match(headers: &HeaderMap, version: i64) -> bool {
    names(headers, &header::IF_NONE_MATCH, &etag(version), weakly) == Some(true)
}

fn weakly(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether a header names this tag; `None`: there is no such header.
fn names(
    headers: &HeaderMap,
    name: &header::HeaderName,
    wanted: &HeaderValue,
    plain: impl Fn(&str) -> &str,
) -> Option<bool> {
    let is_it = |tag: &str| tag == "*" || plain(tag).as_bytes() == wanted.as_bytes();
    headers.contains_key(name).then(|| {
        // our tags hold no comma, so a plain split finds them
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|tag| is_it(tag.trim()))
    })
}

fn etag(version: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/merge-patch+json"].iter().any(|t| media_type.eq_ignore_ascii_case(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn if_match_compares_strongly() {
        assert!(if_match(&HeaderMap::new(), 3).is_ok());
        for (value, matches) in [
            ("\"3\"", true),
            ("*", true),
            ("\"2\", \"3\"", true),
            ("\"2\"", false),
            ("W/\"3\"", false),
            ("3", false),
        ] {
            assert_eq!(if_match(&headers(header::IF_MATCH, value), 3).is_ok(), matches, "{value}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        assert!(!if_none_match(&HeaderMap::new(), 3));
        for (value, matches) in [("\"3\"", true), ("*", true), ("W/\"3\"", true), ("\"2\"", false)] {
            assert_eq!(if_none_match(&headers(header::IF_NONE_MATCH, value), 3), matches, "{value}");
        }
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        for (value, wanted) in
            [("application/json", true), ("Application/JSON; charset=utf-8", true), ("text/plain", false)]
        {
            assert_eq!(is_json(&headers(header::CONTENT_TYPE, value)), wanted, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
