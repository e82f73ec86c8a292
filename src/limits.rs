//! How often one address may: send credentials that are none, click, send events. Memory only; what is over
//! a limit is for the caller to refuse or to label.
//!
//! The rule is governor's (GCRA: a bucket that refills evenly), its state a table of fixed size. An IPv6
//! customer has at least a /64 to choose addresses from, so a /64 counts as one address.

mod per_minute;
mod table;

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use governor::{NotUntil, Quota, RateLimiter, clock::Clock, nanos::Nanos};

use crate::{
    config,
    metrics::{self, Limit},
    model::token,
};
pub use per_minute::PerMinute;
use table::{Counting, Looking, Table};

/// The limits of a running octo; one that is off is `None`.
pub struct Limits {
    /// Attempts with credentials that are no valid token.
    pub failed_auth: Option<PerAddress>,
    /// Events, those of a batch one by one.
    pub events: Option<PerAddress>,
    /// Refused postbacks that are kept.
    pub refused_postbacks: PerMinute,
    proven: moka::sync::Cache<token::Hash, ()>,
    watchers: moka::sync::Cache<token::Hash, Watcher>,
}

/// A token that may read `/metrics`, as the database last said.
#[derive(Debug, Clone, Copy)]
pub struct Watcher {
    /// When it was asked.
    pub asked_at: Instant,
    /// From when on the token is refused.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Limits {
    /// What is configured.
    pub fn new(config: &config::Limits, refused_postbacks_max: u32) -> Self {
        let (auth_per_minute, auth_burst) = (config.failed_auth_per_minute, config.failed_auth_burst);
        let events = config.events_per_minute;
        Self {
            failed_auth: PerAddress::of(config, Limit::FailedAuth, auth_per_minute, auth_burst),
            events: PerAddress::of(config, Limit::Events, events, events),
            refused_postbacks: PerMinute::new(refused_postbacks_max),
            proven: moka::sync::Cache::new(config.proven_tokens_max),
            watchers: moka::sync::Cache::new(config.proven_tokens_max),
        }
    }

    /// Whether a token was valid when it was last seen. It may have ended since: this decides only whether
    /// the database is asked at all for an address over its limit.
    pub fn is_proven(&self, token: &token::Hash) -> bool {
        self.proven.contains_key(token)
    }

    /// A token is valid.
    pub fn prove(&self, token: token::Hash) {
        if !self.proven.contains_key(&token) {
            self.proven.insert(token, ());
        }
    }

    /// A token is not valid.
    pub fn disprove(&self, token: &token::Hash) {
        self.proven.invalidate(token);
        self.watchers.invalidate(token);
    }

    /// What is known of a token that may read `/metrics`, unless it has expired.
    pub fn watcher(&self, token: &token::Hash) -> Option<Watcher> {
        let watcher = self.watchers.get(token);
        watcher.filter(|watcher| watcher.expires_at.is_none_or(|at| at > Utc::now()))
    }

    /// A token may read `/metrics`.
    pub fn note_watcher(&self, token: token::Hash, watcher: Watcher) {
        self.watchers.insert(token, watcher);
    }
}

/// One limit, kept for each address.
pub struct PerAddress<C: Clock<Instant = Nanos> = SystemClock> {
    limit: Limit,
    burst: NonZeroU32,
    clock: C,
    counting: RateLimiter<u64, Counting, C>,
    looking: RateLimiter<u64, Looking, C>,
}

/// How long until the address may again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over(Duration);

impl Over {
    /// For `Retry-After`: whole seconds, at least one.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
    }
}

impl PerAddress {
    /// Of clicks that count otherwise; `None` where it is off.
    pub fn of_clicks(config: &config::Limits) -> Option<Self> {
        Self::of(config, Limit::Clicks, config.clicks_per_minute, config.clicks_per_minute)
    }

    fn of(config: &config::Limits, limit: Limit, per_minute: u32, burst: u32) -> Option<Self> {
        let (per_minute, burst) = (NonZeroU32::new(per_minute)?, NonZeroU32::new(burst)?);
        let clock = SystemClock(Instant::now());
        Some(Self::new(limit, per_minute, burst, config.addresses_max, clock))
    }
}

impl<C: Clock<Instant = Nanos> + Clone> PerAddress<C> {
    fn new(limit: Limit, per_minute: NonZeroU32, burst: NonZeroU32, addresses_max: usize, clock: C) -> Self {
        let quota = Quota::per_minute(per_minute).allow_burst(burst);
        let table = Arc::new(Table::new(addresses_max));
        let counting = RateLimiter::new(quota, Counting(table.clone()), clock.clone());
        let looking = RateLimiter::new(quota, Looking(table), clock.clone());
        Self { limit, burst, clock, counting, looking }
    }

    /// Counts one of an address.
    pub fn count(&self, address: IpAddr) -> Result<(), Over> {
        self.counting.check_key(&network(address)).map_err(|refused| self.over(&refused))
    }

    /// Counts `number` of an address, but never more than a full bucket holds: so many wait for a full one,
    /// where they would otherwise wait for ever.
    pub fn count_all(&self, address: IpAddr, number: usize) -> Result<(), Over> {
        let number = u32::try_from(number).unwrap_or(u32::MAX).min(self.burst.get());
        let Some(number) = NonZeroU32::new(number) else { return Ok(()) };
        match self.counting.check_key_n(&network(address), number) {
            Ok(Err(refused)) => Err(self.over(&refused)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Whether one of an address could be counted.
    pub fn look(&self, address: IpAddr) -> Result<(), Over> {
        self.looking.check_key(&network(address)).map_err(|refused| self.over(&refused))
    }

    fn over(&self, refused: &NotUntil<Nanos>) -> Over {
        metrics::limited(self.limit);
        Over(refused.wait_time_from(self.clock.now()))
    }
}

/// Time since the start. Both sides of a [`PerAddress`] must agree on it: their state is one.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// One that is 0 at `start`.
    pub(crate) fn starting(start: Instant) -> Self {
        Self(start)
    }
}

impl Clock for SystemClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

/// An IPv4 address or the /64 of an IPv6 one. IPv4 stands in ff00::/8, from where nobody calls. Behind a NAT64 of the
/// well-known prefix all of IPv4 is one /64: there each IPv4 address counts alone.
pub fn network(address: IpAddr) -> u64 {
    let address = match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => {
                IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => 0xff00_0000_0000_0000 | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct TestClock(Arc<AtomicU64>);

    impl TestClock {
        fn advance(&self, seconds: u64) {
            self.0.fetch_add(seconds, Ordering::Relaxed);
        }
    }

    impl Clock for TestClock {
        type Instant = Nanos;

        fn now(&self) -> Nanos {
            Duration::from_secs(self.0.load(Ordering::Relaxed)).into()
        }
    }

    fn limit(per_minute: u32, burst: u32, addresses_max: usize) -> (PerAddress<TestClock>, TestClock) {
        let clock = TestClock::default();
        let of = |n| NonZeroU32::new(n).unwrap();
        (PerAddress::new(Limit::Clicks, of(per_minute), of(burst), addresses_max, clock.clone()), clock)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_may_burst_then_waits_for_each_and_is_forgiven() {
        let (limit, clock) = limit(30, 3, 64);
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(limit.look(one), Ok(()));
            assert_eq!(limit.count(one), Ok(()));
        }
        assert_eq!(limit.count(one).unwrap_err().seconds(), 2);
        assert_eq!(limit.look(one).unwrap_err().seconds(), 2);
        assert_eq!(limit.count(other), Ok(()));
        clock.advance(2);
        assert_eq!(limit.count(one), Ok(()));
        assert!(limit.count(one).is_err());
        clock.advance(6);
        assert_eq!(limit.count_all(one, 3), Ok(()));
    }

    #[test]
    fn looking_counts_nothing() {
        let (limit, _) = limit(60, 1, 64);
        for _ in 0..100 {
            assert_eq!(limit.look(ip("192.0.2.1")), Ok(()));
        }
        assert_eq!(limit.count(ip("192.0.2.1")), Ok(()));
    }

    #[test]
    fn a_batch_counts_each_of_its_own_and_one_larger_than_the_bucket_waits_for_a_full_one() {
        let (limit, clock) = limit(60, 10, 64);
        assert_eq!(limit.count_all(ip("192.0.2.1"), 500), Ok(()));
        assert!(limit.count(ip("192.0.2.1")).is_err());
        clock.advance(9);
        assert!(limit.count_all(ip("192.0.2.1"), 500).is_err());
        clock.advance(1);
        assert_eq!(limit.count_all(ip("192.0.2.1"), 500), Ok(()));
        assert_eq!(limit.count_all(ip("192.0.2.1"), 0), Ok(()));
    }

    #[test]
    fn a_64_of_ipv6_and_a_mapped_ipv4_address_are_one_address() {
        assert_eq!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8:0:1:ffff::9")));
        assert_ne!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8:0:2::1")));
        assert_eq!(network(ip("::ffff:192.0.2.1")), network(ip("192.0.2.1")));
        assert_ne!(network(ip("::1")), network(ip("0.0.0.0")));
        assert_eq!(network(ip("64:ff9b::192.0.2.1")), network(ip("192.0.2.1")));
        assert_ne!(network(ip("64:ff9b::192.0.2.1")), network(ip("64:ff9b::192.0.2.2")));
        assert_eq!(network(ip("64:ff9b:1::1")), network(ip("64:ff9b:1::2")));
    }

    #[test]
    fn a_million_passers_by_take_no_memory_and_do_not_free_an_address_over_its_limit() {
        let (limit, _) = limit(60, 5, 1024);
        let guilty = ip("192.0.2.1");
        while limit.count(guilty).is_ok() {}
        for i in 0..1_000_000_u32 {
            let _ = limit.count(IpAddr::V4((0x0a00_0000 + i).into()));
        }
        assert!(limit.count(guilty).is_err());
    }
}
