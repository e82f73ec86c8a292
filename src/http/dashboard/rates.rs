//! What currencies are worth: the rates that there are, and the owner's own.

use askama::Template;
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{Days, Utc};
use serde_json::{Map, Value, json};

use super::{
    access::tabs,
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    session::{Opened, Posted},
    settings::refused,
};
use crate::{
    app::App,
    db::store::fx_rates::{self, Filter, StoredRate},
    http::api::fx_rates::{cursor, parse_cursor, stored},
    model::money::Currency,
    money::rates::RateSource,
};

const PATH: &str = "/ui/settings/rates";

/// Rates of a page.
const ROWS: usize = 50;

const FIELDS: [&str; 4] = ["currency_of", "day", "rate", "base"];

fn field_of(pointer: &str) -> Option<&'static str> {
    Some(match pointer {
        "/rates/0/currency" => "currency_of",
        "/rates/0/day" => "day",
        "/rates/0/rate" => "rate",
        "/rates/0/base" => "base",
        _ => return None,
    })
}

struct RateRow {
    day: String,
    currency: String,
    rate: String,
    source: &'static str,
}

#[derive(Template)]
#[template(path = "rates.html")]
struct RatesPage {
    frame: Frame,
    tabs: Vec<(String, &'static str, bool)>,
    /// The currency that is asked for.
    of: String,
    kept: Vec<(String, String)>,
    rows: Vec<RateRow>,
    older: Option<String>,
    newest: Option<String>,
    is_old: bool,
    age_days_max: u16,
    inputs: Inputs,
    faults: Vec<String>,
}

/// `GET /ui/settings/rates`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let today = Utc::now().date_naive().to_string();
    let inputs = Inputs::of(&FIELDS, |name| match name {
        "day" => today.clone(),
        "base" => Currency::EUR.to_string(),
        _ => String::new(),
    });
    shown(&app, &opened, inputs, Vec::new()).await
}

async fn shown(app: &App, opened: &Opened, inputs: Inputs, faults: Vec<String>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let mut frame = Frame::of(app, opened, Section::Settings, PATH, &["of", "cursor"]).titled("Rates");
    frame.notice = notice(fields);
    let currency = fields.text("of").to_uppercase().parse::<Currency>().ok();
    let filter = Filter { currency, ..Filter::default() };
    let after = parse_cursor(fields.text("cursor"));
    let wanted = i64::try_from(ROWS + 1).unwrap_or(i64::MAX);
    let mut rates = fx_rates::list(&app.db, filter, after, wanted).await?;
    let has_more = rates.len() > ROWS;
    rates.truncate(ROWS);
    let older = rates.last().filter(|_| has_more);
    let older = older.map(|stored| frame.query.with("cursor", &cursor(&stored.rate)).to_string());
    let newest = fx_rates::newest(&app.db).await?;
    let age_days_max = app.config.money.rate_age_days_max;
    let oldest_good = Utc::now().date_naive() - Days::new(age_days_max.into());
    html(&RatesPage {
        tabs: tabs(&frame.view, PATH),
        of: currency.map(|currency| currency.to_string()).unwrap_or_default(),
        kept: frame.query.hidden(&["of", "cursor"]),
        rows: rates.iter().map(row).collect(),
        older,
        is_old: newest.is_none_or(|day| day < oldest_good),
        newest: newest.map(|day| day.to_string()),
        age_days_max,
        inputs,
        faults,
        frame,
    })
}

fn row(stored: &StoredRate) -> RateRow {
    RateRow {
        day: stored.rate.day.to_string(),
        currency: stored.rate.currency.to_string(),
        rate: stored.rate.rate.to_string(),
        source: match stored.rate.source {
            RateSource::Ecb => "European Central Bank",
            RateSource::Manual => "yours",
        },
    }
}

/// `POST /ui/settings/rates`: a rate of the owner's own.
pub(super) async fn save(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let mut rate = Map::new();
    for (field, name) in [("currency_of", "currency"), ("day", "day"), ("rate", "rate"), ("base", "base")] {
        if !fields.text(field).is_empty() {
            rate.insert(name.to_owned(), fields.text(field).into());
        }
    }
    let body: Value = json!({ "rates": [rate] });
    match stored(&app, &body, posted.opened.viewer.session().token.id).await {
        Ok(put) => {
            let done = match (put.new, put.unchanged) {
                (0, 0) => "restated",
                (0, _) => "unchanged",
                _ => "stored",
            };
            Ok(Redirect::to(&format!("{PATH}?done={done}")).into_response())
        }
        Err(problem) if problem.status().is_client_error() => {
            let mut inputs = Inputs::typed(&FIELDS, fields);
            let faults = inputs.refuse(&problem, field_of);
            let page = shown(&app, &posted.opened, inputs, faults).await?;
            Ok(refused(page, StatusCode::UNPROCESSABLE_ENTITY))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// What was just done, in a sentence.
fn notice(fields: &Fields) -> Option<String> {
    let text = match fields.text("done") {
        "stored" => "The rate is stored. Reports use it at once.",
        "restated" => "The rate is changed; what it was before is kept. Reports use it at once.",
        "unchanged" => "The rate was so already.",
        _ => return None,
    };
    Some(text.to_owned())
}
