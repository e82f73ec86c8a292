//! `POST /event` and `POST /events`: what pages report, on disk before it is accepted. `loose` reads JSON as it is sent,
//! `input` makes an event of it.

pub(crate) mod input;
pub(crate) mod loose;
mod schema;

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use self::{
    input::{Adjusted, Taken},
    loose::Members,
};
use crate::{
    app::App,
    campaigns::LookUps,
    facts::event::{Event, Source},
    http::{
        client::{self, Peer},
        error::{FieldError, Problem},
        track::posted,
    },
    journal::{PAYLOAD_BYTES_MAX, Pending},
    limits::{Over, PerAddress},
    metrics,
};

/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a batch.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Events of a batch.
const BATCH_EVENTS_MAX: usize = 500;
/// Bytes of an event of a batch: a record holds what becomes of it.
const ITEM_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
const JSON_DEPTH_MAX: usize = 32;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(event)).routes(routes!(events))
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
struct Accepted {
    /// `accepted`: it is on disk.
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
    /// Its id, by which the API shows it: the sender's where that is a UUID, else one made of the sender's, else ours.
    event_id: Uuid,
    /// What was changed to keep it; not there if nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    adjusted: Vec<Adjusted>,
}

/// What became of the events of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct Results {
    /// One for each, in their order.
    results: Vec<ItemResult>,
}

/// What became of an event of a batch.
#[derive(Debug, Serialize, ToSchema)]
struct ItemResult {
    /// `accepted`, `rejected` with `errors`, or `unavailable`: send it again.
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<Uuid>,
    /// What was changed to keep it; not there if nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    adjusted: Vec<Adjusted>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

/// Report an event
///
/// Answered once it is on disk. Any origin may send it, with credentials and any header: as JSON, as text that is JSON
/// (`navigator.sendBeacon` of a text) or as `application/x-www-form-urlencoded` (of `URLSearchParams`), which is read like the
/// query of the pixel; at most 64 KiB.
///
/// An event is not refused for a detail: what cannot be kept is cut, made text or left out, and `adjusted` says so.
/// Refused is what is no JSON, has no `event_type` or neither `click_id` nor `cid` that is known, is too long or nested
/// deeper than 32 levels.
#[utoipa::path(
    post, path = "/event", tag = "tracking", operation_id = "report_event", security(()),
    request_body = Members<'static>,
    responses(
        (status = 202, description = "It is on disk.", body = Accepted),
        (status = 400, description = "The body is not JSON."),
        (status = 403, description = "Events need a token here (`tracking.public_events`)."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is neither JSON, text nor a form of names and values."),
        (status = 422, description = "It does not say what happened, or to whom; `errors` names each fault."),
        (status = 429, description = "Too many events from this address; send them again after `Retry-After` seconds."),
        (status = 503, description = "The disk does not take it, or what is left of it is for clicks; send it again after `Retry-After` seconds."),
    ),
)]
async fn event(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    require_public(&app)?;
    count(&app, sender(&app, &request), 1)?;
    let is_form = posted::media_type(request.headers(), true).inspect_err(|_| metrics::event("invalid"))?;
    let (head, body) = request.into_parts();
    let (body, _place) = posted::read(&app, &head.headers, body, EVENT_BYTES_MAX, metrics::event).await?;
    let text = loose::text_of(&body);
    let members = if is_form && !text.trim_start().starts_with('{') {
        input::from_query(text.trim())
    } else {
        let value = loose::parse(&text, JSON_DEPTH_MAX).inspect_err(|_| metrics::event("invalid"))?;
        Members::of(value.get()).ok_or_else(|| refuse(&[input::not_an_object("")]))?
    };
    let mut look_ups = LookUps::of(&app.campaigns);
    let read = input::read(&mut look_ups, members, "", Source::Public).await;
    let taken = read.map_err(|errors| refuse(&errors))?;
    let id = taken.event.id;
    durable(&app, append(&app, &taken.event)).await?;
    metrics::event("accepted");
    Ok((StatusCode::ACCEPTED, axum::Json(json!(accepted(id, taken.adjusted)))).into_response())
}

/// Report many events
///
/// At most 500 in at most 1 MiB, each of at most 512 KiB. Each is read like one of `POST /event`, and one that is refused
/// does not keep the others out.
#[utoipa::path(
    post, path = "/events", tag = "tracking", operation_id = "report_events", security(()),
    request_body = Vec<Members<'static>>,
    responses(
        (status = 202, description = "What became of each, in their order.", body = Results),
        (status = 400, description = "The body is not JSON."),
        (status = 403, description = "Events need a token here (`tracking.public_events`)."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is neither JSON nor text."),
        (status = 422, description = "It is no array, or too long a one."),
        (status = 429, description = "Too many events from this address; send them again after `Retry-After` seconds."),
        (status = 503, description = "octo has too much to do, or what is left of the disk is for clicks; send them again after `Retry-After` seconds."),
    ),
)]
async fn events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    require_public(&app)?;
    let sender = sender(&app, &request);
    look(&app, sender)?; // before a megabyte is read and parsed
    posted::media_type(request.headers(), false).inspect_err(|_| metrics::event("invalid"))?;
    let (head, body) = request.into_parts();
    let (body, _place) = posted::read(&app, &head.headers, body, BATCH_BYTES_MAX, metrics::event).await?;
    let text = loose::text_of(&body);
    let value = loose::parse(&text, JSON_DEPTH_MAX).inspect_err(|_| metrics::event("invalid"))?;
    let Some(items) = loose::items(value) else {
        return Err(refuse(&[FieldError::new("", "type", "must be an array of events")]));
    };
    if items.len() > BATCH_EVENTS_MAX {
        let detail = format!("must have at most {BATCH_EVENTS_MAX} events");
        return Err(refuse(&[FieldError::new("", "length", detail)]));
    }
    count(&app, sender, items.len())?; // those that are not valid too
    let mut waiting = Vec::with_capacity(items.len());
    let mut look_ups = LookUps::of(&app.campaigns);
    for (i, item) in items.into_iter().enumerate() {
        waiting.push(match read_item(&mut look_ups, item.get(), &format!("/{i}")).await {
            Ok(Taken { event, adjusted }) => Ok((event.id, append(&app, &event), adjusted)),
            Err(errors) => Err(errors),
        });
    }
    let results = join_all(waiting.into_iter().map(|item| result_of(&app, item))).await;
    Ok((StatusCode::ACCEPTED, axum::Json(json!(Results { results }))).into_response())
}

async fn read_item<'a>(
    look_ups: &mut LookUps<'_>,
    json: &'a str,
    pointer: &str,
) -> Result<Taken<'a>, Vec<FieldError>> {
    if json.len() > ITEM_BYTES_MAX {
        let detail = format!("must have at most {ITEM_BYTES_MAX} bytes");
        return Err(vec![FieldError::new(pointer, "too_large", detail)]);
    }
    let members = Members::of(json).ok_or_else(|| vec![input::not_an_object(pointer)])?;
    input::read(look_ups, members, pointer, Source::Public).await
}

/// 403 where only those who have a token may tell of events.
pub(super) fn require_public(app: &App) -> Result<(), Problem> {
    if app.config.tracking.public_events {
        return Ok(());
    }
    metrics::event("forbidden");
    let detail = "Events are taken with a token only: POST /api/v1/events (tracking.public_events is false).";
    Err(Problem::forbidden(detail))
}

fn accepted(event_id: Uuid, adjusted: Vec<Adjusted>) -> Accepted {
    Accepted { status: "accepted", event_id, adjusted }
}

async fn result_of(app: &App, item: Result<(Uuid, Pending, Vec<Adjusted>), Vec<FieldError>>) -> ItemResult {
    let (id, pending, adjusted) = match item {
        Ok(item) => item,
        Err(errors) => {
            metrics::event("invalid");
            return ItemResult { status: "rejected", event_id: None, adjusted: Vec::new(), errors };
        }
    };
    let is_kept = durable(app, pending).await.is_ok();
    if is_kept {
        metrics::event("accepted");
    }
    ItemResult {
        status: if is_kept { "accepted" } else { "unavailable" },
        event_id: Some(id),
        adjusted: if is_kept { adjusted } else { Vec::new() },
        errors: Vec::new(),
    }
}

pub(super) fn append(app: &App, event: &Event<'_>) -> Pending {
    app.journal.append_with(|out| event.encode(out))
}

/// Waits until the event is on disk; 503 otherwise.
pub(super) async fn durable(app: &App, pending: Pending) -> Result<(), Problem> {
    posted::durable(app, pending, "event", || metrics::event("unrecorded")).await
}

/// Whose events are counted; `None` where they are not limited.
pub(super) fn sender(app: &App, request: &Request) -> Option<IpAddr> {
    app.limits.events.as_ref()?;
    let Peer(peer) = request.extensions().get()?;
    let server = &app.config.server;
    let address = client::address(peer.ip(), request.headers(), server);
    // nobody's own: behind a proxy that names nobody, all visitors have it
    (!address.is_loopback() && !server.is_trusted_proxy(address)).then_some(address)
}

/// Counts events of an address; 429 when it may not send so many now.
pub(super) fn count(app: &App, sender: Option<IpAddr>, events: usize) -> Result<(), Problem> {
    limit(app, sender, |limit, address| limit.count_all(address, events))
}

/// 429 when the address may not send one event now.
fn look(app: &App, sender: Option<IpAddr>) -> Result<(), Problem> {
    limit(app, sender, PerAddress::look)
}

fn limit(
    app: &App,
    sender: Option<IpAddr>,
    ask: impl FnOnce(&PerAddress, IpAddr) -> Result<(), Over>,
) -> Result<(), Problem> {
    let (Some(limit), Some(address)) = (&app.limits.events, sender) else { return Ok(()) };
    ask(limit, address).map_err(|over| {
        metrics::event("rate_limited");
        Problem::too_many(over.seconds(), "Too many events from this address; send them again later.")
    })
}

fn refuse(errors: &[FieldError]) -> Problem {
    metrics::event("invalid");
    Problem::unprocessable(errors.to_vec())
}
