//! Postbacks out: what conversions did is told to traffic sources and to whoever wants a webhook.
//!
//! The drain queues deliveries in the transaction that stores a change (`db::ingest::deliveries`). Every node takes what
//! is due by leases, sends it, and notes each attempt: at least once, with the same id on every attempt. Nothing here is
//! on the way of a click.

pub mod client;
pub mod guard;
pub mod message;
pub mod schedule;
pub mod signature;
pub mod template;
pub mod worker;
