//! x
#![allow(missing_docs)]
pub mod config;
pub mod journal;
pub mod metrics;
pub mod model;
pub mod routing;
pub mod shutdown;
pub mod telemetry;
pub mod template;
