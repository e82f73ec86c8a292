//! `/click` and `/c/KEY`: the contract of a redirect.

use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::Row;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::eventually,
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
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let request = tracker.octo.client().request(method.clone(), tracker.octo.url("/click?cid=demo"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert!(header(&response, "allow").contains("GET"), "{method}");
    }
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
    assert_eq!(longest, 255);
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
    let (open, _) = tracker.click("/click?cid=open&gclid=a%26b&sub1=kept").await;
    assert_eq!(header(&open, "location"), "https://o.example/?a=1&gclid=a%26b#f");
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
