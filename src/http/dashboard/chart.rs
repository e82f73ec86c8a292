//! A line over time, drawn here as SVG: a sentence for who cannot see it, and its numbers as a table behind a toggle. The picture is
//! stretched to the width there is, so it holds no text.

use std::fmt::Write as _;

use askama::{Template, filters::HtmlSafe};
use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use rust_decimal::{Decimal, prelude::ToPrimitive as _};

use super::figures::{self, Figure};
use crate::{
    model::money::Currency,
    reports::question::{Dimension, Measure},
};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 240.0;

/// Room above the highest and below the lowest point.
const MARGIN: f64 = 6.0;

/// Labels below it at most.
const LABELS_MAX: usize = 6;

/// A point in time, now and before.
struct Point {
    label: String,
    figure: Figure,
    before: Option<Figure>,
    /// Where it begins, and how wide it is.
    x: String,
}

/// A graph of one measure.
#[derive(Template)]
#[template(path = "chart.html")]
pub(super) struct Chart {
    name: &'static str,
    heading: String,
    sentence: String,
    top: String,
    bottom: String,
    line: String,
    running: String,
    area: String,
    before: String,
    zero: Option<String>,
    width: String,
    points: Vec<Point>,
    labels: Vec<String>,
    has_before: bool,
}

impl HtmlSafe for Chart {}

/// What is drawn.
pub(super) struct Series<'a> {
    /// Of which measure.
    pub(super) measure: Measure,
    /// In which currency amounts are.
    pub(super) currency: Currency,
    /// The names of the points: hours, days or months, as reports have them.
    pub(super) steps: &'a [String],
    /// What these are.
    pub(super) step: Dimension,
    /// Whose hours.
    pub(super) tz: Tz,
    /// The values.
    pub(super) now: Vec<Option<Decimal>>,
    /// Those of as many steps before; empty: nothing is compared.
    pub(super) before: Vec<Option<Decimal>>,
    /// Whether the last step is not over.
    pub(super) is_running: bool,
}

impl Chart {
    /// Draws it.
    pub(super) fn of(series: &Series<'_>) -> Self {
        let number = |value: &Option<Decimal>| value.and_then(|value| value.to_f64()).unwrap_or(0.0);
        let (now, before): (Vec<f64>, Vec<f64>) =
            (series.now.iter().map(number).collect(), series.before.iter().map(number).collect());
        let all = || now.iter().chain(&before).copied();
        let low = all().fold(0.0, f64::min);
        let high = all().fold(0.0, f64::max);
        let span = if high - low > 0.0 { high - low } else { 1.0 };
        let count = now.len().max(1) as f64;
        let x = |i: usize| if now.len() > 1 { i as f64 * WIDTH / (count - 1.0) } else { WIDTH / 2.0 };
        let y = |value: f64| MARGIN + (HEIGHT - 2.0 * MARGIN) * (high - value) / span;
        let path = |values: &[f64], from: usize| {
            let mut path = String::new();
            for (i, value) in values.iter().enumerate().skip(from) {
                let verb = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{verb}{:.1} {:.1}", x(i), y(*value)); // writing to a String does not fail
            }
            path
        };
        let is_split = series.is_running && now.len() > 1;
        let solid = if is_split { &now[..now.len() - 1] } else { &now[..] };
        let line = path(solid, 0);
        let running = if is_split { path(&now, now.len() - 2) } else { String::new() };
        let last = x(now.len().saturating_sub(1));
        let area = if now.len() > 1 {
            format!("{}L{last:.1} {:.1}L0 {:.1}Z", path(&now, 0), y(0.0), y(0.0))
        } else {
            String::new()
        };
        let width = WIDTH / count;
        let names: Vec<String> =
            series.steps.iter().map(|step| label(series.step, step, series.tz)).collect();
        let figure = |value: &Option<Decimal>| figures::shown(series.measure, *value);
        let points: Vec<Point> = names
            .iter()
            .zip(&series.now)
            .enumerate()
            .map(|(i, (label, value))| Point {
                label: label.clone(),
                figure: figure(value),
                before: series.before.get(i).map(figure),
                x: format!("{:.1}", i as f64 * width),
            })
            .collect();
        let extreme = |value: f64| figures::shown(series.measure, Decimal::try_from(value).ok()).text;
        Self {
            name: figures::name(series.measure),
            heading: figures::heading(series.measure, series.currency),
            sentence: sentence(&names, series),
            top: extreme(high),
            bottom: extreme(low),
            line,
            running,
            area,
            before: path(&before, 0),
            zero: (low < 0.0).then(|| format!("{:.1}", y(0.0))),
            width: format!("{width:.1}"),
            points,
            labels: spread(&names),
            has_before: !before.is_empty(),
        }
    }
}

/// The graph in words.
fn sentence(names: &[String], series: &Series<'_>) -> String {
    let highest = series.now.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?)));
    let highest = highest.max_by(|a, b| a.1.cmp(&b.1));
    let name = figures::name(series.measure);
    match (highest, names.first(), names.last()) {
        (Some((i, value)), Some(first), Some(last)) => {
            let most = figures::shown(series.measure, Some(value)).text;
            format!("{name} from {first} to {last}; the most, {most}, at {}.", names[i])
        }
        _ => format!("{name}: nothing to show."),
    }
}

/// A step as people read it.
fn label(step: Dimension, name: &str, tz: Tz) -> String {
    match step {
        Dimension::Hour => name
            .parse::<DateTime<Utc>>()
            .map_or_else(|_| name.to_owned(), |at| at.with_timezone(&tz).format("%-d %b %H:%M").to_string()),
        Dimension::Day => {
            name.parse::<NaiveDate>().map_or_else(|_| name.to_owned(), |day| day.format("%-d %b").to_string())
        }
        _ => name.to_owned(),
    }
}

/// Some of the names, the first and the last among them.
fn spread(names: &[String]) -> Vec<String> {
    if names.len() <= LABELS_MAX {
        return names.to_vec();
    }
    let last = names.len() - 1;
    (0..LABELS_MAX).map(|i| names[i * last / (LABELS_MAX - 1)].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(now: &[i64], before: &[i64], is_running: bool) -> Chart {
        let steps: Vec<String> = (1..=now.len()).map(|day| format!("2026-11-{day:02}")).collect();
        let values = |values: &[i64]| values.iter().map(|value| Some(Decimal::from(*value))).collect();
        Chart::of(&Series {
            measure: Measure::Profit,
            currency: Currency::USD,
            steps: &steps,
            step: Dimension::Day,
            tz: Tz::UTC,
            now: values(now),
            before: values(before),
            is_running,
        })
    }

    #[test]
    fn a_line_goes_from_side_to_side_and_from_top_to_bottom() {
        let chart = chart(&[0, 10, -10], &[], false);
        assert_eq!(chart.line, "M0.0 120.0L500.0 6.0L1000.0 234.0");
        assert_eq!((chart.running.as_str(), chart.zero.as_deref()), ("", Some("120.0")));
        assert_eq!((chart.top.as_str(), chart.bottom.as_str()), ("+10.00", "\u{2212}10.00"));
        assert_eq!(chart.sentence, "Profit from 1 Nov to 3 Nov; the most, +10.00, at 2 Nov.");
    }

    #[test]
    fn what_is_running_is_drawn_apart_and_one_point_or_none_does_no_harm() {
        let running = chart(&[1, 2, 3], &[3, 2, 1], true);
        assert!(running.line.ends_with("L500.0 82.0") && running.running.starts_with("M500.0 82.0L1000.0"));
        assert!(running.has_before && running.points[0].before.is_some());
        assert_eq!(chart(&[5], &[], true).line, "M500.0 6.0");
        assert_eq!(chart(&[], &[], true).points.len(), 0);
        assert_eq!(spread(&vec![String::new(); 30]).len(), LABELS_MAX);
        for page in [chart(&[0, 0], &[0, 0], true), chart(&[5], &[], false)] {
            assert!(page.render().unwrap().contains("role=\"img\""));
        }
    }
}
