//! openraft's calls over a link.

use super::link::{Lane, Link};
use super::{identity, wire};
use crate::metrics::METRICS;
use crate::mvcc::Store;
use crate::mvcc::transfer::Sender;
use crate::pb::peer as pb;
use crate::pb::peer::peer_client::PeerClient;
use crate::raft::network::{Activity, failed};
use crate::raft::{Snapshot, SnapshotData, Types, Vote};
use futures_util::{Stream, StreamExt, TryStreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Chunks of a snapshot that are read ahead of the network.
const CHUNKS_AHEAD: usize = 2;
/// Rest between two chunks, as a multiple of the time that one took: a member that catches up must not crowd out the rest.
const SNAPSHOT_PAUSE: u32 = 1;

/// What becomes of each request of a stream.
type Results<'s> = openraft::base::BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// A connection to one peer for one purpose.
pub struct Client {
    link: Link,
    activity: Activity,
    /// Answers that take longer than this are not waited for.
    patience: Duration,
}

impl Client {
    /// A connection over `link`.
    pub fn new(link: Link, activity: Activity, patience: Duration) -> Client {
        Client { link, activity, patience }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn client(&self, lane: Lane) -> PeerClient<Channel> {
        PeerClient::new(self.link.lane(lane))
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Takes note of what a failed call brings to light.
    pub(super) fn note(&self, status: &Status) {
        if status.code() == Code::Unavailable {
            self.activity.lost(self.link.target());
        }
        if identity::tells_removal(status) {
            self.activity.removed();
        }
    }

    /// Turns the outcome of a call into openraft's words, and takes note of it.
    fn heard<T>(&self, result: Result<T, Status>) -> Result<T, RPCError<Types>> {
        result.inspect_err(|status| self.note(status)).map_err(|status| failed(&status))
    }

    async fn within<T>(
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// One request, one answer: a heartbeat.
    pub async fn append(
        &self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Control);
        let call = client.heartbeat(self.link.signed(wire::from_append(request)));
        let answer = Client::within(option.hard_ttl(), call).await.and_then(wire::to_appended);
        let answer = self.heard(answer).inspect_err(|_| METRICS.server.heartbeat_send_failures.inc())?;
        Ok(answer.into())
    }

    /// Requests one after the other, without waiting for answers in between.
    pub async fn stream_append<'s, S>(&'s mut self, input: S) -> Result<Results<'s>, RPCError<Types>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        // An answer is due only while there are requests without one.
        let sent = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&sent);
        let requests = input.map(move |request| {
            counting.fetch_add(1, Ordering::Relaxed);
            wire::from_append(request)
        });
        let mut client = self.client(Lane::Log);
        // The answer's head comes at once, before the first request is looked at.
        let opened = Client::within(self.patience, client.append(self.link.signed(requests))).await;
        let answers = self.heard(opened)?;
        let this = &*self;
        let results = futures_util::stream::try_unfold((answers, 0u64), move |(mut answers, answered)| {
            let sent = Arc::clone(&sent);
            async move {
                let answer = this.heard(next_answer(&mut answers, &sent, answered, this.patience).await)?;
                let Some(answer) = answer else { return Ok(None) };
                let result = this.heard(wire::to_appended(answer))?;
                Ok(Some((result, (answers, answered + 1))))
            }
        });
        Ok(Box::pin(results))
    }

    /// Asks for a vote; `is_trial`: whether it would be given.
    pub async fn vote(
        &self,
        request: VoteRequest<Types>,
        option: RPCOption,
        is_trial: bool,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Control);
        let call = client.vote(self.link.signed(wire::from_vote_request(&request, is_trial)));
        let answer = Client::within(option.hard_ttl(), call).await.and_then(wire::to_vote_response);
        self.heard(answer)
    }

    /// Tells of a hand-over.
    pub async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let from = *request.from_leader();
        let message = pb::TransferLeaderRequest {
            from: Some(wire::from_vote(&from)),
            to: *request.to_node_id(),
            last: request.last_log_id().map(wire::from_log_id),
        };
        let mut client = self.client(Lane::Control);
        let call = client.transfer_leader(self.link.signed(message));
        let answer = self.heard(Client::within(option.hard_ttl(), call).await)?;
        Ok(match answer.refused.is_empty() {
            true => Ok(()),
            // Which of the reasons it is makes no difference to the one who asks.
            false => Err(TransferLeaderError::VoteChanged { expected: from, actual: from }),
        })
    }

    /// Sends the state, and waits until it is in place.
    pub async fn full_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Own(store) = snapshot.snapshot else {
            let error = std::io::Error::other("a received snapshot is never sent on");
            return Err(StreamingError::Network(NetworkError::new(&error)));
        };
        let (sender, parts) = mpsc::channel(CHUNKS_AHEAD);
        let vote = wire::from_vote(&vote);
        let reading = tokio::task::spawn_blocking(move || read(&store, vote, &sender));
        let mut client = self.client(Lane::Snapshot);
        let call = pin!(client.snapshot(self.link.signed(ReceiverStream::new(parts))));
        let answer = tokio::select! {
            answer = call => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        // The reader ends with the call: nobody takes its parts any more.
        if let Ok(Err(error)) = reading.await {
            tracing::warn!(%error, "could not read the state for a snapshot");
        }
        let answer = self.heard(answer.map(tonic::Response::into_inner)).map_err(StreamingError::from)?;
        let vote = wire::to_vote(answer.vote).map_err(|status| StreamingError::from(failed(&status)))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// The next answer of a stream; an error if one is due and does not come.
async fn next_answer(
    answers: &mut tonic::Streaming<pb::AppendResponse>,
    sent: &AtomicU64,
    answered: u64,
    patience: Duration,
) -> Result<Option<pb::AppendResponse>, Status> {
    let mut next = pin!(answers.try_next());
    loop {
        let was_due = sent.load(Ordering::Relaxed) > answered;
        match tokio::time::timeout(patience, next.as_mut()).await {
            Ok(answer) => return answer,
            // It is late only if it was due all the time.
            Err(_) if was_due => return Err(Status::deadline_exceeded("no answer to an append in time")),
            Err(_) => {}
        }
    }
}

/// Reads the state of the last flush into parts, on a thread that may block.
fn read(store: &Store, vote: pb::Vote, parts: &mpsc::Sender<pb::SnapshotPart>) -> crate::mvcc::Result<()> {
    let mut sender = Sender::open(store)?;
    let mut vote = Some(vote);
    loop {
        let begin = std::time::Instant::now();
        let Some(chunk) = sender.next()? else { return Ok(()) };
        if parts.blocking_send(pb::SnapshotPart { vote: vote.take(), chunk }).is_err() {
            return Ok(()); // the call is over
        }
        std::thread::sleep(begin.elapsed() * SNAPSHOT_PAUSE);
    }
}
