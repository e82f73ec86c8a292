//! Reads a JSON body field by field and names **every** bad one, where a derived deserializer would stop at
//! the first. No field is echoed at length.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::error::{FieldError, Problem, cut};
use crate::{
    model::{
        money::{Currency, Money, parse_amount},
        scheme::Scheme,
    },
    routing::destination::{self, Template},
};

/// Unknown fields that are named one by one; a body of a megabyte can hold very many.
const UNKNOWN_MAX: usize = 20;

/// Parses a body. 400 `invalid_json` for what is not JSON (RFC 8259, no byte order mark, no lone surrogates)
/// or is nested deeper than `depth_max`. Of members with the same name the last one counts.
pub fn parse_json(body: &[u8], depth_max: usize) -> Result<Value, Problem> {
    if depth_exceeds(body, depth_max) {
        let detail = format!("The JSON is nested deeper than {depth_max} levels.");
        return Err(Problem::bad_request("invalid_json", detail));
    }
    serde_json::from_slice(body)
        .map_err(|e| Problem::bad_request("invalid_json", format!("The body is not valid JSON: {e}.")))
}

/// Replaces U+0000, which Postgres cannot store, by U+FFFD in every text and name.
pub fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) => replace_nul_in(text),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(members) => {
            if members.keys().any(|name| name.contains('\0')) {
                let renamed = std::mem::take(members).into_iter().map(|(mut name, value)| {
                    replace_nul_in(&mut name);
                    (name, value)
                });
                *members = renamed.collect();
            }
            members.values_mut().for_each(replace_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a body says about one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Given<'v> {
    /// Nothing.
    Absent,
    /// `null`
    Null,
    /// A value.
    Value(&'v Value),
}

/// The fields of one JSON object, and what was found wrong with them so far.
#[derive(Debug)]
pub struct Fields<'v> {
    members: &'v Map<String, Value>,
    pointer: String,
    errors: Vec<FieldError>,
}

impl<'v> Fields<'v> {
    /// The fields of `value`, which is at `pointer` of the body (`""`: it is the body).
    pub fn new(value: &'v Value, pointer: impl Into<String>) -> Result<Self, FieldError> {
        let pointer = pointer.into();
        match value.as_object() {
            Some(members) => Ok(Self { members, pointer, errors: Vec::new() }),
            None => Err(FieldError::new(pointer, "type", "must be an object")),
        }
    }

    /// What the body says about `name`.
    pub fn given(&self, name: &str) -> Given<'v> {
        match self.members.get(name) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Value(value),
        }
    }

    /// A text that must be there, by its length in characters.
    pub fn text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Option<&'v str> {
        if self.required(name) { self.optional_text(name, chars) } else { None }
    }

    /// A text that may be absent or `null`.
    pub fn optional_text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Option<&'v str> {
        let text = self.string(name)?;
        // counting stops where it is too long: a body may hold a megabyte
        let length = text.chars().take(chars.end() + 1).count();
        if chars.contains(&length) {
            return Some(text);
        }
        let (min, max) = (chars.start(), chars.end());
        let detail = match min {
            0 => format!("must have at most {max} characters"),
            _ => format!("must have {min} to {max} characters"),
        };
        self.refuse(name, "length", detail);
        None
    }

    /// A name for people that must be there: 1 to 255 characters, not only spaces.
    pub fn name(&mut self, name: &str) -> Option<String> {
        let text = self.text(name, 1..=255)?;
        if text.trim().is_empty() {
            self.refuse(name, "length", "must not be blank");
            return None;
        }
        Some(text.to_owned())
    }

    /// A text that parses itself; it must be there. `code` says what kind of fault it is when it does not.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, code: &'static str) -> Option<T> {
        if self.required(name) { self.optional_parsed(name, code) } else { None }
    }

    /// A text that parses itself; it may be absent or `null`.
    pub fn optional_parsed<T: FromStr<Err: Display>>(&mut self, name: &str, code: &'static str) -> Option<T> {
        match self.string(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, code, error.to_string());
                None
            }
        }
    }

    /// One of a closed set of texts, or `default` when it is absent. `null` is refused.
    pub fn choice<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> T {
        if self.absent_or_null(name) {
            return default;
        }
        self.optional_parsed(name, "choice").unwrap_or(default)
    }

    /// A whole number, or `default` when it is absent. `null` is refused.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>, default: i64) -> i64 {
        if self.absent_or_null(name) {
            return default;
        }
        self.optional_integer(name, range).unwrap_or(default)
    }

    /// A whole number that may be absent or `null`.
    pub fn optional_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let Given::Value(value) = self.given(name) else { return None };
        match value.as_i64() {
            Some(number) if range.contains(&number) => return Some(number),
            None if !value.is_number() || value.is_f64() => {
                self.refuse(name, "type", "must be a whole number");
            }
            _ => self.refuse(name, "range", format!("must be from {} to {}", range.start(), range.end())),
        }
        None
    }

    /// A whole number that must be there.
    pub fn required_integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        if self.required(name) { self.optional_integer(name, range) } else { None }
    }

    /// `true` or `false`, or `default` when it is absent. `null` is refused.
    pub fn boolean(&mut self, name: &str, default: bool) -> bool {
        if self.absent_or_null(name) {
            return default;
        }
        let Given::Value(value) = self.given(name) else { return default };
        value.as_bool().unwrap_or_else(|| {
            self.refuse(name, "type", "must be true or false");
            default
        })
    }

    /// A time (RFC 3339) that may be absent or `null`.
    pub fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let text = self.string(name)?;
        let time = parse_time(text);
        if time.is_none() {
            self.refuse(name, "time", TIME_WANTED);
        }
        time
    }

    /// A time (RFC 3339) that must be there.
    pub fn required_time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        if self.required(name) { self.time(name) } else { None }
    }

    /// A day that must be there.
    pub fn day(&mut self, name: &str) -> Option<NaiveDate> {
        let text = if self.required(name) { self.string(name) } else { None }?;
        let day = parse_day(text);
        if day.is_none() {
            self.refuse(name, "day", DAY_WANTED);
        }
        day
    }

    /// Money that may be absent or `null`.
    pub fn money(&mut self, name: &str) -> Option<Money> {
        let Given::Value(value) = self.given(name) else { return None };
        let Ok(mut fields) = Fields::new(value, self.pointer_to(name)) else {
            self.refuse(name, "type", r#"must be an object such as {"amount":"1.50","currency":"USD"}"#);
            return None;
        };
        let amount = fields.text("amount", 1..=24).map(parse_amount);
        if let Some(Err(wanted)) = amount {
            fields.refuse("amount", "range", wanted);
        }
        let currency = fields.parsed("currency", "pattern");
        fields.refuse_unknown(&["amount", "currency"], &[]);
        self.errors.append(&mut fields.errors);
        Some(Money { amount: amount?.ok()?, currency: currency? })
    }

    /// A currency in use that may be absent or `null`.
    pub fn optional_currency(&mut self, name: &str) -> Option<Currency> {
        let currency: Currency = self.optional_parsed(name, "pattern")?;
        if !currency.is_known() {
            self.refuse(name, "unknown_currency", "is no currency in use (ISO 4217)");
        }
        Some(currency)
    }

    /// A currency in use that must be there.
    pub fn currency(&mut self, name: &str) -> Option<Currency> {
        if self.required(name) { self.optional_currency(name) } else { None }
    }

    /// A destination with macros that must be there.
    pub fn url_template(&mut self, name: &str, app_schemes: &[Scheme]) -> Option<Template> {
        if self.required(name) { self.optional_url_template(name, app_schemes) } else { None }
    }

    /// A destination with macros that may be absent or `null`.
    pub fn optional_url_template(&mut self, name: &str, app_schemes: &[Scheme]) -> Option<Template> {
        self.parsed_template(name, |text| Template::parse_for(text, app_schemes))
    }

    /// A destination on the web, with macros, that may be absent or `null`.
    pub fn optional_web_template(&mut self, name: &str) -> Option<Template> {
        self.parsed_template(name, Template::parse)
    }

    fn parsed_template(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<Template, destination::Error>,
    ) -> Option<Template> {
        match parse(self.string(name)?) {
            Ok(template) => Some(template),
            Err(error) => {
                self.refuse(name, "url", error.to_string());
                None
            }
        }
    }

    /// A list of objects, each read by `read`; empty when it is absent. `null` is refused.
    pub fn list<T>(
        &mut self,
        name: &str,
        items_max: usize,
        mut read: impl FnMut(&mut Fields<'v>) -> Option<T>,
    ) -> Vec<T> {
        if self.absent_or_null(name) {
            return Vec::new();
        }
        let Given::Value(value) = self.given(name) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.refuse(name, "type", "must be a list");
            return Vec::new();
        };
        if items.len() > items_max {
            self.refuse(name, "length", format!("must have at most {items_max} entries"));
            return Vec::new();
        }
        let pointer = self.pointer_to(name);
        let mut list = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match Fields::new(item, format!("{pointer}/{i}")) {
                Ok(mut fields) => {
                    list.extend(read(&mut fields));
                    self.errors.append(&mut fields.errors);
                }
                Err(error) => self.errors.push(error),
            }
        }
        list
    }

    /// A list of texts, by how many and by the length of each in characters; it must be there.
    pub fn texts(
        &mut self,
        name: &str,
        items: RangeInclusive<usize>,
        chars: RangeInclusive<usize>,
    ) -> Option<Vec<String>> {
        if !self.required(name) {
            return None;
        }
        let Given::Value(Value::Array(values)) = self.given(name) else {
            self.refuse(name, "type", "must be a list of texts");
            return None;
        };
        if !items.contains(&values.len()) {
            let detail = format!("must have {} to {} entries", items.start(), items.end());
            self.refuse(name, "length", detail);
            return None;
        }
        let errors_before = self.errors.len();
        let mut texts = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            match value.as_str() {
                Some(text) if chars.contains(&text.chars().take(chars.end() + 1).count()) => {
                    texts.push(text.to_owned());
                }
                Some(_) => {
                    let detail = format!("must have at most {} characters", chars.end());
                    self.refuse_below(&format!("{name}/{i}"), "length", detail);
                }
                None => self.refuse_below(&format!("{name}/{i}"), "type", "must be a text"),
            }
        }
        (self.errors.len() == errors_before).then_some(texts)
    }

    /// Refuses every field that is not in `known`, with the nearest name; those in `read_only` are refused as
    /// such.
    pub fn refuse_unknown(&mut self, known: &[impl AsRef<str>], read_only: &[&str]) {
        let members = self.members;
        let unknown =
            members.keys().filter(|name| !known.iter().any(|known| known.as_ref() == name.as_str()));
        for name in unknown.take(UNKNOWN_MAX) {
            if read_only.contains(&name.as_str()) {
                self.refuse(name, "read_only", "is set by the server; leave it out");
            } else {
                self.refuse(name, "unknown", unknown_detail(name, known));
            }
        }
    }

    /// Notes a fault of the field `name`.
    pub fn refuse(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        let pointer = self.pointer_to(name);
        self.errors.push(FieldError::new(pointer, code, detail));
    }

    /// Notes a fault at a place below this object, such as `is/2`.
    pub fn refuse_below(&mut self, place: &str, code: &'static str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}/{place}", self.pointer), code, detail));
    }

    /// Whether nothing was found wrong so far.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// Everything that was found wrong.
    #[cfg(test)]
    pub fn finish(self) -> Result<(), Vec<FieldError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }

    /// `value`, or everything that was found wrong.
    pub fn finish_with<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(self.errors),
        }
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, cut(name, 64).replace('~', "~0").replace('/', "~1"))
    }

    fn string(&mut self, name: &str) -> Option<&'v str> {
        let Given::Value(value) = self.given(name) else { return None };
        if !value.is_string() {
            self.refuse(name, "type", "must be a text");
        }
        value.as_str()
    }

    fn required(&mut self, name: &str) -> bool {
        match self.given(name) {
            Given::Value(_) => true,
            Given::Absent => {
                self.refuse(name, "required", "is required");
                false
            }
            Given::Null => {
                self.refuse(name, "required", "must not be null");
                false
            }
        }
    }

    /// Notes a `null` where only a value or nothing may be.
    fn absent_or_null(&mut self, name: &str) -> bool {
        match self.given(name) {
            Given::Value(_) => false,
            Given::Absent => true,
            Given::Null => {
                self.refuse(name, "required", "must not be null; leave it out for the default");
                true
            }
        }
    }
}

/// What [`parse_time`] takes, in words.
pub const TIME_WANTED: &str = "must be a time such as 2026-01-31T12:00:00Z (RFC 3339), from 1970 to 9999";

/// A time of RFC 3339 from 1970 to 9999.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (0..=253_402_300_799).contains(&time.timestamp()).then_some(time)
}

/// What [`parse_day`] takes, in words.
pub const DAY_WANTED: &str = "must be a day such as 2026-01-31, from 1970 to 9999";

/// A day of RFC 3339 from 1970 to 9999.
pub fn parse_day(text: &str) -> Option<NaiveDate> {
    let day: NaiveDate = text.parse().ok().filter(|_| text.len() == 10)?;
    (1970..=9999).contains(&day.year()).then_some(day)
}

/// What is a time zone, in words.
pub const ZONE_WANTED: &str = "must be a time zone such as Europe/Berlin or UTC";

/// A time zone by its IANA name.
#[derive(Debug)]
pub struct Zone(pub Tz);

impl FromStr for Zone {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ZONE_WANTED)
    }
}

fn unknown_detail(name: &str, known: &[impl AsRef<str>]) -> String {
    let near = known
        .iter()
        .map(AsRef::as_ref)
        .filter(|_: &&str| name.len() <= 64)
        .map(|k| (strsim::damerau_levenshtein(name, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min();
    match near {
        Some((_, near)) => format!("is not a known field; did you mean `{near}`?"),
        None => "is not a known field".to_owned(),
    }
}

/// Whether brackets are nested deeper than `depth_max`: one pass that ends where they are.
pub(super) fn depth_exceeds(body: &[u8], depth_max: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn replace_nul_in(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(fields: Fields<'_>) -> Vec<(String, &'static str)> {
        fields.finish().err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    #[test]
    fn every_bad_field_is_named_with_its_pointer() {
        let body = json!({
            "name": "", "count": "3", "flag": null, "when": "tomorrow", "offers": [{"url": "ftp://x/"}, 7],
            "price": {"amount": "-1", "currency": "USD"}, "a/b~c": 1,
        });
        let mut f = Fields::new(&body, "").unwrap();
        f.text("key", 1..=64);
        f.text("name", 1..=255);
        f.integer("count", 0..=10, 1);
        f.boolean("flag", false);
        f.time("when");
        f.list("offers", 100, |offer| offer.url_template("url", &[]));
        f.money("price");
        f.refuse_unknown(&["name", "count", "flag", "when", "offers", "price"], &[]);
        let wanted = [
            ("/key", "required"),
            ("/name", "length"),
            ("/count", "type"),
            ("/flag", "required"),
            ("/when", "time"),
            ("/offers/0/url", "url"),
            ("/offers/1", "type"),
            ("/price/amount", "range"),
            ("/a~1b~0c", "unknown"),
        ];
        assert_eq!(found(f), wanted.map(|(pointer, code)| (pointer.to_owned(), code)));
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        let body = json!({"a": null, "b": 1});
        let mut f = Fields::new(&body, "").unwrap();
        assert_eq!((f.given("a"), f.given("c")), (Given::Null, Given::Absent));
        assert_eq!(f.given("b"), Given::Value(&json!(1)));
        assert_eq!(f.optional_text("a", 0..=9), None);
        assert_eq!(f.integer("b", 0..=9, 5), 1);
        assert_eq!(f.integer("c", 0..=9, 5), 5);
        assert!(f.is_valid());
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        let body = json!({"a": 1.5, "b": 18_446_744_073_709_551_615_u64, "c": 11, "d": true});
        let mut f = Fields::new(&body, "/x").unwrap();
        for name in ["a", "b", "c", "d"] {
            f.integer(name, 0..=10, 0);
        }
        let codes: Vec<_> = found(f).into_iter().map(|(_, code)| code).collect();
        assert_eq!(codes, ["type", "range", "range", "type"]);
    }

    #[test]
    fn lengths_count_characters() {
        let body = json!({"a": "\u{e9}".repeat(255), "b": "\u{e9}".repeat(256)});
        let mut f = Fields::new(&body, "").unwrap();
        assert!(f.text("a", 1..=255).is_some());
        assert!(f.text("b", 1..=255).is_none());
    }

    #[test]
    fn deep_json_is_refused_before_it_is_parsed() {
        let start = std::time::Instant::now();
        assert_eq!(parse_json("[".repeat(60_000).as_bytes(), 32).unwrap_err().code(), "invalid_json");
        assert!(start.elapsed().as_millis() < 5);
        assert!(parse_json(br#"{"a":"[[[[[[[[\"[[["}"#, 2).is_ok());
        assert!(parse_json(b"[[]]", 2).is_ok());
        assert!(parse_json(b"[[[]]]", 2).is_err());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            &b"\xef\xbb\xbf{}"[..],
            b"{\"a\":\"\xff\"}",
            br#""\ud800""#,
            b"NaN",
            b"1e999",
            b"",
            b"{} x",
            b"{'a':1}",
        ] {
            assert_eq!(parse_json(bad, 32).unwrap_err().status(), 400, "{bad:?}");
        }
        assert_eq!(parse_json(br#"{"a":1,"a":2}"#, 32).unwrap(), json!({"a": 2}));
    }

    #[test]
    fn nul_is_replaced_in_texts_and_names() {
        let mut body = json!({"a\0": ["x\0y", {"k": "\0"}]});
        replace_nul(&mut body);
        assert_eq!(body, json!({"a\u{fffd}": ["x\u{fffd}y", {"k": "\u{fffd}"}]}));
    }
}
