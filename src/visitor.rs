//! Who came: a visit's user agent and address become a device, an operating system, a browser, a country and
//! a bot label.
//!
//! Everything works from memory: the lists are embedded, an operator's own country file is read once by
//! [`Enricher::open`]. Every name a visitor carries comes from a closed list, so that a click stays small and
//! a sender cannot write text of its own into the statistics.
//!
//! What stays out: where the address comes from (`http`), whether the click counts (`judge`) and where it goes (`routing`).

mod bot;
mod geo;
mod user_agent;
mod version;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use moka::sync::Cache;

use crate::facts::click::Click;

pub use self::geo::{Country, InvalidCountry};
pub use self::user_agent::{Device, browsers, systems};
pub use self::version::{InvalidRange, Version, VersionRange};
use self::{bot::Bots, geo::Countries, user_agent::Rules};

/// Bytes of a user agent that are looked at. Browsers send 100 to 400; the rest is somebody's payload.
const USER_AGENT_BYTES_MAX: usize = 1_024;

/// Distinct user agents remembered: about 3 MB when full. A busy campaign sees a few thousand in a day; past
/// the bound the least used make room, and each costs one parse more.
const AGENTS_CACHED_MAX: u64 = 16_384;

/// What we know of a visitor from its user agent and address. Device, system and browser are what the agent says, also where
/// it is a bot's: rules must not tell bots from people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visitor<'e> {
    /// The kind of device that the agent says it is.
    pub device: Device,
    /// Operating system without its version, such as `Android`; empty when unknown.
    pub os: &'static str,
    /// Its version.
    pub os_version: Option<Version>,
    /// Browser without its version, such as `Samsung Internet`, or the app whose view shows the page, such as
    /// `Instagram`; empty when unknown.
    pub browser: &'static str,
    /// Its version.
    pub browser_version: Option<Version>,
    /// The language the browser asks for most.
    pub language: Option<Language>,
    /// Where the address is registered; `None` for private and unassigned ones.
    pub country: Option<Country>,
    /// The part of ISO 3166-2 behind the country, such as `BY`.
    pub region: Option<&'e str>,
    /// Its English name.
    pub city: Option<&'e str>,
    /// Who provides the connection.
    pub isp: Option<&'e str>,
    /// The kind of connection.
    pub connection: Option<&'e str>,
    /// Whether the user agent says it is a program, or names nothing that people have.
    pub is_bot: bool,
}

/// The primary subtag of a language: two or three small letters of ISO 639.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Language([u8; 3]);

impl Language {
    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default().trim_end_matches('\0')
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can be known of a visitor's address, beside its country, with the files that the operator names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a file of its own")]
pub struct Knows {
    /// Its region.
    pub region: bool,
    /// Its city.
    pub city: bool,
    /// Its provider.
    pub isp: bool,
    /// The kind of its connection.
    pub connection: bool,
}

/// Why the country data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, may not be read, or is not in MaxMind's format.
    #[error("cannot read country data from {}", path.display())]
    Unreadable {
        /// The operator's file.
        path: PathBuf,
        /// What the reader said.
        source: maxminddb::MaxMindDbError,
    },
    /// The file can be read and names no country, as one of networks or anonymisers does.
    #[error("{} names no country: a country or city file is needed", path.display())]
    NoCountry {
        /// The operator's file.
        path: PathBuf,
    },
}

impl Visitor<'_> {
    /// Puts what is known of the visitor into a click. What a bot says of its device is disguise, and left out.
    pub fn describe(&self, click: &mut Click<'_>) {
        let known = |text: &'static str| (!text.is_empty() && !self.is_bot).then_some(text.into());
        click.is_bot = self.is_bot;
        click.country = self.country.map(|c| c.as_str().into());
        click.device = Some(if self.is_bot { Device::Bot } else { self.device }.as_str().into());
        click.os = known(self.os);
        click.browser = known(self.browser);
    }
}

/// Describes visitors. One per process, shared: describing takes `&self` and never waits for I/O.
#[derive(Debug)]
pub struct Enricher {
    bots: Bots,
    rules: Rules,
    countries: Countries,
    /// By hash of the user agent: 64 bits under a key of this process, so that nobody can aim for a collision.
    agents: Cache<u64, Agent>,
    hasher: RandomState,
}

/// The part of a visitor that its user agent alone decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Agent {
    device: Device,
    os: &'static str,
    browser: &'static str,
    is_bot: bool,
}

impl Enricher {
    /// Prepares the lists. `mmdb` is the operator's own file in MaxMind's format; `None` takes the data built
    /// in.
    pub fn open(mmdb: Option<&Path>) -> Result<Enricher, Error> {
        Ok(Enricher {
            bots: Bots::built_in(),
            rules: Rules::built_in(),
            countries: mmdb.map_or_else(Countries::built_in, Countries::open)?,
            agents: Cache::new(AGENTS_CACHED_MAX),
            hasher: RandomState::new(),
        })
    }

    /// Describes a visitor; unknown parts stay empty. The user agent may be anything a stranger can send.
    pub fn describe(&self, user_agent: &str, ip: Option<IpAddr>) -> Visitor<'_> {
        let Agent { device, os, browser, is_bot } = self.agent(user_agent);
        let country = ip.and_then(|ip| self.countries.get(ip));
        Visitor { device, os, browser, country, is_bot, ..Visitor::default() }
    }

    /// What can be known of an address beside its country.
    pub fn knows(&self) -> Knows {
        Knows::default()
    }

    /// Where countries come from, for the start-up line: the name of the data, its licence or path, its date.
    pub fn country_source(&self) -> &str {
        self.countries.source()
    }

    fn agent(&self, user_agent: &str) -> Agent {
        let user_agent = &user_agent[..user_agent.floor_char_boundary(USER_AGENT_BYTES_MAX)];
        let key = self.hasher.hash_one(user_agent);
        self.agents.get(&key).unwrap_or_else(|| {
            let agent = self.parse(user_agent);
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
    use uuid::Uuid;

    use super::*;
    use crate::model::id::ClickId;

    const IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1";

    #[test]
    fn a_visitor_is_described_by_agent_and_address_and_again_from_memory() {
        let enricher = Enricher::open(None).unwrap();
        let expected = Visitor {
            device: Device::Mobile,
            os: "iOS",
            browser: "Safari",
            country: Some("US".parse().unwrap()),
            ..Visitor::default()
        };
        for _ in 0..2 {
            assert_eq!(enricher.describe(IPHONE, Some("8.8.8.8".parse().unwrap())), expected);
        }
        enricher.agents.run_pending_tasks();
        assert_eq!(enricher.agents.entry_count(), 1);
        assert_eq!(enricher.agents.policy().max_capacity(), Some(AGENTS_CACHED_MAX));
    }

    #[test]
    fn a_bot_is_routed_as_what_it_claims_and_stored_as_a_bot() {
        let enricher = Enricher::open(None).unwrap();
        let agent = format!("{IPHONE} (compatible; Googlebot/2.1; +http://www.google.com/bot.html)");
        let (bot, person) = (enricher.describe(&agent, None), enricher.describe(IPHONE, None));
        assert_eq!(bot, Visitor { is_bot: true, ..person });
        let mut click = Click::new(ClickId::now(), Uuid::nil());
        bot.describe(&mut click);
        assert_eq!((click.device.as_deref(), click.os, click.browser), (Some("bot"), None, None));
    }

    #[test]
    fn a_missing_agent_is_unknown_and_no_bot() {
        let enricher = Enricher::open(None).unwrap();
        for agent in ["", "   "] {
            assert_eq!(enricher.describe(agent, None), Visitor::default());
        }
    }

    #[test]
    fn an_agent_of_any_bytes_is_described() {
        let enricher = Enricher::open(None).unwrap();
        for agent in [
            "\u{0}",
            "\u{fffd}",
            "\u{1f419}\u{1f419}",
            "Op\u{e9}ra",
            "Mozill\u{e9}/5.0 (X11)",
            "Android \u{1f419};",
        ] {
            enricher.describe(agent, None);
        }
    }

    #[test]
    fn an_endless_agent_is_cut_between_characters() {
        let enricher = Enricher::open(None).unwrap();
        for pad in 0..4 {
            let agent = format!("{IPHONE}{}{} Googlebot/2.1", " ".repeat(pad), "\u{1f419}".repeat(20_000));
            assert_eq!(enricher.describe(&agent, None).os, "iOS");
        }
    }

    #[test]
    fn an_unreadable_country_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.mmdb");
        let error = Enricher::open(Some(&path)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read country data from {}", path.display()));

        std::fs::write(&path, "not a database").unwrap();
        let error = Enricher::open(Some(&path)).unwrap_err();
        assert!(matches!(error, Error::Unreadable { path: named, .. } if named == path));
    }
}
