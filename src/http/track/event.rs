//! `POST /event`, `POST /events` and `GET /event.gif`: what pages report, on disk before it is accepted. `loose` reads
//! JSON as it is sent, `input` makes an event of it.

pub(crate) mod input;
pub(crate) mod loose;

use std::{net::IpAddr, time::Instant};

use axum::{
    body::HttpBody,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use self::{
    input::{Adjusted, Taken},
    loose::Members,
};
use crate::{
    admission::{Held, Place, Refusal},
    app::App,
    campaigns::LookUps,
    facts::event::{Event, Source},
    http::{
        X_OCTO_ADJUSTED, X_OCTO_DROPPED, body,
        client::{self, Peer},
        error::{FieldError, Problem},
        head::require_identity,
    },
    journal::{AppendError, PAYLOAD_BYTES_MAX, Pending},
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
/// Bytes of `X-Octo-Adjusted`.
const ADJUSTED_BYTES_MAX: usize = 1024;
/// What a pointer has escaped in a header, beside what is no ASCII.
const NOT_IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'"');

/// A transparent GIF of one pixel, 43 bytes (GIF89a).
const PIXEL: [u8; 43] =
    *b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\
\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// Whether a path takes events.
pub(crate) fn is_route(path: &str) -> bool {
    matches!(path, "/event" | "/events" | "/event.gif")
}

/// The route of a path that takes events, for metrics.
pub(crate) fn route(path: &str) -> &'static str {
    match path {
        "/event" => "/event",
        "/events" => "/events",
        _ => "/event.gif",
    }
}

/// What an event is answered with that is not let in, before anything of it is read; `None` for everything else.
pub(crate) fn shed(refusal: Refusal, method: &Method, path: &str) -> Option<Response> {
    let (problem, dropped): (fn() -> Problem, _) = match refusal {
        Refusal::Overloaded => (Problem::overloaded, "overloaded"),
        Refusal::NoRoom => (Problem::no_room, "no_room"),
    };
    let mut response = match (method, path) {
        (&Method::POST, "/event" | "/events") => problem().into_response(),
        (&Method::GET, "/event.gif") => pixel_answer(Some(dropped), &[]),
        _ => return None,
    };
    let started = Instant::now();
    metrics::event(if refusal == Refusal::NoRoom { "no_room" } else { "shed" });
    crate::http::finish(&mut response, route(path), method, started);
    Some(response)
}

/// `POST /event`
pub(crate) async fn event(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    require_public(&app)?;
    count(&app, sender(&app, &request), 1)?;
    let is_form = media_type(request.headers(), true).inspect_err(|_| metrics::event("invalid"))?;
    let (body, _place) = read_body(&app, request, EVENT_BYTES_MAX).await?;
    let text = loose::text_of(&body);
    let members = if is_form && !text.trim_start().starts_with('{') {
        input::from_query(text.trim())
    } else {
        let value = loose::parse(&text, JSON_DEPTH_MAX).inspect_err(|_| metrics::event("invalid"))?;
        Members::of(value.get()).ok_or_else(|| refuse(&[not_an_object("")]))?
    };
    let mut look_ups = LookUps::of(&app.campaigns);
    let read = input::read(&mut look_ups, members, "", Source::Public).await;
    let taken = read.map_err(|errors| refuse(&errors))?;
    let id = taken.event.id;
    durable(&app, append(&app, &taken.event)).await?;
    metrics::event("accepted");
    Ok((StatusCode::ACCEPTED, axum::Json(accepted(id, &taken.adjusted))).into_response())
}

/// `POST /events`
pub(crate) async fn events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    require_public(&app)?;
    let sender = sender(&app, &request);
    look(&app, sender)?; // before a megabyte is read and parsed
    media_type(request.headers(), false).inspect_err(|_| metrics::event("invalid"))?;
    let (body, _place) = read_body(&app, request, BATCH_BYTES_MAX).await?;
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
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "results": results }))).into_response())
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
    let members = Members::of(json).ok_or_else(|| vec![not_an_object(pointer)])?;
    input::read(look_ups, members, pointer, Source::Public).await
}

/// `GET /event.gif`: always the pixel; a dropped event is named in a header. `HEAD` is no event.
pub(crate) async fn pixel(State(app): State<App>, request: Request) -> Response {
    if request.method() == Method::HEAD {
        return pixel_answer(None, &[]);
    }
    if require_public(&app).is_err() {
        return pixel_answer(Some("forbidden"), &[]);
    }
    let is_over = count(&app, sender(&app, &request), 1).is_err();
    let Some(_place) = app.admission.event() else {
        metrics::event("shed");
        return pixel_answer(Some("overloaded"), &[]);
    };
    let query = request.uri().query().unwrap_or_default();
    if !app.admission.has_room(&app.journal, query.len()) {
        metrics::event("no_room");
        return pixel_answer(Some("no_room"), &[]);
    }
    let mut look_ups = LookUps::of(&app.campaigns);
    let members = input::from_query(query);
    let (dropped, adjusted) = match input::read(&mut look_ups, members, "", Source::Public).await {
        _ if is_over => (Some("rate_limited"), Vec::new()),
        Ok(Taken { event, adjusted }) => match durable(&app, append(&app, &event)).await {
            Ok(()) => (None, adjusted),
            Err(_) => (Some("journal_unavailable"), Vec::new()),
        },
        Err(errors) => (Some(errors.first().map_or("invalid", |e| e.code)), Vec::new()),
    };
    match dropped {
        None => metrics::event("accepted"),
        Some("journal_unavailable" | "rate_limited") => {} // counted where it was refused
        Some(_) => metrics::event("invalid"),
    }
    pixel_answer(dropped, &adjusted)
}

fn pixel_answer(dropped: Option<&'static str>, adjusted: &[Adjusted]) -> Response {
    let headers = [(header::CONTENT_TYPE, "image/gif"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (headers, PIXEL.as_slice()).into_response();
    if let Some(reason) = dropped {
        response.headers_mut().insert(X_OCTO_DROPPED, HeaderValue::from_static(reason));
    }
    if let Some(value) = adjusted_value(adjusted) {
        response.headers_mut().insert(X_OCTO_ADJUSTED, value);
    }
    response
}

/// `code pointer`, and so on with commas, as many as have room.
fn adjusted_value(adjusted: &[Adjusted]) -> Option<HeaderValue> {
    let mut text = String::new();
    for Adjusted { pointer, code } in adjusted {
        let entry = format!("{code} {}", utf8_percent_encode(pointer, NOT_IN_HEADER));
        if text.len() + entry.len() + 2 <= ADJUSTED_BYTES_MAX {
            text.push_str(if text.is_empty() { "" } else { ", " });
            text.push_str(&entry);
        }
    }
    HeaderValue::try_from(text).ok().filter(|value| !value.is_empty())
}

/// What a request with a body holds until it is answered: a place, and its bytes of the budget.
type Holding<'a> = (Place<'a>, Held<'a>);

fn overloaded() -> Problem {
    metrics::event("shed");
    Problem::overloaded()
}

fn no_room() -> Problem {
    metrics::event("no_room");
    Problem::no_room()
}

/// 403 where only those who have a token may tell of events.
fn require_public(app: &App) -> Result<(), Problem> {
    if app.config.tracking.public_events {
        return Ok(());
    }
    metrics::event("forbidden");
    let detail = "Events are taken with a token only: POST /api/v1/events (tracking.public_events is false).";
    Err(Problem::forbidden(detail))
}

fn accepted(id: Uuid, adjusted: &[Adjusted]) -> Value {
    let mut answer = json!({ "status": "accepted", "event_id": id });
    if !adjusted.is_empty() {
        answer["adjusted"] = json!(adjusted);
    }
    answer
}

async fn result_of(app: &App, item: Result<(Uuid, Pending, Vec<Adjusted>), Vec<FieldError>>) -> Value {
    match item {
        Err(errors) => {
            metrics::event("invalid");
            json!({ "status": "rejected", "errors": errors })
        }
        Ok((id, pending, adjusted)) => match durable(app, pending).await {
            Ok(()) => {
                metrics::event("accepted");
                accepted(id, &adjusted)
            }
            Err(_) => json!({ "status": "unavailable", "event_id": id }),
        },
    }
}

/// Reads a body within its limits: 408, 413 or 415 otherwise; 503 where it has no place.
///
/// Whether there is a place is asked before anything is read, and the bytes are taken as they come. The place itself
/// is taken when all are there: a client that sends slowly, or not at all, must not keep others out.
async fn read_body(app: &App, request: Request, bytes_max: usize) -> Result<(Vec<u8>, Holding<'_>), Problem> {
    let invalid = |_: &Problem| metrics::event("invalid");
    require_identity(request.headers()).inspect_err(invalid)?;
    let body = request.into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(Problem::too_large(bytes_max)).inspect_err(invalid);
    }
    if !app.admission.has_place(announced) {
        return Err(overloaded());
    }
    if !app.admission.has_room(&app.journal, announced) {
        return Err(no_room());
    }
    let mut held = Held::default();
    let bytes = body::read_within(body, bytes_max, |bytes| app.admission.hold(&mut held, bytes));
    let Some(bytes) = bytes.await.inspect_err(invalid)? else { return Err(overloaded()) };
    let place = app.admission.event().ok_or_else(overloaded)?;
    if !app.admission.has_room(&app.journal, bytes.len()) {
        return Err(no_room()); // others have come meanwhile
    }
    Ok((bytes, (place, held)))
}

/// Whether the body is a form and no JSON (or text, as `navigator.sendBeacon` sends it to avoid a preflight); 415 for other types.
fn media_type(headers: &HeaderMap, takes_forms: bool) -> Result<bool, Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(false) };
    let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("text/plain") {
        Ok(false)
    } else if takes_forms && essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Ok(true)
    } else if takes_forms {
        let wanted = "application/json, text/plain or application/x-www-form-urlencoded (URLSearchParams, not FormData)";
        Err(Problem::unsupported_media_type(wanted))
    } else {
        Err(Problem::unsupported_media_type("application/json or text/plain"))
    }
}

pub(crate) fn not_an_object(pointer: &str) -> FieldError {
    FieldError::new(pointer, "type", "must be an object")
}

fn append(app: &App, event: &Event<'_>) -> Pending {
    app.journal.append_with(|out| event.encode(out))
}

/// Waits until the event is on disk; 503 otherwise, because senders of events retry.
async fn durable(app: &App, mut pending: Pending) -> Result<(), Problem> {
    let answer = timeout(app.config.journal.append_timeout, pending.durable()).await;
    match answer.unwrap_or(Err(AppendError::QueueFull)) {
        Ok(_) => Ok(()),
        Err(error) => {
            metrics::event("unrecorded");
            tracing::debug!(%error, "an event was not recorded");
            Err(Problem::unavailable("The event could not be stored; send it again."))
        }
    }
}

/// Whose events are counted; `None` where they are not limited.
fn sender(app: &App, request: &Request) -> Option<IpAddr> {
    app.limits.events.as_ref()?;
    let Peer(peer) = request.extensions().get()?;
    let server = &app.config.server;
    let address = client::address(peer.ip(), request.headers(), server);
    // nobody's own: behind a proxy that names nobody, all visitors have it
    (!address.is_loopback() && !server.is_trusted_proxy(address)).then_some(address)
}

/// Counts events of an address; 429 when it may not send so many now.
fn count(app: &App, sender: Option<IpAddr>, events: usize) -> Result<(), Problem> {
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

/// 1-64 of `a-z0-9_.-`
pub(crate) struct Slug(pub(crate) String);

impl std::str::FromStr for Slug {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if input::is_type(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 64 characters of a-z 0-9 _ . -")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_adjusted_is_safe_and_short_in_a_header() {
        let adjusted = |pointer: &str, code| Adjusted { pointer: pointer.to_owned(), code };
        let named = [adjusted("/event_type", "folded"), adjusted("/a, b\r\nX: \u{e9}\u{202e}%", "range")];
        let value = adjusted_value(&named).unwrap();
        assert_eq!(value, "folded /event_type, range /a%2C%20b%0D%0AX:%20%C3%A9%E2%80%AE%25");
        let many = vec![adjusted(&"\u{1f600}".repeat(64), "length"); 20];
        assert!(adjusted_value(&many).unwrap().len() <= ADJUSTED_BYTES_MAX);
        assert_eq!(adjusted_value(&[]), None);
    }

    #[test]
    fn the_pixel_is_a_gif_of_43_bytes() {
        assert!(PIXEL.starts_with(b"GIF89a") && PIXEL.ends_with(b";"));
    }
}
