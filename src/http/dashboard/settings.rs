//! Forms of campaigns: a new one, and the settings of one that there is. What they send is read as the API reads it, so that a form
//! and a program are told the same.

use askama::Template;
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::Utc;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    campaign::{Head, Tab, frame_of, path_of},
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::{Inputs, optional},
    session::{Opened, Posted},
};
use crate::{
    app::App,
    budgets,
    db::store::{
        library::Filter,
        traffic_sources::{self, TrafficSource},
    },
    http::{
        api::{campaigns, manners::request::Name},
        error::Problem,
    },
    model::{
        campaign::{Campaign, Status, Terms},
        id::new_uuid,
        money::{Money, amount_text},
    },
};

const NEW: &str = "/ui/campaigns/new";

/// Traffic sources to choose from.
const SOURCES_MAX: i64 = 500;

/// The field of a form that a fault of the API is about.
fn field_of(pointer: &str) -> Option<&'static str> {
    Some(match pointer {
        "/name" => "name",
        "/key" => "key",
        "/description" => "description",
        "/status" => "status",
        "/fallback_url" => "fallback_url",
        "/traffic_source_id" => "traffic_source_id",
        "/payout" | "/payout/amount" => "payout",
        "/payout/currency" => "payout_currency",
        "/daily_budget" | "/daily_budget/amount" => "daily_budget",
        "/daily_budget/currency" => "daily_budget_currency",
        "/total_budget" | "/total_budget/amount" => "total_budget",
        "/total_budget/currency" => "total_budget_currency",
        "/offers/0/url" => "offer_url",
        "/landing_pages/0/url" => "landing_page_url",
        _ => return None,
    })
}

/// A field of a campaign as a form shows it.
fn text_of(name: &str, terms: &Terms, key: &str) -> String {
    match name {
        "name" => terms.name.clone(),
        "key" => key.to_owned(),
        "description" => terms.description.clone().unwrap_or_default(),
        "status" => terms.status.to_string(),
        "fallback_url" => terms.fallback_url.clone().unwrap_or_default(),
        "traffic_source_id" => terms.traffic_source_id.map(|id| id.to_string()).unwrap_or_default(),
        "payout" => amount(terms.payout),
        "payout_currency" => currency(terms.payout),
        "daily_budget" => amount(terms.daily_budget),
        "daily_budget_currency" => currency(terms.daily_budget),
        "total_budget" => amount(terms.total_budget),
        "total_budget_currency" => currency(terms.total_budget),
        _ => String::new(),
    }
}

fn amount(money: Option<Money>) -> String {
    money.map(|money| amount_text(money.amount)).unwrap_or_default()
}

fn currency(money: Option<Money>) -> String {
    money.map(|money| money.currency.to_string()).unwrap_or_default()
}

/// An amount and its currency; null where there is no amount.
fn money(fields: &Fields, name: &str, currency: &str) -> Value {
    match fields.text(name) {
        "" => Value::Null,
        amount => json!({ "amount": amount, "currency": fields.text(currency).to_uppercase() }),
    }
}

fn payout(fields: &Fields) -> Value {
    money(fields, "payout", "payout_currency")
}

/// How far budgets are spent, a sentence each.
async fn spent(app: &App, campaign: &Campaign) -> Result<Vec<String>, Problem> {
    if campaign.terms.daily_budget.is_none() && campaign.terms.total_budget.is_none() {
        return Ok(Vec::new());
    }
    let spent = budgets::spent(&app.db, &app.config, campaign, Utc::now()).await?;
    let told = |(name, used): (&str, Option<budgets::Use>)| {
        let used = used?;
        let does = match used.state() {
            budgets::State::Open => "",
            budgets::State::Warned => " That is more than 80 %.",
            budgets::State::Exhausted => " It is exhausted: clicks go to the fallback.",
        };
        let (budget, currency) = (amount_text(used.budget.amount), used.budget.currency);
        Some(format!("{name}: {} of {budget} {currency} are spent.{does}", amount_text(used.spent)))
    };
    let mut told: Vec<String> =
        [("Today", spent.daily), ("In all", spent.total)].into_iter().filter_map(told).collect();
    if !spent.others.is_empty() {
        let others: Vec<String> = spent.others.iter().map(ToString::to_string).collect();
        told.push(format!("Costs in {} are not added.", others.join(", ")));
    }
    Ok(told)
}

fn source(fields: &Fields) -> Value {
    fields.text("traffic_source_id").parse::<i64>().map_or(Value::Null, Value::from)
}

/// A traffic source to choose: id, name, whether it is chosen.
type SourceChoice = (String, String, bool);

async fn sources(app: &App, chosen: &str) -> Result<Vec<SourceChoice>, Problem> {
    let found = traffic_sources::list(&app.db, Filter::default(), None, SOURCES_MAX).await?;
    let choice =
        |source: TrafficSource| (source.id.to_string(), source.terms.name, source.id.to_string() == chosen);
    Ok(found.into_iter().map(choice).collect())
}

const NEW_FIELDS: [&str; 7] =
    ["name", "key", "offer_url", "landing_page_url", "traffic_source_id", "payout", "payout_currency"];

#[derive(Template)]
#[template(path = "campaign_new.html")]
struct NewPage {
    frame: Frame,
    inputs: Inputs,
    faults: Vec<String>,
    sources: Vec<SourceChoice>,
    attempt: Uuid,
    all: String,
    public_url: String,
}

/// `GET /ui/campaigns/new`
pub(super) async fn new_page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    if !opened.viewer.may_change() {
        return Err(Problem::forbidden("A token of scope read makes no campaigns.").into());
    }
    let mut inputs = Inputs::typed(&NEW_FIELDS, &Fields::default());
    inputs.fill("payout_currency", &app.config.dashboard.currency.to_string());
    shown_new(&app, &opened, inputs, Vec::new(), new_uuid()).await
}

async fn shown_new(
    app: &App,
    opened: &Opened,
    inputs: Inputs,
    faults: Vec<String>,
    attempt: Uuid,
) -> Result<Response, Failure> {
    let frame = Frame::of(app, opened, Section::Campaigns, NEW, &[]).titled("New campaign");
    html(&NewPage {
        sources: sources(app, &inputs.get("traffic_source_id").value).await?,
        all: frame.view.link("/ui/campaigns"),
        public_url: app.public_url.clone(),
        inputs,
        faults,
        attempt,
        frame,
    })
}

/// `POST /ui/campaigns/new`: sent twice it is made once.
pub(super) async fn create(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let attempt = fields.attempt();
    let mut body = Map::new();
    body.insert("name".to_owned(), fields.text("name").into());
    for (field, list, name) in
        [("offer_url", "offers", "Offer"), ("landing_page_url", "landing_pages", "Landing page")]
    {
        if !fields.text(field).is_empty() {
            body.insert(list.to_owned(), json!([{ "name": name, "url": fields.text(field) }]));
        }
    }
    for (field, value) in
        [("key", optional(fields, "key")), ("payout", payout(fields)), ("traffic_source_id", source(fields))]
    {
        if !value.is_null() {
            body.insert(field.to_owned(), value);
        }
    }
    let mut inputs = Inputs::typed(&NEW_FIELDS, fields);
    if fields.text("offer_url").is_empty() && fields.text("landing_page_url").is_empty() {
        inputs.fault("offer_url", "Say where clicks lead: to an offer, or to a landing page.");
        let page = shown_new(&app, &posted.opened, inputs, Vec::new(), attempt).await?;
        return Ok(refused(page, StatusCode::UNPROCESSABLE_ENTITY));
    }
    match campaigns::made(&app, &body.into(), &posted.headers, attempt, true).await {
        Ok(campaign) => {
            Ok(Redirect::to(&format!("{}/links?done=created", path_of(&campaign))).into_response())
        }
        Err(problem) if problem.status().is_client_error() => {
            let faults = inputs.refuse(&problem, field_of);
            let page = shown_new(&app, &posted.opened, inputs, faults, attempt).await?;
            Ok(refused(page, problem.status()))
        }
        Err(problem) => Err(problem.into()),
    }
}

pub(super) fn refused(mut response: Response, status: StatusCode) -> Response {
    *response.status_mut() = status;
    response
}

const FIELDS: [&str; 12] = [
    "name",
    "key",
    "description",
    "status",
    "fallback_url",
    "traffic_source_id",
    "payout",
    "payout_currency",
    "daily_budget",
    "daily_budget_currency",
    "total_budget",
    "total_budget_currency",
];

#[derive(Template)]
#[template(path = "campaign_settings.html")]
struct SettingsPage {
    frame: Frame,
    head: Head,
    inputs: Inputs,
    faults: Vec<String>,
    statuses: Vec<(&'static str, bool)>,
    sources: Vec<SourceChoice>,
    version: i64,
    was_changed: bool,
    changed_at: String,
    spent: Vec<String>,
}

/// `GET /ui/campaigns/{id}/settings`
pub(super) async fn page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    let campaign = campaigns::find(&app, &id).await?;
    let mut inputs = Inputs::of(&FIELDS, |name| text_of(name, &campaign.terms, campaign.key.as_str()));
    for name in ["payout_currency", "daily_budget_currency", "total_budget_currency"] {
        inputs.fill(name, &app.config.dashboard.currency.to_string());
    }
    shown(&app, &opened, &campaign, inputs, Vec::new(), false).await
}

async fn shown(
    app: &App,
    opened: &Opened,
    campaign: &Campaign,
    inputs: Inputs,
    faults: Vec<String>,
    was_changed: bool,
) -> Result<Response, Failure> {
    use strum::VariantNames as _;

    let frame = frame_of(app, opened, campaign, "/settings", &[]);
    let status = inputs.get("status").value;
    html(&SettingsPage {
        head: Head::of(campaign, Tab::Settings, &frame.view),
        statuses: Status::VARIANTS.iter().map(|name| (*name, *name == status)).collect(),
        sources: sources(app, &inputs.get("traffic_source_id").value).await?,
        version: campaign.version,
        changed_at: frame.view.moment(campaign.updated_at),
        spent: spent(app, campaign).await?,
        inputs,
        faults,
        was_changed,
        frame,
    })
}

/// `POST /ui/campaigns/{id}/settings`: where somebody else was quicker, what was typed stays, beside what is stored now.
pub(super) async fn save(
    State(app): State<App>,
    Name(id): Name,
    posted: Posted,
) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let mut patch = json!({
        "name": fields.text("name"),
        "key": fields.text("key"),
        "description": optional(fields, "description"),
        "status": fields.text("status"),
        "fallback_url": optional(fields, "fallback_url"),
        "traffic_source_id": source(fields),
        "payout": payout(fields),
    });
    for (name, currency) in
        [("daily_budget", "daily_budget_currency"), ("total_budget", "total_budget_currency")]
    {
        // a form without these fields leaves budgets as they are
        if fields.pairs().any(|(sent, _)| sent == name) {
            patch[name] = money(fields, name, currency);
        }
    }
    let headers = posted.if_match(fields.version())?;
    let problem = match campaigns::patched(&app, &id, &patch, &headers).await {
        Ok(campaign) => {
            return Ok(Redirect::to(&format!("{}/settings?done=saved", path_of(&campaign))).into_response());
        }
        Err(problem) => problem,
    };
    if !problem.status().is_client_error() || problem.status() == StatusCode::NOT_FOUND {
        return Err(problem.into());
    }
    let campaign = campaigns::find(&app, &id).await?;
    let mut inputs = Inputs::typed(&FIELDS, fields);
    let was_changed = problem.status() == StatusCode::PRECONDITION_FAILED;
    let faults = if was_changed {
        inputs.compare(|name| text_of(name, &campaign.terms, campaign.key.as_str()));
        Vec::new()
    } else {
        inputs.refuse(&problem, field_of)
    };
    // of one that was refused for something else the version stays: nobody has seen what changed meanwhile
    let seen = fields.text("version").parse().ok().filter(|_| !was_changed);
    let campaign = Campaign { version: seen.unwrap_or(campaign.version), ..campaign };
    let page = shown(&app, &posted.opened, &campaign, inputs, faults, was_changed).await?;
    Ok(refused(page, problem.status()))
}
