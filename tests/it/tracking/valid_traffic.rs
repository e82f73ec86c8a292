//! Which clicks count: each is labelled for one reason, redirected like every other, and counted gross and valid.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, PrivateRedis, Scratch, eventually},
    nodes::Node,
    tracker::{SOON, Table, Tracker, assert_roll_ups_agree, header},
};

const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";
const OTHER: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:141.0) Gecko/20100101 Firefox/141.0";
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// A visitor of a campaign: an address, a user agent, and another header perhaps.
#[derive(Clone, Copy)]
struct Visitor<'a> {
    key: &'a str,
    ip: &'a str,
    agent: &'a str,
    header: (&'static str, &'static str),
}

const VISITOR: Visitor<'static> =
    Visitor { key: "demo", ip: "203.0.113.7", agent: PERSON, header: ("accept", "*/*") };

async fn visit(octo: &Octo, method: Method, visitor: Visitor<'_>) -> Response {
    let Visitor { key, ip, agent, header: (name, value) } = visitor;
    let url = octo.url(&format!("/click?cid={key}&sub1=s"));
    let request = octo.client().request(method, url).header("x-forwarded-for", ip).header(name, value);
    let response = request.header("user-agent", agent).send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::FOUND);
    response
}

/// Where a visitor is sent, its own click id left out.
async fn destination(octo: &Octo, visitor: Visitor<'_>) -> String {
    let response = visit(octo, Method::GET, visitor).await;
    header(&response, "location").replace(&header(&response, "x-click-id"), "ID")
}

async fn click(octo: &Octo, visitor: Visitor<'_>) -> Uuid {
    header(&visit(octo, Method::GET, visitor).await, "x-click-id").parse().expect("a UUID")
}

async fn reasons(pool: &PgPool) -> Vec<Option<String>> {
    let sql = "SELECT invalid_reason FROM clicks ORDER BY created_at, id";
    sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
}

async fn reason(pool: &PgPool, id: Uuid) -> Option<String> {
    let reason = eventually(SOON, async || {
        let sql = "SELECT invalid_reason FROM clicks WHERE id = $1";
        Ok(sqlx::query_scalar(sql).bind(id).fetch_one(pool).await?)
    });
    reason.await
}

async fn start(name: &str, window_s: u32) -> Tracker {
    let proxies = |b: crate::harness::OctoBuilder| b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8");
    let window =
        |b: crate::harness::OctoBuilder| b.env("OCTO_TRACKING__DUPLICATE_WINDOW_S", window_s.to_string());
    let tracker = Tracker::start_with(name, |b| window(proxies(b))).await;
    tracker.simple_campaign("demo").await;
    tracker.simple_campaign("other").await;
    tracker
}

#[tokio::test]
async fn every_reason_is_told_and_changes_nothing_about_the_destination() {
    let scratch = Scratch::create();
    let list = scratch.dir().join("datacenters.txt");
    std::fs::write(&list, "# a hosting company\n198.51.100.0/24\n2001:db8:77::/48\n").unwrap();
    let tracker = Tracker::start_with("valid_reasons", |b| {
        b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
            .env("OCTO_TRACKING__DUPLICATE_WINDOW_S", "3600")
            .env("OCTO_TRACKING__DATACENTER_NETWORKS_FILE", list)
    })
    .await;
    tracker.simple_campaign("demo").await;
    let prefetch = ("sec-purpose", "prefetch");
    let hosted = "2001:db8:77:1::5";
    let visitors = [
        (VISITOR, None),
        (VISITOR, Some("duplicate")),
        (Visitor { agent: BOT, ..VISITOR }, Some("bot")),
        (Visitor { header: prefetch, ..VISITOR }, Some("prefetch")),
        (Visitor { agent: "", ..VISITOR }, Some("no_user_agent")),
        (Visitor { agent: "  ", ..VISITOR }, Some("no_user_agent")),
        (Visitor { ip: "198.51.100.200", ..VISITOR }, Some("datacenter")),
        (Visitor { ip: hosted, ..VISITOR }, Some("datacenter")),
        // where several are true, the first of the order is told
        (Visitor { agent: BOT, ip: hosted, header: prefetch, ..VISITOR }, Some("prefetch")),
        (Visitor { agent: BOT, ip: hosted, ..VISITOR }, Some("bot")),
        (Visitor { agent: "", ip: hosted, ..VISITOR }, Some("no_user_agent")),
        (Visitor { ip: "198.51.101.1", ..VISITOR }, None),
    ];
    let wanted = destination(&tracker.octo, Visitor { ip: "203.0.113.99", ..VISITOR }).await;
    for (visitor, reason) in visitors {
        assert_eq!(destination(&tracker.octo, visitor).await, wanted, "{reason:?}");
    }
    let head = visit(&tracker.octo, Method::HEAD, VISITOR).await;
    assert_eq!(header(&head, "location").replace(&header(&head, "x-click-id"), "ID"), wanted);

    tracker.wait_rows(Table::Clicks, 13).await;
    let told: Vec<Option<&str>> = visitors.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons(&tracker.pool).await.iter().skip(1).map(Option::as_deref).collect::<Vec<_>>(), told);
    let consistent: bool =
        sqlx::query_scalar("SELECT bool_and(is_valid = (invalid_reason IS NULL)) FROM clicks")
            .fetch_one(&tracker.pool)
            .await
            .unwrap();
    assert!(consistent);
    assert_roll_ups_agree(&tracker.pool).await;
    let stats = tracker.show("/campaigns/demo/stats").await;
    for figures in [&stats["totals"], &stats["data"][0]] {
        assert_eq!((&figures["clicks"], &figures["valid_clicks"]), (&json!(13), &json!(3)), "{stats}");
    }
}

#[tokio::test]
async fn a_duplicate_is_of_one_visitor_at_one_campaign() {
    let tracker = start("valid_visitors", 3600).await;
    for visitor in [
        VISITOR,
        Visitor { ip: "203.0.113.8", ..VISITOR },
        Visitor { agent: OTHER, ..VISITOR },
        Visitor { key: "other", ..VISITOR },
    ] {
        for wanted in [None, Some("duplicate"), Some("duplicate")] {
            let id = click(&tracker.octo, visitor).await;
            assert_eq!(reason(&tracker.pool, id).await.as_deref(), wanted);
        }
    }
}

#[tokio::test]
async fn what_was_no_visit_of_a_person_does_not_make_the_next_click_a_duplicate() {
    let tracker = start("valid_first", 3600).await;
    visit(&tracker.octo, Method::HEAD, VISITOR).await;
    click(&tracker.octo, Visitor { header: ("purpose", "prefetch"), ..VISITOR }).await;
    let paused = tracker.api(Method::POST, "/campaigns/demo/pause").send().await.unwrap();
    assert_eq!(paused.status(), 200);
    let resumed = tracker.api(Method::POST, "/campaigns/demo/resume").send().await.unwrap();
    assert_eq!(resumed.status(), 200);
    let first = click(&tracker.octo, VISITOR).await;
    let second = click(&tracker.octo, VISITOR).await;
    assert_eq!(reason(&tracker.pool, first).await, None);
    assert_eq!(reason(&tracker.pool, second).await.as_deref(), Some("duplicate"));
}

#[tokio::test]
async fn the_window_ends_and_by_default_there_is_none() {
    let tracker = start("valid_window", 1).await;
    let first = click(&tracker.octo, VISITOR).await;
    assert_eq!(reason(&tracker.pool, first).await, None);
    // each click within the window leaves it as it is, so one of these comes after it
    eventually(SOON, async || {
        let again = click(&tracker.octo, VISITOR).await;
        anyhow::ensure!(reason(&tracker.pool, again).await.is_none(), "still a duplicate");
        Ok(())
    })
    .await;
    let tracker = Tracker::start("valid_no_window").await;
    tracker.simple_campaign("demo").await;
    for _ in 0..3 {
        tracker.click("/c/demo").await;
    }
    tracker.wait_rows(Table::Clicks, 3).await;
    assert_eq!(reasons(&tracker.pool).await, [None, None, None]);
}

#[tokio::test]
async fn another_node_hears_of_a_visit_by_way_of_redis_which_keeps_nothing_of_it() {
    let database = Database::create("valid_nodes").await;
    let mut redis = PrivateRedis::start().await;
    let set = |b: crate::harness::OctoBuilder| {
        b.redis_url(redis.url())
            .env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
            .env("OCTO_TRACKING__DUPLICATE_WINDOW_S", "3600")
    };
    let (one, other) = (Node::start(&database.url(), set).await, Node::start(&database.url(), set).await);
    one.create("demo").await;
    one.wait_click("demo", 302).await;
    other.wait_click("demo", 302).await;
    let pool = database.pool().await;
    let mut last = 0;
    // a new visitor each time: the other node may not listen yet, or hear of it a moment later
    eventually(SOON, async || {
        last += 1;
        let ip = format!("2001:db8::{last}");
        let visitor = Visitor { ip: &ip, ..VISITOR };
        assert_eq!(reason(&pool, click(&one.octo, visitor).await).await, None);
        let there = reason(&pool, click(&other.octo, visitor).await).await;
        anyhow::ensure!(there.as_deref() == Some("duplicate"), "{there:?}");
        Ok(())
    })
    .await;
    let mut connection = redis.connection().await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert!(
        keys.iter().all(|key| key.contains(":campaign_v1:") || key.contains(":click_stats:")),
        "{keys:?}"
    );

    // with a Redis that says nothing the clicks go on, and each node knows its own
    redis.sigstop();
    let started = std::time::Instant::now();
    let visitor = Visitor { ip: "203.0.113.50", ..VISITOR };
    let (first, again) = (click(&one.octo, visitor).await, click(&one.octo, visitor).await);
    let there = click(&other.octo, visitor).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(reason(&pool, first).await, None);
    assert_eq!(reason(&pool, again).await.as_deref(), Some("duplicate"));
    assert_eq!(reason(&pool, there).await, None);
    eventually(SOON, async || {
        anyhow::ensure!(one.octo.metric("octo_visits_untold_total").await > 0, "nothing is untold");
        Ok(())
    })
    .await;
    redis.sigcont();
}

#[tokio::test]
async fn a_bad_list_of_networks_stops_the_start_and_names_the_line() {
    let scratch = Scratch::create();
    let list = scratch.dir().join("datacenters.txt");
    std::fs::write(&list, "192.0.2.0/24\n192.0.2.0/240\n").unwrap();
    let database = Database::create("valid_list").await;
    let run = async |path: &std::path::Path| {
        let octo = Octo::builder().database_url(database.url());
        let output = octo.env("OCTO_TRACKING__DATACENTER_NETWORKS_FILE", path).run(&["serve"]).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&list).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("line 2: `192.0.2.0/240`") && !said.contains("line 1"), "{said}");
    let (code, said) = run(&scratch.dir().join("missing.txt")).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("missing.txt"), "{said}");
}
