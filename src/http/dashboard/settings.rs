//! Forms of campaigns: a new one, and the settings of one that there is. What they send is read as the API reads it, so that a form
//! and a program are told the same.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use chrono::Utc;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    campaign::{Head, Tab, path_of},
    campaigns::notice,
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    session::{Posted, Viewer},
    view::View,
};
use crate::{
    app::App,
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
    },
};

const NEW: &str = "/ui/campaigns/new";

/// Traffic sources to choose from.
const SOURCES_MAX: i64 = 500;

/// A field of a form: what stands in it, what is wrong with it, and what is stored where somebody else changed it meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Input {
    value: String,
    fault: Option<String>,
    stored: Option<String>,
}

/// The fields of a form, by name.
#[derive(Debug, Clone, Default)]
struct Inputs(BTreeMap<&'static str, Input>);

impl Inputs {
    /// As they were typed.
    fn typed(names: &[&'static str], fields: &Fields) -> Self {
        let input =
            |name: &&'static str| (*name, Input { value: fields.text(name).to_owned(), ..Input::default() });
        Self(names.iter().map(input).collect())
    }

    /// As they are stored.
    fn stored(names: &[&'static str], terms: &Terms, key: &str) -> Self {
        let input =
            |name: &&'static str| (*name, Input { value: text_of(name, terms, key), ..Input::default() });
        Self(names.iter().map(input).collect())
    }

    /// What a template asks for.
    fn get(&self, name: &str) -> Input {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// What is wrong, each beside its field; what is of no field of the form comes back.
    fn refuse(&mut self, problem: &Problem) -> Vec<String> {
        let mut others = Vec::new();
        for error in problem.errors() {
            let fault = format!("It {}.", error.detail.trim_end_matches('.'));
            match field_of(&error.pointer).and_then(|name| self.0.get_mut(name)) {
                Some(input) => input.fault = Some(fault),
                None => others.push(format!("{}: {}", error.pointer, error.detail)),
            }
        }
        if problem.errors().is_empty() {
            others.push(problem.detail().to_owned());
        }
        others
    }

    /// Beside each field that is not as it is stored: what is stored.
    fn compare(&mut self, terms: &Terms, key: &str) {
        for (name, input) in &mut self.0 {
            let stored = text_of(name, terms, key);
            input.stored = (stored != input.value).then_some(stored);
        }
    }
}

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
        "payout" => {
            terms.payout.map(|payout| crate::model::money::amount_text(payout.amount)).unwrap_or_default()
        }
        "payout_currency" => terms.payout.map(|payout| payout.currency.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// An optional text: null clears it.
fn optional(fields: &Fields, name: &str) -> Value {
    match fields.text(name) {
        "" => Value::Null,
        text => text.into(),
    }
}

fn payout(fields: &Fields) -> Value {
    match fields.text("payout") {
        "" => Value::Null,
        amount => json!({ "amount": amount, "currency": fields.text("payout_currency").to_uppercase() }),
    }
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
pub(super) async fn new_page(
    viewer: Viewer,
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    if !viewer.may_change() {
        return Err(Problem::forbidden("A token of scope read makes no campaigns.").into());
    }
    let fields = Fields::parse(query.as_deref().unwrap_or_default());
    let mut inputs = Inputs::typed(&NEW_FIELDS, &Fields::default());
    if let Some(currency) = inputs.0.get_mut("payout_currency") {
        currency.value = app.config.dashboard.currency.to_string();
    }
    shown_new(&app, &viewer, &fields, inputs, Vec::new(), new_uuid()).await
}

async fn shown_new(
    app: &App,
    viewer: &Viewer,
    fields: &Fields,
    inputs: Inputs,
    faults: Vec<String>,
    attempt: Uuid,
) -> Result<Response, Failure> {
    let view = View::of(NEW, fields, &app.config.dashboard, Utc::now());
    let frame = Frame::new("New campaign", Section::Campaigns, viewer, view, fields, &[]);
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
    let fields = &posted.fields;
    let attempt = Uuid::try_parse(fields.text("attempt")).ok().filter(|id| id.get_version_num() == 7);
    let attempt = attempt.unwrap_or_else(new_uuid);
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
        if let Some(input) = inputs.0.get_mut("offer_url") {
            input.fault = Some("Say where clicks lead: to an offer, or to a landing page.".to_owned());
        }
        let page = shown_new(&app, &posted.viewer, fields, inputs, Vec::new(), attempt).await?;
        return Ok(refused(page, StatusCode::UNPROCESSABLE_ENTITY));
    }
    match campaigns::made(&app, &body.into(), &posted.headers, attempt, true).await {
        Ok(campaign) => {
            Ok(Redirect::to(&format!("{}/links?done=created", path_of(&campaign))).into_response())
        }
        Err(problem) if problem.status().is_client_error() => {
            let faults = inputs.refuse(&problem);
            let page = shown_new(&app, &posted.viewer, fields, inputs, faults, attempt).await?;
            Ok(refused(page, problem.status()))
        }
        Err(problem) => Err(problem.into()),
    }
}

fn refused(mut response: Response, status: StatusCode) -> Response {
    *response.status_mut() = status;
    response
}

const FIELDS: [&str; 8] = [
    "name",
    "key",
    "description",
    "status",
    "fallback_url",
    "traffic_source_id",
    "payout",
    "payout_currency",
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
}

/// `GET /ui/campaigns/{id}/settings`
pub(super) async fn page(
    viewer: Viewer,
    State(app): State<App>,
    Name(id): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let campaign = campaigns::find(&app, &id).await?;
    let fields = Fields::parse(query.as_deref().unwrap_or_default());
    let mut inputs = Inputs::stored(&FIELDS, &campaign.terms, campaign.key.as_str());
    if let Some(currency) = inputs.0.get_mut("payout_currency").filter(|currency| currency.value.is_empty()) {
        currency.value = app.config.dashboard.currency.to_string();
    }
    shown(&app, &viewer, &fields, &campaign, inputs, Vec::new(), false).await
}

async fn shown(
    app: &App,
    viewer: &Viewer,
    fields: &Fields,
    campaign: &Campaign,
    inputs: Inputs,
    faults: Vec<String>,
    was_changed: bool,
) -> Result<Response, Failure> {
    use strum::VariantNames as _;

    let path = format!("{}/settings", path_of(campaign));
    let view = View::of(&path, fields, &app.config.dashboard, Utc::now());
    let mut frame = Frame::new(&campaign.terms.name, Section::Campaigns, viewer, view, fields, &[]);
    frame.notice = notice(fields);
    let status = inputs.get("status").value;
    html(&SettingsPage {
        head: Head::of(campaign, Tab::Settings, &frame.view),
        statuses: Status::VARIANTS.iter().map(|name| (*name, *name == status)).collect(),
        sources: sources(app, &inputs.get("traffic_source_id").value).await?,
        version: campaign.version,
        changed_at: frame.view.moment(campaign.updated_at),
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
    let fields = &posted.fields;
    let patch = json!({
        "name": fields.text("name"),
        "key": fields.text("key"),
        "description": optional(fields, "description"),
        "status": fields.text("status"),
        "fallback_url": optional(fields, "fallback_url"),
        "traffic_source_id": source(fields),
        "payout": payout(fields),
    });
    let mut headers = HeaderMap::new();
    headers.extend(posted.headers.get(header::HOST).map(|host| (header::HOST, host.clone())));
    let version = fields.text("version").parse::<i64>().unwrap_or_default();
    let version = HeaderValue::try_from(format!("\"{version}\"")).map_err(Problem::internal)?;
    headers.insert(header::IF_MATCH, version);
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
        inputs.compare(&campaign.terms, campaign.key.as_str());
        Vec::new()
    } else {
        inputs.refuse(&problem)
    };
    // of one that was refused for something else the version stays: nobody has seen what changed meanwhile
    let seen = fields.text("version").parse().ok().filter(|_| !was_changed);
    let campaign = Campaign { version: seen.unwrap_or(campaign.version), ..campaign };
    let page = shown(&app, &posted.viewer, fields, &campaign, inputs, faults, was_changed).await?;
    Ok(refused(page, problem.status()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::FieldError;

    #[test]
    fn a_fault_stands_beside_its_field_and_any_other_above_the_form() {
        let mut inputs = Inputs::typed(&FIELDS, &Fields::parse("name=+&payout=x"));
        let problem = Problem::unprocessable(vec![
            FieldError::new("/name", "required", "is required"),
            FieldError::new("/payout/amount", "range", "must be a number"),
            FieldError::new("/caps/0", "range", "is odd"),
        ]);
        assert_eq!(inputs.refuse(&problem), ["/caps/0: is odd"]);
        assert_eq!(inputs.get("name").fault.as_deref(), Some("It is required."));
        assert_eq!((inputs.get("payout").value.as_str(), inputs.get("payout").fault.is_some()), ("x", true));
        assert_eq!(inputs.refuse(&Problem::conflict("No.")), ["No."]);
    }

    #[test]
    fn what_somebody_else_stored_meanwhile_stands_beside_what_was_typed() {
        let terms = Terms { name: "theirs".to_owned(), ..Terms::default() };
        let mut inputs = Inputs::typed(&FIELDS, &Fields::parse("name=mine&key=k&status=active"));
        inputs.compare(&terms, "k");
        assert_eq!(inputs.get("name").stored.as_deref(), Some("theirs"));
        assert_eq!((inputs.get("key").stored, inputs.get("status").stored), (None, None));
    }
}
