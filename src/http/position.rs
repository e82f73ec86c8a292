//! Read your writes across nodes: the answer to a change says in `X-Octo-Position` where it is in the primary's
//! log, and a request that brings the position is answered from a server that has it. On one node that is so
//! without the header.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::error::Problem;
use crate::{app::App, db::position};

/// The header, both ways: `0/3000148`, as Postgres writes a position.
pub(super) const X_OCTO_POSITION: HeaderName = HeaderName::from_static("x-octo-position");

/// Lets the reads of a request see what it asks for, and says where a change was written.
pub(super) async fn see(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(asked) = asked(request.headers()) else {
        let detail = "X-Octo-Position is a position from an earlier answer, such as 0/3000148.";
        return Problem::bad_request("position", detail).into_response();
    };
    let is_change = !request.method().is_safe();
    let mut response = position::at_least(asked, next.run(request)).await;
    let written = app.db.written();
    if is_change
        && written > 0
        && response.status().is_success()
        && let Ok(value) = HeaderValue::try_from(position::to_text(written))
    {
        response.headers_mut().insert(X_OCTO_POSITION, value);
    }
    response
}

/// 0 without the header; `None` when it is no position.
fn asked(headers: &HeaderMap) -> Option<u64> {
    match headers.get(X_OCTO_POSITION) {
        None => Some(0),
        Some(value) => value.to_str().ok().and_then(position::from_text),
    }
}
