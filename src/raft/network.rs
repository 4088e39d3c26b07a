//! How members reach each other. A cluster of one has nobody to reach; the transport for more plugs in here.

use super::{Peer, Snapshot, SnapshotData, Types, Vote};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use std::future::Future;

/// Makes connections to peers: none can be made in a cluster of one.
pub struct NoPeers;

/// A connection that reaches nobody.
pub struct NoConnection {
    target: u64,
}

impl NoConnection {
    fn unreachable(&self) -> Unreachable<Types> {
        let error = std::io::Error::other(format!("no transport to member {:x}", self.target));
        Unreachable::new(&error)
    }
}

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = NoConnection;

    async fn new_client(&mut self, target: u64, _node: &Peer) -> NoConnection {
        NoConnection { target }
    }
}

impl RaftNetworkV2<Types> for NoConnection {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }
}
