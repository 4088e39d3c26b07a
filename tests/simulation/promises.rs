//! How long leases must live, in real time: what clients were promised, whoever led meanwhile and however wrong the clocks.

use kvist::types::LeaseId;
use std::collections::BTreeMap;

/// By how much a clock may be too fast or too slow, in thousandths.
pub const DRIFT_MAX: i64 = 50;

/// For each lease, the time before which nobody may let it expire.
#[derive(Default)]
pub struct Promises(BTreeMap<LeaseId, u64>);

impl Promises {
    /// A client was told that the lease lives for another `ttl_secs` from `now_ms` on.
    pub fn promise(&mut self, id: LeaseId, ttl_secs: i64, now_ms: u64) {
        let fastest = (1000 + DRIFT_MAX).unsigned_abs();
        // The fastest clock is done with it by then. A millisecond may be lost when a clock is read.
        let until = now_ms + (ttl_secs.unsigned_abs() * 1_000_000 / fastest).saturating_sub(1);
        let promised = self.0.entry(id).or_default();
        *promised = until.max(*promised);
    }

    /// The lease is gone.
    pub fn end(&mut self, id: LeaseId) {
        self.0.remove(&id);
    }

    /// Somebody says that the time of a lease is up.
    pub fn check_expiry(&self, id: LeaseId, now_ms: u64) {
        let until = self.0.get(&id).copied().unwrap_or(0);
        assert!(now_ms >= until, "lease {id} expires {} ms before it may", until.saturating_sub(now_ms));
    }
}
