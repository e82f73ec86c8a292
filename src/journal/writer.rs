//! The one thread that writes: take, seal, write, sync, answer.

use std::{
    io, mem,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Instant, SystemTime},
};

use super::{
    AppendError, Group, Kept, Shared,
    disk::Write,
    frame::{self, SEGMENT_HEAD},
    lock,
    segment::{Segment, segment_path, stream_dir},
};
use crate::metrics;

pub(super) struct Writer {
    shared: Arc<Shared>,
    current: Option<Current>,
    next_seq: u64,
    /// Whose records are being written.
    group: Arc<Group>,
}

/// The segment being written.
struct Current {
    file: Box<dyn Write>,
    bytes: u64,
}

impl Writer {
    /// Makes the stream's directory and first segment, so that a disk that cannot be written is found now.
    pub(super) fn begin(shared: Arc<Shared>) -> io::Result<Self> {
        let root = &shared.options.root;
        shared.disk.create_dir(&stream_dir(root, shared.stream))?;
        shared.disk.sync_dir(root)?;
        let kept = Kept { segments: Vec::new(), end_seq: None, drained_seq: 0 };
        lock(&shared.kept).insert(shared.stream, kept);
        let mut writer = Self { shared, current: None, next_seq: 0, group: Arc::default() };
        writer.current = Some(writer.open_segment()?);
        Ok(writer)
    }

    /// Until the journal is closed and its queue is empty.
    pub(super) fn run(mut self) {
        let mut frames = Vec::new();
        while self.take(&mut frames) {
            self.rotate();
            if !frames.is_empty() {
                self.shared.writing_since_ms.store(self.shared.elapsed_ms() + 1, Ordering::Relaxed);
                self.commit(&mut frames);
                self.shared.writing_since_ms.store(0, Ordering::Relaxed);
                frames.clear();
            }
        }
        let mut all = lock(&self.shared.kept);
        if let Some(kept) = all.get_mut(&self.shared.stream) {
            kept.end_seq = Some(self.next_seq);
        }
    }

    /// Ends the segment being written, if that was asked for and it holds a record.
    fn rotate(&mut self) {
        let has_records = |c: &Current| c.bytes > SEGMENT_HEAD as u64;
        if self.shared.rotate.swap(false, Ordering::Relaxed) && self.current.as_ref().is_some_and(has_records)
        {
            match self.open_segment() {
                Ok(next) => self.current = Some(next),
                Err(error) => {
                    tracing::warn!(%error, "a journal segment could not be ended; it is written on");
                }
            }
        }
    }

    /// Swaps the queue with an empty one; `false` when closed and empty.
    fn take(&mut self, frames: &mut Vec<u8>) -> bool {
        self.wait();
        // lets those who are ready to run queue more for the same sync, which costs CPU too; an idle machine comes
        // back at once
        thread::yield_now();
        let mut queue = lock(&self.shared.queue);
        let bytes = mem::take(&mut queue.bytes);
        queue.frames.truncate(bytes);
        mem::swap(&mut queue.frames, frames);
        self.group = mem::take(&mut queue.group);
        mem::take(&mut queue.records) > 0 || self.shared.rotate.load(Ordering::Relaxed)
    }

    /// Returns when there are records, or will be none any more, or a segment is to end.
    fn wait(&self) {
        let mut queue = lock(&self.shared.queue);
        while queue.records == 0 && !queue.is_closed && !self.shared.rotate.load(Ordering::Relaxed) {
            queue = self.shared.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn commit(&mut self, frames: &mut [u8]) {
        let first_seq = self.next_seq;
        let count = frame::seal(frames, self.shared.stream, first_seq);
        let written = self.write(frames);
        self.shared.is_writable.store(written.is_ok(), Ordering::Relaxed);
        metrics::journal_committed(written.is_ok(), count, frames.len());
        // after a failure the sequences are used again by the next batch: nothing of this one was acknowledged
        if written.is_ok() {
            self.next_seq += count;
            self.shared.durable.send_replace(self.next_seq);
        }
        self.group.answer(written.map(|()| first_seq));
    }

    /// Returns once the batch is durable. A file whose write or sync failed is never written again: the
    /// batch goes to a new segment once, or nowhere.
    fn write(&mut self, batch: &[u8]) -> Result<(), AppendError> {
        self.make_room(batch.len() as u64)?;
        let is_full = |c: &Current| c.bytes + batch.len() as u64 > self.shared.options.segment_bytes;
        self.current = self.current.take().filter(|c| !is_full(c) || c.bytes == SEGMENT_HEAD as u64);
        if let Some(current) = self.current.take() {
            match self.write_to(current, batch) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    metrics::journal_error();
                    tracing::error!(%error, "a write to the journal failed; going on in a new segment");
                }
            }
        }
        let attempt = self.open_segment().and_then(|current| self.write_to(current, batch));
        attempt.map_err(|error| {
            metrics::journal_error();
            tracing::error!(%error, records_refused = true, "the journal cannot be written");
            AppendError::Disk(Arc::new(error))
        })
    }

    fn write_to(&mut self, mut current: Current, batch: &[u8]) -> io::Result<()> {
        let written = current.file.append(batch).and_then(|()| {
            let start = Instant::now();
            let synced = current.file.sync();
            metrics::journal_fsync(start.elapsed());
            synced
        });
        // what a failed write left behind takes room too
        current.bytes += batch.len() as u64;
        self.grow(batch.len() as u64);
        written?;
        self.current = Some(current);
        Ok(())
    }

    /// Makes, syncs and registers the segment that begins with the next sequence.
    fn open_segment(&self) -> io::Result<Current> {
        let shared = &self.shared;
        let path = segment_path(&shared.options.root, shared.stream, self.next_seq);
        let head = frame::segment_head(shared.stream, self.next_seq);
        let create = || {
            let mut file = shared.disk.create(&path)?;
            file.append(&head)?;
            file.sync()?;
            shared.disk.sync_dir(&stream_dir(&shared.options.root, shared.stream))?;
            Ok(file)
        };
        // a segment of this name can only hold a first batch that failed: nothing of it was acknowledged
        self.forget(&path)?;
        let file = create().inspect_err(|_: &io::Error| drop(shared.disk.remove(&path)))?;
        let bytes = head.len() as u64;
        let segment =
            Segment { first_seq: self.next_seq, bytes: 0, modified: SystemTime::now(), is_corrupt: false };
        let mut all = lock(&shared.kept);
        all.entry(shared.stream).and_modify(|kept| kept.segments.push(segment));
        drop(all);
        self.grow(bytes);
        Ok(Current { file, bytes })
    }

    /// Removes a segment that would begin at the next sequence, should there be one.
    fn forget(&self, path: &std::path::Path) -> io::Result<()> {
        let mut all = lock(&self.shared.kept);
        let Some(kept) = all.get_mut(&self.shared.stream) else { return Ok(()) };
        if kept.segments.last().is_some_and(|s| s.first_seq == self.next_seq) {
            self.shared.disk.remove(path)?;
            let bytes = kept.segments.pop().map_or(0, |s| s.bytes);
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts bytes added to the last segment.
    fn grow(&self, bytes: u64) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut all = lock(&self.shared.kept);
        if let Some(segment) = all.get_mut(&self.shared.stream).and_then(|k| k.segments.last_mut()) {
            segment.bytes += bytes;
            segment.modified = SystemTime::now();
        }
    }

    /// Deletes drained segments, however young, when the journal would outgrow its size.
    fn make_room(&self, bytes: u64) -> Result<(), AppendError> {
        let over = || self.shared.bytes.load(Ordering::Relaxed) + bytes > self.shared.options.bytes_max;
        if over() {
            let removed = self.shared.clean(|_| true);
            tracing::warn!(removed, "the journal reached journal.max_bytes; deleted drained segments early");
            if over() {
                return Err(AppendError::Full);
            }
        }
        Ok(())
    }
}

/// Nobody waits for a thread that is gone, not even after a panic.
impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.is_writable.store(false, Ordering::Relaxed); // readiness says so
        }
        let mut queue = lock(&self.shared.queue);
        queue.is_closed = true;
        queue.group.answer(Err(AppendError::Closed));
        self.group.answer(Err(AppendError::Closed));
    }
}
