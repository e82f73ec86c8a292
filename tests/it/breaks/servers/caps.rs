//! Caps on two nodes under load, whose stores and processes are killed: what goes over is bounded, and a cap holds.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{Database, PrivatePostgres, PrivateRedis, eventually, migrate},
    load::send_all,
    nodes::Node,
    tracker::{SOON, header},
};

const LIMIT: i64 = 100;

/// Clicks a second at both nodes together.
const RATE: i64 = 500;

/// What counts is at most this old (`caps.share_interval_ms` is 250), with the way to the store and back.
const LAG_S: i64 = 1;

const CLICK: &[u8] = b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\nUser-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0\r\n\r\n";

fn campaign(limit: i64) -> Value {
    let caps = json!([{"of": "clicks", "limit": limit, "per": "total"}]);
    json!({
        "key": "demo", "name": "demo", "fallback_url": "https://fallback.example/",
        "offers": [{"name": "o", "url": "https://offer.example/", "caps": caps}],
    })
}

/// Clicks at half the rate for a time.
async fn click_on(address: SocketAddr, time: Duration) -> usize {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(40));
    let mut sent = 0;
    while start.elapsed() < time {
        ticks.tick().await;
        let answers = send_all(address, vec![CLICK.to_vec(); 10], 2).await;
        assert!(answers.iter().all(|answer| answer.status == 302));
        sent += answers.len();
    }
    sent
}

/// Valid clicks that went to the offer, of so many stored.
async fn taken(pool: &PgPool, all: usize) -> i64 {
    eventually(SOON * 3, async || {
        let sql =
            "SELECT count(*) FILTER (WHERE is_valid AND campaign_offer_id IS NOT NULL), count(*) FROM clicks";
        let (taken, stored): (i64, i64) = sqlx::query_as(sql).fetch_one(pool).await?;
        anyhow::ensure!(stored == i64::try_from(all)?, "{stored} of {all} are stored");
        Ok(taken)
    })
    .await
}

async fn hold_a_cap(case: &str, database: &Database, redis: Option<&str>) {
    let start = async || {
        let url = database.url();
        Node::start(&url, |builder| match redis {
            Some(url) => builder.redis_url(url),
            None => builder,
        })
        .await
    };
    let (mut one, other) = (start().await, start().await);
    one.octo.api(&one.token).create(&campaign(LIMIT)).await;
    other.wait_click("demo", 302).await;
    let pool = database.pool().await;

    let time = Duration::from_secs(3);
    let begin = Instant::now();
    let (a, b) = tokio::join!(click_on(one.octo.addr(), time), click_on(other.octo.addr(), time));
    let rate = (a + b) as f64 / begin.elapsed().as_secs_f64();
    let sent = 1 + a + b;
    let over = taken(&pool, sent).await - LIMIT;
    // each node counts its share, rounded up, as soon as it has heard of all
    let counted = eventually(SOON, async || {
        let series = "octo_cap_overshoot_total";
        let counted = one.octo.metric(series).await + other.octo.metric(series).await;
        let counted = i64::try_from(counted)?;
        anyhow::ensure!((over..=over + 2).contains(&counted), "{counted} counted, {over} over");
        Ok(counted)
    })
    .await;
    println!(
        "{case}: {sent} clicks, {rate:.0} a second, cap {LIMIT}: {over} over, octo_cap_overshoot_total {counted}"
    );
    assert!((0..=RATE * LAG_S).contains(&over), "{over} over");

    one.octo.kill9().await;
    one.octo.start_again().await;
    let again = click_on(one.octo.addr(), Duration::from_millis(400)).await;
    let after = taken(&pool, sent + again).await - LIMIT;
    println!("{case}: after kill -9 and {again} clicks more: {after} over");
    assert_eq!(after, over, "a restart lets nobody in");

    // nor where its file is lost: then the store says what was counted
    one.octo.kill9().await;
    std::fs::remove_file(one.octo.data_dir().join("caps.json")).unwrap();
    one.octo.start_again().await;
    let first = click_on(one.octo.addr(), Duration::from_millis(20)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let again = again + first + click_on(one.octo.addr(), Duration::from_millis(400)).await;
    let after = taken(&pool, sent + again).await - LIMIT;
    println!("{case}: after kill -9 without the file: {after} over");
    assert!(after <= over + i64::try_from(first).unwrap(), "{after}");
}

#[tokio::test]
async fn two_nodes_hold_a_cap_together_by_way_of_redis() {
    let database = Database::create("caps_redis").await;
    let redis = PrivateRedis::start().await;
    hold_a_cap("Redis", &database, Some(&redis.url())).await;
}

#[tokio::test]
async fn two_nodes_hold_a_cap_together_by_way_of_postgres() {
    let database = Database::create("caps_postgres").await;
    hold_a_cap("PostgreSQL only", &database, None).await;
}

/// How many of so many clicks go to the offer.
async fn let_in(node: &Node, clicks: usize) -> usize {
    let mut count = 0;
    for _ in 0..clicks {
        let response = node.octo.get("/click?cid=demo").await;
        assert_eq!(response.status(), 302);
        count += usize::from(header(&response, "location") == "https://offer.example/");
    }
    count
}

async fn used(node: &Node) -> i64 {
    node.show("/campaigns/demo/caps").await["data"][0]["used"].as_i64().unwrap()
}

#[tokio::test]
async fn without_stores_each_node_holds_its_own_cap_and_the_sum_is_right_afterwards() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut redis = PrivateRedis::start().await;
    let start = async || Node::start(&postgres.url(), |builder| builder.redis_url(redis.url())).await;
    let (mut one, other) = (start().await, start().await);
    one.octo.api(&one.token).create(&campaign(20)).await;
    other.wait_click("demo", 302).await;
    eventually(SOON, async || {
        anyhow::ensure!((used(&one).await, used(&other).await) == (1, 1));
        Ok(())
    })
    .await;

    redis.kill9().await;
    postgres.stop_fast().await;
    assert_eq!(let_in(&one, 30).await, 19);
    assert_eq!(let_in(&other, 30).await, 19);
    // what was counted without any store is not lost by a crash
    tokio::time::sleep(Duration::from_secs(1)).await;
    one.octo.kill9().await;
    one.octo.start_again().await;
    assert_eq!(let_in(&one, 10).await, 0);

    // Redis comes back empty, and neither it nor PostgreSQL knows anything of this
    redis.start_again().await;
    postgres.start_again().await;
    for node in [&one, &other] {
        eventually(SOON * 2, async || {
            let used = used(node).await;
            anyhow::ensure!(used == 39, "{used}");
            Ok(())
        })
        .await;
    }
    assert_eq!((let_in(&one, 5).await, let_in(&other, 5).await), (0, 0));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((used(&one).await, used(&other).await), (39, 39), "exactly once");
}
