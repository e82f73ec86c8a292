//! How connections end without a request lost in between.
//!
//! A server that closes a kept-alive connection may do so in the very moment in which the next request is on its way;
//! its sender sees a connection that ends without an answer. So a stop has two steps. First octo *winds down*: it
//! goes on accepting and answering, and each answer says `Connection: close`, so that clients let go of their
//! connections at a time of their own choosing. Then it *closes* what is left: those that nobody has used for the
//! whole first step, after one last look at the socket itself.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::net::phase::Phase;

/// How far the stop has come, and who is still here.
#[derive(Debug, Default)]
pub(super) struct GracefulShutdown {
    is_winding_down: AtomicBool,
    is_closing: AtomicBool,
    closing: CancellationToken,
    /// Connections from before the winding-down, whose clients may count on them.
    elders: TaskTracker,
    /// Younger ones, which get one answer each, and the accept loops.
    others: TaskTracker,
}

impl GracefulShutdown {
    /// Held by a connection for as long as it has something to say, and by an accept loop.
    pub(super) fn token(&self, is_accepting: bool) -> TaskTrackerToken {
        if is_accepting || self.is_winding_down() { self.others.token() } else { self.elders.token() }
    }

    /// Whether an answer is the last one of its connection.
    pub(super) fn is_winding_down(&self) -> bool {
        self.is_winding_down.load(Ordering::Relaxed)
    }

    /// Whether what waits on a connection now is the last that is waited for.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    /// From now on each answer is the last one of its connection. Returns when no connection is left that could
    /// have counted on another one, or at the deadline.
    pub(super) async fn wind_down(&self, deadline: Duration) {
        self.is_winding_down.store(true, Ordering::Relaxed);
        self.elders.close();
        let _ = timeout(deadline, self.elders.wait()).await; // the rest is closed
    }

    /// Ends what is idle and waits for the rest; `Err` when some are left at the deadline.
    pub(super) async fn close(&self, deadline: Duration) -> Result<(), tokio::time::error::Elapsed> {
        self.is_closing.store(true, Ordering::Relaxed);
        self.closing.cancel();
        self.elders.close();
        self.others.close();
        let all = async { tokio::join!(self.elders.wait(), self.others.wait()) };
        timeout(deadline, all).await.map(drop)
    }

    /// Runs a connection to its end.
    pub(super) async fn run<C: Closable>(&self, connection: &mut C, phase: &Phase) -> C::Output {
        let mut closing = pin!(self.closing.cancelled());
        let mut is_heard = false;
        poll_fn(|cx| {
            if let Poll::Ready(end) = Pin::new(&mut *connection).poll(cx) {
                return Poll::Ready(end);
            }
            // asked once, to be woken, and then when there is something to hear: it takes a lock that all
            // connections share
            if is_heard && !self.is_closing() {
                return Poll::Pending;
            }
            is_heard = true;
            let is_closing = closing.as_mut().poll(cx).is_ready();
            // a head that is owed has a time-out of its own; the poll above was the last look at an idle socket
            if is_closing && !phase.is(Phase::HEAD) {
                Pin::new(&mut *connection).close();
                return Pin::new(&mut *connection).poll(cx);
            }
            Poll::Pending
        })
        .await
    }
}

/// A connection that can be told to end when it has nothing to do.
pub(super) trait Closable: Future + Unpin {
    fn close(self: Pin<&mut Self>);
}

impl<I, S> Closable for hyper::server::conn::http1::Connection<I, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S::ResBody: 'static,
    <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Self: Future + Unpin,
{
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Ends our side and reads on until the other side ends too: bytes that nobody has read turn a close into a reset,
/// which takes the last answer along if the client has not read it yet.
pub(super) async fn linger(mut stream: TcpStream, limit: Duration) {
    let has_ended = stream.try_read(&mut [0; 64]).is_ok_and(|length| length == 0);
    if has_ended || stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = vec![0; 4096];
    let read = async { while matches!(stream.read(&mut rest).await, Ok(1..)) {} };
    let _ = timeout(limit, read).await; // long enough for those who listen
}
