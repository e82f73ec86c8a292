//! `/api/v1/events`: show stored events, store one. What takes them in from pages is `http::event`.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    api::{Json, answer},
    auth::{Ingest, Read},
    error::Problem,
    event,
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
    OpenApiRouter::default().routes(routes!(list, create))
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

/// An event to store.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct EventInput {
    /// 1 to 64 of `a-z0-9_.-`.
    #[schema(example = "purchase")]
    event_type: String,
    /// For people.
    event_name: Option<String>,
    /// The click it belongs to; at least one of `click_id` and `cid`.
    click_id: Option<Uuid>,
    /// The key of the campaign it belongs to.
    cid: Option<String>,
    /// The same id again is the same event.
    event_id: Option<Uuid>,
    /// The page.
    url: Option<String>,
    /// What led to the page.
    referrer: Option<String>,
    /// The sender's session.
    session_id: Option<String>,
    /// The sender's user.
    user_id: Option<String>,
    /// At most 64 entries.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
struct Stored {
    /// `stored`, or `already_stored` when one with this id was.
    #[schema(value_type = String, example = "stored")]
    status: &'static str,
    /// Its id.
    event_id: Uuid,
}

/// Store an event
///
/// It is in the database and counted when this answers, where `POST /event` answers once it is on disk.
#[utoipa::path(
    post, path = "/events", tag = "events", operation_id = "create_event", security(("token" = ["ingest"])),
    request_body = EventInput,
    responses(
        (status = 201, description = "It is stored.", body = Stored),
        (status = 200, description = "One with this id was stored before.", body = Stored),
        Problems,
    ),
)]
async fn create(_: Ingest, State(app): State<App>, Json(body): Json) -> Result<Response, Problem> {
    let event = event::parse(&app, &body, "").await?;
    let is_new = events::insert(&app.db, &event).await?;
    let (status, outcome) =
        if is_new { (StatusCode::CREATED, "stored") } else { (StatusCode::OK, "already_stored") };
    answer(status, &Stored { status: outcome, event_id: event.id })
}
