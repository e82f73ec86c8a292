//! What is true of many operations is said here once, and not at each of them: the headers that every request may
//! bring and every answer has, and an example of everything.

use serde_json::{Map, Value, json};

use super::examples;
use crate::http::api::ROOT;

type Object = Map<String, Value>;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Of an `Idempotency-Key`: characters without a quote, a comma or a semicolon, or a string in quotes.
const KEY_PATTERN: &str = r#"^(?:[!#-+\--:<-~]{1,255}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$"#;

/// What a cursor of a list looks like (`http::page`). It is opaque: the pattern is for those who check requests.
/// An empty one is none.
const CURSORS: [(&str, &str, &str); 5] = [
    ("/api/v1/campaigns", "^(?:[0-9a-f]{32})?$", "019aaf3c5f007abc8def0123456789ab"),
    ("/api/v1/tokens", "^(?:[0-9a-f]{32})?$", "019aaf3c5f007abc8def0123456789ab"),
    ("/api/v1/clicks", "^(?:00[0-9a-f]{46})?$", "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ("/api/v1/events", "^(?:00[0-9a-f]{46})?$", "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ("/api/v1/dead-letters", "^(?:0[0-9a-f]{15})?$", "000000000000002a"),
];

/// The document with what its annotations leave out.
pub(super) fn complete(mut document: Value) -> Value {
    lift_descriptions(&mut document);
    close_inputs(&mut document);
    examples::of_properties(&mut document);
    for path in document["paths"].as_object().cloned().unwrap_or_default().keys() {
        for method in METHODS {
            let Some(mut operation) = document["paths"][path.as_str()].get(method).cloned() else { continue };
            let place = Place { path, method, is_guarded: is_guarded(path, &operation) };
            if let Value::Object(operation) = &mut operation {
                parameters(place, operation);
                responses(place, operation);
            }
            examples::of_operation(&document, &mut operation);
            document["paths"][path.as_str()][method] = operation;
        }
    }
    document
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    method: &'a str,
    /// It needs a token.
    is_guarded: bool,
}

impl Place<'_> {
    fn is_change(self) -> bool {
        self.method != "get"
    }

    fn is_link(self) -> bool {
        matches!(self.path, "/click" | "/c/{key}")
    }
}

fn is_guarded(path: &str, operation: &Value) -> bool {
    path.starts_with(ROOT) && operation.get("security").is_none_or(|security| *security != json!([{}]))
}

fn parameters(place: Place<'_>, operation: &mut Object) {
    let list = operation.entry("parameters").or_insert_with(|| json!([]));
    let Value::Array(list) = list else { return };
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    if place.is_guarded && place.method == "post" {
        let description = "A name for this request, such as a UUID. The same request again with the same key is not \
                           run again, but answered as before with `Idempotency-Replayed: true`; another request with \
                           it is refused (422), and so is one that comes while the first still runs (409).";
        let schema = json!({ "type": "string", "pattern": KEY_PATTERN });
        list.push(header("Idempotency-Key", description, schema));
    }
    if place.is_guarded && !place.is_change() {
        let description = "`X-Octo-Position` of the answer to a change: this read sees it, on any node.";
        let schema = json!({ "type": "string", "pattern": "^(?:[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})?$" });
        list.push(header("X-Octo-Position", description, schema));
    }
    if !place.is_link() {
        let description = "A name for this request, 1 to 64 of `A-Za-z0-9-_.:`. The answer, the log and a problem \
                           name it; whatever is not one gets a new name.";
        list.push(header("X-Request-Id", description, json!({ "type": "string" })));
    }
    for parameter in list.iter_mut() {
        without_null(&mut parameter["schema"]);
        if parameter["name"] == "cursor"
            && let Some((_, pattern, example)) =
                CURSORS.iter().find(|(path, ..)| place.path.starts_with(path))
        {
            parameter["schema"]["pattern"] = json!(pattern);
            parameter["example"] = json!(example);
        }
    }
}

/// A parameter is left out or has a value.
fn without_null(schema: &mut Value) {
    let Some(Value::Array(types)) = schema.get_mut("type") else { return };
    types.retain(|t| t != "null");
    if let [only] = types.as_slice() {
        schema["type"] = only.clone();
    }
}

fn responses(place: Place<'_>, operation: &mut Object) {
    let has_body = operation.contains_key("requestBody");
    let Some(Value::Object(responses)) = operation.get_mut("responses") else { return };
    if place.is_guarded && place.method == "post" && !responses.contains_key("409") {
        responses
            .insert("409".to_owned(), problem("The request with this `Idempotency-Key` is still running."));
    }
    if place.is_guarded && !has_body {
        responses.remove("415");
        if place.method != "post" {
            responses.remove("413");
            responses.remove("408");
        }
    }
    for (status, response) in responses {
        let Value::Object(response) = response else { continue };
        let headers = response.entry("headers").or_insert_with(|| json!({}));
        let Value::Object(headers) = headers else { continue };
        let mut has = |name: &str, description: &str| {
            let header = json!({ "description": description, "schema": { "type": "string" } });
            headers.entry(name).or_insert(header);
        };
        if !place.is_link() {
            has("X-Request-Id", "The name of this request.");
        }
        let is_success = status.starts_with('2');
        if place.is_guarded && place.is_change() && is_success {
            has(
                "X-Octo-Position",
                "Where the change is in the primary's log; a read that brings it sees the change.",
            );
        }
        if place.is_guarded && place.method == "post" && is_success {
            has("Idempotency-Replayed", "`true`: the answer was given before for this `Idempotency-Key`.");
        }
        match status.as_str() {
            "401" | "403" if place.is_guarded => has("WWW-Authenticate", "What is wanted (RFC 6750)."),
            "304" => has("ETag", "Its version, still."),
            "405" => has("Allow", "The methods it takes."),
            "429" | "503" => has("Retry-After", "Seconds after which to try again."),
            "409" if place.method == "post" => {
                has("Retry-After", "Seconds; only where the request with this `Idempotency-Key` is running.");
            }
            _ => {}
        }
    }
}

fn problem(description: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

/// What is sent in holds the fields that are named, and no other.
fn close_inputs(document: &mut Value) {
    let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") else { return };
    for (name, schema) in schemas {
        // pages send events with more than is asked for: that is no reason to lose them
        let is_closed =
            (name.ends_with("Input") && name != "EventInput") || name.ends_with("Patch") || name == "Money";
        if is_closed {
            schema["additionalProperties"] = json!(false);
        }
    }
}

/// Of `oneOf: [$ref with description, null]` the description belongs to the property.
fn lift_descriptions(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(lift_descriptions);
            if members.contains_key("description") {
                return;
            }
            let choices = members.get("oneOf").or(members.get("allOf")).and_then(Value::as_array);
            let described = choices.into_iter().flatten().find_map(|choice| choice.get("description"));
            if let Some(description) = described.cloned() {
                members.insert("description".to_owned(), description);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(lift_descriptions),
        _ => {}
    }
}
