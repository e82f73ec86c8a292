//! Whether a click counts. Where a visit leads does not depend on it: people and bots get the same destination.

pub(crate) mod duplicates;
pub(crate) mod networks;
pub(crate) mod sharing;
pub(crate) mod visits;
