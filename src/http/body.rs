//! Reads a request's body within its limits; its time is limited where it comes from, in `server::connection`.

use std::{error::Error, io};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::StatusCode,
};
use http_body_util::{BodyExt, LengthLimitError};

use super::error::Problem;

/// The whole body: 413 when it is longer than `bytes_max`, 408 when it comes too slowly, 400 when it ends early.
pub(super) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    to_bytes(body, bytes_max).await.map_err(|error| refuse(&error, bytes_max))
}

/// As [`read`], asking `may_hold` for each piece before it is kept; `None` when it said no.
pub(super) async fn read_within(
    mut body: Body,
    bytes_max: usize,
    mut may_hold: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<u8>>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| refuse(&error, bytes_max))?.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(Problem::too_large(bytes_max));
        }
        if !may_hold(data.len()) {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes))
}

fn refuse(error: &axum::Error, bytes_max: usize) -> Problem {
    if is_caused_by(error, <dyn Error>::is::<LengthLimitError>) {
        Problem::too_large(bytes_max)
    } else if is_caused_by(error, is_timed_out) {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The body did not arrive in time.")
    } else {
        Problem::bad_request("incomplete_body", "The body ended before its end.")
    }
}

fn is_timed_out(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn is_caused_by(error: &axum::Error, is: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if is(error) {
            return true;
        }
        cause = error.source();
    }
    false
}
