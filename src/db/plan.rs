//! The plan of a statement, for people: how Postgres would run it with any values. No value is in it.

use sqlx::{AssertSqlSafe, Either, Executor as _, SqlStr, Statement as _};

use super::{Statement, session::Session};

/// What is run to explain one is that one and not its own: it is not in the list.
pub(super) const EXPLAIN: Statement = Statement::new("plan.explain", "EXPLAIN EXECUTE octo_plan");

/// The generic plan of a statement, as EXPLAIN writes it.
///
/// EXPLAIN (GENERIC_PLAN) came with PostgreSQL 16; a prepared statement with forced generic plan says the same.
/// All of this SQL is the code's own.
pub(super) async fn explain(c: &mut Session<'_>, statement: Statement) -> sqlx::Result<String> {
    let sql = statement.sql();
    if sql.starts_with("SET ") {
        return Ok("SET has no plan".to_owned());
    }
    let mut transaction = c.begin().await?;
    let parameters = match (&mut **transaction).prepare(SqlStr::from_static(sql)).await?.parameters() {
        Some(Either::Left(types)) => types.len(),
        Some(Either::Right(count)) => count,
        None => 0,
    };
    let nulls = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    for sql in
        ["SET LOCAL plan_cache_mode = force_generic_plan".to_owned(), format!("PREPARE octo_plan AS {sql}")]
    {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **transaction).await?;
    }
    let explain = AssertSqlSafe(format!("EXPLAIN EXECUTE octo_plan{arguments}"));
    let lines: Vec<String> =
        sqlx::query_scalar(explain).persistent(false).fetch_all(&mut **transaction).await?;
    sqlx::raw_sql("DEALLOCATE octo_plan").execute(&mut **transaction).await?;
    transaction.rollback().await?;
    Ok(lines.join("\n"))
}
