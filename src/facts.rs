//! Facts: what happened and is kept. Each becomes one record in the journal and one row in Postgres.
//!
//! A kind of fact is a file: its struct and its table (see [`table`]), and what is particular to it.

pub mod click;
pub mod erasure;
pub mod event;
pub mod out_click;
pub mod postback;
pub mod record;
pub mod table;
mod wire;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::{
    click::Click,
    event::Event,
    out_click::OutClick,
    postback::Postback,
    table::{Column, Value},
};

/// The kinds of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A visit.
    Click,
    /// What a page or a pixel reports.
    Event,
    /// From a landing page to an offer.
    OutClick,
    /// What a network tells of a conversion.
    Postback,
}

impl Kind {
    /// Every kind, in the order in which they are stored: what names another comes after it.
    pub const ALL: [Self; 4] = [Self::Click, Self::Event, Self::OutClick, Self::Postback];

    /// Those whose table has a partition for each day of `created_at`. Postbacks are few.
    pub const PARTITIONED: [Self; 3] = [Self::Click, Self::Event, Self::OutClick];

    /// The table in Postgres that its facts are rows of.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Click => "clicks",
            Self::Event => "events",
            Self::OutClick => "out_clicks",
            Self::Postback => "postbacks",
        }
    }

    /// The columns that its facts fill.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Click => Click::COLUMNS,
            Self::Event => Event::COLUMNS,
            Self::OutClick => OutClick::COLUMNS,
            Self::Postback => Postback::COLUMNS,
        }
    }
}

/// What is the same of all facts.
pub trait Fact {
    /// What it is.
    fn kind(&self) -> Kind;

    /// Its id: the first part of its row's key is its time, the second this.
    fn id(&self) -> Uuid;

    /// When it happened here: `created_at` of its row.
    fn at(&self) -> DateTime<Utc>;

    /// The click that it is or belongs to.
    fn click_id(&self) -> Option<Uuid>;

    /// The campaign, where it is known.
    fn campaign_id(&self) -> Option<Uuid>;

    /// What of it may stand for a person: the name under which it is erased, and the value.
    fn personal(&self) -> Vec<(&'static str, &str)>;

    /// Shows each value with its column, in the order of [`Kind::columns`].
    fn see_values<'v>(&'v self, see: &mut dyn FnMut(Column, Value<'v>));
}
