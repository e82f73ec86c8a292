//! Answers in fewer bytes: gzip and Brotli, for what operators read. Redirects, events and probes are too small to
//! gain, and never come here.
//!
//! Compressing a secret beside a caller's words would tell the secret by its length (BREACH) to someone who can make
//! a victim's browser ask. Nobody can here: a request of the API carries a bearer token, which a browser does not
//! add by itself, and the cookie of the dashboard is `SameSite=Strict`: no page of another site makes a browser send it. All the same the
//! token in the dashboard's forms is written differently on each page, and the one answer with a secret, a new token, is left as it is.

use axum::http::{Extensions, HeaderMap, StatusCode, Version, header};
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{And, SizeAbove},
};

use crate::http::api::manners::idempotency::WithoutSecret;

/// Answers that are shorter stay as they are.
const BYTES_MIN: u16 = 1024;

type Worthwhile = And<SizeAbove, fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool>;

/// Compresses what is worth it.
pub(super) fn layer() -> CompressionLayer<Worthwhile> {
    let may_be_compressed: fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool =
        |_, _, headers, extensions| {
            // a strong ETag names these bytes (RFC 9110 section 8.8.1), and If-Match takes no weak one
            // and a stream of events is to arrive event by event
            let is_stream = headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|media_type| media_type.as_bytes().starts_with(b"text/event-stream"));
            !is_stream && !headers.contains_key(header::ETAG) && extensions.get::<WithoutSecret>().is_none()
        };
    CompressionLayer::new().compress_when(SizeAbove::new(BYTES_MIN).and(may_be_compressed))
}
