//! A visit: the query string of a link, read without ever failing.
//!
//! Decoding follows the WHATWG `application/x-www-form-urlencoded` parser
//! (<https://url.spec.whatwg.org/#urlencoded-parsing>): `&` separates, `+` is a space, a `%` without two hex
//! digits stands for itself, invalid UTF-8 becomes U+FFFD. Then control characters go and values are cut.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use super::{
    click::Click,
    money::parse_amount,
    text::{PARAMETER_CHARS_MAX, clean},
};

/// Unknown parameters kept for pass-through.
const UNKNOWN_MAX: usize = 64;

/// The parameters of a link; the first value wins on repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params<'a> {
    /// The campaign's key, as sent.
    pub cid: Option<Cow<'a, str>>,
    /// `sub1` to `sub5`.
    pub subs: [Option<Cow<'a, str>>; 5],
    /// `aff_sub`, `aff_sub2` to `aff_sub5`.
    pub aff_subs: [Option<Cow<'a, str>>; 5],
    /// `click_id`: the source's own id.
    pub click_id: Option<Cow<'a, str>>,
    /// `landing_page_id`
    pub landing_page_id: Option<Cow<'a, str>>,
    /// `campaign_offer_id`
    pub campaign_offer_id: Option<Cow<'a, str>>,
    /// `traffic_source_id`
    pub traffic_source_id: Option<Cow<'a, str>>,
    /// `cost`
    pub cost: Option<Cow<'a, str>>,
    /// `currency`
    pub currency: Option<Cow<'a, str>>,
    /// All others, in order.
    pub unknown: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Params<'a> {
    /// Reads a raw query string (without its `?`).
    pub fn parse(query: &'a str) -> Self {
        let mut params = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, usize::MAX);
            match params.slot(&name) {
                Some(slot @ None) => *slot = Some(decode(value, PARAMETER_CHARS_MAX)),
                Some(Some(_)) => {}
                None => params.keep_unknown(name, value),
            }
        }
        params
    }

    /// Puts what the link says into a click; values that are no number, amount or currency are left out.
    pub fn describe(&self, click: &mut Click<'a>) {
        let number = |text: &Option<Cow<'_, str>>| text.as_deref().and_then(|t| t.parse().ok());
        click.subs.clone_from(&self.subs);
        click.aff_subs.clone_from(&self.aff_subs);
        click.click_id_param.clone_from(&self.click_id);
        click.landing_page_id = number(&self.landing_page_id);
        click.campaign_offer_id = number(&self.campaign_offer_id);
        click.traffic_source_id.clone_from(&self.traffic_source_id);
        click.cost = self.cost.as_deref().and_then(|c| parse_amount(c).ok());
        click.currency = self.currency.as_deref().and_then(|c| c.parse().ok());
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<Cow<'a, str>>> {
        Some(match name {
            "cid" => &mut self.cid,
            "sub1" => &mut self.subs[0],
            "sub2" => &mut self.subs[1],
            "sub3" => &mut self.subs[2],
            "sub4" => &mut self.subs[3],
            "sub5" => &mut self.subs[4],
            "aff_sub" => &mut self.aff_subs[0],
            "aff_sub2" => &mut self.aff_subs[1],
            "aff_sub3" => &mut self.aff_subs[2],
            "aff_sub4" => &mut self.aff_subs[3],
            "aff_sub5" => &mut self.aff_subs[4],
            "click_id" => &mut self.click_id,
            "landing_page_id" => &mut self.landing_page_id,
            "campaign_offer_id" => &mut self.campaign_offer_id,
            "traffic_source_id" => &mut self.traffic_source_id,
            "cost" => &mut self.cost,
            "currency" => &mut self.currency,
            _ => return None,
        })
    }

    fn keep_unknown(&mut self, name: Cow<'a, str>, value: &'a str) {
        let fits = !name.is_empty() && name.len() <= PARAMETER_CHARS_MAX;
        if fits && self.unknown.len() < UNKNOWN_MAX && !self.unknown.iter().any(|(n, _)| *n == name) {
            self.unknown.push((name, decode(value, PARAMETER_CHARS_MAX)));
        }
    }
}

/// The first value of `name` in a raw query string.
pub fn query_value<'a>(query: &'a str, name: &str, chars_max: usize) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key, usize::MAX) == name).then(|| decode(value, chars_max))
    })
}

/// Decodes and cleans one name or value.
pub fn decode(raw: &str, chars_max: usize) -> Cow<'_, str> {
    let plain = |b: u8| b != b'%' && b != b'+' && (0x20..0x7f).contains(&b);
    if raw.len() <= chars_max && raw.bytes().all(plain) {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8_lossy();
    Cow::Owned(clean(&decoded, chars_max).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_parameters_find_their_place_and_the_first_wins() {
        let p = Params::parse("cid=demo&sub1=a+b&sub1=late&click_id=%41&x=1&x=2&aff_sub=z");
        assert_eq!(p.cid.as_deref(), Some("demo"));
        assert_eq!(p.subs[0].as_deref(), Some("a b"));
        assert_eq!(p.click_id.as_deref(), Some("A"));
        assert_eq!(p.aff_subs[0].as_deref(), Some("z"));
        assert_eq!(p.unknown, [("x".into(), "1".into())]);
    }

    #[test]
    fn broken_escapes_stand_for_themselves() {
        let p = Params::parse("sub1=%zz&sub2=%&sub3=%1&sub4=%ff%00x");
        assert_eq!(p.subs[0].as_deref(), Some("%zz"));
        assert_eq!(p.subs[1].as_deref(), Some("%"));
        assert_eq!(p.subs[2].as_deref(), Some("%1"));
        assert_eq!(p.subs[3].as_deref(), Some("\u{fffd}x"));
    }

    #[test]
    fn a_semicolon_does_not_separate() {
        assert_eq!(Params::parse("cid=a;sub1=b").cid.as_deref(), Some("a;sub1=b"));
    }

    #[test]
    fn six_thousand_parameters_keep_sixty_four() {
        let query = (0..6000).fold(String::new(), |query, i| query + "p" + &i.to_string() + "=1&");
        assert_eq!(Params::parse(&(query + "sub1=last")).subs[0].as_deref(), Some("last"));
    }

    proptest! {
        #[test]
        fn any_query_gives_short_clean_values(query in ".{0,600}") {
            let p = Params::parse(&query);
            for value in p.subs.iter().flatten().chain(p.unknown.iter().map(|(_, v)| v)) {
                prop_assert!(value.chars().count() <= PARAMETER_CHARS_MAX);
                prop_assert!(!value.chars().any(char::is_control));
            }
        }
    }
}
