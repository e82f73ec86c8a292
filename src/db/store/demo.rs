//! Takes away what `octo demo seed` stored.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use crate::db::{Db, Error, Statement, statement::statements};

statements! {
    // Of campaigns that are deleted, too.
    SINCE = "demo.since": "SELECT min(created_at) FROM campaigns WHERE id = ANY ($1)";

    DELETE_OUT_CLICK_KEYS = "demo.delete_out_click_keys": "
    DELETE FROM out_click_keys k
    USING clicks c
    WHERE c.campaign_id = ANY ($1)
      AND c.created_at >= $2
      AND c.created_at < $3
      AND k.click_id = c.id";

    DELETE_OUT_CLICK_LEGS = "demo.delete_out_click_legs": "
    DELETE FROM out_click_legs l
    USING clicks c
    WHERE c.campaign_id = ANY ($1)
      AND c.created_at >= $2
      AND c.created_at < $3
      AND l.click_id = c.id";

    DELETE_POSTBACKS = "demo.delete_postbacks": "
    DELETE FROM postbacks p
    USING clicks c
    WHERE c.campaign_id = ANY ($1)
      AND c.created_at >= $2
      AND c.created_at < $3
      AND p.click_id = c.id";

    DELETE_CONVERSION_CLICKS = "demo.delete_conversion_clicks": "
    DELETE FROM conversion_clicks k
    USING clicks c
    WHERE c.campaign_id = ANY ($1)
      AND c.created_at >= $2
      AND c.created_at < $3
      AND k.click_id = c.id";

    DELETE_EVENTS = "demo.delete_events": "
    DELETE FROM events
    WHERE campaign_id = ANY ($1)
      AND created_at >= $2
      AND created_at < $3";

    DELETE_OUT_CLICKS = "demo.delete_out_clicks": "
    DELETE FROM out_clicks
    WHERE campaign_id = ANY ($1)
      AND created_at >= $2
      AND created_at < $3";

    DELETE_CLICKS = "demo.delete_clicks": "
    DELETE FROM clicks
    WHERE campaign_id = ANY ($1)
      AND created_at >= $2
      AND created_at < $3";

    DELETE_DELIVERY_ATTEMPTS = "demo.delete_delivery_attempts": "
    DELETE FROM delivery_attempts WHERE campaign_id = ANY ($1)";

    DELETE_DELIVERIES = "demo.delete_deliveries": "DELETE FROM deliveries WHERE campaign_id = ANY ($1)";

    DELETE_CHANGES = "demo.delete_conversion_changes": "
    DELETE FROM conversion_changes WHERE campaign_id = ANY ($1)";

    DELETE_CONVERSIONS = "demo.delete_conversions": "DELETE FROM conversions WHERE campaign_id = ANY ($1)";

    DELETE_HOURS = "demo.delete_campaign_stats": "
    DELETE FROM campaign_stats_hourly WHERE campaign_id = ANY ($1)";

    DELETE_COSTS = "demo.delete_campaign_costs": "
    DELETE FROM campaign_costs_hourly WHERE campaign_id = ANY ($1)";

    DELETE_ADJUSTMENTS = "demo.delete_cost_adjustments": "
    DELETE FROM cost_adjustments WHERE campaign_id = ANY ($1)";

    DELETE_PRICES = "demo.delete_campaign_prices": "DELETE FROM campaign_prices WHERE campaign_id = ANY ($1)";

    DELETE_VALUES = "demo.delete_report_values": "DELETE FROM report_values WHERE campaign_id = ANY ($1)";

    DELETE_CAMPAIGNS = "demo.delete_campaigns": "DELETE FROM campaigns WHERE id = ANY ($1)";

    DELETE_OFFERS = "demo.delete_offers": "DELETE FROM offers WHERE made_by = ANY ($1)";

    DELETE_PAGES = "demo.delete_landing_pages": "DELETE FROM landing_pages WHERE made_by = ANY ($1)";

    DELETE_NETWORKS = "demo.delete_affiliate_networks": "
    DELETE FROM affiliate_networks WHERE made_by = ANY ($1)";

    DELETE_SOURCE_DAYS = "demo.delete_source_stats": "
    DELETE FROM source_stats_daily
    WHERE source_id IN (SELECT id FROM traffic_sources WHERE made_by = ANY ($1))";

    DELETE_SOURCES = "demo.delete_traffic_sources": "DELETE FROM traffic_sources WHERE made_by = ANY ($1)";

    DELETE_STREAM = "demo.delete_watermark": "DELETE FROM ingest_watermark WHERE stream = ANY ($1)";
}

/// Of a day's clicks, and last the clicks by which the others are found.
const OF_DAY: [Statement; 7] = [
    DELETE_OUT_CLICK_KEYS,
    DELETE_OUT_CLICK_LEGS,
    DELETE_POSTBACKS,
    DELETE_CONVERSION_CLICKS,
    DELETE_EVENTS,
    DELETE_OUT_CLICKS,
    DELETE_CLICKS,
];

const OF_CAMPAIGNS: [Statement; 10] = [
    DELETE_DELIVERY_ATTEMPTS,
    DELETE_DELIVERIES,
    DELETE_CHANGES,
    DELETE_CONVERSIONS,
    DELETE_HOURS,
    DELETE_COSTS,
    DELETE_ADJUSTMENTS,
    DELETE_PRICES,
    DELETE_VALUES,
    DELETE_CAMPAIGNS,
];

/// What other things name comes behind what names it.
const OF_LIBRARY: [Statement; 6] =
    [DELETE_OFFERS, DELETE_PAGES, DELETE_NETWORKS, DELETE_SOURCE_DAYS, DELETE_SOURCES, DELETE_STREAM];

/// When the first of the campaigns was made; `None`: there is none.
pub(crate) async fn since(db: &Db, campaigns: Vec<Uuid>) -> Result<Option<DateTime<Utc>>, Error> {
    db.read_primary(SINCE, move |c| Box::pin(SINCE.query_scalar().bind(campaigns).fetch_one(c))).await
}

/// Deletes what a day (UTC) has of the campaigns, in one transaction; gives how many clicks those were.
pub(crate) async fn delete_day(db: &Db, campaigns: Vec<Uuid>, day: NaiveDate) -> Result<u64, Error> {
    let from = day.and_time(chrono::NaiveTime::MIN).and_utc();
    let to = from + chrono::TimeDelta::days(1);
    db.maintain(DELETE_CLICKS, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            let mut deleted = 0;
            for statement in OF_DAY {
                let query = statement.query().bind(campaigns.clone()).bind(from).bind(to);
                deleted = query.execute(&mut transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            Ok(deleted)
        })
    })
    .await
}

/// Deletes what is left of the campaigns, and what was made by these requests.
pub(crate) async fn delete_rest(db: &Db, campaigns: Vec<Uuid>, made_by: Vec<Uuid>) -> Result<(), Error> {
    db.maintain(DELETE_CAMPAIGNS, move |c| {
        Box::pin(async move {
            let mut transaction = c.begin().await?;
            for (statements, ids) in [(&OF_CAMPAIGNS[..], &campaigns), (&OF_LIBRARY[..], &made_by)] {
                for statement in statements {
                    statement.query().bind(ids.clone()).execute(&mut transaction).await?;
                }
            }
            transaction.commit().await
        })
    })
    .await
}
