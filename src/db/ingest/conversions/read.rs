//! What conversions are derived from, read within the transaction that derives them.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{PER_CLICK_MAX, write::ConversionRow};
use crate::{
    db::{ingest::column, session::Session, statement::statements, store::affiliate_networks},
    facts::postback::Postback,
    model::{
        conversion::{Outcome, Status},
        id::{ClickId, time_of_uuid},
        money::{Currency, Money},
        network::PostbackRules,
    },
};

statements! {
    LIST_CLICKS = "conversions.list_clicks": "
SELECT
    c.id,
    c.campaign_id,
    c.path_id,
    c.landing_page_id,
    c.campaign_offer_id AS offer_id,
    c.source_id,
    c.is_valid,
    c.conversion_type,
    c.converted_at,
    c.rule_id,
    c.country,
    c.device,
    c.os,
    c.browser,
    c.sub1,
    c.sub2,
    c.sub3,
    c.sub4,
    c.sub5,
    c.keyword,
    c.creative,
    c.placement,
    c.invalid_reason,
    c.language,
    c.region,
    c.city,
    c.isp,
    c.connection,
    c.os_version,
    c.browser_version,
    c.referrer_host,
    c.affiliate_sub,
    c.affiliate_sub2,
    c.affiliate_sub3,
    c.affiliate_sub4,
    c.affiliate_sub5,
    p.payout_amount,
    p.payout_currency
FROM unnest($1::uuid[], $2::timestamptz[]) AS t (id, created_at)
CROSS JOIN LATERAL (
    SELECT
        id, campaign_id, path_id, landing_page_id, campaign_offer_id, source_id, is_valid, conversion_type, converted_at,
        rule_id, country, device, os, browser, sub1, sub2, sub3, sub4, sub5, keyword, creative, placement,
        invalid_reason, language, region, city, isp, connection, os_version, browser_version,
        octo_referrer_host(referrer) AS referrer_host, affiliate_sub, affiliate_sub2, affiliate_sub3, affiliate_sub4,
        affiliate_sub5
    FROM clicks
    WHERE created_at = t.created_at
      AND id = t.id
    LIMIT 1
) c
LEFT JOIN campaigns p ON p.id = c.campaign_id";

    LIST_LEDGER = "conversions.list_ledger": "
SELECT
    p.id,
    p.click_id,
    p.key_network_id,
    p.channel,
    p.leg_offer_id,
    p.params,
    p.outcome,
    p.reason,
    p.network_id,
    p.conversion_id
FROM unnest($1::uuid[]) AS t (click_id)
CROSS JOIN LATERAL (
    SELECT id, click_id, key_network_id, channel, leg_offer_id, params, outcome, reason, network_id, conversion_id
    FROM postbacks
    WHERE click_id = t.click_id
      AND refusal IS NULL
    ORDER BY created_at, id
    LIMIT $2
) p";

    LIST_STORED = "conversions.list_stored": "
SELECT
    id,
    click_id,
    network_id,
    kind,
    status,
    status_text,
    status_detail,
    payout,
    original_payout,
    sale_amount,
    currency,
    flags,
    numbers,
    offer_id,
    converted_at,
    first_at,
    last_at
FROM conversions
WHERE click_id = ANY ($1)";

    // of the clicks that saw a landing page
    LIST_OUT_CLICKS = "conversions.list_out_clicks": "
SELECT
    click_id,
    offer_id,
    created_at
FROM out_clicks
WHERE click_id = ANY ($1)
  AND created_at >= $2
  AND offer_id IS NOT NULL
ORDER BY click_id, created_at, id";

    LIST_OFFERS = "conversions.list_offers": "
SELECT
    id,
    affiliate_network_id AS network_id,
    payout_amount,
    payout_currency
FROM offers
WHERE id = ANY ($1)";
}

/// What a conversion takes from its click.
#[derive(Debug, FromRow)]
pub(super) struct ClickRow {
    id: Uuid,
    pub(super) campaign_id: Uuid,
    pub(super) path_id: Option<i64>,
    pub(super) landing_page_id: Option<i64>,
    pub(super) offer_id: Option<i64>,
    pub(super) source_id: Option<i64>,
    pub(super) is_valid: bool,
    pub(super) conversion_type: Option<String>,
    pub(super) converted_at: Option<DateTime<Utc>>,
    pub(super) rule_id: Option<i64>,
    pub(super) country: Option<String>,
    pub(super) device: Option<String>,
    pub(super) os: Option<String>,
    pub(super) browser: Option<String>,
    pub(super) sub1: Option<String>,
    pub(super) sub2: Option<String>,
    pub(super) sub3: Option<String>,
    pub(super) sub4: Option<String>,
    pub(super) sub5: Option<String>,
    pub(super) keyword: Option<String>,
    pub(super) creative: Option<String>,
    pub(super) placement: Option<String>,
    invalid_reason: Option<String>,
    language: Option<String>,
    region: Option<String>,
    city: Option<String>,
    isp: Option<String>,
    connection: Option<String>,
    os_version: Option<String>,
    browser_version: Option<String>,
    referrer_host: Option<String>,
    affiliate_sub: Option<String>,
    affiliate_sub2: Option<String>,
    affiliate_sub3: Option<String>,
    affiliate_sub4: Option<String>,
    affiliate_sub5: Option<String>,
    payout_amount: Option<Decimal>,
    payout_currency: Option<String>,
}

impl ClickRow {
    /// What a conversion of its campaign pays, where its offer does not say.
    pub(super) fn payout(&self) -> Option<Money> {
        money(self.payout_amount, self.payout_currency.as_deref())
    }

    /// Its texts that a conversion copies, from `country` to `placement`.
    pub(super) fn texts(&self) -> [Option<&str>; 12] {
        [
            &self.country,
            &self.device,
            &self.os,
            &self.browser,
            &self.sub1,
            &self.sub2,
            &self.sub3,
            &self.sub4,
            &self.sub5,
            &self.keyword,
            &self.creative,
            &self.placement,
        ]
        .map(|text| text.as_deref())
    }

    /// What else of it a conversion is reported by, from `invalid_reason` to `affiliate_sub5`.
    pub(super) fn more_texts(&self) -> [Option<&str>; 14] {
        [
            &self.invalid_reason,
            &self.language,
            &self.region,
            &self.city,
            &self.isp,
            &self.connection,
            &self.os_version,
            &self.browser_version,
            &self.referrer_host,
            &self.affiliate_sub,
            &self.affiliate_sub2,
            &self.affiliate_sub3,
            &self.affiliate_sub4,
            &self.affiliate_sub5,
        ]
        .map(|text| text.as_deref())
    }
}

/// A postback, stored or about to be.
#[derive(Debug, Clone, FromRow)]
pub(super) struct LedgerRow {
    pub(super) id: Uuid,
    pub(super) click_id: Uuid,
    pub(super) key_network_id: Option<i64>,
    pub(super) channel: String,
    pub(super) leg_offer_id: Option<i64>,
    pub(super) params: String,
    /// What was stored of its outcome; empty: it is not stored yet.
    pub(super) outcome: String,
    pub(super) reason: Option<String>,
    pub(super) network_id: Option<i64>,
    pub(super) conversion_id: Option<Uuid>,
}

impl LedgerRow {
    /// One that is not stored yet.
    pub(super) fn of(postback: &Postback<'_>) -> Self {
        Self {
            id: postback.id,
            click_id: postback.click_id.map_or(Uuid::nil(), ClickId::uuid),
            key_network_id: postback.network_id,
            channel: postback.channel.to_string(),
            leg_offer_id: postback.offer_id,
            params: postback.params.clone().into_owned(),
            outcome: String::new(),
            reason: None,
            network_id: None,
            conversion_id: None,
        }
    }

    /// When it came.
    pub(super) fn at(&self) -> DateTime<Utc> {
        time_of_uuid(self.id)
    }

    /// The order in which postbacks came.
    pub(super) fn order(&self) -> (DateTime<Utc>, Uuid) {
        (self.at(), self.id)
    }

    /// Whether it is not stored yet.
    pub(super) fn is_new(&self) -> bool {
        self.outcome.is_empty()
    }

    /// Whether no conversion was derived with it yet.
    pub(super) fn is_news(&self) -> bool {
        let outcome = self.outcome.parse();
        !matches!(outcome, Ok(Outcome::Accepted | Outcome::Ignored))
    }
}

/// A conversion as it is stored, as far as it is derived.
#[derive(Debug, Clone)]
pub(super) struct StoredConversion {
    pub(super) status: Status,
    pub(super) payout: Decimal,
    pub(super) currency: Currency,
    pub(super) last_at: DateTime<Utc>,
    row: StoredRow,
}

#[derive(Debug, Clone, FromRow)]
struct StoredRow {
    id: Uuid,
    click_id: Uuid,
    network_id: Option<i64>,
    kind: String,
    status: String,
    status_text: Option<String>,
    status_detail: Option<String>,
    payout: Decimal,
    original_payout: Option<Decimal>,
    sale_amount: Option<Decimal>,
    currency: String,
    flags: Vec<String>,
    numbers: Option<Json<BTreeMap<String, Decimal>>>,
    offer_id: Option<i64>,
    converted_at: DateTime<Utc>,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

impl StoredConversion {
    fn of(row: StoredRow) -> sqlx::Result<Self> {
        let decode = |error: String| sqlx::Error::Decode(error.into());
        Ok(Self {
            status: row.status.parse().map_err(decode)?,
            payout: row.payout,
            currency: row.currency.parse().map_err(|e: &str| decode(e.to_owned()))?,
            last_at: row.last_at,
            row,
        })
    }

    /// Whether what is stored is what was derived.
    pub(super) fn is_as(&self, derived: &ConversionRow) -> bool {
        let row = &self.row;
        let numbers = row.numbers.as_ref().map(|Json(numbers)| numbers);
        row.network_id == derived.network_id
            && row.kind == derived.kind
            && row.status == derived.status
            && row.status_text == derived.status_text
            && row.status_detail == derived.status_detail
            && row.payout == derived.payout
            && row.original_payout == derived.original_payout
            && row.sale_amount == derived.sale_amount
            && row.currency == derived.currency
            && row.flags == derived.flags
            && numbers == derived.numbers.as_ref()
            && row.offer_id == derived.offer_id
            && row.converted_at == derived.converted_at
            && row.first_at == derived.first_at
            && row.last_at == derived.last_at
    }
}

#[derive(Debug, FromRow)]
struct OutClickRow {
    click_id: Uuid,
    offer_id: i64,
    created_at: DateTime<Utc>,
}

#[derive(Debug, FromRow)]
struct OfferRow {
    id: i64,
    network_id: Option<i64>,
    payout_amount: Option<Decimal>,
    payout_currency: Option<String>,
}

/// Everything that stands around the postbacks of some clicks.
#[derive(Debug, Default)]
pub(super) struct Sources {
    clicks: HashMap<Uuid, ClickRow>,
    stored: HashMap<Uuid, HashMap<Uuid, StoredConversion>>,
    none_stored: HashMap<Uuid, StoredConversion>,
    /// By click, in the order of their times.
    out_clicks: HashMap<Uuid, Vec<OutClickRow>>,
    offers: HashMap<i64, OfferRow>,
    rules: HashMap<i64, PostbackRules>,
    no_rules: PostbackRules,
}

/// The postbacks of the clicks that are stored.
pub(super) async fn ledger(c: &mut Session<'_>, clicks: &[ClickId]) -> sqlx::Result<Vec<LedgerRow>> {
    let ids = column(clicks, |click| click.uuid());
    LIST_LEDGER.query_as().bind(ids).bind(PER_CLICK_MAX).fetch_all(c).await
}

impl Sources {
    /// The clicks that are stored.
    pub(super) async fn of_clicks(c: &mut Session<'_>, clicks: &[ClickId]) -> sqlx::Result<Self> {
        let list = LIST_CLICKS
            .query_as()
            .bind(column(clicks, |click| click.uuid()))
            .bind(column(clicks, |click| click.created_at()));
        let found: Vec<ClickRow> = list.fetch_all(c).await?;
        let clicks = found.into_iter().map(|row| (row.id, row)).collect();
        Ok(Self { clicks, ..Self::default() })
    }

    /// Reads the conversions of clicks that are stored.
    pub(super) async fn add_stored(&mut self, c: &mut Session<'_>, clicks: &[ClickId]) -> sqlx::Result<()> {
        let stored: Vec<StoredRow> =
            LIST_STORED.query_as().bind(column(clicks, |click| click.uuid())).fetch_all(c).await?;
        for row in stored {
            let of_click = self.stored.entry(row.click_id).or_default();
            of_click.insert(row.id, StoredConversion::of(row)?);
        }
        Ok(())
    }

    /// Reads what else these postbacks of these clicks need.
    pub(super) async fn add_others(
        &mut self,
        c: &mut Session<'_>,
        clicks: &[ClickId],
        ledger: &[LedgerRow],
    ) -> sqlx::Result<()> {
        self.read_out_clicks(c, clicks).await?;
        self.read_offers(c, ledger).await?;
        let of_offers = self.offers.values().filter_map(|offer| offer.network_id);
        let of_keys = ledger.iter().filter_map(|row| row.key_network_id);
        let mut networks: Vec<i64> = of_keys.chain(of_offers).collect();
        networks.sort_unstable();
        networks.dedup();
        if !networks.is_empty() {
            self.rules = affiliate_networks::rules_on(c, networks).await?;
        }
        Ok(())
    }

    async fn read_out_clicks(&mut self, c: &mut Session<'_>, clicks: &[ClickId]) -> sqlx::Result<()> {
        let saw_page = |click: &&ClickId| {
            self.clicks.get(&click.uuid()).is_some_and(|row| row.landing_page_id.is_some())
        };
        let clicks: Vec<ClickId> = clicks.iter().filter(saw_page).copied().collect();
        let Some(first) = clicks.iter().map(|click| click.created_at()).min() else { return Ok(()) };
        let list = LIST_OUT_CLICKS.query_as().bind(column(&clicks, |click| click.uuid())).bind(first);
        let rows: Vec<OutClickRow> = list.fetch_all(c).await?;
        for row in rows {
            self.out_clicks.entry(row.click_id).or_default().push(row);
        }
        Ok(())
    }

    async fn read_offers(&mut self, c: &mut Session<'_>, ledger: &[LedgerRow]) -> sqlx::Result<()> {
        let of_clicks = self.clicks.values().filter_map(|click| click.offer_id);
        let of_legs = ledger.iter().filter_map(|row| row.leg_offer_id);
        let of_outs = self.out_clicks.values().flatten().map(|out| out.offer_id);
        let mut offers: Vec<i64> = of_clicks.chain(of_legs).chain(of_outs).collect();
        offers.sort_unstable();
        offers.dedup();
        if offers.is_empty() {
            return Ok(());
        }
        let rows: Vec<OfferRow> = LIST_OFFERS.query_as().bind(offers).fetch_all(c).await?;
        self.offers = rows.into_iter().map(|row| (row.id, row)).collect();
        Ok(())
    }

    /// The click, if it is stored.
    pub(super) fn click(&self, id: Uuid) -> Option<&ClickRow> {
        self.clicks.get(&id)
    }

    /// The conversions of a click that are stored, by their ids.
    pub(super) fn stored(&self, click_id: Uuid) -> &HashMap<Uuid, StoredConversion> {
        self.stored.get(&click_id).unwrap_or(&self.none_stored)
    }

    /// The offer of the last out-click of a click up to a time.
    pub(super) fn offer_before(&self, click_id: Uuid, at: DateTime<Utc>) -> Option<i64> {
        let outs = self.out_clicks.get(&click_id)?;
        outs.iter().rfind(|out| out.created_at <= at).map(|out| out.offer_id)
    }

    /// The network of an offer.
    pub(super) fn network_of(&self, offer_id: i64) -> Option<i64> {
        self.offers.get(&offer_id)?.network_id
    }

    /// What an offer pays.
    pub(super) fn payout_of(&self, offer_id: i64) -> Option<Money> {
        let offer = self.offers.get(&offer_id)?;
        money(offer.payout_amount, offer.payout_currency.as_deref())
    }

    /// How the postbacks of a network are taken; as of one of which nothing is said where there is none.
    pub(super) fn rules(&self, network_id: Option<i64>) -> &PostbackRules {
        network_id.and_then(|id| self.rules.get(&id)).unwrap_or(&self.no_rules)
    }
}

fn money(amount: Option<Decimal>, currency: Option<&str>) -> Option<Money> {
    Some(Money { amount: amount?, currency: currency?.parse().ok()? })
}
