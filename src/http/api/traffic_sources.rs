//! `/api/v1/traffic-sources`: what a source calls its parameters, and where a click keeps them.

mod input;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, Parts},
    db::store::{
        traffic_sources::{self, RECENT_DAYS, Recent, TrafficSource},
        uses::Thing,
    },
    http::{
        api::{
            library::{self, CampaignUse, Noun, Used, read_list},
            manners::{
                auth::{Admin, Read},
                idempotency::Attempt,
                page::{Page, rows_for},
                problems::Problems,
                request::{Json, Name},
            },
        },
        error::Problem,
    },
    model::source::SourceTerms,
};
use input::{TrafficSourceInput, TrafficSourcePatch};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(campaigns))
}

/// A traffic source as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrafficSource)]
pub(crate) struct TrafficSourceBody {
    /// Ours; what `traffic_source_id` of a campaign names.
    #[schema(minimum = 1, example = 3)]
    id: i64,
    #[serde(flatten)]
    terms: SourceTerms,
    /// Since when it is put away.
    archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    version: i64,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// Its clicks of the last days; no part of its version.
    recent: RecentClicks,
}

/// Clicks of a traffic source that are stored, of today and the days before (UTC).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecentClicks {
    /// How many days, today's among them.
    #[schema(example = 7)]
    days: u16,
    /// All of them.
    clicks: i64,
    /// Those with a macro that the source did not fill, such as `{campaign}`: its links are not as it needs them.
    unexpanded: i64,
}

impl Used for TrafficSource {
    fn thing(id: i64) -> Thing {
        Thing::TrafficSource(id)
    }
}

impl Noun for TrafficSource {
    type Body = TrafficSourceBody;

    const NAME: &'static str = "traffic source";
    const PATH: &'static str = "/traffic-sources";
    const IS_IN_CAMPAIGNS: bool = true;

    fn shown(self, _: &Parts) -> TrafficSourceBody {
        self.into()
    }

    async fn read(
        _: &Parts,
        _: &HeaderMap,
        asked: &Value,
        was: Option<&Self>,
    ) -> Result<SourceTerms, Problem> {
        Ok(input::read(asked, was.map(|source| &source.terms))?)
    }
}

impl From<TrafficSource> for TrafficSourceBody {
    fn from(source: TrafficSource) -> Self {
        let TrafficSource { id, terms, archived_at, version, created_at, updated_at, recent } = source;
        let Recent { clicks, unexpanded } = recent;
        let recent = RecentClicks { days: RECENT_DAYS, clicks, unexpanded };
        Self { id, terms, archived_at, version, created_at, updated_at, recent }
    }
}

/// Make a traffic source
///
/// From a template, with what is given in place of the template's; or from scratch.
#[utoipa::path(
    post, path = "/traffic-sources", tag = "traffic sources", operation_id = "create_traffic_source",
    request_body = TrafficSourceInput,
    responses(
        (status = 201, description = "It is made.", body = TrafficSourceBody, headers(
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
    library::create::<TrafficSource>(&app, &attempt, &headers, &body).await
}

/// List traffic sources
///
/// Newest first, archived ones too unless `is_archived` says otherwise.
#[utoipa::path(
    get, path = "/traffic-sources", tag = "traffic sources", operation_id = "list_traffic_sources",
    params(
        ("q" = Option<String>, Query, description = "Part of the name, in any case.", max_length = 255, example = "ads"),
        ("is_archived" = Option<bool>, Query, description = "Whether they are put away.", example = false),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<TrafficSourceBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (filter, after, limit) = read_list(query.as_deref())?;
    let rows = traffic_sources::list(&app.db, filter, after, rows_for(limit)).await?;
    library::page(&app, rows, limit)
}

/// Show a traffic source
///
/// With what its links carry, and how many clicks lately came with a macro that it did not fill.
#[utoipa::path(
    get, path = "/traffic-sources/{id}", tag = "traffic sources", operation_id = "get_traffic_source",
    params(("id" = i64, Path, description = "Its id.", minimum = 1, example = 3)),
    responses(
        (status = 200, description = "The traffic source.", body = TrafficSourceBody,
            headers(("ETag" = String, description = "Its version, for If-Match."))),
        Problems,
    ),
)]
async fn get(_: Read, State(app): State<App>, Name(id): Name) -> Result<Response, Problem> {
    library::show::<TrafficSource>(&app, StatusCode::OK, library::find(&app, &id).await?)
}

/// Change a traffic source
///
/// Only the fields that are given change; `null` clears an optional one, a list replaces the list. Clicks of its
/// campaigns from then on are read by what it says now; those before stay as they are.
#[utoipa::path(
    patch, path = "/traffic-sources/{id}", tag = "traffic sources", operation_id = "update_traffic_source",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "\"3\""),
    ),
    request_body = TrafficSourcePatch,
    responses(
        (status = 200, description = "The traffic source as it is now.", body = TrafficSourceBody,
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
    library::update::<TrafficSource>(&app, &id, &headers, &patch).await
}

/// Delete a traffic source
///
/// Only where no campaign uses it. One that clicks came from is better archived: they go on naming it by its id.
#[utoipa::path(
    delete, path = "/traffic-sources/{id}", tag = "traffic sources", operation_id = "delete_traffic_source",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 409, description = "`in_use`: campaigns use it."),
        Problems,
    ),
)]
async fn delete(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    library::delete::<TrafficSource>(&app, &id, &headers).await
}

/// List the campaigns of a traffic source
///
/// Newest first; deleted ones are not among them.
#[utoipa::path(
    get, path = "/traffic-sources/{id}/campaigns", tag = "traffic sources",
    operation_id = "list_traffic_source_campaigns",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:[0-9a-f]{32})?$", example = "019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<CampaignUse>), Problems),
)]
async fn campaigns(
    _: Read,
    State(app): State<App>,
    Name(id): Name,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    library::campaigns::<TrafficSource>(&app, &id, query.as_deref()).await
}
