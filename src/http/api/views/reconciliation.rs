//! What comes of the report of a network, as the API and the command line show it.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    model::{
        conversion::{OutcomeReason, ReportDate, Status},
        money::amount_text,
        text::csv_cell,
    },
    money::reconcile::{self, Change, Difference, Finding, Hop, Ours, Said},
    reconciliation,
};

/// What a report says beside what is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reconciliation {
    /// Whose report it is.
    #[schema(example = 3)]
    pub(crate) network: i64,
    /// Conversions of this time or later
    pub(crate) from: DateTime<Utc>,
    /// and before this one must be in it.
    pub(crate) to: DateTime<Utc>,
    /// The zone of its days and times.
    #[schema(value_type = String, format = "time-zone", example = "Europe/Berlin")]
    pub(crate) tz: Tz,
    /// Which day its lines have.
    pub(crate) date: ReportDate,
    /// Its lines.
    #[schema(minimum = 0, example = 1200)]
    pub(crate) lines: usize,
    /// Conversions of ours in the range.
    #[schema(minimum = 0, example = 1203)]
    pub(crate) conversions: usize,
    /// Of how many lines something is not compared, because they do not say it, or not so that it can be read.
    pub(crate) unsaid: Unsaid,
    /// Of each outcome how many, and how much.
    pub(crate) totals: Vec<Total>,
    /// Whatever is not matched: lines in their order, and then conversions that no line is.
    pub(crate) data: Vec<Entry>,
}

/// Of how many lines something is not compared.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciliationUnsaid)]
pub(crate) struct Unsaid {
    /// The state.
    #[schema(minimum = 0, example = 0)]
    pub(crate) status: usize,
    /// The amount.
    #[schema(minimum = 0, example = 3)]
    pub(crate) amount: usize,
    /// The day.
    #[schema(minimum = 0, example = 0)]
    pub(crate) day: usize,
}

/// How many have an outcome, and how much.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciliationTotal)]
pub(crate) struct Total {
    /// The outcome.
    pub(crate) outcome: Finding,
    /// How many: lines with their conversions, or one of them alone.
    #[schema(minimum = 0, example = 1190)]
    pub(crate) count: usize,
    /// Their sums, a currency each; no currency is added to another.
    pub(crate) amounts: Vec<Amounts>,
}

/// Sums of amounts in a currency. What is rejected or refunded counts 0.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciliationAmounts)]
pub(crate) struct Amounts {
    /// ISO 4217; `XXX` where neither line nor network says which it is.
    #[schema(example = "USD")]
    pub(crate) currency: String,
    /// Of the report.
    #[schema(example = "11900.00")]
    pub(crate) theirs: String,
    /// Of ours.
    #[schema(example = "11890.00")]
    pub(crate) ours: String,
    /// How much more is in the report.
    #[schema(example = "10.00")]
    pub(crate) difference: String,
}

/// A line that is not as its conversion, or one of them alone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciliationEntry)]
pub(crate) struct Entry {
    /// What came of it: of several differences the first.
    pub(crate) outcome: Finding,
    /// All that differs.
    #[schema(example = json!(["amount"]))]
    pub(crate) differences: Vec<Difference>,
    /// The number of the line in the file, from 1.
    #[schema(minimum = 1, example = 2)]
    pub(crate) line: Option<u64>,
    /// The click.
    pub(crate) click_id: Option<Uuid>,
    /// The network's id of it.
    #[schema(example = "T-1001")]
    pub(crate) transaction_id: Option<String>,
    /// What was reached.
    #[schema(example = "deposit")]
    pub(crate) goal: Option<String>,
    /// What the line says; null: there is none, or it cannot be read.
    pub(crate) theirs: Option<Theirs>,
    /// What is stored; null: nothing.
    pub(crate) ours: Option<OfOurs>,
    /// Where it was lost, or what says most about the difference.
    pub(crate) hop: Option<Hop>,
    /// Why the postback that tells of it did not count.
    pub(crate) reason: Option<OutcomeReason>,
    /// That postback, or the one that last changed the conversion.
    pub(crate) postback_id: Option<Uuid>,
    /// What changed last of the conversion, where something differs.
    pub(crate) last_change: Option<Change>,
    /// In a sentence.
    #[schema(example = "The click is ours, and no postback came that tells of this.")]
    pub(crate) detail: String,
}

/// What a line says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciliationTheirs)]
pub(crate) struct Theirs {
    /// What its word for the state means; null: it has none.
    pub(crate) status: Option<Status>,
    /// That word.
    #[schema(example = "confirmed")]
    pub(crate) status_text: Option<String>,
    /// What it pays; null: it says no amount that can be read.
    #[schema(example = "1.50")]
    pub(crate) amount: Option<String>,
    /// The currency of that, by the line, the request or the network.
    #[schema(example = "USD")]
    pub(crate) currency: Option<String>,
    /// When, where it says a time.
    pub(crate) at: Option<DateTime<Utc>>,
    /// On which day of the zone.
    pub(crate) day: Option<NaiveDate>,
}

/// What is stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReconciliationOurs)]
pub(crate) struct OfOurs {
    /// The conversion.
    pub(crate) conversion_id: Uuid,
    /// Its state.
    pub(crate) status: Status,
    /// What counts of it.
    #[schema(example = "1.50")]
    pub(crate) amount: String,
    /// In this currency.
    #[schema(example = "USD")]
    pub(crate) currency: String,
    /// When it happened; or its click, where lines have that day.
    pub(crate) at: DateTime<Utc>,
    /// On which day of the zone.
    pub(crate) day: NaiveDate,
}

impl Reconciliation {
    /// As it is shown.
    pub(crate) fn of(found: &reconciliation::Reconciliation) -> Self {
        let question = &found.question;
        let said = || found.lines.iter().filter_map(|line| line.said.as_ref());
        let is_shown = |entry: &&reconcile::Entry| entry.finding != Finding::Matched;
        Self {
            network: question.network_id,
            from: question.from,
            to: question.to,
            tz: question.report.zone,
            date: question.report.date,
            lines: found.lines.len(),
            conversions: found.ours.iter().filter(|ours| ours.is_in_range).count(),
            unsaid: Unsaid {
                status: said().filter(|said| said.status.is_none()).count(),
                amount: said().filter(|said| said.amount.is_none()).count(),
                day: said().filter(|said| said.day.is_none()).count(),
            },
            totals: found.totals().iter().map(|(outcome, total)| Total::of(*outcome, total)).collect(),
            data: found.entries.iter().filter(is_shown).map(|entry| Entry::of(entry, found)).collect(),
        }
    }

    /// How many of each outcome and how much, for people.
    pub(crate) fn table(&self) -> String {
        let mut rows = vec![["", "count", "", "theirs", "ours", "difference"].map(str::to_owned)];
        for total in &self.totals {
            let name = <&str>::from(total.outcome).replace('_', " ");
            let money = total
                .amounts
                .iter()
                .map(|it| [it.currency.clone(), it.theirs.clone(), it.ours.clone(), it.difference.clone()]);
            let mut money = money.collect::<Vec<_>>();
            if money.is_empty() {
                money.push(Default::default());
            }
            for (i, [currency, theirs, ours, difference]) in money.into_iter().enumerate() {
                let head = if i == 0 { [name.clone(), total.count.to_string()] } else { Default::default() };
                let [name, count] = head;
                rows.push([name, count, currency, theirs, ours, difference]);
            }
        }
        let width = |i: usize| rows.iter().map(|row| row[i].len()).max().unwrap_or_default();
        let widths: [usize; 6] = std::array::from_fn(width);
        let line = |row: &[String; 6]| {
            let cell = |i: usize| match i {
                0 | 2 => format!("{:<1$}", row[i], widths[i]), // texts
                _ => format!("{:>1$}", row[i], widths[i]),
            };
            (0..6).map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        rows.iter().map(line).collect()
    }

    /// Whatever is not matched, a line each.
    pub(crate) fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(COLUMNS)?;
        for entry in &self.data {
            writer.write_record(entry.record())?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }
}

/// The columns of [`Reconciliation::csv`].
const COLUMNS: [&str; 20] = [
    "outcome",
    "differences",
    "line",
    "click_id",
    "transaction_id",
    "goal",
    "their_status",
    "their_amount",
    "their_currency",
    "their_day",
    "our_status",
    "our_amount",
    "our_currency",
    "our_day",
    "conversion_id",
    "hop",
    "reason",
    "postback_id",
    "last_changed_at",
    "detail",
];

impl Total {
    fn of(outcome: Finding, total: &reconcile::Total) -> Self {
        let amounts = total.amounts.iter().map(|(currency, (theirs, ours))| Amounts {
            currency: currency.to_string(),
            theirs: amount_text(*theirs),
            ours: amount_text(*ours),
            difference: amount_text(theirs - ours),
        });
        Self { outcome, count: total.count, amounts: amounts.collect() }
    }
}

impl Entry {
    fn of(entry: &reconcile::Entry, found: &reconciliation::Reconciliation) -> Self {
        let line = entry.line.map(|i| &found.lines[i]);
        let said = line.and_then(|line| line.said.as_ref());
        let ours = entry.ours.map(|i| &found.ours[i]);
        let text = |theirs: Option<&String>, ours: Option<&String>| {
            theirs.filter(|text| !text.is_empty()).or(ours.filter(|text| !text.is_empty())).cloned()
        };
        let click_id = said.and_then(|said| said.leg.ok()).map(|leg| leg.click_id.uuid());
        Self {
            outcome: entry.finding,
            differences: entry.differences.clone(),
            line: line.map(|line| line.number),
            click_id: click_id.or(ours.map(|ours| ours.click_id)),
            transaction_id: text(said.map(|said| &said.txid), ours.map(|ours| &ours.txid)),
            goal: text(said.map(|said| &said.goal), ours.map(|ours| &ours.goal)),
            theirs: said.map(Theirs::of),
            ours: ours.map(|ours| OfOurs::of(ours, found.question.report.zone)),
            hop: entry.hop,
            reason: entry.reason,
            postback_id: entry.postback_id,
            last_change: entry.last_change.clone(),
            detail: entry.in_words(&found.lines, &found.ours),
        }
    }

    fn record(&self) -> [String; 20] {
        let differences: Vec<&str> = self.differences.iter().map(|it| (*it).into()).collect();
        let (theirs, ours) = (self.theirs.as_ref(), self.ours.as_ref());
        let cell = |text: Option<&String>| text.map_or_else(String::new, |text| csv_cell(text).into_owned());
        [
            self.outcome.to_string(),
            differences.join(" "),
            or_nothing(self.line),
            or_nothing(self.click_id),
            cell(self.transaction_id.as_ref()),
            cell(self.goal.as_ref()),
            or_nothing(theirs.and_then(|it| it.status)),
            or_nothing(theirs.and_then(|it| it.amount.as_ref())),
            or_nothing(theirs.and_then(|it| it.currency.as_ref())),
            or_nothing(theirs.and_then(|it| it.day)),
            or_nothing(ours.map(|it| it.status)),
            or_nothing(ours.map(|it| &it.amount)),
            or_nothing(ours.map(|it| &it.currency)),
            or_nothing(ours.map(|it| it.day)),
            or_nothing(ours.map(|it| it.conversion_id)),
            or_nothing(self.hop),
            or_nothing(self.reason),
            or_nothing(self.postback_id),
            or_nothing(self.last_change.as_ref().map(|change| change.changed_at.to_rfc3339())),
            self.detail.clone(),
        ]
    }
}

fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

impl Theirs {
    fn of(said: &Said) -> Self {
        Self {
            status: said.status,
            status_text: said.status_text.clone(),
            amount: said.amount.map(|amount: Decimal| amount_text(amount)),
            currency: said.currency.map(|currency| currency.to_string()),
            at: said.at,
            day: said.day,
        }
    }
}

impl OfOurs {
    fn of(ours: &Ours, zone: Tz) -> Self {
        Self {
            conversion_id: ours.id,
            status: ours.status,
            amount: amount_text(ours.payout),
            currency: ours.currency.to_string(),
            at: ours.at,
            day: ours.at.with_timezone(&zone).date_naive(),
        }
    }
}
