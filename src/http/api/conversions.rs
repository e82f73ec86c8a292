//! `/api/v1/conversions`: what postbacks made of clicks; and telling of one by hand.

pub(super) mod import;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::clicks::ids_of;
use crate::{
    app::App,
    db::store::{
        conversions::{self, Filter},
        postbacks,
    },
    facts::postback::Postback,
    http::{
        api::{
            manners::{
                answer::answer,
                auth::{Ingest, Read},
                idempotency::Attempt,
                page::{Page, Params, cursor, rows_for},
                problems::Problems,
                request::{Json, Name},
            },
            views::conversion::{Conversion, WholeConversion},
        },
        error::{FieldError, Problem},
        fields::Fields,
        track::postback::durable,
    },
    model::{
        conversion::{Channel, Status},
        id::Leg,
        money::Money,
    },
};

/// Longest goal of a conversion.
const GOAL_CHARS_MAX: usize = 64;

/// Postbacks of its click that are shown with a conversion.
const POSTBACKS_MAX: i64 = 500;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get)).merge(import::router())
}

/// List conversions
///
/// Newest first, by when their first postback came. Of one click all of them, oldest first.
#[utoipa::path(
    get, path = "/conversions", tag = "conversions", operation_id = "list_conversions",
    params(
        ("cid" = Option<String>, Query, description = "Of this campaign: its key or id.", example = "summer-sale"),
        ("network" = Option<i64>, Query, description = "Of this affiliate network.", minimum = 1, example = 3),
        ("status" = Option<Status>, Query, description = "In this state.", example = "approved"),
        ("goal" = Option<String>, Query, description = "With this goal.", max_length = 64, example = "deposit"),
        ("click_id" = Option<String>, Query, description = "Of this click; its id in any form.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})?$"),
        ("from" = Option<String>, Query, description = "Whose first postback came at this time or later (RFC 3339).", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Whose first postback came before this time.", example = "2026-12-31T00:00:00Z"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:00[0-9a-f]{46})?$", example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<Conversion>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    answer(StatusCode::OK, &listed(&app, query.as_deref()).await?)
}

/// The page of the list that a query asks for.
pub(in crate::http) async fn listed(app: &App, query: Option<&str>) -> Result<Page<Conversion>, Problem> {
    let known = ["cid", "network", "status", "goal", "click_id", "from", "to", "limit", "cursor"];
    let mut params = Params::parse(query, &known);
    let (limit, after) = (params.limit(), params.cursor());
    let cid = params.text("cid").map(str::to_owned);
    let mut filter = Filter {
        campaign_ids: None,
        network_id: params.id("network"),
        status: params.parsed::<Status>("status", "choice").map(|status| status.to_string()),
        goal: goal_of(&mut params),
        click_id: params.click_id(),
        from: params.time("from"),
        to: params.time("to"),
    };
    params.finish()?;
    if let Some(cid) = cid {
        filter.campaign_ids = Some(ids_of(app, &cid).await?);
    }
    let rows = conversions::list(&app.db, filter, after, rows_for(limit)).await?;
    Ok(Page::new(rows, limit, |row| cursor(row.first_at, row.id)).shown())
}

/// The goal that a list is of; refused where it is longer than any.
fn goal_of(params: &mut Params<'_>) -> Option<String> {
    let goal = params.text("goal").map(|goal| goal.replace('\0', "\u{fffd}"))?;
    if goal.chars().count() > GOAL_CHARS_MAX {
        params.refuse("goal", "length", format!("must have at most {GOAL_CHARS_MAX} characters"));
    }
    Some(goal)
}

/// Show a conversion
///
/// With what changed of it and by which postback, and all postbacks of its click.
#[utoipa::path(
    get, path = "/conversions/{id}", tag = "conversions", operation_id = "get_conversion",
    params(("id" = Uuid, Path, description = "Its id.", example = "019aaf3c-5f00-8abc-8def-0123456789ab")),
    responses((status = 200, description = "The conversion.", body = WholeConversion), Problems),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    answer(StatusCode::OK, &whole(&app, &id).await?)
}

/// The conversion with this id, and everything that led to it.
pub(in crate::http) async fn whole(app: &App, id: &str) -> Result<WholeConversion, Problem> {
    let not_found = || Problem::not_found("conversion");
    let id = Uuid::try_parse(id).map_err(|_| not_found())?;
    let found = conversions::get(&app.db, id).await?.ok_or_else(not_found)?;
    let changes = conversions::list_changes(&app.db, vec![id]).await?;
    let click_id = crate::model::id::ClickId::from_uuid(found.click_id).ok_or_else(not_found)?;
    let told = postbacks::list_of_click(&app.db, click_id, POSTBACKS_MAX).await?;
    Ok(WholeConversion {
        conversion: found.into(),
        changes: changes.into_iter().map(Into::into).collect(),
        postbacks: told.into_iter().map(Into::into).collect(),
    })
}

/// A conversion as it is told by hand: read like a postback.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "it stands in the document; `read` reads it")]
struct ConversionInput {
    /// The click, in any form; `<click id>.<offer id>` says of which offer of its path.
    #[schema(value_type = String, max_length = 80, example = "019aaf3c-5f00-7abc-8def-0123456789ab")]
    click_id: String,
    /// A word for its state: one that everybody knows, or one of its network. Approved where it is not said.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, example = "approved")]
    status: Option<String>,
    /// What it pays; what the offer pays where it is not said.
    #[schema(value_type = Option<Money>)]
    payout: Option<Money>,
    /// The network's id of it.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 255, example = "T-1001")]
    txid: Option<String>,
    /// What was reached.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, example = "deposit")]
    goal: Option<String>,
    /// When it happened; now where it is not said.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    time: Option<DateTime<Utc>>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AcceptedConversion)]
struct Accepted {
    /// `accepted`: it is on disk.
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
    /// Its id in the ledger.
    postback_id: Uuid,
}

/// Tell of a conversion
///
/// Read like a postback and kept in the same ledger: the same click, goal and transaction id once more is news of the same
/// conversion. Answered once it is on disk, whatever store is away.
#[utoipa::path(
    post, path = "/conversions", tag = "conversions", operation_id = "create_conversion", security(("token" = ["ingest"])),
    request_body(content = ConversionInput, example = json!({"click_id": "019aaf3c-5f00-7abc-8def-0123456789ab", "status": "approved", "payout": {"amount": "1.50", "currency": "USD"}})),
    responses((status = 202, description = "It is on disk.", body = Accepted), Problems),
)]
async fn create(
    _: Ingest,
    State(app): State<App>,
    attempt: Attempt,
    Json(body): Json,
) -> Result<Response, Problem> {
    let (leg, params) = read(&body)?;
    let postback = Postback {
        channel: Channel::Api,
        click_id: Some(leg.click_id),
        offer_id: leg.offer_id,
        ..Postback::new(attempt.id, params)
    };
    durable(&app, app.journal.append_with(|out| postback.encode(out))).await?;
    answer(StatusCode::ACCEPTED, &Accepted { status: "accepted", postback_id: postback.id })
}

/// The click, and what is told as the parameters of a postback.
fn read(body: &Value) -> Result<(Leg, String), Vec<FieldError>> {
    let mut fields = Fields::new(body, "").map_err(|error| vec![error])?;
    let leg = fields.text("click_id", 1..=80).map(str::parse::<Leg>);
    if leg == Some(Err(())) {
        fields.refuse(
            "click_id",
            "uuid",
            "must be the id of a click (a UUIDv7), or with .<offer id> behind it",
        );
    }
    let mut params = form_urlencoded::Serializer::new(String::new());
    for (name, longest) in [("status", 64), ("txid", 255), ("goal", 64)] {
        if let Some(text) = fields.optional_text(name, 1..=longest) {
            params.append_pair(name, text);
        }
    }
    if let Some(money) = fields.money("payout") {
        params.append_pair("payout", &money.amount.to_string());
        params.append_pair("currency", money.currency.as_str());
    }
    if let Some(time) = fields.time("time") {
        params.append_pair("time", &time.to_rfc3339());
    }
    fields.refuse_unknown(&["click_id", "status", "payout", "txid", "goal", "time"], &[]);
    let leg = leg.and_then(Result::ok);
    if let Some(leg) = leg {
        params.append_pair("click_id", &leg.to_string());
    }
    let params = params.finish();
    fields.finish_with(leg.map(|leg| (leg, params)))
}
