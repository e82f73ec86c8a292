//! x
#![allow(missing_docs, reason = "in the making")]
pub mod config;
pub mod db;
pub mod journal;
pub mod metrics;
pub mod model;
pub mod routing;
pub mod shutdown;
pub mod telemetry;
pub mod template;
