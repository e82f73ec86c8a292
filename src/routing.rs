//! Decides where a click goes. Pure: the campaign, what is known of the visit, the time and the seed are arguments.

pub mod destination;
mod rotation;

use chrono::{DateTime, Utc};

use crate::{
    model::{
        campaign::{Campaign, Destination, Status, Terms},
        click::InvalidReason,
        link::{Number, Params},
    },
    routing::destination::{Error, Template},
    visitor::Visitor,
};

/// A campaign ready to route: its destinations parsed once, at load.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The campaign as stored.
    pub campaign: Campaign,
    landing_pages: Vec<Branch>,
    offers: Vec<Branch>,
    fallback: Option<Template>,
}

#[derive(Debug, Clone)]
struct Branch {
    id: Option<i64>,
    weight: u32,
    template: Template,
}

/// Where one click goes.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// `None`: nowhere, the answer is 404.
    pub template: Option<&'a Template>,
    /// The landing page it goes to.
    pub landing_page_id: Option<i64>,
    /// The offer it goes to.
    pub offer_id: Option<i64>,
    /// Why the campaign did not take it.
    pub refused: Option<InvalidReason>,
}

impl Routes {
    /// Parses the destinations of a campaign. An inactive one is left out; a broken one is an error that
    /// names it (the API never stores one, but a hand in the database may).
    pub fn new(campaign: Campaign) -> Result<Self, (String, Error)> {
        Ok(Self {
            landing_pages: branches(&campaign.terms.landing_pages)?,
            offers: branches(&campaign.terms.offers)?,
            fallback: campaign
                .terms
                .fallback_url
                .as_deref()
                .map(|url| parse("fallback_url", url))
                .transpose()?,
            campaign,
        })
    }
}

/// Everything of a visit that may decide where it goes. Whether it counts is not part of it: people and bots get the
/// same destination.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'v, 'a> {
    /// What the link says.
    pub params: &'v Params<'a>,
    /// Who came.
    pub visitor: &'v Visitor<'v>,
    /// When.
    pub now: DateTime<Utc>,
    /// Evenly spread over visits.
    pub seed: u64,
}

/// Chooses the destination of a visit; the same arguments always give the same answer.
pub fn decide<'r>(routes: &'r Routes, visit: &Visit<'_, '_>) -> Decision<'r> {
    let refused = refusal(&routes.campaign.terms, visit.now);
    if refused.is_none() {
        if let Some(page) = named(&routes.landing_pages, visit.params.landing_page_id) {
            return Decision::landing_page(page);
        }
        if let Some(offer) = named(&routes.offers, visit.params.campaign_offer_id) {
            return Decision::offer(offer);
        }
        if let Some(page) = rotation::pick(&routes.landing_pages, |b| b.weight, visit.seed) {
            return Decision::landing_page(page);
        }
        if let Some(offer) = rotation::pick(&routes.offers, |b| b.weight, visit.seed) {
            return Decision::offer(offer);
        }
    }
    Decision {
        template: routes.fallback.as_ref(),
        landing_page_id: None,
        offer_id: None,
        refused: Some(refused.unwrap_or(InvalidReason::NoDestination)),
    }
}

impl<'a> Decision<'a> {
    fn landing_page(branch: &'a Branch) -> Self {
        Self { template: Some(&branch.template), landing_page_id: branch.id, offer_id: None, refused: None }
    }

    fn offer(branch: &'a Branch) -> Self {
        Self { template: Some(&branch.template), landing_page_id: None, offer_id: branch.id, refused: None }
    }
}

fn refusal(terms: &Terms, now: DateTime<Utc>) -> Option<InvalidReason> {
    match terms.status {
        Status::Draft => Some(InvalidReason::Draft),
        Status::Paused => Some(InvalidReason::Paused),
        Status::Completed | Status::Cancelled => Some(InvalidReason::Ended),
        Status::Active if terms.start_at.is_some_and(|start| now < start) => Some(InvalidReason::NotStarted),
        Status::Active if terms.end_at.is_some_and(|end| now >= end) => Some(InvalidReason::Ended),
        Status::Active => None,
    }
}

/// The active branch whose id the link names.
fn named(branches: &[Branch], id: Number) -> Option<&Branch> {
    let id = id.get()?;
    branches.iter().find(|b| b.id == Some(id))
}

fn branches(destinations: &[Destination]) -> Result<Vec<Branch>, (String, Error)> {
    let active = destinations.iter().filter(|d| d.is_active);
    active
        .map(|d| {
            let template = parse(&d.name, &d.url)?;
            Ok(Branch { id: d.id, weight: u32::try_from(d.weight).unwrap_or(0), template })
        })
        .collect()
}

fn parse(name: &str, url: &str) -> Result<Template, (String, Error)> {
    Template::parse_stored(url).map_err(|e| (name.to_owned(), e))
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn destination(id: i64, weight: i32, is_active: bool) -> Destination {
        let url = format!("https://d{id}.example/");
        Destination { id: Some(id), name: format!("d{id}"), url, weight, is_active, payout: None }
    }

    /// An active campaign, `demo`, with these destinations.
    pub(crate) fn campaign(pages: Vec<Destination>, offers: Vec<Destination>) -> Campaign {
        let terms = Terms {
            name: "demo".into(),
            fallback_url: Some("https://fallback.example/".into()),
            landing_pages: pages,
            offers,
            ..Terms::default()
        };
        Campaign::of("demo".parse().unwrap(), terms)
    }

    fn host(
        campaign: &Campaign,
        query: &str,
        now: DateTime<Utc>,
        seed: u64,
    ) -> (String, Option<InvalidReason>) {
        let routes = Routes::new(campaign.clone()).unwrap();
        let (params, visitor) = (Params::parse(query), Visitor::default());
        let decision = decide(&routes, &Visit { params: &params, visitor: &visitor, now, seed });
        (decision.template.map_or(String::new(), |t| t.host().to_owned()), decision.refused)
    }

    #[test]
    fn the_link_then_the_pages_then_the_offers_then_the_fallback() {
        let now = Utc::now();
        let both =
            campaign(vec![destination(1, 1, true), destination(2, 0, true)], vec![destination(3, 1, true)]);
        let only_offers = campaign(vec![destination(1, 1, false)], vec![destination(3, 1, true)]);
        let none = campaign(vec![destination(1, 1, false)], vec![destination(3, 1, false)]);
        for (campaign, query, wanted) in [
            (&both, "", "d1.example"),
            (&both, "landing_page_id=2", "d2.example"),
            (&both, "landing_page_id=99", "d1.example"),
            (&both, "campaign_offer_id=3", "d3.example"),
            (&both, "landing_page_id=2&campaign_offer_id=3", "d2.example"),
            (&only_offers, "landing_page_id=1", "d3.example"),
            (&none, "campaign_offer_id=3", "fallback.example"),
        ] {
            assert_eq!(host(campaign, query, now, 1).0, wanted, "{query}");
        }
        assert_eq!(host(&none, "", now, 1).1, Some(InvalidReason::NoDestination));
    }

    #[test]
    fn status_and_schedule_send_clicks_to_the_fallback_with_the_reason() {
        let now = Utc::now();
        let hour = TimeDelta::hours(1);
        let base = campaign(vec![], vec![destination(1, 1, true)]);
        let with = |change: &dyn Fn(&mut Terms)| {
            let mut c = base.clone();
            change(&mut c.terms);
            host(&c, "", now, 1).1
        };
        assert_eq!(with(&|_| {}), None);
        assert_eq!(with(&|c| c.status = Status::Paused), Some(InvalidReason::Paused));
        assert_eq!(with(&|c| c.status = Status::Draft), Some(InvalidReason::Draft));
        assert_eq!(with(&|c| c.status = Status::Completed), Some(InvalidReason::Ended));
        assert_eq!(with(&|c| c.start_at = Some(now + hour)), Some(InvalidReason::NotStarted));
        assert_eq!(with(&|c| c.end_at = Some(now)), Some(InvalidReason::Ended));
        assert_eq!(with(&|c| c.start_at = Some(now)), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_answer() {
        let c = campaign(vec![destination(1, 1, true), destination(2, 1, true)], vec![]);
        let now = Utc::now();
        for seed in 0..100 {
            assert_eq!(host(&c, "", now, seed), host(&c, "", now, seed));
        }
    }
}
