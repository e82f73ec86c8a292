//! The report of a network beside what is stored: which of its lines are which of our conversions, what differs, and at which
//! hop the other ones were lost.
//!
//! Each line that can be read is paired with at most one conversion of its click, and each conversion with at most one line.
//! Two transaction ids that differ are never one conversion, nor are two goals, unless the transaction id is the same: many
//! networks send it in their report only, so one that is missing on a side says nothing. What a line does not say is not
//! compared.

mod hops;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoEnumIterator as _, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::hops::{Change, Facts, Hop, Told};
use super::{
    conversions::{goal_of, status_of},
    reading::{self, Meaning, NoClick},
};
use crate::model::{
    conversion::{OutcomeReason, ReportDate, Status},
    id::Leg,
    money::Currency,
    network::{MappedStatus, PostbackRules},
};

/// How the lines of a report are read.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The zone of its days and times.
    pub zone: Tz,
    /// Which day its lines have.
    pub date: ReportDate,
    /// The currency of lines that name none; else it is the network's.
    pub currency: Option<Currency>,
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// What it says; `None`: it cannot be read.
    pub said: Option<Said>,
}

/// What a line of a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The click, and perhaps the offer of it.
    pub leg: Result<Leg, NoClick>,
    /// The network's id of the conversion; empty where it says none.
    pub txid: String,
    /// What was reached; empty where it names nothing.
    pub goal: String,
    /// Whether it is a further payment of a conversion.
    pub is_rebill: bool,
    /// What its word for the state means; `None`: it has none.
    pub status: Option<Status>,
    /// That word.
    pub status_text: Option<String>,
    /// What it pays; `None`: it says no amount that can be read.
    pub amount: Option<Decimal>,
    /// The currency of that, by the line, the report or the network.
    pub currency: Option<Currency>,
    /// Its day in the zone of the report.
    pub day: Option<NaiveDate>,
    /// Its time, where it says one.
    pub at: Option<DateTime<Utc>>,
}

/// A conversion of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// Its id.
    pub id: Uuid,
    /// Its click.
    pub click_id: Uuid,
    /// Its offer.
    pub offer_id: Option<i64>,
    /// What was reached; empty where its network named nothing.
    pub goal: String,
    /// The network's id of it; empty where it sent none.
    pub txid: String,
    /// Whether it is a further payment of a conversion.
    pub is_rebill: bool,
    /// Its state.
    pub status: Status,
    /// The network's word for it.
    pub status_text: Option<String>,
    /// What counts now.
    pub payout: Decimal,
    /// The currency of that.
    pub currency: Currency,
    /// When it happened, or its click did, as the lines of the report say it.
    pub at: DateTime<Utc>,
    /// Whether it is of the range that the report is of; others are only paired.
    pub is_in_range: bool,
}

/// What comes of a line, or of a conversion that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumIter, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
#[schema(as = ReconciliationOutcome)]
pub enum Finding {
    /// Both say the same.
    Matched,
    /// A line without a conversion of ours.
    MissingHere,
    /// A conversion of ours in the range without a line.
    MissingThere,
    /// Both have it, in another state.
    OtherStatus,
    /// Both have it in this state, in another currency.
    OtherCurrency,
    /// Both have it in this state and currency, with another amount.
    OtherAmount,
    /// Both have it in this state, with this amount, on another day.
    OtherDay,
    /// It stands twice there and once here, or twice here and once there.
    Doubled,
    /// A line that is none.
    Unreadable,
}

/// What differs between a line and its conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[schema(as = ReconciliationDifference)]
pub enum Difference {
    /// The state.
    Status,
    /// The currency; then amounts are not compared.
    Currency,
    /// The amount.
    Amount,
    /// The day.
    Day,
}

impl From<Difference> for Finding {
    fn from(difference: Difference) -> Self {
        match difference {
            Difference::Status => Self::OtherStatus,
            Difference::Currency => Self::OtherCurrency,
            Difference::Amount => Self::OtherAmount,
            Difference::Day => Self::OtherDay,
        }
    }
}

/// What came of a line and its conversion, or of one of them alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What came of it: of several differences the first.
    pub finding: Finding,
    /// All that differs, in the order of [`Difference`].
    pub differences: Vec<Difference>,
    /// The line, by its place in the report.
    pub line: Option<usize>,
    /// The conversion, by its place among ours.
    pub ours: Option<usize>,
    /// What it is there twice with: the number of a line or the id of a conversion.
    pub twin: Option<Twin>,
    /// Where it was lost, or what was last heard; see [`Facts::explain`].
    pub hop: Option<Hop>,
    /// Why a postback that tells of it did not count.
    pub reason: Option<OutcomeReason>,
    /// That postback.
    pub postback_id: Option<Uuid>,
    /// What changed last of the conversion, where something differs.
    pub last_change: Option<Change>,
}

/// What something is there twice with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// The number of a line.
    Line(u64),
    /// The id of a conversion.
    Conversion(Uuid),
}

/// Click, offer, transaction id, goal, and whether it is a further payment: what makes two lines, or two conversions, the same
/// one twice.
type Key = (Uuid, Option<i64>, String, String, bool);

/// How many, and how much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Total {
    /// Entries.
    pub count: usize,
    /// By currency what counts of their amounts, and of ours. `XXX`: nobody says which it is.
    pub amounts: BTreeMap<Currency, (Decimal, Decimal)>,
}

impl Line {
    /// Reads a line, given as the parameters of a postback, with the names and the words of its network.
    pub fn read(number: u64, params: Option<&str>, rules: &PostbackRules, report: Report) -> Self {
        Self { number, said: params.map(|params| Said::read(params, rules, report)) }
    }
}

impl Said {
    fn read(params: &str, rules: &PostbackRules, report: Report) -> Self {
        // when it is read makes no difference to what is taken from it here
        let reading = reading::read(params, rules, DateTime::UNIX_EPOCH);
        let moment = reading::read_moment(params, rules, report.zone, report.date);
        let status = match reading.status {
            Meaning::Known(meaning) => status_of(meaning),
            Meaning::Unmapped => Status::Unmapped,
        };
        Self {
            leg: reading.leg,
            is_rebill: reading.status == Meaning::Known(MappedStatus::Rebill),
            goal: goal_of(&reading).to_owned(),
            txid: reading.txid,
            status: reading.status_text.is_some().then_some(status),
            status_text: reading.status_text,
            amount: reading.payout,
            currency: reading.currency.or(report.currency).or(rules.currency),
            day: moment.map(|moment| moment.day),
            at: moment.and_then(|moment| moment.at),
        }
    }

    /// Whether its state is one without money.
    fn has_no_money(&self) -> bool {
        self.status.is_some_and(|status| !status.has_money())
    }

    /// What counts of its amount.
    fn counted(&self) -> Decimal {
        self.amount.filter(|_| !self.has_no_money()).unwrap_or_default()
    }

    fn key(&self) -> Option<Key> {
        let leg = self.leg.ok()?;
        Some((leg.click_id.uuid(), leg.offer_id, self.txid.clone(), self.goal.to_lowercase(), self.is_rebill))
    }

    /// How well a conversion of its click fits; `None`: it is another one.
    fn fits(&self, ours: &Ours, zone: Tz) -> Option<u8> {
        let is_known = |theirs: &str, ours: &str| !theirs.is_empty() && !ours.is_empty();
        let is_same_txid = is_known(&self.txid, &ours.txid) && self.txid == ours.txid;
        if !is_same_txid && is_known(&self.txid, &ours.txid) {
            return None;
        }
        let is_same_goal = is_same_goal(&self.goal, &ours.goal);
        if !is_same_txid && !is_same_goal && is_known(&self.goal, &ours.goal) {
            return None;
        }
        if self.leg.ok().and_then(|leg| leg.offer_id).is_some_and(|offer| ours.offer_id != Some(offer)) {
            return None;
        }
        if self.is_rebill && !ours.is_rebill && !is_same_txid {
            return None;
        }
        let agrees = self.differences(ours, zone).is_empty();
        let marks = [is_same_txid, is_same_goal, self.is_rebill == ours.is_rebill, agrees];
        Some(marks.into_iter().fold(0, |rank, mark| rank << 1 | u8::from(mark)))
    }

    fn differences(&self, ours: &Ours, zone: Tz) -> Vec<Difference> {
        // a word that nobody mapped is no state that two can agree on
        let is_other_status = [self.status, Some(ours.status)].contains(&Some(Status::Unmapped))
            || self.status.is_some_and(|status| status != ours.status);
        let is_other_currency = self.currency.is_some_and(|currency| currency != ours.currency);
        // of what neither side counts it makes no difference what it would have paid
        let is_money = !self.has_no_money() || ours.status.has_money();
        let is_other_amount = is_money && self.amount.is_some_and(|amount| amount != ours.payout);
        let day = ours.at.with_timezone(&zone).date_naive();
        [
            (Difference::Status, is_other_status),
            (Difference::Currency, is_other_currency && self.amount.is_some()),
            (Difference::Amount, is_other_amount && !is_other_currency),
            (Difference::Day, self.day.is_some_and(|said| said != day)),
        ]
        .into_iter()
        .filter_map(|(difference, is_so)| is_so.then_some(difference))
        .collect()
    }
}

impl Ours {
    fn key(&self) -> Key {
        (self.click_id, self.offer_id, self.txid.clone(), self.goal.to_lowercase(), self.is_rebill)
    }
}

fn is_same_goal(theirs: &str, ours: &str) -> bool {
    theirs == ours || theirs.to_lowercase() == ours.to_lowercase()
}

impl Entry {
    fn new(finding: Finding, line: Option<usize>, ours: Option<usize>) -> Self {
        Self {
            finding,
            differences: Vec::new(),
            line,
            ours,
            twin: None,
            hop: None,
            reason: None,
            postback_id: None,
            last_change: None,
        }
    }

    fn of_pair(line: usize, said: &Said, i: usize, ours: &Ours, zone: Tz) -> Self {
        let differences = said.differences(ours, zone);
        let finding = differences.first().map_or(Finding::Matched, |first| Finding::from(*first));
        Self { differences, ..Self::new(finding, Some(line), Some(i)) }
    }
}

/// Compares a report with the conversions of its range and of its clicks. An entry for each line, in their order, and then
/// one for each conversion of the range that has none and is one still.
pub fn compare(lines: &[Line], ours: &[Ours], zone: Tz) -> Vec<Entry> {
    let pairs = Pairs::of(lines, ours, zone);
    let mut first: HashMap<Key, u64> = HashMap::new();
    let paired = |(i, line): (usize, &Line)| {
        pairs.of_line[i]?;
        Some((line.said.as_ref()?.key()?, line.number))
    };
    for (key, number) in lines.iter().enumerate().filter_map(paired) {
        first.entry(key).or_insert(number);
    }
    let mut entries = Vec::with_capacity(lines.len());
    for (i, line) in lines.iter().enumerate() {
        let Some(said) = &line.said else {
            entries.push(Entry::new(Finding::Unreadable, Some(i), None));
            continue;
        };
        entries.push(match pairs.of_line[i] {
            Some(at) => Entry::of_pair(i, said, at, &ours[at], zone),
            None => alone_there(i, line.number, said, &mut first),
        });
    }
    let has_line = |(i, _): &(usize, &Ours)| pairs.has_line.contains(i);
    let mut known: HashMap<Key, Uuid> = HashMap::new();
    for (_, it) in ours.iter().enumerate().filter(has_line) {
        known.entry(it.key()).or_insert(it.id);
    }
    for (i, it) in ours.iter().enumerate().filter(|it| !has_line(it)) {
        if !it.is_in_range || it.status == Status::Ignored {
            continue;
        }
        let twin = known.get(&it.key()).map(|id| Twin::Conversion(*id));
        let finding = if twin.is_some() { Finding::Doubled } else { Finding::MissingThere };
        entries.push(Entry { twin, ..Entry::new(finding, None, Some(i)) });
    }
    entries
}

/// A line that has no conversion: the same once more, or what is missing; or nothing, because it says that it is none.
fn alone_there(i: usize, number: u64, said: &Said, first: &mut HashMap<Key, u64>) -> Entry {
    if said.status == Some(Status::Ignored) {
        return Entry::new(Finding::Matched, Some(i), None);
    }
    let twin = said.key().and_then(|key| {
        let known = *first.entry(key).or_insert(number);
        (known != number).then_some(Twin::Line(known))
    });
    let finding = if twin.is_some() { Finding::Doubled } else { Finding::MissingHere };
    Entry { twin, ..Entry::new(finding, Some(i), None) }
}

/// Which line is which conversion.
struct Pairs {
    /// Of each line, its conversion.
    of_line: Vec<Option<usize>>,
    has_line: HashSet<usize>,
}

impl Pairs {
    /// Those that fit best first, and of equals in the order of lines and conversions.
    fn of(lines: &[Line], ours: &[Ours], zone: Tz) -> Self {
        let mut of_click: HashMap<Uuid, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (i, line) in lines.iter().enumerate() {
            if let Some(leg) = line.said.as_ref().and_then(|said| said.leg.ok()) {
                of_click.entry(leg.click_id.uuid()).or_default().0.push(i);
            }
        }
        for (i, it) in ours.iter().enumerate() {
            if let Some((_, ours)) = of_click.get_mut(&it.click_id) {
                ours.push(i);
            }
        }
        let mut pairs = Self { of_line: vec![None; lines.len()], has_line: HashSet::new() };
        let fits = |line: usize, at: usize| lines[line].said.as_ref()?.fits(&ours[at], zone);
        for (lines, mut ours) in of_click.into_values() {
            let ranks: HashSet<u8> =
                lines.iter().flat_map(|line| ours.iter().filter_map(|at| fits(*line, *at))).collect();
            let mut ranks: Vec<u8> = ranks.into_iter().collect();
            ranks.sort_unstable();
            for rank in ranks.into_iter().rev() {
                for line in &lines {
                    if pairs.of_line[*line].is_some() {
                        continue;
                    }
                    let Some(place) = ours.iter().position(|at| fits(*line, *at) == Some(rank)) else {
                        continue;
                    };
                    let at = ours.remove(place);
                    pairs.of_line[*line] = Some(at);
                    pairs.has_line.insert(at);
                }
            }
        }
        pairs
    }
}

/// How many entries there are of each kind, and the sums of what counts of their amounts: of every kind, also of those that
/// there are none of.
pub fn totals(entries: &[Entry], lines: &[Line], ours: &[Ours]) -> BTreeMap<Finding, Total> {
    let mut totals: BTreeMap<Finding, Total> = Finding::iter().map(|it| (it, Total::default())).collect();
    for entry in entries {
        let total = totals.entry(entry.finding).or_default();
        total.count += 1;
        let ours = entry.ours.map(|i| &ours[i]);
        if let Some(said) = entry.line.and_then(|i| lines[i].said.as_ref())
            && said.amount.is_some()
        {
            let currency = said.currency.or(ours.map(|ours| ours.currency)).unwrap_or(Currency::UNKNOWN);
            total.amounts.entry(currency).or_default().0 += said.counted();
        }
        if let Some(ours) = ours {
            total.amounts.entry(ours.currency).or_default().1 += ours.payout;
        }
    }
    totals
}
