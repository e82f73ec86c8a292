//! What octo tells the service manager (sd_notify(3)): that it is ready, that it stops, what it is doing, and, where
//! a watchdog is set, that it is alive. Without `NOTIFY_SOCKET` all of it is nothing.
//!
//! The crate sd-notify 0.5.0 does not fit: it takes `@name` for a file instead of a name in the abstract namespace,
//! its socket blocks the thread of the runtime while the manager's queue is full, it opens a new one for each message,
//! and the inherited sockets it gives are bare numbers, which only unsafe code can turn into listeners.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::{
    env,
    os::unix::net::{SocketAddr, UnixDatagram},
    sync::Arc,
    time::Duration,
};

use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// The way to the service manager.
#[derive(Debug, Default)]
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment has it.
    pub(super) fn from_env() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| match open(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(name, %error, "cannot notify the service manager; check NOTIFY_SOCKET");
                None
            }
        });
        let get = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let is_ours = get("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let period = get("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|usec| *usec > 0);
        Self { socket, watchdog: period.filter(|_| is_ours).map(Duration::from_micros) }
    }

    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing open requests and storing the journal in PostgreSQL");
    }

    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// A message is a datagram; one that the manager does not take at once is lost, and nobody waits for it.
    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager was not notified");
        }
    }

    /// Says twice in each period that octo is alive. It is while the runtime still runs what it is given: a new task
    /// must have been run, or nothing is said, and the manager ends a process that answers nobody. That a disk or a
    /// database hangs is no reason: clicks are redirected meanwhile, and a restart mends neither.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(period) = self.watchdog else {
            stop.cancelled().await;
            return Ok(());
        };
        let mut ticks = interval(period / 2);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            #[expect(
                clippy::disallowed_methods,
                reason = "ends at once: that it runs at all is what is asked"
            )]
            let probe = tokio::spawn(async {});
            if timeout(period / 4, probe).await.is_ok() {
                self.tell("WATCHDOG=1");
            }
        }
        Ok(())
    }
}

/// `@name` is in the abstract namespace, anything else a path.
fn open(name: &str) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
