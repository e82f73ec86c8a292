//! Tracking endpoints: links, events, pixels and postbacks. Public, without authentication, and without a database: what they take
//! goes to the journal.

pub(crate) mod click;
pub(crate) mod cors;
pub(crate) mod event;
#[cfg(test)]
mod fuzz;
pub(crate) mod out;
pub(crate) mod pixel;
pub(crate) mod postback;
mod posted;
pub(crate) mod robots;
pub(crate) mod script;
pub(crate) mod signals;
pub(crate) mod sticky;
pub(crate) mod test_link;
mod visit;

use axum::{
    http::Method,
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi as _,
    openapi::{
        ObjectBuilder, OpenApi, RefOr, Required, Type,
        path::{ParameterBuilder, ParameterIn, PathItem},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{admission::Refusal, app::App, http::error::Problem, metrics};

/// The routes that take events and visits.
pub(crate) fn router() -> OpenApiRouter<App> {
    event::router().merge(pixel::router()).merge(visit::router())
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(
    click::follow,
    click::follow_posted,
    out::follow,
    out::follow_posted,
    postback::take,
    postback::take_posted,
    script::evergreen,
    script::pinned
))]
struct AheadOfTheRouter;

/// What the document says of links and the script, which are answered ahead of the router. The short form of a link is the
/// long one with the key in the path; of an out-link the path may say which offer.
pub(crate) fn links() -> OpenApi {
    let mut links = AheadOfTheRouter::openapi();
    let Some(mut short) = links.paths.paths.get("/click").cloned() else { return links };
    for (operation, id, summary) in [
        (&mut short.get, "short_click", "Follow a short link"),
        (&mut short.post, "post_short_click", "Follow a short link by POST"),
    ] {
        let Some(operation) = operation else { continue };
        operation.operation_id = Some(id.to_owned());
        operation.summary = Some(summary.to_owned());
        operation.responses.responses.remove("400"); // there is always a key
        for parameter in operation.parameters.iter_mut().flatten() {
            let RefOr::T(parameter) = parameter else { continue };
            if parameter.name == "cid" {
                "key".clone_into(&mut parameter.name);
                parameter.parameter_in = ParameterIn::Path;
            }
        }
    }
    links.paths.paths.insert("/c/{key}".to_owned(), short);
    let Some(mut numbered) = links.paths.paths.get("/out").cloned() else { return links };
    for (operation, id, summary) in [
        (&mut numbered.get, "out_to", "Go on to one of the offers"),
        (&mut numbered.post, "post_out_to", "Go on to one of the offers by POST"),
    ] {
        let Some(operation) = operation else { continue };
        operation.operation_id = Some(id.to_owned());
        operation.summary = Some(summary.to_owned());
        let nth = ParameterBuilder::new()
            .name("n")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(
                "Which offer of the path, from 1; what is no number is as if it were not there.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .example(Some("2".into()));
        operation.parameters.get_or_insert_default().insert(0, RefOr::T(nth.build()));
    }
    links.paths.paths.insert("/out/{n}".to_owned(), numbered);
    // everything may stand in the query
    let posted = links.paths.paths.get_mut("/postback").and_then(|postback| postback.post.as_mut());
    if let Some(RefOr::T(body)) = posted.and_then(|operation| operation.request_body.as_mut()) {
        body.required = Some(Required::False);
    }
    if let Some(keyed) = of_network(&links) {
        links.paths.paths.insert("/postback/{key}".to_owned(), keyed);
    }
    links
}

/// What the document says of postbacks with the key of a network in the path.
fn of_network(links: &OpenApi) -> Option<PathItem> {
    let mut keyed = links.paths.paths.get("/postback")?.clone();
    for (operation, id, summary) in [
        (&mut keyed.get, "network_postback", "Report a conversion of a network"),
        (&mut keyed.post, "post_network_postback", "Report a conversion of a network by POST"),
    ] {
        let operation = operation.as_mut()?;
        operation.operation_id = Some(id.to_owned());
        operation.summary = Some(summary.to_owned());
        let key = ParameterBuilder::new()
            .name("key")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(
                "`postback_key` of the affiliate network, whose names and words then count first.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .example(Some("0f4b7c1a9d3e4f60".into()));
        operation.parameters.get_or_insert_default().insert(0, RefOr::T(key.build()));
    }
    Some(keyed)
}

/// Whether a path is answered ahead of the router.
pub(crate) fn is_ahead(path: &str) -> bool {
    click::Link::of(path, "").is_some() || path.starts_with("/o.")
}

/// Whether a path takes what pages report.
pub(crate) fn is_report(path: &str) -> bool {
    matches!(path, "/event" | "/events" | "/event.gif" | "/visit")
}

/// The route of a path that takes what pages report, for metrics.
pub(crate) fn report_route(path: &str) -> &'static str {
    match path {
        "/event" => "/event",
        "/events" => "/events",
        "/visit" => "/visit",
        _ => "/event.gif",
    }
}

/// What a report is answered with that is not let in, before anything of it is read; `None` for everything else.
pub(crate) fn shed(refusal: Refusal, method: &Method, path: &str) -> Option<Response> {
    let (problem, dropped): (fn() -> Problem, _) = match refusal {
        Refusal::Overloaded => (Problem::overloaded, "overloaded"),
        Refusal::NoRoom => (Problem::no_room, "no_room"),
    };
    let response = match (method, path) {
        (&Method::POST, "/event" | "/events" | "/visit") => problem().into_response(),
        (&Method::GET, "/event.gif") => pixel::answer(Some(dropped), &[]),
        _ => return None,
    };
    let count = if path == "/visit" { metrics::click } else { metrics::event };
    count(if refusal == Refusal::NoRoom { "no_room" } else { "shed" });
    Some(response)
}
