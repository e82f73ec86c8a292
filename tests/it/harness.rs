//! What the tests stand on: real servers, a database of one's own, and a running `octo`.
//!
//! - [`Servers::shared`]: one PostgreSQL primary, two streaming replicas and a Redis, shared by all test processes.
//! - [`Database::create`]: a fresh, migrated database on them, dropped when the test ends. What most tests want.
//! - [`PrivatePostgres`], [`PrivateRedis`]: servers for a test that kills, stops or freezes them.
//! - [`RedisCluster`], [`RedisSentinel`]: several of the latter that know each other.
//! - [`Octo`]: the real binary, with its own data directory, on a free port.
//! - [`Browser`]: a real Chromium; [`Site`]: a web site of somebody else.
//! - `tracker`: a running octo with a campaign; `nodes`: several on one database; `wire`: a proxy between one and its own.
//! - `traffic`: a month of clicks made by PostgreSQL, and what is asked about it.
//! - `load` and `visitors` send clicks, `verify` finds out what became of them, `records` writes a journal.
//!
//! # Nothing is left behind
//!
//! A test may be killed at any moment, and then runs no destructor. So every set of servers lives in one directory
//! beside which a detached shell (`watcher.sh`) waits for a file lock; the kernel releases that lock when the last test
//! process is gone, however it went, and the shell stops what lives in the directory and removes it. Destructors use
//! the same way: they let go of the lock and wait for the shell.
//!
//! # Addresses
//!
//! All of 127.0.0.0/8 is loopback, so servers take addresses instead of hunting for ports: `127.77.N.1`, `.2`, `.3` for
//! PostgreSQL and `.4` for Redis, and `127.78.x.y` for private ones. `127.0.0.1:5432` is somebody's database and is
//! never touched.
#![allow(dead_code, reason = "an offer to all test files and benches; not every item is taken up yet")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "as in main.rs, which the benches do not have"
)]

pub(crate) mod api;
mod browser;
mod database;
pub(crate) mod document;
mod haproxy;
pub(crate) mod load;
mod machine;
pub(crate) mod metrics;
pub(crate) mod mmdb;
mod mounts;
mod nginx;
pub(crate) mod nodes;
mod octo;
mod pgbouncer;
mod postgres;
mod private;
mod prometheus;
pub(crate) mod records;
mod redis;
mod sandbox;
mod servers;
mod site;
pub(crate) mod tools;
pub(crate) mod tracker;
pub(crate) mod traffic;
pub(crate) mod verify;
pub(crate) mod visitors;
pub(crate) mod wire;

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::panic::Location;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "see the head of this file")]
pub(crate) use self::{
    browser::{Browser, Engine, Page, Request, in_browsers},
    database::{DAY_PARTITIONS, Database, migrate},
    haproxy::HaProxy,
    machine::{OutsideAddress, Signal, signal},
    nginx::Nginx,
    octo::{Octo, OctoBuilder, announced_address},
    pgbouncer::PgBouncer,
    private::{PrivatePostgres, PrivateRedis, RedisCluster, RedisSentinel},
    prometheus::{Prometheus, config_dir as prometheus_config, promtool},
    sandbox::Scratch,
    servers::Servers,
    site::{Answer, Site},
};

/// Whether the long forms are wanted: `OCTO_PROOF=long`.
pub(crate) fn is_long() -> bool {
    match std::env::var("OCTO_PROOF").as_deref() {
        Ok("long") => true,
        Ok(other) => panic!("OCTO_PROOF is {other:?}; it may be \"long\""),
        Err(_) => false,
    }
}

/// A port that nobody uses, on an address that nobody uses.
pub(crate) fn free_address() -> SocketAddr {
    let address = Ipv4Addr::new(127, 79, fastrand::u8(..), fastrand::u8(1..255));
    must(TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).map_err(Into::into))
}

/// How long to sleep between two looks at something that will be so in a moment.
const POLL: Duration = Duration::from_millis(10);

/// Asks again and again until the answer is `Ok`, and fails the test with the last refusal when `timeout` has passed.
///
/// ```ignore
/// eventually(Duration::from_secs(5), async || {
///     let rows = count(&pool).await?;
///     anyhow::ensure!(rows == 3, "{rows} rows so far");
///     Ok(())
/// })
/// .await;
/// ```
#[track_caller]
pub(crate) fn eventually<T>(
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> anyhow::Result<T>,
) -> impl Future<Output = T> {
    let place = Location::caller();
    async move {
        let started = Instant::now();
        let mut last = String::from("none");
        for tries in 1.. {
            match tokio::time::timeout(timeout.saturating_sub(started.elapsed()), probe()).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) if started.elapsed() + POLL < timeout => {
                    last = format!("{error:#}");
                    tokio::time::sleep(POLL).await;
                }
                Ok(Err(error)) => give_up(place, timeout, tries, &format!("{error:#}")),
                Err(_) => give_up(place, timeout, tries, &format!("{last}; then the probe did not answer")),
            }
        }
        unreachable!("the loop ends by an answer or by giving up")
    }
}

fn give_up(place: &Location<'_>, timeout: Duration, tries: u32, last: &dyn Display) -> ! {
    panic!("{place}: still not so after {timeout:?} and {tries} tries; the last answer: {last}")
}

/// Takes the value or fails the test with the whole chain of causes.
#[track_caller]
fn must<T>(result: anyhow::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:#}"),
    }
}
