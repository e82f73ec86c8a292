//! Read your writes across nodes: the answer to a change says in `X-Octo-Position` where it is in the primary's
//! log, and a request that brings the position is answered from a server that has it. On one node that is so
//! without the header.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    db::position,
    http::{
        api::manners::auth,
        described::{Described, is_success, text},
        error::{FieldError, Problem},
    },
    model::token::Scope,
};

/// The header, both ways: `0/3000148`, as Postgres writes a position.
pub(crate) const X_OCTO_POSITION: HeaderName = HeaderName::from_static("x-octo-position");

/// Lets the reads of a request see what it asks for, and says where a change was written.
pub(crate) async fn see(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(asked) = asked(request.headers()) else {
        // strangers learn nothing but that they are strangers
        let least = if request.method() == Method::POST { Scope::Ingest } else { Scope::Read };
        if let Err(refused) = auth::require(least, &request.into_parts().0, &app).await {
            return refused.into_response();
        }
        let detail = "X-Octo-Position is a position from an earlier answer, such as 0/3000148.";
        let fault = FieldError::new("X-Octo-Position", "position", "is no position");
        return Problem::bad_request("position", detail).with_errors(vec![fault]).into_response();
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

/// Says in the document which reads take a position, and which answers have one.
pub(crate) fn describe(it: &mut Described<'_>) {
    if !it.is_guarded() {
        return;
    }
    let example = "0/3000148";
    if it.method == "GET" {
        let description = "`X-Octo-Position` of the answer to a change: this read sees it, on any node.";
        let pattern = "^(?:[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})?$";
        it.takes("X-Octo-Position", description, text(Some(pattern)), example);
    } else {
        let description = "Where the change is in the primary's log; a read that brings it sees the change.";
        it.answers(is_success, "X-Octo-Position", description, example);
    }
}

/// 0 without the header, or with an empty one; `None` when it is no position.
fn asked(headers: &HeaderMap) -> Option<u64> {
    match headers.get(X_OCTO_POSITION) {
        None => Some(0),
        Some(value) if value.is_empty() => Some(0),
        Some(value) => value.to_str().ok().and_then(position::from_text),
    }
}
