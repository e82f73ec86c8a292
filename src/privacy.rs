//! What may be kept of a visitor, and for how long somebody can be told apart.

pub(crate) mod keys;
