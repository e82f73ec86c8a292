//! Postbacks out, to receivers that fail, are silent and forget; on two nodes, one of which is killed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::ensure;
use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{TimeDelta, Utc};
use octo::{
    config::{Flags, Loaded},
    db::{
        Db, Statement,
        ingest::deliveries::{Change, enqueue},
    },
    model::{
        conversion::{ConversionKind, Status},
        id::ClickId,
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    harness::{Database, Octo, OctoBuilder, Scratch, api::answer, eventually, free_address},
    tools::Tool,
    tracker::{SOON, Tracker},
};

const ENQUEUE: Statement = Statement::new("deliveries.insert_test", "SELECT 1");

/// What came to a receiver.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    query: HashMap<String, String>,
    headers: BTreeMap<String, String>,
    body: String,
    /// Whether the receiver said that it took it.
    is_confirmed: bool,
}

/// Somebody who is told, and who answers as `answer` says: 200 is a confirmation.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    async fn start(answer: impl Fn(&Got, usize) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let log = got.clone();
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let query = parts.uri.query().unwrap_or_default();
            let headers = parts.headers.iter();
            let mut it = Got {
                path: parts.uri.path().to_owned(),
                query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
                headers: headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect(),
                body: String::from_utf8(body.to_vec()).unwrap(),
                is_confirmed: false,
            };
            let count = log.lock().unwrap_or_else(PoisonError::into_inner).len();
            let reply = answer(&it, count);
            it.is_confirmed = matches!(reply, Reply::Status(200, ..));
            log.lock().unwrap_or_else(PoisonError::into_inner).push(it);
            reply.send().await
        });
        let listener = tokio::net::TcpListener::bind(free_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, got }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn url(&self, path_and_query: &str) -> String {
        format!("http://{}{path_and_query}", self.address)
    }
}

enum Reply {
    Status(u16, Vec<(&'static str, String)>, &'static str),
    /// None within the time-out.
    Silence,
}

impl Reply {
    fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), "")
    }

    async fn send(self) -> Response {
        let Self::Status(status, headers, body) = self else {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return StatusCode::OK.into_response();
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(body.into()).unwrap()
    }
}

/// A loopback receiver may be called, and time runs faster.
fn quick(builder: OctoBuilder) -> OctoBuilder {
    builder
        .env("OCTO_DELIVERIES__ALLOWED_NETWORKS", "127.79.0.0/16")
        .env("OCTO_DELIVERIES__POLL_INTERVAL_MS", "20")
        .env("OCTO_DELIVERIES__TIMEOUT_MS", "500")
        .env("OCTO_DELIVERIES__LEASE_MS", "2000")
        .env("OCTO_DELIVERIES__SCHEDULE_S", ["0"; 20].join(","))
        .env("OCTO_DELIVERIES__PAUSE_FAILURES", "1000")
}

fn db(database: &Database) -> Db {
    let loaded = Loaded::load(None, [], &Flags::default()).unwrap();
    Db::new(&database.url().into(), &loaded.config.database).unwrap()
}

/// Stores clicks with a conversion each, as the drain does, and says what they become.
async fn conversions(pool: &PgPool, count: usize) -> Vec<Change> {
    let campaign_id = Uuid::now_v7();
    let mut changes = Vec::new();
    for i in 0..count {
        let click_id: ClickId = Uuid::now_v7().to_string().parse().unwrap();
        let (id, at) = (click_id.uuid(), click_id.created_at());
        let external = format!("ext {i}");
        sqlx::query(
            "INSERT INTO clicks (id, campaign_id, is_valid, is_bot, click_id_param, sub1, created_at, updated_at)
             VALUES ($1, $2, true, false, $3, 'banner 7', $4, $4)",
        )
        .bind(id)
        .bind(campaign_id)
        .bind(&external)
        .bind(at)
        .execute(pool)
        .await
        .unwrap();
        let conversion_id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO conversions (
                 id, campaign_id, click_id, goal, txid, nth, kind, status, payout, currency, flags, is_click_valid,
                 converted_at, first_at, last_at, created_at
             ) VALUES ($1, $2, $3, 'sale', 'tx-1', 0, 'conversion', 'approved', 2.5, 'USD', '{}', true, $4, $4, $4, $4)",
        )
        .bind(conversion_id)
        .bind(campaign_id)
        .bind(id)
        .bind(at)
        .execute(pool)
        .await
        .unwrap();
        changes.push(Change {
            campaign_id,
            conversion_id,
            click_id,
            path_id: None,
            offer_id: None,
            source_id: None,
            from_status: None,
            to_status: Status::Approved,
            goal: "sale".to_owned(),
            kind: ConversionKind::Conversion,
            payout: "2.5".parse().unwrap(),
            currency: "USD".to_owned(),
            changed_at: Utc::now(),
            is_part: false,
            arrived_at: Utc::now(),
            is_click_valid: true,
        });
    }
    changes
}

fn then(change: &Change, to_status: Status) -> Change {
    Change { from_status: Some(change.to_status), to_status, ..change.clone() }
}

async fn queue(db: &Db, changes: Vec<Change>) -> u64 {
    db.write(ENQUEUE, move |c| Box::pin(async move { enqueue(c, &changes).await })).await.unwrap()
}

async fn target(tracker: &Tracker, body: Value) -> i64 {
    let (status, made) = answer(tracker.api(Method::POST, "/postback-targets").json(&body)).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_i64().unwrap()
}

async fn states(pool: &PgPool) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT state, count(*) FROM deliveries GROUP BY 1").fetch_all(pool).await.unwrap();
    rows.into_iter().collect()
}

async fn wait_state(pool: &PgPool, state: &str, count: i64, within: Duration) {
    eventually(within, async || {
        let states = states(pool).await;
        ensure!(states.get(state) == Some(&count), "{states:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn every_change_arrives_in_order_at_a_receiver_that_fails_and_forgets_while_a_node_is_killed() {
    const COUNT: usize = 60;
    // it fails, is silent, or takes it and says that it failed
    let receiver = Receiver::start(|_, _| match fastrand::u8(..10) {
        0..=2 => Reply::status(500),
        3 => Reply::Silence,
        _ => Reply::status(200),
    })
    .await;
    let mut tracker = Tracker::start_with("deliveries", quick).await;
    let mut other = quick(Octo::builder().database_url(tracker.database.url())).start().await;
    let url = receiver.url("/p?d={delivery_id}&conversion={conversion_id}&s={status}");
    let all = json!({ "name": "all", "url": url, "mode": "all", "statuses": ["pending", "approved"], "takes_refunds": true });
    let first = json!({ "name": "first", "url": receiver.url("/first?d={delivery_id}&conversion={conversion_id}&s={status}") });
    target(&tracker, all).await;
    target(&tracker, first).await;

    let db = db(&tracker.database);
    let made = conversions(&tracker.pool, COUNT).await;
    let pending: Vec<Change> =
        made.iter().map(|c| Change { to_status: Status::Pending, ..c.clone() }).collect();
    let approved: Vec<Change> = pending.iter().map(|change| then(change, Status::Approved)).collect();
    let refunded: Vec<Change> = approved.iter().map(|change| then(change, Status::Refunded)).collect();
    queue(&db, pending.clone()).await;
    queue(&db, approved.clone()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.kill9().await;
    queue(&db, refunded.clone()).await;
    other.start_again().await;
    // a replay queues nothing twice
    for changes in [pending, approved, refunded] {
        assert_eq!(queue(&db, changes).await, 0);
    }
    let (all, told) = (i64::try_from(COUNT).unwrap(), i64::try_from(COUNT * 4).unwrap());
    wait_state(&tracker.pool, "delivered", told, SOON * 6).await;
    // `first` takes no refunds
    assert_eq!(states(&tracker.pool).await.get("not_supported"), Some(&all));

    let mut confirmed: HashMap<(String, String), Vec<(String, String)>> = HashMap::new();
    for got in receiver.got().into_iter().filter(|got| got.is_confirmed) {
        let of = |name: &str| got.query[name].clone();
        confirmed.entry((got.path.clone(), of("conversion"))).or_default().push((of("s"), of("d")));
    }
    assert_eq!(confirmed.len(), COUNT * 2);
    let mut again = 0;
    for ((path, _), mut told) in confirmed {
        let count = told.len();
        told.dedup(); // the same delivery, told again because its node died
        again += count - told.len();
        let statuses: Vec<&str> = told.iter().map(|(status, _)| status.as_str()).collect();
        let wanted: &[&str] =
            if path == "/first" { &["approved"] } else { &["pending", "approved", "refunded"] };
        assert_eq!(statuses, wanted, "in the order of the changes, {path}");
        let ids: BTreeSet<&String> = told.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), told.len(), "a delivery has an id of its own");
    }
    println!("{again} of {told} were confirmed more than once, by the kill");
    assert!(again <= 64, "only what was under way: {again}");
    tracker.octo.kill9().await;
}

#[tokio::test]
async fn a_target_that_fails_is_paused_and_goes_on_when_it_is_resumed() {
    let is_well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = is_well.clone();
    let receiver = Receiver::start(move |_, _| {
        Reply::status(if asked.load(std::sync::atomic::Ordering::Relaxed) { 200 } else { 500 })
    })
    .await;
    let tracker =
        Tracker::start_with("deliveries_paused", |b| quick(b).env("OCTO_DELIVERIES__PAUSE_FAILURES", "20"))
            .await;
    let id = target(&tracker, json!({ "name": "t", "url": receiver.url("/?d={delivery_id}") })).await;
    let db = db(&tracker.database);
    let made = conversions(&tracker.pool, 4).await;
    queue(&db, made).await;
    let path = format!("/postback-targets/{id}");
    eventually(SOON, async || {
        let shown = tracker.show(&path).await;
        ensure!(shown["pause_reason"] == "failures", "{shown}");
        Ok(())
    })
    .await;
    wait_state(&tracker.pool, "pending", 4, SOON).await;
    let count = receiver.got().len();
    assert!((20..40).contains(&count), "{count}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.got().len(), count, "a paused target is left alone");
    let log = tracker.octo.stderr();
    for wanted in ["postbacks to a target fail", "is paused"] {
        assert!(log.contains(wanted), "{wanted}");
    }
    eventually(SOON, async || {
        let health: Value = tracker.octo.get("/health").await.json().await?;
        let components = health["components"].as_array().cloned().unwrap_or_default();
        let deliveries = components.iter().find(|component| component["name"] == "deliveries").cloned();
        ensure!(deliveries.as_ref().is_some_and(|it| it["status"] == "degraded"), "{deliveries:?}");
        Ok(())
    })
    .await;
    is_well.store(true, std::sync::atomic::Ordering::Relaxed);
    let (status, resumed) = answer(tracker.api(Method::POST, &format!("{path}/resume"))).await;
    assert_eq!((status.as_u16(), &resumed["paused_at"]), (200, &Value::Null));
    wait_state(&tracker.pool, "delivered", 4, SOON).await;
}

#[tokio::test]
async fn answers_have_their_consequences() {
    let receiver = Receiver::start(|got, _| match got.path.as_str() {
        "/gone" => Reply::status(410),
        "/refused" => Reply::status(404),
        "/redirect" => Reply::Status(302, vec![("location", "/ok".to_owned())], ""),
        "/exo" => Reply::Status(200, Vec::new(), "ERROR: unknown tag"),
        "/quiet" => Reply::Status(429, vec![("retry-after", "60".to_owned())], ""),
        _ => Reply::status(200),
    })
    .await;
    let tracker = Tracker::start_with("deliveries_answers", quick).await;
    let mut ids = HashMap::new();
    for (name, more) in [
        ("gone", json!({})),
        ("refused", json!({})),
        ("redirect", json!({})),
        ("exo", json!({ "template": "exoclick", "is_active": true })),
        ("quiet", json!({})),
        ("inner", json!({ "url": "http://127.0.0.1:1/?d={delivery_id}" })),
        ("expired", json!({ "window_days": 1 })),
        ("ok", json!({ "follow_redirects": 1, "url": receiver.url("/redirect?x=1") })),
    ] {
        let mut body = json!({ "name": name, "url": receiver.url(&format!("/{name}?d={{delivery_id}}")) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ids.insert(name, target(&tracker, body).await);
    }
    let made: Vec<Change> = conversions(&tracker.pool, 1)
        .await
        .into_iter()
        .map(|change| Change { changed_at: Utc::now() - TimeDelta::days(2), ..change })
        .collect();
    assert_eq!(queue(&db(&tracker.database), made).await, 8);

    for (name, state, reason) in [
        ("gone", "pending", None),
        ("refused", "dead", Some("refused")),
        ("redirect", "dead", Some("attempts")),
        ("exo", "dead", Some("attempts")),
        ("quiet", "pending", None),
        ("inner", "dead", Some("attempts")),
        ("expired", "dead", Some("expired")),
        ("ok", "delivered", None),
    ] {
        let path = format!("/deliveries?target_id={}", ids[name]);
        let found = eventually(SOON * 2, async || {
            let found = tracker.show(&path).await["data"][0].clone();
            ensure!(found["state"] == state && found["reason"].as_str() == reason, "{name}: {found}");
            ensure!(name == "expired" || found["attempts"].as_i64() > Some(0), "{name}: {found}");
            Ok(found)
        })
        .await;
        let shown = tracker.show(&format!("/deliveries/{}", found["id"].as_str().unwrap())).await;
        let requests = shown["requests"].as_array().unwrap();
        assert_eq!(
            requests.len(),
            usize::try_from(found["attempts"].as_i64().unwrap()).unwrap() - usize::from(name == "expired"),
            "{name}"
        );
        match name {
            "inner" => assert!(requests[0]["error"].as_str().unwrap().contains("not public"), "{shown}"),
            "refused" => assert_eq!(requests.len(), 3),
            "exo" => assert_eq!(requests[0]["answer"], "ERROR: unknown tag"),
            "quiet" => {
                let next: chrono::DateTime<Utc> = found["next_at"].as_str().unwrap().parse().unwrap();
                assert!(next > Utc::now() + TimeDelta::seconds(50), "{found}");
            }
            _ => {}
        }
    }
    let gone = tracker.show(&format!("/postback-targets/{}", ids["gone"])).await;
    assert_eq!(gone["pause_reason"], "gone");
    let quiet = tracker.show(&format!("/postback-targets/{}", ids["quiet"])).await;
    assert!(quiet["held_until"].is_string() && quiet["failures_in_a_row"] == 0, "{quiet}");

    // by hand
    let refused = tracker.show(&format!("/deliveries?target_id={}&state=dead", ids["refused"])).await;
    let id = refused["data"][0]["id"].as_str().unwrap();
    let (status, _) = answer(tracker.api(Method::POST, &format!("/deliveries/{id}/retry"))).await;
    assert_eq!(status, 200);
    let ok = tracker.show(&format!("/deliveries?target_id={}", ids["ok"])).await;
    let id = ok["data"][0]["id"].as_str().unwrap();
    let (status, problem) = answer(tracker.api(Method::POST, &format!("/deliveries/{id}/retry"))).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("not_retryable")));
    let (from, to) = (Utc::now() - TimeDelta::hours(1), Utc::now() + TimeDelta::hours(1));
    let mut replay =
        json!({ "target_id": ids["ok"], "from": from, "to": to, "states": ["delivered"], "dry_run": true });
    let before = receiver.got().iter().filter(|got| got.path == "/ok").count();
    for is_dry in [true, false] {
        replay["dry_run"] = is_dry.into();
        let (_, replayed) = answer(tracker.api(Method::POST, "/deliveries/replay").json(&replay)).await;
        assert_eq!((&replayed["count"], &replayed["is_dry_run"]), (&json!(1), &json!(is_dry)), "{replayed}");
    }
    eventually(SOON, async || {
        let now = receiver.got().iter().filter(|got| got.path == "/ok").count();
        ensure!(now == before + 1, "{now}, {before} before");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn nobody_is_told_of_what_is_not_theirs() {
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    let tracker = Tracker::start_with("deliveries_filters", quick).await;
    let url = receiver
        .url("/p?id={external_click_id}&sum={payout}&s={status:approved=sale}&sub={sub1}&tx={txid}&key=abc");
    let (_, source) = answer(
        tracker.api(Method::POST, "/traffic-sources").json(&json!({ "name": "Ads", "postback_url": url })),
    )
    .await;
    let source_id = source["id"].as_i64();
    let targets = tracker.show(&format!("/postback-targets?traffic_source_id={}", source["id"])).await;
    let default = &targets["data"][0];
    assert_eq!((&default["is_default"], &default["is_active"]), (&json!(true), &json!(true)), "{targets}");
    assert!(default["url"].as_str().unwrap().ends_with("&key=***"), "{default}");
    let half = json!({ "payout_rule": "factor", "payout_factor": "0.5", "goals": ["sale"] });
    let path = format!("/postback-targets/{}", default["id"]);
    assert_eq!(answer(tracker.api(Method::PATCH, &path).json(&half)).await.0, 200);
    let (status, refused) =
        answer(tracker.api(Method::PATCH, &path).json(&json!({ "url": "https://b.example/" }))).await;
    assert_eq!((status.as_u16(), &refused["errors"][0]["code"]), (422, &json!("read_only")));
    assert_eq!(answer(tracker.api(Method::DELETE, &path)).await.0, 409);

    let db = db(&tracker.database);
    let made = conversions(&tracker.pool, 7).await;
    let of = |i: usize| Change { source_id, ..made[i].clone() };
    sqlx::query("UPDATE clicks SET click_id_param = NULL WHERE id = $1")
        .bind(made[1].click_id.uuid())
        .execute(&tracker.pool)
        .await
        .unwrap();
    let changes = vec![
        of(0),
        of(1), // without the source's id
        Change { is_click_valid: false, ..of(2) },
        Change { to_status: Status::Unmapped, ..of(3) },
        Change { goal: "lead".to_owned(), ..of(4) },
        Change { source_id: None, ..of(5) },
        Change { to_status: Status::Pending, ..of(6) },
        then(&of(0), Status::Refunded),
        then(&Change { to_status: Status::Pending, ..of(6) }, Status::Rejected), // of which nobody was told
    ];
    assert_eq!(queue(&db, changes).await, 2);
    wait_state(&tracker.pool, "delivered", 1, SOON).await;
    assert_eq!(states(&tracker.pool).await.get("not_supported"), Some(&1));
    let got = receiver.got();
    let wanted = [
        ("id", "ext 0"),
        ("sum", "1.25"),
        ("s", "sale"),
        ("sub", "banner 7"),
        ("tx", "tx-1"),
        ("key", "abc"),
    ];
    assert_eq!(got.len(), 1);
    for (name, value) in wanted {
        assert_eq!(got[0].query[name], value, "{name}");
    }
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT url FROM delivery_attempts").fetch_all(&tracker.pool).await.unwrap();
    assert!(stored.len() == 1 && stored[0].ends_with("&key=***"), "{stored:?}");

    // the source says no more
    let clear = json!({ "postback_url": null });
    answer(tracker.api(Method::PATCH, &format!("/traffic-sources/{}", source["id"])).json(&clear)).await;
    assert_eq!(tracker.show(&path).await["is_active"], false);
}

#[tokio::test]
async fn a_webhook_is_one_that_the_official_library_takes() {
    let receiver = Receiver::start(|_, _| Reply::status(200)).await;
    let tracker = Tracker::start_with("deliveries_webhook", quick).await;
    let hook = json!({ "name": "hook", "kind": "webhook", "url": receiver.url("/hook") });
    let id = target(&tracker, hook).await;
    let path = format!("/postback-targets/{id}/secret");
    let mut secrets = Vec::new();
    for _ in 0..2 {
        let (_, rotated) = answer(tracker.api(Method::POST, &path)).await;
        secrets.push(rotated["secret"].as_str().unwrap().to_owned());
    }
    queue(&db(&tracker.database), conversions(&tracker.pool, 1).await).await;
    wait_state(&tracker.pool, "delivered", 1, SOON).await;
    let got = receiver.got().pop().unwrap();
    let body: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!(
        (&body["type"], &body["data"]["payout"]["amount"]),
        (&json!("conversion.approved"), &json!("2.5"))
    );
    assert_eq!(got.headers["webhook-id"], body["data"]["delivery_id"].as_str().unwrap());

    let scratch = Scratch::create();
    let script = "
import json, sys
from standardwebhooks import Webhook
given = json.load(open('given.json'))
for secret in given['secrets']:
    print(Webhook(secret).verify(given['body'], given['headers'])['type'])
";
    std::fs::write(scratch.dir().join("verify.py"), script).unwrap();
    let given = json!({ "secrets": secrets, "body": got.body, "headers": got.headers });
    std::fs::write(scratch.dir().join("given.json"), given.to_string()).unwrap();
    let said =
        Tool::script("standardwebhooks", scratch.dir()).arg("verify.py").run(Duration::from_secs(30)).await;
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["conversion.approved"; 2]);

    let (_, tried) = answer(tracker.api(Method::POST, &format!("/postback-targets/{id}/test"))).await;
    assert_eq!((&tried["is_success"], &tried["status"]), (&json!(true), &json!(200)), "{tried}");
}
