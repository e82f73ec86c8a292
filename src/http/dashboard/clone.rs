//! Another campaign like one: the page that says what is copied, and asks for its name and key.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    campaign::{frame_of, path_of},
    failure::Failure,
    form::Fields,
    frame::Frame,
    html,
    inputs::Inputs,
    session::{Opened, Posted},
    settings::refused,
};
use crate::{
    app::App,
    http::{
        api::{
            campaigns::{self, copy},
            manners::request::Name,
        },
        error::Problem,
    },
    model::{campaign::Campaign, id::new_uuid},
};

/// Its place below the pages of the campaign.
const END: &str = "/clone";

const FIELDS: [&str; 2] = ["name", "key"];

#[derive(Template)]
#[template(path = "campaign_clone.html")]
struct ClonePage {
    frame: Frame,
    inputs: Inputs,
    faults: Vec<String>,
    attempt: Uuid,
    of: String,
    back: String,
    action: String,
    rules: usize,
    paths: usize,
    public_url: String,
}

/// The field of the form that a fault of the API is about.
fn field_of(pointer: &str) -> Option<&'static str> {
    FIELDS.into_iter().find(|field| pointer.strip_prefix('/') == Some(*field))
}

/// `GET /ui/campaigns/{id}/clone`
pub(super) async fn page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    if !opened.viewer.may_change() {
        return Err(Problem::forbidden("A token of scope read makes no campaigns.").into());
    }
    let campaign = campaigns::find(&app, &id).await?;
    let mut inputs = Inputs::typed(&FIELDS, &Fields::default());
    inputs.fill("name", &copy::terms_of_copy(&campaign.terms).name);
    shown(&app, &opened, &campaign, inputs, Vec::new(), new_uuid())
}

fn shown(
    app: &App,
    opened: &Opened,
    campaign: &Campaign,
    inputs: Inputs,
    faults: Vec<String>,
    attempt: Uuid,
) -> Result<Response, Failure> {
    let frame = frame_of(app, opened, campaign, END, &[]).titled(format!("Clone {}", campaign.terms.name));
    let path = path_of(campaign);
    html(&ClonePage {
        of: campaign.terms.name.clone(),
        back: frame.view.link(&path),
        action: format!("{path}{END}"),
        rules: campaign.terms.rules.len(),
        paths: campaign.terms.all_paths().count() + usize::from(campaign.terms.paths.is_empty()),
        public_url: app.public_url.clone(),
        inputs,
        faults,
        attempt,
        frame,
    })
}

/// `POST /ui/campaigns/{id}/clone`: sent twice it is made once.
pub(super) async fn make(
    State(app): State<App>,
    Name(id): Name,
    posted: Posted,
) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let attempt = fields.attempt();
    let mut body = Map::new();
    body.insert("name".to_owned(), fields.text("name").into());
    if !fields.text("key").is_empty() {
        body.insert("key".to_owned(), fields.text("key").into());
    }
    let problem = match copy::copied(&app, &id, &Value::from(body), &posted.headers, attempt, true).await {
        Ok(campaign) => {
            return Ok(Redirect::to(&format!("{}/settings?done=cloned", path_of(&campaign))).into_response());
        }
        Err(problem) => problem,
    };
    if !problem.status().is_client_error() || problem.status() == http::StatusCode::NOT_FOUND {
        return Err(problem.into());
    }
    let campaign = campaigns::find(&app, &id).await?;
    let mut inputs = Inputs::typed(&FIELDS, fields);
    let faults = inputs.refuse(&problem, field_of);
    Ok(refused(shown(&app, &posted.opened, &campaign, inputs, faults, attempt)?, problem.status()))
}
