//! What counting a query costs.

use std::{
    collections::BTreeSet,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use octo::{
    config::{Flags, Loaded},
    db::{self, Statement, monitor::Monitor},
    telemetry::Metrics,
};
use tokio::task::JoinSet;

use crate::{ROUNDS, statement, support::median};

const QUERIES: u32 = 300_000;
const TASKS: [usize; 2] = [1, 2];

pub(crate) async fn measure(recorder: &Metrics) -> anyhow::Result<()> {
    println!(
        "\nmonitor: {QUERIES} queries that do nothing, counted by Monitor::observe with Prometheus installed"
    );
    let config = Loaded::load(None, [], &Flags::default())?.config;
    let monitor = Arc::new(Monitor::new(&config.database));
    for tasks in TASKS {
        let mut nanoseconds = Vec::new();
        for _ in 0..ROUNDS {
            nanoseconds.push(count(&monitor, tasks).await?);
            let _ = recorder.render(); // moves the samples into the histograms, as a scrape does
        }
        println!("      {:.0} ns a query from {tasks} tasks at once", median(nanoseconds));
    }
    let listed: BTreeSet<&str> = monitor.queries().iter().map(|query| query.query).collect();
    let statements: BTreeSet<&str> = db::statements().map(Statement::name).collect();
    let missing: Vec<&&str> = statements.difference(&listed).collect();
    let verdict = if missing.is_empty() { "reached" } else { "missed" };
    println!(
        "plan, monitoring: 100 %; {} of {} statements are in the list of GET /api/v1/system/queries: {verdict} {missing:?}",
        statements.len() - missing.len(),
        statements.len()
    );
    Ok(())
}

/// Nanoseconds that each task waits for one to be counted.
async fn count(monitor: &Arc<Monitor>, tasks: usize) -> anyhow::Result<f64> {
    let mut counting = JoinSet::new();
    for _ in 0..tasks {
        let (monitor, by_key) = (monitor.clone(), statement("campaign.by_key"));
        counting.spawn(async move {
            let start = Instant::now();
            for number in 0..QUERIES {
                let nothing = async { Ok(black_box(number)) };
                monitor.observe(by_key, nothing).await?;
            }
            anyhow::Ok(start.elapsed())
        });
    }
    let mut longest = Duration::ZERO;
    while let Some(took) = counting.join_next().await {
        longest = longest.max(took??);
    }
    Ok(longest.as_secs_f64() * 1e9 / f64::from(QUERIES))
}
