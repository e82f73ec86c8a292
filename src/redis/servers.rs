//! The Redis servers: one, a master that Sentinel names, or a Cluster. The one place that knows which.
//!
//! All commands share one connection, which carries many at a time: with one connection a command, each waited
//! for a PING of the pool and woke the server for itself, and a look-up took four times as long (measured by
//! `benches/data_layer`). The pool makes that connection, and the next one when it breaks.
//!
//! deadpool-redis takes time-outs and TCP_NODELAY for a single server only. Behind Sentinel and in a Cluster
//! the kernel may hold a small packet back while another is on its way.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use deadpool_redis::{
    Manager, PoolError, RedisConnectionInfo, Runtime, Status, Timeouts, cluster,
    sentinel::{self, SentinelNodeConnectionInfo, SentinelServerType},
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, RedisFuture,
    RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
    sentinel::SentinelClient,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Mutex, time::timeout};

use crate::config;

pub(crate) struct Servers {
    line: Arc<Line>,
    /// For connections outside of the pool.
    clients: Clients,
    connect_timeout: Duration,
    database: i64,
}

/// What commands go through.
struct Line {
    pools: Pools,
    open: RwLock<Option<Open>>,
    /// One at a time opens it; the others wait for that.
    opening: Mutex<()>,
    opened: AtomicU64,
}

/// The open connection, on loan from its pool for as long as it is good.
struct Open {
    pooled: Pooled,
    number: u64,
}

enum Pools {
    Single(deadpool_redis::Pool),
    Sentinel(sentinel::Pool),
    Cluster(cluster::Pool),
}

enum Clients {
    Single(Client),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster { nodes: Vec<Client>, next: AtomicUsize },
}

/// A connection of a pool.
enum Pooled {
    Single(deadpool_redis::Connection),
    Sentinel(sentinel::Connection),
    Cluster(cluster::Connection),
}

/// A share of the open connection.
pub(crate) struct Connection {
    share: Share,
    number: u64,
}

enum Share {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Where Redis is, in words: what `octo` says at start and in `/system/cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Single,
    Sentinel,
    Cluster,
}

impl Servers {
    /// `None` when no Redis is configured. Connects when it is first used.
    pub(crate) fn new(config: &config::Redis) -> anyhow::Result<Option<Self>> {
        let connect_timeout = config.connect_timeout;
        let (pools, clients, database) = if let Some(url) = &config.url {
            single(url, config).context("redis.url is not valid")?
        } else if !config.sentinel_urls.is_empty() {
            sentinel(config).context("redis.sentinel_urls are not valid")?
        } else if !config.cluster_urls.is_empty() {
            cluster(config).context("redis.cluster_urls are not valid")?
        } else {
            return Ok(None);
        };
        let (open, opening, opened) = (RwLock::default(), Mutex::default(), AtomicU64::new(0));
        let line = Arc::new(Line { pools, open, opening, opened });
        Ok(Some(Self { line, clients, connect_timeout, database }))
    }

    pub(crate) fn mode(&self) -> Mode {
        match &self.line.pools {
            Pools::Single(_) => Mode::Single,
            Pools::Sentinel(_) => Mode::Sentinel,
            Pools::Cluster(_) => Mode::Cluster,
        }
    }

    /// The numbered database. Channels are not divided by database, so their names carry it.
    pub(crate) fn database(&self) -> i64 {
        self.database
    }

    /// How long a new connection may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The open connection. A new one is opened in a task of its own: a command that cannot wait for it leaves it
    /// to the next one.
    pub(crate) async fn connection(&self) -> Result<Connection, PoolError> {
        if let Some(connection) = self.line.share() {
            return Ok(connection);
        }
        let line = self.line.clone();
        #[expect(clippy::disallowed_methods, reason = "bounded by the time-outs of the pool")]
        let opening = tokio::spawn(async move { line.open_new().await });
        opening.await.unwrap_or(Err(PoolError::Closed))
    }

    /// Closes a connection that is broken, or owes an answer to a command that gave up on it. One of a Cluster
    /// stays: it mends its connections itself, and making another means asking every node.
    pub(crate) fn discard(&self, connection: &Connection) {
        if matches!(connection.share, Share::Server(_)) {
            self.line.close(connection.number);
        }
    }

    pub(crate) fn status(&self) -> Status {
        match &self.line.pools {
            Pools::Single(pool) => pool.status(),
            Pools::Sentinel(pool) => pool.status(),
            Pools::Cluster(pool) => pool.status(),
        }
    }

    /// A connection of its own that hears `channel`. Every node of a Cluster passes on what is published at any
    /// other, so one will do; each call asks the next.
    pub(crate) async fn subscribe(&self, channel: &str) -> RedisResult<PubSub> {
        let subscribing = async {
            let mut messages = match &self.clients {
                Clients::Single(client) => client.get_async_pubsub().await?,
                Clients::Sentinel(client) => {
                    let master = client.lock().await.async_get_client().await?;
                    master.get_async_pubsub().await?
                }
                Clients::Cluster { nodes, next } => {
                    let turn = next.fetch_add(1, Ordering::Relaxed) % nodes.len();
                    nodes[turn].get_async_pubsub().await?
                }
            };
            messages.subscribe(channel).await?;
            Ok(messages)
        };
        let timed_out = (ErrorKind::Io, "no answer in time").into();
        timeout(self.connect_timeout, subscribing).await.unwrap_or(Err(timed_out))
    }
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }
}

impl Line {
    fn share(&self) -> Option<Connection> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(Open::share)
    }

    async fn open_new(&self) -> Result<Connection, PoolError> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(connection) = self.share() {
            return Ok(connection); // opened while this one waited
        }
        let pooled = match &self.pools {
            Pools::Single(pool) => Pooled::Single(pool.get().await?),
            Pools::Sentinel(pool) => Pooled::Sentinel(pool.get().await?),
            Pools::Cluster(pool) => Pooled::Cluster(pool.get().await?),
        };
        let open = Open { pooled, number: self.opened.fetch_add(1, Ordering::Relaxed) };
        let connection = open.share();
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(connection)
    }

    /// Closes the open connection if it still is this one. It does not go back to its pool, which would find it
    /// well if only its server answers: also one that is no master any more.
    fn close(&self, number: u64) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        match open.take_if(|open| open.number == number).map(|open| open.pooled) {
            Some(Pooled::Single(connection)) => drop(deadpool_redis::Connection::take(connection)),
            Some(Pooled::Sentinel(connection)) => drop(sentinel::Connection::take(connection)),
            Some(Pooled::Cluster(connection)) => drop(connection),
            None => {}
        }
    }
}

impl Open {
    fn share(&self) -> Connection {
        let share = match &self.pooled {
            Pooled::Single(connection) => Share::Server((**connection).clone()),
            Pooled::Sentinel(connection) => Share::Server((**connection).clone()),
            Pooled::Cluster(connection) => Share::Cluster((**connection).clone()),
        };
        Connection { share, number: self.number }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.share {
            Share::Server(connection) => connection.req_packed_command(cmd),
            Share::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.share {
            Share::Server(connection) => connection.req_packed_commands(cmd, offset, count),
            Share::Cluster(connection) => connection.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.share {
            Share::Server(connection) => connection.get_db(),
            Share::Cluster(connection) => connection.get_db(),
        }
    }
}

/// A pool with its bounds; the same words for three types.
macro_rules! build {
    ($pool:ty, $manager:expr, $config:expr, $create:expr) => {
        <$pool>::builder($manager)
            .max_size($config.pool_size)
            .timeouts(Timeouts {
                wait: Some($config.command_timeout),
                create: Some($create),
                recycle: Some($config.command_timeout),
            })
            .runtime(Runtime::Tokio1)
            .build()?
    };
}

fn single(url: &SecretString, config: &config::Redis) -> anyhow::Result<(Pools, Clients, i64)> {
    let info = connection_info(url)?;
    let database = info.redis_settings().db();
    let connect_timeout = config.connect_timeout;
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(config.command_timeout));
    let manager = Manager::new_with_config(info.clone(), settings)?;
    let pool = build!(deadpool_redis::Pool, manager, config, connect_timeout);
    Ok((Pools::Single(pool), Clients::Single(Client::open(info)?), database))
}

fn sentinel(config: &config::Redis) -> anyhow::Result<(Pools, Clients, i64)> {
    let sentinels = all(&config.sentinel_urls)?;
    let Some(master) = config.sentinel_master.clone() else { bail!("redis.sentinel_master is missing") };
    let login = RedisConnectionInfo {
        db: config.database,
        username: config.username.clone(),
        password: config.password.as_ref().map(|p| p.expose_secret().to_owned()),
        protocol: deadpool_redis::ProtocolVersion::RESP2,
    };
    let node = SentinelNodeConnectionInfo { tls_mode: None, redis_connection_info: Some(login) };
    // one Sentinel after the other may not answer
    let attempts = u32::try_from(sentinels.len())?.saturating_add(1);
    let create_timeout = config.connect_timeout * attempts;
    let client = SentinelClient::build(
        sentinels.clone(),
        master.clone(),
        Some(node.clone().into()),
        SentinelServerType::Master.into(),
    )?;
    let manager = sentinel::Manager::new(sentinels, master, Some(node), SentinelServerType::Master)?;
    let pool = build!(sentinel::Pool, manager, config, create_timeout);
    Ok((Pools::Sentinel(pool), Clients::Sentinel(Box::new(Mutex::new(client))), config.database))
}

fn cluster(config: &config::Redis) -> anyhow::Result<(Pools, Clients, i64)> {
    let infos = all(&config.cluster_urls)?;
    let nodes = infos.iter().map(|info| Client::open(info.clone())).collect::<RedisResult<_>>()?;
    let manager = cluster::Manager::new(infos, false)?;
    let pool = build!(cluster::Pool, manager, config, config.connect_timeout);
    Ok((Pools::Cluster(pool), Clients::Cluster { nodes, next: AtomicUsize::new(0) }, 0))
}

fn all(urls: &[SecretString]) -> RedisResult<Vec<ConnectionInfo>> {
    urls.iter().map(connection_info).collect()
}

fn connection_info(url: &SecretString) -> RedisResult<ConnectionInfo> {
    let info = url.expose_secret().into_connection_info()?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}
