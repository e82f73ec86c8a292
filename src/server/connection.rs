//! The accept loop: a cap on connections, time-outs for heads and idle connections, and a bounded end.
//!
//! `axum::serve` has none of these. hyper's own header time-out also runs while a kept-alive connection is
//! idle, so it serves as the idle time-out here, and [`Timed`] gives a head its shorter one.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::ServiceExt;

use crate::{
    config::{self, millis},
    http::Peer,
    metrics,
};

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
    header_timeout: Duration,
    stopping: CancellationToken,
    http: http1::Builder,
}

impl Connections {
    pub(super) fn new(config: &config::Server) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(millis(config.idle_timeout_ms))
            .max_buf_size(config.head_bytes_max)
            .max_headers(config.headers_max)
            .half_close(false);
        Self {
            shared: Arc::new(Shared {
                graceful: std::sync::Mutex::new(Some(GracefulShutdown::new())),
                permits: Arc::new(Semaphore::new(config.max_connections)),
                open: AtomicUsize::new(0),
                header_timeout: millis(config.header_timeout_ms),
                stopping: CancellationToken::new(),
                http,
            }),
        }
    }

    /// Accepts until `stop`; a connection beyond the cap waits in the kernel's queue.
    pub(super) fn accept(
        &self,
        listener: TcpListener,
        router: Router,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        async move {
            let accept = async {
                loop {
                    let Ok(permit) = shared.permits.clone().acquire_owned().await else { return };
                    match listener.accept().await {
                        Ok((stream, peer)) => shared.clone().serve(stream, peer, router.clone(), permit),
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
        router: Router,
        permit: OwnedSemaphorePermit,
    ) {
        metrics::http_accepted();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let phase = Arc::new(Phase::default());
        let io = TokioIo::new(Timed::new(stream, phase.clone(), self.header_timeout, &self.stopping));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (router, phase) = (router.clone(), phase.clone());
            async move {
                phase.set(Phase::ANSWERING);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Peer(peer));
                let response = router.oneshot(request).await;
                phase.set(Phase::IDLE);
                response
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
    if error.is_parse() {
        metrics::http_refused(if error.is_parse_too_large() { "too_large" } else { "parse" });
    } else if error.is_timeout() || timed_out {
        metrics::http_refused("timeout");
    }
}

/// What a connection is doing, as far as time-outs care.
#[derive(Debug)]
struct Phase(AtomicU8);

impl Phase {
    const HEAD: u8 = 0;
    const ANSWERING: u8 = 1;
    const IDLE: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Ordering::Relaxed) == phase
    }
}

/// A new connection owes a head at once.
impl Default for Phase {
    fn default() -> Self {
        Self(AtomicU8::new(Self::HEAD))
    }
}

/// A stream whose reads fail when a head takes longer than its time-out, counted from its first byte (or from
/// the start of the connection). The time-out is short once the server stops.
struct Timed {
    stream: TcpStream,
    phase: Arc<Phase>,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Timed {
    fn new(stream: TcpStream, phase: Arc<Phase>, limit: Duration, stopping: &CancellationToken) -> Self {
        let stopping = Some(Box::pin(stopping.clone().cancelled_owned()));
        Self { stream, phase, limit, deadline: Box::pin(sleep(limit)), stopping }
    }

    /// Whether the head is overdue. Asked only while one is owed: a request costs nothing here.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.stopping.as_mut().is_some_and(|stopping| stopping.as_mut().poll(cx).is_ready()) {
            self.stopping = None;
            self.limit = self.limit.min(LAST_HEAD_TIMEOUT);
            let deadline = self.deadline.deadline().min(Instant::now() + self.limit);
            self.deadline.as_mut().reset(deadline);
        }
        self.deadline.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.phase.is(Phase::HEAD) && self.is_late(cx) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the request head took too long",
            )));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() && buffer.filled().len() > before && self.phase.is(Phase::IDLE) {
            self.phase.set(Phase::HEAD);
            let deadline = Instant::now() + self.limit;
            self.deadline.as_mut().reset(deadline);
        }
        polled
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
