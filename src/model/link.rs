//! A visit: the query string of a link, read without ever failing.
//!
//! Decoding follows the WHATWG `application/x-www-form-urlencoded` parser
//! (<https://url.spec.whatwg.org/#urlencoded-parsing>): `&` separates (so does `&amp;`, as HTML writes it), `+` is a
//! space, a `%` without two hex digits stands for itself, invalid UTF-8 becomes U+FFFD. Then control characters go and
//! values are cut. A macro that the source did not fill (`{campaign}`) is no value. A second `?` in a value begins the
//! next parameter: who adds `?gclid=..` to a link that has a query means `&`.
//!
//! What the campaign's traffic source calls otherwise is found by [`Params::read_as`], once the campaign is known.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use rust_decimal::Decimal;

use crate::model::{
    click::{Adjusted, Adjustment},
    money::{self, Currency, Reading},
    source::{CostUnit, Mapping, Slot as SourceSlot, Source},
    text::{LINK_VALUE_CHARS_MAX, clean_and_cut},
    unexpanded::is_unexpanded,
};

/// Unknown parameters kept for pass-through; a destination has no room for more.
const UNKNOWN_MAX: usize = 1024;

/// What links say in octo's own words, beside the key.
pub const NAMES: [&str; 16] = *PLACES.first_chunk().expect("there are more places than names");

/// Where values go: [`NAMES`], and what only a traffic source can say.
pub const PLACES: [&str; 19] = [
    "sub1",
    "sub2",
    "sub3",
    "sub4",
    "sub5",
    "aff_sub",
    "aff_sub2",
    "aff_sub3",
    "aff_sub4",
    "aff_sub5",
    "click_id",
    "landing_page_id",
    "campaign_offer_id",
    "traffic_source_id",
    "cost",
    "currency",
    "keyword",
    "creative",
    "placement",
];

/// The parameters of a link; the first value wins on repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params<'a> {
    /// The campaign's key, as sent, without a tail of parameters.
    pub cid: Option<Cow<'a, str>>,
    /// `sub1` to `sub5`.
    pub subs: [Option<Cow<'a, str>>; 5],
    /// `aff_sub`, `aff_sub2` to `aff_sub5`.
    pub aff_subs: [Option<Cow<'a, str>>; 5],
    /// `click_id`: the source's own id.
    pub click_id: Option<Cow<'a, str>>,
    /// `landing_page_id`
    pub landing_page_id: Number,
    /// `campaign_offer_id`
    pub campaign_offer_id: Number,
    /// `traffic_source_id`
    pub traffic_source_id: Option<Cow<'a, str>>,
    /// `cost`
    pub cost: Option<Cow<'a, str>>,
    /// `currency`
    pub currency: Option<Cow<'a, str>>,
    /// What the traffic source calls its keyword.
    pub keyword: Option<Cow<'a, str>>,
    /// What the traffic source calls its ad.
    pub creative: Option<Cow<'a, str>>,
    /// What the traffic source calls the place of its ad.
    pub placement: Option<Cow<'a, str>>,
    /// What the cost is the price of.
    pub cost_unit: CostUnit,
    /// The currency of the cost where the link says none, as the traffic source is known to count.
    pub source_currency: Option<Currency>,
    /// All others as they were sent, in order: `name=value`, `name`, or nothing between two `&`.
    pub unknown: Vec<Cow<'a, str>>,
    /// What of the values could not be kept as it was sent.
    pub adjusted: Adjusted,
    /// Values that were macros which the source did not fill.
    pub unexpanded: Unexpanded,
}

/// The places of [`PLACES`] whose value was a macro that the source did not fill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unexpanded(u32);

impl Unexpanded {
    /// Whose values they were.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        PLACES.into_iter().enumerate().filter(move |(i, _)| (self.0 >> i) & 1 == 1).map(|(_, place)| place)
    }

    fn insert(&mut self, place: &str) {
        if let Some(i) = PLACES.iter().position(|p| *p == place) {
            self.0 |= 1 << i;
        }
    }

    fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A number in a link, read once. Its first value counts, also where that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Number {
    /// The link does not say it.
    #[default]
    Absent,
    /// What the link says is no number.
    Unreadable,
    /// What the link says.
    Read(i64),
}

impl Number {
    /// The number, if it is one.
    pub fn get(self) -> Option<i64> {
        match self {
            Self::Read(number) => Some(number),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// What a click cost, as its link says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Not below zero.
    pub amount: Option<Decimal>,
    /// The currency of the amount, or the one that the link names without an amount.
    pub currency: Option<Currency>,
    /// What could not be kept as it was sent.
    pub adjusted: Adjusted,
}

/// Where the value of a parameter goes.
enum Slot<'s, 'a> {
    Text(&'s mut Option<Cow<'a, str>>),
    Number(&'s mut Number),
}

impl<'a> Slot<'_, 'a> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Number(number) => **number == Number::Absent,
        }
    }

    fn fill(self, value: Cow<'a, str>) {
        match self {
            Self::Text(text) => *text = Some(value),
            Self::Number(number) => *number = value.parse().map_or(Number::Unreadable, Number::Read),
        }
    }
}

impl<'a> Params<'a> {
    /// Reads a raw query string (without its `?`).
    pub fn parse(query: &'a str) -> Self {
        let mut params = Self::default();
        params.read(query);
        params
    }

    /// Reads the raw key of a path (`/c/KEY`), which a tail of parameters may follow; call it first, so that the key wins.
    pub fn read_key(&mut self, path: &'a str) {
        let (key, tail) = path.split_once('&').unwrap_or((path, ""));
        self.take_cid(key);
        self.read(tail);
    }

    /// Reads a raw query string after what was read before.
    pub fn read(&mut self, query: &'a str) {
        if query.is_empty() {
            return;
        }
        for pair in pairs(query) {
            self.take(pair);
        }
        if self.unknown.iter().all(|part| part.is_empty()) {
            self.unknown.clear();
        }
    }

    /// Finds what the campaign's traffic source calls otherwise among the parameters that are not ours. What the link
    /// says in our words wins; a parameter of the source stays among the unknown ones, and passes through as they do.
    pub fn read_as(&mut self, source: &Source) {
        for parameter in source.parameters.iter().filter(|p| p.slot == SourceSlot::Cost) {
            self.source_currency = parameter.currency;
            if parameter.name.as_str() == "cost" {
                self.cost_unit = parameter.unit.unwrap_or_default();
            }
        }
        let unknown = std::mem::take(&mut self.unknown);
        for part in &unknown {
            match part {
                Cow::Borrowed(part) => self.take_as(part, source, |value| value),
                Cow::Owned(part) => self.take_as(part, source, |value| Cow::Owned(value.into_owned())),
            }
        }
        self.unknown = unknown;
    }

    /// Takes one part between two `&`, and what a second `?` in it begins, if the source knows its name.
    fn take_as<'v>(
        &mut self,
        part: &'v str,
        source: &Source,
        own: impl Fn(Cow<'v, str>) -> Cow<'a, str> + Copy,
    ) {
        let mut next = Some(part);
        while let Some(part) = next {
            let (raw_name, value) = part.split_once('=').unwrap_or((part, ""));
            let (value, tail) = split_tail(value);
            let name = decode(raw_name, usize::MAX);
            if let Some(parameter) = source.parameters.iter().find(|p| p.name.as_str() == name) {
                self.fill_as(parameter, value, own);
            }
            next = tail;
        }
    }

    fn fill_as<'v>(
        &mut self,
        &Mapping { slot, unit, .. }: &Mapping,
        raw: &'v str,
        own: impl Fn(Cow<'v, str>) -> Cow<'a, str>,
    ) {
        let place = <&str>::from(slot);
        let text = self.source_slot(slot);
        if text.is_some() {
            return;
        }
        let (kept, adjustment) = read_value(place, raw);
        if let Some(kept) = kept {
            *text = Some(own(kept));
            if slot == SourceSlot::Cost {
                self.cost_unit = unit.unwrap_or_default();
            }
        }
        self.note(place, adjustment);
    }

    fn source_slot(&mut self, slot: SourceSlot) -> &mut Option<Cow<'a, str>> {
        match slot {
            SourceSlot::ClickId => &mut self.click_id,
            SourceSlot::Cost => &mut self.cost,
            SourceSlot::Sub1 => &mut self.subs[0],
            SourceSlot::Sub2 => &mut self.subs[1],
            SourceSlot::Sub3 => &mut self.subs[2],
            SourceSlot::Sub4 => &mut self.subs[3],
            SourceSlot::Sub5 => &mut self.subs[4],
            SourceSlot::Keyword => &mut self.keyword,
            SourceSlot::Creative => &mut self.creative,
            SourceSlot::Placement => &mut self.placement,
        }
    }

    /// The value of any parameter, decoded; the first one of that name. One that holds a macro which the source did not
    /// fill is none.
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let number = |number: Number| number.get().map(|number| Cow::Owned(number.to_string()));
        match name {
            "sub1" | "sub2" | "sub3" | "sub4" | "sub5" => {
                let nth = usize::from(name.as_bytes()[3] - b'1');
                self.subs[nth].as_deref().map(Cow::Borrowed)
            }
            "aff_sub" => self.aff_subs[0].as_deref().map(Cow::Borrowed),
            "aff_sub2" => self.aff_subs[1].as_deref().map(Cow::Borrowed),
            "aff_sub3" => self.aff_subs[2].as_deref().map(Cow::Borrowed),
            "aff_sub4" => self.aff_subs[3].as_deref().map(Cow::Borrowed),
            "aff_sub5" => self.aff_subs[4].as_deref().map(Cow::Borrowed),
            "click_id" => self.click_id.as_deref().map(Cow::Borrowed),
            "landing_page_id" => number(self.landing_page_id),
            "campaign_offer_id" => number(self.campaign_offer_id),
            "traffic_source_id" => self.traffic_source_id.as_deref().map(Cow::Borrowed),
            "cost" => self.cost.as_deref().map(Cow::Borrowed),
            "currency" => self.currency.as_deref().map(Cow::Borrowed),
            "keyword" if self.keyword.is_some() => self.keyword.as_deref().map(Cow::Borrowed),
            "creative" if self.creative.is_some() => self.creative.as_deref().map(Cow::Borrowed),
            "placement" if self.placement.is_some() => self.placement.as_deref().map(Cow::Borrowed),
            _ => self.unknown.iter().find_map(|part| {
                let (raw, value) = part.split_once('=').unwrap_or((part, ""));
                (decode(raw, usize::MAX) == name).then(|| read_value(name, value).0)?
            }),
        }
    }

    /// What the click cost, as the link says, and what of that could not be kept. The currency of the link counts, else
    /// the one beside the amount, else the source's; an amount of an unknown one is of none.
    pub fn read_cost(&self) -> Cost {
        let given = |text: &Option<Cow<'_, str>>| text.as_deref().is_some_and(|t| !t.trim().is_empty());
        let mut adjusted = Adjusted::default();
        let reading = self.cost.as_deref().and_then(money::read_amount);
        let amount = reading.map(|r| r.amount).filter(|amount| amount.is_zero() || amount.is_sign_positive());
        let amount = match self.cost_unit {
            CostUnit::Click => amount,
            CostUnit::Mille => amount.map(money::of_one_in_a_thousand),
        };
        if amount.is_none() && given(&self.cost) {
            let is_negative = reading.is_some();
            adjusted.insert(if is_negative { Adjustment::CostNegative } else { Adjustment::CostUnreadable });
        }
        let named = self.currency.as_deref().and_then(money::read_currency);
        let beside = amount.and(reading).and_then(|Reading { currency, .. }| currency);
        let mut currency = named.or(beside);
        let is_unknown = match currency {
            Some(currency) => !currency.is_known(),
            None => given(&self.currency),
        };
        if is_unknown {
            adjusted.insert(Adjustment::CurrencyUnknown);
            currency = amount.map(|_| Currency::UNKNOWN);
        }
        if currency.is_none() {
            currency = amount.and(self.source_currency);
        }
        Cost { amount, currency, adjusted }
    }

    fn slot(&mut self, name: &str) -> Option<Slot<'_, 'a>> {
        Some(Slot::Text(match name {
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
            "landing_page_id" => return Some(Slot::Number(&mut self.landing_page_id)),
            "campaign_offer_id" => return Some(Slot::Number(&mut self.campaign_offer_id)),
            "traffic_source_id" => &mut self.traffic_source_id,
            "cost" => &mut self.cost,
            "currency" => &mut self.currency,
            _ => return None,
        }))
    }

    /// Takes one part between two `&`, and what a second `?` behind the key or in a value of ours begins.
    fn take(&mut self, mut pair: &'a str) {
        loop {
            let (raw_name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(raw_name, usize::MAX);
            if name == "cid" {
                let Some((key, tail)) = value.split_once('?') else { return self.take_cid(value) };
                self.take_cid(key);
                pair = tail;
                continue;
            }
            let Some(slot) = self.slot(&name) else {
                if self.unknown.len() < UNKNOWN_MAX {
                    self.unknown.push(Cow::Borrowed(pair));
                }
                return;
            };
            let (value, tail) = split_tail(value);
            if slot.is_empty() {
                let (kept, adjustment) = read_value(&name, value);
                if let Some(kept) = kept {
                    slot.fill(kept);
                }
                self.note(&name, adjustment);
            }
            let Some(tail) = tail else { return };
            pair = tail;
        }
    }

    /// Takes the key; no key holds `?` or `&`, so behind an encoded one the parameters begin.
    fn take_cid(&mut self, raw: &'a str) {
        if self.cid.is_some() {
            return;
        }
        let mut key = decode(raw, usize::MAX);
        if key.contains('%') {
            key = Cow::Owned(decode(&key, usize::MAX).into_owned()); // no key holds it: encoded twice
        }
        let Some(at) = key.find(['?', '&']) else {
            self.cid = Some(key);
            return;
        };
        self.cid = Some(Cow::Owned(key[..at].to_owned()));
        let mut tail = Params { cid: Some(Cow::Borrowed("")), ..Params::default() };
        tail.read(&key[at + 1..]);
        self.absorb(tail);
    }

    /// Takes what another link says where nothing was said yet.
    fn absorb(&mut self, other: Params<'_>) {
        let others = [other.click_id, other.traffic_source_id, other.cost, other.currency];
        let ours = [&mut self.click_id, &mut self.traffic_source_id, &mut self.cost, &mut self.currency];
        let ours = self.subs.iter_mut().chain(&mut self.aff_subs).chain(ours);
        let others = other.subs.into_iter().chain(other.aff_subs).chain(others);
        for (ours, other) in ours.zip(others) {
            if ours.is_none() {
                *ours = other.map(|value| Cow::Owned(value.into_owned()));
            }
        }
        for (ours, other) in [
            (&mut self.landing_page_id, other.landing_page_id),
            (&mut self.campaign_offer_id, other.campaign_offer_id),
        ] {
            if *ours == Number::Absent {
                *ours = other;
            }
        }
        self.unknown.extend(other.unknown.into_iter().map(|part| Cow::Owned(part.into_owned())));
        self.adjusted.extend(other.adjusted);
        self.unexpanded.extend(other.unexpanded);
    }

    fn note(&mut self, place: &str, adjustment: Option<Adjustment>) {
        let Some(adjustment) = adjustment else { return };
        self.adjusted.insert(adjustment);
        if adjustment == Adjustment::UnexpandedMacro {
            self.unexpanded.insert(place);
        }
    }
}

/// The parts of a raw query string; `&amp;` (in any case, escaped again, or with its `;` encoded) separates like `&`.
pub fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').map(without_entity)
}

/// Takes off what is left of `&amp;` or `&#38;` when a query is split at `&`.
fn without_entity(mut part: &str) -> &str {
    while let Some(b'a' | b'A' | b'%') = part.as_bytes().first() {
        let Some(rest) = ["amp;", "amp%3b", "%2338;", "%2338%3b"].iter().find_map(|entity| {
            let (start, rest) = part.split_at_checked(entity.len())?;
            start.eq_ignore_ascii_case(entity).then_some(rest)
        }) else {
            break;
        };
        part = rest;
    }
    part
}

/// What may be a key in `cid`: without what mail, chat and print put around it. `;` does not separate, but no key
/// holds one.
pub fn key_text(cid: &str) -> &str {
    let key = cid.split(';').next().unwrap_or_default();
    let is_in_keys = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_bend = |c: char| {
        !is_in_keys(c) && (c.is_ascii() || c.is_whitespace() || c.is_control() || is_punctuation(c))
    };
    let key = key.trim_matches(is_bend);
    // `K).`: the point may be a key's, but not behind what is not
    if key.chars().all(is_in_keys) {
        key
    } else {
        key.trim_matches(|c| is_bend(c) || matches!(c, '.' | '_' | '-'))
    }
}

/// Marks that are no letters: soft hyphen, quotes, general and CJK punctuation (zero-width and directional marks among
/// it), full-width forms, the byte order mark, and what stands for bytes that are no text.
fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{a1}'..='\u{bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{fe10}'..='\u{fe6f}')
        || matches!(c, '\u{feff}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{fffd}')
}

/// A value, and what a second `?` in it begins: `?name=`, as somebody adds it who does not see that the link has a query.
/// Not in what is an address itself, which may have a query of its own.
pub fn split_tail(value: &str) -> (&str, Option<&str>) {
    let Some((head, tail)) = value.split_once('?') else { return (value, None) };
    let is_in_names = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'~' | b'-');
    let is_next =
        tail.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(is_in_names));
    if is_next && !head.contains("//") { (head, Some(tail)) } else { (value, None) }
}

/// What is kept of a value, and what could not be.
fn read_value<'a>(name: &str, raw: &'a str) -> (Option<Cow<'a, str>>, Option<Adjustment>) {
    let (value, is_cut) = decode_and_cut(raw, LINK_VALUE_CHARS_MAX);
    match (name, is_cut) {
        // an amount whose currency is not told is no dollars: that there was to be one must not be forgotten
        ("currency", _) if is_unexpanded(raw, &value) => (Some(value), Some(Adjustment::UnexpandedMacro)),
        _ if is_unexpanded(raw, &value) => (None, Some(Adjustment::UnexpandedMacro)),
        ("click_id", true) => (None, Some(Adjustment::IdTooLong)),
        (_, true) => (Some(value), Some(Adjustment::Cut)),
        (_, false) => (Some(value), None),
    }
}

/// Decodes and cleans one name or value.
pub fn decode(raw: &str, chars_max: usize) -> Cow<'_, str> {
    decode_and_cut(raw, chars_max).0
}

/// [`decode`], and whether something was cut off.
fn decode_and_cut(raw: &str, chars_max: usize) -> (Cow<'_, str>, bool) {
    let plain = |b: u8| b != b'%' && b != b'+' && (0x20..0x7f).contains(&b);
    if raw.len() <= chars_max && raw.bytes().all(plain) {
        return (Cow::Borrowed(raw), false);
    }
    let spaced = raw.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8_lossy();
    let (text, is_cut) = clean_and_cut(&decoded, chars_max);
    (Cow::Owned(text.into_owned()), is_cut)
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
        assert_eq!(p.unknown, ["x=1", "x=2"]);
    }

    #[test]
    fn an_id_is_the_first_that_the_link_says_and_none_where_that_is_no_number() {
        use Number::{Absent, Read, Unreadable};

        for (query, wanted) in [
            ("landing_page_id=7&landing_page_id=8", Read(7)),
            ("landing_page_id=%37", Read(7)),
            ("landing_page_id=-9223372036854775808", Read(i64::MIN)),
            ("landing_page_id=x&landing_page_id=8", Unreadable),
            ("landing_page_id=&landing_page_id=8", Unreadable),
            ("landing_page_id=9223372036854775808", Unreadable),
            ("landing_page_id={page}&landing_page_id=8", Read(8)),
            ("cid=K%26landing_page_id=7&landing_page_id=8", Read(7)),
            ("cid=K&campaign_offer_id=7", Absent),
        ] {
            let params = Params::parse(query);
            assert_eq!(params.landing_page_id, wanted, "{query}");
            assert_eq!(params.landing_page_id.get(), if let Read(id) = wanted { Some(id) } else { None });
        }
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
        let p = Params::parse("cid=a;sub1=b");
        assert_eq!((p.cid.as_deref().map(key_text), p.subs[0].as_deref()), (Some("a"), None));
    }

    #[test]
    fn an_ampersand_as_html_writes_it_separates() {
        for query in [
            "cid=K&amp;sub1=a&amp;click_id=x",
            "cid=K&AMP;sub1=a&Amp;click_id=x",
            "cid=K&amp;amp;sub1=a&amp;amp;click_id=x",
            "cid=K&amp%3Bsub1=a&amp%3bclick_id=x",
            "cid=K&%2338;sub1=a&%2338%3Bclick_id=x",
            "cid=K&sub1=a&amp;amp%3Bclick_id=x",
            "amp;cid=K&amp;&amp;sub1=a&amp;click_id=x&amp;",
            "cid=K%26amp%3Bsub1=a%26amp%3Bclick_id=x", // behind the key everything is a tail
            "cid=K%26sub1%3Da&click_id=x",
        ] {
            let p = Params::parse(query);
            let found = (p.cid.as_deref(), p.subs[0].as_deref(), p.click_id.as_deref());
            assert_eq!(found, (Some("K"), Some("a"), Some("x")), "{query}");
            assert!(p.unknown.is_empty(), "{query}: {:?}", p.unknown);
        }
        // in a value it is a character, and a name may begin with the letters
        let p = Params::parse("sub1=a%26amp%3Bsub2=b&amp=1&ampere=2&amp;amplitude=3&aff_sub=c");
        assert_eq!((p.subs[0].as_deref(), p.subs[1].as_deref()), (Some("a&amp;sub2=b"), None));
        assert_eq!(
            (p.unknown.join("&").as_str(), p.aff_subs[0].as_deref()),
            ("amp=1&ampere=2&amplitude=3", Some("c"))
        );
    }

    #[test]
    fn unknown_parameters_stay_as_they_were_sent() {
        for (query, wanted) in [
            ("cid=K&a=1&a=2", "a=1&a=2"),
            ("a=%B4%AE&cid=K", "a=%B4%AE"),
            ("flag&cid=K", "flag"),
            ("cid=K&a=&=b&==&?", "a=&=b&==&?"),
            ("cid=K&a=1&&b=2&", "a=1&&b=2&"),
            ("cid=K&&&", ""),
            ("a+b=c+d&cid=K&%41=%61%zz%", "a+b=c+d&%41=%61%zz%"),
            ("sub1=1&x=1&sub1=2&cid=K&cid=L&%73ub1=3&click_id=", "x=1"),
            ("cid=K&a[]=1&a[]=2&A=3&SUB1=4", "a[]=1&a[]=2&A=3&SUB1=4"),
            ("cid=K&url=https://x.example/?a=b?c#", "url=https://x.example/?a=b?c#"),
            ("cid=K?utm=1&x=%3F", "utm=1&x=%3F"),
            ("cid=K&\u{e9}={x}", "\u{e9}={x}"),
        ] {
            assert_eq!(Params::parse(query).unknown.join("&"), wanted, "{query}");
        }
    }

    #[test]
    fn a_key_is_found_in_what_mail_and_chat_make_of_it() {
        for bent in [
            "K",
            "K/",
            "K//",
            "K)",
            "K).",
            "(K)",
            "K,",
            "K!",
            "K?",
            "K\"",
            "'K'",
            "K>",
            "<K>",
            "*K*",
            "K ",
            " K",
            "K\u{a0}",
            "K\u{200b}",
            "\u{feff}K",
            "K\u{200e}",
            "K\u{2026}",
            "\u{201c}K\u{201d}",
            "\u{ab}K\u{bb}",
            "K\u{3002}",
            "K\u{ff09}",
            "K\u{ad}",
            "K\u{fffd}",
            "K;sub1=a",
            "K]",
            "K}",
            "K|",
            "K\\",
            "K:",
            "K.)",
            "K,.)-",
        ] {
            // the point of `K.)` may be the key's: the cache looks for both
            assert_eq!(key_text(bent).trim_end_matches('.'), "K", "{bent:?}");
        }
        for (same, key) in [
            ("K.", "K."),
            ("-K-", "-K-"),
            ("a b", "a b"),
            ("a/b", "a/b"),
            ("K\u{e9}", "K\u{e9}"),
            ("", ""),
            ("/", ""),
        ] {
            assert_eq!(key_text(same), key, "{same:?}");
        }
    }

    #[test]
    fn what_follows_a_key_behind_a_second_question_mark_is_kept() {
        for query in [
            "cid=K?sub1=a&sub2=b",
            "cid=K?sub1=a?sub2=b&sub2=b",
            "cid=K%3Fsub1=a&sub2=b",
            "cid=K%3Fsub1%3Da%26sub2%3Db",
            "cid=K%253Fsub1%253Da&sub2=b",
            "cid=K?&amp;sub1=a&sub2=b",
            "cid=K?cid=L?sub1=a&sub2=b",
            "cid=K%3Fcid%3DL%26sub1=a&sub2=b",
            "sub2=b&cid=K?sub2=c?x&sub1=a",
        ] {
            let p = Params::parse(query);
            let subs = (p.subs[0].as_deref().map(|s| &s[..1]), p.subs[1].as_deref());
            assert_eq!((p.cid.as_deref(), subs), (Some("K"), (Some("a"), Some("b"))), "{query}");
        }
        let mut p = Params::default();
        p.read_key("K&amp;sub1=a%26b&x=1");
        p.read("sub1=late&cid=L&sub2=b");
        assert_eq!(
            (p.cid.as_deref(), p.subs[0].as_deref(), p.subs[1].as_deref()),
            (Some("K"), Some("a&b"), Some("b"))
        );
        assert_eq!(p.unknown, ["x=1"]);
        let mut p = Params::default();
        p.read_key("K%3Fsub1=a%26x=1");
        assert_eq!(
            (p.cid.as_deref(), p.subs[0].as_deref(), &p.unknown[..]),
            (Some("K"), Some("a"), &["x=1".into()][..])
        );
        let deep = format!("cid={}", "K?cid=".repeat(10_000)) + &format!("&cid={}", "%3Fcid=".repeat(5_000));
        assert_eq!(Params::parse(&deep).cid.as_deref(), Some("K"));
    }

    #[test]
    fn a_macro_that_was_not_filled_is_no_value() {
        for raw in [
            "{sub1}",
            "%7Bsub1%7D",
            "{{ad.id}}",
            "%7B%7Bad.id%7D%7D",
            "[CLICKID]",
            "[[x]]",
            "[[[subid]]]",
            "%campaign%",
            "%25campaign%25",
            "__CAMPAIGN_ID__",
            "##CLICK_ID##",
            "%23%23CLICK_ID%23%23",
            "%23tid%23",
            "${CLICK_ID}",
            "$%7Bx%7D",
            "{keyword:default}",
            "{_campaignid}",
            "{{ campaign name }}",
            "{Site+Name}",
            "%257Bsub1%257D",
            "%2525campaign%2525",
            "%23%23SUB_ID_SHORT(action)%23%23",
        ] {
            let query = format!("sub1={raw}&click_id={raw}&sub2=kept");
            let p = Params::parse(&query);
            assert_eq!((&p.subs[0], &p.click_id), (&None, &None), "{raw}");
            assert!(p.unexpanded.iter().eq(["sub1", "click_id"]), "{raw}");
            assert!(p.adjusted.iter().eq([Adjustment::UnexpandedMacro]), "{raw}");
            assert_eq!(p.subs[1].as_deref(), Some("kept"));
        }
        for raw in [
            "a{sub1}",
            "{sub1}{sub2}",
            "{}",
            "[1]",
            "{\"a\":1}",
            "%",
            "%%",
            "__",
            "____",
            "#",
            "##",
            "#1",
            "$5",
            "$",
            "_x_",
            "[a,b]",
            "{a}b",
            "{sub",
            "100%",
            "__init__",
            "100%25_off%25",
            "{1}",
            "__x",
        ] {
            let query = format!("sub1={raw}");
            let p = Params::parse(&query);
            assert!(
                p.subs[0].is_some() && p.unexpanded == Unexpanded::default() && p.adjusted.is_empty(),
                "{raw}"
            );
        }
        assert_eq!(Params::parse("sub1={x}&sub1=real").subs[0].as_deref(), Some("real"));
    }

    #[test]
    fn values_are_cut_and_ids_are_whole_or_absent() {
        let is = |query: &str, wanted: &[Adjustment]| {
            Params::parse(query).adjusted.iter().eq(wanted.iter().copied())
        };
        for (unit, chars) in
            [("a", 1024), ("%C3%A9", 1024), ("\u{e9}", 1024), ("+", 1024), ("%F0%9F%98%80", 1024)]
        {
            let (whole, long) = (unit.repeat(chars), unit.repeat(chars + 1));
            let query = format!("sub1={whole}&click_id={whole}");
            let p = Params::parse(&query);
            let lengths = [&p.subs[0], &p.click_id].map(|v| v.as_deref().map(|v| v.chars().count()));
            assert_eq!((lengths, p.adjusted.is_empty()), ([Some(1024); 2], true), "{unit}");
            let query = format!("sub1={long}&click_id={long}");
            let p = Params::parse(&query);
            let lengths = [&p.subs[0], &p.click_id].map(|v| v.as_deref().map(|v| v.chars().count()));
            assert_eq!(lengths, [Some(1024), None], "{unit}");
            assert!(is(&query, &[Adjustment::Cut, Adjustment::IdTooLong]), "{unit}");
        }
        assert!(is(&format!("sub1=a{}", "%00".repeat(5000)), &[]));
        assert!(is(&format!("x={}", "a".repeat(5000)), &[]));
    }

    #[test]
    fn costs_and_currencies_are_read_or_flagged() {
        use Adjustment::{CostNegative, CostUnreadable, CurrencyUnknown, UnexpandedMacro};
        for (query, wanted, adjusted) in [
            ("", "none none", &[][..]),
            ("cost=0.0125&currency=usd", "0.0125 USD", &[]),
            ("cost=0,05", "0.05 none", &[]),
            ("cost=$0.05", "0.05 USD", &[]),
            ("cost=5.0E-5&currency=EUR", "0.00005 EUR", &[]),
            ("cost=+0.5", "0.5 none", &[]),
            ("cost=1,234.56&currency=%24", "1234.56 USD", &[]),
            ("cost=%E2%82%AC0,30", "0.3 EUR", &[]),
            ("cost=%E2%82%AC0,30&currency=PLN", "0.3 PLN", &[]),
            ("cost=0", "0 none", &[]),
            ("cost=", "none none", &[]),
            ("cost=&currency=", "none none", &[]),
            ("currency=EUR", "none EUR", &[]),
            ("cost=0.05&currency=USDT", "0.05 XXX", &[CurrencyUnknown]),
            ("cost=0.05USDT", "0.05 XXX", &[CurrencyUnknown]),
            ("cost=0.05&currency=BTC", "0.05 XXX", &[CurrencyUnknown]),
            ("cost=0.05+EUR&currency=BTC", "0.05 EUR", &[]),
            ("cost=0.05&currency={currency}", "0.05 XXX", &[UnexpandedMacro, CurrencyUnknown]),
            ("cost=%C2%A5100", "100 XXX", &[CurrencyUnknown]),
            ("cost={cost}&currency=USD", "none USD", &[UnexpandedMacro]),
            ("cost=free&currency=USD", "none USD", &[CostUnreadable]),
            ("cost=-1&currency=USD", "none USD", &[CostNegative]),
            ("cost=-0", "0 none", &[]),
            ("cost=NaN&currency=dollars", "none none", &[CostUnreadable, CurrencyUnknown]),
        ] {
            let params = Params::parse(query);
            let cost = params.read_cost();
            let amount = cost.amount.map_or("none".to_owned(), |a| a.normalize().to_string());
            let currency = cost.currency.map_or("none".to_owned(), |c| c.to_string());
            assert_eq!(format!("{amount} {currency}"), wanted, "{query}");
            let mut all = params.adjusted;
            all.extend(cost.adjusted);
            assert!(all.iter().eq(adjusted.iter().copied()), "{query}: {all:?}");
        }
    }

    fn source(parameters: &str) -> Source {
        Source { id: 1, name: "s".to_owned(), parameters: serde_json::from_str(parameters).unwrap() }
    }

    fn read_as<'a>(query: &'a str, source: &Source) -> Params<'a> {
        let mut params = Params::parse(query);
        params.read_as(source);
        params
    }

    #[test]
    fn what_a_source_calls_otherwise_goes_where_it_says() {
        let ads = source(
            r#"[{"name":"visitor","macro":"${SUBID}","slot":"click_id"},{"name":"zone","macro":"{zone}","slot":"placement"},
                {"name":"q","macro":null,"slot":"keyword"},{"name":"ad","macro":null,"slot":"creative"},
                {"name":"camp","macro":"{camp}","slot":"sub1"},{"name":"bid","macro":"{bid}","slot":"cost"}]"#,
        );
        let p = read_as("cid=K&visitor=v%31&zone=z&q=red+shoes&ad=7&camp=c&bid=0.5&x=1&zone=late", &ads);
        assert_eq!((p.click_id.as_deref(), p.placement.as_deref()), (Some("v1"), Some("z")));
        assert_eq!((p.keyword.as_deref(), p.creative.as_deref()), (Some("red shoes"), Some("7")));
        assert_eq!((p.subs[0].as_deref(), p.cost.as_deref()), (Some("c"), Some("0.5")));
        assert_eq!(p.unknown.len(), 8, "they pass through as before: {:?}", p.unknown);
        // ours wins, a macro is none, and the next one counts
        let p =
            read_as("cid=K&sub1=ours&camp=theirs&zone=%7Bzone%7D&bid=[BID]&zone=z&visitor=${SUBID}", &ads);
        assert_eq!((p.subs[0].as_deref(), p.placement.as_deref(), &p.cost), (Some("ours"), Some("z"), &None));
        assert!(p.unexpanded.iter().eq(["click_id", "cost", "placement"]));
        let p = read_as("cid=K&sub1={sub1}&camp=theirs&Zone=z", &ads);
        assert_eq!((p.subs[0].as_deref(), &p.placement), (Some("theirs"), &None));
        // also behind a key that was encoded with its parameters
        let p = read_as("cid=K%3Fvisitor=v%26zone=z", &ads);
        assert_eq!((p.click_id.as_deref(), p.placement.as_deref()), (Some("v"), Some("z")));
        let long = "v".repeat(1025);
        let query = format!("cid=K&visitor={long}&zone={long}");
        let p = read_as(&query, &ads);
        assert_eq!((&p.click_id, p.placement.map(|z| z.len())), (&None, Some(1024)));
        assert!(p.adjusted.iter().eq([Adjustment::Cut, Adjustment::IdTooLong]));
    }

    #[test]
    fn the_cost_of_a_source_has_its_unit_and_its_currency() {
        let bid =
            |more: &str| source(&format!(r#"[{{"name":"bid","macro":"{{bid}}","slot":"cost"{more}}}]"#));
        let (plain, mille) = (bid(r#","currency":"EUR""#), bid(r#","unit":"mille","currency":"EUR""#));
        let own =
            source(r#"[{"name":"cost","macro":"[CPM]","slot":"cost","unit":"mille","currency":"EUR"}]"#);
        for (source, query, wanted) in [
            (&plain, "bid=0.05", "0.05 EUR"),
            (&plain, "bid=0.05&currency=PLN", "0.05 PLN"),
            (&plain, "bid=$0.05", "0.05 USD"),
            (&plain, "bid=0.05&currency={cur}", "0.05 XXX"),
            (&plain, "bid=", "none none"),
            (&plain, "x=1", "none none"),
            (&plain, "cost=0.07&bid=0.05", "0.07 EUR"),
            (&bid(""), "bid=0.05", "0.05 none"),
            (&mille, "bid=1.5", "0.0015 EUR"),
            (&mille, "bid=0.0004", "0 EUR"),
            (&mille, "bid=0.0005", "0.000001 EUR"),
            (&mille, "cost=0.07&bid=1.5", "0.07 EUR"),
            (&mille, "bid=-1", "none none"),
            (&own, "cost=2", "0.002 EUR"),
        ] {
            let Cost { amount, currency, .. } = read_as(query, source).read_cost();
            let amount = amount.map_or("none".to_owned(), |a| a.normalize().to_string());
            let currency = currency.map_or("none".to_owned(), |c| c.to_string());
            assert_eq!(format!("{amount} {currency}"), wanted, "{query}");
        }
    }

    #[test]
    fn a_second_question_mark_begins_the_next_parameter() {
        let google = source(r#"[{"name":"gclid","macro":null,"slot":"click_id"}]"#);
        let p = read_as("cid=K&sub1=a?gclid=x1&sub2=b", &google);
        assert_eq!((p.subs[0].as_deref(), p.click_id.as_deref()), (Some("a"), Some("x1")));
        assert_eq!((p.subs[1].as_deref(), p.unknown.join("&").as_str()), (Some("b"), "gclid=x1"));
        let p = read_as("cid=K&x=1?gclid=x1", &google);
        assert_eq!((p.click_id.as_deref(), p.unknown.join("&").as_str()), (Some("x1"), "x=1?gclid=x1"));
        for kept in ["a?", "a?b", "?", "why?=1", "a?b c=d", "https://x.example/?a=b", "//x.example/?a=b"] {
            let query = format!("cid=K&sub1={kept}");
            assert_eq!(Params::parse(&query).subs[0].as_deref(), Some(kept));
        }
        assert_eq!(Params::parse("cid=K&sub1=a%3Fsub2=b").subs[0].as_deref(), Some("a?sub2=b"));
        let deep = format!("cid=K&sub1={}", "a?sub1=".repeat(10_000));
        assert_eq!(Params::parse(&deep).subs[0].as_deref(), Some("a"));
    }

    #[test]
    fn ten_thousand_parameters_are_bounded_and_the_last_one_counts() {
        let query =
            (0..10_000).fold(String::new(), |query, i| query + "p" + &i.to_string() + "=1&") + "sub1=last";
        let params = Params::parse(&query);
        assert_eq!((params.subs[0].as_deref(), params.unknown.len()), (Some("last"), UNKNOWN_MAX));
    }

    proptest! {
        #[test]
        fn any_query_gives_short_clean_values(query in ".{0,600}") {
            let p = Params::parse(&query);
            for value in p.subs.iter().flatten() {
                prop_assert!(value.chars().count() <= LINK_VALUE_CHARS_MAX);
                prop_assert!(!value.chars().any(char::is_control));
            }
        }

        #[test]
        fn what_is_not_ours_passes_through_byte_for_byte(
            parts in proptest::collection::vec("[b-z%+=?;:@/.0-9]{1,12}", 0..12),
            at in 0usize..12,
        ) {
            let ours = |part: &str| ["cid", "cost", "currency"].contains(&decode(part.split('=').next().unwrap(), 99).as_ref());
            let mut parts: Vec<String> = parts.into_iter().filter(|p| !ours(p)).collect();
            let wanted = parts.join("&");
            parts.insert(at.min(parts.len()), "cid=K".to_owned());
            prop_assert_eq!(Params::parse(&parts.join("&")).unknown.join("&"), wanted);
        }
    }
}
