//! The shared layer: `campaign:{key}` holds a campaign as JSON with a schema version. Every command has a
//! deadline; whatever goes wrong is a miss and counted, never an error of a click.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context;
use deadpool_redis::{Config as PoolConfig, Connection, Pool, PoolError, Runtime};
use redis::AsyncCommands;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    config::{self, millis},
    metrics,
    model::{campaign::Campaign, id::CampaignKey},
};

const SCHEMA: u32 = 1;

pub(super) struct Redis {
    pool: Pool,
    timeout: Duration,
    ttl_s: u64,
}

#[derive(Serialize)]
struct Out<'a> {
    schema: u32,
    campaign: &'a Campaign,
}

#[derive(Deserialize)]
struct In {
    schema: u32,
    campaign: Campaign,
}

impl Redis {
    /// `None` when no Redis is configured. Connects when it is first used.
    pub(super) fn new(config: &config::Redis) -> anyhow::Result<Option<Self>> {
        let Some(url) = &config.url else { return Ok(None) };
        let pool = PoolConfig::from_url(url.expose_secret())
            .builder()
            .context("redis.url is not valid")?
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .build()?;
        let timeout = millis(config.command_timeout_ms);
        Ok(Some(Self { pool, timeout, ttl_s: config.campaign_ttl_s }))
    }

    pub(super) async fn get(&self, key: &CampaignKey) -> Option<Campaign> {
        let name = redis_key(key);
        let bytes: Option<Vec<u8>> = self.command(|mut c| async move { c.get(name).await }).await?;
        let Some(bytes) = bytes else {
            metrics::cache_request("redis", "miss");
            return None;
        };
        let campaign = serde_json::from_slice::<In>(&bytes)
            .ok()
            .filter(|value| value.schema == SCHEMA && value.campaign.key == *key)
            .map(|value| value.campaign);
        metrics::cache_request("redis", if campaign.is_some() { "hit" } else { "error" });
        campaign
    }

    pub(super) async fn set(&self, campaign: &Campaign) {
        let Ok(bytes) = serde_json::to_vec(&Out { schema: SCHEMA, campaign }) else { return };
        let name = redis_key(&campaign.key);
        // +-10 %, so that campaigns written together do not expire together
        let ttl = self.ttl_s * fastrand::u64(90..=110) / 100;
        let _: Option<()> =
            self.command(|mut c| async move { c.set_ex(name, bytes, ttl.max(1)).await }).await;
    }

    pub(super) async fn delete(&self, key: &CampaignKey) {
        let name = redis_key(key);
        let _: Option<()> = self.command(|mut c| async move { c.del(name).await }).await;
    }

    pub(super) async fn ping(&self) -> bool {
        let pong: Option<String> =
            self.command(|mut c| async move { redis::cmd("PING").query_async(&mut c).await }).await;
        pong.is_some()
    }

    /// One command within the deadline, connection included; `None` when it failed.
    async fn command<T, F>(&self, run: impl FnOnce(Connection) -> F) -> Option<T>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let start = Instant::now();
        let work = async {
            let connection = self.pool.get().await?;
            run(connection).await.map_err(PoolError::Backend)
        };
        let (answer, outcome) = match timeout(self.timeout, work).await {
            Ok(Ok(answer)) => (Some(answer), "ok"),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a Redis command failed");
                (None, "error")
            }
            Err(_) => (None, "timeout"),
        };
        metrics::redis_command(outcome, start.elapsed());
        answer
    }
}

fn redis_key(key: &CampaignKey) -> String {
    format!("campaign:{key}")
}
