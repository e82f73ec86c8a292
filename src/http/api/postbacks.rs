//! `/api/v1/postbacks`: the ledger of what networks sent, and reading it once more. What takes postbacks in is
//! `http::track::postback`.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::App,
    db::{
        ingest::{self, Replay, Replayed},
        store::postbacks::{self, Filter},
    },
    housekeeping::conversions::count_stored,
    http::{
        api::{
            manners::{
                answer::answer,
                auth::{Admin, Read},
                page::{Page, Params, cursor, parse_key, rows_for},
                problems::Problems,
                request::{Json, Name},
            },
            views::postback::Postback,
        },
        error::{FieldError, Problem},
        fields::Fields,
    },
    model::{
        conversion::{Outcome, OutcomeReason, Status},
        id::ClickId,
        money::amount_text,
    },
};

/// Postbacks that a replay reads at most, and where nothing else is asked for.
const REPLAY_MAX: i64 = 100_000;
const REPLAY_DEFAULT: i64 = 10_000;

/// Differences that a replay lists; all are in the sums.
const DIFFERENCES_MAX: usize = 1000;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(get)).routes(routes!(replay))
}

/// List postbacks
///
/// Newest first: also those that were ignored, refused, or wait for their click. Of one click all of them, oldest first.
#[utoipa::path(
    get, path = "/postbacks", tag = "conversions", operation_id = "list_postbacks",
    params(
        ("network" = Option<i64>, Query, description = "Of this affiliate network.", minimum = 1, example = 3),
        ("outcome" = Option<Outcome>, Query, description = "What became of them.", example = "ignored"),
        ("reason" = Option<OutcomeReason>, Query, description = "What is particular about that.", example = "unmapped"),
        ("click_id" = Option<String>, Query, description = "Of this click; its id in any form.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})?$"),
        ("from" = Option<String>, Query, description = "That came at this time or later (RFC 3339).", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "That came before this time.", example = "2026-12-31T00:00:00Z"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:00[0-9a-f]{46})?$", example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<Postback>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    answer(StatusCode::OK, &listed(&app, query.as_deref()).await?)
}

/// The page of the list that a query asks for.
pub(in crate::http) async fn listed(app: &App, query: Option<&str>) -> Result<Page<Postback>, Problem> {
    let known = ["network", "outcome", "reason", "click_id", "from", "to", "limit", "cursor"];
    let mut params = Params::parse(query, &known);
    let (limit, after) = (params.limit(), params.cursor());
    let filter = Filter {
        network_id: params.id("network"),
        outcome: params.parsed::<Outcome>("outcome", "choice").map(|it| it.to_string()),
        reason: params.parsed::<OutcomeReason>("reason", "choice").map(|it| it.to_string()),
        click_id: params.click_id(),
        from: params.time("from"),
        to: params.time("to"),
    };
    params.finish()?;
    let rows = postbacks::list(&app.db, filter, after, rows_for(limit)).await?;
    Ok(Page::new(rows, limit, |row| cursor(row.created_at, row.id)).shown())
}

/// Show a postback
///
/// As it came, but for what stands for a person, and what became of it.
#[utoipa::path(
    get, path = "/postbacks/{id}", tag = "conversions", operation_id = "get_postback",
    params(("id" = Uuid, Path, description = "Its id.", example = "019aaf3c-5f00-7abc-8def-0123456789ab")),
    responses((status = 200, description = "The postback.", body = Postback), Problems),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    answer(StatusCode::OK, &find(&app, &id).await?)
}

/// The postback with this id.
pub(in crate::http) async fn find(app: &App, id: &str) -> Result<Postback, Problem> {
    let id = id.parse::<ClickId>().map_err(|()| Problem::not_found("postback"))?; // a UUIDv7 too
    let found = postbacks::get(&app.db, id.uuid()).await?;
    Ok(found.ok_or_else(|| Problem::not_found("postback"))?.into())
}

/// Which postbacks are to be read again.
#[derive(Debug, ToSchema)]
#[schema(as = PostbackReplayInput)]
#[allow(dead_code, reason = "it stands in the document; `read_replay` reads it")]
struct ReplayInput {
    /// Of this affiliate network only.
    #[schema(value_type = Option<i64>, minimum = 1, example = 3)]
    network: Option<i64>,
    /// That came at this time or later.
    from: DateTime<Utc>,
    /// And before this one.
    to: DateTime<Utc>,
    /// Whether only to say what would change; `true` where it is not said.
    #[schema(value_type = bool, required = false, default = true, example = true)]
    dry_run: bool,
    /// Whether the targets of postbacks are told of what changes too; of what they were told already they are not.
    #[schema(value_type = bool, required = false, default = false, example = false)]
    send: bool,
    /// Postbacks that are read at most; the rest with `cursor`.
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 100_000, default = 10_000, example = 10_000)]
    limit: i64,
    /// `next_cursor` of the call before.
    #[schema(value_type = Option<String>, pattern = "^00[0-9a-f]{46}$", example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab")]
    cursor: Option<String>,
}

/// What a replay changed, or would change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostbackReplayResult)]
pub(in crate::http) struct ReplayResult {
    /// Whether nothing was changed.
    pub(in crate::http) dry_run: bool,
    /// Postbacks that were read.
    #[schema(minimum = 0, example = 120)]
    pub(in crate::http) postbacks: usize,
    /// Those that have another outcome than before.
    #[schema(minimum = 0, example = 2)]
    pub(in crate::http) judged_anew: usize,
    /// Those whose click is known only now.
    #[schema(minimum = 0, example = 0)]
    pub(in crate::http) clicks_found: usize,
    /// The sums of what changes, a currency each.
    pub(in crate::http) totals: Vec<Total>,
    /// What changes of each conversion; the first 1,000.
    #[schema(max_items = 1000)]
    pub(in crate::http) differences: Vec<Difference>,
    /// Whether there are more postbacks to read.
    pub(in crate::http) has_more: bool,
    /// `cursor` of the next call.
    #[schema(example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab")]
    pub(in crate::http) next_cursor: Option<String>,
}

/// A sum of what changes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayTotal)]
pub(in crate::http) struct Total {
    /// ISO 4217.
    #[schema(example = "USD")]
    pub(in crate::http) currency: String,
    /// By how much payouts change.
    #[schema(example = "12.00")]
    pub(in crate::http) payout: String,
    /// By how much the revenue changes.
    #[schema(example = "12.00")]
    pub(in crate::http) revenue: String,
}

/// What changes of a conversion.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayDifference)]
pub(in crate::http) struct Difference {
    /// The conversion.
    pub(in crate::http) conversion_id: Uuid,
    /// Its click.
    pub(in crate::http) click_id: Uuid,
    /// Its state before; null: it is new.
    pub(in crate::http) from_status: Option<Status>,
    /// Its state after.
    pub(in crate::http) to_status: Status,
    /// By how much its payout changes.
    #[schema(example = "12.00")]
    pub(in crate::http) payout: String,
    /// By how much the revenue changes.
    #[schema(example = "12.00")]
    pub(in crate::http) revenue: String,
    /// In this currency.
    #[schema(example = "USD")]
    pub(in crate::http) currency: String,
}

/// Read postbacks once more
///
/// Under the names and words of now: so a status that is mapped later counts what came before. Says what would change,
/// and changes it with `"dry_run": false`. Nothing is sent to traffic sources unless `send` says so.
#[utoipa::path(
    post, path = "/postbacks/replay", tag = "conversions", operation_id = "replay_postbacks",
    request_body(content = ReplayInput, example = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": true})),
    responses((status = 200, description = "What changed, or would.", body = ReplayResult), Problems),
)]
async fn replay(_: Admin, State(app): State<App>, Json(body): Json) -> Result<Response, Problem> {
    answer(StatusCode::OK, &replayed(&app, &body).await?)
}

/// Reads once more what `asked` says, or says what that would change.
pub(in crate::http) async fn replayed(app: &App, asked: &Value) -> Result<ReplayResult, Problem> {
    let asked = read_replay(asked)?;
    let dry_run = asked.is_dry_run;
    let replayed = ingest::replay_postbacks(&app.db, asked).await?;
    if !dry_run {
        count_stored(app, &replayed.told);
    }
    Ok(ReplayResult::of(&replayed, dry_run))
}

fn read_replay(body: &Value) -> Result<Replay, Vec<FieldError>> {
    let mut fields = Fields::new(body, "").map_err(|error| vec![error])?;
    let (from, to) = (fields.required_time("from"), fields.required_time("to"));
    if from.zip(to).is_some_and(|(from, to)| to <= from) {
        fields.refuse("to", "range", "must be after from");
    }
    let network_id = fields.optional_integer("network", 1..=i64::MAX);
    let is_dry_run = fields.boolean("dry_run", true);
    let is_sent = fields.boolean("send", false);
    let limit = fields.integer("limit", 1..=REPLAY_MAX, REPLAY_DEFAULT);
    let cursor = fields.optional_text("cursor", 1..=64);
    let after = cursor.and_then(parse_key);
    if cursor.is_some() && after.is_none() {
        fields.refuse("cursor", "invalid_cursor", "is not a cursor of a replay; begin without it");
    }
    fields.refuse_unknown(&["network", "from", "to", "dry_run", "send", "limit", "cursor"], &[]);
    let limit = usize::try_from(limit).unwrap_or(1);
    let replay =
        from.zip(to).map(|(from, to)| Replay { network_id, from, to, after, limit, is_dry_run, is_sent });
    fields.finish_with(replay)
}

impl ReplayResult {
    fn of(replayed: &Replayed, dry_run: bool) -> Self {
        let mut totals: std::collections::BTreeMap<&str, (Decimal, Decimal)> =
            std::collections::BTreeMap::new();
        for it in &replayed.differences {
            let total = totals.entry(&it.currency).or_default();
            *total = (total.0 + it.payout, total.1 + it.revenue);
        }
        let total = |(currency, (payout, revenue)): (&&str, &(Decimal, Decimal))| Total {
            currency: (*currency).to_owned(),
            payout: amount_text(*payout),
            revenue: amount_text(*revenue),
        };
        let difference = |it: &ingest::Difference| Difference {
            conversion_id: it.conversion_id,
            click_id: it.click_id,
            from_status: it.from,
            to_status: it.to,
            payout: amount_text(it.payout),
            revenue: amount_text(it.revenue),
            currency: it.currency.clone(),
        };
        Self {
            dry_run,
            postbacks: replayed.postbacks,
            judged_anew: replayed.judged_anew,
            clicks_found: replayed.clicks_found,
            totals: totals.iter().map(total).collect(),
            differences: replayed.differences.iter().take(DIFFERENCES_MAX).map(difference).collect(),
            has_more: replayed.next.is_some(),
            next_cursor: replayed.next.map(|(at, id)| cursor(at, id)),
        }
    }
}
