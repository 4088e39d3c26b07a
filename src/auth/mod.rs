//! Users, roles and permissions: who may do what.
//!
//! [`store`] is the replicated state, changed by the applier alone; [`permission`] decides about keys; [`token`] tells who
//! a request comes from; [`password`] checks credentials off the request path. The walk over commands, which asks
//! [`permission`] for every key that a command touches, is `engine::permit`, since commands are the engine's.
//! Knows no protocol. Rules of `docs/compat.md`.

pub mod password;
pub mod permission;
pub mod store;
pub mod table;
pub mod token;

pub use permission::Access;
pub use store::{Change, Permission, PermissionKind, Role, State, Store, TokenChange, User};

use std::sync::Arc;

/// User that `enable` demands, and that cannot be deleted while auth is on.
pub const ROOT_USER: &str = "root";
/// Role whose holders may do everything; it need not exist as a role.
pub const ROOT_ROLE: &str = "root";

/// Who a request comes from, and what it knew of the users when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the user; it need not exist any more.
    pub user: Arc<str>,
    /// Auth revision as of the request, or the one inside its token.
    pub revision: u64,
    /// Whether the revision came with the request, so that a newer one must not take its place.
    pub is_pinned: bool,
}

/// Why auth said no. Every replica comes to the same answer where the applier asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `enable` without a user root.
    #[error("root user does not exist")]
    RootUserMissing,
    /// `enable` while the user root lacks the role root.
    #[error("root user does not have root role")]
    RootRoleMissing,
    /// The user to add is there.
    #[error("user name already exists")]
    UserExists,
    /// The user to add has no name; or nobody is known to have sent the request.
    #[error("user name is empty")]
    UserEmpty,
    /// No such user.
    #[error("user name not found")]
    UserNotFound,
    /// The role to add is there.
    #[error("role name already exists")]
    RoleExists,
    /// No such role.
    #[error("role name not found")]
    RoleNotFound,
    /// The role to add has no name.
    #[error("role name is empty")]
    RoleEmpty,
    /// The caller lacks a permission.
    #[error("permission denied")]
    PermissionDenied,
    /// The role to take away is not held.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The permission to take away is not there.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// A login while auth is off.
    #[error("authentication is not enabled")]
    NotEnabled,
    /// A user or password that is wrong.
    #[error("authentication failed, invalid user ID or password")]
    Failed,
    /// A password for a user that has none.
    #[error("authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// What would leave nobody in charge; or a permission on no keys.
    #[error("invalid auth management")]
    InvalidManagement,
    /// The users changed since the request was made.
    #[error("revision of auth store is old")]
    OldRevision,
    /// A token that nobody gave out, or that has expired.
    #[error("invalid auth token")]
    InvalidToken,
    /// A password longer than bcrypt takes.
    #[error("password length exceeds 72 bytes")]
    PasswordTooLong,
    /// Tokens can be checked but not made: only the public key is known.
    #[error("token signing attempted with verify-only key")]
    VerifyOnly,
    /// More passwords wait to be checked than are let in.
    #[error("too many passwords to check")]
    Overloaded,
}

/// Everything that a member needs to know callers: the users, tokens and passwords.
pub struct Auth {
    /// The replicated state.
    pub store: Arc<Store>,
    /// Tokens of this member.
    pub tokens: token::Provider,
    /// Checks of passwords.
    pub passwords: password::Passwords,
}
