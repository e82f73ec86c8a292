//! Who sends: one task a node takes what is due, sends it, and notes what came of it.
//!
//! While answers are noted, others arrive; they are noted together with the next ones. What cannot be noted, because
//! PostgreSQL is away, is kept and counts as under way, so that nothing more is taken.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Attempt, Sender},
    message::{Ready, Story},
    schedule::{self, Answered, Next},
};
use crate::{
    config,
    db::{
        Db,
        store::{
            outbox::{self, Claimed, Finished, Noted, Request, Stats, Told},
            postback_targets::{self, Target},
        },
    },
    metrics,
    model::{
        conversion::Status,
        postback_target::{DeliveryReason, DeliveryState},
    },
};

/// Between two looks at what waits.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

/// What the rest of octo knows of postbacks.
#[derive(Debug)]
pub struct Postbacks {
    /// Sends requests.
    pub sender: Sender,
    stats: Mutex<Option<Stats>>,
}

impl Postbacks {
    /// With the client of this configuration.
    pub fn new(config: &config::Deliveries) -> reqwest::Result<Self> {
        Ok(Self { sender: Sender::new(config)?, stats: Mutex::default() })
    }

    /// What waits, as it was last seen; `None`: it was not looked at yet.
    pub fn stats(&self) -> Option<Stats> {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what is due.
pub struct Worker {
    db: Arc<Db>,
    config: Arc<config::Deliveries>,
    postbacks: Arc<Postbacks>,
    /// Requests under way.
    sending: JoinSet<Done>,
    /// Places at each host.
    hosts: HashMap<String, Arc<Semaphore>>,
    /// Targets by id, as they were last seen; `None`: the template makes no request.
    targets: HashMap<i64, Option<Arc<Ready>>>,
    /// The last target that had its turn.
    last_target: i64,
    /// What came of requests and is not noted yet.
    unsaved: Vec<Done>,
    looked_at: Option<Instant>,
}

/// What came of a delivery.
struct Done {
    target_id: i64,
    answered: Option<Answered>,
    next: Next,
    finished: Finished,
}

impl Worker {
    /// One that has nothing to do yet.
    pub fn new(db: Arc<Db>, config: config::Deliveries, postbacks: Arc<Postbacks>) -> Self {
        Self {
            db,
            config: Arc::new(config),
            postbacks,
            sending: JoinSet::new(),
            hosts: HashMap::new(),
            targets: HashMap::new(),
            last_target: 0,
            unsaved: Vec::new(),
            looked_at: None,
        }
    }

    /// Sends what is due until the stop signal, and then notes what is under way.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let taken = if stop.is_cancelled() { 0 } else { self.take().await };
            if stop.is_cancelled() && self.sending.is_empty() {
                self.save().await;
                return Ok(());
            }
            if taken == 0 || self.sending.len() + self.unsaved.len() >= self.config.concurrency_max {
                self.wait(&stop).await;
            }
            while let Some(done) = self.sending.try_join_next() {
                self.collect(done);
            }
            self.save().await;
            self.look().await;
        }
    }

    /// Takes what is due, as far as there are places, and sends it; says how many that were.
    async fn take(&mut self) -> usize {
        let under_way = self.sending.len() + self.unsaved.len();
        let room = self.config.concurrency_max.saturating_sub(under_way);
        if room == 0 {
            return 0;
        }
        let most = i64::try_from(self.config.targets_max).unwrap_or(i64::MAX);
        let due = match postback_targets::due(&self.db, self.last_target, most).await {
            Ok(due) => due,
            Err(error) => return self.away(&error),
        };
        self.last_target = due.last().map_or(0, |target| target.id);
        self.prepare(due);
        let places = self.places(room);
        if places.is_empty() {
            return 0;
        }
        match outbox::claim(&self.db, places, self.config.lease).await {
            Ok(claimed) => {
                let count = claimed.len();
                for delivery in claimed {
                    self.send(delivery);
                }
                count
            }
            Err(error) => self.away(&error),
        }
    }

    /// A Postgres that is away has its own lines in the log.
    #[expect(clippy::unused_self, reason = "reads as what happens to the worker")]
    fn away(&self, error: &crate::db::Error) -> usize {
        tracing::debug!(?error, "deliveries were not looked for");
        0
    }

    /// Keeps the targets of this round, with those that did not change as they are.
    fn prepare(&mut self, due: Vec<Target>) {
        let mut before = std::mem::take(&mut self.targets);
        for mut target in due {
            let age = Utc::now() - target.secret_changed_at;
            if age.to_std().is_ok_and(|age| age > self.config.secret_overlap) {
                target.previous_secret = None;
            }
            let id = target.id;
            let known = before.remove(&id).filter(|known| {
                let is_same = |known: &Target| {
                    known.version == target.version && known.previous_secret == target.previous_secret
                };
                known.as_ref().is_some_and(|known| is_same(&known.target))
            });
            let ready = known.unwrap_or_else(|| Ready::new(target).ok().map(Arc::new));
            self.targets.insert(id, ready);
        }
        let host_max = self.config.host_concurrency_max;
        self.hosts.retain(|_, places| places.available_permits() < host_max);
    }

    /// How many deliveries each target may have now: what its host has left is shared by its targets.
    fn places(&mut self, room: usize) -> Vec<(i64, usize)> {
        let mut of_hosts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (id, ready) in &self.targets {
            let host = ready.as_ref().map_or(String::new(), |ready| ready.host.clone());
            of_hosts.entry(host).or_default().push(*id);
        }
        // so that no host waits for ever behind others that are slow
        let mut of_hosts: Vec<_> = of_hosts.into_iter().collect();
        fastrand::shuffle(&mut of_hosts);
        let mut places = Vec::with_capacity(self.targets.len());
        let mut left = room;
        for (host, ids) in of_hosts {
            let mut at_host = self.host(&host).available_permits();
            let share = at_host.div_ceil(ids.len());
            for id in ids {
                let count = share.min(at_host).min(left);
                if count > 0 {
                    places.push((id, count));
                }
                at_host -= count;
                left -= count;
            }
        }
        places
    }

    fn host(&mut self, host: &str) -> Arc<Semaphore> {
        let most = self.config.host_concurrency_max;
        self.hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(most))).clone()
    }

    fn send(&mut self, delivery: Claimed) {
        let Some(ready) = self.targets.get(&delivery.target_id).cloned().flatten() else {
            self.unsaved.push(given_up(&delivery, DeliveryReason::Template));
            return;
        };
        if delivery.is_expired || !delivery.has_click {
            let reason = if delivery.is_expired { DeliveryReason::Expired } else { DeliveryReason::NoClick };
            self.unsaved.push(given_up(&delivery, reason));
            return;
        }
        let permit = self.host(&ready.host).try_acquire_owned().ok();
        let (postbacks, config) = (self.postbacks.clone(), self.config.clone());
        self.sending.spawn(deliver(postbacks, config, ready, delivery, permit));
    }

    /// Waits for an answer, or until it is time to look again.
    async fn wait(&mut self, stop: &CancellationToken) {
        let done = tokio::select! {
            Some(done) = self.sending.join_next() => done,
            () = sleep(self.config.poll_interval) => return,
            () = stop.cancelled(), if self.sending.is_empty() => return,
        };
        self.collect(done);
    }

    /// A send that panicked is as one that ended without a word: its lease ends.
    fn collect(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(done) => self.unsaved.push(done),
            Err(error) => tracing::error!(?error, "a delivery was not made"),
        }
    }

    /// Notes what came of requests.
    async fn save(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        let results = self.unsaved.iter().map(|done| done.finished.clone()).collect();
        if let Err(error) = outbox::finish(&self.db, results).await {
            self.away(&error);
            sleep(self.config.poll_interval).await;
            return;
        }
        let saved = std::mem::take(&mut self.unsaved);
        for done in &saved {
            metrics::delivery(done.outcome());
        }
        let told = told(&saved);
        let before: HashMap<i64, Told> = told.iter().copied().collect();
        match outbox::note_targets(&self.db, told, i32::from(self.config.pause_failures)).await {
            Ok(noted) => noted.iter().for_each(|noted| self.warn(noted, &before)),
            Err(error) => drop(self.away(&error)),
        }
    }

    /// Tells the owner of a target that fails.
    fn warn(&self, noted: &Noted, told: &HashMap<i64, Told>) {
        let Some(told) = told.get(&noted.id).filter(|told| told.failures > 0 || told.is_gone) else { return };
        let Noted { id: target, name, failures_in_a_row: failures, pause_reason } = noted;
        if let Some(reason) = pause_reason {
            tracing::error!(
                target,
                name,
                failures,
                reason,
                "a target of postbacks is paused; what waits for it is kept"
            );
            return;
        }
        let every = i32::from(self.config.warn_failures);
        let before = if told.has_success { 0 } else { failures - told.failures };
        if failures / every > before / every {
            tracing::warn!(target, name, failures, "postbacks to a target fail");
        }
    }

    /// Looks at what waits, once in a while.
    async fn look(&mut self) {
        if self.looked_at.is_some_and(|at| at.elapsed() < STATS_INTERVAL) {
            return;
        }
        self.looked_at = Some(Instant::now());
        if let Ok(stats) = outbox::stats(&self.db, i32::from(self.config.warn_failures)).await {
            metrics::deliveries_waiting(stats.pending, stats.oldest);
            metrics::postback_targets(stats.failing, stats.paused);
            *self.postbacks.stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        }
    }
}

impl Done {
    fn outcome(&self) -> &'static str {
        match self.next {
            Next::Delivered => "delivered",
            Next::Dead(_) => "dead",
            Next::Again(_) | Next::Hold(_) | Next::Gone => "failed",
        }
    }
}

/// Makes one delivery.
async fn deliver(
    postbacks: Arc<Postbacks>,
    config: Arc<config::Deliveries>,
    ready: Arc<Ready>,
    delivery: Claimed,
    _place: Option<OwnedSemaphorePermit>,
) -> Done {
    let Some(story) = story(&delivery) else { return given_up(&delivery, DeliveryReason::Template) };
    let message = ready.message(&story, Utc::now());
    let attempt = postbacks.sender.send(&ready, &message).await;
    let tries = usize::try_from(delivery.tries).unwrap_or(0);
    let next =
        schedule::next(&config.schedule, config.retry_after_max, tries, attempt.answered, fastrand::f64());
    done(&delivery, Some(attempt), next)
}

fn story(delivery: &Claimed) -> Option<Story> {
    let status: Status = delivery.change.parse().ok()?;
    Some(Story {
        delivery_id: delivery.id,
        conversion_id: delivery.conversion_id,
        campaign_id: delivery.campaign_id,
        click_id: delivery.click_id,
        click_at: delivery.created_at,
        status,
        goal: delivery.goal.clone(),
        kind: delivery.kind.clone(),
        payout: delivery.payout,
        currency: delivery.currency.clone(),
        txid: delivery.txid.clone(),
        changed_at: delivery.changed_at,
        click: delivery.click.clone(),
    })
}

/// Without a request.
fn given_up(delivery: &Claimed, reason: DeliveryReason) -> Done {
    done(delivery, None, Next::Dead(reason))
}

fn done(delivery: &Claimed, attempt: Option<Attempt>, next: Next) -> Done {
    let (state, reason, wait) = match next {
        Next::Delivered => (DeliveryState::Delivered, None, Duration::ZERO),
        Next::Again(wait) | Next::Hold(wait) => (DeliveryState::Pending, None, wait),
        Next::Gone => (DeliveryState::Pending, None, Duration::ZERO),
        Next::Dead(reason) => (DeliveryState::Dead, Some(<&str>::from(reason)), Duration::ZERO),
    };
    let answered = attempt.as_ref().map(|attempt| attempt.answered);
    let request = attempt.map(|attempt| Request {
        at: attempt.at,
        method: attempt.method.into(),
        url: attempt.url,
        status: attempt.status,
        answer: attempt.answer,
        took: attempt.took,
        error: attempt.error,
    });
    let finished = Finished {
        id: delivery.id,
        campaign_id: delivery.campaign_id,
        created_at: delivery.created_at,
        n: delivery.attempts,
        state: state.into(),
        reason,
        wait,
        begins_anew: next == Next::Gone,
        request,
    };
    Done { target_id: delivery.target_id, answered, next, finished }
}

/// What these say of their targets, in the order they came. A request for quiet is no failure.
fn told(saved: &[Done]) -> Vec<(i64, Told)> {
    let mut targets: BTreeMap<i64, Told> = BTreeMap::new();
    for done in saved {
        let Some(answered) = done.answered else { continue };
        let told = targets.entry(done.target_id).or_default();
        match (answered, done.next) {
            (Answered::Success, _) => *told = Told { has_success: true, failures: 0, ..*told },
            (_, Next::Hold(wait)) => told.hold = told.hold.max(Some(wait)),
            (_, next) => {
                told.failures += 1;
                told.is_gone |= next == Next::Gone;
            }
        }
    }
    targets.into_iter().collect()
}
