//! The OpenAPI document: as JSON for programs, and at `/docs` as a page for people, made once at the start. No script and nothing from
//! elsewhere: it reads the same on a machine without a way to the internet, and by a screen reader.

mod example;

use std::fmt::Write as _;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use serde_json::{Map, Value};

/// Where the document is.
const DOCUMENT_PATH: &str = "/api/v1/openapi.json";

/// Where the page is.
const PATH: &str = "/docs";

/// Where its style is: the policy allows no style within the page.
const STYLE_PATH: &str = "/docs/style.css";

const STYLE: &str = include_str!("docs.css");

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Nothing but our own style; no frame around the page.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The document as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    json: Bytes,
    page: Bytes,
}

/// The routes that answer with `document`: as JSON, and as a page with its style.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(document: &Value) -> Router<S> {
    let written = Written { json: Bytes::from(document.to_string()), page: page(document) };
    Router::new()
        .route(DOCUMENT_PATH, get(json))
        .route(PATH, get(html))
        .route(STYLE_PATH, get(style))
        .with_state(written)
}

/// This document
///
/// OpenAPI 3.1; needs no token.
#[utoipa::path(
    get, path = DOCUMENT_PATH, tag = "document", operation_id = "get_openapi", security(()),
    responses((status = 200, description = "The document.", content_type = "application/json", body = Object)),
)]
pub(crate) async fn json(State(written): State<Written>) -> Response {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let cache_control = (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    ([content_type, cache_control], written.json).into_response()
}

/// This document as a page
///
/// For people; without scripts, and without anything from elsewhere.
#[utoipa::path(
    get, path = PATH, tag = "document", operation_id = "get_docs", security(()),
    responses((status = 200, description = "The page.", content_type = "text/html", body = String, headers(
        ("Content-Security-Policy" = String, description = "Nothing but its own style."),
        ("Referrer-Policy" = String, description = "`no-referrer`."),
    ), example = json!("<!doctype html>"))),
)]
pub(crate) async fn html(State(written): State<Written>) -> Response {
    with_headers("text/html; charset=utf-8", written.page)
}

async fn style() -> Response {
    with_headers("text/css; charset=utf-8", Bytes::from_static(STYLE.as_bytes()))
}

fn with_headers(content_type: &'static str, body: Bytes) -> Response {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, body).into_response()
}

/// Writes the page of a document.
fn page(document: &Value) -> Bytes {
    let mut page = Page { document, html: String::with_capacity(256 * 1024) };
    page.write();
    Bytes::from(page.html)
}

struct Page<'d> {
    document: &'d Value,
    html: String,
}

/// One operation and where it is.
struct Operation<'d> {
    method: &'static str,
    path: &'d str,
    value: &'d Value,
}

impl Operation<'_> {
    fn id(&self) -> &str {
        text(self.value, "operationId")
    }
}

impl<'d> Page<'d> {
    fn write(&mut self) {
        let title = text(&self.document["info"], "title");
        self.put(&format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{0} API</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"stylesheet\" href=\"{STYLE_PATH}\">\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#content\">Skip to the content</a>\n",
            escaped(title)
        ));
        self.contents(title);
        self.put("<main id=\"content\">\n");
        self.introduction(title);
        for tag in self.tags() {
            let name = text(tag, "name");
            let heading = format!("<section aria-labelledby=\"tag-{0}\">\n<h2 id=\"tag-{0}\">", slug(name));
            self.put(&format!("{heading}{}</h2>\n", escaped(name)));
            self.prose(text(tag, "description"));
            for operation in self.operations(name) {
                self.operation(&operation);
            }
            self.put("</section>\n");
        }
        self.schemas();
        self.put("</main>\n</body>\n</html>\n");
    }

    fn contents(&mut self, title: &str) {
        self.put(&format!("<nav aria-label=\"Contents\">\n<p class=\"name\">{} API</p>\n", escaped(title)));
        for tag in self.tags() {
            let name = text(tag, "name");
            let head = format!("<p><a href=\"#tag-{}\">{}</a></p>\n<ul>\n", slug(name), escaped(name));
            self.put(&head);
            for operation in self.operations(name) {
                let Operation { method, .. } = operation;
                let summary = escaped(text(operation.value, "summary"));
                let badge = format!("<span class=\"method {method}\">{}</span>", method.to_uppercase());
                let link = escaped(operation.id());
                self.put(&format!("<li><a href=\"#op-{link}\">{badge} {summary}</a></li>\n"));
            }
            self.put("</ul>\n");
        }
        self.put("<p><a href=\"#schemas\">schemas</a></p>\n</nav>\n");
    }

    fn introduction(&mut self, title: &str) {
        let info = &self.document["info"];
        let version = escaped(text(info, "version"));
        self.put(&format!("<h1>{} API <small>{version}</small></h1>\n", escaped(title)));
        self.prose(text(info, "description"));
        self.prose(text(&self.document["components"]["securitySchemes"]["token"], "description"));
        self.put(
            "<p>The commands take the address of octo from <code>$OCTO</code> and a token from <code>$TOKEN</code>.</p>\n",
        );
        self.put(&format!("<p>For programs: <a href=\"{DOCUMENT_PATH}\">{DOCUMENT_PATH}</a></p>\n"));
    }

    fn operation(&mut self, operation: &Operation<'d>) {
        let Operation { method, path, value } = *operation;
        let id = escaped(operation.id());
        self.put(&format!(
            "<article aria-labelledby=\"op-{id}\">\n<h3 id=\"op-{id}\"><a href=\"#op-{id}\">{}</a></h3>\n\
             <p class=\"address\"><span class=\"method {method}\">{}</span> <code>{}</code></p>\n",
            escaped(text(value, "summary")),
            method.to_uppercase(),
            escaped(path)
        ));
        self.prose(text(value, "description"));
        self.parameters(value);
        if let Some(body) = value.get("requestBody") {
            self.put("<h4>Body</h4>\n");
            self.content(body);
        }
        self.put("<h4>Answers</h4>\n<dl>\n");
        for (status, response) in members(&value["responses"]) {
            let description = inline(text(response, "description"));
            self.put(&format!("<dt><code>{}</code> {description}</dt>\n<dd>\n", escaped(status)));
            let names: Vec<String> = members(&response["headers"])
                .map(|(name, _)| format!("<code>{}</code>", escaped(name)))
                .collect();
            if !names.is_empty() {
                self.put(&format!("<p>Headers: {}</p>\n", names.join(", ")));
            }
            self.content(response);
            self.put("</dd>\n");
        }
        self.put("</dl>\n<h4>With curl</h4>\n");
        self.code(&curl(self.document, operation));
        self.put("</article>\n");
    }

    fn parameters(&mut self, operation: &Value) {
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        if parameters.is_empty() {
            return;
        }
        self.put(
            "<h4>Parameters</h4>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Name</th>\
             <th scope=\"col\">In</th><th scope=\"col\">Meaning</th><th scope=\"col\">Example</th></tr></thead>\n<tbody>\n",
        );
        for parameter in parameters {
            let needed = if parameter["required"] == true { " <em>required</em>" } else { "" };
            let (name, place) = (escaped(text(parameter, "name")), escaped(text(parameter, "in")));
            let meaning = inline(text(parameter, "description"));
            let kind = kind(&parameter["schema"]);
            let example = escaped(&plain(&example_of(self.document, parameter)));
            self.put(&format!(
                "<tr><th scope=\"row\"><code>{name}</code>{needed}</th><td>{place}</td>\
                 <td>{meaning} <small>{kind}</small></td><td><code>{example}</code></td></tr>\n"
            ));
        }
        self.put("</tbody>\n</table></div>\n");
    }

    /// A body: its kinds, and an example that is folded away unless it is of a request.
    fn content(&mut self, of: &Value) {
        for (media_type, media) in members(&of["content"]) {
            let kind = kind(&media["schema"]);
            let shown = match example_of(self.document, media) {
                Value::String(text) => text,
                other => serde_json::to_string_pretty(&other).unwrap_or_default(),
            };
            let media_type = escaped(media_type);
            self.put(&format!(
                "<details><summary><code>{media_type}</code> <small>{kind}</small></summary>\n"
            ));
            self.code(&shown);
            self.put("</details>\n");
        }
    }

    fn schemas(&mut self) {
        self.put("<section aria-labelledby=\"schemas\">\n<h2 id=\"schemas\">Schemas</h2>\n");
        for (name, schema) in members(&self.document["components"]["schemas"]) {
            let name = escaped(name);
            self.put(&format!(
                "<article aria-labelledby=\"schema-{name}\">\n<h3 id=\"schema-{name}\">\
                 <a href=\"#schema-{name}\">{name}</a></h3>\n"
            ));
            self.prose(text(schema, "description"));
            self.properties(schema);
            self.put("</article>\n");
        }
        self.put("</section>\n");
    }

    fn properties(&mut self, schema: &Value) {
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<_> =
                values.iter().map(|v| format!("<code>{}</code>", escaped(&plain(v)))).collect();
            self.put(&format!("<p>One of {}.</p>\n", values.join(", ")));
        }
        for part in ["allOf", "oneOf"] {
            for part in schema[part].as_array().into_iter().flatten() {
                match part.get("$ref") {
                    Some(_) => self.put(&format!("<p>{}</p>\n", kind(part))),
                    None => self.properties(part),
                }
            }
        }
        if schema.get("properties").is_none() {
            return;
        }
        self.put(
            "<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Kind</th>\
             <th scope=\"col\">Meaning</th></tr></thead>\n<tbody>\n",
        );
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        for (name, property) in members(&schema["properties"]) {
            let needed = if required.iter().any(|r| r == name) { " <em>always</em>" } else { "" };
            let (kind, meaning) = (kind(property), inline(text(property, "description")));
            let name = escaped(name);
            self.put(&format!(
                "<tr><th scope=\"row\"><code>{name}</code>{needed}</th><td>{kind}</td><td>{meaning}</td></tr>\n"
            ));
        }
        self.put("</tbody>\n</table></div>\n");
    }

    fn tags(&self) -> &'d [Value] {
        self.document["tags"].as_array().map_or(&[], Vec::as_slice)
    }

    fn operations(&self, tag: &str) -> Vec<Operation<'d>> {
        let all = members(&self.document["paths"]).flat_map(|(path, item)| {
            let of_path = METHODS.into_iter();
            of_path.filter_map(move |method| Some(Operation { method, path, value: item.get(method)? }))
        });
        all.filter(|operation| operation.value["tags"][0] == tag).collect()
    }

    fn prose(&mut self, text: &str) {
        for paragraph in text.split("\n\n").filter(|p| !p.is_empty()) {
            self.put(&format!("<p>{}</p>\n", inline(paragraph)));
        }
    }

    /// Code that may be wide is scrolled, by keys too.
    fn code(&mut self, code: &str) {
        self.put(&format!("<pre tabindex=\"0\"><code>{}</code></pre>\n", escaped(code)));
    }

    fn put(&mut self, html: &str) {
        self.html.push_str(html);
    }
}

/// The example of a body or parameter: its own, else that of its schema.
fn example_of(document: &Value, of: &Value) -> Value {
    of.get("example").cloned().unwrap_or_else(|| example::of(document, &of["schema"], 0))
}

/// A command that works when it is pasted, with the token in `$TOKEN`.
fn curl(document: &Value, operation: &Operation<'_>) -> String {
    let Operation { method, path, value } = operation;
    let mut url = (*path).to_owned();
    for parameter in value["parameters"].as_array().into_iter().flatten() {
        let (name, example) = (text(parameter, "name"), plain(&example_of(document, parameter)));
        match text(parameter, "in") {
            "path" => url = url.replace(&format!("{{{name}}}"), &example),
            "query" if parameter["required"] == true => {
                let _ = write!(url, "?{name}={example}");
            }
            _ => {}
        }
    }
    let mut command = String::from("curl -i");
    if *method != "get" {
        let _ = write!(command, " -X {}", method.to_uppercase());
    }
    let _ = write!(command, " \"$OCTO{url}\"");
    if value.get("security").is_none_or(|security| *security != serde_json::json!([{}])) {
        command.push_str(" \\\n  -H \"Authorization: Bearer $TOKEN\"");
    }
    if let Some((media_type, media)) = members(&value["requestBody"]["content"]).next() {
        let body = example_of(document, media).to_string().replace('\'', "'\\''");
        let _ = write!(command, " \\\n  -H 'Content-Type: {media_type}' \\\n  -d '{body}'");
    }
    command
}

/// What kind of value it is, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = text(schema, "$ref").strip_prefix("#/components/schemas/") {
        return format!("<a href=\"#schema-{0}\">{0}</a>", escaped(name));
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    for part in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[part].as_array() {
            return choices.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(plain).collect::<Vec<_>>().join(" or "),
        kind => plain(kind),
    };
    let format = schema.get("format").map(|format| format!(" ({})", plain(format))).unwrap_or_default();
    escaped(&format!("{kinds}{format}"))
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A value as one writes it: a text without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Text with `code` between backticks.
fn inline(text: &str) -> String {
    let mut html = String::new();
    for (i, part) in text.split('`').enumerate() {
        let is_code = i % 2 == 1;
        let part = escaped(part);
        if is_code {
            let _ = write!(html, "<code>{part}</code>");
        } else {
            html.push_str(&part);
        }
    }
    html
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_a_document_holds_is_text_on_the_page() {
        let bad = "<script>alert('x')</script>\"&`<b>`";
        let document = json!({
            "info": { "title": bad, "version": bad, "description": bad },
            "tags": [{ "name": bad, "description": bad }],
            "paths": { bad: { "post": {
                "tags": [bad], "operationId": bad, "summary": bad, "description": bad,
                "parameters": [{ "name": bad, "in": bad, "required": true, "description": bad, "example": bad,
                    "schema": { "type": bad, "format": bad } }],
                "requestBody": { "content": { bad: { "schema": { "$ref": format!("#/components/schemas/{bad}") },
                    "example": { bad: bad } } } },
                "responses": { bad: { "description": bad, "headers": { bad: {} },
                    "content": { bad: { "schema": {}, "example": bad } } } },
            } } },
            "components": {
                "schemas": { bad: { "description": bad, "enum": [bad], "oneOf": [{ "type": bad }],
                    "properties": { bad: { "type": [bad], "description": bad } } } },
                "securitySchemes": { "token": { "description": bad } },
            },
        });
        let html = String::from_utf8(page(&document).to_vec()).unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("('x')"), "{html}");
        assert!(html.matches("&lt;script&gt;").count() > 25, "{}", html.matches("&lt;script&gt;").count());
    }

    #[test]
    fn a_command_can_be_pasted() {
        let value = json!({
            "parameters": [{ "name": "id", "in": "path", "example": "summer" }],
            "requestBody": { "content": { "application/json": { "example": { "name": "it's" } } } },
        });
        let operation = Operation { method: "patch", path: "/x/{id}", value: &value };
        let wanted = "curl -i -X PATCH \"$OCTO/x/summer\" \\\n  -H \"Authorization: Bearer $TOKEN\" \\\n  \
                      -H 'Content-Type: application/json' \\\n  -d '{\"name\":\"it'\\''s\"}'";
        assert_eq!(curl(&json!({}), &operation), wanted);
    }
}
