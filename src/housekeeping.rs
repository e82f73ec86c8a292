//! What keeps the house in order beside the traffic: the database's schema and partitions, retention, this node's
//! clock, erasures in its journal, the keys of tokens, the sums of reports. Nobody's click waits for any of it.

pub(crate) mod clock;
pub(crate) mod closed_days;
pub(crate) mod conversions;
pub(crate) mod database;
pub(crate) mod erasure;
pub(crate) mod figures;
pub(crate) mod seal_keys;
