//! Strings made up by the hundred thousand, through the same functions that a click goes through: the query parser, the
//! decision, the template, and the parser of addresses. What once broke something is kept in `tests/data/hostile.txt` and
//! tried first.
//!
//! A string is made from its number, so a failure names the number and comes again. `OCTO_PROOF=long` tries 5,000,000.

use std::{borrow::Cow, collections::BTreeSet, fmt::Write as _};

use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use url::{Url, form_urlencoded};
use uuid::Uuid;

use crate::{
    config::{Flags, Loaded},
    facts::click::Click,
    http::client,
    model::{campaign::Destination, id::ClickId, link::Params, text::LINK_VALUE_CHARS_MAX},
    routing::{
        Routes, Visit, decide,
        destination::{Template, Values},
        tests::campaign,
    },
    visitor::Visitor,
};

const CORPUS: &str = include_str!("../../../tests/data/hostile.txt");

/// Where the clicks of these tests may go.
const ORIGINS: [&str; 4] = [
    "https://page.example",
    "http://page.example:8080",
    "https://[2001:db8::1]:8443",
    "https://xn--mnchen-3ya.example",
];

/// Behind every origin: each part of a URL that a value may stand in.
const REST: &str = "/p/{sub1}/q?a={sub1}&b={sub2}&c={external_click_id}&d={aff_sub}#{sub3}";

fn corpus() -> impl Iterator<Item = String> {
    CORPUS.lines().filter(|line| !line.starts_with("# ")).map(str::to_owned)
}

/// The corpus, then strings by their numbers.
fn strings(make: impl Fn(&mut fastrand::Rng) -> String) -> impl Iterator<Item = (String, String)> {
    let is_long = std::env::var("OCTO_PROOF").is_ok_and(|proof| proof == "long");
    let count = if is_long { 5_000_000 } else { 100_000 };
    let kept = corpus().enumerate().map(|(i, text)| (format!("line {i} of the corpus"), text));
    let random =
        (0..count).map(move |seed| (format!("number {seed}"), make(&mut fastrand::Rng::with_seed(seed))));
    kept.chain(random)
}

fn query(rng: &mut fastrand::Rng) -> String {
    const NAMES: [&str; 16] = [
        "sub1",
        "sub1",
        "sub1",
        "sub2",
        "sub3",
        "click_id",
        "aff_sub",
        "landing_page_id",
        "campaign_offer_id",
        "cost",
        "cid",
        "x",
        "%73ub1",
        "su%00b2",
        "",
        "url",
    ];
    let mut out = String::new();
    for _ in 0..rng.usize(0..8) {
        out.push_str(if rng.u8(..) < 240 { "&" } else { ["&&", ";", "?", "#"][rng.usize(..4)] });
        match rng.u8(..) {
            0..200 => out.push_str(NAMES[rng.usize(..NAMES.len())]),
            _ => value(rng, &mut out),
        }
        out.push_str(if rng.u8(..) < 230 { "=" } else { "" });
        value(rng, &mut out);
    }
    out
}

fn value(rng: &mut fastrand::Rng, out: &mut String) {
    const PIECES: [&str; 20] = [
        "%",
        "%%",
        "%0",
        "%zz",
        "+",
        "%2B",
        "%00",
        "%0d%0a",
        "%c2%85",
        "{sub2}",
        "%7Bclick_id%7D",
        "{{",
        "}",
        "//evil.example",
        "..",
        "%2e%2e%2f",
        "@",
        "\u{202e}",
        "\u{1f600}",
        "1",
    ];
    let length = if rng.u8(..) < 250 { rng.usize(0..12) } else { rng.usize(0..400) };
    for _ in 0..length {
        match rng.u8(..) {
            0..70 => drop(write!(out, "%{:02x}", rng.u8(..))), // a String takes everything
            70..120 => out.push_str(PIECES[rng.usize(..PIECES.len())]),
            120..220 => out.push(char::from(rng.u8(0x20..0x7f))),
            220..240 => out.push(rng.char('\u{80}'..'\u{3000}')),
            _ => out.push(rng.char(..)),
        }
    }
}

fn routes() -> Routes {
    let destination = |(id, origin): (usize, &&str)| Destination {
        id: Some(i64::try_from(id).unwrap() + 1),
        name: (*origin).to_owned(),
        url: format!("{origin}{REST}"),
        ..Destination::default()
    };
    let pages = ORIGINS[..2].iter().enumerate().map(destination).collect();
    let offers = ORIGINS.iter().enumerate().map(destination).collect();
    let mut campaign = campaign(pages, offers);
    (campaign.terms.pass_through, campaign.terms.fallback_url) = (true, None);
    Routes::new(campaign).unwrap()
}

/// What the values of these names are by the parser of the URL standard, cleaned in one line; for a query in which nothing
/// was adjusted and no key has a tail.
fn expected<const N: usize>(query: &str, names: [&str; N]) -> [String; N] {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(query.as_bytes()).map(|(n, v)| (clean(&n), clean(&v))).collect();
    names.map(|name| pairs.iter().find(|(n, _)| n == name).map_or_else(String::new, |(_, v)| v.clone()))
}

#[test]
fn a_hundred_thousand_queries_lead_to_a_stored_origin_and_their_values_decode_back_exactly() {
    let routes = routes();
    let mut reached = BTreeSet::new();
    for (which, query) in strings(query) {
        let params = Params::parse(&query);
        let id = ClickId::now();
        let visitor = Visitor::default();
        let visit = Visit::new(&params, &visitor, id.created_at(), id.seed());
        let decision = decide(&routes, &visit);
        let click = Click::of_link(id, Uuid::nil(), params.clone());
        let values = Values::of_click(&click, "demo");
        let location = decision.template.expect("a page or an offer").expand(&values, &params.unknown);
        match origin_if_exact(&query, &params, &location) {
            Some(origin) => reached.insert(origin),
            None => panic!("{which}: {query:?} became {location:?}"),
        };
    }
    assert!(reached.iter().eq(ORIGINS.iter().collect::<BTreeSet<_>>().iter().copied()), "{reached:?}");
}

/// Whether a `?` begins a parameter: the URL standard takes it for a part of the value.
fn has_second_query(query: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.~-".contains(&b))
    };
    query.split('?').skip(1).any(|tail| tail.split_once('=').is_some_and(|(name, _)| is_name(name)))
}

/// The stored origin of a `Location`, if every part of it is what the query says.
fn origin_if_exact(query: &str, params: &Params<'_>, location: &str) -> Option<&'static str> {
    let text = |value: &Option<Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
    let [sub1, sub2, sub3] = [0, 1, 2].map(|i| text(&params.subs[i]));
    let (click_id, aff_sub) = (text(&params.click_id), text(&params.aff_subs[0]));
    let values = [&sub1, &sub2, &sub3, &click_id, &aff_sub];
    let is_simple = params.adjusted.is_empty()
        && params.cid.is_none()
        && !query.to_ascii_lowercase().contains("amp")
        && !has_second_query(query);
    if is_simple && expected(query, ["sub1", "sub2", "sub3", "click_id", "aff_sub"]).each_ref() != values {
        return None;
    }
    if values.iter().any(|value| value.chars().count() > LINK_VALUE_CHARS_MAX) {
        return None;
    }
    let decodes_to =
        |text: &str, value: &str| percent_decode_str(text).decode_utf8().is_ok_and(|t| t == value);

    let url = Url::parse(location).ok()?; // as a browser reads it
    let origin = *ORIGINS.iter().find(|o| **o == url.origin().ascii_serialization())?;
    let rest = location.strip_prefix(origin)?.strip_prefix("/p/")?;
    let (path, rest) = rest.split_once("/q?")?;
    let (_, fragment) = rest.split_once('#')?;
    let is_plain =
        location.bytes().all(|b| (0x21..0x7f).contains(&b)) && (url.username(), url.password()) == ("", None);

    let ours = [("a", sub1.as_str()), ("b", &sub2), ("c", &click_id), ("d", &aff_sub)].into_iter();
    let raw = params.unknown.join("&");
    let passed: Vec<_> = form_urlencoded::parse(raw.as_bytes()).collect();
    let passed = passed.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let pairs: Vec<_> = url.query_pairs().collect();
    let is_exact = pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).eq(ours.chain(passed));
    let is_dots = sub1.bytes().all(|b| b == b'.');
    let segment = if is_dots { "_".repeat(sub1.len()) } else { sub1.clone() };
    let is_stored_path = url.path().starts_with("/p/") && url.path().ends_with("/q");
    (is_plain && is_exact && is_stored_path && decodes_to(path, &segment) && decodes_to(fragment, &sub3))
        .then_some(origin)
}

#[test]
fn templates_are_refused_or_keep_their_origin_whatever_the_values() {
    let ends = ["", "/", "?a={sub1}", "#{sub1}", "{sub1}", "/{sub1}"];
    let make = |rng: &mut fastrand::Rng| {
        let mut text = ["https://", "http://", "HTTPS://a.example", "https:", "", "https://a.example/"]
            [rng.usize(..6)]
        .to_owned();
        value(rng, &mut text);
        text + ends[rng.usize(..ends.len())]
    };
    let mut accepted = 0;
    for (which, text) in strings(make) {
        let Ok(template) = Template::parse(&text) else { continue };
        accepted += 1;
        let canonical = template.canonical();
        assert_eq!(Template::parse(&canonical).as_ref(), Ok(&template), "{which}: {text:?}");
        let origins = ["", "/../@evil.example\\{sub1}\r\n\u{202e}"].map(|sub1| {
            let mut click = Click::new(ClickId::now(), Uuid::nil());
            click.subs[0] = Some(sub1.into());
            let location = template.expand(&Values::of_click(&click, "demo"), &[]);
            assert!(
                location.bytes().all(|b| (0x21..0x7f).contains(&b)),
                "{which}: {text:?} became {location:?}"
            );
            let url = Url::parse(&location).expect(&text);
            assert!(
                matches!(url.scheme(), "http" | "https") && url.username().is_empty(),
                "{which}: {text:?}"
            );
            url.origin().ascii_serialization()
        });
        assert_eq!(origins[0], origins[1], "{which}: {text:?}");
        assert!(canonical.starts_with(&origins[0]), "{which}: {text:?} is shown as {canonical:?}");
    }
    assert!(accepted > 5_000, "only {accepted} were templates");
}

#[test]
fn what_a_client_writes_to_the_left_of_its_address_is_never_believed() {
    let server = |header: &str| {
        let env = [
            ("OCTO_SERVER__TRUSTED_PROXIES".to_owned(), "127.0.0.0/8,10.0.0.0/8".to_owned()),
            ("OCTO_SERVER__CLIENT_IP_HEADER".to_owned(), header.to_owned()),
        ];
        Loaded::load(None, env, &Flags::default()).unwrap().config.server
    };
    let kinds =
        [("x-forwarded-for", server("X-Forwarded-For"), ""), ("forwarded", server("Forwarded"), "for=")];
    let (proxy, stranger) = ("127.0.0.1".parse().unwrap(), "203.0.113.9".parse().unwrap());
    let make = |rng: &mut fastrand::Rng| {
        const PIECES: [&str; 14] = [
            "1.2.3.4",
            "10.0.0.1",
            "::ffff:6.6.6.6",
            "[::1]:80",
            "for=",
            ",",
            ", ",
            ";",
            ":",
            "]",
            "%eth0",
            "unknown",
            "\t",
            "=",
        ];
        let mut text = String::new();
        for _ in 0..rng.usize(0..9) {
            text.push_str(PIECES[rng.usize(..PIECES.len())]);
            if rng.bool() {
                value(rng, &mut text);
            }
        }
        text
    };
    for (which, text) in strings(make) {
        for (name, server, prefix) in &kinds {
            let address = |peer, line: String| {
                let mut headers = HeaderMap::new();
                headers.insert(*name, HeaderValue::from_bytes(line.as_bytes()).ok()?);
                Some(client::address(peer, &headers, server))
            };
            // the other addresses: anything, so long as it is one and the parser comes back
            let _ = address(proxy, text.clone());
            let left = text.replace(['"', '\\'], ""); // a quotation that never ends is no list
            let written = address(proxy, format!("{left}, {prefix}198.51.100.7"));
            assert!(
                written.is_none_or(|ip| ip.to_string() == "198.51.100.7"),
                "{which}: {left:?} gave {written:?}"
            );
            let unasked = address(stranger, format!("{prefix}1.2.3.4, {text}"));
            assert!(unasked.is_none_or(|ip| ip == stranger), "{which}: {text:?} gave {unasked:?}");
        }
    }
}
