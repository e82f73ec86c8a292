//! Slow clients by the hundred, beside visitors: each is closed in time, and no visitor notices.
//!
//! With OCTO_PROOF=long also 1,000 connections of slowhttptest(1) in each of its modes for a minute:
//! `OCTO_PROOF=long cargo nextest run --profile proof -E 'test(/^breaks::alone::slow_attacks::/)'`

use std::{
    io,
    net::SocketAddr,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    net::TcpSocket,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    harness::{Octo, OctoBuilder, eventually, is_long},
    tracker::Tracker,
    visitors::{Seen, Trail, Visitors, create_campaigns},
};

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
            Self::Body => b"POST /event HTTP/1.1\r\nHost: t\r\nContent-Length: 60000\r\n\r\n{".to_vec(),
            Self::Read => b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: t\r\n\r\n".repeat(40),
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
    let tracker = Tracker::start_with("slow_many", set).await;
    create_campaigns(&tracker.octo).await;
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

async fn refused(octo: &Octo, reason: &str) -> u64 {
    octo.metric(&format!("octo_http_refused_total{{reason=\"{reason}\"}}")).await
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
    let tracker = Tracker::start("slowhttptest").await;
    create_campaigns(&tracker.octo).await;
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
        for reason in ["idle", "room"] {
            let closed = format!("octo_http_connections_closed_total{{reason=\"{reason}\"}}");
            println!("{mode}: closed {reason} {}", octo.metric(&closed).await);
        }
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
