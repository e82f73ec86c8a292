//! Versions of operating systems and browsers, and the ranges of them that a rule asks for.
//!
//! What stays out: where a version stands in a user agent or a hint (`user_agent`, `hints`).

use std::fmt;
use std::str::FromStr;

/// The first two numbers of a version: `17.5` of 17.5.1. A minor number that is not said is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Before the first dot.
    pub major: u16,
    /// Behind it.
    pub minor: u16,
}

/// The versions that a rule asks for: `17` (every 17.x), `17.2`, `>=15`, `>15` (from 16.0), `<9`, `<=9` (to every 9.x),
/// `15-17` (from 15.0 to every 17.x).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionRange {
    first: Version,
    last: Version,
}

/// Why a text is no version or no range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersion {
    /// It is not one or two numbers.
    #[error(
        "not a version: one or two numbers with a dot between them are expected, up to 65535, such as 17 or 17.2"
    )]
    Version,
    /// It is none of the forms.
    #[error("not a range of versions: 17, 17.2, >=15, >15, <9, <=9 and 15-17 are understood")]
    Range,
    /// Its end is before its beginning, or nothing is below it.
    #[error("no version is in this range: its end is before its beginning")]
    Empty,
}

impl Version {
    const FIRST: Self = Self { major: 0, minor: 0 };
    const LAST: Self = Self { major: u16::MAX, minor: u16::MAX };

    /// A version by its two numbers.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The version that a text begins with, in the manner of user agents: `17_5_1 like Mac`, `131.0.0.0`, `14;`. `None`
    /// where it begins with no number, or with one of more than 65535; such a minor one counts as 0.
    pub(super) fn leading(text: &str) -> Option<Self> {
        let (major, rest) = leading_number(text)?;
        let minor = rest.strip_prefix(['.', '_']).and_then(leading_number);
        let minor = minor.and_then(|(minor, _)| minor.parse().ok()).unwrap_or(0);
        Some(Self { major: major.parse().ok()?, minor })
    }

    /// The one before; `None` for 0.0.
    const fn before(self) -> Option<Self> {
        match (self.major, self.minor) {
            (0, 0) => None,
            (major, 0) => Some(Self { major: major - 1, minor: u16::MAX }),
            (major, minor) => Some(Self { major, minor: minor - 1 }),
        }
    }

    /// The one behind; `None` for the last.
    const fn after(self) -> Option<Self> {
        match (self.major, self.minor) {
            (u16::MAX, u16::MAX) => None,
            (major, u16::MAX) => Some(Self { major: major + 1, minor: 0 }),
            (major, minor) => Some(Self { major, minor: minor + 1 }),
        }
    }
}

/// The digits at the beginning of a text, and what stands behind them.
fn leading_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (version, _) = parse(text)?;
        Ok(version)
    }
}

/// A version, and the last one that is meant by it: every minor one where only the major one is said.
fn parse(text: &str) -> Result<(Version, Version), InvalidVersion> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse::<u16>().ok() } else { None }.ok_or(InvalidVersion::Version)
    };
    match text.split_once('.') {
        None => {
            let major = number(text)?;
            Ok((Version::new(major, 0), Version::new(major, u16::MAX)))
        }
        Some((major, minor)) => {
            let version = Version::new(number(major)?, number(minor)?);
            Ok((version, version))
        }
    }
}

impl VersionRange {
    /// Whether a version is in it; one that is not known is in none.
    pub fn contains(&self, version: Option<Version>) -> bool {
        version.is_some_and(|version| (self.first..=self.last).contains(&version))
    }
}

impl FromStr for VersionRange {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (first, last) = if let Some(from) = text.strip_prefix(">=") {
            (parse(from.trim())?.0, Version::LAST)
        } else if let Some(to) = text.strip_prefix("<=") {
            (Version::FIRST, parse(to.trim())?.1)
        } else if let Some(above) = text.strip_prefix('>') {
            (parse(above.trim())?.1.after().ok_or(InvalidVersion::Empty)?, Version::LAST)
        } else if let Some(below) = text.strip_prefix('<') {
            (Version::FIRST, parse(below.trim())?.0.before().ok_or(InvalidVersion::Empty)?)
        } else if let Some((from, to)) = text.split_once('-') {
            (parse(from.trim())?.0, parse(to.trim())?.1)
        } else if text.starts_with(|c: char| c.is_ascii_digit()) {
            parse(text)?
        } else {
            return Err(InvalidVersion::Range);
        };
        if last < first { Err(InvalidVersion::Empty) } else { Ok(Self { first, last }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> VersionRange {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_range_holds_what_its_form_says_and_nothing_unknown() {
        for (text, inside, outside) in [
            ("17", &[(17, 0), (17, 65535)][..], &[(16, 9), (18, 0)][..]),
            ("17.2", &[(17, 2)], &[(17, 1), (17, 3), (17, 0)]),
            ("8.1", &[(8, 1)], &[(8, 0), (8, 10)]),
            (">=15", &[(15, 0), (99, 3)], &[(14, 9)]),
            (">= 15.4", &[(15, 4), (16, 0)], &[(15, 3)]),
            ("<9", &[(0, 0), (8, 9)], &[(9, 0), (10, 0)]),
            ("<=9", &[(0, 0), (9, 9)], &[(10, 0)]),
            (">15", &[(16, 0)], &[(15, 0), (15, 9)]),
            (">15.4", &[(15, 5)], &[(15, 4)]),
            ("<9.2", &[(9, 1)], &[(9, 2)]),
            ("15-17", &[(15, 0), (16, 3), (17, 9)], &[(14, 9), (18, 0)]),
            ("15.1 - 17.2", &[(15, 1), (17, 2)], &[(15, 0), (17, 3)]),
            (" 0 ", &[(0, 0)], &[(1, 0)]),
        ] {
            let range = range(text);
            let holds = |(major, minor): &(u16, u16)| range.contains(Some(Version::new(*major, *minor)));
            assert!(inside.iter().all(holds), "{text}: {range:?}");
            assert!(!outside.iter().any(holds), "{text}: {range:?}");
            assert!(!range.contains(None), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_in_words() {
        for (text, error) in [
            ("", InvalidVersion::Range),
            ("iOS", InvalidVersion::Range),
            ("=17", InvalidVersion::Range),
            ("<=", InvalidVersion::Version),
            (">70000", InvalidVersion::Version),
            (">65535", InvalidVersion::Empty),
            (">=", InvalidVersion::Version),
            ("<x", InvalidVersion::Version),
            ("17.", InvalidVersion::Version),
            ("17.2.1", InvalidVersion::Version),
            ("17x", InvalidVersion::Version),
            ("70000", InvalidVersion::Version),
            ("-17", InvalidVersion::Version),
            ("15-", InvalidVersion::Version),
            ("1-2-3", InvalidVersion::Version),
            (">=+5", InvalidVersion::Version),
            ("17-15", InvalidVersion::Empty),
            ("<0", InvalidVersion::Empty),
        ] {
            assert_eq!(text.parse::<VersionRange>(), Err(error), "{text}");
        }
        assert!(InvalidVersion::Range.to_string().contains(">=15"));
    }

    #[test]
    fn a_version_is_shown_with_its_minor_number_and_read_again() {
        for (text, shown) in [("17", "17.0"), ("17.5", "17.5"), ("0.10", "0.10")] {
            let version: Version = text.parse().unwrap();
            assert_eq!(version.to_string(), shown);
            assert_eq!(shown.parse(), Ok(version));
        }
        assert!(Version::new(9, 10) > Version::new(9, 9) && Version::new(10, 0) > Version::new(9, 10));
    }

    #[test]
    fn a_version_is_read_off_the_beginning_of_a_text() {
        for (text, wanted) in [
            ("17_5_1 like Mac OS X", Some((17, 5))),
            ("131.0.6778.86 Safari", Some((131, 0))),
            ("14; SM-S918B", Some((14, 0))),
            ("3.07", Some((3, 7))),
            ("8.99999999", Some((8, 0))),
            ("8.", Some((8, 0))),
            ("99999.1", None),
            ("", None),
            (" 1", None),
            ("v1", None),
        ] {
            assert_eq!(
                Version::leading(text),
                wanted.map(|(major, minor)| Version::new(major, minor)),
                "{text}"
            );
        }
    }
}
