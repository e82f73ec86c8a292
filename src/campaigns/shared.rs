//! The shared layer: what campaigns keep in Redis. Whatever goes wrong there is a miss and counted, never an error of
//! a click.
//!
//! | key | holds |
//! |---|---|
//! | `campaign_v1:{key}` | `{"key", "campaign"}`, a [`CampaignV1`]; `campaign` is null: it is deleted |
//! | `campaign_v1:{key}:filler` | who looks the campaign up in Postgres just now, or `none`: there is no such campaign |
//! | `click_stats:{key}` | a hash: question -> figures; see [`crate::campaigns::report_cache`] |
//!
//! A campaign that a node saw change is written whatever is there. What a look-up brings, perhaps from a replica
//! that lags, is written only where nothing is: it never takes the place of something newer.
//!
//! The version of the format stands in the name, so that nodes of two releases run beside each other, each with keys
//! of its own. What 0.1.0 left (`campaign:{key}`, with the format's version inside) is read when nothing else answers.

use std::{
    collections::HashSet,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant as Deadline, sleep};

use super::{Campaigns, format::CampaignV1, report_cache};
use crate::{
    config::Config,
    metrics::{
        self,
        CacheLayer::Redis as Layer,
        CacheOutcome::{Error, Hit, Miss, Negative},
    },
    model::{campaign::Campaign, id::CampaignKey},
    redis::{Failure, Redis},
};

/// Of what 0.1.0 wrote.
const SCHEMA_OF_0_1_0: u32 = 2;

/// Changes that wait for Redis at most; it keeps a campaign for `redis.campaign_ttl_s` anyway.
const UNWRITTEN_MAX: usize = 10_000;

/// In place of a filler: it looked, and there is no such campaign.
const NONE: &[u8] = b"none";

/// Between two looks at what another node's look-up brought.
const FILLER_POLL: Duration = Duration::from_millis(10);

/// What campaigns keep in Redis.
pub(super) struct Shared {
    redis: Arc<Redis>,
    campaign_ttl: Duration,
    filler_ttl: Duration,
    filler_wait: Duration,
    negative_ttl: Duration,
}

/// What keys are called.
struct Names(Arc<str>);

impl Names {
    fn campaign(&self, key: &CampaignKey) -> String {
        format!("{}campaign_v1:{key}", self.0)
    }

    fn filler(&self, key: &CampaignKey) -> String {
        format!("{}campaign_v1:{key}:filler", self.0)
    }
}

/// What the shared layer knows of a key.
pub(super) enum Found {
    Campaign(Box<Campaign>),
    /// It was deleted a while ago.
    Deleted,
    Nothing,
    /// What is there is no campaign of ours.
    Garbage,
    /// Redis did not answer.
    Failed,
}

/// Who asks Postgres for a campaign.
pub(super) enum Filler {
    /// This node; so does one whose Redis fails, or who waited in vain for another.
    Us,
    /// Another node did, and this came of it.
    Other(Option<Box<Campaign>>),
}

/// What a key holds.
#[derive(Serialize, Deserialize)]
struct Value {
    /// Only in what 0.1.0 wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schema: Option<u32>,
    key: CampaignKey,
    #[serde(deserialize_with = "Option::deserialize")] // null, not absent
    campaign: Option<Box<CampaignV1>>,
}

impl Value {
    /// As bytes: a campaign as it is now, or that it is deleted.
    fn write(key: &CampaignKey, campaign: Option<&Campaign>) -> Vec<u8> {
        let campaign = campaign.map(|campaign| Box::new(campaign.clone().into()));
        serde_json::to_vec(&Self { schema: None, key: key.clone(), campaign }).unwrap_or_default()
    }

    /// What bytes under `key` say.
    fn read(bytes: &[u8], key: &CampaignKey, schema: Option<u32>) -> Found {
        let Ok(value) = serde_json::from_slice::<Self>(bytes) else { return Found::Garbage };
        if value.key != *key || value.schema != schema {
            return Found::Garbage;
        }
        match value.campaign.map(|v1| Campaign::from(*v1)) {
            None => Found::Deleted,
            Some(campaign) if campaign.key == *key => Found::Campaign(Box::new(campaign)),
            Some(_) => Found::Garbage,
        }
    }
}

impl Shared {
    pub(super) fn new(redis: Arc<Redis>, config: &Config) -> Self {
        Self {
            redis,
            campaign_ttl: config.redis.campaign_ttl,
            filler_ttl: config.cache.miss_timeout,
            filler_wait: config.cache.filler_wait,
            negative_ttl: config.cache.negative_ttl,
        }
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) async fn get(&self, key: &CampaignKey) -> Found {
        let found = self.read(key).await;
        metrics::cache_request(
            Layer,
            match found {
                Found::Campaign(_) => Hit,
                Found::Deleted => Negative,
                Found::Nothing => Miss,
                Found::Garbage | Found::Failed => Error,
            },
        );
        found
    }

    async fn read(&self, key: &CampaignKey) -> Found {
        let Ok(names) = self.names() else { return Found::Failed };
        match self.redis.get(&names.campaign(key)).await {
            Ok(Some(bytes)) => Value::read(&bytes, key, None),
            Ok(None) => Found::Nothing,
            Err(failure) if failure.is_wrong_type() => Found::Garbage,
            Err(_) => Found::Failed,
        }
    }

    /// What 0.1.0 left of a key, for when nothing else answers.
    pub(super) async fn left_by_0_1_0(&self, key: &CampaignKey) -> Option<Campaign> {
        let left = self.redis.get_all(&self.names_of_0_1_0(key)).await.ok()?;
        left.into_iter().flatten().find_map(|bytes| match Value::read(&bytes, key, Some(SCHEMA_OF_0_1_0)) {
            Found::Campaign(campaign) => Some(*campaign),
            _ => None,
        })
    }

    /// Where 0.1.0 kept a campaign: under no prefix, and the last before this format under the one of today.
    fn names_of_0_1_0(&self, key: &CampaignKey) -> Vec<String> {
        let prefix = self.redis.prefix().ok();
        let prefixed = prefix.map(|prefix| format!("{prefix}campaign:{key}"));
        prefixed.into_iter().chain([format!("campaign:{key}")]).collect()
    }

    /// Lets one node ask Postgres for a campaign. The others wait shortly for what comes of it.
    pub(super) async fn claim(&self, key: &CampaignKey) -> Filler {
        let Ok(names) = self.names() else { return Filler::Us };
        let node = self.redis.node().as_bytes();
        match self.redis.set_if_absent(&names.filler(key), node, self.filler_ttl).await {
            Ok(false) => self.wait_for_other(key, &names).await,
            Ok(true) | Err(_) => Filler::Us,
        }
    }

    async fn wait_for_other(&self, key: &CampaignKey, names: &Names) -> Filler {
        let deadline = Deadline::now() + self.filler_wait;
        loop {
            match self.read(key).await {
                Found::Campaign(campaign) => return Filler::Other(Some(campaign)),
                Found::Deleted => return Filler::Other(None),
                Found::Failed => return Filler::Us,
                Found::Nothing | Found::Garbage => {}
            }
            match self.redis.get(&names.filler(key)).await.ok().flatten().as_deref() {
                Some(NONE) => return Filler::Other(None),
                Some(_) if Deadline::now() < deadline => sleep(FILLER_POLL).await,
                _ => return Filler::Us,
            }
        }
    }

    /// Leaves what a look-up brought for the others, unless something is there; in place of garbage, whatever
    /// it is.
    pub(super) async fn fill(&self, key: &CampaignKey, campaign: Option<&Campaign>, was_garbage: bool) {
        let Ok(names) = self.names() else { return };
        let name = names.campaign(key);
        let filled = match campaign {
            Some(_) if was_garbage => self.redis.set(&name, &Value::write(key, campaign), self.ttl()).await,
            Some(_) => {
                let set = self.redis.set_if_absent(&name, &Value::write(key, campaign), self.ttl()).await;
                set.map(drop)
            }
            None => {
                if was_garbage {
                    ignore(self.redis.unlink(&[name]).await.map(drop));
                }
                self.redis.set(&names.filler(key), NONE, self.negative_ttl).await
            }
        };
        ignore(filled);
    }

    /// Writes a campaign as it is now, or that it is deleted. Where Redis takes no more (`maxmemory`), what it has
    /// goes at least. `false`: it may still have something else.
    pub(super) async fn put(&self, key: &CampaignKey, campaign: Option<&Campaign>) -> bool {
        let Ok(names) = self.names() else { return false };
        let name = names.campaign(key);
        let is_put = match self.redis.set(&name, &Value::write(key, campaign), self.ttl()).await {
            Ok(()) => true,
            Err(Failure::Refused(_)) => self.redis.unlink(&[name]).await.is_ok(),
            Err(_) => false,
        };
        if is_put {
            ignore(self.redis.unlink(&self.names_of_0_1_0(key)).await.map(drop));
        }
        is_put
    }

    /// Deletes everything of these campaigns; how many keys there were. `None`: Redis does not answer.
    pub(super) async fn forget(&self, keys: &[CampaignKey]) -> Option<u64> {
        let names = self.names().ok()?;
        let of_key = |key| [names.campaign(key), names.filler(key), report_cache::name(&names.0, key)];
        let all: Vec<String> = keys.iter().flat_map(of_key).collect();
        self.redis.unlink(&all).await.ok()
    }

    fn names(&self) -> Result<Names, Failure> {
        self.redis.prefix().map(Names)
    }

    /// 10 % more or less, so that campaigns written together do not expire together.
    fn ttl(&self) -> Duration {
        self.campaign_ttl.saturating_mul(fastrand::u32(90..=110)) / 100
    }
}

impl Campaigns {
    /// Notes that Redis has something else of these campaigns; the next writer brings it there.
    pub(super) fn must_write(&self, changed: impl IntoIterator<Item = CampaignKey>) {
        if self.shared.is_none() {
            return;
        }
        let mut unwritten = self.unwritten();
        unwritten.extend(changed);
        if unwritten.len() > UNWRITTEN_MAX {
            tracing::warn!("too many changes wait for Redis, which forgets campaigns by itself in time");
            unwritten.clear();
        }
        drop(unwritten);
        self.write_now.notify_one();
    }

    /// Writes what changed to Redis, as it is now. What Redis does not take waits for the next time.
    pub(super) async fn write_to_redis(&self) {
        let Some(shared) = &self.shared else { return };
        let _one = self.writing.lock().await;
        let keys: Vec<CampaignKey> = self.unwritten().iter().cloned().collect();
        for key in &keys {
            if !shared.redis.is_closed() {
                return;
            }
            self.unwritten().remove(key); // before it is looked at: a change from now on is noted again
            let set = || self.set.read().unwrap_or_else(PoisonError::into_inner);
            let routes = set().by_key.get(key.as_str()).cloned();
            if shared.put(key, routes.as_ref().map(|r| &r.campaign)).await {
                // what was looked up while Redis still had the old
                self.changes.fetch_add(1, Ordering::Relaxed);
                self.forget(key).await;
            } else {
                self.unwritten().insert(key.clone());
            }
        }
    }

    pub(super) fn unwritten(&self) -> MutexGuard<'_, HashSet<CampaignKey>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a command whose failure changes nothing.
fn ignore(answer: Result<(), Failure>) {
    if let Err(failure) = answer {
        tracing::debug!(?failure, "a Redis command failed");
    }
}
