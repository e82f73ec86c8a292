//! When a delivery is tried again, and when it is given up: a pure function of how often it was tried and of the answer.

use std::time::Duration;

use crate::model::postback_target::DeliveryReason;

/// Attempts at what is refused for what it is.
const REFUSED_ATTEMPTS: usize = 3;

/// What came back of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The target took it.
    Success,
    /// An answer that is none, with `Retry-After` where it was sent.
    Status {
        /// Its status.
        status: u16,
        /// What `Retry-After` says.
        retry_after: Option<Duration>,
    },
    /// No answer, or one that the target's rule calls a failure.
    Failure,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Delivered,
    /// It is tried again after this time.
    Again(Duration),
    /// The whole target waits for so long, this delivery with it.
    Hold(Duration),
    /// The target is paused, this delivery kept.
    Gone,
    /// It is given up.
    Dead(DeliveryReason),
}

/// What becomes of a delivery that was tried `tries` times. `waits` are the times before the first, second, .. attempt,
/// `retry_after_max` bounds what a target may ask for, and `jitter` is from 0 to 1.
pub fn next(
    waits: &[Duration],
    retry_after_max: Duration,
    tries: usize,
    answered: Answered,
    jitter: f64,
) -> Next {
    let (status, retry_after) = match answered {
        Answered::Success => return Next::Delivered,
        Answered::Status { status: 410, .. } => return Next::Gone,
        Answered::Status { status, retry_after } => {
            (Some(status), retry_after.map(|wait| wait.min(retry_after_max)))
        }
        Answered::Failure => (None, None),
    };
    if matches!(status, Some(400 | 401 | 403 | 404)) && tries >= REFUSED_ATTEMPTS {
        return Next::Dead(DeliveryReason::Refused);
    }
    let Some(wait) = waits.get(tries) else { return Next::Dead(DeliveryReason::Attempts) };
    let wait = wait.mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0));
    match (status, retry_after) {
        (Some(429), asked) => Next::Hold(asked.map_or(wait, |asked| asked.max(wait))),
        (_, Some(asked)) => Next::Again(asked.max(wait)),
        _ => Next::Again(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn after(tries: usize, answered: Answered) -> Next {
        next(&[S(0), S(5), S(300), S(1800)], S(3600), tries, answered, 0.5)
    }

    fn status(status: u16, retry_after: Option<u64>) -> Answered {
        Answered::Status { status, retry_after: retry_after.map(S) }
    }

    #[test]
    fn every_answer_has_its_consequence() {
        for (tries, answered, wanted) in [
            (1, Answered::Success, Next::Delivered),
            (1, Answered::Failure, Next::Again(S(5))),
            (2, Answered::Failure, Next::Again(S(300))),
            (3, status(500, None), Next::Again(S(1800))),
            (4, status(500, None), Next::Dead(DeliveryReason::Attempts)),
            (4, Answered::Failure, Next::Dead(DeliveryReason::Attempts)),
            (2, status(404, None), Next::Again(S(300))),
            (3, status(404, None), Next::Dead(DeliveryReason::Refused)),
            (3, status(403, Some(9)), Next::Dead(DeliveryReason::Refused)),
            (1, status(410, None), Next::Gone),
            (1, status(503, Some(60)), Next::Again(S(60))),
            (2, status(503, Some(60)), Next::Again(S(300))),
            (1, status(503, Some(999_999)), Next::Again(S(3600))),
            (1, status(429, None), Next::Hold(S(5))),
            (1, status(429, Some(60)), Next::Hold(S(60))),
            (1, status(302, None), Next::Again(S(5))),
        ] {
            assert_eq!(after(tries, answered), wanted, "{tries} {answered:?}");
        }
    }

    #[test]
    fn jitter_is_ten_per_cent_either_way() {
        let waits = [S(0), S(100)];
        let at = |jitter| next(&waits, S(1), 1, Answered::Failure, jitter);
        assert_eq!((at(0.0), at(1.0)), (Next::Again(S(90)), Next::Again(S(110))));
    }
}
