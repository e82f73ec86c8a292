//! What a currency is worth on a day. All rates are units for one euro, as the European Central Bank publishes them.
//!
//! * The rate of a day is the last that the bank published **before** it, so it is known when the day begins and nothing
//!   published later changes it. One that is older than `age_days_max` is none: the bank ended the rouble on 2022-03-01.
//! * Where the bank has none, the owner's own holds: from its day on, until the next.
//! * Without a rate there is no answer; never 1:1, and never 0.
//!
//! The function `octo_fx` in the database (`migrations/0017_keep_rates.sql`) says the same of the same rates.

use std::collections::HashMap;

use chrono::{Days, NaiveDate};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantNames};
use utoipa::ToSchema;

use crate::model::{
    money::{Currency, rounded},
    text::must_be_one_of,
};

/// Decimals of a rate from one currency to another.
const CROSS_DECIMALS: u32 = 18;

/// Decimals of a rate that is kept.
const RATE_DECIMALS_MAX: u32 = 12;

/// The least and the most units for one euro. Between them every rate to another currency has 28 digits at most, which is
/// what [`Decimal`] holds.
const RATE_BOUNDS: (Decimal, Decimal) =
    (Decimal::from_parts(1, 0, 0, false, 2), Decimal::from_parts(100_000_000, 0, 0, false, 0));

/// Who says a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[derive(strum::Display, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", parse_err_ty = String, parse_err_fn = must_be_one_of::<Self>)]
pub enum RateSource {
    /// The European Central Bank, on the day of the rate; it holds from the next day on.
    Ecb,
    /// The owner; it holds from its day on, where the bank has none.
    Manual,
}

/// What a currency is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Not the euro.
    pub currency: Currency,
    /// When it was published, or from when on it holds: see [`RateSource`].
    pub day: NaiveDate,
    /// Units of the currency for one euro.
    pub rate: Decimal,
    /// Who says so.
    pub source: RateSource,
}

/// Parses units for one euro: 0.01 to 100000000, at most twelve decimals.
pub fn parse_rate(text: &str) -> Result<Decimal, &'static str> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate = text.parse().ok().filter(|_| is_plain && text.len() <= 24);
    rate.ok_or(RATE_WANTED).and_then(check_rate)
}

/// What [`parse_rate`] takes, in words.
pub const RATE_WANTED: &str =
    "must be a decimal number from 0.01 to 100000000 units for one euro, with at most 12 decimals";

/// A rate that can be kept.
fn check_rate(rate: Decimal) -> Result<Decimal, &'static str> {
    let (min, max) = RATE_BOUNDS;
    let rate = rate.normalize();
    if rate.scale() <= RATE_DECIMALS_MAX && (min..=max).contains(&rate) { Ok(rate) } else { Err(RATE_WANTED) }
}

/// The rates of some days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    age_days_max: u16,
    of: HashMap<(Currency, RateSource), Vec<(NaiveDate, Decimal)>>,
}

impl Rates {
    /// These rates, of which the bank's hold for at most `age_days_max` days.
    pub fn new(age_days_max: u16, rates: impl IntoIterator<Item = Rate>) -> Self {
        let mut of: HashMap<_, Vec<_>> = HashMap::new();
        for Rate { currency, day, rate, source } in rates {
            of.entry((currency, source)).or_default().push((day, rate));
        }
        for days in of.values_mut() {
            days.sort_unstable();
        }
        Self { age_days_max, of }
    }

    /// What one unit of `from` is worth in `to` on a day (UTC), to 18 decimals; `None`: there is no rate. Every known
    /// currency is worth 1 in itself.
    pub fn rate(&self, from: Currency, to: Currency, day: NaiveDate) -> Option<Decimal> {
        if from == to {
            return (from != Currency::UNKNOWN).then_some(Decimal::ONE);
        }
        let (of_from, of_to) = (self.per_euro(from, day)?, self.per_euro(to, day)?);
        let rate = of_to.checked_div(of_from)?;
        Some(rate.round_dp_with_strategy(CROSS_DECIMALS, RoundingStrategy::MidpointAwayFromZero).normalize())
    }

    /// An amount in another currency on a day (UTC), rounded once to six decimals, half away from zero; `None`: there is no
    /// rate, and the amount must not be added to others.
    pub fn convert(&self, amount: Decimal, from: Currency, to: Currency, day: NaiveDate) -> Option<Decimal> {
        self.rate(from, to, day)?.checked_mul(amount).map(rounded)
    }

    /// A rate from a day on that is told against `base` and not against the euro; `None`: `base` has no rate on that day, or
    /// what comes out is none that can be kept.
    pub fn against_euro(&self, rate: Decimal, base: Currency, day: NaiveDate) -> Option<Decimal> {
        let rate = self.per_euro(base, day)?.checked_mul(rate)?;
        check_rate(rate.round_dp_with_strategy(RATE_DECIMALS_MAX, RoundingStrategy::MidpointAwayFromZero))
            .ok()
    }

    /// The rate that holds on a day: not of the euro, whose rate is nobody's.
    pub fn in_force(&self, currency: Currency, day: NaiveDate) -> Option<Rate> {
        self.published(currency, day).or_else(|| self.own(currency, day))
    }

    /// Every currency that has a rate on some day, in order.
    pub fn currencies(&self) -> Vec<Currency> {
        let mut all: Vec<_> = self.of.keys().map(|(currency, _)| *currency).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn per_euro(&self, currency: Currency, day: NaiveDate) -> Option<Decimal> {
        match currency {
            Currency::EUR => Some(Decimal::ONE),
            _ => self.in_force(currency, day).map(|rate| rate.rate),
        }
    }

    fn published(&self, currency: Currency, day: NaiveDate) -> Option<Rate> {
        let rate = self.last(currency, RateSource::Ecb, day.pred_opt()?)?;
        let is_fresh =
            rate.day.checked_add_days(Days::new(self.age_days_max.into())).is_none_or(|d| d >= day);
        is_fresh.then_some(rate)
    }

    fn own(&self, currency: Currency, day: NaiveDate) -> Option<Rate> {
        self.last(currency, RateSource::Manual, day)
    }

    /// The last one up to and with this day.
    fn last(&self, currency: Currency, source: RateSource, day: NaiveDate) -> Option<Rate> {
        let days = self.of.get(&(currency, source))?;
        let (day, rate) = *days[..days.partition_point(|(d, _)| *d <= day)].last()?;
        Some(Rate { currency, day, rate, source })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tables hold them.
    #[test]
    fn what_is_stored_of_a_source_stays_the_same() {
        assert_eq!(RateSource::VARIANTS.join(" "), "ecb manual");
    }

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn currency(text: &str) -> Currency {
        text.parse().unwrap()
    }

    fn rates(lines: &[(&str, &str, &str, RateSource)]) -> Rates {
        let rate = |&(code, on, rate, source): &(&str, &str, &str, RateSource)| Rate {
            currency: currency(code),
            day: day(on),
            rate: parse_rate(rate).unwrap(),
            source,
        };
        Rates::new(10, lines.iter().map(rate))
    }

    fn per_euro(rates: &Rates, code: &str, on: &str) -> Option<String> {
        rates.rate(Currency::EUR, currency(code), day(on)).map(|rate| rate.to_string())
    }

    #[test]
    fn the_rate_of_a_day_is_the_last_one_published_before_it() {
        use RateSource::Ecb;
        let rates = rates(&[
            ("USD", "2026-10-29", "1.12", Ecb),
            ("USD", "2026-10-30", "1.1172", Ecb), // a Friday
            ("USD", "2026-11-02", "1.13", Ecb),
        ]);
        for (on, wanted) in [
            ("2026-10-29", None), // nothing was published before it
            ("2026-10-30", Some("1.12")),
            ("2026-10-31", Some("1.1172")),
            ("2026-11-01", Some("1.1172")),
            ("2026-11-02", Some("1.1172")),
            ("2026-11-03", Some("1.13")),
            ("2026-11-12", Some("1.13")),
            ("2026-11-13", None), // older than ten days
        ] {
            assert_eq!(per_euro(&rates, "USD", on).as_deref(), wanted, "{on}");
        }
    }

    #[test]
    fn an_own_rate_holds_from_its_day_on_where_the_bank_has_none() {
        use RateSource::{Ecb, Manual};
        let rates = rates(&[
            ("RUB", "2022-03-01", "117.201", Ecb),
            ("RUB", "2022-02-01", "90", Manual),
            ("RUB", "2022-03-10", "130", Manual),
            ("UAH", "2026-01-01", "50", Manual),
            ("UAH", "2026-02-01", "51", Manual),
        ]);
        for (code, on, wanted) in [
            ("RUB", "2022-01-31", None),
            ("RUB", "2022-02-01", Some("90")),
            ("RUB", "2022-03-01", Some("90")),
            ("RUB", "2022-03-02", Some("117.201")),
            ("RUB", "2022-03-11", Some("117.201")),
            ("RUB", "2022-03-12", Some("130")),
            ("RUB", "2026-03-12", Some("130")),
            ("UAH", "2025-12-31", None),
            ("UAH", "2026-01-01", Some("50")),
            ("UAH", "2026-01-31", Some("50")),
            ("UAH", "2026-02-01", Some("51")),
            ("UAH", "2036-02-01", Some("51")),
        ] {
            assert_eq!(per_euro(&rates, code, on).as_deref(), wanted, "{code} {on}");
        }
        assert_eq!(rates.currencies(), ["RUB", "UAH"].map(currency));
    }

    #[test]
    fn amounts_go_by_way_of_the_euro_and_are_rounded_once() {
        use RateSource::Ecb;
        let on = day("2026-11-02");
        let rates = rates(&[
            ("USD", "2026-10-30", "1.1172", Ecb),
            ("JPY", "2026-10-30", "175.68", Ecb),
            ("IDR", "2026-10-30", "20275.17", Ecb),
        ]);
        let convert = |amount: &str, from: &str, to: &str| {
            let amount = amount.parse().unwrap();
            rates.convert(amount, currency(from), currency(to), on).map(|a| a.normalize().to_string())
        };
        for (amount, from, to, wanted) in [
            ("1", "EUR", "USD", Some("1.1172")),
            ("100", "USD", "EUR", Some("89.509488")),
            ("-100", "USD", "EUR", Some("-89.509488")),
            ("1000", "JPY", "USD", Some("6.359290")),
            ("999999999999.999999", "IDR", "EUR", Some("49321411.361779")),
            ("0.000005", "USD", "USD", Some("0.000005")),
            ("7", "UAH", "UAH", Some("7")), // the same currency needs no rate
            ("7", "UAH", "USD", None),
            ("7", "USD", "UAH", None),
            ("7", "XXX", "XXX", None), // two that are not known need not be the same
            ("0", "UAH", "USD", None),
        ] {
            let wanted = wanted.map(|w| w.parse::<Decimal>().unwrap().normalize().to_string());
            assert_eq!(convert(amount, from, to), wanted, "{amount} {from} in {to}");
        }
    }

    #[test]
    fn a_rate_against_another_currency_is_kept_against_the_euro() {
        let rates = rates(&[("USD", "2026-10-30", "1.1172", RateSource::Ecb)]);
        let against = |rate: &str, base: &str| {
            rates
                .against_euro(rate.parse().unwrap(), currency(base), day("2026-11-02"))
                .map(|r| r.to_string())
        };
        assert_eq!(against("41.5", "USD").as_deref(), Some("46.3638"));
        assert_eq!(against("41.5", "EUR").as_deref(), Some("41.5"));
        assert_eq!(against("41.5", "UAH"), None);
        assert_eq!(against("99999999", "USD"), None, "more than can be kept");
    }

    #[test]
    fn rates_are_decimal_and_bounded() {
        for (text, wanted) in [
            ("0.01", "0.01"),
            ("1.10", "1.1"),
            ("100000000", "100000000"),
            ("0.123456789012", "0.123456789012"),
        ] {
            assert_eq!(parse_rate(text).map(|r| r.to_string()).as_deref(), Ok(wanted));
        }
        for bad in
            ["", "0", "0.009", "100000000.1", "-1", "1e3", "NaN", "1,5", "0.1234567890123", "N/A", " 1"]
        {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    prop_compose! {
        /// As the bank's are: five or six digits.
        fn any_rate()(digits in 1_000u32..1_000_000, scale in 0u32..=5) -> Decimal {
            Decimal::new(digits.into(), scale).max(RATE_BOUNDS.0)
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same_within_the_rounding(
            micros in -1_000_000_000_000i64..1_000_000_000_000,
            of_usd in any_rate(),
            of_uah in any_rate(),
        ) {
            let on = day("2026-01-01");
            let (usd, uah) = (Currency::USD, currency("UAH"));
            let own = |currency, rate| Rate { currency, day: on, rate, source: RateSource::Manual };
            let rates = Rates::new(10, [own(usd, of_usd), own(uah, of_uah)]);
            let amount = Decimal::new(micros, 6);
            let there = rates.convert(amount, usd, uah, on).unwrap();
            let back = rates.convert(there, uah, usd, on).unwrap();
            // half a micro-unit is rounded here and there, and half of the last decimal of each rate
            let (half, last) = (Decimal::new(5, 7), Decimal::new(5, 19));
            let there_off = half + last * amount.abs();
            let off = there_off * (of_usd / of_uah) + last * there.abs() + half + Decimal::new(1, 12);
            prop_assert!((back - amount).abs() <= off, "{} -> {} -> {}", amount, there, back);
            prop_assert!(there.scale() <= 6);
            prop_assert!(there.is_zero() || there.is_sign_negative() == amount.is_sign_negative());
            prop_assert_eq!(rates.convert(amount, usd, usd, on), Some(amount));
            prop_assert_eq!(rates.convert(amount, usd, Currency::EUR, on.pred_opt().unwrap()), None);
        }

        #[test]
        fn what_is_published_later_changes_no_day(offsets in prop::collection::btree_set(0u64..60, 1..20), asked in 0u64..70) {
            let begin = day("2026-01-01");
            let rate = |offset: &u64| Rate {
                currency: Currency::USD,
                day: begin + Days::new(*offset),
                rate: Decimal::from(offset + 1),
                source: RateSource::Ecb,
            };
            let on = begin + Days::new(asked);
            let all = Rates::new(10, offsets.iter().map(rate));
            let known = Rates::new(10, offsets.iter().filter(|offset| **offset < asked).map(rate));
            let found = all.in_force(Currency::USD, on);
            prop_assert_eq!(found, known.in_force(Currency::USD, on));
            let wanted = offsets.iter().rev().find(|offset| **offset < asked).filter(|offset| asked - **offset <= 10);
            prop_assert_eq!(found.map(|r| r.day), wanted.map(|offset| begin + Days::new(*offset)));
        }
    }
}
