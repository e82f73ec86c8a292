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
use sqlx::{Encode, encode::IsNull, postgres::PgArgumentBuffer};
use uuid::Uuid;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const NULL: i32 = -1;
/// 2000-01-01 in microseconds since 1970: where PostgreSQL's clock begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// `pg_type` of `text`.
const TEXT_OID: i32 = 25;
const AF_INET: u8 = 2;
const AF_INET6: u8 = AF_INET + 1;

/// Rows being written.
#[derive(Debug)]
pub(crate) struct CopyData {
    bytes: Vec<u8>,
    columns: i16,
}

impl CopyData {
    /// No rows yet; each will have `columns` fields.
    pub(crate) fn new(columns: i16) -> Self {
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

    /// Begins a row.
    pub(crate) fn row(&mut self) {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
    }

    /// Ends the data.
    pub(crate) fn end(&mut self) {
        self.bytes.extend_from_slice(&(-1i16).to_be_bytes());
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.field(Some(value.as_bytes()));
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.field(Some(&[u8::from(value)]));
    }

    pub(crate) fn text(&mut self, value: Option<&str>) {
        self.field(value.map(str::as_bytes));
    }

    /// One dimension, from 1: dimensions, whether there are NULLs, the type, length, lower bound, the elements as fields.
    pub(crate) fn text_array(&mut self, value: Option<&[&str]>) {
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

    pub(crate) fn bigint(&mut self, value: Option<i64>) {
        self.field(value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    pub(crate) fn timestamptz(&mut self, value: DateTime<Utc>) {
        self.bigint(Some(value.timestamp_micros() - EPOCH_MICROS));
    }

    /// One address: family, bits of the mask, whether it is a network, bytes of the address, the address.
    pub(crate) fn inet(&mut self, value: Option<IpAddr>) {
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

    pub(crate) fn numeric(&mut self, value: Option<Decimal>) {
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
