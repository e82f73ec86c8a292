//! `/api/v1/affiliate-networks`: where a network's links take our click id, and what its postbacks and words mean.

mod address;
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
        affiliate_networks::{self, AffiliateNetwork},
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
    model::network::NetworkTerms,
};
use input::{AffiliateNetworkInput, AffiliateNetworkPatch};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(campaigns))
}

/// An affiliate network as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AffiliateNetwork)]
pub(crate) struct AffiliateNetworkBody {
    /// Ours; what `affiliate_network_id` of an offer names.
    #[schema(minimum = 1, example = 3)]
    id: i64,
    #[serde(flatten)]
    terms: NetworkTerms,
    /// The address for its postbacks, ready to be entered there; what stands there as `REPLACE` is left out or put in by
    /// its owner.
    #[schema(
        example = "https://track.example/postback/0f4b7c1a9d3e4f60?click_id={sub1}&payout={payout_amount}"
    )]
    postback_url: String,
    /// Since when it is put away.
    archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    version: i64,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl Used for AffiliateNetwork {
    fn thing(id: i64) -> Thing {
        Thing::AffiliateNetwork(id)
    }
}

impl Noun for AffiliateNetwork {
    type Body = AffiliateNetworkBody;

    const NAME: &'static str = "affiliate network";
    const PATH: &'static str = "/affiliate-networks";
    const IS_IN_CAMPAIGNS: bool = false;

    async fn read(
        _: &Parts,
        _: &HeaderMap,
        asked: &Value,
        was: Option<&Self>,
    ) -> Result<NetworkTerms, Problem> {
        Ok(input::read(asked, was.map(|network| &network.terms))?)
    }

    fn shown(self, app: &Parts) -> AffiliateNetworkBody {
        let Self { id, terms, archived_at, version, created_at, updated_at } = self;
        let postback_url = address::of(&terms, &app.public_url);
        AffiliateNetworkBody { id, terms, postback_url, archived_at, version, created_at, updated_at }
    }
}

/// Make an affiliate network
///
/// From a template, with what is given in place of the template's; or from scratch.
#[utoipa::path(
    post, path = "/affiliate-networks", tag = "affiliate networks", operation_id = "create_affiliate_network",
    request_body = AffiliateNetworkInput,
    responses(
        (status = 201, description = "It is made.", body = AffiliateNetworkBody, headers(
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
    let answer = library::create::<AffiliateNetwork>(&app, &attempt, &headers, &body).await?;
    app.networks.must_read();
    Ok(answer)
}

/// List affiliate networks
///
/// Newest first, archived ones too unless `is_archived` says otherwise.
#[utoipa::path(
    get, path = "/affiliate-networks", tag = "affiliate networks", operation_id = "list_affiliate_networks",
    params(
        ("q" = Option<String>, Query, description = "Part of the name, in any case.", max_length = 255, example = "ads"),
        ("is_archived" = Option<bool>, Query, description = "Whether they are put away.", example = false),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<AffiliateNetworkBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (filter, after, limit) = read_list(query.as_deref())?;
    let rows = affiliate_networks::list(&app.db, filter, after, rows_for(limit)).await?;
    library::page(&app, rows, limit)
}

/// Show an affiliate network
///
/// With what its words mean.
#[utoipa::path(
    get, path = "/affiliate-networks/{id}", tag = "affiliate networks", operation_id = "get_affiliate_network",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The affiliate network.", body = AffiliateNetworkBody,
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
    library::get::<AffiliateNetwork>(&app, &id, &headers).await
}

/// Change an affiliate network
///
/// Only the fields that are given change; `null` clears an optional one, a list replaces the list. URLs of its offers
/// stay as they are.
#[utoipa::path(
    patch, path = "/affiliate-networks/{id}", tag = "affiliate networks", operation_id = "update_affiliate_network",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "\"3\""),
    ),
    request_body = AffiliateNetworkPatch,
    responses(
        (status = 200, description = "The affiliate network as it is now.", body = AffiliateNetworkBody,
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
    patched(&app, &id, &headers, &patch).await
}

/// The network with this id.
pub(in crate::http) async fn find(app: &App, id: &str) -> Result<AffiliateNetwork, Problem> {
    library::find(app, id).await
}

/// Changes the network with this id as the patch says.
pub(in crate::http) async fn patched(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    patch: &Value,
) -> Result<Response, Problem> {
    let answer = library::update::<AffiliateNetwork>(app, id, headers, patch).await?;
    app.networks.must_read();
    Ok(answer)
}

/// Delete an affiliate network
///
/// Only where no offer names it.
#[utoipa::path(
    delete, path = "/affiliate-networks/{id}", tag = "affiliate networks", operation_id = "delete_affiliate_network",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 409, description = "`in_use`: offers name it."),
        Problems,
    ),
)]
async fn delete(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let answer = library::delete::<AffiliateNetwork>(&app, &id, &headers).await?;
    app.networks.must_read();
    Ok(answer)
}

/// List the campaigns of an affiliate network
///
/// Those that use an offer of it, newest first; deleted ones are not among them.
#[utoipa::path(
    get, path = "/affiliate-networks/{id}/campaigns", tag = "affiliate networks",
    operation_id = "list_affiliate_network_campaigns",
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
    library::campaigns::<AffiliateNetwork>(&app, &id, query.as_deref()).await
}
