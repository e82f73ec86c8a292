//! What nodes tell each other by way of Redis: a campaign changed, everything is to be read again. A hint only
//! brings the next poll forward; the poll, which reads the primary, is the guarantee.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Campaigns, shared::Shared};
use crate::{
    model::id::CampaignKey,
    redis::{Ended, Redis},
};

/// What one node tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hint {
    /// A campaign of this key was made, changed or deleted.
    Changed(CampaignKey),
    /// Forget what was looked up and read everything again.
    Flushed,
    /// Something a newer octo says.
    Other,
}

/// Between two attempts to hear hints, and two looks at what waits for Redis.
const REDIS_INTERVAL: Duration = Duration::from_secs(1);

/// What nodes of an installation tell each other of campaigns.
const CHANNEL: &str = "campaigns";

impl Hint {
    /// As text: who says it, what.
    fn said_by(&self, node: &str) -> String {
        match self {
            Self::Changed(key) => format!("{node} changed {key}"),
            Self::Flushed => format!("{node} flushed"),
            Self::Other => format!("{node} other"),
        }
    }

    /// `None` when `node` said it itself.
    fn heard_by(node: &str, text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() == Some(node) {
            return None;
        }
        Some(match (words.next(), words.next().map(str::parse)) {
            (Some("changed"), Some(Ok(key))) => Self::Changed(key),
            (Some("flushed"), None) => Self::Flushed,
            _ => Self::Other,
        })
    }
}

impl Campaigns {
    /// Hears hints from other nodes and brings to Redis what could not be written, until the stop signal.
    pub async fn keep_redis(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let Some(redis) = self.shared.as_ref().map(Shared::redis) else {
            stop.cancelled().await;
            return Ok(());
        };
        let hearing = async {
            loop {
                let Err(error) = hear(&self, redis).await;
                tracing::debug!(error, "not hearing hints by way of Redis; polling goes on");
                sleep(REDIS_INTERVAL).await;
            }
        };
        let writing = async {
            loop {
                tokio::select! {
                    () = sleep(REDIS_INTERVAL) => {}
                    () = self.write_now.notified() => {}
                }
                if !redis.is_closed() {
                    redis.ping().await; // the trial, also where nobody asks
                }
                self.write_to_redis().await;
            }
        };
        tokio::select! {
            () = hearing => {}
            () = writing => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    /// Does what another node asks for.
    async fn obey(&self, hint: &Hint) {
        match hint {
            Hint::Changed(key) => self.forget(key).await,
            Hint::Flushed => {
                self.forget_all().await;
                self.reload.store(true, Ordering::Relaxed);
            }
            Hint::Other => {}
        }
        self.poll_now.notify_one();
    }

    pub(super) async fn tell(&self, hint: &Hint) -> bool {
        match self.shared.as_ref().map(Shared::redis) {
            Some(redis) => redis.publish(CHANNEL, &hint.said_by(redis.node())).await,
            None => false,
        }
    }
}

/// Hears hints on a connection of its own until that ends.
async fn hear(campaigns: &Campaigns, redis: &Redis) -> Result<Infallible, Ended> {
    let mut messages = redis.subscribe(CHANNEL).await?;
    campaigns.obey(&Hint::Other).await; // what was said while nobody listened
    loop {
        let text = messages.next().await?;
        if let Some(hint) = Hint::heard_by(redis.node(), &text) {
            campaigns.obey(&hint).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_node_says_the_others_hear() {
        let key: CampaignKey = "summer-sale".parse().unwrap();
        for hint in [Hint::Changed(key), Hint::Flushed, Hint::Other] {
            let text = hint.said_by("a");
            assert_eq!(Hint::heard_by("a", &text), None, "not what it said itself");
            assert_eq!(Hint::heard_by("b", &text), Some(hint));
        }
    }

    #[test]
    fn what_nobody_understands_is_a_hint_all_the_same() {
        for text in ["", "a", "a changed", "a changed {}", "a melted", "a flushed b"] {
            assert_eq!(Hint::heard_by("b", text), Some(Hint::Other), "{text}");
        }
    }
}
