//! A campaign: what identifies it, and its terms, which are what is asked for, stored, changed and shown.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    id::CampaignKey,
    money::{Money, Percent},
    rule::{Cap, OfferChoice, Path, Rule, Sticky},
    source::Source,
    text::must_be_one_of,
};

/// Where clicks of one key go, when, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Ours, a UUIDv7.
    pub id: Uuid,
    /// What links show; unique among campaigns that are not deleted.
    pub key: CampaignKey,
    /// What its owner says of it.
    pub terms: Terms,
    /// Offers of the library that others of this campaign lead to once they are full.
    pub overflow_offers: Vec<Destination>,
    /// The traffic source of its terms; campaigns of one source share it.
    pub source: Option<Arc<Source>>,
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
    /// What is paid for.
    pub cost_model: CostModel,
    /// What a click costs by `cost_model` (`cpm`: a thousand of them; `cpa`: an approved conversion) where neither its link
    /// nor an adjustment says what it cost; from the hour on in which it is said. Not used by `revshare`.
    pub cost: Option<Money>,
    /// How many percent of the approved revenue clicks cost by `cost_model` `revshare`, likewise; in the currency of the
    /// revenue.
    pub revenue_share: Option<Percent>,
    /// What a conversion pays us.
    pub payout: Option<Money>,
    /// What clicks of a day of `time_zone` may cost: once they did, clicks go to `fallback_url`.
    pub daily_budget: Option<Money>,
    /// What all clicks may cost, likewise.
    pub total_budget: Option<Money>,
    /// Where clicks go that the campaign does not take; a template, as the `url` of an offer.
    #[schema(format = "url-template")]
    pub fallback_url: Option<String>,
    /// The only path of the default rule: where a click goes first; at most 100. Empty where there are `paths`.
    #[schema(max_items = 100)]
    pub landing_pages: Vec<Destination>,
    /// The only path of the default rule: where landing pages lead, or the click itself where there are none; at most 100.
    /// Empty where there are `paths`.
    #[schema(max_items = 100)]
    pub offers: Vec<Destination>,
    /// The only path of the default rule: when the offer of a visit that sees a landing page is chosen.
    pub offer_choice: OfferChoice,
    /// The only path of the default rule: how much it takes; at most 8.
    #[schema(max_items = 8)]
    pub caps: Vec<Cap>,
    /// The paths of the default rule where there are several; one without conditions is shown as `landing_pages` and
    /// `offers`. At most 64.
    #[schema(max_items = 64)]
    pub paths: Vec<Path>,
    /// Looked at in order before the default rule; the first whose conditions hold takes the visit. At most 64. A last one
    /// without conditions is the default rule, and is shown as `paths` or as `landing_pages` and `offers`.
    #[schema(max_items = 64)]
    pub rules: Vec<Rule>,
    /// Who gets again what he got before.
    pub sticky: Sticky,
    /// One more, and everybody is drawn anew.
    #[schema(minimum = 0, example = 0)]
    pub epoch: i32,
    /// Where hours, days and weeks of rules and caps begin.
    #[schema(value_type = String, format = "time-zone", example = "UTC")]
    pub time_zone: Tz,
    /// The traffic source whose parameters its links have.
    #[schema(minimum = 1, example = 3)]
    pub traffic_source_id: Option<i64>,
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
    /// http or https, or a link into an app (`intent:`, `market:`, `itms-apps:`, or a scheme that is listed), with macros
    /// such as `{click_id}`, `{sub1:raw}`, `{city|unknown}` or `{date:%Y-%m-%d}`; none in scheme, host or port;
    /// `{out_url}` and `{click_token}` in landing pages only; at most 8,192 bytes. Stored and shown in canonical form.
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
    /// Landing pages only: no page, straight to the offers.
    #[serde(default, skip_serializing_if = "is_false")]
    pub direct: bool,
    /// Whether it is one of the library, whose name, URL, payout and caps count.
    #[serde(default, skip_serializing_if = "is_false")]
    pub library: bool,
    /// Offers only: how much it takes; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub caps: Vec<Cap>,
    /// Offers only: the offer that gets what this one may not take any more, where no other of the path does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, example = 7)]
    pub overflow_offer_id: Option<i64>,
    /// Where a visitor goes whose device cannot open the app that `url` leads to: http or https, with macros. Without it such
    /// a visitor gets another entry, unless the scheme of `url` is a listed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = "url-template", example = "https://shop.example/app")]
    pub web_url: Option<String>,
}

impl Destination {
    /// No landing page, but straight to the offers.
    pub fn direct() -> Self {
        Self { name: "Direct".to_owned(), direct: true, ..Self::default() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
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

    /// Whether it has a budget.
    pub fn has_budget(&self) -> bool {
        self.daily_budget.is_some() || self.total_budget.is_some()
    }

    /// Every path that is written as one, wherever it stands.
    pub fn all_paths(&self) -> impl Iterator<Item = &Path> {
        self.rules.iter().flat_map(|rule| &rule.paths).chain(&self.paths)
    }

    /// Every landing page of every path.
    pub fn all_landing_pages(&self) -> impl Iterator<Item = &Destination> {
        self.landing_pages.iter().chain(self.all_paths().flat_map(|path| &path.landing_pages))
    }

    /// Every offer of every path.
    pub fn all_offers(&self) -> impl Iterator<Item = &Destination> {
        self.offers.iter().chain(self.all_paths().flat_map(|path| &path.offers))
    }
}

/// What holds where nothing is said; name and URL are empty, which no stored one's are.
impl Default for Destination {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            url: String::new(),
            weight: 1,
            is_active: true,
            payout: None,
            direct: false,
            library: false,
            caps: Vec::new(),
            overflow_offer_id: None,
            web_url: None,
        }
    }
}

impl Campaign {
    /// A campaign of these terms in its first version, made now; it is nowhere stored. For tests and benchmarks.
    pub fn of(key: CampaignKey, terms: Terms) -> Self {
        let now = Utc::now();
        Self {
            id: super::id::new_uuid(),
            key,
            terms,
            overflow_offers: Vec::new(),
            source: None,
            version: 1,
            created_at: now,
            updated_at: now,
        }
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

/// What is paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum CostModel {
    /// Clicks that count.
    Cpc,
    /// Approved conversions.
    #[default]
    Cpa,
    /// Thousands of clicks that count.
    Cpm,
    /// `revenue_share` of the approved revenue.
    Revshare,
    /// The first clicks of visitors in the campaign on a day.
    Cpuc,
    /// Nothing.
    None,
}

impl CostModel {
    /// Whether it pays for what conversions come to, and not for clicks.
    pub fn is_of_conversions(self) -> bool {
        matches!(self, Self::Cpa | Self::Revshare)
    }
}
