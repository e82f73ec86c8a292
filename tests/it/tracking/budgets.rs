//! Budgets: where clicks go once a campaign has spent what it may.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    harness::{api::answer, eventually},
    tracker::{SOON, Table, Tracker, header},
};

const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";

async fn location(tracker: &Tracker, path: &str) -> (StatusCode, String) {
    let url = tracker.octo.url(path);
    let response = tracker.octo.client().get(url).header("user-agent", PERSON).send().await.unwrap();
    (response.status(), header(&response, "location"))
}

async fn wait_for(tracker: &Tracker, wanted: (StatusCode, &str)) {
    eventually(SOON, async || {
        let went = location(tracker, "/c/demo").await;
        anyhow::ensure!((went.0, went.1.as_str()) == wanted, "{went:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_spent_budget_sends_clicks_to_the_fallback_until_there_is_more_of_it() {
    let tracker =
        Tracker::start_with("budgets", |builder| builder.env("OCTO_BUDGETS__CHECK_INTERVAL_MS", "100")).await;
    let (offer, fallback) = ("https://offer.example/", "https://fallback.example/");
    tracker
        .campaign(json!({
            "key": "demo", "name": "demo", "fallback_url": fallback, "time_zone": "Europe/Berlin",
            "daily_budget": {"amount": "1.00", "currency": "EUR"}, "offers": [{"name": "o", "url": offer}],
        }))
        .await;
    assert_eq!(
        location(&tracker, "/c/demo?cost=0.79&currency=EUR").await,
        (StatusCode::FOUND, offer.to_owned())
    );
    location(&tracker, "/c/demo?cost=5&currency=GBP").await;
    tracker.wait_rows(Table::Clicks, 2).await;
    let budget = tracker.show("/campaigns/demo/budget").await;
    assert_eq!(budget["daily"]["spent"], json!({"amount": "0.79", "currency": "EUR"}), "{budget}");
    assert_eq!((&budget["daily"]["state"], &budget["not_added"]), (&json!("open"), &json!(["GBP"])));
    assert_eq!(budget["total"], json!(null));
    location(&tracker, "/c/demo?cost=0.01&currency=EUR").await;
    tracker.wait_rows(Table::Clicks, 3).await;
    assert_eq!(tracker.show("/campaigns/demo/budget").await["daily"]["state"], "warned");
    eventually(SOON, async || {
        let metrics = tracker.octo.get("/metrics").await.text().await?;
        anyhow::ensure!(metrics.contains("octo_budgets{state=\"warned\"} 1"), "not warned");
        Ok(())
    })
    .await;
    assert_eq!(location(&tracker, "/c/demo?cost=0.20&currency=EUR").await.1, offer);
    wait_for(&tracker, (StatusCode::FOUND, fallback)).await;
    let budget = tracker.show("/campaigns/demo/budget").await;
    assert_eq!((&budget["daily"]["state"], &budget["is_exhausted"]), (&json!("exhausted"), &json!(true)));
    let metrics = tracker.octo.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("octo_budgets{state=\"exhausted\"} 1"), "counted");
    let why = "SELECT count(*) FROM clicks WHERE routed = ARRAY['fallback', 'budget'] AND invalid_reason = 'no_destination'";
    eventually(SOON, async || {
        let clicks: i64 = sqlx::query_scalar(why).fetch_one(&tracker.pool).await?;
        anyhow::ensure!(clicks > 0, "none says why");
        Ok(())
    })
    .await;
    let (_, explained) = answer(tracker.api(Method::POST, "/campaigns/demo/explain").json(&json!({}))).await;
    assert_eq!(explained["decision"]["routed"], json!(["fallback", "budget"]), "{explained}");
    assert_eq!(explained["location"], fallback);
    // a signed test link still shows what the campaign does; more of it opens the campaign; none at all is 404 without
    // a fallback
    let more = json!({"daily_budget": {"amount": "2.00", "currency": "EUR"}});
    assert_eq!(answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&more)).await.0, StatusCode::OK);
    wait_for(&tracker, (StatusCode::FOUND, offer)).await;
    let none = json!({"total_budget": {"amount": "0.50", "currency": "EUR"}, "fallback_url": null});
    assert_eq!(answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&none)).await.0, StatusCode::OK);
    wait_for(&tracker, (StatusCode::NOT_FOUND, "")).await;
}

#[tokio::test]
async fn a_total_that_is_said_later_spends_a_budget() {
    let tracker =
        Tracker::start_with("budgets_said", |b| b.env("OCTO_BUDGETS__CHECK_INTERVAL_MS", "100")).await;
    let fallback = "https://fallback.example/";
    tracker
        .campaign(json!({
            "key": "demo", "name": "demo", "fallback_url": fallback, "offers": [{"name": "o", "url": "https://offer.example/"}],
            "total_budget": {"amount": "100", "currency": "USD"},
        }))
        .await;
    let said = json!({
        "campaign": "demo", "from": "2026-11-01", "to": "2026-11-02", "kind": "total", "amount": "100", "currency": "USD",
    });
    assert_eq!(answer(tracker.api(Method::POST, "/costs").json(&said)).await.0, StatusCode::CREATED);
    wait_for(&tracker, (StatusCode::FOUND, fallback)).await;
    let spent = tracker.show("/campaigns/demo/budget").await;
    assert_eq!(
        (&spent["total"]["ratio"], &spent["daily"]),
        (&json!(1.0), &json!(null)),
        "no click bears it, and it is spent"
    );
    let id = tracker.show("/costs").await["data"][0]["id"].as_str().unwrap().to_owned();
    answer(tracker.api(Method::POST, &format!("/costs/{id}/void"))).await;
    wait_for(&tracker, (StatusCode::FOUND, "https://offer.example/")).await;
}
