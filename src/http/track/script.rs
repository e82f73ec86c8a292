//! `GET /o.js` and `GET /o.HASH.js`: the script of landing pages. It is the same for everybody, so it is made once, in
//! [`crate::script`].

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};

use crate::{app::App, http::error::Problem, script::Asked};

/// The methods of a script.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

impl Asked {
    /// Its route, for metrics.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Evergreen => "/o.js",
            Self::Pinned => "/o.{hash}.js",
        }
    }
}

/// Answers a request for a script.
pub(crate) fn answer(app: &App, asked: Asked, head: &Head) -> Response {
    match (&head.method, asked) {
        (&Method::GET | &Method::HEAD, Asked::Evergreen) => evergreen(app, head),
        (&Method::GET | &Method::HEAD, Asked::Pinned) => pinned(app, head),
        (&Method::OPTIONS, _) => (StatusCode::NO_CONTENT, [(header::ALLOW, METHODS)]).into_response(),
        _ => Problem::method_not_allowed().with_header(header::ALLOW, METHODS).into_response(),
    }
}

/// The script of landing pages
///
/// That of this release: browsers ask again after an hour. `GET /api/v1/script` has the element to put into pages, and
/// `docs/script.md` says what it does there. With `script.path` it is also elsewhere.
#[utoipa::path(
    get, path = "/o.js", tag = "tracking", operation_id = "script", security(()),
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of the script that is there.", example = "W/\"0123456789abcdef\"")),
    responses(
        (status = 200, description = "The script.", content_type = "text/javascript", body = String, headers(
            ("Cache-Control" = String, description = "An hour."),
            ("ETag" = String, description = "Names this text."),
        ), example = json!("(()=>{})();")),
        (status = 304, description = "It is the one that is there."),
    ),
)]
pub(super) fn evergreen(app: &App, head: &Head) -> Response {
    text(app, head, "public, max-age=3600")
}

/// The script of landing pages that never changes
///
/// For pages with `integrity`. After a change of release or names there is another one, and a page that names the earlier one
/// in its path gets that of today, as from `/o.js`.
#[utoipa::path(
    get, path = "/o.{hash}.js", tag = "tracking", operation_id = "pinned_script", security(()),
    params(("hash" = String, Path, description = "As in `pinned_url` of `GET /api/v1/script`.", example = "0123456789abcdef")),
    responses(
        (status = 200, description = "The script.", content_type = "text/javascript", body = String, headers(
            ("Cache-Control" = String, description = "A year; an hour for that of today."),
            ("ETag" = String, description = "Names this text."),
        ), example = json!("(()=>{})();")),
        (status = 304, description = "It is the one that is there."),
        (status = 404, description = "That is no hash."),
    ),
)]
pub(super) fn pinned(app: &App, head: &Head) -> Response {
    text(app, head, "public, max-age=31536000, immutable")
}

fn text(app: &App, head: &Head, cache_control: &'static str) -> Response {
    let script = &app.script;
    let etag = format!("W/\"{}\"", script.hash); // weak: it names the text, compressed or not
    let is_there = head.headers.get(header::IF_NONE_MATCH).is_some_and(|it| it == etag.as_str());
    let is_compressed = takes_gzip(&head.headers);
    let mut response = Response::new(match (is_there || head.method == Method::HEAD, is_compressed) {
        (true, _) => Body::empty(),
        (false, true) => script.gzip.clone().into(),
        (false, false) => script.text.clone().into(),
    });
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.extend(HeaderValue::try_from(etag).map(|etag| (header::ETAG, etag))); // hexadecimal
    if is_there {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Whether `gzip` is among the codings that are taken (RFC 9110, section 12.5.3), and not with `q=0`.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=");
        name.trim().eq_ignore_ascii_case("gzip")
            && !(weight.starts_with('0') && weight.trim_matches(['0', '.']).is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (value, takes) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=1", true),
            ("gzip;q=0", false),
            ("gzip; q=0.000", false),
            ("br", false),
            ("x-gzip", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(takes_gzip(&headers), takes, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
