//! An event as the API shows it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::db::store::events;

/// An event as it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Event {
    /// The sender's, or ours.
    pub(crate) id: Uuid,
    /// The click it belongs to.
    pub(crate) click_id: Option<Uuid>,
    /// The campaign it belongs to.
    pub(crate) campaign_id: Option<Uuid>,
    /// The campaign's key of today.
    #[schema(example = "summer-sale")]
    pub(crate) campaign_key: Option<String>,
    /// What happened.
    #[schema(example = "page_view")]
    pub(crate) event_type: String,
    /// For people.
    #[schema(example = "Checkout done")]
    pub(crate) event_name: Option<String>,
    /// What the sender told, as PostgreSQL wrote it: its numbers may be longer than ours.
    #[schema(value_type = Option<Object>, example = json!({"sku": "A-1"}))]
    pub(crate) properties: Option<Box<RawValue>>,
    /// The page.
    #[schema(example = "https://shop.example/checkout")]
    pub(crate) url: Option<String>,
    /// What led to the page.
    #[schema(example = "https://news.example/")]
    pub(crate) referrer: Option<String>,
    /// The sender's session.
    #[schema(example = "s-81")]
    pub(crate) session_id: Option<String>,
    /// The sender's user.
    #[schema(example = "u-4")]
    pub(crate) user_id: Option<String>,
    /// Who told of it: `public`, or the id of the token; nothing where it was stored before that was noted.
    #[schema(example = "public")]
    pub(crate) source: Option<String>,
    /// The sender's own id, where it is no UUID; at most 128 characters of it.
    #[schema(example = "order-1001")]
    pub(crate) external_id: Option<String>,
    /// When it happened, as the sender says.
    pub(crate) occurred_at: Option<DateTime<Utc>>,
    /// When it arrived.
    pub(crate) created_at: DateTime<Utc>,
}

impl From<events::Event> for Event {
    fn from(event: events::Event) -> Self {
        Self {
            id: event.id,
            click_id: event.click_id,
            campaign_id: event.campaign_id,
            campaign_key: event.campaign_key,
            event_type: event.event_type,
            event_name: event.event_name,
            properties: event.properties.map(|Json(properties)| properties),
            url: event.url,
            referrer: event.referrer,
            session_id: event.session_id,
            user_id: event.user_id,
            source: event.source,
            external_id: event.external_id,
            occurred_at: event.occurred_at,
            created_at: event.created_at,
        }
    }
}
