//! Clicks and conversions behind figures, and the whole story of one click.

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    figures,
    filters::{self, FilterBar, Filters},
    frame::{Frame, Section},
    html,
    session::Opened,
    view::View,
};
use crate::{
    app::App,
    http::{
        api::{
            manners::request::Name,
            reports::facts::{self, ReportFact},
            story::{self, Story},
            views::click::Click,
        },
        error::Problem,
    },
    model::id::ClickId,
    reports::question::Dimension,
};

const PATH: &str = "/ui/clicks";

/// What this page is asked beside what all are.
const OWN: [&str; 3] = ["kind", "f", "cursor"];

/// Rows of a page.
const ROWS: usize = 100;

/// A click or a conversion in the list.
struct Row {
    at: String,
    kind: &'static str,
    address: Option<String>,
    campaign: String,
    campaign_address: String,
    country: String,
    device: String,
    sub1: String,
    source: String,
    state: String,
    is_counted: bool,
    amount: String,
}

#[derive(Template)]
#[template(path = "clicks.html")]
struct ClicksPage {
    frame: Frame,
    filter_bar: FilterBar,
    kinds: Vec<(String, &'static str, bool)>,
    are_conversions: bool,
    rows: Vec<Row>,
    more: Option<String>,
    searched: [&'static str; 5],
    q: String,
    fault: Option<&'static str>,
    kept: Vec<(String, String)>,
}

/// `GET /ui/clicks`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Clicks, PATH, &OWN).titled("Clicks");
    let q = fields.text("q");
    if let Ok(id) = q.parse::<ClickId>() {
        return Ok(Redirect::to(&frame.view.link(&format!("{PATH}/{id}"))).into_response());
    }
    if let Some(address) = filters::searched(fields, &frame.query) {
        return Ok(Redirect::to(&address).into_response());
    }
    if let Some(address) = filters::added(fields, &frame.query) {
        return Ok(Redirect::to(&address).into_response());
    }
    let filters = Filters::of(fields);
    let are_conversions = fields.text("kind") == "conversions";
    let mut question =
        json!({ "kind": if are_conversions { "conversions" } else { "clicks" }, "limit": ROWS });
    let range = frame.view.question();
    for name in ["from", "to", "tz"] {
        question[name] = range[name].clone();
    }
    question["filters"] = filters.question();
    if !fields.text("cursor").is_empty() {
        question["cursor"] = json!(fields.text("cursor"));
    }
    let found = facts::answered(&app, &question).await?;
    let kind = |kind: &str, name, is_one| {
        (frame.query.without("cursor").with("kind", kind).to_string(), name, is_one)
    };
    html(&ClicksPage {
        filter_bar: FilterBar::of(&app.db, &frame.query, &filters).await?,
        kinds: vec![
            kind("", "Clicks", !are_conversions),
            kind("conversions", "Conversions", are_conversions),
        ],
        are_conversions,
        more: found.next_cursor.as_ref().map(|cursor| frame.query.with("cursor", cursor).to_string()),
        rows: found.rows.iter().map(|fact| row(fact, &frame.view)).collect(),
        fault: (!q.is_empty())
            .then_some("That is no click id. It has 36 characters, or the 22 of {click_id:short}."),
        searched: filters::SEARCHED.map(Into::into),
        q: q.to_owned(),
        kept: frame.query.hidden(&["q", "cursor"]),
        frame,
    })
}

fn row(fact: &ReportFact, view: &View) -> Row {
    let name = |name: &str| fact.names.get(name).and_then(Value::as_str).map(str::to_owned);
    let known = [&fact.device, &fact.os, &fact.browser].into_iter().flatten().map(String::as_str);
    let money = |amount: &str| match (amount, &fact.currency) {
        ("0.00", _) => String::new(),
        (amount, Some(currency)) => format!("{amount} {currency}"),
        (amount, None) => amount.to_owned(),
    };
    let is_conversion = fact.kind == "conversion";
    let (state, is_counted) = match (is_conversion, &fact.status, &fact.reason) {
        (true, Some(status), _) => (status.clone(), true),
        (false, _, Some(reason)) => (reason.replace('_', " "), false),
        (false, _, None) => ("counts".to_owned(), true),
        (true, None, _) => (String::new(), true),
    };
    Row {
        at: view.moment(fact.at),
        kind: match fact.kind {
            "out_click" => "Out-click",
            "conversion" => "Conversion",
            "erased" => "Erased",
            _ => "Click",
        },
        address: fact.click_id.map(|id| view.link(&format!("{PATH}/{id}"))),
        campaign: name("campaign").unwrap_or_else(|| fact.campaign.to_string()),
        campaign_address: view.link(&format!("/ui/campaigns/{}", fact.campaign)),
        country: figures::value_name(Dimension::Country, fact.country.as_deref()),
        device: known.collect::<Vec<_>>().join(", "),
        sub1: fact.sub1.clone().unwrap_or_default(),
        source: name("source").unwrap_or_default(),
        state,
        is_counted,
        amount: money(if is_conversion { &fact.amount } else { &fact.cost }),
    }
}

/// Something that happened.
struct Chapter {
    at: String,
    kind: &'static str,
    text: String,
    raw: Option<String>,
}

/// A conversion of the click.
struct Conversion {
    status: String,
    kind: String,
    goal: String,
    payout: String,
    txid: String,
    at: String,
}

#[derive(Template)]
#[template(path = "click.html")]
struct ClickPage {
    frame: Frame,
    id: String,
    at: String,
    campaign: String,
    campaign_address: String,
    decision: String,
    whys: Vec<String>,
    validity: String,
    is_valid: bool,
    chapters: Vec<Chapter>,
    conversions: Vec<Conversion>,
    facts: Vec<(&'static str, String)>,
    all: String,
}

/// `GET /ui/clicks/{id}`
pub(super) async fn story_page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    let id: ClickId = id.parse().map_err(|()| Problem::not_found("click"))?;
    let story = story::of_click(&app, id).await.map_err(|problem| {
        if problem.status() == http::StatusCode::NOT_FOUND { not_stored() } else { problem }
    })?;
    let frame = Frame::of(&app, &opened, Section::Clicks, PATH, &[]).titled(format!("Click {id}"));
    html(&told(frame, story))
}

fn not_stored() -> Problem {
    let detail =
        "There is no such click. One that was just made is here once it is stored, usually within a second.";
    Problem::new(http::StatusCode::NOT_FOUND, "not_found", detail)
}

fn told(frame: Frame, story: Story) -> ClickPage {
    let Story { click, decision, chapters, conversions } = story;
    let view = &frame.view;
    let chapter = |chapter: story::Chapter| Chapter {
        at: view.moment(chapter.at),
        kind: match chapter.kind {
            "click" => "Click",
            "out_click" => "Out-click",
            "event" => "Event",
            "postback" => "Postback",
            _ => "Delivery",
        },
        text: chapter.text,
        raw: chapter.postback.as_ref().and_then(|told| serde_json::to_string_pretty(told).ok()),
    };
    ClickPage {
        id: click.id.to_string(),
        at: view.moment(click.created_at),
        campaign: click.campaign_key.clone().unwrap_or_else(|| click.campaign_id.to_string()),
        campaign_address: view.link(&format!("/ui/campaigns/{}", click.campaign_id)),
        decision: decision.text,
        whys: decision.why,
        validity: decision.validity,
        is_valid: click.is_valid,
        chapters: chapters.into_iter().map(chapter).collect(),
        conversions: conversions
            .into_iter()
            .map(|it| Conversion {
                payout: format!("{} {}", it.payout, it.currency),
                at: view.moment(it.converted_at),
                status: it.status,
                kind: it.kind,
                goal: it.goal,
                txid: it.txid,
            })
            .collect(),
        facts: known_of(click),
        all: frame.view.link(PATH),
        frame,
    }
}

/// Everything that is known of a click, by name; what is not known is left out.
fn known_of(click: Click) -> Vec<(&'static str, String)> {
    let cost =
        click.cost.map(|cost| format!("{} {}", crate::model::money::amount_text(cost.amount), cost.currency));
    let version = |name: Option<String>, version: Option<String>| {
        name.map(|name| match version {
            Some(version) => format!("{name} {version}"),
            None => name,
        })
    };
    let all = [
        ("Address", click.ip_address),
        ("User agent", click.user_agent),
        ("Referrer", click.referrer),
        ("Country", click.country),
        ("Region", click.region),
        ("City", click.city),
        ("Provider", click.isp),
        ("Connection", click.connection),
        ("Language", click.language),
        ("Device", click.device),
        ("System", version(click.os, click.os_version)),
        ("Browser", version(click.browser, click.browser_version)),
        ("Robot", click.is_bot.then(|| "yes".to_owned())),
        ("First of the visitor today", click.is_unique.map(|is| if is { "yes" } else { "no" }.to_owned())),
        ("sub1", click.sub1),
        ("sub2", click.sub2),
        ("sub3", click.sub3),
        ("sub4", click.sub4),
        ("sub5", click.sub5),
        ("The source's click id", click.click_id_param),
        ("aff_sub", click.affiliate_sub),
        ("aff_sub2", click.affiliate_sub2),
        ("aff_sub3", click.affiliate_sub3),
        ("aff_sub4", click.affiliate_sub4),
        ("aff_sub5", click.affiliate_sub5),
        ("Traffic source of the link", click.traffic_source_id),
        ("Keyword", click.keyword),
        ("Creative", click.creative),
        ("Placement", click.placement),
        ("Cost of the link", cost),
        ("Put right", (!click.adjusted.is_empty()).then(|| click.adjusted.join(", "))),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)))
        .collect()
}
