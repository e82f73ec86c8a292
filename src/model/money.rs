//! Money: a decimal amount and an ISO 4217 code, never a float.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

/// Largest amount kept: `numeric(18,6)` in the database.
const AMOUNT_MAX: i64 = 999_999_999_999;

/// `{"amount":"1.50","currency":"USD"}`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// Zero or more, at most six decimals.
    pub amount: Decimal,
    /// The currency of the amount.
    pub currency: Currency,
}

/// An ISO 4217 code: three capital letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

/// Parses a non-negative amount with at most six decimals and twelve digits before the point.
pub fn parse_amount(text: &str) -> Result<Decimal, &'static str> {
    const WANTED: &str = "must be a decimal number from 0 to 999999999999 with at most six decimals";
    let plain = |b: u8| b.is_ascii_digit() || b == b'.';
    if text.is_empty() || text.len() > 24 || !text.bytes().all(plain) {
        return Err(WANTED);
    }
    match Decimal::from_str(text) {
        Ok(amount) if amount.scale() <= 6 && amount <= Decimal::from(AMOUNT_MAX) => Ok(amount),
        _ => Err(WANTED),
    }
}

impl Currency {
    /// US dollar, the default.
    pub const USD: Self = Self(*b"USD");

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("") // three ASCII letters by construction
    }
}

impl FromStr for Currency {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_alphabetic) => {
                Ok(Self([a, b, c].map(|l| l.to_ascii_uppercase())))
            }
            _ => Err("must be an ISO 4217 code of three letters, such as USD"),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Money as JSON.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Money)]
struct Wire {
    /// Zero or more; two to six decimals.
    #[schema(pattern = r"^[0-9]{1,12}(\.[0-9]{1,6})?$", example = "1.50")]
    amount: String,
    /// ISO 4217
    #[schema(pattern = "^[A-Za-z]{3}$", example = "USD")]
    currency: String,
}

impl PartialSchema for Money {
    fn schema() -> RefOr<Schema> {
        Wire::schema()
    }
}

impl ToSchema for Money {}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let decimals = self.amount.normalize().scale().max(2);
        let mut amount = self.amount;
        amount.rescale(decimals);
        Wire { amount: amount.to_string(), currency: self.currency.to_string() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let amount = parse_amount(&wire.amount).map_err(serde::de::Error::custom)?;
        let currency = wire.currency.parse().map_err(serde::de::Error::custom)?;
        Ok(Self { amount, currency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_bounded() {
        assert_eq!(parse_amount("1.5").unwrap().to_string(), "1.5");
        for bad in ["", "-1", "NaN", "1e9", "1.0000001", "9999999999999", "1.2.3", "."] {
            assert!(parse_amount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn money_keeps_two_decimals_or_more_on_the_wire() {
        let money: Money = serde_json::from_str(r#"{"amount":"1.5","currency":"usd"}"#).unwrap();
        assert_eq!(serde_json::to_string(&money).unwrap(), r#"{"amount":"1.50","currency":"USD"}"#);
    }
}
