//! What operations may be refused with, for the OpenAPI document: the examples are real refusals.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        Content, ContentBuilder, Ref, RefOr, Response, ResponseBuilder, ResponsesBuilder, schema::Schema,
    },
};

use crate::http::{
    api::manners::request::BODY_BYTES_MAX,
    described::Described,
    error::{FieldError, Problem, ProblemBody},
};

const MEDIA_TYPE: &str = "application/problem+json";

/// What every operation of the API may be refused with.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        [
            ("400", "The request cannot be read: `invalid_json`, `invalid_cursor`."),
            ("401", "There is no valid token."),
            ("403", "The token's scope is too small."),
            ("404", "There is no such thing."),
            ("408", "The body did not arrive in time."),
            ("413", "The body is too long."),
            ("415", "The body is not `application/json`, or is compressed."),
            ("422", "Fields are not valid; `errors` names each."),
            ("429", "Too many attempts with wrong credentials; try again after `Retry-After` seconds."),
            ("500", "Something went wrong on our side."),
            ("503", "The database cannot be reached; try again after `Retry-After` seconds."),
        ]
        .into_iter()
        .fold(ResponsesBuilder::new(), |all, (status, description)| {
            all.response(status, ResponseBuilder::new().description(description))
        })
        .build()
        .into()
    }
}

/// The refusal of an operation, with an example of it.
pub(crate) fn response(description: &str, example: &Problem) -> Response {
    ResponseBuilder::new().description(description).content(MEDIA_TYPE, content(example)).build()
}

fn content(example: &Problem) -> Content {
    let schema: RefOr<Schema> = Ref::from_schema_name(ProblemBody::name()).into();
    let example = serde_json::to_value(example.body()).ok();
    ContentBuilder::new().schema(Some(schema)).example(example).build()
}

/// A refusal whose annotation names no body is a problem, with an example; and some say when to come back. What has no
/// body is not refused for it.
pub(crate) fn describe(it: &mut Described<'_>) {
    if it.is_guarded() && it.operation.request_body.is_none() {
        let of_body: &[&str] = if it.method == "POST" { &["415"] } else { &["408", "413", "415"] };
        it.operation.responses.responses.retain(|status, _| !of_body.contains(&status.as_str()));
    }
    for (status, response) in it.responses().filter(|(status, _)| is_refusal(status)) {
        if response.content.is_empty() {
            response.content.insert(MEDIA_TYPE.to_owned(), content(&example(status)).into());
        }
    }
    let comes_back = |status: &str| matches!(status, "429" | "503");
    it.answers(comes_back, "Retry-After", "Seconds after which to try again.", "1");
}

fn is_refusal(status: &str) -> bool {
    status.starts_with(['4', '5'])
}

/// A refusal with this status.
fn example(status: &str) -> Problem {
    match status {
        "400" => Problem::bad_request("invalid_json", "The body is not valid JSON."),
        "401" => Problem::unauthorized("The token is not known, is revoked or has expired."),
        "403" => Problem::forbidden("This needs a token of scope admin; this one has read."),
        "404" => Problem::not_found("campaign"),
        "408" => Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "The body did not arrive in time."),
        "409" => Problem::conflict("Another campaign has this key."),
        "412" => Problem::precondition_failed(),
        "413" => Problem::too_large(BODY_BYTES_MAX),
        "415" => Problem::unsupported_media_type("application/json"),
        "422" => FieldError::new("/name", "required", "is required").into(),
        "429" => Problem::too_many(1, "Too many requests; try again later."),
        "503" => Problem::unavailable("The database cannot be reached at the moment; try again."),
        _ => Problem::internal("an example"),
    }
}
