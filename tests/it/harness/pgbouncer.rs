//! A PgBouncer in transaction mode in front of a private PostgreSQL.

use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::machine::{
    Claim, command, private_addresses, server_program, server_user, servers_dir, wait_for_port,
};
use super::sandbox::Sandbox;
use super::{PrivatePostgres, must};

/// A running `pgbouncer` with few server connections, so that clients share them. Dropping it ends it.
pub(crate) struct PgBouncer {
    address: SocketAddrV4,
    server_url: String,
    child: Child,
    _sandbox: Sandbox,
}

impl PgBouncer {
    /// Starts it in front of `postgres`, with at most `connections` to it.
    pub(crate) async fn start(postgres: &PrivatePostgres, connections: u32) -> Self {
        must(Self::try_start(postgres, connections).await.context("could not start PgBouncer"))
    }

    async fn try_start(postgres: &PrivatePostgres, connections: u32) -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 6432)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let server_url = postgres.url();
        write_config(sandbox.dir(), address, &server_url, connections)?;
        let log = File::create(sandbox.dir().join("pgbouncer.log"))?;
        let mut pgbouncer = command(server_program("pgbouncer")?, sandbox.dir())?;
        pgbouncer.arg("pgbouncer.ini").stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        let mut child = pgbouncer.spawn().context("could not start pgbouncer")?;
        wait_for_port(address, &mut child, &sandbox.dir().join("pgbouncer.log")).await?;
        Ok(Self { address, server_url, child, _sandbox: sandbox })
    }

    /// The URL for `octo`, by way of PgBouncer.
    pub(crate) fn url(&self) -> String {
        let mut url = url::Url::parse(&self.server_url).expect("a URL");
        url.set_ip_host((*self.address.ip()).into()).expect("a host");
        url.set_port(Some(self.address.port())).expect("a port");
        url.into()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // an error here means that it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The least that is refused by default is what PgBouncer refuses here: no start-up parameter is ignored.
fn write_config(dir: &Path, address: SocketAddrV4, server_url: &str, connections: u32) -> Result<()> {
    let url = url::Url::parse(server_url)?;
    let (host, port) = (url.host_str().context("a host")?, url.port().context("a port")?);
    let (user, password) = (url.username(), url.password().context("a password")?);
    let database = url.path().trim_start_matches('/');
    let (ip, listen_port) = (address.ip(), address.port());
    let config = format!(
        "[databases]\n{database} = host={host} port={port} dbname={database} user={user} password={password}\n\
         [pgbouncer]\nlisten_addr = {ip}\nlisten_port = {listen_port}\nunix_socket_dir =\nauth_type = plain\n\
         auth_file = users.txt\npool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 200\n\
         server_reset_query_always = 0\n"
    );
    for (name, text) in [("pgbouncer.ini", config), ("users.txt", format!("\"{user}\" \"{password}\"\n"))] {
        let path = dir.join(name);
        fs::write(&path, text)?;
        if let Some(user) = server_user()? {
            chown(&path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}
