//! What reports cost the primary, with and without a replica, while clicks are stored.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::NaiveDate;
use chrono_tz::Tz;
use reqwest::StatusCode;
use tokio::{task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

use crate::{
    filled,
    it::harness::{
        Octo, PrivatePostgres,
        traffic::{DAYS, REPORTS},
    },
    support::{self, median},
};

const ROUNDS: usize = 3;
const WARM_UP: Duration = Duration::from_secs(2);
const RUN: Duration = Duration::from_secs(8);
const CLICKS_PER_SECOND: u32 = 500;
const ZONES: [Tz; 2] = [Tz::UTC, Tz::Europe__Berlin];

/// An octo that takes clicks, and reports too or not.
struct Side<'a> {
    name: &'static str,
    octo: &'a Octo,
    token: &'a str,
    is_asked: bool,
}

struct Servers {
    primary: PrivatePostgres,
    replica: PrivatePostgres,
    /// The day behind the last.
    end: NaiveDate,
}

/// What one side did in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    clicks: f64,
    reports: f64,
    /// CPU milliseconds in a second.
    primary: f64,
    replica: f64,
    octo: f64,
}

pub(crate) async fn compare() -> anyhow::Result<()> {
    let (primary, end) = filled().await?;
    let replica = primary.replica(None).await;
    let servers = Servers { primary, replica, end };
    let url = servers.primary.url();
    let alone = Octo::builder().database_url(&url).start().await;
    let with = Octo::builder().database_url(&url).env("OCTO_DATABASE__REPLICA_URLS", servers.replica.url());
    let with = with.start().await;
    alone.create_campaign("clicked", "https://offer.example/").await;
    let tokens = [alone.admin_token().await, with.admin_token().await];
    let sides = [
        Side { name: "clicks alone", octo: &alone, token: &tokens[0], is_asked: false },
        Side { name: "and reports, no replica", octo: &alone, token: &tokens[0], is_asked: true },
        Side { name: "and reports, one replica", octo: &with, token: &tokens[1], is_asked: true },
    ];
    println!(
        "{:>5}  {:<26} {:>9} {:>9} | CPU ms a second: {:>8} {:>8} {:>8}",
        "round", "", "clicks/s", "reports/s", "primary", "replica", "octo"
    );
    let mut rounds = [const { Vec::new() }; 3];
    for side in &sides {
        servers.run(side, WARM_UP).await?;
    }
    for round in 1..=ROUNDS {
        for (side, figures) in sides.iter().zip(&mut rounds) {
            figures.push(print(&round.to_string(), side.name, servers.run(side, RUN).await?));
        }
    }
    let mut medians =
        sides.iter().zip(&rounds).map(|(side, rounds)| print("med.", side.name, medians(rounds)));
    let clicks = medians.next().expect("three sides");
    for figures in medians {
        let of_reports = |all: f64, of_clicks: f64| (all - of_clicks) / figures.reports;
        let primary = of_reports(figures.primary, clicks.primary);
        let replica = of_reports(figures.replica, clicks.replica);
        println!(
            "a report costs the primary {primary:.1} ms of CPU and the replica {replica:.1}: the primary's share is {:.0} %",
            100.0 * primary / (primary + replica)
        );
    }
    Ok(())
}

impl Servers {
    async fn run(&self, side: &Side<'_>, time: Duration) -> anyhow::Result<Figures> {
        let cpu = || {
            [self.primary.pid(), self.replica.pid()]
                .map(support::cpu_of_tree)
                .map(|cpu| cpu.as_secs_f64())
                .into_iter()
                .chain([support::cpu_of(side.octo.pid()).as_secs_f64()])
                .collect::<Vec<_>>()
        };
        let stop = CancellationToken::new();
        let mut clicking = JoinSet::new();
        clicking.spawn(click(side.octo.client(), side.octo.url("/click?cid=clicked"), stop.clone()));
        let (before, start) = (cpu(), Instant::now());
        let mut reports = 0u32;
        if side.is_asked {
            let client = side.octo.client();
            let questions =
                REPORTS.iter().flat_map(|asked| ZONES.map(|tz| asked.question(self.end, DAYS, tz)));
            for question in questions.cycle() {
                let request =
                    client.post(side.octo.url("/api/v1/reports")).bearer_auth(side.token).json(&question);
                request.send().await?.error_for_status()?.bytes().await?;
                reports += 1;
                if start.elapsed() >= time {
                    break;
                }
            }
        } else {
            tokio::time::sleep(time).await;
        }
        let (after, took) = (cpu(), start.elapsed().as_secs_f64());
        stop.cancel();
        let clicks = clicking.join_next().await.context("it clicks until it is told to stop")???;
        let a_second = |i: usize| 1e3 * (after[i] - before[i]) / took;
        Ok(Figures {
            clicks: f64::from(clicks) / took,
            reports: f64::from(reports) / took,
            primary: a_second(0),
            replica: a_second(1),
            octo: a_second(2),
        })
    }
}

/// Clicks as fast as said, whatever becomes of the ones before; how many were answered.
async fn click(client: reqwest::Client, url: String, stop: CancellationToken) -> anyhow::Result<u32> {
    let mut due = interval(Duration::from_secs(1) / CLICKS_PER_SECOND);
    let mut answers = JoinSet::new();
    let mut clicks = 0;
    while stop.run_until_cancelled(due.tick()).await.is_some() {
        answers.spawn(client.get(&url).send());
        while let Some(answer) = answers.try_join_next() {
            let status = answer??.status();
            anyhow::ensure!(status == StatusCode::FOUND, "{status}");
            clicks += 1;
        }
    }
    Ok(clicks)
}

fn medians(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
    Figures {
        clicks: of(|f| f.clicks),
        reports: of(|f| f.reports),
        primary: of(|f| f.primary),
        replica: of(|f| f.replica),
        octo: of(|f| f.octo),
    }
}

fn print(round: &str, side: &str, figures: Figures) -> Figures {
    let Figures { clicks, reports, primary, replica, octo } = figures;
    println!(
        "{round:>5}  {side:<26} {clicks:>9.0} {reports:>9.1} |                  {primary:>8.0} {replica:>8.0} {octo:>8.0}"
    );
    figures
}
