//! Tokens: what is sealed for an out-link and for a test link.
//!
//! Both are a click, cut down to what is needed later, in the bytes that the journal has of clicks (see `facts::record`),
//! so that what a release adds to a click is read and passed over as there. Of an out-link it is the click whose landing
//! page shows the link: its ids, what was decided, whether it counts, and what the offers' templates use of it. Of a test
//! link it is the choices, and the time of the id is when it was made.

use std::{borrow::Cow, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{NotOpened, Purpose, keys::Keyring};
use crate::facts::{click::Click, record::Record};

/// Longest click in a token, in bytes: 37 more and a third for base64url make 2,000 characters, which fit the cookie
/// (4,096 bytes by RFC 6265) and leave the URL of a landing page short of what servers and proxies take (8 KB).
const CLICK_BYTES_MAX: usize = 1_463;

/// How far ahead of ours the clock of the node may have been that made a token.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(1);

/// Why a token does not tell its click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is cut off, changed, made for something else, or no token at all.
    Bad,
    /// It was sealed with a key that is not known here.
    Foreign,
    /// It is too old.
    Old,
}

/// What a token held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    record: Vec<u8>,
    /// Whether it is older than tokens live: what it says is true, but was long ago.
    pub is_old: bool,
}

/// Seals a cut click. Of one that is too long the longest texts are left out until it fits: an offer's URL then lacks
/// those. Returns the token, and how many texts were left out.
pub fn make(keyring: &Keyring, purpose: Purpose, click: &mut Click<'_>, now: DateTime<Utc>) -> (String, u32) {
    let (mut record, mut left_out) = (Vec::with_capacity(256), 0);
    click.encode(&mut record);
    while record.len() > CLICK_BYTES_MAX {
        let longest = texts(click).max_by_key(|text| text.as_ref().map_or(0, |text| text.len()));
        if longest.and_then(Option::take).is_none() {
            break;
        }
        left_out += 1;
        record.clear();
        click.encode(&mut record);
    }
    (keyring.seal(purpose, &record, now), left_out)
}

/// Opens a token, whatever its age up to when its key is forgotten.
pub fn open(
    keyring: &Keyring,
    purpose: Purpose,
    token: &str,
    now: DateTime<Utc>,
    lives: Duration,
) -> Result<Opened, Refused> {
    let record = keyring.open_text(purpose, token).map_err(|why| match why {
        NotOpened::Bad => Refused::Bad,
        NotOpened::UnknownKey => Refused::Foreign,
    })?;
    let mut opened = Opened { record, is_old: false };
    let made = opened.click().ok_or(Refused::Bad)?.id.created_at();
    let age = now - made;
    opened.is_old = age > TimeDelta::from_std(lives).unwrap_or(TimeDelta::MAX) || -age > AHEAD_MAX;
    Ok(opened)
}

impl Opened {
    /// The cut click; `None` where a later release sealed something else.
    pub fn click(&self) -> Option<Box<Click<'_>>> {
        match Record::decode(&self.record) {
            Ok(Record::Click(click)) => Some(click),
            _ => None,
        }
    }
}

/// The texts of a click that may be long.
fn texts<'c, 'a>(click: &'c mut Click<'a>) -> impl Iterator<Item = &'c mut Option<Cow<'a, str>>> {
    let others =
        [&mut click.user_agent, &mut click.referrer, &mut click.click_id_param, &mut click.traffic_source_id];
    click.subs.iter_mut().chain(&mut click.aff_subs).chain(others)
}
