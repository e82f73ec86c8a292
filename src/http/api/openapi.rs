//! The admin API as a whole: its routes, and the OpenAPI 3.1 document that is made from their annotations.

mod complete;
mod examples;
mod tracking;

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing,
};
use bytes::Bytes;
use serde_json::Value;
use utoipa::{
    IntoResponses, Modify, OpenApi, ToSchema,
    openapi::{
        ContentBuilder, Ref, RefOr, ResponseBuilder, ResponsesBuilder,
        schema::Schema,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    app::App,
    http::{
        api::{ROOT, campaigns, clicks, dead_letters, events, stats, system, tokens},
        error::{FieldError, ProblemBody},
        ops::docs,
    },
    model::token::Scope,
};

/// Where the document is.
pub const DOCUMENT_PATH: &str = "/api/v1/openapi.json";

/// Every route under `/api/v1` with its description. Routers of described routes outside of it can be merged
/// into this one; after `split_for_parts`, [`document_route`] shows the descriptions.
pub fn router() -> OpenApiRouter<App> {
    let api = OpenApiRouter::default()
        .merge(campaigns::router())
        .merge(stats::router())
        .merge(clicks::router())
        .merge(events::router())
        .merge(dead_letters::router())
        .merge(tokens::router())
        .merge(system::router());
    let mut router = OpenApiRouter::with_openapi(Document::openapi()).nest(ROOT, api);
    name_scopes(router.get_openapi_mut());
    router
}

/// Says of each operation which scope it needs, as OpenAPI 3.1 does for schemes without scopes of their own: by
/// role names. Reading needs `read`, all else `admin`, unless the operation says something else itself.
/// `tests/it/api/scopes.rs` holds each operation to it.
fn name_scopes(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let reading = [&mut item.get, &mut item.head].map(|operation| (operation, Scope::Read));
        let changing = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete]
            .map(|operation| (operation, Scope::Admin));
        for (operation, scope) in reading.into_iter().chain(changing) {
            let Some(operation) = operation else { continue };
            let needed = || vec![SecurityRequirement::new("token", [<&str>::from(scope)])];
            operation.security.get_or_insert_with(needed);
        }
    }
}

/// The routes that answer with `document`: as JSON, and as a page.
pub fn document_route(document: &utoipa::openapi::OpenApi) -> Router<App> {
    let document = whole(document);
    let json = Bytes::from(document.to_string());
    let page = docs::page(&document);
    Router::new()
        .route(DOCUMENT_PATH, routing::get(async move || answer(json)))
        .route(docs::PATH, routing::get(async move || docs::answer(page)))
        .route(docs::STYLE_PATH, routing::get(async || docs::style()))
}

/// The document with what is true of many operations, and examples.
fn whole(document: &utoipa::openapi::OpenApi) -> Value {
    // a static description: if it could not be written, a test would have said so
    complete::complete(serde_json::to_value(document).unwrap_or_default())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "octo",
        description = "octo, a self-hosted click tracker: its links and events, which are public, and its admin API under `/api/v1`. Times are RFC 3339 in UTC, money is a \
                       decimal text with a currency, lists are read page by page with `limit` and `cursor`. Errors \
                       are RFC 9457 problems with a stable `code` that name every bad field. The answer to a change carries \
                       `X-Octo-Position`; sent with a read to any node, that read sees the change (a node sees its own \
                       changes without it).",
    ),
    paths(
        document,
        tracking::click,
        tracking::post_click,
        tracking::short_click,
        tracking::post_short_click,
        tracking::robots,
        tracking::event,
        tracking::events,
        tracking::pixel,
        tracking::health,
        tracking::livez,
        tracking::readyz,
        tracking::readyz_redirect,
        tracking::metrics,
        tracking::docs,
    ),
    components(schemas(ProblemBody, FieldError)),
    modifiers(&Bearer),
    security(("token" = [])),
    tags(
        (name = "tracking", description = "Links, events and pixels: public, for visitors and their pages."),
        (name = "campaigns", description = "Where clicks go, when, and on what terms."),
        (name = "stats", description = "Figures over time."),
        (name = "clicks", description = "What visits became."),
        (name = "events", description = "What followed a click."),
        (name = "dead letters", description = "Records that PostgreSQL refused for what they hold."),
        (name = "tokens", description = "Who may use this API."),
        (name = "system", description = "What octo and its stores are doing."),
        (name = "operations", description = "Probes and figures for those who run octo."),
        (name = "document", description = "This document."),
    ),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(
            "A token of scope `admin` (everything), `read` (every GET), `ingest` (events) or `metrics` (`/metrics` and \
             the detailed `/health`), made with `octo token create` or POST /api/v1/tokens. An operation names the scope it needs; `admin` is always \
             enough."
                .to_owned(),
        );
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// This document
///
/// OpenAPI 3.1; needs no token.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "document", operation_id = "get_openapi", security(()),
    responses((status = 200, description = "The document.", content_type = "application/json", body = Object)),
)]
#[expect(dead_code, reason = "only its annotation is used; document_route has the answer")]
fn document() {}

fn answer(json: Bytes) -> Response {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let cache_control = (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    ([content_type, cache_control], json).into_response()
}

/// What every operation may answer.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> std::collections::BTreeMap<String, RefOr<utoipa::openapi::Response>> {
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
            all.response(status, problem(description))
        })
        .build()
        .into()
    }
}

fn problem(description: &str) -> utoipa::openapi::Response {
    let schema: RefOr<Schema> = Ref::from_schema_name(ProblemBody::name()).into();
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        whole(&router().into_openapi())
    }

    #[test]
    fn the_document_is_of_version_3_1_and_names_every_route() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for (path, methods) in [
            ("/api/v1/campaigns", &["get", "post"][..]),
            ("/api/v1/campaigns/{id}", &["get", "patch", "delete"]),
            ("/api/v1/campaigns/{id}/pause", &["post"]),
            ("/api/v1/campaigns/{id}/resume", &["post"]),
            ("/api/v1/campaigns/{id}/stats", &["get"]),
            ("/api/v1/clicks", &["get"]),
            ("/api/v1/clicks/{click_id}", &["get", "patch"]),
            ("/api/v1/events", &["get", "post"]),
            ("/api/v1/dead-letters", &["get"]),
            ("/api/v1/dead-letters/retry", &["post"]),
            ("/api/v1/dead-letters/{stream}/{seq}", &["get", "delete"]),
            ("/api/v1/dead-letters/{stream}/{seq}/retry", &["post"]),
            ("/api/v1/tokens", &["get", "post"]),
            ("/api/v1/tokens/{id}", &["delete"]),
            ("/api/v1/system/pools", &["get"]),
            ("/api/v1/system/queries", &["get"]),
            ("/api/v1/system/queries/{query}/plan", &["get"]),
            ("/api/v1/system/cache", &["get"]),
            ("/api/v1/system/cache/flush", &["post"]),
            ("/api/v1/system/database", &["get"]),
            ("/api/v1/openapi.json", &["get"]),
        ] {
            for method in methods {
                let operation = &document["paths"][path][method];
                assert!(operation["summary"].is_string(), "{method} {path}: {operation}");
                assert!(operation["responses"].is_object(), "{method} {path}");
            }
        }
    }

    /// What a person or a program needs to know of each part, and where it is missing.
    fn gaps(document: &Value) -> Vec<String> {
        let mut gaps = Vec::new();
        let mut look = |place: String, part: &Value, wanted: &[&str]| {
            let is_there = |name: &str| part.get(name).is_some_and(|v| !v.is_null() && v != "");
            // a list of examples will do for one
            let is_given = |name: &str| is_there(name) || (name == "example" && is_there("examples"));
            let missing: Vec<_> = wanted.iter().filter(|name| !is_given(name)).collect();
            if !missing.is_empty() {
                gaps.push(format!("{place} has no {missing:?}"));
            }
        };
        let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
        for (path, methods) in object(&document["paths"]) {
            for (method, operation) in object(&methods) {
                let place = format!("{method} {path}");
                look(
                    place.clone(),
                    &operation,
                    &["summary", "description", "operationId", "tags", "responses"],
                );
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let place = format!("{place} {}", parameter["name"]);
                    look(place, parameter, &["description", "example", "schema"]);
                }
                for (kind, media) in object(&operation["requestBody"]["content"]) {
                    look(format!("{place} {kind}"), &media, &["example", "schema"]);
                }
                for (status, response) in object(&operation["responses"]) {
                    let place = format!("{place} {status}");
                    look(place.clone(), &response, &["description"]);
                    for (kind, media) in object(&response["content"]) {
                        look(format!("{place} {kind}"), &media, &["example", "schema"]);
                    }
                    for (name, header) in object(&response["headers"]) {
                        look(format!("{place} {name}"), &header, &["description", "example"]);
                    }
                }
            }
        }
        for (name, schema) in object(&document["components"]["schemas"]) {
            look(name.clone(), &schema, &["description"]);
            let parts = ["allOf", "oneOf"].into_iter().filter_map(|part| schema[part].as_array().cloned());
            for part in parts.flatten().chain([schema.clone()]) {
                for (property, value) in object(&part["properties"]) {
                    look(format!("{name}.{property}"), &value, &["description"]);
                    let has_parts =
                        ["$ref", "oneOf", "allOf", "items"].iter().any(|p| value.get(p).is_some());
                    if !has_parts {
                        look(format!("{name}.{property}"), &value, &["example"]);
                    }
                }
            }
        }
        gaps
    }

    #[test]
    fn everything_in_the_document_is_described_and_has_an_example() {
        let mut document = document();
        assert_eq!(gaps(&document), [""; 0]);
        document["components"]["schemas"]["Click"]["properties"]["os"] = serde_json::json!({});
        document["paths"]["/click"]["get"]["summary"] = "".into();
        assert_eq!(gaps(&document).len(), 3, "the check itself works");
    }

    #[test]
    fn two_types_never_share_a_name() {
        let schemas = &document()["components"]["schemas"];
        assert!(schemas["PoolState"]["properties"]["waiting"].is_object());
        assert!(schemas["State"]["enum"].is_array());
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    }
                    members.values().for_each(|v| walk(v, document));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(v, document)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
        assert!(document["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        assert!(document["paths"]["/api/v1/campaigns"]["get"]["responses"]["401"].is_object());
    }
}
