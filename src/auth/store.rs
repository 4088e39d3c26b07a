//! Replicated state of users and roles, and its changes.
//!
//! The applier is the only writer. Readers load one consistent state and keep it as long as they like. The auth revision
//! grows with every effective change but `enable`. What a user may do is merged once, when first asked for, and
//! again only when one of the user's roles changed.

use super::permission::Grants;
use super::{Error, ROOT_ROLE, ROOT_USER};
use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A user. Persisted in postcard's format: fields keep their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Name; not empty.
    pub name: String,
    /// bcrypt hash; empty without a password.
    pub password: Vec<u8>,
    /// Whether the user cannot log in by password at all.
    pub no_password: bool,
    /// Names of the roles held, sorted.
    pub roles: Vec<String>,
}

impl User {
    /// Whether the user may do everything.
    pub fn is_root(&self) -> bool {
        self.has_role(ROOT_ROLE)
    }

    /// Whether the user holds a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.binary_search_by(|r| r.as_str().cmp(role)).is_ok()
    }
}

/// A role. Persisted like [`User`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Name; not empty.
    pub name: String,
    /// What it grants, sorted by key.
    pub permissions: Vec<Permission>,
}

/// What a permission allows. Numbers are persisted, and etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PermissionKind {
    /// To read.
    Read = 0,
    /// To write.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

/// Keys on which something is allowed, as the wire names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What is allowed.
    pub kind: PermissionKind,
    /// First key.
    pub key: Bytes,
    /// Empty: only that key. A zero byte: all from there. Else the first key that is out.
    pub range_end: Bytes,
}

impl Permission {
    /// Whether there are keys that it could be about.
    fn is_valid(&self) -> bool {
        !self.key.is_empty()
            && (self.range_end.is_empty() || self.range_end == [0][..] || self.key < self.range_end)
    }
}

/// A change of users or roles, as the log holds it: variants and fields keep their order for ever, new ones go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// From now on, callers must be known.
    Enable,
    /// From now on, everyone may do everything.
    Disable,
    /// Give out a token; the password has been checked.
    Authenticate {
        /// Who logs in.
        user: String,
        /// Auth revision at which the password was right.
        revision: u64,
        /// Random part of a simple token; empty for tokens that need no memory.
        token_prefix: String,
    },
    /// Add a user.
    UserAdd {
        /// Name.
        name: String,
        /// bcrypt hash.
        #[serde(serialize_with = "as_bytes")]
        password: Vec<u8>,
        /// No login by password.
        no_password: bool,
    },
    /// Remove a user.
    UserDelete {
        /// Name.
        name: String,
    },
    /// Set another password.
    UserChangePassword {
        /// Name.
        name: String,
        /// bcrypt hash.
        #[serde(serialize_with = "as_bytes")]
        password: Vec<u8>,
    },
    /// Let a user hold a role.
    UserGrantRole {
        /// User.
        name: String,
        /// Role.
        role: String,
    },
    /// Take a role from a user.
    UserRevokeRole {
        /// User.
        name: String,
        /// Role.
        role: String,
    },
    /// Add a role without permissions.
    RoleAdd {
        /// Name.
        name: String,
    },
    /// Remove a role, from all its holders too.
    RoleDelete {
        /// Name.
        name: String,
    },
    /// Add a permission, or change its kind.
    RoleGrantPermission {
        /// Role.
        name: String,
        /// What is allowed.
        permission: Permission,
    },
    /// Take away the permission on exactly these keys.
    RoleRevokePermission {
        /// Role.
        name: String,
        /// First key.
        key: Bytes,
        /// End, as in [`Permission`].
        range_end: Bytes,
    },
}

/// A byte string rather than a sequence of numbers, for formats that tell them apart; the log's does not.
fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What those who hold tokens must learn of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A token was given to a user.
    Assigned {
        /// The token.
        token: String,
        /// Its user.
        user: String,
    },
    /// The tokens of a user are void.
    Revoked {
        /// The user.
        user: String,
    },
    /// All tokens are void.
    RevokedAll,
}

/// A user, and what it may do once somebody has asked.
#[derive(Clone, Debug)]
struct Entry {
    user: Arc<User>,
    grants: Arc<OnceLock<Grants>>,
}

impl Entry {
    fn new(user: User) -> Entry {
        Entry { user: Arc::new(user), grants: Arc::default() }
    }
}

/// All users and roles at one auth revision.
#[derive(Clone, Debug)]
pub struct State {
    is_enabled: bool,
    revision: u64,
    users: BTreeMap<Arc<str>, Entry>,
    roles: BTreeMap<Arc<str>, Arc<Role>>,
}

impl Default for State {
    fn default() -> State {
        State { is_enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl State {
    /// A state as it was stored or backed up.
    pub fn new(is_enabled: bool, revision: u64, users: Vec<User>, roles: Vec<Role>) -> State {
        let users = users.into_iter().map(|user| (user.name.as_str().into(), Entry::new(user)));
        let roles = roles.into_iter().map(|role| (role.name.as_str().into(), Arc::new(role)));
        State { is_enabled, revision: revision.max(1), users: users.collect(), roles: roles.collect() }
    }

    /// Whether callers must be known.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// The auth revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(name).map(|entry| &entry.user)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values().map(|entry| &entry.user)
    }

    /// A role.
    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.roles.get(name)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.values()
    }

    /// A user along with all that its roles grant, merged.
    pub(super) fn grants(&self, name: &str) -> Option<(&User, &Grants)> {
        let entry = self.users.get(name)?;
        let grants = entry.grants.get_or_init(|| {
            let roles = entry.user.roles.iter().filter_map(|role| self.role(role));
            Grants::merge(roles.flat_map(|role| &role.permissions))
        });
        Some((&entry.user, grants))
    }

    /// Carries out a change. On success the revision has grown if anything changed that it counts.
    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::Enable => self.enable(),
            Change::Disable => {
                self.revision += u64::from(self.is_enabled);
                self.is_enabled = false;
                Ok(())
            }
            Change::Authenticate { user, revision, .. } => self.authenticate(user, *revision),
            Change::UserAdd { name, password, no_password } => self.user_add(name, password, *no_password),
            Change::UserDelete { name } => self.user_delete(name),
            Change::UserChangePassword { name, password } => self.user_change_password(name, password),
            Change::UserGrantRole { name, role } => self.user_grant_role(name, role),
            Change::UserRevokeRole { name, role } => self.user_revoke_role(name, role),
            Change::RoleAdd { name } => self.role_add(name),
            Change::RoleDelete { name } => self.role_delete(name),
            Change::RoleGrantPermission { name, permission } => self.role_grant(name, permission),
            Change::RoleRevokePermission { name, key, range_end } => self.role_revoke(name, key, range_end),
        }
    }

    fn enable(&mut self) -> Result<(), Error> {
        if !self.is_enabled {
            let root = self.user(ROOT_USER).ok_or(Error::RootUserMissing)?;
            if !root.is_root() {
                return Err(Error::RootRoleMissing);
            }
            self.is_enabled = true;
        }
        Ok(())
    }

    fn authenticate(&self, user: &str, revision: u64) -> Result<(), Error> {
        if !self.is_enabled {
            return Err(Error::NotEnabled);
        }
        if revision != self.revision {
            return Err(Error::OldRevision); // the password may have changed since it was checked
        }
        match self.user(user) {
            Some(user) if !user.no_password => Ok(()),
            _ => Err(Error::Failed),
        }
    }

    fn user_add(&mut self, name: &str, password: &[u8], no_password: bool) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Error::UserExists);
        }
        let password = if no_password { Vec::new() } else { password.to_vec() };
        let user = User { name: name.to_owned(), password, no_password, roles: Vec::new() };
        self.users.insert(name.into(), Entry::new(user));
        self.revision += 1;
        Ok(())
    }

    fn user_delete(&mut self, name: &str) -> Result<(), Error> {
        if self.is_enabled && name == ROOT_USER {
            return Err(Error::InvalidManagement);
        }
        self.users.remove(name).ok_or(Error::UserNotFound)?;
        self.revision += 1;
        Ok(())
    }

    fn user_change_password(&mut self, name: &str, password: &[u8]) -> Result<(), Error> {
        let entry = self.users.get_mut(name).ok_or(Error::UserNotFound)?;
        let user = Arc::make_mut(&mut entry.user);
        user.password = if user.no_password { Vec::new() } else { password.to_vec() };
        self.revision += 1;
        Ok(())
    }

    fn user_grant_role(&mut self, name: &str, role: &str) -> Result<(), Error> {
        let is_role = role == ROOT_ROLE || self.roles.contains_key(role);
        let entry = self.users.get_mut(name).ok_or(Error::UserNotFound)?;
        if !is_role {
            return Err(Error::RoleNotFound);
        }
        let Err(place) = entry.user.roles.binary_search_by(|r| r.as_str().cmp(role)) else { return Ok(()) };
        Arc::make_mut(&mut entry.user).roles.insert(place, role.to_owned());
        entry.grants = Arc::default();
        self.revision += 1;
        Ok(())
    }

    fn user_revoke_role(&mut self, name: &str, role: &str) -> Result<(), Error> {
        if self.is_enabled && name == ROOT_USER && role == ROOT_ROLE {
            return Err(Error::InvalidManagement);
        }
        let entry = self.users.get_mut(name).ok_or(Error::UserNotFound)?;
        if !entry.user.has_role(role) {
            return Err(Error::RoleNotGranted);
        }
        Arc::make_mut(&mut entry.user).roles.retain(|r| r != role);
        entry.grants = Arc::default();
        self.revision += 1;
        Ok(())
    }

    fn role_add(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Error::RoleExists);
        }
        self.roles.insert(name.into(), Arc::new(Role { name: name.to_owned(), permissions: Vec::new() }));
        self.forget_grants(name); // an unknown role may be held: one restored from elsewhere
        self.revision += 1;
        Ok(())
    }

    fn role_delete(&mut self, name: &str) -> Result<(), Error> {
        if self.is_enabled && name == ROOT_ROLE {
            return Err(Error::InvalidManagement);
        }
        self.roles.remove(name).ok_or(Error::RoleNotFound)?;
        for entry in self.users.values_mut().filter(|entry| entry.user.has_role(name)) {
            Arc::make_mut(&mut entry.user).roles.retain(|r| r != name);
            entry.grants = Arc::default();
        }
        self.revision += 1;
        Ok(())
    }

    fn role_grant(&mut self, name: &str, new: &Permission) -> Result<(), Error> {
        if !new.is_valid() {
            return Err(Error::InvalidManagement);
        }
        let role = Arc::make_mut(self.roles.get_mut(name).ok_or(Error::RoleNotFound)?);
        let is_same = |p: &&mut Permission| p.key == new.key && p.range_end == new.range_end;
        match role.permissions.iter_mut().find(is_same) {
            Some(permission) => permission.kind = new.kind,
            None => {
                let place = role.permissions.partition_point(|p| p.key <= new.key);
                role.permissions.insert(place, new.clone());
            }
        }
        self.forget_grants(name);
        self.revision += 1;
        Ok(())
    }

    fn role_revoke(&mut self, name: &str, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        let role = Arc::make_mut(self.roles.get_mut(name).ok_or(Error::RoleNotFound)?);
        let before = role.permissions.len();
        role.permissions.retain(|p| p.key != key || p.range_end != range_end);
        if role.permissions.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        self.forget_grants(name);
        self.revision += 1;
        Ok(())
    }

    /// What the holders of a role may do has to be merged again.
    fn forget_grants(&mut self, role: &str) {
        for entry in self.users.values_mut().filter(|entry| entry.user.has_role(role)) {
            entry.grants = Arc::default();
        }
    }
}

/// The state, readable by all and changed by the applier.
pub struct Store(ArcSwap<State>);

impl Store {
    /// Begins with a stored state.
    pub fn new(state: State) -> Store {
        Store(ArcSwap::from_pointee(state))
    }

    /// The present state. Cheap; whoever holds it does not see later changes.
    pub fn load(&self) -> arc_swap::Guard<Arc<State>> {
        self.0.load()
    }

    /// Puts a state that came from another member in the place of ours. Only the applier calls this.
    pub fn replace(&self, state: Arc<State>) {
        self.0.store(state);
    }

    /// Carries out a committed change. Only the applier calls this. Returns the states before and after.
    pub fn apply(&self, change: &Change) -> Result<(Arc<State>, Arc<State>), Error> {
        let before = self.0.load_full();
        let mut after = State::clone(&before);
        after.apply(change)?;
        let after = Arc::new(after);
        self.0.store(Arc::clone(&after));
        Ok((before, after))
    }
}
