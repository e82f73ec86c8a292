//! A dead letter as the API shows it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{click::Click, event::Event, out_click::OutClick, postback::Postback};
use crate::db::store::dead_letters;

/// A record of the journal that is no row, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetter {
    /// The journal's stream it came in.
    pub(crate) stream: Uuid,
    /// Its sequence in the stream.
    pub(crate) seq: i64,
    /// Why PostgreSQL refused it, or `malformed`.
    #[schema(example = "22P05")]
    pub(crate) sqlstate: String,
    /// What PostgreSQL said.
    #[schema(example = "unsupported Unicode escape sequence")]
    pub(crate) message: String,
    /// When it was refused first.
    pub(crate) created_at: DateTime<Utc>,
    /// Length of the record.
    pub(crate) bytes: i32,
    /// What it holds.
    pub(crate) record: Content,
}

/// What a dead letter holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// A click, as it would be stored.
    Click(Box<Click>),
    /// An event, as it would be stored; what it was told is text where it is no JSON.
    Event(Box<Event>),
    /// An out-click, as it would be stored.
    OutClick(Box<OutClick>),
    /// A postback, as it would be stored but for what would become of it.
    Postback(Box<Postback>),
    /// Bytes that are no record, as hexadecimal digits.
    Hex(String),
    /// Too long for a list: ask for it alone.
    Omitted,
}

impl From<dead_letters::DeadLetter> for DeadLetter {
    fn from(letter: dead_letters::DeadLetter) -> Self {
        Self {
            stream: letter.stream,
            seq: letter.seq,
            sqlstate: letter.sqlstate,
            message: letter.message,
            created_at: letter.created_at,
            bytes: letter.bytes,
            record: letter.record.into(),
        }
    }
}

impl From<dead_letters::Content> for Content {
    fn from(content: dead_letters::Content) -> Self {
        match content {
            dead_letters::Content::Click(click) => Self::Click(Box::new((*click).into())),
            dead_letters::Content::Event(event) => Self::Event(Box::new((*event).into())),
            dead_letters::Content::OutClick(out) => Self::OutClick(Box::new((*out).into())),
            dead_letters::Content::Postback(postback) => Self::Postback(Box::new((*postback).into())),
            dead_letters::Content::Hex(digits) => Self::Hex(digits),
            dead_letters::Content::Omitted => Self::Omitted,
        }
    }
}
