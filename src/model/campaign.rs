//! A campaign as the API shows it, Redis and the disk keep it, and the click path uses it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{id::CampaignKey, money::Money, text::must_be_one_of};

/// Where clicks of one key go, when, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Campaign {
    /// Ours, a UUIDv7.
    pub id: Uuid,
    /// What links show; unique among campaigns that are not deleted.
    #[schema(value_type = String, example = "summer-sale")]
    pub key: CampaignKey,
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// Whether it takes clicks.
    pub status: Status,
    /// Not before this time.
    pub start_at: Option<DateTime<Utc>>,
    /// Not from this time on.
    pub end_at: Option<DateTime<Utc>>,
    /// How we are paid.
    pub cost_model: CostModel,
    /// What a conversion pays us.
    pub payout: Option<Money>,
    /// For people and reports.
    pub daily_budget: Option<Money>,
    /// For people and reports.
    pub total_budget: Option<Money>,
    /// Where clicks go that the campaign does not take; a template.
    pub fallback_url: Option<String>,
    /// First choice of a click.
    pub landing_pages: Vec<Destination>,
    /// Choice of a click where there are no landing pages.
    pub offers: Vec<Destination>,
    /// Whether unknown parameters of a click go to the destination too.
    pub pass_through: bool,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A landing page or an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Destination {
    /// Ours; links may name it as `landing_page_id` or `campaign_offer_id`.
    pub id: i64,
    /// For people.
    pub name: String,
    /// A template in canonical form.
    pub url: String,
    /// Share in the rotation, 0 to 1,000,000: 3 gets three times the clicks of 1.
    pub weight: i32,
    /// Whether it takes clicks.
    pub is_active: bool,
    /// Offers only: what a conversion of this offer pays us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout: Option<Money>,
}

/// The life of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Status {
    /// Being written; takes no clicks.
    Draft,
    /// Takes clicks.
    Active,
    /// Takes none for now.
    Paused,
    /// Over.
    Completed,
    /// Called off.
    Cancelled,
}

/// How we are paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum CostModel {
    /// By click.
    Cpc,
    /// By action.
    Cpa,
    /// By thousand views.
    Cpm,
    /// By share of revenue.
    Revshare,
}
