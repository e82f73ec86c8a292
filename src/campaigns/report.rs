//! What the cache does: for `GET /api/v1/system/cache`. Bounded by the deadline of a Redis command.

use std::{sync::PoisonError, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Campaigns, Source};
use crate::{
    metrics::{self, CacheLayer},
    redis::RedisReport,
};

/// The campaign cache of this node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheReport)]
pub struct Report {
    /// Campaigns in memory.
    pub campaigns: usize,
    /// Where they came from: `database`, `disk` (saved by an earlier start) or `nothing`.
    #[schema(example = "database")]
    pub source: &'static str,
    /// Milliseconds since Postgres last said what they are; null: never.
    pub confirmed_ms_ago: Option<u64>,
    /// Whether that is too long ago (`cache.stale_after_polls`); they are served all the same.
    pub is_stale: bool,
    /// Keys looked up lately because they are not among the campaigns, unknown ones too.
    pub looked_up_keys: u64,
    /// Changes that wait for Redis to answer.
    pub changes_unwritten: usize,
    /// Look-ups since the start, in the order they are made.
    pub layers: Vec<Layer>,
    /// Null: not configured.
    pub redis: Option<RedisReport>,
}

/// A layer of the cache, since the start of this process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheLayer)]
pub struct Layer {
    /// `process`, `redis` or `database`
    #[schema(example = "process")]
    pub layer: &'static str,
    /// Campaigns found.
    pub hits: u64,
    /// The next layer was asked.
    pub misses: u64,
    /// Campaigns served although nothing has confirmed them lately.
    pub stale: u64,
    /// Known not to be there.
    pub negative: u64,
    /// No answer, or one that is no campaign.
    pub errors: u64,
    /// Share that this layer answered: hits, stale and negative of all; null: it was never asked.
    #[schema(example = 0.998)]
    pub hit_ratio: Option<f64>,
}

impl Campaigns {
    /// What the cache does.
    pub async fn report(&self) -> Report {
        let redis = match &self.shared {
            Some(shared) => Some(shared.redis().report().await),
            None => None,
        };
        let (campaigns, source) = self.state();
        self.looked_up.run_pending_tasks().await; // so that the count is right
        Report {
            campaigns,
            source: match source {
                Source::Nothing => "nothing",
                Source::Disk => "disk",
                Source::Database => "database",
            },
            confirmed_ms_ago: self.confirmed_age().map(millis_of),
            is_stale: self.is_stale(),
            looked_up_keys: self.looked_up.entry_count(),
            changes_unwritten: self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).len(),
            layers: CacheLayer::ALL.into_iter().map(layer).collect(),
            redis,
        }
    }
}

fn layer(layer: CacheLayer) -> Layer {
    let [hits, misses, stale, negative, errors] = metrics::cache_requests(layer);
    let all = hits + misses + stale + negative + errors;
    let hit_ratio = (all > 0).then(|| (hits + stale + negative) as f64 / all as f64);
    Layer { layer: layer.name(), hits, misses, stale, negative, errors, hit_ratio }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
