//! A click: what one visit became. Borrowed from the request on the way in, from the journal on the way out.

use std::{borrow::Cow, net::IpAddr};

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::model::{
    click::{Adjusted, InvalidReason},
    id::ClickId,
    link::{Cost, Params},
    money::Currency,
};

/// One accepted visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click<'a> {
    /// Ours; also the time of the click.
    pub id: ClickId,
    /// The campaign that took it.
    pub campaign_id: Uuid,
    /// The visitor's address.
    pub ip: Option<IpAddr>,
    /// As sent, cleaned and cut.
    pub user_agent: Option<Cow<'a, str>>,
    /// As sent, cleaned and cut.
    pub referrer: Option<Cow<'a, str>>,
    /// Why it does not count as valid; `None` is a valid click.
    pub invalid_reason: Option<InvalidReason>,
    /// Whether the user agent is a known robot's.
    pub is_bot: bool,
    /// ISO 3166-1 alpha-2.
    pub country: Option<Cow<'a, str>>,
    /// `desktop`, `mobile`, ...
    pub device: Option<Cow<'a, str>>,
    /// Operating system.
    pub os: Option<Cow<'a, str>>,
    /// Browser.
    pub browser: Option<Cow<'a, str>>,
    /// `sub1` to `sub5`.
    pub subs: [Option<Cow<'a, str>>; 5],
    /// `aff_sub`, `aff_sub2` to `aff_sub5`.
    pub aff_subs: [Option<Cow<'a, str>>; 5],
    /// The source's own id of the click.
    pub click_id_param: Option<Cow<'a, str>>,
    /// The landing page it was sent to, else the one the link named.
    pub landing_page_id: Option<i64>,
    /// The offer it was sent to, else the one the link named.
    pub campaign_offer_id: Option<i64>,
    /// The traffic source the link named.
    pub traffic_source_id: Option<Cow<'a, str>>,
    /// What the click cost us.
    pub cost: Option<Decimal>,
    /// The currency of the cost.
    pub currency: Option<Currency>,
    /// What of the link could not be kept as it was sent.
    pub adjusted: Adjusted,
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
        Self {
            id,
            campaign_id,
            ip: None,
            user_agent: None,
            referrer: None,
            invalid_reason: None,
            is_bot: false,
            country: None,
            device: None,
            os: None,
            browser: None,
            subs: Default::default(),
            aff_subs: Default::default(),
            click_id_param: None,
            landing_page_id: None,
            campaign_offer_id: None,
            traffic_source_id: None,
            cost: None,
            currency: None,
            adjusted: Adjusted::default(),
        }
    }

    /// Whether it counts.
    pub fn is_valid(&self) -> bool {
        self.invalid_reason.is_none()
    }
}
