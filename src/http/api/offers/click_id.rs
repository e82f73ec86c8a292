//! Our click id in the URL of an offer, in canonical form.

/// Whether a macro of the URL is our click id.
pub(super) fn is_in(url: &str) -> bool {
    macros(url).any(|name| {
        name.strip_prefix("click_id").is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '|']))
    })
}

/// The URL with our click id in this parameter; as it is where it carries the id already, or has the parameter.
pub(super) fn added(url: &str, parameter: &str) -> String {
    let (before, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let (base, query) = before.split_once('?').unwrap_or((before, ""));
    let is_taken = query.split('&').any(|part| part.split('=').next() == Some(parameter));
    if is_in(url) || is_taken || !base.starts_with("http") {
        return url.to_owned();
    }
    let separator = match before.contains('?') {
        false => "?",
        true if query.is_empty() || query.ends_with('&') => "",
        true => "&",
    };
    format!("{before}{separator}{parameter}={{click_id}}{fragment}")
}

/// The names of the macros of a URL; `{{` is a literal brace.
fn macros(url: &str) -> impl Iterator<Item = &str> {
    let mut rest = url;
    std::iter::from_fn(move || {
        loop {
            let begin = rest.find('{')?;
            rest = &rest[begin + 1..];
            if let Some(literal) = rest.strip_prefix('{') {
                rest = literal;
                continue;
            }
            let (name, behind) = rest.split_once('}')?;
            rest = behind;
            return Some(name);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_click_id_is_known_among_other_macros() {
        for url in [
            "https://o.example/?a={click_id}",
            "https://o.example/{sub1}/{click_id:short}",
            "x{click_id|none}",
        ] {
            assert!(is_in(url), "{url}");
        }
        for url in [
            "https://o.example/",
            "https://o.example/?a={external_click_id}",
            "?a={{click_id}}",
            "{click_ids}",
            "{",
        ] {
            assert!(!is_in(url), "{url}");
        }
    }

    #[test]
    fn it_is_added_where_it_is_missing() {
        for (url, wanted) in [
            ("https://o.example/", "https://o.example/?s2={click_id}"),
            ("https://o.example/?a=1", "https://o.example/?a=1&s2={click_id}"),
            ("https://o.example/?", "https://o.example/?s2={click_id}"),
            ("https://o.example/?a=1&#top", "https://o.example/?a=1&s2={click_id}#top"),
            ("https://o.example/?a={sub1}#x?y", "https://o.example/?a={sub1}&s2={click_id}#x?y"),
            ("https://o.example/?a={{click_id}}", "https://o.example/?a={{click_id}}&s2={click_id}"),
        ] {
            assert_eq!(added(url, "s2"), wanted);
        }
        for same in [
            "https://o.example/?x={click_id}",
            "https://o.example/?s2=fixed",
            "https://o.example/?s2",
            "myapp://o/",
        ] {
            assert_eq!(added(same, "s2"), same);
        }
    }
}
