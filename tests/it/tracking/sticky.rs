//! Visitors who get again what they got before, and who is unique.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    harness::{Database, api::answer, eventually},
    nodes::Node,
    tracker::{SOON, Table, Tracker, header},
};

const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0";

/// A browser: it has an agent of its own and keeps the cookie.
#[derive(Default)]
struct Browser {
    agent: String,
    cookie: Option<String>,
    asks_for_privacy: bool,
}

impl Browser {
    fn new(i: u32) -> Self {
        Self { agent: format!("{PERSON} {i}"), ..Self::default() }
    }

    async fn ask(&self, tracker: &Tracker, key: &str) -> Response {
        let mut request = tracker.octo.client().get(tracker.octo.url(&format!("/click?cid={key}")));
        request = request.header("user-agent", &self.agent);
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", format!("other=1; octo_s={cookie}"));
        }
        if self.asks_for_privacy {
            request = request.header("sec-gpc", "1");
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        response
    }

    /// Where a click goes: the first label of the host.
    async fn click(&mut self, tracker: &Tracker, key: &str) -> String {
        let response = self.ask(tracker, key).await;
        if let Some(cookie) = cookie_of(&response) {
            self.cookie = Some(cookie);
        }
        let location = header(&response, "location");
        location.trim_start_matches("https://").split('.').next().unwrap_or_default().to_owned()
    }
}

fn cookie_of(response: &Response) -> Option<String> {
    let mut cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let ours = cookies.find_map(|cookie| cookie.strip_prefix("octo_s="))?;
    Some(ours.split(';').next().unwrap().to_owned())
}

/// Why a click went where it went.
async fn routed(tracker: &Tracker, response: &Response) -> Vec<String> {
    let id = header(response, "x-click-id");
    let why: Option<Vec<String>> = eventually(SOON, async || {
        let sql = "SELECT routed FROM clicks WHERE id = $1::uuid";
        Ok(sqlx::query_scalar(sql).bind(&id).fetch_one(&tracker.pool).await?)
    })
    .await;
    why.unwrap_or_default()
}

fn path(name: &str, weight: u32) -> Value {
    json!({"name": name, "weight": weight, "offers": [{"name": name, "url": format!("https://{name}.example/")}]})
}

/// A campaign with two paths of the same weight; the ids of these.
async fn two_paths(tracker: &Tracker, sticky: &str) -> [Value; 2] {
    let campaign = json!({
        "key": "demo", "name": "demo", "sticky": sticky, "paths": [path("one", 1), path("two", 1)],
    });
    let made = tracker.campaign(campaign).await;
    [0, 1].map(|i| made["paths"][i].clone())
}

async fn change(tracker: &Tracker, terms: Value) {
    let (status, body) = answer(tracker.api(Method::PATCH, "/campaigns/demo").json(&terms)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn reweigh(tracker: &Tracker, paths: &[Value; 2], weights: [u32; 2]) {
    let paths: Vec<_> = paths
        .iter()
        .zip(weights)
        .map(|(path, weight)| {
            let mut path = path.clone();
            path["weight"] = weight.into();
            path
        })
        .collect();
    change(tracker, json!({ "paths": paths })).await;
}

#[tokio::test]
async fn who_is_bound_stays_when_weights_change_and_where_no_new_visitors_come() {
    let tracker = Tracker::start("sticky_weights").await;
    let paths = two_paths(&tracker, "path").await;
    let mut browsers: Vec<_> = (0..12).map(Browser::new).collect();
    let mut first = Vec::new();
    for browser in &mut browsers {
        first.push(browser.click(&tracker, "demo").await);
        // another address or agent is the same browser
        browser.agent.push('x');
    }
    assert!(first.iter().any(|to| to == "one") && first.iter().any(|to| to == "two"), "{first:?}");
    for weights in [[1, 1], [1, 1000], [1000, 1], [0, 1]] {
        reweigh(&tracker, &paths, weights).await;
        for (browser, wanted) in browsers.iter_mut().zip(&first) {
            assert_eq!(&browser.click(&tracker, "demo").await, wanted, "{weights:?}");
        }
    }
    for i in 100..110 {
        assert_eq!(Browser::new(i).click(&tracker, "demo").await, "two", "nobody new");
    }
    // an epoch more, and everybody is drawn anew
    change(&tracker, json!({"epoch": 1})).await;
    for browser in &mut browsers {
        assert_eq!(browser.click(&tracker, "demo").await, "two");
    }
    tracker.wait_rows(Table::Clicks, 6 * 12 + 10).await;
    let bound: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE routed @> '{bound}'")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(bound, 4 * 12);
}

#[tokio::test]
async fn without_a_cookie_a_visitor_is_known_for_the_day_and_who_asks_for_privacy_gets_none() {
    let tracker = Tracker::start("sticky_private").await;
    two_paths(&tracker, "path").await;
    for i in 0..8 {
        let mut browser = Browser { asks_for_privacy: i % 2 == 0, ..Browser::new(i) };
        let first = browser.click(&tracker, "demo").await;
        assert_eq!(browser.cookie.is_none(), browser.asks_for_privacy);
        browser.cookie = None;
        for _ in 0..4 {
            assert_eq!(browser.click(&tracker, "demo").await, first);
            browser.cookie = None;
        }
    }
    // of who asks for privacy the cookie is not read either
    let mut bound = Browser::new(50);
    let to = bound.click(&tracker, "demo").await;
    let cookie = bound.cookie.clone();
    let other = (60..90).map(Browser::new);
    let mut differ = 0;
    for mut browser in other {
        browser.cookie.clone_from(&cookie);
        assert_eq!(browser.click(&tracker, "demo").await, to);
        let mut private = Browser { cookie: cookie.clone(), asks_for_privacy: true, agent: browser.agent };
        differ += usize::from(private.click(&tracker, "demo").await != to);
    }
    assert!(differ > 0, "the cookie was read");
    // where nothing is kept there is no cookie
    change(&tracker, json!({"sticky": "off"})).await;
    let mut free = Browser::new(99);
    free.click(&tracker, "demo").await;
    assert_eq!(free.cookie, None);
}

#[tokio::test]
async fn a_cookie_that_was_changed_is_none_and_one_of_a_hundred_campaigns_is_no_longer_than_a_kilobyte() {
    let tracker = Tracker::start("sticky_cookie").await;
    two_paths(&tracker, "all").await;
    let mut browser = Browser::new(1);
    let response = browser.ask(&tracker, "demo").await;
    let set = header(&response, "set-cookie");
    assert!(set.ends_with("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"), "{set}");
    browser.click(&tracker, "demo").await;
    let cookie = browser.cookie.clone().unwrap();
    assert!(!cookie.contains("demo") && !cookie.contains("one"), "{cookie}");
    for bent in
        [String::new(), "x".repeat(5000), cookie[..cookie.len() - 1].to_owned(), format!("{cookie}A"), {
            let mut letters: Vec<char> = cookie.chars().collect();
            let at = letters.len() / 2;
            letters[at] = if letters[at] == 'A' { 'B' } else { 'A' };
            letters.into_iter().collect()
        }]
    {
        let bent = Browser { cookie: Some(bent), ..Browser::new(1) };
        let response = bent.ask(&tracker, "demo").await;
        assert!(cookie_of(&response).is_some(), "a new one");
        assert_eq!(routed(&tracker, &response).await, Vec::<String>::new());
    }
    for i in 0..100 {
        let key = format!("c{i}");
        let offers = json!([{"name": "o", "url": "https://o.example/"}]);
        tracker.campaign(json!({"key": key, "name": key, "sticky": "all", "offers": offers})).await;
        browser.click(&tracker, &key).await;
        let length = "octo_s=".len() + browser.cookie.as_ref().unwrap().len();
        assert!(length <= 1024, "{length}");
    }
    let response = browser.ask(&tracker, "c99").await;
    assert_eq!(routed(&tracker, &response).await, ["bound"]);
}

#[tokio::test]
async fn the_offer_behind_a_landing_page_is_kept_from_the_out_click_on() {
    let tracker = Tracker::start("sticky_out").await;
    let offer = |name: &str| json!({"name": name, "url": format!("https://{name}.example/")});
    let made = tracker
        .campaign(json!({
            "key": "demo", "name": "demo", "sticky": "all",
            "landing_pages": [{"name": "page", "url": "https://page.example/?k={click_token}"}],
            "offers": [offer("one"), offer("two")],
        }))
        .await;
    let mut went = Vec::new();
    for i in 0..8 {
        let mut browser = Browser::new(i);
        let mut offers = Vec::new();
        for round in 0..3 {
            let click = browser.ask(&tracker, "demo").await;
            browser.cookie = Some(cookie_of(&click).expect("sticky"));
            let page = header(&click, "location");
            let token = page.strip_prefix("https://page.example/?k=").expect("the page").to_owned();
            let request = tracker.octo.client().get(tracker.octo.url(&format!("/out?k={token}")));
            let request = request.header("user-agent", &browser.agent);
            let cookie = format!("octo_s={}", browser.cookie.as_ref().unwrap());
            let out = request.header("cookie", cookie).send().await.unwrap();
            assert_eq!(cookie_of(&out).is_some(), round == 0, "it is noted once");
            browser.cookie = cookie_of(&out).or(browser.cookie);
            offers.push(header(&out, "location"));
            // nothing but the cookie says who it is
            browser.agent.push('x');
        }
        assert!(offers.iter().all(|offer| *offer == offers[0]), "{offers:?}");
        went.push(offers[0].clone());
    }
    went.sort();
    went.dedup();
    assert_eq!(went.len(), 2, "{made} {went:?}");
}

#[tokio::test]
async fn the_first_valid_click_of_a_visitor_is_unique_and_rules_tell_new_from_returning_ones() {
    let tracker = Tracker::start("sticky_unique").await;
    let rule = |name: &str, dimension: &str, is: &str| json!({"name": name, "when": [{"dimension": dimension, "is": [is]}], "paths": [path(name, 1)]});
    tracker
        .campaign(json!({
            "key": "demo", "name": "demo",
            "rules": [rule("first", "unique", "true"), rule("again", "returning", "true")],
            "offers": [{"name": "rest", "url": "https://rest.example/"}],
        }))
        .await;
    let (mut one, mut other) = (Browser::new(1), Browser::new(2));
    for (browser, wanted) in
        [(true, "first"), (true, "again"), (false, "first"), (true, "again"), (false, "again")]
    {
        let browser = if browser { &mut one } else { &mut other };
        assert_eq!(browser.click(&tracker, "demo").await, wanted);
    }
    // a bot is a first click too, but never a unique one
    let mut bot = Browser { agent: "Googlebot/2.1".to_owned(), ..Browser::default() };
    assert_eq!(bot.click(&tracker, "demo").await, "first");
    assert_eq!(bot.click(&tracker, "demo").await, "again");
    tracker.wait_rows(Table::Clicks, 7).await;
    let unique: Vec<bool> = sqlx::query_scalar("SELECT coalesce(is_unique, false) FROM clicks ORDER BY id")
        .fetch_all(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(unique, [true, false, true, false, false, false, false]);
    let hourly: i64 = sqlx::query_scalar("SELECT sum(unique_clicks)::int8 FROM campaign_stats_hourly")
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(hourly, 2);
}

#[tokio::test]
async fn a_visitor_is_unique_once_for_two_nodes_and_after_a_restart() {
    let database = Database::create("unique_nodes").await;
    let start = async || {
        let prefix = format!("{}:", database.name());
        Node::start(&database.url(), |b| {
            b.redis_url(database.redis_url()).env("OCTO_REDIS__KEY_PREFIX", prefix)
        })
        .await
    };
    let (mut one, other) = (start().await, start().await);
    one.create("demo").await;
    let click = async |node: &Node, visitor: u32| {
        let request = node.octo.client().get(node.octo.url("/click?cid=demo"));
        let response = request.header("user-agent", format!("{PERSON} {visitor}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
    };
    // until both have the key of the day and hear each other, a visitor is unique at each
    let pool = database.pool().await;
    let uniques = async |clicks: i64| {
        eventually(SOON, async || {
            let sql = "SELECT count(*) FILTER (WHERE is_unique), count(*) FROM clicks";
            let (unique, stored): (i64, i64) = sqlx::query_as(sql).fetch_one(&pool).await?;
            anyhow::ensure!(stored == clicks, "{stored} of {clicks} are stored");
            Ok(unique)
        })
        .await
    };
    let (mut clicks, mut unique) = (0, 0);
    for visitor in 0..20 {
        click(&one, visitor).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        click(&other, visitor).await;
        let before = unique;
        clicks += 2;
        unique = uniques(clicks).await;
        if unique == before + 1 {
            break;
        }
    }
    let before = unique;
    for visitor in 100..120 {
        click(&one, visitor).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for visitor in 100..120 {
        click(&other, visitor).await;
    }
    assert_eq!(uniques(clicks + 40).await, before + 20);

    one.octo.sigterm();
    one.octo.wait_exit(SOON).await;
    one.octo.start_again().await;
    eventually(SOON, async || {
        let health = one.octo.get("/readyz").await.status();
        anyhow::ensure!(health == 200, "{health}");
        Ok(())
    })
    .await;
    // the key of the day comes with the set-up of the database
    tokio::time::sleep(Duration::from_secs(2)).await;
    for visitor in 100..120 {
        click(&one, visitor).await;
    }
    assert_eq!(uniques(clicks + 60).await, before + 20);
}
