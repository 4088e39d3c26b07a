//! How long requests take, and in which phase: for the metrics, and for the log when something was slow (contract G-10).
//!
//! An entry carries the times at which it passed through the log and the applier of this member, as long as it is the
//! one that was proposed here. Writing one down is an atomic store; nothing is kept when the request is done.

use super::command::{Applied, Range, Txn};
use super::describe;
use super::entry::Entry;
use super::kinds::{Kind, PerKind};
use crate::metrics::{METRICS, observe_since};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of so many writes, the phases of one are shown as metrics.
const SAMPLE: u64 = 16;

/// A point that a write passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Handed to the log's thread.
    Queued,
    /// Synced.
    Durable,
    /// Its turn to be applied.
    Applying,
    /// Applied.
    Applied,
}

/// When an entry passed which point.
#[derive(Debug)]
pub struct Timing {
    proposed: Instant,
    /// Nanoseconds after `proposed`, by [`Step`]; 0: not yet.
    passed: [AtomicU64; 4],
}

impl Timing {
    /// Of an entry that is proposed now.
    pub fn begin() -> Timing {
        Timing { proposed: Instant::now(), passed: Default::default() }
    }

    /// Notes that a point was passed.
    pub fn pass(&self, step: Step, at: Instant) {
        let nanos = at.saturating_duration_since(self.proposed).as_nanos();
        self.passed[step as usize].store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The phases until now. A point that was not passed leaves its phase, and those after it, to the one before.
    fn phases(&self, now: Instant) -> [(&'static str, Duration); 5] {
        let end = now.saturating_duration_since(self.proposed);
        let mut from = Duration::ZERO;
        let mut phase = |step: Option<Step>| {
            let nanos = step.map(|step| self.passed[step as usize].load(Ordering::Relaxed));
            let to = match nanos {
                Some(0) => from,
                Some(nanos) => Duration::from_nanos(nanos),
                None => end,
            };
            let took = to.saturating_sub(from);
            from = from.max(to);
            took
        };
        [
            ("queue", phase(Some(Step::Queued))),
            ("fsync", phase(Some(Step::Durable))),
            ("raft", phase(Some(Step::Applying))),
            ("apply", phase(Some(Step::Applied))),
            ("send", phase(None)),
        ]
    }
}

static APPLIED: PerKind =
    PerKind::new(|kind, success| METRICS.server.apply_duration.with_label_values(&["v3", kind, success]));
static ANSWERED: PerKind =
    PerKind::new(|kind, success| METRICS.server.request_duration.with_label_values(&[kind, success]));
static RANGED: PerKind =
    PerKind::new(|_, success| METRICS.server.range_duration.with_label_values(&[success]));

/// Notes that `entry`, at `index` of the log, was applied from `begin` to `end`, and says so if that is longer than `limit`.
pub fn applied(
    entry: &Entry,
    index: u64,
    applied: &Applied,
    (begin, end): (Instant, Instant),
    limit: Duration,
) {
    entry.timing().pass(Step::Applying, begin);
    entry.timing().pass(Step::Applied, end);
    let took = end.saturating_duration_since(begin);
    APPLIED.of(Kind::of(entry.command()), applied.is_ok()).observe(took.as_secs_f64());
    if took > limit {
        METRICS.server.slow_apply.inc();
        let response = match applied {
            Ok(outcome) => format!("revision:{}", super::revision_of(outcome)),
            Err(_) => String::new(),
        };
        let request = describe::command(index, entry.command(), entry);
        warn(took, limit, "", &request, &response, &phases_text(entry.timing(), end));
    }
}

/// Notes that a write was answered or failed.
pub fn answered(entry: &Entry, success: bool) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let timing = entry.timing();
    observe_since(ANSWERED.of(Kind::of(entry.command()), success), timing.proposed);
    if COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
        for (name, took) in timing.phases(Instant::now()) {
            METRICS.own.write_phases.with_label_values(&[name]).observe(took.as_secs_f64());
        }
    }
}

/// What is read.
#[derive(Clone, Debug)]
pub enum What {
    /// A range.
    Range(Range),
    /// A transaction of reads.
    Txn(Arc<Txn>),
}

impl What {
    fn text(&self) -> String {
        match self {
            What::Range(query) => describe::range(query),
            What::Txn(query) => describe::read_txn(query),
        }
    }
}

/// A read that is measured.
pub struct Reading {
    what: What,
    begin: Instant,
    limit: Duration,
}

impl Reading {
    /// Begins; reading for longer than `limit` is logged.
    pub fn begin(what: What, limit: Duration) -> Reading {
        note(|| Story::Read(what.clone()));
        Reading { what, begin: Instant::now(), limit }
    }

    /// Ends it: how many were found, in how many bytes if that is known; `None`: it failed.
    pub fn end(self, found: Option<(i64, Option<usize>)>) {
        let (kind, prefix) = match &self.what {
            What::Range(_) => (Kind::Range, "read-only range "),
            What::Txn(_) => (Kind::ReadonlyTxn, "read-only txn "),
        };
        let took = self.begin.elapsed();
        ANSWERED.of(kind, found.is_some()).observe(took.as_secs_f64());
        if kind == Kind::Range {
            METRICS.mvcc.ranges.inc();
            RANGED.of(kind, found.is_some()).observe(took.as_secs_f64());
        }
        if took > self.limit {
            METRICS.server.slow_apply.inc();
            let response = match found {
                Some((count, Some(bytes))) => format!("range_response_count:{count} size:{bytes}"),
                Some((count, None)) => format!("responses:{count}"),
                None => String::new(),
            };
            warn(took, self.limit, prefix, &self.what.text(), &response, &format!("read:{took:?}"));
        }
    }
}

fn warn(took: Duration, limit: Duration, prefix: &str, request: &str, response: &str, phases: &str) {
    tracing::warn!(
        took = ?took,
        "expected-duration" = ?limit,
        prefix,
        request,
        response,
        phases,
        "apply request took too long"
    );
}

fn phases_text(timing: &Timing, now: Instant) -> String {
    timing.phases(now).map(|(name, took)| format!("{name}:{took:?}")).join(" ")
}

/// What a call turned out to ask for, kept until it is answered.
#[derive(Clone)]
pub enum Story {
    /// A write.
    Write(Entry),
    /// A read.
    Read(What),
}

impl Story {
    /// Content of the request with values by their size, and the phases of a write.
    pub fn tell(&self) -> (String, String) {
        match self {
            Story::Write(entry) => {
                let content = describe::request(entry.command()).unwrap_or_default();
                (content, phases_text(entry.timing(), Instant::now()))
            }
            Story::Read(read) => (read.text(), String::new()),
        }
    }
}

thread_local! {
    /// The story of the call that this thread is just polling, if it wants one.
    static LISTENER: RefCell<Option<Option<Story>>> = const { RefCell::new(None) };
}

/// Runs `poll`, and returns what it noted meanwhile.
pub fn listen<T>(poll: impl FnOnce() -> T) -> (T, Option<Story>) {
    LISTENER.set(Some(None));
    let result = poll();
    (result, LISTENER.take().flatten())
}

/// Tells the listener, if there is one, what the call asks for.
pub fn note(story: impl FnOnce() -> Story) {
    LISTENER.with_borrow_mut(|listener| {
        if let Some(heard) = listener {
            *heard = Some(story());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::Command;
    use crate::engine::entry::Origin;

    #[test]
    fn the_phases_are_the_whole_time() {
        let timing = Timing::begin();
        let at = |ms| timing.proposed + Duration::from_millis(ms);
        timing.pass(Step::Queued, at(1));
        timing.pass(Step::Durable, at(3));
        timing.pass(Step::Applying, at(7));
        timing.pass(Step::Applied, at(15));
        let took = |timing: &Timing| timing.phases(at(31)).map(|(_, took)| took.as_millis());
        assert_eq!(took(&timing), [1, 2, 4, 8, 16]);
        // Never synced, such as on a follower.
        timing.passed[Step::Durable as usize].store(0, Ordering::Relaxed);
        assert_eq!(took(&timing), [1, 0, 6, 8, 16]);
    }

    #[test]
    fn a_story_belongs_to_the_call_that_is_polled() {
        let story = || Story::Write(Entry::new(Origin::Server, Command::Compact { revision: 1 }, 0));
        note(story);
        assert!(listen(|| ()).1.is_none());
        assert!(listen(|| note(story)).1.is_some());
        assert!(listen(|| ()).1.is_none());
    }
}
