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

use crate::{
    app::App,
    campaigns::LookUps,
    db::store::events::{self, Event},
    facts::event::Source,
    http::{
        api::{
            BODY_DEPTH_MAX, Sent, answer,
            manners::{
                auth::{Ingest, Read},
                idempotency::Attempt,
                page::{Page, Params, cursor, rows_for},
            },
            openapi::Problems,
        },
        error::Problem,
        track::event::{
            input::{self, Adjusted, PROPERTIES_MAX, Taken},
            loose::{self, Members},
            not_an_object,
        },
    },
    model::id::ClickId,
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

/// An event to store. Only what happened and to whom must be there: everything else is kept as well as it can be, and what
/// was changed is named in `adjusted`. A number or boolean where a text is wanted becomes one; members of other names
/// become properties, and so does what cannot be kept in its own place.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct EventInput {
    /// 1 to 64 of `a-z0-9_.-`. Others are folded, `Add To Cart` to `add_to_cart` and `PageView` to `pageview`, and the original
    /// is the `event_name` if there is none.
    #[schema(min_length = 1, example = "purchase")]
    event_type: String,
    /// For people; cut at 255 characters.
    event_name: Option<String>,
    /// The click it belongs to, as in `X-Click-Id`, also in the 22 characters of `{click_id:short}`; at least one of `click_id`
    /// and `cid`. One that is not ours is a property where there is a `cid`.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    click_id: Option<Uuid>,
    /// The key of the campaign it belongs to.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    cid: Option<String>,
    /// The sender's own id, at most 128 characters. The same UUID from the same source (the public, or a token) is the same
    /// event; any other text is where its campaign (else its click) and its type are the same too.
    #[schema(example = "order-1001")]
    event_id: Option<String>,
    /// When it happened: RFC 3339, or seconds or milliseconds since 1970; from 7 days ago to in 5 minutes, otherwise it is a
    /// property. `created_at` is when it arrived.
    #[schema(schema_with = time_schema)]
    time: Option<String>,
    /// The page; cut at 2,048 characters.
    url: Option<String>,
    /// What led to the page; cut at 2,048 characters.
    referrer: Option<String>,
    /// The sender's session; cut at 255 characters.
    session_id: Option<String>,
    /// The sender's user; cut at 255 characters.
    user_id: Option<String>,
    /// The first 64 entries are kept.
    #[schema(schema_with = properties_schema)]
    properties: Option<serde_json::Value>,
}

fn time_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Number, Type::Null]))
        .description(Some(
            "When it happened: RFC 3339, or seconds or milliseconds since 1970; from 7 days ago to in 5 minutes, \
             otherwise it is a property. `created_at` is when it arrived.",
        ))
        .examples([serde_json::json!("2026-01-31T12:00:00Z")])
        .build()
}

fn properties_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(format!(
            "What else there is to tell; the first {PROPERTIES_MAX} entries are kept, and numbers with their digits."
        )))
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
    request_body = EventInput,
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
