//! What Prometheus makes of octo: `/metrics`, the alert rules, the dashboard, and the real Prometheus.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use octo::db::{self, Statement};
use regex::Regex;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Executor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    files::alerts::alerts,
    harness::{Database, Octo, PrivatePostgres, Prometheus, eventually, prometheus_config, promtool},
    tracker::{SOON, Table, Tracker, header},
};

const SERIES_MAX: usize = 5000;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "BREW"];
/// Refused by the router, by hyper, and by nobody.
const HEADS: [&str; 4] = [
    "GET /\"<> HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    "GET / HTTP/9.9\r\n\r\n",
    "\r\n\r\nnonsense\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
];
/// Records with this text are dead letters.
const REFUSE_POISON: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sub1 = 'poison' THEN RAISE EXCEPTION 'poison' USING ERRCODE = '22003'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON clicks FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.event_name = 'poison' THEN RAISE EXCEPTION 'poison' USING ERRCODE = '22003'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse_event();";

/// The lines that are samples.
fn series(metrics: &str) -> Vec<&str> {
    metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
}

/// The names after `# TYPE`, each of which must have a help text.
fn families(metrics: &str) -> HashSet<&str> {
    let names = |comment: &'static str| {
        metrics.lines().filter_map(move |line| line.strip_prefix(comment)?.split(' ').next())
    };
    let helped: HashSet<&str> = names("# HELP ").collect();
    names("# TYPE ").inspect(|name| assert!(helped.contains(name), "{name} has no help text")).collect()
}

/// An octo with replicas and Redis of which everything was asked: each operation of the API document, answered well,
/// badly and not at all for want of a token, links, events, dead letters and their repair, and strangers' nonsense.
async fn tour(name: &str) -> Tracker {
    let database = Database::create(name).await;
    // patient: what runs into a time-out on a busy machine is counted as a series that strangers did not make
    let builder = Octo::builder()
        .database(&database)
        .env("OCTO_DATABASE__STATISTICS_INTERVAL_S", "1")
        .env("OCTO_DATABASE__ACQUIRE_TIMEOUT_MS", "20000")
        .env("OCTO_DATABASE__STATEMENT_TIMEOUT_MS", "20000")
        .env("OCTO_DATABASE__SLOW_QUERY_MS", "20000")
        .env("OCTO_CACHE__MISS_TIMEOUT_MS", "20000")
        .env("OCTO_REDIS__COMMAND_TIMEOUT_MS", "20000")
        .env("OCTO_PRIVACY__RETENTION_DAYS", "3000");
    let octo = builder.start().await;
    let token = octo.admin_token().await;
    let tracker = Tracker { pool: database.pool().await, octo, token, database };
    tracker.pool.execute(REFUSE_POISON).await.unwrap();
    tour_links_and_events(&tracker).await;
    tour_letters(&tracker).await;
    tour_api(&tracker).await;
    tour_objects(&tracker).await;
    tour_library(&tracker).await;
    tour_money(&tracker).await;
    tour_strangers(&tracker).await;
    // what was stored is sent again
    tracker.pool.execute("UPDATE ingest_watermark SET seq = 0").await.unwrap();
    eventually(Duration::from_secs(30), async || {
        let metrics = tracker.octo.metrics().await;
        ensure!(metrics.contains("query=\"ingest.find_stored\""), "nothing was sent again yet");
        Ok(())
    })
    .await;
    eventually(SOON, async || {
        let metrics = tracker.octo.metrics().await;
        ensure!(metrics.contains("octo_db_table_bytes{"), "the statistics were not read yet");
        // what was just written is read from the primary; a moment later the replicas have their turn
        tracker.api(Method::GET, "/campaigns").send().await?;
        for pool in ["replica0", "replica1"] {
            let acquired = format!("octo_db_pool_acquire_duration_seconds_count{{pool=\"{pool}\"}}");
            ensure!(metrics.contains(&acquired), "{pool} was not read from yet");
        }
        Ok(())
    })
    .await;
    tracker
}

/// Postbacks of every fate, what is made of them, who is told, and what clicks cost.
async fn tour_money(tracker: &Tracker) {
    let post = async |path: &str, body: Value| -> Value {
        let request = tracker.api(Method::POST, path).header("idempotency-key", path).json(&body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap_or_default()
    };
    let network =
        post("/affiliate-networks", json!({ "name": "money", "postback_key": "tour-of-money" })).await;
    let hook = json!({ "name": "hook", "kind": "webhook", "url": "https://127.0.0.1:1/" });
    let target = post("/postback-targets", hook).await;
    let target_path = format!("/postback-targets/{}", target["id"]);
    let renamed = tracker.api(Method::PATCH, &target_path).json(&json!({ "name": "hooks" }));
    assert_eq!(renamed.send().await.unwrap().status(), 200);
    tracker.show(&target_path).await;
    for turn in ["pause", "resume", "secret"] {
        post(&format!("{target_path}/{turn}"), json!({})).await;
    }
    let (_, click) = tracker.click("/click?cid=demo&cost=1&currency=USD").await;
    let (_, of_page) = tracker.click("/c/page").await;
    let early = octo::model::id::ClickId::now();
    for query in [
        format!("cid={click}&payout=2&status=sale"),
        format!("cid={of_page}&status=odd"),
        format!("cid={early}"),
        format!("zz={click}&txid=z"),
    ] {
        let path = format!("/postback/tour-of-money?{query}");
        eventually(SOON, async || {
            let status = tracker.octo.get(&path).await.status();
            ensure!(status == 200, "{path}: {status}");
            Ok(())
        })
        .await;
    }
    let conversions = eventually(SOON, async || {
        let page = tracker.show("/conversions").await;
        ensure!(page["data"].as_array().unwrap().len() == 2, "{page}");
        ensure!(tracker.show("/postbacks?outcome=waiting").await["data"][0]["id"].is_string(), "none waits");
        Ok(page)
    });
    let conversions = conversions.await;
    tracker.click("/click?cid=demo").await; // one that nothing waits for, while something does
    tracker.show(&format!("/conversions/{}", conversions["data"][0]["id"].as_str().unwrap())).await;
    tracker.show(&format!("/clicks/{click}/story")).await;
    let map = json!({ "status_map": [{ "word": "odd", "status": "ignored" }],
                      "postback_parameters": [{ "field": "click_id", "name": "zz" }] });
    let path = format!("/affiliate-networks/{}", network["id"]);
    assert_eq!(tracker.api(Method::PATCH, &path).json(&map).send().await.unwrap().status(), 200);
    let replay = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "dry_run": false });
    let replayed = post("/postbacks/replay", replay).await;
    assert_eq!((&replayed["clicks_found"], &replayed["judged_anew"]), (&json!(1), &json!(2)), "{replayed}");

    let delivery = eventually(SOON, async || {
        let page = tracker.show("/deliveries").await;
        ensure!(page["data"][0]["attempts"].as_i64() > Some(0), "{page}");
        Ok(page["data"][0].clone())
    });
    let delivery = delivery.await;
    tracker.show(&format!("/deliveries/{}", delivery["id"].as_str().unwrap())).await;
    for dry_run in [true, false] {
        let body = json!({ "target_id": target["id"], "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z",
                           "states": ["dead"], "dry_run": dry_run });
        let request = tracker.api(Method::POST, "/deliveries/replay").json(&body);
        assert!(request.send().await.unwrap().status().is_success(), "{body}");
    }
    let cost = json!({ "campaign": "demo", "from": "2026-11-01T00:00:00Z",
                       "to": "2026-11-01T01:00:00Z", "kind": "total", "amount": "1", "currency": "USD",
                       "filters": { "country": ["DE"] } });
    post("/costs", cost).await;
    let total = json!({ "campaign": "demo", "kind": "total", "amount": "1", "currency": "USD",
                        "running_total": { "account": "a", "external_id": "b", "day": "2026-11-01" } });
    for key in ["one", "two"] {
        let request = tracker.api(Method::POST, "/costs").header("idempotency-key", key).json(&total);
        let response = request.send().await.unwrap();
        let status = response.status();
        assert!(status.is_success(), "{status}: {}", response.text().await.unwrap());
    }
    let price = json!({ "cost_model": "cpa", "cost": { "amount": "1", "currency": "USD" } });
    let priced = tracker.api(Method::PATCH, "/campaigns/demo").json(&price);
    assert_eq!(priced.send().await.unwrap().status(), 200);
    let (from, to) = (Utc::now() - TimeDelta::days(1), Utc::now() + TimeDelta::days(1));
    let hour = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:00:00Z").to_string();
    tracker.show(&format!("/campaigns/demo/costs?from={}&to={}", hour(from), hour(to))).await;
    tracker.show("/campaigns/demo/costs?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z").await;
    let deleted = tracker.api(Method::DELETE, &target_path).send().await.unwrap().status();
    assert_eq!(deleted, 204);
}

async fn tour_links_and_events(tracker: &Tracker) {
    let octo = &tracker.octo;
    tracker.simple_campaign("demo").await;
    tracker.campaign(json!({ "key": "paused", "name": "p", "status": "paused" })).await;
    let caps = json!([{ "of": "clicks", "limit": 1, "per": "day" }]);
    tracker.campaign(json!({ "key": "capped", "name": "c", "status": "paused", "caps": caps })).await;
    tracker.show("/campaigns/capped/caps").await;
    for path in
        ["/click?cid=demo", "/c/demo?sub1=a", "/click?cid=demo&sub1=poison", "/click?cid=demo&sub1=poison"]
    {
        tracker.click(path).await;
    }
    let page = json!([{ "name": "p", "url": "https://page.example/?k={click_token}" }]);
    let offers = json!([{ "name": "o", "url": "https://offer.example/" }]);
    tracker.campaign(json!({ "key": "page", "name": "p", "landing_pages": page, "offers": offers })).await;
    let (page, id) = tracker.click("/c/page").await;
    let token = header(&page, "location").split_once("k=").expect("a token").1.to_owned();
    assert_eq!(octo.get(&format!("/out?k={token}")).await.status(), 302);
    tracker.show(&format!("/out-clicks?click_id={id}")).await;
    for (path, status) in
        [("/click?cid=nobody", 404), ("/c/nobody", 404), ("/click", 400), ("/c/paused", 404)]
    {
        assert_eq!(octo.get(path).await.status(), status, "{path}");
    }
    for path in [
        "/click?cid=demo",
        "/c/demo",
        "/event",
        "/events",
        "/event.gif",
        "/livez",
        "/readyz",
        "/readyz/redirect",
        "/health",
        "/metrics",
    ] {
        for method in METHODS {
            octo.client().request(method.parse().unwrap(), octo.url(path)).send().await.unwrap();
        }
    }
    let event = json!({ "event_type": "purchase", "cid": "demo", "event_id": uuid::Uuid::now_v7() });
    for (path, body, status) in [
        ("/event", event.clone(), 202),
        ("/event", event.clone(), 202),
        ("/event", json!({}), 422),
        ("/events", json!([event, {}]), 202),
    ] {
        let answer = octo.client().post(octo.url(path)).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path} {body}");
    }
    octo.client().post(octo.url("/event")).body("{").send().await.unwrap();
    octo.get("/event.gif?event_type=view&cid=demo").await;
    octo.get("/event.gif?event_type=view&cid=demo&event_name=poison").await;
    tracker.wait_rows(Table::DeadLetters, 3).await;
}

async fn tour_letters(tracker: &Tracker) {
    let letters: Vec<(uuid::Uuid, i64)> = sqlx::query_as("SELECT stream, seq FROM dead_letters ORDER BY seq")
        .fetch_all(&tracker.pool)
        .await
        .unwrap();
    let path = |i: usize| format!("/dead-letters/{}/{}", letters[i].0, letters[i].1);
    let retry = |i: usize| tracker.api(Method::POST, &format!("{}/retry", path(i))).send();
    assert_eq!(tracker.api(Method::GET, &path(0)).send().await.unwrap().status(), 200);
    assert_eq!(retry(0).await.unwrap().status(), 409, "it is poison still");
    assert_eq!(tracker.api(Method::POST, "/dead-letters/retry").send().await.unwrap().status(), 200);
    assert_eq!(tracker.api(Method::DELETE, &path(1)).send().await.unwrap().status(), 204);
    tracker.pool.execute("DROP TRIGGER refuse ON clicks; DROP TRIGGER refuse ON events").await.unwrap();
    assert_eq!(retry(0).await.unwrap().status(), 200);
    assert_eq!(retry(2).await.unwrap().status(), 200);
}

/// Requests with an `Idempotency-Key`: run, answered again, refused, and failed on our side.
async fn tour_keys(tracker: &Tracker) {
    let post = async |key: &str, body: Value| {
        let request = tracker.api(Method::POST, "/campaigns").header("idempotency-key", key);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("run", json!({ "name": "n" })).await, 201);
    assert_eq!(post("run", json!({ "name": "n" })).await, 201);
    assert_eq!(post("refused", json!({})).await, 422);
    let fail = "
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose' USING ERRCODE = 'XX000'; END $$;
        CREATE TRIGGER fail BEFORE INSERT ON campaigns FOR EACH ROW EXECUTE FUNCTION fail()";
    tracker.pool.execute(sqlx::raw_sql(fail)).await.unwrap();
    assert_eq!(post("failed", json!({ "name": "n" })).await, 500);
    tracker.pool.execute("DROP TRIGGER fail ON campaigns").await.unwrap();
    assert_eq!(post("failed", json!({ "name": "n" })).await, 201, "at once, and once");
}

/// Every operation of the document, also those that are not known here: with an id of nobody, with and without a body and
/// a token.
async fn tour_api(tracker: &Tracker) {
    let octo = &tracker.octo;
    for operation in octo.operations().await {
        let (method, path) = (&operation.method, operation.path());
        let request = || octo.client().request(method.clone(), octo.url(&path));
        request().send().await.unwrap();
        request().bearer_auth(&tracker.token).send().await.unwrap();
        if method == Method::GET {
            octo.client().head(octo.url(&path)).send().await.unwrap();
        } else {
            request().bearer_auth(&tracker.token).json(&json!({ "name": 7 })).send().await.unwrap();
        }
        octo.client().request("BREW".parse().unwrap(), octo.url(&path)).send().await.unwrap();
    }
}

/// Real objects, so that every query finds something.
async fn tour_objects(tracker: &Tracker) {
    let (_, click) = tracker.click("/click?cid=demo").await;
    tracker.wait_rows(Table::Clicks, 8).await; // POST is a click, too
    let campaign = tracker.simple_campaign("second").await;
    let id = campaign["id"].as_str().unwrap();
    let rate = |rate: &str| json!({ "rates": [{ "currency": "UAH", "day": "2026-10-01", "rate": rate }] });
    let calls = [
        (Method::GET, "/campaigns/demo".to_owned(), None),
        (Method::GET, format!("/campaigns/{id}"), None),
        (
            Method::PATCH,
            format!("/campaigns/{id}"),
            Some(json!({ "name": "new", "offers": [], "landing_pages": [] })),
        ),
        (Method::POST, format!("/campaigns/{id}/pause"), None),
        (Method::POST, format!("/campaigns/{id}/resume"), None),
        (Method::POST, "/campaigns".to_owned(), Some(json!({ "key": "second", "name": "taken" }))),
        (
            Method::GET,
            "/campaigns/demo/stats?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&group_by=hour"
                .to_owned(),
            None,
        ),
        (
            Method::GET,
            "/campaigns/demo/stats?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&group_by=day".to_owned(),
            None,
        ),
        (Method::DELETE, format!("/campaigns/{id}"), None),
        (Method::GET, format!("/clicks/{click}"), None),
        (
            Method::PATCH,
            format!("/clicks/{click}"),
            Some(json!({ "is_valid": false, "invalid_reason": "fraud" })),
        ),
        (Method::POST, "/events".to_owned(), Some(json!({ "event_type": "view", "cid": "demo" }))),
        (Method::GET, "/clicks?cid=demo".to_owned(), None),
        (Method::GET, format!("/events?click_id={click}"), None),
        (Method::GET, "/events".to_owned(), None),
        (Method::PUT, "/fx-rates".to_owned(), Some(rate("48"))),
        (Method::PUT, "/fx-rates".to_owned(), Some(rate("49"))),
        (Method::GET, "/fx-rates?currency=UAH".to_owned(), None),
        (Method::GET, "/fx-rates/restatements".to_owned(), None),
        (Method::POST, "/tokens".to_owned(), Some(json!({ "scope": "read", "name": "tour" }))),
    ];
    for (method, path, body) in calls {
        let mut request = tracker.api(method, &path);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().as_u16() < 500, "{path}: {}", answer.text().await.unwrap());
    }
    let tokens: Value = tracker.api(Method::GET, "/tokens").send().await.unwrap().json().await.unwrap();
    let token = tokens["data"].as_array().unwrap().iter().find(|token| token["name"] == "tour").unwrap();
    let path = format!("/tokens/{}", token["id"].as_str().unwrap());
    assert_eq!(tracker.api(Method::DELETE, &path).send().await.unwrap().status(), 204);
}

/// The library: made, changed, used, refused and deleted.
async fn tour_library(tracker: &Tracker) {
    let ask = async |method: Method, path: &str, body: Value, status: u16| -> Value {
        let answer = tracker.api(method, path).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        answer.json().await.unwrap_or_default()
    };
    let url = "https://offer.example/";
    let mut ids = Vec::new();
    for (noun, body) in [
        ("/traffic-sources", json!({ "template": "mgid" })),
        ("/affiliate-networks", json!({ "template": "affise" })),
        ("/landing-pages", json!({ "name": "p", "url": url })),
        ("/offers", json!({ "name": "o", "url": url })),
        ("/offers", json!({ "name": "o", "url": url })),
    ] {
        ids.push(ask(Method::POST, noun, body, 201).await["id"].clone());
    }
    let [source, network, page, first, second] = ids.try_into().unwrap();
    let leads = json!({ "overflow_offer_id": second, "affiliate_network_id": network });
    ask(Method::PATCH, &format!("/offers/{first}"), leads, 200).await;
    let campaign = json!({
        "key": "library", "name": "l", "traffic_source_id": source,
        "landing_pages": [{ "library": true, "id": page }], "offers": [{ "library": true, "id": first }],
    });
    ask(Method::POST, "/campaigns", campaign, 201).await;
    tracker.click("/c/library").await;
    tracker.wait_rows(Table::Clicks, 9).await;
    let things = [
        format!("/traffic-sources/{source}"),
        format!("/landing-pages/{page}"),
        format!("/offers/{first}"),
        format!("/offers/{second}"),
        format!("/affiliate-networks/{network}"),
    ];
    for thing in &things {
        ask(Method::PATCH, thing, json!({ "name": "new" }), 200).await;
        ask(Method::GET, &format!("{thing}/campaigns"), json!({}), 200).await;
        ask(Method::DELETE, thing, json!({}), 409).await;
    }
    ask(Method::GET, "/campaigns/library/links", json!({}), 200).await;
    ask(Method::DELETE, "/campaigns/library", json!({}), 204).await;
    for thing in &things {
        ask(Method::DELETE, thing, json!({}), 204).await;
    }
}

async fn tour_strangers(tracker: &Tracker) {
    let octo = &tracker.octo;
    for method in METHODS {
        octo.client().request(method.parse().unwrap(), octo.url("/wp-login.php")).send().await.unwrap();
    }
    for head in HEADS {
        ask_raw(octo.addr(), head).await;
    }
}

/// Sends a request on a connection of its own, and reads until octo closes it.
async fn ask_raw(address: SocketAddr, request: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // a reset ends it too
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn promtool_finds_nothing_to_criticise_in_the_metrics() {
    let tracker = tour("prom_lint").await;
    let metrics = tracker.octo.metrics().await;
    let output = promtool(&["check", "metrics"], &metrics).await;
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    let bad = promtool(&["check", "metrics"], "# TYPE octo_bad counter\nocto_bad 1\n").await;
    assert!(said(&bad).contains("octo_bad"), "the check itself works: {}", said(&bad));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_everything_there_are_few_series_and_ten_thousand_strangers_add_none() {
    let tracker = tour("prom_series").await;
    let metrics = tracker.octo.metrics().await;
    let before = series(&metrics);
    if before.len() > SERIES_MAX {
        let mut by_family = BTreeMap::<&str, usize>::new();
        for line in &before {
            *by_family.entry(line.split(['{', ' ']).next().unwrap()).or_default() += 1;
        }
        panic!("{} series: {by_family:#?}", before.len());
    }
    let names = |metrics: &str| -> BTreeSet<String> {
        series(metrics).into_iter().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    let requests = (0..10_000_usize).map(|i| {
        let line = match i % 10 {
            0 => return HEADS[i / 10 % HEADS.len()].to_owned(),
            1 => format!("M{i} /click?cid={i}"),
            2 => format!("GET /c/{i}"),
            3 => format!("{} /api/v1/campaigns/{i}", METHODS[i / 10 % METHODS.len()]),
            4 => format!("GET /api/v1/clicks/{i}"),
            n => format!("{} /{:x}/{i}", METHODS[i % METHODS.len()], i * n),
        };
        format!("{line} HTTP/1.1\r\nHost: {i}\r\nConnection: close\r\n\r\n")
    });
    let address = tracker.octo.addr();
    let asked =
        stream::iter(requests).for_each_concurrent(16, async |request| ask_raw(address, &request).await);
    asked.await;
    let after = tracker.octo.metrics().await;
    let new: Vec<String> = names(&after).difference(&names(&metrics)).cloned().collect();
    assert!(new.is_empty(), "{} new series: {new:#?}", new.len());
    println!("{} series, {} bytes", before.len(), after.len());
}

/// The queries an octo has run, as `/system/queries` and `/metrics` agree.
async fn queries_seen(octo: &Octo, token: &str) -> BTreeSet<String> {
    let listed = octo.api(token).get("/system/queries").send().await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    let data = listed["data"].as_array().unwrap();
    for name in db::statements().map(Statement::name) {
        assert!(data.iter().any(|query| query["query"] == name), "{name} is not in /system/queries");
    }
    let ran = data.iter().filter(|query| query["count"].as_u64().unwrap() > 0);
    let ran: BTreeSet<String> = ran.map(|query| query["query"].as_str().unwrap().to_owned()).collect();
    let metrics = octo.metrics().await;
    let counts =
        metrics.lines().filter_map(|l| l.strip_prefix("octo_db_query_duration_seconds_count{query=\""));
    let counted: BTreeSet<String> = counts.map(|l| l.split('"').next().unwrap().to_owned()).collect();
    // between the two questions a background task may have run its first query
    assert!(ran.is_subset(&counted), "listed and not in /metrics: {:?}", ran.difference(&counted));
    ran
}

/// Run by `octo privacy`, `octo relabel`, `octo reports`, `octo demo` and `octo sign-in-link` alone, which have no `/metrics`;
/// `erasure`, `relabel`, `recounts`, `edge::demo` and `dashboard::sessions` test them.
const OF_THE_COMMAND_LINE: [&str; 50] = [
    "click.list_of_ids",
    "demo.delete_affiliate_networks",
    "demo.delete_campaign_costs",
    "demo.delete_campaign_prices",
    "demo.delete_campaign_stats",
    "demo.delete_campaigns",
    "demo.delete_clicks",
    "demo.delete_conversion_changes",
    "demo.delete_conversion_clicks",
    "demo.delete_conversions",
    "demo.delete_cost_adjustments",
    "demo.delete_deliveries",
    "demo.delete_delivery_attempts",
    "demo.delete_events",
    "demo.delete_landing_pages",
    "demo.delete_offers",
    "demo.delete_out_click_keys",
    "demo.delete_out_click_legs",
    "demo.delete_out_clicks",
    "demo.delete_postbacks",
    "demo.delete_report_values",
    "demo.delete_source_stats",
    "demo.delete_traffic_sources",
    "demo.delete_watermark",
    "demo.since",
    "erasures.delete_clicks",
    "erasures.delete_events",
    "erasures.delete_events_of_person",
    "erasures.delete_letters",
    "erasures.delete_out_click_keys",
    "erasures.delete_out_click_legs",
    "erasures.delete_out_clicks",
    "erasures.delete_postbacks",
    "erasures.find_clicks",
    "erasures.forget_values",
    "erasures.insert",
    "erasures.letters",
    "erasures.lock",
    "erasures.note_gone",
    "event.list_of_clicks",
    "event.list_of_person",
    "figures.ask_recount",
    "out_click.list_of_clicks",
    "postback.list_of_clicks",
    "relabel.hours",
    "relabel.page",
    "relabel.update",
    "sign_in_link.insert",
    "sign_in_link.sweep",
    "transfer.inspect",
];

/// Statements of questions that the tour does not ask: they run in `api::{reconciliation, report_costs, report_exports, reports}`, those
/// of sessions in `dashboard::{sessions, settings}`, those of uses in `dashboard::library`.
const OF_OTHER_QUESTIONS: [&str; 35] = [
    "reconciliation.find_clicks",
    "reconciliation.list_changes",
    "reconciliation.list_lost",
    "reconciliation.list_of_clicks",
    "reconciliation.list_of_range",
    "reconciliation.list_told",
    "report_costs.earned",
    "report_costs.of_days",
    "report_costs.of_deltas",
    "report_costs.of_dimensions",
    "report_costs.of_facts",
    "report_costs.of_hours",
    "report_exports.delete",
    "report_exports.finish",
    "report_exports.hand_over",
    "report_exports.insert",
    "report_exports.renew",
    "reports.of_days",
    "reports.of_dimensions",
    "reports.of_parts",
    "reports.of_traffic",
    "session.end",
    "session.end_one",
    "session.end_others",
    "session.find",
    "session.insert",
    "session.list",
    "session.redeem",
    "session.sweep",
    "session.touch",
    "stream.set",
    "use.of_affiliate_networks",
    "use.of_landing_pages",
    "use.of_offers",
    "use.of_traffic_sources",
];

/// Run where something is old, came from elsewhere, was refused, is too big or changes its mind; `partitions`, `cache`,
/// `erasure`, `conversions`, `out`, `recounts` and `top_values` test them.
const OF_RARE_DAYS: [&str; 20] = [
    "figures.count_values",
    "figures.lost_days",
    "figures.next_value_day",
    "figures.note_value_days",
    "figures.recount",
    "reports.count_others",
    "reports.of_values",
    "reports.value_days",
    "retention.note",
    "conversions.update_batch",
    "conversions.let_wait",
    "conversions.reopen_clicks",
    "conversions.set_stored",
    "dead_letter.has_postback",
    "campaign.heal",
    "dead_letter.has_out_click",
    "erasures.since",
    "partitions.check_default",
    "partitions.drop",
    "partitions.exclude",
];

/// What the tour does not meet is met by an octo that makes its schema on one of several hosts, without prepared
/// statements, and by one with the embedded database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_code_is_seen_in_the_list_and_in_the_metrics() {
    let tracker = tour("prom_queries").await;
    tracker.api(Method::GET, "/dead-letters?limit=1").send().await.unwrap();
    tour_keys(&tracker).await;
    let mut seen = queries_seen(&tracker.octo, &tracker.token).await;

    let empty = PrivatePostgres::start().await;
    let (head, tail) = empty.url().split_once('@').map(|(h, t)| (h.to_owned(), t.to_owned())).unwrap();
    let twice = format!("{head}@{},{tail}", tail.split('/').next().unwrap());
    let unnamed = Octo::builder()
        .database_url(&twice)
        .env("OCTO_DATABASE__PREPARED_STATEMENTS", "false")
        .env("OCTO_PRIVACY__IP_MODE", "hash")
        .env("OCTO_DATABASE__DIRECT_URL", &twice)
        .env("OCTO_MONEY__BUILT_IN_RATES", "true")
        .start()
        .await;
    let token = unnamed.admin_token().await;
    unnamed.get("/event.gif?event_type=view&cid=nobody").await;
    let seen_there = eventually(SOON, async || {
        let seen = queries_seen(&unnamed, &token).await;
        ensure!(seen.contains("fx_rate.fill"), "the housekeeping has not begun");
        Ok(seen)
    });
    seen.extend(seen_there.await);

    let embedded = Octo::builder().start().await;
    let token = fs::read_to_string(embedded.data_dir().join("admin-token")).unwrap();
    seen.extend(queries_seen(&embedded, token.trim()).await);

    let known: BTreeSet<String> = db::statements().map(|s| s.name().to_owned()).collect();
    seen.extend(OF_THE_COMMAND_LINE.map(str::to_owned));
    seen.extend(OF_RARE_DAYS.map(str::to_owned));
    seen.extend(OF_OTHER_QUESTIONS.map(str::to_owned));
    let never: Vec<&String> = known.difference(&seen).collect();
    assert!(never.is_empty(), "{} of {} queries were never seen: {never:?}", never.len(), known.len());
    println!("{} queries in the code, each in /system/queries and in /metrics", known.len());
}

/// A bound that only catches what is wrong by an order of magnitude: this is a debug build on a busy machine.
#[tokio::test]
async fn a_scrape_after_everything_is_quick() {
    let tracker = tour("prom_scrape").await;
    let client = tracker.octo.client();
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        client.get(tracker.octo.url("/metrics")).send().await.unwrap().bytes().await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("median {:?}, longest {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(500), "{times:?}");
}

#[tokio::test]
async fn the_rules_and_their_tests_pass() {
    for args in [
        &["check", "rules", "alerts.yml"][..],
        &["check", "config", "prometheus.yml"],
        &["test", "rules", "alerts_test.yml", "alerts_long_test.yml"],
    ] {
        let output = promtool(args, "").await;
        assert!(output.status.success(), "promtool {}: {}", args.join(" "), said(&output));
    }
}

/// Every text under one of these keys.
fn texts(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| match value {
            Value::String(text) if keys.contains(&key.as_str()) => found.push(text.clone()),
            _ => texts(value, keys, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| texts(item, keys, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_named_in_rules_and_dashboard_is_one_of_octos() {
    let mut expressions = Vec::new();
    let rules: Value =
        serde_norway::from_str(&fs::read_to_string(prometheus_config().join("alerts.yml")).unwrap()).unwrap();
    texts(&rules, &["expr"], &mut expressions);
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana/octo.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(dashboard).unwrap()).unwrap();
    texts(&dashboard, &["expr", "query", "definition"], &mut expressions);
    let name = Regex::new(r"\b(?:octo|process|tokio)_[a-z0-9_]+").unwrap();
    let named: BTreeSet<&str> =
        expressions.iter().flat_map(|e| name.find_iter(e)).map(|m| m.as_str()).collect();
    assert!(named.len() > 40, "{named:?}");

    let tracker = tour("prom_names").await;
    let metrics = tracker.octo.metrics().await;
    let families = families(&metrics);
    let is_known = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
        families.contains(name) || parts.into_iter().any(|base| families.contains(base))
    };
    let unknown: Vec<&&str> = named.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not in /metrics");
    assert!(!is_known("octo_no_such_metric"), "the check itself works");
    let recorded = Regex::new(r"\bocto:[a-z0-9_:]+").unwrap();
    let mut records = Vec::new();
    texts(&rules, &["record"], &mut records);
    for used in expressions.iter().flat_map(|e| recorded.find_iter(e)) {
        assert!(records.iter().any(|record| record == used.as_str()), "no rule records {}", used.as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_octo_answers_queries_and_takes_the_rules() {
    let tracker = Tracker::start("prom_real").await;
    tracker.simple_campaign("demo").await;
    let prometheus = Prometheus::start(tracker.octo.addr()).await;
    eventually(SOON, async || {
        let version = prometheus.value("octo_build_info").await?;
        ensure!((version - 1.0).abs() < f64::EPSILON, "{version}");
        Ok(())
    })
    .await;
    // the clicks need a scrape before and some after them
    for _ in 0..50 {
        tracker.click("/click?cid=demo").await;
    }
    eventually(Duration::from_secs(30), async || {
        let clicks = prometheus.value("octo_clicks_total{outcome=\"redirected\"}").await?;
        let rate = prometheus.value("sum(rate(octo_clicks_total[1m]))").await?;
        let ratio = prometheus.value("octo:click_errors:ratio_rate5m").await?;
        ensure!(
            clicks >= 50.0 && rate > 0.0 && ratio == 0.0,
            "{clicks} clicks, {rate}/s, {ratio} of them failed"
        );
        Ok(())
    })
    .await;
    for query in [
        "octo_disk_free_bytes > 0 and octo_disk_free_bytes <= octo_disk_size_bytes",
        "tokio_workers > 0",
        "tokio_alive_tasks > 5",
    ] {
        let value = prometheus.value(query).await;
        assert!(value.is_ok(), "{query}: {value:?}");
    }
    let data = prometheus.api("/rules", &[]).await.unwrap();
    let groups = data["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > alerts().len(), "{data}");
    for rule in rules {
        assert!(rule["lastError"].is_null() && rule["health"] != "err", "{rule}");
    }
    let firing = prometheus.api("/alerts", &[]).await.unwrap();
    assert_eq!(firing["alerts"], json!([]), "a healthy octo wakes nobody");
}
