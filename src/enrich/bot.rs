//! Whether a user agent says it is a program: crawlers, previews, monitors, HTTP libraries.
//!
//! The list is crawler-user-agents (MIT, `config/bots`, fetched again by `config/bots/update`); [`OURS`] adds
//! the few general signs it leaves out. What stays out: programs that pretend to be a browser; no list of
//! names can find those.

use aho_corasick::AhoCorasick;
use regex::RegexSet;

/// Patterns that are plain text: one automaton finds all of them in one pass.
const LITERALS: &str = include_str!("../../config/bots/literals.txt");

/// The few that need a regex.
const REGEXES: &str = include_str!("../../config/bots/regexes.txt");

/// Signs of a program that no list of names can keep up with.
const OURS: [&str; 6] = [
    // a word that ends in "bot", except the telephones of Cubot
    r"(?i)(?:^|[^u]|[^c]u)bot(?:[^a-z]|$)",
    r"(?i)(?:crawler|spider|scraper|validator)(?:[^a-z]|$)",
    // an address to complain to, which no browser sends
    r"\+ ?https?://",
    r"(?i)http[-_ ]?(?:client|request)|feed ?(?:parser|fetcher)|(?:^| )(?:rss|news) ?reader",
    r"^(?:Java|Ruby|PHP|node|undici|Deno|Bun|reqwest|hyper|PostmanRuntime|insomnia|fetch|Lynx|Links)(?:[/ ]|$)",
    r"meta-external|facebookcatalog",
];

/// Browsers of people that the list takes for the crawler of the same house.
const PEOPLE: [&str; 2] = ["SogouMobileBrowser/", "; Viber)"];

#[derive(Debug)]
pub(super) struct Bots {
    literals: AhoCorasick,
    regexes: RegexSet,
}

impl Bots {
    pub(super) fn built_in() -> Self {
        let literals = AhoCorasick::new(patterns(LITERALS));
        let regexes = RegexSet::new(patterns(REGEXES).chain(OURS));
        Self {
            literals: literals.expect("the embedded list is compiled by every test"),
            regexes: regexes.expect("the embedded list is compiled by every test"),
        }
    }

    pub(super) fn matches(&self, user_agent: &str) -> bool {
        let listed = self.literals.is_match(user_agent) || self.regexes.is_match(user_agent);
        listed && !PEOPLE.iter().any(|browser| user_agent.contains(browser))
    }
}

/// The lines of a list but for its head. Not trimmed: a space at the end is part of a pattern.
fn patterns(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_of_the_list_is_a_bot() {
        let bots = Bots::built_in();
        let samples = include_str!("../../config/bots/samples.txt");
        assert!(patterns(samples).count() > 300);
        for agent in patterns(samples) {
            assert!(bots.matches(agent), "{agent}");
        }
    }

    #[test]
    fn programs_missing_from_the_list_are_bots() {
        let bots = Bots::built_in();
        for agent in [
            "foobot/1.0",
            "Mozilla/5.0 (compatible; BeetleBot; )",
            "LumiBot 2.0",
            "MyCrawler",
            "UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/",
            "HTTP_Request2/2.1.1 (http://pear.php.net/package/http_request2) PHP/5.3.2",
            "Java/1.8.0_392",
            "PostmanRuntime/7.43.0",
            "meta-externalagent/1.1",
        ] {
            assert!(bots.matches(agent), "{agent}");
        }
    }

    #[test]
    fn a_telephone_named_cubot_is_no_bot() {
        let bots = Bots::built_in();
        for model in ["CUBOT", "CUBOT X19", "CUBOT_NOTE_S", "Cubot KingKong 9"] {
            let agent = format!(
                "Mozilla/5.0 (Linux; Android 14; {model}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36"
            );
            assert!(!bots.matches(&agent), "{agent}");
        }
    }
}
