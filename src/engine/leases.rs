//! The keeper of lease deadlines: the pure lessor, the clock of leases, a lock, and the renewals that wait to be recorded.

use super::apply::LeaseChange;
use crate::lease::clock::{Clock, Reading};
use crate::lease::lessor::{Lessor, Renewal};
use crate::lease::table::Leases;
use crate::metrics::METRICS;
use crate::types::LeaseId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// While something is recorded of leases, the time is recorded at least so often: all that a restart of all members loses.
const CLOCK_AGE_MAX_MS: u64 = 10_000;

/// What goes into the log: the time, and since when leases run; `None` takes back what was recorded.
pub type Records = (u64, Vec<(LeaseId, Option<u64>)>);

/// See the module.
pub struct LeaseKeeper {
    state: Mutex<State>,
    /// The term in which this member decides; what it decides counts in that term alone.
    term: AtomicU64,
    started: Instant,
    /// Something waits in `State::renewals`.
    waiting: Notify,
    recording: tokio::sync::Mutex<()>,
}

struct State {
    lessor: Lessor,
    clock: Clock,
    /// Time in the record that was applied last.
    recorded_ms: u64,
    /// Renewals that are answered when they have been recorded.
    renewals: Vec<Waiting>,
}

/// A renewal that waits, and who is told that it was recorded. Dropped, it was not.
pub type Waiting = (LeaseId, oneshot::Sender<()>);

impl LeaseKeeper {
    /// Knows the leases of the replicated table, and the time that was recorded last; decides nothing until promoted.
    pub fn new(leases: &Leases, reading: Reading, ttl_min_secs: i64) -> LeaseKeeper {
        let mut lessor = Lessor::new(ttl_min_secs);
        for (id, lease) in leases {
            lessor.restore(*id, lease, reading.ms);
        }
        let clock = Clock::new(reading, 0);
        let state = State { lessor, clock, recorded_ms: reading.ms, renewals: Vec::new() };
        LeaseKeeper {
            state: Mutex::new(state),
            term: AtomicU64::new(0),
            started: Instant::now(),
            waiting: Notify::new(),
            recording: tokio::sync::Mutex::default(),
        }
    }

    /// The replicated table came from another member, whole: knows its leases from now on, and no others.
    pub fn reload(&self, leases: &Leases, reading: Reading) {
        let local_ms = self.local_ms();
        let State { lessor, clock, recorded_ms, .. } = &mut *self.state.lock();
        clock.hear(reading, local_ms);
        *recorded_ms = reading.ms;
        for id in lessor.leases() {
            if !leases.contains_key(&id) {
                lessor.revoke(id);
            }
        }
        for (id, lease) in leases {
            lessor.restore(*id, lease, clock.now_ms(local_ms));
        }
    }

    fn local_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Calls `f` with the lessor and the time.
    fn with<T>(&self, f: impl FnOnce(&mut Lessor, u64) -> T) -> T {
        let State { lessor, clock, .. } = &mut *self.state.lock();
        f(lessor, clock.now_ms(self.local_ms()))
    }

    /// Takes in what was applied.
    pub fn learn(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let local_ms = self.local_ms();
        let State { lessor, clock, recorded_ms, .. } = &mut *self.state.lock();
        for change in changes {
            match *change {
                LeaseChange::Granted(id, lease) => {
                    METRICS.lease.granted.inc();
                    METRICS.lease.ttl.observe(lease.ttl_secs as f64);
                    lessor.restore(id, &lease, clock.now_ms(local_ms));
                }
                LeaseChange::Revoked(id) => {
                    METRICS.lease.revoked.inc();
                    lessor.revoke(id);
                }
                LeaseChange::Recorded(id, since_ms) => lessor.recorded(id, since_ms),
                LeaseChange::Checkpointed(id) => lessor.recorded(id, Some(clock.now_ms(local_ms))),
                LeaseChange::Read(reading) => {
                    clock.hear(reading, local_ms);
                    *recorded_ms = reading.ms;
                }
            }
        }
    }

    /// This member leads now, in `term`: it decides, after giving everyone `extend` more.
    pub fn promote(&self, term: u64, extend: Duration) {
        let local_ms = self.local_ms();
        let State { lessor, clock, .. } = &mut *self.state.lock();
        clock.lead(term, local_ms);
        lessor.promote(clock.now_ms(local_ms), extend.as_millis() as u64);
        self.term.store(term, Ordering::SeqCst);
    }

    /// This member leads, but has no followers: nothing ends.
    pub fn pause(&self) {
        self.with(|lessor, _| lessor.pause());
    }

    /// It has followers again: everyone has `extend` more at least.
    pub fn resume(&self, extend: Duration) {
        self.with(|lessor, now_ms| lessor.resume(now_ms, extend.as_millis() as u64));
    }

    /// This member leads no more.
    pub fn demote(&self) {
        let State { lessor, clock, renewals, .. } = &mut *self.state.lock();
        lessor.demote();
        clock.follow(self.local_ms());
        renewals.clear();
    }

    /// The term in which it decides, or did last. To be read before it is asked for a decision.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::SeqCst)
    }

    /// The time, from the leader; `None` if this member is not the leader.
    pub fn reading(&self) -> Option<Reading> {
        self.state.lock().clock.reading(self.local_ms())
    }

    /// The time that the leader told.
    pub fn hear(&self, reading: Reading) {
        self.state.lock().clock.hear(reading, self.local_ms());
    }

    /// Renews a lease. If that has to be recorded, the receiver resolves when this leader has done so; to an error if it leads
    /// no more.
    pub fn renew(&self, id: LeaseId) -> (Renewal, Option<oneshot::Receiver<()>>) {
        let State { lessor, clock, renewals, .. } = &mut *self.state.lock();
        let renewal = lessor.renew(id, clock.now_ms(self.local_ms()));
        let Renewal::Renewed { must_record, .. } = renewal else { return (renewal, None) };
        METRICS.lease.renewed.inc();
        let recorded = must_record.then(|| {
            let (told, recorded) = oneshot::channel();
            renewals.push((id, told));
            self.waiting.notify_one();
            recorded
        });
        (renewal, recorded)
    }

    /// Resolves when renewals wait to be recorded, or have since the last call.
    pub async fn until_waiting(&self) {
        self.waiting.notified().await;
    }

    /// Only who holds this takes records and proposes them: so what is taken later comes later in the log.
    pub async fn recording(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.recording.lock().await
    }

    /// What has to be recorded now, if anything, up to `limit` leases, and who waits for it. With `others`, there is somebody
    /// who might lead next.
    pub fn due_records(&self, others: bool, limit: usize) -> Option<(Records, Vec<Waiting>)> {
        let State { lessor, clock, recorded_ms, renewals } = &mut *self.state.lock();
        let Some(reading) = clock.reading(self.local_ms()) else {
            renewals.clear(); // taken just before this member was demoted
            return None;
        };
        let now_ms = reading.ms;
        let waiting: Vec<Waiting> = renewals.drain(..renewals.len().min(limit)).collect();
        let ids: BTreeSet<LeaseId> =
            waiting.iter().filter(|(_, told)| !told.is_closed()).map(|(id, _)| *id).collect();
        let mut records = lessor.records(&Vec::from_iter(ids), !others);
        records.extend(lessor.due_records(now_ms, others, limit.saturating_sub(records.len())));
        let is_old = lessor.has_records() && now_ms.saturating_sub(*recorded_ms) > CLOCK_AGE_MAX_MS;
        (!records.is_empty() || is_old).then_some(((now_ms, records), waiting))
    }

    /// What these leases have to be recorded with, before another member or process takes over.
    pub fn records(&self, ids: &[LeaseId]) -> Records {
        self.with(|lessor, now_ms| (now_ms, lessor.records(ids, false)))
    }

    /// Milliseconds left and seconds granted. Means something only where this member decides.
    pub fn remaining(&self, id: LeaseId) -> Option<(u64, i64)> {
        self.with(|lessor, now_ms| lessor.remaining(id, now_ms))
    }

    /// Whether this member decides.
    pub fn is_primary(&self) -> bool {
        self.with(|lessor, _| lessor.is_primary())
    }

    /// Leases whose time is up.
    pub fn expired(&self, limit: usize) -> Vec<LeaseId> {
        self.with(|lessor, now_ms| lessor.expired(now_ms, limit))
    }

    /// How many leases there are.
    pub fn count(&self) -> usize {
        self.with(|lessor, _| lessor.len())
    }

    /// All leases, the first to expire first.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.with(|lessor, _| lessor.leases())
    }
}
