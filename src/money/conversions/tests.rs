use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::model::id::Leg;

const HOUR_S: i64 = 3600;

fn click_id() -> ClickId {
    "019aaf3c-5f00-7abc-8def-0123456789ab".parse().unwrap()
}

fn rules(repeats: Repeats) -> PostbackRules {
    PostbackRules { repeats, retry_window_s: 3600, ..PostbackRules::default() }
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

/// What a postback says: `status payout txid goal`, `-` for nothing.
fn reading(text: &str) -> Reading {
    let mut words = text.split(' ').map(|word| if word == "-" { "" } else { word });
    let mut word = || words.next().unwrap_or_default();
    let (status, payout) = (word(), word());
    Reading {
        leg: Ok(Leg { click_id: click_id(), offer_id: None }),
        status: status.parse().map_or(Meaning::Unmapped, Meaning::Known),
        status_text: Some(status.to_owned()),
        status_detail: None,
        payout: (!payout.is_empty()).then(|| payout.parse().unwrap()),
        txid: word().to_owned(),
        goal: word().to_owned(),
        currency: None,
        sale_amount: None,
        time: None,
        numbers: Vec::new(),
        return_text: None,
        flags: Vec::new(),
    }
}

fn entry<'r>(rules: &'r PostbackRules, second: i64, text: &str) -> Entry<'r> {
    Entry {
        at: at(second),
        is_known: false,
        reading: reading(text),
        network_id: None,
        rules,
        offer_id: None,
        offer_payout: Some(Money { amount: "7".parse().unwrap(), currency: Currency::USD }),
    }
}

/// `status payout` of each conversion.
fn told(rules: &PostbackRules, postbacks: &[(i64, &str)]) -> (String, Vec<Option<OutcomeReason>>) {
    let entries: Vec<_> = postbacks.iter().map(|(second, text)| entry(rules, *second, text)).collect();
    let derived = derive(&entries);
    let conversions = derived.conversions.iter().map(|c| format!("{} {}", c.status, c.payout.normalize()));
    let reasons = derived.verdicts.iter().map(|verdict| verdict.reason).collect();
    (conversions.collect::<Vec<_>>().join(", "), reasons)
}

#[test]
fn a_history_of_postbacks_becomes_what_money_md_says() {
    use Repeats::{Add, Ignore, New, Update};
    for (repeats, postbacks, wanted) in [
        (Update, vec![(0, "approved 5")], "approved 5"),
        (Update, vec![(0, "approved")], "approved 7"),
        (Update, vec![(0, "approved 0")], "approved 0"),
        (Update, vec![(0, "pending 5"), (9, "approved")], "approved 5"),
        (Update, vec![(0, "pending 5"), (9, "approved 6")], "approved 6"),
        (Update, vec![(0, "approved 5"), (9, "pending 5")], "approved 5"),
        (Update, vec![(0, "rejected 5"), (9, "pending 5")], "rejected 0"),
        (Update, vec![(0, "approved 5"), (9, "rejected")], "rejected 0"),
        (Update, vec![(0, "approved 5"), (9, "rejected"), (10, "approved")], "approved 5"),
        (Update, vec![(0, "approved 5"), (9, "refunded")], "refunded 0"),
        (Update, vec![(0, "approved 5"), (9, "refunded 5")], "refunded 0"),
        (Update, vec![(0, "approved 5"), (9, "refunded 2")], "approved 3"),
        (Update, vec![(0, "approved 5"), (9, "refunded 2"), (10, "refunded 2")], "approved 3"),
        (Update, vec![(0, "approved 5"), (9, "refunded 2"), (9 + 2 * HOUR_S, "refunded 2")], "approved 1"),
        (Update, vec![(0, "approved 5"), (9, "approved -5")], "refunded 0"),
        (Update, vec![(0, "approved 5 a"), (9, "approved -2 b")], "approved 5, approved -2"),
        (Update, vec![(0, "approved 5 a"), (9, "approved 5 a")], "approved 5"),
        (Update, vec![(0, "approved 5 a"), (9, "approved 5 b")], "approved 5, approved 5"),
        (Update, vec![(0, "approved 1 a reg"), (9, "approved 9 a dep")], "approved 1, approved 9"),
        (Update, vec![(0, "what 5")], "unmapped 0"),
        (Update, vec![(0, "what 5"), (1, "approved")], "approved 5"),
        (Update, vec![(0, "approved 5"), (1, "what 6")], "approved 5"),
        (Update, vec![(0, "ignored 5")], ""),
        (Update, vec![(0, "approved 5"), (1, "rebill 2"), (2, "rebill 2")], "approved 5, approved 2"),
        (
            Update,
            vec![(0, "approved 5"), (1, "rebill 2"), (1 + 2 * HOUR_S, "rebill 2")],
            "approved 5, approved 2, approved 2",
        ),
        (
            Update,
            vec![(0, "approved 5 a"), (1, "rebill 2 a"), (9999, "rebill 2 a")],
            "approved 5, approved 2",
        ),
        (Ignore, vec![(0, "approved 5"), (9999, "approved 6")], "approved 5"),
        (Ignore, vec![(0, "approved 5"), (9999, "rejected")], "rejected 0"),
        (Ignore, vec![(0, "pending 5"), (9999, "approved")], "approved 5"),
        (New, vec![(0, "approved 5"), (9, "approved 5.000")], "approved 5"),
        (New, vec![(0, "approved 5"), (9, "approved 6")], "approved 5, approved 6"),
        (New, vec![(0, "approved 5"), (2 * HOUR_S, "approved 5")], "approved 5, approved 5"),
        (New, vec![(0, "approved 5 a"), (2 * HOUR_S, "approved 5 a")], "approved 5"),
        (New, vec![(0, "pending 5"), (9, "approved 5")], "approved 5"),
        (Add, vec![(0, "approved 5"), (9, "approved 5")], "approved 5"),
        (Add, vec![(0, "approved 5"), (9, "approved 6")], "approved 11"),
        (Add, vec![(0, "approved 5"), (2 * HOUR_S, "approved 5")], "approved 10"),
        (Add, vec![(0, "approved 5"), (9, "approved 6"), (10, "rejected")], "rejected 0"),
    ] {
        assert_eq!(told(&rules(repeats), &postbacks).0, wanted, "{repeats}: {postbacks:?}");
    }
}

#[test]
fn a_postback_that_changes_nothing_says_why() {
    use OutcomeReason::{IgnoredStatus, LatePending, Repeat, Unmapped};
    let postbacks = [
        (0, "approved 5"),
        (1, "approved 5"),
        (2, "pending 5"),
        (3, "what 5"),
        (4, "ignored"),
        (5, "refunded 1"),
        (6, "refunded 1"),
    ];
    let wanted =
        [None, Some(Repeat), Some(LatePending), Some(Unmapped), Some(IgnoredStatus), None, Some(Repeat)];
    assert_eq!(told(&rules(Repeats::Update), &postbacks).1, wanted);
}

#[test]
fn a_network_that_asks_for_a_token_is_told_of_nothing_without_its_key() {
    let rules = PostbackRules { needs_key: true, ..rules(Repeats::Update) };
    let stranger = entry(&rules, 0, "approved 5");
    let derived = derive(std::slice::from_ref(&stranger));
    assert_eq!((derived.conversions.len(), derived.verdicts[0].reason), (0, Some(OutcomeReason::WrongKey)));
    let known = Entry { is_known: true, ..stranger };
    assert_eq!(derive(&[known]).conversions.len(), 1);
}

#[test]
fn what_was_made_up_is_flagged() {
    let rules = rules(Repeats::New);
    let mut entries = vec![
        entry(&rules, 0, "approved"),
        entry(&rules, 2 * HOUR_S, "approved 5"),
        entry(&rules, 2 * HOUR_S + 1, "refunded 1"),
    ];
    entries[0].offer_payout = None;
    let flags = |conversion: &Conversion| conversion.flags.clone();
    let derived = derive(&entries);
    assert_eq!(flags(&derived.conversions[0]), [Flag::NoPayout]);
    assert_eq!(flags(&derived.conversions[1]), [Flag::NoTxid, Flag::PartlyRefunded]);

    let mut entries = ["pending", "rejected 5", "approved"].map(|text| entry(&rules, 0, text));
    for entry in &mut entries {
        entry.offer_payout = None;
    }
    let derived = derive(&entries);
    let conversion = &derived.conversions[0];
    assert_eq!((conversion.payout, conversion.flags.len()), (Decimal::from(5), 0), "what was said counts");
}

#[test]
fn amounts_of_two_currencies_are_neither_added_nor_subtracted() {
    use Repeats::{Add, Update};
    for (repeats, postbacks, wanted) in [
        (Update, ["approved 5 USD", "approved 6 EUR"], "approved 6 EUR"),
        (Update, ["approved 5 USD", "refunded 2 USD"], "approved 3 USD"),
        (Update, ["approved 5 USD", "refunded 2 EUR"], "refunded 0 USD of 5"),
        (Update, ["approved 5 USD", "rejected 4 EUR"], "rejected 0 USD of 5"),
        (Update, ["pending 5 USD", "approved - EUR"], "approved 5 USD"),
        (Update, ["rejected 5 EUR", "approved -"], "approved 5 EUR"),
        (Add, ["approved 5 USD", "approved 6 USD"], "approved 11 USD"),
        (Add, ["approved 5 USD", "approved 6"], "approved 11 USD"),
        (Add, ["approved 5 USD", "approved 6 EUR"], "approved 5 USD, approved 6 EUR"),
    ] {
        let rules = rules(repeats);
        let told = (0..).zip(postbacks).map(|(second, text)| {
            let currency = text.split(' ').nth(2).map(|code| code.parse().unwrap());
            let words: Vec<&str> = text.split(' ').take(2).collect();
            let mut entry = entry(&rules, second, &words.join(" "));
            entry.reading.currency = currency;
            entry
        });
        let derived = derive(&told.collect::<Vec<_>>());
        let found = derived.conversions.iter().map(|c| {
            let original = c.original_payout.filter(|_| !c.status.has_money());
            let of = original.map(|payout| format!(" of {}", payout.normalize())).unwrap_or_default();
            format!("{} {} {}{of}", c.status, c.payout.normalize(), c.currency)
        });
        assert_eq!(found.collect::<Vec<_>>().join(", "), wanted, "{repeats}: {postbacks:?}");
    }
}

#[test]
fn a_currency_is_the_postbacks_else_the_networks_else_the_offers() {
    let of = |text: &str| text.parse::<Currency>().unwrap();
    let mut rules = rules(Repeats::Update);
    let mut first = entry(&rules, 0, "approved 5");
    first.offer_payout = Some(Money { amount: Decimal::ONE, currency: of("GBP") });
    assert_eq!(derive(&[first]).conversions[0].currency, of("GBP"));
    rules.currency = Some(of("EUR"));
    let mut first = entry(&rules, 0, "approved 5");
    assert_eq!(derive(&[first.clone()]).conversions[0].currency, of("EUR"));
    first.reading.currency = Some(of("PLN"));
    let derived = derive(&[first, entry(&rules, 1, "approved 5")]);
    assert_eq!(derived.conversions[0].currency, of("EUR"));
    let rows: Vec<String> = book(&derived, 0, true, |_| None)
        .iter()
        .map(|(.., m)| format!("{} {} {}", m.payout, m.revenue, m.currency))
        .collect();
    assert_eq!(rows, ["5 5 PLN", "-5 -5 PLN", "5 5 EUR"]);
}

/// What a store holds of a click, as `db::ingest::conversions` keeps it.
#[derive(Default)]
struct Stored {
    /// By second and place, each with whether it was derived with.
    postbacks: Vec<(i64, String)>,
    derived_with: usize,
    conversions: HashMap<Uuid, Standing>,
    payout: HashMap<(Uuid, Currency), Decimal>,
    revenue: HashMap<(Uuid, Currency), Decimal>,
}

impl Stored {
    /// Stores postbacks of the click that came at these times.
    fn store(&mut self, rules: &PostbackRules, new: &[(i64, String)]) {
        let known = self.postbacks.clone();
        self.postbacks.extend_from_slice(new);
        self.postbacks.sort();
        let is_new = |postback: &(i64, String)| !known.contains(postback);
        let first_new = self.postbacks.iter().position(is_new).unwrap_or(self.postbacks.len());
        let is_in_order = self.postbacks[first_new..].iter().all(is_new);
        let entries: Vec<_> = self.postbacks.iter().map(|(s, text)| entry(rules, *s, text)).collect();
        let derived = derive(&entries);
        let ids: Vec<Uuid> = derived.conversions.iter().map(|c| c.key.id(click_id())).collect();
        let rows = book(&derived, first_new, is_in_order, |i| self.conversions.get(&ids[i]).copied());
        for (conversion, _, moved) in rows {
            self.add(ids[conversion], moved);
        }
        let others =
            self.conversions.iter().filter(|(id, s)| !ids.contains(id) && s.status != Status::Ignored);
        for (id, standing) in others.map(|(id, standing)| (*id, *standing)).collect::<Vec<_>>() {
            for moved in unmake(standing) {
                self.add(id, moved);
            }
            let none = Standing { status: Status::Ignored, payout: Decimal::ZERO, ..standing };
            self.conversions.insert(id, none);
        }
        for (id, conversion) in ids.iter().zip(&derived.conversions) {
            self.conversions.insert(*id, conversion.standing());
        }
        self.derived_with = self.postbacks.len();
    }

    fn add(&mut self, id: Uuid, moved: Move) {
        *self.payout.entry((id, moved.currency)).or_default() += moved.payout;
        *self.revenue.entry((id, moved.currency)).or_default() += moved.revenue;
    }
}

fn any_postback() -> impl Strategy<Value = String> {
    let status = prop::sample::select(vec![
        "pending", "approved", "approved", "rejected", "refunded", "rebill", "ignored", "what",
    ]);
    let payout = prop::sample::select(vec!["-", "-", "1", "5", "5.5", "0", "-2"]);
    let txid = prop::sample::select(vec!["-", "-", "a", "b"]);
    let goal = prop::sample::select(vec!["-", "-", "dep"]);
    (status, payout, txid, goal).prop_map(|(s, p, t, g)| format!("{s} {p} {t} {g}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_order_postbacks_are_stored_in_the_conversions_and_the_sums_of_the_book_are_the_same(
        postbacks in prop::collection::vec((0..3 * HOUR_S, any_postback()), 0..12),
        order in prop::collection::vec(any::<u16>(), 12),
        pieces in prop::collection::vec(1usize..4, 12),
        repeats in prop::sample::select(vec![Repeats::Update, Repeats::Ignore, Repeats::New, Repeats::Add]),
    ) {
        let mut postbacks = postbacks;
        postbacks.sort();
        postbacks.dedup();
        let rules = rules(repeats);
        let mut at_once = Stored::default();
        at_once.store(&rules, &postbacks);

        let mut shuffled: Vec<_> = postbacks.iter().cloned().zip(&order).collect();
        shuffled.sort_by_key(|(_, place)| **place);
        let mut left: Vec<_> = shuffled.into_iter().map(|(postback, _)| postback).collect();
        let mut stored = Stored::default();
        for piece in pieces {
            let rest = left.split_off(piece.min(left.len()));
            stored.store(&rules, &left);
            left = rest;
        }
        stored.store(&rules, &left);

        let counted = |stored: &Stored| -> BTreeMap<Uuid, (Status, Decimal)> {
            let counted = stored.conversions.iter().filter(|(_, s)| s.status != Status::Ignored);
            counted.map(|(id, s)| (*id, (s.status, s.payout))).collect()
        };
        prop_assert_eq!(counted(&at_once), counted(&stored));
        for each in [&at_once, &stored] {
            for (id, standing) in &each.conversions {
                let sums = each.payout.iter().filter(|((of, _), _)| of == id);
                for ((_, currency), sum) in sums {
                    let wanted = if *currency == standing.currency { standing.payout } else { Decimal::ZERO };
                    prop_assert_eq!(*sum, wanted);
                }
                let revenue = each.revenue.get(&(*id, standing.currency)).copied().unwrap_or_default();
                prop_assert_eq!(revenue, standing.revenue());
            }
        }
        prop_assert_eq!(stored.derived_with, postbacks.len());
    }
}

#[test]
fn the_id_of_a_conversion_is_made_of_what_tells_it_apart_and_begins_with_the_time_of_its_click() {
    let key = |goal: &str, txid: &str, nth| Key {
        leg_offer_id: 0,
        goal: goal.to_owned(),
        is_rebill: false,
        txid: txid.to_owned(),
        nth,
    };
    let id = key("dep", "a", 0).id(click_id());
    assert_eq!(id, key("dep", "a", 0).id(click_id()));
    assert_eq!(id.as_bytes()[..6], click_id().uuid().as_bytes()[..6]);
    for other in [key("dep", "b", 0), key("depa", "", 0), key("dep", "a", 1), key("", "depa", 0)] {
        assert_ne!(other.id(click_id()), id);
    }
}
