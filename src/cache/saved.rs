//! The last good set of campaigns on disk: JSON with a schema version, replaced as a whole.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::model::campaign::Campaign;

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Out<'a> {
    schema: u32,
    campaigns: Vec<&'a Campaign>,
}

#[derive(Deserialize)]
struct In {
    schema: u32,
    campaigns: Vec<Campaign>,
}

/// Writes beside, syncs, renames: a crash leaves the old file or the new one.
pub(super) fn save<'a>(path: &Path, campaigns: impl Iterator<Item = &'a Campaign>) -> io::Result<()> {
    let bytes = serde_json::to_vec(&Out { schema: SCHEMA, campaigns: campaigns.collect() })?;
    let beside = path.with_extension("json.new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

/// `None` when there is none, or one of another schema.
pub(super) fn load(path: &Path) -> io::Result<Option<Vec<Campaign>>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    let saved: In = serde_json::from_slice(&bytes)?;
    Ok((saved.schema == SCHEMA).then_some(saved.campaigns))
}
