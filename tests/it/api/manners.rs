//! Manners of the API: names of requests, problems everywhere, compression, versions, lists that hold still, the page.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{api::json_of, document::Operation, eventually},
    tracker::{SOON, Table, Tracker, header},
};

#[tokio::test]
async fn every_refusal_is_a_problem_that_names_its_request() {
    let tracker = Tracker::start("manners_problems").await;
    tracker.simple_campaign("demo").await;
    let cases = [
        (Method::GET, "/nosuch", "", 404, "not_found"),
        (Method::GET, "/api/v1", "", 404, "not_found"),
        (Method::GET, "/api/v1/nosuch", "", 404, "not_found"),
        (Method::PUT, "/api/v1/campaigns", "{}", 405, "method_not_allowed"),
        (Method::POST, "/api/v1/openapi.json", "{}", 405, "method_not_allowed"),
        (Method::DELETE, "/event", "", 405, "method_not_allowed"),
        (Method::POST, "/health", "", 405, "method_not_allowed"),
        (Method::PUT, "/click?cid=demo", "", 405, "method_not_allowed"),
        (Method::GET, "/api/v1/campaigns/%ff", "", 404, "not_found"),
        (Method::GET, "/api/v1/dead-letters/x/y", "", 404, "not_found"),
        (Method::GET, "/api/v1/clicks/7", "", 404, "not_found"),
        (Method::DELETE, "/api/v1/tokens/7", "", 404, "not_found"),
        (Method::GET, "/api/v1/campaigns?cursor=x&limit=0", "", 422, "invalid_fields"),
        (Method::POST, "/api/v1/campaigns", "{", 400, "invalid_json"),
        (Method::POST, "/api/v1/campaigns", "[]", 422, "invalid_fields"),
        (Method::PATCH, "/api/v1/campaigns/demo", "7", 422, "invalid_fields"),
        (Method::POST, "/event", "{}", 422, "invalid_fields"),
        (Method::POST, "/events", "{}", 422, "invalid_fields"),
    ];
    for (method, path, body, status, code) in cases {
        let place = format!("{method} {path}");
        let request =
            tracker.octo.client().request(method, tracker.octo.url(path)).bearer_auth(&tracker.token);
        let request = request.header("content-type", "application/json").header("x-request-id", "job-7");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), status, "{place}");
        assert_eq!(header(&response, "content-type"), "application/problem+json", "{place}");
        assert_eq!(header(&response, "allow").is_empty(), status != 405, "{place}");
        let is_link = path.starts_with("/click");
        assert_eq!(header(&response, "x-request-id"), if is_link { "" } else { "job-7" }, "{place}");
        let problem = json_of(response).await;
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{place}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{place}: {problem}");
        }
        assert_eq!(problem["request_id"] == "job-7", !is_link, "{place}: {problem}");
        assert_eq!(problem["errors"].is_array(), status == 422, "{place}: {problem}");
    }
    let long = " ".repeat(2 << 20);
    for (content_type, status) in [("application/json", 413), ("text/html", 415)] {
        let request = tracker.api(Method::POST, "/campaigns").header("content-type", content_type);
        let response = request.body(long.clone()).send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn a_request_has_a_name_and_the_log_lines_it_caused_have_it_too() {
    let tracker = Tracker::start_with("manners_request_id", |b| {
        b.arg("--log-format").arg("json").env("OCTO_DATABASE__SLOW_QUERY_MS", "0")
    })
    .await;
    let named = |name: &str| tracker.api(Method::GET, "/campaigns").header("x-request-id", name);
    let response = named("order-7:a").send().await.unwrap();
    assert_eq!(header(&response, "x-request-id"), "order-7:a");
    let made = header(&named("not a name").send().await.unwrap(), "x-request-id");
    assert_eq!(uuid::Uuid::parse_str(&made).unwrap().get_version_num(), 7);

    for name in ["order-7:a", &made] {
        eventually(SOON, async || {
            let log = tracker.octo.stderr();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut of_query = lines.filter(|line| line.to_string().contains("campaign.list"));
            anyhow::ensure!(of_query.any(|line| line["span"]["request_id"] == name), "no line names {name}");
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn long_answers_come_in_fewer_bytes_and_what_must_not_be_touched_does_not() {
    let tracker = Tracker::start("manners_compression").await;
    for i in 0..30 {
        tracker.simple_campaign(&format!("c{i}")).await;
    }
    let described = json!({ "description": "long ".repeat(400) });
    let long = tracker.api(Method::PATCH, "/campaigns/c1").json(&described);
    assert_eq!(long.send().await.unwrap().status(), 200);
    let asked = |path: &str, encoding: &str| {
        tracker.api(Method::GET, path).header("accept-encoding", encoding.to_owned()).send()
    };
    let plain = asked("/campaigns", "identity").await.unwrap();
    assert_eq!(header(&plain, "vary"), "accept-encoding");
    let plain = plain.bytes().await.unwrap();
    for encoding in ["gzip", "br"] {
        let response = asked("/campaigns", encoding).await.unwrap();
        assert_eq!(
            (header(&response, "content-encoding"), header(&response, "vary")),
            (encoding.into(), "accept-encoding".into())
        );
        let bytes = response.bytes().await.unwrap();
        assert!(bytes.len() * 4 < plain.len(), "{encoding}: {} of {}", bytes.len(), plain.len());
    }
    // a strong ETag names bytes, and a redirect has none to spare
    for path in ["/api/v1/campaigns/c1", "/c/c1", "/livez", "/api/v1/campaigns?limit=1"] {
        let request = tracker.octo.client().get(tracker.octo.url(path)).bearer_auth(&tracker.token);
        let response = request.header("accept-encoding", "gzip, br").send().await.unwrap();
        assert_eq!(header(&response, "content-encoding"), "", "{path}");
    }
    let url = tracker.octo.url("/metrics");
    let metrics = tracker.octo.client().get(url).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(header(&metrics, "content-encoding"), "gzip");
    // the one answer with a secret stays as it is, however long
    let token = json!({ "scope": "read", "name": "\u{1F419}".repeat(255) });
    let request = tracker.api(Method::POST, "/tokens").header("accept-encoding", "gzip, br").json(&token);
    let token = request.send().await.unwrap();
    assert_eq!((token.status().as_u16(), header(&token, "content-encoding")), (201, String::new()));
    assert!(token.bytes().await.unwrap().len() > 1200);
}

#[tokio::test]
async fn a_click_and_a_token_have_versions_too() {
    let tracker = Tracker::start("manners_etags").await;
    tracker.simple_campaign("demo").await;
    let (_, id) = tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let click = format!("/clicks/{id}");
    let token =
        json_of(tracker.api(Method::GET, "/tokens").send().await.unwrap()).await["data"][0]["id"].clone();
    let token = format!("/tokens/{}", token.as_str().unwrap());
    for path in [&click, &token] {
        // its use may be noted between two looks at the token, once
        eventually(SOON, async || {
            let etag = header(&tracker.api(Method::GET, path).send().await?, "etag");
            let again =
                tracker.api(Method::GET, path).header("if-none-match", format!("W/{etag}")).send().await?;
            anyhow::ensure!(
                again.status() == 304 && header(&again, "etag") == etag,
                "{path}: {}",
                again.status()
            );
            Ok(())
        })
        .await;
    }
    let etag = header(&tracker.api(Method::GET, &click).send().await.unwrap(), "etag");
    let correct = |if_match: &str, reason: &str| {
        let body = json!({ "is_valid": false, "invalid_reason": reason });
        tracker.api(Method::PATCH, &click).header("if-match", if_match).json(&body).send()
    };
    let changed = correct(&etag, "first").await.unwrap();
    assert_eq!(changed.status(), 200);
    let newer = header(&changed, "etag");
    assert_ne!(newer, etag);
    let stale = correct(&etag, "second").await.unwrap();
    assert_eq!(
        (stale.status().as_u16(), json_of(stale).await["code"].clone()),
        (412, json!("precondition_failed"))
    );
    assert_eq!(correct(&newer, "third").await.unwrap().status(), 200);
    let shown = json_of(tracker.api(Method::GET, &click).send().await.unwrap()).await;
    assert_eq!(shown["invalid_reason"], "third");
    let stale = tracker.api(Method::GET, &click).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(stale.status(), 200);
}

#[tokio::test]
async fn of_two_corrections_of_the_same_version_one_is_made() {
    let tracker = Tracker::start("manners_if_match_race").await;
    tracker.simple_campaign("demo").await;
    let (_, id) = tracker.click("/c/demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let click = format!("/clicks/{id}");
    for round in 0..5 {
        let etag = header(&tracker.api(Method::GET, &click).send().await.unwrap(), "etag");
        let correct = |i: usize| {
            let body = json!({ "is_valid": false, "invalid_reason": format!("r{round}.{i}") });
            tracker.api(Method::PATCH, &click).header("if-match", &etag).json(&body).send()
        };
        let answers = futures_util::future::join_all((0..8).map(correct)).await;
        let done = answers.iter().filter(|answer| answer.as_ref().unwrap().status() == 200).count();
        let refused = answers.iter().filter(|answer| answer.as_ref().unwrap().status() == 412).count();
        assert_eq!((done, refused), (1, 7));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_campaigns_are_walked_while_others_come_change_and_go_and_none_is_missed_or_doubled() {
    const CAMPAIGNS: usize = 10_000;

    let tracker = Tracker::start("manners_cursors").await;
    let fill = "
        INSERT INTO campaigns (id, key, name, status, cost_model)
        SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'walk' || n, 'walk', 'active', 'cpa'
        FROM generate_series(1, 10000) n";
    sqlx::raw_sql(fill).execute(&tracker.pool).await.unwrap();
    let mut walked = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        // behind the walker, before it, and on the page it comes to next
        tracker.campaign(json!({ "name": format!("new{page}") })).await;
        let key = format!("walk{}", (page * 397) % CAMPAIGNS + 1);
        let change =
            tracker.api(Method::PATCH, &format!("/campaigns/{key}")).json(&json!({ "name": "changed" }));
        assert_eq!(change.send().await.unwrap().status(), 200);
        let gone = "UPDATE campaigns SET deleted_at = now() WHERE name LIKE 'new%' AND deleted_at IS NULL AND random() < 0.3";
        sqlx::raw_sql(gone).execute(&tracker.pool).await.unwrap();

        let path = format!("/campaigns?limit=500&cursor={cursor}");
        let body = json_of(tracker.api(Method::GET, &path).send().await.unwrap()).await;
        let keys = body["data"].as_array().unwrap().iter().map(|c| c["key"].as_str().unwrap().to_owned());
        walked.extend(keys.filter(|key| key.starts_with("walk")));
        let Some(next) = body["next_cursor"].as_str() else { break };
        assert_eq!(body["has_more"], true);
        next.clone_into(&mut cursor);
    }
    let distinct: BTreeSet<_> = walked.iter().collect();
    assert_eq!((walked.len(), distinct.len()), (CAMPAIGNS, CAMPAIGNS));

    for tampered in
        [&cursor[1..], &format!("{cursor}0"), &cursor.replace(&cursor[..1], "g"), "../../x", "%00"]
    {
        let path = format!("/campaigns?cursor={tampered}");
        let response = tracker.api(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), 400, "{tampered}");
        assert_eq!(json_of(response).await["code"], "invalid_cursor");
    }
}

#[tokio::test]
async fn the_page_names_every_operation_and_needs_nothing_from_elsewhere() {
    let tracker = Tracker::start("manners_docs").await;
    let response = tracker.octo.get("/docs").await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "text/html; charset=utf-8");
    let policy = header(&response, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = response.text().await.unwrap();

    for Operation { method, template, id, .. } in tracker.octo.operations().await {
        assert_eq!(html.matches(&format!("<h3 id=\"op-{id}\">")).count(), 1, "{method} {template}");
        let links = html.matches(&format!("href=\"#op-{id}\"")).count();
        assert_eq!(links, 2, "{method} {template}: and in the contents");
        assert!(html.contains(&format!("<code>{template}</code>")), "{template}");
    }
    // what a page could load or run
    for forbidden in [
        "<script", "<iframe", "<img", "<object", "<form", " style=", " onclick", " src=\"", "@import", "url(",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let links = html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for link in links.collect::<BTreeSet<_>>() {
        match link.strip_prefix('#') {
            Some(anchor) => assert!(html.contains(&format!("id=\"{anchor}\"")), "{link} leads nowhere"),
            None => assert_eq!(tracker.octo.get(link).await.status(), 200, "{link}"),
        }
    }
    let style = tracker.octo.get("/docs/style.css").await.text().await.unwrap();
    assert!(!style.contains("url(") && !style.contains("@import"), "the style loads nothing either");
}
