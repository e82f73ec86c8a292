//! How a connection is made, to which host, and when an idle one may be used again.

use std::{
    str::FromStr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use futures_util::stream::{FuturesUnordered, StreamExt};
use sqlx::{ConnectOptions, Connection as _, Row as _, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::{socket, timed_out};
use crate::{
    config,
    db::{Error, monitor::Monitor, session::Session, statement::statements},
    metrics,
};

statements! {
    /// Whether the server is a standby, which takes no writes.
    IS_STANDBY = "pool.is_standby": "SELECT pg_is_in_recovery()";
}

/// Longest wait for the answer to a ping.
pub(super) const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// Of several hosts the next is tried this much later: the first one is nearly always right.
const NEXT_HOST_AFTER: Duration = Duration::from_millis(250);

/// Makes the connections of one pool.
pub(super) struct Connector {
    pub(super) pool: String,
    pub(super) counts: Arc<Counts>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) is_prepared: bool,
    hosts: RwLock<Arc<[PgConnectOptions]>>,
    /// Which host the last connection led to; the next one tries it first.
    last_host: AtomicUsize,
    generation: AtomicU64,
    connect_timeout: Duration,
    max_lifetime: Duration,
    idle_check: Duration,
}

/// Since the start of the process.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) created: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) closed: AtomicU64,
}

/// A pooled connection. Dropping it closes its socket at once, whether the peer answers or not.
pub(super) struct Connection {
    pub(super) session: Session<'static>,
    generation: u64,
    too_old_at: Instant,
    pool: String,
    counts: Arc<Counts>,
}

impl Connection {
    pub(super) fn is_too_old(&self) -> bool {
        Instant::now() >= self.too_old_at
    }

    /// sqlx leaves the ROLLBACK of a transaction that was dropped in its buffer until the next query: until then
    /// the transaction would hold its locks. What waits there is sent, and its answer awaited.
    pub(super) async fn end_transaction(&mut self) -> sqlx::Result<()> {
        if !self.session.should_flush() {
            return Ok(());
        }
        timeout(PING_TIMEOUT, self.session.ping()).await.unwrap_or_else(|_| Err(timed_out()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counts.closed.fetch_add(1, Ordering::Relaxed);
        metrics::connection_closed(&self.pool);
    }
}

impl Connector {
    pub(super) fn new(
        pool: &str,
        url: &str,
        config: &config::Database,
        monitor: Arc<Monitor>,
    ) -> Result<Self, Error> {
        Ok(Self {
            pool: pool.to_owned(),
            counts: Arc::default(),
            monitor,
            is_prepared: config.prepared_statements,
            hosts: RwLock::new(all_options(url, config)?),
            last_host: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            connect_timeout: config.connect_timeout,
            max_lifetime: config.max_lifetime,
            idle_check: config.idle_check,
        })
    }

    /// Connections made from now on lead there.
    pub(super) fn lead_to(&self, url: &str, config: &config::Database) -> Result<(), Error> {
        *self.hosts.write().unwrap_or_else(PoisonError::into_inner) = all_options(url, config)?;
        self.last_host.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn hosts(&self) -> Arc<[PgConnectOptions]> {
        self.hosts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections made before this are not used again.
    pub(super) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the last connection led to.
    pub(super) fn server(&self) -> String {
        let hosts = self.hosts();
        let host = &hosts[self.last_host.load(Ordering::Relaxed) % hosts.len()];
        match host.get_socket() {
            Some(directory) => directory.display().to_string(),
            None => format!("{}:{}", host.get_host(), host.get_port()),
        }
    }

    /// A connection outside the pool, which is not among its counts.
    pub(super) async fn connect(&self) -> sqlx::Result<Session<'static>> {
        self.find().await.map(|(session, _)| session)
    }

    /// A connection to the one host, or to the one of several that takes writes, and how it was made. All are
    /// asked, one a little after the other, because a host that is gone may also just be silent.
    pub(super) async fn find(&self) -> sqlx::Result<(Session<'static>, PgConnectOptions)> {
        let first = self.last_host.load(Ordering::Relaxed);
        let hosts = &self.hosts();
        let mut attempts: FuturesUnordered<_> = (0..hosts.len())
            .map(|turn| async move {
                let host = (first + turn) % hosts.len();
                sleep(NEXT_HOST_AFTER * u32::try_from(turn).unwrap_or(u32::MAX)).await;
                (host, self.try_host(&hosts[host], hosts.len() > 1).await)
            })
            .collect();
        let mut failure = timed_out();
        while let Some((host, attempt)) = attempts.next().await {
            match attempt {
                Ok(session) => {
                    self.last_host.store(host, Ordering::Relaxed);
                    return Ok((session, hosts[host].clone()));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn try_host(
        &self,
        host: &PgConnectOptions,
        is_one_of_several: bool,
    ) -> sqlx::Result<Session<'static>> {
        let connecting = async {
            let connection = host.connect().await?;
            let mut session = Session::new(connection, self.is_prepared, self.monitor.clone());
            if is_one_of_several && IS_STANDBY.fetch_raw(&mut session).await?.try_get(0)? {
                return Err(sqlx::Error::Protocol("the host is a standby and takes no writes".to_owned()));
            }
            Ok(session)
        };
        let session = timeout(self.connect_timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))?;
        if host.get_socket().is_none() {
            socket::tune(host.get_port()).await;
        }
        Ok(session)
    }
}

/// Counts an attempt to connect for the pool however it ends: also when its caller's time runs out and it is dropped.
struct Outcome<'a> {
    connector: &'a Connector,
    is_connected: bool,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let Connector { pool, counts, .. } = self.connector;
        if self.is_connected {
            counts.created.fetch_add(1, Ordering::Relaxed);
            metrics::connection_created(pool);
        } else {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            metrics::connection_failed(pool);
        }
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Connection> {
        let mut outcome = Outcome { connector: self, is_connected: false };
        let generation = self.generation.load(Ordering::Relaxed);
        let session = self.connect().await?;
        outcome.is_connected = true;
        // +-10 %, so that connections opened together do not end together
        let lifetime = self.max_lifetime * fastrand::u32(90..=110) / 100;
        let too_old_at = Instant::now() + lifetime;
        let (pool, counts) = (self.pool.clone(), self.counts.clone());
        Ok(Connection { session, generation, too_old_at, pool, counts })
    }

    /// A connection just used is taken at its word; one that lay idle is asked, because nobody tells it that its
    /// server restarted.
    async fn recycle(&self, pooled: &mut Connection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if pooled.generation != self.generation.load(Ordering::Relaxed) || pooled.is_too_old() {
            return Err(RecycleError::message("over"));
        }
        if metrics.last_used() < self.idle_check {
            return Ok(());
        }
        let pinged = timeout(PING_TIMEOUT, pooled.session.ping()).await.unwrap_or_else(|_| Err(timed_out()));
        pinged.map_err(|error| {
            self.renew(); // the others lead to the same server
            RecycleError::Backend(error)
        })
    }
}

/// At least one: an empty list of hosts is one empty host.
fn all_options(url: &str, config: &config::Database) -> Result<Arc<[PgConnectOptions]>, Error> {
    let all = hosts(url).iter().map(|url| options(url, config)).collect::<Result<_, _>>();
    all.map_err(|e| Error::Unavailable(Box::new(e)))
}

/// One URL for each host of `scheme://user:password@host1:port1,host2:port2/database?..`, the form of libpq
/// (PostgreSQL manual, "Connection URIs"). `target_session_attrs` is left out: of several hosts it is always the
/// primary that is wanted.
fn hosts(url: &str) -> Vec<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, list) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(_, list)| authority.split_at(authority.len() - list.len()));
    let tail = without_target(tail);
    list.split(',').map(|host| format!("{scheme}://{user}{host}{tail}")).collect()
}

fn without_target(tail: &str) -> String {
    let Some((path, query)) = tail.split_once('?') else { return tail.to_owned() };
    let kept: Vec<&str> = query.split('&').filter(|p| !p.starts_with("target_session_attrs=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}

/// Connection settings from a URL. The settings are part of the start-up packet: no round trip. sqlx asks for
/// UTF-8 by itself. The `tcp_` settings are the server's end of the connection; for ours see [`socket`].
fn options(url: &str, config: &config::Database) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?
        .application_name("octo")
        .statement_cache_capacity(crate::db::statements().count()) // with one less, each run could prepare one anew
        .log_statements(log::LevelFilter::Trace)
        .log_slow_statements(log::LevelFilter::Off, Duration::ZERO);
    if !config.prepared_statements {
        // PgBouncer refuses start-up settings it does not know, and shares connections between clients
        return Ok(options.statement_cache_capacity(0).extra_float_digits(None));
    }
    let milliseconds = |key: Duration| key.as_millis().to_string();
    let seconds = |key: Duration| key.as_secs().to_string();
    let statement_timeout = milliseconds(config.statement_timeout);
    Ok(options.options([
        ("statement_timeout", statement_timeout.as_str()),
        ("idle_in_transaction_session_timeout", "30000"),
        // compiling the plan of a list over 30 partitions took 8 s, running it 60 ms
        ("jit", "off"),
        // planning a query over 32 partitions anew takes longer than running it; parameters prune at run time
        ("plan_cache_mode", "force_generic_plan"),
        ("timezone", "UTC"),
        ("tcp_keepalives_idle", &seconds(socket::KEEPALIVE_IDLE)),
        ("tcp_keepalives_interval", &seconds(socket::KEEPALIVE_INTERVAL)),
        ("tcp_keepalives_count", &socket::KEEPALIVE_COUNT.to_string()),
        ("tcp_user_timeout", &milliseconds(socket::USER_TIMEOUT)),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_several_hosts() {
        for (url, wanted) in [
            ("postgres://db/x", vec!["postgres://db/x"]),
            (
                "postgres://u:p%40@a:1,b,[::1]:3/x?sslmode=disable",
                vec![
                    "postgres://u:p%40@a:1/x?sslmode=disable",
                    "postgres://u:p%40@b/x?sslmode=disable",
                    "postgres://u:p%40@[::1]:3/x?sslmode=disable",
                ],
            ),
            ("postgres://a,b/x?target_session_attrs=read-write", vec!["postgres://a/x", "postgres://b/x"]),
            ("postgres://a/x?target_session_attrs=any&host=/run/pg", vec!["postgres://a/x?host=/run/pg"]),
            ("postgres:///x?host=/run/pg", vec!["postgres:///x?host=/run/pg"]),
        ] {
            assert_eq!(hosts(url), wanted, "{url}");
        }
    }
}
