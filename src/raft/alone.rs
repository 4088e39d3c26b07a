//! `--force-new-cluster`: a member goes on alone, with all that its log holds.
//!
//! A membership of this member alone is appended to the log, in a term of its own. openraft takes the last membership of a
//! log for valid, so the member elects itself and commits everything before it: what was acknowledged, and what was on its
//! way. That is a superset of what etcd keeps, which drops the latter.

use super::wal::{self, Batch, Durability, Recovered, Wal};
use super::{Membership, Payload, Peer, Vote, codec};
use crate::types::MemberId;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Makes the log that of a cluster of the member `id` alone, if it is not; `stored` is the membership of the state. Durable
/// when it returns, and told in `recovered`.
pub fn go_on_alone(
    wal: &Wal,
    recovered: &mut Recovered,
    stored: &[u8],
    id: MemberId,
    peer: Peer,
) -> io::Result<()> {
    let Some(last) = recovered.last else { return Ok(()) }; // there is no cluster yet
    let mut membership = codec::decode_membership(stored)?.membership().clone();
    let mut next = recovered.purged.map_or(0, |id| id.index + 1);
    while next <= last.index {
        for (id, payload) in wal.read(next, u64::MAX, READ_BYTES).map_err(io::Error::other)? {
            next = id.index + 1;
            if let Payload::Membership(found) = codec::decode_payload(Bytes::from(payload))? {
                membership = found;
            }
        }
    }
    if membership.voter_ids().eq([id]) && membership.learner_ids().next().is_none() {
        return Ok(());
    }
    let voted = recovered.vote.as_deref().map(codec::decode_vote).transpose()?;
    let term = voted.map_or(0, |vote| vote.leader_id.term).max(last.term) + 1;
    let alone = Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, peer)]));
    let payload = Payload::Membership(alone.map_err(io::Error::other)?);
    let vote = codec::encode_vote(&Vote::new_committed(term, id));
    let entry = wal::LogId { term, index: last.index + 1 };
    let mut batch = Batch::new();
    batch.vote(&vote);
    batch.entry(entry, |out| codec::encode_payload(&payload, out));
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    wal.append(batch, Durability::Sync, Box::new(move |result| drop(sender.send(result))));
    done.recv().unwrap_or_else(|_| Err(io::Error::other("the raft log has stopped")))?;
    recovered.vote = Some(vote);
    recovered.last = Some(entry);
    tracing::warn!(term, index = entry.index, "forced a new cluster of this member alone");
    Ok(())
}

/// Bytes read at once.
const READ_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::entry::RaftPayload;

    fn membership(voters: &[u64]) -> Membership {
        let voters: BTreeSet<u64> = voters.iter().copied().collect();
        let nodes: BTreeMap<u64, Peer> = voters.iter().map(|id| (*id, Peer::default())).collect();
        Membership::new(vec![voters], nodes).unwrap()
    }

    fn last_entry(wal: &Wal, at: u64) -> Payload {
        let (_, payload) = wal.read(at, at + 1, 1).unwrap().remove(0);
        codec::decode_payload(payload.into()).unwrap()
    }

    #[test]
    fn a_log_of_three_becomes_one_of_the_member_alone_once() {
        let dir = tempfile::tempdir().unwrap();
        let (wal, mut recovered) = Wal::open(wal::Options::new(dir.path())).unwrap();
        go_on_alone(&wal, &mut recovered, &[], 1, Peer::default()).unwrap();
        assert_eq!(recovered, Recovered::default(), "there is nothing to go on with");
        let mut batch = Batch::new();
        let first = Payload::Membership(membership(&[1, 2, 3]));
        batch.vote(&codec::encode_vote(&Vote::new_committed(3, 2)));
        batch.entry(wal::LogId { term: 0, index: 0 }, |out| codec::encode_payload(&first, out));
        batch.entry(wal::LogId { term: 3, index: 1 }, |out| codec::encode_payload(&Payload::Blank, out));
        let (sender, done) = std::sync::mpsc::sync_channel(1);
        wal.append(batch, Durability::Sync, Box::new(move |result| sender.send(result).unwrap()));
        done.recv().unwrap().unwrap();
        drop(wal);
        for _ in 0..2 {
            let (wal, mut recovered) = Wal::open(wal::Options::new(dir.path())).unwrap();
            go_on_alone(&wal, &mut recovered, &[], 1, Peer::default()).unwrap();
            assert_eq!(recovered.last, Some(wal::LogId { term: 4, index: 2 }));
            assert_eq!(last_entry(&wal, 2), Payload::Membership(membership(&[1])));
            let vote = codec::decode_vote(recovered.vote.as_deref().unwrap()).unwrap();
            assert_eq!(vote, Vote::new_committed(4, 1));
        }
    }
}
