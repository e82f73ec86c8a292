//! One step of the editor: a button does one thing to the draft. Nothing is stored.

use std::{fmt, str::FromStr};

use super::draft::{Cap, Criterion, Draft, Entry, Kind, Path, Rule};

/// A part of the flow that can be opened: a rule, or a path of one (`None`: of the default rule).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Rule(usize),
    Path(Option<usize>, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "r{rule}"),
            Self::Path(Some(rule), path) => write!(f, "r{rule}p{path}"),
            Self::Path(None, path) => write!(f, "dp{path}"),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.parse::<usize>().map_err(|_| ());
        if let Some(path) = text.strip_prefix("dp") {
            return Ok(Self::Path(None, number(path)?));
        }
        let rest = text.strip_prefix('r').ok_or(())?;
        match rest.split_once('p') {
            Some((rule, path)) => Ok(Self::Path(Some(number(rule)?), number(path)?)),
            None => Ok(Self::Rule(number(rest)?)),
        }
    }
}

/// The editor between two steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Editor {
    pub(super) draft: Draft,
    /// What is open.
    pub(super) open: Option<Place>,
    /// What the step was about: the browser goes there.
    pub(super) at: Option<Place>,
}

impl Editor {
    /// What a button does; one that is not known does nothing.
    pub(super) fn step(&mut self, what: &str) {
        let parts: Vec<&str> = what.split('.').collect();
        match parts[..] {
            ["open", place] => self.show(place.parse().ok()),
            ["close"] => self.at = self.open.take(),
            ["add-rule"] => {
                let nth = self.draft.rules.len();
                self.draft.rules.push(Rule {
                    name: format!("Rule {}", nth + 1),
                    when: vec![new_criterion()],
                    paths: vec![Path {
                        offers: vec![Entry::new(Kind::Own)],
                        ..Path::new("Path 1".to_owned())
                    }],
                    ..Rule::default()
                });
                self.show(Some(Place::Rule(nth)));
            }
            ["add-path", of] => self.add_path(of),
            ["up", place] => self.shift(place, true),
            ["down", place] => self.shift(place, false),
            ["remove", place] => self.remove(place),
            ["more", list] => self.more(list, Kind::Own),
            ["more", list, "library"] => self.more(list, Kind::Library),
            ["more", list, "direct"] => self.more(list, Kind::Direct),
            ["less", list, nth] => self.in_list(list, nth, |nth, list| list.remove(nth)),
            ["before", list, nth] => self.in_list(list, nth, |nth, list| {
                if let Some(before) = nth.checked_sub(1) {
                    list.swap(before, nth);
                }
            }),
            ["after", list, nth] => self.in_list(list, nth, |nth, list| list.swap(nth, nth + 1)),
            _ => self.at = self.open,
        }
    }

    /// Opens a part, and goes there.
    pub(super) fn show(&mut self, place: Option<Place>) {
        self.open = place;
        self.at = place;
    }

    fn add_path(&mut self, of: &str) {
        let rule = if of == "d" { None } else { of.strip_prefix('r').and_then(|rule| rule.parse().ok()) };
        if rule.is_none() && of != "d" {
            return;
        }
        let Some(paths) = self.draft.paths_mut(rule) else { return };
        let nth = paths.len();
        let name = format!("Path {}", nth + 1);
        paths.push(Path { offers: vec![Entry::new(Kind::Own)], ..Path::new(name) });
        self.show(Some(Place::Path(rule, nth)));
    }

    fn shift(&mut self, place: &str, is_up: bool) {
        let other = |nth: usize| if is_up { nth.checked_sub(1) } else { Some(nth + 1) };
        let Ok(place) = place.parse::<Place>() else { return };
        let moved = match place {
            Place::Rule(nth) => {
                other(nth).and_then(|to| swap(&mut self.draft.rules, nth, to)).map(Place::Rule)
            }
            Place::Path(rule, nth) => {
                let paths = self.draft.paths_mut(rule);
                let moved = paths.zip(other(nth)).and_then(|(paths, to)| swap(paths, nth, to));
                moved.map(|to| Place::Path(rule, to))
            }
        };
        self.open = None;
        self.at = moved.or(Some(place));
    }

    fn remove(&mut self, place: &str) {
        match place.parse() {
            Ok(Place::Rule(nth)) if nth < self.draft.rules.len() => {
                self.draft.rules.remove(nth);
                self.at = nth.checked_sub(1).map(Place::Rule);
            }
            Ok(Place::Path(rule, nth)) => {
                if let Some(paths) = self.draft.paths_mut(rule).filter(|paths| nth < paths.len()) {
                    paths.remove(nth);
                }
                self.at = rule.map(Place::Rule);
            }
            _ => return,
        }
        self.open = None;
    }

    fn more(&mut self, list: &str, kind: Kind) {
        self.at = self.open;
        if list == "w" {
            if let Some(when) = self.criteria() {
                when.push(new_criterion());
            }
            return;
        }
        let Some(path) = self.path() else { return };
        match list {
            "l" => path.landing_pages.push(Entry::new(kind)),
            "o" => path.offers.push(Entry::new(kind)),
            "c" => path.caps.push(Cap::new()),
            _ => {
                if let Some(caps) = caps_of_offer(path, list) {
                    caps.push(Cap::new());
                }
            }
        }
    }

    fn in_list(&mut self, list: &str, nth: &str, change: impl Fn(usize, &mut dyn List)) {
        self.at = self.open;
        let Ok(nth) = nth.parse::<usize>() else { return };
        if list == "w" {
            if let Some(when) = self.criteria() {
                change(nth, when);
            }
            return;
        }
        let Some(path) = self.path() else { return };
        match list {
            "l" => change(nth, &mut path.landing_pages),
            "o" => change(nth, &mut path.offers),
            "c" => change(nth, &mut path.caps),
            _ => {
                if let Some(caps) = caps_of_offer(path, list) {
                    change(nth, caps);
                }
            }
        }
    }

    fn criteria(&mut self) -> Option<&mut Vec<Criterion>> {
        match self.open? {
            Place::Rule(rule) => self.draft.rules.get_mut(rule).map(|rule| &mut rule.when),
            Place::Path(..) => self.path().map(|path| &mut path.when),
        }
    }

    fn path(&mut self) -> Option<&mut Path> {
        let Place::Path(rule, path) = self.open? else { return None };
        self.draft.paths_mut(rule)?.get_mut(path)
    }
}

/// A list whose entries are taken away and change places.
trait List {
    fn remove(&mut self, nth: usize);
    fn swap(&mut self, a: usize, b: usize);
}

impl<T> List for Vec<T> {
    fn remove(&mut self, nth: usize) {
        if nth < self.len() {
            Vec::remove(self, nth);
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        swap(self, a, b);
    }
}

/// The place of what was at `from`, once it is at `to`; `None`: there is no such place.
fn swap<T>(list: &mut [T], from: usize, to: usize) -> Option<usize> {
    (from < list.len() && to < list.len()).then(|| {
        list.swap(from, to);
        to
    })
}

/// The caps of the offer that `o3c` names.
fn caps_of_offer<'p>(path: &'p mut Path, list: &str) -> Option<&'p mut Vec<Cap>> {
    let nth = list.strip_prefix('o')?.strip_suffix('c')?.parse::<usize>().ok()?;
    path.offers.get_mut(nth).map(|offer| &mut offer.caps)
}

fn new_criterion() -> Criterion {
    Criterion { dimension: "country".to_owned(), test: "is".to_owned(), ..Criterion::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dashboard::form::Fields;

    #[test]
    fn places_are_written_as_they_are_read() {
        for text in ["r0", "r12p3", "dp0"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "r", "rp", "d", "dp", "r1p", "x1", "r-1"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
    }

    #[test]
    fn rules_and_paths_are_added_moved_and_taken_away() {
        let mut editor = Editor::default();
        editor.step("add-rule");
        editor.step("add-rule");
        assert_eq!((editor.draft.rules.len(), editor.open), (2, Some(Place::Rule(1))));
        editor.read(&Fields::parse(
            "name=B&active=1&w0-dimension=country&w0-test=is&w0-values=DE%2C+AT%0D%0ACH",
        ));
        assert_eq!(editor.draft.rules[1].when[0].values, ["DE", "AT", "CH"]);
        editor.step("up.r1");
        assert_eq!((editor.draft.rules[0].name.as_str(), editor.at), ("B", Some(Place::Rule(0))));
        editor.step("up.r0");
        editor.step("down.r9");
        assert_eq!(editor.draft.rules[0].name, "B", "there is nothing above it");
        editor.step("add-path.r0");
        editor.step("add-path.d");
        assert_eq!((editor.draft.rules[0].paths.len(), editor.draft.paths.len()), (2, 1));
        editor.step("down.r0p0");
        assert_eq!(editor.draft.rules[0].paths[0].name, "Path 2");
        editor.step("remove.r0p0");
        editor.step("remove.r1");
        editor.step("remove.r7");
        assert_eq!((editor.draft.rules.len(), editor.draft.rules[0].paths.len()), (1, 1));
    }

    #[test]
    fn the_lists_of_an_open_path_grow_shrink_and_change_places() {
        let mut editor = Editor::default();
        editor.step("add-path.d");
        for step in [
            "more.l",
            "more.l.direct",
            "more.o.library",
            "more.c",
            "more.o0c",
            "more.w",
            "more.x",
            "more.o9c",
        ] {
            editor.step(step);
        }
        let path = &editor.draft.paths[0];
        assert_eq!(
            (path.landing_pages.len(), path.offers.len(), path.caps.len(), path.when.len()),
            (2, 2, 1, 1)
        );
        assert_eq!((path.landing_pages[1].kind, path.offers[0].caps.len()), (Kind::Direct, 1));
        for step in
            ["before.l.1", "less.c.0", "less.c.0", "less.o0c.0", "after.o.1", "less.w.5", "before.o.0"]
        {
            editor.step(step);
        }
        let path = &editor.draft.paths[0];
        assert_eq!((path.landing_pages[0].kind, path.caps.len()), (Kind::Direct, 0));
        assert!(
            path.offers[0].caps.is_empty() && path.offers[1].kind == Kind::Library && path.when.len() == 1
        );
        editor.read(&Fields::parse(
            "name=A&weight=x&offer_choice=out&o0-name=O&o0-url=u&o0-weight=2&o1-id=7&o1-weight=1",
        ));
        let path = &editor.draft.paths[0];
        assert_eq!((path.weight.as_str(), path.is_off), ("x", true));
        assert_eq!((path.offers[0].name.as_str(), path.offers[1].id), ("O", Some(7)));
    }
}
