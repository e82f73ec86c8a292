//! Erasures at this node: records that were erased are blanked in its journal, wherever `octo privacy erase` ran.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Db, store::erasures},
    facts::{erasure::Erasures, record::Record},
    journal::{Erased, Journal},
    metrics,
};

/// Between two looks at a segment that is about to end.
const ROTATION_WAIT: Duration = Duration::from_millis(100);

/// Before a server that was not asked before is asked for all its erasures.
const SERVER_WAIT: Duration = Duration::from_millis(100);

/// Looks for erasures every `interval` and carries them out, until the stop signal.
pub async fn run(
    journal: Journal,
    db: Arc<Db>,
    interval: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut known = Erasures::default();
    let mut server = None;
    let mut is_done = true;
    while !stop.is_cancelled() {
        match erasures::watch(&db, known.last_id()).await {
            // another server than before: it may be behind that one, and give its ids a second time
            Ok((now, _)) if server.replace(now).is_some_and(|before| before != now) => {
                known = Erasures::default();
                sleep(SERVER_WAIT).await;
                continue;
            }
            Ok((_, fresh)) => {
                is_done &= fresh.is_empty();
                known.extend(fresh);
            }
            // a Postgres that is away has its own lines in the log
            Err(error) => tracing::debug!(?error, "erasures were not looked for"),
        }
        let mut wait = interval;
        if !is_done {
            match blank(&journal, known.clone()).await {
                Ok(erased) => {
                    metrics::erased("journal", erased.records);
                    is_done = erased.is_complete;
                    if erased.is_complete {
                        tracing::info!(records = erased.records, "blanked erased records in the journal");
                    } else {
                        wait = ROTATION_WAIT;
                    }
                }
                Err(error) => tracing::warn!(error = format!("{error:#}"), "cannot erase in the journal yet"),
            }
        }
        stop.run_until_cancelled(sleep(wait)).await;
    }
    Ok(())
}

/// On a thread that may block. Values are looked for first: the events of a click name only its id.
async fn blank(journal: &Journal, mut erasures: Erasures) -> anyhow::Result<Erased> {
    let journal = journal.clone();
    let work = move || {
        if erasures.has_subs() {
            journal.visit(&mut |payload| erasures.learn_record(payload))?;
        }
        journal.erase(&|payload| Record::decode(payload).is_ok_and(|record| erasures.has(&record)))
    };
    Ok(tokio::task::spawn_blocking(work).await.context("erasing in the journal")??)
}
