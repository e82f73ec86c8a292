//! How rules, paths, criteria and caps are read from a request.

use std::{collections::HashSet, str::FromStr};

use chrono_tz::Tz;
use serde_json::Value;

use super::input::{Allowed, Kind, read_destination};
use crate::{
    http::fields::{Fields, Given},
    model::{
        campaign::{Destination, Terms},
        rule::{
            CAPS_MAX, CRITERIA_MAX, Cap, CapOf, CapPer, Criterion, Dimension, ENTRIES_MAX, OfferChoice,
            PATHS_MAX, Path, RULES_MAX, Rule, Test, VALUE_CHARS_MAX, VALUES_MAX,
        },
    },
    routing::{OVERFLOW_STEPS_MAX, condition::Condition},
};

const RULE_FIELDS: [&str; 6] = ["id", "name", "is_active", "when", "time_zone", "paths"];
const PATH_FIELDS: [&str; 9] =
    ["id", "name", "weight", "is_active", "when", "landing_pages", "offers", "offer_choice", "caps"];
const CRITERION_FIELDS: [&str; 7] = ["dimension", "name", "is", "is_not", "starts", "contains", "present"];
const CAP_FIELDS: [&str; 4] = ["of", "limit", "per", "time_zone"];

/// Every destination of the campaign that is changed; those that keep their id and URL keep that.
pub(super) struct Was {
    pub(super) landing_pages: Vec<Destination>,
    pub(super) offers: Vec<Destination>,
}

impl Was {
    pub(super) fn of(terms: &Terms) -> Self {
        Self {
            landing_pages: terms.all_landing_pages().cloned().collect(),
            offers: terms.all_offers().cloned().collect(),
        }
    }
}

/// The rules of a request: those with conditions, and the paths of the last one, if it has none.
pub(super) fn read_rules(f: &mut Fields<'_>, was: &Was, allowed: &Allowed) -> (Vec<Rule>, Option<Vec<Path>>) {
    let mut nth = 0;
    let mut rules = f.list("rules", RULES_MAX + 1, |f| {
        nth += 1;
        f.refuse_unknown(&RULE_FIELDS, &[]);
        Some(Rule {
            id: f.optional_integer("id", 0..=i64::MAX),
            name: read_name(f, || format!("Rule {nth}"))?,
            is_active: f.boolean("is_active", true),
            when: read_criteria(f, allowed),
            time_zone: read_zone(f),
            paths: read_paths(f, was, allowed),
        })
    });
    let default = match rules.last() {
        Some(last) if last.when.is_empty() => rules.pop().map(|rule| rule.paths),
        _ => None,
    };
    for (i, rule) in rules.iter().enumerate() {
        if rule.when.is_empty() && f.is_valid() {
            let detail = "must have a criterion: only the last rule may be without";
            f.refuse_below(&format!("rules/{i}/when"), "length", detail);
        }
    }
    if rules.len() > RULES_MAX {
        f.refuse("rules", "length", format!("must have at most {RULES_MAX} entries with conditions"));
    }
    (rules, default)
}

pub(super) fn read_paths(f: &mut Fields<'_>, was: &Was, allowed: &Allowed) -> Vec<Path> {
    let mut nth = 0;
    f.list("paths", PATHS_MAX, |f| {
        nth += 1;
        f.refuse_unknown(&PATH_FIELDS, &[]);
        let weight = f.integer("weight", 0..=1_000_000, 1);
        Some(Path {
            id: f.optional_integer("id", 0..=i64::MAX),
            name: read_name(f, || format!("Path {nth}"))?,
            weight: i32::try_from(weight).unwrap_or(i32::MAX),
            is_active: f.boolean("is_active", true),
            when: read_criteria(f, allowed),
            landing_pages: f.list("landing_pages", ENTRIES_MAX, |f| read_landing_page(f, was, allowed)),
            offers: f.list("offers", ENTRIES_MAX, |f| read_offer(f, was, allowed)),
            offer_choice: f.choice("offer_choice", OfferChoice::default()),
            caps: read_caps(f),
        })
    })
}

/// A name that may be left out.
fn read_name(f: &mut Fields<'_>, standard: impl Fn() -> String) -> Option<String> {
    if f.given("name") == Given::Absent {
        return Some(standard());
    }
    f.name("name")
}

/// An IANA time zone that may be absent or `null`.
pub(super) fn read_zone(f: &mut Fields<'_>) -> Option<Tz> {
    let name = f.optional_text("time_zone", 1..=64)?;
    let zone = Tz::from_str(name).ok();
    if zone.is_none() {
        f.refuse("time_zone", "choice", "must be an IANA time zone such as Europe/Berlin");
    }
    zone
}

pub(super) fn read_landing_page(f: &mut Fields<'_>, was: &Was, allowed: &Allowed) -> Option<Destination> {
    f.refuse_unknown(&super::input::LANDING_PAGE_FIELDS, &[]);
    if f.boolean("direct", false) {
        for member in ["id", "name", "url", "web_url", "library"] {
            let is_shown_so = match f.given(member) {
                Given::Absent | Given::Null => true,
                Given::Value(value) => match member {
                    "name" => value == "Direct",
                    "url" => value == "",
                    _ => false,
                },
            };
            if !is_shown_so {
                f.refuse(member, "conflict", "is not for an entry that is direct: there is no page");
            }
        }
        let weight = i32::try_from(f.integer("weight", 0..=1_000_000, 1)).unwrap_or(i32::MAX);
        return Some(Destination {
            weight,
            is_active: f.boolean("is_active", true),
            ..Destination::direct()
        });
    }
    if f.boolean("library", false) {
        return read_library_entry(f, |id| allowed.library.landing_pages.contains(&id));
    }
    read_destination(f, &was.landing_pages, Kind::LandingPage, allowed)
}

pub(super) fn read_offer(f: &mut Fields<'_>, was: &Was, allowed: &Allowed) -> Option<Destination> {
    f.refuse_unknown(&super::input::OFFER_FIELDS, &[]);
    if f.boolean("library", false) {
        return read_library_entry(f, |id| allowed.library.offers.contains_key(&id));
    }
    let payout = f.money("payout");
    let caps = read_caps(f);
    let overflow_offer_id = f.optional_integer("overflow_offer_id", 1..=i64::MAX);
    Some(Destination {
        payout,
        caps,
        overflow_offer_id,
        ..read_destination(f, &was.offers, Kind::Offer, allowed)?
    })
}

/// An entry that names one of the library. What else it says of it is not looked at: the library's counts.
fn read_library_entry(f: &mut Fields<'_>, is_known: impl Fn(i64) -> bool) -> Option<Destination> {
    let Some(id) = f.optional_integer("id", 1..=i64::MAX) else {
        f.refuse("id", "required", "is required: which one of the library");
        return None;
    };
    if !is_known(id) {
        f.refuse("id", "not_found", "is not in the library");
        return None;
    }
    let weight = i32::try_from(f.integer("weight", 0..=1_000_000, 1)).unwrap_or(i32::MAX);
    let is_active = f.boolean("is_active", true);
    Some(Destination { id: Some(id), library: true, weight, is_active, ..Destination::default() })
}

pub(in crate::http::api) fn read_caps(f: &mut Fields<'_>) -> Vec<Cap> {
    f.list("caps", CAPS_MAX, |f| {
        f.refuse_unknown(&CAP_FIELDS, &[]);
        let of = f.parsed::<CapOf>("of", "choice");
        let per = f.parsed::<CapPer>("per", "choice");
        if f.given("limit") == Given::Absent {
            f.refuse("limit", "required", "is required");
        }
        let limit = f.integer("limit", 1..=1_000_000_000, 1);
        let time_zone = read_zone(f);
        Some(Cap { of: of?, limit: u32::try_from(limit).unwrap_or(u32::MAX), per: per?, time_zone })
    })
}

fn read_criteria(f: &mut Fields<'_>, allowed: &Allowed) -> Vec<Criterion> {
    f.list("when", CRITERIA_MAX, |f| {
        f.refuse_unknown(&CRITERION_FIELDS, &[]);
        let dimension = f.parsed::<Dimension>("dimension", "choice");
        let name = f.optional_text("name", 1..=64).map(str::to_owned);
        let test = read_test(f);
        let criterion = Criterion { dimension: dimension?, name, test: test? };
        if let Some(why) = allowed.unknowable(criterion.dimension) {
            f.refuse("dimension", "unknowable", why);
            return None;
        }
        if let Err(fault) = Condition::of(&criterion) {
            match fault.index {
                Some(index) => {
                    f.refuse_below(&format!("{}/{index}", fault.member), "value", fault.detail);
                }
                None => f.refuse(fault.member, "value", fault.detail),
            }
            return None;
        }
        Some(criterion)
    })
}

fn read_test(f: &mut Fields<'_>) -> Option<Test> {
    const TESTS: [&str; 5] = ["is", "is_not", "starts", "contains", "present"];
    let given: Vec<&str> = TESTS.into_iter().filter(|test| f.given(test) != Given::Absent).collect();
    let [test] = given[..] else {
        let detail = "must have one of is, is_not, starts, contains, present";
        f.refuse(given.get(1).copied().unwrap_or("is"), "required", detail);
        return None;
    };
    if test == "present" {
        return Some(Test::Present(f.boolean(test, true)));
    }
    let values = f.texts(test, 1..=VALUES_MAX, 0..=VALUE_CHARS_MAX)?;
    Some(match test {
        "is" => Test::Is(values),
        "is_not" => Test::IsNot(values),
        "starts" => Test::Starts(values),
        _ => Test::Contains(values),
    })
}

/// Refuses what does not fit together among all paths: ids that stand twice, and overflows that lead nowhere, in a circle
/// or too far.
pub(super) fn check_together(f: &mut Fields<'_>, terms: &Terms, was: &Was, allowed: &Allowed) {
    let lists = lists(terms);
    let (mut pages, mut offers) = (HashSet::new(), HashSet::new());
    for (pointer, is_offers, list) in &lists {
        let seen = if *is_offers { &mut offers } else { &mut pages };
        let mut of_path = HashSet::new();
        if list.iter().filter(|d| d.direct).count() > 1 {
            f.refuse_below(pointer, "repeated", "has more than one entry that is direct");
        }
        for d in *list {
            let Some(id) = d.id else { continue };
            // one of the library may stand in many paths, in each once
            let is_new = if d.library { of_path.insert(id) } else { seen.insert(id) };
            if !is_new {
                f.refuse_below(pointer, "repeated", format!("has the id {id} more than once"));
                break;
            }
        }
    }
    let next = |id: i64| {
        let own = terms.all_offers().find(|d| d.id == Some(id) && !d.library);
        match own {
            Some(own) => own.overflow_offer_id,
            None => allowed.library.offers.get(&id).copied().flatten(),
        }
    };
    let exists = |id: i64| {
        allowed.library.offers.contains_key(&id) || was.offers.iter().any(|d| d.id == Some(id) && !d.library)
    };
    for (pointer, is_offers, list) in &lists {
        for (i, d) in list.iter().enumerate().filter(|_| *is_offers) {
            let Some(first) = d.overflow_offer_id.filter(|_| !d.library) else { continue };
            let pointer = format!("{pointer}/{i}/overflow_offer_id");
            if !exists(first) {
                f.refuse_below(&pointer, "not_found", "is no offer of this campaign or of the library");
                continue;
            }
            let mut chain = vec![d.id.unwrap_or(0)];
            let mut offer = Some(first);
            while let Some(id) = offer {
                if chain.contains(&id) {
                    f.refuse_below(&pointer, "circle", "leads in a circle of offers");
                    break;
                }
                if chain.len() > OVERFLOW_STEPS_MAX {
                    let detail = format!("leads over more than {OVERFLOW_STEPS_MAX} offers");
                    f.refuse_below(&pointer, "length", detail);
                    break;
                }
                chain.push(id);
                offer = next(id);
            }
        }
    }
}

/// Every list of destinations with its place, and whether it is one of offers.
fn lists(terms: &Terms) -> Vec<(String, bool, &[Destination])> {
    let mut lists: Vec<(String, bool, &[Destination])> = vec![
        ("landing_pages".to_owned(), false, &terms.landing_pages),
        ("offers".to_owned(), true, &terms.offers),
    ];
    let of_rules = terms.rules.iter().enumerate().flat_map(|(i, rule)| {
        rule.paths.iter().enumerate().map(move |(j, path)| (format!("rules/{i}/paths/{j}"), path))
    });
    let of_default = terms.paths.iter().enumerate().map(|(j, path)| (format!("paths/{j}"), path));
    for (at, path) in of_rules.chain(of_default) {
        lists.push((format!("{at}/landing_pages"), false, &path.landing_pages));
        lists.push((format!("{at}/offers"), true, &path.offers));
    }
    lists
}

/// The ids of the library that a request names: landing pages, and offers.
pub(super) fn library_ids(value: &Value) -> (Vec<i64>, Vec<i64>) {
    let (mut pages, mut offers) = (Vec::new(), Vec::new());
    let mut of = |holder: &Value| {
        let entries = |list: &str| holder[list].as_array().into_iter().flatten().take(2 * ENTRIES_MAX);
        let library = |d: &&Value| d["library"] == true;
        pages.extend(entries("landing_pages").filter(library).filter_map(|d| d["id"].as_i64()));
        offers.extend(entries("offers").filter(library).filter_map(|d| d["id"].as_i64()));
        offers.extend(entries("offers").filter_map(|d| d["overflow_offer_id"].as_i64()));
    };
    let rules = list(value, "rules").iter().take(RULES_MAX + 1);
    for holder in [value].into_iter().chain(rules) {
        list(holder, "paths").iter().take(PATHS_MAX).for_each(&mut of);
    }
    of(value);
    (pages, offers)
}

fn list<'v>(holder: &'v Value, name: &str) -> &'v [Value] {
    holder[name].as_array().map_or(&[], Vec::as_slice)
}
