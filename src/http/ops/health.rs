//! `/health`: how octo and its parts are, for people.

use axum::{
    Json, extract,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, SetUp},
    campaigns::Source,
    db::{
        replicas::{Report, health::State},
        store::outbox::Stats,
    },
    embedded,
    http::api::manners::auth,
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(health))
}

/// How octo is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok` or `degraded`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// octo's; not where strangers ask.
    #[schema(value_type = String, example = "0.1.0")]
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// Every part; not where strangers ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Vec<Component>>,
}

/// How a part is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Component {
    /// Which.
    #[schema(example = "postgres primary")]
    pub(crate) name: String,
    /// `ok` or `degraded`.
    #[schema(value_type = String, example = "ok")]
    pub(crate) status: &'static str,
    /// For people.
    #[schema(example = "answered 12 ms ago")]
    pub(crate) detail: String,
}

impl Component {
    fn new(name: impl Into<String>, is_ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.into(), status: status_of(is_ok), detail: detail.into() }
    }
}

fn status_of(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "degraded" }
}

/// `GET /health` where strangers can see it.
pub(crate) async fn bare_health(extract::State(app): extract::State<App>) -> Response {
    let health = Health { status: status_of(app.journal.is_writable()), version: None, components: None };
    ([(header::CACHE_CONTROL, "no-store")], Json(json!(health))).into_response()
}

/// How octo and its parts are
///
/// For people; 200 while clicks can be redirected. Strangers are told the status only: the rest is for requests from
/// the machine itself that no proxy passed on, for tokens of scope `metrics`, `read` or `admin`, and for
/// `server.admin_listen`, unless `server.public_metrics` is set.
#[utoipa::path(
    get, path = "/health", tag = "operations", operation_id = "get_health", security((), ("token" = ["metrics"])),
    responses(
        (status = 200, description = "Clicks are redirected.", body = Health),
        (status = 503, description = "No campaign is known.", body = Health),
    ),
)]
async fn health(extract::State(app): extract::State<App>, parts: Parts) -> Response {
    if !auth::is_watcher(&parts, &app).await {
        return bare_health(extract::State(app)).await;
    }
    let components = components(&app).await;
    let is_ok = components.iter().all(|c| c.status == "ok");
    let can_redirect = app.campaigns.state().1 != Source::Nothing;
    let health = Health {
        status: status_of(is_ok),
        version: Some(env!("CARGO_PKG_VERSION")),
        components: Some(components),
    };
    let status = if can_redirect { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!(health))).into_response()
}

/// How every part is.
pub(crate) async fn components(app: &App) -> Vec<Component> {
    let mut components = vec![journal(app), drain(app), deliveries(app)];
    components.extend(app.private_postgres.as_deref().map(private_postgres));
    components.push(primary(app));
    components.extend(app.db.replicas().reports().iter().map(replica));
    components.push(match &app.redis {
        None => Component::new("redis", true, "not configured"),
        Some(redis) if redis.ping().await => {
            Component::new("redis", true, format!("{}, answers", redis.mode()))
        }
        Some(redis) => {
            let detail =
                format!("{}, does not answer; campaigns come from memory and Postgres", redis.mode());
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

/// As the worker saw it last.
fn deliveries(app: &App) -> Component {
    let Some(stats) = app.postbacks.stats() else {
        return Component::new("deliveries", true, "not looked at yet");
    };
    let Stats { paused, failing, pending, .. } = stats;
    let detail = match (failing, paused) {
        (0, 0) => format!("{pending} postbacks on their way"),
        (0, paused) => format!("{paused} targets are paused; {pending} postbacks wait"),
        (failing, paused) => format!("{failing} targets fail, {paused} are paused; {pending} postbacks wait"),
    };
    Component::new("deliveries", failing == 0 && paused == 0, detail)
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
        (Some(ago), SetUp::Schema, _) => {
            (true, format!("answered {} ms ago; partitions and keys are being prepared", ago.as_millis()))
        }
        (Some(ago), ..) => (true, format!("answered {} ms ago, UTF8", ago.as_millis())),
    };
    Component::new("postgres primary", is_ok, detail)
}

fn replica(report: &Report) -> Component {
    let detail = match report.state {
        State::Ejected => "answers no reads: it is gone, too far behind, or was promoted".to_owned(),
        state => format!("{}, {} s and {} bytes behind", state.as_str(), report.lag_s, report.lag_bytes),
    };
    Component::new(format!("postgres replica {}", report.replica), report.state == State::Healthy, detail)
}
