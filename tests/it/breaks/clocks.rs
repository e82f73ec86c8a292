//! A clock that is wrong: octo alone under a shifted one (libfaketime, steered by a file), PostgreSQL's is right.
//!
//! Only the wall clock is shifted. The one that timers run by is left alone, as it is when somebody sets a clock.

use std::{fs, path::PathBuf, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use octo::model::id::time_of_uuid;
use uuid::Uuid;

use crate::{
    harness::{DAY_PARTITIONS, Database, Octo, OctoBuilder, eventually},
    tracker::{SOON, Table, Tracker},
};

/// How long a round of partition work may take to come on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// The clock of one octo.
struct Clock(tempfile::NamedTempFile);

impl Clock {
    /// `+400d`, `-20000d`, `+0`
    fn shifted(by: &str) -> Self {
        let clock = Self(tempfile::NamedTempFile::new().unwrap());
        clock.shift(by);
        clock
    }

    fn shift(&self, by: &str) {
        fs::write(self.0.path(), by).unwrap();
    }

    fn of(&self, builder: OctoBuilder) -> OctoBuilder {
        builder
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.0.path())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .env("OCTO_CLOCK__CHECK_INTERVAL_S", "1")
            .env("OCTO_DATABASE__PARTITIONS_INTERVAL_S", "1")
    }
}

fn library() -> PathBuf {
    let machines = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut found = machines.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.is_file()).expect("the tests need libfaketime: install Debian's package faketime")
}

async fn wait_metric(octo: &Octo, name: &str, is: impl Fn(f64) -> bool) {
    eventually(SOON, async || {
        let value = octo.gauge(name).await;
        anyhow::ensure!(is(value), "{name} {value}");
        Ok(())
    })
    .await;
}

/// What retention, erasures and keys would delete one day, of today and of long ago.
const THINGS_WITH_AN_AGE: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, created_at, updated_at)
SELECT gen_random_uuid(), gen_random_uuid(), true, false, at, at
FROM generate_series(now() - interval '29 days', now() + interval '7 days', '3 hours') AS at;
INSERT INTO events (id, event_type, created_at)
SELECT gen_random_uuid(), 'view', at
FROM generate_series(now() - interval '29 days', now() + interval '7 days', '3 hours') AS at;
INSERT INTO event_keys (id, created_at) SELECT id, created_at FROM events;
INSERT INTO dead_letters (stream, seq, record, sqlstate, message) VALUES (gen_random_uuid(), 1, '', '22000', '');
INSERT INTO erasures (click_id, created_at) VALUES (gen_random_uuid(), now());
INSERT INTO visitor_keys (day, key) VALUES ((now() AT TIME ZONE 'UTC')::date, decode(repeat('00', 16), 'hex'));
INSERT INTO api_tokens (id, name, scope, token_sha256)
VALUES ('00000000-0000-7000-8000-000000000001', 'x', 'read', sha256('x'));
INSERT INTO idempotency_keys (token_id, key, fingerprint, object_id, locked_until, status)
VALUES ('00000000-0000-7000-8000-000000000001', 'k', sha256('x'), gen_random_uuid(), now(), 200);
-- 60 days ago
INSERT INTO clicks_default (id, campaign_id, is_valid, is_bot, created_at, updated_at)
SELECT gen_random_uuid(), gen_random_uuid(), true, false, at, at FROM (SELECT now() - interval '60 days' AS at) AS t;";

const COUNTS: &str = "
SELECT ARRAY[
    (SELECT count(*) FROM clicks),
    (SELECT count(*) FROM events),
    (SELECT count(*) FROM event_keys),
    (SELECT count(*) FROM dead_letters),
    (SELECT count(*) FROM erasures),
    (SELECT count(*) FROM visitor_keys WHERE key = decode(repeat('00', 16), 'hex')),
    (SELECT count(*) FROM idempotency_keys),
    (SELECT count(*) FROM pg_inherits WHERE inhparent IN ('clicks'::regclass, 'events'::regclass))
]";

#[tokio::test]
async fn a_node_whose_clock_is_wrong_deletes_nothing_and_says_so() {
    let database = Database::create("clocks_skew").await;
    let pool = database.pool().await;
    sqlx::raw_sql(DAY_PARTITIONS).execute(&pool).await.unwrap();
    sqlx::raw_sql(THINGS_WITH_AN_AGE).execute(&pool).await.unwrap();
    let counts = async || -> Vec<i64> { sqlx::query_scalar(COUNTS).fetch_one(&pool).await.unwrap() };
    let before = counts().await;
    let clock = Clock::shifted("+400d");
    let octo = clock.of(Octo::builder().database_url(database.url()));
    let octo = octo
        .env("OCTO_PRIVACY__RETENTION_DAYS", "30")
        .env("OCTO_PRIVACY__ERASURE_KEEP_DAYS", "30")
        .env("OCTO_PRIVACY__IP_MODE", "hash")
        .start()
        .await;
    let days = 86_400.0;
    wait_metric(&octo, "octo_clock_skew_seconds", |ahead| (ahead - 400.0 * days).abs() < 60.0).await;
    let rounds = |said: &str| octo.stderr().matches(said).count();
    eventually(PATIENCE, async || {
        anyhow::ensure!(rounds("nothing is deleted for its age") >= 4, "two rounds");
        Ok(())
    })
    .await;
    assert_eq!(counts().await, before, "400 days ahead");
    // behind is no better: it would keep everything by itself, but the other one may be the wrong one
    clock.shift("-1h");
    wait_metric(&octo, "octo_clock_skew_seconds", |ahead| (ahead + 3600.0).abs() < 60.0).await;
    let said = rounds("nothing is deleted for its age");
    eventually(PATIENCE, async || {
        anyhow::ensure!(rounds("nothing is deleted for its age") >= said + 3, "two rounds");
        Ok(())
    })
    .await;
    assert_eq!(counts().await, before, "an hour behind");
    // with a right one retention goes on: the click of 60 days ago, and the days that are over by then
    clock.shift("+0");
    eventually(PATIENCE, async || {
        let now = counts().await;
        anyhow::ensure!(now[0] == before[0] - 1 && now[7] < before[7], "{now:?}");
        Ok(())
    })
    .await;
    assert_eq!(counts().await[1..7], before[1..7], "what is young stays");
    wait_metric(&octo, "octo_clock_skew_seconds", |ahead| ahead.abs() < 30.0).await;
    assert!(octo.stderr().contains("agree again"));
}

#[tokio::test]
async fn ids_follow_the_clock_back_after_a_jump() {
    let clock = Clock::shifted("+0");
    let tracker = Tracker::start_with("clocks_jump", |builder| clock.of(builder)).await;
    tracker.simple_campaign("demo").await;
    let is_now = |id: Uuid| (time_of_uuid(id) - Utc::now()).abs() < TimeDelta::minutes(1);
    let ahead = |direction: &str| format!("octo_clock_jumps_total{{direction=\"{direction}\"}}");
    let (_, first) = tracker.click("/c/demo").await;
    assert!(is_now(first), "{first}");
    clock.shift("+400d");
    wait_metric(&tracker.octo, &ahead("ahead"), |jumps| jumps >= 1.0).await;
    let (_, odd) = tracker.click("/c/demo").await;
    assert!(time_of_uuid(odd) > Utc::now() + TimeDelta::days(399), "the clock is the one of the test: {odd}");
    clock.shift("+0");
    wait_metric(&tracker.octo, &ahead("back"), |jumps| jumps >= 1.0).await;
    for _ in 0..3 {
        let (_, id) = tracker.click("/c/demo").await;
        assert!(is_now(id), "{} after the clock is right again", time_of_uuid(id));
    }
    tracker.wait_rows(Table::Clicks, 5).await;
    let today: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM clicks WHERE created_at BETWEEN now() - interval '5 minutes' AND now() + interval '5 minutes'",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!(today, 4);
    // an event of the click of the future, made with the right clock, is found with it
    let event = serde_json::json!({ "event_type": "view", "click_id": odd });
    let sent = tracker.octo.client().post(tracker.octo.url("/event")).json(&event).send().await.unwrap();
    assert_eq!(sent.status(), 202);
    tracker.wait_rows(Table::Events, 1).await;
    let list = tracker.api(reqwest::Method::GET, &format!("/events?click_id={odd}")).send().await.unwrap();
    let list: serde_json::Value = list.json().await.unwrap();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1), "{list}");
}

#[tokio::test]
async fn a_journal_begun_by_a_clock_that_was_ahead_is_drained_in_order_by_later_starts() {
    let clock = Clock::shifted("+400d");
    let mut tracker = Tracker::start_with("clocks_streams", |builder| clock.of(builder)).await;
    tracker.simple_campaign("demo").await;
    sqlx::raw_sql("ALTER TABLE campaign_stats_hourly RENAME TO held").execute(&tracker.pool).await.unwrap();
    let mut clicks = Vec::new();
    for shift in ["+0", "-1d"] {
        for _ in 0..3 {
            clicks.push(tracker.click("/c/demo").await.1);
        }
        tracker.octo.kill9().await;
        clock.shift(shift);
        tracker.octo.start_again().await;
    }
    let journal = tracker.octo.inspect_journal().await;
    let streams: Vec<Uuid> = journal["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(streams.len() >= 2 && streams.is_sorted(), "{journal}");
    sqlx::raw_sql("ALTER TABLE held RENAME TO campaign_stats_hourly").execute(&tracker.pool).await.unwrap();
    tracker.wait_rows(Table::Clicks, 6).await;
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 7).await;
    let begun: Vec<(Uuid, i64)> = sqlx::query_as("SELECT stream, seq FROM ingest_watermark ORDER BY stream")
        .fetch_all(&tracker.pool)
        .await
        .unwrap();
    // as they were begun: three clicks, three, one
    let seqs: Vec<i64> = begun.iter().map(|(_, seq)| *seq).filter(|seq| *seq > 0).collect();
    assert_eq!(seqs, [3, 3, 1], "{begun:?}");
}

#[tokio::test]
async fn a_clock_that_cannot_be_right_is_said_and_its_clicks_are_not_too_old_to_keep() {
    let clock = Clock::shifted("-20000d");
    let tracker = Tracker::start_with("clocks_1970", |builder| {
        clock.of(builder).env("OCTO_PRIVACY__RETENTION_DAYS", "30")
    })
    .await;
    tracker.simple_campaign("demo").await;
    wait_metric(&tracker.octo, "octo_clock_plausible", |is| is < 0.5).await;
    assert!(tracker.octo.stderr().contains("cannot be right"));
    let (_, id) = tracker.click("/c/demo").await;
    assert!(time_of_uuid(id) < DateTime::UNIX_EPOCH + TimeDelta::days(2000), "{id}");
    tracker.wait_rows(Table::Clicks, 1).await;
    clock.shift("+0");
    wait_metric(&tracker.octo, "octo_clock_plausible", |is| is > 0.5).await;
    // old enough to go, and there to show that a round of retention was here
    let insert =
        "INSERT INTO event_keys (id, created_at) VALUES (gen_random_uuid(), now() - interval '31 days')";
    sqlx::raw_sql(insert).execute(&tracker.pool).await.unwrap();
    eventually(PATIENCE, async || {
        let keys: i64 =
            sqlx::query_scalar("SELECT count(*) FROM event_keys").fetch_one(&tracker.pool).await?;
        anyhow::ensure!(keys == 0, "retention has not been here");
        Ok(())
    })
    .await;
    assert_eq!(
        Table::Clicks.count(&tracker.pool).await.unwrap(),
        1,
        "the click is of today, whatever it says"
    );
}
