//! Two nodes: what is paused on one is paused on the other, whichever way it hears of it.

use std::time::{Duration, Instant};

use crate::{
    harness::{Database, PrivateRedis},
    nodes::Node,
};

/// The longest of some turns until the other node obeyed.
async fn longest_turn(one: &Node, other: &Node) -> Duration {
    other.wait_click("demo", 302).await;
    let mut longest = Duration::ZERO;
    for (verb, status) in [("pause", 404), ("resume", 302)].repeat(3) {
        one.turn("demo", verb).await;
        let start = Instant::now();
        assert_eq!(one.click("demo").await, status, "this node at once");
        other.wait_click("demo", status).await;
        longest = longest.max(start.elapsed());
    }
    longest
}

#[tokio::test]
async fn another_node_obeys_a_pause_told_by_redis_and_by_postgres() {
    let database = Database::create("hints_both").await;
    let redis = PrivateRedis::start().await;
    let one = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    one.create("demo").await;
    let other = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    let longest = longest_turn(&one, &other).await;
    println!("told by both: obeyed after {longest:?} at most");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test]
async fn another_node_obeys_a_pause_told_by_redis_alone() {
    let database = Database::create("hints_redis").await;
    let redis = PrivateRedis::start().await;
    let one = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    one.create("demo").await;
    let other = Node::start_deaf(&database.url(), |b| b.redis_url(redis.url())).await;
    let longest = longest_turn(&one, &other).await;
    println!("told by Redis alone: obeyed after {longest:?} at most");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test]
async fn another_node_obeys_a_pause_told_by_postgres_alone() {
    let database = Database::create("hints_postgres").await;
    let mut redis = PrivateRedis::start().await;
    let one = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    one.create("demo").await;
    let other = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    other.wait_click("demo", 302).await;
    redis.kill9().await;
    let longest = longest_turn(&one, &other).await;
    println!("told by PostgreSQL alone: obeyed after {longest:?} at most");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[tokio::test]
async fn another_node_obeys_a_pause_that_nobody_tells_within_the_polling_interval() {
    let database = Database::create("hints_none").await;
    let mut redis = PrivateRedis::start().await;
    let one = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    one.create("demo").await;
    let polling = |b: crate::harness::OctoBuilder| b.env("OCTO_CACHE__POLL_INTERVAL_S", "2");
    let other = Node::start_deaf(&database.url(), |b| polling(b.redis_url(redis.url()))).await;
    other.wait_click("demo", 302).await;
    redis.kill9().await;
    let longest = longest_turn(&one, &other).await;
    println!("told by nobody, polling every 2 s: obeyed after {longest:?} at most");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test]
async fn a_node_hears_again_after_redis_was_away() {
    let database = Database::create("hints_again").await;
    let mut redis = PrivateRedis::start().await;
    let one = Node::start(&database.url(), |b| b.redis_url(redis.url())).await;
    one.create("demo").await;
    let other = Node::start_deaf(&database.url(), |b| b.redis_url(redis.url())).await;
    other.wait_click("demo", 302).await;
    redis.kill9().await;
    one.turn("demo", "pause").await;
    redis.start_again().await;
    other.wait_click("demo", 404).await; // whoever hears again asks what was said meanwhile
    longest_turn_again(&one, &other).await;
}

/// The breaker of the one that speaks may still be open: until it is heard.
async fn longest_turn_again(one: &Node, other: &Node) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        one.turn("demo", "resume").await;
        one.turn("demo", "pause").await;
        one.turn("demo", "resume").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if other.click("demo").await == 302 {
            return;
        }
        assert!(Instant::now() < until, "nothing is heard any more");
    }
}
