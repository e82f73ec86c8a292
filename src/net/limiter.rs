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

use crate::{config, limits, net::phase::Turn};

/// How often it is tried to make room while there is none.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Whose connections a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hall {
    /// Everybody's.
    Public,
    /// Operators', on places that nobody else gets.
    Admin,
}

pub(super) struct Room {
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
    guests: HashMap<u64, Guest>,
    per_network: HashMap<u64, usize>,
    made_room_at: Option<Instant>,
}

struct Guest {
    network: u64,
    turn: Arc<Turn>,
    hall: Hall,
}

/// Who goes first: not who is idle only briefly, then of whoever holds most, then who waited longest.
type Order = (bool, Reverse<usize>, Reverse<u64>);

/// A place; it is free again when this is dropped.
pub(super) struct Seat {
    room: Arc<Room>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Room {
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
    pub(super) async fn permit(&self, hall: Hall) -> OwnedSemaphorePermit {
        let places = self.places(hall);
        if hall == Hall::Public && places.available_permits() <= self.reserve {
            self.make_room();
        }
        loop {
            if let Ok(permit) = places.clone().try_acquire_owned() {
                return permit;
            }
            if let Ok(Ok(permit)) = timeout(RETRY_INTERVAL, places.clone().acquire_owned()).await {
                return permit;
            }
            if hall == Hall::Public {
                self.make_room();
            }
        }
    }

    /// A place, if one is free.
    pub(super) fn try_permit(&self, hall: Hall) -> Option<OwnedSemaphorePermit> {
        self.places(hall).clone().try_acquire_owned().ok()
    }

    fn places(&self, hall: Hall) -> &Arc<Semaphore> {
        if hall == Hall::Public { &self.public } else { &self.admin }
    }

    /// A place for a connection from `address`; `None` when that address has all it may have.
    pub(super) fn seat(
        self: &Arc<Self>,
        address: IpAddr,
        hall: Hall,
        turn: Arc<Turn>,
        permit: OwnedSemaphorePermit,
    ) -> Option<Seat> {
        let network = limits::network(address);
        let per_address_max = self.config.connections_per_address_max;
        let mut open = self.lock();
        let is_counted = hall == Hall::Public && per_address_max > 0 && !self.is_proxy(address);
        let held = open.per_network.entry(network).or_default();
        if is_counted && *held >= per_address_max {
            return None;
        }
        *held += 1;
        let id = open.next_id;
        open.next_id += 1;
        open.guests.insert(id, Guest { network, turn, hall });
        Some(Seat { room: self.clone(), id, _permit: permit })
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
        let mut waiting: Vec<(Order, &Turn)> = Vec::new();
        for guest in open.guests.values().filter(|guest| guest.hall == Hall::Public) {
            if guest.turn.is_unwanted() {
                leaving += 1;
                continue;
            }
            let Some(waited_ms) = guest.turn.waited_ms(now) else { continue };
            // who sends may take so long even where there is no room; who is idle for less goes last
            let is_brief = waited_ms < self.config.crowded_wait_ms;
            if is_brief && !guest.turn.is(Turn::IDLE) {
                continue;
            }
            let held = open.per_network.get(&guest.network).copied().unwrap_or_default();
            waiting.push(((is_brief, Reverse(held), Reverse(waited_ms)), &guest.turn));
        }
        let free = self.public.available_permits() + leaving;
        let urgent = if one_in > 0 { waiting.len().div_ceil(one_in).saturating_sub(leaving) } else { 0 };
        let wanted = (2 * self.reserve).max(1).saturating_sub(free).max(urgent).min(waiting.len());
        if wanted > 0 && wanted < waiting.len() {
            waiting.select_nth_unstable_by_key(wanted - 1, |(order, _)| *order);
        }
        waiting[..wanted].iter().for_each(|(_, turn)| turn.leave());
        wanted
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.room.lock();
        let Some(guest) = open.guests.remove(&self.id) else { return };
        if let Some(held) = open.per_network.get_mut(&guest.network) {
            *held -= 1;
            if *held == 0 {
                open.per_network.remove(&guest.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(connections_max: usize, set: impl FnOnce(&mut config::Server)) -> Arc<Room> {
        let mut server = config::Loaded::load(None, [], &config::Flags::default()).unwrap().config.server;
        set(&mut server);
        Arc::new(Room::new(&server, connections_max))
    }

    /// A guest who has been waited for since `since`.
    fn enter(room: &Arc<Room>, address: &str, state: usize, since: Instant) -> Option<(Seat, Arc<Turn>)> {
        let turn = Arc::new(Turn::new(since));
        turn.set(state);
        turn.wait_since(since);
        let permit = room.public.clone().try_acquire_owned().unwrap();
        let seat = room.seat(address.parse().unwrap(), Hall::Public, turn.clone(), permit);
        seat.map(|seat| (seat, turn))
    }

    #[test]
    fn whoever_waited_longest_leaves_of_the_address_that_holds_most() {
        let room = room(10, |server| server.reserved_connections = 1);
        let start = Instant::now();
        let later = |ms| start + Duration::from_millis(ms);
        let mut guests = vec![enter(&room, "192.0.2.1", Turn::IDLE, start)];
        guests.extend((1..9).map(|n| enter(&room, "198.51.100.7", Turn::IDLE, later(n))));
        guests.push(enter(&room, "203.0.113.9", Turn::ANSWERING, start));
        assert_eq!(room.make_room_at(later(100), 0), 2, "twice the reserve");
        let leaving = guests.iter().map(|guest| guest.as_ref().unwrap().1.is_unwanted());
        let first_two_of_many = [false, true, true, false, false, false, false, false, false, false];
        assert_eq!(leaving.collect::<Vec<_>>(), first_two_of_many);
        assert_eq!(room.make_room_at(later(200), 0), 0, "two are on their way");
    }

    #[test]
    fn who_is_sending_is_left_alone_for_a_while() {
        let room = room(4, |server| server.reserved_connections = 1);
        let start = Instant::now();
        let guests: Vec<_> =
            [Turn::HEAD, Turn::BODY, Turn::HEAD].map(|state| enter(&room, "192.0.2.1", state, start)).into();
        assert_eq!(room.make_room_at(start + Duration::from_millis(900), 0), 0);
        assert_eq!(room.make_room_at(start + Duration::from_secs(1), 0), 1, "one place is free already");
        assert_eq!(room.make_room_at(start + Duration::from_secs(2), 1), 1, "one stays, of three waiting");
        drop(guests);
        assert_eq!(room.public.available_permits(), 4);
    }

    #[test]
    fn an_address_holds_no_more_than_it_may() {
        let room = room(10, |server| server.connections_per_address_max = 2);
        let mut guests = Vec::new();
        let mut is_let_in = |address: &str| {
            guests.push(enter(&room, address, Turn::HEAD, Instant::now()));
            guests.last().unwrap().is_some()
        };
        assert!(is_let_in("2001:db8::1") && is_let_in("2001:db8::2"));
        assert!(!is_let_in("2001:db8::3"), "the same /64");
        assert!(is_let_in("2001:db8:0:1::1"));
        assert!((0..3).all(|_| is_let_in("127.0.0.1")), "a proxy of this machine");
        guests.clear();
        assert!(enter(&room, "2001:db8::3", Turn::HEAD, Instant::now()).is_some());
    }
}
