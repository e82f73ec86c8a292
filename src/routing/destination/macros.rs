//! Macros as they are written: `{name}`, and behind the name what may follow it, in this order:
//! `{name:argument:raw|default}`.
//!
//! * `:argument` belongs to the macro: `{click_id:short}`, `{out_url:2}`, `{date:%Y-%m}`.
//! * `:raw` says that the value is percent-encoded already: its escapes are kept instead of being encoded again.
//! * `|default` stands for a missing value and is written as the value would be.
//!
//! What they stand for is in `values`.

use std::{
    fmt::{self, Write as _},
    ops::{BitAnd, BitOr},
};

use super::{Error, place::Place};

/// Longest `|default`, in bytes.
const DEFAULT_BYTES_MAX: usize = 256;

/// Longest format of `{date:FORMAT}`, in bytes.
const FORMAT_BYTES_MAX: usize = 64;

/// Greatest N of `{out_url:N}`: entries of a path.
const POSITION_MAX: u8 = 64;

/// What `{date:FORMAT}` may hold behind a `%`, as in strftime.
const SPECIFIERS: &str = "YmdyjHMSs%";

/// The format of `{date}`.
const DATE: &str = "%Y-%m-%d";

macro_rules! macros {
    ($($variant:ident = $number:literal $name:literal),+ $(,)?) => {
        /// What a destination may ask for.
        // the numbers stand in tokens that are in use: they are never given to another macro
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Macro { $(#[doc = concat!("`{", $name, "}`")] $variant = $number),+ }

        impl Macro {
            /// Every macro.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(super) fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            pub(super) fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The name, without braces.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

macros! {
    ClickId = 0 "click_id",
    Cid = 1 "cid",
    CampaignId = 2 "campaign_id",
    CampaignName = 3 "campaign_name",
    OfferId = 4 "offer_id",
    OfferName = 5 "offer_name",
    LandingPageId = 6 "landing_page_id",
    LanderName = 7 "lander_name",
    TrafficSourceId = 8 "traffic_source_id",
    SourceName = 9 "source_name",
    Rule = 10 "rule",
    Path = 11 "path",
    Sub1 = 12 "sub1",
    Sub2 = 13 "sub2",
    Sub3 = 14 "sub3",
    Sub4 = 15 "sub4",
    Sub5 = 16 "sub5",
    AffSub = 17 "aff_sub",
    AffSub2 = 18 "aff_sub2",
    AffSub3 = 19 "aff_sub3",
    AffSub4 = 20 "aff_sub4",
    AffSub5 = 21 "aff_sub5",
    ExternalClickId = 22 "external_click_id",
    Keyword = 23 "keyword",
    Creative = 24 "creative",
    Placement = 25 "placement",
    Cost = 26 "cost",
    Payout = 27 "payout",
    Country = 28 "country",
    Region = 29 "region",
    City = 30 "city",
    Language = 31 "language",
    Isp = 32 "isp",
    Device = 33 "device",
    Os = 34 "os",
    Browser = 35 "browser",
    Ip = 36 "ip",
    UserAgent = 37 "user_agent",
    Referrer = 38 "referrer",
    Timestamp = 39 "timestamp",
    Date = 40 "date",
    Random = 41 "random",
    OutUrl = 42 "out_url",
    ClickToken = 43 "click_token",
}

/// The names for whoever wrote another one; families in one entry, so that it can be read.
pub(super) const KNOWN: &str = "click_id, click_id:short, cid, campaign_id, campaign_name, offer_id, offer_name, \
    landing_page_id, lander_name, traffic_source_id, source_name, rule, path, sub1 to sub5, aff_sub, \
    aff_sub2 to aff_sub5, external_click_id, keyword, creative, placement, cost, payout, country, region, city, \
    language, isp, device, os, browser, ip, user_agent, referrer, timestamp, date, date:%Y-%m-%d, random; and for \
    landing pages out_url, out_url:2, click_token";

impl Macro {
    /// The name that was perhaps meant.
    pub(super) fn nearest(name: &str) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        let scored = Self::ALL.iter().map(|m| (strsim::jaro_winkler(m.name(), &name), m.name()));
        scored.filter(|(score, _)| *score > 0.85).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
    }
}

/// A set of macros.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct MacroSet(u64);

impl MacroSet {
    /// What only a click knows, or the request that made it. A token has to carry these, where an offer uses them; all
    /// else follows from the click's id, from the campaign, or from the offer that is chosen.
    pub const OF_THE_CLICK: Self = Self::of(&[
        Macro::TrafficSourceId,
        Macro::Sub1,
        Macro::Sub2,
        Macro::Sub3,
        Macro::Sub4,
        Macro::Sub5,
        Macro::AffSub,
        Macro::AffSub2,
        Macro::AffSub3,
        Macro::AffSub4,
        Macro::AffSub5,
        Macro::ExternalClickId,
        Macro::Keyword,
        Macro::Creative,
        Macro::Placement,
        Macro::Cost,
        Macro::Country,
        Macro::Region,
        Macro::City,
        Macro::Language,
        Macro::Isp,
        Macro::Device,
        Macro::Os,
        Macro::Browser,
        Macro::Ip,
        Macro::UserAgent,
        Macro::Referrer,
    ]);

    /// What leads from a landing page to an offer, and so makes sense on landing pages only.
    pub const OUT: Self = Self::of(&[Macro::OutUrl, Macro::ClickToken]);

    /// These macros.
    pub const fn of(macros: &[Macro]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < macros.len() {
            bits |= 1 << macros[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether `m` is one of them.
    pub fn contains(self, m: Macro) -> bool {
        self.0 & (1 << m as u8) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Macro> {
        Macro::ALL.iter().copied().filter(move |m| self.contains(*m))
    }
}

impl FromIterator<Macro> for MacroSet {
    fn from_iter<I: IntoIterator<Item = Macro>>(macros: I) -> Self {
        macros.into_iter().fold(Self::default(), |set, m| set | Self::of(&[m]))
    }
}

impl BitOr for MacroSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for MacroSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for MacroSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Macro::name)).finish()
    }
}

/// A macro with all that a destination says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) name: Macro,
    pub(super) argument: Argument,
    /// The value is encoded already.
    pub(super) is_raw: bool,
    /// What stands for a missing value.
    pub(super) default: Option<Box<str>>,
    pub(super) place: Place,
}

/// What stands behind the name of a macro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Argument {
    None,
    /// `{click_id:short}`
    Short,
    /// `{out_url:2}`
    Position(u8),
    /// `{date:%Y}`
    Format(Box<str>),
}

impl Use {
    /// Parses what stands between two braces.
    pub(super) fn parse(inner: &str) -> Result<Self, Error> {
        let (asked, default) =
            inner.split_once('|').map_or((inner, None), |(asked, default)| (asked, Some(default)));
        let (asked, is_raw) = asked.strip_suffix(":raw").map_or((asked, false), |asked| (asked, true));
        let (name, argument) =
            asked.split_once(':').map_or((asked, None), |(name, argument)| (name, Some(argument)));
        let name = Macro::from_name(name).ok_or_else(|| Error::UnknownMacro(shown(name)))?;
        let argument = match argument {
            None => Argument::None,
            Some(text) => Argument::parse(name, text)
                .ok_or_else(|| Error::Argument { written: shown(inner), wanted: wanted(name) })?,
        };
        let is_bad = |default: &&str| {
            default.len() > DEFAULT_BYTES_MAX || default.contains(['{', '|']) || default.ends_with(":raw")
        };
        if default.as_ref().is_some_and(is_bad) {
            return Err(Error::Default(shown(inner)));
        }
        let default = default.filter(|default| !default.is_empty()).map(Into::into);
        Ok(Self { name, argument, is_raw, default, place: Place::default() })
    }
}

/// As it is written, with its braces.
impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        f.write_str(self.name.name())?;
        match &self.argument {
            Argument::None => {}
            Argument::Short => f.write_str(":short")?,
            Argument::Position(n) => write!(f, ":{n}")?,
            Argument::Format(format) => write!(f, ":{format}")?,
        }
        if self.is_raw {
            f.write_str(":raw")?;
        }
        if let Some(default) = &self.default {
            write!(f, "|{default}")?;
        }
        f.write_char('}')
    }
}

impl Argument {
    fn parse(name: Macro, text: &str) -> Option<Self> {
        match name {
            Macro::ClickId if text == "short" => Some(Self::Short),
            Macro::OutUrl if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().filter(|n| (1..=POSITION_MAX).contains(n)).map(Self::Position)
            }
            Macro::Date if is_format(text) => Some(Self::Format(text.into())),
            _ => None,
        }
    }

    /// The format of a date.
    pub(super) fn format(&self) -> &str {
        match self {
            Self::Format(format) => format,
            _ => DATE,
        }
    }
}

/// What may stand behind the name of a macro, in words for whoever wrote something else.
fn wanted(name: Macro) -> &'static str {
    match name {
        Macro::ClickId => "{click_id} may be followed by :short",
        Macro::OutUrl => "{out_url} may be followed by the number of an offer, from :1 to :64",
        Macro::Date => {
            "{date} may be followed by a format of at most 64 bytes, as {date:%Y-%m-%d}; it takes %Y %m %d %y %j %H %M \
             %S %s and %%, in UTC"
        }
        _ => "this macro may be followed by :raw and |default only",
    }
}

/// Whether it is a format of dates: printable ASCII with one specifier at least, and none that is not known.
fn is_format(text: &str) -> bool {
    let mut specifiers = 0;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match bytes.next() {
                Some(b'%') => {}
                Some(specifier) if SPECIFIERS.contains(char::from(specifier)) => specifiers += 1,
                _ => return false,
            },
            b'{' | b'|' => return false,
            _ if byte.is_ascii_graphic() => {}
            _ => return false,
        }
    }
    specifiers > 0 && text.len() <= FORMAT_BYTES_MAX
}

/// The beginning of what was written, for a message.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_macro_has_a_number_that_fits_a_set_and_a_name_of_its_own() {
        for (i, m) in Macro::ALL.iter().enumerate() {
            assert_eq!(Macro::from_number(*m as u8), Some(*m));
            assert_eq!(Macro::from_name(m.name()), Some(*m));
            assert!((*m as u8) < 64 && !Macro::ALL[..i].contains(m), "{m:?}");
        }
        let set: MacroSet = [Macro::Sub1, Macro::ClickToken, Macro::Sub1].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Macro::Sub1, Macro::ClickToken]);
        assert!(set.contains(Macro::ClickToken) && !set.contains(Macro::Sub2));
        assert!((set & MacroSet::of(&[Macro::Sub2])).is_empty());
    }

    #[test]
    fn what_is_shown_of_the_names_is_whole() {
        let families = ["sub2", "sub3", "sub4", "aff_sub3", "aff_sub4"];
        let shown: Vec<&str> = KNOWN.split([',', ';', ' ']).collect();
        for name in Macro::ALL.iter().map(|m| m.name()).filter(|name| !families.contains(name)) {
            assert!(shown.contains(&name), "{name}");
        }
        assert_eq!(Macro::nearest("clickid"), Some("click_id"));
        assert_eq!(Macro::nearest("CLICK_ID"), Some("click_id"));
        assert_eq!(Macro::nearest("zzz"), None);
    }

    #[test]
    fn a_macro_is_written_as_it_was_read() {
        for (text, canonical) in [
            ("sub1", "{sub1}"),
            ("sub1:raw", "{sub1:raw}"),
            ("sub1|none", "{sub1|none}"),
            ("sub1:raw|a%20b", "{sub1:raw|a%20b}"),
            ("sub1|", "{sub1}"),
            ("sub1|a:b", "{sub1|a:b}"),
            ("city|M\u{fc}nchen", "{city|M\u{fc}nchen}"),
            ("click_id:short|x", "{click_id:short|x}"),
            ("click_id:short:raw", "{click_id:short:raw}"),
            ("out_url:07", "{out_url:7}"),
            ("out_url:64:raw|x", "{out_url:64:raw|x}"),
            ("date", "{date}"),
            ("date:%Y-%m-%d", "{date:%Y-%m-%d}"),
            ("date:%H:%M:raw", "{date:%H:%M:raw}"),
            ("date:raw", "{date:raw}"),
        ] {
            assert_eq!(Use::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        let long = format!("sub1|{}", "a".repeat(DEFAULT_BYTES_MAX + 1));
        let long_format = format!("date:%Y{}", "-".repeat(FORMAT_BYTES_MAX));
        for bad in [
            "",
            "|x",
            ":raw",
            "nosuch",
            "Sub1",
            "sub1:",
            "sub1:short",
            "sub1:raw:raw",
            "sub1|a|b",
            "sub1|x:raw",
            "sub1|a{b",
            "click_id:raw:short",
            "click_id:long",
            "out_url:",
            "out_url:0",
            "out_url:+1",
            "out_url:65",
            "out_url:256",
            "date:",
            "date:short",
            "date:%",
            "date:%Q",
            "date:100%%",
            "date:%Y{",
            "date:%Y\u{e9}",
            &long,
            &long_format,
        ] {
            assert!(Use::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
