//! Networks from a file of the operator's, such as the published ones of hosting companies: one in CIDR form, or one
//! address, a line; `#` begins a comment. Asked with a binary search over ranges that do not overlap.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

/// Bad lines named in one error.
const FAULTS_MAX: usize = 5;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// First and last address, in order, without overlaps.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Why a list of networks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidNetworks {
    /// The file is missing or may not be read.
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// Lines that are no network.
    #[error("{}: {}", path.display(), faults.join("; "))]
    BadLines {
        path: PathBuf,
        /// The first few, each with its number.
        faults: Vec<String>,
    },
}

impl Networks {
    pub fn open(path: &Path) -> Result<Self, InvalidNetworks> {
        let text = fs::read_to_string(path)
            .map_err(|source| InvalidNetworks::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|faults| InvalidNetworks::BadLines { path: path.to_owned(), faults })
    }

    /// `Err`: the first bad lines, each with its number.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<String>> {
        let (mut networks, mut faults) = (Self::default(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            match parse_network(entry) {
                Some(network) => networks.push(network),
                None if faults.len() < FAULTS_MAX => {
                    let shown: String = entry.chars().filter(|c| !c.is_control()).take(60).collect();
                    faults.push(format!("line {number}: `{shown}` is no network such as 192.0.2.0/24"));
                }
                None => {}
            }
        }
        networks.merge();
        if faults.is_empty() { Ok(networks) } else { Err(faults) }
    }

    /// Whether an address is in one of the networks.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => is_in(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => is_in(&self.v6, ip.to_bits()),
        }
    }

    /// Likewise of what was kept of an address: all of it, the network it is in (/24, /48), a hash, or nothing. `None`: it
    /// cannot be told. An address that ends like a network may be one, so it is told where all of that is in the list, or
    /// nothing.
    pub fn contains_kept(&self, ip: Option<IpAddr>) -> Option<bool> {
        if self.v4.is_empty() && self.v6.is_empty() {
            return Some(false);
        }
        match ip? {
            IpAddr::V4(ip) => {
                let first = ip.to_bits();
                let last = if first.trailing_zeros() >= 8 { first | 0xff } else { first };
                contains_range(&self.v4, first, last)
            }
            // a hash is in fd00::/8
            IpAddr::V6(ip) if ip.octets()[0] == 0xfd => None,
            IpAddr::V6(ip) => {
                let first = ip.to_bits();
                let last = if first.trailing_zeros() >= 80 { first | u128::MAX >> 48 } else { first };
                contains_range(&self.v6, first, last)
            }
        }
    }

    /// How many ranges there are; networks that touch are one.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn push(&mut self, network: IpNet) {
        match (network.network(), network.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.push((first.to_bits(), last.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(last)) => self.v6.push((first.to_bits(), last.to_bits())),
            _ => {} // a network has one family
        }
    }

    fn merge(&mut self) {
        merge(&mut self.v4, |a| a.saturating_add(1));
        merge(&mut self.v6, |a| a.saturating_add(1));
    }
}

/// IPv4-mapped networks as IPv4: that is how visitors' addresses come.
fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(v6) = network else { return Some(network) };
    let mapped = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    Some(mapped.and_then(|(ip, length)| IpNet::new(ip.into(), length).ok()).unwrap_or(network))
}

fn merge<A: Ord + Copy>(ranges: &mut Vec<(A, A)>, next: impl Fn(A) -> A) {
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let touches = later.0 <= next(earlier.1);
        if touches {
            earlier.1 = earlier.1.max(later.1);
        }
        touches
    });
}

fn is_in<A: Ord + Copy>(ranges: &[(A, A)], address: A) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind > 0 && address <= ranges[behind - 1].1
}

/// Whether all addresses from the first to the last are in the ranges, or none is; `None`: some are.
fn contains_range<A: Ord + Copy>(ranges: &[(A, A)], first: A, last: A) -> Option<bool> {
    let behind = ranges.partition_point(|(begin, _)| *begin <= last);
    match ranges[..behind].last() {
        Some((begin, end)) if *begin <= first && last <= *end => Some(true),
        Some((_, end)) if first <= *end => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_and_addresses_of_both_families_are_found() {
        let text = "# ours\n192.0.2.0/25\n192.0.2.128/25 # touches\n\n10.0.0.1\n2001:db8::/32\n::ffff:198.51.100.0/120\n0.0.0.0/8";
        let networks = Networks::parse(text).unwrap();
        assert_eq!(networks.len(), 5, "two that touch are one");
        for (address, is_in) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("192.0.1.255", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("0.1.2.3", true),
            ("198.51.100.7", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(networks.contains(ip(address)), is_in, "{address}");
        }
        assert!(!Networks::default().contains(ip("192.0.2.1")));
    }

    #[test]
    fn every_bad_line_is_named_by_its_number() {
        let faults = Networks::parse("192.0.2.0/24\n192.0.2.0/33\nx\n\n1.2.3").unwrap_err();
        let numbers: Vec<_> = faults.iter().map(|f| f.split(':').next().unwrap()).collect();
        assert_eq!(numbers, ["line 2", "line 3", "line 5"]);
    }

    proptest! {
        #[test]
        fn a_set_answers_as_its_networks_do(
            networks in proptest::collection::vec((any::<u32>(), 4u8..=32), 0..50),
            asked in proptest::collection::vec(any::<u32>(), 50),
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(ip, length)| IpNet::new(Ipv4Addr::from_bits(ip).into(), length).unwrap().trunc())
                .collect();
            let lines: Vec<String> = networks.iter().map(IpNet::to_string).collect();
            let set = Networks::parse(&lines.join("\n")).unwrap();
            let edges = networks.iter().flat_map(|n| [n.network(), n.broadcast()]);
            for ip in asked.into_iter().map(|ip| Ipv4Addr::from_bits(ip).into()).chain(edges) {
                prop_assert_eq!(set.contains(ip), networks.iter().any(|n| n.contains(&ip)));
            }
        }
    }
}
