//! The facts behind a report: they add up to each of its cells, page by page and in a stream; and the streams say what JSON says.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{api::json_of, eventually},
    tracker::{SOON, Table, Tracker, header},
};

/// Made-up clicks of days before: from three countries (one not known), some robots, some with a cost, some that went on to an
/// offer; counted into the sums as those of an older release are.
pub(super) async fn fill(pool: &PgPool, campaign: Uuid, clicks: i32, days: i32) {
    let sql = "
        INSERT INTO clicks (
            id, campaign_id, is_valid, invalid_reason, is_bot, is_unique, country, device, sub1, rule_id, path_id,
            landing_page_id, campaign_offer_id, cost, currency, created_at, updated_at
        )
        SELECT
            gen_random_uuid(), $1, n % 7 <> 0, CASE WHEN n % 7 = 0 THEN 'bot' END, n % 7 = 0, n % 2 = 0,
            (ARRAY['DE', 'AT', NULL])[1 + n % 3], (ARRAY['mobile', 'desktop'])[1 + n % 2],
            (ARRAY['=1+1', 'say \"hi\", \u{fc}', NULL, '', 'it''s'])[1 + n % 5], 0, 0,
            CASE WHEN n % 4 = 0 THEN 7 END, CASE WHEN n % 4 <> 0 THEN 8 END,
            CASE WHEN n % 5 = 0 THEN 0.05 END, CASE WHEN n % 5 = 0 THEN 'USD' END, t.at, t.at
        FROM generate_series(1, $2) AS n
        CROSS JOIN LATERAL (
            SELECT date_trunc('day', now(), 'UTC') - (1 + n % $3) * interval '1 day'
                + n * 37 % 86400 * interval '1 second' AS at
        ) t";
    sqlx::query(sql).bind(campaign).bind(clicks).bind(days).execute(pool).await.unwrap();
    let sql = "
        WITH gone AS (
            SELECT id, created_at
            FROM clicks
            WHERE landing_page_id = 7
              AND is_valid
              AND sub1 <> ''
        ), keys AS (
            INSERT INTO out_click_keys (click_id, created_at, is_counted)
            SELECT id, created_at, true
            FROM gone
        )
        INSERT INTO out_click_legs (click_id, offer_id, created_at, is_counted)
        SELECT id, offer, created_at, true
        FROM gone
        CROSS JOIN (VALUES (8), (9)) AS legs (offer)";
    sqlx::query(sql).execute(pool).await.unwrap();
    for back in 1..=days {
        let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        let counted: i64 =
            sqlx::query_scalar("SELECT octo_recount_day((now() AT TIME ZONE 'UTC')::date - $1)")
                .bind(back)
                .fetch_one(&mut *transaction)
                .await
                .unwrap_or(-1);
        if counted < 0 {
            // octo folds deltas just now
            transaction.rollback().await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            Box::pin(recount(pool, back)).await;
        } else {
            transaction.commit().await.unwrap();
        }
    }
}

async fn recount(pool: &PgPool, back: i32) {
    eventually(SOON, async || {
        let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let counted: i64 =
            sqlx::query_scalar("SELECT octo_recount_day((now() AT TIME ZONE 'UTC')::date - $1)")
                .bind(back)
                .fetch_one(&mut *transaction)
                .await?;
        anyhow::ensure!(counted >= 0, "somebody else holds the lock");
        transaction.commit().await?;
        Ok(())
    })
    .await;
}

/// A campaign with clicks of three days before and of today, conversions of some, and a click that was erased.
async fn busy(name: &str) -> Tracker {
    let tracker = Tracker::start(name).await;
    let offer = json!({ "name": "the offer", "url": "https://offer.example/?c={click_id}",
                        "payout": { "amount": "7.00", "currency": "USD" } });
    let body = json!({ "key": "demo", "name": "Demo, \"quoted\"", "offers": [offer] });
    let campaign: Uuid = tracker.campaign(body).await["id"].as_str().unwrap().parse().unwrap();
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(tracker.click(&format!("/c/demo?sub1=s{n}&sub2=erase{n}&cost=0.10&currency=USD")).await.1);
    }
    tracker.wait_rows(Table::Clicks, 6).await;
    for (n, status) in ["lead", "sale", "rejected", "sale"].iter().enumerate() {
        let mut body = json!({ "click_id": ids[n], "status": status });
        if n == 1 {
            body["goal"] = json!("dep");
        }
        let told = tracker.api(Method::POST, "/conversions").json(&body).send().await.unwrap();
        assert_eq!(told.status(), StatusCode::ACCEPTED);
    }
    eventually(SOON, async || {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM conversions").fetch_one(&tracker.pool).await?;
        anyhow::ensure!(stored == 4, "{stored} conversions");
        Ok(())
    })
    .await;
    fill(&tracker.pool, campaign, 300, 3).await;
    for n in [3, 5] {
        let id = ids[n].to_string();
        let erased = tracker.octo.run(&["privacy", "erase", "--click-id", &id]).await;
        assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));
    }
    tracker
}

fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

async fn report(tracker: &Tracker, body: &Value) -> Value {
    let answer = tracker.api(Method::POST, "/reports").json(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{body}");
    json_of(answer).await
}

/// All facts that a link leads to, page by page.
async fn follow(tracker: &Tracker, link: &Value) -> Vec<Value> {
    let Some(link) = link.as_str() else { return Vec::new() };
    let path = link.strip_prefix("/api/v1").unwrap();
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = tracker.show(&format!("{path}&limit=7&cursor={cursor}")).await;
        rows.extend(page["rows"].as_array().unwrap().clone());
        if page["has_more"] == false {
            return rows;
        }
        page["next_cursor"].as_str().unwrap().clone_into(&mut cursor);
        assert!(rows.len() < 2000, "pages without end");
    }
}

fn sum(rows: &[Value], of: impl Fn(&Value) -> Option<Decimal>) -> Decimal {
    rows.iter().filter_map(of).sum()
}

fn amount(value: &Value) -> Decimal {
    value.as_str().map_or_else(|| value.as_i64().unwrap_or_default().into(), |text| text.parse().unwrap())
}

/// Holds every cell of a report to the facts behind its links; says how many cells and facts those are.
async fn assert_cells_add_up(tracker: &Tracker, body: &Value) -> (usize, usize) {
    let shown = report(tracker, body).await;
    let rows = shown["rows"].as_array().unwrap();
    assert!(!rows.is_empty() && shown["has_more"] == false, "{body}: {shown}");
    let mut facts = 0;
    for row in rows {
        let clicks = follow(tracker, &row["links"]["clicks"]).await;
        let conversions = follow(tracker, &row["links"]["conversions"]).await;
        facts += clicks.len() + conversions.len();
        let figure = |name: &str| amount(&row["figures"][name]);
        let of_clicks = |name: &str| sum(&clicks, |fact| Some(amount(&fact[name])));
        for name in [
            "clicks",
            "valid_clicks",
            "bot_clicks",
            "unique_clicks",
            "lander_views",
            "lander_clicks",
            "offer_clicks",
            "cost",
        ] {
            assert_eq!(of_clicks(name), figure(name), "{name} of {body}: {row}\n{clicks:#?}");
        }
        for (status, count, money) in [
            ("pending", "pending", "revenue_pending"),
            ("approved", "approved", "revenue"),
            ("rejected", "rejected", "revenue_rejected"),
        ] {
            let of = |name: &str| {
                sum(&conversions, |fact| (fact["status"] == status).then(|| amount(&fact[name])))
            };
            assert_eq!(of("conversions"), figure(count), "{status} of {body}: {row}\n{conversions:#?}");
            assert_eq!(of("amount"), figure(money), "{status} of {body}: {row}\n{conversions:#?}");
        }
    }
    (rows.len(), facts)
}

const MEASURES: [&str; 14] = [
    "clicks",
    "valid_clicks",
    "bot_clicks",
    "unique_clicks",
    "lander_views",
    "lander_clicks",
    "offer_clicks",
    "cost",
    "pending",
    "approved",
    "rejected",
    "revenue_pending",
    "revenue",
    "revenue_rejected",
];

#[tokio::test]
async fn the_facts_behind_every_cell_add_up_to_it() {
    let tracker = busy("rows_cells").await;
    let now = Utc::now();
    let (mut cells, mut facts) = (0, 0);
    for (group_by, more) in [
        (json!([]), json!({})),
        (json!(["country", "device"]), json!({})),
        (json!(["day"]), json!({"tz": "Asia/Kolkata"})),
        (
            json!(["campaign", "hour_of_day"]),
            json!({"filters": [{"dimension": "device", "is_not": ["desktop"]}]}),
        ),
        (json!(["landing_page", "offer", "reason"]), json!({"tz": "Europe/Berlin"})),
        (json!(["sub1"]), json!({"filters": [{"dimension": "campaign", "is": ["demo"]}]})),
        (json!(["goal", "status"]), json!({})),
        (json!(["currency", "week"]), json!({"time": "conversion"})),
        (json!(["status", "day"]), json!({"time": "change"})),
    ] {
        let mut body = json!({
            "group_by": group_by, "measures": MEASURES, "limit": 200,
            "from": text(now - TimeDelta::hours(61)), "to": text(now + TimeDelta::minutes(17)),
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (rows, behind) = assert_cells_add_up(&tracker, &body).await;
        println!("{body}: {rows} cells of {behind} facts");
        cells += rows;
        facts += behind;
    }
    // how many hours of the day there are goes by the time of day
    assert!(cells > 30 && facts > 1000, "{cells} cells of {facts} facts");

    // what was erased is of nobody
    let shown = tracker.show("/reports/facts?kind=clicks&limit=500").await;
    let erased: Vec<&Value> =
        shown["rows"].as_array().unwrap().iter().filter(|fact| fact["kind"] == "erased").collect();
    assert_eq!(
        sum(&shown["rows"].as_array().unwrap().clone(), |fact| {
            (fact["kind"] == "erased").then(|| amount(&fact["clicks"]))
        }),
        Decimal::from(2)
    );
    assert!(erased.iter().all(|fact| fact["click_id"].is_null() && fact["country"].is_null()), "{erased:?}");
    let with_cost = tracker.show("/reports/facts?kind=costs&limit=500").await;
    let cost = sum(with_cost["rows"].as_array().unwrap(), |fact| Some(amount(&fact["cost"])));
    assert_eq!(cost, amount(&report(&tracker, &json!({"measures": ["cost"]})).await["totals"]["cost"]));
}

#[tokio::test]
async fn rows_carry_names_and_an_answer_says_how_far_it_is_stored() {
    let tracker = busy("rows_names").await;
    let shown =
        report(&tracker, &json!({"group_by": ["campaign", "offer", "rule"], "measures": ["clicks"]})).await;
    let names: Vec<&Value> = shown["rows"].as_array().unwrap().iter().map(|row| &row["names"]).collect();
    assert!(
        names.iter().all(|names| names["campaign"] == "Demo, \"quoted\"" && names["rule"] == "default"),
        "{names:?}"
    );
    assert!(names.iter().any(|names| names["offer"] == "the offer"), "{names:?}");
    assert!(names.iter().any(|names| names.get("offer").is_none()), "offer 9 is nobody's: {names:?}");
    let watermarks = shown["watermarks"].as_array().unwrap();
    assert!(watermarks[0]["seq"].as_i64().unwrap() > 0 && watermarks.len() == 1, "{watermarks:?}");
    let orphan = octo::model::id::new_uuid();
    let told = tracker.octo.get(&format!("/postback?click_id={orphan}&status=sale")).await;
    assert_eq!(told.status(), StatusCode::OK);
    eventually(SOON, async || {
        let notes = report(&tracker, &json!({})).await["notes"].clone();
        anyhow::ensure!(notes["waiting"] == 1 && notes["orphan"] == 0 && notes["unmapped"] == 0, "{notes}");
        Ok(())
    })
    .await;
    let facts = tracker.show("/reports/facts?kind=conversions").await;
    assert!(
        facts["rows"].as_array().unwrap().iter().any(|fact| fact["names"]["offer"] == "the offer"),
        "{facts}"
    );
}

async fn streamed(tracker: &Tracker, path: &str, accept: &str) -> String {
    let answer = tracker.api(Method::GET, path).header("accept", accept).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    assert!(header(&answer, "content-type").starts_with(accept), "{path}");
    answer.text().await.unwrap()
}

/// The cells of CSV, by the names of the columns.
fn csv(text: &str) -> Vec<Value> {
    assert!(text.ends_with("\r\n"), "RFC 4180");
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let row = |row: csv::Result<csv::StringRecord>| {
        let row = row.unwrap();
        names.iter().zip(row.iter()).map(|(name, cell)| (name.to_owned(), Value::from(cell))).collect()
    };
    reader.records().map(row).collect()
}

#[tokio::test]
async fn streams_say_what_json_says_to_the_cent() {
    let tracker = busy("rows_streams").await;
    let query =
        "group_by=campaign,sub1,country&measures=clicks,cost,revenue,cpc,profit&compare=previous&order=-cost";
    let shown = tracker.show(&format!("/reports?{query}&limit=10000")).await;
    let wanted = shown["rows"].as_array().unwrap();
    let lines = streamed(&tracker, &format!("/reports?{query}&limit=1"), "application/x-ndjson").await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows = csv(&streamed(&tracker, &format!("/reports?{query}"), "text/csv").await);
    assert_eq!((lines.len(), rows.len()), (wanted.len(), wanted.len()));
    assert!(wanted.len() > 10);
    let plain = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for ((wanted, line), row) in wanted.iter().zip(&lines).zip(&rows) {
        for member in ["keys", "names", "figures", "before"] {
            assert_eq!(line[member], wanted[member]);
        }
        for measure in ["clicks", "cost", "revenue", "cpc", "profit"] {
            assert_eq!(row[measure], plain(&wanted["figures"][measure]), "{row}");
            assert_eq!(row[format!("{measure}_before")], plain(&wanted["before"][measure]), "{row}");
        }
        assert_eq!(row["campaign_name"], "Demo, \"quoted\"");
        let sub1 = plain(&wanted["keys"]["sub1"]);
        let guarded = if sub1.starts_with('=') { format!("'{sub1}") } else { sub1 };
        assert_eq!(row["sub1"], guarded);
    }

    let path = "/reports/facts?filters=%5B%7B%22dimension%22:%22sub1%22,%22contains%22:%5B%22i%22%5D%7D%5D";
    let facts = follow(&tracker, &Value::from(format!("/api/v1{path}"))).await;
    assert!(facts.len() > 50, "{}", facts.len());
    let lines = streamed(&tracker, path, "application/x-ndjson").await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, facts);
    let rows = csv(&streamed(&tracker, path, "text/csv").await);
    assert_eq!(rows.len(), facts.len());
    for (row, fact) in rows.iter().zip(&facts) {
        for name in ["at", "kind", "click_id", "sub1", "country", "offer", "clicks", "cost", "amount"] {
            assert_eq!(row[name], plain(&fact[name]), "{row}");
        }
    }
    let none = streamed(
        &tracker,
        "/reports/facts?filters=%5B%7B%22dimension%22:%22city%22,%22is%22:%5B%22x%22%5D%7D%5D",
        "text/csv",
    );
    assert_eq!(csv(&none.await), Vec::<Value>::new());
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_query() {
    let tracker = Tracker::start_with("rows_hang_up", |b| b.env("OCTO_SERVER__IDLE_TIMEOUT_MS", "500")).await;
    let campaign: Uuid = tracker.simple_campaign("demo").await["id"].as_str().unwrap().parse().unwrap();
    fill(&tracker.pool, campaign, 30_000, 1).await;
    let mut answer =
        tracker.api(Method::GET, "/reports/facts").header("accept", "text/csv").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.chunk().await.unwrap().unwrap().is_empty());
    let running = async || -> sqlx::Result<i64> {
        let sql = "
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state <> 'idle' AND query LIKE '%report_facts%' AND pid <> pg_backend_pid()";
        sqlx::query_scalar(sql).fetch_one(&tracker.pool).await
    };
    assert_eq!(running().await.unwrap(), 1, "the rows are more than fit in between");
    drop(answer);
    eventually(SOON, async || {
        let running = running().await?;
        anyhow::ensure!(running == 0, "{running} queries run");
        Ok(())
    })
    .await;
    // and one that reads on has them all, however long they take: a connection is not idle meanwhile
    let germans = "/reports/facts?kind=clicks&filters=%5B%7B%22dimension%22:%22country%22,%22is%22:%5B%22DE%22%5D%7D%5D";
    let whole = streamed(&tracker, germans, "text/csv").await;
    let clicks = csv(&whole).iter().filter(|row| row["kind"] == "click").count();
    assert_eq!(clicks, 10_000);
}

#[tokio::test]
async fn the_clicks_of_a_day_that_is_over_get_an_index_by_campaign_and_today_s_get_none() {
    let tracker = Tracker::start_with("rows_index", |b| b.env("OCTO_REPORTS__INDEX_HOUR", "0")).await;
    let indexed = "
        SELECT right(tablename, 8)::date < (now() AT TIME ZONE 'UTC')::date
        FROM pg_indexes
        WHERE indexname ~ '^clicks_[0-9]{8}_campaign_id_created_at$'";
    eventually(SOON, async || {
        let days: Vec<bool> = sqlx::query_scalar(indexed).fetch_all(&tracker.pool).await?;
        anyhow::ensure!(days == [true, true], "{days:?}");
        Ok(())
    })
    .await;
}
