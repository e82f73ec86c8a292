//! What the postbacks of a click make of it: conversions, and what changed with each postback.
//!
//! Derived from all postbacks of a click in the order in which they came, however late each was stored; so two nodes, a
//! repeated batch, a replay under another map of words and the first time all give the same. Nothing is kept between two
//! calls but what is stored, and [`book`] compares with that.

use std::{collections::BTreeMap, mem};

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::reading::{Meaning, Number, Reading};
use crate::model::{
    conversion::{ConversionKind, Flag, Outcome, OutcomeReason, Status},
    id::ClickId,
    money::{Currency, Money},
    network::{MappedStatus, PostbackRules, Repeats},
};

/// The goal of a further payment whose network names none.
const REBILL: &str = "rebill";

/// The largest payout that is kept, as the sum of many: `numeric(18,6)`.
const PAYOUT_MAX: i64 = 999_999_999_999;

/// A postback of the click.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// When it came.
    pub at: DateTime<Utc>,
    /// Whether it was let in under its network's key, or otherwise by somebody who may.
    pub is_known: bool,
    /// What it says.
    pub reading: Reading,
    /// Its network.
    pub network_id: Option<i64>,
    /// How that one's postbacks are taken.
    pub rules: &'a PostbackRules,
    /// Its offer: the one that the click id names, else the one of the last out-click before, else the click's.
    pub offer_id: Option<i64>,
    /// What that offer pays.
    pub offer_payout: Option<Money>,
}

/// What tells conversions of a click apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The offer that the click id named, 0 where it named none.
    pub leg_offer_id: i64,
    /// What was reached; `rebill` of a further payment that names nothing.
    pub goal: String,
    /// Whether it is a further payment of a conversion.
    pub is_rebill: bool,
    /// The network's id of it; empty where it sends none.
    pub txid: String,
    /// Of those that are the same but for this, from 0.
    pub nth: i32,
}

impl Key {
    /// The id of the conversion: the same whenever it is derived. It begins with the time of its click.
    pub fn id(&self, click_id: ClickId) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(click_id.uuid());
        hash.update(self.leg_offer_id.to_le_bytes());
        for text in [&self.goal, &self.txid] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update([u8::from(self.is_rebill)]);
        hash.update(self.nth.to_le_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        bytes[..6].copy_from_slice(&click_id.uuid().as_bytes()[..6]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    fn others(&self) -> (i64, &str, bool, &str) {
        (self.leg_offer_id, &self.goal, self.is_rebill, &self.txid)
    }
}

/// A conversion as the postbacks so far tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// Which one of its click.
    pub key: Key,
    /// What it is.
    pub kind: ConversionKind,
    /// Its state.
    pub status: Status,
    /// The network's word for it.
    pub status_text: Option<String>,
    /// More about it.
    pub status_detail: Option<String>,
    /// What counts now: 0 of what is rejected or refunded.
    pub payout: Decimal,
    /// What it paid before something of it was taken back, or would have paid.
    pub original_payout: Option<Decimal>,
    /// What the visitor paid.
    pub sale_amount: Option<Decimal>,
    /// The currency of all of these.
    pub currency: Currency,
    /// What could not be used, or was made up.
    pub flags: Vec<Flag>,
    /// `event1` to `event30`.
    pub numbers: BTreeMap<u8, Decimal>,
    /// Whose postback made it.
    pub network_id: Option<i64>,
    /// Its offer.
    pub offer_id: Option<i64>,
    /// When it happened.
    pub converted_at: DateTime<Utc>,
    /// When its first postback came.
    pub first_at: DateTime<Utc>,
    /// When the last one came that changed it.
    pub last_at: DateTime<Utc>,
}

/// What counts of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub status: Status,
    /// What it pays.
    pub payout: Decimal,
    /// In this currency.
    pub currency: Currency,
}

impl Standing {
    /// What it adds to the revenue.
    fn revenue(&self) -> Decimal {
        if self.status == Status::Approved { self.payout } else { Decimal::ZERO }
    }

    /// The rows of the book that lead from one to the other: two where the currency changed, else one; none where
    /// nothing did.
    fn lead_to(from: Option<Self>, to: Self) -> Vec<Move> {
        let of = |from: Option<Status>, to: Self, payout, revenue| Move {
            from,
            to: to.status,
            payout,
            revenue,
            currency: to.currency,
        };
        match from {
            Some(old) if old == to => Vec::new(),
            Some(old) if old.currency == to.currency => {
                vec![of(Some(old.status), to, to.payout - old.payout, to.revenue() - old.revenue())]
            }
            Some(old) => {
                let back = of(Some(old.status), old, -old.payout, -old.revenue());
                vec![back, of(Some(old.status), to, to.payout, to.revenue())]
            }
            None => vec![of(None, to, to.payout, to.revenue())],
        }
    }
}

/// One row of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The state before; `None`: it is new.
    pub from: Option<Status>,
    /// The state after.
    pub to: Status,
    /// By how much the payout changed.
    pub payout: Decimal,
    /// By how much the revenue did.
    pub revenue: Decimal,
    /// In this currency.
    pub currency: Currency,
}

/// What a postback became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Its outcome.
    pub outcome: Outcome,
    /// What is particular about it.
    pub reason: Option<OutcomeReason>,
    /// The conversion that it tells of, by its place in [`Derived::conversions`].
    pub conversion: Option<usize>,
}

/// What the postbacks of a click make of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Derived {
    /// Its conversions, in the order in which they were made.
    pub conversions: Vec<Conversion>,
    /// Of each postback.
    pub verdicts: Vec<Verdict>,
    /// The states through which its conversions went: by which postback, which conversion, and what it was then.
    pub steps: Vec<(usize, usize, Standing)>,
}

/// Derives the conversions of a click from its postbacks, which are in the order in which they came.
pub fn derive(entries: &[Entry<'_>]) -> Derived {
    let mut click = Click::default();
    for (i, entry) in entries.iter().enumerate() {
        let verdict = click.take(i, entry);
        click.derived.verdicts.push(verdict);
    }
    click.derived
}

/// The rows that the book lacks: of each conversion of `derived` what leads from what is stored to what is derived, with
/// the postback that caused it.
///
/// Where the first `known` postbacks alone make what is `stored`, each further one has its own row. Otherwise something
/// came late, or words mean something else now: one row a conversion says the difference, and names no postback.
pub fn book(
    derived: &Derived,
    known: usize,
    is_in_order: bool,
    stored: impl Fn(usize) -> Option<Standing>,
) -> Vec<(usize, Option<usize>, Move)> {
    let count = derived.conversions.len();
    let mut before: Vec<Option<Standing>> = vec![None; count];
    for (_, conversion, standing) in derived.steps.iter().filter(|(entry, ..)| *entry < known) {
        before[*conversion] = Some(*standing);
    }
    let is_as_stored = is_in_order && (0..count).all(|i| before[i] == stored(i));
    let mut rows = Vec::new();
    if is_as_stored {
        for (entry, conversion, standing) in derived.steps.iter().filter(|(entry, ..)| *entry >= known) {
            let from = before[*conversion].replace(*standing);
            let moves = Standing::lead_to(from, *standing);
            rows.extend(moves.into_iter().map(|moved| (*conversion, Some(*entry), moved)));
        }
        return rows;
    }
    for (i, conversion) in derived.conversions.iter().enumerate() {
        let moves = Standing::lead_to(stored(i), conversion.standing());
        rows.extend(moves.into_iter().map(|moved| (i, None, moved)));
    }
    rows
}

/// The rows that make a stored conversion one that is none any more.
pub fn unmake(stored: Standing) -> Vec<Move> {
    let none = Standing { status: Status::Ignored, payout: Decimal::ZERO, ..stored };
    Standing::lead_to(Some(stored), none)
}

/// The conversions of a click while its postbacks are taken one by one.
#[derive(Default)]
struct Click {
    derived: Derived,
    /// The requests that each conversion took, as far as two are compared, and when.
    requests: Vec<Vec<(Request, DateTime<Utc>)>>,
}

/// What of a postback makes it the same as another.
#[derive(PartialEq, Eq)]
struct Request {
    meaning: Meaning,
    payout: Option<Decimal>,
    currency: Option<Currency>,
    sale_amount: Option<Decimal>,
}

impl Request {
    fn of(reading: &Reading) -> Self {
        Self {
            meaning: reading.status,
            payout: reading.payout, // 175 and 175.0000 are equal
            currency: reading.currency,
            sale_amount: reading.sale_amount,
        }
    }
}

impl Click {
    fn take(&mut self, i: usize, entry: &Entry<'_>) -> Verdict {
        let reading = &entry.reading;
        let ignored = |reason| Verdict { outcome: Outcome::Ignored, reason: Some(reason), conversion: None };
        if entry.rules.needs_key && !entry.is_known {
            return ignored(OutcomeReason::WrongKey);
        }
        if reading.status == Meaning::Known(MappedStatus::Ignored) {
            return ignored(OutcomeReason::IgnoredStatus);
        }
        let key = key_of(reading);
        let (conversion, reason) = match self.last_of(&key) {
            None => (self.make(i, entry, key), None),
            Some(found) => self.take_again(i, entry, found),
        };
        self.requests[conversion].push((Request::of(reading), entry.at));
        let is_unmapped = reading.status == Meaning::Unmapped;
        let reason = if is_unmapped { Some(OutcomeReason::Unmapped) } else { reason };
        Verdict { outcome: Outcome::Accepted, reason, conversion: Some(conversion) }
    }

    /// The newest conversion of the same offer, goal and transaction id.
    fn last_of(&self, key: &Key) -> Option<usize> {
        self.derived.conversions.iter().rposition(|conversion| conversion.key.others() == key.others())
    }

    /// A postback of a conversion that is there; and what is particular.
    fn take_again(&mut self, i: usize, entry: &Entry<'_>, found: usize) -> (usize, Option<OutcomeReason>) {
        let (reading, rules) = (&entry.reading, entry.rules);
        let conversion = &self.derived.conversions[found];
        let repeats = if !reading.txid.is_empty() {
            Repeats::Update // the same transaction id is the same conversion
        } else if conversion.key.is_rebill {
            Repeats::New
        } else {
            rules.repeats
        };
        // what undoes or decides is never one more
        let is_news = match reading.status {
            Meaning::Known(MappedStatus::Approved | MappedStatus::Rebill) => {
                conversion.status != Status::Approved
            }
            Meaning::Known(MappedStatus::Pending) => false,
            _ => true,
        };
        let is_retry = || self.is_retry(found, entry);
        let is_alike = said_currency(entry).is_none_or(|said| said == conversion.currency);
        match repeats {
            Repeats::Ignore if !is_news => (found, Some(OutcomeReason::Repeat)),
            Repeats::New | Repeats::Add if !is_news && is_retry() => (found, Some(OutcomeReason::Repeat)),
            // nor are amounts of two currencies added up
            Repeats::New | Repeats::Add if !is_news && (repeats == Repeats::New || !is_alike) => {
                let nth = conversion.key.nth + 1;
                let made = self.make(i, entry, Key { nth, ..key_of(reading) });
                self.flag(made, Flag::NoTxid);
                (made, None)
            }
            Repeats::Add if !is_news && reading.payout.is_some() => {
                let reason = self.change(i, entry, found, |conversion, reading| {
                    let more = reading.payout.unwrap_or_default();
                    conversion.payout = bounded(conversion.payout + more);
                    if reading.status != Meaning::Known(MappedStatus::Pending) {
                        conversion.status = Status::Approved;
                    }
                    add_flag(&mut conversion.flags, Flag::NoTxid);
                });
                (found, reason)
            }
            // a part that is taken back twice must be two parts
            _ if takes_a_part(reading) && is_retry() => (found, Some(OutcomeReason::Repeat)),
            _ => (found, self.update(i, entry, found)),
        }
    }

    /// Whether this conversion took an equal request a short time before.
    fn is_retry(&self, conversion: usize, entry: &Entry<'_>) -> bool {
        let request = Request::of(&entry.reading);
        let window = TimeDelta::seconds(entry.rules.retry_window_s.into());
        self.requests[conversion].iter().any(|(earlier, at)| *earlier == request && entry.at - *at <= window)
    }

    /// News of a conversion.
    fn update(&mut self, i: usize, entry: &Entry<'_>, found: usize) -> Option<OutcomeReason> {
        let is_decided = self.derived.conversions[found].status.is_decided();
        if is_decided && entry.reading.status == Meaning::Known(MappedStatus::Pending) {
            return Some(OutcomeReason::LatePending);
        }
        self.change(i, entry, found, |conversion, reading| conversion.hear(reading, said_currency(entry)))
    }

    /// Changes a conversion by what a postback says; `Repeat` where that changes nothing.
    fn change(
        &mut self,
        i: usize,
        entry: &Entry<'_>,
        found: usize,
        hear: impl FnOnce(&mut Conversion, &Reading),
    ) -> Option<OutcomeReason> {
        let conversion = &mut self.derived.conversions[found];
        let before = conversion.clone();
        hear(conversion, &entry.reading);
        conversion.note(&entry.reading);
        if *conversion == before {
            return Some(OutcomeReason::Repeat);
        }
        conversion.last_at = entry.at;
        if conversion.standing() != before.standing() {
            self.derived.steps.push((i, found, conversion.standing()));
        }
        None
    }

    fn make(&mut self, i: usize, entry: &Entry<'_>, key: Key) -> usize {
        let conversion = Conversion::of(entry, key);
        self.derived.steps.push((i, self.derived.conversions.len(), conversion.standing()));
        self.derived.conversions.push(conversion);
        self.requests.push(Vec::new());
        self.requests.len() - 1
    }

    fn flag(&mut self, conversion: usize, flag: Flag) {
        add_flag(&mut self.derived.conversions[conversion].flags, flag);
    }
}

impl Conversion {
    /// The one that a first postback makes.
    fn of(entry: &Entry<'_>, key: Key) -> Self {
        let reading = &entry.reading;
        let is_negative = reading.payout.is_some_and(|payout| payout < Decimal::ZERO);
        let kind = match (is_negative, key.is_rebill) {
            (true, _) => ConversionKind::Correction,
            (false, true) => ConversionKind::Rebill,
            (false, false) => ConversionKind::Conversion,
        };
        let offers = entry.offer_payout.filter(|_| reading.payout.is_none());
        let paid = reading.payout.or(offers.map(|money| money.amount));
        let said = said_currency(entry);
        let currency =
            offers.map(|money| money.currency).or(said).or(entry.offer_payout.map(|money| money.currency));
        let status = match reading.status {
            _ if is_negative => Status::Approved,
            Meaning::Unmapped => Status::Unmapped,
            Meaning::Known(meaning) => status_of(meaning),
        };
        let mut conversion = Self {
            key,
            kind,
            status,
            status_text: None,
            status_detail: None,
            payout: if status.has_money() { paid.unwrap_or_default() } else { Decimal::ZERO },
            original_payout: paid.filter(|_| !status.has_money()),
            sale_amount: None,
            currency: currency.unwrap_or(Currency::USD),
            flags: Vec::new(),
            numbers: BTreeMap::new(),
            network_id: entry.network_id,
            offer_id: entry.offer_id,
            converted_at: reading.time.unwrap_or(entry.at),
            first_at: entry.at,
            last_at: entry.at,
        };
        conversion.note(reading);
        if paid.is_none() && status.has_money() {
            add_flag(&mut conversion.flags, Flag::NoPayout);
        }
        conversion
    }

    /// What counts of it.
    pub fn standing(&self) -> Standing {
        Standing { status: self.status, payout: self.payout, currency: self.currency }
    }

    /// Takes the state and the payout that a postback says, which is in the currency `said`, else in ours.
    fn hear(&mut self, reading: &Reading, said: Option<Currency>) {
        let Meaning::Known(meaning) = reading.status else { return };
        // a 0 that nobody said is no payout
        let is_said = !self.flags.contains(&Flag::NoPayout);
        let before =
            if self.status.has_money() { is_said.then_some(self.payout) } else { self.original_payout };
        let payout = reading.payout;
        if self.kind == ConversionKind::Correction {
            self.payout = payout.unwrap_or(self.payout);
            return;
        }
        if let Some(taken) = part_taken(reading) {
            // of another currency nobody can say what is left: then nothing is
            let is_alike = said.is_none_or(|said| said == self.currency);
            let left = if is_alike { before.unwrap_or_default() - taken } else { Decimal::ZERO };
            self.original_payout = self.original_payout.or(before);
            let is_part = self.status.has_money() && left > Decimal::ZERO;
            (self.status, self.payout) =
                if is_part { (self.status, left) } else { (Status::Refunded, Decimal::ZERO) };
            if is_part {
                add_flag(&mut self.flags, Flag::PartlyRefunded);
            }
            return;
        }
        let status = status_of(meaning);
        if status.has_money() {
            self.payout = payout.or(before).unwrap_or_default();
            self.original_payout = None;
            if payout.is_some() {
                self.currency = said.unwrap_or(self.currency);
            }
            if payout.or(before).is_some() {
                self.flags.retain(|flag| *flag != Flag::NoPayout);
            }
            self.flags.retain(|flag| *flag != Flag::PartlyRefunded);
        } else {
            let known = self.original_payout.or(before);
            if known.is_none() && payout.is_some() {
                self.currency = said.unwrap_or(self.currency);
            }
            self.original_payout = known.or(payout);
            self.payout = Decimal::ZERO;
        }
        self.status = status;
    }

    /// Keeps what else a postback says.
    fn note(&mut self, reading: &Reading) {
        let keep = |kept: &mut Option<String>, said: &Option<String>| {
            if said.is_some() {
                kept.clone_from(said);
            }
        };
        if reading.status != Meaning::Unmapped || self.status == Status::Unmapped {
            keep(&mut self.status_text, &reading.status_text);
            keep(&mut self.status_detail, &reading.status_detail);
        }
        self.sale_amount = reading.sale_amount.or(self.sale_amount);
        for (number, value) in &reading.numbers {
            let kept = self.numbers.entry(*number).or_default();
            *kept = match value {
                Number::Set(value) => *value,
                Number::Add(value) => bounded(mem::take(kept) + value),
            };
        }
        for flag in &reading.flags {
            add_flag(&mut self.flags, *flag);
        }
    }
}

/// The currency of what a postback says it pays, where that is known.
fn said_currency(entry: &Entry<'_>) -> Option<Currency> {
    entry.reading.currency.or(entry.rules.currency)
}

/// What was reached by what a postback says; a further payment that names nothing is one all the same.
pub(super) fn goal_of(reading: &Reading) -> &str {
    let is_rebill = reading.status == Meaning::Known(MappedStatus::Rebill);
    if is_rebill && reading.goal.is_empty() { REBILL } else { &reading.goal }
}

fn key_of(reading: &Reading) -> Key {
    Key {
        leg_offer_id: reading.leg.ok().and_then(|leg| leg.offer_id).unwrap_or(0),
        goal: goal_of(reading).to_owned(),
        is_rebill: reading.status == Meaning::Known(MappedStatus::Rebill),
        txid: reading.txid.clone(),
        nth: 0,
    }
}

/// Whether a postback takes a part of what was paid: a refund that says how much, or an amount below zero.
fn takes_a_part(reading: &Reading) -> bool {
    part_taken(reading).is_some()
}

fn part_taken(reading: &Reading) -> Option<Decimal> {
    let payout = reading.payout.filter(|payout| !payout.is_zero())?;
    let is_refund = reading.status == Meaning::Known(MappedStatus::Refunded);
    (is_refund || payout < Decimal::ZERO).then(|| payout.abs())
}

pub(super) fn status_of(meaning: MappedStatus) -> Status {
    match meaning {
        MappedStatus::Pending => Status::Pending,
        MappedStatus::Approved | MappedStatus::Rebill => Status::Approved,
        MappedStatus::Rejected => Status::Rejected,
        MappedStatus::Refunded => Status::Refunded,
        MappedStatus::Ignored => Status::Ignored,
    }
}

fn add_flag(flags: &mut Vec<Flag>, flag: Flag) {
    if let Err(place) = flags.binary_search(&flag) {
        flags.insert(place, flag);
    }
}

fn bounded(payout: Decimal) -> Decimal {
    let most = Decimal::from(PAYOUT_MAX);
    payout.clamp(-most, most)
}

#[cfg(test)]
mod tests;
