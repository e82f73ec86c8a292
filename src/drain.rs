//! Journal to Postgres: read a batch, store it in one transaction, remember nothing.
//!
//! Progress lives in Postgres only. On every new connection the watermarks are read again, which settles an
//! ambiguous commit and a Postgres that came back older: what it does not hold is sent again from the disk.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::{self, millis},
    db::{
        Db,
        ingest::{DeadLetter, Ingest, MALFORMED, Rows, StoreError},
    },
    journal::{Batch, Journal, Reader},
    metrics,
    model::record::{Malformed, Record},
};

/// What PostgreSQL says also of a row that DEFAULT does not take any more, because its partition was attached while
/// the INSERT waited for the lock. The drain does not wait for partitions, so this happens.
const CHECK_VIOLATION: &str = "23514";

/// Runs until the stop signal, and then until the journal is empty or Postgres is unavailable.
pub async fn run(
    journal: Journal,
    db: Arc<Db>,
    options: config::Drain,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        match drain(&journal, &db, &options, &stop, &mut failures).await {
            Ok(()) => return Ok(()),
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(error) => {
                let wait = back_off(&options, failures);
                failures += 1;
                log_failure(&error, failures, wait);
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}

/// One connection's worth of work; ends well only after the stop signal, with an empty journal.
async fn drain(
    journal: &Journal,
    db: &Db,
    options: &config::Drain,
    stop: &CancellationToken,
    failures: &mut u32,
) -> anyhow::Result<()> {
    let mut ingest = Ingest::connect(db.primary(), millis(options.statement_timeout_ms)).await?;
    let streams: Vec<Uuid> = journal.streams().into_iter().map(|(stream, _)| stream).collect();
    let mut readers = BTreeMap::new();
    let mut stored_seqs = ingest.watermarks(&streams).await?;
    for (&stream, &seq) in &stored_seqs {
        journal.set_drained(stream, seq);
        readers.insert(stream, journal.reader(stream, seq));
    }
    let mut durable = journal.durable();
    loop {
        let is_stopping = stop.is_cancelled();
        durable.borrow_and_update();
        let mut stored = 0;
        for (stream, end_seq) in journal.streams() {
            let Some(mut reader) = readers.remove(&stream) else { continue };
            while reader.next_seq() < end_seq {
                let batch;
                (reader, batch) = read(reader, end_seq, options, *failures).await?;
                stored += batch.len();
                note_damage(journal, stream, &batch);
                store(&mut ingest, stream, &batch).await?;
                journal.set_drained(stream, batch.hi);
                stored_seqs.insert(stream, batch.hi);
                *failures = 0;
            }
            // an earlier start's stream does not grow any more
            if stream == journal.stream() {
                readers.insert(stream, reader);
            }
        }
        metrics::journal_oldest_pending(0.0);
        if stored == 0 {
            if is_stopping {
                return Ok(());
            }
            tokio::select! {
                changed = durable.changed() => changed.context("the journal is gone")?,
                // nobody tells an idle connection of a failover, nor of a server that went back in time
                () = sleep(millis(options.check_interval_ms)) => {
                    if ingest.watermarks(&streams).await? != stored_seqs {
                        return Err(StoreError::Moved.into());
                    }
                }
                () = stop.cancelled() => {}
            }
        }
        if stored < options.batch_rows && !stop.is_cancelled() {
            tokio::select! {
                () = sleep(millis(options.linger_ms)) => {}
                () = stop.cancelled() => {}
            }
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
    is_tried_again: bool,
}

/// Stores a batch. Where Postgres refuses a row, the batch is halved until the row is found; that row becomes
/// a dead letter and the others are stored.
async fn store(ingest: &mut Ingest, stream: Uuid, batch: &Batch) -> Result<(), StoreError> {
    let mut items = decode(batch);
    metrics::journal_oldest_pending(items.iter().find_map(created_at).map_or(0.0, seconds));
    let mut todo = vec![(batch.lo, batch.hi, 0..items.len())];
    while let Some((lo, hi, range)) = todo.pop() {
        let mut rows = rows(&items[range.clone()]);
        match ingest.store(stream, lo, hi, &mut rows).await {
            Ok(()) => count_stored(&rows),
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
            is_tried_again: false,
        })
        .collect()
}

fn rows<'a>(items: &'a [Item<'a>]) -> Rows<'a> {
    let mut rows = Rows::default();
    for item in items {
        let (sqlstate, message) = match (&item.refused, &item.record) {
            (Some((sqlstate, message)), _) => (sqlstate.clone(), message.clone()),
            (None, Ok(Record::Click(click))) => {
                rows.clicks.push(click);
                continue;
            }
            (None, Ok(Record::Event(event))) => {
                rows.events.push(event);
                continue;
            }
            (None, Ok(Record::Erased)) => continue,
            (None, Err(malformed)) => (MALFORMED.to_owned(), malformed.to_string()),
        };
        rows.dead_letters.push(DeadLetter { seq: item.seq, record: item.payload, sqlstate, message });
    }
    rows
}

fn count_stored(rows: &Rows<'_>) {
    metrics::drained(rows.clicks.len(), rows.events.len());
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
        Ok(Record::Click(click)) => Some(click.id.created_at()),
        Ok(Record::Event(event)) => Some(event.created_at),
        Ok(Record::Erased) => None,
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

/// Doubles from `retry_min_ms` to `retry_max_ms`; half of it is jitter.
fn back_off(options: &config::Drain, failures: u32) -> Duration {
    let doubled = options.retry_min_ms.saturating_mul(1 << failures.min(16));
    let most = doubled.min(options.retry_max_ms);
    millis(most / 2 + fastrand::u64(0..=most / 2))
}

/// Deletes drained segments and sets the journal's gauges, until the stop signal.
pub async fn keep_house(journal: Journal, stop: CancellationToken) -> anyhow::Result<()> {
    let mut rounds = 0u32;
    while !stop.is_cancelled() {
        let stats = journal.stats();
        metrics::journal_state(stats.pending_records, stats.bytes, stats.segments, stats.corrupt_segments);
        if rounds.is_multiple_of(60) {
            let journal = journal.clone();
            tokio::task::spawn_blocking(move || journal.clean(SystemTime::now())).await?;
        }
        rounds = rounds.wrapping_add(1);
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}
