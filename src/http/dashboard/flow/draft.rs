//! A flow as it is being written: what forms hold between two steps, with whatever was typed in it.

use serde::{Deserialize, Serialize};

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
                caps: terms.caps.iter().copied().map(Cap::of).collect(),
                ..Path::new(String::new())
            }],
            paths => paths.iter().map(Path::of).collect(),
        };
        Self { rules, paths }
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
            caps: path.caps.iter().copied().map(Cap::of).collect(),
        }
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
            caps: entry.caps.iter().copied().map(Cap::of).collect(),
            overflow: entry.overflow_offer_id.map(|id| id.to_string()).unwrap_or_default(),
        }
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

    fn of(cap: stored::Cap) -> Self {
        Self {
            of: cap.of.to_string(),
            limit: cap.limit.to_string(),
            per: cap.per.to_string(),
            time_zone: cap.time_zone.map(|zone| zone.to_string()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_draft_goes_through_a_form_as_it_is_and_asks_for_what_is_stored() {
        let terms = Terms::demo("https://a.example/");
        let draft = Draft::of(&terms);
        let text = serde_json::to_string(&draft).unwrap();
        assert_eq!(serde_json::from_str::<Draft>(&text).unwrap(), draft);
        let patch = draft.patch();
        assert_eq!(patch["paths"], json!([]));
        let only = &patch["rules"][0]["paths"][0];
        assert_eq!(only["id"], Value::Null, "the only path has none of its own");
        assert_eq!(only["landing_pages"][0]["url"], "https://a.example/");
        assert!(serde_json::from_str::<Draft>("{\"evil\":1}").is_err());
        assert!(serde_json::from_str::<Draft>("[]").is_ok_and(|draft| draft == Draft::default()));
    }
}
