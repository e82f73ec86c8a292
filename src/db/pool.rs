//! A connection pool whose every use is bounded.
//!
//! [`Pool::run`] is the only way to a connection. It runs the query in a task of its own, because a handler's
//! future is dropped when its client hangs up, and a dropped `begin()` would leave a pooled connection inside
//! a transaction (sqlx issues 4385, 4393); and on a time-out it detaches the connection, because the pool
//! would otherwise ping a silent peer without end (sqlx issue 4349).

use std::{
    io,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, Postgres},
};
use tokio::time::timeout;

use super::{Error, monitor};
use crate::{config, config::millis, metrics};

/// Connections to one server.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    name: &'static str,
    pool: PgPool,
    options: PgConnectOptions,
    max_connections: u32,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    statement_timeout: Duration,
    slow: Duration,
    waiting: AtomicUsize,
}

impl Pool {
    /// A pool that connects when it is first used.
    pub fn new(name: &'static str, url: &str, config: &config::Database) -> Result<Self, Error> {
        let options = connect_options(url, config)?;
        let pool = PgPoolOptions::new()
            .min_connections(config.min_connections)
            .max_connections(config.max_connections)
            .acquire_timeout(millis(config.acquire_timeout_ms))
            .test_before_acquire(false) // a ping on every acquire is a round trip; a dead one shows itself
            .idle_timeout(Duration::from_mins(10))
            .max_lifetime(Duration::from_mins(30))
            .after_connect(move |_, _| {
                metrics::connection_created(name);
                Box::pin(async { Ok(()) })
            })
            .connect_lazy_with(options.clone());
        Ok(Self(Arc::new(Inner {
            name,
            pool,
            options,
            max_connections: config.max_connections,
            acquire_timeout: millis(config.acquire_timeout_ms),
            connect_timeout: millis(config.connect_timeout_ms),
            statement_timeout: millis(config.statement_timeout_ms),
            slow: millis(config.slow_query_ms),
            waiting: AtomicUsize::new(0),
        })))
    }

    /// Runs a query on a connection of the pool.
    pub async fn run<T, F>(&self, query: &'static str, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let pool = self.clone();
        let work = async move {
            let mut connection = pool.acquire(query).await?;
            // the server ends a statement after statement_timeout; this is for one that does not answer at all
            let deadline = pool.0.statement_timeout + Duration::from_secs(1);
            let bounded =
                async { timeout(deadline, run(&mut connection)).await.unwrap_or_else(|_| Err(timed_out())) };
            let answer = monitor::observe(query, pool.0.slow, bounded).await;
            if matches!(answer, Err(Error::Unavailable(_))) {
                drop(connection.detach());
            }
            answer
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the query must end even if its caller hangs up; it is bounded"
        )]
        let task = tokio::spawn(work);
        task.await.unwrap_or_else(|e| Err(Error::Unavailable(Box::new(e))))
    }

    /// A connection of its own, outside the pool, for a long-lived reader or writer.
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        let connecting = timeout(self.0.connect_timeout, self.0.options.connect());
        let connection = connecting.await.unwrap_or_else(|_| Err(timed_out()));
        match &connection {
            Ok(_) => metrics::connection_created(self.0.name),
            Err(_) => metrics::connection_failed(self.0.name),
        }
        connection.map_err(|e| monitor::classify("connect", e))
    }

    /// Listens on a channel, on a connection of its own. PgBouncer in transaction mode has no such thing.
    pub async fn listen(&self, channel: &str) -> sqlx::Result<PgListener> {
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(self.0.connect_timeout);
        let mut listener = PgListener::connect_with(&own.connect_with(self.0.options.clone()).await?).await?;
        listener.ignore_pool_close_event(true);
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// `primary` or `replica`.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Sets the gauges.
    pub fn observe(&self) {
        let size = self.0.pool.size() as usize;
        let idle = self.0.pool.num_idle().min(size);
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        metrics::pool_state(self.0.name, idle, size - idle, self.0.max_connections, waiting);
    }

    /// Closes all connections; bounded.
    pub async fn close(&self) {
        let _ = timeout(Duration::from_secs(2), self.0.pool.close()).await;
    }

    async fn acquire(&self, query: &'static str) -> Result<PoolConnection<Postgres>, Error> {
        let start = Instant::now();
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let acquired = timeout(self.0.acquire_timeout, self.0.pool.acquire()).await;
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        let acquired = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let ran_out = matches!(acquired, Err(sqlx::Error::PoolTimedOut));
        metrics::pool_acquire(self.0.name, start.elapsed(), ran_out);
        acquired.map_err(|source| {
            metrics::query_error(query, monitor::class(&source));
            if !ran_out {
                metrics::connection_failed(self.0.name);
            }
            // whatever keeps us from a connection (also a refused password) keeps the database unavailable
            Error::Unavailable(Box::new(source))
        })
    }
}

/// Connection settings from a URL. The settings are part of the start-up packet: no round trip.
fn connect_options(url: &str, config: &config::Database) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(|e| Error::Unavailable(Box::new(e)))?;
    let statement_timeout = config.statement_timeout_ms.to_string();
    let options = options
        .application_name("octo")
        .log_statements(log::LevelFilter::Trace)
        .log_slow_statements(log::LevelFilter::Off, Duration::ZERO);
    if config.prepared_statements {
        Ok(options.options([
            ("statement_timeout", statement_timeout.as_str()),
            ("idle_in_transaction_session_timeout", "30000"),
            ("timezone", "UTC"),
        ]))
    } else {
        // PgBouncer refuses start-up options and shares connections between clients
        Ok(options.statement_cache_capacity(0))
    }
}

/// Our own time-out as an error of sqlx.
pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}
