//! What the cache does: for `GET /api/v1/system/cache`. Bounded by the deadline of a Redis command.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    campaigns::{
        Campaigns, Source,
        shared::{Ask, Redis},
    },
    metrics::{self, CacheLayer},
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

/// Redis, as this node sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedisReport {
    /// `single`, `sentinel` or `cluster`
    #[schema(example = "single")]
    pub mode: &'static str,
    /// What the names of keys and channels begin with; null: not known before PostgreSQL has answered once.
    #[schema(example = "octo:0123456789abcdef:")]
    pub key_prefix: Option<String>,
    /// `closed`, `open` (commands fail at once) or `half_open` (one command tries).
    #[schema(example = "closed")]
    pub breaker: &'static str,
    /// Connections of the pool.
    pub pool_size: usize,
    /// Connections at most.
    pub pool_max: usize,
    /// Connections that are free.
    pub pool_available: usize,
    /// Commands that wait for a connection.
    pub pool_waiting: usize,
    /// Of the server, or of all masters of a Cluster together; null: no answer.
    pub server: Option<ServerFigures>,
}

/// What `INFO` says.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = RedisServerFigures)]
pub struct ServerFigures {
    /// Servers that answered.
    pub nodes: usize,
    /// Bytes of data and overhead.
    pub used_memory_bytes: u64,
    /// Connections open now, of all clients.
    pub connected_clients: u64,
    /// Connections taken since the server's start.
    pub connections_received: u64,
    /// Look-ups of all clients that found a key, since the server's start.
    pub keyspace_hits: u64,
    /// Look-ups of all clients that found none.
    pub keyspace_misses: u64,
}

impl Campaigns {
    /// What the cache does.
    pub async fn report(&self) -> Report {
        let redis = match &self.redis {
            Some(redis) => Some(redis_report(redis).await),
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

async fn redis_report(redis: &Redis) -> RedisReport {
    let server = figures(redis).await;
    let status = redis.servers().status();
    RedisReport {
        mode: redis.servers().mode().name(),
        key_prefix: redis.names().ok().map(|names| names.prefix().to_owned()),
        breaker: redis.breaker(),
        pool_size: status.size,
        pool_max: status.max_size,
        pool_available: status.available,
        pool_waiting: status.waiting,
        server,
    }
}

async fn figures(redis: &Redis) -> Option<ServerFigures> {
    let answer: redis::Value = redis.ask(&Ask::One(redis::cmd("INFO"))).await.ok()?;
    let texts: Vec<String> = match answer {
        // a Cluster: by address
        answer @ redis::Value::Map(_) => {
            redis::from_redis_value::<HashMap<String, String>>(answer).ok()?.into_values().collect()
        }
        answer => vec![redis::from_redis_value(answer).ok()?],
    };
    Some(texts.iter().fold(ServerFigures::default(), |sum, text| sum.and(text)))
}

impl ServerFigures {
    /// Together with those of a server that says `info`.
    fn and(self, info: &str) -> Self {
        let number = |name: &str| -> u64 {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            nodes: self.nodes + 1,
            used_memory_bytes: self.used_memory_bytes + number("used_memory"),
            connected_clients: self.connected_clients + number("connected_clients"),
            connections_received: self.connections_received + number("total_connections_received"),
            keyspace_hits: self.keyspace_hits + number("keyspace_hits"),
            keyspace_misses: self.keyspace_misses + number("keyspace_misses"),
        }
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_servers_add_up() {
        let info = "# Memory\r\nused_memory:100\r\nused_memory_human:100B\r\nconnected_clients:2\r\nkeyspace_hits:3\r\n";
        let sum = ServerFigures::default().and(info).and(info);
        assert_eq!((sum.nodes, sum.used_memory_bytes, sum.connected_clients), (2, 200, 4));
        assert_eq!((sum.keyspace_hits, sum.keyspace_misses), (6, 0));
    }
}
