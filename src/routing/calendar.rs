//! Hours, weekdays and dates of rules. Spans are half-open, in the rule's zone: `9-18` is from 9:00 until before 18:00. One
//! over midnight belongs to the day it begins. Local time is what a clock on the wall shows: an hour that comes twice
//! counts twice, one that is skipped does not come.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

use crate::model::rule::Dimension;

const DAY_MINUTES: u16 = 24 * 60;

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// What a clock and a calendar on the wall show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(NaiveDateTime);

impl Moment {
    pub(super) fn of(now: DateTime<Utc>, zone: Tz) -> Self {
        Self(if zone == Tz::UTC { now.naive_utc() } else { now.with_timezone(&zone).naive_local() })
    }

    fn minute(self) -> u16 {
        u16::try_from(self.0.hour() * 60 + self.0.minute()).unwrap_or(0)
    }

    fn weekday(self) -> u32 {
        self.0.weekday().num_days_from_monday()
    }
}

/// As `fri 2026-11-27 22:15`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weekday = WEEKDAYS.get(self.weekday() as usize).copied().unwrap_or_default();
        write!(f, "{weekday} {}", self.0.format("%Y-%m-%d %H:%M"))
    }
}

/// Times of which one must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Calendar {
    spans: Vec<Span>,
    dates: Vec<(NaiveDateTime, NaiveDateTime)>,
}

/// The same time of some weekdays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// A bit for each weekday that it begins on, from Monday.
    days: u8,
    /// Minutes of the day.
    from: u16,
    /// Not above `from`: on the next day.
    to: u16,
}

impl Span {
    fn holds(self, moment: Moment) -> bool {
        let (minute, today) = (moment.minute(), moment.weekday());
        let begins_on = |day: u32| (self.days >> day) & 1 == 1;
        if self.from < self.to {
            return begins_on(today) && (self.from..self.to).contains(&minute);
        }
        let yesterday = (today + 6) % 7;
        (begins_on(today) && minute >= self.from) || (begins_on(yesterday) && minute < self.to)
    }
}

impl Calendar {
    pub(super) fn holds(&self, moment: &Moment) -> bool {
        self.spans.iter().any(|span| span.holds(*moment))
            || self.dates.iter().any(|(from, to)| (*from..*to).contains(&moment.0))
    }

    /// Adds a value of a dimension; or says what it must be.
    pub(super) fn add(&mut self, dimension: Dimension, text: &str) -> Result<(), String> {
        match dimension {
            Dimension::Hour => {
                let (from, to) =
                    hours(text).ok_or("must be an hour or hours, such as 9, 9-18 or 22:30-4:00")?;
                self.spans.push(Span { days: 0x7f, from, to });
            }
            Dimension::Weekday => {
                let days = weekdays(text).ok_or("must be a weekday or weekdays, such as sat or mon-fri")?;
                self.spans.push(Span { days, from: 0, to: DAY_MINUTES });
            }
            Dimension::Time => {
                let span = || {
                    let (days, text) = text.trim().split_once(' ')?;
                    let ((from, to), days) = (hours(text)?, weekdays(days)?);
                    Some(Span { days, from, to })
                };
                self.spans
                    .push(span().ok_or("must be weekdays and hours, such as mon-fri 9-18 or fri 22-4")?);
            }
            _ => self.dates.push(dates(text)?),
        }
        Ok(())
    }
}

/// `9`, `9-18`, `22:30-4:00`: minutes of the day.
fn hours(text: &str) -> Option<(u16, u16)> {
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':').unwrap_or((text.trim(), "0"));
        let (hour, minute): (u16, u16) = (number(hour)?, number(minute)?);
        let time = hour * 60 + minute;
        (hour <= 24 && minute < 60 && time <= DAY_MINUTES).then_some(time)
    };
    let (from, to) = match text.split_once('-') {
        Some((from, to)) => (time(from)?, time(to)?),
        None => (time(text)?, time(text)? + 60),
    };
    (from < DAY_MINUTES && from != to && to <= DAY_MINUTES).then_some((from, to))
}

fn number(text: &str) -> Option<u16> {
    ((1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `mon`, `mon-fri`, `sat-mon`: a bit for each.
fn weekdays(text: &str) -> Option<u8> {
    let day = |text: &str| WEEKDAYS.iter().position(|day| text.trim().eq_ignore_ascii_case(day));
    let Some((first, last)) = text.split_once('-') else { return Some(1 << day(text)?) };
    let (first, last) = (day(first)?, day(last)?);
    let count = (last + 7 - first) % 7 + 1;
    Some((0..count).fold(0, |days, i| days | 1 << ((first + i) % 7)))
}

/// `2026-11-01`, `2026-11-01/2026-12-01`, `2026-11-27T18:00/2026-11-28T06:00`: from the first until before the second.
fn dates(text: &str) -> Result<(NaiveDateTime, NaiveDateTime), String> {
    const WANTED: &str =
        "must be a date or a range of dates, such as 2026-11-01 or 2026-11-27T18:00/2026-12-01";
    let time = |text: &str| -> Option<NaiveDateTime> {
        let text = text.trim();
        if let Ok(date) = text.parse::<NaiveDate>() {
            return Some(date.and_time(NaiveTime::MIN));
        }
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S"))
            .ok()
    };
    let (from, to) = if let Some((from, to)) = text.split_once('/') {
        (time(from).ok_or(WANTED)?, time(to).ok_or(WANTED)?)
    } else {
        let date = text.trim().parse::<NaiveDate>().map_err(|_| WANTED)?;
        let from = date.and_time(NaiveTime::MIN);
        (from, from.checked_add_signed(TimeDelta::days(1)).ok_or(WANTED)?)
    };
    if from < to { Ok((from, to)) } else { Err("must end after it begins".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(dimension: Dimension, value: &str, zone: Tz, at: &str) -> bool {
        let mut calendar = Calendar::default();
        calendar.add(dimension, value).unwrap();
        calendar.holds(&Moment::of(at.parse().unwrap(), zone))
    }

    #[test]
    fn spans_are_half_open_and_belong_to_the_day_they_begin() {
        // 2026-11-27 is a Friday
        for (dimension, value, at, wanted) in [
            (Dimension::Hour, "9-18", "2026-11-27T09:00:00Z", true),
            (Dimension::Hour, "9-18", "2026-11-27T17:59:59Z", true),
            (Dimension::Hour, "9-18", "2026-11-27T18:00:00Z", false),
            (Dimension::Hour, "9", "2026-11-27T09:59:00Z", true),
            (Dimension::Hour, "22:30-4:00", "2026-11-27T22:29:00Z", false),
            (Dimension::Hour, "22:30-4:00", "2026-11-27T03:59:00Z", true),
            (Dimension::Hour, "0-24", "2026-11-27T23:59:00Z", true),
            (Dimension::Weekday, "mon-fri", "2026-11-27T23:59:00Z", true),
            (Dimension::Weekday, "sat-mon", "2026-11-27T23:59:00Z", false),
            (Dimension::Weekday, "SUN", "2026-11-29T00:00:00Z", true),
            (Dimension::Time, "fri 22-4", "2026-11-27T22:00:00Z", true),
            (Dimension::Time, "fri 22-4", "2026-11-28T03:59:00Z", true),
            (Dimension::Time, "fri 22-4", "2026-11-27T03:59:00Z", false),
            (Dimension::Time, "fri 22-4", "2026-11-28T22:00:00Z", false),
            (Dimension::Date, "2026-11-27", "2026-11-27T00:00:00Z", true),
            (Dimension::Date, "2026-11-27", "2026-11-28T00:00:00Z", false),
            (Dimension::Date, "2026-11-27T12:00/2026-12-01", "2026-11-27T11:59:59Z", false),
            (Dimension::Date, "2026-11-27T12:00/2026-12-01", "2026-11-30T23:59:59Z", true),
        ] {
            assert_eq!(holds(dimension, value, Tz::UTC, at), wanted, "{value} at {at}");
        }
    }

    #[test]
    fn an_hour_that_comes_twice_counts_twice_and_one_that_is_skipped_never() {
        let berlin = Tz::Europe__Berlin;
        // back from 3:00 to 2:00 at 1:00 UTC
        for at in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            assert!(holds(Dimension::Hour, "2", berlin, at), "{at}");
        }
        assert!(!holds(Dimension::Hour, "2", berlin, "2026-10-25T02:00:00Z"));
        // on from 2:00 to 3:00 at 1:00 UTC
        let day = (0..24 * 60).map(|minute| format!("2026-03-29T{:02}:{:02}:00Z", minute / 60, minute % 60));
        assert_eq!(day.filter(|at| holds(Dimension::Hour, "2", berlin, at)).count(), 0);
        assert!(holds(Dimension::Date, "2026-03-30", Tz::Asia__Kolkata, "2026-03-29T18:30:00Z"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (dimension, value) in [
            (Dimension::Hour, "25"),
            (Dimension::Hour, "9-9"),
            (Dimension::Hour, "24"),
            (Dimension::Hour, "9:60-10"),
            (Dimension::Hour, "-1"),
            (Dimension::Hour, ""),
            (Dimension::Weekday, "friday"),
            (Dimension::Time, "fri"),
            (Dimension::Time, "fri 9-9"),
            (Dimension::Date, "2026-02-30"),
            (Dimension::Date, "2026-11-02/2026-11-01"),
            (Dimension::Date, "tomorrow"),
        ] {
            assert!(Calendar::default().add(dimension, value).is_err(), "{value}");
        }
    }
}
