//! An out-click: from a landing page to an offer. It is a fact of its own, and stays one when it is repeated.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    facts::{
        Fact, Kind,
        table::{Column, Value, fact},
        wire::Malformed,
    },
    model::{
        click::{InvalidReason, Routed},
        id::{ClickId, time_of_uuid},
        out_click::{Carrier, Problem},
    },
};

/// What is said of an out-click whose link says `exit=1`, in the place of a reason.
const EXIT: &str = "exit";

fact! {
    /// One followed out-link.
    OutClick<'a>, kind 4 {
        /// Ours, a UUIDv7: also the time of the out-click.
        id: Uuid = 1 required => Uuid "id";
        /// The click it belongs to; none of a visitor without one.
        click_id: Option<ClickId> = 41 => Uuid "click_id";
        /// The campaign; none where the global fallback took the visitor.
        campaign_id: Option<Uuid> = 2 => Uuid "campaign_id";
        /// The rule of the click, 0 the default one.
        rule_id: Option<i64> = 29 => Int8 "rule_id";
        /// The path whose offers were to choose from.
        path_id: Option<i64> = 30 => Int8 "path_id";
        /// The landing page of the click.
        landing_page_id: Option<i64> = 23 => Int8 "landing_page_id";
        /// The offer it was sent to.
        offer_id: Option<i64> = 24 => Int8 "offer_id";
        /// The offer that the link named, by its place in the path from 1.
        position: Option<i64> = 60 => Int8 "position";
        /// What told of the click.
        carrier: Carrier = 61 => Text "carrier";
        /// Why there is no click, or not the one that the link named.
        problem: Option<Problem> = 62 => Text "problem";
        /// Why it went where it went, where that was not the first choice.
        routed: Routed = 31 => Texts "routed";
        /// Why the click does not count, or else this out-click.
        reason: Option<InvalidReason> = 7;
        /// Whether the link says that it is not to be counted.
        is_exit: bool = 63;
        /// Whether the user agent is a known robot's.
        is_bot: bool = 6 => Bool "is_bot";
        /// ISO 3166-1 alpha-2.
        country: Option<Cow<'a, str>> = 8 => Text "country";
        /// `desktop`, `mobile`, ...
        device: Option<Cow<'a, str>> = 9 => Text "device";
        /// Operating system.
        os: Option<Cow<'a, str>> = 10 => Text "os";
        /// Browser.
        browser: Option<Cow<'a, str>> = 11 => Text "browser";
    }
    derived {
        Bool "is_valid" = |out| Value::Bool(out.is_valid());
        Text "invalid_reason" = |out| Value::Text(out.invalid_reason().map(Cow::Borrowed));
        Timestamptz "created_at" = |out| Value::Timestamptz(Some(out.at()));
    }
    staged {}
}

impl Fact for OutClick<'_> {
    fn kind(&self) -> Kind {
        Kind::OutClick
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn at(&self) -> DateTime<Utc> {
        time_of_uuid(self.id)
    }

    fn click_id(&self) -> Option<Uuid> {
        self.click_id.map(ClickId::uuid)
    }

    fn campaign_id(&self) -> Option<Uuid> {
        self.campaign_id
    }

    fn personal(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }

    fn see_values<'v>(&'v self, see: &mut dyn FnMut(Column, Value<'v>)) {
        self.see_values(see);
    }
}

impl OutClick<'_> {
    /// An out-click of which nothing else is known.
    pub fn new(id: Uuid) -> Self {
        Self { id, ..Self::nothing() }
    }

    /// Whether it counts.
    pub fn is_valid(&self) -> bool {
        self.reason.is_none() && !self.is_exit
    }

    /// Why it does not count: an `InvalidReason`, or `exit`.
    pub fn invalid_reason(&self) -> Option<&'static str> {
        self.reason.map(Into::into).or(self.is_exit.then_some(EXIT))
    }

    /// The click that it makes one with an out-click, if it counts: a visit to a landing page that had one.
    pub fn counted_click(&self) -> Option<ClickId> {
        self.click_id.filter(|_| self.is_valid() && self.landing_page_id.is_some())
    }
}

impl<'a> OutClick<'a> {
    /// Reads the fields of a record.
    pub(super) fn decode(fields: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(fields)
    }
}
