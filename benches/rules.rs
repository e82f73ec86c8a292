//! What rules cost: decisions of campaigns with none, some and as many as there may be, whole clicks of them, and a start
//! with 100,000 campaigns that have rules.
//!
//! `cargo bench --bench rules`, or one of them: `cargo bench --bench rules -- decide|start`.
//!
//! - **decide**: nanoseconds of CPU for a decision and for a whole click without sockets and disk, seven rounds one after the
//!   other; the medians. `one offer` has no rules; `20 rules, 50 paths` are met by the last rule; `64 x 32 x 256` is the
//!   largest campaign that can be saved, of which every criterion but the last of each rule holds.
//! - **start**: an octo without any store reads 100,000 campaigns of 2 rules and 3 paths from disk: the time until it says that
//!   it is ready, and its memory, beside as many with one offer. Offers of the first two have the same URL, as those of a
//!   library do; of the third each has its own.

use std::{
    env, fs,
    hint::black_box,
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use octo::{
    campaigns::CampaignV1,
    facts::click::Click,
    model::{
        campaign::{Campaign, Destination, Terms},
        id::ClickId,
        link::Params,
        rule::{Criterion, Dimension, Path, Rule, Test},
    },
    routing::{self, Routes, Visit, destination::Known},
    visitor::{Enricher, Files, Signs},
};
use serde::Serialize;

mod support;

use support::{USER_AGENT, median};

const ROUNDS: usize = 7;
const DECISIONS: u32 = 2_000;
const CAMPAIGNS: usize = 100_000;
const QUERY: &str = "cid=demo&sub1=ad-1234&sub2=creative%207&click_id=src-000000001234&utm_source=mail";
const OFFER: &str = "https://offer.example/lp?cid={click_id}&s={sub1}&c={country}#top";

fn main() -> anyhow::Result<()> {
    support::print_load();
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if is_wanted("decide") {
        decide();
    }
    if is_wanted("start") {
        start()?;
    }
    Ok(())
}

fn offer(id: usize) -> Destination {
    let id = i64::try_from(id).unwrap_or_default() + 1;
    Destination { id: Some(id), name: format!("offer {id}"), url: OFFER.to_owned(), ..Destination::default() }
}

fn path(id: usize, offers: usize) -> Path {
    Path {
        id: i64::try_from(id + 1).ok(),
        name: format!("path {id}"),
        offers: (0..offers).map(|nth| offer(id * 100 + nth)).collect(),
        ..Path::default()
    }
}

fn criterion(dimension: Dimension, values: impl IntoIterator<Item = String>) -> Criterion {
    let name = (dimension == Dimension::Parameter).then(|| "utm_source".to_owned());
    Criterion { dimension, name, test: Test::Is(values.into_iter().collect()) }
}

fn campaign(rules: Vec<Rule>) -> Campaign {
    let terms = Terms {
        name: "demo".to_owned(),
        offers: vec![offer(0)],
        rules,
        pass_through: true,
        ..Terms::default()
    };
    Campaign::of("demo".parse().expect("a key"), terms)
}

/// As many rules, of which only the last holds, with 2 criteria each, and so many paths in all.
fn some(rules: usize, paths: usize) -> Campaign {
    let rule = |nth: usize| {
        let is_last = nth + 1 == rules;
        let country = if is_last { "US" } else { "DE" };
        Rule {
            id: i64::try_from(nth + 1).ok(),
            name: format!("rule {nth}"),
            when: vec![
                criterion(Dimension::Device, ["mobile".to_owned(), "desktop".to_owned()]),
                criterion(Dimension::Country, [country.to_owned()]),
            ],
            paths: (nth * paths / rules..(nth + 1) * paths / rules).map(|id| path(id, 2)).collect(),
            ..Rule::default()
        }
    };
    campaign((0..rules).map(rule).collect())
}

/// The largest campaign that can be saved: every criterion has 256 values, and the last one of each rule does not hold.
fn largest() -> Campaign {
    let codes = || {
        let letters = || (b'A'..=b'Z').map(char::from);
        letters().flat_map(move |a| letters().map(move |b| format!("{a}{b}")))
    };
    let rule = |nth: usize| {
        let holds = |i: usize| match i % 3 {
            0 => {
                criterion(Dimension::Parameter, (0..255).map(|v| format!("v{v}")).chain(["mail".to_owned()]))
            }
            1 => criterion(
                Dimension::Country,
                codes().filter(|code| code != "US" && code != "ZZ").take(255).chain(["US".to_owned()]),
            ),
            _ => {
                criterion(Dimension::Source, (0..255).map(|v| format!("s{v}")).chain(["unknown".to_owned()]))
            }
        };
        let fails = criterion(Dimension::Parameter, (0..256).map(|v| format!("w{v}")));
        Rule {
            id: i64::try_from(nth + 1).ok(),
            name: format!("rule {nth}"),
            when: (0..31).map(holds).chain([fails]).collect(),
            paths: (0..64).map(|id| path(nth * 64 + id, 1)).collect(),
            ..Rule::default()
        }
    };
    campaign((0..64).map(rule).collect())
}

fn decide() {
    let enricher = Enricher::open(&Files::default()).expect("the built-in data");
    let sides = [
        ("one offer", Routes::new(campaign(Vec::new())).expect("valid")),
        ("20 rules, 50 paths", Routes::new(some(20, 50)).expect("valid")),
        ("64 x 32 x 256", Routes::new(largest()).expect("valid")),
    ];
    let mut decisions = vec![Vec::new(); sides.len()];
    let mut clicks = vec![Vec::new(); sides.len()];
    for _ in 0..ROUNDS {
        for (i, (_, routes)) in sides.iter().enumerate() {
            decisions[i].push(nanoseconds(|| {
                let params = Params::parse(QUERY);
                let visitor = enricher.describe(&signs());
                let began = Instant::now();
                for _ in 0..DECISIONS {
                    let id = ClickId::now();
                    let visit = Visit::new(&params, &visitor, id.created_at(), id.seed());
                    black_box(routing::decide(routes, black_box(&visit)));
                }
                (began.elapsed(), DECISIONS)
            }));
            clicks[i].push(nanoseconds(|| {
                let began = Instant::now();
                for _ in 0..DECISIONS {
                    black_box(whole(&enricher, routes));
                }
                (began.elapsed(), DECISIONS)
            }));
        }
    }
    println!("{:20} {:>12} {:>12} {:>8}", "", "decide, us", "whole, us", "ratio");
    let base = median(clicks[0].clone());
    for (i, (name, _)) in sides.iter().enumerate() {
        let (decision, click) = (median(decisions[i].clone()), median(clicks[i].clone()));
        println!("{name:20} {:>12.3} {:>12.3} {:>8.3}", decision / 1e3, click / 1e3, click / base);
    }
}

fn nanoseconds(run: impl Fn() -> (Duration, u32)) -> f64 {
    let (time, count) = run();
    time.as_secs_f64() * 1e9 / f64::from(count)
}

fn signs() -> Signs<'static> {
    let ip: IpAddr = [8, 8, 8, 8].into();
    Signs { user_agent: USER_AGENT, accept_language: "de-DE,de;q=0.9", ip: Some(ip), ..Signs::default() }
}

/// One click from its query string to its destination and its bytes for the journal.
fn whole(enricher: &Enricher, routes: &Routes) -> (String, Vec<u8>) {
    let mut params = Params::parse(QUERY);
    let id = ClickId::now();
    let visitor = enricher.describe(&signs());
    let visit = Visit::new(&params, &visitor, id.created_at(), id.seed());
    let decision = routing::decide(routes, &visit);
    let unknown = std::mem::take(&mut params.unknown);
    let mut click = Click::of_link(id, routes.campaign.id, params);
    visitor.describe(&mut click);
    click.landing_page_id = decision.landing_page_id();
    click.campaign_offer_id = decision.offer_id();
    (click.rule_id, click.path_id, click.routed) = (decision.rule_id, decision.path_id(), decision.routed);
    let values = routes.values(&decision, Known::Click(&click));
    let location = decision.template.expect("there is an offer").expand(&values, &unknown);
    let mut bytes = Vec::with_capacity(512);
    click.encode(&mut bytes);
    (location, bytes)
}

/// The file as octo writes it.
#[derive(Serialize)]
struct Saved {
    schema: u32,
    campaigns: Vec<CampaignV1>,
}

fn start() -> anyhow::Result<()> {
    println!("{:20} {:>10} {:>12} {:>12} {:>12}", "", "file, MB", "ready, s", "CPU, s", "memory, MB");
    let sides = [("one offer", 0, false), ("2 rules, 3 paths", 2, false), ("each URL another", 2, true)];
    for (name, rules, each_another) in sides {
        let dir = tempfile::tempdir()?;
        let saved = |nth: usize| {
            let mut campaign = if rules == 0 { campaign(Vec::new()) } else { some(rules, 3) };
            if each_another {
                let Terms { offers, rules, .. } = &mut campaign.terms;
                let of_paths = rules.iter_mut().flat_map(|rule| &mut rule.paths).flat_map(|p| &mut p.offers);
                for (i, offer) in offers.iter_mut().chain(of_paths).enumerate() {
                    offer.url = OFFER.replace("/lp", &format!("/{nth}/{i}"));
                }
            }
            let key = format!("k{nth}").parse().expect("a key");
            CampaignV1::from(Campaign { key, ..campaign })
        };
        let campaigns = (0..CAMPAIGNS).map(saved).collect();
        let file = dir.path().join("campaigns.json");
        fs::write(&file, serde_json::to_vec(&Saved { schema: 1, campaigns })?)?;
        let megabytes = |bytes: u64| bytes / 1_000_000;
        let size = megabytes(fs::metadata(&file)?.len());
        let mut times = Vec::new();
        let mut cpu = Vec::new();
        let mut memory = Vec::new();
        for _ in 0..3 {
            let (time, ticks, kilobytes) = start_once(dir.path())?;
            times.push(time.as_secs_f64());
            cpu.push(f64::from(ticks) / 100.0);
            memory.push(f64::from(kilobytes) / 1e3);
        }
        let (time, cpu, memory) = (median(times), median(cpu), median(memory));
        println!("{name:20} {size:>10} {time:>12.2} {cpu:>12.2} {memory:>12.0}");
    }
    Ok(())
}

/// Starts an octo whose stores are away, waits until it is ready, and ends it; its CPU, in hundredths of a second, and
/// its memory are those of the process then.
fn start_once(dir: &std::path::Path) -> anyhow::Result<(Duration, u32, u32)> {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_octo"))
        .args(["--data-dir".as_ref(), dir.as_os_str()])
        .args(["--listen", "127.0.0.1:0"])
        .env("OCTO_DATABASE__URL", "postgres://nobody@127.0.0.1:9/none")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let lines = BufReader::new(child.stderr.take().context("its messages")?).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains("is ready after"));
    let time = began.elapsed();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    child.kill()?;
    child.wait()?;
    anyhow::ensure!(ready, "octo did not say that it is ready");
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its memory")?;
    // behind the name, which may hold spaces: user and system time are the 12th and 13th
    let fields = stat.rsplit_once(')').context("its CPU")?.1.split_whitespace().skip(11).take(2);
    let ticks = fields.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok((time, ticks, memory.trim().trim_end_matches(" kB").parse()?))
}
