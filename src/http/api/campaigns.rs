//! `/api/v1/campaigns`: make, show, change, stop and delete campaigns.
//!
//! A change reads the campaign, lays the request over it, checks the whole like a new one, and writes it if
//! it is still in the version that was read: one set of rules, and no lost update.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::campaigns::{self, New, NewDestination, Written},
    http::{
        api::{
            self, Json, Name, ROOT, answer,
            manners::{
                auth::{Admin, Read},
                idempotency::Attempt,
                page::{Page, Params, id_cursor, rows_for},
            },
            openapi::Problems,
        },
        error::{FieldError, Problem},
        fields::Fields,
    },
    model::{
        campaign::{Campaign, CostModel, Destination, Status},
        id::CampaignKey,
        money::Money,
        scheme::Scheme,
    },
    routing::destination::Template,
};

/// Entries of a list at most.
const DESTINATIONS_MAX: usize = 100;

/// Attempts at a change that others keep overtaking.
const CHANGE_ATTEMPTS: u32 = 5;

/// What a request may say of a campaign.
const FIELDS: &[&str] = &[
    "key",
    "name",
    "description",
    "status",
    "start_at",
    "end_at",
    "cost_model",
    "payout",
    "daily_budget",
    "total_budget",
    "fallback_url",
    "landing_pages",
    "offers",
    "pass_through",
];

/// What only an answer says.
const READ_ONLY_FIELDS: &[&str] = &["id", "version", "created_at", "updated_at", "click_url"];

const LANDING_PAGE_FIELDS: &[&str] = &["id", "name", "url", "weight", "is_active"];
const OFFER_FIELDS: &[&str] = &["id", "name", "url", "weight", "is_active", "payout"];

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// A campaign as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Campaign)]
pub(crate) struct CampaignBody {
    #[serde(flatten)]
    campaign: Campaign,
    /// The link for ads.
    #[schema(example = "https://track.example/click?cid=summer-sale")]
    click_url: String,
}

/// A campaign as it is asked for.
#[derive(Debug, ToSchema)]
#[schema(example = json!({
    "key": "summer-sale",
    "name": "Summer sale",
    "cost_model": "cpa",
    "payout": {"amount": "1.50", "currency": "USD"},
    "landing_pages": [{"name": "A", "url": "https://offer.example/?click={click_id}&s={sub1}", "weight": 3}],
}))]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct CampaignInput {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, not a UUID; made up when it is not given.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    pub key: Option<String>,
    /// 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]")]
    pub name: String,
    /// At most 2,000 characters.
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// Whether it takes clicks.
    #[schema(value_type = Status, required = false, default = "active")]
    pub status: Option<Status>,
    /// Not before this time.
    pub start_at: Option<DateTime<Utc>>,
    /// Not from this time on; after `start_at`.
    pub end_at: Option<DateTime<Utc>>,
    /// How we are paid.
    #[schema(value_type = CostModel, required = false, default = "cpa")]
    pub cost_model: Option<CostModel>,
    /// What a conversion pays us.
    pub payout: Option<Money>,
    /// For people and reports.
    pub daily_budget: Option<Money>,
    /// For people and reports.
    pub total_budget: Option<Money>,
    /// Where clicks go that the campaign does not take; with macros, as the `url` of an offer.
    #[schema(format = "url-template")]
    pub fallback_url: Option<String>,
    /// At most 100; a `PATCH` replaces the list, entries with an `id` of the campaign keep it.
    #[schema(max_items = 100)]
    pub landing_pages: Option<Vec<LandingPageInput>>,
    /// At most 100; as `landing_pages`.
    #[schema(max_items = 100)]
    pub offers: Option<Vec<OfferInput>>,
    /// Whether unknown parameters of a click go to the destination too, as they were sent.
    #[schema(value_type = bool, required = false, default = false)]
    pub pass_through: Option<bool>,
}

/// What is to change of a campaign: as [`CampaignInput`], and nothing is required.
pub(crate) struct CampaignPatch;

impl PartialSchema for CampaignPatch {
    fn schema() -> RefOr<Schema> {
        let mut schema = CampaignInput::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.required.clear();
            object.description = Some("What is to change of a campaign; what is not given stays.".to_owned());
            object.example = None;
            object.properties.values_mut().for_each(without_default);
        }
        schema
    }
}

impl ToSchema for CampaignPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        CampaignInput::schemas(schemas);
    }
}

fn without_default(property: &mut RefOr<Schema>) {
    match property {
        RefOr::T(Schema::Object(object)) => object.default = None,
        RefOr::T(Schema::AllOf(all)) => all.default = None,
        RefOr::T(Schema::OneOf(one)) => one.default = None,
        _ => {}
    }
}

/// A landing page as it is asked for.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct LandingPageInput {
    /// The one it was; absent in a new entry.
    #[schema(minimum = 1)]
    pub id: Option<i64>,
    /// 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "A")]
    pub name: String,
    /// http or https (or an app's scheme that is listed), with macros such as `{click_id}`; none in scheme, host or port;
    /// at most 8,192 bytes.
    #[schema(format = "url-template", example = "https://offer.example/?click={click_id}")]
    pub url: String,
    /// Share in the rotation, 0 to 1,000,000.
    #[schema(value_type = i32, required = false, minimum = 0, maximum = 1_000_000, default = 1)]
    pub weight: Option<i32>,
    /// Whether it takes clicks.
    #[schema(value_type = bool, required = false, default = true)]
    pub is_active: Option<bool>,
}

/// An offer as it is asked for.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct OfferInput {
    /// The one it was; absent in a new entry.
    #[schema(minimum = 1)]
    pub id: Option<i64>,
    /// 1 to 255 characters, not only spaces.
    #[schema(min_length = 1, max_length = 255, pattern = "[^\\s]", example = "A")]
    pub name: String,
    /// http or https (or an app's scheme that is listed), with macros such as `{click_id}`; none in scheme, host or port;
    /// at most 8,192 bytes.
    #[schema(format = "url-template", example = "https://offer.example/?click={click_id}")]
    pub url: String,
    /// Share in the rotation, 0 to 1,000,000.
    #[schema(value_type = i32, required = false, minimum = 0, maximum = 1_000_000, default = 1)]
    pub weight: Option<i32>,
    /// Whether it takes clicks.
    #[schema(value_type = bool, required = false, default = true)]
    pub is_active: Option<bool>,
    /// What a conversion of this offer pays us.
    pub payout: Option<Money>,
}

/// Make a campaign
///
/// Links to it work on this node at once and on the others within the polling interval.
#[utoipa::path(
    post, path = "/campaigns", tag = "campaigns", operation_id = "create_campaign",
    request_body = CampaignInput,
    responses(
        (status = 201, description = "It is made.", body = CampaignBody, headers(
            ("Location" = String, description = "Where it is."),
            ("ETag" = String, description = "Its version."),
        )),
        (status = 409, description = "Another campaign has this key.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
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
    let new = read(&body, &Targets::new(&app, &headers))?;
    let campaign = campaigns::insert_as(&app.db, attempt.id, attempt.is_again, new).await?;
    app.campaigns.invalidate_campaign(&campaign.key).await;
    let location = format!("{ROOT}/campaigns/{}", campaign.id);
    api::located(show(&app, StatusCode::CREATED, campaign)?, &location)
}

/// List campaigns
///
/// Newest first.
#[utoipa::path(
    get, path = "/campaigns", tag = "campaigns", operation_id = "list_campaigns",
    params(
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<CampaignBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["limit", "cursor"]);
    let (limit, after) = (params.limit(), params.id_cursor());
    params.finish()?;
    let rows = campaigns::list(&app.db, after, rows_for(limit)).await?;
    let rows = rows.into_iter().map(|c| body(&app, c)).collect();
    answer(StatusCode::OK, &Page::new(rows, limit, |row| id_cursor(row.campaign.id)))
}

/// Show a campaign
///
/// With its landing pages and offers, and the link for ads.
#[utoipa::path(
    get, path = "/campaigns/{id}", tag = "campaigns", operation_id = "get_campaign",
    params(
        ("id" = String, Path, description = "Its id (a UUID with hyphens) or key.", example = "summer-sale"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one."),
    ),
    responses(
        (status = 200, description = "The campaign.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It is still the one of If-None-Match."),
        Problems,
    ),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let campaign = find(&app, &id).await?;
    if api::if_none_match(&headers, campaign.version) {
        return Ok(api::not_modified(campaign.version));
    }
    show(&app, StatusCode::OK, campaign)
}

/// Change a campaign
///
/// Only the fields that are given change; `null` clears an optional one. A list replaces the list: entries
/// that carry an `id` of the campaign keep it, others are new.
#[utoipa::path(
    patch, path = "/campaigns/{id}", tag = "campaigns", operation_id = "update_campaign",
    params(
        ("id" = String, Path, description = "Its id or key.", example = "summer-sale"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "\"3\""),
    ),
    request_body(content = CampaignPatch, example = json!({"status": "paused", "fallback_url": null})),
    responses(
        (status = 200, description = "The campaign as it is now.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 409, description = "Another campaign has this key.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It has changed since.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
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
    let targets = Targets::new(&app, &headers);
    change(&app, &id, &headers, |campaign| Ok(read(&patched(campaign, &patch)?, &targets)?)).await
}

/// Delete a campaign
///
/// Its links stop working, its key is free, its clicks stay.
#[utoipa::path(
    delete, path = "/campaigns/{id}", tag = "campaigns", operation_id = "delete_campaign",
    params(
        ("id" = String, Path, description = "Its id or key.", example = "summer-sale"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since."),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 412, description = "It has changed since.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
        Problems,
    ),
)]
async fn delete(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let campaign = find(&app, &id).await?;
    api::if_match(&headers, campaign.version)?;
    let expected = headers.contains_key(header::IF_MATCH).then_some(campaign.version);
    match campaigns::delete(&app.db, campaign.id, expected).await? {
        Written::Done(()) => {
            app.campaigns.invalidate_campaign(&campaign.key).await;
            Ok(api::no_content())
        }
        Written::Missing => Err(Problem::not_found("campaign")),
        Written::Stale => Err(Problem::precondition_failed()),
    }
}

/// Pause a campaign
///
/// Clicks go to its `fallback_url`, or get a 404, until it is resumed. Pausing a paused one is no error.
#[utoipa::path(
    post, path = "/campaigns/{id}/pause", tag = "campaigns", operation_id = "pause_campaign",
    params(
        ("id" = String, Path, description = "Its id or key.", example = "summer-sale"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since."),
    ),
    responses(
        (status = 200, description = "The campaign as it is now.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 409, description = "It is neither active nor paused.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It has changed since.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
        Problems,
    ),
)]
async fn pause(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    change(&app, &id, &headers, |campaign| switched(campaign, Status::Paused)).await
}

/// Resume a campaign
///
/// It takes clicks again. Resuming an active one is no error.
#[utoipa::path(
    post, path = "/campaigns/{id}/resume", tag = "campaigns", operation_id = "resume_campaign",
    params(
        ("id" = String, Path, description = "Its id or key.", example = "summer-sale"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since."),
    ),
    responses(
        (status = 200, description = "The campaign as it is now.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 409, description = "It is neither active nor paused.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It has changed since.", body = crate::http::error::ProblemBody, content_type = "application/problem+json"),
        Problems,
    ),
)]
async fn resume(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    change(&app, &id, &headers, |campaign| switched(campaign, Status::Active)).await
}

/// The campaign with this id, where it looks like one (a UUID with hyphens), else with this key.
pub(crate) async fn find(app: &Parts, id_or_key: &str) -> Result<Campaign, Problem> {
    let found = match (parse_id(id_or_key), id_or_key.parse::<CampaignKey>()) {
        (Some(id), _) => campaigns::get(&app.db, id).await?,
        (None, Ok(key)) => campaigns::get_by_key(&app.db, key.as_str()).await?,
        (None, Err(_)) => None,
    };
    found.ok_or_else(|| Problem::not_found("campaign"))
}

/// What looks like an id is one, and may be no key.
pub(crate) fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

/// Puts what `decide` makes of a campaign in its place, unless it changed meanwhile: then again.
async fn change(
    app: &Parts,
    id_or_key: &str,
    headers: &HeaderMap,
    decide: impl Fn(&Campaign) -> Result<New, Problem> + Sync,
) -> Result<Response, Problem> {
    for _ in 0..CHANGE_ATTEMPTS {
        let campaign = find(app, id_or_key).await?;
        api::if_match(headers, campaign.version)?;
        let new = decide(&campaign)?;
        if new == as_asked(&campaign) {
            return show(app, StatusCode::OK, campaign);
        }
        match campaigns::update(&app.db, campaign.id, Some(campaign.version), new).await? {
            Written::Done(campaign) => {
                app.campaigns.invalidate_campaign(&campaign.key).await;
                return show(app, StatusCode::OK, campaign);
            }
            Written::Missing => return Err(Problem::not_found("campaign")),
            Written::Stale => {}
        }
    }
    Err(Problem::conflict("It is being changed by others all the time; try again."))
}

fn show(app: &Parts, status: StatusCode, campaign: Campaign) -> Result<Response, Problem> {
    let version = campaign.version;
    Ok(api::versioned(answer(status, &body(app, campaign))?, version))
}

fn body(app: &Parts, campaign: Campaign) -> CampaignBody {
    let click_url = format!("{}/click?cid={}", app.public_url, campaign.key);
    CampaignBody { campaign, click_url }
}

/// The campaign with the fields of `patch` in place of its own.
fn patched(campaign: &Campaign, patch: &Value) -> Result<Value, Problem> {
    let patch = patch.as_object().ok_or_else(|| FieldError::new("", "type", "must be an object"))?;
    let stored = serde_json::to_value(campaign).map_err(Problem::internal)?;
    let mut whole: Map<String, Value> = match stored {
        Value::Object(members) => {
            members.into_iter().filter(|(name, _)| FIELDS.contains(&name.as_str())).collect()
        }
        _ => Map::new(),
    };
    whole.extend(patch.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(Value::Object(whole))
}

/// The campaign with another status, where it may have that.
fn switched(campaign: &Campaign, status: Status) -> Result<New, Problem> {
    match campaign.status {
        Status::Active | Status::Paused => Ok(New { status, ..as_asked(campaign) }),
        other => {
            Err(Problem::conflict(format!("Only active and paused campaigns can be; this one is {other}.")))
        }
    }
}

/// What would have to be asked for to get this campaign.
fn as_asked(campaign: &Campaign) -> New {
    let destination = |d: &Destination| NewDestination {
        id: Some(d.id),
        name: d.name.clone(),
        url: d.url.clone(),
        weight: d.weight,
        is_active: d.is_active,
        payout: d.payout,
    };
    New {
        key: Some(campaign.key.clone()),
        name: campaign.name.clone(),
        description: campaign.description.clone(),
        status: campaign.status,
        start_at: campaign.start_at,
        end_at: campaign.end_at,
        cost_model: campaign.cost_model,
        payout: campaign.payout,
        daily_budget: campaign.daily_budget,
        total_budget: campaign.total_budget,
        fallback_url: campaign.fallback_url.clone(),
        landing_pages: campaign.landing_pages.iter().map(destination).collect(),
        offers: campaign.offers.iter().map(destination).collect(),
        pass_through: campaign.pass_through,
    }
}

/// Reads a whole campaign; names everything that is wrong with it.
fn read(value: &Value, targets: &Targets) -> Result<New, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let key = f.optional_parsed::<CampaignKey>("key", "pattern");
    if key.as_ref().is_some_and(|key| parse_id(key.as_str()).is_some()) {
        f.refuse("key", "pattern", "must not look like an id (a UUID)");
    }
    let name = read_name(&mut f);
    let new = New {
        key,
        name: name.unwrap_or_default(),
        description: f.optional_text("description", 0..=2000).map(str::to_owned),
        status: f.choice("status", Status::Active),
        start_at: f.time("start_at"),
        end_at: f.time("end_at"),
        cost_model: f.choice("cost_model", CostModel::Cpa),
        payout: f.money("payout"),
        daily_budget: f.money("daily_budget"),
        total_budget: f.money("total_budget"),
        fallback_url: f
            .optional_url_template("fallback_url", &targets.app_schemes)
            .and_then(|t| targets.check(&t, "fallback_url", &mut f)),
        landing_pages: f.list("landing_pages", DESTINATIONS_MAX, |f| {
            f.refuse_unknown(LANDING_PAGE_FIELDS, &[]);
            read_destination(f, targets)
        }),
        offers: f.list("offers", DESTINATIONS_MAX, |f| {
            f.refuse_unknown(OFFER_FIELDS, &[]);
            let payout = f.money("payout");
            Some(NewDestination { payout, ..read_destination(f, targets)? })
        }),
        pass_through: f.boolean("pass_through", false),
    };
    if new.start_at.zip(new.end_at).is_some_and(|(start, end)| end <= start) {
        f.refuse("end_at", "range", "must be after start_at");
    }
    refuse_repeated_ids(&mut f, "landing_pages", &new.landing_pages);
    refuse_repeated_ids(&mut f, "offers", &new.offers);
    f.refuse_unknown(FIELDS, READ_ONLY_FIELDS);
    f.finish_with(Some(new))
}

fn read_name(f: &mut Fields<'_>) -> Option<String> {
    let name = f.text("name", 1..=255)?;
    if name.trim().is_empty() {
        f.refuse("name", "length", "must not be blank");
        return None;
    }
    Some(name.to_owned())
}

fn read_destination(f: &mut Fields<'_>, targets: &Targets) -> Option<NewDestination> {
    let name = read_name(f);
    let url = f.url_template("url", &targets.app_schemes).and_then(|t| targets.check(&t, "url", f));
    let id = f.optional_integer("id", 1..=i64::MAX);
    let weight = f.integer("weight", 0..=1_000_000, 1);
    let is_active = f.boolean("is_active", true);
    let weight = i32::try_from(weight).unwrap_or(i32::MAX);
    Some(NewDestination { id, name: name?, url: url?, weight, is_active, payout: None })
}

fn refuse_repeated_ids(f: &mut Fields<'_>, list: &str, destinations: &[NewDestination]) {
    let mut ids: Vec<i64> = destinations.iter().filter_map(|d| d.id).collect();
    ids.sort_unstable();
    if let Some([id, _]) = ids.array_windows().find(|[a, b]| a == b) {
        f.refuse(list, "repeated", format!("has the id {id} more than once"));
    }
}

/// What a destination may be: a web address or a listed app's, but no click link of this tracker, which would send
/// visitors round and round.
#[derive(Debug)]
struct Targets {
    own_hosts: Vec<String>,
    app_schemes: Vec<Scheme>,
}

impl Targets {
    fn new(app: &App, headers: &HeaderMap) -> Self {
        Self::of(&app.public_url, headers, &app.config.tracking.app_schemes)
    }

    fn of(public_url: &str, headers: &HeaderMap, app_schemes: &[Scheme]) -> Self {
        let asked = headers.get(header::HOST).and_then(|v| v.to_str().ok());
        let urls = [Some(public_url.to_owned()), asked.map(|host| format!("http://{host}/"))];
        let host = |url: String| url::Url::parse(&url).ok()?.host_str().map(plain_host);
        let own_hosts = urls.into_iter().flatten().filter_map(host).collect();
        Self { own_hosts, app_schemes: app_schemes.to_vec() }
    }

    /// The template in canonical form, unless it leads to a click link of ours.
    fn check(&self, template: &Template, field: &str, f: &mut Fields<'_>) -> Option<String> {
        let is_own = self.own_hosts.contains(&plain_host(template.host()));
        if is_own && (matches!(template.path(), "/click" | "/click/") || template.path().starts_with("/c/")) {
            f.refuse(
                field,
                "redirect_loop",
                "is a click link of this tracker: clicks would go round and round",
            );
            return None;
        }
        Some(template.canonical())
    }
}

fn plain_host(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn targets() -> Targets {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("10.0.0.7:8080"))]);
        Targets::of("https://Track.example", &headers, &[])
    }

    fn faults(value: &Value) -> Vec<(String, &'static str)> {
        read(value, &targets()).err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    fn campaign() -> Campaign {
        serde_json::from_value(json!({
            "id": crate::model::id::new_uuid(), "key": "k", "name": "n", "description": "d", "status": "active",
            "start_at": null, "end_at": null, "cost_model": "cpc", "payout": {"amount": "2.00", "currency": "EUR"},
            "daily_budget": null, "total_budget": null, "fallback_url": "https://f.example/",
            "landing_pages": [{"id": 5, "name": "a", "url": "https://a.example/", "weight": 1, "is_active": true}],
            "offers": [{"id": 6, "name": "b", "url": "https://b.example/", "weight": 1, "is_active": true,
                "payout": {"amount": "1.00", "currency": "EUR"}}],
            "pass_through": true, "version": 9, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_name_is_enough() {
        let new = read(&json!({"name": "Summer"}), &targets()).unwrap();
        assert_eq!((new.key, new.status, new.cost_model), (None, Status::Active, CostModel::Cpa));
        assert!(!new.pass_through && new.landing_pages.is_empty());
    }

    #[test]
    fn every_fault_of_a_campaign_is_named() {
        let body = json!({
            "name": " ", "key": "019aaf3c-5f00-7abc-8def-0123456789ab", "status": "on",
            "start_at": "2026-02-01T00:00:00Z", "end_at": "2026-02-01T00:00:00Z", "id": 1, "ofers": [],
            "landing_pages": [{"name": "a", "url": "https://a.example/{nosuch}", "payout": null}],
            "offers": [{"id": 3, "name": "a", "url": "https://a.example/"}, {"id": 3, "name": "", "weight": -1},
                {"id": 3, "name": "a", "url": "https://a.example/"}],
        });
        let wanted = [
            ("/key", "pattern"),
            ("/name", "length"),
            ("/status", "choice"),
            ("/landing_pages/0/payout", "unknown"),
            ("/landing_pages/0/url", "url"),
            ("/offers/1/name", "length"),
            ("/offers/1/url", "required"),
            ("/offers/1/weight", "range"),
            ("/end_at", "range"),
            ("/offers", "repeated"),
            ("/id", "read_only"),
            ("/ofers", "unknown"),
        ];
        assert_eq!(faults(&body), wanted.map(|(pointer, code)| (pointer.to_owned(), code)));
    }

    #[test]
    fn a_destination_must_not_lead_back_to_a_click_link() {
        let with =
            |url: &str| json!({"name": "n", "fallback_url": url, "offers": [{"name": "o", "url": url}]});
        for own in [
            "https://track.example/click?cid=x",
            "https://track.example/click/?cid=x",
            "http://TRACK.example:99/c/x",
            "http://10.0.0.7/c/{sub1}",
        ] {
            let wanted = ["/fallback_url", "/offers/0/url"].map(|p| (p.to_owned(), "redirect_loop"));
            assert_eq!(faults(&with(own)), wanted, "{own}");
        }
        for other in ["https://track.example/thanks", "https://other.example/click?cid=x"] {
            assert_eq!(faults(&with(other)), [], "{other}");
        }
    }

    #[test]
    fn an_empty_patch_changes_nothing() {
        let campaign = campaign();
        let new = read(&patched(&campaign, &json!({})).unwrap(), &targets()).unwrap();
        assert_eq!(new, as_asked(&campaign));
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_clears() {
        let campaign = campaign();
        let patch =
            json!({"payout": null, "name": "new", "offers": [{"name": "c", "url": "https://c.example"}]});
        let new = read(&patched(&campaign, &patch).unwrap(), &targets()).unwrap();
        assert_eq!((new.payout, new.name.as_str(), new.cost_model), (None, "new", CostModel::Cpc));
        assert_eq!((new.landing_pages[0].id, new.offers[0].id), (Some(5), None));
        let refused = read(&patched(&campaign, &json!({"name": null, "status": null})).unwrap(), &targets())
            .unwrap_err();
        assert_eq!(refused.len(), 2);
    }

    #[test]
    fn only_active_and_paused_campaigns_are_switched() {
        let mut campaign = campaign();
        assert_eq!(switched(&campaign, Status::Paused).unwrap().status, Status::Paused);
        campaign.status = Status::Cancelled;
        assert_eq!(switched(&campaign, Status::Active).unwrap_err().status(), StatusCode::CONFLICT);
    }

    #[test]
    fn the_document_describes_the_fields_that_are_read() {
        let names = |schema: utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>| {
            let json = serde_json::to_value(schema).unwrap();
            let mut names: Vec<String> = json["properties"].as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let sorted = |fields: &[&str]| {
            let mut fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            fields.sort();
            fields
        };
        assert_eq!(names(CampaignInput::schema()), sorted(FIELDS));
        assert_eq!(names(LandingPageInput::schema()), sorted(LANDING_PAGE_FIELDS));
        assert_eq!(names(OfferInput::schema()), sorted(OFFER_FIELDS));
    }
}
