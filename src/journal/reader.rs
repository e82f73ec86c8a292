//! Reads a stream in batches for the drain: only what is durable, in order, over damage if there is any.

use std::{io, ops::Range, path::PathBuf, sync::Arc};

use uuid::Uuid;

use super::{
    disk::{Disk, Read},
    frame::{self, FRAME_HEAD, NoFrame, PAYLOAD_BYTES_MAX, SEGMENT_HEAD},
    segment::{segment_path, segments},
};

const READ_BYTES: usize = 1 << 16;

/// A position in a stream.
pub struct Reader {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    stream: Uuid,
    next_seq: u64,
    open: Option<Open>,
}

struct Open {
    file: Box<dyn Read>,
    first_seq: u64,
    /// First sequence of the next segment, once there is one.
    limit_seq: Option<u64>,
    /// Of the frame of `next_seq`.
    offset: u64,
}

/// Consecutive records of a stream.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    payloads: Vec<Range<usize>>,
    /// First sequence of the batch.
    pub lo: u64,
    /// Sequence behind the batch; `hi - lo` is more than `len()` where records are damaged.
    pub hi: u64,
    /// Damage met: (first sequence of the segment, offset, records lost).
    pub damage: Vec<(u64, u64, u64)>,
}

impl Batch {
    /// Payloads in order.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.payloads.iter().map(|range| &self.bytes[range.clone()])
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }
}

impl Reader {
    pub(super) fn new(disk: Arc<dyn Disk>, root: PathBuf, stream: Uuid, from_seq: u64) -> Self {
        Self { disk, root, stream, next_seq: from_seq, open: None }
    }

    /// Sequence of the next record.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Reads up to `records_max` records of at most about `bytes_max` bytes, none at or behind `end_seq`
    /// (what is not durable yet). An empty batch whose `hi` is `lo` means: nothing there. Blocks on the disk.
    pub fn read(&mut self, end_seq: u64, records_max: usize, bytes_max: usize) -> io::Result<Batch> {
        let mut batch = Batch { lo: self.next_seq, hi: self.next_seq, ..Batch::default() };
        while self.next_seq < end_seq && batch.is_empty() {
            self.find_limit()?;
            if self.open.is_none() && !self.open_segment(end_seq, &mut batch)? {
                break;
            }
            self.read_open(end_seq, records_max, bytes_max, &mut batch)?;
        }
        batch.hi = self.next_seq;
        Ok(batch)
    }

    /// Looks where the next segment begins, and closes the open one once that is reached.
    ///
    /// This must come after `end_seq` was taken: a sequence behind a failed write is used again in a new
    /// segment, and the old file may hold another record under it. The new segment is on disk before a
    /// sequence in it is durable, so whoever knows `end_seq` also sees the segment.
    fn find_limit(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.limit_seq.is_none() {
            let all = segments(self.disk.as_ref(), &self.root, self.stream)?;
            open.limit_seq = all.iter().map(|s| s.first_seq).find(|first| *first > open.first_seq);
        }
        if open.limit_seq.is_some_and(|limit| self.next_seq >= limit) {
            self.open = None;
        }
        Ok(())
    }

    /// Opens the segment that holds `next_seq`. A missing one is damage: reading goes on at the next, or at
    /// the end.
    fn open_segment(&mut self, end_seq: u64, batch: &mut Batch) -> io::Result<bool> {
        let all = segments(self.disk.as_ref(), &self.root, self.stream)?;
        let at = all.partition_point(|s| s.first_seq <= self.next_seq);
        let limit_seq = all.get(at).map(|s| s.first_seq);
        let Some(segment) = at.checked_sub(1).map(|i| &all[i]) else {
            let resume = limit_seq.unwrap_or(end_seq).min(end_seq);
            batch.damage.push((self.next_seq, 0, resume - self.next_seq));
            self.next_seq = resume;
            return Ok(resume < end_seq && self.open_segment(end_seq, batch)?);
        };
        let first_seq = segment.first_seq;
        let file = self.disk.open(&segment_path(&self.root, self.stream, first_seq))?;
        self.open = Some(Open { file, first_seq, limit_seq, offset: SEGMENT_HEAD as u64 });
        let wanted = std::mem::replace(&mut self.next_seq, first_seq);
        while self.next_seq < wanted {
            self.read_open(wanted, usize::MAX, READ_BYTES, &mut Batch::default())?;
        }
        Ok(true)
    }

    /// Reads frames of the open segment into `batch`, up to damage, the segment's end or `end_seq`.
    fn read_open(
        &mut self,
        end_seq: u64,
        records_max: usize,
        bytes_max: usize,
        batch: &mut Batch,
    ) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let stop_seq = open.limit_seq.map_or(end_seq, |limit| limit.min(end_seq));
        let bytes_max = bytes_max.max(PAYLOAD_BYTES_MAX + FRAME_HEAD);
        batch.bytes.clear();
        let mut at = 0;
        while self.next_seq < stop_seq && batch.payloads.len() < records_max {
            match frame::parse(&batch.bytes[at..], self.stream) {
                Ok(frame) if frame.seq == self.next_seq => {
                    batch.payloads.push(at + FRAME_HEAD..at + frame.len());
                    at += frame.len();
                    self.next_seq += 1;
                }
                Err(NoFrame::Incomplete) if batch.bytes.len() < bytes_max => {
                    let offset = open.offset + batch.bytes.len() as u64;
                    let length = READ_BYTES.min(bytes_max - batch.bytes.len());
                    if fill(open.file.as_mut(), offset, length, &mut batch.bytes)? == 0 {
                        break;
                    }
                }
                _ => break,
            }
        }
        open.offset += at as u64;
        if batch.is_empty() && self.next_seq < stop_seq {
            self.pass_damage(stop_seq, batch)?;
        }
        Ok(())
    }

    /// Goes on at the next good frame of the segment, or at `stop_seq` when there is none before it.
    fn pass_damage(&mut self, stop_seq: u64, batch: &mut Batch) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut rest = Vec::new();
        while fill(open.file.as_mut(), open.offset + rest.len() as u64, READ_BYTES, &mut rest)? == READ_BYTES
        {
        }
        let found = frame::resync(&rest, self.stream, 1, self.next_seq).filter(|(_, f)| f.seq < stop_seq);
        let resume_seq = found.map_or(stop_seq, |(_, frame)| frame.seq);
        batch.damage.push((open.first_seq, open.offset, resume_seq - self.next_seq));
        open.offset += found.map_or(0, |(at, _)| at as u64);
        self.next_seq = resume_seq;
        Ok(())
    }
}

/// Appends up to `length` bytes of the file to `buffer`; says how many there were.
fn fill(file: &mut dyn Read, offset: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = vec![0; length];
    let filled = file.read_at(offset, &mut chunk)?;
    buffer.extend_from_slice(&chunk[..filled]);
    Ok(filled)
}
