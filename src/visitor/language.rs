//! The language that a visitor's browser asks for.
//!
//! What stays out: regions and scripts (`pt-BR` is `pt`), and languages after the first.

use std::fmt;
use std::str::FromStr;

/// Bytes of an `Accept-Language` that are looked at. Browsers send 5 to 80.
const HEADER_BYTES_MAX: usize = 512;

/// Languages of it that are looked at.
const LANGUAGES_MAX: usize = 32;

/// A language by its code of ISO 639: two or three lower-case letters, such as `de` or `fil`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Language {
    /// Padded with zeros.
    letters: [u8; 3],
}

/// The text is no language's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a language: two or three letters are expected, such as de or fil")]
pub struct InvalidLanguage;

impl Language {
    /// The code, such as `de`.
    pub fn as_str(&self) -> &str {
        let end = if self.letters[2] == 0 { 2 } else { 3 };
        str::from_utf8(&self.letters[..end]).unwrap_or_default() // parsing lets only a to z in
    }

    /// The most wanted language of an `Accept-Language` (RFC 9110, section 12.5.4): the first of those with the highest
    /// weight. `*`, what is not wanted (`q=0`) and what is no language is passed over.
    pub(super) fn most_wanted(header: &str) -> Option<Self> {
        let header = &header[..header.floor_char_boundary(HEADER_BYTES_MAX)];
        let mut best = None;
        for item in header.split(',').take(LANGUAGES_MAX) {
            let (range, parameters) = item.split_once(';').unwrap_or((item, ""));
            let Some(weight) = weight(parameters) else { continue };
            let primary = range.trim().split(['-', '_']).next().unwrap_or_default();
            let Ok(language) = primary.parse() else { continue };
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, language));
            }
        }
        best.map(|(_, language)| language)
    }
}

/// The weight of a language in thousandths; without one it is 1. `None` where it cannot be read.
fn weight(parameters: &str) -> Option<u16> {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some(1000);
    }
    let value = parameters.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?.trim();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" if is_number => Some(1000),
        "0" | "" if is_number => format!("{fraction:0<3}").parse().ok(),
        _ => None,
    }
}

impl FromStr for Language {
    type Err = InvalidLanguage;

    /// Takes either case, and `iw`, `in` and `ji`, which old Androids say for Hebrew, Indonesian and Yiddish.
    fn from_str(code: &str) -> Result<Self, Self::Err> {
        let mut letters = [0; 3];
        let is_code = matches!(code.len(), 2 | 3) && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        if !is_code {
            return Err(InvalidLanguage);
        }
        for (letter, byte) in letters.iter_mut().zip(code.bytes()) {
            *letter = byte.to_ascii_lowercase();
        }
        let letters = match &letters {
            b"iw\0" => *b"he\0",
            b"in\0" => *b"id\0",
            b"ji\0" => *b"yi\0",
            _ => letters,
        };
        Ok(Self { letters })
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_wanted_language_is_the_first_of_the_highest_weight() {
        for (header, wanted) in [
            ("de", Some("de")),
            ("de-AT,de;q=0.9,en;q=0.8", Some("de")),
            ("en;q=0.8, pt-BR ;q=0.9", Some("pt")),
            ("en;q=0.8,fr;q=0.8", Some("en")),
            ("*, fr;q=0.5", Some("fr")),
            ("FIL-ph", Some("fil")),
            ("zh_Hans_CN", Some("zh")),
            ("iw-IL,iw", Some("he")),
            ("in-ID", Some("id")),
            ("es ; q = 0.3 , it ; Q=1.000", Some("it")),
            ("en;q=0,de;q=0.001", Some("de")),
            ("en;q=.5", Some("en")),
            // nothing of use, or garbage beside it
            ("", None),
            ("*", None),
            ("en;q=0", None),
            ("en;q=2", None),
            ("en;q=0.5555", None),
            ("en;q=x", None),
            ("i-klingon", None),
            ("english", None),
            ("d\u{e9}", None),
            ("{lang}, de;q=0.1", Some("de")),
            (",,;;,de", Some("de")),
            ("x-private, sl", Some("sl")),
        ] {
            let language = Language::most_wanted(header);
            assert_eq!(language.as_ref().map(Language::as_str), wanted, "{header}");
        }
    }

    #[test]
    fn an_endless_header_is_read_up_to_its_bound() {
        let late = format!("{}en", "*,".repeat(100_000));
        assert_eq!(Language::most_wanted(&late), None);
        assert_eq!(Language::most_wanted(&format!("de,{}", "\u{1f419}".repeat(10_000))), "de".parse().ok());
        let many = format!("en;q=0.1,{}fr", "*,".repeat(LANGUAGES_MAX));
        assert_eq!(Language::most_wanted(&many), "en".parse().ok());
    }

    #[test]
    fn a_language_is_two_or_three_letters() {
        assert_eq!("DE".parse::<Language>().unwrap().to_string(), "de");
        assert_eq!("Fil".parse::<Language>().unwrap().to_string(), "fil");
        for wrong in ["", "d", "dede", "d1", "d-", "\u{e9}"] {
            assert_eq!(wrong.parse::<Language>(), Err(InvalidLanguage), "{wrong}");
        }
    }
}
