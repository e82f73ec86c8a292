//! What is seen as it comes: by HTTP, and in Chromium.

use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use serde_json::json;

use super::{journeys::Stage, pages::HOSTILE, sessions::Visitor};
use crate::tracker::{Tracker, header};

/// How soon a click must be seen.
const SOON: Duration = Duration::from_secs(2);

/// A stream of events that is read until it says something.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// Opened, and begun.
    async fn open(visitor: &Visitor<'_>, query: &str) -> Self {
        let path = format!("/ui/live/events{query}");
        let request = visitor.request(Method::GET, &path).header("accept-encoding", "gzip, br");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        let mut events = Self { response, text: String::new() };
        events.until("event: counts", SOON).await;
        events
    }

    /// Reads until this is there; panics when it is not in time, or the stream ends before.
    async fn until(&mut self, wanted: &str, within: Duration) {
        let start = Instant::now();
        while !self.text.contains(wanted) {
            let left = within.saturating_sub(start.elapsed());
            let chunk = tokio::time::timeout(left, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("no {wanted} within {within:?}: {}", self.text));
            let chunk = chunk.unwrap().unwrap_or_else(|| panic!("it ended without {wanted}: {}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    fn rows(&self) -> usize {
        self.text.matches("event: row").count()
    }
}

#[tokio::test]
async fn a_click_and_its_conversion_are_seen_within_two_seconds_and_lead_to_the_story() {
    let tracker = Tracker::start("live_seen").await;
    tracker.simple_campaign("seen").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut events = Events::open(&visitor, "").await;
    let mut others = Events::open(&visitor, "?kind=conversions&campaign=seen").await;
    let (_, id) = tracker.click("/click?cid=seen&sub1=zone-7").await;
    events.until(&format!("/ui/clicks/{id}"), SOON).await;
    events.until("zone-7", SOON).await;
    tracker.octo.get(&format!("/postback?click_id={id}&payout=3.25&currency=USD&status=approved")).await;
    events.until("3.25 USD", SOON).await;
    others.until("3.25 USD", SOON).await;
    assert!(!others.text.contains("zone-7"), "only conversions were asked for: {}", others.text);
}

#[tokio::test]
async fn more_than_are_shown_in_a_second_are_counted() {
    let tracker = Tracker::start_with("live_many", |octo| {
        octo.env("OCTO_DASHBOARD__LIVE_ROWS_PER_SECOND_MAX", "1").env("OCTO_DRAIN__LINGER_MS", "900")
    })
    .await;
    tracker.simple_campaign("many").await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut events = Events::open(&visitor, "").await;
    for _ in 0..20 {
        tracker.click("/click?cid=many").await;
    }
    let start = Instant::now();
    // shown and counted are all there is
    loop {
        events.until("event: row", SOON).await;
        let counted = events.text.rsplit("\"counted\":").next().unwrap();
        let counted: usize = counted.split(',').next().unwrap().parse().unwrap();
        if counted > 0 && counted + events.rows() == 20 {
            break;
        }
        assert!(start.elapsed() < 5 * SOON, "{}", events.text);
        let chunk = tokio::time::timeout(SOON, events.response.chunk()).await.expect("it goes on");
        events.text.push_str(&String::from_utf8_lossy(&chunk.unwrap().expect("it goes on")));
    }
}

#[tokio::test]
async fn too_many_streams_are_refused_and_one_that_is_closed_leaves_its_place() {
    let tracker =
        Tracker::start_with("live_full", |octo| octo.env("OCTO_DASHBOARD__LIVE_STREAMS_MAX", "1")).await;
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let first = Events::open(&visitor, "").await;
    let refused = visitor.request(Method::GET, "/ui/live/events").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&refused, "retry-after"), "10");
    assert!(refused.text().await.unwrap().contains("Too many live views are open."));
    drop(first);
    crate::harness::eventually(crate::tracker::SOON, async || {
        let status = visitor.request(Method::GET, "/ui/live/events").send().await?.status();
        anyhow::ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    })
    .await;
    let unknown = visitor.request(Method::GET, "/ui/live/events?campaign=none").send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_stream_ends_with_its_session_and_is_not_for_strangers() {
    let tracker =
        Tracker::start_with("live_over", |octo| octo.env("OCTO_DASHBOARD__LIVE_SESSION_CHECK_S", "1")).await;
    let stranger = tracker.octo.get("/ui/live/events").await;
    assert_eq!(stranger.status(), StatusCode::SEE_OTHER);
    let visitor = Visitor::signed_in(&tracker.octo, &tracker.token).await;
    let mut events = Events::open(&visitor, "").await;
    sqlx::query("DELETE FROM sessions").execute(&tracker.pool).await.unwrap();
    events.until("Your session is over.", 3 * SOON).await;
    while let Some(chunk) = tokio::time::timeout(SOON, events.response.chunk()).await.unwrap().unwrap() {
        events.text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test]
async fn a_stream_does_not_hold_up_a_stop() {
    let mut tracker = Tracker::start("live_stop").await;
    let token = tracker.token.clone();
    let visitor = Visitor::signed_in(&tracker.octo, &token).await;
    let mut events = Events::open(&visitor, "").await;
    tracker.octo.sigterm();
    events.until("octo stops.", 2 * SOON).await;
    assert!(tracker.octo.wait_exit(Duration::from_secs(20)).await.success());
}

/// One browser at a time: `.config/nextest.toml` goes by the name of this module.
mod chromium {
    #[tokio::test]
    async fn a_link_that_is_followed_is_seen_live_and_what_strangers_wrote_is_text() {
        super::a_link_that_is_followed_is_seen_live_and_what_strangers_wrote_is_text().await;
    }

    #[tokio::test]
    async fn without_javascript_the_live_view_says_so_and_leads_to_clicks() {
        super::without_javascript_the_live_view_says_so_and_leads_to_clicks().await;
    }
}

async fn a_link_that_is_followed_is_seen_live_and_what_strangers_wrote_is_text() {
    let stage = Stage::set("live_browser", true).await;
    stage.tracker.campaign(json!({ "key": "live", "name": HOSTILE[0], "offers": [{ "name": "o", "url": "https://offer.example/" }] })).await;
    let page = stage.signed_in().await;
    page.go("http://octo.example/ui/live").await;
    page.wait_for("document.getElementById('live-state').textContent === 'Connected'").await;
    let mut last = String::new();
    for text in HOSTILE {
        let value = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        last = stage.tracker.click(&format!("/click?cid=live&sub1={value}")).await.1.to_string();
    }
    let start = Instant::now();
    page.wait_for(&format!("document.querySelector('#live a[href$=\"{last}\"]')")).await;
    assert!(start.elapsed() <= SOON, "{:?}", start.elapsed());
    let found = "JSON.stringify([window.pwned || 0, document.querySelectorAll('#live tbody :not(tr, th, td, a)').length])";
    assert_eq!(page.eval(found).await, "[0,0]");
    page.click(&format!("#live a[href$=\"{last}\"]")).await;
    page.wait_for("document.querySelector('ol.story li')").await;
    let errors = page.console().await;
    assert!(errors.is_empty(), "{errors:?}");
}

async fn without_javascript_the_live_view_says_so_and_leads_to_clicks() {
    let stage = Stage::set("live_browser", false).await;
    let page = stage.signed_in().await;
    page.go("http://octo.example/ui/live").await;
    page.click("noscript a").await;
    page.wait_for("document.querySelector('h1')?.textContent === 'Clicks'").await;
}
