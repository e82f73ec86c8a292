//! How a value is written into a URL: percent-encoded, as often as its place says, and cut where a destination ends.

use std::iter;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    DESTINATION_BYTES_MAX,
    place::{Dots, Place},
};

pub(super) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is kept of a value that is encoded already: also what encoders leave as it is (`encodeURIComponent`, forms), but
/// nothing that separates: one value stays one value, wherever it stands.
const KEPT_IN_RAW: &AsciiSet =
    &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*').remove(b'+');

/// Appends a value where it stands.
pub(super) fn append(out: &mut String, text: &str, is_raw: bool, place: Place) {
    let dots = if place.dots == Dots::Kept { None } else { dots_alone(text, is_raw) };
    match dots {
        Some(0) if place.dots == Dots::Replaced => {}
        Some(dots) => out.extend(iter::repeat_n('_', dots.max(1))),
        None if is_raw => encode_raw(out, text, place.times),
        None => encode(out, text, place.times),
    }
}

/// How many dots a value is that is nothing else; a URL parser takes an encoded one for one, too.
fn dots_alone(text: &str, is_raw: bool) -> Option<usize> {
    if !is_raw {
        return text.bytes().all(|b| b == b'.').then_some(text.len());
    }
    let mut rest = text;
    let mut dots = 0;
    while !rest.is_empty() {
        let encoded = rest.get(..3).filter(|escape| escape.eq_ignore_ascii_case("%2e")).map(|_| &rest[3..]);
        rest = rest.strip_prefix('.').or(encoded)?;
        dots += 1;
    }
    Some(dots)
}

/// Encodes a value `times` times over.
fn encode(out: &mut String, value: &str, times: u8) {
    let most = usize::from(2 * times + 1); // %XX, %25XX, %2525XX
    if out.len() + most * value.len() <= DESTINATION_BYTES_MAX {
        match times {
            1 => out.extend(utf8_percent_encode(value, UNRESERVED)),
            _ => encode_again(out, value, times),
        }
        return;
    }
    // cut between characters, so that what is left still decodes
    for (i, c) in value.char_indices() {
        if out.len() + most * c.len_utf8() > DESTINATION_BYTES_MAX {
            break;
        }
        encode_again(out, &value[i..i + c.len_utf8()], times);
    }
}

/// The percent sign of an encoded byte is itself what is encoded next time.
fn encode_again(out: &mut String, value: &str, times: u8) {
    for piece in utf8_percent_encode(value, UNRESERVED) {
        match piece.strip_prefix('%') {
            Some(digits) => {
                out.push('%');
                out.extend(iter::repeat_n("25", usize::from(times.saturating_sub(1))));
                out.push_str(digits);
            }
            None => out.push_str(piece),
        }
    }
}

/// Encodes a value that is encoded once already: its escapes count as the first time.
fn encode_raw(out: &mut String, value: &str, times: u8) {
    let more = times.saturating_sub(1);
    let longest = DESTINATION_BYTES_MAX.saturating_sub(out.len()) / usize::from(2 * more + 1);
    let mut once = String::with_capacity(value.len().min(longest));
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        let (piece, after) = rest.split_at(if is_escape(rest) { 3 } else { c.len_utf8() });
        let end = once.len();
        if piece.len() == 3 && c == '%' {
            once.push_str(piece);
        } else {
            once.extend(utf8_percent_encode(piece, KEPT_IN_RAW));
        }
        if once.len() > longest {
            once.truncate(end);
            break;
        }
        rest = after;
    }
    match more {
        0 => out.push_str(&once),
        _ => encode(out, &once, more),
    }
}

/// Whether it begins with `%` and two digits.
fn is_escape(text: &str) -> bool {
    matches!(text.as_bytes(), [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str, times: u8) -> String {
        let mut out = String::new();
        append(&mut out, text, true, Place { times, dots: Dots::Kept });
        out
    }

    #[test]
    fn what_is_encoded_already_is_not_encoded_again_and_separates_nothing() {
        for (text, wanted) in [
            ("a%20b%C3%A9", "a%20b%C3%A9"),
            ("a+b!'()*-._~", "a+b!'()*-._~"),
            ("100%", "100%25"),
            ("%zz%2", "%25zz%252"),
            ("a&b=c#d;e?f/g\\h", "a%26b%3Dc%23d%3Be%3Ff%2Fg%5Ch"),
            ("a b\"<>\r\n\0\u{e9}{}|", "a%20b%22%3C%3E%0D%0A%00%C3%A9%7B%7D%7C"),
            ("%\u{e9}%2f", "%25%C3%A9%2f"),
            ("", ""),
        ] {
            assert_eq!(raw(text, 1), wanted, "{text}");
            let twice = utf8_percent_encode(wanted, UNRESERVED).to_string();
            assert_eq!(raw(text, 2), twice, "{text}, in a URL in a URL");
        }
    }

    #[test]
    fn a_long_encoded_value_is_cut_between_its_escapes() {
        for times in 1..4 {
            let out = raw(&"%C3%A9&".repeat(4000), times);
            assert!(
                (DESTINATION_BYTES_MAX / 3..=DESTINATION_BYTES_MAX).contains(&out.len()),
                "{}",
                out.len()
            );
            let mut text = out;
            for _ in 1..times {
                text = percent_encoding::percent_decode_str(&text).decode_utf8().unwrap().into_owned();
            }
            assert!(text.split('%').skip(1).all(|digits| digits.len() == 2), "{times}");
        }
    }

    #[test]
    fn encoded_dots_are_dots() {
        let place = Place { times: 1, dots: Dots::Replaced };
        for (text, wanted) in
            [("%2e%2E", "__"), (".%2e", "__"), ("%2e", "_"), ("", ""), ("%2ea", "%2ea"), ("%2", "%252")]
        {
            let mut out = String::new();
            append(&mut out, text, true, place);
            assert_eq!(out, wanted, "{text}");
        }
    }
}
