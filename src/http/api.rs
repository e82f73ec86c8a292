//! The admin API: one file a noun, and in [`manners`] what they have in common.

pub(crate) mod affiliate_networks;
pub(crate) mod budgets;
pub(crate) mod campaigns;
pub(crate) mod caps;
pub(crate) mod clicks;
pub(crate) mod conversions;
pub(crate) mod costs;
pub(crate) mod dead_letters;
pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod exports;
pub(crate) mod fx_rates;
pub(crate) mod landing_pages;
pub(crate) mod library;
pub(crate) mod manners;
pub(crate) mod offers;
pub(crate) mod openapi;
pub(crate) mod out_clicks;
pub(crate) mod postback_targets;
pub(crate) mod postbacks;
pub(crate) mod reconciliations;
pub(crate) mod reports;
pub(crate) mod script;
pub(crate) mod stats;
pub(crate) mod story;
pub(crate) mod system;
pub(crate) mod templates;
pub(crate) mod tokens;
pub(crate) mod traffic_sources;
pub(crate) mod views;

use utoipa_axum::router::OpenApiRouter;

use crate::{app::App, http::api::manners::answer::ROOT};

/// Every route under [`ROOT`], with its description.
pub(crate) fn router() -> OpenApiRouter<App> {
    let nouns = OpenApiRouter::default()
        .merge(campaigns::router())
        .merge(offers::router())
        .merge(landing_pages::router())
        .merge(traffic_sources::router())
        .merge(affiliate_networks::router())
        .merge(postback_targets::router())
        .merge(deliveries::router())
        .merge(templates::router())
        .merge(caps::router())
        .merge(fx_rates::router())
        .merge(costs::router())
        .merge(budgets::router())
        .merge(stats::router())
        .merge(reports::router())
        .merge(exports::router())
        .merge(story::router())
        .merge(clicks::router())
        .merge(events::router())
        .merge(out_clicks::router())
        .merge(conversions::router())
        .merge(postbacks::router())
        .merge(reconciliations::router())
        .merge(dead_letters::router())
        .merge(script::router())
        .merge(tokens::router())
        .merge(system::router());
    OpenApiRouter::default().nest(ROOT, nouns)
}
