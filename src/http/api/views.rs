//! What the API shows: the shapes of its JSON, apart from the rows of the database and from what the code computes with.
//! What is made to be shown (the reports of the cache) and nouns of `model` are shown as they are.

pub(crate) mod click;
pub(crate) mod conversion;
pub(crate) mod dead_letter;
pub(crate) mod event;
pub(crate) mod out_click;
pub(crate) mod postback;
pub(crate) mod reconciliation;
pub(crate) mod stats;
pub(crate) mod system;
