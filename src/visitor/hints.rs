//! What a browser says of itself beside its user agent: User-Agent Client Hints
//! (<https://wicg.github.io/ua-client-hints/>). They correct what an agent cannot say or was frozen: the version of the
//! system, the full version of the browser, and which of the browsers that copy Chrome's agent it is.
//!
//! Chromium sends the brands, the platform and whether it is a telephone on its own, over HTTPS; the rest only to a site
//! that asked for it by [`ACCEPT_CH`], from the next request on. Who sends hints can make them up as well as an agent,
//! so they complete it and do not overrule it: a hint of another system than the agent's is not believed, and a bot
//! stays one.
//!
//! What stays out: reading the headers of a request (`http::track::signals`).

use super::{Agent, Device, Version, user_agent::Rules};

/// What a site answers with to get the hints that are not sent on their own; also in a redirect it is heard (seen in
/// Chromium 156: they come with the second click). There is no `Critical-CH` beside it: with it the browser asks for the
/// same link again at once (seen there too), so that one visit would be two clicks and wait twice.
pub const ACCEPT_CH: &str = "Sec-CH-UA-Platform-Version, Sec-CH-UA-Full-Version-List, Sec-CH-UA-Model";

/// Bytes of one hint. Browsers send at most 200; a longer one is not read.
pub const HINT_BYTES_MAX: usize = 512;

/// Brands of a list that are looked at. Browsers send three or four.
const BRANDS_MAX: usize = 16;

/// The hints of a request, as their headers stand there; empty where it is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hints<'h> {
    /// `Sec-CH-UA`: brands with their major versions.
    pub brands: &'h str,
    /// `Sec-CH-UA-Full-Version-List`: brands with their whole versions.
    pub full_versions: &'h str,
    /// `Sec-CH-UA-Mobile`: `?1` or `?0`.
    pub mobile: &'h str,
    /// `Sec-CH-UA-Platform`.
    pub platform: &'h str,
    /// `Sec-CH-UA-Platform-Version`.
    pub platform_version: &'h str,
    /// `Sec-CH-UA-Model`.
    pub model: &'h str,
}

/// The systems by their names in hints. `Chrome OS` and `Linux` have no version that people know.
const PLATFORMS: [(&str, &str); 6] = [
    ("Windows", "Windows"),
    ("macOS", "macOS"),
    ("Android", "Android"),
    ("Chrome OS", "ChromeOS"),
    ("Chromium OS", "ChromeOS"),
    ("Linux", "Linux"),
];

/// The browsers by their brands in hints; the first of the table that is in the list is meant, since all of them say
/// `Chromium` too.
const BRANDS: [(&str, &str); 16] = [
    ("Microsoft Edge", "Edge"),
    ("Opera", "Opera"),
    ("Opera GX", "Opera"),
    ("Opera Mobile", "Opera"),
    ("Opera Air", "Opera"),
    ("Brave", "Brave"),
    ("Samsung Internet", "Samsung Internet"),
    ("YaBrowser", "Yandex"),
    ("Yandex", "Yandex"),
    ("Vivaldi", "Vivaldi"),
    ("HuaweiBrowser", "Huawei Browser"),
    ("DuckDuckGo", "DuckDuckGo"),
    ("Whale", "Whale"),
    ("Android WebView", "WebView"),
    ("Google Chrome", "Chrome"),
    ("Chromium", "Chrome"),
];

impl Hints<'_> {
    /// What the agent says, completed and corrected.
    pub(super) fn correct(&self, mut agent: Agent, rules: &Rules) -> Agent {
        if *self == Hints::default() {
            return agent;
        }
        let platform = string(self.platform);
        if let Some((_, os)) = PLATFORMS.iter().find(|(name, _)| Some(*name) == platform) {
            if agent.os.is_empty() {
                agent.os = os;
            }
            if agent.os == *os {
                agent.os_version = self.system_version(os).or(agent.os_version);
            }
        }
        if let Some((browser, version)) = self.browser() {
            if matches!(agent.browser, "Chrome" | "") {
                agent.browser = browser;
                agent.browser_version = version.or(agent.browser_version);
            } else if agent.browser == browser {
                agent.browser_version = version.or(agent.browser_version);
            }
        }
        let by_model = string(self.model).and_then(|model| rules.device_of_model(model));
        if matches!(agent.device, Device::Mobile | Device::Tablet | Device::Unknown) {
            let by_hint = (agent.device == Device::Unknown && self.mobile == "?1").then_some(Device::Mobile);
            agent.device = by_model.or(by_hint).unwrap_or(agent.device);
        }
        agent
    }

    /// Windows counts otherwise than its name: 1 to 10 are Windows 10, 13 and more are Windows 11, below 1 it is 7 to 8.1
    /// (<https://learn.microsoft.com/microsoft-edge/web-platform/how-to-detect-win11>).
    fn system_version(&self, os: &str) -> Option<Version> {
        let said = Version::leading(string(self.platform_version)?)?;
        match (os, said.major, said.minor) {
            ("Windows", 0, 1) => Some(Version::new(7, 0)),
            ("Windows", 0, 2) => Some(Version::new(8, 0)),
            ("Windows", 0, 3) => Some(Version::new(8, 1)),
            ("Windows", 1..=12, _) => Some(Version::new(10, 0)),
            ("Windows", 13.., _) => Some(Version::new(11, 0)),
            ("Android" | "macOS", 1.., _) => Some(said),
            _ => None,
        }
    }

    /// The browser by its brands, with its version.
    fn browser(&self) -> Option<(&'static str, Option<Version>)> {
        let lists = [self.full_versions, self.brands];
        BRANDS.iter().find_map(|(brand, browser)| {
            let mut is_said = false;
            for list in lists {
                let said = Brands { rest: list }.take(BRANDS_MAX).find(|(said, _)| said == brand);
                if let Some(version) = said.and_then(|(_, version)| Version::leading(version)) {
                    return Some((*browser, Some(version)));
                }
                is_said |= said.is_some();
            }
            is_said.then_some((*browser, None))
        })
    }
}

/// The text of a string (RFC 9651, section 3.3.3); `None` where it is something else, or holds an escape, which no
/// platform, version or model does.
fn string(header: &str) -> Option<&str> {
    let text = header.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty() && !text.contains(['"', '\\'])).then_some(text)
}

/// The members of a list of strings with a parameter `v`, such as `"Not A;Brand";v="99", "Chromium";v="130"`; it ends at the
/// first that is none. Escapes stay as they are: only the brands made up to be passed over have them.
struct Brands<'h> {
    rest: &'h str,
}

impl<'h> Iterator for Brands<'h> {
    type Item = (&'h str, &'h str);

    fn next(&mut self) -> Option<Self::Item> {
        let (brand, mut rest) = quoted(self.rest.trim_start_matches([' ', '\t', ',']))?;
        let mut version = "";
        while let Some(parameter) = rest.strip_prefix(';') {
            let (key, value) = parameter.trim_start().split_once('=')?;
            let (value, behind) = match quoted(value) {
                Some(found) => found,
                None => value.split_at(value.find([';', ',', ' ']).unwrap_or(value.len())),
            };
            if key == "v" {
                version = value;
            }
            rest = behind;
        }
        self.rest = rest;
        Some((brand, version))
    }
}

/// What stands in the quotes that a text begins with, and what stands behind them.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })?;
    Some((&text[..end], &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visitor::{Enricher, Files, Signs};

    const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
    const ANDROID: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36";
    const MAC: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";
    const CHROME: &str = r#""Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24""#;

    /// Device, system and browser with their versions.
    fn described(user_agent: &str, hints: Hints<'_>) -> String {
        let enricher = Enricher::open(&Files::default()).unwrap();
        let seen = enricher.describe(&Signs { user_agent, hints, ..Signs::default() });
        let version = |version: Option<Version>| version.map_or_else(|| "?".to_owned(), |v| v.to_string());
        let (os, browser) = (version(seen.os_version), version(seen.browser_version));
        format!("{} | {} {os} | {} {browser}", seen.device.as_str(), seen.os, seen.browser)
    }

    #[test]
    fn hints_say_what_the_agent_was_frozen_at() {
        let windows = Hints { brands: CHROME, platform: "\"Windows\"", mobile: "?0", ..Hints::default() };
        let android = Hints { platform: "\"Android\"", mobile: "?1", ..windows };
        let of = |version| Hints { platform_version: version, ..windows };
        for (agent, hints, wanted) in [
            (WINDOWS, windows, "desktop | Windows 10.0 | Chrome 131.0"),
            (WINDOWS, of("\"15.0.0\""), "desktop | Windows 11.0 | Chrome 131.0"),
            (WINDOWS, of("\"13.0.0\""), "desktop | Windows 11.0 | Chrome 131.0"),
            (WINDOWS, of("\"10.0.0\""), "desktop | Windows 10.0 | Chrome 131.0"),
            (WINDOWS, of("\"0.3.0\""), "desktop | Windows 8.1 | Chrome 131.0"),
            (WINDOWS, of("\"\""), "desktop | Windows 10.0 | Chrome 131.0"),
            (ANDROID, android, "mobile | Android ? | Chrome 131.0"),
            (
                ANDROID,
                Hints { platform_version: "\"15.0.0\"", ..android },
                "mobile | Android 15.0 | Chrome 131.0",
            ),
            (
                MAC,
                Hints { platform: "\"macOS\"", platform_version: "\"14.5.0\"", ..windows },
                "desktop | macOS 14.5 | Chrome 131.0",
            ),
            (MAC, Hints { platform: "\"macOS\"", ..windows }, "desktop | macOS ? | Chrome 131.0"),
        ] {
            assert_eq!(described(agent, hints), wanted, "{hints:?}");
        }
    }

    #[test]
    fn a_browser_that_copies_chrome_is_named_by_its_brand_with_its_full_version() {
        for (agent, brands, full_versions, wanted) in [
            (WINDOWS, r#""Brave";v="131", "Chromium";v="131", "Not_A Brand";v="24""#, "", "Brave 131.0"),
            (WINDOWS, r#""Not;A=Br\"and";v="8", "Chromium";v="131","Opera";v="117""#, "", "Opera 117.0"),
            (
                WINDOWS,
                r#""Chromium";v="131", "Microsoft Edge";v="131""#,
                r#""Chromium";v="131.0.6778.86", "Microsoft Edge";v="131.7.2903.70""#,
                "Edge 131.7",
            ),
            (ANDROID, r#""Samsung Internet";v="27.1", "Chromium";v="131""#, "", "Samsung Internet 27.1"),
            (WINDOWS, r#""Some Browser";v="7", "Chromium";v="130""#, "", "Chrome 130.0"),
            // an app and a browser that name themselves are not overruled
            (
                "Mozilla/5.0 (Linux; Android 14; Pixel 8; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/131.0.6778.81 Mobile Safari/537.36 [FB_IAB/FB4A;FBAV/491.0.0.60.89;]",
                r#""Android WebView";v="131", "Chromium";v="131""#,
                "",
                "Facebook 491.0",
            ),
        ] {
            let seen = described(agent, Hints { brands, full_versions, ..Hints::default() });
            assert!(seen.ends_with(&format!("| {wanted}")), "{brands}: {seen}");
        }
    }

    #[test]
    fn a_model_tells_a_tablet_and_a_television_from_a_telephone() {
        let tablet = ANDROID.replace("Mobile ", "");
        for (agent, model, device) in [
            (ANDROID, "\"SM-X200\"", "tablet"),
            (ANDROID, "\"Pixel 8\"", "mobile"),
            (&tablet, "\"BRAVIA 4K\"", "tv"),
            (&tablet, "\"AFTKA\"", "tv"),
            (WINDOWS, "\"SM-X200\"", "desktop"),
            ("AnApp/1.0", "", "mobile"),
        ] {
            let hints = Hints { model, mobile: "?1", ..Hints::default() };
            assert!(described(agent, hints).starts_with(&format!("{device} |")), "{model}");
        }
    }

    #[test]
    fn hints_complete_an_agent_and_never_overrule_it() {
        let hints = Hints {
            brands: CHROME,
            platform: "\"Android\"",
            platform_version: "\"15.0.0\"",
            mobile: "?1",
            ..Hints::default()
        };
        assert_eq!(described(WINDOWS, hints), "desktop | Windows 10.0 | Chrome 131.0");
        // what is called a bot by its agent stays one
        let bot = Signs { user_agent: "AnApp/1.0", hints, ..Signs::default() };
        assert!(Enricher::open(&Files::default()).unwrap().describe(&bot).is_bot);
        assert_eq!(described("", hints), "mobile | Android 15.0 | Chrome 131.0");
    }

    #[test]
    fn garbage_in_hints_is_passed_over() {
        let plain = described(WINDOWS, Hints::default());
        for garbage in [
            "\"",
            "\"\"",
            "\"\\\"",
            ";;;",
            ",,,",
            "\"Brave",
            "Brave",
            "\"Brave\\\";v=\"1\"",
            "\"x\";v=\"1\";",
            "\"x\";;\"Brave\"",
            "\u{1f419}",
            "?1",
            "\"99999.99999\"",
            "\"Windows\"; \"Brave\"",
        ] {
            let hints = Hints {
                brands: garbage,
                full_versions: garbage,
                mobile: garbage,
                platform: garbage,
                platform_version: garbage,
                model: garbage,
            };
            assert_eq!(described(WINDOWS, hints), plain, "{garbage}");
        }
        let many = format!("{}\"Brave\";v=\"1\"", "\"x\";v=\"1\", ".repeat(BRANDS_MAX));
        assert_eq!(described(WINDOWS, Hints { brands: &many, ..Hints::default() }), plain);
    }
}
