//! What Redis does: for `GET /api/v1/system/cache`. Bounded by the deadline of one command.

use std::collections::HashMap;

use redis::cmd;

use serde::Serialize;
use utoipa::ToSchema;

use super::Redis;

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

impl Redis {
    /// What it does, as this node sees it.
    pub(crate) async fn report(&self) -> RedisReport {
        let server = self.server_figures().await;
        let status = self.servers.status();
        RedisReport {
            mode: self.mode(),
            key_prefix: self.prefix().ok().map(|prefix| prefix.to_string()),
            breaker: self.breaker().name(),
            pool_size: status.size,
            pool_max: status.max_size,
            pool_available: status.available,
            pool_waiting: status.waiting,
            server,
        }
    }

    async fn server_figures(&self) -> Option<ServerFigures> {
        let answer: redis::Value = self.command(cmd("INFO")).await.ok()?;
        let texts: Vec<String> = match answer {
            // a Cluster: by address
            answer @ redis::Value::Map(_) => {
                redis::from_redis_value::<HashMap<String, String>>(answer).ok()?.into_values().collect()
            }
            answer => vec![redis::from_redis_value(answer).ok()?],
        };
        Some(texts.iter().fold(ServerFigures::default(), |sum, text| sum.and(text)))
    }
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
