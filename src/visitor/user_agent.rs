//! What a user agent says of the device, the operating system and the browser, and of their versions.
//!
//! Three tables of tokens, each read from the top: the first line whose token occurs decides. A browser names
//! its ancestors too (Edge says Chrome says Safari), so the descendant stands first. To teach a new browser,
//! add a line above what it is built from and an agent to `visitor/agents.txt`. Its version stands behind its token, or
//! behind what [`VERSIONS`] names for it.
//!
//! Browsers froze what they say of a system's version. Where the frozen text is still true as "this or a later one", it is
//! read as this one (`Windows NT 10.0`, iOS 18.6); where it says nothing (Android 10 of a model `K`, macOS 10.15.7) the
//! version is unknown. Client hints (`hints`) know better.
//!
//! What stays out: models, and bots (`bot`). Two things an agent cannot tell: an iPad that asks for desktop pages in
//! Safari is a Mac, and a browser that copies Chrome's agent (Brave) is Chrome.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::{Agent, Version};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// A desktop or laptop computer.
    Desktop,
    /// A telephone.
    Mobile,
    /// A tablet or an e-book reader.
    Tablet,
    /// A television or a box beside one.
    Tv,
    /// A games console.
    Console,
    /// A program.
    Bot,
    /// The user agent does not say.
    #[default]
    Unknown,
}

impl Device {
    /// The name in routing rules, statistics and URLs: lower case, one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Tv => "tv",
            Self::Console => "console",
            Self::Bot => "bot",
            Self::Unknown => "unknown",
        }
    }
}

/// What a token means, and the tokens that mean it.
type Line<T> = (T, &'static [&'static str]);

const SYSTEMS: &[Line<&str>] = &[
    ("Windows Phone", &["Windows Phone", "Windows Mobile", "ZuneWP7", "XBLWP7", "; wds "]), // says Android and iPhone too
    ("Tizen", &["Tizen"]),
    ("webOS", &["Web0S", "webOS"]),
    ("PlayStation", &["PlayStation"]),
    ("Nintendo", &["Nintendo"]),
    ("Roku", &["Roku"]),
    ("ChromeOS", &["CrOS x", "CrOS a", "CrOS i"]), // by its processors: "cros" is in Microsoft
    ("HarmonyOS", &["HarmonyOS", "OpenHarmony"]),  // its older versions say Android too
    ("KaiOS", &["KAIOS"]),
    ("Android", &["Android", "Andr0id", "FB4A", "FBAN/EMA", "FBDM/{", "; Adr ", "Silk/"]), // Facebook's apps and UC by their own words
    ("tvOS", &["AppleTV", "Apple TV"]),
    (
        "iOS",
        &["iPhone", "iPad", "iPod", "FBAN/FBIOS", "FBSN/iOS", "iPh OS", "(iOS;", "; iOS ", "-iOS/", "/iOS]"],
    ), // says "like Mac OS X" too
    ("Windows", &["Windows", "WinNT", "Win95", "Win98", "Win32", "Win64", "Win16", "; Win 9x"]),
    ("macOS", &["Macintosh", "Mac OS X", "Mac_PowerPC", "MacPPC"]),
    ("BlackBerry", &["BlackBerry", "BB10"]),
    ("Symbian", &["Symbian", "SymbOS", "Series60", "Series 60", "Series40"]),
    ("BSD", &["FreeBSD", "OpenBSD", "NetBSD"]),
    ("Linux", &["Linux"]),
    // an app's own requests on Apple's systems
    ("macOS", &["(x86_64)", "(i386)"]),
    ("iOS", &["CFNetwork/"]),
];

const BROWSERS: &[Line<&str>] = &[
    // the app whose view shows the page; Instagram may name Facebook's parts too
    ("Instagram", &["Instagram"]),
    ("Threads", &["Barcelona "]),
    ("Facebook", &["FBAN/", "FBAV/", "FB_IAB/", "FBIOS"]),
    ("TikTok", &["musical_ly", "musically", "BytedanceWebview", "TikTok", "trill_", ".ugc.trill"]),
    ("Snapchat", &["Snapchat"]),
    ("Pinterest", &["Pinterest/", "Pinterest for"]),
    ("LinkedIn", &["LinkedInApp"]),
    ("X", &["Twitter for", "TwitterAndroid", "Twitter/"]),
    ("WeChat", &["MicroMessenger/"]),
    ("KakaoTalk", &["KAKAOTALK"]),
    ("LINE", &[" Line/"]),
    ("Telegram", &["Telegram-Android"]),
    ("NAVER", &["NAVER("]),
    ("Baidu", &["baiduboxapp"]),
    ("Google app", &["GSA/"]),
    // browsers built on another
    ("Edge", &["Edg/", "EdgA/", "EdgiOS/", " Edge/"]),
    ("UC Browser", &["UCBrowser", "UC Browser", "UCWEB"]), // says Opera Mini too
    ("Opera", &["OPR/", "OPT/", "OPX/", "OPiOS/", "Opera"]),
    ("Samsung Internet", &["SamsungBrowser"]),
    ("Yandex", &["YaBrowser/", "YaSearchBrowser/", "YaApp"]),
    ("Vivaldi", &["Vivaldi/"]),
    ("Mi Browser", &["MiuiBrowser/"]),
    ("Huawei Browser", &["HuaweiBrowser/"]),
    ("Vivo Browser", &["VivoBrowser/"]),
    ("HeyTap Browser", &["HeyTapBrowser/"]),
    ("QQ Browser", &["QQBrowser/"]),
    ("DuckDuckGo", &["DuckDuckGo/", " Ddg/"]),
    ("Brave", &["Brave/"]),
    ("Whale", &["Whale/"]),
    ("Silk", &["Silk/"]),
    ("Firefox", &["Focus/", "FxiOS/"]),
    ("SeaMonkey", &["SeaMonkey/"]),
    ("Konqueror", &["Konqueror"]),
    ("Firefox", &["Firefox/"]),
    ("Internet Explorer", &["IEMobile/", "MSIE ", "Trident/"]),
    ("Lynx", &["Lynx/", "Lynx ("]),
    ("Links", &["Links (", "ELinks/"]),
    ("w3m", &["w3m/"]),
    // the ancestors
    ("Chrome", &["CriOS/"]),
    ("WebView", &["; wv)", "Version/4.0 Chrome/"]),
    ("Chrome", &["Chromium/", "Chrome/"]),
    ("Safari", &["Safari/"]),
    ("WebView", &["AppleWebKit/"]), // an app's own view does not say Safari
];

/// Every system that a visitor may have; some more than once.
pub fn systems() -> impl Iterator<Item = &'static str> {
    SYSTEMS.iter().map(|(name, _)| *name)
}

/// Every browser that a visitor may have; some more than once.
pub fn browsers() -> impl Iterator<Item = &'static str> {
    BROWSERS.iter().map(|(name, _)| *name).chain(["Android Browser"])
}

/// What a version stands behind, other than the token of a browser: the first line with a number behind it decides.
const VERSIONS: &[Line<&str>] = &[
    ("Windows Phone", &["Windows Phone OS ", "Windows Phone "]),
    ("Tizen", &["Tizen ", "Tizen/"]),
    ("HarmonyOS", &["OpenHarmony ", "HarmonyOS "]),
    ("KaiOS", &["KAIOS/"]),
    ("Android", &["Android ", "Adr ", "FBSV/"]),
    // since 26 the highest that is said: then the system's own word is frozen at 18.6 or 18.7, Safari's and the apps' is not
    ("iOS", &["iPhone OS ", "CPU OS ", "iPh OS ", "iOS ", "iPadOS ", "FBSV/", "Version/"]),
    ("Windows", &["Windows NT "]),
    ("macOS", &["Mac OS X "]),
    ("Symbian", &["SymbianOS/", "Symbian/"]),
    ("Safari", &["Version/"]),
    ("Android Browser", &["Version/"]),
    ("WebView", &["Chrome/"]),
    ("Opera", &["OPR/", "OPT/", "OPX/", "OPiOS/", "Opera Mini/", "Version/"]), // `Opera/9.80` was frozen too
    ("Pinterest", &["Pinterest for Android/", "Pinterest for iOS/"]),
    ("LinkedIn", &["LinkedInApp]/"]),
    ("X", &["Twitter for iPhone/", "Twitter for iPad/"]),
    ("Internet Explorer", &["Trident/"]), // MSIE may say 7.0 for compatibility
];

const DEVICES: &[Line<Device>] = &[
    (Device::Console, &["PlayStation", "Nintendo", "; Xbox", "Xbox One", "XBOX_"]), // says SmartTV too
    // televisions run Android, Linux and Tizen
    (
        Device::Tv,
        &[
            "SMART-TV",
            "SmartTV",
            "Smart TV",
            "Smart_TV",
            "GoogleTV",
            "Google TV",
            "Android TV",
            "AndroidTV",
            "HbbTV",
        ],
    ),
    (
        Device::Tv,
        &[
            "AppleTV",
            "Apple TV",
            "TV Safari/",
            "NetCast",
            "Web0S",
            "BRAVIA",
            "CrKey",
            "Roku",
            "Viera",
            "InettvBrowser",
        ],
    ),
    (Device::Tv, &["wv-atv", "Chromecast", "MiTV", "MiBOX", "TV Box", "TVBox", " TV Build/", " TV)"]),
    (Device::Tv, &["; AFT"]), // Fire TV: AFTMM, AFTT, ..
    (Device::Tablet, &["iPad", "Tablet;", "PlayBook", "Kindle"]), // an iPad says Mobile too
    (Device::Tablet, &["; KF"]), // Fire tablets: KFONWI, KFTRWI, ..
    (
        Device::Tablet,
        &[
            "; SM-T",
            "SAMSUNG SM-T",
            "; SM-X",
            "SAMSUNG SM-X",
            "MediaPad",
            "MatePad",
            "; Lenovo TB",
            "; TB-X",
            "; TB-8",
            "Nexus 7",
            "Nexus 9",
            "Nexus 10",
            "Xoom",
            "Silk/",
        ],
    ), // some say Mobile
    (
        Device::Mobile,
        &["Mobi", "iPhone", "iPod", "Windows Phone", "Opera Mini", "KAIOS", "ZuneWP7", "(Phone;"],
    ),
    (
        Device::Mobile,
        &[
            "BlackBerry",
            "Symbian",
            "MIDP",
            "UP.Browser",
            "Obigo",
            "NetFront",
            "UCWEB",
            "DoCoMo",
            "MAUI",
            "J2ME",
            "FOMA;",
            "Series30",
            "AvantGo",
            "Palm",
            "OneBrowser",
            "Teleca",
        ],
    ),
    (Device::Desktop, &["(X11", "X11;", "(PC;", "BeOS", "Haiku", "OS/2", "RISC OS", "Amiga", "SunOS"]),
];

/// How the agents of telephones of before the smartphone begin.
const TELEPHONES: [&str; 20] = [
    "Nokia",
    "SAMSUNG",
    "SEC-",
    "LG",
    "MOT",
    "Alcatel",
    "SonyEricsson",
    "SIE-",
    "KWC-",
    "KDDI",
    "HUAWEI",
    "ZTE",
    "HTC",
    "Lenovo",
    "BlackBerry",
    "Sagem",
    "Sharp",
    "Panasonic",
    "Philips",
    "AMOI",
];

/// Apps of telephones: an agent of their own names no system always.
const APPS: [&str; 11] = [
    "Instagram",
    "Threads",
    "Facebook",
    "TikTok",
    "Snapchat",
    "Pinterest",
    "WeChat",
    "KakaoTalk",
    "LINE",
    "Google app",
    "QQ Browser",
];

/// The tables, compiled: the tokens of all of them are found in one pass over the user agent.
#[derive(Debug)]
pub(super) struct Rules {
    tokens: AhoCorasick,
    /// What each token says.
    said: Vec<Said>,
    // what each token of a table means, in the order of the table
    systems: Vec<&'static str>,
    browsers: Vec<&'static str>,
    devices: Vec<Device>,
    versions: Vec<&'static str>,
}

/// The places of a token in the tables; one that is in none of a kind has the place behind the last.
#[derive(Debug, Clone)]
struct Said {
    system: usize,
    browser: usize,
    device: usize,
    versions: Vec<usize>,
}

impl Said {
    const NOTHING: Self =
        Self { system: usize::MAX, browser: usize::MAX, device: usize::MAX, versions: Vec::new() };
}

/// The tokens of tables, each once, as they are put together.
#[derive(Default)]
struct Tokens {
    places: HashMap<String, usize>,
    texts: Vec<String>,
    said: Vec<Said>,
}

impl Tokens {
    /// Puts in the tokens of a table, whose places `note` takes down; returns what they mean.
    fn add<T: Copy>(&mut self, lines: &[Line<T>], note: impl Fn(&mut Said, usize)) -> Vec<T> {
        let mut meanings = Vec::new();
        for (meaning, tokens) in lines {
            for token in *tokens {
                let text = token.to_ascii_lowercase();
                let place = *self.places.entry(text.clone()).or_insert(self.texts.len());
                if place == self.texts.len() {
                    self.texts.push(text);
                    self.said.push(Said::NOTHING);
                }
                note(&mut self.said[place], meanings.len());
                meanings.push(*meaning);
            }
        }
        meanings
    }
}

impl Rules {
    pub(super) fn built_in() -> Self {
        // behind the words of Apple's engine stand numbers of builds
        let browsers = BROWSERS.iter().filter(|(name, _)| !matches!(*name, "Safari" | "WebView"));
        let versions: Vec<_> = VERSIONS.iter().chain(browsers).copied().collect();
        let mut tokens = Tokens::default();
        let systems = tokens.add(SYSTEMS, |said, place| said.system = said.system.min(place));
        let browsers = tokens.add(BROWSERS, |said, place| said.browser = said.browser.min(place));
        let devices = tokens.add(DEVICES, |said, place| said.device = said.device.min(place));
        let versions = tokens.add(&versions, |said, place| said.versions.push(place));
        // some proxies fold agents; an automaton of about 400 kB takes half the time of the smaller kind
        let kind = Some(AhoCorasickKind::DFA);
        let automaton = AhoCorasick::builder().kind(kind).ascii_case_insensitive(true).build(tokens.texts);
        let automaton = automaton.expect("the tables are compiled by every test");
        Self { tokens: automaton, said: tokens.said, systems, browsers, devices, versions }
    }

    pub(super) fn parse(&self, user_agent: &str) -> Agent {
        let mut first = Said::NOTHING;
        let mut numbered = Vec::with_capacity(32);
        for token in self.tokens.find_overlapping_iter(user_agent) {
            let said = &self.said[token.pattern()];
            first.system = first.system.min(said.system);
            first.browser = first.browser.min(said.browser);
            first.device = first.device.min(said.device);
            if !said.versions.is_empty() {
                numbered.push((&*said.versions, token.end()));
            }
        }
        let os = self.systems.get(first.system).copied().unwrap_or_default();
        let browser = self.browsers.get(first.browser).copied().unwrap_or_default();
        let device = self.devices.get(first.device).copied();
        let device = device.unwrap_or_else(|| by_system(os, browser, user_agent));
        // a view inside an iPad's app says it is a Mac, and Mobile, which no Mac does
        let (os, device) =
            if os == "macOS" && device == Device::Mobile { ("iOS", Device::Tablet) } else { (os, device) };
        let browser = named_by_system(browser, os);
        let [said_of_system, said_of_browser] = self.versions(user_agent, &numbered, [os, browser]);
        Agent {
            device,
            os,
            browser,
            os_version: system_version(os, said_of_system, user_agent),
            is_bot: false,
            browser_version: said_of_browser.and_then(|said| browser_version(browser, said, user_agent)),
        }
    }

    /// The versions of a system and a browser, which stand behind some of these tokens: their places in the table, and where
    /// they end.
    fn versions(
        &self,
        user_agent: &str,
        tokens: &[(&[usize], usize)],
        names: [&str; 2],
    ) -> [Option<Version>; 2] {
        let mut best: [Option<(usize, Version)>; 2] = [None; 2];
        for (places, end) in tokens {
            for place in *places {
                let wanted = names.into_iter().zip(&mut best);
                for (name, best) in wanted.filter(|(name, _)| *name == self.versions[*place]) {
                    let behind = &user_agent[*end..];
                    let Some(version) =
                        Version::leading(behind.strip_prefix([' ', '/', '_']).unwrap_or(behind))
                    else {
                        continue;
                    };
                    let is_better = |(first, highest): (usize, Version)| {
                        let is_frozen = name == "iOS" && version.max(highest).major >= 26;
                        if is_frozen { version > highest } else { *place < first }
                    };
                    if best.is_none_or(is_better) {
                        *best = Some((*place, version));
                    }
                }
            }
        }
        best.map(|best| best.map(|(_, version)| version))
    }

    /// The device that a model names, such as `SM-X200`; `None` where the table does not know it.
    pub(super) fn device_of_model(&self, model: &str) -> Option<Device> {
        let model = format!("; {model})");
        let found = self.tokens.find_overlapping_iter(&model);
        let first = found.map(|token| self.said[token.pattern()].device).min()?;
        self.devices.get(first).copied()
    }
}

/// The version that people know a system by; `None` where the agent's word is frozen and says nothing.
fn system_version(os: &str, said: Option<Version>, user_agent: &str) -> Option<Version> {
    match (os, said) {
        ("Windows", Some(nt)) => Some(match (nt.major, nt.minor) {
            (6, 1) => Version::new(7, 0),
            (6, 2) => Version::new(8, 0),
            (6, 3) => Version::new(8, 1),
            _ => nt, // 10 is its own number, and those of XP (5.1) and Vista (6.0) lie below 7
        }),
        ("Android", None) => {
            // `Instagram 300.0.0.29.110 Android (33/13; 420dpi; ..`: the level of the interface, then the version
            let (_, behind) = user_agent.split_once("Android (")?;
            Version::leading(behind.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('/')?)
        }
        ("Android", _) if user_agent.contains("Android 10; K)") => None,
        ("macOS", _) if user_agent.contains("Mac OS X 10_15_7") || user_agent.contains("Mac OS X 10.15;") => {
            None
        }
        _ => said,
    }
}

/// The version that people know a browser by. What stands behind `Trident/` is four less than the version of Internet
/// Explorer, and some builds of TikTok are numbered by it without dots (`trill/2613`).
fn browser_version(browser: &str, said: Version, user_agent: &str) -> Option<Version> {
    match browser {
        "Internet Explorer" if user_agent.contains("Trident/") => {
            Some(Version::new(said.major.saturating_add(4), 0))
        }
        "TikTok" if said.major > 999 => None,
        _ => Some(said),
    }
}

/// The device when no token says it. Android's rule is that a browser says Mobile on a telephone only; apps,
/// which do not begin as a browser does, never say it.
fn by_system(os: &str, browser: &str, user_agent: &str) -> Device {
    match os {
        "Windows" | "macOS" | "Linux" | "ChromeOS" | "BSD" => Device::Desktop,
        "Android" | "HarmonyOS" if begins_with(user_agent, "Mozilla/") => Device::Tablet,
        "Android" | "HarmonyOS" | "iOS" => Device::Mobile,
        "" if APPS.contains(&browser) => Device::Mobile,
        "" if TELEPHONES.iter().any(|brand| begins_with(user_agent, brand)) => Device::Mobile,
        _ => Device::Unknown,
    }
}

/// In upper or lower case.
pub(super) fn begins_with(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Safari is Apple's (it was once on Windows), and so are most views of apps: on other systems the words only
/// say which engine a page may expect.
fn named_by_system(browser: &'static str, os: &str) -> &'static str {
    match (browser, os) {
        ("Safari" | "WebView", "iOS" | "macOS" | "Windows" | "") | ("WebView", "Android") => browser,
        ("Safari", "Android") => "Android Browser",
        ("Safari" | "WebView", _) => "",
        _ => browser,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visitor::{Enricher, Files, Signs};

    /// A table as it is written: where each token ends that occurs, with its place.
    fn found(tokens: &[&str], user_agent: &str) -> Vec<(usize, usize)> {
        let user_agent = user_agent.to_ascii_lowercase();
        let ends = |(place, token): (usize, &&str)| {
            let token = token.to_ascii_lowercase();
            let ends: Vec<_> =
                user_agent.match_indices(&token).map(|(at, token)| (at + token.len(), place)).collect();
            ends
        };
        let mut found: Vec<_> = tokens.iter().enumerate().flat_map(ends).collect();
        found.sort_unstable();
        found
    }

    fn first<T: Copy>(lines: &[Line<T>], user_agent: &str) -> Option<T> {
        let (meanings, tokens) = flat(lines);
        found(&tokens, user_agent).iter().map(|(_, place)| *place).min().map(|place| meanings[place])
    }

    fn flat<T: Copy>(lines: &[Line<T>]) -> (Vec<T>, Vec<&'static str>) {
        lines.iter().flat_map(|(meaning, tokens)| tokens.iter().map(|token| (*meaning, *token))).unzip()
    }

    #[test]
    fn one_pass_finds_what_a_search_for_each_token_would() {
        let rules = Rules::built_in();
        let people = include_str!("../../tests/data/agents.txt");
        let programs = include_str!("../../config/bots/samples.txt");
        let browsers = BROWSERS.iter().filter(|(name, _)| !matches!(*name, "Safari" | "WebView"));
        let (named, tokens) = flat(&VERSIONS.iter().chain(browsers).copied().collect::<Vec<_>>());
        for user_agent in people.lines().chain(programs.lines()) {
            let agent = rules.parse(user_agent);
            let os = first(SYSTEMS, user_agent).unwrap_or_default();
            let device = first(DEVICES, user_agent);
            // a Mac that is mobile is an iPad
            if (os, device) == ("macOS", Some(Device::Mobile)) {
                assert_eq!((agent.os, agent.device), ("iOS", Device::Tablet), "{user_agent}");
            } else {
                let browser = first(BROWSERS, user_agent).unwrap_or_default();
                let device = device.unwrap_or_else(|| by_system(os, browser, user_agent));
                assert_eq!((agent.os, agent.device), (os, device), "{user_agent}");
            }
            let browser = named_by_system(first(BROWSERS, user_agent).unwrap_or_default(), agent.os);
            assert_eq!(agent.browser, browser, "{user_agent}");
            let version = |end: usize| {
                let behind = &user_agent[end..];
                Version::leading(behind.strip_prefix([' ', '/', '_']).unwrap_or(behind))
            };
            let of = |name: &str| {
                let mut said: Vec<_> = found(&tokens, user_agent)
                    .into_iter()
                    .filter_map(|(end, place)| {
                        Some((place, end, version(end)?)).filter(|_| named[place] == name)
                    })
                    .collect();
                said.sort_unstable();
                let highest = said.iter().map(|(.., version)| *version).max();
                let frozen = highest.filter(|highest| name == "iOS" && highest.major >= 26);
                frozen.or(said.first().map(|(.., version)| *version))
            };
            assert_eq!(agent.os_version, system_version(agent.os, of(agent.os), user_agent), "{user_agent}");
            let said = of(browser).and_then(|said| browser_version(browser, said, user_agent));
            assert_eq!(agent.browser_version, said, "{user_agent}");
        }
    }

    #[test]
    fn browsers_of_people_are_named_and_none_is_a_bot() {
        let enricher = Enricher::open(&Files::default()).unwrap();
        for line in include_str!("agents.txt").lines().filter(|line| !line.starts_with('#')) {
            let (expected, agent) = line.split_once(": ").unwrap();
            let seen = enricher.describe(&Signs { user_agent: agent, ..Signs::default() });
            let named = |name: &str, version: Option<Version>| match version {
                Some(version) => format!("{name} {version}"),
                None => name.to_owned(),
            };
            let (os, browser) = (named(seen.os, seen.os_version), named(seen.browser, seen.browser_version));
            assert_eq!(format!("{} | {os} | {browser}", seen.device.as_str()), expected, "{agent}");
            assert!(!seen.is_bot, "{agent}");
        }
    }
}
