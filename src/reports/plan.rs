//! Where a report is read: the smallest sums that know what it asks, cut where its time zone or its range cuts them.
//!
//! * Sums of **one dimension**, by campaign and day: where that is all it looks at.
//! * Sums of **days**: where it looks at more, over all campaigns.
//! * Sums of **hours**: within campaigns, and where days of the time zone are not those of UTC. At both ends of a range also
//!   beside the sums of days.
//! * The **facts** themselves: of hours that a day of the time zone (of an offset such as +05:30) or the range cuts in two, and of
//!   everything that is in no sum.
//!
//! What was stored and is in no sum yet (the deltas) is read beside all but the facts.

use chrono::{DateTime, NaiveDate, NaiveTime, Offset as _, TimeDelta, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;
use strum::IntoStaticStr;

use super::question::{Dimension, Question};
use crate::model::hour::hour_of;

/// Where figures are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Sums of one dimension, by campaign and day.
    Alone(Dimension),
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
        if is(|source| matches!(source, Source::Alone(_))) {
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
    let facts = |from, to| Piece { source: Source::Facts, from, to, but: None };
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
    pieces.push(Piece { source: Source::Deltas, from, to, but: None });
    let days = whole_days(from, to).filter(|_| can_read_days(question));
    if let Some((first, end)) = days {
        let source = alone(question).map_or(Source::Days, Source::Alone);
        pieces.push(Piece { source, from: first, to: end, but: None });
    }
    if days != Some((from, to)) {
        pieces.push(Piece { source: Source::Hours, from, to, but: days });
    }
    Plan { pieces, cut_hours }
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

/// The whole days (UTC) of a range.
fn whole_days(from: DateTime<Utc>, to: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let is_midnight = |at: DateTime<Utc>| at.num_seconds_from_midnight() == 0 && at.nanosecond() == 0;
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
    let first = if is_midnight(from) { from } else { midnight(from.date_naive().succ_opt()?) };
    let end = midnight(to.date_naive());
    (first < end).then_some((first, end))
}

/// Whether days (UTC) are whole in the answer, and whether it is quicker to read them: of one campaign the sums of hours stand
/// together.
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
    let are_days_whole = !question.dimensions().any(Dimension::is_within_days)
        && (!question.dimensions().any(Dimension::is_time) || is_utc());
    are_days_whole && question.campaigns().is_none()
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
