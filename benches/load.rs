//! The load of the benchmarks: kept-alive connections, each asking for one redirect after the other.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    it::harness::Octo,
    support::{REFERRER, USER_AGENT, micros},
};

/// The campaign that the load asks for.
pub(crate) async fn create_campaign(octo: &Octo) -> anyhow::Result<()> {
    let offer = "https://offer.example/lp?cid={click_id}&s={sub1}#top";
    let body = serde_json::json!({
        "key": "demo", "name": "demo", "offers": [{ "name": "offer", "url": offer }],
    });
    let request = octo.client().post(octo.url("/api/v1/campaigns")).bearer_auth(octo.admin_token().await);
    let response = request.json(&body).send().await?;
    ensure!(response.status().as_u16() == 201, "{}", response.text().await?);
    Ok(())
}

/// Asks for `run`; gives the microseconds of each answer, sorted. Any answer but a 302 is an error.
pub(crate) async fn run(address: SocketAddr, connections: usize, run: Duration) -> anyhow::Result<Vec<u32>> {
    let until = Instant::now() + run;
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        tasks.spawn(ask(address, connection, until));
    }
    let mut waits = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        waits.extend(of_one??);
    }
    waits.sort_unstable();
    Ok(waits)
}

async fn ask(address: SocketAddr, connection: usize, until: Instant) -> anyhow::Result<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut waits = Vec::with_capacity(1 << 14);
    let mut buffer = Vec::with_capacity(4096);
    while Instant::now() < until {
        let number = waits.len();
        let request = format!(
            "GET /click?cid=demo&sub1=ad-{connection}-{number}&sub2=creative-7&click_id=src-{number:012}\
             &traffic_source_id=network-3&cost=0.0125&currency=USD HTTP/1.1\r\nHost: {address}\r\n\
             User-Agent: {USER_AGENT}\r\nReferer: {REFERRER}\r\n\r\n"
        );
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream, &mut buffer).await?;
        waits.push(micros(asked.elapsed()));
    }
    Ok(waits)
}

/// Reads one answer, which must be a redirect; its body, where there is one, comes with the head.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.clear();
    while !is_whole(buffer) {
        ensure!(stream.read_buf(buffer).await? > 0, "the server hung up");
    }
    ensure!(buffer.starts_with(b"HTTP/1.1 302"), "{}", String::from_utf8_lossy(buffer));
    Ok(())
}

/// The end of the head, or of nginx's page about the redirect.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n\r\n") || answer.ends_with(b"</html>\r\n")
}
