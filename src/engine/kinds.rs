//! What etcd calls the kinds of requests in labels, and histograms by kind that are found without hashing labels.

use super::command::Command;
use crate::auth::Change;
use crate::metrics::Histogram;
use std::sync::OnceLock;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Put,
    DeleteRange,
    Txn,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Compaction,
    Alarm,
    ClusterMemberAttrSet,
    ClusterVersionSet,
    DowngradeInfoSet,
    Authenticate,
    AuthEnable,
    AuthDisable,
    AuthUserAdd,
    AuthUserDelete,
    AuthUserChangePassword,
    AuthUserGrantRole,
    AuthUserRevokeRole,
    AuthRoleAdd,
    AuthRoleDelete,
    AuthRoleGrantPermission,
    AuthRoleRevokePermission,
    ConfChange,
    Batch,
    Range,
    ReadonlyTxn,
}

const KINDS: usize = Kind::ReadonlyTxn as usize + 1;

impl Kind {
    /// The kind of a command.
    pub fn of(command: &Command) -> Kind {
        match command {
            Command::Put(_) => Kind::Put,
            Command::DeleteRange(_) => Kind::DeleteRange,
            Command::Txn(_) => Kind::Txn,
            Command::LeaseGrant { .. } => Kind::LeaseGrant,
            Command::LeaseRevoke { .. } => Kind::LeaseRevoke,
            Command::LeaseCheckpoint(_) | Command::LeaseRecord { .. } => Kind::LeaseCheckpoint,
            Command::Compact { .. } => Kind::Compaction,
            Command::Alarm { .. } => Kind::Alarm,
            Command::PublishMember(_) => Kind::ClusterMemberAttrSet,
            Command::SetClusterVersion(_) => Kind::ClusterVersionSet,
            Command::Downgrade { .. } => Kind::DowngradeInfoSet,
            Command::Auth(change) => Kind::of_auth(change),
            Command::Batch(_) => Kind::Batch,
            Command::AddMember(_)
            | Command::RemoveMember { .. }
            | Command::PromoteMember { .. }
            | Command::UpdateMember { .. } => Kind::ConfChange,
        }
    }

    fn of_auth(change: &Change) -> Kind {
        match change {
            Change::Enable => Kind::AuthEnable,
            Change::Disable => Kind::AuthDisable,
            Change::Authenticate { .. } => Kind::Authenticate,
            Change::UserAdd { .. } => Kind::AuthUserAdd,
            Change::UserDelete { .. } => Kind::AuthUserDelete,
            Change::UserChangePassword { .. } => Kind::AuthUserChangePassword,
            Change::UserGrantRole { .. } => Kind::AuthUserGrantRole,
            Change::UserRevokeRole { .. } => Kind::AuthUserRevokeRole,
            Change::RoleAdd { .. } => Kind::AuthRoleAdd,
            Change::RoleDelete { .. } => Kind::AuthRoleDelete,
            Change::RoleGrantPermission { .. } => Kind::AuthRoleGrantPermission,
            Change::RoleRevokePermission { .. } => Kind::AuthRoleRevokePermission,
        }
    }

    /// Its label.
    fn name(self) -> String {
        format!("{self:?}")
    }
}

/// One family's histograms by kind and success.
pub struct PerKind {
    find: fn(&str, &str) -> Histogram,
    found: [[OnceLock<Histogram>; 2]; KINDS],
}

impl PerKind {
    /// A family, given how a histogram of it is found by kind and success.
    pub const fn new(find: fn(&str, &str) -> Histogram) -> PerKind {
        PerKind { find, found: [const { [const { OnceLock::new() }; 2] }; KINDS] }
    }

    /// One of them.
    pub fn of(&self, kind: Kind, success: bool) -> &Histogram {
        let label = if success { "true" } else { "false" };
        self.found[kind as usize][usize::from(success)].get_or_init(|| (self.find)(&kind.name(), label))
    }
}
