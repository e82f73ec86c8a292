//! The last good set of campaigns on disk: JSON with a schema version, replaced as a whole.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
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
    // one that a crash left keeps its permissions; destinations are nobody else's business
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
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
    // an octo of before left it open to others
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    let saved: In = serde_json::from_slice(&bytes)?;
    Ok((saved.schema == SCHEMA).then_some(saved.campaigns))
}
