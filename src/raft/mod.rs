//! Consensus by openraft, behind [`Node`]. The only code that imports openraft; its types do not leave this module.
//!
//! We rely on: one leader a term (standard Raft leader ids), votes and entries in one ordered, synced stream (`wal`), an
//! apply path that answers each proposal (thesis §3, §6.4). We keep out of: openraft's snapshot and purge policies. A snapshot *is* the state
//! environment at its last flush, and the log is purged only below that. Snapshots of others are installed one at a time:
//! openraft panics when two overlap (openraft #2116, `install_race_test`). A fatal error of openraft ends the process: a
//! restart takes a moment.

mod alone;
mod codec;
mod facade;
#[cfg(test)]
mod install_race_test;
mod installs;
mod leadership;
mod log_store;
mod members;
mod network;
mod node;
pub mod peer;
mod propose;
mod purge;
mod reads;
mod seed;
mod state_machine;
mod stopped;
mod transport;
mod waiting;
pub mod wal;
pub mod wolf;

pub use leadership::Leadership;
pub use members::{ask_whether_removed, follow_table, watch_disk};
pub use node::{Node, Options, Started, State};
pub use purge::Keep;
pub use seed::seed;
pub use stopped::{Logged, StoppedLog, StoppedVote, parse_membership};

use crate::engine::command::Applied;
use crate::engine::entry::Entry;
use crate::mvcc::Store;
use crate::mvcc::transfer::Received;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the membership says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peer {
    /// Name, as `--name` gave it at bootstrap.
    pub name: String,
    /// Where it is reached.
    pub urls: Vec<String>,
}

openraft::declare_raft_types!(
    /// The types that openraft is instantiated with.
    pub(crate) Types:
        D = Entry,
        R = Applied,
        NodeId = u64,
        Node = Peer,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

/// A snapshot in the hands of openraft.
pub(crate) enum SnapshotData {
    /// Our own: the last flush, of which `mvcc::transfer::Sender` makes a stream when a follower needs it.
    Own(Arc<Store>),
    /// What came in such a stream.
    Received(Received),
}

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;
type LogId = openraft::alias::LogIdOf<Types>;
type Vote = openraft::alias::VoteOf<Types>;
type LogEntry = openraft::alias::EntryOf<Types>;
type Payload = openraft::alias::PayloadOf<Types>;
type Membership = openraft::Membership<u64, Peer>;
type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
