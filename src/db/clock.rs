//! What time it is on the primary, and how far this node's clock is from it.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Db, Error, statement::statements};

statements! {
    NOW = "clock.now": "SELECT clock_timestamp()";
}

/// Questions of a measurement; the one with the shortest way there and back counts.
const QUESTIONS: usize = 3;

/// How far this node's clock is ahead of the primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// Negative: it is behind.
    pub ahead: TimeDelta,
    /// How far off the measurement may be, in both directions: half of the way there and back.
    pub error: Duration,
}

impl Skew {
    /// The primary said `theirs` in answer to a question that left at `asked` and took so long there and back.
    pub fn new(asked: DateTime<Utc>, took: Duration, theirs: DateTime<Utc>) -> Self {
        let error = took / 2;
        Self { ahead: asked + error - theirs, error }
    }

    /// Whether the clocks may differ by more than this.
    pub fn may_exceed(self, most: Duration) -> bool {
        let apart = self.ahead.abs().to_std().unwrap_or(Duration::MAX);
        apart.saturating_add(self.error) > most
    }
}

/// Asks the primary for its time.
pub async fn skew(db: &Db) -> Result<Skew, Error> {
    let measured = db
        .read_primary(NOW, |c| {
            Box::pin(async move {
                let mut measured = Vec::with_capacity(QUESTIONS);
                for _ in 0..QUESTIONS {
                    let (asked, since) = (Utc::now(), Instant::now());
                    let theirs = NOW.query_scalar().fetch_one(&mut *c).await?;
                    measured.push(Skew::new(asked, since.elapsed(), theirs));
                }
                Ok(measured)
            })
        })
        .await?;
    let best = measured.into_iter().min_by_key(|skew| skew.error);
    best.ok_or_else(|| Error::Unavailable("the primary was not asked for its time".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_there_and_back_is_taken_into_account() {
        let now = Utc::now();
        for (asked_ms, took_ms, ahead_ms, exceeds) in [
            (0, 0, 0, false),
            (-2000, 4000, 0, false),
            (58_000, 4000, 60_000, true),
            (-55_000, 4000, -53_000, false),
            (-61_000, 4000, -59_000, true), // it may be 61 s
            (86_400_000, 10, 86_400_005, true),
        ] {
            let skew =
                Skew::new(now + TimeDelta::milliseconds(asked_ms), Duration::from_millis(took_ms), now);
            assert_eq!(skew.ahead, TimeDelta::milliseconds(ahead_ms), "{asked_ms} {took_ms}");
            assert_eq!(skew.may_exceed(Duration::from_mins(1)), exceeds, "{asked_ms} {took_ms}");
        }
    }
}
