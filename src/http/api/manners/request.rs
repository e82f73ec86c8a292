//! What a request brings: a JSON body, or a name in its path.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::{
    body,
    error::Problem,
    fields::{parse_json, replace_nul},
    head::require_identity,
};

/// Longest body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of a body.
pub(crate) const BODY_DEPTH_MAX: usize = 32;

/// A JSON body; U+0000, which Postgres cannot store, is U+FFFD in it.
#[derive(Debug)]
pub(crate) struct Json(pub Value);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Sent(body) = Sent::from_request(request, state).await?;
        let mut value = parse_json(&body, BODY_DEPTH_MAX)?;
        replace_nul(&mut value);
        Ok(Self(value))
    }
}

/// As [`Json`]; an empty object where there is no body.
#[derive(Debug)]
pub(crate) struct OptionalJson(pub Value);

impl<S: Send + Sync> FromRequest<S> for OptionalJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.headers().contains_key(header::CONTENT_TYPE) {
            return Json::from_request(request, state).await.map(|Json(value)| Self(value));
        }
        let body = body::read(request.into_body(), BODY_BYTES_MAX).await?;
        if body.is_empty() {
            return Ok(Self(json!({})));
        }
        Err(Problem::unsupported_media_type("application/json"))
    }
}

/// A body that says it is JSON, as it was sent.
#[derive(Debug)]
pub(crate) struct Sent(pub Bytes);

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
pub(crate) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| Problem::not_found("resource"))
    }
}

/// The id of a campaign, or of something else that has a key too: what looks like an id is one, and may be no key.
pub(crate) fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/merge-patch+json"].iter().any(|t| media_type.eq_ignore_ascii_case(t))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_told_by_its_media_type() {
        for (value, wanted) in
            [("application/json", true), ("Application/JSON; charset=utf-8", true), ("text/plain", false)]
        {
            assert_eq!(
                is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))])),
                wanted,
                "{value}"
            );
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
