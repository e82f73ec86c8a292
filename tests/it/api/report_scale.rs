//! The reports of `cargo bench --bench reports` among the clicks of 30 days: whatever sums they are read from, they say what the facts
//! say.

use chrono::{NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    harness::{Octo, PrivatePostgres, api::answer, is_long, migrate},
    traffic::{DAYS, GENERATE, REPORTS, of_facts},
};

/// Counting the sums of a click takes about a tenth of a millisecond.
fn clicks() -> i32 {
    if is_long() { 1_000_000 } else { 150_000 }
}

/// How long reports are, and in which time zone: those of few days because facts are read each time.
const RANGES: [(i32, Tz); 3] = [(DAYS, Tz::UTC), (3, Tz::Europe__Berlin), (3, Tz::Asia__Kolkata)];

/// Where they are read, range by range.
const SOURCES: &[(&str, [&str; 3])] = &[
    ("overview", ["dimension", "dimension", "dimension"]),
    ("overview by day", ["dimension", "dimension", "dimension"]),
    ("campaigns", ["dimension", "dimension", "dimension"]),
    ("country", ["dimension", "dimension", "dimension"]),
    ("browser", ["dimension", "dimension", "dimension"]),
    ("path", ["dimension", "dimension", "dimension"]),
    ("country, os", ["cube", "cube", "cube"]),
    ("path, os", ["cube", "cube", "cube"]),
    ("of one campaign: country", ["dimension", "dimension", "dimension"]),
    ("of one campaign: day, offer", ["dimension", "dimension", "dimension"]),
    ("of one campaign: country, device, offer", ["cube", "cube", "cube"]),
    ("of one campaign: day, path, os", ["cube", "cube", "cube"]),
];

/// Days of clicks, and their sums.
async fn fill(postgres: &PrivatePostgres, end: NaiveDate) {
    let mut admin = postgres.admin().await;
    sqlx::raw_sql(GENERATE).execute(&mut admin).await.unwrap();
    for back in 1..=DAYS {
        let day = end - TimeDelta::days(back.into());
        let make = sqlx::query("SELECT bench.make_day($1, $2)").bind(day).bind(clicks() / DAYS);
        make.execute(&mut admin).await.unwrap();
        sqlx::query("SELECT octo_recount_day($1)").bind(day).execute(&mut admin).await.unwrap();
    }
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut admin).await.unwrap();
}

async fn report(octo: &Octo, token: &str, mut question: Value) -> Value {
    question["limit"] = json!(10_000);
    let (status, report) = answer(octo.api(token).post("/reports").json(&question)).await;
    assert_eq!(status, StatusCode::OK, "{question}: {report}");
    assert_eq!(report["has_more"], false, "{question}");
    report
}

/// What a report says, row by row; what it is not about itself.
fn said(report: &Value) -> Vec<String> {
    let rows = report["rows"].as_array().expect("rows").iter();
    let mut said: Vec<String> = rows.map(|row| format!("{} {}", row["keys"], row["figures"])).collect();
    said.sort_unstable(); // of equals each source has its own order
    said.push(format!("in total {}", report["totals"]));
    said
}

#[tokio::test]
async fn reports_of_a_month_say_what_the_facts_say_whatever_sums_they_are_read_from() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let end = Utc::now().date_naive();
    fill(&postgres, end).await;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    let token = octo.admin_token().await;
    for (asked, (name, sources)) in REPORTS.iter().zip(SOURCES) {
        assert_eq!(asked.name, *name);
        for ((days, tz), source) in RANGES.into_iter().zip(sources) {
            let question = asked.question(end, days, tz);
            let (of_sums, of_facts) = tokio::join!(
                report(&octo, &token, question.clone()),
                report(&octo, &token, of_facts(question))
            );
            assert_eq!(said(&of_sums), said(&of_facts), "{name} {tz}");
            assert_eq!(of_sums["source"], *source, "{name} {tz}");
            assert_eq!(of_facts["source"], "raw", "{name} {tz}");
        }
    }
    assert_eq!(REPORTS.len(), SOURCES.len());
}
