//! A guard around a client's connection: plain HTTP/2 in, plain HTTP/2 out, with two things done that `h2` can't do.
//!
//! - Requests whose `:authority` is malformed, such as the `http://127.0.0.1:2379` of etcdctl 3.4, are repaired; `h2` would
//!   refuse them ([`inbound`]). The first header block of a connection decides: if it is fine, bytes pass untouched, are
//!   not copied, and cost a look at each frame's head.
//! - Clients that ping too often are sent away with GOAWAY `too_many_pings`, as by etcd ([`pings`]).
//!
//! Bytes that are not HTTP/2 pass untouched. Called by `listen`.

mod authority;
mod frame;
mod hpack;
mod inbound;
mod pings;
#[cfg(test)]
mod tests;

use bytes::{Buf, BytesMut};
use frame::{GOAWAY, HEAD_BYTES, Head, Walker};
use inbound::Inbound;
use pings::Pings;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the client is told, as by grpc-go.
const TOO_MANY_PINGS: &[u8; 14] = b"too_many_pings";
const ENHANCE_YOUR_CALM: u32 = 11;
/// Last stream and error code.
const GOAWAY_BYTES: usize = 8 + TOO_MANY_PINGS.len();
/// Reads of a client's last bytes, so that closing does not reset the connection under our GOAWAY.
const DRAIN_READS: usize = 16;

/// A guarded connection. See the module.
#[derive(Debug)]
pub struct Guard<S> {
    stream: S,
    inbound: Inbound,
    /// Bytes that the client sent and that were judged; empty for good once the connection is left alone.
    judged: BytesMut,
    outbound: Walker,
    pings: Pings,
    goodbye: Option<Goodbye>,
}

/// A GOAWAY on its way, after which the connection ends.
#[derive(Debug)]
struct Goodbye {
    frame: [u8; HEAD_BYTES + GOAWAY_BYTES],
    sent: usize,
}

impl Goodbye {
    fn new(last_stream: u32) -> Goodbye {
        let mut frame = [0; HEAD_BYTES + GOAWAY_BYTES];
        frame[..HEAD_BYTES].copy_from_slice(Head::new(GOAWAY, 0, 0, GOAWAY_BYTES).bytes());
        frame[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&last_stream.to_be_bytes());
        frame[HEAD_BYTES + 4..HEAD_BYTES + 8].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        frame[HEAD_BYTES + 8..].copy_from_slice(TOO_MANY_PINGS);
        Goodbye { frame, sent: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards `stream`, whose client may ping every `ping_interval` while it has streams open.
    pub fn new(stream: S, ping_interval: Duration) -> Guard<S> {
        Guard {
            stream,
            inbound: Inbound::default(),
            judged: BytesMut::new(),
            outbound: Walker::default(),
            pings: Pings::new(ping_interval),
            goodbye: None,
        }
    }

    fn take_judged(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.judged.len().min(buf.remaining());
        buf.put_slice(&self.judged[..len]);
        self.judged.advance(len);
        if self.judged.is_empty() && self.inbound.is_transparent() {
            self.judged = BytesMut::new(); // its memory is not needed again
        }
    }

    /// Sends the GOAWAY and closes; ready with the error that ends the connection.
    /// While a frame of the server is unfinished, the writer comes first, and wakes this task when it has ended it.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.try_goodbye(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "too many pings from the client",
            )),
            Poll::Ready(Err(error)) => Poll::Ready(error),
        }
    }

    fn try_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(goodbye) = &mut self.goodbye else { return Poll::Ready(Ok(())) };
        if self.outbound.unfinished().is_some() {
            return Poll::Pending;
        }
        while goodbye.sent < goodbye.frame.len() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &goodbye.frame[goodbye.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            goodbye.sent += sent;
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let mut scrap = [0; 4096];
        for _ in 0..DRAIN_READS {
            let mut buf = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Follows what was written.
    fn wrote(&mut self, cx: &mut Context<'_>, data: &[u8]) {
        self.outbound.heads(data, |head| self.pings.server_sent(head));
        if self.goodbye.is_some() && self.outbound.unfinished().is_none() {
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while buf.remaining() > 0 {
            if !this.judged.is_empty() {
                this.take_judged(buf);
                return Poll::Ready(Ok(()));
            }
            if this.goodbye.is_some() {
                return this.poll_goodbye(cx).map(Err);
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let fresh = &buf.filled()[before..];
            let mut done = true;
            if this.inbound.is_transparent() {
                this.inbound.watch(fresh, &mut this.pings);
            } else if fresh.is_empty() {
                this.inbound.release(&mut this.judged);
                done = this.judged.is_empty();
            } else {
                this.inbound.filter(fresh, &mut this.judged, &mut this.pings);
                buf.set_filled(before);
                done = false;
            }
            if this.pings.too_many() {
                buf.set_filled(before);
                this.judged = BytesMut::new();
                this.goodbye = Some(Goodbye::new(this.pings.last_stream()));
            } else if done {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut data = data;
        if this.goodbye.is_some() {
            let Some(unfinished) = this.outbound.unfinished() else { return this.poll_goodbye(cx).map(Err) };
            data = &data[..unfinished.min(data.len())];
        }
        let len = ready!(Pin::new(&mut this.stream).poll_write(cx, data))?;
        this.wrote(cx, &data[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.goodbye.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let this = self.get_mut();
        let len = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        let mut rest = len;
        for slice in slices {
            let part = rest.min(slice.len());
            this.wrote(cx, &slice[..part]);
            rest -= part;
            if rest == 0 {
                break;
            }
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
