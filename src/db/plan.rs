//! The plan of a statement, for people: how Postgres would run it with any values. No value is in it.

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor as _, PgConnection, SqlStr, Statement as _};

use super::{Error, pool::Pool};

/// The generic plan of the statement `query` (`noun.verb`) on the server of `pool`, as EXPLAIN writes it.
/// `Ok(None)`: there is no such statement.
pub async fn explain(pool: &Pool, query: &str) -> Result<Option<String>, Error> {
    let Some((_, sql)) = super::statements().find(|(name, _)| *name == query) else { return Ok(None) };
    if sql.starts_with("SET ") {
        return Ok(Some("SET has no plan".to_owned()));
    }
    pool.run("plan.explain", move |c| Box::pin(explain_on(c, sql))).await.map(Some)
}

/// Logs the plan of a slow query; boxed, because it is itself a query.
pub(super) fn log(pool: Pool, query: &'static str) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        match explain(&pool, query).await {
            Ok(Some(plan)) => tracing::warn!(query, plan, "the plan of a slow query"),
            Ok(None) => {}
            Err(error) => tracing::debug!(query, ?error, "the plan of a slow query could not be read"),
        }
    })
}

/// EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16; a prepared statement with forced generic plan says the same.
/// All of this SQL is the code's own.
async fn explain_on(c: &mut PgConnection, sql: &'static str) -> sqlx::Result<String> {
    let mut transaction = c.begin().await?;
    let parameters = match (&mut *transaction).prepare(SqlStr::from_static(sql)).await?.parameters() {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(count)) => count,
        None => 0,
    };
    let nulls = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    for sql in
        ["SET LOCAL plan_cache_mode = force_generic_plan".to_owned(), format!("PREPARE octo_plan AS {sql}")]
    {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
    }
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE octo_plan{arguments}"));
    let lines: Vec<String> =
        sqlx::query_scalar(explain).persistent(false).fetch_all(&mut *transaction).await?;
    sqlx::raw_sql("DEALLOCATE octo_plan").execute(&mut *transaction).await?;
    transaction.rollback().await?;
    Ok(lines.join("\n"))
}
