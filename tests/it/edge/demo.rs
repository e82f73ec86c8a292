//! `octo demo seed|clear`: sample traffic that adds up, and leaves nothing behind.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{api::answer, eventually};
use crate::tracker::{SOON, Tracker, assert_roll_ups_agree};

/// How many rows each table has.
const ROWS: &str = "
SELECT relname::text, (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || oid::regclass, false, true, '')))[1]::text::bigint
FROM pg_class
WHERE relkind IN ('r', 'p')
  AND NOT relispartition
  AND relnamespace = 'public'::regnamespace
  AND relname NOT IN ('report_recounts', 'report_value_days')";

async fn rows(tracker: &Tracker) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(ROWS).fetch_all(&tracker.pool).await.unwrap();
    rows.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn number(report: &Value, measure: &str) -> f64 {
    let value = &report["totals"][measure];
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{measure}: {report:#}"))
}

#[tokio::test]
async fn the_demo_is_a_month_of_traffic_that_adds_up_and_leaves_nothing_behind() {
    let tracker = Tracker::start("demo").await;
    tracker.simple_campaign("mine").await;
    tracker.click("/click?cid=mine").await;
    eventually(SOON, async || {
        let waits: i64 =
            sqlx::query_scalar("SELECT count(*) FROM report_deltas").fetch_one(&tracker.pool).await?;
        anyhow::ensure!(
            rows(&tracker).await.contains_key("clicks") && waits == 0,
            "not stored and folded yet"
        );
        Ok(())
    })
    .await;
    let before = rows(&tracker).await;

    let start = Instant::now();
    let seeded = tracker.octo.run(&["demo", "seed"]).await;
    let (took, said) = (start.elapsed(), String::from_utf8_lossy(&seeded.stderr).into_owned());
    println!("{took:.1?}: {}", said.trim());
    assert!(seeded.status.success(), "{said}");
    assert!(took < Duration::from_mins(1), "{took:?}");
    let again = tracker.octo.run(&["demo", "seed"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("octo demo clear"));

    let (from, to) = (Utc::now() - TimeDelta::days(60), Utc::now() + TimeDelta::days(1));
    let ask = async |group_by: &str| {
        let asked = json!({
            "from": from.to_rfc3339(), "to": to.to_rfc3339(), "group_by": [group_by], "currency": "USD",
            "measures": ["clicks", "valid_clicks", "lander_clicks", "conversions", "revenue", "cost", "profit"],
        });
        answer(tracker.api(Method::POST, "/reports").json(&asked)).await.1
    };
    let report = ask("campaign").await;
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(5), "{report:#}");
    assert!(number(&report, "clicks") > 80_000.0 && number(&report, "lander_clicks") > 5_000.0, "{report:#}");
    assert!(number(&report, "conversions") > 800.0 && number(&report, "cost") > 1_000.0, "{report:#}");
    for group_by in ["day", "country", "source", "placement", "offer", "landing_page", "rule"] {
        assert_eq!(ask(group_by).await["totals"], report["totals"], "{group_by}");
    }
    let campaigns: i64 = sqlx::query_scalar("SELECT count(*) FROM campaigns WHERE key LIKE 'demo-%'")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(campaigns, 4);
    let states = "SELECT array_agg(DISTINCT status ORDER BY status) FROM conversions";
    let states: Vec<String> = sqlx::query_scalar(states).fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(states, ["approved", "pending", "refunded", "rejected", "unmapped"]);
    assert_roll_ups_agree(&tracker.pool).await;

    let cleared = tracker.octo.run(&["demo", "clear"]).await;
    assert!(cleared.status.success(), "{}", String::from_utf8_lossy(&cleared.stderr));
    assert_roll_ups_agree(&tracker.pool).await;
    assert_eq!(rows(&tracker).await, before);
    let nothing = tracker.octo.run(&["demo", "clear"]).await;
    assert!(
        nothing.status.success() && String::from_utf8_lossy(&nothing.stderr).contains("there is no demo")
    );
}
