//! Versions of an object: `ETag`, `If-Match` and `If-None-Match` (RFC 9110 section 13).

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::http::{
    api::manners::answer::{answer, no_content},
    described::Described,
    error::Problem,
};

/// Says in the document what comes of the conditions that an operation takes, and that a 304 names the version.
pub(crate) fn describe(it: &mut Described<'_>) {
    for (condition, status, description) in [
        ("If-None-Match", "304", "It is still the one of If-None-Match."),
        ("If-Match", "412", "It has changed since."),
    ] {
        if it.reads(condition) {
            it.may_answer(status, description);
        }
    }
    it.answers(|status| status == "304", "ETag", "Its version, still.", "\"3\"");
}

/// With the version as its ETag: a cache may keep it, and asks each time whether it is still the one.
pub(crate) fn versioned(mut response: Response, version: i64) -> Response {
    response.headers_mut().insert(header::ETAG, etag(version));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// 200 with what has no version: its ETag is a hash of what is shown. 304 where `If-None-Match` names it.
pub(crate) fn tagged(headers: &HeaderMap, body: &impl Serialize) -> Result<Response, Problem> {
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
pub(crate) fn if_match_shown(headers: &HeaderMap, body: &impl Serialize) -> Result<(), Problem> {
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
pub(crate) fn not_modified(version: i64) -> Response {
    let mut response = versioned(Response::new(Body::empty()), version);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// 412 unless `If-Match` is absent or names this version (RFC 9110 section 13.1.1: strong comparison).
pub(crate) fn if_match(headers: &HeaderMap, version: i64) -> Result<(), Problem> {
    match names(headers, &header::IF_MATCH, &etag(version), |tag| tag) {
        None | Some(true) => Ok(()),
        Some(false) => Err(Problem::precondition_failed()),
    }
}

/// Whether `If-None-Match` names this version (RFC 9110 section 13.1.2: weak comparison).
pub(crate) fn if_none_match(headers: &HeaderMap, version: i64) -> bool {
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
}
