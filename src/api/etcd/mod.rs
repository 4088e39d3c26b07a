//! The etcd v3 API: requests into the engine's vocabulary, outcomes back, with etcd's errors and headers to the letter.

mod auth;
mod caller;
pub mod check;
mod cluster;
pub mod convert;
mod election;
pub mod error;
mod health;
mod kv;
mod leader;
mod lease;
mod lock;
mod maintenance;
mod queue;
pub mod range;
mod range_stream;
mod snapshot;
pub mod watch;
mod watch_frame;
mod wire;

use crate::engine::Engine;
use crate::pb::etcdserverpb::ResponseHeader;
use crate::shutdown::Shutdown;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// What the adapter is told at start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operations in one list of a txn.
    pub txn_ops_max: usize,
    /// Bytes of a request that goes through the log.
    pub request_bytes_max: usize,
    /// How often an idle watcher that wants it hears of progress.
    pub progress_interval: Duration,
    /// Whether health checks are told NOT_SERVING during defragmentation.
    pub stops_on_defrag: bool,
    /// Silence after which a follower stands for election.
    pub election_timeout: Duration,
}

/// State shared by the services. Cheap to clone.
#[derive(Clone)]
pub struct Etcd {
    engine: Engine,
    txn_ops_max: usize,
    request_bytes_max: usize,
    progress_interval: Duration,
    serving: health::Serving,
    leaderless: leader::Leaderless,
    shutdown: Shutdown,
    /// One permit for each backup under way.
    backups: Arc<Semaphore>,
}

impl Etcd {
    /// The adapter over an engine, inside a runtime. Long streams end when `shutdown` is requested.
    pub fn new(engine: Engine, options: &Options, shutdown: Shutdown) -> Etcd {
        let watched = engine.clone();
        let has_leader = move || watched.has_leader();
        let leaderless = leader::Leaderless::watch(has_leader, options.election_timeout, shutdown.clone());
        Etcd {
            leaderless,
            engine,
            txn_ops_max: options.txn_ops_max,
            request_bytes_max: options.request_bytes_max,
            progress_interval: options.progress_interval,
            serving: health::Serving::new(options.stops_on_defrag),
            shutdown,
            backups: Arc::new(Semaphore::new(snapshot::BACKUPS_MAX)),
        }
    }

    /// The header of an answer at `revision`.
    fn header(&self, revision: i64) -> ResponseHeader {
        let identity = self.engine.identity();
        ResponseHeader {
            cluster_id: identity.cluster,
            member_id: identity.member,
            revision,
            raft_term: self.engine.term(),
        }
    }

    /// The header of an answer at the current revision.
    fn header_now(&self) -> ResponseHeader {
        self.header(self.engine.revision())
    }

    /// G-1: a client that requires a leader gets an error at once when there is none. G-2: a readable API version.
    fn check_metadata(&self, headers: &HeaderMap) -> Result<(), Status> {
        if headers.get("client-api-version").is_some_and(|v| std::str::from_utf8(v.as_bytes()).is_err()) {
            return Err(error::Error::InvalidClientApiVersion.into());
        }
        if leader::is_required(headers) && !self.engine.has_leader() {
            return Err(error::Error::NoLeader.into());
        }
        Ok(())
    }

    /// The same for services of generated code.
    fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.check_metadata(metadata.as_ref())
    }

    /// G-3: whether this member answers such calls. A learner answers few, which `is_for_learners` knows by their path.
    pub fn check_role(&self, path: &str, is_for_learners: fn(&str) -> bool) -> Result<(), Status> {
        if self.engine.is_learner() && !is_for_learners(path) {
            return Err(error::Error::NotForLearner.into());
        }
        Ok(())
    }
}

/// Whether a learner answers such calls; of ranges only those that need no leader, which `range` looks at.
pub fn is_for_learners(path: &str) -> bool {
    let (service, method) = path.rsplit_once('/').unwrap_or_default();
    match service {
        "/etcdserverpb.KV" => method == "Range",
        "/etcdserverpb.Maintenance" => matches!(method, "Status" | "Snapshot"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_3_a_learner_answers_little() {
        for path in [
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.Maintenance/Status",
            "/etcdserverpb.Maintenance/Snapshot",
        ] {
            assert!(is_for_learners(path), "{path}");
        }
        for path in [
            "/etcdserverpb.KV/RangeStream",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.Watch/Watch",
            "/etcdserverpb.Cluster/MemberList",
            "/etcdserverpb.Maintenance/HashKV",
            "/grpc.health.v1.Health/Check",
        ] {
            assert!(!is_for_learners(path), "{path}");
        }
    }
}
