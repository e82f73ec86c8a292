//! Requests whose length can be read in two ways, sent to a real haproxy and a real nginx in front of octo: octo answers
//! the requests that the proxy sent on, each as it was meant, and nothing else is read out of their bodies.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{HaProxy, Nginx, eventually},
    tracker::{SOON, Tracker},
};

/// Both proxies end a connection when nothing has come for this long; in the tests, soon.
const IDLE: &str = "300ms";

/// One that has not ended by then is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lines of a head that give the length of the body, `{}` standing for a number.
const LENGTHS: [&str; 28] = [
    "Content-Length: {}",
    "Transfer-Encoding: chunked",
    "Content-Length: {}\r\nX-Transfer-Encoding: chunked",
    "Content-Length: {}\r\nTransfer-Encoding: identity",
    "Content-Length: {}\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: {}",
    "Content-Length: {}\r\nTransfer-Encoding: CHUNKED",
    "Content-Length: {}\r\nTransfer-Encoding:\r\n chunked",
    "Content-Length: {}\r\nTransfer-Encoding:\r\n\tchunked",
    "Content-Length: {}\r\nTransfer-Encoding:chunked",
    "Content-Length: {}\r\nTransfer-Encoding : chunked",
    "Content-Length: {}\r\nTransfer-Encoding\t: chunked",
    "Content-Length: {}\r\nTransfer-Encoding: chunked ",
    "Content-Length: {}\r\n Transfer-Encoding: chunked",
    "Content-Length: {}\r\nX: y\nTransfer-Encoding: chunked",
    "Content-Length: {}\r\nX: y\rTransfer-Encoding: chunked",
    "Content-Length: {}\r\nTransfer-Encoding: \x0bchunked",
    "Content-Length: {}\r\nTransfer-Encoding: \"chunked\"",
    "Content-Length: {}\r\nTransfer-Encoding: xchunked",
    "Content-Length: {}\r\nTransfer_Encoding: chunked",
    "Content-Length: {}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Content-Length: {}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Content-Length: {}\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Content-Length: {}\r\nTransfer-Encoding: chunked, identity",
    "Content-Length: {}\r\nTransfer-Encoding: identity, chunked",
    "Content-Length: {}\r\nTransfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: {}\r\nContent-Length: 0",
    "Content-Length : {}\r\nTransfer-Encoding: chunked",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_smuggled_through_haproxy() {
    let tracker = Tracker::start("smuggle_haproxy").await;
    tracker.simple_campaign("demo").await;
    let node = tracker.octo.addr();
    // connections to octo are shared by all clients: what is left over in one would be the next one's
    let options = "    mode http\n    http-reuse always\n    log stdout format raw local0\n    log-format \"%s %r\"\n    \
                   option dontlognull\n";
    let edit = |text: String| {
        let idle = format!("timeout http-keep-alive {IDLE}");
        text.replacen("    mode http\n", options, 1).replace("timeout http-keep-alive 60s", &idle)
    };
    let haproxy = HaProxy::start([node, node], edit).await;
    let log = || haproxy.log().lines().filter_map(haproxy_line).collect();
    attack(&tracker, haproxy.addr(), log).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_smuggled_through_nginx() {
    attack_nginx("smuggle_nginx", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_smuggled_through_an_nginx_that_passes_bodies_on_as_they_come() {
    attack_nginx("smuggle_nginx_streaming", "proxy_request_buffering off;").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_smuggled_through_an_nginx_that_passes_odd_headers_on() {
    let options = "ignore_invalid_headers off; underscores_in_headers on; proxy_request_buffering off;";
    attack_nginx("smuggle_nginx_lenient", options).await;
}

async fn attack_nginx(name: &str, options: &str) {
    let tracker = Tracker::start(name).await;
    tracker.simple_campaign("demo").await;
    let nginx = Nginx::start(tracker.octo.addr(), &format!("keepalive_timeout {IDLE}; {options}")).await;
    let log = || nginx.access_log().lines().filter_map(nginx_line).collect();
    attack(&tracker, nginx.addr(), log).await;
}

/// A request as a proxy saw it.
struct Line {
    request: String,
    is_sent: bool,
}

fn nginx_line(line: &str) -> Option<Line> {
    let (fate, request) = line.split_once(' ')?;
    let is_sent = fate == "sent";
    (is_sent || fate == "kept").then(|| Line { request: request.to_owned(), is_sent })
}

/// `a` and `b` are the names of octo in the example.
fn haproxy_line(line: &str) -> Option<Line> {
    let (server, request) = line.split_once(' ')?;
    let is_sent = matches!(server, "a" | "b");
    (is_sent || server == "<NOSRV>").then(|| Line { request: request.to_owned(), is_sent })
}

/// Sends every case to a proxy, and compares what the proxy says it sent, what octo saw, what clients were answered and
/// what octo stored.
async fn attack(tracker: &Tracker, proxy: SocketAddr, log: impl Fn() -> Vec<Line>) {
    eventually(SOON, async || {
        let answers = exchange(proxy, &victim("ready")).await?;
        ensure!(answers.contains("HTTP/1.1 302"), "{answers}");
        Ok(())
    })
    .await;
    for (number, lengths) in LENGTHS.iter().enumerate() {
        for (body, attack) in attacks(lengths, number).into_iter().enumerate() {
            let case = format!("{number}.{body} {lengths:?}");
            let before = log().len();
            let answers = exchange(proxy, attack.as_bytes()).await.unwrap();
            // whose request comes next on a shared connection gets its own answer
            let own = format!("victim-{number}-{body}");
            let answer = exchange(proxy, &victim(&own)).await.unwrap();
            assert_eq!(count_answers(&answer), 1, "{case}: {answer}");
            assert!(answer.contains(&format!("&s={own}#top")), "{case}: {answer}");
            let lines = eventually(SOON, async || {
                let lines: Vec<Line> = log().into_iter().skip(before).collect();
                ensure!(lines.iter().any(|line| line.request.contains(&own)), "{own} is not in the log");
                ensure!(lines.len() > count_answers(&answers), "{} lines for {answers}", lines.len());
                Ok(lines)
            })
            .await;
            assert_eq!(lines.len(), count_answers(&answers) + 1, "{case}: {answers}");
        }
    }
    let lines = log();
    let sent = |path: &str| lines.iter().filter(|line| line.is_sent && line.request.contains(path)).count();
    let (events, behind) = (sent("/event"), sent("sub1=smuggled"));
    println!(
        "{proxy}: of {} requests {events} were sent on, and {behind} that the proxy read behind them",
        LENGTHS.len() * 2
    );
    assert!(events > 5 && behind > 1, "{events} and {behind}: nothing was tried");
    assert_octo_saw(tracker, lines).await;
}

/// What octo saw is what the proxy sent.
async fn assert_octo_saw(tracker: &Tracker, lines: Vec<Line>) {
    let sent: Vec<String> = lines.into_iter().filter(|l| l.is_sent).map(|l| l.request).collect();
    let metrics = tracker.octo.metrics().await;
    let count = |series: &str, but: &[&str]| -> u64 {
        let lines = metrics.lines().filter(|l| l.starts_with(series) && !but.iter().any(|b| l.contains(b)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    // the campaign and the checks of haproxy did not come from here
    let others = ["/readyz", "/metrics", "/api/v1/", "/livez", "/health"];
    assert_eq!(count("octo_http_requests_total{", &others), sent.len() as u64, "{sent:#?}");
    // what is no request at all would be the rest of another one
    let refused = count("octo_http_refused_total{", &["reason=\"framing\""]);
    assert_eq!(refused, 0, "{metrics}");
    tracker.octo.wait_drained(SOON).await;
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT sub1 FROM clicks").fetch_all(&tracker.pool).await.unwrap();
    let is_sent = |sub1: &String| sent.iter().any(|request| request.contains(&format!("sub1={sub1} ")));
    let smuggled: BTreeSet<&String> = stored.iter().filter(|sub1| !is_sent(sub1)).collect();
    assert!(smuggled.is_empty(), "{smuggled:?}");
}

/// The same lines with a body that ends early by its chunks, and with one that ends early by its length; what comes
/// behind that is a link.
fn attacks(lengths: &str, number: usize) -> [String; 2] {
    let request = |length: usize, body: &str| {
        let lengths = lengths.replace("{}", &length.to_string());
        format!(
            "POST /event?case={number} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{lengths}\r\n\r\n{body}"
        )
    };
    let link = |body: usize| {
        format!(
            "GET /click?cid=demo&sub1=smuggled-{number}-{body} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        )
    };
    let event = r#"{"cid":"demo","event_type":"view"}"#;
    let chunks = format!("{:x}\r\n{event}\r\n0\r\n\r\n{}", event.len(), link(0));
    let inside = link(1);
    let size = format!("{:x}\r\n", inside.len());
    [request(chunks.len(), &chunks), request(size.len(), &format!("{size}{inside}\r\n0\r\n\r\n"))]
}

fn victim(sub1: &str) -> Vec<u8> {
    format!("GET /click?cid=demo&sub1={sub1} HTTP/1.1\r\nHost: t\r\nUser-Agent: Firefox\r\nConnection: close\r\n\r\n")
        .into_bytes()
}

/// Sends bytes and reads until the connection ends.
async fn exchange(proxy: SocketAddr, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(request).await?;
    let mut answers = Vec::new();
    // one that refuses need not read everything: then its connection ends with a reset
    while let Ok(Ok(1..)) = timeout(PATIENCE, stream.read_buf(&mut answers)).await {}
    Ok(String::from_utf8_lossy(&answers).into_owned())
}

fn count_answers(answers: &str) -> usize {
    answers.matches("HTTP/1.1 ").count() + answers.matches("HTTP/1.0 ").count()
}
