//! `GET /click?cid=KEY&...` and `GET /c/KEY?...`: a visit becomes a click on disk, then a redirect.
//!
//! Nothing in a query can make a known campaign answer anything but a redirect, and nothing here knows a
//! database: the campaign comes from memory, the click goes to the journal.

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{
    X_CLICK_ID, X_OCTO_RECORDED,
    client::{self, Peer},
};
use crate::{
    app::App,
    cache::Lookup,
    config::millis,
    journal::{AppendError, Pending},
    metrics,
    model::{
        click::{Click, InvalidReason},
        id::{CampaignKey, ClickId},
        money::parse_amount,
        text::{HEADER_CHARS_MAX, clean_bytes},
        visit::Params,
    },
    routing::{self, Decision, Routes},
    template::Values,
};

/// `GET /click`
pub(super) async fn click(State(app): State<App>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let params = Params::parse(head.uri.query().unwrap_or_default());
    if let Some(cid) = params.cid.as_deref() {
        return visit(&app, &head, cid, &params).await;
    }
    metrics::click("bad_request");
    plain(StatusCode::BAD_REQUEST, "The parameter cid is missing.\n")
}

/// `GET /c/{key}`
pub(super) async fn short(State(app): State<App>, Path(key): Path<String>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let params = Params::parse(head.uri.query().unwrap_or_default());
    visit(&app, &head, &key, &params).await
}

async fn visit(app: &App, head: &Head, cid: &str, params: &Params<'_>) -> Response {
    // `;` does not separate parameters, but no key holds one: a link written with it still finds its campaign
    let cid = cid.split(';').next().unwrap_or_default();
    let found = match cid.parse::<CampaignKey>() {
        Ok(key) => app.campaigns.get(&key).await,
        Err(_) => Lookup::Unknown,
    };
    let Lookup::Found(routes) = found else { return unknown(app, &found) };
    let id = ClickId::now();
    let decision = routing::decide(&routes, params, id.created_at(), id.seed());
    let Some(template) = decision.template else {
        metrics::click("no_destination");
        return plain(StatusCode::NOT_FOUND, "This campaign has no destination.\n");
    };
    let click = accept(app, head, id, params, &routes, &decision);
    let pass_through = if routes.campaign.pass_through { params.unknown.as_slice() } else { &[] };
    let values = Values { click: &click, cid: routes.campaign.key.as_str() };
    let location = template.expand(&values, pass_through);
    let mut response = redirect(app, &location, Some(id));
    if head.method == Method::HEAD {
        metrics::click("head");
        return response;
    }
    metrics::click(if click.is_valid() { "redirected" } else { "invalid" });
    if !record(app, &click).await {
        response.headers_mut().insert(X_OCTO_RECORDED, HeaderValue::from_static("0"));
    }
    response
}

/// The click that this visit becomes.
fn accept<'a>(
    app: &App,
    head: &Head,
    id: ClickId,
    params: &Params<'a>,
    routes: &Routes,
    decision: &Decision<'_>,
) -> Click<'a> {
    let headers = &head.headers;
    let text = |name| headers.get(name).map(|v: &HeaderValue| clean_bytes(v.as_bytes(), HEADER_CHARS_MAX));
    let user_agent = text(header::USER_AGENT);
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let ip = peer.map(|peer| client::address(peer, headers, &app.config.server));
    let visitor = app.enricher.describe(user_agent.as_deref().unwrap_or_default(), ip);
    let label = || match visitor.is_bot {
        _ if is_prefetch(headers) => Some(InvalidReason::Prefetch),
        is_bot => is_bot.then_some(InvalidReason::Bot),
    };
    let known = |text: &'static str| (!text.is_empty()).then_some(text.into());
    let number = |text: Option<&str>| text.and_then(|t| t.parse().ok());
    let cost = params.cost.as_deref().and_then(|c| parse_amount(c).ok());
    let currency = params.currency.as_deref().and_then(|c| c.parse().ok());
    Click {
        id,
        campaign_id: routes.campaign.id,
        ip,
        user_agent: user_agent.map(Into::into),
        referrer: text(header::REFERER).map(Into::into),
        invalid_reason: decision.refused.or_else(label),
        is_bot: visitor.is_bot,
        country: visitor.country.map(|c| c.as_str().to_owned().into()),
        device: Some(visitor.device.as_str().into()),
        os: known(visitor.os),
        browser: known(visitor.browser),
        subs: params.subs.clone(),
        aff_subs: params.aff_subs.clone(),
        click_id_param: params.click_id.clone(),
        landing_page_id: decision.landing_page_id.or_else(|| number(params.landing_page_id.as_deref())),
        campaign_offer_id: decision.offer_id.or_else(|| number(params.campaign_offer_id.as_deref())),
        traffic_source_id: params.traffic_source_id.clone(),
        cost,
        currency,
    }
}

/// Waits until the click is on disk and says whether it is; if it cannot be, the visitor is redirected all the
/// same and the click is counted.
async fn record(app: &App, click: &Click<'_>) -> bool {
    let mut bytes = Vec::with_capacity(512);
    click.encode(&mut bytes);
    let mut pending = app.journal.append(&bytes);
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
        Some(url) => redirect(app, url.as_str(), None),
        None => plain(StatusCode::NOT_FOUND, "There is no such campaign.\n"),
    }
}

fn redirect(app: &App, location: &str, id: Option<ClickId>) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    let mut put = |name: HeaderName, value: &str| {
        // a destination is ASCII by its template, the others are ours
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(header::LOCATION, location);
    if let Some(id) = id {
        put(X_CLICK_ID, &id.to_string());
    }
    if !app.config.tracking.referrer_policy.is_empty() {
        put(header::REFERRER_POLICY, &app.config.tracking.referrer_policy);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (StatusCode::FOUND, headers).into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// `Sec-Purpose` (<https://fetch.spec.whatwg.org/#sec-purpose-header>) and its elder brothers.
fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        headers.get(*name).and_then(|v| v.to_str().ok()).is_some_and(|value| {
            value.split([';', ',', ' ']).any(|v| matches!(v, "prefetch" | "prerender" | "preview"))
        })
    })
}
