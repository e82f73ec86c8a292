//! `/api/v1/postback-targets`: who is told of conversions, and how.

mod input;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::{
        campaigns, library as stored,
        outbox::Click,
        postback_targets::{self, Filter, Target},
        traffic_sources::TrafficSource,
        uses::Removal,
    },
    http::{
        api::{
            library::{self, Noun, search},
            manners::{
                answer::{answer, no_content},
                auth::{Admin, Read},
                etag,
                idempotency::{Attempt, WithoutSecret},
                page::{Page, Params, number_cursor, rows_for},
                problems::Problems,
                request::{Json, Name},
            },
        },
        error::{FieldError, Problem},
    },
    model::{
        conversion::Status,
        id::new_uuid,
        postback_target::{PauseReason, TargetTerms},
    },
    postback::{
        client,
        message::{Ready, Story},
        template::{Place, mask},
    },
};
use input::{TargetInput, TargetPatch};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(test))
        .routes(routes!(rotate))
}

/// A target as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostbackTarget)]
pub(crate) struct TargetBody {
    /// Ours; what `target_id` of a delivery names.
    #[schema(minimum = 1, example = 3)]
    pub(crate) id: i64,
    #[serde(flatten)]
    pub(crate) terms: TargetTerms,
    /// Whether it is the `postback_url` of its traffic source: url, source and campaign of it are changed there.
    pub(crate) is_default: bool,
    /// Since when it is paused: what is due waits.
    pub(crate) paused_at: Option<DateTime<Utc>>,
    /// Why.
    pub(crate) pause_reason: Option<PauseReason>,
    /// Attempts that failed since the last one that succeeded; no part of its version.
    #[schema(example = 0)]
    pub(crate) failures_in_a_row: i32,
    /// Until when it asked for quiet; no part of its version.
    pub(crate) held_until: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    pub(crate) version: i64,
    /// When it was made.
    pub(crate) created_at: DateTime<Utc>,
    /// When it last changed.
    pub(crate) updated_at: DateTime<Utc>,
}

impl From<Target> for TargetBody {
    fn from(target: Target) -> Self {
        let Target { id, mut terms, is_default, paused_at, pause_reason, .. } = target;
        let Target { failures_in_a_row, held_until, version, created_at, updated_at, .. } = target;
        terms.url = mask(&terms.url, Place::Address);
        terms.body = terms.body.map(|body| mask(&body, Place::Body));
        for header in &mut terms.headers {
            header.value = mask(&header.value, Place::Header);
        }
        Self {
            id,
            terms,
            is_default,
            paused_at,
            pause_reason,
            failures_in_a_row,
            held_until,
            version,
            created_at,
            updated_at,
        }
    }
}

/// What a target's messages and `{signature}` are signed with.
#[derive(Debug, Serialize, ToSchema)]
struct Secret {
    /// By Standard Webhooks: the key in base64 behind `whsec_`; null where an answer is given once more.
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: Option<String>,
    /// When it was made. The one before signs webhooks too for `deliveries.secret_overlap_s`.
    changed_at: DateTime<Utc>,
}

/// A request that was made to try a target.
#[derive(Debug, Serialize, ToSchema)]
struct Tried {
    /// Whether the answer is a success.
    is_success: bool,
    /// How.
    #[schema(value_type = String, example = "GET")]
    method: &'static str,
    /// Where to, without what is secret in it.
    #[schema(example = "https://ads.example/postback?id=test&payout=1")]
    url: String,
    /// Its headers, likewise.
    headers: Vec<TriedHeader>,
    /// Its body, likewise.
    #[schema(example = "{\"click\": \"octo-test\", \"value\": 1}")]
    body: Option<String>,
    /// Status of the answer; null: there was none.
    #[schema(example = 200)]
    status: Option<u16>,
    /// How the answer begins: at most 1024 bytes.
    #[schema(example = "OK")]
    answer: Option<String>,
    /// How long it took.
    #[schema(example = 120)]
    ms: u64,
    /// Why it is no success.
    #[schema(example = "no answer within the time-out")]
    error: Option<String>,
}

/// A header of a request.
#[derive(Debug, Serialize, ToSchema)]
struct TriedHeader {
    /// Its name.
    #[schema(example = "Content-Type")]
    name: String,
    /// Its value.
    #[schema(example = "application/json")]
    value: String,
}

impl Noun for Target {
    type Body = TargetBody;

    const NAME: &'static str = "postback target";
    const PATH: &'static str = "/postback-targets";
    const IS_IN_CAMPAIGNS: bool = false;

    fn shown(self, _: &Parts) -> TargetBody {
        self.into()
    }

    async fn read(
        app: &Parts,
        _: &HeaderMap,
        asked: &Value,
        was: Option<&Self>,
    ) -> Result<TargetTerms, Problem> {
        let terms = input::read(asked, was)?;
        check_named(app, &terms).await?;
        Ok(terms)
    }
}

/// Whether there are the source and the campaign that it names.
async fn check_named(app: &Parts, terms: &TargetTerms) -> Result<(), Problem> {
    let mut faults = Vec::new();
    if let Some(id) = terms.traffic_source_id
        && stored::get::<TrafficSource>(&app.db, id).await?.is_none()
    {
        faults.push(FieldError::new("/traffic_source_id", "unknown_id", "is no traffic source"));
    }
    if let Some(id) = terms.campaign_id
        && campaigns::get(&app.db, id).await?.is_none()
    {
        faults.push(FieldError::new("/campaign_id", "unknown_id", "is no campaign"));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.into()) }
}

/// Make a target
///
/// From a template, with what is given in place of the template's; or from scratch. It is told of what happens from then
/// on.
#[utoipa::path(
    post, path = "/postback-targets", tag = "postback targets", operation_id = "create_postback_target",
    request_body = TargetInput,
    responses(
        (status = 201, description = "It is made.", body = TargetBody, headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "Its version."),
        )),
        Problems,
    ),
)]
async fn create(
    _: Admin,
    State(app): State<App>,
    attempt: Attempt,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    library::create::<Target>(&app, &attempt, &headers, &body).await
}

/// List targets
///
/// Newest first, those of the `postback_url` of traffic sources among them.
#[utoipa::path(
    get, path = "/postback-targets", tag = "postback targets", operation_id = "list_postback_targets",
    params(
        ("q" = Option<String>, Query, description = "Part of the name, in any case.", max_length = 255, example = "ads"),
        ("traffic_source_id" = Option<i64>, Query, description = "Of this traffic source.", minimum = 1, example = 3),
        ("campaign_id" = Option<String>, Query, description = "Of this campaign.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<TargetBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    answer(StatusCode::OK, &listed(&app, query.as_deref()).await?)
}

/// The page of the list that a query asks for.
pub(in crate::http) async fn listed(app: &App, query: Option<&str>) -> Result<Page<TargetBody>, Problem> {
    let known = ["q", "traffic_source_id", "campaign_id", "limit", "cursor"];
    let mut params = Params::parse(query, &known);
    let filter = Filter {
        q: search(&mut params),
        traffic_source_id: params.id("traffic_source_id"),
        campaign_id: params.parsed::<Uuid>("campaign_id", "uuid"),
    };
    let (limit, after) = (params.limit(), params.number_cursor());
    params.finish()?;
    let rows = postback_targets::list(&app.db, filter, after, rows_for(limit)).await?;
    Ok(Page::new(rows, limit, |row| number_cursor(row.id)).shown())
}

/// Show a target
///
/// Without its secret, and without what is secret in its templates.
#[utoipa::path(
    get, path = "/postback-targets/{id}", tag = "postback targets", operation_id = "get_postback_target",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
    ),
    responses(
        (status = 200, description = "The target.", body = TargetBody,
            headers(("ETag" = String, description = "Its version, for If-Match."))),
        Problems,
    ),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    library::show::<Target>(&app, StatusCode::OK, library::find(&app, &id).await?)
}

/// Change a target
///
/// Only the fields that are given change; `null` clears an optional one, a list replaces the list. What is queued
/// already is sent by what the target says when it is sent.
#[utoipa::path(
    patch, path = "/postback-targets/{id}", tag = "postback targets", operation_id = "update_postback_target",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "\"3\""),
    ),
    request_body = TargetPatch,
    responses(
        (status = 200, description = "The target as it is now.", body = TargetBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 409, description = "It is being changed by others all the time."),
        Problems,
    ),
)]
async fn update(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
    Json(patch): Json,
) -> Result<Response, Problem> {
    library::update::<Target>(&app, &id, &headers, &patch).await
}

/// Delete a target
///
/// What waits for it is cancelled. That of a traffic source goes with its `postback_url`.
#[utoipa::path(
    delete, path = "/postback-targets/{id}", tag = "postback targets", operation_id = "delete_postback_target",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 409, description = "`in_use`: it is the `postback_url` of its traffic source."),
        Problems,
    ),
)]
async fn delete(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found: Target = library::find(&app, &id).await?;
    etag::if_match(&headers, found.version)?;
    let expected = headers.contains_key(header::IF_MATCH).then_some(found.version);
    match stored::delete::<Target>(&app.db, found.id, expected).await? {
        Removal::Done => Ok(no_content()),
        Removal::Missing => Err(Problem::not_found(Target::NAME)),
        Removal::Stale => Err(Problem::precondition_failed()),
        Removal::InUse => {
            let detail = "It is the postback_url of its traffic source; clear that instead.";
            Err(Problem::new(StatusCode::CONFLICT, "in_use", detail))
        }
    }
}

/// Pause a target
///
/// What is due waits, and more is queued. Pausing one that is paused changes nothing.
#[utoipa::path(
    post, path = "/postback-targets/{id}/pause", tag = "postback targets", operation_id = "pause_postback_target",
    params(("id" = i64, Path, description = "Its id.", minimum = 1, example = 3)),
    responses((status = 200, description = "The target as it is now.", body = TargetBody,
        headers(("ETag" = String, description = "Its version."))), Problems),
)]
async fn pause(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    turn(&app, &id, true).await
}

/// Resume a target
///
/// What waits is sent, and failures are counted anew.
#[utoipa::path(
    post, path = "/postback-targets/{id}/resume", tag = "postback targets", operation_id = "resume_postback_target",
    params(("id" = i64, Path, description = "Its id.", minimum = 1, example = 3)),
    responses((status = 200, description = "The target as it is now.", body = TargetBody,
        headers(("ETag" = String, description = "Its version."))), Problems),
)]
async fn resume(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    turn(&app, &id, false).await
}

async fn turn(app: &App, id: &str, is_paused: bool) -> Result<Response, Problem> {
    library::show(app, StatusCode::OK, turned(app, id, is_paused).await?)
}

/// The target with this id, which is paused now, or is not.
pub(in crate::http) async fn turned(app: &App, id: &str, is_paused: bool) -> Result<Target, Problem> {
    let found: Target = library::find(app, id).await?;
    let turned = postback_targets::turn(&app.db, found.id, is_paused).await?;
    turned.ok_or_else(|| Problem::not_found(Target::NAME))
}

/// Try a target
///
/// Sends it one made-up delivery, whether it is active or not, and shows the whole attempt. Nothing of it is kept.
#[utoipa::path(
    post, path = "/postback-targets/{id}/test", tag = "postback targets", operation_id = "test_postback_target",
    params(("id" = i64, Path, description = "Its id.", minimum = 1, example = 3)),
    responses((status = 200, description = "What was sent, and what came back.", body = Tried), Problems),
)]
async fn test(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let target: Target = library::find(&app, &id).await?;
    let ready = Ready::new(target).map_err(|error| {
        Problem::new(StatusCode::CONFLICT, "unusable_template", format!("The url of the target {error}."))
    })?;
    let message = ready.message(&made_up(Utc::now()), Utc::now());
    let client::Attempt { method, url, status, answer: said, took, error, .. } =
        app.postbacks.sender.send(&ready, &message).await;
    let headers = message.headers.into_iter().map(|(name, value)| TriedHeader { name, value: value.shown });
    let tried = Tried {
        is_success: error.is_none(),
        method: method.into(),
        url,
        headers: headers.collect(),
        body: message.body.map(|body| body.shown),
        status,
        answer: said,
        ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        error,
    };
    answer(StatusCode::OK, &tried)
}

/// A conversion that nobody made.
fn made_up(now: DateTime<Utc>) -> Story {
    let text = |text: &str| Some(text.to_owned());
    let click = Click {
        click_id_param: text("octo-test"),
        sub1: text("test"),
        country: text("DE"),
        device: text("desktop"),
        os: text("Linux"),
        browser: text("Firefox"),
        ..Click::default()
    };
    Story {
        delivery_id: new_uuid(),
        conversion_id: new_uuid(),
        campaign_id: new_uuid(),
        click_id: new_uuid(),
        click_at: now,
        status: Status::Approved,
        goal: String::new(),
        kind: "conversion".to_owned(),
        payout: Some(1.into()),
        currency: "USD".to_owned(),
        txid: "octo-test".to_owned(),
        changed_at: now,
        click,
    }
}

/// Make a new secret
///
/// Only this answer shows it. Webhooks are signed with both for `deliveries.secret_overlap_s`, so that the receiver can change in peace.
#[utoipa::path(
    post, path = "/postback-targets/{id}/secret", tag = "postback targets", operation_id = "rotate_postback_target_secret",
    params(("id" = i64, Path, description = "Its id.", minimum = 1, example = 3)),
    responses((status = 200, description = "The new secret.", body = Secret), Problems),
)]
async fn rotate(_: Admin, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let found: Target = library::find(&app, &id).await?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(Problem::internal)?;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(key));
    let rotated = postback_targets::rotate(&app.db, found.id, secret).await?;
    let rotated = rotated.ok_or_else(|| Problem::not_found(Target::NAME))?;
    show_secret(Secret { secret: Some(rotated.secret), changed_at: rotated.secret_changed_at })
}

/// The answer; without the secret where it is kept.
fn show_secret(mut shown: Secret) -> Result<Response, Problem> {
    let mut response = answer(StatusCode::OK, &shown)?;
    shown.secret = None;
    let without_secret = serde_json::to_vec(&shown).map_err(Problem::internal)?;
    response.extensions_mut().insert(WithoutSecret(without_secret.into()));
    Ok(response)
}
