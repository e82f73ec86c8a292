//! What macros stand for. The click is in hand where a link was clicked; where a landing page leads to an offer it is
//! not: there its token brings along what the offers' destinations need of it.
//!
//! ```
//! use octo::{
//!     facts::click::Click,
//!     model::id::{ClickId, new_uuid},
//!     routing::destination::{Carried, Template, Texts, Values},
//! };
//!
//! let offer = Template::parse("https://offer.example/?c={click_id}&s={sub1}&o={offer_id}").unwrap();
//! let mut click = Click::new(ClickId::now(), new_uuid());
//! click.subs[0] = Some("ad 7".into());
//!
//! // at the click: what the offers of the path ask for is sealed into the token, at most 1,000 bytes of it
//! let texts = Texts::collect(&Values::of_click(&click, "demo"), offer.macros(), 1_000);
//! let mut sealed = Vec::new();
//! texts.encode(&mut sealed);
//!
//! // at the out-click, perhaps on another node: the token is opened and an offer is chosen
//! let carried = Carried {
//!     click_id: Some(click.id),
//!     campaign_id: click.campaign_id,
//!     landing_page_id: None,
//!     offer_id: Some(7),
//!     texts: Texts::decode(&sealed).unwrap(),
//! };
//! let values = Values { leg_offer: Some(7), ..Values::of_carried(&carried, "demo") };
//! let id = click.id;
//! assert_eq!(offer.expand(&values, &[]), format!("https://offer.example/?c={id}.7&s=ad%207&o=7"));
//! ```

use std::{borrow::Cow, fmt::Write as _};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::macros::{Argument, Macro, MacroSet};
use crate::{facts::click::Click, model::id::ClickId};

/// What macros stand for in one click or out-click.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The click, or what is known of it.
    pub click: Known<'a>,
    /// The campaign's key.
    pub cid: &'a str,
    /// What the owner calls things.
    pub names: Names<'a>,
    /// What a conversion pays: the offer's amount, else the campaign's.
    pub payout: Option<Decimal>,
    /// The offer, where its path has several: `{click_id}` is then `<click id>.<offer id>`, so that a conversion says
    /// which of them it is of.
    pub leg_offer: Option<i64>,
    /// The sealed token of the click, in base64url without padding; empty where there is none.
    pub token: &'a str,
    /// Where out-links begin: `{public_url}/out`.
    pub out_base: &'a str,
}

/// A click, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// The whole click.
    Click(&'a Click<'a>),
    /// What a token carried of it.
    Carried(&'a Carried<'a>),
}

/// What is known of a click at an out-click.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried<'a> {
    /// `None`: a visitor without a click.
    pub click_id: Option<ClickId>,
    /// The campaign.
    pub campaign_id: Uuid,
    /// The landing page that the visitor comes from.
    pub landing_page_id: Option<i64>,
    /// The offer that the visitor goes to.
    pub offer_id: Option<i64>,
    /// What else the offer's destination asks for.
    pub texts: Texts<'a>,
}

/// What the owner of a campaign calls things; empty where there is no such thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names<'a> {
    /// The campaign.
    pub campaign: &'a str,
    /// The traffic source of the campaign.
    pub source: &'a str,
    /// The landing page.
    pub lander: &'a str,
    /// The offer.
    pub offer: &'a str,
    /// The rule that took the click.
    pub rule: Named<'a>,
    /// The path that it took.
    pub path: Named<'a>,
}

/// A rule or a path, which need no name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Named<'a> {
    /// `None`: there is none.
    pub id: Option<i64>,
    /// Empty: it has none, and its id is shown instead.
    pub name: &'a str,
}

/// The value of one macro, before it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Any text; empty: there is none.
    Text(Cow<'a, str>),
    /// A number, a UUID: needs no encoding and is never missing.
    Plain(Plain),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Id { id: ClickId, leg: Option<i64> },
    ShortId { id: ClickId, leg: Option<i64> },
    Uuid(Uuid),
    Number(i64),
}

impl<'a> Values<'a> {
    /// The values of a click that is in hand, as far as it and its campaign's key say.
    pub fn of_click(click: &'a Click<'a>, cid: &'a str) -> Self {
        Self::of(Known::Click(click), cid)
    }

    /// The values of a click that a token carries.
    pub fn of_carried(carried: &'a Carried<'a>, cid: &'a str) -> Self {
        Self::of(Known::Carried(carried), cid)
    }

    /// The values of a click, as far as it is known.
    pub fn of(click: Known<'a>, cid: &'a str) -> Self {
        let names = Names::default();
        Self { click, cid, names, payout: None, leg_offer: None, token: "", out_base: "" }
    }

    /// What a macro stands for.
    pub(super) fn value(&self, m: Macro, argument: &Argument) -> Value<'a> {
        let leg = self.leg_offer;
        match m {
            Macro::ClickId if *argument == Argument::Short => {
                self.click.id().map_or(Value::NONE, |id| Value::Plain(Plain::ShortId { id, leg }))
            }
            Macro::ClickId => self.click.id().map_or(Value::NONE, |id| Value::Plain(Plain::Id { id, leg })),
            Macro::Cid => Value::text(self.cid),
            Macro::CampaignId => Value::Plain(Plain::Uuid(self.click.campaign_id())),
            Macro::CampaignName => Value::text(self.names.campaign),
            Macro::OfferId => Value::number(self.click.offer_id()),
            Macro::OfferName => Value::text(self.names.offer),
            Macro::LandingPageId => Value::number(self.click.landing_page_id()),
            Macro::LanderName => Value::text(self.names.lander),
            Macro::SourceName => Value::text(self.names.source),
            Macro::Rule => self.names.rule.value(),
            Macro::Path => self.names.path.value(),
            Macro::Payout => Value::amount(self.payout),
            Macro::Timestamp => Value::number(self.click.at().map(|at| at.timestamp())),
            Macro::Random => {
                let random = |id: ClickId| i64::try_from(id.seed() >> 32).unwrap_or(i64::MAX);
                Value::number(self.click.id().map(random))
            }
            Macro::Date => {
                let date = |at: DateTime<Utc>| at.format(argument.format()).to_string();
                Value::Text(self.click.at().map(date).unwrap_or_default().into())
            }
            Macro::OutUrl => Value::Text(self.out_url(argument).into()),
            Macro::ClickToken => Value::text(self.token),
            of_the_click => match self.click {
                Known::Click(click) => Value::Text(of_click(click, of_the_click)),
                Known::Carried(carried) => Value::text(carried.texts.get(of_the_click)),
            },
        }
    }

    fn out_url(&self, argument: &Argument) -> String {
        let mut url = self.out_base.to_owned();
        if let Argument::Position(n) = argument {
            let _ = write!(url, "/{n}"); // writing to a String does not fail
        }
        if !self.token.is_empty() {
            url.push_str("?k=");
            url.push_str(self.token);
        }
        url
    }
}

impl Known<'_> {
    fn id(&self) -> Option<ClickId> {
        match self {
            Self::Click(click) => Some(click.id),
            Self::Carried(carried) => carried.click_id,
        }
    }

    fn at(&self) -> Option<DateTime<Utc>> {
        self.id().map(ClickId::created_at)
    }

    fn campaign_id(&self) -> Uuid {
        match self {
            Self::Click(click) => click.campaign_id,
            Self::Carried(carried) => carried.campaign_id,
        }
    }

    fn landing_page_id(&self) -> Option<i64> {
        match self {
            Self::Click(click) => click.landing_page_id,
            Self::Carried(carried) => carried.landing_page_id,
        }
    }

    fn offer_id(&self) -> Option<i64> {
        match self {
            Self::Click(click) => click.campaign_offer_id,
            Self::Carried(carried) => carried.offer_id,
        }
    }
}

/// The text of a macro of [`MacroSet::OF_THE_CLICK`]; of any other it is empty.
fn of_click<'a>(click: &'a Click<'a>, m: Macro) -> Cow<'a, str> {
    let text = match m {
        Macro::Ip => return click.ip.map(|ip| ip.to_string()).unwrap_or_default().into(),
        Macro::Cost => return plain_amount(click.cost).into(),
        Macro::TrafficSourceId => &click.traffic_source_id,
        Macro::Sub1 => &click.subs[0],
        Macro::Sub2 => &click.subs[1],
        Macro::Sub3 => &click.subs[2],
        Macro::Sub4 => &click.subs[3],
        Macro::Sub5 => &click.subs[4],
        Macro::AffSub => &click.aff_subs[0],
        Macro::AffSub2 => &click.aff_subs[1],
        Macro::AffSub3 => &click.aff_subs[2],
        Macro::AffSub4 => &click.aff_subs[3],
        Macro::AffSub5 => &click.aff_subs[4],
        Macro::ExternalClickId => &click.click_id_param,
        Macro::Keyword => &click.keyword,
        Macro::Creative => &click.creative,
        Macro::Placement => &click.placement,
        Macro::Country => &click.country,
        Macro::Region => &click.region,
        Macro::City => &click.city,
        Macro::Language => &click.language,
        Macro::Isp => &click.isp,
        Macro::Device => &click.device,
        Macro::Os => &click.os,
        Macro::Browser => &click.browser,
        Macro::UserAgent => &click.user_agent,
        Macro::Referrer => &click.referrer,
        _ => &None,
    };
    text.as_deref().unwrap_or_default().into()
}

/// Without zeros at the end: the same amount is the same text, wherever it was read.
fn plain_amount(amount: Option<Decimal>) -> String {
    amount.map(|amount| amount.normalize().to_string()).unwrap_or_default()
}

impl<'a> Named<'a> {
    fn value(self) -> Value<'a> {
        if self.name.is_empty() { Value::number(self.id) } else { Value::text(self.name) }
    }
}

impl<'a> Value<'a> {
    const NONE: Self = Self::Text(Cow::Borrowed(""));

    fn text(text: &'a str) -> Self {
        Self::Text(text.into())
    }

    fn number(number: Option<i64>) -> Self {
        number.map_or(Self::NONE, |number| Self::Plain(Plain::Number(number)))
    }

    fn amount(amount: Option<Decimal>) -> Self {
        Self::Text(plain_amount(amount).into())
    }
}

impl Plain {
    /// Appends it; it holds unreserved characters only.
    pub(super) fn append(self, out: &mut String) {
        let mut uuid = Uuid::encode_buffer();
        let leg = match self {
            Self::Id { id, leg } => {
                out.push_str(id.uuid().hyphenated().encode_lower(&mut uuid));
                leg
            }
            Self::ShortId { id, leg } => {
                out.push_str(&id.short());
                leg
            }
            Self::Uuid(id) => {
                out.push_str(id.hyphenated().encode_lower(&mut uuid));
                None
            }
            Self::Number(number) => {
                let _ = write!(out, "{number}"); // writing to a String does not fail
                None
            }
        };
        if let Some(leg) = leg {
            let _ = write!(out, ".{leg}");
        }
    }
}

/// Values of macros as a token carries them: some macros and their texts, none of them empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts<'a>(Vec<(Macro, Cow<'a, str>)>);

impl<'a> Texts<'a> {
    /// Bytes of a value's number and length.
    const HEAD: usize = 3;

    /// The values of those of `macros` that only the click knows, in at most `bytes_max` bytes as [`Self::encode`]
    /// writes them. Where they are longer, the longest one is cut first, and the source's id of the click, which is
    /// whole or absent, is kept before all others.
    pub fn collect(values: &Values<'a>, macros: MacroSet, bytes_max: usize) -> Self {
        let wanted = (macros & MacroSet::OF_THE_CLICK).iter();
        let text = |m| match values.value(m, &Argument::None) {
            Value::Text(text) => text,
            Value::Plain(_) => Cow::Borrowed(""),
        };
        let mut texts: Vec<_> = wanted.map(|m| (m, text(m))).filter(|(_, text)| !text.is_empty()).collect();
        let bytes = |texts: &[(Macro, Cow<'_, str>)]| -> usize {
            texts.iter().map(|(_, text)| text.len() + Self::HEAD).sum()
        };
        if bytes(&texts) > bytes_max {
            texts.sort_by_key(|(m, text)| (*m != Macro::ExternalClickId, text.len()));
            let mut left = bytes_max;
            texts.retain_mut(|(m, text)| {
                let room = left.saturating_sub(Self::HEAD);
                if text.len() > room {
                    let kept = if *m == Macro::ExternalClickId { 0 } else { text.floor_char_boundary(room) };
                    *text = text[..kept].to_owned().into();
                }
                if text.is_empty() {
                    return false;
                }
                left -= text.len() + Self::HEAD;
                true
            });
            texts.sort_by_key(|(m, _)| *m as u8);
        }
        Self(texts)
    }

    /// The value of a macro; empty where there is none.
    pub fn get(&self, m: Macro) -> &str {
        self.0.iter().find(|(of, _)| *of == m).map_or("", |(_, text)| text)
    }

    /// These, and in their place what `other` has of `macros`.
    #[must_use]
    pub fn with(mut self, other: &Self, macros: MacroSet) -> Self {
        for (m, text) in other.0.iter().filter(|(m, _)| macros.contains(*m)) {
            self.0.retain(|(of, _)| of != m);
            self.0.push((*m, text.clone()));
        }
        self
    }

    /// Appends them to what is sealed, each as `number u8 | length u16 (big-endian) | UTF-8`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (m, text) in &self.0 {
            let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
            out.push(*m as u8);
            out.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
            out.extend(text.as_bytes());
        }
    }

    /// Reads what [`Self::encode`] wrote; macros of a later release are left out. `None`: it is cut or no UTF-8.
    pub fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let mut texts = Vec::new();
        while let Some((&[number, high, low], rest)) = bytes.split_first_chunk() {
            let (text, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            let text = std::str::from_utf8(text).ok()?;
            texts.extend(Macro::from_number(number).map(|m| (m, Cow::Borrowed(text))));
            bytes = rest;
        }
        bytes.is_empty().then_some(Self(texts))
    }

    /// Detaches them from the bytes that they were read from.
    pub fn into_owned(self) -> Texts<'static> {
        Texts(self.0.into_iter().map(|(m, text)| (m, text.into_owned().into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::{super::Template, *};

    const ID: &str = "019aaf3c-5f00-7abc-8def-0123456789ab"; // 2025-11-23, 05:42:40 UTC

    fn click() -> Click<'static> {
        Click {
            campaign_offer_id: Some(7),
            landing_page_id: Some(3),
            ..Click::new(ID.parse().unwrap(), Uuid::nil())
        }
    }

    fn values<'a>(click: &'a Click<'a>) -> Values<'a> {
        let names = Names {
            campaign: "Summer sale",
            source: "A&B",
            lander: "L",
            offer: "O",
            rule: Named { id: Some(5), name: "Germans" },
            path: Named { id: Some(9), name: "" },
        };
        let payout = Some(Decimal::new(15000, 4));
        Values {
            names,
            payout,
            token: "abc-_",
            out_base: "https://t.example/out",
            ..Values::of_click(click, "demo")
        }
    }

    fn expand(query: &str, values: &Values<'_>) -> String {
        let template = Template::parse(&format!("https://o.example/?{query}")).unwrap();
        template.expand(values, &[]).strip_prefix("https://o.example/?").unwrap().to_owned()
    }

    #[test]
    fn every_new_macro_has_its_value() {
        let mut click = click();
        click.cost = Some(Decimal::new(12_500, 6));
        click.subs[0] = Some("a%20b".into());
        let places = [&mut click.region, &mut click.city, &mut click.language, &mut click.isp];
        for (place, text) in places.into_iter().zip(["BY", "M\u{fc}nchen", "de", "A&B"]) {
            *place = Some(text.into());
        }
        let ad = [&mut click.keyword, &mut click.creative, &mut click.placement];
        for (part, text) in ad.into_iter().zip(["cheap flights", "c1", "p1"]) {
            *part = Some(text.into());
        }
        let values = values(&click);
        for (query, wanted) in [
            ("{campaign_name}", "Summer%20sale"),
            ("{source_name}", "A%26B"),
            ("{lander_name}-{offer_name}", "L-O"),
            ("{rule}-{path}", "Germans-9"),
            ("{region}-{city}-{language}-{isp}", "BY-M%C3%BCnchen-de-A%26B"),
            ("{keyword}-{creative}-{placement}", "cheap%20flights-c1-p1"),
            ("{cost}", "0.0125"),
            ("{payout}", "1.5"),
            ("{date}", "2025-11-23"),
            ("{date:%d.%m.%y_%H:%M:%S}", "23.11.25_05%3A42%3A40"),
            ("{date:%j-%s-%%}", "327-1763876560-%25"),
            ("{out_url}", "https%3A%2F%2Ft.example%2Fout%3Fk%3Dabc-_"),
            ("{out_url:2}", "https%3A%2F%2Ft.example%2Fout%2F2%3Fk%3Dabc-_"),
            ("{click_token}", "abc-_"),
            ("{sub1}", "a%2520b"),
            ("{sub1:raw}", "a%20b"),
            ("{sub2|none}", "none"),
            ("{sub2|a b}".replace(' ', "&").as_str(), "a%26b"),
            ("{sub2:raw|a%20b}", "a%20b"),
            ("{sub1|none}", "a%2520b"),
            ("u=https%3A%2F%2Fs%2F%3Fr%3D{sub1:raw}", "u=https%3A%2F%2Fs%2F%3Fr%3Da%2520b"),
            ("u=https%3A%2F%2Fs%2F%3Fr%3D{sub2|a&b}", "u=https%3A%2F%2Fs%2F%3Fr%3Da%2526b"),
        ] {
            assert_eq!(expand(query, &values), wanted, "{query}");
        }
    }

    #[test]
    fn what_there_is_not_is_empty_or_its_default() {
        let carried = Carried::default();
        let values = Values::of_carried(&carried, "demo");
        let derived = [Macro::Cid, Macro::CampaignId];
        for m in Macro::ALL.iter().filter(|m| !derived.contains(m)) {
            let name = m.name();
            assert_eq!(expand(&format!("a={{{name}}}&b={{{name}|none}}"), &values), "a=&b=none", "{name}");
        }
    }

    #[test]
    fn a_leg_is_named_behind_the_id_in_both_forms() {
        let click = click();
        let values = Values { leg_offer: Some(42), ..values(&click) };
        let short = click.id.short();
        assert_eq!(expand("{click_id}&{click_id:short}", &values), format!("{ID}.42&{short}.42"));
        let longest = Values { leg_offer: Some(i64::MAX), ..values };
        assert!(expand("{click_id}", &longest).len() <= 56, "fits the 100 characters of CAKE's s2");
    }

    #[test]
    fn without_a_token_an_out_link_relies_on_the_cookie() {
        let click = click();
        let values = Values { token: "", ..values(&click) };
        assert_eq!(expand("{out_url:2}", &values), "https%3A%2F%2Ft.example%2Fout%2F2");
    }

    #[test]
    fn a_token_carries_what_is_asked_for_and_no_more() {
        let mut click = click();
        click.subs = [Some("a".into()), Some("b".into()), None, None, None];
        click.user_agent = Some("Mozilla".into());
        let asked =
            MacroSet::of(&[Macro::Sub2, Macro::Sub3, Macro::ClickId, Macro::OfferName, Macro::UserAgent]);
        let texts = Texts::collect(&values(&click), asked, 100);
        assert_eq!(texts, Texts(vec![(Macro::Sub2, "b".into()), (Macro::UserAgent, "Mozilla".into())]));
        let mut bytes = Vec::new();
        texts.encode(&mut bytes);
        assert_eq!(Texts::decode(&bytes), Some(texts));
        assert_eq!(Texts::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Texts::decode(&[13, 0, 1, 0xff]), None, "no UTF-8");
        assert_eq!(
            Texts::decode(&[250, 0, 1, b'x', 13, 0, 1, b'b']).unwrap().get(Macro::Sub2),
            "b",
            "of a later release"
        );
    }

    #[test]
    fn the_longest_value_is_cut_first_and_an_id_never() {
        let mut click = click();
        click.subs[0] = Some("s".repeat(20).into());
        click.subs[1] = Some("\u{e9}".repeat(500).into());
        click.click_id_param = Some("i".repeat(40).into());
        let asked = MacroSet::OF_THE_CLICK;
        let sizes = |bytes_max: usize| {
            let texts = Texts::collect(&values(&click), asked, bytes_max);
            let mut bytes = Vec::new();
            texts.encode(&mut bytes);
            assert!(bytes.len() <= bytes_max, "{bytes_max}");
            [Macro::ExternalClickId, Macro::Sub1, Macro::Sub2].map(|m| texts.get(m).len())
        };
        assert_eq!(sizes(2000), [40, 20, 1000]);
        assert_eq!(sizes(100), [40, 20, 30], "cut between characters");
        assert_eq!(sizes(43), [40, 0, 0]);
        assert_eq!(sizes(42), [0, 20, 16]);
        assert_eq!(sizes(0), [0, 0, 0]);
    }
}
