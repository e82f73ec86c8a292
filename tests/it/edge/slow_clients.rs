//! Clients that take their time: each is closed when its time is over, and nobody else notices.
//!
//! With OCTO_PROOF=long also 1,000 connections of slowhttptest(1) in each of its modes for a minute:
//! `OCTO_PROOF=long cargo nextest run --profile proof -E 'test(/^edge::slow_clients::/)'`

use std::{
    io,
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    harness::{Octo, OctoBuilder, eventually, is_long},
    tracker::{SOON, Tracker},
    visitors::{CAMPAIGNS, Seen, Trail, Visitors, connect},
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

/// What the attackers of one kind send first, and how they go on.
#[derive(Debug, Clone, Copy)]
enum Attack {
    Head,
    Body,
    Read,
}

impl Attack {
    /// One slow connection until it is closed.
    async fn one(self, address: SocketAddr) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?; // little is on its way when nothing is read
        let mut stream = socket.connect(address).await?;
        let first = match self {
            Self::Head => b"GET /click?cid=alpha HTTP/1.1\r\nHost: t\r\nX-Slow: ".to_vec(),
            Self::Body => EVENT.to_vec(),
            Self::Read => DOCUMENT.repeat(40),
        };
        stream.write_all(&first).await?;
        loop {
            sleep(Duration::from_millis(100)).await;
            stream.write_all(b"G").await?;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_slow_clients_are_closed_in_time_and_no_visitor_notices() {
    let set = |b: OctoBuilder| {
        let b = b.env("OCTO_SERVER__HEADER_TIMEOUT_MS", "3000").env("OCTO_SERVER__BODY_TIMEOUT_MS", "3000");
        b.env("OCTO_SERVER__WRITE_TIMEOUT_MS", "3000")
    };
    let tracker = start("slow_many", set).await;
    let octo = &tracker.octo;
    let trail = Arc::new(Trail::create());
    let visitors = Visitors::start(octo.addr(), trail.clone());
    sleep(Duration::from_secs(1)).await;
    let before_kb = memory_kb(octo.pid(), "VmRSS");
    let mut attackers = JoinSet::new();
    for number in 0..300 {
        let attack = [Attack::Head, Attack::Body, Attack::Read][number % 3];
        let address = octo.addr();
        attackers.spawn(async move { timeout(Duration::from_secs(20), attack.one(address)).await });
    }
    while let Some(ended) = attackers.join_next().await {
        ended.unwrap().expect("each slow client is closed in time").unwrap_err();
    }
    let seen = visitors.finish().await;
    let grown_kb = memory_kb(octo.pid(), "VmHWM").saturating_sub(before_kb);
    println!("during the attack: {seen}; memory grew by {grown_kb} kB");
    assert_eq!((seen.error_count(), seen.unrecorded), (0, 0), "{seen}");
    assert!(grown_kb < 300 * 256, "{grown_kb} kB for 300 connections");
    assert!(refused(octo, "timeout").await >= 100 && refused(octo, "body_timeout").await >= 100);
    assert!(refused(octo, "write_timeout").await >= 100);
}

/// `VmRSS` or `VmHWM` of a process.
fn memory_kb(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says it");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// The run of slowhttptest(1): quiet and attacked rounds by turns, against the limits as they are by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_of_slowhttptest_for_a_minute_in_each_mode() {
    if !is_long() {
        return; // three minutes of attack; see the head of this file
    }
    let tracker = start("slowhttptest", |b| b).await;
    let octo = &tracker.octo;
    let attacks: [(&str, &str, &[&str]); 3] = [
        ("head", "/click?cid=alpha", &["-H", "-i", "5", "-x", "24"]),
        ("body", "/event", &["-B", "-i", "5", "-s", "60000", "-x", "10", "-t", "POST", "-f", "text/plain"]),
        ("read", "/api/v1/openapi.json", &["-X", "-w", "256", "-y", "512", "-n", "5", "-z", "32", "-k", "3"]),
    ];
    for (mode, path, options) in attacks {
        let quiet = visit(octo, async { sleep(Duration::from_secs(10)).await }).await;
        let before_kb = memory_kb(octo.pid(), "VmRSS");
        let attack = visit(octo, keep_attacking(&octo.url(path), options)).await;
        let peak_kb = memory_kb(octo.pid(), "VmHWM");
        println!("{mode}: quiet   {quiet}\n{mode}: attacked {attack}");
        println!("{mode}: resident {before_kb} kB before, at most {peak_kb} kB so far");
        assert_eq!((quiet.error_count(), attack.error_count()), (0, 0));
        // what is left of the attack is gone once its time is over
        eventually(Duration::from_secs(75), async || {
            let open = octo.metric("octo_http_connections").await;
            anyhow::ensure!(open < 20, "{open} connections are open");
            Ok(())
        })
        .await;
        for reason in ["timeout", "body_timeout", "write_timeout"] {
            println!("{mode}: refused {reason} {}", refused(octo, reason).await);
        }
        println!("{mode}: closed idle {}, room {}", closed(octo, "idle").await, closed(octo, "room").await);
    }
}

async fn visit(octo: &Octo, meanwhile: impl Future<Output = ()>) -> Seen {
    let visitors = Visitors::start(octo.addr(), Arc::new(Trail::create()));
    meanwhile.await;
    visitors.finish().await
}

/// It ends when all its connections are closed, and begins again until the minute is over.
async fn keep_attacking(url: &str, options: &[&str]) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_mins(1) {
        slowhttptest(url, options).await;
    }
}

async fn slowhttptest(url: &str, options: &[&str]) {
    let output = tokio::process::Command::new("slowhttptest")
        .args(["-c", "1000", "-r", "200", "-p", "3", "-l", "60", "-u", url])
        .args(options)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("slowhttptest is installed (Debian: slowhttptest)");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.rfind("slow HTTP test status").map_or("", |at| &said[at..]);
    let plain: String = last.chars().filter(|c| c.is_ascii_graphic() || " \n".contains(*c)).collect();
    println!("{plain}");
}
