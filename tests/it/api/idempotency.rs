//! `Idempotency-Key`: the same POST again is answered as before, whichever node it reaches and whoever died.

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{Octo, eventually},
    tracker::{SOON, Tracker, header},
};

const KEY: &str = "idempotency-key";

fn create(tracker: &Tracker, key: &str, body: &Value) -> RequestBuilder {
    tracker.api(Method::POST, "/campaigns").header(KEY, key).json(body)
}

/// Status, whether it was replayed, the headers that stay, and the body.
async fn told(response: Response) -> (u16, bool, [String; 3], Value) {
    let headers = ["location", "etag", "content-type"].map(|name| header(&response, name));
    let (status, replayed) =
        (response.status().as_u16(), header(&response, "idempotency-replayed") == "true");
    (status, replayed, headers, response.json().await.expect("JSON"))
}

async fn count(tracker: &Tracker, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&tracker.pool).await.expect("a count")
}

async fn campaigns(tracker: &Tracker) -> i64 {
    count(tracker, "SELECT count(*) FROM campaigns").await
}

#[tokio::test]
async fn the_same_request_is_answered_as_before_and_another_one_is_refused() {
    let tracker = Tracker::start("idempotency_replay").await;
    let body = json!({ "key": "once", "name": "Once" });
    let (status, replayed, headers, made) = told(create(&tracker, "k-1", &body).send().await.unwrap()).await;
    assert_eq!((status, replayed), (201, false), "{made}");
    // a key in quotes is the same key
    for key in ["k-1", "\"k-1\""] {
        let again = told(create(&tracker, key, &body).send().await.unwrap()).await;
        assert_eq!(again, (201, true, headers.clone(), made.clone()));
    }
    let path = format!("/campaigns/{}", made["id"].as_str().unwrap());
    assert_eq!(headers[0], format!("/api/v1{path}"));

    let other = json!({ "key": "once", "name": "Twice" });
    let (status, _, _, problem) = told(create(&tracker, "k-1", &other).send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")));
    let elsewhere = tracker.api(Method::POST, &format!("{path}/pause")).header(KEY, "k-1");
    assert_eq!(elsewhere.send().await.unwrap().status(), 422);
    for bad in ["", "a b", "\"a", &"x".repeat(256)] {
        let (status, _, _, problem) = told(create(&tracker, bad, &body).send().await.unwrap()).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!("Idempotency-Key")), "{bad}");
    }
    assert_eq!(campaigns(&tracker).await, 1);
}

#[tokio::test]
async fn a_key_belongs_to_its_token_and_strangers_leave_no_rows() {
    let tracker = Tracker::start("idempotency_scope").await;
    let body = json!({ "name": "n" });
    assert_eq!(create(&tracker, "k", &body).send().await.unwrap().status(), 201);
    let other = tracker.octo.admin_token().await;
    let with = |token: &str| tracker.octo.api(token).post("/campaigns").header(KEY, "k").json(&body);
    let (status, replayed, ..) = told(with(&other).send().await.unwrap()).await;
    assert_eq!((status, replayed), (201, false));
    for (token, wanted) in [("octo_1".to_owned(), 401), (tracker.octo.token("read").await, 403)] {
        assert_eq!(with(&token).send().await.unwrap().status(), wanted);
    }
    // it may send events, and no more
    let ingest = tracker.octo.token("ingest").await;
    assert_eq!(with(&ingest).send().await.unwrap().status(), 403);
    assert_eq!(count(&tracker, "SELECT count(*) FROM idempotency_keys").await, 2);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let tracker = Tracker::start("idempotency_refused").await;
    let (status, ..) = told(create(&tracker, "k", &json!({ "name": "" })).send().await.unwrap()).await;
    assert_eq!(status, 422);
    let (status, replayed, ..) =
        told(create(&tracker, "k", &json!({ "name": "n" })).send().await.unwrap()).await;
    assert_eq!((status, replayed), (201, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_at_once_on_two_nodes_one_makes_a_campaign() {
    let tracker = Tracker::start("idempotency_race").await;
    let second = Octo::builder().database_url(tracker.database.url()).start().await;
    let body = json!({ "name": "n" });
    let nodes = [&tracker.octo, &second];
    let sending = (0..20).map(|i| {
        let request = nodes[i % 2].api(&tracker.token).post("/campaigns").header(KEY, "race").json(&body);
        async move {
            let response = request.send().await.expect("an answer");
            if response.status() == 409 {
                assert_eq!(header(&response, "retry-after"), "1");
            }
            told(response).await
        }
    });
    let answers = join_all(sending).await;
    assert_eq!(
        answers.iter().filter(|(status, replayed, ..)| (*status, *replayed) == (201, false)).count(),
        1
    );
    let ids: std::collections::BTreeSet<_> =
        answers.iter().filter(|a| a.0 == 201).map(|a| a.3["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    for (status, _, _, body) in &answers {
        assert!(*status == 201 || body["code"] == "idempotency_key_in_use", "{body}");
    }
    assert_eq!(campaigns(&tracker).await, 1);
}

#[tokio::test]
async fn a_node_that_dies_before_it_kept_its_answer_leaves_a_request_that_is_carried_on_with() {
    let mut tracker =
        Tracker::start_with("idempotency_death", |b| b.env("OCTO_API__IDEMPOTENCY_LEASE_MS", "1500")).await;
    // answers cannot be kept, as if the node had died in that moment: the lock holds FINISH and lets CLAIM through
    let hold = "
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN new; END $$;
        CREATE TRIGGER hold BEFORE UPDATE OF status ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION hold()";
    sqlx::raw_sql(hold).execute(&tracker.pool).await.unwrap();
    let body = json!({ "key": "alive", "name": "n" });
    let cut_off = create(&tracker, "k", &body).timeout(std::time::Duration::from_millis(800)).send().await;
    assert!(cut_off.is_err(), "it cannot be answered");
    eventually(SOON, async || {
        anyhow::ensure!(campaigns(&tracker).await == 1, "it is not made yet");
        Ok(())
    })
    .await;
    let made: Uuid = sqlx::query_scalar("SELECT id FROM campaigns").fetch_one(&tracker.pool).await.unwrap();
    let (status, _, _, problem) = told(create(&tracker, "k", &body).send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("idempotency_key_in_use")), "it may still be alive");

    tracker.octo.kill9().await;
    sqlx::raw_sql("DROP TRIGGER hold ON idempotency_keys").execute(&tracker.pool).await.unwrap();
    tracker.octo.start_again().await;
    let (status, replayed, _, found) = eventually(SOON, async || {
        let answer = told(create(&tracker, "k", &body).send().await?).await;
        anyhow::ensure!(answer.0 != 409, "{}", answer.3);
        Ok(answer)
    })
    .await;
    assert_eq!((status, replayed, &found["id"]), (201, false, &json!(made)), "{found}");
    assert!(told(create(&tracker, "k", &body).send().await.unwrap()).await.1, "and now its answer is kept");
    assert_eq!(campaigns(&tracker).await, 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_leave_a_request_half_run() {
    let tracker = Tracker::start("idempotency_hang_up").await;
    let mut held = tracker.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE campaigns IN EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    let body = json!({ "name": "n" });
    let hung_up = create(&tracker, "k", &body).timeout(std::time::Duration::from_millis(500)).send().await;
    assert!(hung_up.is_err());
    held.rollback().await.unwrap();
    let (status, replayed, ..) = eventually(SOON, async || {
        let answer = told(create(&tracker, "k", &body).send().await?).await;
        anyhow::ensure!(answer.0 != 409, "{}", answer.3);
        Ok(answer)
    })
    .await;
    assert_eq!((status, replayed), (201, true), "the first one ran to its end");
    assert_eq!(campaigns(&tracker).await, 1);
}

#[tokio::test]
async fn the_secret_of_a_token_is_in_its_first_answer_only() {
    let tracker = Tracker::start("idempotency_secret").await;
    let post = || tracker.api(Method::POST, "/tokens").header(KEY, "k").json(&json!({ "scope": "read" }));
    let (_, _, _, mut made) = told(post().send().await.unwrap()).await;
    let secret = made["token"].take();
    assert!(secret.as_str().unwrap().starts_with("octo_"));
    let (status, replayed, _, again) = told(post().send().await.unwrap()).await;
    assert_eq!((status, replayed), (201, true));
    assert_eq!(again, made, "the same without the secret");
    let kept: String = sqlx::query_scalar(
        "SELECT string_agg(convert_from(body, 'UTF8') || headers, '') FROM idempotency_keys",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert!(!kept.contains("octo_"), "{kept}");
}

#[tokio::test]
async fn an_event_without_an_id_is_stored_once() {
    let tracker = Tracker::start("idempotency_event").await;
    tracker.simple_campaign("demo").await;
    let post = || {
        let event = json!({ "event_type": "view", "cid": "demo" });
        tracker.api(Method::POST, "/events").header(KEY, "k").json(&event)
    };
    let first = told(post().send().await.unwrap()).await;
    // the answer was lost with its node
    sqlx::raw_sql("UPDATE idempotency_keys SET status = NULL, locked_until = now()")
        .execute(&tracker.pool)
        .await
        .unwrap();
    let second = told(post().send().await.unwrap()).await;
    assert_eq!((second.0, &second.3), (first.0, &first.3));
    assert_eq!(count(&tracker, "SELECT count(*) FROM events").await, 1);
}

#[tokio::test]
async fn old_answers_are_forgotten_and_their_number_is_bounded() {
    let mut tracker =
        Tracker::start_with("idempotency_bounds", |b| b.env("OCTO_API__IDEMPOTENCY_KEYS_MAX", "5")).await;
    let fill = "
        INSERT INTO idempotency_keys (token_id, key, fingerprint, object_id, locked_until, created_at, status)
        SELECT id, n::text, decode(repeat('00', 32), 'hex'), gen_random_uuid(), now() - interval '1 hour',
               now() - CASE WHEN n <= 3 THEN interval '2 days' ELSE n * interval '1 minute' END, 201
        FROM api_tokens, generate_series(1, 20) n";
    sqlx::raw_sql(fill).execute(&tracker.pool).await.unwrap();
    tracker.octo.sigterm();
    tracker.octo.wait_exit(SOON).await;
    tracker.octo.start_again().await;
    eventually(SOON, async || {
        let mut keys: Vec<String> =
            sqlx::query_scalar("SELECT key FROM idempotency_keys").fetch_all(&tracker.pool).await?;
        keys.sort_by_key(|key| key.parse::<i32>().unwrap_or(0));
        anyhow::ensure!(keys == ["4", "5", "6", "7", "8"], "{keys:?}");
        Ok(())
    })
    .await;
}
