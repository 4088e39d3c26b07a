//! Deadlines of leases, in memory: who may still renew, whose time is up, what to checkpoint.
//!
//! Time is an argument, milliseconds of any monotonic clock; there is no task, no lock and no I/O inside. Every member has
//! a lessor and tells it what the log applied (`grant`, `revoke`, `checkpointed`). Only a promoted one, the leader's,
//! decides: it is asked for `expired` leases about twice a second, proposes to revoke them, and hears of it by `revoke`.
//!
//! ```text
//!   grant ──► running ──deadline──► expired ──revoke applied──► gone
//!               ▲  │ renew            │  ▲ reported by `expired`, once and then every 7 s until revoked;
//!               └──┘                  └──┘ cannot be renewed any more: clients may have been told that it is over
//! ```
//!
//! Always true here (the rules L-1 to L-10 of the contract, as far as they are about time):
//! 1. A lease is never reported before its deadline, and in the tick after it at the latest, if `limit` allows.
//! 2. Promoted: each lease has one valid timer, at or before its deadline, in the wheel or among the retries. A renewal
//!    moves the deadline away and leaves the timer alone; a deadline that comes nearer gets a new generation.
//! 3. `recorded_secs` is what the replicated table says, not what this member would like it to say.
//! 4. Memory is bounded by the number of leases: timers without a lease are swept before they outnumber the others.

use super::table;
use super::wheel::{Timer, Wheel};
use crate::types::LeaseId;
use std::collections::{HashMap, VecDeque};

/// The longest TTL there is; longer ones are cut to it.
pub const TTL_MAX_SECS: i64 = 9_000_000_000;
/// An expired lease that has not been revoked by then is reported again.
pub const RETRY_MS: u64 = 7_000;
/// From this many leases on, a promotion spreads their expiry.
const SPREAD_FROM: usize = 1_000;
/// Leases whose time may be up in any one second after a promotion that spreads.
const SPREAD_PER_SEC: usize = 750;
/// A drop of the remaining TTL up to this is not worth a checkpoint.
const CHECKPOINT_DROP_MIN_MS: u64 = 10_000;
/// Timers without a lease that are tolerated whatever the number of leases.
const STALE_MIN: usize = 1_024;

/// What became of a renewal.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// The lease runs for its full TTL again.
    Renewed {
        /// Seconds granted.
        ttl_secs: i64,
        /// A lower remaining TTL is in the log or on its way there: the caller should checkpoint 0 ("none") before it
        /// answers, lest the next leader start from the lower one. Repeated until that is applied.
        reset: bool,
    },
    /// The deadline has passed; the lease is about to be revoked.
    Expired,
    /// There is no such lease.
    Unknown,
    /// This lessor is not the one that decides.
    Demoted,
}

/// One lease, 40 bytes. A free place keeps its generation.
#[derive(Default)]
struct Lease {
    id: LeaseId,
    ttl_secs: i64,
    /// Meaningful once promoted; before that, the expiry if nobody renews.
    deadline_ms: u64,
    /// Remaining TTL at the checkpoint that was applied last; 0: none since the grant, or reset.
    recorded_secs: i64,
    /// Distinguishes the valid timer from stale ones. Wraps after 2^32 changes of one place; stale timers don't live
    /// that long, see `sweep`.
    generation: u32,
    live: bool,
    /// A checkpoint was asked for, and none has been applied since: a lower remaining TTL may be on its way to the log.
    checkpoint_asked: bool,
}

impl Lease {
    fn ttl_ms(&self) -> u64 {
        self.ttl_secs.unsigned_abs() * 1_000
    }

    fn remaining_ms(&self, now_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(now_ms)
    }

    /// Time left as the replicated table has it.
    fn recorded_ms(&self) -> u64 {
        if self.recorded_secs > 0 { self.recorded_secs.unsigned_abs() * 1_000 } else { self.ttl_ms() }
    }

    /// Remaining seconds to checkpoint, if that is worth it. Rounded up: a lease must not lose time, and 0 means "none".
    fn checkpoint(&self, now_ms: u64) -> Option<i64> {
        let remaining_ms = self.remaining_ms(now_ms);
        let drop_ms = self.recorded_ms().saturating_sub(remaining_ms);
        let due =
            self.live && remaining_ms > 0 && drop_ms > CHECKPOINT_DROP_MIN_MS.max(self.recorded_ms() / 2);
        due.then(|| i64::try_from(remaining_ms.div_ceil(1_000)).unwrap_or(TTL_MAX_SECS))
    }
}

/// All leases of a member.
pub struct Lessor {
    min_ttl_secs: i64,
    primary: bool,
    /// The latest time seen: two callers that read the clock before they took the lock can't turn it back.
    now_ms: u64,
    index: HashMap<LeaseId, u32>,
    leases: Vec<Lease>,
    free: Vec<u32>,
    wheel: Wheel,
    /// Reported leases, in the order in which they are to be reported again.
    retries: VecDeque<(u64, Timer)>,
    /// Where the next search for checkpoints begins, so that all get their turn.
    checkpoint_cursor: usize,
}

impl Lessor {
    /// No leases, demoted. The minimum is normally applied before a grant is proposed; here it catches leases that were
    /// granted under a shorter one.
    pub fn new(min_ttl_secs: i64) -> Lessor {
        Lessor {
            min_ttl_secs: min_ttl_secs.clamp(1, TTL_MAX_SECS),
            primary: false,
            now_ms: 0,
            index: HashMap::new(),
            leases: Vec::new(),
            free: Vec::new(),
            wheel: Wheel::new(0),
            retries: VecDeque::new(),
            checkpoint_cursor: 0,
        }
    }

    /// Whether this lessor decides, i.e. is promoted.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// Number of leases, expired ones included until they are revoked.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// A lease of the replicated table, granted just now or loaded: starts now with its remaining TTL, or the full one if
    /// that is 0. Takes the place of one with the same id. The minimum does not concern those that belong to keys.
    pub fn restore(&mut self, id: LeaseId, lease: &table::Lease, now_ms: u64) {
        let now_ms = self.observe(now_ms);
        self.revoke(id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.leases.push(Lease::default());
            u32::try_from(self.leases.len() - 1).expect("fewer leases than addresses for 40 bytes each")
        });
        self.index.insert(id, slot);
        let min_ttl_secs = if lease.belongs_to_keys { 1 } else { self.min_ttl_secs };
        let ttl_secs = lease.ttl_secs.clamp(min_ttl_secs, TTL_MAX_SECS);
        let recorded_secs = lease.remaining_secs.clamp(0, ttl_secs);
        let lease = &mut self.leases[slot as usize];
        *lease = Lease {
            id,
            ttl_secs,
            recorded_secs,
            generation: lease.generation,
            live: true,
            ..Lease::default()
        };
        lease.deadline_ms = now_ms.saturating_add(lease.recorded_ms());
        if self.primary {
            self.arm(slot);
        }
    }

    /// A revocation was applied. Returns whether there was such a lease.
    pub fn revoke(&mut self, id: LeaseId) -> bool {
        let Some(slot) = self.index.remove(&id) else { return false };
        let lease = &mut self.leases[slot as usize];
        *lease = Lease { generation: lease.generation.wrapping_add(1), ..Lease::default() };
        self.free.push(slot);
        self.sweep();
        true
    }

    /// Starts a lease anew, if it still runs and this lessor decides.
    pub fn renew(&mut self, id: LeaseId, now_ms: u64) -> Renewal {
        let now_ms = self.observe(now_ms);
        if !self.primary {
            return Renewal::Demoted;
        }
        let Some(&slot) = self.index.get(&id) else { return Renewal::Unknown };
        let lease = &mut self.leases[slot as usize];
        if lease.deadline_ms <= now_ms {
            return Renewal::Expired;
        }
        let deadline_ms = now_ms.saturating_add(lease.ttl_ms());
        let nearer = deadline_ms < lease.deadline_ms;
        lease.deadline_ms = deadline_ms;
        let renewed = Renewal::Renewed {
            ttl_secs: lease.ttl_secs,
            reset: lease.recorded_secs > 0 || lease.checkpoint_asked,
        };
        if nearer {
            lease.generation = lease.generation.wrapping_add(1);
            self.arm(slot);
            self.sweep();
        }
        renewed
    }

    /// Milliseconds left, 0 when expired, and seconds granted. Means something only on the lessor that decides.
    pub fn remaining(&self, id: LeaseId, now_ms: u64) -> Option<(u64, i64)> {
        let lease = &self.leases[*self.index.get(&id)? as usize];
        Some((lease.remaining_ms(now_ms.max(self.now_ms)), lease.ttl_secs))
    }

    /// Up to `limit` leases whose time is up: each once, and again whenever it has not been revoked for `RETRY_MS`.
    /// None on a demoted lessor.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        let now_ms = self.observe(now_ms);
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(timer) = self.next_timer(now_ms)
        {
            let lease = &self.leases[timer.slot as usize];
            if lease.generation != timer.generation {
                continue;
            }
            if lease.deadline_ms > now_ms {
                self.wheel.insert(lease.deadline_ms, timer);
            } else {
                expired.push(lease.id);
                self.retries.push_back((now_ms.saturating_add(RETRY_MS), timer));
            }
        }
        expired
    }

    /// This member became the leader. Renewals since the last checkpoint are unknown to it, so every lease starts anew
    /// with its recorded remaining TTL, plus `extend_ms` for the time without a leader. Of many, no more than 750 end
    /// in any second, so that revoking them does not crowd out the clients.
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        let now_ms = self.observe(now_ms);
        let start_ms = now_ms.saturating_add(extend_ms);
        for lease in &mut self.leases {
            lease.deadline_ms = start_ms.saturating_add(lease.recorded_ms());
        }
        self.primary = true;
        self.wheel = Wheel::new(now_ms);
        self.retries.clear();
        let order = self.by_expiry();
        if order.len() >= SPREAD_FROM {
            self.spread(&order);
        }
        for slot in order {
            self.arm(slot);
        }
    }

    /// This member is not the leader any more: nothing expires, nothing is renewed.
    pub fn demote(&mut self) {
        self.primary = false;
        self.wheel = Wheel::new(self.now_ms);
        self.retries = VecDeque::new();
    }

    /// Ids of all leases, the first to expire first. On a demoted lessor, as if nobody had renewed.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.by_expiry().into_iter().map(|slot| self.leases[slot as usize].id).collect()
    }

    /// Up to `limit` leases that have used up half of what was last recorded of them, and 10 s; with the seconds left.
    /// A lease that is renewed as clients do, after a third of its TTL, is never among them. Repeats them until `checkpointed`, so the caller waits for the outcome before it asks again.
    /// Takes time in proportion to all leases. None on a demoted lessor.
    pub fn due_checkpoints(&mut self, now_ms: u64, limit: usize) -> Vec<(LeaseId, i64)> {
        let now_ms = self.observe(now_ms);
        let mut due = Vec::new();
        if !self.primary {
            return due;
        }
        for _ in 0..self.leases.len() {
            if due.len() >= limit {
                break;
            }
            self.checkpoint_cursor = (self.checkpoint_cursor + 1) % self.leases.len();
            let lease = &mut self.leases[self.checkpoint_cursor];
            if let Some(remaining_secs) = lease.checkpoint(now_ms) {
                lease.checkpoint_asked = true;
                due.push((lease.id, remaining_secs));
            }
        }
        due
    }

    /// A checkpoint was applied; 0 takes back those before.
    pub fn checkpointed(&mut self, id: LeaseId, remaining_secs: i64) {
        if let Some(&slot) = self.index.get(&id) {
            let lease = &mut self.leases[slot as usize];
            lease.recorded_secs = remaining_secs.clamp(0, lease.ttl_secs);
            lease.checkpoint_asked = false;
        }
    }

    /// Timers held, valid or stale.
    #[cfg(test)]
    pub(super) fn timers(&self) -> usize {
        self.wheel.len() + self.retries.len()
    }

    fn observe(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }

    fn arm(&mut self, slot: u32) {
        let lease = &self.leases[slot as usize];
        self.wheel.insert(lease.deadline_ms, Timer { slot, generation: lease.generation });
    }

    /// A timer to look at by now; those that wait for their retry first. Empty when demoted.
    fn next_timer(&mut self, now_ms: u64) -> Option<Timer> {
        match self.retries.front() {
            Some((retry_ms, _)) if *retry_ms <= now_ms => self.retries.pop_front().map(|(_, timer)| timer),
            _ => self.wheel.pop(now_ms),
        }
    }

    /// Drops stale timers once they outnumber the leases: constant work for each timer that became stale.
    fn sweep(&mut self) {
        let wanted = |timer: Timer| self.leases[timer.slot as usize].generation == timer.generation;
        let tolerated = 2 * self.index.len() + STALE_MIN;
        if self.wheel.len() > tolerated {
            self.wheel.retain(wanted);
        }
        if self.retries.len() > tolerated {
            self.retries.retain(|(_, timer)| wanted(*timer));
        }
    }

    /// Places of all leases in the order of their deadlines, then ids.
    fn by_expiry(&self) -> Vec<u32> {
        let mut order: Vec<u32> =
            (0u32..).zip(&self.leases).filter(|(_, l)| l.live).map(|(slot, _)| slot).collect();
        order.sort_unstable_by_key(|&slot| {
            let lease = &self.leases[slot as usize];
            (lease.deadline_ms, lease.id)
        });
        order
    }

    /// Lets each lease end a second or more after the one that is 750 places ahead of it.
    fn spread(&mut self, order: &[u32]) {
        for (&ahead, &slot) in order.iter().zip(&order[SPREAD_PER_SEC..]) {
            let earliest_ms = self.leases[ahead as usize].deadline_ms.saturating_add(1_000);
            let lease = &mut self.leases[slot as usize];
            lease.deadline_ms = lease.deadline_ms.max(earliest_ms);
        }
    }
}

const _: () = assert!(size_of::<Lease>() == 40, "there may be a million of them");
