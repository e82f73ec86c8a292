//! What was erased: clicks by their id, or by a value of the link, and the events and out-clicks that belong to them.

use std::{collections::HashMap, str::FromStr};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    facts::{Fact, record::Record},
    model::{
        id::ClickId,
        text::{LINK_VALUE_CHARS_MAX, PARAMETER_CHARS_MAX, clean},
    },
};

/// A parameter of links whose value may stand for a person.
pub const NAMES: [&str; 11] = [
    "sub1", "sub2", "sub3", "sub4", "sub5", "aff_sub", "aff_sub2", "aff_sub3", "aff_sub4", "aff_sub5",
    "click_id",
];

/// Members of events whose value may stand for a person.
pub const EVENT_NAMES: [&str; 2] = ["user_id", "session_id"];

/// Whom an export or an erasure is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One click.
    Click(ClickId),
    /// Every click whose link said this, and their events.
    Sub(Sub),
    /// Every event that says this, whatever click it belongs to.
    Person(Sub),
}

/// A parameter of a link, or a member of an event, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sub {
    /// One of [`NAMES`] or [`EVENT_NAMES`].
    pub name: &'static str,
    /// As a click or an event keeps it.
    pub value: String,
}

impl Sub {
    /// The user or session that events name, `name` being one of [`EVENT_NAMES`]; `None` for a blank.
    pub fn of_event(name: &'static str, value: &str) -> Option<Self> {
        let value = clean(value, usize::MAX);
        let value: String = value.trim().chars().take(PARAMETER_CHARS_MAX).collect();
        (!value.is_empty()).then_some(Self { name, value })
    }
}

/// `NAME=VALUE`
impl FromStr for Sub {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE, such as sub1=alice")?;
        let name = NAMES.into_iter().find(|known| *known == name);
        let name = name.ok_or_else(|| format!("NAME must be one of {}", NAMES.join(", ")))?;
        let value = clean(value, LINK_VALUE_CHARS_MAX).into_owned();
        if value.is_empty() { Err("VALUE must not be empty".to_owned()) } else { Ok(Self { name, value }) }
    }
}

/// SHA-256 of a name and a value: what is noted of an erasure, in the place of the value.
pub type SubHash = [u8; 32];

impl Sub {
    /// What is noted of it.
    pub fn hash(&self) -> SubHash {
        hash(self.name, &self.value)
    }
}

fn hash(name: &str, value: &str) -> SubHash {
    Sha256::new().chain_update(name).chain_update([0]).chain_update(value).finalize().into()
}

/// What is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A click and its events.
    Click(Uuid),
    /// Clicks whose link said this, and their events; or events that say this.
    Sub(SubHash),
}

impl What {
    /// The click, if it is one.
    pub fn click_id(&self) -> Option<Uuid> {
        match self {
            Self::Click(id) => Some(*id),
            Self::Sub(_) => None,
        }
    }

    /// The value's hash, if it is one.
    pub fn sub_hash(&self) -> Option<SubHash> {
        match self {
            Self::Click(_) => None,
            Self::Sub(hash) => Some(*hash),
        }
    }
}

/// An erasure as it is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// Counts up.
    pub id: i64,
    /// What is erased.
    pub what: What,
    /// What came later stays.
    pub before: DateTime<Utc>,
}

/// Erasures, asked for each record that is stored or kept.
#[derive(Debug, Clone, Default)]
pub struct Erasures {
    last_id: i64,
    clicks: HashMap<Uuid, DateTime<Utc>>,
    subs: HashMap<SubHash, DateTime<Utc>>,
}

impl Erasures {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.clicks.is_empty() && self.subs.is_empty()
    }

    /// Whether any is by a value: then [`Erasures::learn`] has something to learn.
    pub fn has_subs(&self) -> bool {
        !self.subs.is_empty()
    }

    /// The last one that was added.
    pub fn last_id(&self) -> i64 {
        self.last_id
    }

    /// Adds one; of two of the same the later counts.
    pub fn add(&mut self, erasure: Erasure) {
        self.last_id = self.last_id.max(erasure.id);
        let before = match erasure.what {
            What::Click(id) => self.clicks.entry(id),
            What::Sub(hash) => return note(self.subs.entry(hash).or_insert(erasure.before), erasure.before),
        };
        note(before.or_insert(erasure.before), erasure.before);
    }

    /// Whether a record is erased: see [`Erasures::has_fact`].
    pub fn has(&self, record: &Record<'_>) -> bool {
        record.fact().is_some_and(|fact| self.has_fact(fact))
    }

    /// Whether a fact is erased: by the click that it is; by the click it belongs to, or by what it says of a person, if
    /// it came before. What belongs to a click is erased where its click is known to be: see [`Erasures::learn`].
    pub fn has_fact(&self, fact: &dyn Fact) -> bool {
        let before = fact.click_id().and_then(|id| self.clicks.get(&id));
        before.is_some_and(|before| fact.click_id() == Some(fact.id()) || fact.at() < *before)
            || self.before_of_person(fact).is_some()
    }

    /// Takes the id of a click that is erased for what its link said: what belongs to it names only that. `true`: it is
    /// one.
    pub fn learn(&mut self, fact: &dyn Fact) -> bool {
        if fact.click_id() != Some(fact.id()) {
            return false;
        }
        let Some(before) = self.before_of_person(fact) else { return false };
        note(self.clicks.entry(fact.id()).or_insert(before), before);
        true
    }

    /// As [`Erasures::learn`], of bytes that may be a record.
    pub fn learn_record(&mut self, bytes: &[u8]) {
        if let Some(fact) = Record::decode(bytes).ok().as_ref().and_then(Record::fact) {
            self.learn(fact);
        }
    }

    /// The clicks that are erased by their id.
    pub fn click_ids(&self) -> impl Iterator<Item = Uuid> {
        self.clicks.keys().copied()
    }

    /// The erasure of what a fact says of a person, if the fact came before.
    fn before_of_person(&self, fact: &dyn Fact) -> Option<DateTime<Utc>> {
        if self.subs.is_empty() {
            return None;
        }
        let befores =
            fact.personal().into_iter().filter_map(|(name, value)| self.subs.get(&hash(name, value)));
        befores.copied().find(|before| fact.at() < *before)
    }
}

impl Extend<Erasure> for Erasures {
    fn extend<T: IntoIterator<Item = Erasure>>(&mut self, erasures: T) {
        for erasure in erasures {
            self.add(erasure);
        }
    }
}

fn note(noted: &mut DateTime<Utc>, before: DateTime<Utc>) {
    *noted = before.max(*noted);
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::facts::{click::Click, event::Event};

    #[test]
    fn a_value_erases_the_clicks_that_came_before_and_their_events() {
        let now = Utc::now() + TimeDelta::seconds(1);
        let sub: Sub = "aff_sub2=alice".parse().unwrap();
        let mut erasures = Erasures::default();
        erasures.add(Erasure { id: 7, what: What::Sub(sub.hash()), before: now });
        let mut click = Click::new(ClickId::now(), Uuid::nil());
        assert!(!erasures.has_fact(&click));
        click.subs[1] = Some("alice".into());
        assert!(!erasures.has_fact(&click), "the same value under another name");
        click.aff_subs[1] = Some("alice".into());
        assert!(erasures.has_fact(&click));
        let mut event = Event::new(Uuid::nil(), "view", Utc::now());
        event.click_id = Some(click.id);
        assert!(!erasures.has_fact(&event), "nothing is known of its click");
        assert!(erasures.learn(&click) && erasures.has_fact(&event));
        event.created_at = now;
        assert!(!erasures.has_fact(&event), "it came later");
        let mut earlier = Erasures::default();
        earlier.add(Erasure { id: 1, what: What::Sub(sub.hash()), before: now - TimeDelta::hours(1) });
        assert!(!earlier.has_fact(&click), "the click came later");
        assert_eq!((erasures.last_id(), erasures.click_ids().count()), (7, 1));
    }

    #[test]
    fn a_user_or_session_erases_the_events_that_name_it_and_came_before() {
        let now = Utc::now();
        let user = Sub::of_event("user_id", " ali\u{0}ce ").unwrap();
        assert_eq!((user.name, user.value.as_str()), ("user_id", "alice"));
        assert_eq!(Sub::of_event("user_id", " \u{0} "), None);
        let mut erasures = Erasures::default();
        erasures.add(Erasure { id: 1, what: What::Sub(user.hash()), before: now });
        let mut event = Event::new(Uuid::nil(), "view", now - TimeDelta::seconds(1));
        assert!(!erasures.has_fact(&event));
        event.session_id = Some("alice".into());
        assert!(!erasures.has_fact(&event), "the same value under another name");
        event.user_id = Some("alice".into());
        assert!(erasures.has_fact(&event));
        event.created_at = now;
        assert!(!erasures.has_fact(&event), "it came later");
        let mut click = Click::new(ClickId::now(), Uuid::nil());
        click.subs[0] = Some("alice".into());
        assert!(!erasures.has_fact(&click), "clicks are found by what their links said");
    }

    #[test]
    fn a_subject_is_a_known_name_and_a_value() {
        let sub: Sub = "sub1=a=b\u{0}".parse().unwrap();
        assert_eq!((sub.name, sub.value.as_str()), ("sub1", "a=b"));
        for bad in ["", "sub1", "sub1=", "sub6=x", "=x", "sub1=\u{0}"] {
            assert!(bad.parse::<Sub>().is_err(), "{bad}");
        }
    }
}
