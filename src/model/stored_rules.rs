//! How the rules of a campaign are written: in Postgres (`campaigns.rules`), in Redis and on disk. Landing pages and offers
//! stand beside them, and are named by id. What is written here is read by other releases: it never changes but by
//! optional members.

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{
    campaign::{Destination, Terms},
    rule::{Cap, Criterion, OfferChoice, Path, Rule},
};

/// The rules of a campaign, and the paths of its default rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRules {
    rules: Vec<StoredRule>,
    /// Of the default rule.
    paths: Vec<StoredPath>,
    /// The default rule's only path, where there are no `paths`.
    only: StoredPath,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredRule {
    id: Option<i64>,
    name: String,
    is_active: bool,
    when: Vec<Criterion>,
    time_zone: Option<Tz>,
    paths: Vec<StoredPath>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredPath {
    id: Option<i64>,
    name: String,
    weight: i32,
    is_active: bool,
    when: Vec<Criterion>,
    landing_pages: Vec<StoredEntry>,
    offers: Vec<StoredEntry>,
    offer_choice: OfferChoice,
    caps: Vec<Cap>,
}

/// A landing page or offer of a path; one without an id is no page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredEntry {
    id: Option<i64>,
    weight: i32,
    is_active: bool,
}

impl StoredRules {
    /// What of the terms their lists of landing pages and offers do not say by themselves; `None`: nothing.
    pub fn of(terms: &Terms) -> Option<Self> {
        let is_plain = |d: &Destination| !d.direct && !d.library;
        let says_nothing = terms.rules.is_empty()
            && terms.paths.is_empty()
            && terms.caps.is_empty()
            && terms.offer_choice == OfferChoice::default()
            && terms.landing_pages.iter().chain(&terms.offers).all(is_plain);
        if says_nothing {
            return None;
        }
        let only = Path {
            landing_pages: terms.landing_pages.clone(),
            offers: terms.offers.clone(),
            offer_choice: terms.offer_choice,
            caps: terms.caps.clone(),
            ..Path::default()
        };
        let rule = |rule: &Rule| StoredRule {
            id: rule.id,
            name: rule.name.clone(),
            is_active: rule.is_active,
            when: rule.when.clone(),
            time_zone: rule.time_zone,
            paths: rule.paths.iter().map(StoredPath::of).collect(),
        };
        Some(Self {
            rules: terms.rules.iter().map(rule).collect(),
            paths: terms.paths.iter().map(StoredPath::of).collect(),
            only: StoredPath::of(&only),
        })
    }

    /// Puts the rules into terms; their destinations are looked for among `landing_pages` and `offers`, and one that is not
    /// there is left out.
    pub fn put_into(self, terms: &mut Terms, landing_pages: &[Destination], offers: &[Destination]) {
        let path = |stored: StoredPath| stored.path(landing_pages, offers);
        let rule = |stored: StoredRule| Rule {
            id: stored.id,
            name: stored.name,
            is_active: stored.is_active,
            when: fitting(stored.when),
            time_zone: stored.time_zone,
            paths: fitting(stored.paths.into_iter().map(path).collect()),
        };
        terms.rules = fitting(self.rules.into_iter().map(rule).collect());
        terms.paths = fitting(self.paths.into_iter().map(path).collect());
        let only = path(self.only);
        terms.landing_pages = only.landing_pages;
        terms.offers = only.offers;
        terms.offer_choice = only.offer_choice;
        terms.caps = only.caps;
    }
}

impl StoredPath {
    fn of(path: &Path) -> Self {
        let entries = |list: &[Destination]| {
            list.iter().map(|d| StoredEntry { id: d.id, weight: d.weight, is_active: d.is_active }).collect()
        };
        Self {
            id: path.id,
            name: path.name.clone(),
            weight: path.weight,
            is_active: path.is_active,
            when: path.when.clone(),
            landing_pages: entries(&path.landing_pages),
            offers: entries(&path.offers),
            offer_choice: path.offer_choice,
            caps: path.caps.clone(),
        }
    }

    fn path(self, landing_pages: &[Destination], offers: &[Destination]) -> Path {
        let entries = |stored: Vec<StoredEntry>, all: &[Destination]| {
            let mut found = Vec::with_capacity(stored.len());
            found.extend(stored.into_iter().filter_map(|entry| entry.destination(all)));
            found
        };
        Path {
            id: self.id,
            name: self.name,
            weight: self.weight,
            is_active: self.is_active,
            when: fitting(self.when),
            landing_pages: entries(self.landing_pages, landing_pages),
            offers: entries(self.offers, offers),
            offer_choice: self.offer_choice,
            caps: fitting(self.caps),
        }
    }
}

/// Without the room for more that a list has that was read; each campaign in memory has many of them.
fn fitting<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

impl StoredEntry {
    fn destination(self, all: &[Destination]) -> Option<Destination> {
        let Self { id, weight, is_active } = self;
        if id.is_none() {
            return Some(Destination { weight, is_active, ..Destination::direct() });
        }
        let known = all.iter().find(|d| d.id == id)?.clone();
        // one that is archived in the library is inactive wherever it stands
        Some(Destination { weight, is_active: is_active && (known.is_active || !known.library), ..known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::{Dimension, Sticky, Test};

    fn destination(id: i64) -> Destination {
        let url = format!("https://d{id}.example/");
        Destination { id: Some(id), name: format!("d{id}"), url, ..Destination::default() }
    }

    #[test]
    fn rules_read_back_as_they_were_written_and_plain_lists_need_none() {
        let plain = Terms { landing_pages: vec![destination(1)], ..Terms::default() };
        assert_eq!(StoredRules::of(&plain), None);
        let when = vec![Criterion {
            dimension: Dimension::Parameter,
            name: Some("q".into()),
            test: Test::IsNot(vec!["a".into()]),
        }];
        let path = |id: i64| Path {
            id: Some(id),
            name: format!("p{id}"),
            weight: 3,
            when: when.clone(),
            landing_pages: vec![destination(id), Destination { weight: 7, ..Destination::direct() }],
            offers: vec![Destination { library: true, weight: 9, ..destination(50) }],
            ..Path::default()
        };
        let terms = Terms {
            rules: vec![Rule {
                id: Some(4),
                name: "r".into(),
                when: when.clone(),
                time_zone: Some(Tz::Asia__Kolkata),
                paths: vec![path(1), path(2)],
                ..Rule::default()
            }],
            paths: vec![path(3)],
            sticky: Sticky::All,
            ..Terms::default()
        };
        let text = serde_json::to_string(&StoredRules::of(&terms)).unwrap();
        let stored: StoredRules = serde_json::from_str(&text).unwrap();
        let mut read = Terms { sticky: Sticky::All, ..Terms::default() };
        let pages: Vec<Destination> = (1..=3).map(destination).collect();
        stored.put_into(&mut read, &pages, &[Destination { library: true, ..destination(50) }]);
        assert_eq!(read, terms);
    }
}
