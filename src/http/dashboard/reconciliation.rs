//! The report of a network beside what is stored. Nothing of it is kept and nothing is changed, so whoever may look may ask.

use askama::Template;
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use url::form_urlencoded::Serializer;

use super::{
    failure::Failure,
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    session::{self, Opened, Posted},
    view::View,
};
use crate::{
    app::App,
    db::store::{affiliate_networks, library::Filter},
    http::api::{
        reconciliations,
        views::reconciliation::{Entry, Reconciliation},
    },
    model::conversion::ReportDate,
    money::reconcile::Finding,
};

const PATH: &str = "/ui/reconciliation";

const FIELDS: [&str; 7] = ["network", "begins", "ends", "zone", "unit", "date", "report"];

/// Networks to choose from.
const NETWORKS_MAX: i64 = 500;

/// Differences that a page shows.
const ROWS: usize = 150;

/// The field of the form that a fault of the API is about.
fn field_of(pointer: &str) -> Option<&'static str> {
    Some(match pointer {
        "?network" => "network",
        "?from" => "begins",
        "?to" => "ends",
        "?tz" => "zone",
        "?currency" => "unit",
        "?date" => "date",
        "" => "report",
        _ => return None,
    })
}

/// What the API would be asked.
fn query_of(fields: &Fields) -> String {
    let mut query = Serializer::new(String::new());
    for (field, name) in [
        ("network", "network"),
        ("begins", "from"),
        ("ends", "to"),
        ("zone", "tz"),
        ("unit", "currency"),
        ("date", "date"),
    ] {
        query.append_pair(name, fields.text(field));
    }
    query.finish()
}

/// An outcome in words.
fn outcome_name(outcome: Finding) -> &'static str {
    match outcome {
        Finding::Matched => "Matched",
        Finding::MissingHere => "Missing here",
        Finding::MissingThere => "Missing there",
        Finding::OtherStatus => "Other status",
        Finding::OtherCurrency => "Other currency",
        Finding::OtherAmount => "Other amount",
        Finding::OtherDay => "Other day",
        Finding::Doubled => "Doubled",
        Finding::Unreadable => "Unreadable",
    }
}

/// How many have an outcome, and how much of a currency.
struct Total {
    outcome: &'static str,
    count: String,
    currency: String,
    theirs: String,
    ours: String,
    difference: String,
}

/// A line that is not as its conversion, or one of them alone.
struct Row {
    outcome: &'static str,
    line: String,
    click: Option<(String, String)>,
    transaction: String,
    theirs: String,
    ours: String,
    hop: String,
    reason: String,
    detail: String,
}

/// What comes of a report.
struct Found {
    lines: usize,
    conversions: usize,
    unsaid: Vec<String>,
    totals: Vec<Total>,
    rows: Vec<Row>,
    differences: usize,
}

#[derive(Template)]
#[template(path = "reconciliation.html")]
struct ReconciliationPage {
    frame: Frame,
    inputs: Inputs,
    faults: Vec<String>,
    networks: Vec<(String, String, bool)>,
    dates: Vec<(&'static str, &'static str, bool)>,
    found: Option<Found>,
}

/// `GET /ui/reconciliation`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let view = Frame::of(&app, &opened, Section::Costs, PATH, &[]).view;
    let mut inputs = Inputs::typed(&FIELDS, &Fields::default());
    inputs.fill("begins", &view.first.to_string());
    inputs.fill("ends", &view.last.succ_opt().unwrap_or(view.last).to_string());
    inputs.fill("zone", view.tz.name());
    shown(&app, &opened, inputs, Vec::new(), None).await
}

async fn shown(
    app: &App,
    opened: &Opened,
    inputs: Inputs,
    faults: Vec<String>,
    found: Option<&Reconciliation>,
) -> Result<Response, Failure> {
    let frame = Frame::of(app, opened, Section::Costs, PATH, &[]).titled("Reconciliation");
    let networks = affiliate_networks::list(&app.db, Filter::default(), None, NETWORKS_MAX).await?;
    let (network, date) = (inputs.get("network").value, inputs.get("date").value);
    let dates = [(ReportDate::Conversion, "the conversion"), (ReportDate::Click, "the click")];
    html(&ReconciliationPage {
        networks: networks
            .into_iter()
            .map(|it| (it.id.to_string(), it.terms.name, it.id.to_string() == network))
            .collect(),
        dates: dates.map(|(value, name)| (<&str>::from(value), name, <&str>::from(value) == date)).into(),
        found: found.map(|found| told(found, &frame.view)),
        inputs,
        faults,
        frame,
    })
}

fn told(found: &Reconciliation, view: &View) -> Found {
    let unsaid =
        [(found.unsaid.status, "status"), (found.unsaid.amount, "amount"), (found.unsaid.day, "day")];
    let mut totals = Vec::new();
    for total in &found.totals {
        let head = Total {
            outcome: outcome_name(total.outcome),
            count: total.count.to_string(),
            currency: String::new(),
            theirs: String::new(),
            ours: String::new(),
            difference: String::new(),
        };
        if total.amounts.is_empty() {
            totals.push(head);
            continue;
        }
        totals.extend(total.amounts.iter().enumerate().map(|(i, sums)| Total {
            outcome: head.outcome,
            count: if i == 0 { head.count.clone() } else { String::new() },
            currency: sums.currency.clone(),
            theirs: sums.theirs.clone(),
            ours: sums.ours.clone(),
            difference: sums.difference.clone(),
        }));
    }
    Found {
        lines: found.lines,
        conversions: found.conversions,
        unsaid: unsaid
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} lines say no {what}, which is not compared."))
            .collect(),
        totals,
        rows: found.data.iter().take(ROWS).map(|entry| row(entry, view)).collect(),
        differences: found.data.len(),
    }
}

fn row(entry: &Entry, view: &View) -> Row {
    let theirs = entry.theirs.as_ref().map(|theirs| {
        let status = theirs.status.map(|status| status.to_string()).or_else(|| theirs.status_text.clone());
        let day = theirs.day.map(|day| day.to_string());
        said([status, theirs.amount.clone(), theirs.currency.clone(), day])
    });
    let ours = entry.ours.as_ref().map(|ours| {
        let known =
            [ours.status.to_string(), ours.amount.clone(), ours.currency.clone(), ours.day.to_string()];
        said(known.map(Some))
    });
    let link = |id: uuid::Uuid| (view.link(&format!("/ui/clicks/{id}")), id.to_string());
    Row {
        outcome: outcome_name(entry.outcome),
        line: entry.line.map(|line| line.to_string()).unwrap_or_default(),
        click: entry.click_id.map(link),
        transaction: entry.transaction_id.clone().unwrap_or_default(),
        theirs: theirs.unwrap_or_default(),
        ours: ours.unwrap_or_default(),
        hop: entry.hop.map(|hop| hop.to_string().replace('_', " ")).unwrap_or_default(),
        reason: entry.reason.map(|reason| reason.to_string().replace('_', " ")).unwrap_or_default(),
        detail: entry.detail.clone(),
    }
}

/// What is said, in a row.
fn said(parts: [Option<String>; 4]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// `POST /ui/reconciliation`: a question, too long for an address.
pub(super) async fn compare(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    let Posted { opened, .. } = session::signed(request, &app).await?;
    let fields = &opened.fields;
    let mut inputs = Inputs::typed(&FIELDS, fields);
    let report = fields.text("report").to_owned();
    let problem = match reconciliations::compared(&app, Some(&query_of(fields)), report).await {
        Ok(found) => return shown(&app, &opened, inputs, Vec::new(), Some(&found)).await,
        Err(problem) => problem,
    };
    if !problem.status().is_client_error() {
        return Err(problem.into());
    }
    let status = match problem.status() {
        StatusCode::BAD_REQUEST => StatusCode::UNPROCESSABLE_ENTITY,
        status => status,
    };
    let faults = inputs.refuse(&problem, field_of);
    let mut page = shown(&app, &opened, inputs, faults, None).await?;
    *page.status_mut() = status;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_asks_what_the_api_is_asked() {
        let fields = Fields::parse("network=3&begins=2026-11-01&ends=2026-12-01&zone=Europe%2FBerlin&x=1");
        assert_eq!(
            query_of(&fields),
            "network=3&from=2026-11-01&to=2026-12-01&tz=Europe%2FBerlin&currency=&date="
        );
        assert_eq!((field_of("?tz"), field_of(""), field_of("?x")), (Some("zone"), Some("report"), None));
    }
}
