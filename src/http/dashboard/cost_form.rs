//! A cost that is entered later. What the form sends is read as the API reads it, so that both say the same faults.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};
use strum::VariantNames as _;
use uuid::Uuid;

use super::{
    costs::{self as list, Sum, kind_name, spread_name},
    failure::Failure,
    figures::dimension_name,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    session::{Opened, Posted},
};
use crate::{
    app::App,
    http::{
        api::costs::{self, CostBody},
        error::Problem,
    },
    model::{
        cost::{Dimension, Kind, Spread, Terms},
        id::new_uuid,
    },
};

const PATH: &str = "/ui/costs/new";

const FIELDS: [&str; 24] = [
    "campaign",
    "begins",
    "ends",
    "zone",
    "kind",
    "amount",
    "unit",
    "spread",
    "note",
    "account",
    "external_id",
    "day",
    "d1",
    "v1",
    "d2",
    "v2",
    "d3",
    "v3",
    "d4",
    "v4",
    "d5",
    "v5",
    "d6",
    "v6",
];

/// A dimension of a filter and its values.
const ROWS: [(&str, &str); 6] =
    [("d1", "v1"), ("d2", "v2"), ("d3", "v3"), ("d4", "v4"), ("d5", "v5"), ("d6", "v6")];

/// Rows of filters that are shown where fewer are filled.
const ROWS_SHOWN: usize = 3;

/// What stands between two values of a filter, as in files.
const BETWEEN: char = '|';

/// The field of the form that a fault of the API is about.
fn field_of(fields: &Fields, pointer: &str) -> Option<&'static str> {
    if let Some(dimension) = pointer.strip_prefix("/filters/") {
        return ROWS.iter().find(|(d, _)| fields.text(d) == dimension).map(|(_, v)| *v);
    }
    Some(match pointer {
        "/campaign" => "campaign",
        "/from" => "begins",
        "/to" => "ends",
        "/time_zone" => "zone",
        "/kind" => "kind",
        "/amount" => "amount",
        "/currency" => "unit",
        "/spread" => "spread",
        "/note" => "note",
        "/filters" => "v1",
        "/running_total" | "/running_total/account" => "account",
        "/running_total/external_id" => "external_id",
        "/running_total/day" => "day",
        _ => return None,
    })
}

/// What the API would be sent.
fn body_of(fields: &Fields) -> Value {
    let mut body = Map::new();
    for (field, name) in [
        ("campaign", "campaign"),
        ("begins", "from"),
        ("ends", "to"),
        ("zone", "time_zone"),
        ("kind", "kind"),
        ("amount", "amount"),
        ("unit", "currency"),
        ("spread", "spread"),
        ("note", "note"),
    ] {
        if !fields.text(field).is_empty() {
            body.insert(name.to_owned(), fields.text(field).into());
        }
    }
    let mut filters = Map::new();
    for (dimension, values) in ROWS {
        if !fields.text(dimension).is_empty() {
            let values = fields.text(values).split(BETWEEN).map(str::trim).filter(|value| !value.is_empty());
            filters.insert(fields.text(dimension).to_owned(), values.collect());
        }
    }
    if !filters.is_empty() {
        body.insert("filters".to_owned(), filters.into());
    }
    let running = ["account", "external_id", "day"].map(|name| (name, fields.text(name)));
    if running.iter().any(|(_, text)| !text.is_empty()) {
        let said = running.iter().filter(|(_, text)| !text.is_empty());
        let said: Map<_, _> = said.map(|(name, text)| ((*name).to_owned(), (*text).into())).collect();
        body.insert("running_total".to_owned(), said.into());
    }
    body.into()
}

/// A moment as the form says it: a day where it is a midnight of the zone.
fn moment(at: DateTime<Utc>, zone: Tz) -> String {
    let local = at.with_timezone(&zone);
    let text = local.format("%Y-%m-%d %H:%M").to_string();
    text.strip_suffix(" 00:00").map_or(text.clone(), str::to_owned)
}

/// What was said once, to be said anew.
fn text_of(name: &str, cost: &CostBody, key: &str) -> String {
    let running = cost.running_total.as_ref();
    match name {
        "campaign" => key.to_owned(),
        "begins" => moment(cost.from, cost.time_zone),
        "ends" => moment(cost.to, cost.time_zone),
        "zone" => cost.time_zone.name().to_owned(),
        "kind" => cost.kind.to_string(),
        "amount" => cost.amount.clone(),
        "unit" => cost.currency.map(String::from).unwrap_or_default(),
        "spread" => cost.spread.to_string(),
        "note" => cost.note.clone().unwrap_or_default(),
        "account" => running.map(|it| it.account.clone()).unwrap_or_default(),
        "external_id" => running.map(|it| it.external_id.clone()).unwrap_or_default(),
        "day" => running.map(|it| it.day.to_string()).unwrap_or_default(),
        _ => {
            let place = ROWS.iter().position(|(d, v)| *d == name || *v == name);
            let Some((dimension, values)) = place.and_then(|place| cost.filters.0.iter().nth(place)) else {
                return String::new();
            };
            if name.starts_with('d') {
                return dimension.to_string();
            }
            values.iter().map(String::as_str).collect::<Vec<_>>().join(&BETWEEN.to_string())
        }
    }
}

/// A value to choose: what is sent, its name, whether it is chosen.
type Choice = (&'static str, &'static str, bool);

/// A row of a filter: the names of its two fields, and the dimensions to choose from.
struct FilterRow {
    number: usize,
    dimension: &'static str,
    values: &'static str,
    dimensions: Vec<Choice>,
}

/// What the clicks cost before it is stored.
struct Preview {
    range: String,
    clicks: i64,
    valid_clicks: i64,
    sums: Vec<Sum>,
}

#[derive(Template)]
#[template(path = "cost_new.html")]
struct NewPage {
    frame: Frame,
    inputs: Inputs,
    faults: Vec<String>,
    kinds: Vec<Choice>,
    spreads: Vec<Choice>,
    rows: Vec<FilterRow>,
    is_running: bool,
    preview: Option<Preview>,
    attempt: Uuid,
    all: String,
}

/// `GET /ui/costs/new`: empty, or like one that was said before.
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    if !opened.viewer.may_change() {
        return Err(Problem::forbidden("A token of scope read enters no costs.").into());
    }
    let fields = &opened.fields;
    let inputs = match fields.text("like") {
        "" => {
            let mut inputs = Inputs::typed(&FIELDS, &Fields::default());
            let view = Frame::of(&app, &opened, Section::Costs, PATH, &[]).view;
            inputs.fill("campaign", fields.text("campaign"));
            inputs.fill("begins", &view.first.to_string());
            inputs.fill("ends", &view.last.succ_opt().unwrap_or(view.last).to_string());
            inputs.fill("zone", view.tz.name());
            inputs.fill("kind", Kind::Total.into());
            inputs.fill("unit", &view.currency.to_string());
            inputs
        }
        id => {
            let cost = costs::find(&app, id).await?;
            let key = list::campaign_key(&app, cost.campaign_id).await?;
            Inputs::of(&FIELDS, |name| text_of(name, &cost, &key))
        }
    };
    shown(&app, &opened, inputs, Vec::new(), None, new_uuid())
}

fn shown(
    app: &App,
    opened: &Opened,
    inputs: Inputs,
    faults: Vec<String>,
    preview: Option<Preview>,
    attempt: Uuid,
) -> Result<Response, Failure> {
    let frame = Frame::of(app, opened, Section::Costs, PATH, &[]).titled("Enter a cost");
    let value = |name: &str| inputs.get(name).value;
    let filled = ROWS.iter().filter(|(d, _)| !value(d).is_empty()).count();
    let filter_row = |(i, (dimension, values)): (usize, &(&'static str, &'static str))| {
        let chosen = value(dimension);
        let choice = |name: &&'static str| {
            let shown = name.parse().map_or(*name, dimension_name);
            (*name, shown, *name == chosen)
        };
        FilterRow {
            number: i + 1,
            dimension,
            values,
            dimensions: Dimension::VARIANTS.iter().map(choice).collect(),
        }
    };
    let kind = |name: &&'static str| (*name, name.parse().map_or(*name, kind_name), *name == value("kind"));
    let spread =
        |name: &&'static str| (*name, name.parse().map_or(*name, spread_name), *name == value("spread"));
    html(&NewPage {
        kinds: Kind::VARIANTS.iter().map(kind).collect(),
        spreads: Spread::VARIANTS.iter().map(spread).collect(),
        rows: ROWS.iter().enumerate().take(filled.max(ROWS_SHOWN)).map(filter_row).collect(),
        is_running: ["account", "external_id", "day"].iter().any(|name| {
            let input = inputs.get(name);
            !input.value.is_empty() || input.fault.is_some()
        }),
        all: frame.view.link(list::PATH),
        inputs,
        faults,
        preview,
        attempt,
        frame,
    })
}

/// What the clicks of the range cost now.
async fn looked_at(app: &App, terms: &Terms) -> Result<Preview, Problem> {
    let range = (terms.begins_at, terms.ends_at);
    let found = costs::figures::of_range(app, terms.campaign_id, range, None).await?;
    let sums = list::sums(found.totals);
    Ok(Preview {
        range: list::range_in_words(terms.begins_at, terms.ends_at, terms.time_zone),
        clicks: sums.iter().map(|sum| sum.clicks).sum(),
        valid_clicks: sums.iter().map(|sum| sum.valid_clicks).sum(),
        sums,
    })
}

/// `POST /ui/costs/new`: looks first where that is asked for; sent twice it is stored once.
pub(super) async fn save(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let attempt = fields.attempt();
    let mut inputs = Inputs::typed(&FIELDS, fields);
    let terms = match costs::read_one(&app, &body_of(fields)).await {
        Ok(terms) => terms,
        Err(problem) if problem.status().is_client_error() => {
            let faults = inputs.refuse(&problem, |pointer| field_of(fields, pointer));
            let mut page = shown(&app, &posted.opened, inputs, faults, None, attempt)?;
            *page.status_mut() = problem.status();
            return Ok(page);
        }
        Err(problem) => return Err(problem.into()),
    };
    if fields.text("action") == "look" {
        let preview = looked_at(&app, &terms).await?;
        return shown(&app, &posted.opened, inputs, Vec::new(), Some(preview), attempt);
    }
    let stored = costs::store_one(&app, attempt, terms, &posted.opened.viewer.session().token).await?;
    let done = if stored.id == attempt { "said" } else { "unchanged" };
    Ok(Redirect::to(&format!("{}/{}?done={done}", list::PATH, stored.id)).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_form_says_what_the_api_takes() {
        let fields = Fields::parse(
            "campaign=sale&begins=2026-11-01&ends=2026-11-02&zone=UTC&kind=total&amount=1%2C50&unit=EUR&d1=sub1&v1=a+%7C+b&d2=&v2=x&d3=country&v3=&day=2026-11-01",
        );
        assert_eq!(
            body_of(&fields),
            json!({
                "campaign": "sale", "from": "2026-11-01", "to": "2026-11-02", "time_zone": "UTC", "kind": "total",
                "amount": "1,50", "currency": "EUR", "filters": {"sub1": ["a", "b"], "country": []},
                "running_total": {"day": "2026-11-01"},
            })
        );
        assert_eq!(field_of(&fields, "/filters/country"), Some("v3"));
        assert_eq!(field_of(&fields, "/from"), Some("begins"));
        assert_eq!(field_of(&fields, "/filters/planet"), None);
    }
}
