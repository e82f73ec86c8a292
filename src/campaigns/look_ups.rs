//! Keys that are not in memory: strangers can make them up without end, so what is asked of Redis and Postgres for
//! them is bounded, for everybody together and for one request.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, middleware::NoOpMiddleware, nanos::Nanos, state::InMemoryState, state::NotKeyed,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{Campaigns, Lookup};
use crate::{config, limits::SystemClock, metrics, model::id::CampaignKey};

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
