//! openraft's membership follows the replicated table of members (ADR 13), and the lead changes hands.

use super::Peer;
use super::node::Node;
use crate::engine::apply::Applier;
use crate::engine::ask::{Answer, Question, Whom};
use crate::engine::consensus::{Consensus, PeerState};
use crate::engine::error::Error;
use crate::types::MemberId;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often the table is compared with the membership.
const TICK: Duration = Duration::from_millis(100);
/// How often a member without a leader asks the others.
const LONELY_TICK: Duration = Duration::from_secs(1);
/// A learner that lacks no more entries than this may become a voter.
const BEHIND_MAX: u64 = 1000;
/// Pause before a question is put again to a leader that is not one.
const AGAIN: Duration = Duration::from_millis(20);

/// What the table says and what openraft has: who it knows, with the URLs, and who of them votes.
#[derive(Clone, Debug, PartialEq, Default)]
struct View {
    peers: BTreeMap<MemberId, Peer>,
    voters: BTreeSet<MemberId>,
}

/// One change that brings `have` nearer to `want`; `ready` are the learners that have caught up.
fn next_change(want: &View, have: &View, ready: &BTreeSet<MemberId>) -> Option<ChangeMembers<u64, Peer>> {
    let gone: BTreeSet<MemberId> =
        have.peers.keys().filter(|id| !want.peers.contains_key(id)).copied().collect();
    let (voters, learners): (BTreeSet<_>, BTreeSet<_>) =
        gone.into_iter().partition(|id| have.voters.contains(id));
    if !voters.is_empty() && voters.len() < have.voters.len() {
        return Some(ChangeMembers::RemoveVoters(voters));
    }
    if !learners.is_empty() {
        return Some(ChangeMembers::RemoveNodes(learners));
    }
    let is_new = |(id, _): &(&MemberId, &Peer)| !have.peers.contains_key(id);
    let new: BTreeMap<_, _> =
        want.peers.iter().filter(is_new).map(|(id, peer)| (*id, peer.clone())).collect();
    if !new.is_empty() {
        return Some(ChangeMembers::AddNodes(new));
    }
    let moved =
        |(id, peer): &(&MemberId, &Peer)| have.peers.get(id).is_some_and(|known| known.urls != peer.urls);
    let moved: BTreeMap<_, _> =
        want.peers.iter().filter(moved).map(|(id, peer)| (*id, peer.clone())).collect();
    if !moved.is_empty() {
        return Some(ChangeMembers::SetNodes(moved));
    }
    let promoted: BTreeSet<_> =
        want.voters.difference(&have.voters).filter(|id| ready.contains(id)).copied().collect();
    (!promoted.is_empty()).then_some(ChangeMembers::AddVoterIds(promoted))
}

/// The table as a view.
fn table(applier: &Applier) -> View {
    let mut view = View::default();
    for (id, member) in applier.members() {
        view.peers.insert(*id, Peer { name: member.name.clone(), urls: member.peer_urls.clone() });
        if !member.is_learner {
            view.voters.insert(*id);
        }
    }
    view
}

/// As the leader, makes openraft's membership that of the table, step by step; for ever.
pub async fn follow_table(node: Arc<Node>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let want = table(&node.applier().lock());
        node.follow_urls(&want);
        if node.leadership().leader != node.id() || want.peers.is_empty() {
            continue;
        }
        let Some(have) = node.membership() else { continue };
        let Some(change) = next_change(&want, &have, &node.ready()) else { continue };
        tracing::info!(%change, "consensus follows the table of members");
        let changed =
            tokio::time::timeout(node.request_timeout(), node.raft().change_membership(change, false));
        match changed.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not change the membership; trying again"),
            Err(_) => tracing::warn!("the membership does not change; trying again"),
        }
    }
}

/// While there is no leader, asks the others now and then: one that was removed, a learner above all, hears it from them; for
/// ever.
pub async fn ask_whether_removed(node: Arc<Node>) {
    let mut tick = tokio::time::interval(LONELY_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if node.leadership().leader != 0 {
            continue;
        }
        let mut others: BTreeSet<MemberId> = node.applier().lock().members().keys().copied().collect();
        others.extend(node.known.keys());
        others.remove(&node.id());
        for id in others {
            // Who does not answer, or has no leader either, is no help; a refusal is noticed on the way.
            let _ = tokio::time::timeout(node.patience(), node.put_to(id, &Question::Peers)).await;
        }
    }
}

/// As the leader, gives way when the log has not become durable for an election timeout: nothing can be committed by way of
/// such a disk, while heartbeats would keep the others from electing somebody else; for ever.
pub async fn watch_disk(node: Arc<Node>) {
    loop {
        tokio::time::sleep(node.patience() / 4).await;
        let leads = node.leadership().leader == node.id() && !node.votes_alone();
        let Some(stalled) = node.log().syncing_for().filter(|took| leads && *took > node.patience()) else {
            continue;
        };
        tracing::warn!(?stalled, "the disk of the raft log stalls; another member should lead");
        if let Err(error) = node.give_way().await {
            tracing::warn!(%error, "could not hand over the lead");
        }
        tokio::time::sleep(node.patience()).await;
    }
}

impl Node {
    /// Peers are reached where the table says, and those who are none any more are forgotten.
    fn follow_urls(&self, table: &View) {
        if table.peers.is_empty() {
            return; // nothing has been applied yet
        }
        self.links().retain(|id| table.peers.contains_key(&id) || self.is_peer(id));
        for (id, peer) in &table.peers {
            if self.links().get(*id).is_some() {
                self.links().to(*id, &peer.urls);
            }
        }
    }

    /// openraft's membership; `None` while it is changing.
    fn membership(&self) -> Option<View> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let [voters] = &membership.get_joint_config()[..] else { return None };
        let peers = membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
        Some(View { peers, voters: voters.clone() })
    }

    fn is_peer(&self, id: MemberId) -> bool {
        let metrics = self.raft().metrics();
        metrics.borrow_watched().committed_membership_config.get_node(&id).is_some()
    }

    /// Learners that have caught up.
    fn ready(&self) -> BTreeSet<MemberId> {
        let is_ready = |peer: &PeerState| {
            !peer.is_voter
                && peer.active_ms.is_some()
                && peer.behind.is_some_and(|behind| behind <= BEHIND_MAX)
        };
        self.peers().into_iter().filter(is_ready).map(|peer| peer.id).collect()
    }

    /// Whether a member was removed, and consensus goes on without it. Until then it counts, and must be listened to.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.applier().lock().removed().contains(&id) && !self.is_peer(id)
    }

    /// Hands over to `to`; resolves when that one leads.
    pub(super) async fn hand_over(&self, to: MemberId) -> Result<(), Error> {
        if self.leadership().leader != self.id() {
            return Err(Error::NoLeader);
        }
        if to == self.id() {
            return Ok(());
        }
        if !self.peers().iter().any(|peer| peer.id == to && peer.is_voter) {
            return Err(Error::BadTransferee);
        }
        self.raft().trigger().transfer_leader(to).await.map_err(|_| Error::Stopped)?;
        let mut leadership = self.leaderships();
        let moved = leadership.wait_for(|now| now.leader == to);
        match tokio::time::timeout(self.request_timeout(), moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// Hands over to whoever is furthest, if somebody is there who can take over at once. Waits for an election, not longer:
    /// the others may be stopping, too.
    pub async fn give_way(&self) -> Result<(), Error> {
        let able = self.peers().into_iter().filter(|peer| peer.is_voter && peer.active_ms.is_some());
        let best = able.min_by_key(|peer| peer.behind.unwrap_or(u64::MAX)).ok_or(Error::BadTransferee)?;
        tracing::info!("new-leader-member-id" = format!("{:x}", best.id), "leadership transfer starting");
        let limit = self.patience() * 2;
        tokio::time::timeout(limit, self.hand_over(best.id)).await.unwrap_or(Err(Error::Timeout))
    }

    /// Puts a question to another member; to the leader until there is one that answers.
    pub(super) async fn put_question(&self, whom: Whom, question: Question) -> Result<Answer, Error> {
        loop {
            let seen = self.leadership();
            let to = match whom {
                Whom::Member(id) => id,
                Whom::Leader if seen.leader == self.id() => return Err(Error::NoLeader), // only just elected: ask here
                Whom::Leader => seen.leader,
            };
            let answer = if to == 0 { Err(Error::NoLeader) } else { self.put_to(to, &question).await };
            match (whom, answer) {
                (Whom::Leader, Err(_) | Ok(Answer::Failed(crate::engine::ask::Failure::NoLeader))) => {
                    self.changed_or(if to == 0 { Duration::MAX } else { AGAIN }, seen).await;
                }
                (_, answer) => return answer,
            }
        }
    }

    async fn put_to(&self, to: MemberId, question: &Question) -> Result<Answer, Error> {
        let link = self.link(to).ok_or_else(|| Error::Peer(format!("there is no member {to:x}")))?;
        self.transports().ask(link, question).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(peers: &[(u64, &str)], voters: &[u64]) -> View {
        let peer = |url: &str| Peer { name: String::new(), urls: vec![url.to_owned()] };
        View {
            peers: peers.iter().map(|(id, url)| (*id, peer(url))).collect(),
            voters: voters.iter().copied().collect(),
        }
    }

    #[test]
    fn the_membership_follows_the_table_in_single_steps() {
        let ready = BTreeSet::from([3]);
        let have = view(&[(1, "a"), (2, "b")], &[1, 2]);
        assert_eq!(next_change(&have, &have, &ready), None);
        // One more: a learner first, a voter once it has caught up.
        let want = view(&[(1, "a"), (2, "b"), (3, "c")], &[1, 2, 3]);
        let added = next_change(&want, &have, &ready);
        assert!(matches!(added, Some(ChangeMembers::AddNodes(new)) if new.keys().eq([&3])));
        let joined = view(&[(1, "a"), (2, "b"), (3, "c")], &[1, 2]);
        assert_eq!(next_change(&want, &joined, &BTreeSet::new()), None);
        assert_eq!(
            next_change(&want, &joined, &ready),
            Some(ChangeMembers::AddVoterIds(BTreeSet::from([3])))
        );
        // Who goes, goes first; the last voter stays.
        let fewer = view(&[(1, "a"), (3, "c")], &[1]);
        assert_eq!(
            next_change(&fewer, &joined, &ready),
            Some(ChangeMembers::RemoveVoters(BTreeSet::from([2])))
        );
        let none = view(&[(3, "c")], &[3]);
        assert_eq!(next_change(&none, &view(&[(1, "a"), (3, "c")], &[1]), &BTreeSet::new()), None);
        let without_learner = view(&[(1, "a"), (2, "b")], &[1, 2]);
        let removed = next_change(&without_learner, &joined, &ready);
        assert_eq!(removed, Some(ChangeMembers::RemoveNodes(BTreeSet::from([3]))));
        // Who has moved.
        let moved = view(&[(1, "a"), (2, "x"), (3, "c")], &[1, 2]);
        assert!(
            matches!(next_change(&moved, &joined, &ready), Some(ChangeMembers::SetNodes(m)) if m.keys().eq([&2]))
        );
    }
}
