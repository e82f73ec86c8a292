//! The integration tests: one binary, one file a feature, real PostgreSQL, real Redis and the real `octo`.
//!
//! `harness` brings the servers up and takes them down again; every other file is named for what it tests.

mod harness;
mod harness_test;
