//! A made-up visitor on the picture: where he goes, and what became of every part.

use super::{draft::Criterion, picture::percent, words};
use crate::{
    explain::Explained,
    http::api::story::sentence_of_why,
    model::{campaign::Terms, click::InvalidReason, rule::ONLY_PATH},
    routing::explain::{ExplainedCriterion, ExplainedPath, Outcome},
};

/// What became of a part.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    /// `taken` or nothing.
    pub(super) class: &'static str,
    pub(super) text: String,
    pub(super) reasons: Vec<String>,
}

/// A path as the visitor met it.
pub(super) struct PathSeen<'a> {
    path: Option<&'a ExplainedPath>,
    is_taken: bool,
}

/// Where a visitor goes, and what he met.
#[derive(Debug)]
pub(super) struct Seen {
    explained: Explained,
    terms: Terms,
}

impl Seen {
    pub(super) fn new((explained, terms): (Explained, Terms)) -> Self {
        Self { explained, terms }
    }

    /// What became of a rule; behind the others stands the default rule.
    pub(super) fn of_rule(&self, nth: usize, when: &[Criterion]) -> Option<Verdict> {
        let rules = &self.explained.explanation.rules;
        let rule = rules.get(nth)?;
        let is_any_taken = rules.iter().any(|rule| rule.outcome == Outcome::Taken);
        let (class, text) = match rule.outcome {
            Outcome::Taken => ("taken", "Takes this visitor"),
            Outcome::NotMet => ("", "Not met"),
            Outcome::NoPath => ("", "Met, but none of its paths takes part"),
            Outcome::Inactive => ("", "Inactive"),
            Outcome::NotReached if is_any_taken => ("", "Not reached: a rule above takes this visitor"),
            Outcome::NotReached => ("", "Not asked: it was decided before"),
        };
        let reasons = if rule.outcome == Outcome::NotMet { failed(when, &rule.when) } else { Vec::new() };
        Some(Verdict { class, text: text.to_owned(), reasons })
    }

    /// A path of a rule that was asked, behind the last of which stands the default rule.
    pub(super) fn path(&self, rule: usize, nth: usize) -> Option<PathSeen<'_>> {
        let explained = self.explained.explanation.rules.get(rule)?;
        let id = self.path_id((rule < self.terms.rules.len()).then_some(rule), nth)?;
        let decision = &self.explained.explanation.decision;
        let is_taken = decision.rule_id == Some(explained.id) && decision.path_id == Some(id);
        let is_asked = matches!(explained.outcome, Outcome::Taken | Outcome::NoPath);
        (is_taken || is_asked)
            .then(|| PathSeen { path: explained.paths.iter().find(|path| path.id == id), is_taken })
    }

    fn path_id(&self, rule: Option<usize>, nth: usize) -> Option<i64> {
        match rule {
            Some(rule) => self.terms.rules.get(rule)?.paths.get(nth)?.id,
            None if self.terms.paths.is_empty() => (nth == 0).then_some(ONLY_PATH),
            None => self.terms.paths.get(nth)?.id,
        }
    }

    fn is_way(&self, rule: Option<usize>, nth: usize) -> bool {
        let nth_rule = rule.unwrap_or(self.terms.rules.len());
        self.path(nth_rule, nth).is_some_and(|path| path.is_taken)
    }

    /// Whether he goes to this landing page of a path.
    pub(super) fn is_page(&self, rule: Option<usize>, path: usize, nth: usize) -> bool {
        let pages = match rule.map(|rule| self.terms.rules.get(rule)) {
            Some(rule) => rule.and_then(|rule| rule.paths.get(path)).map(|path| &path.landing_pages),
            None if self.terms.paths.is_empty() => Some(&self.terms.landing_pages),
            None => self.terms.paths.get(path).map(|path| &path.landing_pages),
        };
        let id = self.explained.explanation.decision.landing_page_id;
        let is_it = pages
            .and_then(|pages| pages.get(nth))
            .is_some_and(|page| if page.direct { id.is_none() } else { id.is_some() && page.id == id });
        is_it && self.is_way(rule, path)
    }

    /// Whether this offer of a path is meant for him.
    pub(super) fn is_offer(&self, rule: Option<usize>, path: usize, nth: usize) -> bool {
        let offers = match rule.map(|rule| self.terms.rules.get(rule)) {
            Some(rule) => rule.and_then(|rule| rule.paths.get(path)).map(|path| &path.offers),
            None if self.terms.paths.is_empty() => Some(&self.terms.offers),
            None => self.terms.paths.get(path).map(|path| &path.offers),
        };
        let id = self.explained.explanation.decision.offer_id;
        let is_it =
            offers.and_then(|offers| offers.get(nth)).is_some_and(|offer| id.is_some() && offer.id == id);
        is_it && self.is_way(rule, path)
    }

    /// What is known of him, in words.
    pub(super) fn visitor(&self) -> String {
        let seen = &self.explained.visitor;
        let with = |name: &Option<String>, version: &Option<String>| {
            let name = name.as_deref()?;
            Some(version.as_deref().map_or_else(|| name.to_owned(), |version| format!("{name} {version}")))
        };
        let parts = [
            Some(seen.country.clone().unwrap_or_else(|| "country unknown".to_owned())),
            seen.region.clone(),
            seen.city.clone(),
            seen.isp.clone(),
            seen.connection.clone(),
            Some(seen.device.clone()),
            with(&seen.os, &seen.os_version),
            with(&seen.browser, &seen.browser_version),
            seen.language.as_ref().map(|language| format!("language {language}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Where he goes, in a sentence.
    pub(super) fn goes(&self) -> String {
        let decision = &self.explained.explanation.decision;
        let mut names = vec![];
        for name in [&decision.rule, &decision.path, &decision.landing_page, &decision.offer] {
            names.extend(name.as_deref());
        }
        match (&self.explained.location, decision.refused) {
            (None, _) => "This visitor goes nowhere: the answer is 404.".to_owned(),
            (Some(_), Some(_)) => "This visitor goes to the fallback.".to_owned(),
            (Some(_), None) => format!("This visitor goes by {}.", names.join(" \u{2192} ")),
        }
    }

    /// The address he is sent to.
    pub(super) fn location(&self) -> &str {
        self.explained.location.as_deref().unwrap_or_default()
    }

    /// Why, where it is not the first choice.
    pub(super) fn why(&self) -> Vec<String> {
        let decision = &self.explained.explanation.decision;
        let refused = decision.refused.map(|why| match why {
            InvalidReason::Draft => "The campaign is a draft, which takes no clicks.",
            InvalidReason::Paused => "The campaign is paused.",
            InvalidReason::Ended => "The campaign is over then.",
            InvalidReason::NotStarted => "The campaign has not begun then.",
            _ => "Nothing of the campaign takes this visitor.",
        });
        let why = decision.routed.iter().copied().map(sentence_of_why);
        refused.map(str::to_owned).into_iter().chain(why).collect()
    }

    /// How probable each way is for somebody like him, where there are several: in words.
    pub(super) fn ways(&self) -> Vec<String> {
        let explanation = &self.explained.explanation;
        if explanation.ways.len() < 2 {
            return Vec::new();
        }
        let all = || explanation.rules.iter().flat_map(|rule| &rule.paths);
        let path = |id: i64| all().find(|path| path.id == id).map(|path| path.name.clone());
        let branch = |id: Option<i64>| {
            let mut branches = all().flat_map(|path| path.landing_pages.iter().chain(&path.offers));
            branches.find(|branch| id.is_some() && branch.id == id).map(|branch| branch.name.clone())
        };
        let ways = explanation.ways.iter().take(12).map(|way| {
            let parts = [way.path_id.and_then(path), branch(way.landing_page_id), branch(way.offer_id)];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            let parts = if parts.is_empty() {
                "the fallback, or nowhere".to_owned()
            } else {
                parts.join(" \u{2192} ")
            };
            format!("{}: {parts}", percent(way.probability))
        });
        ways.collect()
    }
}

impl PathSeen<'_> {
    /// What became of it; `when` are its conditions.
    pub(super) fn verdict(&self, when: &[Criterion]) -> Verdict {
        let verdict = |class, text: String| Verdict { class, text, reasons: Vec::new() };
        let Some(path) = self.path else { return verdict("", "Inactive".to_owned()) };
        if self.is_taken {
            return verdict("taken", format!("Taken: {} for a visitor like this", percent(path.share)));
        }
        if !path.takes_part {
            let reasons = failed(when, &path.when);
            let text = if reasons.is_empty() {
                "Takes no part: it leads nowhere for this visitor"
            } else {
                "Takes no part"
            };
            return Verdict { reasons, ..verdict("", text.to_owned()) };
        }
        if path.is_full {
            return verdict("", "Full".to_owned());
        }
        verdict("", format!("Not drawn: {} for a visitor like this", percent(path.share)))
    }
}

/// The conditions that do not hold, and what they saw.
fn failed(when: &[Criterion], explained: &[ExplainedCriterion]) -> Vec<String> {
    let failed = when.iter().zip(explained).filter(|(_, explained)| !explained.holds);
    failed
        .map(|(criterion, explained)| {
            let value = explained.value.as_deref().unwrap_or("not known");
            format!("{}: here it is {value}", words::criterion(criterion))
        })
        .collect()
}
