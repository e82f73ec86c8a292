//! `{names}click_stats:{key}`: the figures of a campaign, kept for seconds, so that ten people before one dashboard ask
//! Postgres once. A hash: one field a question, which expires as a whole and is dropped when it has too many.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config, metrics,
    model::id::CampaignKey,
    redis::{Ask, Failure, Redis},
};

const SCHEMA: u32 = 1;

/// The figures that are kept.
pub(crate) struct ReportCache {
    /// `None`: nothing is kept.
    redis: Option<Arc<Redis>>,
    ttl: Duration,
    questions_max: usize,
    bytes_max: usize,
}

#[derive(Serialize)]
struct Out<'a, T> {
    schema: u32,
    at_ms: i64,
    figures: &'a T,
}

#[derive(Deserialize)]
struct In<T> {
    schema: u32,
    at_ms: i64,
    figures: T,
}

impl ReportCache {
    /// Nothing is kept where there is no Redis or `cache.stats_ttl_s` is 0.
    pub(crate) fn new(redis: Option<Arc<Redis>>, config: &config::Cache) -> Self {
        let ttl = config.stats_ttl;
        Self {
            redis: redis.filter(|_| !ttl.is_zero()),
            ttl,
            questions_max: config.stats_questions_max,
            bytes_max: config.stats_bytes_max,
        }
    }

    /// The figures that answer `question`, and their age, if they are kept. Two questions are the same when their
    /// texts are.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        key: &CampaignKey,
        question: &str,
    ) -> Option<(Duration, T)> {
        let found = read(self.redis.as_ref()?, key, question).await;
        let kept = found.as_ref().ok().and_then(Option::as_deref);
        let fresh = kept.and_then(|bytes| understand(bytes, self.ttl));
        metrics::stats_cache_request(match (&found, &fresh) {
            (_, Some(_)) => "hit",
            (Ok(_), None) => "miss",
            (Err(_), None) => "error",
        });
        fresh
    }

    /// Keeps the figures that answer `question`.
    pub(crate) async fn keep<T: Serialize>(&self, key: &CampaignKey, question: &str, figures: &T) {
        let Some(redis) = &self.redis else { return };
        let out = Out { schema: SCHEMA, at_ms: Utc::now().timestamp_millis(), figures };
        let Ok(bytes) = serde_json::to_vec(&out) else { return };
        if bytes.len() <= self.bytes_max {
            self.write(redis, key, question, &bytes).await;
        }
    }

    /// All or nothing: a hash without an end would stay for ever.
    async fn write(&self, redis: &Redis, key: &CampaignKey, question: &str, bytes: &[u8]) {
        let Ok(prefix) = redis.prefix() else { return };
        let name = name(&prefix, key);
        let mut keep = redis::pipe();
        keep.atomic().hlen(&name).hset(&name, question, bytes).ignore();
        keep.pexpire(&name, i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX)).ignore();
        let kept: Result<(usize,), Failure> = redis.ask(&Ask::Together(keep)).await;
        let must_go = match kept {
            Ok((questions,)) => questions >= self.questions_max,
            // a key of another type, say: the error of a transaction does not always tell
            Err(failure) => matches!(failure, Failure::Refused(_)),
        };
        if must_go {
            let _ = redis.unlink(&[name]).await; // it expires
        }
    }
}

/// What a campaign's hash is called.
pub(super) fn name(prefix: &str, key: &CampaignKey) -> String {
    format!("{prefix}click_stats:{key}")
}

async fn read(redis: &Redis, key: &CampaignKey, question: &str) -> Result<Option<Vec<u8>>, Failure> {
    let name = name(&redis.prefix()?, key);
    redis.ask(&Ask::One(redis::cmd("HGET").arg(name).arg(question).take())).await
}

/// Figures of this schema that are not too old, and their age. The clocks of nodes differ a little.
fn understand<T: DeserializeOwned>(bytes: &[u8], ttl: Duration) -> Option<(Duration, T)> {
    let kept: In<T> = serde_json::from_slice(bytes).ok()?;
    let age_ms = Utc::now().timestamp_millis().saturating_sub(kept.at_ms);
    let is_fresh = kept.schema == SCHEMA && Duration::from_millis(age_ms.unsigned_abs()) < ttl;
    is_fresh.then(|| (Duration::from_millis(age_ms.max(0).unsigned_abs()), kept.figures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_not_ours_is_no_answer() {
        let ttl = Duration::from_secs(5);
        let at = |ms: i64| {
            format!("{{\"schema\":1,\"at_ms\":{},\"figures\":[1]}}", Utc::now().timestamp_millis() + ms)
        };
        let read = |text: &str| understand::<Vec<u32>>(text.as_bytes(), ttl).map(|(_, figures)| figures);
        assert_eq!(read(&at(-1000)), Some(vec![1]));
        assert_eq!(read(&at(1000)), Some(vec![1]), "a clock that is ahead");
        assert_eq!((read(&at(-6000)), read(&at(6000))), (None, None));
        for text in ["", "{", "[]", "{\"schema\":2,\"at_ms\":0,\"figures\":[1]}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
