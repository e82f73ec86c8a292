//! The servers all tests share: a primary, two streaming replicas and a Redis.
//!
//! Every test process attaches by a shared lock on `users.lock`. The first one starts the servers, everybody else finds
//! `ready.json`. When the last has let go, the watcher waits [`LINGER_S`] for the next (nextest gives every test a process
//! of its own, so there are gaps) and then ends the servers. What tests do here must not disturb others: whoever wants to
//! kill or freeze something takes a `PrivatePostgres` or `PrivateRedis`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::OnceCell;

use super::machine::{Claim, has_memory, is_free, memory_dir, server_user, servers_dir};
use super::postgres::{self, Cluster, connect};
use super::redis::{self, RedisServer};
use super::sandbox::{give, sweep, watch};
use super::{eventually, must};

const LINGER_S: u32 = 2;
/// The second pair is for a machine where something holds the usual ports on all addresses.
const PORTS: [(u16, u16); 2] = [(5432, 6379), (25432, 26379)];
const REPLAY_TIMEOUT: Duration = Duration::from_secs(30);

/// What only a server that nobody else's data depends on may do: a crash of the *machine* loses these clusters, and that
/// is fine, all the more as they live in memory where that has room. Tests of durability use `PrivatePostgres`, where fsync
/// is on and the files are on the disk of the checkout.
const FAST: &[&str] = &["fsync=off", "full_page_writes=off"];

/// The shared servers, attached to for as long as this process lives.
pub(crate) struct Servers {
    layout: Layout,
    password: String,
    _attached: File,
}

impl Servers {
    /// Attaches this process, and starts the servers if it is the first.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        must(SHARED.get_or_try_init(attach).await)
    }

    /// The primary, as the user `octo` runs as.
    pub(crate) fn primary_url(&self, database: &str) -> String {
        postgres::url(self.layout.postgres(0), &self.password, postgres::APP_USER, database)
    }

    /// Replica 0 or 1, as the user `octo` runs as.
    pub(crate) fn replica_url(&self, replica: u8, database: &str) -> String {
        postgres::url(self.layout.replica(replica), &self.password, postgres::APP_USER, database)
    }

    /// Database `database` of the shared Redis. Channels of publish/subscribe are not divided by database.
    pub(crate) fn redis_url(&self, database: u32) -> String {
        redis::url(self.layout.redis(), &self.password, database)
    }

    /// A superuser's connection to the primary.
    pub(crate) async fn admin(&self) -> PgConnection {
        must(connect(&self.admin_url(self.layout.postgres(0))).await)
    }

    /// A superuser's connection to replica 0 or 1.
    pub(crate) async fn replica_admin(&self, replica: u8) -> PgConnection {
        must(connect(&self.admin_url(self.layout.replica(replica))).await)
    }

    fn admin_url(&self, address: SocketAddrV4) -> String {
        postgres::url(address, &self.password, "postgres", "postgres")
    }

    /// The primary's address and the password of its superuser, for the programs of PostgreSQL.
    pub(super) fn admin_login(&self) -> (SocketAddrV4, &str) {
        (self.layout.postgres(0), &self.password)
    }

    /// Waits until both replicas show everything that was committed on the primary before this call.
    pub(crate) async fn wait_replicas(&self) {
        let target = must(flushed_lsn(&mut self.admin().await).await);
        for replica in [0, 1] {
            self.resume_forgotten(replica).await;
            let mut connection = self.replica_admin(replica).await;
            eventually(REPLAY_TIMEOUT, async || {
                let (lsn, reached): (String, bool) = sqlx::query_as(
                    "SELECT pg_last_wal_replay_lsn()::text, pg_last_wal_replay_lsn() >= $1::pg_lsn",
                )
                .bind(&target)
                .fetch_one(&mut connection)
                .await?;
                ensure!(reached, "replica {replica} is at {lsn}, the primary was at {target}");
                Ok(())
            })
            .await;
        }
    }

    /// Stops replay on a replica until the guard is dropped. Others share the replica and wait meanwhile: keep it under a
    /// few seconds, or use `PrivatePostgres::replica`.
    pub(crate) async fn pause_replay(&'static self, replica: u8) -> PausedReplay {
        let lock = must(replay_lock(replica));
        let lock = must(lock_exclusive(lock).await.context("could not lock the replica for a pause"));
        let mut connection = self.replica_admin(replica).await;
        let paused = sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut connection).await;
        must(paused.context("could not pause the replay"));
        eventually(Duration::from_secs(5), async || {
            let state: String = sqlx::query_scalar("SELECT pg_get_wal_replay_pause_state()")
                .fetch_one(&mut connection)
                .await?;
            ensure!(state == "paused", "{state}");
            Ok(())
        })
        .await;
        PausedReplay { servers: self, replica, _lock: lock }
    }

    /// Resumes a replica whose pausing test was killed: it is paused, and nobody holds its lock.
    async fn resume_forgotten(&self, replica: u8) {
        if must(replay_lock(replica)).try_lock().is_ok() {
            let mut connection = self.replica_admin(replica).await;
            must(resume(&mut connection).await);
        }
    }
}

/// A shared replica that does not replay. Dropping it resumes the replay.
pub(crate) struct PausedReplay {
    servers: &'static Servers,
    replica: u8,
    _lock: File,
}

impl Drop for PausedReplay {
    fn drop(&mut self) {
        let url = self.servers.admin_url(self.servers.layout.replica(self.replica));
        let resumed = on_own_runtime(async move { resume(&mut connect(&url).await?).await });
        if let Err(error) = resumed {
            eprintln!("replica {} stays paused: {error:#}", self.replica);
        }
    }
}

async fn resume(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("SELECT pg_wal_replay_resume()").execute(connection).await?;
    Ok(())
}

/// Runs a future from a destructor, which may itself be inside a runtime: on a thread and a runtime of its own.
pub(super) fn on_own_runtime<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope
            .spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future));
        thread.join().unwrap_or_else(|_| bail!("it panicked"))
    })
}

/// Where everything before this call ends in the log. The message makes a commit, which flushes what commits without
/// waiting left behind; the write position of a quiet server can lie past the end of its last record.
async fn flushed_lsn(connection: &mut PgConnection) -> Result<String> {
    sqlx::query("SELECT pg_logical_emit_message(true, 'octo-it', 'wait')").execute(&mut *connection).await?;
    Ok(sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(connection).await?)
}

/// Which addresses the servers of this run have.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Layout {
    network: u8,
    postgres_port: u16,
    redis_port: u16,
}

impl Layout {
    /// The first network that nobody has, together with the claim on it.
    fn claim() -> Result<(Self, Claim)> {
        for (postgres_port, redis_port) in PORTS {
            for network in 1..=250 {
                let layout = Self { network, postgres_port, redis_port };
                if let Some(claim) = Claim::take(layout.ip(5))
                    && layout.addresses().into_iter().all(is_free)
                {
                    return Ok((layout, claim));
                }
            }
        }
        bail!("no 127.77.N has its ports free, for N from 1 to 250")
    }

    fn ip(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 77, self.network, host)
    }

    fn postgres(self, server: u8) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip(server + 1), self.postgres_port)
    }

    fn replica(self, replica: u8) -> SocketAddrV4 {
        assert!(replica < 2, "there are the replicas 0 and 1");
        self.postgres(replica + 1)
    }

    fn redis(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip(4), self.redis_port)
    }

    fn addresses(self) -> [SocketAddrV4; 4] {
        [self.postgres(0), self.postgres(1), self.postgres(2), self.redis()]
    }

    /// False after a reboot, which leaves the files and no servers.
    fn is_alive(self) -> bool {
        let timeout = Duration::from_secs(2);
        self.addresses()
            .into_iter()
            .all(|address| TcpStream::connect_timeout(&address.into(), timeout).is_ok())
    }
}

async fn attach() -> Result<Servers> {
    let dir = servers_dir()?;
    let users = dir.join("users.lock");
    // waits here while a watcher takes the servers of an earlier run down
    let attached = lock_shared(File::options().create(true).append(true).open(&users)?).await?;
    let _starting = lock_exclusive(File::create(dir.join("start.lock"))?).await?;
    fs::write(&users, uuid::Uuid::new_v4().to_string())?;
    let layout = attach_to(&users, [memory_dir()?, dir.join("shared")]).await?;
    Ok(Servers { layout, password: postgres::password(dir)?, _attached: attached })
}

/// The servers that run in one of the homes; else new ones, in memory where there is room.
async fn attach_to(users: &Path, homes: [PathBuf; 2]) -> Result<Layout> {
    for home in &homes {
        if let Some(layout) = ready(home) {
            watch_again(layout, users, home)?;
            return Ok(layout);
        }
        sweep(home).await?;
    }
    let [in_memory, on_disk] = &homes;
    start(users, if has_memory().await { in_memory } else { on_disk }).await
}

fn ready(home: &Path) -> Option<Layout> {
    let layout: Layout = serde_json::from_slice(&fs::read(home.join("ready.json")).ok()?).ok()?;
    layout.is_alive().then_some(layout)
}

/// If the claim can be taken although the servers run, their watcher was killed: they get another one.
fn watch_again(layout: Layout, users: &Path, home: &Path) -> Result<()> {
    if let Some(claim) = Claim::take(layout.ip(5)) {
        watch(users, home, LINGER_S, Some(claim))?;
    }
    Ok(())
}

/// Starts everything. The watcher comes first: a test that is killed in the middle of this leaves nothing either.
async fn start(users: &Path, home: &Path) -> Result<Layout> {
    fs::create_dir(home).with_context(|| format!("could not make {}", home.display()))?;
    give(home, server_user()?)?;
    let (layout, claim) = Layout::claim()?;
    watch(users, home, LINGER_S, Some(claim))?;
    let password = postgres::password(servers_dir()?)?;
    tokio::try_join!(start_postgres(home, layout), RedisServer::start(home, layout.redis(), &password))?;
    let ready = tempfile::NamedTempFile::new_in(home)?;
    serde_json::to_writer(&ready, &layout)?;
    ready.persist(home.join("ready.json"))?;
    Ok(layout)
}

async fn start_postgres(home: &Path, layout: Layout) -> Result<()> {
    let primary = Cluster::primary(home, "primary", layout.postgres(0), FAST).await?;
    tokio::try_join!(
        primary.replica(home, "replica-0", layout.postgres(1), FAST),
        primary.replica(home, "replica-1", layout.postgres(2), FAST),
    )?;
    Ok(())
}

fn replay_lock(replica: u8) -> Result<File> {
    Ok(File::create(servers_dir()?.join(format!("replay-{replica}.lock")))?)
}

pub(super) async fn lock_exclusive(file: File) -> Result<File> {
    Ok(tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await??)
}

async fn lock_shared(file: File) -> Result<File> {
    Ok(tokio::task::spawn_blocking(move || file.lock_shared().map(|()| file)).await??)
}
