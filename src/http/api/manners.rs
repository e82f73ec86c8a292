//! What all endpoints of the admin API have in common: who may, pages of lists, POSTs that may be sent again, reading
//! one's own writes.

pub(crate) mod auth;
pub(crate) mod idempotency;
pub(crate) mod page;
pub(crate) mod position;
