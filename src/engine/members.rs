//! Who belongs to the cluster, and changes of it. A change is a command like others; what is judged here, before it is
//! proposed, is whether it is wise at the moment: a cluster must not lose its majority to members that never started or
//! can't be reached (contract C-4, C-5, C-8). The leader is asked who can be reached. Called by `api`.

use super::apply::members::check_add;
use super::ask::{self, Answer, Question, Whom};
use super::command::{Command, Member, Refusal};
use super::consensus::PeerState;
use super::entry::Origin;
use super::{Engine, Error, Result};
use crate::metrics::METRICS;
use crate::types::MemberId;
use std::time::Duration;
use tokio::time::timeout;

/// How long a member must have answered without a break to count as reachable.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// A learner is promoted when it has so much of the leader's log, in percent.
const READY_PERCENT: u64 = 90;

impl Engine {
    /// The members of the cluster, in order of id.
    pub fn members(&self) -> Vec<Member> {
        self.0.applier.lock().members().values().cloned().collect()
    }

    /// Whether this member only receives the log. Costs next to nothing.
    pub fn is_learner(&self) -> bool {
        self.0.learners.contains(self.0.identity.member)
    }

    /// Takes a member in.
    pub async fn add_member(&self, member: Member) -> Result<()> {
        let members = self.members();
        if self.0.limits.strict_reconfig_check {
            if !member.is_learner && !can_add_voter(&members) {
                return Err(Error::NotEnoughStarted);
            }
            let (leader, peers) = self.reachable().await?;
            if reachable_voters(&members, leader, &peers) < majority(voters(&members).count()) {
                return Err(Error::Unhealthy);
            }
        }
        {
            let applier = self.0.applier.lock();
            check_add(applier.members(), applier.removed(), &member)?;
        }
        let learners = members.iter().filter(|member| member.is_learner).count();
        if member.is_learner && learners >= self.0.limits.learners_max {
            return Err(Error::TooManyLearners);
        }
        self.change_members(Command::AddMember(member)).await
    }

    /// Parts with a member; resolves when consensus goes on without it.
    pub async fn remove_member(&self, id: MemberId) -> Result<()> {
        let members = self.members();
        let member = find(&members, id)?;
        if !member.is_learner && self.0.limits.strict_reconfig_check {
            if !can_remove_voter(&members, id) {
                return Err(Error::NotEnoughStarted);
            }
            let (leader, peers) = self.reachable().await?;
            if !keeps_majority(&members, id, leader, &peers) {
                return Err(Error::Unhealthy);
            }
        }
        self.change_members(Command::RemoveMember { id }).await?;
        if id == self.0.identity.member {
            return Ok(()); // it learns nothing more, and is about to stop
        }
        let left = self.0.consensus.left(id);
        timeout(self.0.limits.request_timeout, left).await.map_err(|_| Error::Timeout)?
    }

    /// Makes a learner a voter.
    pub async fn promote_member(&self, id: MemberId) -> Result<()> {
        let result = self.try_promote(id).await;
        let (leads, metrics) = (self.leads(), &METRICS.server);
        match &result {
            Ok(()) if leads => metrics.learner_promote_successes.inc(),
            Err(error) if leads => {
                metrics.learner_promote_failures.with_label_values(&[&error.to_string()]).inc();
            }
            _ => {}
        }
        result
    }

    async fn try_promote(&self, id: MemberId) -> Result<()> {
        let members = self.members();
        if !find(&members, id)?.is_learner {
            return Err(Refusal::NotLearner.into());
        }
        let (_, peers) = self.peers().await?;
        if !is_ready(&peers, id, self.status().committed) {
            return Err(Error::LearnerNotReady);
        }
        if self.0.limits.strict_reconfig_check && !can_promote(&members) {
            return Err(Error::NotEnoughStarted);
        }
        self.change_members(Command::PromoteMember { id }).await
    }

    /// Replaces the URLs by which peers reach a member.
    pub async fn update_member(&self, id: MemberId, peer_urls: Vec<String>) -> Result<()> {
        self.change_members(Command::UpdateMember { id, peer_urls }).await
    }

    /// Hands the lead over; resolves when the other member leads.
    pub async fn move_leader(&self, to: MemberId) -> Result<()> {
        self.ask(Whom::Leader, Question::MoveLeader(to)).await.map(drop)
    }

    async fn change_members(&self, command: Command) -> Result<()> {
        self.write(Origin::Server, command).await.map(drop)
    }

    /// The leader, and what it knows of the others.
    async fn peers(&self) -> Result<(MemberId, Vec<PeerState>)> {
        let leader = self.status().leader;
        match self.ask(Whom::Leader, Question::Peers).await? {
            Answer::Peers(peers) => Ok((leader, peers)),
            other => Err(ask::unexpected(&other)),
        }
    }

    /// The same, where nobody to ask means that the cluster is not well.
    async fn reachable(&self) -> Result<(MemberId, Vec<PeerState>)> {
        self.peers().await.map_err(|error| match error {
            Error::NoLeader | Error::LeaderChanged | Error::Timeout => Error::Unhealthy,
            other => other,
        })
    }
}

fn find(members: &[Member], id: MemberId) -> Result<&Member> {
    members.iter().find(|member| member.id == id).ok_or(Refusal::MemberNotFound.into())
}

fn voters(members: &[Member]) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| !member.is_learner)
}

/// Members that are said to have started, since they have told their name.
fn started<'m>(members: impl Iterator<Item = &'m Member>) -> usize {
    members.filter(|member| !member.name.is_empty()).count()
}

const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether enough voters have started for one more, which has not. A cluster of one may always grow, since nobody could
/// bring it to more members otherwise.
fn can_add_voter(members: &[Member]) -> bool {
    let (count, started) = (voters(members).count(), started(voters(members)));
    (count, started) == (1, 1) || started >= majority(count + 1)
}

/// Whether enough voters have started to do without this one.
fn can_remove_voter(members: &[Member], id: MemberId) -> bool {
    let others = || voters(members).filter(|member| member.id != id);
    started(others()) >= majority(others().count())
}

/// Whether enough voters have started for one more, which has started as a learner.
fn can_promote(members: &[Member]) -> bool {
    started(voters(members)) + 1 >= majority(voters(members).count() + 1)
}

/// Voters that the leader has reached for some time; itself is one.
fn reachable_voters(members: &[Member], leader: MemberId, peers: &[PeerState]) -> usize {
    let long_enough = |peer: &PeerState| {
        peer.active_ms.is_some_and(|active| Duration::from_millis(active) >= HEALTHY_AFTER)
    };
    let is_reachable =
        |id: MemberId| id == leader || peers.iter().any(|peer| peer.id == id && long_enough(peer));
    voters(members).filter(|member| is_reachable(member.id)).count()
}

/// Whether the voters that can be reached are a majority without this one. One that is down is none of them anyway.
fn keeps_majority(members: &[Member], id: MemberId, leader: MemberId, peers: &[PeerState]) -> bool {
    let answers = peers.iter().any(|peer| peer.id == id && peer.active_ms.is_some());
    if id != leader && !answers {
        return true;
    }
    let left = reachable_voters(members, leader, peers).saturating_sub(1);
    left >= majority(voters(members).count().saturating_sub(1))
}

/// Whether a learner has enough of the log, which ends at `last`.
fn is_ready(peers: &[PeerState], id: MemberId, last: u64) -> bool {
    let behind = peers.iter().find(|peer| peer.id == id).and_then(|peer| peer.behind);
    behind.is_some_and(|behind| last.saturating_sub(behind) * 100 >= last * READY_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members 1, 2, ... by one letter each: `V` and `v` a voter that has and one that has not started, `L` and `l` a
    /// learner.
    fn members(letters: &str) -> Vec<Member> {
        let member = |(n, letter): (usize, char)| Member {
            id: n as u64 + 1,
            name: if letter.is_uppercase() { format!("m{n}") } else { String::new() },
            is_learner: letter.eq_ignore_ascii_case(&'l'),
            ..Member::default()
        };
        letters.chars().enumerate().map(member).collect()
    }

    /// What the leader, 1, knows of 2, 3, ...: `+` reached for long enough, `~` for a short time, `-` not reached.
    fn peers(states: &str) -> Vec<PeerState> {
        let peer = |(n, state): (usize, char)| PeerState {
            id: n as u64 + 2,
            active_ms: match state {
                '+' => Some(5000),
                '~' => Some(4999),
                _ => None,
            },
            is_voter: true,
            behind: None,
        };
        states.chars().enumerate().map(peer).collect()
    }

    #[test]
    fn c_5_a_voter_is_added_where_the_started_ones_stay_a_majority() {
        for (letters, expected) in [
            ("V", true), // the exception
            ("v", false),
            ("VV", true),
            ("Vv", false),
            ("VVV", true),
            ("VVv", false),
            ("VVVv", true),
            ("VVvv", false),
            ("Vl", true), // learners do not count
            ("VLv", false),
        ] {
            assert_eq!(can_add_voter(&members(letters)), expected, "{letters}");
        }
    }

    #[test]
    fn c_5_a_voter_is_removed_where_the_started_ones_stay_a_majority() {
        for (letters, id, expected) in [
            ("V", 1, false), // the last
            ("VL", 1, false),
            ("VV", 1, true),
            ("Vv", 1, false),
            ("Vv", 2, true),
            ("VVv", 1, false),
            ("VVv", 3, true),
            ("VVVv", 1, true),
            ("VVVvv", 1, false),
        ] {
            assert_eq!(can_remove_voter(&members(letters), id), expected, "{letters} without {id}");
        }
    }

    #[test]
    fn c_8_a_promoted_learner_has_started() {
        for (letters, expected) in
            [("VL", true), ("VvL", true), ("VvvL", false), ("vL", false), ("VVvvL", true), ("Vl", true)]
        {
            assert_eq!(can_promote(&members(letters)), expected, "{letters}");
        }
    }

    #[test]
    fn c_5_a_majority_must_have_been_reached_for_some_time() {
        assert_eq!(reachable_voters(&members("VVVL"), 1, &peers("+~+")), 2);
        for (letters, states, id, expected) in [
            ("VV", "+", 2, true),
            ("VV", "~", 2, false),
            ("VV", "-", 2, true), // who is down is missed by nobody
            ("VVV", "++", 2, true),
            ("VVV", "+-", 2, false),
            ("VVV", "+-", 1, false),
            ("VVV", "+-", 3, true),
            ("VVV", "--", 3, true),
            ("VVVVV", "++--", 2, false),
            ("VVVVV", "+++-", 2, true),
        ] {
            let (members, peers) = (members(letters), peers(states));
            assert_eq!(keeps_majority(&members, id, 1, &peers), expected, "{letters} {states} without {id}");
        }
    }

    #[test]
    fn c_8_a_learner_is_ready_with_nine_tenths_of_the_log() {
        for (behind, last, expected) in [
            (Some(0), 10, true),
            (Some(1), 10, true),
            (Some(2), 10, false),
            (Some(10), 109, true),
            (Some(11), 109, false),
            (Some(200), 10, false),
            (None, 10, false),
        ] {
            let peers = [PeerState { id: 2, active_ms: Some(0), is_voter: false, behind }];
            assert_eq!(is_ready(&peers, 2, last), expected, "{behind:?} of {last}");
            assert!(!is_ready(&peers, 3, last));
        }
    }
}
