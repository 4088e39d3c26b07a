//! What is served where: the protocols over one engine, put together for each kind of listener. Called by `server`.

use crate::api::connection::{self, Serves};
use crate::api::door::{Callers, Door, Grpc, Members};
use crate::api::etcd::{self, Etcd};
use crate::api::grpc::Front;
use crate::api::http::{self, Http};
use crate::api::protocol;
use crate::config::Config;
use crate::engine::Engine;
use crate::metrics::METRICS;
use crate::raft::peer;
use crate::shutdown::Shutdown;
use ::http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that a gRPC message may have beyond those of a request (G-5).
const MESSAGE_OVERHEAD: usize = 512 << 10;
/// Answer time of a ping when none is configured.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that is served.
pub struct Doors {
    grpc: Front,
    clients: Http,
    metrics: Http,
    peers: Http,
    members: Members,
    callers: Callers,
}

impl Doors {
    /// The protocols over an engine, and the services for other members. Long streams end when `shutdown` is requested.
    pub fn new(config: &Config, engine: &Engine, members: Members, shutdown: &Shutdown) -> Doors {
        let options = etcd::Options {
            txn_ops_max: config.limits.txn_ops_max as usize,
            request_bytes_max: config.limits.request_bytes_max as usize,
            progress_interval: config.watch_progress_interval,
            stops_on_defrag: config.gates.is_open("StopGRPCServiceOnDefrag"),
            election_timeout: config.raft.election_timeout,
        };
        let etcd = Etcd::new(engine.clone(), &options, shutdown.clone());
        let setting = protocol::Context {
            engine: engine.clone(),
            txn_ops_max: options.txn_ops_max,
            progress_interval: options.progress_interval,
            settings: config.protocols.clone(),
            shutdown: shutdown.clone(),
        };
        let grpc =
            Front::new(etcd, &setting, options.request_bytes_max + MESSAGE_OVERHEAD, config.slow.unary);
        let options = http::Options {
            gateway: config.listen.json_gateway,
            origins: config.listen.origins.clone(),
            hosts: config.listen.hosts.clone(),
        };
        let cluster = engine.identity().cluster;
        let callers =
            move |headers: &HeaderMap| peer::caller(headers, cluster).map(|member| METRICS.peers.of(member));
        Doors {
            clients: Http::for_clients(engine, &grpc, &options),
            metrics: Http::for_metrics(engine),
            peers: Http::for_peers(engine),
            members,
            callers: Arc::new(callers),
            grpc,
        }
    }

    /// What stands behind a listener.
    pub fn behind(&self, serves: Serves) -> Door {
        match serves {
            Serves::All => {
                Door::new(Some(Grpc::Clients(Box::new(self.grpc.clone()))), Some(self.clients.clone()))
            }
            Serves::GrpcOnly => Door::new(Some(Grpc::Clients(Box::new(self.grpc.clone()))), None),
            Serves::HttpOnly => Door::new(None, Some(self.clients.clone())),
            Serves::Metrics => Door::new(None, Some(self.metrics.clone())),
            Serves::Peer => Door::new(Some(Grpc::Members(self.members.clone())), Some(self.peers.clone()))
                .counting(Arc::clone(&self.callers)),
        }
    }
}

/// Settings of connections.
pub fn connection_options(config: &Config, serves: Serves) -> connection::Options {
    connection::Options {
        // The limit is for clients: a vote must not wait behind commands.
        streams_max: if serves == Serves::Peer { u32::MAX } else { config.listen.streams_max },
        ping_interval: config.listen.keepalive.interval,
        ping_timeout: config.listen.keepalive.timeout.unwrap_or(PING_TIMEOUT),
        min_ping_time: (serves != Serves::Peer).then_some(config.listen.keepalive.min_time),
    }
}
