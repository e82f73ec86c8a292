//! Money: a decimal amount and an ISO 4217 code, never a float.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, RoundingStrategy};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

/// A part of an amount: 0 to 100 percent, with at most six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = r"^[0-9]{1,3}(?:\.[0-9]{1,6})?$", example = "12.5")]
pub struct Percent(Decimal);

impl Percent {
    /// How many.
    pub fn amount(self) -> Decimal {
        self.0
    }
}

impl TryFrom<Decimal> for Percent {
    type Error = &'static str;

    fn try_from(amount: Decimal) -> Result<Self, Self::Error> {
        let is_one = (Decimal::ZERO..=Decimal::ONE_HUNDRED).contains(&amount);
        if is_one { Ok(Self(amount)) } else { Err("must be a percentage from 0 to 100") }
    }
}

impl FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_amount(text)
            .and_then(Self::try_from)
            .map_err(|_| "must be a percentage from 0 to 100 with at most six decimals")
    }
}

impl TryFrom<String> for Percent {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Percent> for String {
    fn from(Percent(amount): Percent) -> Self {
        amount.normalize().to_string()
    }
}

/// An amount as strangers write it, and the currency that stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// At most six decimals and twelve digits before the point; a network's correction may be below zero.
    pub amount: Decimal,
    /// Its sign or code; [`Currency::UNKNOWN`] where one stands there that is no currency's alone.
    pub currency: Option<Currency>,
}

/// Longest text that may be an amount, in bytes.
const READ_BYTES_MAX: usize = 64;

/// Decimals that are kept.
const DECIMALS_MAX: u32 = 6;

/// Signs that stand for one currency. `$` alone is the US dollar; of `¥` and `kr` nobody can say whose.
const SIGNS: [(&str, Currency); 22] = [
    ("US$", Currency::USD),
    ("CA$", Currency(*b"CAD")),
    ("C$", Currency(*b"CAD")),
    ("AU$", Currency(*b"AUD")),
    ("A$", Currency(*b"AUD")),
    ("R$", Currency(*b"BRL")),
    ("HK$", Currency(*b"HKD")),
    ("$", Currency::USD),
    ("\u{20ac}", Currency(*b"EUR")),
    ("\u{a3}", Currency(*b"GBP")),
    ("\u{20bd}", Currency(*b"RUB")),
    ("\u{20b9}", Currency(*b"INR")),
    ("\u{20b4}", Currency(*b"UAH")),
    ("\u{20ba}", Currency(*b"TRY")),
    ("\u{20aa}", Currency(*b"ILS")),
    ("\u{20ab}", Currency(*b"VND")),
    ("\u{20b1}", Currency(*b"PHP")),
    ("\u{20b8}", Currency(*b"KZT")),
    ("\u{20a9}", Currency(*b"KRW")),
    ("\u{e3f}", Currency(*b"THB")),
    ("z\u{142}", Currency(*b"PLN")),
    ("\u{a5}", Currency::UNKNOWN),
];

/// Reads an amount as ad networks and people write it: `0,05`, `$0.05`, `5.0E-5`, `+0.5`, `1,234.56`, `1 234,56`,
/// `12.50 EUR`. A single comma is the decimal one; with commas and points, the last is. More than six decimals are
/// rounded. `None`: no amount, which is not 0.
pub fn read_amount(text: &str) -> Option<Reading> {
    if let Ok(amount) = parse_amount(text) {
        return Some(Reading { amount, currency: None }); // as nearly all are written
    }
    if text.len() > READ_BYTES_MAX {
        return None;
    }
    let text = text.trim();
    let (is_negative, text) = without_sign(text);
    let (text, currency) = without_currency(text);
    // the sign may stand behind the currency: $-5
    let (is_negative_too, text) = match currency {
        Some(_) if !is_negative => without_sign(text),
        _ => (false, text),
    };
    let amount = read_number(text)?;
    // 0 has no sign: `-0` is no amount of a journal
    let amount = if is_negative != is_negative_too && !amount.is_zero() { -amount } else { amount };
    Some(Reading { amount, currency })
}

/// A currency as strangers write it: its code in any case, or its sign; `None` where it is no currency's.
pub fn read_currency(text: &str) -> Option<Currency> {
    let text = text.trim();
    let of_sign = || SIGNS.iter().find(|(sign, _)| *sign == text).map(|(_, currency)| *currency);
    text.parse().ok().or_else(of_sign).filter(Currency::is_known)
}

/// The price of one where this is the price of a thousand; six decimals are kept.
pub fn of_one_in_a_thousand(amount: Decimal) -> Decimal {
    rounded(amount / Decimal::from(1000))
}

/// To the six decimals that are kept, half away from zero.
pub fn rounded(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(DECIMALS_MAX, RoundingStrategy::MidpointAwayFromZero)
}

fn without_sign(text: &str) -> (bool, &str) {
    let positive = || text.strip_prefix('+').unwrap_or(text);
    match text.strip_prefix(['-', '\u{2212}']) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, positive().trim_start()),
    }
}

/// Takes a currency off one end of an amount.
fn without_currency(text: &str) -> (&str, Option<Currency>) {
    for (sign, currency) in SIGNS {
        let rest = text.strip_prefix(sign).or_else(|| text.strip_suffix(sign));
        if let Some(rest) = rest {
            return (rest.trim(), Some(currency));
        }
    }
    let is_letter = |c: char| c.is_ascii_alphabetic();
    let before = text.len() - text.trim_start_matches(is_letter).len();
    let after = text.trim_end_matches(is_letter).len();
    let (code, rest) = match before {
        0 => (&text[after..], &text[..after]),
        _ => (&text[..before], &text[before..]),
    };
    match code.len() {
        3..=5 => (rest.trim(), Some(read_currency(code).unwrap_or(Currency::UNKNOWN))), // five: USDT, USDTE
        _ => (text, None),
    }
}

/// An amount as it is shown: without zeros at its end, but with two decimals at least.
pub fn amount_text(amount: Decimal) -> String {
    let mut amount = amount.normalize();
    amount.rescale(amount.scale().max(2));
    amount.to_string()
}

/// Digits with separators and maybe an exponent.
fn read_number(text: &str) -> Option<Decimal> {
    let amount = match text.split_once(['e', 'E']) {
        None => Decimal::from_str(&plain_digits(text)?).ok()?,
        Some((mantissa, exponent)) => {
            // a `+` that was not encoded comes as a space
            let digits = exponent.strip_prefix(['+', ' ', '-']).unwrap_or(exponent);
            let size: i8 =
                digits.parse().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))?;
            let exponent = if exponent.starts_with('-') { -size } else { size };
            Decimal::from_scientific(&format!("{}e{exponent}", plain_digits(mantissa)?)).ok()?
        }
    };
    let amount = rounded(amount);
    (amount <= Decimal::from(AMOUNT_MAX)).then_some(amount)
}

/// The digits with a point before decimals, and nothing between thousands.
fn plain_digits(text: &str) -> Option<String> {
    // a list of two of which one is filled, as some networks send it: `12.5,` and `,3.2`
    let text = text.strip_suffix(',').unwrap_or(text);
    let text = text.strip_prefix(',').filter(|rest| rest.contains('.')).unwrap_or(text);
    let last = text.rfind([',', '.']);
    let is_decimal = |at: &usize| text.matches(char::from(text.as_bytes()[*at])).count() == 1;
    let point = last.filter(is_decimal);
    let (whole, decimals) = point.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
    let is_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let are_decimals = is_digits(decimals) && (point.is_none() || !decimals.is_empty());
    if whole.is_empty() {
        // `,5` may be a half, or five of such a list
        return (are_decimals && text.starts_with('.')).then(|| format!("0{text}"));
    }
    let mut groups = whole.split(|c: char| !c.is_ascii_digit());
    let mut digits = groups.next().unwrap_or_default().to_owned();
    let has_thousands = digits.len() < whole.len();
    let first_is_short = (1..=3).contains(&digits.len());
    let mut are_thousands = true;
    for group in groups {
        are_thousands &= group.len() == 3;
        digits.push_str(group);
    }
    let mut separators = whole.chars().filter(|c| !c.is_ascii_digit());
    let separator = separators.next();
    let is_one_kind = separator.is_none_or(is_between_thousands) && separators.all(|c| Some(c) == separator);
    if !are_decimals
        || digits.is_empty()
        || !is_one_kind
        || (has_thousands && !(first_is_short && are_thousands))
    {
        return None;
    }
    Some(if decimals.is_empty() { digits } else { format!("{digits}.{decimals}") })
}

fn is_between_thousands(c: char) -> bool {
    matches!(c, ',' | '.' | ' ' | '\'' | '\u{a0}' | '\u{2009}' | '\u{2019}' | '\u{202f}')
}

/// ISO 4217, the codes in use, in order (2026; no funds, metals or tests).
const KNOWN: &[u8] = b"AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG ";

impl Currency {
    /// Euro, which rates are told against.
    pub const EUR: Self = Self(*b"EUR");

    /// US dollar, the default.
    pub const USD: Self = Self(*b"USD");

    /// No currency that is known (`XXX` of ISO 4217): such an amount is kept, and added to no other.
    pub const UNKNOWN: Self = Self(*b"XXX");

    /// Whether it is a currency in use.
    pub fn is_known(&self) -> bool {
        let (codes, _) = KNOWN.as_chunks::<4>();
        codes.binary_search_by(|code| code[..3].cmp(&self.0)).is_ok()
    }

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

impl TryFrom<String> for Currency {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
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
        Wire { amount: amount_text(self.amount), currency: self.currency.to_string() }.serialize(serializer)
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_exact_and_bounded() {
        assert_eq!(parse_amount("1.5").unwrap().to_string(), "1.5");
        for bad in ["", "-1", "NaN", "1e9", "1.0000001", "9999999999999", "1.2.3", "."] {
            assert!(parse_amount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_read_as_networks_and_people_write_them() {
        for (text, wanted) in [
            ("0.0125", "0.0125"),
            ("0,05", "0.05"),
            ("$0.05", "0.05 USD"),
            ("5.0E-5", "0.00005"),
            ("5e-5", "0.00005"),
            ("1E2", "100"),
            ("1.5e+1", "15"),
            ("1.5e 1", "15"), // `+` in a query
            ("+0.5", "0.5"),
            (" 0.5", "0.5"), // `+0.5` in a query
            ("-0.5", "-0.5"),
            ("\u{2212}3", "-3"),
            ("-$3.10", "-3.1 USD"),
            ("$-3.10", "-3.1 USD"),
            ("1,234.56", "1234.56"),
            ("1 234,56", "1234.56"),
            ("1\u{a0}234,56", "1234.56"),
            ("1\u{202f}234.5", "1234.5"),
            ("1.234,56", "1234.56"),
            ("1'234.56", "1234.56"),
            ("1,234,567", "1234567"),
            ("1.234.567", "1234567"),
            ("12 345", "12345"),
            ("1,234", "1.234"), // a single comma is the decimal one
            (".5", "0.5"),
            ("12.5,", "12.5"),
            (",3.2", "3.2"),
            ("12.50 EUR", "12.5 EUR"),
            ("usd0.1", "0.1 USD"),
            ("USD 1,000.00", "1000 USD"),
            ("0.05USDT", "0.05 XXX"),
            ("3 ABC", "3 XXX"),
            ("\u{20ac}0,30", "0.3 EUR"),
            ("0,30 \u{20ac}", "0.3 EUR"),
            ("\u{a3}2", "2 GBP"),
            ("\u{a5}100", "100 XXX"),
            ("R$ 1.234,56", "1234.56 BRL"),
            ("0.12345678", "0.123457"), // six decimals are kept
            ("0.0000005", "0.000001"),
            ("0", "0"),
            ("0.00", "0"),
            ("999999999999.999999", "1000000000000"),
        ] {
            let shown = read_amount(text).map(|Reading { amount, currency }| {
                let code = currency.map(|c| format!(" {c}")).unwrap_or_default();
                format!("{}{code}", amount.normalize())
            });
            let wanted = (wanted != "1000000000000").then(|| wanted.to_owned()); // beyond numeric(18,6)
            assert_eq!(shown, wanted, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_amount_is_not_0() {
        for text in [
            "",
            " ",
            "-",
            "+",
            ".",
            ",",
            ",5",
            "NaN",
            "Infinity",
            "null",
            "0x10",
            "1e",
            "e5",
            "1e99",
            "1e+-5",
            "--1",
            "+-1",
            "1e999999999",
            "1.2.3",
            "1,2,3",
            "1,23.4",
            "12,34.5",
            "1,234.5,6",
            "1234,567.8",
            "1 2",
            "1  000",
            "12.5,3.2",
            "$",
            "EUR",
            "5 EURO TODAY",
            "{cost}",
            "\u{661}\u{662}",
            "1/2",
            "50%",
            "9999999999999",
            "1e12",
            "0.1 0.2",
            "A1",
            "1A",
            "free",
        ] {
            assert_eq!(read_amount(text), None, "{text:?}");
        }
        assert_eq!(read_amount(&format!("0.{}1", "0".repeat(1000))), None);
    }

    #[test]
    fn currencies_are_known_by_code_or_sign() {
        for (text, wanted) in [
            ("USD", Some("USD")),
            ("eur", Some("EUR")),
            (" Gbp ", Some("GBP")),
            ("$", Some("USD")),
            ("\u{20ac}", Some("EUR")),
            ("USDT", None),
            ("BTC", None),
            ("XXX", None),
            ("{currency}", None),
            ("", None),
            ("dollars", None),
            ("\u{a5}", None),
            ("U$D", None),
            ("AED", Some("AED")),
            ("ZWG", Some("ZWG")),
            ("rub,usd,eur", None),
        ] {
            assert_eq!(read_currency(text).map(|c| c.to_string()).as_deref(), wanted, "{text:?}");
        }
        assert!(KNOWN.as_chunks::<4>().0.is_sorted() && KNOWN.as_chunks::<4>().1.is_empty());
    }

    proptest! {
        #[test]
        fn an_amount_reads_back_however_it_is_written(micros in 0u64..999_999_999_999_000_000, scale in 1u32..=6) {
            let amount = Decimal::new(micros.cast_signed(), 6).trunc_with_scale(scale);
            let plain = amount.to_string();
            let (whole, decimals) = plain.split_once('.').expect("it has decimals");
            let grouped = |mark: &str| {
                let mut out = String::new();
                for (i, digit) in whole.chars().enumerate() {
                    if i > 0 && (whole.len() - i) % 3 == 0 {
                        out.push_str(mark);
                    }
                    out.push(digit);
                }
                out
            };
            for text in [
                plain.clone(),
                plain.replace('.', ","),
                format!("+{plain}"),
                format!("${plain}"),
                format!("{plain} EUR"),
                format!("{whole}{decimals}e-{}", decimals.len()),
                format!("{}.{decimals}", grouped(",")),
                format!("{},{decimals}", grouped(".")),
                format!("{},{decimals}", grouped(" ")),
                format!("\u{20ac} {},{decimals}", grouped("\u{a0}")),
            ] {
                prop_assert_eq!(read_amount(&text).map(|r| r.amount), Some(amount), "{}", text);
            }
            prop_assert_eq!(read_amount(&format!("-{plain}")).map(|r| r.amount), Some(-amount));
        }

        #[test]
        fn no_text_makes_the_reader_panic_and_what_it_reads_fits_the_database(
            text in "[-+0-9., eE$\u{20ac}\u{a0}A-Z']{0,24}|.{0,80}"
        ) {
            if let Some(Reading { amount, .. }) = read_amount(&text) {
                prop_assert!(amount.abs() <= Decimal::from(AMOUNT_MAX) && amount.scale() <= DECIMALS_MAX);
                prop_assert_eq!(parse_amount(&amount.abs().to_string()), Ok(amount.abs()));
            }
        }
    }

    #[test]
    fn money_keeps_two_decimals_or_more_on_the_wire() {
        let percent: Percent = serde_json::from_str(r#""12.50""#).unwrap();
        assert_eq!(serde_json::to_string(&percent).unwrap(), r#""12.5""#);
        assert!(["100.000001", "-1", "1,5", ""].iter().all(|text| text.parse::<Percent>().is_err()));
        let money: Money = serde_json::from_str(r#"{"amount":"1.5","currency":"usd"}"#).unwrap();
        assert_eq!(serde_json::to_string(&money).unwrap(), r#"{"amount":"1.50","currency":"USD"}"#);
    }
}
