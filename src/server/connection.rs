//! The accept loop: a cap on connections, time-outs for heads and idle connections, and a bounded end.
//!
//! `axum::serve` has none of these, and hyper's own header time-out sets a timer for each request. [`Timed`]
//! bounds a head and an idle connection with one timer that is rarely touched.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    config::{self, millis},
    http::{Ambiguous, Peer, Service},
    metrics::{self, Refused},
};

use super::framing::{Framing, Watched};

/// A head that is being sent when the server stops must be complete within this time: it is no request yet, and
/// the time of the stop belongs to requests, the journal and the drain.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// The connections of all listeners.
pub(super) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    graceful: std::sync::Mutex<Option<GracefulShutdown>>,
    permits: Arc<Semaphore>,
    open: AtomicUsize,
    limits: Limits,
    stopping: CancellationToken,
    http: http1::Builder,
}

impl Connections {
    pub(super) fn new(config: &config::Server) -> Self {
        let mut http = http1::Builder::new();
        http.writev(false) // an answer is one small piece
            .max_buf_size(config.head_bytes_max)
            .max_headers(config.headers_max)
            .half_close(false);
        Self {
            shared: Arc::new(Shared {
                graceful: std::sync::Mutex::new(Some(GracefulShutdown::new())),
                permits: Arc::new(Semaphore::new(config.max_connections)),
                open: AtomicUsize::new(0),
                limits: Limits {
                    head: millis(config.header_timeout_ms),
                    idle: millis(config.idle_timeout_ms),
                },
                stopping: CancellationToken::new(),
                http,
            }),
        }
    }

    /// Accepts until `stop`; a connection beyond the cap waits in the kernel's queue.
    pub(super) fn accept(
        &self,
        listener: TcpListener,
        service: Service,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        async move {
            let accept = async {
                loop {
                    let Ok(permit) = shared.permits.clone().acquire_owned().await else { return };
                    match listener.accept().await {
                        Ok((stream, peer)) => shared.clone().serve(stream, peer, service.clone(), permit),
                        Err(error) => {
                            metrics::http_accept_failed();
                            tracing::warn!(%error, "cannot accept a connection");
                            sleep(Duration::from_millis(50)).await; // no descriptors left: let some close
                        }
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Lets requests finish and closes idle connections; what is open at the deadline is cut off.
    pub(super) async fn finish(self, deadline: Duration) {
        let graceful = self.shared.graceful.lock().ok().and_then(|mut g| g.take());
        let Some(graceful) = graceful else { return };
        self.shared.stopping.cancel();
        if timeout(deadline, graceful.shutdown()).await.is_err() {
            let open = self.shared.open.load(Ordering::Relaxed);
            tracing::warn!(open, "connections did not finish in time and were cut off");
        }
    }
}

impl Shared {
    fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        service: Service,
        permit: OwnedSemaphorePermit,
    ) {
        metrics::http_accepted();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let phase = Arc::new(Phase::default());
        let framing = Arc::new(Framing::default());
        let timed = Timed::new(stream, phase.clone(), self.limits, &self.stopping);
        let io = TokioIo::new(Watched::new(timed, framing.clone()));
        let service = Arc::new((service, phase, framing));
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let service = service.clone();
            async move {
                let (service, phase, framing) = &*service;
                phase.set(Phase::ANSWERING);
                if framing.is_ambiguous(request.headers()) {
                    request.extensions_mut().insert(Ambiguous);
                }
                let response = service.answer(Peer(peer), request).await;
                phase.set(Phase::IDLE);
                framing.answered();
                Ok::<_, Infallible>(response)
            }
        });
        let connection = self.http.serve_connection(io, service);
        let Some(watched) = self.graceful.lock().ok().and_then(|g| g.as_ref().map(|g| g.watch(connection)))
        else {
            return;
        };
        metrics::http_connections(self.open.fetch_add(1, Ordering::Relaxed) + 1);
        #[expect(
            clippy::disallowed_methods,
            reason = "connections end by GracefulShutdown, their own time-outs, or the process"
        )]
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                note(&error);
            }
            drop(permit);
            metrics::http_connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
        });
    }
}

/// Counts what hyper refused before a route was looked for.
fn note(error: &hyper::Error) {
    let timed_out = std::error::Error::source(error)
        .and_then(|e| e.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::TimedOut);
    if error.is_timeout() || timed_out {
        metrics::http_refused(Refused::Timeout);
    } else if error.is_parse_too_large() {
        metrics::http_refused(Refused::TooLarge);
    } else if error.is_parse_version_h2() {
        metrics::http_refused(Refused::Http2);
    } else if error.is_parse() {
        metrics::http_refused(parse_fault(&error.to_string()));
    } else if error.is_incomplete_message() {
        metrics::http_refused(Refused::Incomplete);
    }
}

/// Which part of a head could not be read. hyper tells it only in words that it may change: then this reason is
/// `other`, and a test of tests/it/bad_inputs.rs fails.
fn parse_fault(words: &str) -> Refused {
    let parts = [
        ("method", Refused::Method),
        ("version", Refused::Version),
        ("URI", Refused::Uri),
        ("content-length", Refused::Framing),
        ("transfer-encoding", Refused::Framing),
        ("header", Refused::Header),
    ];
    parts.into_iter().find(|(part, _)| words.contains(part)).map_or(Refused::Other, |(_, reason)| reason)
}

/// What a connection is doing, as far as time-outs care: the phase in the low two bits, above them how often
/// it has changed.
#[derive(Debug)]
struct Phase(AtomicUsize);

impl Phase {
    const HEAD: usize = 0;
    const ANSWERING: usize = 1;
    const IDLE: usize = 2;
    const MASK: usize = 3;

    fn set(&self, phase: usize) {
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
struct Limits {
    /// For a head, from its first byte or from the start of the connection.
    head: Duration,
    /// For the first byte of the next head.
    idle: Duration,
}

/// A stream whose reads fail when a head takes too long, and end when none comes.
///
/// The timer is set only where a read must wait and it would ring too late: a request whose head comes in one
/// piece, as nearly all do, touches no timer.
struct Timed {
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
    fn new(stream: TcpStream, phase: Arc<Phase>, limits: Limits, stopping: &CancellationToken) -> Self {
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
