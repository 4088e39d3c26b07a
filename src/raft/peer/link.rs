//! Connections to peers: where each is reached, over TLS or not, and when it last was.

use super::identity::{Identity, sign_origin};
use crate::metrics::METRICS;
use crate::metrics::peers::Peer;
use crate::metrics::traffic::{Counted, Tally};
use crate::tls::client::{Connector, Protocol};
use crate::types::MemberId;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// What a peer may send ahead of our reading, on a stream and on a connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A silent connection is asked for a sign of life this often at most.
const PING_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// What a connection is for; each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Entries.
    Log,
    /// Snapshots.
    Snapshot,
    /// What is small and must not wait.
    Control,
}

/// The way to one peer. Cheap to clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    me: Identity,
    origin: Option<u64>,
    target: MemberId,
    counts: Arc<Peer>,
    urls: Mutex<Vec<String>>,
    log: Channel,
    snapshot: Channel,
    control: Channel,
}

impl Link {
    /// The connection for `lane`; it is made when it is first used.
    pub fn lane(&self, lane: Lane) -> Channel {
        match lane {
            Lane::Log => self.0.log.clone(),
            Lane::Snapshot => self.0.snapshot.clone(),
            Lane::Control => self.0.control.clone(),
        }
    }

    /// The connection for what is small.
    pub fn channel(&self) -> Channel {
        self.lane(Lane::Control)
    }

    /// Where it leads.
    pub fn target(&self) -> MemberId {
        self.0.target
    }

    /// What is counted of it.
    pub fn counts(&self) -> &Peer {
        &self.0.counts
    }

    /// This cluster.
    pub fn cluster(&self) -> u64 {
        self.0.me.cluster
    }

    /// Where it begins.
    pub fn me(&self) -> MemberId {
        self.0.me.member
    }

    /// A request that says who calls whom.
    pub fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.0.me.sign(self.0.target, request.metadata_mut());
        if let Some(origin) = self.0.origin {
            sign_origin(origin, request.metadata_mut());
        }
        request
    }
}

/// The ways to all peers. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<All>);

struct All {
    me: Identity,
    origin: Option<u64>,
    connector: Option<Arc<Connector>>,
    /// Without a sign of life for so long, a connection is given up.
    patience: Duration,
    links: Mutex<HashMap<MemberId, Link>>,
}

impl Links {
    /// Ways that begin at `me`. `connector` makes TLS of connections to `https` URLs.
    pub fn new(me: Identity, connector: Option<Arc<Connector>>, patience: Duration) -> Links {
        Links(Arc::new(All { me, origin: None, connector, patience, links: Mutex::default() }))
    }

    /// The same for a member that began with `origin`. Before the first use.
    pub fn with_origin(mut self, origin: Option<u64>) -> Links {
        Arc::get_mut(&mut self.0).expect("nobody else has it yet").origin = origin;
        self
    }

    /// What this member began with.
    pub fn origin(&self) -> Option<u64> {
        self.0.origin
    }

    /// Who this member is.
    pub fn me(&self) -> Identity {
        self.0.me
    }

    /// The way to `target`, which is reached at `urls` from now on.
    pub fn to(&self, target: MemberId, urls: &[String]) -> Link {
        let mut links = self.0.links.lock();
        let link = links.entry(target).or_insert_with(|| self.open(target, urls));
        let mut known = link.0.urls.lock();
        if *known != urls {
            *known = urls.to_vec();
        }
        drop(known);
        link.clone()
    }

    /// The way to `target`, if it has ever been used.
    pub fn get(&self, target: MemberId) -> Option<Link> {
        self.0.links.lock().get(&target).cloned()
    }

    /// Forgets everybody who is not among `members`.
    pub fn retain(&self, is_member: impl Fn(MemberId) -> bool) {
        self.0.links.lock().retain(|id, _| is_member(*id));
    }

    fn open(&self, target: MemberId, urls: &[String]) -> Link {
        let counts = METRICS.peers.of(target);
        // Channels are made with the link that they belong to, since they ask it where to connect.
        Link(Arc::new_cyclic(|link: &std::sync::Weak<Inner>| {
            let channel = || {
                let (link, connector, patience) = (link.clone(), self.0.connector.clone(), self.0.patience);
                let counts = Arc::clone(&counts);
                let connect = tower::service_fn(move |_| {
                    let urls = link.upgrade().map(|link| link.urls.lock().clone()).unwrap_or_default();
                    let (connector, tally) = (connector.clone(), Arc::new(Tally::of(Arc::clone(&counts))));
                    async move {
                        let stream = connect(&urls, connector.as_deref(), patience).await?;
                        io::Result::Ok(TokioIo::new(Counted::new(stream, tally)))
                    }
                });
                self.endpoint().connect_with_connector_lazy(connect)
            };
            Inner {
                me: self.0.me,
                origin: self.0.origin,
                target,
                counts: Arc::clone(&counts),
                urls: Mutex::new(urls.to_vec()),
                log: channel(),
                snapshot: channel(),
                control: channel(),
            }
        }))
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_static("http://peer")
            .user_agent(self.0.me.agent())
            .expect("hexadecimal digits are a header")
            .http2_keep_alive_interval(self.0.patience.max(PING_INTERVAL_MIN))
            .keep_alive_timeout(self.0.patience.max(PING_INTERVAL_MIN))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tcp_nodelay(true)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to the first of `urls` that answers.
async fn connect(
    urls: &[String],
    connector: Option<&Connector>,
    patience: Duration,
) -> io::Result<Box<dyn Stream>> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the member has no URL");
    for url in urls {
        match tokio::time::timeout(patience, connect_to(url, connector)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {url}")),
        }
    }
    Err(failed)
}

async fn connect_to(url: &str, connector: Option<&Connector>) -> io::Result<Box<dyn Stream>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url}: {why}"));
    let (scheme, address) = url.split_once("://").ok_or_else(|| invalid("no scheme"))?;
    let plain = async || {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    match scheme {
        "http" => Ok(Box::new(plain().await?)),
        "unix" => Ok(Box::new(UnixStream::connect(address).await?)),
        "https" => {
            let connector = connector.ok_or_else(|| invalid("there are no certificates to connect with"))?;
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok(Box::new(connector.connect(plain().await?, host, Protocol::Http2).await?))
        }
        _ => Err(invalid("the scheme is none of http, https and unix")),
    }
}
