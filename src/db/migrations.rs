//! The schema: embedded migrations, run under an advisory lock and with a short `lock_timeout`, so that a
//! migration waits for nobody's long query and nobody queues behind it for long.

use std::{borrow::Cow, time::Duration};

use sqlx::migrate::{MigrateError, Migrator};

use super::{Error, monitor::classify, pool::Pool, session::Session, statement::statements};

/// Every migration of this binary.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// The one encoding that holds every language.
pub const UTF8: &str = "UTF8";

statements! {
    ENCODING = "migrate.encoding": "SELECT current_setting('server_encoding')";

    SET_SESSION = "migrate.connect":
        "SELECT set_config('lock_timeout', '2s', false), set_config('statement_timeout', '10min', false)";

    HAS_TABLE = "migrate.status": "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

    LIST = "migrate.list": "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
}

/// Attempts when a lock is not free within `lock_timeout`.
const ATTEMPTS: u32 = 10;

/// One migration and whether it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// `verb noun`
    pub description: Cow<'static, str>,
    /// Whether the database has it.
    pub is_applied: bool,
    /// Its statements.
    pub sql: String,
}

/// The encoding of the database, such as `UTF8`.
pub async fn encoding(pool: &Pool) -> Result<String, Error> {
    let mut connection = pool.connect().await?;
    let encoding = async {
        // in a transaction, so that it also works behind PgBouncer
        let mut transaction = connection.begin().await?;
        ENCODING.query_scalar().fetch_one(&mut transaction).await
    };
    let encoding = encoding.await.map_err(|e| classify(ENCODING.name(), e))?;
    let _ = connection.close().await;
    Ok(encoding)
}

/// Runs what is pending; returns how many ran. They need a session of their own: not through PgBouncer in
/// transaction mode. A database without our tables that is not UTF-8 is refused ([`Error::Encoding`]).
pub async fn up(pool: &Pool) -> Result<usize, Error> {
    let steps = status(pool).await?;
    let pending = steps.iter().filter(|s| !s.is_applied).count();
    if pending == 0 {
        return Ok(0);
    }
    if pending == steps.len() {
        let encoding = encoding(pool).await?;
        if encoding != UTF8 {
            return Err(Error::Encoding(encoding));
        }
    }
    if !pool.is_session() {
        let remedy = "migrations cannot run through PgBouncer in transaction mode; set database.direct_url";
        return Err(Error::Query { query: "migrate.up", source: sqlx::Error::Configuration(remedy.into()) });
    }
    let mut attempt = 1;
    loop {
        let mut connection = pool.connect().await?;
        let set = SET_SESSION.query().execute(&mut connection).await;
        set.map_err(|e| classify(SET_SESSION.name(), e))?;
        let result = MIGRATOR.run_direct(None, &mut *connection, false).await;
        let _ = connection.close().await;
        match result {
            Ok(()) => return Ok(pending),
            Err(error) if attempt < ATTEMPTS && is_lock_timeout(&error) => {
                tracing::info!(attempt, "a migration waits for a lock that another session holds");
                tokio::time::sleep(Duration::from_millis(500)).await;
                attempt += 1;
            }
            Err(error) => return Err(to_error(error)),
        }
    }
}

/// Every migration, and whether it ran.
pub async fn status(pool: &Pool) -> Result<Vec<Step>, Error> {
    let mut connection = pool.connect().await?;
    let applied = applied(&mut connection).await.map_err(|e| classify(HAS_TABLE.name(), e))?;
    let _ = connection.close().await;
    let steps = MIGRATOR.iter().filter(|m| !m.migration_type.is_down_migration()).map(|m| Step {
        version: m.version,
        description: m.description.clone(),
        is_applied: applied.contains(&m.version),
        sql: m.sql.as_str().to_owned(),
    });
    Ok(steps.collect())
}

/// In one transaction, so that it also works behind PgBouncer.
async fn applied(connection: &mut Session<'_>) -> sqlx::Result<Vec<i64>> {
    let mut transaction = connection.begin().await?;
    if !HAS_TABLE.query_scalar().fetch_one(&mut transaction).await? {
        return Ok(Vec::new());
    }
    LIST.query_scalar().fetch_all(&mut transaction).await
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) = error else {
        return false;
    };
    source.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

fn to_error(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            classify("migrate.up", source)
        }
        other => Error::Query { query: "migrate.up", source: sqlx::Error::Migrate(Box::new(other)) },
    }
}
