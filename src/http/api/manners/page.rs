//! Lists: the parameters of their query, cursors, and pages.
//!
//! A cursor is the key of the last row of a page: the next page begins after it, however many rows came or
//! went meanwhile, and no page costs more than the first.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        error::{FieldError, Problem, cut},
        fields::{DAY_WANTED, TIME_WANTED, Zone, parse_day, parse_time},
    },
    model::id::ClickId,
};

/// Entries of a page when nothing else is asked for.
pub(crate) const LIMIT_DEFAULT: usize = 50;

/// Most entries of a page.
pub(crate) const LIMIT_MAX: usize = 500;

/// Parameters that are read at most; more are refused.
const PARAMETERS_MAX: usize = 50;

/// The times that rows of a list can have: what a UUIDv7 can say, in PostgreSQL's range, and some before 1970, which
/// only a person can have written.
const STORED_TIMES: RangeInclusive<DateTime<Utc>> = DateTime::from_timestamp(-62_135_596_800, 0)
    .expect("the year 1")
    ..=DateTime::from_timestamp_millis(1 << 48).expect("the year 10889");

const INVALID_CURSOR: &str = "invalid_cursor";

/// The parameters of a query, and what was found wrong with them so far.
#[derive(Debug)]
pub(crate) struct Params<'q> {
    values: Vec<(Cow<'q, str>, Cow<'q, str>)>,
    errors: Vec<FieldError>,
}

impl<'q> Params<'q> {
    /// Reads a query; parameters that are not in `known` and repeated ones are refused. An empty value counts
    /// as none.
    pub(crate) fn parse(query: Option<&'q str>, known: &[&str]) -> Self {
        let mut params = Self { values: Vec::new(), errors: Vec::new() };
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        for (name, value) in pairs.take(PARAMETERS_MAX) {
            if !known.contains(&name.as_ref()) {
                params.refuse(
                    &name,
                    "unknown",
                    format!("is not a known parameter; known are {}", known.join(", ")),
                );
            } else if params.values.iter().any(|(n, _)| *n == name) {
                params.refuse(&name, "repeated", "is given more than once");
            } else {
                params.values.push((name, value));
            }
        }
        params
    }

    /// The value of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.values.iter().find(|(n, _)| n == name)?;
        Some(value.as_ref()).filter(|v| !v.is_empty())
    }

    /// A value that parses itself. `code` says what kind of fault it is when it does not.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, code: &'static str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let detail = error.to_string();
                self.refuse(name, code, detail);
                None
            }
        }
    }

    /// An id that is a number.
    pub(crate) fn id(&mut self, name: &str) -> Option<i64> {
        let id = self.text(name)?.parse().ok().filter(|id| *id >= 1);
        if id.is_none() {
            self.refuse(name, "type", "must be a whole number from 1");
        }
        id
    }

    /// The click that a list is of, as its id in any form.
    pub(crate) fn click_id(&mut self) -> Option<ClickId> {
        let id = self.text("click_id")?.parse().ok();
        if id.is_none() {
            self.refuse("click_id", "uuid", "must be the id of a click (a UUIDv7)");
        }
        id
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        match self.text(name)? {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => {
                self.refuse(name, "type", "must be true or false");
                None
            }
        }
    }

    /// A time (RFC 3339). A `+` that was not encoded reads as a space: both mean the same here.
    pub(crate) fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let time = parse_time(&self.text(name)?.replace(' ', "+"));
        if time.is_none() {
            self.refuse(name, "time", TIME_WANTED);
        }
        time
    }

    /// A day.
    pub(crate) fn day(&mut self, name: &str) -> Option<NaiveDate> {
        let day = parse_day(self.text(name)?);
        if day.is_none() {
            self.refuse(name, "day", DAY_WANTED);
        }
        day
    }

    /// The time zone `tz`, UTC where none is said.
    pub(crate) fn zone(&mut self) -> Tz {
        self.parsed::<Zone>("tz", "time_zone").map_or(Tz::UTC, |zone| zone.0)
    }

    /// How many entries a page is to have.
    pub(crate) fn limit(&mut self) -> usize {
        let Some(text) = self.text("limit") else { return LIMIT_DEFAULT };
        match text.parse() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => return limit,
            _ => self.refuse("limit", "range", format!("must be a whole number from 1 to {LIMIT_MAX}")),
        }
        LIMIT_DEFAULT
    }

    /// Where the page begins, in a list by id.
    pub(crate) fn id_cursor(&mut self) -> Option<Uuid> {
        self.any_cursor(parse_id)
    }

    /// Where the page begins, in a list by number.
    pub(crate) fn number_cursor(&mut self) -> Option<i64> {
        self.any_cursor(parse_number)
    }

    /// Where the page begins, in a list by time.
    pub(crate) fn cursor(&mut self) -> Option<Key> {
        self.any_cursor(parse_key)
    }

    /// Where the page begins, in a list with a key of its own.
    pub(crate) fn any_cursor<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let cursor = parse(self.text("cursor")?);
        if cursor.is_none() {
            self.refuse("cursor", INVALID_CURSOR, "is not a cursor of this list; begin without it");
        }
        cursor
    }

    /// Notes a fault of a parameter.
    pub(crate) fn refuse(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(format!("?{}", cut(name, 64)), code, detail));
    }

    /// 422 with everything that was found wrong; 400 where that is the cursor, which no person writes.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() {
            return Ok(());
        }
        if self.errors.iter().any(|error| error.code != INVALID_CURSOR) {
            return Err(Problem::unprocessable(self.errors));
        }
        let detail = "The cursor is not one of this list; begin without it.";
        Err(Problem::bad_request(INVALID_CURSOR, detail).with_errors(self.errors))
    }
}

/// Time and id of a row: the key of lists by time.
pub(crate) type Key = (DateTime<Utc>, Uuid);

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The entries, newest first.
    pub data: Vec<T>,
    /// Whether there are more.
    pub has_more: bool,
    /// `cursor` of the next page.
    #[schema(example = "019aaf3c5f007abc8def0123456789ab")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of `rows`, which were asked for with [`rows_for`] this limit.
    pub(crate) fn new(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| has_more).map(cursor);
        Self { data: rows, has_more, next_cursor }
    }

    /// The same page of what is shown of each row.
    pub(crate) fn shown<V: From<T>>(self) -> Page<V> {
        self.map(V::from)
    }

    /// The same page of what `shown` makes of each row.
    pub(crate) fn map<V>(self, shown: impl Fn(T) -> V) -> Page<V> {
        let data = self.data.into_iter().map(shown).collect();
        Page { data, has_more: self.has_more, next_cursor: self.next_cursor }
    }

    /// Of a search that was cut short: where it goes on, whether or not the page is full.
    pub(crate) fn or_goes_on(mut self, next_cursor: Option<String>) -> Self {
        if !self.has_more && next_cursor.is_some() {
            self.has_more = true;
            self.next_cursor = next_cursor;
        }
        self
    }
}

/// How many rows to ask for: one more than are shown tells whether there are more.
pub(crate) fn rows_for(limit: usize) -> i64 {
    i64::try_from(limit + 1).unwrap_or(i64::MAX)
}

/// The cursor of a list by id.
pub(crate) fn id_cursor(id: Uuid) -> String {
    id.simple().to_string()
}

/// The cursor of a list by number.
pub(crate) fn number_cursor(number: i64) -> String {
    format!("{number:016x}")
}

/// The cursor of a list by time.
pub(crate) fn cursor(at: DateTime<Utc>, id: Uuid) -> String {
    format!("{:016x}{}", at.timestamp_micros().cast_unsigned(), id.simple())
}

fn parse_id(text: &str) -> Option<Uuid> {
    let is_ours = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    Uuid::try_parse(text).ok().filter(|_| is_ours)
}

fn parse_number(text: &str) -> Option<i64> {
    let is_ours = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    i64::from_str_radix(text, 16).ok().filter(|_| is_ours)
}

/// The place that a cursor of a list by time names.
pub(crate) fn parse_key(text: &str) -> Option<Key> {
    let (time, id) = text.split_at_checked(16)?;
    let is_hex = time.bytes().all(|b| b.is_ascii_hexdigit());
    let micros = u64::from_str_radix(time, 16).ok().filter(|_| is_hex)?.cast_signed();
    let at = DateTime::from_timestamp_micros(micros).filter(|at| STORED_TIMES.contains(at))?;
    Some((at, parse_id(id)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_parse_to_what_they_were_made_of() {
        let id = crate::model::id::new_uuid();
        for at in [DateTime::UNIX_EPOCH, Utc::now(), DateTime::from_timestamp_micros(-5).unwrap()] {
            let at = DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap();
            assert_eq!(parse_key(&cursor(at, id)), Some((at, id)));
        }
        assert_eq!(parse_id(&id_cursor(id)), Some(id));
        for number in [0, 1, 255, i64::MAX] {
            assert_eq!(parse_number(&number_cursor(number)), Some(number));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let id = crate::model::id::new_uuid();
        for bad in
            ["x", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", &id_cursor(id), &id.to_string()]
        {
            assert!(parse_key(bad).is_none(), "{bad}");
        }
        assert!(parse_key(&format!("7fffffffffffffff{}", id.simple())).is_none());
        assert!(parse_key(&format!("+fffffffffffffff{}", id.simple())).is_none());
        assert!(parse_id(&cursor(Utc::now(), id)).is_none());
        for bad in ["7", "+fffffffffffffff", "ffffffffffffffff", &id_cursor(id)] {
            assert!(parse_number(bad).is_none(), "{bad}");
        }
        for (query, wanted) in
            [("cursor=x", (400, INVALID_CURSOR, 1)), ("cursor=x&l=1", (422, "invalid_fields", 2))]
        {
            let mut params = Params::parse(Some(query), &["cursor"]);
            assert_eq!(params.cursor(), None);
            let refused = params.finish().unwrap_err();
            let found = (refused.status().as_u16(), refused.code(), refused.errors().len());
            assert_eq!(found, wanted, "{query}");
        }
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let query = "limit=0&from=yesterday&form=1&limit=5&to=2026-01-01T00:00:00+01:00&is_valid=maybe&cid=";
        let mut params = Params::parse(Some(query), &["limit", "from", "to", "is_valid", "cid"]);
        assert_eq!(params.text("cid"), None);
        assert_eq!(params.limit(), LIMIT_DEFAULT);
        assert_eq!(params.time("to").unwrap().to_rfc3339(), "2025-12-31T23:00:00+00:00");
        assert_eq!((params.time("from"), params.boolean("is_valid")), (None, None));
        let problem = params.finish().unwrap_err();
        let pointers: Vec<_> = problem.errors().iter().map(|e| (e.pointer.as_str(), e.code)).collect();
        let wanted = [
            ("?form", "unknown"),
            ("?limit", "repeated"),
            ("?limit", "range"),
            ("?from", "time"),
            ("?is_valid", "type"),
        ];
        assert_eq!(pointers, wanted);
    }

    #[test]
    fn a_page_says_whether_there_is_more() {
        let page = Page::new(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.data.len(), page.has_more, page.next_cursor.as_deref()), (2, true, Some("2")));
        let page = Page::new(vec![1, 2], 2, ToString::to_string);
        assert_eq!((page.has_more, page.next_cursor), (false, None));
    }
}
