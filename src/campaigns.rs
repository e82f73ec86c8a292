//! Campaigns in memory: what a click sees. Process memory, then Redis, then Postgres.
//!
//! The whole set is held and kept fresh by polling for changed campaigns; notifications from Postgres and hints
//! by way of Redis only make the next poll come at once. While the stores are down the set stays as it is, and
//! it is also saved on disk, so that a start without any store still redirects.
//!
//! A key that is not in the set is looked up: in Redis, then by one node at a time in Postgres. What is found is
//! kept for a moment, and served again should both stores be down afterwards.
//!
//! The set is complete, so such a key is either one that strangers made up or a campaign that was made a moment ago
//! elsewhere, and that nobody told of yet. For the latter there are look-ups; for the former they are few: so many a
//! second, so many at a time, and so many of one batch (see `lookup`). Beyond that, while a poll has confirmed the
//! set lately, a key that is not in it is unknown, which is true but for what was made since; and while none has, it
//! is not known what it is, as when the stores do not answer.

mod format;
mod hints;
mod lookup;
mod refresh;
mod report;
pub(crate) mod report_cache;
mod saved;
mod set;
mod shared;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex as StdMutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    config::Config,
    db::{self, Db},
    model::id::CampaignKey,
    redis::Redis,
    routing::Routes,
};
pub use format::CampaignV1;
use hints::Hint;
pub use lookup::{LookUps, Lookup};
use refresh::Seen;
pub use report::{Layer, Report};
pub(crate) use saved::saved_campaign;
use set::Set;
use shared::Shared;

/// The campaigns a node knows.
pub struct Campaigns {
    db: Arc<Db>,
    shared: Option<Shared>,
    set: RwLock<Set>,
    bounds: lookup::Bounds,
    batch_unknown_keys_max: usize,
    /// What was looked up because it was not in the set; `None`: there is no such campaign.
    looked_up: moka::future::Cache<CampaignKey, Option<Arc<Routes>>>,
    /// What was found that way, for when nothing can be looked up.
    last_known: moka::future::Cache<CampaignKey, Arc<Routes>>,
    last_failure: AtomicU64,
    born: Instant,
    miss_timeout: Duration,
    poll_interval: Duration,
    seen: Mutex<Seen>,
    poll_now: Notify,
    reload: AtomicBool,
    /// When Postgres last said what the set is, in milliseconds after `born`; 0: never.
    confirmed: AtomicU64,
    /// Whether that was longer than `stale_after` ago: what the click path looks at instead of a clock.
    is_stale: AtomicBool,
    stale_after: Duration,
    /// Moves when campaigns change: a look-up that began before begins again.
    changes: AtomicU64,
    /// Campaigns that changed and are not yet in Redis as they are.
    unwritten: StdMutex<HashSet<CampaignKey>>,
    write_now: Notify,
    /// One writer at a time, or the older of two states might be written last.
    writing: Mutex<()>,
    file: saved::File,
    source: AtomicU64,
}

/// What a flush did.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Flushed {
    /// Keys that were looked up and are forgotten.
    pub looked_up_forgotten: u64,
    /// Campaigns read from Postgres.
    pub campaigns_loaded: usize,
    /// Keys deleted in Redis; null: there is no Redis, or it does not answer.
    pub redis_keys_deleted: Option<u64>,
    /// Whether the other nodes were told by way of Redis; false also where there is none.
    pub others_told: bool,
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
    pub fn new(db: Arc<Db>, redis: Option<Arc<Redis>>, config: &Config) -> Self {
        let file = config.server.data_dir.join(saved::NAME);
        let file = saved::File::new(file, config.cache.save_interval);
        let keys = || moka::future::Cache::builder().max_capacity(config.cache.negative_keys_max);
        let campaigns = Self {
            db,
            shared: redis.map(|redis| Shared::new(redis, config)),
            set: RwLock::default(),
            bounds: lookup::Bounds::new(&config.cache),
            batch_unknown_keys_max: config.cache.batch_unknown_keys_max,
            looked_up: keys().time_to_live(config.cache.negative_ttl).build(),
            last_known: moka::future::Cache::builder()
                .max_capacity(config.cache.negative_keys_max)
                .time_to_live(config.redis.campaign_ttl)
                .build(),
            last_failure: AtomicU64::new(0),
            born: Instant::now(),
            miss_timeout: config.cache.miss_timeout,
            poll_interval: config.cache.poll_interval,
            seen: Mutex::default(),
            poll_now: Notify::new(),
            reload: AtomicBool::new(false),
            confirmed: AtomicU64::new(0),
            is_stale: AtomicBool::new(true),
            stale_after: config.cache.poll_interval.saturating_mul(config.cache.stale_after_polls),
            changes: AtomicU64::new(0),
            unwritten: StdMutex::default(),
            write_now: Notify::new(),
            writing: Mutex::new(()),
            file,
            source: AtomicU64::new(Source::Nothing as u64),
        };
        campaigns.load_saved();
        campaigns
    }

    /// Sees every change made in Postgres until now.
    pub async fn refresh(self: &Arc<Self>) {
        let this = self.clone();
        to_the_end(async move { this.see_changes().await }).await;
    }

    /// After a change through the API: forgets all that is kept of a campaign here and in Redis, sees the change,
    /// and tells the other nodes.
    pub async fn invalidate_campaign(self: &Arc<Self>, key: &CampaignKey) {
        let (this, key) = (self.clone(), key.clone());
        to_the_end(async move {
            this.forget(&key).await;
            if let Some(shared) = &this.shared {
                shared.forget(std::slice::from_ref(&key)).await;
            }
            if this.see_changes().await {
                // also where another poll has seen and written it before: that is what was just deleted
                this.must_write([key.clone()]);
                this.write_to_redis().await;
            }
            this.tell(&Hint::Changed(key)).await;
        })
        .await;
    }

    /// After a change of the library through the API: sees what campaigns became of it, and has the other nodes look.
    pub async fn see_library(self: &Arc<Self>) {
        let this = self.clone();
        to_the_end(async move {
            this.see_changes().await;
            this.tell(&Hint::Other).await;
        })
        .await;
    }

    /// Forgets what was looked up, deletes what Redis has of the campaigns known here, reads every campaign
    /// again, and tells the other nodes to.
    pub async fn flush(self: &Arc<Self>) -> Result<Flushed, db::Error> {
        let this = self.clone();
        let flush = to_the_end(async move {
            let looked_up_forgotten = this.forget_all().await;
            let redis_keys_deleted = match &this.shared {
                Some(shared) => shared.forget(&this.keys()).await,
                None => None,
            };
            this.reload.store(true, Ordering::Relaxed);
            this.poll().await?;
            let others_told = this.tell(&Hint::Flushed).await;
            Ok(Flushed {
                looked_up_forgotten,
                campaigns_loaded: this.state().0,
                redis_keys_deleted,
                others_told,
            })
        });
        flush.await.unwrap_or_else(|| Err(db::Error::Unavailable("the flush did not end".into())))
    }

    /// Polls for changes until the stop signal.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let polling = async {
            tokio::select! {
                () = self.keep_polling(&stop) => {}
                () = self.watch_age() => {}
            }
        };
        tokio::join!(polling, self.keep_saved(&stop));
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

    /// Whether no poll has confirmed the set for longer than `cache.stale_after_polls` intervals.
    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    fn confirmed_age(&self) -> Option<Duration> {
        let at = self.confirmed.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_millis(self.now_ms().saturating_sub(at)))
    }

    /// Those that have a budget.
    pub fn with_budgets(&self) -> Vec<Arc<Routes>> {
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        set.by_key.values().filter(|routes| routes.campaign.terms.has_budget()).cloned().collect()
    }

    /// All of them, in no order.
    pub fn list(&self) -> Vec<Arc<Routes>> {
        self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.values().cloned().collect()
    }

    fn keys(&self) -> Vec<CampaignKey> {
        self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.keys().cloned().collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Runs `work` to its end even if the caller hangs up: half a change must not stay half. `None`: it panicked.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "every step of it is bounded")]
    let task = tokio::spawn(work);
    task.await.ok()
}
