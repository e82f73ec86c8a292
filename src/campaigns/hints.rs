//! What nodes tell each other by way of Redis: a campaign changed, everything is to be read again. A hint only
//! brings the next poll forward; the poll, which reads the primary, is the guarantee.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    campaigns::{Campaigns, shared::Redis},
    model::id::CampaignKey,
};

/// A connection that heard nothing for so long is asked whether it still stands.
const PING_INTERVAL: Duration = Duration::from_secs(5);

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

/// A reason to connect again.
type Ended = Box<dyn std::error::Error + Send + Sync>;

/// What nodes of an installation tell each other of campaigns.
pub(super) const CHANNEL: &str = "campaigns";

impl Hint {
    /// As text: who says it, what.
    pub(super) fn said_by(&self, node: &str) -> String {
        match self {
            Self::Changed(key) => format!("{node} changed {key}"),
            Self::Flushed => format!("{node} flushed"),
            Self::Other => format!("{node} other"),
        }
    }

    /// `None` when `node` said it itself.
    pub(super) fn heard_by(node: &str, text: &str) -> Option<Self> {
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

/// Hears hints on a connection of its own until that ends.
pub(super) async fn hear(campaigns: &Campaigns, redis: &Redis) -> Result<(), Ended> {
    let channel = redis.channel(CHANNEL).ok_or("the names in Redis are not known yet")?;
    let (mut sink, mut messages) = redis.subscribe(&channel).await?.split();
    campaigns.obey(&Hint::Other).await; // what was said while nobody listened
    while redis.channel(CHANNEL).as_ref() == Some(&channel) {
        match timeout(PING_INTERVAL, messages.next()).await {
            Ok(Some(message)) => {
                let text: String = message.get_payload().unwrap_or_default();
                if let Some(hint) = Hint::heard_by(campaigns.node(), &text) {
                    campaigns.obey(&hint).await;
                }
            }
            Ok(None) => return Err("the connection ended".into()),
            Err(_) => {
                let ping = sink.ping::<redis::Value>();
                timeout(redis.servers().connect_timeout(), ping).await??;
            }
        }
    }
    Err("the names in Redis are others now".into())
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
