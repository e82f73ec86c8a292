//! A postback: what an affiliate network, or whoever else knows, tells of a conversion. It is kept as it was sent, but for
//! what stands for a person; conversions are derived from it, and can be again.

use std::{borrow::Cow, net::IpAddr};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    facts::{
        Fact, Kind,
        table::{Column, Value, fact},
        wire::Malformed,
    },
    model::{
        conversion::{Channel, Refusal},
        id::{ClickId, time_of_uuid},
    },
};

fact! {
    /// One postback.
    Postback<'a>, kind 5 {
        /// Ours, a UUIDv7: also when it came.
        id: Uuid = 1 required => Uuid "id";
        /// The network whose key it came under; `None`: its offer tells.
        network_id: Option<i64> = 64 => Int8 "key_network_id";
        /// How it came.
        channel: Channel = 65 => Text "channel";
        /// Where it came from, as far as `privacy.ip_mode` keeps it.
        ip: Option<IpAddr> = 3 => Inet "ip_address";
        /// The click it tells of.
        click_id: Option<ClickId> = 41 => Uuid "click_id";
        /// The offer of the click that it names.
        offer_id: Option<i64> = 24 => Int8 "leg_offer_id";
        /// Names and values as they came, as `application/x-www-form-urlencoded`, without keys, tokens and whatever
        /// stands for a person.
        params: Cow<'a, str> = 66 => Text "params";
        /// Why it was not let in.
        refusal: Option<Refusal> = 67 => Text "refusal";
    }
    derived {
        Timestamptz "created_at" = |postback| Value::Timestamptz(Some(postback.at()));
    }
    staged {}
}

impl Fact for Postback<'_> {
    fn kind(&self) -> Kind {
        Kind::Postback
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
        None
    }

    fn personal(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }

    fn see_values<'v>(&'v self, see: &mut dyn FnMut(Column, Value<'v>)) {
        self.see_values(see);
    }
}

impl<'a> Postback<'a> {
    /// A postback of which nothing else is known.
    pub fn new(id: Uuid, params: impl Into<Cow<'a, str>>) -> Self {
        Self { id, params: params.into(), ..Self::nothing() }
    }

    /// Reads the fields of a record.
    pub(super) fn decode(fields: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(fields)
    }
}
