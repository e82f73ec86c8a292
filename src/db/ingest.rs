//! The drain's end in Postgres: one transaction moves the watermark, stores the rows, adds to the roll-ups.
//!
//! The watermark is moved first and must be where the batch begins: so a batch is stored once, whatever
//! happened to the answer of an earlier COMMIT, and two drains of one stream cannot both succeed.

mod arrays;
pub(in crate::db) mod conversions;
mod copy;
pub mod deliveries;
mod deltas;
mod out_clicks;
mod rollups;
pub(in crate::db) mod rows;
mod transaction;

use uuid::Uuid;

use crate::{
    db::Statement,
    facts::{
        Fact, click::Click, erasure::Erasures, event::Event, out_click::OutClick, postback::Postback,
        record::Record,
    },
};

pub use self::{
    conversions::{
        Difference, Imported, Replay, Replayed, Told, import as import_postbacks, replay as replay_postbacks,
        settle_waiting as settle_waiting_conversions,
    },
    deliveries::Change,
    out_clicks::count_waiting as count_waiting_out_clicks,
    transaction::Ingest,
};

/// Every statement of the drain.
pub(in crate::db) const STATEMENTS: [&[Statement]; 9] = [
    transaction::STATEMENTS,
    rows::STATEMENTS,
    out_clicks::STATEMENTS,
    rollups::STATEMENTS,
    conversions::STATEMENTS,
    conversions::READ_STATEMENTS,
    conversions::REPLAY_STATEMENTS,
    conversions::WRITE_STATEMENTS,
    deliveries::STATEMENTS,
];

/// How the constraints begin that keep a day out of a DEFAULT partition until it has its own (`octo_exclude_day`).
const EXCLUSION: &str = "octo_day_";

/// In place of a SQLSTATE: the bytes are no record.
pub const MALFORMED: &str = "malformed";

/// The SQLSTATE of a row whose key is there already.
pub const UNIQUE_VIOLATION: &str = "23505";

/// Consecutive records of a stream, ready to be stored.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    /// Clicks in order.
    pub clicks: Vec<&'a Click<'a>>,
    /// Events in order.
    pub events: Vec<&'a Event<'a>>,
    /// Out-clicks in order.
    pub out_clicks: Vec<&'a OutClick<'a>>,
    /// Postbacks in order.
    pub postbacks: Vec<&'a Postback<'a>>,
    /// Records that cannot be stored as rows.
    pub dead_letters: Vec<DeadLetter<'a>>,
    /// How many of them [`Ingest::store`] left out because they are erased.
    pub erased: u64,
    /// What [`Ingest::store`] made of postbacks.
    pub told: Told,
}

impl<'a> Rows<'a> {
    /// Takes the fact of a record, unless it is gone.
    pub fn push(&mut self, record: &'a Record<'a>) {
        match record {
            Record::Click(click) => self.clicks.push(click),
            Record::Event(event) => self.events.push(event),
            Record::OutClick(out) => self.out_clicks.push(out),
            Record::Postback(postback) => self.postbacks.push(postback),
            Record::Erased => {}
        }
    }

    /// All facts, kind by kind.
    pub fn facts(&self) -> impl Iterator<Item = &'a dyn Fact> {
        let clicks = self.clicks.iter().map(|click| *click as &dyn Fact);
        let events = self.events.iter().map(|event| *event as &dyn Fact);
        let out_clicks = self.out_clicks.iter().map(|out| *out as &dyn Fact);
        let postbacks = self.postbacks.iter().map(|postback| *postback as &dyn Fact);
        clicks.chain(events).chain(out_clicks).chain(postbacks)
    }

    /// Leaves out what is erased; gives the clicks that only now are known to be.
    fn leave_out(&mut self, erasures: &mut Erasures) -> Vec<Uuid> {
        let count = |rows: &Self| rows.facts().count() + rows.dead_letters.len();
        let before = count(self);
        let decoded: Vec<_> = self.dead_letters.iter().map(|letter| Record::decode(letter.record)).collect();
        let letters = decoded.iter().filter_map(|record| record.as_ref().ok()?.fact());
        let learnt = self.facts().chain(letters).filter(|fact| erasures.learn(*fact));
        let learnt: Vec<Uuid> = learnt.map(Fact::id).collect();
        self.clicks.retain(|click| !erasures.has_fact(*click));
        self.events.retain(|event| !erasures.has_fact(*event));
        self.out_clicks.retain(|out| !erasures.has_fact(*out));
        self.postbacks.retain(|postback| !erasures.has_fact(*postback));
        let mut decoded = decoded.iter();
        self.dead_letters.retain(|_| {
            !decoded.next().is_some_and(|record| record.as_ref().is_ok_and(|record| erasures.has(record)))
        });
        self.erased = (before - count(self)) as u64;
        learnt
    }
}

/// A record as it is in the journal, and why it is no row.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// Its sequence.
    pub seq: u64,
    /// Its bytes.
    pub record: &'a [u8],
    /// SQLSTATE, or `malformed`.
    pub sqlstate: String,
    /// What was said.
    pub message: String,
}

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The watermark is elsewhere: an earlier commit had succeeded, or Postgres went back in time.
    #[error("the watermark is not where the batch begins")]
    Moved,
    /// Postgres refuses a row for what it holds.
    #[error("a row was refused (SQLSTATE {sqlstate})")] // the message may hold what was refused
    Refused {
        /// Five characters.
        sqlstate: String,
        /// What Postgres said.
        message: String,
    },
    /// Try again, on a new connection.
    #[error(transparent)]
    Unavailable(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        refusal(&error).unwrap_or(Self::Unavailable(error))
    }
}

/// One column of a batch.
fn column<'a, R, V>(rows: &'a [R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

fn bigint(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The refusal of a row for what it holds: SQLSTATE classes 21, 22, 23, 54, and 42 where it is about a value.
///
/// A missing table, column or right (the other codes of class 42) is the same for every row: storing them
/// all as dead letters would empty the journal into the wrong place, so that is retried and shouted about.
fn refusal(error: &sqlx::Error) -> Option<StoreError> {
    let error = error.as_database_error()?;
    if error.constraint().is_some_and(|name| name.starts_with(EXCLUSION)) {
        return None; // its partition is about to be made
    }
    let sqlstate = error.code()?.into_owned();
    let class = sqlstate.get(..2)?;
    let is_about_the_row = matches!(class, "21" | "22" | "23" | "54")
        || (class == "42" && matches!(sqlstate.as_str(), "42804" | "42846" | "42P22"));
    is_about_the_row.then(|| StoreError::Refused { sqlstate, message: error.message().to_owned() })
}
