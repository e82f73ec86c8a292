//! `GET /api/v1/script`: what to put into landing pages for the script of this installation.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    http::{
        api::manners::{answer::answer, auth::Read, problems::Problems},
        error::Problem,
    },
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get))
}

/// The script of landing pages.
#[derive(Debug, Serialize, ToSchema)]
struct Script {
    /// Where it is; after a change of release or names the text there is another one.
    #[schema(example = "https://go.example.com/o.js")]
    url: String,
    /// Where this text is and stays until then.
    #[schema(example = "https://go.example.com/o.0123456789abcdef.js")]
    pinned_url: String,
    /// For the attribute `integrity` of an element with `pinned_url`.
    #[schema(example = "sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC")]
    integrity: String,
    /// What to put into the head of a page.
    #[schema(example = "<script async src=\"https://go.example.com/o.js\"></script>")]
    element: String,
    /// The same for this text only: browsers run no other.
    #[schema(
        example = "<script async src=\"https://go.example.com/o.0123456789abcdef.js\" integrity=\"sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC\" crossorigin></script>"
    )]
    pinned_element: String,
    /// What to put before it where a page calls the function before the script is there.
    #[schema(
        example = "<script>window.octo=window.octo||function(){(octo.q=octo.q||[]).push(arguments)}</script>"
    )]
    stub: String,
    /// Of the text.
    #[schema(example = 2600)]
    bytes: usize,
    /// Of the text as browsers receive it.
    #[schema(example = 1430)]
    gzip_bytes: usize,
}

/// The script of landing pages
///
/// What to put into pages, with the names of this installation (`[script]` of the configuration). `docs/script.md` says
/// what the script does and which attributes it takes.
#[utoipa::path(
    get, path = "/script", tag = "tracking", operation_id = "get_script",
    responses((status = 200, description = "The script.", body = Script), Problems),
)]
async fn get(_: Read, State(app): State<App>) -> Result<Response, Problem> {
    let (script, names) = (&app.script, &app.config.script);
    let url = format!("{}{}", app.public_url, names.path);
    let pinned_url = format!("{}{}", app.public_url, script.pinned_path());
    let (integrity, global) = (script.integrity.clone(), &names.global);
    let view = Script {
        element: format!("<script async src=\"{url}\"></script>"),
        pinned_element: format!(
            "<script async src=\"{pinned_url}\" integrity=\"{integrity}\" crossorigin></script>"
        ),
        stub: format!(
            "<script>window.{global}=window.{global}||function(){{({global}.q={global}.q||[]).push(arguments)}}</script>"
        ),
        url,
        pinned_url,
        integrity,
        bytes: script.text.len(),
        gzip_bytes: script.gzip.len(),
    };
    answer(StatusCode::OK, &view)
}
