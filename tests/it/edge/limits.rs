//! `[limits]`: how often one address may send wrong tokens, click, send events.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{
    harness::{OctoBuilder, eventually},
    tracker::{SOON, Table, Tracker, header},
};

/// A tracker that is told addresses by `X-Forwarded-For`.
async fn behind_a_proxy(name: &str, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Tracker {
    Tracker::start_with(name, |b| set(b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8"))).await
}

fn from(request: RequestBuilder, address: &str) -> RequestBuilder {
    request.header("x-forwarded-for", address)
}

async fn answer(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

fn ask(tracker: &Tracker, token: &str) -> RequestBuilder {
    tracker.octo.api(token).get("/campaigns")
}

fn wrong(number: u32) -> String {
    format!("octo_{number:064x}")
}

#[tokio::test]
async fn an_address_that_guesses_tokens_is_told_to_wait_and_who_shares_it_goes_on() {
    let tracker = behind_a_proxy("limits_auth", |b| {
        b.env("OCTO_LIMITS__FAILED_AUTH_BURST", "5").env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "1")
    })
    .await;
    let (guesser, neighbour) = ("192.0.2.1", "192.0.2.2");
    let later = tracker.octo.token("read").await;
    assert_eq!(answer(from(ask(&tracker, &tracker.token), guesser)).await.status(), 200);
    for number in 0..5 {
        assert_eq!(answer(from(ask(&tracker, &wrong(number)), guesser)).await.status(), 401, "{number}");
    }
    let asked = "octo_db_query_duration_seconds_count{query=\"token.find\"}";
    let before = tracker.octo.metric(asked).await;
    for number in [5, 6] {
        let refused = answer(from(ask(&tracker, &wrong(number)), guesser)).await;
        assert_eq!(refused.status(), 429);
        let wait: u64 = header(&refused, "retry-after").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait} s");
        assert_eq!(header(&refused, "content-type"), "application/problem+json");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too_many_requests");
    }
    let shapeless = ask(&tracker, "octo_1");
    assert_eq!(answer(from(shapeless, guesser)).await.status(), 429);
    assert_eq!(answer(from(ask(&tracker, &later), guesser)).await.status(), 429, "no guess is answered");
    assert_eq!(tracker.octo.metric(asked).await, before, "and the database is not asked");

    for _ in 0..20 {
        assert_eq!(
            answer(from(ask(&tracker, &tracker.token), guesser)).await.status(),
            200,
            "known as valid"
        );
    }
    let nothing = tracker.octo.client().get(tracker.octo.url("/api/v1/campaigns"));
    assert_eq!(answer(from(nothing, guesser)).await.status(), 401, "no credentials are no attempt");
    assert_eq!(answer(from(ask(&tracker, &wrong(7)), neighbour)).await.status(), 401, "another address");
    assert_eq!(answer(from(ask(&tracker, &later), neighbour)).await.status(), 200);
    assert_eq!(answer(from(ask(&tracker, &later), guesser)).await.status(), 200, "now it is known here too");
    assert_eq!(tracker.octo.metric("octo_auth_total{outcome=\"failed\"}").await, 6);
    assert_eq!(tracker.octo.metric("octo_auth_total{outcome=\"limited\"}").await, 4);
    assert_eq!(tracker.octo.metric("octo_limited_total{limit=\"failed_auth\"}").await, 4);
}

#[tokio::test]
async fn a_wait_as_long_as_it_was_told_is_enough() {
    let tracker = behind_a_proxy("limits_forgiven", |b| {
        b.env("OCTO_LIMITS__FAILED_AUTH_BURST", "3").env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "30")
    })
    .await;
    let one = "2001:db8:0:1::1";
    // each from an address of its own; more than the burst, since a slow machine is forgiven some meanwhile
    let mut refused = false;
    for number in 0..60 {
        let address = format!("2001:db8:0:1:{number}::1");
        refused |= answer(from(ask(&tracker, &wrong(number)), &address)).await.status() == 429;
        if refused {
            break;
        }
    }
    assert!(refused, "a /64 is one address");
    assert_eq!(answer(from(ask(&tracker, &wrong(3)), "2001:db8:0:2::1")).await.status(), 401);
    eventually(SOON, async || {
        let status = ask(&tracker, &wrong(4)).header("x-forwarded-for", one).send().await?.status();
        anyhow::ensure!(status == 401, "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_is_known_as_valid_no_more() {
    let tracker = behind_a_proxy("limits_revoked", |b| {
        b.env("OCTO_LIMITS__FAILED_AUTH_BURST", "1").env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "1")
    })
    .await;
    let body = json!({ "scope": "read" });
    let made: Value = answer(tracker.api(Method::POST, "/tokens").json(&body)).await.json().await.unwrap();
    let token = made["token"].as_str().unwrap();
    assert_eq!(answer(from(ask(&tracker, token), "192.0.2.1")).await.status(), 200);
    let path = format!("/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(answer(tracker.api(Method::DELETE, &path)).await.status(), 204);
    assert_eq!(answer(from(ask(&tracker, token), "192.0.2.1")).await.status(), 401);
    assert_eq!(answer(from(ask(&tracker, token), "192.0.2.1")).await.status(), 429);
}

#[tokio::test]
async fn clicks_over_the_limit_are_redirected_as_ever_and_stored_as_not_valid() {
    let tracker = behind_a_proxy("limits_clicks", |b| b.env("OCTO_LIMITS__CLICKS_PER_MINUTE", "2")).await;
    tracker.simple_campaign("demo").await;
    // a campaign of its own for each click and no user agent twice: nothing else may find them alike
    for i in 0..6 {
        tracker.simple_campaign(&format!("c{i}")).await;
    }
    let click = async |i: u32, address: &str| {
        let agent = format!("Mozilla/5.0 (X11; Linux x86_64; rv:{}.0) Gecko/20100101 Firefox/{0}.0", 120 + i);
        let url = tracker.octo.url(&format!("/c/c{i}"));
        answer(from(tracker.octo.client().get(url), address).header("user-agent", agent)).await
    };
    let started = std::time::Instant::now();
    for i in 0..5 {
        let response = click(i, "192.0.2.1").await;
        assert_eq!(response.status(), 302);
        assert!(header(&response, "location").starts_with("https://offer.example/lp?cid="), "the same place");
    }
    let free_again = started.elapsed() > std::time::Duration::from_secs(30); // a slow machine
    assert_eq!(click(5, "192.0.2.2").await.status(), 302);
    tracker.wait_rows(Table::Clicks, 6).await;
    let rows: Vec<(bool, Option<String>)> =
        sqlx::query_as("SELECT is_valid, invalid_reason FROM clicks ORDER BY id")
            .fetch_all(&tracker.pool)
            .await
            .unwrap();
    let wanted = [true, true, false, false, false, true];
    let wanted = wanted.map(|is_valid| (is_valid, (!is_valid).then(|| "rate_limited".to_owned())));
    assert!(free_again || rows == wanted, "{rows:?}");
    assert!(tracker.octo.metric("octo_limited_total{limit=\"clicks\"}").await >= 1);
}

#[tokio::test]
async fn events_over_the_limit_are_refused_and_the_pixel_says_that_it_dropped_one() {
    let tracker = behind_a_proxy("limits_events", |b| b.env("OCTO_LIMITS__EVENTS_PER_MINUTE", "4")).await;
    tracker.simple_campaign("demo").await;
    let event = || json!({ "event_type": "view", "cid": "demo" });
    let client = tracker.octo.client();
    let post = |path: &str, body: Value, address: &str| {
        let request = client.post(tracker.octo.url(path)).header("origin", "https://page.example");
        from(request.json(&body), address)
    };
    assert_eq!(answer(post("/event", event(), "192.0.2.1")).await.status(), 202);
    assert_eq!(answer(post("/events", json!([event(), event(), event()]), "192.0.2.1")).await.status(), 202);
    for (path, body) in [("/event", event()), ("/events", json!([event()]))] {
        let refused = answer(post(path, body, "192.0.2.1")).await;
        assert_eq!(refused.status(), 429, "{path}");
        assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 1);
        let allowed = header(&refused, "access-control-allow-origin");
        assert_eq!(allowed, "https://page.example", "pages may read the refusal");
    }
    let pixel = client.get(tracker.octo.url("/event.gif?event_type=view&cid=demo"));
    let dropped = answer(from(pixel, "192.0.2.1")).await;
    assert_eq!(
        (dropped.status().as_u16(), header(&dropped, "x-octo-dropped").as_str()),
        (200, "rate_limited")
    );
    assert_eq!(dropped.bytes().await.unwrap().len(), 43);

    let many = Value::Array((0..5).map(|_| event()).collect());
    assert_eq!(answer(post("/events", many, "192.0.2.2")).await.status(), 202, "more than the bucket holds");
    assert_eq!(answer(post("/event", event(), "192.0.2.2")).await.status(), 429);
    tracker.wait_rows(Table::Events, 9).await;
    assert_eq!(tracker.octo.metric("octo_events_total{outcome=\"rate_limited\"}").await, 4);
}
