//! The country of an address, from a database in MaxMind's format: the one built in (`config/geo`, fetched
//! again by `config/geo/update`) or the operator's own.
//!
//! What stays out: reading such a file (`database`); regions, cities and networks (`places`).

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use maxminddb::PathElement::Key;

use super::Error;
use super::database::{Database, Place, Record, text_at};

static BUILT_IN: &[u8] = include_bytes!("../../config/geo/country.mmdb");

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

/// Where a file names the country: nested as MaxMind's own, flat as the data built in, flat as IPinfo's.
const PLACES: [Place; 3] = [&[Key("country"), Key("iso_code")], &[Key("country_code")], &[Key("country")]];

/// An address to country table.
#[derive(Debug)]
pub(super) struct Countries {
    database: Database,
    place: Place,
}

impl Countries {
    pub(super) fn built_in() -> Self {
        Self { database: Database::built_in(BUILT_IN), place: &[Key("country_code")] }
    }

    pub(super) fn open(key: &'static str, path: &Path) -> Result<Self, Error> {
        let database = Database::open(key, path)?;
        let place = place(&database).ok_or(Error::Lacks {
            key,
            path: path.into(),
            lacks: "no country: a country or city file is needed",
        })?;
        Ok(Self { database, place })
    }

    pub(super) fn get(&self, ip: IpAddr) -> Option<Country> {
        country(&self.database.get(ip)?, self.place)
    }

    /// Where it comes from, with the licence of what is built in.
    pub(super) fn source(&self) -> String {
        match self.database.source().strip_prefix("built in") {
            Some(_) => {
                format!("built in (geo-whois-asn-country, CC BY 4.0 by NRO, {})", self.database.date())
            }
            None => self.database.source(),
        }
    }
}

/// Where a file names the country; `None`: it names none.
pub(super) fn place(database: &Database) -> Option<Place> {
    database.find(&PLACES, |code| code.parse::<Country>().is_ok())
}

/// The country that a record names.
pub(super) fn country(record: &Record<'_>, place: Place) -> Option<Country> {
    text_at(record, place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::mmdb;
    use super::*;

    fn built_in(ip: &str) -> Option<String> {
        let countries = Countries::built_in();
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
        let source = Countries::built_in().source();
        assert!(source.starts_with("built in (geo-whois-asn-country, "), "{source}");
        assert!(source.contains(", 20"), "{source}");
    }

    #[test]
    fn all_shapes_of_record_are_read_and_a_file_without_countries_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.mmdb");
        let open = || Countries::open("tracking.country_file", &path);
        let flat = json!({ "country_code": "PT", "country": "Portugal" });
        for record in [flat, json!({ "country": { "iso_code": "pt" } }), json!({ "country": "PT" })] {
            mmdb::write(&path, "Test", &[("0.0.0.0/1", record)]);
            let countries = open().unwrap();
            assert_eq!(countries.get("1.2.3.4".parse().unwrap()), Some("PT".parse().unwrap()));
            assert_eq!(countries.get("200.2.3.4".parse().unwrap()), None);
            assert_eq!(countries.get("2001:db8::1".parse().unwrap()), None);
            assert_eq!(countries.source(), format!("{} (Test, 2026-01-01)", path.display()));
        }
        mmdb::write(&path, "Test", &[("0.0.0.0/1", json!({ "organization": "Example" }))]);
        let error = open().unwrap_err();
        assert!(matches!(error, Error::Lacks { path: ref named, .. } if *named == path));
        let start = format!("tracking.country_file: {} has no country", path.display());
        assert!(error.to_string().starts_with(&start), "{error}");
    }

    #[test]
    fn a_country_is_two_letters() {
        assert_eq!("de".parse::<Country>().unwrap().as_str(), "DE");
        for wrong in ["", "D", "DEU", "D1", "\u{e4}", "ZZ", "--"] {
            assert_eq!(wrong.parse::<Country>(), Err(InvalidCountry), "{wrong}");
        }
    }
}
