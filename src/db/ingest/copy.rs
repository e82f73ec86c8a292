//! Rows in PostgreSQL's binary COPY format: the cheapest way in, for both ends.
//!
//! ```text
//! data  = "PGCOPY\n\xff\r\n\0" | flags i32 0 | extension i32 0 | row* | i16 -1
//! row   = number of fields i16 | field*
//! field = length i32, -1 for NULL | bytes as the type's `send` function writes them
//! ```
//! Everything is big-endian. Source: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format";
//! `inet` from `network_send` (`src/backend/utils/adt/network.c`), arrays from `array_send` (`arrayfuncs.c`).

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{Encode, PgConnection, encode::IsNull, postgres::PgArgumentBuffer};
use uuid::Uuid;

use crate::{
    db::Statement,
    facts::{
        Fact,
        table::{Column, Value},
    },
};

/// Bytes in one message of a COPY.
const PIECE_BYTES: usize = 64 * 1024;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const NULL: i32 = -1;
/// 2000-01-01 in microseconds since 1970: where PostgreSQL's clock begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// What the binary form of a `jsonb` begins with; its text follows.
const JSONB_VERSION: u8 = 1;
/// `pg_type` of `text`.
const TEXT_OID: i32 = 25;
const AF_INET: u8 = 2;
const AF_INET6: u8 = AF_INET + 1;

/// Sends rows; `write` writes one, all of its fields.
pub(super) async fn copy_in<T>(
    c: &mut PgConnection,
    statement: Statement,
    mut data: CopyData,
    rows: impl Iterator<Item = T>,
    write: impl Fn(&mut CopyData, T),
) -> sqlx::Result<()> {
    let mut copy = c.copy_in_raw(statement.sql()).await?;
    for row in rows {
        write(&mut data, row);
        // piece by piece: Postgres stores one while the next is encoded
        if data.bytes().len() >= PIECE_BYTES {
            copy.send(data.bytes()).await?;
            data.clear();
        }
    }
    data.end();
    copy.send(data.bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// Rows being written.
#[derive(Debug)]
pub(crate) struct CopyData {
    bytes: Vec<u8>,
    columns: i16,
}

impl CopyData {
    /// No rows yet; each will have a field for each of the columns that the table has, and `more`.
    pub(crate) fn new(columns: &[Column], more: usize) -> Self {
        Self::with_fields(columns.iter().filter(|column| column.is_stored).count() + more)
    }

    /// No rows yet; each will have so many fields.
    pub(crate) fn with_fields(count: usize) -> Self {
        let columns = i16::try_from(count).expect("a table has at most 1,600 columns");
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, columns }
    }

    /// What was written since [`clear`](Self::clear).
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what has been sent.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Begins a row; its fields follow.
    pub(super) fn begin(&mut self) {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
    }

    /// A row: what of a fact its table has.
    pub(super) fn row(&mut self, fact: &dyn Fact) {
        self.begin();
        fact.see_values(&mut |column, value| {
            if column.is_stored {
                self.value(value);
            }
        });
    }

    /// A row of these values.
    pub(super) fn values<'v>(&mut self, values: impl IntoIterator<Item = Value<'v>>) {
        self.begin();
        for value in values {
            self.value(value);
        }
    }

    /// Ends the data.
    pub(crate) fn end(&mut self) {
        self.bytes.extend_from_slice(&(-1i16).to_be_bytes());
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Uuid(id) => self.uuid(id),
            Value::Text(text) => self.text(text.as_deref()),
            Value::Bool(is) => self.bool(is),
            Value::Int8(number) => self.int8(number),
            Value::Timestamptz(at) => self.timestamptz(at),
            Value::Inet(ip) => self.inet(ip),
            Value::Numeric(number) => self.numeric(number),
            Value::Texts(texts) => self.texts(texts.as_deref()),
        }
    }

    pub(super) fn uuid(&mut self, id: Option<Uuid>) {
        self.field(id.as_ref().map(|id| id.as_bytes().as_slice()));
    }

    pub(super) fn text(&mut self, text: Option<&str>) {
        self.field(text.map(str::as_bytes));
    }

    pub(super) fn bool(&mut self, is: bool) {
        self.field(Some(&[u8::from(is)]));
    }

    pub(super) fn timestamptz(&mut self, at: Option<DateTime<Utc>>) {
        self.int8(at.map(|at| at.timestamp_micros() - EPOCH_MICROS));
    }

    /// A `jsonb` from its text.
    pub(super) fn jsonb(&mut self, text: Option<&str>) {
        let bytes = text.map(|text| [&[JSONB_VERSION], text.as_bytes()].concat());
        self.field(bytes.as_deref());
    }

    /// One dimension, from 1: dimensions, whether there are NULLs, the type, length, lower bound, the elements as fields.
    pub(super) fn texts(&mut self, value: Option<&[&str]>) {
        let Some(texts) = value else { return self.field(None) };
        let length = |bytes: usize| i32::try_from(bytes).expect("a record has at most 1 MiB").to_be_bytes();
        let mut bytes = Vec::new();
        for number in [1, 0, TEXT_OID] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&length(texts.len()));
        bytes.extend_from_slice(&1i32.to_be_bytes());
        for text in texts {
            bytes.extend_from_slice(&length(text.len()));
            bytes.extend_from_slice(text.as_bytes());
        }
        self.field(Some(&bytes));
    }

    pub(super) fn int4(&mut self, value: i32) {
        self.field(Some(&value.to_be_bytes()));
    }

    pub(super) fn int8(&mut self, value: Option<i64>) {
        self.field(value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    /// One address: family, bits of the mask, whether it is a network, bytes of the address, the address.
    fn inet(&mut self, value: Option<IpAddr>) {
        match value {
            Some(IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                self.field(Some(&[AF_INET, 32, 0, 4, a, b, c, d]));
            }
            Some(IpAddr::V6(ip)) => {
                let mut bytes = [0; 20];
                bytes[..4].copy_from_slice(&[AF_INET6, 128, 0, 16]);
                bytes[4..].copy_from_slice(&ip.octets());
                self.field(Some(&bytes));
            }
            None => self.field(None),
        }
    }

    pub(super) fn numeric(&mut self, value: Option<Decimal>) {
        let mut buffer = PgArgumentBuffer::default();
        let encoded = value.map(|value| value.encode_by_ref(&mut buffer));
        self.field(matches!(encoded, Some(Ok(IsNull::No))).then_some(buffer.as_slice()));
    }

    fn field(&mut self, value: Option<&[u8]>) {
        let length =
            value.map_or(NULL, |bytes| i32::try_from(bytes.len()).expect("a record has at most 1 MiB"));
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }
}
