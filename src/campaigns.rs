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
//! second, so many at a time, and so many of one batch (see `look_ups`). Beyond that, while a poll has confirmed the
//! set lately, a key that is not in it is unknown, which is true but for what was made since; and while none has, it
//! is not known what it is, as when the stores do not answer.

mod hints;
mod look_ups;
mod report;
pub mod report_cache;
mod saved;
pub mod shared;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{
        Arc, Mutex as StdMutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Mutex, Notify},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    campaigns::{
        hints::Hint,
        shared::{Filler, Found, Redis},
    },
    config::Config,
    db::{self, Db, store::campaigns::Changes},
    metrics::{
        self,
        CacheLayer::{Database, Process},
        CacheOutcome,
    },
    model::{campaign::Campaign, id::CampaignKey},
    routing::Routes,
};
pub use look_ups::LookUps;
pub use report::{Layer, RedisReport, Report, ServerFigures};

/// Campaigns read from Postgres in one query.
const PAGE: i64 = 2000;

/// After Postgres failed a look-up, how long it is not asked for further keys, in milliseconds.
const PAUSE_AFTER_FAILURE_MS: u64 = 1000;

/// Changes that wait for Redis at most; it keeps a campaign for `redis.campaign_ttl_s` anyway.
const UNWRITTEN_MAX: usize = 10_000;

/// Between two attempts to hear hints, and two looks at what waits for Redis.
const REDIS_INTERVAL: Duration = Duration::from_secs(1);

/// The campaigns a node knows.
pub struct Campaigns {
    db: Arc<Db>,
    pub(crate) redis: Option<Redis>,
    /// This process, as other nodes see it.
    pub(crate) node: String,
    set: RwLock<Set>,
    bounds: look_ups::Bounds,
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
    figures: report_cache::Bounds,
    file: saved::File,
    source: AtomicU64,
}

/// Up to where Postgres was read.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// What to ask for next time; 0: everything.
    horizon: i64,
    /// Since when the server runs that was read.
    server: Option<DateTime<Utc>>,
}

/// Why a key has no answer.
#[derive(Debug, Clone, Copy)]
enum NotLoaded {
    /// Too many keys are looked up.
    Refused,
    /// The stores did not answer in time.
    Failed,
}

#[derive(Default)]
struct Set {
    by_key: HashMap<CampaignKey, Arc<Routes>>,
    keys: HashMap<Uuid, CampaignKey>,
    /// The keys of `by_key` under what they are in small letters.
    by_small_letters: HashMap<String, Vec<CampaignKey>>,
}

/// What [`Campaigns::flush`] did.
#[derive(Debug, Clone, Copy, serde::Serialize, utoipa::ToSchema)]
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
        let file = saved::File::new(file, config.cache.save_interval);
        let node = Uuid::new_v4().simple().to_string();
        let keys = || moka::future::Cache::builder().max_capacity(config.cache.negative_keys_max);
        let campaigns = Self {
            db,
            redis: Redis::new(config, node.clone())?,
            node,
            set: RwLock::default(),
            bounds: look_ups::Bounds::new(&config.cache),
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
            figures: report_cache::Bounds {
                ttl: config.cache.stats_ttl,
                questions_max: config.cache.stats_questions_max,
                bytes_max: config.cache.stats_bytes_max,
            },
            file,
            source: AtomicU64::new(Source::Nothing as u64),
        };
        campaigns.load_saved();
        Ok(campaigns)
    }

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
            if let Some(redis) = &this.redis {
                redis.forget(std::slice::from_ref(&key)).await;
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

    /// Forgets what was looked up, deletes what Redis has of the campaigns known here, reads every campaign
    /// again, and tells the other nodes to.
    pub async fn flush(self: &Arc<Self>) -> Result<Flushed, db::Error> {
        let this = self.clone();
        let flush = to_the_end(async move {
            let looked_up_forgotten = this.forget_all().await;
            let redis_keys_deleted = match &this.redis {
                Some(redis) => redis.forget(&this.keys()).await,
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

    async fn keep_polling(&self, stop: &CancellationToken) {
        let mut failures = 0u32;
        while !stop.is_cancelled() {
            match self.poll().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    metrics::cache_request(Database, CacheOutcome::Error);
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
    }

    /// Marks the set as stale when no poll has confirmed it for a while; a poll may hang, so beside it.
    async fn watch_age(&self) {
        loop {
            sleep(self.poll_interval.min(Duration::from_secs(1))).await;
            let is_stale = self.confirmed_age().is_none_or(|age| age > self.stale_after);
            let was_stale = self.is_stale.swap(is_stale, Ordering::Relaxed);
            if is_stale && !was_stale {
                tracing::warn!(
                    "the campaigns in memory are not confirmed any more; serving them as they are"
                );
            }
        }
    }

    /// Hears hints from other nodes and brings to Redis what could not be written, until the stop signal.
    pub async fn keep_redis(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(redis) = &self.redis else {
            stop.cancelled().await;
            return Ok(());
        };
        let hearing = async {
            loop {
                if let Err(error) = hints::hear(&self, redis).await {
                    tracing::debug!(error, "not hearing hints by way of Redis; polling goes on");
                }
                sleep(REDIS_INTERVAL).await;
            }
        };
        let writing = async {
            loop {
                tokio::select! {
                    () = sleep(REDIS_INTERVAL) => {}
                    () = self.write_now.notified() => {}
                }
                if !redis.is_closed() {
                    redis.ping().await; // the trial, also where nobody asks
                }
                self.write_to_redis().await;
            }
        };
        tokio::select! {
            () = hearing => {}
            () = writing => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    /// Listens for notifications until the stop signal; each one brings the next poll forward.
    pub async fn listen(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        if !self.db.direct().is_session() {
            tracing::info!("no notifications come through PgBouncer: changed campaigns are polled for");
            stop.cancelled().await;
            return Ok(());
        }
        while !stop.is_cancelled() {
            let Some(ended) = stop.run_until_cancelled(self.hear_notifications()).await else {
                return Ok(());
            };
            tracing::debug!(error = ?ended, "not listening for campaign changes; polling goes on");
            stop.run_until_cancelled(sleep(Duration::from_secs(1))).await;
        }
        Ok(())
    }

    /// Ends only with its connection.
    async fn hear_notifications(&self) -> Result<Infallible, sqlx::Error> {
        let mut listener = self.db.direct().listen("octo_campaigns").await?;
        self.poll_now.notify_one(); // what was said while nobody listened
        loop {
            let notification = listener.recv().await?;
            if notification.payload() == "delete" {
                self.reload.store(true, Ordering::Relaxed);
            }
            self.poll_now.notify_one();
        }
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

    /// Whether Redis answers, and what kind of Redis it is; `None` when none is configured.
    pub async fn ping_redis(&self) -> Option<(bool, &'static str)> {
        let redis = self.redis.as_ref()?;
        Some((redis.ping().await, redis.servers().mode().name()))
    }

    /// This process, as other nodes see it.
    fn node(&self) -> &str {
        &self.node
    }

    /// Does what another node asks for.
    async fn obey(&self, hint: &Hint) {
        match hint {
            Hint::Changed(key) => self.forget(key).await,
            Hint::Flushed => {
                self.forget_all().await;
                self.reload.store(true, Ordering::Relaxed);
            }
            Hint::Other => {}
        }
        self.poll_now.notify_one();
    }

    async fn tell(&self, hint: &Hint) -> bool {
        match &self.redis {
            Some(redis) => redis.publish(hints::CHANNEL, &hint.said_by(&self.node)).await,
            None => false,
        }
    }

    /// Forgets what was looked up under a key.
    async fn forget(&self, key: &CampaignKey) {
        self.looked_up.invalidate(key).await;
        self.last_known.invalidate(key).await;
    }

    async fn forget_all(&self) -> u64 {
        self.looked_up.run_pending_tasks().await; // so that the count is right
        let count = self.looked_up.entry_count();
        self.looked_up.invalidate_all();
        self.last_known.invalidate_all();
        self.changes.fetch_add(1, Ordering::Relaxed);
        count
    }

    fn keys(&self) -> Vec<CampaignKey> {
        self.set.read().unwrap_or_else(PoisonError::into_inner).by_key.keys().cloned().collect()
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
        })?;
        match &found {
            Some(routes) => self.last_known.insert(key.clone(), routes.clone()).await,
            None => self.last_known.invalidate(key).await,
        }
        Ok(found)
    }

    async fn load(&self, key: &CampaignKey) -> Result<Option<Arc<Routes>>, NotLoaded> {
        let Some(redis) = &self.redis else { return self.ask_database(key).await.map(routes) };
        let was_garbage = match redis.get(key).await {
            Found::Campaign(campaign) => return Ok(compile(*campaign)),
            Found::Deleted => return Ok(None),
            Found::Failed => return self.ask_database(key).await.map(routes),
            Found::Nothing => false,
            Found::Garbage => true,
        };
        match redis.claim(key).await {
            Filler::Other(campaign) => Ok(routes(campaign.map(|campaign| *campaign))),
            Filler::Us => {
                let found = self.ask_database(key).await?;
                redis.fill(key, found.as_ref(), was_garbage).await;
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

    /// Polls, and brings what changed to Redis; whether Postgres answered.
    async fn see_changes(&self) -> bool {
        match self.poll().await {
            Ok(()) => {
                self.write_to_redis().await;
                self.save_if_due().await;
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "cannot refresh the campaigns; the next poll will");
                false
            }
        }
    }

    /// Reads what changed since the last poll; everything the first time, after a deletion by hand, after Postgres
    /// went back in time, and from another server than before: what was seen of that one may be lost.
    async fn poll(&self) -> Result<(), db::Error> {
        let mut seen = self.seen.lock().await;
        let is_known = seen.horizon != 0;
        let mut is_full = self.reload.swap(false, Ordering::Relaxed) || !is_known;
        let read = async {
            let mut read = self.read_since(if is_full { 0 } else { seen.horizon }, !is_known).await?;
            if !is_full && (read.horizon < seen.horizon || seen.server != Some(read.server)) {
                tracing::info!("PostgreSQL was started again or is another server; reading all campaigns");
                is_full = true;
                read = self.read_since(0, false).await?;
            }
            Ok(read)
        };
        let Changes { horizon, server, is_foreign, list: changes } = match read.await {
            Ok(read) => read,
            Err(error) => {
                // asked for and not done
                self.reload.fetch_or(is_full && is_known, Ordering::Relaxed);
                return Err(error);
            }
        };
        *seen = Seen { horizon, server: Some(server) };
        if is_foreign {
            self.heal().await;
        }
        self.identify(is_full).await;
        let is_first = self.source.swap(Source::Database as u64, Ordering::Relaxed) == Source::Nothing as u64;
        self.confirmed.store(self.now_ms(), Ordering::Relaxed);
        self.is_stale.store(false, Ordering::Relaxed);
        if !is_full && changes.is_empty() {
            return Ok(());
        }
        let keys = self.replace(changes, is_full);
        self.changes.fetch_add(1, Ordering::Relaxed);
        for key in &keys {
            self.forget(key).await;
        }
        if !keys.is_empty() {
            self.file.must_save();
        }
        // the first load does not fill Redis: look-ups do
        if !is_first {
            self.must_write(keys);
        }
        Ok(())
    }

    /// Asks the database which one it is, where names in Redis are made of it: at first, and whenever everything is
    /// read again, because it may have been replaced. What cannot be asked now is asked at the next poll; until then
    /// what was saved holds, and without that Redis is not asked.
    async fn identify(&self, is_full: bool) {
        let Some(redis) = self.redis.as_ref().filter(|redis| redis.is_named_by_database()) else { return };
        if !is_full && redis.installation().is_some() {
            return;
        }
        match db::store::installation::identify(&self.db).await {
            Ok(identity) => {
                // an empty set is not worth a save, but for the next one to wait for
                if redis.name_after(&identity) && self.state().0 > 0 {
                    self.file.must_save();
                }
            }
            Err(error @ db::Error::Query { .. }) if is_full => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    error,
                    "the database does not say which one it is: without redis.key_prefix Redis is not used"
                );
            }
            Err(error) => tracing::debug!(?error, "the database was not asked which one it is"),
        }
    }

    /// The installation that names in Redis are made of, where they are.
    fn installation(&self) -> Option<Arc<str>> {
        self.redis.as_ref()?.installation()
    }

    /// What changed, and what to ask for next time: the smallest horizon of all pages, and the server of the first. A
    /// node that has read nothing yet takes what a replica says (`may_lag`).
    async fn read_since(&self, since: i64, may_lag: bool) -> Result<Changes, db::Error> {
        let mut read: Option<Changes> = None;
        let mut after = None;
        loop {
            let page = db::store::campaigns::changed_since(&self.db, since, after, PAGE, may_lag).await?;
            after = page.list.last().map(|change| change.campaign.id);
            let is_last = page.list.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            let read = match &mut read {
                None => read.insert(page),
                Some(read) => {
                    read.horizon = read.horizon.min(page.horizon);
                    read.list.extend(page.list);
                    read
                }
            };
            if is_last {
                return Ok(std::mem::take(read));
            }
        }
    }

    /// Of a database that was restored from the dump of another one: otherwise each poll would read the same campaigns.
    async fn heal(&self) {
        match db::store::campaigns::heal(&self.db).await {
            Ok(0) => {} // another node was faster
            Ok(campaigns) => tracing::info!(
                campaigns,
                "the database came from another server, as a dump does: its campaigns have transaction ids of this one now"
            ),
            Err(error) => tracing::debug!(?error, "campaigns keep transaction ids of another server"),
        }
    }

    /// Notes that Redis has something else of these campaigns; the next writer brings it there.
    fn must_write(&self, changed: impl IntoIterator<Item = CampaignKey>) {
        if self.redis.is_none() {
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
    async fn write_to_redis(&self) {
        let Some(redis) = &self.redis else { return };
        let _one = self.writing.lock().await;
        let keys: Vec<CampaignKey> = self.unwritten().iter().cloned().collect();
        for key in &keys {
            if !redis.is_closed() {
                return;
            }
            self.unwritten().remove(key); // before it is looked at: a change from now on is noted again
            let set = || self.set.read().unwrap_or_else(PoisonError::into_inner);
            let routes = set().by_key.get(key.as_str()).cloned();
            if redis.put(key, routes.as_ref().map(|r| &r.campaign)).await {
                // what was looked up while Redis still had the old
                self.changes.fetch_add(1, Ordering::Relaxed);
                self.forget(key).await;
            } else {
                self.unwritten().insert(key.clone());
            }
        }
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, HashSet<CampaignKey>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts changes into the set; returns the keys that mean something else now, or nothing any more.
    fn replace(&self, changes: Vec<db::store::campaigns::Change>, is_full: bool) -> Vec<CampaignKey> {
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Vec::new();
        if is_full {
            let fresh = whole(changes);
            let version = |routes: &Arc<Routes>| {
                let Campaign { id, version, updated_at, .. } = &routes.campaign;
                (*id, *version, *updated_at)
            };
            let is_other = |(key, routes): &(&CampaignKey, &Arc<Routes>), set: &Set| {
                set.by_key.get(*key).map(version) != Some(version(routes))
            };
            keys.extend(fresh.by_key.iter().filter(|e| is_other(e, &set)).map(|(key, _)| key.clone()));
            keys.extend(set.by_key.keys().filter(|key| !fresh.by_key.contains_key(*key)).cloned());
            *set = fresh;
        } else {
            for change in changes {
                set.apply(change, &mut keys);
            }
        }
        metrics::cache_campaigns(set.by_key.len());
        keys
    }

    fn load_saved(&self) {
        match saved::load(self.file.path()) {
            Ok(None) => {}
            Ok(Some(saved)) => {
                let change = |campaign| db::store::campaigns::Change { campaign, is_deleted: false };
                self.replace(saved.campaigns.into_iter().map(change).collect(), true);
                if let (Some(redis), Some(installation)) = (&self.redis, saved.installation) {
                    redis.name(installation.into());
                }
                self.source.store(Source::Disk as u64, Ordering::Relaxed);
            }
            Err(error) => {
                let path = self.file.path().display();
                tracing::warn!(%path, %error, "the saved campaigns cannot be read; ignored");
            }
        }
    }

    fn note_failure(&self) {
        self.last_failure.store(self.now_ms(), Ordering::Relaxed);
    }

    fn failed_lately(&self) -> bool {
        let last = self.last_failure.load(Ordering::Relaxed);
        last != 0 && self.now_ms().saturating_sub(last) < PAUSE_AFTER_FAILURE_MS
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl Set {
    /// Puts a change in, and names the keys it is about.
    fn apply(&mut self, change: db::store::campaigns::Change, changed: &mut Vec<CampaignKey>) {
        let campaign = change.campaign;
        let id = campaign.id;
        let known = self.keys.get(&id).and_then(|key| self.by_key.get(key));
        // what comes late (from a replica, say) is not news; the same version of another time is: the one before was
        // lost with its server
        let is_old =
            |known: &Campaign| known.version >= campaign.version && known.updated_at >= campaign.updated_at;
        if !change.is_deleted && known.is_some_and(|known| is_old(&known.campaign)) {
            return;
        }
        changed.push(campaign.key.clone());
        if let Some(old_key) = self.keys.remove(&id) {
            // the key may be another campaign's by now
            if self.by_key.get(&old_key).is_some_and(|k| k.campaign.id == id) {
                self.remove(&old_key);
            }
            changed.push(old_key);
        }
        if !change.is_deleted {
            self.keys.insert(id, campaign.key.clone());
            if let Some(routes) = compile(campaign) {
                self.insert(routes);
            }
        }
    }

    fn insert(&mut self, routes: Arc<Routes>) {
        let key = routes.campaign.key.clone();
        if self.by_key.insert(key.clone(), routes).is_none() {
            self.by_small_letters.entry(key.as_str().to_ascii_lowercase()).or_default().push(key);
        }
    }

    fn remove(&mut self, key: &CampaignKey) {
        self.by_key.remove(key);
        let small = key.as_str().to_ascii_lowercase();
        if let Some(keys) = self.by_small_letters.get_mut(&small) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.by_small_letters.remove(&small);
            }
        }
    }

    fn bent(&self, key: &str) -> Option<&Arc<Routes>> {
        let bare = key.trim_matches(['.', '-', '_']);
        let in_any_case = |key: &str| match self.by_small_letters.get(&key.to_ascii_lowercase())?.as_slice() {
            [only] => self.by_key.get(only),
            _ => None,
        };
        let is_possible = (1..=CampaignKey::BYTES_MAX).contains(&bare.len());
        is_possible
            .then(|| {
                self.by_key
                    .get(key)
                    .or_else(|| self.by_key.get(bare))
                    .or_else(|| in_any_case(key))
                    .or_else(|| in_any_case(bare))
            })
            .flatten()
    }
}

/// The set that these campaigns make.
fn whole(campaigns: Vec<db::store::campaigns::Change>) -> Set {
    let mut set = Set::default();
    for campaign in campaigns {
        set.apply(campaign, &mut Vec::new());
    }
    set
}

fn routes(campaign: Option<Campaign>) -> Option<Arc<Routes>> {
    campaign.and_then(compile)
}

/// Runs `work` to its end even if the caller hangs up: half a change must not stay half. `None`: it panicked.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    #[expect(clippy::disallowed_methods, reason = "every step of it is bounded")]
    let task = tokio::spawn(work);
    task.await.ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::tests::campaign;

    /// A change to the campaign of number `id`.
    fn change(id: u128, key: &str, version: i64, is_deleted: bool) -> db::store::campaigns::Change {
        let (id, key) = (Uuid::from_u128(id), key.parse().unwrap());
        let campaign = Campaign { id, key, version, ..campaign(Vec::new(), Vec::new()) };
        db::store::campaigns::Change { campaign, is_deleted }
    }

    #[test]
    fn keys_in_any_case_are_found_as_campaigns_come_change_and_go() {
        let mut set = Set::default();
        let found = |set: &Set, key: &str| set.bent(key).map(|routes| routes.campaign.key.to_string());
        let apply = |set: &mut Set, change| set.apply(change, &mut Vec::new());
        apply(&mut set, change(1, "Kite", 1, false));
        assert_eq!(found(&set, "KITE").as_deref(), Some("Kite"));
        apply(&mut set, change(2, "kite", 1, false));
        assert_eq!((found(&set, "KITE"), found(&set, "kite.").as_deref()), (None, Some("kite")));
        apply(&mut set, change(1, "Kite", 2, false)); // changed, not made again
        apply(&mut set, change(2, "other", 2, false)); // renamed
        assert_eq!(
            (found(&set, "KITE").as_deref(), found(&set, "-Other_").as_deref()),
            (Some("Kite"), Some("other"))
        );
        apply(&mut set, change(3, "Kite", 1, false)); // its key is another's by now
        apply(&mut set, change(1, "Kite", 3, true));
        assert_eq!(found(&set, "kitE").as_deref(), Some("Kite"));
        apply(&mut set, change(3, "Kite", 2, true));
        apply(&mut set, change(2, "other", 3, true));
        assert_eq!((found(&set, "kite"), found(&set, "OTHER")), (None, None));
        assert!(set.by_key.is_empty() && set.by_small_letters.is_empty());
        for key in ["", ".", "-._", &"k".repeat(65), &".".repeat(60_000), "a b"] {
            assert_eq!(found(&set, key), None);
        }
    }
}
