//! Conditions, caps and paths in words.

use super::draft::{Cap, Criterion, Entry, Kind, Path, Rule};

/// Values that are named before the rest is counted.
const NAMED_MAX: usize = 8;

/// Values as they stand in a field, each in a line.
pub(super) fn joined(values: &[String]) -> String {
    values.join("\n").trim().to_owned()
}

/// What a criterion asks, such as `country is DE, AT`.
pub(super) fn criterion(criterion: &Criterion) -> String {
    let what = subject(criterion);
    let test = match criterion.test.as_str() {
        "is_not" => "is not",
        "starts" => "starts with",
        "known" => return format!("{what} is known"),
        "not_known" => return format!("{what} is not known"),
        other => other,
    };
    let values = &criterion.values;
    let named = values.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(" or ");
    let more = values.len().saturating_sub(NAMED_MAX);
    match (values.is_empty(), more) {
        (true, _) => format!("{what} {test} \u{2026}"),
        (false, 0) => format!("{what} {test} {named}"),
        (false, more) => format!("{what} {test} {named} or {more} more"),
    }
}

/// What a criterion looks at.
pub(super) fn subject(criterion: &Criterion) -> String {
    match criterion.dimension.as_str() {
        "parameter" => format!("parameter {}", criterion.name),
        "unique" => "first click of the day".to_owned(),
        "returning" => "came before".to_owned(),
        "os" => "system".to_owned(),
        "isp" => "provider".to_owned(),
        "source" => "traffic source".to_owned(),
        other => other.replace('_', " "),
    }
}

/// What a cap allows, such as `100 clicks a day`.
pub(super) fn cap(cap: &Cap) -> String {
    let per = match cap.per.as_str() {
        "total" => " in all".to_owned(),
        "hour" => " an hour".to_owned(),
        per => format!(" a {per}"),
    };
    let zone = if cap.time_zone.is_empty() { String::new() } else { format!(" ({})", cap.time_zone) };
    format!("{} {}{per}{zone}", cap.limit, cap.of)
}

/// A rule in lines, to be compared with another version of it.
pub(super) fn rule(rule: &Rule) -> Vec<String> {
    let when = rule.when.iter().map(criterion).collect::<Vec<_>>().join(", and ");
    let off = if rule.is_off { " (inactive)" } else { "" };
    let zone =
        if rule.time_zone.is_empty() { String::new() } else { format!(", times in {}", rule.time_zone) };
    let mut lines = vec![format!("{}{off}: if {when}{zone}", rule.name)];
    lines.extend(rule.paths.iter().map(path));
    lines
}

/// A path in a line.
pub(super) fn path(path: &Path) -> String {
    let off = if path.is_off { " (inactive)" } else { "" };
    let when = path.when.iter().map(criterion).collect::<Vec<_>>().join(", and ");
    let when = if when.is_empty() { String::new() } else { format!(", only if {when}") };
    let stops = |entries: &[Entry]| entries.iter().map(entry).collect::<Vec<_>>().join(" or ");
    let pages = if path.landing_pages.is_empty() {
        String::new()
    } else {
        format!("{} \u{2192} ", stops(&path.landing_pages))
    };
    let choice = if path.offer_choice == "lander" { ", offer chosen with the page" } else { "" };
    let caps = caps(&path.caps);
    format!("{}{off}, weight {}{when}: {pages}{}{choice}{caps}", path.name, path.weight, stops(&path.offers))
}

fn entry(entry: &Entry) -> String {
    if entry.kind == Kind::Direct {
        return format!("no page (weight {})", entry.weight);
    }
    let off = if entry.is_off { ", inactive" } else { "" };
    let payout = if entry.payout.is_empty() || entry.kind == Kind::Library {
        String::new()
    } else {
        format!(", pays {} {}", entry.payout, entry.currency)
    };
    let caps = if entry.kind == Kind::Library { String::new() } else { caps(&entry.caps) };
    format!("{} ({}, weight {}{off}{payout}{caps})", entry.name, entry.url, entry.weight)
}

fn caps(caps: &[Cap]) -> String {
    caps.iter().map(|it| format!(", at most {}", cap(it))).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_caps_are_told_in_words() {
        let of = |dimension: &str, test: &str, values: &[&str]| {
            criterion(&Criterion {
                dimension: dimension.to_owned(),
                name: "utm".to_owned(),
                test: test.to_owned(),
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            })
        };
        assert_eq!(of("country", "is", &["DE", "AT"]), "country is DE or AT");
        assert_eq!(of("parameter", "starts", &["news"]), "parameter utm starts with news");
        assert_eq!(of("referrer_host", "not_known", &[]), "referrer host is not known");
        assert_eq!(
            of("os", "is_not", &["a"; 10]),
            format!("system is not {} or 2 more", ["a"; 8].join(" or "))
        );
        let day = Cap { limit: "100".to_owned(), time_zone: "Europe/Berlin".to_owned(), ..Cap::new() };
        assert_eq!(cap(&day), "100 clicks a day (Europe/Berlin)");
        assert_eq!(cap(&Cap { per: "total".to_owned(), ..day }), "100 clicks in all (Europe/Berlin)");
    }
}
