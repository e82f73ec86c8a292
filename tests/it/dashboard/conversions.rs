//! What postbacks made of clicks, by HTTP: a conversion that is lost is found, and a delivery that failed is sent again.

use anyhow::ensure;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    journeys::Stage,
    sessions::{Visitor, between},
};
use crate::{
    harness::{api::answer, eventually, free_address},
    tracker::{SOON, Table, Tracker, header},
};

/// A network of a campaign, whose postback has a word that nobody mapped: the click's id, and the network.
async fn lost(tracker: &Tracker) -> (String, i64) {
    tracker.simple_campaign("lost").await;
    let network = json!({ "name": "Strange words", "postback_key": "strange-words" });
    let (status, network) = answer(tracker.api(Method::POST, "/affiliate-networks").json(&network)).await;
    assert_eq!(status, StatusCode::CREATED, "{network}");
    let (_, click) = tracker.click("/click?cid=lost").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let told = format!("/postback/strange-words?click_id={click}&payout=7.25&currency=USD&status=hooray");
    eventually(SOON, async || {
        tracker.octo.get(&told).await;
        let found = tracker.show("/postbacks?reason=unmapped").await;
        ensure!(!found["data"].as_array().unwrap().is_empty(), "{found}");
        Ok(())
    })
    .await;
    (click.to_string(), network["id"].as_i64().unwrap())
}

async fn conversion(tracker: &Tracker, click: &str) -> Value {
    tracker.show(&format!("/conversions?click_id={click}")).await["data"][0].clone()
}

#[tokio::test]
async fn a_lost_conversion_is_found_mapped_previewed_and_counted() {
    let tracker = Tracker::start("ui_lost").await;
    let (click, network) = lost(&tracker).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let list = visitor.page("/ui/conversions?tab=unmapped").await;
    assert!(list.contains("its word is not mapped") && list.contains("Strange words"), "{list}");
    assert!(list.contains("Unmapped (") && !list.contains("Unmapped (0)"), "{list}");
    let found = tracker.show("/postbacks?reason=unmapped").await;
    let path = format!("/ui/postbacks/{}", found["data"][0]["id"].as_str().unwrap());
    assert!(list.contains(&path), "{path} in {list}");

    let page = visitor.page(&path).await;
    assert!(page.contains("value=\"hooray\""), "the word stands there already: {page}");
    let version = between(&page, "name=\"version\" value=\"", "\"").to_owned();
    let map = async |status: &str, version: &str| {
        visitor.post(&path, &[("word", "hooray"), ("status", status), ("version", version)]).await
    };
    let bad = map("splendid", &version).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(bad.text().await.unwrap().contains("id=\"status-fault\""));
    let stale = map("approved", "99").await;
    assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
    assert!(stale.text().await.unwrap().contains("Somebody else changed this network meanwhile"));
    let mapped = map("approved", &version).await;
    let replay = header(&mapped, "location");
    assert!(replay.starts_with("/ui/postbacks/replay?"), "{replay}");
    let page = visitor.page(&replay).await;
    assert!(page.contains("The word is mapped."), "{page}");

    let id = network.to_string();
    let preview = visitor.post("/ui/postbacks/replay", &[("network", &id), ("action", "preview")]).await;
    let preview = preview.text().await.unwrap();
    assert!(preview.contains("What would change") && preview.contains("+7.25 USD"), "{preview}");
    assert_eq!(conversion(&tracker, &click).await["status"], "unmapped", "nothing changed yet");
    let applied = visitor.post("/ui/postbacks/replay", &[("network", &id), ("action", "apply")]).await;
    let applied = applied.text().await.unwrap();
    assert!(applied.contains("What was changed") && applied.contains("+7.25 USD"), "{applied}");
    let found = conversion(&tracker, &click).await;
    assert_eq!((&found["status"], &found["payout"]), (&json!("approved"), &json!("7.25")));
    let again = visitor.post("/ui/postbacks/replay", &[("network", &id), ("action", "preview")]).await;
    assert!(again.text().await.unwrap().contains("Nothing would change."));

    let whole = visitor.page(&format!("/ui/conversions/{}", found["id"].as_str().unwrap())).await;
    assert!(whole.contains("derived again") && whole.contains("hooray"), "{whole}");
    let list = visitor.page(&format!("/ui/conversions?q={click}&status=approved")).await;
    assert!(list.contains("7.25 USD") && list.contains("approved"), "{list}");
    assert!(visitor.page("/ui/conversions?q=nonsense").await.contains("That is no id"));
    assert!(visitor.page("/ui/conversions?cid=nobody").await.contains("There is no campaign"));
    eventually(SOON, async || {
        ensure!(visitor.page("/ui/campaigns").await.contains("7.25"), "no revenue yet");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_delivery_that_failed_is_put_back_and_a_paused_target_is_resumed() {
    let nobody = free_address();
    let tracker = Tracker::start_with("ui_deliveries", |octo| {
        octo.env("OCTO_DELIVERIES__ALLOWED_NETWORKS", "127.79.0.0/16")
            .env("OCTO_DELIVERIES__POLL_INTERVAL_MS", "20")
    })
    .await;
    let campaign = tracker.simple_campaign("told").await;
    let url = format!("http://{nobody}/?d={{delivery_id}}");
    let body = json!({ "name": "Ads", "campaign_id": campaign["id"], "url": url });
    let (status, target) = answer(tracker.api(Method::POST, "/postback-targets").json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{target}");
    let id = target["id"].as_i64().unwrap();
    let (_, click) = tracker.click("/click?cid=told").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    tracker.octo.get(&format!("/postback?click_id={click}&payout=1&currency=USD")).await;
    let wait_attempts = async |count: i64| {
        eventually(SOON, async || {
            let found = tracker.show("/deliveries").await;
            let is_tried = found["data"][0]["attempts"].as_i64() >= Some(count);
            ensure!(is_tried && found["data"][0]["state"] == "pending", "{found}");
            Ok(())
        })
        .await;
    };
    wait_attempts(1).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let turn = format!("/ui/deliveries/targets/{id}");
    for (action, is_paused) in [("pause", true), ("resume", false)] {
        let done = visitor.post(&turn, &[("action", action), ("range", "30d")]).await;
        let location = header(&done, "location");
        assert_eq!(location, format!("/ui/deliveries?range=30d&done={action}d"));
        assert!(visitor.page(&location).await.contains(&format!("The target is {action}d.")));
        let shown = tracker.show(&format!("/postback-targets/{id}")).await;
        assert_eq!(shown["paused_at"].is_string(), is_paused, "{shown}");
    }
    // given up, as after the whole schedule
    sqlx::query("UPDATE deliveries SET state = 'dead', reason = 'attempts', finished_at = now()")
        .execute(&tracker.pool)
        .await
        .unwrap();
    let found = tracker.show("/deliveries?state=dead").await;
    let path = format!("/ui/deliveries/{}", found["data"][0]["id"].as_str().unwrap());
    let list = visitor.page("/ui/deliveries?state=dead").await;
    assert!(list.contains(&path) && list.contains("given up: every attempt failed"), "{list}");
    assert!(visitor.page(&path).await.contains("Attempt 1"));
    let done = visitor.post(&path, &[]).await;
    assert_eq!(header(&done, "location"), format!("{path}?done=retried"));
    assert!(tracker.show("/deliveries?state=dead").await["data"].as_array().unwrap().is_empty());
    wait_attempts(2).await;
    sqlx::query("UPDATE deliveries SET state = 'dead', reason = 'attempts', finished_at = now()")
        .execute(&tracker.pool)
        .await
        .unwrap();
    let done = visitor.post(&turn, &[("action", "again")]).await;
    assert_eq!(header(&done, "location"), "/ui/deliveries?done=again.1");
}

async fn a_lost_conversion_is_found(has_scripts: bool) {
    let stage = Stage::set("ui_lost_journey", has_scripts).await;
    let (click, _) = lost(&stage.tracker).await;
    let page = stage.signed_in().await;
    page.resize(360, 800).await;
    page.go("http://octo.example/ui/conversions?tab=unmapped").await;
    page.wait_for("document.querySelector('h1')?.textContent === 'Unmapped'").await;
    page.click("tbody th a").await;
    page.wait_for("document.getElementById('word')?.value === 'hooray'").await;
    page.click("main form button.first").await;
    page.wait_for("document.querySelector('.notice')?.textContent.includes('The word is mapped')").await;
    page.click("main form.row button.first").await;
    page.wait_for("document.querySelector('#outcome h2')?.textContent === 'What would change'").await;
    assert_eq!(conversion(&stage.tracker, &click).await["status"], "unmapped", "nothing changed yet");
    page.click("#outcome button.first").await;
    page.wait_for("document.querySelector('#outcome h2')?.textContent === 'What was changed'").await;
    assert_eq!(conversion(&stage.tracker, &click).await["status"], "approved");
    let fits = page.eval("document.documentElement.scrollWidth <= 360").await;
    assert_eq!(fits, true, "no wider than a telephone");
    page.click("#outcome tbody th a").await;
    page.wait_for("document.querySelector('ol.story li')").await;
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

/// One browser at a time: `.config/nextest.toml` goes by the name of this module.
mod chromium {
    #[tokio::test]
    async fn a_lost_conversion_is_found_with_javascript() {
        super::a_lost_conversion_is_found(true).await;
    }

    #[tokio::test]
    async fn a_lost_conversion_is_found_without_javascript() {
        super::a_lost_conversion_is_found(false).await;
    }
}
