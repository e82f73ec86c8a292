//! Campaigns in memory, in Redis and on disk.

use std::sync::atomic::{AtomicU64, Ordering};

families! {
    counter look_ups("octo_campaign_cache_requests_total", layer, outcome) =
        "Campaign look-ups by layer and outcome.";
    gauge campaigns_in_memory("octo_campaign_cache_campaigns") = "Campaigns in memory."
        => /// Campaigns in memory.
           cache_campaigns(count: usize): count as f64;
    counter look_ups_refused("octo_campaign_look_ups_refused_total") =
        "Keys that are not in memory and were not looked up: too many such keys were asked for.",
        zeros Plain
        => /// A key was not looked up, because too many are.
           look_up_refused(): 1;
    counter saves("octo_campaigns_saved_total") =
        "Times the campaigns in memory were saved to disk (campaigns.json).",
        zeros Plain;
    counter saved_bytes("octo_campaigns_saved_bytes_total") = "Bytes written when campaigns were saved to disk.", zeros Plain;
}

/// A layer of the campaign cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLayer {
    /// Memory of this process.
    Process,
    /// Redis.
    Redis,
    /// Postgres.
    Database,
}

/// What became of a look-up in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// Found.
    Hit,
    /// Not there: the next layer is asked.
    Miss,
    /// Found, and not confirmed lately.
    Stale,
    /// Known not to be there.
    Negative,
    /// No answer, or one that is no campaign.
    Error,
}

impl CacheLayer {
    /// In the order they are asked.
    pub const ALL: [Self; 3] = [Self::Process, Self::Redis, Self::Database];

    /// As the label says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Redis => "redis",
            Self::Database => "database",
        }
    }
}

const CACHE_OUTCOMES: [&str; 5] = ["hit", "miss", "stale", "negative", "error"];

/// Look-ups by layer and outcome. They are counted here, because `/system/cache` shows them too and the
/// recorder's counters cannot be read; [`observe_cache`] hands them on.
static CACHE_REQUESTS: [[AtomicU64; CACHE_OUTCOMES.len()]; CacheLayer::ALL.len()] =
    [const { [const { AtomicU64::new(0) }; CACHE_OUTCOMES.len()] }; CacheLayer::ALL.len()];

/// A look-up of a campaign.
pub fn cache_request(layer: CacheLayer, outcome: CacheOutcome) {
    CACHE_REQUESTS[layer as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
}

/// Look-ups of a layer since the start: hits, misses, stale, negative, errors.
pub fn cache_requests(layer: CacheLayer) -> [u64; CACHE_OUTCOMES.len()] {
    CACHE_REQUESTS[layer as usize].each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// Hands the look-ups to the recorder: before each scrape.
pub fn observe_cache() {
    for layer in CacheLayer::ALL {
        for (outcome, count) in CACHE_OUTCOMES.into_iter().zip(cache_requests(layer)) {
            look_ups(layer.name(), outcome).absolute(count);
        }
    }
}

/// The campaigns were saved on disk.
pub fn campaigns_saved(bytes: u64) {
    saves().increment(1);
    saved_bytes().increment(bytes);
}
