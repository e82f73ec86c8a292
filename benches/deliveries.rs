//! Postbacks out: deliveries a second from the outbox to a receiver on loopback that answers at once.
//!
//! `cargo bench --bench deliveries`. One octo, one PostgreSQL with `fsync` on, one target; the outbox is filled while the
//! target is paused, then it is resumed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use reqwest::Method;
use serde_json::{Value, json};

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod support;

use it::harness::{Octo, PrivatePostgres, free_address, migrate};

const DELIVERIES: i32 = 20_000;
const GOAL_PER_S: f64 = 500.0;
const LIMIT: Duration = Duration::from_mins(5);

/// A click and a delivery each; what is read beside them may be missing.
const FILL: &str = "
WITH click AS (
    INSERT INTO clicks (id, campaign_id, is_valid, is_bot, click_id_param, created_at, updated_at)
    SELECT gen_random_uuid(), gen_random_uuid(), true, false, 'external ' || i, now(), now()
    FROM generate_series(1, $1::integer) AS i
    RETURNING id, campaign_id, created_at
)
INSERT INTO deliveries (
    id, target_id, campaign_id, conversion_id, click_id, change, goal, kind, payout, currency, changed_at, state, created_at
)
SELECT
    gen_random_uuid(), $2, campaign_id, gen_random_uuid(), id, 'approved', '', 'conversion', 1.5, 'USD', now(), 'pending',
    created_at
FROM click";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let router = Router::new().fallback(async move || {
        counter.fetch_add(1, Ordering::Relaxed);
        "OK"
    });
    let listener = tokio::net::TcpListener::bind(free_address()).await?;
    let address = listener.local_addr()?;
    #[expect(clippy::disallowed_methods, reason = "the receiver ends with the bench")]
    tokio::spawn(async move { axum::serve(listener, router).await });

    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder()
        .database_url(postgres.url())
        .env("OCTO_DELIVERIES__ALLOWED_NETWORKS", "127.0.0.0/8")
        .start()
        .await;
    let token = octo.admin_token().await;
    let ask = async |method: Method, path: &str, body: Value| -> anyhow::Result<Value> {
        let request = octo.client().request(method, octo.url(&format!("/api/v1{path}"))).bearer_auth(&token);
        Ok(request.json(&body).send().await?.error_for_status()?.json().await?)
    };
    let url =
        format!("http://{address}/postback?id={{external_click_id}}&payout={{payout}}&d={{delivery_id}}");
    let target = ask(Method::POST, "/postback-targets", json!({ "name": "bench", "url": url })).await?;
    let path = format!("/postback-targets/{}", target["id"]);
    ask(Method::POST, &format!("{path}/pause"), json!({})).await?;
    let pool = postgres.pool().await;
    sqlx::query(FILL).bind(DELIVERIES).bind(target["id"].as_i64()).execute(&pool).await?;
    sqlx::query("VACUUM ANALYZE").execute(&pool).await?;

    let start = Instant::now();
    ask(Method::POST, &format!("{path}/resume"), json!({})).await?;
    let all = i64::from(DELIVERIES);
    loop {
        let sql = "SELECT count(*) FROM deliveries WHERE state = 'delivered'";
        let delivered: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await?;
        if delivered == all {
            break;
        }
        anyhow::ensure!(start.elapsed() < LIMIT, "{delivered} of {all} after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = start.elapsed().as_secs_f64();
    let asked = count.load(Ordering::Relaxed);
    let per_s = f64::from(DELIVERIES) / took;
    println!(
        "{DELIVERIES} deliveries in {took:.1} s: {per_s:.0} a second (goal: {GOAL_PER_S}), {asked} requests"
    );
    Ok(())
}
