//! `/api/v1`: campaigns, tokens, lists, figures; what it refuses, and in which words.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{
        Octo, OctoBuilder,
        api::{answer, json_of},
        eventually,
    },
    tracker::{OFFER, SOON, Table, Tracker, header},
};

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

    let (status, paused) = answer(tracker.api(Method::POST, "/campaigns/life/pause")).await;
    assert_eq!((status, &paused["status"]), (StatusCode::OK, &json!("paused")));
    assert_eq!(tracker.octo.get("/c/life").await.status(), StatusCode::NOT_FOUND);

    answer(tracker.api(Method::POST, "/campaigns/life/resume")).await;
    let patch = json!({ "landing_pages": [{ "name": "p", "url": "https://page.example/" }] });
    let (status, patched) = answer(tracker.api(Method::PATCH, "/campaigns/life").json(&patch)).await;
    assert_eq!(status, StatusCode::OK, "{patched}");
    assert_eq!(patched["offers"], campaign["offers"], "what is not given stays");
    let (response, _) = tracker.click("/c/life").await;
    assert_eq!(header(&response, "location"), "https://page.example/");

    let (status, _) = answer(tracker.api(Method::DELETE, "/campaigns/life")).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(tracker.octo.get("/c/life").await.status(), StatusCode::NOT_FOUND);
    let (status, _) = answer(tracker.api(Method::GET, "/campaigns/life")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    tracker.simple_campaign("life").await;
    tracker.click("/c/life").await;
}

#[tokio::test]
async fn a_patch_is_checked_for_what_it_changes_only() {
    let with_app = |b: OctoBuilder| b.env("OCTO_TRACKING__APP_SCHEMES", "myapp");
    let tracker = Tracker::start_with("api_app_schemes", with_app).await;
    let body = json!({
        "key": "app", "name": "n", "fallback_url": "myapp://closed", "start_at": "2026-01-01T00:00:00Z",
        "offers": [{ "name": "o", "url": "myapp://open/{click_id}" }],
    });
    let made = tracker.campaign(body).await;
    // where the scheme is not in the list any more
    let strict = Octo::builder().database_url(tracker.database.url()).start().await;
    let patch = async |body: Value| {
        let request = strict.api(&tracker.token).request(Method::PATCH, "/campaigns/app").json(&body);
        answer(request).await
    };
    let (status, patched) = patch(json!({ "name": "new" })).await;
    assert_eq!((status, &patched["name"]), (StatusCode::OK, &json!("new")), "{patched}");
    assert_eq!((&patched["offers"], &patched["fallback_url"]), (&made["offers"], &made["fallback_url"]));
    let mut offer = made["offers"][0].clone();
    offer["weight"] = json!(5);
    let (status, patched) = patch(json!({ "offers": [offer], "fallback_url": "myapp://closed" })).await;
    assert_eq!((status, &patched["offers"]), (StatusCode::OK, &json!([offer])), "{patched}");
    offer["url"] = json!("myapp://other");
    let more = json!({ "name": "p", "url": "myapp://open/{click_id}" });
    let (status, problem) = patch(json!({ "offers": [offer, more], "end_at": "2025-01-01T00:00:00Z" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    let wanted = [("/offers/0/url", "url"), ("/offers/1/url", "url"), ("/end_at", "range")];
    assert_eq!(faults(&problem), wanted.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
    assert!(header(&strict.get("/c/app").await, "location").starts_with("myapp://open/"));
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
    let (_, patched) = answer(tracker.api(Method::PATCH, "/campaigns/ids").json(&patch)).await;
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
        answer(tracker.api(Method::POST, "/campaigns").json(&json!({ "key": "one", "name": "again" }))).await;
    assert_eq!((status, faults(&problem)), (StatusCode::CONFLICT, vec![("/key".into(), "taken".into())]));
    let path = format!("/campaigns/{}", two["id"].as_str().unwrap());
    let (status, _) = answer(tracker.api(Method::PATCH, &path).json(&json!({ "key": "one" }))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let key = two["key"].as_str().unwrap();
    assert_eq!((key.len(), &tracker.show(&format!("/campaigns/{key}")).await["id"]), (8, &two["id"]));
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
    let (status, changed) = answer(patch(&format!("\"{version}\""), "first")).await;
    assert_eq!((status, &changed["name"]), (StatusCode::OK, &json!("first")));
    let (status, problem) = answer(patch(&format!("\"{version}\""), "second")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::PRECONDITION_FAILED, &json!("precondition_failed")));
    assert_eq!(answer(patch("*", "third")).await.0, StatusCode::OK);
    let stale = tracker.api(Method::DELETE, "/campaigns/race").header("if-match", format!("\"{version}\""));
    assert_eq!(answer(stale).await.0, StatusCode::PRECONDITION_FAILED);

    let response = tracker.api(Method::GET, "/campaigns/race").send().await.unwrap();
    let etag = header(&response, "etag");
    let again = tracker.api(Method::GET, "/campaigns/race").header("if-none-match", etag);
    assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn tokens_open_what_their_scope_says_until_they_are_revoked() {
    let tracker = Tracker::start("api_tokens").await;
    let (status, read) =
        answer(tracker.api(Method::POST, "/tokens").json(&json!({ "scope": "read", "name": "reports" })))
            .await;
    assert_eq!(status, StatusCode::CREATED);
    let secret = read["token"].as_str().unwrap().to_owned();
    let with = |method: Method, path: &str, token: &str| {
        tracker.octo.api(token).request(method, path).json(&json!({ "name": "n" }))
    };
    assert_eq!(answer(with(Method::GET, "/campaigns", &secret)).await.0, StatusCode::OK);
    let refused = with(Method::POST, "/campaigns", &secret).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(header(&refused, "www-authenticate").contains("insufficient_scope"));
    assert_eq!(answer(with(Method::GET, "/tokens", &secret)).await.0, StatusCode::OK, "every GET");

    let listed = tracker.show("/tokens").await;
    assert!(!listed.to_string().contains(&secret), "a secret is shown once");
    let stored: bool = sqlx::query_scalar("SELECT bool_or(t::text LIKE '%' || $1 || '%') FROM api_tokens t")
        .bind(&secret[5..])
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert!(!stored, "and stored nowhere");

    let path = format!("/tokens/{}", read["id"].as_str().unwrap());
    assert_eq!(answer(tracker.api(Method::DELETE, &path)).await.0, StatusCode::NO_CONTENT);
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
        let page = tracker.show(&format!("/clicks?cid=many&limit=2&cursor={cursor}")).await;
        listed.extend(page["data"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        next.clone_into(&mut cursor);
    }
    listed.reverse();
    assert_eq!(listed, ids);
    let click = tracker.show(&format!("/clicks/{}", ids[0])).await;
    assert_eq!(click["campaign_key"], "many");
    assert_eq!(click["cost"], json!({ "amount": "0.10", "currency": "EUR" }));
    let events = tracker.show(&format!("/events?click_id={}", ids[0])).await;
    assert_eq!(events["data"][0]["properties"], json!({ "a": 1 }));

    eventually(SOON, async || {
        let stats = tracker.show("/campaigns/many/stats?tz=Europe/Berlin").await;
        let wanted = json!({ "clicks": 5, "valid_clicks": 5, "bot_clicks": 0, "events": 1, "lander_views": 0, "lander_clicks": 0 });
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
        let (got, problem) = answer(tracker.api(Method::GET, path)).await;
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

/// Clicks of the campaign `gone` with their roll-ups: 20 of bob in one hour, then 60 of alice an hour, for 40 hours.
const CLICKS_OF_MANY_HOURS: &str = "
INSERT INTO clicks (id, campaign_id, is_valid, is_bot, sub1, created_at, updated_at)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7' || substr(md5(hour || ' ' || i), 1, 3)
        || '8' || substr(md5(hour || ' ' || i), 4, 15))::uuid,
    (SELECT id FROM campaigns WHERE key = 'gone'), i % 2 = 0, false,
    CASE WHEN hour = 41 THEN 'bob' ELSE 'alice' END, at, at
FROM generate_series(1, 41) AS hour
CROSS JOIN LATERAL generate_series(1, CASE WHEN hour = 41 THEN 20 ELSE 60 END) AS i
CROSS JOIN LATERAL (
    SELECT date_trunc('hour', now(), 'UTC') - hour * interval '1 hour' + i * interval '50 seconds' AS at
) AS t;
INSERT INTO campaign_stats_hourly (campaign_id, hour, clicks, valid_clicks)
SELECT campaign_id, date_trunc('hour', created_at, 'UTC'), count(*), count(*) FILTER (WHERE is_valid)
FROM clicks GROUP BY 1, 2";

/// The pages of a list: entries, and whether there were more.
async fn pages(tracker: &Tracker, list: &str) -> Vec<(usize, bool)> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = tracker.show(&format!("{list}&cursor={cursor}")).await;
        let has_more = page["has_more"].as_bool().unwrap();
        pages.push((page["data"].as_array().unwrap().len(), has_more));
        assert_eq!(has_more, page["next_cursor"].is_string(), "{page}");
        match page["next_cursor"].as_str() {
            Some(next) => assert_ne!(std::mem::replace(&mut cursor, next.to_owned()), next, "it goes on"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn a_page_of_clicks_is_short_only_at_the_end_whatever_the_figures_say() {
    let tracker = Tracker::start("api_erased").await;
    tracker.simple_campaign("gone").await;
    sqlx::raw_sql(CLICKS_OF_MANY_HOURS).execute(&tracker.pool).await.unwrap();
    let full = pages(&tracker, "/clicks?cid=gone&limit=500").await;
    assert_eq!(full, [(500, true), (500, true), (500, true), (500, true), (420, false)]);
    // by hand, all of five hours and of one all but one
    let delete = "
        DELETE FROM clicks WHERE created_at >= date_trunc('hour', now(), 'UTC') - interval '6 hours'
            AND created_at < date_trunc('hour', now(), 'UTC') - interval '1 hour';
        DELETE FROM clicks WHERE created_at < date_trunc('hour', now(), 'UTC') - interval '6 hours' - interval '50 seconds'
            AND created_at >= date_trunc('hour', now(), 'UTC') - interval '7 hours'";
    sqlx::raw_sql(delete).execute(&tracker.pool).await.unwrap();
    let left = Table::Clicks.count(&tracker.pool).await.unwrap();
    let found: usize = pages(&tracker, "/clicks?cid=gone&limit=50").await.iter().map(|(rows, _)| rows).sum();
    assert_eq!(i64::try_from(found).unwrap(), left);
    // all of alice: 40 hours whose figures still promise 2,400 clicks
    let erased = tracker.octo.run(&["privacy", "erase", "--sub", "sub1=alice"]).await;
    assert!(erased.status.success(), "{}", String::from_utf8_lossy(&erased.stderr));
    for (list, wanted) in [
        ("/clicks?cid=gone&limit=500", [(20, false)].as_slice()),
        ("/clicks?cid=gone&limit=50", &[(20, false)]),
        ("/clicks?cid=gone", &[(20, false)]),
        ("/clicks?cid=gone&limit=15", &[(15, true), (5, false)]),
        ("/clicks?cid=gone&limit=20", &[(20, false)]),
        ("/clicks?cid=gone&limit=7&is_valid=true", &[(7, true), (3, false)]),
        ("/clicks?cid=gone&limit=50&is_valid=false", &[(10, false)]),
    ] {
        assert_eq!(pages(&tracker, list).await, wanted, "{list}");
    }
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_cut_short_and_goes_on_with_its_cursor() {
    let tracker = Tracker::start_with("api_cut_short", |b| b.env("OCTO_API__LIST_TIME_MAX_MS", "0")).await;
    tracker.simple_campaign("gone").await;
    sqlx::raw_sql(CLICKS_OF_MANY_HOURS).execute(&tracker.pool).await.unwrap();
    sqlx::raw_sql("DELETE FROM clicks WHERE sub1 = 'alice'").execute(&tracker.pool).await.unwrap();
    for list in ["/clicks?cid=gone&limit=50", "/clicks?cid=gone&limit=500&is_valid=false"] {
        let pages = pages(&tracker, list).await;
        let found: usize = pages.iter().map(|(rows, _)| rows).sum();
        println!("{list}: {} pages", pages.len());
        assert_eq!(found, if list.contains("is_valid") { 10 } else { 20 }, "{pages:?}");
        assert!(pages.len() > 2 && pages.contains(&(0, true)) && !pages.last().unwrap().1, "{pages:?}");
    }
}

/// Every list that takes a cursor.
const LISTS: [&str; 8] = [
    "/campaigns?limit=1",
    "/tokens?limit=1",
    "/clicks?limit=1",
    "/clicks?cid=cursors&limit=1",
    "/clicks?cid=cursors&is_valid=true",
    "/events?limit=1",
    "/events?click_id=019aaf3c-5f00-7abc-8def-0123456789ab",
    "/dead-letters?limit=1",
];

#[tokio::test]
async fn a_tampered_cursor_is_refused_by_every_list() {
    let tracker = Tracker::start("api_cursors").await;
    tracker.simple_campaign("cursors").await;
    tracker.click("/c/cursors").await;
    let id = "f".repeat(32);
    let tampered = [
        format!("a800000000000000{id}"), // 198,000 years ago
        format!("7fffffffffffffff{id}"),
        format!("8000000000000000{id}"),
        format!("6fffffffffffffff{id}"),
        format!("ff00000000000000{id}"), // before the year 1
        format!("0400000000000000{id}"), // after the year 10889
        format!("ffffffffffffffff{}", "g".repeat(32)),
        format!("+000000000000000{id}"),
        "ffffffffffffffff".to_owned(), // a number below 0
        "x".to_owned(),
        "%00".to_owned(),
        "%F0%9F%90%99".repeat(12),
        "0".repeat(15),
        "0".repeat(49),
        format!("{id}-"),
        "-1".to_owned(),
    ];
    for list in LISTS {
        for cursor in &tampered {
            let (status, body) = answer(tracker.api(Method::GET, &format!("{list}&cursor={cursor}"))).await;
            assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_cursor")), "{list} {cursor}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_cursor_is_an_error_of_ours() {
    let tracker = Tracker::start("api_cursor_fuzz").await;
    tracker.simple_campaign("cursors").await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for round in 0..600 {
        // half of them of the form of one, the rest anything
        let (digits, bytes) = ([16, 32, 48][random.usize(..3)], random.usize(..60));
        let hex: String = (0..digits).map(|_| random.digit(16)).collect();
        let bytes: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
        let any: String = url::form_urlencoded::byte_serialize(&bytes).collect();
        let cursor = if round % 2 == 0 { &hex } else { &any };
        let list = LISTS[round % LISTS.len()];
        let (status, body) = answer(tracker.api(Method::GET, &format!("{list}&cursor={cursor}"))).await;
        *statuses.entry(status.as_u16()).or_default() += 1;
        assert!([200, 400].contains(&status.as_u16()), "seed {seed}: {list} {cursor}: {status} {body}");
    }
    println!("{statuses:?}");
    assert!(statuses[&400] > 100 && statuses[&200] >= 10, "{statuses:?}");
}
