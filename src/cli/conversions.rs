//! `octo conversions import FILE`: conversions by file, each line read as a postback; and `octo conversions reconcile FILE`:
//! the report of a network beside what is stored.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail, ensure};
use chrono_tz::Tz;
use clap::{Args, Subcommand};

use super::{file, print, progress::Progress, with_db};
use crate::{
    config::Config,
    db::{
        Db,
        ingest::import_postbacks,
        store::{affiliate_networks::AffiliateNetwork, library},
    },
    http::api::{costs::input, views::reconciliation::Reconciliation},
    imports::{self, Line},
    model::{
        conversion::{Outcome, ReportDate},
        money::Currency,
        network::PostbackRules,
    },
    money::reconcile::Report,
    reconciliation::{self, Fault, Question},
};

/// Lines in one transaction.
const CHUNK: usize = 1000;

/// Lines that are named one by one.
const NAMED_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take the conversions of a file: CSV (with a header, or as Keitaro and FunnelFlux write it) or a JSON object a line
    Import {
        /// The file; - for standard input
        file: PathBuf,
        /// The affiliate network whose words and names the lines have: its id; without it, that of each click's offer
        #[arg(long, value_name = "ID")]
        network: Option<i64>,
        /// Where lines go that are not taken, each behind the reason
        #[arg(long, value_name = "FILE")]
        rejects: Option<PathBuf>,
    },
    /// Compare the report of a network, a file such as `import` takes, with what is stored; changes nothing
    Reconcile(Box<Reconcile>),
}

#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// The report; - for standard input
    file: PathBuf,
    /// The affiliate network whose report it is: its id
    #[arg(long, value_name = "ID")]
    network: i64,
    /// Conversions of this time or later must be in it: RFC 3339, or a day of the zone, such as 2026-11-01
    #[arg(long, value_name = "TIME")]
    from: String,
    /// And before this time, likewise; such a day is not in it any more
    #[arg(long, value_name = "TIME")]
    to: String,
    /// The time zone of its days and times
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: Tz,
    /// The currency of lines that name none; without it the network's
    #[arg(long, value_name = "CODE")]
    currency: Option<Currency>,
    /// Which day its lines have: conversion or click
    #[arg(long, value_name = "WHICH", default_value = "conversion")]
    date: ReportDate,
    /// Where the differences are written, as CSV
    #[arg(long, value_name = "FILE")]
    differences: Option<PathBuf>,
    /// Print all of the answer as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print the differences as CSV
    #[arg(long)]
    csv: bool,
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Import { file, network, rejects } => import_file(&file, network, rejects, config),
        Command::Reconcile(asked) => reconcile(&asked, config),
    }
}

fn reconcile(asked: &Reconcile, config: &Config) -> anyhow::Result<ExitCode> {
    let postbacks = &config.postbacks;
    let bytes = file::read(&asked.file, postbacks.import_bytes_max as u64, "postbacks.import_bytes_max")?;
    let time = |name: &str, text: &str| {
        input::parse(text, asked.tz)
            .with_context(|| format!("--{name} is a time or a day, such as 2026-11-01"))
    };
    let question = Question {
        network_id: asked.network,
        from: time("from", &asked.from)?,
        to: time("to", &asked.to)?,
        report: Report { zone: asked.tz, date: asked.date, currency: asked.currency },
        lines_max: postbacks.import_lines_max,
        rows_max: postbacks.reconcile_rows_max,
    };
    ensure!(question.from < question.to, "--to must be after --from");
    with_db(config, async move |db: Db| {
        let mut progress = Progress::start();
        let found = reconciliation::reconcile(&db, question, bytes, |done, total| {
            progress.show(|seconds| format!("{done} of {total} clicks, {seconds} s"));
        });
        let found = found.await.map_err(|fault| match fault {
            Fault::NoNetwork => anyhow!("there is no affiliate network {}", asked.network),
            other => other.into(),
        });
        progress.end();
        db.close();
        show(asked, &Reconciliation::of(&found?))
    })
}

fn show(asked: &Reconcile, shown: &Reconciliation) -> anyhow::Result<ExitCode> {
    if let Some(path) = &asked.differences {
        fs::write(path, shown.csv()?).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if asked.json {
        return print(&(serde_json::to_string(shown)? + "\n"));
    }
    if asked.csv {
        return print(&String::from_utf8(shown.csv()?)?);
    }
    print(&shown.table())
}

fn import_file(
    file: &Path,
    network: Option<i64>,
    rejects: Option<PathBuf>,
    config: &Config,
) -> anyhow::Result<ExitCode> {
    let bytes = file::read(file, config.postbacks.import_bytes_max as u64, "postbacks.import_bytes_max")?;
    let lines_max = config.postbacks.import_lines_max;
    with_db(config, async move |db: Db| {
        let rules = match network {
            None => PostbackRules::default(),
            Some(id) => {
                let found = library::get::<AffiliateNetwork>(&db, id).await?;
                found.with_context(|| format!("there is no affiliate network {id}"))?.terms.rules()
            }
        };
        let lines = imports::read(&bytes, network, &rules, lines_max)?;
        import(&db, &bytes, lines, rejects.as_deref()).await
    })
}

async fn import(db: &Db, bytes: &[u8], lines: Vec<Line>, rejects: Option<&Path>) -> anyhow::Result<ExitCode> {
    let total = lines.len();
    let mut progress = Progress::start();
    let (mut done, mut changed, mut waiting, mut unmapped) = (0, 0, 0, 0);
    let mut rejected: Vec<(u64, &'static str)> = Vec::new();
    let mut lines = lines.into_iter();
    loop {
        let chunk: Vec<Line> = lines.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            break;
        }
        done += chunk.len();
        let of_fault = |line: &Line| Some((line.number, line.postback.as_ref().err()?.into()));
        rejected.extend(chunk.iter().filter_map(of_fault));
        unmapped += chunk.iter().filter(|line| !line.is_mapped).count();
        let postbacks = chunk.into_iter().filter_map(|line| line.postback.ok()).collect();
        let (imported, told) = import_postbacks(db, postbacks).await?;
        waiting += imported.iter().filter(|it| it.outcome == Outcome::Waiting).count();
        changed += told.changes.len();
        progress.show(|seconds| format!("{done} of {total} lines, {seconds} s"));
    }
    progress.end();
    let stored = total - rejected.len();
    eprintln!(
        "{stored} of {total} lines are in the ledger: {changed} changes of conversions, {waiting} wait for their click, \
         {unmapped} have a word that is not known"
    );
    name_rejected(bytes, &rejected, rejects)?;
    Ok(ExitCode::from(u8::from(!rejected.is_empty())))
}

fn name_rejected(bytes: &[u8], rejected: &[(u64, &'static str)], file: Option<&Path>) -> anyhow::Result<()> {
    for (line, reason) in rejected.iter().take(NAMED_MAX) {
        eprintln!("line {line}: {reason}");
    }
    if rejected.len() > NAMED_MAX {
        eprintln!("and {} more", rejected.len() - NAMED_MAX);
    }
    let Some(path) = file.filter(|_| !rejected.is_empty()) else { return Ok(()) };
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    let Ok(mut out) = File::create(path) else { bail!("{} cannot be written", path.display()) };
    for (line, reason) in rejected {
        let text = usize::try_from(*line).ok().and_then(|line| lines.get(line.saturating_sub(1)));
        writeln!(out, "{reason}\t{}", text.unwrap_or(&""))?;
    }
    Ok(())
}
