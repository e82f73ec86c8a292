//! `/health`, `/livez`, `/readyz`, `/metrics`, and the server's limits.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Database, Octo, eventually},
    tracker::{SOON, Table, Tracker, header},
};

#[tokio::test]
async fn health_tells_people_about_every_part() {
    let database = Database::create("ops_health").await;
    let octo = Octo::builder().database(&database).start().await;
    let response = octo.get("/health").await;
    assert_eq!(response.status(), 200);
    let health: Value = response.json().await.unwrap();
    assert_eq!(health["status"], "ok", "{health}");
    let names: Vec<&str> =
        health["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let wanted = [
        "journal",
        "drain",
        "deliveries",
        "postgres primary",
        "postgres replica 0",
        "postgres replica 1",
        "redis",
        "cache",
    ];
    assert_eq!(names, wanted);
    assert_eq!(octo.get("/livez").await.status(), 200);
    assert_eq!(octo.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn the_metrics_carry_the_contracts_names_and_strangers_add_no_series() {
    let tracker = Tracker::start("ops_metrics").await;
    tracker.simple_campaign("demo").await;
    tracker.click("/click?cid=demo").await;
    tracker.octo.get("/event.gif?event_type=view&cid=demo").await;
    tracker.wait_rows(Table::Events, 1).await;
    let metrics = tracker.octo.metrics().await;
    for name in [
        "octo_http_requests_total{route=\"/click\",method=\"GET\",status=\"302\"}",
        "octo_http_request_duration_seconds_bucket{route=\"/click\"",
        "octo_clicks_total{outcome=\"redirected\"} 1",
        "octo_clicks_unrecorded_total 0",
        "octo_events_total{outcome=\"accepted\"} 1",
        "octo_journal_records_total 2",
        "octo_journal_fsync_duration_seconds_bucket",
        "octo_journal_pending_records",
        "octo_journal_bytes",
        "octo_drain_rows_total{table=\"clicks\"} 1",
        "octo_drain_batch_rows_bucket",
        "octo_drain_lag_seconds",
        "octo_db_pool_connections{pool=\"primary\",state=\"idle\"}",
        "octo_db_pool_max_connections{pool=\"primary\"} 32",
        "octo_db_pool_pending_acquires{pool=\"primary\"}",
        "octo_db_pool_acquire_duration_seconds_bucket{pool=\"primary\"",
        "octo_db_connections_created_total{pool=\"primary\"}",
        "octo_db_query_duration_seconds_bucket{query=\"",
        "octo_campaign_cache_requests_total{layer=\"process\",outcome=\"hit\"}",
        "octo_build_info{version=\"",
        "octo_panics_total 0",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    eventually(SOON, async || {
        let oldest = "octo_journal_oldest_pending_timestamp_seconds 0\n";
        anyhow::ensure!(tracker.octo.metrics().await.contains(oldest), "something is still pending");
        Ok(())
    })
    .await;
    let series = |text: &str| text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).count();
    tracker.octo.get("/wp-login.php").await;
    let before = series(&tracker.octo.metrics().await);
    for i in 0..300 {
        let method = reqwest::Method::from_bytes(format!("M{i}").as_bytes()).unwrap();
        tracker
            .octo
            .client()
            .request(method, tracker.octo.url(&format!("/random-{i}")))
            .send()
            .await
            .unwrap();
    }
    let after = series(&tracker.octo.metrics().await);
    assert!(after <= before + 2, "{before} series became {after}");
}

#[tokio::test]
async fn the_admin_listener_takes_the_api_away_from_strangers() {
    let database = Database::create("ops_admin").await;
    let octo = Octo::builder()
        .database_url(database.url())
        .env("OCTO_SERVER__ADMIN_LISTEN", "127.0.0.1:0")
        .start()
        .await;
    for path in ["/metrics", "/api/v1/campaigns", "/api/v1/openapi.json"] {
        assert_eq!(octo.get(path).await.status(), 404, "{path}");
    }
    let bare: Value = octo.get("/health").await.json().await.unwrap();
    assert_eq!(bare, serde_json::json!({ "status": "ok" }));
}

#[tokio::test]
async fn silent_and_slow_connections_are_closed_in_time_and_kept_alive_ones_stay() {
    let tracker = Tracker::start_with("ops_slow", |b| {
        b.env("OCTO_SERVER__HEADER_TIMEOUT_MS", "500").env("OCTO_SERVER__IDLE_TIMEOUT_MS", "3000")
    })
    .await;
    tracker.simple_campaign("demo").await;
    let closed_after = async |first: &[u8]| {
        let start = Instant::now();
        let mut stream = TcpStream::connect(tracker.octo.addr()).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "still open");
        (start.elapsed(), String::from_utf8_lossy(&rest).into_owned())
    };
    let (silent, _) = closed_after(b"").await;
    let (half, _) = closed_after(b"GET /click?cid=demo HTTP/1.1\r\nHos").await;
    let (idle, answer) = closed_after(b"GET /click?cid=demo HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert!(
        silent < Duration::from_millis(2500) && half < Duration::from_millis(2500),
        "{silent:?} {half:?}"
    );
    assert!(answer.starts_with("HTTP/1.1 302") && idle > Duration::from_millis(2500), "{idle:?}: {answer}");
}

#[tokio::test]
async fn unknown_pages_are_a_short_problem() {
    let tracker = Tracker::start("ops_404").await;
    for path in ["/", "/wp-login.php", "/no-such-%3Cscript%3E", "//evil.example/click?cid=demo"] {
        let response = tracker.octo.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert!(response.text().await.unwrap().len() < 300);
    }
}

#[tokio::test]
async fn two_hosts_are_refused_and_nothing_after_them_is_answered() {
    let tracker = Tracker::start("ops_hosts").await;
    let mut stream = TcpStream::connect(tracker.octo.addr()).await.unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 400") && answers.contains("connection: close"), "{answers}");
    assert!(
        !answers.contains("HTTP/1.1 200"),
        "who reads it otherwise reads the next one otherwise too: {answers}"
    );
}
