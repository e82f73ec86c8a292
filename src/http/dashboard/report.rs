//! Any report: up to three dimensions beside each other, conditions, the measures that one chooses, and the same as CSV.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
};
use chrono::Utc;
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::{
    failure::Failure,
    figures,
    filters::{self, FilterBar, Filters, PARAM},
    form::Fields,
    frame::{Frame, Section},
    heat::{self, Heat},
    html,
    query::Query,
    session::Opened,
    table::{Asked, Table},
    view::{COMMON, View},
};
use crate::{
    app::App,
    http::{
        api::reports::{self, ReportNotes},
        error::Problem,
    },
    reports::question::{Dimension, Measure, TimeKind},
};

const PATH: &str = "/ui/report";

/// What this page is asked beside what all are.
const OWN: [&str; 11] = ["g1", "g2", "g3", "m", "f", "sort", "compare", "cursor", "validity", "time", "heat"];

/// The parameters of the groupings.
pub(super) const GROUPS: [&str; 3] = ["g1", "g2", "g3"];

/// Rows of a page.
pub(super) const ROWS: usize = 100;

/// What is shown where nothing else was chosen.
pub(super) const MEASURES: [Measure; 9] = [
    Measure::Clicks,
    Measure::UniqueClicks,
    Measure::Conversions,
    Measure::Cr,
    Measure::Revenue,
    Measure::Cost,
    Measure::Profit,
    Measure::Roi,
    Measure::Epc,
];

/// A choice of a form: what is sent, what is shown, whether it is chosen.
pub(super) type Choice = (&'static str, &'static str, bool);

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage {
    frame: Frame,
    table: Table,
    filter_bar: FilterBar,
    notes: Vec<String>,
    groups: Vec<(&'static str, String, Vec<Choice>)>,
    measures: Vec<Choice>,
    times: Vec<Choice>,
    heats: Vec<Choice>,
    heat: Option<Heat>,
    is_compared: bool,
    is_of_all: bool,
    csv: String,
    kept: Vec<(String, String)>,
}

/// What is asked.
struct Question {
    groups: Vec<Dimension>,
    measures: Vec<Measure>,
    filters: Filters,
    order: String,
    is_compared: bool,
    is_of_all: bool,
    time: TimeKind,
    heat: Option<Measure>,
    value: Value,
}

impl Question {
    fn of(fields: &Fields, view: &View) -> Self {
        let groups = groups_of(fields, &[Dimension::Campaign]);
        let chosen: Vec<Measure> = fields.all("m").filter_map(|name| name.parse().ok()).collect();
        let mut measures: Vec<Measure> = Vec::new();
        for measure in if chosen.is_empty() { &MEASURES[..] } else { &chosen } {
            if !measures.contains(measure) {
                measures.push(*measure);
            }
        }
        let filters = Filters::of(fields);
        let (is_compared, is_of_all) =
            (fields.text("compare") == "previous", fields.text("validity") == "all");
        let time = fields.text("time").parse().unwrap_or(TimeKind::Click);
        let order = order_of(fields, &groups, &measures);
        let mut value = view.question();
        value["group_by"] = groups.iter().map(|group| <&str>::from(*group)).collect();
        value["measures"] = measures.iter().map(|measure| <&str>::from(*measure)).collect();
        value["filters"] = filters.question();
        value["order"] = json!(order);
        value["limit"] = json!(ROWS);
        value["time"] = json!(time);
        if is_compared {
            value["compare"] = json!("previous");
        }
        if is_of_all {
            value["validity"] = json!("all");
        }
        if !fields.text("cursor").is_empty() {
            value["cursor"] = json!(fields.text("cursor"));
        }
        let heat = fields.text("heat").parse().ok();
        Self { groups, measures, filters, order, is_compared, is_of_all, time, heat, value }
    }
}

/// The dimensions that were chosen, each once; `default`, where none was.
pub(super) fn groups_of(fields: &Fields, default: &[Dimension]) -> Vec<Dimension> {
    let mut groups: Vec<Dimension> = Vec::new();
    for group in GROUPS.iter().filter_map(|name| fields.text(name).parse().ok()) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    if groups.is_empty() { default.to_vec() } else { groups }
}

/// How rows are sorted: as chosen, if that is a column; else the greatest of the first measure first, and time in its order.
pub(super) fn order_of(fields: &Fields, groups: &[Dimension], measures: &[Measure]) -> String {
    let chosen = fields.text("sort");
    let name = chosen.strip_prefix('-').unwrap_or(chosen);
    let is_column = groups.iter().any(|group| <&str>::from(*group) == name)
        || measures.iter().any(|measure| <&str>::from(*measure) == name);
    if is_column {
        return chosen.to_owned();
    }
    match (groups.first(), measures.first()) {
        (Some(group), _) if group.is_time() => group.to_string(),
        (_, Some(measure)) => format!("-{measure}"),
        _ => String::new(),
    }
}

/// `GET /ui/report`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Report, PATH, &OWN).titled("Report");
    if let Some(address) = filters::added(fields, &frame.query) {
        return Ok(Redirect::to(&address).into_response());
    }
    let question = Question::of(fields, &frame.view);
    let report = reports::answered(&app, &question.value).await?;
    let heat = match question.heat {
        Some(measure) => {
            let answer = reports::answered(&app, &heat::question(&question.value, measure)).await?;
            Some(Heat::of(&answer, measure))
        }
        None => None,
    };
    let clicks = Query::new("/ui/clicks").keeping(fields, &COMMON);
    let table = Table::of(
        &report,
        &Asked {
            caption: format!("Figures by {}", listed(&question.groups)),
            query: &frame.query,
            filters: &question.filters,
            groups: &question.groups,
            measures: &question.measures,
            order: &question.order,
            clicks: Some(&clicks),
        },
    );
    let labels = ["Group by", "then by", "then by"];
    let groups = GROUPS.iter().zip(labels).enumerate().map(|(i, (name, label))| {
        (*name, label.to_owned(), dimension_choices(question.groups.get(i).copied()))
    });
    html(&ReportPage {
        filter_bar: FilterBar::of(&app.db, &frame.query, &question.filters).await?,
        notes: notes(&report.notes),
        groups: groups.collect(),
        measures: measure_choices(&question.measures),
        times: TimeKind::VARIANTS
            .iter()
            .map(|time| ((*time).into(), time_name(*time), question.time == *time))
            .collect(),
        heats: measure_choices(question.heat.as_slice()),
        heat,
        is_compared: question.is_compared,
        is_of_all: question.is_of_all,
        csv: frame.query.without("cursor").at("/ui/report.csv").to_string(),
        kept: frame.query.hidden(
            &OWN.iter().copied().filter(|name| *name != PARAM).chain(["tz", "currency"]).collect::<Vec<_>>(),
        ),
        table,
        frame,
    })
}

/// The measures as a list to choose from.
fn measure_choices(chosen: &[Measure]) -> Vec<Choice> {
    let choice = |measure: &Measure| ((*measure).into(), figures::name(*measure), chosen.contains(measure));
    Measure::VARIANTS.iter().map(choice).collect()
}

/// Where conversions stand, in words.
fn time_name(time: TimeKind) -> &'static str {
    match time {
        TimeKind::Click => "when their click was made",
        TimeKind::Conversion => "when they happened",
        TimeKind::Change => "when they changed",
    }
}

fn listed(groups: &[Dimension]) -> String {
    groups.iter().map(|group| figures::dimension_name(*group).to_lowercase()).collect::<Vec<_>>().join(", ")
}

/// The dimensions as a list to choose from.
pub(super) fn dimension_choices(chosen: Option<Dimension>) -> Vec<Choice> {
    let choice = |dimension: &Dimension| {
        ((*dimension).into(), figures::dimension_name(*dimension), chosen == Some(*dimension))
    };
    Dimension::VARIANTS.iter().map(choice).collect()
}

/// `GET /ui/report.csv`: all rows of the same.
pub(super) async fn csv(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let view = View::of(PATH, fields, &app.config.dashboard, Utc::now());
    let mut response = reports::answered_as_csv(&app, &Question::of(fields, &view).value).await?;
    let name = format!("attachment; filename=\"report-{}-{}.csv\"", view.first, view.last);
    let name = HeaderValue::try_from(name).map_err(Problem::internal)?;
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// What is to be known of the figures, a sentence each.
pub(super) fn notes(notes: &ReportNotes) -> Vec<String> {
    let mut sentences = Vec::new();
    if !notes.without_rate.is_empty() {
        let currencies: Vec<&str> = notes.without_rate.iter().map(|of| of.currency.as_str()).collect();
        sentences.push(format!(
            "Amounts in {} are left out: there is no rate for their day.",
            currencies.join(", ")
        ));
    }
    if notes.uncounted_days > 0 {
        sentences.push("Some days are being counted anew; their figures are not complete yet.".to_owned());
    }
    if notes.provisional {
        sentences.push("Costs may still change by clicks that come late.".to_owned());
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_asked_for_and_what_makes_no_sense_is_not() {
        let config = crate::config::Loaded::load(None, [], &crate::config::Flags::default()).unwrap().config;
        let of = |query: &str| {
            let fields = Fields::parse(query);
            Question::of(&fields, &View::of(PATH, &fields, &config.dashboard, Utc::now()))
        };
        let asked =
            of("g1=country&g2=country&g3=day&m=revenue&m=clicks&m=revenue&m=x&sort=-cost&compare=previous");
        assert_eq!(asked.groups, [Dimension::Country, Dimension::Day]);
        assert_eq!(asked.measures, [Measure::Revenue, Measure::Clicks]);
        assert_eq!((asked.order.as_str(), asked.is_compared), ("-revenue", true));
        let asked = of("g1=planet");
        assert_eq!(
            (asked.groups.as_slice(), asked.measures.len()),
            (&[Dimension::Campaign][..], MEASURES.len())
        );
        assert_eq!(of("g1=day").order, "day");
        assert_eq!(of("g1=day&sort=-day").order, "-day");
        assert_eq!((&asked.value["limit"], &asked.value["time"]), (&json!(ROWS), &json!("click")));
        let asked = of("time=change&heat=revenue&cursor=x");
        assert_eq!((&asked.value["time"], asked.heat), (&json!("change"), Some(Measure::Revenue)));
    }
}
