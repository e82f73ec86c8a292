//! Where a report is read: the smallest sums that know what it asks, cut where its time zone or its range cuts them.
//!
//! * Sums of **one dimension**, by campaign and day: where that is all it looks at. Of campaigns alone there are such sums by hour too.
//! * Sums of days by all **parts** of campaigns and one thing else: where it looks at no more.
//! * Sums of **days**: where it looks at more. Of all campaigns together there are sums of one dimension and of everything that is
//!   no part of a campaign (**traffic**): where it looks at no campaign.
//! * Sums of **hours**: where it tells apart hours. At both ends of a range also beside the sums of days: added where those lack
//!   hours, taken off where they have more; whichever is less to read. Where it tells apart days of a time zone that are not those of
//!   UTC likewise: hours that are of another day there are added to that day, and taken off the day whose sums have them.
//! * The **facts** themselves: of hours that a day of the time zone (of an offset such as +05:30) or the range cuts in two, and of
//!   everything that is in no sum.
//!
//! * The **values that were clicked most** of one dimension that is free text, by campaign and day: where counting the facts would
//!   take too long. The rest of the values stands in one row. Conversions are counted from their facts: they are few.
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
    /// Sums of one dimension, by day.
    Overall(Dimension),
    /// Sums of campaigns alone, by hour.
    CampaignHours,
    /// Sums of everything, by hour.
    OverallHours,
    /// Sums of days by all parts of campaigns and this.
    Parts(Dimension),
    /// Sums of days.
    Days,
    /// Sums of days by everything that is no part of a campaign.
    Traffic,
    /// Sums of the hours of days that have no sums of their own yet; a plan has days in their place.
    OpenDays,
    /// Sums of hours.
    Hours,
    /// Sums of the plan's edge hours; where it is taken off, as sums of their days (UTC).
    EdgeHours,
    /// What is to be added to the sums.
    Deltas,
    /// The facts.
    Facts,
    /// The values of a dimension that were clicked most, of days.
    Values(Dimension),
    /// The facts of clicks alone.
    ClickFacts,
    /// The facts of conversions alone.
    ConversionFacts,
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
    /// Whether it is taken off: another piece has it, and the answer has not.
    pub is_taken_off: bool,
}

impl Piece {
    /// A whole piece.
    pub fn of(source: Source, from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        Self { source, from, to, is_taken_off: false }
    }

    /// The piece as it can be read where days are closed until a midnight: only those have sums of days, and of all campaigns
    /// together.
    pub fn closed_until(&self, until: DateTime<Utc>) -> impl Iterator<Item = Self> {
        let open = match self.source {
            Source::Parts(_) | Source::Days | Source::Traffic => Source::OpenDays,
            Source::Overall(dimension) => Source::Alone(dimension),
            Source::OverallHours => Source::CampaignHours,
            source => source,
        };
        let closed = Self { to: self.to.min(until), ..self.clone() };
        let open = Self { source: open, from: self.from.max(until), ..self.clone() };
        let parts = if open.source == self.source {
            [self.clone(), Self { to: self.from, ..open }]
        } else {
            [closed, open]
        };
        parts.into_iter().filter(|part| part.from < part.to)
    }
}

/// All parts of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In any order: their sums are the answer.
    pub pieces: Vec<Piece>,
    /// Hours that are read from the facts, and in no other piece.
    pub cut_hours: Vec<DateTime<Utc>>,
    /// Hours, all or a part of which are of another day in the time zone than in UTC, where days are told apart and read from sums
    /// of days.
    pub edge_hours: Vec<DateTime<Utc>>,
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
    /// The values that were clicked most, and of conversions the facts.
    Values,
}

impl Plan {
    /// Where the most of it is read.
    pub fn kind(&self) -> Kind {
        let is = |wanted: fn(&Source) -> bool| self.pieces.iter().any(|piece| wanted(&piece.source));
        if is(|source| {
            matches!(
                source,
                Source::Alone(_) | Source::Overall(_) | Source::CampaignHours | Source::OverallHours
            )
        }) {
            Kind::Dimension
        } else if is(|source| {
            matches!(source, Source::Parts(_) | Source::Days | Source::Traffic | Source::Hours)
        }) {
            Kind::Cube
        } else if is(|source| matches!(source, Source::Values(_))) {
            Kind::Values
        } else {
            Kind::Raw
        }
    }

    /// The same answer from sums of campaigns, where some of these are to be told from others.
    #[must_use]
    pub fn by_campaign(mut self) -> Self {
        for piece in &mut self.pieces {
            match piece.source {
                Source::Overall(dimension) => piece.source = Source::Alone(dimension),
                Source::OverallHours => piece.source = Source::CampaignHours,
                Source::Traffic => piece.source = Source::Days,
                _ => {}
            }
        }
        self
    }

    /// Hours that are left out of a piece, because they are read from the facts; of days, and of what is taken off them, none.
    pub fn left_out(&self, piece: &Piece) -> Option<Vec<DateTime<Utc>>> {
        let is_cut = matches!(
            piece.source,
            Source::Hours | Source::EdgeHours | Source::CampaignHours | Source::OverallHours | Source::Deltas
        ) && !piece.is_taken_off
            && !self.cut_hours.is_empty();
        is_cut.then(|| self.cut_hours.clone())
    }

    /// The edge hours of a piece.
    pub fn edges_of(&self, piece: &Piece) -> Vec<DateTime<Utc>> {
        let is_in = |hour: &DateTime<Utc>| (piece.from..piece.to).contains(hour);
        self.edge_hours.iter().copied().filter(is_in).collect()
    }

    /// The time of which clicks are read from the facts.
    pub fn raw_ranges(&self) -> impl Iterator<Item = (DateTime<Utc>, DateTime<Utc>)> {
        let is_of_clicks = |piece: &&Piece| matches!(piece.source, Source::Facts | Source::ClickFacts);
        self.pieces.iter().filter(is_of_clicks).map(|piece| (piece.from, piece.to))
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
        return Plan { pieces: vec![facts(from, to)], ..Plan::default() };
    }
    let mut cut_hours = cut_hours(question);
    // all of them: then there is nothing to be read but facts
    let hours = ((to - hour_of(from)).num_seconds() + 3599) / 3600;
    if usize::try_from(hours).is_ok_and(|hours| cut_hours.len() >= hours) {
        return Plan { pieces: vec![facts(from, to)], ..Plan::default() };
    }
    cut_hours.sort_unstable();
    cut_hours.dedup();
    let mut pieces: Vec<Piece> = cut_hours
        .iter()
        .map(|hour| facts(from.max(*hour), to.min(*hour + TimeDelta::hours(1))))
        .filter(|piece| piece.from < piece.to)
        .collect();
    pieces.push(Piece::of(Source::Deltas, from, to));
    let (sums, edge_hours) = sums(question);
    pieces.extend(sums);
    Plan { pieces, cut_hours, edge_hours }
}

/// The dimension whose most clicked values can answer the question: the only free text that it groups by, and it looks at nothing
/// else but campaigns, days (UTC) and what is of conversions.
pub fn valued(question: &Question) -> Option<Dimension> {
    let mut found = question.group_by.iter().copied().filter(|dimension| dimension.has_top_values());
    let (Some(dimension), None) = (found.next(), found.next()) else { return None };
    let is_simple =
        |other: Dimension| other == Dimension::Campaign || other.is_time() || other.is_of_conversions();
    let mut others = question.group_by.iter().copied().filter(|other| *other != dimension);
    let can = others.all(is_simple)
        && question.filters.iter().all(|filter| is_simple(filter.dimension))
        && are_days_whole(question);
    can.then_some(dimension)
}

/// How it is answered, if values of the dimension are kept of these days (UTC, in order).
pub fn plan_with_values(question: &Question, dimension: Dimension, days: &[NaiveDate]) -> Plan {
    let piece = Piece::of;
    let (from, to) = (question.from, question.to);
    let mut pieces = Vec::new();
    let mut done = from;
    for day in days {
        let begin = day.and_time(NaiveTime::MIN).and_utc();
        let end = begin + TimeDelta::days(1);
        if begin < done || end > to {
            continue;
        }
        if done < begin {
            pieces.push(piece(Source::ClickFacts, done, begin));
        }
        match pieces.last_mut() {
            Some(last) if last.source == Source::Values(dimension) => last.to = end,
            _ => pieces.push(piece(Source::Values(dimension), begin, end)),
        }
        done = end;
    }
    if done < to {
        pieces.push(piece(Source::ClickFacts, done, to));
    }
    if question.needs_conversions() {
        pieces.push(piece(Source::ConversionFacts, from, to));
    }
    Plan { pieces, ..Plan::default() }
}

/// Days of which edge hours are read at once: each of these hours is looked up on each of these days.
const EDGE_DAYS: i64 = 31;

/// The sums of whole days, and of the hours before and behind them; and the edge hours that are read beside them.
fn sums(question: &Question) -> (Vec<Piece>, Vec<DateTime<Utc>>) {
    let Question { from, to, .. } = *question;
    let alone = alone(question);
    let looks_at = |is: fn(Dimension) -> bool| question.dimensions().any(is);
    let is_of_campaigns = looks_at(|it| it == Dimension::Campaign);
    let hours = match alone {
        Some(Dimension::Campaign) if is_of_campaigns => Source::CampaignHours,
        Some(Dimension::Campaign) => Source::OverallHours,
        _ => Source::Hours,
    };
    let days = if looks_at(Dimension::is_within_days) { None } else { whole_days(question) };
    let edges = days.and_then(|days| edge_hours(question, days, hours));
    let (Some((first, end)), Some(edges)) = (days, edges) else {
        return (vec![Piece::of(hours, from, to)], Vec::new());
    };
    let source = match (alone, beside_parts(question)) {
        (Some(dimension), _) if is_of_campaigns => Source::Alone(dimension),
        (Some(dimension), _) => Source::Overall(dimension),
        (None, Some(dimension)) => Source::Parts(dimension),
        (None, None) if looks_at(Dimension::is_of_campaign) => Source::Days,
        (None, None) => Source::Traffic,
    };
    let mut pieces = vec![Piece::of(source, first, end)];
    for (from, to) in [(from, first), (end, to)] {
        if from < to {
            pieces.push(Piece::of(hours, from, to));
        }
    }
    // an hour that is cut in two comes from the facts: all of it is taken off
    for (from, to) in [(first, end_of_hour(from)), (hour_of(to), end)] {
        if from < to {
            pieces.push(Piece { is_taken_off: true, ..Piece::of(hours, from, to) });
        }
    }
    let mut begin = first;
    while begin < end && !edges.is_empty() {
        let until = end.min(begin + TimeDelta::days(EDGE_DAYS));
        let added = Piece::of(Source::EdgeHours, begin, until);
        pieces.extend([Piece { is_taken_off: true, ..added.clone() }, added]);
        begin = until;
    }
    (pieces, edges)
}

/// The hours of whole days (UTC) that are of another day in the time zone, or a part of them is, where the question tells apart days.
/// `None`: it is less to read all hours, as it is where these are `hours` of campaigns alone.
fn edge_hours(
    question: &Question,
    (first, end): (DateTime<Utc>, DateTime<Utc>),
    hours: Source,
) -> Option<Vec<DateTime<Utc>>> {
    if are_days_whole(question) {
        return Some(Vec::new());
    }
    let is_elsewhere = |at: DateTime<Utc>| at.with_timezone(&question.tz).date_naive() != at.date_naive();
    let mut edges = Vec::new();
    let mut hour = first;
    while hour < end {
        let next = hour + TimeDelta::hours(1);
        if is_elsewhere(hour) || is_elsewhere(next - TimeDelta::nanoseconds(1)) {
            if hour.hour() == 12 {
                return None; // by their noon it is known which day they are
            }
            edges.push(hour);
        }
        hour = next;
    }
    let is_less = i64::try_from(edges.len()).is_ok_and(|edges| edges <= 7 * (end - first).num_days());
    (is_less && hours == Source::Hours).then_some(edges)
}

/// The one dimension that it looks at beside parts of campaigns, times and what is of conversions. `None`: there are more, or no
/// part of a campaign.
fn beside_parts(question: &Question) -> Option<Dimension> {
    let is_part = |dimension: &Dimension| dimension.is_of_campaign() && *dimension != Dimension::Campaign;
    let is_other = |dimension: &Dimension| {
        !dimension.is_of_campaign() && !dimension.is_time() && !dimension.is_of_conversions()
    };
    question.dimensions().find(is_part)?;
    let mut others = question.dimensions().filter(is_other);
    // of parts alone: where there are the fewest rows
    let Some(first) = others.next() else { return Some(Dimension::Reason) };
    others.all(|other| other == first).then_some(first)
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
fn are_days_whole(question: &Question) -> bool {
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
        reports::question::{By, Filter, Match, Measure, Order, TimeKind, Validity},
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
        let piece = |piece: Piece| (piece.source, span((piece.from, piece.to)), piece.is_taken_off);
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
                of(Source::CampaignHours, "09 23:00 .. 10 00:00", false),
                of(Source::CampaignHours, "19 23:00 .. 20 00:00", true),
            ]
        );
        let days = |until: &str| -> Vec<_> {
            let piece = Piece::of(Source::Traffic, from.parse().unwrap(), to.parse().unwrap());
            let parts = piece.closed_until(until.parse().unwrap());
            parts.map(|part| (part.source, (part.to - part.from).num_hours())).collect()
        };
        assert_eq!(days("2026-11-01T00:00:00Z"), [(Source::OpenDays, 240)]);
        assert_eq!(days("2026-11-10T23:00:00Z"), [(Source::Traffic, 24), (Source::OpenDays, 216)]);
        assert_eq!(days("2026-12-01T00:00:00Z"), [(Source::Traffic, 240)]);
        assert_eq!(planned(&[Day], from, to, tz), [of(Source::OverallHours, "09 23:00 .. 19 23:00", false)]);
        assert_eq!(
            planned(&[Day, Country], from, to, tz),
            [
                of(Source::Overall(Country), "10 00:00 .. 19 00:00", false),
                of(Source::Hours, "09 23:00 .. 10 00:00", false),
                of(Source::Hours, "19 00:00 .. 19 23:00", false),
                of(Source::EdgeHours, "10 00:00 .. 19 00:00", true),
                of(Source::EdgeHours, "10 00:00 .. 19 00:00", false),
            ]
        );

        let (from, to, tz) = kolkata;
        assert_eq!(
            planned(&[Country, Device], from, to, tz),
            [
                of(Source::Facts, "09 18:30 .. 09 19:00", false),
                of(Source::Facts, "19 18:00 .. 19 18:30", false),
                of(Source::Traffic, "10 00:00 .. 20 00:00", false),
                of(Source::Hours, "09 18:30 .. 10 00:00", false),
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
                (Source::Overall(Dimension::Country), "10 00:00 .. 11 00:00".to_owned(), false),
                (Source::Hours, "10 00:00 .. 10 01:00".to_owned(), true),
                (Source::Hours, "10 23:00 .. 11 00:00".to_owned(), true),
            ]
        );
    }

    fn question(group_by: &[Dimension], from: &str, to: &str) -> Question {
        Question {
            group_by: group_by.to_vec(),
            measures: vec![Measure::Clicks],
            filters: Vec::new(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            tz: Tz::UTC,
            time: TimeKind::Click,
            currency: Currency::USD,
            validity: Validity::Valid,
            order: Order { by: By::Measure(Measure::Clicks), is_descending: true },
        }
    }

    #[test]
    fn values_answer_for_days_that_have_them_and_clicks_for_the_rest() {
        let mut asked = question(&[Dimension::Sub1], "2026-11-01T12:00:00Z", "2026-11-06T06:00:00Z");
        let days = ["2026-11-01", "2026-11-02", "2026-11-03", "2026-11-05", "2026-11-06"];
        let days = days.map(|day| day.parse().unwrap());
        let shown = |plan: &Plan| -> Vec<String> {
            let piece =
                |p: &Piece| format!("{:?} {} {}", p.source, p.from.format("%dT%H"), p.to.format("%dT%H"));
            plan.pieces.iter().map(piece).collect()
        };
        let plan = plan_with_values(&asked, Dimension::Sub1, &days);
        let wanted = [
            "ClickFacts 01T12 02T00",
            "Values(Sub1) 02T00 04T00",
            "ClickFacts 04T00 05T00",
            "Values(Sub1) 05T00 06T00",
            "ClickFacts 06T00 06T06",
        ];
        assert_eq!(shown(&plan), wanted);
        assert_eq!((plan.kind(), plan.raw_ranges().count()), (Kind::Values, 3));
        asked.measures.push(Measure::Revenue);
        let plan = plan_with_values(&asked, Dimension::Sub1, &[]);
        assert_eq!(shown(&plan), ["ClickFacts 01T12 06T06", "ConversionFacts 01T12 06T06"]);
        assert_eq!(plan.kind(), Kind::Raw);
    }

    #[test]
    fn values_answer_for_one_dimension_that_is_free_text_with_campaigns_days_and_what_is_of_conversions() {
        use Dimension as D;
        let asked =
            |group_by: &[Dimension]| question(group_by, "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z");
        for (group_by, wanted) in [
            (&[D::Keyword][..], Some(D::Keyword)),
            (&[D::Campaign, D::Day, D::Status, D::Sub5], Some(D::Sub5)),
            (&[D::Sub1, D::Sub2], None),
            (&[D::Sub1, D::Country], None),
            (&[D::Sub1, D::HourOfDay], None),
            (&[D::AffSub], None),
            (&[D::Campaign], None),
        ] {
            assert_eq!(valued(&asked(group_by)), wanted, "{group_by:?}");
        }
        let mut elsewhere = asked(&[D::Sub1, D::Day]);
        elsewhere.tz = Tz::Asia__Kolkata;
        assert_eq!(valued(&elsewhere), None);
        elsewhere.group_by = vec![D::Sub1];
        assert_eq!(valued(&elsewhere), Some(D::Sub1), "no day is told apart");
        let mut filtered = asked(&[D::Sub1]);
        for (dimension, wanted) in [(D::Campaign, Some(D::Sub1)), (D::Sub1, None), (D::Os, None)] {
            filtered.filters = vec![Filter { dimension, matching: Match::Is, values: vec!["a".to_owned()] }];
            assert_eq!(valued(&filtered), wanted, "{dimension}");
        }
    }
}
