//! x

pub mod embedded;
