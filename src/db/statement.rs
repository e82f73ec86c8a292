//! A statement is a value: its text and the name it is known by in metrics, in the log and in `/system/queries`.
//!
//! A module writes its statements with [`statements!`], which makes a constant of each and the list of all. What
//! runs one takes the constant, so a text runs under no other name; a constant that nothing runs does not compile.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{
    FromRow, Postgres,
    postgres::{PgArguments, PgRow},
};

/// Whether statements are prepared once and kept by name; not behind PgBouncer in transaction mode, where the
/// next transaction may run on another server. Of the process, like its configuration.
static IS_PREPARED: AtomicBool = AtomicBool::new(true);

/// One statement and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    name: &'static str,
    sql: &'static str,
}

impl Statement {
    /// `name` is `noun.verb`; anything else does not compile where the statement is a constant.
    #[expect(
        clippy::missing_panics_doc,
        reason = "it is there for constants, where a panic does not compile"
    )]
    pub const fn new(name: &'static str, sql: &'static str) -> Self {
        assert!(is_noun_verb(name.as_bytes()), "a statement's name is noun.verb");
        Self { name, sql }
    }

    /// `noun.verb`
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Its text, with `$1` in the place of the first value.
    pub const fn sql(self) -> &'static str {
        self.sql
    }

    /// To be run, prepared once per connection if the configuration allows it.
    pub(in crate::db) fn query(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        sqlx::query(self.sql).persistent(IS_PREPARED.load(Ordering::Relaxed))
    }

    /// As [`Statement::query`], for rows.
    pub(in crate::db) fn query_as<T: for<'r> FromRow<'r, PgRow>>(
        self,
    ) -> sqlx::query::QueryAs<'static, Postgres, T, PgArguments> {
        sqlx::query_as(self.sql).persistent(IS_PREPARED.load(Ordering::Relaxed))
    }

    /// As [`Statement::query`], for one value.
    pub(in crate::db) fn query_scalar<T>(self) -> sqlx::query::QueryScalar<'static, Postgres, T, PgArguments>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_scalar(self.sql).persistent(IS_PREPARED.load(Ordering::Relaxed))
    }

    /// To be run in one message (the simple protocol), and never prepared.
    pub(in crate::db) fn raw(self) -> sqlx::RawSql {
        sqlx::raw_sql(self.sql)
    }
}

/// Sets whether statements are kept prepared.
pub(super) fn configure(is_prepared: bool) {
    IS_PREPARED.store(is_prepared, Ordering::Relaxed);
}

const fn is_noun_verb(name: &[u8]) -> bool {
    let (mut dots, mut i) = (0, 0);
    while i < name.len() {
        match name[i] {
            b'.' if i > 0 && i + 1 < name.len() => dots += 1,
            b'a'..=b'z' | b'_' => {}
            _ => return false,
        }
        i += 1;
    }
    dots == 1
}

/// The statements of a module, each on the left the constant, then the name, then the text:
///
/// ```text
/// statements! {
///     GET = "click.get": "SELECT .. WHERE id = $1";
/// }
/// ```
/// becomes
/// ```text
/// const GET: Statement = Statement::new("click.get", "SELECT .. WHERE id = $1");
/// pub(in crate::db) const STATEMENTS: &[Statement] = &[Statement::new("click.get", "SELECT .. WHERE id = $1")];
/// ```
/// The list does not use the constants, so that the compiler tells of one that nothing runs.
macro_rules! statements {
    ($($(#[$meta:meta])* $visible:vis $constant:ident = $name:literal: $sql:expr;)+) => {
        $(
            $(#[$meta])*
            $visible const $constant: $crate::db::statement::Statement =
                $crate::db::statement::Statement::new($name, $sql);
        )+

        /// Every statement of this module.
        pub(in crate::db) const STATEMENTS: &[$crate::db::statement::Statement] =
            &[$($crate::db::statement::Statement::new($name, $sql)),+];
    };
}
pub(in crate::db) use statements;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_noun_and_a_verb() {
        for (name, is_one) in [
            ("click.list_of_campaigns", true),
            ("click", false),
            (".get", false),
            ("click.", false),
            ("click.get.all", false),
            ("click.Get", false),
            ("", false),
        ] {
            assert_eq!(is_noun_verb(name.as_bytes()), is_one, "{name}");
        }
    }
}
