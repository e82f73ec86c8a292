//! What was said of costs after the clicks: the list of adjustments, what each comes to, and the way to take one back.

use std::collections::BTreeSet;

use askama::Template;
use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use url::form_urlencoded::Serializer;

use super::{
    failure::Failure,
    figures::{self, dimension_name},
    form::Fields,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    session::{Opened, Posted},
    view::View,
};
use crate::{
    app::App,
    db::{
        self,
        store::reports::names::{self, Ids, Names},
    },
    http::{
        api::{
            campaigns,
            costs::{self, CostBody, figures::Total},
            manners::request::Name,
        },
        error::Problem,
    },
    model::cost::{Kind, Spread},
    reports::question::Dimension,
};

/// Where the list is.
pub(super) const PATH: &str = "/ui/costs";

/// What this page is asked beside what all are.
const OWN: [&str; 3] = ["campaign", "state", "cursor"];

/// Adjustments of a page.
const ROWS: &str = "50";

/// An adjustment as it is shown.
struct Row {
    address: String,
    range: String,
    zone: String,
    campaign: String,
    campaign_address: String,
    kind: &'static str,
    amount: String,
    filters: Vec<String>,
    note: String,
    author: String,
    at: String,
    state: &'static str,
    tone: &'static str,
}

#[derive(Template)]
#[template(path = "costs.html")]
struct CostsPage {
    frame: Frame,
    rows: Vec<Row>,
    inputs: Inputs,
    states: Vec<(&'static str, &'static str, bool)>,
    kept: Vec<(String, String)>,
    more: Option<String>,
    is_asked: bool,
    add: String,
}

/// `GET /ui/costs`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Costs, PATH, &OWN).titled("Costs");
    let mut inputs = Inputs::typed(&["campaign"], fields);
    let campaign = fields.text("campaign");
    let found = match costs::listed(&app, Some(&query_of(fields))).await {
        Ok(found) => Some(found),
        Err(problem) if problem.status() == http::StatusCode::NOT_FOUND => {
            inputs.fault("campaign", "There is no campaign with this id or key.");
            None
        }
        Err(problem) => return Err(problem.into()),
    };
    let (listed, next) = found.map_or_else(Default::default, |found| (found.data, found.next_cursor));
    let names = names_of(&app, &listed).await?;
    let state = |value, name| (value, name, fields.text("state") == value);
    let new = frame.view.query.at(&format!("{PATH}/new")).with("campaign", campaign);
    html(&CostsPage {
        rows: listed.iter().map(|cost| row(cost, &names, &frame.view)).collect(),
        states: vec![state("", "all"), state("said", "not void"), state("void", "void")],
        kept: frame.query.hidden(&["campaign", "state", "cursor"]),
        more: next.map(|cursor| frame.query.with("cursor", &cursor).to_string()),
        is_asked: OWN.iter().any(|name| !fields.text(name).is_empty()),
        add: new.to_string(),
        inputs,
        frame,
    })
}

/// What the API would be asked.
fn query_of(fields: &Fields) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("limit", ROWS).append_pair("campaign_id", fields.text("campaign"));
    query.append_pair("cursor", fields.text("cursor"));
    match fields.text("state") {
        "void" => query.append_pair("is_voided", "true"),
        "said" => query.append_pair("is_voided", "false"),
        _ => &mut query,
    };
    query.finish()
}

/// The names of campaigns, and of what filters look at by an id.
async fn names_of(app: &App, listed: &[CostBody]) -> Result<Names, db::Error> {
    let mut ids = Ids::default();
    for cost in listed {
        ids.add(Dimension::Campaign, &cost.campaign_id.to_string());
        for (dimension, values) in &cost.filters.0 {
            if let Ok(dimension) = dimension.to_string().parse::<Dimension>() {
                for value in values {
                    ids.add(dimension, value);
                }
            }
        }
    }
    names::of_ids(&app.db, ids).await
}

/// Which clicks, a dimension each, in words.
fn filters_in_words(cost: &CostBody, names: &Names) -> Vec<String> {
    let told = |(dimension, values): (&crate::model::cost::Dimension, &BTreeSet<String>)| {
        let Ok(dimension) = dimension.to_string().parse::<Dimension>() else { return dimension.to_string() };
        let value = |value: &String| match names.get(&(dimension, value.clone())) {
            Some(name) => name.clone(),
            None => figures::value_name(dimension, Some(value)),
        };
        let values: Vec<String> = values.iter().map(value).collect();
        format!("{} is {}", dimension_name(dimension), values.join(" or "))
    };
    cost.filters.0.iter().map(told).collect()
}

/// Days where both ends are midnights of the zone, else hours; the end is not in it any more.
pub(super) fn range_in_words(from: DateTime<Utc>, to: DateTime<Utc>, zone: Tz) -> String {
    let (first, end) = (from.with_timezone(&zone).naive_local(), to.with_timezone(&zone).naive_local());
    let is_midnight = |at: chrono::NaiveDateTime| at.time() == chrono::NaiveTime::MIN;
    if is_midnight(first) && is_midnight(end) {
        let last = end.date().pred_opt().unwrap_or(end.date());
        return if first.date() == last {
            first.date().to_string()
        } else {
            format!("{} \u{2013} {last}", first.date())
        };
    }
    format!("{} \u{2013} {}", first.format("%Y-%m-%d %H:%M"), end.format("%Y-%m-%d %H:%M"))
}

/// What an amount is, in words.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Total => "Total",
        Kind::PerClick => "Per click",
        Kind::PerMille => "Per thousand clicks",
        Kind::Factor => "Factor",
    }
}

/// Which clicks bear a cost, in words.
pub(super) fn spread_name(spread: Spread) -> &'static str {
    match spread {
        Spread::Valid => "clicks that count",
        Spread::All => "all clicks",
        Spread::Unique => "the first click of each visitor",
    }
}

/// Whether it counts, in words, and how that looks.
fn state_of(cost: &CostBody) -> (&'static str, &'static str) {
    match (cost.voided_at.is_some(), cost.is_live) {
        (true, _) => ("void", "off"),
        (false, true) => ("counts", "active"),
        (false, false) => ("superseded", "paused"),
    }
}

fn amount_of(cost: &CostBody) -> String {
    match cost.currency {
        Some(currency) => format!("{} {currency}", cost.amount),
        None => format!("\u{d7} {}", cost.amount),
    }
}

fn row(cost: &CostBody, names: &Names, view: &View) -> Row {
    let id = cost.campaign_id.to_string();
    let (state, tone) = state_of(cost);
    Row {
        address: view.link(&format!("{PATH}/{}", cost.id)),
        range: range_in_words(cost.from, cost.to, cost.time_zone),
        zone: cost.time_zone.name().to_owned(),
        campaign_address: view.link(&format!("/ui/campaigns/{id}")),
        campaign: names.get(&(Dimension::Campaign, id.clone())).cloned().unwrap_or(id),
        kind: kind_name(cost.kind),
        amount: amount_of(cost),
        filters: filters_in_words(cost, names),
        note: cost.note.clone().unwrap_or_default(),
        author: cost.author.clone(),
        at: view.moment(cost.created_at),
        state,
        tone,
    }
}

/// What the clicks of a range cost in a currency.
pub(super) struct Sum {
    pub(super) currency: String,
    pub(super) clicks: i64,
    pub(super) valid_clicks: i64,
    pub(super) token: String,
    pub(super) model: String,
    pub(super) adjusted: String,
    pub(super) effective: String,
    pub(super) unallocated: String,
}

/// Sums as they are shown.
pub(super) fn sums(totals: Vec<Total>) -> Vec<Sum> {
    let sum = |Total { figures }| Sum {
        currency: figures.currency.map_or_else(|| "no cost known".to_owned(), String::from),
        clicks: figures.clicks,
        valid_clicks: figures.valid_clicks,
        token: figures.token,
        model: figures.model,
        adjusted: figures.adjusted,
        effective: figures.effective,
        unallocated: figures.unallocated,
    };
    totals.into_iter().map(sum).collect()
}

#[derive(Template)]
#[template(path = "cost.html")]
struct CostPage {
    frame: Frame,
    row: Row,
    facts: Vec<(&'static str, String)>,
    sums: Vec<Sum>,
    is_void: bool,
    may_void: bool,
    supersedes: Option<String>,
    replaces: bool,
    again: String,
    void: String,
    all: String,
}

/// `GET /ui/costs/{id}`: one adjustment, what it comes to, and what the clicks of its range cost with it.
pub(super) async fn one_page(
    opened: Opened,
    State(app): State<App>,
    Name(id): Name,
) -> Result<Response, Failure> {
    let cost = costs::find(&app, &id).await?;
    let path = format!("{PATH}/{}", cost.id);
    let mut frame = Frame::of(&app, &opened, Section::Costs, &path, &[]).titled("Cost");
    frame.notice = notice(&opened.fields).map(str::to_owned);
    let of_range =
        costs::figures::of_range(&app, cost.campaign_id, (cost.from, cost.to), Some(cost.id)).await?;
    let names = names_of(&app, std::slice::from_ref(&cost)).await?;
    let mut facts = Vec::new();
    if let Some(borne) = of_range.borne {
        let sums: Vec<String> =
            borne.sums.iter().map(|(sum, currency)| format!("{sum} {currency}")).collect();
        facts.extend(borne.clicks.map(|clicks| ("Clicks that bear it", clicks.to_string())));
        facts.push(("Borne by", spread_name(borne.basis).to_owned()));
        facts.push((
            "Spread over clicks",
            if sums.is_empty() { "nothing".to_owned() } else { sums.join(", ") },
        ));
        let currency = cost.currency.map(String::from).unwrap_or_default();
        facts.extend(borne.unallocated.map(|rest| ("Unallocated", format!("{rest} {currency}"))));
    }
    facts.push(("Said", format!("{} by {}", frame.view.moment(cost.created_at), cost.author)));
    if let Some(running) = &cost.running_total {
        facts.push(("Account", running.account.clone()));
        facts.push(("External id", running.external_id.clone()));
        facts.push(("Day", running.day.to_string()));
    }
    if let Some(at) = cost.voided_at {
        let by = cost.voided_by.as_deref().unwrap_or_default();
        facts.push(("Void", format!("{} by {by}", frame.view.moment(at))));
    }
    html(&CostPage {
        row: row(&cost, &names, &frame.view),
        facts,
        sums: sums(of_range.totals),
        is_void: cost.voided_at.is_some(),
        may_void: frame.may_change && cost.voided_at.is_none(),
        supersedes: cost.supersedes.map(|id| frame.view.link(&format!("{PATH}/{id}"))),
        replaces: cost.supersedes.is_some(),
        again: frame.view.query.at(&format!("{PATH}/new")).with("like", &cost.id.to_string()).to_string(),
        void: format!("{path}/void"),
        all: frame.view.link(PATH),
        frame,
    })
}

/// `POST /ui/costs/{id}/void`
pub(super) async fn void(
    State(app): State<App>,
    Name(id): Name,
    posted: Posted,
) -> Result<Response, Failure> {
    let voided = costs::voided(&app, &id, posted.opened.viewer.session().token.name.clone()).await?;
    Ok(Redirect::to(&format!("{PATH}/{}?done=voided", voided.id)).into_response())
}

/// What was just done, in a sentence.
fn notice(fields: &Fields) -> Option<&'static str> {
    Some(match fields.text("done") {
        "said" => "The cost is stored. Figures have it from now on.",
        "unchanged" => "This running total is as it was, so nothing was stored.",
        "voided" => "The cost is void. What it had superseded counts again.",
        _ => return None,
    })
}

/// The key of a campaign, as forms say it.
pub(super) async fn campaign_key(app: &App, id: uuid::Uuid) -> Result<String, Problem> {
    Ok(campaigns::find(app, &id.to_string()).await?.key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_said_in_days_where_it_is_of_days_of_its_zone() {
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let berlin = chrono_tz::Europe::Berlin;
        let said = |from, to, zone| range_in_words(time(from), time(to), zone);
        assert_eq!(said("2026-10-31T23:00:00Z", "2026-11-01T23:00:00Z", berlin), "2026-11-01");
        assert_eq!(
            said("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z", berlin),
            "2026-11-01 \u{2013} 2026-11-30"
        );
        assert_eq!(
            said("2026-11-01T00:00:00Z", "2026-11-01T12:00:00Z", Tz::UTC),
            "2026-11-01 00:00 \u{2013} 2026-11-01 12:00"
        );
    }

    #[test]
    fn what_was_done_is_said_in_our_words_only() {
        assert!(notice(&Fields::parse("done=voided")).unwrap().contains("void"));
        assert_eq!(notice(&Fields::parse("done=%3Cb%3E")), None);
    }
}
