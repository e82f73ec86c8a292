//! Files of the data directory that only octo's user may read.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Read and written by their owner, by nobody else.
pub(crate) const MODE: u32 = 0o600;

/// Writes beside (`.json.new`), syncs, renames: a crash leaves the old file or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let _ = fs::remove_file(&beside); // one that a crash left keeps its permissions
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
