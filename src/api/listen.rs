//! Client connections: accepted in one place, served on one of several single-threaded runtimes.
//!
//! A connection stays on its thread, so that its requests wake nobody else. Long work goes to the runtime's blocking pool.

use super::coalesce::Coalesced;
use super::grpc::Front;
use super::guard::Guard;
use crate::shutdown::Shutdown;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// HTTP/2 windows: large enough that one connection fills a fast link, small enough to bound what a client can park.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of a stream's answer that wait for a slow client inside the HTTP/2 layer.
const SEND_BUFFER: usize = 256 << 10;
/// Frames of this size make large answers cheap.
const FRAME_SIZE: u32 = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: u32 = 64 << 10;
/// Pause after `accept` failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

/// Open connections, for a stop that waits for them.
#[derive(Clone)]
pub struct Connections {
    open: Arc<AtomicUsize>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { open: Arc::default(), changed: Arc::new(watch::channel(()).0) }
    }
}

impl Connections {
    /// Waits until none is open, for `grace` at most; returns how many are left.
    pub async fn drained(&self, grace: Duration) -> usize {
        let mut changed = self.changed.subscribe();
        let empty =
            async { while self.open.load(Ordering::SeqCst) > 0 && changed.changed().await.is_ok() {} };
        // Whoever is not done by then is cut off.
        let _ = tokio::time::timeout(grace, empty).await;
        self.open.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Open {
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(self.clone())
    }
}

struct Open(Connections);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.send_replace(());
    }
}

/// Accepts connections until `shutdown`, handing them to `runtimes` in turn.
pub async fn accept(
    listener: TcpListener,
    front: Front,
    options: Options,
    runtimes: Vec<Handle>,
    connections: Connections,
    shutdown: Shutdown,
) {
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => return,
        };
        match accepted.and_then(|(stream, _)| prepare(stream)) {
            Ok(stream) => {
                let (front, options, shutdown) = (front.clone(), options.clone(), shutdown.clone());
                let open = connections.enter();
                runtimes[turn % runtimes.len()].spawn(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => serve(stream, front, &options, shutdown).await,
                        Err(error) => tracing::warn!(%error, "could not serve a connection"),
                    }
                    drop(open);
                });
                turn += 1;
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn prepare(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

async fn serve(stream: TcpStream, front: Front, options: &Options, shutdown: Shutdown) {
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
