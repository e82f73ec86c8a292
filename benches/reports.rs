//! Reports: what they cost among the clicks of 30 days, in one PostgreSQL with `fsync` on, asked through the API of a real octo.
//!
//! `cargo bench --bench reports`. Fills 30 days with traffic of usual shape (`benches/reports/generate.sql`; `OCTO_BENCH_CLICKS` says how
//! many clicks, 1,000,000 unless it does) and counts each day's sums from its facts; of more than `OCTO_BENCH_RAW_DAYS` days the
//! sums of the last are copied, which is enough for all questions that read sums alone. 100,000,000 clicks with three raw days take
//! about 23 GB and half an hour.
//!
//! Each question is asked in UTC, Europe/Berlin and Asia/Kolkata, first once, then ten times, one request after the other. The CPU is
//! PostgreSQL's for one report. "facts" are the same questions with a filter that holds for every click and that no sum knows.
//!
//! - `cargo bench --bench reports -- export`: what octo holds in memory while it streams all of the clicks, and while it writes
//!   them to a file.
//! - `cargo bench --bench reports -- replica`: what reports cost the primary with and without a replica, beside clicks.
//! - `cargo bench --bench reports -- screens`: how long pages of the dashboard take, among 10,000 campaigns.

use std::{
    env,
    time::{Duration, Instant},
};

use chrono::{NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use reqwest::Method;
use serde_json::Value;
use sqlx::PgConnection;

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
#[path = "reports/export.rs"]
mod export;
#[path = "reports/replica.rs"]
mod replica;
#[path = "reports/screens.rs"]
mod screens;
mod support;

use it::harness::{
    Octo, PrivatePostgres, migrate,
    traffic::{Asked, DAYS, GENERATE, OF_FACTS, REPORTS, of_facts},
};
use support::{micros, percentile_ms};

const CLICKS: i32 = 1_000_000;
const ROUNDS: u32 = 10;
const ZONES: [Tz; 3] = [Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Kolkata];

const SIZES: &str = "
SELECT name, sum(rows)::bigint, sum(bytes)::bigint
FROM (
    SELECT regexp_replace(relname, '_[0-9]{8}$|_default$', '') AS name, greatest(reltuples, 0) AS rows, pg_total_relation_size(oid) AS bytes
    FROM pg_class
    WHERE relkind = 'r'
      AND relnamespace = 'public'::regnamespace
) tables
WHERE name ~ '^(report_|clicks|out_click|conversion)'
GROUP BY name
HAVING sum(rows) > 0
ORDER BY 3 DESC";

struct Bench {
    postgres: PrivatePostgres,
    octo: Octo,
    client: reqwest::Client,
    token: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let mode = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    match mode.as_deref() {
        Some("export") => export::measure().await,
        Some("replica") => replica::compare().await,
        Some("screens") => screens::measure().await,
        _ => ask_all().await,
    }
}

/// A number from the environment.
fn number(name: &str, default: i32) -> anyhow::Result<i32> {
    Ok(env::var(name).map_or(Ok(default), |text| text.parse())?)
}

/// A PostgreSQL with the traffic in it, and the day behind its last.
async fn filled() -> anyhow::Result<(PrivatePostgres, NaiveDate)> {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let end = Utc::now().date_naive();
    let (clicks, raw_days) = (number("OCTO_BENCH_CLICKS", CLICKS)?, number("OCTO_BENCH_RAW_DAYS", DAYS)?);
    fill(&mut postgres.admin().await, clicks / DAYS, raw_days.clamp(1, DAYS), end).await?;
    Ok((postgres, end))
}

async fn ask_all() -> anyhow::Result<()> {
    let (postgres, end) = filled().await?;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    let (client, token) = (octo.client(), octo.admin_token().await);
    let bench = Bench { postgres, octo, client, token };
    println!(
        "{:<42} {:<14} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}",
        "", "", "source", "first ms", "p50 ms", "CPU ms", "goal", "rows"
    );
    for asked in REPORTS {
        for tz in ZONES {
            bench.ask(asked, &asked.question(end, DAYS, tz), tz.name(), Some(asked.goal)).await?;
        }
    }
    for asked in REPORTS {
        let question = asked.question(end, 1, Tz::UTC);
        bench.ask(asked, &question, "one day", None).await?;
        bench.ask(asked, &of_facts(question), "one day", None).await?;
    }
    bench.ask(&OF_FACTS, &OF_FACTS.question(end, 1, Tz::UTC), "one day", Some(OF_FACTS.goal)).await
}

/// Days of clicks and their sums, the last one first.
async fn fill(c: &mut PgConnection, clicks: i32, raw_days: i32, end: NaiveDate) -> anyhow::Result<()> {
    sqlx::raw_sql(GENERATE).execute(&mut *c).await?;
    let (mut made, mut counted, mut copied) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let last = end - TimeDelta::days(1);
    for back in 0..DAYS {
        let day = last - TimeDelta::days(back.into());
        let start = Instant::now();
        if back < raw_days {
            sqlx::query("SELECT bench.make_day($1, $2)").bind(day).bind(clicks).execute(&mut *c).await?;
            made += start.elapsed();
            let start = Instant::now();
            sqlx::query("SELECT octo_recount_day($1)").bind(day).execute(&mut *c).await?;
            counted += start.elapsed();
        } else {
            let copy = sqlx::query("SELECT bench.copy_day($1, $2, NULL)").bind(last).bind(day);
            copy.execute(&mut *c).await?;
            copied += start.elapsed();
        }
    }
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut *c).await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut *c).await?;
    let a_day = |all: Duration| all.as_secs_f64() / f64::from(raw_days);
    println!(
        "{clicks} clicks a day, {raw_days} days of them raw: made in {:.1} s a day, sums counted in {:.1} s a day, others copied in {:.0} s",
        a_day(made),
        a_day(counted),
        copied.as_secs_f64()
    );
    let sizes: Vec<(String, i64, i64)> = sqlx::query_as(SIZES).fetch_all(&mut *c).await?;
    println!("{:<36} {:>12} {:>14} {:>12} {:>14}", "", "rows", "bytes", "bytes a row", "bytes a click");
    for (name, rows, bytes) in sizes {
        let is_raw = !name.starts_with("report_");
        let of = f64::from(clicks) * f64::from(if is_raw { raw_days } else { DAYS });
        let bytes_f = bytes as f64;
        println!("{name:<36} {rows:>12} {bytes:>14} {:>12.0} {:>14.1}", bytes_f / rows as f64, bytes_f / of);
    }
    Ok(())
}

impl Bench {
    async fn ask(&self, asked: &Asked, question: &Value, of: &str, goal: Option<u32>) -> anyhow::Result<()> {
        let (first, report) = self.report(question).await?;
        let cpu = support::cpu_of_tree(self.postgres.pid());
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(micros(self.report(question).await?.0));
        }
        times.sort_unstable();
        let cpu = support::cpu_of_tree(self.postgres.pid()).saturating_sub(cpu).as_secs_f64() * 1e3
            / f64::from(ROUNDS);
        println!(
            "{:<42} {of:<14} {:>9} {:>9.1} {:>9.1} {cpu:>9.0} {:>7} {:>6}",
            asked.name,
            report["source"].as_str().unwrap_or_default(),
            first.as_secs_f64() * 1e3,
            percentile_ms(&times, 50),
            goal.map_or_else(String::new, |goal| goal.to_string()),
            report["rows"].as_array().map_or(0, Vec::len)
        );
        Ok(())
    }

    /// One answer, and how long it took to its last byte.
    async fn report(&self, question: &Value) -> anyhow::Result<(Duration, Value)> {
        let start = Instant::now();
        let request = self.client.request(Method::POST, self.octo.url("/api/v1/reports"));
        let response = request.bearer_auth(&self.token).json(question).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let took = start.elapsed();
        anyhow::ensure!(status.is_success(), "{question}: {status} {}", String::from_utf8_lossy(&body));
        Ok((took, serde_json::from_slice(&body)?))
    }
}
