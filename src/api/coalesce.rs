//! A socket that writes once for many frames.
//!
//! The HTTP/2 layer writes and flushes every frame above a few hundred bytes by itself, which for a hundred watchers on
//! a connection means a hundred system calls. Here small writes are gathered, and a flush is put off until the connection's task is
//! polled next, which it asks for at once: by then its other streams have had their turn. Large writes go straight through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes gathered at most.
const GATHERED_MAX: usize = 64 << 10;
/// Writes of this size are not worth copying.
const LARGE: usize = 16 << 10;

/// See the module. Relies on being polled for reading whenever its task is woken, as HTTP/2 connections do.
pub struct Coalesced<S> {
    socket: S,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that are written.
    written: usize,
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// Wraps a socket.
    pub fn new(socket: S) -> Coalesced<S> {
        Coalesced { socket, gathered: Vec::new(), written: 0 }
    }

    /// Writes out what was gathered.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.socket).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Whether `len` more bytes should go past the buffer; waits for room otherwise.
    fn poll_room(&mut self, context: &mut Context<'_>, len: usize) -> Poll<io::Result<bool>> {
        if len >= LARGE || self.gathered.len() + len > GATHERED_MAX {
            ready!(self.poll_drain(context))?;
        }
        Poll::Ready(Ok(len >= LARGE))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The flush that was put off. When the socket is full, it wakes us again. TLS keeps bytes of its own.
        if !self.gathered.is_empty()
            && let Poll::Ready(drained) = self.poll_drain(context)
        {
            drained?;
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.socket).poll_flush(context) {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.poll_room(context, bytes.len()))? {
            return Pin::new(&mut self.socket).poll_write(context, bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|s| s.len()).sum();
        if ready!(self.poll_room(context, len))? {
            return Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        }
        slices.iter().for_each(|s| self.gathered.extend_from_slice(s));
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            return Pin::new(&mut self.socket).poll_flush(context);
        }
        context.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_keep_their_order_through_small_and_large_writes() {
        let (near, mut far) = tokio::io::duplex(10_000);
        let mut sent = Vec::new();
        let mut near = Coalesced::new(near);
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.map(|_| got)
        });
        for n in 0..300u32 {
            let piece = vec![n as u8; (n as usize * 131) % 40_000];
            near.write_all(&piece).await.unwrap();
            near.flush().await.unwrap();
            sent.extend(piece);
        }
        near.shutdown().await.unwrap();
        drop(near);
        assert_eq!(reading.await.unwrap().unwrap(), sent);
    }
}
