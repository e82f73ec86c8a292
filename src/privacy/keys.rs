//! The secret of a day: what visitors are hashed under, so that they can be told apart on one day and by nobody
//! afterwards. SipHash-2-4 (Aumasson and Bernstein, <https://www.aumasson.jp/siphash/siphash.pdf>): a keyed function,
//! short and fast, of 128 bits.

use std::{
    hash::Hasher as _,
    net::{IpAddr, Ipv6Addr},
};

use arc_swap::ArcSwap;
use siphasher::{sip::SipHasher24, sip128, sip128::Hasher128 as _};
use uuid::Uuid;

const DAY_S: u64 = 86_400;

/// The key of one day.
pub type Key = [u8; 16];

/// Keys by day (since 1970, UTC).
pub struct Keys {
    /// Those that all nodes have.
    shared: ArcSwap<Vec<(u64, Key)>>,
    /// Of this process: from it come the keys of days of which nothing was heard.
    own: Key,
}

impl Keys {
    /// Keys of nobody else; `own` is random.
    pub fn new(own: Key) -> Self {
        Self { shared: ArcSwap::default(), own }
    }

    /// Takes the keys that all nodes have; those of other days are forgotten.
    pub fn share(&self, keys: Vec<(u64, Key)>) {
        self.shared.store(keys.into());
    }

    /// An address in the place of an address: `fd` (RFC 4193, never routed) and 120 bits of its hash.
    pub fn hash_address(&self, ip: IpAddr, now_s: u64) -> IpAddr {
        let mut hasher = sip128::SipHasher24::new_with_key(&self.key(now_s));
        hasher.write(b"address");
        write_ip(&mut hasher, ip);
        let hash = hasher.finish128().as_u128();
        Ipv6Addr::from_bits(hash >> 8 | 0xfd << 120).into()
    }

    /// A visit: an address and a user agent at a campaign.
    pub fn hash_visit(&self, ip: IpAddr, user_agent: &str, campaign_id: Uuid, now_s: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key(now_s));
        hasher.write(b"visit");
        hasher.write(campaign_id.as_bytes());
        write_ip(&mut hasher, ip);
        hasher.write(user_agent.as_bytes());
        hasher.finish()
    }

    fn key(&self, now_s: u64) -> Key {
        let day = now_s / DAY_S;
        let shared = self.shared.load();
        shared.iter().find(|(of, _)| *of == day).map_or_else(|| self.own_key(day), |(_, key)| *key)
    }

    fn own_key(&self, day: u64) -> Key {
        let mut hasher = sip128::SipHasher24::new_with_key(&self.own);
        hasher.write_u64(day);
        hasher.finish128().as_bytes()
    }
}

/// The key is nobody's business.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// The days whose keys are needed now: today, and tomorrow before it begins.
pub fn days(now_s: u64) -> [u64; 2] {
    [now_s / DAY_S, now_s / DAY_S + 1]
}

fn write_ip(hasher: &mut impl std::hash::Hasher, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write_u8(0xff); // where the address ends
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 20_000 * DAY_S + 43_200;

    #[test]
    fn a_hash_is_the_same_for_a_day_and_for_all_who_share_its_key() {
        let (one, other) = (Keys::new([1; 16]), Keys::new([2; 16]));
        let ip: IpAddr = "203.0.113.7".parse().unwrap();
        let hash = one.hash_address(ip, NOON);
        assert!(hash.to_string().starts_with("fd") && hash.is_ipv6(), "{hash}");
        assert_eq!(hash, one.hash_address(ip, NOON + 3600));
        assert_ne!(hash, one.hash_address(ip, NOON + DAY_S), "another day");
        assert_ne!(hash, one.hash_address("203.0.113.8".parse().unwrap(), NOON));
        assert_ne!(hash, other.hash_address(ip, NOON), "another node");
        for keys in [&one, &other] {
            keys.share(vec![(20_000, [3; 16]), (20_001, [4; 16])]);
        }
        assert_ne!(hash, one.hash_address(ip, NOON), "the shared key");
        assert_eq!(one.hash_address(ip, NOON), other.hash_address(ip, NOON));
        assert_eq!(one.hash_address(ip, NOON + DAY_S), other.hash_address(ip, NOON + DAY_S));
        assert_ne!(one.hash_address(ip, NOON + 2 * DAY_S), other.hash_address(ip, NOON + 2 * DAY_S));
    }

    #[test]
    fn a_visit_is_another_for_another_agent_address_or_campaign() {
        let keys = Keys::new([1; 16]);
        let (a, b): (IpAddr, IpAddr) = ("203.0.113.7".parse().unwrap(), "203.0.113.8".parse().unwrap());
        let visit = |ip, agent, campaign: u128| keys.hash_visit(ip, agent, Uuid::from_u128(campaign), NOON);
        let first = visit(a, "x", 1);
        assert_eq!(first, visit(a, "x", 1));
        for other in [visit(b, "x", 1), visit(a, "y", 1), visit(a, "x", 2), visit(a, "", 1)] {
            assert_ne!(first, other);
        }
        assert!(!format!("{keys:?}").contains('1'));
    }
}
