//! `POST /event`, `POST /events` and `GET /event.gif`: what pages report, on disk before it is accepted.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::Utc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    X_OCTO_DROPPED,
    error::{FieldError, Problem},
    fields::{Fields, parse_json, replace_nul},
};
use crate::{
    app::App,
    cache::Lookup,
    config::millis,
    journal::{AppendError, Pending},
    metrics,
    model::{
        event::Event,
        id::{CampaignKey, ClickId},
        text::{HEADER_CHARS_MAX, PARAMETER_CHARS_MAX, clean},
        visit::decode,
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

/// `POST /event`
pub(super) async fn event(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let mut body =
        read_json(&app, request, EVENT_BYTES_MAX).await.inspect_err(|_| metrics::event("invalid"))?;
    replace_nul(&mut body);
    let event = parse(&app, &body, "").await.map_err(|errors| refuse(&errors))?;
    let id = event.id;
    durable(&app, append(&app, &event)).await?;
    metrics::event("accepted");
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "status": "accepted", "event_id": id }))).into_response())
}

/// `POST /events`
pub(super) async fn events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let mut body =
        read_json(&app, request, BATCH_BYTES_MAX).await.inspect_err(|_| metrics::event("invalid"))?;
    replace_nul(&mut body);
    let Value::Array(items) = body else {
        return Err(refuse(&[FieldError::new("", "type", "must be an array of events")]));
    };
    if items.len() > BATCH_EVENTS_MAX {
        let detail = format!("must have at most {BATCH_EVENTS_MAX} events");
        return Err(refuse(&[FieldError::new("", "length", detail)]));
    }
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
    let body = from_query(request.uri().query().unwrap_or_default());
    let dropped = match parse(&app, &body, "").await {
        Ok(event) => match durable(&app, append(&app, &event)).await {
            Ok(()) => None,
            Err(_) => Some("journal_unavailable"),
        },
        Err(errors) => Some(errors.first().map_or("invalid", |e| e.code)),
    };
    metrics::event(match dropped {
        None => "accepted",
        Some("journal_unavailable") => "unrecorded",
        Some(_) => "invalid",
    });
    let headers = [(header::CONTENT_TYPE, "image/gif"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (headers, PIXEL.as_slice()).into_response();
    if let Some(reason) = dropped {
        response.headers_mut().insert(X_OCTO_DROPPED, reason.parse().expect("reasons are plain words"));
    }
    response
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
async fn read_json(app: &App, request: Request, bytes_max: usize) -> Result<Value, Problem> {
    require_media_type(request.headers())?;
    let body = read_body(request.into_body(), bytes_max, millis(app.config.server.body_timeout_ms)).await?;
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

pub(super) async fn read_body(body: Body, bytes_max: usize, limit: Duration) -> Result<Bytes, Problem> {
    match timeout(limit, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(Problem::too_large(bytes_max)),
        Ok(Err(_)) => Err(Problem::bad_request("incomplete_body", "The body could not be read to its end.")),
        Err(_) => {
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The body did not arrive in time."))
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
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
    for pair in query.split('&').filter(|p| !p.is_empty()) {
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
