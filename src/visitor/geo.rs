//! The country of an address, from a database in MaxMind's format: the one built in (`config/geo`, fetched
//! again by `config/geo/update`) or the operator's own.
//!
//! What stays out: regions, cities, networks, and watching the operator's file for changes; a restart reads it
//! again.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use chrono::DateTime;
use maxminddb::{LookupResult, Reader, WithinOptions, path};

use super::Error;

static BUILT_IN: &[u8] = include_bytes!("../../config/geo/country.mmdb");

/// Records of an operator's file that are tried for a country before the file is refused.
const RECORDS_TRIED: usize = 1_000;

/// A country by its two-letter code, ISO 3166-1 alpha-2, upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// The text is not a two-letter country code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a country code: two letters are expected, such as DE")]
pub struct InvalidCountry;

/// `AA` to `ZZ`, so that a code can be borrowed from nobody.
static CODES: [[u8; 2]; 26 * 26] = {
    let mut codes = [*b"AA"; 26 * 26];
    let (mut i, mut code) = (0, *b"AA");
    while i < codes.len() {
        codes[i] = code;
        code = if code[1] < b'Z' { [code[0], code[1] + 1] } else { [code[0] + 1, b'A'] };
        i += 1;
    }
    codes
};

impl Country {
    /// The code, such as `DE`.
    pub fn as_str(self) -> &'static str {
        let [first, second] = self.0.map(|letter| usize::from(letter - b'A')); // parsing lets only A to Z in
        str::from_utf8(&CODES[first * 26 + second]).unwrap_or_default()
    }
}

impl FromStr for Country {
    type Err = InvalidCountry;

    /// Takes either case. `ZZ`, which ISO leaves for "unknown", is no country.
    fn from_str(code: &str) -> Result<Self, Self::Err> {
        match code.as_bytes() {
            [b'z' | b'Z', b'z' | b'Z'] => Err(InvalidCountry),
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err(InvalidCountry),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address to country table, borrowed from the binary or read from the operator's file.
pub(super) struct Countries {
    reader: Reader<Cow<'static, [u8]>>,
    source: String,
}

impl Countries {
    pub(super) fn built_in() -> Result<Self, Error> {
        let countries = Self::read(Cow::Borrowed(BUILT_IN), Path::new("the data built in"))?;
        let source = format!("built in (geo-whois-asn-country, CC BY 4.0 by NRO, {})", countries.date());
        Ok(Self { source, ..countries })
    }

    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path)
            .map_err(|source| Error::Unreadable { path: path.into(), source: source.into() })?;
        let countries = Self::read(Cow::Owned(bytes), path)?;
        if !countries.names_a_country() {
            return Err(Error::NoCountry { path: path.into() });
        }
        let kind = &countries.reader.metadata().database_type;
        let source = format!("{} ({kind}, {})", path.display(), countries.date());
        Ok(Self { source, ..countries })
    }

    fn read(bytes: Cow<'static, [u8]>, path: &Path) -> Result<Self, Error> {
        let reader =
            Reader::from_source(bytes).map_err(|source| Error::Unreadable { path: path.into(), source })?;
        Ok(Self { reader, source: String::new() })
    }

    /// The country of an address. An IPv4 address that an IPv6 one stands for is looked up as IPv4.
    pub(super) fn get(&self, ip: IpAddr) -> Option<Country> {
        let ip = match ip {
            IpAddr::V6(v6) => ipv4_inside(v6).map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        if is_local(ip) { None } else { country(&self.reader.lookup(ip).ok()?) }
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    fn names_a_country(&self) -> bool {
        let records = self.reader.networks(WithinOptions::default());
        records.is_ok_and(|records| {
            records.take(RECORDS_TRIED).flatten().any(|record| country(&record).is_some())
        })
    }

    /// The day the data was built, UTC.
    fn date(&self) -> String {
        let epoch = self.reader.metadata().build_epoch;
        let built = i64::try_from(epoch).ok().and_then(|epoch| DateTime::from_timestamp(epoch, 0));
        built.map_or_else(|| "date unknown".into(), |built| built.format("%Y-%m-%d").to_string())
    }
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Countries").field("source", &self.source).finish_non_exhaustive()
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (`::ffff:0:0/96`), translated under the well-known prefix of
/// NAT64 (`64:ff9b::/96`, RFC 6052), or tunnelled by 6to4 (`2002::/16`, RFC 3056) or Teredo (`2001::/32`, RFC 4380: that of
/// the client's NAT, inverted). Such IPv6 networks lie in no country, their IPv4 ends do. A NAT64 prefix of somebody's
/// own (`64:ff9b:1::/48`, RFC 8215) does not say where in it the address stands.
fn ipv4_inside(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xFFFF, high, low]
        | [0x64, 0xFF9B, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(pair(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(pair(!high, !low)),
        _ => None,
    }
}

/// Addresses that are nowhere in particular: private, local, multicast, of documentation. The data is not
/// asked, since that built in has 192.168.0.0 in Australia.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_carrier_nat = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a == 127 || a >= 224;
            is_reserved || is_carrier_nat || ip.is_private() || ip.is_link_local() || ip.is_documentation()
        }
        IpAddr::V6(ip) => {
            let is_global_unicast = ip.segments()[0] & 0xE000 == 0x2000;
            !is_global_unicast || ip.segments().starts_with(&[0x2001, 0x0DB8])
        }
    }
}

/// Reads a record in either shape: flat as the data built in, nested as MaxMind's own.
fn country(record: &LookupResult<'_, Cow<'static, [u8]>>) -> Option<Country> {
    let flat = || record.decode_path::<&str>(&path!["country_code"]).ok()?;
    let nested = || record.decode_path::<&str>(&path!["country", "iso_code"]).ok()?;
    flat().or_else(nested)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in(ip: &str) -> Option<String> {
        let countries = Countries::built_in().unwrap();
        countries.get(ip.parse().unwrap()).map(|country| country.to_string())
    }

    #[test]
    fn addresses_of_both_families_have_a_country() {
        for (ip, country) in [
            ("8.8.8.8", "US"),
            ("83.149.9.216", "RU"),
            ("193.99.144.80", "DE"),
            ("202.12.27.33", "JP"),
            ("2001:67c:2e8:22::c100:68b", "NL"),
            ("::ffff:193.99.144.80", "DE"),
        ] {
            assert_eq!(built_in(ip).as_deref(), Some(country), "{ip}");
        }
    }

    #[test]
    fn an_ipv6_address_that_stands_for_an_ipv4_one_has_its_country() {
        for (ip, country) in [
            ("64:ff9b::8.8.8.8", "US"),
            ("64:ff9b::193.99.144.80", "DE"),
            ("64:ff9b::5395:9d8", "RU"), // 83.149.9.216
            ("::ffff:202.12.27.33", "JP"),
            ("::ffff:808:808", "US"),
            ("2002:c163:9050::1", "DE"),                    // 193.99.144.80
            ("2002:ca0c:1b21:1234:5678::9", "JP"),          // 202.12.27.33
            ("2001:0:4136:e378:8000:63bf:3e9c:6faf", "DE"), // 193.99.144.80, inverted
            ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", "US"), // 8.8.8.8, inverted
        ] {
            assert_eq!(built_in(ip).as_deref(), Some(country), "{ip}");
        }
        for nowhere in [
            "64:ff9b::10.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b::1:808:808",
            "2002:a00:1::1",
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",
            "64:ff9c::8.8.8.8",
            "::8.8.8.8",
        ] {
            assert_eq!(built_in(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn private_and_reserved_addresses_have_none() {
        let v4 =
            ["0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.1.1", "192.168.0.1", "198.51.100.7"];
        let v6 = ["::", "::1", "fe80::1", "fd00::1", "ff02::1", "2001:db8::1", "::ffff:172.16.0.1"];
        for ip in v4.into_iter().chain(v6) {
            assert_eq!(built_in(ip), None, "{ip}");
        }
    }

    #[test]
    fn the_source_says_name_and_date() {
        let source = Countries::built_in().unwrap().source;
        assert!(source.starts_with("built in (geo-whois-asn-country, "), "{source}");
        assert!(source.contains(", 20"), "{source}");
    }

    #[test]
    fn both_shapes_of_record_are_read_and_a_file_without_countries_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.mmdb");
        let flat = [vec![0xE1], text("country_code"), text("PT")].concat();
        let nested = [vec![0xE1], text("country"), vec![0xE1], text("iso_code"), text("pt")].concat();
        for record in [flat, nested] {
            std::fs::write(&path, mmdb(&record)).unwrap();
            let countries = Countries::open(&path).unwrap();
            assert_eq!(countries.get("1.2.3.4".parse().unwrap()), Some("PT".parse().unwrap()));
            assert_eq!(countries.get("200.2.3.4".parse().unwrap()), None);
            assert_eq!(countries.get("2001:db8::1".parse().unwrap()), None);
            assert_eq!(countries.source(), format!("{} (Test, 2026-01-01)", path.display()));
        }

        let asn = [vec![0xE1], text("organization"), text("Example")].concat();
        std::fs::write(&path, mmdb(&asn)).unwrap();
        let error = Countries::open(&path).unwrap_err();
        assert!(matches!(error, Error::NoCountry { path: named } if named == path));
    }

    #[test]
    fn a_country_is_two_letters() {
        assert_eq!("de".parse::<Country>().unwrap().as_str(), "DE");
        for wrong in ["", "D", "DEU", "D1", "\u{e4}", "ZZ", "--"] {
            assert_eq!(wrong.parse::<Country>(), Err(InvalidCountry), "{wrong}");
        }
    }

    /// A string of MaxMind's data section, shorter than 29 bytes.
    fn text(text: &str) -> Vec<u8> {
        let kind_and_length = 0x40 | u8::try_from(text.len()).unwrap();
        [&[kind_and_length], text.as_bytes()].concat()
    }

    /// The smallest file of the format: one node, whose left half (0.0.0.0/1) holds `record`.
    fn mmdb(record: &[u8]) -> Vec<u8> {
        let fields: [(&str, Vec<u8>); 9] = [
            ("binary_format_major_version", vec![0xA1, 2]),
            ("binary_format_minor_version", vec![0xA0]),
            ("build_epoch", [&[0x04, 0x02][..], &1_767_225_600_u32.to_be_bytes()].concat()),
            ("database_type", text("Test")),
            ("description", vec![0xE0]),
            ("ip_version", vec![0xA1, 4]),
            ("languages", vec![0x00, 0x04]),
            ("node_count", vec![0xC1, 1]),
            ("record_size", vec![0xA1, 24]),
        ];
        let tree = [0, 0, 1 + 16, 0, 0, 1];
        let mut file = [&tree[..], &[0; 16], record, b"\xAB\xCD\xEFMaxMind.com", &[0xE9]].concat();
        for (name, value) in fields {
            file.extend(text(name));
            file.extend(value);
        }
        file
    }
}
