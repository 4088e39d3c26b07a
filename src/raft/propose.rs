//! Writes: proposed here if this member leads, else sent to the one that does.

use super::Types;
use super::leadership::Leadership;
use super::node::Node;
use super::peer::Link;
use super::state_machine::StateMachine;
use super::transport::{Batch, Transports};
use super::waiting::{Fate, Waiting};
use crate::engine::command::Applied;
use crate::engine::entry::{Entry, Ticket};
use crate::engine::error::Error;
use crate::types::MemberId;
use openraft::Raft;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

/// Pause before a command is offered again that was refused and not lost.
const AGAIN: Duration = Duration::from_millis(5);
/// Commands that wait to be sent to the leader.
const FORWARDS_AHEAD: usize = 4096;
/// Commands, and bytes of them, that are sent at once.
pub(super) const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A command for the leader.
pub struct Forward {
    pub(super) to: MemberId,
    pub(super) term: u64,
    pub(super) entry: Entry,
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
        let forward = Forward { to: to.leader, term: to.term, entry };
        self.forwards().send(forward).await.map_err(|_| Error::Stopped)?;
        Ok(wait.fate().await)
    }
}

/// The queue of commands for the leader.
pub fn queue() -> (mpsc::Sender<Forward>, mpsc::Receiver<Forward>) {
    mpsc::channel(FORWARDS_AHEAD)
}

/// Sends commands to the leader, many at once, by a way that is open as long as the leader lasts. Ends with the queue.
pub async fn forward(
    mut queue: mpsc::Receiver<Forward>,
    waiting: Arc<Waiting>,
    link: impl Fn(MemberId) -> Option<Link>,
    transports: Transports,
) {
    let mut open: Option<(MemberId, mpsc::Sender<Batch>)> = None;
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
        let mut entries = vec![first.entry];
        while entries.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match queue.try_recv() {
                Ok(forward) if (forward.to, forward.term) == (to, term) => {
                    bytes += forward.entry.bytes().len();
                    entries.push(forward.entry);
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        if open.as_ref().is_none_or(|(whom, batches)| *whom != to || batches.is_closed()) {
            let way = match link(to) {
                Some(link) => transports.propose(link, Arc::clone(&waiting)).await,
                None => None,
            };
            open = way.map(|batches| (to, batches));
        }
        let batch = Batch { term, entries };
        let unsent = match &open {
            // A leader that does not keep up may be none any more.
            Some((_, batches)) => {
                batches.send_timeout(batch, transports.patience).await.err().map(SendTimeoutError::into_inner)
            }
            None => Some(batch),
        };
        if let Some(batch) = unsent {
            // Nothing has left: they may be offered again.
            batch.refused(&waiting);
            open = None;
        }
    }
}

/// As the leader of `term`, takes in a command that another member sent. What this gives resolves when its outcome is known,
/// with whether it was refused: only that says that nothing was done and nothing will be. An error: consensus has failed.
pub(super) async fn take_in(
    raft: &Raft<Types, StateMachine>,
    term: u64,
    entry: Entry,
) -> Result<impl Future<Output = bool> + Send + use<>, Fatal<Types>> {
    let (responder, outcome) = ProgressResponder::<Types, ClientWriteResult<Types>>::complete_only();
    raft.write(entry).responder(responder).with_leader(term).await?;
    Ok(async move { matches!(outcome.await, Ok(Err(ClientWriteError::ForwardToLeader(_)))) })
}
