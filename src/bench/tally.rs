//! What a run has seen, as numbers: answers with their latency, errors by code, answers that were wrong. Each thread keeps
//! a [`Tally`] behind a [`Ledger`]; `coordinator` adds them up.

use super::wire::Malformed;
use crate::client::Status;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Latencies are kept up to this; longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;
/// Answers between two times that the common counter hears of them.
const SHARED_EVERY: u64 = 64;
/// The code of requests of the open loop that were due and that no client was free to send.
pub const OVERFLOW: &str = "Overflow";

/// Why a request did not count.
#[derive(Debug)]
pub enum Failure {
    /// The server said no, or nothing.
    Refused(Status),
    /// It answered, but not what it should have. One of these spoils the run.
    Wrong(String),
    /// There is nothing left to be done; not an error.
    Finished,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Refused(status)
    }
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Failure {
        Failure::Wrong("an answer that is no message of its kind".into())
    }
}

/// Numbers of a run or a part of one.
pub struct Tally {
    /// Good answers that were measured.
    pub operations: u64,
    /// Their latency.
    pub latency_us: Histogram<u64>,
    /// The same by kind of request, where a workload has several.
    pub kinds: BTreeMap<&'static str, Histogram<u64>>,
    /// Sums of what else was measured.
    pub sums: BTreeMap<&'static str, u64>,
    /// Good answers, measured or not.
    pub acked: u64,
    /// Writes that were sent, in the unit that the check counts, and those of them that were acknowledged.
    pub writes_sent: u64,
    /// See above.
    pub writes_acked: u64,
    /// Leases that nobody needs any more.
    pub leases: Vec<i64>,
    /// Requests that failed, measured or not.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Their number for each code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Answers that were not what they should have been.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<String>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            operations: 0,
            latency_us: histogram(),
            kinds: BTreeMap::new(),
            sums: BTreeMap::new(),
            acked: 0,
            writes_sent: 0,
            writes_acked: 0,
            leases: Vec::new(),
            errors: 0,
            first_error: None,
            errors_by_code: BTreeMap::new(),
            wrong: 0,
            first_wrong: None,
        }
    }

    /// Adds what another thread has seen.
    pub fn add(&mut self, other: Tally) {
        self.operations += other.operations;
        self.acked += other.acked;
        self.writes_sent += other.writes_sent;
        self.writes_acked += other.writes_acked;
        self.leases.extend(other.leases);
        self.errors += other.errors;
        self.wrong += other.wrong;
        self.latency_us += other.latency_us;
        for (kind, latency) in other.kinds {
            *self.kinds.entry(kind).or_insert_with(histogram) += latency;
        }
        for (name, sum) in other.sums {
            *self.sums.entry(name).or_default() += sum;
        }
        for (code, count) in other.errors_by_code {
            *self.errors_by_code.entry(code).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
        self.first_wrong = self.first_wrong.take().or(other.first_wrong);
    }

    fn measure(&mut self, is_operation: bool, kind: Option<&'static str>, latency: Duration) {
        let us = micros(latency);
        if is_operation {
            self.operations += 1;
            self.latency_us.saturating_record(us);
        }
        if let Some(kind) = kind {
            self.kinds.entry(kind).or_insert_with(histogram).saturating_record(us);
        }
    }

    fn error(&mut self, code: &str, text: impl FnOnce() -> String) {
        self.errors += 1;
        match self.errors_by_code.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.errors_by_code.insert(code.to_owned(), 1)),
        }
        self.first_error.get_or_insert_with(text);
    }
}

/// Whole microseconds, at least one, since a histogram of latencies has no zero.
fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// An empty histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("constant bounds that are in order")
}

/// The tally of one thread, and the measured window as the thread knows it.
pub struct Ledger {
    tally: RefCell<Tally>,
    since: Cell<Option<Instant>>,
    until: Cell<Option<Instant>>,
    /// Whether events are what is measured, and requests only cause them.
    counts_events: bool,
    /// Good answers of all threads, about: for the progress bar.
    shown: Arc<AtomicU64>,
}

impl Ledger {
    /// An empty one, before the window.
    pub fn new(counts_events: bool, shown: Arc<AtomicU64>) -> Ledger {
        let (since, until) = (Cell::new(None), Cell::new(None));
        Ledger { tally: RefCell::new(Tally::new()), since, until, counts_events, shown }
    }

    /// Begins the measured window.
    pub fn open(&self, since: Instant) {
        self.since.set(Some(since));
    }

    /// Ends the measured window; clients stop.
    pub fn close(&self, until: Instant) {
        self.until.set(Some(until));
    }

    /// Whether this is the time that counts.
    pub fn is_measured(&self) -> bool {
        self.since.get().is_some() && !self.is_over()
    }

    /// Whether clients are to stop.
    pub fn is_over(&self) -> bool {
        self.until.get().is_some()
    }

    /// When the window ended.
    pub fn until(&self) -> Option<Instant> {
        self.until.get()
    }

    /// Notes a good answer, which counts if it came inside the window.
    pub fn answered(&self, kind: Option<&'static str>, sent: Instant) {
        self.acked();
        if self.is_measured() {
            self.tally.borrow_mut().measure(!self.counts_events, kind, sent.elapsed());
        }
    }

    /// Notes a good answer, which counts if it was due inside the window, whenever it came.
    pub fn answered_due(&self, kind: Option<&'static str>, due: Instant) {
        self.acked();
        if self.is_inside(due) {
            self.tally.borrow_mut().measure(!self.counts_events, kind, due.elapsed());
        }
    }

    /// Notes an event that came `now`, and whose cause was due inside the window or not.
    pub fn delivered(&self, now: Instant, due: Instant) {
        if self.is_inside(due) {
            let mut tally = self.tally.borrow_mut();
            tally.measure(self.counts_events, Some("event"), now.saturating_duration_since(due));
        }
    }

    /// Notes the end of a lease, which counts whenever it comes: that is long after the load.
    pub fn ended(&self, late: Duration) {
        self.tally.borrow_mut().measure(true, None, late);
    }

    /// Whether a request that was due then is of no more interest: it was not sent before the window began.
    pub fn is_stale(&self, due: Instant) -> bool {
        self.since.get().is_some_and(|since| due < since)
    }

    /// Notes a request that was due, and that nobody sent. How long it waited enters the latencies, so that the slowest are
    /// not those that were never sent.
    pub fn unsent(&self, due: Instant) {
        if let (true, Some(until)) = (self.is_inside(due), self.until.get()) {
            let mut tally = self.tally.borrow_mut();
            tally.error(OVERFLOW, || "no client was free when a request was due".to_owned());
            if !self.counts_events {
                tally.latency_us.saturating_record(micros(until.saturating_duration_since(due)));
            }
        }
    }

    /// Whether a moment lies in the window.
    fn is_inside(&self, moment: Instant) -> bool {
        self.since.get().is_some_and(|since| moment >= since)
            && self.until.get().is_none_or(|until| moment < until)
    }

    fn acked(&self) {
        let mut tally = self.tally.borrow_mut();
        tally.acked += 1;
        if tally.acked.is_multiple_of(SHARED_EVERY) {
            self.shown.fetch_add(SHARED_EVERY, Ordering::Relaxed);
        }
    }

    /// Notes a request that failed.
    pub fn failed(&self, failure: Failure) {
        match failure {
            Failure::Refused(status) => {
                self.tally.borrow_mut().error(&format!("{:?}", status.code()), || status.to_string());
            }
            Failure::Wrong(text) => self.wrong(text),
            Failure::Finished => {}
        }
    }

    /// Notes that the server did something wrong.
    pub fn wrong(&self, text: String) {
        let mut tally = self.tally.borrow_mut();
        tally.wrong += 1;
        tally.first_wrong.get_or_insert(text);
    }

    /// Notes a lease that is to be revoked when all is done.
    pub fn granted(&self, lease: i64) {
        self.tally.borrow_mut().leases.push(lease);
    }

    /// Writes that were acknowledged so far.
    pub fn acked_writes(&self) -> u64 {
        self.tally.borrow().writes_acked
    }

    /// Notes that writes go out.
    pub fn writes_sent(&self, count: u64) {
        self.tally.borrow_mut().writes_sent += count;
    }

    /// Notes that writes were acknowledged.
    pub fn writes_acked(&self, count: u64) {
        self.tally.borrow_mut().writes_acked += count;
    }

    /// Adds to a sum, if this is the time that counts.
    pub fn sum(&self, name: &'static str, amount: u64) {
        if self.is_measured() {
            *self.tally.borrow_mut().sums.entry(name).or_default() += amount;
        }
    }

    /// The numbers; nothing is left.
    pub fn take(&self) -> Tally {
        self.tally.replace(Tally::new())
    }
}
