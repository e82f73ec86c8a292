//! A TCP address that leads to a server and can be made to lead to another one: what a virtual address or a name does
//! in a failover.
#![expect(
    clippy::disallowed_methods,
    reason = "its tasks end with it; the harness has no Tasks of the product"
)]

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use super::must;

/// Forwards connections until it is dropped.
pub(crate) struct Forwarder {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl Forwarder {
    /// In front of the server of a URL.
    pub(crate) async fn to(url: &str) -> Self {
        must(Self::try_to(url).await.context("could not start a forwarder"))
    }

    async fn try_to(url: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let target = watch::Sender::new(server_of(url)?);
        let accepting = tokio::spawn(accept(listener, target.subscribe()));
        Ok(Self { address, target, accepting })
    }

    /// Leads to the server of another URL from now on; connections to the one before are cut.
    pub(crate) fn switch(&self, url: &str) {
        self.target.send_replace(must(server_of(url)));
    }

    /// The URL with this address in it.
    pub(crate) fn url(&self, url: &str) -> String {
        must(self.try_url(url))
    }

    fn try_url(&self, url: &str) -> Result<String> {
        let mut url = Url::parse(url)?;
        url.set_host(Some(&self.address.ip().to_string()))?;
        url.set_port(Some(self.address.port())).ok().context("a URL with a port")?;
        Ok(url.into())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn server_of(url: &str) -> Result<SocketAddr> {
    let url = Url::parse(url)?;
    let (host, port) = url.host_str().zip(url.port()).context("a URL with an address and a port")?;
    Ok(SocketAddr::new(host.parse()?, port))
}

async fn accept(listener: TcpListener, target: watch::Receiver<SocketAddr>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(forward(client, target.clone()));
    }
}

/// Ends with either side, at a switch, or with the forwarder.
async fn forward(mut client: TcpStream, mut target: watch::Receiver<SocketAddr>) {
    let address = *target.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = target.changed() => {}
    }
}
