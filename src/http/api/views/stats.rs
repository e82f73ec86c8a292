//! Figures of a campaign as the API shows them.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::store::stats::{self, GroupBy};

/// Figures of a campaign.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    /// Whose figures they are.
    pub(crate) campaign_id: Uuid,
    /// What they are added up by.
    pub(crate) group_by: GroupBy,
    /// The time zone of days.
    #[schema(example = "Europe/Berlin")]
    pub(crate) tz: String,
    /// The first hour that is in.
    pub(crate) from: DateTime<Utc>,
    /// Hours that begin before this time are in.
    pub(crate) to: DateTime<Utc>,
    /// In order of time; hours or days without any figures are left out.
    pub(crate) data: Vec<Bucket>,
    /// Of all that is in `data`.
    pub(crate) totals: Totals,
}

/// Sums.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Totals {
    /// All clicks.
    #[schema(example = 1200)]
    pub(crate) clicks: i64,
    /// Clicks that count.
    #[schema(example = 1160)]
    pub(crate) valid_clicks: i64,
    /// Clicks of known robots.
    #[schema(example = 40)]
    pub(crate) bot_clicks: i64,
    /// Events.
    #[schema(example = 75)]
    pub(crate) events: i64,
    /// Clicks that count and were sent to a landing page.
    #[schema(example = 900)]
    pub(crate) lander_views: i64,
    /// Those of them that had an out-click, in the hour of the click: never more than `lander_views`.
    #[schema(example = 310)]
    pub(crate) lander_clicks: i64,
}

/// The figures of one hour or day; those without any are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Bucket {
    /// When it begins.
    pub(crate) start_at: DateTime<Utc>,
    /// The day in the time zone asked for.
    pub(crate) date: NaiveDate,
    /// All clicks.
    #[schema(example = 1200)]
    pub(crate) clicks: i64,
    /// Clicks that count.
    #[schema(example = 1160)]
    pub(crate) valid_clicks: i64,
    /// Clicks of known robots.
    #[schema(example = 40)]
    pub(crate) bot_clicks: i64,
    /// Events.
    #[schema(example = 75)]
    pub(crate) events: i64,
    /// Clicks that count and were sent to a landing page.
    #[schema(example = 900)]
    pub(crate) lander_views: i64,
    /// Those of them that had an out-click, in the hour of the click: never more than `lander_views`.
    #[schema(example = 310)]
    pub(crate) lander_clicks: i64,
}

impl From<stats::Bucket> for Bucket {
    fn from(bucket: stats::Bucket) -> Self {
        let stats::Bucket {
            start_at,
            date,
            clicks,
            valid_clicks,
            bot_clicks,
            events,
            lander_views,
            lander_clicks,
        } = bucket;
        Self { start_at, date, clicks, valid_clicks, bot_clicks, events, lander_views, lander_clicks }
    }
}

impl Totals {
    /// The sums of all buckets.
    pub(crate) fn of(data: &[stats::Bucket]) -> Self {
        data.iter().fold(Self::default(), |sum, bucket| Self {
            clicks: sum.clicks + bucket.clicks,
            valid_clicks: sum.valid_clicks + bucket.valid_clicks,
            bot_clicks: sum.bot_clicks + bucket.bot_clicks,
            events: sum.events + bucket.events,
            lander_views: sum.lander_views + bucket.lander_views,
            lander_clicks: sum.lander_clicks + bucket.lander_clicks,
        })
    }
}
