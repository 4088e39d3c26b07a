//! One client connection: how HTTP/2 is set up on it, and its end. Called by `listen`, for TCP, Unix and TLS alike.

use super::caller::CommonName;
use super::coalesce::Coalesced;
use super::grpc::Front;
use super::guard::Guard;
use crate::shutdown::Shutdown;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

/// HTTP/2 windows: large enough that one connection fills a fast link, small enough to bound what a client can park.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of a stream's answer that wait for a slow client inside the HTTP/2 layer.
const SEND_BUFFER: usize = 256 << 10;
/// Frames of this size make large answers cheap.
const FRAME_SIZE: u32 = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: u32 = 64 << 10;

/// Settings of connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Streams that one connection may have open.
    pub streams_max: u32,
    /// Idle time after which the server pings; `None`: never.
    pub ping_interval: Option<Duration>,
    /// How long the answer may take.
    pub ping_timeout: Duration,
    /// Least time between a client's pings.
    pub min_ping_time: Duration,
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

/// Puts what is known of the client into each request.
#[derive(Clone)]
struct Named<S> {
    service: S,
    caller: Option<CommonName>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> S::Future {
        if let Some(caller) = &self.caller {
            request.extensions_mut().insert(caller.clone());
        }
        self.service.call(request)
    }
}

/// Serves a connection until it ends or `shutdown` is requested.
pub async fn serve<S>(stream: S, accepted: Accepted, front: Front, options: &Options, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = Named { service: front, caller: accepted.caller };
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
    let stream = TokioIo::new(Guard::new(Coalesced::new(stream), options.min_ping_time));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}
