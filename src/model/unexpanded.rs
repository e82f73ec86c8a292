//! Whether a value of a link is a macro that the source did not fill: `{campaign}`, `[BID]`, `%zone%`, `__CID__`,
//! `{{ad.id}}`, `##SUB##`, `${SUBID}`, as it is or percent-encoded once or twice.
//!
//! Only a whole value is one: in `100%25_off%25` and in `{a}-{b}` somebody may have meant it. A word in brackets, `[DE]`,
//! cannot be told from a macro, and is taken for one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Longest name of a macro, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a macro stands in, longer ones first, and what its name is made of.
const FRAMES: [(&str, &str, Name); 10] = [
    ("${", "}", Name::Words),
    ("{{", "}}", Name::Words),
    ("{", "}", Name::Words),
    ("[[[", "]]]", Name::Words),
    ("[[", "]]", Name::Words),
    ("[", "]", Name::Words),
    ("##", "##", Name::Words),
    ("#", "#", Name::Words),
    ("__", "__", Name::Capitals),
    ("%", "%", Name::Word),
];

/// What the name of a macro is made of.
#[derive(Debug, Clone, Copy)]
enum Name {
    /// Letters, digits, and what joins them: `keyword:default`, `Site Name`, `SUB_ID_SHORT(action)`.
    Words,
    /// Letters, digits, `_`, `.` and `-`, beginning with a letter, and more than a percent-encoded byte: `%D0%` is none.
    Word,
    /// Capitals, digits and `_`: `__init__` is a value.
    Capitals,
}

impl Name {
    fn is_one(self, name: &str) -> bool {
        let first = name.as_bytes().first().copied().unwrap_or(0);
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let all = |is_fit: &dyn Fn(u8) -> bool| name.len() <= NAME_BYTES_MAX && name.bytes().all(is_fit);
        match self {
            Self::Words => {
                let joins = |b: u8| matches!(b, b':' | b'|' | b' ' | b'(' | b')');
                (first.is_ascii_alphabetic() || first == b'_') && all(&|b| is_plain(b) || joins(b))
            }
            Self::Word => {
                let is_byte = name.len() == 2 && all(&|b| b.is_ascii_hexdigit());
                first.is_ascii_alphabetic() && !is_byte && all(&is_plain)
            }
            Self::Capitals => {
                first.is_ascii_uppercase()
                    && all(&|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            }
        }
    }
}

/// Whether a value is a macro: as it was sent, as it reads, or as it reads where it was encoded twice.
pub fn is_unexpanded(raw: &str, value: &str) -> bool {
    is_macro(raw) || is_macro(value) || (value.contains('%') && is_macro(&decoded(value)))
}

/// Whether a text is nothing but a macro in one of the forms in which sources write them.
pub fn is_macro(text: &str) -> bool {
    if !matches!(text.as_bytes().first(), Some(b'{' | b'[' | b'$' | b'%' | b'_' | b'#')) {
        return false;
    }
    let inner = FRAMES
        .iter()
        .find_map(|(start, end, name)| Some((text.strip_prefix(start)?.strip_suffix(end)?.trim(), name)));
    inner.is_some_and(|(inner, name)| name.is_one(inner))
}

fn decoded(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_macro_is_known() {
        for text in [
            "{sub1}",
            "{{ad.id}}",
            "[CLICKID]",
            "[bid]",
            "[[x]]",
            "[[[subid]]]",
            "%campaign%",
            "%Zone-1%",
            "__CAMPAIGN_ID__",
            "__CID__",
            "##CLICK_ID##",
            "##SUB_ID_SHORT(action)##",
            "#tid#",
            "${SUBID}",
            "{keyword:default}",
            "{_campaignid}",
            "{{ campaign name }}",
            "{Site Name}",
        ] {
            assert!(is_macro(text), "{text}");
        }
    }

    #[test]
    fn a_value_that_only_looks_a_little_like_one_is_kept() {
        for text in [
            "",
            "a{sub1}",
            "{sub1}{sub2}",
            "{a}-{b}",
            "{}",
            "{1}",
            "[1]",
            "[a,b]",
            "{\"a\":1}",
            "%",
            "%%",
            "%D0%",
            "%_off%",
            "%100%",
            "100%_off%",
            "100%",
            "__",
            "____",
            "_x_",
            "__x",
            "__init__",
            "__1__",
            "#",
            "##",
            "#1",
            "#1#",
            "$",
            "$5",
            "{a}b",
            "{sub",
            "<x>",
        ] {
            assert!(!is_macro(text), "{text}");
        }
    }

    #[test]
    fn encodings_hide_no_macro() {
        for (raw, value) in [
            ("{x}", "{x}"),
            ("%7Bx%7D", "{x}"),
            ("%257Bx%257D", "%7Bx%7D"),
            ("%25zone%25", "%zone%"),
            ("%2525zone%2525", "%25zone%25"),
            ("%campaign%", "\u{fffd}mpaign%"),
            ("$%7Bx%7D", "${x}"),
            ("%24%257BSUBID%257D", "$%7BSUBID%7D"),
            ("%255BBID%255D", "%5BBID%5D"),
            ("%2523%2523S%2523%2523", "%23%23S%23%23"),
        ] {
            assert!(is_unexpanded(raw, value), "{raw}");
        }
        for (raw, value) in
            [("100%25_off%25", "100%_off%"), ("%25_off%25", "%_off%"), ("%D0%B0%25", "\u{430}%")]
        {
            assert!(!is_unexpanded(raw, value), "{raw}");
        }
    }
}
