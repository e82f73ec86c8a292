//! Every statement of the code is one that the migrated schema understands; and how the schema gets there.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, Executor};

use octo::db;

use crate::harness::Database;

#[tokio::test]
async fn every_statement_prepares_against_the_migrated_schema() {
    let database = Database::create("statements").await;
    let pool = database.pool().await;
    let mut names = BTreeSet::new();
    for statement in db::statements() {
        let (name, sql) = (statement.name(), statement.sql());
        let prepared = pool.prepare(sqlx::SqlStr::from_static(sql)).await;
        assert!(prepared.is_ok(), "{name}: {}", prepared.err().map(|e| e.to_string()).unwrap_or_default());
        assert!(names.insert(name), "{name} is not a name of its own");
    }
    assert!(names.len() > 25, "only {} statements", names.len());
    let broken = pool
        .prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(
            "SELECT no_such_column FROM clicks".to_owned(),
        )))
        .await;
    assert!(broken.is_err(), "the check itself works");
}

#[tokio::test]
async fn migrations_run_once_and_status_tells_what_is_pending() {
    let database = Database::create("migrate").await;
    let pool = database.pool().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&pool).await.unwrap();
    let octo = crate::harness::Octo::builder().database_url(database.url());
    let status = octo.run(&["migrate", "status"]).await;
    assert_eq!(status.status.code(), Some(1), "something is pending");
    assert!(String::from_utf8_lossy(&status.stdout).contains("0001  pending  create campaigns"));
    assert!(
        String::from_utf8_lossy(&octo.run(&["migrate", "plan"]).await.stdout).contains("CREATE TABLE clicks")
    );
    for _ in 0..2 {
        assert!(octo.run(&["migrate"]).await.status.success());
    }
    let status = octo.run(&["migrate", "status"]).await;
    assert!(status.status.success() && !String::from_utf8_lossy(&status.stdout).contains("pending"));
}
