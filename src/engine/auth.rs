//! Users and callers at the engine's front door: who a token belongs to, logins, and whether a caller may read.

use super::command::{Command, Outcome, Refusal, Txn};
use super::{Engine, Error, Origin, Result, permit};
use crate::auth::{self, Access, Caller, Change, Role, State, User};
use crate::mvcc;
use crate::types::{KeyRange, LeaseId};
use bytes::Bytes;
use std::sync::Arc;

/// How often a request is tried again because users changed while it was under way.
pub(super) const RESTAMPS_MAX: usize = 10;

/// What a read was allowed, to be asked again at its end: whoever may not read any more must not get what was written
/// since. Holds nothing while auth is off.
#[derive(Clone, Debug)]
pub struct Permit(Option<Box<(Caller, Wanted)>>);

#[derive(Clone, Debug)]
enum Wanted {
    Range(KeyRange),
    Txn(Txn),
    Leases(Vec<LeaseId>),
}

impl Engine {
    /// The state of users and roles.
    pub fn auth_state(&self) -> Arc<State> {
        Arc::clone(&self.0.auth.store.load())
    }

    /// Whether callers must be known.
    pub fn is_auth_enabled(&self) -> bool {
        self.0.auth.store.load().is_enabled()
    }

    /// Whose token it is.
    pub fn caller_of_token(&self, token: &str) -> Result<Caller> {
        Ok(self.0.auth.tokens.caller(token, &self.0.auth.store.load())?)
    }

    /// The caller with this name, as of now: for those who prove who they are by other means than tokens.
    pub fn caller_named(&self, user: Arc<str>) -> Caller {
        Caller { user, revision: self.0.auth.store.load().revision(), is_pinned: false }
    }

    /// All users with the hashes of their passwords, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.0.auth.store.load().users().cloned().collect()
    }

    /// All roles with their permissions, by name.
    pub fn roles(&self) -> Vec<Arc<Role>> {
        self.0.auth.store.load().roles().cloned().collect()
    }

    /// The hash of a new password.
    pub async fn hash_password(&self, password: String) -> Result<Vec<u8>> {
        Ok(self.0.auth.passwords.hash(password).await?)
    }

    /// Checks a password and gives out a token. Returns the token and the current revision.
    pub async fn authenticate(&self, user: &str, password: &str) -> Result<(String, i64)> {
        self.read_index().await?;
        let auth = &self.0.auth;
        for _ in 0..RESTAMPS_MAX {
            let checked = auth.passwords.check(self.auth_state(), user, password.to_owned()).await?;
            let token_prefix = auth.tokens.prefix();
            let change = Change::Authenticate {
                user: user.to_owned(),
                revision: checked,
                token_prefix: token_prefix.clone(),
            };
            match self.write(Origin::Server, Command::Auth(change)).await {
                Ok(Outcome::Authenticated { revision, auth_revision, index }) => {
                    return Ok((auth.tokens.issue(user, &token_prefix, index, auth_revision)?, revision));
                }
                // The password may have been changed since it was checked.
                Err(Error::Refused(Refusal::Auth(auth::Error::OldRevision))) => {}
                Ok(_) => break,
                Err(error) => return Err(error),
            }
        }
        Err(auth::Error::OldRevision.into())
    }

    /// The same caller as of now; `None` if its token says as of when it is, or if it is no user.
    pub(super) fn restamped(&self, origin: &Origin) -> Option<Origin> {
        match origin {
            Origin::Client(Some(caller)) if !caller.is_pinned => {
                Some(Origin::Client(Some(self.caller_named(Arc::clone(&caller.user)))))
            }
            _ => None,
        }
    }

    /// Whether the caller may do everything.
    pub fn permit_root(&self, caller: Option<&Caller>) -> Result<()> {
        Ok(self.0.auth.store.load().check_root(caller)?)
    }

    /// Whether it is known who the caller is.
    pub fn permit_known(&self, caller: Option<&Caller>) -> Result<()> {
        Ok(self.0.auth.store.load().check_known(caller)?)
    }

    /// Whether the caller may learn of every key of a range.
    pub fn permit_range(&self, caller: Option<&Caller>, range: &KeyRange) -> Result<Permit> {
        self.permit(caller, || Wanted::Range(range.clone()))
    }

    /// Whether the caller may run a transaction of reads.
    pub fn permit_txn(&self, caller: Option<&Caller>, txn: &Txn) -> Result<Permit> {
        self.permit(caller, || Wanted::Txn(txn.clone()))
    }

    /// Whether the caller may learn of every key of the leases.
    pub fn permit_leases(&self, caller: Option<&Caller>, ids: Vec<LeaseId>) -> Result<Permit> {
        self.permit(caller, || Wanted::Leases(ids))
    }

    /// Whether the caller may renew a lease, which is to say write all its keys (L-12).
    pub fn permit_renewal(&self, caller: Option<&Caller>, id: LeaseId) -> Result<()> {
        let state = self.0.auth.store.load();
        if !state.is_enabled() {
            return Ok(());
        }
        let keys_of_lease = |id| self.attached(id);
        match permit::leases(&state, caller, &[id], Access::Write, keys_of_lease)? {
            // Nobody changed users for this renewal: as of now, it is asked for again.
            Err(auth::Error::OldRevision) if caller.is_some_and(|c| !c.is_pinned) => {
                let caller = caller.map(|c| self.caller_named(Arc::clone(&c.user)));
                let state = self.0.auth.store.load();
                Ok(permit::leases(&state, caller.as_ref(), &[id], Access::Write, keys_of_lease)??)
            }
            other => Ok(other?),
        }
    }

    fn permit(&self, caller: Option<&Caller>, wanted: impl FnOnce() -> Wanted) -> Result<Permit> {
        let state = self.0.auth.store.load();
        if !state.is_enabled() {
            return Ok(Permit(None));
        }
        let wanted = wanted();
        let checked = match self.allows(&state, caller, &wanted) {
            // It changed since the caller was found out.
            Err(Error::Auth(auth::Error::OldRevision)) => Some(self.restamp(caller, &wanted)?),
            Err(error) => return Err(error),
            // Of nobody only what asks for nothing is allowed: an empty transaction.
            Ok(()) => caller.cloned(),
        };
        Ok(Permit(checked.map(|caller| Box::new((caller, wanted)))))
    }

    /// Asks again at the end of a read whether it is allowed, if users changed since it began.
    pub fn still_permits(&self, permit: &mut Permit) -> Result<()> {
        let Some(inner) = &mut permit.0 else { return Ok(()) };
        let (caller, wanted) = inner.as_mut();
        if caller.revision != self.0.auth.store.load().revision() {
            *caller = self.restamp(Some(caller), wanted)?;
        }
        Ok(())
    }

    /// Checks as of now, if the caller's token lets it be somebody of now.
    fn restamp(&self, caller: Option<&Caller>, wanted: &Wanted) -> Result<Caller> {
        let caller = caller.filter(|caller| !caller.is_pinned).ok_or(auth::Error::OldRevision)?;
        for _ in 0..RESTAMPS_MAX {
            let state = self.auth_state();
            let caller = Caller { revision: state.revision(), ..caller.clone() };
            self.allows(&state, Some(&caller), wanted)?;
            if state.revision() == self.0.auth.store.load().revision() {
                return Ok(caller);
            }
        }
        Err(auth::Error::OldRevision.into())
    }

    fn allows(&self, state: &State, caller: Option<&Caller>, wanted: &Wanted) -> Result<()> {
        let keys_of_lease = |id| self.attached(id);
        match wanted {
            Wanted::Range(range) => Ok(state.check(caller, Access::Read, range)?),
            Wanted::Txn(txn) => Ok(permit::txn(state, caller, txn, keys_of_lease)??),
            Wanted::Leases(ids) => Ok(permit::leases(state, caller, ids, Access::Read, keys_of_lease)??),
        }
    }

    fn attached(&self, id: LeaseId) -> mvcc::Result<Vec<Bytes>> {
        self.0.store.keys_of_lease(id)
    }
}
