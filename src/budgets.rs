//! How far the budgets of campaigns are spent. Worked out from the costs every `budgets.check_interval_ms`, on every node for
//! itself, and looked at from memory by clicks: a budget is soft, and may be passed by what clicks cost meanwhile.
//!
//! What is exhausted is kept in a file, so that it stays so over a start without PostgreSQL: a day's budget until the day is
//! over, that of all time until PostgreSQL says otherwise.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::{Decimal, prelude::ToPrimitive as _};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    campaigns::Campaigns,
    caps::window::Window,
    config::Config,
    db::{Db, Error, store::costs},
    metrics,
    model::{
        campaign::Campaign,
        hour::hour_of,
        money::{Currency, Money},
        rule::CapPer,
    },
    money::costs::{amount, work_out},
};

const SCHEMA: u32 = 1;

/// Working a budget out takes at most a tenth of the time: where clicks of filters are counted for it, it may take long.
const PAUSE_FACTOR: u32 = 9;

/// Which part of a budget is worth a warning.
const WARNED_FROM: f64 = 0.8;

/// How far a budget is spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Use {
    /// The budget.
    pub budget: Money,
    /// What was spent of it.
    pub spent: Decimal,
    /// From when; `None`: from ever.
    pub from: Option<DateTime<Utc>>,
    /// Until before this time; `None`: for ever.
    pub until: Option<DateTime<Utc>>,
}

/// How far the budgets of a campaign are spent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spent {
    /// That of a day.
    pub daily: Option<Use>,
    /// That of all time.
    pub total: Option<Use>,
    /// Currencies of costs that are none of the budgets', and are not added.
    pub others: BTreeSet<Currency>,
}

/// What budgets do at 80 and at 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Open,
    /// Tell.
    Warned,
    /// Send clicks elsewhere.
    Exhausted,
}

/// The budgets that are exhausted, each until a time or until further notice.
type Exhausted = HashMap<Uuid, Option<DateTime<Utc>>>;

/// What this process knows of budgets.
#[derive(Debug)]
pub struct Budgets {
    exhausted: ArcSwap<Exhausted>,
    file: PathBuf,
}

/// What was last worked out of a campaign's budgets.
#[derive(Debug, Clone, Copy)]
struct Checked {
    /// Of which version of the campaign.
    version: i64,
    /// Not worked out again before.
    next: Instant,
    state: State,
    until: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    schema: u32,
    exhausted: Exhausted,
}

impl Budgets {
    /// What an earlier start kept in its file. One that cannot be read is passed over.
    pub fn open(file: PathBuf) -> Self {
        let saved = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            bytes => Some(bytes.and_then(|bytes| Ok(serde_json::from_slice::<Saved>(&bytes)?))),
        };
        let exhausted = match saved {
            Some(Ok(saved)) if saved.schema == SCHEMA => saved.exhausted,
            None | Some(Ok(_)) => Exhausted::new(),
            Some(Err(error)) => {
                let path = file.display();
                tracing::warn!(%path, %error, "what was kept of budgets cannot be read; they are worked out again");
                Exhausted::new()
            }
        };
        Self { exhausted: ArcSwap::from_pointee(exhausted), file }
    }

    /// Whether a budget of the campaign is spent.
    pub fn is_exhausted(&self, campaign_id: Uuid, at: DateTime<Utc>) -> bool {
        self.exhausted.load().get(&campaign_id).is_some_and(|until| until.is_none_or(|until| at < until))
    }

    fn set(&self, exhausted: Exhausted) {
        if **self.exhausted.load() == exhausted {
            return;
        }
        self.exhausted.store(Arc::new(exhausted.clone()));
        if let Err(error) = save(&self.file, exhausted) {
            let path = self.file.display();
            tracing::warn!(%path, %error, "cannot keep what is spent of budgets in a file");
        }
    }

    /// Works budgets out until the stop signal.
    pub(crate) async fn run(
        self: Arc<Self>,
        campaigns: Arc<Campaigns>,
        db: Arc<Db>,
        config: Config,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (mut could, mut checked) = (true, HashMap::new());
        loop {
            let can = self.check(&mut checked, &campaigns, &db, &config).await;
            if can != could {
                could = can;
                if can {
                    tracing::info!("budgets are worked out again");
                } else {
                    tracing::warn!("budgets cannot be worked out; those that were spent stay so");
                }
            }
            let pause = tokio::time::sleep(config.budgets.check_interval);
            if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Works every budget out once, unless it was a moment ago; whether all could be.
    async fn check(
        &self,
        checked: &mut HashMap<Uuid, Checked>,
        campaigns: &Campaigns,
        db: &Db,
        config: &Config,
    ) -> bool {
        let before = self.exhausted.load_full();
        let was = std::mem::take(checked);
        let (mut exhausted, mut warned, mut could) = (Exhausted::new(), 0, true);
        for routes in campaigns.with_budgets() {
            let (campaign, now, begin) = (&routes.campaign, Utc::now(), Instant::now());
            let is_new = |was: &Checked| {
                let is_over = was.until.is_some_and(|until| until <= now);
                was.version == campaign.version && begin < was.next && !is_over
            };
            let known = was.get(&campaign.id).copied().filter(is_new);
            let working = async {
                if let Some(known) = known {
                    return Ok(known);
                }
                let spent = spent(db, config, campaign, now).await?;
                let next = Instant::now() + begin.elapsed() * PAUSE_FACTOR;
                Ok::<_, Error>(Checked {
                    version: campaign.version,
                    next,
                    state: spent.state(),
                    until: spent.until(),
                })
            };
            match working.await {
                Ok(new) => {
                    checked.insert(campaign.id, new);
                    match new.state {
                        State::Exhausted => {
                            exhausted.insert(campaign.id, new.until);
                        }
                        State::Warned => warned += 1,
                        State::Open => {}
                    }
                }
                Err(error) => {
                    tracing::debug!(campaign = %campaign.id, ?error, "a budget cannot be worked out");
                    could = false;
                    exhausted.extend(before.get(&campaign.id).map(|until| (campaign.id, *until)));
                }
            }
        }
        metrics::budgets(warned, exhausted.len());
        self.set(exhausted);
        could
    }
}

/// How far the budgets of a campaign are spent at a time: what clicks cost, and what no click bears, in the currency of the
/// budget.
pub async fn spent(db: &Db, config: &Config, campaign: &Campaign, at: DateTime<Utc>) -> Result<Spent, Error> {
    let terms = &campaign.terms;
    let mut spent = Spent::default();
    if !terms.has_budget() {
        return Ok(spent);
    }
    let (day, until) = Window::of(at, CapPer::Day, terms.time_zone).times();
    let day = day.unwrap_or(at);
    let end = until.unwrap_or(at + TimeDelta::days(1));
    let begin = if terms.total_budget.is_some() { DateTime::UNIX_EPOCH } else { hour_of(day) };
    let settled = at - config.costs.settle;
    let known =
        costs::known(db, campaign.id, (begin, hour_of(end)), settled, config.costs.count_timeout).await?;
    let hours = work_out(known).hours;
    let sum = |budget: Money, from: DateTime<Utc>| {
        let of = hours
            .iter()
            .filter(|((hour, currency), _)| *currency == Some(budget.currency) && (from..end).contains(hour));
        amount(of.map(|(_, figures)| figures.effective() + figures.unallocated).sum())
    };
    spent.daily =
        terms.daily_budget.map(|budget| Use { budget, spent: sum(budget, day), from: Some(day), until });
    spent.total = terms.total_budget.map(|budget| Use {
        budget,
        spent: sum(budget, DateTime::UNIX_EPOCH),
        from: None,
        until: None,
    });
    let budgets = [terms.daily_budget, terms.total_budget];
    let is_other = |currency: &Currency| budgets.iter().flatten().any(|budget| budget.currency != *currency);
    spent.others = hours.keys().filter_map(|(_, currency)| *currency).filter(is_other).collect();
    Ok(spent)
}

impl Use {
    /// The part that is spent; a budget of nothing is.
    pub fn ratio(&self) -> f64 {
        let part = self.spent.checked_div(self.budget.amount);
        part.map_or(1.0, |part| part.to_f64().unwrap_or(f64::MAX))
    }

    /// What it does.
    pub fn state(&self) -> State {
        match self.ratio() {
            ratio if ratio >= 1.0 => State::Exhausted,
            ratio if ratio >= WARNED_FROM => State::Warned,
            _ => State::Open,
        }
    }
}

impl Spent {
    /// What the budgets do together.
    pub fn state(&self) -> State {
        let mut states = [&self.daily, &self.total].into_iter().flatten().map(Use::state);
        let all: Vec<State> = states.by_ref().collect();
        [State::Exhausted, State::Warned].into_iter().find(|state| all.contains(state)).unwrap_or(State::Open)
    }

    /// Until when they are exhausted.
    fn until(&self) -> Option<DateTime<Utc>> {
        let is_total = self.total.is_some_and(|total| total.state() == State::Exhausted);
        self.daily.filter(|_| !is_total).and_then(|daily| daily.until)
    }
}

fn save(path: &std::path::Path, exhausted: Exhausted) -> io::Result<()> {
    let bytes = serde_json::to_vec(&Saved { schema: SCHEMA, exhausted })?;
    // beside, then renamed: a crash of octo leaves the old file or the new one
    let beside = path.with_extension("json.new");
    fs::File::create(&beside)?.write_all(&bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(spent: &str, budget: &str, until: Option<i64>) -> Use {
        let budget = Money { amount: budget.parse().unwrap(), currency: Currency::USD };
        let until = until.and_then(|s| DateTime::from_timestamp(s, 0));
        Use { budget, spent: spent.parse().unwrap(), from: None, until }
    }

    #[test]
    fn a_budget_warns_at_80_and_is_exhausted_at_100_percent() {
        for (spent, budget, wanted) in [
            ("7.99", "10", State::Open),
            ("8", "10", State::Warned),
            ("9.999999", "10", State::Warned),
            ("10", "10", State::Exhausted),
            ("0", "0", State::Exhausted),
        ] {
            assert_eq!(used(spent, budget, None).state(), wanted, "{spent} of {budget}");
        }
        let both = Spent {
            daily: Some(used("1", "1", Some(60))),
            total: Some(used("9", "10", None)),
            ..Spent::default()
        };
        assert_eq!((both.state(), both.until()), (State::Exhausted, DateTime::from_timestamp(60, 0)));
        let both = Spent { total: Some(used("10", "10", None)), ..both };
        assert_eq!(both.until(), None, "until there is more of it");
    }

    #[test]
    fn what_is_exhausted_stays_so_over_a_restart_until_its_day_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("budgets.json");
        let (a, b, at) = (Uuid::from_u128(1), Uuid::from_u128(2), Utc::now());
        Budgets::open(path.clone()).set([(a, Some(at)), (b, None)].into());
        let again = Budgets::open(path.clone());
        assert!(again.is_exhausted(a, at - TimeDelta::seconds(1)) && !again.is_exhausted(a, at));
        assert!(again.is_exhausted(b, at) && !again.is_exhausted(Uuid::from_u128(3), at));
        fs::write(&path, "no JSON").unwrap();
        assert!(!Budgets::open(path).is_exhausted(b, at));
    }
}
