//! An example of everything in the document: of each property by its name or kind, and of each body put together
//! from its properties, so that it is as its schema says. Where an annotation has an example, that one counts.

use serde_json::{Map, Value, json};

/// Deepest nesting of what is put together.
const DEPTH_MAX: usize = 12;

/// Examples of texts and numbers, as JSON, by the name of the property, parameter or header.
const BY_NAME: &[(&str, &str)] = &[
    ("Age", "3"),
    ("Allow", r#""GET, HEAD""#),
    ("Cache-Control", r#""no-store""#),
    ("ETag", r#""\"3\"""#),
    ("Idempotency-Key", r#""8e03978e-40d5-43dd-bc93-6894a57f9324""#),
    ("Idempotency-Replayed", r#""true""#),
    ("If-Match", r#""*""#),
    ("If-None-Match", r#""\"3\"""#),
    ("Location", r#""/api/v1/campaigns/019aaf3c-5f00-7abc-8def-0123456789ab""#),
    ("Referrer-Policy", r#""no-referrer-when-downgrade""#),
    ("Retry-After", r#""1""#),
    ("WWW-Authenticate", r#""Bearer realm=\"octo\", error=\"invalid_token\"""#),
    ("X-Click-Id", r#""019aaf3c-5f00-7abc-8def-0123456789ab""#),
    ("X-Octo-Adjusted", r#""folded /event_type""#),
    ("X-Octo-Dropped", r#""pattern""#),
    ("X-Octo-Position", r#""0/3000148""#),
    ("X-Octo-Recorded", r#""0""#),
    ("X-Request-Id", r#""019aaf3c-5f00-7abc-8def-0123456789ab""#),
    ("X-Robots-Tag", r#""noindex""#),
    ("active", "4"),
    ("affiliate_sub", r#""aff-17""#),
    ("affiliate_sub2", r#""b""#),
    ("affiliate_sub3", r#""c""#),
    ("affiliate_sub4", r#""d""#),
    ("affiliate_sub5", r#""e""#),
    ("application_name", r#""replica1""#),
    ("bot_clicks", "40"),
    ("browser", r#""Firefox""#),
    ("campaign_offer_id", "6"),
    ("campaigns", "12"),
    ("cid", r#""demo""#),
    ("click_id_param", r#""source-4711""#),
    ("clicks", "1200"),
    ("confirmed_ms_ago", "850"),
    ("conversion_type", r#""purchase""#),
    ("description", r#""Banners of the summer.""#),
    ("device", r#""mobile""#),
    ("event_name", r#""Checkout done""#),
    ("events", "75"),
    ("fallback_url", r#""https://offer.example/closed""#),
    ("heap_hit_ratio", "0.997"),
    ("hex", r#""00ff17""#),
    ("id", "5"),
    ("index_hit_ratio", "0.999"),
    ("interval_s", "15"),
    ("invalid_reason", r#""bot""#),
    ("key", r#""summer-sale""#),
    ("landing_page_id", "5"),
    ("limit", "50"),
    ("message", r#""value overflows numeric format""#),
    ("name", r#""Summer sale""#),
    ("next_cursor", r#""019aaf3c5f007abc8def0123456789ab""#),
    ("os", r#""Android""#),
    ("plan", r#""Index Scan Backward using clicks_pkey on clicks""#),
    ("replica", "0"),
    ("referrer", r#""https://news.example/""#),
    ("session_id", r#""s-81""#),
    ("seq", "41"),
    ("state", r#""streaming""#),
    ("sub1", r#""banner-7""#),
    ("sub2", r#""left""#),
    ("sub3", r#""c""#),
    ("sub4", r#""d""#),
    ("sub5", r#""e""#),
    ("sync_state", r#""async""#),
    ("table", r#""clicks""#),
    ("traffic_source_id", r#""ads""#),
    ("url", r#""https://shop.example/checkout""#),
    ("user_agent", r#""Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0""#),
    ("user_id", r#""u-4""#),
    ("valid_clicks", "1160"),
    ("version", "3"),
    ("weight", "3"),
];

/// Gives each property an example that has none.
pub(super) fn of_properties(document: &mut Value) {
    let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") else { return };
    schemas.values_mut().for_each(in_schema);
}

fn in_schema(schema: &mut Value) {
    for part in ["allOf", "oneOf"] {
        if let Some(Value::Array(choices)) = schema.get_mut(part) {
            choices.iter_mut().for_each(in_schema);
        }
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (name, property) in properties {
        let Value::Object(members) = property else { continue };
        if !members.contains_key("example")
            && let Some(example) = leaf(name, members)
        {
            members.insert("example".to_owned(), example);
        }
    }
}

/// Gives the parameters, bodies and headers of an operation examples.
pub(super) fn of_operation(document: &Value, operation: &mut Value) {
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let schema = parameter["schema"].as_object().cloned().unwrap_or_default();
        let example = schema.get("example").cloned().or_else(|| leaf(&name, &schema));
        let example = example.unwrap_or_else(|| whole(document, &parameter["schema"], 0));
        add(parameter, "example", example);
    }
    if let Some(body) = operation.get_mut("requestBody") {
        in_content(document, body);
    }
    let Some(Value::Object(responses)) = operation.get_mut("responses") else { return };
    for (status, response) in responses {
        in_content(document, response);
        if let Some(problem) = response.pointer_mut("/content/application~1problem+json/example") {
            of_problem(status, problem);
        }
        for (name, header) in response["headers"].as_object_mut().into_iter().flatten() {
            let example = leaf(name, &Map::new()).unwrap_or(Value::Null);
            add(header, "example", example);
        }
    }
}

fn in_content(document: &Value, body: &mut Value) {
    let Some(Value::Object(content)) = body.get_mut("content") else { return };
    for media in content.values_mut() {
        let example = whole(document, &media["schema"], 0);
        add(media, "example", example);
    }
}

/// The example of a refusal is one of this status.
fn of_problem(status: &str, problem: &mut Value) {
    let (title, code, detail) = match status {
        "400" => ("Bad Request", "invalid_cursor", "The cursor is not one of this list; begin without it."),
        "401" => ("Unauthorized", "unauthorized", "The token is not known, is revoked or has expired."),
        "403" => ("Forbidden", "forbidden", "This needs a token of scope admin; this one has read."),
        "404" => ("Not Found", "not_found", "There is no such campaign."),
        "408" => ("Request Timeout", "timeout", "The body did not arrive in time."),
        "409" => ("Conflict", "conflict", "Another campaign has this key."),
        "412" => (
            "Precondition Failed",
            "precondition_failed",
            "It has changed since: its version is not the one of If-Match.",
        ),
        "413" => ("Payload Too Large", "too_large", "The body is longer than 1048576 bytes."),
        "415" => {
            ("Unsupported Media Type", "unsupported_media_type", "The Content-Type must be application/json.")
        }
        "429" => ("Too Many Requests", "too_many_requests", "Too many requests; try again later."),
        "500" => {
            ("Internal Server Error", "internal", "Something went wrong on our side; the log says what.")
        }
        "503" => {
            ("Service Unavailable", "unavailable", "The database cannot be reached at the moment; try again.")
        }
        _ => return,
    };
    let id = "019aaf3c-5f00-7abc-8def-0123456789ab";
    let status = status.parse::<u16>().unwrap_or_default();
    *problem = json!({ "type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, "request_id": id });
}

fn add(value: &mut Value, name: &str, example: Value) {
    if let Value::Object(members) = value
        && !members.contains_key(name)
        && !members.contains_key("examples")
    {
        members.insert(name.to_owned(), example);
    }
}

/// An example of what has no parts; `None` for what has, or is not known.
fn leaf(name: &str, schema: &Map<String, Value>) -> Option<Value> {
    if ["$ref", "oneOf", "allOf", "items", "enum"].iter().any(|part| schema.contains_key(*part)) {
        return None;
    }
    let kind = |schema: &Map<String, Value>| match schema.get("type") {
        Some(Value::String(kind)) => Some(kind.clone()),
        Some(Value::Array(kinds)) => {
            kinds.iter().find_map(|k| k.as_str().filter(|k| *k != "null")).map(str::to_owned)
        }
        _ => None,
    };
    let kind = kind(schema);
    let by_format = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") if matches!(name, "end_at" | "expires_at" | "to") => {
            Some(json!("2099-12-31T12:00:00Z"))
        }
        Some("date-time") => Some(json!("2026-01-31T12:00:00Z")),
        Some("date") => Some(json!("2026-01-31")),
        Some("uuid") => Some(json!("019aaf3c-5f00-7abc-8def-0123456789ab")),
        _ => None,
    };
    let by_name = || {
        let (_, example) = BY_NAME.iter().find(|(n, _)| *n == name)?;
        let example: Value = serde_json::from_str(example).ok()?;
        let fits = match kind.as_deref() {
            Some("string") => example.is_string(),
            Some("integer" | "number") => example.is_number(),
            Some(_) => false,
            None => true,
        };
        fits.then_some(example)
    };
    let by_kind = || match kind.as_deref() {
        Some("boolean") => Some(json!(true)),
        Some("integer") => Some(json!(7)),
        Some("number") => Some(json!(0.4)),
        Some("object") => Some(json!({ "sku": "A-1" })),
        _ => None,
    };
    schema.get("default").cloned().or(by_format).or_else(by_name).or_else(by_kind)
}

/// An example put together from those of its parts.
fn whole(document: &Value, schema: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        return target.map_or(Value::Null, |target| whole(document, target, depth + 1));
    }
    let part = |name: &str| schema.get(name).and_then(Value::as_array);
    if let Some(parts) = part("allOf") {
        let objects = parts.iter().filter_map(|p| whole(document, p, depth + 1).as_object().cloned());
        return Value::Object(objects.flatten().collect());
    }
    if let Some(choices) = part("oneOf").or(part("anyOf")) {
        let choice = choices.iter().find(|choice| choice["type"] != "null");
        return choice.map_or(Value::Null, |choice| whole(document, choice, depth + 1));
    }
    if let Some(values) = part("enum") {
        return values.first().cloned().unwrap_or_default();
    }
    if let Some(Value::Object(properties)) = schema.get("properties") {
        let examples = properties.iter().map(|(name, p)| (name.clone(), whole(document, p, depth + 1)));
        return Value::Object(examples.collect());
    }
    match schema.get("items") {
        Some(items) => json!([whole(document, items, depth + 1)]),
        None => leaf("", schema.as_object().unwrap_or(&Map::new())).unwrap_or_default(),
    }
}
