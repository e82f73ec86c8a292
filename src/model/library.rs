//! Landing pages and offers of the library: of no campaign, for the paths of many.

use serde::Serialize;
use utoipa::ToSchema;

use super::{money::Money, rule::Cap};

/// What the owner says of a landing page of the library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LibraryLandingPageTerms)]
pub struct LandingPageTerms {
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "Quiz")]
    pub name: String,
    /// As the `url` of a campaign's landing page.
    #[schema(format = "url-template", example = "https://page.example/?click={click_id}")]
    pub url: String,
    /// Where a visitor goes whose device cannot open the app that `url` leads to.
    #[schema(format = "url-template", example = "https://shop.example/app")]
    pub web_url: Option<String>,
    /// Whether it is put away: it takes no clicks.
    pub is_archived: bool,
}

/// What the owner says of an offer of the library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LibraryOfferTerms)]
pub struct OfferTerms {
    /// For people: 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "Shoes DE")]
    pub name: String,
    /// As the `url` of a campaign's offer. Where its network takes our click id and the URL has none, it is added.
    #[schema(format = "url-template", example = "https://offer.example/?sub1={click_id}")]
    pub url: String,
    /// Where a visitor goes whose device cannot open the app that `url` leads to.
    #[schema(format = "url-template", example = "https://shop.example/app")]
    pub web_url: Option<String>,
    /// What a conversion pays us.
    pub payout: Option<Money>,
    /// The network it is of.
    #[schema(minimum = 1, example = 5)]
    pub affiliate_network_id: Option<i64>,
    /// How much it takes; at most 8.
    #[schema(max_items = 8)]
    pub caps: Vec<Cap>,
    /// The offer of the library that gets what this one may not take any more, where no other of the path does.
    #[schema(minimum = 1, example = 7)]
    pub overflow_offer_id: Option<i64>,
    /// Whether it is put away: it takes no clicks.
    pub is_archived: bool,
}
