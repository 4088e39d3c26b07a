//! Leases in replicated state: grant, revoke (which deletes the attached keys through mvcc), since when they run.

use super::{Applier, LeaseChange, LogPosition, admin};
use crate::engine::LEASE_TTL_MAX_SECS;
use crate::engine::command::{Applied, Refusal};
use crate::lease::clock::Reading;
use crate::lease::table::{self, Lease};
use crate::metrics::METRICS;
use crate::mvcc;
use crate::storage::schema::{Table, meta};
use crate::types::LeaseId;

impl Applier {
    pub(super) fn lease_grant(&mut self, id: LeaseId, ttl_secs: i64) -> Applied {
        self.check_grant(id, ttl_secs)?;
        self.begin_lease(id, ttl_secs, false);
        self.done()
    }

    pub(super) fn check_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<(), Refusal> {
        if ttl_secs > LEASE_TTL_MAX_SECS {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        Ok(())
    }

    pub(super) fn begin_lease(&mut self, id: LeaseId, ttl_secs: i64, belongs_to_keys: bool) {
        let lease = Lease { ttl_secs, since_ms: None, belongs_to_keys };
        self.set_lease(id, Some(lease));
        self.effects.leases.push(LeaseChange::Granted(id, lease));
    }

    fn end_lease(&mut self, id: LeaseId) {
        self.set_lease(id, None);
        self.effects.leases.push(LeaseChange::Revoked(id));
    }

    /// Ends leases. Of several, those that are gone already are passed over: another entry was faster.
    pub(super) fn lease_revoke(&mut self, ids: &[LeaseId]) -> mvcc::Result<Applied> {
        if let [id] = ids
            && !self.leases.contains_key(id)
        {
            return Ok(Err(Refusal::LeaseNotFound));
        }
        for &id in ids {
            if self.leases.contains_key(&id) {
                self.end_lease(id);
                self.delete_attached(id)?;
            }
        }
        Ok(self.done())
    }

    /// All keys of a lease go in one revision, in byte order (L-3).
    fn delete_attached(&mut self, id: LeaseId) -> mvcc::Result<()> {
        let keys = self.store.keys_of_lease(id)?;
        let store = self.store.clone();
        let mut writer = store.write(self.now_ms)?;
        for key in keys {
            writer.delete(key, true)?;
            METRICS.mvcc.deletes.inc();
        }
        self.commit(writer)
    }

    /// Ends those of the leases that belong to keys and have none any more.
    pub(super) fn end_unused(&mut self, released: &[LeaseId]) -> mvcc::Result<()> {
        for id in released {
            let belongs = self.leases.get(id).is_some_and(|lease| lease.belongs_to_keys);
            if belongs && self.store.keys_of_lease(*id)?.is_empty() {
                self.end_lease(*id);
            }
        }
        Ok(())
    }

    /// The leader's clock may have gone on since it was recorded last. Members that run know no better than to let the leases
    /// start anew; those that start later count on.
    pub(super) fn lease_checkpoint(&mut self, remaining: &[(LeaseId, i64)]) -> Applied {
        for &(id, remaining_secs) in remaining {
            if let Some(&lease) = self.leases.get(&id) {
                self.set_lease(id, Some(lease.with_remaining(remaining_secs, self.lease_clock.ms)));
                self.effects.leases.push(LeaseChange::Checkpointed(id));
            }
        }
        self.done()
    }

    pub(super) fn lease_record(
        &mut self,
        position: LogPosition,
        now_ms: u64,
        since_ms: &[(LeaseId, Option<u64>)],
    ) -> Applied {
        self.lease_clock = Reading { term: position.term, ms: now_ms };
        let value = admin::lease_clock_value(self.lease_clock);
        self.change(Table::Meta, meta::LEASE_CLOCK.to_vec(), Some(value));
        self.effects.leases.push(LeaseChange::Read(self.lease_clock));
        for &(id, since_ms) in since_ms {
            if let Some(&lease) = self.leases.get(&id) {
                self.set_lease(id, Some(Lease { since_ms, ..lease }));
                self.effects.leases.push(LeaseChange::Recorded(id, since_ms));
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
