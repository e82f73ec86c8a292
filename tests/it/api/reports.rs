//! `/api/v1/reports`: figures by any dimensions, and that they add up.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::eventually,
    tracker::{OFFER, SOON, Table, Tracker, assert_roll_ups_agree, header},
};

const PHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                     Version/17.5 Mobile/15E148 Safari/604.1";
const DESKTOP: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36";
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// Follows a link as a browser of this kind.
async fn click(tracker: &Tracker, path: &str, agent: &str) -> (Uuid, String) {
    let request = tracker.octo.client().get(tracker.octo.url(path)).header("user-agent", agent);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND, "{path}");
    (header(&response, "x-click-id").parse().unwrap(), header(&response, "location"))
}

async fn report(tracker: &Tracker, question: &Value) -> Value {
    let response = tracker.api(Method::POST, "/reports").json(question).send().await.unwrap();
    let status = response.status();
    let report: Value = response.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{report:#}");
    report
}

async fn convert(tracker: &Tracker, click_id: Uuid, status: &str) {
    let body = json!({ "click_id": click_id, "status": status });
    let response = tracker.api(Method::POST, "/conversions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

/// The rows of a report in a line each: the keys, then the figures.
fn lines(report: &Value) -> Vec<String> {
    let of = |row: &Value| {
        let name = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let keys =
            report["group_by"].as_array().unwrap().iter().map(|d| name(&row["keys"][d.as_str().unwrap()]));
        let figures =
            report["measures"].as_array().unwrap().iter().map(|m| name(&row["figures"][m.as_str().unwrap()]));
        keys.chain(figures).collect::<Vec<_>>().join(" ")
    };
    report["rows"].as_array().unwrap().iter().map(of).collect()
}

/// Six clicks, two to a landing page, one of these on to its offer, and what three of them earned; the campaign without a
/// landing page.
async fn traffic(tracker: &Tracker) -> (Value, Vec<(Uuid, String)>) {
    let offer = json!({ "name": "offer", "url": OFFER, "payout": { "amount": "7.00", "currency": "USD" } });
    let direct = tracker.campaign(json!({ "key": "direct", "name": "direct", "offers": [offer] })).await;
    let funnel = json!({
        "key": "funnel", "name": "funnel",
        "landing_pages": [{ "name": "page", "url": "https://lander.example/?t={click_token}" }],
        "offers": [{ "name": "one", "url": "https://one.example/" }],
    });
    tracker.campaign(funnel).await;

    let mut clicks = Vec::new();
    for (path, agent) in [
        ("/click?cid=direct&sub1=a&cost=0.10&currency=USD", PHONE),
        ("/click?cid=direct&sub1=b&cost=0.20&currency=USD", PHONE),
        ("/click?cid=direct&sub1=b&cost=0.40&currency=UAH", DESKTOP),
        ("/click?cid=direct&sub1=c", BOT),
        ("/click?cid=funnel", PHONE),
        ("/click?cid=funnel&sub1=a", DESKTOP),
    ] {
        clicks.push(click(tracker, path, agent).await);
    }
    let token = clicks[4].1.split_once("t=").unwrap().1.to_owned();
    for _ in 0..2 {
        assert_eq!(tracker.octo.get(&format!("/out?k={token}")).await.status(), StatusCode::FOUND);
    }
    tracker.wait_rows(Table::Clicks, 6).await;
    tracker.wait_rows(Table::OutClicks, 2).await;
    convert(tracker, clicks[0].0, "sale").await;
    convert(tracker, clicks[2].0, "lead").await;
    convert(tracker, clicks[1].0, "sale").await;
    convert(tracker, clicks[1].0, "rejected").await;
    (direct, clicks)
}

#[tokio::test]
async fn a_report_says_what_was_clicked_and_earned_and_its_sums_are_those_of_the_facts() {
    let tracker = Tracker::start("reports").await;
    let (direct, clicks) = traffic(&tracker).await;
    let mut by_device = json!({
        "group_by": ["device"], "order": "device",
        "measures": ["clicks", "valid_clicks", "lander_views", "lander_clicks", "offer_clicks", "conversions", "approved",
                     "rejected", "revenue", "revenue_pending", "revenue_rejected", "cost", "profit", "cr", "approve_rate", "lp_ctr"],
    });
    eventually(SOON, async || {
        let shown = lines(&report(&tracker, &by_device).await);
        let wanted = [
            "bot 1 0 0 0 0 0 0 0 0.00 0.00 0.00 0.00 0.00 null null null",
            "desktop 2 2 1 0 1 1 0 0 0.00 7.00 0.00 0.00 0.00 0.5 null 0",
            "mobile 3 3 1 1 3 1 1 1 7.00 0.00 7.00 0.30 6.70 0.333333 0.5 1",
        ];
        anyhow::ensure!(shown == wanted, "{shown:#?}");
        Ok(())
    })
    .await;

    // a range that stays, for the links of the rows have it
    by_device["to"] = json!((Utc::now() + TimeDelta::hours(1)).to_rfc3339());
    let shown = report(&tracker, &by_device).await;
    assert_eq!(shown["source"], "dimension");
    assert_eq!(shown["totals"]["clicks"], 6);
    assert_eq!(shown["totals"]["revenue"], "7.00");
    assert_eq!(shown["notes"]["without_rate"][0]["currency"], "UAH");
    assert_eq!(shown["notes"]["without_rate"][0]["cost"], "0.40");

    // more dimensions, a campaign by its key, a value that no sums know, the same by a link
    let of_direct = json!([{ "dimension": "campaign", "is": ["direct"] }]);
    let by_two = json!({ "group_by": ["device", "os"], "measures": ["clicks"], "filters": of_direct });
    let shown = report(&tracker, &by_two).await;
    assert_eq!(lines(&shown), ["mobile iOS 2", "bot null 1", "desktop Windows 1"]);
    assert_eq!(shown["source"], "cube");
    let by_sub = json!({ "group_by": ["sub1"], "measures": ["clicks", "approved"], "filters": of_direct, "order": "sub1" });
    let shown = report(&tracker, &by_sub).await;
    assert_eq!(lines(&shown), ["a 1 1", "b 2 0", "c 1 0"]);
    assert_eq!(shown["source"], "raw");
    let linked = tracker
        .show("/reports?group_by=sub1&measures=clicks,approved&order=sub1&filters=%5B%7B%22dimension%22:%22campaign%22,%22is%22:%5B%22direct%22%5D%7D%5D")
        .await;
    assert_eq!(lines(&linked), lines(&shown));
    let by_campaign = json!({ "group_by": ["campaign", "status"], "measures": ["conversions"], "filters": [
        { "dimension": "status", "is": ["approved", "pending"] },
    ] });
    let shown = report(&tracker, &by_campaign).await;
    let id = direct["id"].as_str().unwrap();
    assert!(lines(&shown).contains(&format!("{id} approved 1")), "{shown:#}");

    // pages go on behind the last row
    let page = json!({ "group_by": ["sub1"], "measures": ["clicks"], "order": "sub1", "limit": 2 });
    let first = report(&tracker, &page).await;
    assert_eq!((lines(&first).len(), &first["has_more"]), (2, &json!(true)));
    let mut rest = page;
    rest["cursor"] = first["next_cursor"].clone();
    let rest = report(&tracker, &rest).await;
    assert_eq!((lines(&rest).len(), &rest["has_more"]), (2, &json!(false)));

    // what is put right is in the sums, and everything adds up, folded or not
    let path = format!("/clicks/{}", clicks[4].0);
    let put_right = json!({ "is_valid": false, "invalid_reason": "bot" });
    let answer = tracker.api(Method::PATCH, &path).json(&put_right).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.text().await);
    let shown = report(&tracker, &by_device).await;
    assert_eq!(lines(&shown)[2], "mobile 3 2 0 0 2 1 1 1 7.00 0.00 7.00 0.30 6.70 0.5 0.5 null");
    let invariants = tracker.show("/stats/invariants").await;
    assert_eq!(
        (&invariants["adds_up"], &invariants["uncounted_days"]),
        (&json!(true), &json!([])),
        "{invariants:#}"
    );
    assert_roll_ups_agree(&tracker.pool).await;
    eventually(SOON, async || {
        let pending: i64 =
            sqlx::query_scalar("SELECT count(*) FROM report_deltas").fetch_one(&tracker.pool).await?;
        anyhow::ensure!(pending == 0, "{pending} deltas are not folded");
        Ok(())
    })
    .await;
    assert_roll_ups_agree(&tracker.pool).await;
    assert_eq!(report(&tracker, &by_device).await["rows"], shown["rows"]);
}

#[tokio::test]
async fn a_sum_that_is_not_that_of_its_facts_is_found_and_counted_anew() {
    let tracker = Tracker::start("reports_wrong").await;
    tracker.simple_campaign("demo").await;
    for _ in 0..3 {
        click(&tracker, "/click?cid=demo", DESKTOP).await;
    }
    tracker.wait_rows(Table::Clicks, 3).await;
    eventually(SOON, async || {
        let folded: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(clicks), 0)::bigint FROM report_dimensions WHERE dimension = 'campaign'",
        )
        .fetch_one(&tracker.pool)
        .await?;
        anyhow::ensure!(folded == 3, "{folded} are folded");
        Ok(())
    })
    .await;
    let spoil = "UPDATE report_dimensions SET clicks = clicks + 2 WHERE dimension = 'campaign'";
    sqlx::raw_sql(spoil).execute(&tracker.pool).await.unwrap();
    let invariants = tracker.show("/stats/invariants").await;
    assert_eq!(invariants["adds_up"], false);
    assert_eq!(invariants["differences"][0]["kept_by"], "dimensions");
    assert_eq!(invariants["differences"][0]["clicks"], "2");
    let ask = "INSERT INTO report_recounts (day) SELECT (now() AT TIME ZONE 'UTC')::date";
    sqlx::raw_sql(ask).execute(&tracker.pool).await.unwrap();
    eventually(SOON * 3, async || {
        let invariants = tracker.show("/stats/invariants").await;
        anyhow::ensure!(invariants["adds_up"] == true, "{invariants:#}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_a_report_cannot_be_asked_is_refused_by_its_field() {
    let tracker = Tracker::start("reports_refused").await;
    for (question, pointer) in [
        (json!({ "group_by": ["planet"] }), "/group_by/0"),
        (json!({ "filters": [{ "dimension": "campaign", "is": ["nobody"] }] }), "/filters/0/is/0"),
        (json!({ "cursor": "nonsense" }), "/cursor"),
    ] {
        let response = tracker.api(Method::POST, "/reports").json(&question).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{question}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem:#}");
    }
    let listed = tracker.show("/reports/dimensions").await;
    assert!(listed["dimensions"].as_array().unwrap().len() > 30, "{listed:#}");
}

#[tokio::test]
async fn a_day_that_is_closed_takes_what_comes_later_and_each_of_its_sums_is_compared() {
    let tracker = Tracker::start("reports_closed").await;
    traffic(&tracker).await;
    let pool = &tracker.pool;
    let to = (Utc::now() + TimeDelta::hours(1)).to_rfc3339();
    // from sums of a dimension, of all campaigns and of each; from sums of days, of all campaigns, of parts of campaigns and of each
    // campaign; from hours
    let groups = [
        &["device"][..],
        &["device", "campaign"],
        &["device", "os"],
        &["device", "path"],
        &["device", "os", "path"],
        &["device", "hour"],
        &["hour"],
        &["campaign", "hour"],
    ];
    let agree = async |clicks: i64| {
        for group_by in groups {
            let mut question = json!({ "group_by": group_by, "measures": ["clicks", "lander_clicks", "conversions"], "to": to });
            let summed = report(&tracker, &question).await;
            question["filters"] = json!([{ "dimension": "referrer_host", "is": ["unknown"] }]);
            let counted = report(&tracker, &question).await;
            assert_ne!(summed["source"], "raw");
            assert_eq!(counted["source"], "raw");
            assert_eq!(summed["totals"]["clicks"], clicks, "{group_by:?}");
            assert_eq!(
                (lines(&summed), &summed["totals"]),
                (lines(&counted), &counted["totals"]),
                "{group_by:?}"
            );
        }
        assert_roll_ups_agree(pool).await;
    };
    // -1: octo is about the sums itself
    let call = async |sql: &'static str| loop {
        let answer: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        if answer >= 0 {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let counts = async |sql: &'static str, wanted: i64| {
        eventually(SOON, async || {
            let count = call(sql).await;
            anyhow::ensure!(count == wanted, "{count}: {sql}");
            Ok(())
        })
        .await;
    };
    let deltas = "SELECT count(*) FROM report_deltas";
    let changes = "SELECT count(*) FROM conversion_changes";
    counts(changes, 4).await;
    counts(deltas, 0).await;
    agree(6).await;
    let close = "SELECT octo_close_day((now() AT TIME ZONE 'UTC')::date + 1)";
    assert_eq!(call(close).await, 1);
    assert_eq!(call(close).await, 0, "there is no day more");
    agree(6).await;

    // comes later, is corrected, is settled
    let (id, _) = click(&tracker, "/click?cid=direct&sub1=late", PHONE).await;
    tracker.wait_rows(Table::Clicks, 7).await;
    agree(7).await;
    convert(&tracker, id, "sale").await;
    counts(changes, 5).await;
    let put_right = json!({ "is_valid": false, "invalid_reason": "bot" });
    let answer = tracker.api(Method::PATCH, &format!("/clicks/{id}")).json(&put_right).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{:?}", answer.text().await);
    agree(7).await;
    counts(deltas, 0).await;
    agree(7).await;
    let recount = "SELECT octo_recount_day((now() AT TIME ZONE 'UTC')::date)";
    assert!(call(recount).await > 7);
    agree(7).await;

    // whichever sum is wrong is named
    for (table, kept_by) in [
        ("report_hours", "hours"),
        ("report_days", "days"),
        ("report_parts", "parts"),
        ("report_traffic", "traffic"),
        ("report_dimensions", "dimensions"),
        ("report_overall", "overall"),
    ] {
        let change = |by: &str| sqlx::AssertSqlSafe(format!("UPDATE {table} SET clicks = clicks {by} 1"));
        sqlx::raw_sql(change("+")).execute(pool).await.unwrap();
        let invariants = tracker.show("/stats/invariants").await;
        let differences = invariants["differences"].as_array().unwrap();
        assert!(
            !differences.is_empty() && differences.iter().all(|it| it["kept_by"] == kept_by),
            "{invariants:#}"
        );
        sqlx::raw_sql(change("-")).execute(pool).await.unwrap();
    }
    agree(7).await;
}
