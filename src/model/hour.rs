//! Hours: what clicks, events and costs are counted by.

use chrono::{DateTime, Utc};

/// The begin of the hour (UTC) that a time is in, for every time: chrono's own way ends in the year 2262.
pub fn hour_of(time: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = time.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(3600), 0).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_begins_before_what_is_in_it_in_every_year() {
        for (time, hour) in [
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:00:00Z"),
            ("2026-11-30T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:00:00Z"),
        ] {
            assert_eq!(hour_of(time.parse().unwrap()), hour.parse::<DateTime<Utc>>().unwrap());
        }
    }
}
