//! Tracking endpoints: links, events and pixels. Public, without authentication, and without a database: what they take
//! goes to the journal.

pub(crate) mod click;
pub(crate) mod cors;
pub(crate) mod event;
#[cfg(test)]
mod fuzz;
pub(crate) mod signals;
