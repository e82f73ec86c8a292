//! Every postback that came and what became of it; and one of them as it came, where a word of its network is mapped.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Value, json};
use strum::VariantNames as _;

use super::{
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    money::{self, Choice, Place, PostbackRow, Tabs},
    session::{Opened, Posted},
};
use crate::{
    app::App,
    db::store::affiliate_networks::AffiliateNetwork,
    http::{
        api::{
            conversions, library,
            manners::{page::Page, request::Name},
            postbacks as api,
            views::postback::Postback,
        },
        error::Problem,
    },
    model::{
        conversion::{Outcome, OutcomeReason},
        id::ClickId,
        network::MappedStatus,
    },
};

const PATH: &str = "/ui/postbacks";

/// What this page is asked beside what all are.
const OWN: [&str; 4] = ["q", "network", "outcome", "reason"];

/// What the API is asked of it.
const ASKED: [&str; 3] = ["network", "outcome", "reason"];

#[derive(Template)]
#[template(path = "postbacks.html")]
struct PostbacksPage {
    frame: Frame,
    tabs: Tabs,
    inputs: Inputs,
    networks: Vec<Choice>,
    outcomes: Vec<Choice>,
    reasons: Vec<Choice>,
    kept: Vec<(String, String)>,
    faults: Vec<String>,
    rows: Vec<PostbackRow>,
    is_filtered: bool,
    more: Option<String>,
    replay: String,
}

/// The field of the form that a fault of the API is about.
fn field_of(pointer: &str) -> Option<&'static str> {
    ASKED.into_iter().find(|name| pointer.strip_prefix('?') == Some(name))
}

/// `GET /ui/postbacks`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Conversions, PATH, &OWN).titled("Postbacks");
    let mut inputs = Inputs::typed(&OWN, fields);
    let q = fields.text("q");
    let click_id = q.parse::<ClickId>().ok().map(|id| id.to_string());
    let mut more = vec![("cursor", fields.text("cursor"))];
    more.extend(click_id.as_deref().map(|id| ("click_id", id)));
    let mut status = StatusCode::OK;
    let (mut faults, mut found) = (Vec::new(), Page { data: Vec::new(), has_more: false, next_cursor: None });
    if !q.is_empty() && click_id.is_none() {
        inputs.fault("q", "That is no click id. It has 36 characters, or the 22 of {click_id:short}.");
    } else {
        match api::listed(&app, Some(&money::asked(&frame.view, fields, &ASKED, &more))).await {
            Ok(page) => found = page,
            Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                status = problem.status();
                faults = inputs.refuse(&problem, field_of);
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    let networks = money::networks(&app).await?;
    let mut response = html(&PostbacksPage {
        tabs: money::tabs(&app, &frame.view, Place::Postbacks).await?,
        networks: money::network_choices(&networks, fields.text("network")),
        outcomes: money::choices(Outcome::VARIANTS, fields.text("outcome")),
        reasons: money::choices(OutcomeReason::VARIANTS, fields.text("reason")),
        kept: frame.query.hidden(&OWN),
        rows: found.data.iter().map(|it| PostbackRow::of(it, &frame.view, &networks)).collect(),
        is_filtered: OWN.iter().any(|name| !fields.text(name).is_empty()),
        more: found.next_cursor.map(|cursor| frame.query.with("cursor", &cursor).to_string()),
        replay: frame
            .view
            .query
            .at("/ui/postbacks/replay")
            .with("network", fields.text("network"))
            .to_string(),
        inputs,
        faults,
        frame,
    })?;
    *response.status_mut() = status;
    Ok(response)
}

const WORD_FIELDS: [&str; 3] = ["word", "status", "goal"];

/// The form by which a word is mapped.
struct Mapping {
    network: String,
    words: Vec<(String, String, String)>,
    statuses: Vec<Choice>,
    inputs: Inputs,
    version: i64,
    was_changed: bool,
    faults: Vec<String>,
}

impl Mapping {
    fn of(network: &AffiliateNetwork, inputs: Inputs) -> Self {
        let word = |word: &crate::model::network::StatusWord| {
            (word.word.clone(), word.status.to_string(), word.goal.clone().unwrap_or_default())
        };
        Self {
            network: network.terms.name.clone(),
            words: network.terms.status_map.iter().map(word).collect(),
            statuses: money::choices(MappedStatus::VARIANTS, &inputs.get("status").value),
            inputs,
            version: network.version,
            was_changed: false,
            faults: Vec::new(),
        }
    }
}

#[derive(Template)]
#[template(path = "postback.html")]
struct PostbackPage {
    frame: Frame,
    tabs: Tabs,
    id: String,
    outcome: String,
    facts: Vec<(&'static str, String)>,
    params: Vec<(String, String)>,
    click: Option<String>,
    conversion: Option<String>,
    is_unmapped: bool,
    mapping: Option<Mapping>,
}

/// `GET /ui/postbacks/{id}`
pub(super) async fn one(opened: Opened, State(app): State<App>, Name(id): Name) -> Result<Response, Failure> {
    let postback = api::find(&app, &id).await?;
    let mapping = match postback.network_id.filter(|_| opened.viewer.may_change() && is_unmapped(&postback)) {
        Some(network) => {
            let network = library::find::<AffiliateNetwork>(&app, &network.to_string()).await?;
            let mut inputs = Inputs::typed(&WORD_FIELDS, &Fields::default());
            inputs.fill("word", &word(&app, &postback).await?);
            inputs.fill("status", "approved");
            Some(Mapping::of(&network, inputs))
        }
        None => None,
    };
    shown(&app, &opened, postback, mapping).await
}

fn is_unmapped(postback: &Postback) -> bool {
    postback.reason.as_deref() == Some("unmapped")
}

/// The network's word that is not mapped, as it was read; else what is called `status`.
async fn word(app: &App, postback: &Postback) -> Result<String, Problem> {
    let said = || postback.params.get("status").cloned().unwrap_or_default();
    let Some(id) = postback.conversion_id else { return Ok(said()) };
    let whole = conversions::whole(app, &id.to_string()).await;
    let conversion = match whole {
        Ok(whole) => whole.conversion,
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => return Ok(said()),
        Err(problem) => return Err(problem),
    };
    Ok(conversion.status_text.filter(|_| conversion.status == "unmapped").unwrap_or_else(said))
}

async fn shown(
    app: &App,
    opened: &Opened,
    postback: Postback,
    mapping: Option<Mapping>,
) -> Result<Response, Failure> {
    let path = format!("{PATH}/{}", postback.id);
    let frame = Frame::of(app, opened, Section::Conversions, &path, &[]).titled("Postback");
    let view = &frame.view;
    let networks = money::networks(app).await?;
    let link = |path: &str, id: uuid::Uuid| view.link(&format!("{path}/{id}"));
    html(&PostbackPage {
        tabs: money::tabs(app, view, Place::Postbacks).await?,
        id: postback.id.to_string(),
        outcome: money::outcome(&postback),
        facts: facts(&postback, view.moment(postback.created_at), &networks),
        // a click is known to be stored once something came of it
        click: postback
            .click_id
            .filter(|_| postback.conversion_id.is_some())
            .map(|id| link("/ui/clicks", id)),
        conversion: postback.conversion_id.map(|id| link("/ui/conversions", id)),
        is_unmapped: is_unmapped(&postback),
        params: postback.params.into_iter().collect(),
        mapping,
        frame,
    })
}

fn facts(postback: &Postback, at: String, networks: &HashMap<i64, String>) -> Vec<(&'static str, String)> {
    let all = [
        ("Came", at),
        ("How", postback.channel.clone()),
        ("From", postback.ip_address.clone().unwrap_or_default()),
        ("Network", money::network_name(networks, postback.network_id)),
        ("Click", postback.click_id.map(|id| id.to_string()).unwrap_or_default()),
        ("Offer of the click", postback.offer_id.map(|id| id.to_string()).unwrap_or_default()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// `POST /ui/postbacks/{id}`: maps a word of its network, then leads to the preview of a replay. Where somebody else was quicker,
/// what was typed stays, beside the words as they are now.
pub(super) async fn map(State(app): State<App>, Name(id): Name, posted: Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let postback = api::find(&app, &id).await?;
    let network = postback.network_id.ok_or_else(|| Problem::not_found("affiliate network"))?.to_string();
    let before = library::find::<AffiliateNetwork>(&app, &network).await?;
    let mut words: Vec<Value> = before
        .terms
        .status_map
        .iter()
        .map(|word| json!({ "word": word.word, "status": word.status, "goal": word.goal }))
        .collect();
    let place = words.len();
    let goal = super::inputs::optional(fields, "goal");
    words.push(json!({ "word": fields.text("word"), "status": fields.text("status"), "goal": goal }));
    let headers = posted.if_match(fields.version())?;
    let patch = json!({ "status_map": words });
    let Err(problem) = library::changed::<AffiliateNetwork>(&app, &network, &headers, &patch).await else {
        let frame = Frame::of(&app, &posted.opened, Section::Conversions, PATH, &[]);
        let day = postback.created_at.with_timezone(&frame.view.tz).date_naive();
        let range = frame.view.query.at("/ui/postbacks/replay").with("range", "custom");
        let range = range.with("from", &day.to_string()).with("to", &frame.view.today().to_string());
        let to = range.with("network", &network).with("done", "mapped");
        return Ok(Redirect::to(&to.to_string()).into_response());
    };
    if !problem.status().is_client_error() || problem.status() == StatusCode::NOT_FOUND {
        return Err(problem.into());
    }
    let now = library::find::<AffiliateNetwork>(&app, &network).await?;
    let mut inputs = Inputs::typed(&WORD_FIELDS, fields);
    let mut mapping = Mapping {
        was_changed: problem.status() == StatusCode::PRECONDITION_FAILED,
        ..Mapping::of(&now, inputs.clone())
    };
    if !mapping.was_changed {
        let own = format!("/status_map/{place}/");
        mapping.faults = inputs.refuse(&problem, |pointer| {
            let field = pointer.strip_prefix(&own)?;
            WORD_FIELDS.into_iter().find(|name| *name == field)
        });
        mapping.inputs = inputs;
        mapping.version = fields.text("version").parse().unwrap_or(now.version);
    }
    let mut response = shown(&app, &posted.opened, postback, Some(mapping)).await?;
    *response.status_mut() = problem.status();
    Ok(response)
}
