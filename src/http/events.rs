//! `GET /api/v1/events`: show stored events. What takes them in is `http::event`.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    api::answer,
    auth::Read,
    error::Problem,
    openapi::Problems,
    page::{Page, Params, cursor, rows_for},
};
use crate::{
    app::App,
    db::events::{self, Event},
    model::id::ClickId,
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list))
}

/// List events
///
/// Of one click or of all, newest first.
#[utoipa::path(
    get, path = "/events", tag = "events", operation_id = "list_events",
    params(
        ("click_id" = Option<Uuid>, Query, description = "Of this click."),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Event>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["click_id", "limit", "cursor"]);
    let (limit, after) = (params.limit(), params.cursor()?);
    let click_id = params.text("click_id").map(str::parse::<ClickId>);
    if click_id == Some(Err(())) {
        params.refuse("click_id", "uuid", "must be the id of a click (a UUIDv7)");
    }
    params.finish()?;
    let rows = events::list(&app.db, click_id.and_then(Result::ok), after, rows_for(limit)).await?;
    answer(StatusCode::OK, &Page::new(rows, limit, |row| cursor(row.created_at, row.id)))
}
