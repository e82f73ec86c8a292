//! Who is calling: what `clicks.ip_address` says, through each header, the PROXY protocol and a real haproxy.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

use crate::{
    harness::{HaProxy, OctoBuilder, eventually},
    tracker::{SOON, Tracker},
};

/// Of the trusted proxy in these tests; everybody else calls from another loopback address.
const PROXY: &str = "127.0.0.9";
const STRANGER: &str = "127.0.0.77";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[tokio::test]
async fn nobody_is_believed_unless_configured() {
    let tracker = Tracker::start("caller_default").await;
    tracker.simple_campaign("k").await;
    let forged = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nCF-Connecting-IP: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    assert_eq!(address(&tracker, PROXY, &[], forged).await, PROXY);
    let header = b"PROXY TCP4 6.6.6.6 127.0.0.1 1 2\r\n";
    assert_eq!(answer(tracker.octo.addr(), PROXY, &[header], "").await.unwrap().status, 400);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_in_the_one_configured_header_and_nobody_else_in_any() {
    let others = [
        ("X-Forwarded-For", "X-Forwarded-For: 6.6.6.6\r\n"),
        ("Forwarded", "Forwarded: for=6.6.6.6\r\n"),
        ("CF-Connecting-IP", "CF-Connecting-IP: 6.6.6.6\r\n"),
    ];
    for (name, right, wanted) in [
        ("X-Forwarded-For", "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 127.0.0.9\r\n", "192.0.2.7"),
        ("X-Forwarded-For", "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: ::ffff:192.0.2.7\r\n", "192.0.2.7"),
        ("Forwarded", "Forwarded: for=\"6.6.6.6, for=\"[2001:db8::7]:80\";proto=https\r\n", "2001:db8::7"),
        ("CF-Connecting-IP", "CF-Connecting-IP: 2001:db8::7\r\n", "2001:db8::7"),
    ] {
        let tracker = Tracker::start_with("caller_header", |octo| {
            trusting(octo).env("OCTO_SERVER__CLIENT_IP_HEADER", name)
        })
        .await;
        tracker.simple_campaign("k").await;
        let wrong: String =
            others.iter().filter(|(other, _)| *other != name).map(|(_, line)| *line).collect();
        assert_eq!(address(&tracker, PROXY, &[], &format!("{wrong}{right}")).await, wanted, "{right}");
        assert_eq!(address(&tracker, PROXY, &[], &wrong).await, PROXY, "without {name}");
        assert_eq!(address(&tracker, STRANGER, &[], right).await, STRANGER, "{right} of a stranger");
    }
}

#[tokio::test]
async fn a_proxy_header_names_the_client_however_it_is_cut() {
    let tracker = Tracker::start_with("caller_proxy", proxied).await;
    tracker.simple_campaign("k").await;
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec();
    let v2_ipv4 = v2(0x21, 0x11, &[192, 0, 2, 2, 127, 0, 0, 1, 1, 2, 3, 4]);
    let ipv6 = [&[0x20, 1, 0x0D, 0xB8][..], &[0; 11], &[3], &[9; 16], &[0, 80, 0, 81]].concat();
    let mut checked = v2(0x21, 0x21, &[&ipv6[..], &[0x03, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 0]].concat());
    let sum = crc32c::crc32c(&checked).to_be_bytes();
    checked[55..59].copy_from_slice(&sum);
    let long =
        v2(0x21, 0x11, &[&[192, 0, 2, 4, 127, 0, 0, 1, 1, 2, 3, 4, 0xE0, 12, 0][..], &[7; 3072]].concat());
    for (header, wanted) in [
        (v1, "192.0.2.1"),
        (v2_ipv4, "192.0.2.2"),
        (checked, "2001:db8::3"),
        (long, "192.0.2.4"),
        (b"PROXY TCP6 ::ffff:192.0.2.5 ::1 1 2\r\n".to_vec(), "192.0.2.5"),
        (b"PROXY UNKNOWN\r\n".to_vec(), PROXY),
        (b"PROXY UNKNOWN 6.6.6.6 6.6.6.6 1 2\r\n".to_vec(), PROXY),
        (v2(0x20, 0x00, b""), PROXY),
        (v2(0x21, 0x00, b"whatever"), PROXY),
    ] {
        assert_eq!(address(&tracker, PROXY, &[&header], "").await, wanted, "in one piece: {header:02x?}");
        if header.len() < 200 {
            let bytes: Vec<&[u8]> = header.chunks(1).collect();
            assert_eq!(address(&tracker, PROXY, &bytes, "").await, wanted, "byte by byte: {header:02x?}");
        }
    }
    let plain = "X-Forwarded-For: 6.6.6.6\r\n";
    assert_eq!(address(&tracker, STRANGER, &[], plain).await, STRANGER, "a stranger without a header");
    assert_eq!(address(&tracker, STRANGER, &[b"G", b"E"], "").await, STRANGER, "hesitating");
}

#[tokio::test]
async fn who_must_not_or_does_not_send_a_proxy_header_is_closed_and_counted() {
    let tracker = Tracker::start_with("caller_refused", |octo| {
        proxied(octo).env("OCTO_SERVER__HEADER_TIMEOUT_MS", "1500")
    })
    .await;
    tracker.simple_campaign("k").await;
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec();
    let good_v2 = v2(0x21, 0x11, &[192, 0, 2, 2, 127, 0, 0, 1, 1, 2, 3, 4]);
    let mut wrong_sum = v2(0x21, 0x11, &[192, 0, 2, 2, 127, 0, 0, 1, 1, 2, 3, 4, 0x03, 0, 4, 1, 2, 3, 4]);
    wrong_sum[16] = 9;
    let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    for (reason, from, sent) in [
        ("proxy_untrusted", STRANGER, v1.clone()),
        ("proxy_untrusted", STRANGER, good_v2.clone()),
        ("proxy_missing", PROXY, b"".to_vec()),
        ("proxy_missing", PROXY, b"POST".to_vec()),
        ("proxy_malformed", PROXY, b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n".to_vec()),
        ("proxy_malformed", PROXY, endless),
        ("proxy_malformed", PROXY, v2(0x31, 0x11, &[0; 12])),
        ("proxy_malformed", PROXY, v2(0x21, 0x11, &[0; 5])),
        ("proxy_malformed", PROXY, v2(0x21, 0x11, &vec![0; 60_000])),
        ("proxy_malformed", PROXY, wrong_sum),
    ] {
        let before = refused(&tracker, reason).await;
        let answered = answer(tracker.octo.addr(), from, &[&sent], "").await;
        assert!(answered.is_err(), "{reason} is answered: {sent:02x?}");
        eventually(SOON, async || {
            ensure!(refused(&tracker, reason).await > before, "{reason} is not counted: {sent:02x?}");
            Ok(())
        })
        .await;
    }
    // half a header, and then nothing
    let before = refused(&tracker, "timeout").await;
    let mut slow = connect(tracker.octo.addr(), PROXY).await.unwrap();
    slow.write_all(&good_v2[..14]).await.unwrap();
    assert_eq!(slow.read(&mut [0; 9]).await.unwrap_or(0), 0, "closed, unanswered");
    assert_eq!(refused(&tracker, "timeout").await, before + 1);
    assert_eq!(address(&tracker, PROXY, &[&v1], "").await, "192.0.2.1", "and life goes on");
}

#[tokio::test]
async fn haproxy_names_the_client_in_each_way_it_has() {
    let from = format!("source {PROXY}");
    for (is_proxied, options) in [
        (false, from.clone()),
        (true, format!("{from} send-proxy check-send-proxy")),
        (true, format!("{from} send-proxy-v2 check-send-proxy")),
        (true, format!("{from} send-proxy-v2 proxy-v2-options crc32c,unique-id check-send-proxy")),
    ] {
        let set = if is_proxied { proxied } else { trusting };
        let tracker = Tracker::start_with("caller_haproxy", set).await;
        tracker.simple_campaign("k").await;
        let node = tracker.octo.addr();
        let edit =
            |text: String| text.replace("    default-server ", &format!("    default-server {options} "));
        let haproxy = HaProxy::start([node, node], edit).await;
        let id = eventually(SOON, async || {
            let forged = "X-Forwarded-For: 6.6.6.6\r\n";
            let answer = answer(haproxy.addr(), STRANGER, &[], forged).await?;
            ensure!(answer.status == 302, "{} with {options}: {}", answer.status, haproxy.log());
            answer.click_id.context("an id")
        })
        .await;
        assert_eq!(stored_address(&tracker, id).await, STRANGER, "{options}");
    }
}

fn trusting(octo: OctoBuilder) -> OctoBuilder {
    octo.env("OCTO_SERVER__TRUSTED_PROXIES", PROXY)
}

fn proxied(octo: OctoBuilder) -> OctoBuilder {
    trusting(octo).env("OCTO_SERVER__PROXY_PROTOCOL", "true")
}

/// A version 2 header.
fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[version_and_command, family][..], &length, body].concat()
}

struct Answer {
    status: u16,
    click_id: Option<Uuid>,
}

/// The address that is stored for a click from `from`, which sends these pieces in front of it.
async fn address(tracker: &Tracker, from: &str, pieces: &[&[u8]], headers: &str) -> String {
    let hesitation = pieces.len() > 1 && pieces.concat().starts_with(b"G");
    let answer = if hesitation {
        answer_to(
            tracker.octo.addr(),
            from,
            pieces,
            "T /c/k HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
        )
        .await
    } else {
        answer(tracker.octo.addr(), from, pieces, headers).await
    };
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 302);
    stored_address(tracker, answer.click_id.expect("an id")).await
}

async fn stored_address(tracker: &Tracker, id: Uuid) -> String {
    eventually(SOON, async || {
        let query = sqlx::query_scalar("SELECT host(ip_address) FROM clicks WHERE id = $1").bind(id);
        query.fetch_optional(&tracker.pool).await?.context("not stored yet")
    })
    .await
}

async fn answer(to: SocketAddr, from: &str, pieces: &[&[u8]], headers: &str) -> Result<Answer> {
    let head = format!("GET /c/k HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n");
    answer_to(to, from, pieces, &head).await
}

async fn answer_to(to: SocketAddr, from: &str, pieces: &[&[u8]], head: &str) -> Result<Answer> {
    let mut stream = connect(to, from).await?;
    for piece in pieces {
        stream.write_all(piece).await?;
        tokio::task::yield_now().await; // a segment each: TCP_NODELAY
    }
    stream.write_all(head.as_bytes()).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    let status = text.get(9..12).context("no answer")?.parse()?;
    let click_id = text.lines().find_map(|l| l.strip_prefix("x-click-id: ")).and_then(|id| id.parse().ok());
    Ok(Answer { status, click_id })
}

async fn connect(to: SocketAddr, from: &str) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse()?, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn refused(tracker: &Tracker, reason: &str) -> u64 {
    tracker.octo.metric(&format!("octo_http_refused_total{{reason=\"{reason}\"}}")).await
}
