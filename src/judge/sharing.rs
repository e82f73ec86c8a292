//! What nodes tell each other of visits by way of Redis: who clicked just now, as hashes under the key of the day.
//! Told by publishing, so that nothing of a visitor is kept in Redis; no click waits for it, and what is lost on the
//! way makes a duplicate on another node count.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    judge::NewVisit,
    metrics,
    redis::{Ended, Redis},
};

/// What nodes of an installation tell each other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Channel {
    /// The first clicks of visits, which make others duplicates.
    Visits,
    /// The first clicks of visitors, which make others not unique.
    Visitors,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Visits => "visits",
            Self::Visitors => "visitors",
        }
    }
}

/// Visits of one message: 16 kB.
const MESSAGE_VISITS_MAX: usize = 512;

/// Between two attempts to hear.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the other nodes of `told`, every `interval`, until the stop signal.
pub(crate) async fn tell(
    redis: Arc<Redis>,
    channel: Channel,
    mut told: mpsc::Receiver<NewVisit>,
    interval: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut visits = Vec::with_capacity(MESSAGE_VISITS_MAX);
    loop {
        let told = told.recv_many(&mut visits, MESSAGE_VISITS_MAX);
        let Some(count) = stop.run_until_cancelled(told).await else { return Ok(()) };
        if !redis.publish(channel.name(), &message(redis.node(), &visits)).await {
            metrics::visits_untold(count as u64);
        }
        visits.clear();
        if count < MESSAGE_VISITS_MAX {
            sleep(interval).await;
        }
    }
}

/// Hears what the other nodes tell, until the stop signal.
pub(crate) async fn hear(
    redis: Arc<Redis>,
    channel: Channel,
    heard: impl Fn(NewVisit) + Send + Sync,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let Some(ended) = stop.run_until_cancelled(hear_until_it_ends(&redis, channel, &heard)).await else {
            return Ok(());
        };
        tracing::debug!(error = ?ended, "not hearing of visits at other nodes");
        stop.run_until_cancelled(sleep(RETRY_INTERVAL)).await;
    }
    Ok(())
}

async fn hear_until_it_ends(
    redis: &Redis,
    channel: Channel,
    heard: &(impl Fn(NewVisit) + Sync),
) -> Result<Infallible, Ended> {
    let mut messages = redis.subscribe(channel.name()).await?;
    loop {
        let text = messages.next().await?;
        said(redis.node(), &text).for_each(heard);
    }
}

/// As text: who says it, then hash and second of each visit in hexadecimal digits.
fn message(node: &str, visits: &[NewVisit]) -> String {
    use std::fmt::Write as _;

    visits.iter().fold(node.to_owned(), |mut text, (hash, at_s)| {
        let _ = write!(text, " {hash:x}@{at_s:x}"); // writing to a String does not fail
        text
    })
}

/// What another node said; what cannot be read is passed over.
fn said<'a>(node: &str, text: &'a str) -> impl Iterator<Item = NewVisit> + 'a {
    let (from, visits) = text.split_once(' ').unwrap_or_default();
    let visits = if from == node { "" } else { visits };
    visits.split(' ').take(MESSAGE_VISITS_MAX).filter_map(|visit| {
        let (hash, at_s) = visit.split_once('@')?;
        Some((u64::from_str_radix(hash, 16).ok()?, u64::from_str_radix(at_s, 16).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_tells_the_others_hear() {
        let visits = vec![(0, 0), (u64::MAX, 1_700_000_000), (7, 8)];
        let text = message("a", &visits);
        assert_eq!(said("b", &text).collect::<Vec<_>>(), visits);
        assert_eq!(said("a", &text).count(), 0, "not what it said itself");
        for strange in ["", "a", "a ", "a 1", "a x@y", "a 1@2@3", "a \u{e9}@1"] {
            assert_eq!(said("b", strange).count(), 0, "{strange}");
        }
    }
}
