//! The campaign cache as the API shows it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{campaigns, redis};

/// The campaign cache of this node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheReport {
    /// Campaigns in memory.
    pub(crate) campaigns: usize,
    /// Where they came from: `database`, `disk` (saved by an earlier start) or `nothing`.
    #[schema(example = "database")]
    pub(crate) source: &'static str,
    /// Milliseconds since Postgres last said what they are; null: never.
    pub(crate) confirmed_ms_ago: Option<u64>,
    /// Whether that is too long ago (`cache.stale_after_polls`); they are served all the same.
    pub(crate) is_stale: bool,
    /// Keys looked up lately because they are not among the campaigns, unknown ones too.
    pub(crate) looked_up_keys: u64,
    /// Changes that wait for Redis to answer.
    pub(crate) changes_unwritten: usize,
    /// Look-ups since the start, in the order they are made.
    pub(crate) layers: Vec<CacheLayer>,
    /// Null: not configured.
    pub(crate) redis: Option<RedisReport>,
}

impl From<campaigns::Report> for CacheReport {
    fn from(it: campaigns::Report) -> Self {
        let campaigns::Report {
            campaigns,
            source,
            confirmed_ms_ago,
            is_stale,
            looked_up_keys,
            changes_unwritten,
            layers,
            redis,
        } = it;
        Self {
            campaigns,
            source,
            confirmed_ms_ago,
            is_stale,
            looked_up_keys,
            changes_unwritten,
            layers: layers.into_iter().map(Into::into).collect(),
            redis: redis.map(Into::into),
        }
    }
}

/// A layer of the cache, since the start of this process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CacheLayer {
    /// `process`, `redis` or `database`
    #[schema(example = "process")]
    pub(crate) layer: &'static str,
    /// Campaigns found.
    pub(crate) hits: u64,
    /// The next layer was asked.
    pub(crate) misses: u64,
    /// Campaigns served although nothing has confirmed them lately.
    pub(crate) stale: u64,
    /// Known not to be there.
    pub(crate) negative: u64,
    /// No answer, or one that is no campaign.
    pub(crate) errors: u64,
    /// Share that this layer answered: hits, stale and negative of all; null: it was never asked.
    #[schema(example = 0.998)]
    pub(crate) hit_ratio: Option<f64>,
}

impl From<campaigns::Layer> for CacheLayer {
    fn from(it: campaigns::Layer) -> Self {
        let campaigns::Layer { layer, hits, misses, stale, negative, errors, hit_ratio } = it;
        Self { layer, hits, misses, stale, negative, errors, hit_ratio }
    }
}

/// Redis, as this node sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RedisReport {
    /// `single`, `sentinel` or `cluster`
    #[schema(example = "single")]
    pub(crate) mode: &'static str,
    /// What the names of keys and channels begin with; null: not known before PostgreSQL has answered once.
    #[schema(example = "octo:0123456789abcdef:")]
    pub(crate) key_prefix: Option<String>,
    /// `closed`, `open` (commands fail at once) or `half_open` (one command tries).
    #[schema(example = "closed")]
    pub(crate) breaker: &'static str,
    /// Connections of the pool.
    pub(crate) pool_size: usize,
    /// Connections at most.
    pub(crate) pool_max: usize,
    /// Connections that are free.
    pub(crate) pool_available: usize,
    /// Commands that wait for a connection.
    pub(crate) pool_waiting: usize,
    /// Of the server, or of all masters of a Cluster together; null: no answer.
    pub(crate) server: Option<RedisServerFigures>,
}

impl From<redis::RedisReport> for RedisReport {
    fn from(it: redis::RedisReport) -> Self {
        let redis::RedisReport {
            mode,
            key_prefix,
            breaker,
            pool_size,
            pool_max,
            pool_available,
            pool_waiting,
            server,
        } = it;
        Self {
            mode,
            key_prefix,
            breaker,
            pool_size,
            pool_max,
            pool_available,
            pool_waiting,
            server: server.map(Into::into),
        }
    }
}

/// What `INFO` says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RedisServerFigures {
    /// Servers that answered.
    pub(crate) nodes: usize,
    /// Bytes of data and overhead.
    pub(crate) used_memory_bytes: u64,
    /// Connections open now, of all clients.
    pub(crate) connected_clients: u64,
    /// Connections taken since the server's start.
    pub(crate) connections_received: u64,
    /// Look-ups of all clients that found a key, since the server's start.
    pub(crate) keyspace_hits: u64,
    /// Look-ups of all clients that found none.
    pub(crate) keyspace_misses: u64,
}

impl From<redis::ServerFigures> for RedisServerFigures {
    fn from(it: redis::ServerFigures) -> Self {
        let redis::ServerFigures {
            nodes,
            used_memory_bytes,
            connected_clients,
            connections_received,
            keyspace_hits,
            keyspace_misses,
        } = it;
        Self {
            nodes,
            used_memory_bytes,
            connected_clients,
            connections_received,
            keyspace_hits,
            keyspace_misses,
        }
    }
}

/// What a flush did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Flushed {
    /// Keys that were looked up and are forgotten.
    pub(crate) looked_up_forgotten: u64,
    /// Campaigns read from Postgres.
    pub(crate) campaigns_loaded: usize,
    /// Keys deleted in Redis; null: there is no Redis, or it does not answer.
    pub(crate) redis_keys_deleted: Option<u64>,
    /// Whether the other nodes were told by way of Redis; false also where there is none.
    pub(crate) others_told: bool,
}

impl From<campaigns::Flushed> for Flushed {
    fn from(it: campaigns::Flushed) -> Self {
        let campaigns::Flushed { looked_up_forgotten, campaigns_loaded, redis_keys_deleted, others_told } =
            it;
        Self { looked_up_forgotten, campaigns_loaded, redis_keys_deleted, others_told }
    }
}
