//! The bytes of one fact in the journal.
//!
//! ```text
//! record = kind u8 | field*          kind: 1 click, 2 event, 3 erased (zeros follow)
//! field  = tag u8 | length varint (LEB128) | bytes
//! ```
//! Integers are little-endian, UUIDs 16 bytes, texts UTF-8, addresses 4 or 16 bytes. An absent value is an
//! absent field. A reader skips tags it does not know, so an older octo can drain a newer journal; a tag is
//! never used again for something else.

use std::{borrow::Cow, io::Write as _, net::IpAddr};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::{
    facts::{
        click::Click,
        event::{Event, Source},
    },
    model::{
        click::Adjusted,
        id::ClickId,
        money::{Currency, parse_amount},
    },
};

/// One accepted fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A click.
    Click(Box<Click<'a>>),
    /// An event.
    Event(Box<Event<'a>>),
    /// What it was is gone.
    Erased,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A length points past the end.
    #[error("the record ends in the middle of a field")]
    Truncated,
    /// The first byte is no known kind.
    #[error("the record is of the unknown kind {0}")]
    Kind(u8),
    /// A field does not hold what its tag says.
    #[error("field {0} does not hold a valid value")]
    Field(u8),
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(u8),
}

const CLICK: u8 = 1;
const EVENT: u8 = 2;
const ERASED: u8 = 3;

mod tag {
    pub(crate) const ID: u8 = 1;
    pub(crate) const CAMPAIGN_ID: u8 = 2;
    // clicks
    pub(crate) const IP: u8 = 3;
    pub(crate) const USER_AGENT: u8 = 4;
    pub(crate) const REFERRER: u8 = 5;
    pub(crate) const IS_BOT: u8 = 6;
    pub(crate) const INVALID_REASON: u8 = 7;
    pub(crate) const COUNTRY: u8 = 8;
    pub(crate) const DEVICE: u8 = 9;
    pub(crate) const OS: u8 = 10;
    pub(crate) const BROWSER: u8 = 11;
    pub(crate) const SUB1: u8 = 12; // to 16
    pub(crate) const AFF_SUB1: u8 = 17; // to 21
    pub(crate) const CLICK_ID_PARAM: u8 = 22;
    pub(crate) const LANDING_PAGE_ID: u8 = 23;
    pub(crate) const CAMPAIGN_OFFER_ID: u8 = 24;
    pub(crate) const TRAFFIC_SOURCE_ID: u8 = 25;
    pub(crate) const COST: u8 = 26;
    pub(crate) const CURRENCY: u8 = 27;
    pub(crate) const ADJUSTED: u8 = 28; // one byte: a bit for each Adjustment
    // events
    pub(crate) const CREATED_AT_MS: u8 = 40;
    pub(crate) const CLICK_ID: u8 = 41;
    pub(crate) const CID: u8 = 42;
    pub(crate) const EVENT_TYPE: u8 = 43;
    pub(crate) const EVENT_NAME: u8 = 44;
    pub(crate) const URL: u8 = 45;
    pub(crate) const SESSION_ID: u8 = 46;
    pub(crate) const USER_ID: u8 = 47;
    pub(crate) const PROPERTIES: u8 = 48;
    pub(crate) const IS_IDEMPOTENT: u8 = 49;
    pub(crate) const TOKEN_ID: u8 = 50; // absent: public
    pub(crate) const EXTERNAL_ID: u8 = 51;
    pub(crate) const OCCURRED_AT_MS: u8 = 52;
}

impl Click<'_> {
    /// Appends the bytes of this click to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(CLICK);
        put(out, tag::ID, self.id.uuid().as_bytes());
        put(out, tag::CAMPAIGN_ID, self.campaign_id.as_bytes());
        match self.ip {
            Some(IpAddr::V4(ip)) => put(out, tag::IP, &ip.octets()),
            Some(IpAddr::V6(ip)) => put(out, tag::IP, &ip.octets()),
            None => {}
        }
        put_text(out, tag::USER_AGENT, self.user_agent.as_deref());
        put_text(out, tag::REFERRER, self.referrer.as_deref());
        if self.is_bot {
            put(out, tag::IS_BOT, &[]);
        }
        put_text(out, tag::INVALID_REASON, self.invalid_reason.map(Into::into));
        put_text(out, tag::COUNTRY, self.country.as_deref());
        put_text(out, tag::DEVICE, self.device.as_deref());
        put_text(out, tag::OS, self.os.as_deref());
        put_text(out, tag::BROWSER, self.browser.as_deref());
        for (tag, sub) in (tag::SUB1..).zip(&self.subs) {
            put_text(out, tag, sub.as_deref());
        }
        for (tag, sub) in (tag::AFF_SUB1..).zip(&self.aff_subs) {
            put_text(out, tag, sub.as_deref());
        }
        put_text(out, tag::CLICK_ID_PARAM, self.click_id_param.as_deref());
        put_i64(out, tag::LANDING_PAGE_ID, self.landing_page_id);
        put_i64(out, tag::CAMPAIGN_OFFER_ID, self.campaign_offer_id);
        put_text(out, tag::TRAFFIC_SOURCE_ID, self.traffic_source_id.as_deref());
        put_amount(out, tag::COST, self.cost);
        put_text(out, tag::CURRENCY, self.currency.as_ref().map(Currency::as_str));
        if !self.adjusted.is_empty() {
            put(out, tag::ADJUSTED, &[self.adjusted.bits()]);
        }
    }
}

impl Event<'_> {
    /// Appends the bytes of this event to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(EVENT);
        put(out, tag::ID, self.id.as_bytes());
        put_i64(out, tag::CREATED_AT_MS, Some(self.created_at.timestamp_millis()));
        if self.is_idempotent {
            put(out, tag::IS_IDEMPOTENT, &[]);
        }
        if let Source::Token(id) = self.source {
            put(out, tag::TOKEN_ID, id.as_bytes());
        }
        put_text(out, tag::EXTERNAL_ID, self.external_id.as_deref());
        put_i64(out, tag::OCCURRED_AT_MS, self.occurred_at.map(|at| at.timestamp_millis()));
        if let Some(id) = self.click_id {
            put(out, tag::CLICK_ID, id.uuid().as_bytes());
        }
        if let Some(id) = self.campaign_id {
            put(out, tag::CAMPAIGN_ID, id.as_bytes());
        }
        put_text(out, tag::CID, self.cid.as_deref());
        put_text(out, tag::EVENT_TYPE, Some(&self.event_type));
        put_text(out, tag::EVENT_NAME, self.event_name.as_deref());
        put_text(out, tag::URL, self.url.as_deref());
        put_text(out, tag::REFERRER, self.referrer.as_deref());
        put_text(out, tag::SESSION_ID, self.session_id.as_deref());
        put_text(out, tag::USER_ID, self.user_id.as_deref());
        put_text(out, tag::PROPERTIES, self.properties.as_deref());
    }
}

/// Makes the bytes of a record those of an erased one.
pub fn blank(bytes: &mut [u8]) {
    bytes.fill(0);
    if let Some(kind) = bytes.first_mut() {
        *kind = ERASED;
    }
}

impl<'a> Record<'a> {
    /// Reads what `encode` wrote; texts are borrowed from `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.split_first() {
            Some((&CLICK, fields)) => decode_click(fields).map(|c| Self::Click(Box::new(c))),
            Some((&EVENT, fields)) => decode_event(fields).map(|e| Self::Event(Box::new(e))),
            Some((&ERASED, _)) => Ok(Self::Erased),
            Some((&kind, _)) => Err(Malformed::Kind(kind)),
            None => Err(Malformed::Truncated),
        }
    }
}

fn decode_click(bytes: &[u8]) -> Result<Click<'_>, Malformed> {
    let any = ClickId::from_uuid(Uuid::from_u128(0x7000 << 64)).expect("version 7");
    let mut click = Click::new(any, Uuid::nil());
    let (mut has_id, mut has_campaign) = (false, false);
    for field in (Fields { rest: bytes }) {
        let field = field?;
        match field.tag {
            tag::ID => (click.id, has_id) = (field.click_id()?, true),
            tag::CAMPAIGN_ID => (click.campaign_id, has_campaign) = (field.uuid()?, true),
            tag::IP => click.ip = Some(field.ip()?),
            tag::USER_AGENT => click.user_agent = Some(field.text()?),
            tag::REFERRER => click.referrer = Some(field.text()?),
            tag::IS_BOT => click.is_bot = true,
            tag::INVALID_REASON => click.invalid_reason = Some(field.parsed()?),
            tag::COUNTRY => click.country = Some(field.text()?),
            tag::DEVICE => click.device = Some(field.text()?),
            tag::OS => click.os = Some(field.text()?),
            tag::BROWSER => click.browser = Some(field.text()?),
            t @ tag::SUB1..tag::AFF_SUB1 => click.subs[usize::from(t - tag::SUB1)] = Some(field.text()?),
            t @ tag::AFF_SUB1..tag::CLICK_ID_PARAM => {
                click.aff_subs[usize::from(t - tag::AFF_SUB1)] = Some(field.text()?);
            }
            tag::CLICK_ID_PARAM => click.click_id_param = Some(field.text()?),
            tag::LANDING_PAGE_ID => click.landing_page_id = Some(field.i64()?),
            tag::CAMPAIGN_OFFER_ID => click.campaign_offer_id = Some(field.i64()?),
            tag::TRAFFIC_SOURCE_ID => click.traffic_source_id = Some(field.text()?),
            tag::COST => click.cost = Some(field.amount()?),
            tag::CURRENCY => click.currency = Some(field.parsed()?),
            tag::ADJUSTED => click.adjusted = Adjusted::from_bits(field.bytes.first().copied().unwrap_or(0)),
            _ => {}
        }
    }
    match (has_id, has_campaign) {
        (true, true) => Ok(click),
        (false, _) => Err(Malformed::Missing(tag::ID)),
        (_, false) => Err(Malformed::Missing(tag::CAMPAIGN_ID)),
    }
}

fn decode_event(bytes: &[u8]) -> Result<Event<'_>, Malformed> {
    let mut event = Event::new(Uuid::nil(), "", DateTime::UNIX_EPOCH);
    for field in (Fields { rest: bytes }) {
        let field = field?;
        match field.tag {
            tag::ID => event.id = field.uuid()?,
            tag::IS_IDEMPOTENT => event.is_idempotent = true,
            tag::TOKEN_ID => event.source = Source::Token(field.uuid()?),
            tag::EXTERNAL_ID => event.external_id = Some(field.text()?),
            tag::CREATED_AT_MS => event.created_at = field.time()?,
            tag::OCCURRED_AT_MS => event.occurred_at = Some(field.time()?),
            tag::CLICK_ID => event.click_id = Some(field.click_id()?),
            tag::CAMPAIGN_ID => event.campaign_id = Some(field.uuid()?),
            tag::CID => event.cid = Some(field.text()?),
            tag::EVENT_TYPE => event.event_type = field.text()?,
            tag::EVENT_NAME => event.event_name = Some(field.text()?),
            tag::URL => event.url = Some(field.text()?),
            tag::REFERRER => event.referrer = Some(field.text()?),
            tag::SESSION_ID => event.session_id = Some(field.text()?),
            tag::USER_ID => event.user_id = Some(field.text()?),
            tag::PROPERTIES => event.properties = Some(field.text()?),
            _ => {}
        }
    }
    if event.id.is_nil() {
        return Err(Malformed::Missing(tag::ID));
    }
    if event.event_type.is_empty() {
        return Err(Malformed::Missing(tag::EVENT_TYPE));
    }
    Ok(event)
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: Option<&str>) {
    if let Some(text) = text {
        put(out, tag, text.as_bytes());
    }
}

fn put_amount(out: &mut Vec<u8>, tag: u8, amount: Option<Decimal>) {
    if let Some(amount) = amount {
        out.extend_from_slice(&[tag, 0]);
        let start = out.len();
        let _ = write!(out, "{amount}"); // writing to a Vec does not fail
        let length = out.len() - start;
        debug_assert!(length < 0x80, "a Decimal has at most 31 characters");
        out[start - 1] = length.to_le_bytes()[0];
    }
}

fn put_i64(out: &mut Vec<u8>, tag: u8, value: Option<i64>) {
    if let Some(value) = value {
        put(out, tag, &value.to_le_bytes());
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

struct Field<'a> {
    tag: u8,
    bytes: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.rest.split_first()?;
        let field = take_length(rest).and_then(|(length, rest)| rest.split_at_checked(length));
        Some(if let Some((bytes, rest)) = field {
            self.rest = rest;
            Ok(Field { tag, bytes })
        } else {
            self.rest = &[];
            Err(Malformed::Truncated)
        })
    }
}

/// LEB128, at most four bytes (a record is far smaller than 256 MiB).
fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some((length, &bytes[i + 1..]));
        }
    }
    None
}

impl<'a> Field<'a> {
    fn text(&self) -> Result<Cow<'a, str>, Malformed> {
        std::str::from_utf8(self.bytes).map(Cow::Borrowed).map_err(|_| Malformed::Field(self.tag))
    }

    fn parsed<T: std::str::FromStr>(&self) -> Result<T, Malformed> {
        self.text()?.parse().map_err(|_| Malformed::Field(self.tag))
    }

    fn uuid(&self) -> Result<Uuid, Malformed> {
        Uuid::from_slice(self.bytes).map_err(|_| Malformed::Field(self.tag))
    }

    fn click_id(&self) -> Result<ClickId, Malformed> {
        ClickId::from_uuid(self.uuid()?).ok_or(Malformed::Field(self.tag))
    }

    fn i64(&self) -> Result<i64, Malformed> {
        self.bytes.try_into().map(i64::from_le_bytes).map_err(|_| Malformed::Field(self.tag))
    }

    fn time(&self) -> Result<DateTime<Utc>, Malformed> {
        DateTime::from_timestamp_millis(self.i64()?).ok_or(Malformed::Field(self.tag))
    }

    fn amount(&self) -> Result<Decimal, Malformed> {
        parse_amount(&self.text()?).map_err(|_| Malformed::Field(self.tag))
    }

    fn ip(&self) -> Result<IpAddr, Malformed> {
        if let Ok(v4) = <[u8; 4]>::try_from(self.bytes) {
            return Ok(v4.into());
        }
        <[u8; 16]>::try_from(self.bytes).map(IpAddr::from).map_err(|_| Malformed::Field(self.tag))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::click::InvalidReason;

    fn text() -> impl Strategy<Value = Option<Cow<'static, str>>> {
        proptest::option::of(".{0,300}").prop_map(|t| t.map(Cow::Owned))
    }

    prop_compose! {
        fn clicks()(
            texts in proptest::collection::vec(text(), 18),
            ip in proptest::option::of(any::<IpAddr>()),
            numbers in any::<[Option<i64>; 2]>(),
            is_bot in any::<bool>(),
            cost in proptest::option::of(0u32..1_000_000),
            adjusted in any::<u8>(),
        ) -> Click<'static> {
            let mut t = texts.into_iter();
            let mut next = || t.next().flatten();
            Click {
                id: ClickId::now(),
                campaign_id: crate::model::id::new_uuid(),
                ip,
                user_agent: next(),
                referrer: next(),
                invalid_reason: is_bot.then_some(InvalidReason::Bot),
                is_bot,
                country: next(),
                device: next(),
                os: next(),
                browser: next(),
                subs: std::array::from_fn(|_| next()),
                aff_subs: std::array::from_fn(|_| next()),
                click_id_param: next(),
                landing_page_id: numbers[0],
                campaign_offer_id: numbers[1],
                traffic_source_id: next(),
                cost: cost.map(|c| Decimal::new(c.into(), 4)),
                currency: cost.map(|_| Currency::USD),
                adjusted: Adjusted::from_bits(adjusted),
            }
        }
    }

    proptest! {
        #[test]
        fn every_click_reads_back_as_it_was_written(click in clicks()) {
            let mut bytes = Vec::new();
            click.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(Record::Click(Box::new(click))));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn an_event_reads_back_as_it_was_written() {
        let event = Event {
            id: Uuid::new_v4(),
            is_idempotent: true,
            source: Source::Token(Uuid::new_v4()),
            external_id: Some("order-1001".into()),
            created_at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            occurred_at: DateTime::from_timestamp_millis(1_699_999_999_456),
            click_id: Some(ClickId::now()),
            campaign_id: None,
            cid: Some("demo".into()),
            event_type: "purchase".into(),
            event_name: None,
            url: Some("https://shop.example/".into()),
            referrer: None,
            session_id: None,
            user_id: Some("42".into()),
            properties: Some(r#"{"a":1}"#.into()),
        };
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Ok(Record::Event(Box::new(event))));
    }

    /// Written by 4dc01c4, before events had a source, a time of their own and ids that are texts.
    #[test]
    fn an_event_of_an_earlier_release_is_still_read() {
        const BYTES: &str = "0201100197000000007000800000000000000128087b68e5cf8b01000031002910019aaf3c5f007abc8def01234567\
            89ab0210000000000000000000000000000000072a0464656d6f2b0870757263686173652c054f726465722d1568747470733a2f2f73686f702e\
            6578616d706c652f051568747470733a2f2f6e6577732e6578616d706c652f2e0273312f02343230077b2261223a317d";
        let digits: Vec<u8> = BYTES.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        let event = Event {
            is_idempotent: true,
            click_id: "019aaf3c-5f00-7abc-8def-0123456789ab".parse().ok(),
            campaign_id: Some(Uuid::from_u128(7)),
            cid: Some("demo".into()),
            event_name: Some("Order".into()),
            url: Some("https://shop.example/".into()),
            referrer: Some("https://news.example/".into()),
            session_id: Some("s1".into()),
            user_id: Some("42".into()),
            properties: Some(r#"{"a":1}"#.into()),
            ..Event::new(
                Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001),
                "purchase",
                DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            )
        };
        assert_eq!((event.source, event.key()), (Source::Public, Some(event.id)));
        let mut again = Vec::new();
        event.encode(&mut again);
        assert_eq!(again, bytes, "and an earlier release reads what has nothing new");
        assert_eq!(Record::decode(&bytes), Ok(Record::Event(Box::new(event))));
    }

    /// A click of version 0.1.0 as it stands in a journal: every field but the address of version 6.
    fn old_click() -> (Vec<u8>, Click<'static>) {
        let id = *b"\x01\x9a\xaf\x3c\x5f\x00\x7a\xbc\x8d\xef\x01\x23\x45\x67\x89\xab";
        let mut bytes = b"\x01\x01\x10".to_vec();
        bytes.extend(id);
        bytes.extend(b"\x02\x10");
        bytes.extend(id);
        bytes.extend(b"\x03\x04\xc0\x00\x02\x01\x04\x05agent\x05\x0ehttps://x.test\x06\x00\x07\x03bot");
        bytes.extend(b"\x08\x02DE\x09\x06mobile\x0a\x07Android\x0b\x06Chrome");
        bytes.extend(b"\x0c\x01a\x0d\x02\xc3\xa9\x0e\x00\x0f\x01d\x10\x01e\x11\x01f\x12\x01g\x13\x01h\x14\x01i\x15\x01j");
        bytes.extend(b"\x16\x80\x01");
        bytes.extend([b'c'; 128]);
        bytes.extend(b"\x17\x08\x05\0\0\0\0\0\0\0\x18\x08\xff\xff\xff\xff\xff\xff\xff\xff");
        bytes.extend(b"\x19\x02fb\x1a\x060.0125\x1b\x03EUR");
        let text = |t: &'static str| Some(Cow::Borrowed(t));
        let click = Click {
            ip: Some([192, 0, 2, 1].into()),
            user_agent: text("agent"),
            referrer: text("https://x.test"),
            invalid_reason: Some(InvalidReason::Bot),
            is_bot: true,
            country: text("DE"),
            device: text("mobile"),
            os: text("Android"),
            browser: text("Chrome"),
            subs: ["a", "\u{e9}", "", "d", "e"].map(text),
            aff_subs: ["f", "g", "h", "i", "j"].map(text),
            click_id_param: Some("c".repeat(128).into()),
            landing_page_id: Some(5),
            campaign_offer_id: Some(-1),
            traffic_source_id: text("fb"),
            cost: Some(Decimal::new(125, 4)),
            currency: Some("EUR".parse().unwrap()),
            ..Click::new(ClickId::from_uuid(Uuid::from_bytes(id)).unwrap(), Uuid::from_bytes(id))
        };
        (bytes, click)
    }

    #[test]
    fn a_click_of_an_older_octo_reads_as_what_it_was_and_is_still_written_so() {
        let (bytes, click) = old_click();
        assert_eq!(Record::decode(&bytes), Ok(Record::Click(Box::new(click.clone()))));
        let mut written = Vec::new();
        click.encode(&mut written);
        assert_eq!(written, bytes);
    }

    #[test]
    fn what_was_adjusted_comes_behind_what_an_older_octo_reads() {
        let (mut bytes, mut click) = old_click();
        click.adjusted = Adjusted::from_bits(0b10_0001);
        bytes.extend(b"\x1c\x01\x21");
        let mut written = Vec::new();
        click.encode(&mut written);
        assert_eq!(written, bytes);
        bytes.truncate(bytes.len() - 3);
        bytes.extend(b"\x1c\x02\xff\x01"); // more than this octo knows
        let Ok(Record::Click(read)) = Record::decode(&bytes) else { panic!("no click") };
        assert_eq!(read.adjusted, Adjusted::from_bits(u8::MAX));
    }

    #[test]
    fn unknown_fields_are_skipped_and_a_cut_record_is_refused() {
        let mut bytes = vec![EVENT];
        put(&mut bytes, tag::ID, Uuid::new_v4().as_bytes());
        put(&mut bytes, 250, b"from the future");
        put_text(&mut bytes, tag::EVENT_TYPE, Some("view"));
        assert!(Record::decode(&bytes).is_ok());
        assert_eq!(Record::decode(&bytes[..bytes.len() - 1]), Err(Malformed::Truncated));
    }
}
