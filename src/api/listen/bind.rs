//! From URLs to bound sockets: which socket serves what, with or without TLS, and for how many at once.

use super::socket::{Accepted, Bound, Remote};
use crate::api::connection::Serves;
use crate::config::{Listen, ListenUrl, Place, SocketOptions, TlsFiles};
use crate::tls::{self, Audience, Endpoint, auto};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of other members and of readers of metrics. They use the descriptors that clients leave to the process.
const OTHERS_MAX: usize = 100;

/// Why nobody can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, or not ours.
    #[error("listen {place}: {source}")]
    Bind {
        /// The kind of socket, and its address.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// Files can't be used.
    #[error("{0}")]
    Tls(#[from] tls::Error),
}

/// A bound socket and what is behind it.
pub struct Listener {
    socket: Bound,
    pub(super) entry: Entry,
    /// As many clients are served at once.
    seats: Arc<Semaphore>,
}

/// How clients come in, and to what.
#[derive(Clone)]
pub(super) struct Entry {
    pub serves: Serves,
    /// Whether clients come in without TLS.
    pub plain: bool,
    /// How clients come in with TLS.
    pub tls: Option<Arc<Endpoint>>,
}

impl Listener {
    /// What is served here.
    pub fn serves(&self) -> Serves {
        self.entry.serves
    }

    /// Waits for a seat, then for a client.
    pub(super) async fn accept(&self) -> io::Result<(Accepted, Remote, OwnedSemaphorePermit)> {
        let seat = Arc::clone(&self.seats).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, remote) = self.socket.accept().await?;
        Ok((stream, remote, seat))
    }

    /// Says what is served from now on.
    pub fn announce(&self) {
        let address = self.socket.address();
        let traffic = match self.entry.serves {
            Serves::All => "grpc+http",
            Serves::GrpcOnly => "grpc",
            Serves::HttpOnly => "http",
            Serves::Metrics => return tracing::info!(address, "serving metrics"),
            Serves::Peer => return tracing::info!(address, "serving peer traffic"),
        };
        tracing::info!("ready to serve client requests");
        if self.entry.plain {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        if self.entry.tls.is_some() {
            tracing::info!(traffic, address, "serving client traffic securely");
        }
    }
}

/// Binds every listener. Certificates that the server makes for itself go below `data_dir`; at most `clients_max`
/// clients are served at once.
pub fn bind(listen: &Listen, data_dir: &Path, clients_max: usize) -> Result<Vec<Listener>, Error> {
    let years = listen.tls.self_signed_years;
    let made = |files, kind, urls: &[ListenUrl]| {
        let hosts: Vec<&str> = urls.iter().map(ListenUrl::host).collect();
        auto::ensure(files, &data_dir.join("fixtures").join(kind), &hosts, years)
    };
    let endpoint = |files: &TlsFiles, urls: &[ListenUrl], audience| {
        let opened =
            urls.iter().any(ListenUrl::is_secure).then(|| Endpoint::open(files, &listen.tls.rules, audience));
        opened.transpose().map(|opened| opened.map(Arc::new))
    };
    let peer = made(&listen.tls.peer, "peer", &listen.peer)?;
    let clients = [&listen.client[..], &listen.http].concat();
    let client = made(&listen.tls.client, "client", &clients)?;

    let seats = Arc::new(Semaphore::new(clients_max.min(Semaphore::MAX_PERMITS)));
    let others = Arc::new(Semaphore::new(OTHERS_MAX));
    let mut all = Listeners { bound: Vec::new(), options: listen.sockets };
    let tls = endpoint(&peer, &listen.peer, Audience::Members)?;
    all.add(&listen.peer, Serves::Peer, tls.as_ref(), &others)?;
    let tls = endpoint(&client, &clients, Audience::Clients)?;
    let with_grpc = if listen.http.is_empty() { Serves::All } else { Serves::GrpcOnly };
    all.add(&listen.client, with_grpc, tls.as_ref(), &seats)?;
    all.add(&listen.http, Serves::HttpOnly, tls.as_ref(), &seats)?;
    let tls = endpoint(&client, &listen.metrics, Audience::Metrics)?;
    all.add(&listen.metrics, Serves::Metrics, tls.as_ref(), &others)?;
    Ok(all.bound.into_iter().map(|(_, listener)| listener).collect())
}

struct Listeners {
    bound: Vec<(Place, Listener)>,
    options: SocketOptions,
}

impl Listeners {
    /// Binds `urls`. Two URLs of the same place, one plain and one with TLS, share a socket.
    fn add(
        &mut self,
        urls: &[ListenUrl],
        serves: Serves,
        tls: Option<&Arc<Endpoint>>,
        seats: &Arc<Semaphore>,
    ) -> Result<(), Error> {
        for url in urls {
            let tls = tls.filter(|_| url.is_secure()).cloned();
            let same = |(place, listener): &&mut (Place, Listener)| {
                place == url.place() && listener.entry.serves == serves
            };
            if let Some((_, listener)) = self.bound.iter_mut().find(same) {
                listener.entry.plain |= !url.is_secure();
                listener.entry.tls = listener.entry.tls.take().or(tls);
                continue;
            }
            let failed = |source| Error::Bind { place: name(url.place()), source };
            let socket = Bound::open(url.place(), self.options).map_err(failed)?;
            let entry = Entry { serves, plain: !url.is_secure(), tls };
            self.bound.push((url.place().clone(), Listener { socket, entry, seats: Arc::clone(seats) }));
        }
        Ok(())
    }
}

fn name(place: &Place) -> String {
    match place {
        Place::Tcp(address) => format!("tcp {address}"),
        Place::Unix(path) => format!("unix {}", path.display()),
    }
}
