//! A case of the catalogue: what is sent, and what must come of it.
//!
//! The files beside this one are TOML. In what is sent, `\xNN` is a byte and `<<a*300>>` is 300 times `a`; in `raw`,
//! `get`, `link`, `headers` and `s` also `\r`, `\n`, `\t`, `\0` and `\\`, while the JSON of a body keeps its own
//! escapes.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct Table {
    pub(super) case: Vec<Case>,
}

/// One of `link`, `get`, `event`, `offer`, `campaign` and `raw`, and any of the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Case {
    pub(super) name: String,
    /// Parameters of a link to the campaign `bad`.
    pub(super) link: Option<String>,
    /// A path, asked with GET.
    pub(super) get: Option<String>,
    /// The body of `POST /event`.
    pub(super) event: Option<String>,
    /// The URL of an offer of a new campaign, as it stands inside a JSON string.
    pub(super) offer: Option<String>,
    /// The body of a new campaign.
    pub(super) campaign: Option<String>,
    /// A whole request.
    pub(super) raw: Option<String>,
    /// More header lines.
    pub(super) headers: String,
    /// The status; a digit alone stands for its class. Links are redirected unless this says otherwise.
    pub(super) status: Option<u16>,
    /// What `s` in the destination and `sub1` in the database are.
    pub(super) s: Option<String>,
    /// What follows `s` in the destination.
    pub(super) tail: Option<String>,
    /// The URL as it is stored and shown.
    pub(super) stored: Option<String>,
    /// The fields that are named, each with its code.
    pub(super) error: Option<String>,
    /// The code of the problem.
    pub(super) code: Option<String>,
    /// A header of the answer.
    pub(super) header: Option<String>,
    /// What is nowhere in the answer.
    pub(super) absent: Option<String>,
    /// The reason of `octo_http_refused_total` that is counted once.
    pub(super) refused: Option<String>,
    /// The server ends the connection by itself.
    pub(super) closes: bool,
    /// How many answers come.
    pub(super) answers: Option<usize>,
    /// Columns of the stored click or event.
    pub(super) row: BTreeMap<String, String>,
}

impl Case {
    /// The bytes on the wire.
    pub(super) fn request(&self, token: &str) -> Vec<u8> {
        let headers = text(&self.headers);
        let get = |path: &str| {
            let path = text(path);
            [b"GET ", &path[..], b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n", &headers, b"\r\n"].concat()
        };
        let post = |path: &str, more: String, body: Vec<u8>| {
            let length = body.len();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n{more}"
            );
            [head.as_bytes(), &headers, b"\r\n", &body].concat()
        };
        let json =
            if self.headers.contains("Content-Type") { "" } else { "Content-Type: application/json\r\n" };
        let campaign = |body: Vec<u8>| {
            post("/api/v1/campaigns", format!("{json}Authorization: Bearer {token}\r\n"), body)
        };
        let bytes = match self {
            Self { raw: Some(raw), .. } => text(raw),
            Self { link: Some(link), .. } => get(&format!("/click?cid=bad&{link}")),
            Self { get: Some(path), .. } => get(path),
            Self { event: Some(body), .. } => post("/event", json.to_owned(), body_text(body)),
            Self { offer: Some(url), .. } => {
                let name = r#"{"name":"x","offers":[{"name":"o","url":""#.as_bytes();
                campaign([name, &body_text(url), br#""}]}"#].concat())
            }
            Self { campaign: Some(body), .. } => campaign(body_text(body)),
            _ => panic!("{}: nothing is sent", self.name),
        };
        let placeholder = b"<<TOKEN>>";
        match bytes.windows(placeholder.len()).position(|w| w == placeholder) {
            Some(at) => [&bytes[..at], token.as_bytes(), &bytes[at + placeholder.len()..]].concat(),
            None => bytes,
        }
    }

    pub(super) fn status(&self) -> Option<u16> {
        self.status.or(match self {
            Self { link: Some(_), .. } => Some(302),
            Self { offer: Some(_), stored: Some(_), .. } => Some(201),
            Self { offer: Some(_), .. } => Some(422),
            _ => None,
        })
    }

    /// Text that is expected, in which the escapes give bytes of UTF-8.
    pub(super) fn expected(text_of_case: &str) -> String {
        String::from_utf8(text(text_of_case)).expect("what is expected is UTF-8")
    }
}

/// All escapes.
fn text(source: &str) -> Vec<u8> {
    unescape(source, true)
}

/// Only those that JSON has not.
fn body_text(source: &str) -> Vec<u8> {
    unescape(source, false)
}

fn unescape(source: &str, all: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if let Some((repeated, after)) = repetition(rest) {
            let (unit, count) = repeated;
            out.extend(unescape(unit, all).repeat(count));
            rest = after;
            continue;
        }
        let (bytes, length) = match rest.as_bytes() {
            [b'\\', b'x', high, low, ..] => {
                let digits = [*high, *low];
                let digits = str::from_utf8(&digits).expect("two digits");
                (vec![u8::from_str_radix(digits, 16).expect("\\xNN")], 4)
            }
            [b'\\', b'r', ..] if all => (vec![b'\r'], 2),
            [b'\\', b'n', ..] if all => (vec![b'\n'], 2),
            [b'\\', b't', ..] if all => (vec![b'\t'], 2),
            [b'\\', b'0', ..] if all => (vec![0], 2),
            [b'\\', b'\\', ..] if all => (vec![b'\\'], 2),
            _ => (c.to_string().into_bytes(), c.len_utf8()),
        };
        out.extend(bytes);
        rest = &rest[length..];
    }
    out
}

/// `<<unit*count>>` at the start, and what follows it.
fn repetition(text: &str) -> Option<((&str, usize), &str)> {
    let inner = text.strip_prefix("<<")?;
    let (inner, after) = inner.split_once(">>")?;
    let (unit, count) = inner.rsplit_once('*')?;
    Some(((unit, count.parse().ok()?), after))
}

#[test]
fn the_escapes_of_the_tables_say_what_they_mean() {
    assert_eq!(text(r"a\xffb\r\n\0\\x<<ab*2>><<\xe9*2>><<TOKEN>>"), b"a\xffb\r\n\0\\xabab\xe9\xe9<<TOKEN>>");
    assert_eq!(body_text(r#""\u0000\n\xff<<[*3>>""#), b"\"\\u0000\\n\xff[[[\"");
}
