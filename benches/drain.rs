//! Storing alone: the drain's batches against one INSERT a click, in one PostgreSQL with `fsync` on.
//!
//! `cargo bench --bench drain`. Three rounds, one after the other in each: 70,000 clicks through
//! [`Ingest::store`] in batches of 5,000 on its one connection (with roll-ups and watermark), then 3,000 clicks
//! by one INSERT each, same columns, from 64 tasks through a pool of 32 (with neither). CPU is this process's
//! and PostgreSQL's together.

use std::{
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
    model::click::Click,
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

/// What one side did in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rows_per_second: f64,
    /// CPU seconds per 1,000 clicks.
    cpu: f64,
}

struct Bench {
    postgres: PrivatePostgres,
    ingest: Ingest,
    stream: Uuid,
    seq: u64,
    pool: PgPool,
    campaign_id: Uuid,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let mut bench = Bench::start().await?;
    bench.drain(1).await?; // opens connections, prepares statements, warms caches
    bench.one_by_one(SINGLES / 3).await?;

    println!("{:>5}  {:<18} {:>9} {:>19}", "round", "", "rows/s", "CPU s/1,000 clicks");
    let (mut batched, mut single) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        bench.checkpoint().await?;
        batched.push(bench.drain(BATCHES).await?);
        print(&round.to_string(), "batches of 5,000", batched[round - 1]);
        bench.checkpoint().await?;
        single.push(bench.one_by_one(SINGLES).await?);
        print(&round.to_string(), "one INSERT a click", single[round - 1]);
    }
    let (batched, single) = (medians(&batched), medians(&single));
    print("med.", "batches of 5,000", batched);
    print("med.", "one INSERT a click", single);
    println!(
        "ratio: {:.1} times the rows/s, 1/{:.1} of the CPU a click",
        batched.rows_per_second / single.rows_per_second,
        single.cpu / batched.cpu
    );
    bench.check().await
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let postgres = PrivatePostgres::start().await;
        let url = postgres.url();
        migrate(&url).await;
        let pool = support::baseline_pool(&url).await?;
        sqlx::query("SELECT octo_make_partitions(1)").execute(&pool).await?;
        let config = Loaded::load(None, [], &Flags::default())?.config;
        let octos = Pool::new("primary", &url, &config.database)?;
        let mut ingest = Ingest::connect(&octos, Duration::from_secs(30)).await?;
        let stream = Uuid::now_v7();
        ingest.watermarks(&[stream]).await?;
        Ok(Self { postgres, ingest, stream, seq: 0, pool, campaign_id: Uuid::now_v7() })
    }

    /// So that no side pays for the other's dirty pages.
    async fn checkpoint(&self) -> anyhow::Result<()> {
        sqlx::query("CHECKPOINT").execute(&mut self.postgres.admin().await).await?;
        Ok(())
    }

    async fn drain(&mut self, batches: usize) -> anyhow::Result<Figures> {
        let clicks = self.clicks(batches * BATCH);
        let (start, cpu) = (Instant::now(), self.cpu());
        for batch in clicks.chunks(BATCH) {
            let rows = Rows { clicks: batch.iter().collect(), ..Rows::default() };
            let hi = self.seq + batch.len() as u64;
            self.ingest.store(self.stream, self.seq, hi, &rows).await?;
            self.seq = hi;
        }
        Ok(self.figures(clicks.len(), start, cpu))
    }

    async fn one_by_one(&mut self, count: usize) -> anyhow::Result<Figures> {
        let clicks = Arc::new(self.clicks(count));
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

    fn clicks(&self, count: usize) -> Vec<Click<'static>> {
        (0..).take(count).map(|i| typical_click(self.campaign_id, i)).collect()
    }

    fn cpu(&self) -> Duration {
        support::cpu_of(std::process::id()) + support::cpu_of_tree(self.postgres.pid())
    }

    fn figures(&self, count: usize, start: Instant, cpu: Duration) -> Figures {
        let count = count as f64;
        Figures {
            rows_per_second: count / start.elapsed().as_secs_f64(),
            cpu: self.cpu().saturating_sub(cpu).as_secs_f64() / count * 1e3,
        }
    }

    /// Every click is a row, or the figures are worth nothing.
    async fn check(&self) -> anyhow::Result<()> {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM clicks").fetch_one(&self.pool).await?;
        let sent = (1 + ROUNDS * BATCHES) * BATCH + SINGLES / 3 + ROUNDS * SINGLES;
        anyhow::ensure!(usize::try_from(rows)? == sent, "{rows} rows of {sent} clicks");
        println!("all {rows} clicks are rows");
        Ok(())
    }
}

fn medians(rounds: &[Figures]) -> Figures {
    Figures {
        rows_per_second: median(rounds.iter().map(|r| r.rows_per_second).collect()),
        cpu: median(rounds.iter().map(|r| r.cpu).collect()),
    }
}

fn print(round: &str, side: &str, figures: Figures) {
    println!("{round:>5}  {side:<18} {:>9.0} {:>19.4}", figures.rows_per_second, figures.cpu);
}
