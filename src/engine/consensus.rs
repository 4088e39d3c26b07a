//! The seam that consensus plugs into. The engine proposes entries and asks for read indexes; how they are agreed on is
//! `raft`'s matter.

use super::ask::{Answer, Question, Whom};
use super::command::Applied;
use super::entry::Entry;
use super::error::Error;
use crate::types::MemberId;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that the trait can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where consensus stands, as this member sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// The leader, or 0.
    pub leader: MemberId,
    /// Current term.
    pub term: u64,
    /// Index of the last committed entry.
    pub committed: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Whether this member only receives the log.
    pub is_learner: bool,
}

/// Who takes part in consensus.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Membership {
    /// Index of the entry that says so.
    pub index: u64,
    /// Who votes.
    pub voters: Vec<MemberId>,
    /// Who only receives the log.
    pub learners: Vec<MemberId>,
}

/// What a leader knows of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// Its id.
    pub id: MemberId,
    /// Milliseconds for which it has answered without a break; `None`: it does not answer.
    pub active_ms: Option<u64>,
    /// Whether it votes.
    pub is_voter: bool,
    /// Entries that it lacks, as far as the leader knows; `None`: nothing is known yet.
    pub behind: Option<u64>,
}

/// See the module.
pub trait Consensus: Send + Sync {
    /// Gets an entry committed and applied; resolves with what the applier answered on this member.
    fn propose(&self, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>>;

    /// The same, but only if this member leads in `term`: of decisions that only the leader of that term may take.
    fn propose_in(&self, term: u64, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>>;

    /// Resolves when local reads show every write that was acknowledged before the call.
    fn read_index(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// The same, without asking others where the leader's lease lets this member do without: nobody else can have been
    /// elected as long as clocks run alike.
    fn lease_read(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// The committed membership, once its index is above `after`; of a change in two steps only the last one.
    fn membership(&self, after: Option<u64>) -> BoxFuture<'_, Membership>;

    /// Index of the last entry that was applied here; costs next to nothing.
    fn applied(&self) -> u64;

    /// Resolves when this member has applied the entry at `index`.
    fn until_applied(&self, index: u64) -> BoxFuture<'_, Result<(), Error>>;

    /// Where things stand.
    fn status(&self) -> Status;

    /// Current term; asked for with every answer, so it must cost next to nothing.
    fn term(&self) -> u64;

    /// Of the leader: hands over to another voter; resolves when that one leads.
    fn move_leader(&self, to: MemberId) -> BoxFuture<'_, Result<(), Error>>;

    /// Of the leader: what it knows of the others. Of anybody else: nothing.
    fn peers(&self) -> Vec<PeerState>;

    /// Asks another member.
    fn ask(&self, whom: Whom, question: Question) -> BoxFuture<'_, Result<Answer, Error>>;

    /// Resolves when `id` takes part in consensus no more, after its removal was applied here.
    fn left(&self, id: MemberId) -> BoxFuture<'_, Result<(), Error>>;
}
