//! What stands in a form of the library, between what is typed, what is stored and what the API takes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::{Control, Field, Spec};
use crate::http::dashboard::form::Fields;

/// Rows that are read of a table; the API takes fewer.
const ROWS_MAX: usize = 128;

/// What stands in the fields of a form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    fields: BTreeMap<&'static str, String>,
    tables: BTreeMap<&'static str, Vec<Vec<String>>>,
}

impl Texts {
    /// As the API shows it.
    pub(super) fn stored(spec: &Spec, body: &Value) -> Self {
        let row = |columns: &[Field], row: &Value| columns.iter().map(|c| text_of(&row[c.name])).collect();
        let field = |field: &Field| {
            let value = match field.control {
                Control::Amount => &body["payout"]["amount"],
                Control::Currency => &body["payout"]["currency"],
                _ => &body[field.name],
            };
            (field.name, text_of(value))
        };
        Self {
            fields: spec.fields.iter().map(field).collect(),
            tables: spec
                .tables
                .iter()
                .map(|table| {
                    let rows = body[table.name].as_array().into_iter().flatten();
                    (table.name, rows.map(|it| row(table.columns, it)).collect())
                })
                .collect(),
        }
    }

    /// As they were typed; rows with nothing in them are none.
    pub(super) fn typed(spec: &Spec, fields: &Fields) -> Self {
        let rows = |name: &str, columns: &[Field]| {
            let cells: Vec<Vec<&str>> = columns
                .iter()
                .map(|column| {
                    let name = format!("{name}.{}", column.name);
                    fields.pairs().filter(|(known, _)| *known == name).map(|(_, text)| text.trim()).collect()
                })
                .collect();
            let count = cells.iter().map(Vec::len).max().unwrap_or_default().min(ROWS_MAX);
            let cell = |column: &Vec<&str>, row: usize| (*column.get(row).unwrap_or(&"")).to_owned();
            let row = |row| cells.iter().map(|column| cell(column, row)).collect::<Vec<_>>();
            (0..count).map(row).filter(|row| row.iter().any(|cell| !cell.is_empty())).collect()
        };
        Self {
            fields: spec.fields.iter().map(|f| (f.name, fields.text(f.name).to_owned())).collect(),
            tables: spec.tables.iter().map(|table| (table.name, rows(table.name, table.columns))).collect(),
        }
    }

    /// Says what usually stands in a field that is empty.
    pub(super) fn fill(&mut self, name: &str, text: &str) {
        if let Some(field) = self.fields.get_mut(name).filter(|field| field.is_empty()) {
            text.clone_into(field);
        }
    }

    /// What the API is asked for.
    pub(super) fn body(&self, spec: &Spec) -> Value {
        let mut body = Map::new();
        for field in spec.fields {
            let text = self.field(field.name);
            let value = match field.control {
                Control::Currency => continue,
                Control::Number if text.is_empty() => continue,
                Control::Amount if text.is_empty() => Value::Null,
                Control::Amount => {
                    json!({ "amount": text, "currency": self.field("payout_currency").to_uppercase() })
                }
                // an empty name is one that is too short; what is not said of another is cleared
                _ if field.name == "name" => text.into(),
                control => value_of(control, text),
            };
            body.insert(field.name.to_owned(), value);
        }
        for table in spec.tables {
            let row = |row: &Vec<String>| {
                let pairs = table.columns.iter().zip(row);
                let filled = pairs.filter(|(_, text)| !text.is_empty());
                filled.map(|(c, text)| (c.name.to_owned(), value_of(c.control, text))).collect::<Map<_, _>>()
            };
            body.insert(table.name.to_owned(), self.rows(table.name).iter().map(row).collect());
        }
        body.into()
    }

    /// What stands in a field.
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The rows of a table.
    pub(super) fn rows(&self, name: &str) -> &[Vec<String>] {
        self.tables.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A value of the API as a field shows it.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(false) | Value::Object(_) => String::new(),
        Value::Bool(true) => "true".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(entries) => entries.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        Value::Number(number) => number.to_string(),
    }
}

/// What stands in a field as the API takes it. What is no number goes there as it is, to be refused there.
fn value_of(control: Control, text: &str) -> Value {
    match control {
        Control::Check => (!text.is_empty()).into(),
        Control::Lines => text.lines().map(str::trim).filter(|line| !line.is_empty()).collect(),
        _ if text.is_empty() => Value::Null,
        Control::Number | Control::Network | Control::Offer => {
            text.parse::<i64>().map_or_else(|_| text.into(), Value::from)
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dashboard::library::Shelf;

    #[test]
    fn a_form_is_the_body_that_the_api_takes_and_what_is_stored_is_the_form() {
        let typed = "name=Ads&postback_url=&parameters.name=zone&parameters.name=&parameters.name=bid&parameters.macro={z}\
                     &parameters.macro=&parameters.macro={b}&parameters.slot=sub1&parameters.slot=&parameters.slot=cost\
                     &parameters.unit=&parameters.unit=&parameters.unit=mille&parameters.currency=&parameters.currency=\
                     &parameters.currency=USD";
        let spec = Shelf::Sources.spec();
        let texts = Texts::typed(spec, &Fields::parse(typed));
        let body = json!({ "name": "Ads", "postback_url": null, "parameters": [
            { "name": "zone", "macro": "{z}", "slot": "sub1" },
            { "name": "bid", "macro": "{b}", "slot": "cost", "unit": "mille", "currency": "USD" },
        ] });
        assert_eq!(texts.body(spec), body);
        assert_eq!(Texts::stored(spec, &body), texts);

        let spec = Shelf::Networks.spec();
        let typed =
            "name=&sums_lists=true&postback_addresses=10.0.0.0%2F8%0D%0A%0D%0A10.1.1.1&retry_window_s=x";
        let body = Texts::typed(spec, &Fields::parse(typed)).body(spec);
        assert_eq!(
            (&body["name"], &body["sums_lists"], &body["retry_window_s"]),
            (&json!(""), &json!(true), &json!("x"))
        );
        assert_eq!(body["postback_addresses"], json!(["10.0.0.0/8", "10.1.1.1"]));
        assert_eq!((&body["repeats"], &body["status_map"]), (&Value::Null, &json!([])));

        let spec = Shelf::Offers.spec();
        let body = Texts::typed(
            spec,
            &Fields::parse("name=o&payout=1.5&payout_currency=eur&affiliate_network_id=3"),
        );
        let body = body.body(spec);
        assert_eq!(body["payout"], json!({ "amount": "1.5", "currency": "EUR" }));
        assert_eq!((&body["affiliate_network_id"], &body["overflow_offer_id"]), (&json!(3), &Value::Null));
    }
}
