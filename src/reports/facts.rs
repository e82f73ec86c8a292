//! The facts behind figures: which they are, of a whole report or of one of its cells.

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    figures::Key,
    plan::begin_of,
    question::{Dimension, Filter, GROUPS_MAX, Match, Question, TimeKind, UNKNOWN},
};
use crate::model::text::must_be_one_of;

/// Filters at most: those of a report, and one for each dimension of a cell.
pub const FILTERS_MAX: usize = super::question::FILTERS_MAX + GROUPS_MAX;

/// Which facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportFactKind)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum Kind {
    /// Clicks and out-clicks.
    Clicks,
    /// Conversions; with `time=change` what changed of them.
    Conversions,
    /// Clicks whose links said a cost.
    Costs,
}

/// Which facts are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsQuestion {
    /// Of this kind; `None`: everything that figures are made of.
    pub kind: Option<Kind>,
    /// All of them hold: at most [`FILTERS_MAX`].
    pub filters: Vec<Filter>,
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The moment after the last.
    pub to: DateTime<Utc>,
    /// Whose days, weeks and months count.
    pub tz: Tz,
    /// Where conversions stand.
    pub time: TimeKind,
    /// The campaigns that the filters name, by their ids.
    pub campaigns: Option<Vec<Uuid>>,
}

/// Where a page of facts ends: behind so many rows of this moment and click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The moment.
    pub at: DateTime<Utc>,
    /// The click; `None`: what was erased, which comes last of its moment.
    pub click_id: Option<Uuid>,
    /// Rows of it that were shown.
    pub skipped: i64,
}

/// The facts of one cell of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What holds for all of them.
    pub filters: Vec<Filter>,
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The moment after the last.
    pub to: DateTime<Utc>,
    /// Whether clicks can be in it: not where it is of a goal or state.
    pub has_clicks: bool,
}

/// What holds for the facts of a row: what the report looks at, and what the row is told apart by.
pub fn cell(question: &Question, key: &Key) -> Cell {
    let keys = || question.group_by.iter().copied().zip(key);
    // a value of the row has passed the report's filter of its dimension, but for clicks, which have no goal and no state
    let is_said = |filter: &&Filter| {
        matches!(filter.dimension, Dimension::Goal | Dimension::Status)
            || !question.group_by.contains(&filter.dimension)
    };
    let mut filters: Vec<Filter> = question.filters.iter().filter(is_said).cloned().collect();
    let (mut from, mut to) = (question.from, question.to);
    for (dimension, value) in keys() {
        let value = value.clone();
        if let Some((begin, end)) = value.as_deref().and_then(|value| span(question.tz, dimension, value)) {
            from = from.max(begin);
            to = to.min(end);
        }
        let values = vec![value.unwrap_or_else(|| UNKNOWN.to_owned())];
        filters.push(Filter { dimension, matching: Match::Is, values });
    }
    let is_of_conversion = |(dimension, value): (Dimension, &Option<String>)| {
        matches!(dimension, Dimension::Goal | Dimension::Status) && value.is_some()
    };
    Cell { filters, from, to: to.max(from), has_clicks: !keys().any(is_of_conversion) }
}

/// When what a value of time stands for begins and ends; `None`: it is no one span of time.
fn span(tz: Tz, dimension: Dimension, value: &str) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let days = |first: NaiveDate, end: Option<NaiveDate>| Some((begin_of(tz, first), begin_of(tz, end?)));
    match dimension {
        Dimension::Hour => {
            let begin: DateTime<Utc> = value.parse().ok()?;
            Some((begin, begin + TimeDelta::hours(1)))
        }
        Dimension::Day => {
            let day: NaiveDate = value.parse().ok()?;
            days(day, day.succ_opt())
        }
        Dimension::Week => {
            let day: NaiveDate = value.parse().ok()?;
            days(day, day.checked_add_days(Days::new(7)))
        }
        Dimension::Month => {
            let day: NaiveDate = format!("{value}-01").parse().ok()?;
            days(day.with_day(1)?, day.checked_add_months(Months::new(1)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::money::Currency,
        reports::question::{By, Measure, Order, Validity},
    };

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn is(dimension: Dimension, value: &str) -> Filter {
        Filter { dimension, matching: Match::Is, values: vec![value.to_owned()] }
    }

    fn question(group_by: Vec<Dimension>, filters: Vec<Filter>) -> Question {
        Question {
            group_by,
            measures: vec![Measure::Clicks],
            filters,
            from: at("2026-10-24T12:00:00Z"),
            to: at("2026-11-24T12:00:00Z"),
            tz: Tz::Europe__Berlin,
            time: TimeKind::Click,
            currency: Currency::USD,
            validity: Validity::Valid,
            order: Order { by: By::Measure(Measure::Clicks), is_descending: true },
        }
    }

    #[test]
    fn a_cell_is_what_the_report_looks_at_and_what_its_row_is_told_apart_by() {
        let filters = vec![is(Dimension::Device, "mobile"), is(Dimension::Country, "DE")];
        let question = question(vec![Dimension::Country, Dimension::Day], filters);
        // the day on which clocks are set back
        let found = cell(&question, &vec![None, Some("2026-10-25".to_owned())]);
        let wanted = [
            is(Dimension::Device, "mobile"),
            is(Dimension::Country, "unknown"),
            is(Dimension::Day, "2026-10-25"),
        ];
        assert_eq!(found.filters, wanted);
        assert_eq!((found.from, found.to), (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z")));
        assert!(found.has_clicks);
    }

    #[test]
    fn a_span_of_time_stays_within_the_report() {
        for (dimension, value, from, to) in [
            (Dimension::Hour, "2026-10-25T01:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
            (Dimension::Week, "2026-10-19", "2026-10-24T12:00:00Z", "2026-10-25T23:00:00Z"),
            (Dimension::Month, "2026-11", "2026-10-31T23:00:00Z", "2026-11-24T12:00:00Z"),
            (Dimension::Weekday, "1", "2026-10-24T12:00:00Z", "2026-11-24T12:00:00Z"),
        ] {
            let found = cell(&question(vec![dimension], Vec::new()), &vec![Some(value.to_owned())]);
            assert_eq!((found.from, found.to), (at(from), at(to)), "{dimension} {value}");
        }
    }

    #[test]
    fn what_has_a_goal_or_state_is_no_click() {
        let filters = vec![is(Dimension::Status, "approved")];
        let question = question(vec![Dimension::Goal, Dimension::Status], filters);
        let found = cell(&question, &vec![Some("lead".to_owned()), None]);
        assert!(!found.has_clicks);
        assert_eq!(found.filters.len(), 3, "clicks pass a filter of states: {:?}", found.filters);
        assert!(cell(&question, &vec![None, None]).has_clicks);
    }
}
