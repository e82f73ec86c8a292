//! HTTP: the routes, and what surrounds every one of them.

mod api;
mod auth;
mod campaigns;
mod click;
mod clicks;
mod client;
pub mod error;
mod event;
mod events;
pub mod fields;
pub mod openapi;
mod ops;
mod page;
mod stats;
mod tokens;

use std::{any::Any, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any as AnyOrigin, CorsLayer},
};

use crate::{app::App, metrics};
pub use client::Peer;
use error::Problem;

/// The header that carries our id of a click.
pub const X_CLICK_ID: HeaderName = HeaderName::from_static("x-click-id");
/// The header that says why an event was dropped.
pub const X_OCTO_DROPPED: HeaderName = HeaderName::from_static("x-octo-dropped");
/// `0` on a redirect whose click was not on disk when it was answered; not sent otherwise.
pub const X_OCTO_RECORDED: HeaderName = HeaderName::from_static("x-octo-recorded");

/// What strangers reach: redirects, events, probes; everything else too when there is no admin listener.
pub fn public_router(app: &App) -> Router {
    let routes = tracking_routes().route("/livez", get(ops::livez)).route("/readyz", get(ops::readyz));
    let routes = if app.config.server.admin_listen.is_some() {
        routes.route("/health", get(ops::bare_health))
    } else {
        routes.merge(operator_routes())
    };
    surround(routes, app)
}

/// What operators reach on `server.admin_listen`.
pub fn admin_router(app: &App) -> Router {
    let routes = Router::new().route("/livez", get(ops::livez)).route("/readyz", get(ops::readyz));
    surround(routes.merge(operator_routes()), app)
}

fn tracking_routes() -> Router<App> {
    let cors = CorsLayer::new()
        .allow_origin(AnyOrigin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE])
        .expose_headers([X_OCTO_DROPPED]);
    let events = Router::new()
        .route("/event", post(event::event))
        .route("/events", post(event::events))
        .route("/event.gif", get(event::pixel))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() }) // inside CORS: it answers preflights
        .layer(cors);
    Router::new().route("/click", get(click::click)).route("/c/{key}", get(click::short)).merge(events)
}

fn operator_routes() -> Router<App> {
    let (api, document) = openapi::router().split_for_parts();
    api.merge(openapi::document_route(&document))
        .route("/health", get(ops::health))
        .route("/metrics", get(ops::metrics))
}

fn surround(routes: Router<App>, app: &App) -> Router {
    routes
        .fallback(|| async { Problem::not_found("page") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(measure))
        .with_state(app.clone())
}

/// Times and counts every request; unknown paths and methods share one label.
async fn measure(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_label(request.method());
    let mut response = if request.headers().get_all(header::HOST).iter().count() > 1 {
        metrics::http_refused("host"); // RFC 9112 section 3.2
        Problem::bad_request("host", "A request has one Host.").into_response()
    } else {
        next.run(request).await
    };
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    metrics::http_request(route, method, response.status().as_u16(), start.elapsed());
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(nosniff);
    response
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer gives the panic away")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    metrics::panicked();
    let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Problem::internal(format!("a request panicked: {}", what.unwrap_or("no message"))).into_response()
}
