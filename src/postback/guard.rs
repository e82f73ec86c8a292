//! Where requests may go: to public addresses, and to those that the owner allows. It is asked when an address is
//! connected to, behind the resolver, so that no name can say one thing to a check and another to the connection.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// What is not public: the special-purpose registries of the IANA for IPv4 and IPv6, multicast, and what wraps an IPv4
/// address in an IPv6 one by way of a relay (6to4, Teredo). IPv6 outside of 2000::/3 is none of the world's.
const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10", // carriers, and metadata of some clouds
    "127.0.0.0/8",
    "169.254.0.0/16", // link-local, and metadata of most clouds
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23", // Teredo and other protocols
    "2001:db8::/32",
    "2002::/16", // 6to4
    "2620:4f:8000::/48",
    "3fff::/20",
];

static NOT_PUBLIC: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| SPECIAL.iter().map(|net| net.parse().expect("a network of the list")).collect());

static GLOBAL: LazyLock<IpNet> = LazyLock::new(|| "2000::/3".parse().expect("a network"));

/// Says where requests may go.
#[derive(Debug, Clone)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// `allowed` networks may be reached though they are not public.
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Whether an address may be connected to.
    pub fn lets(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical(); // IPv4-mapped
        self.allowed.iter().any(|net| net.contains(&ip)) || is_public(ip)
    }

    /// Whether an address in a URL may be connected to; names are judged when they are resolved.
    pub fn lets_url(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(_)) => true,
            Some(Host::Ipv4(ip)) => self.lets(ip.into()),
            Some(Host::Ipv6(ip)) => self.lets(ip.into()),
            None => false,
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let lets: Vec<SocketAddr> = found.into_iter().filter(|addr| guard.lets(addr.ip())).collect();
            if lets.is_empty() {
                return Err(io::Error::other(NotPublic).into());
            }
            Ok(Box::new(lets.into_iter()) as Addrs)
        })
    }
}

/// Every address of a name is one that requests must not go to.
#[derive(Debug, thiserror::Error)]
#[error(
    "the address is not public (deliveries.allowed_networks lists those that may be called all the same)"
)]
pub struct NotPublic;

fn is_public(ip: IpAddr) -> bool {
    (ip.is_ipv4() || GLOBAL.contains(&ip)) && !NOT_PUBLIC.iter().any(|net| net.contains(&ip))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_public_addresses_are_let_through() {
        let guard = Guard::new(&[]);
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(guard.lets(public.parse().unwrap()), "{public}");
        }
        for inner in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.9.9",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:a00:1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!guard.lets(inner.parse().unwrap()), "{inner}");
        }
    }

    #[test]
    fn an_allowed_network_is_let_through_and_no_other() {
        let guard = Guard::new(&["127.79.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (url, is_let) in [
            ("http://127.79.3.4:81/", true),
            ("http://[::ffff:127.79.3.4]/", true),
            ("http://[fd00::1]/", true),
            ("http://127.80.0.1/", false),
            ("http://2130706433/", false), // 127.0.0.1 as a number
            ("http://0x7f.1/", false),
            ("http://017700000001/", false),
            ("http://[fe80::1]/", false),
            ("http://name.example/", true), // judged when it is resolved
        ] {
            assert_eq!(guard.lets_url(&url.parse().unwrap()), is_let, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_to_no_inner_address() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(Guard::new(&[]).resolve(name()).await.is_err());
        let guard = Guard::new(&["127.0.0.0/8".parse().unwrap()]);
        assert!(guard.resolve(name()).await.unwrap().all(|addr| addr.ip().is_ipv4()));
    }

    proptest! {
        #[test]
        fn however_an_inner_address_is_wrapped_it_is_none(bits: u32) {
            let v4 = std::net::Ipv4Addr::from_bits(bits);
            let guard = Guard::new(&[]);
            prop_assert_eq!(guard.lets(v4.to_ipv6_mapped().into()), guard.lets(v4.into()));
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            prop_assert!(!guard.lets(std::net::Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into()));
            prop_assert!(!guard.lets(std::net::Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into()));
        }
    }
}
