//! Our end of a connection to Postgres. sqlx 0.9 sets no option on its socket and does not hand it out (its
//! issue 4335); the kernel does: `pidfd_getfd(2)` duplicates a descriptor of a process, also of this one.
//!
//! What this cannot do: where the call is forbidden (the seccomp profile of Docker without `CAP_SYS_PTRACE`, Linux
//! before 5.6, other systems) the options stay as they are. Then a peer that vanished is found by the time-outs
//! that every query has anyway, and not by the kernel.

use std::time::Duration;

/// Idle time before the first keep-alive probe.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Time between keep-alive probes.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Keep-alive probes without an answer after which a connection is dead.
pub(super) const KEEPALIVE_COUNT: u32 = 5;

/// Time that sent data may stay unacknowledged before a connection is dead.
pub(super) const USER_TIMEOUT: Duration = Duration::from_mins(1);

/// Sets no-delay, keep-alive and user time-out on this process's connections to `port` that have not got them.
pub(super) async fn tune(port: u16) {
    #[cfg(target_os = "linux")]
    {
        let tuned = tokio::task::spawn_blocking(move || linux::tune(port)).await;
        if let Ok(Err(error)) = tuned {
            tracing::debug!(%error, "the options of a socket could not be set; queries have time-outs anyway");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = port;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, io};

    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use socket2::{SockRef, TcpKeepalive};

    use super::{KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, USER_TIMEOUT};

    pub(super) fn tune(port: u16) -> io::Result<()> {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        for entry in fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            // a descriptor may be gone by the time it is looked at
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let (true, Some(number)) = (target.to_string_lossy().starts_with("socket:"), number) else {
                continue;
            };
            match pidfd_getfd(&own, number, PidfdGetfdFlags::empty()) {
                Ok(copy) => tune_socket(&SockRef::from(&copy), port),
                Err(rustix::io::Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn tune_socket(socket: &SockRef<'_>, port: u16) {
        let peer = socket.peer_addr().ok().and_then(|address| address.as_socket());
        if peer.is_none_or(|peer| peer.port() != port) || socket.tcp_nodelay().unwrap_or(true) {
            return;
        }
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_COUNT);
        // each by itself: one that the system refuses is no reason against the others
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&keepalive);
        let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    }
}
