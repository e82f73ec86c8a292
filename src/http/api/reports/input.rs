//! How a report is asked for: as JSON, or in a query, which becomes JSON first, so that both follow the same rules.

use std::{fmt::Display, str::FromStr};

use chrono::{DateTime, SecondsFormat, SubsecRound as _, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    http::{
        api::manners::page::{self, LIMIT_DEFAULT, Params},
        error::{FieldError, Problem},
        fields::{Fields, Given, Zone},
    },
    model::money::Currency,
    reports::{
        facts::{self, FactsQuestion, Kind, Position},
        question::{
            By, Comparison, Dimension, FILTERS_MAX, Filter, GROUPS_MAX, Match, Measure, Order, Question,
            TimeKind, VALUES_MAX, Validity,
        },
    },
};

/// Most rows of an answer in JSON; a streamed one has them all.
const LIMIT_MAX: i64 = 10_000;

/// Most days of a report.
const RANGE_DAYS_MAX: i64 = 3700;

/// Characters of a value that is looked for.
const VALUE_CHARS_MAX: usize = 1024;

const FIELDS: &[&str] = &[
    "group_by", "measures", "filters", "from", "to", "tz", "time", "currency", "validity", "compare",
    "order", "limit", "cursor",
];

const FACTS_FIELDS: &[&str] = &["kind", "filters", "from", "to", "tz", "time", "limit", "cursor"];

/// Most facts of an answer in JSON.
const FACTS_LIMIT_MAX: i64 = 5000;

/// What a report shows where nothing else is asked for.
const MEASURES_DEFAULT: &[Measure] = &[
    Measure::Clicks,
    Measure::ValidClicks,
    Measure::UniqueClicks,
    Measure::Conversions,
    Measure::Cr,
    Measure::Revenue,
    Measure::Cost,
    Measure::Profit,
    Measure::Roi,
    Measure::Epc,
];

/// A report that is asked for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read` reads")]
#[schema(as = ReportInput, example = json!({
    "group_by": ["country", "day"], "measures": ["clicks", "conversions", "revenue", "cost", "profit"],
    "filters": [{"dimension": "device", "is": ["mobile"]}], "from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z",
    "tz": "Europe/Berlin", "currency": "EUR",
}))]
pub(crate) struct ReportInput {
    /// What rows are told apart by; without any there is one row.
    #[schema(max_items = 4)]
    group_by: Option<Vec<Dimension>>,
    /// What is shown of each row.
    #[schema(max_items = 40)]
    measures: Option<Vec<Measure>>,
    /// All of them hold.
    #[schema(max_items = 8)]
    filters: Option<Vec<FilterInput>>,
    /// The first moment (RFC 3339); by default 30 days before `to`.
    #[schema(example = "2026-11-01T00:00:00Z")]
    from: Option<String>,
    /// The moment after the last (RFC 3339); by default now.
    #[schema(example = "2026-12-01T00:00:00Z")]
    to: Option<String>,
    /// IANA time zone whose hours, days, weeks and months count.
    #[schema(default = "UTC", example = "Europe/Berlin")]
    tz: Option<String>,
    /// Where conversions stand.
    #[schema(default = "click")]
    time: Option<TimeKind>,
    /// What amounts are converted to, by the rate of their own day.
    #[schema(default = "USD", pattern = "^[A-Za-z]{3}$", example = "EUR")]
    currency: Option<String>,
    /// Which clicks ratios are divided by.
    #[schema(default = "valid")]
    validity: Option<Validity>,
    /// What it is compared with.
    #[schema(default = "none")]
    compare: Option<Comparison>,
    /// A dimension or measure of the report, with `-` before it for the greatest first; by default the first measure so, or time
    /// where it is grouped by that first.
    #[schema(max_length = 64, example = "-revenue")]
    order: Option<String>,
    /// Rows of an answer at most.
    #[schema(minimum = 1, maximum = 10000, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the answer before.
    #[schema(max_length = 8192, example = "[\"DE\"]")]
    cursor: Option<String>,
}

/// Facts that are left out: one of `is`, `is_not`, `contains` and `starts`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read_filter` reads")]
#[schema(as = ReportFilter, example = json!({"dimension": "country", "is": ["DE", "unknown"]}))]
pub(crate) struct FilterInput {
    /// What is looked at.
    dimension: Dimension,
    /// It is one of these; `unknown` is what is not known. Campaigns also by their keys.
    #[schema(min_items = 1, max_items = 256)]
    is: Option<Vec<String>>,
    /// It is none of these.
    #[schema(min_items = 1, max_items = 256)]
    is_not: Option<Vec<String>>,
    /// One of these is in it.
    #[schema(min_items = 1, max_items = 256)]
    contains: Option<Vec<String>>,
    /// It begins with one of these.
    #[schema(min_items = 1, max_items = 256)]
    starts: Option<Vec<String>>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The report.
    pub(crate) question: Question,
    /// What it is compared with.
    pub(crate) compare: Comparison,
    /// Rows of an answer at most.
    pub(crate) limit: usize,
    /// Behind this row.
    pub(crate) cursor: Option<String>,
}

/// Facts behind figures that are asked for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read_facts` reads")]
#[schema(as = ReportFactsInput, example = json!({
    "kind": "clicks", "filters": [{"dimension": "country", "is": ["DE"]}], "from": "2026-11-01T00:00:00Z",
    "to": "2026-11-02T00:00:00Z",
}))]
pub(crate) struct FactsInput {
    /// Of this kind; by default everything that figures are made of.
    kind: Option<Kind>,
    /// All of them hold: those of a report, and one for each dimension of a cell.
    #[schema(max_items = 12)]
    filters: Option<Vec<FilterInput>>,
    /// The first moment (RFC 3339); by default 30 days before `to`.
    #[schema(example = "2026-11-01T00:00:00Z")]
    from: Option<String>,
    /// The moment after the last (RFC 3339); by default now.
    #[schema(example = "2026-12-01T00:00:00Z")]
    to: Option<String>,
    /// IANA time zone whose hours, days, weeks and months filters are of.
    #[schema(default = "UTC", example = "Europe/Berlin")]
    tz: Option<String>,
    /// Where conversions stand.
    #[schema(default = "click")]
    time: Option<TimeKind>,
    /// Rows of an answer at most.
    #[schema(minimum = 1, maximum = 5000, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the answer before.
    #[schema(max_length = 255, example = "000642a1b2c3d4e5019aaf3c5f007abc8def0123456789ab0")]
    cursor: Option<String>,
}

/// Facts that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FactsAsked {
    /// Which; campaigns are not looked up yet.
    pub(crate) question: FactsQuestion,
    /// Rows of an answer at most.
    pub(crate) limit: usize,
    /// Behind this row.
    pub(crate) after: Option<Position>,
}

/// The query of `GET /reports` as JSON: lists by commas, filters as they are there.
pub(crate) fn of_query(query: Option<&str>) -> Result<Value, Problem> {
    of_query_with(query, FIELDS)
}

/// Likewise that of `GET /reports/facts`.
pub(crate) fn of_facts_query(query: Option<&str>) -> Result<Value, Problem> {
    of_query_with(query, FACTS_FIELDS)
}

fn of_query_with(query: Option<&str>, fields: &[&str]) -> Result<Value, Problem> {
    let mut params = Params::parse(query, fields);
    let mut value = Map::new();
    for name in fields {
        let Some(text) = params.text(name) else { continue };
        let read = match *name {
            "group_by" | "measures" => Value::from(text.split(',').map(str::trim).collect::<Vec<_>>()),
            "limit" => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            "filters" => match serde_json::from_str(text) {
                Ok(filters) => filters,
                Err(error) => {
                    params.refuse("filters", "invalid_json", format!("is not valid JSON: {error}"));
                    continue;
                }
            },
            // a `+` that was not encoded
            "from" | "to" => text.replace(' ', "+").into(),
            _ => text.into(),
        };
        value.insert((*name).to_owned(), read);
    }
    params.finish()?;
    Ok(Value::Object(value))
}

/// Reads what is asked for; names everything that is wrong with it.
pub(crate) fn read(value: &Value, now: DateTime<Utc>) -> Result<Asked, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|error| vec![error])?;
    let group_by = choices::<Dimension>(&mut f, "group_by", 0..=GROUPS_MAX).unwrap_or_default();
    let measures = choices(&mut f, "measures", 1..=40).unwrap_or_else(|| MEASURES_DEFAULT.to_vec());
    let filters = f.list("filters", FILTERS_MAX, read_filter);
    let (from, to, tz) = read_range(&mut f, now);
    let time = f.choice("time", TimeKind::Click);
    let currency = match f.given("currency") {
        Given::Absent => Currency::USD,
        _ => f.currency("currency").unwrap_or(Currency::USD),
    };
    let validity = f.choice("validity", Validity::Valid);
    let compare = f.choice("compare", Comparison::None);
    let order = read_order(&mut f, &group_by, &measures);
    let limit = f.integer("limit", 1..=LIMIT_MAX, i64::try_from(LIMIT_DEFAULT).unwrap_or(1));
    let cursor = f.optional_text("cursor", 1..=8192).map(str::to_owned);
    f.refuse_unknown(FIELDS, &[]);
    let question = Question { group_by, measures, filters, from, to, tz, time, currency, validity, order };
    let limit = usize::try_from(limit).unwrap_or(1);
    f.finish_with(Some(Asked { question, compare, limit, cursor }))
}

/// Reads which facts are asked for; names everything that is wrong with it.
pub(crate) fn read_facts(value: &Value, now: DateTime<Utc>) -> Result<FactsAsked, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|error| vec![error])?;
    let kind = match f.given("kind") {
        Given::Absent => None,
        _ => f.parsed("kind", "choice"),
    };
    let filters = f.list("filters", facts::FILTERS_MAX, read_filter);
    let (from, to, tz) = read_range(&mut f, now);
    let time = f.choice("time", TimeKind::Click);
    let limit = f.integer("limit", 1..=FACTS_LIMIT_MAX, i64::try_from(LIMIT_DEFAULT).unwrap_or(1));
    let after = f.optional_text("cursor", 1..=255).map(parse_position);
    if after == Some(None) {
        f.refuse("cursor", "cursor", "is not the next_cursor of facts");
    }
    f.refuse_unknown(FACTS_FIELDS, &[]);
    let question = FactsQuestion { kind, filters, from, to, tz, time, campaigns: None };
    let limit = usize::try_from(limit).unwrap_or(1);
    f.finish_with(Some(FactsAsked { question, limit, after: after.flatten() }))
}

/// The same question, to be asked later: its times stay, and it is of all rows.
pub(crate) fn fixed(value: &Value, from: DateTime<Utc>, to: DateTime<Utc>) -> Value {
    let mut fixed = value.clone();
    if let Some(fields) = fixed.as_object_mut() {
        fields.remove("limit");
        fields.remove("cursor");
        for (name, time) in [("from", from), ("to", to)] {
            fields.insert(name.to_owned(), time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into());
        }
    }
    fixed
}

/// Where a page of facts ends, as a cursor.
pub(crate) fn position_text(position: Position) -> String {
    let click_id = position.click_id.unwrap_or_default();
    format!("{}{:x}", page::cursor(position.at, click_id), position.skipped)
}

fn parse_position(text: &str) -> Option<Position> {
    let (key, skipped) = text.split_at_checked(48)?;
    let (at, click_id) = page::parse_key(key)?;
    let is_hex = (1..=8).contains(&skipped.len()) && skipped.bytes().all(|b| b.is_ascii_hexdigit());
    let skipped = i64::from_str_radix(skipped, 16).ok().filter(|_| is_hex)?;
    Some(Position { at, click_id: (!click_id.is_nil()).then_some(click_id), skipped })
}

/// The range and whose days count in it.
fn read_range(f: &mut Fields<'_>, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>, Tz) {
    let to = f.time("to").unwrap_or(now.trunc_subsecs(0));
    let from = f.time("from").unwrap_or(to - TimeDelta::days(30));
    if to <= from {
        f.refuse("to", "range", "must be after from");
    } else if to - from > TimeDelta::days(RANGE_DAYS_MAX) {
        f.refuse("from", "range", format!("must be at most {RANGE_DAYS_MAX} days before to"));
    }
    let tz = match f.given("tz") {
        Given::Absent => Tz::UTC,
        _ => f.parsed::<Zone>("tz", "time_zone").map_or(Tz::UTC, |zone| zone.0),
    };
    (from, to, tz)
}

/// A list of choices, each once.
fn choices<T: FromStr<Err: Display> + PartialEq>(
    f: &mut Fields<'_>,
    name: &str,
    items: std::ops::RangeInclusive<usize>,
) -> Option<Vec<T>> {
    if f.given(name) == Given::Absent {
        return None;
    }
    let texts = f.texts(name, items, 1..=64)?;
    let mut list = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        match text.parse::<T>() {
            Ok(item) if list.contains(&item) => {
                f.refuse_below(&format!("{name}/{i}"), "repeated", "is given more than once");
            }
            Ok(item) => list.push(item),
            Err(error) => f.refuse_below(&format!("{name}/{i}"), "choice", error.to_string()),
        }
    }
    Some(list)
}

fn read_filter(f: &mut Fields<'_>) -> Option<Filter> {
    let dimension = f.parsed::<Dimension>("dimension", "choice");
    let matches = [Match::Is, Match::IsNot, Match::Contains, Match::Starts];
    let given: Vec<Match> =
        matches.into_iter().filter(|matching| f.given((*matching).into()) != Given::Absent).collect();
    f.refuse_unknown(&["dimension", "is", "is_not", "contains", "starts"], &[]);
    let [matching] = given[..] else {
        f.refuse("is", "required", "one of is, is_not, contains and starts is needed");
        return None;
    };
    // the empty text is a value as others are, and is in everything
    let chars_min = usize::from(!matches!(matching, Match::Is | Match::IsNot));
    let values = f.texts(matching.into(), 1..=VALUES_MAX, chars_min..=VALUE_CHARS_MAX)?;
    Some(Filter { dimension: dimension?, matching, values })
}

fn read_order(f: &mut Fields<'_>, group_by: &[Dimension], measures: &[Measure]) -> Order {
    let default = match (group_by.first(), measures.first()) {
        (Some(dimension), _) if dimension.is_time() => {
            Order { by: By::Dimension(*dimension), is_descending: false }
        }
        (_, Some(measure)) => Order { by: By::Measure(*measure), is_descending: true },
        _ => Order { by: By::Measure(Measure::Clicks), is_descending: true },
    };
    let Some(text) = f.optional_text("order", 1..=64) else { return default };
    let (is_descending, name) = text.strip_prefix('-').map_or((false, text), |name| (true, name));
    let dimension = name.parse().ok().filter(|dimension| group_by.contains(dimension)).map(By::Dimension);
    let measure = || name.parse().ok().map(By::Measure);
    if let Some(by) = dimension.or_else(measure) {
        return Order { by, is_descending };
    }
    f.refuse(
        "order",
        "choice",
        "must be a dimension that the report is grouped by, or a measure; with - before it, the greatest first",
    );
    default
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-30T10:20:30Z".parse().unwrap()
    }

    #[test]
    fn a_report_without_anything_is_the_last_thirty_days() {
        let asked = read(&json!({}), now()).unwrap();
        assert_eq!(asked.question.from, "2026-10-31T10:20:30Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(asked.question.measures, MEASURES_DEFAULT);
        assert_eq!(asked.question.order, Order { by: By::Measure(Measure::Clicks), is_descending: true });
        assert!(asked.question.group_by.is_empty());
    }

    #[test]
    fn a_query_asks_as_json_does() {
        let query = "group_by=day,country&measures=clicks,revenue&tz=Asia/Kolkata&currency=eur&limit=7&from=2026-11-01T00:00:00Z\
                     &filters=%5B%7B%22dimension%22:%22device%22,%22is_not%22:%5B%22desktop%22%5D%7D%5D";
        let value = json!({
            "group_by": ["day", "country"], "measures": ["clicks", "revenue"], "tz": "Asia/Kolkata", "currency": "EUR", "limit": 7,
            "from": "2026-11-01T00:00:00Z", "filters": [{"dimension": "device", "is_not": ["desktop"]}],
        });
        let asked = read(&of_query(Some(query)).unwrap(), now()).unwrap();
        assert_eq!(asked, read(&value, now()).unwrap());
        assert_eq!(asked.question.order.by, By::Dimension(Dimension::Day));
        assert_eq!(asked.question.filters.len(), 1);
    }

    #[test]
    fn a_cursor_of_facts_reads_as_what_it_was_made_of() {
        let id = crate::model::id::new_uuid();
        for (click_id, skipped) in [(Some(id), 3), (None, 70_000)] {
            let position = Position { at: now(), click_id, skipped };
            let cursor = position_text(position);
            let asked = read_facts(&json!({"cursor": cursor, "kind": "costs"}), now()).unwrap();
            assert_eq!((asked.after, asked.question.kind), (Some(position), Some(Kind::Costs)));
        }
        for bad in ["x", &id.to_string(), &format!("{}+1", page::cursor(now(), id)), &page::cursor(now(), id)]
        {
            let errors = read_facts(&json!({"cursor": bad}), now()).unwrap_err();
            assert_eq!(errors[0].pointer, "/cursor", "{bad}");
        }
    }

    #[test]
    fn a_question_to_be_asked_later_keeps_its_times() {
        let value = json!({"group_by": ["country"], "limit": 3, "cursor": "x"});
        let asked = read(&json!({"group_by": ["country"]}), now()).unwrap();
        let later = fixed(&value, asked.question.from, asked.question.to);
        assert_eq!(read(&later, now() + TimeDelta::days(7)).unwrap(), asked);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        for (value, pointer) in [
            (json!({"group_by": ["country", "country"]}), "/group_by/1"),
            (json!({"group_by": ["planet"]}), "/group_by/0"),
            (json!({"group_by": ["day", "hour", "week", "month", "country"]}), "/group_by"),
            (json!({"measures": []}), "/measures"),
            (json!({"filters": [{"dimension": "country"}]}), "/filters/0/is"),
            (json!({"filters": [{"dimension": "country", "is": ["DE"], "is_not": ["AT"]}]}), "/filters/0/is"),
            (json!({"filters": [{"dimension": "x", "is": ["DE"]}]}), "/filters/0/dimension"),
            (json!({"tz": "Mars/Olympus"}), "/tz"),
            (json!({"currency": "EURO"}), "/currency"),
            (json!({"order": "-country"}), "/order"),
            (json!({"from": "2026-12-01T00:00:00Z"}), "/to"),
            (json!({"from": "1990-01-01T00:00:00Z"}), "/from"),
            (json!({"grouped_by": ["day"]}), "/grouped_by"),
        ] {
            let errors = read(&value, now()).unwrap_err();
            assert_eq!(errors[0].pointer, pointer, "{value}");
        }
    }
}
