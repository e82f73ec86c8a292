//! `/api/v1`: campaigns, tokens, lists, figures; what it refuses, and in which words.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::eventually,
    tracker::{OFFER, SOON, Table, Tracker, header},
};

async fn send(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    (status, json_of(response).await)
}

async fn json_of(response: Response) -> Value {
    let text = response.text().await.expect("a body");
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
}

async fn get(tracker: &Tracker, path: &str) -> Value {
    let (status, body) = send(tracker.api(Method::GET, path)).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

/// Pointers and codes of the bad fields.
fn faults(problem: &Value) -> Vec<(String, String)> {
    let text = |error: &Value, name: &str| error[name].as_str().expect(name).to_owned();
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|e| (text(e, "pointer"), text(e, "code"))).collect()
}

#[tokio::test]
async fn a_campaign_is_made_changed_paused_resumed_and_deleted_and_clicks_follow_at_once() {
    let tracker = Tracker::start("api_campaign_life").await;
    let body = json!({ "key": "life", "name": "Life", "offers": [{ "name": "o", "url": OFFER }] });
    let response = tracker.api(Method::POST, "/campaigns").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let (location, etag) = (header(&response, "location"), header(&response, "etag"));
    let campaign = json_of(response).await;
    assert_eq!(location, format!("/api/v1/campaigns/{}", campaign["id"].as_str().unwrap()));
    assert_eq!(etag, format!("\"{}\"", campaign["version"]));
    assert!(campaign["click_url"].as_str().unwrap().ends_with("/click?cid=life"));
    tracker.click("/c/life").await;

    let (status, paused) = send(tracker.api(Method::POST, "/campaigns/life/pause")).await;
    assert_eq!((status, &paused["status"]), (StatusCode::OK, &json!("paused")));
    assert_eq!(tracker.octo.get("/c/life").await.status(), StatusCode::NOT_FOUND);

    send(tracker.api(Method::POST, "/campaigns/life/resume")).await;
    let patch = json!({ "landing_pages": [{ "name": "p", "url": "https://page.example/" }] });
    let (status, patched) = send(tracker.api(Method::PATCH, "/campaigns/life").json(&patch)).await;
    assert_eq!(status, StatusCode::OK, "{patched}");
    assert_eq!(patched["offers"], campaign["offers"], "what is not given stays");
    let (response, _) = tracker.click("/c/life").await;
    assert_eq!(header(&response, "location"), "https://page.example/");

    let (status, _) = send(tracker.api(Method::DELETE, "/campaigns/life")).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(tracker.octo.get("/c/life").await.status(), StatusCode::NOT_FOUND);
    let (status, _) = send(tracker.api(Method::GET, "/campaigns/life")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    tracker.simple_campaign("life").await;
    tracker.click("/c/life").await;
}

#[tokio::test]
async fn entries_of_a_list_keep_their_ids() {
    let tracker = Tracker::start("api_list_ids").await;
    let page = |name: &str| json!({ "name": name, "url": "https://page.example/" });
    let body = json!({ "key": "ids", "name": "n", "landing_pages": [page("a"), page("b"), page("c")] });
    let made = tracker.campaign(body).await;
    let id = |i: usize| made["landing_pages"][i]["id"].clone();
    let mut moved = page("a moved");
    moved["id"] = id(0);
    let mut kept = page("c");
    kept["id"] = id(2);
    let patch = json!({ "landing_pages": [kept, page("new"), moved] });
    let (_, patched) = send(tracker.api(Method::PATCH, "/campaigns/ids").json(&patch)).await;
    let pages = patched["landing_pages"].as_array().unwrap();
    assert_eq!((&pages[0]["id"], &pages[2]["id"]), (&id(2), &id(0)));
    assert_eq!(pages[2]["name"], "a moved");
    assert!(![id(0), id(1), id(2)].contains(&pages[1]["id"]));
}

#[tokio::test]
async fn every_bad_field_of_a_campaign_is_named() {
    let tracker = Tracker::start("api_bad_fields").await;
    let own = tracker.octo.url("/click?cid=x");
    let body = json!({
        "name": "", "key": "a b", "fallback_url": own, "start_at": "2026-02-01T00:00:00Z",
        "end_at": "2026-01-01T00:00:00Z", "payout": { "amount": "-1", "currency": "USD" },
        "offers": [{ "name": "o", "url": "https://{sub1}.example/" }], "ofers": [],
    });
    let response = tracker.api(Method::POST, "/campaigns").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let problem = json_of(response).await;
    let wanted = [
        ("/key", "pattern"),
        ("/name", "length"),
        ("/payout/amount", "range"),
        ("/fallback_url", "redirect_loop"),
        ("/offers/0/url", "url"),
        ("/end_at", "range"),
        ("/ofers", "unknown"),
    ];
    assert_eq!(faults(&problem), wanted.map(|(p, c)| (p.to_owned(), c.to_owned())));
    assert!(problem.to_string().contains("did you mean `offers`?"));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_in_few_words() {
    let tracker = Tracker::start("api_bad_bodies").await;
    let post = |body: Vec<u8>, content_type: &str| {
        tracker.api(Method::POST, "/campaigns").header("content-type", content_type).body(body)
    };
    for (body, content_type, wanted) in [
        (b"{".to_vec(), "application/json", 400),
        (b"\xef\xbb\xbf{}".to_vec(), "application/json", 400),
        (vec![b'['; 60_000], "application/json", 400),
        (b"[]".to_vec(), "application/json", 422),
        (b"{}".to_vec(), "text/plain", 415),
        (vec![b' '; 1_100_000], "application/json", 413),
    ] {
        let response = post(body, content_type).send().await.unwrap();
        assert_eq!(response.status().as_u16(), wanted, "{content_type}");
        assert!(response.bytes().await.unwrap().len() <= 4096);
    }
    let many: Value = (0..5000).map(|i| (format!("unknown{i}"), json!("x".repeat(100)))).collect();
    let response = post(many.to_string().into_bytes(), "application/json").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(response.bytes().await.unwrap().len() <= 4096);
}

#[tokio::test]
async fn a_key_belongs_to_one_campaign() {
    let tracker = Tracker::start("api_key_taken").await;
    tracker.simple_campaign("one").await;
    let two = tracker.campaign(json!({ "name": "two" })).await;
    let (status, problem) =
        send(tracker.api(Method::POST, "/campaigns").json(&json!({ "key": "one", "name": "again" }))).await;
    assert_eq!((status, faults(&problem)), (StatusCode::CONFLICT, vec![("/key".into(), "taken".into())]));
    let path = format!("/campaigns/{}", two["id"].as_str().unwrap());
    let (status, _) = send(tracker.api(Method::PATCH, &path).json(&json!({ "key": "one" }))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let key = two["key"].as_str().unwrap();
    assert_eq!((key.len(), &get(&tracker, &format!("/campaigns/{key}")).await["id"]), (8, &two["id"]));
}

#[tokio::test]
async fn a_change_that_overtook_another_is_not_lost() {
    let tracker = Tracker::start("api_if_match").await;
    let made = tracker.simple_campaign("race").await;
    let version = made["version"].to_string();
    let patch = |if_match: &str, name: &str| {
        let request = tracker.api(Method::PATCH, "/campaigns/race").json(&json!({ "name": name }));
        request.header("if-match", if_match)
    };
    let (status, changed) = send(patch(&format!("\"{version}\""), "first")).await;
    assert_eq!((status, &changed["name"]), (StatusCode::OK, &json!("first")));
    let (status, problem) = send(patch(&format!("\"{version}\""), "second")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::PRECONDITION_FAILED, &json!("precondition_failed")));
    assert_eq!(send(patch("*", "third")).await.0, StatusCode::OK);
    let stale = tracker.api(Method::DELETE, "/campaigns/race").header("if-match", format!("\"{version}\""));
    assert_eq!(send(stale).await.0, StatusCode::PRECONDITION_FAILED);

    let response = tracker.api(Method::GET, "/campaigns/race").send().await.unwrap();
    let etag = header(&response, "etag");
    let again = tracker.api(Method::GET, "/campaigns/race").header("if-none-match", etag);
    assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn tokens_open_what_their_scope_says_until_they_are_revoked() {
    let tracker = Tracker::start("api_tokens").await;
    let (status, read) =
        send(tracker.api(Method::POST, "/tokens").json(&json!({ "scope": "read", "name": "reports" }))).await;
    assert_eq!(status, StatusCode::CREATED);
    let secret = read["token"].as_str().unwrap().to_owned();
    let with = |method: Method, path: &str, token: &str| {
        let url = tracker.octo.url(&format!("/api/v1{path}"));
        tracker.octo.client().request(method, url).bearer_auth(token).json(&json!({ "name": "n" }))
    };
    assert_eq!(send(with(Method::GET, "/campaigns", &secret)).await.0, StatusCode::OK);
    let refused = with(Method::POST, "/campaigns", &secret).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(header(&refused, "www-authenticate").contains("insufficient_scope"));
    assert_eq!(send(with(Method::GET, "/tokens", &secret)).await.0, StatusCode::OK, "every GET");

    let listed = get(&tracker, "/tokens").await;
    assert!(!listed.to_string().contains(&secret), "a secret is shown once");
    let stored: bool = sqlx::query_scalar("SELECT bool_or(t::text LIKE '%' || $1 || '%') FROM api_tokens t")
        .bind(&secret[5..])
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert!(!stored, "and stored nowhere");

    let path = format!("/tokens/{}", read["id"].as_str().unwrap());
    assert_eq!(send(tracker.api(Method::DELETE, &path)).await.0, StatusCode::NO_CONTENT);
    for bad in [secret.as_str(), "octo_1", ""] {
        let refused = with(Method::GET, "/campaigns", bad).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert!(header(&refused, "www-authenticate").starts_with("Bearer"));
    }
}

#[tokio::test]
async fn clicks_and_events_are_listed_page_by_page_and_counted() {
    let tracker = Tracker::start("api_clicks").await;
    tracker.simple_campaign("many").await;
    tracker.simple_campaign("other").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(tracker.click("/c/many?cost=0.1&currency=eur").await.1.to_string());
    }
    tracker.click("/c/other").await;
    let event = json!({ "event_type": "view", "click_id": ids[0], "properties": { "a": 1 } });
    let url = tracker.octo.url("/event");
    assert_eq!(
        tracker.octo.client().post(url).json(&event).send().await.unwrap().status(),
        StatusCode::ACCEPTED
    );
    tracker.wait_rows(Table::Clicks, 6).await;
    tracker.wait_rows(Table::Events, 1).await;

    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = get(&tracker, &format!("/clicks?cid=many&limit=2&cursor={cursor}")).await;
        listed.extend(page["data"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    listed.reverse();
    assert_eq!(listed, ids);
    let click = get(&tracker, &format!("/clicks/{}", ids[0])).await;
    assert_eq!(click["campaign_key"], "many");
    assert_eq!(click["cost"], json!({ "amount": "0.10", "currency": "EUR" }));
    let events = get(&tracker, &format!("/events?click_id={}", ids[0])).await;
    assert_eq!(events["data"][0]["properties"], json!({ "a": 1 }));

    eventually(SOON, async || {
        let stats = get(&tracker, "/campaigns/many/stats?tz=Europe/Berlin").await;
        let wanted = json!({ "clicks": 5, "valid_clicks": 5, "bot_clicks": 0, "events": 1 });
        // a plain HTTP client may count as a robot: only the sums of all are certain
        let clicks = &stats["totals"]["clicks"];
        anyhow::ensure!(*clicks == wanted["clicks"] && stats["totals"]["events"] == 1, "{stats}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_refused_by_name() {
    let tracker = Tracker::start("api_bad_queries").await;
    tracker.simple_campaign("demo").await;
    for (path, status, pointer) in [
        ("/campaigns?limit=501", 422, "?limit"),
        ("/campaigns?limt=5", 422, "?limt"),
        ("/clicks?from=yesterday", 422, "?from"),
        ("/events?click_id=7", 422, "?click_id"),
        ("/campaigns/demo/stats?group_by=planet", 422, "?group_by"),
        ("/campaigns/demo/stats?tz=Mars/Base", 422, "?tz"),
        ("/campaigns?cursor=x", 400, "?cursor"),
        ("/clicks?cursor=x", 400, "?cursor"),
        ("/clicks/7", 404, ""),
        ("/clicks?cid=%00", 404, ""),
        ("/campaigns/%ff", 404, ""),
        ("/campaigns/nosuch/stats", 404, ""),
    ] {
        let (got, problem) = send(tracker.api(Method::GET, path)).await;
        assert_eq!(got.as_u16(), status, "{path}: {problem}");
        let pointers: Vec<String> = faults(&problem).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers.first().map_or("", String::as_str), pointer, "{path}");
    }
}

#[tokio::test]
async fn the_document_needs_no_token_and_names_every_route() {
    let tracker = Tracker::start("api_document").await;
    let response = tracker.octo.get("/api/v1/openapi.json").await;
    assert_eq!(response.status(), StatusCode::OK);
    let document = json_of(response).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/campaigns/{id}", "/campaigns/{id}/stats", "/clicks/{click_id}", "/events", "/tokens/{id}"]
    {
        assert!(document["paths"][format!("/api/v1{path}")].is_object(), "{path}");
    }
}
