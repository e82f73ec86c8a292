//! What all endpoints of the admin API have in common: who may, what they take and answer, versions of objects, pages of
//! lists, POSTs that may be sent again, reading one's own writes.

pub(crate) mod answer;
pub(crate) mod auth;
pub(crate) mod etag;
pub(crate) mod idempotency;
pub(crate) mod page;
pub(crate) mod position;
pub(crate) mod problems;
pub(crate) mod request;
