//! What pages of the dashboard cost among 10,000 campaigns: bytes as a browser receives them, and the time until the last of them.

use std::time::Instant;

use reqwest::{Method, StatusCode, header};
use serde_json::Value;

use crate::{
    filled,
    it::harness::Octo,
    support::{micros, percentile_ms},
};

/// Beside those that `generate.sql` makes, which have the clicks.
const CAMPAIGNS: &str = "
INSERT INTO campaigns (id, key, name, status, cost_model)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(k), 12, '0'))::uuid, 'campaign-' || k, 'campaign ' || k, 'active', 'cpa'
FROM generate_series(201, 10000) k";

/// Of each page.
const ROUNDS: u32 = 50;

/// The campaign with the most clicks.
const BUSIEST: &str = "/ui/campaigns/00000000-0000-7000-8000-000000000001";

pub(crate) async fn measure() -> anyhow::Result<()> {
    let (postgres, _) = filled().await?;
    let mut admin = postgres.admin().await;
    sqlx::raw_sql(CAMPAIGNS).execute(&mut admin).await?;
    sqlx::raw_sql("ANALYZE campaigns").execute(&mut admin).await?;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    let token = octo.admin_token().await;
    let cookie = signed_in(&octo, &token).await?;
    let asked = octo.api(&token).request(Method::POST, "/reports/facts");
    let facts: Value = asked.json(&serde_json::json!({ "limit": 1 })).send().await?.json().await?;
    let mut paths: Vec<String> = [
        "/ui",
        "/ui?range=30d",
        "/ui/campaigns",
        "/ui/campaigns?range=30d&sort=-profit",
        "/ui/campaigns?q=99",
        "/ui/report?range=30d",
        "/ui/report?range=30d&g1=country&g2=device&compare=previous",
        "/ui/report?range=30d&heat=clicks",
        "/ui/clicks?range=30d",
        "/ui/clicks?range=30d&kind=conversions",
    ]
    .map(str::to_owned)
    .into();
    paths.extend(["?range=30d", "/links", "/settings"].map(|end| format!("{BUSIEST}{end}")));
    paths.extend(facts["rows"][0]["click_id"].as_str().map(|id| format!("/ui/clicks/{id}")));
    println!("{:<62} {:>9} {:>9} {:>9} {:>9}", "", "first ms", "p50 ms", "p95 ms", "bytes");
    for path in paths {
        let mut times = Vec::new();
        let (mut first, mut bytes) = (None, 0);
        for _ in 0..=ROUNDS {
            let start = Instant::now();
            let request = octo.client().get(octo.url(&path)).header(header::COOKIE, &cookie);
            let response = request.header(header::ACCEPT_ENCODING, "gzip, deflate, br").send().await?;
            anyhow::ensure!(response.status() == StatusCode::OK, "{path}: {}", response.status());
            bytes = response.bytes().await?.len();
            let took = micros(start.elapsed());
            if first.is_none() { first = Some(took) } else { times.push(took) }
        }
        times.sort_unstable();
        println!(
            "{path:<62} {:>9.1} {:>9.1} {:>9.1} {bytes:>9}",
            f64::from(first.unwrap_or_default()) / 1e3,
            percentile_ms(&times, 50),
            percentile_ms(&times, 95)
        );
    }
    Ok(())
}

/// The cookie of a session.
async fn signed_in(octo: &Octo, token: &str) -> anyhow::Result<String> {
    let form = octo.client().post(octo.url("/ui/sign-in"));
    let form = form.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let response = form.body(format!("secret={token}&to=/ui")).send().await?;
    let cookie = response.headers().get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
    let cookie = cookie.and_then(|set| set.split(';').next());
    cookie.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("{}: no cookie", response.status()))
}
