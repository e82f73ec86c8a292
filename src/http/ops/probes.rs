//! For balancers and supervisors: `/livez`, `/readyz` and `/readyz/redirect`.

use std::sync::atomic::Ordering;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(livez)).routes(routes!(readyz)).routes(routes!(readyz_redirect))
}

/// Whether the process lives
///
/// Depends on nothing.
#[utoipa::path(
    get, path = "/livez", tag = "operations", operation_id = "get_livez", security(()),
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String, example = json!("ok\n"))),
)]
async fn livez() -> &'static str {
    "ok\n"
}

/// Whether a balancer should prefer to send clicks here
///
/// Clicks would be redirected and recorded. Where no node says so, `/readyz/redirect` names those that still redirect. Not
/// affected by PostgreSQL or Redis.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "get_readyz", security(()),
    responses(
        (status = 200, description = "It should.", content_type = "text/plain", body = String, example = json!("ready\n")),
        (status = 503, description = "It is starting or stopping, or the journal cannot be written.", content_type = "text/plain", body = String, example = json!("stopping\n")),
    ),
)]
async fn readyz(State(app): State<App>) -> Response {
    match unready(&app) {
        Some(reason) => refuse(reason),
        None if !app.journal.is_writable() => refuse("the journal cannot be written\n"),
        None => "ready\n".into_response(),
    }
}

/// Whether clicks can be sent here at all
///
/// They are redirected, also while the journal cannot be written; the body says whether they are recorded. For readiness
/// probes that take a node out, such as those of Kubernetes, and for a balancer's last resort.
#[utoipa::path(
    get, path = "/readyz/redirect", tag = "operations", operation_id = "get_readyz_redirect", security(()),
    responses(
        (status = 200, description = "They can.", content_type = "text/plain", body = String, example = json!("ready\n")),
        (status = 503, description = "It is starting or stopping.", content_type = "text/plain", body = String, example = json!("stopping\n")),
    ),
)]
async fn readyz_redirect(State(app): State<App>) -> Response {
    match unready(&app) {
        Some(reason) => refuse(reason),
        None if !app.journal.is_writable() => {
            "ready to redirect, but clicks are not recorded: the journal cannot be written\n".into_response()
        }
        None => "ready\n".into_response(),
    }
}

/// Why no click should come here.
fn unready(app: &App) -> Option<&'static str> {
    if app.state.is_stopping.load(Ordering::Relaxed) {
        Some("stopping\n")
    } else if !app.state.is_started.load(Ordering::Relaxed) {
        Some("starting\n")
    } else {
        None
    }
}

fn refuse(reason: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], reason).into_response()
}
