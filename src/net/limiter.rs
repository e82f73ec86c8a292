//! How many connections there may be, and who goes when there are nearly too many: whoever has kept octo waiting
//! for longest, and of those who hold most connections first.
//!
//! The registry is touched when a connection begins or ends and when room is made, never by a request.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{config, limits, net::phase::Phase};

/// How often it is tried to make room while there is none.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Whose connections a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// Everybody's.
    Public,
    /// Operators', on places that nobody else gets.
    Admin,
}

pub(super) struct ConnectionLimiter {
    public: Arc<Semaphore>,
    admin: Arc<Semaphore>,
    /// Places of the public that are kept free.
    reserve: usize,
    config: config::Server,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    connections: HashMap<u64, OpenConnection>,
    per_network: HashMap<u64, usize>,
    made_room_at: Option<Instant>,
}

struct OpenConnection {
    network: u64,
    phase: Arc<Phase>,
    kind: ListenerKind,
}

/// Who goes first: not who is idle only briefly, then of whoever holds most, then who waited longest.
type Order = (bool, Reverse<usize>, Reverse<Duration>);

/// A place; it is free again when this is dropped.
pub(super) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionLimiter {
    pub(super) fn new(config: &config::Server, connections_max: usize) -> Self {
        Self {
            public: Arc::new(Semaphore::new(connections_max)),
            admin: Arc::new(Semaphore::new(config.reserved_connections.max(1))),
            reserve: config.reserved_connections.min(connections_max / 4),
            config: config.clone(),
            open: Mutex::default(),
        }
    }

    /// Waits for a place, and sees to it that one becomes free.
    pub(super) async fn permit(&self, kind: ListenerKind) -> OwnedSemaphorePermit {
        let places = self.places(kind);
        if kind == ListenerKind::Public && places.available_permits() <= self.reserve {
            self.make_room();
        }
        loop {
            if let Ok(permit) = places.clone().try_acquire_owned() {
                return permit;
            }
            if let Ok(Ok(permit)) = timeout(RETRY_INTERVAL, places.clone().acquire_owned()).await {
                return permit;
            }
            if kind == ListenerKind::Public {
                self.make_room();
            }
        }
    }

    /// A place, if one is free.
    pub(super) fn try_permit(&self, kind: ListenerKind) -> Option<OwnedSemaphorePermit> {
        self.places(kind).clone().try_acquire_owned().ok()
    }

    fn places(&self, kind: ListenerKind) -> &Arc<Semaphore> {
        if kind == ListenerKind::Public { &self.public } else { &self.admin }
    }

    /// A place for a connection from `address`; `None` when that address has all it may have.
    pub(super) fn register(
        self: &Arc<Self>,
        address: IpAddr,
        kind: ListenerKind,
        phase: Arc<Phase>,
        permit: OwnedSemaphorePermit,
    ) -> Option<ConnectionPermit> {
        let network = limits::network(address);
        let per_address_max = self.config.connections_per_address_max;
        let mut open = self.lock();
        let is_counted = kind == ListenerKind::Public && per_address_max > 0 && !self.is_proxy(address);
        let held = open.per_network.entry(network).or_default();
        if is_counted && *held >= per_address_max {
            return None;
        }
        *held += 1;
        let id = open.next_id;
        open.next_id += 1;
        open.connections.insert(id, OpenConnection { network, phase, kind });
        Some(ConnectionPermit { limiter: self.clone(), id, _permit: permit })
    }

    /// Whoever relays the connections of many is not limited as one.
    fn is_proxy(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.config.is_trusted_proxy(address)
    }

    /// Closes connections of the public until twice the reserve is free; returns how many it asked to leave.
    fn make_room(&self) -> usize {
        self.make_room_at(Instant::now(), 0)
    }

    /// The same where places are free but descriptors are not: an eighth of those who wait at least.
    pub(super) fn free_descriptors(&self) -> usize {
        self.make_room_at(Instant::now(), 8)
    }

    fn make_room_at(&self, now: Instant, one_in: usize) -> usize {
        let mut open = self.lock();
        if open.made_room_at.is_some_and(|at| now < at + RETRY_INTERVAL) {
            return 0; // who was asked to leave is on the way; and a look at all of them is not for each newcomer
        }
        open.made_room_at = Some(now);
        let mut leaving = 0;
        let mut waiting: Vec<(Order, &Phase)> = Vec::new();
        for connection in
            open.connections.values().filter(|connection| connection.kind == ListenerKind::Public)
        {
            if connection.phase.is_unwanted() {
                leaving += 1;
                continue;
            }
            let Some(waited) = connection.phase.waited(now) else { continue };
            // who sends may take so long even where there is no room; who is idle for less goes last
            let is_brief = waited < self.config.crowded_wait;
            if is_brief && !connection.phase.is(Phase::IDLE) {
                continue;
            }
            let held = open.per_network.get(&connection.network).copied().unwrap_or_default();
            waiting.push(((is_brief, Reverse(held), Reverse(waited)), &connection.phase));
        }
        let free = self.public.available_permits() + leaving;
        let urgent = if one_in > 0 { waiting.len().div_ceil(one_in).saturating_sub(leaving) } else { 0 };
        let wanted = (2 * self.reserve).max(1).saturating_sub(free).max(urgent).min(waiting.len());
        if wanted > 0 && wanted < waiting.len() {
            waiting.select_nth_unstable_by_key(wanted - 1, |(order, _)| *order);
        }
        waiting[..wanted].iter().for_each(|(_, phase)| phase.leave());
        wanted
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limiter.lock();
        let Some(connection) = open.connections.remove(&self.id) else { return };
        if let Some(held) = open.per_network.get_mut(&connection.network) {
            *held -= 1;
            if *held == 0 {
                open.per_network.remove(&connection.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(connections_max: usize, set: impl FnOnce(&mut config::Server)) -> Arc<ConnectionLimiter> {
        let mut server = config::Loaded::load(None, [], &config::Flags::default()).unwrap().config.server;
        set(&mut server);
        Arc::new(ConnectionLimiter::new(&server, connections_max))
    }

    /// A connection that has been waited for since `since`.
    fn enter(
        limiter: &Arc<ConnectionLimiter>,
        address: &str,
        state: usize,
        since: Instant,
    ) -> Option<(ConnectionPermit, Arc<Phase>)> {
        let phase = Arc::new(Phase::new(since));
        phase.set(state);
        phase.wait_since(since);
        let permit = limiter.public.clone().try_acquire_owned().unwrap();
        let registered =
            limiter.register(address.parse().unwrap(), ListenerKind::Public, phase.clone(), permit);
        registered.map(|registered| (registered, phase))
    }

    #[test]
    fn whoever_waited_longest_leaves_of_the_address_that_holds_most() {
        let limiter = limiter(10, |server| server.reserved_connections = 1);
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        let mut connections = vec![enter(&limiter, "192.0.2.1", Phase::IDLE, start)];
        connections.extend((1..9).map(|n| enter(&limiter, "198.51.100.7", Phase::IDLE, later(n))));
        connections.push(enter(&limiter, "203.0.113.9", Phase::ANSWERING, start));
        assert_eq!(limiter.make_room_at(later(100), 0), 2, "twice the reserve");
        let leaving = connections.iter().map(|connection| connection.as_ref().unwrap().1.is_unwanted());
        let first_two_of_many = [false, true, true, false, false, false, false, false, false, false];
        assert_eq!(leaving.collect::<Vec<_>>(), first_two_of_many);
        assert_eq!(limiter.make_room_at(later(200), 0), 0, "two are on their way");
    }

    #[test]
    fn who_is_sending_is_left_alone_for_a_while() {
        let limiter = limiter(4, |server| server.reserved_connections = 1);
        let start = Instant::now();
        let connections: Vec<_> = [Phase::HEAD, Phase::BODY, Phase::HEAD]
            .map(|state| enter(&limiter, "192.0.2.1", state, start))
            .into();
        assert_eq!(limiter.make_room_at(start + Duration::from_millis(900), 0), 0);
        assert_eq!(limiter.make_room_at(start + Duration::from_secs(1), 0), 1, "one place is free already");
        assert_eq!(limiter.make_room_at(start + Duration::from_secs(2), 1), 1, "one stays, of three waiting");
        drop(connections);
        assert_eq!(limiter.public.available_permits(), 4);
    }

    #[test]
    fn an_address_holds_no_more_than_it_may() {
        let limiter = limiter(10, |server| server.connections_per_address_max = 2);
        let mut connections = Vec::new();
        let mut is_let_in = |address: &str| {
            connections.push(enter(&limiter, address, Phase::HEAD, Instant::now()));
            connections.last().unwrap().is_some()
        };
        assert!(is_let_in("2001:db8::1") && is_let_in("2001:db8::2"));
        assert!(!is_let_in("2001:db8::3"), "the same /64");
        assert!(is_let_in("2001:db8:0:1::1"));
        assert!((0..3).all(|_| is_let_in("127.0.0.1")), "a proxy of this machine");
        connections.clear();
        assert!(enter(&limiter, "2001:db8::3", Phase::HEAD, Instant::now()).is_some());
    }
}
