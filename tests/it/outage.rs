//! Parts that fail: a start without any store, a full journal, a frozen Postgres.

use std::time::Duration;

use serde_json::json;

use crate::{
    harness::{Octo, PrivatePostgres, eventually, migrate},
    load::{percentile, send_all},
    tracker::{SOON, Table, Tracker, header},
};

async fn create_campaign(octo: &Octo) {
    let token = octo.admin_token().await;
    let body =
        json!({ "key": "demo", "name": "d", "offers": [{ "name": "o", "url": "https://o.example/" }] });
    let request = octo.client().post(octo.url("/api/v1/campaigns")).bearer_auth(token).json(&body);
    assert_eq!(request.send().await.unwrap().status(), 201);
}

fn click_requests(count: usize) -> Vec<Vec<u8>> {
    vec![b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(); count]
}

#[tokio::test]
async fn a_start_with_every_store_down_still_redirects_and_stores_later() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let mut octo =
        Octo::builder().database_url(postgres.url()).redis_url("redis://127.0.0.1:1").start().await;
    create_campaign(&octo).await;
    octo.kill9().await;
    postgres.stop_fast().await;
    octo.start_again().await;
    eventually(SOON, async || {
        let said = octo.stderr();
        anyhow::ensure!(said.contains("DOES NOT ANSWER"), "the start says so: {said}");
        Ok(())
    })
    .await;
    let answers = send_all(octo.addr(), click_requests(50), 4).await;
    assert_eq!(answers.iter().filter(|a| a.status == 302).count(), 50);
    let health: serde_json::Value = octo.get("/health").await.json().await.unwrap();
    assert_eq!(health["status"], "degraded");
    assert_eq!(octo.get("/click?cid=unheard-of").await.status(), 404);
    postgres.start_again().await;
    let pool = postgres.pool().await;
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(&pool).await? == 50);
        Ok(())
    })
    .await;
    assert!(octo.stderr().contains("PostgreSQL is ready; what waits in the journal is stored now"));
}

#[tokio::test]
async fn partitions_that_cannot_be_made_keep_no_click_out_of_postgres() {
    let mut tracker = Tracker::start("outage_partitions").await;
    tracker.simple_campaign("demo").await;
    tracker.octo.sigterm();
    tracker.octo.wait_exit(Duration::from_secs(20)).await;
    let broken = "
        DO $$ BEGIN EXECUTE format('DROP TABLE clicks_%s', to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')); END $$;
        DROP FUNCTION octo_make_partitions";
    sqlx::raw_sql(broken).execute(&tracker.pool).await.unwrap();
    tracker.octo.start_again().await;
    for _ in 0..5 {
        tracker.click("/click?cid=demo").await;
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    let said = tracker.octo.stderr();
    assert!(
        said.contains("cannot look after the partitions yet") && said.contains("SQLSTATE 42883"),
        "{said}"
    );
}

#[tokio::test]
async fn a_first_start_without_its_database_says_so_in_one_sentence_and_exits_with_3() {
    let output = Octo::builder().database_url("postgres://nobody@127.0.0.1:1/nothing").run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("octo: PostgreSQL cannot be used") && text.contains("database.url"), "{text}");
}

/// An INSERT that is routed to DEFAULT and waits there while the right partition is attached does not fit afterwards.
#[tokio::test]
async fn a_partition_that_is_attached_under_the_drains_hands_makes_no_dead_letter() {
    let tracker = Tracker::start("outage_attach").await;
    tracker.simple_campaign("demo").await;
    let mut owner = tracker.pool.acquire().await.unwrap();
    let attach = "
        BEGIN;
        DO $$
        DECLARE
            day  date := (now() AT TIME ZONE 'UTC')::date;
            name text := 'clicks_' || to_char(day, 'YYYYMMDD');
        BEGIN
            EXECUTE format('ALTER TABLE clicks DETACH PARTITION %I', name);
        END $$;
        COMMIT;
        BEGIN;
        DO $$
        DECLARE
            day  date := (now() AT TIME ZONE 'UTC')::date;
            name text := 'clicks_' || to_char(day, 'YYYYMMDD');
        BEGIN
            EXECUTE format('ALTER TABLE clicks ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END $$;";
    sqlx::raw_sql(attach).execute(&mut *owner).await.unwrap();
    tracker.click("/click?cid=demo").await;
    eventually(SOON, async || {
        let waiting = "
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO clicks%'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&tracker.pool).await?;
        anyhow::ensure!(waiting == 1, "{waiting} wait");
        Ok(())
    })
    .await;
    sqlx::raw_sql("COMMIT").execute(&mut *owner).await.unwrap();
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_postgres_is_never_seen_by_a_visitor() {
    let postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    create_campaign(&octo).await;
    let quiet = send_all(octo.addr(), click_requests(2000), 16).await;
    postgres.sigstop();
    let frozen = send_all(octo.addr(), click_requests(2000), 16).await;
    postgres.sigcont();
    assert!(frozen.len() == 2000 && frozen.iter().all(|a| a.status == 302));
    println!("p99 quiet {:?}, frozen {:?}", percentile(&quiet, 0.99), percentile(&frozen, 0.99));
    let pool = postgres.pool().await;
    eventually(Duration::from_mins(1), async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(stored == 4000, "{stored} of 4000");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_full_journal_still_redirects_counts_exactly_and_tells_the_balancer() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let small = |name| (name, "8192");
    let mut builder = Octo::builder().database_url(postgres.url());
    for (name, value) in [small("OCTO_JOURNAL__SEGMENT_BYTES"), ("OCTO_JOURNAL__MAX_BYTES", "65536")] {
        builder = builder.env(name, value);
    }
    let octo = builder.start().await;
    create_campaign(&octo).await;
    postgres.stop_fast().await;
    let answers = send_all(octo.addr(), click_requests(1000), 8).await;
    assert!(answers.len() == 1000 && answers.iter().all(|a| a.status == 302));
    assert_eq!(octo.get("/livez").await.status(), 200);
    // a full journal may still have room for one more
    let mut clicks = 1000;
    loop {
        let click = octo.get("/click?cid=demo").await;
        assert_eq!(click.status(), 302);
        clicks += 1;
        if header(&click, "x-octo-recorded") == "0" {
            break;
        }
        assert!(clicks < 1100, "the journal is not full");
    }
    assert_eq!(octo.get("/readyz").await.status(), 503);
    // an event is smaller than a click: where no click fits, a few of them may
    let mut events = 0;
    let event = loop {
        let request = octo.client().post(octo.url("/event"));
        let event = request.body(r#"{"event_type":"view","cid":"demo"}"#).send().await.unwrap();
        if event.status() == 503 {
            break event;
        }
        assert_eq!(event.status(), 202);
        events += 1;
        assert!(events < 10, "the journal is not full");
    };
    assert!(event.headers().contains_key("retry-after"));
    let metrics = octo.get("/metrics").await.text().await.unwrap();
    let unrecorded: i64 = metrics
        .lines()
        .find_map(|l| l.strip_prefix("octo_clicks_unrecorded_total "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(unrecorded > 0);
    postgres.start_again().await;
    let pool = postgres.pool().await;
    eventually(SOON, async || {
        let stored = Table::Clicks.count(&pool).await?;
        anyhow::ensure!(
            stored == clicks - unrecorded,
            "{stored} stored, {unrecorded} unrecorded of {clicks}"
        );
        Ok(())
    })
    .await;
    // drained segments make room again
    let recorded_click = octo.get("/click?cid=demo").await;
    assert_eq!(header(&recorded_click, "x-octo-recorded"), "");
    let again = send_all(octo.addr(), click_requests(10), 1).await;
    assert!(again.iter().all(|a| a.status == 302));
    assert_eq!(octo.get("/readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_no_answered_click_and_ends_in_time() {
    let mut tracker = Tracker::start("outage_stop").await;
    tracker.simple_campaign("demo").await;
    let load = tokio::spawn(send_all(tracker.octo.addr(), click_requests(20_000), 32));
    tokio::time::sleep(Duration::from_millis(300)).await;
    tracker.octo.sigterm();
    let status = tracker.octo.wait_exit(Duration::from_secs(15)).await;
    assert!(status.success(), "{status}: {}", tracker.octo.stderr());
    let answered = load.await.unwrap().iter().filter(|a| a.status == 302).count();
    assert!(answered > 0);
    let stored = Table::Clicks.count(&tracker.pool).await.unwrap();
    assert!(stored >= i64::try_from(answered).unwrap(), "{stored} stored of {answered} answered");
}
