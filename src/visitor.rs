//! Who came: a visit's user agent, client hints, languages and address become a device, an operating system, a browser,
//! a language, a place, a network and a bot label.
//!
//! Everything works from memory: the lists are embedded, an operator's own files are read once by [`Enricher::open`].
//! Every name a visitor carries comes from a closed list or from the operator's file, so that a click stays small and a
//! sender cannot write text of its own into the statistics.
//!
//! What stays out: where the address and the headers come from (`http`), whether the click counts (`judge`) and where it
//! goes (`routing`).

mod bot;
mod database;
mod geo;
mod hints;
mod language;
#[cfg(test)]
#[path = "../tests/it/harness/mmdb.rs"]
mod mmdb;
mod places;
mod user_agent;
mod version;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use moka::sync::Cache;

use crate::facts::click::Click;

pub use self::geo::{Country, InvalidCountry};
pub use self::hints::{ACCEPT_CH, HINT_BYTES_MAX, Hints};
pub use self::language::{InvalidLanguage, Language};
pub use self::places::CONNECTION_NAMES;
pub use self::user_agent::{Device, browsers, systems};
pub use self::version::{InvalidVersion, Version, VersionRange};
use self::{bot::Bots, geo::Countries, places::Places, user_agent::Rules};

/// Bytes of a user agent that are looked at. Browsers send 100 to 400; the rest is somebody's payload.
const USER_AGENT_BYTES_MAX: usize = 1_024;

/// Distinct user agents, each with its hints, remembered: about 3 MB when full. A busy campaign sees a few thousand in a day; past
/// the bound the least used make room, and each costs one parse more.
const AGENTS_CACHED_MAX: u64 = 16_384;

/// What a request says of its sender. What is not sent is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signs<'r> {
    /// `User-Agent`; anything a stranger can send.
    pub user_agent: &'r str,
    /// `Sec-CH-UA` and its brothers.
    pub hints: Hints<'r>,
    /// `Accept-Language`.
    pub accept_language: &'r str,
    /// The visitor's address.
    pub ip: Option<IpAddr>,
}

/// What we know of a visitor. Device, system and browser are what the agent says, also where it is a bot's: rules must not
/// tell bots from people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visitor<'e> {
    /// The kind of device that the agent says it is.
    pub device: Device,
    /// Operating system without its version, such as `Android`; empty when unknown.
    pub os: &'static str,
    /// Its version: Windows counts 7, 8, 8.1, 10, 11.
    pub os_version: Option<Version>,
    /// Browser without its version, such as `Samsung Internet`, or the app whose view shows the page, such as
    /// `Instagram`; empty when unknown.
    pub browser: &'static str,
    /// The version of the browser or app.
    pub browser_version: Option<Version>,
    /// The most wanted language of the browser.
    pub language: Option<Language>,
    /// Where the address is registered; `None` for private and unassigned ones.
    pub country: Option<Country>,
    /// The first subdivision of the country by ISO 3166-2, without the country: `BY` of `DE-BY`.
    pub region: Option<&'e str>,
    /// Its name in English, at most 128 bytes.
    pub city: Option<&'e str>,
    /// Who provides the connection, or announces the network; at most 128 bytes.
    pub isp: Option<&'e str>,
    /// The kind of connection, one of [`CONNECTION_NAMES`].
    pub connection: Option<&'e str>,
    /// Whether the user agent says it is a program, or names nothing that people have.
    pub is_bot: bool,
}

/// The operator's own files in MaxMind's format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'p> {
    /// `tracking.country_file`; `None` takes the city file's countries, and the data built in.
    pub country: Option<&'p Path>,
    /// `tracking.city_file`
    pub city: Option<&'p Path>,
    /// `tracking.isp_file`
    pub isp: Option<&'p Path>,
    /// `tracking.connection_file`
    pub connection: Option<&'p Path>,
}

/// What this installation's files can say of an address, beside its country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a dimension of its own")]
pub struct Knows {
    /// Regions, from `tracking.city_file`.
    pub region: bool,
    /// Cities, from the same.
    pub city: bool,
    /// Providers, from `tracking.isp_file`.
    pub isp: bool,
    /// Kinds of connection, from `tracking.connection_file`.
    pub connection: bool,
}

/// Why a file of the operator cannot be used; the key of the configuration that names it comes first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, may not be read, or is not in MaxMind's format.
    #[error("{key}: cannot read {}", path.display())]
    Unreadable {
        /// The key.
        key: &'static str,
        /// The operator's file.
        path: PathBuf,
        /// What the reader said.
        source: maxminddb::MaxMindDbError,
    },
    /// The file can be read and is of another kind.
    #[error("{key}: {} has {lacks}", path.display())]
    Lacks {
        /// The key.
        key: &'static str,
        /// The operator's file.
        path: PathBuf,
        /// What it does not have, and what does.
        lacks: &'static str,
    },
}

impl<'e> Visitor<'e> {
    /// Puts what is known of the visitor into a click. What a bot says of its device is disguise, and left out.
    pub fn describe<'c>(&self, click: &mut Click<'c>)
    where
        'e: 'c,
    {
        let known = |text: &'static str| (!text.is_empty() && !self.is_bot).then_some(text.into());
        let version =
            |version: Option<Version>| version.filter(|_| !self.is_bot).map(|v| v.to_string().into());
        click.is_bot = self.is_bot;
        click.device = Some(if self.is_bot { Device::Bot } else { self.device }.as_str().into());
        click.os = known(self.os);
        click.os_version = version(self.os_version);
        click.browser = known(self.browser);
        click.browser_version = version(self.browser_version);
        click.language = self.language.map(|language| language.to_string().into());
        click.country = self.country.map(|c| c.as_str().into());
        click.region = self.region.map(Into::into);
        click.city = self.city.map(Into::into);
        click.isp = self.isp.map(Into::into);
        click.connection = self.connection.map(Into::into);
    }
}

/// Describes visitors. One per process, shared: describing takes `&self` and never waits for I/O.
#[derive(Debug)]
pub struct Enricher {
    bots: Bots,
    rules: Rules,
    countries: Countries,
    /// Whether an operator's own country file decides alone.
    has_country_file: bool,
    places: Places,
    /// By hash of the user agent and the hints: 64 bits under a key of this process, so that nobody can aim for a
    /// collision.
    agents: Cache<u64, Agent>,
    hasher: RandomState,
}

/// The part of a visitor that its user agent and hints alone decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Agent {
    device: Device,
    os: &'static str,
    os_version: Option<Version>,
    browser: &'static str,
    browser_version: Option<Version>,
    is_bot: bool,
}

impl Enricher {
    /// Prepares the lists and reads the operator's files, which stay in memory.
    pub fn open(files: &Files<'_>) -> Result<Enricher, Error> {
        let own = files.country.map(|path| Countries::open("tracking.country_file", path)).transpose()?;
        Ok(Enricher {
            bots: Bots::built_in(),
            rules: Rules::built_in(),
            has_country_file: own.is_some(),
            countries: own.unwrap_or_else(Countries::built_in),
            places: Places::open(files)?,
            agents: Cache::new(AGENTS_CACHED_MAX),
            hasher: RandomState::new(),
        })
    }

    /// Describes a visitor; unknown parts stay empty.
    pub fn describe(&self, signs: &Signs<'_>) -> Visitor<'_> {
        let Agent { device, os, os_version, browser, browser_version, is_bot } =
            self.agent(signs.user_agent, &signs.hints);
        let found = signs.ip.map(|ip| self.places.get(ip)).unwrap_or_default();
        // where no file was named for it, who knows the city knows the country
        let of_city = found.country.filter(|_| !self.has_country_file);
        let country = of_city.or_else(|| signs.ip.and_then(|ip| self.countries.get(ip)));
        Visitor {
            device,
            os,
            os_version,
            browser,
            browser_version,
            language: Language::most_wanted(signs.accept_language),
            country,
            region: found.region,
            city: found.city,
            isp: found.isp,
            connection: found.connection,
            is_bot,
        }
    }

    /// What the operator's files can say of an address: a condition on anything else would never hold.
    pub fn knows(&self) -> Knows {
        self.places.knows()
    }

    /// Where countries, cities and networks come from, for the start-up lines: for each the name of the data, its licence
    /// or path, its date.
    pub fn sources(&self) -> Vec<(&'static str, String)> {
        let mut countries = self.countries.source();
        if !self.has_country_file && self.places.has_countries() {
            countries = format!("the city file, else {countries}");
        }
        let mut sources = vec![("countries", countries)];
        sources.extend(self.places.sources());
        sources
    }

    fn agent(&self, user_agent: &str, hints: &Hints<'_>) -> Agent {
        let user_agent = &user_agent[..user_agent.floor_char_boundary(USER_AGENT_BYTES_MAX)];
        let key = self.hasher.hash_one((user_agent, hints));
        self.agents.get(&key).unwrap_or_else(|| {
            let agent = hints.correct(self.parse(user_agent), &self.rules);
            self.agents.insert(key, agent);
            agent
        })
    }

    fn parse(&self, user_agent: &str) -> Agent {
        let agent = self.rules.parse(user_agent);
        let is_bot = self.bots.matches(user_agent) || bot::is_nobody(user_agent, agent);
        Agent { is_bot, ..agent }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::model::id::ClickId;

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";

    fn agent(user_agent: &str) -> Signs<'_> {
        Signs { user_agent, ..Signs::default() }
    }

    #[test]
    fn a_visitor_is_described_by_agent_and_address_and_again_from_memory() {
        let enricher = Enricher::open(&Files::default()).unwrap();
        let expected = Visitor {
            device: Device::Mobile,
            os: "iOS",
            os_version: Some(Version::new(17, 5)),
            browser: "Safari",
            browser_version: Some(Version::new(17, 5)),
            language: "pt".parse().ok(),
            country: Some("US".parse().unwrap()),
            ..Visitor::default()
        };
        let ip = Some("8.8.8.8".parse().unwrap());
        let signs = Signs { accept_language: "pt-BR,pt;q=0.9", ip, ..agent(IPHONE) };
        for _ in 0..2 {
            assert_eq!(enricher.describe(&signs), expected);
        }
        enricher.agents.run_pending_tasks();
        assert_eq!(enricher.agents.entry_count(), 1);
        assert_eq!(enricher.agents.policy().max_capacity(), Some(AGENTS_CACHED_MAX));
    }

    #[test]
    fn a_bot_is_routed_as_what_it_claims_and_stored_as_a_bot() {
        let enricher = Enricher::open(&Files::default()).unwrap();
        let said = format!("{IPHONE} (compatible; Googlebot/2.1; +http://www.google.com/bot.html)");
        let (bot, person) = (enricher.describe(&agent(&said)), enricher.describe(&agent(IPHONE)));
        assert_eq!(bot, Visitor { is_bot: true, ..person });
        let mut click = Click::new(ClickId::now(), Uuid::nil());
        bot.describe(&mut click);
        assert_eq!((click.device.as_deref(), click.os, click.browser), (Some("bot"), None, None));
        assert_eq!((click.os_version, click.browser_version), (None, None));
    }

    #[test]
    fn a_missing_agent_is_unknown_and_no_bot() {
        let enricher = Enricher::open(&Files::default()).unwrap();
        for blank in ["", "   "] {
            assert_eq!(enricher.describe(&agent(blank)), Visitor::default());
        }
    }

    #[test]
    fn an_agent_of_any_bytes_is_described() {
        let enricher = Enricher::open(&Files::default()).unwrap();
        for any in [
            "\u{0}",
            "\u{fffd}",
            "\u{1f419}\u{1f419}",
            "Op\u{e9}ra",
            "Mozill\u{e9}/5.0 (X11)",
            "Android \u{1f419};",
        ] {
            enricher.describe(&agent(any));
        }
    }

    #[test]
    fn an_endless_agent_is_cut_between_characters() {
        let enricher = Enricher::open(&Files::default()).unwrap();
        for pad in 0..4 {
            let endless = format!("{IPHONE}{}{} Googlebot/2.1", " ".repeat(pad), "\u{1f419}".repeat(20_000));
            assert_eq!(enricher.describe(&agent(&endless)).os, "iOS");
        }
    }

    #[test]
    fn an_unreadable_country_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.mmdb");
        let open = || Enricher::open(&Files { country: Some(&path), ..Files::default() });
        let error = open().unwrap_err();
        assert_eq!(error.to_string(), format!("tracking.country_file: cannot read {}", path.display()));

        std::fs::write(&path, "not a database").unwrap();
        let error = open().unwrap_err();
        assert!(matches!(error, Error::Unreadable { path: named, .. } if named == path));
    }

    #[test]
    fn a_city_file_gives_the_country_where_no_country_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (city, country) = (directory.path().join("city.mmdb"), directory.path().join("country.mmdb"));
        let munich = json!({ "city": { "names": { "en": "Munich" } }, "country": { "iso_code": "DE" } });
        let nameless = json!({ "city": { "names": { "en": "Nowhere" } } });
        mmdb::write(&city, "GeoLite2-City", &[("8.8.8.0/24", munich), ("83.149.9.0/24", nameless)]);
        mmdb::write(&country, "Mine", &[("8.8.8.0/24", json!({ "country_code": "AT" }))]);
        let files = Files { city: Some(&city), ..Files::default() };
        for (files, ip, wanted) in [
            (Files::default(), "8.8.8.8", Some("US")),
            (files, "8.8.8.8", Some("DE")),
            // what the city file does not know is looked up in the data built in
            (files, "83.149.9.216", Some("RU")),
            (files, "193.99.144.80", Some("DE")),
            (files, "10.0.0.1", None),
            // an own country file decides alone
            (Files { country: Some(&country), ..files }, "8.8.8.8", Some("AT")),
            (Files { country: Some(&country), ..files }, "83.149.9.216", None),
        ] {
            let enricher = Enricher::open(&files).unwrap();
            let visitor = enricher.describe(&Signs { ip: ip.parse().ok(), ..Signs::default() });
            assert_eq!(visitor.country.map(Country::as_str), wanted, "{ip}");
        }
        let sources = Enricher::open(&files).unwrap().sources();
        assert!(sources[0].1.starts_with("the city file, else built in ("), "{sources:?}");
        assert!(sources[1].0 == "cities" && sources[1].1.ends_with("(GeoLite2-City, 2026-01-01)"));
    }
}
