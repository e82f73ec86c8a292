//! A request's body that must be complete in time, however it comes and whoever reads it; and an answer that is made while it is
//! sent.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    metrics::{self, Refused},
    net::phase::Phase,
};

/// Ends with an [`io::ErrorKind::TimedOut`] once its time is over, which begins when it is first asked for.
pub(super) struct Timely {
    body: Incoming,
    phase: Arc<Phase>,
    limit: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Timely {
    pub(super) fn new(body: Incoming, phase: Arc<Phase>, limit: Duration) -> Self {
        Self { body, phase, limit, deadline: None, timer: None }
    }
}

impl Body for Timely {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let deadline = *this.deadline.get_or_insert_with(|| Instant::now() + this.limit);
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let is_late = match &polled {
            Poll::Ready(Some(Ok(_))) => deadline <= Instant::now(), // drip by drip
            Poll::Ready(_) => false,
            // a body that comes with its head, as events do, needs no timer
            Poll::Pending => {
                if !this.phase.is(Phase::BODY) {
                    this.phase.set(Phase::BODY);
                }
                let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                timer.as_mut().poll(cx).is_ready()
            }
        };
        if is_late {
            metrics::http_refused(Refused::BodyTimeout);
        } else if polled.is_pending() {
            return Poll::Pending;
        }
        if this.phase.is(Phase::BODY) {
            this.phase.set(Phase::ANSWERING);
        }
        if is_late {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the body took too long");
            return Poll::Ready(Some(Err(error.into())));
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that is made while it is sent, however long that takes: its connection is not idle before its end.
pub(super) struct Answering {
    body: axum::body::Body,
    phase: Arc<Phase>,
}

impl Answering {
    pub(super) fn new(body: axum::body::Body, phase: Arc<Phase>) -> Self {
        Self { body, phase }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.phase.set(Phase::IDLE);
    }
}
