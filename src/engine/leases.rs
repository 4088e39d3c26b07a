//! The keeper of lease deadlines: the pure lessor, a lock, and the clock.

use super::apply::LeaseChange;
use crate::lease::lessor::{Lessor, Renewal};
use crate::lease::table::Leases;
use crate::metrics::METRICS;
use crate::types::LeaseId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// See the module.
pub struct LeaseKeeper {
    lessor: Mutex<Lessor>,
    /// The term in which this member decides; what it decides counts in that term alone.
    term: AtomicU64,
    started: Instant,
}

impl LeaseKeeper {
    /// Knows the leases of the replicated table; decides nothing until promoted.
    pub fn new(leases: &Leases, ttl_min_secs: i64) -> LeaseKeeper {
        let mut lessor = Lessor::new(ttl_min_secs);
        for (id, lease) in leases {
            lessor.restore(*id, lease, 0);
        }
        LeaseKeeper { lessor: Mutex::new(lessor), term: AtomicU64::new(0), started: Instant::now() }
    }

    /// The replicated table came from another member, whole: knows its leases from now on, and no others.
    pub fn reload(&self, leases: &Leases) {
        let now_ms = self.now_ms();
        let mut lessor = self.lessor.lock();
        for id in lessor.leases() {
            if !leases.contains_key(&id) {
                lessor.revoke(id);
            }
        }
        for (id, lease) in leases {
            lessor.restore(*id, lease, now_ms);
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Takes in what was applied.
    pub fn learn(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let mut lessor = self.lessor.lock();
        for change in changes {
            match *change {
                LeaseChange::Granted(id, lease) => {
                    METRICS.lease.granted.inc();
                    METRICS.lease.ttl.observe(lease.ttl_secs as f64);
                    lessor.restore(id, &lease, now_ms);
                }
                LeaseChange::Revoked(id) => {
                    METRICS.lease.revoked.inc();
                    lessor.revoke(id);
                }
                LeaseChange::Checkpointed(id, remaining_secs) => lessor.checkpointed(id, remaining_secs),
            }
        }
    }

    /// This member leads now, in `term`: it decides, after giving everyone `extend` more.
    pub fn promote(&self, term: u64, extend: Duration) {
        let mut lessor = self.lessor.lock();
        lessor.promote(self.now_ms(), extend.as_millis() as u64);
        self.term.store(term, Ordering::SeqCst);
    }

    /// This member leads no more.
    pub fn demote(&self) {
        self.lessor.lock().demote();
    }

    /// The term in which it decides, or did last. To be read before it is asked for a decision.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::SeqCst)
    }

    /// Renews a lease.
    pub fn renew(&self, id: LeaseId) -> Renewal {
        let renewal = self.lessor.lock().renew(id, self.now_ms());
        if matches!(renewal, Renewal::Renewed { .. }) {
            METRICS.lease.renewed.inc();
        }
        renewal
    }

    /// Milliseconds left and seconds granted.
    pub fn remaining(&self, id: LeaseId) -> Option<(u64, i64)> {
        self.lessor.lock().remaining(id, self.now_ms())
    }

    /// Leases whose time is up.
    pub fn expired(&self, limit: usize) -> Vec<LeaseId> {
        self.lessor.lock().expired(self.now_ms(), limit)
    }

    /// Leases whose remaining TTL should be recorded.
    pub fn due_checkpoints(&self, limit: usize) -> Vec<(LeaseId, i64)> {
        self.lessor.lock().due_checkpoints(self.now_ms(), limit)
    }

    /// What every lease has left, for a last checkpoint before a clean stop.
    pub fn all_remaining(&self) -> Vec<(LeaseId, i64)> {
        let now_ms = self.now_ms();
        let lessor = self.lessor.lock();
        let left = |id| lessor.remaining(id, now_ms).map_or(1, |(ms, _)| ms.div_ceil(1000).max(1) as i64);
        lessor.leases().into_iter().map(|id| (id, left(id))).collect()
    }

    /// How many leases there are.
    pub fn count(&self) -> usize {
        self.lessor.lock().len()
    }

    /// All leases, the first to expire first.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.lessor.lock().leases()
    }
}
