//! The schema: embedded migrations, run under an advisory lock and with a short `lock_timeout`, so that a
//! migration waits for nobody's long query and nobody queues behind it for long.

use std::{borrow::Cow, time::Duration};

use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
};

use super::{Error, monitor::classify, pool::Pool};

/// Every migration of this binary.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

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

/// Runs what is pending; returns how many ran.
pub async fn up(pool: &Pool) -> Result<usize, Error> {
    let pending = status(pool).await?.iter().filter(|s| !s.is_applied).count();
    if pending == 0 {
        return Ok(0);
    }
    let mut attempt = 1;
    loop {
        let mut connection = pool.connect().await?;
        sqlx::query("SET lock_timeout = '2s'")
            .execute(&mut connection)
            .await
            .map_err(|e| classify("migrate.up", e))?;
        sqlx::query("SET statement_timeout = '10min'")
            .execute(&mut connection)
            .await
            .map_err(|e| classify("migrate.up", e))?;
        let result = MIGRATOR.run_direct(None, &mut connection, false).await;
        let _ = connection.close().await;
        match result {
            Ok(()) => return Ok(pending),
            Err(error) if attempt < ATTEMPTS && is_lock_timeout(&error) => {
                tracing::info!(attempt, "a migration waits for a lock held by somebody else");
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
    let applied = applied(&mut connection).await?;
    let _ = connection.close().await;
    let steps = MIGRATOR.iter().filter(|m| !m.migration_type.is_down_migration()).map(|m| Step {
        version: m.version,
        description: m.description.clone(),
        is_applied: applied.contains(&m.version),
        sql: m.sql.as_str().to_owned(),
    });
    Ok(steps.collect())
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| classify("migrate.status", e))?;
    if !exists {
        return Ok(Vec::new());
    }
    let applied = connection.list_applied_migrations(&MIGRATOR.table_name).await.map_err(to_error)?;
    Ok(applied.into_iter().map(|m| m.version).collect())
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
