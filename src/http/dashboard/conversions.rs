//! What postbacks made of clicks; what waits, lacks its click or is not understood stands apart. And one conversion with all that
//! led to it.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use strum::VariantNames as _;
use uuid::Uuid;

use super::{
    deliveries::{self, DeliveryRow},
    failure::Failure,
    frame::{Frame, Section},
    html,
    inputs::Inputs,
    money::{self, Choice, Place, PostbackRow, Tabs},
    session::Opened,
    view::View,
};
use crate::{
    app::App,
    http::{
        api::{
            conversions as api, deliveries as sent,
            manners::{page::Page, request::Name},
            postbacks,
            views::{conversion::Conversion, postback::Postback},
        },
        error::Problem,
    },
    model::{conversion::Status, id::ClickId},
};

const PATH: &str = "/ui/conversions";

/// What this page is asked beside what all are.
const OWN: [&str; 6] = ["tab", "q", "cid", "network", "status", "goal"];

/// What the API is asked of it.
const ASKED: [&str; 4] = ["cid", "network", "status", "goal"];

struct Row {
    at: String,
    address: String,
    campaign: String,
    campaign_address: String,
    click_address: String,
    network: String,
    kind: String,
    goal: String,
    txid: String,
    status: String,
    tone: &'static str,
    payout: String,
}

#[derive(Template)]
#[template(path = "conversions.html")]
struct ConversionsPage {
    frame: Frame,
    tabs: Tabs,
    inputs: Inputs,
    networks: Vec<Choice>,
    statuses: Vec<Choice>,
    kept: Vec<(String, String)>,
    rows: Vec<Row>,
    faults: Vec<String>,
    is_filtered: bool,
    more: Option<String>,
    all: String,
}

/// Postbacks that are in no figure: one of three kinds.
#[derive(Template)]
#[template(path = "conversions_apart.html")]
struct ApartPage {
    frame: Frame,
    tabs: Tabs,
    title: &'static str,
    means: &'static str,
    empty: &'static str,
    rows: Vec<PostbackRow>,
    replay: Option<String>,
    more: Option<String>,
}

/// The field of the form that a fault of the API is about.
fn field_of(pointer: &str) -> Option<&'static str> {
    ASKED.into_iter().find(|name| pointer.strip_prefix('?') == Some(name))
}

/// `GET /ui/conversions`
pub(super) async fn page(opened: Opened, State(app): State<App>) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let frame = Frame::of(&app, &opened, Section::Conversions, PATH, &OWN).titled("Conversions");
    match fields.text("tab") {
        "waiting" => return apart(&app, &opened, frame, Place::Waiting).await,
        "orphan" => return apart(&app, &opened, frame, Place::Orphan).await,
        "unmapped" => return apart(&app, &opened, frame, Place::Unmapped).await,
        _ => {}
    }
    let mut inputs = Inputs::typed(&OWN, fields);
    let q = fields.text("q");
    let click_id = q.parse::<ClickId>().ok().map(|id| id.to_string());
    if click_id.is_none()
        && let Ok(id) = Uuid::try_parse(q)
    {
        return Ok(Redirect::to(&frame.view.link(&format!("{PATH}/{id}"))).into_response());
    }
    let mut more = vec![("cursor", fields.text("cursor"))];
    more.extend(click_id.as_deref().map(|id| ("click_id", id)));
    let mut status = StatusCode::OK;
    let (mut faults, mut found) = (Vec::new(), Page { data: Vec::new(), has_more: false, next_cursor: None });
    if !q.is_empty() && click_id.is_none() {
        inputs.fault("q", "That is no id: a click's has 36 or 22 characters, a conversion's 36.");
    } else {
        match api::listed(&app, Some(&money::asked(&frame.view, fields, &ASKED, &more))).await {
            Ok(page) => found = page,
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
                inputs.fault("cid", "There is no campaign with this key or id.");
            }
            Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                status = problem.status();
                faults = inputs.refuse(&problem, field_of);
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    let networks = money::networks(&app).await?;
    let mut response = html(&ConversionsPage {
        tabs: money::tabs(&app, &frame.view, Place::Conversions).await?,
        networks: money::network_choices(&networks, fields.text("network")),
        statuses: money::choices(Status::VARIANTS, fields.text("status")),
        kept: frame.query.hidden(&OWN),
        rows: found.data.iter().map(|it| row(it, &frame.view, &networks)).collect(),
        is_filtered: OWN.iter().any(|name| !fields.text(name).is_empty()),
        more: found.next_cursor.map(|cursor| frame.query.with("cursor", &cursor).to_string()),
        all: frame.view.link(PATH),
        inputs,
        faults,
        frame,
    })?;
    *response.status_mut() = status;
    Ok(response)
}

fn row(it: &Conversion, view: &View, networks: &HashMap<i64, String>) -> Row {
    Row {
        at: view.moment(it.converted_at),
        address: view.link(&format!("{PATH}/{}", it.id)),
        campaign: it.campaign_key.clone().unwrap_or_else(|| it.campaign_id.to_string()),
        campaign_address: view.link(&format!("/ui/campaigns/{}", it.campaign_id)),
        click_address: view.link(&format!("/ui/clicks/{}", it.click_id)),
        network: money::network_name(networks, it.network_id),
        kind: it.kind.clone(),
        goal: it.goal.clone(),
        txid: it.txid.clone(),
        status: it.status.clone(),
        tone: tone(&it.status),
        payout: format!("{} {}", it.payout, it.currency),
    }
}

fn tone(status: &str) -> &'static str {
    match status {
        "approved" => "good",
        "rejected" | "refunded" | "unmapped" => "bad",
        _ => "",
    }
}

async fn apart(app: &App, opened: &Opened, frame: Frame, place: Place) -> Result<Response, Failure> {
    let fields = &opened.fields;
    let (title, which, means, empty) = match place {
        Place::Waiting => (
            "Waiting for their click",
            ("outcome", "waiting"),
            "Their click is not stored yet: usually it comes within a second. After seven days they are without a click.",
            "No postback waits",
        ),
        Place::Orphan => (
            "Without a click",
            ("outcome", "orphan"),
            "They name a click that never came. They are in no figure. If the click id stands in another parameter, say so at the network, then replay.",
            "No postback is without a click",
        ),
        _ => (
            "Unmapped",
            ("reason", "unmapped"),
            "Their network has a word for the state of the conversion that nobody mapped. They count without money until you say what the word means.",
            "Every word is mapped",
        ),
    };
    let asked = money::asked(&frame.view, fields, &[], &[which, ("cursor", fields.text("cursor"))]);
    let found = postbacks::listed(app, Some(&asked)).await?;
    let networks = money::networks(app).await?;
    let can_replay = frame.may_change && place != Place::Waiting && !found.data.is_empty();
    html(&ApartPage {
        tabs: money::tabs(app, &frame.view, place).await?,
        title,
        means,
        empty,
        rows: found.data.iter().map(|it| PostbackRow::of(it, &frame.view, &networks)).collect(),
        replay: can_replay.then(|| frame.view.link("/ui/postbacks/replay")),
        more: found.next_cursor.map(|cursor| frame.query.with("cursor", &cursor).to_string()),
        frame,
    })
}

/// A row of the book.
struct Change {
    at: String,
    from: String,
    to: String,
    cause: String,
    payout: String,
    revenue: String,
    postback: Option<String>,
}

/// A postback of the click.
struct Told {
    at: String,
    address: String,
    outcome: String,
    raw: String,
}

#[derive(Template)]
#[template(path = "conversion.html")]
struct ConversionPage {
    frame: Frame,
    tabs: Tabs,
    id: String,
    words: String,
    status: String,
    click_address: String,
    campaign: String,
    campaign_address: String,
    facts: Vec<(&'static str, String)>,
    changes: Vec<Change>,
    told: Vec<Told>,
    deliveries: Vec<DeliveryRow>,
}

/// `GET /ui/conversions/{id}`
pub(super) async fn one(opened: Opened, State(app): State<App>, Name(id): Name) -> Result<Response, Failure> {
    let whole = api::whole(&app, &id).await?;
    let it = &whole.conversion;
    let frame = Frame::of(&app, &opened, Section::Conversions, &format!("{PATH}/{}", it.id), &[])
        .titled("Conversion");
    let view = &frame.view;
    let (networks, targets) = tokio::try_join!(money::networks(&app), deliveries::targets(&app))?;
    let sent = sent::listed(&app, Some(&format!("conversion_id={}&limit=100", it.id))).await?;
    let change = |change: &crate::http::api::views::conversion::Change| Change {
        at: view.moment(change.changed_at),
        from: change.from_status.clone().unwrap_or_else(|| "new".to_owned()),
        to: change.to_status.clone(),
        cause: money::words(&change.cause),
        payout: format!("{} {}", change.payout, change.currency),
        revenue: format!("{} {}", change.revenue, change.currency),
        postback: change.postback_id.map(|id| view.link(&format!("/ui/postbacks/{id}"))),
    };
    html(&ConversionPage {
        tabs: money::tabs(&app, view, Place::Conversions).await?,
        id: it.id.to_string(),
        words: it.in_words(),
        status: it.status.clone(),
        click_address: view.link(&format!("/ui/clicks/{}", it.click_id)),
        campaign: it.campaign_key.clone().unwrap_or_else(|| it.campaign_id.to_string()),
        campaign_address: view.link(&format!("/ui/campaigns/{}", it.campaign_id)),
        facts: facts(it, view, &networks),
        changes: whole.changes.iter().map(change).collect(),
        told: whole.postbacks.iter().map(|it| told(it, view)).collect::<Result<_, _>>()?,
        deliveries: sent.data.iter().map(|it| DeliveryRow::of(it, view, &targets)).collect(),
        frame,
    })
}

fn told(postback: &Postback, view: &View) -> Result<Told, Problem> {
    Ok(Told {
        at: view.moment(postback.created_at),
        address: view.link(&format!("/ui/postbacks/{}", postback.id)),
        outcome: money::outcome(postback),
        raw: serde_json::to_string_pretty(&postback.params).map_err(Problem::internal)?,
    })
}

/// What is known of a conversion, by name; what is not known is left out.
fn facts(it: &Conversion, view: &View, networks: &HashMap<i64, String>) -> Vec<(&'static str, String)> {
    let money = |amount: &Option<String>| {
        amount.as_ref().map(|amount| format!("{amount} {}", it.currency)).unwrap_or_default()
    };
    let all = [
        ("Happened", view.moment(it.converted_at)),
        ("First postback", view.moment(it.first_at)),
        ("Last change", view.moment(it.last_at)),
        ("Click", view.moment(it.clicked_at)),
        ("Network", money::network_name(networks, it.network_id)),
        ("Goal", it.goal.clone()),
        ("Transaction", it.txid.clone()),
        ("The network's word", it.status_text.clone().unwrap_or_default()),
        ("What it says beside", it.status_detail.clone().unwrap_or_default()),
        ("Payout", format!("{} {}", it.payout, it.currency)),
        ("Payout before", money(&it.original_payout)),
        ("The visitor paid", money(&it.sale_amount)),
        ("Noticed", money::words(&it.flags.join(", "))),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
