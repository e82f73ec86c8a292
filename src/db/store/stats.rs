//! Figures of a campaign over time, from the hourly roll-ups: never from the raw clicks.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    db::{Db, Error, monitor, statement::statements},
    model::text::must_be_one_of,
};

/// What figures are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum GroupBy {
    /// By hour (UTC: the roll-ups are).
    Hour,
    /// By day of a time zone.
    Day,
}

/// The figures of one hour or day; those without any are left out.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct Bucket {
    /// When it begins.
    pub start_at: DateTime<Utc>,
    /// The day in the time zone asked for.
    pub date: NaiveDate,
    /// All clicks.
    pub clicks: i64,
    /// Clicks that count.
    pub valid_clicks: i64,
    /// Clicks of known robots.
    pub bot_clicks: i64,
    /// Events.
    pub events: i64,
    /// Clicks that count and were sent to a landing page.
    #[serde(default)] // in Redis a release before may have kept an answer without
    pub lander_views: i64,
    /// Those of them that had an out-click: their visitor went on to an offer.
    #[serde(default)]
    pub lander_clicks: i64,
}

statements! {
    BY_HOUR = "stats.by_hour": "
    SELECT
        hour AS start_at,
        (hour AT TIME ZONE $4)::date AS date,
        clicks,
        valid_clicks,
        bot_clicks,
        events,
        lander_views,
        lander_clicks
    FROM campaign_stats_hourly
    WHERE campaign_id = $1
      AND hour >= $2
      AND hour < $3
      AND now() AT TIME ZONE $4 IS NOT NULL -- an unknown zone fails also where there are no rows
    ORDER BY hour";

    BY_DAY = "stats.by_day": "
    SELECT
        date_trunc('day', hour, $4) AS start_at,
        (date_trunc('day', hour, $4) AT TIME ZONE $4)::date AS date,
        sum(clicks)::bigint AS clicks,
        sum(valid_clicks)::bigint AS valid_clicks,
        sum(bot_clicks)::bigint AS bot_clicks,
        sum(events)::bigint AS events,
        sum(lander_views)::bigint AS lander_views,
        sum(lander_clicks)::bigint AS lander_clicks
    FROM campaign_stats_hourly
    WHERE campaign_id = $1
      AND hour >= $2
      AND hour < $3
      AND now() AT TIME ZONE $4 IS NOT NULL -- an unknown zone fails also where there are no rows
    GROUP BY 1, 2
    ORDER BY 1";
}

/// The figures of the hours from `from` until before `to`, in order of time. `Ok(None)`: Postgres does not know
/// the time zone. A day of a zone whose offset is no whole hour gets the hours that begin in it.
pub async fn by(
    db: &Db,
    campaign_id: Uuid,
    group_by: GroupBy,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    tz: &str,
) -> Result<Option<Vec<Bucket>>, Error> {
    let tz = tz.to_owned();
    let statement = match group_by {
        GroupBy::Hour => BY_HOUR,
        GroupBy::Day => BY_DAY,
    };
    let found = db
        .read(statement, move |c| {
            Box::pin(statement.query_as().bind(campaign_id).bind(from).bind(to).bind(tz).fetch_all(c))
        })
        .await;
    match found {
        Ok(buckets) => Ok(Some(buckets)),
        // 22023: invalid_parameter_value
        Err(error) if monitor::has_code(&error, "22023") => Ok(None),
        Err(error) => Err(error),
    }
}
