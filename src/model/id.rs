//! Identifiers: the click id carries its own time and its own seed; the campaign key is what links show.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Characters of [`ClickId::short`].
const SHORT_CHARS: usize = 22;

/// Our id of a click: a UUIDv7 (RFC 9562), written with hyphens, or short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClickId(Uuid);

impl ClickId {
    /// A new id of this moment.
    pub fn now() -> Self {
        Self(new_uuid())
    }

    /// `None` unless `uuid` is a version 7: only those carry a time.
    pub fn from_uuid(uuid: Uuid) -> Option<Self> {
        (uuid.get_version_num() == 7).then_some(Self(uuid))
    }

    /// The id as a UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// The id in 22 characters (base64url of RFC 4648 section 5, without padding), for who takes a UUID out of a value.
    pub fn short(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0.as_bytes())
    }

    /// Milliseconds since 1970 (UTC): the first 48 bits.
    pub fn timestamp_ms(self) -> u64 {
        ms_of(self.0)
    }

    /// The time of the click; a replay of the same id gives the same time.
    pub fn created_at(self) -> DateTime<Utc> {
        time_of_uuid(self.0)
    }

    /// A number that is evenly spread over ids and always the same for one id
    /// (the finaliser of SplitMix64, <https://prng.di.unimi.it/splitmix64.c>, over both halves).
    pub fn seed(self) -> u64 {
        let (high, low) = self.0.as_u64_pair();
        let mut z = high.rotate_left(32) ^ low;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Display for ClickId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// With or without hyphens, or short, and as a [`Leg`]; `Err` for anything that is not a UUIDv7.
impl FromStr for ClickId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.contains('.') {
            return text.parse().map(|leg: Leg| leg.click_id);
        }
        let uuid = if text.len() == SHORT_CHARS {
            let mut bytes = [0; 18]; // the decoder wants room for whole groups of four characters
            BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(drop)?;
            Uuid::from_slice(&bytes[..16])
        } else {
            Uuid::try_parse(text)
        };
        uuid.ok().and_then(Self::from_uuid).ok_or(())
    }
}

/// One way on from a click whose path has several offers, written as `<click id>.<offer id>`: so whoever tells of a
/// conversion tells of which offer. At most 56 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    /// The click.
    pub click_id: ClickId,
    /// The offer; `None` is written as the click's id alone.
    pub offer_id: Option<i64>,
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.click_id.fmt(f)?;
        self.offer_id.map_or(Ok(()), |id| write!(f, ".{id}"))
    }
}

/// The id of the click in any form; `Err` also where no number above 0 follows the point.
impl FromStr for Leg {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Some((click_id, offer_id)) = text.split_once('.') else {
            return Ok(Self { click_id: text.parse()?, offer_id: None });
        };
        let is_number = offer_id.bytes().all(|b| b.is_ascii_digit());
        let offer_id = offer_id.parse().ok().filter(|id| is_number && *id > 0).ok_or(())?;
        Ok(Self { click_id: click_id.parse()?, offer_id: Some(offer_id) })
    }
}

/// A new UUIDv7 of this moment: the wall clock's milliseconds and 74 random bits.
///
/// Not `Uuid::now_v7`, which never goes back: after a clock that was ahead for a second it would stamp every later id
/// with that second until the process ends. Ids of one millisecond are in no order.
pub fn new_uuid() -> Uuid {
    uuid_of(now_ms())
}

/// A new UUIDv7 of that moment; 1970 stands for what was before.
pub fn uuid_at(time: DateTime<Utc>) -> Uuid {
    uuid_of(u64::try_from(time.timestamp_millis()).unwrap_or(0))
}

/// As [`new_uuid`], and greater than `last` whatever the clock says: for what is kept in the order of its ids.
pub fn uuid_after(last: Option<Uuid>) -> Uuid {
    let after_ms = last.map_or(0, |last| ms_of(last).saturating_add(1));
    uuid_of(now_ms().max(after_ms))
}

/// New UUIDv7 of this moment, each greater than the one before: where many come at once and their order matters. The 12
/// bits behind the version count within a millisecond (RFC 9562, 6.2, method 1).
pub fn uuids_in_order() -> impl Iterator<Item = Uuid> {
    const OF_A_MILLISECOND: u64 = 1 << 12;
    let first_ms = now_ms();
    (0..).map(move |n: u64| {
        let mut bytes = uuid_of(first_ms + n / OF_A_MILLISECOND).into_bytes();
        let [.., high, low] = (n % OF_A_MILLISECOND).to_be_bytes();
        (bytes[6], bytes[7]) = (0x70 | high, low);
        Uuid::from_bytes(bytes)
    })
}

fn uuid_of(ms: u64) -> Uuid {
    // a version 4 from the fast generator of this thread: all but bytes 6 and 8 are random as a whole
    let source = Uuid::new_v4();
    let (head, tail) = (&source.as_bytes()[..6], &source.as_bytes()[9..13]);
    let mut random = [0; 10];
    random[..6].copy_from_slice(head);
    random[6..].copy_from_slice(tail);
    uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
}

/// Milliseconds since 1970 by the wall clock; 0 before that.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(0))
}

fn ms_of(uuid: Uuid) -> u64 {
    let b = uuid.as_bytes();
    u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
}

/// The time in the first 48 bits of a UUIDv7; 1970 where chrono cannot hold it.
pub fn time_of_uuid(uuid: Uuid) -> DateTime<Utc> {
    let ms = i64::try_from(ms_of(uuid)).unwrap_or_default(); // 48 bits
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

/// The public name of a campaign in links: 1-64 characters of `A-Za-z0-9._-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct CampaignKey(Arc<str>);

impl CampaignKey {
    /// Longest key, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CampaignKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=Self::BYTES_MAX).contains(&text.len()) && text.bytes().all(valid) {
            Ok(Self(text.into()))
        } else {
            Err("must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
        }
    }
}

impl std::borrow::Borrow<str> for CampaignKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CampaignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CampaignKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_id_carries_its_time_and_parses_both_ways() {
        let id: ClickId = "019aaf3c-5f00-7abc-8def-0123456789ab".parse().unwrap();
        assert_eq!(id.created_at().timestamp_millis(), 0x019a_af3c_5f00);
        assert_eq!("019aaf3c5f007abc8def0123456789ab".parse(), Ok(id));
        for leg in ["7", "9223372036854775807"] {
            assert_eq!(format!("{id}.{leg}").parse(), Ok(id));
            assert_eq!(format!("{}.{leg}", id.short()).parse(), Ok(id));
        }
        for bad in ["", "x", "-7", "+7", "7.7", "9223372036854775808"] {
            assert!(format!("{id}.{bad}").parse::<ClickId>().is_err(), "{bad}");
        }
        assert!("00000000-0000-0000-0000-000000000000".parse::<ClickId>().is_err());
        assert!(Uuid::new_v4().to_string().parse::<ClickId>().is_err());
    }

    #[test]
    fn the_short_form_is_22_plain_characters_and_the_same_id() {
        for _ in 0..100 {
            let id = ClickId::now();
            let short = id.short();
            assert!(
                short.len() == 22
                    && short.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            );
            assert_eq!(short.parse(), Ok(id));
        }
        let id: ClickId = "019aaf3c-5f00-7abc-8def-0123456789ab".parse().unwrap();
        assert_eq!(id.short(), "AZqvPF8AeryN7wEjRWeJqw");
        for bad in [
            "AZqvPF8AeryN7wEjRWeJqx",  // bits beyond the 128th
            "AZqvPF8AeryN7wEjRWeJq",   // 21
            "AZqvPF8AeryN7wEjRWeJqw=", // padded
            "AZqvPF8AeryN7wEjRWeJq+",  // base64, not base64url
            "AZqvPF8AeryN7wEjRWe qw",
            "AZqvPF8Aer\u{e9}N7wEjRWeJq",
            "AAAAAAAAAAAAAAAAAAAAAA", // no version 7
        ] {
            assert!(bad.parse::<ClickId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_click_id_with_an_offer_behind_it_is_the_same_click() {
        let id = ClickId::now();
        let leg = Leg { click_id: id, offer_id: Some(i64::MAX) };
        assert_eq!(leg.to_string().len(), 56);
        for text in [leg.to_string(), format!("{}.9223372036854775807", id.short())] {
            assert_eq!((text.parse(), text.parse()), (Ok(leg), Ok(id)), "{text}");
        }
        assert_eq!(id.to_string().parse(), Ok(Leg { click_id: id, offer_id: None }));
        for bad in ["", "0", "-1", "+1", "1.2", "a", "9223372036854775808"] {
            assert!(format!("{id}.{bad}").parse::<ClickId>().is_err(), "{bad}");
        }
        assert!(".1".parse::<ClickId>().is_err());
    }

    #[test]
    fn seeds_are_stable_and_spread() {
        let id = ClickId::now();
        assert_eq!(id.seed(), id.seed());
        let low = (0..1000).filter(|_| ClickId::now().seed() < u64::MAX / 2).count();
        assert!((400..600).contains(&low), "{low} of 1000 in the lower half");
    }

    #[test]
    fn ids_are_of_their_millisecond_and_otherwise_random() {
        let ids: Vec<Uuid> = (0..2000).map(|_| uuid_of(0x019a_af3c_5f00)).collect();
        let (mut ones, mut zeros) = (0, 0);
        for id in &ids {
            assert_eq!((ms_of(*id), id.get_version_num()), (0x019a_af3c_5f00, 7));
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            ones |= id.as_u128();
            zeros |= !id.as_u128();
        }
        let random = (u128::MAX >> 48) & !(0xf << 76) & !(0b11 << 62);
        assert_eq!(
            (random.count_ones(), ones & zeros),
            (74, random),
            "each of these bits is now 0 and now 1"
        );
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn an_id_of_now_is_of_now_whatever_the_last_one_said() {
        let ahead = uuid_of(now_ms() + 400 * 86_400_000);
        let later = uuid_after(Some(ahead));
        assert!(later > ahead && ms_of(later) == ms_of(ahead) + 1, "in order");
        let now = ms_of(new_uuid());
        assert!(now <= now_ms() && now + 60_000 > now_ms(), "{now}");
        let first = ms_of(uuid_after(None));
        assert!(first >= now && first < now + 60_000);
    }

    #[test]
    fn keys_are_short_and_plain() {
        assert!("2024".parse::<CampaignKey>().is_ok());
        for bad in ["", "a b", "a/b", "\u{e9}", &"a".repeat(65)] {
            assert!(bad.parse::<CampaignKey>().is_err(), "{bad}");
        }
    }
}
