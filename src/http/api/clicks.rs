//! `/api/v1/clicks`: show and correct stored clicks. A click is there when the drain has stored it, usually within a second.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    app::{App, Parts},
    db::store::{
        campaigns,
        clicks::{self, Change, Correction, Filter},
    },
    http::{
        api::{
            manners::{
                answer::answer,
                auth::{Admin, Read},
                etag,
                page::{Page, Params, cursor, rows_for},
                problems::Problems,
                request::{Json, Name, parse_id},
            },
            views::click::Click,
        },
        error::{FieldError, Problem},
        fields::{Fields, Given},
        track::event::input::Slug,
    },
    model::{
        id::{CampaignKey, ClickId},
        money::Money,
    },
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(get, correct))
}

/// List clicks
///
/// Newest first. Of a campaign, only the hours are searched that may have such clicks; of all, with `is_valid`, give
/// `from` where few are such. A page with fewer entries than `limit` and `has_more` is one whose search took too long
/// (clicks of many hours were erased): go on with its cursor.
#[utoipa::path(
    get, path = "/clicks", tag = "clicks", operation_id = "list_clicks",
    params(
        ("cid" = Option<String>, Query, description = "Of the campaign with this key or id.", example = "summer-sale"),
        ("from" = Option<String>, Query, description = "Not before this time (RFC 3339).", example = "2026-01-01T00:00:00Z"),
        ("to" = Option<String>, Query, description = "Before this time (RFC 3339).", example = "2026-02-01T00:00:00Z"),
        ("is_valid" = Option<bool>, Query, description = "Only those that count, or only those that do not.", example = true),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:00[0-9a-f]{46})?$", example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<Click>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["cid", "from", "to", "is_valid", "limit", "cursor"]);
    let (limit, after) = (params.limit(), params.cursor());
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
    let time_max = app.config.api.list_time_max;
    let listed = clicks::list(&app.db, filter, after, rows_for(limit), time_max).await?;
    let page = Page::new(listed.clicks, limit, |row| cursor(row.created_at, row.id));
    let page = page.shown::<Click>();
    answer(StatusCode::OK, &page.or_goes_on(listed.searched_to.map(|before| cursor(before, Uuid::nil()))))
}

/// Show a click
///
/// With what was known of the visitor and what became of it since.
#[utoipa::path(
    get, path = "/clicks/{click_id}", tag = "clicks", operation_id = "get_click",
    params(
        ("click_id" = String, Path, description = "Its id: the one of `X-Click-Id`, or the 22 characters of `{click_id:short}`.", example = "019aaf3c-5f00-7abc-8def-0123456789ab"),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The click.", body = Click,
            headers(("ETag" = String, description = "Its state."))),
        Problems,
    ),
)]
async fn get(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id.parse().map_err(|()| Problem::not_found("click"))?;
    let click = clicks::get(&app.db, id).await?.ok_or_else(|| Problem::not_found("click"))?;
    etag::tagged(&headers, &Click::from(click))
}

/// What is put right about a click.
#[derive(Debug, Clone, Default, PartialEq, Eq, ToSchema)]
struct ClickPatch {
    /// Whether it counts; `false` needs an `invalid_reason`.
    #[schema(value_type = bool, required = false)]
    is_valid: Option<bool>,
    /// Why it does not count: 1 to 64 of `a-z0-9_.-`; only with `is_valid: false`.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9_.-]{1,64}$", example = "fraud")]
    invalid_reason: Change<String>,
    /// What it cost us.
    #[schema(value_type = Option<Money>)]
    cost: Change<Money>,
    /// The kind of its first conversion: 1 to 64 of `a-z0-9_.-`.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9_.-]{1,64}$", example = "purchase")]
    conversion_type: Change<String>,
    /// When it first converted (RFC 3339).
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-01-31T12:00:00Z")]
    converted_at: Change<DateTime<Utc>>,
}

/// Correct a click
///
/// Only the fields that are given change; `null` clears an optional one. Figures of the campaign follow at once.
#[utoipa::path(
    patch, path = "/clicks/{click_id}", tag = "clicks", operation_id = "correct_click",
    params(
        ("click_id" = String, Path, description = "Its id: the one of `X-Click-Id`, or the 22 characters of `{click_id:short}`.", example = "019aaf3c-5f00-7abc-8def-0123456789ab"),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    request_body(content = ClickPatch, example = json!({"is_valid": false, "invalid_reason": "fraud"})),
    responses(
        (status = 200, description = "The click as it is now.", body = Click,
            headers(("ETag" = String, description = "Its state."))),
        Problems,
    ),
)]
async fn correct(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
    Json(patch): Json,
) -> Result<Response, Problem> {
    let id: ClickId = id.parse().map_err(|()| Problem::not_found("click"))?;
    let patch = ClickPatch::read(&patch)?;
    let expected = if headers.contains_key(header::IF_MATCH) {
        let stored = clicks::get_newest(&app.db, id).await?.ok_or_else(not_stored)?;
        let version = stored.updated_at;
        etag::if_match_shown(&headers, &Click::from(stored))?;
        Some(version)
    } else {
        None
    };
    let click = clicks::upsert(&app.db, id, expected, patch.into()).await?;
    let unchanged = || if expected.is_some() { Problem::precondition_failed() } else { not_stored() };
    etag::tagged(&HeaderMap::new(), &Click::from(click.ok_or_else(unchanged)?))
}

fn not_stored() -> Problem {
    let detail = "There is no such click. One that was just made can be corrected once it is stored, usually \
                  within a second.";
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

const FIELDS: [&str; 5] = ["is_valid", "invalid_reason", "cost", "conversion_type", "converted_at"];
const READ_ONLY_FIELDS: [&str; 4] = ["id", "campaign_id", "created_at", "updated_at"];

impl ClickPatch {
    /// Reads a patch; names everything that is wrong with it.
    fn read(body: &Value) -> Result<Self, Vec<FieldError>> {
        let mut fields = Fields::new(body, "").map_err(|e| vec![e])?;
        let (is_valid, invalid_reason) = validity(&mut fields);
        let patch = Self {
            is_valid,
            invalid_reason,
            cost: change(&mut fields, "cost", Fields::money),
            conversion_type: change(&mut fields, "conversion_type", word),
            converted_at: change(&mut fields, "converted_at", Fields::time),
        };
        fields.refuse_unknown(&FIELDS, &READ_ONLY_FIELDS);
        let is_empty = Correction::from(patch.clone()) == Correction::default();
        if fields.is_valid() && is_empty {
            return Err(vec![FieldError::new("", "required", "must hold what is to be corrected")]);
        }
        fields.finish_with(Some(patch))
    }
}

impl From<ClickPatch> for Correction {
    fn from(patch: ClickPatch) -> Self {
        Self {
            invalid_reason: match patch.is_valid {
                None => Change::Keep,
                Some(true) => Change::Clear,
                Some(false) => patch.invalid_reason,
            },
            cost: patch.cost,
            conversion_type: patch.conversion_type,
            converted_at: patch.converted_at,
        }
    }
}

/// `is_valid` and `invalid_reason`: one says what the other does, so they come together.
fn validity(fields: &mut Fields<'_>) -> (Option<bool>, Change<String>) {
    let reason = change(fields, "invalid_reason", word);
    let has_reason = matches!(fields.given("invalid_reason"), Given::Value(_));
    if fields.given("is_valid") == Given::Absent {
        if has_reason {
            fields.refuse("is_valid", "required", "must be false where invalid_reason is given");
        }
        return (None, reason);
    }
    let is_valid = fields.boolean("is_valid", !has_reason);
    if is_valid && has_reason {
        fields.refuse("invalid_reason", "range", "must be left out where is_valid is true");
    } else if !is_valid && !has_reason {
        fields.refuse("invalid_reason", "required", "is required where is_valid is false");
    }
    (Some(is_valid), reason)
}

fn word(fields: &mut Fields<'_>, name: &str) -> Option<String> {
    fields.optional_parsed::<Slug>(name, "pattern").map(|word| word.0)
}

/// What a patch says about a field that `read` reads.
fn change<'v, T>(
    fields: &mut Fields<'v>,
    name: &str,
    read: impl FnOnce(&mut Fields<'v>, &str) -> Option<T>,
) -> Change<T> {
    match fields.given(name) {
        Given::Absent => Change::Keep,
        Given::Null => Change::Clear,
        Given::Value(_) => read(fields, name).map_or(Change::Keep, Change::Set),
    }
}

/// Campaigns with this key or id, deleted ones too.
pub(super) async fn ids_of(app: &Parts, cid: &str) -> Result<Vec<Uuid>, Problem> {
    if let Some(id) = parse_id(cid) {
        return Ok(vec![id]);
    }
    let Ok(key) = cid.parse::<CampaignKey>() else { return Err(Problem::not_found("campaign")) };
    let ids = campaigns::ids_of_key(&app.db, key.as_str()).await?;
    if ids.is_empty() { Err(Problem::not_found("campaign")) } else { Ok(ids) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn a_correction_changes_what_is_given_and_clears_what_is_null() {
        let correct = |patch| Correction::from(ClickPatch::read(&patch).unwrap());
        let correction = correct(json!({ "is_valid": false, "invalid_reason": "fraud", "cost": null }));
        let wanted = Correction {
            invalid_reason: Change::Set("fraud".to_owned()),
            cost: Change::Clear,
            ..Correction::default()
        };
        assert_eq!(correction, wanted);
        let valid = correct(json!({ "is_valid": true, "invalid_reason": null }));
        assert_eq!(valid, Correction { invalid_reason: Change::Clear, ..Correction::default() });
    }

    #[test]
    fn every_bad_field_of_a_correction_is_named() {
        for (patch, wanted) in [
            (json!({}), &[("", "required")][..]),
            (json!({ "is_valid": false }), &[("/invalid_reason", "required")]),
            (json!({ "invalid_reason": "fraud" }), &[("/is_valid", "required")]),
            (json!({ "is_valid": true, "invalid_reason": "fraud" }), &[("/invalid_reason", "range")]),
            (json!({ "is_valid": null }), &[("/is_valid", "required")]),
            (json!({ "is_valid": false, "invalid_reason": "Very Bad" }), &[("/invalid_reason", "pattern")]),
            (
                json!({ "is_valid": 7, "cost": { "amount": "-1", "currency": "USD" }, "converted_at": "then",
                    "conversion_type": "", "id": "x", "sub1": "x" }),
                &[
                    ("/is_valid", "type"),
                    ("/cost/amount", "range"),
                    ("/conversion_type", "pattern"),
                    ("/converted_at", "time"),
                    ("/id", "read_only"),
                    ("/sub1", "unknown"),
                ],
            ),
        ] {
            let errors = ClickPatch::read(&patch).unwrap_err();
            let found: Vec<_> = errors.iter().map(|e| (e.pointer.as_str(), e.code)).collect();
            assert_eq!(found, wanted, "{patch}");
        }
    }

    #[test]
    fn the_document_describes_the_fields_that_are_read() {
        let schema = serde_json::to_value(ClickPatch::schema()).unwrap();
        let mut described: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let mut read = FIELDS.map(str::to_owned);
        described.sort();
        read.sort();
        assert_eq!(described, read);
    }
}
