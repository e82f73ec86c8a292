//! `/api/v1/landing-pages`: those of the library, which the paths of many campaigns may name.

mod input;

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
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
        landing_pages::{self, LandingPage},
        library::Named,
        uses::Thing,
    },
    http::{
        api::{
            campaigns::Allowed,
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
    model::library::LandingPageTerms,
};
use input::{LibraryLandingPageInput, LibraryLandingPagePatch};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(campaigns))
}

/// A landing page of the library as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LibraryLandingPage)]
pub(crate) struct LandingPageBody {
    /// Ours; what an entry of a path names, with `"library": true`.
    #[schema(minimum = 1, example = 3)]
    id: i64,
    #[serde(flatten)]
    terms: LandingPageTerms,
    /// Since when it is put away.
    archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    version: i64,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl Used for LandingPage {
    fn thing(id: i64) -> Thing {
        Thing::LandingPage(id)
    }
}

impl Noun for LandingPage {
    type Body = LandingPageBody;

    const NAME: &'static str = "landing page";
    const PATH: &'static str = "/landing-pages";
    const IS_IN_CAMPAIGNS: bool = true;

    fn shown(self, _: &Parts) -> LandingPageBody {
        self.into()
    }

    async fn read(
        app: &Parts,
        headers: &HeaderMap,
        asked: &Value,
        was: Option<&Self>,
    ) -> Result<LandingPageTerms, Problem> {
        let allowed = Allowed::new(app, headers, Named::default());
        Ok(input::read(asked, was.map(|page| &page.terms), &allowed)?)
    }
}

impl From<LandingPage> for LandingPageBody {
    fn from(page: LandingPage) -> Self {
        let LandingPage { id, terms, archived_at, version, created_at, updated_at } = page;
        Self { id, terms, archived_at, version, created_at, updated_at }
    }
}

/// Make a landing page
///
/// For the paths of many campaigns: an entry `{"library": true, "id": 12}` names it.
#[utoipa::path(
    post, path = "/landing-pages", tag = "landing pages", operation_id = "create_landing_page",
    request_body = LibraryLandingPageInput,
    responses(
        (status = 201, description = "It is made.", body = LandingPageBody, headers(
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
    library::create::<LandingPage>(&app, &attempt, &headers, &body).await
}

/// List landing pages
///
/// Newest first, archived ones too unless `is_archived` says otherwise.
#[utoipa::path(
    get, path = "/landing-pages", tag = "landing pages", operation_id = "list_landing_pages",
    params(
        ("q" = Option<String>, Query, description = "Part of the name, in any case.", max_length = 255, example = "ads"),
        ("is_archived" = Option<bool>, Query, description = "Whether they are put away.", example = false),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<LandingPageBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (filter, after, limit) = read_list(query.as_deref())?;
    let rows = landing_pages::list(&app.db, filter, after, rows_for(limit)).await?;
    library::page(&app, rows, limit)
}

/// Show a landing page
///
/// As every campaign that names it has it.
#[utoipa::path(
    get, path = "/landing-pages/{id}", tag = "landing pages", operation_id = "get_landing_page",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The landing page.", body = LandingPageBody,
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
    library::get::<LandingPage>(&app, &id, &headers).await
}

/// Change a landing page
///
/// Only the fields that are given change; `null` clears an optional one. Every campaign that names it follows.
#[utoipa::path(
    patch, path = "/landing-pages/{id}", tag = "landing pages", operation_id = "update_landing_page",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "\"3\""),
    ),
    request_body = LibraryLandingPagePatch,
    responses(
        (status = 200, description = "The landing page as it is now.", body = LandingPageBody,
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
    library::update::<LandingPage>(&app, &id, &headers, &patch).await
}

/// Delete a landing page
///
/// Only where no campaign uses it.
#[utoipa::path(
    delete, path = "/landing-pages/{id}", tag = "landing pages", operation_id = "delete_landing_page",
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
    library::delete::<LandingPage>(&app, &id, &headers).await
}

/// List the campaigns of a landing page
///
/// Newest first; deleted ones are not among them.
#[utoipa::path(
    get, path = "/landing-pages/{id}/campaigns", tag = "landing pages",
    operation_id = "list_landing_page_campaigns",
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
    library::campaigns::<LandingPage>(&app, &id, query.as_deref()).await
}
