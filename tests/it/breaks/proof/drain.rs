//! Journal to Postgres: rows that Postgres refuses, and roll-ups that agree.

use futures_util::future::join_all;
use octo::{
    config::{Flags, Loaded},
    db::{
        Db,
        partitions::{self, Options, Round},
    },
};

use crate::{
    harness::{DAY_PARTITIONS, Database},
    load::send_all,
    tracker::{Table, Tracker, assert_roll_ups_agree},
};

/// Postgres refuses what a trigger says: any record of the journal can be made a poisonous one.
const REFUSE_EVERY_HUNDREDTH: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sub1 ~ '00$' THEN RAISE EXCEPTION 'poison' USING ERRCODE = '22003'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION refuse();";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_postgres_refuses_become_dead_letters_and_the_others_are_stored() {
    let tracker = Tracker::start("drain_poison").await;
    tracker.simple_campaign("demo").await;
    sqlx::raw_sql(REFUSE_EVERY_HUNDREDTH).execute(&tracker.pool).await.unwrap();
    let requests = (1..=1000)
        .map(|i| format!("GET /click?cid=demo&sub1={i} HTTP/1.1\r\nHost: t\r\n\r\n").into_bytes())
        .collect();
    let answers = send_all(tracker.octo.addr(), requests, 32).await;
    assert!(answers.len() == 1000 && answers.iter().all(|a| a.status == 302));
    tracker.wait_rows(Table::DeadLetters, 10).await;
    tracker.wait_rows(Table::Clicks, 990).await;
    let (codes, kept): (Vec<String>, i64) = sqlx::query_as(
        "SELECT array_agg(DISTINCT sqlstate), count(*) FILTER (WHERE length(record) > 50) FROM dead_letters",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!((codes, kept), (vec!["22003".to_owned()], 10));
    assert_roll_ups_agree(&tracker.pool).await;
    tracker.click("/click?cid=demo&sub1=after").await;
    tracker.wait_rows(Table::Clicks, 991).await;
}

#[tokio::test]
async fn a_missing_table_is_waited_for_and_empties_nothing_into_the_dead_letters() {
    let tracker = Tracker::start("drain_schema").await;
    tracker.simple_campaign("demo").await;
    sqlx::raw_sql("ALTER TABLE campaign_stats_hourly RENAME TO elsewhere")
        .execute(&tracker.pool)
        .await
        .unwrap();
    tracker.click("/click?cid=demo").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(Table::Clicks.count(&tracker.pool).await.unwrap(), 0);
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    sqlx::raw_sql("ALTER TABLE elsewhere RENAME TO campaign_stats_hourly")
        .execute(&tracker.pool)
        .await
        .unwrap();
    tracker.wait_rows(Table::Clicks, 1).await;
}

#[tokio::test]
async fn partitions_are_made_ahead_and_the_watermark_is_where_the_journal_ends() {
    let tracker = Tracker::start("drain_partitions").await;
    tracker.simple_campaign("demo").await;
    for _ in 0..5 {
        tracker.click("/c/demo").await;
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    let (partitions, seq): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'clicks'::regclass), (SELECT sum(seq)::bigint FROM ingest_watermark)",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!((partitions, seq), (11, 5), "two days back, today, seven ahead, and the default");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_make_and_drop_partitions_one_after_the_other() {
    let database = Database::create("drain_together").await;
    let loaded = Loaded::load(None, [], &Flags::default()).unwrap();
    let db = Db::new(&database.url().into(), &loaded.config.database).unwrap();
    sqlx::raw_sql(DAY_PARTITIONS).execute(&database.pool().await).await.unwrap();
    let options = Options::from(&loaded.config.database);
    let sum = |rounds: Vec<Result<Round, _>>| {
        rounds.into_iter().map(Result::unwrap).fold((0, 0), |(done, busy), r| (done + r.done, busy + r.busy))
    };
    let dropped = join_all((0..8).map(|_| partitions::drop_old(&db, 20, options))).await;
    assert_eq!(sum(dropped), (22, 0), "31 to 21 days ago, of clicks and of events");
    let made = join_all((0..8).map(|_| partitions::make(&db, 12, options))).await;
    assert_eq!(sum(made), (25, 0), "8 to 12 days ahead, and of out-clicks two days back to 12 ahead");
}

#[tokio::test]
async fn retention_drops_old_partitions_and_keeps_the_rest() {
    let tracker = Tracker::start("drain_retention").await;
    sqlx::raw_sql("SELECT octo_make_partitions(7)").execute(&tracker.pool).await.unwrap();
    let left: i64 = sqlx::query_scalar(
        "WITH dropped AS (SELECT octo_drop_partitions(now() - interval '1 day')) SELECT count(*) FROM dropped",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!(left, 1);
    let partitions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = 'clicks'::regclass")
            .fetch_one(&tracker.pool)
            .await
            .unwrap();
    assert_eq!(partitions, 10, "the day before yesterday is gone");
}
