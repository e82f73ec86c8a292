//! `/api/v1/templates`: what traffic sources and affiliate networks can be made from.

use axum::{extract::RawQuery, http::HeaderMap, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    http::{
        api::manners::{
            auth::Read,
            etag,
            page::{Page, Params},
            problems::Problems,
        },
        error::Problem,
    },
    templates::{self, NetworkTemplate, SourceTemplate},
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(sources)).routes(routes!(networks))
}

/// List templates of traffic sources
///
/// All of them, in order of key; `POST /traffic-sources` makes a source from one.
#[utoipa::path(
    get, path = "/templates/sources", tag = "templates", operation_id = "list_source_templates",
    params(("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\"")),
    responses(
        (status = 200, description = "All of them, on one page.", body = Page<SourceTemplate>,
            headers(("ETag" = String, description = "Their state."))),
        Problems,
    ),
)]
async fn sources(_: Read, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[]).finish()?;
    etag::tagged(&headers, &whole(templates::sources()))
}

/// List templates of affiliate networks
///
/// All of them, in order of key; `POST /affiliate-networks` makes a network from one.
#[utoipa::path(
    get, path = "/templates/networks", tag = "templates", operation_id = "list_network_templates",
    params(("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it is still the one.", example = "\"3\"")),
    responses(
        (status = 200, description = "All of them, on one page.", body = Page<NetworkTemplate>,
            headers(("ETag" = String, description = "Their state."))),
        Problems,
    ),
)]
async fn networks(_: Read, RawQuery(query): RawQuery, headers: HeaderMap) -> Result<Response, Problem> {
    Params::parse(query.as_deref(), &[]).finish()?;
    etag::tagged(&headers, &whole(templates::networks()))
}

/// A list that is one page.
fn whole<T>(all: &'static [T]) -> Page<&'static T> {
    Page { data: all.iter().collect(), has_more: false, next_cursor: None }
}
