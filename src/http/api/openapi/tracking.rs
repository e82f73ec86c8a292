//! The addresses outside of `/api/v1`, as the document describes them: links, events, probes. The functions are
//! only their annotations; `http::click`, `http::event` and `http::ops` answer.
#![expect(dead_code, reason = "only the annotations are used")]

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{api::events::EventInput, error::ProblemBody, track::event::input::Adjusted};

/// Follow a link
///
/// A known campaign always redirects, and the click is on disk before the answer. Values are cut at 1,024 characters
/// (a longer `click_id` is left out); the first of repeated ones counts; other parameters go to the destination as they
/// were sent where the campaign passes them through. Nothing in the query is refused: what cannot be kept is named in
/// the click's `adjusted`. A value that is a macro the source did not fill (`{campaign}`) is none. `&amp;` separates like
/// `&`. A key that is not known as it stands is looked for without what mail and chat put around it, then in any case.
/// `HEAD` gives the same answer and is no click.
#[utoipa::path(
    get, path = "/click", tag = "tracking", operation_id = "click", security(()),
    params(
        ("cid" = String, Query, description = "The campaign's key.", example = "demo"),
        ("sub1" = Option<String>, Query, description = "The source's own value; `sub2` to `sub5` likewise."),
        ("click_id" = Option<String>, Query, description = "The source's own id of the click.", example = "source-4711"),
        ("landing_page_id" = Option<String>, Query, description = "Go to this landing page of the campaign.", example = "5"),
        ("campaign_offer_id" = Option<String>, Query, description = "Go to this offer of the campaign.", example = "6"),
        ("traffic_source_id" = Option<String>, Query, description = "Where the visitor comes from."),
        ("cost" = Option<String>, Query, description = "What the click cost: `0.05`, `0,05`, `$0.05`, `1,234.56`, `5.0E-5`; six decimals are kept.", example = "0.05"),
        ("currency" = Option<String>, Query, description = "Of the cost; `XXX` is kept for one that is not known.", example = "USD"),
    ),
    responses(
        (status = 302, description = "To the destination.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click; not on a prefetched fallback."),
            ("Cache-Control" = String, description = "Each visit is asked for again."),
            ("Referrer-Policy" = String, description = "As `tracking.referrer_policy` says."),
            ("X-Robots-Tag" = String, description = "`noindex`."),
            ("X-Octo-Recorded" = String, description = "`0`: the disk did not take the click; not sent otherwise."),
        )),
        (status = 400, description = "There is no `cid`.", content_type = "text/plain", body = String, example = json!("cid is missing.\n")),
        (status = 404, description = "There is no such campaign, or it takes no clicks and has no fallback.", content_type = "text/plain", body = String, example = json!("There is no such campaign.\n")),
    ),
)]
pub(super) fn click() {}

/// Follow a link by POST
///
/// As browsers do for `<a ping>`, `navigator.sendBeacon` and forms: a click like any other. Fields of a form count behind
/// the query; other bodies are not looked at. Pages of every origin may send it (CORS).
#[utoipa::path(
    post, path = "/click", tag = "tracking", operation_id = "post_click", security(()),
    params(("cid" = String, Query, description = "The campaign's key; all parameters of `GET /click`.", example = "demo")),
    responses(
        (status = 303, description = "To the destination.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click."),
        )),
        (status = 400, description = "There is no `cid`.", content_type = "text/plain", body = String, example = json!("cid is missing.\n")),
        (status = 404, description = "There is no such campaign, or it takes no clicks and has no fallback.", content_type = "text/plain", body = String, example = json!("There is no such campaign.\n")),
    ),
)]
pub(super) fn post_click() {}

/// Follow a short link
///
/// The same as `/click?cid=KEY`.
#[utoipa::path(
    get, path = "/c/{key}", tag = "tracking", operation_id = "short_click", security(()),
    params(
        ("key" = String, Path, description = "The campaign's key.", example = "demo"),
        ("sub1" = Option<String>, Query, description = "The source's own value; all parameters of `/click`."),
    ),
    responses(
        (status = 302, description = "To the destination.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click."),
            ("Cache-Control" = String, description = "Each visit is asked for again."),
        )),
        (status = 404, description = "There is no such campaign, or it takes no clicks and has no fallback.", content_type = "text/plain", body = String, example = json!("There is no such campaign.\n")),
    ),
)]
pub(super) fn short_click() {}

/// Follow a short link by POST
///
/// The same as `POST /click?cid=KEY`.
#[utoipa::path(
    post, path = "/c/{key}", tag = "tracking", operation_id = "post_short_click", security(()),
    params(("key" = String, Path, description = "The campaign's key.", example = "demo")),
    responses(
        (status = 303, description = "To the destination.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click."),
        )),
        (status = 404, description = "There is no such campaign, or it takes no clicks and has no fallback.", content_type = "text/plain", body = String, example = json!("There is no such campaign.\n")),
    ),
)]
pub(super) fn post_short_click() {}

/// What crawlers may fetch
///
/// By default everything, so that chats and networks show previews of links; `tracking.robots_txt` says otherwise.
#[utoipa::path(
    get, path = "/robots.txt", tag = "tracking", operation_id = "robots", security(()),
    responses((status = 200, description = "For crawlers.", content_type = "text/plain", body = String, headers(
        ("Cache-Control" = String, description = "An hour."),
    ), example = json!("User-agent: *\nAllow: /\n"))),
)]
pub(super) fn robots() {}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// `accepted`: it is on disk.
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
    /// Its id, by which the API shows it: the sender's where that is a UUID, else one made of the sender's, else ours.
    event_id: Uuid,
    /// What was changed to keep it; not there if nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    adjusted: Vec<Adjusted>,
}

/// What became of the events of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Results {
    /// One for each, in their order.
    results: Vec<ItemResult>,
}

/// What became of an event of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ItemResult {
    /// `accepted`, `rejected` with `errors`, or `unavailable`: send it again.
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<Uuid>,
    /// What was changed to keep it; not there if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    adjusted: Option<Vec<Adjusted>>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<crate::http::error::FieldError>>,
}

/// Report an event
///
/// Answered once it is on disk. Any origin may send it, with credentials and any header: as JSON, as text that is JSON
/// (`navigator.sendBeacon` of a text) or as `application/x-www-form-urlencoded` (of `URLSearchParams`), which is read like the
/// query of the pixel; at most 64 KiB.
///
/// An event is not refused for a detail: what cannot be kept is cut, made text or left out, and `adjusted` says so.
/// Refused is what is no JSON, has no `event_type` or neither `click_id` nor `cid` that is known, is too long or nested
/// deeper than 32 levels.
#[utoipa::path(
    post, path = "/event", tag = "tracking", operation_id = "report_event", security(()),
    request_body = EventInput,
    responses(
        (status = 202, description = "It is on disk.", body = Accepted),
        (status = 400, description = "The body is not JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "Events need a token here (`tracking.public_events`).", body = ProblemBody, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither JSON, text nor a form of names and values.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "It does not say what happened, or to whom; `errors` names each fault.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The disk does not take it, or what is left of it is for clicks; send it again after `Retry-After` seconds.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) fn event() {}

/// Report many events
///
/// At most 500 in at most 1 MiB, each of at most 512 KiB. Each is read like one of `POST /event`, and one that is refused
/// does not keep the others out.
#[utoipa::path(
    post, path = "/events", tag = "tracking", operation_id = "report_events", security(()),
    request_body = Vec<EventInput>,
    responses(
        (status = 202, description = "What became of each, in their order.", body = Results),
        (status = 400, description = "The body is not JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "Events need a token here (`tracking.public_events`).", body = ProblemBody, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is neither JSON nor text.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "It is no array, or too long a one.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "octo has too much to do, or what is left of the disk is for clicks; send them again after `Retry-After` seconds.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) fn events() {}

/// Report an event with a pixel
///
/// Always the same transparent GIF of 43 bytes, whatever happens. Other parameters become `properties`; `&amp;` separates
/// like `&`. `HEAD` is no event.
#[utoipa::path(
    get, path = "/event.gif", tag = "tracking", operation_id = "report_event_pixel", security(()),
    params(
        ("event_type" = Option<String>, Query, description = "1 to 64 of `a-z0-9_.-`; others are folded.", example = "view"),
        ("click_id" = Option<String>, Query, description = "The click it belongs to; this or `cid`.", example = "019aaf3c-5f00-7abc-8def-0123456789ab"),
        ("cid" = Option<String>, Query, description = "The campaign's key."),
        ("event_id" = Option<String>, Query, description = "The sender's own id: the same one again is the same event.", example = "order-1001"),
        ("time" = Option<String>, Query, description = "When it happened: RFC 3339, or seconds or milliseconds since 1970.", example = "2026-01-31T12:00:00Z"),
    ),
    responses((status = 200, description = "The pixel.", content_type = "image/gif", body = String, headers(
        ("X-Octo-Dropped" = String, description = "Why the event was not taken; not sent otherwise."),
        ("X-Octo-Adjusted" = String, description = "What was changed to keep it, as `code pointer` with commas between; not sent otherwise."),
        ("Cache-Control" = String, description = "Each is asked for again."),
    ), example = json!("GIF89a"))),
)]
pub(super) fn pixel() {}

/// How octo is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
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
pub(super) struct Component {
    /// Which.
    #[schema(example = "postgres primary")]
    name: String,
    /// `ok` or `degraded`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// For people.
    #[schema(example = "answered 12 ms ago")]
    detail: String,
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
pub(super) fn health() {}

/// Whether the process lives
///
/// Depends on nothing.
#[utoipa::path(
    get, path = "/livez", tag = "operations", operation_id = "get_livez", security(()),
    responses((status = 200, description = "It does.", content_type = "text/plain", body = String, example = json!("ok\n"))),
)]
pub(super) fn livez() {}

/// Whether a balancer should prefer to send clicks here
///
/// Clicks would be redirected and recorded. Where no node says so, `/readyz/redirect` names those that still redirect. Not
/// affected by PostgreSQL or Redis.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "get_readyz", security(()),
    responses(
        (status = 200, description = "It should.", content_type = "text/plain", body = String, example = json!("ready\n")),
        (status = 503, description = "It is starting or stopping, or the journal cannot be written.", content_type = "text/plain", body = String, example = json!("stopping\n")),
    ),
)]
pub(super) fn readyz() {}

/// Whether clicks can be sent here at all
///
/// They are redirected, also while the journal cannot be written; the body says whether they are recorded. For readiness
/// probes that take a node out, such as those of Kubernetes, and for a balancer's last resort.
#[utoipa::path(
    get, path = "/readyz/redirect", tag = "operations", operation_id = "get_readyz_redirect", security(()),
    responses(
        (status = 200, description = "They can.", content_type = "text/plain", body = String, example = json!("ready\n")),
        (status = 503, description = "It is starting or stopping.", content_type = "text/plain", body = String, example = json!("stopping\n")),
    ),
)]
pub(super) fn readyz_redirect() {}

/// Figures for Prometheus
///
/// Every metric of octo, the process and the runtime. Requests from the machine itself that no proxy passed on need no
/// token, nor does anybody where `server.public_metrics` is set; on `server.admin_listen`, where that is set, it is the
/// only address.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "get_metrics", security((), ("token" = ["metrics"])),
    responses(
        (status = 200, description = "The Prometheus text format.", content_type = "text/plain", body = String, example = json!("octo_journal_pending_records 0\n")),
        (status = 401, description = "There is no valid token.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The token's scope is too small.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many attempts with wrong credentials; try again after `Retry-After` seconds.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The database cannot be asked for the token; try again after `Retry-After` seconds.", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(super) fn metrics() {}

/// This document as a page
///
/// For people; without scripts, and without anything from elsewhere.
#[utoipa::path(
    get, path = "/docs", tag = "document", operation_id = "get_docs", security(()),
    responses((status = 200, description = "The page.", content_type = "text/html", body = String, example = json!("<!doctype html>"))),
)]
pub(super) fn docs() {}
