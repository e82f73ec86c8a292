//! The campaign of a key: from memory, else from Redis, else from Postgres.
//!
//! Keys that are not in memory can be made up by strangers without end, so what is asked of Redis and Postgres for them
//! is bounded, for everybody together and for one request.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, middleware::NoOpMiddleware, nanos::Nanos, state::InMemoryState, state::NotKeyed,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use uuid::Uuid;

use super::{
    Campaigns,
    set::compile,
    shared::{Filler, Found},
    to_the_end,
};
use crate::{
    config, db,
    limits::SystemClock,
    metrics::{
        self,
        CacheLayer::{Database, Process},
        CacheOutcome,
    },
    model::{campaign::Campaign, id::CampaignKey},
    routing::Routes,
};

/// After Postgres failed a look-up, how long it is not asked for further keys, in milliseconds.
const PAUSE_AFTER_FAILURE_MS: u64 = 1000;

/// What is known of a key.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// The campaign.
    Found(Arc<Routes>),
    /// There is no such campaign.
    Unknown,
    /// It is not in memory and the stores did not answer in time.
    Unavailable,
}

/// Why a key has no answer.
#[derive(Debug, Clone, Copy)]
enum NotLoaded {
    /// Too many keys are looked up.
    Refused,
    /// The stores did not answer in time.
    Failed,
}

impl Campaigns {
    /// The campaign of a key, from memory; only a key that is not there is looked up, with a deadline.
    pub async fn get(self: &Arc<Self>, key: &CampaignKey) -> Lookup {
        match self.in_memory(key.as_str()) {
            Some(routes) => Lookup::Found(routes),
            None => self.look_up(key).await,
        }
    }

    /// The campaign of a key, if it is in memory.
    pub fn in_memory(&self, key: &str) -> Option<Arc<Routes>> {
        let routes = self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.get(key).cloned();
        if routes.is_some() {
            let is_stale = self.is_stale.load(Ordering::Relaxed);
            metrics::cache_request(Process, if is_stale { CacheOutcome::Stale } else { CacheOutcome::Hit });
        }
        routes
    }

    /// A campaign by its id, if it is in memory.
    pub fn in_memory_by_id(&self, id: Uuid) -> Option<Arc<Routes>> {
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        let routes = set.by_id(id).cloned();
        drop(set);
        if routes.is_some() {
            let is_stale = self.is_stale.load(Ordering::Relaxed);
            metrics::cache_request(Process, if is_stale { CacheOutcome::Stale } else { CacheOutcome::Hit });
        }
        routes
    }

    /// The campaign that a link means whose key is not known as it is written, from memory only: without the marks that
    /// mail and chat put at its ends, else the only one whose key is the same in small letters.
    pub fn in_memory_if_bent(&self, key: &str) -> Option<Arc<Routes>> {
        let routes = self.set.read().unwrap_or_else(PoisonError::into_inner).bent(key).cloned();
        if routes.is_some() {
            metrics::cache_request(Process, CacheOutcome::Hit);
        }
        routes
    }

    /// The campaign of a key that is not in memory, with a deadline.
    pub async fn look_up(self: &Arc<Self>, key: &CampaignKey) -> Lookup {
        Box::pin(self.get_cold(key)).await // the rare way is big; keep it out of every click's future
    }

    async fn get_cold(self: &Arc<Self>, key: &CampaignKey) -> Lookup {
        if let Some(known) = self.looked_up.get(key).await {
            let is_known = known.is_some();
            metrics::cache_request(
                Process,
                if is_known { CacheOutcome::Hit } else { CacheOutcome::Negative },
            );
            return known.map_or(Lookup::Unknown, Lookup::Found);
        }
        let (this, key) = (self.clone(), key.clone());
        // moka lets one caller of a key load and the others wait for it: it must not end with that one
        let load = to_the_end(async move {
            match this.looked_up.try_get_with(key.clone(), this.load_in_time(&key)).await {
                Ok(known) => {
                    metrics::cache_request(Process, CacheOutcome::Miss);
                    known.map_or(Lookup::Unknown, Lookup::Found)
                }
                Err(why) => match *why {
                    NotLoaded::Refused => this.without_look_up(&key).await,
                    NotLoaded::Failed => this.known_last(&key).await,
                },
            }
        });
        load.await.unwrap_or(Lookup::Unavailable)
    }

    /// What is said of a key that is not in memory and may not be looked up: too many such keys are asked for.
    async fn without_look_up(&self, key: &CampaignKey) -> Lookup {
        if self.is_stale() || self.last_known.contains_key(key) {
            return self.known_last(key).await;
        }
        metrics::cache_request(Process, CacheOutcome::Negative);
        Lookup::Unknown
    }

    /// What was found of a key before, for when it cannot be looked up.
    async fn known_last(&self, key: &CampaignKey) -> Lookup {
        let known = self.last_known.get(key).await;
        let is_known = known.is_some();
        metrics::cache_request(Process, if is_known { CacheOutcome::Stale } else { CacheOutcome::Miss });
        known.map_or(Lookup::Unavailable, Lookup::Found)
    }

    async fn load_in_time(&self, key: &CampaignKey) -> Result<Option<Arc<Routes>>, NotLoaded> {
        let deadline = Instant::now() + self.miss_timeout;
        let Some(_turn) = self.bounds.admit(self.miss_timeout).await else {
            metrics::look_up_refused();
            return Err(NotLoaded::Refused);
        };
        let load = async {
            loop {
                let changes = self.changes.load(Ordering::Relaxed);
                let found = self.load(key).await?;
                // what changed meanwhile may have changed this
                if changes == self.changes.load(Ordering::Relaxed) {
                    return Ok(found);
                }
            }
        };
        let found = timeout(deadline.saturating_duration_since(Instant::now()), load).await;
        let found = found.unwrap_or_else(|_| {
            self.note_failure();
            Err(NotLoaded::Failed)
        });
        let found = match (found, &self.shared) {
            (Err(NotLoaded::Failed), Some(shared)) => {
                let left = shared.left_by_0_1_0(key).await.ok_or(NotLoaded::Failed)?;
                compile(left)
            }
            (found, _) => found?,
        };
        match &found {
            Some(routes) => self.last_known.insert(key.clone(), routes.clone()).await,
            None => self.last_known.invalidate(key).await,
        }
        Ok(found)
    }

    async fn load(&self, key: &CampaignKey) -> Result<Option<Arc<Routes>>, NotLoaded> {
        let Some(shared) = &self.shared else { return self.ask_database(key).await.map(routes) };
        let was_garbage = match shared.get(key).await {
            Found::Campaign(campaign) => return Ok(compile(*campaign)),
            Found::Deleted => return Ok(None),
            Found::Failed => return self.ask_database(key).await.map(routes),
            Found::Nothing => false,
            Found::Garbage => true,
        };
        match shared.claim(key).await {
            Filler::Other(campaign) => Ok(routes(campaign.map(|campaign| *campaign))),
            Filler::Us => {
                let found = self.ask_database(key).await?;
                shared.fill(key, found.as_ref(), was_garbage).await;
                Ok(routes(found))
            }
        }
    }

    async fn ask_database(&self, key: &CampaignKey) -> Result<Option<Campaign>, NotLoaded> {
        if self.failed_lately() {
            return Err(NotLoaded::Failed);
        }
        match db::store::campaigns::by_key(&self.db, key.as_str()).await {
            Ok(found) => {
                let is_found = found.is_some();
                metrics::cache_request(
                    Database,
                    if is_found { CacheOutcome::Hit } else { CacheOutcome::Negative },
                );
                Ok(found)
            }
            Err(error) => {
                metrics::cache_request(Database, CacheOutcome::Error);
                self.note_failure();
                tracing::debug!(error = ?error, "cannot look a campaign up");
                Err(NotLoaded::Failed)
            }
        }
    }

    /// Forgets what was looked up under a key.
    pub(super) async fn forget(&self, key: &CampaignKey) {
        self.looked_up.invalidate(key).await;
        self.last_known.invalidate(key).await;
    }

    pub(super) async fn forget_all(&self) -> u64 {
        self.looked_up.run_pending_tasks().await; // so that the count is right
        let count = self.looked_up.entry_count();
        self.looked_up.invalidate_all();
        self.last_known.invalidate_all();
        self.changes.fetch_add(1, Ordering::Relaxed);
        count
    }

    fn note_failure(&self) {
        self.last_failure.store(self.now_ms(), Ordering::Relaxed);
    }

    fn failed_lately(&self) -> bool {
        let last = self.last_failure.load(Ordering::Relaxed);
        last != 0 && self.now_ms().saturating_sub(last) < PAUSE_AFTER_FAILURE_MS
    }
}

fn routes(campaign: Option<Campaign>) -> Option<Arc<Routes>> {
    campaign.and_then(compile)
}

/// The bounds of everybody together.
pub(super) struct Bounds {
    a_second: RateLimiter<NotKeyed, InMemoryState, SystemClock, NoOpMiddleware<Nanos>>,
    in_flight: Semaphore,
}

impl Bounds {
    pub(super) fn new(config: &config::Cache) -> Self {
        let a_second = NonZeroU32::new(config.look_ups_per_second_max).unwrap_or(NonZeroU32::MIN);
        let clock = SystemClock::starting(Instant::now());
        Self {
            a_second: RateLimiter::direct_with_clock(Quota::per_second(a_second), clock),
            in_flight: Semaphore::new(config.look_ups_in_flight_max),
        }
    }

    /// The right to look one key up; `None` when there were too many lately, or no turn came within `wait`.
    pub(super) async fn admit(&self, wait: Duration) -> Option<SemaphorePermit<'_>> {
        if self.a_second.check().is_err() {
            return None;
        }
        timeout(wait, self.in_flight.acquire()).await.ok()?.ok()
    }
}

/// The look-ups of one request: each key once, and no more after `cache.batch_unknown_keys_max` unknown ones.
pub struct LookUps<'a> {
    campaigns: &'a Arc<Campaigns>,
    found: HashMap<CampaignKey, Lookup>,
    unknown_left: usize,
}

impl<'a> LookUps<'a> {
    /// None yet.
    pub fn of(campaigns: &'a Arc<Campaigns>) -> Self {
        Self { campaigns, found: HashMap::new(), unknown_left: campaigns.batch_unknown_keys_max }
    }

    /// The campaign of a key, as [`Campaigns::get`] has it.
    pub async fn get(&mut self, key: &CampaignKey) -> Lookup {
        if let Some(routes) = self.campaigns.in_memory(key.as_str()) {
            return Lookup::Found(routes);
        }
        if let Some(found) = self.found.get(key) {
            return found.clone();
        }
        let found = if self.unknown_left == 0 {
            metrics::look_up_refused();
            self.campaigns.without_look_up(key).await
        } else {
            self.campaigns.look_up(key).await
        };
        if !matches!(found, Lookup::Found(_)) {
            self.unknown_left = self.unknown_left.saturating_sub(1);
        }
        self.found.insert(key.clone(), found.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_has_so_many_look_ups_and_so_many_at_a_time() {
        let mut config =
            crate::config::Loaded::load(None, [], &crate::config::Flags::default()).unwrap().config;
        (config.cache.look_ups_per_second_max, config.cache.look_ups_in_flight_max) = (20, 2);
        let bounds = Bounds::new(&config.cache);
        let wait = Duration::from_millis(1);
        let held = (bounds.admit(wait).await, bounds.admit(wait).await);
        assert!(held.0.is_some() && held.1.is_some());
        assert!(bounds.admit(wait).await.is_none(), "no turn while both are looked up");
        drop(held);
        let mut admitted = 0;
        while bounds.admit(wait).await.is_some() {
            admitted += 1;
        }
        assert!((10..40).contains(&admitted), "{admitted}");
    }
}
