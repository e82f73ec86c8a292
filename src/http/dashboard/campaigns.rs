//! The table that people live in: every campaign with its figures of the range.

use std::{
    cmp::{Ordering, Reverse},
    collections::HashMap,
    sync::Arc,
};

use askama::Template;
use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use rust_decimal::Decimal;
use serde_json::json;
use strum::VariantNames as _;
use uuid::Uuid;

use super::{
    failure::Failure,
    figures::{self, Figure},
    form::Fields,
    frame::{Frame, Section},
    html,
    query::Query,
    report,
    session::{Opened, Posted},
    table::Column,
    view::View,
};
use crate::{
    app::App,
    http::{
        api::{campaigns, reports},
        error::Problem,
    },
    model::{campaign::Status, id::new_uuid},
    reports::{
        figures::Sums,
        question::{Measure, Validity},
    },
    routing::Routes,
};

const PATH: &str = "/ui/campaigns";

/// What this page is asked beside what all are.
const OWN: [&str; 4] = ["q", "status", "sort", "page"];

/// Campaigns of a page.
const PAGE: usize = 100;

/// Campaigns that are paused or resumed at once.
const SWITCHED_MAX: usize = PAGE;

const MEASURES: [Measure; 10] = [
    Measure::Clicks,
    Measure::UniqueClicks,
    Measure::LpCtr,
    Measure::Conversions,
    Measure::Cr,
    Measure::Revenue,
    Measure::Cost,
    Measure::Profit,
    Measure::Roi,
    Measure::Epc,
];

/// What rows are sorted by beside measures.
const NAME: &str = "name";

struct Row {
    id: Uuid,
    name: String,
    key: String,
    status: Status,
    address: String,
    figures: Vec<Figure>,
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage {
    frame: Frame,
    columns: Vec<Column>,
    rows: Vec<Row>,
    totals: Vec<Figure>,
    count: usize,
    has_any: bool,
    statuses: Vec<(&'static str, bool)>,
    q: String,
    kept: Vec<(String, String)>,
    earlier: Option<String>,
    later: Option<String>,
    place: String,
    notes: Vec<String>,
}

/// `GET /ui/campaigns`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let mut frame = Frame::of(&app, &opened, Section::Campaigns, PATH, &OWN).titled("Campaigns");
    frame.notice = notice(fields);
    let (sums, notes) = sums(&app, &frame.view).await?;
    let all = app.campaigns.list();
    let has_any = !all.is_empty();
    let (q, status) = (fields.text("q").to_lowercase(), fields.text("status").parse::<Status>().ok());
    let is_asked = |routes: &Arc<Routes>| {
        let campaign = &routes.campaign;
        let has = |text: &str| text.to_lowercase().contains(&q);
        status.is_none_or(|status| status == campaign.terms.status)
            && (q.is_empty()
                || has(&campaign.terms.name)
                || has(campaign.key.as_str())
                || campaign.id.to_string() == q)
    };
    let mut listed: Vec<(Arc<Routes>, Sums)> = all
        .into_iter()
        .filter(is_asked)
        .map(|routes| {
            let sums = sums.get(&routes.campaign.id).copied().unwrap_or_default();
            (routes, sums)
        })
        .collect();
    listed.sort_by_key(|(routes, _)| Reverse(routes.campaign.id));
    listed.truncate(app.config.dashboard.campaigns_max);
    let order = order_of(fields);
    listed.sort_by(|a, b| compare(&order, a, b));
    let total = listed.iter().fold(Sums::default(), |mut total, (_, sums)| {
        total.add(sums);
        total
    });
    let count = listed.len();
    let page = fields.text("page").parse::<usize>().unwrap_or(1).clamp(1, count.div_ceil(PAGE).max(1));
    let first = (page - 1) * PAGE;
    let rows: Vec<Row> = listed.iter().skip(first).take(PAGE).map(|row| shown(row, &frame.view)).collect();
    let other = |page: usize| frame.query.with("page", &page.to_string()).to_string();
    html(&CampaignsPage {
        columns: columns(&frame, &order),
        place: format!(
            "{}\u{2013}{} of {}",
            first + usize::from(count > 0),
            first + rows.len(),
            figures::grouped(count.into(), 0)
        ),
        totals: MEASURES.iter().map(|measure| figures::figure_of(&total, *measure)).collect(),
        count,
        has_any,
        statuses: Status::VARIANTS.iter().map(|name| (*name, *name == fields.text("status"))).collect(),
        q: fields.text("q").to_owned(),
        kept: frame.query.hidden(&["q", "status", "page"]),
        earlier: (page > 1).then(|| other(page - 1)),
        later: (first + PAGE < count).then(|| other(page + 1)),
        rows,
        notes,
        frame,
    })
}

/// The sums of each campaign in the range.
async fn sums(app: &App, view: &View) -> Result<(HashMap<Uuid, Sums>, Vec<String>), Problem> {
    let mut question = view.question();
    question["group_by"] = json!(["campaign"]);
    question["measures"] = MEASURES.iter().map(|measure| <&str>::from(*measure)).collect();
    let found = reports::found(app, &question).await?;
    let of = |row: crate::reports::figures::Row| Some((row.key.first()?.as_deref()?.parse().ok()?, row.sums));
    Ok((found.sorted().into_iter().filter_map(of).collect(), report::notes(&found.notes_of_figures())))
}

fn columns(frame: &Frame, order: &str) -> Vec<Column> {
    let currency = frame.view.currency;
    let column = |measure: &Measure| {
        let name = figures::heading(*measure, currency);
        Column::new(name, (*measure).into(), order, &frame.query, false)
    };
    let name = Column::new("Campaign", NAME, order, &frame.query, true);
    std::iter::once(name).chain(MEASURES.iter().map(column)).collect()
}

/// How rows are sorted; the most clicks first where nothing is said.
fn order_of(fields: &Fields) -> String {
    let text = fields.text("sort");
    let name = text.strip_prefix('-').unwrap_or(text);
    let is_column = name == NAME || MEASURES.iter().any(|measure| <&str>::from(*measure) == name);
    if is_column { text.to_owned() } else { "-clicks".to_owned() }
}

/// The order of two rows; equal ones stay as they are, the newest first.
fn compare(order: &str, a: &(Arc<Routes>, Sums), b: &(Arc<Routes>, Sums)) -> Ordering {
    let (is_descending, name) = order.strip_prefix('-').map_or((false, order), |name| (true, name));
    let directed = |ordering: Ordering| if is_descending { ordering.reverse() } else { ordering };
    let Ok(measure) = name.parse::<Measure>() else {
        let name = |row: &(Arc<Routes>, Sums)| row.0.campaign.terms.name.to_lowercase();
        return directed(name(a).cmp(&name(b)));
    };
    let value = |row: &(Arc<Routes>, Sums)| -> Option<Decimal> { row.1.measure(measure, Validity::Valid) };
    match (value(a), value(b)) {
        (Some(a), Some(b)) => directed(a.cmp(&b)),
        // nothing to divide by comes last, whatever the direction
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn shown((routes, sums): &(Arc<Routes>, Sums), view: &View) -> Row {
    let campaign = &routes.campaign;
    Row {
        id: campaign.id,
        name: campaign.terms.name.clone(),
        key: campaign.key.to_string(),
        status: campaign.terms.status,
        address: view.link(&format!("{PATH}/{}", campaign.id)),
        figures: MEASURES.iter().map(|measure| figures::figure_of(sums, *measure)).collect(),
    }
}

/// `POST /ui/campaigns`: pauses, resumes or clones those that are marked; what cannot be is left as it is, and said.
pub(super) async fn switch(State(app): State<App>, posted: Posted) -> Result<Response, Failure> {
    let fields = &posted.opened.fields;
    let (status, done) = match fields.text("action") {
        "pause" => (Some(Status::Paused), "paused"),
        "resume" => (Some(Status::Active), "resumed"),
        "clone" => (None, "cloned"),
        _ => {
            let detail = "Choose what is to be done: pause, resume or clone.";
            return Err(Problem::bad_request("action", detail).into());
        }
    };
    let (mut switched, mut left) = (0_u32, 0_u32);
    for id in fields.all("id").take(SWITCHED_MAX) {
        let changed = match status {
            Some(status) => campaigns::switched_to(&app, id, status, &HeaderMap::new()).await,
            None => campaigns::copy::copied(&app, id, &json!({}), &posted.headers, new_uuid(), false).await,
        };
        match changed {
            Ok(_) => switched += 1,
            Err(problem) if problem.status().is_client_error() => left += 1,
            Err(problem) => return Err(problem.into()),
        }
    }
    let back = Fields::parse(fields.text("back"));
    let back = Query::new(back_to(fields.text("page_of")))
        .keeping(&back, &[&OWN[..], &super::view::COMMON[..]].concat());
    let back = back.with("done", &format!("{done}.{switched}.{left}"));
    Ok(Redirect::to(&back.to_string()).into_response())
}

/// The page that the form was on: this one, or that of the one campaign.
fn back_to(id: &str) -> String {
    match id.parse::<Uuid>() {
        Ok(id) => format!("{PATH}/{id}"),
        Err(_) => PATH.to_owned(),
    }
}

/// What was just done, in a sentence.
pub(super) fn notice(fields: &Fields) -> Option<String> {
    let text = fields.text("done");
    if text == "created" {
        return Some("The campaign is made. Its link works now.".to_owned());
    }
    if text == "cloned" {
        return Some(
            "The copy is made. It is a draft, which takes no clicks until its status is active.".to_owned(),
        );
    }
    if text == "saved" {
        return Some("The changes are saved.".to_owned());
    }
    let mut parts = text.split('.');
    let (what, switched, left) =
        (parts.next()?, parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    let what = ["paused", "resumed", "cloned"].into_iter().find(|known| *known == what)?;
    let campaigns =
        |count: u32| if count == 1 { "1 campaign".to_owned() } else { format!("{count} campaigns") };
    Some(match (switched, left) {
        (0, 0) => "Nothing was marked, so nothing was changed.".to_owned(),
        (_, 0) if what == "cloned" => format!("{} cloned; the copies are drafts.", campaigns(switched)),
        (_, 0) => format!("{} {what}.", campaigns(switched)),
        (_, left) if what == "cloned" => format!("{} cloned; {left} could not be.", campaigns(switched)),
        (_, left) => format!(
            "{} {what}. Left as they are: {left}; only active and paused campaigns can be paused and resumed.",
            campaigns(switched)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_our_words_only() {
        let notice = |text: &str| notice(&Fields::parse(&format!("done={text}")));
        assert_eq!(notice("paused.1.0").as_deref(), Some("1 campaign paused."));
        assert_eq!(notice("resumed.3.0").as_deref(), Some("3 campaigns resumed."));
        assert_eq!(notice("cloned.2.0").as_deref(), Some("2 campaigns cloned; the copies are drafts."));
        assert!(notice("paused.0.0").unwrap().starts_with("Nothing was marked"));
        assert!(notice("paused.2.1").unwrap().contains("Left as they are: 1;"));
        for text in ["", "hacked.1.0", "paused", "paused.x.0"] {
            assert_eq!(notice(text), None, "{text}");
        }
    }

    #[test]
    fn a_form_leads_back_to_a_page_of_campaigns() {
        assert_eq!(back_to("https://evil.example"), PATH);
        let id = Uuid::nil().to_string();
        assert_eq!(back_to(&id), format!("{PATH}/{id}"));
        assert_eq!(order_of(&Fields::parse("sort=-name")), "-name");
        assert_eq!(order_of(&Fields::parse("sort=evil")), "-clicks");
    }
}
