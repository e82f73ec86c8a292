//! `octo demo seed` and `octo demo clear`.

use std::process::ExitCode;

use chrono::Utc;
use clap::Subcommand;

use super::{progress::Progress, reports, with_db};
use crate::{
    config::Config,
    db::{Db, store::figures},
    demo::{self, DAYS},
};

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Command {
    /// Make sample campaigns, sources and offers with 30 days of clicks, costs and conversions
    Seed,
    /// Delete all of that again, and count the figures of its days anew
    Clear,
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    with_db(config, async |db: Db| {
        let done = match command {
            Command::Seed => seed(&db, config).await,
            Command::Clear => clear(&db, config).await,
        };
        db.close();
        done.map(|()| ExitCode::SUCCESS)
    })
}

async fn seed(db: &Db, config: &Config) -> anyhow::Result<()> {
    let mut progress = Progress::start();
    let seeded = demo::seed(db, config, Utc::now(), |so_far| {
        progress.show(|seconds| {
            format!(
                "{} {} of {DAYS} days, {} clicks, {seconds} s",
                bar(so_far.days, DAYS),
                so_far.days,
                so_far.clicks
            )
        });
    })
    .await;
    progress.end();
    let seeded = seeded?;
    eprintln!(
        "stored {} clicks, {} out-clicks and {} postbacks of {DAYS} days in sample campaigns; `octo demo clear` takes them away",
        seeded.clicks, seeded.out_clicks, seeded.postbacks
    );
    Ok(())
}

async fn clear(db: &Db, config: &Config) -> anyhow::Result<()> {
    let mut progress = Progress::start();
    let cleared = demo::clear(db, Utc::now(), |so_far| {
        progress.show(|seconds| {
            format!("{} days looked through, {} clicks deleted, {seconds} s", so_far.days, so_far.clicks)
        });
    })
    .await;
    progress.end();
    let Some((from, to, count)) = cleared? else {
        eprintln!("there is no demo");
        return Ok(());
    };
    figures::ask_recount(db, from, to).await?;
    let days = (to - from).num_days();
    for (done, day) in from.iter_days().take_while(|day| *day < to).enumerate() {
        progress.show(|seconds| {
            format!("deleted {} clicks; {done} of {days} days counted anew, {seconds} s", count.clicks)
        });
        reports::recount_day(db, day, config, |_| {}).await?;
    }
    progress.end();
    eprintln!("deleted the sample campaigns with their {} clicks", count.clicks);
    Ok(())
}

/// Ten places of a bar.
fn bar(done: u32, of: u32) -> String {
    let full = (done * 10 / of) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(10 - full))
}
