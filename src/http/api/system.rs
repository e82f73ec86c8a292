//! `/api/v1/system`: what octo and its stores are doing, for operators.

mod cache;
mod database;
mod pools;
mod queries;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes of this module.
pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .merge(cache::router())
        .merge(database::router())
        .merge(pools::router())
        .merge(queries::router())
}
