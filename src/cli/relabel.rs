//! `octo relabel`: bots and data centres of stored clicks, judged once more by the lists of today.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    process::ExitCode,
};

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::{print, progress::Progress, with_db};
use crate::{
    app::open_enricher,
    config::Config,
    db::{
        Db,
        store::{
            campaigns,
            relabels::{self, Change, Stored},
        },
    },
    facts::click::Click,
    http::api::{costs::input, manners::request::parse_id},
    judge::{
        Judge,
        again::{self, Judged, judge_again},
    },
    model::id::ClickId,
    visitor::{Enricher, Signs},
};

/// Clicks that are read at a time, and changed in one transaction.
const PAGE: usize = 2000;

#[derive(Debug, Args)]
pub(super) struct Relabel {
    /// Clicks of this time or later: RFC 3339, or a day (UTC), such as 2026-11-01
    #[arg(long, value_name = "TIME")]
    from: String,
    /// And before this time, likewise; such a day is not in it any more
    #[arg(long, value_name = "TIME")]
    to: String,
    /// Only of the campaign with this id or key
    #[arg(long, value_name = "KEY")]
    campaign: Option<String>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON on stdout
    #[arg(long)]
    json: bool,
}

/// What was found and done.
#[derive(Debug, Default, Serialize)]
struct Found {
    is_dry_run: bool,
    clicks: u64,
    changed: u64,
    /// Too little was kept of who clicked: they stay as they are.
    cannot_be_judged: u64,
    /// Somebody else changed them meanwhile: they stay as they are.
    changed_meanwhile: u64,
    changes: Vec<Changes>,
}

/// Clicks that change in one way.
#[derive(Debug, Serialize)]
struct Changes {
    /// Why they did not count; null: they did.
    before: Option<String>,
    after: Option<String>,
    is_bot_before: bool,
    is_bot_after: bool,
    clicks: u64,
}

/// Labels of a click, before and after.
type Kind = (Option<String>, Option<String>, bool, bool);

/// What clicks are judged by.
struct Lists {
    enricher: Enricher,
    judge: Judge,
}

pub(super) fn run(asked: &Relabel, config: &Config) -> anyhow::Result<ExitCode> {
    let time = |name: &str, text: &str| {
        input::parse(text, Tz::UTC)
            .with_context(|| format!("--{name} is a time or a day, such as 2026-11-01"))
    };
    let range = (time("from", &asked.from)?, time("to", &asked.to)?);
    ensure!(range.0 < range.1, "--to must be after --from");
    let judge = Judge::open(config, None).context("tracking.datacenter_networks_file")?;
    if config.tracking.datacenter_networks_file.is_none() {
        eprintln!("tracking.datacenter_networks_file names no list: no address is one of a data centre");
    }
    let lists = Lists { enricher: open_enricher(&config.tracking)?, judge };
    with_db(config, async |db: Db| {
        let found = relabel(&db, asked, range, &lists).await;
        db.close();
        let found = found?;
        if asked.json {
            print(&(serde_json::to_string(&found)? + "\n"))?;
        } else {
            print(&text(&found))?;
        }
        Ok(ExitCode::from(u8::from(found.changed_meanwhile > 0)))
    })
}

async fn relabel(
    db: &Db,
    asked: &Relabel,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    lists: &Lists,
) -> anyhow::Result<Found> {
    let campaign_id = campaign_id(db, asked.campaign.as_deref()).await?;
    let hours = relabels::hours(db, campaign_id, from, to).await?;
    let total: i64 = hours.iter().map(|(_, clicks)| clicks).sum();
    let (mut found, mut kinds) = (Found { is_dry_run: asked.dry_run, ..Found::default() }, BTreeMap::new());
    let mut progress = Progress::start();
    for (hour, _) in hours {
        let range = (from.max(hour), to.min(hour + TimeDelta::hours(1)));
        let mut after = None;
        loop {
            let page = relabels::page(db, campaign_id, range, after, i64::try_from(PAGE)?).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|click| (click.created_at, click.id));
            found.clicks += page.len() as u64;
            let changes: Vec<Change> = page
                .into_iter()
                .filter_map(|click| match judged(&click, lists) {
                    Verdict::Same => None,
                    Verdict::Unknown => {
                        found.cannot_be_judged += 1;
                        None
                    }
                    Verdict::Changed { is_bot, reason, described } => {
                        Some(Change { was: click, is_bot, invalid_reason: reason, described })
                    }
                })
                .collect();
            found.apply(db, range, changes, &mut kinds).await?;
            progress.show(|seconds| {
                format!("{} of about {total} clicks, {} changed, {seconds} s", found.clicks, found.changed)
            });
            if is_last {
                break;
            }
        }
    }
    progress.end();
    found.changes = kinds
        .into_iter()
        .map(|((before, after, is_bot_before, is_bot_after), clicks)| Changes {
            before,
            after,
            is_bot_before,
            is_bot_after,
            clicks,
        })
        .collect();
    Ok(found)
}

async fn campaign_id(db: &Db, name: Option<&str>) -> anyhow::Result<Option<Uuid>> {
    let Some(name) = name else { return Ok(None) };
    if let Some(id) = parse_id(name) {
        return Ok(Some(id)); // one that is deleted has its clicks still
    }
    let campaign = campaigns::get_by_key(db, name).await?;
    Ok(Some(campaign.with_context(|| format!("there is no campaign {name}"))?.id))
}

impl Found {
    /// Makes the changes, unless they are only to be shown, and counts them.
    async fn apply(
        &mut self,
        db: &Db,
        range: (DateTime<Utc>, DateTime<Utc>),
        changes: Vec<Change>,
        kinds: &mut BTreeMap<Kind, u64>,
    ) -> anyhow::Result<()> {
        let mut done: Option<HashSet<Uuid>> = None;
        if !self.is_dry_run && !changes.is_empty() {
            done = Some(relabels::update(db, range, &changes).await?.into_iter().collect());
        }
        for change in changes {
            if done.as_ref().is_some_and(|done| !done.contains(&change.was.id)) {
                self.changed_meanwhile += 1;
                continue;
            }
            self.changed += 1;
            let kind = (change.was.invalid_reason, change.invalid_reason, change.was.is_bot, change.is_bot);
            *kinds.entry(kind).or_default() += 1;
        }
        Ok(())
    }
}

/// What becomes of a click.
enum Verdict {
    Same,
    Unknown,
    Changed { is_bot: bool, reason: Option<String>, described: Option<[Option<String>; 5]> },
}

fn judged(click: &Stored, lists: &Lists) -> Verdict {
    let stored = again::Stored {
        user_agent: click.user_agent.as_deref(),
        ip: click.ip.as_deref().and_then(|ip| ip.parse().ok()),
        is_bot: click.is_bot,
        reason: click.invalid_reason.as_deref(),
    };
    let visitor = |user_agent: &str| lists.enricher.describe(&Signs { user_agent, ..Signs::default() });
    match judge_again(stored, |agent| visitor(agent).is_bot, lists.judge.datacenters()) {
        Judged::Same => Verdict::Same,
        Judged::Unknown => Verdict::Unknown,
        Judged::Changed { is_bot, reason } => {
            // a bot is described as a bot, a person as the agent says
            let described = (is_bot != click.is_bot).then(|| {
                let mut described = Click::new(ClickId::now(), Uuid::nil());
                visitor(click.user_agent.as_deref().unwrap_or_default()).describe(&mut described);
                let Click { device, os, os_version, browser, browser_version, .. } = described;
                [device, os, os_version, browser, browser_version].map(|text| text.map(Into::into))
            });
            Verdict::Changed { is_bot, reason: reason.map(str::to_owned), described }
        }
    }
}

fn text(found: &Found) -> String {
    let mut out = String::new();
    let reason =
        |reason: &Option<String>| reason.as_deref().unwrap_or("valid").replace(char::is_control, " ");
    for changes in &found.changes {
        let label = match (changes.is_bot_before, changes.is_bot_after) {
            (false, true) => "  is_bot",
            (true, false) => "  no bot",
            _ => "",
        };
        let (before, after) = (reason(&changes.before), reason(&changes.after));
        let _ = writeln!(out, "{:>10}  {before} -> {after}{label}", changes.clicks); // into a text
    }
    let Found { clicks, changed, cannot_be_judged, changed_meanwhile, .. } = found;
    let verb = if found.is_dry_run { "would change" } else { "changed" };
    let _ = writeln!(out, "{clicks} clicks: {changed} {verb}, {cannot_be_judged} cannot be judged");
    if *changed_meanwhile > 0 {
        let _ = writeln!(out, "{changed_meanwhile} were changed by others meanwhile: run it again");
    }
    out
}
