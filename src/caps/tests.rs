use super::*;
use crate::{
    model::{
        campaign::{Campaign, Destination, Terms},
        rule,
    },
    routing::tests,
};

const NOON: &str = "2026-11-29T12:00:00Z";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn cap(of: CapOf, limit: u32, per: CapPer) -> Cap {
    Cap { of, limit, per, time_zone: None }
}

/// A campaign whose only path and whose offer 5 have caps.
fn routes(of_path: Vec<Cap>, of_offer: Vec<Cap>) -> Routes {
    let offer = Destination { caps: of_offer, ..tests::destination(5, 1, true) };
    let mut campaign = tests::campaign(Vec::new(), vec![offer]);
    campaign.terms.caps = of_path;
    Routes::new(campaign).unwrap()
}

fn caps(len_max: usize) -> (Caps, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let uniques = Uniques::open(1000, dir.path().join("visitors"), None);
    (Caps::new(len_max, Arc::new(uniques)), dir)
}

const PATH: CapTarget = CapTarget::Path(ONLY_PATH);
const OFFER: CapTarget = CapTarget::Offer(5);

#[test]
fn a_cap_is_full_after_so_many_clicks_until_its_window_is_over() {
    let (caps, _dir) = caps(10);
    let routes = routes(vec![cap(CapOf::Clicks, 3, CapPer::Day)], vec![cap(CapOf::Clicks, 2, CapPer::Hour)]);
    let noon = at(NOON);
    let full = |time| [PATH, OFFER].map(|target| caps.is_full(&routes, target, time, 1));
    assert_eq!(full(noon), [false, false]);
    for visit in 0..2 {
        caps.count_click(&routes, Some(0), Some(5), noon, visit);
    }
    assert_eq!(full(noon), [false, true]);
    caps.count_click(&routes, Some(0), None, noon, 1);
    assert_eq!(full(at("2026-11-29T12:59:59Z")), [true, true]);
    assert_eq!(full(at("2026-11-29T13:00:00Z")), [true, false]);
    assert_eq!(full(at("2026-11-30T00:00:00Z")), [false, false]);
    assert!(!caps.is_full(&routes, CapTarget::Offer(6), noon, 1), "without a cap");
}

#[test]
fn a_visitor_fills_one_place_and_may_come_back() {
    let (caps, _dir) = caps(10);
    let routes = routes(vec![cap(CapOf::Visitors, 2, CapPer::Day)], Vec::new());
    let noon = at(NOON);
    for visit in [1, 1, 1, 2] {
        assert!(!caps.is_full(&routes, PATH, noon, visit));
        caps.count_click(&routes, Some(0), None, noon, visit);
    }
    assert!(caps.is_full(&routes, PATH, noon, 3));
    assert!(!caps.is_full(&routes, PATH, noon, 1), "he is counted");
    assert!(!caps.is_full(&routes, PATH, at("2026-11-30T00:00:00Z"), 3));
}

#[test]
fn conversions_are_counted_when_somebody_says_so() {
    let (caps, _dir) = caps(10);
    let routes = routes(Vec::new(), vec![cap(CapOf::Conversions, 1, CapPer::Total)]);
    caps.count_click(&routes, Some(0), Some(5), at(NOON), 1);
    assert!(!caps.is_full(&routes, OFFER, at(NOON), 1));
    caps.count_conversion(&routes, Some(0), Some(5), at(NOON));
    assert!(caps.is_full(&routes, OFFER, at("2030-01-01T00:00:00Z"), 1));
}

#[test]
fn a_rejection_gives_the_place_back_in_the_window_in_which_the_conversion_came() {
    let (caps, _dir) = caps(10);
    let routes = routes(Vec::new(), vec![cap(CapOf::Conversions, 1, CapPer::Day)]);
    let (noon, tomorrow) = (at(NOON), at("2026-11-30T09:00:00Z"));
    caps.count_conversion(&routes, None, Some(5), noon);
    assert!(caps.is_full(&routes, OFFER, noon, 1));
    caps.give_back_conversion(&routes, None, Some(5), noon, noon);
    assert!(!caps.is_full(&routes, OFFER, noon, 1));
    assert_eq!(caps.usage(&routes, OFFER, noon)[0].used, 0);
    caps.count_conversion(&routes, None, Some(5), tomorrow);
    caps.give_back_conversion(&routes, None, Some(5), noon, tomorrow);
    assert!(caps.is_full(&routes, OFFER, tomorrow, 1), "that was yesterday's place");
}

#[test]
fn the_only_path_of_each_campaign_and_each_window_has_a_counter_of_its_own_and_another_limit_has_not() {
    let zoned = |zone: Option<Tz>| Cap { time_zone: zone, ..cap(CapOf::Clicks, 7, CapPer::Day) };
    let id = |campaign: u128, target, cap: Cap| {
        let mut campaign_ = Campaign::of("demo".parse().unwrap(), Terms::demo("https://a.example/"));
        campaign_.id = Uuid::from_u128(campaign);
        let routes = Routes::new(campaign_).unwrap();
        CounterId::of(&routes, target, cap)
    };
    let one = id(1, PATH, zoned(None));
    assert_ne!(one, id(2, PATH, zoned(None)));
    assert_ne!(one, id(1, PATH, zoned(Some(Tz::Europe__Berlin))));
    assert_eq!(one, id(1, PATH, Cap { limit: 8, ..zoned(None) }));
    assert_eq!(id(1, OFFER, zoned(None)), id(2, OFFER, zoned(None)), "an offer is the same everywhere");
    for id in [
        one,
        CounterId { of: CapOf::Conversions, is_back: true, ..one },
        id(1, CapTarget::Path(41), zoned(Some(Tz::America__Argentina__Buenos_Aires))),
    ] {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    for strange in ["", "path", "path/x/clicks/day/UTC", "path/1/clicks/day/Nowhere", "path/1/clicks/day"] {
        assert!(strange.parse::<CounterId>().is_err(), "{strange}");
    }
}

/// Told twice, in any order, over any way: the sum is the same.
#[test]
fn what_processes_counted_is_summed_once_however_often_it_is_told() {
    let (own, other, third) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let mut count = Count::new(Window { from: 0, until: i64::MAX }, own);
    count.limit = 10;
    (count.tallies[0].count, count.total) = (4, 4);
    assert!(count.is_untold(Store::Redis));
    assert_eq!(count.hear(Store::Redis, &[(own, 4), (other, 5)], &[(own, 4)]), 0);
    assert!(!count.is_untold(Store::Redis));
    assert_eq!(count.hear(Store::Redis, &[(other, 3), (own, 4)], &[]), 0, "an old answer");
    assert_eq!(count.total, 9);
    assert!(count.is_untold(Store::Redis), "it has less than is known here: it lost some");
    assert!(count.is_untold(Store::Postgres));
    // 4 over, of which 6 of 14 are this process's
    (count.tallies[0].count, count.total) = (6, 11);
    assert_eq!(count.hear(Store::Postgres, &[(other, 5), (third, 3)], &[(own, 6)]), 2);
    assert_eq!(count.hear(Store::Postgres, &[(other, 5), (third, 3)], &[]), 0, "said once");
    assert_eq!(count.total, 14);
    count.set_limit(5);
    assert_eq!(count.hear(Store::Postgres, &[], &[]), 0, "a lowered limit is nobody's overshoot");
}

#[test]
fn a_restart_takes_up_the_counts_of_windows_that_are_not_over() {
    let (before, dir) = caps(10);
    let path = dir.path().join("caps.json");
    let routes = routes(vec![cap(CapOf::Clicks, 2, CapPer::Day)], vec![cap(CapOf::Clicks, 9, CapPer::Total)]);
    let (noon, evening, tomorrow) = (at(NOON), at("2026-11-29T20:00:00Z"), at("2026-11-30T12:00:00Z"));
    for _ in 0..2 {
        before.count_click(&routes, Some(0), Some(5), noon, 1);
    }
    assert!(file::save(&before, &path, 10).is_err(), "larger than it may be");
    before.count_click(&routes, None, Some(5), noon, 1);
    assert!(file::save(&before, &path, 10_000).unwrap() > 0);
    assert_eq!(file::save(&before, &path, 10_000).unwrap(), 0, "nothing new");

    let later = |now| {
        let (caps, _dir) = caps(10);
        caps.restore(&path, now);
        let used = |target| caps.usage(&routes, target, now)[0].used;
        (used(PATH), used(OFFER), caps.is_full(&routes, PATH, now, 1))
    };
    assert_eq!(later(evening), (2, 3, true));
    assert_eq!(later(tomorrow), (0, 3, false));
    std::fs::write(&path, b"{").unwrap();
    assert_eq!(later(evening), (0, 0, false));
}

#[test]
fn there_are_so_many_counters_and_windows_that_are_over_make_room() {
    let (caps, _dir) = caps(1);
    let routes =
        routes(vec![cap(CapOf::Clicks, 1, CapPer::Hour)], vec![cap(CapOf::Clicks, 1, CapPer::Total)]);
    let noon = at(NOON);
    caps.count_click(&routes, Some(0), Some(5), noon, 1);
    assert!(caps.is_full(&routes, PATH, noon, 1));
    assert!(!caps.is_full(&routes, OFFER, noon, 1), "no room for its counter");
    caps.forget(noon.timestamp());
    assert!(caps.is_full(&routes, PATH, noon, 1), "its hour is not over");
    caps.forget(noon.timestamp() + 3600 + CLOCK_BACK_S);
    caps.count_click(&routes, None, Some(5), noon, 1);
    assert!(caps.is_full(&routes, OFFER, noon, 1));
}

#[test]
fn of_clicks_at_the_same_time_each_is_counted() {
    let (caps, _dir) = caps(10);
    let routes = routes(vec![cap(CapOf::Clicks, u32::MAX, CapPer::Day)], Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|i| caps.count_click(&routes, Some(0), None, at(NOON), i)));
        }
    });
    assert_eq!(caps.usage(&routes, PATH, at(NOON))[0].used, 40_000);
}

#[test]
fn a_cap_counts_in_its_zone_else_in_the_campaigns_and_of_the_library_in_utc() {
    let day = cap(CapOf::Clicks, 1, CapPer::Day);
    let offer = |id, library| Destination { caps: vec![day], library, ..tests::destination(id, 1, true) };
    let mut campaign = tests::campaign(Vec::new(), vec![offer(5, false), offer(6, true)]);
    campaign.terms.time_zone = Tz::Asia__Tokyo;
    campaign.overflow_offers = vec![offer(7, true)];
    let zoned = Cap { time_zone: Some(Tz::Europe__Berlin), ..day };
    let path = rule::Path { id: Some(41), caps: vec![day, zoned], ..rule::Path::default() };
    campaign.terms.paths = vec![path];
    let routes = Routes::new(campaign).unwrap();
    let of_caps = |target| routes.caps(target).iter().map(|cap| cap.time_zone.unwrap()).collect::<Vec<_>>();
    assert_eq!(of_caps(OFFER), [Tz::Asia__Tokyo]);
    assert_eq!([6, 7].map(CapTarget::Offer).map(of_caps), [[Tz::UTC], [Tz::UTC]]);
    assert_eq!(of_caps(CapTarget::Path(41)), [Tz::Asia__Tokyo, Tz::Europe__Berlin]);
    assert_eq!(routes.capped(), [CapTarget::Path(41), OFFER, CapTarget::Offer(6), CapTarget::Offer(7)]);
}
