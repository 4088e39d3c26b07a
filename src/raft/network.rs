//! openraft's way to the other members: which transport carries its calls, and what is noticed on the way.

use super::peer::{Link, Links};
use super::transport::{Transport, Transports};
use super::{Peer, Snapshot, SnapshotData, Types, Vote};
use crate::metrics::{METRICS, observe_since};
use crate::types::MemberId;
use futures_util::{Stream, TryFutureExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a failed call waits for its next try.
const BACKOFF: Duration = Duration::from_millis(20);

/// What calls to peers bring to light. Cheap to clone.
#[derive(Clone, Default)]
pub struct Activity(Arc<Noticed>);

#[derive(Default)]
struct Noticed {
    /// Somebody says that this member was removed.
    removed: Notify,
    /// When a connection to a peer broke last, or could not be made.
    losses: Mutex<HashMap<MemberId, Instant>>,
    /// Where the snapshot stands that is being sent, or was sent last, for each peer that needed one.
    snapshots: Mutex<HashMap<MemberId, u64>>,
}

impl Activity {
    /// Somebody says that this member was removed from the cluster.
    pub fn removed(&self) {
        self.0.removed.notify_one();
    }

    /// A peer can't be reached.
    pub fn lost(&self, peer: MemberId) {
        self.0.losses.lock().insert(peer, Instant::now());
    }

    /// Whether a peer could not be reached at some time since `ago`.
    pub fn is_lost_since(&self, peer: MemberId, ago: Duration) -> bool {
        self.0.losses.lock().get(&peer).is_some_and(|at| at.elapsed() <= ago)
    }

    /// Resolves when somebody says that this member was removed.
    pub async fn until_removed(&self) {
        self.0.removed.notified().await;
    }

    fn sends_snapshot(&self, to: MemberId, index: u64) {
        self.0.snapshots.lock().insert(to, index);
    }

    /// Lowest entry at which a peer will go on that a snapshot is on its way to: the log must not be purged beyond it.
    /// `is_done` says of a peer and an index whether it has come so far, or does not matter any more.
    pub fn needed_from(&self, is_done: impl Fn(MemberId, u64) -> bool) -> Option<u64> {
        let mut snapshots = self.0.snapshots.lock();
        snapshots.retain(|id, index| !is_done(*id, *index));
        snapshots.values().copied().min()
    }
}

/// Makes connections to peers.
pub struct Network {
    links: Links,
    transports: Transports,
}

impl Network {
    /// Connections over `links`.
    pub fn new(links: Links, transports: Transports) -> Network {
        Network { links, transports }
    }

    fn connection(&self, target: MemberId, node: &Peer, streams: bool) -> Connection {
        let link = self.links.to(target, &node.urls);
        let client = self.transports.over(link.clone());
        Connection { link, client, streams, activity: self.transports.activity.clone() }
    }
}

/// A connection to one peer for one purpose.
pub struct Connection {
    link: Link,
    client: Transport,
    /// Whether requests follow each other without waiting for answers.
    streams: bool,
    activity: Activity,
}

impl Connection {
    /// Counts a call that failed.
    fn counted<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        result.inspect_err(|_| self.link.counts().sent_failures.inc())
    }
}

/// A call that failed, in openraft's words.
pub fn failed(status: &tonic::Status) -> RPCError<Types> {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::FailedPrecondition => Unreachable::new(status).into(),
        _ => NetworkError::new(status).into(),
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        self.connection(target, node, true)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> Connection {
        self.connection(target, node, false)
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (is_heartbeat, begin) = (request.entries.is_empty(), Instant::now());
        let result = match &mut self.client {
            Transport::Native(client) => client.append(request, option).await,
            Transport::Wolf(client) => client.append_entries(request, option).await,
        };
        if is_heartbeat && result.is_ok() {
            observe_since(&self.link.counts().round_trip, begin);
        }
        self.counted(result)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        match self {
            Connection { client: Transport::Native(client), streams: true, link, .. } => {
                let opened = client.stream_append(input);
                Box::pin(opened.inspect_err(|_| link.counts().sent_failures.inc()))
            }
            connection => stream_append_sequential(connection, input, option),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let result = match &mut self.client {
            Transport::Native(client) => client.vote(request, option, false).await,
            Transport::Wolf(client) => client.vote(request, option).await,
        };
        self.counted(result)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let result = match &mut self.client {
            Transport::Native(client) => client.vote(request, option, true).await,
            Transport::Wolf(client) => client.pre_vote(request, option).await,
        };
        self.counted(result)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let (to, index) = (self.link.target(), snapshot.meta.last_log_id.map_or(0, |id| id.index));
        self.activity.sends_snapshot(to, index);
        let (begin, transfer) = (Instant::now(), METRICS.peers.sends_snapshot(to));
        tracing::info!("remote-peer-id" = format!("{to:x}"), index, "sending database snapshot");
        let result = match &mut self.client {
            Transport::Native(client) => client.full_snapshot(vote, snapshot, cancel).await,
            Transport::Wolf(client) => client.full_snapshot(vote, snapshot, cancel, option).await,
        };
        match &result {
            Ok(_) => {
                transfer.succeeded();
                tracing::info!(
                    "remote-peer-id" = format!("{to:x}"),
                    index,
                    took = ?begin.elapsed(),
                    "sent database snapshot"
                );
            }
            Err(error) => tracing::warn!(
                "remote-peer-id" = format!("{to:x}"),
                index,
                %error,
                "failed to send database snapshot"
            ),
        }
        result
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match &mut self.client {
            Transport::Native(client) => client.transfer_leader(request, option).await,
            Transport::Wolf(client) => client.transfer_leader(request, option).await,
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}
