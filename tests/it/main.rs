//! The integration tests: one binary, one file a feature, real PostgreSQL, real Redis, a real Prometheus and the real `octo`.
//!
//! `harness` brings the servers up and takes them down again; `tracker` is a running octo with a campaign;
//! `load` and `visitors` send clicks, `verify` finds out what became of them; every other file is named for what it tests.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "a test that cannot go on fails, starts what it likes, and reads rows as tuples"
)]

mod api;
mod bad_inputs;
mod cache;
mod cache_hints;
mod cache_outage;
mod caller;
mod canary;
mod cli;
mod click;
mod clocks;
mod corrections;
mod crash;
mod database_statistics;
mod dead_letters;
mod drain;
mod embedded;
mod erasure;
mod event;
mod event_inputs;
mod event_sources;
mod exactly_once;
mod harness;
mod harness_test;
mod idempotency;
mod limits;
mod load;
mod manners;
mod nodes;
mod ops;
mod outage;
mod overload;
mod partitions;
mod permissions;
mod pgbouncer;
mod poison;
mod pool;
mod privacy;
mod prometheus;
mod python_client;
mod queries;
mod records;
mod replay;
mod replicas;
mod restarts;
mod restore;
mod schemathesis;
mod scopes;
mod slow_clients;
mod start;
mod statements;
mod tools;
mod tracker;
mod upgrade;
mod valid_traffic;
mod verify;
mod visitors;
mod wire;
