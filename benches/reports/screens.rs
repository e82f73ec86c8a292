//! How long pages of the dashboard take a server, among 10,000 campaigns and the clicks of 30 days.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use chrono::NaiveDate;
use reqwest::{
    Client, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_LENGTH, COOKIE, SET_COOKIE},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    filled,
    it::harness::{Octo, traffic::DAYS},
    support::{micros, percentile_ms},
};

const CAMPAIGNS: i32 = 10_000;
const ROUNDS: usize = 40;
const GOAL_MS: f64 = 200.0;
const FOLDED_WITHIN: Duration = Duration::from_mins(5);

/// Campaigns `$1` to `$2`, of which nobody hears much.
const INSERT_CAMPAIGNS: &str = "
INSERT INTO campaigns (id, key, name, status, cost_model)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(k), 12, '0'))::uuid, 'campaign-' || k, 'campaign ' || k, 'active', 'cpa'
FROM generate_series($1, $2) AS k";

/// A click of each of them on a day, and what it adds to the sums.
const INSERT_CLICKS: &str = "
WITH made AS (
    INSERT INTO clicks (id, campaign_id, is_valid, is_bot, country, device, os, browser, created_at, updated_at)
    SELECT
        ('00' || substr(replace(gen_random_uuid()::text, '-', ''), 3))::uuid, id, true, false, 'DE', 'mobile', 'Android',
        'Chrome Mobile', at, at
    FROM campaigns
    CROSS JOIN LATERAL (SELECT $1::date::timestamp AT TIME ZONE 'UTC' + random() * interval '24 hours' AS at) AS t
    WHERE id > ('00000000-0000-7000-8000-' || lpad(to_hex($2), 12, '0'))::uuid
      AND id <= ('00000000-0000-7000-8000-' || lpad(to_hex($3), 12, '0'))::uuid
    RETURNING *
)
INSERT INTO report_deltas (hour, campaign_id, country, device, os, browser, clicks, valid_clicks)
SELECT date_trunc('hour', created_at, 'UTC'), campaign_id, country, device, os, browser, 1, 1
FROM made";

pub(crate) async fn measure() -> anyhow::Result<()> {
    let (postgres, end) = filled().await?;
    let mut admin = postgres.admin().await;
    let before: i64 = sqlx::query_scalar("SELECT count(*) FROM campaigns").fetch_one(&mut admin).await?;
    fill_up(&mut admin, i32::try_from(before)?, end).await?;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    let start = Instant::now();
    while sqlx::query_scalar("SELECT EXISTS (SELECT FROM report_deltas)").fetch_one(&mut admin).await? {
        ensure!(start.elapsed() < FOLDED_WITHIN, "deltas still wait");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut admin).await?;
    let campaign: Uuid = sqlx::query_scalar("SELECT id FROM campaigns WHERE key = 'campaign-17'")
        .fetch_one(&mut admin)
        .await?;
    let click: Uuid = sqlx::query_scalar("SELECT id FROM clicks WHERE campaign_id = $1 LIMIT 1")
        .bind(campaign)
        .fetch_one(&mut admin)
        .await?;
    let visitor = Visitor::signed_in(&octo).await?;
    println!(
        "{:<64} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "GET, 30 days", "first ms", "p50", "p95", "kB", "gzip kB"
    );
    let mut slowest = 0.0_f64;
    for path in screens(campaign, click) {
        slowest = slowest.max(visitor.ask(&path).await?);
    }
    println!("the slowest p95: {slowest:.1} ms (goal: {GOAL_MS})");
    Ok(())
}

async fn fill_up(c: &mut PgConnection, before: i32, end: NaiveDate) -> anyhow::Result<()> {
    sqlx::query(INSERT_CAMPAIGNS).bind(before + 1).bind(CAMPAIGNS).execute(&mut *c).await?;
    for day in end.iter_days().rev().skip(1).take(usize::try_from(DAYS)?) {
        sqlx::query(INSERT_CLICKS).bind(day).bind(before).bind(CAMPAIGNS).execute(&mut *c).await?;
    }
    Ok(())
}

fn screens(campaign: Uuid, click: Uuid) -> Vec<String> {
    let mut screens = Vec::new();
    for path in [
        "/ui",
        "/ui/campaigns",
        "/ui/campaigns?sort=-profit&page=50",
        "/ui/campaigns?q=99",
        "/ui/report?g1=country",
        "/ui/report?g1=country&g2=os",
        "/ui/report?g1=path&g2=os",
        "/ui/report?g1=day&compare=previous",
        "/ui/clicks",
    ] {
        screens.push(path.to_owned());
    }
    for end in ["", "?g1=offer&g2=country&g3=device", "?g1=sub1", "/links", "/settings"] {
        screens.push(format!("/ui/campaigns/{campaign}{end}"));
    }
    screens.push(format!("/ui/clicks/{click}"));
    for path in &mut screens {
        path.push_str(if path.contains('?') { "&range=30d" } else { "?range=30d" });
    }
    screens
}

/// Somebody who is signed in.
struct Visitor<'a> {
    octo: &'a Octo,
    client: Client,
    cookie: String,
}

impl<'a> Visitor<'a> {
    async fn signed_in(octo: &'a Octo) -> anyhow::Result<Self> {
        let (client, token) = (octo.client(), octo.admin_token().await);
        let form =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("secret", &token).finish();
        let request = client.post(octo.url("/ui/sign-in")).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.send().await?;
        ensure!(response.status() == StatusCode::SEE_OTHER, "not signed in: {}", response.status());
        let cookie = response.headers().get(SET_COOKIE).context("no cookie")?.to_str()?;
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(Self { octo, client, cookie })
    }

    /// One page, how long it took to its last byte, and how many bytes came.
    async fn page(&self, path: &str, encoding: &str) -> anyhow::Result<(Duration, usize)> {
        let start = Instant::now();
        let request = self.client.get(self.octo.url(path)).header(COOKIE, &self.cookie);
        let response = request.header(ACCEPT_ENCODING, encoding).send().await?;
        ensure!(response.status().is_success(), "{path}: {}", response.status());
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = response.bytes().await?;
        Ok((start.elapsed(), length.unwrap_or(bytes.len())))
    }

    /// Asks again and again; prints the figures and gives the 95th percentile in milliseconds.
    async fn ask(&self, path: &str) -> anyhow::Result<f64> {
        let (first, bytes) = self.page(path, "identity").await?;
        let (_, packed) = self.page(path, "gzip").await?;
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            times.push(micros(self.page(path, "identity").await?.0));
        }
        times.sort_unstable();
        let p95 = percentile_ms(&times, 95);
        println!(
            "{:<64} {:>8.1} {:>8.1} {p95:>8.1} {:>8.1} {:>8.1}",
            path.replace("00000000-0000-7000-8000-", "…"),
            first.as_secs_f64() * 1e3,
            percentile_ms(&times, 50),
            bytes as f64 / 1e3,
            packed as f64 / 1e3,
        );
        Ok(p95)
    }
}
