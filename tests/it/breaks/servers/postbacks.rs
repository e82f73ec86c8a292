//! Postbacks while PostgreSQL is away and after a start without it, and on two nodes at once. That none is lost or stored
//! twice is in `proof`.

use std::time::Duration;

use octo::model::id::ClickId;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, PrivatePostgres, PrivateRedis, api::answer, eventually, migrate},
    load::{percentile, send_all},
    tracker::{OFFER, SOON, assert_book_agrees, header},
};

const CONNECTIONS: usize = 8;

/// The slowest that a postback may be answered on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// The longest that a postback may wait for its click which another node stores.
const DERIVED_WITHIN_S: f64 = 8.0;

/// Clicks of the campaign `demo`; their ids.
async fn click(octo: &Octo, count: usize) -> Vec<Uuid> {
    let requests = vec![b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(); count];
    let answers = send_all(octo.addr(), requests, CONNECTIONS).await;
    assert!(answers.len() == count && answers.iter().all(|answer| answer.status == 302));
    answers.iter().map(|answer| answer.id.expect("an id")).collect()
}

/// A sale of a click.
fn sale(click: Uuid) -> Vec<u8> {
    let path = format!("/postback?clickid={click}&status=sale&payout=1.25&currency=EUR");
    format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes()
}

/// Waits until so many postbacks are stored, each of a conversion, and gives how many conversions there are.
async fn wait_derived(pool: &PgPool, postbacks: usize) -> i64 {
    let postbacks = i64::try_from(postbacks).unwrap();
    eventually(Duration::from_mins(1), async || {
        let sql =
            "SELECT count(*), count(*) FILTER (WHERE outcome = 'accepted' AND conversion_id IS NOT NULL)
                   FROM postbacks";
        let found: (i64, i64) = sqlx::query_as(sql).fetch_one(pool).await?;
        anyhow::ensure!(found == (postbacks, postbacks), "{found:?} of {postbacks}");
        Ok(())
    })
    .await;
    let conversions = "SELECT count(*) FROM conversions WHERE status = 'approved' AND payout = 1.25";
    sqlx::query_scalar(conversions).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_postbacks_with_every_store_away_are_answered_at_once_and_derived_afterwards() {
    let (mut postgres, mut redis) = (PrivatePostgres::start().await, PrivateRedis::start().await);
    migrate(&postgres.url()).await;
    let mut octo = Octo::builder().database_url(postgres.url()).redis_url(redis.url()).start().await;
    octo.create_campaign("demo", OFFER).await;
    let mut clicks = click(&octo, 500).await;
    postgres.stop_fast().await;
    redis.kill9().await;
    clicks.extend(click(&octo, 500).await);
    let sales = || clicks.iter().copied().map(sale).collect::<Vec<_>>();
    let answers = send_all(octo.addr(), sales(), CONNECTIONS).await;
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    let p99 = percentile(&answers, 0.99);
    println!("{accepted} of 1000 answered 200: p50 {:?}, p99 {p99:?}", percentile(&answers, 0.5));
    assert_eq!((answers.len(), accepted), (1000, 1000));
    assert!(p99 < ANSWERED_WITHIN, "{p99:?}");

    // the network says everything once more, to an octo that has never seen a store
    octo.kill9().await;
    octo.start_again().await;
    let again = send_all(octo.addr(), sales(), CONNECTIONS).await;
    assert_eq!((again.len(), again.iter().filter(|answer| answer.status == 200).count()), (1000, 1000));

    postgres.start_again().await;
    redis.start_again().await;
    let pool = postgres.pool().await;
    assert_eq!(wait_derived(&pool, 2000).await, 1000, "each click has its one conversion");
    let of_clicks: Vec<Uuid> =
        sqlx::query_scalar("SELECT click_id FROM conversions ORDER BY 1").fetch_all(&pool).await.unwrap();
    clicks.sort_unstable();
    assert_eq!(of_clicks, clicks);
    assert_book_agrees(&pool).await;
}

/// Two nodes of one database, which both know the campaign `demo`.
async fn two_nodes(database: &Database) -> (Octo, Octo) {
    let node = || Octo::builder().database_url(database.url()).start();
    let (one, two) = (node().await, node().await);
    one.create_campaign("demo", OFFER).await;
    eventually(SOON, async || {
        let status = two.client().head(two.url("/click?cid=demo")).send().await?.status();
        anyhow::ensure!(status == StatusCode::FOUND, "{status}");
        Ok(())
    })
    .await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_equal_postbacks_at_once_on_two_nodes_are_one_conversion() {
    const CLICKS: usize = 20;
    let database = Database::create("postbacks_equal").await;
    let (one, two) = two_nodes(&database).await;
    let pool = database.pool().await;
    // the first before its click is stored, and the last long after
    for nth in 1..=CLICKS {
        let id = click(&one, 1).await[0];
        let equal = vec![sale(id); 25];
        let (of_one, of_two) = tokio::join!(
            send_all(one.addr(), equal.clone(), CONNECTIONS),
            send_all(two.addr(), equal, CONNECTIONS)
        );
        let accepted = of_one.iter().chain(&of_two).filter(|answer| answer.status == 200).count();
        assert_eq!(accepted, 50);
        if nth % 2 == 0 {
            assert_eq!(wait_derived(&pool, nth * 50).await, i64::try_from(nth).unwrap());
        }
    }
    let changes: (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT click_id) FROM conversion_changes")
            .fetch_one(&pool)
            .await
            .unwrap();
    let clicks = i64::try_from(CLICKS).unwrap();
    assert_eq!(changes, (clicks, clicks), "one row in the book each");
    assert_book_agrees(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_click_of_one_node_and_its_postback_of_another_at_the_same_time_wait_for_nobody() {
    const TASKS: usize = 4;
    const ROUNDS: usize = 100;
    let database = Database::create("postbacks_crossing").await;
    let (one, two) = two_nodes(&database).await;
    let walk = async |from: &Octo, to: &Octo| {
        for _ in 0..ROUNDS {
            let id = click(from, 1).await[0];
            let answers = send_all(to.addr(), vec![sale(id)], 1).await;
            assert!(answers.iter().any(|answer| answer.status == 200));
        }
    };
    tokio::join!(walk(&one, &two), walk(&two, &one), walk(&one, &two), walk(&two, &one));
    let pool = database.pool().await;
    let count = TASKS * ROUNDS;
    assert_eq!(wait_derived(&pool, count).await, i64::try_from(count).unwrap());
    let waited = "
        SELECT
            count(*) FILTER (WHERE recorded_at - changed_at > interval '1 second'),
            max(extract(epoch FROM recorded_at - changed_at))::float8
        FROM conversion_changes";
    let (slow, most): (i64, f64) = sqlx::query_as(waited).fetch_one(&pool).await.unwrap();
    println!(
        "{count} conversions, {slow} of them later than a second after the postback, the last {most:.1} s"
    );
    assert!(most < DERIVED_WITHIN_S, "{most} s");
    assert_book_agrees(&pool).await;
    for node in [&one, &two] {
        let errors = "octo_drain_errors_total{class=\"40\"}";
        assert_eq!(node.metric(errors).await, 0, "no deadlock: {}", node.stderr());
    }
}

#[tokio::test]
async fn a_network_is_known_and_its_postbacks_are_taken_with_every_store_away() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut octo =
        Octo::builder().database_url(postgres.url()).redis_url("redis://127.0.0.1:1").start().await;
    octo.create_campaign("demo", OFFER).await; // without one, octo does not start while PostgreSQL is away
    let token = octo.admin_token().await;
    let body = json!({ "name": "n", "postback_key": "somenetwork", "postback_token": "s3cret-token" });
    let (status, made) =
        answer(octo.api(&token).request(Method::POST, "/affiliate-networks").json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let saved = octo.data_dir().join("networks.json");
    eventually(SOON, async || {
        anyhow::ensure!(std::fs::read_to_string(&saved)?.contains("somenetwork"));
        Ok(())
    })
    .await;
    let ask = async |octo: &Octo, when: &str| {
        let good = format!("/postback/somenetwork?token=s3cret-token&clickid={}", ClickId::now());
        assert_eq!(octo.get(&good).await.status(), StatusCode::OK, "{when}");
        for (path, dropped) in [
            ("/postback/somenetwork?token=other", "wrong_token"),
            ("/postback/othernetwork?token=s3cret-token", "wrong_key"),
        ] {
            let answer = octo.get(path).await;
            let found = (answer.status(), header(&answer, "x-octo-dropped"));
            assert_eq!(found, (StatusCode::FORBIDDEN, dropped.to_owned()), "{when}: {path}");
        }
    };
    postgres.stop_fast().await;
    ask(&octo, "while it is away").await;
    octo.kill9().await;
    octo.start_again().await;
    ask(&octo, "after a start without it").await;

    // a node that never saw the networks refuses nobody: what it refused might never come again
    octo.kill9().await;
    std::fs::remove_file(&saved).unwrap();
    octo.start_again().await;
    let unknown = octo.get(&format!("/postback/othernetwork?clickid={}", ClickId::now())).await;
    assert_eq!(unknown.status(), StatusCode::OK);
}
