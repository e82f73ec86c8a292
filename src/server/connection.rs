//! The accept loop: a cap on connections, time-outs for heads and idle connections, and a bounded end.
//!
//! `axum::serve` has none of these.

mod timed;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, millis},
    http::{Peer, Service},
    metrics,
};
use timed::{Limits, Phase, Timed};

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
        let io = TokioIo::new(Timed::new(stream, phase.clone(), self.limits, &self.stopping));
        let service = Arc::new((service, phase));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let service = service.clone();
            async move {
                let (service, phase) = &*service;
                phase.set(Phase::ANSWERING);
                let response = service.answer(Peer(peer), request).await;
                phase.set(Phase::IDLE);
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
    if error.is_parse() {
        metrics::http_refused(if error.is_parse_too_large() { "too_large" } else { "parse" });
    } else if error.is_timeout() || timed_out {
        metrics::http_refused("timeout");
    }
}
