//! Signs of life on standard error: rewritten in place on a terminal, else a line now and then.

use std::{
    fmt::Display,
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Between two of them.
const SHOW_ON_TERMINAL: Duration = Duration::from_millis(200);
const SHOW_ELSEWHERE: Duration = Duration::from_secs(10);

/// Says now and then how far it is.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    started: Instant,
    shown: Instant,
}

impl Progress {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { is_terminal: std::io::stderr().is_terminal(), started: now, shown: now }
    }

    /// `line` is given the seconds since the start; it is asked only where it is time to show it.
    pub(super) fn show<T: Display>(&mut self, line: impl FnOnce(u64) -> T) {
        let interval = if self.is_terminal { SHOW_ON_TERMINAL } else { SHOW_ELSEWHERE };
        if self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        let line = line(self.started.elapsed().as_secs());
        if self.is_terminal {
            eprint!("\r{line}\x1b[K");
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the line off a terminal.
    pub(super) fn end(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
