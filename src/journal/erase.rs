//! Takes single records out of segments that are not written any more. A record's bytes become zeros behind a mark
//! of their own, of the same length and with a good checksum, so that every other record stays where it is. The file
//! is put in the place of the old one as a whole: who reads the old one goes on, and a power cut leaves either.
//!
//! Why files that are otherwise never changed are rewritten for this, though the drain refuses erased records by itself:
//! segments are kept after they were drained because a database that goes back (a failover to a standby that lags, a
//! restored backup) gets their records again. The note of the erasure goes back with that database, so the drain would
//! store the erased record again; here it is blank, and cannot come back. To delete the whole segment instead would take
//! the same second chance from all its other records, up to some 300,000 clicks (64 MiB). And while PostgreSQL is away, what
//! is pending could stay readable without limit.

use std::{io, ops::Range, path::Path};

use uuid::Uuid;

use super::{
    disk::Disk,
    frame::{self, FRAME_HEAD, SEGMENT_HEAD},
    segment::segment_path,
};
use crate::facts::record;

/// Shows every good record of a segment, with its sequence.
pub fn visit(
    disk: &dyn Disk,
    root: &Path,
    stream: Uuid,
    first_seq: u64,
    see: &mut dyn FnMut(u64, &[u8]),
) -> io::Result<()> {
    let content = read(disk, root, stream, first_seq)?;
    for (seq, frame) in frames(&content, stream, first_seq) {
        see(seq, &content[frame][FRAME_HEAD..]);
    }
    Ok(())
}

/// Blanks the records that `is_erased`, and says how many they were. Nobody may be writing the segment. One whose last
/// erasure failed is put in place `again`, whether it holds more of them or not: it may be blank here and not on disk.
pub fn erase(
    disk: &dyn Disk,
    root: &Path,
    stream: Uuid,
    first_seq: u64,
    is_erased: &dyn Fn(&[u8]) -> bool,
    again: bool,
) -> io::Result<u64> {
    let mut content = read(disk, root, stream, first_seq)?;
    let mut records = 0;
    for (_, frame) in frames(&content, stream, first_seq) {
        let frame = &mut content[frame];
        if is_erased(&frame[FRAME_HEAD..]) {
            record::blank(&mut frame[FRAME_HEAD..]);
            frame::reseal(frame, stream);
            records += 1;
        }
    }
    if records > 0 || again {
        disk.replace(&segment_path(root, stream, first_seq), &content)?;
    }
    Ok(records)
}

fn read(disk: &dyn Disk, root: &Path, stream: Uuid, first_seq: u64) -> io::Result<Vec<u8>> {
    const CHUNK: usize = 1 << 20;
    let mut file = disk.open(&segment_path(root, stream, first_seq))?;
    let mut content = Vec::new();
    loop {
        let start = content.len();
        content.resize(start + CHUNK, 0);
        let filled = file.read_at(start as u64, &mut content[start..])?;
        content.truncate(start + filled);
        if filled < CHUNK {
            return Ok(content);
        }
    }
}

/// Sequence and place of every good frame, over damage if there is any.
fn frames(content: &[u8], stream: Uuid, first_seq: u64) -> Vec<(u64, Range<usize>)> {
    let (mut found, mut at, mut next_seq) = (Vec::new(), SEGMENT_HEAD, first_seq);
    while at < content.len() {
        let frame = match frame::parse(&content[at..], stream) {
            Ok(frame) => Some((at, frame)),
            Err(_) => frame::resync(content, stream, at + 1, next_seq),
        };
        let Some((start, frame)) = frame else { break };
        at = start + frame.len();
        next_seq = frame.seq + 1;
        found.push((frame.seq, start..at));
    }
    found
}
