//! The parts of a picture of a flow, as templates show them.

use super::{explained::Verdict, steps::Place};

/// A cap, and how much of it is used.
#[derive(Debug, Clone)]
pub(super) struct CapShown {
    pub(super) text: String,
    /// Such as `37 used`; none where it is not stored yet.
    pub(super) used: Option<String>,
    pub(super) is_full: bool,
}

/// A landing page or an offer.
#[derive(Debug, Clone)]
pub(super) struct EntryShown {
    pub(super) name: String,
    /// Where it leads, short.
    pub(super) address: String,
    pub(super) share: String,
    /// `inactive`, `full`, `library`, ...
    pub(super) badges: Vec<&'static str>,
    pub(super) caps: Vec<CapShown>,
    pub(super) payout: String,
    /// Whether the explained visitor goes there.
    pub(super) is_taken: bool,
}

/// A path.
#[expect(clippy::struct_excessive_bools, reason = "the template asks for each by itself")]
#[derive(Debug, Clone)]
pub(super) struct PathShown {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) share: String,
    /// Of the bar behind the share, in steps of 5.
    pub(super) bar: u32,
    pub(super) when: Vec<String>,
    pub(super) badges: Vec<&'static str>,
    pub(super) caps: Vec<CapShown>,
    pub(super) landing_pages: Vec<EntryShown>,
    pub(super) offers: Vec<EntryShown>,
    pub(super) is_chosen_early: bool,
    pub(super) verdict: Option<Verdict>,
    pub(super) faults: Vec<String>,
    pub(super) is_open: bool,
    pub(super) is_at: bool,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl PathShown {
    /// Its landing pages, where it has some, and its offers.
    pub(super) fn legs(&self) -> Vec<(&'static str, &[EntryShown])> {
        let pages = (!self.landing_pages.is_empty()).then_some(("Landing pages", &self.landing_pages[..]));
        pages.into_iter().chain([("Offers", &self.offers[..])]).collect()
    }
}

/// A rule.
#[expect(clippy::struct_excessive_bools, reason = "the template asks for each by itself")]
#[derive(Debug, Clone)]
pub(super) struct RuleShown {
    /// `None`: the default rule.
    pub(super) place: Option<Place>,
    /// What a button that adds a path to it says.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) when: Vec<String>,
    pub(super) zone: String,
    pub(super) is_off: bool,
    pub(super) paths: Vec<PathShown>,
    pub(super) verdict: Option<Verdict>,
    pub(super) faults: Vec<String>,
    pub(super) is_open: bool,
    pub(super) is_at: bool,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    /// What somebody else stored of it meanwhile, in lines, and what a button that takes it says.
    pub(super) stored: Option<(Vec<String>, String)>,
}
