//! SQL stands where it belongs.

use std::{fs, path::Path};

use regex::Regex;

/// Statements are values of `db::statements`: what is in the list is prepared, measured and explained under its name.
/// The few calls of sqlx that take a text are in the files that say what else there is.
#[test]
fn sql_is_run_by_db_alone_and_as_a_statement() {
    const MAY: [&str; 4] = ["src/db/statement.rs", "src/db/plan.rs", "src/db/partitions.rs", "tests.rs"];

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
