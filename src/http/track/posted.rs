//! What pages and networks send: read within its limits, with a place among what octo has to do, and kept.

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use tokio::time::timeout;

use crate::{
    admission::{Held, Place},
    app::App,
    http::{body, error::Problem, head::require_identity},
    journal::{AppendError, Pending},
};

/// What a request with a body holds until it is answered: a place, and its bytes of the budget.
pub(super) type Holding<'a> = (Place<'a>, Held<'a>);

/// Reads a body within its limits: 408, 413 or 415 otherwise; 503 where it has no place. `count` is told which.
///
/// Whether there is a place is asked before anything is read, and the bytes are taken as they come. The place itself
/// is taken when all are there: a client that sends slowly, or not at all, must not keep others out.
pub(super) async fn read<'a>(
    app: &'a App,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    count: fn(&'static str),
) -> Result<(Vec<u8>, Holding<'a>), Problem> {
    let invalid = |_: &Problem| count("invalid");
    let overloaded = || {
        count("shed");
        Problem::overloaded()
    };
    let no_room = || {
        count("no_room");
        Problem::no_room()
    };
    require_identity(headers).inspect_err(invalid)?;
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

/// Waits until it is on disk; `unrecorded` and 503 otherwise, because whoever sends such things sends them again.
pub(super) async fn durable(
    app: &App,
    mut pending: Pending,
    noun: &'static str,
    unrecorded: fn(),
) -> Result<(), Problem> {
    let answer = timeout(app.config.journal.append_timeout, pending.durable()).await;
    match answer.unwrap_or(Err(AppendError::QueueFull)) {
        Ok(_) => Ok(()),
        Err(error) => {
            unrecorded();
            tracing::debug!(%error, noun, "what was sent is not recorded");
            Err(Problem::unavailable(format!("The {noun} could not be stored; send it again.")))
        }
    }
}

/// Whether the body is a form and no JSON (or text, as `navigator.sendBeacon` sends it to avoid a preflight); 415 for other types.
pub(super) fn media_type(headers: &HeaderMap, takes_forms: bool) -> Result<bool, Problem> {
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
