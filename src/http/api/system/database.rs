//! `/api/v1/system/database`: what the primary said of itself when it was last asked.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::Utc;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    db::server_status::is_stale,
    http::{
        api::{
            manners::{answer::answer, auth::Read, problems::Problems},
            views::system::database::Snapshot,
        },
        error::Problem,
    },
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get))
}

/// What is known of the database.
#[derive(Debug, Serialize, ToSchema)]
struct Known {
    /// How long ago the database was read; null when it was not since octo started.
    #[schema(example = 4.2)]
    age_s: Option<f64>,
    /// Whether that is so long ago that the database cannot be read now: then the figures are of before.
    is_stale: bool,
    /// How often it is read (`database.statistics_interval_s`).
    interval_s: u64,
    /// What it said.
    snapshot: Option<Snapshot>,
}

/// Show the database
///
/// Sizes, dead rows, connections, cache hit ratios and standbys of the primary, as of its last reading; while it does
/// not answer, those of before, and how old they are. Nothing is asked of it for this.
#[utoipa::path(
    get, path = "/system/database", tag = "system", operation_id = "get_system_database",
    responses((status = 200, description = "The last reading.", body = Known), Problems),
)]
async fn get(_: Read, State(app): State<App>) -> Result<Response, Problem> {
    let snapshot = app.server_status.latest();
    let interval = app.config.database.statistics_interval;
    let age = snapshot.as_ref().map(|s| (Utc::now() - s.read_at).to_std().unwrap_or_default());
    let is_stale = age.is_none_or(|age| is_stale(age, interval));
    let known = Known {
        age_s: age.map(|age| age.as_secs_f64()),
        is_stale,
        interval_s: interval.as_secs(),
        snapshot: snapshot.as_deref().cloned().map(Into::into),
    };
    answer(StatusCode::OK, &known)
}
