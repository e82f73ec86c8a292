//! Offers and landing pages of the library, what uses them, and campaigns that are copied or looked for.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Octo, api::answer, eventually},
    tracker::{SOON, Tracker, header},
};

/// Pointers and codes of the bad fields.
fn faults(problem: &Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect()
}

/// Makes something by `POST`, which must succeed.
async fn make(tracker: &Tracker, noun: &str, body: Value) -> Value {
    let (status, made) = answer(tracker.api(Method::POST, noun).json(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{noun}: {made}");
    made
}

async fn patch(tracker: &Tracker, path: &str, body: Value) -> (StatusCode, Value) {
    answer(tracker.api(Method::PATCH, path).json(&body)).await
}

fn keys(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect()
}

async fn location(octo: &Octo, path: &str) -> String {
    header(&octo.get(path).await, "location")
}

#[tokio::test]
async fn an_offer_of_the_library_serves_many_campaigns_and_each_change_reaches_them_all() {
    let tracker = Tracker::start("library_offers").await;
    let other = Octo::builder().database_url(tracker.database.url()).start().await;
    let offer =
        make(&tracker, "/offers", json!({ "name": "Shoes", "url": "https://a.example/?c={click_id:short}" }))
            .await;
    let page =
        make(&tracker, "/landing-pages", json!({ "name": "Quiz", "url": "https://page.example/?k={cid}" }))
            .await;
    assert_eq!((&offer["payout"], &offer["caps"], &offer["hints"]), (&Value::Null, &json!([]), &json!([])));
    for key in ["one", "two"] {
        let body = json!({ "key": key, "name": key, "offers": [{ "library": true, "id": offer["id"] }] });
        tracker.campaign(body).await;
    }
    let body =
        json!({ "key": "page", "name": "page", "landing_pages": [{ "library": true, "id": page["id"] }] });
    tracker.campaign(body).await;
    assert!(location(&tracker.octo, "/c/one").await.starts_with("https://a.example/?c="));
    assert_eq!(location(&tracker.octo, "/c/page").await, "https://page.example/?k=page");

    let offer_path = format!("/offers/{}", offer["id"]);
    let page_path = format!("/landing-pages/{}", page["id"]);
    let (status, changed) = patch(&tracker, &offer_path, json!({ "url": "https://b.example/" })).await;
    assert_eq!((status, &changed["version"]), (StatusCode::OK, &json!(2)), "{changed}");
    for key in ["one", "two"] {
        assert_eq!(location(&tracker.octo, &format!("/c/{key}")).await, "https://b.example/", "at once here");
        eventually(SOON, async || {
            let location = location(&other, &format!("/c/{key}")).await;
            anyhow::ensure!(location == "https://b.example/", "{location}");
            Ok(())
        })
        .await;
    }
    assert_eq!(keys(&tracker.show(&format!("{offer_path}/campaigns")).await), ["two", "one"]);
    assert_eq!(keys(&tracker.show(&format!("{page_path}/campaigns")).await), ["page"]);
    let first = tracker.show(&format!("{offer_path}/campaigns?limit=1")).await;
    let rest = format!("{offer_path}/campaigns?cursor={}", first["next_cursor"].as_str().unwrap());
    assert_eq!((keys(&first), keys(&tracker.show(&rest).await)), (vec!["two"], vec!["one"]));

    for (path, named) in [(&offer_path, "two, one"), (&page_path, "page")] {
        let (status, problem) = answer(tracker.api(Method::DELETE, path)).await;
        assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("in_use")));
        assert!(problem["detail"].as_str().unwrap().contains(named), "{problem}");
    }
    // put away it takes no clicks
    patch(&tracker, &offer_path, json!({ "is_archived": true })).await;
    assert_eq!(tracker.octo.get("/c/one").await.status(), StatusCode::NOT_FOUND);
    patch(&tracker, &offer_path, json!({ "is_archived": false })).await;
    assert_eq!(location(&tracker.octo, "/c/one").await, "https://b.example/");
    for key in ["one", "two", "page"] {
        answer(tracker.api(Method::DELETE, &format!("/campaigns/{key}"))).await;
    }
    for path in [&offer_path, &page_path] {
        assert_eq!(answer(tracker.api(Method::DELETE, path)).await.0, StatusCode::NO_CONTENT, "{path}");
    }
}

#[tokio::test]
async fn an_offer_of_a_network_carries_our_click_id_where_the_network_takes_it() {
    let tracker = Tracker::start("library_networks").await;
    let network = make(&tracker, "/affiliate-networks", json!({ "template": "clickbank" })).await;
    let plain = make(&tracker, "/affiliate-networks", json!({ "name": "Plain" })).await;
    let hop = "https://hop.clickbank.net/?affiliate=a&vendor=b";
    for (network, url, wanted, hints) in [
        (&network, hop, format!("{hop}&tid={{click_id}}"), 0),
        (
            &network,
            "https://hop.clickbank.net/?vendor=b?tid={click_id:short}",
            "https://hop.clickbank.net/?vendor=b&tid={click_id:short}".to_owned(),
            0,
        ),
        (
            &network,
            "https://hop.clickbank.net/?x={click_id}",
            "https://hop.clickbank.net/?x={click_id}".to_owned(),
            0,
        ),
        (
            &network,
            "https://hop.clickbank.net/?tid=fixed",
            "https://hop.clickbank.net/?tid=fixed".to_owned(),
            1,
        ),
        (&plain, hop, hop.to_owned(), 1),
    ] {
        let body = json!({ "name": "o", "url": url, "affiliate_network_id": network["id"] });
        let offer = make(&tracker, "/offers", body).await;
        assert_eq!(offer["url"], wanted);
        assert_eq!(offer["hints"].as_array().unwrap().len(), hints, "{offer}");
    }
    let of_network = tracker.show(&format!("/offers?affiliate_network_id={}", network["id"])).await;
    assert_eq!(of_network["data"].as_array().unwrap().len(), 4);

    // an edit of the network leaves URLs alone; the owner takes the macro out, and is told
    let offer = &of_network["data"][3];
    let path = format!("/offers/{}", offer["id"]);
    let (_, same) = patch(&tracker, &path, json!({ "name": "still" })).await;
    assert_eq!(same["url"], offer["url"]);
    let network_path = format!("/affiliate-networks/{}", network["id"]);
    patch(&tracker, &network_path, json!({ "click_id_parameter": "extclid" })).await;
    assert_eq!(tracker.show(&path).await["url"], offer["url"]);
    let (_, changed) = patch(&tracker, &path, json!({ "url": hop })).await;
    assert_eq!(changed["url"], format!("{hop}&extclid={{click_id}}"));

    tracker
        .campaign(json!({ "key": "k", "name": "k", "offers": [{ "library": true, "id": offer["id"] }] }))
        .await;
    assert_eq!(keys(&tracker.show(&format!("{network_path}/campaigns")).await), ["k"]);
    let (status, problem) = answer(tracker.api(Method::DELETE, &network_path)).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("in_use")));
    let (status, problem) = patch(&tracker, &path, json!({ "affiliate_network_id": 999 })).await;
    assert_eq!(
        (status, faults(&problem)),
        (StatusCode::UNPROCESSABLE_ENTITY, vec![("/affiliate_network_id", "not_found")])
    );
}

#[tokio::test]
async fn offers_that_lead_to_one_another_end_somewhere_and_are_not_lost() {
    let tracker = Tracker::start("library_overflow").await;
    let mut chain = vec![
        make(&tracker, "/offers", json!({ "name": "0", "url": "https://o.example/0" })).await["id"].clone(),
    ];
    for i in 1..=8 {
        let body =
            json!({ "name": i.to_string(), "url": "https://o.example/", "overflow_offer_id": chain[i - 1] });
        chain.push(make(&tracker, "/offers", body).await["id"].clone());
    }
    let body = json!({ "name": "9", "url": "https://o.example/", "overflow_offer_id": chain[8] });
    let (status, problem) = answer(tracker.api(Method::POST, "/offers").json(&body)).await;
    assert_eq!(
        (status, faults(&problem)),
        (StatusCode::UNPROCESSABLE_ENTITY, vec![("/overflow_offer_id", "length")])
    );
    let last = format!("/offers/{}", chain[0]);
    let further = make(&tracker, "/offers", json!({ "name": "further", "url": "https://o.example/" })).await;
    for (to, code) in
        [(&chain[8], "circle"), (&chain[0], "circle"), (&json!(999), "not_found"), (&further["id"], "length")]
    {
        let (status, problem) = patch(&tracker, &last, json!({ "overflow_offer_id": to })).await;
        assert_eq!(
            (status, faults(&problem)),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![("/overflow_offer_id", code)])
        );
    }
    // who is led to is used, by other offers and by their campaigns
    let (status, problem) = answer(tracker.api(Method::DELETE, &last)).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("in_use")), "{problem}");
    tracker
        .campaign(json!({ "key": "k", "name": "k", "offers": [{ "library": true, "id": chain[3] }] }))
        .await;
    assert_eq!(keys(&tracker.show(&format!("{last}/campaigns")).await), ["k"]);
    let (status, named) = patch(&tracker, "/campaigns/k", json!({ "name": "other" })).await;
    assert_eq!((status, &named["offers"][0]["id"]), (StatusCode::OK, &chain[3]), "{named}");
}

#[tokio::test]
async fn every_bad_field_of_an_offer_and_a_page_is_named() {
    let tracker = Tracker::start("library_bad_fields").await;
    let own = tracker.octo.url("/click?cid=x");
    let body = json!({
        "name": " ", "url": own, "web_url": "myapp://x", "payout": { "amount": "-1", "currency": "USD" },
        "affiliate_network_id": "x", "caps": [{ "of": "visits", "limit": 0, "per": "day" }], "overflow_offer_id": 0,
        "is_archived": "no", "weight": 3, "id": 1,
    });
    let (status, problem) = answer(tracker.api(Method::POST, "/offers").json(&body)).await;
    let wanted = vec![
        ("/name", "length"),
        ("/url", "redirect_loop"),
        ("/web_url", "url"),
        ("/payout/amount", "range"),
        ("/affiliate_network_id", "type"),
        ("/caps/0/of", "choice"),
        ("/caps/0/limit", "range"),
        ("/overflow_offer_id", "range"),
        ("/is_archived", "type"),
        ("/id", "read_only"),
        ("/weight", "unknown"),
    ];
    assert_eq!((status, faults(&problem)), (StatusCode::UNPROCESSABLE_ENTITY, wanted));
    let body = json!({ "url": "https://{sub1}.example/", "payout": null });
    let (_, problem) = answer(tracker.api(Method::POST, "/landing-pages").json(&body)).await;
    assert_eq!(faults(&problem), [("/name", "required"), ("/url", "url"), ("/payout", "unknown")]);
}

#[tokio::test]
async fn a_traffic_source_of_a_campaign_is_one_and_stays_while_it_is_used() {
    let tracker = Tracker::start("library_source_use").await;
    let source = make(&tracker, "/traffic-sources", json!({ "name": "Ads" })).await;
    let path = format!("/traffic-sources/{}", source["id"]);
    tracker.campaign(json!({ "key": "k", "name": "k", "traffic_source_id": source["id"] })).await;
    for request in [
        tracker.api(Method::POST, "/campaigns").json(&json!({ "name": "n", "traffic_source_id": 999 })),
        tracker.api(Method::PATCH, "/campaigns/k").json(&json!({ "traffic_source_id": 999 })),
    ] {
        let (status, problem) = answer(request).await;
        assert_eq!(
            (status, faults(&problem)),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![("/traffic_source_id", "not_found")])
        );
    }
    assert_eq!(keys(&tracker.show(&format!("{path}/campaigns")).await), ["k"]);
    let (status, problem) = answer(tracker.api(Method::DELETE, &path)).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("in_use")), "{problem}");
    answer(tracker.api(Method::DELETE, "/campaigns/k")).await;
    assert_eq!(keys(&tracker.show(&format!("{path}/campaigns")).await), [""; 0]);
    assert_eq!(answer(tracker.api(Method::DELETE, &path)).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_copy_of_a_campaign_is_a_draft_with_ids_of_its_own() {
    let tracker = Tracker::start("library_clone").await;
    let shared = make(&tracker, "/offers", json!({ "name": "shared", "url": "https://s.example/" })).await;
    let offer = |name: &str| json!({ "name": name, "url": "https://o.example/" });
    let rule =
        json!({ "when": [{ "dimension": "country", "is": ["DE"] }], "paths": [{ "offers": [offer("r")] }] });
    let body = json!({
        "key": "first", "name": "First", "pass_through": true, "rules": [rule],
        "offers": [offer("a"), offer("b"), { "library": true, "id": shared["id"] }],
    });
    let made = tracker.campaign(body).await;
    // one of its own offers leads to another of them
    let mut offers = made["offers"].clone();
    offers[0]["overflow_offer_id"] = offers[1]["id"].clone();
    let (status, made) = patch(&tracker, "/campaigns/first", json!({ "offers": offers })).await;
    assert_eq!(status, StatusCode::OK, "{made}");

    let (status, copy) = answer(tracker.api(Method::POST, "/campaigns/first/clone")).await;
    assert_eq!(status, StatusCode::CREATED, "{copy}");
    assert_eq!((&copy["name"], &copy["status"]), (&json!("First (copy)"), &json!("draft")));
    assert_eq!((copy["key"].as_str().unwrap().len(), &copy["pass_through"]), (8, &json!(true)));
    assert_eq!(copy["offers"][0]["overflow_offer_id"], copy["offers"][1]["id"], "its own");
    for pointer in
        ["/offers/0/id", "/offers/1/id", "/rules/0/id", "/rules/0/paths/0/id", "/rules/0/paths/0/offers/0/id"]
    {
        let (copied, was) = (copy.pointer(pointer).unwrap(), made.pointer(pointer).unwrap());
        assert!(copied.is_i64() && copied != was, "{pointer}: {copied}");
    }
    assert_eq!(copy["offers"][2]["id"], shared["id"]);
    assert_eq!(tracker.show("/campaigns/first").await, made, "the original is as it was");

    let body =
        json!({ "key": "second", "name": "Second", "status": "active", "rules": [], "offers": [offer("c")] });
    let (status, copy) = answer(tracker.api(Method::POST, "/campaigns/first/clone").json(&body)).await;
    assert_eq!((status, &copy["key"]), (StatusCode::CREATED, &json!("second")), "{copy}");
    assert_eq!(location(&tracker.octo, "/c/second").await, "https://o.example/");
    let taken = tracker.api(Method::POST, "/campaigns/first/clone").json(&json!({ "key": "second" }));
    assert_eq!(answer(taken).await.0, StatusCode::CONFLICT);
    let unsaid = tracker.api(Method::POST, "/campaigns/first/clone").body("{}");
    assert_eq!(answer(unsaid).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn campaigns_are_found_by_name_key_state_and_source() {
    let tracker = Tracker::start("library_filters").await;
    let source = make(&tracker, "/traffic-sources", json!({ "name": "Ads" })).await;
    for (key, name, status, source) in [
        ("alpha", "Summer sale", "active", &source["id"]),
        ("beta", "Winter sale", "paused", &Value::Null),
        ("gamma", "Alphabet", "active", &Value::Null),
    ] {
        tracker
            .campaign(json!({ "key": key, "name": name, "status": status, "traffic_source_id": source }))
            .await;
    }
    for (query, wanted) in [
        ("q=ALPHA", vec!["gamma", "alpha"]),
        ("q=sale", vec!["beta", "alpha"]),
        ("q=sale&status=paused", vec!["beta"]),
        (&format!("source={}", source["id"]), vec!["alpha"]),
        ("status=active&source=999", vec![]),
        ("q=%25", vec![]),
        ("", vec!["gamma", "beta", "alpha"]),
    ] {
        assert_eq!(keys(&tracker.show(&format!("/campaigns?{query}")).await), wanted, "{query}");
    }
    let page = tracker.show("/campaigns?q=sale&limit=1").await;
    let next = format!("/campaigns?q=sale&limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!((keys(&page), keys(&tracker.show(&next).await)), (vec!["beta"], vec!["alpha"]));
    let (status, problem) = answer(tracker.api(Method::GET, "/campaigns?status=on&source=x")).await;
    assert_eq!(
        (status, faults(&problem)),
        (StatusCode::UNPROCESSABLE_ENTITY, vec![("?status", "choice"), ("?source", "type")])
    );
}
