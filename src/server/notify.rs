//! What octo tells the service manager (sd_notify(3)): that it is ready, that it stops, what it is doing, and, where
//! a watchdog is set, that it is alive. Without `NOTIFY_SOCKET` all of it is nothing.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::{
    env,
    os::unix::net::{SocketAddr, UnixDatagram},
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
                tracing::warn!(name, %error, "the service manager cannot be told anything: NOTIFY_SOCKET");
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
        self.tell("STOPPING=1\nSTATUS=answering what is under way; the journal goes to PostgreSQL");
    }

    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// A message is a datagram; one that the manager does not take at once is lost, and nobody waits for it.
    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager did not hear");
        }
    }

    /// Says twice in each period that octo is alive. It is while the runtime still runs what it is given: a new task
    /// must have been run, or nothing is said, and the manager ends a process that answers nobody. That a disk or a
    /// database hangs is no reason: clicks are redirected meanwhile, and a restart mends neither.
    pub(super) async fn watch(&self, stop: CancellationToken) {
        let Some(period) = self.watchdog else { return stop.cancelled().await };
        let mut ticks = interval(period / 2);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "ends at once: that it runs at all is what is asked"
            )]
            let probe = tokio::spawn(async {});
            if timeout(period / 4, probe).await.is_ok() {
                self.tell("WATCHDOG=1");
            }
        }
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
