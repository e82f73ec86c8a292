//! Proof by trial that a confirmed record is never lost: the journal on a [`SimulatedDisk`], beside a plain
//! model of what it was given and what it confirmed.
//!
//! One test crashes a fixed scenario before each of its I/O steps, in every way its unsynced bytes and names
//! can survive; the other runs random histories. After each crash [`check`] opens what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use proptest::prelude::*;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::{
    AppendError, Journal, Options, Pending, Segment,
    disk::{Disk, UNFINISHED},
    lock, scan, segment_path, segments,
    simulated::{Fate, SimulatedDisk, Survival, Unsynced},
};
use crate::facts::record;

const ROOT: &str = "/data/journal";
const QUEUE_RECORDS_MAX: usize = 8;

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Records of these sizes; all but the first are queued while the first is being written.
    Append(Vec<usize>),
    /// The next so many syncs of files fail; each makes up to `kept` bytes durable.
    FailSyncs { count: usize, kept: usize },
    /// The next so many syncs of directories fail.
    FailDirSyncs(usize),
    /// One sync of a directory fails, after so many that do not.
    FailLaterDirSync(usize),
    /// The disk is full after so many more bytes.
    Fill(usize),
    /// Nothing fails any more.
    Heal,
    /// Postgres holds so many percent of each stream.
    Drain(u64),
    /// Deletes what is drained.
    Clean,
    /// Damage is noted in one of the segments.
    Mark(usize),
    /// A journal that cannot be written is tried again, without a record.
    Retry,
    /// The progress of one of the streams gets a new name.
    Renew(usize),
    /// Every third record is erased, beginning with this one.
    Erase(u64),
    /// The process ends and another one starts; nothing is lost.
    Restart,
    /// The power fails.
    PowerCut(Survival),
    /// The power fails so many I/O steps later.
    PowerCutIn(u64, Survival),
}

/// Steps; a failed test prints one a line.
struct History(Vec<Step>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

/// What one stream was given.
#[derive(Debug, Clone, Default)]
struct Stream {
    /// By sequence.
    confirmed: Vec<Vec<u8>>,
    /// Everything the queue took, in order, and whether it was confirmed.
    queued: Vec<(Vec<u8>, bool)>,
    drained_seq: u64,
    /// What was drained at some time of cleaning, so that it may be gone.
    cleaned_seq: u64,
    /// First sequences of segments with damage.
    marked: BTreeSet<u64>,
    /// Sequences of records that may be blank.
    erased: BTreeSet<u64>,
    /// Sequences of records that must be.
    gone: BTreeSet<u64>,
    /// The last name of its progress.
    watermark: Option<Uuid>,
    /// Whether another one came after it and was refused, so that it may be there or not.
    may_be_renewed: bool,
}

type Model = BTreeMap<Uuid, Stream>;

/// A journal and its model.
struct Run {
    disk: SimulatedDisk,
    options: Options,
    journal: Option<Journal>,
    model: Model,
    runtime: Runtime,
    records: usize,
    planned_survival: Survival,
    /// Whether an erasure failed: only the same process knows that what it sees blank is not blank on disk.
    is_unsettled: bool,
    may_be_unsettled: bool,
}

impl Run {
    fn new(disk: SimulatedDisk, bytes_max: u64) -> Self {
        Self {
            disk,
            options: options(bytes_max),
            journal: None,
            model: Model::new(),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            records: 0,
            planned_survival: Survival::NOTHING,
            is_unsettled: false,
            may_be_unsettled: false,
        }
    }

    /// Until the end or the crash.
    fn run(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        self.start()?;
        for (number, step) in steps.iter().enumerate() {
            if self.disk.is_crashed() {
                break;
            }
            self.apply(step).with_context(|| format!("at step {number}, {step:?}"))?;
        }
        self.stop();
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> anyhow::Result<()> {
        match *step {
            Step::Append(ref sizes) => self.append(sizes)?,
            Step::FailSyncs { count, kept } => self.disk.fail_syncs(count, kept),
            Step::FailDirSyncs(count) => self.disk.fail_dir_syncs(count),
            Step::FailLaterDirSync(spared) => self.disk.fail_later_dir_sync(spared),
            Step::Fill(free) => self.disk.set_free(Some(free)),
            Step::Heal => self.disk.heal(),
            Step::Drain(percent) => self.drain(percent),
            Step::Clean => self.clean(),
            Step::Mark(number) => self.mark(number),
            Step::Retry => self.retry()?,
            Step::Renew(number) => self.renew(number)?,
            Step::Erase(first) => self.erase(first)?,
            Step::Restart => self.restart()?,
            Step::PowerCut(survival) => self.power_cut(survival)?,
            Step::PowerCutIn(steps, survival) => {
                self.planned_survival = survival;
                self.disk.crash_before(self.disk.steps() + steps);
            }
        }
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.may_be_unsettled |= self.is_unsettled;
        let is_faulty = self.disk.is_faulty();
        let disk = Arc::new(self.disk.clone());
        let journal = Journal::start(disk, self.options.clone(), || Ok(())).context("no thread")?;
        if let Some(trouble) = journal.trouble() {
            ensure!(is_faulty || self.disk.is_crashed(), "cannot start: {trouble}");
        }
        self.model.insert(journal.stream(), Stream::default());
        self.journal = Some(journal);
        Ok(())
    }

    /// Whether the journal was opened, then or later: until then it refuses without a look at the disk.
    fn is_open(journal: &Journal) -> bool {
        journal.streams().iter().any(|(id, _)| *id == journal.stream())
    }

    fn retry(&mut self) -> anyhow::Result<()> {
        let Some(journal) = self.journal.clone().filter(|j| !j.is_writable()) else { return Ok(()) };
        let may_refuse = self.disk.is_faulty() || self.options.bytes_max < u64::MAX;
        self.note_cleaned(); // a disk without room is cleaned
        {
            let _queue = lock(&journal.0.queue);
            journal.0.try_at_ms.store(0, Ordering::Relaxed);
            journal.0.queued.notify_one();
        }
        while journal.0.try_at_ms.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let is_well = journal.is_writable() || may_refuse || self.disk.is_crashed();
        ensure!(is_well, "a disk that is well again is refused: {:?}", journal.trouble());
        Ok(())
    }

    fn renew(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        let streams = journal.streams();
        let Some((id, _)) = streams.get(number % streams.len().max(1)) else { return Ok(()) };
        let may_refuse = self.disk.is_faulty();
        let renewed = journal.renew_watermark(*id);
        let stream = self.model.entry(*id).or_default();
        match renewed {
            Ok(watermark) => {
                let drained = stream.drained_seq.max(stream.cleaned_seq);
                ensure!(watermark.from_seq <= drained, "{watermark:?} passes over what is not drained");
                (stream.watermark, stream.may_be_renewed) = (Some(watermark.id), false);
            }
            Err(error) => {
                ensure!(may_refuse || self.disk.is_crashed(), "no new watermark: {error}");
                stream.may_be_renewed = true;
            }
        }
        Ok(())
    }

    fn erase(&mut self, first: u64) -> anyhow::Result<()> {
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        let may_refuse = self.disk.is_faulty();
        let mut payloads = BTreeSet::new();
        for stream in self.model.values_mut() {
            for (seq, payload) in (0..).zip(&stream.confirmed).filter(|(seq, _)| seq % 3 == first % 3) {
                stream.erased.insert(seq);
                payloads.insert(payload.clone());
            }
        }
        let is_erased = |payload: &[u8]| payloads.contains(payload);
        let mut erased = journal.erase(&is_erased);
        if erased.as_ref().is_ok_and(|erased| !erased.is_complete) {
            self.append(&[5])?; // behind this the segment has ended, or could not be
            erased = journal.erase(&is_erased);
        }
        ensure!(erased.is_ok() || may_refuse || self.disk.is_crashed(), "cannot erase: {erased:?}");
        self.is_unsettled |= erased.is_err();
        if erased.is_ok_and(|erased| erased.is_complete) && !self.may_be_unsettled {
            self.is_unsettled = false;
            for stream in self.model.values_mut() {
                let is_gone = |seq: &&u64| payloads.contains(&stream.confirmed[index(**seq)]);
                stream.gone.extend(stream.erased.iter().filter(is_gone).copied().collect::<Vec<_>>());
            }
        }
        Ok(())
    }

    /// Nothing is queued, so this does no I/O: the same as kill -9.
    fn stop(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.close();
        }
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        check(&self.disk, &self.model)?;
        self.start()
    }

    fn power_cut(&mut self, survival: Survival) -> anyhow::Result<()> {
        self.stop();
        for survival in [Survival::NOTHING, Survival::EVERYTHING, survival] {
            check(&self.disk.reopened(survival), &self.model).with_context(|| format!("{survival:?}"))?;
        }
        self.disk = self.disk.reopened(survival);
        self.start()
    }

    fn append(&mut self, sizes: &[usize]) -> anyhow::Result<()> {
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| self.payload(*size)).collect();
        let may_refuse =
            self.disk.is_faulty() || self.options.bytes_max < u64::MAX || !Self::is_open(&journal);
        for (payload, mut pending) in payloads.iter().zip(self.queue(&journal, &payloads)) {
            let answer = self.runtime.block_on(pending.durable());
            if let Err(AppendError::Disk(error)) = &answer {
                ensure!(
                    may_refuse || self.disk.is_crashed(),
                    "refused by a disk that is well again: {error}"
                );
            }
            self.model.entry(journal.stream()).or_default().note(payload, &answer)?;
        }
        if !Self::is_open(&journal) {
            return Ok(());
        }
        let stream = &self.model[&journal.stream()];
        let confirmed = stream.confirmed.len() as u64;
        ensure!(*journal.durable().borrow() <= confirmed, "durable() is ahead of the answers");
        let end = journal.streams().into_iter().find(|(id, _)| *id == journal.stream());
        ensure!(end.is_some_and(|(_, end)| end <= confirmed), "streams() is ahead of the answers");
        self.read_live(&journal, stream)
    }

    /// Queues all, so that the journal writes the first alone and the others at once.
    fn queue(&self, journal: &Journal, payloads: &[Vec<u8>]) -> Vec<Pending> {
        // a journal at its size refuses before it uses the disk
        let is_held = payloads.len() > 1 && self.options.bytes_max == u64::MAX && Self::is_open(journal);
        if is_held {
            self.disk.hold();
        }
        let mut answers = Vec::new();
        for payload in payloads {
            answers.push(journal.append(payload));
            if is_held && answers.len() == 1 {
                self.disk.wait_until_held();
            }
        }
        self.disk.release();
        answers
    }

    /// The drain must see the confirmed records at once, whatever failed before them.
    fn read_live(&self, journal: &Journal, stream: &Stream) -> anyhow::Result<()> {
        let end = stream.confirmed.len() as u64;
        let from = stream.cleaned_seq.max(end.saturating_sub(20));
        let read = read(journal, journal.stream(), from, end);
        if self.disk.is_crashed() {
            return Ok(());
        }
        let (records, damage) = read?;
        ensure!(damage == 0, "the live stream is damaged");
        ensure!(records.keys().copied().eq(from..end), "the live stream has other sequences");
        for (seq, record) in &records {
            ensure!(stream.is_confirmed(*seq, record), "the live stream reads otherwise at {seq}");
        }
        Ok(())
    }

    fn payload(&mut self, size: usize) -> Vec<u8> {
        self.records += 1;
        let mut payload = format!("{:x}.", self.records).into_bytes();
        let seed = self.records;
        payload.extend((0..size.saturating_sub(payload.len())).map(|i| (i * 31 + seed * 7).to_le_bytes()[0]));
        payload
    }

    fn drain(&mut self, percent: u64) {
        let Some(journal) = &self.journal else { return };
        for (id, end) in journal.streams() {
            let Some(stream) = self.model.get_mut(&id) else { continue };
            stream.drained_seq = end * percent / 100;
            journal.set_drained(id, stream.drained_seq);
        }
        if self.options.bytes_max < u64::MAX {
            self.note_cleaned(); // the journal may clean by itself, at any time
        }
    }

    fn clean(&mut self) {
        let Some(journal) = self.journal.clone() else { return };
        // a new start knows nothing of what was drained
        for (id, stream) in &self.model {
            journal.set_drained(*id, stream.drained_seq);
        }
        self.note_cleaned();
        journal.clean(Instant::now());
    }

    fn note_cleaned(&mut self) {
        for stream in self.model.values_mut() {
            stream.cleaned_seq = stream.cleaned_seq.max(stream.drained_seq);
        }
    }

    fn mark(&mut self, number: usize) {
        let Some(journal) = &self.journal else { return };
        let mut all = Vec::new();
        for (id, stream) in &self.model {
            let found = segments(&self.disk, Path::new(ROOT), *id).unwrap_or_default();
            let is_eligible = |s: &&Segment| !s.is_corrupt && index(s.first_seq) < stream.confirmed.len();
            all.extend(found.iter().filter(is_eligible).map(|s| (*id, s.first_seq)));
        }
        let Some((id, first_seq)) = all.get(number % all.len().max(1)) else { return };
        let is_faulty = self.disk.is_faulty();
        journal.set_corrupt(*id, *first_seq);
        if !is_faulty && !self.disk.is_crashed() {
            self.model.entry(*id).or_default().marked.insert(*first_seq);
        }
    }
}

impl Stream {
    fn note(&mut self, payload: &[u8], answer: &Result<u64, AppendError>) -> anyhow::Result<()> {
        match answer {
            Ok(seq) => {
                ensure!(
                    index(*seq) == self.confirmed.len(),
                    "confirmed as {seq} after {}",
                    self.confirmed.len()
                );
                self.confirmed.push(payload.to_vec());
                self.queued.push((payload.to_vec(), true));
            }
            Err(AppendError::QueueFull) => {}
            Err(_) => self.queued.push((payload.to_vec(), false)),
        }
        Ok(())
    }

    /// Whether this is the record that was confirmed, or what its erasure left.
    fn is_confirmed(&self, seq: u64, record: &[u8]) -> bool {
        let confirmed = &self.confirmed[index(seq)];
        let mut blank = confirmed.clone();
        record::blank(&mut blank);
        (record == confirmed && !self.gone.contains(&seq)) || (record == blank && self.erased.contains(&seq))
    }

    /// Whether `tail` can be what was left behind the confirmed records: some of the refused, as queued.
    fn may_end_with(&self, tail: &[&Vec<u8>]) -> bool {
        let is_run = |at: &[(Vec<u8>, bool)]| at.iter().zip(tail).all(|((p, is_ok), t)| !is_ok && p == *t);
        tail.is_empty() || self.queued.windows(tail.len()).any(is_run)
    }
}

/// What a journal found on a disk.
type Found = BTreeMap<Uuid, FoundStream>;

#[derive(Debug, PartialEq, Eq)]
struct FoundStream {
    records: BySequence,
    end_seq: u64,
    /// Records reported as damaged.
    damaged: u64,
    /// The name of its progress.
    watermark: Uuid,
}

type BySequence = BTreeMap<u64, Vec<u8>>;

/// Opens what is left on `disk` and compares it with the model; twice, for a second start must find the same.
fn check(disk: &SimulatedDisk, model: &Model) -> anyhow::Result<()> {
    let disk = &disk.copy();
    let was_durable = disk.unsynced() == Unsynced::default();
    let found = recover(disk)?;
    for id in found.keys() {
        ensure!(model.contains_key(id), "an invented stream");
    }
    for (id, stream) in model {
        check_stream(stream, found.get(id))?;
        check_segments(disk, *id, stream)?;
    }
    // what a killed process left may be in memory only, so that a power cut could still take it
    let again = if was_durable { disk.reopened(Survival::Mixed(disk.steps())) } else { disk.clone() };
    ensure!(recover(&again)? == found, "a second start finds something else");
    Ok(())
}

fn check_stream(stream: &Stream, found: Option<&FoundStream>) -> anyhow::Result<()> {
    let end = stream.confirmed.len() as u64;
    let Some(FoundStream { records, end_seq, damaged, watermark }) = found else {
        ensure!(end <= stream.cleaned_seq, "a stream of {end} confirmed records is lost");
        return Ok(());
    };
    // all of it is drained and was to be deleted: what of it comes back, with the mark or without, is not missed
    let is_done = end <= stream.cleaned_seq;
    if let Some(renewed) = stream.watermark.filter(|_| !is_done) {
        let is_same = *watermark == renewed;
        ensure!(is_same || stream.may_be_renewed, "its progress is {watermark:?}, not {renewed:?}");
    }
    for seq in 0..end {
        match records.get(&seq) {
            Some(record) if seq >= stream.cleaned_seq => {
                ensure!(stream.is_confirmed(seq, record), "another record where {seq} was confirmed");
            }
            // where its segment was deleted, one that was refused before may show again
            Some(record) => {
                let is_known = *record == stream.confirmed[index(seq)] || stream.may_end_with(&[record]);
                let is_known = is_known || stream.is_confirmed(seq, record);
                ensure!(is_known, "an invented record");
            }
            None => ensure!(seq < stream.cleaned_seq, "the confirmed record {seq} of {end} is lost"),
        }
    }
    let tail: Vec<&Vec<u8>> = records.range(end..).map(|(_, record)| record).collect();
    ensure!(stream.may_end_with(&tail), "the tail of {} is not one that was refused", tail.len());
    let last = records.last_key_value().map_or(0, |(seq, _)| seq + 1);
    ensure!(*end_seq == last, "it says {end_seq} and holds {last}");
    ensure!(stream.cleaned_seq > 0 || *damaged == 0, "{damaged} records are reported as damaged");
    Ok(())
}

/// Damaged segments are still marked, and of others a torn tail was cut.
fn check_segments(disk: &SimulatedDisk, id: Uuid, stream: &Stream) -> anyhow::Result<()> {
    let found = segments(disk, Path::new(ROOT), id)?;
    for first_seq in &stream.marked {
        let segment = found.iter().find(|s| s.first_seq == *first_seq);
        let segment = segment.with_context(|| format!("the damaged segment {first_seq} is gone"))?;
        ensure!(segment.is_corrupt, "segment {first_seq} is not marked as damaged any more");
    }
    if let Some(last) = found.last().filter(|s| !s.is_corrupt) {
        let mut file = disk.open(&segment_path(Path::new(ROOT), id, last.first_seq))?;
        let scan = scan(file.as_mut(), last.bytes, id, last.first_seq, None)?;
        ensure!(scan.records > 0 && scan.torn_bytes == 0, "left a torn tail: {scan:?}");
    }
    Ok(())
}

/// A start of the process that only looks.
fn recover(disk: &SimulatedDisk) -> anyhow::Result<Found> {
    let journal = Journal::open(Arc::new(disk.clone()), options(u64::MAX)).context("cannot open it again")?;
    let mut found = Found::new();
    for (id, end_seq) in journal.streams().into_iter().filter(|(id, _)| *id != journal.stream()) {
        let (records, damaged) = read(&journal, id, 0, end_seq)?;
        let watermark = journal.watermark(id).id;
        found.insert(id, FoundStream { records, end_seq, damaged, watermark });
    }
    let unfinished = disk.image().into_keys().find(|path| path.extension().is_some_and(|e| e == UNFINISHED));
    ensure!(unfinished.is_none(), "{unfinished:?} is left over");
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "seg");
    let image = disk.image().into_iter().filter(|(path, _)| is_segment(path));
    let bytes: usize = image.filter_map(|(_, content)| content).map(|content| content.len()).sum();
    ensure!(journal.stats().bytes == bytes as u64, "{} bytes counted, {bytes} there", journal.stats().bytes);
    journal.close();
    Ok(found)
}

fn read(journal: &Journal, id: Uuid, from: u64, end: u64) -> anyhow::Result<(BySequence, u64)> {
    let mut reader = journal.reader(id, from);
    let (mut records, mut damage) = (BTreeMap::new(), 0);
    while reader.next_seq() < end {
        let batch = reader.read(end, 50, 100)?;
        ensure!(batch.hi > batch.lo, "the reader stands still at {}", batch.lo);
        let first = batch.hi - batch.len() as u64; // damage comes before records
        records.extend((first..).zip(batch.payloads().map(<[u8]>::to_vec)));
        damage += batch.damage.iter().map(|(_, _, lost)| lost).sum::<u64>();
    }
    Ok((records, damage))
}

fn options(bytes_max: u64) -> Options {
    Options {
        root: ROOT.into(),
        segment_bytes: 4096,
        bytes_max,
        queue_records_max: QUEUE_RECORDS_MAX,
        queue_bytes_max: 1 << 16,
        keep_drained: Duration::ZERO,
        // only when a history says so
        retry_interval: Duration::from_hours(1),
    }
}

fn index(seq: u64) -> usize {
    usize::try_from(seq).expect("a handful of records")
}

/// A bit of everything, over five starts.
fn scenario() -> Vec<Step> {
    use Step::{Append, Clean, Drain, FailDirSyncs, FailSyncs, Fill, Heal, Mark, PowerCut, Restart};
    let small = || Append(vec![5]);
    let torn =
        |created, dirty, failed| PowerCut(Survival::Same { created, removed: !created, dirty, failed });
    vec![
        small(),
        Append(vec![3, 4, 5, 6]),
        // new segments because the old ones are full
        Append(vec![1800, 1800, 10]),
        Append(vec![1800, 9000]),
        // a failed sync: on in a new segment; failed twice: refused
        FailSyncs { count: 1, kept: 0 },
        small(),
        FailSyncs { count: 2, kept: 11 },
        small(),
        small(),
        FailSyncs { count: 3, kept: 70 },
        Append(vec![40, 50, 60]),
        small(),
        // a full disk
        Fill(30),
        Append(vec![60, 70, 8]),
        Append(vec![80]),
        Heal,
        Append(vec![9, 10]),
        // the first batch of a new segment fails too, half written: the segment is begun again
        FailSyncs { count: 1, kept: 0 },
        Fill(70),
        small(),
        Heal,
        small(),
        // a directory that cannot be synced when a segment is begun
        FailSyncs { count: 1, kept: 0 },
        FailDirSyncs(1),
        Append(vec![8, 9]),
        small(),
        Mark(1),
        Drain(60),
        Clean,
        small(),
        Restart,
        Append(vec![7, 2000, 3000]),
        small(),
        FailSyncs { count: 9, kept: 25 },
        Append(vec![30, 31]),
        torn(true, Fate::Torn(9), Fate::Torn(30)),
        Append(vec![6, 3000]),
        Append(vec![2500]),
        FailSyncs { count: 2, kept: 0 },
        small(),
        Heal,
        torn(false, Fate::KEPT, Fate::Zeros(20)),
        Mark(2),
        small(),
        Drain(100),
        Clean,
        small(),
        Append(vec![4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]), // more than the queue takes
        Restart,
        Drain(100),
        Clean,
        small(),
    ]
}

/// A journal that recovers by itself, is opened later, is drained under another name, is erased from.
fn scenario_of_recovery() -> Vec<Step> {
    use Step::{
        Append, Clean, Drain, Erase, FailDirSyncs, FailLaterDirSync, FailSyncs, Fill, Heal, Renew, Restart,
        Retry,
    };
    let small = || Append(vec![5]);
    vec![
        Append(vec![3, 2000, 5, 1800]),
        Append(vec![2500, 6]),
        // one that cannot be written recovers without a record, at once or later
        FailSyncs { count: 3, kept: 5 },
        small(),
        Retry,
        Retry,
        small(),
        Fill(20),
        small(),
        Retry,
        Heal,
        Retry,
        // somebody else moved the watermark; the first note of that fails
        Drain(50),
        FailDirSyncs(1),
        Renew(1),
        Renew(1),
        small(),
        // a file is put in the place of another, or not
        Append(vec![6, 7]),
        Erase(1),
        Fill(10),
        Erase(0),
        Heal,
        Erase(0),
        // a start on a full disk, one on a disk that fails, each opened later
        Fill(10),
        Restart,
        Append(vec![3, 4]),
        Heal,
        Retry,
        Append(vec![5, 6]),
        FailDirSyncs(1),
        Restart,
        small(),
        Retry,
        small(),
        // behind those of the directories above: the name of the stream itself never becomes durable
        FailLaterDirSync(2),
        Restart,
        Retry,
        small(),
        Restart,
        Drain(100),
        Clean,
        small(),
    ]
}

/// The ways in which what is unsynced on `disk` can survive.
fn survivals(disk: &SimulatedDisk) -> Vec<Survival> {
    let unsynced = disk.unsynced();
    let either = |differs: bool| if differs { &[false, true][..] } else { &[false][..] };
    let mut all = vec![Survival::Mixed(disk.steps()), Survival::Mixed(disk.steps() + 1)];
    for &created in either(unsynced.created) {
        for &removed in either(unsynced.removed) {
            let same = |(dirty, failed)| Survival::Same { created, removed, dirty, failed };
            all.extend([(Fate::LOST, Fate::LOST), (Fate::KEPT, Fate::LOST)].map(same));
            if unsynced.failed {
                let others = [Fate::KEPT, Fate::Torn(21), Fate::Hole(16)];
                all.extend(others.map(|failed| same((Fate::LOST, failed))));
                all.push(same((Fate::KEPT, Fate::KEPT)));
            }
        }
    }
    // without its name a file's bytes do not matter
    let torn = |dirty| Survival::Same { created: true, removed: false, dirty, failed: Fate::LOST };
    all.extend(fates(unsynced.dirty).into_iter().map(torn));
    all
}

/// Of an append of so many bytes, when it is neither lost nor kept: torn at every byte when it is small.
fn fates(bytes: usize) -> Vec<Fate> {
    if bytes == 0 {
        return Vec::new();
    }
    let few = [0, 1, 15, 17, bytes / 2, bytes - 1];
    let cuts = if bytes <= 64 { (1..bytes).collect() } else { few.to_vec() };
    let filled = few.iter().flat_map(|cut| [Fate::Zeros(*cut), Fate::Garbage(*cut), Fate::Hole(*cut)]);
    cuts.into_iter().map(Fate::Torn).chain(filled).collect()
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_confirmed() {
    let survivors = crash_everywhere(&scenario(), 30, 400);
    assert!(survivors > 2500, "only {survivors}");
}

#[test]
fn a_crash_at_any_step_of_a_recovery_loses_nothing_that_was_confirmed() {
    let survivors = crash_everywhere(&scenario_of_recovery(), 12, 200);
    assert!(survivors > 1000, "only {survivors}");
}

/// Crashes a history before each of its I/O steps, and says how many disks survived that.
fn crash_everywhere(steps: &[Step], confirmed_min: usize, steps_min: u64) -> u32 {
    let start = Instant::now();
    let mut whole = Run::new(SimulatedDisk::new(), u64::MAX);
    whole.run(steps).unwrap();
    let confirmed: usize = whole.model.values().map(|s| s.confirmed.len()).sum();
    let last = whole.disk.steps();
    assert!(confirmed >= confirmed_min && last > steps_min, "{confirmed} confirmed in {last} steps");
    let (mut survivors, mut changes) = (0, u64::MAX);
    for crash in 0..=last {
        let disk = SimulatedDisk::new();
        disk.crash_before(crash);
        let mut run = Run::new(disk, u64::MAX);
        run.run(steps).unwrap_or_else(|e| panic!("before the crash at I/O step {crash}: {e:#}"));
        // a step that only looked leaves what the one before it left
        let is_new = mem::replace(&mut changes, run.disk.changes()) != changes;
        let all = if is_new { survivals(&run.disk) } else { vec![Survival::Mixed(crash)] };
        for survival in all {
            let checked = check(&run.disk.reopened(survival), &run.model);
            checked.unwrap_or_else(|e| panic!("crash before I/O step {crash}, {survival:?}: {e:#}"));
            survivors += 1;
        }
    }
    println!(
        "crashed before each of {last} I/O steps; opened {survivors} surviving disks, each twice; {:.1?}",
        start.elapsed()
    );
    survivors
}

fn any_survival() -> impl Strategy<Value = Survival> {
    prop_oneof![Just(Survival::NOTHING), Just(Survival::EVERYTHING), any::<u64>().prop_map(Survival::Mixed)]
}

fn any_size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..60, 2 => 60usize..1200, 1 => 1200usize..9000]
}

fn any_step() -> impl Strategy<Value = Step> {
    let kept = prop_oneof![Just(0), 0usize..200, Just(usize::MAX)];
    prop_oneof![
        10 => prop::collection::vec(any_size(), 1..4).prop_map(Step::Append),
        1 => prop::collection::vec(1usize..30, 4..14).prop_map(Step::Append),
        4 => (1usize..5, kept).prop_map(|(count, kept)| Step::FailSyncs { count, kept }),
        1 => (1usize..3).prop_map(Step::FailDirSyncs),
        1 => (0usize..4).prop_map(Step::FailLaterDirSync),
        2 => (0usize..3000).prop_map(Step::Fill),
        4 => Just(Step::Heal),
        2 => (0u64..=100).prop_map(Step::Drain),
        2 => Just(Step::Clean),
        1 => any::<usize>().prop_map(Step::Mark),
        3 => Just(Step::Retry),
        1 => any::<usize>().prop_map(Step::Renew),
        1 => any::<u64>().prop_map(Step::Erase),
        2 => Just(Step::Restart),
        2 => any_survival().prop_map(Step::PowerCut),
        2 => (0u64..40, any_survival()).prop_map(|(steps, survival)| Step::PowerCutIn(steps, survival)),
    ]
}

/// The number of cases: 50 times as many with `OCTO_PROOF=long`.
fn cases() -> u32 {
    match std::env::var("OCTO_PROOF").as_deref() {
        Ok("long") => 128 * 50,
        _ => 128,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// `OCTO_PROOF=long cargo nextest run proof` takes 50 times as many histories.
    #[test]
    fn whatever_happens_confirmed_records_are_found_again(
        history in prop::collection::vec(any_step(), 1..60).prop_map(History),
        bytes_max in prop_oneof![3 => Just(u64::MAX), 1 => Just(24_000)],
        survivals in prop::collection::vec(any_survival(), 4),
    ) {
        let mut run = Run::new(SimulatedDisk::new(), bytes_max);
        let survived = run.history(&history.0, &survivals);
        prop_assert!(survived.is_ok(), "{:#}", survived.unwrap_err());
    }
}

impl Run {
    /// All steps, starting again after each crash, and a power cut at the end.
    fn history(&mut self, steps: &[Step], last: &[Survival]) -> anyhow::Result<()> {
        self.start()?;
        for (number, step) in steps.iter().enumerate() {
            let context = || format!("at step {number}, {step:?}");
            self.apply(step).with_context(context)?;
            while self.disk.is_crashed() {
                self.power_cut(self.planned_survival).with_context(context)?;
            }
        }
        self.stop();
        for survival in last {
            check(&self.disk.reopened(*survival), &self.model).with_context(|| format!("{survival:?}"))?;
        }
        Ok(())
    }
}
