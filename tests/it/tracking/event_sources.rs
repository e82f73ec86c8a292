//! Who told of an event: the ids of those who have a token are their own, and the public can be kept out.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, api::answer, eventually},
    records::{encode_event, event, write_journal},
    tracker::{SOON, Table, Tracker, assert_roll_ups_agree, header},
};

fn by_public(tracker: &Tracker, body: &Value) -> RequestBuilder {
    tracker.octo.client().post(tracker.octo.url("/event")).json(body)
}

fn by_token(tracker: &Tracker, token: &str, body: &Value) -> RequestBuilder {
    tracker.octo.api(token).post("/events").json(body)
}

/// `source` and `user_id` of every event, in order.
async fn stored(pool: &PgPool) -> Vec<(Option<String>, Option<String>)> {
    let sql = "SELECT source, user_id FROM events ORDER BY user_id";
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn a_stranger_neither_suppresses_nor_replaces_the_event_of_one_who_has_a_token() {
    let tracker = Tracker::start("sources").await;
    tracker.simple_campaign("demo").await;
    let (shop, crm) = (tracker.octo.token("ingest").await, tracker.octo.token("ingest").await);
    for id in [json!(Uuid::new_v4()), json!("order-1001")] {
        let body =
            |who: &str| json!({ "event_type": "purchase", "cid": "demo", "event_id": id, "user_id": who });
        // first the stranger, then the shop, then the stranger again, each twice
        for (who, token) in
            [("a-stranger", None), ("b-shop", Some(&shop)), ("c-stranger", None), ("d-crm", Some(&crm))]
        {
            for is_again in [false, true] {
                let Some(token) = token else {
                    assert_eq!(answer(by_public(&tracker, &body(who))).await.0, 202);
                    continue;
                };
                let (status, answer) = answer(by_token(&tracker, token, &body(who))).await;
                let wanted = if is_again { (200, "already_stored") } else { (201, "stored") };
                assert_eq!((status.as_u16(), answer["status"].as_str().unwrap()), wanted, "{who}: {answer}");
            }
        }
        tracker.wait_rows(Table::Events, 3).await;
        let rows = stored(&tracker.pool).await;
        let who: Vec<_> = rows.iter().map(|row| row.1.as_deref().unwrap()).collect();
        assert_eq!(who, ["a-stranger", "b-shop", "d-crm"], "{id}");
        assert_eq!(rows[0].0.as_deref(), Some("public"));
        let (shop, crm) = (rows[1].0.clone().unwrap(), rows[2].0.clone().unwrap());
        assert!(shop != crm && shop.parse::<Uuid>().is_ok() && crm.parse::<Uuid>().is_ok(), "{rows:?}");
        let listed: Value = tracker.api(Method::GET, "/events").send().await.unwrap().json().await.unwrap();
        let mut shown: Vec<_> =
            listed["data"].as_array().unwrap().iter().map(|e| e["source"].as_str().unwrap()).collect();
        shown.sort_unstable();
        let mut sources = ["public", &shop, &crm];
        sources.sort_unstable();
        assert_eq!(shown, sources);
        assert_roll_ups_agree(&tracker.pool).await;
        sqlx::raw_sql("DELETE FROM events; DELETE FROM campaign_stats_hourly")
            .execute(&tracker.pool)
            .await
            .unwrap();
    }
    // whoever knows the key of the shop's id gives it as an id of his own
    let id = Uuid::new_v4();
    let body = |id: Uuid| json!({ "event_type": "purchase", "cid": "demo", "event_id": id });
    assert_eq!(answer(by_token(&tracker, &shop, &body(id))).await.0, 201);
    let key: Uuid = sqlx::query_scalar("SELECT id FROM event_keys ORDER BY created_at DESC LIMIT 1")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    sqlx::query("DELETE FROM event_keys WHERE id = $1").bind(key).execute(&tracker.pool).await.unwrap();
    sqlx::raw_sql("DELETE FROM events; DELETE FROM campaign_stats_hourly")
        .execute(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(answer(by_public(&tracker, &body(key))).await.0, 202);
    tracker.wait_rows(Table::Events, 1).await;
    assert_eq!(answer(by_token(&tracker, &shop, &body(id))).await.0, 201, "nobody has used it up");
}

#[tokio::test]
async fn without_public_events_only_a_token_may_tell() {
    let tracker =
        Tracker::start_with("sources_closed", |b| b.env("OCTO_TRACKING__PUBLIC_EVENTS", "false")).await;
    tracker.simple_campaign("demo").await;
    let body = json!({ "event_type": "view", "cid": "demo" });
    let (status, problem) = answer(by_public(&tracker, &body)).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("forbidden")));
    let batch = tracker.octo.client().post(tracker.octo.url("/events")).json(&json!([body]));
    assert_eq!(answer(batch).await.0, 403);
    let pixel = tracker.octo.get("/event.gif?event_type=view&cid=demo").await;
    assert_eq!((pixel.status().as_u16(), header(&pixel, "x-octo-dropped").as_str()), (200, "forbidden"));
    assert_eq!(pixel.bytes().await.unwrap().len(), 43);
    assert_eq!(answer(by_token(&tracker, &tracker.token, &body)).await.0, 201);
    let metrics = tracker.octo.metrics().await;
    assert!(metrics.contains("octo_events_total{outcome=\"forbidden\"} 3\n"), "it is counted");
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(Table::Events.count(&tracker.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn a_database_of_the_release_before_keeps_its_events_and_their_ids() {
    let database = Database::create("sources_before").await;
    let pool = database.pool().await;
    let used = Uuid::new_v4();
    let before = format!(
        "ALTER TABLE events DROP COLUMN source, DROP COLUMN external_id, DROP COLUMN occurred_at;
         DELETE FROM _sqlx_migrations WHERE version = 7;
         INSERT INTO events (id, event_type, created_at) VALUES ('{used}', 'old', now());
         INSERT INTO event_keys (id, created_at) VALUES ('{used}', now())"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(before)).execute(&pool).await.unwrap();
    let octo = Octo::builder().database_url(database.url()).start().await;
    let token = octo.admin_token().await;
    let tracker = Tracker { octo, pool, token, database };
    tracker.simple_campaign("demo").await;
    let body = |id: Uuid| json!({ "event_type": "view", "cid": "demo", "event_id": id });
    assert_eq!(answer(by_public(&tracker, &body(used))).await.0, 202);
    assert_eq!(answer(by_public(&tracker, &body(Uuid::new_v4()))).await.0, 202);
    tracker.wait_rows(Table::Events, 2).await;
    let listed: Value = tracker.api(Method::GET, "/events").send().await.unwrap().json().await.unwrap();
    let old = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["event_type"] == "old")
        .expect("it is there once");
    assert_eq!(
        (&old["source"], &old["occurred_at"]),
        (&Value::Null, &Value::Null),
        "nobody knows who told of it"
    );
    assert_eq!(
        answer(by_token(&tracker, &tracker.token, &body(used))).await.0,
        201,
        "a token's ids are its own"
    );
    tracker.wait_rows(Table::Events, 3).await;
}

/// Each key takes a while, so that two statements are at it at the same time.
const SLOW_KEYS: &str = "
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(0.005);
    RETURN NEW;
END $$;
CREATE TRIGGER slowly BEFORE INSERT ON event_keys FOR EACH ROW EXECUTE FUNCTION slowly()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_ids_on_two_nodes_in_opposite_order_are_no_deadlock() {
    const EVENTS: usize = 100;
    let database = Database::create("sources_order").await;
    let pool = database.pool().await;
    sqlx::raw_sql(SLOW_KEYS).execute(&pool).await.unwrap();
    let mut events: Vec<_> = (0..EVENTS)
        .map(|_| {
            let mut event = event(Uuid::from_u128(7));
            (event.id, event.is_idempotent) = (Uuid::new_v4(), true);
            encode_event(&event)
        })
        .collect();
    events.sort(); // by id: it is the first field
    let mut dirs = Vec::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        write_journal(dir.path(), &events).await;
        events.reverse();
        dirs.push(dir);
    }
    // both drains get as far as the keys, and go on at the same time
    let mut held = pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE event_keys IN EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let start =
        |dir: &tempfile::TempDir| Octo::builder().database_url(database.url()).data_dir(dir.path()).start();
    let (first, second) = tokio::join!(start(&dirs[0]), start(&dirs[1]));
    eventually(Duration::from_mins(1), async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'event_keys'::regclass AND NOT granted";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await?;
        anyhow::ensure!(waiting == 2, "{waiting} drains wait");
        Ok(())
    })
    .await;
    held.commit().await.unwrap();
    for octo in [&first, &second] {
        octo.wait_drained(6 * SOON).await;
    }
    let count = i64::try_from(EVENTS).unwrap();
    assert_eq!(Table::Events.count(&pool).await.unwrap(), count);
    for octo in [&first, &second] {
        let metrics = octo.metrics().await;
        let errors = metrics
            .lines()
            .filter(|l| l.starts_with("octo_drain_errors_total{"))
            .filter(|l| !l.ends_with(" 0"));
        assert_eq!(errors.collect::<Vec<_>>(), [""; 0], "no batch had to be tried again");
        assert!(!octo.stderr().contains("deadlock"));
    }
}
