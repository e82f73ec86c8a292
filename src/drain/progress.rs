//! Which streams are being drained, how far each is in Postgres, and whether it was us who moved it there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    db::ingest::{Ingest, StoreError},
    journal::{Journal, Reader, Watermark},
    metrics,
};

/// A mark that the disk did not take is tried again after this time.
const MARK_RETRY: Duration = Duration::from_secs(1);

/// What this process stored of its own stream, over all connections.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Behind the last record whose COMMIT was confirmed.
    stored_seq: u64,
    /// Behind batches further on whose COMMIT may have been done.
    unsure: BTreeSet<u64>,
}

impl Sent {
    /// Of a batch that ends before `hi`.
    pub(super) fn note(&mut self, hi: u64, outcome: &Result<(), StoreError>) {
        match outcome {
            Ok(()) => {
                self.stored_seq = self.stored_seq.max(hi);
                self.unsure = self.unsure.split_off(&(self.stored_seq + 1));
            }
            Err(StoreError::Unavailable(_)) if hi > self.stored_seq => drop(self.unsure.insert(hi)),
            // rolled back for sure
            Err(_) => {}
        }
    }

    /// Whether a watermark can be there by what we did. A server that went back in time shows an older one of ours.
    fn explains(&self, watermark_seq: u64) -> bool {
        watermark_seq <= self.stored_seq || self.unsure.contains(&watermark_seq)
    }
}

/// The streams of one connection.
#[derive(Default)]
pub(super) struct Streams {
    /// Of those that are not drained to their end.
    pub(super) readers: BTreeMap<Uuid, Reader>,
    /// Where each is in Postgres, by the id of its watermark.
    stored_seqs: HashMap<Uuid, u64>,
    known: HashSet<Uuid>,
    watermarks: Vec<(Uuid, u64)>,
    adopt_at: Option<Instant>,
}

impl Streams {
    /// Asks Postgres about streams that were not there before: at first all of them.
    pub(super) async fn adopt(
        &mut self,
        journal: &Journal,
        ingest: &mut Ingest,
        sent: &mut Sent,
    ) -> anyhow::Result<()> {
        if self.adopt_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.adopt_at = None;
        let streams = journal.streams().into_iter().map(|(stream, _)| stream);
        let fresh: Vec<Uuid> = streams.filter(|stream| !self.known.contains(stream)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let watermarks: Vec<_> = fresh.iter().map(|stream| pair(journal.watermark(*stream))).collect();
        let stored = ingest.watermarks(&watermarks).await?;
        for (stream, (mut id, mut from_seq)) in fresh.into_iter().zip(watermarks) {
            let mut seq = stored.get(&id).copied().unwrap_or(from_seq);
            if is_foreign(journal, sent, stream, seq) {
                let Some(renewed) = renew(journal, stream, seq).await? else {
                    self.adopt_at = Some(Instant::now() + MARK_RETRY);
                    continue;
                };
                if stream == journal.stream() {
                    *sent = Sent::default();
                    sent.stored_seq = renewed.from_seq;
                }
                let begun = ingest.watermarks(&[pair(renewed)]).await?;
                (id, from_seq) = pair(journal.watermark(stream));
                seq = begun.get(&id).copied().unwrap_or(from_seq);
            } else if stream == journal.stream() {
                sent.stored_seq = sent.stored_seq.max(seq);
            }
            journal.set_drained(stream, seq);
            self.readers.insert(stream, journal.reader(stream, seq));
            self.known.insert(stream);
            self.watermarks.push((id, from_seq));
            self.stored_seqs.insert(id, seq);
        }
        Ok(())
    }

    /// A batch that ends before `hi` was stored.
    pub(super) fn note_stored(&mut self, watermark_id: Uuid, hi: u64) {
        self.stored_seqs.insert(watermark_id, hi);
    }

    /// Whether Postgres holds what it should.
    pub(super) async fn agree(&mut self, ingest: &mut Ingest) -> Result<bool, StoreError> {
        Ok(ingest.watermarks(&self.watermarks).await? == self.stored_seqs)
    }
}

fn pair(watermark: Watermark) -> (Uuid, u64) {
    (watermark.id, watermark.from_seq)
}

/// Whether the watermark of a stream counts records that another process stored under the same sequences. Of the
/// stream of an earlier start only one that lies beyond its end is known to.
fn is_foreign(journal: &Journal, sent: &Sent, stream: Uuid, seq: u64) -> bool {
    if stream == journal.stream() { !sent.explains(seq) } else { journal.is_beyond(stream, seq) }
}

/// Gives the stream a watermark of its own; `None` while the disk does not take that: then nothing of the stream is
/// sent, and nothing is lost.
async fn renew(journal: &Journal, stream: Uuid, seq: u64) -> anyhow::Result<Option<Watermark>> {
    let renewing = journal.clone();
    let renewed = tokio::task::spawn_blocking(move || renewing.renew_watermark(stream)).await?;
    match renewed {
        Ok(watermark) => {
            metrics::journal_foreign_watermark();
            tracing::error!(
                %stream, watermark_seq = seq, new_watermark = %watermark.id, sent_again_from = watermark.from_seq,
                host = host(), pid = std::process::id(),
                "PostgreSQL counts records of this journal as stored that this octo did not store: another machine has \
                 a copy of the journal (a virtual machine that was cloned or restored), or the watermark was moved by \
                 hand. The stream goes on under a new watermark, and what PostgreSQL lacks is sent again"
            );
            Ok(Some(watermark))
        }
        Err(error) => {
            tracing::error!(
                %stream, %error,
                "PostgreSQL counts records of this journal as stored that this octo did not store, and the disk does \
                 not take the note of that: they wait in the journal"
            );
            Ok(None)
        }
    }
}

/// The name of this machine, for who has two with one journal.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsure() -> Result<(), StoreError> {
        Err(StoreError::Unavailable(sqlx::Error::WorkerCrashed))
    }

    #[test]
    fn a_watermark_is_ours_where_we_stored_or_may_have_stored_and_nowhere_else() {
        let mut sent = Sent::default();
        assert!(sent.explains(0) && !sent.explains(1), "nothing was sent yet");
        sent.note(10, &Ok(()));
        assert!(sent.explains(10) && sent.explains(3), "a server may go back in time");
        assert!(!sent.explains(11));
        sent.note(20, &unsure());
        sent.note(30, &Err(StoreError::Moved));
        assert!(sent.explains(20), "its COMMIT may have been done");
        assert!(!sent.explains(15) && !sent.explains(30), "that was somebody else");
        sent.note(20, &Ok(()));
        assert!(sent.explains(15) && sent.unsure.is_empty());
        sent.note(18, &unsure());
        assert!(sent.unsure.is_empty(), "sent again after the server went back");
    }
}
