//! A real haproxy, with the example configuration of this repository.

use std::fs::{self, File};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::machine::{
    Claim, command, private_addresses, server_program, server_user, servers_dir, wait_for_port,
};
use super::must;
use super::sandbox::Sandbox;

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
        let mut haproxy = command(server_program("haproxy")?, sandbox.dir())?;
        haproxy.env("OCTO_BIND", address.to_string());
        haproxy.env("OCTO_NODE_A", nodes[0].to_string()).env("OCTO_NODE_B", nodes[1].to_string());
        haproxy
            .args(["-db", "-f", "haproxy.cfg"])
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let child = haproxy.spawn().context("could not start haproxy")?;
        let mut started = Self { address, child, sandbox };
        let log = started.sandbox.dir().join("haproxy.log");
        wait_for_port(address, &mut started.child, &log).await?;
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
