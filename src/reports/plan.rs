//! Where a report is read: the smallest sums that know what it asks, cut where its time zone or its range cuts them.
//!
//! * Sums of **one dimension**, by campaign and day: where that is all it looks at. Of campaigns alone there are such sums by hour too.
//! * Sums of **days**: where it looks at more.
//! * Sums of **hours**: where it tells apart hours, or days of a time zone that are not those of UTC. At both ends of a range also
//!   beside the sums of days: added where those lack hours, taken off where they have more; whichever is less to read.
//! * The **facts** themselves: of hours that a day of the time zone (of an offset such as +05:30) or the range cuts in two, and of
//!   everything that is in no sum.
//!
//! What was stored and is in no sum yet (the deltas) is read beside all but the facts.

use chrono::{DateTime, NaiveDate, NaiveTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use strum::IntoStaticStr;

use super::question::{Dimension, Question};
use crate::model::hour::hour_of;

/// Where figures are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Sums of one dimension, by campaign and day.
    Alone(Dimension),
    /// Sums of campaigns alone, by hour.
    CampaignHours,
    /// Sums of days.
    Days,
    /// Sums of hours.
    Hours,
    /// What is to be added to the sums.
    Deltas,
    /// The facts.
    Facts,
}

/// A part of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it is read.
    pub source: Source,
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The moment after the last.
    pub to: DateTime<Utc>,
    /// But for this time, which another piece has.
    pub but: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Whether it is taken off: another piece has it, and the answer has not.
    pub is_taken_off: bool,
}

impl Piece {
    fn of(source: Source, from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        Self { source, from, to, but: None, is_taken_off: false }
    }
}

/// All parts of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In any order: their sums are the answer.
    pub pieces: Vec<Piece>,
    /// Hours that are read from the facts, and in no other piece.
    pub cut_hours: Vec<DateTime<Utc>>,
}

/// The kind of source that an answer says it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// Sums of one dimension.
    Dimension,
    /// Sums of hours and days.
    Cube,
    /// Facts.
    Raw,
}

impl Plan {
    /// Where the most of it is read.
    pub fn kind(&self) -> Kind {
        let is = |wanted: fn(&Source) -> bool| self.pieces.iter().any(|piece| wanted(&piece.source));
        if is(|source| matches!(source, Source::Alone(_) | Source::CampaignHours)) {
            Kind::Dimension
        } else if is(|source| matches!(source, Source::Days | Source::Hours)) {
            Kind::Cube
        } else {
            Kind::Raw
        }
    }

    /// The time that is read from the facts.
    pub fn raw_ranges(&self) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>)> {
        self.pieces.iter().filter(|piece| piece.source == Source::Facts).map(|piece| (piece.from, piece.to))
    }
}

/// How a question is answered.
pub fn plan(question: &Question) -> Plan {
    let Question { from, to, .. } = *question;
    if from >= to {
        return Plan::default();
    }
    let facts = |from, to| Piece::of(Source::Facts, from, to);
    if !question.dimensions().all(Dimension::is_summed) {
        return Plan { pieces: vec![facts(from, to)], cut_hours: Vec::new() };
    }
    let mut cut_hours = cut_hours(question);
    // all of them: then there is nothing to be read but facts
    let hours = ((to - hour_of(from)).num_seconds() + 3599) / 3600;
    if usize::try_from(hours).is_ok_and(|hours| cut_hours.len() >= hours) {
        return Plan { pieces: vec![facts(from, to)], cut_hours: Vec::new() };
    }
    cut_hours.sort_unstable();
    cut_hours.dedup();
    let mut pieces: Vec<Piece> = cut_hours
        .iter()
        .map(|hour| facts(from.max(*hour), to.min(*hour + TimeDelta::hours(1))))
        .filter(|piece| piece.from < piece.to)
        .collect();
    pieces.push(Piece::of(Source::Deltas, from, to));
    pieces.extend(sums(question));
    Plan { pieces, cut_hours }
}

/// The sums of whole days, and of the hours before and behind them.
fn sums(question: &Question) -> Vec<Piece> {
    let Question { from, to, .. } = *question;
    let alone = alone(question);
    let hours = if alone == Some(Dimension::Campaign) { Source::CampaignHours } else { Source::Hours };
    let days = if can_read_days(question) { whole_days(question) } else { None };
    let Some((first, end)) = days else { return vec![Piece::of(hours, from, to)] };
    let mut pieces = vec![Piece::of(alone.map_or(Source::Days, Source::Alone), first, end)];
    if from < first || end < to {
        pieces.push(Piece { but: days, ..Piece::of(hours, from, to) });
    }
    // an hour that is cut in two comes from the facts: all of it is taken off
    for (from, to) in [(first, end_of_hour(from)), (hour_of(to), end)] {
        if from < to {
            pieces.push(Piece { is_taken_off: true, ..Piece::of(hours, from, to) });
        }
    }
    pieces
}

/// Hours (UTC) that the range cuts in two, or the hours or days that the question tells apart.
fn cut_hours(question: &Question) -> Vec<DateTime<Utc>> {
    let Question { from, to, tz, .. } = *question;
    let mut cut: Vec<DateTime<Utc>> =
        [from, to].into_iter().filter(|end| hour_of(*end) != *end).map(hour_of).collect();
    let is_cut = |at: DateTime<Utc>| offset(tz, at) % 3600 != 0;
    if question.dimensions().any(Dimension::is_within_days) {
        let mut hour = hour_of(from);
        while hour < to {
            if is_cut(hour) {
                cut.push(hour);
            }
            hour += TimeDelta::hours(1);
        }
    } else if question.dimensions().any(Dimension::is_time) {
        let mut day = from.with_timezone(&tz).date_naive();
        let last = to.with_timezone(&tz).date_naive();
        while day <= last {
            let begins = begin_of(tz, day);
            if hour_of(begins) != begins && begins > from && begins < to {
                cut.push(hour_of(begins));
            }
            let Some(next) = day.succ_opt() else { break };
            day = next;
        }
    }
    cut
}

/// Seconds east of UTC.
fn offset(tz: Tz, at: DateTime<Utc>) -> i32 {
    tz.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()
}

/// When a day begins: where its midnight was left out, with the first moment behind that.
pub fn begin_of(tz: Tz, day: NaiveDate) -> DateTime<Utc> {
    let mut local = day.and_time(NaiveTime::MIN);
    for _ in 0..96 {
        if let Some(begin) = tz.from_local_datetime(&local).earliest() {
            return begin.with_timezone(&Utc);
        }
        local += TimeDelta::minutes(15);
    }
    day.and_time(NaiveTime::MIN).and_utc() // no zone leaves out a whole day and stays without it
}

/// The end of the hour that a time is in, or the time itself where an hour begins.
fn end_of_hour(at: DateTime<Utc>) -> DateTime<Utc> {
    let begin = hour_of(at);
    if begin == at { at } else { begin + TimeDelta::hours(1) }
}

/// The days (UTC) of a range: from the midnight that is the nearest to its first moment until that nearest to its end. A
/// question that tells days apart has none before or behind its range.
fn whole_days(question: &Question) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let Question { from, to, .. } = *question;
    let midnight = |at: DateTime<Utc>| at.date_naive().and_time(NaiveTime::MIN).and_utc();
    let is_within = question.dimensions().any(Dimension::is_time);
    let (before, last) = (midnight(from), midnight(to));
    let first = if before == from || !is_within && from - before <= TimeDelta::hours(12) {
        before
    } else {
        before + TimeDelta::days(1)
    };
    let end = if !is_within && to - last > TimeDelta::hours(12) { last + TimeDelta::days(1) } else { last };
    let taken_off = (from - first).max(TimeDelta::zero()) + (end - to).max(TimeDelta::zero());
    (first < end && taken_off < to - from).then_some((first, end))
}

/// Whether days (UTC) are whole in the answer. Then their sums are the quicker ones, also of one campaign: a quarter of the rows.
fn can_read_days(question: &Question) -> bool {
    let is_utc = || {
        let mut day = question.from;
        loop {
            if offset(question.tz, day) != 0 {
                return false;
            }
            if day >= question.to {
                return true;
            }
            day = (day + TimeDelta::hours(12)).min(question.to);
        }
    };
    !question.dimensions().any(Dimension::is_within_days)
        && (!question.dimensions().any(Dimension::is_time) || is_utc())
}

/// The one dimension that it looks at beside campaigns, times and what is of conversions.
fn alone(question: &Question) -> Option<Dimension> {
    let mut found = None;
    for dimension in question.dimensions() {
        if dimension.is_time() || dimension.is_of_conversions() || dimension == Dimension::Campaign {
            continue;
        }
        if found.is_some_and(|found| found != dimension) {
            return None;
        }
        found = Some(dimension);
    }
    Some(found.unwrap_or(Dimension::Campaign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::money::Currency,
        reports::question::{By, Measure, Order, TimeKind, Validity},
    };

    fn planned(group_by: &[Dimension], from: &str, to: &str, tz: Tz) -> Vec<(Source, String, bool)> {
        let question = Question {
            group_by: group_by.to_vec(),
            measures: vec![Measure::Clicks],
            filters: Vec::new(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            tz,
            time: TimeKind::Click,
            currency: Currency::USD,
            validity: Validity::Valid,
            order: Order { by: By::Measure(Measure::Clicks), is_descending: true },
        };
        let text = |at: DateTime<Utc>| at.format("%d %H:%M").to_string();
        let span = |(from, to)| format!("{} .. {}", text(from), text(to));
        let piece = |piece: Piece| {
            let but = piece.but.map_or_else(String::new, |but| format!(" but {}", span(but)));
            (piece.source, span((piece.from, piece.to)) + &but, piece.is_taken_off)
        };
        let pieces = plan(&question).pieces.into_iter();
        pieces.filter(|piece| piece.source != Source::Deltas).map(piece).collect()
    }

    #[test]
    fn whole_days_are_read_as_days_and_what_they_have_too_much_is_taken_off() {
        use Dimension::{Campaign, Country, Day, Device};
        let berlin = ("2026-11-09T23:00:00Z", "2026-11-19T23:00:00Z", Tz::Europe__Berlin);
        let kolkata = ("2026-11-09T18:30:00Z", "2026-11-19T18:30:00Z", Tz::Asia__Kolkata);
        let of = |source, text: &str, is_taken_off| (source, text.to_owned(), is_taken_off);

        let (from, to, tz) = berlin;
        assert_eq!(
            planned(&[Campaign], from, to, tz),
            [
                of(Source::Alone(Campaign), "10 00:00 .. 20 00:00", false),
                of(Source::CampaignHours, "09 23:00 .. 19 23:00 but 10 00:00 .. 20 00:00", false),
                of(Source::CampaignHours, "19 23:00 .. 20 00:00", true),
            ]
        );
        assert_eq!(planned(&[Day], from, to, tz), [of(Source::CampaignHours, "09 23:00 .. 19 23:00", false)]);
        assert_eq!(
            planned(&[Day, Country], from, to, tz),
            [of(Source::Hours, "09 23:00 .. 19 23:00", false)]
        );

        let (from, to, tz) = kolkata;
        assert_eq!(
            planned(&[Country, Device], from, to, tz),
            [
                of(Source::Facts, "09 18:30 .. 09 19:00", false),
                of(Source::Facts, "19 18:00 .. 19 18:30", false),
                of(Source::Days, "10 00:00 .. 20 00:00", false),
                of(Source::Hours, "09 18:30 .. 19 18:30 but 10 00:00 .. 20 00:00", false),
                of(Source::Hours, "19 18:00 .. 20 00:00", true),
            ]
        );
    }

    #[test]
    fn a_part_of_a_day_is_read_as_hours_where_that_is_less() {
        let (tz, by) = (Tz::UTC, [Dimension::Country]);
        let hours = planned(&by, "2026-11-10T11:00:00Z", "2026-11-10T13:00:00Z", tz);
        assert_eq!(hours, [(Source::Hours, "10 11:00 .. 10 13:00".to_owned(), false)]);
        let day = planned(&by, "2026-11-10T01:00:00Z", "2026-11-10T23:30:00Z", tz);
        assert_eq!(
            day,
            [
                (Source::Facts, "10 23:00 .. 10 23:30".to_owned(), false),
                (Source::Alone(Dimension::Country), "10 00:00 .. 11 00:00".to_owned(), false),
                (Source::Hours, "10 00:00 .. 10 01:00".to_owned(), true),
                (Source::Hours, "10 23:00 .. 11 00:00".to_owned(), true),
            ]
        );
    }
}
