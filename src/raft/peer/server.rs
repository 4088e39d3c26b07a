//! What other members call here.

use super::identity::{Gate, Identity};
use super::wire;
use crate::engine::Engine;
use crate::engine::ask::{Answer, Failure};
use crate::engine::entry::Entry;
use crate::metrics::METRICS;
use crate::mvcc;
use crate::mvcc::transfer::{Received, Receiver};
use crate::pb::peer as pb;
use crate::pb::peer::peer_server::{Peer, PeerServer};
use crate::raft::{Node, SnapshotData, propose};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use openraft::raft::TransferLeaderRequest;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long the next part of a snapshot may take; its sender rests between parts.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// Chunks of a snapshot that wait for the disk.
const CHUNKS_AHEAD: usize = 4;
/// Answers of a stream that wait for the network.
const ANSWERS_AHEAD: usize = 64;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Where received snapshots are put together.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// The member's directory.
    pub dir: PathBuf,
    /// Bytes of data allowed.
    pub quota: u64,
}

/// See the module.
pub struct Service {
    node: Arc<Node>,
    gate: Gate,
    engine: Arc<OnceLock<Engine>>,
    inbox: Inbox,
    /// One snapshot at a time.
    receiving: Mutex<()>,
}

impl Service {
    /// The service of a member; `engine` answers questions once it is there.
    pub fn server(
        node: Arc<Node>,
        me: Identity,
        engine: Arc<OnceLock<Engine>>,
        inbox: Inbox,
    ) -> PeerServer<Service> {
        let of = Arc::clone(&node);
        let gate = Gate::new(me, node.links().origin(), move |id| of.is_removed(id));
        let service = Service { node, gate, engine, inbox, receiving: Mutex::default() };
        PeerServer::new(service).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

#[tonic::async_trait]
impl Peer for Service {
    type AppendStream = Answers<pb::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let from = self.gate.admit(request.metadata())?;
        let node = Arc::clone(&self.node);
        let requests = request.into_inner().map(|request| request.and_then(wire::to_append));
        let requests = requests.scan((), move |(), request| {
            let request = request.inspect_err(|error| tracing::debug!(%error, "entries stopped coming")).ok();
            if let Some(request) = &request {
                node.hears_from(from, &request.vote);
            }
            std::future::ready(request)
        });
        let results = self.node.raft().stream_append(requests);
        Ok(Response::new(Box::pin(results.map(|result| result.map(wire::from_appended).map_err(fatal)))))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let from = self.gate.admit(request.metadata())?;
        let request = wire::to_append(request.into_inner())?;
        self.node.hears_from(from, &request.vote);
        let (previous, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let answer = self.node.raft().append_entries(request).await.map_err(fatal)?;
        let result = match (answer, previous) {
            (openraft::raft::AppendEntriesResponse::Conflict, None) => {
                return Err(Status::internal("a conflict with nothing"));
            }
            (answer, _) => answer.into_stream_result(previous, last.or(previous)),
        };
        Ok(Response::new(wire::from_appended(result)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        self.gate.admit(request.metadata())?;
        let request = request.into_inner();
        let is_trial = request.is_trial;
        let request = wire::to_vote_request(request)?;
        let raft = self.node.raft();
        let answer = if is_trial { raft.pre_vote(request).await } else { raft.vote(request).await };
        Ok(Response::new(wire::from_vote_response(&answer.map_err(fatal)?)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let from = self.gate.admit(request.metadata())?;
        let mut parts = request.into_inner();
        let first = next_part(&mut parts).await?.ok_or_else(|| Status::cancelled("no snapshot came"))?;
        let vote = wire::to_vote(first.vote)?;
        self.node.hears_from(from, &vote);
        let _receiving = self.receiving.lock().await;
        let transfer = METRICS.peers.receives_snapshot(from);
        tracing::info!("remote-peer-id" = format!("{from:x}"), "receiving database snapshot");
        let received = self.receive(first.chunk, parts).await.inspect_err(|error| {
            tracing::warn!("remote-peer-id" = format!("{from:x}"), %error, "failed to receive database snapshot");
        })?;
        // It stands where its own rows say, which may be further than the leader knew when it began.
        let snapshot = SnapshotData::Received(received).with_meta().map_err(fatal)?;
        let snapshot = snapshot.ok_or_else(|| Status::invalid_argument("a snapshot of nothing"))?;
        let index = snapshot.meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let vote = self.node.installs().install(self.node.raft(), vote, snapshot).await.map_err(fatal)?;
        transfer.succeeded();
        tracing::info!(index, "received and installed database snapshot");
        Ok(Response::new(pb::SnapshotResponse { vote: Some(wire::from_vote(&vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        self.gate.admit(request.metadata())?;
        let request = request.into_inner();
        let from = wire::to_vote(request.from)?;
        let request = TransferLeaderRequest::new(from, request.to, request.last.map(wire::to_log_id));
        let answer = self.node.raft().handle_transfer_leader(request).await.map_err(fatal)?;
        let refused = answer.err().map_or_else(String::new, |error| error.to_string());
        Ok(Response::new(pb::TransferLeaderResponse { refused }))
    }

    type ProposeStream = Answers<pb::ProposeResponse>;

    async fn propose(
        &self,
        request: Request<Streaming<pb::ProposeRequest>>,
    ) -> Result<Response<Self::ProposeStream>, Status> {
        self.gate.admit(request.metadata())?;
        let (answers, stream) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(take_in(Arc::clone(&self.node), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        let from = self.gate.admit(request.metadata())?;
        let promised = request.into_inner().promised.map(|vote| wire::to_vote(Some(vote))).transpose()?;
        match self.node.read_index_for(from, promised).await {
            Ok(index) => Ok(Response::new(pb::ReadIndexResponse { index })),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn ask(&self, request: Request<pb::AskRequest>) -> Result<Response<pb::AskResponse>, Status> {
        self.gate.admit(request.metadata())?;
        let question = postcard::from_bytes(&request.into_inner().question)
            .map_err(|error| Status::invalid_argument(format!("a question of a newer version: {error}")))?;
        let answer = match self.engine.get() {
            Some(engine) => engine.answer(question).await,
            None => Answer::Failed(Failure::NoLeader), // it has only just started
        };
        let answer = postcard::to_stdvec(&answer).map_err(fatal)?;
        Ok(Response::new(pb::AskResponse { answer: answer.into() }))
    }
}

impl Service {
    /// Puts a snapshot together on a thread that may block.
    async fn receive(
        &self,
        first: Bytes,
        mut parts: Streaming<pb::SnapshotPart>,
    ) -> Result<Received, Status> {
        let Inbox { dir, quota } = self.inbox.clone();
        let (chunks, mut queue) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let building = tokio::task::spawn_blocking(move || {
            let mut receiver = Receiver::create(&dir, quota)?;
            while let Some(chunk) = queue.blocking_recv() {
                receiver.push(chunk)?;
            }
            // Without the sender's word that this was all, the stream broke: what came is dropped.
            end.blocking_recv().map_err(|_| mvcc::Error::Interrupted)?;
            receiver.finish()
        });
        let mut next = Some(first);
        while let Some(chunk) = next {
            if chunks.send(chunk).await.is_err() {
                break; // the builder failed, and says why
            }
            next = next_part(&mut parts).await?.map(|part| part.chunk);
        }
        drop(chunks);
        // Nobody listens if the builder failed.
        let _ = ended.send(());
        building.await.map_err(fatal)?.map_err(fatal)
    }
}

async fn next_part(parts: &mut Streaming<pb::SnapshotPart>) -> Result<Option<pb::SnapshotPart>, Status> {
    match tokio::time::timeout(PART_TIMEOUT, parts.message()).await {
        Ok(part) => part,
        Err(_) => Err(Status::deadline_exceeded("the next part of the snapshot did not come")),
    }
}

/// Proposes what another member took in, and tells it what was refused, until it hangs up.
async fn take_in(
    node: Arc<Node>,
    mut requests: Streaming<pb::ProposeRequest>,
    answers: mpsc::Sender<Result<pb::ProposeResponse, Status>>,
) {
    let mut outcomes = FuturesUnordered::new();
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(pb::ProposeRequest { term, entries })) = request else { return };
                for bytes in entries {
                    let Ok(entry) = Entry::decode(bytes) else {
                        tracing::error!("another member proposed what is no entry: is it of a newer version?");
                        return;
                    };
                    let Some(ticket) = entry.ticket() else { return };
                    let Ok(refused) = propose::take_in(node.raft(), term, entry).await else {
                        return; // consensus has failed, and the process ends
                    };
                    outcomes.push(async move { (ticket.number, refused.await) });
                }
            }
            Some((number, is_refused)) = outcomes.next(), if !outcomes.is_empty() => {
                if is_refused
                    && answers.send(Ok(pb::ProposeResponse { refused: vec![number] })).await.is_err()
                {
                    return;
                }
            }
        }
    }
}
