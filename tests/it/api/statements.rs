//! Every statement of the code is in one list, runs under its name, and is one that the migrated schema understands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use regex::Regex;
use sqlx::{AssertSqlSafe, Executor};

use octo::db;

use crate::harness::Database;

#[tokio::test]
async fn every_statement_prepares_against_the_migrated_schema() {
    let database = Database::create("statements").await;
    let pool = database.pool().await;
    let is_name = regex(r"^[a-z_]+\.[a-z_]+$");
    let mut names = BTreeSet::new();
    for (name, sql) in db::statements() {
        let prepared = pool.prepare(sqlx::SqlStr::from_static(sql)).await;
        assert!(prepared.is_ok(), "{name}: {}", prepared.err().map(|e| e.to_string()).unwrap_or_default());
        assert!(is_name.is_match(name) && names.insert(name), "{name} is not a name of its own");
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

/// A file of the code, without its comments and unit tests.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// What the pattern's one group holds, wherever it matches.
    fn all(&self, pattern: &Regex) -> BTreeSet<&str> {
        pattern.captures_iter(&self.text).map(|c| c.extract::<1>().1[0]).collect()
    }
}

fn sources() -> Vec<Source> {
    fn read(directory: &Path, into: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
                // nor what gives the list's statements to sqlx: `query(sql: &'static str)` of db.rs
                let lines = code.lines().filter(|line| {
                    let line = line.trim_start();
                    !line.starts_with("//")
                        && !line.contains("sql: &'static str")
                        && !line.contains("(sql).persistent")
                });
                let text = lines.collect::<Vec<_>>().join("\n");
                into.push(Source { path: path.display().to_string(), text });
            }
        }
    }
    let mut sources = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    assert!(sources.len() > 60, "only {} files", sources.len());
    sources
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// The list is whole: what is not in it is not run, but for COPY (see [`db::UNPREPARED`]).
#[test]
fn no_sql_is_run_that_is_not_in_the_list() {
    let call = regex(
        r"(?:sqlx|super|self|crate::db)::(?:query|query_as|query_scalar|raw_sql)!?\s*(?:::<[^(]*>)?\(\s*([^),]*)",
    );
    let constant = regex("^[A-Z_]+$");
    let (listed_name, listed_constant) =
        (regex(r#"\("([a-z_]+\.[a-z_]+)",\s*[A-Z_]+\)"#), regex(r#"\("[a-z_]+\.[a-z_]+",\s*([A-Z_]+)\)"#));
    let copy = regex(r"\.(copy_(?:in|out)_raw)\(");
    let past_the_list = [
        regex(r"(use sqlx::[^;]*\b(?:query\w*|raw_sql)\b)"),
        regex(r#"(\.(?:execute\w*|fetch\w*|prepare\w*|describe|copy_in_raw|copy_out_raw)\(\s*")"#),
        regex(r"(QueryBuilder|AssertSqlSafe)"),
    ];
    let mut names = BTreeSet::new();
    for source in &sources() {
        let path = &source.path;
        if path.ends_with("src/db/plan.rs") {
            continue; // it explains what is in the list
        }
        let called = source.all(&call);
        for argument in &called {
            assert!(constant.is_match(argument), "{path}: query({argument}) takes no constant of the list");
        }
        assert_eq!(called, source.all(&listed_constant), "{path}: what is run, and what is in STATEMENTS");
        for pattern in &past_the_list {
            assert_eq!(source.all(pattern), BTreeSet::new(), "{path}: SQL past the list");
        }
        assert!(source.all(&copy).is_empty() || path.ends_with("src/db/ingest.rs"), "{path}: a COPY");
        names.extend(source.all(&listed_name).into_iter().map(str::to_owned));
    }
    let known: BTreeSet<String> = db::statements().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(known, names, "db::statements() holds the STATEMENTS of every module");
}

#[test]
fn every_statement_runs_under_its_own_name() {
    let known: BTreeSet<&str> =
        db::statements().map(|(name, _)| name).chain(db::UNPREPARED.iter().map(|(name, _)| *name)).collect();
    let measured =
        regex(r#"\b(?:read|write|run|observe|measure|part)\(\s*(?:&?\w+,\s*)?"([a-z_]+\.[a-z_]+)""#);
    let mention = regex(r#""([a-z_]+\.[a-z_]+)""#);
    let mut mentions = BTreeMap::<String, usize>::new();
    for source in sources() {
        for name in source.all(&measured) {
            assert!(known.contains(name), "{}: {name} is not in the list", source.path);
        }
        for name in mention.captures_iter(&source.text) {
            *mentions.entry(name[1].to_owned()).or_default() += 1;
        }
    }
    let unused: Vec<_> = known.iter().filter(|name| mentions[**name] < 2).collect();
    assert!(unused.is_empty(), "listed, and never a name that is measured: {unused:?}");
}
