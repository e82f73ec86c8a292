//! A campaign's traffic source at the click: its names and macros, its money, and what it forgot to fill.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    harness::{Octo, Scratch, api::answer, eventually},
    tracker::{SOON, Table, Tracker, header},
};

/// Makes something by `POST`, which must succeed.
async fn make(tracker: &Tracker, noun: &str, body: &Value) -> Value {
    let (status, made) = answer(tracker.api(Method::POST, noun).json(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{noun}: {made}");
    made
}

/// A source with a name of its own for everything, whose cost is that of a thousand.
async fn source(tracker: &Tracker) -> Value {
    let parameter =
        |name: &str, slot: &str| json!({ "name": name, "macro": format!("{{{name}}}"), "slot": slot });
    let body = json!({ "name": "Ads", "parameters": [
        parameter("visitor", "click_id"), parameter("camp", "sub1"), parameter("q", "keyword"),
        parameter("ad", "creative"), parameter("zone", "placement"),
        { "name": "cpm", "macro": "[CPM]", "slot": "cost", "unit": "mille", "currency": "EUR" },
    ] });
    make(tracker, "/traffic-sources", &body).await
}

async fn campaign(tracker: &Tracker, key: &str, source: &Value) -> Value {
    let offer = json!({ "name": "o", "url": "https://offer.example/?s={sub1}&id={external_click_id}" });
    let body = json!({ "key": key, "name": key, "traffic_source_id": source["id"], "offers": [offer] });
    tracker.campaign(body).await
}

async fn click(tracker: &Tracker, id: Uuid) -> Value {
    eventually(SOON, async || {
        let (status, click) = answer(tracker.api(Method::GET, &format!("/clicks/{id}"))).await;
        anyhow::ensure!(status == StatusCode::OK, "{status}");
        Ok(click)
    })
    .await
}

#[tokio::test]
async fn what_a_source_calls_otherwise_is_stored_where_it_says_and_reaches_the_offer() {
    let tracker = Tracker::start("sources_click").await;
    let ads = source(&tracker).await;
    campaign(&tracker, "demo", &ads).await;
    let query = "visitor=v%2F1&camp=summer&q=red+shoes&ad=7&zone=z9&cpm=1.50&utm=x";
    let (response, id) = tracker.click(&format!("/c/demo?{query}")).await;
    assert_eq!(header(&response, "location"), "https://offer.example/?s=summer&id=v%2F1");
    let stored = click(&tracker, id).await;
    for (field, wanted) in [
        ("source_id", ads["id"].clone()),
        ("click_id_param", json!("v/1")),
        ("sub1", json!("summer")),
        ("keyword", json!("red shoes")),
        ("creative", json!("7")),
        ("placement", json!("z9")),
        ("cost", json!({ "amount": "0.0015", "currency": "EUR" })),
        ("adjusted", json!([])),
    ] {
        assert_eq!(stored[field], wanted, "{field} of {stored}");
    }
    // ours win; a currency of the link, too
    let (_, id) = tracker.click("/c/demo?sub1=ours&camp=theirs&cost=0.07&cpm=9&currency=PLN").await;
    let stored = click(&tracker, id).await;
    assert_eq!(
        (&stored["sub1"], &stored["cost"]),
        (&json!("ours"), &json!({ "amount": "0.07", "currency": "PLN" }))
    );
    // without a source they are parameters like any others
    tracker.simple_campaign("plain").await;
    let (_, id) = tracker.click(&format!("/c/plain?{query}")).await;
    let stored = click(&tracker, id).await;
    let unread = ["source_id", "click_id_param", "sub1", "keyword", "creative", "placement", "cost"];
    assert!(unread.iter().all(|field| stored[field].is_null()), "{stored}");
}

#[tokio::test]
async fn parameters_of_a_source_pass_through_as_they_were_sent() {
    let tracker = Tracker::start("sources_pass").await;
    let ads = source(&tracker).await;
    let body = json!({
        "key": "demo", "name": "demo", "traffic_source_id": ads["id"], "pass_through": true,
        "offers": [{ "name": "o", "url": "https://offer.example/" }],
    });
    tracker.campaign(body).await;
    let (response, _) = tracker.click("/c/demo?sub2=b&visitor=%41&x=1&zone=z").await;
    assert_eq!(header(&response, "location"), "https://offer.example/?visitor=%41&x=1&zone=z");
}

#[tokio::test]
async fn rules_macros_and_explanations_see_what_the_source_says() {
    let tracker = Tracker::start("sources_rules").await;
    let ads = source(&tracker).await;
    let offer = |url: &str| json!([{ "name": "o", "url": url }]);
    let when = json!([{ "dimension": "parameter", "name": "sub1", "is": ["vip"] }]);
    let body = json!({
        "key": "demo", "name": "demo", "traffic_source_id": ads["id"], "offers": offer("https://offer.example/?n={source_name}"),
        "rules": [{ "when": when, "paths": [{ "offers": offer("https://vip.example/") }] }],
    });
    tracker.campaign(body).await;
    for (query, wanted) in [("camp=vip", "https://vip.example/"), ("camp=x", "https://offer.example/?n=Ads")]
    {
        let (response, _) = tracker.click(&format!("/c/demo?{query}")).await;
        assert_eq!(header(&response, "location"), wanted);
        let made_up = json!({ "url": format!("https://t.example/c/demo?{query}") });
        let (_, told) = answer(tracker.api(Method::POST, "/campaigns/demo/explain").json(&made_up)).await;
        assert_eq!(told["location"], wanted, "{told}");
    }
}

#[tokio::test]
async fn an_edit_of_a_source_reaches_every_node_and_changes_no_old_click() {
    let tracker = Tracker::start("sources_edit").await;
    let other = Octo::builder().database_url(tracker.database.url()).start().await;
    let ads = source(&tracker).await;
    let made = campaign(&tracker, "demo", &ads).await;
    let (_, before) = tracker.click("/c/demo?camp=old&site=new").await;
    let noun = format!("/traffic-sources/{}", ads["id"]);
    let patch = json!({ "parameters": [{ "name": "site", "macro": "{site}", "slot": "sub1" }] });
    assert_eq!(answer(tracker.api(Method::PATCH, &noun).json(&patch)).await.0, StatusCode::OK);
    let (response, after) = tracker.click("/c/demo?camp=old&site=new").await;
    assert_eq!(header(&response, "location"), "https://offer.example/?s=new&id=", "at once here");
    eventually(SOON, async || {
        let location = header(&other.get("/c/demo?camp=old&site=new").await, "location");
        anyhow::ensure!(location == "https://offer.example/?s=new&id=", "{location}");
        Ok(())
    })
    .await;
    assert_eq!(click(&tracker, after).await["sub1"], "new");
    assert_eq!(click(&tracker, before).await["sub1"], "old");
    let now = tracker.show("/campaigns/demo").await;
    assert_eq!(now["version"].as_i64(), made["version"].as_i64().map(|version| version + 1));
    // a new name is news to campaigns too, a postback is not
    for (patch, more) in
        [(json!({ "postback_url": "https://ads.example/" }), 1), (json!({ "name": "New" }), 2)]
    {
        assert_eq!(answer(tracker.api(Method::PATCH, &noun).json(&patch)).await.0, StatusCode::OK);
        let version = tracker.show("/campaigns/demo").await["version"].as_i64();
        assert_eq!(version, made["version"].as_i64().map(|version| version + more), "{patch}");
    }
}

#[tokio::test]
async fn a_node_that_starts_without_postgres_knows_the_source_of_a_campaign() {
    let tracker = Tracker::start("sources_disk").await;
    let ads = source(&tracker).await;
    campaign(&tracker, "demo", &ads).await;
    let data = Scratch::create();
    eventually(SOON, async || {
        let saved = std::fs::read_to_string(tracker.octo.data_dir().join("campaigns.json"))?;
        anyhow::ensure!(saved.contains("\"visitor\""), "{saved}");
        std::fs::write(data.dir().join("campaigns.json"), saved)?;
        Ok(())
    })
    .await;
    let alone = Octo::builder().database_url("postgres://nobody@127.0.0.1:9/none").data_dir(data.dir());
    let alone = alone.start().await;
    let location = header(&alone.get("/c/demo?camp=c&visitor=v").await, "location");
    assert_eq!(location, "https://offer.example/?s=c&id=v");
}

#[tokio::test]
async fn macros_that_a_source_did_not_fill_are_missing_and_counted() {
    let tracker = Tracker::start("sources_unexpanded").await;
    let ads = source(&tracker).await;
    campaign(&tracker, "demo", &ads).await;
    let (_, id) = tracker.click("/c/demo?camp={camp}&zone=%257Bzone%257D&cpm=%255BCPM%255D&q=__init__").await;
    let stored = click(&tracker, id).await;
    assert_eq!(
        (&stored["sub1"], &stored["placement"], &stored["cost"], &stored["keyword"]),
        (&Value::Null, &Value::Null, &Value::Null, &json!("__init__")),
        "{stored}"
    );
    assert_eq!(stored["adjusted"], json!(["unexpanded_macro"]));
    tracker.click("/c/demo?camp=c").await;
    tracker.wait_rows(Table::Clicks, 2).await;
    let shown = tracker.show(&format!("/traffic-sources/{}", ads["id"])).await;
    assert_eq!(shown["recent"], json!({ "days": 7, "clicks": 2, "unexpanded": 1 }));
    assert_eq!(tracker.show("/traffic-sources").await["data"][0]["recent"]["unexpanded"], 1);
    let metrics = tracker.octo.metrics().await;
    for (slot, count) in [("sub1", 1), ("placement", 1), ("cost", 1), ("keyword", 0)] {
        let line = format!("octo_unexpanded_macros_total{{slot=\"{slot}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn links_have_the_macros_of_the_source_and_work_as_they_are() {
    let tracker = Tracker::start("sources_links").await;
    let ads = make(&tracker, "/traffic-sources", &json!({ "template": "propellerads" })).await;
    campaign(&tracker, "demo", &ads).await;
    let links = tracker.show("/campaigns/demo/links").await;
    let parameters =
        "visitor_id=${SUBID}&cost={cost}&campaignid={campaignid}&bannerid={bannerid}&zoneid={zoneid}";
    assert_eq!(links["parameters"], parameters);
    assert_eq!(links["click"], tracker.octo.url(&format!("/click?cid=demo&{parameters}")));
    assert_eq!(links["short"], tracker.octo.url(&format!("/c/demo?{parameters}")));
    assert_eq!(links["traffic_source"], json!({ "id": ads["id"], "name": "PropellerAds" }));
    // as the source fills it
    let filled = links["short"].as_str().unwrap().replace("${SUBID}", "v1").replace("{cost}", "0.002");
    let path = filled.strip_prefix(&tracker.octo.url("")).unwrap().replace("{zoneid}", "9");
    let (_, id) = tracker.click(&path).await;
    let stored = click(&tracker, id).await;
    assert_eq!(
        (&stored["click_id_param"], &stored["placement"], &stored["cost"]),
        (&json!("v1"), &json!("9"), &json!({ "amount": "0.002", "currency": "USD" }))
    );
    tracker.simple_campaign("plain").await;
    let plain = tracker.show("/campaigns/plain/links").await;
    assert_eq!(
        (&plain["click"], &plain["traffic_source"]),
        (&json!(tracker.octo.url("/click?cid=plain")), &Value::Null)
    );
}
