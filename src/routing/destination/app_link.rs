//! Links into apps: which devices open them, the web address for all others, and what Android's `intent:` may hold.
//!
//! `intent:` is written as Chrome reads it, and Android's `Intent.parseUri` behind it:
//! `intent://HOST/PATH#Intent;scheme=https;package=com.shop;S.browser_fallback_url=https%3A%2F%2Fshop.example;end`
//! (<https://developer.chrome.com/docs/android/intents>). Its fields end at `;`, and `end` ends them all. A value of a macro
//! holds no `;`, and macros stand in values of extras (`S.name=`) only: no visitor chooses which app opens, or where its
//! browser goes instead.

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::{Error, MacroSet, Part, Template, encode::UNRESERVED};
use crate::model::scheme::Scheme;

/// Schemes that lead into the shops of the two systems, and Android's way into any app: they need no listing.
const STORES: [(&str, Opener); 4] = [
    ("intent", Opener::Android),
    ("market", Opener::Android),
    ("itms-apps", Opener::Apple),
    ("itms-appss", Opener::Apple),
];

/// Schemes that every system knows what to do with.
const EVERYWHERE: [&str; 3] = ["mailto", "sms", "tel"];

/// The extra that names where a browser goes that has no such app.
const FALLBACK: &str = "S.browser_fallback_url";

/// Stands for a macro while an intent is checked; no literal holds it.
const MARK: char = '\0';

/// Which devices open a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    /// All: it is on the web, or every system has a program for it.
    Anything,
    /// Those of Apple: its shop.
    Apple,
    /// Those with Android.
    Android,
    /// Phones and tablets, if the app is there.
    App,
}

/// Where an entry of a campaign leads: a destination, and the web address for visitors whose device cannot open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    link: Template,
    web: Option<Template>,
}

impl Opener {
    pub(super) fn of_scheme(scheme: &str) -> Self {
        let store = STORES.iter().find(|(store, _)| *store == scheme);
        match store {
            Some((_, opener)) => *opener,
            None if matches!(scheme, "http" | "https") || EVERYWHERE.contains(&scheme) => Self::Anything,
            None => Self::App,
        }
    }
}

/// Whether a destination may have this scheme without being listed.
pub(super) fn is_store(scheme: &Scheme) -> bool {
    STORES.iter().any(|(store, _)| *store == scheme.as_str())
}

impl Target {
    /// Puts a destination and its web address together; both passed [`Template::parse_for`] and [`Template::parse`] once.
    pub fn parse_stored(url: &str, web_url: Option<&str>) -> Result<Self, Error> {
        let link = Template::parse_stored(url)?;
        let web = web_url.map(Template::parse).transpose()?;
        let link = match &web {
            // one that grows too long is left as it is: the web address is still for other devices
            Some(web) if link.is_intent() => with_fallback(&link, web).unwrap_or(link),
            _ => link,
        };
        Ok(Self { link, web })
    }

    /// What a visitor gets whose operating system is called `os` (empty: unknown); `None`: nothing that it can open.
    ///
    /// A listed scheme without a web address goes to every visitor: its owner knows no better place, and there are
    /// programs on desktops, too.
    pub fn for_os(&self, os: &str) -> Option<&Template> {
        let is_last_resort = self.link.opener == Opener::App && self.web.is_none();
        if is_last_resort || self.link.opens_on(os) { Some(&self.link) } else { self.web.as_ref() }
    }

    /// The destination as such.
    pub fn link(&self) -> &Template {
        &self.link
    }

    /// The macros of both.
    pub fn macros(&self) -> MacroSet {
        self.web.as_ref().map_or(MacroSet::default(), Template::macros) | self.link.macros()
    }
}

impl Template {
    /// Whether it leads into an app: a web address beside it makes sense.
    pub fn is_app_link(&self) -> bool {
        self.opener != Opener::Anything
    }

    /// Whether it leads into an app that one system alone has.
    pub fn is_store_link(&self) -> bool {
        matches!(self.opener, Opener::Apple | Opener::Android)
    }

    /// Whether a device opens it whose operating system is called `os`, a name of `visitor`'s list; empty: unknown.
    pub fn opens_on(&self, os: &str) -> bool {
        match self.opener {
            Opener::Anything => true,
            Opener::Apple => matches!(os, "iOS" | "macOS"),
            Opener::Android => os == "Android",
            Opener::App => matches!(os, "iOS" | "Android"),
        }
    }

    fn is_intent(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Literal(first)) if first.starts_with("intent:"))
    }

    /// Checks the fields of an intent. Where intents are not listed, it has to say which app it is for: others may answer
    /// to the same scheme.
    pub(super) fn check_intent(&self, is_listed: bool) -> Result<(), Error> {
        if !self.is_intent() {
            return Ok(());
        }
        let fragment = marked(&self.parts[self.fragment..]);
        let fields = fragment.strip_prefix("#Intent;").and_then(|rest| rest.strip_suffix("end"));
        let fields = fields.filter(|fields| fields.is_empty() || fields.ends_with(';'));
        let fields = fields.filter(|fields| !fields.contains('#')).ok_or(Error::Intent(SHAPE))?;
        let mut fallbacks = 0;
        let mut names_app = is_listed;
        for field in fields.split_terminator(';') {
            let (name, value) = field.split_once('=').ok_or(Error::Intent(SHAPE))?;
            if name.is_empty() || name.starts_with("end") || name.contains(MARK) {
                return Err(Error::Intent(SHAPE));
            }
            if value.contains(MARK) && !is_extra(name) {
                return Err(Error::Intent(
                    "macros may stand in the values of its extras only, as S.name={sub1}",
                ));
            }
            names_app |= name == "package" && !value.is_empty();
            if name == FALLBACK {
                fallbacks += 1;
                check_fallback(value)?;
            }
        }
        match fallbacks {
            0 | 1 if names_app => Ok(()),
            0 | 1 => Err(Error::Intent(
                "it must name its app, as package=com.shop (or list intent in tracking.app_schemes)",
            )),
            _ => Err(Error::Intent("it has more than one S.browser_fallback_url")),
        }
    }
}

const SHAPE: &str = "it must end as #Intent;scheme=https;package=com.shop;S.name=value;end";

/// `S.name`: a text for the app; and the other types of Android's extras.
fn is_extra(name: &str) -> bool {
    matches!(name.as_bytes(), [b'S' | b'B' | b'b' | b'c' | b'd' | b'f' | b'i' | b'l' | b's', b'.', _, ..])
}

/// Where a browser goes instead is a destination like others: on the web, and no macro in its origin.
fn check_fallback(value: &str) -> Result<(), Error> {
    const WANTED: Error = Error::Intent(
        "S.browser_fallback_url must be an encoded http:// or https:// URL without a macro in scheme, host or port",
    );
    if value.contains("%00") {
        return Err(WANTED);
    }
    let decoded = percent_decode_str(value).decode_utf8().map_err(|_| WANTED)?;
    let text = decoded.replace('{', "{{").replace('}', "}}").replace(MARK, "{sub1}");
    Template::parse(&text).map(drop).map_err(|_| WANTED)
}

/// The literals, with a mark for each macro.
fn marked(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Macro(_) => text.push(MARK),
        }
    }
    text
}

/// The intent with `web` as what a browser opens that has no such app; `None` where it names something itself, or where
/// it would become too long.
fn with_fallback(intent: &Template, web: &Template) -> Option<Template> {
    let has_one = marked(&intent.parts[intent.fragment..])
        .split(';')
        .any(|field| field.strip_prefix(FALLBACK).is_some_and(|rest| rest.starts_with('=')));
    let text = intent.canonical();
    let fields = text.strip_suffix("end").filter(|_| !has_one)?;
    let mut text = format!("{fields}{FALLBACK}=");
    for part in &web.parts {
        match part {
            Part::Literal(literal) => text.extend(utf8_percent_encode(literal, UNRESERVED)),
            Part::Macro(used) => text.push_str(&used.to_string()),
        }
    }
    text.push_str(";end");
    Template::parse_stored(&text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::{super::Values, *};
    use crate::{facts::click::Click, model::id::ClickId};

    const INTENT: &str = "intent://shop.example/p/{sub1}?x={sub2}#Intent;scheme=https;package=com.shop;S.ref={sub1};i.n={sub2};end";

    fn parse(text: &str) -> Result<Template, Error> {
        Template::parse_for(text, &["myapp", "intent"].map(|scheme| scheme.parse().unwrap()))
    }

    fn click<'a>(sub1: &'a str, sub2: &'a str) -> Click<'a> {
        Click {
            subs: [Some(sub1.into()), Some(sub2.into()), None, None, None],
            ..Click::new(ClickId::now(), Uuid::nil())
        }
    }

    /// The fields as `Intent.parseUri` of Android finds them
    /// (<https://android.googlesource.com/platform/frameworks/base/+/refs/heads/main/core/java/android/content/Intent.java>).
    fn fields(intent: &str) -> Vec<(String, String)> {
        let (_, mut rest) = intent.rsplit_once('#').unwrap();
        rest = rest.strip_prefix("Intent;").unwrap();
        let mut fields = Vec::new();
        while !rest.starts_with("end") {
            let (field, after) = rest.split_once(';').unwrap();
            let (name, value) = field.split_once('=').unwrap();
            fields.push((name.to_owned(), percent_decode_str(value).decode_utf8().unwrap().into_owned()));
            rest = after;
        }
        assert_eq!(rest, "end", "{intent}");
        fields
    }

    #[test]
    fn an_intent_is_taken_as_android_reads_it_and_no_macro_chooses_the_app() {
        for good in [
            INTENT,
            "intent://scan/#Intent;scheme=zxing;package=com.google.zxing.client.android;end",
            "intent:#Intent;action=com.shop.OPEN;S.id={click_id};end",
            "intent://shop.example/#Intent;end",
            "intent://shop.example/#Intent;S.browser_fallback_url=https%3A%2F%2Fshop.example%2F%3Fs%3D{sub1};end",
            "intent://shop.example/#Intent;S.browser_fallback_url=https://shop.example/?s={sub1};end",
        ] {
            assert_eq!(parse(good).unwrap().canonical(), good);
        }
        for bad in [
            "intent://shop.example/",
            "intent://shop.example/#top",
            "intent://shop.example/#Intent;scheme=https",
            "intent://shop.example/#Intent;scheme=https;end;",
            "intent://shop.example/#Intent;scheme=httpsend",
            "intent://shop.example/#Intent;SEL;end",
            "intent://shop.example/#Intent;end;end",
            "intent://shop.example/#Intent;ending=1;end",
            "intent://shop.example/#Intent;;end",
            "intent://shop.example/#x#Intent;end",
            "intent://shop.example/#Intent;S.a=#Intent;end",
            "intent://shop.example/#Intent;{sub1};end",
            "intent://shop.example/#Intent;S.{sub1}=x;end",
            "intent://shop.example/#Intent;scheme={sub1};end",
            "intent://shop.example/#Intent;package=com.{sub1};end",
            "intent://shop.example/#Intent;component={sub1};end",
            "intent://shop.example/#Intent;S.a=1;{sub1}end",
            "intent://shop.example/#Intent;S.a=1;end{sub1}",
            "intent://shop.example/{sub1}",
            "intent://{sub1}/#Intent;end",
            "intent:{sub1}#Intent;end",
            "intent://s/#Intent;S.browser_fallback_url={sub1};end",
            "intent://s/#Intent;S.browser_fallback_url=https%3A%2F%2F{sub1};end",
            "intent://s/#Intent;S.browser_fallback_url=https%3A%2F%2Fshop.example{sub1};end",
            "intent://s/#Intent;S.browser_fallback_url=javascript%3Aalert(1);end",
            "intent://s/#Intent;S.browser_fallback_url=https%3A%2F%2Fs.example%2F%00;end",
            "intent://s/#Intent;S.browser_fallback_url=https%3A%2F%2Fa.example;S.browser_fallback_url=https%3A%2F%2Fb.example;end",
        ] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
        for (text, is_good) in [
            (INTENT, true),
            ("intent://s/#Intent;scheme=http;end", false),
            ("intent://s/#Intent;package=;end", false),
        ] {
            assert_eq!(Template::parse_for(text, &[]).is_ok(), is_good, "not listed: {text}");
        }
        assert!(
            Template::parse_stored("intent://s/#Intent;package={sub1}").is_ok(),
            "as one of 0.1.0 may be"
        );
        let refusal = parse("intent://s/#Intent;scheme={sub1};end").unwrap_err().to_string();
        assert!(refusal.contains("macros may stand in the values of its extras only"), "{refusal}");
    }

    #[test]
    fn devices_get_what_they_can_open() {
        let web = Some("https://shop.example/");
        let host = |url: &str, web: Option<&str>, os: &str| {
            let target = Target::parse_stored(url, web).unwrap();
            target.for_os(os).map(|template| template.canonical().split(':').next().unwrap().to_owned())
        };
        let app = |scheme: &str| Some(scheme.to_owned());
        for (url, opening, other) in [
            (
                "itms-apps://apps.apple.com/app/id1",
                &["iOS", "macOS"][..],
                &["Android", "Windows", "tvOS", ""][..],
            ),
            ("itms-appss://apps.apple.com/app/id1", &["iOS", "macOS"], &["Android", "Linux", ""]),
            (
                "market://details?id=com.shop&referrer={click_id}",
                &["Android"],
                &["iOS", "HarmonyOS", "ChromeOS", ""],
            ),
            (INTENT, &["Android"], &["iOS", "macOS", "Windows", ""]),
        ] {
            let scheme = url.split(':').next().unwrap();
            for os in opening {
                assert_eq!(host(url, web, os), app(scheme), "{url} {os}");
                assert_eq!(host(url, None, os), app(scheme), "{url} {os}");
            }
            for os in other {
                assert_eq!(host(url, web, os), app("https"), "{url} {os}");
                assert_eq!(host(url, None, os), None, "{url} {os}");
            }
        }
        for os in ["iOS", "Android", "macOS", "Windows", ""] {
            let is_mobile = matches!(os, "iOS" | "Android");
            let wanted = if is_mobile { "myapp" } else { "https" };
            assert_eq!(host("myapp://open/", web, os), app(wanted), "{os}");
            assert_eq!(
                host("myapp://open/", None, os),
                app("myapp"),
                "as before there were web addresses: {os}"
            );
            assert_eq!(host("mailto:a@b.example", None, os), app("mailto"), "{os}");
            assert_eq!(host("https://o.example/", None, os), app("https"), "{os}");
        }
        assert!(Target::parse_stored("myapp://open/", Some("myapp://other/")).is_err());
    }

    #[test]
    fn stores_need_no_listing_and_other_schemes_do() {
        for text in ["itms-apps://a.example/{sub1}", "market://details?id={sub1}", INTENT] {
            assert!(Template::parse_for(text, &[]).unwrap().is_app_link(), "{text}");
            assert!(Template::parse(text).is_err(), "no web address: {text}");
        }
        assert!(Template::parse_for("myapp://open/", &[]).is_err());
        assert!(!Template::parse("https://o.example/").unwrap().is_app_link());
    }

    #[test]
    fn an_intent_is_told_its_web_address() {
        let web = "https://shop.example/{sub1}?u=https%3A%2F%2Fm.example%2F%3Fs%3D{sub1}&t={{x}}";
        let target = Target::parse_stored("intent://s/#Intent;scheme=https;end", Some(web)).unwrap();
        let wanted = "intent://s/#Intent;scheme=https;S.browser_fallback_url=https%3A%2F%2Fshop.example%2F{sub1}%3Fu%3D\
            https%253A%252F%252Fm.example%252F%253Fs%253D{sub1}%26t%3D%7Bx%7D;end";
        assert_eq!(target.link().canonical(), wanted);
        assert_eq!(target.macros(), target.link().macros());
        let own = "intent://s/#Intent;S.browser_fallback_url=https%3A%2F%2Fown.example%2F;end";
        assert_eq!(Target::parse_stored(own, Some(web)).unwrap().link().canonical(), own);
        let long = format!("https://shop.example/{}", "/".repeat(super::super::TEMPLATE_BYTES_MAX / 2));
        let target = Target::parse_stored("intent://s/#Intent;end", Some(&long)).unwrap();
        assert_eq!(target.link().canonical(), "intent://s/#Intent;end");
        assert!(target.for_os("Windows").is_some());
    }

    proptest! {
        #[test]
        fn no_value_ends_an_intent_or_adds_to_it(
            sub1 in ".{0,20}|[;=#end%/&?.]{0,12}|;end|end;component=x/.Y;|%3Bend",
            sub2 in "[;=#end%/&?.]{0,12}",
            is_raw in any::<bool>(),
        ) {
            let with_raw = |text: &str| if is_raw { text.replace("{sub1}", "{sub1:raw}") } else { text.to_owned() };
            let web = with_raw("https://shop.example/?s={sub1}&n={sub2}&k=1");
            let target = Target::parse_stored(&with_raw(INTENT), Some(&web)).unwrap();
            let click = click(&sub1, &sub2);
            let values = Values::of_click(&click, "demo");
            let out = target.for_os("Android").unwrap().expand(&values, &[]);
            prop_assert!(out.bytes().all(|b| (0x21..0x7f).contains(&b)), "{}", out);
            prop_assert!(out.starts_with("intent://shop.example/p/"), "{}", out);
            if is_raw {
                let fields = out.rsplit_once('#').unwrap().1.split(';');
                let names: Vec<&str> = fields.map(|field| field.split('=').next().unwrap()).collect();
                prop_assert_eq!(names, ["Intent", "scheme", "package", "S.ref", "i.n", FALLBACK, "end"]);
            } else {
                let fields = fields(&out);
                let at_home = target.for_os("Windows").unwrap().expand(&values, &[]);
                let wanted = [
                    ("scheme", "https"), ("package", "com.shop"), ("S.ref", &sub1), ("i.n", &sub2), (FALLBACK, &at_home),
                ];
                prop_assert!(fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(wanted), "{} {:?}", out, fields);
            }
        }
    }
}
