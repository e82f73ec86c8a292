//! The circuit breaker of Redis: after failures in a row nobody asks for a while, then one command tries.
//!
//! Closed: every command passes. Open: none does, until the wait is over. Half open: one command at a time is
//! the trial; its success closes the breaker, its failure opens it again. Pure: the clock is an argument.

use std::time::{Duration, Instant};

pub(super) struct Breaker {
    failures_max: u32,
    wait: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { since: Instant },
    HalfOpen { since: Instant },
}

/// The leave to send one command; its outcome is to be recorded with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    Normal,
    Trial,
}

impl Breaker {
    /// Closed; opens after `failures_max` failures in a row, and lets a trial through after each `wait`.
    pub(super) fn new(failures_max: u32, wait: Duration) -> Self {
        Self { failures_max, wait, state: State::Closed { failures: 0 } }
    }

    /// Whether a command may be sent now.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Permit> {
        match self.state {
            State::Closed { .. } => Some(Permit::Normal),
            // a trial whose outcome never came (its caller gave up) does not hold the next one off for ever
            State::Open { since } | State::HalfOpen { since }
                if now.saturating_duration_since(since) >= self.wait =>
            {
                self.state = State::HalfOpen { since: now };
                Some(Permit::Trial)
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Notes the outcome of a command. One that was sent before the breaker opened says nothing any more.
    pub(super) fn record(&mut self, permit: Permit, is_ok: bool, now: Instant) {
        self.state = match (self.state, permit, is_ok) {
            (State::Closed { .. }, Permit::Normal, true) | (State::HalfOpen { .. }, Permit::Trial, true) => {
                State::Closed { failures: 0 }
            }
            (State::Closed { failures }, Permit::Normal, false) if failures + 1 < self.failures_max => {
                State::Closed { failures: failures + 1 }
            }
            (State::Closed { .. }, Permit::Normal, false)
            | (State::HalfOpen { .. }, Permit::Trial, false) => State::Open { since: now },
            (state, ..) => state,
        };
    }

    /// `closed`, `open` or `half_open`.
    pub(super) fn name(&self) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);
    const ALMOST: Duration = Duration::from_millis(999);

    fn fail(breaker: &mut Breaker, now: Instant) {
        let permit = breaker.admit(now).expect("admitted");
        breaker.record(permit, false, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3, WAIT);
        (0..3).for_each(|_| fail(&mut breaker, now));
        assert_eq!(breaker.name(), "open");
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, WAIT);
        for _ in 0..5 {
            fail(&mut breaker, now);
            fail(&mut breaker, now);
            breaker.record(Permit::Normal, true, now);
            assert!(breaker.is_closed(), "a success in between begins anew");
        }
        (0..3).for_each(|_| fail(&mut breaker, now));
        assert_eq!(breaker.admit(now), None);
    }

    #[test]
    fn one_trial_at_a_time_after_the_wait_and_its_success_closes() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + ALMOST), None);
        assert_eq!(breaker.admit(now + WAIT), Some(Permit::Trial));
        assert_eq!((breaker.name(), breaker.admit(now + WAIT)), ("half_open", None));
        breaker.record(Permit::Trial, true, now + WAIT);
        assert_eq!((breaker.name(), breaker.admit(now + WAIT)), ("closed", Some(Permit::Normal)));
    }

    #[test]
    fn the_failure_of_a_trial_begins_the_wait_again() {
        let now = Instant::now();
        let mut breaker = opened(now);
        fail(&mut breaker, now + WAIT);
        assert_eq!(breaker.admit(now + WAIT + ALMOST), None);
        assert_eq!(breaker.admit(now + WAIT * 2), Some(Permit::Trial));
    }

    #[test]
    fn a_trial_that_is_never_heard_of_again_does_not_hold_the_next_one_off() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.admit(now + WAIT).is_some());
        assert_eq!(breaker.admit(now + WAIT * 2), Some(Permit::Trial));
    }

    #[test]
    fn what_was_sent_before_it_opened_says_nothing_any_more() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.record(Permit::Normal, true, now);
        assert_eq!(breaker.name(), "open");
        assert!(breaker.admit(now + WAIT).is_some());
        breaker.record(Permit::Normal, false, now + WAIT);
        breaker.record(Permit::Normal, true, now + WAIT);
        assert_eq!(breaker.name(), "half_open");
    }
}
