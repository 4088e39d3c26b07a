//! The log of a member that begins with a state from elsewhere: nothing but the position that the state stands for.
//!
//! Always true: the log ends where the state ends, and everything up to there counts as purged. So the member starts as
//! one that was stopped right after a flush. If several begin with the same state at the same position, they elect a leader
//! among them, which needs no entry before its own. Called by `import`.

use super::wal::{self, Batch, Durability, Wal};
use super::{Membership, Peer, StoredMembership, Vote, codec};
use crate::engine::apply::LogPosition;
use crate::types::MemberId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// Starts a log in `dir` for the member `id` of a cluster in which all `members` vote, behind the entry at `position`, in
/// `term` or a later one. Returns the membership as the state must store it. Durable when it returns.
pub fn seed(
    dir: &Path,
    id: MemberId,
    members: BTreeMap<MemberId, Peer>,
    position: LogPosition,
    term: u64,
) -> io::Result<Vec<u8>> {
    let voters: BTreeSet<MemberId> = members.keys().copied().collect();
    let membership = Membership::new(vec![voters], members).map_err(io::Error::other)?;
    let (wal, recovered) = Wal::open(wal::Options::new(dir)).map_err(io::Error::other)?;
    if recovered != wal::Recovered::default() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a raft log already"));
    }
    let mut batch = Batch::new();
    batch.vote(&codec::encode_vote(&Vote::new(term.max(position.term), id)));
    batch.purge(wal::LogId { term: position.term, index: position.index });
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    wal.append(batch, Durability::Sync, Box::new(move |result| drop(sender.send(result))));
    done.recv().unwrap_or_else(|_| Err(io::Error::other("the raft log has stopped")))?;
    let log_id = codec::log_id(position.term, position.index);
    Ok(codec::encode_membership(&StoredMembership::new(Some(log_id), membership)))
}
