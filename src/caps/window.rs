//! The times in which caps count: an hour, a day, a week from Monday, a month, in a zone of the IANA database, or for ever.
//!
//! Windows follow each other without a gap: where clocks are set back, the hour that occurs twice is two hours and its
//! day has 25, and where they are set forward, an hour does not occur and a day may begin at 01:00.

use chrono::{
    DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, Utc,
};
use chrono_tz::Tz;

use crate::model::rule::CapPer;

/// From `from` until before `until`, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first second.
    pub from: i64,
    /// The first second behind it; `i64::MAX`: it does not end.
    pub until: i64,
}

/// Longest time that a zone leaves out, with room: Samoa left out a whole day in 2011.
const GAP_MAX_MINUTES: i64 = 48 * 60;

impl Window {
    /// For ever.
    const TOTAL: Self = Self { from: 0, until: i64::MAX };

    /// The one that a time is in.
    pub fn of(at: DateTime<Utc>, per: CapPer, zone: Tz) -> Self {
        match per {
            CapPer::Hour => hour(at, zone),
            CapPer::Day | CapPer::Week | CapPer::Month => days(at, per, zone),
            CapPer::Total => Self::TOTAL,
        }
    }

    /// Whether a second is in it.
    pub fn contains(self, at_s: i64) -> bool {
        (self.from..self.until).contains(&at_s)
    }

    /// Whether it is over at a second.
    pub fn is_over(self, at_s: i64) -> bool {
        at_s >= self.until
    }

    /// Its begin and end as times; `None`: it has none.
    pub fn times(self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let time = |at_s| DateTime::from_timestamp(at_s, 0);
        if self == Self::TOTAL { (None, None) } else { (time(self.from), time(self.until)) }
    }
}

fn offset_s(at_s: i64, zone: Tz) -> i64 {
    let at = DateTime::from_timestamp(at_s, 0).unwrap_or_default().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&at).fix().local_minus_utc())
}

/// The hour of the clock; one in which the clock is set is two.
fn hour(at: DateTime<Utc>, zone: Tz) -> Window {
    let at_s = at.timestamp();
    let offset = offset_s(at_s, zone);
    let from = (at_s + offset).div_euclid(3600) * 3600 - offset;
    let until = from + 3600;
    let is_same = |at_s| offset_s(at_s, zone) == offset;
    Window {
        from: if is_same(from) { from } else { first(from, at_s, is_same) },
        until: if is_same(until - 1) { until } else { first(at_s, until, |at_s| !is_same(at_s)) },
    }
}

/// The first second of `begin..=end` from which on `holds` does, where it does not at `begin` and does at `end`.
fn first(begin: i64, end: i64, holds: impl Fn(i64) -> bool) -> i64 {
    let (mut not_yet, mut already) = (begin, end);
    while already - not_yet > 1 {
        let middle = i64::midpoint(not_yet, already);
        if holds(middle) { already = middle } else { not_yet = middle }
    }
    already
}

/// Whole days of the calendar.
fn days(at: DateTime<Utc>, per: CapPer, zone: Tz) -> Window {
    let today = at.with_timezone(&zone).date_naive();
    let window = days_of(today, per, zone);
    // where clocks were set back over midnight, the rest of yesterday belongs to today
    if window.is_over(at.timestamp()) { days_of(today + Days::new(1), per, zone) } else { window }
}

fn days_of(today: NaiveDate, per: CapPer, zone: Tz) -> Window {
    let (first, next) = match per {
        CapPer::Week => {
            let monday = today - Days::new(today.weekday().num_days_from_monday().into());
            (monday, monday + Days::new(7))
        }
        CapPer::Month => {
            let first = today.with_day(1).unwrap_or(today);
            (first, first + chrono::Months::new(1))
        }
        _ => (today, today + Days::new(1)),
    };
    Window { from: begin(first, zone), until: begin(next, zone) }
}

/// The second in which a day begins: midnight, or where the clock skips it, what comes after.
fn begin(day: NaiveDate, zone: Tz) -> i64 {
    let midnight = NaiveDateTime::from(day);
    let after = |minutes| zone.from_local_datetime(&(midnight + TimeDelta::minutes(minutes))).earliest();
    let found = (0..=GAP_MAX_MINUTES).step_by(15).find_map(after);
    found.map_or_else(|| midnight.and_utc().timestamp(), |time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn window(text: &str, per: CapPer, zone: Tz) -> (String, String) {
        let (from, until) = Window::of(at(text), per, zone).times();
        let show = |time: Option<DateTime<Utc>>| time.unwrap().format("%FT%H:%M").to_string();
        (show(from), show(until))
    }

    #[test]
    fn a_window_is_an_hour_a_day_a_week_or_a_month_of_its_zone() {
        for (time, per, zone, from, until) in [
            // the day in which clocks go forward has 23 hours, the one in which they go back 25
            ("2026-03-29T12:00:00Z", CapPer::Day, Tz::Europe__Berlin, "2026-03-28T23:00", "2026-03-29T22:00"),
            ("2026-10-25T12:00:00Z", CapPer::Day, Tz::Europe__Berlin, "2026-10-24T22:00", "2026-10-25T23:00"),
            (
                "2026-10-25T12:00:00Z",
                CapPer::Week,
                Tz::Europe__Berlin,
                "2026-10-18T22:00",
                "2026-10-25T23:00",
            ),
            (
                "2026-10-01T00:00:00Z",
                CapPer::Month,
                Tz::Europe__Berlin,
                "2026-09-30T22:00",
                "2026-10-31T23:00",
            ),
            ("2026-12-31T23:59:59Z", CapPer::Month, Tz::UTC, "2026-12-01T00:00", "2027-01-01T00:00"),
            // the hour that occurs twice is two
            (
                "2026-10-25T00:30:00Z",
                CapPer::Hour,
                Tz::Europe__Berlin,
                "2026-10-25T00:00",
                "2026-10-25T01:00",
            ),
            (
                "2026-10-25T01:30:00Z",
                CapPer::Hour,
                Tz::Europe__Berlin,
                "2026-10-25T01:00",
                "2026-10-25T02:00",
            ),
            (
                "2026-03-29T01:00:00Z",
                CapPer::Hour,
                Tz::Europe__Berlin,
                "2026-03-29T01:00",
                "2026-03-29T02:00",
            ),
            // a zone of half an hour
            ("2026-06-01T10:29:59Z", CapPer::Hour, Tz::Asia__Kolkata, "2026-06-01T09:30", "2026-06-01T10:30"),
            // clocks go back by half an hour at 02:00, in the middle of an hour of the new time
            (
                "2026-04-04T14:59:00Z",
                CapPer::Hour,
                Tz::Australia__Lord_Howe,
                "2026-04-04T14:00",
                "2026-04-04T15:00",
            ),
            (
                "2026-04-04T15:10:00Z",
                CapPer::Hour,
                Tz::Australia__Lord_Howe,
                "2026-04-04T15:00",
                "2026-04-04T15:30",
            ),
            (
                "2026-04-04T15:30:00Z",
                CapPer::Hour,
                Tz::Australia__Lord_Howe,
                "2026-04-04T15:30",
                "2026-04-04T16:30",
            ),
            // midnight does not occur: the day begins at 01:00
            (
                "2018-11-04T12:00:00Z",
                CapPer::Day,
                Tz::America__Sao_Paulo,
                "2018-11-04T03:00",
                "2018-11-05T02:00",
            ),
            // a day that does not occur at all
            ("2011-12-30T09:59:59Z", CapPer::Day, Tz::Pacific__Apia, "2011-12-29T10:00", "2011-12-30T10:00"),
            ("2011-12-30T10:00:00Z", CapPer::Day, Tz::Pacific__Apia, "2011-12-30T10:00", "2011-12-31T10:00"),
        ] {
            assert_eq!(window(time, per, zone), (from.to_owned(), until.to_owned()), "{time} {per} {zone}");
        }
        let total = Window::of(at("2026-03-29T12:00:00Z"), CapPer::Total, Tz::Europe__Berlin);
        assert_eq!((total.times(), total.contains(i64::MAX - 1)), ((None, None), true));
    }

    proptest! {
        #[test]
        fn windows_follow_each_other_without_a_gap(
            // 2000 to 2060
            at_s in 946_684_800_i64..2_840_140_800,
            zone in proptest::sample::select(chrono_tz::TZ_VARIANTS.as_slice()),
            per in proptest::sample::select(vec![CapPer::Hour, CapPer::Day, CapPer::Week, CapPer::Month]),
        ) {
            let of = |at_s| Window::of(DateTime::from_timestamp(at_s, 0).unwrap(), per, zone);
            let window = of(at_s);
            prop_assert!(window.contains(at_s), "{:?}", window);
            prop_assert_eq!(of(window.from), window);
            prop_assert_eq!(of(window.until - 1), window);
            prop_assert_eq!(of(window.until).from, window.until);
            prop_assert_eq!(of(window.from - 1).until, window.from);
        }
    }
}
