//! Destination URLs and their macros: `https://offer.example/?click={click_id}`.
//!
//! A template is checked when a campaign is saved: http or https (or a link into an app, see `app_link`), a host, no user part, and no macro in scheme, user, host or port, so the origin of every `Location` is the
//! stored one. Values are
//! percent-encoded in one pass (all but the unreserved characters of RFC 3986 section 2.3), as often as the text they
//! stand in (see `place`); a value that looks like a macro stays text. `{{` and `}}` are literal braces.
//!
//! A second `?` stays as it is stored. It is legal in a query (RFC 3986 section 3.4) and begins the query of an inner
//! URL that nobody encoded (`?u=https://shop.example/?ref=7`): read as `&`, it would take that URL its parameters.
//! Whoever appends a parameter to a stored URL has to see that it has a query already.

mod app_link;
mod encode;
mod macros;
mod place;
mod values;

use std::{borrow::Cow, fmt};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use self::{app_link::Opener, macros::Use, values::Value};
pub use self::{
    app_link::Target,
    macros::{Macro, MacroSet},
    values::{Carried, Known, Named, Names, Texts, Values},
};
use crate::model::scheme::Scheme;

/// Longest template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 8192;

/// Longest destination after expansion and pass-through, in bytes (a browser takes no longer header); values are cut
/// where it ends, and what is over is not passed through.
const DESTINATION_BYTES_MAX: usize = 16_384;

/// What a raw query may hold and a `Location` may not.
const NOT_IN_LOCATION: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'#');

/// A parsed destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
    /// Parts before this one are followed by the query's end (the fragment, if any, begins here).
    fragment: usize,
    has_query: bool,
    host: Box<str>,
    macros: MacroSet,
    opener: Opener,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro(Use),
}

/// Why a destination is refused, in words for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`TEMPLATE_BYTES_MAX`].
    #[error("is longer than {TEMPLATE_BYTES_MAX} bytes")]
    TooLong,
    /// Not `http://`, `https://` or a scheme that can be listed.
    #[error(
        "must begin with http:// or https:// (or lead into an app: intent, market, itms-apps, a scheme of tracking.app_schemes)"
    )]
    Scheme,
    /// `mailto:`, `myapp:` where it is not listed.
    #[error("must begin with http:// or https://; the scheme {0}: is not in tracking.app_schemes")]
    UnlistedScheme(String),
    /// White space, control characters, a bad host or port.
    #[error("is not a valid URL: {0}")]
    Url(String),
    /// `user:password@`
    #[error("must not contain a user name or password")]
    User,
    /// `https://{sub1}.example/`
    #[error("must not have a macro in scheme, host or port (without a host: before the first / ? or #)")]
    Origin,
    /// `intent://...#Intent;package={sub1};end`
    #[error("is not a safe intent: {0}")]
    Intent(&'static str),
    /// `{no_such}`
    #[error("has the unknown macro {{{0}}}{hint}; known are {known}", hint = hint(.0), known = macros::KNOWN)]
    UnknownMacro(String),
    /// `{click_id:long}`, `{date:%Q}`
    #[error("has {{{written}}}: {wanted}")]
    Argument {
        /// What stands between the braces.
        written: String,
        /// What may stand there.
        wanted: &'static str,
    },
    /// `{sub1|a|b}`
    #[error(
        "has {{{0}}}: a default is at most 256 bytes without | and {{, and comes last: {{sub1:raw|none}}"
    )]
    Default(String),
    /// A lone `{` or `}`.
    #[error("has a lone brace; write {{{{ or }}}} for a literal one")]
    LoneBrace,
}

impl Template {
    /// Parses and checks a destination on the web.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, |_| false)
    }

    /// Parses and checks a destination on the web, in a shop for apps or in one of these apps.
    pub fn parse_for(text: &str, app_schemes: &[Scheme]) -> Result<Self, Error> {
        let is_listed = |scheme: &Scheme| app_schemes.contains(scheme);
        let template = Self::parse_with(text, |scheme| app_link::is_store(scheme) || is_listed(scheme))?;
        template.check_intent(app_schemes.iter().any(|scheme| scheme.as_str() == "intent"))?;
        Ok(template)
    }

    /// Parses a destination that passed [`Self::parse_for`] once. Its scheme need not be listed any more: links
    /// that are printed already go on working. Schemes that can never be listed are still refused.
    pub fn parse_stored(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, |_| true)
    }

    fn parse_with(text: &str, is_listed: impl Fn(&Scheme) -> bool) -> Result<Self, Error> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(Error::TooLong);
        }
        let origin_end = check_origin(text, is_listed)?;
        let parts = split(text, origin_end)?;
        let (url, marks) = with_marks(&parts);
        let url = Url::parse(&url).map_err(|e| Error::Url(e.to_string()))?;
        let host = check_host(&url)?;
        let template = Self::from_canonical(url.as_str(), &marks, host, Opener::of_scheme(url.scheme()));
        // what is stored is the canonical form, which may be longer: it has to parse again
        if template.canonical().len() > TEMPLATE_BYTES_MAX { Err(Error::TooLong) } else { Ok(template) }
    }

    /// The form that is stored and shown: parsing it gives an equal template.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(&literal.replace('{', "{{").replace('}', "}}")),
                Part::Macro(used) => text.push_str(&used.to_string()),
            }
        }
        text
    }

    /// The host, as in the `Host` header of whoever follows.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path up to the first macro.
    pub fn path(&self) -> &str {
        let Some(Part::Literal(first)) = self.parts.first() else { return "" };
        let rest = first.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.find('/').map_or("", |i| &rest[i..]);
        path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The macros that it uses, each once.
    pub fn macros(&self) -> MacroSet {
        self.macros
    }

    /// Whether it uses `{out_url}` or `{click_token}`, which only landing pages may.
    pub fn has_out_macros(&self) -> bool {
        !(self.macros & MacroSet::OUT).is_empty()
    }

    /// The destination of one click; the raw parameters of `pass_through` are added to its query as they were sent.
    pub fn expand(&self, values: &Values<'_>, pass_through: &[Cow<'_, str>]) -> String {
        let mut out = String::with_capacity(256);
        let (before, fragment) = self.parts.split_at(self.fragment);
        append(&mut out, before, values);
        let mut separator = if self.has_query { '&' } else { '?' };
        for part in pass_through {
            let end = out.len();
            out.push(separator);
            out.extend(utf8_percent_encode(part, NOT_IN_LOCATION));
            if out.len() > DESTINATION_BYTES_MAX {
                out.truncate(end);
                break;
            }
            separator = '&';
        }
        append(&mut out, fragment, values);
        out
    }

    fn from_canonical(url: &str, marks: &[(String, Part)], host: String, opener: Opener) -> Self {
        let mut parts = Vec::new();
        let mut rest = url;
        for (mark, part) in marks {
            // a mark is plain letters and digits: the URL parser leaves it as it is (a lower-cased scheme
            // or host never holds one)
            if let Some((before, after)) = rest.split_once(mark.as_str()) {
                push_literal(&mut parts, before);
                match part {
                    Part::Literal(brace) => push_literal(&mut parts, brace),
                    Part::Macro(_) => parts.push(part.clone()),
                }
                rest = after;
            }
        }
        push_literal(&mut parts, rest);
        put_in_place(&mut parts);
        let (mut parts, fragment) = split_fragment(parts);
        for part in &mut parts {
            if let Part::Literal(literal) = part {
                literal.shrink_to_fit(); // it stays in memory
            }
        }
        let has_query = parts[..fragment].iter().any(|p| matches!(p, Part::Literal(l) if l.contains('?')));
        let macros = parts.iter().filter_map(Part::used).map(|used| used.name).collect();
        Self { parts: parts.into(), fragment, has_query, host: host.into(), macros, opener }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl Part {
    fn used(&self) -> Option<&Use> {
        match self {
            Self::Literal(_) => None,
            Self::Macro(used) => Some(used),
        }
    }
}

fn append(out: &mut String, parts: &[Part], values: &Values<'_>) {
    for part in parts {
        match part {
            Part::Literal(literal) => out.push_str(literal),
            Part::Macro(used) => append_value(out, used, values),
        }
    }
}

fn append_value(out: &mut String, used: &Use, values: &Values<'_>) {
    match values.value(used.name, &used.argument) {
        Value::Plain(plain) => plain.append(out),
        Value::Text(text) => {
            let text = if text.is_empty() { used.default.as_deref().unwrap_or_default() } else { &text };
            encode::append(out, text, used.is_raw, used.place);
        }
    }
}

/// What was perhaps meant by a name that is no macro's.
fn hint(name: &str) -> String {
    Macro::nearest(name).map(|near| format!(" (did you mean {{{near}}}?)")).unwrap_or_default()
}

/// Says of each macro where it stands.
fn put_in_place(parts: &mut [Part]) {
    let texts = parts.iter().map(|part| match part {
        Part::Literal(text) => Some(text.as_str()),
        Part::Macro(_) => None,
    });
    let is_intent = matches!(parts.first(), Some(Part::Literal(first)) if first.starts_with("intent:"));
    let mut places = place::places(texts, is_intent).into_iter();
    for part in parts {
        if let Part::Macro(used) = part {
            used.place = places.next().unwrap_or_default();
        }
    }
}

/// Checks what the URL parser would quietly mend, and returns where the authority ends.
fn check_origin(text: &str, is_listed: impl Fn(&Scheme) -> bool) -> Result<usize, Error> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::Url("white space or a control character".to_owned()));
    }
    let Some((scheme, rest)) = text.split_once(':') else { return Err(Error::Scheme) };
    let is_web = ["https", "http"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    match scheme.parse::<Scheme>() {
        _ if scheme.contains('{') => return Err(Error::Origin),
        _ if is_web && rest.starts_with("//") => {}
        Ok(app) if is_listed(&app) => {}
        Ok(app) => return Err(Error::UnlistedScheme(app.as_str().to_owned())),
        Err(_) => return Err(Error::Scheme),
    }
    // an app may go without: mailto:a@b.example, tel:+49, myapp:open?x=1
    let (slashes, rest) = rest.strip_prefix("//").map_or(("", rest), |rest| ("//", rest));
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = &rest[..end];
    match authority {
        a if a.contains(['{', '}']) => Err(Error::Origin),
        a if a.contains('@') && !slashes.is_empty() => Err(Error::User),
        "" if is_web => Err(Error::Url("no host".to_owned())),
        "" if rest.is_empty() && slashes.is_empty() => Err(Error::Url("nothing after the scheme".to_owned())),
        _ if rest[end..].starts_with('\\') => Err(Error::Url("a backslash after the host".to_owned())),
        _ => Ok(text.len() - rest.len() + end),
    }
}

fn check_host(url: &Url) -> Result<String, Error> {
    let host = url.host_str().unwrap_or_default();
    if url.port() == Some(0) {
        return Err(Error::Url("nothing listens on port 0".to_owned()));
    }
    if !url.is_special() {
        return Ok(host.to_owned()); // an app's own word, or none: myapp:///open
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    // the URL standard lets a host hold braces, `$` and more, once they are percent-encoded; no name has them
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(letter);
    if host.starts_with('[') || (name.len() <= 253 && name.split('.').all(label)) {
        Ok(host.to_owned())
    } else {
        Err(Error::Url("the host is not a valid name".to_owned()))
    }
}

fn split(text: &str, origin_end: usize) -> Result<Vec<Part>, Error> {
    let mut parts = vec![Part::Literal(text[..origin_end].to_owned())];
    let mut rest = &text[origin_end..];
    while let Some(at) = rest.find(['{', '}']) {
        push_literal(&mut parts, &rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            parts.push(Part::Literal(tail[..1].to_owned()));
            rest = &tail[2..];
        } else if let Some(inner) = tail.strip_prefix('{').and_then(|t| t.split_once('}')).map(|(i, _)| i) {
            parts.push(Part::Macro(Use::parse(inner)?));
            rest = &tail[inner.len() + 2..];
        } else {
            return Err(Error::LoneBrace);
        }
    }
    push_literal(&mut parts, rest);
    Ok(parts)
}

/// The URL with a unique word in place of each macro and literal brace, and what each word stands for.
fn with_marks(parts: &[Part]) -> (String, Vec<(String, Part)>) {
    let all: String =
        parts.iter().filter_map(|p| if let Part::Literal(l) = p { Some(l.as_str()) } else { None }).collect();
    let mut stem = "octomark".to_owned();
    while all.contains(&stem) {
        stem.push('q');
    }
    let mut url = String::new();
    let mut marks = Vec::new();
    for part in parts {
        match part {
            Part::Literal(l) if l != "{" && l != "}" => url.push_str(l),
            special => {
                let mark = format!("{stem}{}x", marks.len());
                url.push_str(&mark);
                marks.push((mark, special.clone()));
            }
        }
    }
    (url, marks)
}

fn push_literal(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Literal(last)) if !matches!(last.as_str(), "{" | "}") && !matches!(text, "{" | "}") => {
            last.push_str(text);
        }
        _ => parts.push(Part::Literal(text.to_owned())),
    }
}

/// Splits the literal that holds the first `#`, and says at which part the fragment begins.
fn split_fragment(parts: Vec<Part>) -> (Vec<Part>, usize) {
    let mut out = Vec::with_capacity(parts.len() + 1);
    let mut fragment = None;
    for part in parts {
        match part {
            Part::Literal(l) if fragment.is_none() && l.contains('#') => {
                let at = l.find('#').unwrap_or_default();
                if at > 0 {
                    out.push(Part::Literal(l[..at].to_owned()));
                }
                fragment = Some(out.len());
                out.push(Part::Literal(l[at..].to_owned()));
            }
            part => out.push(part),
        }
    }
    let end = out.len();
    (out, fragment.unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{encode::UNRESERVED, *};
    use crate::{facts::click::Click, model::id::ClickId};

    /// Origins and what follows them; macros stand for each `@`.
    const FRAMES: [(&str, &str); 5] = [
        ("https://o.example", "/@?a=@&b=@#@"),
        ("https://o.example", "/go/@/x/.@/y"),
        ("http://o.example:8080", "?@&@=1&u=https%3A%2F%2Fshop.example%2Fp%2F@%2Fx%3Fref%3D@%26k%3D1"),
        (
            "https://o.example",
            "/?u=https%3A%2F%2Fm%2F%3Fu%3Dhttps%253A%252F%252Fshop%252F%253Fref%253D@&a=@@",
        ),
        ("https://o.example", "/@@/@?u=https://shop/?ref=@"),
    ];

    /// Values that strangers and owners may have chosen.
    #[derive(Debug, Clone)]
    struct Hostile {
        texts: Vec<String>,
        ids: [Option<i64>; 3],
        amount: Option<i64>,
    }

    impl Hostile {
        fn text(&self, nth: usize) -> &str {
            &self.texts[nth % self.texts.len()]
        }

        fn click(&self) -> Click<'_> {
            let text = |nth: usize| (!self.text(nth).is_empty()).then(|| self.text(nth).into());
            Click {
                subs: [text(0), text(1), text(2), text(3), text(4)],
                aff_subs: [text(5), text(6), text(0), text(1), text(2)],
                click_id_param: text(3),
                traffic_source_id: text(4),
                country: text(5),
                device: text(6),
                os: text(0),
                browser: text(1),
                user_agent: text(2),
                referrer: text(3),
                keyword: text(4),
                creative: text(5),
                placement: text(6),
                region: text(0),
                city: text(1),
                language: text(2),
                isp: text(3),
                ip: Some([192, 0, 2, 1].into()),
                campaign_offer_id: self.ids[0],
                landing_page_id: self.ids[1],
                cost: self.amount.map(|amount| rust_decimal::Decimal::new(amount, 6)),
                ..Click::new(ClickId::now(), Uuid::nil())
            }
        }

        fn values<'a>(&'a self, click: &'a Click<'a>) -> Values<'a> {
            Values {
                names: Names {
                    campaign: self.text(0),
                    source: self.text(1),
                    lander: self.text(2),
                    offer: self.text(3),
                    rule: Named { id: self.ids[2], name: self.text(4) },
                    path: Named { id: self.ids[2], name: "" },
                },
                payout: self.amount.map(|amount| rust_decimal::Decimal::new(amount, 2)),
                leg_offer: self.ids[0],
                token: self.text(5),
                out_base: self.text(6),
                ..Values::of_click(click, self.text(6))
            }
        }
    }

    fn hostile() -> impl Strategy<Value = Hostile> {
        let text = prop_oneof![
            ".{0,30}",
            "[.%2eE/\\\\?#&=; \r\n\t\"<>@:]{0,12}",
            Just("../../@evil.example".to_owned()),
            Just("//evil.example/\r\nSet-Cookie: a=b".to_owned()),
            Just("%0d%0a%00%23%2e%2e".to_owned()),
            Just("{sub1}{{x}}".to_owned()),
            Just(";end;component=x/.Y;S.browser_fallback_url=https%3A%2F%2Fevil.example;end".to_owned()),
        ];
        let id = proptest::option::of(0..i64::MAX);
        let ids = [id.clone(), id.clone(), id];
        (proptest::collection::vec(text, 7..8), ids, proptest::option::of(any::<i64>()))
            .prop_map(|(texts, ids, amount)| Hostile { texts, ids, amount })
    }

    fn click(sub1: &str) -> Click<'_> {
        Click {
            ip: Some([192, 0, 2, 1].into()),
            country: Some("DE".into()),
            subs: [Some(sub1.into()), None, None, None, None],
            campaign_offer_id: Some(7),
            ..Click::new(ClickId::now(), Uuid::nil())
        }
    }

    fn expand(template: &str, sub1: &str) -> String {
        let click = click(sub1);
        Template::parse(template).unwrap().expand(&Values::of_click(&click, "demo"), &[])
    }

    #[test]
    fn macros_are_filled_and_percent_encoded_in_one_pass() {
        let out = expand(
            "https://o.example/{country}/{offer_id}?s={sub1}&c={cid}&x={sub2}#top",
            "a&b={click_id}#\u{e9}",
        );
        assert_eq!(out, "https://o.example/DE/7?s=a%26b%3D%7Bclick_id%7D%23%C3%A9&c=demo&x=#top");
    }

    #[test]
    fn every_macro_of_the_contract_is_known() {
        for name in Macro::ALL.iter().map(|m| m.name()) {
            assert!(Template::parse(&format!("https://o.example/?x={{{name}}}")).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_unknown_macro_is_named_with_what_was_meant_and_what_there_is() {
        let refusal = |text: &str| Template::parse(text).unwrap_err().to_string();
        let unknown = refusal("https://o.example/?c={clickid}");
        assert!(
            unknown.starts_with(
                "has the unknown macro {clickid} (did you mean {click_id}?); known are click_id, "
            )
        );
        assert!(unknown.len() < 800, "{unknown}");
        for (text, wanted) in [
            ("{click_id:long}", "has {click_id:long}: {click_id} may be followed by :short"),
            ("{out_url:99}", "from :1 to :64"),
            ("{date:%Q}", "it takes %Y %m %d"),
            ("{sub1:short}", "this macro may be followed by :raw and |default only"),
            (
                "{sub1|none:raw}",
                "has {sub1|none:raw}: a default is at most 256 bytes without | and {, and comes last",
            ),
        ] {
            let refusal = refusal(&format!("https://o.example/?x={text}"));
            assert!(refusal.contains(wanted), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_template_knows_its_macros() {
        let template = Template::parse("https://o.example/{sub1}?c={click_id:short}&s={sub1:raw|x}").unwrap();
        assert_eq!(template.macros(), MacroSet::of(&[Macro::ClickId, Macro::Sub1]));
        assert!(!template.has_out_macros());
        for text in ["https://l.example/?next={out_url:2}", "https://l.example/#{click_token|x}"] {
            assert!(Template::parse(text).unwrap().has_out_macros(), "{text}");
        }
    }

    #[test]
    fn what_is_stored_can_be_parsed_again() {
        // each of these letters becomes six characters
        let text = format!("https://o.example/?{}", "\u{e9}".repeat(2000));
        assert_eq!(Template::parse(&text), Err(Error::TooLong));
        let text = format!("https://o.example/?{}", "\u{e9}".repeat(1300));
        assert!(Template::parse_stored(&Template::parse(&text).unwrap().canonical()).is_ok());
    }

    #[test]
    fn a_second_question_mark_stays_what_it_is() {
        for text in
            ["https://o.example/?u=https://shop.example/?ref={sub1}", "https://o.example/?a=1?b={sub1}"]
        {
            assert_eq!(Template::parse(text).unwrap().canonical(), text);
        }
    }

    #[test]
    fn double_braces_are_literal() {
        assert_eq!(
            expand("https://o.example/?a={{sub1}}&b={{{sub1}}}", "v"),
            "https://o.example/?a={sub1}&b={v}"
        );
    }

    #[test]
    fn pass_through_goes_before_the_fragment() {
        let click = click("");
        let values = Values::of_click(&click, "demo");
        let extra = ["gclid=a%20b+c", "gclid=%B4", "", "flag", "\u{e9}={x}\"<>#"].map(Cow::Borrowed);
        for (template, wanted) in [
            (
                "https://o.example#top",
                "https://o.example/?gclid=a%20b+c&gclid=%B4&&flag&%C3%A9={x}%22%3C%3E%23#top",
            ),
            (
                "https://o.example/?a=1",
                "https://o.example/?a=1&gclid=a%20b+c&gclid=%B4&&flag&%C3%A9={x}%22%3C%3E%23",
            ),
        ] {
            assert_eq!(Template::parse(template).unwrap().expand(&values, &extra), wanted);
        }
    }

    #[test]
    fn what_is_no_plain_web_address_is_refused() {
        for bad in [
            "javascript:alert(1)",
            "java\tscript:alert(1)",
            "\u{1}https://a.example/",
            "data:text/html,x",
            "//evil.example/",
            "/\\evil.example",
            "https:/\\evil.example",
            "https:evil.example",
            "https:///evil.example",
            "https://a.example:0/",
            "https://a.example:+80/",
            "https://a.example:80:80/",
            "https://a\u{202e}b.example/",
            "https://256.256.256.256/",
            "https://[::1/",
            "https://a%00.example/",
            "https://a%2fb.example/",
            "https://a.example{sub1}/",
            "https://{sub1}@a.example/",
            "https{sub1}://a.example/",
            "myapp://open/",
            "https://good.example@evil.example/",
            "https://a.example\\@evil.example/",
            "https://a..b/",
            "https://offer.example:65536/",
            "https://offer.example/\r\nSet-Cookie:a=b",
            "https://{sub1}.evil.example/",
            "{sub1}://x.example/",
            "https://a.example:{sub1}/",
            "https:///x",
            "   ",
            "",
            "https://a.example/{nosuch}",
            "https://a.example/{",
            "https://a.example/}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Template::parse(&format!("https://{}", "a".repeat(9000))).is_err());
        let of_bytes = |bytes: usize| format!("https://a.example/?{}", "a".repeat(bytes - 19));
        assert!(Template::parse(&of_bytes(TEMPLATE_BYTES_MAX)).is_ok());
        assert_eq!(Template::parse(&of_bytes(TEMPLATE_BYTES_MAX + 1)), Err(Error::TooLong));
        assert!(Template::parse(&format!("https://{}/", "a".repeat(300))).is_err());
    }

    #[test]
    fn an_app_is_a_destination_where_its_scheme_is_listed() {
        let schemes = ["myapp", "mailto", "tel"].map(|s| s.parse().unwrap());
        for (text, canonical) in [
            ("MyApp://open/{sub1}?c={click_id}#x", "myapp://open/{sub1}?c={click_id}#x"),
            ("myapp:///open", "myapp:///open"),
            ("myapp://open", "myapp://open"),
            ("myapp:open?c={click_id}", "myapp:open?c={click_id}"),
            ("MYAPP:open/{sub1}#{sub2}", "myapp:open/{sub1}#{sub2}"),
            ("myapp:/open/{sub1}", "myapp:/open/{sub1}"),
            (
                "mailto:a@b.example?subject={click_id}&body={sub1}",
                "mailto:a@b.example?subject={click_id}&body={sub1}",
            ),
            ("Mailto:a@b.example", "mailto:a@b.example"),
            ("tel:+4930123", "tel:+4930123"),
            ("tel:+4930123?c={click_id:short}", "tel:+4930123?c={click_id:short}"),
            ("https://A.example", "https://a.example/"),
        ] {
            assert_eq!(Template::parse_for(text, &schemes).unwrap().canonical(), canonical);
            assert_eq!(Template::parse_stored(text).unwrap().canonical(), canonical);
        }
        for bad in [
            "myapp:",
            "myapp",
            "myapp:{sub1}",
            "myapp:open{sub1}",
            "mailto:{sub1}@b.example",
            "mailto:{sub1}",
            "tel:{sub1}",
            "tel:+49{sub1}?x=1",
            "myapp:open\\evil/{sub1}",
            "https:open",
            "https:/open",
            "javascript:alert(1)",
            "data:text/html,{sub1}",
            "sms:+49",
            "myapp://{sub1}/x",
            "myapp://open:{sub1}/",
            "myapp://{sub1}@open/",
            "myapp://user@open/",
            "myapp://open\\evil/",
            "my{sub1}app://open/",
            "other://open/",
            "javascript://open/%0aalert(1)",
            "myapp://open/ x",
        ] {
            assert!(Template::parse_for(bad, &schemes).is_err(), "{bad:?} was accepted");
        }
        assert!(Template::parse("myapp://open/").is_err());
        let refusal = |text: &str| Template::parse_for(text, &schemes).unwrap_err().to_string();
        assert!(refusal("sms:+49").contains("the scheme sms: is not in tracking.app_schemes"));
        assert!(refusal("tel:{sub1}").contains("before the first / ? or #"));
        assert!(Template::parse_stored("javascript://open/%0aalert(1)").is_err());
    }

    #[test]
    fn a_destination_stays_short_and_decodes() {
        let value = "\u{1f600}".repeat(1024);
        let out = expand(&format!("https://o.example/?{}", "a={sub1}&".repeat(20)), &value);
        assert!((15_000..=DESTINATION_BYTES_MAX + TEMPLATE_BYTES_MAX).contains(&out.len()), "{}", out.len());
        let pairs: Vec<_> = Url::parse(&out).unwrap().query_pairs().into_owned().collect();
        assert_eq!(pairs.len(), 20);
        assert!(pairs.iter().all(|(_, v)| value.starts_with(v.as_str())), "{pairs:?}");
    }

    #[test]
    fn the_short_form_of_an_id_has_no_hyphens_to_strip() {
        let click = click("");
        let values = Values::of_click(&click, "demo");
        let out = Template::parse("https://o.example/{click_id:short}?c={click_id:short}")
            .unwrap()
            .expand(&values, &[]);
        let short = click.id.short();
        assert_eq!(out, format!("https://o.example/{short}?c={short}"));
    }

    #[test]
    fn a_value_is_encoded_as_often_as_the_text_it_stands_in() {
        let value = "a&b=c/\u{e9}%2F.-_~";
        let times = |n: usize| {
            (0..n).fold(value.to_owned(), |text, _| utf8_percent_encode(&text, UNRESERVED).to_string())
        };
        for (template, n) in [
            ("https://t.example/?ued=https%3A%2F%2Fshop%2F%3Fref%3D{sub1}", 2),
            ("https://t.example/?ued=https%3a%2f%2fshop%2f%3fref%3d{sub1}", 2),
            ("https://t.example/?a=1&ued=https%3A%2F%2Fshop%2Fp%2F{sub1}%3Fx%3D1", 2),
            ("https://t.example/?ued=https%3A%2F%2Fshop%2F%3Fref%3D{country}-{sub1}", 2),
            ("https://t.example/?ued=https%3A%2F%2Fshop%2F%23{sub1}", 2),
            ("https://t.example/go/https%3A%2F%2Fshop%2F%3Fref%3D{sub1}", 2),
            ("https://t.example/?u=%2Fitem%3Fref%3D{sub1}", 2),
            ("https://t.example/?u=%2Fitem%2F{sub1}", 2),
            ("https://t.example/?data=a%3D1%26b%3D{sub1}", 2),
            ("https://t.example/#u=https%3A%2F%2Fshop%2F%3Fref%3D{sub1}", 2),
            ("https://t.example/?u=myapp%3A%2F%2Fopen%2F{sub1}", 2),
            ("https://t.example/?text=See%20https%3A%2F%2Fshop%2F%3Fref%3D{sub1}", 2),
            (
                "https://t.example/?u=https%3A%2F%2Fm%2F%3Fu%3Dhttps%253A%252F%252Fshop%252F%253Fref%253D{sub1}",
                3,
            ),
            ("https://t.example/?u=https%3A%2F%2Fm%2F%3Fu%3Dhttps%253A%252F%252Fshop%252F%26ref%3D{sub1}", 2),
            ("https://t.example/?u=https%3A%2F%2Fm%2F%3Fu%3D%252Fp%252F{sub1}", 3),
            ("https://t.example/?u=https%3A%2F%2Fshop%2F&ref={sub1}", 1),
            ("https://t.example/?u=https%3A%2F%2Fshop%2F/{sub1}", 2),
            ("https://t.example/?u=https%3A//shop/p/{sub1}", 2), // as Python quotes
            ("https://t.example/?u=https%3A%2F%2Fshop%2F?ref={sub1}", 2),
            ("https://t.example/https%3A%2F%2Fshop%2F/{sub1}", 1),
            ("https://t.example/?u=https://shop/?ref={sub1}", 1),
            ("https://t.example/?u={sub1}", 1),
            ("https://t.example/{sub1}?x=%2F", 1),
            ("https://t.example/?s={sub1}&u=https%3A%2F%2Fshop%2F", 1),
            ("https://t.example/?text=Interested%3F%20{sub1}", 1),
            ("https://t.example/?text=https%3A%2F%2Fshop%2F%20code%20{sub1}", 1),
            ("https://t.example/?t=a%2Fb{sub1}", 1),
            ("https://t.example/?t=100%25{sub1}", 1),
            ("https://t.example/?t=50%25%3A%20{sub1}", 1),
        ] {
            let out = expand(template, value);
            let wanted = template.replace("{sub1}", &times(n)).replace("{country}", "DE");
            assert_eq!(out, wanted, "{template}");
        }
    }

    #[test]
    fn dots_are_no_way_up() {
        for (template, sub1, wanted) in [
            ("https://o.example/go/{sub1}/landing", "..", "/go/__/landing"),
            ("https://o.example/go/{sub1}/landing", ".", "/go/_/landing"),
            ("https://o.example/go/{sub1}", "..", "/go/__"),
            ("https://o.example/{sub1}?a={sub1}", "..", "/__?a=.."),
            ("https://o.example/go/{sub1}{sub1}/x", ".", "/go/__/x"),
            ("https://o.example/go/{sub1}{sub2}/x", "..", "/go/__/x"),
            ("https://o.example/go/.{sub1}/x", ".", "/go/._/x"),
            ("https://o.example/go/.{sub1}/x", "", "/go/._/x"),
            ("https://o.example/go/%2e{sub1}/x", ".", "/go/%2e_/x"),
            ("https://o.example/go/{sub2}.{sub1}/x", "", "/go/_._/x"),
            ("https://o.example/go/{sub2}..{sub1}/x", "", "/go/_.._/x"),
            ("https://o.example/go/{sub1}/x", "%2e%2e", "/go/%252e%252e/x"),
            ("https://o.example/go/{sub1}/x", "../..", "/go/..%2F../x"),
            ("https://o.example/go/{sub1}/x", "", "/go//x"),
            ("https://o.example/go/a{sub1}/x", "..", "/go/a../x"),
            ("https://o.example/go/{sub1}.html", "..", "/go/...html"),
            (
                "https://o.example/?u=https%3A%2F%2Fshop%2Fgo%2F{sub1}%2Fx",
                "..",
                "/?u=https%3A%2F%2Fshop%2Fgo%2F__%2Fx",
            ),
            ("https://o.example/?a={sub1}", "..", "/?a=.."),
        ] {
            assert_eq!(expand(template, sub1), format!("https://o.example{wanted}"), "{template} {sub1:?}");
        }
    }

    #[test]
    fn the_canonical_form_parses_to_itself() {
        for text in [
            "HTTPS://Offer.Example?s={sub1}#x{sub2}",
            "https://m\u{fc}nchen.example/\u{e9}{{x}}?q={{{{{sub1}}}}}",
            "http://[::1]:8080/a/../b?octomark0x={sub1}",
        ] {
            let once = Template::parse(text).unwrap();
            let twice = Template::parse(&once.canonical()).unwrap();
            assert_eq!(once, twice, "{text}");
        }
        assert_eq!(Template::parse("HTTPS://Offer.Example").unwrap().canonical(), "https://offer.example/");
        assert_eq!(Template::parse("https://a.example/click/{sub1}").unwrap().path(), "/click/");
    }

    proptest! {
        #[test]
        fn no_value_changes_the_origin_or_leaves_ascii(sub1 in ".{0,80}") {
            let out = expand("https://o.example/{sub1}?s={sub1}&k=1#{sub1}", &sub1);
            let url = Url::parse(&out).unwrap();
            prop_assert_eq!(url.origin().ascii_serialization(), "https://o.example");
            prop_assert!(out.bytes().all(|b| (0x21..0x7f).contains(&b)));
            let pairs: Vec<_> = url.query_pairs().collect();
            prop_assert_eq!(pairs.len(), 2);
            prop_assert_eq!(pairs[0].1.as_ref(), sub1.as_str());
        }

        #[test]
        fn decoded_level_by_level_a_value_comes_back_and_injects_nothing(sub1 in "[ -~\u{e9}\u{1f600}]{0,40}|[&=?#/%.25]{0,12}") {
            let twice = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
            // t.example -> mid.example -> shop.example, each the parameter u of the one before
            let mut template = "https://shop.example/p/{sub1}/x?first={sub1}&k=1#f".to_owned();
            for outer in ["mid", "t"] {
                let inner = template.split("{sub1}").map(twice).collect::<Vec<_>>().join("{sub1}");
                template = format!("https://{outer}.example/?own={{sub1}}&u={inner}&last=1");
            }
            let mut url = Url::parse(&expand(&template, &sub1)).unwrap();
            for _ in 0..2 {
                let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
                let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
                prop_assert_eq!(names, ["own", "u", "last"]);
                prop_assert_eq!(&pairs[0].1, &sub1);
                url = Url::parse(&pairs[1].1).unwrap();
            }
            prop_assert_eq!(url.host_str(), Some("shop.example"));
            prop_assert_eq!(url.query_pairs().into_owned().collect::<Vec<_>>(), [("first".to_owned(), sub1.clone()), ("k".to_owned(), "1".to_owned())]);
            prop_assert_eq!(url.fragment(), Some("f"));
            let segments: Vec<&str> = url.path_segments().unwrap().collect();
            prop_assert_eq!((segments.len(), segments[0], segments[2]), (3, "p", "x"), "{}", url);
        }

        #[test]
        fn a_path_keeps_its_segments_whatever_the_values(
            segments in proptest::collection::vec("[a.]{0,2}(\\{sub1\\}|\\{sub2\\}|%2[eE]|\\.|a){1,3}", 1..5),
            sub1 in "[.%2eE/\\\\]{0,4}",
            sub2 in "\\.{0,2}",
        ) {
            let text = format!("https://o.example/stored/{}/end?x={{sub1}}", segments.join("/"));
            let template = Template::parse(&text).unwrap();
            let mut click = click(&sub1);
            click.subs[1] = Some(sub2.into());
            let out = template.expand(&Values::of_click(&click, "demo"), &[]);
            let url = Url::parse(&out).unwrap();
            // what the parser made of the stored text's own dots is in the canonical form
            let stored = template.canonical();
            let (stored, _) = stored.split_once('?').unwrap();
            prop_assert_eq!(url.path().split('/').count(), stored.split('/').count() - 2, "{} became {}", stored, url);
            prop_assert!(url.as_str().starts_with(stored.split('{').next().unwrap().trim_end_matches('.')), "{} became {}", stored, url);
        }

        #[test]
        fn what_the_grammar_allows_is_shown_as_it_parses_and_no_value_breaks_out(
            uses in proptest::collection::vec((0..Macro::ALL.len(), 0..4_usize, any::<bool>(), "[^{}|\\s\\p{Cc}]{0,12}"), 1..8),
            frame in 0..FRAMES.len(),
            hostile in hostile(),
        ) {
            let macros: Vec<String> = uses.iter().map(|(m, argument, is_raw, default)| {
                let name = Macro::ALL[*m].name();
                let argument = match name {
                    "click_id" => ["", "", ":short", ":short"][*argument],
                    "out_url" => ["", ":1", ":07", ":64"][*argument],
                    "date" => ["", ":%Y-%m-%d", ":%H:%M:%S", ":%%/../%j#%y"][*argument],
                    _ => "",
                };
                let raw = if *is_raw { ":raw" } else { "" };
                let default = default.trim_end_matches(":raw");
                if default.is_empty() { format!("{{{name}{argument}{raw}}}") } else { format!("{{{name}{argument}{raw}|{default}}}") }
            }).collect();
            let (origin, frame) = FRAMES[frame];
            let mut macros = macros.iter().cycle();
            let text: String = frame.split_inclusive('@').map(|piece| piece.replace('@', macros.next().expect("it goes round"))).collect();
            let template = Template::parse(&format!("{origin}{text}")).unwrap();
            let canonical = template.canonical();
            let again = Template::parse(&canonical).unwrap();
            prop_assert_eq!(&again, &template, "{}", canonical);

            let click = hostile.click();
            let values = hostile.values(&click);
            let out = template.expand(&values, &[]);
            prop_assert!(out.bytes().all(|b| (0x21..0x7f).contains(&b)), "{} became {}", canonical, out);
            let url = Url::parse(&out).unwrap();
            prop_assert_eq!(url.origin().ascii_serialization(), origin.to_owned());
            // nothing was added but what stood there: separators are those of the template with plain values
            let plain = template.expand(&Values { token: "t", out_base: "b", ..Values::of_click(&Click::new(click.id, Uuid::nil()), "c") }, &[]);
            let separators = |text: &str| text.chars().filter(|c| "/?&=#;".contains(*c)).collect::<String>();
            prop_assert_eq!(separators(&out), separators(&plain), "{} became {} and {}", canonical, out, plain);
            prop_assert_eq!(url.path().split('/').count(), Url::parse(&plain).unwrap().path().split('/').count(), "{} became {}", canonical, out);

            // as a token carries it
            let macros = template.macros();
            let mut sealed = Vec::new();
            Texts::collect(&values, macros, 100_000).encode(&mut sealed);
            let carried = Carried {
                click_id: Some(click.id),
                campaign_id: click.campaign_id,
                landing_page_id: click.landing_page_id,
                offer_id: click.campaign_offer_id,
                texts: Texts::decode(&sealed).unwrap(),
            };
            prop_assert_eq!(template.expand(&Values { click: Known::Carried(&carried), ..values }, &[]), out);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(https://)?[a-z{}/?#@:.%\\\\é]{0,60}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.canonical()), Ok(template));
            }
        }
    }
}
