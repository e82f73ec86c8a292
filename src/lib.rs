//! octo: a click tracker that never loses a click.
//!
//! # The idea
//!
//! An accepted fact (click, event) becomes one *record* in a local *journal*. Everything before the journal is
//! pure or in memory, everything after it is a batch. So the request path never waits for a network, and the
//! database path never sees a single row.
//!
//! # One click
//!
//! 1. `http::track` parses the raw query itself: a known campaign is always redirected.
//! 2. [`campaigns`] gives the campaign from memory.
//! 3. [`visitor`] says device, country and bot label, from memory.
//! 4. `judge` says whether the click counts, and `privacy` what is kept of it. Neither is seen by routing: people and
//!    bots get the same destination.
//! 5. [`routing`] picks the destination (the seed comes from the click's id, so a replay gives the same answer) and
//!    builds the URL; its origin is always a stored one.
//! 6. [`journal`] returns once the click survives a power cut (group commit with fdatasync).
//! 7. The answer: `302 Found`.
//! 8. Later, elsewhere: `drain` stores a batch in Postgres in one transaction with the watermark and the roll-ups.
//!
//! Around it: `net` bounds connections, `limits` what one address may do, `admission` refuses events where there is
//! more to do than octo can, and `housekeeping` sees to the schema, partitions, retention and erasures.
//!
//! # Invariants
//!
//! * `journal` does not know `db`: an outage cannot reach a click.
//! * `http::track` never names `db`; only `campaigns` does, on a cold miss, with a deadline.
//! * `routing` sees no clock, randomness or socket.
//! * A record is in Postgres exactly once: the watermark moves in the transaction that stores it.
//! * Imports point down only: `model config metrics <- facts routing visitor judge privacy limits script <- journal | db |
//!   redis <- campaigns networks drain admission caps budgets postback <- app <- housekeeping <- http <- net <- server <-
//!   cli`.

pub(crate) mod admission;
pub(crate) mod app;
pub mod budgets;
pub mod campaigns;
pub mod caps;
pub mod cli;
pub mod config;
pub mod db;
pub(crate) mod demo;
pub(crate) mod drain;
pub(crate) mod embedded;
pub(crate) mod explain;
pub mod facts;
pub(crate) mod housekeeping;
pub(crate) mod http;
pub(crate) mod imports;
pub mod journal;
pub mod judge;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod metrics;
pub mod model;
pub mod money;
pub(crate) mod net;
pub(crate) mod networks;
pub mod postback;
pub mod privacy;
pub(crate) mod private_file;
pub(crate) mod reconciliation;
pub mod redis;
pub mod reports;
pub mod routing;
pub(crate) mod script;
pub mod seal;
pub mod server;
pub(crate) mod tasks;
pub mod telemetry;
pub(crate) mod templates;
pub mod visitor;
