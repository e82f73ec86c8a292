//! Configuration: every key with its type and bounds, four layers, and where each value came from.
//!
//! `config/default.toml` is embedded and names every key; a file and the environment may only change what it names,
//! so a misspelt key is an error with the nearest name and never a silent default. A new key is a commented line there
//! and a typed field in `sections`.

mod layers;
mod sections;
mod urls;
mod values;

pub use layers::{Flags, Loaded, Source, environment};
#[cfg(test)]
pub(crate) use sections::OCTOS_OWN;
pub use sections::{
    Admission, Api, Cache, Caps, ClientIpHeader, Clock, Config, Dashboard, Database, Deliveries, Drain,
    IpMode, Journal, Limits, Log, LogFormat, Money, Postbacks, Privacy, Redis, Script, Server, Tracking,
};

/// What is wrong with the configuration: every fault at once, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {} {}:\n{}", .0.len(), if .0.len() == 1 { "fault" } else { "faults" }, lines(.0))]
pub struct Error(Vec<String>);

fn lines(faults: &[String]) -> String {
    faults.iter().map(|f| format!("  - {f}")).collect::<Vec<_>>().join("\n")
}
