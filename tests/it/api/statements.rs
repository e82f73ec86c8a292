//! Every statement of the code is in one list, runs under its name, and is one that the migrated schema understands.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;
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

/// Statements are values of [`db::statements`]: what is in the list is prepared, measured and explained under its name.
/// The few calls of sqlx that take a text are in the files that say what else there is.
#[test]
fn sql_is_run_by_db_alone_and_as_a_statement() {
    const MAY: [&str; 3] = ["src/db/statement.rs", "src/db/plan.rs", "tests.rs"];

    let calls = Regex::new(
        r#"(?x) \bsqlx::(?:query|query_as|query_scalar|raw_sql)!?\s*(?:::<[^(]*>)?\(
        | use\s+sqlx::[^;]*\b(?:query\w*|raw_sql)\b
        | \.(?:execute|fetch\w*|prepare\w*|describe|copy_in_raw|copy_out_raw)\(\s*"
        | QueryBuilder | AssertSqlSafe"#,
    )
    .unwrap();
    let mut files = 0;
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !MAY.iter().any(|may| path.ends_with(may))
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                let found = calls.find(code);
                assert!(found.is_none(), "{}: {found:?}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 60, "only {files} files");
    assert!(
        calls.is_match("sqlx::query(text)") && calls.is_match("c.execute(\"DELETE"),
        "the check itself works"
    );
}
