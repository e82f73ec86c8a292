//! A campaign as the API shows it, Redis and the disk keep it, and the click path uses it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{id::CampaignKey, money::Money};

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

/// A closed choice whose values are written as texts.
macro_rules! text_enum {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        // by hand: the derive does not see a name that comes out of a macro, and would show the variants'
        impl ::utoipa::PartialSchema for $name {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::schema::Schema> {
                ::utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(::utoipa::openapi::schema::Type::String)
                    .enum_values(Some(Self::NAMES.iter().copied()))
                    .description(Some(concat!($($doc),*).trim()))
                    .into()
            }
        }

        impl ::utoipa::ToSchema for $name {}

        impl $name {
            /// Every value, as the API and the database write it.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// As the API and the database write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", Self::NAMES.join(", "))),
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use text_enum;

text_enum! {
    /// The life of a campaign.
    Status {
        /// Being written; takes no clicks.
        Draft = "draft",
        /// Takes clicks.
        Active = "active",
        /// Takes none for now.
        Paused = "paused",
        /// Over.
        Completed = "completed",
        /// Called off.
        Cancelled = "cancelled",
    }
}

text_enum! {
    /// How we are paid.
    CostModel {
        /// By click.
        Cpc = "cpc",
        /// By action.
        Cpa = "cpa",
        /// By thousand views.
        Cpm = "cpm",
        /// By share of revenue.
        Revshare = "revshare",
    }
}
