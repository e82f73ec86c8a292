//! `octo fx import|set|show`: what currencies are worth, from a file of the European Central Bank and of the owner's own.

use std::{
    fmt::Write as _,
    io::Cursor,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use chrono::{NaiveDate, Utc};
use clap::Subcommand;
use rust_decimal::Decimal;
use serde::Serialize;
use zip::ZipArchive;

use super::{file, print, progress::Progress, with_db};
use crate::{
    config::Config,
    db::{
        Db,
        store::fx_rates::{self, Put},
    },
    http::fields::{DAY_WANTED, parse_day},
    model::money::Currency,
    money::{
        ecb,
        rates::{Rate, RateSource, parse_rate},
    },
};

/// Faults and restatements that are named one by one.
const NAMED_MAX: usize = 20;

const BYTES_MAX_KEY: &str = "money.rates_file_bytes_max";

/// What a zip file begins with.
const ZIP: &[u8] = b"PK\x03\x04";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take the rates of a file of the European Central Bank: eurofxref-hist.zip, eurofxref.zip or the CSV in it
    Import {
        /// The file; - for standard input
        file: PathBuf,
    },
    /// Give a rate of your own; it holds from its day on, where the bank has none
    Set {
        /// ISO 4217, such as UAH
        #[arg(value_parser = parse_own_currency)]
        currency: Currency,
        /// Units of it for one euro, such as 48.35
        #[arg(value_parser = parse_rate)]
        rate: Decimal,
        /// The first day (UTC) on which it holds
        #[arg(long, value_name = "DAY", value_parser = parse_day_of_command)]
        from: NaiveDate,
    },
    /// Show which rates hold on a day; exit code 1 where the currency has none
    Show {
        /// Only this one
        #[arg(long, value_name = "CODE")]
        currency: Option<Currency>,
        /// The day (UTC); without it, today
        #[arg(long, value_parser = parse_day_of_command)]
        day: Option<NaiveDate>,
        /// As JSON on stdout
        #[arg(long)]
        json: bool,
    },
}

/// A rate as it is shown.
#[derive(Debug, Serialize)]
struct Line {
    currency: Currency,
    /// Units for one euro.
    rate: String,
    /// The day of the rate.
    day: NaiveDate,
    source: RateSource,
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let money = &config.money;
    match command {
        Command::Import { file } => {
            let rates = read(&file, money.rates_file_bytes_max)?;
            with_db(config, async move |db: Db| import(&db, &file, rates).await)
        }
        Command::Set { currency, rate, from } => {
            with_db(config, async move |db: Db| set(&db, currency, rate, from).await)
        }
        Command::Show { currency, day, json } => {
            let (day, age_days_max) =
                (day.unwrap_or_else(|| Utc::now().date_naive()), money.rate_age_days_max);
            with_db(config, async move |db: Db| show(&db, currency, day, age_days_max, json).await)
        }
    }
}

async fn import(db: &Db, file: &Path, rates: Vec<Rate>) -> anyhow::Result<ExitCode> {
    let days = || rates.iter().map(|rate| rate.day);
    let (Some(first), Some(last)) = (days().min(), days().max()) else { bail!("the file has no rate") };
    let name = file.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, " ");
    let name = if name == "-" { "of standard input" } else { &name };
    let total = rates.len();
    let put = put(db, rates, &format!("octo fx import {name}")).await?;
    let Put { new, unchanged, restated } = &put;
    eprintln!(
        "{total} rates of {first} to {last}: {new} new, {unchanged} unchanged, {} restated",
        restated.len()
    );
    tell_restated(db, put.restated).await
}

async fn set(db: &Db, currency: Currency, rate: Decimal, day: NaiveDate) -> anyhow::Result<ExitCode> {
    let rate = Rate { currency, day, rate, source: RateSource::Manual };
    let put = put(db, vec![rate], "octo fx set").await?;
    let what = match (put.new, put.unchanged) {
        (1, _) => "is new",
        (_, 1) => "is as it was",
        _ => "is restated",
    };
    eprintln!("the rate of {currency} from {day} on {what}");
    tell_restated(db, put.restated).await
}

/// Writes rates and says meanwhile how far it is.
async fn put(db: &Db, rates: Vec<Rate>, by: &str) -> anyhow::Result<Put> {
    let (total, progress) = (rates.len(), Mutex::new(Progress::start()));
    let seen = move |done| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.show(|seconds| format!("{done} of {total} rates, {seconds} s"));
        if done == total {
            progress.end();
        }
    };
    fx_rates::put(db, rates, by.to_owned(), seen).await.context("nothing was stored")
}

/// The first of those that were changed, a line each.
async fn tell_restated(db: &Db, mut ids: Vec<i64>) -> anyhow::Result<ExitCode> {
    let more = ids.len().saturating_sub(NAMED_MAX);
    ids.truncate(NAMED_MAX);
    let mut text = String::new();
    for fx_rates::Restatement { rate, old_rate, .. } in fx_rates::restatements_of(db, ids).await? {
        writeln!(text, "{} {}  {old_rate} -> {}", rate.currency, rate.day, rate.rate)?;
    }
    print(&text)?;
    if more > 0 {
        eprintln!("and {more} more: GET /api/v1/fx-rates/restatements lists them");
    }
    db.close();
    Ok(ExitCode::SUCCESS)
}

async fn show(
    db: &Db,
    currency: Option<Currency>,
    day: NaiveDate,
    age_days_max: u16,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let rates = fx_rates::load(db, day, day, age_days_max).await?;
    db.close();
    let asked = currency.map_or_else(|| rates.currencies(), |currency| vec![currency]);
    let in_force = asked.into_iter().filter_map(|currency| rates.in_force(currency, day));
    let lines: Vec<_> = in_force
        .map(|Rate { currency, day, rate, source }| Line { currency, rate: rate.to_string(), day, source })
        .collect();
    if json {
        print(&format!("{}\n", serde_json::to_string(&lines)?))?;
    } else {
        print(&lines.iter().map(text).collect::<String>())?;
    }
    if lines.is_empty() {
        let what = currency.map_or_else(|| "no currency has a".to_owned(), |code| format!("{code} has no"));
        eprintln!("{what} rate on {day}; see `octo fx import --help` and `octo fx set --help`");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn text(Line { currency, rate, day, source }: &Line) -> String {
    let since = match source {
        RateSource::Ecb => "ECB, published on",
        RateSource::Manual => "your own, from",
    };
    format!("{currency}  {rate:>16}  {since} {day}\n")
}

/// The rates of a file, packed or not.
fn read(file: &Path, bytes_max: u64) -> anyhow::Result<Vec<Rate>> {
    let shown = file.display();
    let bytes = file::read(file, bytes_max, BYTES_MAX_KEY)?;
    let bytes = if bytes.starts_with(ZIP) {
        unpack(bytes, bytes_max).with_context(|| format!("cannot unpack {shown}"))?
    } else {
        bytes
    };
    let text = String::from_utf8(bytes).with_context(|| format!("{shown} is no text"))?;
    let faults = match ecb::parse(&text) {
        Ok(rates) => return Ok(rates),
        Err(faults) => faults,
    };
    for fault in faults.iter().take(NAMED_MAX) {
        eprintln!("{fault}");
    }
    bail!("{shown}: {} lines cannot be read; nothing was imported", faults.len())
}

/// The one file in a zip.
fn unpack(bytes: Vec<u8>, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))?;
    ensure!(archive.len() == 1, "it holds {} files, not one", archive.len());
    file::within(archive.by_index(0)?, bytes_max, BYTES_MAX_KEY)
}

fn parse_own_currency(text: &str) -> Result<Currency, &'static str> {
    let currency: Currency = text.parse()?;
    match currency {
        Currency::EUR => Err("rates are told against EUR; its own is always 1"),
        known if known.is_known() => Ok(known),
        _ => Err("is no currency in use (ISO 4217)"),
    }
}

fn parse_day_of_command(text: &str) -> Result<NaiveDate, &'static str> {
    parse_day(text).ok_or(DAY_WANTED)
}
