//! What octo and its stores are doing, as the API shows it.

pub(crate) mod database;
pub(crate) mod pools;
