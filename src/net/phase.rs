//! What a connection is waiting for: its time-outs, and who makes room for others, are decided by it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    task::Context,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// The phase of a connection and since when the client has kept us waiting. Set by the connection's own task,
/// read by whoever has to make room.
#[derive(Debug)]
pub(super) struct Phase {
    /// The phase in the low two bits, above them how often it has changed.
    state: AtomicUsize,
    /// Milliseconds after `epoch`.
    waiting_since_ms: AtomicU64,
    epoch: Instant,
    is_unwanted: AtomicBool,
    waker: AtomicWaker,
}

impl Phase {
    pub(super) const HEAD: usize = 0;
    pub(super) const ANSWERING: usize = 1;
    pub(super) const IDLE: usize = 2;
    pub(super) const BODY: usize = 3;
    const MASK: usize = 3;

    /// A new connection owes a head at once.
    pub(super) fn new(epoch: Instant) -> Self {
        let phase = Self {
            state: AtomicUsize::new(Self::HEAD),
            waiting_since_ms: AtomicU64::new(0),
            epoch,
            is_unwanted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        };
        phase.wait_since(Instant::now());
        phase
    }

    pub(super) fn set(&self, phase: usize) {
        let changes = self.get() & !Self::MASK;
        self.state.store(changes.wrapping_add(Self::MASK + 1) | phase, Ordering::Relaxed);
    }

    /// The phase and, above it, how often it has changed.
    pub(super) fn get(&self) -> usize {
        self.state.load(Ordering::Relaxed)
    }

    pub(super) fn is(&self, phase: usize) -> bool {
        Self::phase_of(self.get()) == phase
    }

    pub(super) fn phase_of(seen: usize) -> usize {
        seen & Self::MASK
    }

    /// Notes when the phase began, as far as reads saw it.
    pub(super) fn wait_since(&self, since: Instant) {
        self.waiting_since_ms.store(self.in_ms(since), Ordering::Relaxed);
    }

    /// For how long the client has kept us waiting: for a request, or in the middle of one.
    pub(super) fn waited(&self, now: Instant) -> Option<Duration> {
        let since_ms = self.waiting_since_ms.load(Ordering::Relaxed);
        let waited = || Duration::from_millis(self.in_ms(now).saturating_sub(since_ms));
        (!self.is(Self::ANSWERING)).then(waited)
    }

    fn in_ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks the connection to make room as soon as it is the client is to send.
    pub(super) fn leave(&self) {
        self.is_unwanted.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.is_unwanted.load(Ordering::Acquire)
    }

    /// The same, and wakes the task once it becomes so.
    pub(super) fn poll_unwanted(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.is_unwanted()
    }
}
