//! Postgres: the pools and every SQL statement of octo. Nothing above this module sees SQL or a connection.
//!
//! A query is a function in the module of its noun, run through [`Db::read`], [`Db::read_primary`], [`Db::write`] or
//! [`Db::maintain`] with the [`Statement`] it is known by. They own the whole of acquire, time-out and clean-up (see
//! [`pool`]) and the choice of the server (see [`replicas`]). What runs it is a [`session`], which counts it in the
//! [`monitor`]. What is set and counted belongs to one [`Db`]; nothing here belongs to the process.

pub mod clock;
pub mod ingest;
pub mod migrations;
pub mod monitor;
pub mod partitions;
mod plan;
pub mod pool;
pub mod position;
pub mod replicas;
pub mod server_status;
pub mod session;
mod statement;
pub mod store;
mod text;
pub mod transfer;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, join, join_all};
use secrecy::SecretString;
use tokio::{
    sync::{Semaphore, SetOnce},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{config, metrics};
use monitor::Monitor;
use pool::{Pool, Within};
use replicas::{
    Replicas,
    probe::{Answer, History, Probe},
};
use session::Session;
use statement::statements;
use store::{
    affiliate_networks, campaigns, caps, clicks, conversions, costs, dead_letters, deliveries, demo,
    erasures, events, figures, fx_rates, idempotency, installation, landing_pages, library, offers,
    out_clicks, outbox, postback_targets, postbacks, reconciliation, relabels, reports, seal_keys, sessions,
    stats, tokens, traffic_sources, uses, visitor_keys,
};

pub use statement::Statement;

/// After every time that is stored: the end of an open range (9999-12-31).
pub const FAR_FUTURE: chrono::DateTime<chrono::Utc> =
    chrono::DateTime::from_timestamp(253_402_300_799, 0).expect("a time chrono can hold");

/// Every statement that octo prepares. What cannot be prepared is not among them: COPY, COMMIT, the files of
/// migrations/, EXPLAIN of a statement of the list.
pub fn statements() -> impl Iterator<Item = Statement> {
    let modules = [
        STATEMENTS,
        affiliate_networks::STATEMENTS,
        campaigns::STATEMENTS,
        clicks::STATEMENTS,
        clock::STATEMENTS,
        conversions::STATEMENTS,
        dead_letters::STATEMENTS,
        deliveries::STATEMENTS,
        demo::STATEMENTS,
        erasures::STATEMENTS,
        caps::STATEMENTS,
        costs::STATEMENTS,
        events::STATEMENTS,
        figures::STATEMENTS,
        fx_rates::STATEMENTS,
        idempotency::STATEMENTS,
        installation::STATEMENTS,
        landing_pages::STATEMENTS,
        library::STATEMENTS,
        migrations::STATEMENTS,
        offers::STATEMENTS,
        out_clicks::STATEMENTS,
        outbox::STATEMENTS,
        partitions::STATEMENTS,
        pool::STATEMENTS,
        postbacks::STATEMENTS,
        pool::connector::STATEMENTS,
        postback_targets::STATEMENTS,
        reconciliation::STATEMENTS,
        relabels::STATEMENTS,
        replicas::probe::STATEMENTS,
        reports::STATEMENTS,
        reports::costs::STATEMENTS,
        reports::exports::STATEMENTS,
        reports::facts::STATEMENTS,
        reports::names::STATEMENTS,
        reports::notes::STATEMENTS,
        seal_keys::STATEMENTS,
        server_status::STATEMENTS,
        sessions::STATEMENTS,
        stats::STATEMENTS,
        tokens::STATEMENTS,
        traffic_sources::STATEMENTS,
        transfer::STATEMENTS,
        uses::STATEMENTS,
        visitor_keys::STATEMENTS,
    ];
    modules.into_iter().chain(ingest::STATEMENTS).flatten().copied()
}

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
    /// The database cannot hold every language.
    #[error(
        "the encoding of the database is {0} and must be UTF8: make one with `CREATE DATABASE .. ENCODING 'UTF8' TEMPLATE template0`, bring what is in this one there with pg_dump, and point database.url (DATABASE_URL) at it"
    )]
    Encoding(String),
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

statements! {
    // Where the log is safe on the primary's disk. A commit that was answered is in it.
    POSITION = "position.current": "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint";

    // A client that is gone is noticed within a second, also while rows are sorted; only Linux can tell.
    SET_STREAM = "stream.set": "
    SELECT
        set_config('statement_timeout', $1, true),
        set_config('plan_cache_mode', 'force_custom_plan', true),
        set_config('jit', 'off', true),
        set_config('work_mem', '64MB', true),
        CASE
            WHEN version() LIKE '%linux%' AND current_setting('client_connection_check_interval', true) IS NOT NULL
                THEN set_config('client_connection_check_interval', '1s', true)
        END";
}

fn is_worth_elsewhere<T>(answer: &Result<T, Error>) -> bool {
    answer.as_ref().err().is_some_and(monitor::is_worth_elsewhere)
}

/// The primary and its read replicas.
pub struct Db {
    primary: Pool,
    /// Past PgBouncer, where there is one.
    direct: Pool,
    replicas: Replicas,
    monitor: Arc<Monitor>,
    /// Where the last write of this process ends in the primary's log.
    written: AtomicU64,
    /// Reads that the primary takes over while no replica can answer: few, it has the writes to do.
    spare: Semaphore,
    /// Connections beside the pools, for what is read row by row.
    streams: Semaphore,
    acquire_timeout: Duration,
    maintenance_timeout: Duration,
    probe_interval: Duration,
    probe_timeout: Duration,
    primary_seen: Mutex<Option<(Instant, Answer)>>,
    probed: SetOnce<()>,
}

impl Db {
    /// Pools that connect when they are first used. `primary_url` is the configured one or the embedded's.
    pub fn new(primary_url: &SecretString, config: &config::Database) -> Result<Self, Error> {
        let monitor = Arc::new(Monitor::new(config));
        let primary = Pool::with_monitor("primary", primary_url, config, monitor.clone())?;
        let direct = match &config.direct_url {
            Some(url) => {
                let config = config::Database { prepared_statements: true, ..config.clone() };
                Pool::with_monitor("direct", url, &config, monitor.clone())?
            }
            None => primary.clone(),
        };
        Ok(Self {
            primary,
            direct,
            replicas: Replicas::new(config, &monitor)?,
            monitor,
            written: AtomicU64::new(0),
            spare: Semaphore::new(config.primary_reads_max as usize),
            streams: Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS)),
            acquire_timeout: config.acquire_timeout,
            maintenance_timeout: config.maintenance_timeout,
            probe_interval: config.probe_interval,
            probe_timeout: config.probe_timeout,
            primary_seen: Mutex::default(),
            probed: SetOnce::new(),
        })
    }

    /// Runs a query that writes, on the primary; later reads of this process see what it wrote.
    pub async fn write<T, F>(&self, statement: Statement, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let answer = self.primary.run(statement, run).await?;
        // it is written: that its position cannot be read is no failure, a read may be a second old then
        let position = self.primary.run(POSITION, |c| Box::pin(POSITION.query_scalar::<i64>().fetch_one(c)));
        if let Ok(position) = position.await {
            self.written.fetch_max(u64::try_from(position).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Runs work on the schema or on many rows, on the primary, which may take `database.maintenance_timeout_ms`.
    pub async fn maintain<T, F>(&self, statement: Statement, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.maintain_within(statement, self.maintenance_timeout, run).await
    }

    /// As [`Db::maintain`], with a limit of its own for each statement.
    pub async fn maintain_within<T, F>(
        &self,
        statement: Statement,
        limit: Duration,
        run: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.primary.run_within(statement, limit, run).await
    }

    /// As [`Db::maintain_within`], for work that sees one state of the database, and fails (40001) where others changed what it
    /// changes.
    pub async fn maintain_repeatable<T, F>(
        &self,
        statement: Statement,
        limit: Duration,
        run: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.primary.run_bounded(statement, Within::Repeatable(limit), run).await
    }

    /// Runs reads that see one state of the database, on the primary, with a limit of its own for each statement.
    pub async fn read_snapshot<T, F>(&self, statement: Statement, limit: Duration, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.primary.run_snapshot(statement, limit, run).await
    }

    /// Runs a read that must see everything, on the primary. It is tried once more where the connection was
    /// already lost.
    pub async fn read_primary<T, F>(&self, statement: Statement, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        self.read_primary_bounded(statement, Within::Default, run).await
    }

    async fn read_primary_bounded<T, F>(
        &self,
        statement: Statement,
        within: Within,
        run: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        match self.primary.run_bounded(statement, within, run.clone()).await {
            Err(error) if monitor::is_retryable(&error) => {
                self.primary.run_bounded(statement, within, run).await
            }
            answer => answer,
        }
    }

    /// Runs a read on the next fit replica in turn that has what this process wrote and what
    /// [`position::at_least`] asks for; if that fails on another one, and if that fails too on the primary.
    pub async fn read<T, F>(&self, statement: Statement, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        self.read_bounded(statement, Within::Default, run).await
    }

    /// As [`Db::read`], for reads that see one state of the database and may take `limit` each.
    pub async fn read_report<T, F>(&self, statement: Statement, limit: Duration, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        self.read_bounded(statement, Within::Snapshot(limit), run).await
    }

    /// Runs a read of many rows, which `run` hands on as they come, on a connection of its own to a replica that is fit, else to
    /// the primary; it sees one state of the database. Dropped, the connection is closed, and the server ends the read: so a
    /// caller that hangs up ends it, other than all other queries.
    pub async fn stream<F>(&self, statement: Statement, limit: Duration, run: F) -> Result<(), Error>
    where
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<()>> + Send,
    {
        let Ok(Ok(_permit)) = timeout(self.acquire_timeout, self.streams.acquire()).await else {
            return Err(Error::Unavailable("as many streams are read as database.streams_max allows".into()));
        };
        let position = self.written().max(position::needed());
        let mut session = self.replicas.pool_for(position).unwrap_or(&self.primary).connect().await?;
        let reading = async {
            let mut transaction = session.begin_snapshot().await?;
            let limit_ms = limit.as_millis().to_string();
            SET_STREAM.query().bind(limit_ms).execute(&mut transaction).await?;
            run(&mut transaction).await?;
            transaction.commit().await
        };
        let read = timeout(limit, reading).await.unwrap_or_else(|_| Err(pool::timed_out()));
        if read.is_ok() {
            let _ = session.close().await;
        }
        read.map_err(|error| monitor::classify(statement.name(), error))
    }

    async fn read_bounded<T, F>(&self, statement: Statement, within: Within, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        if self.replicas.is_empty() {
            return self.read_primary_bounded(statement, within, run).await;
        }
        let position = self.written().max(position::needed());
        let Some(first) = self.replicas.choose(position, None) else {
            if self.replicas.is_any_fit() {
                metrics::primary_read("position");
                return self.read_primary_bounded(statement, within, run).await;
            }
            return self.read_spare(statement, within, run).await;
        };
        let mut answer = self.replicas.run(first, statement, within, run.clone()).await;
        if is_worth_elsewhere(&answer)
            && let Some(second) = self.replicas.choose(position, Some(first))
        {
            answer = self.replicas.run(second, statement, within, run.clone()).await;
        }
        if is_worth_elsewhere(&answer) { self.read_spare(statement, within, run).await } else { answer }
    }

    /// The primary in the place of replicas that are gone: a few reads at a time.
    async fn read_spare<T, F>(&self, statement: Statement, within: Within, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Clone + Send + 'static,
    {
        metrics::primary_read("no_replica");
        let Ok(Ok(_permit)) = timeout(self.acquire_timeout, self.spare.acquire()).await else {
            return Err(Error::Unavailable("no replica answers, and the primary takes no more reads".into()));
        };
        self.read_primary_bounded(statement, within, run).await
    }

    /// Where the last write of this process ends in the primary's log, in bytes; 0: it has not written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The primary's pool.
    pub fn primary(&self) -> &Pool {
        &self.primary
    }

    /// To the primary itself, past PgBouncer, for what needs a session: migrations and notifications. Its pool is
    /// not kept filled.
    pub fn direct(&self) -> &Pool {
        &self.direct
    }

    /// The replicas.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// What the queries of every pool come to, in order of name; those that have not run are there too.
    pub fn queries(&self) -> Vec<monitor::Query> {
        self.monitor.queries()
    }

    /// The generic plan of the statement `query` (`noun.verb`) on the primary, as EXPLAIN writes it. `Ok(None)`: there
    /// is no such statement.
    pub async fn explain(&self, query: &str) -> Result<Option<String>, Error> {
        match statements().find(|statement| statement.name() == query) {
            Some(statement) => self.primary.explain(statement).await.map(Some),
            None => Ok(None),
        }
    }

    /// Every pool: the primary's, then the replicas'.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        std::iter::once(&self.primary).chain(self.replicas.pools())
    }

    /// How long ago the primary last said that it is one; `None`: it did not since its last failure.
    pub fn primary_seen(&self) -> Option<Duration> {
        let seen = self.primary_seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.filter(|(_, answer)| !answer.is_standby).map(|(at, _)| at.elapsed())
    }

    /// Waits until [`Db::watch`] has asked every server once; each has `probe_timeout_ms` to answer.
    pub async fn probed(&self) {
        self.probed.wait().await;
    }

    /// Sets the gauges of the pools.
    pub fn observe_pools(&self) {
        self.pools().for_each(Pool::observe);
    }

    /// Asks the servers where they are and looks after the pools, until the stop signal.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let keeping = join_all(self.pools().map(|pool| pool.keep(stop.clone())));
        join(keeping, self.probe_until(&stop)).await;
        Ok(())
    }

    async fn probe_until(&self, stop: &CancellationToken) {
        let probe = |pool: &Pool| Probe::new(pool, self.probe_timeout);
        let mut primary = probe(&self.primary);
        let mut replicas: Vec<Probe> = self.replicas.pools().map(probe).collect();
        let mut history = History::default();
        let mut ticks = interval(self.probe_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                return;
            }
            let written = self.written();
            let asking = join(primary.ask(), join_all(replicas.iter_mut().map(Probe::ask)));
            let (of_primary, of_replicas) = asking.await;
            let now = Instant::now();
            self.forget_lost_writes(written, of_primary);
            self.note_primary(of_primary, now);
            if let Some(answer) = of_primary.filter(|answer| !answer.is_standby) {
                history.push(now, answer.position);
            }
            self.replicas.note(&of_replicas, &history, now);
            let _ = self.probed.set(()); // an error: it was set before
        }
    }

    /// Of a primary whose log ends before what was `written` before it was asked: that is lost with the one before, and
    /// no replica will ever have replayed so much of this log just for it.
    fn forget_lost_writes(&self, written: u64, answer: Option<Answer>) {
        if let Some(answer) = answer.filter(|answer| !answer.is_standby && answer.position < written) {
            // unless something was written meanwhile: then the next answer says
            let _ =
                self.written.compare_exchange(written, answer.position, Ordering::Relaxed, Ordering::Relaxed);
            tracing::warn!(
                "PostgreSQL's log ends before what this node has written: it lost its newest writes"
            );
        }
    }

    /// A primary that went away or became a standby: what is open leads to the wrong server.
    fn note_primary(&self, answer: Option<Answer>, now: Instant) {
        let mut seen = self.primary_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_primary = |answer: Option<Answer>| answer.is_some_and(|answer| !answer.is_standby);
        let was_primary = is_primary(seen.map(|(_, answer)| answer));
        *seen = answer.map(|answer| (now, answer));
        drop(seen);
        metrics::primary_up(is_primary(answer));
        if was_primary && !is_primary(answer) {
            let server = self.primary.server();
            tracing::warn!(server, "the primary does not answer, or takes no writes any more");
            self.primary.renew();
        } else if !was_primary && is_primary(answer) {
            tracing::info!(server = self.primary.server(), "the primary answers");
        }
    }

    /// Closes all connections.
    pub fn close(&self) {
        self.pools().for_each(Pool::close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_that_were_lost_with_a_primary_are_waited_for_no_more() {
        let config = config::Loaded::load(None, [], &config::Flags::default()).unwrap().config;
        let db = Db::new(&"postgres://app_user@127.0.0.1:1/none".into(), &config.database).unwrap();
        let answer = |is_standby, position| Some(Answer { is_standby, position });
        db.written.store(1000, Ordering::Relaxed);
        for (answered, left) in [
            (None, 1000),                // it did not answer
            (answer(true, 10), 1000),    // a standby may lag
            (answer(false, 1000), 1000), // all of it is there
            (answer(false, 700), 700),   // a log that ends before
        ] {
            db.forget_lost_writes(db.written(), answered);
            assert_eq!(db.written(), left, "{answered:?}");
        }
        db.written.store(900, Ordering::Relaxed);
        db.forget_lost_writes(700, answer(false, 600)); // written to the new one since it was asked
        assert_eq!(db.written(), 900);
    }
}
