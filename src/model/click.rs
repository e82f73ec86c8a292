//! What is said of a click in few words: why it does not count, and what of its link could not be kept.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use super::text::must_be_one_of;

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

    /// Puts in what is in another.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
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
    /// A signed link to try a campaign with.
    Test,
}

/// Why a click went where it went, where that was not its first choice. A value is never written again for something else:
/// journals hold its place in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Why {
    /// The link names the landing page or offer.
    Named,
    /// The visitor came before, and gets what he got then.
    Bound,
    /// What was chosen first has taken as much as it may.
    Cap,
    /// What the link, a token or a cookie names takes no clicks.
    Inactive,
    /// Everything of the path has taken as much as it may: to the offer that takes what is over.
    Overflow,
    /// Nothing of the campaign takes the click: to its fallback.
    Fallback,
    /// A rule held, and none of its paths took part.
    NextRule,
    /// The campaign has spent its budget: to its fallback.
    Budget,
}

impl Why {
    /// Every value, in order.
    pub const ALL: [Self; 8] = [
        Self::Named,
        Self::Bound,
        Self::Cap,
        Self::Inactive,
        Self::Overflow,
        Self::Fallback,
        Self::NextRule,
        Self::Budget,
    ];
}

/// A set of reasons; the first choice has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routed(u8);

impl Routed {
    /// The set of the bits, one for each reason in order; bits of none are left out.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & (u8::MAX >> (8 - Why::ALL.len())))
    }

    /// One bit for each reason in order.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether it was the first choice.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Puts one in.
    pub fn insert(&mut self, why: Why) {
        self.0 |= 1 << why as u8;
    }

    /// Whether it is in.
    pub fn contains(self, why: Why) -> bool {
        (self.0 >> (why as u8)) & 1 == 1
    }

    /// Those that are in it, in order.
    pub fn iter(self) -> impl Iterator<Item = Why> {
        Why::ALL.into_iter().filter(move |why| self.contains(*why))
    }
}

/// How a click came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Via {
    /// A page told of the visit (`POST /visit`): nobody was redirected.
    Script,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Journals and tables hold them; the name of a variant may change, its text may not.
    #[test]
    fn what_is_stored_of_a_choice_stays_the_same() {
        let reasons = "draft paused ended not_started no_destination prefetch bot no_user_agent datacenter duplicate \
                       rate_limited test";
        assert_eq!(InvalidReason::VARIANTS.join(" "), reasons);
        for reason in InvalidReason::VARIANTS {
            assert_eq!(reason.parse::<InvalidReason>().unwrap().to_string(), *reason);
        }
        assert_eq!(Why::VARIANTS.join(" "), "named bound cap inactive overflow fallback next_rule budget");
        assert_eq!(Via::VARIANTS.join(" "), "script");
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
