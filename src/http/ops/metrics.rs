//! `/metrics`: figures for Prometheus.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{app::App, http::api::manners::auth};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(metrics))
}

/// Figures for Prometheus
///
/// Every metric of octo, the process and the runtime. Requests from the machine itself that no proxy passed on need no
/// token, nor does anybody where `server.public_metrics` is set; on `server.admin_listen`, where that is set, it is the
/// only address.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "get_metrics", security((), ("token" = ["metrics"])),
    responses(
        (status = 200, description = "The Prometheus text format.", content_type = "text/plain", body = String, example = json!("octo_journal_pending_records 0\n")),
        (status = 401, description = "There is no valid token."),
        (status = 403, description = "The token's scope is too small."),
        (status = 429, description = "Too many attempts with wrong credentials; try again after `Retry-After` seconds."),
        (status = 503, description = "The database cannot be asked for the token; try again after `Retry-After` seconds."),
    ),
)]
async fn metrics(_: auth::Metrics, State(app): State<App>) -> Response {
    app.db.observe_pools();
    crate::metrics::observe_cache();
    let text = app.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
