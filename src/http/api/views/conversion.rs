//! A conversion as the API shows it, and what the book says of it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::postback::Postback;
use crate::{
    db::store::conversions,
    model::{
        conversion::{ConversionKind, Flag, Status},
        money::amount_text,
    },
};

/// A conversion as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Conversion {
    /// Ours, made of click, goal and transaction id: the same whenever it is derived.
    pub(crate) id: Uuid,
    /// The campaign of its click.
    pub(crate) campaign_id: Uuid,
    /// That campaign's key of today.
    #[schema(example = "summer-sale")]
    pub(crate) campaign_key: Option<String>,
    /// Its click.
    pub(crate) click_id: Uuid,
    /// The affiliate network that told of it.
    #[schema(example = 3)]
    pub(crate) network_id: Option<i64>,
    /// What was reached; empty where the network names nothing.
    #[schema(example = "deposit")]
    pub(crate) goal: String,
    /// The network's id of it; empty where it sends none.
    #[schema(example = "T-1001")]
    pub(crate) txid: String,
    /// Which one it is of those with the same goal and transaction id, from 0.
    #[schema(minimum = 0, example = 0)]
    nth: i32,
    /// A conversion, a further payment of one, or a correction.
    #[schema(value_type = ConversionKind, example = "conversion")]
    pub(crate) kind: String,
    /// Its state.
    #[schema(value_type = Status, example = "approved")]
    pub(crate) status: String,
    /// The network's word for it.
    #[schema(example = "confirmed")]
    pub(crate) status_text: Option<String>,
    /// What else the network says of it.
    #[schema(example = "duplicate order")]
    pub(crate) status_detail: Option<String>,
    /// What counts now, in `currency`: 0 of what is rejected or refunded. A correction may be below zero.
    #[schema(value_type = String, example = "1.50")]
    pub(crate) payout: String,
    /// What it paid before something of it was taken back.
    #[schema(value_type = Option<String>, example = "1.50")]
    pub(crate) original_payout: Option<String>,
    /// What the visitor paid: never our revenue.
    #[schema(value_type = Option<String>, example = "49.90")]
    pub(crate) sale_amount: Option<String>,
    /// ISO 4217; `XXX` where the network's is none.
    #[schema(example = "USD")]
    pub(crate) currency: String,
    /// What of its postbacks could not be used, or had to be made up.
    #[schema(value_type = Vec<Flag>, example = json!(["no_payout"]))]
    pub(crate) flags: Vec<String>,
    /// `event1` to `event30` of its postbacks.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"event1": "3"}))]
    numbers: BTreeMap<String, String>,
    /// Of the click, as it was: the rule.
    #[schema(example = 0)]
    rule_id: Option<i64>,
    /// The path.
    #[schema(example = 0)]
    path_id: Option<i64>,
    /// The landing page.
    #[schema(example = 5)]
    landing_page_id: Option<i64>,
    /// The offer: the one that the click id named, else of the last out-click before, else the click's.
    #[schema(example = 6)]
    offer_id: Option<i64>,
    /// The traffic source.
    #[schema(example = 2)]
    traffic_source_id: Option<i64>,
    /// The country.
    #[schema(example = "DE")]
    country: Option<String>,
    /// The device.
    #[schema(example = "mobile")]
    device: Option<String>,
    /// The operating system.
    #[schema(example = "Android")]
    os: Option<String>,
    /// The browser.
    #[schema(example = "Chrome")]
    browser: Option<String>,
    /// `sub1` to `sub5`.
    #[schema(min_items = 5, max_items = 5)]
    subs: [Option<String>; 5],
    /// The keyword.
    #[schema(example = "running shoes")]
    keyword: Option<String>,
    /// The creative.
    #[schema(example = "banner-7")]
    creative: Option<String>,
    /// The placement.
    #[schema(example = "zone-41")]
    placement: Option<String>,
    /// Whether the click counts.
    is_click_valid: bool,
    /// When it happened, as its first postback says, else when that came.
    pub(crate) converted_at: DateTime<Utc>,
    /// When its first postback came.
    pub(crate) first_at: DateTime<Utc>,
    /// When the last one came that changed it.
    pub(crate) last_at: DateTime<Utc>,
    /// When the click was made.
    pub(crate) clicked_at: DateTime<Utc>,
}

/// A conversion with everything that led to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeConversion {
    #[serde(flatten)]
    pub(crate) conversion: Conversion,
    /// What changed, in the order in which it was stored: the sums are what the conversion pays.
    pub(crate) changes: Vec<Change>,
    /// The postbacks of its click, oldest first; at most 500.
    pub(crate) postbacks: Vec<Postback>,
}

/// A row of the book.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversionChange)]
pub(crate) struct Change {
    /// Counts up.
    #[schema(minimum = 1, example = 7)]
    id: i64,
    /// The postback that caused it; null where several did, or a word was mapped anew.
    pub(crate) postback_id: Option<Uuid>,
    /// `postback`, or `derived_again`: by a replay, or because a postback was stored late.
    #[schema(example = "postback")]
    pub(crate) cause: String,
    /// The state before; null: it was new.
    #[schema(value_type = Option<Status>, example = "pending")]
    pub(crate) from_status: Option<String>,
    /// The state after.
    #[schema(value_type = Status, example = "approved")]
    pub(crate) to_status: String,
    /// By how much the payout changed.
    #[schema(value_type = String, example = "1.50")]
    pub(crate) payout: String,
    /// By how much the revenue changed: the payout of what is approved.
    #[schema(value_type = String, example = "1.50")]
    pub(crate) revenue: String,
    /// In this currency.
    #[schema(example = "USD")]
    pub(crate) currency: String,
    /// When the postback came that caused it.
    pub(crate) changed_at: DateTime<Utc>,
    /// When it was stored.
    recorded_at: DateTime<Utc>,
}

impl Conversion {
    /// `the approved conversion deposit of 1.50 USD`
    pub(crate) fn in_words(&self) -> String {
        let goal = if self.goal.is_empty() { String::new() } else { format!(" {}", self.goal) };
        format!("the {} {}{goal} of {} {}", self.status, self.kind, self.payout, self.currency)
    }
}

impl From<conversions::Conversion> for Conversion {
    fn from(row: conversions::Conversion) -> Self {
        let numbers = row.numbers.map(|numbers| numbers.0).unwrap_or_default();
        Self {
            id: row.id,
            campaign_id: row.campaign_id,
            campaign_key: row.campaign_key,
            click_id: row.click_id,
            network_id: row.network_id,
            goal: row.goal,
            txid: row.txid,
            nth: row.nth,
            kind: row.kind,
            status: row.status,
            status_text: row.status_text,
            status_detail: row.status_detail,
            payout: amount_text(row.payout),
            original_payout: row.original_payout.map(amount_text),
            sale_amount: row.sale_amount.map(amount_text),
            currency: row.currency,
            flags: row.flags,
            numbers: numbers.into_iter().map(|(name, value)| (name, value.normalize().to_string())).collect(),
            rule_id: row.rule_id,
            path_id: row.path_id,
            landing_page_id: row.landing_page_id,
            offer_id: row.offer_id,
            traffic_source_id: row.source_id,
            country: row.country,
            device: row.device,
            os: row.os,
            browser: row.browser,
            subs: [row.sub1, row.sub2, row.sub3, row.sub4, row.sub5],
            keyword: row.keyword,
            creative: row.creative,
            placement: row.placement,
            is_click_valid: row.is_click_valid,
            converted_at: row.converted_at,
            first_at: row.first_at,
            last_at: row.last_at,
            clicked_at: row.clicked_at,
        }
    }
}

impl From<conversions::Change> for Change {
    fn from(row: conversions::Change) -> Self {
        Self {
            id: row.id,
            postback_id: row.postback_id,
            cause: row.cause,
            from_status: row.from_status,
            to_status: row.to_status,
            payout: amount_text(row.payout),
            revenue: amount_text(row.revenue),
            currency: row.currency,
            changed_at: row.changed_at,
            recorded_at: row.recorded_at,
        }
    }
}
