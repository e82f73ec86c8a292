//! Who may: each route of the OpenAPI document with each kind of credentials, the two listeners, and tokens that
//! end, are revoked, or are no tokens.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{
        Database, Octo, OutsideAddress, PrivatePostgres,
        document::{Operation, operations},
        eventually, migrate,
    },
    tracker::{SOON, Tracker, header},
};

/// A token that nobody has.
const UNKNOWN: &str = "octo_00000000000000000000000000000000000000000000000000000000deadbeef";

/// Whether the document lets a token of this scope in.
fn allows(operation: &Operation, scope: &str) -> bool {
    operation.scope.as_deref().is_none_or(|needed| scope == "admin" || scope == needed)
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.expect("an answer").status().as_u16()
}

fn ask(octo: &Octo, token: &str) -> RequestBuilder {
    octo.api(token).get("/campaigns")
}

/// A tracker that refuses a wrong token as often as it is asked.
async fn patient(name: &str) -> Tracker {
    Tracker::start_with(name, |b| b.env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "0")).await
}

/// A token that was revoked and one that has expired.
async fn ended(tracker: &Tracker) -> [String; 2] {
    let make = async |body: Value| -> Value {
        tracker.api(Method::POST, "/tokens").json(&body).send().await.unwrap().json().await.unwrap()
    };
    let revoked = make(json!({ "scope": "admin" })).await;
    let path = format!("/tokens/{}", revoked["id"].as_str().unwrap());
    assert_eq!(status(tracker.api(Method::DELETE, &path)).await, 204);
    let expired = make(json!({ "scope": "admin", "expires_at": "2999-01-01T00:00:00Z" })).await;
    sqlx::query("UPDATE api_tokens SET expires_at = now() WHERE expires_at > now()")
        .execute(&tracker.pool)
        .await
        .unwrap();
    [revoked, expired].map(|token| token["token"].as_str().unwrap().to_owned())
}

/// A network whose key is what [`Operation::path`] asks for: without it nobody is let in there, whatever his token.
async fn make_network_of_the_document(tracker: &Tracker) {
    let body = json!({ "name": "n", "postback_key": "018f0000-0000-7000-8000-000000000000" });
    assert_eq!(status(tracker.api(Method::POST, "/affiliate-networks").json(&body)).await, 201);
    eventually(SOON, async || {
        let answer = tracker.octo.get("/postback/018f0000-0000-7000-8000-000000000000").await.status();
        anyhow::ensure!(answer == 200, "{answer}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn each_route_of_the_document_answers_each_kind_of_credentials_as_it_says() {
    let tracker = patient("scopes_walk").await;
    let octo = &tracker.octo;
    let operations = octo.operations().await;
    make_network_of_the_document(&tracker).await;
    let [revoked, expired] = ended(&tracker).await;
    let mut good = Vec::new();
    for scope in ["admin", "read", "ingest", "metrics"] {
        good.push((scope, octo.token(scope).await));
    }
    let none = [("nothing", None)];
    let bad =
        [("garbage", "octo_1"), ("an unknown", UNKNOWN), ("a revoked", &revoked), ("an expired", &expired)];
    let bad: Vec<_> = none.into_iter().chain(bad.map(|(name, token)| (name, Some(token)))).collect();
    let (client, mut requests, mut wrong) = (octo.client(), 0, Vec::new());
    for operation in &operations {
        let request = || client.request(operation.method.clone(), octo.url(&operation.path()));
        let mut check = |with: &str, wanted: &str, got: u16, is_so: bool| {
            requests += 1;
            if !is_so {
                wrong.push(format!(
                    "{} {} with {with}: {got}, not {wanted}",
                    operation.method, operation.template
                ));
            }
        };
        for (with, token) in &bad {
            let got = status(token.iter().fold(request(), RequestBuilder::bearer_auth)).await;
            check(with, "401", got, (got == 401) == operation.scope.is_some());
        }
        for (scope, token) in &good {
            let got = status(request().bearer_auth(token)).await;
            if allows(operation, scope) {
                check(scope, "let in", got, !matches!(got, 401 | 403 | 429 | 500..));
            } else {
                check(scope, "403", got, got == 403);
            }
        }
    }
    let (routes, credentials) = (operations.len(), bad.len() + good.len());
    println!("{routes} routes x {credentials} credentials = {requests} requests, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(requests, routes * credentials);
}

#[tokio::test]
async fn the_document_asks_for_read_to_read_ingest_for_events_and_admin_for_the_rest() {
    let tracker = patient("scopes_table").await;
    for operation in tracker.octo.operations().await {
        let Operation { method, template, scope, .. } = &operation;
        let wanted = match (method.as_str(), template.as_str()) {
            ("GET", "/api/v1/openapi.json") => None,
            (_, path) if !path.starts_with("/api/") => None,
            ("GET", _) => Some("read"),
            ("POST", "/api/v1/events" | "/api/v1/conversions") => Some("ingest"),
            ("POST", path)
                if path.ends_with("/explain")
                    || path.ends_with("/reconciliations")
                    || path.starts_with("/api/v1/reports")
                    || path == "/api/v1/exports" =>
            {
                Some("read")
            }
            _ => Some("admin"),
        };
        assert_eq!(scope.as_deref(), wanted, "{method} {template}");
    }
}

#[tokio::test]
async fn credentials_are_one_bearer_header_and_nothing_else() {
    let tracker = patient("scopes_schemes").await;
    let (octo, token) = (&tracker.octo, &tracker.token);
    let url = octo.url("/api/v1/campaigns");
    let get = |value: String| octo.client().get(&url).header("authorization", value);
    for good in ["Bearer ", "bearer ", "BEARER  "] {
        assert_eq!(status(get(format!("{good}{token}"))).await, 200, "{good}");
    }
    for bad in [
        token.clone(),
        format!("Basic {token}"),
        format!("Token {token}"),
        format!("Bearer{token}"),
        format!("Bearer {token},{token}"),
        format!("Bearer {token} {token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer {}", token.to_uppercase()),
        format!("Bearer {}", &token[..68]),
        format!("Bearer {token}0"),
        "Bearer ".to_owned(),
        "Bearer".to_owned(),
        String::new(),
    ] {
        let refused = get(bad.clone()).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{bad}");
        assert!(header(&refused, "www-authenticate").starts_with("Bearer realm="), "{bad}");
    }
    let twice = get(format!("Bearer {token}")).header("authorization", format!("Bearer {token}"));
    assert_eq!(status(twice).await, 401, "two headers");
    for name in ["token", "access_token", "api_key", "authorization"] {
        assert_eq!(
            octo.get(&format!("/api/v1/campaigns?{name}={token}")).await.status(),
            401,
            "in the query"
        );
        let elsewhere =
            octo.client().get(&url).header("x-api-key", token).header("cookie", format!("{name}={token}"));
        assert_eq!(status(elsewhere).await, 401, "in other headers");
    }
}

#[tokio::test]
async fn a_token_ends_when_it_says_and_a_revoked_one_on_every_node_at_once() {
    let tracker = patient("scopes_ends").await;
    let other = Octo::builder()
        .database_url(tracker.database.url())
        .env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "0")
        .start()
        .await;
    let body = json!({ "scope": "read", "expires_at": chrono::Utc::now() + chrono::TimeDelta::seconds(3) });
    let short: Value =
        tracker.api(Method::POST, "/tokens").json(&body).send().await.unwrap().json().await.unwrap();
    let long: Value = tracker
        .api(Method::POST, "/tokens")
        .json(&json!({ "scope": "read" }))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let token = long["token"].as_str().unwrap();
    for node in [&tracker.octo, &other] {
        assert_eq!(status(ask(node, token)).await, 200);
    }
    let path = format!("/tokens/{}", long["id"].as_str().unwrap());
    assert_eq!(status(tracker.api(Method::DELETE, &path)).await, 204);
    for node in [&other, &tracker.octo] {
        assert_eq!(status(ask(node, token)).await, 401, "the very next request");
    }
    eventually(SOON, async || {
        let status = ask(&other, short["token"].as_str().unwrap()).send().await?.status();
        anyhow::ensure!(status == StatusCode::UNAUTHORIZED, "{status}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_token_is_stored_as_its_hash_and_its_use_is_noted_once_a_minute() {
    let tracker = patient("scopes_use").await;
    let token = tracker.octo.token("read").await;
    let row = "SELECT encode(token_sha256, 'hex'), xmin::text, last_used_at IS NOT NULL, \
               strpos(t::text, $1) = 0 FROM api_tokens t WHERE scope = 'read'";
    let read = async || -> (String, String, bool, bool) {
        sqlx::query_as(row).bind(&token[5..]).fetch_one(&tracker.pool).await.unwrap()
    };
    let (hash, unused, is_used, is_hidden) = read().await;
    assert!(hash.len() == 64 && !is_used && is_hidden);
    for _ in 0..2 {
        assert_eq!(status(ask(&tracker.octo, &token)).await, 200);
    }
    let (_, first, is_used, _) = read().await;
    assert!(is_used && first != unused);
    for _ in 0..20 {
        assert_eq!(status(ask(&tracker.octo, &token)).await, 200);
    }
    assert_eq!(read().await.1, first, "the row is written once a minute at most");
    let again = "UPDATE api_tokens SET last_used_at = now() - interval '2 minutes' WHERE scope = 'read'";
    sqlx::query(again).execute(&tracker.pool).await.unwrap();
    let (_, before, ..) = read().await;
    assert_eq!(status(ask(&tracker.octo, &token)).await, 200);
    assert_ne!(read().await.1, before, "and after a minute again");
}

/// What stays with strangers: tracking, and the probes and what crawlers ask for, which answer on both listeners.
const FOR_STRANGERS: [&str; 17] = [
    "/c/{key}",
    "/click",
    "/event",
    "/event.gif",
    "/events",
    "/health",
    "/livez",
    "/readyz",
    "/readyz/redirect",
    "/robots.txt",
    "/o.js",
    "/o.{hash}.js",
    "/out",
    "/out/{n}",
    "/postback",
    "/postback/{key}",
    "/visit",
];

/// An octo with two listeners, and the address of the second.
async fn two_listeners(database: &Database) -> (Octo, SocketAddr) {
    let octo = Octo::builder()
        .database_url(database.url())
        .env("OCTO_SERVER__ADMIN_LISTEN", "127.0.0.1:0")
        .start()
        .await;
    let admin = eventually(SOON, async || {
        let said = octo.stderr();
        let second = said.split("listening on http://").nth(2).unwrap_or_default();
        let (address, _) = second.split_once('\n').ok_or_else(|| anyhow::anyhow!("one listener: {said}"))?;
        Ok(address.trim().parse::<SocketAddr>()?)
    })
    .await;
    (octo, admin)
}

/// The status of an answer to bytes as they are.
async fn raw(address: SocketAddr, head: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(30), read).await.expect("an end").unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{head}: {answer}"))
}

#[tokio::test]
async fn each_route_answers_on_its_listener_and_not_on_the_other() {
    let database = Database::create("scopes_listeners").await;
    let (octo, admin) = two_listeners(&database).await;
    let token = octo.admin_token().await;
    let client = octo.client();
    let ask = async |address: SocketAddr, method: &Method, path: &str| {
        status(client.request(method.clone(), format!("http://{address}{path}")).bearer_auth(&token)).await
    };
    let document: Value =
        client.get(format!("http://{admin}/api/v1/openapi.json")).send().await.unwrap().json().await.unwrap();
    let (strangers, operators): (Vec<_>, Vec<_>) =
        operations(&document).into_iter().partition(|o| FOR_STRANGERS.contains(&o.template.as_str()));
    let strangers: BTreeSet<_> = strangers.iter().map(|operation| operation.template.as_str()).collect();
    assert_eq!(strangers, FOR_STRANGERS.into(), "the document names all of them");
    let operators = operators.into_iter().map(|operation| (operation.method.clone(), operation.path()));
    let operators: Vec<_> = operators.chain([(Method::GET, "/metrics".to_owned())]).collect();
    for (method, path) in &operators {
        let unknown = "There is no such page";
        let answer = client.request(method.clone(), format!("http://{admin}{path}")).bearer_auth(&token);
        let answer = answer.send().await.unwrap();
        assert!(!matches!(answer.status().as_u16(), 401 | 403 | 405), "{method} {path} for operators");
        assert!(!answer.text().await.unwrap().contains(unknown), "{method} {path} for operators");
        assert_eq!(ask(octo.addr(), method, path).await, 404, "{method} {path} for strangers");
    }
    let public = [
        (Method::GET, "/click?cid=none", 404),
        (Method::GET, "/click", 400),
        (Method::GET, "/event.gif", 200),
        (Method::POST, "/event", 400),
        (Method::POST, "/events", 400),
        (Method::POST, "/visit", 400),
        (Method::GET, "/o.js", 200),
    ];
    for (method, path, wanted) in public {
        assert_eq!(ask(octo.addr(), &method, path).await, wanted, "{method} {path} for strangers");
        assert_eq!(ask(admin, &method, path).await, 404, "{method} {path} for operators");
    }
    for path in ["/livez", "/readyz", "/readyz/redirect", "/health", "/robots.txt"] {
        for address in [octo.addr(), admin] {
            assert_eq!(ask(address, &Method::GET, path).await, 200, "{path} on both");
        }
    }
    let health = async |address: SocketAddr| -> Value {
        client.get(format!("http://{address}/health")).send().await.unwrap().json().await.unwrap()
    };
    assert_eq!(health(octo.addr()).await, json!({ "status": "ok" }));
    assert!(health(admin).await["components"].is_array());
    println!("{} operators' routes, 7 tracking routes, 4 probes, each on 2 listeners", operators.len());
}

#[tokio::test]
async fn no_trick_with_hosts_or_paths_reaches_the_operators_routes_from_outside() {
    let database = Database::create("scopes_tricks").await;
    let (octo, admin) = two_listeners(&database).await;
    let token = octo.admin_token().await;
    let public = octo.addr();
    let of = |target: &str, host: &str, more: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{more}Connection: close\r\n\r\n"
        )
    };
    let (here, there) = (public.to_string(), admin.to_string());
    assert_eq!(raw(admin, &of("/metrics", &there, "")).await, 200, "the request itself is a good one");
    let mut tried = 0;
    for path in ["/metrics", "/api/v1/campaigns", "/api/v1/tokens", "/api/v1/openapi.json", "/docs"] {
        let spelled = path.replacen('m', "%6d", 1).replacen("api", "%61pi", 1);
        let heads = [
            of(path, &here, ""),
            of(path, &there, ""),
            of(
                path,
                "localhost",
                &format!("X-Forwarded-Host: {there}\r\nForwarded: host={there};for=127.0.0.1\r\n"),
            ),
            of(path, &here, "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n"),
            of(&format!("http://{there}{path}"), &there, ""),
            of(&format!("http://{there}{path}"), &here, ""),
            of("/", &here, &format!("X-Original-URL: {path}\r\nX-Rewrite-URL: {path}\r\n")),
            of("/health", &here, &format!("X-Original-URL: {path}\r\n")).replace("/health", "/health/"),
            of(&format!("/{path}"), &here, ""),
            of(&format!("{path}/"), &here, ""),
            of(&format!("/event.gif/..{path}"), &here, ""),
            of(&format!("/livez/%2e%2e{path}"), &here, ""),
            of(&format!("/livez;{path}"), &here, ""),
            of(&spelled, &here, ""),
            of(&path.to_uppercase(), &here, ""),
        ];
        for head in heads {
            tried += 1;
            assert_eq!(raw(public, &head).await, 404, "{head}");
        }
    }
    println!("{tried} requests, all 404");
}

/// What `/metrics` answers, and whether `/health` tells everything.
async fn seen(
    client: &reqwest::Client,
    base: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
) -> (u16, bool) {
    let get = |path: &str| {
        let request = client.get(format!("{base}{path}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        token.into_iter().fold(request, RequestBuilder::bearer_auth)
    };
    let health: Value = get("/health").send().await.unwrap().json().await.unwrap();
    assert!(
        health["status"] == "ok"
            && (health["components"].is_array() || health.as_object().unwrap().len() == 1)
    );
    (status(get("/metrics")).await, health["components"].is_array())
}

#[tokio::test]
async fn strangers_see_neither_figures_nor_details_and_who_has_a_token_does() {
    let Some(outside) = OutsideAddress::find() else {
        println!("not tried: this machine has no address but loopback, and only root can give it one");
        return;
    };
    let tracker = Tracker::start_with("scopes_strangers", |b| {
        b.env("OCTO_SERVER__LISTEN", "0.0.0.0:0").env("OCTO_LIMITS__FAILED_AUTH_PER_MINUTE", "0")
    })
    .await;
    let (octo, client) = (&tracker.octo, tracker.octo.client());
    let port = octo.addr().port();
    let (here, there) = (format!("http://127.0.0.1:{port}"), format!("http://{}:{port}", outside.ip()));
    let [revoked, expired] = ended(&tracker).await;
    let mut tokens = vec![(None, 401), (Some("octo_1".to_owned()), 401), (Some(UNKNOWN.to_owned()), 401)];
    tokens.extend([(Some(revoked), 401), (Some(expired), 401)]);
    for (scope, wanted) in [("admin", 200), ("read", 200), ("metrics", 200), ("ingest", 403)] {
        tokens.push((Some(octo.token(scope).await), wanted));
    }
    for (token, wanted) in &tokens {
        let token = token.as_deref();
        assert_eq!(
            seen(&client, &there, token, &[]).await,
            (*wanted, *wanted == 200),
            "{token:?} from outside"
        );
        assert_eq!(seen(&client, &here, token, &[]).await, (200, true), "{token:?} from this machine");
        // a proxy on this machine that nobody configured passes strangers on
        for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Proto", "CF-Connecting-IP"] {
            let headers = [(header, if header == "Forwarded" { "for=127.0.0.1" } else { "127.0.0.1" })];
            let passed_on = seen(&client, &here, token, &headers).await;
            assert_eq!(passed_on, (*wanted, *wanted == 200), "{token:?} with {header}");
        }
    }
    let refused = client.get(format!("{there}/metrics")).send().await.unwrap();
    assert_eq!(header(&refused, "content-type"), "application/problem+json");
    assert_eq!(header(&refused, "www-authenticate"), "Bearer realm=\"octo\"");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "unauthorized");
    assert_eq!(client.head(format!("{there}/metrics")).send().await.unwrap().status(), 401);
    println!("{} credentials from {} and from loopback, 5 headers", tokens.len(), outside.ip());
}

#[tokio::test]
async fn a_client_whom_a_trusted_proxy_names_is_no_more_local_than_it_says() {
    let set = |proxied: &'static str| {
        move |b: crate::harness::OctoBuilder| {
            b.env("OCTO_SERVER__TRUSTED_PROXIES", "127.0.0.0/8").env("OCTO_SERVER__PROXY_PROTOCOL", proxied)
        }
    };
    let tracker = Tracker::start_with("scopes_proxy", set("false")).await;
    let (client, base) = (tracker.octo.client(), format!("http://{}", tracker.octo.addr()));
    assert_eq!(seen(&client, &base, None, &[]).await, (200, true), "no proxy");
    for named in ["203.0.113.9", "127.0.0.1", "127.0.0.1, 203.0.113.9", "unknown", ""] {
        let passed_on = seen(&client, &base, None, &[("x-forwarded-for", named)]).await;
        assert_eq!(passed_on, (401, false), "passed on for {named:?}");
    }

    let database = Database::create("scopes_proxied").await;
    let octo = set("true")(Octo::builder().database_url(database.url())).start().await;
    for (preface, wanted) in [
        ("PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n", 401),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", 401),
        ("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", 200),
        ("PROXY UNKNOWN\r\n", 200),
    ] {
        let head = format!("{preface}GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert_eq!(raw(octo.addr(), &head).await, wanted, "{preface}");
    }
}

#[tokio::test]
async fn public_metrics_are_for_everybody() {
    let tracker =
        Tracker::start_with("scopes_public", |b| b.env("OCTO_SERVER__PUBLIC_METRICS", "true")).await;
    let base = format!("http://{}", tracker.octo.addr());
    let passed_on = [("x-forwarded-for", "203.0.113.9")];
    assert_eq!(seen(&tracker.octo.client(), &base, None, &passed_on).await, (200, true));
}

#[tokio::test]
async fn a_scrape_does_not_ask_the_database_and_goes_on_while_that_is_away() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder().database_url(postgres.url()).env("OCTO_SERVER__METRICS_TOKEN_RECHECK_S", "2");
    let octo = octo.start().await;
    let (token, other) = (octo.token("metrics").await, octo.token("metrics").await);
    let passed_on = |token: &str| {
        let request = octo.client().get(octo.url("/metrics")).header("x-forwarded-for", "203.0.113.9");
        request.bearer_auth(token).send()
    };
    let asked = || octo.metric("octo_db_query_duration_seconds_count{query=\"token.find\"}");
    let (before, started) = (asked().await, std::time::Instant::now());
    for _ in 0..20 {
        assert_eq!(passed_on(&token).await.unwrap().status(), 200);
    }
    let asked = asked().await - before;
    assert!((1..=1 + started.elapsed().as_secs() / 2).contains(&asked), "20 scrapes asked {asked} times");
    postgres.stop_fast().await;
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while std::time::Instant::now() < until {
        assert_eq!(passed_on(&token).await.unwrap().status(), 200, "an outage is when one must see");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(passed_on(&other).await.unwrap().status(), 503, "one that was never seen");
    postgres.start_again().await;
    let mut admin = postgres.admin().await;
    sqlx::query("UPDATE api_tokens SET revoked_at = now()").execute(&mut admin).await.unwrap();
    eventually(Duration::from_secs(30), async || {
        let status = passed_on(&token).await?.status();
        anyhow::ensure!(status == 401, "{status}");
        Ok(())
    })
    .await;
}
