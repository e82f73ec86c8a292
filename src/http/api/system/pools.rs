//! `/api/v1/system/pools`: connections to Postgres, and which replicas answer reads.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    db::position,
    http::{
        api::{
            manners::{answer::answer, auth::Read, problems::Problems},
            views::system::pools::{PoolState, Report},
        },
        error::Problem,
    },
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get))
}

/// Connections to Postgres.
#[derive(Debug, Serialize, ToSchema)]
struct Pools {
    /// The primary's pool, then the replicas'.
    data: Vec<PoolState>,
    /// Milliseconds since the primary last said that it takes writes; `null`: it does not answer.
    primary_answered_ms_ago: Option<u64>,
    /// Where this node's last write ends in the primary's log; reads see at least this.
    #[schema(example = "0/3000148")]
    written: String,
    /// Replicas as the last probe saw them.
    replicas: Vec<Report>,
}

/// Connections and replicas
///
/// Each pool's connections, what happened to them since the start of the process, and how long queries waited;
/// each replica's lag and whether it answers reads.
#[utoipa::path(
    get, path = "/system/pools", tag = "system", operation_id = "get_system_pools",
    responses((status = 200, description = "The pools.", body = Pools), Problems),
)]
async fn get(_: Read, State(app): State<App>) -> Result<Response, Problem> {
    let ago = app.db.primary_seen().map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
    let pools = Pools {
        data: app.db.pools().map(|pool| pool.state().into()).collect(),
        primary_answered_ms_ago: ago,
        written: position::to_text(app.db.written()),
        replicas: app.db.replicas().reports().into_iter().map(Into::into).collect(),
    };
    answer(StatusCode::OK, &pools)
}
