//! Postbacks: answered beside clicks, and conversions derived from them, in PostgreSQL with `fsync` on.
//!
//! `cargo bench --bench postbacks`, or one of them: `cargo bench --bench postbacks -- answered|derived|imported`.
//!
//! - **answered**: 64 kept-alive connections ask one octo for 6 s for clicks, then tell for 6 s that those clicks were
//!   sales, one conversion a click as long as there are enough. CPU is that of 1,000 requests until their last row is
//!   stored, octo's and PostgreSQL's, and counts what is derived.
//! - **derived**: 70,000 sales of stored clicks through [`Ingest::store`] in batches of 5,000 on its one connection, then
//!   the same clicks' sales taken back, beside the clicks themselves.
//!
//! - **imported**: 50,000 lines of CSV, the most that a file may have, each a sale of a stored click: by
//!   `POST /api/v1/conversions/import`, then those of other clicks by `octo conversions import`, then once more, which
//!   changes nothing.
//!
//! Three rounds each, one side after the other; one of what is imported.

use std::{
    env, fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use octo::{
    config::{Flags, Loaded},
    db::{
        ingest::{Ingest, Rows},
        pool::Pool,
    },
    facts::{click::Click, postback::Postback},
    model::{conversion::Channel, id::new_uuid},
};
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod load;
mod support;

use it::harness::{Octo, PrivatePostgres, migrate};
use load::Load;
use support::{INSERT_CAMPAIGNS, median, typical_click};

const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(6);
const CONNECTIONS: usize = 64;
const BATCH: usize = 5_000;
const BATCHES: usize = 14;
const LINES: usize = 50_000;
const STORED_WITHIN: Duration = Duration::from_mins(5);

const INSERT_NETWORK: &str =
    "INSERT INTO affiliate_networks (name, postback_key) VALUES ('network', 'network-1') RETURNING id";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if is_wanted("answered") {
        answered().await?;
    }
    if is_wanted("derived") {
        derived().await?;
    }
    if is_wanted("imported") {
        imported().await?;
    }
    Ok(())
}

/// A database with a campaign and a network.
struct Base {
    postgres: PrivatePostgres,
    admin: PgConnection,
    campaign_id: Uuid,
    network_id: i64,
}

impl Base {
    async fn start() -> anyhow::Result<Self> {
        let postgres = PrivatePostgres::start().await;
        migrate(&postgres.url()).await;
        let mut admin = PgConnection::connect(&postgres.admin_url()).await?;
        sqlx::query(INSERT_CAMPAIGNS).bind(1).execute(&mut admin).await?;
        sqlx::query("SELECT octo_make_partitions(1)").execute(&mut admin).await?;
        let campaign_id = sqlx::query_scalar("SELECT id FROM campaigns").fetch_one(&mut admin).await?;
        let network_id = sqlx::query_scalar(INSERT_NETWORK).fetch_one(&mut admin).await?;
        Ok(Self { postgres, admin, campaign_id, network_id })
    }

    /// So that no side pays for the other's dirty pages.
    async fn checkpoint(&mut self) -> anyhow::Result<()> {
        sqlx::query("CHECKPOINT").execute(&mut self.admin).await?;
        Ok(())
    }

    async fn count(&mut self, of: Of) -> anyhow::Result<usize> {
        let sql = match of {
            Of::Clicks => "SELECT count(*) FROM clicks",
            Of::Postbacks => "SELECT count(*) FROM postbacks WHERE outcome = 'accepted'",
            Of::Changes => "SELECT count(*) FROM conversion_changes",
        };
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.admin).await?;
        Ok(usize::try_from(count)?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Clicks,
    Postbacks,
    Changes,
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clicks => "clicks",
            Self::Postbacks => "postbacks",
            Self::Changes => "changes",
        })
    }
}

/// What one side did in one round.
#[derive(Debug, Clone, Copy)]
struct Answers {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    stored_per_second: f64,
    /// CPU milliseconds per 1,000 requests.
    octo: f64,
    postgres: f64,
}

/// Clicks, and postbacks of those clicks.
async fn answered() -> anyhow::Result<()> {
    let mut base = Base::start().await?;
    let octo = Octo::builder().database_url(base.postgres.url()).start().await;
    round(&mut base, &octo, Of::Clicks, RUN / 6).await?; // opens connections, prepares statements, warms caches
    round(&mut base, &octo, Of::Postbacks, RUN / 6).await?;
    println!("\nanswered: {CONNECTIONS} connections; CPU in ms per 1,000 requests");
    println!("round  side       requests/s   p50 ms   p99 ms  stored/s   octo  PostgreSQL");
    let (mut clicks, mut postbacks) = (Vec::new(), Vec::new());
    for nth in 1..=ROUNDS {
        for (of, rounds) in [(Of::Clicks, &mut clicks), (Of::Postbacks, &mut postbacks)] {
            let figures = round(&mut base, &octo, of, RUN).await?;
            print_answers(&nth.to_string(), of, figures);
            rounds.push(figures);
        }
    }
    let (clicks, postbacks) = (medians(&clicks), medians(&postbacks));
    print_answers("med.", Of::Clicks, clicks);
    print_answers("med.", Of::Postbacks, postbacks);
    println!(
        "postbacks to clicks: {:.2} of the requests/s, {:.2} times octo's CPU, {:.2} times PostgreSQL's",
        postbacks.requests_per_second / clicks.requests_per_second,
        postbacks.octo / clicks.octo,
        postbacks.postgres / clicks.postgres,
    );
    Ok(())
}

/// Loads octo and waits until whatever was answered is stored.
async fn round(base: &mut Base, octo: &Octo, of: Of, run: Duration) -> anyhow::Result<Answers> {
    base.checkpoint().await?;
    let load = Load { address: octo.addr(), connections: CONNECTIONS, campaigns: 1 };
    let before = base.count(of).await?;
    // those that have no conversion yet
    let fresh = "SELECT id FROM clicks WHERE converted_at IS NULL ORDER BY id";
    let mut clicks: Vec<Uuid> = Vec::new();
    if of == Of::Postbacks {
        clicks = sqlx::query_scalar(fresh).fetch_all(&mut base.admin).await?;
    }
    let cpu = |base: &Base| (support::cpu_of(octo.pid()), support::cpu_of_tree(base.postgres.pid()));
    let (start, before_cpu) = (Instant::now(), cpu(base));
    let waits =
        if clicks.is_empty() { load.run(run).await? } else { load.tell(run, Arc::new(clicks)).await? };
    let asked = start.elapsed();
    loop {
        let stored = base.count(of).await? - before;
        if stored >= waits.len() {
            ensure!(stored == waits.len(), "{stored} stored, {} answered", waits.len());
            break;
        }
        ensure!(start.elapsed() < STORED_WITHIN, "only {stored} of {} stored", waits.len());
        sleep(Duration::from_millis(100)).await;
    }
    let (stored, after_cpu, count) = (start.elapsed(), cpu(base), waits.len() as f64);
    let per_1000 = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / count * 1e6;
    Ok(Answers {
        requests_per_second: count / asked.as_secs_f64(),
        p50_ms: support::percentile_ms(&waits, 50),
        p99_ms: support::percentile_ms(&waits, 99),
        stored_per_second: count / stored.as_secs_f64(),
        octo: per_1000(before_cpu.0, after_cpu.0),
        postgres: per_1000(before_cpu.1, after_cpu.1),
    })
}

fn medians(rounds: &[Answers]) -> Answers {
    let of = |value: fn(&Answers) -> f64| median(rounds.iter().map(value).collect());
    Answers {
        requests_per_second: of(|r| r.requests_per_second),
        p50_ms: of(|r| r.p50_ms),
        p99_ms: of(|r| r.p99_ms),
        stored_per_second: of(|r| r.stored_per_second),
        octo: of(|r| r.octo),
        postgres: of(|r| r.postgres),
    }
}

fn print_answers(round: &str, of: Of, f: Answers) {
    println!(
        "{round:>5}  {of:<9} {:>11.0} {:>8.2} {:>8.2} {:>9.0} {:>6.1} {:>11.1}",
        f.requests_per_second, f.p50_ms, f.p99_ms, f.stored_per_second, f.octo, f.postgres
    );
}

/// The drain's connection, and where its stream is.
struct Drain {
    base: Base,
    ingest: Ingest,
    stream: Uuid,
    seq: u64,
}

/// Storing alone, and deriving with it.
async fn derived() -> anyhow::Result<()> {
    let mut drain = Drain::start().await?;
    drain.round(1).await?; // prepares statements, warms caches
    println!("\nderived: batches of {BATCH}; CPU in ms per 1,000, this process's and PostgreSQL's");
    println!("round  clicks/s    CPU   sales/s    CPU   taken back/s    CPU");
    let mut rounds = Vec::new();
    for nth in 1..=ROUNDS {
        let figures = drain.round(BATCHES).await?;
        print_derived(&nth.to_string(), figures);
        rounds.push(figures);
    }
    let of = |side: usize| {
        let (speed, cpu) = rounds.iter().map(|round| round[side]).unzip();
        (median(speed), median(cpu))
    };
    let medians = [of(0), of(1), of(2)];
    print_derived("med.", medians);
    println!("derived: {:.0} conversions/s (goal: 20,000)", medians[1].0);
    let wanted = (1 + ROUNDS * BATCHES) * BATCH * 2;
    let changes = drain.base.count(Of::Changes).await?;
    ensure!(changes == wanted, "{changes} rows in the book of {wanted} changes");
    println!("all {changes} changes are in the book");
    Ok(())
}

fn print_derived(round: &str, [clicks, sales, back]: [(f64, f64); 3]) {
    println!(
        "{round:>5} {:>9.0} {:>6.1} {:>9.0} {:>6.1} {:>14.0} {:>6.1}",
        clicks.0, clicks.1, sales.0, sales.1, back.0, back.1
    );
}

/// Files of as many lines as there may be.
async fn imported() -> anyhow::Result<()> {
    let mut drain = Drain::start().await?;
    let clicks: Vec<Click<'static>> =
        (0..).take(2 * LINES).map(|i| typical_click(drain.base.campaign_id, i)).collect();
    drain.store(&clicks, |batch| Rows { clicks: batch, ..Rows::default() }).await?;
    let file = |clicks: &[Click<'_>]| {
        let line = |click: &Click<'_>| format!("{},1.25,order-{:08x},sale\n", click.id, click.id.seed());
        let lines: String = clicks.iter().map(line).collect();
        format!("click_id,payout,txid,status\n{lines}")
    };
    let Drain { mut base, .. } = drain;
    let octo = Octo::builder().database_url(base.postgres.url()).start().await;
    let token = octo.admin_token().await;
    println!("\nimported: {LINES} lines");
    base.checkpoint().await?;
    let start = Instant::now();
    let request = octo.client().post(octo.url("/api/v1/conversions/import")).bearer_auth(token);
    let request = request.header("content-type", "text/csv").timeout(STORED_WITHIN);
    let answer = request.body(file(&clicks[..LINES])).send().await?.error_for_status()?;
    let bytes = answer.bytes().await?.len();
    println!(
        "POST /api/v1/conversions/import: {:.1} s, answer of {bytes} bytes",
        start.elapsed().as_secs_f64()
    );
    let path = octo.dir().join("conversions.csv");
    std::fs::write(&path, file(&clicks[LINES..]))?;
    let path = path.to_str().expect("the paths of benchmarks are texts");
    for what in ["octo conversions import", "once more"] {
        base.checkpoint().await?;
        let start = Instant::now();
        let output = octo.run(&["conversions", "import", path]).await;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    }
    let changes = base.count(Of::Changes).await?;
    ensure!(changes == 2 * LINES, "{changes} rows in the book of {} sales", 2 * LINES);
    println!("all {changes} sales are in the book");
    Ok(())
}

impl Drain {
    async fn start() -> anyhow::Result<Self> {
        let base = Base::start().await?;
        let config = Loaded::load(None, [], &Flags::default())?.config;
        let pool = Pool::new("primary", &base.postgres.url().into(), &config.database)?;
        let mut ingest = Ingest::connect(&pool, Duration::from_mins(1)).await?;
        let stream = new_uuid();
        ingest.watermarks(&[(stream, 0)]).await?;
        Ok(Self { base, ingest, stream, seq: 0 })
    }

    /// Clicks, their sales, and those taken back: rows a second and CPU per 1,000 of each.
    async fn round(&mut self, batches: usize) -> anyhow::Result<[(f64, f64); 3]> {
        let clicks: Vec<Click<'static>> =
            (0..).take(batches * BATCH).map(|i| typical_click(self.base.campaign_id, i)).collect();
        let tell = |word: &str| {
            let of = |click: &Click<'_>| {
                let id = click.id;
                let params = format!(
                    "clickid={id}&status={word}&payout=1.25&currency=USD&txid=order-{:08x}&goal=sale",
                    id.seed()
                );
                let mut postback = Postback::new(new_uuid(), params);
                (postback.channel, postback.click_id) = (Channel::Http, Some(id));
                postback.network_id = Some(self.base.network_id);
                postback
            };
            clicks.iter().map(of).collect::<Vec<Postback<'static>>>()
        };
        let (sales, back) = (tell("sale"), tell("rejected"));
        let of_clicks = self.store(&clicks, |batch| Rows { clicks: batch, ..Rows::default() }).await?;
        let of_sales = self.store(&sales, |batch| Rows { postbacks: batch, ..Rows::default() }).await?;
        let of_back = self.store(&back, |batch| Rows { postbacks: batch, ..Rows::default() }).await?;
        Ok([of_clicks, of_sales, of_back])
    }

    async fn store<'f, F>(
        &mut self,
        facts: &'f [F],
        rows: impl Fn(Vec<&'f F>) -> Rows<'f>,
    ) -> anyhow::Result<(f64, f64)> {
        self.base.checkpoint().await?;
        let (start, cpu) = (Instant::now(), self.cpu());
        for batch in facts.chunks(BATCH) {
            let hi = self.seq + batch.len() as u64;
            let mut rows = rows(batch.iter().collect());
            self.ingest.store(self.stream, self.seq, hi, &mut rows).await?;
            self.seq = hi;
        }
        let count = facts.len() as f64;
        let cpu = self.cpu().saturating_sub(cpu).as_secs_f64() / count * 1e6;
        Ok((count / start.elapsed().as_secs_f64(), cpu))
    }

    fn cpu(&self) -> Duration {
        support::cpu_of(std::process::id()) + support::cpu_of_tree(self.base.postgres.pid())
    }
}
