//! Linearizable reads: up to which entry this member must have applied the log, asked in rounds. One question serves all
//! reads that wait when it is sent.

use super::Vote;
use super::leadership::Leadership;
use super::node::Node;
use crate::engine::error::Error;
use crate::metrics::METRICS;
use crate::types::MemberId;
use openraft::ReadPolicy;
use openraft::errors::RaftError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Reads that wait for the next round.
const READS_AHEAD: usize = 65_536;
/// Pause before a failed question is asked again.
const AGAIN: Duration = Duration::from_millis(20);
/// With so many voters, the leader and the one who asks are a quorum.
const VOTERS_MAX_OF_TWO: usize = 3;

/// A read that waits for the next round.
pub type Read = oneshot::Sender<Result<(), Error>>;

/// The queue of reads.
pub fn queue() -> (mpsc::Sender<Read>, mpsc::Receiver<Read>) {
    mpsc::channel(READS_AHEAD)
}

/// Asks in rounds until the queue ends. Rounds overlap while the log catches up with what they found.
pub async fn rounds(node: Arc<Node>, mut queue: mpsc::Receiver<Read>) {
    while let Some(first) = queue.recv().await {
        let mut reads = vec![first];
        while let Ok(read) = queue.try_recv() {
            reads.push(read);
        }
        reads.retain(|read| !read.is_closed());
        if reads.is_empty() {
            continue;
        }
        let found = tokio::time::timeout(node.request_timeout(), node.find_read_index()).await;
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let result = match found {
                Ok(Ok(index)) => node.has_applied(index).await,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::Timeout),
            };
            for read in reads {
                // Whoever waited may have gone.
                let _ = read.send(match &result {
                    Ok(()) => Ok(()),
                    Err(Error::Timeout) => Err(Error::Timeout),
                    Err(Error::Stopped) => Err(Error::Stopped),
                    Err(_) => Err(Error::NoLeader),
                });
            }
        });
    }
}

impl Node {
    /// Waits until reads here show everything that was acknowledged before the call.
    pub(super) async fn linearize(&self) -> Result<(), Error> {
        let (read, answer) = oneshot::channel();
        let answered = async {
            self.until_voting().await;
            self.reads().send(read).await.map_err(|_| Error::Stopped)?;
            answer.await.unwrap_or(Err(Error::Stopped))
        };
        match tokio::time::timeout(self.request_timeout(), answered).await {
            Ok(answer) => answer.inspect_err(|_| {
                METRICS.server.read_indexes_failed.inc();
            }),
            Err(_) => {
                METRICS.server.slow_read_indexes.inc();
                Err(Error::Timeout)
            }
        }
    }

    /// The index that a read must wait for, from whoever leads; tries again until there is one.
    async fn find_read_index(&self) -> Result<u64, Error> {
        loop {
            let seen = self.leadership();
            let found = if seen.leader == self.id() {
                self.read_index_here().await
            } else if seen.leader == 0 {
                Err(Error::NoLeader)
            } else {
                self.read_index_there(seen).await
            };
            match found {
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(_) => self.changed_or(AGAIN, seen).await,
                Ok(index) => return Ok(index),
            }
        }
    }

    async fn read_index_here(&self) -> Result<u64, Error> {
        match self.raft().get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(read.index()),
            Err(RaftError::Fatal(_)) => Err(Error::Stopped),
            Err(RaftError::APIError(_)) => Err(Error::NoLeader),
        }
    }

    /// The index that a read must wait for, if this member leads and its lease holds.
    pub(super) async fn lease_index(&self) -> Option<u64> {
        if self.leadership().leader != self.id() {
            return None;
        }
        let (read, _) = self.raft().get_read_log_id(ReadPolicy::LeaseRead).await.ok()?;
        Some(read.index())
    }

    async fn read_index_there(&self, seen: Leadership) -> Result<u64, Error> {
        let link = self.link(seen.leader).ok_or(Error::NoLeader)?;
        self.transports().read_index(link, self.log().promised()).await
    }

    /// Answers a follower as the leader. `promised` is the vote that the follower stands by: if that is the vote for this
    /// member, then nobody who needs the follower's vote has been elected meanwhile; with three voters, nobody at all.
    pub(super) async fn read_index_for(&self, from: MemberId, promised: Option<Vote>) -> Result<u64, Error> {
        if let Some(promised) = promised
            && promised.committed
            && promised.leader_id.voted_for == self.id()
            && let Some(index) = self.committed_with(from, promised).await?
        {
            return Ok(index);
        }
        self.read_index_here().await
    }

    /// The last committed entry, if this member leads by `vote`, has committed an entry of that term, and is a quorum
    /// together with `other`.
    async fn committed_with(&self, other: MemberId, vote: Vote) -> Result<Option<u64>, Error> {
        let found = self.raft().with_raft_state(move |state| {
            let leads = *state.vote_ref() == vote;
            let membership = state.membership_state.effective();
            let mut configs = membership.get_joint_config().iter();
            let is_quorum =
                |voters: &BTreeSet<u64>| voters.len() <= VOTERS_MAX_OF_TWO && voters.contains(&other);
            let is_enough = configs.len() == 1 && configs.all(is_quorum);
            let committed = state.cluster_committed().filter(|id| id.leader_id.term == vote.leader_id.term);
            committed.filter(|_| leads && is_enough).map(|id| id.index)
        });
        found.await.map_err(|_| Error::Stopped)
    }
}
