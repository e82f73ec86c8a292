//! Rates as they are given.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    http::{error::FieldError, fields::Fields},
    model::money::Currency,
    money::rates::{RATE_WANTED, Rate, RateSource, parse_rate},
};

/// Rates of one request at most.
const RATES_MAX: usize = 1_000;

/// Rates of your own.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is there for the document; a body is read field by field")]
pub(super) struct FxRatesInput {
    /// 1 to 1,000; one for each currency and day.
    #[schema(min_items = 1, max_items = 1000)]
    rates: Vec<FxRateInput>,
}

/// What a currency is worth from a day on.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is there for the document; a body is read field by field")]
struct FxRateInput {
    /// ISO 4217, not the euro.
    #[schema(pattern = "^[A-Za-z]{3}$", example = "UAH")]
    currency: String,
    /// The first day (UTC) on which it holds.
    #[schema(format = Date, example = "2026-10-01")]
    day: String,
    /// Units of the currency for one unit of `base`: with the euro 0.01 to 100000000, at most twelve decimals.
    #[schema(pattern = r"^[0-9]{1,9}(\.[0-9]{1,12})?$", example = "48.35")]
    rate: String,
    /// What it is told against, EUR by default. Another is converted once, by its own rate on that day: what is kept is a rate
    /// against the euro.
    #[schema(pattern = "^[A-Za-z]{3}$", example = "EUR")]
    base: Option<String>,
}

/// A rate as it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Against `base`.
    pub rate: Rate,
    /// What it is told against.
    pub base: Currency,
}

/// Reads rates; names everything that is wrong with them.
pub(super) fn read(value: &Value) -> Result<Vec<Asked>, Vec<FieldError>> {
    let mut f = Fields::new(value, "").map_err(|e| vec![e])?;
    let mut seen = BTreeSet::new();
    let rates = f.list("rates", RATES_MAX, |f| {
        let currency = f.currency("currency");
        let day = f.day("day");
        let rate = f.text("rate", 1..=24).map(parse_rate);
        if let Some(Err(_)) = rate {
            f.refuse("rate", "range", RATE_WANTED);
        }
        let base = f.optional_currency("base").unwrap_or(Currency::EUR);
        f.refuse_unknown(&["currency", "day", "rate", "base"], &[]);
        let (currency, day, rate): (Currency, _, Decimal) = (currency?, day?, rate?.ok()?);
        if currency == Currency::EUR {
            f.refuse("currency", "choice", "must not be EUR, which rates are told against");
        }
        if !seen.insert((currency, day)) {
            f.refuse("day", "repeated", "is there already, for this currency");
        }
        Some(Asked { rate: Rate { currency, day, rate, source: RateSource::Manual }, base })
    });
    f.refuse_unknown(&["rates"], &[]);
    if rates.is_empty() && f.is_valid() {
        f.refuse("rates", "required", "is required, with one rate at least");
    }
    f.finish_with(Some(rates))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(value: &Value) -> Vec<(String, &'static str)> {
        read(value).err().unwrap_or_default().into_iter().map(|e| (e.pointer, e.code)).collect()
    }

    #[test]
    fn rates_are_read_with_the_euro_as_base() {
        let body = json!({ "rates": [
            { "currency": "uah", "day": "2026-10-01", "rate": "48.350" },
            { "currency": "KZT", "day": "2026-10-01", "rate": "520", "base": "USD" },
        ] });
        let read: Vec<_> = read(&body)
            .unwrap()
            .iter()
            .map(|a| format!("{} {} {} {}", a.rate.currency, a.rate.day, a.rate.rate, a.base))
            .collect();
        assert_eq!(read, ["UAH 2026-10-01 48.35 EUR", "KZT 2026-10-01 520 USD"]);
    }

    #[test]
    fn every_bad_field_is_named() {
        let body = json!({ "rates": [
            { "currency": "EUR", "day": "2026-10-01", "rate": "1" },
            { "currency": "ZZZ", "day": "2026-10-32", "rate": "0", "base": "BTC" },
            { "currency": "UAH", "day": "2026-10-01", "rate": "48" },
            { "currency": "uah", "day": "2026-10-01", "rate": "49", "source": "ecb" },
            { "rate": 48.5 },
            7,
        ], "x": 1 });
        let wanted = [
            ("/rates/0/currency", "choice"),
            ("/rates/1/currency", "unknown_currency"),
            ("/rates/1/day", "day"),
            ("/rates/1/rate", "range"),
            ("/rates/1/base", "unknown_currency"),
            ("/rates/3/source", "unknown"),
            ("/rates/3/day", "repeated"),
            ("/rates/4/currency", "required"),
            ("/rates/4/day", "required"),
            ("/rates/4/rate", "type"),
            ("/rates/5", "type"),
            ("/x", "unknown"),
        ];
        assert_eq!(faults(&body), wanted.map(|(pointer, code)| (pointer.to_owned(), code)));
        for empty in [json!({}), json!({ "rates": [] })] {
            assert_eq!(faults(&empty), [("/rates".to_owned(), "required")]);
        }
    }
}
