//! `GET /click?cid=KEY&...` and `GET /c/KEY?...`: a visit becomes a click on disk, then a redirect. So does `POST`, as
//! browsers send it for `<a ping>`, `sendBeacon` and forms.
//!
//! Nothing in a query can make a known campaign answer anything but a redirect, and nothing here knows a
//! database: the campaign comes from memory, the click goes to the journal.

use std::borrow::Cow;

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use crate::{
    app::App,
    campaigns::Lookup,
    facts::click::Click,
    http::{
        body,
        client::{self, Peer},
        error::Problem,
        track::{
            out::{self, OUT_ROUTE, OutPath},
            postback::{self, PostbackPath},
            signals,
            sticky::Remembered,
            test_link,
        },
    },
    journal::{AppendError, Pending},
    judge::Evidence,
    metrics::{self, CLICK_ROUTE},
    model::{
        click::{InvalidReason, Via},
        id::ClickId,
        link::{Params, Unexpanded, key_text},
        text::{HEADER_CHARS_MAX, clean_bytes},
    },
    privacy::Sender,
    routing::{
        self, Decision, Routes, Visit,
        destination::{Known, Values},
    },
    visitor::Signs,
};

/// The header that carries our id of a click.
const X_CLICK_ID: HeaderName = HeaderName::from_static("x-click-id");
/// `0` on a redirect whose click was not on disk when it was answered; not sent otherwise.
const X_OCTO_RECORDED: HeaderName = HeaderName::from_static("x-octo-recorded");

const X_ROBOTS_TAG: HeaderName = HeaderName::from_static("x-robots-tag");

/// Bytes of a body that are read at most; none is needed, but a connection whose body was not read is closed.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The body of a 400.
const NO_CID: &str = "The parameter cid is missing.\n";

/// The body of a 404 where there is no fallback.
const NO_CAMPAIGN: &str = "There is no such campaign.\n";

/// The methods of a link.
pub(super) const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");

/// The path of a link, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// `/click`, maybe with a slash that somebody put behind it.
    Long,
    /// `/c/KEY`, maybe with slashes that somebody put behind it.
    Short {
        /// Where the key ends, in bytes of the path.
        key_end: usize,
    },
    /// From a landing page to an offer.
    Out(OutPath),
    /// No visitor's: a network tells of a conversion.
    Postback(PostbackPath),
}

/// What the path of a short link begins with.
const SHORT: &str = "/c/";

impl Link {
    /// `None`: the path is no link's. Of some out-links and postbacks the query says that they are.
    pub(crate) fn of(path: &str, query: &str) -> Option<Self> {
        if let Some(out) = OutPath::of(path, query) {
            return Some(Self::Out(out));
        }
        if let Some(postback) = PostbackPath::of(path, query) {
            return Some(Self::Postback(postback));
        }
        if let Some(rest) = path.strip_prefix(CLICK_ROUTE) {
            return (rest.is_empty() || rest == "/").then_some(Self::Long);
        }
        let key = path.strip_prefix(SHORT)?.trim_end_matches('/');
        (!key.is_empty() && !key.contains('/')).then_some(Self::Short { key_end: SHORT.len() + key.len() })
    }

    /// Its route, for metrics.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Long => CLICK_ROUTE,
            Self::Short { .. } => "/c/{key}",
            Self::Out(_) => OUT_ROUTE,
            Self::Postback(path) => path.route(),
        }
    }

    /// The key in the path that it was read from.
    fn key(self, path: &str) -> Option<&str> {
        match self {
            Self::Long | Self::Out(_) | Self::Postback(_) => None,
            Self::Short { key_end } => path.get(SHORT.len()..key_end),
        }
    }
}

/// Answers a link, once its click is on disk. `body` is the one of a `POST`.
pub(crate) async fn answer(app: &App, peer: Peer, link: Link, head: &Head, body: Option<Body>) -> Response {
    if let Link::Out(path) = link {
        return out::answer(app, peer, path, head, body).await;
    }
    if let Link::Postback(path) = link {
        return postback::answer(app, peer, path, head, body).await;
    }
    match head.method {
        Method::GET | Method::HEAD => follow(app, peer, link, head).await,
        Method::POST => follow_posted(app, peer, link, head, body.unwrap_or_default()).await,
        Method::OPTIONS => options(),
        _ => Problem::method_not_allowed().with_header(header::ALLOW, METHODS).into_response(),
    }
}

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
        ("sub1" = Option<String>, Query, description = "The source's own value; `sub2` to `sub5` likewise.", example = "banner-7"),
        ("click_id" = Option<String>, Query, description = "The source's own id of the click.", example = "source-4711"),
        ("landing_page_id" = Option<String>, Query, description = "Go to this landing page of the campaign.", example = "5"),
        ("campaign_offer_id" = Option<String>, Query, description = "Go to this offer of the campaign.", example = "6"),
        ("traffic_source_id" = Option<String>, Query, description = "Where the visitor comes from.", example = "ads"),
        ("cost" = Option<String>, Query, description = "What the click cost: `0.05`, `0,05`, `$0.05`, `1,234.56`, `5.0E-5`; six decimals are kept.", example = "0.05"),
        ("currency" = Option<String>, Query, description = "Of the cost; `XXX` is kept for one that is not known.", example = "USD"),
    ),
    responses(
        (status = 302, description = "To the destination.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click; also to a prefetch, whose click does not count, and to HEAD, which makes none. Not sent with `tracking.fallback_url`."),
            ("Cache-Control" = String, description = "Each visit is asked for again."),
            ("Referrer-Policy" = String, description = "As `tracking.referrer_policy` says."),
            ("X-Robots-Tag" = String, description = "`noindex`."),
            ("X-Octo-Recorded" = String, description = "`0`: the disk did not take the click; not sent otherwise."),
            ("Accept-CH" = String, description = "Client hints that the campaign's rules can use; not sent where they need none, and not to who asks for privacy."),
        )),
        (status = 400, description = "There is no `cid`.", content_type = "text/plain", body = String, example = json!(NO_CID)),
        (status = 404, description = "There is no such campaign, or it takes no clicks and has no fallback.", content_type = "text/plain", body = String, example = json!(NO_CAMPAIGN)),
    ),
)]
pub(super) async fn follow(app: &App, peer: Peer, link: Link, head: &Head) -> Response {
    redirected(app, peer, link, head, "").await
}

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
            ("X-Click-Id" = String, description = "Our id of the click; not sent with `tracking.fallback_url`."),
            ("Cache-Control" = String, description = "Each visit is asked for again."),
            ("Referrer-Policy" = String, description = "As `tracking.referrer_policy` says."),
            ("X-Robots-Tag" = String, description = "`noindex`."),
            ("X-Octo-Recorded" = String, description = "`0`: the disk did not take the click; not sent otherwise."),
            ("Accept-CH" = String, description = "Client hints that the campaign's rules can use; not sent where they need none, and not to who asks for privacy."),
        )),
        (status = 400, description = "There is no `cid`.", content_type = "text/plain", body = String, example = json!(NO_CID)),
        (status = 404, description = "There is no such campaign, or it takes no clicks and has no fallback.", content_type = "text/plain", body = String, example = json!(NO_CAMPAIGN)),
    ),
)]
pub(super) async fn follow_posted(app: &App, peer: Peer, link: Link, head: &Head, body: Body) -> Response {
    let form = read_form(head, body).await;
    redirected(app, peer, link, head, &form).await
}

/// What a form says, as a query; nothing where the body is something else, or is not there in time.
pub(super) async fn read_form(head: &Head, body: Body) -> String {
    let Ok(bytes) = body::read(body, BODY_BYTES_MAX).await else { return String::new() };
    let media_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let form = b"application/x-www-form-urlencoded";
    let is_form = media_type.get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form));
    if is_form { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
}

/// `OPTIONS`, where no page asks what it may send: `cors` answers that.
pub(super) fn options() -> Response {
    (StatusCode::NO_CONTENT, [(header::ALLOW, METHODS)]).into_response()
}

/// Parses, looks up, and redirects; waits for the campaign only where it is not in memory, and for the disk.
async fn redirected(app: &App, peer: Peer, link: Link, head: &Head, form: &str) -> Response {
    let params = parse(link, head, form);
    let Some(cid) = params.cid.as_deref() else {
        metrics::click("bad_request");
        return plain(StatusCode::BAD_REQUEST, NO_CID);
    };
    let key = key_text(cid);
    let found = look_up(app, key).await;
    let Lookup::Found(routes) = found else { return unknown(app, &head.method, &found) };
    finish(app, visit(app, peer, head, &routes, params), metrics::click_unrecorded).await
}

/// The answer, once the disk has the record or cannot take it.
pub(super) async fn finish(app: &App, answer: Answer, unrecorded: fn()) -> Response {
    let Answer { mut response, pending } = answer;
    if let Some(pending) = pending
        && !is_on_disk(app, pending, unrecorded).await
    {
        response.headers_mut().insert(X_OCTO_RECORDED, HeaderValue::from_static("0"));
    }
    response
}

/// What the link says: in its path first, then in its query, then in what was posted.
fn parse<'a>(link: Link, head: &'a Head, form: &'a str) -> Params<'a> {
    let mut params = Params::default();
    if let Some(key) = link.key(head.uri.path()) {
        params.read_key(key);
    }
    params.read(head.uri.query().unwrap_or_default());
    params.read(form);
    params
}

/// What is found of a key, in memory first; where that is no campaign, the one that a bent link means.
pub(super) async fn look_up(app: &App, key: &str) -> Lookup {
    if let Some(routes) = app.campaigns.in_memory(key) {
        return Lookup::Found(routes);
    }
    let found = match key.parse() {
        Ok(key) => app.campaigns.look_up(&key).await,
        Err(_) => Lookup::Unknown,
    };
    match found {
        Lookup::Found(_) => found,
        Lookup::Unknown | Lookup::Unavailable => {
            app.campaigns.in_memory_if_bent(key).map_or(found, Lookup::Found)
        }
    }
}

/// What a visitor is told, as soon as the click is on disk.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) pending: Option<Pending>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, pending: None }
    }
}

/// Turns a visit into a click in the journal's queue and the answer to it, without waiting for anything.
fn visit<'a>(app: &'a App, peer: Peer, head: &'a Head, routes: &'a Routes, params: Params<'a>) -> Answer {
    let is_click = head.method != Method::HEAD;
    let sender = sender(app, peer, head);
    let asks_for_hints = routes.wants_hints() && !sender.asks_for_privacy;
    let may_set_cookie = is_click && !sender.asks_for_privacy;
    let accepted = accept(app, head, routes, Came { is_click, via: None }, sender, params);
    let Accepted { click, decision, unknown, .. } = &accepted;
    let Some(template) = decision.template else {
        metrics::click("no_destination");
        return plain(StatusCode::NOT_FOUND, "This campaign has no destination.\n").into();
    };
    let pass_through = if routes.campaign.terms.pass_through { unknown.as_slice() } else { &[] };
    let token = out::token(app, routes, decision, click, is_click, may_set_cookie);
    let values = Values {
        token: token.as_deref().unwrap_or_default(),
        out_base: &app.out_base,
        ..routes.values(decision, Known::Click(click))
    };
    let location = template.expand(&values, pass_through);
    let pending = is_click.then(|| app.journal.append_with(|out| click.encode(out)));
    accepted.count(is_click, "redirected");
    let Accepted { click, decision, known, .. } = accepted;
    let mut response = redirect(app, &head.method, location, Some(click.id));
    if is_click && let Some(cookie) = known.cookie(app, routes, &decision, click.id.created_at()) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    if asks_for_hints {
        signals::ask_for_hints(response.headers_mut());
    }
    if let Some(token) = token.filter(|_| may_set_cookie) {
        out::set_cookie(app, &mut response, &token);
    }
    Answer { response, pending }
}

/// How a visit came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    /// Whether it becomes a click; otherwise somebody only looks where it would lead.
    pub(super) is_click: bool,
    /// Who told of it, if it was no link that redirects.
    pub(super) via: Option<Via>,
}

/// A visit that became a click, described and judged, and where the campaign leads it.
pub(super) struct Accepted<'a, 'r> {
    pub(super) click: Click<'a>,
    pub(super) decision: Decision<'r>,
    /// What is known of the visitor from before.
    known: Remembered,
    /// What the link says beside what octo knows.
    unknown: Vec<Cow<'a, str>>,
    /// Values that were macros.
    unexpanded: Unexpanded,
}

/// Makes a click of a visit, from memory only.
pub(super) fn accept<'a, 'r>(
    app: &'a App,
    head: &'a Head,
    routes: &'r Routes,
    came: Came,
    sender: Sender<'a>,
    mut params: Params<'a>,
) -> Accepted<'a, 'r> {
    let id = ClickId::now();
    let agent = sender.user_agent.as_deref().unwrap_or_default();
    let visitor = app.enricher.describe(&signs(&sender, head));
    if let Some(source) = &routes.campaign.source {
        params.read_as(source);
    }
    let (now, is_click) = (id.created_at(), came.is_click);
    let known = Remembered::of(app, &head.headers, routes, &sender, now, is_click);
    let forced = test_link::choices(app, head, routes, now);
    let visit = Visit {
        referrer: sender.referrer.as_deref(),
        forced,
        visitor_key: Some(known.key()),
        bound: known.bound(routes),
        is_returning: known.is_returning,
        is_unique: known.is_unique,
        is_full: &|target| app.caps.is_full(routes, target, now, known.visit),
        is_spent: app.budgets.is_exhausted(routes.campaign.id, now),
        ..Visit::new(&params, &visitor, now, id.seed())
    };
    let decision = routing::decide(routes, &visit);
    // what the campaign does not take, and what is no click, begins no visit and is not counted against its address
    let judged = || {
        app.judge.judge(Evidence {
            is_prefetch: signals::is_prefetch(&head.headers),
            is_bot: visitor.is_bot,
            ip: sender.ip,
            user_agent: agent,
            visit: known.visit,
            now_s: id.timestamp_ms() / 1000,
        })
    };
    let invalid_reason = match forced {
        Some(_) => Some(InvalidReason::Test),
        None => decision.refused.or_else(|| is_click.then(judged).flatten()),
    };

    let (unexpanded, mut unknown) = (params.unexpanded, std::mem::take(&mut params.unknown));
    if forced.is_some() {
        unknown.retain(|part| !test_link::is_ours(part));
    }
    let mut click = Click { via: came.via, ..Click::of_link(id, routes.campaign.id, params) };
    visitor.describe(&mut click);
    app.privacy.describe(sender, &mut click);
    click.invalid_reason = invalid_reason;
    click.landing_page_id = decision.landing_page_id().or(click.landing_page_id);
    // whoever is on a page already is led to no offer yet
    let offer_id = decision.offer_id().filter(|_| came.via.is_none());
    click.campaign_offer_id = offer_id.or(click.campaign_offer_id);
    click.rule_id = decision.rule_id;
    click.path_id = decision.path_id();
    click.routed = decision.routed;
    if is_click && click.is_valid() {
        click.is_unique = app.uniques.is_first_counted(known.visit, id.timestamp_ms() / 1000);
        let offer_id = offer_id.filter(|_| decision.landing_page.is_none());
        app.caps.count_click(routes, decision.path_id(), offer_id, now, known.visit);
    }
    click.source_id = routes.campaign.terms.traffic_source_id;
    Accepted { click, decision, known, unknown, unexpanded }
}

impl Accepted<'_, '_> {
    /// Counts it; `valid` is what becomes of one that is valid.
    pub(super) fn count(&self, is_click: bool, valid: &'static str) {
        let click = &self.click;
        if is_click && !click.adjusted.is_empty() {
            metrics::click_adjusted(click.adjusted, self.unexpanded);
        }
        metrics::click(match (is_click, click.is_valid()) {
            (false, _) => "head",
            (true, true) => valid,
            (true, false) => "invalid",
        });
    }
}

/// Who sent the request.
pub(super) fn sender<'a>(app: &App, peer: Peer, head: &'a Head) -> Sender<'a> {
    let headers = &head.headers;
    let text = |name| headers.get(name).map(|v| clean_bytes(v.as_bytes(), HEADER_CHARS_MAX));
    Sender {
        ip: client::address(peer.0.ip(), headers, &app.config.server),
        user_agent: text(header::USER_AGENT),
        referrer: text(header::REFERER),
        asks_for_privacy: signals::asks_for_privacy(headers, &app.config.privacy),
    }
}

/// What the request tells of who sent it.
pub(super) fn signs<'s>(sender: &'s Sender<'_>, head: &'s Head) -> Signs<'s> {
    Signs {
        user_agent: sender.user_agent.as_deref().unwrap_or_default(),
        hints: signals::hints(&head.headers),
        accept_language: signals::accept_language(&head.headers),
        ip: Some(sender.ip),
    }
}

/// Waits until the record is on disk and says whether it is; if it cannot be, the visitor is redirected all the
/// same and it is counted.
async fn is_on_disk(app: &App, mut pending: Pending, unrecorded: fn()) -> bool {
    let Ok(answer) = timeout(app.config.journal.append_timeout, pending.durable()).await else {
        count_later(pending, unrecorded);
        return false;
    };
    count_unrecorded(&answer, unrecorded);
    answer.is_ok()
}

/// The disk did not answer in time, but it may yet: the record counts as unrecorded only if it is not.
fn count_later(mut pending: Pending, unrecorded: fn()) {
    #[expect(clippy::disallowed_methods, reason = "waits for the journal's answer only, which always comes")]
    tokio::spawn(async move { count_unrecorded(&pending.durable().await, unrecorded) });
}

fn count_unrecorded(answer: &Result<u64, AppendError>, unrecorded: fn()) {
    if let Err(error) = answer {
        unrecorded();
        tracing::debug!(%error, "a visitor was redirected but not recorded");
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
        None => plain(StatusCode::NOT_FOUND, NO_CAMPAIGN),
    }
}

pub(super) fn redirect(app: &App, method: &Method, location: String, id: Option<ClickId>) -> Response {
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

pub(super) fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_link_is_read_once_with_its_key() {
        for (path, wanted) in [
            ("/click", Some((CLICK_ROUTE, None))),
            ("/click/", Some((CLICK_ROUTE, None))),
            ("/c/demo", Some(("/c/{key}", Some("demo")))),
            ("/c/demo//", Some(("/c/{key}", Some("demo")))),
            ("/c/demo&sub1=a", Some(("/c/{key}", Some("demo&sub1=a")))),
            ("/c/", None),
            ("/c//", None),
            ("/c/a/b", None),
            ("/click/1", Some((OUT_ROUTE, None))),
            ("/clicks", None),
            ("/c", None),
            ("/", None),
            ("", None),
        ] {
            let link = Link::of(path, "");
            assert_eq!(link.map(|link| (link.route(), link.key(path))), wanted, "{path}");
        }
    }
}
