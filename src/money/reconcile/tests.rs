//! A table of reports and what comes of them, and what holds for all.

use proptest::prelude::*;

use super::*;
use crate::model::{conversion::Outcome, id::ClickId, network::StatusWord};

const ZONE: Tz = chrono_tz::Europe::Berlin;

/// 2026-11-20, 12:00 in Berlin.
const NOON: &str = "2026-11-20T11:00:00Z";

fn click(n: u8) -> ClickId {
    ClickId::from_uuid(format!("019aaf3c-5f00-7abc-8def-0000000000{n:02x}").parse().unwrap()).unwrap()
}

fn rules() -> PostbackRules {
    let word = |word: &str, status| StatusWord { word: word.to_owned(), status, goal: None };
    let status_map = vec![word("4", MappedStatus::Approved), word("none", MappedStatus::Ignored)];
    PostbackRules { status_map, ..PostbackRules::default() }
}

/// A line of a click: `click_id` by its number, and the rest as it stands.
fn line(number: u64, params: &str) -> Line {
    let (n, rest) = params.split_once('&').unwrap_or((params, ""));
    let params = match n.parse() {
        Ok(n) => format!("clickid={}&{rest}", click(n)),
        Err(_) => params.to_owned(),
    };
    let report = Report { zone: ZONE, date: ReportDate::Conversion, currency: None };
    Line::read(number, Some(&params), &rules(), report)
}

/// A conversion in words: click, state, payout, and then `txid=`, `goal=`, `at=`, `out`.
fn ours(n: u8, text: &str) -> Ours {
    let words: Vec<&str> = text.split(' ').collect();
    let named = |name: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    };
    let at = if named("at").is_empty() { NOON.to_owned() } else { named("at") };
    Ours {
        id: Uuid::from_u128(n.into()),
        click_id: click(words[0].parse().unwrap()).uuid(),
        offer_id: named("offer").parse().ok(),
        goal: named("goal"),
        txid: named("txid"),
        is_rebill: words.contains(&"rebill"),
        status: words[1].parse().unwrap(),
        status_text: None,
        payout: words[2].parse().unwrap(),
        currency: Currency::USD,
        at: at.parse().unwrap(),
        is_in_range: !words.contains(&"out"),
    }
}

/// `finding line ours differences` of each entry.
fn compared(lines: &[&str], conversions: &[&str]) -> Vec<String> {
    let lines: Vec<Line> = (1..).zip(lines).map(|(number, params)| line(number, params)).collect();
    let ours: Vec<Ours> = (1..).zip(conversions).map(|(n, text)| ours(n, text)).collect();
    let in_words = |entry: Entry| {
        let place = |place: Option<usize>| place.map_or("-".to_owned(), |place| (place + 1).to_string());
        let differences: Vec<String> = entry.differences.iter().map(ToString::to_string).collect();
        let text = format!(
            "{} {} {} {}",
            entry.finding,
            place(entry.line),
            place(entry.ours),
            differences.join("+")
        );
        text.trim_end().to_owned()
    };
    compare(&lines, &ours, ZONE).into_iter().map(in_words).collect()
}

#[test]
fn lines_and_conversions_are_paired_and_what_differs_is_named() {
    for (lines, conversions, wanted) in [
        // the same, in another form
        (&["1&payout=5,00&status=4&date=20.11.2026"][..], &["1 approved 5"][..], &["matched 1 1"][..]),
        // what is not said is not compared
        (&["1"], &["1 rejected 0"], &["matched 1 1"]),
        (&["1&payout=5"], &["1 pending 5"], &["matched 1 1"]),
        (&["1&payout=5"], &["1 rejected 0"], &["other_amount 1 1 amount"]),
        // what neither counts makes no difference
        (&["1&payout=5&status=rejected"], &["1 rejected 0"], &["matched 1 1"]),
        (&["1&payout=5&status=rejected"], &["1 refunded 0"], &["other_status 1 1 status"]),
        // the first difference is the outcome, all are named
        (
            &["1&payout=6&status=pending&date=2026-11-21"],
            &["1 approved 5"],
            &["other_status 1 1 status+amount+day"],
        ),
        (&["1&payout=5&currency=EUR"], &["1 approved 6"], &["other_currency 1 1 currency"]),
        (&["1&payout=5.000001"], &["1 approved 5"], &["other_amount 1 1 amount"]),
        (&["1&status=what"], &["1 approved 5"], &["other_status 1 1 status"]),
        // a word that nobody mapped is no state that both could agree on
        (&["1&status=what&payout=5"], &["1 unmapped 0"], &["other_status 1 1 status"]),
        (&["1"], &["1 unmapped 0"], &["other_status 1 1 status"]),
        // midnight in Berlin is 23:00 UTC
        (&["1&date=2026-11-21"], &["1 approved 5 at=2026-11-20T23:00:00Z"], &["matched 1 1"]),
        (&["1&date=2026-11-21"], &["1 approved 5 at=2026-11-20T22:59:59Z"], &["other_day 1 1 day"]),
        // the transaction id is in one of the two only
        (&["1&txid=a"], &["1 approved 5"], &["matched 1 1"]),
        (&["1"], &["1 approved 5 txid=a"], &["matched 1 1"]),
        (&["1&txid=a"], &["1 approved 5 txid=b"], &["missing_here 1 -", "missing_there - 1"]),
        // a click's registration and deposit may share it
        (
            &["1&txid=a&goal=Dep&payout=9", "1&txid=a&goal=reg&payout=1"],
            &["1 approved 1 txid=a goal=reg", "1 approved 9 txid=a goal=dep"],
            &["matched 1 2", "matched 2 1"],
        ),
        (&["1&txid=a&goal=Deposit"], &["1 approved 5 txid=a goal=2"], &["matched 1 1"]),
        (&["1&goal=Deposit"], &["1 approved 5 goal=reg"], &["missing_here 1 -", "missing_there - 1"]),
        // without anything to tell them apart, the amount does
        (&["1&payout=7", "1&payout=5"], &["1 approved 5", "1 approved 7"], &["matched 1 2", "matched 2 1"]),
        // twice
        (&["1&txid=a", "1&txid=a"], &["1 approved 5 txid=a"], &["matched 1 1", "doubled 2 -"]),
        (
            &["1&txid=a&status=pending", "1&txid=a&status=4"],
            &["1 approved 5 txid=a"],
            &["doubled 1 -", "matched 2 1"],
        ),
        (&["1", "1"], &[], &["missing_here 1 -", "doubled 2 -"]),
        (&["1&payout=5"], &["1 approved 5", "1 approved 5"], &["matched 1 1", "doubled - 2"]),
        // a further payment is no sale
        (&["1&status=rebill"], &["1 approved 5"], &["missing_here 1 -", "missing_there - 1"]),
        (
            &["1&status=rebill", "1"],
            &["1 approved 5", "1 approved 2 rebill goal=rebill"],
            &["matched 1 2", "matched 2 1"],
        ),
        // of another offer of the click
        (
            &["cid=019aaf3c-5f00-7abc-8def-000000000001.7"],
            &["1 approved 5 offer=8", "1 approved 5 offer=7"],
            &["matched 1 2", "missing_there - 1"],
        ),
        // what is none on both sides
        (&["1&status=none"], &[], &["matched 1 -"]),
        (&["1&status=none"], &["1 ignored 0"], &["matched 1 1"]),
        (&[], &["1 ignored 0"], &[]),
        // out of the range it is only paired
        (&["1"], &["1 approved 5 out", "2 approved 5 out"], &["matched 1 1"]),
        (&["cid=foreign", "payout=5"], &[], &["missing_here 1 -", "missing_here 2 -"]),
    ] {
        assert_eq!(compared(lines, conversions), wanted, "{lines:?} and {conversions:?}");
    }
}

#[test]
fn a_line_that_cannot_be_read_is_one_and_counts_nothing() {
    let lines = [Line { number: 1, said: None }];
    let entries = compare(&lines, &[], ZONE);
    assert_eq!(entries[0].finding, Finding::Unreadable);
    assert_eq!(entries[0].in_words(&lines, &[]), "It is no line of CSV, or no JSON object.");
    let totals = totals(&entries, &lines, &[]);
    assert_eq!((totals[&Finding::Unreadable].count, totals.len()), (1, Finding::iter().count()));
}

#[test]
fn sums_are_of_what_counts_and_no_currency_is_added_to_another() {
    let lines = [
        line(1, "1&payout=5&currency=EUR&status=4"),
        line(2, "2&payout=7&status=rejected"),
        line(3, "3&payout=2"),
        line(4, "4&payout=1"),
        line(5, "5"),
    ];
    let conversions =
        [ours(1, "1 approved 6"), ours(2, "2 rejected 0"), ours(3, "3 approved 2"), ours(4, "9 approved 4")];
    let entries = compare(&lines, &conversions, ZONE);
    let totals = totals(&entries, &lines, &conversions);
    let shown = |finding| {
        let total = &totals[&finding];
        let amounts: Vec<String> = total
            .amounts
            .iter()
            .map(|(currency, (theirs, ours))| format!("{currency} {theirs} {ours}"))
            .collect();
        format!("{}: {}", total.count, amounts.join(", "))
    };
    assert_eq!(shown(Finding::OtherCurrency), "1: EUR 5 0, USD 0 6");
    assert_eq!(shown(Finding::Matched), "2: USD 2 2");
    assert_eq!(shown(Finding::MissingHere), "2: XXX 1 0");
    assert_eq!(shown(Finding::MissingThere), "1: USD 0 4");
}

fn told(outcome: Outcome, reason: Option<OutcomeReason>, network_id: i64, params: &str) -> Told {
    let id = Uuid::from_u128(7);
    Told::new(id, Some(network_id), outcome, reason, params, &rules())
}

#[test]
fn what_is_missing_here_was_lost_at_the_hop_that_the_ledger_tells() {
    use Outcome::{Accepted, Ignored, Orphan, Refused, Waiting};
    let mut facts = Facts { network_id: 3, ..Facts::default() };
    facts.clicks.extend((1..=8).map(|n| click(n).uuid()));
    let mut tell = |n: u8, told: Told| facts.told.entry(click(n).uuid()).or_default().push(told);
    tell(2, told(Ignored, Some(OutcomeReason::IgnoredStatus), 3, "txid=a"));
    tell(3, told(Refused, Some(OutcomeReason::WrongToken), 3, ""));
    tell(4, told(Accepted, None, 4, "txid=a"));
    tell(5, told(Accepted, Some(OutcomeReason::Repeat), 3, ""));
    tell(6, told(Ignored, Some(OutcomeReason::IgnoredStatus), 3, "txid=b"));
    tell(7, told(Accepted, None, 3, "goal=reg"));
    tell(8, told(Accepted, None, 3, ""));
    tell(8, told(Ignored, Some(OutcomeReason::TooMany), 3, "txid=a"));
    tell(9, told(Waiting, None, 3, "txid=a"));
    tell(10, told(Orphan, None, 3, "txid=a"));
    facts.lost.insert("lost".to_owned(), told(Ignored, Some(OutcomeReason::BadClickId), 3, "txid=lost"));
    for (params, wanted) in [
        ("1&txid=a", "never_arrived"),
        ("2&txid=a", "ignored ignored_status"),
        ("3&txid=a", "refused wrong_token"),
        ("4&txid=a", "other_network"),
        ("5&txid=a", "merged repeat"),
        ("6&txid=a", "never_arrived"),
        ("7&goal=dep", "never_arrived"),
        ("8&txid=a", "ignored too_many"),
        ("9&txid=a", "waiting"),
        ("10&txid=a", "orphan"),
        ("11&txid=a", "unknown_click"),
        ("1&txid=lost", "ignored bad_click_id"),
        ("cid=foreign", "bad_click_id"),
        ("payout=5", "no_click_id"),
    ] {
        let lines = [line(1, params)];
        let mut entries = compare(&lines, &[], ZONE);
        facts.explain(&mut entries, &lines, &[]);
        let hop = entries[0].hop.unwrap().to_string();
        let reason = entries[0].reason.map_or(String::new(), |reason| format!(" {reason}"));
        assert_eq!(hop + &reason, wanted, "{params}");
        assert!(entries[0].in_words(&lines, &[]).ends_with('.'));
    }
}

#[test]
fn what_differs_is_told_with_what_was_heard_last() {
    let lines = [line(1, "1&status=pending"), line(2, "2&status=nix"), line(3, "1&status=pending")];
    let conversions = [ours(1, "1 approved 5"), ours(2, "2 approved 5"), ours(3, "3 rejected 0")];
    let change = Change {
        postback_id: Some(Uuid::from_u128(9)),
        cause: "postback".to_owned(),
        from_status: None,
        to_status: "approved".to_owned(),
        changed_at: NOON.parse().unwrap(),
    };
    let facts = Facts { changes: [(conversions[0].id, change.clone())].into(), ..Facts::default() };
    let mut entries = compare(&lines, &conversions, ZONE);
    facts.explain(&mut entries, &lines, &conversions);
    let hops: Vec<String> = entries.iter().map(|entry| entry.hop.unwrap().to_string()).collect();
    assert_eq!(hops, ["changed", "unmapped", "twice_there", "rejected"]);
    assert_eq!((&entries[0].last_change, entries[0].postback_id), (&Some(change), Some(Uuid::from_u128(9))));
    let words: Vec<String> = entries.iter().map(|entry| entry.in_words(&lines, &conversions)).collect();
    let wanted = [
        "It is approved here since 2026-11-20 11:00:00 UTC, by the postback 00000000-0000-0000-0000-000000000009.",
        "The network's word \"nix\" is not known: map it, and replay.",
        "Line 1 says the same.",
        "No line is this conversion, which is rejected here.",
    ];
    assert_eq!(words, wanted);
}

fn any_line() -> impl Strategy<Value = String> {
    let text = |choices: &[&'static str]| prop::sample::select(choices.to_vec());
    let status =
        text(&["", "", "&status=4", "&status=rejected", "&status=rebill", "&status=none", "&status=what"]);
    let amount = text(&["", "&payout=5", "&payout=7,5", "&payout=-1", "&payout=x"]);
    let txid = text(&["", "", "&txid=a", "&txid=b"]);
    let goal = text(&["", "", "&goal=dep", "&goal=Reg"]);
    let date = text(&["", "&date=2026-11-20", "&date=2026-11-21"]);
    let currency = text(&["", "", "&currency=EUR", "&currency=nix"]);
    let click = text(&["1", "1", "2", "3", "cid=foreign", "x=y"]);
    (click, status, amount, txid, goal, date, currency)
        .prop_map(|(click, s, a, t, g, d, c)| format!("{click}{s}{a}{t}{g}{d}{c}"))
}

fn any_conversion() -> impl Strategy<Value = String> {
    let text = |choices: &[&'static str]| prop::sample::select(choices.to_vec());
    let status = text(&["approved 5", "approved 7.5", "pending 5", "rejected 0", "ignored 0", "unmapped 0"]);
    let rest = text(&["", "", " txid=a", " txid=b", " goal=dep", " goal=reg txid=a", " rebill goal=rebill"]);
    (1..=4u8, status, rest, text(&["", "", " out"]))
        .prop_map(|(click, status, rest, out)| format!("{click} {status}{rest}{out}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn each_line_and_each_conversion_of_the_range_comes_to_one_entry_and_totals_are_the_sums_of_these(
        said in prop::collection::vec(any_line(), 0..10),
        stored in prop::collection::vec(any_conversion(), 0..10),
    ) {
        let lines: Vec<Line> = (1..).zip(&said).map(|(number, params)| line(number, params)).collect();
        let conversions: Vec<Ours> = (1..).zip(&stored).map(|(n, text)| ours(n, text)).collect();
        let mut entries = compare(&lines, &conversions, ZONE);
        let of_lines: Vec<usize> = entries.iter().filter_map(|entry| entry.line).collect();
        prop_assert_eq!(of_lines, (0..lines.len()).collect::<Vec<_>>());
        for (i, it) in conversions.iter().enumerate() {
            let found: Vec<&Entry> = entries.iter().filter(|entry| entry.ours == Some(i)).collect();
            prop_assert!(found.len() <= 1);
            let must_be = it.is_in_range && it.status != Status::Ignored;
            prop_assert!(found.len() == 1 || !must_be, "{it:?}");
            let is_alone = found.iter().any(|entry| entry.line.is_none());
            prop_assert!(!is_alone || must_be);
        }
        for entry in &entries {
            let is_pair = entry.line.is_some() && entry.ours.is_some();
            let first = entry.differences.first().map(|first| Finding::from(*first));
            match entry.finding {
                Finding::MissingHere => prop_assert!(entry.line.is_some() && !is_pair),
                Finding::MissingThere => prop_assert!(entry.ours.is_some() && !is_pair),
                Finding::Doubled => prop_assert!(!is_pair && entry.twin.is_some()),
                Finding::Unreadable => prop_assert!(false, "all can be read"),
                Finding::Matched => prop_assert!(first.is_none() && entry.line.is_some()),
                other => prop_assert!(is_pair && first == Some(other)),
            }
            if is_pair {
                let click = lines[entry.line.unwrap()].said.as_ref().unwrap().leg.unwrap().click_id.uuid();
                prop_assert_eq!(click, conversions[entry.ours.unwrap()].click_id);
            }
        }
        let by_finding = totals(&entries, &lines, &conversions);
        prop_assert_eq!(by_finding.values().map(|total| total.count).sum::<usize>(), entries.len());
        let theirs: Decimal = lines.iter().map(|line| line.said.as_ref().unwrap().counted()).sum();
        let payout = |entry: &Entry| entry.ours.map_or(Decimal::ZERO, |i| conversions[i].payout);
        let amounts = || by_finding.values().flat_map(|total| total.amounts.values());
        prop_assert_eq!(amounts().map(|(theirs, _)| *theirs).sum::<Decimal>(), theirs);
        prop_assert_eq!(amounts().map(|(_, ours)| *ours).sum::<Decimal>(), entries.iter().map(payout).sum::<Decimal>());
        Facts::default().explain(&mut entries, &lines, &conversions);
        for entry in &entries {
            let is_explained = matches!(entry.finding, Finding::Matched) || entry.hop.is_some();
            prop_assert!(is_explained && entry.hop.is_some() != entry.in_words(&lines, &conversions).is_empty());
        }
    }
}
