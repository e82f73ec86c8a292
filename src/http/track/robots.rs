//! `/robots.txt`: what crawlers may fetch; their clicks are labelled, and redirects say `noindex`.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(robots))
}

/// What crawlers may fetch
///
/// By default everything, so that chats and networks show previews of links; `tracking.robots_txt` says otherwise.
#[utoipa::path(
    get, path = "/robots.txt", tag = "tracking", operation_id = "robots", security(()),
    responses((status = 200, description = "For crawlers.", content_type = "text/plain", body = String, headers(
        ("Cache-Control" = String, description = "An hour."),
    ), example = json!("User-agent: *\nAllow: /\n"))),
)]
async fn robots(State(app): State<App>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, app.config.tracking.robots_txt.clone()).into_response()
}
