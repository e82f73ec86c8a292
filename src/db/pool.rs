//! A connection pool whose every use is bounded and counted.
//!
//! [`Pool::run`] is the only way to a pooled connection: it owns acquire, time-out, hand-back and
//! classification. The pool itself is `deadpool`'s, the connections are sqlx's. The pool of sqlx 0.9 was
//! measured and left: it pings a connection each time it comes back, without a time-out, so a silent peer keeps
//! its permit for ever (sqlx issue 4349) and a query takes three round trips; and it tells nobody when a
//! connection fails or is closed.
//!
//! A query runs in a task of its own, because a handler's future is dropped when its client hangs up, and a
//! dropped `begin()` would leave a pooled connection inside a transaction (sqlx issues 4385, 4393).

pub mod connector;
mod socket;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{self, Object, PoolError, Timeouts},
};
use futures_util::future::{BoxFuture, join_all};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Error, Statement,
    monitor::{self, Monitor, Timings},
    plan,
    session::{Session, Transaction},
    statement::statements,
};
use crate::{config, metrics};
use connector::Connector;

/// How often the pool is looked after: idle connections closed, missing ones opened.
const HOUSE_KEEPING: Duration = Duration::from_secs(1);

/// A server that has no connection left may have one in a moment, or one of ours comes back.
const SERVER_FULL_PAUSE: Duration = Duration::from_millis(50);

statements! {
    SET_TIMEOUT = "pool.set_timeout": "SELECT set_config('statement_timeout', $1, true)";
}

/// Connections to one server, or to whichever of several hosts is the primary.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    connections: managed::Pool<Connector>,
    min_connections: u32,
    acquire_timeout: Duration,
    connect_timeout: Duration,
    statement_timeout: Duration,
    idle_timeout: Duration,
    waiting: AtomicUsize,
    timeouts: AtomicU64,
    returned: AtomicU64,
    acquires: Mutex<Timings>,
}

/// What a pool says of itself. Counts are since the start of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// `primary` or `replica0`, `replica1`, ...
    pub pool: String,
    /// Where connections lead now, without user and password.
    pub server: String,
    /// Connections kept open.
    pub min: u32,
    /// Connections at most.
    pub max: usize,
    /// Connections a query runs on.
    pub used: usize,
    /// Connections that wait for a query.
    pub idle: usize,
    /// Queries that wait for a connection.
    pub waiting: usize,
    /// Connections opened.
    pub created: u64,
    /// Connections that could not be opened.
    pub failed: u64,
    /// Connections given back in order.
    pub returned: u64,
    /// Connections closed, for their age or because they broke.
    pub closed: u64,
    /// Waits for a connection that ran out.
    pub timeouts: u64,
    /// Waits for a connection.
    pub acquire: monitor::Summary,
}

impl Pool {
    /// A pool that connects when it is first used. `url` may name several hosts, separated by commas: the one
    /// that takes writes is used. The names of pools are labels of metrics: few and fixed.
    pub fn new(name: &str, url: &SecretString, config: &config::Database) -> Result<Self, Error> {
        Self::with_monitor(name, url, config, Arc::new(Monitor::new(config)))
    }

    /// As [`Pool::new`], of a [`Db`](super::Db) whose pools count their queries together.
    pub(super) fn with_monitor(
        name: &str,
        url: &SecretString,
        config: &config::Database,
        monitor: Arc<Monitor>,
    ) -> Result<Self, Error> {
        let connector = Connector::new(name, url.expose_secret(), config, monitor)?;
        let connections = managed::Pool::builder(connector)
            .max_size(config.max_connections as usize)
            .queue_mode(managed::QueueMode::Lifo) // few warm connections rather than many cold ones
            .timeouts(Timeouts { recycle: Some(connector::PING_TIMEOUT), ..Timeouts::new() })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| Error::Unavailable(Box::new(e)))?;
        Ok(Self(Arc::new(Inner {
            connections,
            min_connections: config.min_connections,
            acquire_timeout: config.acquire_timeout,
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            idle_timeout: config.idle_timeout,
            waiting: AtomicUsize::new(0),
            timeouts: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            acquires: Mutex::new(Timings::new()),
        })))
    }

    /// Runs a query on a connection of the pool; each of its statements may take `database.statement_timeout_ms`.
    pub async fn run<T, F>(&self, statement: Statement, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.run_bounded(statement, Within::Default, run).await
    }

    /// As [`Pool::run`], in a transaction of its own whose statements may take `limit`.
    pub async fn run_within<T, F>(&self, statement: Statement, limit: Duration, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.run_bounded(statement, Within::Limit(limit), run).await
    }

    /// As [`Pool::run_within`], for reads that see one state of the database.
    pub async fn run_snapshot<T, F>(&self, statement: Statement, limit: Duration, run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        self.run_bounded(statement, Within::Snapshot(limit), run).await
    }

    /// As [`Pool::run`], within this.
    pub(super) async fn run_bounded<T, F>(
        &self,
        statement: Statement,
        within: Within,
        run: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let pool = self.clone();
        let work = async move {
            let mut connection = pool.acquire(statement).await?;
            let start = Instant::now();
            connection.session.run_for(statement);
            let running = pool.bounded(&mut connection.session, within, run);
            let answer = pool.monitor().observe(statement, running).await;
            pool.hand_back(connection, answer.as_ref().err()).await;
            if statement != plan::EXPLAIN && pool.monitor().wants_plan(statement, start.elapsed()) {
                pool.log_plan(statement);
            }
            answer.map_err(|e| monitor::classify(statement.name(), e))
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the query must end even if its caller hangs up; it is bounded"
        )]
        let task = tokio::spawn(work.in_current_span());
        task.await.unwrap_or_else(|e| Err(Error::Unavailable(Box::new(e))))
    }

    /// The generic plan of a statement on this server, as EXPLAIN writes it: how it would run with any values.
    pub async fn explain(&self, statement: Statement) -> Result<String, Error> {
        self.run(plan::EXPLAIN, move |c| Box::pin(plan::explain(c, statement))).await
    }

    /// A connection of its own, outside the pool, for a long-lived reader or writer.
    pub async fn connect(&self) -> Result<Session<'static>, Error> {
        let connected = timeout(self.0.connect_timeout, self.connector().connect()).await;
        let connected = connected.unwrap_or_else(|_| Err(timed_out()));
        connected.map_err(|e| monitor::classify("connect", e))
    }

    /// Listens on a channel, on a connection of its own. Not through PgBouncer in transaction mode: there the
    /// server's connection would listen, and tell whoever comes next.
    pub async fn listen(&self, channel: &str) -> sqlx::Result<PgListener> {
        if !self.is_session() {
            return Err(sqlx::Error::Configuration("LISTEN needs a session; set database.direct_url".into()));
        }
        let host = timeout(self.0.connect_timeout, self.connector().find()).await;
        let (_, options) = host.unwrap_or_else(|_| Err(timed_out()))?;
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(self.0.connect_timeout);
        let port = options.get_socket().is_none().then(|| options.get_port());
        let mut listener = PgListener::connect_with(&own.connect_with(options).await?).await?;
        if let Some(port) = port {
            socket::tune(port).await;
        }
        listener.ignore_pool_close_event(true);
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Whether a connection is a session with one server: not behind PgBouncer in transaction mode.
    pub fn is_session(&self) -> bool {
        self.connector().is_prepared
    }

    /// `primary` or `replica0`, `replica1`, ...
    pub fn name(&self) -> &str {
        &self.connector().pool
    }

    /// Where connections lead, without user and password.
    pub fn server(&self) -> String {
        self.connector().server()
    }

    /// Connections lead there from now on: for the private PostgreSQL, whose place is known only when it runs.
    pub fn lead_to(&self, url: &SecretString, config: &config::Database) -> Result<(), Error> {
        self.connector().lead_to(url.expose_secret(), config)?;
        self.renew();
        Ok(())
    }

    /// Closes every connection that is idle now, and each of the others when it comes back: the server has
    /// changed or is gone, and what is open leads nowhere.
    pub fn renew(&self) {
        self.connector().renew();
        self.0.connections.retain(|_, _| false);
    }

    /// Keeps `min_connections` open and closes those above it that nobody needs, until the stop signal.
    pub async fn keep(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if stop.run_until_cancelled(self.fill()).await.is_none() {
                return;
            }
            self.close_idle();
            if stop.run_until_cancelled(sleep(HOUSE_KEEPING)).await.is_none() {
                return;
            }
        }
    }

    /// What the pool says of itself.
    pub fn state(&self) -> State {
        let status = self.0.connections.status();
        let idle = status.available.min(status.size);
        let counts = &self.connector().counts;
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        State {
            pool: self.name().to_owned(),
            server: self.server(),
            min: self.0.min_connections,
            max: status.max_size,
            used: status.size - idle,
            idle,
            waiting: self.0.waiting.load(Ordering::Relaxed),
            created: count(&counts.created),
            failed: count(&counts.failed),
            returned: count(&self.0.returned),
            closed: count(&counts.closed),
            timeouts: count(&self.0.timeouts),
            acquire: self.acquires().summary(),
        }
    }

    /// Sets the gauges.
    pub fn observe(&self) {
        let state = self.state();
        metrics::pool_state(self.name(), state.idle, state.used, state.max, state.waiting);
    }

    /// Closes the connections: idle ones at once, the others when their query ends.
    pub fn close(&self) {
        self.0.connections.close();
    }

    /// Fills the pool up. The idle connections are taken too, so that what is missing is opened.
    async fn fill(&self) {
        let missing = || self.0.connections.status().size < self.0.min_connections as usize;
        if missing() {
            let connections = (0..self.0.min_connections).map(|_| self.0.connections.get());
            let _ = timeout(self.0.connect_timeout, join_all(connections)).await;
        }
    }

    fn close_idle(&self) {
        let spare = self.0.connections.status().size.saturating_sub(self.0.min_connections as usize);
        let mut closed = 0;
        self.0.connections.retain(|connection, metrics| {
            let is_over =
                connection.is_too_old() || (closed < spare && metrics.last_used() > self.0.idle_timeout);
            closed += usize::from(is_over);
            !is_over
        });
    }

    async fn acquire(&self, statement: Statement) -> Result<Object<Connector>, Error> {
        let start = Instant::now();
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let acquired = timeout(self.0.acquire_timeout, self.connection()).await;
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        let acquired = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let ran_out = matches!(acquired, Err(sqlx::Error::PoolTimedOut));
        let took = start.elapsed();
        self.acquires().record(took);
        metrics::pool_acquire(self.name(), took, ran_out);
        self.0.timeouts.fetch_add(u64::from(ran_out), Ordering::Relaxed);
        acquired.map_err(|source| {
            metrics::query_error(statement.name(), monitor::class(&source));
            // whatever keeps us from a connection (also a refused password) keeps the database unavailable
            Error::Unavailable(Box::new(source))
        })
    }

    async fn connection(&self) -> sqlx::Result<Object<Connector>> {
        loop {
            match self.0.connections.get().await {
                Ok(connection) => return Ok(connection),
                Err(PoolError::Backend(error)) if monitor::is_server_full(&error) => {
                    sleep(SERVER_FULL_PAUSE).await;
                }
                Err(PoolError::Backend(error)) => return Err(error),
                Err(PoolError::Closed) => return Err(sqlx::Error::PoolClosed),
                Err(_) => return Err(sqlx::Error::PoolTimedOut),
            }
        }
    }

    /// The server ends a statement after its limit; this is for one that does not answer at all.
    ///
    /// A limit of its own is set for a transaction. So is every limit behind PgBouncer, where only a transaction
    /// stays with one server: parsing and executing must not part, and settings must not outlive it.
    async fn bounded<T, F>(&self, session: &mut Session<'_>, within: Within, run: F) -> sqlx::Result<T>
    where
        T: Send + 'static,
        F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>> + Send + 'static,
    {
        let limit = match within {
            Within::Default => self.0.statement_timeout,
            Within::Limit(limit) | Within::Repeatable(limit) | Within::Snapshot(limit) => limit,
        };
        let running = async {
            let transaction = match within {
                Within::Default if self.is_session() => return run(session).await,
                Within::Default | Within::Limit(_) => session.begin().await?,
                Within::Repeatable(_) => session.begin_repeatable().await?,
                Within::Snapshot(_) => session.begin_snapshot().await?,
            };
            in_transaction(transaction, limit, run).await
        };
        timeout(limit + Duration::from_secs(1), running).await.unwrap_or_else(|_| Err(timed_out()))
    }

    /// A connection that may be broken is not handed back but closed; if the server said farewell, so are the
    /// idle ones: they lead to the same server.
    async fn hand_back(&self, mut connection: Object<Connector>, error: Option<&sqlx::Error>) {
        let is_broken =
            error.is_some_and(monitor::breaks_connection) || connection.end_transaction().await.is_err();
        if is_broken {
            drop(Object::take(connection));
            if error.is_some_and(monitor::is_lost) {
                self.renew();
            }
        } else {
            drop(connection);
            self.0.returned.fetch_add(1, Ordering::Relaxed);
            metrics::connection_returned(self.name());
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the slow query's caller does not wait for it; it is bounded"
    )]
    fn log_plan(&self, statement: Statement) {
        let (pool, query) = (self.clone(), statement.name());
        // boxed, because it is itself a query
        let explaining: BoxFuture<'static, ()> = Box::pin(async move {
            match pool.explain(statement).await {
                Ok(plan) => tracing::warn!(query, plan, "the plan of a slow query"),
                Err(error) => tracing::debug!(query, ?error, "the plan of a slow query could not be read"),
            }
        });
        tokio::spawn(explaining);
    }

    fn monitor(&self) -> &Monitor {
        &self.connector().monitor
    }

    fn connector(&self) -> &Connector {
        self.0.connections.manager()
    }

    fn acquires(&self) -> std::sync::MutexGuard<'_, Timings> {
        self.0.acquires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a query runs in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Within {
    /// The connection, whose statements are held to `database.statement_timeout_ms`.
    Default,
    /// A transaction whose statements may take this long.
    Limit(Duration),
    /// Likewise; it sees one state of the database, and fails where others changed what it changes.
    Repeatable(Duration),
    /// Likewise; it only reads.
    Snapshot(Duration),
}

async fn in_transaction<T, F>(mut transaction: Transaction<'_>, limit: Duration, run: F) -> sqlx::Result<T>
where
    F: for<'c, 's> FnOnce(&'c mut Session<'s>) -> BoxFuture<'c, sqlx::Result<T>>,
{
    SET_TIMEOUT.query().bind(limit.as_millis().to_string()).execute(&mut transaction).await?;
    let answer = run(&mut transaction).await?;
    transaction.commit().await?;
    Ok(answer)
}

/// Our own time-out as an error of sqlx.
pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}
