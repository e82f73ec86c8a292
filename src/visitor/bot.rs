//! Whether a user agent says it is a program: crawlers, previews, monitors, HTTP libraries.
//!
//! The list is crawler-user-agents (MIT, `config/bots`, fetched again by `config/bots/update`); [`OURS`] adds
//! the general signs it leaves out. A name counts where a program says it: at the start of a word, and not as what
//! people own ([`PEOPLE`]), the model of a telephone or the app whose own view shows the page.
//!
//! Who names nothing that people have, no system, no device and no browser, is a program too: [`is_nobody`].
//!
//! What stays out: programs that pretend to be a browser; no list of names can find those.

use std::borrow::Cow;

use aho_corasick::AhoCorasick;
use regex::{Regex, RegexSet};

use super::{Agent, Device, user_agent::begins_with};

/// Patterns that are plain text: one automaton finds all of them in one pass.
const LITERALS: &str = include_str!("../../config/bots/literals.txt");

/// The few that need a regex.
const REGEXES: &str = include_str!("../../config/bots/regexes.txt");

/// Signs of a program that no list of names can keep up with.
const OURS: [&str; 8] = [
    // a word that ends in "bot", except the telephones of Cubot
    r"(?i)(?:^|[^u]|[^c]u)bots?(?:[^a-z]|$)",
    r"(?i)(?:crawler|spider|scraper|validator|scanner|link ?checker)s?(?:[^a-z]|$)",
    // an address to complain to, which no browser sends
    r"\+ ?https?://|(?:Safari|Firefox|Chrome|Edg)/[0-9.]+,? [^/]*https?://|[a-z0-9]@[a-z0-9-]+\.[a-z]{2}",
    r"(?i)http[-_ ]?(?:client|request)|feed ?(?:parser|fetcher)|(?:^| )(?:rss|news) ?reader",
    r"^(?:Java|Ruby|PHP|node|undici|Deno|Bun|Dart|reqwest|hyper|PostmanRuntime|insomnia|fetch)(?:[/ ]|$)",
    r"meta-external|facebookcatalog|WindowsPowerShell/",
    // browsers without a screen, and monitors that drive one
    r"\b(?:(?i:PhantomJS|CasperJS|SlimerJS|Selenium|Puppeteer|Playwright|webkit2png|Zombie\.js)|PTST|Catchpoint|GomezAgent|Neustar WPM|SiteMonitor|Dynatrace|iplabel|Cloudflare-?(?:Observatory|[dD]iagnostics)|YottaaMonitor)\b",
    // Google's checks of pages; its browsers and devices write "Google" otherwise
    r"\bGoogle(?:-(?:[A-Z][a-z]+[A-Z]|AMPHTML|Publisher|Ad|Assess|Youtube|Podcast)| Search Console| Page Speed|AdSense)",
];

/// What people own, whose name may be a program's.
const PEOPLE: &str = r"(?x)
    # the model of a telephone: CUBOT X19, M bot 60, HTC Butterfly
      Android[^;()]*;\ ?(?:[A-Za-z]{2}[-_][A-Za-z]{2};\ ?)?[^;()/]*(?:\ Build/[^;()]*)?[;()]
    # what the apps of Meta say of it, and a version of Android that the list takes for a program's mark
    | Android\ \([^)]*
    | \[FB[^\]]*
    | \b[A-Z]{2}[0-9A-Z]{2}\.[0-9]{6}\.[0-9]{3}
    # an app's own requests on Apple's telephones
    | ^[^/()]+/[^\ ()]+\ (?:CFNetwork/|\((?:iPhone|iPad|iPod)[^()]*Scale/)
    # browsers, and libraries in apps
    | SogouMSE,SogouMobileBrowser/ | \bViber\) | \bFluid(?:App|/) | SynapseWorkstation | \ Adventurer/ | \bokhttp/
";

/// The app whose own view shows a page, after what the view says of itself.
const APPS: &str = r"\bMobile(?: Safari)?/[0-9A-Za-z.]+((?: [A-Za-z][\w.%-]*/[\w.-]*)+)";

#[derive(Debug)]
pub(super) struct Bots {
    literals: AhoCorasick,
    regexes: RegexSet,
    people: Regex,
    apps: Regex,
}

impl Bots {
    pub(super) fn built_in() -> Self {
        let literals = AhoCorasick::new(patterns(LITERALS));
        let regexes = RegexSet::new(patterns(REGEXES).chain(OURS));
        let compile = |pattern| Regex::new(pattern).expect("the pattern is compiled by every test");
        Self {
            literals: literals.expect("the embedded list is compiled by every test"),
            regexes: regexes.expect("the embedded list is compiled by every test"),
            people: compile(PEOPLE),
            apps: compile(APPS),
        }
    }

    pub(super) fn matches(&self, user_agent: &str) -> bool {
        self.listed(user_agent) && self.listed(&self.without_what_people_own(user_agent))
    }

    fn listed(&self, user_agent: &str) -> bool {
        let mut literals = self.literals.find_overlapping_iter(user_agent);
        literals.any(|found| begins_a_word(user_agent, found.start())) || self.regexes.is_match(user_agent)
    }

    fn without_what_people_own<'a>(&self, user_agent: &'a str) -> Cow<'a, str> {
        let rest = self.people.replace_all(user_agent, " ");
        if is_view_of_an_app(user_agent) {
            Cow::Owned(self.apps.replace(&rest, "").into_owned())
        } else {
            rest
        }
    }
}

/// Whether an agent names nothing that people have, as `kube-probe/1.30`, `-` and a bare `Mozilla/5.0` do: no system,
/// no device, no browser. On a computer a system is not enough (`p2/1.1 (Java 1.8; Linux)`): all its browsers begin
/// with the same two words, and Apple's apps say that they use Apple's library.
pub(super) fn is_nobody(user_agent: &str, agent: Agent) -> bool {
    let unknown = agent == Agent::default() && !user_agent.trim().is_empty();
    let bare = agent.device == Device::Desktop && agent.browser.is_empty();
    let is_browser = || begins_with(user_agent, "Mozilla") || begins_with(user_agent, "Opera");
    unknown || bare && !is_browser() && !user_agent.contains("CFNetwork/")
}

/// `Sonic` is in `RankSonic` and `ViewSonic` by chance.
fn begins_a_word(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    at == 0 || !bytes[at].is_ascii_alphanumeric() || !bytes[at - 1].is_ascii_alphanumeric()
}

/// Android says so, or names a version of its view; Apple's says no Safari.
fn is_view_of_an_app(user_agent: &str) -> bool {
    let apple = || user_agent.contains("like Mac OS X") && !user_agent.contains("Safari/");
    user_agent.contains("; wv)") || user_agent.contains("Version/4.0 Chrome/") || apple()
}

/// The lines of a list but for its head. Not trimmed: a space at the end is part of a pattern.
fn patterns(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visitor::{Enricher, Files, Signs};

    /// The agents that are taken for the other kind.
    fn mistaken<'a>(agents: impl IntoIterator<Item = &'a str>, is_bot: bool) -> Vec<&'a str> {
        let enricher = Enricher::open(&Files::default()).unwrap();
        agents
            .into_iter()
            .filter(|user_agent| {
                enricher.describe(&Signs { user_agent, ..Signs::default() }).is_bot != is_bot
            })
            .collect()
    }

    #[test]
    fn every_sample_of_the_list_is_a_bot() {
        let samples = include_str!("../../config/bots/samples.txt");
        assert!(patterns(samples).count() > 300);
        assert_eq!(mistaken(patterns(samples), true), [""; 0]);
    }

    #[test]
    fn at_most_one_person_in_ten_thousand_is_called_a_bot() {
        let people = include_str!("../../tests/data/agents.txt");
        let mistaken = mistaken(people.lines(), false);
        assert!(people.lines().count() > 10_000);
        assert!(mistaken.len() * 10_000 <= people.lines().count(), "{mistaken:#?}");
    }

    #[test]
    fn programs_missing_from_the_list_are_bots() {
        let programs = [
            "foobot/1.0",
            "Mozilla/5.0 (compatible; BeetleBot; )",
            "LumiBot 2.0",
            "MyCrawler",
            "UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/",
            "HTTP_Request2/2.1.1 (http://pear.php.net/package/http_request2) PHP/5.3.2",
            "PostmanRuntime/7.43.0",
            "meta-externalagent/1.1",
        ];
        assert_eq!(mistaken(programs, true), [""; 0]);
    }

    #[test]
    fn an_agent_that_names_nothing_people_have_is_a_bot() {
        let programs = [
            "-",
            "Mozilla/5.0",
            "Mozilla/5.0 (compatible)",
            "Mozilla/5.0 (compatible; LeadFinder/2.0)",
            "null",
            "7528",
            "FacebookCatalog/1.0",
            "kube-probe/1.30",
            "ELB-HealthChecker/2.0",
            "GoogleHC/1.0",
            "GuzzleHttp/7",
            "hackney/1.20.1",
            "Faraday v2.9.0",
            "aws-cli/2.15.10 Python/3.11.6 Linux/5.10.0",
            "p2/1.1.300 (Java 1.8.0_151 Oracle Corporation; Windows10 10.0.0 x86-64; en_US)",
        ];
        assert_eq!(mistaken(programs, true), [""; 0]);
    }

    #[test]
    fn libraries_monitors_previews_scanners_and_headless_browsers_are_bots() {
        let programs = [
            // libraries
            "curl/8.5.0",
            "Wget/1.21.4",
            "Go-http-client/2.0",
            "python-requests/2.32.3",
            "python-httpx/0.27.0",
            "okhttp/4.12.0",
            "Java/17.0.9",
            "Apache-HttpClient/4.5.14 (Java/17.0.9)",
            "axios/1.7.7",
            "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
            "undici",
            "Dart/3.2 (dart:io)",
            "Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1.22621.963",
            // monitors
            "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
            "Better Uptime Bot Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/97.0.4692.71 Safari/537.36",
            "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/43.0.2357.134 Safari/537.36 http://notifyninja.com/monitoring",
            "Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1; WOW64; Trident/5.0; PTST 2.386)",
            // previews of links
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "WhatsApp/2.23.20.0 A",
            "TelegramBot (like TwitterBot)",
            "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
            "LinkPreview/1.5 (http://linkpreview.net)",
            // scanners
            "sqlmap/1.7.2#stable (https://sqlmap.org)",
            "Mozilla/5.0 zgrab/0.x",
            "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)",
            "Mozilla/5.0 (compatible; NetScope-DomainScanner/1.0; security research scanner)",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; CONTACT; scan@aegis.example) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/58.0.3029.110 Safari/537.36",
            // browsers without a screen
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/534.34 (KHTML, like Gecko) PhantomJS/1.9.6 Safari/534.34",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko; Google-AdSense-Auto) Chrome/41.0.2272.118 Safari/537.36",
            // with a telephone's words around it
            "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Mobile Safari/537.36 (compatible; Bytespider; spider-feedback@bytedance.com)",
            "Mozilla/5.0 (Linux; Android 9; FooBot/1.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
        ];
        assert_eq!(mistaken(programs, true), [""; 0]);
    }

    #[test]
    fn a_telephone_that_is_named_as_a_program_is_a_persons() {
        let chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36";
        let view =
            "AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36";
        let models = [
            format!("Mozilla/5.0 (Linux; Android 14; CUBOT) {chrome}"),
            format!("Mozilla/5.0 (Linux; Android 14; Cubot KingKong 9) {chrome}"),
            format!("Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20 Build/QP1A.190711.020; wv) {view}"),
            format!("Mozilla/5.0 (Linux; U; Android 7.0; es-mx; M bot 60 Build/NRD90M; wv) {view}"),
            format!("Mozilla/5.0 (Linux; Android 6.0; IDbot553PLUS) {chrome}"),
            format!("Mozilla/5.0 (Linux; Android 9; ID bot 53+ Build/NRD90M) {chrome}"),
            format!("Mozilla/5.0 (Linux; Android 13; Spider) {chrome}"),
            format!("Mozilla/5.0 (Linux; Android 13; HUAWEI Crawler-L09 Build/HUAWEICrawler-L09) {chrome}"),
            format!("Mozilla/5.0 (Linux; Android 5.0.2; HTC Butterfly 2 Build/LRX22G) {chrome}"),
            format!("Mozilla/5.0 (Linux; U; Android 2.3.6; en-us; Cherry Sonic Build/GRK39F) {view}"),
            format!("Mozilla/5.0 (Linux; Android 13; Robotics R1) {chrome}"),
            // a version of Android that the list takes for a program's mark
            format!("Mozilla/5.0 (Linux; Android 15; CPH2557 Build/AP3A.240617.008; wv) {view} Instagram 350.0.0.40.90 Android (35/15; 480dpi; 1080x2400; OPPO; CPH2557; OP573DL1; mt6833; en_MY; 822918295)"),
            "Dalvik/2.1.0 (Linux; U; Android 15; CPH2557 Build/AP3A.240617.008)".to_owned(),
            "Dalvik/2.1.0 (Linux; U; Android 10; CUBOT_NOTE_20 Build/QP1A.190711.020)".to_owned(),
            "Instagram 350.0.0.40.90 Android (29/10; 320dpi; 720x1440; SPIDER; Spider bot; x; mt6765; en_US; 6)".to_owned(),
            "[FBAN/FB4A;FBAV/491.0.0.60.89;FBMF/M bot;FBBD/M bot;FBPN/com.facebook.katana;FBDV/M bot 60;FBSV/9;]".to_owned(),
        ];
        assert_eq!(mistaken(models.iter().map(String::as_str), false), [""; 0]);
    }

    #[test]
    fn an_app_or_a_browser_that_is_named_as_a_program_is_a_persons() {
        let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148";
        let view = "Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UD1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36";
        let apps = [
            format!("{iphone} iRobot/7.1"),
            format!("{iphone} SpiderSolitaire/5.2 CrawlTrack/1.0"),
            format!("{iphone} Blackboard/3.6.1"),
            format!("{view} Spider/3.1"),
            format!("{view} MyChatBot/1.0 (build 7)"),
            format!("{view} Blackboard/3.9.0"),
            "iRobot/7.1 CFNetwork/1410.0.3 Darwin/22.6.0".to_owned(),
            "FanBot/2.4 (iPhone; iOS 17.5; Scale/3.00)".to_owned(),
            // a library, but an app of a telephone uses it and says so
            "ShopApp/5.1.2 (Android 14; SM-S918B) okhttp/4.12.0".to_owned(),
            "Mozilla/5.0 (Linux; Android 13; SM-S908B; Viber) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36".to_owned(),
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_4) AppleWebKit/537.77.4 (KHTML, like Gecko) FluidApp Version/1955 Safari/537.77.4".to_owned(),
            "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1; Trident/4.0; SynapseWorkstation.3.2.1; .NET4.0C)".to_owned(),
            "Opera/9.80 (MAUI Runtime; Opera Mini/4.4.39008/66.299; U; km) Presto/2.12.423 Version/12.16".to_owned(),
            "Links (2.17; Linux 4.19.2-300.fc29.x86_64 x86_64; GNU C 8.2.1; text)".to_owned(),
            "Lynx/2.8.9rel.1 libwww-FM/2.14 SSL-MM/1.4.1 OpenSSL/1.1.1d".to_owned(),
        ];
        assert_eq!(mistaken(apps.iter().map(String::as_str), false), [""; 0]);
    }
}
