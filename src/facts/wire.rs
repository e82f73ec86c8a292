//! The bytes of a record's fields, and how each type of a field is written, read and stored.
//!
//! ```text
//! field = tag u8 | length varint (LEB128) | bytes
//! ```
//! Integers are little-endian, UUIDs 16 bytes, texts UTF-8, addresses 4 or 16 bytes, times milliseconds since 1970,
//! amounts texts. An absent value is an absent field, and NULL in Postgres.

use std::{borrow::Cow, io::Write as _, iter, net::IpAddr, str::FromStr};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::{
    facts::table::Value,
    model::{
        click::{Adjusted, InvalidReason, Routed, Via},
        conversion::{Channel, Refusal},
        id::ClickId,
        money::{Currency, parse_amount},
        out_click::{Carrier, Problem},
    },
};

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

/// The type of a fact's field.
pub(super) trait Kept<'a>: Sized {
    /// Tags in a row that it takes.
    const TAGS: u8 = 1;

    /// What is there where a record has no such field.
    fn nothing() -> Self;

    /// Appends its fields, the first under `tag`.
    fn put(&self, tag: u8, out: &mut Vec<u8>);

    /// Takes the field of the `nth` of its tags, from 0.
    fn take(&mut self, nth: u8, field: &Field<'a>) -> Result<(), Malformed>;

    /// What is stored, as many as it has columns.
    fn values(&self) -> impl Iterator<Item = Value<'_>>;

    /// Any value.
    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self;
}

/// A type whose value is one field and one column; `Option` of it may have none.
pub(super) trait One<'a>: Sized {
    fn put(&self, tag: u8, out: &mut Vec<u8>);

    fn read(field: &Field<'a>) -> Result<Self, Malformed>;

    fn value(this: Option<&Self>) -> Value<'_>;

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self;
}

impl<'a, T: One<'a>> Kept<'a> for Option<T> {
    fn nothing() -> Self {
        None
    }

    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.put(tag, out);
        }
    }

    fn take(&mut self, _: u8, field: &Field<'a>) -> Result<(), Malformed> {
        *self = Some(T::read(field)?);
        Ok(())
    }

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        iter::once(T::value(self.as_ref()))
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        random.bool().then(|| T::sample(random))
    }
}

/// Types of fields that are always there, each with what stands there before it is read.
macro_rules! always {
    ($($type:ty: $nothing:expr;)+) => {$(
        impl<'a> Kept<'a> for $type {
            fn nothing() -> Self {
                $nothing
            }

            fn put(&self, tag: u8, out: &mut Vec<u8>) {
                One::put(self, tag, out);
            }

            fn take(&mut self, _: u8, field: &Field<'a>) -> Result<(), Malformed> {
                *self = One::read(field)?;
                Ok(())
            }

            fn values(&self) -> impl Iterator<Item = Value<'_>> {
                iter::once(One::value(Some(self)))
            }

            #[cfg(test)]
            fn sample(random: &mut fastrand::Rng) -> Self {
                One::sample(random)
            }
        }
    )+};
}

always! {
    Uuid: Uuid::nil();
    ClickId: ClickId::from_uuid(Uuid::from_u128(0x7000 << 64)).expect("version 7");
    DateTime<Utc>: DateTime::UNIX_EPOCH;
    Cow<'a, str>: Cow::Borrowed("");
    Carrier: Carrier::None;
    Channel: Channel::Http;
}

impl<'a, T: One<'a>, const N: usize> Kept<'a> for [Option<T>; N] {
    #[expect(clippy::cast_possible_truncation, reason = "there are 256 tags")]
    const TAGS: u8 = N as u8;

    fn nothing() -> Self {
        [const { None }; N]
    }

    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        for (tag, value) in (tag..).zip(self) {
            value.put(tag, out);
        }
    }

    fn take(&mut self, nth: u8, field: &Field<'a>) -> Result<(), Malformed> {
        Kept::take(&mut self[usize::from(nth)], 0, field)
    }

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        self.iter().map(|value| T::value(value.as_ref()))
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        std::array::from_fn(|_| Kept::sample(random))
    }
}

/// `true` is an empty field.
impl<'a> Kept<'a> for bool {
    fn nothing() -> Self {
        false
    }

    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        if *self {
            put(out, tag, &[]);
        }
    }

    fn take(&mut self, _: u8, _: &Field<'a>) -> Result<(), Malformed> {
        *self = true;
        Ok(())
    }

    fn values(&self) -> impl Iterator<Item = Value<'_>> {
        iter::once(Value::Bool(*self))
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        random.bool()
    }
}

/// Sets in one byte: a bit for each member, and no field where there is none.
macro_rules! sets {
    ($($type:ty),+) => {$(
        impl<'a> Kept<'a> for $type {
            fn nothing() -> Self {
                Self::default()
            }

            fn put(&self, tag: u8, out: &mut Vec<u8>) {
                if !self.is_empty() {
                    put(out, tag, &[self.bits()]);
                }
            }

            fn take(&mut self, _: u8, field: &Field<'a>) -> Result<(), Malformed> {
                *self = Self::from_bits(field.bytes.first().copied().unwrap_or(0));
                Ok(())
            }

            fn values(&self) -> impl Iterator<Item = Value<'_>> {
                let names = || self.iter().map(Into::into).collect();
                iter::once(Value::Texts((!self.is_empty()).then(names)))
            }

            #[cfg(test)]
            fn sample(random: &mut fastrand::Rng) -> Self {
                Self::from_bits(random.u8(..))
            }
        }
    )+};
}

sets!(Adjusted, Routed);

impl One<'_> for Uuid {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        put(out, tag, self.as_bytes());
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        Uuid::from_slice(field.bytes).map_err(|_| field.malformed())
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Uuid(this.copied())
    }

    #[cfg(test)]
    fn sample(_: &mut fastrand::Rng) -> Self {
        Uuid::new_v4()
    }
}

impl One<'_> for ClickId {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        put(out, tag, self.uuid().as_bytes());
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        Self::from_uuid(One::read(field)?).ok_or(field.malformed())
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Uuid(this.map(|id| id.uuid()))
    }

    #[cfg(test)]
    fn sample(_: &mut fastrand::Rng) -> Self {
        Self::now()
    }
}

impl<'a> One<'a> for Cow<'a, str> {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        put(out, tag, self.as_bytes());
    }

    fn read(field: &Field<'a>) -> Result<Self, Malformed> {
        field.text().map(Cow::Borrowed)
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Text(this.map(|text| Cow::Borrowed(text.as_ref())))
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        let length = random.usize(1..300);
        iter::repeat_with(|| random.char(..)).take(length).collect::<String>().into()
    }
}

impl One<'_> for i64 {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        put(out, tag, &self.to_le_bytes());
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        field.bytes.try_into().map(i64::from_le_bytes).map_err(|_| field.malformed())
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Int8(this.copied())
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        random.i64(..)
    }
}

impl One<'_> for DateTime<Utc> {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        self.timestamp_millis().put(tag, out);
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        DateTime::from_timestamp_millis(One::read(field)?).ok_or(field.malformed())
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Timestamptz(this.copied())
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        DateTime::from_timestamp_millis(random.i64(0..1 << 45)).expect("before the year 3100")
    }
}

impl One<'_> for IpAddr {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(ip) => put(out, tag, &ip.octets()),
            IpAddr::V6(ip) => put(out, tag, &ip.octets()),
        }
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        if let Ok(v4) = <[u8; 4]>::try_from(field.bytes) {
            return Ok(v4.into());
        }
        <[u8; 16]>::try_from(field.bytes).map(IpAddr::from).map_err(|_| field.malformed())
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Inet(this.copied())
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        if random.bool() { random.u32(..).to_be_bytes().into() } else { random.u128(..).to_be_bytes().into() }
    }
}

impl One<'_> for Decimal {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&[tag, 0]);
        let start = out.len();
        let _ = write!(out, "{self}"); // writing to a Vec does not fail
        let length = out.len() - start;
        debug_assert!(length < 0x80, "a Decimal has at most 31 characters");
        out[start - 1] = length.to_le_bytes()[0];
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        parse_amount(field.text()?).map_err(|_| field.malformed())
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Numeric(this.copied())
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        Decimal::new(random.i64(0..1_000_000), random.u32(0..=6))
    }
}

impl One<'_> for Currency {
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        put(out, tag, self.as_str().as_bytes());
    }

    fn read(field: &Field<'_>) -> Result<Self, Malformed> {
        field.parsed()
    }

    fn value(this: Option<&Self>) -> Value<'_> {
        Value::Text(this.map(|currency| Cow::Borrowed(currency.as_str())))
    }

    #[cfg(test)]
    fn sample(random: &mut fastrand::Rng) -> Self {
        random.choice([Self::USD, Self::UNKNOWN]).expect("two")
    }
}

/// Closed choices, by their names.
macro_rules! choices {
    ($($type:ty),+) => {$(
        impl One<'_> for $type {
            fn put(&self, tag: u8, out: &mut Vec<u8>) {
                put(out, tag, <&str>::from(self).as_bytes());
            }

            fn read(field: &Field<'_>) -> Result<Self, Malformed> {
                field.parsed()
            }

            fn value(this: Option<&Self>) -> Value<'_> {
                Value::Text(this.map(|choice| Cow::Borrowed(choice.into())))
            }

            #[cfg(test)]
            fn sample(random: &mut fastrand::Rng) -> Self {
                random
                    .choice(<Self as strum::VariantNames>::VARIANTS)
                    .and_then(|name| name.parse().ok())
                    .expect("a name of the list")
            }
        }
    )+};
}

choices!(InvalidReason, Via, Carrier, Problem, Channel, Refusal);

/// Appends one field.
pub(super) fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
    out.extend_from_slice(bytes);
}

/// The fields of a record, behind its kind.
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
}

/// One field as it was written.
pub(super) struct Field<'a> {
    pub(super) tag: u8,
    pub(super) bytes: &'a [u8],
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
    fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes).map_err(|_| self.malformed())
    }

    fn parsed<T: FromStr>(&self) -> Result<T, Malformed> {
        self.text()?.parse().map_err(|_| self.malformed())
    }

    fn malformed(&self) -> Malformed {
        Malformed::Field(self.tag)
    }
}
