//! Every confirmed click and event is in Postgres exactly once, whatever happens between octo and it: answers that
//! are lost, late or never come, connections that end anywhere, servers that come back, also older than they were.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use octo::db::ingest::{Ingest, Rows, StoreError};
use serde_json::{Value, json};
use sqlx::{Connection, PgPool};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, OctoBuilder, PrivatePostgres, eventually, migrate},
    load::send_all,
    records::{click, encode_click, encode_event, event, write_journal},
    tracker::{OFFER, SOON, Table, assert_roll_ups_agree},
    wire::{Fault, Proxy},
};

const MOVED: &str = "octo_drain_errors_total{class=\"moved\"}";
/// How long faults and what follows them may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What was sent, and confirmed.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    pub(crate) clicks: Vec<Uuid>,
    events: BTreeSet<Uuid>,
    /// Records of the journal: an event that is sent twice is two.
    pub(crate) records: usize,
}

/// Clicks and events without a pause, until it is told to stop.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    task: JoinHandle<Confirmed>,
}

impl Load {
    pub(crate) fn start(octo: &Octo) -> Self {
        let (is_over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (address, over, counted) = (octo.addr(), is_over.clone(), rounds.clone());
        let task = tokio::spawn(async move {
            let mut confirmed = Confirmed::default();
            let mut idempotent = Uuid::new_v4();
            while !over.load(Ordering::SeqCst) {
                let clicks = vec![
                    b"GET /click?cid=demo&cost=0.01&currency=EUR HTTP/1.1\r\nHost: t\r\n\r\n"
                        .to_vec();
                    10
                ];
                let answers = send_all(address, clicks, 3).await;
                assert!(answers.len() == 10 && answers.iter().all(|a| a.status == 302), "no click waits");
                confirmed.clicks.extend(answers.iter().map(|a| a.id.expect("an id")));
                confirmed.records += 10;
                // one of this round twice, and once more in the next round; and two that are never the same
                let again = std::mem::replace(&mut idempotent, Uuid::new_v4());
                let last = confirmed.clicks.last().copied();
                let events =
                    [Some(again), Some(idempotent), Some(idempotent), None, None].map(|id| post(id, last));
                let answers = send_all(address, events.to_vec(), 2).await;
                assert!(answers.len() == 5 && answers.iter().all(|a| a.status == 202), "nor does an event");
                confirmed.events.extend(answers.iter().map(|a| a.id.expect("an id")));
                confirmed.records += 5;
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            confirmed
        });
        Self { is_over, rounds, task }
    }

    /// Waits until there was some load more.
    pub(crate) async fn go_on(&self, rounds: usize) {
        let wanted = self.rounds.load(Ordering::SeqCst) + rounds;
        eventually(PATIENCE, async || {
            let rounds = self.rounds.load(Ordering::SeqCst);
            anyhow::ensure!(!self.task.is_finished(), "the load has failed");
            anyhow::ensure!(rounds >= wanted, "{rounds} rounds of {wanted}");
            Ok(())
        })
        .await;
    }

    pub(crate) async fn stop(self) -> Confirmed {
        self.is_over.store(true, Ordering::SeqCst);
        self.task.await.expect("the load")
    }
}

fn post(event_id: Option<Uuid>, click_id: Option<Uuid>) -> Vec<u8> {
    let body = json!({ "event_type": "view", "cid": "demo", "click_id": click_id, "event_id": event_id,
                       "properties": { "n": 1 } })
    .to_string();
    let length = body.len();
    format!("POST /event HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// An octo that gives up soon and comes back soon, with a campaign.
pub(crate) async fn octo(url: String, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Octo {
    let mut builder = Octo::builder().database_url(url);
    for (key, value) in [
        ("STATEMENT_TIMEOUT_MS", "300"),
        ("RETRY_MIN_MS", "10"),
        ("RETRY_MAX_MS", "100"),
        ("LINGER_MS", "10"),
        ("CHECK_INTERVAL_MS", "200"),
    ] {
        builder = builder.env(&format!("OCTO_DRAIN__{key}"), value);
    }
    let octo = set(builder).start().await;
    octo.create_campaign("demo", OFFER).await;
    octo
}

/// Waits until everything is drained, and looks whether it is there once.
pub(crate) async fn assert_exactly_once(octo: &Octo, pool: &PgPool, confirmed: &Confirmed) {
    let records = i64::try_from(confirmed.records).unwrap();
    eventually(PATIENCE, async || {
        let seq: Vec<i64> = sqlx::query_scalar("SELECT seq FROM ingest_watermark").fetch_all(pool).await?;
        anyhow::ensure!(seq == [records], "drained up to {seq:?} of {records}");
        Ok(())
    })
    .await;
    assert_stored_once(pool, confirmed).await;
    let journal = octo.run(&["journal", "verify", "--json"]).await;
    let journal: Value = serde_json::from_slice(&journal.stdout).unwrap();
    assert_eq!((&journal["records"], &journal["damaged_records"]), (&json!(records), &json!(0)));
}

async fn assert_stored_once(pool: &PgPool, confirmed: &Confirmed) {
    let clicks: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM clicks").fetch_all(pool).await.unwrap();
    let events: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM events").fetch_all(pool).await.unwrap();
    assert_eq!(Table::DeadLetters.count(pool).await.unwrap(), 0, "dead letters");
    assert_same("clicks", &clicks, &confirmed.clicks.iter().copied().collect());
    assert_same("events", &events, &confirmed.events);
    assert_roll_ups_agree(pool).await;
}

fn assert_same(what: &str, stored: &[Uuid], confirmed: &BTreeSet<Uuid>) {
    let distinct: BTreeSet<Uuid> = stored.iter().copied().collect();
    let twice = stored.len() - distinct.len();
    let (lost, strange) = (confirmed.difference(&distinct).count(), distinct.difference(confirmed).count());
    assert_eq!(
        (twice, lost, strange),
        (0, 0, 0),
        "{what} that are there twice, that are lost, that nobody sent"
    );
}

/// Under load, with these faults one after the other.
async fn survive(name: &str, faults: Vec<Fault>) {
    let database = Database::create(name).await;
    let proxy = Proxy::start(&database.url()).await;
    let octo = octo(proxy.url(&database.url()), |b| b).await;
    let load = Load::start(&octo);
    load.go_on(3).await;
    let count = faults.len();
    proxy.harm(faults);
    eventually(PATIENCE, async || {
        anyhow::ensure!(!load.task.is_finished(), "the load has failed");
        anyhow::ensure!(proxy.done() == count, "{} of {count} faults", proxy.done());
        Ok(())
    })
    .await;
    load.go_on(3).await;
    let confirmed = load.stop().await;
    assert_exactly_once(&octo, &database.pool().await, &confirmed).await;
    println!(
        "{name}: {count} faults, {} connections of the drain, {} clicks, {} events",
        proxy.drains(),
        confirmed.clicks.len(),
        confirmed.events.len()
    );
    assert!(proxy.drains() > 1, "the drain came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_not_done_again() {
    survive("once_answer_lost", vec![Fault::CutAfterCommit; 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_did_not_arrive_is_done_again() {
    survive("once_commit_lost", vec![Fault::CutBeforeCommit; 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_done_by_a_server_that_fell_silent_is_not_done_again() {
    survive("once_commit_silent", vec![Fault::SilenceAfterCommit; 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_arrives_late_counts_once() {
    survive("once_commit_late", vec![Fault::LateCommit; 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_anywhere_is_left() {
    let silent = |n| Fault::SilenceAfterStatement(n);
    let faults = vec![silent(1), silent(2), Fault::SilentConnection, silent(3), silent(4)];
    survive("once_silent", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_end_between_any_two_statements() {
    let faults = (1..=4).flat_map(|n| [Fault::CutBeforeStatement(n); 2]).collect();
    survive("once_cut", faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_may_be_reset_at_any_byte() {
    for seed in [1, 20_261_123] {
        let mut random = fastrand::Rng::with_seed(seed);
        println!("seed {seed}");
        let faults = (0..30).map(|_| Fault::ResetAfterBytes(random.i64(0..9000))).collect();
        survive("once_reset", faults).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_may_follow_each_other() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut faults: Vec<Fault> = (0..3)
        .flat_map(|i| {
            [
                Fault::CutAfterCommit,
                Fault::CutBeforeCommit,
                Fault::CutBeforeStatement(1 + i),
                Fault::ResetAfterBytes(random.i64(0..9000)),
            ]
        })
        .chain([Fault::LateCommit, Fault::SilenceAfterCommit, Fault::SilenceAfterStatement(2)])
        .collect();
    random.shuffle(&mut faults);
    survive("once_all", faults).await;
}

/// Many rows go in by COPY, which is another conversation than that of prepared statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_may_be_cut_reset_silent_or_unconfirmed() {
    let database = Database::create("once_copy").await;
    let proxy = Proxy::start(&database.url()).await;
    let copy = 2; // behind the watermark
    let faults = [
        Fault::CutBeforeStatement(copy),
        Fault::SilenceAfterStatement(copy),
        Fault::ResetAfterBytes(100_000),
        Fault::CutBeforeStatement(copy + 1),
        Fault::CutBeforeCommit,
        Fault::CutAfterCommit, // the last: then everything is stored
    ];
    proxy.harm(faults);
    let data = tempfile::tempdir().unwrap();
    let clicks: Vec<_> = std::iter::repeat_with(|| click(Uuid::nil())).take(6000).collect();
    let records: Vec<Vec<u8>> = clicks.iter().map(encode_click).collect();
    let stream = write_journal(data.path(), &records).await;
    let builder = Octo::builder().database_url(proxy.url(&database.url())).data_dir(data.path());
    let builder = builder.env("OCTO_DRAIN__RETRY_MAX_MS", "100").env("OCTO_DRAIN__BATCH_ROWS", "200000");
    let _octo = builder.env("OCTO_DRAIN__STATEMENT_TIMEOUT_MS", "2000").start().await;
    let pool = database.pool().await;
    eventually(PATIENCE, async || {
        let seq: i64 = sqlx::query_scalar("SELECT seq FROM ingest_watermark WHERE stream = $1")
            .bind(stream)
            .fetch_one(&pool)
            .await?;
        anyhow::ensure!(seq == 6000, "drained up to {seq}");
        anyhow::ensure!(proxy.done() == faults.len(), "{} of {} faults", proxy.done(), faults.len());
        Ok(())
    })
    .await;
    assert!(proxy.copies() >= faults.len(), "{} COPYs", proxy.copies());
    let confirmed = clicks.iter().map(|click| click.id.uuid()).collect();
    assert_stored_once(&pool, &Confirmed { clicks: confirmed, ..Confirmed::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_may_be_killed_and_stopped_and_come_back() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = octo(postgres.url(), |b| b).await;
    let load = Load::start(&octo);
    load.go_on(10).await;
    postgres.restart_immediate().await;
    load.go_on(10).await;
    postgres.kill9().await;
    load.go_on(10).await;
    postgres.start_again().await;
    load.go_on(10).await;
    postgres.stop_fast().await;
    postgres.start_again().await;
    load.go_on(10).await;
    let confirmed = load.stop().await;
    assert_exactly_once(&octo, &postgres.pool().await, &confirmed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_that_lags_brings_everything_again_that_it_had_not() {
    let mut primary = PrivatePostgres::start().await;
    migrate(&primary.url()).await;
    let replica = primary.replica(None).await;
    let proxy = Proxy::start(&primary.url()).await;
    let octo = octo(proxy.url(&primary.url()), |b| b).await;
    let load = Load::start(&octo);
    let (pool, replica_pool) = (primary.pool().await, replica.pool().await);
    load.go_on(10).await;
    // the replica hears nothing more: an apply delay would end with the promotion, and nothing would be missing
    replica.cut_off().await;
    let seq = async |pool: &PgPool| -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM ingest_watermark").fetch_one(pool).await?)
    };
    eventually(PATIENCE, async || {
        let (ahead, behind) = (seq(&pool).await?, seq(&replica_pool).await?);
        anyhow::ensure!(
            behind > 0 && ahead > behind + 200,
            "the primary is at {ahead}, the replica at {behind}"
        );
        Ok(())
    })
    .await;
    load.go_on(5).await;
    let (ahead, behind) = (seq(&pool).await.unwrap(), seq(&replica_pool).await.unwrap());
    primary.kill9().await;
    replica.promote().await;
    proxy.point_at(&replica.url());
    load.go_on(10).await;
    let confirmed = load.stop().await;
    println!("failover from record {ahead} back to {behind}, {} in the end", confirmed.records);
    assert_exactly_once(&octo, &replica_pool, &confirmed).await;
}

/// What a database held at a moment, and how it becomes older again.
const REMEMBER: &str = "
CREATE TABLE old_clicks AS SELECT * FROM clicks;
CREATE TABLE old_events AS SELECT * FROM events;
CREATE TABLE old_keys AS SELECT * FROM event_keys;
CREATE TABLE old_stats AS SELECT * FROM campaign_stats_hourly;
CREATE TABLE old_costs AS SELECT * FROM campaign_costs_hourly;
CREATE TABLE old_watermark AS SELECT * FROM ingest_watermark";
const GO_BACK: &str = "
BEGIN;
LOCK TABLE ingest_watermark, clicks, events, event_keys, campaign_stats_hourly, campaign_costs_hourly, report_deltas,
    report_hours, report_days, report_parts, report_traffic, report_dimensions, report_overall;
DELETE FROM clicks; INSERT INTO clicks SELECT * FROM old_clicks;
DELETE FROM events; INSERT INTO events SELECT * FROM old_events;
DELETE FROM event_keys; INSERT INTO event_keys SELECT * FROM old_keys;
DELETE FROM campaign_stats_hourly; INSERT INTO campaign_stats_hourly SELECT * FROM old_stats;
DELETE FROM campaign_costs_hourly; INSERT INTO campaign_costs_hourly SELECT * FROM old_costs;
DELETE FROM report_hours;
DELETE FROM report_days;
DELETE FROM report_parts;
DELETE FROM report_traffic;
DELETE FROM report_dimensions;
DELETE FROM report_overall;
DELETE FROM report_deltas;
INSERT INTO report_deltas
SELECT
    time_kind, date_trunc('hour', at, 'UTC'), campaign_id, source_id, rule_id, path_id, landing_page_id, offer_id, country, device,
    os, browser, reason, currency, goal, status, rate_day, clicks, valid_clicks, bot_clicks, unique_clicks, lander_views,
    lander_clicks, offer_clicks, costed_clicks, cost, conversions, amount
FROM report_facts;
UPDATE ingest_watermark w SET seq = o.seq FROM old_watermark o WHERE o.stream = w.stream;
COMMIT";

async fn wait_clicks(pool: &PgPool) {
    eventually(SOON, async || {
        anyhow::ensure!(Table::Clicks.count(pool).await? > 0, "nothing is stored yet");
        Ok(())
    })
    .await;
}

async fn remember(pool: &PgPool) -> i64 {
    let mut connection = pool.acquire().await.unwrap();
    let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sqlx::raw_sql(REMEMBER).execute(&mut *transaction).await.unwrap();
    let seq = sqlx::query_scalar("SELECT seq FROM old_watermark").fetch_one(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_set_back_with_its_rows_brings_them_again_under_load() {
    let database = Database::create("once_rewound").await;
    let (octo, pool) = (octo(database.url(), |b| b).await, database.pool().await);
    let load = Load::start(&octo);
    load.go_on(10).await;
    wait_clicks(&pool).await;
    let seq = remember(&pool).await;
    load.go_on(20).await;
    sqlx::raw_sql(GO_BACK).execute(&pool).await.unwrap();
    load.go_on(10).await;
    let confirmed = load.stop().await;
    println!("set back to record {seq} of {}", confirmed.records);
    assert_exactly_once(&octo, &pool, &confirmed).await;
    assert!(octo.metric(MOVED).await > 0, "it was noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_set_back_with_its_rows_brings_them_again_when_nothing_else_happens() {
    let database = Database::create("once_rewound_idle").await;
    let (octo, pool) = (octo(database.url(), |b| b).await, database.pool().await);
    let load = Load::start(&octo);
    load.go_on(5).await;
    wait_clicks(&pool).await;
    let seq = remember(&pool).await;
    load.go_on(10).await;
    let confirmed = load.stop().await;
    assert_exactly_once(&octo, &pool, &confirmed).await;
    assert!(seq < i64::try_from(confirmed.records).unwrap());
    sqlx::raw_sql(GO_BACK).execute(&pool).await.unwrap();
    assert_exactly_once(&octo, &pool, &confirmed).await;
}

/// Waits until nothing is on its way, and looks whether everything is there once, whatever the watermarks are called.
async fn assert_all_stored_once(octo: &Octo, pool: &PgPool, confirmed: &Confirmed) {
    eventually(PATIENCE, async || {
        let (clicks, events) = (Table::Clicks.count(pool).await?, Table::Events.count(pool).await?);
        anyhow::ensure!(
            usize::try_from(clicks)? >= confirmed.clicks.len()
                && usize::try_from(events)? >= confirmed.events.len(),
            "{clicks} clicks of {}, {events} events of {}",
            confirmed.clicks.len(),
            confirmed.events.len()
        );
        anyhow::ensure!(octo.metric("octo_journal_pending_records").await == 0, "records are on their way");
        Ok(())
    })
    .await;
    assert_stored_once(pool, confirmed).await;
}

const MOVE_ON: &str = "UPDATE ingest_watermark SET seq = seq + $1";

/// As when a clone of a virtual machine goes on with its memory: somebody else stores other records under our
/// sequences, a few or many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_that_somebody_else_moved_on_swallows_nothing() {
    let database = Database::create("once_foreign").await;
    let (mut octo, pool) = (octo(database.url(), |b| b).await, database.pool().await);
    let mut confirmed = Confirmed::default();
    for records in [3, 1000] {
        let load = Load::start(&octo);
        load.go_on(5).await;
        wait_clicks(&pool).await;
        sqlx::query(MOVE_ON).bind(records).execute(&pool).await.unwrap();
        load.go_on(5).await;
        let more = load.stop().await;
        confirmed.clicks.extend(more.clicks);
        confirmed.events.extend(more.events);
        assert_all_stored_once(&octo, &pool, &confirmed).await;
    }
    assert_eq!(octo.metric("octo_journal_foreign_watermarks_total").await, 2);
    assert!(octo.stderr().contains("another machine has a copy of the journal"), "{}", octo.stderr());
    let inspected = octo.inspect_journal().await;
    assert_ne!(inspected["streams"][0]["watermark"], inspected["streams"][0]["id"]);

    // of an earlier start: all that is left of it is sent again, and recognised
    octo.kill9().await;
    sqlx::query(MOVE_ON).bind(1000).execute(&pool).await.unwrap();
    octo.start_again().await;
    let load = Load::start(&octo);
    load.go_on(5).await;
    let more = load.stop().await;
    confirmed.clicks.extend(more.clicks);
    confirmed.events.extend(more.events);
    assert_all_stored_once(&octo, &pool, &confirmed).await;
    assert_eq!(octo.metric("octo_journal_foreign_watermarks_total").await, 1);
    assert!(octo.metric("octo_drain_already_stored_total").await > 0);

    // and once it is said, it stays so
    octo.kill9().await;
    octo.start_again().await;
    assert_all_stored_once(&octo, &pool, &confirmed).await;
    assert_eq!(octo.metric("octo_journal_foreign_watermarks_total").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_sent_again_are_recognised_and_become_no_dead_letters() {
    let database = Database::create("once_again").await;
    let (octo, pool) = (octo(database.url(), |b| b).await, database.pool().await);
    let load = Load::start(&octo);
    load.go_on(5).await;
    let confirmed = load.stop().await;
    assert_exactly_once(&octo, &pool, &confirmed).await;
    sqlx::query("UPDATE ingest_watermark SET seq = 0").execute(&pool).await.unwrap();
    assert_exactly_once(&octo, &pool, &confirmed).await;
    assert!(octo.metric("octo_drain_already_stored_total").await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_octos_that_drain_copies_of_one_journal_store_it_once() {
    let database = Database::create("once_cloned").await;
    let campaign = Uuid::now_v7();
    let mut confirmed = Confirmed::default();
    let records: Vec<Vec<u8>> = (0..6000)
        .map(|i| {
            if i % 10 == 0 {
                let event = event(campaign);
                confirmed.events.insert(event.id);
                return encode_event(&event);
            }
            let click = click(campaign);
            confirmed.clicks.push(click.id.uuid());
            encode_click(&click)
        })
        .collect();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stream = write_journal(one.path(), &records).await;
    let mut copy = tokio::process::Command::new("cp");
    copy.arg("-R").arg(one.path().join("journal")).arg(two.path());
    assert!(copy.status().await.unwrap().success());
    let start = |data: &std::path::Path| {
        let builder = Octo::builder().database_url(database.url()).data_dir(data);
        builder.env("OCTO_DRAIN__BATCH_ROWS", "10").env("OCTO_DRAIN__RETRY_MIN_MS", "1").start()
    };
    let (one, two) = tokio::join!(start(one.path()), start(two.path()));
    let pool = database.pool().await;
    eventually(PATIENCE, async || {
        let seq: i64 = sqlx::query_scalar("SELECT seq FROM ingest_watermark WHERE stream = $1")
            .bind(stream)
            .fetch_one(&pool)
            .await?;
        anyhow::ensure!(seq == 6000, "drained up to {seq}");
        Ok(())
    })
    .await;
    assert_stored_once(&pool, &confirmed).await;
    let mut moved = 0;
    for octo in [&one, &two] {
        moved += octo.metric(MOVED).await;
    }
    println!("two drains of one stream met {moved} times");
    assert!(moved > 0, "they met");
}

#[tokio::test]
async fn of_two_drains_at_the_same_place_one_stores_and_the_other_is_told() {
    let database = Database::create("once_moved").await;
    let loaded = octo::config::Loaded::load(None, [], &octo::config::Flags::default()).unwrap();
    let primary =
        octo::db::pool::Pool::new("primary", &database.url().into(), &loaded.config.database).unwrap();
    let connect = || Ingest::connect(&primary, Duration::from_secs(5));
    let (mut one, mut two) = (connect().await.unwrap(), connect().await.unwrap());
    let stream = Uuid::now_v7();
    assert_eq!(one.watermarks(&[(stream, 0)]).await.unwrap()[&stream], 0);
    let clicks: Vec<_> = (0..100).map(|_| click(Uuid::nil())).collect();
    // of two different batches, so that no key of the rows keeps them apart
    let (of_one, of_two) = clicks.split_at(50);
    let mut of_one = Rows { clicks: of_one.iter().collect(), ..Rows::default() };
    let mut of_two = Rows { clicks: of_two.iter().collect(), ..Rows::default() };
    let answers = tokio::join!(one.store(stream, 0, 50, &mut of_one), two.store(stream, 0, 50, &mut of_two));
    let moved = [&answers.0, &answers.1].into_iter().filter(|a| matches!(a, Err(StoreError::Moved))).count();
    assert!(moved == 1 && (answers.0.is_ok() || answers.1.is_ok()), "{answers:?}");
    let pool = database.pool().await;
    assert_eq!(Table::Clicks.count(&pool).await.unwrap(), 50);
    assert_roll_ups_agree(&pool).await;
}
