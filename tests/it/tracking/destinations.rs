//! What a redirect makes of a stored destination: macros, and links into apps.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::api::answer,
    tracker::{Table, Tracker, header},
};

const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";
const ANDROID: &str = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";
const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

/// Where a click leads, and its id.
async fn click(tracker: &Tracker, path: &str, agent: &str) -> (String, String) {
    let request = tracker.octo.client().get(tracker.octo.url(path)).header("user-agent", agent);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND, "{path}");
    (header(&response, "location"), header(&response, "x-click-id"))
}

#[tokio::test]
async fn each_device_gets_what_it_can_open() {
    let tracker = Tracker::start("destinations_devices").await;
    let web = "https://shop.example/?c={click_id}&s={sub1}";
    let offers = json!([
        { "name": "Android", "url": "intent://shop.example/p#Intent;scheme=https;package=com.shop;S.ref={sub1};end",
            "web_url": web },
        { "name": "iPhone", "url": "itms-apps://apps.apple.com/app/id42?ct={sub1}" },
    ]);
    let made = tracker.campaign(json!({ "key": "app", "name": "a", "offers": offers })).await;
    assert_eq!(made["offers"][0]["web_url"], web, "as it is stored and shown");
    let (intent, store) = (made["offers"][0]["id"].to_string(), made["offers"][1]["id"].to_string());
    let hostile = "sub1=%3Bend%3Bpackage%3Devil%3B%23Intent";
    let value = "%3Bend%3Bpackage%3Devil%3B%23Intent";

    let named = |id: &str| format!("/c/app?campaign_offer_id={id}&{hostile}");
    let (location, id) = click(&tracker, &named(&intent), ANDROID).await;
    let inner =
        format!("https%3A%2F%2Fshop.example%2F%3Fc%3D{id}.{intent}%26s%3D{}", value.replace('%', "%25"));
    let wanted = format!(
        "intent://shop.example/p#Intent;scheme=https;package=com.shop;S.ref={value};S.browser_fallback_url={inner};end"
    );
    assert_eq!(location, wanted);

    let (location, id) = click(&tracker, &named(&intent), WINDOWS).await;
    assert_eq!(location, format!("https://shop.example/?c={id}.{intent}&s={value}"));
    let (location, _) = click(&tracker, &named(&store), IPHONE).await;
    assert_eq!(location, format!("itms-apps://apps.apple.com/app/id42?ct={value}"));
    // the iPhone's offer is none for others, whatever the link names and the draw says
    for path in [named(&store), "/c/app".to_owned()] {
        for _ in 0..10 {
            let (location, _) = click(&tracker, &path, WINDOWS).await;
            assert!(location.starts_with("https://shop.example/?c="), "{location}");
        }
    }

    let patch = json!({ "offers": [{ "id": made["offers"][1]["id"], "name": "iPhone", "url": made["offers"][1]["url"] }] });
    let changed = answer(tracker.api(Method::PATCH, "/campaigns/app").json(&patch)).await.1;
    assert_eq!(changed["offers"].as_array().map(Vec::len), Some(1), "{changed}");
    let nowhere = tracker
        .octo
        .client()
        .get(tracker.octo.url("/c/app"))
        .header("user-agent", WINDOWS)
        .send()
        .await
        .unwrap();
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND, "there is no fallback");
}

#[tokio::test]
async fn macros_say_what_was_decided_and_what_is_missing() {
    let tracker = Tracker::start("destinations_macros").await;
    let url = "https://o.example/?n={campaign_name}/{rule}/{path}/{offer_name}&p={payout}&c={cost}&k={keyword|none}\
               &d={date:%Y}&r={sub1:raw}&s={sub1}&x={click_id}";
    let offer =
        |name: &str| json!({ "name": name, "url": url, "payout": { "amount": "1.50", "currency": "USD" } });
    let campaign = json!({ "key": "m", "name": "A & B", "offers": [offer("One")] });
    tracker.campaign(campaign).await;
    let (location, id) = click(&tracker, "/c/m?sub1=a%2520b&cost=0.0500", WINDOWS).await;
    let year = location.split("&d=").nth(1).unwrap()[..4].parse::<u32>().unwrap();
    assert!(year >= 2025, "{location}");
    let wanted = format!(
        "https://o.example/?n=A%20%26%20B/Default/Default/One&p=1.5&c=0.05&k=none&d={year}&r=a%20b&s=a%2520b&x={id}"
    );
    assert_eq!(location, wanted);

    let refused = tracker
        .api(Method::POST, "/campaigns")
        .json(&json!({ "name": "n", "offers": [{ "name": "o", "url": "https://o.example/?c={clickid}&o={out_url}" }] }))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = refused.json().await.unwrap();
    let detail = problem["errors"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("{clickid} (did you mean {click_id}?)"), "{detail}");
}

#[tokio::test]
async fn what_an_offer_of_several_calls_a_click_is_that_click_everywhere() {
    let tracker = Tracker::start("destinations_legs").await;
    let offer = |name: &str| json!({ "name": name, "url": "https://o.example/?{click_id}&{click_id:short}" });
    let made =
        tracker.campaign(json!({ "key": "legs", "name": "l", "offers": [offer("a"), offer("b")] })).await;
    let ids: Vec<String> =
        made["offers"].as_array().unwrap().iter().map(|offer| offer["id"].to_string()).collect();
    let (location, id) = click(&tracker, "/c/legs", WINDOWS).await;
    let (long, short) = location.strip_prefix("https://o.example/?").unwrap().split_once('&').unwrap();
    let (click_id, leg) = long.split_once('.').unwrap();
    assert!(click_id == id && ids.iter().any(|id| id == leg), "{location}");
    assert_eq!(short.split_once('.').map(|(short, leg)| (short.len(), leg)), Some((22, leg)));
    tracker.wait_rows(Table::Clicks, 1).await;
    for called in [long, short] {
        assert_eq!(answer(tracker.api(Method::GET, &format!("/clicks/{called}"))).await.1["id"], id);
        let event = json!({ "event_type": "sale", "click_id": called });
        let sent = tracker.octo.client().post(tracker.octo.url("/event")).json(&event).send().await.unwrap();
        let sent: Value = sent.json().await.unwrap();
        assert_eq!(sent.get("adjusted"), None, "{sent}");
    }
    tracker.wait_rows(Table::Events, 2).await;
    let events = answer(tracker.api(Method::GET, &format!("/events?click_id={id}"))).await.1;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2), "{events}");
}
