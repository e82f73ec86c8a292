//! `GET /click?cid=KEY&...` and `GET /c/KEY?...`: a visit becomes a click on disk, then a redirect. So does `POST`, as
//! browsers send it for `<a ping>`, `sendBeacon` and forms.
//!
//! Nothing in a query can make a known campaign answer anything but a redirect, and nothing here knows a
//! database: the campaign comes from memory, the click goes to the journal.

use std::{borrow::Cow, net::IpAddr};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use crate::{
    app::App,
    campaigns::Lookup,
    config::millis,
    facts::click::{Click, InvalidReason},
    http::{
        X_CLICK_ID, X_OCTO_RECORDED, body,
        client::{self, Peer},
        error::Problem,
        track::signals,
    },
    journal::{AppendError, Pending},
    judge::visits::Visit,
    metrics::{self, CLICK_ROUTE},
    model::{
        id::{CampaignKey, ClickId},
        link::{Params, key_text},
        text::{HEADER_CHARS_MAX, clean_bytes},
    },
    routing::{self, Decision, Routes, destination::Values},
};

const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// Bytes of a body that are read at most; none is needed, but a connection whose body was not read is closed.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The methods of a link.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");

/// Whether a path is a link's.
pub(crate) fn is_link(path: &str) -> bool {
    is_long(path) || short_key(path).is_some()
}

/// The route of a link, for metrics.
pub(crate) fn route(path: &str) -> &'static str {
    if is_long(path) { CLICK_ROUTE } else { "/c/{key}" }
}

/// `/click`, maybe with a slash that somebody put behind it.
fn is_long(path: &str) -> bool {
    path.strip_prefix(CLICK_ROUTE).is_some_and(|rest| rest.is_empty() || rest == "/")
}

/// `/c/KEY`, maybe with slashes that somebody put behind it.
fn short_key(path: &str) -> Option<&str> {
    let key = path.strip_prefix("/c/")?.trim_end_matches('/');
    Some(key).filter(|key| !key.is_empty() && !key.contains('/'))
}

/// Answers a link, once its click is on disk. `body` is the one of a `POST`.
pub(crate) async fn answer(app: &App, peer: Peer, head: &Head, body: Option<Body>) -> Response {
    match head.method {
        Method::GET | Method::HEAD => redirected(app, peer, head, "").await,
        Method::POST => {
            let form = read_form(head, body.unwrap_or_default()).await;
            redirected(app, peer, head, &form).await
        }
        Method::OPTIONS => options(),
        _ => Problem::method_not_allowed().with_header(header::ALLOW, METHODS).into_response(),
    }
}

/// What a form says, as a query; nothing where the body is something else, or is not there in time.
async fn read_form(head: &Head, body: Body) -> String {
    let Ok(bytes) = body::read(body, BODY_BYTES_MAX).await else { return String::new() };
    let media_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let form = b"application/x-www-form-urlencoded";
    let is_form = media_type.get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form));
    if is_form { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
}

/// `OPTIONS`, where no page asks what it may send: `cors` answers that.
fn options() -> Response {
    (StatusCode::NO_CONTENT, [(header::ALLOW, METHODS)]).into_response()
}

async fn redirected(app: &App, peer: Peer, head: &Head, form: &str) -> Response {
    let in_memory = |key: &str| app.campaigns.in_memory(key).map(Lookup::Found);
    let mut answer = match visit(app, peer, head, form, in_memory) {
        Ok(answer) => answer,
        Err(key) => {
            let found = app.campaigns.look_up(&key).await;
            visit(app, peer, head, form, |key| Some(known_or_bent(app, key, found.clone())))
                .expect("the look-up has an answer")
        }
    };
    if let Some(pending) = answer.pending
        && !is_on_disk(app, pending).await
    {
        answer.response.headers_mut().insert(X_OCTO_RECORDED, HeaderValue::from_static("0"));
    }
    answer.response
}

/// What was found of a key; where that is no campaign, the one that a bent link means.
fn known_or_bent(app: &App, key: &str, found: Lookup) -> Lookup {
    match found {
        Lookup::Found(_) => found,
        Lookup::Unknown | Lookup::Unavailable => {
            app.campaigns.in_memory_if_bent(key).map_or(found, Lookup::Found)
        }
    }
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
    form: &str,
    campaign: impl FnOnce(&str) -> Option<Lookup>,
) -> Result<Answer, CampaignKey> {
    let mut params = Params::default();
    if let Some(key) = short_key(head.uri.path()) {
        params.read_key(key);
    }
    params.read(head.uri.query().unwrap_or_default());
    params.read(form);
    let Some(cid) = params.cid.as_deref() else {
        metrics::click("bad_request");
        return Ok(plain(StatusCode::BAD_REQUEST, "The parameter cid is missing.\n").into());
    };
    let cid = key_text(cid);
    let found = match campaign(cid) {
        Some(found) => found,
        None => match cid.parse() {
            Ok(key) => return Err(key),
            Err(_) => known_or_bent(app, cid, Lookup::Unknown),
        },
    };
    let Lookup::Found(routes) = found else { return Ok(unknown(app, &head.method, &found).into()) };
    let id = ClickId::now();
    let decision = routing::decide(&routes, &params, id.created_at(), id.seed());
    let Some(template) = decision.template else {
        metrics::click("no_destination");
        return Ok(plain(StatusCode::NOT_FOUND, "This campaign has no destination.\n").into());
    };
    let click = accept(app, peer, head, id, &params, &routes, &decision);
    let pass_through = if routes.campaign.terms.pass_through { params.unknown.as_slice() } else { &[] };
    let values = Values { click: &click, cid: routes.campaign.key.as_str() };
    let location = template.expand(&values, pass_through);
    let pending = (head.method != Method::HEAD).then(|| app.journal.append_with(|out| click.encode(out)));
    if pending.is_some() && !click.adjusted.is_empty() {
        metrics::click_adjusted(click.adjusted, params.unexpanded);
    }
    metrics::click(match pending {
        None => "head",
        Some(_) if click.is_valid() => "redirected",
        Some(_) => "invalid",
    });
    Ok(Answer { response: redirect(app, &head.method, location, Some(id)), pending })
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

fn unknown(app: &App, method: &Method, found: &Lookup) -> Response {
    let is_fallback = app.config.tracking.fallback_url.is_some();
    metrics::click(match found {
        Lookup::Unavailable => "unavailable",
        _ if is_fallback => "fallback",
        _ => "unknown_campaign",
    });
    match &app.config.tracking.fallback_url {
        Some(url) => redirect(app, method, url.to_string(), None),
        None => plain(StatusCode::NOT_FOUND, "There is no such campaign.\n"),
    }
}

fn redirect(app: &App, method: &Method, location: String, id: Option<ClickId>) -> Response {
    let mut response = Response::new(Body::empty());
    // what was posted here is not to be posted there
    *response.status_mut() = if method == Method::POST { StatusCode::SEE_OTHER } else { StatusCode::FOUND };
    let headers = response.headers_mut();
    headers.reserve(10);
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
    headers.insert(X_ROBOTS_TAG, HeaderValue::from_static("noindex"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}
