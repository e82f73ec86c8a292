//! How the value of a key is read: times and numbers that know their bounds, texts where empty means "not set".
//!
//! A bound stands at its field, `#[serde(with = "Millis::<100>")]`, and what is out of it is said in words that
//! follow the name of the key.

use std::{fmt::Display, net::IpAddr, str::FromStr, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error};

/// The longest time that a key can hold: a hundred years, far enough from where the arithmetic of clocks ends.
const LONGEST: Duration = Duration::from_secs(36_525 * DAY_S);

const DAY_S: u64 = 86_400;

/// A time in milliseconds, `MIN` at least.
pub(super) struct Millis<const MIN: u64>;

impl<const MIN: u64> Millis<MIN> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let most = u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX);
        within(deserializer, MIN, most).map(Duration::from_millis)
    }
}

/// A time in seconds, `MIN` at least.
pub(super) struct Seconds<const MIN: u64>;

impl<const MIN: u64> Seconds<MIN> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        within(deserializer, MIN, LONGEST.as_secs()).map(Duration::from_secs)
    }
}

/// A time in seconds, from 0 to so many days.
pub(super) struct SecondsUpToDays<const MAX: u64>;

impl<const MAX: u64> SecondsUpToDays<MAX> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        within(deserializer, 0, MAX * DAY_S).map(Duration::from_secs)
    }
}

/// A time in days of 24 hours, `MIN` at least.
pub(super) struct Days<const MIN: u64>;

impl<const MIN: u64> Days<MIN> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let days = within(deserializer, MIN, LONGEST.as_secs() / DAY_S)?;
        Ok(Duration::from_secs(days * DAY_S))
    }
}

/// A number, `MIN` at least.
pub(super) struct AtLeast<const MIN: u64>;

impl<const MIN: u64> AtLeast<MIN> {
    pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<u64>,
    {
        let value = within(deserializer, MIN, u64::MAX)?;
        T::try_from(value).map_err(|_| D::Error::custom(format!("is {value}, which is too large")))
    }
}

/// A part of something in per cent, from 1 to 100.
pub(super) fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, 1, 100)
}

/// Times between attempts, in seconds: the first one is that before the first attempt.
pub(super) fn schedule<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let waits = texts.iter().map(|text| {
        let seconds = text.parse().ok().filter(|seconds| *seconds <= 30 * DAY_S);
        seconds.map(Duration::from_secs).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no whole number of seconds from 0 to {}", 30 * DAY_S))
        })
    });
    let waits = waits.collect::<Result<Vec<_>, _>>()?;
    if (1..=32).contains(&waits.len()) { Ok(waits) } else { Err(D::Error::custom("must have 1 to 32 times")) }
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, min: u64, max: u64) -> Result<u64, D::Error> {
    let value = i64::deserialize(deserializer)?;
    let fault = |bound| Err(D::Error::custom(format!("is {value}, but must be {bound}")));
    match u64::try_from(value) {
        Ok(value) if value > max => fault(format!("at most {max}")),
        Ok(value) if value >= min => Ok(value),
        _ => fault(format!("at least {min}")),
    }
}

/// An empty text is `None`.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|e| D::Error::custom(format!("`{text}` is not valid: {e}")))
}

/// As [`optional`], without showing the text: a URL may hold a password.
pub(super) fn optional_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<url::Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parse = |text: &str| text.parse().map_err(|e| D::Error::custom(format!("not a URL: {e}")));
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some) }
}

/// As [`optional`], for what is never shown.
pub(super) fn optional_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| SecretString::from(text)))
}

/// Networks, or addresses as networks of one. Peers are compared as IPv4 where they are, so an IPv4-mapped network
/// is the IPv4 network it means.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).map_err(D::Error::custom)).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(|ip| IpNet::from(ip.to_canonical()));
    let net = address.or_else(|_| text.parse());
    let net = net
        .map_err(|_| format!("`{text}` is neither a network (192.0.2.0/24, 2001:db8::/32) nor an address"))?;
    let IpNet::V6(v6) = net else { return Ok(net) };
    Ok(match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(net, IpNet::V4),
        _ => net,
    })
}
