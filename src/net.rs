//! The accept loop: a cap on connections with a reserve, time-outs for heads, bodies, answers and idle
//! connections, and a bounded end.
//!
//! `axum::serve` has none of these.

mod body;
pub(crate) mod descriptors;
pub(crate) mod limiter;
pub(crate) mod listeners;
pub(crate) mod phase;
pub(crate) mod proxy_protocol;
pub(crate) mod shutdown;
pub(crate) mod timeouts;

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
use axum::body::Body;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

pub(crate) use crate::net::limiter::ListenerKind;
use crate::{
    config,
    http::{Peer, Service},
    metrics::{self, Refused},
    net::{
        limiter::{ConnectionLimiter, ConnectionPermit},
        listeners::Listener,
        phase::Phase,
        shutdown::{GracefulShutdown, linger},
        timeouts::{Limits, TimeoutStream},
    },
};
use body::{Answering, Timely};

/// A warning that keeps being true is repeated so often.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// The connections of all listeners.
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    limiter: Arc<ConnectionLimiter>,
    open: AtomicUsize,
    limits: Limits,
    epoch: Instant,
    ending: Arc<GracefulShutdown>,
    http: http1::Builder,
    config: config::Server,
}

impl Connections {
    /// At most `connections_max` of the public, see [`descriptors::connections_max`](crate::net::descriptors).
    pub(crate) fn new(config: &config::Server, connections_max: usize) -> Self {
        let mut http = http1::Builder::new();
        http.writev(false) // an answer is one small piece
            .max_buf_size(config.head_bytes_max)
            .max_headers(config.headers_max)
            .half_close(false);
        Self {
            shared: Arc::new(Shared {
                limiter: Arc::new(ConnectionLimiter::new(config, connections_max)),
                open: AtomicUsize::new(0),
                limits: Limits {
                    head: config.header_timeout,
                    idle: config.idle_timeout,
                    write: config.write_timeout,
                    write_bytes_min: config.write_bytes_min,
                },
                epoch: Instant::now(),
                ending: Arc::default(),
                http,
                config: config.clone(),
            }),
        }
    }

    /// Accepts until `stop`; a connection for which there is no place waits in the kernel's queue.
    pub(crate) fn accept(
        &self,
        listener: Listener,
        kind: ListenerKind,
        service: Service,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        let token = shared.ending.token(true);
        if let Err(error) = prepare(&listener.socket, shared.limits, shared.config.send_buffer_bytes) {
            tracing::warn!(%error, "cannot set the options of a listening socket");
        }
        async move {
            let accept = async {
                let mut failures = Seldom::default();
                loop {
                    let permit = shared.limiter.permit(kind).await;
                    match listener.socket.accept().await {
                        Ok((stream, peer)) => {
                            shared.clone().serve(stream, peer, kind, service.clone(), permit);
                        }
                        Err(error) => {
                            metrics::http_accept_failed();
                            // no descriptors left: connections that do nothing hold most of them
                            let asked_to_leave = shared.limiter.free_descriptors();
                            if let Some(unsaid) = failures.say() {
                                tracing::warn!(%error, asked_to_leave, unsaid, "cannot accept a connection");
                            }
                            sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
            };
            stop.run_until_cancelled(accept).await;
            if let Err(error) = shared.accept_the_last(listener, kind, &service) {
                tracing::debug!(%error, "no last connections were accepted");
            }
            drop(token);
        }
    }

    /// From now on each answer says `Connection: close`. Returns when no connection is left that was open before, or
    /// at the deadline.
    pub(crate) async fn wind_down(&self, deadline: Duration) {
        self.shared.ending.wind_down(deadline).await;
    }

    /// Lets requests finish and closes idle connections; what is open at the deadline is cut off.
    pub(crate) async fn finish(self, deadline: Duration) {
        if self.shared.ending.close(deadline).await.is_err() {
            let open = self.shared.open.load(Ordering::Relaxed);
            tracing::warn!(open, "connections did not finish in time and were cut off");
        }
    }
}

impl Shared {
    /// Whoever is in the queue of our own socket when it closes would see a reset. What waits in an inherited one
    /// is for whoever comes after us.
    fn accept_the_last(
        self: &Arc<Self>,
        listener: Listener,
        kind: ListenerKind,
        service: &Service,
    ) -> io::Result<()> {
        if listener.is_inherited {
            return Ok(());
        }
        let listener = listener.socket.into_std()?;
        while let Some(permit) = self.limiter.try_permit(kind)
            && let Ok((stream, peer)) = listener.accept()
        {
            stream.set_nonblocking(true)?;
            self.clone().serve(TcpStream::from_std(stream)?, peer, kind, service.clone(), permit);
        }
        Ok(())
    }

    fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        kind: ListenerKind,
        service: Service,
        permit: OwnedSemaphorePermit,
    ) {
        let phase = Arc::new(Phase::new(self.epoch));
        let Some(registered) = self.limiter.register(peer.ip(), kind, phase.clone(), permit) else {
            metrics::http_accept_refused();
            return;
        };
        metrics::http_accepted();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        metrics::http_connections(self.open.fetch_add(1, Ordering::Relaxed) + 1);
        // from now on, and not only once its task runs, the end waits for it
        let stay = Stay { registered, phase, token: self.ending.token(false) };
        let is_proxied = self.config.proxy_protocol && kind == ListenerKind::Public;
        #[expect(
            clippy::disallowed_methods,
            reason = "connections end by GracefulShutdown, their own time-outs, or the process"
        )]
        if is_proxied {
            tokio::spawn(self.ask_and_speak(stream, peer, service, stay));
        } else {
            tokio::spawn(self.speak(stream, peer, service, stay));
        }
    }

    /// As [`Self::speak`], once a trusted proxy has said for whom.
    async fn ask_and_speak(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        service: Service,
        stay: Stay,
    ) {
        match proxy_protocol::caller(&mut stream, peer, &self.config).await {
            Ok(client) => self.speak(stream, client, service, stay).await,
            Err(refusal) => {
                if let Some(reason) = refusal.reason() {
                    metrics::http_refused(reason);
                }
                metrics::http_connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
            }
        }
    }

    /// Speaks HTTP until the connection ends.
    async fn speak(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, service: Service, stay: Stay) {
        let Stay { registered, phase, token } = stay;
        let io = TokioIo::new(TimeoutStream::new(stream, phase.clone(), self.limits, self.ending.clone()));
        let answering = Arc::new((service, phase.clone(), self.ending.clone()));
        let body_timeout = self.config.body_timeout;
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let answering = answering.clone();
            async move {
                let (service, phase, ending) = &*answering;
                phase.set(Phase::ANSWERING);
                let timely = |body| Body::new(Timely::new(body, phase.clone(), body_timeout));
                let mut response = service.answer(Peer(peer), request, timely).await;
                if ending.is_winding_down() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                // one of a known length is made: it only has to be taken
                if response.body().size_hint().exact().is_some() {
                    phase.set(Phase::IDLE);
                    return Ok::<_, Infallible>(response);
                }
                Ok(response.map(|body| Body::new(Answering::new(body, phase.clone()))))
            }
        });
        let mut connection = self.http.serve_connection(io, service);
        let end = self.ending.run(&mut connection, &phase).await;
        drop(token);
        if let Err(error) = &end {
            note(error);
        }
        // hyper's own refusals are worth reading too; one who made room for others has nothing more to read
        if !phase.is_unwanted() && (end.is_ok() || end.is_err_and(|error| error.is_parse())) {
            let stream = connection.into_parts().io.into_inner().into_stream();
            linger(stream, self.config.linger).await;
        }
        drop(registered);
        metrics::http_connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// What a connection holds while it is open.
struct Stay {
    registered: ConnectionPermit,
    phase: Arc<Phase>,
    token: TaskTrackerToken,
}

/// Sets what the kernel does for the connections of a listener, which inherit it: it sends at once, keeps little
/// of an answer that nobody takes, and ends a connection whose client takes nothing, also when octo has closed it.
fn prepare(listener: &TcpListener, limits: Limits, send_buffer_bytes: usize) -> io::Result<()> {
    let socket = socket2::SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    if send_buffer_bytes > 0 {
        socket.set_send_buffer_size(send_buffer_bytes)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(limits.write))?;
    #[cfg(not(target_os = "linux"))]
    let _ = limits;
    Ok(())
}

/// Counts what hyper refused before a route was looked for. Time-outs are counted where they happen.
fn note(error: &hyper::Error) {
    let timed_out = std::error::Error::source(error)
        .and_then(|e| e.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::TimedOut);
    if timed_out {
        return;
    }
    if error.is_parse_too_large() {
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
/// `other`, and a test of tests/it/edge/bad_inputs.rs fails.
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

/// Says something again and again, but not all the time.
#[derive(Default)]
struct Seldom {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// `None`: not now; else how often it was not said.
    fn say(&mut self) -> Option<u64> {
        if self.said_at.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}
