//! What was derived and is not stored so, written within the transaction that derived it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{Arguments as _, types::Json};
use uuid::Uuid;

use super::{
    Judged, Outcomes, Told,
    read::{ClickRow, LedgerRow},
};
use crate::{
    db::{
        ingest::{arrays::arguments, column},
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

const INSERT_POSTBACKS_TEXT: Text<1024> = {
    let count = Postback::COLUMNS.len();
    Text::new()
        .and("\nINSERT INTO postbacks (")
        .names(Postback::COLUMNS, true)
        .and(", outcome, reason, network_id, conversion_id)\nSELECT ")
        .stored_values(Postback::COLUMNS)
        .and(", t.outcome, t.reason, t.network_id, t.conversion_id\nFROM unnest(")
        .arrays(Postback::COLUMNS)
        .and(", $")
        .number(count + 1)
        .and("::text[], $")
        .number(count + 2)
        .and("::text[], $")
        .number(count + 3)
        .and("::int8[], $")
        .number(count + 4)
        .and("::uuid[]) AS t (")
        .names(Postback::COLUMNS, false)
        .and(", outcome, reason, network_id, conversion_id)")
};

statements! {
    INSERT_POSTBACKS = "postbacks.insert_batch": INSERT_POSTBACKS_TEXT.as_str();

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

    // What is of the click is copied when the conversion is made, and stays; but for the offer, which an out-click may
    // tell that is stored only later.
    UPSERT = "conversions.upsert_batch": "
INSERT INTO conversions AS s (
    id, campaign_id, click_id, network_id, goal, txid, nth, kind, status, status_text, status_detail, payout,
    original_payout, sale_amount, currency, flags, numbers, rule_id, path_id, landing_page_id, offer_id, source_id,
    country, device, os, browser, sub1, sub2, sub3, sub4, sub5, keyword, creative, placement, is_click_valid,
    converted_at, first_at, last_at, created_at, invalid_reason, language, region, city, isp, connection, os_version,
    browser_version, referrer_host, affiliate_sub, affiliate_sub2, affiliate_sub3, affiliate_sub4, affiliate_sub5
)
SELECT
    t.id, t.campaign_id, t.click_id, t.network_id, t.goal, t.txid, t.nth, t.kind, t.status, t.status_text,
    t.status_detail, t.payout, t.original_payout, t.sale_amount, t.currency, t.flags, t.numbers, c.rule_id, c.path_id,
    c.landing_page_id, t.offer_id, c.source_id, c.country, c.device, c.os, c.browser, c.sub1, c.sub2, c.sub3, c.sub4,
    c.sub5, c.keyword, c.creative, c.placement, coalesce(c.is_valid, false), t.converted_at, t.first_at, t.last_at,
    t.created_at, c.invalid_reason, c.language, c.region, c.city, c.isp, c.connection, c.os_version, c.browser_version,
    octo_referrer_host(c.referrer), c.affiliate_sub, c.affiliate_sub2, c.affiliate_sub3, c.affiliate_sub4, c.affiliate_sub5
FROM jsonb_to_recordset($1) AS t (
    id uuid, campaign_id uuid, click_id uuid, network_id bigint, goal text, txid text, nth integer, kind text,
    status text, status_text text, status_detail text, payout numeric, original_payout numeric, sale_amount numeric,
    currency text, flags text[], numbers jsonb, offer_id bigint, converted_at timestamptz, first_at timestamptz,
    last_at timestamptz, created_at timestamptz
)
LEFT JOIN LATERAL (
    SELECT *
    FROM clicks
    WHERE clicks.created_at = t.created_at
      AND clicks.id = t.click_id
    LIMIT 1
) c ON true
ON CONFLICT (id, campaign_id) DO UPDATE SET
    network_id = excluded.network_id,
    kind = excluded.kind,
    status = excluded.status,
    status_text = excluded.status_text,
    status_detail = excluded.status_detail,
    payout = excluded.payout,
    original_payout = excluded.original_payout,
    sale_amount = excluded.sale_amount,
    currency = excluded.currency,
    flags = excluded.flags,
    numbers = excluded.numbers,
    offer_id = excluded.offer_id,
    converted_at = excluded.converted_at,
    first_at = excluded.first_at,
    last_at = excluded.last_at";

    UNMAKE = "conversions.unmake": "
UPDATE conversions
SET status = 'ignored',
    original_payout = coalesce(original_payout, payout),
    payout = 0
FROM unnest($1::uuid[], $2::uuid[]) AS t (id, campaign_id)
WHERE conversions.id = t.id
  AND conversions.campaign_id = t.campaign_id";

    INSERT_CHANGES = "conversion_changes.insert_batch": "
INSERT INTO conversion_changes (
    campaign_id, conversion_id, click_id, postback_id, cause, from_status, to_status, payout, revenue, currency,
    changed_at, created_at
)
SELECT
    campaign_id, conversion_id, click_id, postback_id,
    CASE WHEN postback_id IS NULL THEN 'derived_again' ELSE 'postback' END,
    from_status, to_status, payout, revenue, currency, changed_at, created_at
FROM jsonb_to_recordset($1) AS t (
    campaign_id uuid, conversion_id uuid, click_id uuid, postback_id uuid, from_status text, to_status text,
    payout numeric, revenue numeric, currency text, changed_at timestamptz, created_at timestamptz
)";

    SET_STORED = "conversions.set_stored": "
UPDATE conversion_clicks SET state = 'stored' WHERE click_id = ANY ($1) AND state <> 'stored'";

    // A join with so many partitions would be planned as one that reads them all.
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
#[derive(Debug, Clone, Serialize)]
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
}

/// A row of the book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

/// A click with its `conversion_type` and `converted_at`.
type ConvertedClick = (ClickId, Option<String>, Option<DateTime<Utc>>);

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Outcomes of postbacks that are not stored yet.
    new: HashMap<Uuid, LedgerOutcome>,
    /// Of those that are, where they changed: time, id, outcome.
    changed: Vec<(DateTime<Utc>, Uuid, LedgerOutcome)>,
    pub(super) conversions: Vec<ConversionRow>,
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
            self.changed.push((row.at(), row.id, outcome));
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
    pub(super) async fn apply(self, c: &mut Session<'_>) -> sqlx::Result<Outcomes> {
        if !self.changed.is_empty() {
            update_postbacks(c, &self.changed).await?;
        }
        if !self.conversions.is_empty() {
            UPSERT.query().bind(Json(&self.conversions)).execute(c).await?;
        }
        if !self.unmade.is_empty() {
            let unmake = UNMAKE.query().bind(column(&self.unmade, |(id, _)| *id));
            unmake.bind(column(&self.unmade, |(_, campaign)| *campaign)).execute(c).await?;
        }
        if !self.book.is_empty() {
            INSERT_CHANGES.query().bind(Json(&self.book)).execute(c).await?;
        }
        if !self.stored.is_empty() {
            SET_STORED.query().bind(column(&self.stored, |click| click.uuid())).execute(c).await?;
        }
        if !self.clicks.is_empty() {
            update_clicks(c, &self.clicks).await?;
        }
        Ok(Outcomes { told: self.told, new: self.new, judged_anew: self.changed.len(), book: self.book })
    }
}

/// Stores postbacks with what became of them.
pub(super) async fn insert_postbacks(c: &mut Session<'_>, judged: &[Judged<'_>]) -> sqlx::Result<()> {
    let postbacks: Vec<&Postback<'_>> = judged.iter().map(|(postback, _)| *postback).collect();
    let mut arguments = arguments(Postback::COLUMNS, &postbacks)?;
    let outcomes = column(judged, |(_, judged)| <&str>::from(judged.outcome));
    let reasons = column(judged, |(_, judged)| judged.reason.map(<&str>::from));
    let networks = column(judged, |(_, judged)| judged.network_id);
    let conversions = column(judged, |(_, judged)| judged.conversion_id);
    arguments.add(outcomes).map_err(sqlx::Error::Encode)?;
    arguments.add(reasons).map_err(sqlx::Error::Encode)?;
    arguments.add(networks).map_err(sqlx::Error::Encode)?;
    arguments.add(conversions).map_err(sqlx::Error::Encode)?;
    INSERT_POSTBACKS.query_with(arguments).execute(c).await?;
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
