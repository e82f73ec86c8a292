//! Every statement of the code is in one list, and runs under its name. `api::statements` prepares them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use octo::db;
use regex::Regex;

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
