//! The script of landing pages as this installation sends it, made once at a start: `script/o.js` without what only its
//! readers need, and with the configured names. How pages use it is in `docs/script.md`.

use std::{io::Write as _, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use regex::{Captures, Regex};
use sha2::{Digest, Sha256, Sha384};

use crate::config;

/// As people read it.
const SOURCE: &str = include_str!("script/o.js");

/// Digits of the hash in the name of the script that never changes.
const HASH_DIGITS: usize = 16;

/// The script and the names it goes by.
#[derive(Debug)]
pub struct Script {
    /// What is sent.
    pub text: Bytes,
    /// The same, compressed.
    pub gzip: Bytes,
    /// The beginning of its SHA-256, in hexadecimal.
    pub hash: String,
    /// For the attribute `integrity` (<https://www.w3.org/TR/sri-2/>).
    pub integrity: String,
    /// Paths by configuration, and what they stand for.
    aliases: Vec<(String, &'static str)>,
    /// What the paths of the script begin with: all but `js`, or hash and `js`.
    stems: Vec<String>,
}

/// Which script is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// That of today.
    Evergreen,
    /// The one with this hash, which is the one there is.
    Pinned,
}

impl Script {
    /// Makes it.
    pub fn new(names: &config::Script, respects_gpc: bool) -> Self {
        let mut stems = vec![stem(&names.path), "/o.".to_owned()];
        stems.dedup();
        let mut text = compact(SOURCE);
        for (name, value) in [
            ("__GLOBAL__", names.global.as_str()),
            ("__STEMS__", &format!("({})", stems.join("|")).replace('/', "\\/").replace('.', "\\.")),
            ("__VISIT__", &names.visit_path),
            ("__EVENT__", &names.event_path),
            ("__GPC__", if respects_gpc { "navigator.globalPrivacyControl" } else { "0" }),
        ] {
            text = text.replace(name, value);
        }
        let mut hash = format!("{:x}", Sha256::digest(&text));
        hash.truncate(HASH_DIGITS);
        let mut aliases = vec![
            (names.visit_path.clone(), "/visit"),
            (names.event_path.clone(), "/event"),
            (names.event_path.clone() + ".gif", "/event.gif"),
        ];
        aliases.retain(|(path, stands_for)| path != stands_for);
        Self {
            gzip: gzip(text.as_bytes()),
            hash,
            integrity: format!("sha384-{}", STANDARD.encode(Sha384::digest(&text))),
            text: text.into(),
            aliases,
            stems,
        }
    }

    /// Which script a path is of, if it is one's. That of a hash which is not the present one is the evergreen one: pages
    /// that name it go on, unless they insist by `integrity`.
    pub fn asked(&self, path: &str) -> Option<Asked> {
        let rest = self.stems.iter().find_map(|stem| path.strip_prefix(stem.as_str()))?;
        let is_hash = |text: &str| text.len() == HASH_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
        match rest.strip_suffix(".js") {
            None => (rest == "js").then_some(Asked::Evergreen),
            Some(hash) if hash == self.hash => Some(Asked::Pinned),
            Some(hash) => is_hash(hash).then_some(Asked::Evergreen),
        }
    }

    /// The path of octo that a configured one stands for.
    pub fn stands_for(&self, path: &str) -> Option<&'static str> {
        self.aliases.iter().find(|(alias, _)| alias == path).map(|(_, stands_for)| *stands_for)
    }

    /// The path of the script that never changes.
    pub fn pinned_path(&self) -> String {
        format!("{}{}.js", self.stems[0], self.hash)
    }
}

/// A path without `js`.
fn stem(path: &str) -> String {
    path.strip_suffix("js").unwrap_or(path).to_owned()
}

/// The source without comments, without white space that says nothing, and with one letter for each name that begins
/// with `$`. A text of the source has no white space, so all there is can go.
fn compact(source: &str) -> String {
    static SPACE: LazyLock<Regex> = LazyLock::new(|| pattern(r" *([^\w$ ]) *"));
    static NAME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\$[a-z]\w*"));
    let lines = source.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let line = lines.collect::<Vec<_>>().join(" ");
    let dense = SPACE.replace_all(line.trim(), "$1").replace(";}", "}");
    let mut names: Vec<String> = Vec::new();
    let short = NAME.replace_all(&dense, |found: &Captures<'_>| {
        let place = names.iter().position(|name| *name == found[0]).unwrap_or_else(|| {
            names.push(found[0].to_owned());
            names.len() - 1
        });
        letter(place).to_string()
    });
    short.into_owned()
}

/// `a` to `z`, then `A` to `Z`; the tests see that there are enough.
fn letter(place: usize) -> char {
    ('a'..='z').chain('A'..='Z').nth(place).unwrap_or('$')
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of ours")
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("a vector takes everything").into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Flags, Loaded};

    fn script(env: &[(&str, &str)]) -> Script {
        let env = env.iter().map(|(key, value)| (format!("OCTO_SCRIPT__{key}"), (*value).to_owned()));
        let config = Loaded::load(None, env, &Flags::default()).unwrap().config;
        Script::new(&config.script, config.privacy.respect_gpc)
    }

    #[test]
    fn it_has_at_most_1500_bytes_compressed() {
        let script = script(&[]);
        println!("{} bytes, {} compressed", script.text.len(), script.gzip.len());
        assert!(script.gzip.len() <= 1_500, "{} bytes", script.gzip.len());
        let mut text = Vec::new();
        flate2::write::GzDecoder::new(&mut text).write_all(&script.gzip).unwrap();
        assert_eq!(text, script.text);
    }

    #[test]
    fn nothing_is_sent_but_what_runs() {
        let names: BTreeSet<_> =
            Regex::new(r"\$[a-z]\w*").unwrap().find_iter(SOURCE).map(|it| it.as_str()).collect();
        assert!((40..=52).contains(&names.len()), "{} names for 52 letters", names.len());
        // a word of one letter would be taken for one of them
        let bare = Regex::new(r"(^|[^$\w.\\/-])[a-zA-Z]\b").unwrap();
        let code = SOURCE.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        for line in code {
            assert!(!line.contains("//") && !line.contains("/*"), "a comment has lines of its own: {line}");
            let [outside, texts] =
                [0, 1].map(|from| line.split('\'').skip(from).step_by(2).collect::<String>());
            assert!(bare.find(&outside).is_none(), "{line}");
            assert!(!texts.contains(char::is_whitespace), "a text has no space: {line}");
        }
        let script = script(&[]);
        let text = str::from_utf8(&script.text).unwrap();
        assert!(
            text.is_ascii() && !text.contains("__") && !text.contains("  ") && !text.contains('\n'),
            "{text}"
        );
        assert!(text.contains("a.octo"), "{text}");
    }

    #[test]
    fn names_are_the_configured_ones_and_the_first_ones_go_on() {
        let own =
            [("PATH", "/assets/shop.js"), ("VISIT_PATH", "/hi"), ("EVENT_PATH", "/s/e"), ("GLOBAL", "shop")];
        let own = script(&own);
        let text = str::from_utf8(&own.text).unwrap();
        for part in [
            "a.shop",
            r"/(\/assets\/shop\.|\/o\.)[^/]*$/",
            "'/hi'",
            "'/s/e'",
            "'/s/e.gif?'",
            "setItem('shop',",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("'octo'") && !text.contains("a.octo"), "{text}");
        assert_eq!(own.pinned_path(), format!("/assets/shop.{}.js", own.hash));
        for path in ["/assets/shop.js", "/o.js", "/o.0123456789abcdef.js"] {
            assert_eq!(own.asked(path), Some(Asked::Evergreen), "{path}");
        }
        assert_eq!(own.asked(&format!("/o.{}.js", own.hash)), Some(Asked::Pinned));
        assert_eq!(own.asked(&own.pinned_path()), Some(Asked::Pinned));
        for path in [
            "/",
            "/o.",
            "/o.js/",
            "/o..js",
            "/o.x.js",
            "/o.json",
            "/assets/shop.map",
            "/o.0123456789abcdeg.js",
        ] {
            assert_eq!(own.asked(path), None, "{path}");
        }
        let stands_for = |path| own.stands_for(path);
        assert_eq!((stands_for("/hi"), stands_for("/s/e")), (Some("/visit"), Some("/event")));
        assert_eq!((stands_for("/s/e.gif"), stands_for("/visit")), (Some("/event.gif"), None));
        let default = script(&[]);
        assert!(default.aliases.is_empty() && default.stems == ["/o."] && default.hash != own.hash);
    }

    #[test]
    fn names_that_would_take_something_away_are_refused() {
        let faults = |key: &str, value: &str| {
            let env = [(format!("OCTO_SCRIPT__{key}"), value.to_owned())];
            Loaded::load(None, env, &Flags::default()).map(|_| ()).map_err(|error| error.to_string())
        };
        for (key, value) in [
            ("PATH", "/o"),
            ("PATH", "o.js"),
            ("PATH", "/a b.js"),
            ("PATH", "/.js"),
            ("PATH", "/a'.js"),
            ("VISIT_PATH", "visit"),
            ("VISIT_PATH", "/"),
            ("VISIT_PATH", "/a//b"),
            ("VISIT_PATH", "/a'+alert()+'"),
            ("VISIT_PATH", "/api/v1/tokens"),
            ("VISIT_PATH", "/click"),
            ("VISIT_PATH", "/event"),
            ("EVENT_PATH", "/health"),
            ("GLOBAL", ""),
            ("GLOBAL", "1a"),
            ("GLOBAL", "a.b"),
            ("GLOBAL", "a;alert()"),
        ] {
            let fault = faults(key, value).expect_err(value);
            assert!(fault.contains(&format!("script.{}", key.to_lowercase())), "{value}: {fault}");
        }
        assert_eq!(faults("VISIT_PATH", "/seen/here"), Ok(()));
    }
}
