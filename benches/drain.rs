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
//! CPU is the client's, psql's too, and PostgreSQL's; ratios are of both together.
//!
//! `cargo bench --bench drain -- against PROGRAM` compares it with this benchmark of another build of octo, in turn: batches of
//! 5,000 and of 20,000 clicks of 200 campaigns (`benches/reports/generate.sql`), each side into a PostgreSQL of its own. What deltas of
//! reports cost: the other build is of `ffccf6b`, the last commit without them, with this file and that one copied into it.
//!
//! `cargo bench --bench drain -- full` first stores 10,000,000 rows (`OCTO_BENCH_ROWS` sets how many; about 5 GB
//! on disk) and compares the drain into them with the drain into an empty table.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use octo::{
    config::{Flags, Loaded},
    db::{
        ingest::{Ingest, Rows},
        pool::Pool,
    },
    facts::click::Click,
    model::{click::InvalidReason, id::ClickId},
};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgPool};
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
const TURNS: usize = 9;
const TURN_BATCHES: [usize; 2] = [5_000, 20_000];
const TURN_CLICKS: usize = 80_000;

/// Makes 200 campaigns, the ways that their clicks take, and what these come with.
const GENERATE: &str = include_str!("reports/generate.sql");

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
    /// CPU milliseconds of this process per 1,000 clicks, and of those it started.
    client: f64,
    /// Likewise PostgreSQL's.
    postgres: f64,
}

impl Figures {
    fn cpu(self) -> f64 {
        self.client + self.postgres
    }
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
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let mode = arguments.next();
    if mode.as_deref() == Some("turns") {
        return take_turns().await;
    }
    support::print_load();
    match mode.as_deref() {
        Some("full") => full_table().await,
        Some("against") => against(&arguments.next().context("against which program?")?),
        _ => ways_in().await,
    }
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
        single.cpu() / drained.cpu()
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

/// This build and another one in turn.
fn against(other: &str) -> anyhow::Result<()> {
    let mut other = Side::start(Path::new(other))?;
    let mut this = Side::start(&env::current_exe()?)?;
    for batch in TURN_BATCHES {
        println!("batches of {batch}:");
        print_head();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for turn in 1..=TURNS {
            let turn = turn.to_string();
            before.push(print(&turn, "the other build", other.turn(batch)?));
            after.push(print(&turn, "this build", this.turn(batch)?));
        }
        let before = print("med.", "the other build", medians(&before));
        let after = print("med.", "this build", medians(&after));
        println!(
            "this build to the other: {:.2} of the time, {:.2} of the CPU (goal: 1.15)",
            before.rows_per_second / after.rows_per_second,
            after.cpu() / before.cpu()
        );
    }
    other.end()?;
    this.end()
}

/// A build that is asked for one turn after the other.
struct Side {
    child: Child,
    turns: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Side {
    fn start(program: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        let mut child = command.arg("turns").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (turns, answers) = (child.stdin.take(), child.stdout.take());
        let (turns, answers) = turns.zip(answers).context("both are piped")?;
        Ok(Self { child, turns, answers: BufReader::new(answers) })
    }

    fn turn(&mut self, batch: usize) -> anyhow::Result<Figures> {
        writeln!(self.turns, "{batch}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let figures = answer.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [rows_per_second, client, postgres] = figures[..] else { anyhow::bail!("it ended") };
        Ok(Figures { rows_per_second, client, postgres })
    }

    fn end(self) -> anyhow::Result<()> {
        let Self { mut child, turns, answers } = self;
        drop((turns, answers));
        let status = child.wait()?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// For each size of batches on the standard input the figures of a turn, until there are no more.
async fn take_turns() -> anyhow::Result<()> {
    let mut bench = Bench::start().await?;
    let traffic = Traffic::make(&bench.postgres).await?;
    for batch in TURN_BATCHES {
        bench.store(&traffic.clicks(batch), batch).await?; // opens connections, prepares statements, warms caches
    }
    for batch in io::stdin().lines() {
        let figures = bench.store(&traffic.clicks(TURN_CLICKS), batch?.parse()?).await?;
        println!("{} {} {}", figures.rows_per_second, figures.client, figures.postgres);
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&bench.pool).await?;
    anyhow::ensure!(u64::try_from(rows)? == bench.seq, "{rows} rows of {} clicks", bench.seq);
    Ok(())
}

/// What clicks are made of.
struct Traffic {
    routes: Vec<Route>,
    agents: Vec<Agent>,
}

/// A way that clicks take.
#[derive(FromRow)]
struct Route {
    campaign_id: Uuid,
    source_id: i64,
    rule_id: i64,
    path_id: i64,
    landing_page_id: Option<i64>,
    offer_id: i64,
    country: String,
    currency: Option<String>,
}

/// What clicks come with.
#[derive(FromRow)]
struct Agent {
    device: String,
    os: String,
    os_version: Option<String>,
    browser: String,
    browser_version: String,
}

impl Traffic {
    async fn make(postgres: &PrivatePostgres) -> anyhow::Result<Self> {
        let mut admin = postgres.admin().await;
        sqlx::raw_sql(GENERATE).execute(&mut admin).await?;
        let routes = sqlx::query_as("SELECT * FROM bench.routes").fetch_all(&mut admin).await?;
        let agents = sqlx::query_as("SELECT * FROM bench.agents").fetch_all(&mut admin).await?;
        Ok(Self { routes, agents })
    }

    fn clicks(&self, count: usize) -> Vec<Click<'_>> {
        (0..).take(count).map(|i| self.click(i)).collect()
    }

    /// As `bench.make_day` makes them, with a user agent and a referrer.
    fn click(&self, i: u32) -> Click<'_> {
        let (route, agent) = (
            &self.routes[fastrand::usize(..self.routes.len())],
            &self.agents[fastrand::usize(..self.agents.len())],
        );
        let invalid_reason = match i {
            _ if i % 25 == 3 => Some(InvalidReason::Bot),
            _ if i % 40 == 7 => Some(InvalidReason::Duplicate),
            _ if i % 200 == 9 => Some(InvalidReason::Datacenter),
            _ if i % 500 == 11 => Some(InvalidReason::Prefetch),
            _ => None,
        };
        let currency = route.currency.as_deref().and_then(|currency| currency.parse().ok());
        let chance = fastrand::u32(..1_000_000);
        Click {
            ip: Some((0x0a00_0000 + 16 * chance).to_be_bytes().into()),
            user_agent: Some(support::USER_AGENT.into()),
            referrer: Some(support::REFERRER.into()),
            is_bot: invalid_reason == Some(InvalidReason::Bot),
            invalid_reason,
            country: Some(route.country.as_str().into()),
            device: Some(agent.device.as_str().into()),
            os: Some(agent.os.as_str().into()),
            os_version: agent.os_version.as_deref().map(Into::into),
            browser: Some(agent.browser.as_str().into()),
            browser_version: Some(agent.browser_version.as_str().into()),
            city: Some(format!("{}-{}", route.country, i % 40).into()),
            subs: [Some(format!("ad-{chance}").into()), None, None, None, None],
            landing_page_id: route.landing_page_id,
            campaign_offer_id: route.landing_page_id.is_none().then_some(route.offer_id),
            rule_id: Some(route.rule_id),
            path_id: Some(route.path_id),
            source_id: Some(route.source_id),
            cost: currency.is_some().then(|| Decimal::new(i64::from(i % 40 + 5) * 5, 4)),
            currency,
            is_unique: invalid_reason.is_none() && chance < 850_000,
            ..Click::new(ClickId::now(), route.campaign_id)
        }
    }
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
        self.store(&clicks, BATCH).await
    }

    /// Stores clicks as the drain does, so many in a transaction.
    async fn store(&mut self, clicks: &[Click<'_>], batch: usize) -> anyhow::Result<Figures> {
        self.checkpoint().await?;
        let (start, cpu) = (Instant::now(), self.cpu());
        for batch in clicks.chunks(batch) {
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

    /// Of this process and of psql once it has ended; of PostgreSQL.
    fn cpu(&self) -> [Duration; 2] {
        [support::cpu_of(std::process::id()), support::cpu_of_tree(self.postgres.pid())]
    }

    fn figures(&self, count: usize, start: Instant, [client, postgres]: [Duration; 2]) -> Figures {
        let count = count as f64;
        let took = start.elapsed();
        let [client_after, postgres_after] = self.cpu();
        let per_click =
            |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() / count;
        Figures {
            rows_per_second: count / took.as_secs_f64(),
            client: per_click(client, client_after) * 1e6,
            postgres: per_click(postgres, postgres_after) * 1e6,
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
        client: median(rounds.iter().map(|r| r.client).collect()),
        postgres: median(rounds.iter().map(|r| r.postgres).collect()),
    }
}

fn print_head() {
    println!(
        "{:>5}  {:<18} {:>9} | CPU ms per 1,000 clicks: {:>6} {:>8}",
        "round", "", "rows/s", "client", "Postgres"
    );
}

fn print(round: &str, side: &str, figures: Figures) -> Figures {
    let Figures { rows_per_second, client, postgres } = figures;
    println!("{round:>5}  {side:<18} {rows_per_second:>9.0} | {client:>31.2} {postgres:>8.2}");
    figures
}
