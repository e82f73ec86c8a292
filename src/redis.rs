//! Redis: one handle that everybody shares. Nothing here knows what is kept there.
//!
//! Every command has a deadline (`redis.command_timeout_ms`, connection included) and passes the breaker.
//!
//! The name of each key and channel begins with `redis.key_prefix` or with `octo:{id}:`, where the id is made from the
//! database: two installations on one Redis never see what the other has. Until the database (or what an earlier start
//! saved) has said which it is, there are no names.

mod breaker;
mod commands;
mod pubsub;
mod report;
mod servers;

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{config, metrics, model::text::hex};
use breaker::Breaker;
pub(crate) use commands::{Ask, Failure};
pub(crate) use pubsub::Ended;
pub use report::{RedisReport, ServerFigures};
use servers::Servers;

/// The way to Redis.
pub struct Redis {
    servers: Servers,
    breaker: Mutex<Breaker>,
    /// Of one command.
    timeout: Duration,
    /// This process, as other nodes see it.
    node: String,
    /// What is configured; empty: made from the database.
    key_prefix: Arc<str>,
    installation: RwLock<Option<Arc<str>>>,
}

impl Redis {
    /// `None` when no Redis is configured. Connects when it is first used; an error only where the configuration is
    /// not valid.
    pub fn open(config: &config::Redis) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(servers) = Servers::new(config)? else { return Ok(None) };
        metrics::redis_breaker(false);
        Ok(Some(Arc::new(Self {
            servers,
            breaker: Mutex::new(Breaker::new(config.breaker_failures, config.breaker_wait)),
            timeout: config.command_timeout,
            node: Uuid::new_v4().simple().to_string(),
            key_prefix: config.key_prefix.as_str().into(),
            installation: RwLock::default(),
        })))
    }

    /// This process, as other nodes see it.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// `single`, `sentinel` or `cluster`.
    pub(crate) fn mode(&self) -> &'static str {
        self.servers.mode().name()
    }

    /// Whether commands pass: Redis answered the last ones.
    pub(crate) fn is_closed(&self) -> bool {
        self.breaker().is_closed()
    }

    /// Whether names are made from the database's identity.
    pub(crate) fn is_named_by_database(&self) -> bool {
        self.key_prefix.is_empty()
    }

    /// The installation that names are made of, if that is known.
    pub(crate) fn installation(&self) -> Option<Arc<str>> {
        self.installation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes names of an installation that is known from before.
    pub(crate) fn name(&self, installation: Arc<str>) {
        *self.installation.write().unwrap_or_else(PoisonError::into_inner) = Some(installation);
    }

    /// Makes names of what the database says it is; whether they are others now.
    pub(crate) fn name_after(&self, identity: &str) -> bool {
        let digest = Sha256::digest(identity);
        let id = hex(&digest[..8]);
        let is_other = self.installation().as_deref() != Some(id.as_str());
        if is_other {
            self.name(id.into());
        }
        is_other
    }

    /// What names begin with; [`Failure::Nameless`] while that is not known.
    pub(crate) fn prefix(&self) -> Result<Arc<str>, Failure> {
        if !self.key_prefix.is_empty() {
            return Ok(self.key_prefix.clone());
        }
        let id = self.installation().ok_or(Failure::Nameless)?;
        Ok(format!("octo:{id}:").into())
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
