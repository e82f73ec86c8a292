//! A campaign: what identifies it, and its terms, which are what is asked for, stored, changed and shown.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{id::CampaignKey, money::Money, text::must_be_one_of};

/// Where clicks of one key go, when, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Ours, a UUIDv7.
    pub id: Uuid,
    /// What links show; unique among campaigns that are not deleted.
    pub key: CampaignKey,
    /// What its owner says of it.
    pub terms: Terms,
    /// Counts changes; the ETag.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What the owner of a campaign says of it.
// its default is what holds where nothing is said; the name of that is empty, which no stored campaign's is
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CampaignTerms)]
pub struct Terms {
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "Summer sale")]
    pub name: String,
    /// For people: at most 2,000 characters.
    #[schema(max_length = 2000, example = "Banners of the summer.")]
    pub description: Option<String>,
    /// Whether it takes clicks.
    pub status: Status,
    /// Not before this time.
    pub start_at: Option<DateTime<Utc>>,
    /// Not from this time on; after `start_at`.
    pub end_at: Option<DateTime<Utc>>,
    /// How we are paid.
    pub cost_model: CostModel,
    /// What a conversion pays us.
    pub payout: Option<Money>,
    /// For people and reports.
    pub daily_budget: Option<Money>,
    /// For people and reports.
    pub total_budget: Option<Money>,
    /// Where clicks go that the campaign does not take; a template, as the `url` of an offer.
    #[schema(format = "url-template")]
    pub fallback_url: Option<String>,
    /// First choice of a click; at most 100.
    #[schema(max_items = 100)]
    pub landing_pages: Vec<Destination>,
    /// Choice of a click where there are no landing pages; at most 100.
    #[schema(max_items = 100)]
    pub offers: Vec<Destination>,
    /// Whether unknown parameters of a click go to the destination too, as they were sent.
    pub pass_through: bool,
}

/// A landing page or an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Destination {
    /// Ours; links may name it as `landing_page_id` or `campaign_offer_id`.
    // None until it is stored, which what is shown always was
    #[schema(value_type = i64, minimum = 1)]
    pub id: Option<i64>,
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "A")]
    pub name: String,
    /// http or https (or an app's scheme that is listed), with macros such as `{click_id}`; none in scheme, host or port;
    /// at most 8,192 bytes. Stored and shown in canonical form.
    #[schema(format = "url-template", example = "https://offer.example/?click={click_id}")]
    pub url: String,
    /// Share in the rotation, 0 to 1,000,000: 3 gets three times the clicks of 1.
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub weight: i32,
    /// Whether it takes clicks.
    pub is_active: bool,
    /// Offers only: what a conversion of this offer pays us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payout: Option<Money>,
}

impl Terms {
    /// Those of a campaign to try octo with: one landing page at `url`, a template in canonical form.
    pub fn demo(url: &str) -> Self {
        let page =
            Destination { name: "Demo page".to_owned(), url: url.to_owned(), ..Destination::default() };
        Self {
            name: "Demo campaign".to_owned(),
            description: Some("To try octo with; change it or delete it.".to_owned()),
            landing_pages: vec![page],
            ..Self::default()
        }
    }
}

/// What holds where nothing is said; name and URL are empty, which no stored one's are.
impl Default for Destination {
    fn default() -> Self {
        Self { id: None, name: String::new(), url: String::new(), weight: 1, is_active: true, payout: None }
    }
}

impl Campaign {
    /// A campaign of these terms in its first version, made now; it is nowhere stored. For tests and benchmarks.
    pub fn of(key: CampaignKey, terms: Terms) -> Self {
        let now = Utc::now();
        Self { id: super::id::new_uuid(), key, terms, version: 1, created_at: now, updated_at: now }
    }
}

/// The life of a campaign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Status {
    /// Being written; takes no clicks.
    Draft,
    /// Takes clicks.
    #[default]
    Active,
    /// Takes none for now.
    Paused,
    /// Over.
    Completed,
    /// Called off.
    Cancelled,
}

/// How we are paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum CostModel {
    /// By click.
    Cpc,
    /// By action.
    #[default]
    Cpa,
    /// By thousand views.
    Cpm,
    /// By share of revenue.
    Revshare,
}
