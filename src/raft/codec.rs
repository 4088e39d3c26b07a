//! Byte forms of what consensus stores: log payloads, votes, memberships. Persisted; decoupled from openraft's own types,
//! which change between its versions.

use super::{LogId, Membership, Payload, Peer, StoredMembership, Vote};
use crate::engine::entry::Entry;
use bytes::{Buf, Bytes};
use openraft::entry::RaftPayload;
use openraft::vote::RaftLeaderIdExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Kinds of payload. Persisted.
const BLANK: u8 = 0;
const ENTRY: u8 = 1;
const MEMBERSHIP: u8 = 2;

#[derive(Serialize, Deserialize)]
struct MembershipForm {
    /// Log id of the entry, if stored with the state: term and index.
    log_id: Option<(u64, u64)>,
    /// One set of voters, or two while joint.
    configs: Vec<BTreeSet<u64>>,
    /// Every node, learners included.
    nodes: BTreeMap<u64, Peer>,
}

#[derive(Serialize, Deserialize)]
struct VoteForm {
    term: u64,
    voted_for: u64,
    committed: bool,
}

/// Appends the byte form of a payload.
pub fn encode_payload(payload: &Payload, out: &mut Vec<u8>) {
    let (kind, bytes) = payload_parts(payload);
    out.push(kind);
    out.extend_from_slice(&bytes);
}

/// Kind and bytes of a payload; those of an entry are shared, not copied.
pub fn payload_parts(payload: &Payload) -> (u8, Bytes) {
    match payload {
        Payload::Blank => (BLANK, Bytes::new()),
        Payload::Normal(entry) => (ENTRY, entry.bytes().clone()),
        Payload::Membership(membership) => (MEMBERSHIP, to_bytes(&form(None, membership)).into()),
    }
}

/// Parses what [`encode_payload`] wrote.
pub fn decode_payload(mut bytes: Bytes) -> io::Result<Payload> {
    if bytes.is_empty() {
        return Err(invalid("an entry without a payload"));
    }
    let kind = bytes.get_u8();
    payload_of(kind, bytes)
}

/// The payload of [`payload_parts`].
pub fn payload_of(kind: u8, bytes: Bytes) -> io::Result<Payload> {
    match kind {
        BLANK => Ok(Payload::blank()),
        ENTRY => Ok(Payload::Normal(Entry::decode(bytes).map_err(io::Error::other)?)),
        MEMBERSHIP => {
            let form: MembershipForm = from_bytes(&bytes)?;
            Ok(Payload::Membership(membership(form)?.1))
        }
        kind => Err(invalid(&format!("an entry of unknown kind {kind}; install a newer kvist"))),
    }
}

/// Byte form of a vote.
pub fn encode_vote(vote: &Vote) -> Vec<u8> {
    let leader = &vote.leader_id;
    to_bytes(&VoteForm { term: leader.term, voted_for: leader.voted_for, committed: vote.committed })
}

/// Parses what [`encode_vote`] wrote.
pub fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let form: VoteForm = from_bytes(bytes)?;
    Ok(if form.committed {
        Vote::new_committed(form.term, form.voted_for)
    } else {
        Vote::new(form.term, form.voted_for)
    })
}

/// Byte form of a membership as the state stores it.
pub fn encode_membership(stored: &StoredMembership) -> Vec<u8> {
    let log_id = stored.log_id().as_ref().map(|id| (id.leader_id.term, id.index));
    to_bytes(&form(log_id, stored.membership()))
}

/// Parses what [`encode_membership`] wrote; nothing means that there is no membership yet.
pub fn decode_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let (log_id, membership) = membership(from_bytes(bytes)?)?;
    Ok(StoredMembership::new(log_id, membership))
}

/// A log id of openraft.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(openraft::impls::leader_id_std::LeaderId::<u64, u64>::new_committed(term, 0), index)
}

fn form(log_id: Option<(u64, u64)>, membership: &Membership) -> MembershipForm {
    let nodes = membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect();
    MembershipForm { log_id, configs: membership.get_joint_config().clone(), nodes }
}

fn membership(form: MembershipForm) -> io::Result<(Option<LogId>, Membership)> {
    let membership = Membership::new(form.configs, form.nodes).map_err(io::Error::other)?;
    Ok((form.log_id.map(|(term, index)| log_id(term, index)), membership))
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data in memory")
}

fn from_bytes<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|e| invalid(&format!("a stored vote or membership: {e}")))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the raft log holds {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn votes_round_trip(term: u64, voted_for: u64, committed: bool) {
            let vote = decode_vote(&to_bytes(&VoteForm { term, voted_for, committed })).unwrap();
            prop_assert_eq!((vote.leader_id.term, vote.leader_id.voted_for, vote.committed), (term, voted_for, committed));
            prop_assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }

        #[test]
        fn memberships_round_trip_or_are_refused(
            log_id: Option<(u64, u64)>,
            configs in prop::collection::vec(prop::collection::btree_set(0u64..5, 0..4), 0..4),
            ids in prop::collection::btree_set(0u64..5, 0..5),
        ) {
            let nodes = ids.into_iter().map(|id| (id, Peer::default())).collect();
            let form = MembershipForm { log_id, configs, nodes };
            if let Ok(stored) = decode_membership(&to_bytes(&form)) {
                prop_assert_eq!(decode_membership(&encode_membership(&stored)).unwrap(), stored);
            }
        }

        #[test]
        fn foreign_bytes_do_not_panic(kind in 0u8..4, bytes: Vec<u8>) {
            let _ = decode_vote(&bytes);
            let _ = decode_membership(&bytes);
            let _ = decode_payload([&[kind][..], &bytes].concat().into());
            let _ = decode_payload(bytes.into());
        }
    }
}
