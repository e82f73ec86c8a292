//! What the API says is wrong, beside the part of the flow and the field that it is about.

use super::{draft::Draft, steps::Place};
use crate::http::error::Problem;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Of which part; `None`: of the whole.
    pub(super) place: Option<Place>,
    /// The field of the part; empty: of the part itself.
    pub(super) field: String,
    /// In a sentence.
    pub(super) text: String,
}

impl Fault {
    /// With the field that it is about, for where that is not shown.
    pub(super) fn in_full(&self) -> String {
        if self.field.is_empty() {
            self.text.clone()
        } else {
            format!("{}: {}", called(&self.field), self.text)
        }
    }
}

/// A field in words: `o0c1-limit` is `Offer 1, cap 2, limit`.
fn called(field: &str) -> String {
    let (list, name) = field.split_once('-').unwrap_or(("", field));
    let name = match name {
        "url" => "address".to_owned(),
        "id" => "of the library".to_owned(),
        other => other.replace('_', " "),
    };
    let mut parts: Vec<String> = Vec::new();
    for part in list.split('c') {
        let (what, nth) = match (part.strip_prefix('o'), part.strip_prefix('l'), part.strip_prefix('w')) {
            (Some(nth), ..) => ("offer", nth),
            (_, Some(nth), _) => ("landing page", nth),
            (.., Some(nth)) => ("condition", nth),
            _ => ("cap", part),
        };
        if let Ok(nth) = nth.parse::<usize>() {
            parts.push(format!("{what} {}", nth + 1));
        }
    }
    parts.push(name);
    let text = parts.join(", ");
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What a problem says of a draft.
pub(super) fn of(problem: &Problem, draft: &Draft) -> Vec<Fault> {
    if problem.errors().is_empty() {
        return vec![Fault { place: None, field: String::new(), text: problem.detail().to_owned() }];
    }
    let fault = |error: &crate::http::error::FieldError| {
        let detail = error.detail.trim_end_matches('.');
        match place_of(&error.pointer, draft) {
            Some((place, field)) => Fault { place: Some(place), text: format!("It {detail}."), field },
            None => {
                Fault { place: None, field: String::new(), text: format!("{}: {detail}.", error.pointer) }
            }
        }
    };
    problem.errors().iter().map(fault).collect()
}

/// The part and the field that a pointer of the API is about.
fn place_of(pointer: &str, draft: &Draft) -> Option<(Place, String)> {
    let segments: Vec<&str> = pointer.split('/').skip(1).collect();
    let (place, rest) = match segments[..] {
        ["rules", rule, "paths", path, ref rest @ ..] => {
            let rule: usize = rule.parse().ok()?;
            (Place::Path((rule < draft.rules.len()).then_some(rule), path.parse().ok()?), rest)
        }
        ["rules", rule, ref rest @ ..] => (Place::Rule(rule.parse().ok()?), rest),
        ["paths", path, ref rest @ ..] => (Place::Path(None, path.parse().ok()?), rest),
        ["landing_pages" | "offers", ..] => (Place::Path(None, 0), &segments[..]),
        _ => return None,
    };
    let is_there = match place {
        Place::Rule(rule) => rule < draft.rules.len(),
        Place::Path(rule, path) => draft.path(rule, path).is_some(),
    };
    is_there.then(|| (place, field_of(rest)))
}

/// The field of a part; empty where none is meant.
fn field_of(rest: &[&str]) -> String {
    match rest {
        [field @ ("name" | "weight" | "time_zone" | "offer_choice")] => (*field).to_owned(),
        ["is_active"] => "active".to_owned(),
        ["when", k, field @ ("dimension" | "name")] => format!("w{k}-{field}"),
        ["when", k, ..] => format!("w{k}-values"),
        ["caps", k, field] => format!("c{k}-{field}"),
        ["offers", k, "caps", m, field] => format!("o{k}c{m}-{field}"),
        ["offers", k, "payout", "currency"] => format!("o{k}-currency"),
        ["offers", k, "payout", ..] => format!("o{k}-payout"),
        [list @ ("offers" | "landing_pages"), k, field, ..] => format!("{}{k}-{field}", &list[..1]),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error::FieldError;

    #[test]
    fn a_field_that_is_not_shown_is_named() {
        for (field, wanted) in [
            ("o0c1-limit", "Offer 1, cap 2, limit"),
            ("c0-time_zone", "Cap 1, time zone"),
            ("l2-url", "Landing page 3, address"),
            ("w0-values", "Condition 1, values"),
            ("name", "Name"),
        ] {
            assert_eq!(called(field), wanted);
        }
    }

    #[test]
    fn each_pointer_of_the_api_leads_to_a_field_of_a_part() {
        let mut draft = Draft::default();
        let path = super::super::draft::Path::new(String::new());
        draft.rules.push(super::super::draft::Rule { paths: vec![path.clone()], ..Default::default() });
        draft.paths.push(path);
        let rule = Some(Place::Rule(0));
        let (path, default) = (Some(Place::Path(Some(0), 0)), Some(Place::Path(None, 0)));
        for (pointer, place, field) in [
            ("/rules/0/name", rule, "name"),
            ("/rules/0/when", rule, ""),
            ("/rules/0/when/2/is/5", rule, "w2-values"),
            ("/rules/0/when/2/dimension", rule, "w2-dimension"),
            ("/rules/0/paths", rule, ""),
            ("/rules/0/paths/0/landing_pages/1/url", path, "l1-url"),
            ("/rules/0/paths/0/offers/3/payout/amount", path, "o3-payout"),
            ("/rules/0/paths/0/offers/3/caps/1/limit", path, "o3c1-limit"),
            ("/rules/1/paths/0/caps/0/limit", default, "c0-limit"),
            ("/offers/0/overflow_offer_id", default, "o0-overflow_offer_id"),
            ("/landing_pages", default, ""),
            ("/paths/0/offers", default, ""),
            ("/rules/7/name", None, ""),
            ("/rules/1/paths/9", None, ""),
            ("/ip", None, ""),
            ("", None, ""),
        ] {
            let problem = Problem::unprocessable(vec![FieldError::new(pointer, "x", "is odd.")]);
            let found = of(&problem, &draft);
            assert_eq!((found[0].place, found[0].field.as_str()), (place, field), "{pointer}");
        }
        assert_eq!(of(&Problem::conflict("No."), &draft)[0].text, "No.");
    }
}
