//! What a visitor got in the campaigns he came to: choices only, by which nobody can be told apart. Sealed, it is the
//! cookie `octo_s`.
//!
//! ```text
//! choices = for each campaign, the latest first:
//!           6 bytes made of its id | epoch | path | landing page | offer
//! ```
//! Numbers are LEB128 of 64 bits (<https://en.wikipedia.org/wiki/LEB128>); a landing page or an offer is one more than its
//! id, and 0 is none.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::{Bound, Decision};
use crate::model::{campaign::Campaign, click::Why, rule::Sticky};

/// Bytes of all choices at most: sealed and as base64url they have 1,000 characters, and with its name the cookie less
/// than 1,024.
pub const BYTES_MAX: usize = 713;

/// Bytes of a campaign's name in it.
const NAME_BYTES: usize = 6;

type Name = [u8; NAME_BYTES];

/// The choices of a visitor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices(Vec<Choice>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    campaign: Name,
    epoch: i32,
    bound: Bound,
}

impl Choices {
    /// Reads what [`Choices::to_bytes`] wrote; what stands behind something else is passed over.
    pub fn read(mut bytes: &[u8]) -> Self {
        let mut choices = Vec::new();
        while let Some(choice) = read_choice(&mut bytes) {
            choices.push(choice);
        }
        Self(choices)
    }

    /// As many of the latest as find room.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES_MAX);
        for choice in &self.0 {
            let before = bytes.len();
            write_choice(choice, &mut bytes);
            if bytes.len() > BYTES_MAX {
                bytes.truncate(before);
                break;
            }
        }
        bytes
    }

    /// Whether the visitor came to the campaign before, in whichever epoch.
    pub fn knows(&self, campaign: &Campaign) -> bool {
        self.of(campaign).is_some()
    }

    /// What the visitor got in the campaign, in the epoch that it is in.
    pub fn bound(&self, campaign: &Campaign) -> Option<Bound> {
        self.of(campaign).filter(|choice| choice.epoch == campaign.terms.epoch).map(|choice| choice.bound)
    }

    fn of(&self, campaign: &Campaign) -> Option<&Choice> {
        let name = name_of(campaign);
        self.0.iter().find(|choice| choice.campaign == name)
    }

    /// Notes what a click got, and puts its campaign in front. What the link names binds nobody, and where a cap moved
    /// somebody who is bound, he stays bound to what he had.
    pub fn note(&mut self, campaign: &Campaign, decision: &Decision<'_>) {
        let was = self.bound(campaign);
        let keeps =
            decision.routed.contains(Why::Named) || (was.is_some() && decision.routed.contains(Why::Cap));
        let bound = match (decision.path, was) {
            (Some(path), _) if !keeps => {
                let is_all = campaign.terms.sticky == Sticky::All;
                let landing_page_id = decision.landing_page_id().filter(|_| is_all);
                // the offer that he went to from the page stays his
                let of_before =
                    was.filter(|was| was.path_id == path.id && landing_page_id == was.landing_page_id);
                let offer_id = decision.offer_id().or_else(|| of_before.and_then(|was| was.offer_id));
                Bound { path_id: path.id, landing_page_id, offer_id: offer_id.filter(|_| is_all) }
            }
            (_, Some(was)) => was,
            (_, None) => return,
        };
        self.put(campaign, bound);
    }

    /// Notes the offer that a visitor went to from a page; whether that is new. Only where all choices are kept, and only
    /// of the path that he is bound to.
    pub fn note_offer(&mut self, campaign: &Campaign, decision: &Decision<'_>) -> bool {
        let Some(was) = self.bound(campaign).filter(|_| campaign.terms.sticky == Sticky::All) else {
            return false;
        };
        let is_choice = !decision.routed.contains(Why::Named) && !decision.routed.contains(Why::Cap);
        let is_of_path = decision.path_id() == Some(was.path_id);
        if !is_choice || !is_of_path || decision.offer_id().is_none() || decision.offer_id() == was.offer_id {
            return false;
        }
        self.put(campaign, Bound { offer_id: decision.offer_id(), ..was });
        true
    }

    fn put(&mut self, campaign: &Campaign, bound: Bound) {
        let name = name_of(campaign);
        self.0.retain(|choice| choice.campaign != name);
        self.0.insert(0, Choice { campaign: name, epoch: campaign.terms.epoch, bound });
    }
}

fn name_of(campaign: &Campaign) -> Name {
    let mut hasher = SipHasher13::new();
    hasher.write(campaign.id.as_bytes());
    let mut name = Name::default();
    name.copy_from_slice(&hasher.finish().to_le_bytes()[..NAME_BYTES]);
    name
}

fn write_choice(choice: &Choice, out: &mut Vec<u8>) {
    let Choice { campaign, epoch, bound } = choice;
    let one_more = |id: Option<i64>| id.map_or(0, |id| id.cast_unsigned().wrapping_add(1));
    out.extend_from_slice(campaign);
    for number in [
        u64::from(epoch.cast_unsigned()),
        bound.path_id.cast_unsigned(),
        one_more(bound.landing_page_id),
        one_more(bound.offer_id),
    ] {
        let mut rest = number;
        while rest >= 0x80 {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push((rest & 0x7f) as u8);
    }
}

fn read_choice(bytes: &mut &[u8]) -> Option<Choice> {
    let (campaign, mut rest) = bytes.split_first_chunk::<NAME_BYTES>()?;
    let mut number = || {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, behind) = rest.split_first()?;
            rest = behind;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    let epoch = u32::try_from(number()?).ok()?.cast_signed();
    let path_id = number()?.cast_signed();
    let id = |number: u64| (number > 0).then(|| number.wrapping_sub(1).cast_signed());
    let (landing_page_id, offer_id) = (id(number()?), id(number()?));
    *bytes = rest;
    Some(Choice { campaign: *campaign, epoch, bound: Bound { path_id, landing_page_id, offer_id } })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::{
        model::{click::Routed, link::Params},
        routing::{self, CapTarget, Routes, Visit, tests},
        visitor::{Enricher, Files, Signs},
    };

    fn campaign(id: u128, sticky: Sticky, epoch: i32) -> Campaign {
        let mut campaign = tests::campaign(Vec::new(), vec![tests::destination(5, 1, true)]);
        campaign.id = Uuid::from_u128(id);
        (campaign.terms.sticky, campaign.terms.epoch) = (sticky, epoch);
        campaign
    }

    const BOUND: Bound = Bound { path_id: 41, landing_page_id: Some(7), offer_id: None };

    #[test]
    fn what_a_visitor_got_is_kept_by_campaign_and_epoch() {
        let mut choices = Choices::default();
        let (one, other) = (campaign(1, Sticky::All, 0), campaign(2, Sticky::All, 3));
        choices.put(&one, BOUND);
        choices.put(&other, Bound { path_id: 0, ..Bound::default() });
        let read = Choices::read(&choices.to_bytes());
        assert_eq!(read, choices);
        assert_eq!(read.bound(&one), Some(BOUND));
        assert_eq!(read.bound(&campaign(1, Sticky::All, 1)), None, "another epoch");
        assert!(read.knows(&campaign(1, Sticky::All, 1)) && !read.knows(&campaign(3, Sticky::All, 0)));
    }

    #[test]
    fn of_a_hundred_campaigns_the_latest_find_room() {
        let mut choices = Choices::default();
        for id in 0..100 {
            let bound = Bound { path_id: 100_000, landing_page_id: Some(100_001), offer_id: Some(100_002) };
            choices.put(&campaign(id, Sticky::All, 2), bound);
        }
        let bytes = choices.to_bytes();
        assert!(bytes.len() <= BYTES_MAX && bytes.len() > BYTES_MAX - 20, "{}", bytes.len());
        let read = Choices::read(&bytes);
        assert!(read.0.len() >= 40, "{}", read.0.len());
        assert!(read.knows(&campaign(99, Sticky::All, 2)) && !read.knows(&campaign(0, Sticky::All, 2)));
    }

    #[test]
    fn a_cap_moves_somebody_without_binding_him_to_where_he_went() {
        let mut campaign = campaign(1, Sticky::All, 0);
        campaign.terms.offers = vec![tests::destination(5, 1, true), tests::destination(6, 1, true)];
        for offer in &mut campaign.terms.offers {
            let cap = r#"{"of": "clicks", "limit": 1, "per": "day", "time_zone": null}"#;
            offer.caps = vec![serde_json::from_str(cap).unwrap()];
        }
        let routes = Routes::new(campaign).unwrap();
        let (params, enricher) = (Params::default(), Enricher::open(&Files::default()).unwrap());
        let visitor = enricher.describe(&Signs::default());
        let mut choices = Choices::default();
        let visit = |choices: &Choices, full: Option<i64>| {
            let is_full = |target| full.is_some_and(|id| target == CapTarget::Offer(id));
            let bound = choices.bound(&routes.campaign);
            let visit = Visit::new(&params, &visitor, chrono::DateTime::UNIX_EPOCH, fastrand::u64(..));
            let decision = routing::decide(&routes, &Visit { bound, is_full: &is_full, ..visit });
            (decision.offer_id(), decision)
        };
        let (first, decision) = visit(&choices, None);
        choices.note(&routes.campaign, &decision);
        for _ in 0..20 {
            let (again, decision) = visit(&choices, None);
            assert_eq!(again, first);
            choices.note(&routes.campaign, &decision);
            let (moved, decision) = visit(&choices, first);
            assert!(moved.is_some() && moved != first);
            choices.note(&routes.campaign, &decision);
        }
        let named = Decision { routed: Routed::from_bits(1), ..visit(&choices, first).1 };
        choices.note(&routes.campaign, &named);
        assert_eq!(visit(&choices, None).0, first);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let choices = Choices::read(&bytes);
            prop_assert_eq!(Choices::read(&choices.to_bytes()), choices);
        }
    }
}
