//! The journal: an accepted fact is on disk before its sender is answered.
//!
//! [`Journal::append`] queues a record in memory and resolves once it survives a power cut. One thread owns
//! the file: it takes whatever queued during the last sync, writes it at once, calls `fdatasync` once and
//! answers every waiter. The journal knows nothing of Postgres; the drain reads it from the other end.
//!
//! A *stream* is one start of the process: a fresh UUID and sequences from 0 without a gap, in files
//! (*segments*) of their own. What an earlier start left behind is recovered when the journal opens.
//!
//! A journal that cannot be opened or written refuses records at once, and its thread tries it again by itself every
//! `retry_interval`, whether records come or not.

pub mod disk;
mod erase;
mod frame;
mod group;
mod reader;
mod segment;
mod watermark;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::poll_fn,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::model::id::uuid_after;
use disk::Disk;
pub use erase::{erase, visit};
pub use frame::PAYLOAD_BYTES_MAX;
use group::{Group, Place};
pub use reader::{Batch, Reader};
pub use segment::{Scan, Segment, scan, segment_path, segments, streams};
pub use watermark::{Watermark, id_of as watermark_id};

/// Bounds of a journal; see `[journal]` in `config/default.toml`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the streams.
    pub root: PathBuf,
    /// A new segment begins after this many bytes.
    pub segment_bytes: u64,
    /// Bytes on disk at most.
    pub bytes_max: u64,
    /// Records waiting for the disk at most.
    pub queue_records_max: usize,
    /// Bytes waiting for the disk at most.
    pub queue_bytes_max: usize,
    /// How long drained segments are kept, from the moment at which all of a segment was drained.
    pub keep_drained: Duration,
    /// How often a journal that cannot be opened or written is tried again.
    pub retry_interval: Duration,
}

/// Why a record is not on disk.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Too many records or bytes wait for the disk.
    #[error("the journal's queue is full")]
    QueueFull,
    /// The journal has reached its size and nothing in it may be deleted.
    #[error("the journal has reached its maximum size (journal.max_bytes)")]
    Full,
    /// The disk refused.
    #[error("the journal's disk failed")]
    Disk(#[source] Arc<io::Error>),
    /// Empty, or larger than [`PAYLOAD_BYTES_MAX`].
    #[error("a record must have 1 to {PAYLOAD_BYTES_MAX} bytes")]
    Size,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// Resolves to the record's sequence once it is on disk.
#[derive(Debug)]
pub struct Pending(Result<Place, AppendError>);

impl Pending {
    /// Waits for the disk.
    pub async fn durable(&mut self) -> Result<u64, AppendError> {
        match &mut self.0 {
            Ok(place) => poll_fn(|context| place.poll(context)).await,
            Err(refused) => Err(refused.clone()),
        }
    }
}

/// The journal; clones share it.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    stream: Uuid,
    queue: Mutex<Queue>,
    queued: Condvar,
    durable: watch::Sender<u64>,
    /// When the write in progress began, in milliseconds after `opened`, plus 1; 0: there is none.
    writing_since_ms: AtomicU64,
    opened: Instant,
    kept: Mutex<BTreeMap<Uuid, Kept>>,
    bytes: AtomicU64,
    is_writable: AtomicBool,
    /// Whether it is known what earlier starts left.
    is_recovered: AtomicBool,
    /// Why it is not writable.
    trouble: Mutex<Option<AppendError>>,
    /// When to try again while it is not writable, in milliseconds after `opened`.
    try_at_ms: AtomicU64,
    /// Cancelled when the writer's thread panicked.
    broken: CancellationToken,
    /// The segment being written is to end where it is.
    rotate: AtomicBool,
    /// Held by who deletes or rewrites segments, before `kept`.
    house: Mutex<()>,
    /// Segments in which an erasure failed.
    unsettled: Mutex<BTreeSet<(Uuid, u64)>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    /// Unsealed frames. Only the first `bytes` count: what a panicking encoder left behind them does not.
    frames: Vec<u8>,
    bytes: usize,
    records: usize,
    group: Arc<Group>,
    is_closed: bool,
}

/// What is on disk of one stream.
#[derive(Debug, Clone)]
struct Kept {
    segments: Vec<Segment>,
    /// Behind the last record; `None` while the stream is being written.
    end_seq: Option<u64>,
    /// Behind the last record in Postgres; 0 until Postgres was asked.
    drained_seq: u64,
    /// Under which name Postgres keeps its progress, where that is not the stream's own.
    watermark: Option<watermark::Mark>,
}

impl Kept {
    /// Of the oldest record that is left.
    fn first_seq(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.first_seq)
    }

    /// Each segment and the sequence behind it; `None` for the one being written.
    fn ends(&self) -> Vec<Option<u64>> {
        let next = self.segments.iter().skip(1).map(|next| Some(next.first_seq));
        next.chain([self.end_seq]).collect()
    }

    /// Notes which segments are drained since when. What the drain went back behind is not drained any more.
    fn note_drained(&mut self, now: Instant) {
        let ends = self.ends();
        for (segment, end) in self.segments.iter_mut().zip(ends) {
            if end.is_some_and(|end| end <= self.drained_seq) {
                segment.drained_at.get_or_insert(now);
            } else {
                segment.drained_at = None;
            }
        }
    }
}

/// The oldest record that is not known to be in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// Its stream.
    pub stream: Uuid,
    /// Its sequence.
    pub seq: u64,
    /// Behind the last record of the stream that is on disk.
    pub end_seq: u64,
    /// Last change of its segment.
    pub modified: SystemTime,
}

/// What [`Journal::erase`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Records blanked.
    pub records: u64,
    /// Whether none is left.
    pub is_complete: bool,
}

/// Figures for gauges and `/health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Streams on disk.
    pub streams: usize,
    /// Segments on disk.
    pub segments: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Records on disk that are not known to be in Postgres.
    pub pending_records: u64,
    /// Segments with damage.
    pub corrupt_segments: usize,
}

/// What waits for the disk.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Records in the queue.
    pub records: usize,
    /// How long the write in progress has taken so far.
    pub writing_for: Duration,
}

impl Journal {
    /// Recovers what earlier starts left, begins a stream, starts the writer's thread.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> io::Result<Self> {
        let journal = Self::start(disk, options, || Ok(()))?;
        let Some(trouble) = journal.trouble() else { return Ok(journal) };
        journal.close();
        Err(match trouble {
            AppendError::Disk(error) => io::Error::new(error.kind(), error),
            other => io::Error::other(other),
        })
    }

    /// As [`Self::open`], but a journal that cannot be opened begins unwritable ([`Self::trouble`] says why) and is
    /// tried again every `retry_interval`. Before it is opened, `claim` must have got the right to write it. Returns
    /// after the first try; fails only where the thread cannot be started.
    pub fn start(
        disk: Arc<dyn Disk>,
        options: Options,
        claim: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        // streams are drained in the order of their ids; a disk that does not say what it holds is asked again later
        let newest =
            segment::streams(disk.as_ref(), &options.root).ok().and_then(|all| all.into_iter().max());
        let journal = Self(Arc::new(Shared {
            disk,
            options,
            stream: uuid_after(newest),
            queue: Mutex::default(),
            queued: Condvar::new(),
            durable: watch::Sender::new(0),
            writing_since_ms: AtomicU64::new(0),
            opened: Instant::now(),
            kept: Mutex::default(),
            bytes: AtomicU64::new(0),
            is_writable: AtomicBool::new(false),
            is_recovered: AtomicBool::new(false),
            trouble: Mutex::new(Some(AppendError::Closed)),
            try_at_ms: AtomicU64::new(0),
            broken: CancellationToken::new(),
            rotate: AtomicBool::new(false),
            house: Mutex::default(),
            unsettled: Mutex::default(),
            writer: Mutex::new(None),
        }));
        let writer = writer::Writer::new(journal.0.clone(), Box::new(claim));
        let (tell, tried) = mpsc::channel();
        let run = move || {
            writer.run(move || {
                // nobody listens any more when the journal was dropped meanwhile
                let _ = tell.send(());
            });
        };
        let thread = thread::Builder::new().name("octo-journal".to_owned()).spawn(run)?;
        *lock(&journal.0.writer) = Some(thread);
        // an error: the thread panicked, which `broken` tells
        let _ = tried.recv();
        Ok(journal)
    }

    /// Queues a record; never blocks. Dropping the answer does not take the record back.
    pub fn append(&self, payload: &[u8]) -> Pending {
        self.append_with(|out| out.extend_from_slice(payload))
    }

    /// Queues the record that `write` appends to the bytes it is given: it is encoded where it is sent from.
    pub fn append_with(&self, write: impl FnOnce(&mut Vec<u8>)) -> Pending {
        let options = &self.0.options;
        let mut queue = lock(&self.0.queue);
        if queue.is_closed {
            return Pending(Err(AppendError::Closed));
        }
        if queue.records >= options.queue_records_max {
            return Pending(Err(AppendError::QueueFull));
        }
        let Queue { frames, bytes, .. } = &mut *queue;
        frames.truncate(*bytes);
        if !frame::push_with(frames, write) {
            return Pending(Err(AppendError::Size));
        }
        if frames.len() > options.queue_bytes_max {
            return Pending(Err(AppendError::QueueFull));
        }
        *bytes = frames.len();
        let place = queue.group.place(queue.records);
        queue.records += 1;
        let is_first = queue.records == 1;
        drop(queue);
        if is_first {
            self.0.queued.notify_one();
        }
        Pending(Ok(place))
    }

    /// The stream of this start.
    pub fn stream(&self) -> Uuid {
        self.0.stream
    }

    /// Sequence behind the last record on disk of this start's stream, as it grows.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.0.durable.subscribe()
    }

    /// What waits for the disk at this moment.
    pub fn backlog(&self) -> Backlog {
        let since_ms = self.0.writing_since_ms.load(Ordering::Relaxed);
        let now_ms = self.0.elapsed_ms();
        let writing_for = since_ms.checked_sub(1).map_or(0, |since| now_ms.saturating_sub(since));
        Backlog { records: lock(&self.0.queue).records, writing_for: Duration::from_millis(writing_for) }
    }

    /// Whether no record was refused since the journal was tried last.
    pub fn is_writable(&self) -> bool {
        self.0.is_writable.load(Ordering::Relaxed)
    }

    /// Why records are refused at the moment; `None` while they are not.
    pub fn trouble(&self) -> Option<AppendError> {
        lock(&self.0.trouble).clone()
    }

    /// Resolves when the writer's thread has panicked: nothing will be recorded any more, whoever tries again.
    pub fn broken(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.broken.clone().cancelled_owned()
    }

    /// Streams on disk, oldest first (this start's last), each with the sequence behind its last durable record.
    pub fn streams(&self) -> Vec<(Uuid, u64)> {
        let durable = *self.0.durable.borrow();
        lock(&self.0.kept).iter().map(|(id, kept)| (*id, kept.end_seq.unwrap_or(durable))).collect()
    }

    /// Reads a stream from a sequence on.
    pub fn reader(&self, stream: Uuid, from_seq: u64) -> Reader {
        Reader::new(self.0.disk.clone(), self.0.options.root.clone(), stream, from_seq)
    }

    /// Notes that Postgres holds everything of `stream` before `seq`. May go back: a failover rewinds.
    pub fn set_drained(&self, stream: Uuid, seq: u64) {
        if let Some(kept) = lock(&self.0.kept).get_mut(&stream) {
            kept.drained_seq = seq;
            kept.note_drained(Instant::now());
        }
    }

    /// Under which name Postgres keeps the progress of a stream, and where it begins.
    pub fn watermark(&self, stream: Uuid) -> Watermark {
        let all = lock(&self.0.kept);
        let renewed = all.get(&stream).and_then(|kept| Some((kept.watermark?.id, kept.first_seq())));
        let (id, from_seq) = renewed.unwrap_or((stream, 0));
        Watermark { id, from_seq }
    }

    /// Gives the progress of a stream a new name in Postgres, because somebody else moved the old one: from what is
    /// known to be drained on, all of the stream is to be sent again: there this watermark begins, this once. Durable
    /// before it returns. Blocks.
    pub fn renew_watermark(&self, stream: Uuid) -> io::Result<Watermark> {
        // nobody else renews, and the directory stays
        let _house = lock(&self.0.house);
        let from_seq = {
            let all = lock(&self.0.kept);
            let kept = all.get(&stream).ok_or(io::ErrorKind::NotFound)?;
            kept.drained_seq.max(kept.first_seq())
        };
        let (disk, root) = (self.0.disk.as_ref(), &self.0.options.root);
        // also behind one that was made, but not durably
        let number = watermark::read(disk, root, stream)?.map_or(0, |mark| mark.number) + 1;
        let mark = watermark::Mark { number, id: crate::model::id::new_uuid() };
        watermark::write(disk, root, stream, mark)?;
        if let Some(kept) = lock(&self.0.kept).get_mut(&stream) {
            kept.watermark = Some(mark);
            kept.drained_seq = from_seq;
            kept.note_drained(Instant::now());
        }
        Ok(Watermark { id: mark.id, from_seq })
    }

    /// Whether a watermark of a stream of an earlier start lies where the stream holds nothing: another machine has
    /// the stream too and wrote on, or this disk lost its end. Behind damage nothing can be said: what came after it
    /// may have been drained and deleted.
    pub fn is_beyond(&self, stream: Uuid, seq: u64) -> bool {
        let all = lock(&self.0.kept);
        let Some(kept) = all.get(&stream) else { return false };
        kept.end_seq.is_some_and(|end| seq > end) && kept.segments.last().is_some_and(|s| !s.is_corrupt)
    }

    /// The oldest record that is not known to be in Postgres: the first of the oldest stream that has one.
    pub fn oldest_pending(&self) -> Option<Oldest> {
        let durable = *self.0.durable.borrow();
        let all = lock(&self.0.kept);
        all.iter().find_map(|(&stream, kept)| {
            let end_seq = kept.end_seq.unwrap_or(durable);
            let at = kept.segments.partition_point(|s| s.first_seq <= kept.drained_seq);
            let segment = kept.segments.get(at.saturating_sub(1))?;
            let seq = kept.drained_seq.max(segment.first_seq);
            (seq < end_seq).then_some(Oldest { stream, seq, end_seq, modified: segment.modified })
        })
    }

    /// Notes damage, so that the segment is kept.
    pub fn set_corrupt(&self, stream: Uuid, first_seq: u64) {
        if let Err(error) = self.0.mark_corrupt(stream, first_seq) {
            tracing::error!(%stream, first_seq, %error, "cannot mark a damaged journal segment");
        }
        let mut all = lock(&self.0.kept);
        let segment =
            all.get_mut(&stream).and_then(|k| k.segments.iter_mut().find(|s| s.first_seq == first_seq));
        if let Some(segment) = segment {
            segment.is_corrupt = true;
        }
    }

    /// Figures of this moment.
    pub fn stats(&self) -> Stats {
        let durable = *self.0.durable.borrow();
        let kept = lock(&self.0.kept);
        let pending = |k: &Kept| k.end_seq.unwrap_or(durable).saturating_sub(k.drained_seq);
        Stats {
            streams: kept.len(),
            segments: kept.values().map(|k| k.segments.len()).sum(),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            pending_records: kept.values().map(pending).sum(),
            corrupt_segments: kept.values().flat_map(|k| &k.segments).filter(|s| s.is_corrupt).count(),
        }
    }

    /// Bytes that could not be given up for others: on disk and not in Postgres (or damaged), or waiting for the disk.
    pub fn held_bytes(&self) -> u64 {
        let waiting = lock(&self.0.queue).bytes as u64;
        let all = lock(&self.0.kept);
        let held = |kept: &Kept| {
            // a segment ends where the next one begins
            let ends = kept.segments.iter().skip(1).map(|next| Some(next.first_seq)).chain([kept.end_seq]);
            let is_drained = |end: Option<u64>| end.is_some_and(|end| end <= kept.drained_seq);
            let held = kept.segments.iter().zip(ends).filter(|(s, end)| s.is_corrupt || !is_drained(*end));
            held.map(|(segment, _)| segment.bytes).sum::<u64>()
        };
        waiting + all.values().map(held).sum::<u64>()
    }

    /// Bytes on disk, those that are in Postgres too.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Deletes segments that were drained longer than `keep_drained` ago; returns how many.
    pub fn clean(&self, now: Instant) -> usize {
        let keep = self.0.options.keep_drained;
        self.0.clean(|drained_at| now.saturating_duration_since(drained_at) >= keep)
    }

    /// Shows every record on disk. Blocks.
    pub fn visit(&self, see: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        for (stream, first_seq, _) in self.segments() {
            let _house = lock(&self.0.house);
            if self.has_segment(stream, first_seq) {
                let (disk, root) = (self.0.disk.as_ref(), &self.0.options.root);
                erase::visit(disk, root, stream, first_seq, &mut |_, payload| see(payload))?;
            }
        }
        Ok(())
    }

    /// Blanks the records that `is_erased`, pending ones too. Those in the segment being written come later: it ends
    /// soon, and `is_complete` is `false` until somebody asks again. Blocks.
    pub fn erase(&self, is_erased: &dyn Fn(&[u8]) -> bool) -> io::Result<Erased> {
        // what is in a journal that could not be opened yet comes later too
        let mut erased = Erased { records: 0, is_complete: self.0.is_recovered.load(Ordering::Relaxed) };
        let (disk, root) = (self.0.disk.as_ref(), &self.0.options.root);
        for (stream, first_seq, is_open) in self.segments() {
            let _house = lock(&self.0.house);
            if !self.has_segment(stream, first_seq) {
                continue;
            }
            if !is_open {
                let again = lock(&self.0.unsettled).contains(&(stream, first_seq));
                match erase::erase(disk, root, stream, first_seq, is_erased, again) {
                    Ok(records) => erased.records += records,
                    Err(error) => {
                        lock(&self.0.unsettled).insert((stream, first_seq));
                        return Err(error);
                    }
                }
                lock(&self.0.unsettled).remove(&(stream, first_seq));
                continue;
            }
            let mut is_found = false;
            erase::visit(disk, root, stream, first_seq, &mut |_, payload| is_found |= is_erased(payload))?;
            if is_found {
                erased.is_complete = false;
                self.0.rotate.store(true, Ordering::Relaxed);
                // under the lock, or the writer could look before and sleep after
                let _queue = lock(&self.0.queue);
                self.0.queued.notify_one();
            }
        }
        Ok(erased)
    }

    /// Every segment, and whether it is being written.
    fn segments(&self) -> Vec<(Uuid, u64, bool)> {
        let all = lock(&self.0.kept);
        let of = |(stream, kept): (&Uuid, &Kept)| {
            let open = kept.segments.last().filter(|_| kept.end_seq.is_none()).map(|s| s.first_seq);
            let place = |s: &Segment| (*stream, s.first_seq, Some(s.first_seq) == open);
            kept.segments.iter().map(place).collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    fn has_segment(&self, stream: Uuid, first_seq: u64) -> bool {
        let all = lock(&self.0.kept);
        all.get(&stream).is_some_and(|kept| kept.segments.iter().any(|s| s.first_seq == first_seq))
    }

    /// Commits what is queued and stops the thread; later appends are refused. Blocks.
    pub fn close(&self) {
        lock(&self.0.queue).is_closed = true;
        self.0.queued.notify_one();
        let thread = lock(&self.0.writer).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl Shared {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Deletes undamaged segments that were drained at a moment that `is_old`; the one being written stays.
    fn clean(&self, is_old: impl Fn(Instant) -> bool) -> usize {
        let mut removed = 0;
        let _house = lock(&self.house);
        let mut all = lock(&self.kept);
        for (stream, kept) in all.iter_mut() {
            // a segment may have ended since the drain came past it
            kept.note_drained(Instant::now());
            kept.segments.retain(|segment| {
                let is_removable = !segment.is_corrupt && segment.drained_at.is_some_and(&is_old);
                let is_removed = is_removable && self.remove(*stream, segment);
                removed += usize::from(is_removed);
                !is_removed
            });
        }
        all.retain(|stream, kept| {
            let is_gone = kept.end_seq.is_some() && kept.segments.is_empty();
            if is_gone {
                remove_stream(self.disk.as_ref(), &self.options.root, *stream);
            }
            !is_gone
        });
        removed
    }

    /// Makes the mark of a damaged segment, durably; fine when it is there.
    fn mark_corrupt(&self, stream: Uuid, first_seq: u64) -> io::Result<()> {
        let root = &self.options.root;
        match self.disk.create(&segment::corrupt_path(root, stream, first_seq)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.disk.sync_dir(&segment::stream_dir(root, stream)),
        }
    }

    fn remove(&self, stream: Uuid, segment: &Segment) -> bool {
        let path = segment::segment_path(&self.options.root, stream, segment.first_seq);
        match self.disk.remove(&path) {
            Ok(()) => {
                self.bytes.fetch_sub(segment.bytes, Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot delete a drained journal segment");
                false
            }
        }
    }
}

/// Makes the names of `root` and the directories above survive a power cut. Always: whoever made them may have
/// been killed before it could.
fn sync_above(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem};
    for above in root.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match disk.sync_dir(above) {
            // not ours to read or write, so nothing in it was made by us
            Err(e) if matches!(e.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Finds the end of every stream, cuts torn tails, removes streams without a record and files that were not finished.
fn recover(disk: &dyn Disk, root: &Path) -> io::Result<BTreeMap<Uuid, Kept>> {
    make_private(disk, root);
    tidy(disk, root)?;
    let mut kept = BTreeMap::new();
    for stream in segment::streams(disk, root)? {
        tidy(disk, &segment::stream_dir(root, stream))?;
        let mut segments = segment::segments(disk, root, stream)?;
        let end_seq = Some(recover_end(disk, root, stream, &mut segments)?);
        if segments.is_empty() {
            remove_stream(disk, root, stream);
        } else {
            let watermark = watermark::read(disk, root, stream)?;
            kept.insert(stream, Kept { segments, end_seq, drained_seq: 0, watermark });
        }
    }
    Ok(kept)
}

/// Removes what a crash kept from being finished (it may hold what was erased since), and closes what others can read.
fn tidy(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if !entry.is_dir && path.extension().is_some_and(|e| e == disk::UNFINISHED) {
            match disk.remove(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed an unfinished file"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove an unfinished file");
                }
            }
        } else if entry.is_open_to_others {
            make_private(disk, &path);
        }
    }
    Ok(())
}

fn make_private(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.make_private(path) {
        tracing::warn!(
            path = %path.display(), %error,
            "other users of this machine can read the journal here, and that cannot be changed"
        );
    }
}

/// Removes the directory of a stream that has no segments any more, with its marks.
fn remove_stream(disk: &dyn Disk, root: &Path, stream: Uuid) {
    watermark::remove(disk, root, stream);
    let _ = disk.remove_dir(&segment::stream_dir(root, stream));
}

/// The sequence behind the last record; last segments that hold none are removed.
fn recover_end(disk: &dyn Disk, root: &Path, stream: Uuid, segments: &mut Vec<Segment>) -> io::Result<u64> {
    let mut end_seq = 0;
    while let Some(last) = segments.last_mut() {
        let path = segment::segment_path(root, stream, last.first_seq);
        let scan = segment::scan(disk.open(&path)?.as_mut(), last.bytes, stream, last.first_seq, None)?;
        end_seq = scan.end_seq;
        if last.is_corrupt {
            break; // damage was found in it before: what looks like a torn tail may be what is damaged
        }
        if scan.records > 0 {
            if scan.torn_bytes > 0 {
                tracing::info!(
                    path = %path.display(), offset = scan.end_offset, bytes = scan.torn_bytes,
                    "cut a torn tail off the journal: a write that was never acknowledged"
                );
                disk.truncate(&path, scan.end_offset)?;
                last.bytes = scan.end_offset;
            }
            break;
        }
        // the head is synced before the first record, so a file without one never held an acknowledged record;
        // a damaged head in front of bytes could have: keep it
        if scan.bad_head && last.bytes > frame::SEGMENT_HEAD as u64 && has_frames(disk, &path, stream, last)?
        {
            last.is_corrupt = true;
            tracing::error!(path = %path.display(), "the head of a journal segment is damaged; the file is kept");
            break;
        }
        disk.remove(&path)?;
        segments.pop();
    }
    Ok(end_seq)
}

fn has_frames(disk: &dyn Disk, path: &Path, stream: Uuid, segment: &Segment) -> io::Result<bool> {
    let mut content = vec![0; usize::try_from(segment.bytes).map_err(io::Error::other)?];
    let filled = disk.open(path)?.read_at(0, &mut content)?;
    Ok(frame::resync(&content[..filled], stream, 0, segment.first_seq).is_some())
}

/// The right to write below a journal directory; one process at a time.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the open files")] Vec<fs::File>);

impl Lock {
    /// `Ok(None)` when another process holds it.
    ///
    /// What is locked is the directory, which needs no room and no right to write, and `lock` in it, where that can be
    /// made: an octo of before locks nothing else, and some network file systems lock no directory.
    pub fn acquire(root: &Path) -> io::Result<Option<Self>> {
        disk::create_private_dir(root)?;
        let path = root.join("lock");
        let mut create = fs::OpenOptions::new();
        create.create(true).truncate(false).write(true).mode(disk::FILE_MODE);
        // on a full or read-only disk one that is there can be locked
        let file = create.open(&path).or_else(|error| fs::File::open(&path).map_err(|_| error));
        let (mut held, mut refused) = (Vec::new(), None);
        for opened in [file, fs::File::open(root)] {
            let locked = opened.map_err(fs::TryLockError::Error).and_then(|f| f.try_lock().map(|()| f));
            match locked {
                Ok(file) => held.push(file),
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) if held.is_empty() => Err(error),
            _ => Ok(Some(Self(held))),
        }
    }
}

/// A panic elsewhere must not take the journal along: the data under these locks is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
