//! Answers other members, and whoever wants to look: the five calls of `wolf.raft` over this member's part in consensus.
//! Whatever comes is checked before openraft sees it, since openraft takes what a cluster cannot produce for a bug and panics.

use super::super::installs::Installs;
use super::super::log_store::LogStore;
use super::super::node::Node;
use super::super::peer::Link;
use super::super::state_machine::StateMachine;
use super::super::{LogId, Peer, Types, Vote};
use super::answers::{Member, Real, Told};
use super::append::Beside;
use super::snapshot::{Inbox, Piece};
use super::{
    CLUSTER, EXTENSIONS, FROM, LAST_LOG, MESSAGE_BYTES_MAX, ORIGIN, Options, PRE_VOTE, READ_INDEX, REFUSED,
    REMOVED, TARGET, TERM_MAX, TRANSFER, VOTE, VOTE_KIND, ascii, error, from_wire, read_number, text,
    to_wire, vote_text, write_numbers,
};
use crate::engine::Engine;
use crate::pb::wolf::raft_server::{Raft as Calls, RaftServer};
use crate::pb::wolf::{
    ErrorCode, RaftAppendEntriesOkRes, RaftAppendEntriesReq, RaftAppendEntriesRes, RaftBootstrapOkRes,
    RaftBootstrapReq, RaftBootstrapRes, RaftErrorRes, RaftGetMetricsOkRes, RaftGetMetricsReq,
    RaftGetMetricsRes, RaftInstallSnapshotOkRes, RaftInstallSnapshotReq, RaftInstallSnapshotRes,
    RaftVoteOkRes, RaftVoteReq, RaftVoteRes, raft_append_entries_res, raft_bootstrap_res,
    raft_get_metrics_res, raft_install_snapshot_res, raft_vote_res,
};
use crate::types::MemberId;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

/// What the service works with. `append`, `answers` and `bootstrap` have their part of it.
pub(super) struct Inner {
    pub(super) raft: Raft<Types, StateMachine>,
    pub(super) log: LogStore,
    cluster: u64,
    pub(super) me: MemberId,
    pub(super) member: Box<dyn Member>,
    /// The first members, by id.
    pub(super) table: Arc<Vec<(MemberId, Peer)>>,
    /// Connections to those of them that are not us.
    pub(super) links: Vec<Link>,
    /// The snapshot that is coming in.
    inbox: Mutex<Inbox>,
    installs: Installs,
    options: Options,
}

/// What is said of a call that fails: which code, and why.
pub(super) type Failure = (ErrorCode, String);

/// What the service works on.
pub(super) struct Parts {
    pub raft: Raft<Types, StateMachine>,
    pub log: LogStore,
    /// Who we are.
    pub cluster: u64,
    pub me: MemberId,
    /// The first members.
    pub table: Vec<(MemberId, Peer)>,
    /// Connections to those of them that are not us.
    pub links: Vec<Link>,
    pub member: Box<dyn Member>,
    pub installs: Installs,
    pub options: Options,
}

impl Service {
    /// The service of a member, for gRPC. `table` has the first members of its cluster; `engine` answers questions once it is
    /// there.
    pub fn server(
        node: &Arc<Node>,
        engine: Arc<OnceLock<Engine>>,
        table: Vec<(MemberId, Peer)>,
        options: Options,
    ) -> RaftServer<Service> {
        let crate::raft::peer::Identity { cluster, member: me } = node.links().me();
        let others = table.iter().filter(|(id, _)| *id != me);
        let links = others.map(|(id, peer)| node.links().to(*id, &peer.urls)).collect();
        let (raft, log) = (node.raft().clone(), node.log().clone());
        let member = Box::new(Real { node: Arc::clone(node), engine });
        let installs = node.installs().clone();
        Service::new(Parts { raft, log, cluster, me, table, links, member, installs, options }).into_server()
    }

    pub(super) fn new(parts: Parts) -> Service {
        let Parts { raft, log, cluster, me, mut table, links, member, installs, options } = parts;
        table.sort_by_key(|(id, _)| *id);
        let table = Arc::new(table);
        let inbox = Mutex::new(Inbox::new(options.dir.clone(), options.quota));
        Service(Arc::new(Inner { raft, log, cluster, me, member, table, links, inbox, installs, options }))
    }

    pub(super) fn into_server(self) -> RaftServer<Service> {
        let gzip = self.0.options.gzip;
        let server = RaftServer::new(self)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        if gzip { server.send_compressed(CompressionEncoding::Gzip) } else { server }
    }
}

impl Inner {
    fn error(&self, msg_id: &str, (code, msg): Failure) -> RaftErrorRes {
        error(msg_id, code, self.options.code_base, msg)
    }

    /// The answer to a call with `call` beside it, with what we say of ourselves, and of the caller, beside the answer.
    fn answer<T>(
        &self,
        call: &MetadataMap,
        message: T,
        vote: Option<Vote>,
        last_log: Option<&LogId>,
    ) -> Response<T> {
        let mut response = Response::new(message);
        let vote = vote.unwrap_or_else(|| self.raft.metrics().borrow_watched().vote);
        let (term, index) = to_wire(last_log.copied().or_else(|| self.log.last()).as_ref());
        let metadata = response.metadata_mut();
        metadata.insert(EXTENSIONS, ascii("1"));
        metadata.insert(VOTE, ascii(&vote_text(&vote)));
        metadata.insert(LAST_LOG, ascii(&format!("{term}/{index}")));
        if self.removed(call).is_some() {
            metadata.insert(REMOVED, ascii("1"));
        }
        response
    }

    /// Who calls, if that is no member any more.
    fn removed(&self, call: &MetadataMap) -> Option<MemberId> {
        let is_ours = read_number(call, CLUSTER) == Some(self.cluster);
        read_number(call, FROM).filter(|from| is_ours && self.member.is_removed(*from))
    }

    /// Who says which cluster and member it means must mean us, and be a member if it says who it is.
    pub(super) fn check_address(&self, metadata: &MetadataMap, code: ErrorCode) -> Result<(), Failure> {
        for (name, ours) in [(CLUSTER, self.cluster), (TARGET, self.me)] {
            if metadata.contains_key(name) && read_number(metadata, name) != Some(ours) {
                return Err((code, format!("{name} is not {ours}, which is who this is")));
            }
        }
        // Who came later has none, and got its state from those who have.
        if let (Some(origin), Some(own)) = (read_number(metadata, ORIGIN), self.options.origin)
            && origin != own
        {
            let msg = "snapshot mismatch: the caller was restored from another snapshot, or from none, or with other flags";
            return Err((code, msg.to_owned()));
        }
        if !metadata.contains_key(CLUSTER) {
            tracing::debug!("a call of wolf.raft says not which cluster it means");
        }
        match self.removed(metadata) {
            Some(from) => Err((code, format!("member {from:x} was removed from the cluster for good"))),
            None => Ok(()),
        }
    }

    /// Terms and ids that a member can have.
    pub(super) fn check_caller(&self, id: MemberId, term: u64, code: ErrorCode) -> Result<(), Failure> {
        match id {
            _ if term > TERM_MAX => Err((code, format!("term {term} is too large"))),
            _ if id == self.me => Err((code, format!("member {id} is this one"))),
            _ => Ok(()),
        }
    }

    /// The last entry that this member knows to be committed.
    pub(super) async fn committed(&self) -> Result<Option<LogId>, String> {
        self.raft.with_raft_state(|state| state.local_committed().copied()).await.map_err(|e| e.to_string())
    }

    async fn vote(
        &self,
        metadata: &MetadataMap,
        request: &RaftVoteReq,
    ) -> Result<(Vote, bool, Option<LogId>), Failure> {
        const FAILED: ErrorCode = ErrorCode::RaftVoteFailed;
        self.check_address(metadata, FAILED)?;
        self.check_caller(request.candidate_id, request.term, FAILED)?;
        let vote = Vote::new(request.term, request.candidate_id);
        let mut question = VoteRequest::new(vote, from_wire(request.last_log_term, request.last_log_index));
        let kind = text(metadata, VOTE_KIND);
        let answer = match kind {
            Some(PRE_VOTE) => self.raft.pre_vote(question).await,
            None | Some(TRANSFER) => {
                question.leadership_transfer = kind.is_some();
                self.raft.vote(question).await
            }
            Some(kind) => return Err((FAILED, format!("there is no vote of kind {kind:?}"))),
        };
        let answer = answer.map_err(|e| (FAILED, e.to_string()))?;
        Ok((answer.vote, answer.vote_granted, answer.last_log_id))
    }

    /// Takes a piece, and installs the snapshot if it was the last one. Returns the vote to answer with.
    async fn install(
        &self,
        metadata: &MetadataMap,
        request: RaftInstallSnapshotReq,
    ) -> Result<Vote, Failure> {
        const FAILED: ErrorCode = ErrorCode::RaftInstallSnapshotFailed;
        let failed = |e: String| (FAILED, e);
        self.check_address(metadata, FAILED)?;
        self.check_caller(request.leader_id, request.term, FAILED)?;
        let vote = Vote::new_committed(request.term, request.leader_id);
        let ours = self.raft.metrics().borrow_watched().vote;
        if ours > vote {
            return Ok(ours);
        }
        let last = from_wire(request.last_included_term, request.last_included_index);
        let last = last.ok_or_else(|| failed("a snapshot of nothing".into()))?;
        if last.leader_id.term > request.term {
            return Err(failed("the snapshot is of a later term than its leader".into()));
        }
        check_leader(&ours, &vote).map_err(failed)?;
        self.member.hears(request.leader_id, &vote);
        let (offset, done) = (request.offset, request.done);
        let piece =
            Piece { leader: (request.term, request.leader_id), last, offset, done, data: request.data };
        let mut inbox = self.inbox.lock().await;
        let Some(received) = inbox.take(piece).await.map_err(failed)? else { return Ok(vote) };
        self.check_snapshot(last).await.map_err(failed)?;
        let vote = self.installs.install(&self.raft, vote, received).await.map_err(failed)?;
        inbox.is_in_place();
        Ok(vote)
    }

    /// A snapshot cannot contradict what is committed here.
    async fn check_snapshot(&self, last: LogId) -> Result<(), String> {
        match self.committed().await? {
            Some(committed) if last > committed && last.index <= committed.index => {
                Err(format!("entry {} is committed, and of another term", last.index + 1))
            }
            _ => Ok(()),
        }
    }
}

/// A term has one leader.
pub(super) fn check_leader(ours: &Vote, theirs: &Vote) -> Result<(), String> {
    let term = ours.leader_id.term;
    if ours.committed && term == theirs.leader_id.term && ours != theirs {
        return Err(format!("term {term} has another leader"));
    }
    Ok(())
}

#[tonic::async_trait]
impl Calls for Service {
    async fn bootstrap(
        &self,
        request: Request<RaftBootstrapReq>,
    ) -> Result<Response<RaftBootstrapRes>, Status> {
        use raft_bootstrap_res::Response;
        let (metadata, _, request) = request.into_parts();
        let begun = match self.0.check_address(&metadata, ErrorCode::RaftBootstrapFailed) {
            Ok(()) => self.0.begin(request.number_of_nodes).await,
            Err(failure) => Err(failure),
        };
        let response = match begun {
            Ok(()) => Response::OkRes(RaftBootstrapOkRes { msg_id: request.msg_id }),
            Err(failure) => Response::ErrorRes(self.0.error(&request.msg_id, failure)),
        };
        Ok(self.0.answer(&metadata, RaftBootstrapRes { response: Some(response) }, None, None))
    }

    async fn append_entries(
        &self,
        request: Request<RaftAppendEntriesReq>,
    ) -> Result<Response<RaftAppendEntriesRes>, Status> {
        use raft_append_entries_res::Response;
        let (call, _, RaftAppendEntriesReq { msg_id, req }) = request.into_parts();
        let (response, beside) = match self.0.append_or_take_in(&call, req).await {
            Ok((ok, beside)) => (Response::OkRes(RaftAppendEntriesOkRes { msg_id, ..ok }), beside),
            Err(failure) => (Response::ErrorRes(self.0.error(&msg_id, failure)), Beside::default()),
        };
        let message = RaftAppendEntriesRes { response: Some(response) };
        let mut answer = self.0.answer(&call, message, beside.vote, None);
        if !beside.refused.is_empty() {
            answer.metadata_mut().insert(REFUSED, write_numbers(&beside.refused));
        }
        Ok(answer)
    }

    async fn install_snapshot(
        &self,
        request: Request<RaftInstallSnapshotReq>,
    ) -> Result<Response<RaftInstallSnapshotRes>, Status> {
        use raft_install_snapshot_res::Response;
        let (metadata, _, request) = request.into_parts();
        let msg_id = request.msg_id.clone();
        let installed = self.0.install(&metadata, request).await;
        let vote = installed.as_ref().ok().copied();
        let response = match installed {
            Ok(vote) => Response::OkRes(RaftInstallSnapshotOkRes { msg_id, term: vote.leader_id.term }),
            Err(failure) => Response::ErrorRes(self.0.error(&msg_id, failure)),
        };
        Ok(self.0.answer(&metadata, RaftInstallSnapshotRes { response: Some(response) }, vote, None))
    }

    async fn vote(&self, request: Request<RaftVoteReq>) -> Result<Response<RaftVoteRes>, Status> {
        use raft_vote_res::Response;
        let (metadata, _, request) = request.into_parts();
        let answer = self.0.vote(&metadata, &request).await;
        let (vote, last) = answer.as_ref().map_or((None, None), |(vote, _, last)| (Some(*vote), *last));
        let response = match answer {
            Ok((vote, vote_granted, _)) => Response::OkRes(RaftVoteOkRes {
                msg_id: request.msg_id,
                term: vote.leader_id.term,
                vote_granted,
            }),
            Err(failure) => Response::ErrorRes(self.0.error(&request.msg_id, failure)),
        };
        Ok(self.0.answer(&metadata, RaftVoteRes { response: Some(response) }, vote, last.as_ref()))
    }

    async fn get_metrics(
        &self,
        request: Request<RaftGetMetricsReq>,
    ) -> Result<Response<RaftGetMetricsRes>, Status> {
        use raft_get_metrics_res::Response;
        let (call, _, RaftGetMetricsReq { msg_id }) = request.into_parts();
        let mut index = None;
        let response = match self.0.tell(&call).await {
            Ok(Told { metrics, read_index }) => {
                index = read_index;
                Response::OkRes(RaftGetMetricsOkRes { msg_id, metrics })
            }
            Err(failure) => Response::ErrorRes(self.0.error(&msg_id, failure)),
        };
        let mut answer = self.0.answer(&call, RaftGetMetricsRes { response: Some(response) }, None, None);
        if let Some(index) = index {
            answer.metadata_mut().insert(READ_INDEX, ascii(&index.saturating_add(1).to_string()));
        }
        Ok(answer)
    }
}
