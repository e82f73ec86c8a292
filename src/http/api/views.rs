//! What the API shows: the shapes of its JSON, apart from the rows of the database and from what the code computes with.

pub(crate) mod click;
pub(crate) mod dead_letter;
pub(crate) mod event;
pub(crate) mod stats;
pub(crate) mod system;
pub(crate) mod token;
