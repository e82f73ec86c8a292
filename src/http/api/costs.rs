//! `/api/v1/costs`: what is said of costs after the clicks. Nothing of it is written into a click: figures are worked out
//! when they are asked for.

pub(crate) mod figures;
pub(crate) mod file;
pub(crate) mod input;
pub(crate) mod keitaro;

use std::collections::HashMap;

use axum::{
    extract::{RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{AnyOfBuilder, ArrayBuilder, Schema},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::costs::{self, Author, CostAdjustment, Filter},
    http::{
        api::{
            campaigns,
            manners::{
                answer::answer,
                auth::{Admin, Read},
                idempotency::Attempt,
                page::{Page, Params, number_cursor, rows_for},
                problems::Problems,
                request::{BODY_BYTES_MAX, BODY_DEPTH_MAX, Name, parse_id},
            },
        },
        body,
        error::{FieldError, Problem},
        fields::{parse_json, replace_nul},
        head::require_identity,
    },
    model::{
        cost::{Filters, Kind, RunningTotal, Spread, Terms},
        money::{Currency, amount_text},
        token::Token,
    },
};
use input::CostInput;

/// Entries of a request at most.
const ENTRIES_MAX: usize = 1000;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(void)).merge(figures::router())
}

/// An adjustment of costs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostAdjustment)]
pub(crate) struct CostBody {
    /// Ours.
    pub(crate) id: Uuid,
    /// Whose costs.
    pub(crate) campaign_id: Uuid,
    /// The first hour.
    pub(crate) from: DateTime<Utc>,
    /// The hour after the last.
    pub(crate) to: DateTime<Utc>,
    /// In which the range was said.
    #[schema(value_type = String, format = "time-zone", example = "Europe/Berlin")]
    pub(crate) time_zone: Tz,
    /// Which clicks: of each dimension one of the values.
    #[schema(value_type = Object, example = json!({"source": ["3"]}))]
    pub(crate) filters: Filters,
    /// What the amount is.
    pub(crate) kind: Kind,
    /// As it was said.
    #[schema(example = "1250.00")]
    pub(crate) amount: String,
    /// Null: a factor has none.
    #[schema(value_type = Option<String>, pattern = "^[A-Z]{3}$", example = "EUR")]
    pub(crate) currency: Option<Currency>,
    /// Which clicks bear it.
    pub(crate) spread: Spread,
    /// For people.
    #[schema(example = "invoice 4711")]
    pub(crate) note: Option<String>,
    /// Of a total that grows.
    pub(crate) running_total: Option<RunningTotal>,
    /// Who said it.
    #[schema(example = "reporting")]
    pub(crate) author: String,
    /// Which one of the same range and filters, or of the same running total, counted before.
    pub(crate) supersedes: Option<Uuid>,
    /// Whether it counts: it is not void, and no newer one of its range and filters is said.
    pub(crate) is_live: bool,
    /// Since when it is void.
    pub(crate) voided_at: Option<DateTime<Utc>>,
    /// Who voided it.
    #[schema(example = "reporting")]
    pub(crate) voided_by: Option<String>,
    /// When it was said.
    pub(crate) created_at: DateTime<Utc>,
}

impl From<CostAdjustment> for CostBody {
    fn from(stored: CostAdjustment) -> Self {
        let CostAdjustment {
            id, terms, author, supersedes, voided_at, voided_by, is_live, created_at, ..
        } = stored;
        Self {
            id,
            campaign_id: terms.campaign_id,
            from: terms.begins_at,
            to: terms.ends_at,
            time_zone: terms.time_zone,
            filters: terms.filters,
            kind: terms.kind,
            amount: amount_text(terms.amount),
            currency: terms.currency,
            spread: terms.spread,
            note: terms.note,
            running_total: terms.running,
            author,
            supersedes,
            is_live,
            voided_at,
            voided_by,
            created_at,
        }
    }
}

/// One or many.
pub(crate) struct CostsInput;

impl PartialSchema for CostsInput {
    fn schema() -> RefOr<Schema> {
        let one = || Ref::from_schema_name(CostInput::name().as_ref());
        let list = ArrayBuilder::new().items(one()).min_items(Some(1)).max_items(Some(ENTRIES_MAX));
        let any = AnyOfBuilder::new().item(one()).item(list).description(Some("One cost, or many at once."));
        Schema::AnyOf(any.build()).into()
    }
}

impl ToSchema for CostsInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        CostInput::schemas(schemas);
        schemas.push((CostInput::name().into_owned(), CostInput::schema()));
    }
}

/// What is answered with 200.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = CostsAnswer)]
enum Answer {
    /// A running total that is as it was: the adjustment that counts.
    Unchanged(Box<CostBody>),
    /// What became of a list.
    Many(Results),
}

/// What became of many.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostResults)]
pub(crate) struct Results {
    /// How many are stored.
    pub(crate) accepted: usize,
    /// How many are not.
    pub(crate) refused: usize,
    /// In the order of the request.
    pub(crate) results: Vec<Outcome>,
}

/// What became of one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostResult)]
pub(crate) struct Outcome {
    /// The line of the file, or the place in the list from 1.
    #[schema(minimum = 1, example = 2)]
    pub(crate) line: usize,
    /// The adjustment; null: it is refused.
    pub(crate) id: Option<Uuid>,
    /// What is wrong with it.
    pub(crate) errors: Vec<FieldError>,
}

/// Say what clicks cost
///
/// One adjustment, a list of at most 1,000, or as `text/csv` lines with the columns
/// `campaign,from,to,kind,amount,currency,zone,note` and dimensions of filters, or Binom's
/// `campaign;zone;date;cost;token;value` (with `?currency=`). Of a list each is stored or refused by itself. What is said of
/// the same range and filters takes the place of what was said before; a running total that is as it was is not stored again.
#[utoipa::path(
    post, path = "/costs", tag = "costs", operation_id = "create_costs",
    params(("currency" = Option<String>, Query, description = "Of lines of a file that name none.", pattern = "^(?:[A-Za-z]{3})?$", example = "EUR")),
    request_body(content((CostsInput = "application/json"), (String = "text/csv"))),
    responses(
        (status = 200, description = "What became of a list, or the running total that is as it was.", body = Answer),
        (status = 201, description = "It is stored.", body = CostBody),
        Problems,
    ),
)]
async fn create(
    Admin(token): Admin,
    State(app): State<App>,
    attempt: Attempt,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["currency"]);
    let currency: Option<Currency> = params.parsed("currency", "pattern");
    params.finish()?;
    let entries = match Body::read(request).await? {
        Body::Json(Value::Array(list)) => {
            list.into_iter().enumerate().map(|(i, said)| (i + 1, said)).collect()
        }
        Body::Json(one) => {
            let terms = read_one(&app, &one).await?;
            let stored = store_one(&app, attempt.id, terms, &token).await?;
            if stored.id != attempt.id {
                return answer(StatusCode::OK, &Answer::Unchanged(Box::new(stored)));
            }
            return answer(StatusCode::CREATED, &stored);
        }
        Body::Csv(text) => {
            let currency = currency.map(String::from);
            let lines = file::read(&text, currency.as_deref());
            let lines = lines.map_err(|detail| {
                Problem::bad_request("invalid_csv", format!("The file cannot be read: {detail}."))
            })?;
            lines.into_iter().map(|line| (line.number, line.said)).collect::<Vec<_>>()
        }
    };
    if entries.is_empty() || entries.len() > ENTRIES_MAX {
        let detail = format!("must have 1 to {ENTRIES_MAX} entries");
        return Err(FieldError::new("", "length", detail).into());
    }
    let results = store_all(&app, attempt.id, &author(&token), entries).await?;
    answer(StatusCode::OK, &Answer::Many(results))
}

/// What somebody says of the costs of a campaign that there is.
pub(crate) async fn read_one(app: &Parts, said: &Value) -> Result<Terms, Problem> {
    let said = input::read(said, "")?;
    let campaign = campaigns::find(app, &said.campaign).await.map_err(|problem| unknown(problem, ""))?;
    Ok(said.of(campaign.id))
}

/// Stores it under this id; gives what is stored: of a running total that is as it was the one that counts.
pub(crate) async fn store_one(
    app: &Parts,
    id: Uuid,
    terms: Terms,
    token: &Token,
) -> Result<CostBody, Problem> {
    Ok(costs::insert(&app.db, id, terms, author(token)).await?.into())
}

/// Stores what is said, each by itself. A request that is run again gives each the id it had.
pub(crate) async fn store_all(
    app: &Parts,
    id: Uuid,
    author: &Author,
    entries: Vec<(usize, Value)>,
) -> Result<Results, Problem> {
    let mut known: HashMap<String, Uuid> = HashMap::new();
    let mut results = Results { accepted: 0, refused: 0, results: Vec::new() };
    for (i, (line, said)) in entries.into_iter().enumerate() {
        let id = Uuid::from_u128(id.as_u128().wrapping_add(i as u128));
        let stored = match input::read(&said, "") {
            Err(errors) => Err(errors),
            Ok(said) => match campaign_id(app, &mut known, &said.campaign).await? {
                Some(campaign_id) => {
                    Ok(costs::insert(&app.db, id, said.of(campaign_id), author.clone()).await?.id)
                }
                None => Err(vec![no_such_campaign("")]),
            },
        };
        results.accepted += usize::from(stored.is_ok());
        results.refused += usize::from(stored.is_err());
        let (id, errors) = stored.map_or_else(|errors| (None, errors), |id| (Some(id), Vec::new()));
        results.results.push(Outcome { line, id, errors });
    }
    Ok(results)
}

async fn campaign_id(
    app: &Parts,
    known: &mut HashMap<String, Uuid>,
    name: &str,
) -> Result<Option<Uuid>, Problem> {
    if let Some(id) = known.get(name) {
        return Ok(Some(*id));
    }
    match campaigns::find(app, name).await {
        Ok(campaign) => Ok(Some(*known.entry(name.to_owned()).or_insert(campaign.id))),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn no_such_campaign(pointer: &str) -> FieldError {
    FieldError::new(format!("{pointer}/campaign"), "unknown", "is no campaign's id or key")
}

/// A campaign that a body names is a field of it.
fn unknown(problem: Problem, pointer: &str) -> Problem {
    if problem.status() == StatusCode::NOT_FOUND { no_such_campaign(pointer).into() } else { problem }
}

fn author(token: &Token) -> Author {
    Author { id: Some(token.id), name: token.name.clone() }
}

/// List adjustments
///
/// Newest first, those that count and those that do not.
#[utoipa::path(
    get, path = "/costs", tag = "costs", operation_id = "list_costs",
    params(
        ("campaign_id" = Option<String>, Query, description = "Of the campaign with this id or key.", example = "summer-sale"),
        ("from" = Option<String>, Query, description = "That end after this time (RFC 3339).", example = "2026-11-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "That begin before this time (RFC 3339).", example = "2026-12-01T00:00:00Z"),
        ("is_voided" = Option<bool>, Query, description = "Whether they are void."),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<CostBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    answer(StatusCode::OK, &listed(&app, query.as_deref()).await?)
}

/// The page that a query asks for.
pub(crate) async fn listed(app: &Parts, query: Option<&str>) -> Result<Page<CostBody>, Problem> {
    let known = ["campaign_id", "from", "to", "is_voided", "limit", "cursor"];
    let mut params = Params::parse(query, &known);
    let (limit, after) = (params.limit(), params.number_cursor());
    let campaign = params.text("campaign_id").map(str::to_owned);
    let filter = Filter {
        from: params.time("from"),
        to: params.time("to"),
        is_voided: params.boolean("is_voided"),
        campaign_id: None,
    };
    params.finish()?;
    let campaign_id = match campaign {
        Some(name) => Some(campaigns::find(app, &name).await?.id),
        None => None,
    };
    let rows = costs::list(&app.db, Filter { campaign_id, ..filter }, after, rows_for(limit)).await?;
    Ok(Page::new(rows, limit, |row| number_cursor(row.seq)).shown())
}

/// The adjustment with this id.
pub(crate) async fn find(app: &Parts, id: &str) -> Result<CostBody, Problem> {
    let missing = || Problem::not_found("adjustment");
    let id = parse_id(id).ok_or_else(missing)?;
    Ok(costs::get(&app.db, id).await?.ok_or_else(missing)?.into())
}

/// Void an adjustment
///
/// It does not count any more, and what it had superseded counts again. One that is void already stays so.
#[utoipa::path(
    post, path = "/costs/{id}/void", tag = "costs", operation_id = "void_cost",
    params(("id" = Uuid, Path, description = "Its id.", example = "019aaf3c-5f00-7abc-8def-0123456789ab")),
    responses((status = 200, description = "It is void.", body = CostBody), Problems),
)]
async fn void(Admin(token): Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    answer(StatusCode::OK, &voided(&app, &id, token.name).await?)
}

/// Takes the adjustment with this id out of the figures.
pub(crate) async fn voided(app: &Parts, id: &str, by: String) -> Result<CostBody, Problem> {
    let missing = || Problem::not_found("adjustment");
    let id = parse_id(id).ok_or_else(missing)?;
    Ok(costs::void(&app.db, id, by).await?.ok_or_else(missing)?.into())
}

/// What a request brings.
enum Body {
    Json(Value),
    Csv(String),
}

impl Body {
    async fn read(request: Request) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        require_identity(request.headers())?;
        let is_csv = media_type.eq_ignore_ascii_case("text/csv");
        if !is_csv && !media_type.eq_ignore_ascii_case("application/json") {
            return Err(Problem::unsupported_media_type("application/json or text/csv"));
        }
        let bytes = body::read(request.into_body(), BODY_BYTES_MAX).await?;
        if is_csv {
            // files of some programs are not UTF-8; their numbers and keys are
            return Ok(Self::Csv(String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}")));
        }
        let mut value = parse_json(&bytes, BODY_DEPTH_MAX)?;
        replace_nul(&mut value);
        Ok(Self::Json(value))
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}
