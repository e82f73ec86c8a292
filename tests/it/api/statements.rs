//! Every statement of the code is one that the migrated schema understands; and how the schema gets there.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, Executor};

use octo::db;

use crate::harness::Database;

#[tokio::test]
async fn every_statement_prepares_against_the_migrated_schema() {
    let database = Database::create("statements").await;
    let pool = database.pool().await;
    let mut names = BTreeSet::new();
    for statement in db::statements() {
        let (name, sql) = (statement.name(), statement.sql());
        let prepared = pool.prepare(sqlx::SqlStr::from_static(sql)).await;
        assert!(prepared.is_ok(), "{name}: {}", prepared.err().map(|e| e.to_string()).unwrap_or_default());
        assert!(names.insert(name), "{name} is not a name of its own");
    }
    assert!(names.len() > 25, "only {} statements", names.len());
    let broken = pool
        .prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(
            "SELECT no_such_column FROM clicks".to_owned(),
        )))
        .await;
    assert!(broken.is_err(), "the check itself works");
}

#[tokio::test]
async fn migrations_run_once_and_status_tells_what_is_pending() {
    let database = Database::create("migrate").await;
    let pool = database.pool().await;
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&pool).await.unwrap();
    let octo = crate::harness::Octo::builder().database_url(database.url());
    let status = octo.run(&["migrate", "status"]).await;
    assert_eq!(status.status.code(), Some(1), "something is pending");
    assert!(String::from_utf8_lossy(&status.stdout).contains("0001  pending  create campaigns"));
    assert!(
        String::from_utf8_lossy(&octo.run(&["migrate", "plan"]).await.stdout).contains("CREATE TABLE clicks")
    );
    for _ in 0..2 {
        assert!(octo.run(&["migrate"]).await.status.success());
    }
    let status = octo.run(&["migrate", "status"]).await;
    assert!(status.status.success() && !String::from_utf8_lossy(&status.stdout).contains("pending"));
}

/// Tables that grow with traffic and whose every key holds the campaign: they can be spread over servers by it as they are.
const BY_CAMPAIGN: &[&str] = &[
    "campaign_costs_hourly",
    "campaign_prices",
    "campaign_stats_hourly",
    "conversion_changes",
    "conversions",
    "deliveries",
    "delivery_attempts",
    "report_days",
    "report_deltas",
    "report_dimensions",
    "report_gone",
    "report_hours",
    "report_parts",
    "report_values",
];

/// Tables that grow with traffic and are found by an id alone; `docs/scaling.md` says why, and what to do about them.
const BY_ID: &[&str] = &[
    "clicks",
    "conversion_clicks",
    "dead_letters",
    "event_keys",
    "events",
    "out_click_keys",
    "out_click_legs",
    "out_clicks",
    "postbacks",
];

/// Tables that grow with what is configured or with days, or are kept short.
const SMALL: &[&str] = &[
    "affiliate_networks",
    "api_tokens",
    "campaigns",
    "cap_counts",
    "cost_adjustments",
    "erasures",
    "fx_rates",
    "fx_restatements",
    "idempotency_keys",
    "ingest_watermark",
    "landing_pages",
    "offers",
    "postback_targets",
    "report_closed",
    "report_exports",
    "report_overall",
    "report_recounts",
    "report_retention",
    "report_traffic",
    "report_value_days",
    "seal_keys",
    "sessions",
    "sign_in_links",
    "source_stats_daily",
    "traffic_sources",
    "visitor_keys",
];

const TABLES: &str = "
SELECT
    c.relname,
    (SELECT count(*) FROM pg_constraint f WHERE f.contype = 'f' AND c.oid IN (f.conrelid, f.confrelid)),
    EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'campaign_id'),
    NOT EXISTS (
        SELECT
        FROM pg_index i
        WHERE i.indrelid = c.oid
          AND i.indisunique
          AND NOT EXISTS (
              SELECT
              FROM pg_attribute a
              WHERE a.attrelid = c.oid
                AND a.attnum = ANY (i.indkey)
                AND a.attname = 'campaign_id'
          )
    )
FROM pg_class c
WHERE c.relkind IN ('r', 'p')
  AND NOT c.relispartition
  AND c.relnamespace = 'public'::regnamespace
  AND c.relname NOT LIKE '\\_sqlx%'";

#[tokio::test]
async fn big_tables_have_no_foreign_key_and_the_campaign_in_every_key_but_of_those_found_by_id() {
    let database = Database::create("big_tables").await;
    let rows: Vec<(String, i64, bool, bool)> =
        sqlx::query_as(TABLES).fetch_all(&database.pool().await).await.unwrap();
    let tables: BTreeMap<&str, (i64, bool, bool)> = rows
        .iter()
        .map(|(name, foreign, has, in_keys)| (name.as_str(), (*foreign, *has, *in_keys)))
        .collect();
    let known: BTreeSet<&str> = [BY_CAMPAIGN, BY_ID, SMALL].concat().into_iter().collect();
    assert_eq!(
        tables.keys().copied().collect::<BTreeSet<_>>(),
        known,
        "a new table belongs in one of the lists"
    );
    for name in [BY_CAMPAIGN, BY_ID].concat() {
        assert_eq!(tables[name].0, 0, "{name} has a foreign key");
    }
    for name in BY_CAMPAIGN {
        assert_eq!((tables[name].1, tables[name].2), (true, true), "{name} has a key without the campaign");
    }
    for name in BY_ID {
        assert!(!tables[name].2, "{name} is found by the campaign too: it belongs in the first list");
    }
    assert!(tables["offers"].0 > 0, "the check itself works");
}
