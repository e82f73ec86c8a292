//! The query of a page: what it is asked, and the links that ask something else. Whatever a page shows is in its address.

use std::fmt;

use url::form_urlencoded;

use super::form::Fields;

/// A path and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    path: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Without parameters.
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), pairs: Vec::new() }
    }

    /// With those of `fields` that have these names and a value.
    pub(super) fn keeping(mut self, fields: &Fields, names: &[&str]) -> Self {
        let kept = fields.pairs().filter(|(name, value)| names.contains(name) && !value.is_empty());
        self.pairs.extend(kept.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// With one value in the place of those of this name; an empty one takes them away.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut query = self.without(name);
        if !value.is_empty() {
            query.pairs.push((name.to_owned(), value.to_owned()));
        }
        query
    }

    /// With one more value of this name.
    pub(super) fn and(&self, name: &str, value: &str) -> Self {
        let mut query = self.clone();
        query.pairs.push((name.to_owned(), value.to_owned()));
        query
    }

    /// Without the parameters of this name.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut query = self.clone();
        query.pairs.retain(|(known, _)| known != name);
        query
    }

    /// Without one of the values of this name.
    pub(super) fn without_value(&self, name: &str, value: &str) -> Self {
        let mut query = self.clone();
        query.pairs.retain(|(known, its)| (known.as_str(), its.as_str()) != (name, value));
        query
    }

    /// The same question of another page.
    pub(super) fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), pairs: self.pairs.clone() }
    }

    /// Its path.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The parameters alone, as they stand in the address.
    pub(super) fn text(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.pairs).finish()
    }

    /// What a form has to send along for the rest to stay: all but these names.
    pub(super) fn hidden(&self, but: &[&str]) -> Vec<(String, String)> {
        self.pairs.iter().filter(|(name, _)| !but.contains(&name.as_str())).cloned().collect()
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.pairs.is_empty() { Ok(()) } else { write!(f, "?{}", self.text()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_asks_what_is_asked_and_one_thing_else() {
        let fields = Fields::parse("range=7d&f=a%3Ais%3Ax&f=b%3Ais%3Ay%26&sort=&evil=1");
        let query = Query::new("/ui/report").keeping(&fields, &["range", "f", "sort"]);
        assert_eq!(query.to_string(), "/ui/report?range=7d&f=a%3Ais%3Ax&f=b%3Ais%3Ay%26");
        assert_eq!(query.without_value("f", "a:is:x").to_string(), "/ui/report?range=7d&f=b%3Ais%3Ay%26");
        assert_eq!(query.without("f").with("range", "30d").to_string(), "/ui/report?range=30d");
        assert_eq!(query.without("f").with("range", "").to_string(), "/ui/report");
        assert_eq!(query.at("/ui").without("f").and("f", "c").to_string(), "/ui?range=7d&f=c");
        assert_eq!(query.hidden(&["f"]), [("range".to_owned(), "7d".to_owned())]);
    }
}
