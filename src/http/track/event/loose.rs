//! JSON as senders of events write it. A byte order mark, bytes that are no UTF-8, halves of surrogate pairs and U+0000
//! cost what they stand in, not the event; and numbers keep their digits, because nothing here turns them into floats.
//!
//! serde_json checks the syntax and finds where each value ends; a value stays the text it was sent as until somebody
//! asks what it is.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::http::{error::Problem, fields::depth_exceeds};

/// Most digits of a number, and its largest exponent, that is stored as a number: PostgreSQL writes 1e308 with all 309
/// digits, so that 64 KiB of such would be read back as megabytes, and it takes no more than 16,383 decimals.
const NUMBER_DIGITS_MAX: usize = 64;

/// Stands where a character was that cannot be kept.
const REPLACEMENT: &str = "\\ufffd";

/// A body as text; bytes that are no UTF-8 become U+FFFD, and a byte order mark goes.
pub(in crate::http) fn text_of(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

/// The value of a whole text; 400 `invalid_json` for what is no JSON or is nested deeper than `depth_max`.
pub(in crate::http) fn parse(text: &str, depth_max: usize) -> Result<&RawValue, Problem> {
    if depth_exceeds(text.as_bytes(), depth_max) {
        let detail = format!("The JSON is nested deeper than {depth_max} levels.");
        return Err(Problem::bad_request("invalid_json", detail));
    }
    serde_json::from_str(text)
        .map_err(|e| Problem::bad_request("invalid_json", format!("The body is not valid JSON: {e}.")))
}

/// The items of an array; `None` for anything else.
pub(in crate::http) fn items(value: &RawValue) -> Option<Vec<&RawValue>> {
    if value.get().starts_with('[') { serde_json::from_str(value.get()).ok() } else { None }
}

/// What a sender gave for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Given<'a> {
    /// JSON that was checked.
    Json(&'a str),
    /// A parameter.
    Text(Cow<'a, str>),
}

/// What a value says where a text is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct Said<'a> {
    pub(in crate::http) text: Cow<'a, str>,
    /// It was a number, `true` or `false`.
    pub(in crate::http) is_coerced: bool,
    /// Characters of it could not be kept.
    pub(in crate::http) is_mended: bool,
}

impl<'a> Given<'a> {
    pub(in crate::http) fn is_null(&self) -> bool {
        *self == Self::Json("null")
    }

    pub(in crate::http) fn is_boolean(&self) -> bool {
        matches!(self, Self::Json("true" | "false"))
    }

    /// A text, or the digits of a number; `None` for arrays and objects.
    pub(in crate::http) fn said(&self) -> Option<Said<'a>> {
        match self {
            Self::Text(text) => Some(Said { text: text.clone(), is_coerced: false, is_mended: false }),
            Self::Json(json) if json.starts_with('"') => {
                let (text, is_mended) = unquote(json);
                Some(Said { text, is_coerced: false, is_mended })
            }
            Self::Json(json) if json.starts_with(['[', '{']) => None,
            Self::Json(json) => Some(Said { text: Cow::Borrowed(json), is_coerced: true, is_mended: false }),
        }
    }

    /// The members of an object; `None` for anything else.
    pub(in crate::http) fn members(&self) -> Option<Members<'a>> {
        match self {
            Self::Json(json) => Members::of(json),
            Self::Text(_) => None,
        }
    }

    /// JSON that PostgreSQL can keep, and what had to be done for it: a character replaced, a number made text.
    pub(in crate::http) fn to_jsonb(&self) -> (Cow<'a, str>, bool, bool) {
        match self {
            Self::Text(text) => (Cow::Owned(quote(text)), false, false),
            Self::Json(json) => {
                let mended = mend(json);
                let is_mended = matches!(mended, Cow::Owned(_));
                match quote_far_numbers(&mended) {
                    None => (mended, is_mended, false),
                    Some(quoted) => (Cow::Owned(quoted), is_mended, true),
                }
            }
        }
    }
}

/// The members of an object in their order. Of those with the same name the last counts, where the first stood.
#[derive(Debug, Default)]
pub(in crate::http) struct Members<'a> {
    list: Vec<Option<(Cow<'a, str>, Given<'a>)>>,
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Members<'a> {
    /// Those of a JSON object that was checked; `None` for anything else.
    pub(in crate::http) fn of(json: &'a str) -> Option<Self> {
        if !json.starts_with('{') {
            return None;
        }
        let pairs: Pairs<'a> = serde_json::from_str(json).ok()?;
        let mut members = Self::default();
        for (name, value) in pairs.0 {
            members.set(unquote(name.get()).0, Given::Json(value.get()));
        }
        Some(members)
    }

    /// Puts a value in the place of one with this name, else behind the others.
    pub(in crate::http) fn set(&mut self, name: Cow<'a, str>, given: Given<'a>) {
        if let Some(place) = self.places.get(&name) {
            self.list[*place] = Some((name, given));
        } else {
            self.places.insert(name.clone(), self.list.len());
            self.list.push(Some((name, given)));
        }
    }

    /// Whether one has this name or had it.
    pub(in crate::http) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// How many there are, those that were taken too.
    pub(in crate::http) fn len(&self) -> usize {
        self.list.len()
    }

    /// What is given for a name, and was not taken.
    pub(in crate::http) fn peek(&self, name: &str) -> Option<&Given<'a>> {
        self.list[*self.places.get(name)?].as_ref().map(|(_, given)| given)
    }

    /// Takes one out; `null` is none.
    pub(in crate::http) fn take(&mut self, name: &str) -> Option<Given<'a>> {
        let place = self.places.get(name)?;
        let (_, given) = self.list[*place].take()?;
        (!given.is_null()).then_some(given)
    }

    /// What was not taken.
    pub(in crate::http) fn rest(self) -> impl Iterator<Item = (Cow<'a, str>, Given<'a>)> {
        self.list.into_iter().flatten()
    }
}

/// Every pair of an object; names are kept as they are written, because half of a surrogate pair is no text.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Each).map(Self)
    }
}

/// A text as JSON.
pub(in crate::http) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text of a JSON string that was checked, and whether it had to be mended.
fn unquote(json: &str) -> (Cow<'_, str>, bool) {
    let inner = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json);
    if !inner.contains('\\') {
        return (Cow::Borrowed(inner), false);
    }
    let mended = mend(json);
    let is_mended = matches!(mended, Cow::Owned(_));
    let text: String = serde_json::from_str(&mended).unwrap_or_else(|_| inner.to_owned()); // checked and mended: never
    (Cow::Owned(text), is_mended)
}

/// JSON without halves of surrogate pairs and without U+0000, neither of which PostgreSQL takes. A backslash of JSON is
/// always in a string, so nothing else has to be known.
fn mend(json: &str) -> Cow<'_, str> {
    let (mut mended, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = json[at..].find('\\') {
        let start = at + found;
        at = match unit(json, start) {
            Some(0xd800..=0xdbff) if matches!(unit(json, start + 6), Some(0xdc00..=0xdfff)) => start + 12,
            Some(0 | 0xd800..=0xdfff) => {
                mended.push_str(&json[copied..start]);
                mended.push_str(REPLACEMENT);
                copied = start + 6;
                copied
            }
            Some(_) => start + 6,
            None => start + 2, // `\\`, `\"` and the like: what follows is one byte
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    mended.push_str(&json[copied..]);
    Cow::Owned(mended)
}

/// The number of an escape `\uXXXX` that is at `start`.
fn unit(json: &str, start: usize) -> Option<u16> {
    u16::from_str_radix(json.get(start..start + 6)?.strip_prefix("\\u")?, 16).ok()
}

/// JSON whose far numbers are texts; `None` if it has none.
fn quote_far_numbers(json: &str) -> Option<String> {
    let bytes = json.as_bytes();
    let (mut quoted, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let end = bytes[at..].iter().position(|b| !is_part(b)).map_or(bytes.len(), |n| at + n);
                if !is_near(&json[at..end]) {
                    quoted.push_str(&json[copied..at]);
                    quoted.push('"');
                    quoted.push_str(&json[at..end]);
                    quoted.push('"');
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return None;
    }
    quoted.push_str(&json[copied..]);
    Some(quoted)
}

/// Behind the closing quote of the string that begins at `start`.
fn end_of_string(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() {
        match json[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// Whether PostgreSQL writes a number with few digits.
fn is_near(number: &str) -> bool {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let limit = u32::try_from(NUMBER_DIGITS_MAX).unwrap_or(u32::MAX);
    digits.len() <= NUMBER_DIGITS_MAX && exponent.parse::<i32>().is_ok_and(|e| e.unsigned_abs() <= limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn jsonb(json: &str) -> String {
        Given::Json(json).to_jsonb().0.into_owned()
    }

    #[test]
    fn halves_of_surrogate_pairs_and_nul_are_replaced_and_whole_pairs_stay() {
        for (sent, kept) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\udc00\ud800""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\uD83D\uDE00\uD83D""#, r#""\uD83D\uDE00\ufffd""#),
            (r#""\ud800\u0041""#, r#""\ufffd\u0041""#),
            (r#""\\ud800""#, r#""\\ud800""#),
            (r#""\\\ud800""#, r#""\\\ufffd""#),
            (r#"{"\udfff":["a\u0000b",{"\\":"\u00001"}]}"#, r#"{"\ufffd":["a\ufffdb",{"\\":"\ufffd1"}]}"#),
            (r#""é\ud800é""#, r#""é\ufffdé""#),
        ] {
            assert_eq!(mend(sent), kept, "{sent}");
            assert!(serde_json::from_str::<Value>(&mend(sent)).is_ok(), "{sent}");
        }
    }

    #[test]
    fn digits_are_kept_and_what_no_column_holds_is_text() {
        for same in [
            "18446744073709551616",
            "12.50",
            "-0",
            "0.1",
            "5.0E-5",
            "1e64",
            r#"{"a":[1,-2.500,{"b":1e+5}],"1e999":"1e999","c\"1e999":true}"#,
        ] {
            assert_eq!(jsonb(same), same);
        }
        for (sent, kept) in [
            ("1e400000", r#""1e400000""#),
            ("-1e999", r#""-1e999""#),
            ("0e-99999", r#""0e-99999""#),
            ("1e99999999999999999999", r#""1e99999999999999999999""#),
            (r#"[5e-324, 1,{"a":1E309}]"#, r#"["5e-324", 1,{"a":"1E309"}]"#),
        ] {
            assert_eq!(jsonb(sent), kept);
        }
        let long = "9".repeat(65);
        assert_eq!(jsonb(&long), format!("\"{long}\""));
    }

    #[test]
    fn a_body_may_have_a_byte_order_mark_and_bytes_that_are_no_text() {
        for (body, text) in [
            (&b"\xef\xbb\xbf{}"[..], "{}"),
            (b" {\"a\":\"\xff\"} ", " {\"a\":\"\u{fffd}\"} "),
            (b"\"\xed\xa0\x80\"", "\"\u{fffd}\u{fffd}\u{fffd}\""),
            (b"{}", "{}"),
        ] {
            assert_eq!(text_of(body), text);
            assert!(parse(text, 32).is_ok());
        }
        for bad in
            ["", "{", "{} x", "NaN", "01", "1.", "+1", r#""\q""#, r#""\u00f""#, "\"a\nb\"", "{'a':1}", "[1,]"]
        {
            assert_eq!(parse(bad, 32).unwrap_err().code(), "invalid_json", "{bad}");
        }
        assert!(parse(&"[".repeat(33), 32).is_err());
    }

    #[test]
    fn of_members_with_one_name_the_last_counts_in_the_place_of_the_first() {
        let mut members = Members::of(r#"{"a":1,"b":2,"\u0061":3,"\ud83d":null,"c":null}"#).unwrap();
        assert_eq!(members.len(), 4);
        assert_eq!(members.take("a"), Some(Given::Json("3")));
        assert_eq!((members.take("a"), members.take("c"), members.take("x")), (None, None, None));
        let rest: Vec<_> = members.rest().map(|(name, _)| name).collect();
        assert_eq!(rest, ["b", "\u{fffd}"]);
        assert!(Members::of("[1]").is_none());
    }

    #[test]
    fn a_text_is_wanted_and_a_number_says_its_digits() {
        for (json, said) in [
            (r#""a\u0062""#, Some(("ab", false, false))),
            ("12.50", Some(("12.50", true, false))),
            ("18446744073709551616", Some(("18446744073709551616", true, false))),
            ("true", Some(("true", true, false))),
            (r#""\ud800""#, Some(("\u{fffd}", false, true))),
            ("[]", None),
            ("{}", None),
        ] {
            let got = Given::Json(json).said();
            let got = got.as_ref().map(|s| (s.text.as_ref(), s.is_coerced, s.is_mended));
            assert_eq!(got, said, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_become_json_that_is_as_it_was(body in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\",:\\ud8c0e+-.19 "[..])], 0..60)
        ) {
            let text = text_of(&body);
            if let Ok(value) = parse(&text, 32) {
                let (kept, is_mended, is_quoted) = Given::Json(value.get()).to_jsonb();
                let read = serde_json::from_str::<Value>(&kept);
                prop_assert!(read.is_ok(), "{kept}");
                if !is_mended && !is_quoted {
                    prop_assert_eq!(kept, value.get());
                }
            }
        }
    }
}
