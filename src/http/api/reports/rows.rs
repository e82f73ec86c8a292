//! Rows as CSV and NDJSON: how they are asked for, and how they are written.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use csv::{Terminator, WriterBuilder};
use rust_decimal::Decimal;
use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use crate::{
    http::error::Problem,
    model::text::{csv_cell, must_be_one_of},
};

/// What rows are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(as = ExportFormat, rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub(crate) enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

impl Format {
    /// What `Accept` wants before JSON; `None`: JSON. Of what it wants as much the first counts.
    pub(crate) fn wanted(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut best = (0.0, None);
        for entry in values.flat_map(|value| value.split(',')) {
            let mut parts = entry.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "text/csv" => Some(Self::Csv),
                "application/x-ndjson" | "application/ndjson" => Some(Self::Ndjson),
                "application/json" | "application/*" | "*/*" => None,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Its media type.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// What names of files end with.
    pub(crate) fn extension(self) -> &'static str {
        self.into()
    }
}

/// Writes rows, all with the same members.
pub(crate) struct Rows {
    format: Format,
    columns: Vec<String>,
    csv: csv::Writer<Vec<u8>>,
    lines: Vec<u8>,
    count: i64,
}

impl Rows {
    /// With the header, where the format has one.
    pub(crate) fn new(format: Format, columns: Vec<String>) -> Result<Self, Problem> {
        let mut rows = Self { format, columns, csv: csv_writer(), lines: Vec::new(), count: 0 };
        if format == Format::Csv {
            rows.csv.write_record(&rows.columns).map_err(Problem::internal)?;
        }
        Ok(rows)
    }

    /// One more: in CSV its members by the names of the columns, in NDJSON as it is.
    pub(crate) fn push(&mut self, row: &Value) -> Result<(), Problem> {
        self.count += 1;
        match self.format {
            Format::Ndjson => {
                serde_json::to_writer(&mut self.lines, row).map_err(Problem::internal)?;
                self.lines.push(b'\n');
                Ok(())
            }
            Format::Csv => {
                let cells = self.columns.iter().map(|name| cell(&row[name]));
                self.csv.write_record(cells.map(Cell)).map_err(Problem::internal)
            }
        }
    }

    /// What was written since the last time, and how many rows that are.
    pub(crate) fn take(&mut self) -> Result<(Bytes, i64), Problem> {
        let count = std::mem::take(&mut self.count);
        if self.format == Format::Ndjson {
            return Ok((std::mem::take(&mut self.lines).into(), count));
        }
        let written = std::mem::replace(&mut self.csv, csv_writer()).into_inner();
        let written = written.map_err(|error| Problem::internal(error.into_error()))?;
        Ok((written.into(), count))
    }
}

fn csv_writer() -> csv::Writer<Vec<u8>> {
    WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new())
}

/// For the writer, which takes bytes.
struct Cell<'a>(Cow<'a, str>);

impl AsRef<[u8]> for Cell<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The text of a cell: what stands in a link is anybody's. Numbers are numbers.
fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => match csv_cell(text) {
            Cow::Owned(_) if text.parse::<Decimal>().is_ok() => text.into(),
            cell => cell,
        },
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_accepted_most_is_given() {
        for (accept, wanted) in [
            ("", None),
            ("*/*", None),
            ("text/html, */*", None),
            ("text/csv", Some(Format::Csv)),
            ("application/x-ndjson;q=0.9, text/csv;q=0.1", Some(Format::Ndjson)),
            ("application/json, text/csv", None),
            ("text/csv, */*;q=0.1", Some(Format::Csv)),
            ("text/csv;q=0", None),
            ("Application/NDJSON", Some(Format::Ndjson)),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(Format::wanted(&headers), wanted, "{accept}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), None);
    }

    #[test]
    fn a_cell_is_quoted_and_begins_no_formula() {
        let columns = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut rows = Rows::new(Format::Csv, columns).unwrap();
        for row in [
            json!({"a": "x, \"y\"\nz", "b": null, "c": 7}),
            json!({"a": "=HYPERLINK(1)", "b": "-1.50", "c": "-1+cmd|x"}),
            json!({"a": "@x", "b": "+49", "c": true, "d": "no column"}),
        ] {
            rows.push(&row).unwrap();
        }
        let (bytes, count) = rows.take().unwrap();
        let wanted = "a,b,c\r\n\"x, \"\"y\"\"\nz\",,7\r\n'=HYPERLINK(1),-1.50,'-1+cmd|x\r\n'@x,+49,true\r\n";
        assert_eq!((std::str::from_utf8(&bytes).unwrap(), count), (wanted, 3));
    }

    #[test]
    fn a_line_of_json_is_as_it_is() {
        let mut rows = Rows::new(Format::Ndjson, Vec::new()).unwrap();
        rows.push(&json!({"a": "=1\n", "b": null})).unwrap();
        assert_eq!(rows.take().unwrap().0, "{\"a\":\"=1\\n\",\"b\":null}\n");
    }
}
