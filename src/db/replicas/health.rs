//! Whether a replica may answer reads: a state machine that sees no clock and no socket.
//!
//! ```text
//!            one failure            more in a row
//!  healthy ---------------> suspect --------------> ejected <---- too far behind, promoted (from any)
//!     ^  <---------------     |                     |    ^
//!     |      a good answer                 its time |    | a failure: twice the time
//!     |                                    is over  v    |
//!     +------------- some good answers ---------- half-open
//! ```

use std::time::{Duration, Instant};

/// Good answers in a row that a half-open replica needs.
const TRIALS: u32 = 3;

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Failures in a row that eject.
    pub failures_max: u32,
    /// How long it is ejected the first time; doubles.
    pub eject_min: Duration,
    /// How long at most.
    pub eject_max: Duration,
}

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It answers reads in turn.
    Healthy,
    /// It failed lately: it answers where no healthy one can.
    Suspect,
    /// It answers no reads (those that only lag do where all others are ejected too).
    Ejected,
    /// It is tried again, one read at a time.
    HalfOpen,
}

impl State {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Ejected => "ejected",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a probe or a read says of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there and near the primary.
    Good,
    /// It did not answer.
    Failed,
    /// It is too far behind the primary.
    Lagging,
    /// It is no standby (any more): what it holds is another history.
    Promoted,
}

impl Verdict {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Failed => "it does not answer",
            Self::Lagging => "it is too far behind the primary",
            Self::Promoted => "it is no standby: it was promoted",
        }
    }
}

/// How gladly a read is given to a replica; the smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// Half-open: it takes its turn, one read at a time.
    Trial,
    /// Healthy.
    Good,
    /// Suspect.
    Doubtful,
    /// Ejected for its lag alone.
    Late,
}

/// The health of one replica.
#[derive(Debug)]
pub struct Health {
    limits: Limits,
    state: State,
    failures: u32,
    good: u32,
    eject_for: Duration,
    until: Option<Instant>,
    is_late_only: bool,
}

impl Health {
    /// Unknown yet: it may answer until it is known better.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Suspect,
            failures: 0,
            good: 0,
            eject_for: limits.eject_min,
            until: None,
            is_late_only: false,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether and how gladly a read is given to it.
    pub fn fitness(&self) -> Option<Fitness> {
        match self.state {
            State::HalfOpen => Some(Fitness::Trial),
            State::Healthy => Some(Fitness::Good),
            State::Suspect => Some(Fitness::Doubtful),
            State::Ejected => self.is_late_only.then_some(Fitness::Late),
        }
    }

    /// A read was answered. It says nothing of lag, so an ejected one stays ejected.
    pub fn answered(&mut self) {
        self.failures = 0;
        match self.state {
            State::Suspect => self.state = State::Healthy,
            State::HalfOpen => self.succeed(),
            State::Healthy | State::Ejected => {}
        }
    }

    /// What a probe or a failed read says.
    pub fn learn(&mut self, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Good => self.good(now),
            Verdict::Failed => self.failed(now),
            Verdict::Lagging | Verdict::Promoted => {
                self.is_late_only = verdict == Verdict::Lagging;
                self.until = Some(now);
                self.state = State::Ejected;
            }
        }
    }

    fn good(&mut self, now: Instant) {
        self.failures = 0;
        match self.state {
            State::Healthy => {}
            State::Suspect => self.state = State::Healthy,
            State::HalfOpen => self.succeed(),
            State::Ejected => {
                if self.until.is_none_or(|until| now >= until) {
                    self.state = State::HalfOpen;
                    self.good = 0;
                }
            }
        }
    }

    fn succeed(&mut self) {
        self.good += 1;
        if self.good >= TRIALS {
            self.state = State::Healthy;
            self.eject_for = self.limits.eject_min;
        }
    }

    fn failed(&mut self, now: Instant) {
        self.failures += 1;
        match self.state {
            State::HalfOpen => self.eject(now),
            State::Healthy | State::Suspect if self.failures >= self.limits.failures_max => self.eject(now),
            State::Healthy | State::Suspect => self.state = State::Suspect,
            State::Ejected => self.is_late_only = false,
        }
    }

    fn eject(&mut self, now: Instant) {
        self.state = State::Ejected;
        self.is_late_only = false;
        self.until = Some(now + self.eject_for);
        self.eject_for = (self.eject_for * 2).min(self.limits.eject_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn health() -> Health {
        Health::new(Limits { failures_max: 3, eject_min: SECOND, eject_max: SECOND * 4 })
    }

    #[test]
    fn failures_in_a_row_eject_and_it_comes_back_by_a_trial() {
        let (mut health, start) = (health(), Instant::now());
        health.learn(Verdict::Good, start);
        assert_eq!(health.state(), State::Healthy);
        health.learn(Verdict::Failed, start);
        assert_eq!((health.state(), health.fitness()), (State::Suspect, Some(Fitness::Doubtful)));
        health.answered();
        assert_eq!(health.state(), State::Healthy, "one good answer clears a suspicion");
        (0..3).for_each(|_| health.learn(Verdict::Failed, start));
        assert_eq!((health.state(), health.fitness()), (State::Ejected, None));
        health.learn(Verdict::Good, start + SECOND / 2);
        assert_eq!(health.state(), State::Ejected, "its time is not over");
        health.learn(Verdict::Good, start + SECOND);
        assert_eq!((health.state(), health.fitness()), (State::HalfOpen, Some(Fitness::Trial)));
        health.answered();
        health.answered();
        health.learn(Verdict::Good, start + SECOND);
        assert_eq!(health.state(), State::Healthy);
    }

    #[test]
    fn a_failed_trial_ejects_for_twice_the_time_up_to_a_limit() {
        let (mut health, mut now) = (health(), Instant::now());
        (0..3).for_each(|_| health.learn(Verdict::Failed, now));
        for wait in [1, 2, 4, 4] {
            health.learn(Verdict::Good, now + SECOND * wait / 2);
            assert_eq!(health.state(), State::Ejected, "{wait}");
            now += SECOND * wait;
            health.learn(Verdict::Good, now);
            assert_eq!(health.state(), State::HalfOpen, "{wait}");
            health.learn(Verdict::Failed, now);
        }
    }

    #[test]
    fn one_that_lags_or_was_promoted_is_ejected_at_once() {
        for (verdict, fitness) in [(Verdict::Lagging, Some(Fitness::Late)), (Verdict::Promoted, None)] {
            let (mut health, now) = (health(), Instant::now());
            health.learn(Verdict::Good, now);
            health.learn(verdict, now);
            assert_eq!((health.state(), health.fitness()), (State::Ejected, fitness));
            health.answered();
            assert_eq!(health.state(), State::Ejected, "an answer says nothing of that");
            health.learn(Verdict::Failed, now);
            assert_eq!(health.fitness(), None, "late and silent is of no use");
            health.learn(Verdict::Good, now);
            assert_eq!(health.state(), State::HalfOpen);
        }
    }
}
