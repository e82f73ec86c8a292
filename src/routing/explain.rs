//! Why a visit goes where it goes: each rule's conditions and what they saw, what takes part of each path, and with which
//! probability a visitor like this one takes each way. It asks the very conditions and paths that `decide` asks.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Asked, Branch, Decision, Path, Routes, Rule, Visit, condition::Condition, is_full, overflow_of,
    rotation::Item as _,
};
use crate::model::{
    click::{InvalidReason, Why},
    rule::{DEFAULT_RULE, Dimension, Sticky},
};

/// Why a visit goes where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub struct Explanation {
    /// Where this visit goes.
    pub decision: Decided,
    /// The rules in order, the default rule last.
    #[schema(max_items = 65)]
    pub rules: Vec<ExplainedRule>,
    /// The ways of a visitor like this one and their probabilities, which add up to 1: of everybody who is not bound by an
    /// earlier visit.
    pub ways: Vec<Way>,
}

/// Where a visit goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Decided {
    /// The rule that takes it; 0 is the default rule, null none.
    #[schema(minimum = 0, example = 41)]
    pub rule_id: Option<i64>,
    /// Its name.
    #[schema(example = "German iPhones")]
    pub rule: Option<String>,
    /// The path it takes.
    #[schema(minimum = 0, example = 42)]
    pub path_id: Option<i64>,
    /// Its name.
    #[schema(example = "Long page")]
    pub path: Option<String>,
    /// The landing page it goes to.
    #[schema(minimum = 1, example = 5)]
    pub landing_page_id: Option<i64>,
    /// Its name.
    #[schema(example = "A")]
    pub landing_page: Option<String>,
    /// The offer it goes to, or is meant for behind its landing page.
    #[schema(minimum = 1, example = 6)]
    pub offer_id: Option<i64>,
    /// Its name.
    #[schema(example = "Shop")]
    pub offer: Option<String>,
    /// Why, where it is not the first choice.
    #[schema(max_items = 8)]
    pub routed: Vec<Why>,
    /// Why the campaign does not take it.
    pub refused: Option<InvalidReason>,
}

/// What became of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It takes the visit.
    Taken,
    /// Its conditions do not hold.
    NotMet,
    /// Its conditions hold, and none of its paths takes part.
    NoPath,
    /// It is inactive.
    Inactive,
    /// A rule before it takes the visit.
    NotReached,
}

/// A rule, and what of it holds.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ExplainedRule {
    /// Its id; 0 is the default rule.
    #[schema(minimum = 0, example = 41)]
    pub id: i64,
    /// Its name.
    #[schema(example = "German iPhones")]
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Its conditions.
    #[schema(max_items = 32)]
    pub when: Vec<ExplainedCriterion>,
    /// Its paths.
    #[schema(max_items = 64)]
    pub paths: Vec<ExplainedPath>,
}

/// A criterion, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExplainedCriterion {
    /// What it looks at.
    pub dimension: Dimension,
    /// Of the dimension `parameter`: its name.
    #[schema(example = "utm_source")]
    pub name: Option<String>,
    /// The value of this visit; null: it is not known.
    #[schema(example = "DE")]
    pub value: Option<String>,
    /// Whether it holds.
    pub holds: bool,
}

/// A path, and what takes part of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ExplainedPath {
    /// Its id.
    #[schema(minimum = 0, example = 42)]
    pub id: i64,
    /// Its name.
    #[schema(example = "Long page")]
    pub name: String,
    /// Whether it is active, its conditions hold, and it leads somewhere.
    pub takes_part: bool,
    /// Whether its cap is reached.
    pub is_full: bool,
    /// Its conditions.
    #[schema(max_items = 32)]
    pub when: Vec<ExplainedCriterion>,
    /// Its weight.
    #[schema(minimum = 0)]
    pub weight: u32,
    /// Its share among the paths of its rule that take part, from 0 to 1.
    #[schema(minimum = 0, maximum = 1, example = 0.75)]
    pub share: f64,
    /// Its landing pages.
    #[schema(max_items = 100)]
    pub landing_pages: Vec<ExplainedBranch>,
    /// Its offers.
    #[schema(max_items = 100)]
    pub offers: Vec<ExplainedBranch>,
}

/// A landing page or an offer, and its share.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ExplainedBranch {
    /// Its id; null: no page, but straight to the offers.
    #[schema(minimum = 1, example = 5)]
    pub id: Option<i64>,
    /// Its name.
    #[schema(example = "A")]
    pub name: String,
    /// Whether it takes clicks.
    pub is_active: bool,
    /// Whether the visitor's device can open it; false for an app's of another system, without a web address.
    pub opens: bool,
    /// Whether its cap is reached.
    pub is_full: bool,
    /// Its weight.
    #[schema(minimum = 0)]
    pub weight: u32,
    /// Its share among those of the path that take more, from 0 to 1.
    #[schema(minimum = 0, maximum = 1, example = 0.5)]
    pub share: f64,
}

/// A way from the click, and how probable it is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Way {
    /// Over this path; null: to the fallback of the campaign, or nowhere.
    #[schema(minimum = 0, example = 42)]
    pub path_id: Option<i64>,
    /// Over this landing page.
    #[schema(minimum = 1, example = 5)]
    pub landing_page_id: Option<i64>,
    /// To this offer; null: there is none that takes more.
    #[schema(minimum = 1, example = 6)]
    pub offer_id: Option<i64>,
    /// From 0 to 1.
    #[schema(minimum = 0, maximum = 1, example = 0.25)]
    pub probability: f64,
}

/// Explains what was decided of a visit.
pub fn explain(routes: &Routes, visit: &Visit<'_>, decision: &Decision<'_>) -> Explanation {
    let asked = Asked::of(visit);
    // what a link names, and what the campaign does not take at all, no rule has decided
    let is_decided_by_rules = decision.refused.is_none_or(|why| why == InvalidReason::NoDestination)
        && ![Why::Named, Why::Budget].into_iter().any(|why| decision.routed.contains(why));
    let mut is_taken = !is_decided_by_rules;
    let mut ways = Vec::new();
    let mut rules = Vec::with_capacity(routes.rules.len());
    for rule in &routes.rules {
        let explained = explain_rule(routes, rule, visit, &asked, is_taken);
        if explained.outcome == Outcome::Taken {
            is_taken = true;
            ways = ways_of(routes, rule, visit, &explained.paths);
        }
        rules.push(explained);
    }
    add_inactive(routes, &mut rules);
    if ways.is_empty() {
        ways.push(Way {
            path_id: decision.path_id(),
            landing_page_id: decision.landing_page_id(),
            offer_id: decision.offer_id(),
            probability: 1.0,
        });
    }
    Explanation { decision: decided(routes, decision), rules, ways }
}

fn decided(routes: &Routes, decision: &Decision<'_>) -> Decided {
    let name = |branch: Option<&Branch>| branch.map(|branch| branch.name.to_string());
    Decided {
        rule_id: decision.rule_id,
        rule: decision.rule_id.and_then(|id| routes.rule_name(id)).map(str::to_owned),
        path_id: decision.path_id(),
        path: decision.path.map(|path| path.name.to_string()),
        landing_page_id: decision.landing_page_id(),
        landing_page: name(decision.landing_page),
        offer_id: decision.offer_id(),
        offer: name(decision.offer),
        routed: decision.routed.iter().collect(),
        refused: decision.refused,
    }
}

/// Rules and paths that are inactive decide nothing, and are shown where they stand.
fn add_inactive(routes: &Routes, rules: &mut Vec<ExplainedRule>) {
    for (i, rule) in routes.campaign.terms.rules.iter().enumerate().filter(|(_, rule)| !rule.is_active) {
        let explained = ExplainedRule {
            id: rule.id.unwrap_or(DEFAULT_RULE),
            name: rule.name.clone(),
            outcome: Outcome::Inactive,
            when: Vec::new(),
            paths: Vec::new(),
        };
        rules.insert(i.min(rules.len()), explained);
    }
}

fn explain_rule(
    routes: &Routes,
    rule: &Rule,
    visit: &Visit<'_>,
    asked: &Asked<'_>,
    is_taken: bool,
) -> ExplainedRule {
    let criteria = |when: &[Condition]| {
        let explained = |condition: &Condition| {
            let verdict = condition.verdict(asked, rule.zone);
            ExplainedCriterion {
                dimension: condition.dimension(),
                name: condition.name().map(str::to_owned),
                value: verdict.value,
                holds: verdict.holds,
            }
        };
        when.iter().map(explained).collect::<Vec<_>>()
    };
    let is_path_full = |path: &Path| path.is_capped && (visit.is_full)(super::CapTarget::Path(path.id));
    let takes_part = |path: &Path| path.weight > 0 && path.takes_part(rule.zone, asked);
    let open = rule.paths.iter().filter(|path| takes_part(path) && !is_path_full(path));
    let total: f64 = open.map(|path| f64::from(path.weight)).sum();
    let path = |path: &Path| ExplainedPath {
        id: path.id,
        name: path.name.to_string(),
        takes_part: takes_part(path),
        is_full: is_path_full(path),
        when: criteria(&path.when),
        weight: path.weight,
        share: if takes_part(path) && !is_path_full(path) { f64::from(path.weight) / total } else { 0.0 },
        landing_pages: explain_branches(&path.landing_pages, visit, |_| false),
        offers: explain_branches(&path.offers, visit, |offer| is_full(offer, visit.is_full)),
    };
    let paths: Vec<ExplainedPath> = rule.paths.iter().map(path).collect();
    let is_bound = |path: &ExplainedPath| {
        let sticky = routes.campaign.terms.sticky != Sticky::Off;
        let bound = visit.bound.is_some_and(|bound| sticky && bound.path_id == path.id);
        let path = rule.paths.iter().find(|p| p.id == path.id);
        bound && path.is_some_and(|path| path.takes_part(rule.zone, asked) && !is_path_full(path))
    };
    let outcome = if is_taken {
        Outcome::NotReached
    } else if !rule.holds(asked) {
        Outcome::NotMet
    } else if total > 0.0 || paths.iter().any(is_bound) {
        Outcome::Taken
    } else {
        Outcome::NoPath
    };
    ExplainedRule { id: rule.id, name: rule.name.to_string(), outcome, when: criteria(&rule.when), paths }
}

fn explain_branches(
    branches: &[Branch],
    visit: &Visit<'_>,
    is_full: impl Fn(&Branch) -> bool,
) -> Vec<ExplainedBranch> {
    let takes = |branch: &&Branch| branch.is_open_to(visit.visitor.os) && !is_full(branch);
    let total: f64 = branches.iter().filter(takes).map(|branch| f64::from(branch.weight())).sum();
    let explained = |branch: &Branch| {
        let is_full = is_full(branch);
        let share = if takes(&branch) { f64::from(branch.weight()) / total } else { 0.0 };
        ExplainedBranch {
            id: branch.id,
            name: branch.name.to_string(),
            is_active: branch.is_active,
            opens: branch.opens_on(visit.visitor.os),
            is_full,
            weight: branch.weight,
            share,
        }
    };
    branches.iter().map(explained).collect()
}

/// The ways over the paths of the rule that takes the visit.
fn ways_of(routes: &Routes, rule: &Rule, visit: &Visit<'_>, shares: &[ExplainedPath]) -> Vec<Way> {
    let mut ways = Vec::new();
    for (path, explained) in rule.paths.iter().zip(shares).filter(|(_, explained)| explained.share > 0.0) {
        let mut pages: Vec<(Option<i64>, f64)> = Vec::new();
        let shown = explained.landing_pages.iter().zip(&path.landing_pages);
        for (page, branch) in shown.filter(|(page, _)| page.share > 0.0) {
            pages.push((branch.id.filter(|_| branch.target.is_some()), page.share));
        }
        if pages.is_empty() {
            pages.push((None, 1.0));
        }
        let offers = offer_shares(routes, path, visit);
        for (page, page_share) in pages {
            for (offer, offer_share) in &offers {
                let probability = explained.share * page_share * offer_share;
                let path_id = (page.is_some() || offer.is_some()).then_some(path.id);
                ways.push(Way { path_id, landing_page_id: page, offer_id: *offer, probability });
            }
        }
    }
    ways
}

/// The offers behind a path, and how probable each is.
fn offer_shares(routes: &Routes, path: &Path, visit: &Visit<'_>) -> Vec<(Option<i64>, f64)> {
    let explained = explain_branches(&path.offers, visit, |offer| is_full(offer, visit.is_full));
    let open: Vec<_> = explained.iter().filter(|o| o.share > 0.0).map(|o| (o.id, o.share)).collect();
    if !open.is_empty() {
        return open;
    }
    let os = visit.visitor.os;
    let offers = || path.offers.iter().filter(|offer| offer.is_open_to(os));
    let total: f64 = offers().map(|offer| f64::from(offer.weight())).sum();
    if total == 0.0 {
        return vec![(None, 1.0)];
    }
    let mut shares: Vec<(Option<i64>, f64)> = Vec::new();
    for first in offers() {
        let id = overflow_of(routes, first, os, visit.is_full).and_then(|offer| offer.id);
        let share = f64::from(first.weight()) / total;
        match shares.iter_mut().find(|(known, _)| *known == id) {
            Some((_, sum)) => *sum += share,
            None => shares.push((id, share)),
        }
    }
    shares
}
