//! Who leads, as this member sees it, and when that changes.

use super::node::Node;
use super::{Types, Vote};
use crate::engine::error::Error;
use crate::metrics::METRICS;
use crate::types::MemberId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{Instant as _, ServerState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Silence of the leader after which there is none, in election timeouts: an election begins after one to one and a quarter.
const SILENCE_ELECTIONS: u32 = 2;
/// How often a member that is to vote looks whether it does.
const VOTING_LOOK: Duration = Duration::from_millis(10);

/// Who leads, as this member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Its leader, if that has shown a sign of life lately, or 0.
    pub leader: MemberId,
}

impl Node {
    /// Takes note of where consensus stands.
    pub(super) fn observe(&self) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let term = metrics.vote.leader_id.term;
        let is_sole = self.is_sole_voter();
        let leads = metrics.state == ServerState::Leader;
        let silence = self.election_timeout * SILENCE_ELECTIONS;
        let is_alone = leads && !is_sole && {
            let ack = metrics.last_quorum_acked.as_ref();
            ack.is_some_and(|ack| ack.elapsed() > silence)
        };
        let mut leader = metrics.current_leader.unwrap_or(0);
        let before = *self.leadership.borrow();
        if leader != 0 && leader != self.id {
            if (term, leader) != (before.term, before.leader) && before.term < term {
                self.hears_now();
            }
            if self.silent_for() > silence {
                leader = 0;
            }
        } else if is_alone {
            leader = 0;
        }
        let seen = Leadership { term, leader };
        self.is_sole_voter_leader.store(is_sole && leads, Ordering::SeqCst);
        let leads_in = if metrics.current_leader == Some(self.id) { term } else { 0 };
        self.leads_in.send_if_modified(|known| std::mem::replace(known, leads_in) != leads_in);
        self.follows_only.store(metrics.state == ServerState::Learner, Ordering::Relaxed);
        self.leadership.send_if_modified(|known| {
            if leader != 0 && known.leader != leader {
                METRICS.server.leader_changes.inc();
                tracing::info!(term, leader = format!("{leader:x}"), "raft.node: elected leader");
            } else if leader == 0 && known.leader != 0 {
                tracing::warn!(term, "raft.node: lost leader {:x}", known.leader);
            }
            std::mem::replace(known, seen) != seen
        });
        self.note_activity(leads.then_some(&*metrics));
    }

    fn note_activity(&self, leading: Option<&openraft::RaftMetrics<Types>>) {
        let mut active = self.active_since.lock();
        let Some(heartbeats) = leading.and_then(|metrics| metrics.heartbeat.as_ref()) else {
            if !active.is_empty() {
                METRICS.peers.leads_no_more();
                active.clear();
            }
            return;
        };
        active.retain(|id, _| {
            let is_there = heartbeats.contains_key(id);
            if !is_there {
                METRICS.peers.is_gone(self.id, *id);
            }
            is_there
        });
        let now = Instant::now();
        for (id, heard) in heartbeats.iter().filter(|(id, _)| **id != self.id) {
            let peer = || format!("{id:x}");
            let is_active = heard.as_ref().map(|at| at.elapsed()).is_some_and(|ago| {
                ago < self.election_timeout * SILENCE_ELECTIONS && !self.activity.is_lost_since(*id, ago)
            });
            if is_active && !active.contains_key(id) {
                active.insert(*id, now);
                METRICS.peers.becomes_active(self.id, *id);
                tracing::info!("peer-id" = peer(), "peer became active");
            } else if !is_active && active.remove(id).is_some() {
                METRICS.peers.becomes_inactive(self.id, *id);
                tracing::warn!("peer-id" = peer(), "peer became inactive");
            }
        }
    }

    /// Follows the state of consensus until it fails.
    pub(super) fn watch(self: Arc<Self>) -> tokio::sync::oneshot::Receiver<String> {
        let (sender, failed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut server = self.raft.server_metrics();
            let all = self.raft.metrics();
            let mut tick = tokio::time::interval(self.heartbeat);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let changed = tokio::select! {
                    changed = server.changed() => changed,
                    _ = tick.tick() => Ok(()),
                };
                self.observe();
                let state = all.borrow_watched().running_state.clone();
                match state {
                    Err(Fatal::Stopped) => return,
                    Err(fatal) => {
                        self.is_sole_voter_leader.store(false, Ordering::SeqCst);
                        drop(sender.send(fatal.to_string()));
                        return;
                    }
                    // After a panic the state is what it was.
                    Ok(()) if changed.is_err() => {
                        self.is_sole_voter_leader.store(false, Ordering::SeqCst);
                        drop(sender.send("it panicked".to_owned()));
                        return;
                    }
                    Ok(()) => {}
                }
            }
        });
        failed
    }

    /// A member called in the name of `vote`: a sign of life, if that is the leader's.
    pub(super) fn hears_from(&self, from: MemberId, vote: &Vote) {
        let leads = vote.committed && vote.leader_id.voted_for == from;
        if leads && vote.leader_id.term >= self.leadership.borrow().term {
            self.hears_now();
        }
    }

    fn hears_now(&self) {
        self.heard_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// To be told of changes of who leads.
    pub fn leaderships(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Resolves when who leads is not `seen` any more, or after `limit`.
    pub(super) async fn changed_or(&self, limit: Duration, seen: Leadership) {
        let mut leadership = self.leadership.subscribe();
        // The sender lives as long as this node, and the limit is no error.
        let _ = tokio::time::timeout(limit, leadership.wait_for(|now| *now != seen)).await;
    }

    /// Resolves when this member has applied the entry at `index`.
    pub(super) async fn has_applied(&self, index: u64) -> Result<(), Error> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|position| position.index >= index);
        match tokio::time::timeout(self.request_timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Resolves when this member votes, if it is to: one that joined as a voter first gets the log, and until it votes the
    /// cluster can be lost without it, which nobody would expect of a member that serves.
    pub(super) async fn until_voting(&self) {
        while self.follows_only.load(Ordering::Relaxed) && self.is_to_vote() {
            tokio::time::sleep(VOTING_LOOK).await;
        }
    }

    fn is_to_vote(&self) -> bool {
        self.applier.lock().members().get(&self.id).is_some_and(|member| !member.is_learner)
    }

    /// Resolves when this member leads and has applied an entry of its own term: everything before it is applied. Gives the
    /// term.
    pub async fn until_leading(&self) -> u64 {
        let mut leadership = self.leadership.subscribe();
        let mut applied = self.applied.clone();
        loop {
            let Leadership { term, leader } = *leadership.borrow_and_update();
            if leader == self.id && applied.borrow_and_update().term == term {
                return term;
            }
            let changed = tokio::select! {
                changed = leadership.changed() => changed,
                changed = applied.changed(), if leader == self.id => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await; // consensus has ended; nobody leads any more
            }
        }
    }

    /// Resolves when this member does not lead in `term` any more, and never will again. It may be without followers before.
    pub async fn until_not_leading(&self, term: u64) {
        let mut leads_in = self.leads_in.subscribe();
        let _ = leads_in.wait_for(|now| *now != term).await; // the sender lives as long as this node
    }

    /// Resolves when this member, which leads, has followers, or when it has none.
    pub async fn until_followed(&self, is_followed: bool) {
        let mut leadership = self.leadership.subscribe();
        let _ = leadership.wait_for(|now| (now.leader == self.id) == is_followed).await; // the sender lives as long as this node
    }

    /// Resolves when another member says that this one was removed.
    pub async fn until_removed(&self) {
        self.activity.until_removed().await;
    }
}
