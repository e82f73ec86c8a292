//! Journal to Postgres: read a batch, store it in one transaction, remember nothing.
//!
//! Progress lives in Postgres only. On every new connection the watermarks are read again, which settles an
//! ambiguous commit and a Postgres that came back older: what it does not hold is sent again from the disk.

mod progress;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config,
    db::{
        Db,
        ingest::{DeadLetter, Ingest, MALFORMED, Rows, StoreError, UNIQUE_VIOLATION},
    },
    facts::{
        Fact, Kind,
        record::{Malformed, Record},
    },
    journal::{Batch, Journal, Oldest, Reader},
    metrics,
};
use progress::{Sent, Streams};

/// What PostgreSQL says also of a row that DEFAULT does not take any more, because its partition was attached while
/// the INSERT waited for the lock. The drain does not wait for partitions, so this happens.
const CHECK_VIOLATION: &str = "23514";

/// Runs until the stop signal, and then until the journal is empty or Postgres is unavailable.
///
/// `stored` sees the rows of each batch, and what was made of conversions, once they are stored.
pub async fn run(
    journal: Journal,
    db: Arc<Db>,
    options: config::Drain,
    stored: impl Fn(&Rows<'_>) + Send + Sync,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (mut failures, mut sent) = (0, Sent::default());
    let part = Part { journal: &journal, options: &options, stored: &stored };
    loop {
        match drain(&part, &db, &stop, &mut failures, &mut sent).await {
            Ok(()) => return Ok(()),
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(error) => {
                let wait = back_off(&options, failures);
                failures += 1;
                log_failure(&error, failures, wait);
                stop.run_until_cancelled(sleep(wait)).await;
            }
        }
    }
}

/// What does not change while it runs.
struct Part<'p> {
    journal: &'p Journal,
    options: &'p config::Drain,
    stored: &'p (dyn Fn(&Rows<'_>) + Send + Sync),
}

/// One connection's worth of work; ends well only after the stop signal, with an empty journal.
async fn drain(
    part: &Part<'_>,
    db: &Db,
    stop: &CancellationToken,
    failures: &mut u32,
    sent: &mut Sent,
) -> anyhow::Result<()> {
    let Part { journal, options, .. } = part;
    let mut ingest = Ingest::connect(db.primary(), options.statement_timeout).await?;
    let mut streams = Streams::default();
    let mut durable = journal.durable();
    loop {
        let is_stopping = stop.is_cancelled();
        durable.borrow_and_update();
        // a journal that could not be opened at the start has more of them later
        streams.adopt(journal, &mut ingest, sent).await?;
        let mut stored = 0;
        for (stream, end_seq) in journal.streams() {
            let Some(mut reader) = streams.readers.remove(&stream) else { continue };
            let (is_own, watermark_id) = (stream == journal.stream(), journal.watermark(stream).id);
            while reader.next_seq() < end_seq {
                let batch;
                (reader, batch) = read(reader, end_seq, options, *failures).await?;
                stored += batch.len();
                note_damage(journal, stream, &batch);
                store(part, &mut ingest, watermark_id, &batch, is_own.then_some(&mut *sent)).await?;
                journal.set_drained(stream, batch.hi);
                streams.note_stored(watermark_id, batch.hi);
                *failures = 0;
            }
            // an earlier start's stream does not grow any more
            if is_own {
                streams.readers.insert(stream, reader);
            }
        }
        if stored == 0 {
            if is_stopping {
                return Ok(());
            }
            tokio::select! {
                changed = durable.changed() => changed.context("the journal is gone")?,
                // nobody tells an idle connection of a failover, nor of a server that went back in time
                () = sleep(options.check_interval) => {
                    if !streams.agree(&mut ingest).await? {
                        return Err(StoreError::Moved.into());
                    }
                }
                () = stop.cancelled() => {}
            }
        }
        if stored < options.batch_rows && !stop.is_cancelled() {
            stop.run_until_cancelled(sleep(options.linger)).await;
        }
    }
}

/// Reads the next batch on a thread that may block. After failures in a row it is a smaller one: a batch may be
/// more than Postgres can store within the time-out.
async fn read(
    mut reader: Reader,
    end_seq: u64,
    options: &config::Drain,
    failures: u32,
) -> anyhow::Result<(Reader, Batch)> {
    let rows = (options.batch_rows >> failures.min(usize::BITS - 1)).max(1);
    let bytes = options.batch_bytes_max;
    tokio::task::spawn_blocking(move || {
        let batch = reader.read(end_seq, rows, bytes)?;
        Ok((reader, batch))
    })
    .await
    .context("reading the journal")?
}

/// A record of a batch, decoded.
struct Item<'a> {
    seq: u64,
    payload: &'a [u8],
    record: Result<Record<'a>, Malformed>,
    refused: Option<(String, String)>,
    /// Postgres has it: it was sent before.
    is_stored: bool,
    is_tried_again: bool,
}

/// Stores a batch. Where Postgres refuses a row, the batch is halved until the row is found; that row becomes
/// a dead letter and the others are stored. A row that is there already, because it is sent again, is left out.
async fn store(
    part: &Part<'_>,
    ingest: &mut Ingest,
    stream: Uuid,
    batch: &Batch,
    mut sent: Option<&mut Sent>,
) -> Result<(), StoreError> {
    let mut items = decode(batch);
    metrics::journal_oldest_pending(items.iter().find_map(created_at).map_or(0.0, seconds));
    let mut todo = vec![(batch.lo, batch.hi, 0..items.len())];
    while let Some((lo, hi, range)) = todo.pop() {
        let mut rows = rows(&items[range.clone()]);
        let outcome = ingest.store(stream, lo, hi, &mut rows).await;
        if let Some(sent) = &mut sent {
            sent.note(hi, &outcome);
        }
        match outcome {
            Ok(()) => {
                count_stored(&rows);
                (part.stored)(&rows);
            }
            Err(StoreError::Refused { sqlstate, .. })
                if sqlstate == UNIQUE_VIOLATION
                    && leave_out_stored(ingest, &mut items[range.clone()]).await? =>
            {
                todo.push((lo, hi, range));
            }
            Err(StoreError::Refused { sqlstate, message }) => match range.len() {
                // the row was for DEFAULT when its partition was attached: it fits there now
                1 if sqlstate == CHECK_VIOLATION && !items[range.start].is_tried_again => {
                    items[range.start].is_tried_again = true;
                    todo.push((lo, hi, range));
                }
                1 if items[range.start].refused.is_none() => {
                    // what was refused may be in the message: it is with the letter, not in the log
                    tracing::warn!(%stream, seq = items[range.start].seq, sqlstate, "a record became a dead letter");
                    items[range.start].refused = Some((sqlstate, message));
                    todo.push((lo, hi, range));
                }
                // not a row's fault, then
                0 | 1 => return Err(StoreError::Refused { sqlstate, message }),
                length => {
                    let middle = range.start + length / 2;
                    let middle_seq = items[middle].seq;
                    todo.push((middle_seq, hi, middle..range.end));
                    todo.push((lo, middle_seq, range.start..middle));
                }
            },
            Err(error) => return Err(error),
        }
    }
    if let Some(last) = items.iter().rev().find_map(created_at) {
        metrics::drain_lag((Utc::now() - last).to_std().unwrap_or_default());
    }
    Ok(())
}

/// Marks what Postgres has already; says whether there was something.
async fn leave_out_stored(ingest: &mut Ingest, items: &mut [Item<'_>]) -> Result<bool, StoreError> {
    let stored: HashSet<Uuid> = ingest.find_stored(&rows(items)).await?;
    let mut found = 0;
    for item in items.iter_mut().filter(|item| !item.is_stored) {
        let fact = item.record.as_ref().ok().and_then(Record::fact);
        item.is_stored = fact.is_some_and(|fact| stored.contains(&fact.id()));
        found += u64::from(item.is_stored);
    }
    metrics::drain_already_stored(found);
    Ok(found > 0)
}

/// The sequences of a batch without damage count up from `lo`; with damage they end at `hi`.
fn decode(batch: &Batch) -> Vec<Item<'_>> {
    let lost = batch.hi - batch.lo - batch.len() as u64;
    (batch.lo + lost..)
        .zip(batch.payloads())
        .map(|(seq, payload)| Item {
            seq,
            payload,
            record: Record::decode(payload),
            refused: None,
            is_stored: false,
            is_tried_again: false,
        })
        .collect()
}

fn rows<'a>(items: &'a [Item<'a>]) -> Rows<'a> {
    let mut rows = Rows::default();
    for item in items.iter().filter(|item| !item.is_stored) {
        let (sqlstate, message) = match (&item.refused, &item.record) {
            (Some((sqlstate, message)), _) => (sqlstate.clone(), message.clone()),
            (None, Ok(record)) => {
                rows.push(record);
                continue;
            }
            (None, Err(malformed)) => (MALFORMED.to_owned(), malformed.to_string()),
        };
        rows.dead_letters.push(DeadLetter { seq: item.seq, record: item.payload, sqlstate, message });
    }
    rows
}

fn count_stored(rows: &Rows<'_>) {
    for kind in Kind::ALL {
        metrics::drained(kind.table(), rows.facts().filter(|fact| fact.kind() == kind).count());
    }
    metrics::drained_batch(rows.facts().count());
    metrics::erased("drain", rows.erased);
    for letter in &rows.dead_letters {
        metrics::dead_letter(dead_letter_class(&letter.sqlstate));
    }
}

fn dead_letter_class(sqlstate: &str) -> &'static str {
    ["21", "22", "23", "42", "54", MALFORMED]
        .into_iter()
        .find(|class| sqlstate.starts_with(class))
        .unwrap_or("other")
}

/// `None`: nothing is known of it any more.
fn created_at(item: &Item<'_>) -> Option<DateTime<Utc>> {
    match &item.record {
        Ok(record) => record.fact().map(Fact::at),
        Err(_) => Some(DateTime::UNIX_EPOCH),
    }
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}

fn note_damage(journal: &Journal, stream: Uuid, batch: &Batch) {
    for (first_seq, offset, records) in &batch.damage {
        tracing::error!(
            %stream, segment = first_seq, offset, records,
            "the journal is damaged here; the bytes are kept, `octo journal verify` shows them"
        );
        metrics::journal_damaged(*records);
        journal.set_corrupt(stream, *first_seq);
    }
}

fn log_failure(error: &anyhow::Error, failures: u32, wait: Duration) {
    let class = match error.downcast_ref::<StoreError>() {
        Some(StoreError::Moved) => "moved",
        Some(StoreError::Refused { .. }) => "refused",
        Some(StoreError::Unavailable(source)) => crate::db::monitor::class(source),
        None => "connect",
    };
    metrics::drain_error(class);
    // the first failure and every tenth: an outage is one story, not a line a second
    if failures % 10 == 1 && class != "moved" {
        let (error, wait_ms) = (format!("{error:#}"), wait.as_millis());
        tracing::warn!(
            class,
            error,
            wait_ms,
            failures,
            "cannot store in Postgres; records wait in the journal"
        );
    }
}

/// Doubles from `retry_min` to `retry_max`; half of it is jitter.
fn back_off(options: &config::Drain, failures: u32) -> Duration {
    let doubled = options.retry_min.saturating_mul(1 << failures.min(16));
    let half = doubled.min(options.retry_max) / 2;
    half + half.mul_f64(fastrand::f64())
}

/// Deletes drained segments and sets the journal's gauges, until the stop signal.
pub async fn housekeeping(journal: Journal, stop: CancellationToken) -> anyhow::Result<()> {
    let mut rounds = 0u32;
    let mut oldest = OldestPending::default();
    while !stop.is_cancelled() {
        let (stats, is_writable) = (journal.stats(), journal.is_writable());
        metrics::journal_state(
            is_writable,
            stats.pending_records,
            stats.bytes,
            stats.segments,
            stats.corrupt_segments,
        );
        oldest.look(&journal).await?;
        if rounds.is_multiple_of(60) {
            let journal = journal.clone();
            tokio::task::spawn_blocking(move || journal.clean(Instant::now())).await?;
        }
        rounds = rounds.wrapping_add(1);
        stop.run_until_cancelled(sleep(Duration::from_secs(1))).await;
    }
    Ok(())
}

/// Ends with an error when the journal's thread has panicked, so that octo ends and is started again.
pub async fn watch(journal: Journal, stop: CancellationToken) -> anyhow::Result<()> {
    match stop.run_until_cancelled(journal.broken()).await {
        Some(()) => anyhow::bail!("the journal's thread panicked: clicks would not be recorded any more"),
        None => Ok(()),
    }
}

/// The time of the oldest record not in Postgres, for its gauge, whatever the drain does: it may be shut, or Postgres
/// away since before the start. While the drain gets on, it tells by itself.
#[derive(Default)]
struct OldestPending {
    /// Where that record was a moment ago.
    place: Option<(Uuid, u64)>,
    /// Of the record there, once that was read.
    time: Option<f64>,
}

impl OldestPending {
    async fn look(&mut self, journal: &Journal) -> anyhow::Result<()> {
        let Some(oldest) = journal.oldest_pending() else {
            *self = Self::default();
            metrics::journal_oldest_pending(0.0);
            return Ok(());
        };
        let place = Some((oldest.stream, oldest.seq));
        if self.place != place {
            *self = Self { place, time: None };
        } else if self.time.is_none() {
            let journal = journal.clone();
            let time = tokio::task::spawn_blocking(move || time_of(&journal, oldest)).await?;
            self.time = Some(time);
        }
        if let Some(time) = self.time {
            metrics::journal_oldest_pending(time);
        }
        Ok(())
    }
}

/// The time of a record; where nothing is known of it, of one of the next; else of the last change of its segment.
fn time_of(journal: &Journal, oldest: Oldest) -> f64 {
    const RECORDS: usize = 100;
    const BYTES: usize = 1 << 16;
    let read = journal.reader(oldest.stream, oldest.seq).read(oldest.end_seq, RECORDS, BYTES);
    let time = |payload| Record::decode(payload).ok()?.fact().map(Fact::at);
    let times = read.iter().flat_map(Batch::payloads).filter_map(time);
    let time = times.into_iter().next();
    seconds(time.unwrap_or_else(|| oldest.modified.into()))
}
