//! Tokens: what is sealed for an out-link and for a test link.
//!
//! ```text
//! bytes = id of the click 16 | campaign 16 | rule | path | landing page | offer | reason u8 | texts
//!         rule, path, landing page, offer: varint (LEB128) of the id plus 1, 0 where there is none
//!         reason: why the click does not count, its place in the list of reasons from 1, or 0
//! ```
//! Of an out-link it is what the out-click needs of its click: who it is, what was decided, whether it counts, and the
//! texts that the destinations of the path's offers ask for (see `routing::destination`). So any node answers it with
//! every store away, and before its click is stored. Of a test link it is the choices. The time is the one in the id.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use strum::VariantNames as _;
use uuid::Uuid;

use super::{NotOpened, Purpose, keys::Keyring};
use crate::model::{click::InvalidReason, id::ClickId};

/// Most bytes of texts in a token. With all else and base64url that makes at most 1,900 characters, which fit a cookie
/// (4,096 bytes, RFC 6265) and leave the URL of a landing page far short of what servers and proxies take (8 KB).
pub const TEXTS_BYTES_MAX: usize = 1_300;

/// Longest token that is looked at.
const CHARS_MAX: usize = 4_096;

/// How far ahead of ours the clock of the node may have been that made a token.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(1);

/// What a token holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The click; of a test link one of no click.
    pub click_id: ClickId,
    /// Its campaign.
    pub campaign_id: Uuid,
    /// The rule that took it, 0 the default one.
    pub rule_id: Option<i64>,
    /// The path it took.
    pub path_id: Option<i64>,
    /// The landing page it went to.
    pub landing_page_id: Option<i64>,
    /// The offer that was chosen with the page.
    pub offer_id: Option<i64>,
    /// Why the click does not count.
    pub invalid_reason: Option<InvalidReason>,
    /// What the offers' destinations ask for, as `routing::destination` writes and reads it.
    pub texts: Vec<u8>,
}

/// Why a token tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is cut off, changed, made for something else, or no token at all.
    Bad,
    /// It was sealed with a key that is not known here.
    Foreign,
}

impl Ticket {
    /// One of which nothing else is known.
    pub fn new(click_id: ClickId, campaign_id: Uuid) -> Self {
        let (rule_id, path_id, landing_page_id, offer_id) = (None, None, None, None);
        let (invalid_reason, texts) = (None, Vec::new());
        Self { click_id, campaign_id, rule_id, path_id, landing_page_id, offer_id, invalid_reason, texts }
    }

    /// The token, in base64url without padding.
    pub fn seal(&self, keyring: &Keyring, purpose: Purpose, now: DateTime<Utc>) -> String {
        keyring.seal(purpose, &self.encode(), now)
    }

    /// Reads a token, of whatever age: see [`Ticket::is_older_than`].
    pub fn open(keyring: &Keyring, purpose: Purpose, token: &str) -> Result<Self, Refused> {
        if token.len() > CHARS_MAX {
            return Err(Refused::Bad);
        }
        let bytes = keyring.open_text(purpose, token).map_err(|why| match why {
            NotOpened::Bad => Refused::Bad,
            NotOpened::UnknownKey => Refused::Foreign,
        })?;
        Self::decode(&bytes).ok_or(Refused::Bad)
    }

    /// Whether it was made longer ago than tokens live, or is of a time that is to come.
    pub fn is_older_than(&self, lives: Duration, now: DateTime<Utc>) -> bool {
        let age = now - self.click_id.created_at();
        age > TimeDelta::from_std(lives).unwrap_or(TimeDelta::MAX) || age < -AHEAD_MAX
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.texts.len());
        out.extend_from_slice(self.click_id.uuid().as_bytes());
        out.extend_from_slice(self.campaign_id.as_bytes());
        for id in [self.rule_id, self.path_id, self.landing_page_id, self.offer_id] {
            put_id(&mut out, id);
        }
        out.push(self.invalid_reason.map_or(0, number));
        out.extend_from_slice(&self.texts);
        out
    }

    /// `None`: a later release sealed something else.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (click_id, rest) = bytes.split_first_chunk()?;
        let (campaign_id, mut rest) = rest.split_first_chunk()?;
        let mut ids = [None; 4];
        for id in &mut ids {
            *id = take_id(&mut rest).ok()?;
        }
        let (&reason, texts) = rest.split_first()?;
        let [rule_id, path_id, landing_page_id, offer_id] = ids;
        Some(Self {
            rule_id,
            path_id,
            landing_page_id,
            offer_id,
            invalid_reason: reason_of(reason).ok()?,
            texts: texts.to_vec(),
            ..Self::new(ClickId::from_uuid(Uuid::from_bytes(*click_id))?, Uuid::from_bytes(*campaign_id))
        })
    }
}

/// The place of a reason in the list, from 1.
fn number(reason: InvalidReason) -> u8 {
    let place = InvalidReason::VARIANTS.iter().position(|name| *name == <&str>::from(reason));
    place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0)
}

/// `Err`: a reason of a later release.
fn reason_of(number: u8) -> Result<Option<InvalidReason>, Unreadable> {
    let Some(place) = number.checked_sub(1) else { return Ok(None) };
    let name = InvalidReason::VARIANTS.get(usize::from(place)).ok_or(Unreadable)?;
    name.parse().map(Some).map_err(|_| Unreadable)
}

/// The bytes are none of ours, or of a later release.
#[derive(Debug)]
struct Unreadable;

/// Ids are above 0, or 0.
fn put_id(out: &mut Vec<u8>, id: Option<i64>) {
    let mut rest = id.and_then(|id| u64::try_from(id).ok()).map_or(0, |id| id + 1);
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

fn take_id(bytes: &mut &[u8]) -> Result<Option<i64>, Unreadable> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Unreadable)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number.checked_sub(1).and_then(|id| i64::try_from(id).ok()));
        }
    }
    // 2^63 itself, of the greatest id
    let (&byte, rest) = bytes.split_first().ok_or(Unreadable)?;
    *bytes = rest;
    if byte == 1 && number == 0 { Ok(Some(i64::MAX)) } else { Err(Unreadable) }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    fn keyring() -> (tempfile::TempDir, Keyring) {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(dir.path().join("token-keys.json")).unwrap();
        (dir, keyring)
    }

    fn id() -> impl Strategy<Value = Option<i64>> {
        proptest::option::of(prop_oneof![
            0..300_i64,
            Just(i64::MAX),
            any::<i64>().prop_map(|id| id & i64::MAX)
        ])
    }

    proptest! {
        #[test]
        fn a_ticket_reads_back_as_it_was_sealed(
            ids in (id(), id(), id(), id()),
            reason in 0..=InvalidReason::VARIANTS.len(),
            texts in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let (_dir, keyring) = keyring();
            let ticket = Ticket {
                rule_id: ids.0,
                path_id: ids.1,
                landing_page_id: ids.2,
                offer_id: ids.3,
                invalid_reason: reason_of(u8::try_from(reason).unwrap()).unwrap(),
                texts,
                ..Ticket::new(ClickId::now(), Uuid::new_v4())
            };
            let token = ticket.seal(&keyring, Purpose::Out, Utc::now());
            prop_assert_eq!(Ticket::open(&keyring, Purpose::Out, &token), Ok(ticket));
            prop_assert_eq!(Ticket::open(&keyring, Purpose::Test, &token), Err(Refused::Bad));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(ticket) = Ticket::decode(&bytes) {
                prop_assert_eq!(Ticket::decode(&ticket.encode()), Some(ticket));
            }
        }
    }

    #[test]
    fn a_token_is_short_and_the_longest_fits_a_cookie() {
        let (_dir, keyring) = keyring();
        let mut ticket = Ticket::new(ClickId::now(), Uuid::new_v4());
        for id in [&mut ticket.rule_id, &mut ticket.path_id, &mut ticket.landing_page_id] {
            *id = Some(123_456);
        }
        ticket.texts = vec![0; 60];
        let typical = ticket.seal(&keyring, Purpose::Out, Utc::now()).len();
        assert!(typical < 200 + 20, "{typical}");
        for id in
            [&mut ticket.rule_id, &mut ticket.path_id, &mut ticket.landing_page_id, &mut ticket.offer_id]
        {
            *id = Some(i64::MAX);
        }
        ticket.texts = vec![0; TEXTS_BYTES_MAX];
        let longest = ticket.seal(&keyring, Purpose::Out, Utc::now()).len();
        assert!(longest <= 1_900, "{longest}");
    }

    #[test]
    fn a_ticket_ages_and_one_of_the_future_is_none() {
        let day = Duration::from_hours(24);
        let made = |ms_ago: i64| {
            let now = Utc::now().timestamp_millis() - ms_ago;
            let uuid = uuid::Builder::from_unix_timestamp_millis(u64::try_from(now).unwrap(), &[0; 10]);
            Ticket::new(ClickId::from_uuid(uuid.into_uuid()).unwrap(), Uuid::nil())
        };
        let (now, hour_ms) = (Utc::now(), 3_600_000);
        for (ms_ago, is_old) in [
            (0, false),
            (23 * hour_ms, false),
            (25 * hour_ms, true),
            (-hour_ms / 2, false),
            (-2 * hour_ms, true),
        ] {
            assert_eq!(made(ms_ago).is_older_than(day, now), is_old, "{ms_ago}");
        }
    }
}
