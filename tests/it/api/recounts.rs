//! `octo reports recount` and `octo reports check`: figures that are wrong are found and counted anew, and what retention has
//! deleted is not lost by it.

use std::{process::Output, time::Duration};

use chrono::NaiveDate;
use octo::{
    config::{Config, Flags, Loaded},
    db::{Db, store::figures},
};

use crate::{
    harness::{Database, Octo, eventually},
    tracker::{SOON, Table, Tracker, assert_sums_agree},
};

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Days around today, as the commands take them.
async fn days(pool: &sqlx::PgPool, from: i32, to: i32) -> (String, String) {
    let sql = "
        SELECT ((now() AT TIME ZONE 'UTC')::date + $1)::text, ((now() AT TIME ZONE 'UTC')::date + $2)::text";
    sqlx::query_as(sql).bind(from).bind(to).fetch_one(pool).await.unwrap()
}

async fn folded(pool: &sqlx::PgPool, clicks: i64) {
    eventually(SOON, async || {
        let sql =
            "SELECT coalesce(sum(clicks), 0)::bigint FROM report_dimensions WHERE dimension = 'campaign'";
        let folded: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
        anyhow::ensure!(folded == clicks, "{folded} are folded");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn wrong_figures_are_found_and_counted_anew_with_and_without_a_running_octo() {
    let tracker = Tracker::start("recounts").await;
    tracker.simple_campaign("demo").await;
    for _ in 0..3 {
        tracker.click("/c/demo").await;
    }
    tracker.wait_rows(Table::Clicks, 3).await;
    folded(&tracker.pool, 3).await;
    let (from, to) = days(&tracker.pool, -1, 1).await;
    let run = async |octo: &Octo, args: &[&str]| {
        said(&octo.run(&[args, &["--from", &from, "--to", &to]].concat()).await)
    };
    let (code, out, err) = run(&tracker.octo, &["reports", "check"]).await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");

    let spoil = async || {
        let sql = "UPDATE report_dimensions SET clicks = clicks + 2 WHERE dimension = 'campaign'";
        sqlx::raw_sql(sql).execute(&tracker.pool).await.unwrap()
    };
    spoil().await;
    let (code, out, err) = run(&tracker.octo, &["reports", "check"]).await;
    assert!(code == Some(1) && out.contains("dimensions  1 rows  clicks +2"), "{out} {err}");
    let (_, out, _) = run(&tracker.octo, &["reports", "check", "--json"]).await;
    let differences: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(differences[0]["clicks"], "2", "{differences:#}");

    // while another node is about the sums, it waits
    let mut other = tracker.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1868788868)").execute(&mut *other).await.unwrap();
    let counting = run(&tracker.octo, &["reports", "recount", "--wait"]);
    let freeing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sql = "SELECT count(*) FROM report_recounts WHERE counted_at IS NULL";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&tracker.pool).await.unwrap();
        other.rollback().await.unwrap();
        waiting
    };
    let ((code, _, err), waiting) = tokio::join!(counting, freeing);
    assert!(code == Some(0) && err.contains("counted 2 days"), "{err}");
    assert_eq!(waiting, 2, "nothing is counted under somebody's hands");
    assert_eq!(run(&tracker.octo, &["reports", "check"]).await.0, Some(0));

    // asked for, and done by the running octo
    spoil().await;
    let (code, _, err) = run(&tracker.octo, &["reports", "recount"]).await;
    assert!(code == Some(0) && err.contains("2 days are to be counted"), "{err}");
    eventually(SOON * 3, async || {
        let (code, out, _) = run(&tracker.octo, &["reports", "check"]).await;
        anyhow::ensure!(code == Some(0), "{out}");
        Ok(())
    })
    .await;

    // nobody runs
    let Tracker { octo, pool, database, .. } = tracker;
    drop(octo);
    sqlx::raw_sql("UPDATE report_dimensions SET clicks = clicks - 1").execute(&pool).await.unwrap();
    let alone = Octo::builder().database_url(database.url());
    let count = ["reports", "recount", "--wait", "--from", &from, "--to", &to];
    let (code, _, err) = said(&alone.run(&count).await);
    assert!(code == Some(0) && err.contains("counted 2 days from 3 facts"), "{err}");
    assert_sums_agree(&pool).await;
}

#[tokio::test]
async fn a_day_whose_sums_somebody_changes_meanwhile_is_counted_later() {
    let tracker = Tracker::start("recounts_meanwhile").await;
    tracker.simple_campaign("demo").await;
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    folded(&tracker.pool, 1).await;
    let Tracker { octo, pool, database, .. } = tracker;
    drop(octo);
    let config: Config = Loaded::load(None, [], &Flags::default()).unwrap().config;
    let db = Db::new(&database.url().into(), &config.database).unwrap();
    let today: NaiveDate =
        sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date").fetch_one(&pool).await.unwrap();

    let mut other = pool.begin().await.unwrap();
    sqlx::query("UPDATE report_dimensions SET clicks = clicks").execute(&mut *other).await.unwrap();
    let committing = async {
        eventually(SOON, async || {
            let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted")
                .fetch_one(&pool)
                .await?;
            anyhow::ensure!(waiting > 0, "nobody waits");
            Ok(())
        })
        .await;
        other.commit().await.unwrap();
    };
    let (counted, ()) = tokio::join!(figures::recount(&db, today, SOON), committing);
    assert_eq!(counted.unwrap(), None, "it saw what was there before");
    assert_eq!(figures::recount(&db, today, SOON).await.unwrap(), Some(1));
    assert_sums_agree(&pool).await;
}

#[tokio::test]
async fn a_day_that_has_lost_clicks_is_neither_counted_nor_compared() {
    let tracker = Tracker::start("recounts_lost").await;
    tracker.simple_campaign("demo").await;
    tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    folded(&tracker.pool, 1).await;
    // as retention leaves it
    sqlx::raw_sql("UPDATE report_retention SET kept_from = now(); DELETE FROM clicks;")
        .execute(&tracker.pool)
        .await
        .unwrap();
    let (from, to) = days(&tracker.pool, 0, 2).await;
    let behind = days(&tracker.pool, 1, 2).await.0;
    for args in [&["reports", "recount", "--wait"][..], &["reports", "check"]] {
        let (code, _, err) = said(&tracker.octo.run(&[args, &["--from", &from, "--to", &to]].concat()).await);
        let wanted = format!("begin with --from {behind}");
        assert!(code == Some(1) && err.contains("retention has deleted") && err.contains(&wanted), "{err}");
    }
    let sql = "SELECT octo_recount_day((now() AT TIME ZONE 'UTC')::date)";
    let counted: i64 = sqlx::query_scalar(sql).fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(counted, 0);
    folded(&tracker.pool, 1).await;
}

/// A conversion of a click of 40 days ago that happened 5 days ago, and was approved 4 days ago.
const LATE: &str = "
INSERT INTO conversions (
    id, campaign_id, click_id, goal, txid, nth, kind, status, payout, currency, flags, is_click_valid, converted_at, first_at, last_at,
    created_at
)
SELECT
    gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '', '', 0, 'conversion', 'pending', 7, 'USD', '{}', true,
    now() - interval '5 days', now() - interval '5 days', now() - interval '4 days', now() - interval '40 days';
INSERT INTO conversion_changes (
    campaign_id, conversion_id, click_id, cause, from_status, to_status, payout, revenue, currency, changed_at, created_at
)
SELECT campaign_id, id, click_id, 'postback', NULL, 'pending', 7, 0, 'USD', first_at, created_at
FROM conversions;
UPDATE conversions SET status = 'approved';
INSERT INTO conversion_changes (
    campaign_id, conversion_id, click_id, cause, from_status, to_status, payout, revenue, currency, changed_at, created_at
)
SELECT campaign_id, id, click_id, 'postback', 'pending', 'approved', 0, 7, 'USD', last_at, created_at
FROM conversions;";

#[tokio::test]
async fn a_conversion_that_retention_deletes_stays_in_the_figures_of_later_days_also_when_they_are_counted_anew()
 {
    let database = Database::create("recounts_retention").await;
    let octo = || Octo::builder().database_url(database.url());
    assert!(octo().run(&["migrate"]).await.status.success());
    let pool = database.pool().await;
    sqlx::raw_sql(LATE).execute(&pool).await.unwrap();
    let running = octo().env("OCTO_PRIVACY__RETENTION_DAYS", "30").start().await;
    eventually(SOON, async || {
        let sql = "SELECT (SELECT count(*) FROM conversions) + (SELECT count(*) FROM conversion_changes) + (SELECT count(*) FROM report_deltas)";
        let left: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await?;
        anyhow::ensure!(left == 0, "{left} rows are left");
        Ok(())
    })
    .await;
    let (from, to) = days(&pool, -20, 1).await;
    let sums = "
        SELECT time_kind, status, sum(conversions)::bigint, sum(amount)::text
        FROM report_days
        WHERE day >= (now() AT TIME ZONE 'UTC')::date - 20
        GROUP BY 1, 2
        HAVING sum(conversions) <> 0 OR sum(amount) <> 0
        ORDER BY 1, 2";
    let read =
        async || -> Vec<(i16, String, i64, String)> { sqlx::query_as(sums).fetch_all(&pool).await.unwrap() };
    let before = read().await;
    let shown: Vec<_> =
        before.iter().map(|(kind, status, count, _)| (*kind, status.as_str(), *count)).collect();
    assert_eq!(shown, [(2, "approved", 1), (3, "approved", 1)]);
    for args in [&["reports", "check"][..], &["reports", "recount", "--wait"], &["reports", "check"]] {
        let (code, out, err) = said(&running.run(&[args, &["--from", &from, "--to", &to]].concat()).await);
        assert_eq!((code, out.as_str()), (Some(0), ""), "{args:?}: {err}");
    }
    assert_eq!(read().await, before);
}
