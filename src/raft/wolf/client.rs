//! Calls another member: openraft's network over the five calls of `wolf.raft`. One call at a time, in order.

use super::super::network::Activity;
use super::super::peer::{Lane, Link};
use super::super::{LogEntry, Payload, Snapshot, SnapshotData, Types, Vote};
use super::{
    CLUSTER, EXTENSIONS, FROM, INLINE_BYTES_MAX, MESSAGE_BYTES_MAX, ORIGIN, Options, PRE_VOTE, REMOVED,
    TARGET, TRANSFER, VOTE_KIND, ascii, code_of, from_wire, json, read_last_log, read_number, read_vote,
    snapshot, to_wire,
};
use crate::pb::wolf::raft_append_entries_res::Response as Appended;
use crate::pb::wolf::raft_client::RaftClient;
use crate::pb::wolf::raft_get_metrics_res::Response as Metrics;
use crate::pb::wolf::raft_install_snapshot_res::Response as Installed;
use crate::pb::wolf::raft_vote_res::Response as Voted;
use crate::pb::wolf::{
    RaftAppendEntriesOkRes, RaftAppendEntriesReq, RaftErrorRes, RaftGetMetricsReq, RaftInstallSnapshotReq,
    RaftVoteReq,
};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

type RpcError = RPCError<Types>;

/// See the module.
#[derive(Clone)]
pub struct Client {
    link: Link,
    options: Options,
    activity: Activity,
    /// Whether the other one has shown that it knows our metadata.
    pub(super) knows_extensions: bool,
}

/// Time that entries may take, however impatient openraft is: heartbeats go beside them.
const ENTRIES_TIME_MIN: Duration = Duration::from_secs(5);

/// Calls made by this process.
static CALLS: AtomicU64 = AtomicU64::new(0);

impl Client {
    /// A client of the member at the other end of `link`.
    pub fn new(link: Link, options: Options, activity: Activity) -> Client {
        Client { link, options, activity, knows_extensions: false }
    }

    pub(super) fn target(&self) -> u64 {
        self.link.target()
    }

    /// The calls over one of the connections: what is large must not delay what keeps the cluster alive.
    pub(super) fn stub(&self, lane: Lane) -> RaftClient<Channel> {
        let stub = RaftClient::new(self.link.lane(lane))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        if self.options.gzip { stub.send_compressed(CompressionEncoding::Gzip) } else { stub }
    }

    /// The other one's metrics as JSON, or what metadata asks for.
    pub(super) async fn get_metrics(
        &mut self,
        asked: Option<(&'static str, MetadataValue<Ascii>)>,
    ) -> Result<(String, MetadataMap), RpcError> {
        let msg_id = self.msg_id();
        let mut request = self.request(RaftGetMetricsReq { msg_id: msg_id.clone() });
        if let Some((name, value)) = asked {
            request.metadata_mut().insert(name, value);
        }
        let answer = self.stub(Lane::Control).get_metrics(request).await;
        let (answer, metadata) = self.heard(answer)?;
        match answer.response {
            Some(Metrics::OkRes(ok)) if ok.msg_id == msg_id => Ok((ok.metrics, metadata)),
            Some(Metrics::ErrorRes(error)) => Err(refused(&error)),
            _ => Err(unclear("an answer to something else")),
        }
    }

    /// Whether the other one knows our metadata. Asks for its metrics if it has not shown that yet, which changes nothing.
    pub(super) async fn is_extended(&mut self, limit: Duration) -> Result<bool, RpcError> {
        if !self.knows_extensions {
            let question = self.request(RaftGetMetricsReq { msg_id: self.msg_id() });
            let mut stub = self.stub(Lane::Control);
            self.answer(RPCTypes::Vote, limit, stub.get_metrics(question)).await?;
        }
        Ok(self.knows_extensions)
    }

    pub(super) fn msg_id(&self) -> String {
        format!("{:x}-{}", self.link.me(), CALLS.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let ids = [(CLUSTER, self.link.cluster()), (FROM, self.link.me()), (TARGET, self.link.target())];
        for (name, id) in ids {
            request.metadata_mut().insert(name, ascii(&id.to_string()));
        }
        if let Some(origin) = self.options.origin {
            request.metadata_mut().insert(ORIGIN, ascii(&origin.to_string()));
        }
        request
    }

    /// An answer, and what it says beside it.
    pub(super) fn heard<T>(
        &mut self,
        answer: Result<Response<T>, Status>,
    ) -> Result<(T, MetadataMap), RpcError> {
        let answer = answer.inspect_err(|status| {
            if status.code() == Code::Unavailable {
                self.activity.lost(self.link.target());
            }
        });
        let (metadata, message, _) = answer.map_err(|status| failed(&status))?.into_parts();
        self.knows_extensions |= read_number(&metadata, EXTENSIONS) == Some(1);
        if read_number(&metadata, REMOVED) == Some(1) {
            self.activity.removed();
        }
        Ok((message, metadata))
    }

    /// The answer of a call, unless it took too long or there is none.
    async fn answer<T>(
        &mut self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<(T, MetadataMap), RpcError> {
        let Ok(answer) = tokio::time::timeout(limit, call).await else {
            let (id, target) = (self.link.me(), self.link.target());
            return Err(Timeout { action, id, target, timeout: limit }.into());
        };
        self.heard(answer)
    }

    async fn ask_for_vote(
        &mut self,
        request: VoteRequest<Types>,
        limit: Duration,
        kind: Option<&'static str>,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let (last_log_term, last_log_index) = to_wire(request.last_log_id.as_ref());
        let candidate = &request.vote.leader_id;
        let msg_id = self.msg_id();
        let mut message = self.request(RaftVoteReq {
            msg_id: msg_id.clone(),
            term: candidate.term,
            candidate_id: candidate.voted_for,
            last_log_index,
            last_log_term,
        });
        if let Some(kind) = kind {
            message.metadata_mut().insert(VOTE_KIND, ascii(kind));
        }
        let mut stub = self.stub(Lane::Control);
        let (answer, metadata) = self.answer(RPCTypes::Vote, limit, stub.vote(message)).await?;
        let ok = match answer.response {
            Some(Voted::OkRes(ok)) if ok.msg_id == msg_id => ok,
            Some(Voted::ErrorRes(error)) => return Err(refused(&error)),
            _ => return Err(unclear("an answer to something else")),
        };
        if !ok.vote_granted {
            let vote = read_vote(&metadata).filter(|vote| vote.leader_id.term == ok.term);
            let vote = vote.unwrap_or_else(|| Vote::new(ok.term, self.link.target()));
            return Ok(VoteResponse::new(vote, read_last_log(&metadata), false));
        }
        // Who grants a pre-vote stays in the term where it is.
        if kind != Some(PRE_VOTE) && ok.term != candidate.term {
            return Err(unclear("a vote was granted in another term"));
        }
        Ok(VoteResponse::new(request.vote, read_last_log(&metadata), true))
    }

    /// Sends one piece of a snapshot.
    async fn install(
        &mut self,
        piece: RaftInstallSnapshotReq,
        limit: Duration,
    ) -> Result<(u64, MetadataMap), RpcError> {
        let msg_id = self.msg_id();
        let request = self.request(RaftInstallSnapshotReq { msg_id: msg_id.clone(), ..piece });
        let mut stub = self.stub(Lane::Snapshot);
        let call = stub.install_snapshot(request);
        let (answer, metadata) = self.answer(RPCTypes::InstallSnapshot, limit, call).await?;
        match answer.response {
            Some(Installed::OkRes(ok)) if ok.msg_id == msg_id => Ok((ok.term, metadata)),
            Some(Installed::ErrorRes(error)) => Err(refused(&error)),
            _ => Err(unclear("an answer to something else")),
        }
    }

    /// Sends a snapshot piece by piece.
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Own(store) = snapshot.snapshot else {
            return Err(unclear("a received snapshot is not sent on").into());
        };
        let dir = self.options.dir.clone();
        let packed = tokio::task::spawn_blocking(move || snapshot::Packed::new(&dir, &store)).await;
        let packed = packed.map_err(|e| unclear(&e.to_string()))?.map_err(|e| unclear(&e.to_string()))?;
        // A flush may have come since openraft asked for the snapshot; a later one is as good.
        let (last_included_term, last_included_index) = to_wire(packed.last().as_ref());
        let (mut packed, mut offset) = (Some(packed), 0);
        while let Some(mut from) = packed.take() {
            let read = tokio::task::spawn_blocking(move || from.piece().map(|data| (from, data))).await;
            let (from, data) =
                read.map_err(|e| unclear(&e.to_string()))?.map_err(|e| unclear(&e.to_string()))?;
            let len = data.len() as u64;
            let piece = RaftInstallSnapshotReq {
                msg_id: String::new(),
                term: vote.leader_id.term,
                leader_id: vote.leader_id.voted_for,
                last_included_index,
                last_included_term,
                offset,
                done: from.is_at_end(),
                data,
            };
            // The last piece is answered when all of it is in place.
            let limit = if piece.done {
                snapshot::INSTALL_TIME_MAX
            } else {
                option.soft_ttl().max(snapshot::PIECE_TIME_MIN)
            };
            let (term, metadata) = self.install(piece, limit).await?;
            if term > vote.leader_id.term {
                let higher = read_vote(&metadata).filter(|vote| vote.leader_id.term == term);
                let higher = higher.unwrap_or_else(|| Vote::new(term, self.link.target()));
                return Ok(SnapshotResponse::new(higher));
            }
            offset += len;
            packed = Some(from).filter(|from| !from.is_at_end());
        }
        Ok(SnapshotResponse::new(vote))
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let (request, batch) = write_append(request).await.map_err(|e| unclear(&e))?;
        let msg_id = self.msg_id();
        let message = self.request(RaftAppendEntriesReq { msg_id: msg_id.clone(), req: batch.json });
        let (lane, limit) = match request.entries.is_empty() {
            true => (Lane::Control, option.soft_ttl()),
            false => (Lane::Log, option.soft_ttl().max(ENTRIES_TIME_MIN)),
        };
        let mut stub = self.stub(lane);
        let call = stub.append_entries(message);
        let (answer, metadata) = self.answer(RPCTypes::AppendEntries, limit, call).await?;
        let ok = match answer.response {
            Some(Appended::OkRes(ok)) if ok.msg_id == msg_id => ok,
            Some(Appended::ErrorRes(error)) => return Err(refused(&error)),
            _ => return Err(unclear("an answer to something else")),
        };
        let answer = read_appended(&request, &ok, &metadata, self.link.target())?;
        if answer.is_success() && batch.entries < request.entries.len() {
            return Ok(AppendEntriesResponse::PartialSuccess(Some(
                request.entries[batch.entries - 1].log_id,
            )));
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let kind = request.leadership_transfer.then_some(TRANSFER);
        self.ask_for_vote(request, option.soft_ttl(), kind).await
    }

    /// Only who is known to tell a pre-vote from a vote is asked; of others, we suppose that they agree.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        if !self.is_extended(option.soft_ttl()).await? {
            return Ok(VoteResponse::new(request.vote, None, true));
        }
        self.ask_for_vote(request, option.soft_ttl(), Some(PRE_VOTE)).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        self.hand_over(&request).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot, option) => sent,
        }
    }
}

/// The JSON of a request, made where it delays nobody if there is much of it.
async fn write_append(
    request: AppendEntriesRequest<Types>,
) -> Result<(AppendEntriesRequest<Types>, json::Batch), String> {
    let bytes = |entry: &LogEntry| match &entry.payload {
        Payload::Normal(ours) => ours.bytes().len(),
        _ => 0,
    };
    let size: usize = request.entries.iter().map(bytes).sum();
    let (request, batch) = if size <= INLINE_BYTES_MAX {
        let batch = json::write_append(&request);
        (request, batch)
    } else {
        let write = move || {
            let batch = json::write_append(&request);
            (request, batch)
        };
        tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?
    };
    Ok((request, batch.map_err(|e| e.to_string())?))
}

/// What an answer to an append says.
fn read_appended(
    request: &AppendEntriesRequest<Types>,
    ok: &RaftAppendEntriesOkRes,
    metadata: &MetadataMap,
    target: u64,
) -> Result<AppendEntriesResponse<Types>, RpcError> {
    let term = request.vote.leader_id.term;
    if ok.term > term && !ok.success {
        let vote = read_vote(metadata).filter(|vote| vote.leader_id.term == ok.term);
        return Ok(AppendEntriesResponse::HigherVote(vote.unwrap_or_else(|| Vote::new(ok.term, target))));
    }
    if ok.term != term {
        return Err(unclear("an answer of another term"));
    }
    if ok.success {
        return Ok(AppendEntriesResponse::Success);
    }
    if let Some(hint) = &ok.conflict_opt {
        tracing::debug!(target, hint = ?from_wire(hint.term, hint.index), "a follower lacks the entry before");
    }
    match request.prev_log_id {
        Some(_) => Ok(AppendEntriesResponse::Conflict),
        None => Err(unclear("the beginning of the log was refused")),
    }
}

/// A status: who can't be reached is left alone for a while, others are asked again soon.
fn failed(status: &Status) -> RpcError {
    match status.code() {
        Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => {
            Unreachable::from_string(format!("{:?}: {}", status.code(), status.message())).into()
        }
        code => unclear(&format!("{code:?}: {}", status.message())),
    }
}

/// An error inside an answer.
fn refused(error: &RaftErrorRes) -> RpcError {
    unclear(&format!("{}: {}", code_of(error).as_str_name(), error.msg))
}

/// What says nothing: it is asked again.
fn unclear(what: &str) -> RpcError {
    NetworkError::from_string(what).into()
}
