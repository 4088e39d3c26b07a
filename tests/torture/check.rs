//! Checks by revision: every answer fits the one order of all changes, and that order fits the clock.
//!
//! The order is given by the history of revisions, so nothing has to be searched for: an acknowledged write must be at its
//! revision, a read must show the state of its revision, and who asks after somebody else was answered must not be told an
//! earlier revision. `register.rs` judges the same operations without looking at revisions at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Event, History};
use crate::journal::{Answer, Call, LeaseRecord, Operation, Value};

/// Finds what is wrong with the answers, if anything.
pub fn check(history: &History, operations: &[Operation]) -> Result<(), String> {
    let mut written = BTreeSet::new();
    for operation in operations {
        if let Some((_, answer)) = &operation.answer {
            check_answer(history, operation, answer).map_err(|text| format!("{text}: {operation:?}"))?;
            if answer.has_changed && !written.insert(answer.revision) {
                return Err(format!("two writes were told the same revision: {operation:?}"));
            }
        }
    }
    check_authors(history, operations, &written)?;
    check_order(history, operations)
}

/// An answer fits the history at its revision.
fn check_answer(history: &History, operation: &Operation, answer: &Answer) -> Result<(), String> {
    if answer.revision > history.last() {
        return Err(format!("history ends at {}", history.last()));
    }
    let events = history.events.get(&answer.revision);
    if answer.has_changed {
        let events = events.ok_or("nothing was written at its revision")?;
        return if is_result(&operation.call, events) {
            Ok(())
        } else {
            Err(format!("its revision is {events:?}"))
        };
    }
    match &operation.call {
        Call::Put { .. } => Err("a put changes its key".into()),
        Call::Delete { key } if history.at(key, answer.revision).is_some() => Err("the key was there".into()),
        Call::Swap { key, guard, .. }
            if history.at(key, answer.revision).map_or(0, |pair| pair.modified) == *guard =>
        {
            Err("the comparison held".into())
        }
        Call::Swap { key, .. } | Call::Get { key, .. } => {
            let expected = history.at(key, answer.revision);
            if answer.pair == expected { Ok(()) } else { Err(format!("it should have read {expected:?}")) }
        }
        Call::Delete { .. } => Ok(()),
    }
}

/// True when these events are what the call does.
fn is_result(call: &Call, events: &[Event]) -> bool {
    match call {
        Call::Put { keys, value, lease } => {
            let put = |key: &String, event: &Event| {
                event.key == *key && event.pair.is_some_and(|p| (p.value, p.lease) == (*value, *lease))
            };
            keys.len() == events.len() && keys.iter().zip(events).all(|(key, event)| put(key, event))
        }
        Call::Swap { key, value, .. } => {
            matches!(events, [event] if event.key == *key && event.pair.is_some_and(|p| p.value == *value))
        }
        Call::Delete { key } => matches!(events, [event] if event.key == *key && event.pair.is_none()),
        Call::Get { .. } => false,
    }
}

/// Whoever wrote a revision: it was acknowledged, or one whose answer got lost did, or a lease ended.
fn check_authors(history: &History, operations: &[Operation], written: &BTreeSet<i64>) -> Result<(), String> {
    let mut lost: BTreeMap<Value, &Operation> = BTreeMap::new();
    let mut deletes: Vec<&Operation> = Vec::new();
    for operation in operations.iter().filter(|o| o.answer.is_none()) {
        match &operation.call {
            Call::Put { value, .. } | Call::Swap { value, .. } => drop(lost.insert(*value, operation)),
            Call::Delete { .. } => deletes.push(operation),
            Call::Get { .. } => {}
        }
    }
    for (&revision, events) in history.events.iter().filter(|(revision, _)| !written.contains(revision)) {
        let unknown = || format!("nobody wrote revision {revision}: {events:?}");
        if let Some(pair) = events[0].pair {
            let author = lost.remove(&pair.value).ok_or_else(unknown)?;
            let is_held = match &author.call {
                Call::Swap { key, guard, .. } => {
                    history.at(key, revision - 1).map_or(0, |pair| pair.modified) == *guard
                }
                _ => true,
            };
            if !is_result(&author.call, events) || !is_held {
                return Err(format!("{events:?} at {revision} is not what was asked for: {author:?}"));
            }
        } else if !is_end_of_lease(history, revision, events) {
            let found = deletes.iter().position(|o| is_result(&o.call, events)).ok_or_else(unknown)?;
            deletes.swap_remove(found);
        }
    }
    Ok(())
}

/// True when all keys of one lease go, and no others.
fn is_end_of_lease(history: &History, revision: i64, events: &[Event]) -> bool {
    let lease = |event: &Event| history.at(&event.key, revision - 1).map_or(0, |pair| pair.lease);
    let first = lease(&events[0]);
    first != 0 && events.iter().all(|event| event.pair.is_none() && lease(event) == first)
}

/// Whoever asks after an answer was given is not told an earlier revision, and a write is told a later one. What was written
/// without an answer took place after the request for it.
fn check_order(history: &History, operations: &[Operation]) -> Result<(), String> {
    let mut answered: Vec<(u64, i64)> = operations
        .iter()
        .filter(|o| !o.is_local())
        .filter_map(|o| o.answer.as_ref().map(|(at, answer)| (*at, answer.revision)))
        .collect();
    answered.sort_unstable();
    // What was known for certain at each of these times.
    let mut highest = 0;
    for (_, revision) in &mut answered {
        highest = highest.max(*revision);
        *revision = highest;
    }
    let known = |time: u64| {
        let behind = answered.partition_point(|(at, _)| *at < time);
        answered[..behind].last().map_or(0, |(_, revision)| *revision)
    };
    let revision_of: BTreeMap<Value, i64> = history
        .events
        .iter()
        .flat_map(|(&revision, events)| events.iter().filter_map(move |e| Some((e.pair?.value, revision))))
        .collect();
    for operation in operations.iter().filter(|o| !o.is_local()) {
        let floor = known(operation.invoked);
        let (revision, is_later) = match (&operation.answer, &operation.call) {
            (Some((_, answer)), _) => (answer.revision, answer.revision > floor || !answer.has_changed),
            (None, Call::Put { value, .. } | Call::Swap { value, .. }) => match revision_of.get(value) {
                Some(&revision) => (revision, revision > floor),
                None => continue,
            },
            (None, _) => continue,
        };
        if revision < floor || !is_later {
            return Err(format!("revision {revision} after {floor} had been told: {operation:?}"));
        }
    }
    Ok(())
}

/// No lease ended before its TTL after the last renewal that the server confirmed. `deletes` says when a watcher first saw
/// the end of each key.
pub fn check_leases(leases: &[LeaseRecord], deletes: &BTreeMap<String, u64>) -> Result<(), String> {
    for lease in leases {
        let earliest = lease.renewed + u64::try_from(lease.ttl).expect("a TTL") * 1_000_000;
        // Clocks of different processes on one machine agree; timers may be late, but never early.
        if let Some(&seen) = deletes.get(&lease.key).filter(|seen| **seen < earliest) {
            return Err(format!("seen to end {} us too early at {seen}: {lease:?}", earliest - seen));
        }
        if lease.gone.is_some_and(|gone| gone < earliest) {
            return Err(format!("told to have ended too early: {lease:?}"));
        }
    }
    Ok(())
}
