//! `GET /api/v1/system/cache` and `POST /api/v1/system/cache/flush`: the campaign cache.

use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    campaigns::{Flushed, Report},
    http::{
        api::manners::{
            answer::answer,
            auth::{Admin, Read},
            problems::Problems,
        },
        error::Problem,
    },
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get)).routes(routes!(flush))
}

/// Show the cache
///
/// What each layer answered since this node started, what is in memory, and how Redis is. It answers within the
/// deadline of one Redis command, also when Redis does not.
#[utoipa::path(
    get, path = "/system/cache", tag = "system", operation_id = "get_cache",
    responses((status = 200, description = "The cache of this node.", body = Report), Problems),
)]
async fn get(_: Read, State(app): State<App>) -> Result<Response, Problem> {
    answer(StatusCode::OK, &app.campaigns.report().await)
}

/// Flush the cache
///
/// Forgets keys that were looked up, deletes what Redis has of the campaigns known here, reads every campaign from
/// PostgreSQL again, and tells the other nodes to do so. Clicks are redirected meanwhile as they were before.
#[utoipa::path(
    post, path = "/system/cache/flush", tag = "system", operation_id = "flush_cache",
    responses((status = 200, description = "What was done.", body = Flushed), Problems),
)]
async fn flush(_: Admin, State(app): State<App>) -> Result<Response, Problem> {
    answer(StatusCode::OK, &app.campaigns.flush().await?)
}
