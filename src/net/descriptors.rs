//! How many connections the open-files limit has room for, beside the files that octo itself must be able to open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Standard streams, the runtime, listeners, signals, `/proc`, and the journal's segments: written, read by the
/// drain, listed. Without a descriptor for its next segment the journal could not record a click.
const OWN_FILES: usize = 48;

/// With fewer places than this octo starts all the same, and says that it is not enough.
const CONNECTIONS_MIN: usize = 8;

/// Raises the limit as far as it goes; gives `server.max_connections`, or what fits.
pub(crate) fn connections_max(config: &Config) -> usize {
    let wanted = config.server.max_connections;
    let Some(limit) = raise() else { return wanted };
    let fitting = fitting(limit, reserved(config));
    if fitting >= wanted {
        return wanted;
    }
    tracing::warn!(
        "{limit} open files are allowed: server.max_connections is {fitting} and not {wanted}; allow {} with \
         `ulimit -n` or LimitNOFILE=",
        wanted.saturating_add(reserved(config))
    );
    fitting
}

/// The soft limit becomes the hard one: it is low by default for programs that use select(2).
fn raise() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.and_then(|current| usize::try_from(current).ok())
}

/// Descriptors for everything that is not a connection of the public.
fn reserved(config: &Config) -> usize {
    let pools = config.database.max_connections as usize * (1 + config.database.replica_urls.len());
    let admin = config.server.admin_listen.map_or(0, |_| config.server.reserved_connections);
    // beside the pools the drain, notifications and probes have connections of their own
    OWN_FILES + pools + 2 * config.redis.pool_size + admin
}

fn fitting(limit: usize, reserved: usize) -> usize {
    limit.saturating_sub(reserved).max(CONNECTIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_octo_needs_itself_comes_first() {
        assert_eq!(fitting(1024, 100), 924);
        assert_eq!(fitting(100, 100), CONNECTIONS_MIN);
    }
}
