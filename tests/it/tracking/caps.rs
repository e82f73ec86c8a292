//! Caps: where clicks go once something has taken as much as it may, and what its owner sees of it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{api::answer, eventually},
    tracker::{SOON, Table, Tracker, header},
};

fn cap(limit: u32) -> Value {
    json!([{"of": "clicks", "limit": limit, "per": "total"}])
}

#[expect(clippy::needless_pass_by_value, reason = "what json! makes is nobody else's")]
fn offer(name: &str, caps: Value) -> Value {
    json!({"name": name, "url": format!("https://{name}.example/"), "caps": caps})
}

/// Where a click of a visitor goes: the first label of the host.
async fn goes(tracker: &Tracker, key: &str, agent: &str) -> String {
    let url = tracker.octo.url(&format!("/click?cid={key}"));
    let request = tracker.octo.client().get(url).header("user-agent", agent);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    let location = header(&response, "location");
    location.trim_start_matches("https://").split('.').next().unwrap_or_default().to_owned()
}

const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

#[tokio::test]
async fn what_is_over_goes_to_the_next_offer_then_to_the_overflow_offer_and_then_to_the_fallback() {
    let tracker = Tracker::start("caps_overflow").await;
    let made = tracker
        .campaign(json!({
            "key": "demo", "name": "demo", "fallback_url": "https://fallback.example/",
            "offers": [offer("one", cap(2)), offer("two", cap(3))],
        }))
        .await;
    let rest = answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&json!({
        "offers": [
            {"id": made["offers"][0]["id"], "name": "one", "url": "https://one.example/", "caps": cap(2)},
            {"id": made["offers"][1]["id"], "name": "two", "url": "https://two.example/", "caps": cap(3)},
            offer("rest", json!([])),
        ],
    })));
    let (status, campaign) = rest.await;
    assert_eq!(status, StatusCode::OK, "{campaign}");
    // the third is of weight 0, so that only what is over of the others comes to it
    let (first, second, third) = (&campaign["offers"][0], &campaign["offers"][1], &campaign["offers"][2]);
    let entry = |offer: &Value, name: &str, more: Value| {
        let mut entry = json!({"id": offer["id"], "name": name, "url": format!("https://{name}.example/")});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let overflow = json!({
        "offers": [
            entry(first, "one", json!({"caps": cap(2), "overflow_offer_id": third["id"]})),
            entry(second, "two", json!({"caps": cap(3), "overflow_offer_id": third["id"]})),
            entry(third, "rest", json!({"weight": 0, "caps": cap(4)})),
        ],
    });
    let (status, campaign) = answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&overflow)).await;
    assert_eq!(status, StatusCode::OK, "{campaign}");

    // bots get the same destinations and fill no place
    for _ in 0..5 {
        let to = goes(&tracker, "demo", BOT).await;
        assert!(["one", "two"].contains(&to.as_str()), "{to}");
    }
    let mut went = Vec::new();
    for _ in 0..12 {
        went.push(goes(&tracker, "demo", PERSON).await);
    }
    let count = |name: &str| went.iter().filter(|to| *to == name).count();
    assert_eq!([count("one"), count("two"), count("rest"), count("fallback")], [2, 3, 4, 3], "{went:?}");
    assert!(went[..5].iter().all(|to| ["one", "two"].contains(&to.as_str())), "{went:?}");
    assert!(went[9..].iter().all(|to| to == "fallback"), "{went:?}");

    tracker.wait_rows(Table::Clicks, 17).await;
    let why: Vec<Option<Vec<String>>> =
        sqlx::query_scalar("SELECT routed FROM clicks WHERE NOT is_bot ORDER BY id")
            .fetch_all(&tracker.pool)
            .await
            .unwrap();
    let has = |at: usize, why_: &str| why[at].as_ref().is_some_and(|all| all.iter().any(|one| one == why_));
    assert!(has(5, "cap") && has(5, "overflow"), "{why:?}");
    assert!(has(11, "cap") && has(11, "fallback"), "{why:?}");

    let caps = tracker.show("/campaigns/demo/caps").await;
    let used: Vec<_> =
        caps["data"].as_array().unwrap().iter().map(|cap| (&cap["used"], &cap["limit"])).collect();
    assert_eq!(json!(used), json!([[2, 2], [3, 3], [4, 4]]), "{caps}");
    assert!(caps["data"].as_array().unwrap().iter().all(|cap| cap["is_full"] == true), "{caps}");
    // another limit is the same count
    let raised = json!({"offers": [entry(first, "one", json!({"caps": cap(3)}))]});
    assert_eq!(answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&raised)).await.0, StatusCode::OK);
    assert_eq!(goes(&tracker, "demo", PERSON).await, "one");
    assert_eq!(goes(&tracker, "demo", PERSON).await, "fallback");
}

#[tokio::test]
async fn a_cap_of_visitors_takes_each_of_them_once_and_lets_him_come_back() {
    let tracker = Tracker::start("caps_visitors").await;
    let caps = json!([{"of": "visitors", "limit": 2, "per": "day", "time_zone": "Europe/Berlin"}]);
    let campaign = json!({
        "key": "demo", "name": "demo", "fallback_url": "https://fallback.example/",
        "caps": caps, "offers": [offer("one", json!([]))],
    });
    tracker.campaign(campaign).await;
    let agent = |i: u8| format!("{PERSON} {i}");
    for (visitor, wanted) in
        [(1, "one"), (1, "one"), (2, "one"), (3, "fallback"), (1, "one"), (3, "fallback")]
    {
        assert_eq!(goes(&tracker, "demo", &agent(visitor)).await, wanted, "{visitor}");
    }
    let caps = tracker.show("/campaigns/demo/caps").await;
    let cap = &caps["data"][0];
    assert_eq!(cap["on"], "path", "{caps}");
    assert_eq!((&cap["id"], &cap["used"], &cap["is_full"]), (&json!(0), &json!(2), &json!(true)), "{caps}");
    assert_eq!(cap["time_zone"], "Europe/Berlin");
    eventually(SOON, async || {
        let caps = tracker.show("/campaigns/demo/caps").await;
        anyhow::ensure!(caps["data"][0]["is_shared"] == true, "{caps}");
        Ok(())
    })
    .await;
}
