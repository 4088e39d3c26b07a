//! What goes wrong, in the codes that tell a client of the d-engine what to do. Texts are those that etcd has for it.
//!
//! The crate makes one kind of error of a status, and shows nothing of its text: `UNAVAILABLE` is a cluster that is not ready,
//! `INVALID_ARGUMENT` a request that is wrong, `PERMISSION_DENIED` a node that does not lead, and most others nothing in
//! particular. So nobody is ever told `PERMISSION_DENIED`. What only a code inside the answer can say is said there.

use crate::api::etcd;
use crate::auth;
use crate::engine::command::Refusal;
use crate::engine::{Error, LEASE_TTL_MAX_SECS};
use crate::mvcc::Error as Read;
use crate::pb::d_engine::client::ClientResponse;
use crate::pb::d_engine::error::{ErrorCode, ErrorMetadata};
use tonic::{Code, Status};

/// A write that names no operation.
pub fn no_command() -> Status {
    Status::invalid_argument("the request has no command")
}

/// An empty key, which the store does not have.
pub fn empty_key() -> Status {
    Status::invalid_argument(etcd::error::Error::EmptyKey.message())
}

/// A prefix that could not be a path.
pub fn not_a_path() -> Status {
    Status::invalid_argument("the prefix to watch must begin and end with '/'")
}

/// A key that would live longer than any may.
pub fn long_ttl() -> Status {
    Status::invalid_argument(format!("ttl_secs is at most {LEASE_TTL_MAX_SECS}"))
}

/// An answer that nobody could take.
pub fn long_answer(bytes_max: usize) -> Status {
    Status::resource_exhausted(format!("the answer has more than {bytes_max} bytes"))
}

/// The end of a stream when the server stops.
pub fn stopped() -> Status {
    etcd::error::Error::Stopped.into()
}

/// The end of a watch whose history is gone.
pub fn lost() -> Status {
    Status::unavailable(etcd::error::Error::Compacted.message())
}

/// What the engine said.
pub fn status(error: Error) -> Status {
    let code = code(&error);
    Status::new(code, etcd::error::status(error).message())
}

/// What the engine said to a write: in the answer, where the protocol has a code of its own.
pub fn answer(error: Error) -> Result<ClientResponse, Status> {
    let code = match error {
        Error::Refused(Refusal::NoSpace) => ErrorCode::DiskFull,
        Error::Refused(Refusal::Corrupt) => ErrorCode::DataCorruption,
        other => return Err(status(other)),
    };
    let text = etcd::error::status(error).message().to_owned();
    let metadata = ErrorMetadata { debug_message: Some(text), ..ErrorMetadata::default() };
    Ok(ClientResponse { error: code as i32, success_result: None, metadata: Some(metadata) })
}

fn code(error: &Error) -> Code {
    match error {
        Error::Refused(Refusal::Auth(error)) | Error::Auth(error) => code_of_auth(*error),
        Error::Refused(Refusal::LeaseTtlTooLarge) | Error::TooLarge => Code::InvalidArgument,
        Error::Refused(Refusal::NoSpace) | Error::TooManyRequests => Code::ResourceExhausted,
        Error::Refused(Refusal::Corrupt) => Code::DataLoss,
        // Whether a write was done is not known after some of these; to ask again is all that a client can do.
        Error::NoLeader | Error::LeaderChanged | Error::Stopped => Code::Unavailable,
        Error::Timeout => Code::DeadlineExceeded,
        // A long read was overtaken by a compaction; the next one begins later.
        Error::Read(Read::Compacted) => Code::Unavailable,
        // What no request of this protocol can cause, and what is wrong with the server.
        Error::Refused(
            Refusal::KeyNotFound
            | Refusal::LeaseNotFound
            | Refusal::LeaseExists
            | Refusal::Compacted
            | Refusal::FutureRevision
            | Refusal::MemberNotFound
            | Refusal::MemberExists
            | Refusal::PeerUrlTaken
            | Refusal::NotLearner
            | Refusal::LastVoter,
        )
        | Error::Read(_)
        | Error::NotEnoughStarted
        | Error::Unhealthy
        | Error::LearnerNotReady
        | Error::TooManyLearners
        | Error::BadTransferee
        | Error::Peer(_) => Code::Internal,
    }
}

fn code_of_auth(error: auth::Error) -> Code {
    if error == auth::Error::Overloaded { Code::ResourceExhausted } else { Code::Unauthenticated }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: impl Into<Error>) -> (Code, String) {
        let status = status(error.into());
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn nobody_takes_a_refusal_for_a_node_that_does_not_lead() {
        for error in [
            auth::Error::PermissionDenied,
            auth::Error::UserEmpty,
            auth::Error::InvalidToken,
            auth::Error::OldRevision,
        ] {
            assert_eq!(told(error).0, Code::Unauthenticated, "{error}");
            assert_eq!(told(Refusal::Auth(error)).0, Code::Unauthenticated, "{error}");
        }
    }

    #[test]
    fn a_client_is_told_what_it_can_do() {
        let rows = [
            (Error::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (Error::LeaderChanged, Code::Unavailable, "etcdserver: leader changed"),
            (Error::Stopped, Code::Unavailable, "etcdserver: server stopped"),
            (Error::Timeout, Code::DeadlineExceeded, "etcdserver: request timed out"),
            (Error::TooManyRequests, Code::ResourceExhausted, "etcdserver: too many requests"),
            (Error::TooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
            (Refusal::LeaseTtlTooLarge.into(), Code::InvalidArgument, "etcdserver: too large lease TTL"),
        ];
        for (error, code, text) in rows {
            assert_eq!(told(error), (code, text.to_owned()));
        }
    }

    #[test]
    fn what_the_disk_says_is_said_in_the_answer() {
        let answer = answer(Refusal::NoSpace.into()).unwrap();
        assert_eq!(answer.error(), ErrorCode::DiskFull);
        let text = answer.metadata.unwrap().debug_message.unwrap();
        assert_eq!(text, "etcdserver: mvcc: database space exceeded");
        assert_eq!(super::answer(Refusal::Corrupt.into()).unwrap().error(), ErrorCode::DataCorruption);
        assert_eq!(super::answer(Error::NoLeader).unwrap_err().code(), Code::Unavailable);
    }
}
