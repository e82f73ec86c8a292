//! Money that is worked out: what clicks cost.

pub mod costs;
