//! End to end, on one machine under the same load: the real octo between what it cannot beat and what it replaces.
//!
//! `cargo bench --bench side_by_side`. 64 and then 256 kept-alive connections ask for a redirect for 8 s, three
//! rounds, one side after the other:
//!
//! - **nginx**: `return 302` with a buffered access log, when nginx is installed;
//! - **bare 302**: axum on hyper and tokio, the stack of octo, with a constant answer and nothing else;
//! - **octo**: `/click` as shipped: fdatasync before each answer, the drain storing in PostgreSQL meanwhile;
//! - **INSERT a click**: the bare server with one INSERT a click through a pool of 32, then the answer.
//!
//! PostgreSQL runs with `fsync` on. "stored/s" counts from the first request to the last row. CPU is user and
//! system time per 1,000 clicks, the load's not counted, which takes its share of the same cores.

use std::{
    env, fmt,
    io::{BufRead as _, Read as _},
    net::SocketAddr,
    path::Path,
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
use octo::model::link::Params;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::{net::TcpListener, time::sleep};
use uuid::Uuid;

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod load;
mod support;

use it::harness::{Octo, PrivatePostgres};
use load::Load;
use support::median;

const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(8);
const CONNECTIONS: [usize; 2] = [64, 256];
/// Set in a child that is a server: `bare`, or the URL of the database of `INSERT a click`.
const SERVE: &str = "SIDE_BY_SIDE_SERVE";
const BARE: &str = "bare";

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nginx,
    Bare,
    Octo,
    Insert,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nginx => "nginx",
            Self::Bare => "bare 302",
            Self::Octo => "octo",
            Self::Insert => "INSERT a click",
        })
    }
}

/// A server under load.
#[derive(Debug, Clone, Copy)]
struct Side {
    who: Who,
    address: SocketAddr,
    pid: u32,
}

/// What one side did in one round.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    stored_per_second: f64,
    /// CPU milliseconds per 1,000 requests.
    server_cpu: f64,
    postgres_cpu: f64,
    rss_mb: f64,
}

impl Figures {
    fn cpu(&self) -> f64 {
        self.server_cpu + self.postgres_cpu
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match env::var(SERVE) {
        Ok(bare) if bare == BARE => serve(Router::new().route("/click", get(constant))).await,
        Ok(url) => {
            let pool = support::baseline_pool(&url).await?;
            serve(Router::new().route("/click", get(insert)).with_state(pool)).await
        }
        Err(_) => compare_all().await,
    }
}

async fn compare_all() -> anyhow::Result<()> {
    support::print_load();
    let postgres = PrivatePostgres::start().await;
    let octo = Octo::builder().database_url(postgres.url()).start().await; // migrates
    create_campaign(&octo).await?;
    let (bare, insert) = (Server::start(BARE)?, Server::start(&postgres.url())?);
    let nginx = Server::nginx().await?;
    let mut sides = vec![
        Side { who: Who::Bare, address: bare.address, pid: bare.child.id() },
        Side { who: Who::Octo, address: octo.addr(), pid: octo.pid() },
        Side { who: Who::Insert, address: insert.address, pid: insert.child.id() },
    ];
    match &nginx {
        Some(nginx) => {
            sides.insert(0, Side { who: Who::Nginx, address: nginx.address, pid: nginx.child.id() });
        }
        None => println!("nginx is not installed (Debian's package nginx-light): left out"),
    }
    let mut bench = Bench { admin: PgConnection::connect(&postgres.admin_url()).await?, postgres };
    for &side in &sides {
        bench.round(side, CONNECTIONS[0], RUN / 8).await?; // opens connections, prepares statements, warms caches
    }
    for connections in CONNECTIONS {
        bench.compare(&sides, connections).await?;
    }
    Ok(())
}

/// The campaign that the load asks for.
async fn create_campaign(octo: &Octo) -> anyhow::Result<()> {
    let offer = "https://offer.example/lp?cid={click_id}&s={sub1}#top";
    let body = serde_json::json!({
        "key": "demo-0", "name": "demo", "offers": [{ "name": "offer", "url": offer }],
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
    async fn compare(&mut self, sides: &[Side], connections: usize) -> anyhow::Result<()> {
        println!("\n{connections} connections; CPU in ms per 1,000 requests\n{HEAD}");
        let mut all = vec![Vec::new(); sides.len()];
        for round in 1..=ROUNDS {
            for (figures, &side) in all.iter_mut().zip(sides) {
                let of_round = self.round(side, connections, RUN).await?;
                print(&round.to_string(), side.who, of_round);
                figures.push(of_round);
            }
        }
        let medians: Vec<(Who, Figures)> =
            sides.iter().zip(&all).map(|(side, rounds)| (side.who, medians(rounds))).collect();
        for &(who, figures) in &medians {
            print("med.", who, figures);
        }
        let of = |who| medians.iter().find(|(w, _)| *w == who).map(|(_, f)| *f).unwrap_or_default();
        print_ratios(of(Who::Octo), of(Who::Bare), of(Who::Insert));
        Ok(())
    }

    /// Loads one server and waits until every answered click is a row, where it stores them.
    async fn round(&mut self, side: Side, connections: usize, run: Duration) -> anyhow::Result<Figures> {
        let Side { who, address, pid } = side;
        sqlx::query("CHECKPOINT").execute(&mut self.admin).await?;
        let (before, rolled_up) = (self.rows().await?, load::rolled_up(&mut self.admin).await?);
        support::forget_peak(pid);
        let (start, cpu) = (Instant::now(), self.cpu(pid));
        let waits = Load { address, connections, campaigns: 1 }.run(run).await?;
        let asked = start.elapsed();
        let answered = i64::try_from(waits.len())?;
        if who == Who::Octo {
            load::wait_stored(&mut self.admin, rolled_up + answered).await?;
        }
        let (stored, end_cpu) = (start.elapsed(), self.cpu(pid));
        let is_storing = matches!(who, Who::Octo | Who::Insert);
        let rows = self.rows().await? - before;
        ensure!(rows == if is_storing { answered } else { 0 }, "{rows} rows, and {answered} were answered");
        let count = waits.len() as f64;
        let per_1000 = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / count * 1e6;
        Ok(Figures {
            requests_per_second: count / asked.as_secs_f64(),
            p50_ms: support::percentile_ms(&waits, 50),
            p99_ms: support::percentile_ms(&waits, 99),
            stored_per_second: if is_storing { count / stored.as_secs_f64() } else { 0.0 },
            server_cpu: per_1000(cpu.0, end_cpu.0),
            postgres_cpu: if is_storing { per_1000(cpu.1, end_cpu.1) } else { 0.0 },
            rss_mb: support::peak_mb(pid),
        })
    }

    async fn rows(&mut self) -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&mut self.admin).await
    }

    /// Of the server with its children, and of PostgreSQL.
    fn cpu(&self, server: u32) -> (Duration, Duration) {
        (support::cpu_of_tree(server), support::cpu_of_tree(self.postgres.pid()))
    }
}

/// A server beside octo, a process of its own so that its CPU time can be told from the load's.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Where nginx keeps its files.
    _directory: Option<tempfile::TempDir>,
}

impl Server {
    /// This program once more, with the server's name.
    fn start(name: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut child = command.env(SERVE, name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the server's address")?, _directory: None })
    }

    /// nginx under a shell that stops it when its own input ends: also when this process is killed.
    async fn nginx() -> anyhow::Result<Option<Self>> {
        let Some(program) = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|p| Path::new(p).exists())
        else {
            return Ok(None);
        };
        let directory = tempfile::tempdir()?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?; // free again at once
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, nginx_conf(directory.path(), address))?;
        let script = "\"$0\" -c \"$1\" & read -r _; kill $!; wait";
        let child = Command::new("sh")
            .args(["-c", script, program])
            .arg(&file)
            .stdin(Stdio::piped())
            .stderr(Stdio::null()) // it warns about the user directive when not root
            .spawn()?;
        let start = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(start.elapsed() < Duration::from_secs(10), "nginx does not listen");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(Self { child, address, _directory: Some(directory) }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // each of them ends with its input
        let _ = self.child.wait();
    }
}

fn nginx_conf(directory: &Path, address: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "user root; daemon off; worker_processes auto; pid {directory}/pid; error_log {directory}/error.log;
         events {{ worker_connections 2048; }}
         http {{
             access_log {directory}/access.log combined buffer=64k flush=1s;
             client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
             fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
             keepalive_requests 100000000;
             server {{ listen {address}; location / {{ return 302 https://offer.example/lp?cid=$request_id; }} }}
         }}"
    )
}

/// The child: prints its address, serves, and ends with its parent.
async fn serve(router: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]); // returns when the parent is gone
        std::process::exit(0);
    });
    Ok(axum::serve(listener, router).await?)
}

/// The same headers as octo's answer.
async fn constant() -> Response {
    let headers = [
        (header::LOCATION, "https://offer.example/lp?cid=019aafc3-0000-7000-8000-000000000000&s=ad-1#top"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::FOUND, headers).into_response()
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
        requests_per_second: of(|r| r.requests_per_second),
        p50_ms: of(|r| r.p50_ms),
        p99_ms: of(|r| r.p99_ms),
        stored_per_second: of(|r| r.stored_per_second),
        server_cpu: of(|r| r.server_cpu),
        postgres_cpu: of(|r| r.postgres_cpu),
        rss_mb: of(|r| r.rss_mb),
    }
}

const HEAD: &str =
    "round  side            requests/s   p50 ms   p99 ms  stored/s  server CPU  Postgres CPU  both  peak MB";

fn print(round: &str, who: Who, f: Figures) {
    println!(
        "{round:>5}  {who:<14} {:>11.0} {:>8.2} {:>8.2} {:>9.0} {:>11.1} {:>13.1} {:>5.1} {:>8.1}",
        f.requests_per_second,
        f.p50_ms,
        f.p99_ms,
        f.stored_per_second,
        f.server_cpu,
        f.postgres_cpu,
        f.cpu(),
        f.rss_mb
    );
}

fn print_ratios(octo: Figures, bare: Figures, insert: Figures) {
    println!(
        "octo to bare 302: {:.2} of the requests/s (goal: 0.70), {:.2} times the server CPU (goal: 1.6)",
        octo.requests_per_second / bare.requests_per_second,
        octo.server_cpu / bare.server_cpu,
    );
    println!(
        "octo to INSERT a click: {:.1} times the stored/s (goal: 8), 1/{:.1} of the CPU, p99 {:.1} ms against p50 {:.1} ms",
        octo.stored_per_second / insert.stored_per_second,
        insert.cpu() / octo.cpu(),
        octo.p99_ms,
        insert.p50_ms,
    );
    println!("octo: {:.1} ms of CPU per 1,000 stored clicks (goal: 50)", octo.cpu());
}
