//! The one table between our errors and etcd's: gRPC code and text, to the letter (contract §2). Clients match the text.

use crate::engine::command::Refusal;
use crate::{auth, engine};
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
    /// Another member is reached by this URL.
    PeerUrlExists = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// The change would leave too few members. etcd sends this one as Unknown (C-5).
    NotEnoughStarted = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    /// No URLs, or not URLs of a member.
    BadMemberUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// Only learners can be promoted.
    NotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// Only the leader can do this.
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    /// Nobody can hand leadership to this one.
    BadTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// A downgrade to something that is no version.
    BadDowngradeFormat = InvalidArgument, "etcdserver: wrong downgrade target version format";
    /// A downgrade to another version than the one below.
    BadDowngradeTarget = InvalidArgument, "etcdserver: invalid downgrade target version";
    /// There is one already.
    DowngradeInProgress = FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    /// An unknown action. Not in etcd's table of errors.
    UnknownMethod = Unknown, "etcdserver: unknown method";
    /// No such member.
    MemberNotFound = NotFound, "etcdserver: member not found";
    /// The id is taken.
    MemberExists = FailedPrecondition, "etcdserver: member ID already exist";
    /// More than `--max-learners`.
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// A learner that lacks too much of the log to be promoted.
    LearnerNotReady = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// Members can't be reached, and a change could cost the majority.
    Unhealthy = Unavailable, "etcdserver: unhealthy cluster";
    /// Only voters do this (G-3).
    NotForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// The other member did not take the lead in time. Not in etcd's table of errors.
    TransferTimeout = Unknown, "etcdserver: request timed out, leader transfer took too long";
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
    /// No user root.
    RootUserMissing = FailedPrecondition, "etcdserver: root user does not exist";
    /// The user root lacks the role root.
    RootRoleMissing = FailedPrecondition, "etcdserver: root user does not have root role";
    /// The user is there.
    UserExists = FailedPrecondition, "etcdserver: user name already exists";
    /// A user without a name, or a caller that nobody knows.
    UserEmpty = InvalidArgument, "etcdserver: user name is empty";
    /// No such user.
    UserNotFound = FailedPrecondition, "etcdserver: user name not found";
    /// The role is there.
    RoleExists = FailedPrecondition, "etcdserver: role name already exists";
    /// No such role.
    RoleNotFound = FailedPrecondition, "etcdserver: role name not found";
    /// A role without a name.
    RoleEmpty = InvalidArgument, "etcdserver: role name is empty";
    /// A wrong user or password.
    AuthFailed = InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    /// A grant of nothing.
    PermissionNotGiven = InvalidArgument, "etcdserver: permission not given";
    /// Not for this caller.
    PermissionDenied = PermissionDenied, "etcdserver: permission denied";
    /// The user does not hold the role.
    RoleNotGranted = FailedPrecondition, "etcdserver: role is not granted to the user";
    /// The role does not have the permission.
    PermissionNotGranted = FailedPrecondition, "etcdserver: permission is not granted to the role";
    /// A login while auth is off.
    AuthNotEnabled = FailedPrecondition, "etcdserver: authentication is not enabled";
    /// Nobody's token, or none any more.
    InvalidAuthToken = Unauthenticated, "etcdserver: invalid auth token";
    /// What would leave nobody in charge, or means no keys.
    InvalidAuthManagement = InvalidArgument, "etcdserver: invalid auth management";
    /// Users changed since the token was made.
    AuthOldRevision = InvalidArgument, "etcdserver: revision of auth store is old";
    /// A password for a user that has none. etcd has no code for this and the next two.
    NoPasswordUser = Unknown, "auth: authentication failed, password was given for no password user";
    /// Only the public key of tokens is known.
    VerifyOnly = Unknown, "auth: token signing attempted with verify-only key";
    /// A password too long to hash.
    PasswordTooLong = Unknown, "bcrypt: password length exceeds 72 bytes";
}

impl Error {
    /// Code and text as Go shows a status, which is how a canceled watch tells its reason (W-7).
    pub fn go_text(self) -> String {
        let (code, text) = self.parts();
        format!("rpc error: code = {code:?} desc = {text}")
    }

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

/// What auth said, in etcd's words.
pub fn of_auth(error: auth::Error) -> Error {
    use auth::Error as E;
    match error {
        E::RootUserMissing => Error::RootUserMissing,
        E::RootRoleMissing => Error::RootRoleMissing,
        E::UserExists => Error::UserExists,
        E::UserEmpty => Error::UserEmpty,
        E::UserNotFound => Error::UserNotFound,
        E::RoleExists => Error::RoleExists,
        E::RoleNotFound => Error::RoleNotFound,
        E::RoleEmpty => Error::RoleEmpty,
        E::PermissionDenied => Error::PermissionDenied,
        E::RoleNotGranted => Error::RoleNotGranted,
        E::PermissionNotGranted => Error::PermissionNotGranted,
        E::NotEnabled => Error::AuthNotEnabled,
        E::Failed => Error::AuthFailed,
        E::NoPasswordUser => Error::NoPasswordUser,
        E::InvalidManagement => Error::InvalidAuthManagement,
        E::OldRevision => Error::AuthOldRevision,
        E::InvalidToken => Error::InvalidAuthToken,
        E::PasswordTooLong => Error::PasswordTooLong,
        E::VerifyOnly => Error::VerifyOnly,
        E::Overloaded => Error::TooManyRequests,
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
            Refusal::LeaseTtlTooLarge => Error::LeaseTtlTooLarge,
            Refusal::Compacted => Error::Compacted,
            Refusal::FutureRevision => Error::FutureRevision,
            Refusal::NoSpace => Error::NoSpace,
            Refusal::Corrupt => Error::Corrupt,
            Refusal::Auth(error) => of_auth(error),
            Refusal::MemberNotFound => Error::MemberNotFound,
            Refusal::MemberExists => Error::MemberExists,
            Refusal::PeerUrlTaken => Error::PeerUrlExists,
            Refusal::NotLearner => Error::NotLearner,
            Refusal::LastVoter => Error::NotEnoughStarted,
        },
        engine::Error::Auth(error) => of_auth(error),
        engine::Error::Read(Read::Compacted) => Error::Compacted,
        engine::Error::Read(Read::FutureRevision) => Error::FutureRevision,
        engine::Error::Read(Read::Storage(error)) => {
            tracing::error!(%error, "reading the database failed");
            return Status::unknown(error.to_string());
        }
        engine::Error::Read(error @ (Read::Scratch(_) | Read::Interrupted | Read::Transfer(_))) => {
            return Status::unknown(error.to_string());
        }
        engine::Error::TooLarge => Error::RequestTooLarge,
        engine::Error::TooManyRequests => Error::TooManyRequests,
        engine::Error::NoLeader => Error::NoLeader,
        engine::Error::LeaderChanged => Error::LeaderChanged,
        engine::Error::Timeout => Error::Timeout,
        engine::Error::Stopped => Error::Stopped,
        engine::Error::NotEnoughStarted => Error::NotEnoughStarted,
        engine::Error::Unhealthy => Error::Unhealthy,
        engine::Error::LearnerNotReady => Error::LearnerNotReady,
        engine::Error::TooManyLearners => Error::TooManyLearners,
        engine::Error::BadTransferee => Error::BadTransferee,
        engine::Error::Peer(text) => return Status::unknown(text),
    };
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mvcc, storage};

    const NOT_ENOUGH_STARTED: &str = "etcdserver: re-configuration failed due to not enough started members";

    /// Code and text that a client sees.
    fn on_the_wire(error: impl Into<engine::Error>) -> (Code, String) {
        let status = status(error.into());
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn refusals_are_told_in_etcds_words() {
        let rows = [
            (Refusal::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
            (Refusal::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
            (Refusal::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists"),
            (Refusal::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL"),
            (Refusal::Compacted, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            (
                Refusal::FutureRevision,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (Refusal::NoSpace, Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            (Refusal::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
            (Refusal::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
            (Refusal::MemberExists, Code::FailedPrecondition, "etcdserver: member ID already exist"),
            (Refusal::PeerUrlTaken, Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
            (Refusal::NotLearner, Code::FailedPrecondition, "etcdserver: can only promote a learner member"),
            (Refusal::LastVoter, Code::Unknown, NOT_ENOUGH_STARTED),
        ];
        for (refusal, code, text) in rows {
            assert_eq!(on_the_wire(refusal), (code, text.to_owned()));
        }
    }

    #[test]
    fn kv_r4_r5_reads_fail_as_refusals_do() {
        assert_eq!(on_the_wire(mvcc::Error::Compacted), on_the_wire(Refusal::Compacted));
        assert_eq!(on_the_wire(mvcc::Error::FutureRevision), on_the_wire(Refusal::FutureRevision));
    }

    #[test]
    fn an_error_without_a_row_is_unknown_with_its_own_text() {
        let error = storage::Error::Damaged("a page".into());
        let text = error.to_string();
        assert_eq!(on_the_wire(mvcc::Error::Storage(error)), (Code::Unknown, text));
    }

    #[test]
    fn g6_g7_g9_limits_and_leadership() {
        let rows = [
            (engine::Error::TooLarge, Code::InvalidArgument, "etcdserver: request is too large"),
            (engine::Error::TooManyRequests, Code::Unknown, "etcdserver: too many requests"),
            (engine::Error::NoLeader, Code::Unavailable, "etcdserver: no leader"),
            (engine::Error::LeaderChanged, Code::Unavailable, "etcdserver: leader changed"),
            (engine::Error::Timeout, Code::Unavailable, "etcdserver: request timed out"),
            (engine::Error::Stopped, Code::Unavailable, "etcdserver: server stopped"),
        ];
        for (error, code, text) in rows {
            assert_eq!(on_the_wire(error), (code, text.to_owned()));
        }
    }

    #[test]
    fn c_4_c_5_c_8_what_members_may_not_do_to_a_cluster() {
        let too_many = "etcdserver: too many learner members in cluster";
        let not_ready = "etcdserver: can only promote a learner member which is in sync with leader";
        let rows = [
            (engine::Error::NotEnoughStarted, Code::Unknown, NOT_ENOUGH_STARTED),
            (engine::Error::Unhealthy, Code::Unavailable, "etcdserver: unhealthy cluster"),
            (engine::Error::TooManyLearners, Code::FailedPrecondition, too_many),
            (engine::Error::LearnerNotReady, Code::FailedPrecondition, not_ready),
        ];
        for (error, code, text) in rows {
            assert_eq!(on_the_wire(error), (code, text.to_owned()));
        }
    }
}
