//! What a draft asks of the API: what was typed, as it was typed, so that the API says what is wrong with it.

use serde_json::{Map, Value, json};

use super::draft::{Cap, Criterion, Draft, Entry, Kind, Path, Rule};
use crate::model::rule::ONLY_PATH;

impl Draft {
    /// What the API is asked for. The default rule stands last among the rules, so that no other without conditions is
    /// taken for it.
    pub(super) fn patch(&self) -> Value {
        let mut rules: Vec<Value> = self.rules.iter().map(Rule::body).collect();
        rules.push(json!({ "name": "Default", "paths": list(&self.paths, Path::body) }));
        json!({ "rules": rules, "paths": [] })
    }
}

fn list<T>(items: &[T], body: impl Fn(&T) -> Value) -> Value {
    items.iter().map(body).collect()
}

/// A number as it was typed: what is none stays a text, of which the API says that it is none.
fn number(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| text.into(), Value::from)
}

fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// With the id, where it has one.
fn with_id(id: Option<i64>, mut body: Value) -> Value {
    if let (Some(id), Some(members)) = (id.filter(|id| *id != ONLY_PATH), body.as_object_mut()) {
        members.insert("id".to_owned(), id.into());
    }
    body
}

impl Rule {
    fn body(&self) -> Value {
        let body = json!({
            "name": self.name,
            "is_active": !self.is_off,
            "when": list(&self.when, Criterion::body),
            "time_zone": optional(&self.time_zone),
            "paths": list(&self.paths, Path::body),
        });
        with_id(self.id, body)
    }
}

impl Path {
    fn body(&self) -> Value {
        let body = json!({
            "name": self.name,
            "weight": number(&self.weight),
            "is_active": !self.is_off,
            "when": list(&self.when, Criterion::body),
            "landing_pages": list(&self.landing_pages, |page| page.body(false)),
            "offers": list(&self.offers, |offer| offer.body(true)),
            "offer_choice": self.offer_choice,
            "caps": list(&self.caps, Cap::body),
        });
        with_id(self.id, body)
    }
}

impl Criterion {
    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("dimension".to_owned(), self.dimension.as_str().into());
        if self.dimension == "parameter" {
            body.insert("name".to_owned(), optional(&self.name));
        }
        match self.test.as_str() {
            "known" => body.insert("present".to_owned(), true.into()),
            "not_known" => body.insert("present".to_owned(), false.into()),
            test => body.insert(test.to_owned(), self.values.clone().into()),
        };
        body.into()
    }
}

impl Entry {
    fn body(&self, is_offer: bool) -> Value {
        let mut body = json!({ "weight": number(&self.weight), "is_active": !self.is_off });
        match self.kind {
            Kind::Direct => {
                body["direct"] = true.into();
                return body;
            }
            Kind::Library => {
                body["library"] = true.into();
                return with_id(self.id, body);
            }
            Kind::Own => {}
        }
        body["name"] = self.name.as_str().into();
        body["url"] = self.url.as_str().into();
        body["web_url"] = optional(&self.web_url);
        if is_offer {
            body["payout"] = match self.payout.as_str() {
                "" => Value::Null,
                amount => json!({ "amount": amount, "currency": self.currency.to_uppercase() }),
            };
            body["caps"] = list(&self.caps, Cap::body);
            body["overflow_offer_id"] =
                if self.overflow.is_empty() { Value::Null } else { number(&self.overflow) };
        }
        with_id(self.id, body)
    }
}

impl Cap {
    fn body(&self) -> Value {
        json!({
            "of": self.of,
            "limit": number(&self.limit),
            "per": self.per,
            "time_zone": optional(&self.time_zone),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_asked_for_even_where_it_is_nonsense() {
        let entry = Entry { payout: "x".to_owned(), weight: "many".to_owned(), ..Entry::new(Kind::Own) };
        let body = entry.body(true);
        assert_eq!((&body["weight"], &body["payout"]["amount"]), (&json!("many"), &json!("x")));
        assert_eq!(body["overflow_offer_id"], Value::Null);
        let direct = Entry::new(Kind::Direct).body(false);
        assert_eq!(direct, json!({ "direct": true, "weight": 1, "is_active": true }));
        let criterion = Criterion { test: "not_known".to_owned(), ..Criterion::default() };
        assert_eq!(criterion.body(), json!({ "dimension": "", "present": false }));
        let cap = Cap::new().body();
        assert_eq!(cap["limit"], "", "it is required");
    }
}
