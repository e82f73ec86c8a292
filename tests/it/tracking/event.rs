//! `/event`, `/events` and `/event.gif`: what pages report.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::tracker::{Table, Tracker, assert_roll_ups_agree, header};

async fn post(tracker: &Tracker, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let request =
        tracker.octo.client().post(tracker.octo.url(path)).header("content-type", content_type).body(body);
    request.send().await.expect("an answer")
}

async fn send(tracker: &Tracker, body: &Value) -> (StatusCode, Value) {
    let response = post(tracker, "/event", "application/json", body.to_string()).await;
    (response.status(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn an_event_belongs_to_its_clicks_campaign_and_counts_there() {
    let tracker = Tracker::start("event_stored").await;
    let campaign = tracker.simple_campaign("demo").await;
    let (_, click_id) = tracker.click("/click?cid=demo").await;
    let (status, answer) = send(
        &tracker,
        &json!({
            "event_type": "purchase", "event_name": "Order", "click_id": click_id, "url": "https://shop.example/x",
            "session_id": "s1", "user_id": "u1", "properties": { "value": 9.5, "nested": { "a": [1, null] } },
        }),
    )
    .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!(answer["status"], "accepted");
    tracker.wait_rows(Table::Events, 1).await;
    let row: (Uuid, Option<Uuid>, Option<Uuid>, String, Option<String>, Value, Option<String>) =
        sqlx::query_as(
            "SELECT id, click_id, campaign_id, event_type, event_name, event_data, url FROM events",
        )
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(row.0.to_string(), answer["event_id"].as_str().unwrap());
    assert_eq!(row.1, Some(click_id));
    assert_eq!(row.2.map(|id| id.to_string()).as_deref(), campaign["id"].as_str());
    assert_eq!((row.3.as_str(), row.4.as_deref()), ("purchase", Some("Order")));
    assert_eq!(row.5, json!({ "value": 9.5, "nested": { "a": [1, null] } }));
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn the_same_event_id_is_stored_once_however_often_it_is_sent() {
    let tracker = Tracker::start("event_once").await;
    tracker.simple_campaign("demo").await;
    let id = Uuid::new_v4();
    let event = json!({ "event_type": "view", "cid": "demo", "event_id": id });
    for _ in 0..5 {
        let (status, answer) = send(&tracker, &event).await;
        assert_eq!(
            (status, answer["event_id"].as_str()),
            (StatusCode::ACCEPTED, Some(id.to_string().as_str()))
        );
    }
    let batch = json!([event, event, { "event_type": "view", "cid": "demo" }]).to_string();
    assert_eq!(post(&tracker, "/events", "application/json", batch).await.status(), StatusCode::ACCEPTED);
    tracker.wait_rows(Table::Events, 2).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(send(&tracker, &event).await.0, StatusCode::ACCEPTED);
    send(&tracker, &json!({ "event_type": "last", "cid": "demo" })).await;
    tracker.wait_rows(Table::Events, 3).await;
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn a_batch_answers_item_by_item_in_order() {
    let tracker = Tracker::start("event_batch").await;
    tracker.simple_campaign("demo").await;
    let batch = json!([
        { "event_type": "one", "cid": "demo" },
        { "event_type": ["no", "text"], "cid": "demo" },
        { "event_type": "three" },
        { "event_type": "four", "cid": "demo" },
    ]);
    let response = post(&tracker, "/events", "application/json", batch.to_string()).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let answer: Value = response.json().await.unwrap();
    let statuses: Vec<&str> =
        answer["results"].as_array().unwrap().iter().map(|r| r["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["accepted", "rejected", "rejected", "accepted"]);
    assert_eq!(answer["results"][1]["errors"][0]["pointer"], "/1/event_type");
    tracker.wait_rows(Table::Events, 2).await;
    let too_many: Vec<Value> = (0..501).map(|_| json!({ "event_type": "x", "cid": "demo" })).collect();
    let response = post(&tracker, "/events", "application/json", Value::from(too_many).to_string()).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn bad_events_get_a_clear_answer_and_their_neighbours_are_stored() {
    let tracker = Tracker::start("event_bad").await;
    tracker.simple_campaign("demo").await;
    let good = r#"{"event_type":"view","cid":"demo"}"#;
    let cases: Vec<(Vec<u8>, &str, u16)> = vec![
        (b"{".to_vec(), "application/json", 400),
        (b"\xef\xbb\xbf{}".to_vec(), "application/json", 422),
        (b"{\"event_type\":\"\xff\"}".to_vec(), "application/json", 422),
        (br#"{"event_type":"\ud800"}"#.to_vec(), "application/json", 422),
        (br#"{"value":NaN}"#.to_vec(), "application/json", 400),
        ([vec![b'['; 30_000], vec![b']'; 30_000]].concat(), "application/json", 400),
        (
            format!(
                "{{\"event_type\":\"view\",\"cid\":\"demo\",\"properties\":{}1{}}}",
                "{\"a\":".repeat(33),
                "}".repeat(33)
            )
            .into_bytes(),
            "application/json",
            400,
        ),
        (b"[1,2,3]".to_vec(), "application/json", 422),
        (br#"{"cid":{"a":1},"event_type":[1],"properties":"x"}"#.to_vec(), "application/json", 422),
        (br#"{"event_type":"view"}"#.to_vec(), "application/json", 422),
        (br#"{"event_type":"view","cid":"nobody"}"#.to_vec(), "application/json", 422),
        (br#"{"event_type":"view","click_id":"nonsense"}"#.to_vec(), "application/json", 422),
        (format!("{{\"event_type\":\"{}\"}}", "a".repeat(65)).into_bytes(), "application/json", 422),
        (format!("{{\"event_type\":\"{}\"}}", "a".repeat(65_537)).into_bytes(), "application/json", 413),
        (good.as_bytes().to_vec(), "multipart/form-data; boundary=x", 415),
    ];
    let count = i64::try_from(cases.len()).unwrap();
    for (body, content_type, status) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let response = post(&tracker, "/event", content_type, body).await;
        assert_eq!(response.status(), status, "{shown}");
        assert_eq!(header(&response, "content-type"), "application/problem+json", "{shown}");
        let text = response.text().await.unwrap();
        assert!(text.len() < 1024, "{shown}: {text}");
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["status"], status);
        assert_eq!(
            post(&tracker, "/event", "text/plain;charset=UTF-8", good).await.status(),
            StatusCode::ACCEPTED
        );
    }
    tracker.wait_rows(Table::Events, count).await;
}

#[tokio::test]
async fn every_bad_field_of_an_event_is_named() {
    let tracker = Tracker::start("event_fields").await;
    let (status, problem) =
        send(&tracker, &json!({ "event_type": [], "click_id": "x", "cid": {}, "properties": [] })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    for wanted in ["/event_type", "/click_id", "/cid"] {
        assert!(pointers.contains(&wanted), "{wanted} is not in {pointers:?}");
    }
}

#[tokio::test]
async fn nul_characters_are_replaced_and_the_event_is_kept() {
    let tracker = Tracker::start("event_nul").await;
    tracker.simple_campaign("demo").await;
    let body = r#"{"cid":"demo","event_type":"view","event_name":"a\u0000b","properties":{"a":"x\u0000y","k\u0000":1}}"#;
    assert_eq!(post(&tracker, "/event", "application/json", body).await.status(), StatusCode::ACCEPTED);
    tracker.wait_rows(Table::Events, 1).await;
    let data: Value =
        sqlx::query_scalar("SELECT event_data FROM events").fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(data, json!({ "a": "x\u{fffd}y", "k\u{fffd}": 1 }));
}

#[tokio::test]
async fn the_pixel_is_always_a_pixel_and_names_what_it_dropped() {
    let tracker = Tracker::start("event_pixel").await;
    tracker.simple_campaign("demo").await;
    for (query, dropped) in [
        ("event_type=view&cid=demo&value=1", ""),
        ("event_type=view&cid=nobody", "unknown_campaign"),
        ("event_type=%00%ff&cid=demo", "pattern"),
        ("", "required"),
    ] {
        let response = tracker.octo.get(&format!("/event.gif?{query}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{query}");
        assert_eq!(header(&response, "content-type"), "image/gif");
        assert_eq!(header(&response, "cache-control"), "no-store");
        assert_eq!(header(&response, "x-octo-dropped"), dropped, "{query}");
        assert_eq!(response.bytes().await.unwrap().len(), 43);
    }
    tracker.wait_rows(Table::Events, 1).await;
}

#[tokio::test]
async fn a_page_of_any_origin_may_send_with_credentials_and_any_header_and_use_every_answer() {
    let tracker = Tracker::start_with("event_cors", |b| {
        // events of this machine are not limited
        b.env("OCTO_LIMITS__EVENTS_PER_MINUTE", "6").env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
    })
    .await;
    tracker.simple_campaign("demo").await;
    let ask = |method: Method, path: &str, origin: &str| {
        let request = tracker.octo.client().request(method, tracker.octo.url(path)).header("origin", origin);
        request.header("x-forwarded-for", "203.0.113.9")
    };
    for (path, method, headers) in [
        ("/event", "POST", "content-type"),
        ("/event", "POST", "sentry-trace,baggage"),
        ("/event", "POST", "Content-Type, X-Requested-With, traceparent"),
        ("/event", "POST", ""),
        ("/events", "POST", "content-type,x-datadog-trace-id"),
        ("/event.gif", "GET", "authorization"),
        ("/click?cid=demo", "GET", "sentry-trace"),
        ("/c/demo", "POST", "content-type"),
    ] {
        for origin in ["https://page.example", "null", "http://localhost:3000"] {
            let preflight =
                ask(Method::OPTIONS, path, origin).header("access-control-request-method", method);
            let preflight = match headers {
                "" => preflight,
                headers => preflight.header("access-control-request-headers", headers),
            };
            let response = preflight.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
            assert!(header(&response, "access-control-allow-methods").contains(method), "{path}");
            assert_eq!(header(&response, "access-control-allow-headers"), headers, "{path}");
            assert_eq!(header(&response, "access-control-max-age"), "86400", "{path}");
            assert_let_in(&response, origin, path);
        }
    }
    let event = r#"{"event_type":"view","cid":"demo"}"#;
    let json = "application/json";
    // 415 and 405 count for the limit or do not; the last two are over it
    for (method, path, content_type, body, status) in [
        (Method::POST, "/event", json, event, 202),
        (Method::POST, "/event", json, "{", 400),
        (Method::POST, "/event", json, "{}", 422),
        (Method::POST, "/event", "multipart/form-data", "", 415),
        (Method::GET, "/event", json, "", 405),
        (Method::POST, "/events", json, "{}", 422),
        (Method::GET, "/event.gif?event_type=view&cid=demo", json, "", 200),
        (Method::HEAD, "/event.gif?event_type=view&cid=demo", json, "", 200),
        (Method::GET, "/event.gif", json, "", 200),
        (Method::GET, "/click?cid=demo", json, "", 302),
        (Method::GET, "/c/nobody", json, "", 404),
        (Method::GET, "/click", json, "", 400),
        (Method::POST, "/event", json, event, 429),
        (Method::POST, "/events", json, event, 429),
    ] {
        let request = ask(method, path, "https://page.example").header("content-type", content_type);
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_let_in(&response, "https://page.example", path);
        let exposed = header(&response, "access-control-expose-headers").to_lowercase();
        assert!(exposed.contains("x-octo-adjusted") && exposed.contains("retry-after"), "{path}: {exposed}");
    }
    // an image of a page with Cross-Origin-Embedder-Policy: require-corp brings no origin
    let image = tracker.octo.get("/event.gif?event_type=view&cid=demo").await;
    assert_eq!(header(&image, "cross-origin-resource-policy"), "cross-origin");
    assert_eq!(
        (header(&image, "vary"), header(&image, "access-control-allow-origin")),
        ("Origin".to_owned(), String::new())
    );
    for path in ["/api/v1/events", "/api/v1/campaigns", "/livez", "/docs", "/metrics", "/event/x"] {
        for method in [Method::GET, Method::OPTIONS] {
            let request =
                ask(method, path, "https://page.example").header("access-control-request-method", "GET");
            let response = request.send().await.unwrap();
            let names = [
                "access-control-allow-origin",
                "access-control-allow-credentials",
                "cross-origin-resource-policy",
            ];
            assert_eq!(names.map(|name| header(&response, name)), [""; 3], "{path} is for nobody's page");
        }
    }
}

fn assert_let_in(response: &Response, origin: &str, path: &str) {
    assert_eq!(header(response, "access-control-allow-origin"), origin, "{path}");
    assert_eq!(header(response, "access-control-allow-credentials"), "true", "{path}");
    assert_eq!(header(response, "cross-origin-resource-policy"), "cross-origin", "{path}");
    let vary: Vec<_> = response.headers().get_all("vary").iter().map(|v| v.to_str().unwrap()).collect();
    assert!(vary.contains(&"Origin"), "{path}: {vary:?}");
}
