//! The load of the benchmarks: kept-alive connections, each asking for one redirect after the other, or telling of one
//! conversion.
#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use sqlx::PgConnection;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};
use uuid::Uuid;

use crate::support::{REFERRER, USER_AGENT, micros};

const STORED_WITHIN: Duration = Duration::from_mins(2);

/// A load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Links are spread over the campaigns `demo-0` to `demo-N`.
    pub(crate) campaigns: usize,
}

impl Load {
    /// Asks for `run`; gives the microseconds of each answer, sorted. Any answer but a 302 is an error.
    pub(crate) async fn run(self, run: Duration) -> anyhow::Result<Vec<u32>> {
        let Self { address, campaigns, .. } = self;
        self.ask_all(run, b"HTTP/1.1 302", move |connection, number| {
            let campaign = fastrand::usize(..campaigns);
            format!(
                "GET /click?cid=demo-{campaign}&sub1=ad-{connection}-{number}&sub2=creative-7\
                 &click_id=src-{number:012}&traffic_source_id=network-3&cost=0.0125&currency=USD HTTP/1.1\r\n\
                 Host: {address}\r\nUser-Agent: {USER_AGENT}\r\nReferer: {REFERRER}\r\n\r\n"
            )
        })
        .await
    }

    /// Tells for `run` that clicks were sales, one after the other, and again from the first where there are too few; any
    /// answer but a 200 is an error.
    pub(crate) async fn tell(self, run: Duration, clicks: Arc<Vec<Uuid>>) -> anyhow::Result<Vec<u32>> {
        let (address, next) = (self.address, AtomicUsize::new(0));
        self.ask_all(run, b"HTTP/1.1 200", move |connection, number| {
            let click = clicks[next.fetch_add(1, Ordering::Relaxed) % clicks.len()];
            format!(
                "GET /postback/network-1?clickid={click}&payout=1.25&currency=USD&status=sale\
                 &txid=order-{connection}-{number:012} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
            )
        })
        .await
    }

    /// Sends one request after the other on every connection; each is made of the connection's and its own number.
    async fn ask_all(
        self,
        run: Duration,
        wanted: &'static [u8],
        request: impl Fn(usize, usize) -> String + Send + Sync + 'static,
    ) -> anyhow::Result<Vec<u32>> {
        let (until, request) = (Instant::now() + run, Arc::new(request));
        let mut tasks = JoinSet::new();
        for connection in 0..self.connections {
            let (address, request) = (self.address, request.clone());
            tasks.spawn(async move {
                let mut stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let mut waits = Vec::with_capacity(1 << 14);
                let mut buffer = Vec::with_capacity(4096);
                while Instant::now() < until {
                    let request = request(connection, waits.len());
                    let asked = Instant::now();
                    stream.write_all(request.as_bytes()).await?;
                    answer(&mut stream, &mut buffer, wanted).await?;
                    waits.push(micros(asked.elapsed()));
                }
                anyhow::Ok(waits)
            });
        }
        let mut waits = Vec::new();
        while let Some(of_one) = tasks.join_next().await {
            waits.extend(of_one??);
        }
        waits.sort_unstable();
        Ok(waits)
    }
}

/// Clicks that octo has stored, by its roll-ups, which move in the transaction of the rows: cheap to ask while
/// it stores, where counting rows would be charged to it.
pub(crate) async fn rolled_up(connection: &mut PgConnection) -> sqlx::Result<i64> {
    let sql = "SELECT coalesce(sum(clicks), 0)::int8 FROM campaign_stats_hourly";
    sqlx::query_scalar(sql).fetch_one(connection).await
}

/// Waits until octo has stored `count` clicks.
pub(crate) async fn wait_stored(connection: &mut PgConnection, count: i64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let stored = rolled_up(connection).await?;
        if stored >= count {
            ensure!(stored == count, "{stored} stored, {count} answered");
            return Ok(());
        }
        ensure!(start.elapsed() < STORED_WITHIN, "only {stored} of {count} stored");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads one answer, which must begin as `wanted`; its body, where there is one, comes with the head.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>, wanted: &[u8]) -> anyhow::Result<()> {
    buffer.clear();
    while !is_whole(buffer) {
        ensure!(stream.read_buf(buffer).await? > 0, "the server hung up");
    }
    ensure!(buffer.starts_with(wanted), "{}", String::from_utf8_lossy(buffer));
    Ok(())
}

/// The end of the head, of nginx's page about the redirect, or of an object.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n\r\n") || answer.ends_with(b"</html>\r\n") || answer.ends_with(b"}")
}
