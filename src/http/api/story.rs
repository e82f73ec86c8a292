//! `GET /api/v1/clicks/{click_id}/story`: everything known of one click, in order, with the reason of each decision.

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, Parts},
    db::store::{campaigns, clicks, conversions, deliveries, events, out_clicks, postbacks},
    http::{
        api::{
            manners::{answer::answer, auth::Read, problems::Problems, request::Name},
            views::{
                click::Click, conversion::Conversion, event::Event, out_click::OutClick, postback::Postback,
            },
        },
        error::Problem,
    },
    model::{
        campaign::{Destination, Terms},
        click::{InvalidReason, Why},
        id::ClickId,
        rule::{DEFAULT_RULE, ONLY_PATH},
    },
};

/// Events of a click that its story tells, and out-clicks.
const CHAPTERS_MAX: i64 = 500;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(story))
}

/// Everything known of one click.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Story {
    /// The click as it is stored.
    pub(crate) click: Click,
    /// Where it went, and why.
    pub(crate) decision: Decision,
    /// What happened, in order of time; at most 500 events, as many out-clicks, postbacks and deliveries are told.
    pub(crate) chapters: Vec<Chapter>,
    /// What its postbacks made of it.
    pub(crate) conversions: Vec<Conversion>,
}

/// Where a click went, by the names of today; what is gone since has none.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Decision {
    /// The rule that took it.
    rule: Named,
    /// The path it took.
    path: Named,
    /// The landing page it went to.
    landing_page: Named,
    /// The offer it went to, or was meant for.
    offer: Named,
    /// In a sentence.
    #[schema(example = "The rule German iPhones took it, by its path Long page, to the landing page A.")]
    pub(crate) text: String,
    /// Each reason for which it was not the first choice, in a sentence.
    #[schema(max_items = 8, example = json!(["Something that was chosen first had taken as much as it may."]))]
    pub(crate) why: Vec<String>,
    /// Whether it counts, in a sentence.
    #[schema(example = "It counts.")]
    pub(crate) validity: String,
}

/// Something by id and name; null where there was none, and the name where it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
struct Named {
    /// Its id.
    #[schema(example = 41)]
    id: Option<i64>,
    /// Its name of today.
    #[schema(example = "German iPhones")]
    name: Option<String>,
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Chapter {
    /// When.
    pub(crate) at: DateTime<Utc>,
    /// `click`, `out_click`, `event`, `postback` or `delivery`.
    #[schema(value_type = String, example = "click")]
    pub(crate) kind: &'static str,
    /// In a sentence.
    #[schema(example = "Somebody in DE with mobile, iOS, Safari followed the link.")]
    pub(crate) text: String,
    /// The event.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Event>,
    /// The out-click.
    #[serde(skip_serializing_if = "Option::is_none")]
    out_click: Option<OutClick>,
    /// The postback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postback: Option<Postback>,
}

/// Tell the story of a click
///
/// Everything known of it, in order, with the reason of each decision.
#[utoipa::path(
    get, path = "/clicks/{click_id}/story", tag = "clicks", operation_id = "get_click_story",
    params(("click_id" = String, Path, description = "Its id: the one of `X-Click-Id`, or the 22 characters of `{click_id:short}`.", example = "019aaf3c-5f00-7abc-8def-0123456789ab")),
    responses((status = 200, description = "Its story.", body = Story), Problems),
)]
async fn story(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let id: ClickId = id.parse().map_err(|()| Problem::not_found("click"))?;
    answer(StatusCode::OK, &of_click(&app, id).await?)
}

/// The story of the click with this id.
pub(crate) async fn of_click(app: &Parts, id: ClickId) -> Result<Story, Problem> {
    let click = clicks::get(&app.db, id).await?.ok_or_else(|| Problem::not_found("click"))?;
    let campaign = campaigns::get(&app.db, click.campaign_id).await?;
    let (terms, overflow) = campaign.map(|it| (it.terms, it.overflow_offers)).unwrap_or_default();
    let events = events::list(&app.db, Some(id), None, CHAPTERS_MAX).await?;
    let outs = out_clicks::list(&app.db, Some(id), None, CHAPTERS_MAX).await?;
    let told = postbacks::list_of_click(&app.db, id, CHAPTERS_MAX).await?;
    let conversions = conversions::list_of_clicks(&app.db, vec![id.uuid()]).await?;
    let click = Click::from(click);
    let decision = Decision::of(&click, &terms, &overflow);
    let mut chapters = vec![Chapter::of_click(&click)];
    chapters.extend(events.into_iter().map(Event::from).map(Chapter::of_event));
    let offer = |id: Option<i64>| destination(id, terms.all_offers().chain(&overflow));
    chapters.extend(
        outs.into_iter().map(OutClick::from).map(|out| Chapter::of_out_click(offer(out.offer_id), out)),
    );
    let conversions: Vec<Conversion> = conversions.into_iter().map(Conversion::from).collect();
    chapters
        .extend(told.into_iter().map(Postback::from).map(|told| Chapter::of_postback(&conversions, told)));
    let others = deliveries::list_of_click(&app.db, id, CHAPTERS_MAX).await?;
    chapters.extend(others.iter().map(Chapter::of_delivery));
    chapters.sort_by_key(|chapter| chapter.at);
    Ok(Story { click, decision, chapters, conversions })
}

impl Chapter {
    fn new(at: DateTime<Utc>, kind: &'static str, text: String) -> Self {
        Self { at, kind, text, event: None, out_click: None, postback: None }
    }

    fn of_click(click: &Click) -> Self {
        Self::new(click.created_at, "click", came(click))
    }

    fn of_event(event: Event) -> Self {
        let text = format!("The page told of {}.", event.event_type);
        let at = event.created_at;
        Self { event: Some(event), ..Self::new(at, "event", text) }
    }

    fn of_out_click(offer: Named, out: OutClick) -> Self {
        let to = match (offer.id, offer.name) {
            (Some(id), Some(name)) => format!("the offer {name} ({id})"),
            (Some(id), None) => format!("the offer {id}, which is gone"),
            (None, _) => "a fallback".to_owned(),
        };
        let whys = out.routed.iter().filter_map(|why| why.parse().ok()).map(sentence_of_why);
        let text = std::iter::once(format!("The visitor left the landing page for {to}.")).chain(whys);
        let text = text.collect::<Vec<_>>().join(" ");
        let at = out.created_at;
        Self { out_click: Some(out), ..Self::new(at, "out_click", text) }
    }

    fn of_delivery(delivery: &deliveries::Delivery) -> Self {
        let deliveries::Delivery { target_id, change, state, attempts, .. } = delivery;
        let reason = delivery.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
        let text = format!(
            "The target {target_id} is to be told of {change}: {state}{reason}, attempts: {attempts}."
        );
        Self::new(delivery.queued_at, "delivery", text)
    }

    fn of_postback(conversions: &[Conversion], told: Postback) -> Self {
        let of = told.conversion_id.and_then(|id| conversions.iter().find(|conversion| conversion.id == id));
        let what = of.map_or_else(|| "no conversion".to_owned(), Conversion::in_words);
        let became = match (told.outcome.as_str(), told.reason.as_deref()) {
            ("accepted", None) => format!("it told of {what}"),
            ("accepted", Some("repeat")) => format!("it said once more what was known of {what}"),
            ("accepted", Some("late_pending")) => format!("it came too late to undo a decision about {what}"),
            ("accepted", Some(_)) => {
                format!("its word for the state of {what} is not known; map it, and replay")
            }
            ("waiting", _) => "it waits for the click to be stored".to_owned(),
            (outcome, Some(reason)) => format!("it was {outcome} ({reason})"),
            (outcome, None) => format!("it was {outcome}"),
        };
        let at = told.created_at;
        Self { postback: Some(told), ..Self::new(at, "postback", format!("A postback came: {became}.")) }
    }
}

fn came(click: &Click) -> String {
    let known = [&click.device, &click.os, &click.browser].into_iter().flatten();
    let with = known.map(String::as_str).collect::<Vec<_>>().join(", ");
    let country = click.country.as_deref().unwrap_or("an unknown country");
    let with = if with.is_empty() { "an unknown device".to_owned() } else { with };
    match click.via.as_deref() {
        Some(_) => format!("A page told of a visit from {country} with {with}."),
        None => format!("Somebody from {country} with {with} followed the link."),
    }
}

impl Decision {
    fn of(click: &Click, terms: &Terms, overflow: &[Destination]) -> Self {
        let rule = Named { id: click.rule_id, name: rule_name(click.rule_id, terms) };
        let path = Named { id: click.path_id, name: path_name(click.path_id, terms) };
        let landing_page = destination(click.landing_page_id, terms.all_landing_pages());
        let offer = destination(click.campaign_offer_id, terms.all_offers().chain(overflow));
        let why = click.routed.iter().filter_map(|why| why.parse().ok()).map(sentence_of_why).collect();
        let text = text_of(&rule, &path, &landing_page, &offer, click);
        Self { rule, path, landing_page, offer, text, why, validity: validity(click) }
    }
}

fn destination<'t>(id: Option<i64>, mut all: impl Iterator<Item = &'t Destination>) -> Named {
    let name = id.and_then(|_| all.find(|d| d.id == id)).map(|d| d.name.clone());
    Named { id, name }
}

fn rule_name(id: Option<i64>, terms: &Terms) -> Option<String> {
    if id == Some(DEFAULT_RULE) {
        return Some("Default".to_owned());
    }
    id.and_then(|id| terms.rules.iter().find(|rule| rule.id == Some(id)).map(|rule| rule.name.clone()))
}

fn path_name(id: Option<i64>, terms: &Terms) -> Option<String> {
    if id == Some(ONLY_PATH) {
        return Some("Default".to_owned());
    }
    id.and_then(|id| terms.all_paths().find(|path| path.id == Some(id)).map(|path| path.name.clone()))
}

fn text_of(rule: &Named, path: &Named, page: &Named, offer: &Named, click: &Click) -> String {
    let called = |named: &Named, what: &str| {
        let id = named.id?;
        Some(match &named.name {
            Some(name) => format!("the {what} {name} ({id})"),
            None => format!("the {what} {id}, which is gone"),
        })
    };
    let stop = match (called(page, "landing page"), called(offer, "offer")) {
        (Some(page), Some(offer)) => format!(", to {page}, meant for {offer}"),
        (Some(one), None) | (None, Some(one)) => format!(", to {one}"),
        (None, None) => String::new(),
    };
    match (called(rule, "rule"), called(path, "path")) {
        (Some(rule), Some(path)) => format!("It met {rule}, took {path}{stop}."),
        _ if click.routed.iter().any(|why| why == <&str>::from(Why::Fallback)) => {
            "The campaign did not take it; it went to the campaign's fallback.".to_owned()
        }
        _ => format!("No rule is known to have taken it{stop}."),
    }
}

/// A reason for which something was not the first choice, in a sentence.
pub(crate) fn sentence_of_why(why: Why) -> String {
    match why {
        Why::Named => "The link names where it leads.",
        Why::Bound => "The visitor came before, and got what he got then.",
        Why::Cap => "Something that was chosen first had taken as much as it may.",
        Why::Inactive => "What the link, a token or a cookie names takes no clicks.",
        Why::Overflow => {
            "Every offer of the path had taken as much as it may: it went to the one that takes what is over."
        }
        Why::Fallback => "Nothing of the campaign took it: it went to the fallback.",
        Why::NextRule => "A rule before it held, and none of its paths took part.",
        Why::Budget => "The campaign had spent its budget.",
    }
    .to_owned()
}

fn validity(click: &Click) -> String {
    let Some(reason) = &click.invalid_reason else { return "It counts.".to_owned() };
    let why = match reason.parse() {
        Ok(InvalidReason::Draft) => "the campaign was a draft",
        Ok(InvalidReason::Paused) => "the campaign was paused",
        Ok(InvalidReason::Ended) => "the campaign was over",
        Ok(InvalidReason::NotStarted) => "the campaign had not begun",
        Ok(InvalidReason::NoDestination) => "nothing of the campaign took it",
        Ok(InvalidReason::Prefetch) => "the browser fetched the link ahead of a visit",
        Ok(InvalidReason::Bot) => "its user agent is a robot's",
        Ok(InvalidReason::NoUserAgent) => "it had no user agent",
        Ok(InvalidReason::Datacenter) => "it came from a network of machines",
        Ok(InvalidReason::Duplicate) => "the visitor had clicked a moment before",
        Ok(InvalidReason::RateLimited) => "its address clicked too often",
        Ok(InvalidReason::Test) => "it was a test",
        Err(_) => "a correction says so",
    };
    format!("It does not count: {why} ({reason}).")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_in_words_of_its_own() {
        let whys: std::collections::HashSet<_> = Why::ALL.into_iter().map(sentence_of_why).collect();
        assert_eq!(whys.len(), Why::ALL.len());
    }
}
