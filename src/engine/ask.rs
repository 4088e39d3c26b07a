//! What members ask each other beyond consensus: things that only the leader knows, and digests. Questions travel as
//! postcard bytes (`raft` carries them); new variants go to the end, so that members of neighbouring versions understand
//! each other.

use super::{Engine, Error, Result};
use crate::lease::clock::Reading;
use crate::types::{LeaseId, MemberId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Pause before a leader is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whoever leads, this member perhaps.
    Leader,
    /// This one.
    Member(MemberId),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// To the leader: renew a lease.
    RenewLease(LeaseId),
    /// To the leader: what is left of a lease.
    LeaseRemaining(LeaseId),
    /// To the leader: hand over to this member.
    MoveLeader(MemberId),
    /// To the leader: who can be reached, and how far each has come.
    Peers,
    /// To any member: the digest of everything up to a revision.
    Hash(i64),
    /// To the leader: the time that it measures leases by.
    LeaseClock,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Seconds granted; 0: there is no such lease, or its time is up.
    Renewed(i64),
    /// Milliseconds left and seconds granted.
    Remaining(Option<(u64, i64)>),
    /// It was done.
    Done,
    /// See [`super::consensus::PeerState`].
    Peers(Vec<super::consensus::PeerState>),
    /// A digest.
    Hash {
        /// Of everything up to `revision`.
        hash: u32,
        /// Compacted revision of that state.
        compacted: i64,
        /// The revision.
        revision: i64,
        /// Revision of the member's store now.
        current: i64,
    },
    /// It was not done.
    Failed(Failure),
    /// The time.
    LeaseClock(Reading),
}

/// Why a question has no answer, as far as the asker can do something about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Failure {
    /// The member asked does not lead, or there is no leader.
    NoLeader,
    /// No outcome in time.
    Timeout,
    /// The member can't take the lead.
    BadTransferee,
    /// The revision is compacted.
    Compacted,
    /// The revision has not been reached.
    FutureRevision,
    /// Anything else, in words.
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::NoLeader | Error::LeaderChanged => Failure::NoLeader,
            Error::Timeout => Failure::Timeout,
            Error::BadTransferee => Failure::BadTransferee,
            Error::Read(crate::mvcc::Error::Compacted) => Failure::Compacted,
            Error::Read(crate::mvcc::Error::FutureRevision) => Failure::FutureRevision,
            other => Failure::Other(other.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::NoLeader => Error::NoLeader,
            Failure::Timeout => Error::Timeout,
            Failure::BadTransferee => Error::BadTransferee,
            Failure::Compacted => Error::Read(crate::mvcc::Error::Compacted),
            Failure::FutureRevision => Error::Read(crate::mvcc::Error::FutureRevision),
            Failure::Other(text) => Error::Peer(text),
        }
    }
}

impl Engine {
    /// Answers a question of another member, or of this one.
    pub async fn answer(&self, question: Question) -> Answer {
        self.try_answer(question).await.unwrap_or_else(|error| Answer::Failed(error.into()))
    }

    async fn try_answer(&self, question: Question) -> Result<Answer> {
        Ok(match question {
            Question::RenewLease(id) => Answer::Renewed(self.renew_here(id).await?),
            Question::LeaseRemaining(id) => {
                self.confirm_leader().await?;
                if !self.0.leases.is_primary() {
                    return Err(Error::NoLeader);
                }
                Answer::Remaining(self.0.leases.remaining(id))
            }
            Question::MoveLeader(to) => {
                // It may lead all the same.
                if let Err(error) = self.record_all_leases().await {
                    tracing::debug!(%error, "leases are not recorded");
                }
                self.0.consensus.move_leader(to).await?;
                Answer::Done
            }
            Question::Peers => {
                self.confirm_leader().await?;
                Answer::Peers(self.0.consensus.peers())
            }
            Question::LeaseClock => {
                let reading = self.0.leases.reading().ok_or(Error::NoLeader)?;
                Answer::LeaseClock(reading)
            }
            Question::Hash(revision) => {
                let found = self.hash(revision).await?;
                Answer::Hash {
                    hash: found.hash,
                    compacted: found.compacted,
                    revision: found.revision,
                    current: self.revision(),
                }
            }
        })
    }

    /// Fails unless this member leads, and others follow it.
    pub(super) async fn confirm_leader(&self) -> Result<()> {
        if !self.leads() {
            return Err(Error::NoLeader);
        }
        self.read_index().await?;
        // Otherwise it was another leader that confirmed the read.
        if self.leads() { Ok(()) } else { Err(Error::NoLeader) }
    }

    /// Asks, and turns a failure into an error. A member that leads, but does not yet decide, or no more, is asked again.
    pub(super) async fn ask(&self, whom: Whom, question: Question) -> Result<Answer> {
        match self.ask_once(whom, question.clone()).await {
            Err(Error::NoLeader) if whom == Whom::Leader => {}
            outcome => return outcome,
        }
        let again = async {
            loop {
                tokio::time::sleep(AGAIN).await;
                match self.ask_once(whom, question.clone()).await {
                    Err(Error::NoLeader) => {}
                    outcome => return outcome,
                }
            }
        };
        tokio::time::timeout(self.limits().request_timeout, again).await.unwrap_or(Err(Error::Timeout))
    }

    async fn ask_once(&self, whom: Whom, question: Question) -> Result<Answer> {
        let me = self.identity().member;
        let is_me = match whom {
            Whom::Leader => self.leader() == me,
            Whom::Member(id) => id == me,
        };
        let answer =
            if is_me { self.answer(question).await } else { self.0.consensus.ask(whom, question).await? };
        match answer {
            Answer::Failed(failure) => Err(failure.into()),
            answer => Ok(answer),
        }
    }
}

/// For an answer to another question: the other member runs something else.
pub(super) fn unexpected(answer: &Answer) -> Error {
    Error::Peer(format!("an answer that does not fit the question: {answer:?}"))
}
