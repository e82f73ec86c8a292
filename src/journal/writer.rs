//! The one thread that writes: take, seal, write, sync, answer. While the disk or `journal.max_bytes` refuses, it looks
//! by itself, every `retry_interval`, whether they still do.

use std::{
    io, mem,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    AppendError, Group, Kept, Shared,
    disk::{self, Write},
    frame::{self, SEGMENT_HEAD},
    lock, recover,
    segment::{Segment, segment_path, stream_dir},
    sync_above,
};
use crate::metrics;

/// What is wrong is said again after this time.
const SAY_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes that a try to write writes at least, and at most.
const PROBE_BYTES: (u64, u64) = (4096, 1 << 20);

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Gets the right to write the journal; must succeed before anything is touched.
    claim: Box<dyn FnMut() -> io::Result<()> + Send>,
    /// Whether there is a directory for this start's stream.
    is_begun: bool,
    current: Option<Current>,
    next_seq: u64,
    /// Whose records are being written.
    group: Arc<Group>,
    /// Bytes of the batch that was refused last.
    refused_bytes: u64,
    refusals: Refusals,
    failures: SayRarely,
    cleanings: SayRarely,
}

/// The segment being written.
struct Current {
    file: Box<dyn Write>,
    bytes: u64,
}

/// One line in [`SAY_INTERVAL`].
#[derive(Default)]
struct SayRarely(Option<Instant>);

impl SayRarely {
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|said| said.elapsed() >= SAY_INTERVAL);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// What is said of records that were refused.
#[derive(Default)]
struct Refusals {
    /// Since that was said last.
    untold: u64,
    /// Since records are refused.
    all: u64,
    said: SayRarely,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, claim: Box<dyn FnMut() -> io::Result<()> + Send>) -> Self {
        Self {
            shared,
            claim,
            is_begun: false,
            current: None,
            next_seq: 0,
            group: Arc::default(),
            refused_bytes: 0,
            refusals: Refusals::default(),
            failures: SayRarely::default(),
            cleanings: SayRarely::default(),
        }
    }

    /// Until the journal is closed and its queue is empty; tells when it was tried to open it once.
    pub(super) fn run(mut self, tell: impl FnOnce()) {
        self.try_again();
        tell();
        let mut frames = Vec::new();
        while self.take(&mut frames) {
            self.rotate();
            if !frames.is_empty() {
                self.shared.writing_since_ms.store(self.shared.elapsed_ms() + 1, Ordering::Relaxed);
                self.commit(&mut frames);
                self.shared.writing_since_ms.store(0, Ordering::Relaxed);
                frames.clear();
            }
            if self.until_next_try() == Some(Duration::ZERO) {
                self.try_again();
            }
        }
        let mut all = lock(&self.shared.kept);
        if let Some(kept) = all.get_mut(&self.shared.stream) {
            kept.end_seq = Some(self.next_seq);
        }
    }

    /// `None` while the journal can be written.
    fn until_next_try(&self) -> Option<Duration> {
        if self.shared.is_writable.load(Ordering::Relaxed) {
            return None;
        }
        let try_at_ms = self.shared.try_at_ms.load(Ordering::Relaxed);
        Some(Duration::from_millis(try_at_ms.saturating_sub(self.shared.elapsed_ms())))
    }

    /// Opens the journal, or looks whether it can be written, without a record.
    fn try_again(&mut self) {
        let tried = if self.is_begun { self.probe() } else { self.open() };
        match tried {
            Ok(()) => self.set_writable(),
            Err(error) => self.set_trouble(error, 0),
        }
        self.try_later();
    }

    fn try_later(&self) {
        let interval_ms = u64::try_from(self.shared.options.retry_interval.as_millis()).unwrap_or(u64::MAX);
        let try_at_ms = self.shared.elapsed_ms().saturating_add(interval_ms);
        self.shared.try_at_ms.store(try_at_ms, Ordering::Relaxed);
    }

    /// Recovers what earlier starts left, and begins a stream. What was recovered can be read, and drained, although
    /// there may be no room to begin.
    fn open(&mut self) -> Result<(), AppendError> {
        if !self.shared.is_recovered.load(Ordering::Relaxed) {
            self.recover().map_err(refused)?;
        }
        self.clean_if_full();
        self.begin().map_err(refused)
    }

    fn recover(&mut self) -> io::Result<()> {
        (self.claim)()?;
        let Shared { disk, options, .. } = self.shared.as_ref();
        disk.create_dir(&options.root)?;
        sync_above(disk.as_ref(), &options.root)?;
        let kept = recover(disk.as_ref(), &options.root)?;
        let bytes = kept.values().flat_map(|k| &k.segments).map(|s| s.bytes).sum();
        *lock(&self.shared.kept) = kept;
        self.shared.bytes.store(bytes, Ordering::Relaxed);
        self.shared.is_recovered.store(true, Ordering::Relaxed);
        // the drain waits for records; these are some
        self.shared.durable.send_replace(0);
        Ok(())
    }

    /// Makes the stream's directory and first segment.
    fn begin(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let (root, stream) = (&shared.options.root, shared.stream);
        let dir = stream_dir(root, stream);
        // what an earlier try made may never become durable, because a failed sync is not made up for by a later one
        if shared.disk.list(root)?.iter().any(|e| e.name == stream.to_string()) {
            shared.disk.list(&dir)?.iter().try_for_each(|e| shared.disk.remove(&dir.join(&e.name)))?;
            shared.disk.remove_dir(&dir)?;
        }
        shared.disk.create_dir(&dir)?;
        shared.disk.sync_dir(root)?;
        let kept = Kept { segments: Vec::new(), end_seq: None, drained_seq: 0, watermark: None };
        lock(&shared.kept).insert(stream, kept);
        match self.open_segment() {
            Ok(current) => {
                self.current = Some(current);
                self.is_begun = true;
                Ok(())
            }
            Err(error) => {
                lock(&shared.kept).remove(&stream);
                Err(error)
            }
        }
    }

    /// Looks for room and writes something, so that nobody has to click before it is known that clicks are recorded.
    fn probe(&mut self) -> Result<(), AppendError> {
        self.clean_if_full();
        // never more than fits once everything is drained
        let bytes = self.refused_bytes.min(self.shared.options.segment_bytes);
        if self.make_room(bytes).is_err() && self.may_end_drained() {
            self.current = Some(self.open_segment().map_err(refused)?);
        }
        self.make_room(bytes)?;
        self.write_probe(bytes.clamp(PROBE_BYTES.0, PROBE_BYTES.1)).map_err(refused)?;
        if self.current.is_none() {
            self.current = Some(self.open_segment().map_err(refused)?);
        }
        Ok(())
    }

    /// Writes and syncs a file, and removes it. A new one each time: what a sync failed for it never brings back.
    fn write_probe(&self, bytes: u64) -> io::Result<()> {
        let disk = &self.shared.disk;
        let path = self.shared.options.root.join("probe").with_extension(disk::UNFINISHED);
        // most often it is not there
        let _ = disk.remove(&path);
        let content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        let written =
            disk.create(&path).and_then(|mut file| file.append(&content).and_then(|()| file.sync()));
        let removed = disk.remove(&path);
        written.and(removed)
    }

    /// On a disk without room, what is drained already goes, however young.
    fn clean_if_full(&self) {
        let is_full = match &*lock(&self.shared.trouble) {
            Some(AppendError::Disk(error)) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        };
        if is_full {
            let removed = self.shared.clean(|_| true);
            if removed > 0 {
                tracing::warn!(removed, "the journal's disk is full; deleted drained segments early");
            }
        }
    }

    /// Whether the segment being written would make room: all of it is drained.
    fn may_end_drained(&self) -> bool {
        let drained_seq = lock(&self.shared.kept).get(&self.shared.stream).map_or(0, |kept| kept.drained_seq);
        drained_seq >= self.next_seq && self.current.as_ref().is_some_and(Current::has_records)
    }

    fn set_writable(&mut self) {
        if self.shared.is_writable.swap(true, Ordering::Relaxed) {
            return;
        }
        let was = lock(&self.shared.trouble).take();
        self.refusals.untold = 0;
        let not_recorded = mem::take(&mut self.refusals.all);
        self.refused_bytes = 0;
        // at its first opening nothing was wrong before
        if !matches!(was, Some(AppendError::Closed)) {
            tracing::info!(not_recorded, "the journal can be written again");
        }
    }

    /// Notes why `records` were refused, and says so once in a while.
    fn set_trouble(&mut self, error: AppendError, records: u64) {
        self.refusals.untold += records;
        self.refusals.all += records;
        let is_new = self.shared.is_writable.swap(false, Ordering::Relaxed);
        let is_first = is_new || matches!(*lock(&self.shared.trouble), Some(AppendError::Closed));
        if is_new {
            self.try_later();
        }
        if (is_first || self.refusals.untold > 0) && self.refusals.said.is_due() {
            let not_recorded = mem::take(&mut self.refusals.untold);
            tracing::error!(
                dir = %self.shared.options.root.display(),
                error = format!("{:#}", anyhow::Error::from(error.clone())),
                not_recorded,
                "the journal cannot be written: clicks are redirected but NOT recorded; check room, rights and health \
                 of the disk. It is tried again by itself"
            );
        }
        *lock(&self.shared.trouble) = Some(error);
    }

    /// Ends the segment being written, if that was asked for and it holds a record.
    fn rotate(&mut self) {
        let has_records = self.current.as_ref().is_some_and(Current::has_records);
        if self.shared.rotate.swap(false, Ordering::Relaxed) && has_records {
            match self.open_segment() {
                Ok(next) => self.current = Some(next),
                Err(error) => {
                    tracing::warn!(%error, "a journal segment could not be closed; writing goes on in it");
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
        mem::take(&mut queue.records) > 0 || !queue.is_closed
    }

    /// Returns when there are records, or will be none any more, or a segment is to end, or it is time for another try.
    fn wait(&self) {
        let queued = &self.shared.queued;
        let mut queue = lock(&self.shared.queue);
        while queue.records == 0 && !queue.is_closed && !self.shared.rotate.load(Ordering::Relaxed) {
            queue = match self.until_next_try() {
                None => queued.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return,
                Some(left) => queued.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn commit(&mut self, frames: &mut [u8]) {
        let first_seq = self.next_seq;
        let count = frame::seal(frames, self.shared.stream, first_seq);
        let written = self.write(frames);
        // one that fits where another did not says little: only a try with room for the refused ends the trouble
        if let Err(error) = &written {
            self.refused_bytes = frames.len() as u64;
            self.set_trouble(error.clone(), count);
        }
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
        if !self.is_begun {
            let trouble = lock(&self.shared.trouble).clone();
            return Err(trouble.unwrap_or(AppendError::Closed));
        }
        self.make_room(batch.len() as u64)?;
        let is_full = |c: &Current| c.bytes + batch.len() as u64 > self.shared.options.segment_bytes;
        self.current = self.current.take().filter(|c| !is_full(c) || c.bytes == SEGMENT_HEAD as u64);
        if let Some(current) = self.current.take() {
            match self.write_to(current, batch) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    metrics::journal_error();
                    if self.failures.is_due() {
                        tracing::error!(%error, "a write to the journal failed; going on in a new segment");
                    }
                }
            }
        }
        self.open_segment().and_then(|current| self.write_to(current, batch)).map_err(refused)
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
        let segment = Segment {
            first_seq: self.next_seq,
            bytes: 0,
            modified: SystemTime::now(),
            is_corrupt: false,
            drained_at: None,
        };
        let mut all = lock(&shared.kept);
        all.entry(shared.stream).and_modify(|kept| kept.segments.push(segment));
        drop(all);
        self.grow(bytes);
        Ok(Current { file, bytes })
    }

    /// Removes a segment that would begin at the next sequence, should there be one.
    fn forget(&self, path: &Path) -> io::Result<()> {
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
    fn make_room(&mut self, bytes: u64) -> Result<(), AppendError> {
        let shared = self.shared.clone();
        let over = || shared.bytes.load(Ordering::Relaxed) + bytes > shared.options.bytes_max;
        if over() {
            let removed = shared.clean(|_| true);
            if removed > 0 && self.cleanings.is_due() {
                tracing::warn!(
                    removed,
                    "the journal reached journal.max_bytes; deleted drained segments early"
                );
            }
            if over() {
                return Err(AppendError::Full);
            }
        }
        Ok(())
    }
}

impl Current {
    fn has_records(&self) -> bool {
        self.bytes > SEGMENT_HEAD as u64
    }
}

/// The disk refused.
fn refused(error: io::Error) -> AppendError {
    metrics::journal_error();
    AppendError::Disk(Arc::new(error))
}

/// Nobody waits for a thread that is gone, not even after a panic.
impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.is_writable.store(false, Ordering::Relaxed); // readiness says so
            *lock(&self.shared.trouble) = Some(AppendError::Closed);
            self.shared.broken.cancel();
        }
        let mut queue = lock(&self.shared.queue);
        queue.is_closed = true;
        queue.group.answer(Err(AppendError::Closed));
        self.group.answer(Err(AppendError::Closed));
    }
}
