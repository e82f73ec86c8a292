//! Storing alone, in one PostgreSQL with `fsync` on: the drain's batches between the fastest way PostgreSQL has
//! and the usual one.
//!
//! `cargo bench --bench drain`. Three rounds, one after the other in each:
//!
//! - **psql \\copy**: 70,000 clicks from a file, in one transaction, when psql is installed;
//! - **the drain**: 70,000 clicks through [`Ingest::store`] in batches of 5,000 on its one connection, each a
//!   transaction with roll-ups and watermark;
//! - **one INSERT a click**: 3,000 clicks, same columns, from 64 tasks through a pool of 32, without either.
//!
//! CPU is the client's and PostgreSQL's together.
//!
//! `cargo bench --bench drain -- full` first stores 10,000,000 rows (`OCTO_BENCH_ROWS` sets how many; about 5 GB
//! on disk) and compares the drain into them with the drain into an empty table.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use octo::{
    config::{Flags, Loaded},
    db::{
        ingest::{Ingest, Rows},
        pool::Pool,
    },
    facts::click::Click,
};
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod support;

use it::harness::{PrivatePostgres, migrate};
use support::{median, typical_click};

const ROUNDS: usize = 3;
const BATCH: usize = 5_000;
const BATCHES: usize = 14;
const SINGLES: usize = 3_000;
const TASKS: usize = 64;
const FULL_ROWS: u64 = 10_000_000;
const FILL_ROWS: u64 = 500_000;

/// The day's rows so far, in the order of time: `$1` rows that end `$2` rows before now.
const FILL: &str = "
INSERT INTO clicks (
    id, campaign_id, ip_address, user_agent, referrer, is_valid, is_bot, country, device, os, browser,
    sub1, sub2, click_id_param, campaign_offer_id, traffic_source_id, cost, currency, created_at, updated_at
)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i::text), 4, 15))::uuid,
    $3, '10.0.0.1'::inet + i % 1000000, $4, $5, true, false, 'DE', 'mobile', 'Android', 'Chrome Mobile',
    'ad-' || i, 'creative-7', 'src-' || i, 1, 'network-3', 0.0125, 'USD', at, at
FROM generate_series($2 + $1, $2 + 1, -1) AS i
CROSS JOIN LATERAL (SELECT date_trunc('milliseconds', now() - i * interval '1 millisecond') AS at) t";

/// What one side did in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rows_per_second: f64,
    /// CPU milliseconds per 1,000 clicks.
    cpu: f64,
}

struct Bench {
    postgres: PrivatePostgres,
    ingest: Ingest,
    stream: Uuid,
    seq: u64,
    pool: PgPool,
    campaign_id: Uuid,
    psql: Option<PathBuf>,
    directory: tempfile::TempDir,
    sent: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    if env::args().any(|argument| argument == "full") { full_table().await } else { ways_in().await }
}

/// The drain between \\copy and one INSERT a click.
async fn ways_in() -> anyhow::Result<()> {
    let mut bench = Bench::start().await?;
    bench.drain(1).await?; // opens connections, prepares statements, warms caches
    bench.one_by_one(SINGLES / 3).await?;
    if bench.psql.is_none() {
        println!("psql is not installed: \\copy is left out");
    }
    print_head();
    let (mut copied, mut drained, mut single) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let round = round.to_string();
        if let Some(psql) = bench.psql.clone() {
            copied.push(print(&round, "psql \\copy", bench.copy(&psql).await?));
        }
        drained.push(print(&round, "the drain", bench.drain(BATCHES).await?));
        single.push(print(&round, "one INSERT a click", bench.one_by_one(SINGLES).await?));
    }
    let drained = print("med.", "the drain", medians(&drained));
    if !copied.is_empty() {
        let copied = print("med.", "psql \\copy", medians(&copied));
        println!(
            "the drain to \\copy: {:.2} of the rows/s (goal: 0.90)",
            drained.rows_per_second / copied.rows_per_second
        );
    }
    let single = print("med.", "one INSERT a click", medians(&single));
    println!(
        "the drain to one INSERT a click: {:.1} times the rows/s, 1/{:.1} of the CPU",
        drained.rows_per_second / single.rows_per_second,
        single.cpu / drained.cpu
    );
    bench.check().await
}

/// The drain into a table of today with many rows, and into an empty one.
async fn full_table() -> anyhow::Result<()> {
    let rows = match env::var("OCTO_BENCH_ROWS") {
        Ok(text) => text.parse()?,
        Err(_) => FULL_ROWS,
    };
    let (mut empty, mut full) = (Bench::start().await?, Bench::start().await?);
    full.fill(rows).await?;
    empty.drain(1).await?;
    full.drain(1).await?;
    print_head();
    let (mut into_empty, mut into_full) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let round = round.to_string();
        into_empty.push(print(&round, "empty at the start", empty.drain(BATCHES).await?));
        into_full.push(print(&round, "full", full.drain(BATCHES).await?));
    }
    let into_empty = print("med.", "empty at the start", medians(&into_empty));
    let into_full = print("med.", "full", medians(&into_full));
    println!(
        "the drain into {rows} rows: {:.2} of the rows/s into an empty table (goal: 0.90)",
        into_full.rows_per_second / into_empty.rows_per_second
    );
    full.sent += usize::try_from(rows)?;
    empty.check().await?;
    full.check().await
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let postgres = PrivatePostgres::start().await;
        let url = postgres.url();
        migrate(&url).await;
        let pool = support::baseline_pool(&url).await?;
        sqlx::query("SELECT octo_make_partitions(1)").execute(&pool).await?;
        let config = Loaded::load(None, [], &Flags::default())?.config;
        let octos = Pool::new("primary", &url.clone().into(), &config.database)?;
        let mut ingest = Ingest::connect(&octos, Duration::from_secs(30)).await?;
        let stream = octo::model::id::new_uuid();
        ingest.watermarks(&[(stream, 0)]).await?;
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let campaign_id = octo::model::id::new_uuid();
        Ok(Self { postgres, ingest, stream, seq: 0, pool, campaign_id, psql: psql(), directory, sent: 0 })
    }

    /// So that no side pays for the other's dirty pages.
    async fn checkpoint(&self) -> anyhow::Result<()> {
        sqlx::query("CHECKPOINT").execute(&mut self.postgres.admin().await).await?;
        Ok(())
    }

    async fn fill(&self, rows: u64) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut connection = self.postgres.admin().await;
        let mut left = rows;
        while left > 0 {
            let step = left.min(FILL_ROWS);
            left -= step;
            let filled = sqlx::query(FILL).bind(i64::try_from(step)?).bind(i64::try_from(left)?);
            let filled = filled.bind(self.campaign_id).bind(support::USER_AGENT).bind(support::REFERRER);
            filled.execute(&mut connection).await?;
        }
        sqlx::query("VACUUM ANALYZE clicks").execute(&mut connection).await?;
        println!("stored {rows} rows in {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    async fn drain(&mut self, batches: usize) -> anyhow::Result<Figures> {
        let clicks = self.clicks(batches * BATCH);
        self.checkpoint().await?;
        let (start, cpu) = (Instant::now(), self.cpu());
        for batch in clicks.chunks(BATCH) {
            let mut rows = Rows { clicks: batch.iter().collect(), ..Rows::default() };
            let hi = self.seq + batch.len() as u64;
            self.ingest.store(self.stream, self.seq, hi, &mut rows).await?;
            self.seq = hi;
        }
        Ok(self.figures(clicks.len(), start, cpu))
    }

    async fn one_by_one(&mut self, count: usize) -> anyhow::Result<Figures> {
        let clicks = Arc::new(self.clicks(count));
        self.checkpoint().await?;
        let next = Arc::new(AtomicUsize::new(0));
        let (start, cpu) = (Instant::now(), self.cpu());
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (clicks, next, pool) = (clicks.clone(), next.clone(), self.pool.clone());
            tasks.spawn(async move {
                while let Some(click) = clicks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    support::insert_click(&pool, click).await?;
                }
                Ok::<(), sqlx::Error>(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(self.figures(count, start, cpu))
    }

    /// The same clicks from a file in the text format.
    async fn copy(&mut self, psql: &Path) -> anyhow::Result<Figures> {
        let clicks = self.clicks(BATCHES * BATCH);
        let file = self.directory.path().join("clicks.tsv");
        fs::write(&file, clicks.iter().fold(String::new(), append_line))?;
        self.checkpoint().await?;
        let command = format!("\\copy clicks ({COLUMNS}) from '{}'", file.display());
        let (start, cpu) = (Instant::now(), self.cpu());
        let mut psql = Command::new(psql);
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname"]).arg(self.postgres.url());
        let status = psql.arg("--command").arg(command).stdin(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "psql: {status}");
        Ok(self.figures(clicks.len(), start, cpu))
    }

    fn clicks(&mut self, count: usize) -> Vec<Click<'static>> {
        self.sent += count;
        (0..).take(count).map(|i| typical_click(self.campaign_id, i)).collect()
    }

    /// Of this process, of psql once it has ended, and of PostgreSQL.
    fn cpu(&self) -> Duration {
        support::cpu_of(std::process::id()) + support::cpu_of_tree(self.postgres.pid())
    }

    fn figures(&self, count: usize, start: Instant, cpu: Duration) -> Figures {
        let count = count as f64;
        Figures {
            rows_per_second: count / start.elapsed().as_secs_f64(),
            cpu: self.cpu().saturating_sub(cpu).as_secs_f64() / count * 1e6,
        }
    }

    /// Every click is a row, or the figures are worth nothing.
    async fn check(&self) -> anyhow::Result<()> {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&self.pool).await?;
        anyhow::ensure!(usize::try_from(rows)? == self.sent, "{rows} rows of {} clicks", self.sent);
        println!("all {rows} clicks are rows");
        Ok(())
    }
}

const COLUMNS: &str = "id, campaign_id, ip_address, user_agent, referrer, is_valid, is_bot, country, device, os, \
    browser, sub1, sub2, click_id_param, campaign_offer_id, traffic_source_id, cost, currency, created_at, updated_at";

/// One line of COPY's text format; the texts of a typical click need no escapes.
fn append_line(mut out: String, click: &Click<'_>) -> String {
    let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or("\\N").to_owned();
    let at = click.id.created_at().format("%Y-%m-%d %H:%M:%S%.3f+00");
    let fields = [
        click.id.to_string(),
        click.campaign_id.to_string(),
        click.ip.map_or_else(|| "\\N".to_owned(), |ip| ip.to_string()),
        text(&click.user_agent),
        text(&click.referrer),
        click.is_valid().to_string(),
        click.is_bot.to_string(),
        text(&click.country),
        text(&click.device),
        text(&click.os),
        text(&click.browser),
        text(&click.subs[0]),
        text(&click.subs[1]),
        text(&click.click_id_param),
        click.campaign_offer_id.unwrap_or_default().to_string(),
        text(&click.traffic_source_id),
        click.cost.unwrap_or_default().to_string(),
        click.currency.map(|c| c.to_string()).unwrap_or_default(),
    ];
    let _ = writeln!(out, "{}\t{at}\t{at}", fields.join("\t")); // writing to a String does not fail
    out
}

fn psql() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join("psql")).find(|file| file.exists())
}

fn medians(rounds: &[Figures]) -> Figures {
    Figures {
        rows_per_second: median(rounds.iter().map(|r| r.rows_per_second).collect()),
        cpu: median(rounds.iter().map(|r| r.cpu).collect()),
    }
}

fn print_head() {
    println!("{:>5}  {:<18} {:>9} {:>22}", "round", "", "rows/s", "CPU ms/1,000 clicks");
}

fn print(round: &str, side: &str, figures: Figures) -> Figures {
    println!("{round:>5}  {side:<18} {:>9.0} {:>22.1}", figures.rows_per_second, figures.cpu);
    figures
}
