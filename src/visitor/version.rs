//! Versions of systems and browsers, and ranges of them as rules name them.

use std::{fmt, str::FromStr};

/// The first two numbers of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first.
    pub major: u16,
    /// The second; 0 where there is none.
    pub minor: u16,
}

/// As `17.5`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Versions from one until before another: `17` (all of 17), `17.2`, `>=15`, `<9`, `15-17` (with all of 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    from: Version,
    /// `None`: without end.
    before: Option<Version>,
}

/// The text is no range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be versions such as 17, 17.2, >=15, <9 or 15-17")]
pub struct InvalidRange;

impl VersionRange {
    /// Whether a version is in it; one that is not known is in none.
    pub fn contains(&self, version: Option<Version>) -> bool {
        version
            .is_some_and(|version| version >= self.from && self.before.is_none_or(|before| version < before))
    }
}

impl FromStr for VersionRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        const FIRST: Version = Version { major: 0, minor: 0 };
        let text = text.trim();
        let (from, before) = if let Some(rest) = text.strip_prefix(">=") {
            (part(rest)?.0, None)
        } else if let Some(rest) = text.strip_prefix("<=") {
            (FIRST, Some(part(rest)?.1))
        } else if let Some(rest) = text.strip_prefix('>') {
            (part(rest)?.1, None)
        } else if let Some(rest) = text.strip_prefix('<') {
            (FIRST, Some(part(rest)?.0))
        } else if let Some((first, last)) = text.split_once('-') {
            (part(first)?.0, Some(part(last)?.1))
        } else {
            let (from, before) = part(text)?;
            (from, Some(before))
        };
        let is_empty = before.is_some_and(|before| before <= from);
        if is_empty { Err(InvalidRange) } else { Ok(Self { from, before }) }
    }
}

/// The first version that a number such as `17` or `17.2` stands for, and the one behind the last.
fn part(text: &str) -> Result<(Version, Version), InvalidRange> {
    let number = |text: &str| -> Result<u16, InvalidRange> {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if is_number { text.parse().map_err(|_| InvalidRange) } else { Err(InvalidRange) }
    };
    let next = |number: u16| number.checked_add(1).ok_or(InvalidRange);
    if let Some((major, minor)) = text.trim().split_once('.') {
        let (major, minor) = (number(major)?, number(minor)?);
        return Ok((Version { major, minor }, Version { major, minor: next(minor)? }));
    }
    let major = number(text.trim())?;
    Ok((Version { major, minor: 0 }, Version { major: next(major)?, minor: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say_and_an_unknown_version_is_in_none() {
        for (range, inside, outside) in [
            ("17", (17, 5), (18, 0)),
            ("17.2", (17, 2), (17, 3)),
            (">=15", (15, 0), (14, 9)),
            (">15", (16, 0), (15, 9)),
            ("<9", (8, 9), (9, 0)),
            ("<=9", (9, 9), (10, 0)),
            ("15-17", (17, 9), (18, 0)),
            ("15.4 - 17", (15, 4), (15, 3)),
        ] {
            let parsed: VersionRange = range.parse().unwrap();
            let contains = |(major, minor)| parsed.contains(Some(Version { major, minor }));
            assert!(contains(inside) && !contains(outside), "{range}");
            assert!(!parsed.contains(None), "{range}");
        }
        for text in ["", "x", "17-15", "1.2.3", ">=", "-", "99999", "17-"] {
            assert!(text.parse::<VersionRange>().is_err(), "{text}");
        }
    }
}
