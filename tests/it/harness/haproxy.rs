//! A real haproxy, with the example configuration of this repository.

use std::fs::{self, File};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::machine::{Claim, command, private_addresses, server_user, servers_dir};
use super::sandbox::Sandbox;
use super::{POLL, must};

const START_TIMEOUT: Duration = Duration::from_secs(15);

/// A running `haproxy`. Dropping it ends it.
pub(crate) struct HaProxy {
    address: SocketAddrV4,
    child: Child,
    sandbox: Sandbox,
}

impl HaProxy {
    /// Starts `config/haproxy/haproxy.cfg` in front of two nodes; `edit` may change its text.
    pub(crate) async fn start(nodes: [SocketAddr; 2], edit: impl FnOnce(String) -> String) -> Self {
        must(Self::try_start(nodes, edit).await.context("could not start haproxy"))
    }

    async fn try_start(nodes: [SocketAddr; 2], edit: impl FnOnce(String) -> String) -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 8080)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/haproxy/haproxy.cfg");
        fs::write(sandbox.dir().join("haproxy.cfg"), edit(fs::read_to_string(example)?))?;
        let log = File::create(sandbox.dir().join("haproxy.log"))?;
        let mut haproxy = command(program()?, sandbox.dir())?;
        haproxy.env("OCTO_BIND", address.to_string());
        haproxy.env("OCTO_NODE_A", nodes[0].to_string()).env("OCTO_NODE_B", nodes[1].to_string());
        haproxy
            .args(["-db", "-f", "haproxy.cfg"])
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let child = haproxy.spawn().context("could not start haproxy")?;
        let mut started = Self { address, child, sandbox };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = started.child.try_wait()? {
                bail!("haproxy ended at its start, {status}: {}", started.log());
            }
            ensure!(Instant::now() < deadline, "haproxy is not ready in time: {}", started.log());
            tokio::time::sleep(POLL).await;
        }
        Ok(started)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address.into()
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("haproxy.log")).unwrap_or_default()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        // an error here means that it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- haproxy\n{}---", self.log());
        }
    }
}

fn program() -> Result<PathBuf> {
    ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"]
        .into_iter()
        .map(PathBuf::from)
        .find(|program| program.is_file())
        .context("no haproxy: the tests need a real one; run ./test, which installs it, or apt-get install haproxy")
}
