//! Sees whether the head of a request has a `Content-Length`.
//!
//! hyper follows RFC 9112 section 6.3: with `Transfer-Encoding` beside it, `Content-Length` is dropped and the
//! connection ends with the answer. That is safe, but whoever handles the request cannot see that there were two
//! lengths, and behind a proxy such a request is refused, not guessed at. So the bytes that hyper reads are watched.
//! A head that begins with `G` is `GET`, which takes no chunked body anyway: it costs one comparison.
//!
//! A request that came behind another in one packet (pipelined) was not watched from its beginning: with chunks it
//! counts as ambiguous too. No client that pipelines sends chunks.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use hyper::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const NAME: &[u8] = b"content-length:";

/// What was seen of the current head; shared by the stream and the service of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing(AtomicU8);

impl Framing {
    /// A head is to come.
    const FRESH: u8 = 0;
    /// It is `GET`.
    const SKIPPED: u8 = 1;
    /// No length so far.
    const HEAD: u8 = 2;
    /// It has a `Content-Length`.
    const LENGTH: u8 = 3;
    /// It ended without.
    const OVER: u8 = 4;

    /// Whether the head that hyper just took had both lengths, or may have had; asked once a request.
    pub(crate) fn is_ambiguous(&self, headers: &HeaderMap) -> bool {
        let seen = self.0.swap(Self::FRESH, Ordering::Relaxed);
        !matches!(seen, Self::OVER | Self::SKIPPED) && headers.contains_key(header::TRANSFER_ENCODING)
    }

    /// The request was answered: what comes next is a head.
    pub(crate) fn answered(&self) {
        self.0.store(Self::FRESH, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }
}

/// Where a head is, byte by byte: bytes of this line, how many of them are those of [`NAME`], lines before it.
#[derive(Debug, Default)]
struct Place {
    line: usize,
    matched: usize,
    lines: usize,
}

impl Place {
    /// What the head turned out to be, if these bytes tell.
    fn pass(&mut self, bytes: &[u8]) -> Option<u8> {
        for byte in bytes {
            match byte {
                b'\n' if self.line == 0 && self.lines > 0 => return Some(Framing::OVER),
                b'\n' => {
                    // empty lines before a head are allowed
                    self.lines += usize::from(self.line > 0);
                    (self.line, self.matched) = (0, 0);
                }
                b'\r' => {}
                _ => {
                    if self.matched == self.line && NAME.get(self.line) == Some(&byte.to_ascii_lowercase()) {
                        self.matched += 1;
                    }
                    self.line += 1;
                    if self.matched == NAME.len() {
                        return Some(Framing::LENGTH);
                    }
                }
            }
        }
        None
    }
}

/// A stream whose heads are watched.
pub(crate) struct Watched<S> {
    stream: S,
    framing: Arc<Framing>,
    place: Place,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, framing: Arc<Framing>) -> Self {
        Self { stream, framing, place: Place::default() }
    }

    /// The stream itself, once no more heads are awaited.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    fn see(&mut self, bytes: &[u8]) {
        match (self.framing.get(), bytes) {
            (_, []) => return,
            (Framing::FRESH, [b'G', ..]) => return self.framing.set(Framing::SKIPPED),
            (Framing::FRESH, _) => {
                self.place = Place::default();
                self.framing.set(Framing::HEAD);
            }
            (Framing::HEAD, _) => {}
            _ => return,
        }
        if let Some(seen) = self.place.pass(bytes) {
            self.framing.set(seen);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.see(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a head that arrives in these pieces is seen to have two lengths.
    fn is_seen(pieces: &[&str]) -> bool {
        let framing = Arc::new(Framing::default());
        let mut watched = Watched::new((), framing.clone());
        for piece in pieces {
            watched.see(piece.as_bytes());
        }
        let chunked = (header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"));
        framing.is_ambiguous(&HeaderMap::from_iter([chunked]))
    }

    #[test]
    fn two_lengths_are_seen_however_the_head_is_cut() {
        let head =
            "\r\nPOST /event HTTP/1.1\r\nHost: t\r\ncOnTeNt-lengTH: 2\r\nTransfer-Encoding: chunked\r\n\r\n";
        for cut in 0..head.len() {
            assert!(is_seen(&[&head[..cut], &head[cut..]]), "cut at {cut}");
        }
        assert!(is_seen(&head.split("").collect::<Vec<_>>()));
    }

    #[test]
    fn what_only_looks_like_a_length_is_none() {
        for head in [
            "POST / HTTP/1.1\r\nHost: t\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: t\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: t\r\n\r\nContent-Length: 2\r\n",
            "POST / HTTP/1.1\r\nX-Content-Length: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length-X: 2\r\n\r\n",
            "POST /content-length: HTTP/1.1\n\n\nContent-Length: 2\n",
        ] {
            assert!(!is_seen(&[head]), "{head}");
        }
    }

    #[test]
    fn each_head_is_seen_for_itself() {
        let framing = Arc::new(Framing::default());
        let mut watched = Watched::new((), framing.clone());
        let chunked =
            HeaderMap::from_iter([(header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"))]);
        watched.see(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{");
        assert!(!framing.is_ambiguous(&HeaderMap::new()));
        watched.see(b"}");
        framing.answered();
        watched.see(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(!framing.is_ambiguous(&chunked));
        framing.answered();
        watched.see(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n");
        assert!(framing.is_ambiguous(&chunked));
        framing.answered();
        watched.see(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\n");
        assert!(!framing.is_ambiguous(&chunked));
        framing.answered();
        assert!(framing.is_ambiguous(&chunked), "its beginning was not watched");
    }
}
