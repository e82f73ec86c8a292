//! Reports by what links say freely, over more clicks than may be counted one by one: the values that were clicked most have rows,
//! all others one together, and everything adds up.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    harness::{Database, Octo, eventually},
    tracker::SOON,
};

/// Clicks of a campaign: so many of each value three and two days ago, and today.
const CLICKS: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, sub1, cost, currency, created_at, updated_at)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(at::text || value || i), 1, 3) || '8'
        || substr(md5(at::text || value || i), 4, 15))::uuid,
    '0198c5c9-7a10-7000-8000-000000000001', true, false, nullif(value, 'none'), 0.01, 'USD', at, at
FROM (
    VALUES
        (3, 'a', 700), (3, 'b', 500), (3, 'c', 200), (3, 'd', 50), (3, 'e', 30), (3, 'none', 20),
        (2, 'a', 300), (2, 'd', 400), (2, 'c', 50), (2, 'b', 30), (2, 'f', 20),
        (0, 'g', 10)
) AS made (back, value, count)
CROSS JOIN LATERAL (
    SELECT i, date_trunc('day', now(), 'UTC') - back * interval '1 day' + i * interval '10 milliseconds' AS at
    FROM generate_series(1, count) AS i
) AS times";

const CONVERSIONS: &str = "
INSERT INTO conversions (
    id, campaign_id, click_id, goal, txid, nth, kind, status, payout, currency, flags, is_click_valid, converted_at, first_at, last_at,
    created_at, sub1
)
SELECT
    gen_random_uuid(), campaign_id, id, '', '', 0, 'conversion', 'approved', 7, 'USD', '{}', true, created_at, created_at, created_at,
    created_at, sub1
FROM (SELECT DISTINCT ON (sub1) * FROM clicks WHERE sub1 IN ('a', 'e') ORDER BY sub1, created_at) k";

async fn ask(octo: &Octo, token: &str, question: &Value) -> (StatusCode, Value) {
    let response =
        octo.api(token).request(reqwest::Method::POST, "/reports").json(question).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

/// What each row shows: clicks and approved conversions by value.
fn rows(report: &Value) -> BTreeMap<String, (i64, i64)> {
    let row = |row: &Value| {
        let name = match (row["keys"]["sub1"].as_str(), row["is_other"].as_bool()) {
            (None, Some(true)) => "(other)",
            (None, _) => "(unknown)",
            (Some(name), _) => name,
        };
        let count = |measure: &str| row["figures"][measure].as_i64().unwrap();
        (name.to_owned(), (count("clicks"), count("approved")))
    };
    report["rows"].as_array().unwrap().iter().map(row).collect()
}

async fn wait_for_values(pool: &PgPool) {
    eventually(SOON * 3, async || {
        let sql = "SELECT count(*) FROM report_value_days WHERE is_current";
        let current: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
        anyhow::ensure!(current == 2, "{current} days are current");
        Ok(())
    })
    .await;
}

/// An octo with few values of these clicks, what it is asked with, and the question of all clicks by `sub1`.
async fn start(database: &Database, pool: &PgPool) -> (Octo, String, Value) {
    let builder = || {
        Octo::builder()
            .database_url(database.url())
            .env("OCTO_REPORTS__RAW_ROWS_MAX", "1000")
            .env("OCTO_REPORTS__VALUES_PER_DAY_MAX", "3")
    };
    assert!(builder().run(&["migrate"]).await.status.success());
    sqlx::raw_sql(CLICKS).execute(pool).await.unwrap();
    sqlx::raw_sql(CONVERSIONS).execute(pool).await.unwrap();
    let count =
        "SELECT octo_recount_day((now() AT TIME ZONE 'UTC')::date - back) FROM generate_series(0, 3) AS back";
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sqlx::query(count).fetch_all(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let octo = builder().start().await;
    let token = octo.admin_token().await;
    wait_for_values(pool).await;
    let question = json!({
        "group_by": ["sub1"], "measures": ["clicks", "valid_clicks", "approved", "cost"], "from": midnight(pool, -3).await,
        "to": midnight(pool, 1).await,
    });
    (octo, token, question)
}

/// The beginning of a day (UTC), counted from today.
async fn midnight(pool: &PgPool, days: i32) -> String {
    let sql = "SELECT to_char((now() AT TIME ZONE 'UTC')::date + $1, 'YYYY-MM-DD\"T00:00:00Z\"')";
    sqlx::query_scalar(sql).bind(days).fetch_one(pool).await.unwrap()
}

/// Of three days ago a, b and c are kept; of two days ago d, a and c.
fn all_rows() -> BTreeMap<String, (i64, i64)> {
    let rows = [
        ("a", (1000, 1)),
        ("b", (500, 0)),
        ("d", (400, 0)),
        ("c", (250, 0)),
        ("(other)", (130, 1)),
        ("(unknown)", (20, 0)),
        ("g", (10, 0)),
    ];
    rows.map(|(name, counts)| (name.to_owned(), counts)).into()
}

#[tokio::test]
async fn the_values_that_were_clicked_most_answer_where_facts_are_too_many() {
    let database = Database::create("top_values").await;
    let pool = database.pool().await;
    let (octo, token, by_sub1) = start(&database, &pool).await;
    let (status, report) = ask(&octo, &token, &by_sub1).await;
    assert_eq!(status, StatusCode::OK, "{report:#}");
    assert_eq!(rows(&report), all_rows(), "{report:#}");
    assert_eq!((&report["source"], &report["notes"]["other_values"]), (&json!("values"), &json!(4)));
    assert_eq!((&report["totals"]["clicks"], &report["totals"]["approved"]), (&json!(2310), &json!(2)));
    assert_eq!(report["totals"]["cost"], "23.10");

    // a row at a time, over the one of all others
    let mut page = by_sub1.clone();
    (page["limit"], page["order"]) = (json!(1), json!("sub1"));
    let mut paged = BTreeMap::new();
    loop {
        let (_, report) = ask(&octo, &token, &page).await;
        paged.extend(rows(&report));
        if report["has_more"] == json!(false) {
            break;
        }
        page["cursor"] = report["next_cursor"].clone();
    }
    assert_eq!(paged, all_rows());

    // facts where they are few enough; and no values where they cannot tell
    let today = json!({ "group_by": ["sub1"], "from": midnight(&pool, 0).await, "to": by_sub1["to"] });
    let (_, report) = ask(&octo, &token, &today).await;
    assert_eq!((&report["source"], &report["notes"]["other_values"]), (&json!("raw"), &Value::Null));
    for more in [
        json!({ "filters": [{ "dimension": "sub1", "is": ["a"] }] }),
        json!({ "group_by": ["sub1", "country"] }),
        json!({ "group_by": ["sub1", "hour"] }),
        json!({ "group_by": ["sub1", "day"], "tz": "Europe/Berlin" }),
    ] {
        let mut question = by_sub1.clone();
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        // an export is made of it
        assert_eq!(ask(&octo, &token, &question).await.0, StatusCode::ACCEPTED, "{more}");
    }
    let mut by_day = by_sub1.clone();
    by_day["group_by"] = json!(["day", "sub1"]);
    let (_, report) = ask(&octo, &token, &by_day).await;
    assert_eq!(
        (&report["source"], report["rows"].as_array().unwrap().len()),
        (&json!("values"), 10),
        "{report:#}"
    );
}

#[tokio::test]
async fn values_of_a_day_whose_clicks_change_are_read_by_nobody_until_they_are_counted_again() {
    let database = Database::create("top_values_stale").await;
    let pool = database.pool().await;
    let (octo, token, by_sub1) = start(&database, &pool).await;
    let correct = "
        UPDATE clicks SET is_valid = false, invalid_reason = 'fraud'
        WHERE id = (SELECT id FROM clicks WHERE sub1 = 'a' ORDER BY created_at LIMIT 1)";
    sqlx::raw_sql(correct).execute(&pool).await.unwrap();
    // before it is added to the sums, and behind
    for _ in 0..2 {
        assert_eq!(ask(&octo, &token, &by_sub1).await.0, StatusCode::ACCEPTED);
        eventually(SOON, async || {
            let sql = "SELECT count(*) FROM report_deltas";
            let pending: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await?;
            anyhow::ensure!(pending == 0, "{pending} deltas are not folded");
            Ok(())
        })
        .await;
    }
    sqlx::raw_sql("UPDATE report_value_days SET counted_at = NULL").execute(&pool).await.unwrap();
    wait_for_values(&pool).await;
    let (status, report) = ask(&octo, &token, &by_sub1).await;
    assert_eq!(status, StatusCode::OK, "{report:#}");
    assert_eq!((&report["totals"]["valid_clicks"], rows(&report)), (&json!(2309), all_rows()));

    // what is erased is in no value
    let holds = async || -> i64 {
        let sql = "SELECT count(*) FROM report_values WHERE value = 'c'";
        sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap()
    };
    assert_eq!(holds().await, 2);
    let erased = octo.run(&["privacy", "erase", "--sub", "sub1=c"]).await;
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));
    assert_eq!(holds().await, 0);
    wait_for_values(&pool).await;
    let (_, report) = ask(&octo, &token, &by_sub1).await;
    let after = rows(&report);
    assert_eq!(
        (after.get("c"), after["(unknown)"], &report["totals"]["clicks"]),
        (None, (270, 0), &json!(2310))
    );
    assert_eq!(holds().await, 0);
}
