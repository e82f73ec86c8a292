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

use crate::{
    app::App,
    campaigns::LookUps,
    db::store::events,
    facts::event::Source,
    http::{
        api::{
            manners::{
                answer::answer,
                auth::{Ingest, Read},
                idempotency::Attempt,
                page::{Page, Params, cursor, rows_for},
                problems::Problems,
                request::{BODY_DEPTH_MAX, Sent},
            },
            views::event::Event,
        },
        error::Problem,
        track::event::{
            input::{self, Adjusted, Taken, not_an_object},
            loose::{self, Members},
        },
    },
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
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
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:00[0-9a-f]{46})?$", example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<Event>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["click_id", "limit", "cursor"]);
    let (limit, after) = (params.limit(), params.cursor());
    let click_id = params.click_id();
    params.finish()?;
    let rows = events::list(&app.db, click_id, after, rows_for(limit)).await?;
    let page = Page::new(rows, limit, |row| cursor(row.created_at, row.id));
    answer(StatusCode::OK, &page.shown::<Event>())
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
struct Stored {
    /// `stored`, or `already_stored` when one with this id was.
    #[schema(value_type = String, example = "stored")]
    status: &'static str,
    /// Its id.
    event_id: Uuid,
    /// What was changed to keep it; not there if nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    adjusted: Vec<Adjusted>,
}

/// Store an event
///
/// It is in the database and counted when this answers, where `POST /event` answers once it is on disk. It is read as
/// there. Its `source` is the token, and ids are its own: an event that somebody else sent with the same `event_id`,
/// or that was sent to `POST /event`, is another one.
#[utoipa::path(
    post, path = "/events", tag = "events", operation_id = "create_event", security(("token" = ["ingest"])),
    request_body = Members<'static>,
    responses(
        (status = 201, description = "It is stored.", body = Stored),
        (status = 200, description = "One with this id was stored before with this token.", body = Stored),
        Problems,
    ),
)]
async fn create(
    Ingest(token): Ingest,
    State(app): State<App>,
    attempt: Attempt,
    Sent(body): Sent,
) -> Result<Response, Problem> {
    let text = loose::text_of(&body);
    let value = loose::parse(&text, BODY_DEPTH_MAX)?;
    let members = Members::of(value.get()).ok_or_else(|| Problem::unprocessable(vec![not_an_object("")]))?;
    let source = Source::Token(token.id);
    let Taken { mut event, adjusted } =
        input::read(&mut LookUps::of(&app.campaigns), members, "", source).await?;
    let is_carried_on = attempt.is_again && !event.is_idempotent;
    if attempt.has_key && !event.is_idempotent {
        (event.id, event.is_idempotent) = (attempt.id, true);
    }
    let is_new = events::insert(&app.db, &event).await? || is_carried_on;
    let (status, outcome) =
        if is_new { (StatusCode::CREATED, "stored") } else { (StatusCode::OK, "already_stored") };
    answer(status, &Stored { status: outcome, event_id: event.id, adjusted })
}
