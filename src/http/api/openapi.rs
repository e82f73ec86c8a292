//! The OpenAPI 3.1 document, made from the annotations of all routes.

mod tidy;

use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use crate::http::{
    api::{
        self,
        manners::{auth, etag, idempotency, position, problems},
    },
    described::Described,
    error::{FieldError, ProblemBody},
    ops::{self, docs},
    request_id, track,
};

/// The document: every route with its description.
pub(crate) fn document() -> Value {
    let routers = OpenApiRouter::with_openapi(Document::openapi())
        .merge(api::router())
        .merge(track::router())
        .merge(track::robots::router())
        .merge(ops::probes::router())
        .merge(ops::health::router())
        .merge(ops::metrics::router());
    let mut document = routers.into_openapi();
    document.merge(track::links());
    describe(&mut document);
    // a static description: if it could not be written, a test would have said so
    let mut document = serde_json::to_value(document).unwrap_or_default();
    tidy::tidy(&mut document);
    document
}

/// What surrounds many operations, each by who does it.
fn describe(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations = [
            ("GET", &mut item.get),
            ("POST", &mut item.post),
            ("PUT", &mut item.put),
            ("PATCH", &mut item.patch),
            ("DELETE", &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            let it = &mut Described { method, path, operation };
            auth::describe(it);
            idempotency::describe(it);
            position::describe(it);
            etag::describe(it);
            problems::describe(it);
            if !track::is_ahead(path) {
                request_id::describe(it);
            }
        }
    }
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
    paths(docs::json, docs::html),
    components(schemas(ProblemBody, FieldError)),
    modifiers(&Bearer),
    security(("token" = [])),
    tags(
        (name = "tracking", description = "Links, events and pixels: public, for visitors and their pages."),
        (name = "campaigns", description = "Where clicks go, when, and on what terms."),
        (name = "offers", description = "Those of the library, for the paths of many campaigns."),
        (name = "landing pages", description = "Those of the library, for the paths of many campaigns."),
        (name = "traffic sources", description = "What their links carry, and where a click keeps it."),
        (name = "affiliate networks", description = "Where their links take our click id, and what their words mean."),
        (name = "postback targets", description = "Who is told of conversions, and how."),
        (name = "deliveries", description = "What was told to whom, and every attempt."),
        (name = "templates", description = "What sources and networks can be made from."),
        (name = "costs", description = "What clicks cost, as their links, their campaign or later figures say; and budgets."),
        (name = "rates", description = "What currencies are worth, for amounts that are shown in another."),
        (name = "stats", description = "Figures over time."),
        (name = "reports", description = "Figures by any dimensions, the facts behind them, and whether they add up."),
        (name = "clicks", description = "What visits became."),
        (name = "events", description = "What followed a click."),
        (name = "conversions", description = "What clicks earned: postbacks as they came, and what was made of them."),
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
            "A token of scope `admin` (everything), `read` (every GET, and what only asks), `ingest` (events) or `metrics` (`/metrics` and \
             the detailed `/health`), made with `octo token create` or POST /api/v1/tokens. An operation names the scope it needs; `admin` is always \
             enough."
                .to_owned(),
        );
        openapi.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantNames as _;

    use super::*;
    use crate::model::click::InvalidReason;

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
                    look(place, parameter, &["description", "schema"]);
                }
                for (kind, media) in object(&operation["requestBody"]["content"]) {
                    look(format!("{place} {kind}"), &media, &["schema"]);
                }
                for (status, response) in object(&operation["responses"]) {
                    let place = format!("{place} {status}");
                    look(place.clone(), &response, &["description"]);
                    for (kind, media) in object(&response["content"]) {
                        look(format!("{place} {kind}"), &media, &["schema"]);
                    }
                    for (name, header) in object(&response["headers"]) {
                        look(format!("{place} {name}"), &header, &["description"]);
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
                    let is_told = ["$ref", "oneOf", "allOf", "items", "enum", "format", "default"];
                    let is_text = value["type"] == "string" || value["type"][0] == "string";
                    // the derive has no place for the example of a variant that is a text
                    let is_variant = name == "Content";
                    if is_text && !is_variant && !is_told.iter().any(|p| value.get(p).is_some()) {
                        look(format!("{name}.{property}"), &value, &["example"]);
                    }
                }
            }
        }
        gaps
    }

    #[test]
    fn everything_in_the_document_is_described_and_texts_have_an_example() {
        let mut document = document();
        assert_eq!(gaps(&document), [""; 0]);
        document["components"]["schemas"]["Click"]["properties"]["os"] =
            serde_json::json!({ "type": "string" });
        document["paths"]["/click"]["get"]["summary"] = "".into();
        assert_eq!(gaps(&document).len(), 3, "the check itself works");
    }

    #[test]
    fn every_reason_of_a_click_that_does_not_count_is_named() {
        let document = document();
        let reason = &document["components"]["schemas"]["Click"]["properties"]["invalid_reason"];
        let description = reason["description"].as_str().unwrap();
        for name in InvalidReason::VARIANTS {
            assert!(description.contains(&format!("`{name}`")), "{name}: {description}");
        }
    }

    #[test]
    fn a_short_link_is_described_as_the_long_one() {
        let document = document();
        for method in ["get", "post"] {
            let (long, short) =
                (&document["paths"]["/click"][method], &document["paths"]["/c/{key}"][method]);
            assert_eq!(long["description"], short["description"]);
            assert_eq!(
                (&short["parameters"][0]["name"], &short["parameters"][0]["in"]),
                (&"key".into(), &"path".into())
            );
            assert_eq!(
                long["parameters"].as_array().unwrap()[1..],
                short["parameters"].as_array().unwrap()[1..]
            );
            assert_ne!(long["operationId"], short["operationId"]);
        }
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
