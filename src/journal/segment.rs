//! Names of streams and segments, and what a scan of one segment finds.
//!
//! `<journal>/<stream uuid>/<first_seq, 20 digits>.seg`; a file `<first_seq>.corrupt` beside a segment marks
//! it as damaged, so that it is never deleted by octo itself.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use uuid::Uuid;

use super::{
    disk::{Disk, Read},
    frame::{self, NoFrame, SEGMENT_HEAD},
};

/// One file of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Sequence of its first record.
    pub first_seq: u64,
    /// Length on disk.
    pub bytes: u64,
    /// Last change.
    pub modified: SystemTime,
    /// Whether damage was found in it.
    pub is_corrupt: bool,
    /// Since when all of it is known to be in Postgres.
    pub(super) drained_at: Option<Instant>,
}

/// What a scan of a segment found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Good frames.
    pub records: u64,
    /// Sequence behind the last good frame.
    pub end_seq: u64,
    /// Offset behind the last good frame.
    pub end_offset: u64,
    /// Bytes behind the last good frame: a torn tail, never acknowledged.
    pub torn_bytes: u64,
    /// Damaged places with good frames behind them: (offset, first sequence lost, records lost).
    pub corrupt: Vec<(u64, u64, u64)>,
    /// Whether the head is not one of this segment.
    pub bad_head: bool,
}

/// The streams under `root`, oldest first by the time of their ids.
pub fn streams(disk: &dyn Disk, root: &Path) -> io::Result<Vec<Uuid>> {
    let mut streams: Vec<Uuid> =
        disk.list(root)?.iter().filter(|e| e.is_dir).filter_map(|e| Uuid::try_parse(&e.name).ok()).collect();
    streams.sort();
    Ok(streams)
}

/// The segments of a stream in order.
pub fn segments(disk: &dyn Disk, root: &Path, stream: Uuid) -> io::Result<Vec<Segment>> {
    let entries = disk.list(&stream_dir(root, stream))?;
    let is_marked = |first_seq| entries.iter().any(|e| e.name == corrupt_name(first_seq));
    let mut segments: Vec<Segment> = entries
        .iter()
        .filter_map(|e| {
            let first_seq = e.name.strip_suffix(".seg")?.parse().ok()?;
            Some(Segment {
                first_seq,
                bytes: e.bytes,
                modified: e.modified,
                is_corrupt: is_marked(first_seq),
                drained_at: None,
            })
        })
        .collect();
    segments.sort_by_key(|s| s.first_seq);
    Ok(segments)
}

/// Reads a whole segment and says what is in it. `limit_seq` is where the next segment begins: frames from
/// there on were written again in that one and do not count here.
pub fn scan(
    file: &mut dyn Read,
    bytes: u64,
    stream: Uuid,
    first_seq: u64,
    limit_seq: Option<u64>,
) -> io::Result<Scan> {
    let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    let filled = file.read_at(0, &mut content)?;
    content.truncate(filled);
    let mut scan = Scan { end_seq: first_seq, ..Scan::default() };
    if !frame::is_segment_head(&content, stream, first_seq) {
        scan.bad_head = true;
        scan.torn_bytes = content.len() as u64;
        return Ok(scan);
    }
    let mut at = SEGMENT_HEAD;
    while at < content.len() && limit_seq.is_none_or(|limit| scan.end_seq < limit) {
        match frame::parse(&content[at..], stream) {
            Ok(frame) if frame.seq == scan.end_seq => {
                scan.records += 1;
                scan.end_seq += 1;
                at += frame.len();
            }
            // a frame of another sequence where this one should be is as bad as none
            Ok(_) | Err(NoFrame::Bad | NoFrame::Incomplete) => {
                let Some((resume, seq)) = resume_behind(&content, stream, at, scan.end_seq) else { break };
                scan.corrupt.push((at as u64, scan.end_seq, seq - scan.end_seq));
                at = resume;
                scan.end_seq = seq;
            }
        }
    }
    scan.end_offset = at as u64;
    scan.torn_bytes = (content.len() - at) as u64;
    Ok(scan)
}

/// Where reading goes on behind a bad frame, if what is bad was ever synced: at the first good frame, provided
/// that some good frame behind the bad one begins a batch.
fn resume_behind(content: &[u8], stream: Uuid, bad: usize, seq: u64) -> Option<(usize, u64)> {
    let (resume, first) = frame::resync(content, stream, bad + 1, seq)?;
    let mut found = (resume, first);
    while !found.1.is_first_of_batch {
        found = frame::resync(content, stream, found.0 + 1, found.1.seq + 1)?;
    }
    Some((resume, first.seq))
}

pub(super) fn stream_dir(root: &Path, stream: Uuid) -> PathBuf {
    root.join(stream.to_string())
}

/// Path of a segment.
pub fn segment_path(root: &Path, stream: Uuid, first_seq: u64) -> PathBuf {
    stream_dir(root, stream).join(format!("{first_seq:020}.seg"))
}

/// Path of the mark of a damaged segment.
pub(super) fn corrupt_path(root: &Path, stream: Uuid, first_seq: u64) -> PathBuf {
    stream_dir(root, stream).join(corrupt_name(first_seq))
}

fn corrupt_name(first_seq: u64) -> String {
    format!("{first_seq:020}.corrupt")
}
