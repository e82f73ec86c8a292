//! One campaign: its report, taken apart level by level.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::json;

use super::{
    campaigns::notice,
    failure::Failure,
    figures::{self, Headline},
    filters::{self, FilterBar, Filters},
    frame::{Frame, Section},
    html,
    query::Query,
    report::{self, Choice, MEASURES, ROWS},
    session::Opened,
    table::{Asked, Table, and_filters},
    view::{COMMON, View},
};
use crate::{
    app::App,
    http::api::{campaigns, manners::request::Name, reports},
    model::campaign::{Campaign, Status},
    reports::question::{Dimension, Measure},
};

/// What this page is asked beside what all are.
const OWN: [&str; 6] = ["g1", "g2", "g3", "f", "sort", "cursor"];

/// The levels where none were chosen.
const LEVELS: [Dimension; 3] = [Dimension::Country, Dimension::Device, Dimension::Os];

/// A page of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Report,
    Flow,
    Links,
    Settings,
}

/// What stands above every page of a campaign.
pub(super) struct Head {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) status: Status,
    /// Address, name, whether it is here.
    pub(super) tabs: Vec<(String, &'static str, bool)>,
    /// What may be done to it: `pause` or `resume`.
    pub(super) action: Option<&'static str>,
    /// The address of the page that makes another one like it.
    pub(super) clone: String,
    /// The address of the table of all.
    pub(super) all: String,
}

impl Head {
    /// Of a campaign.
    pub(super) fn of(campaign: &Campaign, tab: Tab, view: &View) -> Self {
        let path = path_of(campaign);
        let entry = |at, end: &str, name| (view.link(&format!("{path}{end}")), name, at == tab);
        Self {
            id: campaign.id.to_string(),
            name: campaign.terms.name.clone(),
            key: campaign.key.to_string(),
            status: campaign.terms.status,
            tabs: vec![
                entry(Tab::Report, "", "Report"),
                entry(Tab::Flow, "/flow", "Flow"),
                entry(Tab::Links, "/links", "Links"),
                entry(Tab::Settings, "/settings", "Settings"),
            ],
            action: match campaign.terms.status {
                Status::Active => Some("pause"),
                Status::Paused => Some("resume"),
                _ => None,
            },
            clone: format!("{path}/clone"),
            all: view.link("/ui/campaigns"),
        }
    }
}

/// Where the pages of a campaign are.
pub(super) fn path_of(campaign: &Campaign) -> String {
    format!("/ui/campaigns/{}", campaign.id)
}

/// The frame of the campaign's page whose path ends like this.
pub(super) fn frame_of(app: &App, opened: &Opened, campaign: &Campaign, end: &str, own: &[&str]) -> Frame {
    let path = format!("{}{end}", path_of(campaign));
    let mut frame = Frame::of(app, opened, Section::Campaigns, &path, own).titled(&campaign.terms.name);
    frame.notice = notice(&opened.fields);
    frame
}

#[derive(Template)]
#[template(path = "campaign.html")]
struct CampaignPage {
    frame: Frame,
    head: Head,
    headlines: Vec<Headline>,
    levels: Vec<(String, Vec<Choice>)>,
    kept: Vec<(String, String)>,
    level: String,
    filter_bar: FilterBar,
    table: Table,
    notes: Vec<String>,
    clicks: String,
    is_empty: bool,
    links: String,
}

/// `GET /ui/campaigns/{id}`: the first level whose value is not chosen yet; a row that is clicked chooses it.
pub(super) async fn report_page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    let campaign = campaigns::find(&app, &id).await?;
    let fields = &opened.fields;
    let frame = frame_of(&app, &opened, &campaign, "", &OWN);
    if let Some(address) = filters::added(fields, &frame.query) {
        return Ok(Redirect::to(&address).into_response());
    }
    let filters = Filters::of(fields);
    let levels = report::groups_of(fields, &LEVELS);
    let level = levels.iter().find(|level| !filters.has_chosen(**level)).or(levels.last()).copied();
    let level = level.unwrap_or(LEVELS[0]);
    let order = report::order_of(fields, &[level], &MEASURES);
    let mut question = frame.view.question();
    let of_campaign = filters.and(Dimension::Campaign, &campaign.id.to_string());
    question["group_by"] = json!([<&str>::from(level)]);
    question["measures"] = MEASURES.iter().map(|measure| <&str>::from(*measure)).collect();
    question["filters"] = of_campaign.question();
    question["order"] = json!(order);
    question["limit"] = json!(ROWS);
    question["compare"] = json!("previous");
    if !fields.text("cursor").is_empty() {
        question["cursor"] = json!(fields.text("cursor"));
    }
    let report = reports::answered(&app, &question).await?;
    let clicks = Query::new("/ui/clicks").keeping(fields, &COMMON);
    let clicks = clicks.and(filters::PARAM, &format!("campaign:is:{}", campaign.id));
    let table = Table::of(
        &report,
        &Asked {
            caption: format!("Figures by {}", figures::dimension_name(level).to_lowercase()),
            query: &frame.query,
            filters: &filters,
            groups: &[level],
            measures: &MEASURES,
            order: &order,
            clicks: Some(&clicks),
        },
    );
    let headline = |measure: &Measure| {
        Headline::of(*measure, &report.totals, report.totals_before.as_ref(), report.currency)
    };
    let labels = ["First", "then", "then"];
    html(&CampaignPage {
        head: Head::of(&campaign, Tab::Report, &frame.view),
        headlines: MEASURES.iter().map(headline).collect(),
        levels: labels
            .iter()
            .enumerate()
            .map(|(i, label)| ((*label).to_owned(), report::dimension_choices(levels.get(i).copied())))
            .collect(),
        kept: frame.query.hidden(&["g1", "g2", "g3", "sort", "cursor", "f"]),
        level: figures::dimension_name(level).to_owned(),
        filter_bar: FilterBar::of(&app.db, &frame.query, &filters).await?,
        notes: report::notes(&report.notes),
        clicks: and_filters(&clicks, &filters),
        is_empty: report.rows.is_empty() && filters == Filters::default(),
        links: frame.view.link(&format!("{}/links", path_of(&campaign))),
        table,
        frame,
    })
}
