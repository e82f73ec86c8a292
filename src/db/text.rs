//! Statements put together when octo is compiled: of the columns of a fact's table (see `facts::table`), so that a column
//! is named there only.

use crate::facts::table::{Column, Sql};

/// A text of at most `N` bytes, for constants; a longer one does not compile.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// The text.
    pub(crate) const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => panic!("texts were put in"),
        }
    }

    /// Goes on with a text.
    pub(crate) const fn and(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() {
            self.bytes[self.length] = text[i];
            self.length += 1;
            i += 1;
        }
        self
    }

    /// Goes on with a number from 0 to 99.
    #[expect(clippy::cast_possible_truncation, reason = "digits")]
    pub(crate) const fn number(mut self, number: usize) -> Self {
        assert!(number < 100, "a number of two digits");
        if number >= 10 {
            self.bytes[self.length] = b'0' + (number / 10) as u8;
            self.length += 1;
        }
        self.bytes[self.length] = b'0' + (number % 10) as u8;
        self.length += 1;
        self
    }

    /// Goes on with `id, campaign_id, ..`: every column, or those that the table has.
    pub(crate) const fn names(mut self, columns: &[Column], only_stored: bool) -> Self {
        let (mut i, mut is_first) = (0, true);
        while i < columns.len() {
            if columns[i].is_stored || !only_stored {
                self = self.and(if is_first { "" } else { ", " }).and(columns[i].name);
                is_first = false;
            }
            i += 1;
        }
        self
    }

    /// Goes on with `$1::uuid[], $2::text[], ..`: an array of each column.
    pub(crate) const fn arrays(mut self, columns: &[Column]) -> Self {
        let mut i = 0;
        while i < columns.len() {
            self = self.and(if i == 0 { "$" } else { ", $" }).number(i + 1).and("::");
            self = self.and(match columns[i].sql {
                Sql::Uuid => "uuid[]",
                Sql::Bool => "bool[]",
                Sql::Int8 => "int8[]",
                Sql::Timestamptz => "timestamptz[]",
                Sql::Numeric => "numeric[]",
                Sql::Inet => "text[]::inet[]",
                // an array of arrays would become one long array: a list in a text, then
                Sql::Text | Sql::Jsonb | Sql::Texts => "text[]",
            });
            i += 1;
        }
        self
    }

    /// Goes on with `t.id, t.campaign_id, ..`: what becomes of a row `t` of such arrays in the table.
    pub(crate) const fn stored_values(mut self, columns: &[Column]) -> Self {
        let (mut i, mut is_first) = (0, true);
        while i < columns.len() {
            if columns[i].is_stored {
                let (before, after) = match columns[i].sql {
                    Sql::Jsonb => ("t.", "::jsonb"),
                    Sql::Texts => ("string_to_array(t.", ", ',')"),
                    _ => ("t.", ""),
                };
                self = self.and(if is_first { "" } else { ", " });
                self = self.and(before).and(columns[i].name).and(after);
                is_first = false;
            }
            i += 1;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_table_become_lists() {
        const fn column(name: &'static str, sql: Sql, is_stored: bool) -> Column {
            Column { name, sql, is_stored }
        }
        const COLUMNS: &[Column] = &[
            column("id", Sql::Uuid, true),
            column("key", Sql::Uuid, false),
            column("data", Sql::Jsonb, true),
            column("names", Sql::Texts, true),
        ];
        const NAMES: Text<80> =
            Text::new().and("(").names(COLUMNS, false).and(") (").names(COLUMNS, true).and(")");
        const ARRAYS: Text<80> = Text::new().arrays(COLUMNS);
        const VALUES: Text<80> = Text::new().stored_values(COLUMNS).and(" ").number(10);
        assert_eq!(NAMES.as_str(), "(id, key, data, names) (id, data, names)");
        assert_eq!(ARRAYS.as_str(), "$1::uuid[], $2::uuid[], $3::text[], $4::text[]");
        assert_eq!(VALUES.as_str(), "t.id, t.data::jsonb, string_to_array(t.names, ',') 10");
    }
}
