//! So many a minute, whoever asks: of what is kept although nobody needs it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_mins(1);

/// Counts minutes from the first one on that there is something to count in.
#[derive(Debug)]
pub struct PerMinute {
    max: u32,
    /// When the minute began, and how many there were in it.
    minute: Mutex<Option<(Instant, u32)>>,
}

impl PerMinute {
    /// At most `max`.
    pub fn new(max: u32) -> Self {
        Self { max, minute: Mutex::new(None) }
    }

    /// Counts one; whether it is one of the first of its minute.
    pub fn count(&self) -> bool {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> bool {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) =
            minute.filter(|(began, _)| now.duration_since(*began) < MINUTE).unwrap_or((now, 0));
        let is_within = count < self.max;
        *minute = Some((began, count + u32::from(is_within)));
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_has_as_many_as_the_last() {
        let limit = PerMinute::new(2);
        let start = Instant::now();
        let at = |s: u64| limit.count_at(start + Duration::from_secs(s));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(62)], [true, true, false, true, true, false]);
        assert!(!PerMinute::new(0).count());
    }
}
