//! The rows of a report as a table: each value a way to look only at it, each figure on its way to the clicks behind it.

use askama::{Template, filters::HtmlSafe};
use rust_decimal::{Decimal, prelude::ToPrimitive as _};

use super::{
    figures::{self, Change, Figure},
    filters::{Filters, PARAM},
    query::Query,
};
use crate::{
    http::api::reports::{Report, ReportFigures, ReportRow},
    reports::question::{Dimension, Measure, UNKNOWN},
};

/// What a column is called, and how the rows are sorted by it.
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    /// The address with the rows sorted by it, or the other way round.
    pub(super) sort: String,
    /// `ascending`, `descending` or `none`, for `aria-sort`.
    pub(super) sorted: &'static str,
}

impl Column {
    /// Of a name by which rows are sorted.
    pub(super) fn new(name: impl Into<String>, key: &str, order: &str, query: &Query, is_text: bool) -> Self {
        let (down, up) = (format!("-{key}"), key.to_owned());
        let sorted = if order == down {
            "descending"
        } else if order == up {
            "ascending"
        } else {
            "none"
        };
        // the greatest first, but for texts
        let next = match (sorted, is_text) {
            ("descending", _) | ("none", true) => up,
            _ => down,
        };
        Self {
            name: name.into(),
            sort: query.without("cursor").without("page").with("sort", &next).to_string(),
            sorted,
        }
    }
}

/// A figure, and how it differs from the one before.
pub(super) struct Cell {
    figure: Figure,
    change: Option<Change>,
}

/// A value of a dimension.
struct Key {
    text: String,
    /// The same page, looking only at it.
    only: Option<String>,
}

struct Row {
    keys: Vec<Key>,
    cells: Vec<Cell>,
    /// How long the bar behind it is, in steps of five per cent.
    bar: u8,
    /// Its clicks.
    clicks: Option<String>,
}

/// The table of a report.
#[derive(Template)]
#[template(path = "table.html")]
pub(super) struct Table {
    caption: String,
    groups: Vec<Column>,
    columns: Vec<Column>,
    rows: Vec<Row>,
    totals: Vec<Cell>,
    more: Option<String>,
    is_compared: bool,
    has_clicks: bool,
}

impl HtmlSafe for Table {}

/// How a table is asked for.
pub(super) struct Asked<'a> {
    /// What it is, for who does not see it.
    pub(super) caption: String,
    /// The address of the page.
    pub(super) query: &'a Query,
    /// Its conditions.
    pub(super) filters: &'a Filters,
    /// What rows are told apart by.
    pub(super) groups: &'a [Dimension],
    /// The columns.
    pub(super) measures: &'a [Measure],
    /// How the rows are sorted, as reports take it.
    pub(super) order: &'a str,
    /// The page that shows clicks; `None`: rows do not lead there.
    pub(super) clicks: Option<&'a Query>,
}

impl Table {
    /// Of an answer.
    pub(super) fn of(report: &Report, asked: &Asked<'_>) -> Self {
        let Asked { query, groups, measures, order, .. } = asked;
        let value = |row: &ReportRow| measures.first().and_then(|first| figures::value(&row.figures, *first));
        let most = report.rows.iter().filter_map(value).max().unwrap_or_default();
        let row = |row: &ReportRow| Row {
            keys: groups.iter().map(|group| key(row, *group, asked)).collect(),
            cells: cells(measures, &row.figures, row.before.as_ref()),
            bar: value(row).map_or(0, |value| bar(value, most)),
            clicks: asked.clicks.filter(|_| !row.is_other).map(|clicks| clicks_of(row, clicks, asked)),
        };
        Self {
            caption: asked.caption.clone(),
            groups: groups
                .iter()
                .map(|group| {
                    Column::new(figures::dimension_name(*group), (*group).into(), order, query, true)
                })
                .collect(),
            columns: measures
                .iter()
                .map(|measure| {
                    let name = figures::heading(*measure, report.currency);
                    Column::new(name, (*measure).into(), order, query, false)
                })
                .collect(),
            rows: report.rows.iter().map(row).collect(),
            totals: cells(measures, &report.totals, report.totals_before.as_ref()),
            more: report.next_cursor.as_ref().map(|cursor| query.with("cursor", cursor).to_string()),
            is_compared: report.totals_before.is_some(),
            has_clicks: asked.clicks.is_some(),
        }
    }
}

fn cells(measures: &[Measure], now: &ReportFigures, before: Option<&ReportFigures>) -> Vec<Cell> {
    let cell = |measure: &Measure| {
        let (figure, change) = figures::compared(*measure, now, before);
        Cell { figure, change }
    };
    measures.iter().map(cell).collect()
}

/// What a row is of in this dimension; `None` is not known.
fn value_of(row: &ReportRow, group: Dimension) -> Option<&str> {
    row.keys.get(<&str>::from(group))?.as_str()
}

fn key(row: &ReportRow, group: Dimension, asked: &Asked<'_>) -> Key {
    let value = value_of(row, group);
    if row.is_other && value.is_none() {
        return Key { text: "All others".to_owned(), only: None };
    }
    let name = row.names.get(<&str>::from(group)).and_then(|name| name.as_str()).map(str::to_owned);
    let filters = asked.filters.and(group, value.unwrap_or(UNKNOWN));
    Key {
        text: name.unwrap_or_else(|| figures::value_name(group, value)),
        only: Some(and_filters(&asked.query.without("cursor").without(PARAM), &filters)),
    }
}

/// The clicks behind a row.
fn clicks_of(row: &ReportRow, clicks: &Query, asked: &Asked<'_>) -> String {
    let filters = asked.groups.iter().fold(asked.filters.clone(), |filters, group| {
        filters.and(*group, value_of(row, *group).unwrap_or(UNKNOWN))
    });
    and_filters(clicks, &filters)
}

/// An address with these conditions beside its own.
pub(super) fn and_filters(query: &Query, filters: &Filters) -> String {
    filters.texts().fold(query.clone(), |query, text| query.and(PARAM, &text)).to_string()
}

/// A part of the greatest, in steps of five per cent.
pub(super) fn bar(value: Decimal, most: Decimal) -> u8 {
    let part = (value.max(Decimal::ZERO) * Decimal::from(20)).checked_div(most).unwrap_or_default();
    part.round().to_u8().unwrap_or(0).min(20) * 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_part_of_the_greatest() {
        for (value, most, wanted) in
            [(100, 100, 100), (1, 2, 50), (0, 5, 0), (1, 0, 0), (-5, 10, 0), (1, 1000, 0)]
        {
            assert_eq!(bar(Decimal::from(value), Decimal::from(most)), wanted, "{value} of {most}");
        }
    }

    #[test]
    fn a_column_is_sorted_by_the_greatest_first_and_turned_round_by_another_click() {
        let query = Query::new("/ui/report").with("page", "3");
        let of = |order, is_text| {
            let column = Column::new("x", "clicks", order, &query, is_text);
            (column.sort, column.sorted)
        };
        assert_eq!(of("-cost", false), ("/ui/report?sort=-clicks".to_owned(), "none"));
        assert_eq!(of("-clicks", false), ("/ui/report?sort=clicks".to_owned(), "descending"));
        assert_eq!(of("clicks", false), ("/ui/report?sort=-clicks".to_owned(), "ascending"));
        assert_eq!(of("", true), ("/ui/report?sort=clicks".to_owned(), "none"));
    }
}
