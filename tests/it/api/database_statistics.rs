//! What octo tells of its database: `GET /api/v1/system/database` and the gauges made of it.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use sqlx::Executor;

use crate::{
    harness::{Octo, OctoBuilder, PrivatePostgres, eventually, metrics::value_of, migrate},
    tracker::{SOON, Table, Tracker},
};

/// Gauges go away after three intervals; busy machines need patience.
const LONG: Duration = Duration::from_secs(40);

const LOOK_UPS: &str = "
DO $$ BEGIN
    SET LOCAL enable_seqscan = off;
    FOR i IN 1..2000 LOOP PERFORM name FROM campaigns WHERE key = 'demo' AND deleted_at IS NULL; END LOOP;
END $$";

fn every_second(builder: OctoBuilder) -> OctoBuilder {
    builder.env("OCTO_DATABASE__STATISTICS_INTERVAL_S", "1")
}

async fn known(octo: &Octo, token: &str) -> anyhow::Result<Value> {
    let answer = octo.api(token).get("/system/database").send().await?;
    ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
    Ok(answer.json().await?)
}

/// The value of a series, as it is written.
async fn gauge(octo: &Octo, series: &str) -> anyhow::Result<String> {
    let text = octo.metrics().await;
    let value = value_of(&text, series).map(str::to_owned);
    value.ok_or_else(|| anyhow::anyhow!("no {series} in\n{text}"))
}

#[tokio::test]
async fn an_ordinary_user_reads_sizes_partitions_hit_ratios_and_connections() {
    let tracker = Tracker::start_with("statistics", |b| {
        every_second(b).env("OCTO_DATABASE__STATISTICS_PARTITIONS_MAX", "3")
    })
    .await;
    tracker.simple_campaign("demo").await;
    tracker.click("/click?cid=demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let known = eventually(SOON, async || {
        let known = known(&tracker.octo, &tracker.token).await?;
        let tables = known["snapshot"]["tables"].as_array().into_iter().flatten();
        let clicks = tables.into_iter().find(|t| t["name"] == "clicks").cloned().unwrap_or_default();
        ensure!(clicks["live_rows"] == 1, "{known}");
        // two thousand look-ups by an index
        tracker.pool.execute(LOOK_UPS).await?;
        for ratio in ["heap_hit_ratio", "index_hit_ratio"] {
            ensure!(known["snapshot"][ratio].is_number(), "{known}");
        }
        Ok(known)
    })
    .await;
    let snapshot = &known["snapshot"];
    assert_eq!((&known["is_stale"], &known["interval_s"]), (&false.into(), &1.into()));
    assert!(known["age_s"].as_f64().unwrap() < 10.0, "{known}");
    assert_eq!(snapshot["missing"], serde_json::json!([]));
    let clicks = snapshot["tables"].as_array().unwrap().iter().find(|t| t["name"] == "clicks").unwrap();
    let partitions: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_partition_tree('clicks') WHERE isleaf AND relid <> 'clicks'::regclass",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert!(partitions > 8 && clicks["partitions"] == partitions, "{partitions}: {clicks}");
    let bytes: i64 = sqlx::query_scalar(
        "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('clicks')",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!(clicks["bytes"], bytes);
    assert_eq!(
        gauge(&tracker.octo, "octo_db_table_bytes{table=\"clicks\"}").await.unwrap(),
        bytes.to_string()
    );
    assert_eq!(snapshot["partitions"].as_array().unwrap().len(), 3);
    assert!(snapshot["partitions_left_out"].as_i64().unwrap() > 10, "{snapshot}");
    for kind in ["heap", "index"] {
        let ratio = snapshot[format!("{kind}_hit_ratio")].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&ratio), "{ratio}");
        let series = format!("octo_db_cache_hit_ratio{{kind=\"{kind}\"}}");
        let shown: f64 = gauge(&tracker.octo, &series).await.unwrap().parse().unwrap();
        assert!((0.0..=1.0).contains(&shown), "{shown}");
    }
    assert!(snapshot["connections"]["of_server"].as_i64() >= snapshot["connections"]["of_database"].as_i64());
    assert_eq!(snapshot["connections"]["server_max"], 300);
    let metrics = tracker.octo.metrics().await;
    assert!(
        !metrics.contains("clicks_20") && !metrics.contains("clicks_default"),
        "partitions are no labels"
    );
    let refused = tracker.octo.get("/api/v1/system/database").await;
    assert_eq!(refused.status(), 401);
}

#[tokio::test]
async fn a_statement_that_runs_and_a_transaction_that_stays_open_are_seen() {
    let tracker = Tracker::start_with("statistics_open", every_second).await;
    let mut open = tracker.pool.acquire().await.unwrap();
    open.execute("BEGIN; SELECT 1").await.unwrap();
    let pool = tracker.pool.clone();
    let sleeping = tokio::spawn(async move { pool.execute("SELECT pg_sleep(60)").await });
    eventually(SOON, async || {
        let active: f64 = gauge(&tracker.octo, "octo_db_active_connections").await?.parse()?;
        let age: f64 = gauge(&tracker.octo, "octo_db_longest_transaction_seconds").await?.parse()?;
        ensure!(active >= 1.0 && age >= 2.0, "{active} active, {age} s");
        Ok(())
    })
    .await;
    sleeping.abort();
}

#[tokio::test]
async fn a_locked_table_holds_up_neither_the_other_figures_nor_the_next_reading() {
    let tracker = Tracker::start_with("statistics_lock", |b| {
        every_second(b).env("OCTO_DATABASE__STATISTICS_TIMEOUT_MS", "300")
    })
    .await;
    let size = "octo_db_table_bytes{table=\"offers\"}";
    let is_known = async || {
        ensure!(gauge(&tracker.octo, size).await? != "NaN", "not known");
        Ok(())
    };
    eventually(SOON, is_known).await;
    let mut lock = tracker.pool.begin().await.unwrap();
    lock.execute("LOCK TABLE traffic_sources IN ACCESS EXCLUSIVE MODE").await.unwrap();
    eventually(SOON, async || {
        let known = known(&tracker.octo, &tracker.token).await?;
        ensure!(known["snapshot"]["missing"] == serde_json::json!(["tables"]), "{known}");
        ensure!(known["snapshot"]["connections"]["of_server"].as_i64() > Some(0), "{known}");
        let shown = gauge(&tracker.octo, size).await?;
        ensure!(shown == "NaN", "{shown}");
        Ok(())
    })
    .await;
    lock.rollback().await.unwrap();
    eventually(SOON, is_known).await;
}

#[tokio::test]
async fn standbys_are_hidden_until_pg_monitor_is_granted_and_an_outage_leaves_old_figures_that_say_so() {
    let mut primary = PrivatePostgres::start().await;
    migrate(&primary.url()).await;
    let replica = primary.replica(None).await;
    // without replicas nobody could prove who he is while the primary is down
    let builder =
        Octo::builder().database_url(primary.url()).env("OCTO_DATABASE__REPLICA_URLS", replica.url());
    let octo = every_second(builder).start().await;
    let token = octo.token("read").await;
    eventually(LONG, async || {
        let known = known(&octo, &token).await?;
        let snapshot = &known["snapshot"];
        ensure!(snapshot["sees_all"] == false && snapshot["standbys"][0]["state"] == "hidden", "{known}");
        ensure!(snapshot["standbys"][0]["lag_bytes"].is_null(), "{known}");
        ensure!(gauge(&octo, "octo_db_standbys{state=\"hidden\"}").await? == "1");
        ensure!(gauge(&octo, "octo_db_standby_lag_bytes").await? == "NaN");
        Ok(())
    })
    .await;

    primary.admin().await.execute("GRANT pg_monitor TO app_user").await.unwrap();
    eventually(LONG, async || {
        let known = known(&octo, &token).await?;
        let snapshot = &known["snapshot"];
        ensure!(snapshot["sees_all"] == true && snapshot["standbys"][0]["state"] == "streaming", "{known}");
        ensure!(gauge(&octo, "octo_db_standbys{state=\"streaming\"}").await? == "1");
        ensure!(gauge(&octo, "octo_db_standby_lag_bytes").await?.parse::<f64>()? >= 0.0);
        Ok(())
    })
    .await;

    primary.stop_fast().await;
    let old = eventually(LONG, async || {
        let known = known(&octo, &token).await?;
        ensure!(known["is_stale"] == true && known["age_s"].as_f64() > Some(3.0), "{known}");
        for series in ["octo_db_active_connections", "octo_db_cache_hit_ratio{kind=\"heap\"}"] {
            let shown = gauge(&octo, series).await?;
            ensure!(shown == "NaN", "{series} is still {shown}");
        }
        Ok(known)
    })
    .await;
    assert!(old["snapshot"]["tables"].as_array().unwrap().len() > 5, "the old figures are there: {old}");

    primary.start_again().await;
    eventually(LONG, async || {
        let known = known(&octo, &token).await?;
        ensure!(known["is_stale"] == false, "{known}");
        ensure!(gauge(&octo, "octo_db_active_connections").await? != "NaN");
        Ok(())
    })
    .await;
    drop(octo);
}
