//! One event as it was sent becomes one that can be kept. What says what happened and to whom must be there; everything
//! else is cut, made text or left out where it does not fit, and named.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::loose::{Given, Members, quote};
use crate::{
    campaigns::{LookUps, Lookup},
    facts::event::{Event, Source, id_of_sender},
    http::error::{FieldError, cut},
    model::{
        id::{CampaignKey, ClickId, new_uuid},
        link::{decode, pairs},
        text::{HEADER_CHARS_MAX, PARAMETER_CHARS_MAX, clean},
    },
};

/// Entries of an event's properties.
pub(super) const PROPERTIES_MAX: usize = 64;
/// Longest type, in characters.
pub(super) const TYPE_CHARS_MAX: usize = 64;
/// Characters of a sender's own id that are kept with the event; all of them say which event it is.
pub(super) const EXTERNAL_ID_CHARS_MAX: usize = 128;
/// What was adjusted is named for so many members at most.
const ADJUSTED_MAX: usize = 20;
/// The type of an event whose own has none of the letters that a type is made of.
const TYPE_OF_OTHERS: &str = "custom";

/// How old the time of an event may be, and how far ahead: it may have waited in a phone without a network.
const TIME_PAST: TimeDelta = TimeDelta::days(7);
const TIME_AHEAD: TimeDelta = TimeDelta::minutes(5);
/// From here on a number is of milliseconds: as seconds it would be the year 5138, as milliseconds it is 1973.
const MILLISECONDS_FROM: f64 = 1e11;

/// What was changed to keep an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct Adjusted {
    /// Where it stood: an RFC 6901 JSON pointer into the body.
    #[schema(example = "/event_type")]
    pub pointer: String,
    /// What kind of fault it was: `characters` (control characters, NUL and broken Unicode were removed or replaced),
    /// `click_id` (not ours: kept as a property), `empty`, `folded` (an event type, in small letters), `length` (cut),
    /// `pattern` or `unknown_campaign` (a `cid`, kept as a property), `placeholder` (an id such as `undefined`), `range`
    /// (a number kept as text, a time kept as a property), `time` (none: kept as a property), `type` (made text, or kept
    /// as a property).
    #[schema(value_type = String, example = "folded")]
    pub code: &'static str,
}

/// An event that can be kept, and what was changed for it.
#[derive(Debug)]
pub(in crate::http) struct Taken<'a> {
    pub event: Event<'a>,
    pub adjusted: Vec<Adjusted>,
}

/// Reads one event, the members of which stand at `pointer` of the body; every reason to refuse it is named.
pub(in crate::http) async fn read<'a>(
    look_ups: &mut LookUps<'_>,
    members: Members<'a>,
    pointer: &str,
    source: Source,
) -> Result<Taken<'a>, Vec<FieldError>> {
    let now = Utc::now();
    let mut input = Input::new(members, pointer);
    let kind = input.event_type();
    let event_name = input.text("event_name", PARAMETER_CHARS_MAX);
    let named_click = input.click_id();
    let mut named_campaign = input.cid();
    if input.errors.is_empty()
        && let Named::Good(key) = &named_campaign
    {
        let found = look_ups.get(&key.key).await;
        named_campaign = match found {
            Lookup::Unknown => Named::Bad(key.given.clone(), "unknown_campaign", "there is no such campaign"),
            found => Named::Good(Campaign { found: Some(found), ..key.clone() }),
        };
    }
    let (click_id, key) = input.belongs_to(named_click, named_campaign);
    let sender_id = input.event_id();
    let occurred_at = input.time(now);
    let url = input.text("url", HEADER_CHARS_MAX);
    let referrer = input.text("referrer", HEADER_CHARS_MAX);
    let session_id = input.text("session_id", PARAMETER_CHARS_MAX);
    let user_id = input.text("user_id", PARAMETER_CHARS_MAX);
    let Some(kind) = kind.filter(|_| input.errors.is_empty()) else { return Err(input.errors) };

    let (campaign_id, cid) = match key {
        Some(Campaign { found: Some(Lookup::Found(routes)), .. }) => {
            (Some(routes.campaign.id), Some(routes.campaign.key.as_str().to_owned()))
        }
        Some(Campaign { key, .. }) => (None, Some(key.as_str().to_owned())),
        None => (None, None),
    };
    let (id, external_id) = match sender_id {
        None => (None, None),
        Some(SenderId::Uuid(id)) => (Some(id), None),
        Some(SenderId::Text(text)) => {
            let click = click_id.map(|id| id.to_string());
            let scope = cid.as_deref().or(click.as_deref()).unwrap_or_default();
            let id = id_of_sender(source, scope, &kind.whole, &text);
            (Some(id), Some(Cow::Owned(text.chars().take(EXTERNAL_ID_CHARS_MAX).collect())))
        }
    };
    let event_name = match (event_name, kind.original) {
        (None, Some(original)) => Some(clean(&original, PARAMETER_CHARS_MAX).into_owned().into()),
        (Some(name), Some(original)) if kind.word == TYPE_OF_OTHERS => {
            input.left_out.push(("event_type", Given::Text(original)));
            Some(name)
        }
        (name, _) => name,
    };
    let properties = input.properties();
    let event = Event {
        id: id.unwrap_or_else(new_uuid),
        is_idempotent: id.is_some(),
        source,
        external_id,
        created_at: now,
        occurred_at,
        click_id,
        campaign_id,
        cid: if campaign_id.is_none() { cid.map(Cow::Owned) } else { None },
        event_type: kind.word.into(),
        event_name,
        url,
        referrer,
        session_id,
        user_id,
        properties: properties.map(Cow::Owned),
    };
    Ok(Taken { event, adjusted: input.adjusted })
}

/// The members that the parameters of a query or a form stand for; the first of repeated ones counts. `&amp;` separates
/// like `&`: it is what a page holds that escaped a link twice.
pub(in crate::http) fn from_query(query: &str) -> Members<'_> {
    let mut members = Members::default();
    for pair in pairs(query) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, usize::MAX);
        let value = decode(value, usize::MAX);
        // our own are told that they are empty; of others an empty one says nothing
        let is_said = !name.is_empty() && (!value.is_empty() || FIELDS.contains(&name.as_ref()));
        if is_said && !members.contains(&name) && members.len() < PARAMETERS_MAX {
            members.set(name, Given::Text(value));
        }
    }
    members
}

/// Names that are not those of properties.
pub(super) const FIELDS: [&str; 10] = [
    "event_type",
    "event_name",
    "click_id",
    "cid",
    "event_id",
    "time",
    "url",
    "referrer",
    "session_id",
    "user_id",
];

/// Parameters that are looked at: ours and as many properties as are kept, and then some.
const PARAMETERS_MAX: usize = 1_000;

/// What an event says about the click or the campaign that it belongs to.
enum Named<'a, T> {
    Nothing,
    Good(T),
    Bad(Given<'a>, &'static str, &'static str),
}

#[derive(Clone)]
struct Campaign<'a> {
    key: CampaignKey,
    given: Given<'a>,
    found: Option<Lookup>,
}

/// An id that a sender gave its event.
enum SenderId {
    Uuid(Uuid),
    Text(String),
}

/// What happened.
struct Kind<'a> {
    /// As it is stored.
    word: String,
    /// With the letters of every alphabet, and whole: types that are stored alike are not one by it.
    whole: String,
    /// As it was sent, if that is something else.
    original: Option<Cow<'a, str>>,
}

/// The members of one event, and what was found so far.
struct Input<'a, 'p> {
    members: Members<'a>,
    pointer: &'p str,
    errors: Vec<FieldError>,
    adjusted: Vec<Adjusted>,
    /// What does not fit its field, to be kept as a property.
    left_out: Vec<(&'static str, Given<'a>)>,
}

impl<'a, 'p> Input<'a, 'p> {
    fn new(members: Members<'a>, pointer: &'p str) -> Self {
        Self { members, pointer, errors: Vec::new(), adjusted: Vec::new(), left_out: Vec::new() }
    }

    /// What happened; it must be there.
    fn event_type(&mut self) -> Option<Kind<'a>> {
        let Some(given) = self.members.take("event_type") else {
            self.refuse("event_type", "required", "is required");
            return None;
        };
        let Some(said) = given.said() else {
            self.refuse("event_type", "type", "must be a text");
            return None;
        };
        if said.is_coerced {
            self.note("event_type", "type");
        }
        let text = trimmed(said.text);
        if is_type(&text) {
            return Some(Kind { word: text.to_string(), whole: text.into_owned(), original: None });
        }
        let says_something =
            |c: char| !(c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER);
        if !text.chars().any(says_something) {
            let (code, detail) = if text.is_empty() {
                ("required", "must not be empty")
            } else {
                ("pattern", "must have letters or digits")
            };
            self.refuse("event_type", code, detail);
            return None;
        }
        self.note("event_type", "folded");
        let whole = folded(&text, char::is_alphanumeric);
        let mut word = folded(&whole, |c| c.is_ascii_alphanumeric());
        if word.len() > TYPE_CHARS_MAX {
            self.note("event_type", "length");
            word.truncate(TYPE_CHARS_MAX); // all of it is ASCII
        }
        if word.is_empty() {
            TYPE_OF_OTHERS.clone_into(&mut word);
        }
        let whole = if whole.is_empty() { text.to_string() } else { whole };
        Some(Kind { word, whole, original: Some(text) })
    }

    /// A text that may be absent; what is too long is cut, and what is no text becomes a property.
    fn text(&mut self, name: &'static str, chars_max: usize) -> Option<Cow<'a, str>> {
        let text = self.whole_text(name)?;
        if text.chars().nth(chars_max).is_none() {
            return Some(text);
        }
        self.note(name, "length");
        Some(Cow::Owned(text.chars().take(chars_max).collect()))
    }

    /// A text of any length, without white space around it and without control characters.
    fn whole_text(&mut self, name: &'static str) -> Option<Cow<'a, str>> {
        let given = self.members.take(name)?;
        let Some(said) = given.said() else {
            self.note(name, "type");
            self.left_out.push((name, given));
            return None;
        };
        if said.is_coerced {
            self.note(name, "type");
        }
        let text = trimmed(said.text);
        let cleaned = match clean(&text, usize::MAX) {
            Cow::Borrowed(_) => text,
            Cow::Owned(cleaned) => {
                self.note(name, "characters");
                trimmed(Cow::Owned(cleaned))
            }
        };
        if said.is_mended {
            self.note(name, "characters");
        }
        if cleaned.is_empty() {
            self.note(name, "empty");
            return None;
        }
        Some(cleaned)
    }

    /// Our id of the click.
    fn click_id(&mut self) -> Named<'a, ClickId> {
        match self.text_and_given("click_id") {
            None => Named::Nothing,
            Some((text, given)) => match text.as_deref().map(str::parse) {
                Some(Ok(id)) => Named::Good(id),
                _ => Named::Bad(given, "click_id", "must be the id of a click, as in X-Click-Id"),
            },
        }
    }

    /// The key of the campaign.
    fn cid(&mut self) -> Named<'a, Campaign<'a>> {
        match self.text_and_given("cid") {
            None => Named::Nothing,
            Some((None, given)) => Named::Bad(given, "type", "must be a text"),
            Some((Some(text), given)) => match text.parse() {
                Ok(key) => Named::Good(Campaign { key, given, found: None }),
                Err(detail) => Named::Bad(given, "pattern", detail),
            },
        }
    }

    /// Of what belongs to others: the text, if it is one, and what was given; `None` if there is nothing.
    fn text_and_given(&mut self, name: &'static str) -> Option<(Option<Cow<'a, str>>, Given<'a>)> {
        let given = self.members.take(name)?;
        let said = given.said();
        if said.as_ref().is_some_and(|said| said.is_coerced) {
            self.note(name, "type");
        }
        let text = said.map(|said| trimmed(said.text));
        if text.as_deref() == Some("") {
            self.note(name, "empty");
            return None;
        }
        Some((text, given))
    }

    /// The click and the campaign. One that cannot be used is a detail where the other can.
    fn belongs_to(
        &mut self,
        click: Named<'a, ClickId>,
        campaign: Named<'a, Campaign<'a>>,
    ) -> (Option<ClickId>, Option<Campaign<'a>>) {
        let (has_click, has_campaign) = (matches!(click, Named::Good(_)), matches!(campaign, Named::Good(_)));
        if matches!((&click, &campaign), (Named::Nothing, Named::Nothing)) {
            self.refuse("click_id", "required", "click_id or cid is required");
        }
        let click = match click {
            Named::Good(id) => Some(id),
            Named::Bad(given, code, detail) => {
                self.detail_or_refuse(has_campaign, "click_id", given, code, detail);
                None
            }
            Named::Nothing => None,
        };
        let campaign = match campaign {
            Named::Good(key) => Some(key),
            Named::Bad(given, code, detail) => {
                self.detail_or_refuse(has_click, "cid", given, code, detail);
                None
            }
            Named::Nothing => None,
        };
        (click, campaign)
    }

    fn detail_or_refuse(
        &mut self,
        is_detail: bool,
        name: &'static str,
        given: Given<'a>,
        code: &'static str,
        detail: &'static str,
    ) {
        if is_detail {
            self.note(name, code);
            self.left_out.push((name, given));
        } else {
            self.refuse(name, code, detail);
        }
    }

    /// The sender's own id. `true` and `false` are none, nor is what a script writes where it has nothing: they would
    /// make one event of all.
    fn event_id(&mut self) -> Option<SenderId> {
        if self.members.peek("event_id").is_some_and(Given::is_boolean) {
            let given = self.members.take("event_id")?;
            self.note("event_id", "type");
            self.left_out.push(("event_id", given));
            return None;
        }
        let text = self.whole_text("event_id")?;
        match Uuid::try_parse(&text) {
            Ok(id) if !id.is_nil() => return Some(SenderId::Uuid(id)),
            Ok(_) => {}
            Err(_) if is_placeholder(&text) => {}
            Err(_) => {
                if text.chars().nth(EXTERNAL_ID_CHARS_MAX).is_some() {
                    self.note("event_id", "length");
                }
                return Some(SenderId::Text(text.into_owned()));
            }
        }
        self.note("event_id", "placeholder");
        self.left_out.push(("event_id", Given::Text(text)));
        None
    }

    /// When it happened, by the sender's clock.
    fn time(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let given = self.members.take("time")?;
        let text = given.said().map(|said| trimmed(said.text));
        if text.as_deref() == Some("") {
            self.note("time", "empty");
            return None;
        }
        let time = text.as_deref().and_then(time_of);
        let code = match time {
            Some(time) if (now - TIME_PAST..=now + TIME_AHEAD).contains(&time) => return Some(time),
            Some(_) => "range",
            None => "time",
        };
        self.note("time", code);
        self.left_out.push(("time", given));
        None
    }

    /// What the sender named properties, then what does not fit its field, then members of other names.
    fn properties(&mut self) -> Option<String> {
        let mut properties = Properties::default();
        if let Some(given) = self.members.take("properties") {
            if let Some(members) = given.members() {
                for (name, given) in members.rest() {
                    self.keep(&mut properties, "/properties", name, &given);
                }
            } else {
                self.note("properties", "type");
                self.keep(&mut properties, "", "properties".into(), &given);
            }
        }
        for (name, given) in std::mem::take(&mut self.left_out) {
            self.keep(&mut properties, "", name.into(), &given);
        }
        for (name, given) in std::mem::take(&mut self.members).rest() {
            if !given.is_null() {
                self.keep(&mut properties, "", name, &given);
            }
        }
        properties.into_json()
    }

    fn keep(&mut self, properties: &mut Properties<'a>, place: &str, name: Cow<'a, str>, given: &Given<'a>) {
        if properties.contains(&name) {
            return;
        }
        if properties.len() == PROPERTIES_MAX {
            self.note_at(&format!("{place}/{}", escaped(&name)), "length");
            return;
        }
        let (json, is_mended, is_quoted) = given.to_jsonb();
        for (is_so, code) in [(is_mended, "characters"), (is_quoted, "range")] {
            if is_so {
                self.note_at(&format!("{place}/{}", escaped(&name)), code);
            }
        }
        properties.add(name, &json);
    }

    fn refuse(&mut self, name: &str, code: &'static str, detail: &'static str) {
        self.errors.push(FieldError::new(format!("{}/{name}", self.pointer), code, detail));
    }

    fn note(&mut self, name: &str, code: &'static str) {
        self.note_at(&format!("/{name}"), code);
    }

    fn note_at(&mut self, pointer: &str, code: &'static str) {
        let adjusted = Adjusted { pointer: format!("{}{pointer}", self.pointer), code };
        if self.adjusted.len() < ADJUSTED_MAX && !self.adjusted.contains(&adjusted) {
            self.adjusted.push(adjusted);
        }
    }
}

/// A JSON object that is written member by member.
#[derive(Default)]
struct Properties<'a> {
    names: std::collections::HashSet<Cow<'a, str>>,
    json: String,
}

impl<'a> Properties<'a> {
    fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn len(&self) -> usize {
        self.names.len()
    }

    fn add(&mut self, name: Cow<'a, str>, json: &str) {
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        self.json.push_str(&quote(&name));
        self.json.push(':');
        self.json.push_str(json);
        self.names.insert(name);
    }

    fn into_json(mut self) -> Option<String> {
        if self.json.is_empty() {
            return None;
        }
        self.json.push('}');
        Some(self.json)
    }
}

/// A name as it stands in a pointer.
fn escaped(name: &str) -> String {
    cut(name, 64).replace('~', "~0").replace('/', "~1")
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// 1-64 of `a-z0-9_.-`
pub(super) fn is_type(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
    (1..=TYPE_CHARS_MAX).contains(&text.len()) && text.bytes().all(valid)
}

/// In small letters; what is neither `is_kept` nor `_`, `.` or `-` becomes one `_` between the others.
fn folded(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut is_gap = false;
    for c in text.chars() {
        if !is_kept(c) && !matches!(c, '_' | '.' | '-') {
            is_gap = true;
            continue;
        }
        if std::mem::take(&mut is_gap) && !folded.is_empty() {
            folded.push('_');
        }
        folded.extend(c.to_lowercase());
    }
    folded
}

/// What scripts and templates leave where they have no value.
fn is_placeholder(text: &str) -> bool {
    let is_one_of = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    is_one_of(&["null", "undefined", "nan", "none", "[object object]", "replace", "optional"])
        || [("{", "}"), ("[", "]"), ("${", "}"), ("%", "%"), ("__", "__"), ("##", "##"), ("<", ">")]
            .iter()
            .any(|(open, close)| {
                text.len() > open.len() + close.len() && text.starts_with(open) && text.ends_with(close)
            })
}

/// Seconds or milliseconds since 1970, or RFC 3339.
fn time_of(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.with_timezone(&Utc));
    }
    let number: f64 = text.parse().ok()?;
    let milliseconds = if number.abs() < MILLISECONDS_FROM { number * 1000.0 } else { number };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "chrono refuses what is out of range, and so far saturates"
    )]
    DateTime::from_timestamp_millis(milliseconds.round() as i64).filter(|_| number.is_finite())
}

/// The fault of what should be an event and is no object.
pub(in crate::http) fn not_an_object(pointer: &str) -> FieldError {
    FieldError::new(pointer, "type", "must be an object")
}

/// 1-64 of `a-z0-9_.-`
pub(in crate::http) struct Slug(pub(in crate::http) String);

impl std::str::FromStr for Slug {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_type(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 64 characters of a-z 0-9 _ . -")
        }
    }
}
