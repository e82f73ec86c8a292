//! What nodes tell each other of counts: their own numbers, and they take those of the others. By way of Redis every
//! `caps.share_interval_ms`; by way of Postgres where there is no Redis or it does not answer, and beside it every
//! [`POSTGRES_BESIDE_REDIS`], so that a Redis that forgets everything takes no count along. Each tells only what it does
//! not have yet, and asks only for what is counted here or was asked for of late.
//!
//! In Redis: a hash for each counter and window, `{caps}:NAME:FROM`, whose fields are processes; all are of one slot. In
//! Postgres: a row of `cap_counts` for each counter, window and process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use redis::cmd;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Caps, Counter, HEARD_FOR_S, Store, file, window::Window};
use crate::{
    config,
    db::{
        Db,
        store::caps::{self, Row},
    },
    metrics,
    model::rule::CapOf,
    redis::{Ask, Failure, Redis},
};

/// How often Postgres is told where Redis answers.
const POSTGRES_BESIDE_REDIS: Duration = Duration::from_secs(10);

/// How often Postgres forgets windows that are over.
const FORGET_INTERVAL: Duration = Duration::from_hours(1);

/// New counters are heard of together.
const NEW_PAUSE: Duration = Duration::from_millis(5);

/// Counters of one statement or pipeline.
const COUNTERS_AT_ONCE: usize = 500;

/// How long a window that is over is kept in the stores.
const KEPT_AFTER: TimeDelta = TimeDelta::hours(1);

/// Bytes of the file that are written a second at most.
const FILE_BYTES_PER_S: usize = 1 << 20;

/// What is told of a counter.
struct Told {
    counter: Arc<Counter>,
    window: Window,
    /// What the store does not have.
    counts: Vec<(Uuid, u64)>,
}

/// Which counters take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those of which nothing was heard.
    New,
    /// Those that the store has less of than this process knows.
    Untold,
    /// Those, and what was asked for of late.
    Asked,
}

/// The stores and how counts are told.
pub(crate) struct Sharing {
    pub(crate) caps: Arc<Caps>,
    pub(crate) redis: Option<Arc<Redis>>,
    pub(crate) db: Arc<Db>,
    pub(crate) config: config::Caps,
    pub(crate) file: std::path::PathBuf,
}

impl Sharing {
    /// Tells and hears until the stop signal, and tells the last before it ends.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut told_postgres_at, mut forgot_at) = (Instant::now(), None::<Instant>);
        let mut save_from = Instant::now();
        let mut was_shared = true;
        loop {
            let is_over = stop.is_cancelled();
            let next = Instant::now() + self.config.share_interval;
            let mut is_shared = match &self.redis {
                Some(redis) => self.tell_redis(redis, Which::Asked).await,
                None => false,
            };
            if !is_shared {
                is_shared = self.tell_postgres(Which::Asked).await;
            } else if is_over || told_postgres_at.elapsed() >= POSTGRES_BESIDE_REDIS {
                told_postgres_at = Instant::now();
                self.tell_postgres(Which::Untold).await;
            }
            if is_shared != was_shared {
                was_shared = is_shared;
                if is_shared {
                    tracing::info!("the counts of caps are shared again");
                } else {
                    tracing::warn!("the counts of caps cannot be shared; this node goes on with its own");
                }
            }
            if is_over || Instant::now() >= save_from {
                let bytes = self.save().await;
                let pause = Duration::from_millis((bytes * 1000 / FILE_BYTES_PER_S) as u64);
                save_from = Instant::now() + pause;
            }
            if is_over {
                return Ok(());
            }
            self.caps.forget(Utc::now().timestamp());
            metrics::cap_counters(self.caps.len());
            if forgot_at.is_none_or(|at| at.elapsed() >= FORGET_INTERVAL)
                && caps::delete_old(&self.db).await.is_ok()
            {
                forgot_at = Some(Instant::now());
            }
            self.hear_of_new_until(next, &stop).await;
        }
    }

    /// Waits for the next round; meanwhile others are asked for new counters at once.
    async fn hear_of_new_until(&self, next: Instant, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(next) => return,
                () = self.caps.new.notified() => {}
            }
            sleep(NEW_PAUSE).await;
            if let Some(redis) = &self.redis {
                // what Redis lost, Postgres may have
                tokio::join!(self.tell_postgres(Which::New), self.tell_redis(redis, Which::New));
            } else {
                self.tell_postgres(Which::New).await;
            }
        }
    }

    /// Whether Redis answered, or there was nothing to say.
    async fn tell_redis(&self, redis: &Redis, which: Which) -> bool {
        for told in self.caps.told(Store::Redis, which).chunks(COUNTERS_AT_ONCE) {
            match self.ask_redis(redis, told).await {
                Ok(answers) => {
                    for (told, has) in told.iter().zip(answers) {
                        let has: Vec<_> = has
                            .into_iter()
                            .filter_map(|(node, count)| Some((node.parse().ok()?, count)))
                            .collect();
                        hear(Store::Redis, told, &has);
                    }
                    metrics::caps_shared("redis");
                }
                Err(error) => {
                    tracing::debug!(?error, "the counts of caps were not shared by Redis");
                    metrics::caps_shared("failed");
                    return false;
                }
            }
        }
        true
    }

    async fn ask_redis(&self, redis: &Redis, told: &[Told]) -> Result<Vec<HashMap<String, u64>>, Failure> {
        let prefix = redis.prefix()?;
        let mut pipeline = redis::pipe();
        for Told { counter, window, counts } in told {
            let key = format!("{prefix}{{caps}}:{}:{}", counter.id, window.from);
            if !counts.is_empty() {
                let mut set = cmd("HSET");
                set.arg(&key);
                for (node, count) in counts {
                    set.arg(node.simple().to_string()).arg(count);
                }
                pipeline.add_command(set).ignore();
                let kept_until = self.kept_until(*window).timestamp_millis();
                pipeline.cmd("PEXPIREAT").arg(&key).arg(kept_until).ignore();
            }
            pipeline.cmd("HGETALL").arg(&key);
        }
        redis.ask(&Ask::Together(pipeline)).await
    }

    /// Whether Postgres answered, or there was nothing to say.
    async fn tell_postgres(&self, which: Which) -> bool {
        for told in self.caps.told(Store::Postgres, which).chunks(COUNTERS_AT_ONCE) {
            let asked = told.iter().map(|told| (told.counter.id.to_string(), begin(told.window))).collect();
            let rows = told.iter().flat_map(|told| {
                let kept_until = self.kept_until(told.window);
                let row = move |&(node, count): &(Uuid, u64)| Row {
                    counter: told.counter.id.to_string(),
                    starts_at: begin(told.window),
                    node,
                    count: i64::try_from(count).unwrap_or(i64::MAX),
                    kept_until,
                };
                told.counts.iter().map(row)
            });
            match caps::share(&self.db, asked, rows.collect()).await {
                Ok(rows) => {
                    let mut has: HashMap<_, Vec<_>> = HashMap::new();
                    for (counter, node, count) in rows {
                        has.entry(counter).or_default().push((node, u64::try_from(count).unwrap_or(0)));
                    }
                    for told in told {
                        let has = has.remove(&told.counter.id.to_string()).unwrap_or_default();
                        hear(Store::Postgres, told, &has);
                    }
                    metrics::caps_shared("postgres");
                }
                Err(error) => {
                    tracing::debug!(?error, "the counts of caps were not shared by PostgreSQL");
                    metrics::caps_shared("failed");
                    return false;
                }
            }
        }
        true
    }

    fn kept_until(&self, window: Window) -> DateTime<Utc> {
        match window.times() {
            (_, Some(until)) => until + KEPT_AFTER,
            (_, None) => Utc::now() + self.config.total_keep,
        }
    }

    /// Writes the file if anything changed; how many bytes.
    async fn save(&self) -> usize {
        let (caps, path, bytes_max) = (self.caps.clone(), self.file.clone(), self.config.file_bytes_max);
        let saving = tokio::task::spawn_blocking(move || file::save(&caps, &path, bytes_max));
        match saving.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                let path = self.file.display();
                tracing::warn!(%path, %error, "cannot keep the counts of caps in a file");
                FILE_BYTES_PER_S * 10 // not every interval
            }
            Err(_) => 0,
        }
    }
}

/// What is counted for ever begins with time.
fn begin(window: Window) -> DateTime<Utc> {
    DateTime::from_timestamp(window.from, 0).unwrap_or_default()
}

impl Caps {
    /// How many counters there are.
    fn len(&self) -> usize {
        self.len.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn told(&self, store: Store, which: Which) -> Vec<Told> {
        let now_s = Utc::now().timestamp();
        let told = |counter: Arc<Counter>| {
            let count = counter.lock();
            let is_asked = count.asked_at_s + HEARD_FOR_S >= now_s;
            let takes_part = match which {
                Which::New => is_asked && !count.is_heard,
                Which::Untold => count.is_untold(store),
                Which::Asked => is_asked || count.is_untold(store),
            };
            if !takes_part || count.window.is_over(now_s) {
                return None;
            }
            let untold = count.tallies.iter().filter(|tally| tally.count > tally.stored[store as usize]);
            let counts = untold.map(|tally| (tally.node, tally.count)).collect();
            let window = count.window;
            drop(count);
            Some(Told { counter, window, counts })
        };
        self.all().into_iter().filter_map(told).collect()
    }
}

/// Takes what a store has of a counter after it was told.
fn hear(store: Store, told: &Told, has: &[(Uuid, u64)]) {
    let mut count = told.counter.lock();
    if count.window != told.window {
        return;
    }
    let over = count.hear(store, has, &told.counts);
    drop(count);
    if over > 0 && told.counter.id.of != CapOf::Conversions {
        metrics::cap_overshoot(over);
    }
}
