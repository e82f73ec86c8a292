//! A click: what one visit became. Borrowed from the request on the way in, from the journal on the way out.

use std::{borrow::Cow, net::IpAddr};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::{id::ClickId, money::Currency, text::must_be_one_of};

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

impl Click<'_> {
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

/// What of a link could not be kept as it was sent. A value is never written again for something else: journals
/// hold its place in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Adjustment {
    /// A value was longer than 1,024 characters, and is cut.
    Cut,
    /// `click_id` was longer than 1,024 characters, and is left out: half an id is none.
    IdTooLong,
    /// A value was a macro that the source did not fill, such as `{campaign}`, and is left out.
    UnexpandedMacro,
    /// `cost` was no amount, and is left out.
    CostUnreadable,
    /// `cost` was below zero, and is left out.
    CostNegative,
    /// `currency` was none that is known: the cost is kept, and is added to no other.
    CurrencyUnknown,
}

impl Adjustment {
    /// Every value, in order.
    pub const ALL: [Self; 6] = [
        Self::Cut,
        Self::IdTooLong,
        Self::UnexpandedMacro,
        Self::CostUnreadable,
        Self::CostNegative,
        Self::CurrencyUnknown,
    ];
}

/// A set of adjustments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adjusted(u8);

impl Adjusted {
    /// The set of the bits, one for each adjustment in order; bits of none are left out.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & ((1 << Adjustment::ALL.len()) - 1))
    }

    /// One bit for each adjustment in order.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether everything was kept as it was sent.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Puts one in.
    pub fn insert(&mut self, adjustment: Adjustment) {
        self.0 |= 1 << adjustment as u8;
    }

    /// Those that are in it, in order.
    pub fn iter(self) -> impl Iterator<Item = Adjustment> {
        Adjustment::ALL.into_iter().filter(move |adjustment| (self.0 >> (*adjustment as u8)) & 1 == 1)
    }
}

/// Why a click does not count as valid. It is redirected and stored all the same. Where several are true, the
/// one that is first here is given: what the campaign says, then what the request says of itself, then what
/// the address says, then what earlier clicks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum InvalidReason {
    /// The campaign is a draft.
    Draft,
    /// The campaign is paused.
    Paused,
    /// The campaign is over.
    Ended,
    /// The campaign has not begun.
    NotStarted,
    /// No landing page and no offer of the campaign is active.
    NoDestination,
    /// The browser fetched the link ahead of a visit.
    Prefetch,
    /// A known robot.
    Bot,
    /// No user agent: no browser of a person leaves it out.
    NoUserAgent,
    /// From a network of `tracking.datacenter_networks_file`: machines live there.
    Datacenter,
    /// The visitor clicked a link of this campaign less than `tracking.duplicate_window_s` ago.
    Duplicate,
    /// The address clicked more often than `limits.clicks_per_minute`.
    RateLimited,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Journals and tables hold them; the name of a variant may change, its text may not.
    #[test]
    fn what_is_stored_of_a_choice_stays_the_same() {
        let reasons = "draft paused ended not_started no_destination prefetch bot no_user_agent datacenter duplicate \
                       rate_limited";
        assert_eq!(InvalidReason::VARIANTS.join(" "), reasons);
        for reason in InvalidReason::VARIANTS {
            assert_eq!(reason.parse::<InvalidReason>().unwrap().to_string(), *reason);
        }
        let adjustments = "cut id_too_long unexpanded_macro cost_unreadable cost_negative currency_unknown";
        assert_eq!(Adjustment::VARIANTS.join(" "), adjustments);
        let error = "no".parse::<Adjustment>().unwrap_err();
        assert_eq!(error, format!("must be one of {}", adjustments.replace(' ', ", ")));
    }

    #[test]
    fn the_bit_of_an_adjustment_is_its_place_in_the_list() {
        let names = |set: Adjusted| set.iter().map(Into::into).collect::<Vec<&str>>();
        assert_eq!(names(Adjusted::from_bits(u8::MAX)), Adjustment::VARIANTS);
        for (i, adjustment) in Adjustment::ALL.into_iter().enumerate() {
            let mut set = Adjusted::default();
            set.insert(adjustment);
            assert_eq!((set.bits(), names(set)), (1 << i, vec![<&str>::from(adjustment)]));
        }
    }
}
