//! The picture of a flow: rules in their order, their paths, and on each its landing pages and offers, with shares, caps, and what an
//! explained visitor met there.

use super::{
    draft::{Cap, Draft, Entry, Kind, Path, Rule},
    explained::Seen,
    faults::Fault,
    parts::{CapShown, EntryShown, PathShown, RuleShown},
    steps::{Editor, Place},
    words,
};
use crate::http::api::caps::{CapOn, CapUse};

/// What pictures are drawn of.
pub(super) struct Drawn<'a> {
    pub(super) editor: &'a Editor,
    pub(super) uses: &'a [CapUse],
    pub(super) faults: &'a [Fault],
    pub(super) seen: Option<&'a Seen>,
    /// What is stored, where somebody else was quicker.
    pub(super) theirs: Option<&'a Draft>,
}

impl Drawn<'_> {
    /// The rules in order, the default rule last.
    pub(super) fn rules(&self) -> Vec<RuleShown> {
        let rules = &self.editor.draft.rules;
        let mut shown: Vec<RuleShown> =
            rules.iter().enumerate().map(|(i, rule)| self.rule(i, rule, rules.len())).collect();
        shown.push(self.default_rule());
        shown
    }

    fn rule(&self, i: usize, rule: &Rule, count: usize) -> RuleShown {
        let place = Place::Rule(i);
        RuleShown {
            place: Some(place),
            key: format!("r{i}"),
            name: rule.name.clone(),
            when: rule.when.iter().map(words::criterion).collect(),
            zone: rule.time_zone.clone(),
            is_off: rule.is_off,
            paths: self.paths(Some(i), &rule.paths),
            verdict: self.seen.and_then(|seen| seen.of_rule(i, &rule.when)),
            faults: self.faults_of(place),
            is_open: self.editor.open == Some(place),
            is_at: self.editor.at == Some(place),
            is_first: i == 0,
            is_last: i + 1 == count,
            stored: self.stored_of(rule),
        }
    }

    fn default_rule(&self) -> RuleShown {
        let draft = &self.editor.draft;
        let theirs = self.theirs.filter(|theirs| theirs.paths != draft.paths);
        RuleShown {
            place: None,
            key: "d".to_owned(),
            name: "Everybody else".to_owned(),
            when: Vec::new(),
            zone: String::new(),
            is_off: false,
            paths: self.paths(None, &draft.paths),
            verdict: self.seen.and_then(|seen| seen.of_rule(draft.rules.len(), &[])),
            faults: Vec::new(),
            is_open: false,
            is_at: false,
            is_first: true,
            is_last: true,
            stored: theirs
                .map(|theirs| (theirs.paths.iter().map(words::path).collect(), "take.d".to_owned())),
        }
    }

    fn stored_of(&self, rule: &Rule) -> Option<(Vec<String>, String)> {
        let id = rule.id?;
        let theirs = self.theirs?.rules.iter().find(|theirs| theirs.id == Some(id));
        match theirs {
            Some(theirs) if theirs == rule => None,
            Some(theirs) => Some((words::rule(theirs), format!("take.{id}"))),
            None => Some((Vec::new(), format!("take.{id}"))),
        }
    }

    /// Rules that somebody else added, or that are not in the draft any more: lines, and what a button that takes one says.
    pub(super) fn only_stored(&self) -> Vec<(Vec<String>, String)> {
        let Some(theirs) = self.theirs else { return Vec::new() };
        let is_here = |id| self.editor.draft.rules.iter().any(|rule| rule.id == id);
        let missing = theirs.rules.iter().filter(|rule| !is_here(rule.id));
        missing.map(|rule| (words::rule(rule), format!("take.{}", rule.id.unwrap_or_default()))).collect()
    }

    /// The order of the rules as it is stored, where it is another one.
    pub(super) fn stored_order(&self) -> Option<String> {
        let mine = &self.editor.draft.rules;
        let theirs = &self.theirs?.rules;
        let common = |rules: &[Rule], others: &[Rule]| -> Vec<i64> {
            let is_there = |id: &i64| others.iter().any(|rule| rule.id == Some(*id));
            rules.iter().filter_map(|rule| rule.id).filter(is_there).collect()
        };
        (common(mine, theirs) != common(theirs, mine))
            .then(|| theirs.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", "))
    }

    fn faults_of(&self, place: Place) -> Vec<String> {
        let is_closed = self.editor.open != Some(place);
        let here = self.faults.iter().filter(|fault| fault.place == Some(place));
        let here = here.filter(|fault| is_closed || fault.field.is_empty());
        here.map(Fault::in_full).collect()
    }

    fn paths(&self, rule: Option<usize>, paths: &[Path]) -> Vec<PathShown> {
        let is_full = |path: &Path| self.is_full(CapOn::Path, path.id);
        let weights = paths.iter().map(|path| {
            let leads_on = path
                .landing_pages
                .iter()
                .chain(&path.offers)
                .any(|entry| weight(&entry.weight, entry.is_off) > 0);
            if is_full(path) || !leads_on { 0 } else { weight(&path.weight, path.is_off) }
        });
        let shares = shares(weights.collect());
        paths
            .iter()
            .zip(shares)
            .enumerate()
            .map(|(j, (path, share))| self.path((rule, j), path, share, paths.len()))
            .collect()
    }

    fn path(&self, (rule, j): (Option<usize>, usize), path: &Path, share: f64, count: usize) -> PathShown {
        let place = Place::Path(rule, j);
        let seen = self.seen.and_then(|seen| seen.path(rule.unwrap_or(self.editor.draft.rules.len()), j));
        let mut badges = Vec::new();
        badges.extend(path.is_off.then_some("inactive"));
        badges.extend(self.is_full(CapOn::Path, path.id).then_some("full"));
        PathShown {
            place,
            name: path.name.clone(),
            share: percent(share),
            bar: bar(share),
            when: path.when.iter().map(words::criterion).collect(),
            badges,
            caps: self.caps(CapOn::Path, path.id, &path.caps),
            landing_pages: self.entries(&path.landing_pages, false, |k| {
                self.seen.is_some_and(|seen| seen.is_page(rule, j, k))
            }),
            offers: self
                .entries(&path.offers, true, |k| self.seen.is_some_and(|seen| seen.is_offer(rule, j, k))),
            is_chosen_early: path.offer_choice == "lander" && !path.landing_pages.is_empty(),
            verdict: seen.map(|seen| seen.verdict(&path.when)),
            faults: self.faults_of(place),
            is_open: self.editor.open == Some(place),
            is_at: self.editor.at == Some(place),
            is_first: j == 0,
            is_last: j + 1 == count,
        }
    }

    fn entries(
        &self,
        entries: &[Entry],
        is_offer: bool,
        is_taken: impl Fn(usize) -> bool,
    ) -> Vec<EntryShown> {
        let is_full = |entry: &Entry| is_offer && self.is_full(CapOn::Offer, entry.id);
        let weights = entries
            .iter()
            .map(|entry| if is_full(entry) { 0 } else { weight(&entry.weight, entry.is_off) })
            .collect();
        let shown = |(k, (entry, share)): (usize, (&Entry, f64))| {
            let mut badges = Vec::new();
            badges.extend(entry.is_off.then_some("inactive"));
            badges.extend(is_full(entry).then_some("full"));
            badges.extend((entry.kind == Kind::Library).then_some("library"));
            EntryShown {
                name: match (entry.kind, entry.name.as_str()) {
                    (Kind::Direct, _) => "no page".to_owned(),
                    (_, "") => "not named yet".to_owned(),
                    (_, name) => name.to_owned(),
                },
                address: short(&entry.url),
                share: percent(share),
                badges,
                caps: if is_offer { self.caps(CapOn::Offer, entry.id, &entry.caps) } else { Vec::new() },
                payout: if entry.payout.is_empty() {
                    String::new()
                } else {
                    format!("pays {} {}", entry.payout, entry.currency.to_uppercase())
                },
                is_taken: is_taken(k),
            }
        };
        entries.iter().zip(shares(weights)).enumerate().map(shown).collect()
    }

    fn uses_of(&self, on: CapOn, id: Option<i64>) -> impl Iterator<Item = &CapUse> {
        self.uses.iter().filter(move |it| it.on == on && Some(it.id) == id)
    }

    fn is_full(&self, on: CapOn, id: Option<i64>) -> bool {
        self.uses_of(on, id).any(|it| it.is_full)
    }

    fn caps(&self, on: CapOn, id: Option<i64>, caps: &[Cap]) -> Vec<CapShown> {
        let shown = |cap: &Cap| {
            let is_it = |it: &&CapUse| {
                it.of.to_string() == cap.of
                    && it.per.to_string() == cap.per
                    && it.limit.to_string() == cap.limit
            };
            let found = self.uses_of(on, id).find(is_it);
            CapShown {
                text: words::cap(cap),
                used: found.map(|it| format!("{} used", it.used)),
                is_full: found.is_some_and(|it| it.is_full),
            }
        };
        caps.iter().map(shown).collect()
    }
}

/// A weight that counts; what is typed wrong counts as none.
fn weight(text: &str, is_off: bool) -> u64 {
    if is_off { 0 } else { text.parse().unwrap_or(0) }
}

/// The share of each weight, from 0 to 1.
fn shares(weights: Vec<u64>) -> Vec<f64> {
    let total: f64 = weights.iter().map(|weight| as_float(*weight)).sum();
    let share = |weight| if total > 0.0 { as_float(weight) / total } else { 0.0 };
    weights.into_iter().map(share).collect()
}

#[expect(clippy::cast_precision_loss, reason = "weights are at most a million")]
fn as_float(weight: u64) -> f64 {
    weight as f64
}

/// A share in words, such as `33.3 %`.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{}\u{a0}%", text.strip_suffix(".0").unwrap_or(&text))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 20")]
fn bar(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 20.0).round() as u32 * 5
}

/// Where an address leads, without what is behind its path.
fn short(url: &str) -> String {
    let url = url.strip_prefix("https://").unwrap_or(url);
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let text = url[..end].trim_end_matches('/');
    if end < url.len() { format!("{text}?\u{2026}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_weights_of_what_takes_part() {
        assert_eq!(shares(vec![3, 0, 1]), [0.75, 0.0, 0.25]);
        assert_eq!(shares(vec![0, 0]), [0.0, 0.0]);
        assert_eq!((weight("x", false), weight("5", true), weight("5", false)), (0, 0, 5));
        assert_eq!((percent(1.0 / 3.0).as_str(), percent(1.0).as_str()), ("33.3\u{a0}%", "100\u{a0}%"));
        assert_eq!((bar(0.33), bar(1.0), bar(0.01)), (35, 100, 0));
        assert_eq!(short("https://a.example/x/?c={click_id}"), "a.example/x?\u{2026}");
        assert_eq!(short("market://details"), "market://details");
    }
}
