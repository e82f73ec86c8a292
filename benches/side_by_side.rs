//! End to end: the real octo against a bare server that does one INSERT a click and then answers, on one
//! PostgreSQL with `fsync` on, under the same load.
//!
//! `cargo bench --bench side_by_side`. 64 and then 256 kept-alive connections ask `GET /click` for 8 s, three rounds, one side
//! after the other. "stored/s" counts from the first request to the last row. CPU is the server's and
//! PostgreSQL's, without the load's, which takes its share of the same cores.

use std::{
    env,
    io::{BufRead as _, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use octo::model::visit::Params;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use uuid::Uuid;

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod support;

use it::harness::{Octo, PrivatePostgres};
use support::{REFERRER, USER_AGENT, median, percentile_ms};

const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(8);
const CONNECTIONS: [usize; 2] = [64, 256];
const STORED_WITHIN: Duration = Duration::from_mins(2);
/// Set in the child that is the baseline's server.
const BASELINE_URL: &str = "SIDE_BY_SIDE_BASELINE_URL";

/// A server under load.
#[derive(Debug, Clone, Copy)]
struct Side {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    is_octo: bool,
}

/// What one side did in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    answered_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    stored_per_second: f64,
    /// CPU seconds per 1,000 stored clicks.
    cpu: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Ok(url) = env::var(BASELINE_URL) {
        return baseline(&url).await;
    }
    support::print_load();
    let postgres = PrivatePostgres::start().await;
    let octo = Octo::builder().database_url(postgres.url()).start().await; // migrates
    create_campaign(&octo).await?;
    let baseline = Baseline::start(&postgres.url())?;
    let sides = [
        Side { name: "octo", address: octo.addr(), pid: octo.pid(), is_octo: true },
        Side { name: "INSERT a click", address: baseline.address, pid: baseline.child.id(), is_octo: false },
    ];
    let mut bench = Bench { admin: PgConnection::connect(&postgres.admin_url()).await?, postgres };
    for side in sides {
        bench.round(side, CONNECTIONS[0], RUN / 8).await?; // opens connections, prepares statements, warms caches
    }

    for connections in CONNECTIONS {
        bench.compare(sides, connections).await?;
    }
    Ok(())
}

async fn create_campaign(octo: &Octo) -> anyhow::Result<()> {
    let offer = "https://offer.example/lp?cid={click_id}&s={sub1}#top";
    let body = serde_json::json!({
        "key": "demo", "name": "demo", "offers": [{ "name": "offer", "url": offer }],
    });
    let request = octo.client().post(octo.url("/api/v1/campaigns")).bearer_auth(octo.admin_token().await);
    let response = request.json(&body).send().await?;
    ensure!(response.status().as_u16() == 201, "{}", response.text().await?);
    Ok(())
}

struct Bench {
    postgres: PrivatePostgres,
    admin: PgConnection,
}

impl Bench {
    /// Interleaved rounds, their medians and the ratios.
    async fn compare(&mut self, sides: [Side; 2], connections: usize) -> anyhow::Result<()> {
        println!(
            "\n{connections} connections\n{:>5}  {:<15} {:>10} {:>8} {:>8} {:>9} {:>19}",
            "round", "", "answered/s", "p50 ms", "p99 ms", "stored/s", "CPU s/1,000 clicks"
        );
        let mut all = [Vec::new(), Vec::new()];
        for round in 1..=ROUNDS {
            for (figures, side) in all.iter_mut().zip(sides) {
                let of_round = self.round(side, connections, RUN).await?;
                print(&round.to_string(), side.name, of_round);
                figures.push(of_round);
            }
        }
        let [octos, inserts] = all.map(|rounds| medians(&rounds));
        print("med.", "octo", octos);
        print("med.", "INSERT a click", inserts);
        println!(
            "ratio: {:.1} times the answers/s, {:.1} times the stored/s, 1/{:.1} of the CPU a click",
            octos.answered_per_second / inserts.answered_per_second,
            octos.stored_per_second / inserts.stored_per_second,
            inserts.cpu / octos.cpu,
        );
        Ok(())
    }

    /// Loads one server and waits until every answered click is a row.
    async fn round(&mut self, side: Side, connections: usize, run: Duration) -> anyhow::Result<Figures> {
        let Side { address, pid, is_octo, .. } = side;
        sqlx::query("CHECKPOINT").execute(&mut self.admin).await?;
        let (before, rolled_up) = (self.rows().await?, self.rolled_up().await?);
        let (start, cpu) = (Instant::now(), self.cpu(pid));
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            tasks.spawn(ask(address, connection, start, run));
        }
        let mut waits = Vec::new();
        while let Some(of_one) = tasks.join_next().await {
            waits.extend(of_one??);
        }
        let asked = start.elapsed();
        let answered = i64::try_from(waits.len())?;
        let wanted = before + answered;
        while is_octo && self.rolled_up().await? < rolled_up + answered {
            ensure!(start.elapsed() < STORED_WITHIN, "{} of {wanted} rows", self.rows().await?);
            sleep(Duration::from_millis(50)).await;
        }
        let (stored, cpu) = (start.elapsed(), self.cpu(pid).saturating_sub(cpu));
        let rows = self.rows().await?;
        ensure!(rows == wanted, "{rows} rows, and {wanted} were answered");
        waits.sort_unstable();
        let count = waits.len() as f64;
        Ok(Figures {
            answered_per_second: count / asked.as_secs_f64(),
            p50_ms: percentile_ms(&waits, 50),
            p99_ms: percentile_ms(&waits, 99),
            stored_per_second: count / stored.as_secs_f64(),
            cpu: cpu.as_secs_f64() / count * 1e3,
        })
    }

    /// Clicks stored so far. By octo's roll-ups, which move in the transaction of its rows: cheap to ask while
    /// it stores, where counting rows would be charged to it. The baseline writes none, and needs none: its
    /// rows are there when it answers.
    async fn rolled_up(&mut self) -> sqlx::Result<i64> {
        let sql = "SELECT coalesce(sum(clicks), 0)::int8 FROM campaign_stats_hourly";
        sqlx::query_scalar(sql).fetch_one(&mut self.admin).await
    }

    async fn rows(&mut self) -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&mut self.admin).await
    }

    fn cpu(&self, server: u32) -> Duration {
        support::cpu_of(server) + support::cpu_of_tree(self.postgres.pid())
    }
}

/// One kept-alive connection; gives the microseconds of each answer.
async fn ask(
    address: SocketAddr,
    connection: usize,
    start: Instant,
    run: Duration,
) -> anyhow::Result<Vec<u32>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut waits = Vec::with_capacity(1 << 14);
    let mut buffer = Vec::with_capacity(4096);
    while start.elapsed() < run {
        let number = waits.len();
        let request = format!(
            "GET /click?cid=demo&sub1=ad-{connection}-{number}&sub2=creative-7&click_id=src-{number:012}\
             &traffic_source_id=network-3&cost=0.0125&currency=USD HTTP/1.1\r\nHost: {address}\r\n\
             User-Agent: {USER_AGENT}\r\nReferer: {REFERRER}\r\n\r\n"
        );
        let asked = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream, &mut buffer).await?;
        waits.push(support::micros(asked.elapsed()));
    }
    Ok(waits)
}

/// Reads one answer, which must be a redirect without a body.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.clear();
    while !buffer.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(buffer).await? > 0, "the server hung up");
    }
    ensure!(buffer.starts_with(b"HTTP/1.1 302"), "{}", String::from_utf8_lossy(buffer));
    Ok(())
}

/// The baseline's server, a process of its own so that its CPU time can be told from the load's.
struct Baseline {
    child: Child,
    address: SocketAddr,
}

impl Baseline {
    fn start(url: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut child =
            command.env(BASELINE_URL, url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the baseline's address")? })
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // an error means that it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child: prints its address, serves, and ends with its parent.
async fn baseline(url: &str) -> anyhow::Result<()> {
    let pool = support::baseline_pool(url).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]); // returns when the parent is gone
        std::process::exit(0);
    });
    Ok(axum::serve(listener, Router::new().route("/click", get(insert)).with_state(pool)).await?)
}

/// No enrichment, no routing, no template: less work than octo's for the same row.
async fn insert(State(pool): State<PgPool>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let params = Params::parse(&query);
    let mut click = support::typical_click(Uuid::from_u128(1), 1);
    click.subs = params.subs.map(|sub| sub.map(|text| text.into_owned().into()));
    click.click_id_param = params.click_id.map(|text| text.into_owned().into());
    let location = format!("https://offer.example/lp?cid={}#top", click.id);
    match support::insert_click(&pool, &click).await {
        Ok(()) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn medians(rounds: &[Figures]) -> Figures {
    let of = |value: fn(&Figures) -> f64| median(rounds.iter().map(value).collect());
    Figures {
        answered_per_second: of(|r| r.answered_per_second),
        p50_ms: of(|r| r.p50_ms),
        p99_ms: of(|r| r.p99_ms),
        stored_per_second: of(|r| r.stored_per_second),
        cpu: of(|r| r.cpu),
    }
}

fn print(round: &str, side: &str, f: Figures) {
    println!(
        "{round:>5}  {side:<15} {:>10.0} {:>8.2} {:>8.2} {:>9.0} {:>19.4}",
        f.answered_per_second, f.p50_ms, f.p99_ms, f.stored_per_second, f.cpu
    );
}
