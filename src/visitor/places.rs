//! Where an address is beyond its country, and whose network it is in: region, city, provider and kind of connection,
//! from the files that the operator names. Without a file nothing of it is known.
//!
//! What stays out: countries (`geo`), which are built in; names in other languages than English.

use std::net::IpAddr;
use std::path::Path;

use maxminddb::PathElement::{Index, Key};

use super::database::{Database, Place, Record, text_at};
use super::{Country, Error, Files, Knows, geo};

/// Bytes of a city's or a provider's name; a longer one is cut.
const NAME_BYTES_MAX: usize = 128;

/// The subdivision as ISO 3166-2 has it, without the country: nested as MaxMind's City, flat as IPinfo's.
const REGIONS: [Place; 2] = [&[Key("subdivisions"), Index(0), Key("iso_code")], &[Key("region_code")]];

/// MaxMind's and DB-IP's City; IPinfo's and ip-location-db's.
const CITIES: [Place; 2] = [&[Key("city"), Key("names"), Key("en")], &[Key("city")]];

/// The provider, or else the organisation that announces the network: MaxMind's ISP and ASN (ip-location-db has the second
/// too), its Enterprise and DB-IP's ISP, IPinfo's.
const PROVIDERS: [Place; 5] = [
    &[Key("isp")],
    &[Key("traits"), Key("isp")],
    &[Key("autonomous_system_organization")],
    &[Key("traits"), Key("autonomous_system_organization")],
    &[Key("as_name")],
];

/// MaxMind's Connection-Type; its Enterprise and DB-IP's ISP.
const CONNECTIONS: [Place; 2] = [&[Key("connection_type")], &[Key("traits"), Key("connection_type")]];

/// Kinds of connection by MaxMind's names, in lower case.
pub const CONNECTION_NAMES: [&str; 5] = ["cellular", "cable/dsl", "corporate", "satellite", "dialup"];

/// What is known of an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found<'e> {
    pub(super) country: Option<Country>,
    pub(super) region: Option<&'e str>,
    pub(super) city: Option<&'e str>,
    pub(super) isp: Option<&'e str>,
    pub(super) connection: Option<&'static str>,
}

/// The operator's files.
#[derive(Debug, Default)]
pub(super) struct Places {
    cities: Option<Cities>,
    providers: Option<(Database, Place)>,
    connections: Option<(Database, Place)>,
}

#[derive(Debug)]
struct Cities {
    database: Database,
    country: Option<Place>,
    region: Option<Place>,
    city: Option<Place>,
}

impl Places {
    pub(super) fn open(files: &Files<'_>) -> Result<Self, Error> {
        Ok(Self {
            cities: files.city.map(Cities::open).transpose()?,
            providers: files.isp.map(open_providers).transpose()?,
            connections: files.connection.map(open_connections).transpose()?,
        })
    }

    pub(super) fn get(&self, ip: IpAddr) -> Found<'_> {
        let mut found = self.cities.as_ref().map_or_else(Found::default, |cities| cities.get(ip));
        if let Some((database, place)) = &self.providers {
            found.isp = database.get(ip).and_then(|record| name(&record, place));
        }
        if let Some((database, place)) = &self.connections {
            found.connection = database.get(ip).and_then(|record| connection(text_at(&record, place)?));
        }
        found
    }

    pub(super) fn knows(&self) -> Knows {
        let cities = self.cities.as_ref();
        Knows {
            region: cities.is_some_and(|cities| cities.region.is_some()),
            city: cities.is_some_and(|cities| cities.city.is_some()),
            isp: self.providers.is_some(),
            connection: self.connections.is_some(),
        }
    }

    /// Whether a country can be among what is found.
    pub(super) fn has_countries(&self) -> bool {
        self.cities.as_ref().is_some_and(|cities| cities.country.is_some())
    }

    /// Where what is known comes from, for the start-up line.
    pub(super) fn sources(&self) -> Vec<(&'static str, String)> {
        let cities = self.cities.as_ref().map(|cities| ("cities", cities.database.source()));
        let providers = self.providers.as_ref().map(|(database, _)| ("providers", database.source()));
        let connections = self.connections.as_ref().map(|(database, _)| ("connections", database.source()));
        cities.into_iter().chain(providers).chain(connections).collect()
    }
}

impl Cities {
    fn open(path: &Path) -> Result<Self, Error> {
        const KEY: &str = "tracking.city_file";
        let database = Database::open(KEY, path)?;
        let country = geo::place(&database);
        let region = database.find(&REGIONS, is_region);
        let city = database.find(&CITIES, is_name);
        if region.is_none() && city.is_none() {
            let lacks = "neither regions nor cities: a city file is needed, such as GeoLite2-City";
            return Err(Error::Lacks { key: KEY, path: path.into(), lacks });
        }
        Ok(Self { database, country, region, city })
    }

    fn get(&self, ip: IpAddr) -> Found<'_> {
        let Some(record) = self.database.get(ip) else { return Found::default() };
        let region = self.region.and_then(|place| text_at(&record, place)).filter(|code| is_region(code));
        Found {
            country: self.country.and_then(|place| geo::country(&record, place)),
            region,
            city: self.city.and_then(|place| name(&record, place)),
            ..Found::default()
        }
    }
}

fn open_providers(path: &Path) -> Result<(Database, Place), Error> {
    let lacks = "no providers: an ISP or ASN file is needed, such as GeoLite2-ASN";
    open("tracking.isp_file", path, &PROVIDERS, is_name, lacks)
}

fn open_connections(path: &Path) -> Result<(Database, Place), Error> {
    let lacks = "no kinds of connection: a file such as GeoIP2-Connection-Type is needed";
    open("tracking.connection_file", path, &CONNECTIONS, |text| connection(text).is_some(), lacks)
}

fn open(
    key: &'static str,
    path: &Path,
    places: &[Place],
    is_wanted: impl Fn(&str) -> bool,
    lacks: &'static str,
) -> Result<(Database, Place), Error> {
    let database = Database::open(key, path)?;
    let place = database.find(places, is_wanted).ok_or(Error::Lacks { key, path: path.into(), lacks })?;
    Ok((database, place))
}

/// A name of a record, without what is too long; one with control characters is none.
fn name<'d>(record: &Record<'d>, place: Place) -> Option<&'d str> {
    let name = text_at(record, place).filter(|name| is_name(name))?;
    Some(&name[..name.floor_char_boundary(NAME_BYTES_MAX)])
}

fn is_name(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// One to three letters or digits.
fn is_region(code: &str) -> bool {
    matches!(code.len(), 1..=3) && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn connection(said: &str) -> Option<&'static str> {
    CONNECTION_NAMES.into_iter().find(|name| said.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::super::mmdb;
    use super::*;

    const IP: &str = "81.2.69.142";

    /// A file in a directory of its own, which is to be kept.
    fn file(kind: &str, record: &Value) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("{kind}.mmdb"));
        mmdb::write(&path, kind, &[("81.2.69.0/24", record.clone()), ("2a02:d500::/32", record.clone())]);
        (directory, path)
    }

    fn maxmind_city() -> Value {
        json!({
            "city": { "geoname_id": 2_867_714, "names": { "de": "M\u{fc}nchen", "en": "Munich" } },
            "country": { "iso_code": "DE", "is_in_european_union": true },
            "subdivisions": [{ "iso_code": "BY", "names": { "en": "Bavaria" } }, { "iso_code": "X" }],
        })
    }

    #[test]
    fn a_city_file_in_the_shapes_of_its_makers_names_region_and_city() {
        let ipinfo = json!({ "city": "Munich", "region": "Bavaria", "region_code": "BY", "country": "DE" });
        let db_ip = json!({ "city": { "names": { "en": "Munich" } }, "subdivisions": [{ "names": { "en": "Bavaria" } }] });
        let ip_location_db = json!({ "city": "Munich", "state1": "Bavaria", "country_code": "DE" });
        for (record, region, country) in [
            (maxmind_city(), Some("BY"), Some("DE")),
            (ipinfo, Some("BY"), Some("DE")),
            (db_ip, None, None),
            (ip_location_db, None, Some("DE")),
        ] {
            let (_directory, path) = file("City", &record);
            let places = Places::open(&Files { city: Some(&path), ..Files::default() }).unwrap();
            for ip in [IP, "2a02:d500::1", "::ffff:81.2.69.1"] {
                let found = places.get(ip.parse().unwrap());
                assert_eq!((found.region, found.city), (region, Some("Munich")), "{record}");
                assert_eq!(found.country.map(Country::as_str), country, "{record}");
            }
            for nowhere in ["81.2.70.1", "10.0.0.1", "2a02:d501::1"] {
                assert_eq!(places.get(nowhere.parse().unwrap()), Found::default());
            }
            let knows = Knows { region: region.is_some(), city: true, ..Knows::default() };
            assert_eq!(places.knows(), knows);
            assert_eq!(places.has_countries(), country.is_some());
        }
    }

    #[test]
    fn a_provider_is_read_in_the_shapes_of_its_makers() {
        for record in [
            json!({ "isp": "Example Net", "autonomous_system_organization": "EXAMPLE-AS" }),
            json!({ "autonomous_system_number": 64500, "autonomous_system_organization": "Example Net" }),
            json!({ "traits": { "isp": "Example Net" } }),
            json!({ "asn": "AS64500", "as_name": "Example Net", "as_domain": "example.net" }),
        ] {
            let (_directory, path) = file("ISP", &record);
            let places = Places::open(&Files { isp: Some(&path), ..Files::default() }).unwrap();
            assert_eq!(places.get(IP.parse().unwrap()).isp, Some("Example Net"), "{record}");
            assert_eq!(places.knows(), Knows { isp: true, ..Knows::default() });
        }
    }

    #[test]
    fn a_connection_is_one_of_five_kinds() {
        for (said, wanted) in [
            ("Cellular", Some("cellular")),
            ("Cable/DSL", Some("cable/dsl")),
            ("Corporate", Some("corporate")),
            ("Satellite", Some("satellite")),
            ("Dialup", Some("dialup")),
            ("Carrier pigeon", None),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("connection.mmdb");
            let known = json!({ "connection_type": "Cellular" });
            let records = [("81.2.69.0/24", json!({ "connection_type": said })), ("9.0.0.0/8", known)];
            mmdb::write(&path, "GeoIP2-Connection-Type", &records);
            let places = Places::open(&Files { connection: Some(&path), ..Files::default() }).unwrap();
            assert_eq!(places.get(IP.parse().unwrap()).connection, wanted);
            assert_eq!(places.knows(), Knows { connection: true, ..Knows::default() });
        }
    }

    #[test]
    fn a_name_is_cut_between_characters_and_is_none_with_control_characters() {
        for (said, wanted) in [
            ("\u{e9}".repeat(100), Some("\u{e9}".repeat(64))),
            ("a\nb".to_owned(), None),
            (String::new(), None),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("isp.mmdb");
            let records = [("81.2.69.0/24", json!({ "isp": said })), ("9.0.0.0/8", json!({ "isp": "Nine" }))];
            mmdb::write(&path, "GeoIP2-ISP", &records);
            let places = Places::open(&Files { isp: Some(&path), ..Files::default() }).unwrap();
            assert_eq!(places.get(IP.parse().unwrap()).isp, wanted.as_deref());
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused_with_its_key_and_the_remedy() {
        let (_directory, asn) = file("GeoLite2-ASN", &json!({ "autonomous_system_organization": "Example" }));
        let (_other, city) = file("GeoLite2-City", &maxmind_city());
        let none = Files::default();
        for (files, key, lacks) in [
            (Files { city: Some(&asn), ..none }, "tracking.city_file", "neither regions nor cities"),
            (Files { isp: Some(&city), ..none }, "tracking.isp_file", "no providers"),
            (Files { connection: Some(&asn), ..none }, "tracking.connection_file", "no kinds of connection"),
        ] {
            let error = Places::open(&files).unwrap_err().to_string();
            assert!(error.starts_with(key) && error.contains(lacks) && error.contains(".mmdb"), "{error}");
        }
        let missing = Path::new("missing.mmdb");
        let error = Places::open(&Files { isp: Some(missing), ..none }).unwrap_err();
        assert_eq!(error.to_string(), "tracking.isp_file: cannot read missing.mmdb");
    }
}
