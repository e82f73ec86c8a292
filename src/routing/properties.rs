//! What holds of every set of rules and every visitor: 100,000 random pairs, made from seeds.

use chrono::TimeDelta;
use fastrand::Rng;

use super::{
    explain::{Outcome, explain},
    *,
};
use crate::{
    model::rule::{Cap, CapOf, CapPer, Test},
    visitor::{Device, Version, browsers, systems},
};

const COUNTRIES: [&str; 4] = ["DE", "AT", "US", "BR"];

/// How destinations begin and end, most of them on the web.
const LINKS: [(&str, &str); 7] = [
    ("https", ""),
    ("https", "{click_id}"),
    ("https", "?s={sub1}"),
    ("market", ""),
    ("itms-apps", ""),
    ("myapp", ""),
    ("intent", "#Intent;scheme=https;end"),
];

fn pick<'a>(random: &mut Rng, list: &[&'a str]) -> &'a str {
    random.choice(list).copied().unwrap_or_default()
}

fn criterion(random: &mut Rng) -> Criterion {
    let values = |random: &mut Rng, list: &[&str]| -> Vec<String> {
        (0..random.usize(1..4)).map(|_| pick(random, list).to_owned()).collect()
    };
    let (dimension, name, list): (Dimension, Option<String>, Vec<String>) = match random.u8(..10) {
        0 => (Dimension::Country, None, values(random, &["DE", "at", "US", "unknown"])),
        1 => (Dimension::Device, None, values(random, &["desktop", "mobile", "tablet", "unknown"])),
        2 => (Dimension::Os, None, values(random, &["iOS", "iOS >=15", "Android <9", "Windows", "unknown"])),
        3 => (Dimension::Browser, None, values(random, &["Chrome 100-120", "Safari", "unknown"])),
        4 => (Dimension::Hour, None, values(random, &["9-18", "22:30-4", "3"])),
        5 => (Dimension::Time, None, values(random, &["mon-fri 9-18", "fri 22-4"])),
        6 => (Dimension::ReferrerHost, None, values(random, &["news.example", "www.ads.example", "unknown"])),
        7 => (Dimension::Returning, None, values(random, &["true", "false", "unknown"])),
        8 => (Dimension::Unique, None, values(random, &["true", "false"])),
        _ => (
            Dimension::Parameter,
            Some(pick(random, &["sub1", "q", "utm"]).into()),
            values(random, &["a", "b", ""]),
        ),
    };
    let is_text = matches!(dimension, Dimension::ReferrerHost | Dimension::Parameter);
    let test = match random.u8(..5) {
        0 => Test::IsNot(list),
        1 => Test::Present(random.bool()),
        2 if is_text => Test::Starts(vec!["a".into(), "news".into()]),
        3 if is_text => Test::Contains(vec!["b".into(), "ads".into()]),
        _ => Test::Is(list),
    };
    Criterion { dimension, name, test }
}

fn criteria(random: &mut Rng, max: usize) -> Vec<Criterion> {
    (0..random.usize(..=max)).map(|_| criterion(random)).collect()
}

struct Ids(i64);

impl Ids {
    fn next(&mut self) -> i64 {
        self.0 += 1;
        self.0
    }
}

fn destinations(random: &mut Rng, ids: &mut Ids, is_offers: bool) -> Vec<Destination> {
    let one = |random: &mut Rng, ids: &mut Ids| {
        let weight = if random.u8(..5) == 0 { 0 } else { random.i32(1..10) };
        let is_active = random.u8(..6) > 0;
        if !is_offers && random.u8(..6) == 0 {
            return Destination { weight, is_active, ..Destination::direct() };
        }
        let id = Some(ids.next());
        let caps = if is_offers && random.u8(..3) == 0 {
            vec![Cap { of: CapOf::Clicks, limit: 1, per: CapPer::Day, time_zone: None }]
        } else {
            Vec::new()
        };
        let overflow_offer_id =
            (is_offers && random.u8(..3) == 0).then(|| random.i64(1..40)).filter(|o| Some(*o) != id);
        let (scheme, end) = *random.choice(&LINKS).unwrap();
        Destination {
            id,
            name: format!("d{}", ids.0),
            url: format!("{scheme}://d{}.example/{end}", ids.0),
            web_url: (scheme != "https" && random.bool()).then(|| format!("https://w{}.example/", ids.0)),
            weight,
            is_active,
            caps,
            overflow_offer_id,
            ..Destination::default()
        }
    };
    let mut list: Vec<Destination> = (0..random.usize(..4)).map(|_| one(random, ids)).collect();
    let mut is_direct = false;
    list.retain(|d| !d.direct || !std::mem::replace(&mut is_direct, true)); // one at most
    list
}

fn paths(random: &mut Rng, ids: &mut Ids) -> Vec<rule::Path> {
    let one = |random: &mut Rng, ids: &mut Ids| rule::Path {
        id: Some(ids.next()),
        name: format!("p{}", ids.0),
        weight: if random.u8(..6) == 0 { 0 } else { random.i32(1..10) },
        is_active: random.u8(..6) > 0,
        when: criteria(random, 1),
        landing_pages: destinations(random, ids, false),
        offers: destinations(random, ids, true),
        offer_choice: if random.bool() { OfferChoice::Out } else { OfferChoice::Lander },
        caps: if random.u8(..4) == 0 {
            vec![Cap { of: CapOf::Clicks, limit: 1, per: CapPer::Day, time_zone: None }]
        } else {
            Vec::new()
        },
    };
    (0..random.usize(..4)).map(|_| one(random, ids)).collect()
}

fn terms(random: &mut Rng) -> Terms {
    let mut ids = Ids(0);
    let zone = |random: &mut Rng| *random.choice(&[Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Kolkata]).unwrap();
    let rule = |random: &mut Rng, ids: &mut Ids| rule::Rule {
        id: Some(ids.next()),
        name: format!("r{}", ids.0),
        is_active: random.u8(..6) > 0,
        when: std::iter::once(criterion(random)).chain(criteria(random, 2)).collect(),
        time_zone: random.bool().then(|| zone(random)),
        paths: paths(random, ids),
    };
    let rules = (0..random.usize(..5)).map(|_| rule(random, &mut ids)).collect();
    let mut terms = Terms {
        name: "n".into(),
        rules,
        sticky: *random.choice(&[Sticky::Off, Sticky::Path, Sticky::All]).unwrap(),
        epoch: random.i32(..3),
        time_zone: zone(random),
        fallback_url: random.bool().then(|| "https://fallback.example/".into()),
        ..Terms::default()
    };
    if random.bool() {
        terms.paths = paths(random, &mut ids);
    } else {
        terms.landing_pages = destinations(random, &mut ids, false);
        terms.offers = destinations(random, &mut ids, true);
    }
    terms
}

fn visitor(random: &mut Rng) -> Visitor<'static> {
    let version = |random: &mut Rng| {
        random.bool().then(|| Version { major: random.u16(5..130), minor: random.u16(..10) })
    };
    let names = |random: &mut Rng, known: Vec<&'static str>| {
        if random.u8(..5) == 0 { "" } else { *random.choice(&known).unwrap() }
    };
    Visitor {
        device: *random.choice(&[Device::Desktop, Device::Mobile, Device::Tablet, Device::Unknown]).unwrap(),
        os: names(random, systems().collect()),
        os_version: version(random),
        browser: names(random, browsers().collect()),
        browser_version: version(random),
        country: if random.u8(..4) == 0 { None } else { pick(random, &COUNTRIES).parse().ok() },
        is_bot: random.bool(),
        ..Visitor::default()
    }
}

/// What is decided, without what only names it.
fn answer(decision: &Decision<'_>) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        decision.template.map(|template| template.host().to_owned()),
        (decision.rule_id, decision.path_id(), decision.landing_page_id(), decision.offer_id()),
        decision.routed,
        decision.refused,
    )
}

/// Visits of each set of rules.
const VISITS: u64 = 10;

/// Runs `check` with many visits of many sets of rules.
fn each_case(sets: u64, mut check: impl FnMut(&Routes, &Visit<'_>, &mut Rng)) {
    for seed in 0..sets {
        let mut random = Rng::with_seed(seed);
        let mut campaign = Campaign::of("k".parse().unwrap(), terms(&mut random));
        campaign.id = uuid::Uuid::from_u64_pair(random.u64(..), random.u64(..));
        let routes = Routes::new(campaign).unwrap();
        for _ in 0..VISITS {
            check_visit(&routes, &mut random, &mut check);
        }
    }
}

fn check_visit(routes: &Routes, random: &mut Rng, check: &mut impl FnMut(&Routes, &Visit<'_>, &mut Rng)) {
    const QUERIES: [&str; 6] =
        ["", "sub1=a", "q=b&utm=ab", "landing_page_id=3", "campaign_offer_id=5", "sub1={x}&q="];
    const REFERRERS: [Option<&str>; 3] =
        [None, Some("https://www.news.example/a"), Some("http://ADS.example")];
    let params = Params::parse(pick(random, &QUERIES));
    let visitor = visitor(random);
    let full = random.u64(..);
    let is_full = move |target: CapTarget| {
        let (CapTarget::Path(id) | CapTarget::Offer(id)) = target;
        (full >> (id % 64)) & 1 == 1
    };
    let flag = |random: &mut Rng| *random.choice(&[None, Some(true), Some(false)]).unwrap();
    let minutes = random.i64(29_000_000..30_000_000);
    let visit = Visit {
        referrer: *random.choice(&REFERRERS).unwrap(),
        visitor_key: random.bool().then(|| random.u64(..)),
        bound: random.bool().then(|| Bound {
            path_id: random.i64(..20),
            landing_page_id: random.bool().then(|| random.i64(1..20)),
            offer_id: random.bool().then(|| random.i64(1..20)),
        }),
        is_returning: flag(random),
        is_unique: flag(random),
        is_full: &is_full,
        ..Visit::new(&params, &visitor, DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes), random.u64(..))
    };
    check(routes, &visit, random);
}

#[test]
fn a_visit_is_always_decided_and_always_the_same_way() {
    let (mut taken, mut refused) = (0, 0);
    each_case(10_000, |routes, visit, _| {
        let decision = decide(routes, visit);
        assert_eq!(answer(&decision), answer(&decide(routes, visit)));
        // a destination of the campaign, or an explicit refusal
        assert_eq!(decision.refused.is_none(), decision.landing_page.is_some() || decision.offer.is_some());
        assert!(decision.refused.is_some() || decision.template.is_some());
        if decision.refused.is_some() {
            refused += 1;
        } else {
            taken += 1;
        }
        assert!(!decision.routed.contains(Why::Bound) || visit.bound.is_some());
    });
    assert!(taken > 40_000 && refused > 10_000, "{taken} {refused}");
}

#[test]
fn nobody_is_led_to_what_his_device_cannot_open() {
    let (mut apps, mut web) = (0, 0);
    each_case(10_000, |routes, visit, _| {
        let decision = decide(routes, visit);
        let Some(branch) = decision.landing_page.or(decision.offer) else { return };
        let (os, target) = (visit.visitor.os, branch.target().unwrap());
        assert_eq!(decision.template, target.for_os(os));
        let template = decision.template.unwrap();
        // of a listed app nobody knows where else it can be had
        assert!(template.opens_on(os) || template.canonical().starts_with("myapp:"), "{template} on {os:?}");
        apps += usize::from(template.is_app_link());
        web += usize::from(target.link().is_app_link() && !template.is_app_link());
    });
    assert!(apps > 1_000 && web > 1_000, "{apps} {web}");
}

#[test]
fn bots_and_people_never_differ() {
    each_case(10_000, |routes, visit, _| {
        let other = Visitor { is_bot: !visit.visitor.is_bot, ..*visit.visitor };
        let same = Visit { visitor: &other, ..*visit };
        assert_eq!(answer(&decide(routes, visit)), answer(&decide(routes, &same)));
    });
}

#[test]
fn what_is_explained_is_what_is_decided() {
    each_case(10_000, |routes, visit, _| {
        let decision = decide(routes, visit);
        let explained = explain(routes, visit, &decision);
        let decided = &explained.decision;
        assert_eq!(
            (decided.rule_id, decided.path_id, decided.landing_page_id, decided.offer_id, decided.refused),
            (
                decision.rule_id,
                decision.path_id(),
                decision.landing_page_id(),
                decision.offer_id(),
                decision.refused
            )
        );
        let sum: f64 = explained.ways.iter().map(|way| way.probability).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        let taken = explained.rules.iter().find(|rule| rule.outcome == Outcome::Taken);
        let by_rules = !decision.routed.contains(Why::Named);
        if by_rules && decision.rule_id.is_some() {
            assert_eq!(taken.map(|rule| rule.id), decision.rule_id);
            assert!(taken.unwrap().when.iter().all(|criterion| criterion.holds));
        }
        // who is not bound takes one of the ways
        if by_rules && !decision.routed.contains(Why::Bound) && decision.refused.is_none() {
            let is_it = |way: &explain::Way| {
                let offer = decision.landing_page.is_some() && decision.offer.is_none();
                way.probability > 0.0
                    && way.path_id == decision.path_id()
                    && way.landing_page_id == decision.landing_page_id()
                    && (offer || way.offer_id == decision.offer_id())
            };
            assert!(explained.ways.iter().any(is_it), "{:?} {:?}", decided, explained.ways);
        }
    });
}

#[test]
fn probabilities_are_the_shares_of_many_visits() {
    let mut tried = 0;
    each_case(30, |routes, visit, random| {
        let visit = Visit { bound: None, visitor_key: None, ..*visit };
        let explained = explain(routes, &visit, &decide(routes, &visit));
        if explained.ways.len() < 2 {
            return;
        }
        tried += 1;
        let count = 20_000;
        let mut seen = vec![0_u32; explained.ways.len()];
        for _ in 0..count {
            let decision = decide(routes, &Visit { seed: random.u64(..), ..visit });
            let out = OutVisit {
                rule_id: decision.rule_id,
                path_id: decision.path_id(),
                offer_id: decision.offer_id(),
                nth: None,
                now: visit.now,
                seed: random.u64(..),
                visitor_key: None,
                bound_offer_id: None,
                os: visit.visitor.os,
                is_full: visit.is_full,
            };
            let offer_id = match decision.landing_page {
                Some(_) => decide_out(routes, &out).offer_id(),
                None => decision.offer_id(),
            };
            let is_it = |way: &explain::Way| {
                way.landing_page_id == decision.landing_page_id()
                    && way.offer_id == offer_id
                    && (way.path_id.is_none() || way.path_id == decision.path_id())
            };
            let way = explained.ways.iter().position(is_it);
            seen[way.unwrap_or_else(|| panic!("no way: {:?} {:?}", decision, explained.ways))] += 1;
        }
        for (way, seen) in explained.ways.iter().zip(seen) {
            let share = f64::from(seen) / f64::from(count);
            assert!(
                (share - way.probability).abs() < 0.02,
                "{share} {way:?} of {:#?}",
                routes.campaign.terms
            );
        }
    });
    assert!(tried > 5, "{tried}");
}

#[test]
fn a_removed_offer_moves_only_its_own_visitors() {
    let offer = |id: i64, weight| Destination {
        id: Some(id),
        name: format!("o{id}"),
        url: format!("https://o{id}.example/"),
        weight,
        ..Destination::default()
    };
    let of = |offers: Vec<Destination>| {
        let mut campaign = Campaign::of("k".parse().unwrap(), Terms { offers, ..Terms::default() });
        campaign.id = uuid::Uuid::from_u128(7);
        Routes::new(campaign).unwrap()
    };
    let (all, without) =
        (of(vec![offer(1, 3), offer(2, 2), offer(3, 1)]), of(vec![offer(1, 3), offer(3, 1)]));
    let (params, visitor) = (Params::default(), Visitor::default());
    let mut random = Rng::with_seed(1);
    for _ in 0..10_000 {
        let visit = Visit::new(&params, &visitor, DateTime::UNIX_EPOCH, random.u64(..));
        let (before, after) = (decide(&all, &visit).offer_id(), decide(&without, &visit).offer_id());
        assert!(before == after || before == Some(2), "{before:?} {after:?}");
    }
}
