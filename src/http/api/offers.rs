//! `/api/v1/offers`: those of the library, which the paths of many campaigns may name.

mod click_id;
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
        self,
        affiliate_networks::AffiliateNetwork,
        library::Named,
        offers::{self, Chain, Offer},
        uses::Thing,
    },
    http::{
        api::{
            campaigns::Allowed,
            library::{self, CampaignUse, Noun, Used, list_query},
            manners::{
                auth::{Admin, Read},
                idempotency::Attempt,
                page::{Page, Params, rows_for},
                problems::Problems,
                request::{Json, Name},
            },
        },
        error::{FieldError, Problem},
    },
    model::library::OfferTerms,
    routing::OVERFLOW_STEPS_MAX,
};
use input::{LibraryOfferInput, LibraryOfferPatch};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(campaigns))
}

/// An offer as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LibraryOffer)]
pub(crate) struct OfferBody {
    /// Ours; what an entry of a path names, with `"library": true`.
    #[schema(minimum = 1, example = 3)]
    id: i64,
    #[serde(flatten)]
    terms: OfferTerms,
    /// Since when it is put away.
    archived_at: Option<DateTime<Utc>>,
    /// Counts changes; the ETag.
    version: i64,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
    /// What its owner should look at.
    hints: Vec<Hint>,
}

/// What the owner of an offer should look at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OfferHint)]
pub(crate) struct Hint {
    /// `no_click_id`: its network cannot tell us which click a conversion is of.
    #[schema(value_type = String, example = "no_click_id")]
    code: &'static str,
    /// In words.
    #[schema(value_type = String, example = "Nothing of the URL carries our click id: put {click_id} where the network takes it.")]
    detail: &'static str,
}

impl Used for Offer {
    fn thing(id: i64) -> Thing {
        Thing::Offer(id)
    }
}

impl Noun for Offer {
    type Body = OfferBody;

    const NAME: &'static str = "offer";
    const PATH: &'static str = "/offers";
    const IS_IN_CAMPAIGNS: bool = true;

    fn shown(self, _: &Parts) -> OfferBody {
        self.into()
    }

    async fn read(
        app: &Parts,
        headers: &HeaderMap,
        asked: &Value,
        was: Option<&Self>,
    ) -> Result<OfferTerms, Problem> {
        let allowed = Allowed::new(app, headers, Named::default());
        let terms = input::read(asked, was.map(|offer| &offer.terms), &allowed)?;
        complete(app, was, terms).await
    }
}

impl From<Offer> for OfferBody {
    fn from(offer: Offer) -> Self {
        let Offer { id, terms, archived_at, version, created_at, updated_at } = offer;
        let is_lost = terms.affiliate_network_id.is_some() && !click_id::is_in(&terms.url);
        let detail = "Nothing of the URL carries our click id: put {click_id} where the network takes it.";
        let hints = is_lost.then_some(Hint { code: "no_click_id", detail }).into_iter().collect();
        Self { id, terms, archived_at, version, created_at, updated_at, hints }
    }
}

/// Make an offer
///
/// For the paths of many campaigns: an entry `{"library": true, "id": 12}` names it. Where its network takes our click id
/// and its URL has none, `name={click_id}` is added, with the name that the network gives it.
#[utoipa::path(
    post, path = "/offers", tag = "offers", operation_id = "create_offer",
    request_body = LibraryOfferInput,
    responses(
        (status = 201, description = "It is made.", body = OfferBody, headers(
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
    library::create::<Offer>(&app, &attempt, &headers, &body).await
}

/// List offers
///
/// Newest first, archived ones too unless `is_archived` says otherwise.
#[utoipa::path(
    get, path = "/offers", tag = "offers", operation_id = "list_offers",
    params(
        ("q" = Option<String>, Query, description = "Part of the name, in any case.", max_length = 255, example = "ads"),
        ("is_archived" = Option<bool>, Query, description = "Whether they are put away.", example = false),
        ("affiliate_network_id" = Option<i64>, Query, description = "Of this network.", minimum = 1, example = 5),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:0[0-9a-f]{15})?$", example = "000000000000002a"),
    ),
    responses((status = 200, description = "A page.", body = Page<OfferBody>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params =
        Params::parse(query.as_deref(), &["q", "is_archived", "affiliate_network_id", "limit", "cursor"]);
    let network = params.id("affiliate_network_id");
    let (filter, after, limit) = list_query(&mut params);
    params.finish()?;
    let rows = offers::list(&app.db, filter, network, after, rows_for(limit)).await?;
    library::page(&app, rows, limit)
}

/// Show an offer
///
/// As every campaign that names it has it.
#[utoipa::path(
    get, path = "/offers/{id}", tag = "offers", operation_id = "get_offer",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\""),
    ),
    responses(
        (status = 200, description = "The offer.", body = OfferBody,
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
    library::get::<Offer>(&app, &id, &headers).await
}

/// Change an offer
///
/// Only the fields that are given change; `null` clears an optional one, a list replaces the list. Every campaign that
/// names it follows.
#[utoipa::path(
    patch, path = "/offers/{id}", tag = "offers", operation_id = "update_offer",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "\"3\""),
    ),
    request_body = LibraryOfferPatch,
    responses(
        (status = 200, description = "The offer as it is now.", body = OfferBody,
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
    library::update::<Offer>(&app, &id, &headers, &patch).await
}

/// Delete an offer
///
/// Only where no campaign uses it and no other offer leads to it.
#[utoipa::path(
    delete, path = "/offers/{id}", tag = "offers", operation_id = "delete_offer",
    params(
        ("id" = i64, Path, description = "Its id.", minimum = 1, example = 3),
        ("If-Match" = Option<String>, Header, description = "An ETag: 412 if it has changed since.", example = "*"),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 409, description = "`in_use`: campaigns or other offers use it."),
        Problems,
    ),
)]
async fn delete(
    _: Admin,
    State(app): State<App>,
    Name(id): Name,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    library::delete::<Offer>(&app, &id, &headers).await
}

/// List the campaigns of an offer
///
/// Also those that get it only once another offer is full; newest first, without deleted ones.
#[utoipa::path(
    get, path = "/offers/{id}/campaigns", tag = "offers",
    operation_id = "list_offer_campaigns",
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
    library::campaigns::<Offer>(&app, &id, query.as_deref()).await
}

/// Looks up what the terms name, where that is new: the network, which may have our click id in the URL, and the offers
/// that it leads to.
async fn complete(app: &Parts, was: Option<&Offer>, mut terms: OfferTerms) -> Result<OfferTerms, Problem> {
    let (url, network_id, overflow_id) = match was.map(|offer| &offer.terms) {
        Some(was) => (was.url.as_str(), was.affiliate_network_id, was.overflow_offer_id),
        None => ("", None, None),
    };
    if let Some(id) = terms.affiliate_network_id
        && (terms.url != url || network_id != Some(id))
    {
        let network = store::library::get::<AffiliateNetwork>(&app.db, id).await?;
        let network = network.ok_or_else(|| {
            FieldError::new("/affiliate_network_id", "not_found", "is not in the library of networks")
        })?;
        if let Some(parameter) = &network.terms.click_id_parameter {
            terms.url = click_id::added(&terms.url, parameter.as_str());
        }
    }
    if let Some(id) = terms.overflow_offer_id.filter(|id| overflow_id != Some(*id)) {
        let chain = offers::chain(&app.db, was.map(|offer| offer.id), id).await?;
        check_chain(chain)?;
    }
    Ok(terms)
}

fn check_chain(Chain { is_known, is_circle, steps }: Chain) -> Result<(), FieldError> {
    let pointer = "/overflow_offer_id";
    if !is_known {
        return Err(FieldError::new(pointer, "not_found", "is not in the library of offers"));
    }
    if is_circle {
        return Err(FieldError::new(pointer, "circle", "leads in a circle of offers"));
    }
    if usize::try_from(steps).is_ok_and(|steps| steps > OVERFLOW_STEPS_MAX) {
        let detail = format!("leads over more than {OVERFLOW_STEPS_MAX} offers");
        return Err(FieldError::new(pointer, "length", detail));
    }
    Ok(())
}
