//! Users and roles in replicated state, and the check of each client's command at the moment when it is carried out.

use super::{Applier, LogPosition};
use crate::auth::store::{Change, TokenChange};
use crate::auth::{Caller, table};
use crate::engine::command::{Applied, Command, Outcome, Refusal};
use crate::engine::permit;
use crate::metrics::METRICS;
use crate::mvcc::{self, flush::SideRow};

impl Applier {
    /// Whether the caller may do this now. Costs next to nothing while auth is off.
    pub(super) fn check_permission(
        &self,
        caller: Option<&Caller>,
        command: &Command,
    ) -> mvcc::Result<Result<(), Refusal>> {
        let state = self.auth.load();
        if !state.is_enabled() {
            return Ok(Ok(()));
        }
        let checked = permit::command(&state, caller, command, |id| {
            // A lease that does not exist is another refusal, which comes later.
            if self.leases.contains_key(&id) { self.store.keys_of_lease(id) } else { Ok(Vec::new()) }
        })?;
        Ok(checked.map_err(Refusal::Auth))
    }

    pub(super) fn change_auth(&mut self, change: &Change, position: LogPosition) -> Applied {
        let (before, after) = self.auth.apply(change)?;
        let revision = self.store.revision();
        match change {
            Change::Authenticate { user, token_prefix, .. } => {
                if !token_prefix.is_empty() {
                    let token = crate::auth::token::simple::token(token_prefix, position.index);
                    self.effects.tokens.push(TokenChange::Assigned { token, user: user.clone() });
                }
                let auth_revision = after.revision();
                return Ok(Outcome::Authenticated { revision, auth_revision, index: position.index });
            }
            Change::Disable => self.effects.tokens.push(TokenChange::RevokedAll),
            Change::UserDelete { name } | Change::UserChangePassword { name, .. } => {
                self.effects.tokens.push(TokenChange::Revoked { user: name.clone() });
            }
            Change::Enable
            | Change::UserAdd { .. }
            | Change::UserGrantRole { .. }
            | Change::UserRevokeRole { .. }
            | Change::RoleAdd { .. }
            | Change::RoleDelete { .. }
            | Change::RoleGrantPermission { .. }
            | Change::RoleRevokePermission { .. } => {}
        }
        for (table, key, value) in table::difference(&before, &after) {
            self.changed.insert((table as u8, key.clone()), SideRow { table, key, value });
        }
        METRICS.server.auth_revision.set(after.revision() as i64);
        self.done()
    }
}
