//! `/api/v1/campaigns`: make, show, change, stop and delete campaigns.
//!
//! A change reads the campaign, lays over it what the request changes, which is checked as in a new one, and writes it
//! if it is still in the version that was read: one set of rules, and no lost update.

pub(crate) mod copy;
mod drafted;
pub(crate) mod explain;
mod input;
pub(crate) mod links;
mod rules;
mod test_link;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::{
        campaigns::{self, Filter, Written},
        library,
    },
    http::{
        api::{
            library::search,
            manners::{
                answer::{ROOT, answer, located, no_content},
                auth::{Admin, Read},
                etag,
                idempotency::Attempt,
                page::{Page, Params, id_cursor, rows_for},
                problems::Problems,
                request::{Json, Name, parse_id},
            },
        },
        error::Problem,
    },
    model::{
        campaign::{Campaign, Status, Terms},
        id::CampaignKey,
    },
};
use input::{Asked, CampaignInput, CampaignPatch};

pub(super) use input::{Allowed, Kind};
pub(super) use rules::read_caps;

/// Attempts at a change that others keep overtaking.
const CHANGE_ATTEMPTS: u32 = 5;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(copy::copy))
        .routes(routes!(links::links))
        .routes(routes!(test_link::make))
        .merge(explain::router())
}

/// A campaign as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Campaign)]
pub(crate) struct CampaignBody {
    /// Ours, a UUIDv7.
    id: Uuid,
    /// What links show; unique among campaigns that are not deleted.
    #[schema(value_type = String, example = "summer-sale")]
    key: CampaignKey,
    #[serde(flatten)]
    terms: Terms,
    /// Counts changes; the ETag.
    version: i64,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// The link for ads.
    #[schema(example = "https://track.example/click?cid=summer-sale")]
    click_url: String,
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
        (status = 409, description = "Another campaign has this key."),
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
    let campaign = made(&app, &body, &headers, attempt.id, attempt.is_again).await?;
    let location = format!("{ROOT}/campaigns/{}", campaign.id);
    located(show(&app, StatusCode::CREATED, campaign)?, &location)
}

/// The campaign that a body asks for, made, with this id; `is_again`: unless there is one.
pub(crate) async fn made(
    app: &Parts,
    body: &Value,
    headers: &HeaderMap,
    id: Uuid,
    is_again: bool,
) -> Result<Campaign, Problem> {
    let Asked { key, terms } = input::read(body, None, &allowed(app, headers, body).await?)?;
    let campaign = campaigns::insert_as(&app.db, id, is_again, key, terms).await?;
    app.campaigns.invalidate_campaign(&campaign.key).await;
    Ok(campaign)
}

/// List campaigns
///
/// Newest first; those that are asked for.
#[utoipa::path(
    get, path = "/campaigns", tag = "campaigns", operation_id = "list_campaigns",
    params(
        ("q" = Option<String>, Query, description = "Part of the name or key, in any case.", max_length = 255, example = "sale"),
        ("status" = Option<Status>, Query, description = "In this state.", example = "active"),
        ("source" = Option<i64>, Query, description = "Of this traffic source.", minimum = 1, example = 3),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:[0-9a-f]{32})?$", example = "019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<CampaignBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["q", "status", "source", "limit", "cursor"]);
    let filter = Filter {
        q: search(&mut params),
        status: params.parsed("status", "choice"),
        traffic_source_id: params.id("source"),
    };
    let (limit, after) = (params.limit(), params.id_cursor());
    params.finish()?;
    let rows = campaigns::list(&app.db, filter, after, rows_for(limit)).await?;
    let rows = rows.into_iter().map(|c| body(&app, c)).collect();
    answer(StatusCode::OK, &Page::new(rows, limit, |row| id_cursor(row.id)))
}

/// Show a campaign
///
/// With its landing pages and offers, and the link for ads.
#[utoipa::path(
    get, path = "/campaigns/{id}", tag = "campaigns", operation_id = "get_campaign",
    params(
        ("id" = String, Path, description = "Its id (a UUID with hyphens) or key.", example = "summer-sale"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The campaign.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
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
    if etag::if_none_match(&headers, campaign.version) {
        return Ok(etag::not_modified(campaign.version));
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
        (status = 409, description = "Another campaign has this key."),
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
    show(&app, StatusCode::OK, patched(&app, &id, &patch, &headers).await?)
}

/// The campaign as it is with what a patch changes, unless `If-Match` names another version.
pub(crate) async fn patched(
    app: &Parts,
    id_or_key: &str,
    patch: &Value,
    headers: &HeaderMap,
) -> Result<Campaign, Problem> {
    let allowed = allowed(app, headers, patch).await?;
    change(app, id_or_key, headers, |campaign| Ok(input::read(patch, Some(campaign), &allowed)?)).await
}

/// What a request may ask for.
async fn allowed(app: &Parts, headers: &HeaderMap, body: &Value) -> Result<Allowed, Problem> {
    allowed_with(app, headers, body, None).await
}

/// [`allowed`], over terms that name things of the library already.
async fn allowed_with(
    app: &Parts,
    headers: &HeaderMap,
    body: &Value,
    was: Option<&Terms>,
) -> Result<Allowed, Problem> {
    let (mut pages, mut offers) = rules::library_ids(body);
    if let Some(was) = was {
        pages.extend(was.all_landing_pages().filter(|d| d.library).filter_map(|d| d.id));
        offers.extend(was.all_offers().filter(|d| d.library).filter_map(|d| d.id));
        offers.extend(was.all_offers().filter_map(|d| d.overflow_offer_id));
    }
    Ok(Allowed::new(app, headers, library::named(&app.db, pages, offers).await?))
}

/// Delete a campaign
///
/// Its links stop working, its key is free, its clicks stay.
#[utoipa::path(
    delete, path = "/campaigns/{id}", tag = "campaigns", operation_id = "delete_campaign",
    params(
        ("id" = String, Path, description = "Its id or key.", example = "summer-sale"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 204, description = "It is gone."),
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
    etag::if_match(&headers, campaign.version)?;
    let expected = headers.contains_key(header::IF_MATCH).then_some(campaign.version);
    match campaigns::delete(&app.db, campaign.id, expected).await? {
        Written::Done(()) => {
            app.campaigns.invalidate_campaign(&campaign.key).await;
            Ok(no_content())
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
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 200, description = "The campaign as it is now.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 409, description = "It is neither active nor paused."),
        Problems,
    ),
)]
async fn pause(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    show(&app, StatusCode::OK, switched_to(&app, &id, Status::Paused, &headers).await?)
}

/// Resume a campaign
///
/// It takes clicks again. Resuming an active one is no error.
#[utoipa::path(
    post, path = "/campaigns/{id}/resume", tag = "campaigns", operation_id = "resume_campaign",
    params(
        ("id" = String, Path, description = "Its id or key.", example = "summer-sale"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 200, description = "The campaign as it is now.", body = CampaignBody,
            headers(("ETag" = String, description = "Its version."))),
        (status = 409, description = "It is neither active nor paused."),
        Problems,
    ),
)]
async fn resume(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    show(&app, StatusCode::OK, switched_to(&app, &id, Status::Active, &headers).await?)
}

/// The campaign as it is once it is paused or active, where it may be.
pub(crate) async fn switched_to(
    app: &Parts,
    id_or_key: &str,
    status: Status,
    headers: &HeaderMap,
) -> Result<Campaign, Problem> {
    change(app, id_or_key, headers, |campaign| switched(campaign, status)).await
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

/// Puts what `decide` makes of a campaign in its place, unless it changed meanwhile: then again.
async fn change(
    app: &Parts,
    id_or_key: &str,
    headers: &HeaderMap,
    decide: impl Fn(&Campaign) -> Result<Asked, Problem> + Sync,
) -> Result<Campaign, Problem> {
    for _ in 0..CHANGE_ATTEMPTS {
        let campaign = find(app, id_or_key).await?;
        etag::if_match(headers, campaign.version)?;
        let Asked { key, terms } = decide(&campaign)?;
        let key = key.unwrap_or_else(|| campaign.key.clone());
        if (&key, &terms) == (&campaign.key, &campaign.terms) {
            return Ok(campaign);
        }
        match campaigns::update(&app.db, campaign.id, Some(campaign.version), key, terms).await? {
            Written::Done(campaign) => {
                app.campaigns.invalidate_campaign(&campaign.key).await;
                return Ok(campaign);
            }
            Written::Missing => return Err(Problem::not_found("campaign")),
            Written::Stale => {}
        }
    }
    Err(Problem::conflict("It is being changed by others all the time; try again."))
}

fn show(app: &Parts, status: StatusCode, campaign: Campaign) -> Result<Response, Problem> {
    let version = campaign.version;
    Ok(etag::versioned(answer(status, &body(app, campaign))?, version))
}

fn body(app: &Parts, campaign: Campaign) -> CampaignBody {
    let click_url = format!("{}/click?cid={}", app.public_url, campaign.key);
    let Campaign { id, key, terms, version, created_at, updated_at, .. } = campaign;
    CampaignBody { id, key, terms, version, created_at, updated_at, click_url }
}

/// The campaign with another status, where it may have that.
fn switched(campaign: &Campaign, status: Status) -> Result<Asked, Problem> {
    match campaign.terms.status {
        Status::Active | Status::Paused => {
            Ok(Asked { key: None, terms: Terms { status, ..campaign.terms.clone() } })
        }
        other => {
            Err(Problem::conflict(format!("Only active and paused campaigns can be; this one is {other}.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_is_shown_flat_and_its_fields_in_this_order() {
        let mut terms = Terms::demo("https://a.example/");
        terms.landing_pages[0].id = Some(7);
        let key = "k".parse().unwrap();
        let at = DateTime::UNIX_EPOCH;
        let click_url = "https://t.example/click?cid=k".to_owned();
        let body = CampaignBody {
            id: Uuid::nil(),
            key,
            terms,
            version: 3,
            created_at: at,
            updated_at: at,
            click_url,
        };
        let wanted = concat!(
            r#"{"id":"00000000-0000-0000-0000-000000000000","key":"k","name":"Demo campaign","#,
            r#""description":"To try octo with; change it or delete it.","status":"active","start_at":null,"end_at":null,"#,
            r#""cost_model":"cpa","cost":null,"revenue_share":null,"payout":null,"daily_budget":null,"total_budget":null,"fallback_url":null,"#,
            r#""landing_pages":[{"id":7,"name":"Demo page","url":"https://a.example/","weight":1,"is_active":true}],"#,
            r#""offers":[],"offer_choice":"out","caps":[],"paths":[],"rules":[],"sticky":"off","epoch":0,"time_zone":"UTC","#,
            r#""traffic_source_id":null,"pass_through":false,"version":3,"created_at":"1970-01-01T00:00:00Z","#,
            r#""updated_at":"1970-01-01T00:00:00Z","click_url":"https://t.example/click?cid=k"}"#,
        );
        assert_eq!(serde_json::to_string(&body).unwrap(), wanted);
    }

    #[test]
    fn only_active_and_paused_campaigns_are_switched() {
        let mut campaign = Campaign::of("k".parse().unwrap(), Terms::demo("https://a.example/"));
        assert_eq!(switched(&campaign, Status::Paused).unwrap().terms.status, Status::Paused);
        campaign.terms.status = Status::Cancelled;
        assert_eq!(switched(&campaign, Status::Active).unwrap_err().status(), StatusCode::CONFLICT);
    }
}
