//! For operators and their machines: how octo is, its figures, its documentation.

pub(crate) mod docs;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod probes;
