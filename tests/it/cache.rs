//! Campaigns in memory: other nodes hear of changes, by notification and by polling; Redis is asked on a miss.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::{
    harness::{Database, Octo, eventually},
    tracker::{OFFER, SOON, Tracker},
};

#[tokio::test]
async fn another_node_obeys_a_pause_within_a_second() {
    let tracker = Tracker::start_with("cache_nodes", |b| b.env("OCTO_CACHE__POLL_INTERVAL_S", "60")).await;
    let campaign = tracker.simple_campaign("demo").await;
    let url = tracker.database.url();
    let other = Octo::builder().database_url(url).env("OCTO_CACHE__POLL_INTERVAL_S", "60").start().await;
    assert_eq!(other.get("/click?cid=demo").await.status(), 302);
    let id = campaign["id"].as_str().unwrap();
    let start = Instant::now();
    let paused = tracker.api(Method::POST, &format!("/campaigns/{id}/pause")).send().await.unwrap();
    assert_eq!(paused.status(), 200);
    assert_eq!(tracker.octo.get("/click?cid=demo").await.status(), 404, "this node at once");
    eventually(Duration::from_secs(3), async || {
        anyhow::ensure!(other.get("/click?cid=demo").await.status() == 404);
        Ok(())
    })
    .await;
    println!("the other node obeyed after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_change_made_by_hand_is_seen_and_a_deletion_too() {
    let tracker = Tracker::start("cache_by_hand").await;
    tracker.simple_campaign("demo").await;
    sqlx::raw_sql("UPDATE offers SET url = 'https://changed.example/'").execute(&tracker.pool).await.unwrap();
    eventually(SOON, async || {
        let location = crate::tracker::header(&tracker.octo.get("/click?cid=demo").await, "location");
        anyhow::ensure!(location == "https://changed.example/", "{location}");
        Ok(())
    })
    .await;
    sqlx::raw_sql("DELETE FROM campaigns").execute(&tracker.pool).await.unwrap();
    eventually(SOON, async || {
        anyhow::ensure!(tracker.octo.get("/click?cid=demo").await.status() == 404);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_not_in_memory_is_found_in_redis_and_garbage_there_is_a_miss() {
    let database = Database::create("cache_redis").await;
    let start = || Octo::builder().database_url(database.url()).redis_url(database.redis_url()).start();
    let octo = start().await;
    let token = octo.admin_token().await;
    let create = async |key: &str| {
        let body = json!({ "key": key, "name": key, "offers": [{ "name": "o", "url": OFFER }] });
        let request = octo.client().post(octo.url("/api/v1/campaigns")).bearer_auth(&token).json(&body);
        assert_eq!(request.send().await.unwrap().status(), 201);
    };
    create("one").await;
    let mut redis =
        redis::Client::open(database.redis_url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let value: String = redis::cmd("GET").arg("campaign:one").query_async(&mut redis).await.unwrap();
    let ttl: i64 = redis::cmd("TTL").arg("campaign:one").query_async(&mut redis).await.unwrap();
    assert!((3200..=3960).contains(&ttl), "{ttl}");
    // a key that only Redis knows
    let renamed = value.replace("\"key\":\"one\"", "\"key\":\"ghost\"");
    let _: () = redis::cmd("SET").arg("campaign:ghost").arg(renamed).query_async(&mut redis).await.unwrap();
    assert_eq!(octo.get("/click?cid=ghost").await.status(), 302);
    for garbage in ["", "{", "[]", "{\"schema\":99}"] {
        let _: () =
            redis::cmd("SET").arg("campaign:junk").arg(garbage).query_async(&mut redis).await.unwrap();
        assert_eq!(octo.get("/click?cid=junk").await.status(), 404);
    }
    let _: () = redis::cmd("LPUSH").arg("campaign:list").arg("x").query_async(&mut redis).await.unwrap();
    assert_eq!(octo.get("/click?cid=list").await.status(), 404);
    assert_eq!(octo.get("/click?cid=one").await.status(), 302);
}
