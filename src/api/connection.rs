//! One client connection: how HTTP/2 is set up on it, and its end.

use super::coalesce::Coalesced;
use super::grpc::Front;
use super::guard::Guard;
use crate::shutdown::Shutdown;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::time::Duration;
use tokio::net::TcpStream;

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

/// Serves a connection until it ends or `shutdown` is requested.
pub async fn serve(stream: TcpStream, front: Front, options: &Options, shutdown: Shutdown) {
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
    let connection = builder.serve_connection(stream, TowerToHyperService::new(front));
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
