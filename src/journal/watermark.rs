//! The name under which Postgres keeps the progress of a stream: the stream's own id, until somebody else moved the
//! watermark of that name.
//!
//! That happens where two machines have the same stream: a virtual machine that was cloned or restored with its
//! memory goes on with stream and sequences of the original. What the watermark then counts as stored was stored by
//! the other one, under the same sequences. The stream stays as it is on disk and gets a new name in Postgres, where
//! its progress begins at what this process stored itself. A Postgres that later does not know the new name is older
//! than that (a failover, a restored backup), and is sent all of the stream that is left. What it holds already it
//! recognises by its ids.
//!
//! `<journal>/<stream uuid>/watermark-<number>-<uuid>` is an empty file; the highest number counts.

use std::{
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{disk::Disk, segment::stream_dir};

const PREFIX: &str = "watermark-";

/// Where Postgres keeps the progress of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// `ingest_watermark.stream`
    pub id: Uuid,
    /// Where it begins in a Postgres that does not know it.
    pub from_seq: u64,
}

/// A name that is not the stream's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) number: u64,
    pub(super) id: Uuid,
}

impl Mark {
    fn path(self, root: &Path, stream: Uuid) -> PathBuf {
        stream_dir(root, stream).join(format!("{PREFIX}{:010}-{}", self.number, self.id.simple()))
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let (number, id) = (parts.next()?.parse().ok()?, Uuid::try_parse(parts.next()?).ok()?);
        parts.next().is_none().then_some(Self { number, id })
    }
}

/// The name of the progress of a stream on disk.
pub fn id_of(disk: &dyn Disk, root: &Path, stream: Uuid) -> io::Result<Uuid> {
    Ok(read(disk, root, stream)?.map_or(stream, |mark| mark.id))
}

/// The last mark of a stream.
pub(super) fn read(disk: &dyn Disk, root: &Path, stream: Uuid) -> io::Result<Option<Mark>> {
    let entries = disk.list(&stream_dir(root, stream))?;
    Ok(entries.iter().filter_map(|e| Mark::parse(&e.name)).max_by_key(|mark| mark.number))
}

/// Makes a mark, durably. One that failed is taken back as well as can be: nothing was stored under its name.
pub(super) fn write(disk: &dyn Disk, root: &Path, stream: Uuid, mark: Mark) -> io::Result<()> {
    let path = mark.path(root, stream);
    drop(disk.create(&path)?);
    disk.sync_dir(&stream_dir(root, stream)).inspect_err(|_| drop(disk.remove(&path)))
}

/// Removes the marks of a stream that has no segments any more.
pub(super) fn remove(disk: &dyn Disk, root: &Path, stream: Uuid) {
    let dir = stream_dir(root, stream);
    for entry in disk.list(&dir).unwrap_or_default().iter().filter(|e| Mark::parse(&e.name).is_some()) {
        let _ = disk.remove(&dir.join(&entry.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mark = Mark { number: 7, id: crate::model::id::new_uuid() };
        let path = mark.path(Path::new("/"), Uuid::nil());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Mark::parse(name), Some(mark));
        for bad in [
            "",
            "watermark-",
            "watermark-1-2",
            "watermark-x-y",
            "00000000000000000000.seg",
            &format!("{name}-1"),
            &name[1..],
        ] {
            assert_eq!(Mark::parse(bad), None, "{bad}");
        }
    }
}
