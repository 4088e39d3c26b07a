//! Which HTTP a connection without TLS speaks: HTTP/2 begins with a preface that no request of HTTP/1 can be.
//! Called by `connection`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is certain whether the preface comes; returns that, and the stream with all of its bytes. An error if
/// the stream ends before.
pub async fn is_http2<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(bool, Prefixed<S>)> {
    let (mut read, mut len) = ([0; PREFACE.len()], 0);
    while len < PREFACE.len() && read[..len] == PREFACE[..len] {
        match stream.read(&mut read[len..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => len += n,
        }
    }
    Ok((read == *PREFACE, Prefixed { read, at: 0, len, stream }))
}

/// A stream of which some bytes have been read.
pub struct Prefixed<S> {
    read: [u8; PREFACE.len()],
    at: usize,
    len: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    /// A stream of which nothing has been read.
    pub fn untouched(stream: S) -> Prefixed<S> {
        Prefixed { read: [0; PREFACE.len()], at: 0, len: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at == self.len {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let step = (self.len - self.at).min(buffer.remaining());
        buffer.put_slice(&self.read[self.at..self.at + step]);
        self.at += step;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
    use tokio::io::AsyncWriteExt;

    async fn detect(pieces: &[&[u8]]) -> io::Result<(bool, Vec<u8>)> {
        let (mut near, far) = tokio::io::duplex(1);
        let bytes = pieces.concat();
        let writing = async move { near.write_all(&bytes).await };
        let reading = async {
            let (is_http2, mut stream) = is_http2(far).await?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            Ok((is_http2, all))
        };
        let (_, read) = tokio::join!(writing, reading);
        read
    }

    #[tokio::test]
    async fn the_preface_tells_and_no_byte_is_lost() {
        let get: &[u8] = b"GET /health HTTP/1.1\r\n\r\n";
        assert_eq!(detect(&[PREFACE, b"rest"]).await.unwrap(), (true, [&PREFACE[..], b"rest"].concat()));
        assert_eq!(detect(&[get]).await.unwrap(), (false, get.to_vec()));
        assert_eq!(detect(&[b"PRI * HTTP/1.1\r\n"]).await.unwrap(), (false, b"PRI * HTTP/1.1\r\n".to_vec()));
        assert_eq!(detect(&[b"PRI *"]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
