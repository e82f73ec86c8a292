//! Day partitions: made and dropped while others hold locks, and while the DEFAULT ones hold rows.

use std::time::{Duration, Instant};

use octo::{
    config::{Flags, Loaded},
    db::{
        Db,
        partitions::{self, Options, Round},
    },
};
use reqwest::{Method, StatusCode};
use sqlx::{Executor, PgPool};

use crate::{
    harness::{DAY_PARTITIONS, Database, Octo, eventually},
    load::send_all,
    tracker::{Table, Tracker},
};

const PATIENCE: Duration = Duration::from_mins(2);

/// What `octo` does by default, but for a lock time-out that tests do not wait long for.
const OPTIONS: Options = Options {
    lock_timeout: Duration::from_millis(500),
    move_rows_max: 10_000,
    check_timeout: Duration::from_mins(1),
    delete_rows: 10_000,
};

fn db(database: &Database) -> Db {
    let loaded = Loaded::load(None, [], &Flags::default()).unwrap();
    Db::new(&database.url().into(), &loaded.config.database).unwrap()
}

/// The tables of a day, in days from today.
async fn has_day(pool: &PgPool, step: i32) -> (bool, bool) {
    sqlx::query_as(
        "SELECT to_regclass('clicks_' || day) IS NOT NULL, to_regclass('events_' || day) IS NOT NULL
         FROM (SELECT to_char((now() AT TIME ZONE 'UTC')::date + $1, 'YYYYMMDD') AS day) AS d",
    )
    .bind(step)
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Rows with ids of their own, from a time on (`$2`), so many microseconds apart.
const ROWS: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, created_at, updated_at)
SELECT gen_random_uuid(), '00000000-0000-7000-8000-00000000000a', true, false, at, at
FROM generate_series(0, $1::bigint - 1) AS i
CROSS JOIN LATERAL (
    SELECT date_trunc('day', now(), 'UTC') + $2::integer * interval '1 day' + i * $3::bigint * interval '1 microsecond' AS at
) AS t";

async fn fill(pool: &PgPool, rows: i64, day: i32, step_us: i64) {
    sqlx::query(ROWS).bind(rows).bind(day).bind(step_us).execute(pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_over_midnight_keeps_neither_the_api_nor_the_drain_waiting() {
    let database = Database::create("partitions_dump").await;
    let pool = database.pool().await;
    // as pg_dump does for as long as it runs; no partition is there yet, so all are due
    let mut dump = pool.begin().await.unwrap();
    dump.execute("SELECT FROM clicks LIMIT 1; SELECT FROM events LIMIT 1").await.unwrap();
    let began = Instant::now();
    let builder = Octo::builder().database_url(database.url());
    let octo = builder.env("OCTO_DATABASE__PARTITIONS_INTERVAL_S", "1").start().await;
    println!("started after {} ms", began.elapsed().as_millis());
    let token = octo.admin_token().await;
    let tracker = Tracker { octo, pool, token, database };
    tracker.simple_campaign("demo").await;
    let (_, known) = tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let until = Instant::now() + Duration::from_secs(15);
    let storing = async {
        let mut clicks = 1;
        while Instant::now() < until {
            tracker.click("/c/demo").await;
            clicks += 1;
            tracker.wait_rows(Table::Clicks, clicks).await;
        }
        clicks
    };
    // without a pause, so that each wait for a lock meets one of them
    let reading = async {
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            for path in [&format!("/clicks/{known}"), "/clicks?limit=1", "/clicks?cid=demo"] {
                let asked = Instant::now();
                let answer = tracker.api(Method::GET, path).send().await.unwrap();
                assert_eq!(answer.status(), StatusCode::OK, "{path} after {:?}", asked.elapsed());
                slowest = slowest.max(asked.elapsed());
            }
        }
        slowest
    };
    let (clicks, slowest) = tokio::join!(storing, reading);
    println!("{clicks} clicks stored one by one, slowest answer {} ms", slowest.as_millis());
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert_eq!(has_day(&tracker.pool, 0).await, (false, false), "the dump holds its locks");
    let said = tracker.octo.stderr().matches("partitions wait for a lock").count();
    assert!((1..=3).contains(&said), "said {said} times");
    dump.rollback().await.unwrap();
    eventually(PATIENCE, async || {
        let days = (has_day(&tracker.pool, 0).await, has_day(&tracker.pool, 7).await);
        anyhow::ensure!(days == ((true, true), (true, true)), "{days:?}");
        Ok(())
    })
    .await;
    assert_eq!(Table::Clicks.count(&tracker.pool).await.unwrap(), clicks);
    let left = count(&tracker.pool, "SELECT count(*) FROM clicks_default").await;
    assert_eq!(left, 0, "its rows moved into the partition of their day");
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, clicks + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_partition_full_of_rows_stands_in_nobodys_way() {
    let database = Database::create("partitions_default").await;
    let pool = database.pool().await;
    fill(&pool, 100_000, 1, 100_000).await; // tomorrow until a quarter to three
    fill(&pool, 5_000, 2, 1_000_000).await;
    fill(&pool, 100_000, 400, 1_000).await; // of a clock that was wrong
    let octo = Octo::builder().database_url(database.url());
    let octo = octo.env("OCTO_DATABASE__PARTITIONS_INTERVAL_S", "1").start().await;
    let token = octo.admin_token().await;
    let tracker = Tracker { octo, pool, token, database };
    tracker.simple_campaign("demo").await;
    let requests = (0..500).map(|_| b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n".to_vec()).collect();
    let answers = send_all(tracker.octo.addr(), requests, 16).await;
    assert!(answers.iter().all(|answer| answer.status == 302));
    for day in -2..=7 {
        eventually(PATIENCE, async || {
            anyhow::ensure!(has_day(&tracker.pool, day).await == (true, true), "{day}");
            Ok(())
        })
        .await;
    }
    tracker.wait_rows(Table::Clicks, 205_500).await;
    let distinct = count(&tracker.pool, "SELECT count(DISTINCT id) FROM clicks").await;
    assert_eq!(distinct, 205_500, "each is there once");
    let left = count(&tracker.pool, "SELECT count(*) FROM clicks_default").await;
    assert_eq!(left, 200_000, "the few moved, the many stayed");
    let exclusions =
        count(&tracker.pool, "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'octo_day_%'").await;
    assert_eq!(exclusions, 0);
    // what comes of that day later than the rows that stayed has a partition
    fill(&tracker.pool, 90_000, 1, 900_000).await;
    let moved = count(
        &tracker.pool,
        "SELECT count(*) FROM clicks WHERE tableoid = to_regclass('clicks_' || to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD'))",
    )
    .await;
    // those after 99,999 tenths of a second
    assert_eq!(moved, 90_000 - 11_111 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_partition_too_big_to_be_scanned_under_a_lock_is_checked_without_one() {
    let database = Database::create("partitions_scan").await;
    let pool = database.pool().await;
    let db = db(&database);
    fill(&pool, 600_000, 400, 1_000).await;
    // far less than the scan takes
    let options = Options { lock_timeout: Duration::from_millis(20), ..OPTIONS };
    let scan = Instant::now();
    count(&pool, "SELECT count(*) FROM clicks_default WHERE updated_at > created_at").await;
    println!("a scan takes {} ms", scan.elapsed().as_millis());
    eventually(PATIENCE, async || {
        partitions::make(&db, 7, options).await?;
        let there = [has_day(&pool, 2).await.0, has_day(&pool, 7).await.0];
        anyhow::ensure!(there == [true, true], "{there:?}");
        Ok(())
    })
    .await;
    let days = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE inhparent = 'clicks'::regclass AND relname ~ '_2'";
    let exclusions = "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'octo_day_%'";
    println!("{} days, {} exclusions left", count(&pool, days).await, count(&pool, exclusions).await);
    // a constraint that is left is of a day without a partition, and the next round takes it away
    eventually(PATIENCE, async || {
        partitions::make(&db, 7, OPTIONS).await?;
        let (days, exclusions) = (count(&pool, days).await, count(&pool, exclusions).await);
        anyhow::ensure!((days, exclusions) == (10, 0), "{days} days, {exclusions} exclusions");
        Ok(())
    })
    .await;
    assert_eq!(Table::Clicks.count(&pool).await.unwrap(), 600_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_is_kept_out_of_default_is_waited_for_and_makes_no_dead_letter() {
    let tracker = Tracker::start("partitions_excluded").await;
    tracker.simple_campaign("demo").await;
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    // as if today had no partition and a constraint that nobody took away
    let exclude = "
        DO $$ BEGIN
            EXECUTE 'DROP TABLE clicks_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD');
        END $$;
        ALTER TABLE clicks_default ADD CONSTRAINT octo_day_today CHECK (created_at < now() - interval '1 hour') NOT VALID";
    sqlx::raw_sql(exclude).execute(&tracker.pool).await.unwrap();
    tracker.click("/c/demo").await;
    eventually(PATIENCE, async || {
        let metrics = tracker.octo.metrics().await;
        let errors = metrics.lines().filter(|line| line.starts_with("octo_drain_errors_total"));
        anyhow::ensure!(errors.clone().any(|line| !line.ends_with(" 0")), "the drain has not tried");
        Ok(())
    })
    .await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    let drop = "ALTER TABLE clicks_default DROP CONSTRAINT octo_day_today";
    sqlx::raw_sql(drop).execute(&tracker.pool).await.unwrap();
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
}

const OLD: &str = "
INSERT INTO event_keys (id, created_at) SELECT gen_random_uuid(), now() - interval '31 days' FROM generate_series(1, 25500);
INSERT INTO event_keys (id, created_at) SELECT gen_random_uuid(), now() - interval '29 days' FROM generate_series(1, 10);
INSERT INTO events_default (id, event_type, created_at)
SELECT gen_random_uuid(), 'view', now() - interval '60 days' FROM generate_series(1, 100);
INSERT INTO dead_letters (stream, seq, record, sqlstate, message, created_at)
SELECT gen_random_uuid(), 1, '', '22000', '', now() - i * interval '1 day' FROM generate_series(28, 33) AS i;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_deletes_in_chunks_and_drops_when_it_can_have_the_lock() {
    let database = Database::create("partitions_old").await;
    let pool = database.pool().await;
    let db = db(&database);
    sqlx::raw_sql(DAY_PARTITIONS).execute(&pool).await.unwrap();
    sqlx::raw_sql(OLD).execute(&pool).await.unwrap();
    let mut dump = pool.begin().await.unwrap();
    dump.execute("SELECT FROM clicks LIMIT 1").await.unwrap();
    let began = Instant::now();
    let round = partitions::drop_old(&db, 20, OPTIONS).await.unwrap();
    // 31 to 21 days ago: of the clicks none can go, and only the first was waited for
    assert_eq!(round, Round { done: 11, busy: 11 }, "after {:?}", began.elapsed());
    // deleting waits for no dump, and leaves what another transaction has in hand
    let mut other = pool.begin().await.unwrap();
    other.execute("SELECT FROM event_keys ORDER BY created_at LIMIT 5 FOR UPDATE").await.unwrap();
    let deleted = partitions::delete_old(&db, 30, Options { delete_rows: 1_000, ..OPTIONS }).await.unwrap();
    assert_eq!(deleted, 25_495 + 100 + 4, "keys, events and letters of 30 days ago and before");
    other.rollback().await.unwrap();
    assert_eq!(partitions::delete_old(&db, 30, OPTIONS).await.unwrap(), 5);
    assert_eq!(count(&pool, "SELECT count(*) FROM event_keys").await, 10);
    dump.rollback().await.unwrap();
    assert_eq!(partitions::drop_old(&db, 20, OPTIONS).await.unwrap(), Round { done: 11, busy: 0 });
    // nor a table that somebody took off its parent to keep it
    let keep = "DO $$ BEGIN EXECUTE format('ALTER TABLE clicks DETACH PARTITION clicks_%s',
        to_char((now() AT TIME ZONE 'UTC')::date - 20, 'YYYYMMDD')); END $$";
    sqlx::raw_sql(keep).execute(&pool).await.unwrap();
    assert_eq!(partitions::drop_old(&db, 1, OPTIONS).await.unwrap().busy, 0);
    assert_eq!(has_day(&pool, -20).await, (true, false));
    assert_eq!(
        (has_day(&pool, -1).await, has_day(&pool, 0).await),
        ((true, true), (true, true)),
        "not a day old"
    );
}
