//! A scheme of links into apps (`myapp://open/...`): an installation lists those that its destinations may have.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// Longest scheme, in bytes.
const BYTES_MAX: usize = 32;

/// What no installation can list: they run code, read files or show what was not fetched, in the visitor's
/// browser; and those that need no listing.
const NEVER: [&str; 18] = [
    "about",
    "blob",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "http",
    "https",
    "jar",
    "javascript",
    "livescript",
    "mocha",
    "resource",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// A scheme of RFC 3986 section 3.1 in lower case that may lead into an app.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Scheme(String);

impl Scheme {
    /// The scheme in lower case, without `://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scheme {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scheme = text.to_ascii_lowercase();
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let is_scheme = scheme.len() <= BYTES_MAX
            && scheme.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.bytes().all(inner);
        match scheme {
            _ if !is_scheme => Err("a scheme is a letter, then letters, digits, + - ."),
            s if NEVER.contains(&s.as_str()) => Err("this scheme cannot be listed"),
            s => Ok(Self(s)),
        }
    }
}

impl TryFrom<String> for Scheme {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_have_schemes_and_code_has_none() {
        assert_eq!("MyApp".parse::<Scheme>().unwrap().as_str(), "myapp");
        for good in ["fb", "com.example.app", "intent", "x-a+b"] {
            assert!(good.parse::<Scheme>().is_ok(), "{good}");
        }
        for bad in
            ["", "1app", "my app", "app:", "app://", "java\tscript", "JavaScript", "data", "https", "\u{e9}"]
        {
            assert!(bad.parse::<Scheme>().is_err(), "{bad}");
        }
        assert!("a".repeat(33).parse::<Scheme>().is_err());
    }
}
