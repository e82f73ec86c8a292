//! What a batch adds to the figures of hours, to their costs, and to the figures of traffic sources.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::{column, out_clicks::Counted};
use crate::{
    db::{session::Session, statement::statements},
    facts::click::Click,
    model::{click::Adjustment, hour::hour_of, money::Currency},
};

statements! {
    UPSERT_STATS = "stats.upsert_batch": "
INSERT INTO campaign_stats_hourly AS s (
    campaign_id, hour, clicks, valid_clicks, bot_clicks, events, lander_views, lander_clicks,
    unique_clicks
)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
    $9::int8[])
ON CONFLICT (campaign_id, hour) DO UPDATE SET
    clicks = s.clicks + excluded.clicks,
    valid_clicks = s.valid_clicks + excluded.valid_clicks,
    bot_clicks = s.bot_clicks + excluded.bot_clicks,
    events = s.events + excluded.events,
    lander_views = s.lander_views + excluded.lander_views,
    lander_clicks = s.lander_clicks + excluded.lander_clicks,
    unique_clicks = s.unique_clicks + excluded.unique_clicks";

    UPSERT_COSTS = "costs.upsert_batch": "
INSERT INTO campaign_costs_hourly AS s (
    campaign_id, hour, currency, clicks, valid_clicks, unique_clicks, costed_clicks, cost
)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::numeric[])
ON CONFLICT (campaign_id, hour, currency) DO UPDATE SET
    clicks = s.clicks + excluded.clicks,
    valid_clicks = s.valid_clicks + excluded.valid_clicks,
    unique_clicks = s.unique_clicks + excluded.unique_clicks,
    costed_clicks = s.costed_clicks + excluded.costed_clicks,
    cost = s.cost + excluded.cost";

    UPSERT_SOURCES = "source_stats.upsert_batch": "
INSERT INTO source_stats_daily AS s (source_id, day, clicks, unexpanded)
SELECT * FROM unnest($1::int8[], $2::date[], $3::int8[], $4::int8[])
ON CONFLICT (source_id, day) DO UPDATE SET
    clicks = s.clicks + excluded.clicks,
    unexpanded = s.unexpanded + excluded.unexpanded";
}

/// What a batch adds to the roll-ups.
#[derive(Debug, Default)]
pub(super) struct Stats(Vec<Hour>);

/// What a batch adds to the days of traffic sources: clicks, and those with a macro that was not filled. In the order
/// of the key: two drains lock rows in the same order.
#[derive(Debug, Default)]
pub(super) struct Sources(BTreeMap<(i64, NaiveDate), (i64, i64)>);

impl Sources {
    pub(super) fn add_click(&mut self, click: &Click<'_>) {
        let Some(id) = click.source_id else { return };
        let day = self.0.entry((id, click.id.created_at().date_naive())).or_default();
        day.0 += 1;
        day.1 += i64::from(click.adjusted.iter().any(|a| a == Adjustment::UnexpandedMacro));
    }
}

/// What a batch adds to the costs of hours, by currency: none where the link said no cost. In the order of the key: two
/// drains lock rows in the same order.
#[derive(Debug, Default)]
pub(super) struct Costs(BTreeMap<(Uuid, DateTime<Utc>, Option<Currency>), Cost>);

/// What clicks of one hour and currency cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    clicks: i64,
    valid_clicks: i64,
    unique_clicks: i64,
    costed_clicks: i64,
    cost: Decimal,
}

impl Costs {
    pub(super) fn add_click(&mut self, click: &Click<'_>) {
        // an amount of no known currency is added to no other
        let currency = click.cost.map(|_| click.currency.unwrap_or(Currency::UNKNOWN));
        let key = (click.campaign_id, hour_of(click.id.created_at()), currency);
        let cost = self.0.entry(key).or_default();
        cost.clicks += 1;
        cost.valid_clicks += i64::from(click.is_valid());
        cost.unique_clicks += i64::from(click.is_unique);
        cost.costed_clicks += i64::from(click.cost.is_some());
        cost.cost += click.cost.unwrap_or_default();
    }
}

/// An hour of a campaign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hour {
    campaign_id: Uuid,
    begin: DateTime<Utc>,
    clicks: i64,
    valid_clicks: i64,
    bot_clicks: i64,
    events: i64,
    lander_views: i64,
    lander_clicks: i64,
    unique_clicks: i64,
}

impl Stats {
    pub(super) fn add_click(&mut self, click: &Click<'_>) {
        self.0.push(Hour {
            clicks: 1,
            valid_clicks: click.is_valid().into(),
            bot_clicks: click.is_bot.into(),
            lander_views: (click.is_valid() && click.landing_page_id.is_some()).into(),
            unique_clicks: click.is_unique.into(),
            ..Hour::new(click.campaign_id, click.id.created_at())
        });
    }

    pub(super) fn add_event(&mut self, campaign_id: Uuid, created_at: DateTime<Utc>) {
        self.0.push(Hour { events: 1, ..Hour::new(campaign_id, created_at) });
    }

    /// Of the hour of the click.
    pub(super) fn add_lander_click(&mut self, counted: Counted) {
        self.0.push(Hour { lander_clicks: 1, ..Hour::new(counted.campaign_id, counted.created_at) });
    }

    /// Each hour once, in the order of the key: two drains lock rows in the same order.
    pub(super) fn into_hours(self) -> Vec<Hour> {
        let mut hours = self.0;
        hours.sort_unstable_by_key(Hour::key);
        hours.dedup_by(|later, first| {
            let is_same = later.key() == first.key();
            if is_same {
                first.add(later);
            }
            is_same
        });
        hours
    }
}

impl Hour {
    fn new(campaign_id: Uuid, at: DateTime<Utc>) -> Self {
        let begin = hour_of(at);
        let (clicks, valid_clicks, bot_clicks, events) = (0, 0, 0, 0);
        let (lander_views, lander_clicks, unique_clicks) = (0, 0, 0);
        Self {
            campaign_id,
            begin,
            clicks,
            valid_clicks,
            bot_clicks,
            events,
            lander_views,
            lander_clicks,
            unique_clicks,
        }
    }

    fn key(&self) -> (Uuid, DateTime<Utc>) {
        (self.campaign_id, self.begin)
    }

    fn add(&mut self, other: &Self) {
        self.clicks += other.clicks;
        self.valid_clicks += other.valid_clicks;
        self.bot_clicks += other.bot_clicks;
        self.events += other.events;
        self.lander_views += other.lander_views;
        self.lander_clicks += other.lander_clicks;
        self.unique_clicks += other.unique_clicks;
    }
}

pub(super) async fn upsert_stats(c: &mut Session<'_>, hours: &[Hour]) -> sqlx::Result<()> {
    UPSERT_STATS
        .query()
        .bind(column(hours, |h| h.campaign_id))
        .bind(column(hours, |h| h.begin))
        .bind(column(hours, |h| h.clicks))
        .bind(column(hours, |h| h.valid_clicks))
        .bind(column(hours, |h| h.bot_clicks))
        .bind(column(hours, |h| h.events))
        .bind(column(hours, |h| h.lander_views))
        .bind(column(hours, |h| h.lander_clicks))
        .bind(column(hours, |h| h.unique_clicks))
        .execute(c)
        .await?;
    Ok(())
}

pub(super) async fn upsert_costs(c: &mut Session<'_>, Costs(costs): &Costs) -> sqlx::Result<()> {
    if costs.is_empty() {
        return Ok(());
    }
    let code = |currency: &Option<Currency>| currency.map(String::from).unwrap_or_default();
    UPSERT_COSTS
        .query()
        .bind(costs.keys().map(|(campaign, ..)| *campaign).collect::<Vec<Uuid>>())
        .bind(costs.keys().map(|(_, hour, _)| *hour).collect::<Vec<DateTime<Utc>>>())
        .bind(costs.keys().map(|(.., currency)| code(currency)).collect::<Vec<String>>())
        .bind(costs.values().map(|cost| cost.clicks).collect::<Vec<i64>>())
        .bind(costs.values().map(|cost| cost.valid_clicks).collect::<Vec<i64>>())
        .bind(costs.values().map(|cost| cost.unique_clicks).collect::<Vec<i64>>())
        .bind(costs.values().map(|cost| cost.costed_clicks).collect::<Vec<i64>>())
        .bind(costs.values().map(|cost| cost.cost).collect::<Vec<Decimal>>())
        .execute(c)
        .await?;
    Ok(())
}

pub(super) async fn upsert_sources(c: &mut Session<'_>, Sources(days): &Sources) -> sqlx::Result<()> {
    if days.is_empty() {
        return Ok(());
    }
    UPSERT_SOURCES
        .query()
        .bind(days.keys().map(|(id, _)| *id).collect::<Vec<i64>>())
        .bind(days.keys().map(|(_, day)| *day).collect::<Vec<NaiveDate>>())
        .bind(days.values().map(|(clicks, _)| *clicks).collect::<Vec<i64>>())
        .bind(days.values().map(|(_, unexpanded)| *unexpanded).collect::<Vec<i64>>())
        .execute(c)
        .await?;
    Ok(())
}
