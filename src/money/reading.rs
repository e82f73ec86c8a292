//! A postback read under its network's rules: what it says, whatever names and words the network has for it.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::model::{
    conversion::Flag,
    id::Leg,
    money::Currency,
    network::{MappedStatus, PostbackRules},
};

/// What a postback says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Which click, and perhaps which offer of it.
    pub leg: Result<Leg, NoClick>,
    /// The network's id of the conversion; empty where it sends none.
    pub txid: String,
    /// What was reached; empty where it names nothing.
    pub goal: String,
    /// What it says of the state.
    pub status: Meaning,
    /// The word that says so.
    pub status_text: Option<String>,
    /// More about the state, for people.
    pub status_detail: Option<String>,
    /// What we are paid; a correction may be below zero.
    pub payout: Option<Decimal>,
    /// The currency of the payout, as said by the postback itself.
    pub currency: Option<Currency>,
    /// What the visitor paid.
    pub sale_amount: Option<Decimal>,
    /// When it happened, as far as that can be: see [`read`].
    pub time: Option<DateTime<Utc>>,
    /// `event1` to `event30`, by their number.
    pub numbers: Vec<(u8, Number)>,
    /// What the sender wants to be answered.
    pub return_text: Option<String>,
    /// What could not be used.
    pub flags: Vec<Flag>,
}

/// Why a postback names no click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoClick {
    /// It has no parameter for it, or an empty one, or a macro that was not filled.
    Missing,
    /// What it says is no id of ours.
    Bad,
}

/// What a word for the state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A state that is known.
    Known(MappedStatus),
    /// A word that nobody mapped.
    Unmapped,
}

/// A number that a postback keeps with its conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// It is this now.
    Set(Decimal),
    /// It is more by this.
    Add(Decimal),
}

/// Reads a postback that came at `received_at`: names and values as `application/x-www-form-urlencoded`.
pub fn read(params: &str, rules: &PostbackRules, received_at: DateTime<Utc>) -> Reading {
    let _ = (params, rules, received_at);
    unimplemented!("the engineer of reading writes this")
}
