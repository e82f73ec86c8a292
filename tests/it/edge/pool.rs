//! The pool against what was seen to bite in sqlx 0.9: each hazard has a test that fails without its cure.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::ensure;
use octo::{
    config::{Flags, Loaded},
    db::{Db, Error, Statement, pool::Pool, position},
};
use reqwest::Method;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::{Value, json};
use socket2::SockRef;

use crate::{
    harness::{Database, Octo, PrivatePostgres, Signal, api::campaign, eventually, migrate, signal},
    load::{percentile, send_all},
    tracker::{OFFER, SOON, Tracker},
    wire::Proxy,
};

/// A `Db` of this process with the default configuration but for `set`, given as in the environment.
pub(crate) fn db(url: &str, set: &[(&str, &str)]) -> Db {
    let loaded = load(set);
    Db::new(&url.into(), &loaded.config.database).unwrap()
}

fn load(set: &[(&str, &str)]) -> Loaded {
    let environment = set.iter().map(|(key, value)| (format!("OCTO_DATABASE__{key}"), (*value).to_owned()));
    Loaded::load(None, environment, &Flags::default()).unwrap()
}

/// Sleeps in the database.
async fn doze(pool: &Pool, seconds: f64) -> Result<i32, Error> {
    const DOZE: Statement =
        Statement::new("test.doze", "SELECT pg_backend_pid() FROM (SELECT pg_sleep($1)) s");

    pool.run(DOZE, move |c| Box::pin(sqlx::query_scalar(DOZE.sql()).bind(seconds).fetch_one(&mut **c))).await
}

#[tokio::test]
async fn a_connection_to_postgres_has_no_delay_keep_alives_and_a_user_time_out() {
    let tracker = Tracker::start("pool_socket").await;
    let port = url::Url::parse(&tracker.database.url()).unwrap().port().unwrap();
    let process =
        pidfd_open(Pid::from_raw(tracker.octo.pid().cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
    // one that was opened just now has its options in a moment
    eventually(SOON, async || {
        let mut looked_at = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", tracker.octo.pid()))? {
            let number = entry?.file_name().to_str().unwrap().parse()?;
            let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
            let socket = SockRef::from(&copy);
            let Ok(Some(peer)) = socket.peer_addr().map(|peer| peer.as_socket()) else { continue };
            if peer.port() != port || !peer.ip().to_string().starts_with("127.77.") {
                continue;
            }
            ensure!(socket.tcp_nodelay()?, "{peer} has a delay");
            ensure!(socket.keepalive()?, "{peer} has no keep-alives");
            ensure!(socket.tcp_keepalive_time()? == Duration::from_secs(30));
            ensure!(socket.tcp_keepalive_interval()? == Duration::from_secs(10));
            ensure!(socket.tcp_keepalive_retries()? == 5);
            ensure!(socket.tcp_user_timeout()? == Some(Duration::from_mins(1)));
            looked_at += 1;
        }
        ensure!(looked_at >= 5, "only {looked_at} connections");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_tells_postgres_its_name_its_limits_and_utf_8() {
    let database = Database::create("pool_settings").await;
    let db = db(&database.url(), &[]);
    let setting = async |name: &'static str| -> String {
        let setting = Statement::new("test.setting", "SELECT current_setting($1)");
        let asking = db.primary().run(setting, move |c| {
            Box::pin(sqlx::query_scalar(setting.sql()).bind(name).fetch_one(&mut **c))
        });
        asking.await.unwrap()
    };
    for (name, wanted) in [
        ("application_name", "octo"),
        ("client_encoding", "UTF8"),
        ("timezone", "UTC"),
        ("statement_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "5"),
        ("tcp_user_timeout", "1min"),
    ] {
        let is = setting(name).await;
        assert!(is == wanted || (name == "tcp_user_timeout" && is == "60000"), "{name} is {is}");
    }
}

#[tokio::test]
async fn callers_that_hang_up_leave_no_connection_inside_a_transaction() {
    let database = Database::create("pool_hang_up").await;
    let db = db(&database.url(), &[("MAX_CONNECTIONS", "4"), ("MIN_CONNECTIONS", "0")]);
    let pool = database.pool().await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND state LIKE 'idle in transaction%'";
    let doze = Statement::new("test.begin", "SELECT pg_sleep(0.002)");
    for round in 0..120 {
        let begun = db.primary().run(doze, move |c| {
            Box::pin(async move {
                let mut transaction = c.begin().await?;
                sqlx::query(doze.sql()).execute(&mut **transaction).await?;
                transaction.commit().await
            })
        });
        // at any point of the way
        let _ = tokio::time::timeout(Duration::from_micros(100 * (round % 60)), begun).await;
        eventually(SOON, async || {
            let left: i64 = sqlx::query_scalar(open).fetch_one(&pool).await?;
            anyhow::ensure!(left == 0, "round {round}: {left} connections lie in a transaction");
            let state = db.primary().state();
            anyhow::ensure!(state.used == 0, "{state:?}");
            Ok(())
        })
        .await;
    }
    let state = db.primary().state();
    assert!(state.created <= 4 && state.closed == 0, "the connections are the same: {state:?}");
}

#[tokio::test]
async fn a_transaction_that_its_query_forgot_is_over_when_the_connection_is_idle() {
    let database = Database::create("pool_forgot").await;
    let db = db(&database.url(), &[("MAX_CONNECTIONS", "2"), ("MIN_CONNECTIONS", "0")]);
    let pool = database.pool().await;
    let lock = Statement::new("test.forget", "LOCK TABLE campaigns");
    for fails in [false, true] {
        let forgot = db.primary().run(lock, move |c| {
            Box::pin(async move {
                let mut transaction = c.begin().await?;
                sqlx::query(lock.sql()).execute(&mut **transaction).await?;
                if fails { Err(sqlx::Error::RowNotFound) } else { Ok(()) } // without commit or rollback
            })
        });
        assert_eq!(forgot.await.is_err(), fails);
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND state LIKE 'idle in transaction%'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&pool).await.unwrap();
        assert_eq!(open, 0, "transactions that nobody ends");
    }
    assert_eq!(db.primary().state().closed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_frozen_in_a_query_costs_one_connection_and_no_permit() {
    let postgres = PrivatePostgres::start().await;
    let limits = [("MAX_CONNECTIONS", "4"), ("MIN_CONNECTIONS", "0"), ("STATEMENT_TIMEOUT_MS", "500")];
    let db = db(&postgres.url(), &limits);
    let pool = db.primary();
    let backend = doze(pool, 0.0).await.unwrap(); // the same connection answers again: the last one used
    let sleeping = tokio::spawn({
        let pool = pool.clone();
        async move { doze(&pool, 0.3).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal(Signal::Stop, &[u32::try_from(backend).unwrap()]);
    let error = sleeping.await.unwrap().unwrap_err();
    let frozen = Instant::now();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    // as many at once as the pool may have
    let all = futures_util::future::join_all((0..4).map(|_| doze(pool, 0.2))).await;
    let backends: std::collections::HashSet<i32> = all.into_iter().map(Result::unwrap).collect();
    let took = frozen.elapsed();
    assert!(backends.len() == 4 && !backends.contains(&backend), "{backends:?}");
    assert!(took < Duration::from_secs(5), "the pool was back to full after {took:?}");
    println!("the pool is back to full {} ms after the time-out", took.as_millis());
    let state = pool.state();
    assert_eq!((state.used, state.closed), (0, 1), "{state:?}");
    signal(Signal::Cont, &[u32::try_from(backend).unwrap()]);
}

#[tokio::test]
async fn a_query_takes_one_round_trip() {
    let database = Database::create("pool_trips").await;
    let proxy = Proxy::start(&database.url()).await;
    let settings = [("MAX_CONNECTIONS", "2"), ("MIN_CONNECTIONS", "0"), ("IDLE_CHECK_MS", "60000")];
    let db = db(&proxy.url(&database.url()), &settings);
    doze(db.primary(), 0.0).await.unwrap(); // prepares it
    let before = proxy.syncs();
    for _ in 0..50 {
        doze(db.primary(), 0.0).await.unwrap();
    }
    assert_eq!(proxy.syncs() - before, 50, "round trips of 50 queries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_waits_for_a_connection_no_longer_than_it_is_told_to() {
    let database = Database::create("pool_wait").await;
    let limits = [("MAX_CONNECTIONS", "2"), ("MIN_CONNECTIONS", "0"), ("ACQUIRE_TIMEOUT_MS", "300")];
    let db = db(&database.url(), &limits);
    let busy = futures_util::future::join_all((0..2).map(|_| doze(db.primary(), 3.0)));
    let waiting = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let start = Instant::now();
        (doze(db.primary(), 0.0).await, start.elapsed())
    };
    let (busy, (refused, waited)) = tokio::join!(busy, waiting);
    assert!(busy.iter().all(Result::is_ok));
    assert!(matches!(refused, Err(Error::Unavailable(_))));
    assert!(waited > Duration::from_millis(290) && waited < Duration::from_secs(2), "{waited:?}");
    let state = db.primary().state();
    assert_eq!((state.timeouts, state.waiting, state.acquire.count), (1, 0, 3), "{state:?}");
}

#[tokio::test]
async fn what_happened_to_connections_adds_up() {
    let mut postgres = PrivatePostgres::start().await;
    let db = db(&postgres.url(), &[("MAX_CONNECTIONS", "3"), ("MIN_CONNECTIONS", "0")]);
    let pool = db.primary();
    futures_util::future::join_all((0..3).map(|_| doze(pool, 0.1))).await;
    let state = pool.state();
    assert_eq!((state.created, state.returned, state.closed, state.failed), (3, 3, 0, 0), "{state:?}");
    assert_eq!((state.idle, state.used, state.max), (3, 0, 3), "{state:?}");
    postgres.stop_fast().await;
    for _ in 0..3 {
        doze(pool, 0.0).await.unwrap_err();
    }
    let state = pool.state();
    assert_eq!((state.created, state.closed, state.idle), (3, 3, 0), "{state:?}");
    assert!(state.failed >= 2, "{state:?}");
    postgres.start_again().await;
    doze(pool, 0.0).await.unwrap();
    assert_eq!(pool.state().created, 4);
    pool.close();
    assert!(matches!(doze(pool, 0.0).await, Err(Error::Unavailable(_))));
    assert_eq!(pool.state().closed, 4);
}

#[tokio::test]
async fn a_pool_keeps_its_least_number_open_and_closes_what_is_too_much() {
    let database = Database::create("pool_keep").await;
    let limits = [("MAX_CONNECTIONS", "6"), ("MIN_CONNECTIONS", "2"), ("IDLE_TIMEOUT_S", "1")];
    let db = std::sync::Arc::new(db(&database.url(), &limits));
    let stop = tokio_util::sync::CancellationToken::new();
    let watching = tokio::spawn(db.clone().watch(stop.clone()));
    let open = async |wanted: usize| {
        eventually(SOON, async || {
            let state = db.primary().state();
            anyhow::ensure!(state.idle == wanted, "{state:?}");
            Ok(())
        })
        .await;
    };
    open(2).await;
    futures_util::future::join_all((0..6).map(|_| doze(db.primary(), 0.2))).await;
    open(6).await;
    open(2).await;
    stop.cancel();
    watching.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_asked_before_a_query_is_given_to_it() {
    let mut postgres = PrivatePostgres::start().await;
    // nobody watches this pool: only the connection itself can tell
    let db = db(&postgres.url(), &[("MIN_CONNECTIONS", "0"), ("IDLE_CHECK_MS", "10")]);
    futures_util::future::join_all((0..3).map(|_| doze(db.primary(), 0.1))).await;
    postgres.restart_immediate().await;
    doze(db.primary(), 0.0).await.expect("a query that is not tried again");
    let state = db.primary().state();
    assert!(state.created == 4 && state.closed >= 1, "{state:?}");
}

#[tokio::test]
async fn after_a_restart_of_postgres_no_caller_of_the_api_meets_a_dead_connection() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    let octo = Octo::builder().database_url(postgres.url()).start().await;
    let token = octo.admin_token().await;
    let list = async || {
        let asking = octo.api(&token).get("/campaigns").send();
        asking.await.unwrap().status().as_u16()
    };
    for _ in 0..10 {
        assert_eq!(list().await, 200);
    }
    postgres.restart_immediate().await;
    let pool = postgres.pool().await;
    sqlx::query("SELECT 1").execute(&pool).await.unwrap(); // it takes connections again
    let mut seen = Vec::new();
    for i in 0..20 {
        seen.push(list().await);
        let body = json!({ "key": format!("after-{i}"), "name": "x", "offers": [{ "name": "o", "url": "https://o.example/" }] });
        let making = octo.api(&token).post("/campaigns").json(&body);
        seen.push(making.send().await.unwrap().status().as_u16());
    }
    assert!(seen.iter().all(|status| [200, 201].contains(status)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_start_at_once_on_a_server_with_twenty_connections() {
    let mut postgres = PrivatePostgres::start().await;
    migrate(&postgres.url()).await;
    sqlx::query("ALTER SYSTEM SET max_connections = 20").execute(&mut postgres.admin().await).await.unwrap();
    postgres.stop_fast().await;
    postgres.start_again().await;
    let start =
        || Octo::builder().database_url(postgres.url()).env("OCTO_DATABASE__MIN_CONNECTIONS", "10").start();
    let (one, two, three) = tokio::join!(start(), start(), start());
    let nodes = [one, two, three];
    let token = async || -> anyhow::Result<String> {
        let output = nodes[0].run(&["token", "create", "--scope", "admin"]).await;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let token = eventually(Duration::from_mins(1), token).await;
    let body =
        json!({ "key": "demo", "name": "d", "offers": [{ "name": "o", "url": "https://o.example/" }] });
    let mut answers = std::collections::BTreeMap::<u16, u32>::new();
    for node in &nodes {
        eventually(SOON, async || {
            let making = node.api(&token).post("/campaigns").json(&body);
            let status = making.send().await?.status().as_u16();
            *answers.entry(status).or_default() += 1;
            anyhow::ensure!([201, 409].contains(&status), "{status}");
            Ok(())
        })
        .await;
        eventually(SOON, async || {
            let status = node.get("/click?cid=demo").await.status();
            anyhow::ensure!(status == 302, "{status}");
            Ok(())
        })
        .await;
        assert_eq!(node.get("/readyz").await.status(), 200);
    }
    println!("max_connections = 20, three nodes of 10 to 32: API {answers:?}, each node redirects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_name_does_not_resolve_stops_only_a_first_start() {
    const NOWHERE: &str = "postgres://app_user:p@octo-no-such-host.invalid:5432/octo";
    let first = Octo::builder().database_url(NOWHERE).run(&["serve"]).await;
    let said = String::from_utf8_lossy(&first.stderr);
    assert_eq!(first.status.code(), Some(3), "{said}");
    assert!(said.contains("PostgreSQL cannot be used") && said.contains("database.url"), "{said}");

    let database = Database::create("pool_dns").await;
    let data = crate::harness::Scratch::create();
    let builder = |url: String| Octo::builder().data_dir(data.dir().join("data")).database_url(url);
    let mut octo = builder(database.url()).start().await;
    let token = octo.admin_token().await;
    octo.api(&token).create(&campaign("demo", OFFER)).await;
    octo.sigterm();
    octo.wait_exit(Duration::from_secs(20)).await;

    let octo = builder(NOWHERE.to_owned()).start().await;
    let click = b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n".to_vec();
    let answers = send_all(octo.addr(), vec![click; 200], 4).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 302).count(), 200);
    let start = Instant::now();
    let refused = octo.api(&token).get("/campaigns").send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    println!(
        "no such host: 200 of 200 clicks, p99 {:?}; API 503 after {:?}",
        percentile(&answers, 0.99),
        start.elapsed()
    );
}

#[tokio::test]
async fn a_slow_query_is_logged_by_name_with_its_plan_and_without_its_values() {
    let tracker = Tracker::start_with("pool_slow", |b| {
        b.env("OCTO_DATABASE__SLOW_QUERY_MS", "0").env("OCTO_DATABASE__SLOW_QUERY_PLANS", "true")
    })
    .await;
    tracker.simple_campaign("canary-value").await;
    let answer = tracker.api(Method::GET, "/campaigns/canary-value").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    eventually(SOON, async || {
        let said = tracker.octo.stderr();
        anyhow::ensure!(said.contains("slow query query=\"campaign.by_key\""), "no slow query in {said}");
        let plan =
            said.lines().find(|l| l.contains("the plan of a slow query") && l.contains("campaign.by_key"));
        anyhow::ensure!(plan.is_some_and(|plan| plan.contains("campaigns_key")), "no plan in {said}");
        anyhow::ensure!(!said.contains("canary-value"), "a value is in {said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_plan_of_any_query_can_be_had_and_every_query_is_listed() {
    let tracker = Tracker::start("pool_plans").await;
    let get = async |path: &str| tracker.api(Method::GET, path).send().await.unwrap();
    let listed: Value = get("/system/queries").await.json().await.unwrap();
    let names: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|q| q["query"].as_str().unwrap()).collect();
    for name in octo::db::statements().map(Statement::name) {
        assert!(names.contains(&name), "{name} is not listed");
        let response = get(&format!("/system/queries/{name}/plan")).await;
        assert_eq!(response.status(), 200, "{name}: {}", response.text().await.unwrap());
    }
    let plan: Value = get("/system/queries/click.get/plan").await.json().await.unwrap();
    assert!(plan["plan"].as_str().unwrap().contains("Subplans Removed"), "partitions are pruned: {plan}");
    assert_eq!(get("/system/queries/no.such/plan").await.status(), 404);
    let pools: Value = get("/system/pools").await.json().await.unwrap();
    assert_eq!(pools["data"][0]["pool"], "primary");
    assert!(pools["data"][0]["created"].as_u64().unwrap() >= 5, "{pools}");
    assert!(
        position::from_text(pools["written"].as_str().unwrap()).unwrap() > 0,
        "a token was noted: {pools}"
    );
}
