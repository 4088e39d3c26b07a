//! Why the engine did not do what it was asked, by what the caller can do about it.

use super::command::Refusal;
use crate::{auth, mvcc};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can't be carried out in the present state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A read at a revision that is not there, or a broken database.
    #[error(transparent)]
    Read(#[from] mvcc::Error),
    /// Encoded, the request exceeds the limit.
    #[error("request is too large")]
    TooLarge,
    /// So many requests are in flight that no more are taken. Try again later.
    #[error("too many requests")]
    TooManyRequests,
    /// There is no leader now. Try again later.
    #[error("no leader")]
    NoLeader,
    /// The leader changed while the request was under way; whether it was carried out is not known.
    #[error("leader changed")]
    LeaderChanged,
    /// No outcome within the time limit; whether it will be carried out is not known.
    #[error("request timed out")]
    Timeout,
    /// The server is stopping.
    #[error("server stopped")]
    Stopped,
    /// The caller may not do this, or could not be told from others.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// After the change, members that never started could keep the others from a majority.
    #[error("not enough started members")]
    NotEnoughStarted,
    /// Members can't be reached, or not for long enough to change who belongs to the cluster.
    #[error("unhealthy cluster")]
    Unhealthy,
    /// The learner to promote lacks too much of the log.
    #[error("the learner is not in sync with the leader")]
    LearnerNotReady,
    /// There are as many learners as may be.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// This member can't take the lead.
    #[error("bad leader transferee")]
    BadTransferee,
    /// Another member answered something that nothing here has a name for.
    #[error("{0}")]
    Peer(String),
}

/// Result of an engine call.
pub type Result<T> = std::result::Result<T, Error>;
