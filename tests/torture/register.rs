//! Linearizability of single keys, found by search: some order of all operations on a key, each between its request and its
//! answer, in which a plain register would have given the same answers.
//!
//! The search goes as Wing and Gong describe it: any operation may be next whose request came before all answers that are
//! still open; dead ends are remembered by the set of operations done and the state they led to. Revisions play no part.

use std::collections::HashSet;

use crate::history::History;
use crate::journal::{Call, Operation, Value};

/// Steps after which a search is given up.
const STEPS_MAX: usize = 2_000_000;

/// What came of the search for one key.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// There is no such order.
    Violation,
    /// It took too long.
    Unknown,
}

/// What a guard stands for.
#[derive(Clone, Copy, Debug)]
enum Expected {
    State(Option<Value>),
    /// The key was never put at that revision.
    Never,
}

impl Expected {
    /// What a key has to be for `guard` to hold.
    fn of(key: &str, guard: i64, history: &History) -> Expected {
        match history.at(key, guard) {
            _ if guard == 0 => Expected::State(None),
            Some(pair) if pair.modified == guard => Expected::State(Some(pair.value)),
            _ => Expected::Never,
        }
    }

    fn holds(self, state: Option<Value>) -> bool {
        matches!(self, Expected::State(expected) if expected == state)
    }
}

/// What an operation does with the register, and what it was told.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(Option<Value>),
    Write(Value),
    /// Wrote over what it expected.
    Swapped {
        old: Expected,
        new: Value,
    },
    /// Found something else than it expected.
    Kept {
        old: Expected,
        found: Option<Value>,
    },
    Deleted {
        was_there: bool,
    },
    /// Nobody knows whether it took place.
    PerhapsDeleted,
}

impl Step {
    /// The state after the step; `None` when the step cannot have had this answer.
    fn apply(self, state: Option<Value>) -> Option<Option<Value>> {
        match self {
            Step::Read(found) => (found == state).then_some(state),
            Step::Write(value) => Some(Some(value)),
            Step::Swapped { old, new } => old.holds(state).then_some(Some(new)),
            Step::Kept { old, found } => (found == state && !old.holds(state)).then_some(state),
            Step::Deleted { was_there } => (state.is_some() == was_there).then_some(None),
            Step::PerhapsDeleted => Some(None),
        }
    }
}

/// A step that starts at `from` and has ended at `to`.
#[derive(Clone, Copy, Debug)]
struct Interval {
    step: Step,
    from: u64,
    /// `u64::MAX` when it may still take place.
    to: u64,
    /// It may be left out.
    is_optional: bool,
}

/// Judges the operations on one key. Of history only this is used: which value a guard stood for, and which values were
/// never written, which spares the search from trying them.
pub fn judge(key: &str, history: &History, operations: &[Operation]) -> Verdict {
    let written: HashSet<Value> = history
        .events
        .values()
        .flatten()
        .filter_map(|e| (e.key == key).then(|| e.pair.map(|p| p.value))?)
        .collect();
    let deletes = history.events.values().flatten().filter(|e| e.key == key && e.pair.is_none()).count();
    let told = |o: &&Operation| {
        matches!(&o.call, Call::Delete { key: k } if k == key)
            && o.answer.as_ref().is_some_and(|(_, a)| a.has_changed)
    };
    // Deletes whose answers got lost did nothing if those that were answered are all there were.
    let are_deletes_told = operations.iter().filter(told).count() == deletes;
    let mut intervals = Vec::new();
    for operation in operations.iter().filter(|o| !o.is_local() && o.keys().iter().any(|k| k == key)) {
        let answer = operation.answer.as_ref();
        let found = answer.and_then(|(_, answer)| answer.pair).map(|pair| pair.value);
        let has_changed = answer.is_some_and(|(_, answer)| answer.has_changed);
        let step = match (&operation.call, answer) {
            (Call::Get { .. }, None) => continue,
            (Call::Get { .. }, Some(_)) => Step::Read(found),
            (Call::Put { value, .. } | Call::Swap { value, .. }, None) if !written.contains(value) => {
                continue;
            }
            (Call::Put { value, .. }, _) => Step::Write(*value),
            (Call::Swap { guard, value, .. }, _) if answer.is_none() || has_changed => {
                Step::Swapped { old: Expected::of(key, *guard, history), new: *value }
            }
            (Call::Swap { guard, .. }, _) => Step::Kept { old: Expected::of(key, *guard, history), found },
            (Call::Delete { .. }, None) if are_deletes_told => continue,
            (Call::Delete { .. }, None) => Step::PerhapsDeleted,
            (Call::Delete { .. }, Some(_)) => Step::Deleted { was_there: has_changed },
        };
        let to = answer.map_or(u64::MAX, |(at, _)| *at);
        intervals.push(Interval { step, from: operation.invoked, to, is_optional: answer.is_none() });
    }
    search(intervals)
}

/// Depth first over all orders that the times allow.
fn search(mut intervals: Vec<Interval>) -> Verdict {
    intervals.sort_by_key(|interval| interval.from);
    let mut seen = HashSet::new();
    // The operations done: all before the first number, and those listed behind it.
    let mut open: Vec<(usize, Vec<usize>, Option<Value>)> = vec![(0, Vec::new(), None)];
    let mut steps = 0;
    while let Some((first, done, state)) = open.pop() {
        let Some(candidates) = candidates(&intervals, first, &done) else { return Verdict::Linearizable };
        for next in candidates {
            steps += 1;
            if steps > STEPS_MAX {
                return Verdict::Unknown;
            }
            let Some(state) = intervals[next].step.apply(state) else { continue };
            let after = advance(first, &done, next);
            if seen.insert((after.0, after.1.clone(), state)) {
                open.push((after.0, after.1, state));
            }
        }
    }
    Verdict::Violation
}

/// The operations that may be next: requested before any that is left was answered. `None` when all that is left is optional.
fn candidates(intervals: &[Interval], first: usize, done: &[usize]) -> Option<Vec<usize>> {
    let mut done = done.iter().copied().peekable();
    let (mut found, mut end, mut is_over) = (Vec::new(), u64::MAX, true);
    for (index, interval) in intervals.iter().enumerate().skip(first) {
        if done.next_if_eq(&index).is_some() {
            continue;
        }
        if interval.from > end {
            break;
        }
        end = end.min(interval.to);
        is_over &= interval.is_optional;
        found.push(index);
    }
    found.retain(|&i| intervals[i].from <= end);
    (!is_over).then_some(found)
}

/// The set of operations done with one more, in its shortest form.
fn advance(first: usize, done: &[usize], next: usize) -> (usize, Vec<usize>) {
    let mut done = done.to_vec();
    let place = done.partition_point(|i| *i < next);
    done.insert(place, next);
    let dense = done.iter().zip(first..).take_while(|(i, expected)| **i == *expected).count();
    (first + dense, done.split_off(dense))
}
