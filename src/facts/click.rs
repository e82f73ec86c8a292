//! A click: what one visit became. Borrowed from the request on the way in, from the journal on the way out.

use std::{borrow::Cow, net::IpAddr};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::{
    facts::{
        Fact, Kind,
        erasure::NAMES,
        table::{Column, Value, fact},
        wire::Malformed,
    },
    model::{
        click::{Adjusted, InvalidReason, Routed, Via},
        id::ClickId,
        link::{Cost, Params},
        money::Currency,
    },
};

fact! {
    /// One accepted visit.
    Click<'a>, kind 1 {
        /// Ours; also the time of the click.
        id: ClickId = 1 required => Uuid "id";
        /// The campaign that took it.
        campaign_id: Uuid = 2 required => Uuid "campaign_id";
        /// The visitor's address.
        ip: Option<IpAddr> = 3 => Inet "ip_address";
        /// As sent, cleaned and cut.
        user_agent: Option<Cow<'a, str>> = 4 => Text "user_agent";
        /// As sent, cleaned and cut.
        referrer: Option<Cow<'a, str>> = 5 => Text "referrer";
        /// Whether the user agent is a known robot's.
        is_bot: bool = 6 => Bool "is_bot";
        /// Why it does not count as valid; `None` is a valid click.
        invalid_reason: Option<InvalidReason> = 7 => Text "invalid_reason";
        /// ISO 3166-1 alpha-2.
        country: Option<Cow<'a, str>> = 8 => Text "country";
        /// `desktop`, `mobile`, ...
        device: Option<Cow<'a, str>> = 9 => Text "device";
        /// Operating system.
        os: Option<Cow<'a, str>> = 10 => Text "os";
        /// Browser.
        browser: Option<Cow<'a, str>> = 11 => Text "browser";
        /// `sub1` to `sub5`.
        subs: [Option<Cow<'a, str>>; 5] = 12 => Text "sub1" "sub2" "sub3" "sub4" "sub5";
        /// `aff_sub`, `aff_sub2` to `aff_sub5`.
        aff_subs: [Option<Cow<'a, str>>; 5] = 17 =>
            Text "affiliate_sub" "affiliate_sub2" "affiliate_sub3" "affiliate_sub4" "affiliate_sub5";
        /// The source's own id of the click.
        click_id_param: Option<Cow<'a, str>> = 22 => Text "click_id_param";
        /// The landing page it was sent to, else the one the link named.
        landing_page_id: Option<i64> = 23 => Int8 "landing_page_id";
        /// The offer it was sent to, else the one the link named.
        campaign_offer_id: Option<i64> = 24 => Int8 "campaign_offer_id";
        /// The traffic source the link named.
        traffic_source_id: Option<Cow<'a, str>> = 25 => Text "traffic_source_id";
        /// What the click cost us.
        cost: Option<Decimal> = 26 => Numeric "cost";
        /// The currency of the cost.
        currency: Option<Currency> = 27 => Text "currency";
        /// What of the link could not be kept as it was sent.
        adjusted: Adjusted = 28 => Texts "adjusted";
        /// The rule that took it; 0 is the default rule, `None` none.
        rule_id: Option<i64> = 29 => Int8 "rule_id";
        /// The path it took; 0 is the only path of the default rule.
        path_id: Option<i64> = 30 => Int8 "path_id";
        /// Why it went where it went, where that was not the first choice.
        routed: Routed = 31 => Texts "routed";
        /// The primary subtag of the language the browser asks for most.
        language: Option<Cow<'a, str>> = 32 => Text "language";
        /// The part of ISO 3166-2 behind the country.
        region: Option<Cow<'a, str>> = 33 => Text "region";
        /// Its English name.
        city: Option<Cow<'a, str>> = 34 => Text "city";
        /// Who provides the connection.
        isp: Option<Cow<'a, str>> = 35 => Text "isp";
        /// The kind of connection.
        connection: Option<Cow<'a, str>> = 36 => Text "connection";
        /// Version of the operating system, such as `17.5`.
        os_version: Option<Cow<'a, str>> = 37 => Text "os_version";
        /// Version of the browser, such as `126.0`.
        browser_version: Option<Cow<'a, str>> = 38 => Text "browser_version";
        /// The traffic source of its campaign, in the library.
        source_id: Option<i64> = 39 => Int8 "source_id";
        /// The keyword the source says.
        keyword: Option<Cow<'a, str>> = 40 => Text "keyword";
        /// The creative the source says.
        creative: Option<Cow<'a, str>> = 41 => Text "creative";
        /// The placement the source says.
        placement: Option<Cow<'a, str>> = 42 => Text "placement";
        /// Whether it is the first valid one of its visitor in this campaign on its day (UTC).
        is_unique: bool = 43 => Bool "is_unique";
        /// How it came; `None` is a link that redirected.
        via: Option<Via> = 44 => Text "via";
    }
    derived {
        Bool "is_valid" = |click| Value::Bool(click.is_valid());
        Timestamptz "created_at" = |click| Value::Timestamptz(Some(click.at()));
        Timestamptz "updated_at" = |click| Value::Timestamptz(Some(click.at()));
    }
    staged {}
}

impl Fact for Click<'_> {
    fn kind(&self) -> Kind {
        Kind::Click
    }

    fn id(&self) -> Uuid {
        self.id.uuid()
    }

    fn at(&self) -> DateTime<Utc> {
        self.id.created_at()
    }

    fn click_id(&self) -> Option<Uuid> {
        Some(self.id.uuid())
    }

    fn campaign_id(&self) -> Option<Uuid> {
        Some(self.campaign_id)
    }

    fn personal(&self) -> Vec<(&'static str, &str)> {
        let values = self.subs.iter().chain(&self.aff_subs).chain([&self.click_id_param]);
        NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    fn see_values<'v>(&'v self, see: &mut dyn FnMut(Column, Value<'v>)) {
        self.see_values(see);
    }
}

impl<'a> Click<'a> {
    /// The click of a link, with what the link says; what is no number, amount or currency is left out.
    pub fn of_link(id: ClickId, campaign_id: Uuid, params: Params<'a>) -> Self {
        let Cost { amount, currency, adjusted } = params.read_cost();
        let mut click = Self {
            subs: params.subs,
            aff_subs: params.aff_subs,
            click_id_param: params.click_id,
            landing_page_id: params.landing_page_id.get(),
            campaign_offer_id: params.campaign_offer_id.get(),
            traffic_source_id: params.traffic_source_id,
            keyword: params.keyword,
            creative: params.creative,
            placement: params.placement,
            cost: amount,
            currency,
            adjusted: params.adjusted,
            ..Self::new(id, campaign_id)
        };
        click.adjusted.extend(adjusted);
        click
    }

    /// A click of which nothing else is known.
    pub fn new(id: ClickId, campaign_id: Uuid) -> Self {
        Self { id, campaign_id, ..Self::nothing() }
    }

    /// Reads the fields of a record.
    pub(super) fn decode(fields: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(fields)
    }

    /// Whether it counts.
    pub fn is_valid(&self) -> bool {
        self.invalid_reason.is_none()
    }
}
