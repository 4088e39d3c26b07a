//! The one walk over what a request would read and write, and whether its caller may.
//!
//! Every protocol's requests come through here: commands when they are applied, reads and watches when they begin, and
//! reads again when they end if users changed meanwhile. A transaction needs the permissions of both its branches, of
//! nested transactions too, since the branch that is not taken tells something as well. A put that attaches a key to a
//! lease needs to be allowed to write every key of that lease: who may end a lease can delete all of them. Putting a
//! range through [`KeyRange::from_wire`] loses nothing that the check needs: "from a key on" stays apart from one key.

use super::command::{Attach, Batch, Command, DeleteRange, Op, Put, Txn};
use crate::auth::{Access, Caller, Change, Error, State};
use crate::mvcc;
use crate::types::{KeyRange, LeaseId};
use bytes::Bytes;

/// An answer, or a failure to read the keys of a lease.
type Checked = mvcc::Result<Result<(), Error>>;

/// Returns from the caller if a check says no.
macro_rules! check {
    ($checked:expr) => {
        if let Err(error) = $checked {
            return Ok(Err(error));
        }
    };
}

/// Whether the caller may do what a command does. `keys_of_lease` gives the keys attached now.
pub fn command(
    state: &State,
    caller: Option<&Caller>,
    command: &Command,
    keys_of_lease: impl Fn(LeaseId) -> mvcc::Result<Vec<Bytes>>,
) -> Checked {
    if !state.is_enabled() {
        return Ok(Ok(()));
    }
    let walk = Walk { state, caller, keys_of_lease: &keys_of_lease };
    match command {
        Command::Put(put) => walk.put(put),
        Command::DeleteRange(delete) => Ok(walk.delete(delete)),
        Command::Txn(txn) => walk.txn(txn),
        Command::Batch(batch) => walk.batch(batch),
        Command::LeaseGrant { .. } => Ok(state.check_known(caller)),
        Command::LeaseRevoke { ids, .. } => {
            check!(state.check_known(caller));
            for id in ids {
                check!(walk.lease(*id, Access::Write)?);
            }
            Ok(Ok(()))
        }
        Command::Compact { .. } | Command::Alarm { .. } => Ok(state.check_root(caller)),
        // Only the server itself has these; a login, too, is its own, once it has checked the password, and a change
        // of members, once the adapter has asked for root.
        Command::LeaseCheckpoint(_)
        | Command::LeaseRecord { .. }
        | Command::PublishMember(_)
        | Command::Downgrade { .. }
        | Command::SetClusterVersion(_)
        | Command::AddMember(_)
        | Command::RemoveMember { .. }
        | Command::PromoteMember { .. }
        | Command::UpdateMember { .. }
        | Command::Auth(Change::Authenticate { .. }) => Ok(Err(Error::PermissionDenied)),
        Command::Auth(_) => Ok(state.check_root(caller)),
    }
}

/// Whether the caller may run a transaction. `keys_of_lease` gives the keys attached now.
pub fn txn(
    state: &State,
    caller: Option<&Caller>,
    txn: &Txn,
    keys_of_lease: impl Fn(LeaseId) -> mvcc::Result<Vec<Bytes>>,
) -> Checked {
    Walk { state, caller, keys_of_lease: &keys_of_lease }.txn(txn)
}

/// Whether the caller may do this with every key of the leases.
pub fn leases(
    state: &State,
    caller: Option<&Caller>,
    ids: &[LeaseId],
    access: Access,
    keys_of_lease: impl Fn(LeaseId) -> mvcc::Result<Vec<Bytes>>,
) -> Checked {
    check!(state.check_known(caller));
    let walk = Walk { state, caller, keys_of_lease: &keys_of_lease };
    for id in ids {
        check!(walk.lease(*id, access)?);
    }
    Ok(Ok(()))
}

struct Walk<'w, K> {
    state: &'w State,
    caller: Option<&'w Caller>,
    keys_of_lease: &'w K,
}

impl<K: Fn(LeaseId) -> mvcc::Result<Vec<Bytes>>> Walk<'_, K> {
    fn check(&self, access: Access, range: &KeyRange) -> Result<(), Error> {
        self.state.check(self.caller, access, range)
    }

    fn put(&self, put: &Put) -> Checked {
        let key = KeyRange::single(put.key.clone());
        check!(self.check(Access::Write, &key));
        if put.lease != 0 {
            check!(self.lease(put.lease, Access::Write)?);
        }
        if put.prev_kv {
            check!(self.check(Access::Read, &key));
        }
        Ok(Ok(()))
    }

    fn delete(&self, delete: &DeleteRange) -> Result<(), Error> {
        if delete.prev_kv {
            self.check(Access::Read, &delete.range)?;
        }
        self.check(Access::Write, &delete.range)
    }

    fn txn(&self, txn: &Txn) -> Checked {
        for compare in &txn.compares {
            check!(self.check(Access::Read, &compare.range));
        }
        for op in txn.success.iter().chain(&txn.failure) {
            check!(match op {
                Op::Range(query) => self.check(Access::Read, &query.range),
                Op::Put(put) => self.put(put)?,
                Op::DeleteRange(delete) => self.delete(delete),
                Op::Txn(txn) => self.txn(txn)?,
                Op::BoundPut(put) => self.check(Access::Write, &KeyRange::single(put.key.clone())),
                Op::Attach(attach) => self.attach(attach)?,
            });
        }
        Ok(Ok(()))
    }

    fn batch(&self, batch: &Batch) -> Checked {
        for txn in &batch.txns {
            check!(self.txn(txn)?);
        }
        Ok(Ok(()))
    }

    fn attach(&self, attach: &Attach) -> Checked {
        check!(self.check(Access::Write, &KeyRange::single(attach.key.clone())));
        self.lease(attach.lease, Access::Write)
    }

    /// Whether the caller may do this with every key of a lease. Root may without a look at them.
    fn lease(&self, id: LeaseId, access: Access) -> Checked {
        if self.state.check_root(self.caller).is_ok() {
            return Ok(Ok(()));
        }
        for key in (self.keys_of_lease)(id)? {
            check!(self.check(access, &KeyRange::single(key)));
        }
        Ok(Ok(()))
    }
}
