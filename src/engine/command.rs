//! The one vocabulary of changes and reads. Adapters translate their protocol into it, the log stores it, the applier runs it.
//!
//! Plain data: no protocol's message enters, none leaves. Commands are persisted in the log by [`super::entry`]: variants
//! and fields keep their order for ever; new variants go to the end, new fields need a new entry version.

use super::versions::ClusterVersion;
use crate::auth;
use crate::types::{KeyRange, LeaseId, MemberId, Slice};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use std::cell::Cell;

/// A change, as the raft log holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Write one key.
    Put(Put),
    /// Remove the keys of a range.
    DeleteRange(DeleteRange),
    /// Compare, then run one of two branches.
    Txn(Txn),
    /// Promise that keys live while the lease is renewed.
    LeaseGrant {
        /// Chosen id; not 0.
        id: LeaseId,
        /// Granted seconds.
        ttl_secs: i64,
    },
    /// End leases and delete their keys, each lease in a revision of its own.
    LeaseRevoke {
        /// Which; unknown ones are passed over unless the only one.
        ids: Vec<LeaseId>,
        /// Whether their time ran out, rather than a client asked. Said for those who read the log; the keys go alike.
        expired: bool,
    },
    /// Remember how many seconds leases had left. Old logs have it, and what is imported from etcd.
    LeaseCheckpoint(Vec<(LeaseId, i64)>),
    /// Refuse history below the revision, and remove it in the background.
    Compact {
        /// First revision that stays readable.
        revision: i64,
    },
    /// Raise or clear an alarm.
    Alarm {
        /// Raise, or clear.
        activate: bool,
        /// Whose.
        member: MemberId,
        /// Which.
        alarm: AlarmKind,
    },
    /// Make the name and client URLs of a member known; the rest of it is as the table has it.
    PublishMember(Member),
    /// Announce a downgrade, or call it off.
    Downgrade {
        /// Where it leads.
        target: Option<ClusterVersion>,
    },
    /// Let the cluster have another version.
    SetClusterVersion(ClusterVersion),
    /// Change users, roles or permissions, or give out a token.
    Auth(auth::Change),
    /// Take a member in, which is to be started then.
    AddMember(Member),
    /// Part with a member for ever.
    RemoveMember {
        /// Which.
        id: MemberId,
    },
    /// Make a learner a voter.
    PromoteMember {
        /// Which.
        id: MemberId,
    },
    /// Let a member be reached elsewhere by its peers.
    UpdateMember {
        /// Which.
        id: MemberId,
        /// Where from now on.
        peer_urls: Vec<String>,
    },
    /// Run transactions one after the other; all become visible together.
    Batch(Batch),
    /// Remember since when leases run, on the leader's clock; `None`: nothing is known any more.
    LeaseRecord {
        /// What the clock showed, milliseconds.
        now_ms: u64,
        /// Leases, and when they were renewed last.
        since_ms: Vec<(LeaseId, Option<u64>)>,
    },
}

/// Transactions of one entry, each with an outcome of its own: one that is refused, or whose compares do not hold, does
/// not keep the others from running, and each sees what those before it did. They share a revision as long as none
/// changes a key a second time.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// Reads and deletes of ranges concern only the keys of this slice of the keyspace.
    pub slice: Option<Slice>,
    /// In order.
    pub txns: Vec<Txn>,
}

/// Write one key.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Put {
    /// Key; not empty.
    pub key: Bytes,
    /// New value.
    pub value: Bytes,
    /// Lease to attach, or 0.
    pub lease: LeaseId,
    /// Answer with the pair before.
    pub prev_kv: bool,
    /// Keep the value that the key has; it must exist.
    pub ignore_value: bool,
    /// Keep the lease that the key has; it must exist.
    pub ignore_lease: bool,
}

/// Remove the keys of a range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeleteRange {
    /// Which.
    pub range: KeyRange,
    /// Answer with the pairs before.
    pub prev_kv: bool,
}

/// Compare, then run one of two branches, all in one revision.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold for `success` to run.
    pub compares: Vec<Compare>,
    /// Run when they hold.
    pub success: Vec<Op>,
    /// Run otherwise.
    pub failure: Vec<Op>,
}

/// One step of a branch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Read; sees earlier writes of the same transaction.
    Range(Range),
    /// Write one key.
    Put(Put),
    /// Remove the keys of a range.
    DeleteRange(DeleteRange),
    /// A transaction inside.
    Txn(#[serde(deserialize_with = "nested_txn")] Txn),
    /// Write one key, whatever lease it has now.
    BoundPut(BoundPut),
    /// Attach a key to a lease.
    Attach(Attach),
}

/// Write one key, and say what becomes of its lease whether or not it exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundPut {
    /// Key; not empty.
    pub key: Bytes,
    /// New value.
    pub value: Bytes,
    /// Its lease.
    pub binding: Binding,
}

/// The lease of a [`BoundPut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binding {
    /// The one that it has, if any.
    Keep,
    /// A new one. It *belongs* to its keys: once none is attached to it, it is no more.
    New {
        /// Chosen id; not 0.
        id: LeaseId,
        /// Granted seconds, however few.
        ttl_secs: i64,
    },
}

/// Attach an existing key to a lease in the place of the one that it has. Makes no revision, and nobody can watch it. In
/// a transaction it sees the ops before it, and if it can't be done, nothing is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// Which key.
    pub key: Bytes,
    /// To which lease.
    pub lease: LeaseId,
}

/// Txns inside txns that an entry may hold; a request has fewer, as protobuf messages nest a hundred deep at most.
const TXN_DEPTH_MAX: u32 = 100;

/// Reads a txn inside another one; refuses what would exhaust the stack.
fn nested_txn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Txn, D::Error> {
    thread_local! { static DEPTH: Cell<u32> = const { Cell::new(0) } }
    let depth = DEPTH.get();
    if depth >= TXN_DEPTH_MAX {
        return Err(serde::de::Error::custom("txns are nested too deep"));
    }
    DEPTH.set(depth + 1);
    let txn = Txn::deserialize(deserializer);
    DEPTH.set(depth);
    txn
}

/// A condition on every key of a range; an empty range is like one missing key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How the key's side must relate to the operand.
    pub relation: Relation,
    /// What of the key is compared, and with what.
    pub operand: Operand,
}

/// How two values must relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// `==`
    Equal,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `!=`
    NotEqual,
    /// Always holds: what etcd makes of a relation it does not know.
    Any,
}

/// The side of a compare that the client gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operand {
    /// Writes since creation.
    Version(i64),
    /// Revision of creation.
    CreateRevision(i64),
    /// Revision of the last change.
    ModRevision(i64),
    /// The value, bytewise. Never holds on a missing key.
    Value(Bytes),
    /// The attached lease.
    Lease(LeaseId),
}

/// A read of keys at one revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most this many; 0 or less: all.
    pub limit: i64,
    /// At which revision; 0 or less: the current one.
    pub revision: i64,
    /// In which order.
    pub sort: Sort,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Bounds, inclusive, applied before the limit; 0: none.
    pub bounds: RevisionBounds,
}

impl Range {
    /// Whether keys are counted that are not returned.
    pub fn counts_more(&self) -> bool {
        self.count_only || self.limit > 0
    }
}

/// Inclusive bounds on the revisions of the keys read; 0 is "no bound".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevisionBounds {
    /// Lowest `mod_revision`.
    pub mod_min: i64,
    /// Highest `mod_revision`.
    pub mod_max: i64,
    /// Lowest `create_revision`.
    pub create_min: i64,
    /// Highest `create_revision`.
    pub create_max: i64,
}

/// Order of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sort {
    /// Direction.
    pub order: SortOrder,
    /// By what.
    pub target: SortTarget,
}

/// Direction of a [`Sort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SortOrder {
    /// By key; by another target ascending, but *after* the limit was applied in key order (KV-R13).
    #[default]
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
}

/// What a [`Sort`] goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// Writes since creation.
    Version,
    /// Revision of creation.
    Create,
    /// Revision of the last change.
    Mod,
    /// The value.
    Value,
}

/// What can be wrong with a member. Numbers are persisted, and etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlarmKind {
    /// The quota is reached: writes that need space are refused.
    NoSpace = 1,
    /// Replicas disagree: writes are refused.
    Corrupt = 2,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
    /// Whether it only receives the log.
    pub is_learner: bool,
}

/// A key-value pair in an answer: the key, and its image with the value inline.
#[derive(Clone, Debug, PartialEq)]
pub struct Kv {
    /// Key.
    pub key: Bytes,
    /// See [`crate::storage::codec::Image`].
    pub image: Bytes,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of `Put`.
    Put {
        /// Revision of the write.
        revision: i64,
        /// The pair before, if asked for and there was one.
        previous: Option<Kv>,
    },
    /// Of `DeleteRange`.
    DeleteRange {
        /// Revision of the write; the current one when nothing was deleted.
        revision: i64,
        /// Keys deleted.
        deleted: i64,
        /// The pairs before, if asked for.
        previous: Vec<Kv>,
    },
    /// Of `Txn`.
    Txn(TxnOutcome),
    /// Of `Batch`.
    Batch {
        /// Revision of the last write; the current one when nothing was written.
        revision: i64,
        /// One of each transaction.
        outcomes: Vec<Result<TxnOutcome, Refusal>>,
    },
    /// Of a login.
    Authenticated {
        /// The current revision.
        revision: i64,
        /// Auth revision as of which the token is.
        auth_revision: u64,
        /// Index of the entry.
        index: u64,
    },
    /// Of everything else: the current revision.
    Done {
        /// Revision after the command.
        revision: i64,
    },
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnOutcome {
    /// Revision of its writes; the current one when it wrote nothing.
    pub revision: i64,
    /// Which branch ran.
    pub succeeded: bool,
    /// One per op of that branch.
    pub results: Vec<OpOutcome>,
}

/// What one op did.
#[derive(Clone, Debug, PartialEq)]
pub enum OpOutcome {
    /// Of `Range`.
    Range {
        /// Revision as of this op.
        revision: i64,
        /// Pairs found.
        kvs: Vec<Kv>,
        /// Whether the limit cut more off.
        more: bool,
        /// Keys in the range, whatever the limit.
        count: i64,
    },
    /// Of `Put` and `BoundPut`.
    Put {
        /// Revision of the write.
        revision: i64,
        /// The pair before, if asked for.
        previous: Option<Kv>,
    },
    /// Of `DeleteRange`.
    DeleteRange {
        /// Revision as of this op.
        revision: i64,
        /// Keys deleted.
        deleted: i64,
        /// The pairs before.
        previous: Vec<Kv>,
    },
    /// Of `Txn`.
    Txn(TxnOutcome),
    /// Of `Attach`.
    Attach {
        /// Revision as of this op.
        revision: i64,
    },
}

/// Why a committed command was not carried out. Every replica comes to the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `ignore_value`, `ignore_lease` or `Attach` on a missing key.
    #[error("key not found")]
    KeyNotFound,
    /// The lease to attach or revoke does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// The lease to grant exists.
    #[error("lease already exists")]
    LeaseExists,
    /// The lease to grant would last too long.
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// Below the last compaction.
    #[error("required revision has been compacted")]
    Compacted,
    /// Above the current revision.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The NOSPACE alarm is on.
    #[error("database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is on.
    #[error("corrupt cluster")]
    Corrupt,
    /// The caller may not do this, or users and roles are not as it supposes.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// There is no such member, or there was one, whose id never returns.
    #[error("member not found")]
    MemberNotFound,
    /// The member to add is there.
    #[error("member ID already exists")]
    MemberExists,
    /// Another member is reached by this URL.
    #[error("peer URLs already exist")]
    PeerUrlTaken,
    /// The member to promote votes already.
    #[error("only a learner can be promoted")]
    NotLearner,
    /// Without the member to remove nobody would vote.
    #[error("the last voter can't be removed")]
    LastVoter,
}

/// The answer of the applier.
pub type Applied = Result<Outcome, Refusal>;
