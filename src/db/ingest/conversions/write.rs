//! What was derived and is not stored so, written within the transaction that derived it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::{
    Judged, Outcomes, Told,
    read::{ClickRow, LedgerRow, Sources},
};
use crate::{
    db::{
        Statement,
        ingest::{
            column,
            copy::{CopyData, copy_in},
        },
        session::Session,
        statement::statements,
        text::Text,
    },
    facts::postback::Postback,
    model::{
        conversion::{Outcome, OutcomeReason, Status},
        id::ClickId,
    },
    money::conversions::{Conversion, Derived, Move},
};

/// What a row of the ledger has beside the fact: outcome, reason, network, conversion.
const OUTCOME_COLUMNS: usize = 4;

/// COPY, here and below: the rows are new, and it takes half of what an INSERT of arrays does.
const COPY_POSTBACKS: Statement =
    Statement::new("postbacks.copy_batch", const { copy_postbacks_text() }.as_str());

const fn copy_postbacks_text() -> Text<512> {
    let text = Text::new().and("COPY postbacks (").names(Postback::COLUMNS, true);
    text.and(", outcome, reason, network_id, conversion_id) FROM STDIN (FORMAT binary)")
}

/// What is of the click is copied when the conversion is made, and stays; but for the offer, which an out-click may tell
/// that is stored only later.
const COPY_CONVERSIONS: Statement = Statement::new(
    "conversions.copy_batch",
    "COPY conversions (
    id, campaign_id, click_id, network_id, goal, txid, nth, kind, status, status_text, status_detail, payout,
    original_payout, sale_amount, currency, flags, numbers, rule_id, path_id, landing_page_id, offer_id, source_id,
    country, device, os, browser, sub1, sub2, sub3, sub4, sub5, keyword, creative, placement, is_click_valid,
    converted_at, first_at, last_at, created_at, invalid_reason, language, region, city, isp, connection, os_version,
    browser_version, referrer_host, affiliate_sub, affiliate_sub2, affiliate_sub3, affiliate_sub4, affiliate_sub5
) FROM STDIN (FORMAT binary)",
);
const CONVERSION_COLUMNS: usize = 53;

const COPY_CHANGES: Statement = Statement::new(
    "conversion_changes.copy_batch",
    "COPY conversion_changes (
    campaign_id, conversion_id, click_id, postback_id, cause, from_status, to_status, payout, revenue, currency,
    changed_at, created_at
) FROM STDIN (FORMAT binary)",
);
const CHANGE_COLUMNS: usize = 12;

statements! {
    UPDATE_POSTBACKS = "postbacks.update_outcomes": "
UPDATE postbacks p
SET outcome = t.outcome,
    reason = t.reason,
    network_id = t.network_id,
    conversion_id = t.conversion_id
FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::text[], $5::int8[], $6::uuid[])
    AS t (created_at, id, outcome, reason, network_id, conversion_id)
WHERE p.created_at = t.created_at
  AND p.id = t.id";

    UPDATE = "conversions.update_batch": "
UPDATE conversions v
SET network_id = t.network_id,
    kind = t.kind,
    status = t.status,
    status_text = t.status_text,
    status_detail = t.status_detail,
    payout = t.payout,
    original_payout = t.original_payout,
    sale_amount = t.sale_amount,
    currency = t.currency,
    flags = string_to_array(t.flags, ','),
    numbers = t.numbers::jsonb,
    offer_id = t.offer_id,
    converted_at = t.converted_at,
    first_at = t.first_at,
    last_at = t.last_at
FROM unnest(
    $1::uuid[], $2::uuid[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::numeric[], $9::numeric[],
    $10::numeric[], $11::text[], $12::text[], $13::text[], $14::int8[], $15::timestamptz[], $16::timestamptz[],
    $17::timestamptz[]
) AS t (
    id, campaign_id, network_id, kind, status, status_text, status_detail, payout, original_payout, sale_amount,
    currency, flags, numbers, offer_id, converted_at, first_at, last_at
)
WHERE v.id = t.id
  AND v.campaign_id = t.campaign_id";

    UNMAKE = "conversions.unmake": "
UPDATE conversions
SET status = 'ignored',
    original_payout = coalesce(original_payout, payout),
    payout = 0
FROM unnest($1::uuid[], $2::uuid[]) AS t (id, campaign_id)
WHERE conversions.id = t.id
  AND conversions.campaign_id = t.campaign_id";

    SET_STORED = "conversions.set_stored": "
UPDATE conversion_clicks SET state = 'stored' WHERE click_id = ANY ($1) AND state <> 'stored'";

    // A join with so many partitions would be planned as one that reads them all; the function sees to it that it is not.
    UPDATE_CLICKS = "clicks.note_conversions": "SELECT octo_note_conversions($1, $2, $3, $4)";
}

/// What became of a postback, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LedgerOutcome {
    pub(super) outcome: Outcome,
    pub(super) reason: Option<OutcomeReason>,
    pub(super) network_id: Option<i64>,
    pub(super) conversion_id: Option<Uuid>,
}

impl LedgerOutcome {
    pub(super) fn new(outcome: Outcome, reason: Option<OutcomeReason>, network_id: Option<i64>) -> Self {
        Self { outcome, reason, network_id, conversion_id: None }
    }

    fn is_as(&self, row: &LedgerRow) -> bool {
        row.outcome == <&str>::from(self.outcome)
            && row.reason.as_deref() == self.reason.map(<&str>::from)
            && row.network_id == self.network_id
            && row.conversion_id == self.conversion_id
    }
}

/// A conversion as it is stored, but for what is of its click.
#[derive(Debug)]
pub(super) struct ConversionRow {
    pub(super) id: Uuid,
    campaign_id: Uuid,
    click_id: Uuid,
    pub(super) network_id: Option<i64>,
    goal: String,
    txid: String,
    nth: i32,
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) status_text: Option<String>,
    pub(super) status_detail: Option<String>,
    pub(super) payout: Decimal,
    pub(super) original_payout: Option<Decimal>,
    pub(super) sale_amount: Option<Decimal>,
    pub(super) currency: String,
    pub(super) flags: Vec<&'static str>,
    pub(super) numbers: Option<BTreeMap<String, Decimal>>,
    pub(super) offer_id: Option<i64>,
    pub(super) converted_at: DateTime<Utc>,
    pub(super) first_at: DateTime<Utc>,
    pub(super) last_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl ConversionRow {
    pub(super) fn new(id: Uuid, click_id: ClickId, click: &ClickRow, conversion: &Conversion) -> Self {
        let numbers = conversion.numbers.iter().map(|(number, value)| (format!("event{number}"), *value));
        let numbers: BTreeMap<String, Decimal> = numbers.collect();
        Self {
            id,
            campaign_id: click.campaign_id,
            click_id: click_id.uuid(),
            network_id: conversion.network_id,
            goal: conversion.key.goal.clone(),
            txid: conversion.key.txid.clone(),
            nth: conversion.key.nth,
            kind: conversion.kind.into(),
            status: conversion.status.into(),
            status_text: conversion.status_text.clone(),
            status_detail: conversion.status_detail.clone(),
            payout: conversion.payout,
            original_payout: conversion.original_payout,
            sale_amount: conversion.sale_amount,
            currency: conversion.currency.to_string(),
            flags: conversion.flags.iter().map(|flag| <&str>::from(*flag)).collect(),
            numbers: (!numbers.is_empty()).then_some(numbers),
            offer_id: conversion.offer_id,
            converted_at: conversion.converted_at,
            first_at: conversion.first_at,
            last_at: conversion.last_at,
            created_at: click_id.created_at(),
        }
    }

    fn numbers(&self) -> Option<String> {
        self.numbers.as_ref().map(|numbers| serde_json::json!(numbers).to_string())
    }

    /// Writes its row, with what is of its click.
    fn write(&self, click: &ClickRow, data: &mut CopyData) {
        data.begin();
        data.uuid(Some(self.id));
        data.uuid(Some(self.campaign_id));
        data.uuid(Some(self.click_id));
        data.int8(self.network_id);
        data.text(Some(&self.goal));
        data.text(Some(&self.txid));
        data.int4(self.nth);
        data.text(Some(self.kind));
        data.text(Some(self.status));
        data.text(self.status_text.as_deref());
        data.text(self.status_detail.as_deref());
        data.numeric(Some(self.payout));
        data.numeric(self.original_payout);
        data.numeric(self.sale_amount);
        data.text(Some(&self.currency));
        data.texts(Some(&self.flags));
        data.jsonb(self.numbers().as_deref());
        for id in [click.rule_id, click.path_id, click.landing_page_id, self.offer_id, click.source_id] {
            data.int8(id);
        }
        for text in click.texts() {
            data.text(text);
        }
        data.bool(click.is_valid);
        for at in [self.converted_at, self.first_at, self.last_at, self.created_at] {
            data.timestamptz(Some(at));
        }
        for text in click.more_texts() {
            data.text(text);
        }
    }
}

/// A row of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::db) struct BookRow {
    campaign_id: Uuid,
    pub(in crate::db) conversion_id: Uuid,
    pub(in crate::db) click_id: Uuid,
    postback_id: Option<Uuid>,
    pub(in crate::db) from_status: Option<Status>,
    pub(in crate::db) to_status: Status,
    pub(in crate::db) payout: Decimal,
    pub(in crate::db) revenue: Decimal,
    pub(in crate::db) currency: String,
    changed_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl BookRow {
    pub(super) fn new(
        conversion_id: Uuid,
        click_id: ClickId,
        campaign_id: Uuid,
        postback_id: Option<Uuid>,
        changed_at: DateTime<Utc>,
        moved: Move,
    ) -> Self {
        Self {
            campaign_id,
            conversion_id,
            click_id: click_id.uuid(),
            postback_id,
            from_status: moved.from,
            to_status: moved.to,
            payout: moved.payout,
            revenue: moved.revenue,
            currency: moved.currency.to_string(),
            changed_at,
            created_at: click_id.created_at(),
        }
    }

    fn write(&self, data: &mut CopyData) {
        data.begin();
        data.uuid(Some(self.campaign_id));
        data.uuid(Some(self.conversion_id));
        data.uuid(Some(self.click_id));
        data.uuid(self.postback_id);
        data.text(Some(if self.postback_id.is_none() { "derived_again" } else { "postback" }));
        data.text(self.from_status.map(<&str>::from));
        data.text(Some(self.to_status.into()));
        data.numeric(Some(self.payout));
        data.numeric(Some(self.revenue));
        data.text(Some(&self.currency));
        data.timestamptz(Some(self.changed_at));
        data.timestamptz(Some(self.created_at));
    }
}

/// A click with its `conversion_type` and `converted_at`.
type ConvertedClick = (ClickId, Option<String>, Option<DateTime<Utc>>);

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Outcomes of postbacks that are not stored yet.
    new: HashMap<Uuid, LedgerOutcome>,
    /// Of those that are, where they changed: time, id, outcome.
    judged_anew: Vec<(DateTime<Utc>, Uuid, LedgerOutcome)>,
    /// Conversions that are not stored yet.
    pub(super) made: Vec<ConversionRow>,
    /// Conversions that are stored as something else.
    pub(super) changed: Vec<ConversionRow>,
    /// Conversions that are none any more, with their campaigns.
    pub(super) unmade: Vec<(Uuid, Uuid)>,
    pub(super) book: Vec<BookRow>,
    /// Clicks whose postbacks waited, or do not any more.
    pub(super) open: HashSet<ClickId>,
    /// Those of them that are stored now.
    pub(super) stored: Vec<ClickId>,
    clicks: Vec<ConvertedClick>,
    pub(super) told: Told,
}

impl Written {
    /// Nothing yet, with clicks whose postbacks wait, or do not any more.
    pub(super) fn with_open(open: HashSet<ClickId>) -> Self {
        Self { open, ..Self::default() }
    }

    /// Notes what became of a postback.
    pub(super) fn judge(&mut self, row: &LedgerRow, outcome: LedgerOutcome) {
        if row.is_new() {
            self.new.insert(row.id, outcome);
        } else if !outcome.is_as(row) {
            self.judged_anew.push((row.at(), row.id, outcome));
        }
    }

    /// The click is not stored yet.
    pub(super) fn wait(&mut self, rows: &[LedgerRow]) {
        for row in rows.iter().filter(|row| row.is_new()) {
            self.new.insert(row.id, LedgerOutcome::new(Outcome::Waiting, None, row.key_network_id));
        }
    }

    /// `clicks.conversion_type` is the goal of the last conversion that counts, else `conversion`; `converted_at` is when the
    /// first one happened.
    pub(super) fn note_click(&mut self, click_id: ClickId, click: &ClickRow, derived: &Derived) {
        let counted = || derived.conversions.iter().filter(|conversion| conversion.status.has_money());
        let of_goal = |goal: &str| if goal.is_empty() { "conversion" } else { goal }.to_owned();
        let last = counted().next_back().map(|conversion| of_goal(&conversion.key.goal));
        let first = counted().map(|conversion| conversion.converted_at).min();
        if click.conversion_type != last || click.converted_at != first {
            self.clicks.push((click_id, last, first));
        }
    }

    /// Writes everything but the postbacks that are not stored yet.
    pub(super) async fn apply(self, c: &mut Session<'_>, sources: &Sources) -> sqlx::Result<Outcomes> {
        if !self.judged_anew.is_empty() {
            update_postbacks(c, &self.judged_anew).await?;
        }
        if !self.made.is_empty() {
            insert_conversions(c, &self.made, sources).await?;
        }
        if !self.changed.is_empty() {
            update_conversions(c, &self.changed).await?;
        }
        if !self.unmade.is_empty() {
            let unmake = UNMAKE.query().bind(column(&self.unmade, |(id, _)| *id));
            unmake.bind(column(&self.unmade, |(_, campaign)| *campaign)).execute(c).await?;
        }
        if !self.book.is_empty() {
            let (data, book) = (CopyData::with_fields(CHANGE_COLUMNS), self.book.iter());
            let write = |data: &mut CopyData, row: &BookRow| row.write(data);
            c.run(COPY_CHANGES, async |c| copy_in(c, COPY_CHANGES, data, book, write).await).await?;
        }
        if !self.stored.is_empty() {
            SET_STORED.query().bind(column(&self.stored, |click| click.uuid())).execute(c).await?;
        }
        if !self.clicks.is_empty() {
            update_clicks(c, &self.clicks).await?;
        }
        Ok(Outcomes { told: self.told, new: self.new, judged_anew: self.judged_anew.len(), book: self.book })
    }
}

/// Stores postbacks with what became of them.
pub(super) async fn insert_postbacks(c: &mut Session<'_>, judged: &[Judged<'_>]) -> sqlx::Result<()> {
    let data = CopyData::new(Postback::COLUMNS, OUTCOME_COLUMNS);
    let write = |data: &mut CopyData, (postback, judged): &Judged<'_>| {
        data.row(*postback);
        data.text(Some(judged.outcome.into()));
        data.text(judged.reason.map(<&str>::from));
        data.int8(judged.network_id);
        data.uuid(judged.conversion_id);
    };
    c.run(COPY_POSTBACKS, async |c| copy_in(c, COPY_POSTBACKS, data, judged.iter(), write).await).await
}

async fn insert_conversions(
    c: &mut Session<'_>,
    made: &[ConversionRow],
    sources: &Sources,
) -> sqlx::Result<()> {
    let data = CopyData::with_fields(CONVERSION_COLUMNS);
    let rows = made.iter().filter_map(|row| Some((row, sources.click(row.click_id)?)));
    let write = |data: &mut CopyData, (row, click): (&ConversionRow, &ClickRow)| row.write(click, data);
    c.run(COPY_CONVERSIONS, async |c| copy_in(c, COPY_CONVERSIONS, data, rows, write).await).await
}

async fn update_conversions(c: &mut Session<'_>, changed: &[ConversionRow]) -> sqlx::Result<()> {
    UPDATE
        .query()
        .bind(column(changed, |row| row.id))
        .bind(column(changed, |row| row.campaign_id))
        .bind(column(changed, |row| row.network_id))
        .bind(column(changed, |row| row.kind))
        .bind(column(changed, |row| row.status))
        .bind(column(changed, |row| row.status_text.as_deref()))
        .bind(column(changed, |row| row.status_detail.as_deref()))
        .bind(column(changed, |row| row.payout))
        .bind(column(changed, |row| row.original_payout))
        .bind(column(changed, |row| row.sale_amount))
        .bind(column(changed, |row| row.currency.as_str()))
        .bind(column(changed, |row| row.flags.join(",")))
        .bind(column(changed, ConversionRow::numbers))
        .bind(column(changed, |row| row.offer_id))
        .bind(column(changed, |row| row.converted_at))
        .bind(column(changed, |row| row.first_at))
        .bind(column(changed, |row| row.last_at))
        .execute(c)
        .await?;
    Ok(())
}

async fn update_postbacks(
    c: &mut Session<'_>,
    changed: &[(DateTime<Utc>, Uuid, LedgerOutcome)],
) -> sqlx::Result<()> {
    UPDATE_POSTBACKS
        .query()
        .bind(column(changed, |(at, ..)| *at))
        .bind(column(changed, |(_, id, _)| *id))
        .bind(column(changed, |(.., judged)| <&str>::from(judged.outcome)))
        .bind(column(changed, |(.., judged)| judged.reason.map(<&str>::from)))
        .bind(column(changed, |(.., judged)| judged.network_id))
        .bind(column(changed, |(.., judged)| judged.conversion_id))
        .execute(c)
        .await?;
    Ok(())
}

async fn update_clicks(c: &mut Session<'_>, clicks: &[ConvertedClick]) -> sqlx::Result<()> {
    UPDATE_CLICKS
        .query()
        .bind(column(clicks, |(click, ..)| click.uuid()))
        .bind(column(clicks, |(click, ..)| click.created_at()))
        .bind(column(clicks, |(_, kind, _)| kind.as_deref()))
        .bind(column(clicks, |(.., at)| *at))
        .execute(c)
        .await?;
    Ok(())
}
