//! Reading: the API's answers among ten million clicks over 30 days, in one PostgreSQL with `fsync` on.
//!
//! `cargo bench --bench queries`. Fills 30 day partitions (`OCTO_BENCH_ROWS` sets how many clicks; about 5 GB on disk
//! and some minutes), a fifth as many events, and the roll-ups of 1,000 campaigns: one has half of the clicks, one has
//! one click in 100,000, the others share the rest evenly. Then one client asks each endpoint 300 times over HTTP, one
//! request after the other; the first answer, which finds nothing in PostgreSQL's caches, is shown by itself.

use std::{
    env,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod support;

use it::harness::{DAY_PARTITIONS, Octo, PrivatePostgres, migrate};
use support::{FILL_CLICKS, micros, percentile_ms};

const ROWS: i64 = 10_000_000;
const FILL_ROWS: i64 = 500_000;
const REQUESTS: usize = 300;
const GOAL_MS: f64 = 50.0;

/// One for every fifth click, a minute after it.
const FILL_EVENTS: &str = "
INSERT INTO events (id, click_id, campaign_id, event_type, event_data, url, created_at)
SELECT gen_random_uuid(), id, campaign_id, 'page_view', '{\"total\": 9.5}', 'https://shop.example/', created_at
FROM (SELECT *, row_number() OVER () AS n FROM clicks WHERE created_at >= $1 AND created_at < $2) k
WHERE n % 5 = 0";

const FILL_ROLL_UPS: &str = "
INSERT INTO campaign_stats_hourly (campaign_id, hour, clicks, valid_clicks, bot_clicks)
SELECT
    campaign_id, date_trunc('hour', created_at, 'UTC'), count(*), count(*) FILTER (WHERE is_valid),
    count(*) FILTER (WHERE is_bot)
FROM clicks
GROUP BY 1, 2";

struct Bench {
    octo: Octo,
    client: reqwest::Client,
    token: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let rows = match env::var("OCTO_BENCH_ROWS") {
        Ok(text) => text.parse()?,
        Err(_) => ROWS,
    };
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    let (client, token) = (octo.client(), octo.admin_token().await);
    let bench = Bench { octo, client, token };
    let (popular, rare) = (bench.campaign("popular").await?, bench.campaign("rare").await?);
    fill(&mut postgres.admin().await, rows, popular, rare).await?;

    let click = bench.get("/clicks?cid=rare&limit=1").await?.1["data"][0]["id"].clone();
    let of_event = bench.get("/events?limit=1").await?.1["data"][0]["click_id"].clone();
    let text = |id: &Value| id.as_str().map(str::to_owned).ok_or_else(|| anyhow::anyhow!("an id: {id}"));
    let (click, of_event) = (text(&click)?, text(&of_event)?);
    println!("{:<52} {:>8} {:>8} {:>8} {:>6}", "GET /api/v1", "first ms", "p50", "p99", "rows");
    let median = bench.ask("/campaigns/popular/stats?group_by=day").await?;
    bench.ask("/campaigns/popular/stats?group_by=hour").await?;
    bench.ask("/clicks").await?;
    bench.ask("/clicks?cid=popular").await?;
    bench.ask("/clicks?cid=rare").await?;
    bench.ask("/clicks?cid=rare&is_valid=true&limit=500").await?;
    bench.ask("/clicks?cid=rare&is_valid=false").await?;
    bench.ask(&format!("/clicks/{click}")).await?;
    bench.ask(&format!("/events?click_id={of_event}")).await?;
    bench.ask("/events").await?;
    println!("30 days of one campaign by day among {rows} clicks: {median:.1} ms (goal: {GOAL_MS})");
    Ok(())
}

impl Bench {
    async fn campaign(&self, key: &str) -> anyhow::Result<Uuid> {
        let body =
            json!({ "key": key, "name": key, "offers": [{ "name": "o", "url": "https://o.example/" }] });
        let request = self.client.request(Method::POST, self.octo.url("/api/v1/campaigns"));
        let made: Value = request.bearer_auth(&self.token).json(&body).send().await?.json().await?;
        Ok(made["id"].as_str().unwrap_or_default().parse()?)
    }

    /// One answer, and how long it took to its last byte.
    async fn get(&self, path: &str) -> anyhow::Result<(Duration, Value)> {
        let start = Instant::now();
        let request = self.client.get(self.octo.url(&format!("/api/v1{path}"))).bearer_auth(&self.token);
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let took = start.elapsed();
        anyhow::ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok((took, serde_json::from_slice(&body)?))
    }

    /// Asks again and again; prints the figures and gives the median in milliseconds.
    async fn ask(&self, path: &str) -> anyhow::Result<f64> {
        let (first, body) = self.get(path).await?;
        let rows = body["data"].as_array().map_or(1, Vec::len);
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            times.push(micros(self.get(path).await?.0));
        }
        times.sort_unstable();
        let (median, p99) = (percentile_ms(&times, 50), percentile_ms(&times, 99));
        println!("{path:<52} {:>8.1} {median:>8.1} {p99:>8.1} {rows:>6}", first.as_secs_f64() * 1e3);
        Ok(median)
    }
}

async fn fill(c: &mut PgConnection, rows: i64, popular: Uuid, rare: Uuid) -> anyhow::Result<()> {
    let start = Instant::now();
    sqlx::raw_sql(DAY_PARTITIONS).execute(&mut *c).await?;
    let end = chrono::Utc::now();
    let mut done = 0;
    while done < rows {
        let step = FILL_ROWS.min(rows - done);
        let query = sqlx::query(FILL_CLICKS).bind(rows).bind(done + 1).bind(done + step).bind(end);
        let query = query.bind(popular).bind(rare).bind(support::USER_AGENT).bind(support::REFERRER);
        query.execute(&mut *c).await?;
        done += step;
    }
    for day in 0..=30 {
        let from = end - chrono::TimeDelta::days(30 - day);
        sqlx::query(FILL_EVENTS).bind(from).bind(from + chrono::TimeDelta::days(1)).execute(&mut *c).await?;
    }
    sqlx::query(FILL_ROLL_UPS).execute(&mut *c).await?;
    sqlx::query("VACUUM ANALYZE").execute(&mut *c).await?;
    sqlx::query("CHECKPOINT").execute(&mut *c).await?;
    println!("stored {rows} clicks in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
