//! Files that are read whole, within a bound.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, ensure};

/// A file, or what comes on standard input for `-`, of at most so many bytes; `key` is the setting that says how many.
pub(super) fn read(file: &Path, bytes_max: u64, key: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = match file.to_str() {
        Some("-") => within(std::io::stdin(), bytes_max, key),
        _ => File::open(file).map_err(Into::into).and_then(|file| within(file, bytes_max, key)),
    };
    bytes.with_context(|| format!("cannot read {}", file.display()))
}

/// All of a source, if it is not longer.
pub(super) fn within(source: impl Read, bytes_max: u64, key: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= bytes_max, "it is longer than {bytes_max} bytes ({key})");
    Ok(bytes)
}
