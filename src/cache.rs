//! Campaigns in memory: what a click sees. Process memory, then Redis, then Postgres.
//!
//! The whole set is held and kept fresh by polling for changed campaigns; a notification from Postgres only
//! makes the next poll come at once. While the stores are down the set stays as it is, and it is also saved
//! on disk, so that a start without any store still redirects.

mod redis;
mod saved;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, Notify},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::redis::Redis;
use crate::{
    config::{Config, millis},
    db::{self, Db},
    metrics,
    model::{campaign::Campaign, id::CampaignKey},
    routing::Routes,
};

/// Campaigns read from Postgres in one query.
const PAGE: i64 = 2000;

/// After a failed look-up, how long further unknown keys are not looked up, in milliseconds.
const PAUSE_AFTER_FAILURE_MS: u64 = 1000;

/// The campaigns a node knows.
pub struct Campaigns {
    db: Arc<Db>,
    redis: Option<Redis>,
    set: RwLock<Set>,
    /// What was looked up because it was not in the set; `None`: there is no such campaign.
    looked_up: moka::future::Cache<CampaignKey, Option<Arc<Routes>>>,
    last_failure: AtomicU64,
    born: Instant,
    miss_timeout: Duration,
    poll_interval: Duration,
    horizon: Mutex<i64>,
    poll_now: Notify,
    reload: AtomicBool,
    file: PathBuf,
    source: AtomicU64,
}

#[derive(Default)]
struct Set {
    by_key: HashMap<CampaignKey, Arc<Routes>>,
    keys: HashMap<Uuid, CampaignKey>,
}

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

/// Where the set came from, for `/health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Nothing was loaded yet.
    Nothing,
    /// The last good set, saved on disk by an earlier start.
    Disk,
    /// Postgres.
    Database,
}

impl Campaigns {
    /// An empty set, filled from disk if there is a saved one.
    pub fn new(db: Arc<Db>, config: &Config) -> anyhow::Result<Self> {
        let file = config.server.data_dir.join("campaigns.json");
        let campaigns = Self {
            db,
            redis: Redis::new(&config.redis)?,
            set: RwLock::default(),
            looked_up: moka::future::Cache::builder()
                .max_capacity(config.cache.negative_keys_max)
                .time_to_live(millis(config.cache.negative_ttl_ms))
                .build(),
            last_failure: AtomicU64::new(0),
            born: Instant::now(),
            miss_timeout: millis(config.cache.miss_timeout_ms),
            poll_interval: Duration::from_secs(config.cache.poll_interval_s),
            horizon: Mutex::new(0),
            poll_now: Notify::new(),
            reload: AtomicBool::new(false),
            file,
            source: AtomicU64::new(Source::Nothing as u64),
        };
        campaigns.load_saved();
        Ok(campaigns)
    }

    /// The campaign of a key, from memory; only a key that is not there is looked up, with a deadline.
    pub async fn get(&self, key: &CampaignKey) -> Lookup {
        match self.in_memory(key.as_str()) {
            Some(routes) => Lookup::Found(routes),
            None => self.look_up(key).await,
        }
    }

    /// The campaign of a key, if it is in memory.
    pub fn in_memory(&self, key: &str) -> Option<Arc<Routes>> {
        let routes = self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.get(key).cloned();
        if routes.is_some() {
            metrics::cache_request("process", "hit");
        }
        routes
    }

    /// The campaign of a key that is not in memory, with a deadline.
    pub async fn look_up(&self, key: &CampaignKey) -> Lookup {
        Box::pin(self.get_cold(key)).await // the rare way is big; keep it out of every click's future
    }

    async fn get_cold(&self, key: &CampaignKey) -> Lookup {
        if let Some(known) = self.looked_up.get(key).await {
            metrics::cache_request("process", if known.is_some() { "hit" } else { "negative" });
            return known.map_or(Lookup::Unknown, Lookup::Found);
        }
        metrics::cache_request("process", "miss");
        if self.failed_lately() {
            return Lookup::Unavailable;
        }
        // moka lets one caller of a key load and the others wait for it; the load is bounded
        let load = async { timeout(self.miss_timeout, self.load(key)).await.map_err(|_| ())? };
        if let Ok(known) = Box::pin(self.looked_up.try_get_with(key.clone(), load)).await {
            return known.map_or(Lookup::Unknown, Lookup::Found);
        }
        self.last_failure.store(self.now_ms(), Ordering::Relaxed);
        Lookup::Unavailable
    }

    /// Sees every change made in Postgres until now; used after a change through the API.
    pub async fn refresh(&self) {
        if let Err(error) = self.poll().await {
            tracing::warn!(error = format!("{error:#}"), "cannot refresh the campaigns; the next poll will");
        }
    }

    /// Polls for changes until the stop signal.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut failures = 0u32;
        while !stop.is_cancelled() {
            match self.poll().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    metrics::cache_request("database", "error");
                    if failures % 12 == 1 {
                        let error = format!("{error:#}");
                        tracing::warn!(error, "cannot read campaigns; serving those in memory");
                    }
                }
            }
            tokio::select! {
                () = sleep(self.poll_interval) => {}
                () = self.poll_now.notified() => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Listens for notifications until the stop signal; each one brings the next poll forward.
    pub async fn listen(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            let heard = async {
                let mut listener = self.db.primary().listen("octo_campaigns").await?;
                self.poll_now.notify_one(); // what was said while nobody listened
                loop {
                    let notification = listener.recv().await?;
                    if notification.payload() == "delete" {
                        self.reload.store(true, Ordering::Relaxed);
                    }
                    self.poll_now.notify_one();
                }
            };
            let ended: Result<(), sqlx::Error> = tokio::select! {
                ended = heard => ended,
                () = stop.cancelled() => return Ok(()),
            };
            tracing::debug!(error = ?ended, "not listening for campaign changes; polling goes on");
            tokio::select! {
                () = sleep(Duration::from_secs(1)) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// How many campaigns are in memory, and where they came from.
    pub fn state(&self) -> (usize, Source) {
        let count = self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.len();
        let source = match self.source.load(Ordering::Relaxed) {
            s if s == Source::Database as u64 => Source::Database,
            s if s == Source::Disk as u64 => Source::Disk,
            _ => Source::Nothing,
        };
        (count, source)
    }

    /// Whether Redis is configured and answers; `None` when it is not configured.
    pub async fn ping_redis(&self) -> Option<bool> {
        match &self.redis {
            Some(redis) => Some(redis.ping().await),
            None => None,
        }
    }

    async fn load(&self, key: &CampaignKey) -> Result<Option<Arc<Routes>>, ()> {
        if let Some(redis) = &self.redis
            && let Some(campaign) = redis.get(key).await
        {
            return Ok(compile(campaign));
        }
        match db::campaigns::by_key(&self.db, key.as_str()).await {
            Ok(found) => {
                metrics::cache_request("database", if found.is_some() { "hit" } else { "negative" });
                if let (Some(redis), Some(campaign)) = (&self.redis, &found) {
                    redis.set(campaign).await;
                }
                Ok(found.and_then(compile))
            }
            Err(error) => {
                metrics::cache_request("database", "error");
                tracing::debug!(error = ?error, "cannot look a campaign up");
                Err(())
            }
        }
    }

    /// Reads what changed since the last poll; everything the first time, after a deletion by hand, and
    /// after Postgres went back in time.
    async fn poll(&self) -> Result<(), db::Error> {
        let mut horizon = self.horizon.lock().await;
        let mut is_full = self.reload.load(Ordering::Relaxed) || *horizon == 0;
        let (mut next, mut changes) = self.read_since(if is_full { 0 } else { *horizon }).await?;
        if !is_full && next < *horizon {
            is_full = true;
            (next, changes) = self.read_since(0).await?;
        }
        *horizon = next;
        if is_full {
            self.reload.store(false, Ordering::Relaxed);
        }
        self.source.store(Source::Database as u64, Ordering::Relaxed);
        if is_full || !changes.is_empty() {
            self.apply(changes, is_full).await;
        }
        Ok(())
    }

    /// What changed, and what to ask for next time: the smallest horizon of all pages.
    async fn read_since(&self, since: i64) -> Result<(i64, Vec<db::campaigns::Change>), db::Error> {
        let mut horizon = i64::MAX;
        let mut changes = Vec::new();
        let mut after = None;
        loop {
            let page = db::campaigns::changed_since(&self.db, since, after, PAGE).await?;
            horizon = horizon.min(page.horizon);
            after = page.list.last().map(|change| change.campaign.id);
            let is_last = page.list.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            changes.extend(page.list);
            if is_last {
                return Ok((horizon, changes));
            }
        }
    }

    async fn apply(&self, changes: Vec<db::campaigns::Change>, is_full: bool) {
        if let Some(redis) = &self.redis {
            // the first load does not fill Redis: look-ups do
            for change in changes.iter().filter(|_| !is_full) {
                if change.is_deleted {
                    redis.delete(&change.campaign.key).await;
                } else {
                    redis.set(&change.campaign).await;
                }
            }
        }
        for change in &changes {
            self.looked_up.invalidate(&change.campaign.key).await;
        }
        let is_changed = self.replace(changes, is_full);
        if is_changed {
            self.save().await;
        }
    }

    /// Puts changes into the set; says whether it is another set now.
    fn replace(&self, changes: Vec<db::campaigns::Change>, is_full: bool) -> bool {
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Set::default();
        let target = if is_full { &mut fresh } else { &mut *set };
        let mut is_changed = is_full;
        for change in changes {
            let campaign = change.campaign;
            let id = campaign.id;
            let known = target.keys.get(&id).and_then(|key| target.by_key.get(key));
            // what comes late (from a replica, say) is not news
            if !change.is_deleted && known.is_some_and(|k| k.campaign.version >= campaign.version) {
                continue;
            }
            is_changed = true;
            if let Some(old_key) = target.keys.remove(&id) {
                // the key may be another campaign's by now
                if target.by_key.get(&old_key).is_some_and(|k| k.campaign.id == id) {
                    target.by_key.remove(&old_key);
                }
            }
            if !change.is_deleted {
                target.keys.insert(id, campaign.key.clone());
                if let Some(routes) = compile(campaign) {
                    target.by_key.insert(routes.campaign.key.clone(), routes);
                }
            }
        }
        if is_full {
            *set = fresh;
        }
        metrics::cache_campaigns(set.by_key.len());
        is_changed
    }

    async fn save(&self) {
        let campaigns: Vec<Arc<Routes>> =
            self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.values().cloned().collect();
        let file = self.file.clone();
        let saving =
            tokio::task::spawn_blocking(move || saved::save(&file, campaigns.iter().map(|r| &r.campaign)));
        if let Ok(Err(error)) = saving.await {
            tracing::warn!(path = %self.file.display(), %error, "cannot save the campaigns on disk");
        }
    }

    fn load_saved(&self) {
        match saved::load(&self.file) {
            Ok(None) => {}
            Ok(Some(campaigns)) => {
                let change = |campaign| db::campaigns::Change { campaign, is_deleted: false };
                self.replace(campaigns.into_iter().map(change).collect(), true);
                self.source.store(Source::Disk as u64, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(path = %self.file.display(), %error, "the saved campaigns cannot be read; ignored");
            }
        }
    }

    fn failed_lately(&self) -> bool {
        let last = self.last_failure.load(Ordering::Relaxed);
        last != 0 && self.now_ms().saturating_sub(last) < PAUSE_AFTER_FAILURE_MS
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// A campaign ready to route; one with a broken destination (written by hand) is left out and named.
fn compile(campaign: Campaign) -> Option<Arc<Routes>> {
    let key = campaign.key.clone();
    match Routes::new(campaign) {
        Ok(routes) => Some(Arc::new(routes)),
        Err((destination, error)) => {
            tracing::error!(campaign = %key, destination, %error, "a destination is not valid; the campaign is not served");
            None
        }
    }
}
