//! What is said of costs after the clicks: adjustments, and which clicks they are of.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{money::Currency, text::must_be_one_of};

/// Values of one dimension of a filter at most.
pub const FILTER_VALUES_MAX: usize = 256;

/// Longest value of a filter, in characters: as much as a click keeps.
pub const FILTER_CHARS_MAX: usize = 1024;

/// Longest range of an adjustment.
pub const RANGE_DAYS_MAX: i64 = 366;

/// What the amount of an adjustment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
#[schema(as = CostKind)]
pub enum Kind {
    /// What all clicks of the range cost together.
    Total,
    /// What each click cost.
    PerClick,
    /// What a thousand clicks cost.
    PerMille,
    /// By how much what links said is multiplied.
    Factor,
}

/// Which clicks bear a cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Spread {
    /// Those that count; of a total, all where there is none.
    #[default]
    Valid,
    /// All.
    All,
    /// The first ones of a visitor in the campaign on a day; of a total, the valid ones where there is none.
    Unique,
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
#[schema(as = CostDimension)]
pub enum Dimension {
    /// The traffic source in the library.
    Source,
    /// The landing page.
    LandingPage,
    /// The offer.
    Offer,
    /// The path.
    Path,
    /// The rule.
    Rule,
    /// ISO 3166-1 alpha-2.
    Country,
    /// `desktop`, `mobile`, ...
    Device,
    /// `sub1`
    Sub1,
    /// `sub2`
    Sub2,
    /// `sub3`
    Sub3,
    /// `sub4`
    Sub4,
    /// `sub5`
    Sub5,
    /// The keyword.
    Keyword,
    /// The creative.
    Creative,
    /// The placement.
    Placement,
}

/// Which clicks: of each dimension one of the values. `unknown` is a value too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filters(pub BTreeMap<Dimension, BTreeSet<String>>);

impl Filters {
    /// Whether every click of this filter is one of the other.
    pub fn is_within(&self, other: &Self) -> bool {
        other.0.iter().all(|(dimension, values)| {
            self.0.get(dimension).is_some_and(|own| !own.is_empty() && own.is_subset(values))
        })
    }
}

/// A total that its sender knows by an id of his and says again whenever it grew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunningTotal {
    /// The account at the traffic source: 1 to 255 characters.
    #[schema(min_length = 1, max_length = 255, example = "ads-4711")]
    pub account: String,
    /// What the source calls that which costs: 1 to 255 characters.
    #[schema(min_length = 1, max_length = 255, example = "ad-12")]
    pub external_id: String,
    /// The day it is of.
    #[schema(example = "2026-11-30")]
    pub day: NaiveDate,
}

/// What somebody says of costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose costs.
    pub campaign_id: Uuid,
    /// The first hour.
    pub begins_at: DateTime<Utc>,
    /// The hour after the last.
    pub ends_at: DateTime<Utc>,
    /// In which the range was said.
    pub time_zone: Tz,
    /// Which clicks.
    pub filters: Filters,
    /// What the amount is.
    pub kind: Kind,
    /// Zero or more.
    pub amount: Decimal,
    /// `None`: a factor has none.
    pub currency: Option<Currency>,
    /// Which clicks bear it.
    pub spread: Spread,
    /// For people.
    pub note: Option<String>,
    /// Of a running total.
    pub running: Option<RunningTotal>,
}

impl Terms {
    /// What the newest one counts of.
    pub fn scope(&self) -> String {
        if let Some(RunningTotal { account, external_id, day }) = &self.running {
            // as JSON, so that no account holds what looks like an id
            return format!("running {}", serde_json::json!([account, external_id, day]));
        }
        let filters = serde_json::to_string(&self.filters).unwrap_or_default(); // texts only
        format!("{} {} {filters}", self.begins_at.timestamp(), self.ends_at.timestamp())
    }
}
