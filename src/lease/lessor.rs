//! Deadlines of leases, in memory: who may still renew, whose time is up, what has to be recorded.
//!
//! Time is an argument, milliseconds of the clock of leases ([`super::clock`]); there is no task, no lock and no I/O inside.
//! Every member has a lessor and tells it what the log applied (`restore`, `revoke`, `recorded`). Only a promoted one, the
//! leader's, decides: it is asked for `expired` leases some times a second, proposes to revoke them, and hears of it by
//! `revoke`.
//!
//! ```text
//!   grant ──► running ──deadline──► expired ──revoke applied──► gone
//!               ▲  │ renew            │  ▲ reported by `expired`, once and then every 7 s until revoked;
//!               └──┘                  └──┘ cannot be renewed any more: clients may have been told that it is over
//! ```
//!
//! What is recorded of a lease is when it was renewed last. While nothing is, the next leader gives it all of its TTL, and
//! renewals need no log. Once something is, a later renewal has to be recorded before it is answered, lest the next leader
//! count from the earlier one. It may be [`SLACK_MS`] old, which every new leader adds.
//!
//! Always true here (the rules L-1 to L-10 of the contract, as far as they are about time):
//! 1. A lease is never reported before its deadline, and in the tick after it at the latest, if `limit` allows.
//! 2. Promoted: each lease has one valid timer, at or before its deadline, in the wheel or among the retries. A renewal
//!    moves the deadline away and leaves the timer alone; a deadline that comes nearer gets a new generation.
//! 3. `recorded_ms` is what the replicated table says, not what this member would like it to say.
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
/// A renewal is not recorded if one was so short a time before.
pub const SLACK_MS: u64 = 250;
/// A lone member does not record leases before so much of their time is gone, and half of it.
const UNUSED_MAX_MS: u64 = 10_000;
/// Places that one search for idle leases looks at.
const SEARCH_MAX: usize = 20_000;
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
        /// An earlier renewal is in the log or on its way there: this one has to be, before it is answered.
        must_record: bool,
    },
    /// The deadline has passed; the lease is about to be revoked.
    Expired,
    /// There is no such lease.
    Unknown,
    /// This lessor is not the one that decides.
    Demoted,
}

/// Nothing is recorded of a lease.
const NEVER: u64 = u64::MAX;

/// One lease, 40 bytes. A free place keeps its generation.
struct Lease {
    id: LeaseId,
    ttl_secs: i64,
    /// Meaningful once promoted; before that, the expiry as far as it is known.
    deadline_ms: u64,
    /// The renewal that was recorded last, or [`NEVER`].
    recorded_ms: u64,
    /// Distinguishes the valid timer from stale ones. Wraps after 2^32 changes of one place; stale timers don't live
    /// that long, see `sweep`.
    generation: u32,
    live: bool,
    /// Something was taken to be recorded and nothing has been applied since: it may be on its way to the log.
    is_asked: bool,
    /// What is recorded was recorded since the last promotion.
    is_own_record: bool,
    /// Reported as expired: its revocation may be on its way.
    is_reported: bool,
}

impl Lease {
    /// A free place.
    fn free(generation: u32) -> Lease {
        Lease {
            id: 0,
            ttl_secs: 0,
            deadline_ms: 0,
            recorded_ms: NEVER,
            generation,
            live: false,
            is_asked: false,
            is_own_record: false,
            is_reported: false,
        }
    }

    fn ttl_ms(&self) -> u64 {
        self.ttl_secs.unsigned_abs() * 1_000
    }

    fn remaining_ms(&self, now_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(now_ms)
    }

    /// When it was renewed last, or would have been, if time was added to it.
    fn since_ms(&self) -> u64 {
        self.deadline_ms.saturating_sub(self.ttl_ms())
    }

    fn is_recorded(&self) -> bool {
        self.recorded_ms != NEVER
    }

    /// The deadline as the replicated table has it.
    fn recorded_deadline_ms(&self, now_ms: u64) -> u64 {
        let since_ms = if self.is_recorded() { self.recorded_ms } else { now_ms };
        since_ms.saturating_add(self.ttl_ms())
    }

    fn must_record(&self, now_ms: u64) -> bool {
        let is_fresh = self.is_own_record && now_ms.saturating_sub(self.recorded_ms) <= SLACK_MS;
        self.is_asked || self.is_recorded() && !is_fresh
    }

    /// Whether it runs and nothing is recorded of it.
    fn is_unrecorded(&self, now_ms: u64) -> bool {
        self.live && !self.is_recorded() && self.deadline_ms > now_ms
    }

    /// Whether nobody has renewed it for long.
    fn is_idle(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms()) > UNUSED_MAX_MS.max(self.ttl_ms() / 2)
    }

    /// What to record of it.
    fn ask(&mut self) -> (LeaseId, Option<u64>) {
        self.is_asked = true;
        (self.id, Some(self.since_ms()))
    }
}

/// All leases of a member.
pub struct Lessor {
    min_ttl_secs: i64,
    primary: bool,
    is_paused: bool,
    /// The latest time seen: two callers that read the clock before they took the lock can't turn it back.
    now_ms: u64,
    index: HashMap<LeaseId, u32>,
    leases: Vec<Lease>,
    free: Vec<u32>,
    wheel: Wheel,
    /// Reported leases, in the order in which they are to be reported again.
    retries: VecDeque<(u64, Timer)>,
    /// Leases of which something is recorded.
    recorded: usize,
    /// Where the next search for idle leases begins, so that all get their turn.
    record_cursor: usize,
    /// While all leases are to be recorded at once: places of those of which nothing is, and perhaps of others.
    unrecorded: Option<Vec<u32>>,
}

impl Lessor {
    /// No leases, demoted. The minimum is normally applied before a grant is proposed; here it catches leases that were
    /// granted under a shorter one.
    pub fn new(min_ttl_secs: i64) -> Lessor {
        Lessor {
            min_ttl_secs: min_ttl_secs.clamp(1, TTL_MAX_SECS),
            primary: false,
            is_paused: false,
            now_ms: 0,
            index: HashMap::new(),
            leases: Vec::new(),
            free: Vec::new(),
            wheel: Wheel::new(0),
            retries: VecDeque::new(),
            recorded: 0,
            record_cursor: 0,
            unrecorded: None,
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

    /// Whether something is recorded of any lease: of use only together with later readings of the clock.
    pub fn has_records(&self) -> bool {
        self.recorded > 0
    }

    /// A lease of the replicated table, granted just now or loaded: runs since it was recorded, or from now on. Takes the
    /// place of one with the same id. The minimum does not concern those that belong to keys.
    pub fn restore(&mut self, id: LeaseId, lease: &table::Lease, now_ms: u64) {
        let now_ms = self.observe(now_ms);
        self.revoke(id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.leases.push(Lease::free(0));
            u32::try_from(self.leases.len() - 1).expect("fewer leases than addresses for 40 bytes each")
        });
        self.index.insert(id, slot);
        let min_ttl_secs = if lease.belongs_to_keys { 1 } else { self.min_ttl_secs };
        let ttl_secs = lease.ttl_secs.clamp(min_ttl_secs, TTL_MAX_SECS);
        let recorded_ms = lease.since_ms.unwrap_or(NEVER);
        self.recorded += usize::from(recorded_ms != NEVER);
        let lease = &mut self.leases[slot as usize];
        *lease = Lease { id, ttl_secs, recorded_ms, live: true, ..Lease::free(lease.generation) };
        lease.deadline_ms = lease.recorded_deadline_ms(now_ms);
        if self.primary {
            self.arm(slot);
            if let Some(unrecorded) = &mut self.unrecorded {
                unrecorded.push(slot);
            }
        }
    }

    /// A revocation was applied. Returns whether there was such a lease.
    pub fn revoke(&mut self, id: LeaseId) -> bool {
        let Some(slot) = self.index.remove(&id) else { return false };
        let lease = &mut self.leases[slot as usize];
        self.recorded -= usize::from(lease.is_recorded());
        *lease = Lease::free(lease.generation.wrapping_add(1));
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
        let renewed = Renewal::Renewed { ttl_secs: lease.ttl_secs, must_record: lease.must_record(now_ms) };
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
    /// None on a demoted or paused lessor.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<LeaseId> {
        let now_ms = self.observe(now_ms);
        let mut expired = Vec::new();
        while !self.is_paused
            && expired.len() < limit
            && let Some(timer) = self.next_timer(now_ms)
        {
            let lease = &mut self.leases[timer.slot as usize];
            if lease.generation != timer.generation {
                continue;
            }
            if lease.deadline_ms > now_ms {
                self.wheel.insert(lease.deadline_ms, timer);
            } else {
                lease.is_reported = true;
                expired.push(lease.id);
                self.retries.push_back((now_ms.saturating_add(RETRY_MS), timer));
            }
        }
        expired
    }

    /// This member became the leader. Each lease runs since its recorded renewal, which may not have been the last one by
    /// [`SLACK_MS`], or starts anew if there is none; and for at least `extend_ms` from now, as nobody could renew it while
    /// there was no leader. Of many, no more than 750 end in any second, so that revoking them does not crowd out the
    /// clients. `now_ms` counts even if it is before what this lessor has seen: the leader before may have been ahead.
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        self.now_ms = now_ms;
        for lease in &mut self.leases {
            let slack_ms = if lease.is_recorded() { SLACK_MS } else { 0 };
            let end_ms = lease.recorded_deadline_ms(now_ms).saturating_add(slack_ms);
            lease.deadline_ms = end_ms.max(now_ms).saturating_add(extend_ms);
            (lease.is_asked, lease.is_own_record, lease.is_reported) = (false, false, false);
        }
        (self.primary, self.is_paused) = (true, false);
        self.unrecorded = None;
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

    /// This leader is without followers, so that nobody can renew: nothing is reported as expired until [`Lessor::resume`].
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// It has followers again: what has not been reported as expired runs for at least `extend_ms` from now.
    pub fn resume(&mut self, now_ms: u64, extend_ms: u64) {
        self.is_paused = false;
        let end_ms = self.observe(now_ms).saturating_add(extend_ms);
        for lease in self.leases.iter_mut().filter(|lease| lease.live && !lease.is_reported) {
            lease.deadline_ms = lease.deadline_ms.max(end_ms);
        }
    }

    /// This member is not the leader any more: nothing expires, nothing is renewed.
    pub fn demote(&mut self) {
        self.primary = false;
        self.unrecorded = None;
        self.wheel = Wheel::new(self.now_ms);
        self.retries = VecDeque::new();
    }

    /// Ids of all leases, the first to expire first. On a demoted lessor, as if nobody had renewed.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.by_expiry().into_iter().map(|slot| self.leases[slot as usize].id).collect()
    }

    /// Up to `limit` leases that are to be recorded though nobody renews them, with the times to record: `at_once`, those of
    /// which nothing is recorded, each once; else, those that have used up half of their TTL, until `recorded`. None on a
    /// demoted lessor. Looks at a part of all leases, but for the first call `at_once`.
    pub fn due_records(&mut self, now_ms: u64, at_once: bool, limit: usize) -> Vec<(LeaseId, Option<u64>)> {
        let now_ms = self.observe(now_ms);
        if !self.primary {
            return Vec::new();
        }
        if at_once {
            return self.never_recorded(now_ms, limit);
        }
        self.unrecorded = None;
        let mut due = Vec::new();
        for _ in 0..self.leases.len().min(SEARCH_MAX) {
            if due.len() >= limit {
                break;
            }
            self.record_cursor = (self.record_cursor + 1) % self.leases.len();
            let lease = &mut self.leases[self.record_cursor];
            if lease.is_unrecorded(now_ms) && lease.is_idle(now_ms) {
                due.push(lease.ask());
            }
        }
        due
    }

    fn never_recorded(&mut self, now_ms: u64, limit: usize) -> Vec<(LeaseId, Option<u64>)> {
        let leases = &mut self.leases;
        let all = || (0u32..).zip(&*leases).filter(|(_, lease)| lease.live).map(|(slot, _)| slot).collect();
        let unrecorded = self.unrecorded.get_or_insert_with(all);
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(slot) = unrecorded.pop()
        {
            let lease = &mut leases[slot as usize];
            if lease.is_unrecorded(now_ms) && !lease.is_asked {
                due.push(lease.ask());
            }
        }
        due
    }

    /// What to record of leases: their times, or that nothing is known any more if `forget`. Those that are gone are left
    /// out.
    pub fn records(&mut self, ids: &[LeaseId], forget: bool) -> Vec<(LeaseId, Option<u64>)> {
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(&slot) = self.index.get(id) {
                let (id, since_ms) = self.leases[slot as usize].ask();
                records.push((id, since_ms.filter(|_| !forget)));
            }
        }
        records
    }

    /// A record was applied: since when the lease runs, or that nothing is recorded any more.
    pub fn recorded(&mut self, id: LeaseId, since_ms: Option<u64>) {
        let Some(&slot) = self.index.get(&id) else { return };
        let lease = &mut self.leases[slot as usize];
        self.recorded -= usize::from(lease.is_recorded());
        lease.recorded_ms = since_ms.unwrap_or(NEVER);
        self.recorded += usize::from(lease.is_recorded());
        (lease.is_asked, lease.is_own_record) = (false, self.primary);
        if !self.primary && lease.is_recorded() {
            lease.deadline_ms = lease.recorded_deadline_ms(0);
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
