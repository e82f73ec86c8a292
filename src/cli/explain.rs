//! `octo explain URL`: where a made-up visitor would go, and why the other rules and paths did not take him.

use std::{fmt::Write as _, net::IpAddr, process::ExitCode};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::Args;

use super::{print, with_db};
use crate::{
    app::open_enricher,
    campaigns::saved_campaign,
    config::Config,
    db::{Db, store::campaigns},
    explain::{Explained, MadeUp, explain_visitor},
    model::{
        campaign::Campaign,
        link::{Params, key_text},
    },
    routing::{
        Routes,
        explain::{ExplainedBranch, ExplainedCriterion, ExplainedPath, ExplainedRule, Outcome},
    },
};

#[derive(Debug, Args)]
pub(super) struct Visitor {
    /// The link he follows, such as /click?cid=demo&sub1=a or /c/demo, with or without its host
    #[arg(value_name = "URL")]
    url: String,
    /// The address he comes from
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// What his browser says of itself
    #[arg(long, value_name = "TEXT", default_value = "")]
    user_agent: String,
    /// The languages his browser asks for, such as de-DE,de;q=0.9
    #[arg(long, value_name = "LANGUAGES", default_value = "")]
    language: String,
    /// The page that led him here
    #[arg(long, value_name = "URL")]
    referrer: Option<String>,
    /// When he comes (RFC 3339); without it, now
    #[arg(long, value_name = "TIME")]
    at: Option<DateTime<Utc>>,
    /// Print JSON, as POST /api/v1/campaigns/{id}/explain answers
    #[arg(long)]
    json: bool,
}

pub(super) fn run(visitor: Visitor, config: &Config) -> anyhow::Result<ExitCode> {
    let (key, query) = parts(&visitor.url)?;
    let campaign = with_campaign(config, &key)?;
    let Some(campaign) = campaign else { bail!("there is no campaign with the key {key}") };
    let enricher = open_enricher(&config.tracking)?;
    let made_up = MadeUp {
        query,
        ip: visitor.ip,
        user_agent: visitor.user_agent,
        language: visitor.language,
        referrer: visitor.referrer,
        at: visitor.at,
        ..MadeUp::default()
    };
    let routes = Routes::new(campaign).context("the campaign is not served")?;
    let explained = explain_visitor(&routes, &enricher, &made_up, &|_| false, false);
    if visitor.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&explained)?));
    }
    print(&text(&explained))
}

/// The key and the query of a link.
fn parts(url: &str) -> anyhow::Result<(String, String)> {
    let after_host =
        url.split_once("://").map_or(url, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
    let (path, query) = after_host.split_once('?').unwrap_or((after_host, ""));
    let mut params = Params::default();
    if let Some(key) = path.strip_prefix("/c/") {
        params.read_key(key);
    }
    params.read(query);
    let key = params.cid.as_deref().map(key_text).unwrap_or_default();
    if key.is_empty() {
        bail!("the link names no campaign; it must have cid=KEY in its query, or be /c/KEY");
    }
    Ok((key.to_owned(), query.to_owned()))
}

/// The campaign as it is in Postgres, else as a running octo saved it last.
fn with_campaign(config: &Config, key: &str) -> anyhow::Result<Option<Campaign>> {
    let mut found = None;
    let asked = with_db(config, async |db: Db| {
        found = campaigns::get_by_key(&db, key).await?;
        Ok(ExitCode::SUCCESS)
    });
    let Err(error) = asked else { return Ok(found) };
    eprintln!("PostgreSQL cannot be asked ({error:#}); this is what octo saved last");
    saved_campaign(&config.server.data_dir, key).context("the saved campaigns cannot be read")
}

/// For people to read.
fn text(explained: &Explained) -> String {
    let mut out = String::new();
    let visitor = &explained.visitor;
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let with = |name: &Option<String>, version: &Option<String>| match (name, version) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (name, _) => or_unknown(name),
    };
    line(
        &mut out,
        0,
        &format!(
            "visitor  country {}, language {}, device {}, system {}, browser {}",
            or_unknown(&visitor.country),
            or_unknown(&visitor.language),
            visitor.device,
            with(&visitor.os, &visitor.os_version),
            with(&visitor.browser, &visitor.browser_version),
        ),
    );
    let decision = &explained.explanation.decision;
    let named = |what: &str, id: Option<i64>, name: &Option<String>| {
        id.map(|id| format!("{what} {} ({id})", name.as_deref().unwrap_or_default()))
    };
    let stops = [
        named("rule", decision.rule_id, &decision.rule),
        named("path", decision.path_id, &decision.path),
        named("landing page", decision.landing_page_id, &decision.landing_page),
        named("offer", decision.offer_id, &decision.offer),
    ];
    let mut went: Vec<String> = stops.into_iter().flatten().collect();
    if let Some(refused) = decision.refused {
        went.push(format!("not taken: {refused}"));
    }
    line(&mut out, 0, &format!("goes to  {}", went.join(" > ")));
    if !decision.routed.is_empty() {
        let why: Vec<String> = decision.routed.iter().map(ToString::to_string).collect();
        line(&mut out, 0, &format!("because  {}", why.join(", ")));
    }
    line(&mut out, 0, &format!("address  {}", explained.location.as_deref().unwrap_or("none: 404")));
    for rule in &explained.explanation.rules {
        add_rule(&mut out, rule);
    }
    line(&mut out, 0, "probabilities of visitors like this one");
    for way in &explained.explanation.ways {
        let part = |what: &str, id: Option<i64>| id.map(|id| format!("{what} {id}"));
        let parts = [
            part("path", way.path_id),
            part("landing page", way.landing_page_id),
            part("offer", way.offer_id),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let name = if parts.is_empty() { "the fallback, or nowhere".to_owned() } else { parts.join(" > ") };
        line(&mut out, 1, &format!("{:5.1} %  {name}", way.probability * 100.0));
    }
    line(
        &mut out,
        0,
        "Caps and budgets are not looked at here; POST /api/v1/campaigns/{id}/explain of a running octo does.",
    );
    out
}

fn line(out: &mut String, depth: usize, text: &str) {
    // writing to a text does not fail
    let _ = writeln!(out, "{:indent$}{text}", "", indent = depth * 2);
}

fn add_rule(out: &mut String, rule: &ExplainedRule) {
    let outcome = match rule.outcome {
        Outcome::Taken => "takes him",
        Outcome::NotMet => "does not hold",
        Outcome::NoPath => "holds, but none of its paths takes part",
        Outcome::Inactive => "is inactive",
        Outcome::NotReached => "is not reached",
    };
    line(out, 0, &format!("rule {} ({}) {outcome}", rule.name, rule.id));
    add_criteria(out, 1, &rule.when);
    for path in &rule.paths {
        add_path(out, path);
    }
}

fn add_criteria(out: &mut String, depth: usize, when: &[ExplainedCriterion]) {
    for criterion in when {
        let sign = if criterion.holds { "holds" } else { "fails" };
        let name = criterion.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
        let value = criterion.value.as_deref().unwrap_or("unknown");
        line(out, depth, &format!("{sign}  {}{name}: is {value}", criterion.dimension));
    }
}

fn add_path(out: &mut String, path: &ExplainedPath) {
    let note = match (path.takes_part, path.is_full) {
        (_, true) => "full",
        (false, _) => "takes no part",
        (true, false) => "",
    };
    line(out, 1, format!("path {} ({}) {:.1} % {note}", path.name, path.id, path.share * 100.0).trim_end());
    add_criteria(out, 2, &path.when);
    let branch = |out: &mut String, what: &str, branch: &ExplainedBranch| {
        let id = branch.id.map(|id| format!(" ({id})")).unwrap_or_default();
        let note = match (branch.is_active, branch.is_full) {
            (false, _) => "inactive",
            (_, true) => "full",
            _ => "",
        };
        line(out, 2, format!("{what} {}{id} {:.1} % {note}", branch.name, branch.share * 100.0).trim_end());
    };
    for page in &path.landing_pages {
        branch(out, "landing page", page);
    }
    for offer in &path.offers {
        branch(out, "offer", offer);
    }
}
