//! What the demo has in its library, and its campaigns.

use std::str::FromStr;

use rust_decimal::Decimal;
use uuid::Uuid;

use super::id;
use crate::{
    db::{
        Db,
        store::{
            affiliate_networks::AffiliateNetwork, campaigns, landing_pages::LandingPage, library,
            offers::Offer, traffic_sources::TrafficSource,
        },
    },
    model::{
        campaign::{Campaign, Destination, Terms},
        library::{LandingPageTerms, OfferTerms},
        money::{Currency, Money},
        network::NetworkTerms,
        rule::{Criterion, Dimension, Path, Rule, Test},
        source::{CostUnit, Parameter, Slot, SourceTerms},
    },
};

/// Ids up to this one are the library's.
pub(super) const LIBRARY_MAX: u128 = 0xff;

const NETWORK: u128 = 1;
const SOURCE: u128 = 0x10;
const PAGE: u128 = 0x20;
const OFFER: u128 = 0x30;
const CAMPAIGN: u128 = 0x100;

/// A campaign, and what its traffic is like.
pub(super) struct Plan {
    key: &'static str,
    name: &'static str,
    pub(super) source: usize,
    pages: &'static [usize],
    offers: &'static [usize],
    /// The country and system that a rule of its own leads to the last page.
    rule: Option<(&'static str, &'static str)>,
    /// Clicks of a usual day.
    pub(super) clicks: u32,
    /// Countries, each by its share.
    pub(super) countries: &'static [(&'static str, u32)],
    /// What a click costs about, in millionths.
    pub(super) cost_micros: u32,
    /// Of 1,000 visitors of a page so many follow its link.
    pub(super) out_per_mille: u32,
    /// Of 10,000 visitors of an offer so many buy.
    pub(super) sales_per_myriad: u32,
    /// What people look for; empty: the source has no keywords.
    pub(super) keywords: &'static [&'static str],
}

pub(super) const CAMPAIGNS: [Plan; 4] = [
    Plan {
        key: "demo-gummies",
        name: "Demo: sleep gummies, DE AT CH",
        source: 0,
        pages: &[0, 1],
        offers: &[0, 1],
        rule: Some(("DE", "iOS")),
        clicks: 1300,
        countries: &[("DE", 66), ("AT", 20), ("CH", 14)],
        cost_micros: 60_000,
        out_per_mille: 340,
        sales_per_myriad: 38,
        keywords: &[],
    },
    Plan {
        key: "demo-puzzle",
        name: "Demo: puzzle game installs",
        source: 1,
        pages: &[],
        offers: &[2, 3],
        rule: None,
        clicks: 900,
        countries: &[("US", 60), ("GB", 18), ("CA", 13), ("AU", 9)],
        cost_micros: 85_000,
        out_per_mille: 0,
        sales_per_myriad: 560,
        keywords: &[],
    },
    Plan {
        key: "demo-vpn",
        name: "Demo: VPN for travellers",
        source: 2,
        pages: &[2],
        offers: &[4],
        rule: None,
        clicks: 420,
        countries: &[("GB", 40), ("NL", 25), ("SE", 20), ("DE", 15)],
        cost_micros: 310_000,
        out_per_mille: 520,
        sales_per_myriad: 90,
        keywords: &["vpn for travel", "best vpn", "vpn hotel wifi", "watch tv abroad", "vpn free trial"],
    },
    Plan {
        key: "demo-survey",
        name: "Demo: shopping survey",
        source: 0,
        pages: &[],
        offers: &[5],
        rule: None,
        clicks: 750,
        countries: &[("IT", 35), ("ES", 30), ("FR", 20), ("BR", 15)],
        cost_micros: 24_000,
        out_per_mille: 0,
        sales_per_myriad: 150,
        keywords: &[],
    },
];

const PAGES: [(&str, &str); 3] = [
    ("Demo: sleep quiz", "https://page.example/sleep-quiz?out={out_url}"),
    ("Demo: Anna's story", "https://page.example/annas-story?out={out_url}"),
    ("Demo: five VPNs compared", "https://page.example/vpn-compared?out={out_url}"),
];

/// Name, URL, and what a conversion pays, in cents: of one currency, because rates of the others may be older than these days.
const OFFERS: [(&str, &str, i64); 6] = [
    ("Demo: gummies, trial pack", "https://shop.example/gummies-trial?click={click_id}", 2600),
    ("Demo: gummies, three packs", "https://shop.example/gummies-three?click={click_id}", 4100),
    ("Demo: puzzle game", "https://games.example/puzzle?click={click_id}", 190),
    ("Demo: card game", "https://games.example/cards?click={click_id}", 240),
    ("Demo: VPN, a year", "https://vpn.example/year?click={click_id}", 3200),
    ("Demo: shopping survey", "https://survey.example/start?click={click_id}", 120),
];

/// What a link carries: name, macro, slot.
type Carried = (&'static str, &'static str, Slot);

const SOURCES: [(&str, &[Carried]); 3] = [
    (
        "Demo: push network",
        &[
            ("visitor", "${SUBID}", Slot::ClickId),
            ("zone", "{zoneid}", Slot::Placement),
            ("banner", "{bannerid}", Slot::Creative),
            ("cost", "{cost}", Slot::Cost),
        ],
    ),
    (
        "Demo: native ads",
        &[
            ("visitor", "{click_id}", Slot::ClickId),
            ("site", "{site}", Slot::Placement),
            ("creative", "{creative}", Slot::Creative),
            ("cost", "{price}", Slot::Cost),
        ],
    ),
    (
        "Demo: search ads",
        &[
            ("visitor", "{gclid}", Slot::ClickId),
            ("keyword", "{keyword}", Slot::Keyword),
            ("ad", "{creative}", Slot::Creative),
            ("placement", "{placement}", Slot::Placement),
        ],
    ),
];

/// A stored campaign, with what its traffic is like.
pub(super) struct Lane {
    pub(super) plan: &'static Plan,
    pub(super) campaign: Campaign,
    pub(super) source_id: i64,
    pub(super) network_id: i64,
    /// The rule of its own with its only path, and whom it takes.
    pub(super) rule: Option<(i64, i64, &'static str, &'static str)>,
    pub(super) pages: Vec<i64>,
    pub(super) offers: Vec<SoldOffer>,
}

/// An offer, and what it pays.
#[derive(Clone)]
pub(super) struct SoldOffer {
    pub(super) id: i64,
    pub(super) payout: Money,
}

pub(super) fn campaign_id(nth: usize) -> Uuid {
    id(CAMPAIGN + nth as u128)
}

fn made_by(first: u128, nth: usize) -> Uuid {
    id(first + nth as u128)
}

/// Makes all of it.
pub(super) async fn make(db: &Db) -> anyhow::Result<Vec<Lane>> {
    let network = NetworkTerms { name: "Demo: affiliate network".to_owned(), ..NetworkTerms::default() };
    let network = library::insert::<AffiliateNetwork>(db, id(NETWORK), true, network).await?;
    let mut sources = Vec::new();
    for (nth, (name, parameters)) in SOURCES.into_iter().enumerate() {
        let terms = SourceTerms {
            name: name.to_owned(),
            parameters: parameters.iter().map(parameter).collect::<anyhow::Result<_>>()?,
            ..SourceTerms::default()
        };
        sources.push(library::insert::<TrafficSource>(db, made_by(SOURCE, nth), true, terms).await?.id);
    }
    let mut pages = Vec::new();
    for (nth, (name, url)) in PAGES.into_iter().enumerate() {
        let terms =
            LandingPageTerms { name: name.to_owned(), url: url.to_owned(), ..LandingPageTerms::default() };
        pages.push(library::insert::<LandingPage>(db, made_by(PAGE, nth), true, terms).await?.id);
    }
    let mut offers = Vec::new();
    for (nth, (name, url, cents)) in OFFERS.into_iter().enumerate() {
        let payout = Money { amount: Decimal::new(cents, 2), currency: Currency::USD };
        let terms = OfferTerms {
            name: name.to_owned(),
            url: url.to_owned(),
            payout: Some(payout),
            affiliate_network_id: Some(network.id),
            ..OfferTerms::default()
        };
        let offer = library::insert::<Offer>(db, made_by(OFFER, nth), true, terms).await?;
        offers.push(SoldOffer { id: offer.id, payout });
    }
    let mut lanes = Vec::new();
    for (nth, plan) in CAMPAIGNS.iter().enumerate() {
        let pages: Vec<i64> = plan.pages.iter().map(|page| pages[*page]).collect();
        let offers: Vec<SoldOffer> = plan.offers.iter().map(|offer| offers[*offer].clone()).collect();
        let terms = terms(plan, sources[plan.source], &pages, &offers);
        let campaign = campaigns::insert_as(db, campaign_id(nth), true, plan.key.parse().ok(), terms).await?;
        let rule = plan.rule.and_then(|(country, os)| {
            let rule = campaign.terms.rules.first()?;
            Some((rule.id?, rule.paths.first()?.id?, country, os))
        });
        let source_id = sources[plan.source];
        lanes.push(Lane { plan, campaign, source_id, network_id: network.id, rule, pages, offers });
    }
    Ok(lanes)
}

fn parameter((name, r#macro, slot): &Carried) -> anyhow::Result<Parameter> {
    let is_cost = *slot == Slot::Cost;
    Ok(Parameter {
        name: FromStr::from_str(name).map_err(anyhow::Error::msg)?,
        r#macro: Some(FromStr::from_str(r#macro).map_err(anyhow::Error::msg)?),
        slot: *slot,
        unit: is_cost.then_some(CostUnit::Click),
        currency: is_cost.then_some(Currency::USD),
    })
}

fn terms(plan: &Plan, source_id: i64, pages: &[i64], offers: &[SoldOffer]) -> Terms {
    let page = |id: &i64| of_library(*id);
    let offer = |offer: &SoldOffer| of_library(offer.id);
    let rule = |(country, os): (&str, &str)| Rule {
        name: format!("{os} in {country}"),
        when: vec![is(Dimension::Country, country), is(Dimension::Os, os)],
        paths: vec![Path {
            name: "Last page alone".to_owned(),
            landing_pages: pages.last().map(page).into_iter().collect(),
            offers: offers.iter().map(offer).collect(),
            ..Path::default()
        }],
        ..Rule::default()
    };
    Terms {
        name: plan.name.to_owned(),
        description: Some("Made by `octo demo seed`; `octo demo clear` takes it away.".to_owned()),
        fallback_url: Some("https://page.example/".to_owned()),
        landing_pages: pages.iter().map(page).collect(),
        offers: offers.iter().map(offer).collect(),
        rules: plan.rule.map(rule).into_iter().collect(),
        traffic_source_id: Some(source_id),
        ..Terms::default()
    }
}

/// The names and URLs of the library count.
fn of_library(id: i64) -> Destination {
    Destination { id: Some(id), library: true, ..Destination::default() }
}

fn is(dimension: Dimension, value: &str) -> Criterion {
    Criterion { dimension, name: None, test: Test::Is(vec![value.to_owned()]) }
}
