//! Destination URLs and their macros: `https://offer.example/?click={click_id}`.
//!
//! A template is checked when a campaign is saved: http or https (or an app's scheme, where the installation lists
//! it), a host, no user part, and no macro in scheme, user, host or port, so the origin of every `Location` is the
//! stored one. Values are
//! percent-encoded in one pass (all but the unreserved characters of RFC 3986 section 2.3); a value that
//! looks like a macro stays text. `{{` and `}}` are literal braces.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::model::{click::Click, scheme::Scheme};

/// Longest template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 4096;

/// Longest destination after expansion and pass-through, in bytes (a browser takes no longer header); values are cut
/// where it ends, and what is over is not passed through.
const DESTINATION_BYTES_MAX: usize = 16_384;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A parsed destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// Parts before this one are followed by the query's end (the fragment, if any, begins here).
    fragment: usize,
    has_query: bool,
    host: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro(Macro),
}

macro_rules! macros {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// What a destination may ask for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Macro { $(#[doc = concat!("`{", $name, "}`")] $variant),+ }

        impl Macro {
            /// Every name, without braces.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

macros! {
    ClickId = "click_id",
    Cid = "cid",
    CampaignId = "campaign_id",
    OfferId = "offer_id",
    LandingPageId = "landing_page_id",
    TrafficSourceId = "traffic_source_id",
    Sub1 = "sub1",
    Sub2 = "sub2",
    Sub3 = "sub3",
    Sub4 = "sub4",
    Sub5 = "sub5",
    AffSub = "aff_sub",
    AffSub2 = "aff_sub2",
    AffSub3 = "aff_sub3",
    AffSub4 = "aff_sub4",
    AffSub5 = "aff_sub5",
    ExternalClickId = "external_click_id",
    Country = "country",
    Device = "device",
    Os = "os",
    Browser = "browser",
    Ip = "ip",
    UserAgent = "user_agent",
    Referrer = "referrer",
    Timestamp = "timestamp",
    Random = "random",
}

/// Why a destination is refused, in words for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`TEMPLATE_BYTES_MAX`].
    #[error("is longer than {TEMPLATE_BYTES_MAX} bytes")]
    TooLong,
    /// Not `http://`, `https://` or a listed scheme.
    #[error("must begin with http:// or https:// (or a scheme of tracking.app_schemes)")]
    Scheme,
    /// White space, control characters, a bad host or port.
    #[error("is not a valid URL: {0}")]
    Url(String),
    /// `user:password@`
    #[error("must not contain a user name or password")]
    User,
    /// `https://{sub1}.example/`
    #[error("must not have a macro in scheme, host or port")]
    Origin,
    /// `{no_such}`
    #[error("has the unknown macro {{{0}}}; known are {names}", names = Macro::NAMES.join(", "))]
    UnknownMacro(String),
    /// A lone `{` or `}`.
    #[error("has a lone brace; write {{{{ or }}}} for a literal one")]
    LoneBrace,
}

impl Template {
    /// Parses and checks a destination on the web.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_with(text, |_| false)
    }

    /// Parses and checks a destination on the web or in one of these apps.
    pub fn parse_for(text: &str, app_schemes: &[Scheme]) -> Result<Self, Error> {
        Self::parse_with(text, |scheme| app_schemes.contains(scheme))
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
        Ok(Self::from_canonical(url.as_str(), &marks, host))
    }

    /// The form that is stored and shown: parsing it gives an equal template.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(&literal.replace('{', "{{").replace('}', "}}")),
                Part::Macro(m) => {
                    text.push('{');
                    text.push_str(m.name());
                    text.push('}');
                }
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

    /// The destination of one click; `pass_through` parameters are added to its query.
    pub fn expand(&self, values: &Values<'_>, pass_through: &[(Cow<'_, str>, Cow<'_, str>)]) -> String {
        let mut out = String::with_capacity(256);
        let (before, fragment) = self.parts.split_at(self.fragment);
        append(&mut out, before, values);
        let mut separator = if self.has_query { '&' } else { '?' };
        for (name, value) in pass_through {
            let pair_bytes = 3 * (name.len() + value.len()) + 2;
            if out.len() + pair_bytes > DESTINATION_BYTES_MAX {
                break;
            }
            out.push(separator);
            encode(&mut out, name);
            out.push('=');
            encode(&mut out, value);
            separator = '&';
        }
        append(&mut out, fragment, values);
        out
    }

    fn from_canonical(url: &str, marks: &[(String, Part)], host: String) -> Self {
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
        let (parts, fragment) = split_fragment(parts);
        let has_query = parts[..fragment].iter().any(|p| matches!(p, Part::Literal(l) if l.contains('?')));
        Self { parts, fragment, has_query, host }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

/// What macros stand for in one click.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The click.
    pub click: &'a Click<'a>,
    /// The campaign's key.
    pub cid: &'a str,
}

impl Values<'_> {
    fn append(&self, m: Macro, out: &mut String) {
        let click = self.click;
        let text = match m {
            Macro::ClickId => return append_plain(out, &click.id),
            Macro::CampaignId => return append_plain(out, &click.campaign_id),
            Macro::Timestamp => return append_plain(out, &(click.id.timestamp_ms() / 1000)),
            Macro::Random => return append_plain(out, &(click.id.seed() >> 32)),
            Macro::OfferId => return click.campaign_offer_id.iter().for_each(|id| append_plain(out, id)),
            Macro::LandingPageId => return click.landing_page_id.iter().for_each(|id| append_plain(out, id)),
            Macro::Ip => return click.ip.map_or((), |ip| encode(out, &ip.to_string())),
            Macro::Cid => Some(self.cid),
            Macro::TrafficSourceId => click.traffic_source_id.as_deref(),
            Macro::Sub1 => click.subs[0].as_deref(),
            Macro::Sub2 => click.subs[1].as_deref(),
            Macro::Sub3 => click.subs[2].as_deref(),
            Macro::Sub4 => click.subs[3].as_deref(),
            Macro::Sub5 => click.subs[4].as_deref(),
            Macro::AffSub => click.aff_subs[0].as_deref(),
            Macro::AffSub2 => click.aff_subs[1].as_deref(),
            Macro::AffSub3 => click.aff_subs[2].as_deref(),
            Macro::AffSub4 => click.aff_subs[3].as_deref(),
            Macro::AffSub5 => click.aff_subs[4].as_deref(),
            Macro::ExternalClickId => click.click_id_param.as_deref(),
            Macro::Country => click.country.as_deref(),
            Macro::Device => click.device.as_deref(),
            Macro::Os => click.os.as_deref(),
            Macro::Browser => click.browser.as_deref(),
            Macro::UserAgent => click.user_agent.as_deref(),
            Macro::Referrer => click.referrer.as_deref(),
        };
        encode(out, text.unwrap_or_default());
    }
}

fn append(out: &mut String, parts: &[Part], values: &Values<'_>) {
    for part in parts {
        match part {
            Part::Literal(literal) => out.push_str(literal),
            Part::Macro(m) => values.append(*m, out),
        }
    }
}

/// For values that need no encoding.
fn append_plain(out: &mut String, value: &dyn fmt::Display) {
    let _ = write!(out, "{value}"); // writing to a String does not fail
}

fn encode(out: &mut String, value: &str) {
    if out.len() + 3 * value.len() <= DESTINATION_BYTES_MAX {
        out.extend(utf8_percent_encode(value, UNRESERVED));
        return;
    }
    // cut between characters, so that what is left still decodes
    for (i, c) in value.char_indices() {
        let encoded = utf8_percent_encode(&value[i..i + c.len_utf8()], UNRESERVED);
        if out.len() + 3 * c.len_utf8() > DESTINATION_BYTES_MAX {
            break;
        }
        out.extend(encoded);
    }
}

/// Checks what the URL parser would quietly mend, and returns where the authority ends.
fn check_origin(text: &str, is_listed: impl Fn(&Scheme) -> bool) -> Result<usize, Error> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::Url("white space or a control character".to_owned()));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let is_web = ["https", "http"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    if !(is_web || scheme.parse().is_ok_and(|app| is_listed(&app))) || scheme.len() == text.len() {
        return Err(if scheme.contains('{') { Error::Origin } else { Error::Scheme });
    }
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = &rest[..end];
    match authority {
        a if a.contains(['{', '}']) => Err(Error::Origin),
        a if a.contains('@') => Err(Error::User),
        "" if is_web => Err(Error::Url("no host".to_owned())),
        _ if rest[end..].starts_with('\\') => Err(Error::Url("a backslash after the host".to_owned())),
        _ => Ok(scheme.len() + "://".len() + end),
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
            let m = Macro::from_name(inner);
            let shown = || inner.chars().take(40).collect();
            parts.push(Part::Macro(m.ok_or_else(|| Error::UnknownMacro(shown()))?));
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

    use super::*;
    use crate::model::id::ClickId;

    fn click(sub1: &str) -> Click<'_> {
        Click {
            id: ClickId::now(),
            campaign_id: Uuid::nil(),
            ip: Some([192, 0, 2, 1].into()),
            user_agent: None,
            referrer: None,
            invalid_reason: None,
            is_bot: false,
            country: Some("DE".into()),
            device: None,
            os: None,
            browser: None,
            subs: [Some(sub1.into()), None, None, None, None],
            aff_subs: Default::default(),
            click_id_param: None,
            landing_page_id: None,
            campaign_offer_id: Some(7),
            traffic_source_id: None,
            cost: None,
            currency: None,
        }
    }

    fn expand(template: &str, sub1: &str) -> String {
        let click = click(sub1);
        Template::parse(template).unwrap().expand(&Values { click: &click, cid: "demo" }, &[])
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
        for name in Macro::NAMES {
            assert!(Template::parse(&format!("https://o.example/?x={{{name}}}")).is_ok(), "{name}");
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
        let values = Values { click: &click, cid: "demo" };
        let extra = [("gclid".into(), "a b".into())];
        for (template, wanted) in [
            ("https://o.example#top", "https://o.example/?gclid=a%20b#top"),
            ("https://o.example/?a=1", "https://o.example/?a=1&gclid=a%20b"),
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
        assert!(Template::parse(&format!("https://{}/", "a".repeat(300))).is_err());
    }

    #[test]
    fn an_app_is_a_destination_where_its_scheme_is_listed() {
        let schemes = ["myapp".parse().unwrap()];
        for (text, canonical) in [
            ("MyApp://open/{sub1}?c={click_id}#x", "myapp://open/{sub1}?c={click_id}#x"),
            ("myapp:///open", "myapp:///open"),
            ("myapp://open", "myapp://open"),
            ("https://A.example", "https://a.example/"),
        ] {
            assert_eq!(Template::parse_for(text, &schemes).unwrap().canonical(), canonical);
            assert_eq!(Template::parse_stored(text).unwrap().canonical(), canonical);
        }
        for bad in [
            "myapp:open",
            "myapp:/open",
            "myapp",
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
        assert!(Template::parse_stored("javascript://open/%0aalert(1)").is_err());
    }

    #[test]
    fn a_destination_stays_short_and_decodes() {
        let value = "\u{1f600}".repeat(255);
        let out = expand(&format!("https://o.example/?{}", "a={sub1}&".repeat(20)), &value);
        assert!((15_000..=DESTINATION_BYTES_MAX + TEMPLATE_BYTES_MAX).contains(&out.len()), "{}", out.len());
        let pairs: Vec<_> = Url::parse(&out).unwrap().query_pairs().into_owned().collect();
        assert_eq!(pairs.len(), 20);
        assert!(pairs.iter().all(|(_, v)| value.starts_with(v.as_str())), "{pairs:?}");
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
        fn no_text_makes_the_parser_panic(text in "(https://)?[a-z{}/?#@:.%\\\\é]{0,60}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.canonical()), Ok(template));
            }
        }
    }
}
