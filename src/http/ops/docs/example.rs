//! An example of what a schema describes, put together from the examples of its properties.

use serde_json::{Value, json};

/// Deepest nesting of what is put together.
const DEPTH_MAX: usize = 12;

/// An example put together from those of its parts.
pub(super) fn of(document: &Value, schema: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        return target.map_or(Value::Null, |target| of(document, target, depth + 1));
    }
    let part = |name: &str| schema.get(name).and_then(Value::as_array);
    if let Some(parts) = part("allOf") {
        let objects = parts.iter().filter_map(|p| of(document, p, depth + 1).as_object().cloned());
        return Value::Object(objects.flatten().collect());
    }
    if let Some(choices) = part("oneOf").or(part("anyOf")) {
        let choice = choices.iter().find(|choice| choice["type"] != "null");
        return choice.map_or(Value::Null, |choice| of(document, choice, depth + 1));
    }
    if let Some(values) = part("enum") {
        return values.first().cloned().unwrap_or_default();
    }
    if let Some(Value::Object(properties)) = schema.get("properties") {
        let examples = properties.iter().map(|(name, p)| (name.clone(), of(document, p, depth + 1)));
        return Value::Object(examples.collect());
    }
    match schema.get("items") {
        Some(items) => json!([of(document, items, depth + 1)]),
        None => leaf(schema),
    }
}

/// Of what has no parts: by its form, else by its kind.
fn leaf(schema: &Value) -> Value {
    let by_format = match schema["format"].as_str() {
        Some("date-time") => Some("2026-01-31T12:00:00Z"),
        Some("date") => Some("2026-01-31"),
        Some("uuid") => Some("019aaf3c-5f00-7abc-8def-0123456789ab"),
        _ => None,
    };
    let given = schema.get("default").or_else(|| schema["examples"].get(0)).cloned();
    let kind = || {
        let kinds = schema["type"].as_array().map_or(std::slice::from_ref(&schema["type"]), Vec::as_slice);
        kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null")
    };
    given.or_else(|| by_format.map(Value::from)).unwrap_or_else(|| match kind() {
        Some("boolean") => json!(true),
        Some("integer") => json!(7),
        Some("number") => json!(0.4),
        Some("object") => json!({}),
        Some(_) => json!("text"),
        None => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_put_together_from_those_of_its_parts() {
        let document = json!({ "components": { "schemas": { "Unit": { "enum": ["a", "b"] } } } });
        let schema = json!({ "allOf": [
            { "properties": { "unit": { "$ref": "#/components/schemas/Unit" }, "name": { "example": "n" } } },
            { "properties": {
                "at": { "type": ["string", "null"], "format": "date-time" },
                "list": { "items": { "oneOf": [{ "type": "null" }, { "type": "integer" }] } },
                "is": { "type": "boolean", "default": false },
            } },
        ] });
        let wanted =
            json!({ "unit": "a", "name": "n", "at": "2026-01-31T12:00:00Z", "list": [7], "is": false });
        assert_eq!(of(&document, &schema, 0), wanted);
    }

    #[test]
    fn a_circle_of_schemas_ends() {
        let document = json!({ "components": { "schemas": { "A": { "items": { "$ref": "#/components/schemas/A" } } } } });
        assert!(of(&document, &json!({ "$ref": "#/components/schemas/A" }), 0).is_array());
    }
}
