//! The overview: how it goes in the range, where it comes from, and what is wrong now.

use askama::Template;
use axum::{extract::State, response::Response};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{
    chart::{Chart, Series},
    failure::Failure,
    figures::{self, Figure, Headline},
    first_steps::{self, Missing},
    frame::{Frame, Section},
    html,
    session::Opened,
    table::bar,
    view::View,
};
use crate::{
    app::App,
    http::{
        api::reports::{self, Report, ReportRow},
        error::Problem,
        ops::health,
    },
    reports::question::{Dimension, Measure, UNKNOWN},
};

const PATH: &str = "/ui";

/// The row of figures; a click plots one.
const FIGURES: [Measure; 8] = [
    Measure::Clicks,
    Measure::UniqueClicks,
    Measure::Conversions,
    Measure::Cr,
    Measure::Revenue,
    Measure::Cost,
    Measure::Profit,
    Measure::Roi,
];

/// What the small tables show.
const TOPS: [(Dimension, &str); 4] = [
    (Dimension::Campaign, "Top campaigns"),
    (Dimension::Source, "Top sources"),
    (Dimension::Offer, "Top offers"),
    (Dimension::Country, "Top countries"),
];

/// Rows of a small table.
const TOP_ROWS: usize = 8;

/// A figure of the row, and the address that plots it.
struct Plotted {
    headline: Headline,
    plot: String,
    is_plotted: bool,
}

/// A small table.
struct Top {
    title: &'static str,
    name: &'static str,
    all: String,
    rows: Vec<TopRow>,
}

struct TopRow {
    text: String,
    address: String,
    bar: u8,
    clicks: Figure,
    conversions: Figure,
    profit: Figure,
}

/// Something that is wrong now.
struct Trouble {
    name: String,
    detail: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    headlines: Vec<Plotted>,
    chart: Chart,
    tops: Vec<Top>,
    troubles: Vec<Trouble>,
    notes: Vec<String>,
    is_empty: bool,
    has_campaigns: bool,
    /// The first steps, while something of them never came.
    first_steps: Option<String>,
    never_converted: bool,
}

/// `GET /ui`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Overview, PATH, &["plot"]).titled("Overview");
    let view = &frame.view;
    let plotted = fields.text("plot").parse().ok().filter(|measure| FIGURES.contains(measure));
    let plotted = plotted.unwrap_or(Measure::Clicks);
    let (now, before, tops, troubles) = tokio::try_join!(
        by_step(&app, view, view.question()),
        by_step(&app, view, view.question_before()),
        tops(&app, view),
        troubles(&app),
    )?;
    let steps = frame.view.steps();
    let series = Series {
        measure: plotted,
        currency: frame.view.currency,
        steps: &steps,
        step: frame.view.step(),
        tz: frame.view.tz,
        now: values(&now, &frame.view, &steps, plotted),
        before: values_before(&before, &frame.view, steps.len(), plotted),
        is_running: frame.view.is_running(),
    };
    let notes = super::report::notes(&now.notes);
    let is_some = |measure| !figures::value(&now.totals, measure).unwrap_or_default().is_zero();
    let is_complete = is_some(Measure::Clicks) && is_some(Measure::Conversions);
    let missing = if is_complete { None } else { first_steps::missing(&app).await? };
    html(&OverviewPage {
        headlines: FIGURES
            .iter()
            .map(|measure| Plotted {
                headline: Headline::of(*measure, &now.totals, Some(&before.totals), now.currency),
                plot: address_of(&frame, *measure),
                is_plotted: *measure == plotted,
            })
            .collect(),
        chart: Chart::of(&series),
        tops,
        troubles: troubles.into_iter().chain(lost(&now)).collect(),
        notes,
        is_empty: figures::value(&now.totals, Measure::Clicks).unwrap_or_default().is_zero()
            && now.rows.is_empty(),
        has_campaigns: app.campaigns.state().0 > 0,
        first_steps: missing.map(|_| frame.view.link(first_steps::PATH)),
        never_converted: missing == Some(Missing::Conversion),
        frame,
    })
}

/// The figures of each step of a range.
async fn by_step(app: &App, view: &View, mut question: Value) -> Result<Report, Problem> {
    question["group_by"] = json!([<&str>::from(view.step())]);
    question["measures"] = FIGURES.iter().map(|measure| <&str>::from(*measure)).collect();
    question["limit"] = json!(1000);
    reports::answered(app, &question).await
}

/// One value a step, also where nothing happened.
fn values(report: &Report, view: &View, steps: &[String], measure: Measure) -> Vec<Option<Decimal>> {
    let name = <&str>::from(view.step());
    let of = |step: &String| {
        let row = report.rows.iter().find(|row| row.keys.get(name).and_then(Value::as_str) == Some(step));
        row.map_or(Some(Decimal::ZERO), |row| figures::value(&row.figures, measure))
    };
    steps.iter().map(of).collect()
}

/// The values of the range before, of as many steps; none, where nothing happened in it.
fn values_before(report: &Report, view: &View, count: usize, measure: Measure) -> Vec<Option<Decimal>> {
    if report.rows.is_empty() {
        return Vec::new();
    }
    let steps = view.steps_before();
    let missing = count.saturating_sub(steps.len());
    let kept = &steps[steps.len().saturating_sub(count)..]; // months are not all as long
    let values = values(report, view, kept, measure);
    std::iter::repeat_n(None, missing).chain(values).collect()
}

/// The address of the page with this measure plotted; clicks are where nothing is said.
fn address_of(frame: &Frame, measure: Measure) -> String {
    let name = if measure == Measure::Clicks { "" } else { measure.into() };
    frame.query.with("plot", name).to_string()
}

async fn tops(app: &App, view: &View) -> Result<Vec<Top>, Problem> {
    let ask = |(dimension, title)| async move {
        let mut question = view.question();
        question["group_by"] = json!([<&str>::from(dimension)]);
        question["measures"] = json!(["clicks", "conversions", "profit"]);
        question["limit"] = json!(TOP_ROWS);
        Ok::<_, Problem>(top(&reports::answered(app, &question).await?, dimension, title, view))
    };
    let [a, b, c, d] = TOPS;
    let (a, b, c, d) = tokio::try_join!(ask(a), ask(b), ask(c), ask(d))?;
    Ok(vec![a, b, c, d])
}

fn top(report: &Report, dimension: Dimension, title: &'static str, view: &View) -> Top {
    let most = report.rows.iter().filter_map(|row| figures::value(&row.figures, Measure::Clicks)).max();
    let address = |value: &str| match dimension {
        Dimension::Campaign if value != UNKNOWN => view.link(&format!("/ui/campaigns/{value}")),
        _ => {
            let filter = format!("{dimension}:is:{value}");
            view.query.at("/ui/report").with("f", &filter).to_string()
        }
    };
    let row = |row: &ReportRow| {
        let name = <&str>::from(dimension);
        let value = row.keys.get(name).and_then(Value::as_str);
        let known = row.names.get(name).and_then(Value::as_str).map(str::to_owned);
        let clicks = figures::value(&row.figures, Measure::Clicks).unwrap_or_default();
        TopRow {
            text: known.unwrap_or_else(|| figures::value_name(dimension, value)),
            address: address(value.unwrap_or(UNKNOWN)),
            bar: bar(clicks, most.unwrap_or_default()),
            clicks: figures::figure(&row.figures, Measure::Clicks),
            conversions: figures::figure(&row.figures, Measure::Conversions),
            profit: figures::figure(&row.figures, Measure::Profit),
        }
    };
    Top {
        title,
        name: figures::dimension_name(dimension),
        all: view.query.at("/ui/report").with("g1", dimension.into()).to_string(),
        rows: report.rows.iter().map(row).collect(),
    }
}

/// Parts that are not well, as `/health` says it.
async fn troubles(app: &App) -> Result<Vec<Trouble>, Problem> {
    let components = health::components(app).await;
    let bad = components.into_iter().filter(|component| component.status != "ok");
    Ok(bad.map(|component| Trouble { name: component.name, detail: component.detail }).collect())
}

/// Postbacks of the range that are in no figure.
fn lost(report: &Report) -> Vec<Trouble> {
    let notes = &report.notes;
    let of = |count: i64, what: &str, detail: &str| {
        (count > 0).then(|| Trouble { name: format!("{count} {what}"), detail: detail.to_owned() })
    };
    let unmapped = "a network's word for the state of a conversion is not mapped; map it, and replay them";
    let orphan = "their click never came; they are in no figure";
    [
        of(notes.unmapped, "unmapped postbacks", unmapped),
        of(notes.orphan, "postbacks without a click", orphan),
    ]
    .into_iter()
    .flatten()
    .collect()
}
