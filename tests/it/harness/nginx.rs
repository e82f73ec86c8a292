//! A real nginx in front of octo, with the few lines that a proxy needs.

use std::fs::{self, File};
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::machine::{
    Claim, Signal, command, private_addresses, server_program, server_user, servers_dir, signal,
    wait_for_port,
};
use super::must;
use super::sandbox::Sandbox;

/// A running `nginx`. Dropping it ends it.
pub(crate) struct Nginx {
    address: SocketAddrV4,
    child: Child,
    sandbox: Sandbox,
}

impl Nginx {
    /// Starts it in front of `node`, to which it keeps connections open; `options` are lines of its `server`.
    pub(crate) async fn start(node: SocketAddr, options: &str) -> Self {
        must(Self::try_start(node, options).await.context("could not start nginx"))
    }

    async fn try_start(node: SocketAddr, options: &str) -> Result<Self> {
        let (claim, address) = Claim::first(private_addresses(), 8080)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let dir = sandbox.dir();
        fs::write(dir.join("nginx.conf"), config(dir, address, node, options))?;
        let log = File::create(dir.join("nginx.log"))?;
        let mut nginx = command(server_program("nginx")?, dir)?;
        // the prefix says where everything else goes, and -e where the errors from before the file is read go
        nginx.arg("-p").arg(dir).args(["-e", "stderr", "-c", "nginx.conf"]);
        nginx.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        let child = nginx.spawn().context("could not start nginx")?;
        let mut started = Self { address, child, sandbox };
        let log = started.sandbox.dir().join("nginx.log");
        wait_for_port(address, &mut started.child, &log).await?;
        Ok(started)
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address.into()
    }

    /// Of each request that has ended `sent` or `kept`, and its first line.
    pub(crate) fn access_log(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("access.log")).unwrap_or_default()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("nginx.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // not SIGKILL, which its worker would outlive; an error here means that it has ended already
        signal(Signal::Term, &[self.child.id()]);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx\n{}---", self.log());
        }
    }
}

fn config(dir: &Path, address: SocketAddrV4, node: SocketAddr, options: &str) -> String {
    let dir = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {dir}/{name};\n"))
        .concat();
    format!(
        "daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr;
events {{}}
http {{
{temporary}    map $upstream_addr $fate {{ '' kept; default sent; }}
    log_format fate '$fate $request';
    access_log {dir}/access.log fate;
    upstream octo {{ server {node}; keepalive 8; }}
    server {{
        listen {address};
        location / {{ proxy_pass http://octo; }}
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        proxy_set_header Host $host;
        {options}
    }}
}}
"
    )
}
