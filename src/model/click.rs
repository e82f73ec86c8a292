//! What is said of a click in few words: why it does not count, and what of its link could not be kept.

use crate::model::campaign::text_enum;

text_enum! {
    /// What of a link could not be kept as it was sent. A value is never written again for something else: journals
    /// hold its place in this list.
    Adjustment {
        /// A value was longer than 1,024 characters, and is cut.
        Cut = "cut",
        /// `click_id` was longer than 1,024 characters, and is left out: half an id is none.
        IdTooLong = "id_too_long",
        /// A value was a macro that the source did not fill, such as `{campaign}`, and is left out.
        UnexpandedMacro = "unexpanded_macro",
        /// `cost` was no amount, and is left out.
        CostUnreadable = "cost_unreadable",
        /// `cost` was below zero, and is left out.
        CostNegative = "cost_negative",
        /// `currency` was none that is known: the cost is kept, and is added to no other.
        CurrencyUnknown = "currency_unknown",
    }
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

text_enum! {
    /// Why a click does not count as valid. It is redirected and stored all the same. Where several are true, the
    /// one that is first here is given: what the campaign says, then what the request says of itself, then what
    /// the address says, then what earlier clicks say.
    InvalidReason {
        /// The campaign is a draft.
        Draft = "draft",
        /// The campaign is paused.
        Paused = "paused",
        /// The campaign is over.
        Ended = "ended",
        /// The campaign has not begun.
        NotStarted = "not_started",
        /// No landing page and no offer of the campaign is active.
        NoDestination = "no_destination",
        /// The browser fetched the link ahead of a visit.
        Prefetch = "prefetch",
        /// A known robot.
        Bot = "bot",
        /// No user agent: no browser of a person leaves it out.
        NoUserAgent = "no_user_agent",
        /// From a network of `tracking.datacenter_networks_file`: machines live there.
        Datacenter = "datacenter",
        /// The visitor clicked a link of this campaign less than `tracking.duplicate_window_s` ago.
        Duplicate = "duplicate",
        /// The address clicked more often than `limits.clicks_per_minute`.
        RateLimited = "rate_limited",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_of_an_adjustment_is_its_place_in_the_list() {
        let names = |set: Adjusted| set.iter().map(Adjustment::as_str).collect::<Vec<_>>();
        assert_eq!(names(Adjusted::from_bits(u8::MAX)), Adjustment::NAMES);
        for (i, adjustment) in Adjustment::ALL.into_iter().enumerate() {
            let mut set = Adjusted::default();
            set.insert(adjustment);
            assert_eq!((set.bits(), names(set)), (1 << i, vec![adjustment.as_str()]));
        }
    }
}
