//! What the derived parts of the document cannot say themselves.

use serde_json::{Value, json};

/// Closes what is sent in, puts descriptions where readers look for them, and takes `null` from parameters.
pub(super) fn tidy(document: &mut Value) {
    lift_descriptions(document);
    close_inputs(document);
    let Some(Value::Object(paths)) = document.get_mut("paths") else { return };
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    let parameters = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut());
    parameters.flatten().for_each(|parameter| without_null(&mut parameter["schema"]));
}

/// A parameter is left out or has a value.
fn without_null(schema: &mut Value) {
    let Some(Value::Array(types)) = schema.get_mut("type") else { return };
    types.retain(|t| t != "null");
    if let [only] = types.as_slice() {
        schema["type"] = only.clone();
    }
}

/// What is sent in holds the fields that are named, and no other.
fn close_inputs(document: &mut Value) {
    let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") else { return };
    for (name, schema) in schemas {
        // pages send events with more than is asked for: that is no reason to lose them
        let is_closed = (name.ends_with("Input") && name != "EventInput")
            || name.ends_with("Patch")
            || ["Money", "SourceParameter", "StatusWord"].contains(&name.as_str());
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
