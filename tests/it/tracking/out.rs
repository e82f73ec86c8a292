//! `/out` and its other forms: from a landing page to an offer, whatever carries the click.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use octo::{
    model::id::ClickId,
    seal::{
        Purpose,
        keys::{Key, Keyring},
        token::Ticket,
    },
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{PgPool, Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, PrivatePostgres, eventually, migrate},
    tracker::{SOON, Table, Tracker, assert_roll_ups_agree, header},
};

const LANDER: &str = "https://lander.example/?t={click_token}&two={out_url:2}";

/// A campaign with a landing page and so many offers, `https://oN.example/`, in this order.
async fn funnel(tracker: &Tracker, key: &str, offers: usize) -> Value {
    tracker.campaign(funnel_body(key, offers)).await
}

fn funnel_body(key: &str, offers: usize) -> Value {
    let offer = |n: usize| {
        let url = format!("https://o{n}.example/?c={{click_id}}&s={{sub1}}&d={{country}}&l={{lander_name}}");
        json!({ "name": format!("offer {n}"), "url": url })
    };
    json!({
        "key": key,
        "name": key,
        "landing_pages": [{ "name": "page one", "url": LANDER }],
        "offers": (1..=offers).map(offer).collect::<Vec<_>>(),
    })
}

/// Clicks a link that leads to the landing page; the click's id, the token in its URL, and the cookie.
async fn land(octo: &Octo, path: &str) -> (Uuid, String, Option<String>) {
    let response = octo.get(path).await;
    let location = header(&response, "location");
    assert!(location.starts_with("https://lander.example/?t="), "{path}: {location}");
    let (token, rest) = location.split_once("t=").unwrap().1.split_once('&').unwrap();
    // a URL in a query: encoded as any value
    let two = percent_encoding::percent_decode_str(rest.strip_prefix("two=").unwrap()).decode_utf8().unwrap();
    assert!(two.ends_with(&format!("/out/2?k={token}")), "{two}");
    let cookie = response.headers().get("set-cookie").map(|value| value.to_str().unwrap().to_owned());
    (header(&response, "x-click-id").parse().unwrap(), token.to_owned(), cookie)
}

/// The host of a redirect's destination, and all of it.
fn destination(response: &Response) -> (String, String) {
    let location = header(response, "location");
    let host = location.split('/').nth(2).unwrap_or_default().to_owned();
    (host, location)
}

/// The newest out-click, once there are so many.
async fn stored(pool: &PgPool, count: i64) -> PgRow {
    eventually(SOON, async || {
        let rows = Table::OutClicks.count(pool).await?;
        anyhow::ensure!(rows == count, "{rows} out-clicks, not {count}");
        Ok(())
    })
    .await;
    sqlx::query("SELECT * FROM out_clicks ORDER BY created_at DESC, id DESC LIMIT 1")
        .fetch_one(pool)
        .await
        .unwrap()
}

fn text(row: &PgRow, column: &str) -> Option<String> {
    row.get(column)
}

fn keyring(octo: &Octo) -> Keyring {
    Keyring::open(octo.data_dir().join("token-keys.json")).unwrap()
}

/// An id of a click of so many days ago.
fn id_of(days: u64) -> ClickId {
    let at = ClickId::now().timestamp_ms() - days * 86_400_000;
    let uuid =
        uuid::Builder::from_unix_timestamp_millis(at, Uuid::new_v4().as_bytes()[..10].try_into().unwrap());
    ClickId::from_uuid(uuid.into_uuid()).unwrap()
}

#[tokio::test]
async fn a_visitor_goes_from_the_landing_page_to_an_offer_with_what_its_url_needs() {
    let tracker = Tracker::start("out_first").await;
    let campaign = funnel(&tracker, "demo", 2).await;
    let (click, token, cookie) = land(&tracker.octo, "/c/demo?sub1=a%20b").await;
    assert!(token.len() < 220, "{} characters: {token}", token.len());
    let cookie = cookie.expect("a cookie");
    assert_eq!(
        cookie,
        format!("octo_c={token}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"),
        "not Secure, because the public URL is not https"
    );

    let response = tracker.octo.get(&format!("/out/2?k={token}")).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    let offer_id = campaign["offers"][1]["id"].as_i64().unwrap();
    let wanted = format!("https://o2.example/?c={click}.{offer_id}&s=a%20b&d=&l=page%20one");
    assert_eq!(header(&response, "location"), wanted);
    assert_eq!(header(&response, "x-click-id"), click.to_string());
    assert_eq!(header(&response, "cache-control"), "no-store");

    let row = stored(&tracker.pool, 1).await;
    assert_eq!(row.get::<Uuid, _>("click_id"), click);
    assert_eq!(row.get::<Uuid, _>("campaign_id").to_string(), campaign["id"].as_str().unwrap());
    for (column, wanted) in [
        ("rule_id", Some(0)),
        ("path_id", Some(0)),
        ("landing_page_id", campaign["landing_pages"][0]["id"].as_i64()),
        ("offer_id", Some(offer_id)),
        ("position", Some(2)),
    ] {
        assert_eq!(row.get::<Option<i64>, _>(column), wanted, "{column}");
    }
    assert_eq!((text(&row, "carrier").as_deref(), text(&row, "problem")), (Some("token"), None));
    assert_eq!(text(&row, "browser").as_deref(), Some("Firefox"));
    assert_eq!(row.get::<Option<Vec<String>>, _>("routed"), Some(vec!["named".to_owned()]));

    // whoever sends the id back sends it with the offer
    let form = format!("{click}.{offer_id}");
    for path in [format!("/out-clicks?click_id={form}"), "/out-clicks".to_owned()] {
        let page = tracker.show(&path).await;
        assert_eq!(page["data"].as_array().map(Vec::len), Some(1), "{page}");
        assert_eq!(
            (&page["data"][0]["offer_id"], &page["data"][0]["is_valid"]),
            (&json!(offer_id), &json!(true))
        );
    }
    tracker.wait_rows(Table::Clicks, 1).await;
    assert_eq!(tracker.show(&format!("/clicks/{form}")).await["id"], json!(click));
    let event = json!({ "event_type": "sale", "click_id": form });
    let client = tracker.octo.client();
    let sent = client.post(tracker.octo.url("/event")).json(&event).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    tracker.wait_rows(Table::Events, 1).await;
    let events = tracker.show(&format!("/events?click_id={form}")).await;
    assert_eq!(events["data"][0]["click_id"], json!(click));
}

#[tokio::test]
async fn every_form_of_an_out_link_leads_on_with_a_token_and_with_the_cookie() {
    let tracker = Tracker::start("out_forms").await;
    let campaign = funnel(&tracker, "demo", 3).await;
    let (click, token, _) = land(&tracker.octo, "/c/demo").await;
    let third = campaign["offers"][2]["id"].as_i64().unwrap();
    let mut count = 0;
    for (path, nth) in [
        ("/out".to_owned(), None),
        ("/out/".to_owned(), None),
        ("/out/3".to_owned(), Some(3)),
        ("/out/no-number".to_owned(), None),
        ("/out/99".to_owned(), None),
        ("/?_lp=1".to_owned(), None),
        (format!("/?_lp=1&offer_id={third}"), Some(3)),
        ("/?_lp=1&offer_id=2".to_owned(), Some(2)),
        ("/click?lp=1".to_owned(), None),
        ("/click?lp=1&to_offer=2".to_owned(), Some(2)),
        ("/click.php?lp=1&to_offer=3".to_owned(), Some(3)),
        ("/click/1".to_owned(), Some(1)),
        ("/cf/click".to_owned(), None),
        ("/cf/click/2".to_owned(), Some(2)),
        ("/action/3".to_owned(), Some(3)),
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let client = tracker.octo.client();
        for name in ["k", "_token", "uclick", "cookie"] {
            let (path, cookie) = match name {
                "cookie" => (path.clone(), format!("a=1; octo_c={token}")),
                name => (format!("{path}{separator}{name}={token}"), "a=1".to_owned()),
            };
            let response = client.get(tracker.octo.url(&path)).header("cookie", cookie).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::FOUND, "{path}");
            assert_eq!(header(&response, "x-click-id"), click.to_string(), "{path}");
            let (host, location) = destination(&response);
            match nth {
                Some(nth) => assert_eq!(host, format!("o{nth}.example"), "{path}"),
                None => assert!(host.starts_with('o'), "{path}: {location}"),
            }
            count += 1;
        }
    }
    stored(&tracker.pool, count).await;
    let by_carrier: Vec<(String, Option<String>, i64)> =
        sqlx::query_as("SELECT carrier, problem, count(*) FROM out_clicks GROUP BY 1, 2 ORDER BY 1")
            .fetch_all(&tracker.pool)
            .await
            .unwrap();
    assert_eq!(
        by_carrier,
        [("cookie".to_owned(), None, count / 4), ("token".to_owned(), None, count / 4 * 3)]
    );
    // the same click is drawn the same offer
    let drawn: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT offer_id) FROM out_clicks WHERE position IS NULL AND routed IS NULL",
    )
    .fetch_one(&tracker.pool)
    .await
    .unwrap();
    assert_eq!(drawn, 1);
    // with a campaign it is the link of a click, whatever else it says
    assert!(destination(&tracker.octo.get("/click?cid=demo&lp=1").await).0.starts_with("lander"));
    assert_eq!(tracker.octo.get("/").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whatever_is_wrong_with_the_token_the_visitor_reaches_an_offer_and_the_reason_is_stored() {
    let tracker = Tracker::start("out_bad").await;
    let campaign = funnel(&tracker, "demo", 1).await;
    let id: Uuid = campaign["id"].as_str().unwrap().parse().unwrap();
    let (click, token, _) = land(&tracker.octo, "/c/demo?sub1=x").await;
    let ring = keyring(&tracker.octo);
    let now = chrono::Utc::now();
    let seal = |click, campaign| {
        Ticket { path_id: Some(0), ..Ticket::new(click, campaign) }.seal(&ring, Purpose::Out, now)
    };
    let old = seal(id_of(31), id);
    let gone = seal(ClickId::now(), Uuid::new_v4());
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = Keyring::open(elsewhere.path().join("k.json")).unwrap();
    let foreign = Ticket::new(ClickId::now(), id).seal(&elsewhere, Purpose::Out, now);
    let test = Ticket::new(ClickId::now(), id).seal(&ring, Purpose::Test, now);
    let (cut, bent) = (token[..token.len() - 1].to_owned(), token.replacen(&token[60..61], "_", 1));
    let good = format!("octo_c={token}");
    let mut count = 0;
    // without a token and without a campaign there is nowhere to go
    for (token, reason) in [
        (old.as_str(), "old_token"),
        (&gone, "unknown_campaign"),
        (&foreign, "foreign"),
        (&test, "bad_token"),
        (&cut, "bad_token"),
        (&bent, "bad_token"),
        ("rubbish", "bad_token"),
        ("%00%ff%22", "bad_token"),
        ("", "no_token"),
    ] {
        for (cookie, cid) in
            [(None, true), (None, false), (Some(good.as_str()), true), (Some("octo_c=rubbish"), true)]
        {
            let path = format!("/out?k={token}{}", if cid { "&cid=demo&sub1=said" } else { "" });
            let mut request = tracker.octo.client().get(tracker.octo.url(&path));
            if let Some(cookie) = cookie {
                request = request.header("cookie", cookie);
            }
            let response = request.send().await.unwrap();
            let knows_campaign = cid || reason == "old_token";
            if !knows_campaign {
                assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
                continue;
            }
            let (host, location) = destination(&response);
            assert_eq!(host, "o1.example", "{path}: {location}");
            count += 1;
            let row = stored(&tracker.pool, count).await;
            let is_of_cookie = cookie == Some(good.as_str());
            let carrier = match (is_of_cookie, reason) {
                (true, _) => "cookie",
                (false, "old_token") => "token",
                (false, _) => "none",
            };
            assert_eq!(text(&row, "carrier").as_deref(), Some(carrier), "{path} {cookie:?}");
            let problem = Some(reason).filter(|reason| !(is_of_cookie && *reason == "no_token"));
            assert_eq!(text(&row, "problem").as_deref(), problem, "{path} {cookie:?}");
            assert_eq!(row.get::<Uuid, _>("campaign_id"), id);
            if is_of_cookie {
                assert_eq!(location, format!("https://o1.example/?c={click}&s={}&d=&l=page%20one", "said"));
            } else if reason != "old_token" {
                assert_eq!(location, "https://o1.example/?c=&s=said&d=&l=", "no click is guessed");
            }
        }
    }
    assert_eq!(tracker.octo.get("/out").await.status(), StatusCode::NOT_FOUND);
    // an old cookie is better than none
    let request =
        tracker.octo.client().get(tracker.octo.url("/out")).header("cookie", format!("octo_c={old}"));
    assert_eq!(destination(&request.send().await.unwrap()).0, "o1.example");
    let row = stored(&tracker.pool, count + 1).await;
    assert_eq!(
        (text(&row, "carrier"), text(&row, "problem")),
        (Some("cookie".into()), Some("old_token".into()))
    );
    // a campaign that takes no clicks any more has not lost those who saw its landing page
    let path = format!("/campaigns/{id}/pause");
    assert_eq!(tracker.api(Method::POST, &path).send().await.unwrap().status(), 200);
    assert_eq!(destination(&tracker.octo.get(&format!("/out?k={token}")).await).0, "o1.example");
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn without_offers_the_fallbacks_take_the_visitor() {
    let set = |builder: crate::harness::OctoBuilder| {
        builder.env("OCTO_TRACKING__FALLBACK_URL", "https://all.example/")
    };
    let tracker = Tracker::start_with("out_fallback", set).await;
    let mut body = funnel_body("own", 0);
    body["fallback_url"] = json!("https://own.example/?c={click_id}&s={sub1}");
    tracker.campaign(body).await;
    tracker.campaign(funnel_body("none", 0)).await;
    let (click, token, _) = land(&tracker.octo, "/c/own?sub1=x").await;
    let response = tracker.octo.get(&format!("/out?k={token}")).await;
    assert_eq!(destination(&response).1, format!("https://own.example/?c={click}&s=x"));
    let row = stored(&tracker.pool, 1).await;
    assert_eq!(row.get::<Option<Vec<String>>, _>("routed"), Some(vec!["fallback".to_owned()]));
    assert_eq!(row.get::<Option<i64>, _>("offer_id"), None);
    let (_, token, _) = land(&tracker.octo, "/c/none").await;
    for path in [format!("/out?k={token}"), "/out".to_owned(), "/out?k=rubbish&cid=unheard-of".to_owned()] {
        assert_eq!(destination(&tracker.octo.get(&path).await).1, "https://all.example/", "{path}");
    }
    let row = stored(&tracker.pool, 4).await;
    assert_eq!(
        (text(&row, "problem").as_deref(), row.get::<Option<Uuid>, _>("campaign_id")),
        (Some("bad_token"), None)
    );
    for (outcome, wanted) in [("fallback", 2), ("unknown_campaign", 2), ("redirected", 0)] {
        let name = format!("octo_out_clicks_total{{outcome=\"{outcome}\"}}");
        assert_eq!(tracker.octo.metric(&name).await, wanted, "{outcome}");
    }
}

#[tokio::test]
async fn head_stores_nothing_and_a_post_is_an_out_click_answered_with_303() {
    let tracker = Tracker::start("out_methods").await;
    funnel(&tracker, "demo", 2).await;
    let (_, token, _) = land(&tracker.octo, "/c/demo").await;
    let client = tracker.octo.client();
    let url = tracker.octo.url(&format!("/out?k={token}"));
    let got = client.get(&url).send().await.unwrap();
    let head = client.head(&url).send().await.unwrap();
    assert_eq!((head.status(), destination(&head)), (StatusCode::FOUND, destination(&got)));
    let posted =
        client.post(tracker.octo.url("/out")).header("content-type", "application/x-www-form-urlencoded");
    let posted = posted.body(format!("to_offer=2&k={token}")).send().await.unwrap();
    assert_eq!((posted.status(), destination(&posted).0.as_str()), (StatusCode::SEE_OTHER, "o2.example"));
    let refused = client.delete(&url).send().await.unwrap();
    assert_eq!(
        (refused.status(), header(&refused, "allow").as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD, POST, OPTIONS")
    );
    assert_eq!(client.request(Method::OPTIONS, &url).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    stored(&tracker.pool, 2).await;
    // what a HEAD of a link is told leads on, and makes no figure
    let head = client.head(tracker.octo.url("/c/demo")).send().await.unwrap();
    assert!(head.headers().get("set-cookie").is_none());
    let location = header(&head, "location");
    let token = location.split_once("t=").unwrap().1.split_once('&').unwrap().0;
    assert!(destination(&tracker.octo.get(&format!("/out?k={token}")).await).0.starts_with('o'));
    let row = stored(&tracker.pool, 3).await;
    assert_eq!(text(&row, "invalid_reason").as_deref(), Some("prefetch"));
    assert_roll_ups_agree(&tracker.pool).await;
}

#[tokio::test]
async fn who_asks_for_privacy_gets_no_cookie_and_still_an_offer() {
    let tracker = Tracker::start("out_gpc").await;
    funnel(&tracker, "demo", 1).await;
    tracker
        .campaign(json!({
            "key": "agents",
            "name": "agents",
            "landing_pages": [{ "name": "p", "url": "https://lander.example/?t={click_token}&two={out_url:2}" }],
            "offers": [{ "name": "o", "url": "https://o.example/?ua={user_agent}&ip={ip}" }],
        }))
        .await;
    let client = tracker.octo.client();
    let click = client.get(tracker.octo.url("/c/agents")).header("sec-gpc", "1").send().await.unwrap();
    assert!(click.headers().get("set-cookie").is_none());
    let location = header(&click, "location");
    let token = location.split_once("t=").unwrap().1.split_once('&').unwrap().0.to_owned();
    let response = client.get(tracker.octo.url(&format!("/out?k={token}"))).send().await.unwrap();
    assert_eq!(
        destination(&response).1,
        "https://o.example/?ua=&ip=",
        "nothing of the visitor was in the token"
    );
    // and where the landing page takes no token either
    let plain = json!({ "key": "plain", "name": "p", "landing_pages": [{ "name": "p", "url": "https://l.example/" }], "offers": [{ "name": "o", "url": "https://o.example/" }] });
    tracker.campaign(plain).await;
    let click = client.get(tracker.octo.url("/c/plain")).header("sec-gpc", "1").send().await.unwrap();
    assert!(click.headers().get("set-cookie").is_none());
    assert!(
        client.get(tracker.octo.url("/c/plain")).send().await.unwrap().headers().contains_key("set-cookie")
    );
    let response =
        client.get(tracker.octo.url("/out?cid=plain")).header("sec-gpc", "1").send().await.unwrap();
    assert_eq!(destination(&response).0, "o.example");
}

#[tokio::test]
async fn repeats_are_stored_and_a_click_counts_once_however_often_it_goes_on() {
    let tracker = Tracker::start("out_figures").await;
    funnel(&tracker, "demo", 2).await;
    let mut tokens = Vec::new();
    for _ in 0..4 {
        tokens.push(land(&tracker.octo, "/c/demo").await.1);
    }
    for _ in 0..3 {
        tracker.octo.get(&format!("/out?k={}", tokens[0])).await;
    }
    tracker.octo.get(&format!("/out/2?k={}", tokens[1])).await;
    let client = tracker.octo.client();
    let prefetch =
        client.get(tracker.octo.url(&format!("/out?k={}", tokens[2]))).header("sec-purpose", "prefetch");
    assert_eq!(prefetch.send().await.unwrap().status(), StatusCode::FOUND);
    let robot = client
        .get(tracker.octo.url(&format!("/out?k={}", tokens[2])))
        .header("user-agent", "Googlebot/2.1 (+http://www.google.com/bot.html)");
    assert_eq!(robot.send().await.unwrap().status(), StatusCode::FOUND);
    tracker.octo.get(&format!("/out?k={}&exit=1", tokens[3])).await;
    stored(&tracker.pool, 7).await;
    let reasons: Vec<(Option<String>, i64)> =
        sqlx::query_as("SELECT invalid_reason, count(*) FROM out_clicks GROUP BY 1 ORDER BY 1 NULLS FIRST")
            .fetch_all(&tracker.pool)
            .await
            .unwrap();
    assert_eq!(
        reasons,
        [(None, 4), (Some("bot".into()), 1), (Some("exit".into()), 1), (Some("prefetch".into()), 1)]
    );
    let figures = async || {
        let stats = tracker.show("/campaigns/demo/stats").await;
        (stats["totals"]["lander_views"].clone(), stats["totals"]["lander_clicks"].clone())
    };
    assert_eq!(figures().await, (json!(4), json!(2)));
    assert_roll_ups_agree(&tracker.pool).await;

    // a correction takes a click out of both, and puts it back into both
    let (clicked,): (Uuid,) =
        sqlx::query_as("SELECT click_id FROM out_clicks WHERE is_valid ORDER BY created_at LIMIT 1")
            .fetch_one(&tracker.pool)
            .await
            .unwrap();
    for (is_valid, wanted) in [(false, (3, 1)), (true, (4, 2))] {
        let body = json!({ "is_valid": is_valid, "invalid_reason": if is_valid { Value::Null } else { json!("fraud") } });
        let corrected =
            tracker.api(Method::PATCH, &format!("/clicks/{clicked}")).json(&body).send().await.unwrap();
        assert_eq!(corrected.status(), 200);
        assert_roll_ups_agree(&tracker.pool).await;
        let sums: (i64, i64) = sqlx::query_as(
            "SELECT sum(lander_views)::bigint, sum(lander_clicks)::bigint FROM campaign_stats_hourly",
        )
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
        assert_eq!(sums, wanted);
    }
}

/// Its node is behind: the out-click is in the database before the click is.
#[tokio::test]
async fn an_out_click_that_is_stored_before_its_click_is_counted_once_the_click_is_there() {
    let database = Database::create("out_before").await;
    let (first, second) =
        (Octo::builder().database_url(database.url()), Octo::builder().database_url(database.url()));
    let first = first.env("OCTO_DRAIN__LINGER_MS", "3000").start().await;
    let second = second.start().await;
    let pool = database.pool().await;
    let token = first.admin_token().await;
    first.api(&token).create(&funnel_body("demo", 1)).await;
    eventually(SOON, async || {
        anyhow::ensure!(second.get("/c/demo").await.status() == 302);
        Ok(())
    })
    .await;
    let before: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&pool).await.unwrap();
    let (click, token, _) = land(&first, "/c/demo").await;
    assert_eq!(
        destination(&second.get(&format!("/out?k={token}")).await).0,
        "o1.example",
        "a token of the other node"
    );
    stored(&pool, 1).await;
    let waits: bool = sqlx::query_scalar("SELECT NOT is_counted FROM out_click_keys WHERE click_id = $1")
        .bind(click)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(waits, "the click is not there yet ({before} others are)");
    eventually(SOON, async || {
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks WHERE id = $1")
            .bind(click)
            .fetch_one(&pool)
            .await?;
        anyhow::ensure!(there == 1, "the click is not stored");
        Ok(())
    })
    .await;
    // the next out-click that is stored, of whichever click, counts it
    let (_, token, _) = land(&second, "/c/demo").await;
    second.get(&format!("/out?k={token}")).await;
    stored(&pool, 2).await;
    eventually(SOON, async || {
        let counted: i64 = sqlx::query_scalar("SELECT count(*) FROM out_click_keys WHERE is_counted")
            .fetch_one(&pool)
            .await?;
        anyhow::ensure!(counted == 2, "{counted} counted");
        Ok(())
    })
    .await;
    assert_roll_ups_agree(&pool).await;
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The id of the key that a token was sealed with.
fn key_of(token: &str) -> u32 {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    u32::from_le_bytes(bytes[1..5].try_into().unwrap())
}

#[tokio::test]
async fn tokens_open_at_every_node_and_after_a_new_key_has_taken_over() {
    let database = Database::create("out_keys").await;
    let builder =
        || Octo::builder().database_url(database.url()).env("OCTO_TRACKING__TOKEN_KEYS_POLL_S", "1");
    let (a, b) = (builder().start().await, builder().start().await);
    let api = a.admin_token().await;
    a.api(&api).create(&funnel_body("demo", 1)).await;
    eventually(SOON, async || {
        anyhow::ensure!(b.get("/c/demo").await.status() == 302);
        Ok(())
    })
    .await;
    let (_, old, _) = land(&a, "/c/demo").await;
    let leads_on = async |octo: &Octo, token: &str| {
        let response = octo.get(&format!("/out?k={token}")).await;
        response.status() == 302 && response.headers().contains_key("x-click-id")
    };
    assert!(leads_on(&b, &old).await, "one key of both");
    assert_eq!(key_of(&land(&b, "/c/demo").await.1), key_of(&old));
    let file = a.data_dir().join("token-keys.json");
    assert_eq!(mode(&file), 0o600);

    // a week later the next one is made, and it seals an hour after that
    let pool = database.pool().await;
    let week = "UPDATE seal_keys SET seals_from = seals_from - interval '8 days'";
    sqlx::query(week).execute(&pool).await.unwrap();
    eventually(SOON, async || {
        let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM seal_keys").fetch_one(&pool).await?;
        anyhow::ensure!(keys == 2, "{keys} keys");
        Ok(())
    })
    .await;
    assert_eq!(key_of(&land(&a, "/c/demo").await.1), key_of(&old), "not yet");
    let hour = "UPDATE seal_keys SET seals_from = now() - interval '1 second' WHERE seals_from > now()";
    sqlx::query(hour).execute(&pool).await.unwrap();
    eventually(SOON, async || {
        for octo in [&a, &b] {
            anyhow::ensure!(key_of(&land(octo, "/c/demo").await.1) != key_of(&old));
        }
        Ok(())
    })
    .await;
    let (_, new, _) = land(&b, "/c/demo").await;
    for token in [&old, &new] {
        assert!(leads_on(&a, token).await && leads_on(&b, token).await);
    }
    // after another month nothing of the first one is alive; what the nodes know of its age they are told first
    let long_ago = "UPDATE seal_keys SET created_at = '2020-01-01 00:00:00+00'";
    sqlx::query(long_ago).execute(&pool).await.unwrap();
    eventually(SOON, async || {
        for octo in [&a, &b] {
            let kept = fs::read_to_string(octo.data_dir().join("token-keys.json"))?;
            anyhow::ensure!(kept.matches("2020-01-01").count() == 2, "{kept}");
        }
        Ok(())
    })
    .await;
    let month = "UPDATE seal_keys SET seals_from = seals_from - interval '33 days'";
    sqlx::query(month).execute(&pool).await.unwrap();
    eventually(SOON, async || {
        anyhow::ensure!(!leads_on(&a, &old).await && leads_on(&a, &new).await);
        Ok(())
    })
    .await;
    let kept = fs::read_to_string(&file).unwrap();
    assert_eq!(kept.matches("made_at").count(), 2, "the second, and the third, which is due: {kept}");
    for octo in [&a, &b] {
        for secret in kept.split('"').filter(|part| part.len() == 44) {
            assert!(!octo.stderr().contains(secret), "a key is in the log");
        }
    }
}

#[tokio::test]
async fn a_key_that_a_node_made_alone_opens_everywhere_once_postgres_knows_it() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let builder =
        || Octo::builder().database_url(postgres.url()).env("OCTO_TRACKING__TOKEN_KEYS_POLL_S", "1");
    let (mut alone, other) = (builder().start().await, builder().start().await);
    let api = alone.admin_token().await;
    alone.api(&api).create(&funnel_body("demo", 1)).await;
    eventually(SOON, async || {
        anyhow::ensure!(
            other.get("/c/demo").await.status() == 302 && alone.get("/c/demo").await.status() == 302
        );
        Ok(())
    })
    .await;
    let (_, shared, _) = land(&other, "/c/demo").await;
    alone.kill9().await;
    fs::remove_file(alone.data_dir().join("token-keys.json")).unwrap();
    postgres.stop_fast().await;
    alone.start_again().await;
    let (_, own, _) = land(&alone, "/c/demo").await;
    assert_ne!(key_of(&own), key_of(&shared));
    let has_click = async |octo: &Octo, token: &str| {
        octo.get(&format!("/out?k={token}&cid=demo")).await.headers().contains_key("x-click-id")
    };
    assert!(
        has_click(&alone, &own).await && !has_click(&alone, &shared).await && !has_click(&other, &own).await
    );
    assert_eq!(destination(&other.get(&format!("/out?k={own}&cid=demo")).await).0, "o1.example");
    postgres.start_again().await;
    eventually(Duration::from_secs(30), async || {
        for octo in [&alone, &other] {
            anyhow::ensure!(has_click(octo, &own).await, "the key of the lonely one");
            anyhow::ensure!(has_click(octo, &shared).await, "the key of all");
        }
        Ok(())
    })
    .await;
    // and it seals no more
    assert_eq!(key_of(&land(&alone, "/c/demo").await.1), key_of(&shared));
    // it does not come from what was guessed: the ring of the file has both
    let ids: Vec<u32> = keyring(&alone).keys().iter().map(Key::id).collect();
    assert!(ids.contains(&key_of(&own)) && ids.contains(&key_of(&shared)));
}

#[tokio::test]
async fn a_test_link_leads_where_it_says_and_its_click_does_not_count() {
    let tracker = Tracker::start("out_test_link").await;
    let mut body = funnel_body("demo", 2);
    body["status"] = json!("draft");
    let campaign = tracker.campaign(body).await;
    let make = async |body: Value| {
        let response =
            tracker.api(Method::POST, "/campaigns/demo/test-link").json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let path = |link: &Value| {
        link["url"]
            .as_str()
            .unwrap()
            .split_once("/click?")
            .map(|(_, query)| format!("/click?{query}"))
            .unwrap()
    };
    let offer = campaign["offers"][1]["id"].as_i64().unwrap();
    let page = campaign["landing_pages"][0]["id"].as_i64().unwrap();
    for (choices, host) in [
        (json!({ "offer_id": offer }), "o2.example"),
        (json!({ "landing_page_id": page }), "lander.example"),
        (json!({ "rule_id": 0, "path_id": 0 }), "lander.example"),
    ] {
        let (status, link) = make(choices.clone()).await;
        assert_eq!(status, 200, "{link}");
        let response = tracker.octo.get(&path(&link)).await;
        assert_eq!(destination(&response).0, host, "{choices}");
        assert!(!destination(&response).1.contains("octo_test"));
    }
    tracker.wait_rows(Table::Clicks, 3).await;
    let reasons: Vec<Option<String>> = sqlx::query_scalar("SELECT DISTINCT invalid_reason FROM clicks")
        .fetch_all(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(reasons, [Some("test".to_owned())]);
    let (status, problem) = make(json!({ "offer_id": 999_999, "lander": 1 })).await;
    assert_eq!((status, problem["errors"].as_array().map(Vec::len)), (422, Some(2)), "{problem}");

    // of another campaign, of another kind, bent or too old it is a link like any other: the draft takes no click
    let ring = keyring(&tracker.octo);
    let id: Uuid = campaign["id"].as_str().unwrap().parse().unwrap();
    let seal = |click, campaign, purpose| {
        Ticket { offer_id: Some(offer), ..Ticket::new(click, campaign) }.seal(
            &ring,
            purpose,
            chrono::Utc::now(),
        )
    };
    for (token, is_good) in [
        (seal(ClickId::now(), id, Purpose::Test), true),
        (seal(ClickId::now(), id, Purpose::Out), false),
        (seal(ClickId::now(), Uuid::new_v4(), Purpose::Test), false),
        (seal(id_of(2), id, Purpose::Test), false),
        ("rubbish".to_owned(), false),
    ] {
        let status = tracker.octo.get(&format!("/click?cid=demo&octo_test={token}")).await.status();
        assert_eq!(status == StatusCode::FOUND, is_good, "{token}: {status}");
    }
}

#[tokio::test]
async fn an_out_click_that_postgres_refuses_is_a_dead_letter_and_is_exported_and_erased_with_its_click() {
    let tracker = Tracker::start("out_letters").await;
    funnel(&tracker, "demo", 2).await;
    let refuse = "
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.position = 13 THEN RAISE EXCEPTION 'unlucky' USING ERRCODE = '23514'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON out_clicks FOR EACH ROW EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refuse).execute(&tracker.pool).await.unwrap();
    let (click, token, _) = land(&tracker.octo, "/c/demo?sub1=alice").await;
    for path in ["/out/13", "/out/1", "/out/13"] {
        assert_eq!(tracker.octo.get(&format!("{path}?k={token}")).await.status(), StatusCode::FOUND);
    }
    let (_, other, _) = land(&tracker.octo, "/c/demo?sub1=bob").await;
    tracker.octo.get(&format!("/out?k={other}")).await;
    stored(&tracker.pool, 2).await;
    tracker.wait_rows(Table::DeadLetters, 2).await;
    let letters = tracker.show("/dead-letters").await;
    let letter = &letters["data"][0];
    assert_eq!(letter["record"]["out_click"]["click_id"], json!(click), "{letter}");
    sqlx::raw_sql("DROP TRIGGER refuse ON out_clicks").execute(&tracker.pool).await.unwrap();
    let path = format!("/dead-letters/{}/{}/retry", letter["stream"].as_str().unwrap(), letter["seq"]);
    let retried = tracker.api(Method::POST, &path).send().await.unwrap();
    assert!(retried.status().is_success(), "{path}: {}", retried.status());
    stored(&tracker.pool, 3).await;
    assert_roll_ups_agree(&tracker.pool).await;

    let run = async |verb: &str| {
        let url = tracker.database.url();
        let builder = Octo::builder().database_url(url).data_dir(tracker.octo.data_dir());
        let output = builder.run(&["privacy", verb, "--sub", "sub1=alice"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let document = run("export").await;
    assert_eq!(
        (document["clicks"].as_array().unwrap().len(), document["out_clicks"].as_array().unwrap().len()),
        (1, 2)
    );
    assert_eq!(document["dead_letters"][0]["out_click"]["position"], 13);
    let erased = run("erase").await["erased"].clone();
    assert_eq!(
        (&erased["clicks"], &erased["out_clicks"], &erased["dead_letters"]),
        (&json!(1), &json!(2), &json!(1))
    );
    assert_eq!(
        (&erased["journal_records"], Table::OutClicks.count(&tracker.pool).await.unwrap()),
        (&json!(4), 1)
    );
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM out_click_keys WHERE click_id = $1")
        .bind(click)
        .fetch_one(&tracker.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
