//! `POST /visit`: a page tells that somebody came who was not redirected. The visit becomes a click as a link's does,
//! by the same code, and is on disk before the answer.

use std::borrow::Cow;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio::time::timeout;
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    campaigns::Lookup,
    http::{
        client::Peer,
        error::{FieldError, Problem},
        track::{
            click::{self, Accepted, Came},
            event::{
                input,
                loose::{self, Members},
            },
            out, posted,
        },
    },
    metrics,
    model::{
        click::Via,
        link::{Number, Params, key_text},
        text::{HEADER_CHARS_MAX, clean},
    },
    routing::Routes,
};

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 64 * 1024;
const JSON_DEPTH_MAX: usize = 32;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(visit))
}

/// A visit to store.
#[derive(Debug, ToSchema)]
#[schema(as = VisitInput)]
struct Told<'a> {
    /// The campaign's key.
    #[schema(value_type = String, example = "demo")]
    cid: Cow<'a, str>,
    /// The page that was visited. Its query is read as that of a link: `sub1`, `cost` and the like.
    #[schema(value_type = Option<String>, example = "https://shop.example/shoes?sub1=autumn")]
    url: Option<Cow<'a, str>>,
    /// What led to the page.
    #[schema(value_type = Option<String>, example = "https://news.example/")]
    referrer: Option<Cow<'a, str>>,
    /// Parameters that count before those of the page: an object of names and values, or a text such as `sub1=a&sub2=b`.
    #[schema(value_type = Option<Object>, example = json!({ "sub2": "header" }))]
    params: String,
}

/// A visit that is on disk.
#[derive(Debug, Serialize, ToSchema)]
struct Visited {
    /// Our id of the click that it became.
    #[schema(example = "019aaf3c-5f00-7abc-8def-0123456789ab")]
    click_id: Uuid,
    /// What links to `/out` take as `k`, where the campaign leads on to offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "AQGarzxfAHq8je8BI0VniavwvDWGNL8qk3")]
    token: Option<String>,
}

/// Count a visit without a redirect
///
/// Answered once it is on disk: the click has the same labels and reasons as one of `GET /click`, and `via` says `script`.
/// A campaign that takes no clicks is no reason to refuse it: it is stored with the reason. Any origin may send it, with
/// credentials and any header, as JSON or as text that is JSON; at most 64 KiB.
///
/// The campaign's landing page that the visitor is on, by `url` or by the parameter `landing_page_id`, is that of the click.
#[utoipa::path(
    post, path = "/visit", tag = "tracking", operation_id = "visit", security(()),
    request_body = Told<'static>,
    responses(
        (status = 202, description = "It is on disk.", body = Visited),
        (status = 400, description = "The body is not JSON."),
        (status = 408, description = "The body did not arrive in time."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is neither JSON nor text."),
        (status = 422, description = "It names no campaign that is known; `errors` names each fault."),
        (status = 503, description = "The disk does not take it, or the campaign cannot be looked up; send it again after `Retry-After` seconds."),
    ),
)]
async fn visit(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let Some(peer) = head.extensions.get::<Peer>().copied() else {
        return Err(Problem::internal("a request without a peer"));
    };
    posted::media_type(&head.headers, false).inspect_err(|_| metrics::click("bad_request"))?;
    let (body, _place) = posted::read(&app, &head.headers, body, BODY_BYTES_MAX, refused).await?;
    let text = loose::text_of(&body);
    let value = loose::parse(&text, JSON_DEPTH_MAX).inspect_err(|_| metrics::click("bad_request"))?;
    let members = Members::of(value.get()).ok_or_else(|| bad_request(input::not_an_object("")))?;
    let told = Told::read(members).map_err(bad_request)?;
    let routes = match click::look_up(&app, key_text(&told.cid)).await {
        Lookup::Found(routes) => routes,
        Lookup::Unknown => {
            metrics::click("unknown_campaign");
            return Err(FieldError::new("/cid", "unknown_campaign", "there is no such campaign").into());
        }
        Lookup::Unavailable => {
            metrics::click("unavailable");
            return Err(Problem::unavailable(
                "The campaign cannot be looked up at the moment; send it again.",
            ));
        }
    };
    let query = told.query();
    let params = params(&query, &routes, told.url.as_deref().unwrap_or_default());
    let page = params.landing_page_id.get();
    let came = Came { is_click: true, via: Some(Via::Script) };
    let mut sender = click::sender(&app, peer, &head);
    sender.referrer = told.referrer; // that of the request is the page itself
    let may_set_cookie = !sender.asks_for_privacy;
    let mut accepted = click::accept(&app, &head, &routes, came, sender, params);
    accepted.click.landing_page_id = page.filter(|_| accepted.decision.landing_page_id() == page); // and none that was drawn
    let Accepted { click, decision, .. } = &accepted;
    let has_offers = decision.path.is_some_and(|path| !path.offers().is_empty());
    let token = has_offers.then(|| {
        out::token_of_page(&app, &routes, decision, click, click.landing_page_id, click.invalid_reason)
    });
    let token = token.flatten();
    let click_id = store(&app, &accepted).await?;
    let cookie = token.clone().filter(|_| may_set_cookie);
    let mut response = (StatusCode::ACCEPTED, axum::Json(Visited { click_id, token })).into_response();
    // a browser keeps it where the page is of the same site
    if let Some(token) = cookie {
        out::set_cookie(&app, &mut response, &token);
    }
    Ok(response)
}

impl<'a> Told<'a> {
    /// What a page tells. Only the campaign must be there; what cannot be read is left out.
    fn read(mut members: Members<'a>) -> Result<Self, FieldError> {
        let text =
            |given: Option<loose::Given<'a>>| given.and_then(|given| given.said()).map(|said| said.text);
        let cid = text(members.take("cid")).filter(|cid| !cid.trim().is_empty());
        let cid = cid.ok_or_else(|| FieldError::new("/cid", "required", "is required"))?;
        let url = text(members.take("url"));
        let referrer = text(members.take("referrer"));
        let referrer = referrer.map(|it| clean(&it, HEADER_CHARS_MAX).into_owned());
        let params = members.take("params").map(|given| match given.members() {
            Some(members) => query_of(members),
            None => given.said().map(|said| said.text.into_owned()).unwrap_or_default(),
        });
        Ok(Self {
            cid,
            url,
            referrer: referrer.filter(|it| !it.is_empty()).map(Cow::Owned),
            params: params.unwrap_or_default(),
        })
    }

    /// What a link would say: the parameters, then the page's own.
    fn query(&self) -> String {
        let url = self.url.as_deref().unwrap_or_default();
        let (page, _fragment) = url.split_once('#').unwrap_or((url, ""));
        let (_, query) = page.split_once('?').unwrap_or_default();
        [&self.params, query].join("&")
    }
}

/// Names and values as the query of a link has them.
fn query_of(members: Members<'_>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, given) in members.rest() {
        if let Some(said) = given.said() {
            query.append_pair(&name, &said.text);
        }
    }
    query.finish()
}

/// The parameters of a query; a `cid` in it is the page's, not ours. The landing page is the one that the visitor is on.
fn params<'q>(query: &'q str, routes: &Routes, url: &str) -> Params<'q> {
    let mut params = Params { cid: Some(Cow::Borrowed("")), ..Params::default() };
    params.read(query);
    if params.landing_page_id == Number::Absent {
        let pages = routes.campaign.terms.all_landing_pages().filter(|page| page.is_active);
        let page = pages.filter(|page| place(&page.url) == place(url)).find_map(|page| page.id);
        params.landing_page_id = page.map_or(Number::Absent, Number::Read);
    }
    params
}

/// Where a page is, whatever it is asked: host and path.
fn place(url: &str) -> &str {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let place = url[..end].trim_end_matches('/');
    place.split_once("://").map_or(place, |(_, place)| place)
}

/// Waits until the click is on disk; 503 otherwise, because nobody is kept waiting for it.
async fn store(app: &App, accepted: &Accepted<'_, '_>) -> Result<Uuid, Problem> {
    let click = &accepted.click;
    let mut pending = app.journal.append_with(|out| click.encode(out));
    if matches!(timeout(app.config.journal.append_timeout, pending.durable()).await, Ok(Ok(_))) {
        accepted.count(true, "visited");
        return Ok(click.id.uuid());
    }
    metrics::click("unrecorded");
    Err(Problem::unavailable("The visit could not be stored; send it again."))
}

fn refused(outcome: &'static str) {
    metrics::click(if outcome == "invalid" { "bad_request" } else { outcome });
}

fn bad_request(error: FieldError) -> Problem {
    metrics::click("bad_request");
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(json: &str) -> String {
        Told::read(Members::of(json).unwrap()).unwrap().query()
    }

    #[test]
    fn parameters_count_before_those_of_the_page() {
        let page = r#""url": "https://a.example/p?sub1=page&sub2=b%20c#?sub3=no""#;
        let json = |params: &str| format!(r#"{{"cid": "demo", {page}, "params": {params}}}"#);
        assert_eq!(query(&json("null")), "&sub1=page&sub2=b%20c");
        assert_eq!(query(&json(r#""sub1=own&x=%41""#)), "sub1=own&x=%41&sub1=page&sub2=b%20c");
        assert_eq!(
            query(&json(r#"{"sub1": "a&b=c", "cost": 0.05, "no": [1]}"#)),
            "sub1=a%26b%3Dc&cost=0.05&sub1=page&sub2=b%20c"
        );
        assert_eq!(query(r#"{"cid": 7, "url": 5}"#), "&");
        for nobody in ["{}", r#"{"cid": ""}"#, r#"{"cid": " "}"#, r#"{"cid": null}"#, r#"{"cid": ["demo"]}"#]
        {
            assert_eq!(Told::read(Members::of(nobody).unwrap()).unwrap_err().pointer, "/cid", "{nobody}");
        }
    }

    #[test]
    fn a_page_is_the_same_whatever_it_is_asked() {
        for url in [
            "https://a.example/p",
            "http://a.example/p/",
            "https://a.example/p?x=/y",
            "https://a.example/p#?",
        ] {
            assert_eq!(place(url), "a.example/p", "{url}");
        }
        assert_eq!(
            (place("https://a.example/"), place("https://a.example?x"), place("")),
            ("a.example", "a.example", "")
        );
    }
}
