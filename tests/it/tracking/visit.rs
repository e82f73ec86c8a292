//! `POST /visit`: clicks without a redirect; and the script that sends them, as far as no browser is needed.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::eventually,
    tracker::{SOON, Table, Tracker, header},
};

async fn post(tracker: &Tracker, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let request =
        tracker.octo.client().post(tracker.octo.url(path)).header("content-type", content_type).body(body);
    request.send().await.expect("an answer")
}

async fn visit(tracker: &Tracker, body: Value) -> Value {
    let response = post(tracker, "/visit", "text/plain;charset=UTF-8", body.to_string()).await;
    let status = response.status();
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    answer
}

async fn click_of(tracker: &Tracker, answer: &Value) -> Value {
    let path = format!("/clicks/{}", answer["click_id"].as_str().expect("an id"));
    eventually(SOON, async || {
        let response = tracker.api(Method::GET, &path).send().await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "{}", response.status());
        Ok(response.json().await?)
    })
    .await
}

#[tokio::test]
async fn a_visit_is_the_click_that_a_link_would_have_made() {
    let tracker = Tracker::start("visit_stored").await;
    tracker.simple_campaign("demo").await;
    let query =
        "sub1=a%20b&aff_sub=c&cost=0,05&currency=EUR&click_id=source-1&traffic_source_id=ads&cid=theirs";
    let visited = visit(
        &tracker,
        json!({
            "cid": "demo", "url": format!("https://shop.example/shoes?{query}#sub2=no"),
            "referrer": "https://news.example/story", "params": { "sub3": "own", "sub1": "first" },
        }),
    )
    .await;
    let link = format!("/click?cid=demo&sub3=own&sub1=first&{query}");
    let request =
        tracker.octo.client().get(tracker.octo.url(&link)).header("referer", "https://news.example/story");
    let clicked = request.send().await.unwrap();
    let clicked = json!({ "click_id": header(&clicked, "x-click-id") });
    let (mut visited, mut clicked) = (click_of(&tracker, &visited).await, click_of(&tracker, &clicked).await);
    assert_eq!(
        (visited["sub1"].as_str(), visited["click_id_param"].as_str()),
        (Some("first"), Some("source-1"))
    );
    assert_eq!((visited["via"].take(), clicked["via"].take()), (json!("script"), Value::Null));
    // nobody was led to an offer, and the visitor was here a moment ago
    assert_eq!((&visited["campaign_offer_id"], &visited["is_unique"]), (&Value::Null, &json!(true)));
    assert_eq!(clicked["is_unique"], false);
    for differs in ["id", "created_at", "updated_at", "campaign_offer_id", "is_unique"] {
        assert_ne!(visited[differs].take(), clicked[differs].take(), "{differs}");
    }
    assert_eq!(visited, clicked);
}

#[tokio::test]
async fn what_a_campaign_does_not_take_is_stored_with_the_reason() {
    let tracker = Tracker::start("visit_reasons").await;
    let campaign = tracker.simple_campaign("demo").await;
    let id = campaign["id"].as_str().unwrap();
    let reason = async |answer: Value| click_of(&tracker, &answer).await["invalid_reason"].take();
    let body = json!({ "cid": "demo", "url": "https://shop.example/" });
    assert_eq!(reason(visit(&tracker, body.clone()).await).await, Value::Null);

    let bot = tracker.octo.client().post(tracker.octo.url("/visit")).body(body.to_string());
    let bot =
        bot.header("user-agent", "Googlebot/2.1 (+http://www.google.com/bot.html)").send().await.unwrap();
    assert_eq!(reason(bot.json().await.unwrap()).await, "bot");

    let ahead = tracker.octo.client().post(tracker.octo.url("/visit")).body(body.to_string());
    let ahead = ahead.header("sec-purpose", "prefetch;prerender").send().await.unwrap();
    assert_eq!(reason(ahead.json().await.unwrap()).await, "prefetch");

    let paused = tracker.api(Method::POST, &format!("/campaigns/{id}/pause")).send().await.unwrap();
    assert_eq!(paused.status(), StatusCode::OK);
    assert_eq!(reason(visit(&tracker, body).await).await, "paused");
    let nowhere = tracker.campaign(json!({ "key": "nowhere", "name": "no destination" })).await;
    assert_eq!(nowhere["key"], "nowhere");
    assert_eq!(reason(visit(&tracker, json!({ "cid": "nowhere" })).await).await, "no_destination");
}

#[tokio::test]
async fn the_landing_page_is_the_one_the_visitor_is_on_and_never_one_that_was_drawn() {
    let tracker = Tracker::start("visit_page").await;
    let campaign = tracker
        .campaign(json!({
            "key": "demo", "name": "two pages", "offers": [{ "name": "offer", "url": "https://offer.example/" }],
            "landing_pages": [
                { "name": "a", "url": "https://shop.example/a?click_id={click_id}", "weight": 0 },
                { "name": "b", "url": "https://shop.example/b", "weight": 100 },
            ],
        }))
        .await;
    let page = |i: usize| campaign["landing_pages"][i]["id"].clone();
    for (url, params, wanted) in [
        ("https://shop.example/a?x=1#top", "", page(0)),
        ("http://shop.example/b/", "", page(1)),
        ("https://shop.example/elsewhere", "", Value::Null),
        ("https://shop.example/a", &*format!("landing_page_id={}", page(1)), page(1)),
        ("https://shop.example/a", "landing_page_id=999999", Value::Null),
    ] {
        let answer = visit(&tracker, json!({ "cid": "demo", "url": url, "params": params })).await;
        let click = click_of(&tracker, &answer).await;
        assert_eq!(click["landing_page_id"], wanted, "{url} {params}: {click}");
    }
}

#[tokio::test]
async fn a_visitor_who_asks_for_privacy_is_counted_without_what_names_him() {
    let tracker = Tracker::start("visit_gpc").await;
    tracker.simple_campaign("demo").await;
    let body = json!({ "cid": "demo", "url": "https://shop.example/?sub1=a", "referrer": "https://news.example/story?u=7" });
    let request = tracker.octo.client().post(tracker.octo.url("/visit")).body(body.to_string());
    let response = request.header("sec-gpc", "1").send().await.unwrap();
    let click = click_of(&tracker, &response.json().await.unwrap()).await;
    assert_eq!(click["referrer"], "https://news.example");
    assert_eq!(
        (&click["ip_address"], &click["user_agent"], &click["sub1"]),
        (&Value::Null, &Value::Null, &json!("a"))
    );
}

#[tokio::test]
async fn bad_visits_get_a_clear_answer_and_pages_of_every_origin_may_send_them() {
    let tracker = Tracker::start("visit_bad").await;
    tracker.simple_campaign("demo").await;
    for (body, content_type, status, code, pointer) in [
        ("{", "application/json", 400, "invalid_json", Value::Null),
        ("[]", "application/json", 422, "invalid_fields", json!("")),
        ("{}", "text/plain", 422, "invalid_fields", json!("/cid")),
        (r#"{"cid":"nobody"}"#, "text/plain", 422, "invalid_fields", json!("/cid")),
        (r#"{"cid":"no key at all"}"#, "text/plain", 422, "invalid_fields", json!("/cid")),
        (r#"{"cid":"demo"}"#, "multipart/form-data; boundary=x", 415, "unsupported_media_type", Value::Null),
        (&*format!("{{\"cid\":\"{}\"}}", "a".repeat(65_536)), "text/plain", 413, "too_large", Value::Null),
    ] {
        let response = post(&tracker, "/visit", content_type, body.to_owned()).await;
        assert_eq!(response.status(), status, "{}", &body[..body.len().min(40)]);
        assert_eq!(header(&response, "content-type"), "application/problem+json");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(
            (&problem["code"], &problem["errors"][0]["pointer"]),
            (&json!(code), &pointer),
            "{problem}"
        );
    }
    let (client, url) = (tracker.octo.client(), tracker.octo.url("/visit"));
    let preflight = client.request(Method::OPTIONS, &url).header("origin", "https://shop.example");
    let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&preflight, "access-control-allow-origin"), "https://shop.example");
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let response = client.request(method.clone(), &url).send().await.unwrap();
        assert_eq!(
            (response.status(), &*header(&response, "allow")),
            (StatusCode::METHOD_NOT_ALLOWED, "POST"),
            "{method}"
        );
    }
    assert_eq!(Table::Clicks.count(&tracker.pool).await.unwrap(), 0);
}

#[tokio::test]
async fn the_script_is_small_and_cached_and_its_elements_are_those_of_the_api() {
    let tracker = Tracker::start_with("visit_script", |octo| {
        octo.env("OCTO_SCRIPT__PATH", "/assets/shop.js")
            .env("OCTO_SCRIPT__VISIT_PATH", "/seen")
            .env("OCTO_SERVER__PUBLIC_URL", "https://go.example.com")
    })
    .await;
    tracker.simple_campaign("demo").await;
    let script = tracker.show("/script").await;
    let pinned = script["pinned_url"].as_str().unwrap().strip_prefix("https://go.example.com").unwrap();
    assert_eq!(script["url"], "https://go.example.com/assets/shop.js");
    assert!(
        script["pinned_element"].as_str().unwrap().contains(script["integrity"].as_str().unwrap()),
        "{script}"
    );

    let text = tracker.octo.get("/o.js").await.text().await.unwrap();
    assert_eq!(text.len(), usize::try_from(script["bytes"].as_u64().unwrap()).unwrap());
    let (client, origin) = (tracker.octo.client(), "https://shop.example");
    for (path, cache_control) in [
        ("/assets/shop.js", "public, max-age=3600"),
        (pinned, "public, max-age=31536000, immutable"),
        ("/o.0123456789abcdef.js", "public, max-age=3600"),
    ] {
        let request =
            client.get(tracker.octo.url(path)).header("origin", origin).header("accept-encoding", "gzip, br");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&response, "cache-control"), cache_control, "{path}");
        assert_eq!(header(&response, "content-type"), "text/javascript; charset=utf-8");
        assert_eq!(header(&response, "content-encoding"), "gzip");
        assert_eq!(header(&response, "access-control-allow-origin"), origin); // for integrity
        let etag = header(&response, "etag");
        assert_eq!(
            response.bytes().await.unwrap().len(),
            usize::try_from(script["gzip_bytes"].as_u64().unwrap()).unwrap()
        );
        let again = client.get(tracker.octo.url(path)).header("if-none-match", etag).send().await.unwrap();
        assert_eq!(
            (again.status(), again.bytes().await.unwrap().len()),
            (StatusCode::NOT_MODIFIED, 0),
            "{path}"
        );
        let head = client.head(tracker.octo.url(path)).send().await.unwrap();
        assert_eq!(
            (head.status(), &*header(&head, "cache-control")),
            (StatusCode::OK, cache_control),
            "{path}"
        );
        assert_eq!(
            client.post(tracker.octo.url(path)).send().await.unwrap().status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
    assert_eq!(tracker.octo.get("/o.js.map").await.status(), StatusCode::NOT_FOUND);

    let seen = post(&tracker, "/seen", "text/plain", r#"{"cid":"demo"}"#).await;
    assert_eq!(seen.status(), StatusCode::ACCEPTED);
    visit(&tracker, json!({ "cid": "demo" })).await;
    tracker.wait_rows(Table::Clicks, 2).await;
}
