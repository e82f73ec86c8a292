//! A measure by weekday and hour of the day, drawn here as SVG: a sentence for who cannot see it, and its numbers as a table behind a
//! toggle. The figures are the report's; only how strong the colour of a field is stands here.

use askama::{Template, filters::HtmlSafe};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::figures::{self, Figure};
use crate::{
    http::api::reports::Report,
    reports::question::{Dimension, Measure},
};

/// Hours of a day.
const HOURS: usize = 24;

/// Days of a week.
const DAYS: usize = 7;

/// The size of a field, and the room for the names of days and hours.
const FIELD: (usize, usize) = (36, 28);
const ROOM: (usize, usize) = (48, 22);

/// A field of the picture.
struct Field {
    x: usize,
    y: usize,
    /// `h0` to `h9`, or `below` for less than nothing.
    class: String,
    /// A sign in a field that is below zero, so that its colour is not the only one.
    is_below: bool,
    title: String,
}

/// A day: its name, short and whole, where it stands, and its figures.
struct Day {
    name: &'static str,
    short: &'static str,
    y: usize,
    figures: Vec<Figure>,
}

/// The map.
#[derive(Template)]
#[template(path = "heat.html")]
pub(super) struct Heat {
    heading: String,
    sentence: String,
    fields: Vec<Field>,
    days: Vec<Day>,
    hours: Vec<(String, Option<usize>)>,
}

impl HtmlSafe for Heat {}

/// The names of the days, Monday first, as reports number them from 1.
const NAMES: [(&str, &str); DAYS] = [
    ("Monday", "Mon"),
    ("Tuesday", "Tue"),
    ("Wednesday", "Wed"),
    ("Thursday", "Thu"),
    ("Friday", "Fri"),
    ("Saturday", "Sat"),
    ("Sunday", "Sun"),
];

/// The question that it answers, out of the one that the page asks.
pub(super) fn question(asked: &Value, measure: Measure) -> Value {
    let mut question = asked.clone();
    question["group_by"] = json!([<&str>::from(Dimension::Weekday), <&str>::from(Dimension::HourOfDay)]);
    question["measures"] = json!([<&str>::from(measure)]);
    question["order"] = json!(<&str>::from(Dimension::Weekday));
    question["limit"] = json!(DAYS * HOURS);
    if let Some(question) = question.as_object_mut() {
        question.remove("cursor");
        question.remove("compare");
    }
    question
}

impl Heat {
    /// Of the answer to [`question`].
    pub(super) fn of(report: &Report, measure: Measure) -> Self {
        let place = |row: &crate::http::api::reports::ReportRow| {
            let number =
                |group: Dimension| row.keys.get(<&str>::from(group))?.as_str()?.parse::<usize>().ok();
            let day = number(Dimension::Weekday)?.checked_sub(1).filter(|day| *day < DAYS)?;
            let hour = number(Dimension::HourOfDay).filter(|hour| *hour < HOURS)?;
            Some((day * HOURS + hour, figures::value(&row.figures, measure)?))
        };
        let mut values = vec![None; DAYS * HOURS];
        for (at, value) in report.rows.iter().filter_map(place) {
            values[at] = Some(value);
        }
        Self::drawn(&values, measure, figures::heading(measure, report.currency))
    }

    fn drawn(values: &[Option<Decimal>], measure: Measure, heading: String) -> Self {
        let most = values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
        let most = most.max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
        let greatest = most.map_or(Decimal::ZERO, |(_, value)| value);
        let name = figures::name(measure);
        let sentence = match most {
            Some((at, value)) => format!(
                "{name} by weekday and hour; the most, {}, on {} at {}.",
                figures::shown(measure, Some(value)).text,
                NAMES[at / HOURS].0,
                hour(at % HOURS)
            ),
            None => format!("{name} by weekday and hour: nothing to show."),
        };
        let shown = |value: Option<Decimal>| figures::shown(measure, value);
        let field = |(at, value): (usize, &Option<Decimal>)| {
            let (day, of_day) = (at / HOURS, at % HOURS);
            let value = *value;
            let is_below = value.is_some_and(|value| value < Decimal::ZERO);
            Field {
                x: ROOM.0 + of_day * FIELD.0,
                y: ROOM.1 + day * FIELD.1,
                class: if is_below { "below".to_owned() } else { format!("h{}", level(value, greatest)) },
                is_below,
                title: format!("{} {}: {}", NAMES[day].0, hour(of_day), shown(value).text),
            }
        };
        Self {
            sentence,
            fields: values.iter().enumerate().map(field).collect(),
            days: NAMES
                .iter()
                .zip(values.chunks(HOURS))
                .enumerate()
                .map(|(day, ((name, short), values))| Day {
                    name,
                    short,
                    y: ROOM.1 + day * FIELD.1 + FIELD.1 * 2 / 3,
                    figures: values.iter().map(|value| shown(*value)).collect(),
                })
                .collect(),
            hours: (0..HOURS)
                .map(|of_day| (hour(of_day), of_day.is_multiple_of(3).then_some(ROOM.0 + of_day * FIELD.0)))
                .collect(),
            heading,
        }
    }
}

fn hour(hour: usize) -> String {
    format!("{hour:02}:00")
}

/// How strong the colour of a field is, in ten steps: 0 is nothing, and what is more than nothing is at least 1.
fn level(value: Option<Decimal>, greatest: Decimal) -> u8 {
    use rust_decimal::prelude::ToPrimitive as _;

    let value = value.unwrap_or_default().max(Decimal::ZERO);
    let part = (value * Decimal::from(9)).checked_div(greatest).unwrap_or_default();
    part.ceil().to_u8().unwrap_or(0).min(9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::money::Currency;

    fn drawn(measure: Measure, values: &[(usize, i64)]) -> Heat {
        let mut all = vec![None; DAYS * HOURS];
        for (at, value) in values {
            all[*at] = Some(Decimal::from(*value));
        }
        Heat::drawn(&all, measure, figures::heading(measure, Currency::USD))
    }

    #[test]
    fn the_most_is_the_strongest_and_said_in_words() {
        let heat = drawn(Measure::Clicks, &[(0, 1), (HOURS + 14, 90), (HOURS + 15, 45)]);
        assert_eq!(heat.sentence, "Clicks by weekday and hour; the most, 90, on Tuesday at 14:00.");
        let classes = [0, 1, HOURS + 14, HOURS + 15].map(|at| heat.fields[at].class.as_str());
        assert_eq!(classes, ["h1", "h0", "h9", "h5"]);
        let page = heat.render().unwrap();
        assert!(page.contains("role=\"img\"") && page.contains("<title>Tuesday 14:00: 90</title>"));
        assert_eq!(page.matches("<rect").count(), 168);
        assert_eq!(page.matches("<td").count(), 168, "the same as a table");
    }

    #[test]
    fn a_loss_has_a_sign_and_nothing_at_all_is_said_to_be_nothing() {
        let heat = drawn(Measure::Profit, &[(3, -5), (4, 10)]);
        assert_eq!((heat.fields[3].class.as_str(), heat.fields[3].is_below), ("below", true));
        assert_eq!(heat.heading, "Profit, USD");
        assert_eq!(drawn(Measure::Clicks, &[]).sentence, "Clicks by weekday and hour: nothing to show.");
        assert!(drawn(Measure::Profit, &[(3, -5)]).sentence.contains("on Monday at 03:00"));
    }

    #[test]
    fn it_asks_what_the_page_asks_by_weekday_and_hour() {
        let asked = json!({ "from": "x", "filters": [1], "group_by": ["country"], "cursor": "c", "compare": "previous", "limit": 5 });
        let wanted = json!({ "from": "x", "filters": [1], "group_by": ["weekday", "hour_of_day"], "measures": ["clicks"],
            "order": "weekday", "limit": 168 });
        assert_eq!(question(&asked, Measure::Clicks), wanted);
    }
}
