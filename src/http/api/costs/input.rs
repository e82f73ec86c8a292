//! How what is said of costs is read: from JSON, and from the lines of a file, each of which becomes JSON first, so that
//! all follow the same rules.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use serde_json::Value;
use strum::VariantNames as _;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    http::{
        error::FieldError,
        fields::{Fields, Given, parse_time},
    },
    model::{
        cost::{
            Dimension, FILTER_CHARS_MAX, FILTER_VALUES_MAX, Filters, Kind, RANGE_DAYS_MAX, RunningTotal,
            Spread, Terms,
        },
        money::{self, Reading},
    },
};

const FIELDS: &[&str] = &[
    "campaign",
    "from",
    "to",
    "time_zone",
    "filters",
    "kind",
    "amount",
    "currency",
    "spread",
    "note",
    "running_total",
];

const TIME_WANTED: &str = "must be a time such as 2026-01-31T12:00:00Z, or a day or an hour of time_zone such as 2026-01-31 or 2026-01-31 12:00";

/// What somebody says of costs.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read` reads")]
#[schema(example = json!({
    "campaign": "summer-sale", "from": "2026-11-01", "to": "2026-12-01", "time_zone": "Europe/Berlin", "kind": "total",
    "amount": "1250.00", "currency": "EUR", "filters": {"source": ["3"]}, "note": "invoice 4711",
}))]
pub(crate) struct CostInput {
    /// The campaign's id or key.
    #[schema(min_length = 1, max_length = 64, example = "summer-sale")]
    campaign: String,
    /// The first hour: a time (RFC 3339), or a day or an hour of `time_zone`. It begins on a whole hour of UTC. Not needed
    /// with a `running_total`.
    #[schema(example = "2026-11-01")]
    from: Option<String>,
    /// Before this hour, likewise; at most 366 days after `from`.
    #[schema(example = "2026-12-01")]
    to: Option<String>,
    /// In which days and hours are meant.
    #[schema(default = "UTC", example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// Which clicks: of each dimension one of 1 to 256 values; `unknown` is what is not known of a click.
    #[schema(value_type = Option<Object>, example = json!({"source": ["3"], "country": ["DE", "AT"]}))]
    filters: Option<Value>,
    /// What the amount is.
    kind: Kind,
    /// Zero or more, with a decimal point or comma; of a factor at most 1,000.
    #[schema(max_length = 64, example = "1250.00")]
    amount: String,
    /// Of all but a factor, unless it stands beside the amount.
    #[schema(pattern = "^[A-Za-z]{3}$", example = "EUR")]
    currency: Option<String>,
    /// Which clicks bear it.
    #[schema(default = "valid")]
    spread: Option<Spread>,
    /// For people: at most 1,000 characters.
    #[schema(max_length = 1000, example = "invoice 4711")]
    note: Option<String>,
    /// Of a total that grows: what is said later of the same account, id and day takes the place of what was said.
    running_total: Option<RunningTotal>,
}

/// What was said, with the name of its campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Id or key.
    pub(crate) campaign: String,
    terms: Terms,
}

impl Said {
    /// With the campaign that was found.
    pub(crate) fn of(self, campaign_id: Uuid) -> Terms {
        Terms { campaign_id, ..self.terms }
    }
}

/// Reads what is said; names everything that is wrong with it.
pub(crate) fn read(value: &Value, pointer: &str) -> Result<Said, Vec<FieldError>> {
    let mut f = Fields::new(value, pointer).map_err(|error| vec![error])?;
    let campaign = f.text("campaign", 1..=64).unwrap_or_default().to_owned();
    let time_zone = match f.given("time_zone") {
        Given::Absent => Tz::UTC,
        _ => read_zone(&mut f),
    };
    let kind = f.parsed::<Kind>("kind", "choice");
    let reading = read_amount(&mut f, kind);
    let running = read_running(&mut f);
    let (from, to) = read_range(&mut f, time_zone, running.as_ref());
    let terms = Terms {
        campaign_id: Uuid::nil(),
        begins_at: from,
        ends_at: to,
        time_zone,
        filters: read_filters(&mut f),
        kind: kind.unwrap_or(Kind::Total),
        amount: reading.amount,
        currency: reading.currency,
        spread: f.choice("spread", Spread::default()),
        note: f.optional_text("note", 0..=1000).map(str::to_owned),
        running,
    };
    f.refuse_unknown(FIELDS, &[]);
    f.finish_with(Some(Said { campaign, terms }))
}

fn read_zone(f: &mut Fields<'_>) -> Tz {
    match f.optional_text("time_zone", 1..=64).map(str::parse) {
        Some(Ok(zone)) => return zone,
        Some(Err(_)) => f.refuse("time_zone", "choice", "must be an IANA time zone such as Europe/Berlin"),
        None => {}
    }
    Tz::UTC
}

fn read_amount(f: &mut Fields<'_>, kind: Option<Kind>) -> Reading {
    let mut reading = Reading { amount: Decimal::ZERO, currency: None };
    if let Some(text) = f.text("amount", 1..=64) {
        match money::read_amount(text) {
            Some(read) if read.amount < Decimal::ZERO => {
                f.refuse("amount", "range", "must not be below zero");
            }
            Some(read) if kind == Some(Kind::Factor) && read.amount > Decimal::from(1000) => {
                f.refuse("amount", "range", "must be at most 1000 where it is a factor");
            }
            Some(read) => reading = read,
            None => f.refuse("amount", "amount", "must be an amount such as 12.50 or 12,50"),
        }
    }
    if let Some(currency) = f.optional_currency("currency") {
        if reading.currency.is_some_and(|beside| beside != currency) {
            f.refuse("currency", "conflict", "is not the one beside the amount");
        }
        reading.currency = Some(currency);
    }
    match (kind, reading.currency) {
        (Some(Kind::Factor), Some(_)) => f.refuse("currency", "conflict", "is not for a factor"),
        (Some(Kind::Total | Kind::PerClick | Kind::PerMille), None) if f.is_valid() => {
            f.refuse("currency", "required", "is required");
        }
        (_, Some(currency)) if !currency.is_known() => {
            f.refuse("amount", "unknown_currency", "has beside it what is no currency in use (ISO 4217)");
        }
        _ => {}
    }
    reading
}

fn read_running(f: &mut Fields<'_>) -> Option<RunningTotal> {
    let Given::Value(value) = f.given("running_total") else { return None };
    let Ok(mut inner) = Fields::new(value, "") else {
        f.refuse("running_total", "type", "must be an object with account, external_id and day");
        return None;
    };
    let text = |f: &mut Fields<'_>, name: &str| f.text(name, 1..=255).map(str::to_owned);
    let (account, external_id) = (text(&mut inner, "account"), text(&mut inner, "external_id"));
    let day = inner
        .parsed::<NaiveDate>("day", "date")
        .filter(|day| (1970..=9998).contains(&chrono::Datelike::year(day)));
    if day.is_none() && inner.is_valid() {
        inner.refuse("day", "date", "must be a day such as 2026-11-30");
    }
    inner.refuse_unknown(&["account", "external_id", "day"], &[]);
    match inner.finish_with(account.zip(external_id).zip(day)) {
        Ok(((account, external_id), day)) => Some(RunningTotal { account, external_id, day }),
        Err(errors) => {
            for error in errors {
                f.refuse_below(&format!("running_total{}", error.pointer), error.code, error.detail);
            }
            None
        }
    }
}

/// The range, in whole hours of UTC; of a running total its day, unless another is said.
fn read_range(
    f: &mut Fields<'_>,
    zone: Tz,
    running: Option<&RunningTotal>,
) -> (DateTime<Utc>, DateTime<Utc>) {
    let day = |days: i64| running.map(|r| local(zone, (r.day + TimeDelta::days(days)).into()));
    let mut time = |name: &str, default: Option<DateTime<Utc>>| {
        let text = match f.given(name) {
            Given::Absent if default.is_some() => return default,
            _ => f.text(name, 1..=64)?,
        };
        let Some(time) = parse(text, zone) else {
            f.refuse(name, "time", TIME_WANTED);
            return None;
        };
        if time.timestamp() % 3600 != 0 {
            let before = time - TimeDelta::seconds(time.timestamp().rem_euclid(3600));
            let detail = format!(
                "is not on a whole hour of UTC, by which costs are kept; say {} or {}",
                before.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
                (before + TimeDelta::hours(1)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            );
            f.refuse(name, "whole_hour", detail);
        }
        Some(time)
    };
    let (from, to) = (time("from", day(0)), time("to", day(1)));
    let Some((from, to)) = from.zip(to) else { return (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH) };
    if to <= from {
        f.refuse("to", "range", "must be after from");
    } else if to - from > TimeDelta::days(RANGE_DAYS_MAX) {
        f.refuse("to", "range", format!("must be at most {RANGE_DAYS_MAX} days after from"));
    }
    (from, to)
}

/// A time of RFC 3339, or a day, hour, minute or second of a zone.
pub(crate) fn parse(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Some(time) = parse_time(text) {
        return Some(time);
    }
    let spaced = text.replacen('T', " ", 1);
    let time = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(&spaced, format).ok())
        .or_else(|| Some(NaiveDate::parse_from_str(&spaced, "%Y-%m-%d").ok()?.into()))?;
    (1970..=9998).contains(&chrono::Datelike::year(&time)).then(|| local(zone, time))
}

/// The time that a clock of the zone shows: the first of two, and behind a gap the end of it.
pub(super) fn local(zone: Tz, time: NaiveDateTime) -> DateTime<Utc> {
    let quarters = (0..=96).map(|n| time + TimeDelta::minutes(15 * n)); // the longest gap was a day
    let mut found = quarters.filter_map(|time| zone.from_local_datetime(&time).earliest());
    found.next().map_or_else(|| time.and_utc(), |time| time.with_timezone(&Utc))
}

fn read_filters(f: &mut Fields<'_>) -> Filters {
    let mut filters = Filters::default();
    let Given::Value(value) = f.given("filters") else { return filters };
    let Some(members) = value.as_object() else {
        f.refuse("filters", "type", r#"must be an object such as {"country":["DE"]}"#);
        return filters;
    };
    for (name, values) in members.iter().take(Dimension::VARIANTS.len() + 1) {
        let Ok(dimension) = name.parse::<Dimension>() else {
            let detail = format!("is no dimension; there are {}", Dimension::VARIANTS.join(", "));
            f.refuse(
                "filters",
                "unknown",
                format!("`{}` {detail}", name.chars().take(64).collect::<String>()),
            );
            continue;
        };
        let texts = values.as_array().filter(|v| (1..=FILTER_VALUES_MAX).contains(&v.len()));
        let texts: Option<BTreeSet<String>> =
            texts.and_then(|all| all.iter().map(|v| value_of(dimension, v)).collect());
        if let Some(texts) = texts {
            filters.0.insert(dimension, texts);
            continue;
        }
        let wanted = if is_id(dimension) {
            "ids or `unknown`".to_owned()
        } else {
            format!("texts of 1 to {FILTER_CHARS_MAX} characters")
        };
        let detail = format!("must be a list of 1 to {FILTER_VALUES_MAX} {wanted}");
        f.refuse_below(&format!("filters/{dimension}"), "values", detail);
    }
    filters
}

fn is_id(dimension: Dimension) -> bool {
    use Dimension::{LandingPage, Offer, Path, Rule, Source};
    matches!(dimension, Source | LandingPage | Offer | Path | Rule)
}

/// A value as clicks have it.
fn value_of(dimension: Dimension, value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) if is_id(dimension) => number.as_u64()?.to_string(),
        _ => return None,
    };
    if text == "unknown" {
        return Some(text);
    }
    match dimension {
        _ if is_id(dimension) => text.parse::<u64>().ok().map(|id| id.to_string()),
        Dimension::Country => (text.len() == 2).then(|| text.to_ascii_uppercase()),
        Dimension::Device => Some(text.to_ascii_lowercase()).filter(|text| !text.is_empty()),
        _ => (1..=FILTER_CHARS_MAX).contains(&text.chars().count()).then_some(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(more: &Value) -> Result<Terms, Vec<(String, &'static str)>> {
        let mut body = json!({
            "campaign": "demo", "from": "2026-11-01", "to": "2026-11-02", "kind": "total", "amount": "12,50",
            "currency": "eur",
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let read = read(&body, "").map(|said| said.of(Uuid::nil()));
        read.map_err(|errors| errors.into_iter().map(|error| (error.pointer, error.code)).collect())
    }

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let terms = said(&json!({"time_zone": "Europe/Berlin", "to": "2026-11-01 12:00"})).unwrap();
        assert_eq!(terms.begins_at, time("2026-10-31T23:00:00Z"));
        assert_eq!(terms.ends_at, time("2026-11-01T11:00:00Z"));
        assert_eq!((terms.amount.to_string().as_str(), terms.currency.unwrap().as_str()), ("12.50", "EUR"));
        // of a day whose clock skips midnight, its first hour
        let terms =
            said(&json!({"time_zone": "Africa/Cairo", "from": "2026-04-24", "to": "2026-04-25"})).unwrap();
        assert_eq!(terms.begins_at, time("2026-04-23T22:00:00Z"));
        assert_eq!(terms.ends_at, time("2026-04-24T21:00:00Z"));
    }

    #[test]
    fn a_running_total_is_of_its_day() {
        let running = json!({"account": "a", "external_id": "7", "day": "2026-03-29"});
        let body = json!({
            "campaign": "demo", "time_zone": "Europe/Berlin", "kind": "total", "amount": "1 EUR",
            "running_total": running,
        });
        let terms = read(&body, "").unwrap().of(Uuid::nil());
        assert_eq!(terms.ends_at - terms.begins_at, TimeDelta::hours(23));
        let later = Terms { amount: Decimal::TWO, ..terms.clone() };
        assert_eq!(later.scope(), terms.scope());
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        for (more, wanted) in [
            (json!({"from": "yesterday"}), vec![("/from", "time")]),
            (json!({"time_zone": "Asia/Kolkata"}), vec![("/from", "whole_hour"), ("/to", "whole_hour")]),
            (json!({"to": "2026-10-01"}), vec![("/to", "range")]),
            (json!({"to": "2028-10-01"}), vec![("/to", "range")]),
            (json!({"amount": "-1", "currency": null}), vec![("/amount", "range")]),
            (json!({"amount": "1 USD"}), vec![("/currency", "conflict")]),
            (json!({"amount": "lots"}), vec![("/amount", "amount")]),
            (json!({"currency": null}), vec![("/currency", "required")]),
            (json!({"kind": "factor"}), vec![("/currency", "conflict")]),
            (json!({"filters": {"planet": ["x"]}}), vec![("/filters", "unknown")]),
            (
                json!({"filters": {"source": ["x"], "sub1": []}}),
                vec![("/filters/source", "values"), ("/filters/sub1", "values")],
            ),
            (
                json!({"running_total": {"account": "a"}}),
                vec![("/running_total/external_id", "required"), ("/running_total/day", "required")],
            ),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|(p, c)| (p.to_owned(), c)).collect();
            assert_eq!(said(&more), Err(wanted), "{more}");
        }
    }

    #[test]
    fn filters_are_as_clicks_have_it() {
        let filters = json!({"source": [3, "4", "unknown"], "country": ["de"], "sub1": ["A b"]});
        let terms = said(&json!({"filters": filters})).unwrap();
        let text = serde_json::to_string(&terms.filters).unwrap();
        assert_eq!(text, r#"{"source":["3","4","unknown"],"country":["DE"],"sub1":["A b"]}"#);
    }
}
