//! A stream that bounds heads and idle connections with one timer that is rarely touched, where hyper's own
//! header time-out sets a timer for each request.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A head that is being sent when the server stops must be complete within this time: it is no request yet, and
/// the time of the stop belongs to requests, the journal and the drain.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// What a connection is doing, as far as time-outs care: the phase in the low two bits, above them how often
/// it has changed.
#[derive(Debug)]
pub(super) struct Phase(AtomicUsize);

impl Phase {
    pub(super) const HEAD: usize = 0;
    pub(super) const ANSWERING: usize = 1;
    pub(super) const IDLE: usize = 2;
    const MASK: usize = 3;

    pub(super) fn set(&self, phase: usize) {
        let changes = self.get() & !Self::MASK;
        self.0.store(changes.wrapping_add(Self::MASK + 1) | phase, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn is(&self, phase: usize) -> bool {
        self.get() & Self::MASK == phase
    }
}

/// A new connection owes a head at once.
impl Default for Phase {
    fn default() -> Self {
        Self(AtomicUsize::new(Self::HEAD))
    }
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a head, from its first byte or from the start of the connection.
    pub(super) head: Duration,
    /// For the first byte of the next head.
    pub(super) idle: Duration,
}

/// A stream whose reads fail when a head takes too long, and end when none comes.
///
/// The timer is set only where a read must wait and it would ring too late: a request whose head comes in one
/// piece, as nearly all do, touches no timer.
pub(super) struct Timed {
    stream: TcpStream,
    phase: Arc<Phase>,
    limits: Limits,
    /// When reads saw the phase begin.
    since: Instant,
    seen: usize,
    timer: Pin<Box<Sleep>>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Timed {
    pub(super) fn new(
        stream: TcpStream,
        phase: Arc<Phase>,
        limits: Limits,
        stopping: &CancellationToken,
    ) -> Self {
        let timer = Box::pin(sleep(limits.head));
        let stopping = Some(Box::pin(stopping.clone().cancelled_owned()));
        Self { stream, phase, limits, since: Instant::now(), seen: Phase::HEAD, timer, stopping }
    }

    /// When the client will have taken too long; `None` while it is our turn.
    fn deadline(&mut self) -> Option<Instant> {
        let phase = self.phase.get();
        if phase != self.seen {
            (self.seen, self.since) = (phase, Instant::now());
        }
        match phase & Phase::MASK {
            Phase::HEAD => Some(self.since + self.limits.head),
            Phase::IDLE => Some(self.since + self.limits.idle),
            _ => None,
        }
    }

    /// Heads have little time once the server stops. Asked only where one is owed.
    fn note_stop(&mut self, cx: &mut Context<'_>) {
        let is_owed = self.phase.is(Phase::HEAD);
        if is_owed && self.stopping.as_mut().is_some_and(|stopping| stopping.as_mut().poll(cx).is_ready()) {
            self.stopping = None;
            self.since = Instant::now();
            self.seen = self.phase.get();
            self.limits.head = self.limits.head.min(LAST_HEAD_TIMEOUT);
        }
    }

    /// Ready when the deadline has passed; else the task is woken at the deadline or before.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.note_stop(cx);
        let Some(deadline) = self.deadline() else { return Poll::Pending };
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let is_late = match &polled {
            Poll::Pending => self.poll_deadline(cx).is_ready(),
            // drip by drip is no way around the deadline
            Poll::Ready(_) => {
                self.phase.is(Phase::HEAD) && self.deadline().is_some_and(|d| d <= Instant::now())
            }
        };
        let is_idle = self.phase.is(Phase::IDLE);
        match is_late {
            // nobody was in the middle of anything: the same as a client that hangs up
            true if is_idle => Poll::Ready(Ok(())),
            true => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the request head took too long");
                Poll::Ready(Err(error))
            }
            false => {
                if is_idle && polled.is_ready() && buffer.filled().len() > before {
                    self.phase.set(Phase::HEAD);
                }
                polled
            }
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
