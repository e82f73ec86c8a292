//! HTTP: the routes, and what surrounds every one of them.

pub(crate) mod api;
mod body;
mod client;
mod compression;
mod dashboard;
mod described;
pub mod error;
pub mod fields;
mod head;
mod ops;
mod pieces;
mod request_id;
pub(crate) mod track;

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::MatchedPath,
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts as Head, uri::PathAndQuery},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use futures_util::FutureExt;
use hyper::{Request, body::Incoming};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    app::App,
    http::{
        api::{
            manners::{auth, idempotency, position},
            openapi,
        },
        error::panicked,
        track::{
            click::{self, Link},
            cors, script,
        },
    },
    metrics,
    script::Asked,
};
pub use client::Peer;
use error::Problem;

/// Answers the requests of one listener: tracking links here, everything else by the router.
///
/// Links are most of what octo is asked for. They need no layers, no boxed futures and no body, so they go
/// past the router: profiled, its layers took as long as the click itself.
#[derive(Clone)]
pub struct Service {
    app: App,
    router: Router,
    has_links: bool,
}

impl Service {
    /// What strangers reach: redirects, events, probes; everything else too when there is no admin listener.
    pub fn public(app: &App) -> Self {
        let routes = Router::from(track::router()).merge(probe_routes());
        let routes = if app.config.server.admin_listen.is_some() {
            routes.route("/health", get(ops::health::bare_health))
        } else {
            routes.merge(operator_routes(app))
        };
        Self { app: app.clone(), router: surround(routes, app), has_links: true }
    }

    /// What operators reach on `server.admin_listen`.
    pub fn admin(app: &App) -> Self {
        let router = surround(probe_routes().merge(operator_routes(app)), app);
        Self { app: app.clone(), router, has_links: false }
    }

    /// Answers one request; `bound` gives a body its limits.
    pub async fn answer(
        &self,
        peer: Peer,
        mut request: Request<Incoming>,
        bound: impl FnOnce(Incoming) -> Body,
    ) -> Response {
        let ahead = if self.has_links { Ahead::of(&self.app, &mut request) } else { None };
        let is_tracked = ahead.is_some() || (self.has_links && track::is_report(request.uri().path()));
        if !is_tracked {
            return self.respond(peer, None, request, bound).await;
        }
        let page = cors::Page::of(request.method(), request.headers());
        let mut response = match page.preflight() {
            Some(allowed) => answer_preflight(ahead, &request, allowed),
            None => self.respond(peer, ahead, request, bound).await,
        };
        page.let_in(&mut response);
        response
    }

    async fn respond(
        &self,
        peer: Peer,
        ahead: Option<Ahead>,
        request: Request<Incoming>,
        bound: impl FnOnce(Incoming) -> Body,
    ) -> Response {
        let Some(ahead) = ahead else {
            if self.has_links
                && let Some(refusal) = self.app.admission.refusal()
                && let Some(mut shed) = track::shed(refusal, request.method(), request.uri().path())
            {
                let route = track::report_route(request.uri().path());
                finish(&mut shed, route, request.method(), Instant::now());
                return shed;
            }
            let mut request = request.map(bound);
            request.extensions_mut().insert(peer);
            if !self.has_links {
                request.extensions_mut().insert(auth::ToAdminListener);
            }
            let Ok(response) = self.router.clone().oneshot(request).await;
            return response.map(pieces::in_pieces);
        };
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let body = (head.method == Method::POST).then(|| bound(body));
        let mut response = match head::refuse(&head.method, &head.uri, head.version, &head.headers) {
            Some(refused) => refused,
            None => match AssertUnwindSafe(ahead.answer(&self.app, peer, &head, body)).catch_unwind().await {
                Ok(response) => response,
                Err(panic) => panicked(panic),
            },
        };
        finish(&mut response, ahead.route(), &head.method, start);
        response
    }
}

/// What is answered ahead of the router.
#[derive(Debug, Clone, Copy)]
enum Ahead {
    Link(Link),
    Script(Asked),
}

impl Ahead {
    /// `None`: the router knows. A path of the configuration becomes the one that it stands for.
    fn of(app: &App, request: &mut Request<Incoming>) -> Option<Self> {
        let path = request.uri().path();
        if let Some(link) = Link::of(path, request.uri().query().unwrap_or_default()) {
            return Some(Self::Link(link));
        }
        if let Some(path) = app.script.stands_for(path) {
            *request.uri_mut() = with_path(request.uri(), path);
            return None;
        }
        app.script.asked(path).map(Self::Script)
    }

    async fn answer(self, app: &App, peer: Peer, head: &Head, body: Option<Body>) -> Response {
        match self {
            Self::Link(link) => click::answer(app, peer, link, head, body).await,
            Self::Script(asked) => script::answer(app, asked, head),
        }
    }

    fn route(self) -> &'static str {
        match self {
            Self::Link(link) => link.route(),
            Self::Script(asked) => asked.route(),
        }
    }
}

/// The URI with another path.
fn with_path(uri: &Uri, path: &'static str) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}").parse().ok(), // it was one
        None => Some(PathAndQuery::from_static(path)),
    };
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn probe_routes() -> Router<App> {
    Router::from(ops::probes::router().merge(track::robots::router()))
}

/// The answer to a preflight, unless the request is one that must not be read on from.
fn answer_preflight(ahead: Option<Ahead>, request: &Request<Incoming>, allowed: Response) -> Response {
    let start = Instant::now();
    let method = request.method();
    let refused = head::refuse(method, request.uri(), request.version(), request.headers());
    let mut response = refused.unwrap_or(allowed);
    let route = ahead.map_or_else(|| track::report_route(request.uri().path()), Ahead::route);
    finish(&mut response, route, method, start);
    response
}

fn operator_routes(app: &App) -> Router<App> {
    Router::from(api::router())
        .merge(api::costs::keitaro::router())
        .layer(middleware::from_fn_with_state(app.clone(), position::see))
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::once))
        .merge(open_routes())
        .merge(dashboard::router())
        .layer(compression::layer())
}

/// What answers without a token; `/health` and `/metrics` look at who asks themselves.
fn open_routes() -> Router<App> {
    let reports = ops::health::router().merge(ops::metrics::router());
    ops::docs::routes(&openapi::document()).merge(Router::from(reports))
}

fn surround(routes: Router<App>, app: &App) -> Router {
    routes
        .fallback(|| async { Problem::not_found("page") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(measure))
        .layer(middleware::from_fn(request_id::carry))
        .with_state(app.clone())
}

async fn measure(request: axum::extract::Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let refused = head::refuse(&method, request.uri(), request.version(), request.headers());
    let mut response = match refused {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    finish(&mut response, route.as_ref().map_or("unmatched", MatchedPath::as_str), &method, start);
    response
}

/// Counts and times a request; unknown paths and methods share one label.
fn finish(response: &mut Response, route: &str, method: &Method, start: Instant) {
    let status = response.status();
    // whichever methods strangers try, a route gets one series for those that it does not have
    let method = if status == StatusCode::METHOD_NOT_ALLOWED { "other" } else { method_label(method) };
    metrics::http_request(route, method, status.as_u16(), start.elapsed());
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(nosniff);
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use regex::Regex;

    use super::*;
    use crate::config::OCTOS_OWN;

    /// What answers without a token. A new route is described in the OpenAPI document, where tests/it/api/scopes.rs
    /// tries it with each scope, or somebody who means it puts it here.
    const WITHOUT_TOKEN: [&str; 27] = [
        "GET /api/v1/openapi.json",
        "GET /c/{key}",
        "GET /click",
        "GET /docs",
        "GET /docs/style.css",
        "GET /event.gif",
        "GET /health",
        "GET /livez",
        "GET /metrics",
        "GET /o.js",
        "GET /o.{hash}.js",
        "GET /out",
        "GET /out/{n}",
        "GET /postback",
        "GET /postback/{key}",
        "GET /readyz",
        "GET /readyz/redirect",
        "GET /robots.txt",
        "POST /c/{key}",
        "POST /click",
        "POST /event",
        "POST /events",
        "POST /out",
        "POST /out/{n}",
        "POST /postback",
        "POST /postback/{key}",
        "POST /visit",
    ];

    /// What is answered ahead of the router.
    const AHEAD: [&str; 14] = [
        "GET /click",
        "GET /c/{key}",
        "POST /click",
        "POST /c/{key}",
        "GET /o.js",
        "GET /o.{hash}.js",
        "GET /out",
        "GET /out/{n}",
        "POST /out",
        "POST /out/{n}",
        "GET /postback",
        "GET /postback/{key}",
        "POST /postback",
        "POST /postback/{key}",
    ];

    /// `METHOD /path` of each route; axum tells them only to Debug.
    fn routes_of(router: &Router<App>) -> BTreeSet<String> {
        let text = format!("{router:?}");
        let (text, _) = text.split_once("fallback_router").expect("its last part");
        let pairs = |pattern: &str| -> BTreeMap<String, String> {
            let pattern = Regex::new(pattern).unwrap();
            pattern.captures_iter(text).map(|c| (c[1].to_owned(), c[2].to_owned())).collect()
        };
        let paths = pairs(r#"RouteId\((\d+)\): "([^"]+)""#);
        let methods = pairs(r#"RouteId\((\d+)\): MethodRouter\(.*?allow_header: Bytes\(b"([^"]*)"\)"#);
        assert!(paths.keys().eq(methods.keys()), "Debug of axum's Router has changed: {text}");
        let of_path = |(id, path): (&String, &String)| {
            let methods = methods[id].split(',').filter(|m| *m != "HEAD");
            methods.map(|method| format!("{method} {path}")).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of_path).collect()
    }

    #[test]
    fn every_route_is_in_the_document_or_meant_to_need_no_token() {
        let router =
            Router::from(api::router().merge(track::router())).merge(open_routes()).merge(probe_routes());
        let document = openapi::document();
        let without_token: BTreeSet<String> = WITHOUT_TOKEN.map(str::to_owned).into();
        let mut known = without_token.clone();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let name = format!("{} {path}", method.to_uppercase());
                let needs_token = operation["security"][0]["token"].is_array();
                assert_eq!(needs_token, !without_token.contains(&name), "{name}: {}", operation["security"]);
                known.insert(name);
            }
        }
        let answered: BTreeSet<String> =
            routes_of(&router).into_iter().chain(AHEAD.map(str::to_owned)).collect();
        assert_eq!(answered, known);
        for route in &answered {
            let first = route.split('/').nth(1).unwrap_or_default();
            assert!(OCTOS_OWN.contains(&first) || first == "o.{hash}.js", "config::OCTOS_OWN lacks {first}");
        }
    }
}
