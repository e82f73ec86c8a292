//! Templates of postbacks: `https://ads.example/postback?id={external_click_id}&status={status:pending=lead approved=sale}`.
//!
//! `{name}` is a macro where the name has letters, digits and underscores only; every other brace is text, so that a body
//! of JSON needs no escapes. `{name|text}` has a default for what is empty, `{status:..}` the target's own words, and
//! `{secret:text}` stands for the text itself, which is sent and never shown.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use strum::{EnumString, VariantNames};
use url::Url;

use super::signature;
use crate::model::conversion::Status;

/// Longest request line, in bytes: what servers take.
const EXPANDED_BYTES_MAX: usize = 32_768;

/// In the place of what is not shown.
const MASK: &str = "***";

/// Parameters whose values are not shown.
const SECRET_PARAMETERS: &[&str] = &[
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "hash",
    "key",
    "password",
    "secret",
    "sig",
    "signature",
    "skey",
    "token",
];

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a macro stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, EnumString, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Macro {
    /// Our id of the click.
    ClickId,
    /// The source's own id of the click.
    ExternalClickId,
    /// The campaign's id.
    CampaignId,
    /// The conversion's id.
    ConversionId,
    /// The delivery's id: the same for every attempt.
    DeliveryId,
    /// What is told of the payout.
    Payout,
    /// Its currency.
    Currency,
    /// The status, in the words behind the colon where there are any.
    Status,
    /// The goal.
    Goal,
    /// The network's transaction id.
    Txid,
    /// From the link.
    Sub1,
    /// From the link.
    Sub2,
    /// From the link.
    Sub3,
    /// From the link.
    Sub4,
    /// From the link.
    Sub5,
    /// From the link.
    Keyword,
    /// From the link.
    Creative,
    /// From the link.
    Placement,
    /// Of the visitor.
    Country,
    /// Of the visitor.
    Device,
    /// Of the visitor.
    Os,
    /// Of the visitor.
    Browser,
    /// Of the visitor, as far as it is kept.
    Ip,
    /// Of the visitor, as far as it is kept.
    UserAgent,
    /// Of the visitor, as far as it is kept.
    Referrer,
    /// When the conversion changed, in seconds.
    Timestamp,
    /// When the conversion changed, in milliseconds.
    TimestampMs,
    /// When the conversion changed, by RFC 3339.
    Date,
    /// When the click was made, in seconds.
    ClickTimestamp,
    /// When the click was made, in milliseconds.
    ClickTimestampMs,
    /// Eight hexadecimal digits, others at each attempt.
    Random,
    /// HMAC-SHA256 of the address before it, in hexadecimal digits.
    Signature,
}

/// What macros stand for in one delivery.
pub trait Values {
    /// What a macro stands for; empty where there is nothing. `{status}` and `{signature}` are not asked for.
    fn value(&self, name: Macro) -> String;
    /// The status it has now.
    fn status(&self) -> Status;
}

/// Where a template stands, which says how values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In an address: percent-encoded.
    Address,
    /// In a body: as in a text of JSON.
    Body,
    /// In a header: without control characters.
    Header,
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    place: Place,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(String),
    Macro { name: Macro, words: Vec<(Status, String)>, default: String },
}

/// What a template makes: what is sent, and what is shown of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// To be sent.
    pub sent: String,
    /// To be shown and stored.
    pub shown: String,
}

/// Why a template is refused, in words for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `{no_such}`
    #[error("has the unknown macro {{{0}}}; known are {known} and secret", known = Macro::VARIANTS.join(", "))]
    Unknown(String),
    /// `{status:paid=1}`
    #[error("has {{{0}}}; the words of a status are written {{status:pending=lead approved=sale}}")]
    Words(String),
    /// A macro in the host.
    #[error("must not have a macro before the path")]
    Origin,
    /// Not an address.
    #[error(
        "must be an address that begins with http:// or https://, without spaces, user name and password"
    )]
    Address,
    /// `{signature}` in a body.
    #[error("may have {{signature}} in the address only")]
    Signature,
}

impl Template {
    /// Reads what stands in this place.
    pub fn parse(text: &str, place: Place) -> Result<Self, Error> {
        let mut template = Self { place, parts: Vec::new() };
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            let inner = from[1..].split_once('}').map(|(inner, _)| inner).filter(|inner| is_macro(inner));
            let Some(inner) = inner else {
                template.push_text(&rest[..=at]);
                rest = &from[1..];
                continue;
            };
            template.push_text(before);
            template.parts.push(read_macro(inner, place)?);
            rest = &from[inner.len() + 2..];
        }
        template.push_text(rest);
        if place == Place::Address {
            template.check_address()?;
        }
        Ok(template)
    }

    /// The request of one delivery. The secret is what `{signature}` is made with.
    pub fn expand(&self, values: &impl Values, secret: &str) -> Expanded {
        let mut out = Expanded::default();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push(text, text),
                Part::Secret(text) => out.push(&self.written(text), MASK),
                Part::Macro { name: Macro::Signature, .. } => {
                    let signature = signature::of_address(secret, &out.sent);
                    out.push(&signature, MASK);
                }
                Part::Macro { name, words, default } => {
                    let value = match name {
                        Macro::Status => word(words, values.status()),
                        name => values.value(*name),
                    };
                    let value = self.written(if value.is_empty() { default } else { &value });
                    if out.sent.len() + value.len() <= EXPANDED_BYTES_MAX {
                        out.push(&value, &value);
                    }
                }
            }
        }
        if self.place == Place::Address {
            out.shown = mask_parameters(&out.shown);
        }
        out
    }

    /// The host of an address.
    pub fn host(&self) -> String {
        let Some(Part::Text(first)) = self.parts.first() else { return String::new() };
        Url::parse(first).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    fn written(&self, value: &str) -> String {
        match self.place {
            Place::Address => utf8_percent_encode(value, UNRESERVED).to_string(),
            Place::Body => {
                let quoted = serde_json::Value::from(value).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Place::Header => value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect(),
        }
    }

    fn check_address(&self) -> Result<(), Error> {
        let Some(Part::Text(first)) = self.parts.first() else { return Err(Error::Address) };
        let rest = ["http://", "https://"].iter().find_map(|scheme| first.strip_prefix(scheme));
        let rest = rest.ok_or(Error::Address)?;
        if self.parts.len() > 1 && !rest.contains(['/', '?', '#']) {
            return Err(Error::Origin);
        }
        let is_plain = self.parts.iter().all(|part| match part {
            Part::Text(text) => !text.contains(|c: char| c.is_whitespace() || c.is_control()),
            _ => true,
        });
        let url = Url::parse(first).ok().filter(|_| is_plain).ok_or(Error::Address)?;
        let is_fit = url.username().is_empty() && url.password().is_none() && url.port() != Some(0);
        if is_fit { Ok(()) } else { Err(Error::Address) }
    }
}

impl Expanded {
    fn push(&mut self, sent: &str, shown: &str) {
        self.sent.push_str(sent);
        self.shown.push_str(shown);
    }
}

/// A template as it is shown: without what is secret in it.
pub fn mask(text: &str, place: Place) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{secret:") {
        let Some(end) = rest[at..].find('}') else { break };
        let _ = write!(out, "{}{{secret:{MASK}}}", &rest[..at]); // a String takes everything
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    if place == Place::Address { mask_parameters(&out) } else { out }
}

/// Without the values of parameters that are secrets by their name. A macro is none.
fn mask_parameters(address: &str) -> String {
    let Some((head, query)) = address.split_once('?') else { return address.to_owned() };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if is_secret(name) && !value.is_empty() && !value.starts_with('{') => {
            format!("{name}={MASK}")
        }
        _ => pair.to_owned(),
    });
    format!("{head}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn is_secret(name: &str) -> bool {
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// Whether what stands between braces is meant as a macro, known or not.
fn is_macro(inner: &str) -> bool {
    let name = inner.split([':', '|']).next().unwrap_or_default();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn read_macro(inner: &str, place: Place) -> Result<Part, Error> {
    if let Some(text) = inner.strip_prefix("secret:") {
        return Ok(Part::Secret(text.to_owned()));
    }
    let (used, default) = inner.split_once('|').unwrap_or((inner, ""));
    let (name, words) = used.split_once(':').map_or((used, None), |(name, words)| (name, Some(words)));
    let name: Macro = name.parse().map_err(|_| Error::Unknown(name.to_owned()))?;
    let words = match (name, words) {
        (_, None) => Vec::new(),
        (Macro::Status, Some(words)) => read_words(words).ok_or_else(|| Error::Words(inner.to_owned()))?,
        (_, Some(_)) => return Err(Error::Unknown(used.to_owned())),
    };
    if name == Macro::Signature && place != Place::Address {
        return Err(Error::Signature);
    }
    Ok(Part::Macro { name, words, default: default.to_owned() })
}

/// `pending=lead approved=sale`
fn read_words(text: &str) -> Option<Vec<(Status, String)>> {
    let pairs = text.split_whitespace().map(|pair| {
        let (status, word) = pair.split_once('=')?;
        Some((status.parse().ok()?, word.to_owned()))
    });
    pairs.collect::<Option<Vec<_>>>().filter(|words| !words.is_empty())
}

/// The target's word for a status, else ours.
fn word(words: &[(Status, String)], status: Status) -> String {
    let found = words.iter().find(|(of, _)| *of == status);
    found.map_or_else(|| status.to_string(), |(_, word)| word.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made(Status);

    impl Values for Made {
        fn value(&self, name: Macro) -> String {
            match name {
                Macro::ExternalClickId => "a b&c=\"d\"".to_owned(),
                Macro::Payout => "1.5".to_owned(),
                Macro::Goal => String::new(),
                name => name.to_string(),
            }
        }

        fn status(&self) -> Status {
            self.0
        }
    }

    fn expand(text: &str, place: Place) -> Expanded {
        Template::parse(text, place)
            .unwrap()
            .expand(&Made(Status::Approved), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    }

    #[test]
    fn macros_are_written_as_their_place_needs_it() {
        let sent =
            expand("https://a.example/{goal|none}?id={external_click_id}&p={payout}", Place::Address).sent;
        assert_eq!(sent, "https://a.example/none?id=a%20b%26c%3D%22d%22&p=1.5");
        let sent =
            expand(r#"{"data":[{"id":"{external_click_id}","v":{payout|0},"g":{"x":1}}]}"#, Place::Body).sent;
        assert_eq!(sent, r#"{"data":[{"id":"a b&c=\"d\"","v":1.5,"g":{"x":1}}]}"#);
        assert!(serde_json::from_str::<serde_json::Value>(&sent).is_ok());
        assert_eq!(expand("Bearer {secret:x\ny} {os}", Place::Header).sent, "Bearer xy os");
    }

    #[test]
    fn a_status_is_told_in_the_words_of_the_target() {
        let text = "https://a.example/?s={status:pending=lead approved=sale}&t={status}";
        for (status, wanted) in [
            (Status::Approved, "s=sale&t=approved"),
            (Status::Pending, "s=lead&t=pending"),
            (Status::Refunded, "s=refunded&t=refunded"),
        ] {
            let sent = Template::parse(text, Place::Address).unwrap().expand(&Made(status), "").sent;
            assert_eq!(sent, format!("https://a.example/?{wanted}"));
        }
    }

    #[test]
    fn what_is_secret_is_sent_and_not_shown() {
        let text = "https://a.example/{secret:pa/th}/?key=abc&access_token=def&id={click_id}&h={signature}";
        let Expanded { sent, shown } = expand(text, Place::Address);
        assert!(
            sent.starts_with("https://a.example/pa%2Fth/?key=abc&access_token=def&id=click_id&h="),
            "{sent}"
        );
        assert_eq!(sent.rsplit_once('=').unwrap().1.len(), 64);
        assert_eq!(shown, "https://a.example/***/?key=***&access_token=***&id=click_id&h=***");
        assert_eq!(
            mask(text, Place::Address),
            "https://a.example/{secret:***}/?key=***&access_token=***&id={click_id}&h={signature}"
        );
        assert_eq!(
            mask("https://a.example/?token={sub1}&KEY=1", Place::Address),
            "https://a.example/?token={sub1}&KEY=***"
        );
    }

    #[test]
    fn what_makes_no_request_is_refused() {
        for (text, wanted) in [
            ("https://a.example/?x={clickid}", Error::Unknown("clickid".to_owned())),
            ("https://a.example/?x={sub1:raw}", Error::Unknown("sub1:raw".to_owned())),
            ("https://a.example/?x={status:paid=1}", Error::Words("status:paid=1".to_owned())),
            ("https://{sub1}.example/", Error::Origin),
            ("https://a.example{sub1}/", Error::Origin),
            ("{sub1}://a.example/", Error::Address),
            ("ftp://a.example/", Error::Address),
            ("https://u:p@a.example/", Error::Address),
            ("https://a.example:0/", Error::Address),
            ("https://a.example/a b", Error::Address),
        ] {
            assert_eq!(Template::parse(text, Place::Address), Err(wanted), "{text}");
        }
        assert_eq!(Template::parse("{signature}", Place::Body), Err(Error::Signature));
    }
}
