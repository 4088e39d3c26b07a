//! Listeners: all of them are bound before anyone is served, and accept in one place; connections are served on one of
//! several single-threaded runtimes.
//!
//! A connection stays on its thread, so that its requests wake nobody else. Long work goes to the runtime's blocking
//! pool. Handshakes happen there as well: nothing but accepting holds up the next client.

mod bind;
mod socket;

pub use bind::{Error, Listener, bind};

use super::caller::CommonName;
use super::connection::{self, Accepted, Protocol};
use super::door::Door;
use crate::shutdown::Shutdown;
use crate::tls;
use bind::Entry;
use socket::{Remote, Stream};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Pause after `accept` failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take to its first byte where that byte tells TLS from plain text.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 22;

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

/// What connections are served with.
#[derive(Clone)]
pub struct Service {
    /// What answers requests.
    pub door: Door,
    /// Settings of connections.
    pub options: connection::Options,
    /// When to end.
    pub shutdown: Shutdown,
}

/// Accepts connections at `listener` until the service ends, handing them to `runtimes` in turn. While all seats are
/// taken, nobody is accepted: clients wait in the listener's queue.
pub async fn accept(listener: Listener, service: Service, runtimes: Vec<Handle>, connections: Connections) {
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = service.shutdown.requested() => return,
        };
        match accepted {
            Ok((stream, remote, seat)) => {
                let (entry, service) = (listener.entry.clone(), service.clone());
                let open = connections.enter();
                runtimes[turn % runtimes.len()].spawn(async move {
                    serve(stream, remote, entry, service).await;
                    drop((open, seat));
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

/// One connection, from its first byte to its end.
async fn serve(stream: socket::Accepted, remote: Remote, entry: Entry, service: Service) {
    let stopped = service.shutdown.clone();
    let greeted = tokio::select! {
        greeted = greet(stream, &remote, &entry) => greeted,
        () = stopped.requested() => return,
    };
    let Service { door, options, shutdown } = service;
    let accepted = |protocol, caller| Accepted { serves: entry.serves, protocol, caller };
    match greeted {
        Ok(Greeted::Plain(stream)) => {
            let accepted = accepted(Protocol::Unknown, None);
            connection::serve(stream, accepted, door, &options, shutdown).await;
        }
        Ok(Greeted::Secure(stream, client)) => {
            let protocol = if client.http2 { Protocol::Http2 } else { Protocol::Http1 };
            let accepted = accepted(protocol, client.common_name.map(CommonName));
            connection::serve(*stream, accepted, door, &options, shutdown).await;
        }
        Err(Refused::Handshake(rejected)) => rejected.log(&remote.to_string()),
        Err(Refused::Socket(error)) => {
            tracing::debug!(%error, "a connection ended before its first request");
        }
    }
}

enum Greeted {
    Plain(Stream),
    Secure(Box<tls::Stream<Stream>>, tls::Client),
}

enum Refused {
    Socket(io::Error),
    Handshake(Box<tls::Rejected>),
}

/// Finds out whether a client wants TLS, and if so, lets it in or not.
async fn greet(stream: socket::Accepted, remote: &Remote, entry: &Entry) -> Result<Greeted, Refused> {
    let mut stream = stream.into_stream().map_err(Refused::Socket)?;
    let Some(endpoint) = &entry.tls else { return Ok(Greeted::Plain(stream)) };
    if entry.plain {
        let first = tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.first_byte()).await;
        let first = first.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if first.map_err(Refused::Socket)? != TLS_HANDSHAKE {
            return Ok(Greeted::Plain(stream));
        }
    }
    let (stream, client) = endpoint.handshake(stream, remote.ip()).await.map_err(Refused::Handshake)?;
    Ok(Greeted::Secure(Box::new(stream), client))
}
