//! Conversions: what postbacks make of clicks, and how they are shown, told by hand, replayed and erased.

use std::time::Duration;

use octo::model::id::ClickId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

use crate::{
    harness::eventually,
    tracker::{SOON, Tracker, header},
};

/// An active campaign whose only offer pays 7 USD.
async fn campaign(tracker: &Tracker, key: &str) -> Value {
    let offer = json!({ "name": "offer", "url": "https://offer.example/?c={click_id}",
                        "payout": { "amount": "7.00", "currency": "USD" } });
    tracker.campaign(json!({ "key": key, "name": key, "offers": [offer] })).await
}

/// Clicks the campaign's link; the click's id.
async fn click(tracker: &Tracker, key: &str) -> Uuid {
    let response = tracker.octo.get(&format!("/click?cid={key}&sub1=s")).await;
    header(&response, "x-click-id").parse().unwrap()
}

/// Tells of a conversion by hand.
async fn tell(tracker: &Tracker, body: Value) -> Value {
    let response = tracker.api(Method::POST, "/conversions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED, "{body}");
    response.json().await.unwrap()
}

/// The conversions of a click, once they are as `wanted` says: `status payout currency` each.
async fn conversions(tracker: &Tracker, click_id: Uuid, wanted: &[&str]) -> Vec<Value> {
    let path = format!("/conversions?click_id={click_id}");
    eventually(SOON, async || {
        let page = tracker.show(&path).await;
        let found = page["data"].as_array().unwrap();
        let in_words: Vec<String> = found
            .iter()
            .map(|c| format!("{} {} {}", text(c, "status"), text(c, "payout"), text(c, "currency")))
            .collect();
        anyhow::ensure!(in_words == wanted, "{in_words:?}");
        Ok(())
    })
    .await;
    tracker.show(&path).await["data"].as_array().unwrap().clone()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_conversion_changes_with_each_postback_and_the_book_says_by_how_much() {
    let tracker = Tracker::start("conversions_book").await;
    campaign(&tracker, "book").await;
    let id = click(&tracker, "book").await;
    tell(&tracker, json!({ "click_id": id, "status": "lead", "goal": "dep", "txid": "T-1" })).await;
    conversions(&tracker, id, &["pending 7.00 USD"]).await;
    let money = json!({ "amount": "9.50", "currency": "EUR" });
    tell(
        &tracker,
        json!({ "click_id": id, "status": "sale", "goal": "dep", "txid": "T-1", "payout": money }),
    )
    .await;
    conversions(&tracker, id, &["approved 9.50 EUR"]).await;
    tell(&tracker, json!({ "click_id": id, "status": "chargeback", "goal": "dep", "txid": "T-1" })).await;
    let found = conversions(&tracker, id, &["refunded 0.00 EUR"]).await;

    let conversion = &found[0];
    assert_eq!((text(conversion, "original_payout"), text(conversion, "goal")), ("9.50", "dep"));
    assert_eq!(conversion["subs"][0], "s");
    let whole = tracker.show(&format!("/conversions/{}", text(conversion, "id"))).await;
    let rows: Vec<String> = whole["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            let (from, to) = (text(c, "from_status"), text(c, "to_status"));
            format!("{from}>{to} {} {} {}", text(c, "payout"), text(c, "revenue"), text(c, "currency"))
        })
        .collect();
    let wanted = [
        ">pending 7.00 0.00 USD",
        "pending>pending -7.00 0.00 USD",
        "pending>approved 9.50 9.50 EUR",
        "approved>refunded -9.50 -9.50 EUR",
    ];
    assert_eq!(rows, wanted);
    assert_eq!(whole["postbacks"].as_array().unwrap().len(), 3);

    let story = tracker.show(&format!("/clicks/{id}/story")).await;
    let kinds: Vec<&str> =
        story["chapters"].as_array().unwrap().iter().map(|chapter| text(chapter, "kind")).collect();
    assert_eq!(kinds, ["click", "postback", "postback", "postback"]);
    assert_eq!(story["conversions"][0]["id"], conversion["id"]);
}

#[tokio::test]
async fn the_columns_of_the_click_follow_its_conversions() {
    let tracker = Tracker::start("conversions_columns").await;
    campaign(&tracker, "columns").await;
    let id = click(&tracker, "columns").await;
    let columns = async || {
        let row = sqlx::query("SELECT conversion_type, converted_at IS NOT NULL AS is_converted FROM clicks");
        let row = row.fetch_one(&tracker.pool).await.unwrap();
        (row.get::<Option<String>, _>("conversion_type"), row.get::<bool, _>("is_converted"))
    };
    tell(&tracker, json!({ "click_id": id })).await;
    conversions(&tracker, id, &["approved 7.00 USD"]).await;
    assert_eq!(columns().await, (Some("conversion".to_owned()), true));
    tell(&tracker, json!({ "click_id": id, "status": "rejected" })).await;
    conversions(&tracker, id, &["rejected 0.00 USD"]).await;
    assert_eq!(columns().await, (None, false));
}

#[tokio::test]
async fn a_conversion_is_of_the_offer_that_its_click_id_names_else_of_the_last_one_gone_to_before_it() {
    let tracker = Tracker::start("conversions_offers").await;
    let offer = |pays: &str| {
        json!({ "name": pays, "url": "https://offer.example/?c={click_id}",
                "payout": { "amount": pays, "currency": "USD" } })
    };
    let campaign = json!({
        "key": "legs", "name": "legs", "offers": [offer("1.00"), offer("2.00")],
        "landing_pages": [{ "name": "page", "url": "https://page.example/?t={click_token}" }],
    });
    let campaign = tracker.campaign(campaign).await;
    let [first, second] = [0, 1].map(|nth| campaign["offers"][nth]["id"].as_i64().unwrap());
    let (page, id) = tracker.click("/click?cid=legs").await;
    let page = header(&page, "location");
    let token = page.strip_prefix("https://page.example/?t=").expect("the page");
    // ids, and so times, count whole milliseconds
    let go = async |path: &str, status: StatusCode| {
        assert_eq!(tracker.octo.get(path).await.status(), status, "{path}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let out = async |nth: u8| go(&format!("/out/{nth}?k={token}"), StatusCode::FOUND).await;
    let post = async |rest: &str| go(&format!("/postback?clickid={id}{rest}"), StatusCode::OK).await;
    post("&goal=none").await;
    out(1).await;
    post("&goal=one").await;
    let between = chrono::Utc::now().timestamp_millis() - 2; // not the millisecond of what comes now
    out(2).await;
    post("&goal=two").await;
    post(&format!(".{first}&goal=named")).await;
    post(&format!("&goal=earlier&time={between}")).await;
    // what comes later says nothing of the offer of what is there
    post("&goal=one&status=sale").await;

    let wanted = [
        ("earlier", Some(first), "1.00"),
        ("named", Some(first), "1.00"),
        ("none", None, "0.00"),
        ("one", Some(first), "1.00"),
        ("two", Some(second), "2.00"),
    ];
    eventually(SOON, async || {
        let page = tracker.show(&format!("/conversions?click_id={id}")).await;
        let list = page["data"].as_array().unwrap();
        let mut found: Vec<_> =
            list.iter().map(|c| (text(c, "goal"), c["offer_id"].as_i64(), text(c, "payout"))).collect();
        found.sort_unstable();
        anyhow::ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_postback_of_a_click_that_is_not_stored_waits() {
    let tracker = Tracker::start("conversions_waiting").await;
    let id = ClickId::now();
    tell(&tracker, json!({ "click_id": id.to_string() })).await;
    eventually(SOON, async || {
        let page = tracker.show("/postbacks?outcome=waiting").await;
        anyhow::ensure!(page["data"][0]["click_id"] == json!(id.to_string()), "{page}");
        let waiting = tracker.octo.metric("octo_conversions_waiting").await;
        anyhow::ensure!(waiting == 1, "{waiting} wait");
        Ok(())
    })
    .await;
    sqlx::query("UPDATE conversion_clicks SET first_at = now() - interval '8 days'")
        .execute(&tracker.pool)
        .await
        .unwrap();
    eventually(SOON, async || {
        let page = tracker.show("/postbacks?outcome=orphan").await;
        anyhow::ensure!(page["data"][0]["click_id"] == json!(id.to_string()), "{page}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_word_that_is_mapped_later_counts_what_came_before() {
    let tracker = Tracker::start("conversions_replay").await;
    let network = tracker.api(Method::POST, "/affiliate-networks").json(&json!({ "name": "Net" }));
    let network: Value = network.send().await.unwrap().json().await.unwrap();
    let offer = json!({ "name": "of net", "url": "https://offer.example/", "affiliate_network_id": network["id"],
                        "payout": { "amount": "7.00", "currency": "USD" } });
    let offer = tracker.api(Method::POST, "/offers").json(&offer).send().await.unwrap();
    let offer: Value = offer.json().await.unwrap();
    let body =
        json!({ "key": "replay", "name": "replay", "offers": [{ "id": offer["id"], "library": true }] });
    tracker.campaign(body).await;
    let id = click(&tracker, "replay").await;
    tell(&tracker, json!({ "click_id": id, "status": "grün" })).await;
    conversions(&tracker, id, &["unmapped 0.00 USD"]).await;
    let open = tracker.show(&format!("/postbacks?network={}&reason=unmapped", network["id"])).await;
    assert_eq!(open["data"].as_array().unwrap().len(), 1, "{open}");

    let map = json!({ "status_map": [{ "word": "GRÜN", "status": "approved" }] });
    let path = format!("/affiliate-networks/{}", network["id"]);
    let patched = tracker.api(Method::PATCH, &path).json(&map).send().await.unwrap();
    assert_eq!(patched.status(), StatusCode::OK);
    let replay = async |dry_run: bool| -> Value {
        let body = json!({ "network": network["id"], "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z",
                           "dry_run": dry_run });
        let response = tracker.api(Method::POST, "/postbacks/replay").json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    };
    let dry = replay(true).await;
    assert_eq!((&dry["postbacks"], &dry["judged_anew"]), (&json!(1), &json!(1)));
    assert_eq!(dry["totals"], json!([{ "currency": "USD", "payout": "7.00", "revenue": "7.00" }]));
    assert_eq!(
        (text(&dry["differences"][0], "from_status"), text(&dry["differences"][0], "to_status")),
        ("unmapped", "approved")
    );
    conversions(&tracker, id, &["unmapped 0.00 USD"]).await;
    let done = replay(false).await;
    assert_eq!(done["differences"], dry["differences"]);
    conversions(&tracker, id, &["approved 7.00 USD"]).await;
    assert_eq!(replay(false).await["differences"], json!([]), "nothing more to change");
}

#[tokio::test]
async fn a_conversion_is_stored_as_it_is_derived_when_it_is_made_and_when_it_changes() {
    let tracker = Tracker::start("conversions_stored").await;
    let offer = json!({ "name": "offer", "url": "https://offer.example/?c={click_id}" });
    tracker.campaign(json!({ "key": "stored", "name": "stored", "offers": [offer] })).await;
    let id = click(&tracker, "stored").await;
    let columns = "SELECT flags, numbers::text, sub1, xmin::text AS version FROM conversions";
    let postback = async |params: &str, numbers: &str| -> String {
        tracker.octo.get(&format!("/postback?clickid={id}&{params}")).await;
        let row = eventually(SOON, async || {
            let row = sqlx::query(columns).fetch_one(&tracker.pool).await?;
            let stored: Option<String> = row.get("numbers");
            anyhow::ensure!(stored.as_deref() == Some(numbers), "{stored:?}");
            Ok(row)
        })
        .await;
        assert!(row.get::<Vec<String>, _>("flags").iter().any(|flag| flag == "no_payout"));
        assert_eq!(row.get::<Option<String>, _>("sub1").as_deref(), Some("s"), "of its click");
        let body = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
        let replay = tracker.api(Method::POST, "/postbacks/replay").json(&body).send().await.unwrap();
        assert_eq!(replay.status(), StatusCode::OK);
        let again = sqlx::query(columns).fetch_one(&tracker.pool).await.unwrap();
        assert_eq!(
            again.get::<String, _>("version"),
            row.get::<String, _>("version"),
            "what is derived again is what is stored"
        );
        row.get("version")
    };
    let made = postback("status=lead&event1=3&event7=0.5", r#"{"event1": "3", "event7": "0.5"}"#).await;
    let changed = postback("status=sale&event1=4", r#"{"event1": "4", "event7": "0.5"}"#).await;
    assert_ne!(made, changed);
}

#[tokio::test]
async fn a_click_whose_row_is_gone_before_its_conversions_has_them_once() {
    let tracker = Tracker::start("conversions_row_gone").await;
    campaign(&tracker, "gone").await;
    let id = click(&tracker, "gone").await;
    tell(&tracker, json!({ "click_id": id, "status": "sale", "txid": "T-1" })).await;
    conversions(&tracker, id, &["approved 7.00 USD"]).await;
    // as retention leaves it for a moment
    sqlx::query("DELETE FROM conversion_clicks").execute(&tracker.pool).await.unwrap();
    tell(&tracker, json!({ "click_id": id, "status": "rejected", "txid": "T-1" })).await;
    conversions(&tracker, id, &["rejected 0.00 USD"]).await;
    let book = "SELECT sum(payout) = 0 AND sum(revenue) = 0 AND count(*) = 2 FROM conversion_changes";
    assert!(sqlx::query_scalar::<_, bool>(book).fetch_one(&tracker.pool).await.unwrap());
}

#[tokio::test]
async fn the_ledger_and_conversions_go_with_their_click() {
    let tracker = Tracker::start("conversions_erased").await;
    campaign(&tracker, "erased").await;
    let id = click(&tracker, "erased").await;
    tell(&tracker, json!({ "click_id": id })).await;
    conversions(&tracker, id, &["approved 7.00 USD"]).await;
    let id = id.to_string();
    let export = tracker.octo.run(&["privacy", "export", "--click-id", &id]).await;
    let export: Value = serde_json::from_slice(&export.stdout).unwrap();
    let count = |name: &str| export[name].as_array().map_or(0, Vec::len);
    assert_eq!((count("postbacks"), count("conversions")), (1, 1));
    let erase = tracker.octo.run(&["privacy", "erase", "--click-id", &id]).await;
    let erased: Value = serde_json::from_slice(&erase.stdout).unwrap();
    assert_eq!(erased["erased"]["postbacks"], 1);
    for table in ["postbacks", "conversions", "conversion_changes", "conversion_clicks"] {
        let count = format!("SELECT count(*) FROM {table}");
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&tracker.pool).await.unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[tokio::test]
async fn a_cap_of_conversions_fills_with_them_and_a_rejection_gives_its_place_back() {
    let tracker = Tracker::start("conversions_cap").await;
    let capped = json!({ "name": "capped", "url": "https://capped.example/", "weight": 1_000_000,
                         "caps": [{ "of": "conversions", "limit": 1, "per": "day" }] });
    let body = json!({ "key": "cap", "name": "cap", "offers": [capped], "fallback_url": "https://fallback.example/" });
    tracker.campaign(body).await;
    let host = async || {
        let response = tracker.octo.get("/click?cid=cap").await;
        header(&response, "location").split('/').nth(2).unwrap().to_owned()
    };
    let id = click(&tracker, "cap").await;
    assert_eq!(host().await, "capped.example");
    let goes_to = async |wanted: &str| {
        eventually(SOON, async || {
            let host = host().await;
            anyhow::ensure!(host == wanted, "to {host}");
            Ok(())
        })
        .await;
    };
    tell(&tracker, json!({ "click_id": id })).await;
    goes_to("fallback.example").await;
    tell(&tracker, json!({ "click_id": id, "status": "rejected" })).await;
    goes_to("capped.example").await;
}

#[tokio::test]
async fn a_target_that_takes_refunds_is_told_of_each_part() {
    let tracker = Tracker::start("conversions_parts").await;
    campaign(&tracker, "parts").await;
    let target = json!({ "name": "hook", "kind": "webhook", "url": "https://127.0.0.1:1/" });
    let made = tracker.api(Method::POST, "/postback-targets").json(&target).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    let id = click(&tracker, "parts").await;
    tell(&tracker, json!({ "click_id": id })).await;
    conversions(&tracker, id, &["approved 7.00 USD"]).await;
    for (part, left) in [("2.00", "5.00"), ("1.00", "4.00")] {
        let money = json!({ "amount": part, "currency": "USD" });
        tell(&tracker, json!({ "click_id": id, "status": "refund", "payout": money })).await;
        conversions(&tracker, id, &[&format!("approved {left} USD")]).await;
    }
    let page = tracker.show("/deliveries").await;
    let told: Vec<String> = page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            format!("{} {}", text(d, "change"), text(&d["payout"], "amount").trim_end_matches(['0', '.']))
        })
        .collect();
    assert_eq!(told, ["refunded 1", "refunded 2", "approved 7"], "{page}");
}
