//! The node as the engine sees it.

use super::node::Node;
use super::{LogId, Types};
use crate::engine::ask::{Answer, Question, Whom};
use crate::engine::command::Applied;
use crate::engine::consensus::{BoxFuture, Consensus, Membership, PeerState, Status};
use crate::engine::entry::Entry;
use crate::engine::error::Error;
use crate::metrics::METRICS;
use crate::types::MemberId;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Proposals in flight; beyond this new ones are refused.
const PROPOSALS_MAX: u64 = 50_000;

/// Time between two looks at the membership, for whoever waits for a change of it. openraft notes everything in one
/// channel, and a change of members is the rarest.
const MEMBERSHIP_POLL: Duration = Duration::from_millis(100);

/// Counts a proposal while it lives.
struct InFlight<'n>(&'n AtomicU64);

impl<'n> InFlight<'n> {
    fn enter(count: &'n AtomicU64) -> Option<InFlight<'n>> {
        let entered = InFlight(count);
        METRICS.server.proposals_pending.inc();
        (count.fetch_add(1, Ordering::Relaxed) < PROPOSALS_MAX).then_some(entered)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        METRICS.server.proposals_pending.dec();
    }
}

impl Node {
    /// What is committed of the membership; `None` in the middle of a change, and while this member knows of none.
    fn committed_membership(&self) -> Option<Membership> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.committed_membership_config;
        let membership = stored.membership();
        let is_settled = membership.get_joint_config().len() == 1 && membership.voter_ids().next().is_some();
        is_settled.then(|| Membership {
            index: stored.log_id().as_ref().map_or(0, |id| id.index),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
        })
    }
}

impl Consensus for Node {
    fn propose(&self, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>> {
        Box::pin(async move {
            let _in_flight = InFlight::enter(&self.proposals).ok_or(Error::TooManyRequests)?;
            let write = async {
                self.until_voting().await;
                self.write(entry).await
            };
            let written = tokio::time::timeout(self.request_timeout, write).await;
            let result = written.unwrap_or(Err(Error::Timeout));
            if result.is_err() {
                METRICS.server.proposals_failed.inc();
            }
            result
        })
    }

    fn propose_in(&self, term: u64, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>> {
        Box::pin(async move {
            let written = tokio::time::timeout(self.request_timeout, self.write_in(term, entry)).await;
            written.unwrap_or(Err(Error::Timeout))
        })
    }

    fn read_index(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if self.is_sole_voter_leader.load(Ordering::SeqCst) {
                // Every acknowledged write has been applied here before it was acknowledged.
                return Ok(());
            }
            self.linearize().await
        })
    }

    fn lease_read(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if self.is_sole_voter_leader.load(Ordering::SeqCst) {
                return Ok(());
            }
            match self.lease_index().await {
                Some(index) => self.has_applied(index).await,
                None => self.linearize().await,
            }
        })
    }

    fn membership(&self, after: Option<u64>) -> BoxFuture<'_, Membership> {
        Box::pin(async move {
            loop {
                if let Some(found) =
                    self.committed_membership().filter(|found| after.is_none_or(|i| found.index > i))
                {
                    return found;
                }
                tokio::time::sleep(MEMBERSHIP_POLL).await;
            }
        })
    }

    fn applied(&self) -> u64 {
        self.applied.borrow().index
    }

    fn until_applied(&self, index: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.has_applied(index))
    }

    fn term(&self) -> u64 {
        self.leadership.borrow().term
    }

    fn status(&self) -> Status {
        let leadership = self.leadership();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        Status {
            leader: leadership.leader,
            term: metrics.current_term,
            committed: metrics.cluster_committed.or(metrics.last_applied).map_or(0, |id| id.index),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            is_learner: metrics.state == ServerState::Learner,
        }
    }

    fn move_leader(&self, to: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.hand_over(to))
    }

    fn peers(&self) -> Vec<PeerState> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return Vec::new() };
        let last = metrics.last_log_index.unwrap_or(0);
        let active = self.active_since.lock();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let state = |(id, matched): (&u64, &Option<LogId>)| PeerState {
            id: *id,
            active_ms: active.get(id).map(|since| since.elapsed().as_millis() as u64),
            is_voter: voters.contains(id),
            behind: matched.as_ref().map(|id| last.saturating_sub(id.index)),
        };
        replication.iter().filter(|(id, _)| **id != self.id).map(state).collect()
    }

    fn ask(&self, whom: Whom, question: Question) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(self.request_timeout, self.put_question(whom, question)).await;
            asked.unwrap_or(Err(Error::Timeout))
        })
    }

    fn left(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let metrics = self.raft.wait(Some(self.request_timeout));
            let is_gone =
                |m: &openraft::RaftMetrics<Types>| m.committed_membership_config.get_node(&id).is_none();
            metrics
                .metrics(is_gone, "a removed member takes part no more")
                .await
                .map(drop)
                .map_err(|_| Error::Timeout)
        })
    }
}
