//! What octo does at its edges: PostgreSQL frozen, a million records waiting for it, 100,000 campaigns.
//!
//! `cargo bench --bench edges`, or one of them: `cargo bench --bench edges -- frozen|waiting|campaigns`.
//!
//! - **frozen**: 256 connections for 10 s while PostgreSQL and all its backends are stopped (SIGSTOP), against
//!   10 s while it works. Not one answer may be anything but a redirect.
//! - **waiting**: the memory of octo while 1,000,000 clicks pile up in the journal of a stopped PostgreSQL, and
//!   while they are drained.
//! - **campaigns**: links of one campaign in an octo that has one, against links spread evenly over 100,000 in an
//!   octo that has those; with PostgreSQL frozen, which shows the redirects alone, and with the drain running, for
//!   which each click of 100,000 campaigns is a roll-up row of its own.
//!
//! Three rounds each, one side after the other; the medians are compared.

use std::{env, time::Duration};

use anyhow::ensure;
use sqlx::{Connection as _, PgConnection};

#[path = "../tests/it"]
mod it {
    pub(crate) mod harness; // an inline module with a path, so that the harness finds its own files
}
mod load;
mod support;

use it::harness::{Octo, PrivatePostgres};
use load::Load;
use support::{INSERT_CAMPAIGNS, median, percentile_ms};

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 256;
const FROZEN: Duration = Duration::from_secs(10);
const WAITING: usize = 1_000_000;
const CAMPAIGNS: usize = 100_000;
const RUN: Duration = Duration::from_secs(6);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    support::print_load();
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if is_wanted("frozen") {
        frozen().await?;
    }
    if is_wanted("waiting") {
        waiting().await?;
    }
    if is_wanted("campaigns") {
        campaigns().await?;
    }
    Ok(())
}

/// An octo with its database and some campaigns.
struct Tracker {
    octo: Octo,
    admin: PgConnection,
    postgres: PrivatePostgres,
    campaigns: usize,
    answered: i64,
}

impl Tracker {
    async fn start(campaigns: usize) -> anyhow::Result<Self> {
        let postgres = PrivatePostgres::start().await;
        it::harness::migrate(&postgres.url()).await;
        let mut admin = PgConnection::connect(&postgres.admin_url()).await?;
        sqlx::query(INSERT_CAMPAIGNS).bind(i32::try_from(campaigns)?).execute(&mut admin).await?;
        let octo = Octo::builder().database_url(postgres.url()).start().await;
        let mut tracker = Self { octo, admin, postgres, campaigns, answered: 0 };
        tracker.ask(RUN / 4).await?; // warms caches
        tracker.wait_stored().await?;
        Ok(tracker)
    }

    /// The microseconds of each answer, sorted.
    async fn ask(&mut self, run: Duration) -> anyhow::Result<Vec<u32>> {
        let load = Load { address: self.octo.addr(), connections: CONNECTIONS, campaigns: self.campaigns };
        let waits = load.run(run).await?;
        self.answered += i64::try_from(waits.len())?;
        Ok(waits)
    }

    async fn wait_stored(&mut self) -> anyhow::Result<()> {
        load::wait_stored(&mut self.admin, self.answered).await
    }
}

async fn frozen() -> anyhow::Result<()> {
    println!("\nfrozen: p99 in ms of {CONNECTIONS} connections for {} s", FROZEN.as_secs());
    println!("round  healthy  frozen   requests/s healthy  frozen");
    let mut tracker = Tracker::start(1).await?;
    let (mut healthy, mut frozen) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let waits = tracker.ask(FROZEN).await?;
        tracker.wait_stored().await?;
        tracker.postgres.sigstop();
        let waits_frozen = tracker.ask(FROZEN).await;
        tracker.postgres.sigcont(); // before an error ends this
        let waits_frozen = waits_frozen?;
        tracker.wait_stored().await?;
        healthy.push(percentile_ms(&waits, 99));
        frozen.push(percentile_ms(&waits_frozen, 99));
        let per_second = |waits: &[u32]| waits.len() as f64 / FROZEN.as_secs_f64();
        println!(
            "{round:>5} {:>8.2} {:>7.2} {:>20.0} {:>7.0}",
            healthy[round - 1],
            frozen[round - 1],
            per_second(&waits),
            per_second(&waits_frozen)
        );
    }
    let ratio = median(frozen) / median(healthy);
    println!("p99 frozen to healthy: {ratio:.2} (goal: 1.2); no answer but redirects, every click stored");
    Ok(())
}

async fn waiting() -> anyhow::Result<()> {
    println!("\nwaiting: resident memory of octo in MB");
    let mut tracker = Tracker::start(1).await?;
    let pid = tracker.octo.pid();
    println!("{:>9} waiting {:>7.1}", 0, support::resident_mb(pid));
    tracker.postgres.sigstop();
    let before = tracker.answered;
    let mut peak: f64 = 0.0;
    while tracker.answered - before < i64::try_from(WAITING)? {
        let asked = tracker.ask(RUN).await;
        if let Err(error) = asked {
            tracker.postgres.sigcont();
            return Err(error);
        }
        let resident = support::resident_mb(pid);
        peak = peak.max(resident);
        println!("{:>9} waiting {resident:>7.1}", tracker.answered - before);
    }
    support::forget_peak(pid);
    tracker.postgres.sigcont();
    tracker.wait_stored().await?;
    let draining = support::peak_mb(pid);
    println!(
        "{:>9} drained {:>7.1}, peak on the way {draining:.1}",
        tracker.answered - before,
        support::resident_mb(pid)
    );
    println!("most: {:.1} MB (goal: 200)", peak.max(draining));
    Ok(())
}

async fn campaigns() -> anyhow::Result<()> {
    println!("\ncampaigns: requests/s of {CONNECTIONS} connections, CPU in ms per 1,000");
    let (mut one, mut many) = (Tracker::start(1).await?, Tracker::start(CAMPAIGNS).await?);
    for is_frozen in [true, false] {
        println!("{}", if is_frozen { "redirects alone (PostgreSQL frozen)" } else { "with the drain" });
        println!("round  campaigns  requests/s   octo  PostgreSQL");
        let (mut of_one, mut of_many) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            of_one.push(one.speed(is_frozen, round).await?);
            of_many.push(many.speed(is_frozen, round).await?);
        }
        let medians = |of: Vec<(f64, f64)>| {
            let (speed, cpu) = of.into_iter().unzip();
            (median(speed), median(cpu))
        };
        let ((speed, cpu), (speed_many, cpu_many)) = (medians(of_one), medians(of_many));
        println!(
            "{CAMPAIGNS} campaigns to one: {:.3} of the requests/s (goal: 0.95), {:.2} times octo's CPU",
            speed_many / speed,
            cpu_many / cpu
        );
    }
    Ok(())
}

impl Tracker {
    /// Requests/s, and octo's CPU milliseconds per 1,000.
    async fn speed(&mut self, is_frozen: bool, round: usize) -> anyhow::Result<(f64, f64)> {
        let cpu = self.cpu();
        if is_frozen {
            self.postgres.sigstop();
        }
        let asked = self.ask(RUN).await;
        let mut cpu_end = self.cpu();
        self.postgres.sigcont(); // before an error ends this
        let count = asked?.len() as f64;
        self.wait_stored().await?;
        if !is_frozen {
            cpu_end = self.cpu();
        }
        ensure!(count > 0.0, "nothing was answered");
        let per_1000 = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / count;
        let (speed, octo) = (count / RUN.as_secs_f64(), per_1000(cpu.0, cpu_end.0));
        let postgres = per_1000(cpu.1, cpu_end.1);
        println!("{round:>5} {:>10} {speed:>11.0} {octo:>6.1} {postgres:>11.1}", self.campaigns);
        Ok((speed, octo))
    }

    /// Of octo and of PostgreSQL.
    fn cpu(&self) -> (Duration, Duration) {
        (support::cpu_of(self.octo.pid()), support::cpu_of_tree(self.postgres.pid()))
    }
}
