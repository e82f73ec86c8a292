//! The accept loop: a cap on connections with a reserve, time-outs for heads, bodies, answers and idle
//! connections, and a bounded end.
//!
//! `axum::serve` has none of these.

mod body;
mod room;
mod timed;
mod turn;

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

use axum::body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, millis},
    http::{Peer, Service},
    metrics,
};
use body::Timely;
pub(super) use room::Hall;
use room::Room;
use timed::{Limits, Timed};
use turn::Turn;

/// A warning that keeps being true is repeated so often.
const WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// The connections of all listeners.
pub(super) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    graceful: std::sync::Mutex<Option<GracefulShutdown>>,
    room: Arc<Room>,
    open: AtomicUsize,
    limits: Limits,
    body_timeout: Duration,
    send_buffer_bytes: usize,
    epoch: Instant,
    stopping: CancellationToken,
    http: http1::Builder,
}

impl Connections {
    /// At most `connections_max` of the public, see [`descriptors::connections_max`](super::descriptors).
    pub(super) fn new(config: &config::Server, connections_max: usize) -> Self {
        let mut http = http1::Builder::new();
        http.writev(false) // an answer is one small piece
            .max_buf_size(config.head_bytes_max)
            .max_headers(config.headers_max)
            .half_close(false);
        Self {
            shared: Arc::new(Shared {
                graceful: std::sync::Mutex::new(Some(GracefulShutdown::new())),
                room: Arc::new(Room::new(config, connections_max)),
                open: AtomicUsize::new(0),
                limits: Limits {
                    head: millis(config.header_timeout_ms),
                    idle: millis(config.idle_timeout_ms),
                    write: millis(config.write_timeout_ms),
                    write_bytes_min: config.write_bytes_min,
                },
                body_timeout: millis(config.body_timeout_ms),
                send_buffer_bytes: config.send_buffer_bytes,
                epoch: Instant::now(),
                stopping: CancellationToken::new(),
                http,
            }),
        }
    }

    /// Accepts until `stop`; a connection for which there is no place waits in the kernel's queue.
    pub(super) fn accept(
        &self,
        listener: TcpListener,
        hall: Hall,
        service: Service,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = self.shared.clone();
        if let Err(error) = prepare(&listener, shared.limits, shared.send_buffer_bytes) {
            tracing::warn!(%error, "a listener does not take its options");
        }
        async move {
            let accept = async {
                let mut failures = Seldom::default();
                loop {
                    let permit = shared.room.permit(hall).await;
                    match listener.accept().await {
                        Ok((stream, peer)) => {
                            shared.clone().serve(stream, peer, hall, service.clone(), permit);
                        }
                        Err(error) => {
                            metrics::http_accept_failed();
                            // no descriptors left: connections that do nothing hold most of them
                            let asked_to_leave = shared.room.free_descriptors();
                            if let Some(unsaid) = failures.say() {
                                tracing::warn!(%error, asked_to_leave, unsaid, "cannot accept a connection");
                            }
                            sleep(Duration::from_millis(50)).await;
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
        hall: Hall,
        service: Service,
        permit: OwnedSemaphorePermit,
    ) {
        let turn = Arc::new(Turn::new(self.epoch));
        let Some(seat) = self.room.seat(peer.ip(), hall, turn.clone(), permit) else {
            metrics::http_accept_refused();
            return;
        };
        metrics::http_accepted();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let io = TokioIo::new(Timed::new(stream, turn.clone(), self.limits, &self.stopping));
        let (service, body_timeout) = (Arc::new((service, turn)), self.body_timeout);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let service = service.clone();
            async move {
                let (service, turn) = &*service;
                turn.set(Turn::ANSWERING);
                let timely = |body| Body::new(Timely::new(body, turn.clone(), body_timeout));
                let response = service.answer(Peer(peer), request, timely).await;
                turn.set(Turn::IDLE);
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
            drop(seat);
            metrics::http_connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
        });
    }
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
    if error.is_parse() {
        metrics::http_refused(if error.is_parse_too_large() { "too_large" } else { "parse" });
    }
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
