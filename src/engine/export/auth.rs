//! Users and roles as etcd keeps them: the buckets `auth`, `authUsers` and `authRoles`.

use super::rows::{Rows, put_field};
use crate::auth::store::{Permission, Role, User};
use crate::auth::table;
use crate::mvcc;
use crate::storage::ReadTxn;
use crate::storage::codec::put_varint;

/// The three buckets: facts, users, roles.
pub fn buckets(txn: &ReadTxn) -> mvcc::Result<[Rows; 3]> {
    let state = table::load(txn)?;
    let facts = Rows::from([
        (b"authEnabled".to_vec(), vec![u8::from(state.is_enabled())]),
        (b"authRevision".to_vec(), state.revision().to_be_bytes().to_vec()),
    ]);
    let users = state.users().map(|user| (user.name.clone().into_bytes(), encode_user(user))).collect();
    let roles = state.roles().map(|role| (role.name.clone().into_bytes(), encode_role(role))).collect();
    Ok([facts, users, roles])
}

/// `authpb.User`: name, hash of the password, roles, options.
fn encode_user(user: &User) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, user.name.as_bytes());
    if !user.password.is_empty() {
        put_bytes(&mut out, 2, &user.password);
    }
    for role in &user.roles {
        put_bytes(&mut out, 3, role.as_bytes());
    }
    let mut options = Vec::new();
    put_field(&mut options, 1, u64::from(user.no_password));
    put_bytes(&mut out, 4, &options);
    out
}

/// `authpb.Role`: name, permissions.
fn encode_role(role: &Role) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, role.name.as_bytes());
    for permission in &role.permissions {
        put_bytes(&mut out, 2, &encode_permission(permission));
    }
    out
}

/// `authpb.Permission`: kind, key, end of the range.
fn encode_permission(permission: &Permission) -> Vec<u8> {
    let mut out = Vec::new();
    put_field(&mut out, 1, permission.kind as u64);
    put_bytes(&mut out, 2, &permission.key);
    if !permission.range_end.is_empty() {
        put_bytes(&mut out, 3, &permission.range_end);
    }
    out
}

/// Appends a protobuf field of bytes.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
