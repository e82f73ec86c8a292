//! `GET /click?cid=KEY&...` and `GET /c/KEY?...`: a visit becomes a click on disk, then a redirect.
//!
//! Nothing in a query can make a known campaign answer anything but a redirect, and nothing here knows a
//! database: the campaign comes from memory, the click goes to the journal.

use std::{borrow::Cow, net::IpAddr};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

use super::{
    X_CLICK_ID, X_OCTO_RECORDED,
    client::{self, Peer},
    error::Problem,
    signals,
};
use crate::{
    app::App,
    cache::Lookup,
    config::millis,
    enrich::Visit,
    journal::{AppendError, Pending},
    metrics::{self, CLICK_ROUTE},
    model::{
        click::{Click, InvalidReason},
        id::{CampaignKey, ClickId},
        text::{HEADER_CHARS_MAX, clean_bytes},
        visit::Params,
    },
    routing::{self, Decision, Routes},
    template::Values,
};

/// Whether a path is a link's.
pub(super) fn is_link(path: &str) -> bool {
    path == CLICK_ROUTE || short_key(path).is_some()
}

/// The route of a link, for metrics.
pub(super) fn route(path: &str) -> &'static str {
    if path == CLICK_ROUTE { CLICK_ROUTE } else { "/c/{key}" }
}

/// `/c/KEY`
fn short_key(path: &str) -> Option<&str> {
    path.strip_prefix("/c/").filter(|key| !key.is_empty() && !key.contains('/'))
}

/// Answers a link, once its click is on disk.
pub(super) async fn answer(app: &App, peer: Peer, head: &Head) -> Response {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        let allow = HeaderValue::from_static("GET, HEAD");
        return Problem::method_not_allowed().with_header(header::ALLOW, allow).into_response();
    }
    let mut answer = match visit(app, peer, head, |key| app.campaigns.in_memory(key).map(Lookup::Found)) {
        Ok(answer) => answer,
        Err(key) => {
            let found = app.campaigns.look_up(&key).await;
            visit(app, peer, head, |_| Some(found.clone())).expect("the look-up has an answer")
        }
    };
    if let Some(pending) = answer.pending
        && !is_on_disk(app, pending).await
    {
        answer.response.headers_mut().insert(X_OCTO_RECORDED, HeaderValue::from_static("0"));
    }
    answer.response
}

/// What a visitor is told, as soon as the click is on disk.
struct Answer {
    response: Response,
    pending: Option<Pending>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, pending: None }
    }
}

/// Turns a visit into a click in the journal's queue and the answer to it, without waiting for anything.
/// `Err` is the key of a campaign that `campaign` does not know.
fn visit(
    app: &App,
    peer: Peer,
    head: &Head,
    campaign: impl FnOnce(&str) -> Option<Lookup>,
) -> Result<Answer, CampaignKey> {
    let params = Params::parse(head.uri.query().unwrap_or_default());
    let path_key = short_key(head.uri.path()).map(|key| percent_decode_str(key).decode_utf8_lossy());
    let Some(cid) = path_key.as_deref().or(params.cid.as_deref()) else {
        metrics::click("bad_request");
        return Ok(plain(StatusCode::BAD_REQUEST, "The parameter cid is missing.\n").into());
    };
    // `;` does not separate parameters, but no key holds one: a link written with it still finds its campaign
    let cid = cid.split(';').next().unwrap_or_default();
    let found = match campaign(cid) {
        Some(found) => found,
        None => cid.parse().map_or(Ok(Lookup::Unknown), Err)?,
    };
    let Lookup::Found(routes) = found else { return Ok(unknown(app, &found).into()) };
    let id = ClickId::now();
    let decision = routing::decide(&routes, &params, id.created_at(), id.seed());
    let Some(template) = decision.template else {
        metrics::click("no_destination");
        return Ok(plain(StatusCode::NOT_FOUND, "This campaign has no destination.\n").into());
    };
    let click = accept(app, peer, head, id, &params, &routes, &decision);
    let pass_through = if routes.campaign.pass_through { params.unknown.as_slice() } else { &[] };
    let values = Values { click: &click, cid: routes.campaign.key.as_str() };
    let location = template.expand(&values, pass_through);
    let pending = (head.method != Method::HEAD).then(|| app.journal.append_with(|out| click.encode(out)));
    metrics::click(match pending {
        None => "head",
        Some(_) if click.is_valid() => "redirected",
        Some(_) => "invalid",
    });
    Ok(Answer { response: redirect(app, location, Some(id)), pending })
}

/// The click that this visit becomes.
fn accept<'a>(
    app: &App,
    peer: Peer,
    head: &'a Head,
    id: ClickId,
    params: &Params<'a>,
    routes: &Routes,
    decision: &Decision<'_>,
) -> Click<'a> {
    let headers = &head.headers;
    let text = |name| headers.get(name).map(|v| clean_bytes(v.as_bytes(), HEADER_CHARS_MAX));
    let user_agent = text(header::USER_AGENT);
    let ip = client::address(peer.0.ip(), headers, &app.config.server);
    let agent = user_agent.as_deref().unwrap_or_default();
    let visitor = app.enricher.describe(agent, Some(ip));
    let now_s = id.timestamp_ms() / 1000;
    let label = || match visitor.is_bot {
        _ if signals::is_prefetch(headers) => Some(InvalidReason::Prefetch),
        true => Some(InvalidReason::Bot),
        // no click comes of it, so it begins no visit
        false if head.method == Method::HEAD => None,
        false => app.visits.suspect(Visit { ip, user_agent: agent, campaign_id: routes.campaign.id, now_s }),
    };
    // last, because only a click that is valid otherwise counts; HEAD is none
    let over =
        || (head.method != Method::HEAD && is_over_limit(app, ip)).then_some(InvalidReason::RateLimited);
    let invalid_reason = decision.refused.or_else(label).or_else(over);
    let mut click = Click::new(id, routes.campaign.id);
    params.describe(&mut click);
    visitor.describe(&mut click);
    click.referrer = text(header::REFERER);
    click.invalid_reason = invalid_reason;
    // from here on it is about what is kept, in the journal and in the destination
    if signals::asks_for_privacy(headers, &app.config.privacy) {
        click.referrer = click.referrer.map(|r| Cow::Owned(signals::site(&r).to_owned()));
    } else {
        click.ip = app.visits.kept_address(ip, now_s);
        click.user_agent = user_agent;
    }
    click.landing_page_id = decision.landing_page_id.or(click.landing_page_id);
    click.campaign_offer_id = decision.offer_id.or(click.campaign_offer_id);
    click
}

/// Whether the address clicked more often than `limits.clicks_per_minute`; counts this click.
fn is_over_limit(app: &App, ip: IpAddr) -> bool {
    app.limits.clicks.as_ref().is_some_and(|limit| limit.count(ip).is_err())
}

/// Waits until the click is on disk and says whether it is; if it cannot be, the visitor is redirected all the
/// same and the click is counted.
async fn is_on_disk(app: &App, mut pending: Pending) -> bool {
    let Ok(answer) = timeout(millis(app.config.journal.append_timeout_ms), pending.durable()).await else {
        count_later(pending);
        return false;
    };
    count_unrecorded(&answer);
    answer.is_ok()
}

/// The disk did not answer in time, but it may yet: the click counts as unrecorded only if it is not.
fn count_later(mut pending: Pending) {
    #[expect(clippy::disallowed_methods, reason = "waits for the journal's answer only, which always comes")]
    tokio::spawn(async move { count_unrecorded(&pending.durable().await) });
}

fn count_unrecorded(answer: &Result<u64, AppendError>) {
    if let Err(error) = answer {
        metrics::click_unrecorded();
        tracing::debug!(%error, "a click was redirected but not recorded");
    }
}

fn unknown(app: &App, found: &Lookup) -> Response {
    let is_fallback = app.config.tracking.fallback_url.is_some();
    metrics::click(match found {
        Lookup::Unavailable => "unavailable",
        _ if is_fallback => "fallback",
        _ => "unknown_campaign",
    });
    match &app.config.tracking.fallback_url {
        Some(url) => redirect(app, url.to_string(), None),
        None => plain(StatusCode::NOT_FOUND, "There is no such campaign.\n"),
    }
}

fn redirect(app: &App, location: String, id: Option<ClickId>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.reserve(8);
    let mut put = |name: HeaderName, value: String| {
        // a destination is ASCII by its template, the others are ours
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            headers.insert(name, value);
        }
    };
    put(header::LOCATION, location);
    if let Some(id) = id {
        put(X_CLICK_ID, id.to_string());
    }
    if let Some(policy) = &app.referrer_policy {
        headers.insert(header::REFERRER_POLICY, policy.clone());
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}
