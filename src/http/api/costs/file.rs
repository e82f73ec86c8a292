//! Costs in a file of lines: ours, `campaign,from,to,kind,amount,currency,zone,..,note` where `..` are dimensions of a
//! filter, and Binom's, `campaign;zone;date;cost;token;value`. Each line becomes what a request would say in JSON.

use serde_json::{Map, Value, json};

use crate::model::cost::Dimension;

/// A line that says something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: usize,
    /// As a request would say it.
    pub(crate) said: Value,
}

/// Reads the lines of a file; the first names the columns, and separates them by `,`, `;` or tabs as all others do. The
/// currency of lines that name none is `currency`.
pub(crate) fn read(text: &str, currency: Option<&str>) -> Result<Vec<Line>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, header)) = lines.next() else { return Err("the file is empty".to_owned()) };
    let separator = [';', '\t', ','].into_iter().find(|c| header.contains(*c)).unwrap_or(',');
    let names: Vec<String> = cells(header, separator).iter().map(|name| name.trim().to_lowercase()).collect();
    if !names.iter().any(|name| name == "campaign") {
        return Err("the first line must name the columns, and one of them must be campaign".to_owned());
    }
    if let Some(unknown) = names.iter().find(|name| !is_column(name)) {
        return Err(format!("there is no column {}", unknown.chars().take(64).collect::<String>()));
    }
    let line = |(i, line): (usize, &str)| Line {
        number: i + 1,
        said: said(&names, &cells(line, separator), currency),
    };
    Ok(lines.map(line).collect())
}

fn is_column(name: &str) -> bool {
    const COLUMNS: [&str; 13] = [
        "campaign", "from", "to", "kind", "amount", "currency", "zone", "note", "spread", "date", "cost",
        "token", "value",
    ];
    COLUMNS.contains(&name) || name.parse::<Dimension>().is_ok()
}

/// The cells of a line; one in quotes may hold the separator, and a quote twice.
fn cells(line: &str, separator: char) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                cell.push('"');
                chars.next();
            }
            '"' if is_quoted || cell.is_empty() => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

fn said(names: &[String], cells: &[String], currency: Option<&str>) -> Value {
    let cell = |name: &str| {
        let cell = names.iter().position(|n| n == name).and_then(|i| cells.get(i))?.trim();
        Some(cell).filter(|cell| !cell.is_empty())
    };
    let mut said = Map::new();
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            said.insert(name.to_owned(), json!(value));
        }
    };
    for name in ["campaign", "kind", "amount", "currency", "note", "spread"] {
        put(name, cell(name));
    }
    put("time_zone", cell("zone"));
    let next_day = cell("date")
        .and_then(|date| date.parse::<chrono::NaiveDate>().ok()?.succ_opt())
        .map(|d| d.to_string());
    put("from", cell("from").or(cell("date")));
    put("to", cell("to").or(next_day.as_deref()));
    if cell("cost").is_some() {
        put("amount", cell("cost"));
        put("kind", Some(cell("kind").unwrap_or("total")));
    }
    let has_own = cell("amount").or(cell("cost")).and_then(crate::model::money::read_amount);
    let is_factor = cell("kind") == Some("factor");
    if cell("currency").is_none() && !is_factor && has_own.is_none_or(|reading| reading.currency.is_none()) {
        put("currency", currency);
    }
    let mut filters = Map::new();
    for name in names.iter().filter(|name| name.parse::<Dimension>().is_ok()) {
        if let Some(values) = cell(name) {
            filters.insert(name.clone(), values.split('|').map(str::trim).collect());
        }
    }
    if let Some(token) = cell("token") {
        filters.insert(token.to_lowercase(), json!([cell("value").unwrap_or_default()]));
    }
    if !filters.is_empty() {
        said.insert("filters".to_owned(), filters.into());
    }
    said.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lines_and_those_of_binom_say_the_same() {
        let ours = "campaign,from,to,kind,amount,currency,zone,sub1,note\n\
                    demo,2026-11-01,2026-11-02,total,\"12,50\",EUR,Europe/Berlin,a|b,\"say \"\"hi\"\"\"\n";
        let wanted = json!({
            "campaign": "demo", "from": "2026-11-01", "to": "2026-11-02", "kind": "total", "amount": "12,50",
            "currency": "EUR", "time_zone": "Europe/Berlin", "filters": {"sub1": ["a", "b"]}, "note": "say \"hi\"",
        });
        assert_eq!(read(ours, None), Ok(vec![Line { number: 2, said: wanted.clone() }]));
        let binom = "\u{feff}campaign;zone;date;cost;token;value\r\n\r\ndemo;Europe/Berlin;2026-11-01;12,50;sub1;a\r\n";
        let lines = read(binom, Some("EUR")).unwrap();
        let mut wanted = wanted;
        wanted["filters"] = json!({"sub1": ["a"]});
        wanted.as_object_mut().unwrap().remove("note");
        assert_eq!(lines, [Line { number: 3, said: wanted }]);
    }

    #[test]
    fn a_file_without_columns_is_refused() {
        for bad in ["", "demo;2026-11-01\n", "campaign,planet\n"] {
            assert!(read(bad, None).is_err(), "{bad}");
        }
    }
}
