//! Servers for one test alone, to be killed, frozen, stopped and promoted.
//!
//! The PostgreSQL here is as in production: fsync on, full-page writes on.

use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sqlx::{PgConnection, PgPool};

use super::database::pool;
use super::machine::{
    Claim, Signal, children, command, postgres_program, private_addresses, run, server_user, servers_dir,
    signal,
};
use super::postgres::{APP_DATABASE, APP_USER, Cluster, connect, password};
use super::redis::{Kind, MASTER, RedisServer};
use super::sandbox::Sandbox;
use super::{POLL, eventually, must};

const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(10);

/// A PostgreSQL of one's own, primary or replica. Dropping it ends it and removes its files.
pub(crate) struct PrivatePostgres {
    cluster: Cluster,
    sandbox: Sandbox,
}

impl PrivatePostgres {
    /// A primary with an empty database for `octo`; `migrate(&url)` fills it.
    pub(crate) async fn start() -> Self {
        must(Self::try_start().await.context("could not start a private PostgreSQL"))
    }

    async fn try_start() -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 5432)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let cluster = Cluster::primary(sandbox.dir(), "primary", address, &[]).await?;
        Ok(Self { cluster, sandbox })
    }

    /// A primary that archives its log, for [`Self::base_backup`] and [`Self::as_it_was`].
    pub(crate) async fn start_archiving() -> Self {
        must(Self::try_start_archiving().await.context("could not start a PostgreSQL that archives its log"))
    }

    async fn try_start_archiving() -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 5432)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let mut mkdir = command("mkdir", sandbox.dir())?;
        mkdir.arg("archive");
        run(mkdir).await?;
        let archive = format!("archive_command=cp %p {}/%f", sandbox.dir().join("archive").display());
        let cluster =
            Cluster::primary(sandbox.dir(), "primary", address, &["archive_mode=on", &archive]).await?;
        Ok(Self { cluster, sandbox })
    }

    /// A copy of its files, taken while it runs.
    pub(crate) async fn base_backup(&self) {
        must(self.cluster.base_backup(&self.sandbox.dir().join("base")).await.context("no base backup"));
    }

    /// Gives this moment a name, and waits until the log up to it is in the archive.
    pub(crate) async fn name_moment(&self, name: &str) {
        let mut admin = self.admin().await;
        let named = async {
            sqlx::query("SELECT pg_create_restore_point($1)").bind(name).execute(&mut admin).await?;
            let query = sqlx::query_scalar("SELECT pg_walfile_name(pg_switch_wal())");
            anyhow::Ok::<String>(query.fetch_one(&mut admin).await?)
        };
        let file = must(named.await.context("could not name a moment of the log"));
        eventually(EXIT_TIMEOUT, async || {
            ensure!(self.sandbox.dir().join("archive").join(&file).exists(), "{file} is not archived yet");
            Ok(())
        })
        .await;
    }

    /// A primary of its own, restored from the base backup and the archive to a named moment.
    pub(crate) async fn as_it_was(&self, moment: &str) -> Self {
        must(self.try_as_it_was(moment).await.context("could not go back to a moment"))
    }

    async fn try_as_it_was(&self, moment: &str) -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 5432)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let dir = sandbox.dir().join("restored");
        let mut copy = command("cp", sandbox.dir())?;
        copy.arg("-R").arg(self.sandbox.dir().join("base")).arg(&dir);
        run(copy).await?;
        let mut touch = command("touch", sandbox.dir())?;
        touch.arg(dir.join("recovery.signal"));
        run(touch).await?;
        let restore = format!("restore_command=cp {}/%f %p", self.sandbox.dir().join("archive").display());
        let target = format!("recovery_target_name={moment}");
        let more = [restore.as_str(), target.as_str(), "recovery_target_action=promote"];
        let cluster = self.cluster.restored(dir, address, &more).await?;
        Ok(Self { cluster, sandbox })
    }

    /// Runs a program of PostgreSQL, such as `pg_dump`, in its directory.
    pub(crate) async fn program(&self, name: &str, args: &[&str]) -> String {
        let ended = async {
            let mut program = command(postgres_program(name)?, self.sandbox.dir())?;
            program.args(args);
            run(program).await
        };
        must(ended.await.with_context(|| format!("{name} {args:?}")))
    }

    /// A streaming replica, which shows every commit `delay_ms` after it happened if that is given.
    pub(crate) async fn replica(&self, delay_ms: Option<u64>) -> Self {
        must(self.try_replica(delay_ms).await.context("could not start a private replica"))
    }

    async fn try_replica(&self, delay_ms: Option<u64>) -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 5432)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let name = format!("replica-{:08x}", fastrand::u32(..)); // a slot of its own, were there several
        let delay = delay_ms.map(|delay_ms| format!("recovery_min_apply_delay={delay_ms}ms"));
        let cluster =
            self.cluster.replica(sandbox.dir(), &name, address, delay.as_deref().as_slice()).await?;
        Ok(Self { cluster, sandbox })
    }

    /// The URL for `octo`: the role `app_user`, the default database.
    pub(crate) fn url(&self) -> String {
        self.cluster.url(APP_USER, APP_DATABASE)
    }

    /// The URL of the superuser, in the same database.
    pub(crate) fn admin_url(&self) -> String {
        self.cluster.url("postgres", APP_DATABASE)
    }

    /// A superuser's connection.
    pub(crate) async fn admin(&self) -> PgConnection {
        must(connect(&self.admin_url()).await)
    }

    /// A small pool, as the user `octo` runs as.
    pub(crate) async fn pool(&self) -> PgPool {
        must(pool(&self.url()).await)
    }

    /// Its data directory, log files among it.
    pub(crate) fn dir(&self) -> &Path {
        self.sandbox.dir()
    }

    /// What `pg_dump` writes of the database.
    pub(crate) async fn dump(&self) -> String {
        let dump = async {
            let mut dump = command(postgres_program("pg_dump")?, self.sandbox.dir())?;
            dump.arg(self.admin_url());
            run(dump).await
        };
        must(dump.await.context("could not dump the database"))
    }

    /// The postmaster's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.cluster.pid()
    }

    /// SIGINT: disconnects everybody and stops in good order.
    pub(crate) async fn stop_fast(&mut self) {
        self.end(Signal::Int).await;
    }

    /// SIGKILL of the postmaster. Its backends notice by themselves; `start_again` waits for them.
    pub(crate) async fn kill9(&mut self) {
        self.end(Signal::Kill).await;
    }

    /// SIGQUIT and a start: what clients see of a crash with a restart, recovery from the log included.
    pub(crate) async fn restart_immediate(&mut self) {
        self.end(Signal::Quit).await;
        self.start_again().await;
    }

    async fn end(&mut self, how: Signal) {
        signal(how, &[self.pid()]);
        let ended = wait_exit(self.cluster.postmaster(), EXIT_TIMEOUT).await;
        must(ended.with_context(|| format!("PostgreSQL after {how:?}")));
    }

    /// Starts it on the same files and address, after any kind of end.
    pub(crate) async fn start_again(&mut self) {
        must(self.cluster.start_again().await);
    }

    /// Freezes the postmaster and all its backends: connections stay open and nobody answers, as behind a dead network.
    pub(crate) fn sigstop(&self) {
        signal(Signal::Stop, &[self.pid()]); // first, so that it makes no more children
        signal(Signal::Stop, &children(self.pid()));
    }

    /// Ends `sigstop`.
    pub(crate) fn sigcont(&self) {
        signal(Signal::Cont, &children(self.pid()));
        signal(Signal::Cont, &[self.pid()]);
    }

    /// Takes a replica off its primary: what it has received by now is all that it will have.
    pub(crate) async fn cut_off(&self) {
        let mut admin = self.admin().await;
        for statement in ["ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"] {
            let done = sqlx::raw_sql(statement).execute(&mut admin).await;
            must(done.context("could not take the replica off its primary"));
        }
        eventually(CUT_OFF_TIMEOUT, async || {
            let receivers: i64 =
                sqlx::query_scalar("SELECT count(*) FROM pg_stat_wal_receiver").fetch_one(&mut admin).await?;
            ensure!(receivers == 0, "the replica still listens to its primary");
            Ok(())
        })
        .await;
    }

    /// Makes a replica the primary, and returns when it takes writes.
    pub(crate) async fn promote(&self) {
        let mut admin = self.admin().await;
        let promoted = sqlx::query("SELECT pg_promote(false)").execute(&mut admin).await;
        must(promoted.context("could not promote the replica"));
        eventually(EXIT_TIMEOUT, async || {
            let recovering: bool =
                sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut admin).await?;
            ensure!(!recovering, "it is still a replica");
            Ok(())
        })
        .await;
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the private PostgreSQL, its end\n{}\n---", self.cluster.log_tail());
        }
    }
}

/// A Redis of one's own. Dropping it ends it.
pub(crate) struct PrivateRedis {
    server: RedisServer,
    sandbox: Sandbox,
}

impl PrivateRedis {
    /// An empty Redis.
    pub(crate) async fn start() -> Self {
        must(Self::try_start().await.context("could not start a private Redis"))
    }

    async fn try_start() -> Result<Self> {
        Self::start_as(Kind::Single).await
    }

    async fn start_as(kind: Kind) -> Result<Self> {
        let port = if matches!(kind, Kind::Sentinel(_)) { 26379 } else { 6379 };
        let (claim, address) = Claim::first(private_addresses(), port)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let password = password(servers_dir()?)?;
        let server = RedisServer::start_as(kind, sandbox.dir(), address, &password).await?;
        Ok(Self { server, sandbox })
    }

    /// Where it saves its data.
    pub(crate) fn dir(&self) -> &Path {
        self.sandbox.dir()
    }

    /// A connection to database 0.
    pub(crate) async fn connection(&self) -> ::redis::aio::MultiplexedConnection {
        must(self.try_connection().await.context("could not connect to a private Redis"))
    }

    async fn try_connection(&self) -> Result<::redis::aio::MultiplexedConnection> {
        Ok(::redis::Client::open(self.url())?.get_multiplexed_async_connection().await?)
    }

    /// The URL of database 0.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// The process id.
    pub(crate) fn pid(&mut self) -> u32 {
        self.server.child().id()
    }

    /// SIGKILL.
    pub(crate) async fn kill9(&mut self) {
        signal(Signal::Kill, &[self.server.child().id()]);
        must(wait_exit(self.server.child(), EXIT_TIMEOUT).await.context("Redis after SIGKILL"));
    }

    /// Starts it again, empty, at the same address.
    pub(crate) async fn start_again(&mut self) {
        must(self.server.start_again().await);
    }

    /// Freezes it: connections stay open and nobody answers.
    pub(crate) fn sigstop(&mut self) {
        signal(Signal::Stop, &[self.server.child().id()]);
    }

    /// Ends `sigstop`.
    pub(crate) fn sigcont(&mut self) {
        signal(Signal::Cont, &[self.server.child().id()]);
    }
}

/// A Redis Cluster of three nodes without replicas, one third of the slots each.
pub(crate) struct RedisCluster {
    nodes: Vec<PrivateRedis>,
}

impl RedisCluster {
    /// An empty Cluster that takes commands.
    pub(crate) async fn start() -> Self {
        must(Self::try_start().await.context("could not start a Redis Cluster"))
    }

    async fn try_start() -> Result<Self> {
        let node = || PrivateRedis::start_as(Kind::ClusterNode);
        let (a, b, c) = tokio::try_join!(node(), node(), node())?;
        let cluster = Self { nodes: vec![a, b, c] };
        for (n, (first, last)) in [(0, 5460), (5461, 10922), (10923, 16383)].into_iter().enumerate() {
            let mut connection = cluster.nodes[n].try_connection().await?;
            let mut cluster_command = ::redis::cmd("CLUSTER");
            cluster_command.arg("SET-CONFIG-EPOCH").arg(n + 1).exec_async(&mut connection).await?;
            let mut cluster_command = ::redis::cmd("CLUSTER");
            cluster_command.arg("ADDSLOTSRANGE").arg(first).arg(last).exec_async(&mut connection).await?;
            let met = cluster.nodes[0].server.address();
            let mut cluster_command = ::redis::cmd("CLUSTER");
            cluster_command.arg("MEET").arg(met.ip().to_string()).arg(met.port());
            cluster_command.exec_async(&mut connection).await?;
        }
        cluster.wait_ready().await;
        Ok(cluster)
    }

    /// Waits until every node knows that the Cluster is whole.
    pub(crate) async fn wait_ready(&self) {
        for node in &self.nodes {
            eventually(EXIT_TIMEOUT, async || {
                let mut connection = node.try_connection().await?;
                let mut info = ::redis::cmd("CLUSTER");
                let info: String = info.arg("INFO").query_async(&mut connection).await?;
                let is_whole = info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3");
                ensure!(is_whole, "{info}");
                Ok(())
            })
            .await;
        }
    }

    /// The URLs of all nodes, separated by commas.
    pub(crate) fn urls(&self) -> String {
        self.nodes.iter().map(PrivateRedis::url).collect::<Vec<_>>().join(",")
    }

    /// The nodes.
    pub(crate) fn nodes(&mut self) -> &mut [PrivateRedis] {
        &mut self.nodes
    }
}

/// A master, its replica, and a Sentinel that watches both.
pub(crate) struct RedisSentinel {
    /// The master at first.
    pub(crate) master: PrivateRedis,
    /// Its replica at first.
    pub(crate) replica: PrivateRedis,
    sentinel: PrivateRedis,
}

impl RedisSentinel {
    /// An empty set, whose Sentinel knows the replica.
    pub(crate) async fn start() -> Self {
        must(Self::try_start().await.context("could not start Redis with a Sentinel"))
    }

    async fn try_start() -> Result<Self> {
        let master = PrivateRedis::start_as(Kind::Single).await?;
        let address = master.server.address();
        let replica = PrivateRedis::start_as(Kind::ReplicaOf(address)).await?;
        let sentinel = PrivateRedis::start_as(Kind::Sentinel(address)).await?;
        let set = Self { master, replica, sentinel };
        eventually(EXIT_TIMEOUT, async || {
            let mut connection = set.sentinel.try_connection().await?;
            let mut replicas = ::redis::cmd("SENTINEL");
            let replicas: Vec<std::collections::HashMap<String, String>> =
                replicas.arg("REPLICAS").arg(MASTER).query_async(&mut connection).await?;
            let is_linked = |r: &std::collections::HashMap<String, String>| {
                r.get("master-link-status").is_some_and(|status| status == "ok")
            };
            ensure!(replicas.iter().any(is_linked), "{replicas:?}");
            Ok(())
        })
        .await;
        Ok(set)
    }

    /// The name of the master.
    #[expect(clippy::unused_self, reason = "reads as set.name() beside set.urls()")]
    pub(crate) fn name(&self) -> &'static str {
        MASTER
    }

    /// The Sentinel's URL.
    pub(crate) fn urls(&self) -> String {
        self.sentinel.url()
    }

    /// The password of the servers.
    #[expect(clippy::unused_self, reason = "likewise")]
    pub(crate) fn password(&self) -> String {
        must(servers_dir().and_then(password))
    }
}

/// Waits for a process to end, and takes it off the process table.
pub(super) async fn wait_exit(child: &mut Child, timeout: Duration) -> Result<ExitStatus> {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "process {} still runs after {timeout:?}",
            child.id()
        );
        tokio::time::sleep(POLL).await;
    }
}
