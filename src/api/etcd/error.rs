//! The one table between our errors and etcd's: gRPC code and text, to the letter (contract §2). Clients match the text.

use crate::engine;
use crate::engine::command::Refusal;
use tonic::{Code, Status};

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        /// What the etcd API answers instead of a result.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Error {
            $($(#[$doc])* $name,)*
        }

        impl Error {
            /// Code and text on the wire.
            const fn parts(self) -> (Code, &'static str) {
                match self {
                    $(Error::$name => (Code::$code, $text),)*
                }
            }
        }
    };
}

errors! {
    /// A key that must be given is empty.
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on a missing key; an op that is none.
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    /// `ignore_value` along with a value.
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    /// `ignore_lease` along with a lease.
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    /// More than `--max-txn-ops`.
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    /// A key changed twice in one txn.
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// The client's API version is not text.
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    /// Unknown sort order or target.
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    /// Below the last compaction.
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// Above the current revision.
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// The quota is reached.
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// No such lease.
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    /// The id is taken.
    LeaseExists = FailedPrecondition, "etcdserver: lease already exists";
    /// Above the longest TTL.
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    /// No such member.
    MemberNotFound = NotFound, "etcdserver: member not found";
    /// The encoded request exceeds `--max-request-bytes`.
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    /// Too many requests in flight. etcd sends this one as Unknown (G-7).
    TooManyRequests = Unknown, "etcdserver: too many requests";
    /// Nobody leads.
    NoLeader = Unavailable, "etcdserver: no leader";
    /// The leader changed while the request was under way.
    LeaderChanged = Unavailable, "etcdserver: leader changed";
    /// The server is stopping.
    Stopped = Unavailable, "etcdserver: server stopped";
    /// No outcome in time.
    Timeout = Unavailable, "etcdserver: request timed out";
    /// The CORRUPT alarm is on.
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
}

impl Error {
    /// The text that clients match.
    pub const fn message(self) -> &'static str {
        self.parts().1
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let (code, text) = error.parts();
        Status::new(code, text)
    }
}

/// What the engine said, in etcd's words.
pub fn status(error: engine::Error) -> Status {
    use crate::mvcc::Error as Read;
    let error = match error {
        engine::Error::Refused(refusal) => match refusal {
            Refusal::KeyNotFound => Error::KeyNotFound,
            Refusal::LeaseNotFound => Error::LeaseNotFound,
            Refusal::LeaseExists => Error::LeaseExists,
            Refusal::Compacted => Error::Compacted,
            Refusal::FutureRevision => Error::FutureRevision,
            Refusal::NoSpace => Error::NoSpace,
            Refusal::Corrupt => Error::Corrupt,
        },
        engine::Error::Read(Read::Compacted) => Error::Compacted,
        engine::Error::Read(Read::FutureRevision) => Error::FutureRevision,
        engine::Error::Read(Read::Storage(error)) => {
            tracing::error!(%error, "reading the database failed");
            return Status::unknown(error.to_string());
        }
        engine::Error::TooLarge => Error::RequestTooLarge,
        engine::Error::TooManyRequests => Error::TooManyRequests,
        engine::Error::NoLeader => Error::NoLeader,
        engine::Error::LeaderChanged => Error::LeaderChanged,
        engine::Error::Timeout => Error::Timeout,
        engine::Error::Stopped => Error::Stopped,
        engine::Error::MemberNotFound => Error::MemberNotFound,
    };
    error.into()
}
