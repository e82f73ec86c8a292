//! The bytes of one fact in the journal.
//!
//! ```text
//! record = kind u8 | field*          kind: 1 click, 2 event, 3 erased (zeros follow), 4 out-click, 5 postback
//! field  = tag u8 | length varint (LEB128) | bytes
//! ```
//! Which tag is which field's stands in the table of each fact. A reader skips tags it does not know, so an older octo
//! can drain a newer journal; a tag is never used again for something else.

use super::{Fact, click::Click, event::Event, out_click::OutClick, postback::Postback};

pub use super::wire::Malformed;

/// One accepted fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A click.
    Click(Box<Click<'a>>),
    /// An event.
    Event(Box<Event<'a>>),
    /// An out-click.
    OutClick(Box<OutClick<'a>>),
    /// A postback.
    Postback(Box<Postback<'a>>),
    /// What it was is gone.
    Erased,
}

const ERASED: u8 = 3;

/// Makes the bytes of a record those of an erased one.
pub fn blank(bytes: &mut [u8]) {
    bytes.fill(0);
    if let Some(kind) = bytes.first_mut() {
        *kind = ERASED;
    }
}

impl<'a> Record<'a> {
    /// Reads what `encode` of a fact wrote; texts are borrowed from `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.split_first() {
            Some((&Click::KIND_BYTE, fields)) => Click::decode(fields).map(|c| Self::Click(Box::new(c))),
            Some((&Event::KIND_BYTE, fields)) => Event::decode(fields).map(|e| Self::Event(Box::new(e))),
            Some((&OutClick::KIND_BYTE, fields)) => {
                OutClick::decode(fields).map(|o| Self::OutClick(Box::new(o)))
            }
            Some((&Postback::KIND_BYTE, fields)) => {
                Postback::decode(fields).map(|p| Self::Postback(Box::new(p)))
            }
            Some((&ERASED, _)) => Ok(Self::Erased),
            Some((&kind, _)) => Err(Malformed::Kind(kind)),
            None => Err(Malformed::Truncated),
        }
    }

    /// The fact, unless it is gone.
    pub fn fact(&self) -> Option<&dyn Fact> {
        match self {
            Self::Click(click) => Some(&**click),
            Self::Event(event) => Some(&**event),
            Self::OutClick(out) => Some(&**out),
            Self::Postback(postback) => Some(&**postback),
            Self::Erased => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use chrono::DateTime;
    use proptest::prelude::*;
    use rust_decimal::Decimal;
    use uuid::Uuid;

    use super::*;
    use crate::{
        facts::{event::Source, wire::put},
        model::{
            click::{Adjusted, InvalidReason},
            id::ClickId,
        },
    };

    proptest! {
        #[test]
        fn every_fact_reads_back_as_it_was_written(seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (click, event) = (Click::sample(&mut random), Event::sample(&mut random));
            let mut bytes = Vec::new();
            click.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(Record::Click(Box::new(click))));
            bytes.clear();
            event.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(Record::Event(Box::new(event))));
            let out = OutClick::sample(&mut random);
            bytes.clear();
            out.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(Record::OutClick(Box::new(out))));
            let postback = Postback::sample(&mut random);
            bytes.clear();
            postback.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(Record::Postback(Box::new(postback))));
        }

        #[test]
        fn each_column_of_a_fact_has_a_value_of_its_type(seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (click, event) = (Click::sample(&mut random), Event::sample(&mut random));
            let out = OutClick::sample(&mut random);
            let postback = Postback::sample(&mut random);
            let facts: [&dyn Fact; 4] = [&click, &event, &out, &postback];
            for fact in facts {
                let mut seen = Vec::new();
                fact.see_values(&mut |column, value| {
                    assert!(value.fits(column.sql), "{}: {value:?}", column.name);
                    seen.push(column);
                });
                prop_assert_eq!(seen, fact.kind().columns());
            }
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
        let mut bytes = vec![Event::KIND_BYTE];
        put(&mut bytes, 1, Uuid::new_v4().as_bytes());
        put(&mut bytes, 250, b"from the future");
        put(&mut bytes, 43, b"view");
        assert!(Record::decode(&bytes).is_ok());
        assert_eq!(Record::decode(&bytes[..bytes.len() - 1]), Err(Malformed::Truncated));
    }
}
