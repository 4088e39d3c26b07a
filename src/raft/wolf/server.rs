//! Answers other members, and whoever wants to look: the five calls of `wolf.raft` over this member's part in consensus.
//! Whatever comes is checked before openraft sees it, since openraft takes what a cluster cannot produce for a bug and panics.

use super::super::log_store::LogStore;
use super::super::node::Node;
use super::super::peer::Link;
use super::super::state_machine::StateMachine;
use super::super::{LogId, Peer, Types, Vote};
use super::snapshot::{Inbox, Piece};
use super::{
    CLUSTER, Client, EXTENSIONS, INLINE_BYTES_MAX, LAST_LOG, MESSAGE_BYTES_MAX, Options, PRE_VOTE, TARGET,
    TERM_MAX, TRANSFER, VOTE, VOTE_KIND, ascii, error, from_wire, json, read_number, to_wire, vote_text,
};
use crate::pb::wolf::raft_server::{Raft as Calls, RaftServer};
use crate::pb::wolf::{
    ConflictOpt, ErrorCode, RaftAppendEntriesOkRes, RaftAppendEntriesReq, RaftAppendEntriesRes,
    RaftBootstrapOkRes, RaftBootstrapReq, RaftBootstrapRes, RaftErrorRes, RaftGetMetricsOkRes,
    RaftGetMetricsReq, RaftGetMetricsRes, RaftInstallSnapshotOkRes, RaftInstallSnapshotReq,
    RaftInstallSnapshotRes, RaftVoteOkRes, RaftVoteReq, RaftVoteRes, raft_append_entries_res,
    raft_bootstrap_res, raft_get_metrics_res, raft_install_snapshot_res, raft_vote_res,
};
use crate::types::MemberId;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// How long another member may take to say whether it is in a cluster.
const METRICS_TIME_MAX: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    raft: Raft<Types, StateMachine>,
    log: LogStore,
    cluster: u64,
    me: MemberId,
    /// The first members, by id.
    table: Arc<Vec<(MemberId, Peer)>>,
    /// Connections to those of them that are not us.
    links: Vec<Link>,
    hears: Box<dyn Fn(MemberId, &Vote) + Send + Sync>,
    /// The snapshot that is coming in.
    inbox: Mutex<Inbox>,
    options: Options,
}

/// What is said of a call that fails: which code, and why.
type Failure = (ErrorCode, String);

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
    /// Told of every leader and candidate that calls.
    pub hears: Box<dyn Fn(MemberId, &Vote) + Send + Sync>,
    pub options: Options,
}

impl Service {
    /// The service of a member, for gRPC. `table` has the first members of its cluster.
    pub fn server(node: &Arc<Node>, table: Vec<(MemberId, Peer)>, options: Options) -> RaftServer<Service> {
        let crate::raft::peer::Identity { cluster, member: me } = node.links().me();
        let others = table.iter().filter(|(id, _)| *id != me);
        let links = others.map(|(id, peer)| node.links().to(*id, &peer.urls)).collect();
        let (of, raft, log) = (Arc::clone(node), node.raft().clone(), node.log().clone());
        let hears = Box::new(move |id, vote: &Vote| of.hears_from(id, vote));
        Service::new(Parts { raft, log, cluster, me, table, links, hears, options }).into_server()
    }

    pub(super) fn new(parts: Parts) -> Service {
        let Parts { raft, log, cluster, me, mut table, links, hears, options } = parts;
        table.sort_by_key(|(id, _)| *id);
        let table = Arc::new(table);
        let inbox = Mutex::new(Inbox::new(options.dir.clone(), options.quota));
        Service(Arc::new(Inner { raft, log, cluster, me, table, links, hears, inbox, options }))
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

    /// The answer with what we say of ourselves beside it.
    fn answer<T>(&self, message: T, vote: Option<Vote>, last_log: Option<&LogId>) -> Response<T> {
        let mut response = Response::new(message);
        let vote = vote.unwrap_or_else(|| self.raft.metrics().borrow_watched().vote);
        let (term, index) = to_wire(last_log.copied().or_else(|| self.log.last()).as_ref());
        let metadata = response.metadata_mut();
        metadata.insert(EXTENSIONS, ascii("1"));
        metadata.insert(VOTE, ascii(&vote_text(&vote)));
        metadata.insert(LAST_LOG, ascii(&format!("{term}/{index}")));
        response
    }

    /// Who says which cluster and member it means must mean us.
    fn check_address(&self, metadata: &MetadataMap, code: ErrorCode) -> Result<(), Failure> {
        for (name, ours) in [(CLUSTER, self.cluster), (TARGET, self.me)] {
            if metadata.contains_key(name) && read_number(metadata, name) != Some(ours) {
                return Err((code, format!("{name} is not {ours}, which is who this is")));
            }
        }
        if !metadata.contains_key(CLUSTER) {
            tracing::warn!("a call of wolf.raft says not which cluster it means");
        }
        Ok(())
    }

    /// Terms and ids that a member can have.
    fn check_caller(&self, id: MemberId, term: u64, code: ErrorCode) -> Result<(), Failure> {
        match id {
            _ if term > TERM_MAX => Err((code, format!("term {term} is too large"))),
            _ if id == self.me => Err((code, format!("member {id} is this one"))),
            _ => Ok(()),
        }
    }

    async fn begin(&self, wanted: u64) -> Result<(), Failure> {
        let failed = |msg: String| (ErrorCode::RaftBootstrapFailed, msg);
        if wanted == 0 {
            return Err(failed("number_of_nodes must be at least 1".into()));
        }
        let first = usize::try_from(wanted).ok().and_then(|n| self.table.get(..n));
        let first = first.ok_or_else(|| {
            failed(format!("number_of_nodes is {wanted}, but only {} are known", self.table.len()))
        })?;
        if !first.iter().any(|(id, _)| *id == self.me) {
            return Err(failed(format!("member {} is not among the first {wanted}", self.me)));
        }
        // Asked before others are, so that a second call costs nothing.
        if self.raft.is_initialized().await.map_err(|e| failed(e.to_string()))? {
            let leader = self.raft.metrics().borrow_watched().current_leader;
            let leader = leader.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            return Err(failed(format!(
                "NotAllowed: this member is in a cluster already; its leader is {leader}"
            )));
        }
        self.check_others().await.map_err(failed)?;
        let members: BTreeMap<MemberId, Peer> = first.iter().cloned().collect();
        self.raft.initialize(members).await.map_err(|e| failed(format!("NotAllowed or impossible: {e}")))
    }

    /// Nobody whom we can ask may be in a cluster without us: there would be two.
    async fn check_others(&self) -> Result<(), String> {
        let questions = self.links.iter().map(|link| async move {
            let mut client = Client::new(link.clone(), Options::default());
            let metrics = tokio::time::timeout(METRICS_TIME_MAX, client.metrics()).await;
            match metrics {
                Ok(Ok(metrics)) if json::is_elsewhere(&metrics, self.me) => Err(link.target()),
                _ => Ok(()),
            }
        });
        let answers = futures_util::future::join_all(questions).await;
        match answers.into_iter().find_map(Result::err) {
            Some(id) => Err(format!("member {id} is in a cluster that does not know this member")),
            None => Ok(()),
        }
    }

    async fn append(
        &self,
        metadata: &MetadataMap,
        json: String,
    ) -> Result<(Vote, AppendEntriesResponse<Types>), Failure> {
        const FAILED: ErrorCode = ErrorCode::RaftAppendEntriesFailed;
        self.check_address(metadata, FAILED)?;
        let append = self.read(json).await?;
        let vote = append.vote;
        self.check_caller(vote.leader_id.voted_for, vote.leader_id.term, FAILED)?;
        let ours = self.raft.metrics().borrow_watched().vote;
        if ours > vote {
            return Ok((vote, AppendEntriesResponse::HigherVote(ours)));
        }
        check_leader(&ours, &vote).map_err(|e| (FAILED, e))?;
        (self.hears)(vote.leader_id.voted_for, &vote);
        let plan = self.plan(append).await.map_err(|e| (FAILED, e))?;
        let is_conflict = plan.is_none();
        let request = plan.unwrap_or(AppendEntriesRequest {
            vote,
            prev_log_id: None,
            entries: vec![],
            leader_commit: None,
        });
        match self.raft.append_entries(request).await.map_err(|e| (FAILED, e.to_string()))? {
            AppendEntriesResponse::Success if is_conflict => Ok((vote, AppendEntriesResponse::Conflict)),
            answer => Ok((vote, answer)),
        }
    }

    /// Reads a request, where it delays nobody if it is long.
    async fn read(&self, json: String) -> Result<json::Append, Failure> {
        let append = if json.len() <= INLINE_BYTES_MAX {
            json::read_append(&json, &self.table)
        } else {
            let table = Arc::clone(&self.table);
            let read = tokio::task::spawn_blocking(move || json::read_append(&json, &table)).await;
            read.map_err(|e| (ErrorCode::RaftAppendEntriesFailed, e.to_string()))?
        };
        append
            .map_err(|e| (ErrorCode::RaftAppendEntriesJsonOfReqIsNotValid, format!("req is no request: {e}")))
    }

    /// What openraft may see of a request. Nothing if the entry before has another term here: then the leader is heard, but
    /// our entries stay until there are others for their places.
    async fn plan(&self, append: json::Append) -> Result<Option<AppendEntriesRequest<Types>>, String> {
        if let Some(prev) = append.prev {
            if self.id_at(prev.index).await?.is_some_and(|ours| ours != prev) {
                return Ok(None);
            }
        }
        let committed = self.committed().await?;
        for entry in
            append.entries.iter().take_while(|entry| Some(entry.log_id.index) <= committed.map(|id| id.index))
        {
            if self.id_at(entry.log_id.index).await?.is_some_and(|ours| ours != entry.log_id) {
                return Err(format!("entry {} is committed, and of another term", entry.log_id.index + 1));
            }
        }
        let leader_commit = self.leader_commit(&append).await?;
        let json::Append { vote, prev, entries, .. } = append;
        Ok(Some(AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit }))
    }

    /// Up to where the leader has committed: in the term that it says, which must be that of the entry if we can know; if it
    /// says none and we cannot know, nowhere: the next request will say more.
    async fn leader_commit(&self, append: &json::Append) -> Result<Option<LogId>, String> {
        let Some(index) = append.commit_index.checked_sub(1) else { return Ok(None) };
        let entry =
            append.entries.iter().map(|entry| entry.log_id).chain(append.prev).find(|id| id.index == index);
        let known = match append.prev {
            Some(prev) if index < prev.index => self.id_at(index).await?,
            _ => entry,
        };
        let said = append.commit_term.and_then(|term| from_wire(term, append.commit_index));
        match (known, said) {
            (Some(known), Some(said)) if known != said => {
                Err(format!("leader_commit {} is of another term", index + 1))
            }
            (_, Some(said)) if said.leader_id.term > append.vote.leader_id.term => {
                Err("leader_commit is of a later term than the leader".into())
            }
            _ => Ok(known.or(said)),
        }
    }

    /// The last entry that this member knows to be committed.
    async fn committed(&self) -> Result<Option<LogId>, String> {
        self.raft.with_raft_state(|state| state.local_committed().copied()).await.map_err(|e| e.to_string())
    }

    /// Id of the entry at an index of the log, if it is not purged.
    async fn id_at(&self, index: u64) -> Result<Option<LogId>, String> {
        self.raft.with_raft_state(move |state| state.log_ids.get(index)).await.map_err(|e| e.to_string())
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
        let kind = metadata.get(VOTE_KIND).map(|kind| kind.to_str().unwrap_or_default());
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
        (self.hears)(request.leader_id, &vote);
        let (offset, done) = (request.offset, request.done);
        let piece =
            Piece { leader: (request.term, request.leader_id), last, offset, done, data: request.data };
        let mut inbox = self.inbox.lock().await;
        let Some(received) = inbox.take(piece).await.map_err(failed)? else { return Ok(vote) };
        self.check_snapshot(last).await.map_err(failed)?;
        let answer =
            self.raft.install_full_snapshot(vote, received).await.map_err(|e| failed(e.to_string()))?;
        Ok(answer.vote)
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
fn check_leader(ours: &Vote, theirs: &Vote) -> Result<(), String> {
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
        Ok(self.0.answer(RaftBootstrapRes { response: Some(response) }, None, None))
    }

    async fn append_entries(
        &self,
        request: Request<RaftAppendEntriesReq>,
    ) -> Result<Response<RaftAppendEntriesRes>, Status> {
        use raft_append_entries_res::Response;
        let (metadata, _, RaftAppendEntriesReq { msg_id, req }) = request.into_parts();
        let (mut vote, mut ok) = (None, RaftAppendEntriesOkRes { msg_id, ..Default::default() });
        let response = match self.0.append(&metadata, req).await {
            Err(failure) => Response::ErrorRes(self.0.error(&ok.msg_id, failure)),
            Ok((leader, answer)) => {
                ok.term = leader.leader_id.term;
                match answer {
                    AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {
                        ok.success = true
                    }
                    AppendEntriesResponse::Conflict => {
                        let (term, index) = to_wire(self.0.log.last().as_ref());
                        ok.conflict_opt = Some(ConflictOpt { term, index });
                    }
                    AppendEntriesResponse::HigherVote(higher) => {
                        ok.term = higher.leader_id.term;
                        vote = Some(higher);
                    }
                }
                Response::OkRes(ok)
            }
        };
        Ok(self.0.answer(RaftAppendEntriesRes { response: Some(response) }, vote, None))
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
        Ok(self.0.answer(RaftInstallSnapshotRes { response: Some(response) }, vote, None))
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
        Ok(self.0.answer(RaftVoteRes { response: Some(response) }, vote, last.as_ref()))
    }

    async fn get_metrics(
        &self,
        request: Request<RaftGetMetricsReq>,
    ) -> Result<Response<RaftGetMetricsRes>, Status> {
        use raft_get_metrics_res::Response;
        let (metadata, _, RaftGetMetricsReq { msg_id }) = request.into_parts();
        const FAILED: ErrorCode = ErrorCode::RaftGetMetricsFailed;
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        let answer = self.0.check_address(&metadata, FAILED);
        let answer = answer.and_then(|()| json::metrics(&metrics).map_err(|e| (FAILED, e.to_string())));
        let response = match answer {
            Ok(metrics) => Response::OkRes(RaftGetMetricsOkRes { msg_id, metrics }),
            Err(failure) => Response::ErrorRes(self.0.error(&msg_id, failure)),
        };
        Ok(self.0.answer(RaftGetMetricsRes { response: Some(response) }, None, None))
    }
}
