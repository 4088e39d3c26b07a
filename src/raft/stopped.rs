//! What consensus left on the disk of a stopped member, read without changing anything. Called by `dump`.

use super::wal::{self, ReadOnly, Recovered};
use super::{Payload, Peer, codec};
use crate::engine::entry::Entry;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

/// For whom a member has voted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct StoppedVote {
    /// In which term.
    pub term: u64,
    /// Whom.
    pub voted_for: u64,
    /// Whether that member became the leader, as far as this one knows.
    pub committed: bool,
}

/// What an entry of the log carries.
pub enum Logged {
    /// Nothing: a new leader's first.
    Blank,
    /// A command.
    Command(Entry),
    /// Who takes part.
    Membership {
        /// One set of voters, or two while they change.
        voters: Vec<BTreeSet<u64>>,
        /// Every member, learners included.
        peers: BTreeMap<u64, Peer>,
    },
}

/// The log of a stopped member.
pub struct StoppedLog {
    log: ReadOnly,
    recovered: Recovered,
}

impl StoppedLog {
    /// Checks all of the log in `dir`. The caller keeps servers out.
    pub fn open(dir: &Path) -> Result<StoppedLog, wal::Error> {
        let (log, recovered) = ReadOnly::open(dir)?;
        Ok(StoppedLog { log, recovered })
    }

    /// The bounds of the log.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The last vote, if there is one that can be read.
    pub fn vote(&self) -> Option<StoppedVote> {
        let vote = codec::decode_vote(self.recovered.vote.as_deref()?).ok()?;
        Some(StoppedVote {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.voted_for,
            committed: vote.committed,
        })
    }

    /// Gives the entries within `indexes` that are there, in order, until `each` answers false.
    pub fn walk(
        &self,
        indexes: RangeInclusive<u64>,
        mut each: impl FnMut(wal::LogId, io::Result<Logged>) -> bool,
    ) -> Result<(), wal::Error> {
        let kept = self.recovered.purged.map_or(0, |purged| purged.index + 1);
        let (from, to) = (kept.max(*indexes.start()), indexes.end().saturating_add(1));
        self.log.walk(from, to, &mut |id, payload| {
            each(id, codec::decode_payload(payload.to_vec().into()).map(logged))
        })
    }
}

fn logged(payload: Payload) -> Logged {
    match payload {
        Payload::Blank => Logged::Blank,
        Payload::Normal(entry) => Logged::Command(entry),
        Payload::Membership(membership) => Logged::Membership {
            voters: membership.get_joint_config().clone(),
            peers: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
        },
    }
}

/// A membership as plain data: the set of voters, two while joint, and every member.
pub type Stated = (Vec<BTreeSet<u64>>, BTreeMap<u64, Peer>);

/// Voters (two sets while they change) and all members of a membership as the state stores it.
pub fn parse_membership(bytes: &[u8]) -> io::Result<Stated> {
    let stored = codec::decode_membership(bytes)?;
    let membership = stored.membership();
    let peers = membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
    Ok((membership.get_joint_config().clone(), peers))
}
