//! A statement is a value: its text and the name it is known by in metrics, in the log and in `/system/queries`.
//!
//! A module writes its statements with [`statements!`], which makes a constant of each and the list of all. What
//! runs one takes the constant, so a text runs under no other name; a constant that nothing runs does not compile.

use std::io;

use futures_util::TryStreamExt as _;
use sqlx::{
    Encode, FromRow, Postgres, Type,
    postgres::{PgArguments, PgQueryResult, PgRow},
};

use tokio::sync::mpsc;

use super::session::Session;

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
    pub(in crate::db) fn query(self) -> Query {
        Query { statement: self, query: sqlx::query(self.sql) }
    }

    /// As [`Statement::query`], for rows.
    pub(in crate::db) fn query_as<'q, T: for<'r> FromRow<'r, PgRow>>(self) -> QueryAs<'q, T> {
        QueryAs { statement: self, query: sqlx::query_as(self.sql) }
    }

    /// As [`Statement::query_as`], with all its values.
    pub(in crate::db) fn query_as_with<'q, T: for<'r> FromRow<'r, PgRow>>(
        self,
        values: PgArguments,
    ) -> QueryAs<'q, T> {
        QueryAs { statement: self, query: sqlx::query_as_with(self.sql, values) }
    }

    /// As [`Statement::query`], for one value.
    pub(in crate::db) fn query_scalar<'q, T>(self) -> QueryScalar<'q, T>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        QueryScalar(self.query_as())
    }

    /// Runs it in one message (the simple protocol), never prepared: outside of a transaction PgBouncer may part two.
    pub(in crate::db) async fn fetch_raw(self, c: &mut Session<'_>) -> sqlx::Result<PgRow> {
        c.run(self, async |c| sqlx::raw_sql(self.sql).fetch_one(c).await).await
    }
}

/// A statement with its values, for what it does. Only `db` can make, bind or run one.
pub(crate) struct Query {
    statement: Statement,
    query: sqlx::query::Query<'static, Postgres, PgArguments>,
}

impl Query {
    /// The next value, `$1` first.
    pub(in crate::db) fn bind<'t>(mut self, value: impl Encode<'t, Postgres> + Type<Postgres>) -> Self {
        self.query = self.query.bind(value);
        self
    }

    pub(in crate::db) async fn execute(self, c: &mut Session<'_>) -> sqlx::Result<PgQueryResult> {
        let query = self.query.persistent(c.is_prepared());
        c.run(self.statement, async |c| query.execute(c).await).await
    }
}

/// A statement with its values, for its rows.
pub(in crate::db) struct QueryAs<'q, T> {
    statement: Statement,
    query: sqlx::query::QueryAs<'q, Postgres, T, PgArguments>,
}

impl<'q, T: for<'r> FromRow<'r, PgRow> + Send + Unpin> QueryAs<'q, T> {
    /// The next value, `$1` first.
    pub(in crate::db) fn bind(mut self, value: impl Encode<'q, Postgres> + Type<Postgres> + 'q) -> Self {
        self.query = self.query.bind(value);
        self
    }

    pub(in crate::db) async fn fetch_one(self, c: &mut Session<'_>) -> sqlx::Result<T> {
        let query = self.query.persistent(c.is_prepared());
        c.run(self.statement, async |c| query.fetch_one(c).await).await
    }

    pub(in crate::db) async fn fetch_optional(self, c: &mut Session<'_>) -> sqlx::Result<Option<T>> {
        let query = self.query.persistent(c.is_prepared());
        c.run(self.statement, async |c| query.fetch_optional(c).await).await
    }

    pub(in crate::db) async fn fetch_all(self, c: &mut Session<'_>) -> sqlx::Result<Vec<T>> {
        let query = self.query.persistent(c.is_prepared());
        c.run(self.statement, async |c| query.fetch_all(c).await).await
    }

    /// Hands rows on as they come, `page_rows` at a time, until there are no more or nobody takes them: never more of them are in
    /// memory than wait to be taken.
    pub(in crate::db) async fn send_all(
        self,
        c: &mut Session<'_>,
        page_rows: usize,
        pages: &mpsc::Sender<Vec<T>>,
    ) -> sqlx::Result<()> {
        let query = self.query.persistent(c.is_prepared());
        c.run(self.statement, async |c| {
            let mut rows = query.fetch(c);
            let mut page = Vec::with_capacity(page_rows);
            while let Some(row) = rows.try_next().await? {
                page.push(row);
                if page.len() == page_rows {
                    let full = std::mem::replace(&mut page, Vec::with_capacity(page_rows));
                    if pages.send(full).await.is_err() {
                        return Err(nobody_reads());
                    }
                }
            }
            if !page.is_empty() {
                let _ = pages.send(page).await; // nobody takes it
            }
            Ok(())
        })
        .await
    }
}

/// A statement with its values, for the one value of its rows.
pub(in crate::db) struct QueryScalar<'q, T>(QueryAs<'q, (T,)>);

impl<'q, T: Send + Unpin> QueryScalar<'q, T>
where
    (T,): for<'r> FromRow<'r, PgRow>,
{
    /// The next value, `$1` first.
    pub(in crate::db) fn bind(self, value: impl Encode<'q, Postgres> + Type<Postgres> + 'q) -> Self {
        Self(self.0.bind(value))
    }

    pub(in crate::db) async fn fetch_one(self, c: &mut Session<'_>) -> sqlx::Result<T> {
        self.0.fetch_one(c).await.map(|(value,)| value)
    }

    pub(in crate::db) async fn fetch_optional(self, c: &mut Session<'_>) -> sqlx::Result<Option<T>> {
        self.0.fetch_optional(c).await.map(|row| row.map(|(value,)| value))
    }

    pub(in crate::db) async fn fetch_all(self, c: &mut Session<'_>) -> sqlx::Result<Vec<T>> {
        self.0.fetch_all(c).await.map(|rows| rows.into_iter().map(|(value,)| value).collect())
    }
}

fn nobody_reads() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads on"))
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
