//! `/api/v1/out-clicks`: show stored out-clicks. What takes them in is `http::track::out`.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    db::store::out_clicks,
    http::{
        api::{
            manners::{
                answer::answer,
                auth::Read,
                page::{Page, Params, cursor, rows_for},
                problems::Problems,
            },
            views::out_click::OutClick,
        },
        error::Problem,
    },
};

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list))
}

/// List out-clicks
///
/// Of one click or of all, newest first: visitors who went on from a landing page to an offer. Each is one, also of the
/// same visitor.
#[utoipa::path(
    get, path = "/out-clicks", tag = "clicks", operation_id = "list_out_clicks",
    params(
        ("click_id" = Option<String>, Query, description = "Of this click; its id in any form.", example = "019aaf3c-5f00-7abc-8def-0123456789ab",
            pattern = "^(?:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})?$"),
        ("limit" = Option<u32>, Query, description = "Entries of a page.", minimum = 1, maximum = 500, example = 50),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before.", pattern = "^(?:00[0-9a-f]{46})?$", example = "000649ae1f3a8000019aaf3c5f007abc8def0123456789ab"),
    ),
    responses((status = 200, description = "A page.", body = Page<OutClick>), Problems),
)]
async fn list(_: Read, State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref(), &["click_id", "limit", "cursor"]);
    let (limit, after) = (params.limit(), params.cursor());
    let click_id = params.click_id();
    params.finish()?;
    let rows = out_clicks::list(&app.db, click_id, after, rows_for(limit)).await?;
    let page = Page::new(rows, limit, |row| cursor(row.created_at, row.id));
    answer(StatusCode::OK, &page.shown::<OutClick>())
}
