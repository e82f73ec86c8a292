//! Postgres: the pools and every SQL statement of octo. Nothing above this module sees SQL or a connection.
//!
//! A query is a function in the module of its noun, run through [`Db::read`] or [`Db::write`] under the name
//! `noun.verb`. Both own the whole of acquire, time-out and clean-up (see [`pool`]).

pub mod campaigns;
pub mod clicks;
mod copy;
pub mod dead_letters;
pub mod events;
pub mod ingest;
pub mod migrations;
pub mod monitor;
pub mod partitions;
pub mod pool;
pub mod stats;
pub mod tokens;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;

use crate::config;
use pool::Pool;

/// After every time that is stored: the end of an open range (9999-12-31).
const FAR_FUTURE: chrono::DateTime<chrono::Utc> =
    chrono::DateTime::from_timestamp(253_402_300_799, 0).expect("a time chrono can hold");

/// Why a query gave no answer. "Not found" is no error: it is `Ok(None)`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres cannot be reached, is shutting down, or did not answer in time: try again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A constraint says no.
    #[error("the constraint {constraint} does not allow it")]
    Conflict {
        /// Name of the constraint or unique index.
        constraint: String,
    },
    /// The query itself failed.
    #[error("the query {query} failed")]
    Query {
        /// `noun.verb`
        query: &'static str,
        /// What Postgres said.
        #[source]
        source: sqlx::Error,
    },
}

/// The primary and its read replicas.
pub struct Db {
    primary: Pool,
    replicas: Vec<Pool>,
    next_replica: AtomicUsize,
}

impl Db {
    /// Pools that connect when they are first used. `primary_url` is the configured one or the embedded's.
    pub fn new(primary_url: &SecretString, config: &config::Database) -> Result<Self, Error> {
        let pool = |name, url: &SecretString| Pool::new(name, url.expose_secret(), config);
        Ok(Self {
            primary: pool("primary", primary_url)?,
            replicas: config.replica_urls.iter().map(|url| pool("replica", url)).collect::<Result<_, _>>()?,
            next_replica: AtomicUsize::new(0),
        })
    }

    /// Runs a query on the primary.
    pub async fn write<T, F>(&self, query: &'static str, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.primary.run(query, run).await
    }

    /// Runs a query on the next replica in turn; on the primary when there is none or it is unavailable.
    pub async fn read<T, F>(&self, query: &'static str, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        if !self.replicas.is_empty() {
            let turn = self.next_replica.fetch_add(1, Ordering::Relaxed) % self.replicas.len();
            match self.replicas[turn].run(query, run.clone()).await {
                Err(Error::Unavailable(_)) => {}
                answer => return answer,
            }
        }
        self.primary.run(query, run).await
    }

    /// The primary's pool.
    pub fn primary(&self) -> &Pool {
        &self.primary
    }

    /// The replicas' pools, in the order of the configuration.
    pub fn replicas(&self) -> &[Pool] {
        &self.replicas
    }

    /// Sets the gauges of the pools.
    pub fn observe_pools(&self) {
        self.primary.observe();
        self.replicas.iter().for_each(Pool::observe);
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.primary.close().await;
        for replica in &self.replicas {
            replica.close().await;
        }
    }
}
