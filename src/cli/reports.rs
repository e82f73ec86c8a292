//! `octo reports recount` and `octo reports check`: the figures of days, counted from their facts or compared with them.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use chrono::{Days, NaiveDate};
use clap::{Args, Subcommand};
use tokio::time::sleep;

use super::{print, progress::Progress, with_db};
use crate::{
    config::Config,
    db::{
        Db,
        store::figures::{self, Difference},
    },
    http::{
        api::reports::difference,
        fields::{DAY_WANTED, parse_day},
    },
};

/// Between two looks at a day that another node counts.
const LOOK: Duration = Duration::from_millis(500);

/// Differences that are shown of one day.
const DIFFERENCES_MAX: i64 = 1000;

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Command {
    /// Have the figures of days counted from their clicks and conversions again; a running octo does it
    Recount {
        #[command(flatten)]
        days: Span,
        /// Count them here and now, whether octo runs or not
        #[arg(long)]
        wait: bool,
    },
    /// Compare the figures of days with their clicks and conversions; exit code 1 where they differ
    Check {
        #[command(flatten)]
        days: Span,
        /// As JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

/// Days that are over and done with, or are still running.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Span {
    /// The first day (UTC), such as 2026-11-01
    #[arg(long, value_name = "DAY", value_parser = parse_day_of_command)]
    from: NaiveDate,
    /// The day behind the last
    #[arg(long, value_name = "DAY", value_parser = parse_day_of_command)]
    to: NaiveDate,
}

fn parse_day_of_command(text: &str) -> Result<NaiveDate, &'static str> {
    parse_day(text).ok_or(DAY_WANTED)
}

impl Span {
    /// The newest first: they are looked at most.
    fn days(self) -> impl Iterator<Item = NaiveDate> {
        let days = (self.to - self.from).num_days();
        (1..=u64::try_from(days).unwrap_or(0))
            .filter_map(move |back| self.to.checked_sub_days(Days::new(back)))
    }
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let (Command::Recount { days, .. } | Command::Check { days, .. }) = command;
    ensure!(days.from < days.to, "--to must be after --from");
    with_db(config, async |db: Db| {
        let code = match command {
            Command::Recount { days, wait } => recount(&db, days, wait, config).await,
            Command::Check { days, json } => check(&db, days, json, config).await,
        };
        db.close();
        code
    })
}

/// Refuses days whose facts are not all there: counted anew, they would lose what their figures have of the others.
async fn refuse_lost(db: &Db, span: Span, what: &str) -> anyhow::Result<()> {
    let days = figures::lost_days(db, span.from, span.to).await?;
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Ok(()) };
    let behind = last.succ_opt().context("a day")?;
    bail!(
        "retention has deleted clicks of {first} to {last}, and their figures are all that is left of them: they cannot be {what}; \
         begin with --from {behind}"
    )
}

async fn recount(db: &Db, span: Span, wait: bool, config: &Config) -> anyhow::Result<ExitCode> {
    refuse_lost(db, span, "counted anew").await?;
    let total = figures::ask_recount(db, span.from, span.to).await?;
    if !wait {
        eprintln!(
            "{total} days are to be counted: a running octo does it, the newest first; --wait counts them now"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let (mut progress, mut facts) = (Progress::start(), 0);
    for (done, day) in span.days().enumerate() {
        progress.show(|seconds| format!("{done} of {total} days, {facts} facts, {seconds} s"));
        facts += recount_day(db, day, config, |seconds| {
            progress.show(|_| {
                format!("{done} of {total} days, {facts} facts; another node is about it for {seconds} s")
            });
        })
        .await?;
    }
    progress.end();
    eprintln!("counted {total} days from {facts} facts");
    Ok(ExitCode::SUCCESS)
}

/// Counts a day, unless a running octo does so; says how many facts it has.
pub(super) async fn recount_day(
    db: &Db,
    day: NaiveDate,
    config: &Config,
    mut is_waiting: impl FnMut(u64),
) -> anyhow::Result<u64> {
    let since = std::time::Instant::now();
    while figures::list_recounts(db).await?.contains(&day) {
        if let Some(facts) = figures::recount(db, day, config.reports.recount_timeout).await? {
            return Ok(facts);
        }
        is_waiting(since.elapsed().as_secs());
        sleep(LOOK).await;
    }
    Ok(0)
}

async fn check(db: &Db, span: Span, json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    refuse_lost(db, span, "compared").await?;
    let (total, mut progress) = ((span.to - span.from).num_days(), Progress::start());
    let mut found = Vec::new();
    for (done, day) in span.days().enumerate() {
        progress.show(|seconds| format!("{done} of {total} days, {seconds} s"));
        let next = day.succ_opt().context("the day is too far away")?;
        found.extend(figures::compare(db, day, next, DIFFERENCES_MAX, config.reports.compare_timeout).await?);
    }
    progress.end();
    let uncounted = figures::list_recounts(db).await?;
    let uncounted = uncounted.iter().filter(|day| (span.from..span.to).contains(*day)).count();
    if uncounted > 0 {
        eprintln!("{uncounted} of these days are still to be counted: their figures are not complete yet");
    }
    if json {
        let shown: Vec<_> = found.iter().map(difference).collect();
        print(&(serde_json::to_string(&shown)? + "\n"))?;
    } else {
        print(&found.iter().map(line).collect::<String>())?;
    }
    eprintln!("compared {total} days: {} differences", found.len());
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}

/// What the sums have more than they should.
fn line(found: &Difference) -> String {
    let more: Vec<String> =
        found.sums().map(|(name, more)| format!("{name} {:+}", more.normalize())).collect();
    let Difference { kept_by, day, differing, .. } = found;
    let campaign = found.campaign_id.map_or_else(|| "all campaigns".to_owned(), |id| id.to_string());
    format!("{day}  {campaign}  {kept_by}  {differing} rows  {}\n", more.join(", "))
}
