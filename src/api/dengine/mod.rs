//! The d-engine's client protocol: requests into the engine's vocabulary, outcomes back.
//!
//! Its keys are the store's keys, without a prefix of any kind, and its revisions are the store's revisions; so whatever it
//! writes, clients of etcd's API read, and the other way round. Any member serves any call: writes find their way to the
//! leader by themselves, so no client is ever told to go elsewhere. `docs/protocols/d-engine.md` is its guide.

mod convert;
mod error;
mod kv;
mod members;
mod read;
mod watch;

use super::protocol::{Context, Protocol, Serve};
use crate::engine::Engine;
use crate::metrics::grpc::{SERVER, Service, UNARY};
use crate::pb::d_engine::client::raft_client_service_server::RaftClientServiceServer;
use crate::pb::d_engine::server::cluster::cluster_management_service_server::ClusterManagementServiceServer;
use crate::shutdown::Shutdown;
use std::time::Duration;
use tonic::codec::CompressionEncoding::Gzip;

const CLIENT: &str = "d_engine.client.RaftClientService";
const CLUSTER: &str = "d_engine.server.cluster.ClusterManagementService";

const SERVICES: &[Service] = &[
    (
        CLIENT,
        &[
            ("HandleClientWrite", UNARY),
            ("HandleClientRead", UNARY),
            ("HandleClientScan", UNARY),
            ("Watch", SERVER),
            ("WatchMembership", SERVER),
        ],
    ),
    (CLUSTER, &[("GetClusterMetadata", UNARY)]),
];

/// The protocol. Learners serve it as everybody does: what has to be up to date, they ask the leader for.
pub const PROTOCOL: Protocol =
    Protocol { name: "d-engine", services: SERVICES, is_for_learners: |_| true, open };

/// How often watchers hear of progress, unless all watchers of the server are to hear of it more often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes that a message may have beyond those of a request. Longer ones were refused on their way here, but for those that
/// were compressed.
const MESSAGE_OVERHEAD: usize = 512 << 10;

/// State shared by both services. Cheap to clone.
#[derive(Clone)]
struct DEngine {
    engine: Engine,
    progress_interval: Duration,
    shutdown: Shutdown,
}

fn open(context: &Context) -> Vec<(&'static str, Serve)> {
    let adapter = DEngine {
        engine: context.engine.clone(),
        progress_interval: context.progress_interval.min(PROGRESS_INTERVAL),
        shutdown: context.shutdown.clone(),
    };
    let bytes_max = context.engine.limits().request_bytes_max.saturating_add(MESSAGE_OVERHEAD);
    let client = RaftClientServiceServer::new(adapter.clone())
        .accept_compressed(Gzip)
        .max_decoding_message_size(bytes_max);
    let cluster = ClusterManagementServiceServer::new(adapter)
        .accept_compressed(Gzip)
        .max_decoding_message_size(bytes_max);
    vec![(CLIENT, Serve::new(client)), (CLUSTER, Serve::new(cluster))]
}
