//! Client connections: accepted in one place, served on one of several single-threaded runtimes.
//!
//! A connection stays on its thread, so that its requests wake nobody else. Long work goes to the runtime's blocking pool.

use super::connection::{self, Accepted, Protocol, Serves};
use super::door::Door;
use crate::shutdown::Shutdown;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Pause after `accept` failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    serves: Serves,
    door: Door,
    options: connection::Options,
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
                let (door, options, shutdown) = (door.clone(), options.clone(), shutdown.clone());
                let accepted = Accepted { serves, protocol: Protocol::Unknown, caller: None };
                let open = connections.enter();
                runtimes[turn % runtimes.len()].spawn(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => connection::serve(stream, accepted, door, &options, shutdown).await,
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
