//! Answers in pieces: hyper copies a whole piece of a body into a connection's buffer, and asks for the next one when
//! there is room. A client that does not read holds so much of our memory, and not a copy of the whole answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

/// Longest piece, in bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The same body, in pieces if it is longer than one.
pub(super) fn in_pieces(body: Body) -> Body {
    let is_short = body.size_hint().upper().is_some_and(|bytes| bytes <= PIECE_BYTES_MAX as u64);
    if is_short { body } else { Body::new(Pieces { body, rest: Bytes::new() }) }
}

struct Pieces {
    body: Body,
    /// Of the frame that is being cut up.
    rest: Bytes,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_long_answer_goes_in_pieces_and_keeps_its_length_and_bytes() {
        for (length, pieces) in [(1, 1), (PIECE_BYTES_MAX, 1), (PIECE_BYTES_MAX + 1, 2), (100_000, 7)] {
            let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut body = in_pieces(Body::from(bytes.clone()));
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let (mut got, mut frames) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= PIECE_BYTES_MAX);
                got.extend_from_slice(&data);
                frames += 1;
                assert_eq!(body.size_hint().exact(), Some((length - got.len()) as u64));
            }
            assert!(got == bytes && frames == pieces && body.is_end_stream(), "{length}: {frames} pieces");
        }
    }
}
