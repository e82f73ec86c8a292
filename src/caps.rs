//! How much paths and offers have taken. Counted in memory, so that no click waits for it, and only where there is a cap;
//! shared with the other nodes by `sharing`, kept over a restart by `file`.
//!
//! A count is a table of what each process counted: a process only ever raises its own number, and two tables become one
//! by taking the higher number of each process (a grow-only counter: Shapiro and others, "A comprehensive study of
//! Convergent and Commutative Replicated Data Types", 2011). So it does not matter how often a number is told, in which
//! order, or by which way, and a store that lost everything is told again.
//!
//! A cap is soft: a node decides by its own clicks and by those of others as far as it has heard of them, at most
//! `caps.share_interval_ms` ago. What goes over a limit meanwhile is counted in `octo_cap_overshoot_total`.

mod file;
pub(crate) mod sharing;
pub mod window;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, Hasher as _},
    path::Path,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use siphasher::sip::SipHasher13;
use tokio::sync::Notify;
use uuid::Uuid;

use self::window::Window;
use crate::{
    judge::uniques::Uniques,
    metrics,
    model::rule::{Cap, CapOf, CapPer, ONLY_PATH},
    routing::{CapTarget, Routes},
};

/// Counters are spread over so many locks.
const SHARDS: usize = 64;

/// Behind the name of what is counted, where the counter is of places that were given back.
const BACK: &str = "-back";

/// A clock that went back by less stays in the window that it was in.
const CLOCK_BACK_S: i64 = 60;

/// How long what others count is heard of for a counter that nobody asks for.
const HEARD_FOR_S: i64 = 60;

/// Where counts are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Each interval, where there is one.
    Redis = 0,
    /// Each interval where there is no Redis or it does not answer, else now and then.
    Postgres = 1,
}

/// What is counted, and in which windows. A cap with another limit is the same counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterId {
    target: Target,
    of: CapOf,
    per: CapPer,
    zone: Tz,
    /// Whether it counts the places that were given back: what is counted only grows.
    is_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    /// The only path of a campaign.
    Campaign(Uuid),
    Path(i64),
    Offer(i64),
}

/// One counter.
#[derive(Debug)]
struct Counter {
    id: CounterId,
    /// The same at all nodes.
    hash: u64,
    count: Mutex<Count>,
}

/// What was counted in a window.
#[derive(Debug)]
struct Count {
    window: Window,
    total: u64,
    /// By process; this one's is the first.
    tallies: Vec<Tally>,
    /// What it was asked against last.
    limit: u32,
    /// The second of the last question.
    asked_at_s: i64,
    /// Whether a store said what others counted since the window or the questions began.
    is_heard: bool,
    /// Its share of what went over the limit, as far as it was said.
    over: u64,
    /// Whether the file is behind.
    is_unsaved: bool,
}

/// What a process counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    node: Uuid,
    count: u64,
    /// What each store has of it.
    stored: [u64; 2],
}

/// How far a cap is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The cap, with its zone.
    pub cap: Cap,
    /// Counted in the window, as far as this node has heard.
    pub used: u64,
    /// The window of now.
    pub window: Window,
    /// Whether others' counts have been heard of; otherwise `used` is what this node knows by itself.
    pub is_heard: bool,
}

type Shard = RwLock<HashMap<CounterId, Arc<Counter>, foldhash::fast::FixedState>>;

/// All counters of this process.
pub struct Caps {
    shards: Box<[Shard]>,
    len: AtomicUsize,
    len_max: usize,
    /// This process.
    node: Uuid,
    uniques: Arc<Uniques>,
    /// Told when a counter is new: others may have counted already.
    pub(crate) new: Notify,
}

impl Caps {
    /// Without any counter. `uniques` tells visitors apart.
    pub fn new(len_max: usize, uniques: Arc<Uniques>) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let node = Uuid::new_v4();
        Self { shards, len: AtomicUsize::new(0), len_max, node, uniques, new: Notify::new() }
    }

    /// Takes the counts of an earlier start from their file.
    pub fn restore(&self, path: &Path, now: DateTime<Utc>) {
        file::load(self, path, now);
    }

    /// Whether a path or an offer of a campaign has taken as much as it may, for a visit at a time. `visit` is who visits
    /// the campaign, as [`Keys`](crate::privacy::keys::Keys) hash it: whoever is counted already fills no place.
    ///
    /// This is what [`routing::Visit::is_full`](crate::routing::Visit) asks, and
    /// [`routing::OutVisit::is_full`](crate::routing::OutVisit) too:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use chrono::Utc;
    /// # use octo::{caps::Caps, judge::uniques::Uniques, model::campaign::{Campaign, Terms}};
    /// # use octo::routing::{self, OutVisit, Routes};
    /// # let caps = Caps::new(10, Arc::new(Uniques::open(10, "/nonexistent/visitors".into(), None)));
    /// # let routes = Routes::new(Campaign::of("demo".parse().unwrap(), Terms::demo("https://a.example/"))).unwrap();
    /// # let (now, visit) = (Utc::now(), 7);
    /// let is_full = |target| caps.is_full(&routes, target, now, visit);
    /// # let (rule_id, path_id, offer_id, nth, seed, visitor_key, bound_offer_id, os) =
    /// #     (None, None, None, None, 1, None, None, "");
    /// let asked = OutVisit {
    ///     is_full: &is_full,
    ///     // ..
    /// #   rule_id, path_id, offer_id, nth, now, seed, visitor_key, bound_offer_id, os,
    /// };
    /// let decision = routing::decide_out(&routes, &asked);
    /// // once the out-click is judged, and it counts
    /// if let Some(offer_id) = decision.offer_id() {
    ///     caps.count_offer(&routes, offer_id, now, visit);
    /// }
    /// ```
    pub fn is_full(&self, routes: &Routes, target: CapTarget, at: DateTime<Utc>, visit: u64) -> bool {
        routes.caps(target).iter().any(|cap| {
            let Some(counter) = self.counter(CounterId::of(routes, target, *cap)) else { return false };
            let mut count = counter.at(at, self);
            count.set_limit(cap.limit);
            let (total, what) = (count.total, counter.what(count.window));
            drop(count);
            let is_over = total.saturating_sub(self.given_back(counter.id, at)) >= cap.limit.into();
            is_over && !(cap.of == CapOf::Visitors && self.uniques.has_of(visit, what, seconds(at)))
        })
    }

    /// Counts a click that is valid toward the caps of its path and of the offer that it goes to. One that sees a landing
    /// page first goes to none yet.
    pub fn count_click(
        &self,
        routes: &Routes,
        path_id: Option<i64>,
        offer_id: Option<i64>,
        at: DateTime<Utc>,
        visit: u64,
    ) {
        for target in [path_id.map(CapTarget::Path), offer_id.map(CapTarget::Offer)].into_iter().flatten() {
            self.count(routes, target, at, visit);
        }
    }

    /// Counts an out-click that is valid toward the caps of its offer.
    pub fn count_offer(&self, routes: &Routes, offer_id: i64, at: DateTime<Utc>, visit: u64) {
        self.count(routes, CapTarget::Offer(offer_id), at, visit);
    }

    /// Counts a conversion, at the time it arrives, toward the caps of its path and offer.
    pub fn count_conversion(
        &self,
        routes: &Routes,
        path_id: Option<i64>,
        offer_id: Option<i64>,
        at: DateTime<Utc>,
    ) {
        for (id, limit) in conversion_caps(routes, path_id, offer_id) {
            self.count_one(id, limit, at);
        }
    }

    /// Gives the place of a conversion back that arrived at `arrived_at` and was rejected, where its window is not over.
    pub fn give_back_conversion(
        &self,
        routes: &Routes,
        path_id: Option<i64>,
        offer_id: Option<i64>,
        arrived_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) {
        for (id, _) in conversion_caps(routes, path_id, offer_id) {
            if Window::of(now, id.per, id.zone).contains(arrived_at.timestamp()) {
                self.count_one(CounterId { is_back: true, ..id }, u32::MAX, now);
            }
        }
    }

    /// Places of a counter's window that were given back.
    fn given_back(&self, id: CounterId, at: DateTime<Utc>) -> u64 {
        if id.of != CapOf::Conversions {
            return 0;
        }
        self.counter(CounterId { is_back: true, ..id }).map_or(0, |counter| counter.at(at, self).total)
    }

    fn count(&self, routes: &Routes, target: CapTarget, at: DateTime<Utc>, visit: u64) {
        for cap in routes.caps(target) {
            let id = CounterId::of(routes, target, *cap);
            match cap.of {
                CapOf::Clicks => self.count_one(id, cap.limit, at),
                CapOf::Visitors => {
                    let Some(counter) = self.counter(id) else { continue };
                    let what = counter.what(counter.at(at, self).window);
                    if self.uniques.is_first_of(visit, what, seconds(at)) {
                        self.count_one(id, cap.limit, at);
                    }
                }
                CapOf::Conversions => {}
            }
        }
    }

    fn count_one(&self, id: CounterId, limit: u32, at: DateTime<Utc>) {
        let Some(counter) = self.counter(id) else { return };
        let mut count = counter.at(at, self);
        count.set_limit(limit);
        count.total += 1;
        count.tallies[0].count += 1;
        count.is_unsaved = true;
    }

    /// How far the caps of a path or an offer are used up at a time.
    pub fn usage(&self, routes: &Routes, target: CapTarget, at: DateTime<Utc>) -> Vec<Usage> {
        let usage = |cap: &Cap| {
            let counter = self.counter(CounterId::of(routes, target, *cap))?;
            let back = self.given_back(counter.id, at);
            let count = counter.at(at, self);
            let used = count.total.saturating_sub(back);
            Some(Usage { cap: *cap, used, window: count.window, is_heard: count.is_heard })
        };
        routes.caps(target).iter().filter_map(usage).collect()
    }

    /// The counter, a new one where there is none; `None` where there may not be more.
    fn counter(&self, id: CounterId) -> Option<Arc<Counter>> {
        let shard = self.shard(&id);
        if let Some(counter) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Some(counter.clone());
        }
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = shard.get(&id) {
            return Some(counter.clone());
        }
        if self.len.fetch_add(1, Ordering::Relaxed) >= self.len_max {
            self.len.fetch_sub(1, Ordering::Relaxed);
            metrics::cap_without_counter();
            return None;
        }
        let counter = Arc::new(Counter::new(id, self.node));
        shard.insert(id, counter.clone());
        Some(counter)
    }

    fn shard(&self, id: &CounterId) -> &Shard {
        let hash = foldhash::fast::FixedState::default().hash_one(id);
        // the map inside goes by the lower bits
        &self.shards[usize::try_from(hash >> 57).unwrap_or(0) % SHARDS]
    }

    fn all(&self) -> Vec<Arc<Counter>> {
        let counters = |shard: &Shard| {
            shard.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(counters).collect()
    }

    /// Forgets windows that are over, and where room is short, counters that nobody asks for and a store has.
    fn forget(&self, at_s: i64) {
        let is_short = self.len.load(Ordering::Relaxed) > self.len_max / 10 * 9;
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|_, counter| {
                let count = counter.lock();
                let is_idle = count.asked_at_s + HEARD_FOR_S < at_s;
                let is_kept =
                    count.tallies.iter().all(|tally| tally.stored.iter().any(|has| *has >= tally.count));
                let is_over = count.window.is_over(at_s - CLOCK_BACK_S);
                let is_in_use = Arc::strong_count(counter) > 1;
                is_in_use || !(is_over || is_short && is_idle && is_kept)
            });
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caps").field("len", &self.len).field("node", &self.node).finish_non_exhaustive()
    }
}

/// The counters of conversions of a path and an offer, with their limits.
fn conversion_caps(
    routes: &Routes,
    path_id: Option<i64>,
    offer_id: Option<i64>,
) -> impl Iterator<Item = (CounterId, u32)> {
    let targets = [path_id.map(CapTarget::Path), offer_id.map(CapTarget::Offer)];
    targets.into_iter().flatten().flat_map(move |target| {
        let caps = routes.caps(target).iter().filter(|cap| cap.of == CapOf::Conversions);
        caps.map(move |cap| (CounterId::of(routes, target, *cap), cap.limit))
    })
}

fn seconds(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp()).unwrap_or(0)
}

impl CounterId {
    fn of(routes: &Routes, target: CapTarget, cap: Cap) -> Self {
        let target = match target {
            CapTarget::Path(ONLY_PATH) => Target::Campaign(routes.campaign.id),
            CapTarget::Path(id) => Target::Path(id),
            CapTarget::Offer(id) => Target::Offer(id),
        };
        let zone = cap.time_zone.filter(|_| cap.per != CapPer::Total).unwrap_or_default();
        Self { target, of: cap.of, per: cap.per, zone, is_back: false }
    }
}

/// As stores and the file name it: `offer/5/clicks/day/Europe/Berlin`.
impl fmt::Display for CounterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Campaign(id) => write!(f, "campaign/{}", id.simple()),
            Target::Path(id) => write!(f, "path/{id}"),
            Target::Offer(id) => write!(f, "offer/{id}"),
        }?;
        let back = if self.is_back { BACK } else { "" };
        write!(f, "/{}{back}/{}/{}", self.of, self.per, self.zone)
    }
}

impl FromStr for CounterId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(5, '/');
        let mut part = || parts.next().ok_or(());
        let (kind, id) = (part()?, part()?);
        let number = || id.parse().map_err(|_| ());
        let target = match kind {
            "campaign" => Target::Campaign(id.parse().map_err(|_| ())?),
            "path" => Target::Path(number()?),
            "offer" => Target::Offer(number()?),
            _ => return Err(()),
        };
        let of = part()?;
        let (of, is_back) = of.strip_suffix(BACK).map_or((of, false), |of| (of, true));
        let (of, per) = (of.parse().map_err(|_| ())?, part()?.parse().map_err(|_| ())?);
        let zone = part()?.parse().map_err(|_| ())?;
        Ok(Self { target, of, per, zone, is_back })
    }
}

impl Counter {
    fn new(id: CounterId, node: Uuid) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(id.to_string().as_bytes());
        // its window is found with the first question
        let count = Count::new(Window { from: 0, until: 0 }, node);
        Self { id, hash: hasher.finish(), count: Mutex::new(count) }
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count of the window that a time is in.
    fn at(&self, at: DateTime<Utc>, caps: &Caps) -> MutexGuard<'_, Count> {
        let at_s = at.timestamp();
        let mut count = self.lock();
        if !count.window.contains(at_s) {
            let was_short_ago = (count.window.from - CLOCK_BACK_S..count.window.from).contains(&at_s);
            if !was_short_ago {
                *count = Count::new(Window::of(at, self.id.per, self.id.zone), caps.node);
            }
        }
        if count.asked_at_s + HEARD_FOR_S < at_s {
            // others may have counted since anybody listened
            count.is_heard = false;
            caps.new.notify_one();
        }
        count.asked_at_s = at_s;
        count
    }

    /// What a visitor is noted under who is counted in a window.
    fn what(&self, window: Window) -> u64 {
        self.hash ^ window.from.cast_unsigned()
    }
}

impl Count {
    fn new(window: Window, node: Uuid) -> Self {
        let own = Tally { node, count: 0, stored: [0; 2] };
        Self {
            window,
            total: 0,
            tallies: vec![own],
            limit: u32::MAX,
            asked_at_s: i64::MIN / 2,
            is_heard: false,
            over: 0,
            is_unsaved: false,
        }
    }

    /// Takes the higher number of each process.
    fn merge(&mut self, node: Uuid, count: u64) {
        if let Some(tally) = self.tallies.iter_mut().find(|tally| tally.node == node) {
            self.total += count.saturating_sub(tally.count);
            tally.count = tally.count.max(count);
        } else {
            self.total += count;
            self.tallies.push(Tally { node, count, stored: [0; 2] });
        }
    }

    /// Whether a store has less than is known here.
    fn is_untold(&self, store: Store) -> bool {
        self.tallies.iter().any(|tally| tally.count > tally.stored[store as usize])
    }

    /// Takes what a store has after it was told `told`; gives what of this process's clicks is over the limit and was not
    /// said before.
    fn hear(&mut self, store: Store, has: &[(Uuid, u64)], told: &[(Uuid, u64)]) -> u64 {
        let before = self.total;
        for (node, count) in has {
            self.merge(*node, *count);
        }
        if self.total > before {
            self.is_unsaved = true;
        }
        for tally in &mut self.tallies {
            let of = |list: &[(Uuid, u64)]| {
                list.iter().find(|(node, _)| *node == tally.node).map_or(0, |(_, count)| *count)
            };
            tally.stored[store as usize] = of(has).max(of(told));
        }
        self.is_heard = true;
        let share = self.share_of_over();
        let more = share.saturating_sub(self.over);
        self.over += more;
        more
    }

    /// What of all that is over the limit is this process's, by its share of all that was counted, rounded up: who was
    /// last, nobody can say.
    fn share_of_over(&self) -> u64 {
        let over = self.total.saturating_sub(self.limit.into());
        let share = u128::from(over) * u128::from(self.tallies[0].count);
        u64::try_from(share.div_ceil(self.total.max(1).into())).unwrap_or(u64::MAX)
    }

    /// Notes another limit; what is over that already is nobody's doing.
    fn set_limit(&mut self, limit: u32) {
        if self.limit != limit {
            self.limit = limit;
            self.over = self.share_of_over();
        }
    }
}

#[cfg(test)]
mod tests;
