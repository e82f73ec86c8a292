//! `/click` and `/c/KEY`: the contract of a redirect.

use std::collections::BTreeMap;

use octo::model::click::Adjusted;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::Row;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, eventually},
    records::{click, encode_click, write_journal},
    tracker::{OFFER, SOON, Table, Tracker, header},
};

/// A whole request as bytes; the status line and everything else of the answer.
async fn raw(tracker: &Tracker, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(tracker.octo.addr()).await.expect("a connection");
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_click_is_redirected_with_our_id_and_stored_with_everything_the_link_said() {
    let tracker = Tracker::start("click_stored").await;
    let campaign = tracker.simple_campaign("summer").await;
    let query = "cid=summer&sub1=a%20b&sub2=two&sub5=f%C3%BCnf&click_id=src-1&aff_sub=x&aff_sub5=y&landing_page_id=7\
                 &traffic_source_id=fb&cost=0.125&currency=eur&sub1=late";
    let client = tracker.octo.client();
    let request = client
        .get(tracker.octo.url(&format!("/click?{query}")))
        .header("user-agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36")
        .header("referer", "https://ads.example/page?x=1");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::FOUND);
    let id = header(&response, "x-click-id");
    assert_eq!(header(&response, "location"), format!("https://offer.example/lp?cid={id}&s=a%20b#top"));
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(header(&response, "referrer-policy"), "no-referrer-when-downgrade");

    tracker.wait_rows(Table::Clicks, 1).await;
    let row = sqlx::query("SELECT *, host(ip_address) AS ip, id::text AS id_text, campaign_id::text AS campaign, cost::text AS cost_text FROM clicks")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    let text = |name: &str| row.get::<Option<String>, _>(name).unwrap_or_default();
    assert_eq!(text("id_text"), id);
    assert_eq!(text("campaign"), campaign["id"].as_str().unwrap());
    for (column, wanted) in [
        ("ip", "127.0.0.1"),
        ("sub1", "a b"),
        ("sub2", "two"),
        ("sub3", ""),
        ("sub5", "f\u{fc}nf"),
        ("click_id_param", "src-1"),
        ("affiliate_sub", "x"),
        ("affiliate_sub5", "y"),
        ("traffic_source_id", "fb"),
        ("cost_text", "0.125000"),
        ("currency", "EUR"),
        ("referrer", "https://ads.example/page?x=1"),
        ("device", "desktop"),
        ("os", "Windows"),
        ("browser", "Chrome"),
        ("invalid_reason", ""),
    ] {
        assert_eq!(text(column), wanted, "{column}");
    }
    assert_eq!(
        row.get::<Option<i64>, _>("landing_page_id"),
        Some(7),
        "kept although no page of this campaign"
    );
    assert_eq!(row.get::<Option<i64>, _>("campaign_offer_id"), campaign["offers"][0]["id"].as_i64());
    assert!(row.get::<bool, _>("is_valid") && !row.get::<bool, _>("is_bot"));
}

#[tokio::test]
async fn the_time_and_the_partition_of_a_click_come_from_its_id() {
    let tracker = Tracker::start("click_partition").await;
    tracker.simple_campaign("demo").await;
    let (_, id) = tracker.click("/c/demo?sub1=x").await;
    tracker.wait_rows(Table::Clicks, 1).await;
    let (table, ms): (String, i64) = sqlx::query_as(
        "SELECT tableoid::regclass::text, (extract(epoch FROM created_at) * 1000)::bigint FROM clicks",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
    assert_eq!(ms, i64::try_from(seconds).unwrap() * 1000 + i64::from(nanos / 1_000_000));
    assert!(table.starts_with("clicks_2"), "{table}");
}

#[tokio::test]
async fn head_gives_the_same_location_and_stores_nothing() {
    let tracker = Tracker::start("click_head").await;
    tracker.simple_campaign("demo").await;
    let response =
        tracker.octo.client().head(tracker.octo.url("/click?cid=demo&sub1=q")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert!(header(&response, "location").starts_with("https://offer.example/lp?cid="));
    tracker.click("/click?cid=demo").await;
    tracker.wait_rows(Table::Clicks, 1).await;
}

#[tokio::test]
async fn other_methods_are_refused_with_what_is_allowed() {
    let tracker = Tracker::start("click_methods").await;
    tracker.simple_campaign("demo").await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let request = tracker.octo.client().request(method.clone(), tracker.octo.url("/click?cid=demo"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(header(&response, "allow"), "GET, HEAD, POST, OPTIONS", "{method}");
    }
}

#[tokio::test]
async fn a_posted_link_is_a_click_answered_with_303() {
    let tracker = Tracker::start("click_post").await;
    tracker.simple_campaign("demo").await;
    let client = tracker.octo.client();
    let form = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
    let ping = ("content-type", "text/ping");
    let long = "x".repeat(200_000);
    let cases = [
        ("/click?cid=demo&sub1=a", None, String::new(), "a"),
        ("/click?cid=demo&sub1=b", Some(ping), "PING".to_owned(), "b"),
        ("/c/demo?sub1=c", Some(("content-type", "text/plain")), "sub1=ignored".to_owned(), "c"),
        ("/c/demo/?sub1=d", Some(ping), "PING".to_owned(), "d"),
        ("/click", Some(form), "cid=demo&sub1=e+f".to_owned(), "e f"),
        ("/click?sub1=query&cid=demo", Some(form), "sub1=form".to_owned(), "query"),
        ("/c/demo", Some(form), "cid=nobody&sub1=%C3%A9".to_owned(), "\u{e9}"),
        ("/click?cid=demo&sub1=g", Some(("content-type", "application/json")), "{\"cid\":1}".to_owned(), "g"),
        (
            "/click?cid=demo&sub1=h",
            Some(("content-type", "multipart/form-data; boundary=x")),
            "--x--".to_owned(),
            "h",
        ),
    ];
    for (path, media_type, body, sub1) in &cases {
        let mut request = client.post(tracker.octo.url(path)).body(body.clone());
        if let Some((name, value)) = media_type {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        let location = url::Url::parse(&header(&response, "location")).unwrap();
        let pairs: Vec<(String, String)> = location.query_pairs().into_owned().collect();
        let wanted =
            [("cid".to_owned(), header(&response, "x-click-id")), ("s".to_owned(), (*sub1).to_owned())];
        assert_eq!(pairs, wanted, "{path}");
    }
    // longer than what is read of it: the click is one all the same
    let head = format!(
        "POST /click?cid=demo&sub1=long HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        long.len()
    );
    let mut stream = TcpStream::connect(tracker.octo.addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&long.as_bytes()[..70_000]).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 303");
    assert_eq!(
        client.post(tracker.octo.url("/click")).send().await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        client.post(tracker.octo.url("/c/nobody")).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    tracker.wait_rows(Table::Clicks, i64::try_from(cases.len()).unwrap() + 1).await;
}

#[tokio::test]
async fn a_page_of_any_origin_may_send_read_and_embed_a_link() {
    let tracker = Tracker::start("click_cors").await;
    tracker.simple_campaign("demo").await;
    let client = tracker.octo.client();
    let preflight = client
        .request(Method::OPTIONS, tracker.octo.url("/click?cid=demo"))
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,sentry-trace,baggage");
    let response = preflight.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    for (name, wanted) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "content-type,sentry-trace,baggage"),
        ("access-control-max-age", "86400"),
        ("cross-origin-resource-policy", "cross-origin"),
    ] {
        assert_eq!(header(&response, name), wanted, "{name}");
    }
    let vary: Vec<_> = response.headers().get_all("vary").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(vary, ["Access-Control-Request-Headers", "Origin"]);
    let url = |path: &str| tracker.octo.url(path);
    let asked = client.request(Method::OPTIONS, url("/click?cid=demo")).send().await.unwrap();
    assert_eq!(
        (asked.status(), header(&asked, "allow").as_str()),
        (StatusCode::NO_CONTENT, "GET, HEAD, POST, OPTIONS")
    );
    for (request, status) in [
        (client.get(url("/click?cid=demo")), 302),
        (client.head(url("/c/demo")), 302),
        (client.post(url("/c/demo")), 303),
        (client.get(url("/c/nobody")), 404),
        (client.get(url("/click")), 400),
        (client.put(url("/click?cid=demo")), 405),
    ] {
        let response = request.try_clone().unwrap().header("origin", "null").send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(header(&response, "access-control-allow-origin"), "null", "{status}");
        assert_eq!(header(&response, "access-control-allow-credentials"), "true", "{status}");
        assert_eq!(header(&response, "cross-origin-resource-policy"), "cross-origin", "{status}");
        let without = request.send().await.unwrap();
        assert_eq!(header(&without, "access-control-allow-origin"), "", "{status}");
        assert_eq!(header(&without, "cross-origin-resource-policy"), "cross-origin", "{status}");
    }
}

#[tokio::test]
async fn a_link_that_mail_chat_or_print_bent_finds_its_campaign() {
    let tracker = Tracker::start("click_bent").await;
    let offer = |key: &str| json!([{ "name": "o", "url": format!("https://{key}.example/?s={{sub1}}") }]);
    for key in ["Kite", "kite.b", "twin", "TWIN", "Tail-"] {
        let host = key.to_ascii_lowercase().replace('.', "-").replace("tail-", "tail");
        let host = if key == "TWIN" { "big".to_owned() } else { host };
        tracker.campaign(json!({ "key": key, "name": key, "offers": offer(&host) })).await;
    }
    for (path, wanted) in [
        // as it was meant
        ("/c/Kite", "https://kite.example/?s="),
        ("/c/kite.b?sub1=a", "https://kite-b.example/?s=a"),
        ("/c/Tail-?sub1=a", "https://tail.example/?s=a"),
        // slashes, punctuation, white space
        ("/c/Kite/?sub1=a", "https://kite.example/?s=a"),
        ("/c/Kite//", "https://kite.example/?s="),
        ("/click/?cid=Kite&sub1=a", "https://kite.example/?s=a"),
        ("/c/Kite).", "https://kite.example/?s="),
        ("/c/Kite.", "https://kite.example/?s="),
        ("/c/kite.b.", "https://kite-b.example/?s="),
        ("/c/Kite%22%3E", "https://kite.example/?s="),
        ("/click?cid=Kite,", "https://kite.example/?s="),
        ("/click?cid=Kite%E2%80%8B&sub1=a", "https://kite.example/?s=a"),
        ("/click?cid=Kite%C2%A0&sub1=a", "https://kite.example/?s=a"),
        ("/click?cid=Kite%25C2%25A0", "https://kite.example/?s="),
        ("/click?cid=%20Kite+&sub1=a", "https://kite.example/?s=a"),
        ("/click?cid=%E2%80%9CKite%E2%80%9D", "https://kite.example/?s="),
        // tails
        ("/click?cid=Kite?utm=1", "https://kite.example/?s="),
        ("/click?cid=Kite?sub1=a", "https://kite.example/?s=a"),
        ("/click?cid=Kite%3Fsub1=a", "https://kite.example/?s=a"),
        ("/c/Kite&sub1=a", "https://kite.example/?s=a"),
        ("/c/Kite&amp;sub1=a", "https://kite.example/?s=a"),
        ("/c/Kite%3Fsub1=a", "https://kite.example/?s=a"),
        ("/click?cid=Kite&amp;sub1=a", "https://kite.example/?s=a"),
        // case, where one key is meant
        ("/c/kite?sub1=a", "https://kite.example/?s=a"),
        ("/click?cid=KITE)&sub1=a", "https://kite.example/?s=a"),
        ("/c/KITE.B", "https://kite-b.example/?s="),
        ("/c/tail", ""), // without case there is no other mark to try
        ("/c/TAIL-", "https://tail.example/?s="),
        ("/c/twin/", "https://twin.example/?s="),
        ("/c/TWIN.", "https://big.example/?s="),
        ("/c/Twin", ""), // two are meant
        ("/c/Kit", ""),
        ("/c/Kite/x", ""),
        ("/c/Kite%20x", ""),
        ("/click?cid=/", ""),
    ] {
        let response = tracker.octo.get(path).await;
        let status = if wanted.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::FOUND };
        assert_eq!((response.status(), header(&response, "location").as_str()), (status, wanted), "{path}");
    }
    // a key that comes to be, or goes, is the exact one at once
    tracker.campaign(json!({ "key": "kite", "name": "k", "offers": offer("small") })).await;
    for (path, wanted) in
        [("/c/kite", "https://small.example/?s="), ("/c/Kite", "https://kite.example/?s="), ("/c/KITE", "")]
    {
        assert_eq!(header(&tracker.octo.get(path).await, "location"), wanted, "{path}");
    }
    tracker.api(Method::DELETE, "/campaigns/Kite").send().await.unwrap().error_for_status().unwrap();
    for path in ["/c/Kite", "/c/KITE", "/c/kite/"] {
        assert_eq!(header(&tracker.octo.get(path).await, "location"), "https://small.example/?s=", "{path}");
    }
}

#[tokio::test]
async fn what_of_a_link_could_not_be_kept_is_shown_with_the_click_and_counted() {
    let tracker = Tracker::start("click_adjusted").await;
    tracker.simple_campaign("demo").await;
    let long = "x".repeat(1025);
    let mut wanted = Vec::new();
    for (query, adjusted) in [
        ("sub1=a&cost=0,05&currency=EUR".to_owned(), json!([])),
        (format!("sub1={long}"), json!(["cut"])),
        (format!("click_id={long}"), json!(["id_too_long"])),
        ("sub1={campaign}&sub2=__X__".to_owned(), json!(["unexpanded_macro"])),
        ("cost=free".to_owned(), json!(["cost_unreadable"])),
        ("cost=-1".to_owned(), json!(["cost_negative"])),
        ("cost=1&currency=USDT".to_owned(), json!(["currency_unknown"])),
        (
            format!("sub1={long}&cost={{cost}}&currency=%5Bcur%5D"),
            json!(["cut", "unexpanded_macro", "currency_unknown"]),
        ),
    ] {
        let (_, id) = tracker.click(&format!("/click?cid=demo&{query}")).await;
        wanted.push((id, adjusted));
    }
    tracker.wait_rows(Table::Clicks, 8).await;
    for (id, adjusted) in wanted {
        let click: serde_json::Value =
            tracker.api(Method::GET, &format!("/clicks/{id}")).send().await.unwrap().json().await.unwrap();
        assert_eq!(click["adjusted"], adjusted, "{click}");
    }
    let metrics = tracker.octo.metrics().await;
    for line in [
        "octo_unexpanded_macros_total{slot=\"sub1\"} 1",
        "octo_unexpanded_macros_total{slot=\"sub2\"} 1",
        "octo_unexpanded_macros_total{slot=\"cost\"} 1",
        "octo_unexpanded_macros_total{slot=\"currency\"} 1",
        "octo_unexpanded_macros_total{slot=\"click_id\"} 0",
        "octo_click_values_adjusted_total{reason=\"cut\"} 2",
        "octo_click_values_adjusted_total{reason=\"id_too_long\"} 1",
        "octo_click_values_adjusted_total{reason=\"unexpanded_macro\"} 2",
        "octo_click_values_adjusted_total{reason=\"cost_unreadable\"} 1",
        "octo_click_values_adjusted_total{reason=\"cost_negative\"} 1",
        "octo_click_values_adjusted_total{reason=\"currency_unknown\"} 2",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line}");
    }
}

#[tokio::test]
async fn what_was_adjusted_is_stored_alike_by_insert_and_by_copy() {
    for (name, count) in [("click_inserted", 20), ("click_copied", 1_200)] {
        let database = Database::create(name).await;
        let pool = database.pool().await;
        let data = tempfile::tempdir().unwrap();
        let clicks = (0..count).map(|i: u16| {
            let mut click = click(Uuid::nil());
            click.adjusted = Adjusted::from_bits(i.to_le_bytes()[0]);
            encode_click(&click)
        });
        write_journal(data.path(), &clicks.collect::<Vec<_>>()).await;
        let _octo = Octo::builder().database_url(database.url()).data_dir(data.path()).start().await;
        let stored: Vec<(Option<Vec<String>>, i64)> = eventually(SOON, async || {
            let stored: Vec<(Option<Vec<String>>, i64)> =
                sqlx::query_as("SELECT adjusted, count(*) FROM clicks GROUP BY 1 ORDER BY 1 NULLS FIRST")
                    .fetch_all(&pool)
                    .await?;
            anyhow::ensure!(stored.iter().map(|(_, n)| n).sum::<i64>() == i64::from(count));
            Ok(stored)
        })
        .await;
        let mut wanted = BTreeMap::<Option<Vec<String>>, i64>::new();
        for i in 0..count {
            let names: Vec<String> =
                Adjusted::from_bits(i.to_le_bytes()[0]).iter().map(|a| a.to_string()).collect();
            *wanted.entry(Some(names).filter(|names| !names.is_empty())).or_default() += 1;
        }
        assert_eq!(stored.into_iter().collect::<BTreeMap<_, _>>(), wanted, "{name}");
    }
}

#[tokio::test]
async fn every_place_that_takes_a_click_id_takes_the_short_one() {
    let tracker = Tracker::start("click_short").await;
    let offers = json!([{ "name": "o", "url": "https://o.example/?c={click_id:short}" }]);
    tracker.campaign(json!({ "key": "demo", "name": "d", "offers": offers })).await;
    let (response, id) = tracker.click("/c/demo").await;
    let location = header(&response, "location");
    let short = location.strip_prefix("https://o.example/?c=").unwrap().to_owned();
    assert_eq!(short.len(), 22);
    tracker.wait_rows(Table::Clicks, 1).await;
    let api = async |method: Method, path: String, body: Option<serde_json::Value>| {
        let request = tracker.api(method, &path);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        request.send().await.unwrap().error_for_status().unwrap().json::<serde_json::Value>().await.unwrap()
    };
    assert_eq!(api(Method::GET, format!("/clicks/{short}"), None).await["id"], id.to_string());
    let patch = json!({ "conversion_type": "sale" });
    assert_eq!(api(Method::PATCH, format!("/clicks/{short}"), Some(patch)).await["conversion_type"], "sale");
    let event = json!({ "event_type": "sale", "click_id": short });
    let sent = tracker.octo.client().post(tracker.octo.url("/event")).json(&event).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    let sent =
        tracker.octo.client().post(tracker.octo.url("/events")).json(&json!([event])).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    let pixel = tracker.octo.get(&format!("/event.gif?event_type=view&amp;click_id={short}")).await;
    assert_eq!(header(&pixel, "x-octo-dropped"), "");
    tracker.wait_rows(Table::Events, 3).await;
    let events = api(Method::GET, format!("/events?click_id={short}"), None).await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(3), "{events}");
}

#[tokio::test]
async fn crawlers_are_let_in_and_told_not_to_index() {
    let tracker = Tracker::start("click_robots").await;
    tracker.simple_campaign("demo").await;
    let robots = tracker.octo.get("/robots.txt").await;
    assert_eq!(robots.status(), StatusCode::OK);
    assert_eq!(header(&robots, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(robots.text().await.unwrap(), "User-agent: *\nAllow: /\n");
    for (path, status) in [("/c/demo", StatusCode::FOUND), ("/click?cid=demo", StatusCode::FOUND)] {
        let response = tracker.octo.get(path).await;
        assert_eq!((response.status(), header(&response, "x-robots-tag").as_str()), (status, "noindex"));
    }
    let closed = "User-agent: *\nDisallow: /\n";
    let tracker =
        Tracker::start_with("click_robots_closed", |b| b.env("OCTO_TRACKING__ROBOTS_TXT", closed)).await;
    assert_eq!(tracker.octo.get("/robots.txt").await.text().await.unwrap(), closed);
}

#[tokio::test]
async fn nothing_in_a_query_stops_a_known_campaign_from_redirecting() {
    let tracker = Tracker::start("click_bad_input").await;
    tracker.simple_campaign("demo").await;
    let long = "a".repeat(10_000);
    let many = "p=1&".repeat(6000);
    let queries = [
        "sub1=%00nul".to_owned(),
        "sub1=%ff%fe%80".to_owned(),
        "sub1=%C0%80%ED%A0%80".to_owned(),
        format!("sub1={long}"),
        format!("sub1={}", "%C3%A9".repeat(300)),
        "sub1=a&sub1=b&sub1=c".to_owned(),
        "nobody=knows&this=parameter".to_owned(),
        "sub1=%zz&sub2=%&sub3=%1".to_owned(),
        "sub1=foo%0d%0aSet-Cookie:%20x=1".to_owned(),
        "sub1=%7Bclick_id%7D&sub2=%26cid%3Dforged".to_owned(),
        "sub1={a}|[b]\\^`'".to_owned(),
        "cost=NaN&currency=dollars&landing_page_id=-9999999999999999999999".to_owned(),
        "url=https%3A%2F%2Fevil.example%2F".to_owned(),
        many,
    ];
    for query in &queries {
        let request = format!("GET /click?cid=demo&{query} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let answer = raw(&tracker, request.as_bytes()).await;
        let shown = &query[..query.len().min(60)];
        assert!(answer.starts_with("HTTP/1.1 302"), "{shown}: {}", &answer[..answer.len().min(200)]);
        let location = answer.lines().find_map(|l| l.strip_prefix("location: ")).expect("a Location");
        assert!(location.starts_with("https://offer.example/lp?cid="), "{shown}: {location}");
        assert!(location.bytes().all(|b| (0x21..0x7f).contains(&b)), "{shown}: {location}");
        assert!(!answer.to_lowercase().contains("\nset-cookie"), "{shown}");
    }
    // bytes that are not UTF-8 in headers and raw UTF-8 in the target
    let request = b"GET /click?cid=demo&sub1=raw-\xc3\xa9 HTTP/1.1\r\nHost: t\r\nUser-Agent: \xff\xfe\xc3\xa9\r\nReferer: https://x/\xe9\xff\r\nConnection: close\r\n\r\n";
    assert!(raw(&tracker, request).await.starts_with("HTTP/1.1 302"));

    tracker.wait_rows(Table::Clicks, i64::try_from(queries.len()).unwrap() + 1).await;
    assert_eq!(Table::DeadLetters.count(&tracker.pool).await.unwrap(), 0);
    let longest: i32 =
        sqlx::query_scalar("SELECT max(length(sub1)) FROM clicks").fetch_one(&tracker.pool).await.unwrap();
    assert_eq!(longest, 1024);
    let raw_kept: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE sub1 = 'raw-\u{e9}'")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(raw_kept, 1);
}

#[tokio::test]
async fn a_link_written_with_semicolons_still_finds_its_campaign() {
    let tracker = Tracker::start("click_semicolon").await;
    tracker.simple_campaign("demo").await;
    let (response, id) = tracker.click("/click?cid=demo;sub1=a").await;
    assert_eq!(header(&response, "location"), format!("https://offer.example/lp?cid={id}&s=#top"));
}

#[tokio::test]
async fn unknown_campaigns_are_404_or_go_to_the_fallback_and_a_missing_one_is_400() {
    let tracker = Tracker::start("click_unknown").await;
    for path in [
        "/click?cid=nobody",
        "/click?cid=",
        "/click?cid=%00",
        "/click?cid=https://evil.example/",
        "/c/nobody",
        "/click?cid=99999999999999999999",
    ] {
        let response = tracker.octo.get(path).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(header(&response, "location"), "");
        assert!(response.text().await.unwrap().len() < 100);
    }
    assert_eq!(tracker.octo.get("/click?sub1=x").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(tracker.octo.get("/click").await.status(), StatusCode::BAD_REQUEST);

    let fallback = "https://fallback.example/lost";
    let tracker =
        Tracker::start_with("click_fallback", |b| b.env("OCTO_TRACKING__FALLBACK_URL", fallback)).await;
    let response = tracker.octo.get("/click?cid=nobody").await;
    assert_eq!((response.status(), header(&response, "location").as_str()), (StatusCode::FOUND, fallback));
}

#[tokio::test]
async fn a_campaign_that_takes_no_clicks_sends_them_to_its_fallback_with_the_reason() {
    let tracker = Tracker::start("click_paused").await;
    let offers = json!([{ "name": "o", "url": OFFER }]);
    let fallback = "https://fallback.example/?c={click_id}";
    for (key, more) in [
        ("paused", json!({ "status": "paused" })),
        ("ended", json!({ "end_at": "2020-01-01T00:00:00Z" })),
        ("not_started", json!({ "start_at": "2999-01-01T00:00:00Z" })),
        ("no_destination", json!({ "offers": [{ "name": "o", "url": OFFER, "is_active": false }] })),
    ] {
        let mut body = json!({ "key": key, "name": key, "offers": offers, "fallback_url": fallback });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tracker.campaign(body).await;
        let (response, id) = tracker.click(&format!("/click?cid={key}")).await;
        assert_eq!(header(&response, "location"), format!("https://fallback.example/?c={id}"));
    }
    tracker.campaign(json!({ "key": "bare", "name": "bare", "status": "paused", "offers": offers })).await;
    assert_eq!(tracker.octo.get("/click?cid=bare").await.status(), StatusCode::NOT_FOUND);
    tracker.wait_rows(Table::Clicks, 4).await;
    let reasons: Vec<(String, bool)> =
        sqlx::query_as("SELECT invalid_reason, is_valid FROM clicks ORDER BY created_at, id")
            .fetch_all(&tracker.pool)
            .await
            .unwrap();
    let wanted = ["paused", "ended", "not_started", "no_destination"].map(|r| (r.to_owned(), false));
    assert_eq!(reasons, wanted);
}

#[tokio::test]
async fn robots_and_prefetches_are_redirected_alike_and_labelled() {
    let tracker = Tracker::start("click_bots").await;
    tracker.simple_campaign("demo").await;
    let client = tracker.octo.client();
    let url = tracker.octo.url("/click?cid=demo");
    let bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let person = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";
    for request in [
        client.get(&url).header("user-agent", bot),
        client.get(&url).header("user-agent", person).header("sec-purpose", "prefetch;prerender"),
        client.get(&url).header("user-agent", person),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert!(header(&response, "location").starts_with("https://offer.example/lp"));
    }
    tracker.wait_rows(Table::Clicks, 3).await;
    let rows: Vec<(bool, bool, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT is_bot, is_valid, invalid_reason, device FROM clicks ORDER BY created_at, id")
            .fetch_all(&tracker.pool)
            .await
            .unwrap();
    let row = |b, v, r: Option<&str>, d: &str| (b, v, r.map(str::to_owned), Some(d.to_owned()));
    let wanted = [
        row(true, false, Some("bot"), "bot"),
        row(false, false, Some("prefetch"), "mobile"),
        row(false, true, None, "mobile"),
    ];
    assert_eq!(rows, wanted);
}

#[tokio::test]
async fn the_rotation_follows_the_weights_and_the_link_may_choose() {
    let tracker = Tracker::start("click_rotation").await;
    let campaign = tracker
        .campaign(json!({
            "key": "split", "name": "split",
            "landing_pages": [
                { "name": "a", "url": "https://a.example/{landing_page_id}", "weight": 3 },
                { "name": "b", "url": "https://b.example/", "weight": 1 },
                { "name": "off", "url": "https://off.example/", "weight": 50, "is_active": false },
            ],
            "offers": [{ "name": "o", "url": "https://o.example/" }],
        }))
        .await;
    let mut to_a = 0;
    for _ in 0..400 {
        let (response, _) = tracker.click("/click?cid=split").await;
        let location = header(&response, "location");
        assert!(!location.contains("off.example") && !location.contains("o.example/"));
        to_a += u32::from(location.starts_with("https://a.example/"));
    }
    assert!((255..345).contains(&to_a), "{to_a} of 400 went to the page with three quarters of the weight");
    let page = campaign["landing_pages"][1]["id"].as_i64().unwrap();
    let offer = campaign["offers"][0]["id"].as_i64().unwrap();
    let chosen = tracker.click(&format!("/click?cid=split&landing_page_id={page}")).await.0;
    assert_eq!(header(&chosen, "location"), "https://b.example/");
    let chosen = tracker.click(&format!("/click?cid=split&campaign_offer_id={offer}")).await.0;
    assert_eq!(header(&chosen, "location"), "https://o.example/");
}

#[tokio::test]
async fn unknown_parameters_pass_through_only_where_the_campaign_says_so() {
    let tracker = Tracker::start("click_pass").await;
    let offers = json!([{ "name": "o", "url": "https://o.example/?a=1#f" }]);
    tracker.campaign(json!({ "key": "open", "name": "open", "offers": offers, "pass_through": true })).await;
    tracker.campaign(json!({ "key": "shut", "name": "shut", "offers": offers })).await;
    let (open, _) =
        tracker.click("/click?cid=open&gclid=a%26b&sub1=kept&x=1&x=2&%B4%AE&flag&sub1=again").await;
    assert_eq!(header(&open, "location"), "https://o.example/?a=1&gclid=a%26b&x=1&x=2&%B4%AE&flag#f");
    let (shut, _) = tracker.click("/click?cid=shut&gclid=a").await;
    assert_eq!(header(&shut, "location"), "https://o.example/?a=1#f");
}

#[tokio::test]
async fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let forwarded = |tracker: &Tracker| {
        tracker
            .octo
            .client()
            .get(tracker.octo.url("/click?cid=demo"))
            .header("x-forwarded-for", "6.6.6.6, 83.149.9.216")
    };
    for (name, proxies, wanted, country) in
        [("ip_trusted", "127.0.0.0/8", "83.149.9.216", Some("RU")), ("ip_untrusted", "", "127.0.0.1", None)]
    {
        let tracker = Tracker::start_with(name, |b| b.env("OCTO_SERVER__TRUSTED_PROXIES", proxies)).await;
        tracker.simple_campaign("demo").await;
        assert_eq!(forwarded(&tracker).send().await.unwrap().status(), StatusCode::FOUND);
        let (ip, found): (String, Option<String>) = eventually(SOON, async || {
            Ok(sqlx::query_as("SELECT host(ip_address), country FROM clicks")
                .fetch_one(&tracker.pool)
                .await?)
        })
        .await;
        assert_eq!((ip.as_str(), found.as_deref()), (wanted, country), "{name}");
    }
}
