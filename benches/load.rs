//! The load of the benchmarks: kept-alive connections, each asking for one redirect after the other.

use std::{
    net::SocketAddr,
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
        let until = Instant::now() + run;
        let mut tasks = JoinSet::new();
        for connection in 0..self.connections {
            tasks.spawn(self.ask(connection, until));
        }
        let mut waits = Vec::new();
        while let Some(of_one) = tasks.join_next().await {
            waits.extend(of_one??);
        }
        waits.sort_unstable();
        Ok(waits)
    }

    async fn ask(self, connection: usize, until: Instant) -> anyhow::Result<Vec<u32>> {
        let address = self.address;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut waits = Vec::with_capacity(1 << 14);
        let mut buffer = Vec::with_capacity(4096);
        while Instant::now() < until {
            let number = waits.len();
            let campaign = fastrand::usize(..self.campaigns);
            let request = format!(
                "GET /click?cid=demo-{campaign}&sub1=ad-{connection}-{number}&sub2=creative-7\
                 &click_id=src-{number:012}&traffic_source_id=network-3&cost=0.0125&currency=USD HTTP/1.1\r\n\
                 Host: {address}\r\nUser-Agent: {USER_AGENT}\r\nReferer: {REFERRER}\r\n\r\n"
            );
            let asked = Instant::now();
            stream.write_all(request.as_bytes()).await?;
            answer(&mut stream, &mut buffer).await?;
            waits.push(micros(asked.elapsed()));
        }
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
