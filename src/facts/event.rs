//! An event: what a landing page or a pixel reports after a click.

use std::{borrow::Cow, fmt, iter};

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    facts::{
        Fact, Kind,
        erasure::EVENT_NAMES,
        table::{Column, Value, fact},
        wire::{Field, Kept, Malformed, One},
    },
    model::id::ClickId,
};

/// Tags of fields that must not be empty.
const ID: u8 = 1;
const EVENT_TYPE: u8 = 43;

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

fact! {
    /// One accepted event.
    Event<'a>, kind 2 {
        /// The sender's, or ours (UUIDv7).
        id: Uuid = 1 required => Uuid "id";
        /// When it arrived.
        created_at: DateTime<Utc> = 40 => Timestamptz "created_at";
        /// Whether `id` is the sender's: the same id again is the same event.
        is_idempotent: bool = 49;
        /// Who told of it.
        source: Source = 50 => Text "source";
        /// The sender's own id, where it is no UUID; `id` is made of it.
        external_id: Option<Cow<'a, str>> = 51 => Text "external_id";
        /// When it happened, as the sender says.
        occurred_at: Option<DateTime<Utc>> = 52 => Timestamptz "occurred_at";
        /// The click it belongs to.
        click_id: Option<ClickId> = 41 => Uuid "click_id";
        /// The campaign, where the event named one that was known.
        campaign_id: Option<Uuid> = 2;
        /// The campaign's key, where the event named one that could not be looked up at the time.
        cid: Option<Cow<'a, str>> = 42;
        /// 1-64 of `a-z0-9_.-`.
        event_type: Cow<'a, str> = 43 required => Text "event_type";
        /// For people.
        event_name: Option<Cow<'a, str>> = 44 => Text "event_name";
        /// The page.
        url: Option<Cow<'a, str>> = 45 => Text "url";
        /// What led to the page.
        referrer: Option<Cow<'a, str>> = 5 => Text "referrer";
        /// The sender's session.
        session_id: Option<Cow<'a, str>> = 46 => Text "session_id";
        /// The sender's user.
        user_id: Option<Cow<'a, str>> = 47 => Text "user_id";
        /// A JSON object, as text.
        properties: Option<Cow<'a, str>> = 48 => Jsonb "event_data";
    }
    derived {}
    staged {
        // the column campaign_id comes of what the event names, else of its click
        Uuid "named_campaign_id" = |event| Value::Uuid(event.campaign_id);
        Text "cid" = |event| Value::Text(event.cid.as_deref().map(Cow::Borrowed));
        Timestamptz "click_time" = |event| Value::Timestamptz(event.click_id.map(ClickId::created_at));
        Uuid "key" = |event| Value::Uuid(event.key());
    }
}

impl Fact for Event<'_> {
    fn kind(&self) -> Kind {
        Kind::Event
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn at(&self) -> DateTime<Utc> {
        self.created_at
    }

    fn click_id(&self) -> Option<Uuid> {
        self.click_id.map(ClickId::uuid)
    }

    fn campaign_id(&self) -> Option<Uuid> {
        self.campaign_id
    }

    fn personal(&self) -> Vec<(&'static str, &str)> {
        let values = EVENT_NAMES.into_iter().zip([&self.user_id, &self.session_id]);
        values.filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    fn see_values<'v>(&'v self, see: &mut dyn FnMut(Column, Value<'v>)) {
        self.see_values(see);
    }
}

/// The id of the token; no field for the public.
impl<'a> Kept<'a> for Source {
    fn nothing() -> Self {
        Self::Public
    }

    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        if let Self::Token(id) = self {
            Kept::put(id, tag, out);
        }
    }

    fn take(&mut self, _: u8, field: &Field<'a>) -> Result<(), Malformed> {
        *self = Self::Token(One::read(field)?);
        Ok(())
    }

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        iter::once(Value::Text(Some(Cow::Owned(self.to_string()))))
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        if random.bool() { Self::Public } else { Self::Token(One::sample(random)) }
    }
}

impl<'a> Event<'a> {
    /// An event of which nothing else is known.
    pub fn new(id: Uuid, event_type: impl Into<Cow<'a, str>>, created_at: DateTime<Utc>) -> Self {
        Self { id, event_type: event_type.into(), created_at, ..Self::nothing() }
    }

    /// Reads the fields of a record.
    pub(super) fn decode(fields: &'a [u8]) -> Result<Self, Malformed> {
        let event = Self::read(fields)?;
        if event.id.is_nil() {
            return Err(Malformed::Missing(ID));
        }
        if event.event_type.is_empty() {
            return Err(Malformed::Missing(EVENT_TYPE));
        }
        Ok(event)
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
