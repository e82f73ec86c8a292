//! What a query costs: statements are prepared once a connection, and read an index, a partition or a roll-up
//! instead of a big table.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use octo::{
    config::{self, Flags, Loaded},
    db::{
        self, Db, Statement,
        store::{campaigns, clicks, events, stats, tokens},
    },
    facts::{event::Event, table::Column},
    model::{campaign::Terms, id::ClickId},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, types::Json};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::{
    harness::{DAY_PARTITIONS, Database, Octo},
    tracker::{SOON, Table, Tracker},
    wire::Proxy,
};

/// Of the pool under test.
const CONNECTIONS: u32 = 2;

/// Runs of each statement.
const RUNS: i64 = 500;

fn configured(connections: u32) -> config::Database {
    let config = Loaded::load(None, [], &Flags::default()).unwrap().config.database;
    config::Database { min_connections: 0, max_connections: connections, ..config }
}

/// The SQL of a statement.
fn sql(name: &str) -> &'static str {
    let mut statements = db::statements();
    statements.find(|s| s.name() == name).unwrap_or_else(|| panic!("there is no {name}")).sql()
}

/// A row of `pg_prepared_statements`, which shows a session its own.
type Prepared = (String, String, bool, i64);

const PREPARED: Statement = Statement::new(
    "test.prepared",
    "SELECT name, statement, from_sql, generic_plans + custom_plans FROM pg_prepared_statements",
);

/// What each connection of the pool has prepared: every closure waits for the others, so each has its own.
async fn prepared(db: &Db) -> Vec<Vec<Prepared>> {
    let barrier = Arc::new(Barrier::new(CONNECTIONS as usize));
    let views = (0..CONNECTIONS).map(|_| {
        let barrier = barrier.clone();
        db.write(PREPARED, move |c| {
            Box::pin(async move {
                barrier.wait().await;
                sqlx::query_as(PREPARED.sql()).fetch_all(&mut **c).await
            })
        })
    });
    join_all(views).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_statement_is_prepared_once_a_connection_and_executed_many_times() {
    let database = Database::create("queries_prepared").await;
    let db = Db::new(&database.url().into(), &configured(CONNECTIONS)).unwrap();
    let campaign =
        campaigns::insert(&db, "hot".parse().ok(), Terms::demo("https://a.example/")).await.unwrap();
    let (to, hash) = (Utc::now(), [7; 32]);
    let run = async || {
        clicks::get(&db, ClickId::now()).await.unwrap();
        clicks::list(&db, clicks::Filter::default(), None, 51, Duration::MAX).await.unwrap();
        events::list(&db, Some(ClickId::now()), None, 51).await.unwrap();
        campaigns::by_key(&db, "hot").await.unwrap().unwrap();
        let by = stats::GroupBy::Day;
        stats::by(&db, campaign.id, by, to - TimeDelta::days(30), to, "UTC").await.unwrap().unwrap();
        tokens::find(&db, hash).await.unwrap();
    };
    // more at a time than there are connections, so that all of them have work
    for _ in 0..RUNS / 10 {
        join_all((0..10).map(|_| run())).await;
    }
    let views = prepared(&db).await;
    for view in &views {
        let distinct: HashSet<&str> = view.iter().map(|(_, sql, ..)| sql.as_str()).collect();
        assert_eq!(distinct.len(), view.len(), "no statement is prepared twice on a connection");
        assert!(view.iter().all(|(.., from_sql, _)| !from_sql), "by the protocol, not by PREPARE");
    }
    for name in
        ["click.get", "click.list", "event.list_of_click", "campaign.by_key", "stats.by_day", "token.find"]
    {
        let executed: Vec<i64> = views
            .iter()
            .map(|view| view.iter().filter(|(_, text, ..)| text == sql(name)).map(|(.., n)| n).sum())
            .collect();
        println!("{name}: executed {executed:?} times on {CONNECTIONS} connections");
        assert_eq!(executed.iter().sum::<i64>(), RUNS, "{name}: {executed:?}");
        assert!(executed.iter().all(|n| *n > 0), "{name} ran on every connection: {executed:?}");
    }
}

#[tokio::test]
async fn two_databases_in_one_process_keep_to_their_own_settings() {
    let database = Database::create("queries_settings").await;
    let url = database.url().into();
    let preparing = Db::new(&url, &config::Database { slow_query: Duration::ZERO, ..configured(1) }).unwrap();
    let pooled =
        config::Database { prepared_statements: false, slow_query: Duration::from_mins(1), ..configured(1) };
    let plain = Db::new(&url, &pooled).unwrap(); // made last: what was of the process would be as it says
    let mut seen = Vec::new();
    for (db, runs) in [(&preparing, 3), (&plain, 2)] {
        for _ in 0..runs {
            clicks::get(db, ClickId::now()).await.unwrap();
        }
        let view: Vec<Prepared> = db
            .read_primary(PREPARED, |c| {
                Box::pin(sqlx::query_as(PREPARED.sql()).persistent(false).fetch_all(&mut **c))
            })
            .await
            .unwrap();
        let kept = view.iter().filter(|(_, text, ..)| text == sql("click.get")).count();
        let query = db.queries().into_iter().find(|query| query.query == "click.get").unwrap();
        seen.push((kept, query.times.count, query.slow));
    }
    assert_eq!(seen, [(1, 3, 3), (0, 2, 0)], "statements kept prepared, runs counted, slow ones of them");
}

#[tokio::test]
async fn a_connection_keeps_every_statement_of_octo_prepared() {
    let database = Database::create("queries_capacity").await;
    let db = Db::new(&database.url().into(), &configured(1)).unwrap();
    let names: Vec<String> = db
        .write(PREPARED, |c| {
            Box::pin(async move {
                for _ in 0..2 {
                    for statement in db::statements() {
                        c.prepare(sqlx::SqlStr::from_static(statement.sql())).await?;
                    }
                }
                // not prepared itself: it would take a place
                let rows = c.fetch_all(sqlx::raw_sql("SELECT name FROM pg_prepared_statements")).await?;
                rows.iter().map(|row| row.try_get(0)).collect()
            })
        })
        .await
        .unwrap();
    let count = db::statements().count();
    assert_eq!(names.len(), count);
    let last = names.iter().filter_map(|name| name.rsplit('_').next()?.parse().ok()).max();
    assert_eq!(last, Some(count), "sqlx counts them up: none was thrown out and prepared again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_prepares_each_of_its_statements_once() {
    let database = Database::create("queries_drain").await;
    let proxy = Proxy::start(&database.url()).await;
    let octo = Octo::builder().database_url(proxy.url(&database.url())).start().await;
    let token = octo.admin_token().await;
    let tracker = Tracker { pool: database.pool().await, octo, token, database };
    tracker.simple_campaign("demo").await;
    let clicks = 20;
    for stored in 1..=clicks {
        tracker.click("/c/demo").await;
        tracker.wait_rows(Table::Clicks, stored).await; // a batch each
    }
    crate::harness::eventually(SOON, async || {
        let prepared = proxy.prepared();
        let distinct: HashSet<&String> = prepared.iter().map(|(sql, _)| sql).collect();
        assert_eq!((proxy.drains(), distinct.len()), (1, prepared.len()), "{prepared:#?}");
        for name in ["watermark.advance", "stats.upsert_batch"] {
            let executed = prepared.iter().find(|(text, _)| text == sql(name)).map(|(_, n)| *n);
            anyhow::ensure!(
                executed == usize::try_from(clicks).ok(),
                "{name} was executed {executed:?} times"
            );
        }
        Ok(())
    })
    .await;
}

/// Clicks of the plan test, over [`DAYS`] days; a tenth as many events.
const ROWS: i64 = 1_000_000;
const DAYS: usize = 30;
/// Relations with more rows must not be read from end to end.
const BIG: f32 = 1_000.0;

/// Half of the clicks.
const POPULAR: &str = "'00000000-0000-7000-8000-00000000aaaa'::uuid";
/// Ten clicks.
const RARE: &str = "'00000000-0000-7000-8000-00000000bbbb'::uuid";

const FILL: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, invalid_reason, is_bot, sub1, created_at, updated_at)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i::text), 4, 15))::uuid,
    CASE WHEN i % 100000 = 7 THEN '00000000-0000-7000-8000-00000000bbbb'::uuid
         WHEN i % 2 = 0 THEN '00000000-0000-7000-8000-00000000aaaa'::uuid
         ELSE ('00000000-0000-7000-8000-' || lpad(to_hex(i::int8 * 7919 % 998), 12, '0'))::uuid END,
    i % 50 <> 3, CASE WHEN i % 50 = 3 THEN 'bot' END, i % 50 = 3, 'ad-' || i, at, at
FROM generate_series(1, 1000000) AS i
CROSS JOIN LATERAL (SELECT date_trunc('milliseconds', now() - (1000000.5 - i) * interval '2.592 seconds') AS at) t;
INSERT INTO events (id, click_id, campaign_id, event_type, created_at)
SELECT gen_random_uuid(), id, campaign_id, 'view', created_at FROM clicks WHERE sub1 LIKE '%1';
INSERT INTO event_keys (id, created_at) SELECT id, created_at FROM events;
INSERT INTO campaign_stats_hourly (campaign_id, hour, clicks, valid_clicks, bot_clicks, events)
SELECT campaign_id, date_trunc('hour', created_at, 'UTC'), count(*), count(*) FILTER (WHERE is_valid),
    count(*) FILTER (WHERE is_bot), 0
FROM clicks
GROUP BY 1, 2";

/// A statement with arguments, and what it may read.
struct Case {
    name: &'static str,
    arguments: Vec<String>,
    /// Partitions of clicks and events that are looked into.
    partitions_max: usize,
    /// Rows of big relations that are read, those that are thrown away too.
    rows_max: f64,
}

fn case(name: &'static str, arguments: &[&str], partitions_max: usize, rows_max: f64) -> Case {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Case { name, arguments, partitions_max, rows_max }
}

/// What a plan does.
#[derive(Debug, Default)]
struct Cost {
    /// Relations that are read from end to end.
    seq_scans: Vec<String>,
    partitions: HashSet<String>,
    rows: f64,
}

impl Cost {
    fn add(&mut self, plan: &Value, big: &HashSet<String>) {
        let number = |name: &str| plan[name].as_f64().unwrap_or(0.0);
        let relation = plan["Relation Name"].as_str().unwrap_or_default();
        if big.contains(relation) {
            if plan["Node Type"] == "Seq Scan" {
                self.seq_scans.push(relation.to_owned());
            }
            if number("Actual Loops") > 0.0 {
                self.partitions.insert(relation.to_owned());
            }
            let thrown_away = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
            self.rows += (number("Actual Rows") + thrown_away) * number("Actual Loops");
        }
        for below in plan["Plans"].as_array().into_iter().flatten() {
            self.add(below, big);
        }
    }
}

/// Runs a statement as octo's connections do once they know it (`generic`) or at first (`custom`), and takes it back.
async fn plan_of(c: &mut PgConnection, case: &Case, mode: &str) -> Value {
    let prepare = format!("SET plan_cache_mode = force_{mode}_plan; PREPARE it AS {}", sql(case.name));
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *c).await.unwrap();
    let mut transaction = c.begin().await.unwrap();
    let execute = format!("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE it ({})", case.arguments.join(", "));
    let row = sqlx::raw_sql(AssertSqlSafe(execute)).fetch_one(&mut *transaction).await;
    let row = row.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    transaction.rollback().await.unwrap();
    sqlx::raw_sql("DEALLOCATE it").execute(c).await.unwrap();
    let Json(plan): Json<Value> = row.try_get(0).unwrap();
    plan[0].clone()
}

/// The hours of a page, as the search gathers them.
async fn newest_hours(c: &mut PgConnection, campaign: &str, limit: u32) -> String {
    let sql = format!(
        "SELECT array_agg(hour)::text FROM (
            SELECT hour FROM campaign_stats_hourly WHERE campaign_id = {campaign} ORDER BY hour DESC LIMIT {limit}
        ) AS newest"
    );
    let hours: String = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await.unwrap();
    format!("'{hours}'")
}

const PAST: &str = "'1970-01-01Z'";
const FUTURE: &str = "'9999-12-31Z'";
const LAST_ID: &str = "'ffffffff-ffff-ffff-ffff-ffffffffffff'";
const DAY_AGO: &str = "now() - interval '1 day'";
const WEEK_AGO: &str = "now() - interval '7 days'";
const MONTH_AGO: &str = "now() - interval '30 days'";

/// What the API asks, with arguments that are common and such that are hard, and what it may read for it.
async fn cases(c: &mut PgConnection) -> Vec<Case> {
    let known =
        "SELECT id, created_at FROM clicks WHERE created_at > now() - interval '9 days' ORDER BY 2 LIMIT 1";
    let (id, at): (Uuid, DateTime<Utc>) = sqlx::query_as(known).fetch_one(&mut *c).await.unwrap();
    let (id, at) = (format!("'{id}'"), format!("'{}'", at.to_rfc3339()));
    let (id, at) = (id.as_str(), at.as_str());
    let array = |value: &str| format!("ARRAY[{value}]");
    let (popular, rare) = (array(POPULAR), array(RARE));
    let value = |column: &Column| match column.name {
        "id" | "key" => array("gen_random_uuid()"),
        "created_at" => array("now()"),
        "click_id" => array(&format!("{id}::uuid")),
        "click_time" => array(&format!("{at}::timestamptz")),
        "event_type" => array("'view'"),
        "source" => array("'public'"),
        _ => "'{NULL}'".to_owned(),
    };
    let event: Vec<String> = Event::COLUMNS.iter().map(value).collect();
    let event: Vec<&str> = event.iter().map(String::as_str).collect();
    let hours = |campaigns: &str, from: &str, is_valid: &str, rows_max| {
        case("click.hours", &[campaigns, from, FUTURE, is_valid, "1000"], 0, rows_max)
    };
    let (of_popular, of_rare) = (newest_hours(c, POPULAR, 1).await, newest_hours(c, RARE, 51).await);
    let page = |campaigns: &str, hours: &str, is_valid: &str, partitions_max, rows_max| {
        let arguments = [PAST, FUTURE, FUTURE, LAST_ID, "51", is_valid, campaigns, hours];
        case("click.list_of_campaigns", &arguments, partitions_max, rows_max)
    };
    let all = DAYS + 1; // the first and the last day are parts of one
    let hour = ROWS as f64 / 24.0 / DAYS as f64;
    let roll_ups = 24.0 * DAYS as f64 + 1.0;
    vec![
        case("click.get", &[at, id], 1, 1.0),
        case("traffic_source.get", &["1"], 0, 0.0),
        case("traffic_source.list", &["9", "NULL", "NULL", "51"], 0, 0.0),
        case("source_stats.upsert_batch", &["'{1}'", "'{2026-01-01}'", "'{1}'", "'{0}'"], 0, 0.0),
        case("click.list", &[PAST, FUTURE, FUTURE, LAST_ID, "51", "NULL"], all, 200.0),
        case("click.list", &[PAST, FUTURE, FUTURE, LAST_ID, "51", "false"], all, 6_000.0),
        case("click.list", &[PAST, FUTURE, at, id, "51", "NULL"], all, 200.0),
        case("click.list", &[WEEK_AGO, DAY_AGO, FUTURE, LAST_ID, "501", "true"], 7, 700.0),
        hours(&popular, PAST, "NULL", roll_ups),
        hours(&popular, WEEK_AGO, "true", 7.0 * 24.0 + 1.0),
        hours(&rare, PAST, "NULL", 10.0),
        hours(&rare, PAST, "false", 10.0),
        page(&popular, &of_popular, "NULL", 1, 200.0),
        page(&popular, &of_popular, "true", 1, 200.0),
        page(&rare, &of_rare, "NULL", 10, 11.0 * hour),
        case("event.list", &[FUTURE, LAST_ID, "51"], all, 200.0),
        case("event.list", &[at, id, "51"], all, 200.0),
        case("event.list_of_click", &[FUTURE, LAST_ID, "51", id, at], 10, 10.0),
        case("stats.by_day", &[POPULAR, MONTH_AGO, "now()", "'Europe/Berlin'"], 0, roll_ups),
        case("stats.by_hour", &[POPULAR, DAY_AGO, "now()", "'UTC'"], 0, 26.0),
        case(
            "click.upsert",
            &[at, id, "false", "'fraud'", "true", "0", "''", "true", "''", "true", "now()", "NULL"],
            1,
            5.0,
        ),
        case("event.insert", &event, 1, 5.0),
        case("events.insert_batch", &event, 1, 5.0),
        case("dead_letter.has_click", &[at, id], 1, 1.0),
        case(
            "out_clicks.insert_keys",
            &[&array(&format!("{id}::uuid")), &array(&format!("{at}::timestamptz"))],
            1,
            1.0,
        ),
        case("out_clicks.count_waiting", &["2", "100"], all, 200.0),
        case(
            "out_clicks.insert_legs",
            &[&array(&format!("{id}::uuid")), &array("7::bigint"), &array(&format!("{at}::timestamptz"))],
            1,
            2.0,
        ),
        case("out_clicks.count_waiting_legs", &["2", "100"], all, 200.0),
        case(
            "report_deltas.add_lander_clicks",
            &[&array(&format!("{id}::uuid")), &array(&format!("{at}::timestamptz"))],
            1,
            2.0,
        ),
        case(
            "conversions.list_clicks",
            &[&array(&format!("{id}::uuid")), &array(&format!("{at}::timestamptz"))],
            1,
            2.0,
        ),
        case("conversions.list_arrived", &["15", "100"], all, 200.0),
        case(
            "reconciliation.find_clicks",
            &[&array(&format!("{id}::uuid")), &array(&format!("{at}::timestamptz"))],
            1,
            2.0,
        ),
        case("outbox.claim", &["'{1}'", "'{1}'", "1000"], all, 10.0),
        case("costs.hours", &[&array(POPULAR), &array(MONTH_AGO), &array("now()")], 0, 10.0),
        case("dead_letter.has_event", &[at, id, "NULL"], 1, 1.0),
        case("dead_letter.has_event", &[at, id, id], 0, 1.0),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_api_reads_little_of_a_million_rows() {
    let database = Database::create("queries_plans").await;
    let mut c = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::raw_sql(DAY_PARTITIONS).execute(&mut c).await.unwrap();
    sqlx::raw_sql(FILL).execute(&mut c).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut c).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&mut c).await.unwrap();
    assert_eq!(rows, ROWS);
    // as Pool sets it: compiling would take longer than running
    sqlx::raw_sql("SET jit = off").execute(&mut c).await.unwrap();
    let big = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND reltuples >= $1";
    let big: Vec<String> = sqlx::query_scalar(big).bind(BIG).fetch_all(&mut c).await.unwrap();
    let big = HashSet::from_iter(big);
    assert!(big.len() > 2 * DAYS, "{big:?}");

    let mut bad = Vec::new();
    let mut planned = HashSet::from([
        "stats.upsert_batch", // inserts, and reads nothing
        "ingest.find_stored", // only of records that are sent again, by their keys
        "figures.compare",    // reads every fact of its days, for whom nobody waits
        // these are planned for their values alone; a report that has to read facts asks first how many (reports.raw_rows_max)
        "reports.of_dimensions",
        "reports.of_days",
        "reports.of_parts",
        "reports.of_overall",
        "reports.of_overall_hours",
        "reports.of_traffic",
        "reports.of_hours",
        "reports.of_deltas",
        "reports.of_facts",
        "reports.count_clicks",
        "reports.of_campaign_hours",
        "reports.of_values",
        "report_costs.of_dimensions",
        "report_costs.of_days",
        "report_costs.of_hours",
        "report_costs.of_deltas",
        "report_costs.of_facts",
        "report_costs.earned",
        "report_facts.list",    // likewise, an hour first and then longer ones
        "partitions.unindexed", // reads the catalogue
        // of `octo relabel` and of housekeeping, for whom nobody waits
        "relabel.hours",
        "relabel.page",
        "relabel.update",
        "figures.note_value_days",
        "partitions.default_rows", // reads what is empty when all is well
        "partitions.missing",      // these two read the catalogue
        "partitions.old",
        "deliveries.insert", // inserts, with the click by its key
        "costs.upsert_batch",
        "costs.earned",               // reads the conversions of a campaign, which are few
        "costs.count_filtered", // reads all clicks of the range of a cost with a filter, for whom nobody waits
        "demo.delete_campaign_stats", // a person who is done with the samples waits for it, and for counting their days anew
        "demo.delete_clicks",
        "demo.delete_conversion_clicks",
        "demo.delete_events",
        "demo.delete_out_click_keys",
        "demo.delete_out_click_legs",
        "demo.delete_postbacks",
        "retention.event_keys", // once in ten minutes, in chunks that nobody waits for
        // of `octo privacy`, once in a while: these find by key, and the last three read everything, without an index
        "click.list_of_ids",
        "event.list_of_clicks",
        "erasures.delete_clicks",
        "erasures.delete_events",
        "erasures.find_clicks",
        "erasures.delete_events_of_person",
        "event.list_of_person",
    ]);
    for case in cases(&mut c).await {
        planned.insert(case.name);
        for mode in ["generic", "custom"] {
            let plan = plan_of(&mut c, &case, mode).await;
            let mut cost = Cost::default();
            cost.add(&plan["Plan"], &big);
            let is_partition = |name: &&String| name.contains("_2"); // _20YYMMDD
            let partitions = cost.partitions.iter().filter(is_partition).count();
            let took = &plan["Execution Time"];
            println!(
                "{:<24} {mode:<8} {partitions:>3} partitions {:>8} rows {took:>8} ms",
                case.name, cost.rows
            );
            if !cost.seq_scans.is_empty() || partitions > case.partitions_max || cost.rows > case.rows_max {
                let scans = &cost.seq_scans;
                bad.push(format!(
                    "{} ({}): {partitions} partitions, {} rows, seq scans {scans:?}",
                    case.name,
                    case.arguments.join(", "),
                    cost.rows
                ));
            }
        }
    }
    assert!(bad.is_empty(), "they read too much:\n{}", bad.join("\n"));
    let tables = regex::Regex::new(r"\b(clicks|events|campaign_stats_hourly|event_keys)\b").unwrap();
    let unplanned: Vec<&str> = db::statements()
        .filter(|s| tables.is_match(s.sql()) && !planned.contains(s.name()))
        .map(Statement::name)
        .collect();
    assert!(unplanned.is_empty(), "there is no case for {unplanned:?}");
}

/// Clicks of today.
const FILL_TODAY: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, created_at, updated_at)
SELECT gen_random_uuid(), gen_random_uuid(), true, false, at, at
FROM generate_series(1, 20000) AS i
CROSS JOIN LATERAL (SELECT date_trunc('day', now(), 'UTC') + i * interval '1 millisecond' AS at) t";

const SEQUENTIALLY_READ: &str = "
SELECT sum(seq_tup_read)::int8 FROM pg_stat_xact_user_tables WHERE relname LIKE 'clicks%'";

#[tokio::test]
async fn clicks_are_told_of_conversions_by_their_keys_though_the_day_was_empty_when_that_was_planned() {
    let database = Database::create("queries_note").await;
    let mut c = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::raw_sql(DAY_PARTITIONS).execute(&mut c).await.unwrap();
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut c).await.unwrap();
    let note = async |c: &mut PgConnection, clicks: &[(Uuid, DateTime<Utc>)]| {
        let kinds: Vec<&str> = clicks.iter().map(|_| "sale").collect();
        let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = clicks.iter().copied().unzip();
        let note =
            sqlx::query(sql("clicks.note_conversions")).bind(ids).bind(&times).bind(kinds).bind(&times);
        note.execute(c).await.unwrap();
    };
    note(&mut c, &[(Uuid::nil(), Utc::now())]).await;
    sqlx::raw_sql(FILL_TODAY).execute(&mut c).await.unwrap();
    let some = "SELECT id, created_at FROM clicks ORDER BY id LIMIT 1000";
    let some: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(some).fetch_all(&mut c).await.unwrap();
    let mut transaction = c.begin().await.unwrap();
    // what the session has not reported yet of earlier transactions counts, too
    let before: i64 = sqlx::query_scalar(SEQUENTIALLY_READ).fetch_one(&mut *transaction).await.unwrap();
    note(&mut transaction, &some).await;
    let after: i64 = sqlx::query_scalar(SEQUENTIALLY_READ).fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(after - before, 0, "rows read one after the other");
    let told = "SELECT count(*) FROM clicks WHERE conversion_type = 'sale' AND converted_at = created_at";
    let told: i64 = sqlx::query_scalar(told).fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(told, 1000);
}

/// A conversion of each number from `$1` to `$2`.
const MAKE_CONVERSIONS: &str = "
INSERT INTO conversions (
    id, campaign_id, click_id, goal, txid, nth, kind, status, payout, currency, flags, is_click_valid, converted_at, first_at,
    last_at, created_at
)
SELECT
    ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, '00000000-0000-7000-8000-000000000001', gen_random_uuid(), '',
    i::text, 0, 'conversion', 'approved', 1.5, 'USD', '{}', true, now(), now(), now(), now()
FROM generate_series($1::integer, $2::integer) AS i";

/// Their rows in the book.
const BOOK_CONVERSIONS: &str = "
INSERT INTO conversion_changes (
    campaign_id, conversion_id, click_id, cause, to_status, payout, revenue, currency, changed_at, created_at
)
SELECT
    '00000000-0000-7000-8000-000000000001', ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid, gen_random_uuid(),
    'postback', 'approved', 1.5, 1.5, 'USD', now(), now()
FROM generate_series($1::integer, $2::integer) AS i";

const CONVERSIONS_READ: &str = "
SELECT (seq_tup_read + idx_tup_fetch)::int8 FROM pg_stat_xact_user_tables WHERE relname = 'conversions'";

#[tokio::test]
async fn the_book_finds_its_conversions_by_their_keys_however_few_there_were_when_that_was_planned() {
    for (name, planned_with) in
        [("queries_book_none", 0), ("queries_book_few", 5), ("queries_book_many", 5_000)]
    {
        let database = Database::create(name).await;
        let mut c = PgConnection::connect(&database.url()).await.unwrap();
        sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut c).await.unwrap();
        let run = async |c: &mut PgConnection, statement: &'static str, from: i32, to: i32| {
            sqlx::query(statement).bind(from).bind(to).execute(c).await.unwrap();
        };
        run(&mut c, MAKE_CONVERSIONS, 1, planned_with).await;
        run(&mut c, BOOK_CONVERSIONS, 1, planned_with).await;
        run(&mut c, MAKE_CONVERSIONS, planned_with + 1, 20_000).await;
        let mut transaction = c.begin().await.unwrap();
        let before: i64 = sqlx::query_scalar(CONVERSIONS_READ).fetch_one(&mut *transaction).await.unwrap();
        run(&mut transaction, BOOK_CONVERSIONS, planned_with + 1, 10_000).await;
        let after: i64 = sqlx::query_scalar(CONVERSIONS_READ).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(after - before, i64::from(10_000 - planned_with), "one row for each of the book");
        let summed =
            "SELECT sum(conversions)::int8, sum(amount) = 15000 FROM report_deltas WHERE time_kind = 3";
        let summed: (i64, bool) = sqlx::query_as(summed).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(summed, (10_000, true));
    }
}

/// Clicks of three campaigns, some thousand in an hour and hours without any, with their roll-ups.
const SPREAD: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, created_at, updated_at)
SELECT gen_random_uuid(), ('00000000-0000-7000-8000-00000000000' || i * i % 7 % 3)::uuid, i % 11 <> 0, false, at, at
FROM generate_series(1, 3000) i
CROSS JOIN LATERAL (
    SELECT '2026-01-01Z'::timestamptz + (i * i % 3001) * interval '97 seconds' + i / 600 * interval '5 hours' AS at
) t;
INSERT INTO campaign_stats_hourly (campaign_id, hour, clicks, valid_clicks)
SELECT campaign_id, date_trunc('hour', created_at, 'UTC'), count(*), count(*) FILTER (WHERE is_valid)
FROM clicks
GROUP BY 1, 2";

const PLAINLY: &str = "
SELECT id FROM clicks
WHERE campaign_id = ANY ($1) AND created_at >= $2 AND created_at < $3 AND ($4::bool IS NULL OR is_valid = $4)
ORDER BY created_at DESC, id DESC";

#[tokio::test]
async fn the_clicks_of_a_campaign_are_listed_by_way_of_the_roll_ups_and_none_is_left_out() {
    let database = Database::create("queries_pages").await;
    let pool = database.pool().await;
    sqlx::raw_sql(SPREAD).execute(&pool).await.unwrap();
    let db = Db::new(&database.url().into(), &configured(CONNECTIONS)).unwrap();
    let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let campaign = |i: u128| Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 + i);
    let ranges = [
        (None, None),
        (Some(time("2026-01-01T07:30:00Z")), None),
        (Some(time("2026-01-01T10:10:00Z")), Some(time("2026-01-02T11:59:59Z"))),
        (None, Some(time("2026-01-01T12:00:00Z"))),
    ];
    let mut pages = 0;
    for ids in [vec![campaign(0)], vec![campaign(1), campaign(2)], vec![campaign(9)]] {
        for (from, to) in ranges {
            for (is_valid, limit) in [(None, 7), (Some(true), 50), (Some(false), 3)] {
                let far = (from.unwrap_or_default(), to.unwrap_or(time("2100-01-01T00:00:00Z")));
                let query = sqlx::query_scalar(PLAINLY).bind(&ids).bind(far.0).bind(far.1).bind(is_valid);
                let wanted: Vec<Uuid> = query.fetch_all(&pool).await.unwrap();
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let filter = clicks::Filter { campaign_ids: Some(ids.clone()), from, to, is_valid };
                    let page = clicks::list(&db, filter, after, limit, Duration::MAX).await.unwrap().clicks;
                    pages += 1;
                    let Some(last) = page.last() else { break };
                    after = Some((last.created_at, last.id));
                    found.extend(page.iter().map(|click| click.id));
                }
                assert_eq!(found, wanted, "{ids:?} from {from:?} to {to:?}, {is_valid:?}");
            }
        }
    }
    println!("{pages} pages");
    assert!(pages > 500, "only {pages}");
}
