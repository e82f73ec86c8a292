//! x

pub mod enrich;
