//! `/api/v1/deliveries`: what was told to whom, every attempt, and what is put back by hand.

use std::str::FromStr as _;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    db::store::{
        deliveries::{self, Filter, Replay, StoredAttempt},
        library as stored,
        postback_targets::Target,
    },
    http::{
        api::manners::{
            answer::answer,
            auth::{Admin, Read},
            page::{Page, Params, number_cursor, rows_for},
            problems::Problems,
            request::{Json, Name, parse_id},
        },
        error::{FieldError, Problem},
        fields::Fields,
    },
    model::{
        conversion::{ConversionKind, Status},
        postback_target::{DeliveryReason, DeliveryState},
    },
};

/// Attempts of a delivery that are shown.
const ATTEMPTS_SHOWN: i64 = 100;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(replay))
        .routes(routes!(get))
        .routes(routes!(retry))
}

/// What a target is told of a change of a conversion.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Delivery {
    /// Ours; the same for every attempt.
    pub(in crate::http) id: Uuid,
    /// Whom it is for.
    #[schema(minimum = 1, example = 3)]
    pub(in crate::http) target_id: i64,
    /// The conversion's campaign.
    pub(in crate::http) campaign_id: Uuid,
    /// The conversion.
    pub(in crate::http) conversion_id: Uuid,
    /// Its click.
    pub(in crate::http) click_id: Uuid,
    /// The status that it has now.
    #[schema(value_type = Status)]
    pub(in crate::http) change: String,
    /// Empty where none was named.
    #[schema(example = "deposit")]
    pub(in crate::http) goal: String,
    /// What the conversion is.
    #[schema(value_type = ConversionKind)]
    pub(in crate::http) kind: String,
    /// As the target is told it; null: not at all.
    pub(in crate::http) payout: Option<Amount>,
    /// When it changed.
    pub(in crate::http) changed_at: DateTime<Utc>,
    /// How far it is.
    #[schema(value_type = DeliveryState)]
    pub(in crate::http) state: String,
    /// Why it was not made.
    #[schema(value_type = Option<DeliveryReason>)]
    pub(in crate::http) reason: Option<String>,
    /// Requests that were made for it.
    #[schema(example = 1)]
    pub(in crate::http) attempts: i32,
    /// When it is sent next; null: it is done.
    pub(in crate::http) next_at: Option<DateTime<Utc>>,
    /// When it was queued.
    pub(in crate::http) queued_at: DateTime<Utc>,
    /// When it was done or given up.
    pub(in crate::http) finished_at: Option<DateTime<Utc>>,
    /// When it is not worth telling any more; null: never.
    pub(in crate::http) expires_at: Option<DateTime<Utc>>,
}

/// Money of a delivery: a correction is below zero, and a network's currency may be none that is known.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryAmount)]
pub(crate) struct Amount {
    /// A decimal number.
    #[schema(example = "1.5")]
    pub(in crate::http) amount: String,
    /// Its currency.
    #[schema(example = "USD")]
    pub(in crate::http) currency: String,
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Detailed {
    #[serde(flatten)]
    pub(in crate::http) delivery: Delivery,
    /// The last 100 requests, newest first.
    pub(in crate::http) requests: Vec<Request>,
}

/// A request that was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryRequest)]
pub(in crate::http) struct Request {
    /// From 1; one that is missing was cut off.
    #[schema(minimum = 1, example = 1)]
    pub(in crate::http) n: i32,
    /// When.
    pub(in crate::http) at: DateTime<Utc>,
    /// How.
    #[schema(example = "GET")]
    pub(in crate::http) method: String,
    /// Where to, without what is secret in it.
    #[schema(example = "https://ads.example/postback?id=abc&key=***")]
    pub(in crate::http) url: String,
    /// Status of the answer; null: there was none.
    #[schema(example = 200)]
    pub(in crate::http) status: Option<i32>,
    /// How the answer begins: at most 1024 bytes.
    #[schema(example = "OK")]
    pub(in crate::http) answer: Option<String>,
    /// How long it took.
    #[schema(example = 120)]
    pub(in crate::http) ms: i32,
    /// Why it is no success; null: it is one.
    #[schema(example = "no answer within the time-out")]
    pub(in crate::http) error: Option<String>,
}

impl From<deliveries::Delivery> for Delivery {
    fn from(it: deliveries::Delivery) -> Self {
        let amount =
            |amount: Decimal| Amount { amount: amount.normalize().to_string(), currency: it.currency };
        let is_waiting = matches!(it.state.as_str(), "pending" | "leased");
        Self {
            id: it.id,
            target_id: it.target_id,
            campaign_id: it.campaign_id,
            conversion_id: it.conversion_id,
            click_id: it.click_id,
            change: it.change,
            goal: it.goal,
            kind: it.kind,
            payout: it.payout.map(amount),
            changed_at: it.changed_at,
            state: it.state,
            reason: it.reason,
            attempts: it.attempts,
            next_at: is_waiting.then_some(it.next_at),
            queued_at: it.queued_at,
            finished_at: it.finished_at,
            expires_at: it.expires_at,
        }
    }
}

impl From<StoredAttempt> for Request {
    fn from(attempt: StoredAttempt) -> Self {
        let StoredAttempt { n, at, method, url, status, answer, ms, error } = attempt;
        Self { n, at, method, url, status, answer, ms, error }
    }
}

/// List deliveries
///
/// Newest first: what is on its way, what was told, and what could not be. `not_supported` are those that a target
/// should have been told and cannot be.
#[utoipa::path(
    get, path = "/deliveries", tag = "deliveries", operation_id = "list_deliveries",
    params(
        ("target_id" = Option<i64>, Query, description = "To this target.", minimum = 1, example = 3),
        ("campaign_id" = Option<String>, Query, description = "Of this campaign.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$"),
        ("conversion_id" = Option<String>, Query, description = "Of this conversion.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$"),
        ("state" = Option<DeliveryState>, Query, description = "In this state.", example = "dead"),
        ("from" = Option<String>, Query, description = "Queued from then on.", example = "2026-11-30T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Queued before.", example = "2026-12-01T00:00:00Z"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<Delivery>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    answer(StatusCode::OK, &listed(&app, query.as_deref()).await?)
}

/// The page of the list that a query asks for.
pub(in crate::http) async fn listed(app: &App, query: Option<&str>) -> Result<Page<Delivery>, Problem> {
    let known = ["target_id", "campaign_id", "conversion_id", "state", "from", "to", "limit", "cursor"];
    let mut params = Params::parse(query, &known);
    let filter = Filter {
        target_id: params.id("target_id"),
        campaign_id: params.parsed("campaign_id", "uuid"),
        conversion_id: params.parsed("conversion_id", "uuid"),
        state: params.parsed::<DeliveryState>("state", "choice").map(<&str>::from),
        from: params.time("from"),
        to: params.time("to"),
    };
    let (limit, after) = (params.limit(), params.number_cursor());
    params.finish()?;
    let rows = deliveries::list(&app.db, filter, after, rows_for(limit)).await?;
    Ok(Page::new(rows, limit, |row| number_cursor(row.seq)).shown())
}

/// Show a delivery
///
/// With its requests: what was sent, what came back, and how long it took.
#[utoipa::path(
    get, path = "/deliveries/{id}", tag = "deliveries", operation_id = "get_delivery",
    params(("id" = Uuid, Path, description = "Its id.", example = "0b8aaf3c-5f00-4abc-8def-0123456789ab")),
    responses((status = 200, description = "The delivery.", body = Detailed), Problems),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    answer(StatusCode::OK, &find(&app, &id).await?)
}

/// The delivery with this id, and its requests.
pub(in crate::http) async fn find(app: &App, id: &str) -> Result<Detailed, Problem> {
    let id = parse_id(id).ok_or_else(no_such_delivery)?;
    let (delivery, attempts) =
        deliveries::get(&app.db, id, ATTEMPTS_SHOWN).await?.ok_or_else(no_such_delivery)?;
    let requests = attempts.into_iter().map(Request::from).collect();
    Ok(Detailed { delivery: delivery.into(), requests })
}

/// Send a delivery again
///
/// Now, and by the whole schedule: one that was given up or cancelled, or that waits for its time. One that was
/// delivered is sent again by a replay only.
#[utoipa::path(
    post, path = "/deliveries/{id}/retry", tag = "deliveries", operation_id = "retry_delivery",
    params(("id" = Uuid, Path, description = "Its id.", example = "0b8aaf3c-5f00-4abc-8def-0123456789ab")),
    responses(
        (status = 200, description = "The delivery as it is now.", body = Detailed),
        (status = 409, description = "`not_retryable`: it is being sent, was delivered, cannot be told, or its target is gone."),
        Problems,
    ),
)]
async fn retry(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    retried(&app, &id).await?;
    answer(StatusCode::OK, &find(&app, &id).await?)
}

/// Puts back the delivery with this id, to be sent now.
pub(in crate::http) async fn retried(app: &App, id: &str) -> Result<(), Problem> {
    let id = parse_id(id).ok_or_else(no_such_delivery)?;
    if !deliveries::retry(&app.db, id).await? && deliveries::get(&app.db, id, 0).await?.is_some() {
        let detail = "It is being sent, was delivered, cannot be told, or its target is gone.";
        return Err(Problem::new(StatusCode::CONFLICT, "not_retryable", detail));
    }
    Ok(())
}

/// What a replay put back.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Replayed {
    /// How many deliveries are sent again, or with `dry_run` would be.
    #[schema(example = 12)]
    pub(in crate::http) count: i64,
    /// Whether nothing was changed.
    pub(in crate::http) is_dry_run: bool,
    /// Whether there may be more: a replay puts back `deliveries.replay_rows_max` at most, oldest first.
    pub(in crate::http) has_more: bool,
}

/// Send deliveries again
///
/// Those to one target that were queued in a range and are in one of the states; with `dry_run` they are counted only.
/// Those that were delivered are told twice, with the same `{delivery_id}`.
#[utoipa::path(
    post, path = "/deliveries/replay", tag = "deliveries", operation_id = "replay_deliveries",
    request_body = ReplayInput,
    responses((status = 200, description = "How many that are.", body = Replayed), Problems),
)]
async fn replay(_: Admin, State(app): State<App>, Json(body): Json) -> Result<Response, Problem> {
    answer(StatusCode::OK, &replayed(&app, &body).await?)
}

/// Puts back what `asked` says, or counts it.
pub(in crate::http) async fn replayed(app: &App, asked: &Value) -> Result<Replayed, Problem> {
    let (mut asked, is_dry_run) = read_replay(asked)?;
    if stored::get::<Target>(&app.db, asked.target_id).await?.is_none() {
        return Err(vec![FieldError::new("/target_id", "unknown_id", "is no postback target")].into());
    }
    asked.rows_max = i64::from(app.config.deliveries.replay_rows_max);
    let rows_max = asked.rows_max;
    let count = if is_dry_run {
        deliveries::count(&app.db, asked).await?
    } else {
        i64::try_from(deliveries::replay(&app.db, asked).await?).unwrap_or(i64::MAX)
    };
    Ok(Replayed { count, is_dry_run, has_more: count >= rows_max })
}

fn read_replay(body: &Value) -> Result<(Replay, bool), Vec<FieldError>> {
    let mut f = Fields::new(body, "").map_err(|error| vec![error])?;
    let target_id = f.required_integer("target_id", 1..=i64::MAX);
    let (from, to) = (f.required_time("from"), f.required_time("to"));
    let mut states = Vec::new();
    let texts = match body.get("states") {
        None => vec!["dead".to_owned()],
        Some(_) => f.texts("states", 1..=3, 1..=16).unwrap_or_default(),
    };
    for (i, text) in texts.iter().enumerate() {
        match DeliveryState::from_str(text) {
            Ok(state @ (DeliveryState::Dead | DeliveryState::Cancelled | DeliveryState::Delivered)) => {
                states.push(<&str>::from(state));
            }
            _ => f.refuse_below(&format!("states/{i}"), "choice", "must be dead, cancelled or delivered"),
        }
    }
    let is_dry_run = f.boolean("dry_run", false);
    f.refuse_unknown(&["target_id", "from", "to", "states", "dry_run"], &[]);
    let replay = target_id.zip(from).zip(to);
    let replay = replay.map(|((target_id, from), to)| Replay { target_id, from, to, states, rows_max: 0 });
    f.finish_with(replay.map(|replay| (replay, is_dry_run)))
}

/// What is to be sent again.
struct ReplayInput;

/// For the document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is read field by field, so that every bad one is named")]
struct ReplayFields {
    /// To this target.
    #[schema(minimum = 1, example = 3)]
    target_id: i64,
    /// Queued from then on.
    #[schema(example = "2026-11-30T00:00:00Z")]
    from: DateTime<Utc>,
    /// Queued before.
    #[schema(example = "2026-12-01T00:00:00Z")]
    to: DateTime<Utc>,
    /// In one of these states; `dead` where it is not said.
    #[schema(required = false, min_items = 1, max_items = 3, value_type = Vec<String>, example = json!(["dead"]))]
    states: Vec<String>,
    /// Count them only.
    #[schema(required = false, example = true)]
    dry_run: bool,
}

impl PartialSchema for ReplayInput {
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::Object(mut object)) = ReplayFields::schema() else {
            return ReplayFields::schema();
        };
        object.description = Some("What is to be sent again.".to_owned());
        if let Some(RefOr::T(Schema::Array(states))) = object.properties.get_mut("states")
            && let utoipa::openapi::schema::ArrayItems::RefOrSchema(items) = &mut states.items
            && let RefOr::T(Schema::Object(state)) = &mut **items
        {
            state.enum_values = Some(["dead", "cancelled", "delivered"].map(|state| json!(state)).to_vec());
        }
        Schema::Object(object).into()
    }
}

impl ToSchema for ReplayInput {}

fn no_such_delivery() -> Problem {
    Problem::not_found("delivery")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_replay_is_named() {
        let faults = |body: &Value| -> Vec<(String, &'static str)> {
            read_replay(body).err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
        };
        let wanted = |faults: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
            faults.iter().map(|(pointer, code)| ((*pointer).to_owned(), *code)).collect()
        };
        let required = [("/target_id", "required"), ("/from", "required"), ("/to", "required")];
        assert_eq!(faults(&json!({})), wanted(&required));
        let body = json!({ "target_id": 0, "from": "x", "to": "2026-01-01T00:00:00Z", "states": ["pending"], "dry_run": 1, "x": 1 });
        let all = [
            ("/target_id", "range"),
            ("/from", "time"),
            ("/states/0", "choice"),
            ("/dry_run", "type"),
            ("/x", "unknown"),
        ];
        assert_eq!(faults(&body), wanted(&all));
        let body = json!({ "target_id": 1, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z" });
        let (replay, is_dry_run) = read_replay(&body).unwrap();
        assert_eq!((replay.states, is_dry_run), (vec!["dead"], false));
    }
}
