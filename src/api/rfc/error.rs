//! What a call answers instead of a result. What the store decides about a request is told in the header of a complete
//! answer, or as a status where `--rfc-errors=status` asks for that; what leaves no answer about the store is a status in
//! any case. Texts are etcd's where it has one.

use super::Rfc;
use crate::api::etcd::error as etcd;
use crate::api::range::Failure;
use crate::engine::command::{Outcome, Refusal};
use crate::pb::rfc as pb;
use crate::{engine, mvcc};
use pb::ResponseHeader;
use tonic::{Code, Response, Status};

/// What the store decides about a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// A key that must be given is absent or empty.
    EmptyKey,
    /// Not a token of this cluster.
    BadToken,
    /// A compare with nothing.
    NoTarget,
    /// A compare of a type that there is not.
    BadCompareType,
    /// A request of a transaction that asks for nothing.
    NoOperation,
    /// A key changed twice in one list of a transaction.
    DuplicateKey,
    /// A list of a transaction is longer than `--max-txn-ops`.
    TooManyOps,
    /// At or below the last compaction.
    Compacted,
    /// Above the current index.
    FutureIndex,
    /// No such lease.
    LeaseNotFound,
    /// No such key to attach.
    KeyNotFound,
    /// Above the longest TTL.
    TtlTooLarge,
    /// The quota is reached.
    NoSpace,
}

impl Error {
    /// The code for those who want statuses, and the text for all.
    const fn parts(self) -> (Code, &'static str) {
        use etcd::Error as E;
        match self {
            Error::EmptyKey => (Code::InvalidArgument, E::EmptyKey.message()),
            Error::BadToken => (Code::InvalidArgument, "etcdserver: consistent token is not valid"),
            Error::NoTarget => (Code::InvalidArgument, "etcdserver: compare target is not provided"),
            Error::BadCompareType => (Code::InvalidArgument, "etcdserver: compare type is not valid"),
            Error::NoOperation => (Code::InvalidArgument, "etcdserver: operation is not provided"),
            Error::DuplicateKey => (Code::InvalidArgument, E::DuplicateKey.message()),
            Error::TooManyOps => (Code::InvalidArgument, E::TooManyOps.message()),
            Error::Compacted => (Code::OutOfRange, E::Compacted.message()),
            Error::FutureIndex => (Code::OutOfRange, E::FutureRevision.message()),
            Error::LeaseNotFound => (Code::NotFound, E::LeaseNotFound.message()),
            Error::KeyNotFound => (Code::NotFound, E::KeyNotFound.message()),
            Error::TtlTooLarge => (Code::OutOfRange, E::LeaseTtlTooLarge.message()),
            Error::NoSpace => (Code::ResourceExhausted, E::NoSpace.message()),
        }
    }

    /// The text.
    pub const fn message(self) -> &'static str {
        self.parts().1
    }
}

/// Why there is no result.
#[derive(Debug)]
pub enum Fault {
    /// The store decided so.
    Refused(Error),
    /// There is no answer about the store.
    Status(Status),
}

impl Fault {
    /// The text, for streams: there, one watch or lease does not end the others.
    pub fn message(&self) -> &str {
        match self {
            Fault::Refused(error) => error.message(),
            Fault::Status(status) => status.message(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Refused(error)
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Fault {
        Fault::Status(status)
    }
}

impl From<engine::Error> for Fault {
    fn from(error: engine::Error) -> Fault {
        let decided = match &error {
            engine::Error::Refused(refusal) => match refusal {
                Refusal::KeyNotFound => Some(Error::KeyNotFound),
                Refusal::LeaseNotFound => Some(Error::LeaseNotFound),
                Refusal::LeaseTtlTooLarge => Some(Error::TtlTooLarge),
                Refusal::Compacted => Some(Error::Compacted),
                Refusal::FutureRevision => Some(Error::FutureIndex),
                Refusal::NoSpace => Some(Error::NoSpace),
                Refusal::LeaseExists
                | Refusal::Corrupt
                | Refusal::Auth(_)
                | Refusal::MemberNotFound
                | Refusal::MemberExists
                | Refusal::PeerUrlTaken
                | Refusal::NotLearner
                | Refusal::LastVoter => None,
            },
            engine::Error::Read(mvcc::Error::Compacted) => Some(Error::Compacted),
            engine::Error::Read(mvcc::Error::FutureRevision) => Some(Error::FutureIndex),
            _ => None,
        };
        match decided {
            Some(error) => Fault::Refused(error),
            None => Fault::Status(etcd::status(error)),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        match failure {
            Failure::Engine(error) => error.into(),
            Failure::Status(status) => Fault::Status(status),
        }
    }
}

/// The applier answers each command with its own kind of outcome.
pub fn unexpected(outcome: &Outcome) -> Fault {
    Fault::Status(Status::internal(format!("the outcome is of another command: {outcome:?}")))
}

/// An answer that can say why it has nothing else to say.
pub trait Answer {
    /// The one with this header alone.
    fn refused(header: ResponseHeader) -> Self;
}

macro_rules! answers {
    ($($name:ident),*) => {$(
        impl Answer for pb::$name {
            fn refused(header: ResponseHeader) -> Self {
                pb::$name { header: Some(header), ..Default::default() }
            }
        }
    )*};
}

answers!(RangeResponse, TnxResponse, LeaseTnxResponse);

macro_rules! bare_answers {
    ($($name:ident),*) => {$(
        impl Answer for pb::$name {
            fn refused(header: ResponseHeader) -> Self {
                pb::$name { header: Some(header) }
            }
        }
    )*};
}

bare_answers!(PutResponse, DeleteRangeResponse, CompactionResponse, LeaseRevokeResponse, LeaseAttachResponse);

/// This one has a second place for the reason.
impl Answer for pb::LeaseCreateResponse {
    fn refused(header: ResponseHeader) -> Self {
        let error = header.error.clone();
        pb::LeaseCreateResponse { header: Some(header), error, ..Default::default() }
    }
}

impl Rfc {
    /// The header that says why.
    pub fn header_of_error(&self, text: &str, index: i64) -> ResponseHeader {
        ResponseHeader { error: Some(text.to_owned()), ..self.header(index) }
    }

    /// What a fault is answered with.
    pub fn refuse<T: Answer>(&self, fault: Fault) -> Result<T, Status> {
        match fault {
            Fault::Refused(error) if self.errors_as_status => {
                let (code, text) = error.parts();
                Err(Status::new(code, text))
            }
            Fault::Refused(error) => {
                Ok(T::refused(self.header_of_error(error.message(), self.engine.revision())))
            }
            Fault::Status(status) => Err(status),
        }
    }

    /// The answer to a unary call.
    pub fn answer<T: Answer>(&self, result: Result<T, Fault>) -> Result<Response<T>, Status> {
        result.or_else(|fault| self.refuse(fault)).map(Response::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(error: engine::Error) -> Option<Error> {
        match Fault::from(error) {
            Fault::Refused(error) => Some(error),
            Fault::Status(_) => None,
        }
    }

    #[test]
    fn what_the_store_decides_is_told_from_what_leaves_no_answer() {
        assert_eq!(refused(Refusal::NoSpace.into()), Some(Error::NoSpace));
        assert_eq!(refused(Refusal::LeaseNotFound.into()), Some(Error::LeaseNotFound));
        assert_eq!(refused(mvcc::Error::Compacted.into()), Some(Error::Compacted));
        for error in [
            engine::Error::NoLeader,
            engine::Error::Timeout,
            engine::Error::TooLarge,
            Refusal::Corrupt.into(),
            Refusal::Auth(crate::auth::Error::PermissionDenied).into(),
        ] {
            assert_eq!(refused(error), None);
        }
    }

    #[test]
    fn codes_are_those_of_what_is_wrong() {
        let codes = [
            (Error::EmptyKey, Code::InvalidArgument),
            (Error::DuplicateKey, Code::InvalidArgument),
            (Error::Compacted, Code::OutOfRange),
            (Error::FutureIndex, Code::OutOfRange),
            (Error::LeaseNotFound, Code::NotFound),
            (Error::KeyNotFound, Code::NotFound),
            (Error::NoSpace, Code::ResourceExhausted),
        ];
        for (error, code) in codes {
            assert_eq!(error.parts().0, code);
            assert!(error.message().starts_with("etcdserver: "));
        }
    }
}
