//! A database of addresses in MaxMind's format, read whole into memory: one that is built in or the operator's own.
//!
//! A maker of such files names the same thing in one of several shapes; which one a file has is found once, at the start.
//!
//! What stays out: what the texts mean (`geo`, `places`), and watching a file for changes; a restart reads it again.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use chrono::DateTime;
use maxminddb::{LookupResult, PathElement, Reader, WithinOptions};

use super::Error;

/// Records of a file that are tried for something before the file counts as one that does not know it: a fraction of a
/// second.
const RECORDS_TRIED: usize = 200_000;

/// Where in a record something stands.
pub(super) type Place = &'static [PathElement<'static>];

/// What a file says of one address.
pub(super) type Record<'d> = LookupResult<'d, Cow<'static, [u8]>>;

pub(super) struct Database {
    reader: Reader<Cow<'static, [u8]>>,
    /// Where it comes from: a path, or the name of what is built in.
    origin: String,
}

impl Database {
    /// Reads the file that a key of the configuration names.
    pub(super) fn open(key: &'static str, path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable { key, path: path.into(), source };
        let bytes = std::fs::read(path).map_err(|source| unreadable(source.into()))?;
        let reader = Reader::from_source(Cow::Owned(bytes)).map_err(unreadable)?;
        Ok(Self { reader, origin: path.display().to_string() })
    }

    pub(super) fn built_in(bytes: &'static [u8]) -> Self {
        let reader = Reader::from_source(Cow::Borrowed(bytes));
        Self { reader: reader.expect("the data built in is read by every test"), origin: "built in".into() }
    }

    /// What the file says of an address. An IPv4 address that an IPv6 one stands for is looked up as IPv4, and one that is
    /// nowhere in particular is not looked up.
    pub(super) fn get(&self, ip: IpAddr) -> Option<Record<'_>> {
        let ip = match ip {
            IpAddr::V6(v6) => ipv4_inside(v6).map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        if is_local(ip) { None } else { self.reader.lookup(ip).ok() }
    }

    /// The first of these places at which some record of the file holds a text that passes; `None`: it does not know
    /// such a thing.
    pub(super) fn find(&self, places: &[Place], is_wanted: impl Fn(&str) -> bool) -> Option<Place> {
        let records = self.reader.networks(WithinOptions::default()).ok()?;
        records.take(RECORDS_TRIED).flatten().find_map(|record| {
            places.iter().copied().find(|place| text_at(&record, place).is_some_and(&is_wanted))
        })
    }

    /// Where it comes from, its kind and its day, for the start-up line.
    pub(super) fn source(&self) -> String {
        format!("{} ({}, {})", self.origin, self.reader.metadata().database_type, self.date())
    }

    /// The day the data was built, UTC.
    pub(super) fn date(&self) -> String {
        let epoch = self.reader.metadata().build_epoch;
        let built = i64::try_from(epoch).ok().and_then(|epoch| DateTime::from_timestamp(epoch, 0));
        built.map_or_else(|| "date unknown".into(), |built| built.format("%Y-%m-%d").to_string())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The text at a place of a record; `None` where there is none, or an empty one.
pub(super) fn text_at<'d>(record: &Record<'d>, place: Place) -> Option<&'d str> {
    record.decode_path(place).ok()?.filter(|text: &&str| !text.is_empty())
}

/// The IPv4 address that an IPv6 address stands for: mapped (`::ffff:0:0/96`), translated under the well-known prefix of
/// NAT64 (`64:ff9b::/96`, RFC 6052), or tunnelled by 6to4 (`2002::/16`, RFC 3056) or Teredo (`2001::/32`, RFC 4380: that of
/// the client's NAT, inverted). Such IPv6 networks lie in no country, their IPv4 ends do. A NAT64 prefix of somebody's
/// own (`64:ff9b:1::/48`, RFC 8215) does not say where in it the address stands.
fn ipv4_inside(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xFFFF, high, low]
        | [0x64, 0xFF9B, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(pair(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(pair(!high, !low)),
        _ => None,
    }
}

/// Addresses that are nowhere in particular: private, local, multicast, of documentation. The data is not
/// asked, since that built in has 192.168.0.0 in Australia.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_carrier_nat = a == 100 && (64..128).contains(&b);
            let is_reserved = a == 0 || a == 127 || a >= 224;
            is_reserved || is_carrier_nat || ip.is_private() || ip.is_link_local() || ip.is_documentation()
        }
        IpAddr::V6(ip) => {
            let is_global_unicast = ip.segments()[0] & 0xE000 == 0x2000;
            !is_global_unicast || ip.segments().starts_with(&[0x2001, 0x0DB8])
        }
    }
}
