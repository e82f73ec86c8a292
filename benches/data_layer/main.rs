//! The data layer against what it replaces, each line of the optimisation plan as a ratio measured here.
//!
//! `cargo bench --bench data_layer`, or some of it: `cargo bench --bench data_layer -- pool prepared`.
//!
//! - **pool** (plan: +25 %): 200 callers of a short query; a connection for each query, sqlx's pool of 1 to 100 with its
//!   defaults, and octo's pool as configured. `sizes`, only when asked for, tries octo's pool with other sizes.
//! - **prepared** (+20 %): a statement prepared once a connection against one parsed and planned each time.
//! - **cache** (+300 %): look-ups of campaigns in a replica, in Redis and in memory, and which layer answers.
//! - **replicas** (+200 %): reads with none, one and two of them, the primary's share of the work, and what is read
//!   after a write while one replica stands still.
//! - **monitor** (100 %): what counting a query costs, and whether every statement is listed.
//!
//! One PostgreSQL with two streaming replicas (fsync on) and one Redis, all on this machine and on its cores. Rounds,
//! one side after the other in each; the medians are compared. CPU is user and system time.

use std::{
    env,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use octo::{
    config::{Config, Flags, Loaded},
    db::{Db, Statement},
    telemetry::Metrics,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

mod cache;
mod monitor;
mod pool;
mod prepared;
mod replicas;
mod zipf;

#[path = "../../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
#[path = "../support.rs"]
mod support;

use it::harness::{DAY_PARTITIONS, PrivatePostgres, PrivateRedis, eventually, migrate};
use support::{median, micros, percentile_ms};

pub(crate) const ROUNDS: usize = 3;
pub(crate) const CAMPAIGNS: usize = 10_000;
const CLICKS: i64 = 100_000;
const WARM_UP: Duration = Duration::from_millis(500);
const RUN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let start = Instant::now();
    let recorder = Metrics::install()?; // so that counting costs what it costs in octo
    let mut upkeep = JoinSet::new();
    upkeep.spawn(keep_up(recorder.clone()));
    let servers = Servers::start().await?;
    if is_wanted("pool") {
        pool::compare(&servers).await?;
    }
    if wanted.iter().any(|w| w == "sizes") {
        pool::sizes(&servers).await?;
    }
    if is_wanted("prepared") {
        prepared::compare(&servers).await?;
    }
    if is_wanted("cache") {
        cache::compare(&servers).await?;
    }
    if is_wanted("replicas") {
        replicas::compare(&servers).await?;
    }
    if is_wanted("monitor") {
        monitor::measure(&recorder).await?;
    }
    println!("\ntook {:.0} s", start.elapsed().as_secs_f64());
    support::print_load();
    Ok(())
}

/// A primary with 10,000 campaigns and 30 days of clicks, its replicas, and an empty Redis.
pub(crate) struct Servers {
    primary: PrivatePostgres,
    replicas: [PrivatePostgres; 2],
    redis: PrivateRedis,
    redis_pid: u32,
}

impl Servers {
    async fn start() -> anyhow::Result<Self> {
        let primary = PrivatePostgres::start().await;
        migrate(&primary.url()).await;
        let mut admin = primary.admin().await;
        sqlx::query(support::INSERT_CAMPAIGNS).bind(i32::try_from(CAMPAIGNS)?).execute(&mut admin).await?;
        sqlx::raw_sql(DAY_PARTITIONS).execute(&mut admin).await?;
        let clicks = sqlx::query(support::FILL_CLICKS).bind(CLICKS).bind(1_i64).bind(CLICKS);
        let clicks = clicks
            .bind(chrono::Utc::now())
            .bind(octo::model::id::new_uuid())
            .bind(octo::model::id::new_uuid());
        clicks.bind(support::USER_AGENT).bind(support::REFERRER).execute(&mut admin).await?;
        sqlx::query("VACUUM ANALYZE").execute(&mut admin).await?;
        sqlx::query("CHECKPOINT").execute(&mut admin).await?;
        let replicas = [primary.replica(None).await, primary.replica(None).await];
        for replica in &replicas {
            caught_up(replica).await?;
        }
        let mut redis = PrivateRedis::start().await;
        let redis_pid = redis.pid();
        Ok(Self { primary, replicas, redis, redis_pid })
    }

    /// The configuration of an octo that starts without anything but these servers.
    fn config(&self, replicas: usize) -> anyhow::Result<Config> {
        let urls: Vec<String> = self.replicas[..replicas].iter().map(PrivatePostgres::url).collect();
        let environment = [
            ("OCTO_DATABASE__URL".to_owned(), self.primary.url()),
            ("OCTO_DATABASE__REPLICA_URLS".to_owned(), urls.join(",")),
            ("OCTO_REDIS__URL".to_owned(), self.redis.url()),
        ];
        Ok(Loaded::load(None, environment, &Flags::default())?.config)
    }

    /// The postmasters, the primary's first.
    fn postmasters(&self) -> [u32; 3] {
        [self.primary.pid(), self.replicas[0].pid(), self.replicas[1].pid()]
    }

    /// The postmasters and Redis.
    fn pids(&self) -> [u32; 4] {
        let [primary, one, two] = self.postmasters();
        [primary, one, two, self.redis_pid]
    }
}

/// The database as an octo has it, replicas watched.
pub(crate) struct Node {
    db: Arc<Db>,
    _watch: JoinSet<anyhow::Result<()>>,
}

impl Node {
    async fn start(servers: &Servers, replicas: usize) -> anyhow::Result<Self> {
        let db = Arc::new(Db::new(&servers.primary.url().into(), &servers.config(replicas)?.database)?);
        let mut watch = JoinSet::new();
        watch.spawn(db.clone().watch(CancellationToken::new())); // until the set is dropped
        db.probed().await;
        Ok(Self { db, _watch: watch })
    }
}

/// As octo does: without it the recorder's samples pile up.
async fn keep_up(recorder: Metrics) {
    loop {
        sleep(Duration::from_secs(1)).await;
        let _ = recorder.render(); // moves the samples into the histograms, as a scrape does
    }
}

async fn caught_up(replica: &PrivatePostgres) -> anyhow::Result<()> {
    let mut admin = replica.admin().await;
    eventually(Duration::from_secs(30), async || {
        let campaigns: i64 =
            sqlx::query_scalar("SELECT count(*) FROM campaigns").fetch_one(&mut admin).await?;
        anyhow::ensure!(usize::try_from(campaigns)? == CAMPAIGNS, "{campaigns} campaigns");
        Ok(())
    })
    .await;
    Ok(())
}

/// The statement of this name.
pub(crate) fn statement(name: &str) -> Statement {
    let mut statements = octo::db::statements();
    statements.find(|s| s.name() == name).expect("a statement of octo's")
}

/// What one side did in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
    errors: f64,
    /// CPU milliseconds of the servers per 1,000 answers.
    server_cpu: f64,
    /// Likewise of this process, which is octo and its callers.
    own_cpu: f64,
}

/// Callers that ask one question after the other: first to warm up, then for the time that counts.
pub(crate) async fn ask<F, Fut>(callers: usize, servers: &[u32], question: F) -> anyhow::Result<Figures>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<usize>> + Send + 'static,
{
    ask_for(WARM_UP, callers, servers, question.clone()).await?;
    ask_for(RUN, callers, servers, question).await
}

/// [`ask`] without warming up. A question gets a number to choose by, and says how many answers it got.
async fn ask_for<F, Fut>(
    time: Duration,
    callers: usize,
    servers: &[u32],
    question: F,
) -> anyhow::Result<Figures>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<usize>> + Send + 'static,
{
    let server_cpu = || servers.iter().map(|pid| support::cpu_of_tree(*pid)).sum::<Duration>();
    let own_cpu = || support::cpu_of(std::process::id());
    let (server_before, own_before, start) = (server_cpu(), own_cpu(), Instant::now());
    let mut asking = JoinSet::new();
    for caller in 0..callers {
        let question = question.clone();
        asking.spawn(async move {
            let mut numbers = fastrand::Rng::with_seed(caller as u64);
            let (mut waits, mut answers, mut errors) = (Vec::new(), 0, Vec::new());
            while start.elapsed() < time {
                let asked = Instant::now();
                match question(numbers.usize(..)).await {
                    Ok(got) => {
                        answers += got;
                        waits.push(micros(asked.elapsed()));
                    }
                    Err(error) => errors.push(error),
                }
            }
            (waits, answers, errors)
        });
    }
    let (mut waits, mut answers, mut errors) = (Vec::new(), 0, Vec::new());
    while let Some(asked) = asking.join_next().await {
        let (w, a, e) = asked?;
        waits.extend(w);
        answers += a;
        errors.extend(e);
    }
    let took = start.elapsed();
    if let Some(error) = errors.first() {
        println!("       the first error: {error:#}");
    }
    anyhow::ensure!(answers > 0, "nothing was answered");
    waits.sort_unstable();
    let per_1000 = |cpu: Duration| cpu.as_secs_f64() * 1e6 / answers as f64;
    Ok(Figures {
        per_second: answers as f64 / took.as_secs_f64(),
        p50: percentile_ms(&waits, 50),
        p99: percentile_ms(&waits, 99),
        errors: errors.len() as f64,
        server_cpu: per_1000(server_cpu().saturating_sub(server_before)),
        own_cpu: per_1000(own_cpu().saturating_sub(own_before)),
    })
}

/// The medians of each figure; errors are added up.
pub(crate) fn medians(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
    Figures {
        per_second: of(|f| f.per_second),
        p50: of(|f| f.p50),
        p99: of(|f| f.p99),
        errors: rounds.iter().map(|f| f.errors).sum(),
        server_cpu: of(|f| f.server_cpu),
        own_cpu: of(|f| f.own_cpu),
    }
}

pub(crate) fn print_head(title: &str) {
    println!("\n{title}");
    println!(
        "{:>5}  {:<38} {:>10} {:>8} {:>8} {:>7} {:>14} {:>8}",
        "round", "", "answers/s", "p50 ms", "p99 ms", "errors", "CPU ms/1,000: ", "servers'  own"
    );
}

pub(crate) fn print(round: &str, side: &str, f: &Figures) {
    println!(
        "{round:>5}  {side:<38} {:>10.0} {:>8.2} {:>8.2} {:>7.0} {:>22.1} {:>6.1}",
        f.per_second, f.p50, f.p99, f.errors, f.server_cpu, f.own_cpu
    );
}

/// Prints the medians of each side and gives them back.
pub(crate) fn print_medians<const N: usize>(sides: [&str; N], rounds: &[Vec<Figures>; N]) -> [Figures; N] {
    let found = rounds.each_ref().map(|rounds| medians(rounds));
    for (side, figures) in sides.iter().zip(&found) {
        print("med.", side, figures);
    }
    found
}

/// A line of the plan and what was measured: a gain of 0.25 is 25 % more.
pub(crate) fn print_gain(line: &str, goal: f64, times: f64) {
    let verdict = if times - 1.0 >= goal { "reached" } else { "missed" };
    println!(
        "plan, {line}: +{:.0} %; here {:+.0} % ({times:.2} times): {verdict}",
        goal * 100.0,
        (times - 1.0) * 100.0
    );
}
