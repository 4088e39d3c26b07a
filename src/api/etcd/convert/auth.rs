//! Permissions, to and from etcd's messages.

use crate::auth::{Permission, PermissionKind, ROOT_ROLE, Role};
use crate::pb::authpb::{self, permission::Type};

/// A permission of a request; `None` for a type that nobody knows.
pub fn permission(permission: authpb::Permission) -> Option<Permission> {
    let kind = match Type::try_from(permission.perm_type).ok()? {
        Type::Read => PermissionKind::Read,
        Type::Write => PermissionKind::Write,
        Type::Readwrite => PermissionKind::ReadWrite,
    };
    Some(Permission { kind, key: permission.key.into(), range_end: permission.range_end.into() })
}

/// What a role grants. The role root has everything, whatever is written of it.
pub fn permissions(role: &Role) -> Vec<authpb::Permission> {
    if role.name == ROOT_ROLE {
        let perm_type = Type::Readwrite as i32;
        return vec![authpb::Permission { perm_type, key: Vec::new(), range_end: vec![0] }];
    }
    let shown = |permission: &Permission| authpb::Permission {
        perm_type: match permission.kind {
            PermissionKind::Read => Type::Read,
            PermissionKind::Write => Type::Write,
            PermissionKind::ReadWrite => Type::Readwrite,
        } as i32,
        key: permission.key.to_vec(),
        range_end: permission.range_end.to_vec(),
    };
    role.permissions.iter().map(shown).collect()
}
