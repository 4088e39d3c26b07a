//! The seam that consensus plugs into. The engine proposes entries and asks for read indexes; how they are agreed on is
//! `raft`'s matter.

use super::command::Applied;
use super::entry::Entry;
use super::error::Error;
use crate::types::MemberId;
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

/// See the module.
pub trait Consensus: Send + Sync {
    /// Gets an entry committed and applied; resolves with what the applier answered on this member.
    fn propose(&self, entry: Entry) -> BoxFuture<'_, Result<Applied, Error>>;

    /// Resolves when local reads show every write that was acknowledged before the call.
    fn read_index(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Where things stand.
    fn status(&self) -> Status;

    /// Current term; asked for with every answer, so it must cost next to nothing.
    fn term(&self) -> u64;
}
