//! Text from strangers, made safe to keep: bounded, valid UTF-8, no NUL, no control characters.

use std::{borrow::Cow, fmt::Write as _};

use strum::VariantNames;

/// Longest short text of an event, in characters.
pub const PARAMETER_CHARS_MAX: usize = 255;

/// Longest value of a link's parameter, in characters.
pub const LINK_VALUE_CHARS_MAX: usize = 1024;

/// Longest user agent, referrer or event URL kept, in characters.
pub const HEADER_CHARS_MAX: usize = 2048;

/// Removes control characters and cuts after `chars_max` characters.
pub fn clean(text: &str, chars_max: usize) -> Cow<'_, str> {
    let is_ascii_text = || text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if text.len() <= chars_max && (is_ascii_text() || !text.chars().any(char::is_control)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| !c.is_control()).take(chars_max).collect())
}

/// A text of strangers as a cell of CSV. One with which a spreadsheet would begin to reckon gets a `'` before it
/// ([OWASP, CSV Injection](https://owasp.org/www-community/attacks/CSV_Injection)).
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    if is_formula { format!("'{text}").into() } else { text.into() }
}

/// The error of a text that is no value of a closed choice.
pub fn must_be_one_of<Choice: VariantNames>(_: &str) -> String {
    format!("must be one of {}", Choice::VARIANTS.join(", "))
}

/// [`clean`], and whether there was more than `chars_max` characters.
pub fn clean_and_cut(text: &str, chars_max: usize) -> (Cow<'_, str>, bool) {
    let cleaned = clean(text, chars_max);
    // what is as long in bytes as before has lost nothing
    let is_cut =
        cleaned.len() < text.len() && text.chars().filter(|c| !c.is_control()).nth(chars_max).is_some();
    (cleaned, is_cut)
}

/// Two digits for each byte, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // writing to a String does not fail
        hex
    })
}

/// [`clean`] for bytes: invalid UTF-8 becomes U+FFFD.
pub fn clean_bytes(bytes: &[u8], chars_max: usize) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => clean(text, chars_max),
        Cow::Owned(text) => Cow::Owned(clean(&text, chars_max).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(clean("summer sale", 255), Cow::Borrowed("summer sale")));
    }

    #[test]
    fn what_strangers_write_is_no_formula() {
        for (text, wanted) in [("T-1", "T-1"), ("=1+1", "'=1+1"), ("@x", "'@x"), ("-5", "'-5"), ("", "")] {
            assert_eq!(csv_cell(text), wanted);
        }
    }

    #[test]
    fn control_characters_vanish_and_a_cut_falls_between_characters() {
        assert_eq!(clean("a\0b\r\nc\u{85}", 255), "abc");
        assert_eq!(clean("\u{e9}\u{e9}\u{e9}", 2), "\u{e9}\u{e9}");
    }

    #[test]
    fn only_what_is_cut_is_said_to_be() {
        for (text, is_cut) in
            [("abc", false), ("a\0bc", false), ("abcd", true), ("\u{e9}\u{e9}\u{e9}\n", false), ("", false)]
        {
            assert_eq!(clean_and_cut(text, 3).1, is_cut, "{text:?}");
        }
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(clean_bytes(&[b'a', 0xff, b'b'], 255), "a\u{fffd}b");
    }
}
