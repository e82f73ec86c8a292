//! `POST /event`, `POST /events` and `GET /event.gif`: what pages report, on disk before it is accepted.

use std::{borrow::Cow, net::IpAddr, time::Instant};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    X_OCTO_DROPPED, body,
    client::{self, Peer},
    error::{FieldError, Problem},
    fields::{Fields, parse_json, replace_nul},
    head::require_identity,
};
use crate::{
    admission::Place,
    app::App,
    cache::Lookup,
    config::millis,
    journal::{AppendError, Pending},
    limits::{Over, PerAddress},
    metrics,
    model::{
        event::Event,
        id::{CampaignKey, ClickId},
        text::{HEADER_CHARS_MAX, PARAMETER_CHARS_MAX, clean},
        visit::{decode, pairs},
    },
};

/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a batch.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Events of a batch.
const BATCH_EVENTS_MAX: usize = 500;
const JSON_DEPTH_MAX: usize = 32;
/// Entries of an event's properties.
pub(super) const PROPERTIES_MAX: usize = 64;

/// A transparent GIF of one pixel, 43 bytes (GIF89a).
const PIXEL: [u8; 43] =
    *b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\
\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// What an event is answered with under overload, before anything of it is read; `None` for everything else.
pub(super) fn shed(method: &Method, path: &str) -> Option<Response> {
    let (route, mut response) = match (method, path) {
        (&Method::POST, "/event") => ("/event", Problem::overloaded().into_response()),
        (&Method::POST, "/events") => ("/events", Problem::overloaded().into_response()),
        (&Method::GET, "/event.gif") => ("/event.gif", pixel_answer(Some("overloaded"))),
        _ => return None,
    };
    let started = Instant::now();
    metrics::event("shed");
    // as the layer of these routes says: a page of any origin may see that it is to try again
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-octo-dropped"));
    super::finish(&mut response, route, method, started);
    Some(response)
}

/// `POST /event`
pub(super) async fn event(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    count(&app, sender(&app, &request), 1)?;
    let mut body = read_json(request, EVENT_BYTES_MAX).await.inspect_err(|_| metrics::event("invalid"))?;
    let _place = place(&app)?;
    replace_nul(&mut body);
    let event = parse(&app, &body, "").await.map_err(|errors| refuse(&errors))?;
    let id = event.id;
    durable(&app, append(&app, &event)).await?;
    metrics::event("accepted");
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "status": "accepted", "event_id": id }))).into_response())
}

/// `POST /events`
pub(super) async fn events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let sender = sender(&app, &request);
    look(&app, sender)?; // before a megabyte is read and parsed
    let mut body = read_json(request, BATCH_BYTES_MAX).await.inspect_err(|_| metrics::event("invalid"))?;
    let _place = place(&app)?;
    replace_nul(&mut body);
    let Value::Array(items) = body else {
        return Err(refuse(&[FieldError::new("", "type", "must be an array of events")]));
    };
    if items.len() > BATCH_EVENTS_MAX {
        let detail = format!("must have at most {BATCH_EVENTS_MAX} events");
        return Err(refuse(&[FieldError::new("", "length", detail)]));
    }
    count(&app, sender, items.len())?; // those that are not valid too
    let mut waiting = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        waiting.push(match parse(&app, item, &format!("/{i}")).await {
            Ok(event) => Ok((event.id, append(&app, &event))),
            Err(errors) => Err(errors),
        });
    }
    let results = join_all(waiting.into_iter().map(|item| result_of(&app, item))).await;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "results": results }))).into_response())
}

/// `GET /event.gif`: always the pixel; a dropped event is named in a header.
pub(super) async fn pixel(State(app): State<App>, request: Request) -> Response {
    let is_over = count(&app, sender(&app, &request), 1).is_err();
    let Some(_place) = app.admission.event() else {
        metrics::event("shed");
        return pixel_answer(Some("overloaded"));
    };
    let body = from_query(request.uri().query().unwrap_or_default());
    let dropped = match parse(&app, &body, "").await {
        _ if is_over => Some("rate_limited"),
        Ok(event) => match durable(&app, append(&app, &event)).await {
            Ok(()) => None,
            Err(_) => Some("journal_unavailable"),
        },
        Err(errors) => Some(errors.first().map_or("invalid", |e| e.code)),
    };
    match dropped {
        None => metrics::event("accepted"),
        Some("journal_unavailable" | "rate_limited") => {} // counted where it was refused
        Some(_) => metrics::event("invalid"),
    }
    pixel_answer(dropped)
}

fn pixel_answer(dropped: Option<&'static str>) -> Response {
    let headers = [(header::CONTENT_TYPE, "image/gif"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (headers, PIXEL.as_slice()).into_response();
    if let Some(reason) = dropped {
        response.headers_mut().insert(X_OCTO_DROPPED, reason.parse().expect("reasons are plain words"));
    }
    response
}

/// A place among the requests that are worked on.
fn place(app: &App) -> Result<Place<'_>, Problem> {
    app.admission.event().ok_or_else(|| {
        metrics::event("shed");
        Problem::overloaded()
    })
}

async fn result_of(app: &App, item: Result<(Uuid, Pending), Vec<FieldError>>) -> Value {
    match item {
        Err(errors) => {
            metrics::event("invalid");
            json!({ "status": "rejected", "errors": errors })
        }
        Ok((id, pending)) => match durable(app, pending).await {
            Ok(()) => {
                metrics::event("accepted");
                json!({ "status": "accepted", "event_id": id })
            }
            Err(_) => json!({ "status": "unavailable", "event_id": id }),
        },
    }
}

/// Reads and parses a body within its limits: 408, 413, 415 or 400 otherwise.
async fn read_json(request: Request, bytes_max: usize) -> Result<Value, Problem> {
    require_media_type(request.headers())?;
    require_identity(request.headers())?;
    let body = body::read(request.into_body(), bytes_max).await?;
    parse_json(&body, JSON_DEPTH_MAX)
}

/// JSON, or text as `navigator.sendBeacon` sends it to avoid a preflight.
fn require_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("text/plain") {
        Ok(())
    } else {
        Err(Problem::unsupported_media_type("application/json or text/plain"))
    }
}

/// Checks one event; every fault is named.
pub(super) async fn parse<'v>(
    app: &App,
    body: &'v Value,
    pointer: &str,
) -> Result<Event<'v>, Vec<FieldError>> {
    let mut fields = Fields::new(body, pointer).map_err(|e| vec![e])?;
    let event_type = fields.parsed::<Word>("event_type", "pattern");
    let event_name = fields.optional_text("event_name", 0..=PARAMETER_CHARS_MAX);
    let click_id = fields.optional_parsed::<ParsedClickId>("click_id", "click_id");
    let key = fields.optional_parsed::<CampaignKey>("cid", "pattern");
    let event_id = fields.uuid("event_id");
    let url = fields.optional_text("url", 0..=HEADER_CHARS_MAX);
    let referrer = fields.optional_text("referrer", 0..=HEADER_CHARS_MAX);
    let session_id = fields.optional_text("session_id", 0..=PARAMETER_CHARS_MAX);
    let user_id = fields.optional_text("user_id", 0..=PARAMETER_CHARS_MAX);
    let properties = fields.object("properties");
    if properties.is_some_and(|p| p.len() > PROPERTIES_MAX) {
        fields.refuse("properties", "length", format!("must have at most {PROPERTIES_MAX} entries"));
    }
    if properties.is_some_and(|p| !p.values().all(has_plain_numbers)) {
        fields.refuse("properties", "range", "must have numbers that are 0 or from 1e-64 to 1e64 in size");
    }
    if fields.is_valid() && click_id.is_none() && key.is_none() {
        fields.refuse("click_id", "required", "click_id or cid is required");
    }
    let campaign = match (&key, fields.is_valid()) {
        (Some(key), true) => Some(app.campaigns.get(key).await),
        _ => None,
    };
    if matches!(campaign, Some(Lookup::Unknown)) {
        fields.refuse("cid", "unknown_campaign", "there is no such campaign");
    }
    let event_type = fields.finish_with(event_type)?;
    let text = |t: Option<&'v str>| t.filter(|t| !t.is_empty()).map(|t| clean(t, HEADER_CHARS_MAX));
    Ok(Event {
        id: event_id.unwrap_or_else(Uuid::now_v7),
        is_idempotent: event_id.is_some(),
        created_at: Utc::now(),
        click_id: click_id.map(|c| c.0),
        campaign_id: match &campaign {
            Some(Lookup::Found(routes)) => Some(routes.campaign.id),
            _ => None,
        },
        cid: match &campaign {
            Some(Lookup::Unavailable) => key.map(|k| Cow::Owned(k.as_str().to_owned())),
            _ => None,
        },
        event_type: event_type.0.into(),
        event_name: text(event_name),
        url: text(url),
        referrer: text(referrer),
        session_id: text(session_id),
        user_id: text(user_id),
        properties: properties.map(|p| Cow::Owned(Value::Object(p.clone()).to_string())),
    })
}

/// Whether all numbers have few enough digits: PostgreSQL writes 1e308 with all 309, so that 64 KiB of them would be
/// read back as megabytes.
fn has_plain_numbers(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.as_f64().is_none_or(|n| n == 0.0 || (1e-64..=1e64).contains(&n.abs()))
        }
        Value::Array(items) => items.iter().all(has_plain_numbers),
        Value::Object(members) => members.values().all(has_plain_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// The body that the parameters of a pixel stand for; parameters of other names are its properties.
fn from_query(query: &str) -> Value {
    const FIELDS: [&str; 9] = [
        "event_type",
        "event_name",
        "click_id",
        "cid",
        "event_id",
        "url",
        "referrer",
        "session_id",
        "user_id",
    ];
    let (mut body, mut properties) = (serde_json::Map::new(), serde_json::Map::new());
    for pair in pairs(query).filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, PARAMETER_CHARS_MAX);
        let is_field = FIELDS.contains(&name.as_ref());
        let is_long = matches!(name.as_ref(), "url" | "referrer");
        let value = decode(value, if is_long { HEADER_CHARS_MAX } else { PARAMETER_CHARS_MAX });
        let target = if is_field { &mut body } else { &mut properties };
        if !value.is_empty() && !target.contains_key(name.as_ref()) && target.len() < PROPERTIES_MAX {
            target.insert(name.into_owned(), Value::String(value.into_owned()));
        }
    }
    if !properties.is_empty() {
        body.insert("properties".to_owned(), Value::Object(properties));
    }
    Value::Object(body)
}

fn append(app: &App, event: &Event<'_>) -> Pending {
    app.journal.append_with(|out| event.encode(out))
}

/// Waits until the event is on disk; 503 otherwise, because senders of events retry.
async fn durable(app: &App, mut pending: Pending) -> Result<(), Problem> {
    let answer = timeout(millis(app.config.journal.append_timeout_ms), pending.durable()).await;
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
    Some(client::address(peer.ip(), request.headers(), &app.config.server))
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
pub(super) struct Word(pub(super) String);

impl std::str::FromStr for Word {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 64 characters of a-z 0-9 _ . -")
        }
    }
}

/// A click id in a body.
struct ParsedClickId(ClickId);

impl std::str::FromStr for ParsedClickId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|()| "must be the id of a click, as in X-Click-Id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixels_other_parameters_are_its_properties() {
        let body =
            from_query("event_type=view&cid=demo&value=9.5&value=1&empty=&url=https%3A%2F%2Fx.example");
        let wanted = json!({
            "event_type": "view", "cid": "demo", "url": "https://x.example", "properties": { "value": "9.5" }
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn the_pixel_is_a_gif_of_43_bytes() {
        assert!(PIXEL.starts_with(b"GIF89a") && PIXEL.ends_with(b";"));
    }
}
