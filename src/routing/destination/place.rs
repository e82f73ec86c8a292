//! Where a macro stands in a destination: inside how many encoded URLs, and whether dots there would lead up.
//!
//! `?ued=https%3A%2F%2Fshop%2F%3Fref%3D{sub1}`: the macro is a parameter of the inner URL, which is itself a parameter. A
//! value that were encoded once would add parameters to the inner URL as soon as somebody decodes it. So it is encoded
//! once for each URL around it. That there is an inner URL is read off the text before the macro: an encoded scheme
//! (`%3A%2F%2F`), an encoded slash where a value begins, or an encoded parameter (`%3Fname%3D`). Text that merely holds an
//! encoded character (`?text=Really%3F%20{sub1}`) is no URL. All of it is done once, when a template is parsed.

/// Levels of URLs inside of URLs that are told apart.
const LEVELS_MAX: usize = 6;

/// How a value is written where its macro stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// How often it is encoded.
    pub(super) times: u8,
    /// What becomes of a value that is only dots.
    pub(super) dots: Dots,
}

impl Default for Place {
    fn default() -> Self {
        Self { times: 1, dots: Dots::Kept }
    }
}

/// What becomes of a value that is only dots: between two slashes `.` and `..` are no names, but ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dots {
    /// They are text here.
    Kept,
    /// They are replaced: the segment of the path is made of macros alone.
    Replaced,
    /// They are replaced, and so is a missing value: the segment has dots of its own.
    MissingToo,
}

/// The places of the macros in a destination, which is given as texts and, between them, macros (`None`).
pub(super) fn places<'a>(parts: impl Iterator<Item = Option<&'a str>>, is_intent: bool) -> Vec<Place> {
    let semicolons = if is_intent { Semicolons::BehindHash } else { Semicolons::Text };
    let mut scanner = Scanner { semicolons, ..Scanner::default() };
    for part in parts {
        match part {
            Some(text) => tokens(text).for_each(|token| scanner.see(token)),
            None => scanner.see_macro(),
        }
    }
    scanner.end_segment();
    scanner.places
}

/// A character, and how often it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    byte: u8,
    level: usize,
}

fn tokens(text: &str) -> impl Iterator<Item = Token> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        let (token, length) =
            encoded(after).filter(|_| byte == b'%').unwrap_or((Token { byte, level: 0 }, 0));
        rest = &after[length..];
        Some(token)
    })
}

/// What stands behind a `%`: `2F`, or `252F` when it is encoded twice; and its length.
fn encoded(after: &[u8]) -> Option<(Token, usize)> {
    let mut length = 0;
    let mut level = 1;
    let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
    while after[length..].starts_with(b"25") && digit(length + 2).is_some() && digit(length + 3).is_some() {
        length += 2;
        level += 1;
    }
    let byte = u8::try_from(16 * digit(length)? + digit(length + 1)?).ok()?;
    Some((Token { byte, level }, length + 2))
}

#[derive(Debug, Default)]
struct Scanner {
    semicolons: Semicolons,
    places: Vec<Place>,
    /// URLs around the macro that would come now.
    depth: usize,
    /// By level: how much of `://` was just seen.
    scheme: [u8; LEVELS_MAX],
    /// By level: letters of a name since the last `?` or `&`.
    name: [Option<u32>; LEVELS_MAX],
    /// Whether a value begins here.
    begins: bool,
    /// Behind `?` or `#`.
    is_query: bool,
    /// Behind the `=` of a parameter.
    is_value: bool,
    segment: Segment,
}

/// What `;` is: in an intent it separates as `&` does elsewhere, once its `#` was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Semicolons {
    #[default]
    Text,
    BehindHash,
    Separate,
}

/// What was seen since the last character that separates.
#[derive(Debug, Default)]
struct Segment {
    is_behind_slash: bool,
    has_text: bool,
    has_dots: bool,
    first_macro: usize,
}

impl Scanner {
    fn see_macro(&mut self) {
        let times = u8::try_from(self.depth + 1).unwrap_or(u8::MAX);
        self.places.push(Place { times, dots: Dots::Kept });
        self.see_text();
        self.begins = false;
    }

    fn see(&mut self, token: Token) {
        self.see_of_segment(token);
        let Token { byte, level } = token;
        match level {
            0 => self.see_raw(byte),
            1..LEVELS_MAX => self.see_encoded(byte, level),
            _ => {}
        }
    }

    fn see_raw(&mut self, byte: u8) {
        let is_query = matches!(byte, b'?' | b'#');
        // in a value of the query, `/`, `?` and `=` are characters like others, also of an inner URL
        let separates = match byte {
            b'/' | b'?' => !self.is_query,
            b'=' => !self.is_value,
            b';' => self.semicolons == Semicolons::Separate,
            _ => matches!(byte, b'#' | b'&'),
        };
        if separates {
            self.is_query |= is_query;
            if byte == b'#' && self.semicolons == Semicolons::BehindHash {
                self.semicolons = Semicolons::Separate;
            }
            self.is_value = byte == b'=';
            self.depth = 0;
            self.name = Default::default();
            self.scheme = Default::default();
        } else if byte == b'/' {
            for level in 1..LEVELS_MAX {
                self.see_slash(level);
            }
        } else {
            if byte == b'+' {
                self.depth = 0; // a space: no URL goes on behind it
            }
            self.see_text();
        }
        self.begins = separates;
    }

    /// A slash that may be one of `://`.
    fn see_slash(&mut self, level: usize) {
        match std::mem::take(&mut self.scheme[level]) {
            1 => self.scheme[level] = 2,
            2 => self.depth = self.depth.max(level),
            _ => {}
        }
    }

    /// Letters, which belong to names at every level.
    fn see_text(&mut self) {
        self.scheme = Default::default();
        for name in self.name.iter_mut().flatten() {
            *name += 1;
        }
    }

    fn see_encoded(&mut self, byte: u8, level: usize) {
        let begins = std::mem::take(&mut self.begins);
        let name = std::mem::take(&mut self.name[level]);
        if byte != b'/' {
            self.scheme[level] = 0;
        }
        match byte {
            b':' => self.scheme[level] = 1,
            b'/' if begins && level == self.depth + 1 => self.depth = level,
            b'/' => self.see_slash(level),
            b'?' | b'&' | b'#' => {
                self.depth = self.depth.min(level); // out of what stands in it
                self.name[level] = Some(0);
            }
            b'=' if name.is_some_and(|letters| letters > 0) => {
                self.depth = level;
                self.begins = true;
            }
            b' ' | b'\n' | b'\r' | b'\t' => self.depth = self.depth.min(level - 1), // no URL goes on behind it
            _ => {}
        }
    }

    fn see_of_segment(&mut self, Token { byte, .. }: Token) {
        match byte {
            b'.' => self.segment.has_dots = true,
            b'/' | b'\\' | b'?' | b'&' | b'=' | b'#' => {
                self.end_segment();
                self.segment.is_behind_slash = matches!(byte, b'/' | b'\\');
            }
            _ => self.segment.has_text = true,
        }
    }

    fn end_segment(&mut self) {
        let segment = std::mem::replace(
            &mut self.segment,
            Segment { first_macro: self.places.len(), ..Segment::default() },
        );
        if !segment.is_behind_slash || segment.has_text {
            return;
        }
        let dots = if segment.has_dots { Dots::MissingToo } else { Dots::Replaced };
        for place in &mut self.places[segment.first_macro..] {
            place.dots = dots;
        }
    }
}
