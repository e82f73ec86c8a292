//! Redis: the servers and the breaker in front of them. Nothing here knows what is kept there.

pub(crate) mod breaker;
pub(crate) mod servers;
