//! Bytes of connections between members, counted where they are read and written: HTTP/2's own are among them, those of TLS
//! are not. A member that is called learns only from the first request who calls; bytes before that are kept until then.

use super::peers::Peer;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whose connection it is, and what was counted before that was known.
#[derive(Default)]
pub struct Tally {
    peer: OnceLock<Arc<Peer>>,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Tally {
    /// For a connection to a peer.
    pub fn of(peer: Arc<Peer>) -> Tally {
        Tally { peer: peer.into(), ..Tally::default() }
    }

    /// Whether it is known who is at the other end.
    pub fn is_known(&self) -> bool {
        self.peer.get().is_some()
    }

    /// The peer is at the other end. The first word counts.
    pub fn belongs_to(&self, peer: Arc<Peer>) {
        let peer = self.peer.get_or_init(|| peer);
        peer.sent_bytes.inc_by(self.sent.swap(0, Ordering::Relaxed));
        peer.received_bytes.inc_by(self.received.swap(0, Ordering::Relaxed));
    }

    fn sends(&self, bytes: usize) {
        match self.peer.get() {
            Some(peer) => peer.sent_bytes.inc_by(bytes as u64),
            None => drop(self.sent.fetch_add(bytes as u64, Ordering::Relaxed)),
        }
    }

    fn receives(&self, bytes: usize) {
        match self.peer.get() {
            Some(peer) => peer.received_bytes.inc_by(bytes as u64),
            None => drop(self.received.fetch_add(bytes as u64, Ordering::Relaxed)),
        }
    }

    fn breaks(&self) {
        if let Some(peer) = self.peer.get() {
            peer.received_failures.inc();
        }
    }
}

/// A stream whose bytes are counted.
pub struct Counted<S> {
    stream: S,
    tally: Arc<Tally>,
}

impl<S> Counted<S> {
    /// Counts what goes through `stream`.
    pub fn new(stream: S, tally: Arc<Tally>) -> Counted<S> {
        Counted { stream, tally }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.tally.sends(*bytes);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &read {
            Poll::Ready(Ok(())) => self.tally.receives(buffer.filled().len() - before),
            Poll::Ready(Err(_)) => self.tally.breaks(),
            Poll::Pending => {}
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::METRICS;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_are_counted_from_the_first_on() {
        let (here, mut there) = tokio::io::duplex(64);
        let tally = Arc::new(Tally::default());
        let mut here = Counted::new(here, Arc::clone(&tally));
        here.write_all(b"12345").await.unwrap();
        there.write_all(b"123").await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(here.read(&mut buffer).await.unwrap(), 3);
        let peer = METRICS.peers.of(0xfffe_0000_0000_0001);
        let seen = || (peer.sent_bytes.get(), peer.received_bytes.get());
        assert!(!tally.is_known() && seen() == (0, 0));
        tally.belongs_to(Arc::clone(&peer));
        assert!(tally.is_known() && seen() == (5, 3));
        tally.belongs_to(METRICS.peers.of(0xfffe_0000_0000_0002));
        assert_eq!(here.write_vectored(&[IoSlice::new(b"67")]).await.unwrap(), 2);
        there.write_all(b"4567").await.unwrap();
        assert_eq!(here.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(seen(), (7, 7));
    }
}
