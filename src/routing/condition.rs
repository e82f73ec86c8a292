//! Criteria of rules and paths, ready to be asked: whether a visit meets them, from what is already in memory.
//!
//! Unknown is a value: of a visit whose country is not known, `is DE` does not hold and `is not DE` does, and `unknown` may
//! be among the values. A value of a criterion is read once, when the campaign is saved, and again when a node loads it.

use std::{borrow::Cow, cell::OnceCell, collections::HashSet};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, Anchored, Input, StartKind};
use chrono_tz::Tz;

use super::{
    Visit,
    calendar::{Calendar, Moment},
};
use crate::{
    model::rule::{Criterion, Dimension, Test},
    visitor::{self, Country, Device, VersionRange},
};

/// Parameters of a campaign whose values are read off a link once, however many criteria look at them.
const PARAMETERS_KEPT: usize = 8;

/// The value of what is not known.
pub const UNKNOWN: &str = "unknown";

/// What is wrong with a criterion, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// Its member: `is`, `name`, ...
    pub member: &'static str,
    /// Which value of the member.
    pub index: Option<usize>,
    /// In words, to follow the name of the place.
    pub detail: String,
}

/// A criterion, ready to be asked.
#[derive(Debug, Clone)]
pub struct Condition {
    dimension: Dimension,
    /// Of `parameter`.
    name: Option<Box<str>>,
    /// The place of the parameter among those of the campaign.
    slot: usize,
    /// What holds of values that match; others get the opposite.
    wanted: bool,
    takes_unknown: bool,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    /// Whatever is known.
    Any,
    /// A bit for each `AA` to `ZZ`.
    Countries(Box<[u64; 11]>),
    Devices(Vec<Device>),
    Named(Vec<(&'static str, Option<VersionRange>)>),
    Flag {
        takes_true: bool,
        takes_false: bool,
    },
    Calendar(Box<Calendar>),
    Exact(HashSet<Box<str>, foldhash::fast::FixedState>),
    Patterns(Box<AhoCorasick>, Anchored),
}

/// What a criterion found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub holds: bool,
    /// The value it was asked of; `None`: it is not known.
    pub value: Option<String>,
}

/// A visit that conditions are asked of, with what is worked out of it once.
#[derive(Debug)]
pub(super) struct Asked<'v> {
    visit: &'v Visit<'v>,
    /// The time in the zone it was asked for last.
    moment: OnceCell<(Tz, Moment)>,
    city: OnceCell<Option<String>>,
    isp: OnceCell<Option<String>>,
    referrer_host: OnceCell<Option<Cow<'v, str>>>,
    /// Those of the campaign's first parameters, by their slots.
    parameters: [OnceCell<Option<Cow<'v, str>>>; PARAMETERS_KEPT],
}

impl<'v> Asked<'v> {
    pub(super) fn of(visit: &'v Visit<'v>) -> Self {
        Self {
            visit,
            moment: OnceCell::new(),
            city: OnceCell::new(),
            isp: OnceCell::new(),
            referrer_host: OnceCell::new(),
            parameters: [const { OnceCell::new() }; PARAMETERS_KEPT],
        }
    }

    /// The operating system of the visitor's device; empty: not known.
    pub(super) fn os(&self) -> &'v str {
        self.visit.visitor.os
    }

    fn moment(&self, zone: Tz) -> Moment {
        let (first, moment) = self.moment.get_or_init(|| (zone, Moment::of(self.visit.now, zone)));
        if *first == zone { *moment } else { Moment::of(self.visit.now, zone) }
    }

    /// The text that a dimension is, in the case that values are compared in.
    fn text(&self, condition: &Condition) -> Option<Cow<'_, str>> {
        let visitor = self.visit.visitor;
        let folded = |text: Option<&str>| text.map(str::to_lowercase);
        let params = self.visit.params;
        match condition.dimension {
            Dimension::Region => visitor.region.map(Cow::Borrowed),
            Dimension::City => self.city.get_or_init(|| folded(visitor.city)).as_deref().map(Cow::Borrowed),
            Dimension::Isp => self.isp.get_or_init(|| folded(visitor.isp)).as_deref().map(Cow::Borrowed),
            Dimension::Connection => visitor.connection.map(Cow::Borrowed),
            Dimension::Language => visitor.language.as_ref().map(|language| Cow::Borrowed(language.as_str())),
            Dimension::ReferrerHost => {
                let host = self.referrer_host.get_or_init(|| host_of(self.visit.referrer?));
                host.as_deref().map(Cow::Borrowed)
            }
            Dimension::Source => params.traffic_source_id.as_deref().map(Cow::Borrowed),
            Dimension::Parameter => {
                let name = condition.name.as_deref()?;
                match self.parameters.get(condition.slot) {
                    Some(kept) => kept.get_or_init(|| params.get(name)).as_deref().map(Cow::Borrowed),
                    None => params.get(name),
                }
            }
            _ => None,
        }
    }
}

/// The host of a referrer in small letters, without `www.`.
fn host_of(referrer: &str) -> Option<Cow<'_, str>> {
    let (_, rest) = referrer.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = host.trim_end_matches('.');
    let is_small = !host.bytes().any(|b| b.is_ascii_uppercase());
    let small = if is_small { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) };
    let bare = match small {
        Cow::Borrowed(host) => Cow::Borrowed(host.strip_prefix("www.").unwrap_or(host)),
        Cow::Owned(host) => Cow::Owned(host.strip_prefix("www.").unwrap_or(&host).to_owned()),
    };
    (!bare.is_empty()).then_some(bare)
}

impl Condition {
    /// Reads a criterion; what of it is not valid is a fault.
    pub fn of(criterion: &Criterion) -> Result<Self, Fault> {
        let Criterion { dimension, name, test } = criterion;
        let dimension = *dimension;
        check_name(dimension, name.as_deref())?;
        let (member, texts) = test.parts();
        let (texts, takes_unknown) = without_unknown(dimension, texts);
        let values = match test {
            Test::Present(_) => Values::Any,
            Test::Is(_) | Test::IsNot(_) => exact(dimension, member, &texts)?,
            Test::Starts(_) => patterns(dimension, member, &texts, Anchored::Yes)?,
            Test::Contains(_) => patterns(dimension, member, &texts, Anchored::No)?,
        };
        let wanted = !matches!(test, Test::IsNot(_) | Test::Present(false));
        let name = name.as_deref().map(Into::into);
        Ok(Self { dimension, name, slot: usize::MAX, wanted, takes_unknown, values })
    }

    /// Gives its parameter a place among those of the campaign.
    pub(super) fn place(&mut self, parameters: &mut Vec<Box<str>>) {
        let Some(name) = &self.name else { return };
        self.slot = parameters.iter().position(|known| known == name).unwrap_or_else(|| {
            parameters.push(name.clone());
            parameters.len() - 1
        });
    }

    /// What it looks at.
    pub fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// Of the dimension `parameter`: its name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it holds of a visit.
    pub(super) fn holds(&self, asked: &Asked<'_>, zone: Tz) -> bool {
        self.matches(asked, zone).unwrap_or(self.takes_unknown) == self.wanted
    }

    /// As [`Self::holds`], with the value.
    pub(super) fn verdict(&self, asked: &Asked<'_>, zone: Tz) -> Verdict {
        Verdict { holds: self.holds(asked, zone), value: self.seen(asked, zone) }
    }

    /// Whether what it looks at is among its values; `None`: it is not known.
    fn matches(&self, asked: &Asked<'_>, zone: Tz) -> Option<bool> {
        let visitor = asked.visit.visitor;
        match &self.values {
            Values::Any => self.is_known(asked).then_some(true),
            Values::Countries(bits) => visitor.country.map(|country| {
                let index = index_of(country);
                (bits[index / 64] >> (index % 64)) & 1 == 1
            }),
            Values::Devices(devices) => {
                let device = visitor.device;
                (device != Device::Unknown).then(|| devices.contains(&device))
            }
            Values::Named(names) => {
                let (seen, version) = match self.dimension {
                    Dimension::Os => (visitor.os, visitor.os_version),
                    _ => (visitor.browser, visitor.browser_version),
                };
                let is_it = |(name, range): &(&str, Option<VersionRange>)| {
                    *name == seen && range.as_ref().is_none_or(|range| range.contains(version))
                };
                (!seen.is_empty()).then(|| names.iter().any(is_it))
            }
            Values::Flag { takes_true, takes_false } => {
                let flag = match self.dimension {
                    Dimension::Returning => asked.visit.is_returning,
                    _ => asked.visit.is_unique,
                };
                flag.map(|flag| if flag { *takes_true } else { *takes_false })
            }
            Values::Calendar(calendar) => Some(calendar.holds(&asked.moment(zone))),
            Values::Exact(texts) => asked.text(self).map(|text| texts.contains(text.as_ref())),
            Values::Patterns(patterns, anchored) => asked
                .text(self)
                .map(|text| patterns.find(Input::new(text.as_ref()).anchored(*anchored)).is_some()),
        }
    }

    fn is_known(&self, asked: &Asked<'_>) -> bool {
        let visitor = asked.visit.visitor;
        match self.dimension {
            Dimension::Country => visitor.country.is_some(),
            Dimension::Device => visitor.device != Device::Unknown,
            Dimension::Os => !visitor.os.is_empty(),
            Dimension::Browser => !visitor.browser.is_empty(),
            Dimension::Returning => asked.visit.is_returning.is_some(),
            Dimension::Unique => asked.visit.is_unique.is_some(),
            Dimension::Hour | Dimension::Weekday | Dimension::Time | Dimension::Date => true,
            _ => asked.text(self).is_some(),
        }
    }

    fn seen(&self, asked: &Asked<'_>, zone: Tz) -> Option<String> {
        let visitor = asked.visit.visitor;
        let named = |name: &str, version: Option<visitor::Version>| {
            let version = version.map(|version| format!(" {version}")).unwrap_or_default();
            (!name.is_empty()).then(|| format!("{name}{version}"))
        };
        match self.dimension {
            Dimension::Country => visitor.country.map(|country| country.to_string()),
            Dimension::Device => {
                let device = visitor.device;
                (device != Device::Unknown).then(|| device.as_str().to_owned())
            }
            Dimension::Os => named(visitor.os, visitor.os_version),
            Dimension::Browser => named(visitor.browser, visitor.browser_version),
            Dimension::Returning => asked.visit.is_returning.map(|flag| flag.to_string()),
            Dimension::Unique => asked.visit.is_unique.map(|flag| flag.to_string()),
            Dimension::Hour | Dimension::Weekday | Dimension::Time | Dimension::Date => {
                Some(asked.moment(zone).to_string())
            }
            _ => asked.text(self).map(Cow::into_owned),
        }
    }
}

fn fault(member: &'static str, index: Option<usize>, detail: impl Into<String>) -> Fault {
    Fault { member, index, detail: detail.into() }
}

fn check_name(dimension: Dimension, name: Option<&str>) -> Result<(), Fault> {
    match (dimension, name) {
        (Dimension::Parameter, Some(name)) if !name.is_empty() && name.len() <= 64 => Ok(()),
        (Dimension::Parameter, _) => {
            Err(fault("name", None, "must be the name of a parameter of the link, of 1 to 64 bytes"))
        }
        (_, None) => Ok(()),
        (_, Some(_)) => Err(fault("name", None, "is only for the dimension parameter")),
    }
}

/// The values with their places, but for `unknown`; a parameter may have that as a value.
fn without_unknown(dimension: Dimension, texts: &[String]) -> (Vec<(usize, &str)>, bool) {
    let is_unknown = |text: &str| dimension != Dimension::Parameter && text.eq_ignore_ascii_case(UNKNOWN);
    let all = texts.iter().map(String::as_str).enumerate();
    let known = all.filter(|(_, text)| !is_unknown(text)).collect();
    (known, texts.iter().any(|text| is_unknown(text)))
}

fn exact(dimension: Dimension, member: &'static str, texts: &[(usize, &str)]) -> Result<Values, Fault> {
    let at = |index: usize, detail: String| fault(member, Some(index), detail);
    Ok(match dimension {
        Dimension::Country => {
            let mut bits = Box::new([0_u64; 11]);
            for (i, text) in texts {
                let country: Country = text.parse().map_err(|error| at(*i, format!("is {error}")))?;
                let index = index_of(country);
                bits[index / 64] |= 1 << (index % 64);
            }
            Values::Countries(bits)
        }
        Dimension::Device => {
            let device = |(i, text): &(usize, &str)| device(text).map_err(|detail| at(*i, detail));
            Values::Devices(texts.iter().map(device).collect::<Result<_, _>>()?)
        }
        Dimension::Os => named(visitor::systems, member, texts)?,
        Dimension::Browser => named(visitor::browsers, member, texts)?,
        Dimension::Returning | Dimension::Unique => {
            let (mut takes_true, mut takes_false) = (false, false);
            for (i, text) in texts {
                match *text {
                    "true" => takes_true = true,
                    "false" => takes_false = true,
                    _ => return Err(at(*i, "must be true or false".to_owned())),
                }
            }
            Values::Flag { takes_true, takes_false }
        }
        Dimension::Hour | Dimension::Weekday | Dimension::Time | Dimension::Date => {
            let mut calendar = Calendar::default();
            for (i, text) in texts {
                calendar.add(dimension, text).map_err(|detail| at(*i, detail))?;
            }
            Values::Calendar(Box::new(calendar))
        }
        _ => {
            let text = |(i, text): &(usize, &str)| {
                folded(dimension, text).map(Into::into).map_err(|detail| at(*i, detail))
            };
            Values::Exact(texts.iter().map(text).collect::<Result<_, _>>()?)
        }
    })
}

fn patterns(
    dimension: Dimension,
    member: &'static str,
    texts: &[(usize, &str)],
    anchored: Anchored,
) -> Result<Values, Fault> {
    let takes_part = matches!(
        dimension,
        Dimension::Parameter
            | Dimension::ReferrerHost
            | Dimension::Source
            | Dimension::City
            | Dimension::Isp
            | Dimension::Language
    );
    if !takes_part {
        let detail = format!("is not for the dimension {dimension}; use is or is_not");
        return Err(fault(member, None, detail));
    }
    let mut all = Vec::with_capacity(texts.len());
    for (i, text) in texts {
        if text.is_empty() {
            return Err(fault(member, Some(*i), "must not be empty"));
        }
        all.push(match dimension {
            Dimension::Parameter | Dimension::Source => (*text).to_owned(),
            _ => text.to_lowercase(),
        });
    }
    let start = if anchored == Anchored::Yes { StartKind::Anchored } else { StartKind::Unanchored };
    let patterns = AhoCorasickBuilder::new().start_kind(start).build(all);
    let patterns = patterns.map_err(|error| fault(member, None, error.to_string()))?;
    Ok(Values::Patterns(Box::new(patterns), anchored))
}

/// A value of a text dimension, as it is compared.
fn folded(dimension: Dimension, text: &str) -> Result<String, String> {
    if text.is_empty() && dimension != Dimension::Parameter {
        return Err("must not be empty".to_owned());
    }
    match dimension {
        Dimension::Parameter | Dimension::Source => Ok(text.to_owned()),
        Dimension::Region => Ok(text.to_uppercase()),
        Dimension::Language => {
            let is_language = (2..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic());
            is_language
                .then(|| text.to_ascii_lowercase())
                .ok_or_else(|| "must be a language of two or three letters, such as de".to_owned())
        }
        Dimension::ReferrerHost => {
            let host = text.to_lowercase();
            if host.contains(['/', ':', '@', ' ']) {
                return Err("must be a host such as news.example, without scheme and path".to_owned());
            }
            Ok(host.strip_prefix("www.").unwrap_or(&host).trim_end_matches('.').to_owned())
        }
        _ => Ok(text.to_lowercase()),
    }
}

fn device(text: &str) -> Result<Device, String> {
    const DEVICES: [Device; 5] =
        [Device::Desktop, Device::Mobile, Device::Tablet, Device::Tv, Device::Console];
    DEVICES.into_iter().find(|device| device.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
        let names = DEVICES.map(Device::as_str).join(", ");
        format!("must be one of {names}, {UNKNOWN}")
    })
}

/// Names with or without versions, such as `iOS >=15`.
fn named<I: Iterator<Item = &'static str>>(
    known: impl Fn() -> I,
    member: &'static str,
    texts: &[(usize, &str)],
) -> Result<Values, Fault> {
    let read = |(i, text): &(usize, &str)| {
        let at = |detail: String| fault(member, Some(*i), detail);
        let is_start = |name: &&'static str| {
            let start = text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            start && text[name.len()..].chars().next().is_none_or(char::is_whitespace)
        };
        // the longest: `Google app` is not `Google`
        let Some(name) = known().filter(is_start).max_by_key(|name| name.len()) else {
            let mut names: Vec<&str> = known().collect();
            names.sort_unstable();
            names.dedup();
            return Err(at(format!("must begin with one of {}", names.join(", "))));
        };
        let rest = text[name.len()..].trim();
        let range = (!rest.is_empty()).then(|| rest.parse::<VersionRange>()).transpose();
        Ok((name, range.map_err(|error| at(error.to_string()))?))
    };
    Ok(Values::Named(texts.iter().map(read).collect::<Result<_, _>>()?))
}

/// The place of a country among `AA` to `ZZ`.
fn index_of(country: Country) -> usize {
    let [a, b] = [0, 1].map(|i| usize::from(country.as_str().as_bytes()[i] - b'A'));
    a * 26 + b
}
