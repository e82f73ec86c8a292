//! `GET /event.gif`: always the pixel, whatever becomes of the event; a dropped one is named in a header.

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    campaigns::LookUps,
    facts::event::Source,
    http::track::event::{
        self,
        input::{self, Adjusted, Taken},
    },
    metrics,
};

/// The header that says why an event was dropped.
const X_OCTO_DROPPED: HeaderName = HeaderName::from_static("x-octo-dropped");
/// What was changed to keep the event of a pixel: `code pointer`, and so on with commas; percent-encoded where a header
/// cannot hold it.
const X_OCTO_ADJUSTED: HeaderName = HeaderName::from_static("x-octo-adjusted");

/// Bytes of `X-Octo-Adjusted`.
const ADJUSTED_BYTES_MAX: usize = 1024;
/// What a pointer has escaped in a header, beside what is no ASCII.
const NOT_IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%').add(b'"');

/// A transparent GIF of one pixel, 43 bytes (GIF89a).
const PIXEL: [u8; 43] =
    *b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\
\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(pixel))
}

/// Report an event with a pixel
///
/// Always the same transparent GIF of 43 bytes, whatever happens. Other parameters become `properties`; `&amp;` separates
/// like `&`. `HEAD` is no event.
#[utoipa::path(
    get, path = "/event.gif", tag = "tracking", operation_id = "report_event_pixel", security(()),
    params(
        ("event_type" = Option<String>, Query, description = "1 to 64 of `a-z0-9_.-`; others are folded.", example = "view"),
        ("click_id" = Option<String>, Query, description = "The click it belongs to; this or `cid`.", example = "019aaf3c-5f00-7abc-8def-0123456789ab"),
        ("cid" = Option<String>, Query, description = "The campaign's key.", example = "demo"),
        ("event_id" = Option<String>, Query, description = "The sender's own id: the same one again is the same event.", example = "order-1001"),
        ("time" = Option<String>, Query, description = "When it happened: RFC 3339, or seconds or milliseconds since 1970.", example = "2026-01-31T12:00:00Z"),
    ),
    responses((status = 200, description = "The pixel.", content_type = "image/gif", body = String, headers(
        ("X-Octo-Dropped" = String, description = "Why the event was not taken; not sent otherwise."),
        ("X-Octo-Adjusted" = String, description = "What was changed to keep it, as `code pointer` with commas between; not sent otherwise."),
        ("Cache-Control" = String, description = "Each is asked for again."),
    ), example = json!("GIF89a"))),
)]
pub(crate) async fn pixel(State(app): State<App>, request: Request) -> Response {
    if request.method() == Method::HEAD {
        return answer(None, &[]);
    }
    if event::require_public(&app).is_err() {
        return answer(Some("forbidden"), &[]);
    }
    let is_over = event::count(&app, event::sender(&app, &request), 1).is_err();
    let Some(_place) = app.admission.event() else {
        metrics::event("shed");
        return answer(Some("overloaded"), &[]);
    };
    let query = request.uri().query().unwrap_or_default();
    if !app.admission.has_room(&app.journal, query.len()) {
        metrics::event("no_room");
        return answer(Some("no_room"), &[]);
    }
    let mut look_ups = LookUps::of(&app.campaigns);
    let members = input::from_query(query);
    let (dropped, adjusted) = match input::read(&mut look_ups, members, "", Source::Public).await {
        _ if is_over => (Some("rate_limited"), Vec::new()),
        Ok(Taken { event, adjusted }) => match event::durable(&app, event::append(&app, &event)).await {
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
    answer(dropped, &adjusted)
}

pub(super) fn answer(dropped: Option<&'static str>, adjusted: &[Adjusted]) -> Response {
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
