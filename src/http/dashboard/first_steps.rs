//! First steps: a campaign, a link followed, a conversion. Each line ticks itself off.

use askama::Template;
use axum::{extract::State, response::Response};
use chrono::Utc;

use super::{
    failure::Failure,
    frame::{Frame, Section},
    html,
    session::Opened,
    view::View,
};
use crate::{
    app::App,
    db::store::{
        affiliate_networks,
        clicks::{self, Click},
        conversions,
        library::Filter,
    },
    http::{error::Problem, track::test_link},
    model::campaign::{Campaign, Status},
    routing::Forced,
};

/// Where they are.
pub(super) const PATH: &str = "/ui/first-steps";

/// Newest clicks that are looked at.
const CLICKS: i64 = 20;

/// How often the module looks again by itself, once a second.
const POLLS_MAX: u32 = 900;

/// What a click of a test link is stored as.
const TEST: &str = "test";

/// What a test conversion says of itself: it pays nothing, and its goal tells it apart.
const TOLD: &str = "payout=0&status=approved&goal=test";

/// The campaign of the first line.
struct Made {
    name: String,
    address: String,
    links: String,
    link: String,
    /// The signed link of a test click.
    test: Option<String>,
}

/// The click of the second line.
struct Followed {
    at: String,
    address: String,
    is_test: bool,
}

/// The conversion of the third line.
struct Converted {
    text: String,
    address: String,
}

#[derive(Template)]
#[template(path = "first_steps.html")]
struct FirstStepsPage {
    frame: Frame,
    made: Option<Made>,
    followed: Option<Followed>,
    converted: Option<Converted>,
    /// The address that tells of a conversion of the newest test click, else of the newest click.
    told: Option<String>,
    networks: String,
    polls: u32,
    overview: String,
}

/// What came lately.
struct Found {
    clicks: Vec<Click>,
    conversion: Option<conversions::Conversion>,
}

/// `GET /ui/first-steps`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let frame = Frame::of(&app, &opened, Section::Overview, PATH, &[]).titled("First steps");
    let Found { clicks, conversion } = found(&app, CLICKS).await?;
    let view = &frame.view;
    let campaign = campaign(&app);
    let made = campaign.as_ref().map(|campaign| made(&app, campaign, frame.may_change, view));
    let target = clicks.iter().find(|click| is_test(click)).or(clicks.first());
    let told = match target {
        Some(click) => postback(&app, click).await?,
        None => None,
    };
    html(&FirstStepsPage {
        made,
        followed: clicks.first().map(|click| Followed {
            at: view.moment(click.created_at),
            address: view.link(&format!("/ui/clicks/{}", click.id)),
            is_test: is_test(click),
        }),
        converted: conversion.map(|it| Converted {
            text: format!("{}, {}", it.kind, it.status),
            address: view.link(&format!("/ui/clicks/{}", it.click_id)),
        }),
        told,
        networks: view.link("/ui/library/networks"),
        polls: POLLS_MAX,
        overview: view.link("/ui"),
        frame,
    })
}

/// The newest clicks and the newest conversion.
async fn found(app: &App, clicks_max: i64) -> Result<Found, Problem> {
    let time_max = app.config.api.list_time_max;
    let (clicks, conversions) = tokio::try_join!(
        clicks::list(&app.db, clicks::Filter::default(), None, clicks_max, time_max),
        conversions::list(&app.db, conversions::Filter::default(), None, 1),
    )?;
    Ok(Found { clicks: clicks.clicks, conversion: conversions.into_iter().next() })
}

/// What is still missing, where something is: whether there never was a click, else a conversion.
pub(super) async fn missing(app: &App) -> Result<Option<Missing>, Problem> {
    let Found { clicks, conversion } = found(app, 1).await?;
    Ok(match (clicks.is_empty(), conversion) {
        (true, _) => Some(Missing::Click),
        (false, None) => Some(Missing::Conversion),
        (false, Some(_)) => None,
    })
}

/// What never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Click,
    Conversion,
}

/// The newest campaign that takes clicks, else the newest.
fn campaign(app: &App) -> Option<Campaign> {
    let all = app.campaigns.list();
    let newest = all.iter().max_by_key(|it| (it.campaign.terms.status == Status::Active, it.campaign.id));
    newest.map(|routes| routes.campaign.clone())
}

fn made(app: &App, campaign: &Campaign, may_change: bool, view: &View) -> Made {
    let address = view.link(&super::campaign::path_of(campaign));
    Made {
        name: campaign.terms.name.clone(),
        links: view.link(&format!("{}/links", super::campaign::path_of(campaign))),
        address,
        link: format!("{}/click?cid={}", app.public_url, campaign.key),
        test: may_change.then(|| test_link::make(app, campaign, Forced::default(), Utc::now())),
    }
}

fn is_test(click: &Click) -> bool {
    click.invalid_reason.as_deref() == Some(TEST)
}

/// The address that tells of a conversion of this click. Where a key is asked for it is that of a network that asks for no more.
async fn postback(app: &App, click: &Click) -> Result<Option<String>, Problem> {
    let key = if app.config.postbacks.key_required {
        let filter = Filter { q: None, is_archived: Some(false) };
        let networks = affiliate_networks::list(&app.db, filter, None, CLICKS).await?;
        let open = networks.into_iter().map(|network| network.terms).find(|terms| !terms.rules().needs_key);
        let Some(key) = open.and_then(|terms| terms.postback_key) else { return Ok(None) };
        format!("/{}", key.as_str())
    } else {
        String::new()
    };
    Ok(Some(format!("{}/postback{key}?click_id={}&{TOLD}", app.public_url, click.id)))
}
