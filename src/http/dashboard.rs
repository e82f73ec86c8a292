//! The dashboard at `/ui`: pages of HTML, made whole here and shown by any browser, with JavaScript or without. What they show comes
//! from the functions behind the API; there is no SQL of their own.
//!
//! Nearly every text on these pages was written by a stranger. Templates escape all of them, and the policy of every page forbids
//! what would run if one did not.

mod assets;
mod campaign;
mod campaigns;
mod chart;
mod clicks;
mod failure;
mod figures;
mod filters;
mod form;
mod frame;
mod inputs;
mod live;
mod overview;
mod query;
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
        .route("/ui/campaigns/{id}/links", get(campaign::links_page))
        .route("/ui/campaigns/{id}/settings", get(settings::page).post(settings::save))
        .route("/ui/report", get(report::page))
        .route("/ui/report.csv", get(report::csv))
        .route("/ui/clicks", get(clicks::page))
        .route("/ui/clicks/{id}", get(clicks::story_page))
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
