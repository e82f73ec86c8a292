//! An event: what a landing page or a pixel reports after a click.

use std::{borrow::Cow, fmt};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::model::id::ClickId;

/// Who told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Anybody: a page, a pixel.
    Public,
    /// Whoever has this token of the API.
    Token(Uuid),
}

/// `public` or the id of the token, as it is stored.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Token(id) => id.fmt(f),
        }
    }
}

/// The id of an event whose sender gave it a text: the same text is the same event where source, campaign (else click)
/// and type are the same.
pub fn id_of_sender(source: Source, campaign_or_click: &str, event_type: &str, text: &str) -> Uuid {
    digest(["id", &source.to_string(), campaign_or_click, event_type, text])
}

/// A UUID of version 8 that nobody can give to something else.
fn digest<const N: usize>(parts: [&str; N]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// One accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The sender's, or ours (UUIDv7).
    pub id: Uuid,
    /// Whether `id` is the sender's: the same id again is the same event.
    pub is_idempotent: bool,
    /// Who told of it.
    pub source: Source,
    /// The sender's own id, where it is no UUID; `id` is made of it.
    pub external_id: Option<Cow<'a, str>>,
    /// When it arrived.
    pub created_at: DateTime<Utc>,
    /// When it happened, as the sender says.
    pub occurred_at: Option<DateTime<Utc>>,
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
            source: Source::Public,
            external_id: None,
            created_at,
            occurred_at: None,
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
    /// Under what it is noted that `id` was used (`event_keys`); `None`: the same id again is another event.
    ///
    /// Each source has keys of its own, so that no stranger can use up the ids of those who have a token. Of the public
    /// it is the id itself, as it always was; of others a hash of source and id, of version 8. An id of version 8 that a
    /// stranger gave is hashed too, so that it cannot be one of those.
    pub fn key(&self) -> Option<Uuid> {
        let is_itself = self.external_id.is_some() || self.id.get_version_num() != 8;
        self.is_idempotent.then(|| match self.source {
            Source::Public if is_itself => self.id,
            source => digest(["key", &source.to_string(), &self.id.to_string()]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_text_is_one_event_by_source_campaign_and_type() {
        let token = Source::Token(Uuid::from_u128(7));
        let id = id_of_sender(Source::Public, "demo", "purchase", "order-1001");
        assert_eq!(id, id_of_sender(Source::Public, "demo", "purchase", "order-1001"));
        assert_eq!(id.get_version_num(), 8);
        for other in [
            id_of_sender(token, "demo", "purchase", "order-1001"),
            id_of_sender(Source::Public, "other", "purchase", "order-1001"),
            id_of_sender(Source::Public, "demo", "refund", "order-1001"),
            id_of_sender(Source::Public, "demo", "purchase", "order-1002"),
            id_of_sender(Source::Public, "demopurchase", "", "order-1001"),
            id_of_sender(Source::Public, "", "demopurchase", "order-1001"),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn no_id_of_a_stranger_is_the_key_of_somebody_else() {
        let mut event = Event::new(Uuid::new_v4(), "view", Utc::now());
        assert_eq!(event.key(), None);
        event.is_idempotent = true;
        assert_eq!(event.key(), Some(event.id), "as it was before sources were told apart");
        let of_stranger = event.key();
        event.source = Source::Token(Uuid::from_u128(7));
        let of_token = event.key().unwrap();
        event.source = Source::Token(Uuid::from_u128(8));
        assert!(Some(of_token) != of_stranger && event.key() != Some(of_token));
        // whoever knows token and id can work the key out, and gives it as an id
        (event.source, event.id) = (Source::Public, of_token);
        assert_ne!(event.key(), Some(of_token));
        // ids that are made of texts are made by us
        event.external_id = Some("order-1001".into());
        assert_eq!(event.key(), Some(of_token));
    }
}
