//! `/out`, `/out/N`: from a landing page to an offer, and the forms in which other trackers write such links.
//!
//! Which click it is of, the token of the link says, else the cookie that the click set. Nothing is looked up and nothing
//! waited for but the disk: the token carries what the offer's destination needs, so any node answers, with every store
//! away and before the click is stored. Whatever is wrong with the token, the visitor reaches an offer.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts as Head},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::{
    click::{self, Answer},
    signals,
    sticky::Remembered,
};
use crate::{
    app::App,
    facts::{click::Click, out_click::OutClick},
    http::{client::Peer, error::Problem as Refusal},
    metrics,
    model::{
        click::InvalidReason,
        id::{ClickId, new_uuid, time_of_uuid},
        link::{Params, key_text, pairs},
        out_click::{Carrier, Problem},
    },
    routing::{
        self, Decision, OutVisit, Path, Routes,
        destination::{Carried, Known, Macro, MacroSet, Texts, Values},
    },
    seal::{
        Purpose,
        token::{Refused, TEXTS_BYTES_MAX, Ticket},
    },
};

/// The route of every form of an out-link, for metrics.
pub(crate) const OUT_ROUTE: &str = "/out";

/// Our cookie of the last landing page's click.
const COOKIE: &str = "octo_c";

/// The body of a 404.
const NOWHERE: &str = "There is no such link.\n";

/// The parameters of a link that are a token: ours, Keitaro's, Binom's.
const TOKENS: [&str; 3] = ["k", "_token", "uclick"];

/// What an out-link says to us, and not to the offer.
const OURS: [&str; 9] = ["k", "_token", "uclick", "lp", "_lp", "to_offer", "offer_id", "exit", "key"];

/// What the link of a landing page may say anew: its values stand before those of the click.
const SAID_AGAIN: MacroSet = MacroSet::of(&[
    Macro::Sub1,
    Macro::Sub2,
    Macro::Sub3,
    Macro::Sub4,
    Macro::Sub5,
    Macro::AffSub,
    Macro::AffSub2,
    Macro::AffSub3,
    Macro::AffSub4,
    Macro::AffSub5,
]);

/// The path of an out-link: whichever form it has, it says at most which offer of the path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutPath {
    nth: Option<u16>,
}

impl OutPath {
    /// `None`: the path is no out-link's.
    pub(crate) fn of(path: &str, query: &str) -> Option<Self> {
        let is_set = |flag: &str| query.contains(flag) && pairs(query).any(|pair| pair == flag);
        let bare = path.trim_end_matches('/');
        let nth = match bare {
            "/out" | "/cf/click" => None,
            // Keitaro
            "" => is_set("_lp=1").then_some(None)?,
            // Binom; with a campaign it is the link of a click, which may say anything
            "/click" | "/click.php" => {
                let is_out = is_set("lp=1") && !pairs(query).any(|pair| pair.starts_with("cid="));
                is_out.then_some(None)?
            }
            _ => match bare.rsplit_once('/')? {
                // a position that is none is none; the visitor is on his way
                ("/out", nth) => nth.parse().ok(),
                // Voluum, ClickFlare, FunnelFlux
                ("/click" | "/cf/click" | "/action", nth) => Some(nth.parse().ok()?),
                _ => return None,
            },
        };
        Some(Self { nth })
    }
}

/// Answers an out-link, once its out-click is on disk. `body` is the one of a `POST`.
pub(super) async fn answer(
    app: &App,
    peer: Peer,
    path: OutPath,
    head: &Head,
    body: Option<Body>,
) -> Response {
    match head.method {
        Method::GET | Method::HEAD => follow(app, peer, path, head).await,
        Method::POST => follow_posted(app, peer, path, head, body.unwrap_or_default()).await,
        Method::OPTIONS => click::options(),
        _ => Refusal::method_not_allowed().with_header(header::ALLOW, click::METHODS).into_response(),
    }
}

/// Go on to an offer
///
/// From a landing page to an offer of the path that its click took; the out-click is on disk before the answer. Which
/// click it is, the token says, else the cookie `octo_c`. Whatever is wrong with it, the visitor reaches an offer of the
/// campaign it names, else of the one of `cid`, else a fallback. The links of other trackers are answered alike:
/// `/?_lp=1&_token=`, `/click?lp=1`, `/click.php?lp=1`, `/click/N`, `/cf/click`, `/action/N`. `sub1` to `sub5` and the like stand
/// before the click's own in the offer's URL. `HEAD` gives the same answer and is no out-click.
#[utoipa::path(
    get, path = "/out", tag = "tracking", operation_id = "out", security(()),
    params(
        ("k" = Option<String>, Query, description = "The token: `{click_token}` of the landing page's URL; `_token` and `uclick` too.", example = "AQ"),
        ("to_offer" = Option<String>, Query, description = "Which offer of the path, from 1; drawn without it.", example = "2"),
        ("offer_id" = Option<String>, Query, description = "Which offer of the path, by its id or its place.", example = "6"),
        ("cid" = Option<String>, Query, description = "The campaign's key, for a visitor without a click.", example = "demo"),
        ("exit" = Option<String>, Query, description = "`1`: the out-click is stored and does not count.", example = "1"),
    ),
    responses(
        (status = 302, description = "To an offer, or a fallback.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click; not sent of a visitor without one."),
            ("Cache-Control" = String, description = "Each visit is asked for again."),
            ("Referrer-Policy" = String, description = "As `tracking.referrer_policy` says."),
            ("X-Robots-Tag" = String, description = "`noindex`."),
            ("X-Octo-Recorded" = String, description = "`0`: the disk did not take the out-click; not sent otherwise."),
        )),
        (status = 404, description = "No campaign is named that has an offer or a fallback, and there is no `tracking.fallback_url`.", content_type = "text/plain", body = String, example = json!(NOWHERE)),
    ),
)]
pub(super) async fn follow(app: &App, peer: Peer, path: OutPath, head: &Head) -> Response {
    redirected(app, peer, path, head, "").await
}

/// Go on to an offer by POST
///
/// As browsers do for forms and `<a ping>`: an out-click like any other. Fields of a form count behind the query.
#[utoipa::path(
    post, path = "/out", tag = "tracking", operation_id = "post_out", security(()),
    params(("k" = Option<String>, Query, description = "The token; all parameters of `GET /out`.", example = "AQ")),
    responses(
        (status = 303, description = "To an offer, or a fallback.", headers(
            ("Location" = String, description = "The destination."),
            ("X-Click-Id" = String, description = "Our id of the click; not sent of a visitor without one."),
            ("Cache-Control" = String, description = "Each visit is asked for again."),
            ("Referrer-Policy" = String, description = "As `tracking.referrer_policy` says."),
            ("X-Robots-Tag" = String, description = "`noindex`."),
            ("X-Octo-Recorded" = String, description = "`0`: the disk did not take the out-click; not sent otherwise."),
        )),
        (status = 404, description = "No campaign is named that has an offer or a fallback, and there is no `tracking.fallback_url`.", content_type = "text/plain", body = String, example = json!(NOWHERE)),
    ),
)]
pub(super) async fn follow_posted(app: &App, peer: Peer, path: OutPath, head: &Head, body: Body) -> Response {
    let form = click::read_form(head, body).await;
    redirected(app, peer, path, head, &form).await
}

/// Waits for the disk only.
async fn redirected(app: &App, peer: Peer, path: OutPath, head: &Head, form: &str) -> Response {
    let asked = Asked::read(path, head.uri.query().unwrap_or_default(), form);
    let answer = go(app, peer, head, asked);
    click::finish(app, answer, || metrics::out_click("unrecorded")).await
}

/// What an out-link says.
struct Asked<'a> {
    token: Option<Cow<'a, str>>,
    nth: Option<usize>,
    /// As Keitaro's links name it: by its id, or by its place.
    offer_id: Option<i64>,
    is_exit: bool,
    params: Params<'a>,
}

impl<'a> Asked<'a> {
    fn read(path: OutPath, query: &'a str, form: &'a str) -> Self {
        let mut params = Params::parse(query);
        params.read(form);
        let value = |name: &str| value_of(query, name).or_else(|| value_of(form, name));
        let number = |name: &str| value(name).and_then(|value| value.parse::<i64>().ok());
        let nth = path.nth.map(i64::from).or_else(|| number("to_offer"));
        Self {
            token: TOKENS.into_iter().find_map(value),
            nth: nth.and_then(|nth| usize::try_from(nth).ok()),
            offer_id: number("offer_id"),
            is_exit: value("exit").is_some_and(|value| value == "1"),
            params,
        }
    }

    /// Which offer of a path the link names, from 1.
    fn nth(&self, path: Option<&Path>) -> Option<usize> {
        let place_of_id = || {
            let id = self.offer_id?;
            let place = path?.offers().iter().position(|offer| offer.id == Some(id));
            place.map(|place| place + 1).or_else(|| usize::try_from(id).ok())
        };
        self.nth.or_else(place_of_id)
    }
}

/// The token of a click that goes to a landing page which has a use for it: in its URL, or as a cookie.
pub(super) fn token(
    app: &App,
    routes: &Routes,
    decision: &Decision<'_>,
    click: &Click<'_>,
    is_click: bool,
    may_set_cookie: bool,
) -> Option<String> {
    let page = decision.landing_page?;
    if !may_set_cookie && !decision.template?.has_out_macros() {
        return None;
    }
    // HEAD is no click: what comes of its link counts for none
    let reason = click.invalid_reason.or((!is_click).then_some(InvalidReason::Prefetch));
    token_of_page(app, routes, decision, click, page.id, reason)
}

/// The token of a click whose visitor is on a page of a path that has offers.
pub(super) fn token_of_page(
    app: &App,
    routes: &Routes,
    decision: &Decision<'_>,
    click: &Click<'_>,
    landing_page_id: Option<i64>,
    invalid_reason: Option<InvalidReason>,
) -> Option<String> {
    let path = decision.path?;
    let values = Values::of_click(click, routes.campaign.key.as_str());
    let mut ticket = Ticket {
        rule_id: decision.rule_id,
        path_id: Some(path.id),
        landing_page_id,
        offer_id: decision.offer_id().filter(|_| decision.landing_page.is_some()),
        invalid_reason,
        ..Ticket::new(click.id, click.campaign_id)
    };
    Texts::collect(&values, path.out_macros(), TEXTS_BYTES_MAX).encode(&mut ticket.texts);
    Some(ticket.seal(&app.keyring, Purpose::Out, click.id.created_at()))
}

/// Lets the browser bring the token along where the link has none. For as long as it is worth something, for our own
/// host and for no script; with `Lax` it comes along when a visitor follows a link of another site.
pub(super) fn set_cookie(app: &App, response: &mut Response, token: &str) {
    let age_s = app.config.tracking.token.as_secs();
    let secure = if app.public_url.starts_with("https:") { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(cookie) = HeaderValue::from_maybe_shared(Bytes::from(cookie)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// The first value of a parameter that is not empty. A token is longer than what is kept of other parameters.
fn value_of<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let value = pairs(query)
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').filter(|value| !value.is_empty()))?;
    Some(percent_decode_str(value).decode_utf8_lossy())
}

/// Whose out-click it is.
struct Found {
    ticket: Option<Ticket>,
    routes: Option<Arc<Routes>>,
    carrier: Carrier,
    problem: Option<Problem>,
}

/// The click of the token, else of the cookie; one that is too old is better than none. Without any, the campaign that
/// the link names.
fn find(app: &App, headers: &HeaderMap, asked: &Asked<'_>, now: DateTime<Utc>) -> Found {
    let open = |token: &str| Ticket::open(&app.keyring, Purpose::Out, token);
    let is_old = |ticket: &Ticket| ticket.is_older_than(app.config.tracking.token, now);
    let campaign = |ticket: &Ticket| app.campaigns.in_memory_by_id(ticket.campaign_id);
    let found = |ticket, routes, carrier, problem| Found {
        ticket: Some(ticket),
        routes: Some(routes),
        carrier,
        problem,
    };
    let of_link = asked.token.as_deref().map(open);
    let mut problem = match &of_link {
        None => None,
        Some(Err(Refused::Bad)) => Some(Problem::BadToken),
        Some(Err(Refused::Foreign)) => Some(Problem::Foreign),
        Some(Ok(ticket)) => is_old(ticket).then_some(Problem::OldToken),
    };
    let mut of_link = of_link.and_then(Result::ok);
    let mut routes = of_link.as_ref().and_then(campaign);
    if of_link.is_some() && routes.is_none() {
        (of_link, problem) = (None, Some(Problem::UnknownCampaign));
    }
    if problem.is_none()
        && let (Some(ticket), Some(routes)) = (of_link.take(), routes.take())
    {
        return found(ticket, routes, Carrier::Token, None);
    }
    let of_cookie = cookie(headers).and_then(|token| open(token).ok());
    if let Some(ticket) = of_cookie
        && let Some(of_cookie) = campaign(&ticket)
    {
        if !is_old(&ticket) {
            return found(ticket, of_cookie, Carrier::Cookie, problem);
        }
        if of_link.is_none() {
            return found(ticket, of_cookie, Carrier::Cookie, Some(Problem::OldToken));
        }
    }
    if let (Some(ticket), Some(routes)) = (of_link, routes) {
        return found(ticket, routes, Carrier::Token, problem);
    }
    let named = asked.params.cid.as_deref().map(key_text);
    let in_memory = |key| app.campaigns.in_memory(key).or_else(|| app.campaigns.in_memory_if_bent(key));
    let problem = problem.or(Some(Problem::NoToken));
    Found { ticket: None, routes: named.and_then(in_memory), carrier: Carrier::None, problem }
}

/// Our cookie, of however many.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim_start().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Turns the way on into an out-click in the journal's queue and the answer to it, without waiting for anything.
fn go(app: &App, peer: Peer, head: &Head, mut asked: Asked<'_>) -> Answer {
    let id = new_uuid();
    let now = time_of_uuid(id);
    let Found { ticket, routes, carrier, problem } = find(app, &head.headers, &asked, now);
    let sender = click::sender(app, peer, head);
    let visitor = app.enricher.describe(&click::signs(&sender, head));
    let click_id = ticket.as_ref().map(|ticket| ticket.click_id);

    let known =
        routes.as_deref().map(|routes| Remembered::of(app, &head.headers, routes, &sender, now, false));
    let decision = routes.as_deref().zip(known.as_ref());
    let decision =
        decision.map(|(routes, known)| decide(app, routes, known, ticket.as_ref(), &asked, visitor.os, id));
    let unknown = std::mem::take(&mut asked.params.unknown);
    // of a visitor without a click what the link and the request say stands in its place
    let mut own = Click::of_link(click_id.unwrap_or_else(ClickId::now), Uuid::nil(), asked.params);
    visitor.describe(&mut own);
    app.privacy.describe(sender, &mut own);

    let location = routes.as_deref().zip(decision.as_ref());
    let location = location.and_then(|(r, d)| self::location(r, d, ticket.as_ref(), &own, &unknown));
    let location = location.or_else(|| Some(app.config.tracking.fallback_url.as_ref()?.to_string()));
    let is_out = head.method != Method::HEAD;
    let outcome = outcome(&head.method, decision.as_ref(), location.is_some(), click_id.is_some());
    metrics::out_click(outcome);
    let Some(location) = location else {
        return click::plain(StatusCode::NOT_FOUND, NOWHERE).into();
    };
    let reason = ticket.as_ref().and_then(|ticket| ticket.invalid_reason);
    let own_reason = || match (signals::is_prefetch(&head.headers), visitor.is_bot) {
        (true, _) => Some(InvalidReason::Prefetch),
        (false, true) => Some(InvalidReason::Bot),
        (false, false) => None,
    };
    let out = OutClick {
        click_id,
        campaign_id: routes.as_ref().map(|routes| routes.campaign.id),
        rule_id: decision.as_ref().and_then(|decision| decision.rule_id),
        path_id: decision.as_ref().and_then(Decision::path_id),
        landing_page_id: ticket.as_ref().and_then(|ticket| ticket.landing_page_id),
        offer_id: decision.as_ref().and_then(Decision::offer_id),
        position: asked.nth.and_then(|nth| i64::try_from(nth).ok()),
        carrier,
        problem,
        routed: decision.as_ref().map(|decision| decision.routed).unwrap_or_default(),
        reason: reason.or_else(own_reason),
        is_exit: asked.is_exit,
        is_bot: visitor.is_bot,
        country: own.country.clone(),
        device: own.device.clone(),
        os: own.os.clone(),
        browser: own.browser.clone(),
        ..OutClick::new(id)
    };
    let pending = is_out.then(|| app.journal.append_with(|bytes| out.encode(bytes)));
    let mut response = click::redirect(app, &head.method, location, click_id);
    if is_out && let (Some(routes), Some(decision), Some(known)) = (routes.as_deref(), decision, known) {
        if let Some(offer_id) = decision.offer_id().filter(|_| out.is_valid()) {
            app.caps.count_offer(routes, offer_id, now, known.visit);
        }
        if let Some(cookie) = known.cookie_of_offer(app, routes, &decision, now) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    Answer { response, pending }
}

fn outcome(method: &Method, decision: Option<&Decision<'_>>, goes_on: bool, has_click: bool) -> &'static str {
    let offer = decision.and_then(Decision::offer_id);
    match (method, goes_on, decision, offer) {
        (_, false, ..) => "nowhere",
        (&Method::HEAD, ..) => "head",
        (_, _, Some(_), Some(_)) if has_click => "redirected",
        (_, _, Some(_), Some(_)) => "without_click",
        (_, _, Some(_), None) => "fallback",
        (_, _, None, _) => "unknown_campaign",
    }
}

/// The same click gets the same offer, as long as nothing has changed.
fn decide<'r>(
    app: &App,
    routes: &'r Routes,
    known: &Remembered,
    ticket: Option<&Ticket>,
    asked: &Asked<'_>,
    os: &str,
    id: Uuid,
) -> Decision<'r> {
    let now = time_of_uuid(id);
    let bound =
        known.bound(routes).filter(|bound| ticket.and_then(|ticket| ticket.path_id) == Some(bound.path_id));
    let path_id = ticket.and_then(|ticket| ticket.path_id);
    let path = path_id.and_then(|id| routes.path(id)).or_else(|| routes.default_path());
    let seed =
        ticket.map(|ticket| ticket.click_id).or_else(|| ClickId::from_uuid(id)).map_or(0, ClickId::seed);
    let visit = OutVisit {
        rule_id: ticket.and_then(|ticket| ticket.rule_id),
        path_id,
        offer_id: ticket.and_then(|ticket| ticket.offer_id),
        nth: asked.nth(path),
        now,
        seed,
        visitor_key: Some(known.key()),
        bound_offer_id: bound.and_then(|bound| bound.offer_id),
        is_full: &|target| app.caps.is_full(routes, target, now, known.visit),
        os,
    };
    routing::decide_out(routes, &visit)
}

/// The destination; `None`: the campaign has neither an offer nor a fallback.
fn location(
    routes: &Routes,
    decision: &Decision<'_>,
    ticket: Option<&Ticket>,
    own: &Click<'_>,
    unknown: &[Cow<'_, str>],
) -> Option<String> {
    let template = decision.template?;
    let (campaign, cid) = (&routes.campaign, routes.campaign.key.as_str());
    let said = Texts::collect(&Values::of_click(own, cid), template.macros(), TEXTS_BYTES_MAX);
    let carried = Carried {
        click_id: ticket.map(|ticket| ticket.click_id),
        campaign_id: campaign.id,
        landing_page_id: ticket.and_then(|ticket| ticket.landing_page_id),
        offer_id: decision.offer_id(),
        texts: match ticket {
            Some(ticket) => Texts::decode(&ticket.texts).unwrap_or_default().with(&said, SAID_AGAIN),
            None => said,
        },
    };
    let landing_page =
        decision.path.zip(carried.landing_page_id).and_then(|(path, id)| path.landing_page(id));
    let mut values = routes.values(decision, Known::Carried(&carried));
    values.names.lander = landing_page.map_or("", |page| &page.name);
    let is_theirs = |part: &&Cow<'_, str>| !OURS.contains(&part.split('=').next().unwrap_or_default());
    let passed_through = unknown.iter().filter(|_| campaign.terms.pass_through);
    let theirs: Vec<_> = passed_through.filter(is_theirs).cloned().collect();
    Some(template.expand(&values, &theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_out_link_is_read_and_nothing_else() {
        for (path, query, wanted) in [
            ("/out", "k=a", Some(None)),
            ("/out/", "", Some(None)),
            ("/out/2", "", Some(Some(2))),
            ("/out/2/", "", Some(Some(2))),
            ("/out/two", "", Some(None)),
            ("/", "_lp=1&_token=a", Some(None)),
            ("/", "_token=a&amp;_lp=1", Some(None)),
            ("/", "_lp=10", None),
            ("/", "", None),
            ("/click", "lp=1", Some(None)),
            ("/click/", "to_offer=2&lp=1", Some(None)),
            ("/click.php", "lp=1&uclick=a", Some(None)),
            ("/click.php", "cnv_id=a", None),
            ("/click", "lp=1&cid=demo", None),
            ("/click", "cid=demo", None),
            ("/click", "xlp=1", None),
            ("/click/1", "", Some(Some(1))),
            ("/click/x", "", None),
            ("/cf/click", "", Some(None)),
            ("/cf/click/3", "", Some(Some(3))),
            ("/action/1", "", Some(Some(1))),
            ("/action", "", None),
            ("/c/2", "", None),
            ("/outs", "", None),
            ("/out/2/3", "", None),
        ] {
            let found = OutPath::of(path, query).map(|out| out.nth);
            assert_eq!(found, wanted, "{path}?{query}");
        }
    }

    #[test]
    fn the_token_is_read_whole_from_whichever_name_it_has() {
        let long = "a-_9".repeat(500);
        for (query, wanted) in [
            (format!("x=1&k={long}"), Some(long.as_str())),
            (format!("_lp=1&_token={long}"), Some(long.as_str())),
            (format!("lp=1&amp;uclick={long}&k="), Some(long.as_str())),
            ("k=a%2Db".to_owned(), Some("a-b")),
            ("kk=a".to_owned(), None),
            ("k=".to_owned(), None),
        ] {
            let asked = Asked::read(OutPath { nth: None }, &query, "");
            assert_eq!(asked.token.as_deref(), wanted, "{query}");
        }
        let asked = Asked::read(OutPath { nth: None }, "to_offer=3&exit=1", "k=posted");
        assert_eq!((asked.nth(None), asked.is_exit, asked.token.as_deref()), (Some(3), true, Some("posted")));
        let asked = Asked::read(OutPath { nth: Some(2) }, "to_offer=-1&offer_id=x", "");
        assert_eq!((asked.nth(None), asked.is_exit), (Some(2), false));
    }

    #[test]
    fn our_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; octo_cc=2"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=2;octo_c=token; octo_c=other"));
        assert_eq!(cookie(&headers), Some("token"));
    }
}
