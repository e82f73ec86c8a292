//! `/api/v1/clicks`: show stored clicks. A click is there when the drain has stored it, usually within a second.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    api::{Name, answer},
    auth::Read,
    campaigns::parse_id,
    error::Problem,
    openapi::Problems,
    page::{Page, Params, cursor, rows_for},
};
use crate::{
    app::{App, Parts},
    db::{
        campaigns,
        clicks::{self, Click, Filter},
    },
    model::id::CampaignKey,
};

/// The routes of this module.
pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(get))
}

/// List clicks
///
/// Newest first. Give `from` where you can: it keeps the search short.
#[utoipa::path(
    get, path = "/clicks", tag = "clicks", operation_id = "list_clicks",
    params(
        ("cid" = Option<String>, Query, description = "Of the campaign with this key or id.", example = "summer-sale"),
        ("from" = Option<String>, Query, description = "Not before this time (RFC 3339).", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Before this time (RFC 3339).", example = "2026-02-01T00:00:00Z"),
        ("is_valid" = Option<bool>, Query, description = "Only those that count, or only those that do not."),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Click>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["cid", "from", "to", "is_valid", "limit", "cursor"]);
    let (limit, after) = (params.limit(), params.cursor()?);
    let (from, to, is_valid) = (params.time("from"), params.time("to"), params.boolean("is_valid"));
    let cid = params.text("cid").map(str::to_owned);
    if from.zip(to).is_some_and(|(from, to)| to <= from) {
        params.refuse("to", "range", "must be after from");
    }
    params.finish()?;
    let campaign_ids = match cid {
        Some(cid) => Some(ids_of(&app, &cid).await?),
        None => None,
    };
    let filter = Filter { campaign_ids, from, to, is_valid };
    let rows = clicks::list(&app.db, filter, after, rows_for(limit)).await?;
    answer(StatusCode::OK, &Page::new(rows, limit, |row| cursor(row.created_at, row.id)))
}

/// Show a click
#[utoipa::path(
    get, path = "/clicks/{click_id}", tag = "clicks", operation_id = "get_click",
    params(("click_id" = Uuid, Path, description = "Its id: the one of `X-Click-Id`.")),
    responses((status = 200, description = "The click.", body = Click), Problems),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    let id = id.parse().map_err(|()| Problem::not_found("click"))?;
    let click = clicks::get(&app.db, id).await?.ok_or_else(|| Problem::not_found("click"))?;
    answer(StatusCode::OK, &click)
}

/// Campaigns with this key or id, deleted ones too.
async fn ids_of(app: &Parts, cid: &str) -> Result<Vec<Uuid>, Problem> {
    if let Some(id) = parse_id(cid) {
        return Ok(vec![id]);
    }
    let Ok(key) = cid.parse::<CampaignKey>() else { return Err(Problem::not_found("campaign")) };
    let ids = campaigns::ids_of_key(&app.db, key.as_str()).await?;
    if ids.is_empty() { Err(Problem::not_found("campaign")) } else { Ok(ids) }
}
