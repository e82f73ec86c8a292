//! The fields that make a visitor up.

use chrono::NaiveDateTime;
use serde_json::{Value, json};

use super::super::{form::Fields, view::View};
use crate::{http::error::Problem, model::id::new_uuid};

/// The fields of a visitor.
const FIELDS: [&str; 9] =
    ["ip", "agent", "user_agent", "language", "referrer", "url", "at", "seen", "click_id"];

/// Agents to choose from: name, and what the browser says.
const AGENTS: [(&str, &str, &str); 5] = [
    (
        "iphone",
        "iPhone, Safari",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    ),
    (
        "android",
        "Android telephone, Chrome",
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
    ),
    (
        "windows",
        "Windows, Chrome",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        "mac",
        "Mac, Safari",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    ),
    (
        "ipad",
        "iPad, Safari",
        "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
    ),
];

/// What the visitor did before.
const BEFORE: [(&str, &str, Option<bool>, Option<bool>); 4] = [
    ("", "not known", None, None),
    ("new", "nothing: it is the first click", Some(false), Some(true)),
    ("back", "came before, not today", Some(true), Some(true)),
    ("again", "clicked today already", Some(true), Some(false)),
];

/// A made-up visitor as the form has him.
#[derive(Debug, Clone, Default)]
pub(super) struct MadeUp {
    values: Vec<(&'static str, String)>,
    faults: Vec<(String, String)>,
}

impl MadeUp {
    pub(super) fn of(fields: &Fields) -> Self {
        let value = |name: &'static str| (name, fields.text(&format!("v-{name}")).to_owned());
        Self { values: FIELDS.map(value).into(), faults: Vec::new() }
    }

    /// Whether nothing is said of him.
    pub(super) fn is_nobody(&self) -> bool {
        self.values.iter().all(|(name, value)| value.is_empty() || *name == "click_id")
    }

    /// Gives him another click, and so another draw; a step of the editor leaves him the one he has.
    pub(super) fn click_again(&mut self) {
        if let Some((_, id)) = self.values.iter_mut().find(|(name, _)| *name == "click_id") {
            *id = new_uuid().to_string();
        }
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    pub(super) fn fault(&self, name: &str) -> Option<&str> {
        self.faults.iter().find(|(known, _)| known == name).map(|(_, fault)| fault.as_str())
    }

    pub(super) fn agents(&self) -> Vec<(&'static str, &'static str, bool)> {
        AGENTS.iter().map(|(value, name, _)| (*value, *name, *value == self.get("agent"))).collect()
    }

    pub(super) fn befores(&self) -> Vec<(&'static str, &'static str, bool)> {
        BEFORE.iter().map(|(value, name, ..)| (*value, *name, *value == self.get("seen"))).collect()
    }

    /// What the API is asked.
    pub(super) fn body(&self, view: &View) -> Value {
        let optional = |name: &str| match self.get(name) {
            "" => Value::Null,
            text => text.into(),
        };
        let agent = AGENTS.iter().find(|(value, ..)| *value == self.get("agent"));
        let user_agent = match (self.get("user_agent"), agent) {
            ("", Some((.., agent))) => Value::from(*agent),
            _ => optional("user_agent"),
        };
        let before = BEFORE.iter().find(|(value, ..)| *value == self.get("seen"));
        let (returning, unique) =
            before.map_or((None, None), |(.., returning, unique)| (*returning, *unique));
        let at = match NaiveDateTime::parse_from_str(self.get("at"), "%Y-%m-%dT%H:%M") {
            Ok(at) => {
                at.and_local_timezone(view.tz).earliest().map_or(Value::Null, |at| at.to_rfc3339().into())
            }
            Err(_) => optional("at"),
        };
        json!({
            "ip": optional("ip"),
            "user_agent": user_agent,
            "language": optional("language"),
            "referrer": optional("referrer"),
            "url": optional("url"),
            "at": at,
            "click_id": optional("click_id"),
            "returning": returning,
            "unique": unique,
        })
    }

    /// Takes what is wrong with him out of what is wrong with the draft.
    pub(super) fn refuse(&mut self, problem: &Problem) {
        for error in problem.errors() {
            if let Some(name) = error.pointer.strip_prefix('/').filter(|name| FIELDS.contains(name)) {
                self.faults.push((name.to_owned(), format!("It {}.", error.detail.trim_end_matches('.'))));
            }
        }
    }

    /// Whether something is wrong with him, and so not with the draft.
    pub(super) fn is_refused(&self) -> bool {
        !self.faults.is_empty()
    }
}
