//! Decides where a click goes. Pure: the campaign, what is known of the visit, the time and the keys are arguments, and the
//! same arguments always give the same answer.
//!
//! The first rule whose conditions hold takes the visit, and the last one has none. Of its paths those take part whose own
//! conditions hold; one is drawn by weight, then one of its landing pages, then (with the click, or when the visitor leaves
//! the page: [`decide_out`]) one of its offers.

mod calendar;
pub mod condition;
pub mod destination;
pub mod explain;
mod rotation;
pub mod sticky;
mod targets;

use std::{collections::HashMap, hash::Hasher as _, sync::Arc};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use siphasher::sip::SipHasher13;

pub use self::targets::Targets;
use self::{
    condition::{Asked, Condition, Fault},
    destination::{Error, Known, Macro, MacroSet, Named, Names, Target, Template, Values},
    rotation::{Drawn, Item, draw},
};
use crate::{
    model::{
        campaign::{Campaign, Destination, Status, Terms},
        click::{InvalidReason, Routed, Why},
        link::{Number, Params},
        rule::{self, Cap, Criterion, DEFAULT_RULE, Dimension, OfferChoice, Sticky},
    },
    visitor::Visitor,
};

/// Offers at most that one after the other take what is over.
pub const OVERFLOW_STEPS_MAX: usize = 8;

/// A campaign ready to route: its destinations and conditions read once, at load.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The campaign as stored.
    pub campaign: Campaign,
    rules: Box<[Rule]>,
    /// Offers that are in no path.
    overflow: Box<[Branch]>,
    fallback: Option<Template>,
    /// What the choices of this campaign hang on, in this epoch.
    salt: u64,
    dimensions: Dimensions,
    caps: HashMap<CapTarget, Box<[Cap]>, foldhash::fast::FixedState>,
}

/// Which dimensions the rules of a campaign look at: what must be known of a visit, and what need not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dimensions(u32);

impl Dimensions {
    fn insert(&mut self, dimension: Dimension) {
        self.0 |= 1 << dimension as u32;
    }

    /// Whether one is looked at.
    pub fn contains(self, dimension: Dimension) -> bool {
        (self.0 >> (dimension as u32)) & 1 == 1
    }
}

/// What the conditions of a campaign look at, as it is read.
#[derive(Debug, Default)]
struct Needs {
    dimensions: Dimensions,
    parameters: Vec<Box<str>>,
}

/// A rule ready to decide.
#[derive(Debug, Clone)]
struct Rule {
    id: i64,
    name: Box<str>,
    when: Box<[Condition]>,
    zone: Tz,
    paths: Box<[Path]>,
}

/// A path ready to be taken.
#[derive(Debug, Clone)]
pub struct Path {
    /// As clicks name it.
    pub id: i64,
    /// For people.
    pub name: Box<str>,
    weight: u32,
    when: Box<[Condition]>,
    landing_pages: Box<[Branch]>,
    offers: Box<[Branch]>,
    offer_choice: OfferChoice,
    /// What its offers, and whatever else may take a visitor who leaves a landing page of it, ask of the click.
    out_macros: MacroSet,
    is_capped: bool,
}

/// A landing page or an offer, ready to lead there.
#[derive(Debug, Clone)]
pub struct Branch {
    /// As clicks name it; `None` is no page, but straight to the offers.
    pub id: Option<i64>,
    /// For people.
    pub name: Box<str>,
    weight: u32,
    is_active: bool,
    target: Option<Arc<Target>>,
    payout: Option<Decimal>,
    is_capped: bool,
    overflow: Option<i64>,
}

/// What a cap is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CapTarget {
    /// A path; the only path of a default rule, which has the same id everywhere, is told apart by its campaign.
    Path(i64),
    /// An offer.
    Offer(i64),
}

/// What a visitor got before, in the epoch that the campaign is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// The path.
    pub path_id: i64,
    /// The landing page; `None`: straight to an offer.
    pub landing_page_id: Option<i64>,
    /// The offer, once there was one.
    pub offer_id: Option<i64>,
}

/// Where a signed test link leads, whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forced {
    /// The rule; what is not given is decided.
    pub rule_id: Option<i64>,
    /// The path.
    pub path_id: Option<i64>,
    /// The landing page.
    pub landing_page_id: Option<i64>,
    /// The offer.
    pub offer_id: Option<i64>,
}

/// Everything of a visit that may decide where it goes. Whether it counts is not part of it: people and bots get the
/// same destination.
#[derive(Clone, Copy)]
pub struct Visit<'v> {
    /// What the link says.
    pub params: &'v Params<'v>,
    /// Who came.
    pub visitor: &'v Visitor<'v>,
    /// The page that led here, as the browser says it.
    pub referrer: Option<&'v str>,
    /// When.
    pub now: DateTime<Utc>,
    /// Evenly spread over visits.
    pub seed: u64,
    /// The same for all visits of a visitor, as long as he can be told apart.
    pub visitor_key: Option<u64>,
    /// What the visitor got before.
    pub bound: Option<Bound>,
    /// Whether the visitor came to the campaign before; `None`: not known.
    pub is_returning: Option<bool>,
    /// Whether it is the visitor's first click of the campaign today; `None`: not known.
    pub is_unique: Option<bool>,
    /// Where a test link leads.
    pub forced: Option<Forced>,
    /// Whether something has taken as much as it may; only asked of what has a cap.
    pub is_full: &'v dyn Fn(CapTarget) -> bool,
    /// Whether the campaign has spent its budget.
    pub is_spent: bool,
}

impl std::fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit")
            .field("params", &self.params)
            .field("visitor", &self.visitor)
            .field("now", &self.now)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl<'v> Visit<'v> {
    /// A visit of which nothing is known but this; nothing is full for it.
    pub fn new(params: &'v Params<'v>, visitor: &'v Visitor<'v>, now: DateTime<Utc>, seed: u64) -> Self {
        Self {
            params,
            visitor,
            referrer: None,
            now,
            seed,
            visitor_key: None,
            bound: None,
            is_returning: None,
            is_unique: None,
            forced: None,
            is_full: &|_| false,
            is_spent: false,
        }
    }
}

/// Where one click goes.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'r> {
    /// `None`: nowhere, the answer is 404.
    pub template: Option<&'r Template>,
    /// The rule that took it; 0 is the default rule.
    pub rule_id: Option<i64>,
    /// The path it takes.
    pub path: Option<&'r Path>,
    /// The landing page it goes to.
    pub landing_page: Option<&'r Branch>,
    /// The offer it goes to, or is meant for behind its landing page.
    pub offer: Option<&'r Branch>,
    /// Why, where it was not the first choice.
    pub routed: Routed,
    /// Why the campaign did not take it.
    pub refused: Option<InvalidReason>,
}

/// A visitor who leaves a landing page for an offer.
#[derive(Clone, Copy)]
pub struct OutVisit<'v> {
    /// The rule that took the click.
    pub rule_id: Option<i64>,
    /// The path it took.
    pub path_id: Option<i64>,
    /// The offer that was chosen with the page.
    pub offer_id: Option<i64>,
    /// Which offer of the path the link names, from 1.
    pub nth: Option<usize>,
    /// When.
    pub now: DateTime<Utc>,
    /// The seed of the click, so that the same visitor gets the same offer again.
    pub seed: u64,
    /// The same for all visits of a visitor, as long as he can be told apart.
    pub visitor_key: Option<u64>,
    /// The offer the visitor got before, where choices are kept.
    pub bound_offer_id: Option<i64>,
    /// The operating system of the visitor's device as `visitor` calls it; empty: not known.
    pub os: &'v str,
    /// Whether something has taken as much as it may; only asked of what has a cap.
    pub is_full: &'v dyn Fn(CapTarget) -> bool,
}

/// What is wrong with a campaign that cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A destination.
    #[error("{name}: {error}")]
    Destination {
        /// Its name.
        name: String,
        /// What is wrong.
        error: Error,
    },
    /// A criterion.
    #[error("{name}: {fault}")]
    Criterion {
        /// The name of the rule or path.
        name: String,
        /// What is wrong.
        fault: Fault,
    },
}

impl Routes {
    /// Reads the destinations and conditions of a campaign. A broken one is an error that names it (the API never stores
    /// one, but a hand in the database may).
    pub fn new(campaign: Campaign) -> Result<Self, Broken> {
        Self::read(campaign, &mut Targets::default())
    }

    /// As [`Self::new`]; campaigns that are read with the same `targets` share those that are equal.
    pub fn read(campaign: Campaign, targets: &mut Targets) -> Result<Self, Broken> {
        let terms = &campaign.terms;
        let mut needs = Needs::default();
        let zone = |own: Option<Tz>| own.unwrap_or(terms.time_zone);
        let mut rules = Vec::with_capacity(terms.rules.len() + 1);
        for given in terms.rules.iter().filter(|rule| rule.is_active) {
            rules.push(Rule {
                id: given.id.unwrap_or(DEFAULT_RULE),
                name: given.name.as_str().into(),
                when: conditions(&given.name, &given.when, &mut needs)?,
                zone: zone(given.time_zone),
                paths: paths(&given.paths, &mut needs, targets)?,
            });
        }
        rules.push(Rule {
            id: DEFAULT_RULE,
            name: "Default".into(),
            when: Box::default(),
            zone: terms.time_zone,
            paths: match &terms.paths[..] {
                [] => [only_path(terms, targets)?].into(),
                several => paths(several, &mut needs, targets)?,
            },
        });
        let fallback = terms.fallback_url.as_deref().map(|url| parse("fallback_url", url)).transpose()?;
        let overflow = branches(&campaign.overflow_offers, targets)?;
        let of_fallback = fallback.as_ref().map(Template::macros).unwrap_or_default();
        let elsewhere = macros(&overflow) | of_fallback;
        for path in rules.iter_mut().flat_map(|rule| &mut rule.paths) {
            path.out_macros = elsewhere | macros(&path.offers);
        }
        let caps = caps_of(&campaign);
        Ok(Self {
            salt: salt_of(&campaign),
            rules: rules.into(),
            overflow,
            fallback,
            dimensions: needs.dimensions,
            caps,
            campaign,
        })
    }

    /// What must be known of a visit.
    pub fn dimensions(&self) -> Dimensions {
        self.dimensions
    }

    /// The caps of a path or an offer, each with the zone that it counts in.
    pub fn caps(&self, target: CapTarget) -> &[Cap] {
        self.caps.get(&target).map_or(&[], |caps| caps)
    }

    /// What has caps, in the order of their ids, paths first.
    pub fn capped(&self) -> Vec<CapTarget> {
        let mut targets: Vec<_> = self.caps.keys().copied().collect();
        targets.sort_unstable();
        targets
    }

    /// The name of a path or an offer.
    pub fn name_of(&self, target: CapTarget) -> Option<&str> {
        match target {
            CapTarget::Path(rule::ONLY_PATH) => Some("Default"),
            CapTarget::Path(id) => self
                .campaign
                .terms
                .all_paths()
                .find(|path| path.id == Some(id))
                .map(|path| path.name.as_str()),
            CapTarget::Offer(id) => self.offer(id).map(|offer| &*offer.name),
        }
    }

    /// Whether rules look at what browsers tell in Client Hints only.
    pub fn wants_hints(&self) -> bool {
        [Dimension::Os, Dimension::Browser].into_iter().any(|d| self.dimensions.contains(d))
    }

    /// The name of a rule that takes visits; `None`: there is none.
    pub fn rule_name(&self, id: i64) -> Option<&str> {
        self.rules.iter().find(|rule| rule.id == id).map(|rule| &*rule.name)
    }

    /// A path that may take visits.
    pub fn path(&self, id: i64) -> Option<&Path> {
        self.rules.iter().flat_map(|rule| &rule.paths).find(|path| path.id == id)
    }

    /// The path that takes a visitor whose click is not known.
    pub fn default_path(&self) -> Option<&Path> {
        let mut paths = self.rules.iter().rev().flat_map(|rule| &rule.paths);
        paths.find(|path| path.offers.iter().any(|offer| offer.weight() > 0))
    }

    /// Where clicks go that the campaign does not take.
    pub fn fallback(&self) -> Option<&Template> {
        self.fallback.as_ref()
    }

    /// What macros stand for where a click, or what is known of one, takes this way.
    pub fn values<'a>(&'a self, decision: &Decision<'a>, click: Known<'a>) -> Values<'a> {
        let terms = &self.campaign.terms;
        let name = |branch: Option<&'a Branch>| branch.map_or("", |branch| &*branch.name);
        // looked for among all rules, so only where it is asked for
        let names_rule = decision.template.is_some_and(|template| template.macros().contains(Macro::Rule));
        let rule = decision.rule_id.filter(|_| names_rule).and_then(|id| self.rule_name(id));
        let names = Names {
            campaign: &terms.name,
            source: self.campaign.source.as_ref().map_or("", |source| &source.name),
            lander: name(decision.landing_page),
            offer: name(decision.offer),
            rule: Named { id: decision.rule_id, name: rule.unwrap_or_default() },
            path: Named { id: decision.path_id(), name: decision.path.map_or("", |path| &*path.name) },
        };
        Values {
            names,
            payout: decision
                .offer
                .and_then(|offer| offer.payout)
                .or(terms.payout.map(|payout| payout.amount)),
            leg_offer: decision.leg_offer_id(),
            ..Values::of(click, self.campaign.key.as_str())
        }
    }

    /// An offer, in whichever path, or one that takes what is over.
    fn offer(&self, id: i64) -> Option<&Branch> {
        let of_paths = self.rules.iter().flat_map(|rule| &rule.paths).flat_map(|path| &path.offers);
        of_paths.chain(&self.overflow).find(|offer| offer.id == Some(id))
    }

    fn nowhere(&self, refused: InvalidReason, mut why: Routed) -> Decision<'_> {
        if self.fallback.is_some() {
            why.insert(Why::Fallback);
        }
        Decision {
            template: self.fallback.as_ref(),
            rule_id: None,
            path: None,
            landing_page: None,
            offer: None,
            routed: why,
            refused: Some(refused),
        }
    }

    /// The key and salt of a choice in a path.
    fn stage(&self, stage: Stage, of: i64) -> u64 {
        self.salt ^ (stage as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ of.cast_unsigned().rotate_left(32)
    }
}

/// What is chosen.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Path = 1,
    LandingPage = 2,
    Offer = 3,
}

/// Chooses the destination of a visit; the same arguments always give the same answer.
pub fn decide<'r>(routes: &'r Routes, visit: &Visit<'_>) -> Decision<'r> {
    let mut why = Routed::default();
    // a test link leads there before the campaign begins, too
    if visit.forced.is_none()
        && let Some(refused) = refusal(&routes.campaign.terms, visit.now)
    {
        return routes.nowhere(refused, why);
    }
    if visit.is_spent && visit.forced.is_none() {
        why.insert(Why::Budget);
        return routes.nowhere(InvalidReason::NoDestination, why);
    }
    if let Some(decision) = named(routes, visit, &mut why) {
        return decision;
    }
    let asked = Asked::of(visit);
    for rule in &routes.rules {
        if !rule.holds(&asked) {
            continue;
        }
        if let Some(path) = choose_path(routes, rule, visit, &asked, &mut why) {
            return take(routes, rule, path, visit, why);
        }
        if rule.id != DEFAULT_RULE {
            why.insert(Why::NextRule);
        }
    }
    routes.nowhere(InvalidReason::NoDestination, why)
}

/// Chooses the offer of a visitor who leaves a landing page. What the token of the click names may be gone meanwhile: then
/// another offer of the campaign takes him, else its fallback.
pub fn decide_out<'r>(routes: &'r Routes, visit: &OutVisit<'_>) -> Decision<'r> {
    let mut why = Routed::default();
    let paths = || routes.rules.iter().rev().flat_map(|rule| rule.paths.iter().map(move |path| (rule, path)));
    let is_named = |(rule, path): &(&Rule, &Path)| {
        Some(path.id) == visit.path_id && visit.rule_id.is_none_or(|id| id == rule.id)
    };
    let named = paths().find(is_named);
    if named.is_none() && visit.path_id.is_some() {
        why.insert(Why::Inactive);
    }
    let leads_on = |path: &Path| path.offers.iter().any(|offer| offer.is_open_to(visit.os));
    // the default rule's first
    let Some((rule, path)) = named.or_else(|| paths().find(|(_, path)| leads_on(path))) else {
        return routes.nowhere(InvalidReason::NoDestination, why);
    };
    let mut wish = |id: Option<i64>, reason: Option<Why>| {
        let offer = path.offers.iter().find(|offer| id.is_some() && offer.id == id)?;
        if !offer.takes(visit.os) {
            why.insert(Why::Inactive);
            return None;
        }
        if is_full(offer, visit.is_full) {
            why.insert(Why::Cap);
            return None;
        }
        if let Some(reason) = reason {
            why.insert(reason);
        }
        Some(offer)
    };
    let nth = visit.nth.and_then(|nth| path.offers.get(nth.checked_sub(1)?)).and_then(|offer| offer.id);
    let wished = wish(nth, Some(Why::Named))
        .or_else(|| wish(visit.offer_id, None))
        .or_else(|| wish(visit.bound_offer_id, Some(Why::Bound)));
    let offer = wished.or_else(|| {
        let key = key_of(routes, Sticky::All, visit.seed, visit.visitor_key);
        choose_offer(routes, path, key, visit.os, visit.is_full, &mut why)
    });
    let Some(offer) = offer else {
        let decision = routes.nowhere(InvalidReason::NoDestination, why);
        return Decision { rule_id: Some(rule.id), path: Some(path), ..decision };
    };
    Decision {
        template: offer.template_for(visit.os),
        rule_id: Some(rule.id),
        path: Some(path),
        landing_page: None,
        offer: Some(offer),
        routed: why,
        refused: None,
    }
}

impl Rule {
    fn holds(&self, asked: &Asked<'_>) -> bool {
        self.when.iter().all(|condition| condition.holds(asked, self.zone))
    }
}

impl Path {
    /// Whether it takes part: it is met, and somebody is there.
    fn takes_part(&self, zone: Tz, asked: &Asked<'_>) -> bool {
        let os = asked.os();
        let is_open = |branch: &Branch| branch.is_open_to(os);
        let goes_somewhere = self.landing_pages.iter().any(is_open) || self.offers.iter().any(is_open);
        goes_somewhere && self.when.iter().all(|condition| condition.holds(asked, zone))
    }

    /// Its landing pages.
    pub fn landing_pages(&self) -> &[Branch] {
        &self.landing_pages
    }

    /// One of its landing pages.
    pub fn landing_page(&self, id: i64) -> Option<&Branch> {
        self.landing_pages.iter().find(|page| page.id == Some(id))
    }

    /// What its offers, and whatever else may take a visitor who leaves a landing page of it, ask of the click.
    pub fn out_macros(&self) -> MacroSet {
        self.out_macros
    }

    /// Its offers, in the order in which out-links name them.
    pub fn offers(&self) -> &[Branch] {
        &self.offers
    }

    /// Whether something of it has a cap.
    pub fn is_capped(&self) -> bool {
        self.is_capped
    }
}

impl Branch {
    /// Where it leads; `None`: to the offers.
    pub fn target(&self) -> Option<&Target> {
        self.target.as_deref()
    }

    /// Where it leads visitors with this operating system; `None`: to the offers, or they cannot open it.
    pub fn template_for(&self, os: &str) -> Option<&Template> {
        self.target.as_ref().and_then(|target| target.for_os(os))
    }

    /// Whether visitors with this operating system can open it, or the web address beside it.
    fn opens_on(&self, os: &str) -> bool {
        self.target.as_ref().is_none_or(|target| target.for_os(os).is_some())
    }

    /// Whether it takes visitors with this operating system.
    fn takes(&self, os: &str) -> bool {
        self.is_active && self.opens_on(os)
    }

    /// Whether it may take new visitors with this operating system.
    fn is_open_to(&self, os: &str) -> bool {
        self.weight() > 0 && self.takes(os)
    }

    /// Whether it has a cap.
    pub fn is_capped(&self) -> bool {
        self.is_capped
    }
}

impl Item for Branch {
    fn id(&self) -> i64 {
        self.id.unwrap_or(0)
    }

    fn weight(&self) -> u32 {
        if self.is_active { self.weight } else { 0 }
    }
}

impl Item for Path {
    fn id(&self) -> i64 {
        self.id
    }

    fn weight(&self) -> u32 {
        self.weight
    }
}

impl Decision<'_> {
    /// The path it takes.
    pub fn path_id(&self) -> Option<i64> {
        self.path.map(|path| path.id)
    }

    /// The landing page it goes to.
    pub fn landing_page_id(&self) -> Option<i64> {
        self.landing_page.and_then(|page| page.id)
    }

    /// The offer it goes to, or is meant for.
    pub fn offer_id(&self) -> Option<i64> {
        self.offer.and_then(|offer| offer.id)
    }

    /// The offer it goes to, where its path has others: `{click_id}` names it then, so that a conversion does.
    pub fn leg_offer_id(&self) -> Option<i64> {
        let id = self.offer_id().filter(|_| self.landing_page.is_none());
        let is_only = |path: &&Path| matches!(&path.offers[..], [only] if only.id == id);
        if self.path.is_some_and(|path| is_only(&path)) { None } else { id }
    }
}

fn is_full(branch: &Branch, is_full: &dyn Fn(CapTarget) -> bool) -> bool {
    branch.is_capped && branch.id.is_some_and(|id| is_full(CapTarget::Offer(id)))
}

/// What the choice of a stage hangs on: the visitor where choices of this stage are kept, else the visit.
fn key_of(routes: &Routes, kept_from: Sticky, seed: u64, visitor_key: Option<u64>) -> u64 {
    let sticky = routes.campaign.terms.sticky;
    let is_kept = sticky == Sticky::All || (sticky == Sticky::Path && kept_from == Sticky::Path);
    visitor_key.filter(|_| is_kept).unwrap_or(seed)
}

/// What the link or a test names, wherever it stands; `None`: nothing that takes clicks.
fn named<'r>(routes: &'r Routes, visit: &Visit<'_>, why: &mut Routed) -> Option<Decision<'r>> {
    let (page, offer) = match visit.forced {
        Some(forced) => (forced.landing_page_id, forced.offer_id),
        None => (number(visit.params.landing_page_id), number(visit.params.campaign_offer_id)),
    };
    if let Some(forced) = visit.forced
        && page.is_none()
        && offer.is_none()
    {
        return forced_path(routes, forced, visit, why);
    }
    if page.is_none() && offer.is_none() {
        return None;
    }
    let is_wanted = |rule: &Rule, path: &Path| {
        let Forced { rule_id, path_id, .. } = visit.forced.unwrap_or_default();
        rule_id.is_none_or(|id| id == rule.id) && path_id.is_none_or(|id| id == path.id)
    };
    let paths = || {
        let all = routes.rules.iter().flat_map(|rule| rule.paths.iter().map(move |path| (rule, path)));
        all.filter(|(rule, path)| is_wanted(rule, path))
    };
    let find = |id: Option<i64>, list: fn(&'r Path) -> &'r [Branch]| {
        let of_path = |(rule, path): (&'r Rule, &'r Path)| {
            list(path).iter().find(|branch| branch.id == id).map(|branch| (rule, path, branch))
        };
        id.and_then(|_| paths().find_map(of_path))
    };
    let page = find(page, Path::landing_pages);
    let offer = find(offer, Path::offers);
    let os = visit.visitor.os;
    for (rule, path, branch) in [page, offer].into_iter().flatten() {
        if !branch.takes(os) {
            why.insert(Why::Inactive);
            continue;
        }
        if visit.forced.is_none() && is_full(branch, visit.is_full) {
            why.insert(Why::Cap);
            continue;
        }
        why.insert(Why::Named);
        let is_page = page.is_some_and(|(_, _, page)| std::ptr::eq(page, branch));
        return Some(Decision {
            template: branch.template_for(os),
            rule_id: Some(rule.id),
            path: Some(path),
            landing_page: is_page.then_some(branch),
            offer: (!is_page).then_some(branch),
            routed: *why,
            refused: None,
        });
    }
    None
}

fn number(number: Number) -> Option<i64> {
    number.get()
}

/// The rule or path of a test link; the rest is decided.
fn forced_path<'r>(
    routes: &'r Routes,
    forced: Forced,
    visit: &Visit<'_>,
    why: &mut Routed,
) -> Option<Decision<'r>> {
    let rule = match (forced.rule_id, forced.path_id) {
        (Some(id), _) => routes.rules.iter().find(|rule| rule.id == id)?,
        (None, Some(id)) => routes.rules.iter().find(|rule| rule.paths.iter().any(|path| path.id == id))?,
        (None, None) => return None,
    };
    let asked = Asked::of(visit);
    let path = match forced.path_id {
        Some(id) => rule.paths.iter().find(|path| path.id == id)?,
        None => choose_path(routes, rule, visit, &asked, why)?,
    };
    why.insert(Why::Named);
    Some(take(routes, rule, path, visit, *why))
}

fn choose_path<'r>(
    routes: &Routes,
    rule: &'r Rule,
    visit: &Visit<'_>,
    asked: &Asked<'_>,
    why: &mut Routed,
) -> Option<&'r Path> {
    let is_full = |path: &Path| path.is_capped && (visit.is_full)(CapTarget::Path(path.id));
    if routes.campaign.terms.sticky != Sticky::Off
        && let Some(bound) = visit.bound
        && let Some(path) = rule.paths.iter().find(|path| path.id == bound.path_id)
        && path.takes_part(rule.zone, asked)
    {
        if !is_full(path) {
            why.insert(Why::Bound);
            return Some(path);
        }
        why.insert(Why::Cap);
    }
    let paths = rule.paths.iter().filter(|path| path.weight > 0 && path.takes_part(rule.zone, asked));
    let key = key_of(routes, Sticky::Path, visit.seed, visit.visitor_key);
    let drawn = draw(paths, key, routes.stage(Stage::Path, rule.id), is_full)?;
    note_full(&drawn, why);
    drawn.chosen
}

fn note_full<T>(drawn: &Drawn<'_, T>, why: &mut Routed) {
    if drawn.is_first_full() {
        why.insert(Why::Cap);
    }
}

/// The way of a visit over a path.
fn take<'r>(
    routes: &'r Routes,
    rule: &'r Rule,
    path: &'r Path,
    visit: &Visit<'_>,
    mut why: Routed,
) -> Decision<'r> {
    let key = key_of(routes, Sticky::All, visit.seed, visit.visitor_key);
    let os = visit.visitor.os;
    let bound =
        visit.bound.filter(|bound| routes.campaign.terms.sticky == Sticky::All && bound.path_id == path.id);
    let page = choose_page(routes, path, key, os, bound, &mut why);
    let needs_offer = page.is_none() || path.offer_choice == OfferChoice::Lander;
    let offer = if needs_offer {
        let bound = bound.and_then(|bound| path.offers.iter().find(|offer| offer.id == bound.offer_id));
        let is_moved = bound.is_some_and(|offer| offer.takes(os) && is_full(offer, visit.is_full));
        if is_moved {
            why.insert(Why::Cap);
        }
        match bound.filter(|offer| offer.takes(os) && !is_moved) {
            Some(offer) => Some(offer),
            None => choose_offer(routes, path, key, os, visit.is_full, &mut why),
        }
    } else {
        None
    };
    let Some(first) = page.or(offer) else {
        let decision = routes.nowhere(InvalidReason::NoDestination, why);
        return Decision { rule_id: Some(rule.id), path: Some(path), ..decision };
    };
    Decision {
        template: first.template_for(os),
        rule_id: Some(rule.id),
        path: Some(path),
        landing_page: page,
        offer,
        routed: why,
        refused: None,
    }
}

/// The landing page; `None`: straight to the offers.
fn choose_page<'r>(
    routes: &Routes,
    path: &'r Path,
    key: u64,
    os: &str,
    bound: Option<Bound>,
    why: &mut Routed,
) -> Option<&'r Branch> {
    if let Some(bound) = bound
        && let Some(page) = path.landing_pages.iter().find(|page| page.id == bound.landing_page_id)
        && page.takes(os)
    {
        why.insert(Why::Bound);
        return Some(page).filter(|page| page.target.is_some());
    }
    let salt = routes.stage(Stage::LandingPage, path.id);
    let pages = path.landing_pages.iter().filter(|page| page.takes(os));
    let drawn = draw(pages, key, salt, |_| false)?;
    drawn.chosen.filter(|page| page.target.is_some())
}

/// The offer: by weight among those that may take more, else the one that takes what is over.
fn choose_offer<'r>(
    routes: &'r Routes,
    path: &'r Path,
    key: u64,
    os: &str,
    full: &dyn Fn(CapTarget) -> bool,
    why: &mut Routed,
) -> Option<&'r Branch> {
    let salt = routes.stage(Stage::Offer, path.id);
    let offers = path.offers.iter().filter(|offer| offer.takes(os));
    let drawn = draw(offers, key, salt, |offer| is_full(offer, full))?;
    note_full(&drawn, why);
    if drawn.chosen.is_some() {
        return drawn.chosen;
    }
    let offer = overflow_of(routes, drawn.first, os, full)?;
    why.insert(Why::Overflow);
    Some(offer)
}

/// The offer that takes what is over of a full one.
fn overflow_of<'r>(
    routes: &'r Routes,
    first: &Branch,
    os: &str,
    full: &dyn Fn(CapTarget) -> bool,
) -> Option<&'r Branch> {
    let mut overflow = first.overflow;
    for _ in 0..OVERFLOW_STEPS_MAX {
        let offer = routes.offer(overflow?)?;
        if offer.takes(os) && !is_full(offer, full) {
            return Some(offer);
        }
        overflow = offer.overflow;
    }
    None
}

fn refusal(terms: &Terms, now: DateTime<Utc>) -> Option<InvalidReason> {
    match terms.status {
        Status::Draft => Some(InvalidReason::Draft),
        Status::Paused => Some(InvalidReason::Paused),
        Status::Completed | Status::Cancelled => Some(InvalidReason::Ended),
        Status::Active if terms.start_at.is_some_and(|start| now < start) => Some(InvalidReason::NotStarted),
        Status::Active if terms.end_at.is_some_and(|end| now >= end) => Some(InvalidReason::Ended),
        Status::Active => None,
    }
}

/// The caps of its paths and offers. One without a zone counts in the campaign's; one of an offer of the library, which
/// many campaigns share, in UTC.
fn caps_of(campaign: &Campaign) -> HashMap<CapTarget, Box<[Cap]>, foldhash::fast::FixedState> {
    let terms = &campaign.terms;
    let in_zone = |caps: &[Cap], zone: Tz| -> Box<[Cap]> {
        caps.iter().map(|cap| Cap { time_zone: Some(cap.time_zone.unwrap_or(zone)), ..*cap }).collect()
    };
    let only = (rule::ONLY_PATH, terms.caps.as_slice());
    let paths = terms.all_paths().filter_map(|path| Some((path.id?, path.caps.as_slice()))).chain([only]);
    let paths = paths.map(|(id, caps)| (CapTarget::Path(id), in_zone(caps, terms.time_zone)));
    let offers = terms.all_offers().chain(&campaign.overflow_offers).filter_map(|offer| {
        let zone = if offer.library { Tz::UTC } else { terms.time_zone };
        Some((CapTarget::Offer(offer.id?), in_zone(&offer.caps, zone)))
    });
    paths.chain(offers).filter(|(_, caps)| !caps.is_empty()).collect()
}

/// Different for every campaign and epoch.
fn salt_of(campaign: &Campaign) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(campaign.id.as_bytes());
    hasher.write_i32(campaign.terms.epoch);
    hasher.finish()
}

fn conditions(name: &str, when: &[Criterion], needs: &mut Needs) -> Result<Box<[Condition]>, Broken> {
    let condition = |criterion: &Criterion| {
        let broken = |fault| Broken::Criterion { name: name.to_owned(), fault };
        let mut condition = Condition::of(criterion).map_err(broken)?;
        condition.place(&mut needs.parameters);
        needs.dimensions.insert(condition.dimension());
        Ok(condition)
    };
    when.iter().map(condition).collect()
}

fn paths(given: &[rule::Path], needs: &mut Needs, targets: &mut Targets) -> Result<Box<[Path]>, Broken> {
    let path = |given: &rule::Path| {
        Ok(Path {
            id: given.id.unwrap_or(rule::ONLY_PATH),
            name: given.name.as_str().into(),
            weight: u32::try_from(given.weight).unwrap_or(0),
            when: conditions(&given.name, &given.when, needs)?,
            landing_pages: branches(&given.landing_pages, targets)?,
            offers: branches(&given.offers, targets)?,
            offer_choice: given.offer_choice,
            out_macros: MacroSet::default(),
            is_capped: !given.caps.is_empty(),
        })
    };
    given.iter().filter(|path| path.is_active).map(path).collect()
}

/// The path that a campaign's own lists make.
fn only_path(terms: &Terms, targets: &mut Targets) -> Result<Path, Broken> {
    Ok(Path {
        id: rule::ONLY_PATH,
        name: "Default".into(),
        weight: 1,
        when: Box::default(),
        landing_pages: branches(&terms.landing_pages, targets)?,
        offers: branches(&terms.offers, targets)?,
        offer_choice: terms.offer_choice,
        out_macros: MacroSet::default(),
        is_capped: !terms.caps.is_empty(),
    })
}

fn branches(destinations: &[Destination], targets: &mut Targets) -> Result<Box<[Branch]>, Broken> {
    let branch = |d: &Destination| {
        Ok(Branch {
            id: d.id.filter(|_| !d.direct),
            name: d.name.as_str().into(),
            weight: u32::try_from(d.weight).unwrap_or(0),
            is_active: d.is_active,
            // nobody is led to an inactive one, so it need not be valid
            target: match targets.read(&d.url, d.web_url.as_deref()) {
                _ if d.direct => None,
                Err(_) if !d.is_active => None,
                target => Some(target.map_err(|error| broken(&d.name, error))?),
            },
            payout: d.payout.map(|payout| payout.amount),
            is_capped: !d.caps.is_empty(),
            overflow: d.overflow_offer_id,
        })
    };
    destinations.iter().map(branch).collect()
}

fn macros(branches: &[Branch]) -> MacroSet {
    let targets = branches.iter().filter_map(Branch::target);
    targets.fold(MacroSet::default(), |all, target| all | target.macros())
}

fn parse(name: &str, url: &str) -> Result<Template, Broken> {
    Template::parse_stored(url).map_err(|error| broken(name, error))
}

fn broken(name: &str, error: Error) -> Broken {
    Broken::Destination { name: name.to_owned(), error }
}

#[cfg(test)]
#[path = "routing/properties.rs"]
mod properties;

#[cfg(test)]
pub(crate) mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::{
        facts::click::Click,
        model::{
            id::ClickId,
            money::{Currency, Money},
        },
    };

    pub(crate) fn destination(id: i64, weight: i32, is_active: bool) -> Destination {
        let url = format!("https://d{id}.example/");
        Destination { id: Some(id), name: format!("d{id}"), url, weight, is_active, ..Destination::default() }
    }

    /// An active campaign, `demo`, with these destinations.
    pub(crate) fn campaign(pages: Vec<Destination>, offers: Vec<Destination>) -> Campaign {
        let terms = Terms {
            name: "demo".into(),
            fallback_url: Some("https://fallback.example/".into()),
            landing_pages: pages,
            offers,
            ..Terms::default()
        };
        Campaign::of("demo".parse().unwrap(), terms)
    }

    fn host(
        campaign: &Campaign,
        query: &str,
        now: DateTime<Utc>,
        seed: u64,
    ) -> (String, Option<InvalidReason>) {
        let routes = Routes::new(campaign.clone()).unwrap();
        let (params, visitor) = (Params::parse(query), Visitor::default());
        let decision = decide(&routes, &Visit::new(&params, &visitor, now, seed));
        (decision.template.map_or(String::new(), |t| t.host().to_owned()), decision.refused)
    }

    #[test]
    fn the_link_then_the_pages_then_the_offers_then_the_fallback() {
        let now = Utc::now();
        let both =
            campaign(vec![destination(1, 1, true), destination(2, 0, true)], vec![destination(3, 1, true)]);
        let only_offers = campaign(vec![destination(1, 1, false)], vec![destination(3, 1, true)]);
        let none = campaign(vec![destination(1, 1, false)], vec![destination(3, 1, false)]);
        for (campaign, query, wanted) in [
            (&both, "", "d1.example"),
            (&both, "landing_page_id=2", "d2.example"),
            (&both, "landing_page_id=99", "d1.example"),
            (&both, "campaign_offer_id=3", "d3.example"),
            (&both, "landing_page_id=2&campaign_offer_id=3", "d2.example"),
            (&only_offers, "landing_page_id=1", "d3.example"),
            (&none, "campaign_offer_id=3", "fallback.example"),
        ] {
            assert_eq!(host(campaign, query, now, 1).0, wanted, "{query}");
        }
        assert_eq!(host(&none, "", now, 1).1, Some(InvalidReason::NoDestination));
    }

    #[test]
    fn status_and_schedule_send_clicks_to_the_fallback_with_the_reason() {
        let now = Utc::now();
        let hour = TimeDelta::hours(1);
        let base = campaign(vec![], vec![destination(1, 1, true)]);
        let with = |change: &dyn Fn(&mut Terms)| {
            let mut c = base.clone();
            change(&mut c.terms);
            host(&c, "", now, 1).1
        };
        assert_eq!(with(&|_| {}), None);
        assert_eq!(with(&|c| c.status = Status::Paused), Some(InvalidReason::Paused));
        assert_eq!(with(&|c| c.status = Status::Draft), Some(InvalidReason::Draft));
        assert_eq!(with(&|c| c.status = Status::Completed), Some(InvalidReason::Ended));
        assert_eq!(with(&|c| c.start_at = Some(now + hour)), Some(InvalidReason::NotStarted));
        assert_eq!(with(&|c| c.end_at = Some(now)), Some(InvalidReason::Ended));
        assert_eq!(with(&|c| c.start_at = Some(now)), None);
    }

    #[test]
    fn the_draw_passes_by_what_a_device_cannot_open() {
        let link = |id: i64, url: &str, web_url: Option<&str>| Destination {
            url: url.into(),
            web_url: web_url.map(Into::into),
            ..destination(id, 1, true)
        };
        let store = link(1, "itms-apps://apple.example/app", None);
        let intent = link(2, "intent://android.example/#Intent;end", Some("https://web.example/"));
        let both = campaign(vec![], vec![store.clone(), intent]);
        let only = campaign(vec![store.clone()], vec![]);
        let lander = campaign(vec![destination(3, 1, true)], vec![store]);
        let host = |campaign: &Campaign, query: &str, os: &'static str, seed: u64| {
            let routes = Routes::new(campaign.clone()).unwrap();
            let (params, visitor) = (Params::parse(query), Visitor { os, ..Visitor::default() });
            let decision = decide(&routes, &Visit::new(&params, &visitor, Utc::now(), seed));
            (decision.template.unwrap().host().to_owned(), decision.refused)
        };
        for seed in 0..20 {
            assert_eq!(host(&both, "", "Android", seed).0, "android.example");
            assert_eq!(host(&both, "", "Windows", seed).0, "web.example");
            let named = "campaign_offer_id=1";
            assert_eq!(host(&both, named, "iOS", seed).0, "apple.example");
            assert_eq!(host(&both, named, "", seed).0, "web.example");
            assert_eq!(host(&only, "", "iOS", seed), ("apple.example".into(), None));
            let nowhere = Some(InvalidReason::NoDestination);
            assert_eq!(host(&only, "", "Android", seed), ("fallback.example".into(), nowhere));
            assert_eq!(host(&lander, "", "Android", seed).0, "d3.example");
        }
        let on_ios = (0..20).map(|seed| host(&both, "", "iOS", seed).0);
        assert_eq!(on_ios.collect::<std::collections::BTreeSet<_>>().len(), 2, "either");

        let routes = Routes::new(lander).unwrap();
        let out = |os: &'static str| {
            let out = OutVisit {
                rule_id: Some(0),
                path_id: Some(0),
                offer_id: None,
                nth: Some(1),
                now: Utc::now(),
                seed: 1,
                visitor_key: None,
                bound_offer_id: None,
                os,
                is_full: &|_| false,
            };
            decide_out(&routes, &out).template.unwrap().host().to_owned()
        };
        assert_eq!((out("iOS"), out("Android")), ("apple.example".into(), "fallback.example".into()));
    }

    #[test]
    fn macros_name_what_was_decided() {
        let names = "{campaign_name}.{rule}.{path}.{lander_name}.{offer_name}.{payout}.{click_id}";
        let url = |id: i64| Destination {
            url: format!("https://d{id}.example/?{names}"),
            payout: Some(Money { amount: Decimal::new(id * 100, 2), currency: Currency::USD }),
            ..destination(id, 1, true)
        };
        let id: ClickId = "019aaf3c-5f00-7abc-8def-0123456789ab".parse().unwrap();
        let expand = |campaign: Campaign, query: &str| {
            let routes = Routes::new(campaign).unwrap();
            let (params, visitor) = (Params::parse(query), Visitor::default());
            let decision = decide(&routes, &Visit::new(&params, &visitor, Utc::now(), 1));
            let click = Click::new(id, uuid::Uuid::nil());
            let values = routes.values(&decision, Known::Click(&click));
            decision.template.unwrap().expand(&values, &[]).split_once('?').unwrap().1.to_owned()
        };
        let one = campaign(vec![], vec![url(7)]);
        assert_eq!(expand(one, ""), format!("demo.Default.Default..d7.7.{id}"));
        let two = campaign(vec![], vec![url(7), url(8)]);
        let by_id = "campaign_offer_id=8";
        assert_eq!(expand(two, by_id), format!("demo.Default.Default..d8.8.{id}.8"), "a leg");
        let lander = campaign(vec![url(6)], vec![url(7), url(8)]);
        assert_eq!(expand(lander, ""), format!("demo.Default.Default.d6...{id}"), "a page is no leg");
    }

    #[test]
    fn the_same_seed_gives_the_same_answer() {
        let c = campaign(vec![destination(1, 1, true), destination(2, 1, true)], vec![]);
        let now = Utc::now();
        for seed in 0..100 {
            assert_eq!(host(&c, "", now, seed), host(&c, "", now, seed));
        }
    }
}
