//! The files of the European Central Bank, as text: a line a day and a column a currency, `N/A` where there was no rate.
//!
//! <https://www.ecb.europa.eu/stats/eurofxref/>: `eurofxref-hist.csv` has days as `2026-10-30`, and `eurofxref.csv`, the
//! newest alone, as `30 October 2026`, with spaces around everything. How they are packed is the reader's business.

use std::{collections::HashSet, fmt};

use chrono::NaiveDate;

use super::rates::{Rate, RateSource, parse_rate};
use crate::model::money::Currency;

/// What is built in: the last years before this release, see `config/fx/README.md`.
const BUILT_IN: &str = include_str!("../../config/fx/eurofxref.csv");

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its number, from 1 on.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// The rates of a file, in its order, or every line of it that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Rate>, Vec<Fault>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    let (line, head) = lines.next().unwrap_or((1, ""));
    let currencies = parse_head(head).map_err(|reason| vec![Fault { line, reason }])?;
    let (mut rates, mut faults, mut days) = (Vec::new(), Vec::new(), HashSet::new());
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
        match parse_line(text, &currencies) {
            Ok((day, of_day)) if days.insert(day) => rates.extend(of_day),
            Ok(_) => faults.push(Fault { line, reason: "the day is there twice".to_owned() }),
            Err(reason) => faults.push(Fault { line, reason }),
        }
    }
    if faults.is_empty() { Ok(rates) } else { Err(faults) }
}

/// The rates that are built in.
pub fn built_in() -> Vec<Rate> {
    parse(BUILT_IN).unwrap_or_default() // a test reads it
}

/// The currencies of the columns behind the day.
fn parse_head(head: &str) -> Result<Vec<Currency>, String> {
    const WANTED: &str =
        "is not the first of a file of the European Central Bank, which is `Date,USD,JPY,..`";
    let mut cells = cells(head);
    if cells.next().is_none_or(|name| !name.eq_ignore_ascii_case("date")) {
        return Err(WANTED.to_owned());
    }
    let currencies: Vec<Currency> =
        cells.map(|name| name.parse().map_err(|_| WANTED.to_owned())).collect::<Result<_, _>>()?;
    let different: HashSet<_> = currencies.iter().collect();
    if currencies.is_empty() || different.len() < currencies.len() || different.contains(&Currency::EUR) {
        return Err(WANTED.to_owned());
    }
    Ok(currencies)
}

fn parse_line(text: &str, currencies: &[Currency]) -> Result<(NaiveDate, Vec<Rate>), String> {
    let mut values = cells(text);
    let day = values.next().unwrap_or_default();
    let day = parse_day(day).ok_or_else(|| format!("`{}` is no day", cut(day)))?;
    let values: Vec<&str> = values.collect();
    if values.len() != currencies.len() {
        return Err(format!("has {} rates, not {}", values.len(), currencies.len()));
    }
    let mut rates = Vec::with_capacity(values.len());
    for (currency, value) in currencies.iter().zip(values) {
        if matches!(value, "N/A" | "") {
            continue;
        }
        let rate = parse_rate(value).map_err(|wanted| format!("{currency}: `{}` {wanted}", cut(value)))?;
        rates.push(Rate { currency: *currency, day, rate, source: RateSource::Ecb });
    }
    Ok((day, rates))
}

/// What stands between commas. Lines of the bank end with one.
fn cells(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim_end();
    line.strip_suffix(',').unwrap_or(line).split(',').map(str::trim)
}

fn parse_day(text: &str) -> Option<NaiveDate> {
    let day =
        NaiveDate::parse_from_str(text, "%Y-%m-%d").or_else(|_| NaiveDate::parse_from_str(text, "%d %B %Y"));
    let euro = NaiveDate::from_ymd_opt(1999, 1, 1)?;
    day.ok().filter(|day| (euro..).contains(day) && day.signed_duration_since(euro).num_days() < 365_000)
}

/// A value as it is named in a fault.
fn cut(text: &str) -> String {
    text.chars().take(32).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    fn shown(text: &str) -> Vec<String> {
        let rates = parse(text).unwrap();
        rates.iter().map(|Rate { currency, day, rate, .. }| format!("{currency} {day} {rate}")).collect()
    }

    #[test]
    fn both_files_of_the_bank_are_read_and_holes_are_none() {
        let history = "Date,USD,CYP,RUB,\n2026-10-30,1.1172,N/A,N/A,\r\n\n1999-01-04,1.1789,0.58231,,\n";
        assert_eq!(
            shown(history),
            ["USD 2026-10-30 1.1172", "USD 1999-01-04 1.1789", "CYP 1999-01-04 0.58231"]
        );
        let newest = "\u{feff}Date, USD, JPY, ISK, \r\n30 October 2026, 1.1172, 175.68, 136.00, \r\n";
        assert_eq!(shown(newest), ["USD 2026-10-30 1.1172", "JPY 2026-10-30 175.68", "ISK 2026-10-30 136"]);
        assert_eq!(shown("Date,USD\n"), [""; 0]);
    }

    #[test]
    fn every_line_that_cannot_be_read_is_named() {
        let file = "Date,USD,JPY\n2026-10-30,1.1,0\n2026-10-29,1.1,160\n29 October 2026,1.1,160\n2026-13-01,1,1\n\
                    2026-10-27,1.1\n2026-10-26,\"1,1\",160\n1998-12-31,1,1\n2026-10-22,-1,160\n";
        assert_eq!(
            faults(file),
            [
                "line 2: JPY: `0` must be a decimal number from 0.01 to 100000000 units for one euro, with at most 12 decimals",
                "line 4: the day is there twice",
                "line 5: `2026-13-01` is no day",
                "line 6: has 1 rates, not 2",
                "line 7: has 3 rates, not 2",
                "line 8: `1998-12-31` is no day",
                "line 9: USD: `-1` must be a decimal number from 0.01 to 100000000 units for one euro, with at most 12 decimals",
            ]
        );
        for bad in ["", "2026-10-30,1.1", "Date", "Date,", "Date,USD,USD", "Date,EUR", "Date,US$", "<html>"] {
            let [fault] = parse(bad).unwrap_err().try_into().unwrap();
            assert!(fault.line == 1 && fault.reason.contains("Date,USD"), "{bad}: {fault}");
        }
    }

    #[test]
    fn what_is_built_in_is_three_years_of_the_bank() {
        let rates = built_in();
        let days: HashSet<_> = rates.iter().map(|rate| rate.day).collect();
        let (first, last) = (days.iter().min().unwrap(), days.iter().max().unwrap());
        assert!(
            (*last - *first).num_days() >= 3 * 365 && days.len() > 750,
            "{first} to {last}: {}",
            days.len()
        );
        assert!(rates.len() > 28 * days.len(), "{} rates of {} days", rates.len(), days.len());
        assert!(BUILT_IN.len() < 250_000);
        let mut days: Vec<_> = days.into_iter().collect();
        days.sort_unstable();
        assert!(
            days.windows(2).all(|pair| (pair[1] - pair[0]).num_days() <= 5),
            "no gap is longer than Easter"
        );
    }
}
