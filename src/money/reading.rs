//! A postback read under its network's rules: what it says, whatever names and words the network has for it.

pub mod kept;
mod names;
#[cfg(test)]
mod tests;
mod words;

use std::{borrow::Cow, iter};

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;

use crate::model::{
    conversion::{Flag, ReportDate},
    id::Leg,
    link,
    money::{self, Currency},
    network::{MappedStatus, PostbackField, PostbackRules},
    text::clean,
    unexpanded::{is_macro, is_unexpanded},
};

/// What a postback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Which click, and perhaps which offer of it.
    pub leg: Result<Leg, NoClick>,
    /// The network's id of the conversion; empty where it sends none.
    pub txid: String,
    /// What was reached; empty where it names nothing.
    pub goal: String,
    /// What it says of the state.
    pub status: Meaning,
    /// The word that says so.
    pub status_text: Option<String>,
    /// More about the state, for people.
    pub status_detail: Option<String>,
    /// What we are paid; a correction may be below zero.
    pub payout: Option<Decimal>,
    /// The currency of the payout, as said by the postback itself.
    pub currency: Option<Currency>,
    /// What the visitor paid.
    pub sale_amount: Option<Decimal>,
    /// When it happened, as far as that can be: see [`read`].
    pub time: Option<DateTime<Utc>>,
    /// `event1` to `event30`, by their number.
    pub numbers: Vec<(u8, Number)>,
    /// What the sender wants to be answered.
    pub return_text: Option<String>,
    /// What could not be used.
    pub flags: Vec<Flag>,
}

/// Why a postback names no click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoClick {
    /// It has no parameter for it, or an empty one, or a macro that was not filled.
    Missing,
    /// What it says is no id of ours.
    Bad,
}

/// What a word for the state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A state that is known.
    Known(MappedStatus),
    /// A word that nobody mapped.
    Unmapped,
}

/// A number that a postback keeps with its conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// It is this now.
    Set(Decimal),
    /// It is more by this.
    Add(Decimal),
}

/// Most parameters that are looked at: what a postback of 16 KiB can hold, and no network sends.
const PARAMS_MAX: usize = 1024;

/// Longest transaction id, in characters.
const TXID_CHARS_MAX: usize = 255;

/// Longest goal and longest word for a state, in characters.
const WORD_CHARS_MAX: usize = 64;

/// Longest text for people, in characters.
const DETAIL_CHARS_MAX: usize = 255;

/// Longest list of amounts, in bytes.
const AMOUNTS_BYTES_MAX: usize = 256;

/// Numbers that a postback can keep with its conversion: `event1` to `event30`.
const NUMBERS_MAX: u8 = 30;

/// How far clocks of networks may be from ours.
const CLOCKS_DIFFER_MAX: TimeDelta = TimeDelta::minutes(5);

/// Reads a postback that came at `received_at`: names and values as `application/x-www-form-urlencoded`.
///
/// Names compare without case, `-` and `_`. The network's own names come first, then those that everybody knows, and of
/// each field the first usable value counts. A macro that was not filled is no value, and neither is what networks write
/// for nothing (`REPLACE`, `null`).
pub fn read(params: &str, rules: &PostbackRules, received_at: DateTime<Utc>) -> Reading {
    let reader = Reader { params: params_of(params), rules };
    let mut flags = Flags::default();
    let click = reader.click(&mut flags);
    let state = reader.state(&mut flags);
    let payout = reader.payout(&mut flags);
    Reading {
        leg: click.leg,
        txid: reader.txid(&click, &mut flags),
        goal: reader.goal(&state, &mut flags),
        status: state.meaning,
        status_text: state.word,
        status_detail: reader.first(PostbackField::StatusDetail, &mut flags, |_, text| {
            Some(clean(text, DETAIL_CHARS_MAX).into_owned())
        }),
        payout: payout.map(|payout| payout.amount),
        currency: reader.currency(payout, &mut flags),
        sale_amount: reader.first(PostbackField::SaleAmount, &mut flags, |_, text| {
            money::read_amount(text).map(|read| read.amount)
        }),
        time: reader.time(click.leg.ok(), received_at, &mut flags),
        numbers: reader.numbers(),
        return_text: reader.return_text(),
        flags: flags.0,
    }
}

/// When a line of a report says that something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The day, in the zone of the report.
    pub day: NaiveDate,
    /// The time, where it says one.
    pub at: Option<DateTime<Utc>>,
}

/// Reads when a line of a report says that it happened: under the network's own name, or one that people give such a column,
/// such as `Date` or `Conversion time`; days and times without a zone are of `zone`. Neither click nor clock says whether that
/// is possible. `None`: it says nothing that can be read.
pub fn read_moment(params: &str, rules: &PostbackRules, zone: Tz, date: ReportDate) -> Option<Moment> {
    let reader = Reader { params: params_of(params), rules };
    let own = reader.own_names(|field| field == PostbackField::Time);
    let others = reader.own_names(|_| true);
    let known: Vec<&str> =
        names::of_report(date).filter(|name| !others.iter().any(|own| own == name)).collect();
    let values = own.iter().map(String::as_str).chain(known).flat_map(|name| {
        reader.params.iter().filter(move |param| param.name == name).map(|param| param.value.trim())
    });
    values.filter(|text| !is_placeholder(text)).find_map(|text| moment(text, zone))
}

fn moment(text: &str, zone: Tz) -> Option<Moment> {
    let of_day = |day: NaiveDate| Some(Moment { day, at: None });
    if let Some(day) = ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y"]
        .into_iter()
        .find_map(|format| NaiveDate::parse_from_str(text, format).ok())
    {
        return of_day(day).filter(is_storable);
    }
    if let Some(at) = read_time(text) {
        return Some(Moment { day: at.with_timezone(&zone).date_naive(), at: Some(at) }).filter(is_storable);
    }
    let spaced = text.replacen('T', " ", 1);
    let formats = [
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%d %H:%M",
        "%Y/%m/%d %H:%M:%S",
        "%d.%m.%Y %H:%M:%S",
        "%d.%m.%Y %H:%M",
    ];
    let local = formats.into_iter().find_map(|format| NaiveDateTime::parse_from_str(&spaced, format).ok())?;
    let at = zone.from_local_datetime(&local).earliest().map(|at| at.to_utc());
    Some(Moment { day: local.date(), at }).filter(is_storable)
}

fn is_storable(moment: &Moment) -> bool {
    (1970..=9998).contains(&chrono::Datelike::year(&moment.day))
}

/// Names and values of a postback, decoded. A second `?` in a value begins the next parameter, as in links.
pub fn pairs(params: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    link::pairs(params).flat_map(|part| {
        let mut next = Some(part);
        iter::from_fn(move || {
            let part = next?;
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (value, tail) = link::split_tail(value);
            next = tail;
            // decoded, `%campaign%` would be no macro any more
            let value = if is_macro(value) { Cow::Borrowed(value) } else { link::decode(value, usize::MAX) };
            Some((link::decode(name.trim_start_matches('?'), usize::MAX), value))
        })
    })
}

/// A parameter, its name as it is compared.
#[derive(Debug)]
struct Param<'a> {
    name: String,
    value: Cow<'a, str>,
}

fn params_of(params: &str) -> Vec<Param<'_>> {
    let pairs = pairs(params).map(|(name, value)| Param { name: names::folded(&name), value });
    pairs.filter(|param| !param.name.is_empty()).take(PARAMS_MAX).collect()
}

/// What could not be used, each once, in the order in which it was found.
#[derive(Debug, Default)]
struct Flags(Vec<Flag>);

impl Flags {
    fn add(&mut self, flag: Flag) {
        if !self.0.contains(&flag) {
            self.0.push(flag);
        }
    }
}

/// The click that a postback names.
struct Click {
    leg: Result<Leg, NoClick>,
    /// The parameter that names it.
    at: Option<usize>,
    /// The transaction id behind it, as FunnelFlux has them in one: `hit:tx`.
    txid: Option<String>,
}

/// What a postback says of the state.
struct State {
    meaning: Meaning,
    word: Option<String>,
    /// The goal that the network's word stands for.
    goal: Option<String>,
    /// The parameter that says so.
    at: Option<usize>,
}

/// The parameters of a postback, and how its network wants them read.
struct Reader<'a> {
    params: Vec<Param<'a>>,
    rules: &'a PostbackRules,
}

impl Reader<'_> {
    /// The first value of a field that is usable. The network's own names come first; what the network calls its own is
    /// nothing else.
    fn first<T>(
        &self,
        field: PostbackField,
        flags: &mut Flags,
        mut usable: impl FnMut(usize, &str) -> Option<T>,
    ) -> Option<T> {
        let own = self.own_names(|own| own == field);
        let others = self.own_names(|_| true);
        let known = names::of(field).iter().copied().filter(|name| !others.iter().any(|own| own == name));
        for name in own.iter().map(String::as_str).chain(known) {
            for (at, param) in self.params.iter().enumerate().filter(|(_, param)| param.name == name) {
                let text = param.value.trim();
                if text.is_empty() {
                    continue;
                }
                if is_placeholder(text) {
                    flags.add(Flag::UnexpandedMacro);
                } else if let Some(found) = usable(at, text) {
                    return Some(found);
                }
            }
        }
        None
    }

    fn own_names(&self, is_wanted: impl Fn(PostbackField) -> bool) -> Vec<String> {
        let own = self.rules.parameters.iter().filter(|parameter| is_wanted(parameter.field));
        own.map(|parameter| names::folded(parameter.name.as_str())).collect()
    }

    fn click(&self, flags: &mut Flags) -> Click {
        let own = self.own_names(|field| field == PostbackField::ClickId);
        let means_a_click = |name: &str| names::CLICK_ID.contains(&name) || own.iter().any(|own| own == name);
        let mut is_bad = false;
        let found = self.first(PostbackField::ClickId, flags, |at, text| {
            let (id, txid) = text.split_once(':').map_or((text, None), |(id, txid)| (id, Some(txid)));
            let leg = text.parse().map(|leg| (leg, None)).or_else(|()| id.parse().map(|leg| (leg, txid)));
            is_bad |= leg.is_err() && means_a_click(&self.params[at].name);
            let (leg, txid) = leg.ok()?;
            Some(Click { leg: Ok(leg), at: Some(at), txid: txid.map(|txid| txid.trim().to_owned()) })
        });
        let no_click = if is_bad { NoClick::Bad } else { NoClick::Missing };
        found.unwrap_or(Click { leg: Err(no_click), at: None, txid: None })
    }

    fn txid(&self, click: &Click, flags: &mut Flags) -> String {
        let mut is_unusable = false;
        let mut usable = |text: &str| {
            let is_click = click.leg.is_ok_and(|leg| text.parse() == Ok(leg.click_id));
            let is_usable = !is_click && text.chars().nth(TXID_CHARS_MAX).is_none();
            is_unusable |= !is_usable;
            is_usable.then(|| text.to_owned())
        };
        let found =
            self.first(
                PostbackField::Txid,
                flags,
                |at, text| {
                    if click.at == Some(at) { None } else { usable(text) }
                },
            );
        let behind_click = || click.txid.as_deref().filter(|txid| !txid.is_empty() && !is_placeholder(txid));
        let found = found.or_else(|| usable(behind_click()?));
        if found.is_none() && is_unusable {
            flags.add(Flag::TxidUnusable);
        }
        found.unwrap_or_default()
    }

    fn state(&self, flags: &mut Flags) -> State {
        let word = |at: usize, text: &str| Some((at, clean(text, WORD_CHARS_MAX).into_owned()));
        if let Some((at, word)) = self.first(PostbackField::Status, flags, word) {
            let found = self.meaning(&word);
            return State {
                meaning: found.map_or(Meaning::Unmapped, |(status, _)| Meaning::Known(status)),
                goal: found.and_then(|(_, goal)| goal).map(str::to_owned),
                word: Some(word),
                at: Some(at),
            };
        }
        self.state_of_approve().or_else(|| self.state_of_goal()).unwrap_or(State {
            meaning: Meaning::Known(self.rules.default_status.unwrap_or(MappedStatus::Approved)),
            word: None,
            goal: None,
            at: None,
        })
    }

    /// `approve=1` or `approve=0`.
    fn state_of_approve(&self) -> Option<State> {
        self.params.iter().enumerate().filter(|(_, param)| param.name == names::APPROVE).find_map(
            |(at, param)| {
                let (status, word) = match param.value.trim() {
                    "1" => (MappedStatus::Approved, "approve=1"),
                    "0" => (MappedStatus::Rejected, "approve=0"),
                    _ => return None,
                };
                Some(State {
                    meaning: Meaning::Known(status),
                    word: Some(word.to_owned()),
                    goal: None,
                    at: Some(at),
                })
            },
        )
    }

    /// A word for the state in a parameter that is for goals as often (`type=lead`).
    fn state_of_goal(&self) -> Option<State> {
        let own = self.own_names(|_| true);
        let is_either = |name: &String| names::GOAL_OR_STATUS.contains(&name.as_str()) && !own.contains(name);
        self.params.iter().enumerate().filter(|(_, param)| is_either(&param.name)).find_map(|(at, param)| {
            let word = clean(param.value.trim(), WORD_CHARS_MAX);
            let (status, goal) = self.meaning(&word)?;
            Some(State {
                meaning: Meaning::Known(status),
                goal: goal.map(str::to_owned),
                word: Some(word.into_owned()),
                at: Some(at),
            })
        })
    }

    fn meaning(&self, word: &str) -> Option<(MappedStatus, Option<&str>)> {
        words::meaning(word, &self.params, &self.rules.status_map)
    }

    fn goal(&self, state: &State, flags: &mut Flags) -> String {
        let said = |at: usize, text: &str| {
            (state.at != Some(at)).then(|| clean(text, WORD_CHARS_MAX).trim().to_owned())
        };
        let goal = state.goal.clone().or_else(|| self.first(PostbackField::Goal, flags, said));
        goal.unwrap_or_default()
    }

    fn payout(&self, flags: &mut Flags) -> Option<money::Reading> {
        let mut is_unreadable = false;
        let mut has_macro = false;
        let payout = self.first(PostbackField::Payout, flags, |_, text| {
            let read = read_amounts(text, self.rules.sums_lists, &mut has_macro);
            is_unreadable |= read.is_err();
            read.ok().flatten()
        });
        if has_macro {
            flags.add(Flag::UnexpandedMacro);
        }
        if payout.is_none() && is_unreadable {
            flags.add(Flag::PayoutUnreadable);
        }
        payout
    }

    /// The currency that is said, else the one beside the amount.
    fn currency(&self, payout: Option<money::Reading>, flags: &mut Flags) -> Option<Currency> {
        let mut is_unknown = false;
        let mut is_list = false;
        let said = self.first(PostbackField::Currency, flags, |_, text| {
            is_list |= text.contains(',');
            let currency = money::read_currency(text);
            is_unknown |= currency.is_none() && !text.contains(',');
            currency
        });
        if is_list {
            flags.add(Flag::UnexpandedMacro); // `rub,usd,eur`: which one, somebody was to choose
        }
        let beside = payout.and_then(|payout| payout.currency);
        let currency = said.or(beside).or_else(|| is_unknown.then_some(Currency::UNKNOWN));
        if currency.is_some_and(|currency| !currency.is_known()) {
            flags.add(Flag::CurrencyUnknown);
        }
        currency
    }

    /// When it happened. A clock that differs a little is set right: nothing is before its click or ahead.
    fn time(&self, leg: Option<Leg>, received_at: DateTime<Utc>, flags: &mut Flags) -> Option<DateTime<Utc>> {
        let clicked_at = leg.map(|leg| leg.click_id.created_at()).filter(|at| *at <= received_at);
        let is_possible = |time: &DateTime<Utc>| {
            *time <= received_at + CLOCKS_DIFFER_MAX
                && clicked_at.is_none_or(|at| *time >= at - CLOCKS_DIFFER_MAX)
        };
        let mut is_unusable = false;
        let time = self.first(PostbackField::Time, flags, |_, text| {
            let time = read_time(text).filter(is_possible);
            is_unusable |= time.is_none();
            time
        });
        if time.is_none() && is_unusable {
            flags.add(Flag::TimeUnusable);
        }
        let time = time?.min(received_at);
        Some(clicked_at.map_or(time, |at| time.max(at)))
    }

    fn numbers(&self) -> Vec<(u8, Number)> {
        let mut numbers: Vec<(u8, Number)> = Vec::new();
        for param in &self.params {
            let Some((nth, adds)) = names::number(&param.name, NUMBERS_MAX) else { continue };
            let Some(money::Reading { amount, .. }) = money::read_amount(param.value.trim()) else {
                continue;
            };
            let number = if adds { Number::Add(amount) } else { Number::Set(amount) };
            let is_same = |other: &(u8, Number)| other.0 == nth && matches!(other.1, Number::Add(_)) == adds;
            if !numbers.iter().any(is_same) {
                numbers.push((nth, number));
            }
        }
        numbers.sort_by_key(|(nth, _)| *nth);
        numbers
    }

    fn return_text(&self) -> Option<String> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'_' | b'.' | b'-');
        let values = self.params.iter().filter(|param| param.name == names::RETURN).map(|param| &param.value);
        let mut texts = values.filter(|text| (1..=32).contains(&text.len()) && text.bytes().all(is_plain));
        texts.next().map(Cow::to_string)
    }
}

/// Whether a value stands for none: a macro that was not filled, or what networks and trackers write for nothing.
fn is_placeholder(text: &str) -> bool {
    let is_tag = || {
        let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
        inner.is_some_and(|inner| !inner.is_empty() && !inner.contains(['<', '>']))
    };
    is_unexpanded(text, text)
        || is_tag()
        || matches!(text, "REPLACE" | "OPTIONAL")
        || ["null", "undefined"].iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

/// Reads an amount, or a list of which one is filled (`12.5,`, `##CPA_AMOUNT##,3.2`); `sums`: what is filled is added up.
/// `Ok(None)`: none is filled.
fn read_amounts(text: &str, sums: bool, has_macro: &mut bool) -> Result<Option<money::Reading>, ()> {
    if !sums && let Some(read) = money::read_amount(text) {
        return Ok(Some(read));
    }
    if text.len() > AMOUNTS_BYTES_MAX {
        return Err(());
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let filled: Vec<&str> =
        parts.iter().copied().filter(|part| !part.is_empty() && !is_placeholder(part)).collect();
    let macros = parts.iter().filter(|part| is_placeholder(part)).count();
    *has_macro |= macros > 0;
    match filled[..] {
        [] => Ok(None),
        [one] if sums || macros > 0 => money::read_amount(one).map(Some).ok_or(()),
        [_, _, ..] if sums => sum_of(&filled).map(Some).ok_or(()),
        _ => Err(()),
    }
}

fn sum_of(parts: &[&str]) -> Option<money::Reading> {
    let (mut sum, mut currency) = (Decimal::ZERO, None);
    for part in parts {
        let read = money::read_amount(part)?;
        sum += read.amount;
        currency = currency.or(read.currency);
    }
    let within = money::read_amount(&sum.to_string())?;
    Some(money::Reading { currency, ..within })
}

/// Seconds or milliseconds since 1970, or RFC 3339, whose `+` may have become a space.
fn read_time(text: &str) -> Option<DateTime<Utc>> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return match text.len() {
            9..=10 => DateTime::from_timestamp(number, 0),
            12..=13 => DateTime::from_timestamp_millis(number),
            _ => None,
        };
    }
    let zoned = || {
        let at = text.len().checked_sub("+00:00".len())?;
        let (time, zone) = text.split_at_checked(at)?;
        DateTime::parse_from_rfc3339(&format!("{time}+{}", zone.strip_prefix(' ')?)).ok()
    };
    let time = DateTime::parse_from_rfc3339(text).ok().or_else(zoned)?;
    Some(time.to_utc())
}
