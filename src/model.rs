//! The nouns of the field: types that parse themselves. No I/O, no clock but the click id's.

pub mod campaign;
pub mod click;
pub mod erasure;
pub mod event;
pub mod id;
pub mod money;
pub mod record;
pub mod scheme;
pub mod text;
pub mod token;
pub mod visit;
