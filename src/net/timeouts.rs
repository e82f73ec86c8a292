//! A stream that bounds heads, idle connections and answers that nobody takes, with one timer that is rarely
//! touched, where hyper's own header time-out sets a timer for each request and it has none for writes.

use std::{
    io::{self, Read},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::{
    metrics::{self, Refused},
    net::{phase::Phase, shutdown::GracefulShutdown},
};

/// A head that is being sent when the server stops must be complete within this time: it is no request yet, and
/// the time of the stop belongs to requests, the journal and the drain.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a head, from its first byte or from the start of the connection.
    pub(super) head: Duration,
    /// For the first byte of the next head.
    pub(super) idle: Duration,
    /// For taking `write_bytes_min` of an answer that does not fit into the kernel's buffer, or its rest.
    pub(super) write: Duration,
    pub(super) write_bytes_min: usize,
}

/// A stream whose reads fail when a head takes too long, and end when none comes; whose writes fail when the
/// client does not read; and which ends at once where its place is needed and the client keeps us waiting.
///
/// The timer is set only where a read must wait and it would ring too late: a request whose head comes in one
/// piece, as nearly all do, touches no timer.
pub(super) struct TimeoutStream {
    stream: TcpStream,
    phase: Arc<Phase>,
    limits: Limits,
    /// When reads saw the phase begin.
    since: Instant,
    seen: usize,
    timer: Pin<Box<Sleep>>,
    /// While the client does not take what is written.
    stuck: Option<Box<Stuck>>,
    ending: Arc<GracefulShutdown>,
    knows_end: bool,
}

/// An answer that does not fit into the kernel's buffer.
struct Stuck {
    timer: Pin<Box<Sleep>>,
    /// Bytes taken since the timer was set.
    taken: usize,
}

/// Why a read does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The head took too long.
    Head,
    /// No head came.
    Idle,
    /// Others need the place.
    ConnectionLimiter,
}

impl TimeoutStream {
    pub(super) fn new(
        stream: TcpStream,
        phase: Arc<Phase>,
        limits: Limits,
        ending: Arc<GracefulShutdown>,
    ) -> Self {
        let (timer, since, seen) = (Box::pin(sleep(limits.head)), Instant::now(), phase.get());
        Self { stream, phase, limits, since, seen, timer, stuck: None, ending, knows_end: false }
    }

    /// The stream itself, once there is no more HTTP to be spoken on it.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// When the client will have taken too long; `None` while it is our turn, or a body's, which has a limit of
    /// its own.
    fn deadline(&mut self) -> Option<Instant> {
        let seen = self.phase.get();
        if seen != self.seen {
            (self.seen, self.since) = (seen, Instant::now());
            self.phase.wait_since(self.since);
        }
        match Phase::phase_of(seen) {
            Phase::HEAD => Some(self.since + self.limits.head),
            Phase::IDLE => Some(self.since + self.limits.idle),
            _ => None,
        }
    }

    /// Heads have little time once the server closes; [`GracefulShutdown::run`] has us polled then.
    fn note_end(&mut self) {
        if self.phase.is(Phase::HEAD) && !self.knows_end && self.ending.is_closing() {
            self.knows_end = true;
            self.since = Instant::now();
            self.seen = self.phase.get();
            self.limits.head = self.limits.head.min(LAST_HEAD_TIMEOUT);
        }
    }

    /// Asks the socket itself: what has arrived may not have been reported yet.
    fn read_at_last(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match (&*SockRef::from(&self.stream)).read(buffer.initialize_unfilled()) {
            Ok(length) => {
                buffer.advance(length);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// The end of a read that must wait, when there is one; else the task is woken in time for it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<End> {
        self.note_end();
        let deadline = self.deadline();
        if !self.phase.is(Phase::ANSWERING) && self.phase.poll_unwanted(cx) {
            return Some(End::ConnectionLimiter);
        }
        let deadline = deadline?;
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Some(if self.phase.is(Phase::IDLE) { End::Idle } else { End::Head });
            }
            self.timer.as_mut().reset(deadline);
        }
        None
    }

    fn end(&self, end: End) -> Poll<io::Result<()>> {
        match end {
            End::Head => metrics::http_refused(Refused::Timeout),
            End::Idle => metrics::http_closed("idle"),
            End::ConnectionLimiter => metrics::http_closed("room"),
        }
        if self.phase.is(Phase::IDLE) {
            return Poll::Ready(Ok(())); // nobody was in the middle of anything: as if the client hung up
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client took too long")))
    }

    /// A write or flush that must wait: fails when the client has not taken enough for too long.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.deadline(); // notes since when
        if !self.phase.is(Phase::ANSWERING) && self.phase.poll_unwanted(cx) {
            metrics::http_closed("room");
            return Poll::Ready(io::Error::new(
                io::ErrorKind::TimedOut,
                "its place is needed for another connection",
            ));
        }
        let limit = self.limits.write;
        let stuck =
            self.stuck.get_or_insert_with(|| Box::new(Stuck { timer: Box::pin(sleep(limit)), taken: 0 }));
        if stuck.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        metrics::http_refused(Refused::WriteTimeout);
        // what the client does not read would stay in the kernel's memory after the end of the connection
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer"))
    }

    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.poll_stuck(cx).map(Err),
            Poll::Ready(Ok(written)) => {
                if let Some(stuck) = &mut self.stuck {
                    stuck.taken += written;
                    // drip by drip is no way around this one either
                    if stuck.taken >= self.limits.write_bytes_min {
                        stuck.taken = 0;
                        stuck.timer.as_mut().reset(Instant::now() + self.limits.write);
                    }
                }
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => {
                note_untaken(&error);
                Poll::Ready(Err(error))
            }
        }
    }
}

/// The kernel gave up on a client that does not take what was sent (TCP_USER_TIMEOUT).
fn note_untaken(error: &io::Error) {
    if error.kind() == io::ErrorKind::TimedOut {
        metrics::http_refused(Refused::WriteTimeout);
    }
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_pending() && self.ending.is_closing() {
            polled = self.read_at_last(buffer);
        }
        // drip by drip is no way around a deadline: behind each drop there is a wait. What is here is taken,
        // however late: it may have waited for us
        if polled.is_pending()
            && let Some(end) = self.poll_end(cx)
        {
            return self.end(end);
        }
        match &polled {
            Poll::Ready(Err(error)) => note_untaken(error),
            Poll::Ready(Ok(())) if self.phase.is(Phase::IDLE) && buffer.filled().len() > before => {
                self.phase.set(Phase::HEAD);
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_write(cx, polled)
    }

    /// Called once everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stuck = None;
        // hyper looked for an end of the connection while it was answering, was told to wait, and does not look
        // again before something wakes it: from here on that is the client, or the time it has
        if self.phase.is(Phase::IDLE) && self.seen != self.phase.get() && self.poll_end(cx).is_some() {
            cx.waker().wake_by_ref();
        }
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
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
