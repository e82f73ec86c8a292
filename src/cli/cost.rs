//! `octo cost set|list|void|import`: what is said of costs, by the rules of `POST /api/v1/costs`. These need the database.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{print, progress::Progress, with_db};
use crate::{
    config::Config,
    db::{
        Db,
        store::{
            campaigns,
            costs::{self, Author, CostAdjustment, Filter},
        },
    },
    http::{
        api::{
            costs::{file, input},
            manners::request::parse_id,
        },
        error::FieldError,
    },
    model::{cost::Terms, id::new_uuid},
};

/// Adjustments read at once.
const PAGE: i64 = 200;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say what the clicks of a campaign cost in a range
    Set(Box<Set>),
    /// List what was said, newest first
    List {
        /// Of the campaign with this id or key
        #[arg(long, value_name = "KEY")]
        campaign: Option<String>,
        /// Only what is not void
        #[arg(long)]
        live: bool,
    },
    /// Take back what was said: what it had superseded counts again
    Void {
        /// Its id, as in `octo cost list`
        id: Uuid,
    },
    /// Read a file of lines: campaign,from,to,kind,amount,currency,zone,..,note or campaign;zone;date;cost;token;value
    Import {
        /// The file; its first line names the columns; - for standard input
        file: PathBuf,
        /// The currency of lines that name none
        #[arg(long, value_name = "CODE")]
        currency: Option<String>,
        /// Where refused lines are written; without it, beside the file, with .rejected behind its name; of standard
        /// input they are only named
        #[arg(long, value_name = "FILE")]
        rejects: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The campaign's id or key
    #[arg(long, value_name = "KEY")]
    campaign: String,
    /// The first hour: a time (RFC 3339), or a day or an hour of the zone, such as 2026-11-01
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Before this hour, likewise
    #[arg(long, value_name = "TIME")]
    to: String,
    #[command(flatten)]
    amount: Amount,
    /// The currency of the amount
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
    /// The time zone of days and hours
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// Which clicks bear it: valid, all or unique
    #[arg(long, value_name = "WHICH", default_value = "valid")]
    spread: String,
    /// Only clicks with this value, such as source=3 or country=DE; several values of one dimension by repeating it
    #[arg(long, value_name = "DIMENSION=VALUE")]
    filter: Vec<String>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Amount {
    /// What all clicks cost together
    #[arg(long, value_name = "AMOUNT")]
    total: Option<String>,
    /// What each click cost
    #[arg(long, value_name = "AMOUNT")]
    per_click: Option<String>,
    /// What a thousand clicks cost
    #[arg(long, value_name = "AMOUNT")]
    per_mille: Option<String>,
    /// By how much what links said is multiplied
    #[arg(long, value_name = "NUMBER")]
    factor: Option<String>,
}

pub(super) fn run(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    with_db(config, async |db: Db| {
        let code = match command {
            Command::Set(set) => say(&db, &set).await,
            Command::List { campaign, live } => list(&db, campaign, live).await,
            Command::Void { id } => void(&db, id).await,
            Command::Import { file, currency, rejects } => {
                let bytes =
                    super::file::read(&file, config.costs.import_bytes_max as u64, "costs.import_bytes_max")?;
                import(&db, file, &bytes, currency, rejects).await
            }
        };
        db.close();
        code
    })
}

fn author() -> Author {
    Author { id: None, name: "command line".to_owned() }
}

async fn say(db: &Db, set: &Set) -> anyhow::Result<ExitCode> {
    let said = said(set)?;
    let terms = match read(db, &mut HashMap::new(), &said).await? {
        Ok(terms) => terms,
        Err(faults) => bail!("{faults}"),
    };
    let stored = costs::insert(db, new_uuid(), terms, author()).await?;
    print(&line(&stored))
}

/// As a request would say it.
fn said(set: &Set) -> anyhow::Result<Value> {
    let amounts = [
        ("total", &set.amount.total),
        ("per_click", &set.amount.per_click),
        ("per_mille", &set.amount.per_mille),
        ("factor", &set.amount.factor),
    ];
    let amount = amounts.into_iter().find_map(|(kind, amount)| Some((kind, amount.as_ref()?)));
    let (kind, amount) = amount.context("one of --total, --per-click, --per-mille and --factor is needed")?;
    let mut filters: Map<String, Value> = Map::new();
    for filter in &set.filter {
        let (name, value) =
            filter.split_once('=').context("--filter is DIMENSION=VALUE, such as source=3")?;
        let values = filters.entry(name).or_insert_with(|| json!([]));
        values.as_array_mut().context("a list")?.push(value.into());
    }
    let mut said = json!({
        "campaign": set.campaign, "from": set.from, "to": set.to, "time_zone": set.zone, "kind": kind, "amount": amount,
        "spread": set.spread, "filters": filters,
    });
    for (name, value) in [("currency", &set.currency), ("note", &set.note)] {
        if let Some(value) = value {
            said[name] = json!(value);
        }
    }
    Ok(said)
}

/// What is said, or what is wrong with it.
async fn read(
    db: &Db,
    known: &mut HashMap<String, Uuid>,
    said: &Value,
) -> anyhow::Result<Result<Terms, String>> {
    let said = match input::read(said, "") {
        Ok(said) => said,
        Err(errors) => return Ok(Err(faults(&errors))),
    };
    Ok(match campaign_id(db, known, &said.campaign).await? {
        Some(id) => Ok(said.of(id)),
        None => Err(format!("there is no campaign {}", said.campaign)),
    })
}

async fn campaign_id(db: &Db, known: &mut HashMap<String, Uuid>, name: &str) -> anyhow::Result<Option<Uuid>> {
    if let Some(id) = known.get(name) {
        return Ok(Some(*id));
    }
    let found = match parse_id(name) {
        Some(id) => campaigns::get(db, id).await?,
        None => campaigns::get_by_key(db, name).await?,
    };
    let id = found.map(|campaign| campaign.id);
    known.extend(id.map(|id| (name.to_owned(), id)));
    Ok(id)
}

fn faults(errors: &[FieldError]) -> String {
    let fault = |error: &FieldError| format!("{} {}", error.pointer.trim_start_matches('/'), error.detail);
    errors.iter().map(fault).collect::<Vec<_>>().join("; ")
}

async fn list(db: &Db, campaign: Option<String>, live: bool) -> anyhow::Result<ExitCode> {
    let campaign_id = match campaign {
        None => None,
        Some(name) => {
            let id = campaign_id(db, &mut HashMap::new(), &name).await?;
            Some(id.with_context(|| format!("there is no campaign {name}"))?)
        }
    };
    let filter = Filter { campaign_id, is_voided: live.then_some(false), ..Filter::default() };
    let mut after = None;
    loop {
        let page = costs::list(db, filter, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(ExitCode::SUCCESS) };
        after = Some(last.seq);
        for adjustment in page.iter().filter(|adjustment| adjustment.is_live || !live) {
            print(&line(adjustment))?;
        }
    }
}

fn line(adjustment: &CostAdjustment) -> String {
    let CostAdjustment { id, terms, is_live, voided_at, .. } = adjustment;
    let state = match (is_live, voided_at) {
        (true, _) => "live",
        (false, Some(_)) => "void",
        (false, None) => "superseded",
    };
    let currency = terms.currency.map(|currency| format!(" {currency}")).unwrap_or_default();
    let filters = serde_json::to_string(&terms.filters).unwrap_or_default(); // texts only
    let note = terms.note.as_deref().unwrap_or_default().replace(char::is_control, " ");
    let (from, to) = (terms.begins_at.format("%FT%HZ"), terms.ends_at.format("%FT%HZ"));
    let text = format!(
        "{id}  {state:<10}  {}  {from} {to}  {} {}{currency}  {filters}  {note}",
        terms.campaign_id,
        terms.kind,
        terms.amount.normalize(),
    );
    format!("{}\n", text.trim_end())
}

async fn void(db: &Db, id: Uuid) -> anyhow::Result<ExitCode> {
    match costs::void(db, id, author().name).await? {
        Some(voided) => print(&line(&voided)),
        None => bail!("there is no adjustment {id}; see `octo cost list`"),
    }
}

/// Stores the lines of a file, each by itself; exit code 1 when one is refused.
async fn import(
    db: &Db,
    path: PathBuf,
    bytes: &[u8],
    currency: Option<String>,
    rejects: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines = file::read(&text, currency.as_deref()).map_err(anyhow::Error::msg)?;
    let originals: Vec<&str> = text.lines().collect();
    let (mut known, mut refused) = (HashMap::new(), Vec::new());
    let (total, mut progress) = (lines.len(), Progress::start());
    for (i, line) in lines.into_iter().enumerate() {
        match read(db, &mut known, &line.said).await? {
            Ok(terms) => {
                costs::insert(db, new_uuid(), terms, author()).await?;
            }
            Err(why) => refused.push((line.number, why)),
        }
        progress
            .show(|seconds| format!("{} of {total} lines, {} refused, {seconds} s", i + 1, refused.len()));
    }
    progress.end();
    if refused.is_empty() {
        eprintln!("{total} are stored");
        return Ok(ExitCode::SUCCESS);
    }
    for (number, why) in &refused {
        eprintln!("line {number}: {why}");
    }
    eprintln!("{} are stored, {} are refused", total - refused.len(), refused.len());
    let beside = || {
        let mut name = path.clone().into_os_string();
        name.push(".rejected");
        PathBuf::from(name)
    };
    if let Some(rejects) = rejects.or_else(|| (path != Path::new("-")).then(beside)) {
        let place = rejects.display();
        let mut out = fs::File::create(&rejects).with_context(|| format!("{place} cannot be written"))?;
        for (number, _) in &refused {
            writeln!(out, "{}", originals.get(number - 1).copied().unwrap_or_default())?;
        }
        eprintln!("the refused lines are in {place}");
    }
    Ok(ExitCode::FAILURE)
}
