//! One row at a time beside the drain: a click is corrected, an event is stored, and the figures stay exact.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{Octo, api::answer},
    load::send_all,
    tracker::{SOON, Table, Tracker, assert_roll_ups_agree},
};

/// Clicks sent while others are corrected.
const CLICKS: usize = 4_000;

async fn send(tracker: &Tracker, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let (status, body) = answer(tracker.api(method, path).json(body)).await;
    (status.as_u16(), body)
}

async fn patch(tracker: &Tracker, id: Uuid, body: &Value) -> (u16, Value) {
    send(tracker, Method::PATCH, &format!("/clicks/{id}"), body).await
}

async fn totals(tracker: &Tracker) -> Value {
    let stats = tracker.show("/campaigns/demo/stats").await;
    stats["totals"].clone()
}

fn requests(count: usize) -> Vec<Vec<u8>> {
    let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let request = format!("GET /c/demo HTTP/1.1\r\nHost: t\r\nUser-Agent: {browser}\r\n\r\n");
    vec![request.into_bytes(); count]
}

#[tokio::test]
async fn a_click_is_corrected_and_the_figures_follow_at_once() {
    let tracker = Tracker::start("correct_one").await;
    tracker.simple_campaign("demo").await;
    let id = send_all(tracker.octo.addr(), requests(1), 1).await[0].id.unwrap();
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(
        totals(&tracker).await,
        json!({ "clicks": 1, "valid_clicks": 1, "bot_clicks": 0, "events": 0, "lander_views": 0, "lander_clicks": 0 })
    );

    let fraud = json!({ "is_valid": false, "invalid_reason": "fraud", "cost": { "amount": "0.25", "currency": "eur" } });
    for _ in 0..2 {
        let (status, click) = patch(&tracker, id, &fraud).await;
        assert_eq!(status, 200, "{click}");
        assert_eq!((&click["is_valid"], &click["invalid_reason"]), (&json!(false), &json!("fraud")));
        assert_eq!(click["cost"], json!({ "amount": "0.25", "currency": "EUR" }));
        assert_eq!((&click["id"], &click["campaign_key"]), (&json!(id), &json!("demo")));
        assert!(click["updated_at"].as_str() > click["created_at"].as_str(), "{click}");
        assert_eq!(totals(&tracker).await["valid_clicks"], 0, "once, however often it is said");
    }
    let converted = json!({ "is_valid": true, "cost": null, "conversion_type": "purchase", "converted_at": "2026-01-31T12:00:00Z" });
    let (status, click) = patch(&tracker, id, &converted).await;
    assert_eq!((status, &click["is_valid"]), (200, &json!(true)), "{click}");
    for cleared in ["invalid_reason", "cost", "currency"] {
        assert_eq!(click[cleared], Value::Null, "{cleared}");
    }
    assert_eq!(click["converted_at"], "2026-01-31T12:00:00Z");
    let shown = tracker.api(Method::GET, &format!("/clicks/{id}")).send().await.unwrap();
    assert_eq!(shown.json::<Value>().await.unwrap(), click);
    assert_eq!(totals(&tracker).await["valid_clicks"], 1);
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn what_cannot_be_corrected_is_refused_in_clear_words() {
    let tracker = Tracker::start("correct_bad").await;
    tracker.simple_campaign("demo").await;
    let (_, id) = tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let (status, problem) = patch(&tracker, id, &json!({ "is_valid": false, "cost": 1, "sub1": "x" })).await;
    let pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!((status, pointers), (422, vec![json!("/invalid_reason"), json!("/cost"), json!("/sub1")]));

    let reason = json!({ "is_valid": false, "invalid_reason": "fraud" });
    for unknown in [Uuid::now_v7(), Uuid::new_v4()] {
        assert_eq!(patch(&tracker, unknown, &reason).await.0, 404);
    }
    let read = tracker.octo.token("read").await;
    let request = tracker.octo.api(&read).request(Method::PATCH, &format!("/clicks/{id}")).json(&reason);
    assert_eq!(request.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_click_that_is_still_in_the_journal_is_not_made_by_a_correction() {
    let tracker = Tracker::start("correct_early").await;
    let campaign: Uuid = tracker.simple_campaign("demo").await["id"].as_str().unwrap().parse().unwrap();
    // the drain waits for the roll-up of this hour, with the click inserted and not committed
    let mut held = tracker.pool.begin().await.unwrap();
    let roll_ups = "INSERT INTO campaign_stats_hourly (campaign_id, hour) SELECT $1, date_trunc('hour', now(), 'UTC') + n * interval '1 hour' FROM generate_series(0, 1) n";
    sqlx::query(roll_ups).bind(campaign).execute(&mut *held).await.unwrap();
    let (_, id) = tracker.click("/c/demo").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let reason = json!({ "is_valid": false, "invalid_reason": "fraud" });
    let (status, problem) = patch(&tracker, id, &reason).await;
    assert_eq!(status, 404);
    assert!(problem["detail"].as_str().unwrap().contains("once it is stored"), "{problem}");
    held.rollback().await.unwrap();
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(patch(&tracker, id, &reason).await.0, 200);
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corrections_and_events_beside_two_drains_leave_the_figures_exact() {
    let tracker = Tracker::start("correct_load").await;
    tracker.simple_campaign("demo").await;
    let other = Octo::builder().database_url(tracker.database.url()).start().await;
    let first = send_all(tracker.octo.addr(), requests(200), 8).await;
    let ids: Vec<Uuid> = first.iter().map(|answer| answer.id.expect("an id")).collect();
    tracker.wait_rows(Table::Clicks, 200).await;

    let load = [tracker.octo.addr(), other.addr()].map(|address| {
        tokio::spawn(send_all(address, requests(CLICKS / 2), 4)) // two drains store these meanwhile
    });
    // each click five times, several at once: the last word is one of theirs, and the sums must know whose
    let corrections = (0..1_000).map(|i| {
        let body = match i % 3 {
            0 => json!({ "is_valid": true }),
            1 => json!({ "is_valid": false, "invalid_reason": "fraud" }),
            _ => json!({ "cost": { "amount": "0.5", "currency": "USD" } }),
        };
        let (tracker, id) = (&tracker, ids[i / 5]);
        async move { assert_eq!(patch(tracker, id, &body).await.0, 200) }
    });
    let keys: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    // the same event by the API, twice, and by way of the journal, where the same id is another event
    let events = keys.iter().flat_map(|key| [(key, true), (key, false), (key, true)]).map(|(key, is_api)| {
        let body = json!({ "event_type": "view", "click_id": ids[0], "event_id": key });
        let tracker = &tracker;
        async move {
            if is_api {
                let (status, answer) = send(tracker, Method::POST, "/events", &body).await;
                assert!(status == 201 || status == 200, "{answer}");
            } else {
                let request = tracker.octo.client().post(tracker.octo.url("/event")).json(&body);
                assert_eq!(request.send().await.unwrap().status(), 202);
            }
        }
    });
    tokio::join!(
        stream::iter(corrections).buffer_unordered(8).collect::<Vec<()>>(),
        stream::iter(events).buffer_unordered(4).collect::<Vec<()>>(),
    );
    for sent in load {
        assert!(sent.await.unwrap().iter().all(|answer| answer.status == 302));
    }
    tracker.wait_rows(Table::Clicks, i64::try_from(CLICKS).unwrap() + 200).await;
    // what the journal still holds of the events must not come in between the two counts
    tracker.octo.wait_drained(SOON).await;
    assert_eq!(Table::Events.count(&tracker.pool).await.unwrap(), 200, "each once of each source");
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    assert_roll_ups_agree(&tracker.pool).await;
    let cost_of_some: i64 =
        sqlx::query_scalar("SELECT count(*) FROM clicks WHERE cost = 0.5 AND currency = 'USD'")
            .fetch_one(&tracker.pool)
            .await
            .unwrap();
    assert_eq!(cost_of_some, 200, "a correction of one field leaves the others as they are");
    assert_eq!(totals(&tracker).await["clicks"], CLICKS + 200);
}

#[tokio::test]
async fn an_event_of_the_api_is_stored_when_it_answers_and_only_once() {
    let tracker = Tracker::start("event_insert").await;
    let campaign = tracker.simple_campaign("demo").await;
    let event = json!({ "event_type": "purchase", "cid": "demo", "event_id": Uuid::new_v4(), "properties": { "total": 9.5 } });
    let (status, answer) = send(&tracker, Method::POST, "/events", &event).await;
    assert_eq!((status, &answer["status"], &answer["event_id"]), (201, &json!("stored"), &event["event_id"]));
    let (status, answer) = send(&tracker, Method::POST, "/events", &event).await;
    assert_eq!((status, &answer["status"]), (200, &json!("already_stored")));
    let listed = tracker.api(Method::GET, "/events").send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(listed["data"][0]["properties"], event["properties"]);
    assert_eq!(listed["data"][0]["campaign_id"], campaign["id"]);
    assert_eq!(totals(&tracker).await["events"], 1);
    assert_roll_ups_agree(&tracker.pool).await;

    let anonymous = json!({ "event_type": "view", "cid": "demo" });
    for _ in 0..2 {
        assert_eq!(send(&tracker, Method::POST, "/events", &anonymous).await.0, 201, "no id: another event");
    }
    let (status, problem) =
        send(&tracker, Method::POST, "/events", &json!({ "event_type": "", "cid": "x y" })).await;
    assert_eq!((status, problem["errors"].as_array().unwrap().len()), (422, 2));
    for (scope, wanted) in [("ingest", 201), ("read", 403)] {
        let token = tracker.octo.token(scope).await;
        let request = tracker.octo.api(&token).post("/events").json(&anonymous);
        assert_eq!(request.send().await.unwrap().status().as_u16(), wanted, "{scope}");
    }
}
