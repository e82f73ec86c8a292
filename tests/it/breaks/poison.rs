//! Rows that Postgres always refuses, in the middle of good ones: each becomes a dead letter with its SQLSTATE, and
//! nothing else is held up. octo cleans what strangers send, so poison is written into the journal past the edge, or
//! the test's schema refuses what octo's would take.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeZone, Utc};
use octo::{
    facts::{click::Click, event::Event},
    model::id::ClickId,
};
use rust_decimal::Decimal;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, eventually},
    records::{click, encode_click, encode_event, event, write_journal},
    tracker::{Table, Tracker, assert_roll_ups_agree},
};

/// How soon everything good must be stored, from the start of octo on.
const SOON_STORED: Duration = Duration::from_secs(2);
/// A machine that is busy with something else may be too slow for that, now and then: what waits where it should not
/// is too slow each time.
const ATTEMPTS: usize = 5;
const PATIENCE: Duration = Duration::from_mins(1);
const GOOD: usize = 1000;

/// What a class of poison is.
struct Class {
    sqlstate: &'static str,
    /// Records that are refused.
    poison: Vec<Vec<u8>>,
    /// Changes of the schema that refuse them.
    schema: &'static str,
}

/// A started octo that has drained [`GOOD`] good records with poison between them.
struct Drained {
    tracker: Tracker,
    stream: Uuid,
    took: Duration,
    /// Sequences of the poison.
    bad: Vec<i64>,
    _data: tempfile::TempDir,
}

fn campaign() -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)
}

/// Nine clicks and an event, and so on.
fn good() -> Vec<Vec<u8>> {
    (0..GOOD)
        .map(
            |i| if i % 10 == 9 { encode_event(&event(campaign())) } else { encode_click(&click(campaign())) },
        )
        .collect()
}

/// Spreads `poison` evenly over the middle of `good`; gives where it is.
fn mix(good: Vec<Vec<u8>>, poison: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<i64>) {
    let step = good.len() / (poison.len() + 1);
    let mut poison = poison.into_iter();
    let (mut records, mut bad) = (Vec::new(), Vec::new());
    for (i, record) in good.into_iter().enumerate() {
        if i > 0
            && i % step == 0
            && let Some(poison) = poison.next()
        {
            bad.push(i64::try_from(records.len()).unwrap());
            records.push(poison);
        }
        records.push(record);
    }
    (records, bad)
}

async fn drain(name: &str, schema: &'static str, poison: Vec<Vec<u8>>) -> Drained {
    for _ in 1..ATTEMPTS {
        let drained = drain_once(name, schema, poison.clone()).await;
        if drained.took < SOON_STORED {
            return drained;
        }
    }
    drain_once(name, schema, poison).await
}

async fn drain_once(name: &str, schema: &'static str, poison: Vec<Vec<u8>>) -> Drained {
    let database = Database::create(name).await;
    let pool = database.pool().await;
    sqlx::raw_sql(schema).execute(&pool).await.expect("the schema");
    let data = tempfile::tempdir().unwrap();
    let (records, bad) = mix(good(), poison);
    let stream = write_journal(data.path(), &records).await;
    let octo = Octo::builder().database_url(database.url()).data_dir(data.path()).start().await;
    let started = Instant::now();
    let end = i64::try_from(records.len()).unwrap();
    eventually(PATIENCE, async || {
        let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM ingest_watermark WHERE stream = $1")
            .bind(stream)
            .fetch_optional(&pool)
            .await?;
        anyhow::ensure!(seq == Some(end), "drained up to {seq:?} of {end}");
        Ok(())
    })
    .await;
    let took = started.elapsed();
    println!(
        "{name}: {} records, {} of them poison, drained {took:?} after the start",
        records.len(),
        bad.len()
    );
    let token = octo.admin_token().await;
    Drained { tracker: Tracker { octo, pool, token, database }, stream, took, bad, _data: data }
}

impl Drained {
    /// Exactly the poison is dead letters of this SQLSTATE, everything else is stored in time, and octo goes on.
    async fn assert_only_poison_is_dead(&self, sqlstate: &str) {
        let pool = &self.tracker.pool;
        let letters = dead_letters(pool).await;
        let wanted: Vec<_> = self.bad.iter().map(|seq| (self.stream, *seq, sqlstate.to_owned())).collect();
        assert_eq!(letters, wanted);
        self.assert_good_ones_are_stored().await;
    }

    async fn assert_good_ones_are_stored(&self) {
        let pool = &self.tracker.pool;
        let stored = (Table::Clicks.count(pool).await.unwrap(), Table::Events.count(pool).await.unwrap());
        assert_eq!(stored, (900, 100));
        assert_roll_ups_agree(pool).await;
        assert!(self.took < SOON_STORED, "it took {:?}", self.took);
        self.tracker.simple_campaign("after").await;
        self.tracker.click("/c/after").await;
        self.tracker.wait_rows(Table::Clicks, 901).await;
        assert_roll_ups_agree(pool).await;
    }
}

async fn dead_letters(pool: &PgPool) -> Vec<(Uuid, i64, String)> {
    let query = sqlx::query_as("SELECT stream, seq, sqlstate FROM dead_letters ORDER BY stream, seq");
    query.fetch_all(pool).await.expect("the letters")
}

async fn assert_dead(name: &str, class: Class) {
    let drained = drain(name, class.schema, class.poison).await;
    drained.assert_only_poison_is_dead(class.sqlstate).await;
}

fn click_with(change: impl Fn(&mut Click<'static>)) -> Vec<u8> {
    let mut click = click(campaign());
    change(&mut click);
    encode_click(&click)
}

fn event_with(change: impl Fn(&mut Event<'static>)) -> Vec<u8> {
    let mut event = event(campaign());
    change(&mut event);
    encode_event(&event)
}

fn properties(json: &str) -> Vec<u8> {
    event_with(|e| e.properties = Some(json.to_owned().into()))
}

fn nul_in_text() -> Class {
    let click = click_with(|c| c.subs[0] = Some("a\0b".into()));
    let event = event_with(|e| e.user_id = Some("\0".into()));
    Class { sqlstate: "22021", poison: vec![click, event], schema: "" }
}

fn nul_in_json() -> Class {
    Class { sqlstate: "22P05", poison: vec![properties(r#"{"a":"\u0000"}"#)], schema: "" }
}

fn lone_surrogates() -> Class {
    let poison = [r#"{"a":"\ud800"}"#, r#"{"\udc00":1}"#, r#"{"a":"\ud83d\ud83d"}"#];
    Class { sqlstate: "22P02", poison: poison.map(properties).to_vec(), schema: "" }
}

/// What reports have of the column stands in the way of its type.
const NARROW_COSTS: &str = "
DO $$
DECLARE
    facts text := pg_get_viewdef('report_facts'::regclass);
BEGIN
    DROP VIEW report_facts;
    DROP TRIGGER sum_changed_click ON clicks;
    ALTER TABLE clicks ALTER COLUMN cost TYPE numeric(6, 2);
    EXECUTE 'CREATE VIEW report_facts AS ' || facts;
END $$";

/// octo's own column holds every amount that octo takes.
fn numeric_overflow() -> Class {
    let poison = vec![click_with(|c| c.cost = Some(Decimal::new(99_999, 0)))];
    Class { sqlstate: "22003", poison, schema: NARROW_COSTS }
}

/// Before 4713 BC.
fn time_out_of_range() -> Class {
    let poison = vec![event_with(|e| e.created_at = Utc.with_ymd_and_hms(-10_000, 1, 1, 0, 0, 0).unwrap())];
    Class { sqlstate: "22008", poison, schema: "" }
}

fn long_ago() -> Class {
    let event = event_with(|e| e.created_at = Utc.with_ymd_and_hms(1990, 5, 5, 5, 5, 5).unwrap());
    let click = click_with(|c| c.id = click_id_at(631_152_000_000));
    Class { sqlstate: "23514", poison: vec![event, click], schema: DETACHED }
}

const DETACHED: &str = "
ALTER TABLE clicks DETACH PARTITION clicks_default;
ALTER TABLE events DETACH PARTITION events_default;
SELECT octo_make_partitions(7)";

/// A name as long as no index takes, of what does not compress.
fn long_index_entry() -> Class {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(9600).collect();
    let schema = "CREATE UNIQUE INDEX ON clicks (created_at, id, user_agent)";
    Class {
        sqlstate: "54000",
        poison: vec![click_with(|c| c.user_agent = Some(text.clone().into()))],
        schema,
    }
}

fn deep_json() -> Class {
    let json = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    Class { sqlstate: "54001", poison: vec![properties(&json)], schema: "" }
}

/// octo never has the same key twice in one upsert (see below); an owner's trigger may.
fn same_key_twice() -> Class {
    let schema = "
        CREATE TABLE latest (key int PRIMARY KEY, at timestamptz);
        CREATE FUNCTION upsert_twice() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.sub1 = 'twice' THEN
                INSERT INTO latest VALUES (1, now()), (1, now()) ON CONFLICT (key) DO UPDATE SET at = excluded.at;
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER upsert_twice BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION upsert_twice()";
    Class { sqlstate: "21000", poison: vec![click_with(|c| c.subs[0] = Some("twice".into()))], schema }
}

fn check_at_commit() -> Class {
    let schema = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.sub1 = 'late' THEN RAISE EXCEPTION 'poison' USING ERRCODE = '23514'; END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON clicks DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse()";
    Class { sqlstate: "23514", poison: vec![click_with(|c| c.subs[0] = Some("late".into()))], schema }
}

/// A cost that is no number, and bytes that are no record: octo itself refuses to read them.
fn malformed() -> Class {
    let mut not_a_number = click_with(|c| c.cost = Some(Decimal::new(15, 1)));
    replace(&mut not_a_number, b"1.5", b"NaN");
    let mut infinite = click_with(|c| c.cost = Some(Decimal::new(15, 7)));
    replace(&mut infinite, b"0.0000015", b"+Infinity");
    let too_large = click_with(|c| c.cost = Some(Decimal::new(1_000_000_000_000, 0)));
    let cut = good().swap_remove(0)[..30].to_vec();
    Class {
        sqlstate: "malformed",
        poison: vec![not_a_number, infinite, too_large, vec![77; 40], cut],
        schema: "",
    }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len(), "lengths stay");
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    bytes[at..at + to.len()].copy_from_slice(to);
}

fn click_id_at(milliseconds: u128) -> ClickId {
    let id = (milliseconds << 80) | (7 << 76) | (2 << 62) | u128::from(fastrand::u32(..));
    ClickId::from_uuid(Uuid::from_u128(id)).expect("version 7")
}

#[tokio::test]
async fn text_with_nul_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_nul", nul_in_text()).await;
}

#[tokio::test]
async fn json_with_an_escaped_nul_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_json_nul", nul_in_json()).await;
}

#[tokio::test]
async fn lone_surrogates_are_dead_and_the_rest_is_stored() {
    assert_dead("poison_surrogates", lone_surrogates()).await;
}

#[tokio::test]
async fn a_number_too_large_for_its_column_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_numeric", numeric_overflow()).await;
}

#[tokio::test]
async fn a_time_that_postgres_cannot_hold_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_time", time_out_of_range()).await;
}

#[tokio::test]
async fn a_row_without_a_partition_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_partition", long_ago()).await;
}

#[tokio::test]
async fn an_upsert_of_one_key_twice_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_twice", same_key_twice()).await;
}

#[tokio::test]
async fn json_that_is_too_deep_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_deep", deep_json()).await;
}

#[tokio::test]
async fn an_index_entry_that_is_too_large_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_index", long_index_entry()).await;
}

#[tokio::test]
async fn a_row_that_is_refused_at_the_commit_is_dead_and_the_rest_is_stored() {
    assert_dead("poison_commit", check_at_commit()).await;
}

#[tokio::test]
async fn amounts_that_are_no_numbers_and_bytes_that_are_no_records_are_dead_and_the_rest_is_stored() {
    assert_dead("poison_malformed", malformed()).await;
}

#[tokio::test]
async fn twenty_rows_of_every_class_among_a_thousand_hold_up_the_good_ones_for_less_than_two_seconds() {
    let classes = [
        nul_in_text(),
        nul_in_json(),
        lone_surrogates(),
        numeric_overflow(),
        time_out_of_range(),
        long_ago(),
        long_index_entry(),
        deep_json(),
        malformed(),
    ];
    let each: Vec<(&str, Vec<u8>)> =
        classes.into_iter().flat_map(|c| c.poison.into_iter().map(move |p| (c.sqlstate, p))).collect();
    let (sqlstates, poison): (Vec<_>, Vec<_>) = each.into_iter().cycle().take(20).unzip();
    let schema = "
        DO $$
        DECLARE
            facts text := pg_get_viewdef('report_facts'::regclass);
        BEGIN
            DROP VIEW report_facts;
            DROP TRIGGER sum_changed_click ON clicks;
            ALTER TABLE clicks ALTER COLUMN cost TYPE numeric(6, 2);
            EXECUTE 'CREATE VIEW report_facts AS ' || facts;
        END $$;
        CREATE UNIQUE INDEX ON clicks (created_at, id, user_agent);
        ALTER TABLE clicks DETACH PARTITION clicks_default;
        ALTER TABLE events DETACH PARTITION events_default;
        SELECT octo_make_partitions(7)";
    let drained = drain("poison_twenty", schema, poison).await;
    let letters = dead_letters(&drained.tracker.pool).await;
    assert_eq!(letters.iter().map(|l| l.1).collect::<Vec<_>>(), drained.bad);
    assert_eq!(letters.iter().map(|l| l.2.as_str()).collect::<Vec<_>>(), sqlstates);
    drained.assert_good_ones_are_stored().await;
}

#[tokio::test]
async fn the_default_partition_takes_every_time_that_postgres_can_hold() {
    let far = click_with(|c| c.id = click_id_at((1 << 48) - 1)); // the year 10889
    let ago = event_with(|e| e.created_at = DateTime::from_timestamp_millis(-200_000_000_000_123).unwrap()); // -4368
    let ahead =
        event_with(|e| e.created_at = DateTime::from_timestamp_millis(8_000_000_000_000_123).unwrap()); // 255481
    let drained = drain("poison_default", "", vec![far, ago, ahead]).await;
    let pool = &drained.tracker.pool;
    assert_eq!(dead_letters(pool).await, []);
    let elsewhere: (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM clicks_default), (SELECT count(*) FROM events_default)")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(elsewhere, (1, 2));
    assert_roll_ups_agree(pool).await;
}

#[tokio::test]
async fn octo_itself_never_upserts_one_key_twice() {
    let id = Uuid::new_v4();
    let again = event_with(|e| (e.id, e.is_idempotent) = (id, true));
    let drained = drain("poison_same_key", "", vec![again; 20]).await;
    let pool = &drained.tracker.pool;
    assert_eq!(dead_letters(pool).await, []);
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE id = $1")
        .bind(id)
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!((stored, Table::Events.count(pool).await.unwrap()), (1, 101));
    assert_roll_ups_agree(pool).await;
}

#[tokio::test]
async fn what_is_no_number_does_not_get_in() {
    let tracker = Tracker::start("poison_nan").await;
    tracker.simple_campaign("demo").await;
    for cost in ["NaN", "Infinity", "-Infinity", "-1", "1e400", "9999999999999"] {
        tracker.click(&format!("/click?cid=demo&currency=EUR&cost={cost}")).await;
    }
    for (properties, status) in [
        (r#"{"value":NaN}"#, 400),
        (r#"{"value":Infinity}"#, 400),
        (r#"{"value":1e400}"#, 202), // kept as a text
    ] {
        let body = format!(r#"{{"event_type":"sale","cid":"demo","properties":{properties}}}"#);
        let sent = tracker.octo.client().post(tracker.octo.url("/event")).body(body).send().await.unwrap();
        assert_eq!(sent.status(), status, "{properties}");
    }
    tracker.wait_rows(Table::Clicks, 6).await;
    tracker.wait_rows(Table::Events, 1).await;
    let costs: Vec<Option<String>> =
        sqlx::query_scalar("SELECT cost::text FROM clicks").fetch_all(&tracker.pool).await.unwrap();
    assert_eq!(costs, vec![None; 6]);
}
