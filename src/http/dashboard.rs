//! The dashboard at `/ui`: pages of HTML, made whole here and shown by any browser, with JavaScript or without. What they show comes
//! from the functions behind the API; there is no SQL of their own.
//!
//! Nearly every text on these pages was written by a stranger. Templates escape all of them, and the policy of every page forbids
//! what would run if one did not.

mod access;
mod assets;
mod campaign;
mod campaigns;
mod chart;
mod clicks;
mod clone;
mod conversions;
mod cost_form;
mod costs;
mod csrf;
mod deliveries;
mod failure;
mod figures;
mod filters;
mod first_steps;
mod flow;
mod form;
mod frame;
mod health;
mod heat;
mod inputs;
mod library;
mod links;
mod live;
mod money;
mod overview;
mod postbacks;
mod query;
mod rates;
mod reconciliation;
mod replay;
mod report;
mod session;
mod settings;
mod sign_in;
mod table;
mod view;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{any, get, post},
};

use crate::{app::App, http::error::Problem};
use failure::Failure;

/// Where the dashboard is.
const ROOT: &str = "/ui";

/// Nothing but our own style, module and pictures, forms that lead back here, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The pages.
pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/ui", get(overview::page))
        .route("/ui/", get(|| async { Redirect::permanent(ROOT) }))
        .route("/ui/sign-in", get(sign_in::page).post(sign_in::enter))
        .route("/ui/sign-out", post(sign_in::leave))
        .route("/ui/campaigns", get(campaigns::page).post(campaigns::switch))
        .route("/ui/campaigns/new", get(settings::new_page).post(settings::create))
        .route("/ui/campaigns/{id}", get(campaign::report_page))
        .route("/ui/campaigns/{id}/flow", get(flow::page).post(flow::step))
        .route("/ui/campaigns/{id}/clone", get(clone::page).post(clone::make))
        .route("/ui/campaigns/{id}/links", get(links::page))
        .route("/ui/campaigns/{id}/settings", get(settings::page).post(settings::save))
        .route("/ui/report", get(report::page))
        .route("/ui/report.csv", get(report::csv))
        .route("/ui/clicks", get(clicks::page))
        .route("/ui/clicks/{id}", get(clicks::story_page))
        .route("/ui/library", get(library::begin))
        .route("/ui/library/{shelf}", get(library::page))
        .route("/ui/library/{shelf}/new", get(library::new_page).post(library::create))
        .route("/ui/library/{shelf}/{id}", get(library::entry_page).post(library::save))
        .route(first_steps::PATH, get(first_steps::page))
        .route("/ui/health", get(health::page).post(health::retry))
        .route("/ui/health/diagnostics.txt", get(health::diagnostics))
        .route("/ui/settings", get(access::page).post(access::change))
        .route("/ui/settings/rates", get(rates::page).post(rates::save))
        .route("/ui/conversions", get(conversions::page))
        .route("/ui/conversions/{id}", get(conversions::one))
        .route("/ui/postbacks", get(postbacks::page))
        .route("/ui/postbacks/replay", get(replay::page).post(replay::run))
        .route("/ui/postbacks/{id}", get(postbacks::one).post(postbacks::map))
        .route("/ui/deliveries", get(deliveries::page))
        .route("/ui/deliveries/{id}", get(deliveries::one).post(deliveries::retry))
        .route("/ui/deliveries/targets/{id}", post(deliveries::turn))
        .route("/ui/costs", get(costs::page))
        .route("/ui/costs/new", get(cost_form::page).post(cost_form::save))
        .route("/ui/costs/{id}", get(costs::one_page))
        .route("/ui/costs/{id}/void", post(costs::void))
        .route("/ui/reconciliation", get(reconciliation::page).post(reconciliation::compare))
        .route("/ui/live", get(live::page))
        .route("/ui/live/events", get(live::events))
        .route("/ui/assets/{name}", get(assets::asset))
        .route("/ui/{*rest}", any(|| async { Failure::from(Problem::not_found("page")) }))
        .layer(middleware::from_fn(guard))
}

/// What every answer says: who may show it where, and that nobody keeps it unless it says so itself.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        // the origin of a form must come with it; no other site is told anything
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A page, in HTML.
fn html(template: &impl askama::Template) -> Result<Response, Failure> {
    let text = template.render().map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response())
}
