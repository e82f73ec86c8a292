//! Clients that take their time: each is closed when its time is over, and nobody else notices.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    harness::{Octo, OctoBuilder, eventually},
    tracker::{SOON, Tracker},
    visitors::{CAMPAIGNS, connect},
};

/// The limit under test; the others are as long as they are by default.
const LIMIT: Duration = Duration::from_millis(300);
/// A busy machine may take so long to notice.
const PATIENCE: Duration = Duration::from_secs(8);

const CLICK: &[u8] = b"GET /click?cid=alpha HTTP/1.1\r\nHost: t\r\n\r\n";
const EVENT: &[u8] = b"POST /event HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n{";
const DOCUMENT: &[u8] = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: t\r\n\r\n";

async fn start(name: &str, set: impl FnOnce(OctoBuilder) -> OctoBuilder) -> Tracker {
    let tracker = Tracker::start_with(name, set).await;
    for key in CAMPAIGNS {
        tracker.simple_campaign(key).await;
    }
    tracker
}

fn limit(builder: OctoBuilder, key: &str) -> OctoBuilder {
    builder.env(key, LIMIT.as_millis().to_string())
}

/// A connection that has sent something.
async fn sent(octo: &Octo, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(octo.addr()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Everything until the end of the connection, which must come, and not before its time.
async fn end_of(mut stream: TcpStream, opened: Instant, not_before: Duration) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    let read = read.expect("the connection is closed in time");
    assert!(read.is_ok() || is_cut(&read.unwrap_err()), "no other end than these");
    assert!(opened.elapsed() >= not_before, "closed after {:?}", opened.elapsed());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Sends a byte now and then until the connection is closed; gives what was answered.
async fn drip(mut stream: TcpStream, opened: Instant, not_before: Duration, byte: u8) -> String {
    let mut answer = Vec::new();
    loop {
        match timeout(Duration::from_millis(50), stream.read_buf(&mut answer)).await {
            Ok(Ok(0)) => break,
            Ok(Err(error)) if is_cut(&error) => break,
            Ok(read) => drop(read.unwrap()),
            Err(_) => drop(stream.write_all(&[byte]).await),
        }
        assert!(opened.elapsed() < PATIENCE, "drip by drip is a way around the limit");
    }
    assert!(opened.elapsed() >= not_before, "closed after {:?}", opened.elapsed());
    String::from_utf8_lossy(&answer).into_owned()
}

async fn refused(octo: &Octo, reason: &str) -> u64 {
    octo.metric(&format!("octo_http_refused_total{{reason=\"{reason}\"}}")).await
}

async fn closed(octo: &Octo, reason: &str) -> u64 {
    octo.metric(&format!("octo_http_connections_closed_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn a_head_must_be_whole_in_time_however_it_comes() {
    let tracker = start("slow_head", |b| limit(b, "OCTO_SERVER__HEADER_TIMEOUT_MS")).await;
    let octo = &tracker.octo;
    for first in [&b""[..], b"G", b"GET /click?cid=alpha HTTP/1.1\r\nHost: t\r\nX-A: "] {
        let opened = Instant::now();
        let stream = sent(octo, first).await;
        assert_eq!(end_of(stream, opened, LIMIT).await, "", "no answer to what is no request");
        let opened = Instant::now();
        let stream = sent(octo, first).await;
        assert_eq!(drip(stream, opened, LIMIT, b'a').await, "");
    }
    // the second head on a connection has the same time
    let mut stream = sent(octo, CLICK).await;
    stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap();
    let opened = Instant::now();
    stream.write_all(b"GET").await.unwrap();
    drip(stream, opened, LIMIT, b'a').await;
    assert_eq!(refused(octo, "timeout").await, 7);
}

#[tokio::test]
async fn a_body_must_be_whole_in_time_whoever_reads_it() {
    let tracker = start("slow_body", |b| limit(b, "OCTO_SERVER__BODY_TIMEOUT_MS")).await;
    let octo = &tracker.octo;
    let to_api = format!(
        "POST /api/v1/campaigns HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 9000\r\n\r\n{{",
        tracker.token
    );
    let chunked = b"POST /events HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\nffff\r\n";
    for request in [EVENT, chunked, to_api.as_bytes()] {
        let opened = Instant::now();
        let answer = end_of(sent(octo, request).await, opened, LIMIT).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"timeout\""), "{answer}");
        let opened = Instant::now();
        let answer = drip(sent(octo, request).await, opened, LIMIT, b' ').await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(refused(octo, "body_timeout").await, 6);
}

#[tokio::test]
async fn nobody_waits_for_a_body_that_nobody_reads() {
    let tracker = start("unread_body", |b| b).await;
    let octo = &tracker.octo;
    for (line, status) in [("POST /nowhere", "404"), ("POST /livez", "405"), ("GET /click?cid=alpha", "302")]
    {
        let opened = Instant::now();
        let request = format!("{line} HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\n\r\nabc");
        let answer = drip(sent(octo, request.as_bytes()).await, opened, Duration::ZERO, b'd').await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_a_busy_one_is_not() {
    let tracker = start("idle", |b| b.env("OCTO_SERVER__IDLE_TIMEOUT_MS", "1500")).await;
    let octo = &tracker.octo;
    let mut stream = sent(octo, CLICK).await;
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_secs(3) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "closed while it was used");
        }
        sleep(Duration::from_millis(100)).await;
        stream.write_all(CLICK).await.unwrap();
    }
    let idle_since = Instant::now();
    end_of(stream, idle_since, Duration::from_secs(1)).await;
    assert_eq!(closed(octo, "idle").await, 1);
}

#[tokio::test]
async fn whoever_does_not_read_the_answers_is_cut_off() {
    let set = |b| limit(b, "OCTO_SERVER__WRITE_TIMEOUT_MS").env("OCTO_SERVER__WRITE_BYTES_MIN", "1000000");
    let tracker = start("slow_reader", set).await;
    let octo = &tracker.octo;
    for bytes_read_at_a_time in [0, 100] {
        let stream = connect(octo.addr()).await.unwrap();
        let opened = Instant::now();
        let (mut from, mut to) = stream.into_split();
        // asks until its answers fill every buffer on the way
        let asking = tokio::spawn(async move { while to.write_all(DOCUMENT).await.is_ok() {} });
        let reading = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(20)).await;
                // nothing at a time keeps its half open
                let mut bytes = vec![0; bytes_read_at_a_time];
                if bytes_read_at_a_time > 0 && !matches!(from.read(&mut bytes).await, Ok(1..)) {
                    return;
                }
            }
        });
        timeout(PATIENCE, asking).await.expect("it is cut off in time").unwrap();
        assert!(opened.elapsed() >= LIMIT);
        reading.abort();
    }
    eventually(SOON, async || {
        let refused = refused(octo, "write_timeout").await;
        anyhow::ensure!(refused == 2, "{refused} counted");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_connection_ends_at_once() {
    let tracker = start("half_closed", |b| b).await;
    for request in [&b""[..], b"GET /cl", CLICK, EVENT] {
        let opened = Instant::now();
        let mut stream = sent(&tracker.octo, request).await;
        stream.shutdown().await.unwrap();
        end_of(stream, opened, Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_do_nothing_make_room_for_those_who_come() {
    let set = |b: OctoBuilder| {
        let b = b.env("OCTO_SERVER__MAX_CONNECTIONS", "60").env("OCTO_SERVER__CROWDED_WAIT_MS", "100");
        b.env("OCTO_SERVER__RESERVED_CONNECTIONS", "10")
    };
    let tracker = start("room", set).await;
    let octo = &tracker.octo;
    let mut busy = connect(octo.addr()).await.unwrap();
    let mut others = Vec::new();
    for round in 0..300 {
        // idle after a request, silent, in the middle of a head, of a body
        let first = [CLICK, b"", b"GET /cl", EVENT][round % 4];
        others.push(timeout(PATIENCE, sent(octo, first)).await.expect("the kernel takes it"));
        sleep(Duration::from_millis(10)).await;
        assert_eq!(timeout(PATIENCE, ask(&mut busy)).await.expect("an answer").unwrap(), "302");
        if round % 10 == 0 {
            assert_eq!(octo.get("/livez").await.status(), 200, "who is new gets in");
        }
    }
    assert!(closed(octo, "room").await >= 240);
    let open = octo.metric("octo_http_connections").await;
    assert!(open <= 60, "{open} connections");
}

/// One click on a connection; its status.
async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(CLICK).await?;
    let mut answer = Vec::with_capacity(1024);
    while !answer.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_have_places_that_strangers_cannot_take() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let admin: SocketAddr = ([127, 0, 0, 1], port).into();
    let database = crate::harness::Database::create("reserve").await;
    let octo = Octo::builder()
        .database_url(database.url())
        .env("OCTO_SERVER__ADMIN_LISTEN", admin.to_string())
        .env("OCTO_SERVER__MAX_CONNECTIONS", "20")
        .env("OCTO_SERVER__CROWDED_WAIT_MS", "60000") // nobody makes room
        .env("OCTO_SERVER__HEADER_TIMEOUT_MS", "60000")
        .start()
        .await;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        strangers.push(sent(&octo, b"GET").await);
    }
    let waiting = timeout(Duration::from_millis(500), octo.client().get(octo.url("/livez")).send()).await;
    assert!(waiting.is_err(), "all public places are taken");
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = octo.client().get(format!("http://{admin}{path}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    drop(strangers);
    assert_eq!(octo.get("/livez").await.status(), 200);
}
