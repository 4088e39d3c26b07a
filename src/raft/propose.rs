//! Writes: proposed here if this member leads, else sent to the one that does.

use super::Types;
use super::leadership::Leadership;
use super::node::Node;
use super::peer::{Lane, Link};
use super::waiting::{Fate, Waiting};
use crate::engine::command::Applied;
use crate::engine::entry::{Entry, Ticket};
use crate::engine::error::Error;
use crate::pb::peer::ProposeRequest;
use crate::pb::peer::peer_client::PeerClient;
use crate::types::MemberId;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pause before a command is offered again that was refused and not lost.
const AGAIN: Duration = Duration::from_millis(5);
/// Commands that wait to be sent to the leader.
const FORWARDS_AHEAD: usize = 4096;
/// Commands, and bytes of them, that are sent at once.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches that wait for the network.
const BATCHES_AHEAD: usize = 16;

/// A command for the leader.
pub struct Forward {
    to: MemberId,
    term: u64,
    number: u64,
    entry: Entry,
}

impl Node {
    /// Gets an entry applied by whoever leads. Never proposes twice what may have been done.
    pub(super) async fn write(&self, entry: Entry) -> Result<Applied, Error> {
        loop {
            let seen = self.leadership();
            if seen.leader == self.id() {
                match self.write_here(entry.clone()).await? {
                    Some(applied) => return Ok(applied),
                    None => self.changed_or(AGAIN, seen).await,
                }
            } else if seen.leader == 0 {
                self.changed_or(Duration::MAX, seen).await;
            } else {
                match self.write_there(&entry, seen).await? {
                    Fate::Applied(applied) => return Ok(applied),
                    Fate::NotDone => self.changed_or(AGAIN, seen).await,
                    Fate::Unknown => return Err(Error::LeaderChanged),
                }
            }
        }
    }

    /// Gets an entry applied if this member leads in `term`, and else does nothing.
    pub(super) async fn write_in(&self, term: u64, entry: Entry) -> Result<Applied, Error> {
        let (responder, outcome) = ProgressResponder::<Types, ClientWriteResult<Types>>::complete_only();
        let written = self.raft().write(entry).responder(responder).with_leader(term).await;
        written.map_err(|_| Error::Stopped)?;
        match outcome.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(Error::NoLeader),
            Ok(Err(_)) => Err(Error::LeaderChanged),
            Err(_) => Err(Error::Stopped),
        }
    }

    /// `None`: it was not taken in.
    async fn write_here(&self, entry: Entry) -> Result<Option<Applied>, Error> {
        match self.raft().client_write(entry).await {
            Ok(response) => Ok(Some(response.data)),
            Err(RaftError::Fatal(_)) => Err(Error::Stopped),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Ok(None),
            Err(RaftError::APIError(_)) => Err(Error::LeaderChanged),
        }
    }

    async fn write_there(&self, entry: &Entry, to: Leadership) -> Result<Fate, Error> {
        let wait = self.waiting().begin(to.term);
        let ticket = Ticket { proposer: self.id(), number: wait.number };
        let entry = entry.ticketed(ticket);
        let forward = Forward { to: to.leader, term: to.term, number: wait.number, entry };
        self.forwards().send(forward).await.map_err(|_| Error::Stopped)?;
        Ok(wait.fate().await)
    }
}

/// The queue of commands for the leader.
pub fn queue() -> (mpsc::Sender<Forward>, mpsc::Receiver<Forward>) {
    mpsc::channel(FORWARDS_AHEAD)
}

/// Sends commands to the leader, many at once, in a stream that lasts as long as the leader does. Ends with the queue.
pub async fn forward(
    mut queue: mpsc::Receiver<Forward>,
    waiting: Arc<Waiting>,
    link: impl Fn(MemberId) -> Option<Link>,
    patience: Duration,
) {
    let mut open: Option<Open> = None;
    let mut next: Option<Forward> = None;
    loop {
        let first = match next.take() {
            Some(forward) => forward,
            None => match queue.recv().await {
                Some(forward) => forward,
                None => return,
            },
        };
        let (to, term, mut bytes) = (first.to, first.term, first.entry.bytes().len());
        let (mut numbers, mut entries) = (vec![first.number], vec![first.entry.bytes().clone()]);
        while entries.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match queue.try_recv() {
                Ok(forward) if (forward.to, forward.term) == (to, term) => {
                    bytes += forward.entry.bytes().len();
                    numbers.push(forward.number);
                    entries.push(forward.entry.bytes().clone());
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        if open.as_ref().is_none_or(|open| open.to != to || open.requests.is_closed()) {
            open = match link(to) {
                Some(link) => Open::to(&link, Arc::clone(&waiting), patience).await,
                None => None,
            };
        }
        let sent = match &open {
            Some(open) => open.requests.send(ProposeRequest { term, entries }).await.is_ok(),
            None => false,
        };
        if !sent {
            // Nothing has left: they may be offered again.
            numbers.into_iter().for_each(|number| waiting.refused(number));
            open = None;
        }
    }
}

/// A stream to the leader.
struct Open {
    to: MemberId,
    requests: mpsc::Sender<ProposeRequest>,
}

impl Open {
    /// Opens a stream; `None` if the leader does not answer. What it refuses is told to those who wait.
    async fn to(link: &Link, waiting: Arc<Waiting>, patience: Duration) -> Option<Open> {
        let (requests, stream) = mpsc::channel(BATCHES_AHEAD);
        let mut client = PeerClient::new(link.lane(Lane::Control)).max_encoding_message_size(usize::MAX);
        let call = client.propose(link.signed(ReceiverStream::new(stream)));
        let mut answers = match tokio::time::timeout(patience, call).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the leader takes no commands");
                return None;
            }
            Err(_) => return None,
        };
        tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                answer.refused.into_iter().for_each(|number| waiting.refused(number));
            }
        });
        Some(Open { to: link.target(), requests })
    }
}
