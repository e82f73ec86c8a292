//! The narrow seam between the journal and a file system: every operation whose durability the journal
//! relies on, and nothing else. [`RealDisk`] is the machine's; tests put a simulated one under the journal.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::SystemTime,
};

/// Of files: their owner may read and write, nobody else may anything, whatever the umask allows.
pub(super) const FILE_MODE: u32 = 0o600;
/// Of directories, likewise.
const DIR_MODE: u32 = 0o700;
/// Permissions of others.
const OTHERS: u32 = 0o077;
/// Extension of files that were not finished when they are found at a start.
pub(super) const UNFINISHED: &str = "new";

/// What the journal asks of a file system. Paths are absolute or relative to the process.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory, for its owner only, and its parents; fine when it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes entries of a directory survive a crash.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// What a directory holds; empty when it is not there.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Takes every permission on a file or directory from all but its owner.
    fn make_private(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file for appending, for its owner only; an error when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;
    /// Puts `bytes` in the place of a file's, all or none of them, durably. Who has the file open keeps the old ones;
    /// the time of its last change stays. Where it fails or is cut off, a file with the extension `new` may be left.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to `length` bytes and syncs it.
    fn truncate(&self, path: &Path, length: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file being appended to.
pub trait Write: Send {
    /// Appends all bytes, or fails having appended any part of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once everything appended survives a power cut (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read.
pub trait Read: Send {
    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File name.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub bytes: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Whether anybody but its owner has a permission on it.
    pub is_open_to_others: bool,
    /// Last change.
    pub modified: SystemTime,
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        create_private_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.filter_map(|entry| entry.and_then(|e| describe(&e)).transpose()).collect()
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & OTHERS == 0 {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode & !OTHERS & 0o7777))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        let file = fs::OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let modified = fs::metadata(path)?.modified()?;
        let fresh = path.with_extension(UNFINISHED);
        let written = write_new(&fresh, bytes, modified).and_then(|()| fs::rename(&fresh, path));
        if written.is_err() {
            let _ = fs::remove_file(&fresh); // what it holds was to be erased
        }
        written?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    fn truncate(&self, path: &Path, length: u64) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

impl Write for fs::File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Read for fs::File {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }
}

/// Makes a directory for its owner only. Parents that are missing may be passed through by others, such as the user that
/// the private PostgreSQL runs as; nobody else may write them, whatever the umask.
pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    match fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

/// Writes a file as a whole, durably but for its name.
fn write_new(path: &Path, bytes: &[u8], modified: SystemTime) -> io::Result<()> {
    let mut create = fs::OpenOptions::new();
    let mut file = create.write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.set_modified(modified)?;
    file.sync_all()
}

/// `None` for names that are not UTF-8 (not ours) and for entries that vanished meanwhile.
fn describe(entry: &fs::DirEntry) -> io::Result<Option<Entry>> {
    let Ok(name) = entry.file_name().into_string() else { return Ok(None) };
    let metadata = match entry.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let is_dir = metadata.is_dir();
    let bytes = if is_dir { 0 } else { metadata.len() };
    let is_open_to_others = metadata.permissions().mode() & OTHERS != 0;
    Ok(Some(Entry { name, bytes, is_dir, is_open_to_others, modified: metadata.modified()? }))
}
