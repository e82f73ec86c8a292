//! Takes away what `octo demo seed` stored.

use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

use crate::db::{Db, Error, Statement, statement::statements};

/// What a table has of the clicks of campaigns (`$1`) from a time until before another.
macro_rules! of_clicks {
    ($table:literal) => {
        concat!(
            "
    DELETE FROM ",
            $table,
            " f
    USING clicks c
    WHERE c.campaign_id = ANY ($1)
      AND c.created_at >= $2
      AND c.created_at < $3
      AND f.click_id = c.id"
        )
    };
}

/// Likewise of the campaigns themselves.
macro_rules! of_day {
    ($table:literal) => {
        concat!(
            "
    DELETE FROM ",
            $table,
            "
    WHERE campaign_id = ANY ($1)
      AND created_at >= $2
      AND created_at < $3"
        )
    };
}

/// All that a table has of campaigns (`$1`).
macro_rules! of_campaigns {
    ($table:literal) => {
        concat!(
            "
    DELETE FROM ",
            $table,
            "
    WHERE campaign_id = ANY ($1)"
        )
    };
}

statements! {
    // Of campaigns that are deleted, too.
    SINCE = "demo.since": "SELECT min(created_at) FROM campaigns WHERE id = ANY ($1)";

    DELETE_OUT_CLICK_KEYS = "demo.delete_out_click_keys": of_clicks!("out_click_keys");

    DELETE_OUT_CLICK_LEGS = "demo.delete_out_click_legs": of_clicks!("out_click_legs");

    DELETE_POSTBACKS = "demo.delete_postbacks": of_clicks!("postbacks");

    DELETE_CONVERSION_CLICKS = "demo.delete_conversion_clicks": of_clicks!("conversion_clicks");

    DELETE_EVENTS = "demo.delete_events": of_day!("events");

    DELETE_OUT_CLICKS = "demo.delete_out_clicks": of_day!("out_clicks");

    DELETE_CLICKS = "demo.delete_clicks": of_day!("clicks");

    DELETE_DELIVERY_ATTEMPTS = "demo.delete_delivery_attempts": of_campaigns!("delivery_attempts");

    DELETE_DELIVERIES = "demo.delete_deliveries": of_campaigns!("deliveries");

    DELETE_CHANGES = "demo.delete_conversion_changes": of_campaigns!("conversion_changes");

    DELETE_CONVERSIONS = "demo.delete_conversions": of_campaigns!("conversions");

    DELETE_HOURS = "demo.delete_campaign_stats": of_campaigns!("campaign_stats_hourly");

    DELETE_COSTS = "demo.delete_campaign_costs": of_campaigns!("campaign_costs_hourly");

    DELETE_ADJUSTMENTS = "demo.delete_cost_adjustments": of_campaigns!("cost_adjustments");

    DELETE_PRICES = "demo.delete_campaign_prices": of_campaigns!("campaign_prices");

    DELETE_VALUES = "demo.delete_report_values": of_campaigns!("report_values");

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
