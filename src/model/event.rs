//! An event: what a landing page or a pixel reports after a click.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::id::ClickId;

/// One accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The sender's, or ours (UUIDv7).
    pub id: Uuid,
    /// Whether `id` is the sender's: the same id again is the same event.
    pub is_idempotent: bool,
    /// When it arrived.
    pub created_at: DateTime<Utc>,
    /// The click it belongs to.
    pub click_id: Option<ClickId>,
    /// The campaign, where the event named one that was known.
    pub campaign_id: Option<Uuid>,
    /// The campaign's key, where the event named one that could not be looked up at the time.
    pub cid: Option<Cow<'a, str>>,
    /// 1-64 of `a-z0-9_.-`.
    pub event_type: Cow<'a, str>,
    /// For people.
    pub event_name: Option<Cow<'a, str>>,
    /// The page.
    pub url: Option<Cow<'a, str>>,
    /// What led to the page.
    pub referrer: Option<Cow<'a, str>>,
    /// The sender's session.
    pub session_id: Option<Cow<'a, str>>,
    /// The sender's user.
    pub user_id: Option<Cow<'a, str>>,
    /// A JSON object, as text.
    pub properties: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    /// An event of which nothing else is known.
    pub fn new(id: Uuid, event_type: impl Into<Cow<'a, str>>, created_at: DateTime<Utc>) -> Self {
        Self {
            id,
            is_idempotent: false,
            created_at,
            click_id: None,
            campaign_id: None,
            cid: None,
            event_type: event_type.into(),
            event_name: None,
            url: None,
            referrer: None,
            session_id: None,
            user_id: None,
            properties: None,
        }
    }
}
