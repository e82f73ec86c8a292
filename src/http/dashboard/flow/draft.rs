//! A flow as it is being written: what forms hold between two steps, with whatever was typed in it, and what it asks of the API.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::model::{
    campaign::{Destination, Terms},
    money::amount_text,
    rule::{self as stored, ONLY_PATH, Test},
};

/// The rules of a campaign, and the paths of everybody whom none of them takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Draft {
    pub(super) rules: Vec<Rule>,
    pub(super) paths: Vec<Path>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<i64>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) is_off: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) when: Vec<Criterion>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) time_zone: String,
    pub(super) paths: Vec<Path>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Path {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<i64>,
    pub(super) name: String,
    pub(super) weight: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) is_off: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) when: Vec<Criterion>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) landing_pages: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) offers: Vec<Entry>,
    pub(super) offer_choice: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) caps: Vec<Cap>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Criterion {
    pub(super) dimension: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    /// `is`, `is_not`, `starts`, `contains`, `known` or `not_known`.
    pub(super) test: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) values: Vec<String>,
}

/// Whose entry it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The campaign's own.
    #[default]
    Own,
    /// One of the library: what else stands here of it is for people.
    Library,
    /// No landing page.
    Direct,
}

/// A landing page or an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<i64>,
    pub(super) kind: Kind,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) web_url: String,
    pub(super) weight: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) is_off: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) payout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) currency: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) caps: Vec<Cap>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) overflow: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cap {
    pub(super) of: String,
    pub(super) limit: String,
    pub(super) per: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) time_zone: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Draft {
    /// The flow that is stored.
    pub(super) fn of(terms: &Terms) -> Self {
        let rules = terms.rules.iter().map(Rule::of).collect();
        let has_lists = !terms.landing_pages.is_empty() || !terms.offers.is_empty();
        let paths = match &terms.paths[..] {
            [] if has_lists => vec![Path {
                id: Some(ONLY_PATH),
                name: "Default path".to_owned(),
                landing_pages: terms.landing_pages.iter().map(Entry::of).collect(),
                offers: terms.offers.iter().map(Entry::of).collect(),
                offer_choice: terms.offer_choice.to_string(),
                caps: terms.caps.iter().map(Cap::of).collect(),
                ..Path::new(String::new())
            }],
            paths => paths.iter().map(Path::of).collect(),
        };
        Self { rules, paths }
    }

    /// What the API is asked for. The default rule stands last among the rules, so that no other without conditions is
    /// taken for it.
    pub(super) fn patch(&self) -> Value {
        let mut rules: Vec<Value> = self.rules.iter().map(Rule::body).collect();
        rules.push(json!({ "name": "Default", "paths": list(&self.paths, Path::body) }));
        json!({ "rules": rules, "paths": [] })
    }

    /// The paths of a rule; `None`: of the default rule.
    pub(super) fn paths(&self, rule: Option<usize>) -> Option<&Vec<Path>> {
        match rule {
            Some(rule) => self.rules.get(rule).map(|rule| &rule.paths),
            None => Some(&self.paths),
        }
    }

    pub(super) fn paths_mut(&mut self, rule: Option<usize>) -> Option<&mut Vec<Path>> {
        match rule {
            Some(rule) => self.rules.get_mut(rule).map(|rule| &mut rule.paths),
            None => Some(&mut self.paths),
        }
    }

    pub(super) fn path(&self, rule: Option<usize>, nth: usize) -> Option<&Path> {
        self.paths(rule)?.get(nth)
    }

    /// Every offer that has an id: what others may lead to once they are full.
    pub(super) fn offers_with_ids(&self) -> impl Iterator<Item = (i64, &str)> {
        let paths = self.rules.iter().flat_map(|rule| &rule.paths).chain(&self.paths);
        paths.flat_map(|path| &path.offers).filter_map(|offer| Some((offer.id?, offer.name.as_str())))
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
    fn of(rule: &stored::Rule) -> Self {
        Self {
            id: rule.id,
            name: rule.name.clone(),
            is_off: !rule.is_active,
            when: rule.when.iter().map(Criterion::of).collect(),
            time_zone: rule.time_zone.map(|zone| zone.to_string()).unwrap_or_default(),
            paths: rule.paths.iter().map(Path::of).collect(),
        }
    }

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
    /// A new one that leads nowhere yet.
    pub(super) fn new(name: String) -> Self {
        Self { name, weight: "1".to_owned(), offer_choice: "out".to_owned(), ..Self::default() }
    }

    fn of(path: &stored::Path) -> Self {
        Self {
            id: path.id,
            name: path.name.clone(),
            weight: path.weight.to_string(),
            is_off: !path.is_active,
            when: path.when.iter().map(Criterion::of).collect(),
            landing_pages: path.landing_pages.iter().map(Entry::of).collect(),
            offers: path.offers.iter().map(Entry::of).collect(),
            offer_choice: path.offer_choice.to_string(),
            caps: path.caps.iter().map(Cap::of).collect(),
        }
    }

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
    fn of(criterion: &stored::Criterion) -> Self {
        let (test, values) = match &criterion.test {
            Test::Present(true) => ("known", Vec::new()),
            Test::Present(false) => ("not_known", Vec::new()),
            other => {
                let (test, values) = other.parts();
                (test, values.to_vec())
            }
        };
        Self {
            dimension: criterion.dimension.to_string(),
            name: criterion.name.clone().unwrap_or_default(),
            test: test.to_owned(),
            values,
        }
    }

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
    /// A new one of this kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, weight: "1".to_owned(), ..Self::default() }
    }

    fn of(entry: &Destination) -> Self {
        let kind = match (entry.direct, entry.library) {
            (true, _) => Kind::Direct,
            (_, true) => Kind::Library,
            _ => Kind::Own,
        };
        Self {
            id: entry.id,
            kind,
            name: entry.name.clone(),
            url: entry.url.clone(),
            web_url: entry.web_url.clone().unwrap_or_default(),
            weight: entry.weight.to_string(),
            is_off: !entry.is_active,
            payout: entry.payout.map(|payout| amount_text(payout.amount)).unwrap_or_default(),
            currency: entry.payout.map(|payout| payout.currency.to_string()).unwrap_or_default(),
            caps: entry.caps.iter().map(Cap::of).collect(),
            overflow: entry.overflow_offer_id.map(|id| id.to_string()).unwrap_or_default(),
        }
    }

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
    /// A new one.
    pub(super) fn new() -> Self {
        Self {
            of: "clicks".to_owned(),
            limit: String::new(),
            per: "day".to_owned(),
            time_zone: String::new(),
        }
    }

    fn of(cap: &stored::Cap) -> Self {
        Self {
            of: cap.of.to_string(),
            limit: cap.limit.to_string(),
            per: cap.per.to_string(),
            time_zone: cap.time_zone.map(|zone| zone.to_string()).unwrap_or_default(),
        }
    }

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
    fn a_draft_goes_through_a_form_as_it_is_and_asks_for_what_is_stored() {
        let terms = Terms::demo("https://a.example/");
        let draft = Draft::of(&terms);
        let text = serde_json::to_string(&draft).unwrap();
        assert_eq!(serde_json::from_str::<Draft>(&text).unwrap(), draft);
        let patch = draft.patch();
        assert_eq!(patch["paths"], json!([]));
        let path = &patch["rules"][0]["paths"][0];
        assert_eq!(path["id"], Value::Null, "the only path has none of its own");
        assert_eq!(path["landing_pages"][0]["url"], "https://a.example/");
        assert!(serde_json::from_str::<Draft>("{\"evil\":1}").is_err());
        assert!(serde_json::from_str::<Draft>("[]").is_ok_and(|draft| draft == Draft::default()));
    }

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
