//! A campaign as a patch would make it, stored nowhere: so that what is being written can be explained.

use axum::http::HeaderMap;
use serde_json::Value;

use super::{
    allowed, find,
    input::{self, Asked},
};
use crate::{
    app::Parts,
    db::store::{landing_pages::LandingPage, library, offers::Offer},
    http::error::Problem,
    model::campaign::{Campaign, Destination, Terms},
    routing::CapTarget,
};

/// Ids from here on are made up: none that is stored comes so far.
const MADE_UP_FROM: i64 = 1 << 62;

/// Whether something was not stored yet, so that nobody has counted for it.
pub(super) fn is_made_up(target: CapTarget) -> bool {
    let (CapTarget::Path(id) | CapTarget::Offer(id)) = target;
    id >= MADE_UP_FROM
}

/// The campaign as it would be with what a patch changes, with made-up ids for what is new.
pub(super) async fn drafted(
    app: &Parts,
    id_or_key: &str,
    patch: &Value,
    headers: &HeaderMap,
) -> Result<Campaign, Problem> {
    let mut campaign = find(app, id_or_key).await?;
    let allowed = allowed(app, headers, patch).await?;
    let Asked { mut terms, .. } = input::read(patch, Some(&campaign), &allowed)?;
    let (pages, offers) = destinations(&mut terms);
    for page in pages.into_iter().filter(|page| page.library) {
        take_from_library(app, page, campaign.terms.all_landing_pages(), false).await?;
    }
    let known = || campaign.terms.all_offers().chain(&campaign.overflow_offers);
    let mut is_over = Vec::new();
    for offer in offers {
        if offer.library {
            take_from_library(app, offer, known(), true).await?;
        }
        is_over.extend(offer.overflow_offer_id);
    }
    let mut overflow = campaign.overflow_offers.clone();
    for id in is_over {
        let is_there = |d: &Destination| d.id == Some(id);
        if !terms.all_offers().any(is_there) && !overflow.iter().any(is_there) {
            let mut offer = Destination { id: Some(id), library: true, ..Destination::default() };
            take_from_library(app, &mut offer, known(), true).await?;
            overflow.push(offer);
        }
    }
    overflow.retain(|offer| !offer.url.is_empty());
    number(&mut terms);
    campaign.overflow_offers = overflow;
    campaign.terms = terms;
    Ok(campaign)
}

/// Puts what the library says into an entry that names one of it; what the campaign has already is not asked for.
async fn take_from_library(
    app: &Parts,
    entry: &mut Destination,
    mut known: impl Iterator<Item = &Destination>,
    is_offer: bool,
) -> Result<(), Problem> {
    let Some(id) = entry.id else { return Ok(()) };
    let asked = (entry.weight, entry.is_active);
    let found = match known.find(|d| d.library && d.id == entry.id) {
        Some(known) => Some(Destination { is_active: true, ..known.clone() }),
        None if is_offer => library::get::<Offer>(&app.db, id).await?.map(|offer| Destination {
            name: offer.terms.name,
            url: offer.terms.url,
            web_url: offer.terms.web_url,
            payout: offer.terms.payout,
            caps: offer.terms.caps,
            overflow_offer_id: offer.terms.overflow_offer_id,
            is_active: !offer.terms.is_archived,
            ..Destination::default()
        }),
        None => library::get::<LandingPage>(&app.db, id).await?.map(|page| Destination {
            name: page.terms.name,
            url: page.terms.url,
            web_url: page.terms.web_url,
            is_active: !page.terms.is_archived,
            ..Destination::default()
        }),
    };
    if let Some(found) = found {
        let (weight, is_active) = asked;
        let is_active = is_active && found.is_active;
        *entry = Destination { id: Some(id), library: true, weight, is_active, ..found };
    }
    Ok(())
}

/// Gives a made-up id to what has none.
fn number(terms: &mut Terms) {
    let mut next = MADE_UP_FROM;
    let mut give = |id: &mut Option<i64>| {
        if id.is_none() {
            *id = Some(next);
            next += 1;
        }
    };
    for rule in &mut terms.rules {
        give(&mut rule.id);
    }
    for path in terms.rules.iter_mut().flat_map(|rule| &mut rule.paths).chain(&mut terms.paths) {
        give(&mut path.id);
    }
    let (pages, offers) = destinations(terms);
    for entry in pages.into_iter().chain(offers).filter(|entry| !entry.direct) {
        give(&mut entry.id);
    }
}

/// Every landing page, and every offer.
fn destinations(terms: &mut Terms) -> (Vec<&mut Destination>, Vec<&mut Destination>) {
    let Terms { landing_pages, offers, rules, paths, .. } = terms;
    let mut pages: Vec<&mut Destination> = landing_pages.iter_mut().collect();
    let mut all: Vec<&mut Destination> = offers.iter_mut().collect();
    for path in rules.iter_mut().flat_map(|rule| &mut rule.paths).chain(paths) {
        pages.extend(&mut path.landing_pages);
        all.extend(&mut path.offers);
    }
    (pages, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::{Path, Rule};

    #[test]
    fn what_is_new_gets_an_id_of_its_own_and_what_is_stored_keeps_its() {
        let offer = |id| Destination { id, ..Destination::default() };
        let path = |id| Path { id, offers: vec![offer(None), offer(Some(6))], ..Path::default() };
        let mut terms = Terms {
            rules: vec![Rule { paths: vec![path(None), path(Some(5))], ..Rule::default() }],
            landing_pages: vec![Destination::direct()],
            ..Terms::default()
        };
        number(&mut terms);
        let mut ids: Vec<i64> = terms.all_offers().filter_map(|d| d.id).collect();
        ids.extend(terms.rules.iter().filter_map(|rule| rule.id));
        ids.extend(terms.all_paths().filter_map(|path| path.id));
        assert_eq!(ids.iter().filter(|id| **id < MADE_UP_FROM).collect::<Vec<_>>(), [&6, &6, &5]);
        ids.retain(|id| is_made_up(CapTarget::Offer(*id)));
        let made_up = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((made_up, ids.len()), (4, 4));
        assert_eq!(terms.landing_pages[0].id, None, "no page, no id");
    }
}
