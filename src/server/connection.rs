//! The accept loop: a cap on connections, time-outs for heads and idle connections, and a bounded end.
//!
//! `axum::serve` has none of these.

mod ending;
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

use ::http::{HeaderValue, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    framing::{Framing, Watched},
    listeners::Listener,
    proxy_protocol,
};
use crate::{
    config::{self, millis},
    http::{Ambiguous, Peer, Service},
    metrics::{self, Refused},
};
use ending::{Ending, linger};
use timed::{Limits, Phase, Timed};

/// The connections of all listeners.
pub(super) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    permits: Arc<Semaphore>,
    open: AtomicUsize,
    limits: Limits,
    ending: Arc<Ending>,
    http: http1::Builder,
    config: config::Server,
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
                permits: Arc::new(Semaphore::new(config.max_connections)),
                open: AtomicUsize::new(0),
                limits: Limits {
                    head: millis(config.header_timeout_ms),
                    idle: millis(config.idle_timeout_ms),
                },
                ending: Arc::default(),
                http,
                config: config.clone(),
            }),
        }
    }

    /// Accepts until `stop`; a connection beyond the cap waits in the kernel's queue.
    pub(super) fn accept(
        &self,
        listener: Listener,
        service: Service,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        let token = shared.ending.token(true);
        async move {
            let accept = async {
                loop {
                    let Ok(permit) = shared.permits.clone().acquire_owned().await else { return };
                    match listener.socket.accept().await {
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
            if let Err(error) = shared.accept_the_last(listener, &service) {
                tracing::debug!(%error, "no last connections were accepted");
            }
            drop(token);
        }
    }

    /// From now on each answer says `Connection: close`. Returns when no connection is left that was open before, or
    /// at the deadline.
    pub(super) async fn wind_down(&self, deadline: Duration) {
        self.shared.ending.wind_down(deadline).await;
    }

    /// Lets requests finish and closes idle connections; what is open at the deadline is cut off.
    pub(super) async fn finish(self, deadline: Duration) {
        if self.shared.ending.close(deadline).await.is_err() {
            let open = self.shared.open.load(Ordering::Relaxed);
            tracing::warn!(open, "connections did not finish in time and were cut off");
        }
    }
}

impl Shared {
    /// Whoever is in the queue of our own socket when it closes would see a reset. What waits in an inherited one
    /// is for whoever comes after us.
    fn accept_the_last(self: &Arc<Self>, listener: Listener, service: &Service) -> io::Result<()> {
        if listener.is_inherited {
            return Ok(());
        }
        let listener = listener.socket.into_std()?;
        while let Ok(permit) = self.permits.clone().try_acquire_owned()
            && let Ok((stream, peer)) = listener.accept()
        {
            stream.set_nonblocking(true)?;
            self.clone().serve(TcpStream::from_std(stream)?, peer, service.clone(), permit);
        }
        Ok(())
    }

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
        metrics::http_connections(self.open.fetch_add(1, Ordering::Relaxed) + 1);
        // from now on, and not only once its task runs, the end waits for it
        let token = self.ending.token(false);
        let is_proxied = self.config.proxy_protocol && service.is_public();
        #[expect(
            clippy::disallowed_methods,
            reason = "connections end by Ending, their own time-outs, or the process"
        )]
        if is_proxied {
            tokio::spawn(self.ask_and_speak(stream, peer, service, permit, token));
        } else {
            tokio::spawn(self.speak(stream, peer, service, permit, token));
        }
    }

    /// As [`Self::speak`], once a trusted proxy has said for whom.
    async fn ask_and_speak(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        service: Service,
        permit: OwnedSemaphorePermit,
        token: TaskTrackerToken,
    ) {
        match proxy_protocol::caller(&mut stream, peer, &self.config).await {
            Ok(client) => self.speak(stream, client, service, permit, token).await,
            Err(refusal) => {
                if let Some(reason) = refusal.reason() {
                    metrics::http_refused(reason);
                }
                metrics::http_connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
            }
        }
    }

    /// Speaks HTTP until the connection ends.
    async fn speak(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        service: Service,
        permit: OwnedSemaphorePermit,
        token: TaskTrackerToken,
    ) {
        let phase = Arc::new(Phase::default());
        let framing = Arc::new(Framing::default());
        let timed = Timed::new(stream, phase.clone(), self.limits, self.ending.clone());
        let io = TokioIo::new(Watched::new(timed, framing.clone()));
        let answering = Arc::new((service, phase.clone(), framing, self.ending.clone()));
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            let answering = answering.clone();
            async move {
                let (service, phase, framing, ending) = &*answering;
                phase.set(Phase::ANSWERING);
                if framing.is_ambiguous(request.headers()) {
                    request.extensions_mut().insert(Ambiguous);
                }
                let mut response = service.answer(Peer(peer), request).await;
                if ending.is_winding_down() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                phase.set(Phase::IDLE);
                framing.answered();
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = self.http.serve_connection(io, service);
        let end = self.ending.run(&mut connection, &phase).await;
        drop(token);
        if let Err(error) = &end {
            note(error);
        }
        // hyper's own refusals are worth reading too
        if end.is_ok() || end.is_err_and(|error| error.is_parse()) {
            let stream = connection.into_parts().io.into_inner().into_inner().into_stream();
            linger(stream, millis(self.config.linger_ms)).await;
        }
        drop(permit);
        metrics::http_connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
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
