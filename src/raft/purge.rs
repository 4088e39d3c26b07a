//! Which log entries are kept.
//!
//! openraft purges only what is in a snapshot; here the last flush is one. Entries that are still to be applied come after it,
//! so that no purge reaches them. The margin is for followers: one that lacks no more than that gets entries, not a snapshot.

use super::node::Node;
use crate::engine::apply::LogPosition;
use openraft::async_runtime::WatchReceiver;
use std::sync::atomic::Ordering;

/// How many entries are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Below the last flush, in any case.
    pub margin: u64,
    /// Below the last flush, for followers that still need them.
    pub for_followers: u64,
    /// Purges happen in steps of at least so many.
    pub step: u64,
}

/// Entries kept for a follower that a snapshot is on its way to; one that needs more time is beyond help.
const BEHIND_SNAPSHOT_MAX: u64 = 500_000;

impl Default for Keep {
    fn default() -> Keep {
        Keep { margin: 100_000, for_followers: 500_000, step: 10_000 }
    }
}

impl Node {
    /// Lets go of log entries well below `flushed`, the last entry whose effect is in the state environment.
    pub async fn purge(&self, flushed: LogPosition) {
        let keep = self.keep();
        self.forget_installed();
        let mut upto = flushed.index.saturating_sub(keep.margin);
        if let Some(needed) = self.needed_from() {
            let least = flushed.index.saturating_sub(keep.for_followers.max(keep.margin));
            upto = upto.min(needed.saturating_sub(1).max(least));
        }
        // Where a snapshot on its way to a follower ends, the log must go on: else it would need another one.
        if let Some(needed) = self.activity().needed_from(|id, index| self.has_reached(id, index)) {
            upto = upto.min(needed.max(flushed.index.saturating_sub(BEHIND_SNAPSHOT_MAX)));
        }
        if upto < self.purged.load(Ordering::Relaxed) + keep.step {
            return;
        }
        self.purged.store(upto, Ordering::Relaxed);
        let trigger = self.raft().trigger();
        let snapshot = self.raft().wait(Some(self.request_timeout()));
        if trigger.snapshot().await.is_err() {
            return;
        }
        let known = snapshot.metrics(|m| m.snapshot.is_some_and(|id| id.index >= upto), "a snapshot").await;
        if let Err(error) = known {
            tracing::warn!(%error, "could not tell consensus of the last flush; the log is purged later");
            return;
        }
        if let Err(error) = trigger.purge_log(upto).await {
            tracing::warn!(%error, "could not purge the raft log");
        }
    }

    /// After a state was received, the log is purged up to there; then it goes on from the state as any other.
    fn forget_installed(&self) {
        let mut applier = self.applier().lock();
        if applier.installed().is_some_and(|at| self.log().purged().is_some_and(|id| id.index >= at.index)) {
            applier.clear_installed();
        }
    }

    /// As the leader: the first entry that some follower still lacks.
    fn needed_from(&self) -> Option<u64> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let matched =
            metrics.replication.as_ref()?.values().map(|id| id.as_ref().map_or(0, |id| id.index + 1));
        matched.min()
    }

    /// Whether a follower's log has come so far, or this member does not lead it any more.
    fn has_reached(&self, id: u64, index: u64) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let Some(replication) = &metrics.replication else { return true };
        match replication.get(&id) {
            Some(matched) => matched.as_ref().is_some_and(|matched| matched.index >= index),
            None => true,
        }
    }
}
