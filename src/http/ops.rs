//! For operators and their machines: `/health`, `/livez`, `/readyz`, `/metrics`.

use std::sync::atomic::Ordering;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::{app::App, cache::Source, db};

/// `GET /livez`: the process answers; it depends on nothing.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether a balancer should send clicks here. Not affected by Postgres or Redis.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let reason = if app.state.is_stopping.load(Ordering::Relaxed) {
        "stopping\n"
    } else if !app.state.is_started.load(Ordering::Relaxed) {
        "starting\n"
    } else if !app.journal.is_writable() {
        "the journal cannot be written\n"
    } else {
        return "ready\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], reason).into_response()
}

/// `GET /metrics`: the Prometheus text format.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    app.db.observe_pools();
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
    Json(json!({ "status": status })).into_response()
}

/// `GET /health`: every part, for people. 200 while clicks can be redirected.
pub(super) async fn health(State(app): State<App>) -> Response {
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
    let primary = db::monitor::ping(app.db.primary()).await;
    components.push(postgres("postgres primary".to_owned(), &primary));
    for (i, replica) in app.db.replicas().iter().enumerate() {
        let answer = db::monitor::ping(replica).await;
        components.push(postgres(format!("postgres replica {i}"), &answer));
    }
    components.push(match app.campaigns.ping_redis().await {
        None => Component::new("redis", true, "not configured"),
        Some(true) => Component::new("redis", true, "answers"),
        Some(false) => {
            Component::new("redis", false, "does not answer; campaigns come from memory and Postgres")
        }
    });
    let (count, source) = app.campaigns.state();
    components.push(match source {
        Source::Nothing => Component::new("cache", false, "no campaigns were loaded yet"),
        Source::Disk => {
            Component::new("cache", false, format!("{count} campaigns saved by an earlier start"))
        }
        Source::Database => Component::new("cache", true, format!("{count} campaigns")),
    });
    components
}

fn journal(app: &App) -> Component {
    let stats = app.journal.stats();
    let detail = match (app.journal.is_writable(), stats.corrupt_segments) {
        (false, _) => "cannot be written: clicks are redirected but not recorded".to_owned(),
        (true, 0) => format!("{} bytes in {} segments", stats.bytes, stats.segments),
        (true, damaged) => format!("{damaged} damaged segments; see `octo journal verify`"),
    };
    Component::new("journal", app.journal.is_writable() && stats.corrupt_segments == 0, detail)
}

fn drain(app: &App) -> Component {
    let pending = app.journal.stats().pending_records;
    Component::new("drain", true, format!("{pending} records on their way to Postgres"))
}

fn postgres(name: String, answer: &Result<db::monitor::Ping, db::Error>) -> Component {
    match answer {
        Ok(ping) => Component::new(name, true, ping.to_string()),
        Err(db::Error::Unavailable(_)) => {
            Component::new(name, false, "does not answer; clicks wait in the journal")
        }
        Err(_) => Component::new(name, false, "refuses a simple query; see the log"),
    }
}
