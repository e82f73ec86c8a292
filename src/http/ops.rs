//! For operators and their machines: `/health`, `/livez`, `/readyz` and `/readyz/redirect`, `/metrics`; for crawlers:
//! `/robots.txt`.

pub(crate) mod docs;
use std::sync::atomic::Ordering;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    app::{App, SetUp},
    campaigns::Source,
    db::replicas::{Report, health},
    embedded,
    http::api::manners::auth,
};

/// `GET /livez`: the process answers; it depends on nothing.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether a balancer should send clicks here rather than elsewhere. Not affected by Postgres or Redis.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    match unready(&app) {
        Some(reason) => refuse(reason),
        None if !app.journal.is_writable() => refuse("the journal cannot be written\n"),
        None => "ready\n".into_response(),
    }
}

/// `GET /readyz/redirect`: whether clicks can be sent here at all: they are redirected, recorded or not.
pub(super) async fn readyz_redirect(State(app): State<App>) -> Response {
    match unready(&app) {
        Some(reason) => refuse(reason),
        None if !app.journal.is_writable() => {
            "ready to redirect, but clicks are not recorded: the journal cannot be written\n".into_response()
        }
        None => "ready\n".into_response(),
    }
}

/// Why no click should come here.
fn unready(app: &App) -> Option<&'static str> {
    if app.state.is_stopping.load(Ordering::Relaxed) {
        Some("stopping\n")
    } else if !app.state.is_started.load(Ordering::Relaxed) {
        Some("starting\n")
    } else {
        None
    }
}

fn refuse(reason: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], reason).into_response()
}

/// `GET /robots.txt`: what crawlers may fetch; their clicks are labelled, and redirects say `noindex`.
pub(super) async fn robots(State(app): State<App>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, app.config.tracking.robots_txt.clone()).into_response()
}

/// `GET /metrics`: the Prometheus text format, for whom `auth::may_watch` lets in.
pub(super) async fn metrics(_: auth::Metrics, State(app): State<App>) -> Response {
    app.db.observe_pools();
    crate::metrics::observe_cache();
    let text = app.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[derive(Serialize)]
struct Component {
    name: String,
    status: &'static str,
    detail: String,
}

impl Component {
    fn new(name: impl Into<String>, is_ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.into(), status: if is_ok { "ok" } else { "degraded" }, detail: detail.into() }
    }
}

/// `GET /health` where strangers can see it.
pub(super) async fn bare_health(State(app): State<App>) -> Response {
    let status = if app.journal.is_writable() { "ok" } else { "degraded" };
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "status": status }))).into_response()
}

/// `GET /health`: every part, for people who may see it, else as strangers see it. 200 while clicks can be redirected.
pub(super) async fn health(State(app): State<App>, parts: Parts) -> Response {
    if !auth::is_watcher(&parts, &app).await {
        return bare_health(State(app)).await;
    }
    let components = components(&app).await;
    let is_ok = components.iter().all(|c| c.status == "ok");
    let can_redirect = app.campaigns.state().1 != Source::Nothing;
    let body = json!({
        "status": if is_ok { "ok" } else { "degraded" },
        "version": env!("CARGO_PKG_VERSION"),
        "components": components,
    });
    let status = if can_redirect { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn components(app: &App) -> Vec<Component> {
    let mut components = vec![journal(app), drain(app)];
    components.extend(app.private_postgres.as_deref().map(private_postgres));
    components.push(primary(app));
    components.extend(app.db.replicas().reports().iter().map(replica));
    components.push(match app.campaigns.ping_redis().await {
        None => Component::new("redis", true, "not configured"),
        Some((true, mode)) => Component::new("redis", true, format!("{mode}, answers")),
        Some((false, mode)) => {
            let detail = format!("{mode}, does not answer; campaigns come from memory and Postgres");
            Component::new("redis", false, detail)
        }
    });
    let (count, source) = app.campaigns.state();
    components.push(match source {
        Source::Nothing => Component::new("cache", false, "no campaigns were loaded yet"),
        Source::Disk => {
            Component::new("cache", false, format!("{count} campaigns saved by an earlier start"))
        }
        Source::Database if app.campaigns.is_stale() => {
            Component::new("cache", false, format!("{count} campaigns, not confirmed by Postgres lately"))
        }
        Source::Database => Component::new("cache", true, format!("{count} campaigns")),
    });
    components
}

fn journal(app: &App) -> Component {
    let stats = app.journal.stats();
    let (trouble, shortage) = (app.journal.trouble(), app.admission.shortage());
    let detail = match (&trouble, stats.corrupt_segments, shortage) {
        (Some(trouble), _, _) => format!(
            "cannot be written ({:#}): clicks are redirected but not recorded; it is tried again by itself",
            anyhow::Error::from(trouble.clone())
        ),
        (None, 0, Some(shortage)) => format!("{shortage}: events are refused, what is left is for clicks"),
        (None, 0, None) => format!("{} bytes in {} segments", stats.bytes, stats.segments),
        (None, damaged, _) => format!("{damaged} damaged segments; see `octo journal verify`"),
    };
    let is_ok = trouble.is_none() && stats.corrupt_segments == 0 && shortage.is_none();
    Component::new("journal", is_ok, detail)
}

fn drain(app: &App) -> Component {
    let pending = app.journal.stats().pending_records;
    Component::new("drain", true, format!("{pending} records on their way to Postgres"))
}

fn private_postgres(private: &embedded::Supervisor) -> Component {
    let (is_ok, detail) = match private.state() {
        embedded::State::Up { .. } => (true, "runs".to_owned()),
        embedded::State::Starting => (false, "is being started; clicks wait in the journal".to_owned()),
        embedded::State::Failing(reason) => {
            (false, format!("cannot be started: {reason}; clicks wait in the journal, and it is tried again"))
        }
    };
    Component::new("private postgres", is_ok, detail)
}

/// As the last probe saw it: strangers who ask for `/health` cost the database nothing.
fn primary(app: &App) -> Component {
    let set_up = app.state.set_up.borrow().clone();
    let (is_ok, detail) = match (app.db.primary_seen(), set_up, app.state.foreign_encoding()) {
        (None, ..) => (false, "does not answer; clicks wait in the journal".to_owned()),
        (Some(_), SetUp::Failing(reason), _) => (false, format!("{reason}; clicks wait in the journal")),
        (Some(_), SetUp::Waiting, _) => (false, "answers, and its schema is being checked".to_owned()),
        (Some(_), _, Some(encoding)) => (
            false,
            format!("its encoding is {encoding} and not UTF8: what does not fit becomes a dead letter"),
        ),
        (Some(ago), ..) => (true, format!("answered {} ms ago, UTF8", ago.as_millis())),
    };
    Component::new("postgres primary", is_ok, detail)
}

fn replica(report: &Report) -> Component {
    let detail = match report.state {
        health::State::Ejected => "answers no reads: it is gone, too far behind, or was promoted".to_owned(),
        state => format!("{}, {} s and {} bytes behind", state.as_str(), report.lag_s, report.lag_bytes),
    };
    Component::new(
        format!("postgres replica {}", report.replica),
        report.state == health::State::Healthy,
        detail,
    )
}
