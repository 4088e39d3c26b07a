//! From URLs to bound sockets: which socket serves what, with or without TLS, and for how many at once.

use super::socket::{self, Listener, Remote};
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
pub struct Door {
    listener: Listener,
    pub(super) behind: Behind,
    /// As many clients are served at once.
    seats: Arc<Semaphore>,
}

/// What is behind a socket.
#[derive(Clone)]
pub(super) struct Behind {
    pub serves: Serves,
    /// Whether clients come in without TLS.
    pub plain: bool,
    /// How clients come in with TLS.
    pub tls: Option<Arc<Endpoint>>,
}

impl Door {
    /// Waits for a seat, then for a client.
    pub(super) async fn accept(&self) -> io::Result<(socket::Accepted, Remote, OwnedSemaphorePermit)> {
        let seat = Arc::clone(&self.seats).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, remote) = self.listener.accept().await?;
        Ok((stream, remote, seat))
    }

    /// Says what is served from now on.
    pub fn announce(&self) {
        let address = self.listener.address();
        let traffic = match self.behind.serves {
            Serves::All => "grpc+http",
            Serves::GrpcOnly => "grpc",
            Serves::HttpOnly => "http",
            Serves::Metrics => return tracing::info!(address, "serving metrics"),
            Serves::Peer => return tracing::info!(address, "serving peer traffic"),
        };
        tracing::info!("ready to serve client requests");
        if self.behind.plain {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        if self.behind.tls.is_some() {
            tracing::info!(traffic, address, "serving client traffic securely");
        }
    }
}

/// Binds every listener. Certificates that the server makes for itself go below `data_dir`; at most `clients_max`
/// clients are served at once.
pub fn bind(listen: &Listen, data_dir: &Path, clients_max: usize) -> Result<Vec<Door>, Error> {
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
    let mut doors = Doors { bound: Vec::new(), sockets: listen.sockets };
    let tls = endpoint(&peer, &listen.peer, Audience::Members)?;
    doors.add(&listen.peer, Serves::Peer, tls.as_ref(), &others)?;
    let tls = endpoint(&client, &clients, Audience::Clients)?;
    let with_grpc = if listen.http.is_empty() { Serves::All } else { Serves::GrpcOnly };
    doors.add(&listen.client, with_grpc, tls.as_ref(), &seats)?;
    doors.add(&listen.http, Serves::HttpOnly, tls.as_ref(), &seats)?;
    let tls = endpoint(&client, &listen.metrics, Audience::Metrics)?;
    doors.add(&listen.metrics, Serves::Metrics, tls.as_ref(), &others)?;
    Ok(doors.bound.into_iter().map(|(_, door)| door).collect())
}

struct Doors {
    bound: Vec<(Place, Door)>,
    sockets: SocketOptions,
}

impl Doors {
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
            let same =
                |(place, door): &&mut (Place, Door)| place == url.place() && door.behind.serves == serves;
            if let Some((_, door)) = self.bound.iter_mut().find(same) {
                door.behind.plain |= !url.is_secure();
                door.behind.tls = door.behind.tls.take().or(tls);
                continue;
            }
            let failed = |source| Error::Bind { place: name(url.place()), source };
            let listener = Listener::bind(url.place(), self.sockets).map_err(failed)?;
            let behind = Behind { serves, plain: !url.is_secure(), tls };
            self.bound.push((url.place().clone(), Door { listener, behind, seats: Arc::clone(seats) }));
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
