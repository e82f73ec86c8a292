//! The narrow seam between the journal and a file system: every operation whose durability the journal
//! relies on, and nothing else. [`RealDisk`] is the machine's; tests put a simulated one under the journal.

use std::{fs, io, os::unix::fs::FileExt, path::Path, time::SystemTime};

/// What the journal asks of a file system. Paths are absolute or relative to the process.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents; fine when it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes entries of a directory survive a crash.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// What a directory holds; empty when it is not there.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a new file for appending; an error when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;
    /// Puts `bytes` in the place of a file's, all or none of them, durably. Who has the file open keeps the old ones;
    /// the time of its last change stays.
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
    /// Last change.
    pub modified: SystemTime,
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
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

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(fs::OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let modified = fs::metadata(path)?.modified()?;
        let fresh = path.with_extension("new");
        let mut file = fs::File::create(&fresh)?;
        io::Write::write_all(&mut file, bytes)?;
        file.set_modified(modified)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
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

/// `None` for names that are not UTF-8 (not ours) and for entries that vanished meanwhile.
fn describe(entry: &fs::DirEntry) -> io::Result<Option<Entry>> {
    let Ok(name) = entry.file_name().into_string() else { return Ok(None) };
    let metadata = match entry.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let is_dir = metadata.is_dir();
    let bytes = if is_dir { 0 } else { metadata.len() };
    Ok(Some(Entry { name, bytes, is_dir, modified: metadata.modified()? }))
}
