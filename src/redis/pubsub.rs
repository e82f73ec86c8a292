//! Messages to and from the other nodes of the installation: not kept, and lost while nobody listens.

use std::time::Duration;

use futures_util::StreamExt;
use redis::{
    aio::{PubSubSink, PubSubStream},
    cmd,
};
use tokio::time::timeout;

use super::Redis;

/// A connection that heard nothing for so long is asked whether it still stands.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Why nothing more is heard: a reason to subscribe again.
pub(crate) type Ended = Box<dyn std::error::Error + Send + Sync>;

/// What is said on one channel, on a connection of its own.
pub(crate) struct Messages<'a> {
    redis: &'a Redis,
    of: &'static str,
    channel: String,
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Redis {
    /// Says something to the other nodes of the installation; whether Redis took it.
    pub(crate) async fn publish(&self, of: &str, text: &str) -> bool {
        let Some(channel) = self.channel(of) else { return false };
        self.command::<u64>(cmd("PUBLISH").arg(channel).arg(text).take()).await.is_ok()
    }

    /// Begins to hear what the other nodes say.
    pub(crate) async fn subscribe(&self, of: &'static str) -> Result<Messages<'_>, Ended> {
        let channel = self.channel(of).ok_or("the names in Redis are not known yet")?;
        let (sink, stream) = self.servers.subscribe(&channel).await?.split();
        Ok(Messages { redis: self, of, channel, sink, stream })
    }

    /// The name of a channel. Channels are not divided by database, so it carries that.
    fn channel(&self, of: &str) -> Option<String> {
        Some(format!("{}{of}:{}", self.prefix().ok()?, self.servers.database()))
    }
}

impl Messages<'_> {
    /// The next message; what is no text is an empty one.
    pub(crate) async fn next(&mut self) -> Result<String, Ended> {
        while self.redis.channel(self.of).as_ref() == Some(&self.channel) {
            match timeout(PING_INTERVAL, self.stream.next()).await {
                Ok(Some(message)) => return Ok(message.get_payload().unwrap_or_default()),
                Ok(None) => return Err("the connection ended".into()),
                Err(_) => {
                    let ping = self.sink.ping::<redis::Value>();
                    timeout(self.redis.servers.connect_timeout(), ping).await??;
                }
            }
        }
        Err("the names in Redis are others now".into())
    }
}
