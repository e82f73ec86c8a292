//! One Redis server: configured, started, watched until it listens.

use std::fs::File;
use std::net::SocketAddrV4;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::machine::{command, redis_program, server_user, wait_for_port};

/// How many numbered databases the server has: one a test, so that tests do not see each other's keys.
pub(super) const DATABASES: u32 = 4096;

/// A running `redis-server`, in memory only.
pub(super) struct RedisServer {
    home: PathBuf,
    address: SocketAddrV4,
    password: String,
    kind: Kind,
    child: Child,
}

/// What a `redis-server` is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// One server, or the replica of nobody yet.
    Single,
    /// A node of a Cluster, which knows no other yet.
    ClusterNode,
    /// Follows the server at this address.
    ReplicaOf(SocketAddrV4),
    /// Not a server but a Sentinel, which watches the server at this address.
    Sentinel(SocketAddrV4),
}

/// The name a [`Kind::Sentinel`] knows its master by.
pub(super) const MASTER: &str = "octo";

impl RedisServer {
    /// Starts a server whose files are in `home`.
    pub(super) async fn start(home: &Path, address: SocketAddrV4, password: &str) -> Result<Self> {
        Self::start_as(Kind::Single, home, address, password).await
    }

    /// Starts a server of a kind.
    pub(super) async fn start_as(
        kind: Kind,
        home: &Path,
        address: SocketAddrV4,
        password: &str,
    ) -> Result<Self> {
        write_config(&kind, home, address, password)?;
        let child = spawn(&kind, home)?;
        let (home, password) = (home.to_owned(), password.to_owned());
        let mut server = Self { home, address, password, kind, child };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Starts it again, empty, at the same address.
    pub(super) async fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.kind, &self.home)?;
        self.wait_ready().await
    }

    async fn wait_ready(&mut self) -> Result<()> {
        wait_for_port(self.address, &mut self.child, &self.home.join("redis.log")).await.context("Redis")
    }

    /// The process.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The connection URL of database 0.
    pub(super) fn url(&self) -> String {
        url(self.address, &self.password, 0)
    }
}

/// The connection URL of a numbered database at `address`.
pub(super) fn url(address: SocketAddrV4, password: &str, database: u32) -> String {
    format!("redis://:{password}@{address}/{database}")
}

/// The password goes into a file that only the server's user reads: others see arguments.
fn write_config(kind: &Kind, home: &Path, address: SocketAddrV4, password: &str) -> Result<()> {
    let path = home.join("redis.conf");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
    let (ip, port) = (address.ip(), address.port());
    let common = format!("bind {ip}\nport {port}\nrequirepass {password}\ndaemonize no\n");
    let in_memory = format!("databases {DATABASES}\nsave \"\"\nappendonly no\nmasterauth {password}\n");
    let own = match kind {
        Kind::Single => in_memory,
        Kind::ClusterNode => {
            format!("{in_memory}cluster-enabled yes\ncluster-node-timeout 2000\ncluster-announce-ip {ip}\n")
        }
        Kind::ReplicaOf(master) => {
            format!("{in_memory}replicaof {} {}\nreplica-announce-ip {ip}\n", master.ip(), master.port())
        }
        Kind::Sentinel(master) => format!(
            "sentinel announce-ip {ip}\nsentinel monitor {MASTER} {} {} 1\n\
             sentinel auth-pass {MASTER} {password}\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n",
            master.ip(),
            master.port()
        ),
    };
    std::io::Write::write_all(&mut file, (common + &own).as_bytes())?;
    if let Some(user) = server_user()? {
        chown(&path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

fn spawn(kind: &Kind, home: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(home.join("redis.log"))?;
    let mut redis = command(redis_program()?, home)?;
    redis.arg("redis.conf").args(matches!(kind, Kind::Sentinel(_)).then_some("--sentinel"));
    redis.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
    redis.spawn().context("could not start redis-server")
}
