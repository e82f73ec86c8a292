//! What a database says of itself before everything in it is dumped, or before a dump is loaded into it.

use sqlx::FromRow;

use super::{Error, monitor::classify, pool::Pool, statement::statements};

statements! {
    // what extensions brought along is nobody's data
    INSPECT = "transfer.inspect": "
SELECT
    current_setting('server_version_num')::int4 / 10000 AS major,
    current_setting('server_encoding') AS encoding,
    current_database()::text AS name,
    current_user::text AS role,
    pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS is_read_only,
    coalesce((
        SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'
    ), false) AS may_create,
    (
        SELECT count(*)
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
          AND n.nspname <> 'information_schema'
          AND n.nspname !~ '^pg_'
          AND NOT EXISTS (
            SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        )
    ) AS relations";
}

/// A database as a source or a target.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Facts {
    /// Major version of the server.
    pub major: i32,
    /// `UTF8`, or one that cannot hold every name and value.
    pub encoding: String,
    /// Name of the database.
    pub name: String,
    /// Who is connected.
    pub role: String,
    /// A standby, or a database that takes no writes.
    pub is_read_only: bool,
    /// Whether the role may make tables in the schema `public`.
    pub may_create: bool,
    /// Tables, views and sequences in it, whoever made them.
    pub relations: i64,
}

/// Asks the database that the pool leads to, on a connection of its own.
pub async fn inspect(pool: &Pool) -> Result<Facts, Error> {
    let mut connection = pool.connect().await?;
    let facts = INSPECT.query_as().fetch_one(&mut connection).await;
    let _ = connection.close().await;
    facts.map_err(|e| classify(INSPECT.name(), e))
}
