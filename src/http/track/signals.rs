//! What the head of a request says of its purpose and of its sender's wishes.

use axum::http::{HeaderMap, HeaderName};

use crate::config::Privacy;

/// `Sec-Purpose` (<https://fetch.spec.whatwg.org/#sec-purpose-header>) and its elder brothers.
pub(crate) fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        headers.get(*name).and_then(|v| v.to_str().ok()).is_some_and(|value| {
            value.split([';', ',', ' ']).any(|v| matches!(v, "prefetch" | "prerender" | "preview"))
        })
    })
}

/// `Sec-GPC: 1` (<https://www.w3.org/TR/gpc/>) or `DNT: 1`, where it is to be respected.
pub(crate) fn asks_for_privacy(headers: &HeaderMap, privacy: &Privacy) -> bool {
    const GPC: HeaderName = HeaderName::from_static("sec-gpc");
    let is_one = |name| headers.get(name).is_some_and(|value| value == "1");
    (privacy.respect_gpc && is_one(GPC)) || (privacy.respect_dnt && is_one(axum::http::header::DNT))
}
