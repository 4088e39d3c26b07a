//! The server: sockets, and the life between ready and stopped. Called by `main` and by tests; the caller decides
//! through the [`Shutdown`] handle what ends it, and holds the data directory meanwhile.

use crate::config::url::join;
use crate::config::{Config, ListenUrl};
use crate::limits;
use crate::shutdown::Shutdown;
use crate::version::{ETCD_VERSION, KVIST_VERSION};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, or not ours.
    #[error("listen tcp {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The asynchronous runtime has no threads.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// Serves until `shutdown` is requested.
pub fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(serve(&config, &shutdown))
}

async fn serve(config: &Config, shutdown: &Shutdown) -> Result<(), Error> {
    tracing::info!(
        "etcd-version" = ETCD_VERSION,
        "kvist-version" = KVIST_VERSION,
        name = %config.name,
        "data-dir" = %config.data_dir.display(),
        "listen-peer-urls" = %join(&config.listen.peer),
        "listen-client-urls" = %join(&config.listen.client),
        "starting an etcd server"
    );
    limits::warn_about_descriptors();
    let _peer = bind(&config.listen.peer).await?;
    let clients = bind(&config.listen.client).await?;
    let _metrics = bind(&config.listen.metrics).await?;
    for (_, address) in &clients {
        tracing::info!("ready to serve client requests");
        tracing::info!(%address, "serving client traffic insecurely; this is strongly discouraged!");
    }
    notify_service_manager();
    shutdown.requested().await;
    tracing::info!(name = %config.name, "closed etcd server");
    Ok(())
}

/// Tells systemd that the service is up; without it nobody listens, which is no error.
fn notify_service_manager() {
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "failed to notify the service manager of readiness");
    }
}

async fn bind(urls: &[ListenUrl]) -> Result<Vec<(TcpListener, SocketAddr)>, Error> {
    let mut listeners = Vec::with_capacity(urls.len());
    for url in urls {
        let address = url.socket_addr();
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        listeners.push((listener, bound));
    }
    Ok(listeners)
}
