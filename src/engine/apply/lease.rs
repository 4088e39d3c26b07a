//! Leases in replicated state: grant, revoke (which deletes the attached keys through mvcc), checkpoint.

use super::{Applier, LeaseChange};
use crate::engine::LEASE_TTL_MAX_SECS;
use crate::engine::command::{Applied, Refusal};
use crate::lease::table::{self, Lease};
use crate::metrics::METRICS;
use crate::mvcc;
use crate::storage::schema::Table;
use crate::types::LeaseId;

impl Applier {
    pub(super) fn lease_grant(&mut self, id: LeaseId, ttl_secs: i64) -> Applied {
        if ttl_secs > LEASE_TTL_MAX_SECS {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        self.set_lease(id, Some(Lease { ttl_secs, remaining_secs: 0 }));
        self.effects.leases.push(LeaseChange::Granted(id, ttl_secs));
        self.done()
    }

    /// Ends leases. Of several, those that are gone already are passed over: another entry was faster.
    pub(super) fn lease_revoke(&mut self, ids: &[LeaseId], expired: bool) -> mvcc::Result<Applied> {
        if let [id] = ids
            && !self.leases.contains_key(id)
        {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        for &id in ids {
            if self.leases.contains_key(&id) {
                self.delete_attached(id, expired)?;
                self.set_lease(id, None);
                self.effects.leases.push(LeaseChange::Revoked(id));
            }
        }
        Ok(self.done())
    }

    /// All keys of a lease go in one revision, in byte order (L-3).
    fn delete_attached(&mut self, id: LeaseId, expired: bool) -> mvcc::Result<()> {
        let keys = self.store.keys_of_lease(id)?;
        let store = self.store.clone();
        let mut writer = store.write()?;
        for key in keys {
            writer.delete(key, expired)?;
            METRICS.mvcc.deletes.inc();
        }
        self.effects.batches.extend(writer.commit());
        Ok(())
    }

    pub(super) fn lease_checkpoint(&mut self, remaining: &[(LeaseId, i64)]) -> Applied {
        for &(id, remaining_secs) in remaining {
            if let Some(&lease) = self.leases.get(&id) {
                self.set_lease(id, Some(Lease { remaining_secs, ..lease }));
                self.effects.leases.push(LeaseChange::Checkpointed(id, remaining_secs));
            }
        }
        self.done()
    }

    fn set_lease(&mut self, id: LeaseId, lease: Option<Lease>) {
        let (key, value) = table::row(id, lease.as_ref());
        self.change(Table::Lease, key, value);
        match lease {
            Some(lease) => self.leases.insert(id, lease),
            None => self.leases.remove(&id),
        };
    }
}
