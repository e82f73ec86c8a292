//! What a form or an address sends: names and values, the first of which counts.

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use url::form_urlencoded;
use uuid::Uuid;

use crate::{
    http::{body, error::Problem, head::require_identity},
    model::id::new_uuid,
};

const FORM: &str = "application/x-www-form-urlencoded";

/// Parameters of a page, or the fields of a form.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads what is encoded as forms are; U+0000, which Postgres cannot store, is U+FFFD in it.
    pub(super) fn parse(text: &str) -> Self {
        Self::of_bytes(text.as_bytes())
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let plain = |text: std::borrow::Cow<'_, str>| text.replace('\0', "\u{fffd}");
        Self(form_urlencoded::parse(bytes).map(|(name, value)| (plain(name), plain(value))).collect())
    }

    /// The first value of this name, without white space around it; empty, where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// All values of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The id of what a form makes, which it holds so that it makes it once, however often it is sent; a new one where it has none.
    pub(super) fn attempt(&self) -> Uuid {
        let sent = Uuid::try_parse(self.text("attempt")).ok().filter(|id| id.get_version_num() == 7);
        sent.unwrap_or_else(new_uuid)
    }

    /// The version of what a form changes, as it was when the form was made; 0, which nothing has, where it says none.
    pub(super) fn version(&self) -> i64 {
        self.text("version").parse().unwrap_or_default()
    }

    /// All of them.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Reads a form.
pub(super) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Fields, Problem> {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(FORM) {
        return Err(Problem::unsupported_media_type(FORM));
    }
    require_identity(headers)?;
    Ok(Fields::of_bytes(&body::read(body, bytes_max).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_and_nothing_in_it_is_refused() {
        let fields = Fields::parse("a=+x+&a=y&b=%00%ff&c");
        assert_eq!((fields.text("a"), fields.text("c"), fields.text("d")), ("x", "", ""));
        assert_eq!(fields.all("a").collect::<Vec<_>>(), [" x ", "y"]);
        assert_eq!(fields.text("b"), "\u{fffd}\u{fffd}");
    }
}
