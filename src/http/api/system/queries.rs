//! `/api/v1/system/queries`: every query of octo with its times, and the plan of each.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    http::{
        api::{
            manners::{answer::answer, auth::Read, problems::Problems, request::Name},
            views::system::pools::Query,
        },
        error::Problem,
    },
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(explain))
}

/// Every query.
#[derive(Debug, Serialize, ToSchema)]
struct Queries {
    /// In order of name; those that have not run are there with a count of 0.
    data: Vec<Query>,
}

/// How Postgres would run a statement.
#[derive(Debug, Serialize, ToSchema)]
struct Plan {
    /// `noun.verb`
    #[schema(example = "click.list")]
    query: String,
    /// As EXPLAIN writes it; with `$1` in the place of values.
    #[schema(example = "Index Scan Backward using clicks_pkey on clicks")]
    plan: String,
}

/// List queries
///
/// How often each query ran since the start of the process, how long it took and how often it failed.
#[utoipa::path(
    get, path = "/system/queries", tag = "system", operation_id = "list_system_queries",
    responses((status = 200, description = "The queries.", body = Queries), Problems),
)]
async fn list(_: Read, State(app): State<App>) -> Result<Response, Problem> {
    answer(StatusCode::OK, &Queries { data: app.db.queries().into_iter().map(Into::into).collect() })
}

/// Explain a query
///
/// The generic plan of one statement on the primary, without any value.
#[utoipa::path(
    get, path = "/system/queries/{query}/plan", tag = "system", operation_id = "get_system_query_plan",
    params(("query" = String, Path, description = "`noun.verb`, from the list.", example = "click.list")),
    responses((status = 200, description = "The plan.", body = Plan), Problems),
)]
async fn explain(_: Read, State(app): State<App>, Name(query): Name) -> Result<Response, Problem> {
    let plan = app.db.explain(&query).await?;
    let plan = plan.ok_or_else(|| Problem::not_found("query"))?;
    answer(StatusCode::OK, &Plan { query, plan })
}
