//! Test links: the link of a campaign with a signed choice of rule, path, landing page and offer. Who has one sees what
//! a visitor would see there; its click does not count.

use axum::http::request::Parts as Head;
use chrono::{DateTime, Utc};

use crate::{
    app::App,
    model::{campaign::Campaign, id::ClickId, link::pairs},
    routing::{Forced, Routes},
    seal::{Purpose, token::Ticket},
};

/// The parameter that carries the choices.
const NAME: &str = "octo_test";

/// A test link of a campaign, good for `tracking.test_link_s`.
pub(crate) fn make(app: &App, campaign: &Campaign, choices: Forced, now: DateTime<Utc>) -> String {
    let Forced { rule_id, path_id, landing_page_id, offer_id } = choices;
    let ticket =
        Ticket { rule_id, path_id, landing_page_id, offer_id, ..Ticket::new(ClickId::now(), campaign.id) };
    let token = ticket.seal(&app.keyring, Purpose::Test, now);
    format!("{}/click?cid={}&{NAME}={token}", app.public_url, campaign.key)
}

/// What the link says signed; `None` of every other link, and of one that is too old or of another campaign.
pub(super) fn choices(app: &App, head: &Head, routes: &Routes, now: DateTime<Utc>) -> Option<Forced> {
    let query = head.uri.query().filter(|query| query.contains(NAME))?;
    let token = pairs(query).find_map(|pair| pair.strip_prefix(NAME)?.strip_prefix('='))?;
    let ticket = Ticket::open(&app.keyring, Purpose::Test, token).ok()?;
    let is_good =
        ticket.campaign_id == routes.campaign.id && !ticket.is_older_than(app.config.tracking.test_link, now);
    let Ticket { rule_id, path_id, landing_page_id, offer_id, .. } = ticket;
    is_good.then_some(Forced { rule_id, path_id, landing_page_id, offer_id })
}

/// Whether a part of a query is the choices, which are no business of the destination's.
pub(super) fn is_ours(part: &str) -> bool {
    part.split('=').next() == Some(NAME)
}
