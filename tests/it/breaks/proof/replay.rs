//! Real input: 7,000 requests of a public web site replayed as clicks, and 2,000 events, at 64 connections.

use std::collections::HashSet;

use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Octo, PrivatePostgres, eventually, migrate},
    load::{Answer, percentile, send_all},
    tracker::{OFFER, SOON, Table, Tracker, assert_roll_ups_agree},
};

const LOG: &str = include_str!("../../../data/access.log");

/// The log as requests: address through `X-Forwarded-For`, agent and referrer as they are, sub1 = the path.
pub(crate) fn clicks() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for line in LOG.lines() {
        let address = line.split(' ').next().expect("an address");
        let quoted: Vec<&str> = line.split('"').collect();
        let path = quoted.get(1).and_then(|r| r.split(' ').nth(1)).unwrap_or("-");
        let referrer = quoted.get(3).copied().unwrap_or("-");
        let agent = quoted.get(5).copied().unwrap_or("-");
        let encoded = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
        let request = format!(
            "GET /click?cid=replay&sub1={encoded} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {address}\r\nUser-Agent: {agent}\r\nReferer: {referrer}\r\n\r\n"
        );
        requests.push(request.into_bytes());
    }
    assert_eq!(requests.len(), 7000);
    requests
}

pub(crate) fn events(clicks: &[Uuid]) -> Vec<Vec<u8>> {
    let request = |id: &Uuid| {
        let body = json!({ "event_type": "view", "click_id": id, "properties": { "n": 1 } }).to_string();
        let length = body.len();
        format!("POST /event HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    };
    clicks.iter().map(request).collect()
}

pub(crate) fn ids(answers: &[Answer], status: u16) -> Vec<Uuid> {
    assert!(answers.iter().all(|a| a.status == status), "every answer is {status}");
    answers.iter().map(|a| a.id.expect("an id")).collect()
}

/// Every id that was answered is in Postgres exactly once.
pub(crate) async fn assert_stored_once(pool: &PgPool, answered: &[Uuid]) {
    let stored: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM clicks").fetch_all(pool).await.expect("clicks");
    let distinct: HashSet<&Uuid> = stored.iter().collect();
    assert_eq!(distinct.len(), stored.len(), "no click is stored twice");
    let missing = answered.iter().filter(|id| !distinct.contains(id)).count();
    assert_eq!(missing, 0, "answered clicks that are not stored");
}

fn trusting(b: crate::harness::OctoBuilder) -> crate::harness::OctoBuilder {
    b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_thousand_real_requests_and_two_thousand_events_arrive_exactly_once() {
    let tracker = Tracker::start_with("replay", trusting).await;
    tracker.simple_campaign("replay").await;
    let answers = send_all(tracker.octo.addr(), clicks(), 64).await;
    assert_eq!(answers.len(), 7000);
    let answered = ids(&answers, 302);
    let accepted = send_all(tracker.octo.addr(), events(&answered[..2000]), 64).await;
    assert_eq!(ids(&accepted, 202).len(), 2000);
    tracker.wait_rows(Table::Clicks, 7000).await;
    tracker.wait_rows(Table::Events, 2000).await;
    assert_stored_once(&tracker.pool, &answered).await;
    assert_roll_ups_agree(&tracker.pool).await;
    let (bots, countries, attributed): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM clicks WHERE is_bot), (SELECT count(*) FROM clicks WHERE country IS NOT NULL),
                (SELECT count(*) FROM events WHERE campaign_id IS NOT NULL)",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    println!(
        "7000 clicks and 2000 events: {bots} by bots, {countries} with a country, p50 {:?}, p99 {:?}",
        percentile(&answers, 0.5),
        percentile(&answers, 0.99)
    );
    assert!(bots > 1000 && countries > 6900, "{bots} bots, {countries} countries");
    assert_eq!(attributed, 2000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_octo_in_the_middle_of_a_replay_loses_nothing_that_was_answered() {
    let mut tracker = Tracker::start_with("replay_kill", trusting).await;
    tracker.simple_campaign("replay").await;
    let mut todo = clicks();
    let rest = todo.split_off(3500);
    let load = tokio::spawn(send_all(tracker.octo.addr(), todo, 64));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    tracker.octo.kill9().await;
    let mut answers = load.await.unwrap();
    tracker.octo.start_again().await;
    answers.extend(send_all(tracker.octo.addr(), rest, 64).await);
    let answered = ids(&answers, 302);
    println!("{} of 7000 were answered around kill -9", answered.len());
    assert!(answered.len() >= 3500);
    // not their count: clicks that were on disk when octo was killed are stored without having been answered
    eventually(SOON, async || {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE id = ANY($1)")
            .bind(&answered)
            .fetch_one(&tracker.pool)
            .await?;
        anyhow::ensure!(stored == i64::try_from(answered.len())?, "{stored} of {}", answered.len());
        Ok(())
    })
    .await;
    assert_stored_once(&tracker.pool, &answered).await;
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_stop_during_a_replay_and_every_click_is_redirected_and_arrives() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = trusting(Octo::builder()).database_url(postgres.url()).start().await;
    octo.create_campaign("replay", OFFER).await;
    let mut todo = clicks();
    let during = todo.split_off(2000);
    let mut answers = send_all(octo.addr(), todo, 64).await;
    postgres.stop_fast().await;
    answers.extend(send_all(octo.addr(), during, 64).await);
    assert_eq!(answers.len(), 7000);
    let answered = ids(&answers, 302);
    println!("Postgres stopped: 7000 of 7000 redirected, p99 {:?}", percentile(&answers, 0.99));
    assert_eq!(octo.get("/readyz").await.status(), 200);
    postgres.start_again().await;
    let pool = postgres.pool().await;
    eventually(SOON * 2, async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(stored == 7000, "{stored} of 7000");
        Ok(())
    })
    .await;
    assert_stored_once(&pool, &answered).await;
    assert_roll_ups_agree(&pool).await;
}
