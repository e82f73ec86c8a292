//! The report of a network beside what is stored. Only asks: nothing of the file is kept and nothing is changed. What is
//! compared with what, and what comes of it, is `money::reconcile`.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    db::{
        self, Db,
        store::{
            affiliate_networks::AffiliateNetwork,
            library,
            reconciliation::{self as store, Conversion},
        },
    },
    imports::{self, FileFault},
    model::{
        conversion::{ConversionKind, ReportDate},
        id::ClickId,
        network::PostbackRules,
    },
    money::reconcile::{self, Change, Entry, Facts, Finding, Hop, Line, Ours, Report, Told, Total},
};

/// Clicks, or conversions, of one statement.
const CHUNK: usize = 1000;

/// How long before a range the postbacks come that are of it.
const COMES_BEFORE: TimeDelta = TimeDelta::days(1);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose report it is.
    pub network_id: i64,
    /// Conversions of this time or later
    pub from: DateTime<Utc>,
    /// and before this one must be in the report.
    pub to: DateTime<Utc>,
    /// How its lines are read.
    pub report: Report,
    /// Lines of a file at most.
    pub lines_max: usize,
    /// Conversions of ours that are looked at at most.
    pub rows_max: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no such network.
    #[error("is no affiliate network")]
    NoNetwork,
    /// There is no such report.
    #[error(transparent)]
    File(#[from] FileFault),
    /// There is more than can be compared.
    #[error(
        "there are more than {0} conversions of this range and of these clicks (postbacks.reconcile_rows_max); ask for less"
    )]
    TooMany(usize),
    /// The database gives no answer.
    #[error(transparent)]
    Db(#[from] db::Error),
    /// The lines could not be compared.
    #[error("the report could not be compared")]
    Failed(#[from] tokio::task::JoinError),
}

/// What comes of a report.
#[derive(Debug)]
pub struct Reconciliation {
    /// What was asked.
    pub question: Question,
    /// The lines of the report.
    pub lines: Vec<Line>,
    /// What of ours they were compared with.
    pub ours: Vec<Ours>,
    /// What comes of each.
    pub entries: Vec<Entry>,
}

impl Reconciliation {
    /// How many there are of each kind, and how much.
    pub fn totals(&self) -> std::collections::BTreeMap<Finding, Total> {
        reconcile::totals(&self.entries, &self.lines, &self.ours)
    }
}

/// Compares a report with what is stored; `progress` is told how many of its lines were looked up.
pub async fn reconcile(
    db: &Db,
    question: Question,
    bytes: impl AsRef<[u8]> + Send + 'static,
    mut progress: impl FnMut(usize, usize),
) -> Result<Reconciliation, Fault> {
    let network = library::get::<AffiliateNetwork>(db, question.network_id).await?;
    let rules = network.ok_or(Fault::NoNetwork)?.terms.rules();
    let lines = read(&question, bytes, rules.clone()).await?;
    let ours = conversions_of(db, &question, &lines, &mut progress).await?;
    let zone = question.report.zone;
    let (lines, ours, mut entries) = tokio::task::spawn_blocking(move || {
        let entries = reconcile::compare(&lines, &ours, zone);
        (lines, ours, entries)
    })
    .await?;
    let mut facts = Facts { network_id: question.network_id, ..Facts::default() };
    add_clicks(db, &rules, &entries, &lines, &mut facts).await?;
    add_changes(db, &entries, &ours, &mut facts).await?;
    facts.explain(&mut entries, &lines, &ours);
    if entries.iter().any(|entry| was_not_heard(entry) && has_txid(&lines, entry)) {
        let (from, rows_max) = (question.from - COMES_BEFORE, question.rows_max);
        for row in store::list_lost(db, question.network_id, from, rows_max).await? {
            let told = told(&row, &rules)?;
            facts.lost.entry(told.txid.clone()).or_insert(told);
        }
        facts.explain(&mut entries, &lines, &ours);
    }
    Ok(Reconciliation { question, lines, ours, entries })
}

/// The lines of a file. Where there are many this takes a moment, in which nobody else is to wait.
async fn read(
    question: &Question,
    bytes: impl AsRef<[u8]> + Send + 'static,
    rules: PostbackRules,
) -> Result<Vec<Line>, Fault> {
    let (report, lines_max) = (question.report, question.lines_max);
    let read = move || {
        let lines = imports::read_params(bytes.as_ref(), lines_max)?;
        let line =
            |(number, params): (u64, Option<String>)| Line::read(number, params.as_deref(), &rules, report);
        Ok(lines.into_iter().map(line).collect())
    };
    tokio::task::spawn_blocking(read).await?
}

/// The conversions of the range, and those of the clicks of the report; oldest first.
async fn conversions_of(
    db: &Db,
    question: &Question,
    lines: &[Line],
    progress: &mut impl FnMut(usize, usize),
) -> Result<Vec<Ours>, Fault> {
    let Question { network_id, from, to, report, rows_max, .. } = *question;
    let range = store::list_of_range(db, network_id, report.date, (from, to), rows_max).await?;
    let mut found: HashMap<Uuid, Conversion> = range.into_iter().map(|row| (row.id, row)).collect();
    let clicks = clicks_of(lines.iter());
    let mut done = 0;
    for chunk in clicks.chunks(CHUNK) {
        let rows = store::list_of_clicks(db, chunk.iter().map(|click| click.uuid()).collect()).await?;
        // what another network told of is not of this report; what nobody is known to have told of may be
        let is_of_network = |row: &Conversion| row.network_id.is_none_or(|id| id == network_id);
        found.extend(rows.into_iter().filter(is_of_network).map(|row| (row.id, row)));
        if found.len() > rows_max {
            return Err(Fault::TooMany(rows_max));
        }
        done += chunk.len();
        progress(done, clicks.len());
    }
    if found.len() > rows_max {
        return Err(Fault::TooMany(rows_max));
    }
    let mut rows: Vec<Conversion> = found.into_values().collect();
    rows.sort_unstable_by_key(|row| (row.first_at, row.id));
    rows.into_iter().map(|row| ours(row, question)).collect()
}

/// Each click once, in the order of their ids.
fn clicks_of<'l>(lines: impl Iterator<Item = &'l Line>) -> Vec<ClickId> {
    let mut clicks: Vec<ClickId> =
        lines.filter_map(|line| Some(line.said.as_ref()?.leg.ok()?.click_id)).collect();
    clicks.sort_unstable();
    clicks.dedup();
    clicks
}

fn ours(row: Conversion, question: &Question) -> Result<Ours, Fault> {
    let at = match question.report.date {
        ReportDate::Conversion => row.converted_at,
        ReportDate::Click => row.clicked_at,
    };
    let is_of_network = row.network_id == Some(question.network_id);
    Ok(Ours {
        id: row.id,
        click_id: row.click_id,
        offer_id: row.offer_id,
        goal: row.goal,
        txid: row.txid,
        is_rebill: row.kind.parse() == Ok(ConversionKind::Rebill),
        status: row.status.parse().map_err(decode)?,
        status_text: row.status_text,
        payout: row.payout,
        currency: row.currency.parse().map_err(decode)?,
        at,
        is_in_range: is_of_network && (question.from..question.to).contains(&at),
    })
}

/// A word of a table that is none of ours.
fn decode(error: impl std::fmt::Display) -> db::Error {
    let source = sqlx::Error::Decode(error.to_string().into());
    db::Error::Query { query: "reconciliation.list_of_clicks", source }
}

/// What is stored of the clicks of lines that have no conversion.
async fn add_clicks(
    db: &Db,
    rules: &PostbackRules,
    entries: &[Entry],
    lines: &[Line],
    facts: &mut Facts,
) -> Result<(), Fault> {
    let missing = entries.iter().filter(|entry| entry.finding == Finding::MissingHere);
    let clicks = clicks_of(missing.filter_map(|entry| Some(&lines[entry.line?])));
    for chunk in clicks.chunks(CHUNK) {
        facts.clicks.extend(store::find_clicks(db, chunk.to_vec()).await?);
        let ids: Vec<Uuid> = chunk.iter().map(|click| click.uuid()).collect();
        let (rows, rules) = (store::list_told(db, ids).await?, rules.clone());
        let read = move || {
            let of_click = |row: store::Told| {
                let click_id = row.click_id?;
                Some(told(&row, &rules).map(|told| (click_id, told)))
            };
            rows.into_iter().filter_map(of_click).collect::<Result<Vec<_>, db::Error>>()
        };
        for (click_id, told) in tokio::task::spawn_blocking(read).await?? {
            facts.told.entry(click_id).or_default().push(told);
        }
    }
    Ok(())
}

fn told(row: &store::Told, rules: &PostbackRules) -> Result<Told, db::Error> {
    let outcome = row.outcome.parse().map_err(decode)?;
    let reason = row.reason.as_deref().map(str::parse).transpose().map_err(decode)?;
    Ok(Told::new(row.id, row.network_id, outcome, reason, &row.params, rules))
}

/// What changed last of conversions that differ from their lines.
async fn add_changes(db: &Db, entries: &[Entry], ours: &[Ours], facts: &mut Facts) -> Result<(), Fault> {
    let differing: HashSet<Uuid> = entries
        .iter()
        .filter(|entry| !entry.differences.is_empty())
        .filter_map(|entry| Some(ours[entry.ours?].id))
        .collect();
    let differing: Vec<Uuid> = differing.into_iter().collect();
    for chunk in differing.chunks(CHUNK) {
        for row in store::list_changes(db, chunk.to_vec()).await? {
            let store::Change { conversion_id, postback_id, cause, from_status, to_status, changed_at } = row;
            let change = Change { postback_id, cause, from_status, to_status, changed_at };
            facts.changes.insert(conversion_id, change);
        }
    }
    Ok(())
}

/// Whether nothing was found of it under its click.
fn was_not_heard(entry: &Entry) -> bool {
    matches!(entry.hop, Some(Hop::NeverArrived | Hop::UnknownClick))
}

fn has_txid(lines: &[Line], entry: &Entry) -> bool {
    let said = entry.line.and_then(|i| lines[i].said.as_ref());
    said.is_some_and(|said| !said.txid.is_empty())
}
