//! One client connection: which HTTP it speaks, how that is set up on it, and its end. Called by `listen`, for TCP, Unix and TLS alike.

use super::caller::CommonName;
use super::coalesce::Coalesced;
use super::detect::{self, Prefixed};
use super::door::{Door, Requests};
use super::guard::Guard;
use crate::metrics::traffic::{Counted, Tally};
use crate::shutdown::Shutdown;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// HTTP/2 windows: large enough that one connection fills a fast link, small enough to bound what a client can park.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of a stream's answer that wait for a slow client inside the HTTP/2 layer.
const SEND_BUFFER: usize = 256 << 10;
/// Frames of this size make large answers cheap.
const FRAME_SIZE: u32 = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: u32 = 64 << 10;
/// How long the head of a request may take, or the wait for the next one.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// Settings of connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Streams that one connection may have open.
    pub streams_max: u32,
    /// Idle time after which the server pings; `None`: never.
    pub ping_interval: Option<Duration>,
    /// How long the answer may take.
    pub ping_timeout: Duration,
    /// Least time between a client's pings; `None`: whoever connects is one of us, and needs no guard.
    pub min_ping_time: Option<Duration>,
}

/// What is served on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serves {
    /// gRPC and HTTP, as is usual for clients.
    All,
    /// gRPC alone: there are other listeners for HTTP.
    GrpcOnly,
    /// HTTP alone.
    HttpOnly,
    /// Metrics and health.
    Metrics,
    /// Other members.
    Peer,
}

/// How it is known which HTTP a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// By its first bytes: there is no TLS.
    Unknown,
    /// TLS without ALPN, or with `http/1.1`.
    Http1,
    /// TLS with `h2`.
    Http2,
}

/// What `listen` knows of a connection.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What its listener serves.
    pub serves: Serves,
    /// What it speaks.
    pub protocol: Protocol,
    /// Who is at the other end, if a certificate says so.
    pub caller: Option<CommonName>,
}

impl Accepted {
    /// Whether it came over TLS.
    pub fn is_secure(&self) -> bool {
        self.protocol != Protocol::Unknown
    }
}

/// Serves a connection until it ends or `shutdown` is requested.
pub async fn serve<S>(stream: S, accepted: Accepted, door: Door, options: &Options, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (is_http2, stream) = match accepted.protocol {
        Protocol::Http1 => (false, Prefixed::untouched(stream)),
        Protocol::Http2 => (true, Prefixed::untouched(stream)),
        Protocol::Unknown => {
            let detected = tokio::select! {
                detected = tokio::time::timeout(HEADER_TIMEOUT, detect::is_http2(stream)) => detected,
                () = shutdown.requested() => return,
            };
            let Ok(Ok(detected)) = detected else { return };
            detected
        }
    };
    let result = if is_http2 {
        serve_http2(stream, door.for_connection(accepted), options, shutdown).await
    } else if door.takes_http1() {
        Box::pin(serve_http1(stream, door.for_connection(accepted), shutdown)).await
    } else {
        return;
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn serve_http2<S>(
    stream: S,
    requests: Requests,
    options: &Options,
    shutdown: Shutdown,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(options.streams_max)
        .keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout);
    let stream = Coalesced::new(stream);
    match options.min_ping_time {
        Some(least) => {
            let stream = TokioIo::new(Guard::new(stream, least));
            until_shutdown(builder.serve_connection(stream, requests), shutdown).await
        }
        None => {
            let tally = Arc::new(Tally::default());
            let stream = TokioIo::new(Counted::new(stream, Arc::clone(&tally)));
            until_shutdown(builder.serve_connection(stream, requests.counted(tally)), shutdown).await
        }
    }
}

async fn until_shutdown<S>(
    connection: http2::Connection<TokioIo<S>, Requests, TokioExecutor>,
    shutdown: Shutdown,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn serve_http1<S>(stream: S, requests: Requests, shutdown: Shutdown) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADERS_MAX as usize)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), requests)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
