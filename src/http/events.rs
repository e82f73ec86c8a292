//! `/api/v1/events`: show stored events, store one. What takes them in from pages is `http::event`.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::schema::{Object, ObjectBuilder, SchemaType, Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    api::{Json, answer},
    auth::{Ingest, Read},
    error::Problem,
    event::{self, PROPERTIES_MAX},
    idempotency::Attempt,
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
        ("click_id" = Option<String>, Query, description = "Of this click; its id in either form.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})?$"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Event>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["click_id", "limit", "cursor"]);
    let (limit, after) = (params.limit(), params.cursor());
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
pub(super) struct EventInput {
    /// 1 to 64 of `a-z0-9_.-`.
    #[schema(pattern = "^[a-z0-9_.-]{1,64}$", example = "purchase")]
    event_type: String,
    /// For people; at most 255 characters.
    #[schema(max_length = 255)]
    event_name: Option<String>,
    /// The click it belongs to, also in the 22 characters of `{click_id:short}`; at least one of `click_id` and `cid`.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    click_id: Option<Uuid>,
    /// The key of the campaign it belongs to.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    cid: Option<String>,
    /// The same id again is the same event.
    event_id: Option<Uuid>,
    /// The page.
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// What led to the page.
    #[schema(max_length = 2048)]
    referrer: Option<String>,
    /// The sender's session.
    #[schema(max_length = 255)]
    session_id: Option<String>,
    /// The sender's user.
    #[schema(max_length = 255)]
    user_id: Option<String>,
    /// At most 64 entries.
    #[schema(schema_with = properties_schema)]
    properties: Option<serde_json::Value>,
}

fn properties_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("What else there is to tell; at most 64 entries."))
        .max_properties(Some(PROPERTIES_MAX))
        .examples([serde_json::json!({ "sku": "A-1" })])
        .build()
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
async fn create(
    _: Ingest,
    State(app): State<App>,
    attempt: Attempt,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut event = event::parse(&app, &body, "").await?;
    let is_carried_on = attempt.is_again && !event.is_idempotent;
    if attempt.has_key && !event.is_idempotent {
        (event.id, event.is_idempotent) = (attempt.id, true);
    }
    let is_new = events::insert(&app.db, &event).await? || is_carried_on;
    let (status, outcome) =
        if is_new { (StatusCode::CREATED, "stored") } else { (StatusCode::OK, "already_stored") };
    answer(status, &Stored { status: outcome, event_id: event.id })
}
