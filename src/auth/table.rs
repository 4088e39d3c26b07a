//! Users and roles as rows of the `auth` table, and the two facts of the `meta` table. Persisted by the flush.
//!
//! A row's key is a letter and the name, shortened as keys of the store are; the name itself is in the value, so that
//! names of any length fit.

use super::store::{Role, State, User};
use crate::storage::codec::{LONG_STORE_KEY, store_key};
use crate::storage::schema::{Table, meta};
use crate::storage::{Error, ReadTxn};
use std::collections::BTreeSet;
use std::sync::Arc;

/// First byte of a user's key.
const USER: u8 = b'u';
/// First byte of a role's key.
const ROLE: u8 = b'r';

/// A row to write: table, key, and the value, or nothing to remove it.
pub type Row = (Table, Vec<u8>, Option<Vec<u8>>);

/// Reads the state; without rows, that of a new store.
pub fn load(txn: &ReadTxn) -> Result<State, Error> {
    let is_enabled = txn.get(Table::Meta, meta::AUTH_ENABLED)?.is_some_and(|value| value == [1]);
    let revision = match txn.get(Table::Meta, meta::AUTH_REVISION)? {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| damaged("meta/auth_revision"))?),
        None => 1,
    };
    let (mut users, mut roles) = (Vec::new(), Vec::new());
    for row in txn.all(Table::Auth)? {
        let (key, value) = row?;
        match parse(key, value).ok_or_else(|| damaged("a row of the auth table"))? {
            Parsed::User(user) => users.push(user),
            Parsed::Role(role) => roles.push(role),
        }
    }
    Ok(State::new(is_enabled, revision, users, roles))
}

fn damaged(what: &str) -> Error {
    Error::Damaged(what.to_owned())
}

enum Parsed {
    User(User),
    Role(Role),
}

fn parse(key: &[u8], value: &[u8]) -> Option<Parsed> {
    match *key.first()? {
        USER => {
            let mut user: User = postcard::from_bytes(value).ok()?;
            user.roles.sort();
            Some(Parsed::User(user))
        }
        ROLE => postcard::from_bytes(value).ok().map(Parsed::Role),
        _ => None,
    }
}

/// Every row of a state: what writes it into an empty store.
pub fn rows(state: &State) -> Vec<Row> {
    difference(&State::default(), state)
}

/// The rows that make a stored state `before` into `after`.
pub fn difference(before: &State, after: &State) -> Vec<Row> {
    let mut rows = vec![
        (Table::Meta, meta::AUTH_ENABLED.to_vec(), Some(vec![u8::from(after.is_enabled())])),
        (Table::Meta, meta::AUTH_REVISION.to_vec(), Some(after.revision().to_le_bytes().to_vec())),
    ];
    let names: BTreeSet<&str> = before.users().chain(after.users()).map(|user| user.name.as_str()).collect();
    for name in names {
        let (old, new) = (before.user(name), after.user(name));
        if !same(old, new) {
            let value = new.map(|user| postcard::to_stdvec(user.as_ref()).expect("a user is plain data"));
            rows.push((Table::Auth, row_key(USER, name), value));
        }
    }
    let names: BTreeSet<&str> = before.roles().chain(after.roles()).map(|role| role.name.as_str()).collect();
    for name in names {
        let (old, new) = (before.role(name), after.role(name));
        if !same(old, new) {
            let value = new.map(|role| postcard::to_stdvec(role.as_ref()).expect("a role is plain data"));
            rows.push((Table::Auth, row_key(ROLE, name), value));
        }
    }
    rows
}

/// Whether a user or role is unchanged. A change of the state leaves all others where they are.
fn same<T>(old: Option<&Arc<T>>, new: Option<&Arc<T>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    }
}

fn row_key(kind: u8, name: &str) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(store_key(name.as_bytes(), &mut [0; LONG_STORE_KEY]));
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::store::{Change, Permission, PermissionKind, Store};
    use crate::storage::Env;
    use proptest::prelude::*;

    fn write(env: &Env, rows: Vec<Row>) {
        let mut txn = env.write().unwrap();
        for (table, key, value) in rows {
            match value {
                Some(value) => txn.put(table, &key, &value).unwrap(),
                None => assert!(txn.delete(table, &key).unwrap(), "removes what is there"),
            }
        }
        txn.commit().unwrap();
    }

    fn shown(state: &State) -> (bool, u64, Vec<Arc<User>>, Vec<Arc<Role>>) {
        let (users, roles) = (state.users().cloned().collect(), state.roles().cloned().collect());
        (state.is_enabled(), state.revision(), users, roles)
    }

    #[test]
    fn a_state_is_read_as_it_was_written_row_by_row_and_at_once() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let env = Env::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(shown(&load(&env.read().unwrap()).unwrap()), shown(&State::default()));
        let long = "n".repeat(70_000);
        let add = |name: &str| Change::UserAdd { name: name.into(), password: vec![1], no_password: false };
        let grant = |name: &str, role: &str| Change::UserGrantRole { name: name.into(), role: role.into() };
        let permission =
            Permission { kind: PermissionKind::Write, key: "k".into(), range_end: vec![0].into() };
        let changes = [
            add("root"),
            add(&long),
            add("gone"),
            Change::RoleAdd { name: long.clone() },
            grant("root", "root"),
            grant(&long, &long),
            Change::RoleGrantPermission { name: long.clone(), permission },
            Change::UserDelete { name: "gone".into() },
            Change::Enable,
        ];
        let store = Store::new(State::default());
        for change in changes {
            let (before, after) = store.apply(&change).unwrap();
            write(&env, difference(&before, &after));
            assert_eq!(shown(&load(&env.read().unwrap()).unwrap()), shown(&after));
        }
        let copy = Env::open(other.path(), 1 << 20).unwrap();
        write(&copy, rows(&store.load()));
        assert_eq!(shown(&load(&copy.read().unwrap()).unwrap()), shown(&store.load()));
    }

    proptest! {
        #[test]
        fn foreign_bytes_do_not_panic(key: Vec<u8>, value: Vec<u8>) {
            let _ = parse(&key, &value);
        }
    }
}
