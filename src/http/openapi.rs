//! s
use crate::app::App;
use axum::Router;
pub fn router() -> utoipa_axum::router::OpenApiRouter<App> {
    utoipa_axum::router::OpenApiRouter::new()
}
pub fn document_route(_: utoipa::openapi::OpenApi) -> Router<App> {
    Router::new()
}
