//! The table of members in replicated state: what clients see and change, and what consensus follows.
//!
//! Carried out is what leaves a sound table, whoever asked for it. Whether a change is wise at the moment (who has
//! started, who can be reached) is judged before it is proposed, by `engine::members`.

use super::{Applier, Txn, damaged};
use crate::engine::command::{Applied, Member, Refusal};
use crate::mvcc;
use crate::storage::schema::{Table, meta};
use crate::types::MemberId;
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The ids of all learners. Every request asks for them, without the lock of the applier.
pub struct Learners(ArcSwap<BTreeSet<MemberId>>);

impl Learners {
    /// Those among some members.
    pub(super) fn of(members: &BTreeMap<MemberId, Member>) -> Learners {
        Learners(ArcSwap::from_pointee(Learners::ids(members)))
    }

    fn ids(members: &BTreeMap<MemberId, Member>) -> BTreeSet<MemberId> {
        members.values().filter(|member| member.is_learner).map(|member| member.id).collect()
    }

    /// Whether a member is one.
    pub fn contains(&self, id: MemberId) -> bool {
        self.0.load().contains(&id)
    }
}

/// Why a member can't be added to a table (C-3, C-6).
pub(in crate::engine) fn check_add(
    members: &BTreeMap<MemberId, Member>,
    removed: &BTreeSet<MemberId>,
    member: &Member,
) -> Result<(), Refusal> {
    if removed.contains(&member.id) {
        Err(Refusal::MemberNotFound)
    } else if members.contains_key(&member.id) {
        Err(Refusal::MemberExists)
    } else if is_taken(members, member.id, &member.peer_urls) {
        Err(Refusal::PeerUrlTaken)
    } else {
        Ok(())
    }
}

/// Whether another member than `id` is reached by one of the URLs.
fn is_taken(members: &BTreeMap<MemberId, Member>, id: MemberId, urls: &[String]) -> bool {
    members.values().any(|other| other.id != id && urls.iter().any(|url| other.peer_urls.contains(url)))
}

impl Applier {
    /// Fills an empty table with the first members of the cluster.
    pub fn found_members(&mut self, members: &[Member]) {
        if self.members.is_empty() {
            for member in members {
                self.store_member(member.clone());
            }
        }
    }

    /// Name and client URLs of a member. The first one of all needs nobody who adds it.
    pub(super) fn publish(&mut self, published: &Member) -> Applied {
        let member = match self.members.get(&published.id) {
            Some(known) => Member {
                peer_urls: known.peer_urls.clone(),
                is_learner: known.is_learner,
                ..published.clone()
            },
            None if self.members.is_empty() => published.clone(),
            None => return Err(Refusal::MemberNotFound),
        };
        self.store_member(member);
        self.done()
    }

    pub(super) fn add_member(&mut self, member: &Member) -> Applied {
        check_add(&self.members, &self.removed, member)?;
        self.store_member(member.clone());
        self.done()
    }

    pub(super) fn remove_member(&mut self, id: MemberId) -> Applied {
        let mut voters = self.members.values().filter(|member| !member.is_learner);
        if !self.members.contains_key(&id) {
            return Err(Refusal::MemberNotFound);
        }
        if voters.all(|voter| voter.id == id) {
            return Err(Refusal::LastVoter);
        }
        self.members.remove(&id);
        self.removed.insert(id);
        self.change(Table::Meta, row(meta::MEMBER, id), None);
        self.change(Table::Meta, row(meta::REMOVED_MEMBER, id), Some(Vec::new()));
        let alarms: Vec<_> = self.alarms.iter().filter(|(member, _)| *member == id).copied().collect();
        for (member, alarm) in alarms {
            self.alarm(false, member, alarm)?;
        }
        self.effects.removed_members.push(id);
        self.tell_learners();
        self.done()
    }

    pub(super) fn promote_member(&mut self, id: MemberId) -> Applied {
        let known = self.members.get(&id).ok_or(Refusal::MemberNotFound)?;
        if !known.is_learner {
            return Err(Refusal::NotLearner);
        }
        self.store_member(Member { is_learner: false, ..known.clone() });
        self.done()
    }

    pub(super) fn update_member(&mut self, id: MemberId, peer_urls: &[String]) -> Applied {
        let known = self.members.get(&id).ok_or(Refusal::MemberNotFound)?;
        if is_taken(&self.members, id, peer_urls) {
            return Err(Refusal::PeerUrlTaken);
        }
        self.store_member(Member { peer_urls: peer_urls.to_vec(), ..known.clone() });
        self.done()
    }

    fn store_member(&mut self, member: Member) {
        let value = postcard::to_stdvec(&member).expect("a member is plain data");
        self.change(Table::Meta, row(meta::MEMBER, member.id), Some(value));
        self.members.insert(member.id, member);
        self.tell_learners();
    }

    pub(super) fn tell_learners(&self) {
        self.learners.0.store(Arc::new(Learners::ids(&self.members)));
    }
}

fn row(prefix: &[u8], id: MemberId) -> Vec<u8> {
    [prefix, &id.to_be_bytes()].concat()
}

pub(in crate::engine) fn read_members(txn: Txn<'_>) -> mvcc::Result<BTreeMap<MemberId, Member>> {
    let mut members = BTreeMap::new();
    for row in txn.prefix(Table::Meta, meta::MEMBER)? {
        let member: Member = postcard::from_bytes(row?.1).map_err(|_| damaged("a meta/member row"))?;
        members.insert(member.id, member);
    }
    Ok(members)
}

pub(in crate::engine) fn read_removed(txn: Txn<'_>) -> mvcc::Result<BTreeSet<MemberId>> {
    let mut removed = BTreeSet::new();
    for row in txn.prefix(Table::Meta, meta::REMOVED_MEMBER)? {
        let id = row?.0.strip_prefix(meta::REMOVED_MEMBER).and_then(|id| id.try_into().ok());
        removed.insert(id.map(MemberId::from_be_bytes).ok_or_else(|| damaged("a meta/removed_member row"))?);
    }
    Ok(removed)
}
