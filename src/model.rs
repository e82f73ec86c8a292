//! The nouns of the field: types that parse themselves. No I/O, no clock but the click id's.

pub mod campaign;
pub mod click;
pub mod conversion;
pub mod cost;
pub mod hour;
pub mod id;
pub mod library;
pub mod link;
pub mod money;
pub mod network;
pub mod out_click;
pub mod postback;
pub mod postback_target;
pub mod rule;
pub mod scheme;
pub mod source;
pub mod stored_rules;
pub mod text;
pub mod token;
pub mod unexpanded;
