//! What was told to whom of conversions: every delivery with its attempts, put back by hand; and the targets, paused and resumed.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::SecondsFormat;
use serde_json::json;
use strum::VariantNames as _;

use super::{
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    money::{self, Choice, Place, Tabs},
    session::{Opened, Posted},
    view::View,
};
use crate::{
    app::App,
    http::api::{
        deliveries::{self as api, Delivery, Request},
        manners::{page::Page, request::Name},
        postback_targets::{self, TargetBody},
    },
    model::postback_target::{DeliveryState, PauseReason},
};

const PATH: &str = "/ui/deliveries";

/// What this page is asked beside what all are.
const OWN: [&str; 2] = ["target_id", "state"];

/// Targets that are shown.
const TARGETS_ASKED: &str = "limit=500";

/// A delivery in a list.
pub(super) struct DeliveryRow {
    pub(super) at: String,
    pub(super) address: String,
    pub(super) target: String,
    pub(super) change: String,
    pub(super) goal: String,
    pub(super) payout: String,
    pub(super) state: String,
    pub(super) tone: &'static str,
    pub(super) attempts: i32,
    pub(super) next: String,
    pub(super) conversion: String,
}

impl DeliveryRow {
    pub(super) fn of(it: &Delivery, view: &View, targets: &HashMap<i64, String>) -> Self {
        Self {
            at: view.moment(it.queued_at),
            address: view.link(&format!("{PATH}/{}", it.id)),
            target: targets.get(&it.target_id).cloned().unwrap_or_else(|| format!("#{}", it.target_id)),
            change: it.change.clone(),
            goal: it.goal.clone(),
            payout: it
                .payout
                .as_ref()
                .map(|payout| format!("{} {}", payout.amount, payout.currency))
                .unwrap_or_default(),
            state: state(it),
            tone: match it.state.as_str() {
                "delivered" => "good",
                "dead" => "bad",
                _ => "",
            },
            attempts: it.attempts,
            next: it.next_at.map(|at| view.moment(at)).unwrap_or_default(),
            conversion: view.link(&format!("/ui/conversions/{}", it.conversion_id)),
        }
    }
}

/// How far a delivery is, in a few words.
fn state(it: &Delivery) -> String {
    let state = match it.state.as_str() {
        "pending" => "waits",
        "leased" => "is being sent",
        "dead" => "given up",
        "not_supported" => "cannot be told",
        other => other,
    };
    let reason = match it.reason.as_deref() {
        Some("attempts") => "every attempt failed",
        Some("refused") => "the target refuses it",
        Some("expired") => "too old for the target",
        Some("no_click") => "its click was deleted",
        Some("template") => "the template makes no request",
        Some("takes_no_refunds") => "the target takes nothing back",
        Some("target_deleted") => "the target was deleted",
        Some(other) => other,
        None => return state.to_owned(),
    };
    format!("{state}: {reason}")
}

/// The names of targets by their ids.
pub(super) async fn targets(app: &App) -> Result<HashMap<i64, String>, crate::http::error::Problem> {
    let found = postback_targets::listed(app, Some(TARGETS_ASKED)).await?;
    Ok(found.data.into_iter().map(|target| (target.id, target.terms.name)).collect())
}

/// A target.
struct Target {
    id: i64,
    name: String,
    url: String,
    state: String,
    tone: &'static str,
    is_paused: bool,
    failures: i32,
    of_it: String,
}

impl Target {
    fn of(target: &TargetBody, frame: &Frame) -> Self {
        let since = |at| frame.view.moment(at);
        let why = match target.pause_reason {
            Some(PauseReason::Failures) => ": too many attempts failed",
            Some(PauseReason::Gone) => ": it answered that it is gone",
            Some(PauseReason::Owner) => ": by hand",
            None => "",
        };
        let (state, tone) = match (target.paused_at, target.held_until, target.terms.is_active) {
            (Some(at), ..) => (format!("paused since {}{why}", since(at)), "bad"),
            (None, _, false) => ("switched off".to_owned(), "soft"),
            (None, Some(until), _) if until > chrono::Utc::now() => {
                (format!("asked for quiet until {}", since(until)), "")
            }
            _ => ("told of what happens".to_owned(), "good"),
        };
        Self {
            id: target.id,
            name: target.terms.name.clone(),
            url: target.terms.url.clone(),
            state,
            tone,
            is_paused: target.paused_at.is_some(),
            failures: target.failures_in_a_row,
            of_it: frame.query.with("target_id", &target.id.to_string()).without("cursor").to_string(),
        }
    }
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    frame: Frame,
    tabs: Tabs,
    targets: Vec<Target>,
    choices: Vec<Choice>,
    states: Vec<Choice>,
    kept: Vec<(String, String)>,
    faults: Vec<String>,
    deliveries: Vec<DeliveryRow>,
    is_filtered: bool,
    more: Option<String>,
}

/// `GET /ui/deliveries`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let mut frame = Frame::of(&app, &opened, Section::Conversions, PATH, &OWN).titled("Deliveries");
    frame.notice = notice(fields);
    let targets = postback_targets::listed(&app, Some(TARGETS_ASKED)).await?.data;
    let names = targets.iter().map(|target| (target.id, target.terms.name.clone())).collect();
    let asked = money::asked(&frame.view, fields, &OWN, &[("cursor", fields.text("cursor"))]);
    let (mut status, mut faults) = (StatusCode::OK, Vec::new());
    let found = match api::listed(&app, Some(&asked)).await {
        Ok(found) => found,
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            status = problem.status();
            faults = Inputs::default().refuse(&problem, |_| None);
            Page { data: Vec::new(), has_more: false, next_cursor: None }
        }
        Err(problem) => return Err(problem.into()),
    };
    let mut response = html(&DeliveriesPage {
        tabs: money::tabs(&app, &frame.view, Place::Deliveries).await?,
        choices: money::network_choices(&names, fields.text("target_id")),
        states: DeliveryState::VARIANTS
            .iter()
            .map(|name| ((*name).to_owned(), money::words(name), *name == fields.text("state")))
            .collect(),
        targets: targets.iter().map(|target| Target::of(target, &frame)).collect(),
        kept: frame.query.hidden(&OWN),
        deliveries: found.data.iter().map(|it| DeliveryRow::of(it, &frame.view, &names)).collect(),
        is_filtered: OWN.iter().any(|name| !fields.text(name).is_empty()),
        more: found.next_cursor.map(|cursor| frame.query.with("cursor", &cursor).to_string()),
        faults,
        frame,
    })?;
    *response.status_mut() = status;
    Ok(response)
}

/// What was just done, in a sentence.
fn notice(fields: &Fields) -> Option<String> {
    let text = fields.text("done");
    let (what, count) = text.split_once('.').unwrap_or((text, ""));
    Some(match (what, count.parse::<u64>()) {
        ("paused", _) => "The target is paused. What is due waits.".to_owned(),
        ("resumed", _) => "The target is resumed. What waits is sent now.".to_owned(),
        ("retried", _) => "The delivery is put back, and is sent now.".to_owned(),
        ("again", Ok(0)) => "Nothing of these days was given up, so nothing is sent again.".to_owned(),
        ("again", Ok(1)) => "1 delivery is put back, and is sent now.".to_owned(),
        ("again", Ok(count)) => format!("{count} deliveries are put back, and are sent now."),
        _ => return None,
    })
}

/// A request that was made.
struct Attempt {
    n: i32,
    at: String,
    request: String,
    answer: String,
    body: Option<String>,
    took: String,
    tone: &'static str,
}

impl Attempt {
    fn of(it: &Request, view: &View) -> Self {
        let status = it.status.map(|status| status.to_string());
        let parts = [status, it.error.clone()];
        Self {
            n: it.n,
            at: view.moment(it.at),
            request: format!("{} {}", it.method, it.url),
            answer: parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
            body: it.answer.clone().filter(|answer| !answer.is_empty()),
            took: format!("{} ms", it.ms),
            tone: if it.error.is_some() { "bad" } else { "good" },
        }
    }
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage {
    frame: Frame,
    tabs: Tabs,
    id: String,
    row: DeliveryRow,
    click: String,
    attempts: Vec<Attempt>,
    can_retry: bool,
}

/// `GET /ui/deliveries/{id}`
pub(super) async fn one(opened: Opened, State(app): State<App>, Name(id): Name) -> Result<Response, Failure> {
    let found = api::find(&app, &id).await?;
    let it = &found.delivery;
    let mut frame =
        Frame::of(&app, &opened, Section::Conversions, &format!("{PATH}/{}", it.id), &[]).titled("Delivery");
    frame.notice = notice(&opened.fields);
    let names = targets(&app).await?;
    let is_open = matches!(it.state.as_str(), "pending" | "dead" | "cancelled");
    html(&DeliveryPage {
        tabs: money::tabs(&app, &frame.view, Place::Deliveries).await?,
        id: it.id.to_string(),
        row: DeliveryRow::of(it, &frame.view, &names),
        click: frame.view.link(&format!("/ui/clicks/{}", it.click_id)),
        attempts: found.requests.iter().map(|request| Attempt::of(request, &frame.view)).collect(),
        can_retry: frame.may_change && is_open && names.contains_key(&it.target_id),
        frame,
    })
}

/// `POST /ui/deliveries/{id}`: sends it again, now.
pub(super) async fn retry(
    State(app): State<App>,
    Name(id): Name,
    posted: Posted,
) -> Result<Response, Failure> {
    api::retried(&app, &id).await?;
    let view = Frame::of(&app, &posted.opened, Section::Conversions, PATH, &[]).view;
    let to = view.query.at(&format!("{PATH}/{id}")).with("done", "retried");
    Ok(Redirect::to(&to.to_string()).into_response())
}

/// `POST /ui/deliveries/targets/{id}`: pauses or resumes it, or sends again what was given up of the days of the page.
pub(super) async fn turn(
    State(app): State<App>,
    Name(id): Name,
    posted: Posted,
) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let frame = Frame::of(&app, &posted.opened, Section::Conversions, PATH, &OWN);
    let done = match fields.text("action") {
        "pause" => {
            postback_targets::turned(&app, &id, true).await?;
            "paused".to_owned()
        }
        "resume" => {
            postback_targets::turned(&app, &id, false).await?;
            "resumed".to_owned()
        }
        _ => {
            let time = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            let asked = json!({
                "target_id": id.parse::<i64>().unwrap_or_default(),
                "from": time(frame.view.from()),
                "to": time(frame.view.to()),
            });
            format!("again.{}", api::replayed(&app, &asked).await?.count)
        }
    };
    Ok(Redirect::to(&frame.query.with("done", &done).to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_our_words_only() {
        let notice = |text: &str| notice(&Fields::parse(&format!("done={text}")));
        assert_eq!(notice("again.3").as_deref(), Some("3 deliveries are put back, and are sent now."));
        assert!(notice("again.0").unwrap().contains("nothing is sent again"));
        assert!(notice("resumed").unwrap().starts_with("The target is resumed."));
        for text in ["", "again", "again.x", "hacked"] {
            assert_eq!(notice(text), None, "{text}");
        }
    }
}
