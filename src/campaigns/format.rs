//! How campaigns are written to disk and to Redis: types of their own, so that what the API shows can change while two
//! releases run beside each other. What is written here is read by other releases: it never changes. Something that
//! an older one could not read needs a `CampaignV2`, under a schema and a key of its own.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{
    campaign::{Campaign, CostModel, Destination, Status, Terms},
    id::CampaignKey,
    money::{Money, Percent},
    rule::{Cap, Path, Sticky},
    source::Source,
    stored_rules::StoredRules,
};

/// A campaign as 0.1.0 wrote it, and everything since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignV1 {
    id: Uuid,
    key: CampaignKey,
    name: String,
    description: Option<String>,
    status: Status,
    start_at: Option<DateTime<Utc>>,
    end_at: Option<DateTime<Utc>>,
    cost_model: CostModel,
    payout: Option<Money>,
    daily_budget: Option<Money>,
    total_budget: Option<Money>,
    fallback_url: Option<String>,
    landing_pages: Vec<DestinationV1>,
    offers: Vec<DestinationV1>,
    pass_through: bool,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Since rules: what 0.1.0 leaves out, and routes by the lists alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<StoredRules>,
    /// Landing pages and offers of rules and paths, of the library, and those that take what is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more_landing_pages: Vec<DestinationV1>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more_offers: Vec<DestinationV1>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overflow_offers: Vec<DestinationV1>,
    #[serde(default, skip_serializing_if = "is_default")]
    sticky: Sticky,
    #[serde(default, skip_serializing_if = "is_default")]
    epoch: i32,
    #[serde(default, skip_serializing_if = "is_default")]
    time_zone: Tz,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic_source_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revenue_share: Option<Percent>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DestinationV1 {
    id: Option<i64>,
    name: String,
    url: String,
    weight: i32,
    is_active: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payout: Option<Money>,
    #[serde(default, skip_serializing_if = "is_default")]
    direct: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    library: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    caps: Vec<Cap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    overflow_offer_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    web_url: Option<String>,
}

impl From<Campaign> for CampaignV1 {
    fn from(campaign: Campaign) -> Self {
        let Campaign { id, key, terms, overflow_offers, source, version, created_at, updated_at } = campaign;
        let rules = StoredRules::of(&terms);
        let of_paths = |list: fn(&Path) -> &Vec<Destination>| {
            let all = terms.all_paths().flat_map(list).filter(|d| !d.direct);
            all.cloned().map(DestinationV1::from).collect()
        };
        Self {
            rules,
            more_landing_pages: of_paths(|path| &path.landing_pages),
            more_offers: of_paths(|path| &path.offers),
            overflow_offers: overflow_offers.into_iter().map(Into::into).collect(),
            sticky: terms.sticky,
            epoch: terms.epoch,
            time_zone: terms.time_zone,
            traffic_source_id: terms.traffic_source_id,
            source: source.map(Arc::unwrap_or_clone),
            cost: terms.cost,
            revenue_share: terms.revenue_share,
            id,
            key,
            name: terms.name,
            description: terms.description,
            status: terms.status,
            start_at: terms.start_at,
            end_at: terms.end_at,
            cost_model: terms.cost_model,
            payout: terms.payout,
            daily_budget: terms.daily_budget,
            total_budget: terms.total_budget,
            fallback_url: terms.fallback_url,
            landing_pages: terms.landing_pages.into_iter().map(Into::into).collect(),
            offers: terms.offers.into_iter().map(Into::into).collect(),
            pass_through: terms.pass_through,
            version,
            created_at,
            updated_at,
        }
    }
}

impl From<CampaignV1> for Campaign {
    fn from(v1: CampaignV1) -> Self {
        let destinations = |list: Vec<DestinationV1>| {
            let mut destinations: Vec<_> = list.into_iter().map(Destination::from).collect();
            destinations.shrink_to_fit(); // they stay in memory
            destinations
        };
        let mut terms = Terms {
            name: v1.name,
            description: v1.description,
            status: v1.status,
            start_at: v1.start_at,
            end_at: v1.end_at,
            cost_model: v1.cost_model,
            cost: v1.cost,
            revenue_share: v1.revenue_share,
            payout: v1.payout,
            daily_budget: v1.daily_budget,
            total_budget: v1.total_budget,
            fallback_url: v1.fallback_url,
            landing_pages: destinations(v1.landing_pages),
            offers: destinations(v1.offers),
            pass_through: v1.pass_through,
            sticky: v1.sticky,
            epoch: v1.epoch,
            time_zone: v1.time_zone,
            traffic_source_id: v1.traffic_source_id,
            ..Terms::default()
        };
        if let Some(rules) = v1.rules {
            // the rules put them into their places
            let mut landing_pages = std::mem::take(&mut terms.landing_pages);
            let mut offers = std::mem::take(&mut terms.offers);
            landing_pages.extend(destinations(v1.more_landing_pages));
            offers.extend(destinations(v1.more_offers));
            rules.put_into(&mut terms, &landing_pages, &offers);
        }
        let overflow_offers = destinations(v1.overflow_offers);
        let source = v1.source.map(Arc::new);
        let CampaignV1 { id, key, version, created_at, updated_at, .. } = v1;
        Self { id, key, terms, overflow_offers, source, version, created_at, updated_at }
    }
}

impl From<Destination> for DestinationV1 {
    fn from(destination: Destination) -> Self {
        let Destination {
            id,
            name,
            url,
            weight,
            is_active,
            payout,
            direct,
            library,
            caps,
            overflow_offer_id,
            web_url,
        } = destination;
        Self { id, name, url, weight, is_active, payout, direct, library, caps, overflow_offer_id, web_url }
    }
}

impl From<DestinationV1> for Destination {
    fn from(v1: DestinationV1) -> Self {
        let DestinationV1 {
            id,
            name,
            url,
            weight,
            is_active,
            payout,
            direct,
            library,
            caps,
            overflow_offer_id,
            web_url,
        } = v1;
        Self { id, name, url, weight, is_active, payout, direct, library, caps, overflow_offer_id, web_url }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const SAVED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/v0.1.0/campaigns.json");

    #[test]
    fn what_0_1_0_wrote_is_read_and_would_be_written_again_as_it_was() {
        let saved: Value = serde_json::from_str(&std::fs::read_to_string(SAVED).unwrap()).unwrap();
        for written in saved["campaigns"].as_array().unwrap() {
            let v1: CampaignV1 = serde_json::from_value(written.clone()).unwrap();
            let campaign = Campaign::from(v1.clone());
            assert_eq!(campaign.key.as_str(), written["key"]);
            assert_eq!(
                campaign.terms.landing_pages.len(),
                written["landing_pages"].as_array().unwrap().len()
            );
            assert_eq!(CampaignV1::from(campaign), v1);
            assert_eq!(serde_json::to_value(v1).unwrap(), *written);
        }
    }
}
